//! The pipeline against a model of database, spool and file: single courses of events, then thousands at random, crashes
//! among them.

mod outages;
mod random;
mod stops;
mod world;

use super::*;
use strowger_engine::CallId;
use world::{Health, SETTINGS, World};

/// A record with that key.
pub(crate) fn row(key: u64) -> CdrRow {
    CdrRow {
        key: u128::from(key),
        call: CallId { shard: 0, slot: 1, generation: 1 },
        sip_call_id: "c@h".into(),
        caller: "x".into(),
        received_unix_us: 1_795_000_000_500_000,
        wait_us: 3_000_000,
        pickup_us: 1_000_000,
        talk_us: 60_000_000,
        talk_s: 60,
        flow_id: "sales".into(),
        agent_id: Some("anna".into()),
        call_type: 0,
        rejected: 0,
        fstats: 7,
        cid: 5,
        media: 1,
        cause: 0,
        param: None,
    }
}

#[test]
fn batches_go_out_full_or_when_their_time_is_up_and_several_at_once() {
    let mut w = World::new();
    w.send(1..=20);
    assert_eq!((w.m.tally().in_flight, w.m.tally().waiting), (16, 4));
    w.run(5);
    assert_eq!((w.rows.len(), w.safe), (16, 16));
    w.run(14);
    assert_eq!(w.rows.len(), 16);
    w.run(10);
    assert_eq!((w.rows.len(), w.safe, w.writes), (20, 20, 3));
    assert_eq!((w.stop(), w.notices.len()), (0, 0));
}

#[test]
fn marks_of_all_shards_move() {
    let mut m = Machine::new(SETTINGS, 0);
    for (shard, sequence) in [(0u128, 1u128), (1, 1), (0, 2), (1, 2)] {
        m.handle_record(0, CdrRow { key: 5 << 64 | shard << 48 | sequence, ..row(0) });
    }
    m.handle_closed(0);
    assert!(matches!(m.poll_output(), Some(Output::Write { job: 1, .. })));
    m.handle_written(10, 1, Ok(()));
    let outputs: Vec<Output> = std::iter::from_fn(|| m.poll_output()).collect();
    let mark = |shard| Output::Safe(Mark { born_us: 5, shard, sequence: 2 });
    assert_eq!(outputs, [Output::Took { us: vec![10; 4], written: true }, mark(0), mark(1)]);
    assert!(m.is_done());
}

#[test]
fn what_a_process_before_left_goes_to_the_spool_at_once_and_is_replayed() {
    for health in [Health::Good, Health::Fails, Health::Hangs] {
        let mut w = World::new();
        w.database = health;
        w.m.handle_recovered(w.now, (1..=500).map(row).collect());
        w.drain();
        w.run(6);
        assert_eq!(w.m.held(), 0, "{health:?}");
        assert_eq!((w.safe, w.left(), w.rows.len()), (500, 500, 0));
        w.send(501..=502);
        w.database = Health::Good;
        w.run(60_000);
        assert_eq!((w.rows.len(), w.left(), w.notices.last()), (502, 0, Some(&Notice::Replayed { records: 500 })));
    }
}

#[test]
fn what_a_process_before_left_goes_to_the_database_when_the_spool_takes_nothing() {
    let mut w = World::new();
    w.disk_full = true;
    w.bad = |key| key == 7;
    w.m.handle_recovered(w.now, (1..=500).map(row).collect());
    w.drain();
    w.run(2000);
    assert_eq!(w.m.held(), 0);
    assert_eq!((w.rows.len(), w.aside.len(), w.spool.len(), w.safe), (499, 1, 0, 500));
    w.database = Health::Fails;
    w.m.handle_recovered(w.now, (501..=510).map(row).collect());
    w.drain();
    w.run(60_000);
    assert_eq!((w.m.held(), w.m.tally().waiting), (10, 10));
}
