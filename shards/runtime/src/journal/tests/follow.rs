//! A follower: it finds what a restart would find, never lapped, and holds up nobody.

use super::super::follow;
use super::*;

/// Follows into a state.
fn catch_up(follower: &mut Follower, state: &mut BTreeMap<Entity, Written>) {
    follower.follow(|shard, entity, change| {
        assert_eq!(shard, 0);
        match change {
            follow::Change::Put(record) => drop(state.insert(entity, record)),
            follow::Change::Removed => drop(state.remove(&entity)),
        }
    });
}

fn copied(state: &BTreeMap<Entity, Written>) -> State {
    state.iter().map(|(entity, record)| (*entity, Box::from(&*record.read().unwrap()))).collect()
}

/// Waits until the keeper has done something: a pass that began after this call is over.
fn pass(keeper: &Keeper) {
    keeper.sync_now().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_follower_knows_the_committed_state_whenever_it_looks(parts in prop::collection::vec(changes(), 1..6)) {
        let mut b = bench();
        let mut follower = b.generation.follow();
        let (mut expected, mut found) = (State::new(), BTreeMap::new());
        for (n, part) in parts.iter().enumerate() {
            for change in part {
                match *change {
                    super::Change::Put(id, len) => b.journal.put(call(id.into()), &vec![n as u8; len.into()]),
                    super::Change::Remove(id) => b.journal.remove(call(id.into())),
                    super::Change::Commit => b.journal.commit(),
                }
            }
            catch_up(&mut follower, &mut found);
            // What was put and not committed is not to be seen.
            expected = b.read().0;
            prop_assert!(copied(&found) == expected);
        }
        catch_up(&mut follower, &mut found);
        prop_assert!(copied(&found) == expected);
    }
}

#[test]
fn a_slow_follower_finds_everything_and_the_shard_never_waits_for_it() {
    let mut b = bench();
    let mut follower = b.generation.follow();
    let keeper = b.generation.keep().unwrap();
    // Far more than the segments that are kept ready, or held for it.
    for n in 0..4000u32 {
        b.journal.put(call(u64::from(n % 7)), &[n as u8; 1500]);
        b.journal.commit();
        if n % 500 == 0 {
            pass(&keeper);
        }
    }
    assert!(!b.journal.is_full());
    let mut found = BTreeMap::new();
    catch_up(&mut follower, &mut found);
    // Nobody reads what another still takes segments from.
    drop(keeper);
    assert_eq!(copied(&found), b.read().0);
    assert_eq!(found.len(), 7);
}

#[test]
fn segments_that_a_follower_has_let_go_do_not_pile_up() {
    let mut b = bench();
    let mut follower = b.generation.follow();
    let keeper = b.generation.keep().unwrap();
    let mut found = BTreeMap::new();
    let files = |b: &Bench| std::fs::read_dir(b.shard_dir()).unwrap().count();
    let mut highest = 0;
    for n in 0..4000u32 {
        b.journal.put(call(u64::from(n % 7)), &[n as u8; 1500]);
        b.journal.commit();
        if n % 50 == 0 {
            catch_up(&mut follower, &mut found);
            pass(&keeper);
            highest = highest.max(files(&b));
        }
    }
    catch_up(&mut follower, &mut found);
    drop(keeper);
    assert_eq!(copied(&found), b.read().0);
    // A hundred segments were written.
    assert!(highest < 12, "{highest} files at once");
}

#[test]
fn what_a_follower_holds_stays_as_it_was_and_one_that_is_gone_is_told_nothing() {
    let mut b = bench();
    let mut follower = b.generation.follow();
    let keeper = b.generation.keep().unwrap();
    b.journal.put(call(1), b"first");
    b.journal.commit();
    let mut found = BTreeMap::new();
    catch_up(&mut follower, &mut found);
    drop(follower);
    for n in 0..1000u32 {
        b.journal.put(call(1), &[n as u8; 1500]);
        b.journal.commit();
        if n % 100 == 0 {
            pass(&keeper);
        }
    }
    assert_eq!(&*found[&call(1)].read().unwrap(), b"first");
    found.clear();
    for n in 0..1000u32 {
        b.journal.put(call(1), &[n as u8; 1500]);
        b.journal.commit();
        if n % 50 == 0 {
            pass(&keeper);
        }
    }
    drop(keeper);
    assert_eq!(b.read().0.len(), 1);
}
