//! `message_flow_id`: the agent hears it before the caller is connected; who fails on the way, and how it is recorded.

mod ladder;

use ladder::briefed::{ann_bye, ann_moves, bridged, scene_with};
use ladder::{Got, Scene};
use strowger_dispatch::AgentState;
use strowger_engine::{CallState, Control, EngineConfig};

/// A caller waits with music; then Ann logs in, and her phone rings.
fn rings() -> (Scene, Got) {
    rings_with(|_| {})
}

fn rings_with(change: impl FnOnce(&mut EngineConfig)) -> (Scene, Got) {
    let mut s = scene_with(false, change);
    s.joins_queue();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    (s, invite)
}

/// Ann answers with an offer, whose answer is the message's to give.
fn ann_offers(s: &mut Scene, invite: &Got) {
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, invite, 200, &sdp);
    s.ann.expect_nothing(&mut s.bench);
}

/// Ann hears the message.
#[track_caller]
fn message_plays(s: &mut Scene, invite: &Got) -> Got {
    ann_offers(s, invite);
    let message = s.news_answers();
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(ack.sdp('s'), "news", "the message's answer to her offer");
    message
}

/// A caller with music; Ann hears the message.
fn hearing() -> Scene {
    let (mut s, invite) = rings();
    message_plays(&mut s, &invite);
    s
}

/// The message is over: Ann is asked for another offer, and gives it.
#[track_caller]
fn message_ends(s: &mut Scene) -> Got {
    s.news_hangs_up();
    ann_moves(s)
}

/// The call waits again with its music, and its caller leaves; Ann is in her wrap-up.
#[track_caller]
fn waits_again(s: &mut Scene, cdr: &str) {
    assert_eq!((s.state(), s.gauges()), (CallState::Queued, (1, 1)));
    assert_eq!(s.ann_state(), AgentState::Wrapup);
    s.assert_cdrs(&[cdr]);
    s.assert_counts([1, 1, 0, 0]);
    s.bench.login("ann", false);
    s.caller_leaves_queue();
    s.assert_counts([1, 1, 0, 1]);
    s.assert_rest();
}

#[test]
fn the_agent_hears_the_message_and_is_then_connected_to_the_caller() {
    let (mut s, invite) = rings();
    assert_eq!((invite.body().as_str(), invite.other("X-CC-State").as_deref()), ("", Some("preagent")));
    assert_eq!((s.state(), s.gauges()), (CallState::Preagent, (1, 0)), "on hold, not in the queue");
    s.wait_ms(3_000);
    let message = message_plays(&mut s, &invite);
    assert_eq!(message.uri(), "sip:flowid@10.0.3.2:5060");
    assert_eq!((message.sdp('s').as_str(), message.other("X-CC-State").as_deref()), ("ann", Some("preagent")));
    s.wait_ms(2_000);
    s.caller.expect_nothing(&mut s.bench);
    s.assert_counts([1, 1, 0, 0]);
    assert_eq!(s.state(), CallState::Preagent);
    let reinvite = message_ends(&mut s);
    assert_eq!(reinvite.other("X-CC-State").as_deref(), Some("toagent"));
    s.assert_counts([1, 1, 0, 0]);
    bridged(&mut s);
    s.assert_counts([1, 1, 1, 0]);
    assert_eq!((s.state(), s.gauges()), (CallState::ToAgent, (0, 0)));
    s.wait_ms(7_000);
    s.caller_hangs_up_on_ann();
    assert_eq!(s.ann_state(), AgentState::Wrapup);
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 5s pickup 5s talk 7s cause 0"]);
    assert_eq!(s.bench.agent_count("ann", |a| a.answered.get()), 1);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn an_unanswered_callers_own_offer_goes_to_the_agent_after_the_message() {
    let mut s = scene_with(true, |_| {});
    s.call();
    let invite = s.ann_rings();
    assert_eq!(invite.body(), "");
    s.caller.expect(&mut s.bench, "180");
    assert_eq!(s.gauges(), (1, 0));
    message_plays(&mut s, &invite);
    s.wait_ms(2_000);
    s.caller.expect_nothing(&mut s.bench);
    s.news_hangs_up();
    let reinvite = s.ann.expect(&mut s.bench, "INVITE");
    assert_eq!(reinvite.sdp('s'), "caller");
    s.ann_answers(&reinvite);
    let ok = s.caller.expect(&mut s.bench, "200");
    assert_eq!(ok.sdp('s'), "ann");
    s.assert_counts([1, 1, 0, 0]);
    s.caller.ack(&mut s.bench, "");
    s.assert_counts([1, 1, 1, 0]);
    s.wait_ms(4_000);
    s.ann_hangs_up();
    s.caller_bye();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 2s pickup 2s talk 4s cause 0"]);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn an_unanswered_caller_hears_each_minute_of_a_long_message_that_it_rings() {
    let mut s = scene_with(true, |_| {});
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    message_plays(&mut s, &invite);
    for _ in 0..4 {
        s.wait_ms(59_999);
        s.caller.expect_nothing(&mut s.bench);
        s.wait_ms(1);
        s.caller.expect(&mut s.bench, "180");
    }
    s.ann_hangs_up();
    s.news_bye();
    s.bench.login("ann", false);
    s.media_answers();
    s.caller_acks();
    s.wait_ms(120_000);
    s.caller.expect_nothing(&mut s.bench);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_caller_without_a_description_gets_the_agents_second_offer_and_answers_it_in_the_ack() {
    let mut s = scene_with(true, |_| {});
    s.caller.invite(&mut s.bench, "sales", "");
    s.caller.expect(&mut s.bench, "100");
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    message_plays(&mut s, &invite);
    message_ends(&mut s);
    let ok = s.caller.expect(&mut s.bench, "200");
    assert_eq!(ok.sdp('s'), "ann");
    s.ann.expect_nothing(&mut s.bench);
    let answer = s.caller.sdp();
    s.caller.ack(&mut s.bench, &answer);
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(ack.sdp('s'), "caller");
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_counts([1, 1, 1, 0]);
    s.assert_rest();
}

#[test]
fn an_agent_who_refuses_or_does_not_answer_is_a_rejection() {
    let (mut s, invite) = rings();
    s.wait_ms(1_000);
    s.ann.answer(&mut s.bench, &invite, 486, "");
    s.ann.expect(&mut s.bench, "ACK");
    waits_again(&mut s, "type -2 agent ann fstats 3 rejected 0 wait 1s pickup 1s talk 0s cause 486");

    let (mut s, invite) = rings();
    s.wait_ms(30_000);
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, &invite, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
    waits_again(&mut s, "type -2 agent ann fstats 3 rejected 0 wait 30s pickup 30s talk 0s cause 408");
}

#[test]
fn an_agent_who_hangs_up_in_the_message_is_a_rejection_however_long_it_played() {
    let mut s = hearing();
    s.wait_ms(60_000);
    s.ann_hangs_up();
    s.news_bye();
    s.caller.expect_nothing(&mut s.bench);
    waits_again(&mut s, "type -2 agent ann fstats 3 rejected 0 wait 60s pickup 60s talk 0s cause 0");
}

#[test]
fn an_agent_who_hangs_up_while_the_message_is_called_is_a_rejection() {
    let (mut s, invite) = rings();
    ann_offers(&mut s, &invite);
    let message = s.news.expect(&mut s.bench, "INVITE");
    s.news.answer(&mut s.bench, &message, 180, "");
    s.ann_hangs_up();
    let cancel = s.news.expect(&mut s.bench, "CANCEL");
    s.news.answer(&mut s.bench, &cancel, 200, "");
    s.news.answer(&mut s.bench, &message, 487, "");
    s.news.expect(&mut s.bench, "ACK");
    // Her 2xx still waits for its ACK.
    while s.bench.next_for(s.ann.addr).is_some() {}
    waits_again(&mut s, "type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 0");
}

#[test]
fn an_agent_who_refuses_to_be_moved_is_a_rejection() {
    let mut s = hearing();
    s.news_hangs_up();
    let reinvite = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.answer(&mut s.bench, &reinvite, 488, "");
    s.ann.expect(&mut s.bench, "ACK");
    ann_bye(&mut s);
    waits_again(&mut s, "type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 488");
}

#[test]
fn an_agent_who_gives_no_description_when_moved_is_a_rejection() {
    let mut s = hearing();
    s.news_hangs_up();
    let reinvite = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.answer(&mut s.bench, &reinvite, 200, "");
    s.ann.expect(&mut s.bench, "ACK");
    ann_bye(&mut s);
    waits_again(&mut s, "type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 488");
}

#[test]
fn an_agent_who_falls_silent_at_the_end_of_the_message_is_a_rejection() {
    let mut s = hearing();
    s.news_hangs_up();
    s.wait_ms(31_999);
    assert_eq!(s.bench.cdrs.len(), 0);
    s.wait_ms(1);
    for _ in 0..7 {
        s.ann.expect(&mut s.bench, "INVITE");
    }
    ann_bye(&mut s);
    waits_again(&mut s, "type -2 agent ann fstats 3 rejected 0 wait 32s pickup 32s talk 0s cause 408");
}

#[test]
fn an_agent_who_dies_behind_a_provisional_answer_is_not_waited_for_without_end() {
    let mut s = hearing();
    s.news_hangs_up();
    let reinvite = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.answer(&mut s.bench, &reinvite, 100, "");
    s.wait_ms(32_000);
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, &reinvite, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
    ann_bye(&mut s);
    waits_again(&mut s, "type -2 agent ann fstats 3 rejected 0 wait 32s pickup 32s talk 0s cause 408");
}

#[test]
fn an_agent_who_hangs_up_within_min_talk_time_of_the_bridge_is_a_rejection() {
    let mut s = hearing();
    s.wait_ms(5_000);
    message_ends(&mut s);
    bridged(&mut s);
    s.wait_ms(900);
    s.ann_hangs_up();
    s.media_answers();
    s.caller_moves();
    waits_again(&mut s, "type -2 agent ann fstats 3 rejected 0 wait 6s pickup 5s talk 0s cause 0");
}

#[test]
fn a_message_that_fails_is_skipped_and_the_agents_open_offer_goes_to_the_caller() {
    let (mut s, invite) = rings();
    ann_offers(&mut s, &invite);
    s.news_refuses(503);
    bridged(&mut s);
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 2s cause 0"]);
    assert_eq!(s.bench.stats.sum(|shard| shard.media_failures.get()), 1);
    s.assert_rest();
}

#[test]
fn a_message_that_fails_before_an_unanswered_caller_is_answered_holds_the_agent_for_a_moment() {
    let mut s = scene_with(true, |_| {});
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    ann_offers(&mut s, &invite);
    s.news_refuses(404);
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert!(ack.body().contains("a=inactive"), "both have made an offer: neither can answer the other");
    s.wait_ms(499);
    s.ann.expect_nothing(&mut s.bench);
    s.wait_ms(1);
    let reinvite = s.ann.expect(&mut s.bench, "INVITE");
    assert_eq!(reinvite.sdp('s'), "caller");
    s.ann_answers(&reinvite);
    let ok = s.caller_acks();
    assert_eq!(ok.sdp('s'), "ann");
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn a_message_that_never_answers_is_given_up_before_the_agent_gives_up() {
    let (mut s, invite) = rings();
    ann_offers(&mut s, &invite);
    let message = s.news.expect(&mut s.bench, "INVITE");
    s.news.answer(&mut s.bench, &message, 180, "");
    s.wait_ms(16_000);
    let cancel = s.news.expect(&mut s.bench, "CANCEL");
    s.news.answer(&mut s.bench, &cancel, 200, "");
    // Its answer crosses our CANCEL.
    let sdp = s.news.sdp();
    s.news.answer(&mut s.bench, &message, 200, &sdp);
    s.news.expect(&mut s.bench, "ACK");
    s.news_bye();
    bridged(&mut s);
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 16s pickup 16s talk 2s cause 0"]);
    s.assert_rest();
}

#[test]
fn a_message_without_a_description_is_skipped() {
    let (mut s, invite) = rings();
    ann_offers(&mut s, &invite);
    let message = s.news.expect(&mut s.bench, "INVITE");
    s.news.answer(&mut s.bench, &message, 200, "");
    s.news.expect(&mut s.bench, "ACK");
    s.news_bye();
    bridged(&mut s);
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn the_caller_may_leave_while_the_agent_rings_or_hears_the_message() {
    let (mut s, invite) = rings();
    s.wait_ms(2_000);
    s.caller_leaves_queue();
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, &invite, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(s.ann_state(), AgentState::Free, "at once");
    s.assert_cdrs(&["type 1 agent ann fstats 11 rejected 0 wait 2s pickup 2s talk 0s cause 0"]);
    s.assert_rest();

    let mut s = hearing();
    s.wait_ms(2_000);
    s.caller_hangs_up();
    s.media_bye();
    s.news_bye();
    ann_bye(&mut s);
    assert_eq!(s.ann_state(), AgentState::Free, "at once");
    s.assert_cdrs(&["type 1 agent ann fstats 11 rejected 0 wait 2s pickup 2s talk 0s cause 0"]);
    s.assert_counts([1, 1, 0, 1]);
    assert_eq!(s.gauges(), (0, 0));
    assert_eq!(s.bench.agent_count("ann", |a| a.abandoned.get()), 1);
    s.assert_rest();
}

#[test]
fn the_caller_may_cancel_while_the_agent_rings_or_hears_the_message() {
    for plays in [false, true] {
        let mut s = scene_with(true, |_| {});
        s.call();
        let invite = s.ann_rings();
        s.caller.expect(&mut s.bench, "180");
        if plays {
            message_plays(&mut s, &invite);
        }
        s.caller.cancel(&mut s.bench);
        s.caller.expect(&mut s.bench, "200");
        s.caller.expect(&mut s.bench, "487");
        s.caller.ack_error(&mut s.bench);
        if plays {
            s.news_bye();
            ann_bye(&mut s);
        } else {
            // Her answer crosses our CANCEL: her offer is refused in the ACK.
            let cancel = s.ann.expect(&mut s.bench, "CANCEL");
            s.ann.answer(&mut s.bench, &cancel, 200, "");
            let sdp = s.ann.sdp();
            s.ann.answer(&mut s.bench, &invite, 200, &sdp);
            let ack = s.ann.expect(&mut s.bench, "ACK");
            assert!(ack.sdp('m').starts_with("audio 0 "));
            ann_bye(&mut s);
        }
        assert_eq!(s.ann_state(), AgentState::Free);
        s.assert_cdrs(&["type 1 agent ann fstats 11 rejected 0 wait 0s pickup 0s talk 0s cause 487"]);
        s.assert_counts([1, 1, 0, 1]);
        s.assert_rest();
    }
}

#[test]
fn a_redirected_agent_hears_the_message_too() {
    let mut s = scene_with(false, |cfg| cfg.call.follow_redirects = true);
    s.joins_queue();
    s.bench.login("ann", true);
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.addr = "10.0.4.2:5060".parse().unwrap();
    s.ann.answer(&mut s.bench, &invite, 302, "");
    s.ann.addr = "10.0.4.1:5060".parse().unwrap();
    s.ann.expect(&mut s.bench, "ACK");
    let invite = s.bob.expect(&mut s.bench, "INVITE");
    assert_eq!(invite.body(), "");
    let sdp = s.bob.sdp();
    s.bob.answer(&mut s.bench, &invite, 200, &sdp);
    s.news_answers();
    s.bob.expect(&mut s.bench, "ACK");
    s.news_hangs_up();
    let reinvite = s.bob.expect(&mut s.bench, "INVITE");
    let sdp = s.bob.sdp();
    s.bob.answer(&mut s.bench, &reinvite, 200, &sdp);
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "bob");
    s.bob.expect(&mut s.bench, "ACK");
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up();
    let bye = s.bob.expect(&mut s.bench, "BYE");
    s.bob.answer(&mut s.bench, &bye, 200, "");
    s.assert_rest();
}

#[test]
fn a_logout_or_a_reload_in_the_message_changes_nothing_for_the_call() {
    ladder::lives_on!("the present definitions hold");
    let mut s = hearing();
    s.bench.login("ann", false);
    assert_eq!(s.ann_state(), AgentState::InCall);
    s.bench.reload(&[ladder::flow("sales", "sales")], &[]);
    s.wait_ms(1_000);
    message_ends(&mut s);
    bridged(&mut s);
    s.wait_ms(3_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 1s pickup 1s talk 3s cause 0"]);
    s.assert_rest();
}

#[test]
fn the_end_of_the_server_ends_a_call_in_preagent() {
    let mut s = hearing();
    s.bench.control(Control::EndAll);
    s.caller_bye();
    s.media_bye();
    s.news_bye();
    ann_bye(&mut s);
    s.assert_cdrs(&["type -1 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 503"]);
    s.assert_rest();
}

#[test]
fn after_a_rejection_in_preagent_the_next_agent_hears_the_message() {
    let mut s = hearing();
    s.bench.login("bob", true);
    s.ann_hangs_up();
    s.news_bye();
    let invite = s.bob.expect(&mut s.bench, "INVITE");
    assert_eq!(invite.other("X-CC-State").as_deref(), Some("preagent"));
    let sdp = s.bob.sdp();
    s.bob.answer(&mut s.bench, &invite, 200, &sdp);
    s.news_answers();
    s.bob.expect(&mut s.bench, "ACK");
    s.caller_leaves_queue();
    s.news_bye();
    let bye = s.bob.expect(&mut s.bench, "BYE");
    s.bob.answer(&mut s.bench, &bye, 200, "");
    s.assert_cdrs(&[
        "type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 0",
        "type 1 agent bob fstats 11 rejected 1 wait 0s pickup 0s talk 0s cause 0",
    ]);
    s.assert_rest();
}
