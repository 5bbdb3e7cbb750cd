//! The journal as a whole: written, cut short, damaged, full, handed over.

mod copies;
mod follow;
mod rest;

use super::recover::{Trouble, read_shard};
use super::segment::HEADER;
use super::*;
use crate::counts::RuntimeCounts;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use strowger_engine::journal::{Entity, Kind, Sink};

const SEGMENT: usize = 64 << 10;

type State = BTreeMap<Entity, Box<[u8]>>;
/// Every value that an entity has had.
type Past = BTreeMap<Entity, Vec<Box<[u8]>>>;

struct Bench {
    dir: tempfile::TempDir,
    generation: Generation,
    journal: Journal,
    safe: Arc<[AtomicU64]>,
    counts: Arc<RuntimeCounts>,
}

fn spec(dir: &Path) -> JournalSpec {
    JournalSpec { dir: dir.to_owned(), memory: None, segment: SEGMENT, sync: Duration::from_millis(5) }
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let (generation, _) = Generation::begin(spec(dir.path()), prior(dir.path()).unwrap(), 1).unwrap();
    let safe: Arc<[AtomicU64]> = [AtomicU64::new(0)].into();
    let counts = Arc::<RuntimeCounts>::default();
    let journal = generation.journal(0, Arc::clone(&safe), Arc::clone(&counts)).unwrap();
    Bench { dir, generation, journal, safe, counts }
}

impl Bench {
    fn shard_dir(&self) -> PathBuf {
        self.dir.path().join("00000001/shard-0")
    }

    /// What a process that starts now would find.
    fn read(&self) -> (State, Vec<Fault>) {
        read(&self.shard_dir())
    }
}

fn read(dir: &Path) -> (State, Vec<Fault>) {
    let mut faults = vec![];
    let found = read_shard(&[dir.to_owned()], 1, 0, &mut faults).unwrap();
    (found.records.into_iter().collect(), faults)
}

/// How far a segment's file is valid.
fn valid_to(bytes: &[u8]) -> usize {
    let header = super::segment::read_header(Path::new("s"), bytes).unwrap().unwrap();
    header.committed.unwrap() as usize
}

fn call(id: u64) -> Entity {
    Entity { kind: Kind::Call, id }
}

fn cdr(id: u64) -> Entity {
    Entity { kind: Kind::Cdr, id }
}

fn state<const N: usize>(records: [(Entity, &[u8]); N]) -> State {
    records.into_iter().map(|(e, r)| (e, r.into())).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn what_is_committed_is_found_and_a_turn_that_is_not_is_not() {
    let mut b = bench();
    b.journal.put(call(1), b"one");
    b.journal.put(call(2), b"two");
    b.journal.commit();
    b.journal.put(call(1), b"one more");
    b.journal.remove(call(2));
    b.journal.commit();
    b.journal.put(call(3), b"never was");
    b.journal.remove(call(1));
    let (found, faults) = b.read();
    assert_eq!(found, state([(call(1), b"one more")]));
    assert_eq!(faults.iter().map(|f| f.trouble).collect::<Vec<_>>(), [Trouble::Torn { records: 2 }]);
    b.journal.commit();
    assert_eq!(b.read(), (state([(call(3), b"never was")]), vec![]));
}

#[test]
fn cdrs_stay_until_they_are_safe() {
    let mut b = bench();
    (1..=5).for_each(|n| b.journal.put(cdr(n), b"c"));
    b.journal.commit();
    b.safe[0].store(4, Ordering::Release);
    b.journal.commit();
    assert_eq!(b.read(), (state([(cdr(4), b"c"), (cdr(5), b"c")]), vec![]));
}

#[test]
fn the_journal_stays_short_and_loses_nothing_that_lives() {
    let mut b = bench();
    let keeper = b.generation.keep().unwrap();
    let record = [7u8; 500];
    (0..50).for_each(|id| b.journal.put(call(id), &record));
    let mut expected: State = (0..50).map(|id| (call(id), record.as_slice().into())).collect();
    for turn in 0..20_000u64 {
        let id = 50 + turn % 10;
        if turn % 3 == 2 {
            b.journal.remove(call(id));
            expected.remove(&call(id));
        } else {
            b.journal.put(call(id), &turn.to_le_bytes().repeat(40));
            expected.insert(call(id), turn.to_le_bytes().repeat(40).into());
        }
        b.journal.commit();
    }
    drop(keeper);
    let (found, faults) = b.read();
    assert!(found == expected && faults.is_empty(), "{faults:?}");
    let files = std::fs::read_dir(b.shard_dir()).unwrap().count();
    // Twelve of them are spare.
    assert!(files <= 18, "{files} segments for 26 kB that live");
    assert!(b.counts.journal_bytes.get() > 4_000_000);
}

#[test]
fn without_room_nothing_is_lost_and_it_is_written_when_there_is_room_again() {
    let mut b = bench();
    b.journal.put(call(1), b"before");
    b.journal.commit();
    // The directory is gone: no segment can be made.
    let (here, away) = (b.shard_dir(), b.dir.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    let record = [1u8; 1000];
    for id in 0..200 {
        b.journal.put(call(id), &record);
        b.journal.commit();
    }
    assert!(b.journal.is_full());
    let waiting = b.counts.journal_unwritten.get();
    assert!((100..200).contains(&waiting), "{waiting}");
    b.journal.remove(call(150));
    std::fs::rename(&away, &here).unwrap();
    // Looked for by the journal's threads.
    let keeper = b.generation.keep().unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while b.journal.is_full() {
        assert!(std::time::Instant::now() < until, "no room found");
        b.journal.commit();
    }
    let expected: State = (0..200).filter(|id| *id != 150).map(|id| (call(id), record.as_slice().into())).collect();
    drop(keeper);
    assert!(b.read() == (expected, vec![]));
    assert_eq!(b.counts.journal_unwritten.get(), 0);
}

#[test]
fn cut_at_every_byte_of_the_last_turn_all_before_it_is_there() {
    let mut b = bench();
    b.journal.put(call(1), b"one");
    b.journal.put(call(2), b"two");
    b.journal.commit();
    let before = b.read().0;
    let path = b.shard_dir().join("segment-1");
    let end = |path: &Path| valid_to(&std::fs::read(path).unwrap());
    let from = end(&path);
    b.journal.put(call(1), b"one, later");
    b.journal.put(call(3), b"three");
    b.journal.commit();
    let (to, whole) = (end(&path), std::fs::read(&path).unwrap());
    let after = b.read().0;
    let torn = b.dir.path().join("torn");
    std::fs::create_dir_all(&torn).unwrap();
    for len in from..=to {
        // A file that is cut; and pages that never reached the disk.
        let zeros = [&whole[..len], &vec![0; whole.len() - len]].concat();
        for bytes in [&whole[..len], &zeros] {
            std::fs::write(torn.join("segment-1"), bytes).unwrap();
            let (found, faults) = read(&torn);
            if len == to {
                assert_eq!((found, faults.len()), (after.clone(), 0));
            } else {
                assert!(!faults.is_empty(), "cut at {len}");
                // Each record is there in its new state or its old one, as far as the file goes.
                assert!(found[&call(2)] == before[&call(2)] && found.contains_key(&call(1)), "cut at {len}: {found:?}");
                assert!(found.iter().all(|(e, r)| before.get(e) == Some(r) || after.get(e) == Some(r)));
            }
        }
    }
}

#[test]
fn a_segment_that_does_not_say_how_far_it_goes_is_read_to_its_last_record_and_told() {
    let mut b = bench();
    for id in 0..20 {
        b.journal.put(call(id), &[3u8; 100]);
        b.journal.commit();
    }
    let (all, path) = (b.read().0, b.shard_dir().join("segment-1"));
    let mut bytes = std::fs::read(&path).unwrap();
    // Its committed length.
    bytes[128] ^= 0x71;
    std::fs::write(&path, &bytes).unwrap();
    let (found, faults) = b.read();
    let troubles = |faults: &[Fault]| faults.iter().map(|f| f.trouble).collect::<Vec<_>>();
    assert_eq!((found, troubles(&faults)), (all.clone(), vec![Trouble::Header]));
    // And records in its midst.
    bytes[HEADER + 500..HEADER + 900].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    let (found, faults) = b.read();
    assert!(found.iter().all(|(e, r)| all[e] == *r) && (14..18).contains(&found.len()), "{}", found.len());
    assert!(matches!(troubles(&faults)[..], [Trouble::Header, Trouble::Damaged { .. }, ..]), "{faults:?}");
    let lost: u64 = faults.iter().filter_map(|f| f.lost).sum();
    assert_eq!(found.len() as u64 + lost, 20, "{faults:?}");
}

#[test]
fn a_missing_segment_and_its_records_are_counted() {
    let mut b = bench();
    // All live, so that nothing is cleaned.
    for id in 0..400 {
        b.journal.put(call(id), &[3u8; 1000]);
        b.journal.commit();
    }
    let all = b.read().0;
    assert_eq!(all.len(), 400);
    for gone in ["segment-1", "segment-3"] {
        let dir = b.dir.path().join("short");
        copy(&b.shard_dir(), &dir);
        std::fs::remove_file(dir.join(gone)).unwrap();
        let (found, faults) = read(&dir);
        let lost = faults.iter().filter_map(|f| f.lost).sum::<u64>();
        assert_eq!((found.len() as u64 + lost, faults.len()), (400, 1), "{faults:?}");
        assert!(lost > 50 && matches!(faults[0].trouble, Trouble::Missing { .. }));
        std::fs::remove_dir_all(dir).unwrap();
    }
}

/// Reads a generation in whatever state it is, then hands it over to the next, up to some step.
fn hand_over(dir: &Path, shards: u16, steps: u32) {
    let (generation, found) = Generation::begin(spec(dir), prior(dir).unwrap(), shards).unwrap();
    let keeper = generation.keep().unwrap();
    let safe: Arc<[AtomicU64]> = (0..shards).map(|_| AtomicU64::new(0)).collect();
    for shard in 0..shards {
        let mut journal = generation.journal(shard, Arc::clone(&safe), Arc::default()).unwrap();
        let records = found.shards.iter().flat_map(|s| &s.records);
        for (i, (entity, record)) in records.enumerate() {
            if i % usize::from(shards) == usize::from(shard) && steps > 0 {
                journal.put(*entity, record);
            }
        }
        if steps > 1 {
            journal.commit();
        }
    }
    if steps > 2 {
        generation.complete(&keeper).unwrap();
    }
    if steps > 3 {
        generation.drop_prior().unwrap();
    }
}

#[test]
fn a_take_over_may_end_anywhere_and_the_number_of_shards_may_change() {
    let b = bench();
    let Bench { dir, generation, mut journal, .. } = b;
    (0..10).for_each(|id| journal.put(call(id), &id.to_le_bytes()));
    journal.put(cdr(9), b"record");
    journal.commit();
    let keeper = generation.keep().unwrap();
    generation.complete(&keeper).unwrap();
    drop((keeper, journal));
    let held = prior(dir.path()).unwrap_err().to_string();
    assert!(held.contains("in use by this process"), "{held}");
    drop(generation);
    assert_eq!(prior(dir.path()).unwrap().found.cdrs, [Box::from(b"record".as_slice())]);
    let mut shards = [2, 3, 1].into_iter().cycle();
    for step in [0, 4, 1, 2, 3, 0, 4, 3, 1] {
        hand_over(dir.path(), shards.next().unwrap(), step);
        let found = prior(dir.path()).unwrap().found;
        let records: State = found.shards.into_iter().flat_map(|s| s.records).collect();
        let expected: State = (0..10u64).map(|id| (call(id), id.to_le_bytes().as_slice().into())).collect();
        assert_eq!(records, expected, "step {step}");
        assert_eq!(found.faults, []);
    }
}

#[test]
fn a_damaged_mark_a_missing_shard_and_another_version_are_told() {
    let Bench { dir, generation, .. } = bench();
    let keeper = generation.keep().unwrap();
    generation.complete(&keeper).unwrap();
    drop((keeper, generation));
    let mark = dir.path().join("00000001/COMPLETE");
    let text = std::fs::read_to_string(&mark).unwrap();
    std::fs::write(&mark, text.replace("shards 1", "shards 7")).unwrap();
    let told = |faults: &[Fault]| faults.iter().map(|f| f.trouble).collect::<Vec<_>>();
    assert_eq!(told(&prior(dir.path()).unwrap().found.faults), [Trouble::Mark]);
    std::fs::write(&mark, &text).unwrap();
    std::fs::remove_dir_all(dir.path().join("00000001/shard-0")).unwrap();
    assert_eq!(told(&prior(dir.path()).unwrap().found.faults), [Trouble::NoShard]);
    let (body, _) = text.split_once("sum").unwrap();
    let other = body.replace("journal 2", "journal 3");
    std::fs::write(&mark, format!("{other}sum {:08x}\n", crc32fast::hash(other.as_bytes()))).unwrap();
    let error = prior(dir.path()).unwrap_err().to_string();
    assert!(error.contains("COMPLETE is of format version 3") && error.contains("on_stop"), "{error}");
}

#[derive(Debug, Clone)]
enum Change {
    Put(u8, u16),
    Remove(u8),
    Commit,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        5 => (any::<u8>(), 0..3000u16).prop_map(|(id, len)| Change::Put(id % 40, len)),
        2 => any::<u8>().prop_map(|id| Change::Remove(id % 40)),
        2 => Just(Change::Commit),
    ];
    prop::collection::vec(change, 1..400)
}

/// Plays them; the committed state, and what there was before.
fn play(b: &mut Bench, changes: &[Change]) -> (State, Past) {
    let (mut now, mut committed, mut had) = (State::new(), State::new(), Past::new());
    for (n, change) in changes.iter().enumerate() {
        match *change {
            Change::Put(id, len) => {
                let (entity, record) = (call(u64::from(id)), vec![n as u8; usize::from(len)]);
                b.journal.put(entity, &record);
                now.insert(entity, record.as_slice().into());
                had.entry(entity).or_default().push(record.into());
            }
            Change::Remove(id) => {
                b.journal.remove(call(u64::from(id)));
                now.remove(&call(u64::from(id)));
            }
            Change::Commit => {
                b.journal.commit();
                committed = now.clone();
            }
        }
    }
    (committed, had)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_the_last_committed_state_is_found(changes in changes()) {
        let mut b = bench();
        let (committed, _) = play(&mut b, &changes);
        let (found, faults) = b.read();
        prop_assert!(found == committed);
        prop_assert!(faults.iter().all(|f| matches!(f.trouble, Trouble::Torn { .. })), "{:?}", faults);
    }

    #[test]
    fn a_flipped_bit_costs_at_most_the_record_that_it_is_in(changes in changes(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut b = bench();
        let (committed, had) = play(&mut b, &changes);
        let mut paths: Vec<_> = std::fs::read_dir(b.shard_dir()).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        if paths.is_empty() {
            return Ok(());
        }
        let path = &paths[at.index(paths.len())];
        let mut bytes = std::fs::read(path).unwrap();
        // Where something is: the header's fields, and the records.
        let end = valid_to(&bytes);
        let spots: Vec<usize> = (0..152).chain(2048..2072).chain(HEADER..end).collect();
        bytes[spots[at.index(spots.len())]] ^= 1 << bit;
        std::fs::write(path, bytes).unwrap();
        let mut faults = vec![];
        let Ok(found) = read_shard(&[b.shard_dir()], 1, 0, &mut faults) else {
            prop_assert!(false, "refused");
            return Ok(());
        };
        let found: State = found.records.into_iter().collect();
        let wrong: Vec<_> = committed.iter().filter(|(e, r)| found.get(e) != Some(*r)).collect();
        // The damaged record may have been the latest of its entity, then there is an earlier or none; or a removal.
        prop_assert!(wrong.len() <= 1, "{} of {}: {:?}", wrong.len(), committed.len(), faults);
        let extra = found.keys().filter(|e| !committed.contains_key(e)).count();
        prop_assert!(extra + wrong.len() <= 1, "{} reappeared, {:?}", extra, faults);
        prop_assert!(found.iter().all(|(e, r)| had[e].contains(r)));
        prop_assert!(wrong.is_empty() || !faults.is_empty());
    }
}
