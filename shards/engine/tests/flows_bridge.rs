//! Moving the caller from the music to the agent: re-INVITEs that are refused, corrected, or in the other offer mode.

mod ladder;

use ladder::{Got, Scene};
use strowger_dispatch::AgentState;
use strowger_engine::AgentOffer;

/// Ann has answered the waiting caller; the caller's re-INVITE is in its hands.
fn offered() -> (Scene, Got) {
    let mut s = Scene::queued();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    (s, offer)
}

fn caller_refuses(s: &mut Scene, offer: &Got, code: u16) {
    s.caller.answer(&mut s.bench, offer, code, "");
    s.caller.expect(&mut s.bench, "ACK");
}

fn ann_gets_bye(s: &mut Scene) {
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &bye, 200, "");
}

/// The caller has refused that; ann, called in the other offer mode, has answered.
fn offered_the_other_way() -> Scene {
    let (mut s, offer) = offered();
    caller_refuses(&mut s, &offer, 488);
    ann_gets_bye(&mut s);
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    assert!(invite.body().is_empty(), "without a description");
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    s
}

#[test]
fn a_491_to_the_reinvite_is_retried_within_two_seconds() {
    let (mut s, offer) = offered();
    caller_refuses(&mut s, &offer, 491);
    s.media.expect_nothing(&mut s.bench);
    s.bench.wait_for(s.caller.addr, 2_000);
    let again = s.caller_moves();
    assert_eq!(again.sdp('o'), offer.sdp('o'), "the same description, the same version");
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    assert_eq!(s.bench.cdrs.len(), 1);
    s.assert_rest();
}

#[test]
fn a_488_keeps_the_music_one_retry_in_the_other_mode_then_an_error_of_the_attempt() {
    let mut s = offered_the_other_way();
    s.ann.expect_nothing(&mut s.bench);
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    caller_refuses(&mut s, &offer, 488);
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(ack.sdp('m'), "audio 0 RTP/AVP 0 8 101");
    s.media.expect_nothing(&mut s.bench);
    s.assert_cdrs(&["type -1 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 0s cause 488"]);
    assert_eq!(s.gauges(), (1, 1), "the caller waits on");
    // Logged out before its phone has ended the dialog, so that the same call does not come back.
    s.bench.login("ann", false);
    ann_gets_bye(&mut s);
    s.wait_ms(1_000);
    assert_eq!(s.ann_state(), AgentState::Offline, "no wrap-up");
    s.assert_counts([1, 1, 0, 0]);
    s.caller_leaves_queue();
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn the_other_offer_mode_may_do() {
    let mut s = offered_the_other_way();
    s.caller_moves();
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(ack.sdp('s'), "caller");
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 2s cause 0"]);
    s.assert_counts([1, 1, 1, 0]);
    s.assert_rest();
}

#[test]
fn a_caller_who_refuses_while_its_music_hung_up_is_connected_to_nothing_that_is_gone() {
    let (mut s, offer) = offered();
    s.media.send(&mut s.bench, "BYE", "");
    s.media.expect(&mut s.bench, "200");
    caller_refuses(&mut s, &offer, 488);
    ann_gets_bye(&mut s);
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    // A refresh is answered with what the caller is connected to, which is nothing.
    let sdp = s.caller.sdp();
    s.caller.send(&mut s.bench, "INVITE", &sdp);
    s.caller.expect(&mut s.bench, "100");
    s.caller.expect(&mut s.bench, "491");
    s.caller.ack_error(&mut s.bench);
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    s.caller_moves();
    s.ann.expect(&mut s.bench, "ACK");
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn an_agent_freed_by_such_an_error_may_get_the_call_again_but_not_for_ever() {
    let (mut s, offer) = offered();
    let mut offer = offer;
    for round in 0..3 {
        caller_refuses(&mut s, &offer, 488);
        ann_gets_bye(&mut s);
        let invite = s.ann.expect(&mut s.bench, "INVITE");
        let sdp = s.ann.sdp();
        s.ann.answer(&mut s.bench, &invite, 200, &sdp);
        let second = s.caller.expect(&mut s.bench, "INVITE");
        caller_refuses(&mut s, &second, 488);
        s.ann.expect(&mut s.bench, "ACK");
        ann_gets_bye(&mut s);
        if round < 2 {
            let invite = s.ann_rings();
            s.ann_answers(&invite);
            offer = s.caller.expect(&mut s.bench, "INVITE");
        }
    }
    s.caller_bye();
    s.media_bye();
    let types: Vec<_> = s.bench.cdrs.iter().map(|c| c.call_type as i8).collect();
    assert_eq!(types, [-1, -1, -1]);
    s.assert_counts([1, 3, 0, 0]);
    s.assert_rest();
}

#[test]
fn a_caller_who_is_dead_at_the_reinvite_ends_the_call() {
    for code in [408, 481] {
        let (mut s, offer) = offered();
        caller_refuses(&mut s, &offer, code);
        s.caller_bye();
        s.media_bye();
        ann_gets_bye(&mut s);
        s.assert_cdrs(&[&format!("type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 1s cause {code}")]);
        s.assert_rest();
    }
    let (mut s, _) = offered();
    s.wait_ms(32_000);
    ann_gets_bye(&mut s);
    s.media_bye();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 32s cause 408"]);
    s.wait_ms(60_000);
    while s.bench.next_for(s.caller.addr).is_some() {}
    s.assert_rest();
}

#[test]
fn a_changed_answer_is_told_to_the_agent_once() {
    let (mut s, offer) = offered();
    let moved = s.caller.move_to_port(45_000);
    s.caller.answer(&mut s.bench, &offer, 200, &moved);
    s.caller.expect(&mut s.bench, "ACK");
    s.media_bye();
    let corrected = s.ann.expect(&mut s.bench, "INVITE");
    assert_eq!(corrected.sdp('m'), "audio 45000 RTP/AVP 0 8 101");
    s.ann_answers(&corrected);
    s.ann.expect_nothing(&mut s.bench);
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    assert_eq!(s.bench.cdrs.len(), 1);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn an_agent_who_answers_the_correction_with_another_description_ends_the_attempt() {
    let (mut s, offer) = offered();
    let moved = s.caller.move_to_port(45_000);
    s.caller.answer(&mut s.bench, &offer, 200, &moved);
    s.caller.expect(&mut s.bench, "ACK");
    s.media_bye();
    let corrected = s.ann.expect(&mut s.bench, "INVITE");
    let other = s.ann.move_to_port(46_000);
    s.ann.answer(&mut s.bench, &corrected, 200, &other);
    s.ann.expect(&mut s.bench, "ACK");
    s.bench.login("ann", false);
    ann_gets_bye(&mut s);
    s.assert_cdrs(&["type -1 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 0s cause 488"]);
    s.media_answers();
    s.caller.expect(&mut s.bench, "INVITE");
    s.caller_leaves_queue();
    s.wait_ms(60_000);
    while s.bench.next_for(s.caller.addr).is_some() {}
    s.assert_rest();
}

#[test]
fn a_correction_that_meets_the_agents_own_reinvite_is_sent_again() {
    let (mut s, offer) = offered();
    let moved = s.caller.move_to_port(45_000);
    s.caller.answer(&mut s.bench, &offer, 200, &moved);
    s.caller.expect(&mut s.bench, "ACK");
    s.media_bye();
    let corrected = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.answer(&mut s.bench, &corrected, 491, "");
    s.ann.expect(&mut s.bench, "ACK");
    s.wait_ms(2_099);
    s.ann.expect_nothing(&mut s.bench);
    s.bench.wait_for(s.ann.addr, 2_001);
    let corrected = s.ann.expect(&mut s.bench, "INVITE");
    assert_eq!(corrected.sdp('m'), "audio 45000 RTP/AVP 0 8 101");
    s.ann_answers(&corrected);
    s.caller_hangs_up_on_ann();
    assert_eq!(s.bench.cdrs[0].call_type as i8, 0);
    s.assert_rest();
}

fn delayed() -> Scene {
    Scene::with(|cfg, _, agents| {
        cfg.call.agent_offer = AgentOffer::Delayed;
        agents[0].logstate = Some(0);
    })
}

#[test]
fn with_delayed_offers_the_agent_offers_and_the_callers_answer_is_in_the_ack() {
    let mut s = delayed();
    s.caller.more_sdp = "m=video 0 RTP/AVP 31\r\n".into();
    s.joins_queue();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    assert!(invite.body().is_empty());
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    s.ann.expect_nothing(&mut s.bench);
    let offer = s.caller_moves();
    assert_eq!(offer.body().matches("m=").count(), 2, "padded to the caller's session: {}", offer.body());
    assert!(offer.body().contains("m=video 0 "));
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(ack.body().matches("m=").count(), 1, "as many as the agent offered");
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn a_caller_who_agrees_and_says_nothing_is_with_the_music_while_the_agent_is_called_anew() {
    let mut s = delayed();
    s.joins_queue();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.caller.answer(&mut s.bench, &offer, 200, "");
    s.caller.expect(&mut s.bench, "ACK");
    s.ann.expect(&mut s.bench, "ACK");
    ann_gets_bye(&mut s);
    let invite = s.ann_rings();
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "media");
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn a_caller_who_agrees_and_says_nothing_at_last_is_moved_back_to_the_music() {
    let mut s = offered_the_other_way();
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.caller.answer(&mut s.bench, &offer, 200, "");
    s.caller.expect(&mut s.bench, "ACK");
    s.ann.expect(&mut s.bench, "ACK");
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "media");
    s.bench.login("ann", false);
    ann_gets_bye(&mut s);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_delayed_agent_who_is_refused_gets_every_stream_refused_and_bye() {
    let mut s = delayed();
    s.joins_queue();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    s.caller.expect(&mut s.bench, "INVITE");
    s.caller_hangs_up();
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(ack.sdp('m'), "audio 0 RTP/AVP 0 8 101");
    ann_gets_bye(&mut s);
    s.media_bye();
    s.wait_ms(60_000);
    while s.bench.next_for(s.caller.addr).is_some() {}
    s.assert_rest();
}

#[test]
fn straight_to_an_agent_the_callers_own_offer_goes_along_in_every_mode() {
    let mut s = Scene::with(|cfg, _, _| cfg.call.agent_offer = AgentOffer::Delayed);
    s.call();
    let invite = s.ann_rings();
    assert_eq!(invite.sdp('s'), "caller");
    s.caller.expect(&mut s.bench, "180");
    s.ann_answers(&invite);
    s.caller_acks();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn an_answer_with_fixed_roles_makes_auto_delayed() {
    let mut s = Scene::nobody();
    s.caller.more_sdp = "a=setup:actpass\r\n".into();
    s.joins_queue();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    assert!(invite.body().is_empty());
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    s.caller_moves();
    s.ann.expect(&mut s.bench, "ACK");
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn a_caller_without_description_gets_the_agents_offer_and_its_ack_carries_the_answer() {
    let mut s = Scene::new();
    s.caller.invite(&mut s.bench, "sales", "");
    s.caller.expect(&mut s.bench, "100");
    let invite = s.ann_rings();
    assert!(invite.body().is_empty());
    s.caller.expect(&mut s.bench, "180");
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    let ok = s.caller.expect(&mut s.bench, "200");
    assert_eq!(ok.sdp('s'), "ann");
    s.ann.expect_nothing(&mut s.bench);
    let sdp = s.caller.sdp();
    s.caller.ack(&mut s.bench, &sdp);
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(ack.sdp('s'), "caller");
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 2s cause 0"]);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn a_caller_without_description_whose_agent_refuses_gets_the_musics_offer() {
    let mut s = Scene::new();
    s.caller.invite(&mut s.bench, "sales", "");
    s.caller.expect(&mut s.bench, "100");
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.answer(&mut s.bench, &invite, 486, "");
    s.ann.expect(&mut s.bench, "ACK");
    let music = s.media.expect(&mut s.bench, "INVITE");
    assert!(music.body().is_empty());
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &music, 200, &sdp);
    let ok = s.caller.expect(&mut s.bench, "200");
    assert_eq!(ok.sdp('s'), "media");
    let sdp = s.caller.sdp();
    s.caller.ack(&mut s.bench, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    s.wait_ms(2_000);
    let invite = s.ann_rings();
    assert_eq!(invite.sdp('s'), "caller", "known by now");
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn an_agent_who_hangs_up_with_the_reinvite_outstanding_leaves_the_caller_with_the_music() {
    for code in [200, 488] {
        let (mut s, offer) = offered();
        s.wait_ms(300);
        s.ann_hangs_up();
        s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 0"]);
        let sdp = s.caller.sdp();
        s.caller.answer(&mut s.bench, &offer, code, if code == 200 { &sdp } else { "" });
        s.caller.expect(&mut s.bench, "ACK");
        if code == 200 {
            let back = s.caller_moves();
            assert_eq!(back.sdp('s'), "media");
        }
        s.caller.expect_nothing(&mut s.bench);
        s.wait_ms(2_000);
        let invite = s.ann_rings();
        s.ann_answers(&invite);
        s.caller_moves();
        s.media_bye();
        s.wait_ms(2_000);
        s.caller_hangs_up_on_ann();
        s.assert_rest();
    }
}

#[test]
fn a_caller_who_refuses_the_way_back_to_the_music_is_served_by_the_next_agent_all_the_same() {
    let mut s = Scene::queued();
    s.talk_from_queue();
    s.wait_ms(500);
    s.ann_hangs_up();
    s.media_answers();
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    caller_refuses(&mut s, &offer, 488);
    s.wait_ms(1_999);
    s.caller.expect_nothing(&mut s.bench);
    s.wait_ms(1);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn an_agent_who_hangs_up_before_the_callers_ack_leaves_it_with_music_after_the_ack() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.ann_answers(&invite);
    s.caller.expect(&mut s.bench, "200");
    s.wait_ms(300);
    s.ann_hangs_up();
    s.media_answers();
    s.caller.expect_nothing(&mut s.bench);
    s.caller.ack(&mut s.bench, "");
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "media");
    s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 0"]);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn an_agent_called_while_the_callers_proposal_is_open_gets_what_holds_and_later_what_was_agreed() {
    for agreed in [true, false] {
        let mut s = Scene::queued();
        let before = s.caller.sdp();
        let moved = s.caller.move_to_port(45_000);
        s.caller.send(&mut s.bench, "INVITE", &moved);
        s.caller.expect(&mut s.bench, "100");
        let relayed = s.media.expect(&mut s.bench, "INVITE");
        s.bench.login("ann", true);
        let invite = s.ann_rings();
        assert_eq!(invite.sdp('m'), "audio 40061 RTP/AVP 0 8 101");
        let sdp = s.media.sdp();
        let code = if agreed { 200 } else { 488 };
        s.media.answer(&mut s.bench, &relayed, code, if agreed { &sdp } else { "" });
        s.media.expect(&mut s.bench, "ACK");
        s.caller.expect(&mut s.bench, &code.to_string());
        if agreed {
            s.caller.ack(&mut s.bench, "")
        } else {
            s.caller.ack_error(&mut s.bench)
        }
        s.ann_answers(&invite);
        let offer = s.caller.expect(&mut s.bench, "INVITE");
        s.caller.answer(&mut s.bench, &offer, 200, if agreed { &moved } else { &before });
        s.caller.expect(&mut s.bench, "ACK");
        s.media_bye();
        if agreed {
            let corrected = s.ann.expect(&mut s.bench, "INVITE");
            assert_eq!(corrected.sdp('m'), "audio 45000 RTP/AVP 0 8 101");
            s.ann_answers(&corrected);
        }
        s.wait_ms(2_000);
        s.caller_hangs_up_on_ann();
        s.assert_rest();
    }
}
