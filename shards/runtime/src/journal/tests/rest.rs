//! Full segments of a quiet journal give their memory back, and are there again when they are needed.

use super::copies::{Mapped, found, mapped};
use super::*;
use crate::journal::follow;
use std::fs;

const RECORD: [u8; 1000] = [3; 1000];

fn all(records: u64) -> State {
    (0..records).map(|id| (call(id), RECORD.as_slice().into())).collect()
}

/// Bytes in memory of segments without a file there, and how many of these there are.
fn unnamed(m: &Mapped) -> (usize, usize) {
    let base = m.base.path().to_str().unwrap();
    let (mut bytes, mut segments, mut ours) = (0, 0, false);
    for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        if line.contains('-') && line.contains('/') {
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
    m.journal.pool().set_quiet(0);
    for turn in 0..4000 {
        m.turn(&[(call(turn % 200), &RECORD)]);
        if turn % 50 == 0 {
            m.keeper.sync_now().unwrap();
        }
    }
    m.keeper.sync_now().unwrap();
    assert_eq!(unnamed(&m).1, 0, "of {before}");
    let segments = m.journal.segments().count();
    assert!(segments <= 3 * 400 * 1024 / SEGMENT + 2, "{segments}");
    let (disk, base) = m.kill();
    assert!(found(disk.path()) == (all(400), vec![]));
    drop(base);
}

#[test]
fn what_a_follower_reads_does_not_rest_nor_does_anything_while_much_is_written() {
    let mut m = mapped();
    let mut follower = m.generation.follow();
    (0..400).for_each(|id| m.turn(&[(call(id), &RECORD)]));
    m.journal.pool().set_quiet(4);
    assert!(!m.journal.tidy());
    m.keeper.sync_now().unwrap();
    nap(&mut m, 20);
    assert_eq!(unnamed(&m).1, 0);
    let mut seen = vec![];
    follower.follow(|_, entity, change| seen.push((entity, change)));
    assert_eq!(seen.len(), 400);
    nap(&mut m, 20);
    assert_eq!(unnamed(&m).1, 0, "it holds the records");
    let read = |change: &follow::Change| matches!(change, follow::Change::Put(record) if **record == RECORD);
    assert!(seen.iter().all(|(_, change)| read(change)));
    drop((seen, follower));
    nap(&mut m, 20);
    assert!(unnamed(&m).1 >= 6);
}

#[test]
fn a_copy_that_cannot_be_read_leaves_its_segment_at_rest_until_it_can() {
    let mut m = mapped();
    (0..400).for_each(|id| m.turn(&[(call(id), &RECORD)]));
    nap(&mut m, 20);
    let (here, away) = (m.disk.path().join("00000001/shard-0"), m.disk.path().join("away"));
    // All but what it writes to is out of reach.
    fs::create_dir(&away).unwrap();
    let first = "segment-1";
    fs::rename(here.join(first), away.join(first)).unwrap();
    m.journal.pool().set_quiet(0);
    let turns = |m: &mut Mapped, turns| {
        for turn in 0..turns {
            m.turn(&[(call(turn % 200), &RECORD)]);
            if turn % 50 == 0 {
                m.keeper.sync_now().unwrap();
            }
        }
    };
    turns(&mut m, 4000);
    let grown = m.journal.segments().count();
    assert!(grown > 3 * 400 * 1024 / SEGMENT + 2, "it cannot be cleaned: {grown}");
    fs::rename(away.join(first), here.join(first)).unwrap();
    turns(&mut m, 4000);
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
        pool.quiet()
    };
    assert_eq!([0, 1 << 20, (1 << 20) + 1, 100].map(&mut look), [1, 2, 0, 1]);
}
