//! Orderly stops, whatever else is wrong then.

use super::world::{Health, MS, SETTINGS, World};
use crate::*;

#[test]
fn a_stop_leaves_to_the_spool_at_once_what_a_failing_database_does_not_take() {
    for health in [Health::Fails, Health::Hangs] {
        let mut w = World::new();
        w.database = health;
        w.send(1..=30);
        w.run(2500);
        w.send(31..=40);
        w.run(1);
        let took = w.stop();
        assert!(took <= 50, "{health:?}: {took} ms");
        assert_eq!((w.safe, w.left()), (40, 40));
    }
    // Frozen at that moment: nobody knows before the time limit.
    let mut w = World::new();
    w.database = Health::Hangs;
    w.send(1..=30);
    let took = w.stop();
    assert!((2000..2100).contains(&took), "{took} ms");
    assert_eq!((w.safe, w.left()), (30, 30));
}

#[test]
fn a_stop_during_a_replay_leaves_the_rest_of_it_when_its_time_is_up() {
    let mut w = World::new();
    w.database = Health::Fails;
    (0..100).for_each(|n| {
        w.send(n * 10 + 1..=n * 10 + 10);
        w.run(50);
    });
    (w.database, w.latency) = (Health::Good, 100 * MS);
    w.run(1500);
    assert!(w.left() > 500, "{}", w.left());
    w.send(1001..=1003);
    let took = w.stop();
    assert!((5000..=5200).contains(&took), "{took} ms");
    assert!(w.left() > 0 && w.rows.contains_key(&1003) && w.safe == 1003);
    // The next process has all the time.
    w.m = Machine::new(SETTINGS, w.left());
    w.m.handle_time(w.now);
    w.run(120_000);
    assert_eq!((w.rows.len(), w.left()), (1003, 0));
}

#[test]
fn a_stop_ends_a_replay_that_a_healthy_database_takes() {
    let mut w = World::new();
    w.database = Health::Fails;
    w.send(1..=400);
    w.run(2000);
    (w.database, w.latency) = (Health::Good, 20 * MS);
    w.run(1000);
    assert!(w.left() > 100, "{}", w.left());
    w.send(401..=403);
    let took = w.stop();
    assert!(took < 5000, "{took} ms");
    assert_eq!((w.rows.len(), w.left(), w.safe), (403, 0, 403));
    assert_eq!(w.kinds().last(), Some(&"replayed"));
}

#[test]
fn a_stop_does_not_go_on_with_a_replay_that_the_database_stops_taking() {
    let mut w = World::new();
    w.database = Health::Fails;
    w.send(1..=400);
    w.run(2000);
    (w.database, w.latency) = (Health::Good, 20 * MS);
    w.run(1000);
    let before = w.left();
    w.m.handle_closed(w.now);
    w.drain();
    w.run(200);
    assert!(w.left() < before, "{before}");
    w.database = Health::Fails;
    let took = w.stop();
    assert!(took < 100 && w.left() > 0, "{took} ms");
}

#[test]
fn a_stop_with_nothing_that_takes_records_sets_them_aside_in_the_end() {
    let mut w = World::new();
    (w.database, w.disk_full) = (Health::Fails, true);
    w.send(1..=30);
    w.run(1000);
    let took = w.stop();
    assert!((10_000..11_500).contains(&took), "{took} ms");
    assert_eq!((w.aside.len(), w.safe, w.m.tally().stopped), (30, 30, 30));
}
