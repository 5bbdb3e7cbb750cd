//! External dispatch: nothing matches by itself, and somebody else says which agent gets which call.

mod ladder;

use ladder::{BOB, Bench, MEDIA, SHARDS, Scene, agent, flow};
use std::mem::swap;
use strowger_dispatch::AgentState;
use strowger_engine::{CallId, CallState, Control, NotPlaced, Reply};

/// Matching is off; Ann and Bob are free for `sales`.
fn external() -> Scene {
    let s = Scene::with(|_, _, agents| agents[1].logstate = Some(1));
    s.bench.dispatch.set_dispatching(false);
    s
}

fn place_call(bench: &mut Bench, call: CallId, agent: &str) -> Result<(), NotPlaced> {
    let agent = bench.registry.agent(agent).expect("known agent");
    match bench.control(Control::Place { call, agent }) {
        Reply::Done => Ok(()),
        Reply::NotPlaced(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

/// The only call there is.
fn the_call(bench: &mut Bench) -> CallId {
    let calls = bench.calls();
    assert_eq!(calls.len(), 1);
    calls[0].id
}

fn place(s: &mut Scene, agent: &str) -> Result<(), NotPlaced> {
    let call = the_call(&mut s.bench);
    place_call(&mut s.bench, call, agent)
}

/// Matching is switched on again, as the control plane does it.
fn switch_on(bench: &mut Bench) {
    bench.dispatch.set_dispatching(true);
    let mut made = Vec::new();
    bench.dispatch.handle(SHARDS).match_all(&mut made);
    bench.control(Control::Matched(made));
}

#[test]
fn a_call_waits_beside_free_agents_until_it_is_placed_with_the_one_of_choice() {
    let mut s = external();
    s.joins_queue();
    s.wait_ms(5_000);
    assert_eq!((s.gauges(), s.bench.calls()[0].state), ((1, 1), CallState::Queued));
    assert_eq!(place(&mut s, "bob"), Ok(()));
    assert_eq!((s.gauges(), s.bench.calls()[0].state), ((0, 0), CallState::ToAgent));
    let invite = s.bob.expect(&mut s.bench, "INVITE");
    let sdp = s.bob.sdp();
    s.bob.answer(&mut s.bench, &invite, 200, &sdp);
    s.bob.expect(&mut s.bench, "ACK");
    s.caller_moves();
    s.media_bye();
    s.wait_ms(3_000);
    s.caller_hangs_up();
    let bye = s.bob.expect(&mut s.bench, "BYE");
    s.bob.answer(&mut s.bench, &bye, 200, "");
    assert_eq!(s.bench.agent_state("bob"), AgentState::Wrapup);
    s.assert_cdrs(&["type 0 agent bob fstats 7 rejected 0 wait 5s pickup 0s talk 3s cause 0"]);
    s.assert_counts([1, 1, 1, 0]);
    s.assert_rest();
}

#[test]
fn a_call_whose_music_is_not_answered_yet_is_placed() {
    let mut s = external();
    s.call();
    let music = s.media.expect(&mut s.bench, "INVITE");
    assert_eq!(place(&mut s, "ann"), Ok(()));
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.ann_answers(&invite);
    s.caller_acks();
    s.media.expect_nothing(&mut s.bench);
    s.media_answers_late(&music);
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 2s cause 0"]);
    s.assert_rest();
}

#[test]
fn each_reason_against_a_placement_is_told() {
    let mut s = Scene::with(|_, flows, agents| {
        agents[1].skills = Some("support".into());
        let mut cleo = agent("cleo", "10.0.4.3:5060", "sales");
        (cleo.location, cleo.msrp_location) = (None, Some("sip:cleo@10.0.4.3:5060".into()));
        agents.push(cleo);
        let mut greeted = flow("greeted", "sales");
        greeted.message_welcome = Some(format!("sip:welcome@{MEDIA}"));
        flows.push(greeted);
    });
    s.bench.dispatch.set_dispatching(false);
    s.joins_queue();
    let call = the_call(&mut s.bench);
    assert_eq!(place(&mut s, "bob"), Err(NotPlaced::NotLoggedIn));
    s.bench.login("bob", true);
    assert_eq!(place(&mut s, "bob"), Err(NotPlaced::NoSkill));
    assert_eq!(place(&mut s, "cleo"), Err(NotPlaced::NotFreeAudio), "she takes chats alone");
    for call in [
        CallId { generation: call.generation + 1, ..call },
        CallId { slot: 77, ..call },
        CallId { shard: call.shard + 1, ..call },
    ] {
        assert_eq!(place_call(&mut s.bench, call, "ann"), Err(NotPlaced::NoCall));
        assert_eq!(place_call(&mut s.bench, call, "cleo"), Err(NotPlaced::NoCall), "looked for before what she takes");
    }
    let mut guest = s.bench.phone("guest", "10.0.2.2:5060");
    let sdp = guest.sdp();
    guest.invite(&mut s.bench, "greeted", &sdp);
    guest.expect(&mut s.bench, "100");
    let greeted = s.bench.calls().iter().find(|c| c.state == CallState::Welcome).expect("in the welcome").id;
    assert_eq!(place_call(&mut s.bench, greeted, "ann"), Err(NotPlaced::NotQueued));
    let welcome = s.media.expect(&mut s.bench, "INVITE");
    guest.cancel(&mut s.bench);
    guest.expect(&mut s.bench, "200");
    guest.expect(&mut s.bench, "487");
    guest.ack_error(&mut s.bench);
    s.media_answers_late(&welcome);
    assert_eq!(place_call(&mut s.bench, greeted, "ann"), Err(NotPlaced::NoCall), "the caller has left");
    assert_eq!(s.ann_state(), AgentState::Free, "no refusal holds an agent");
    assert_eq!(place(&mut s, "ann"), Ok(()));
    assert_eq!(place(&mut s, "ann"), Err(NotPlaced::NotQueued), "placed already");
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.caller_moves();
    assert_eq!(place(&mut s, "ann"), Err(NotPlaced::NotQueued), "in a talk");
}

#[test]
fn a_caller_who_has_changed_to_other_media_is_placed_with_nobody() {
    let mut s = external();
    s.joins_queue();
    let fax = s.caller.sdp().replace("m=audio", "m=image").replace("RTP/AVP 0 8 101", "udptl t38");
    s.caller.send(&mut s.bench, "INVITE", &fax);
    let invite = s.media.expect(&mut s.bench, "INVITE");
    s.media.answer(&mut s.bench, &invite, 200, &fax);
    s.media.expect(&mut s.bench, "ACK");
    s.caller.expect(&mut s.bench, "100");
    s.caller_acks();
    assert_eq!(place(&mut s, "ann"), Err(NotPlaced::UnsupportedMedia));
    assert_eq!(s.ann_state(), AgentState::Free);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn an_agent_is_placed_with_one_call_at_a_time_and_with_none_in_the_wrapup() {
    let mut s = external();
    s.joins_queue();
    let first = the_call(&mut s.bench);
    let mut second = s.bench.phone("second", "10.0.2.2:5060");
    let sdp = second.sdp();
    second.invite(&mut s.bench, "sales", &sdp);
    second.expect(&mut s.bench, "100");
    s.media_answers();
    second.expect(&mut s.bench, "200");
    second.ack(&mut s.bench, "");
    let other = s.bench.calls().iter().find(|c| c.id != first).expect("waits").id;
    assert_eq!(place_call(&mut s.bench, other, "ann"), Ok(()), "the later call first, if somebody says so");
    assert_eq!(place_call(&mut s.bench, first, "ann"), Err(NotPlaced::NotFreeAudio));
    let invite = s.ann_rings();
    s.ann.answer(&mut s.bench, &invite, 486, "");
    s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(s.ann_state(), AgentState::Wrapup);
    assert_eq!(place_call(&mut s.bench, first, "ann"), Err(NotPlaced::NotFreeAudio));
    s.wait_ms(2_000);
    assert_eq!(s.ann_state(), AgentState::Free);
    s.ann.expect_nothing(&mut s.bench);
    s.bob.expect_nothing(&mut s.bench);
    assert_eq!(s.gauges(), (2, 2), "the refused call waits again, and nobody is tried by itself");
    assert_eq!(place_call(&mut s.bench, other, "ann"), Ok(()), "also with who has refused it");
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    let offer = second.expect(&mut s.bench, "INVITE");
    second.answer(&mut s.bench, &offer, 200, &sdp);
    second.expect(&mut s.bench, "ACK");
    s.media_bye();
    s.wait_ms(2_000);
    second.send(&mut s.bench, "BYE", "");
    second.expect(&mut s.bench, "200");
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &bye, 200, "");
    s.assert_cdrs(&[
        "type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 486",
        "type 0 agent ann fstats 7 rejected 1 wait 2s pickup 0s talk 2s cause 0",
    ]);
    s.caller_hangs_up();
    s.media.expect(&mut s.bench, "BYE");
}

#[test]
fn switching_on_matches_all_that_waits_at_once_the_best_first() {
    let mut bench = Bench::with(
        &[flow("low", "a"), {
            let mut high = flow("high", "a");
            high.priority = Some(0);
            high
        }],
        &[agent("ann", "10.0.4.1:5060", "a"), agent("bob", BOB, "a")],
        |cfg| cfg.call.session_expires_s = 0,
    );
    bench.dispatch.set_dispatching(false);
    let (mut ann, mut bob) = (bench.phone("ann", "10.0.4.1:5060"), bench.phone("bob", BOB));
    for (n, flow) in ["low", "low", "high"].into_iter().enumerate() {
        let mut caller = bench.phone(&format!("c{n}"), &format!("10.0.2.{n}:5060"));
        let sdp = caller.sdp();
        caller.invite(&mut bench, flow, &sdp);
    }
    ann.expect_nothing(&mut bench);
    bob.expect_nothing(&mut bench);
    switch_on(&mut bench);
    let served = [ann.expect(&mut bench, "INVITE").sdp('s'), bob.expect(&mut bench, "INVITE").sdp('s')];
    assert_eq!(served, ["c2", "c0"], "by priority, then arrival");
    let calls = bench.calls();
    assert_eq!(calls.iter().filter(|c| c.state == CallState::Queued).count(), 1);
    bench.dispatch.set_dispatching(false);
    bench.control(Control::EndAll);
}

#[test]
fn agents_who_come_free_take_no_call_while_matching_is_off() {
    let mut s = external();
    s.joins_queue();
    s.bench.login("ann", false);
    s.bench.login("ann", true);
    assert_eq!(place(&mut s, "ann"), Ok(()));
    let invite = s.ann_rings();
    s.caller_leaves_queue();
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, &invite, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(s.ann_state(), AgentState::Free, "the caller left: no wrap-up");
    s.joins_queue();
    s.wait_ms(1_000);
    s.ann.expect_nothing(&mut s.bench);
    switch_on(&mut s.bench);
    let rings = [s.bench.agent_state("ann"), s.bench.agent_state("bob")];
    assert_eq!(rings.iter().filter(|s| **s == AgentState::InCall).count(), 1, "{rings:?}");
    s.bench.control(Control::EndAll);
}

#[test]
fn an_agent_who_logs_out_is_placed_with_no_call_and_keeps_the_one_that_rings() {
    let mut s = external();
    s.joins_queue();
    s.bench.login("ann", false);
    assert_eq!(place(&mut s, "ann"), Err(NotPlaced::NotLoggedIn));
    s.bench.login("ann", true);
    assert_eq!(place(&mut s, "ann"), Ok(()));
    s.bench.login("ann", false);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.wait_ms(2_000);
    assert_eq!(s.ann_state(), AgentState::Offline);
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 2s cause 0"]);
    s.assert_rest();
}

/// A reload takes the agent away: the shards know, the table does not yet.
#[test]
fn an_agent_who_is_gone_is_placed_with_no_call() {
    ladder::lives_on!("an agent who is gone from the table is gone");
    let mut s = external();
    s.joins_queue();
    let (call, ann) = (the_call(&mut s.bench), s.bench.registry.agent("ann").expect("known"));
    s.bench.reload(&[flow("sales", "sales")], &[agent("bob", BOB, "sales")]);
    let reply = s.bench.control(Control::Place { call, agent: ann });
    assert!(matches!(reply, Reply::NotPlaced(NotPlaced::NoAgent)), "{reply:?}");
    assert_eq!(place(&mut s, "bob"), Ok(()));
    s.bob.expect(&mut s.bench, "INVITE");
    s.bench.control(Control::EndAll);
}

/// Calls on both shards are placed with the same agent at the same time: one of them gets her.
#[test]
fn of_two_shards_that_place_one_agent_one_is_refused() {
    ladder::lives_on!("two shards");
    let mut s = external();
    let mut other = s.bench.second_engine();
    s.joins_queue();
    let first = the_call(&mut s.bench);
    swap(&mut s.bench.engine, &mut other);
    let mut guest = s.bench.phone("guest", "10.0.2.2:5060");
    let sdp = guest.sdp();
    guest.invite(&mut s.bench, "sales", &sdp);
    guest.expect(&mut s.bench, "100");
    s.media_answers();
    guest.expect(&mut s.bench, "200");
    guest.ack(&mut s.bench, "");
    let second = the_call(&mut s.bench);
    assert_eq!((first.shard, second.shard), (0, 1));
    assert_eq!(place_call(&mut s.bench, first, "ann"), Err(NotPlaced::NoCall), "another shard's");
    assert_eq!(place_call(&mut s.bench, second, "ann"), Ok(()));
    swap(&mut s.bench.engine, &mut other);
    assert_eq!(place_call(&mut s.bench, first, "ann"), Err(NotPlaced::NotFreeAudio));
    assert_eq!(place_call(&mut s.bench, first, "bob"), Ok(()));
    assert_eq!(s.ann.expect(&mut s.bench, "INVITE").sdp('s'), "guest");
    assert_eq!(s.bob.expect(&mut s.bench, "INVITE").sdp('s'), "caller");
    assert!(s.bench.mesh.is_empty(), "a placement is the call's own shard's work");
}
