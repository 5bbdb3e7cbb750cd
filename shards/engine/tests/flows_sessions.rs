//! Session timers (RFC 4028): negotiation, refreshes, dead peers.

mod ladder;

use ladder::{Got, Scene};
use strowger_sip::msg::Name;

fn scene() -> Scene {
    Scene::with(|cfg, _, agents| {
        cfg.call.session_expires_s = 1800;
        agents[0].logstate = Some(0);
    })
}

fn expires(got: &Got) -> String {
    got.header(Name::SessionExpires)
}

#[test]
fn an_interval_below_ours_gets_422_with_min_se() {
    let mut s = scene();
    s.caller.extra = "Session-Expires: 60\r\nSupported: timer\r\n".into();
    s.call();
    let small = s.caller.expect(&mut s.bench, "422");
    assert_eq!(small.header(Name::MinSe), "90");
    s.caller.ack_error(&mut s.bench);
    s.assert_counts([0, 0, 0, 0]);
    s.assert_rest();
}

#[test]
fn the_refresher_is_negotiated() {
    // What the caller says, what our 200 says.
    for (says, want, required) in [
        ("Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n", "600;refresher=uac", true),
        ("Supported: timer\r\nSession-Expires: 600;refresher=uas\r\n", "600;refresher=uas", false),
        ("Supported: timer\r\nSession-Expires: 600\r\n", "600;refresher=uac", true),
        ("Supported: timer\r\nSession-Expires: 7200\r\n", "1800;refresher=uac", true),
        ("", "1800;refresher=uas", false),
    ] {
        let mut s = scene();
        s.caller.extra = says.into();
        s.call();
        let invite = s.media.expect(&mut s.bench, "INVITE");
        assert_eq!(expires(&invite), "1800");
        let sdp = s.media.sdp();
        s.media.answer(&mut s.bench, &invite, 200, &sdp);
        s.media.expect(&mut s.bench, "ACK");
        let ok = s.caller_acks();
        assert_eq!(expires(&ok), want, "{says}");
        assert_eq!(ok.header(Name::Require) == "timer", required, "{says}");
        s.caller.extra.clear();
        s.caller_leaves_queue();
        s.assert_rest();
    }
}

#[test]
fn we_refresh_at_half_the_interval_by_update_where_allowed_and_else_by_reinvite() {
    let mut s = scene();
    s.caller.extra =
        "Supported: timer\r\nSession-Expires: 600;refresher=uas\r\nAllow: INVITE, ACK, BYE, CANCEL\r\n".into();
    s.media.answer_extra = "Session-Expires: 600;refresher=uac\r\n".into();
    s.call();
    s.media_answers();
    let ok = s.caller_acks();
    s.caller.extra.clear();
    s.wait_ms(299_999);
    s.media.expect_nothing(&mut s.bench);
    s.wait_ms(1);
    let update = s.media.expect(&mut s.bench, "UPDATE");
    assert_eq!(expires(&update), "600;refresher=uac");
    assert!(update.body().is_empty());
    s.media.answer(&mut s.bench, &update, 200, "");
    let refresh = s.caller.expect(&mut s.bench, "INVITE");
    assert_eq!(expires(&refresh), "600;refresher=uac");
    assert_eq!(refresh.body(), ok.body(), "the same description, the same version");
    let sdp = s.caller.sdp();
    s.caller.answer_extra = "Session-Expires: 600;refresher=uac\r\n".into();
    s.caller.answer(&mut s.bench, &refresh, 200, &sdp);
    s.caller.expect(&mut s.bench, "ACK");
    // And again.
    s.wait_ms(300_000);
    let update = s.media.expect(&mut s.bench, "UPDATE");
    s.media.answer(&mut s.bench, &update, 200, "");
    let update = s.caller.expect(&mut s.bench, "UPDATE");
    s.caller.answer(&mut s.bench, &update, 200, "");
    ladder::drawn!(s.bench);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_caller_found_dead_by_our_refresh_ends_the_call_with_its_record() {
    for code in [481, 0] {
        let mut s = scene();
        s.caller.extra = "Supported: timer\r\nSession-Expires: 600;refresher=uas\r\nAllow: UPDATE\r\n".into();
        s.joins_queue();
        s.caller.extra.clear();
        s.wait_ms(300_000);
        let update = s.caller.expect(&mut s.bench, "UPDATE");
        if code > 0 {
            s.caller.answer(&mut s.bench, &update, code, "");
            s.caller_bye();
        } else {
            s.wait_ms(32_000);
        }
        s.media_bye();
        let (wait, cause) = if code > 0 { (300, 481) } else { (332, 408) };
        s.assert_cdrs(&[&format!("type 1 agent - fstats 9 rejected 0 wait {wait}s pickup 0s talk 0s cause {cause}")]);
        s.wait_ms(60_000);
        while s.bench.next_for(s.caller.addr).is_some() {}
        s.assert_rest();
    }
}

#[test]
fn a_caller_to_whom_no_refresh_can_be_sent_is_ended_with_the_interval_that_it_began_last() {
    for says_something in [false, true] {
        let mut s = scene();
        s.caller.extra = "Supported: timer\r\nSession-Expires: 300;refresher=uas\r\nAllow: UPDATE\r\n".into();
        s.caller.contact = Some("tel:+4930".into());
        s.joins_queue();
        if says_something {
            s.wait_ms(250_000);
            let sdp = s.caller.sdp();
            s.caller.send(&mut s.bench, "INVITE", &sdp);
            s.caller.expect(&mut s.bench, "100");
            s.caller.expect(&mut s.bench, "200");
            s.caller.ack(&mut s.bench, "");
        }
        s.caller.extra.clear();
        s.wait_ms(294_999);
        s.media.expect_nothing(&mut s.bench);
        s.wait_ms(1);
        s.media_bye();
        let wait = if says_something { 545 } else { 295 };
        s.assert_cdrs(&[&format!("type 1 agent - fstats 9 rejected 0 wait {wait}s pickup 0s talk 0s cause 503")]);
        s.assert_rest();
    }
}

#[test]
fn a_peer_that_does_not_refresh_is_ended_before_the_interval_is_over() {
    let mut s = scene();
    s.caller.extra = "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n".into();
    s.joins_queue();
    s.caller.extra.clear();
    // Half a minute before the end (RFC 4028 section 10).
    s.wait_ms(568_000);
    s.caller_bye();
    s.media_bye();
    s.assert_cdrs(&["type 1 agent - fstats 9 rejected 0 wait 568s pickup 0s talk 0s cause 408"]);
    s.assert_rest();
}

#[test]
fn a_refresh_of_the_peer_keeps_the_session() {
    let mut s = Scene::with(|cfg, _, agents| {
        cfg.call.session_expires_s = 7200;
        agents[0].logstate = Some(0);
    });
    s.caller.extra = "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n".into();
    s.joins_queue();
    for method in ["UPDATE", "INVITE", "UPDATE"] {
        s.wait_ms(500_000);
        let sdp = if method == "INVITE" { s.caller.sdp() } else { String::new() };
        s.caller.send(&mut s.bench, method, &sdp);
        if method == "INVITE" {
            s.caller.expect(&mut s.bench, "100");
        }
        let ok = s.caller.expect(&mut s.bench, "200");
        assert_eq!(expires(&ok), "600;refresher=uac");
        if method == "INVITE" {
            s.caller.ack(&mut s.bench, "");
        }
    }
    s.caller.extra.clear();
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn music_found_dead_by_our_refresh_is_replaced() {
    let mut s = scene();
    s.caller.extra = "Supported: timer\r\nSession-Expires: 3600;refresher=uac\r\n".into();
    s.joins_queue();
    s.caller.extra.clear();
    s.wait_ms(900_000);
    let update = s.media.expect(&mut s.bench, "UPDATE");
    s.media.answer(&mut s.bench, &update, 481, "");
    s.media_bye();
    s.wait_ms(2_000);
    s.media_answers();
    s.caller_moves();
    assert_eq!(s.gauges(), (1, 1));
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn an_agent_found_dead_in_the_talk_ends_the_call_with_its_record() {
    let mut s = scene();
    s.caller.extra = "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n".into();
    s.joins_queue();
    s.caller.extra.clear();
    s.talk_from_queue();
    s.wait_ms(900_000);
    let update = s.ann.expect(&mut s.bench, "UPDATE");
    s.ann.answer(&mut s.bench, &update, 408, "");
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &bye, 200, "");
    while let Some(got) = s.bench.next_for(s.caller.addr) {
        s.caller.answer(&mut s.bench, &got, 200, "");
    }
    assert_eq!(s.bench.cdrs.len(), 1);
    assert_eq!((s.bench.cdrs[0].call_type as i8, s.bench.cdrs[0].talk_s, s.bench.cdrs[0].cause), (0, 900, 408));
    s.assert_rest();
}

#[test]
fn a_peer_that_refuses_update_is_refreshed_by_reinvite() {
    let mut s = scene();
    s.caller.extra = "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n".into();
    s.joins_queue();
    s.caller.extra.clear();
    s.wait_ms(900_000);
    let update = s.media.expect(&mut s.bench, "UPDATE");
    s.media.answer(&mut s.bench, &update, 405, "");
    s.media.answer_extra = "Session-Expires: 1800;refresher=uac\r\n".into();
    s.wait_ms(5_000);
    let refresh = s.media.expect(&mut s.bench, "INVITE");
    assert_eq!(refresh.sdp('s'), "caller");
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &refresh, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_refresh_that_meets_a_busy_moment_or_a_higher_minimum_is_tried_again() {
    let mut s = scene();
    s.caller.extra = "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n".into();
    s.joins_queue();
    s.caller.extra.clear();
    s.wait_ms(900_000);
    let update = s.media.expect(&mut s.bench, "UPDATE");
    s.media.answer_extra = "Min-SE: 3600\r\n".into();
    s.media.answer(&mut s.bench, &update, 422, "");
    s.media.answer_extra.clear();
    s.wait_ms(5_000);
    let update = s.media.expect(&mut s.bench, "UPDATE");
    assert_eq!(expires(&update), "3600;refresher=uac");
    assert_eq!(update.header(Name::MinSe), "3600");
    s.media.answer(&mut s.bench, &update, 500, "");
    s.wait_ms(5_000);
    let update = s.media.expect(&mut s.bench, "UPDATE");
    s.media.answer(&mut s.bench, &update, 200, "");
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_refresh_says_what_was_agreed_and_not_what_was_refused() {
    let mut s = Scene::with(|cfg, _, _| cfg.call.session_expires_s = 1800);
    s.caller.extra = "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n".into();
    s.talk_straight();
    s.caller.extra.clear();
    let refused = s.caller.move_to_port(45_000);
    s.caller.send(&mut s.bench, "INVITE", &refused);
    s.caller.expect(&mut s.bench, "100");
    let passed = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.answer(&mut s.bench, &passed, 488, "");
    s.ann.expect(&mut s.bench, "ACK");
    s.caller.expect(&mut s.bench, "488");
    s.caller.ack_error(&mut s.bench);
    s.wait_ms(900_000);
    let update = s.ann.expect(&mut s.bench, "UPDATE");
    s.ann.answer(&mut s.bench, &update, 405, "");
    s.wait_ms(5_000);
    let refresh = s.ann.expect(&mut s.bench, "INVITE");
    assert_eq!(refresh.sdp('m'), "audio 40061 RTP/AVP 0 8 101");
    s.ann_answers(&refresh);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}
