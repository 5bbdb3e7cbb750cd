//! The caller leaves: CANCEL and BYE in every state.

mod ladder;

use ladder::{Got, Scene};
use strowger_dispatch::AgentState;

const LEFT_QUEUE: &str = "type 1 agent - fstats 9 rejected 0 wait 0s pickup 0s talk 0s cause 0";
const LEFT_UNANSWERED: &str = "type 1 agent - fstats 9 rejected 0 wait 0s pickup 0s talk 0s cause 487";

fn with_welcome() -> Scene {
    Scene::with(|_, flows, _| flows[0].message_welcome = Some("sip:welcome@10.0.3.1:5060".into()))
}

fn caller_cancels(s: &mut Scene) {
    s.caller.cancel(&mut s.bench);
    s.caller.expect(&mut s.bench, "200");
    s.caller.expect(&mut s.bench, "487");
    s.caller.ack_error(&mut s.bench);
}

/// The media server was ringing and is cancelled.
fn media_cancelled(s: &mut Scene, invite: &Got) {
    let cancel = s.media.expect(&mut s.bench, "CANCEL");
    s.media.answer(&mut s.bench, &cancel, 200, "");
    s.media.answer(&mut s.bench, invite, 487, "");
    s.media.expect(&mut s.bench, "ACK");
}

fn ann_cancelled(s: &mut Scene, invite: &Got) {
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, invite, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
}

#[test]
fn cancel_while_the_welcome_or_the_music_is_being_called() {
    for scene in [with_welcome(), Scene::nobody()] {
        let mut s = scene;
        s.call();
        let invite = s.media.expect(&mut s.bench, "INVITE");
        s.media.answer(&mut s.bench, &invite, 180, "");
        caller_cancels(&mut s);
        media_cancelled(&mut s, &invite);
        s.assert_cdrs(&[LEFT_UNANSWERED]);
        s.assert_counts([1, 0, 0, 1]);
        assert_eq!(s.gauges(), (0, 0));
        assert_eq!(s.bench.flow_count("sales", |f| f.onhold_total.get()), 1);
        s.assert_rest();
    }
}

#[test]
fn media_that_answers_a_cancelled_call_gets_ack_and_bye() {
    let mut s = Scene::nobody();
    s.call();
    let invite = s.media.expect(&mut s.bench, "INVITE");
    caller_cancels(&mut s);
    s.media.expect_nothing(&mut s.bench);
    s.media_answers_late(&invite);
    s.assert_cdrs(&[LEFT_UNANSWERED]);
    s.assert_rest();
}

#[test]
fn bye_in_the_welcome_and_in_the_queue() {
    for scene in [with_welcome(), Scene::nobody()] {
        let mut s = scene;
        s.joins_queue();
        s.caller_leaves_queue();
        s.assert_cdrs(&[LEFT_QUEUE]);
        s.assert_counts([1, 0, 0, 1]);
        s.assert_rest();
    }
}

#[test]
fn bye_on_the_early_dialog_gets_200_and_the_invite_487() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.caller.send(&mut s.bench, "BYE", "");
    let ok = s.caller.expect(&mut s.bench, "200");
    assert!(ok.header(strowger_sip::msg::Name::CSeq).ends_with("BYE"));
    s.caller.expect(&mut s.bench, "487");
    s.caller.ack_error(&mut s.bench);
    ann_cancelled(&mut s, &invite);
    s.assert_cdrs(&["type 1 agent ann fstats 11 rejected 0 wait 0s pickup 0s talk 0s cause 0"]);
    assert_eq!(s.ann_state(), AgentState::Free);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn cancel_while_the_agent_rings_straight_is_one_record_and_a_free_agent() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.wait_ms(4_000);
    caller_cancels(&mut s);
    ann_cancelled(&mut s, &invite);
    assert_eq!(s.ann_state(), AgentState::Free, "no wrap-up");
    s.assert_cdrs(&["type 1 agent ann fstats 11 rejected 0 wait 4s pickup 4s talk 0s cause 487"]);
    s.assert_counts([1, 1, 0, 1]);
    assert_eq!(s.bench.agent_count("ann", |a| a.abandoned.get()), 1);
    s.assert_rest();
}

#[test]
fn bye_while_the_agent_rings_from_the_queue() {
    let mut s = Scene::queued();
    s.wait_ms(3_000);
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.wait_ms(2_000);
    s.caller_leaves_queue();
    ann_cancelled(&mut s, &invite);
    s.assert_cdrs(&["type 1 agent ann fstats 11 rejected 0 wait 5s pickup 2s talk 0s cause 0"]);
    assert_eq!(s.ann_state(), AgentState::Free);
    s.assert_rest();
}

#[test]
fn a_cancelled_agent_whose_phone_stays_silent_is_free_after_a_grace() {
    let mut s = Scene::new();
    s.call();
    s.ann.expect(&mut s.bench, "INVITE");
    caller_cancels(&mut s);
    s.wait_ms(1_000);
    assert_eq!(s.ann_state(), AgentState::Free);
    s.wait_ms(60_000);
    for _ in 0..6 {
        s.ann.expect(&mut s.bench, "INVITE"); // until Timer B, for it may still answer
    }
    s.assert_rest();
}

#[test]
fn bye_after_the_agents_answer_before_the_bridge_is_an_answered_call() {
    let mut s = Scene::queued();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.caller.expect(&mut s.bench, "INVITE");
    s.caller_hangs_up();
    // What is left of our re-INVITE.
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &bye, 200, "");
    s.media_bye();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 1s cause 0"]);
    assert_eq!(s.ann_state(), AgentState::Wrapup);
    s.bench.wait_ms(60_000);
    while s.bench.next_for(s.caller.addr).is_some() {}
    s.assert_rest();
}

#[test]
fn a_callers_hang_up_in_the_first_second_of_talk_is_an_answered_call() {
    let mut s = Scene::new();
    s.talk_straight();
    s.wait_ms(200);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 1s cause 0"]);
    s.assert_rest();
}

#[test]
fn whole_seconds_are_rounded_half_up() {
    for (ms, want) in [(2_499, 2), (2_500, 3)] {
        let mut s = Scene::new();
        s.talk_straight();
        s.wait_ms(ms);
        s.caller_hangs_up_on_ann();
        assert_eq!(s.bench.cdrs[0].talk_s, want);
        s.assert_rest();
    }
}

#[test]
fn bye_between_our_200_and_the_ack_ends_the_call() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.ann_answers(&invite);
    s.caller.expect(&mut s.bench, "200");
    let invite_cseq = s.caller.cseq();
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 1s cause 0"]);
    // Our 200 is repeated until its ACK all the same (RFC 3261 section 13.3.1.4).
    s.wait_ms(1_000);
    s.caller.expect(&mut s.bench, "200");
    s.caller.set_cseq(invite_cseq);
    s.caller.ack(&mut s.bench, "");
    s.assert_rest();
}

#[test]
fn a_cancel_after_our_200_is_answered_and_changes_nothing() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.ann_answers(&invite);
    s.caller.expect(&mut s.bench, "200");
    s.caller.cancel(&mut s.bench);
    s.caller.expect(&mut s.bench, "200");
    s.caller.ack(&mut s.bench, "");
    s.wait_ms(3_000);
    s.ann.expect_nothing(&mut s.bench);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 3s cause 0"]);
    s.assert_rest();
}

#[test]
fn a_caller_who_never_acknowledges_is_ended_with_one_record() {
    let mut s = Scene::nobody();
    s.call();
    s.media_answers();
    s.caller.expect(&mut s.bench, "200");
    s.wait_ms(32_000);
    for _ in 0..10 {
        s.caller.expect(&mut s.bench, "200"); // 0.5, 1.5, 3.5, then each 4 s
    }
    s.caller_bye();
    s.media_bye();
    s.assert_cdrs(&["type 1 agent - fstats 9 rejected 0 wait 32s pickup 0s talk 0s cause 408"]);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn a_repeated_invite_is_the_same_call() {
    let mut s = Scene::nobody();
    s.call();
    let sdp = s.caller.sdp();
    s.caller.repeat_invite(&mut s.bench, "sales", &sdp);
    s.caller.expect(&mut s.bench, "100");
    s.media_answers();
    s.media.expect_nothing(&mut s.bench);
    s.caller.expect(&mut s.bench, "200");
    s.caller.repeat_invite(&mut s.bench, "sales", &sdp);
    s.caller.ack(&mut s.bench, "");
    s.caller_leaves_queue();
    s.assert_cdrs(&[LEFT_QUEUE]);
    s.assert_counts([1, 0, 0, 1]);
}

#[test]
fn a_caller_without_description_cancels_or_leaves_the_offer_unanswered() {
    let mut s = Scene::new();
    s.caller.invite(&mut s.bench, "sales", "");
    s.caller.expect(&mut s.bench, "100");
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    s.caller.expect(&mut s.bench, "200");
    s.ann.expect_nothing(&mut s.bench);
    s.caller.ack(&mut s.bench, "");
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(ack.sdp('m'), "audio 0 RTP/AVP 0 8 101", "every stream refused");
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &bye, 200, "");
    s.caller_bye();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 1s cause 488"]);
    s.assert_rest();
}

/// The caller names this as where it is to be reached from now on.
fn caller_is_at(s: &mut Scene, contact: Option<&str>) {
    s.caller.contact = contact.map(str::to_owned);
    let sdp = s.caller.sdp();
    s.caller.send(&mut s.bench, "INVITE", &sdp);
    s.caller.expect(&mut s.bench, "100");
    s.caller.expect(&mut s.bench, "200");
    s.caller.ack(&mut s.bench, "");
}

#[test]
fn a_caller_to_whom_there_is_no_way_is_gone_after_some_tries() {
    let mut s = Scene::queued();
    caller_is_at(&mut s, Some("tel:+4930"));
    s.media.send(&mut s.bench, "BYE", "");
    s.media.expect(&mut s.bench, "200");
    s.wait_ms(2_000);
    s.media_answers();
    s.wait_ms(7_999);
    s.media.expect_nothing(&mut s.bench);
    s.wait_ms(1);
    s.media_bye();
    s.caller.expect_nothing(&mut s.bench);
    s.assert_cdrs(&["type 1 agent - fstats 9 rejected 0 wait 10s pickup 0s talk 0s cause 503"]);
    s.assert_counts([1, 0, 0, 1]);
    s.assert_rest();
}

#[test]
fn a_caller_to_whom_there_is_no_way_for_a_moment_gets_its_agent() {
    let mut s = Scene::queued();
    caller_is_at(&mut s, Some("tel:+4930"));
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.wait_ms(2_000);
    caller_is_at(&mut s, None);
    s.wait_ms(1_999);
    s.caller.expect_nothing(&mut s.bench);
    s.wait_ms(1);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(10_000);
    s.ann.expect_nothing(&mut s.bench);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 14s cause 0"]);
    s.assert_rest();
}
