//! Databases and disks that are gone, slow, or refuse records.

use super::row;
use super::world::{Health, MS, SETTINGS, World};
use crate::*;

#[test]
fn a_hiccup_is_ridden_out_in_memory() {
    let mut w = World::new();
    w.database = Health::Fails;
    w.send(1..=8);
    w.run(100);
    w.database = Health::Good;
    w.run(400);
    assert_eq!((w.rows.len(), w.safe, w.spool.len()), (8, 8, 0));
    assert!(w.m.tally().retried >= 2 && w.notices.is_empty(), "{:?}", w.notices);
}

#[test]
fn while_the_database_is_gone_records_are_safe_in_the_spool_and_it_is_tried_with_growing_pauses() {
    let mut w = World::new();
    w.database = Health::Fails;
    for n in 0..1000 {
        w.send(n * 10 + 1..=n * 10 + 10);
        w.run(100);
        assert!(w.safe + 60 > n * 10, "{}", w.safe);
    }
    w.run(100);
    assert_eq!((w.safe, w.spool.len(), w.left()), (10_000, 10_000, 10_000));
    assert_eq!(w.kinds(), ["slow", "gone"][w.kinds().len() % 2..]);
    assert!(w.writes < 120, "{} tries in 100 s", w.writes);
    w.database = Health::Good;
    w.run(1000);
    w.send(10_001..=10_010);
    w.run(100);
    assert!(w.rows.contains_key(&10_010) && w.left() > 0, "new records do not wait for the replay");
    w.run(60_000);
    assert_eq!((w.rows.len(), w.left()), (10_010, 0));
    assert!(w.rows.values().all(|n| *n == 1));
    assert_eq!(w.kinds()[w.kinds().len() - 2..], ["back", "replayed"]);
}

#[test]
fn a_frozen_database_is_gone_after_the_time_limit_and_costs_no_record_more_than_that() {
    let mut w = World::new();
    w.database = Health::Hangs;
    w.send(1..=100);
    w.run(300);
    assert!(w.spool.len() >= 76, "those that no batch in flight holds: {}", w.spool.len());
    w.run(1800);
    assert_eq!((w.safe, w.left()), (100, 100));
    assert!(w.notices.contains(&Notice::Gone { why: "no answer".into() }), "{:?}", w.notices);
    w.database = Health::Good;
    w.run(10_000);
    assert_eq!((w.rows.len(), w.left()), (100, 0));
}

#[test]
fn a_database_that_comes_and_goes_is_given_growing_pauses() {
    let mut w = World::new();
    // Takes four batches, then fails for a while, again and again.
    let mut next = 1;
    for _ in 0..200 {
        w.database = Health::Good;
        for _ in 0..4 {
            w.send(next..=next + 7);
            next += 8;
            w.run(10);
        }
        w.database = Health::Fails;
        w.send(next..=next + 7);
        next += 8;
        w.run(300);
    }
    let turns = w.kinds().iter().filter(|k| **k == "gone").count();
    assert!(turns < 80, "{turns} changes of state in 68 s: {:?}", w.kinds());
    w.database = Health::Good;
    w.run(60_000);
    assert_eq!(w.rows.len() as u64, next - 1);
}

#[test]
fn a_slow_database_gets_what_it_can_take_and_the_spool_the_rest() {
    let mut w = World::new();
    w.latency = 400 * MS;
    // 3 batches of 8 in 400 ms: 60 a second; 160 come.
    for n in 0..100 {
        w.send(n * 16 + 1..=n * 16 + 16);
        w.run(100);
    }
    assert!(w.rows.len() > 400 && w.spool.len() > 500, "{} {}", w.rows.len(), w.spool.len());
    assert_eq!(w.kinds()[0], "slow");
    assert!(w.m.tally().waiting < 300);
    w.run(300_000);
    assert_eq!((w.rows.len(), w.left(), w.safe), (1600, 0, 1600));
}

#[test]
fn database_and_disk_both_gone_records_wait_in_memory_until_no_more_are_wanted() {
    let mut w = World::new();
    (w.database, w.disk_full) = (Health::Fails, true);
    let mut sent = 0;
    while w.m.wants_records() {
        sent += 1;
        w.m.handle_record(w.now, row(sent));
        w.drain();
    }
    assert_eq!(sent as usize, w.m.most);
    w.run(60_000);
    assert!(!w.m.wants_records());
    assert_eq!((w.safe, w.spool.len(), w.rows.len()), (0, 0, 0));
    assert_eq!(w.kinds().iter().filter(|k| **k == "spool fails").count(), 1);
    assert!(w.m.tally().spool_errors > 10 && w.m.tally().spool_errors < 100, "{:?}", w.m.tally());
    w.disk_full = false;
    w.run(2000);
    assert_eq!((w.safe, w.spool.len() as u64), (sent, sent));
    assert!(w.m.wants_records());
    w.database = Health::Good;
    w.run(60_000);
    assert_eq!((w.rows.len() as u64, w.left()), (sent, 0));
}

#[test]
fn with_a_full_disk_the_database_alone_will_do() {
    let mut w = World::new();
    (w.database, w.disk_full) = (Health::Fails, true);
    w.send(1..=100);
    w.run(30_000);
    w.database = Health::Good;
    w.run(3000);
    assert_eq!((w.rows.len(), w.safe, w.spool.len()), (100, 100, 0));
}

#[test]
fn bad_records_are_found_by_halving() {
    let mut w = World::new();
    w.m = Machine::new(Settings { batch: 256, ..SETTINGS }, 0);
    w.bad = |key| key == 100;
    w.send(1..=256);
    w.run(500);
    assert_eq!((w.rows.len(), w.aside.len(), w.safe), (255, 1, 256));
    assert!(matches!(&w.aside[0], Aside::Refused { row, why } if row.key == 100 && why == "bad"));
    assert!(w.writes <= 2 * 8 + 2, "{} writes", w.writes);
    assert_eq!((w.m.tally().refused, w.m.tally().written), (1, 255));
}

#[test]
fn a_record_alone_is_refused_twice_before_it_is_set_aside() {
    let mut w = World::new();
    w.bad = |_| true;
    w.send(1..=1);
    while w.writes == 1 || w.m.tally().in_flight == 0 {
        assert!(w.step(u64::MAX));
    }
    w.bad = |_| false;
    w.run(100);
    assert_eq!((w.rows.len(), w.aside.len(), w.safe), (1, 0, 1));
}

#[test]
fn bad_records_and_damage_in_the_spool_hold_up_no_replay() {
    let mut w = World::new();
    w.bad = |key| key % 10 == 0;
    w.database = Health::Fails;
    w.send(1..=50);
    w.run(1000);
    assert_eq!(w.left(), 50);
    w.database = Health::Good;
    w.run(10_000);
    assert_eq!((w.rows.len(), w.aside.len(), w.left()), (45, 5, 0));
    assert_eq!(w.m.tally().replayed, 45);
    // Nothing but damage in a part of it.
    w.m = Machine::new(SETTINGS, 1);
    w.m.handle_time(w.now);
    assert_eq!(w.m.poll_output(), Some(Output::Load { max: 8 }));
    let damage = Damage { segment: 0, offset: 0, why: "x".into(), bytes: vec![1] };
    let next = Place { ordinal: 1, segment: 0, offset: 9 };
    w.m.handle_loaded(w.now, Ok(Loaded { rows: vec![], damaged: vec![damage.clone()], next }));
    assert_eq!(w.m.poll_output(), Some(Output::SetAside { job: 1, items: vec![Aside::Damaged(damage)] }));
    w.m.handle_set_aside(w.now, 1);
    assert_eq!(w.m.poll_output(), Some(Output::Advance { to: next }));
    assert_eq!(w.m.tally().damaged, 1);
}

#[test]
fn a_spool_that_died_leaves_the_database() {
    let mut w = World::new();
    w.database = Health::Fails;
    w.send(1..=8);
    while !w.under_way.iter().any(|(_, o)| matches!(o, Output::Append { .. })) {
        assert!(w.step(u64::MAX));
    }
    w.under_way.retain(|(_, o)| !matches!(o, Output::Append { .. }));
    w.m.handle_spool_died(w.now);
    w.database = Health::Good;
    w.run(3000);
    assert_eq!((w.rows.len(), w.safe), (8, 8));
    assert_eq!(w.kinds().iter().filter(|k| **k == "spool fails").count(), 1);
}

#[test]
fn a_cursor_that_cannot_be_written_is_told_once_and_costs_nothing() {
    let mut w = World::new();
    w.database = Health::Fails;
    w.send(1..=24);
    w.run(1000);
    w.database = Health::Good;
    for _ in 0..3 {
        while !w.under_way.iter().any(|(_, o)| matches!(o, Output::Advance { .. })) {
            assert!(w.step(u64::MAX));
        }
        let at = w.under_way.iter().position(|(_, o)| matches!(o, Output::Advance { .. })).unwrap();
        let Output::Advance { to } = w.under_way.swap_remove(at).1 else { panic!() };
        w.cursor = to.ordinal as usize;
        w.m.handle_advanced(w.now, w.left(), Some("disk full".into()));
    }
    w.run(1000);
    assert_eq!((w.rows.len(), w.left(), w.m.tally().spool_errors), (24, 0, 3));
    assert_eq!(w.kinds().iter().filter(|k| **k == "cursor").count(), 1);
}
