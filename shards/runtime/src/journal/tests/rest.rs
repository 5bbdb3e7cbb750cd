//! Full segments of a quiet journal give their memory back, and are there again when they are needed.

use super::copies::{Mapped, found, mapped};
use super::*;
use crate::journal::follow;
use std::fs;
use strowger_engine::journal::Sink as _;

const RECORD: [u8; 1000] = [3; 1000];

fn all(records: u64) -> State {
    (0..records).map(|id| (call(id), RECORD.as_slice().into())).collect()
}

/// Bytes in memory of segments without a file there, and how many of these there are.
fn unnamed(m: &Mapped) -> (usize, usize) {
    let base = m.base.path().to_str().unwrap();
    let (mut bytes, mut segments, mut ours) = (0, 0, false);
    for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if first.contains('-') {
            ours = line.contains(base) && line.ends_with("(deleted)");
            segments += usize::from(ours);
        }
        if let Some(rss) = line.strip_prefix("Rss:").filter(|_| ours) {
            bytes += rss.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10;
        }
    }
    (bytes, segments)
}

/// A quiet shard has nothing to do for so long.
fn nap(m: &mut Mapped, times: usize) {
    for _ in 0..times {
        m.journal.pool().set_quiet(5);
        while m.journal.tidy() {
            m.journal.pool().refill();
        }
        m.keeper.sync_now().unwrap();
    }
}

/// A busy shard changes two hundred records, from this one on, again and again.
fn churn(m: &mut Mapped, first: u64, record: &[u8]) {
    m.journal.pool().set_quiet(0);
    for turn in 0..4000 {
        m.turn(&[(call(first + turn % 200), record)]);
        if turn % 50 == 0 {
            m.keeper.sync_now().unwrap();
        }
    }
}

#[test]
fn what_is_at_rest_takes_no_memory_and_a_restart_reads_it_from_the_disk() {
    let mut m = mapped();
    (0..400).for_each(|id| m.turn(&[(call(id), &RECORD)]));
    nap(&mut m, 20);
    let (bytes, segments) = unnamed(&m);
    assert!(segments >= 6 && bytes <= segments * HEADER, "{bytes} bytes of {segments}");
    m.turn(&[(call(400), &RECORD)]);
    let (disk, _base) = m.kill();
    assert!(found(disk.path()) == (all(401), vec![]));
}

#[test]
fn what_is_needed_again_comes_back_and_goes_when_it_has_been_cleaned() {
    let mut m = mapped();
    (0..400).for_each(|id| m.turn(&[(call(id), &RECORD)]));
    nap(&mut m, 20);
    let before = unnamed(&m).1;
    assert!(before >= 6, "{before}");
    // The half of them change; the others are found where they rest.
    churn(&mut m, 0, &RECORD);
    m.keeper.sync_now().unwrap();
    assert_eq!(unnamed(&m).1, 0, "of {before}");
    let segments = m.journal.segments().count();
    assert!(segments <= 3 * 400 * 1024 / SEGMENT + 2, "{segments}");
    let (disk, base) = m.kill();
    assert!(found(disk.path()) == (all(400), vec![]));
    drop(base);
}

#[test]
fn what_came_back_and_is_not_needed_any_more_rests_again() {
    let mut m = mapped();
    (0..600).for_each(|id| m.turn(&[(call(id), &RECORD)]));
    nap(&mut m, 20);
    let before = unnamed(&m).1;
    // A third of them end: it is tidied, but not all through.
    (0..600).step_by(3).for_each(|id| {
        m.journal.remove(call(id));
        m.journal.commit();
    });
    nap(&mut m, 40);
    let (bytes, segments) = unnamed(&m);
    assert!(bytes <= segments * HEADER, "{bytes} bytes of {segments}, {before} before");
    m.turn(&[(call(600), &RECORD)]);
    let (disk, _base) = m.kill();
    let mut left = all(601);
    left.retain(|entity, _| entity.id % 3 != 0 || entity.id == 600);
    assert!(found(disk.path()) == (left, vec![]));
}

#[test]
fn what_the_disk_has_not_got_does_not_rest() {
    let mut m = mapped();
    m.turn(&[(call(0), &RECORD)]);
    m.keeper.sync_now().unwrap();
    let (here, away) = (m.disk.path().join("00000001/shard-0"), m.disk.path().join("away"));
    fs::rename(&here, &away).unwrap();
    (1..400).for_each(|id| m.turn(&[(call(id), &RECORD)]));
    for _ in 0..5 {
        m.journal.pool().set_quiet(5);
        assert!(!m.journal.tidy() && m.keeper.sync_now().is_err());
    }
    // One that cannot be made on disk is seen for a moment.
    assert!((0..50).any(|_| unnamed(&m).1 == 0));
    fs::rename(&away, &here).unwrap();
    while m.journal.is_full() {
        m.journal.pool().refill();
        m.journal.commit();
    }
    nap(&mut m, 20);
    assert!(unnamed(&m).1 >= 2);
    let (disk, _base) = m.kill();
    assert!(found(disk.path()) == (all(400), vec![]));
}

#[test]
fn nothing_rests_before_it_has_been_quiet_for_long() {
    let mut m = mapped();
    (0..400).for_each(|id| m.turn(&[(call(id), &RECORD)]));
    for _ in 0..5 {
        m.journal.pool().set_quiet(4);
        assert!(!m.journal.tidy());
        m.keeper.sync_now().unwrap();
    }
    assert_eq!(unnamed(&m).1, 0);
}

#[test]
fn what_the_disk_has_damaged_is_left_out_and_all_behind_it_is_kept() {
    let mut m = mapped();
    (0..400).for_each(|id| m.turn(&[(call(id), &RECORD)]));
    nap(&mut m, 20);
    // A head of the first segment, and a payload of the next.
    let record = super::super::record::size(RECORD.len());
    for (file, at) in [("segment-1", HEADER + 9), ("segment-2", HEADER + 3 * record + 500)] {
        let path = m.disk.path().join("00000001/shard-0").join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    churn(&mut m, 200, &RECORD);
    assert_eq!(unnamed(&m).1, 0, "all of it has been cleaned");
    let (disk, _base) = m.kill();
    let (left, faults) = found(disk.path());
    let expected = all(400);
    let lost: Vec<u64> = expected.keys().filter(|e| !left.contains_key(e)).map(|e| e.id).collect();
    assert!(lost.len() == 2 && lost[0] == 0 && faults.is_empty(), "{lost:?} {faults:?}");
    assert!(left.iter().all(|(entity, record)| expected[entity] == *record));
}

#[test]
fn what_a_follower_has_rests_too_and_it_reads_it_from_the_disk() {
    let mut m = mapped();
    let mut follower = m.generation.follow();
    let mut seen = State::new();
    let mut held = vec![];
    let mut follow = |held: &mut Vec<(Entity, follow::Written)>| {
        follower.follow(|_, entity, change| match change {
            follow::Change::Put(record) => held.push((entity, record)),
            follow::Change::Removed => {}
        });
    };
    (0..200).for_each(|id| m.turn(&[(call(id), &RECORD)]));
    follow(&mut held);
    // These it sees when they rest.
    (200..400).for_each(|id| m.turn(&[(call(id), &RECORD)]));
    let looked_at = held[0].1.read().unwrap();
    nap(&mut m, 20);
    let rest = unnamed(&m).1;
    drop(looked_at);
    nap(&mut m, 20);
    let (bytes, segments) = unnamed(&m);
    assert!(rest >= 5 && segments == rest + 1 && bytes <= segments * HEADER, "{rest}, {segments}: {bytes} bytes");
    follow(&mut held);
    assert_eq!(held.len(), 400);
    let at_hand = held.iter().filter(|(_, record)| record.peek().is_some()).count();
    assert!(at_hand > 0 && at_hand < 100, "{at_hand}");
    seen.extend(held.iter().map(|(entity, record)| (*entity, Box::from(&*record.read().unwrap()))));
    assert!(seen == all(400));
    // What comes back, and is removed from the disk then, can be read still.
    churn(&mut m, 0, &[4; 1000]);
    assert!(held.iter().all(|(_, record)| record.peek().is_some_and(|bytes| *bytes == RECORD)));
}

#[test]
fn a_copy_that_cannot_be_read_leaves_its_segment_at_rest_until_it_can() {
    let mut m = mapped();
    (0..400).for_each(|id| m.turn(&[(call(id), &RECORD)]));
    nap(&mut m, 20);
    let (here, away) = (m.disk.path().join("00000001/shard-0"), m.disk.path().join("away"));
    // One of them is out of reach.
    fs::create_dir(&away).unwrap();
    let first = "segment-1";
    fs::rename(here.join(first), away.join(first)).unwrap();
    churn(&mut m, 0, &RECORD);
    let grown = m.journal.segments().count();
    assert!(grown > 3 * 400 * 1024 / SEGMENT + 2, "it cannot be cleaned: {grown}");
    fs::rename(away.join(first), here.join(first)).unwrap();
    churn(&mut m, 0, &RECORD);
    assert!(m.journal.segments().count() < grown);
    let (disk, _base) = m.kill();
    assert!(found(disk.path()) == (all(400), vec![]));
}

#[test]
fn a_journal_is_quiet_while_little_is_written() {
    let m = mapped();
    let (pool, mut seen) = (m.journal.pool(), 0);
    let mut look = |bytes| {
        pool.publish(1, HEADER, bytes);
        pool.look(&mut seen);
        (pool.quiet(), pool.still())
    };
    let bytes = [0, 256 << 10, 1 << 20, (1 << 20) + 1, 100];
    assert_eq!(bytes.map(&mut look), [(1, 1), (2, 2), (3, 0), (0, 0), (1, 1)]);
}
