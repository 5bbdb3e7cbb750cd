//! `message_flow_id`: messages that cross, requests of either side in the middle, refusals at the bridge.

mod ladder;

use ladder::briefed::{ann_bye, ann_moves, bridged, scene_with};
use ladder::{Got, Scene};
use strowger_dispatch::AgentState;
use strowger_engine::{CallState, EngineConfig};

/// Ann answers, and the message plays to her.
#[track_caller]
fn message_plays(s: &mut Scene, invite: &Got) {
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, invite, 200, &sdp);
    s.news_answers();
    s.ann.expect(&mut s.bench, "ACK");
}

/// A caller with music; Ann hears the message.
fn hearing() -> Scene {
    hearing_with(|_| {})
}

fn hearing_with(change: impl FnOnce(&mut EngineConfig)) -> Scene {
    let mut s = scene_with(false, change);
    s.joins_queue();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    message_plays(&mut s, &invite);
    s
}

/// They talk for 2 s; one record, one answered call.
#[track_caller]
fn talks_and_ends(s: &mut Scene) {
    assert_eq!((s.state(), s.gauges()), (CallState::ToAgent, (0, 0)));
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_counts([1, 1, 1, 0]);
    assert_eq!(s.bench.cdrs.len(), 1);
    let cdr = &s.bench.cdrs[0];
    assert_eq!((cdr.call_type as i8, cdr.fstats, cdr.talk_s), (0, 7, 2));
    s.assert_rest();
}

/// The caller left before the bridge: Ann is free at once.
#[track_caller]
fn abandoned(s: &mut Scene) {
    assert_eq!(s.ann_state(), AgentState::Free, "at once");
    assert_eq!(s.bench.cdrs.len(), 1);
    let cdr = &s.bench.cdrs[0];
    assert_eq!((cdr.call_type as i8, cdr.fstats, cdr.talk_s, cdr.agent.is_some()), (1, 11, 0, true));
    s.assert_counts([1, 1, 0, 1]);
    s.assert_rest();
}

/// What follows a message in every story that ends well: ann is moved, bridged, and talks.
fn is_bridged_and_ends(s: &mut Scene) {
    ann_moves(s);
    bridged(s);
    talks_and_ends(s);
}

#[test]
fn a_message_that_answers_and_hangs_up_at_once() {
    let mut s = scene_with(false, |_| {});
    s.joins_queue();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    let message = s.news.expect(&mut s.bench, "INVITE");
    let sdp = s.news.sdp();
    s.news.answer(&mut s.bench, &message, 200, &sdp);
    s.news.send(&mut s.bench, "BYE", "");
    s.news.expect(&mut s.bench, "ACK");
    s.news.expect(&mut s.bench, "200");
    // Her ACK with the message's answer may still be on its way: the next offer is behind it.
    s.ann.expect(&mut s.bench, "ACK");
    is_bridged_and_ends(&mut s);
}

#[test]
fn an_agent_whose_bye_crosses_our_reinvite_is_a_rejection() {
    let mut s = hearing();
    s.news_hangs_up();
    let reinvite = s.ann.expect(&mut s.bench, "INVITE");
    s.ann_hangs_up();
    s.ann.answer(&mut s.bench, &reinvite, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
    s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 0"]);
    assert_eq!((s.state(), s.ann_state()), (CallState::Queued, AgentState::Wrapup));
    s.bench.login("ann", false);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn an_agent_who_hangs_up_with_the_caller_being_moved_leaves_it_with_the_music() {
    let mut s = hearing();
    s.news_hangs_up();
    ann_moves(&mut s);
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.ann_hangs_up();
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert!(ack.sdp('m').starts_with("audio 0 "), "the offer in her 200 is refused: {}", ack.body());
    s.bench.login("ann", false);
    let sdp = s.caller.sdp();
    s.caller.answer(&mut s.bench, &offer, 200, &sdp);
    s.caller.expect(&mut s.bench, "ACK");
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "media");
    s.caller_leaves_queue();
    assert_eq!(s.bench.cdrs[0].call_type as i8, -2);
    s.assert_counts([1, 1, 0, 1]);
    s.assert_rest();
}

#[test]
fn the_agents_requests_in_the_message_go_to_its_server() {
    let mut s = hearing();
    s.ann.send(&mut s.bench, "INFO", "");
    let info = s.news.expect(&mut s.bench, "INFO");
    s.news.answer(&mut s.bench, &info, 200, "");
    s.ann.expect(&mut s.bench, "200");
    let held = s.ann.move_to_port(46_000);
    s.ann.send(&mut s.bench, "INVITE", &held);
    s.ann.expect(&mut s.bench, "100");
    let relayed = s.news.expect(&mut s.bench, "INVITE");
    assert_eq!(relayed.sdp('m'), "audio 46000 RTP/AVP 0 8 101");
    let sdp = s.news.sdp();
    s.news.answer(&mut s.bench, &relayed, 200, &sdp);
    s.news.expect(&mut s.bench, "ACK");
    let ok = s.ann.expect(&mut s.bench, "200");
    assert_eq!(ok.sdp('s'), "news");
    s.ann.ack(&mut s.bench, "");
    let held = s.ann.move_to_port(46_002);
    s.ann.send(&mut s.bench, "UPDATE", &held);
    let relayed = s.news.expect(&mut s.bench, "UPDATE");
    let sdp = s.news.sdp();
    s.news.answer(&mut s.bench, &relayed, 200, &sdp);
    s.ann.expect(&mut s.bench, "200");
    s.caller.expect_nothing(&mut s.bench);
    s.media.expect_nothing(&mut s.bench);
    s.news_hangs_up();
    is_bridged_and_ends(&mut s);
}

#[test]
fn the_servers_requests_in_the_message_go_to_the_agent() {
    let mut s = hearing();
    let sdp = s.news.move_to_port(47_000);
    s.news.send(&mut s.bench, "INVITE", &sdp);
    s.news.expect(&mut s.bench, "100");
    let relayed = s.ann.expect(&mut s.bench, "INVITE");
    assert_eq!(relayed.sdp('m'), "audio 47000 RTP/AVP 0 8 101");
    // It hangs up before she has answered.
    s.news_hangs_up();
    s.news.expect(&mut s.bench, "487");
    s.news.ack_error(&mut s.bench);
    s.ann.expect_nothing(&mut s.bench);
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &relayed, 200, &sdp);
    s.ann.expect(&mut s.bench, "ACK");
    is_bridged_and_ends(&mut s);
}

#[test]
fn a_message_that_hangs_up_with_the_agents_reinvite_in_its_hands() {
    let mut s = hearing();
    let held = s.ann.move_to_port(46_000);
    s.ann.send(&mut s.bench, "INVITE", &held);
    s.ann.expect(&mut s.bench, "100");
    let relayed = s.news.expect(&mut s.bench, "INVITE");
    s.news_hangs_up();
    s.news.answer(&mut s.bench, &relayed, 487, "");
    s.news.expect(&mut s.bench, "ACK");
    s.ann.expect(&mut s.bench, "500");
    s.ann.ack_error(&mut s.bench);
    is_bridged_and_ends(&mut s);
}

#[test]
fn a_message_that_hangs_up_before_the_agents_ack_moves_her_after_it() {
    let mut s = hearing();
    let held = s.ann.move_to_port(46_000);
    s.ann.send(&mut s.bench, "INVITE", &held);
    s.ann.expect(&mut s.bench, "100");
    let relayed = s.news.expect(&mut s.bench, "INVITE");
    let sdp = s.news.sdp();
    s.news.answer(&mut s.bench, &relayed, 200, &sdp);
    s.news.expect(&mut s.bench, "ACK");
    s.ann.expect(&mut s.bench, "200");
    s.news_hangs_up();
    s.ann.expect_nothing(&mut s.bench);
    s.ann.ack(&mut s.bench, "");
    is_bridged_and_ends(&mut s);
}

#[test]
fn a_message_whose_dialog_is_found_dead_is_over() {
    let mut s = hearing();
    let held = s.ann.move_to_port(46_000);
    s.ann.send(&mut s.bench, "INVITE", &held);
    s.ann.expect(&mut s.bench, "100");
    let relayed = s.news.expect(&mut s.bench, "INVITE");
    s.news.answer(&mut s.bench, &relayed, 481, "");
    s.news.expect(&mut s.bench, "ACK");
    s.ann.expect(&mut s.bench, "500");
    s.ann.ack_error(&mut s.bench);
    s.news_bye();
    is_bridged_and_ends(&mut s);
}

#[test]
fn an_agent_whose_reinvite_crosses_ours_is_asked_again() {
    let mut s = hearing();
    s.news_hangs_up();
    let reinvite = s.ann.expect(&mut s.bench, "INVITE");
    let held = s.ann.move_to_port(46_000);
    s.ann.send(&mut s.bench, "INVITE", &held);
    s.ann.expect(&mut s.bench, "100");
    s.ann.expect(&mut s.bench, "491");
    s.ann.ack_error(&mut s.bench);
    s.ann.answer(&mut s.bench, &reinvite, 491, "");
    s.ann.expect(&mut s.bench, "ACK");
    // Hers comes first, as the Call-ID is ours (RFC 3261 section 14.1); nobody is there for it yet.
    s.wait_ms(1_000);
    s.ann.send(&mut s.bench, "INVITE", &held);
    s.ann.expect(&mut s.bench, "100");
    let ok = s.ann.expect(&mut s.bench, "200");
    assert!(ok.body().contains("a=inactive"));
    s.ann.ack(&mut s.bench, "");
    s.bench.wait_for(s.ann.addr, 4_000);
    ann_moves(&mut s);
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('m'), "audio 46000 RTP/AVP 0 8 101");
    s.ann.expect(&mut s.bench, "ACK");
    s.media_bye();
    talks_and_ends(&mut s);
}

#[test]
fn a_caller_who_changes_its_media_in_the_message_is_bridged_with_the_new_one() {
    let mut s = hearing();
    let moved = s.caller.move_to_port(45_000);
    s.caller.send(&mut s.bench, "INVITE", &moved);
    s.caller.expect(&mut s.bench, "100");
    let relayed = s.media.expect(&mut s.bench, "INVITE");
    // Ann is moved meanwhile; the caller only after its own re-INVITE.
    s.news_hangs_up();
    ann_moves(&mut s);
    s.caller.expect_nothing(&mut s.bench);
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &relayed, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    s.caller.expect(&mut s.bench, "200");
    s.caller.ack(&mut s.bench, "");
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "ann");
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(ack.sdp('m'), "audio 45000 RTP/AVP 0 8 101");
    s.media_bye();
    talks_and_ends(&mut s);
}

#[test]
fn a_caller_who_leaves_while_the_agent_is_moved() {
    let mut s = hearing();
    s.news_hangs_up();
    let reinvite = s.ann.expect(&mut s.bench, "INVITE");
    s.caller_leaves_queue();
    // Her offer crosses our BYE: it is refused.
    let bye = s.ann.expect(&mut s.bench, "BYE");
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &reinvite, 200, &sdp);
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert!(ack.sdp('m').starts_with("audio 0 "), "{}", ack.body());
    s.ann.answer(&mut s.bench, &bye, 200, "");
    abandoned(&mut s);
}

#[test]
fn a_caller_who_leaves_while_it_is_moved() {
    let mut s = hearing();
    s.news_hangs_up();
    ann_moves(&mut s);
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.caller_hangs_up();
    s.caller.answer(&mut s.bench, &offer, 487, "");
    s.caller.expect(&mut s.bench, "ACK");
    s.media_bye();
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert!(ack.sdp('m').starts_with("audio 0 "), "{}", ack.body());
    ann_bye(&mut s);
    abandoned(&mut s);
}

#[test]
fn a_caller_whose_dialog_is_found_dead_at_the_bridge() {
    let mut s = hearing();
    s.news_hangs_up();
    ann_moves(&mut s);
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.caller.answer(&mut s.bench, &offer, 481, "");
    s.caller.expect(&mut s.bench, "ACK");
    s.caller_bye();
    s.media_bye();
    s.ann.expect(&mut s.bench, "ACK");
    ann_bye(&mut s);
    abandoned(&mut s);
}

#[test]
fn an_unanswered_caller_who_never_acknowledges_the_bridge_has_left() {
    let mut s = scene_with(true, |_| {});
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    message_plays(&mut s, &invite);
    s.news_hangs_up();
    let reinvite = s.ann.expect(&mut s.bench, "INVITE");
    s.ann_answers(&reinvite);
    s.wait_ms(32_000);
    while s.bench.next_for(s.caller.addr).is_some() {}
    ann_bye(&mut s);
    assert_eq!(s.bench.cdrs[0].fstats, 11);
    s.wait_ms(40_000);
    while s.bench.next_for(s.caller.addr).is_some() {}
    abandoned(&mut s);
}

#[test]
fn a_caller_who_refuses_the_agents_offer_is_tried_in_the_other_mode_without_the_message() {
    let mut s = hearing();
    s.wait_ms(3_000);
    s.news_hangs_up();
    ann_moves(&mut s);
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.caller.answer(&mut s.bench, &offer, 488, "");
    s.caller.expect(&mut s.bench, "ACK");
    s.ann.expect(&mut s.bench, "ACK");
    ann_bye(&mut s);
    let invite = s.ann_rings();
    assert_eq!(invite.sdp('s'), "caller");
    s.wait_ms(1_000);
    s.ann_answers(&invite);
    s.news.expect_nothing(&mut s.bench);
    s.assert_counts([1, 1, 0, 0]);
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "ann");
    s.media_bye();
    assert_eq!(s.bench.calls()[0].state, CallState::ToAgent);
    talks_and_ends(&mut s);
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 4s pickup 4s talk 2s cause 0"]);
}

#[test]
fn a_caller_who_refuses_every_offer_is_an_error_of_ours() {
    let mut s = hearing();
    s.news_hangs_up();
    ann_moves(&mut s);
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.caller.answer(&mut s.bench, &offer, 488, "");
    s.caller.expect(&mut s.bench, "ACK");
    s.ann.expect(&mut s.bench, "ACK");
    ann_bye(&mut s);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.bench.login("ann", false);
    s.caller.answer(&mut s.bench, &offer, 488, "");
    s.caller.expect(&mut s.bench, "ACK");
    ann_bye(&mut s);
    assert_eq!((s.state(), s.ann_state()), (CallState::Queued, AgentState::Offline));
    s.assert_cdrs(&["type -1 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 488"]);
    s.caller_leaves_queue();
    s.assert_counts([1, 1, 0, 1]);
    s.assert_rest();
}

#[test]
fn a_caller_whose_reinvite_crosses_the_bridge_is_asked_again() {
    let mut s = hearing();
    s.news_hangs_up();
    ann_moves(&mut s);
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    let moved = s.caller.move_to_port(45_000);
    s.caller.send(&mut s.bench, "INVITE", &moved);
    s.caller.expect(&mut s.bench, "100");
    s.caller.expect(&mut s.bench, "491");
    s.caller.ack_error(&mut s.bench);
    s.caller.answer(&mut s.bench, &offer, 491, "");
    s.caller.expect(&mut s.bench, "ACK");
    s.bench.wait_for(s.caller.addr, 3_000);
    bridged(&mut s);
    talks_and_ends(&mut s);
}

#[test]
fn music_that_dies_in_the_message_stops_nothing() {
    let mut s = hearing();
    s.media.send(&mut s.bench, "BYE", "");
    s.media.expect(&mut s.bench, "200");
    s.wait_ms(1_000);
    s.news_hangs_up();
    ann_moves(&mut s);
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "ann");
    s.ann.expect(&mut s.bench, "ACK");
    s.wait_ms(5_000);
    s.media.expect_nothing(&mut s.bench);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 1s pickup 1s talk 5s cause 0"]);
    s.assert_rest();
}

/// The music fails, so that the caller is not answered; Ann hears the message; the music is called again.
fn unanswered_while_hearing() -> (Scene, Got) {
    let mut s = scene_with(false, |_| {});
    s.call();
    let music = s.media.expect(&mut s.bench, "INVITE");
    s.media.answer(&mut s.bench, &music, 503, "");
    s.media.expect(&mut s.bench, "ACK");
    s.caller.expect(&mut s.bench, "182");
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    message_plays(&mut s, &invite);
    s.wait_ms(2_000);
    let music = s.media.expect(&mut s.bench, "INVITE");
    (s, music)
}

#[test]
fn a_caller_who_is_answered_by_the_music_in_the_message_is_moved_by_reinvite() {
    let (mut s, music) = unanswered_while_hearing();
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &music, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    s.caller_acks();
    s.news_hangs_up();
    is_bridged_and_ends(&mut s);
}

#[test]
fn a_caller_who_is_answered_by_the_music_while_the_agent_is_moved_gets_her_answer_as_an_offer() {
    let (mut s, music) = unanswered_while_hearing();
    s.news_hangs_up();
    let reinvite = s.ann.expect(&mut s.bench, "INVITE");
    assert_eq!(reinvite.sdp('s'), "caller");
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &music, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    let ok = s.caller_acks();
    assert_eq!(ok.sdp('s'), "media");
    s.ann_answers(&reinvite);
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "ann");
    s.media_bye();
    talks_and_ends(&mut s);
}

#[test]
fn a_server_that_wants_a_longer_session_is_called_again_with_the_agents_offer() {
    let mut s = scene_with(false, |cfg| cfg.call.session_expires_s = 1_800);
    s.joins_queue();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    let message = s.news.expect(&mut s.bench, "INVITE");
    s.news.answer_extra = "Min-SE: 3600\r\n".into();
    s.news.answer(&mut s.bench, &message, 422, "");
    s.news.answer_extra.clear();
    s.news.expect(&mut s.bench, "ACK");
    let again = s.news_answers();
    assert_eq!(again.sdp('s'), "ann");
    s.ann.expect(&mut s.bench, "ACK");
    s.news_hangs_up();
    is_bridged_and_ends(&mut s);
}

/// Our refresh of the caller's session, which allows no UPDATE.
#[track_caller]
fn caller_refreshed(s: &mut Scene) {
    let refresh = s.caller_moves();
    assert_eq!(refresh.sdp('s'), "media");
}

#[test]
fn session_timers_refresh_both_ends_of_a_long_message() {
    let mut s = hearing_with(|cfg| cfg.call.session_expires_s = 90);
    s.wait_ms(45_000);
    caller_refreshed(&mut s);
    for phone in [&mut s.media, &mut s.ann, &mut s.news] {
        let refresh = phone.expect(&mut s.bench, "UPDATE");
        phone.answer(&mut s.bench, &refresh, 200, "");
    }
    s.news_hangs_up();
    is_bridged_and_ends(&mut s);
}

#[test]
fn an_agent_who_is_found_dead_by_the_session_timer_in_the_message_is_a_rejection() {
    let mut s = hearing_with(|cfg| cfg.call.session_expires_s = 90);
    s.wait_ms(45_000);
    caller_refreshed(&mut s);
    for phone in [&mut s.media, &mut s.news] {
        let refresh = phone.expect(&mut s.bench, "UPDATE");
        phone.answer(&mut s.bench, &refresh, 200, "");
    }
    let refresh = s.ann.expect(&mut s.bench, "UPDATE");
    s.ann.answer(&mut s.bench, &refresh, 481, "");
    ann_bye(&mut s);
    s.news_bye();
    s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 45s pickup 45s talk 0s cause 481"]);
    assert_eq!((s.state(), s.ann_state()), (CallState::Queued, AgentState::Wrapup));
    s.bench.login("ann", false);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_message_that_is_found_dead_by_the_session_timer_is_over() {
    let mut s = hearing_with(|cfg| cfg.call.session_expires_s = 90);
    s.wait_ms(45_000);
    caller_refreshed(&mut s);
    for phone in [&mut s.media, &mut s.ann] {
        let refresh = phone.expect(&mut s.bench, "UPDATE");
        phone.answer(&mut s.bench, &refresh, 200, "");
    }
    let refresh = s.news.expect(&mut s.bench, "UPDATE");
    s.news.answer(&mut s.bench, &refresh, 481, "");
    s.news_bye();
    is_bridged_and_ends(&mut s);
}
