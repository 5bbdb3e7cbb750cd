//! What only a restart brings about: peers that are gone, definitions that are gone, records that cannot be read. That calls go on as
//! they were at each step of each flow is what the test binary `revival` is for.

mod ladder;

use ladder::{ANN, BOB, Scene, agent, flow};
use std::sync::Arc;
use strowger_dispatch::AgentState;
use strowger_engine::journal::Kind;
use strowger_engine::{BucketTable, CallState};

/// All calls are of one shard's.
fn alone() -> Scene {
    Scene::with(|cfg, _, _| cfg.buckets = Arc::new(BucketTable::even(1)))
}

fn talking() -> Scene {
    let mut s = alone();
    s.talk_straight();
    s.wait_ms(5_000);
    s
}

fn queued() -> Scene {
    let mut s = alone();
    s.bench.login("ann", false);
    s.joins_queue();
    s
}

#[test]
fn peers_are_asked_soon_whether_they_are_there_and_a_talk_that_they_know_goes_on() {
    let mut s = talking();
    let restored = s.bench.restart();
    assert_eq!((restored.calls, restored.legs, restored.ended), (1, 2, 0));
    assert_eq!((s.gauges(), s.ann_state()), ((0, 0), AgentState::InCall));
    s.wait_ms(2_100);
    let asked = s.caller.expect(&mut s.bench, "OPTIONS");
    s.caller.answer(&mut s.bench, &asked, 200, "");
    let asked = s.ann.expect(&mut s.bench, "OPTIONS");
    s.ann.answer(&mut s.bench, &asked, 405, "");
    s.wait_ms(2_900);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 10s cause 0"]);
    s.assert_counts([1, 1, 1, 0]);
    s.assert_rest();
}

#[test]
fn a_peer_that_is_gone_ends_its_call_with_its_record() {
    let mut s = talking();
    s.bench.restart();
    s.wait_ms(2_100);
    let asked = s.caller.expect(&mut s.bench, "OPTIONS");
    s.caller.answer(&mut s.bench, &asked, 481, "");
    s.ann.expect(&mut s.bench, "OPTIONS");
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &bye, 200, "");
    s.caller_bye();
    assert_eq!(s.bench.cdrs.len(), 1);
    s.wait_ms(33_000);
    while s.bench.next_for(s.ann.addr).is_some() {}
    s.assert_rest();
}

#[test]
fn music_that_is_gone_is_called_again() {
    let mut s = queued();
    s.bench.restart();
    s.wait_ms(2_100);
    let asked = s.caller.expect(&mut s.bench, "OPTIONS");
    s.caller.answer(&mut s.bench, &asked, 200, "");
    let asked = s.media.expect(&mut s.bench, "OPTIONS");
    s.media.answer(&mut s.bench, &asked, 481, "");
    s.media_bye();
    s.wait_ms(2_000);
    s.media_answers();
    s.caller_moves();
    assert_eq!(s.state(), CallState::Queued);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn the_talk_of_a_flow_and_an_agent_that_are_gone_goes_on_under_their_names() {
    let mut s = talking();
    s.bench.restart_provisioned(&[flow("other", "sales")], &[agent("bob", BOB, "sales")]);
    s.wait_ms(1_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 6s cause 0"]);
    assert_eq!(&*s.bench.cdrs[0].flow.flowid, "sales");
    s.assert_rest();
}

#[test]
fn a_waiting_call_of_a_flow_that_is_gone_ends_with_its_record() {
    let mut s = queued();
    let restored = s.bench.restart_provisioned(&[flow("other", "sales")], &[agent("ann", ANN, "sales")]);
    assert_eq!(restored.ended, 1);
    s.media_bye();
    s.caller_bye();
    s.assert_cdrs(&["type -1 agent - fstats 1 rejected 0 wait 0s pickup 0s talk 0s cause 500"]);
    s.assert_rest();
}

#[test]
fn the_ringing_of_an_agent_who_is_gone_is_given_up_and_the_call_waits() {
    let mut s = alone();
    s.call();
    s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.bench.restart_provisioned(&[flow("sales", "sales")], &[agent("bob", BOB, "sales")]);
    while let Some(got) = s.bench.next_for(s.ann.addr).filter(|got| got.what() != "CANCEL") {
        assert_eq!(got.what(), "INVITE");
    }
    let invite = s.bob.expect(&mut s.bench, "INVITE");
    let sdp = s.bob.sdp();
    s.bob.answer(&mut s.bench, &invite, 200, &sdp);
    s.bob.expect(&mut s.bench, "ACK");
    s.assert_cdrs(&["type -1 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 500"]);
}

#[test]
fn no_broken_record_stops_the_start_and_each_is_told_of() {
    let whole = {
        let mut s = talking();
        s.bench.commit();
        s.bench.journal.records.len()
    };
    for nth in 0..whole {
        for cut in [true, false] {
            let mut s = talking();
            let mut kind = Kind::Shard;
            let restored = s.bench.restart_with(|records| {
                let (entity, record) = records.iter_mut().nth(nth).unwrap();
                kind = entity.kind;
                let half = record.len() / 2;
                *record = if cut { record[..half].into() } else { [&[200, 1][..], &record[1..]].concat().into() };
            });
            assert!(restored.unreadable.len() <= 1, "{restored:?}");
            if !cut && kind != Kind::Cdr {
                let told = restored.unreadable.first().unwrap_or_else(|| panic!("nothing is told of {kind:?}"));
                assert!(told.contains(&format!("{kind:?}")) && told.contains("version"), "{told}");
            }
            // Whatever is lost: nobody is kept in a call for ever.
            s.wait_ms(120_000);
            s.bench.engine.idle();
            assert_eq!(s.bench.engine.audit().calls, 0, "{kind:?} {nth}: {}", s.bench.ladder());
            assert_eq!(s.bench.engine.audit().legs, 0, "{kind:?} {nth}: {}", s.bench.ladder());
        }
    }
}

const HOUR_US: u64 = 3_600_000_000;

/// As that of a machine without a battery for it is, until somebody tells it the time.
#[test]
fn a_wall_clock_that_was_set_back_meanwhile_stretches_nothing() {
    let mut s = Scene::with(|cfg, _, _| {
        cfg.buckets = Arc::new(BucketTable::even(1));
        cfg.call.wrapup_us = 30_000_000;
    });
    s.talk_straight();
    s.caller_hangs_up_on_ann();
    s.wait_ms(10_000);
    s.bench.now.unix_us -= 10 * HOUR_US;
    s.bench.restart();
    assert_eq!(s.ann_state(), AgentState::Wrapup);
    s.wait_ms(30_000);
    assert_eq!(s.ann_state(), AgentState::Free);
    s.assert_rest();
}

#[test]
fn a_call_waits_on_from_now_where_the_wall_clock_says_that_it_is_still_to_come() {
    let mut s = queued();
    s.bench.now.unix_us -= HOUR_US;
    s.bench.restart();
    s.wait_ms(1_500);
    s.caller_leaves_queue();
    s.assert_cdrs(&["type 1 agent - fstats 9 rejected 0 wait 2s pickup 0s talk 0s cause 0"]);
    s.assert_rest();
}
