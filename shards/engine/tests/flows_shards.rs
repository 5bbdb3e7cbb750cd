//! A call on one shard is given an agent whom another shard sets free.

mod ladder;

use ladder::Scene;
use std::mem::swap;
use strowger_dispatch::AgentState;
use strowger_engine::{Engine, MeshMsg};

/// Ann talks on shard 0, a second caller waits on shard 1; the talk has ended and Ann's wrap-up is over: the match is on
/// its way. Shard 1 drives from here on; the other engine is that of shard 0.
fn matched_across() -> (Scene, Engine, MeshMsg) {
    let mut s = Scene::new();
    let mut other = s.bench.second_engine();
    s.talk_straight();
    swap(&mut s.bench.engine, &mut other);
    // From another phone's address, so that the scene's caller can be that one afterwards.
    let mut second = s.bench.phone("second", "10.0.2.2:5060");
    let sdp = second.sdp();
    second.invite(&mut s.bench, "sales", &sdp);
    second.expect(&mut s.bench, "100");
    s.media_answers();
    second.expect(&mut s.bench, "200");
    second.ack(&mut s.bench, "");
    swap(&mut s.bench.engine, &mut other);
    s.wait_ms(3_000);
    s.caller_hangs_up_on_ann();
    s.wait_ms(2_000);
    s.ann.expect_nothing(&mut s.bench);
    assert_eq!(s.bench.mesh.len(), 1);
    let (to, msg) = s.bench.mesh.remove(0);
    assert_eq!((to, s.ann_state()), (1, AgentState::InCall));
    s.caller = second;
    swap(&mut s.bench.engine, &mut other);
    (s, other, msg)
}

fn both_at_rest(mut s: Scene, other: Engine) {
    s.assert_rest();
    s.bench.engine = other;
    s.assert_rest();
}

#[test]
fn the_agent_rings_as_soon_as_the_match_arrives_and_the_wait_is_told_from_its_release() {
    let (mut s, other, msg) = matched_across();
    s.wait_ms(3);
    s.bench.engine.handle_mesh(s.bench.now, msg);
    s.bench.drain();
    let invite = s.ann_rings();
    assert_eq!(s.bench.stamps, [0, 3_000], "microseconds since the agent was due");
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    let rows: Vec<_> = s.bench.cdrs.iter().map(|c| (c.call.shard, &*c.caller, c.fstats)).collect();
    assert_eq!(rows, [(0, "caller", 7), (1, "second", 7)]);
    assert_ne!(s.bench.cdrs[0].key, s.bench.cdrs[1].key);
    s.assert_counts([2, 2, 2, 0]);
    both_at_rest(s, other);
}

#[test]
fn a_caller_who_leaves_with_the_match_under_way_gives_the_agent_back() {
    let (mut s, other, msg) = matched_across();
    s.caller_leaves_queue();
    assert_eq!(s.ann_state(), AgentState::Free);
    s.bench.engine.handle_mesh(s.bench.now, msg);
    s.bench.drain();
    s.ann.expect_nothing(&mut s.bench);
    assert_eq!(s.ann_state(), AgentState::Free);
    s.assert_counts([2, 1, 1, 1]);
    both_at_rest(s, other);
}
