//! What agents' phones may answer instead of a plain 200.

mod ladder;

use ladder::{ENGINE, Got, Scene};
use strowger_dispatch::AgentState;

/// The refusal of a straight call: recorded, and the caller hears music.
fn refused_with(code: u16, contact: &str) {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.answer_extra = contact.to_owned();
    s.ann.answer(&mut s.bench, &invite, code, "");
    s.ann.answer_extra.clear();
    s.ann.expect(&mut s.bench, "ACK");
    s.media_answers();
    s.caller_acks();
    s.assert_cdrs(&[&format!("type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause {code}")]);
    assert_eq!(s.ann_state(), AgentState::Wrapup);
    s.wait_ms(1_999);
    s.ann.expect_nothing(&mut s.bench);
    s.wait_ms(1);
    let invite = s.ann_rings();
    s.caller_leaves_queue();
    cancelled(&mut s, &invite);
    assert_eq!(s.bench.cdrs.len(), 2);
    assert_eq!((s.bench.cdrs[1].rejected, s.bench.cdrs[1].fstats), (1, 11));
    s.assert_counts([1, 2, 0, 1]);
    s.assert_rest();
}

/// Ann's phone obeys the CANCEL.
fn cancelled(s: &mut Scene, invite: &Got) {
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, invite, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
}

#[test]
fn busy_not_found_redirected_challenged_declined_agents_are_rejections() {
    for code in [486, 404, 401, 407, 603, 500, 503, 480] {
        refused_with(code, "");
    }
    refused_with(302, "");
}

#[test]
fn a_redirect_is_followed_with_the_same_claim_when_switched_on() {
    let mut s = Scene::with(|cfg, _, _| cfg.call.follow_redirects = true);
    s.call();
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    let head = format!("Call-ID: {}", invite.header(strowger_sip::msg::Name::CallId));
    // The phone's own Contact names where to go.
    let redirect = String::from_utf8(invite.bytes.clone()).unwrap();
    let copied: String = redirect
        .split("\r\n")
        .filter(|l| ["Via:", "From:", "CSeq:"].iter().any(|n| l.starts_with(n)))
        .map(|l| format!("{l}\r\n"))
        .collect();
    let to = invite.header(strowger_sip::msg::Name::To);
    let answer = format!(
        "SIP/2.0 302 Moved\r\n{copied}To: {to};tag=moved\r\n{head}\r\nContact: <sip:bob@10.0.4.2:5060>\r\nContent-Length: 0\r\n\r\n"
    );
    let ann = s.ann.addr;
    s.bench.datagram(ann, answer.as_bytes());
    s.ann.expect(&mut s.bench, "ACK");
    let invite = s.bob.expect(&mut s.bench, "INVITE");
    assert_eq!(invite.uri(), "sip:bob@10.0.4.2:5060");
    let sdp = s.bob.sdp();
    s.bob.answer(&mut s.bench, &invite, 200, &sdp);
    s.bob.expect(&mut s.bench, "ACK");
    s.caller_acks();
    s.wait_ms(2_000);
    s.caller_hangs_up();
    let bye = s.bob.expect(&mut s.bench, "BYE");
    s.bob.answer(&mut s.bench, &bye, 200, "");
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 2s cause 0"]);
    s.assert_counts([1, 1, 1, 0]);
    s.assert_rest();
}

#[test]
fn an_agent_who_does_not_answer_is_cancelled_after_the_ring_timeout() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.wait_ms(29_999);
    s.ann.expect_nothing(&mut s.bench);
    s.wait_ms(1);
    cancelled(&mut s, &invite);
    s.media_answers();
    s.caller_acks();
    s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 30s pickup 30s talk 0s cause 408"]);
    assert_eq!(s.ann_state(), AgentState::Wrapup);
    s.caller_leaves_queue();
    assert_eq!(s.bench.cdrs[1].fstats, 9, "abandoned in the queue after a refusal");
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn a_phone_that_says_nothing_gets_no_cancel_before_a_provisional_answer() {
    let mut s = Scene::with(|cfg, _, _| cfg.call.agent_ring_timeout_us = 3_000_000);
    s.call();
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    s.wait_ms(3_000);
    for _ in 0..2 {
        s.ann.expect(&mut s.bench, "INVITE"); // 0.5 s, 1.5 s
    }
    s.ann.expect_nothing(&mut s.bench);
    s.media_answers();
    s.caller_acks();
    s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 3s pickup 3s talk 0s cause 408"]);
    // Its provisional answer comes at last: now the CANCEL may go.
    s.ann.answer(&mut s.bench, &invite, 180, "");
    cancelled(&mut s, &invite);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_phone_that_is_dead_is_given_up_and_the_agent_wraps_up() {
    let mut s = Scene::with(|cfg, _, _| cfg.call.agent_ring_timeout_us = 60_000_000);
    s.call();
    s.wait_ms(32_000);
    for _ in 0..7 {
        s.ann.expect(&mut s.bench, "INVITE");
    }
    s.media_answers();
    s.caller_acks();
    s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 32s pickup 32s talk 0s cause 408"]);
    s.bench.login("ann", false);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn an_agent_who_hangs_up_within_min_talk_time_has_refused_and_the_caller_keeps_its_place() {
    let mut s = Scene::queued();
    s.wait_ms(1_000);
    s.talk_from_queue();
    s.wait_ms(900);
    s.ann_hangs_up();
    s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 2s pickup 0s talk 0s cause 0"]);
    s.assert_counts([1, 1, 0, 0]);
    let invite = s.media_answers();
    assert_eq!(invite.sdp('s'), "caller");
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "media");
    assert_eq!(s.gauges(), (1, 1));
    s.wait_ms(2_000);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(1_000);
    s.ann_hangs_up();
    s.caller_bye();
    assert_eq!(s.bench.cdrs[1].call_type as i8, 0, "a second of talk is a talk");
    assert_eq!(s.bench.cdrs[1].rejected, 1);
    s.assert_counts([1, 2, 1, 0]);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn a_straight_call_whose_agent_hangs_up_at_once_goes_on_with_music() {
    let mut s = Scene::new();
    s.talk_straight();
    s.wait_ms(500);
    s.ann_hangs_up();
    s.media_answers();
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "media");
    s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 1s pickup 0s talk 0s cause 0"]);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn an_answer_without_or_with_unusable_description_is_a_refusal() {
    let refused = "v=0\r\no=x 1 1 IN IP4 10.0.4.1\r\ns=x\r\nc=IN IP4 10.0.4.1\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n";
    for body in ["", "this is no description", refused] {
        let mut s = Scene::new();
        s.call();
        let invite = s.ann.expect(&mut s.bench, "INVITE");
        s.ann.answer(&mut s.bench, &invite, 200, body);
        s.ann.expect(&mut s.bench, "ACK");
        let bye = s.ann.expect(&mut s.bench, "BYE");
        s.ann.answer(&mut s.bench, &bye, 200, "");
        s.media_answers();
        s.caller_acks();
        s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 488"]);
        s.assert_counts([1, 1, 0, 0]);
        s.caller_leaves_queue();
        s.assert_rest();
    }
}

#[test]
fn of_a_forked_answer_the_first_wins_and_the_other_gets_ack_and_bye() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.ann_answers(&invite);
    let sdp = s.bob.sdp();
    s.bob.answer_as_fork(&mut s.bench, &invite, 200, &sdp);
    s.bob.expect(&mut s.bench, "ACK");
    let bye = s.bob.expect(&mut s.bench, "BYE");
    s.bob.answer(&mut s.bench, &bye, 200, "");
    let ok = s.caller_acks();
    assert_eq!(ok.sdp('s'), "ann");
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 2s cause 0"]);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn a_fork_that_answers_when_the_call_is_over_is_ended_too() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.ann_answers(&invite);
    s.caller_acks();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    let sdp = s.bob.sdp();
    s.bob.answer_as_fork(&mut s.bench, &invite, 200, &sdp);
    s.bob.expect(&mut s.bench, "ACK");
    let bye = s.bob.expect(&mut s.bench, "BYE");
    s.bob.answer(&mut s.bench, &bye, 200, "");
    assert_eq!(s.bench.cdrs.len(), 1);
    s.assert_rest();
}

#[test]
fn with_a_wrap_up_of_zero_a_refusing_agent_is_left_alone_for_reject_backoff() {
    let mut s = Scene::with(|cfg, _, _| cfg.call.wrapup_us = 0);
    s.call();
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.answer(&mut s.bench, &invite, 404, "");
    s.ann.expect(&mut s.bench, "ACK");
    s.media_answers();
    s.caller_acks();
    s.wait_ms(999);
    s.ann.expect_nothing(&mut s.bench);
    s.wait_ms(1);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up();
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &bye, 200, "");
    assert_eq!(s.ann_state(), AgentState::Free, "no wrap-up: free as soon as its phone is");
    s.assert_rest();
}

#[test]
fn an_agent_without_any_pause_who_cannot_be_reached_does_not_hold_up_the_shard() {
    ladder::lives_on!("names are asked anew");
    let mut s = Scene::with(|cfg, _, agents| {
        (cfg.call.wrapup_us, cfg.call.reject_backoff_us) = (0, 0);
        agents[0].location = Some("sip:ann@phones.example".to_owned());
    });
    s.call();
    let question = "resolve phones.example";
    assert!(s.bench.ladder.iter().any(|line| line.contains(question)), "{:?}", s.bench.ladder);
    // From now on the name is known to have no address, and each try fails before it is sent.
    s.bench.engine.handle_resolved(s.bench.now, 1, Err(()), 0);
    s.bench.drain();
    s.media_answers();
    s.caller_acks();
    s.wait_ms(100);
    assert!((5..=11).contains(&s.bench.cdrs.len()), "{} attempts in 100 ms", s.bench.cdrs.len());
    s.caller_leaves_queue();
    s.wait_ms(10);
    assert_eq!(s.ann_state(), AgentState::Free);
}

/// A call whose INVITE to an agent cannot be written, or is longer than a datagram: the agents are not to blame.
fn worn_out(user: usize, extra: usize) {
    let mut s = Scene::with(|cfg, flows, _| {
        flows[0].prependcid = Some("P".repeat(2_000));
        cfg.call.refusals.internal = 580;
    });
    let caller = s.caller.addr;
    let invite = format!(
        "INVITE sip:sales@{ENGINE} SIP/2.0\r\nVia: SIP/2.0/UDP {caller};branch=z9hG4bKlong;rport\r\nMax-Forwards: 70\r\n\
         From: <sip:{}@example.com>;tag=1\r\nTo: <sip:sales@{ENGINE}>\r\nCall-ID: long@test\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:caller@{caller}>\r\nX-Long: {}\r\nContent-Length: 0\r\n\r\n",
        "u".repeat(user),
        "x".repeat(extra)
    );
    s.bench.datagram(caller, invite.as_bytes());
    s.caller.expect(&mut s.bench, "100");
    s.wait_ms(2_000);
    s.caller.expect(&mut s.bench, "580");
    s.assert_cdrs(&["type -1 agent - fstats 1 rejected 0 wait 2s pickup 0s talk 0s cause 580"]);
    assert!(s.bench.calls().is_empty());
    s.wait_ms(10_000);
    s.ann.expect_nothing(&mut s.bench);
    assert_eq!((s.ann_state(), s.gauges()), (AgentState::Free, (0, 0)));
    let pauses =
        s.bench.events.iter().filter(|e| matches!(e.state, strowger_engine::control::AgentReport::Wrapup { .. }));
    assert_eq!(pauses.count(), 3, "one after each try");
}

#[test]
fn a_caller_whose_fields_leave_no_room_for_ours_does_not_wear_out_the_agents() {
    worn_out(62_500, 10);
    worn_out(10, 62_500);
}

#[test]
fn an_agent_who_misses_max_no_answer_calls_in_a_row_is_logged_out() {
    let mut s = Scene::with(|cfg, _, _| cfg.call.max_no_answer = 2);
    s.call();
    for miss in 0..2 {
        let invite = s.ann_rings();
        if miss == 0 {
            s.caller.expect(&mut s.bench, "180");
        }
        s.wait_ms(30_000);
        cancelled(&mut s, &invite);
        if miss == 0 {
            s.media_answers();
            s.caller_acks();
            assert_eq!(s.ann_state(), AgentState::Wrapup);
            s.wait_ms(2_000);
        }
    }
    s.wait_ms(10_000);
    s.ann.expect_nothing(&mut s.bench);
    assert_eq!(s.ann_state(), AgentState::Offline);
    let offline = s.bench.events.iter().filter(|e| matches!(e.state, strowger_engine::control::AgentReport::Offline));
    assert_eq!(offline.count(), 1, "{:?}", s.bench.events);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn among_available_agents_the_one_who_refused_goes_last() {
    let mut s = Scene::with(|cfg, _, agents| {
        cfg.call.wrapup_us = 1_000_000;
        agents[1].logstate = Some(1);
    });
    s.call();
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.answer(&mut s.bench, &invite, 486, "");
    s.ann.expect(&mut s.bench, "ACK");
    // Bob takes over at once, without music.
    let invite = s.bob.expect(&mut s.bench, "INVITE");
    s.bob.answer(&mut s.bench, &invite, 180, "");
    s.caller.expect(&mut s.bench, "180");
    s.media.expect_nothing(&mut s.bench);
    s.wait_ms(5_000);
    // Ann has been free for longer by now, but she has refused this call.
    s.bob.answer(&mut s.bench, &invite, 486, "");
    s.bob.expect(&mut s.bench, "ACK");
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.ann_answers(&invite);
    s.caller_acks();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    let rows: Vec<_> = s.bench.cdrs.iter().map(|c| (c.call_type as i8, c.rejected)).collect();
    assert_eq!(rows, [(-2, 0), (-2, 1), (0, 2)]);
    s.assert_counts([1, 3, 1, 0]);
    s.assert_rest();
}

#[test]
fn a_422_of_the_agents_phone_is_met_with_the_interval_that_it_demands() {
    let mut s = Scene::with(|cfg, _, _| cfg.call.session_expires_s = 1800);
    s.call();
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.answer_extra = "Min-SE: 3600\r\n".into();
    s.ann.answer(&mut s.bench, &invite, 422, "");
    s.ann.answer_extra.clear();
    s.ann.expect(&mut s.bench, "ACK");
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    assert!(String::from_utf8_lossy(&invite.bytes).contains("Session-Expires: 3600\r\nMin-SE: 3600\r\n"));
    assert_eq!(invite.sdp('s'), "caller");
    s.ann_answers(&invite);
    s.caller_acks();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 2s cause 0"]);
    s.assert_rest();
}

#[test]
fn an_answer_that_crosses_the_cancel_of_the_ring_timeout_gets_ack_and_bye() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.wait_ms(30_000);
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann_answers(&invite);
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &bye, 200, "");
    s.media_answers();
    let ok = s.caller_acks();
    assert_eq!(ok.sdp('s'), "media");
    s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 30s pickup 30s talk 0s cause 408"]);
    s.assert_counts([1, 1, 0, 0]);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn early_media_of_the_agent_is_a_plain_180_to_the_caller() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    let sdp = s.ann.sdp();
    for _ in 0..2 {
        s.ann.answer(&mut s.bench, &invite, 183, &sdp);
    }
    let ringing = s.caller.expect(&mut s.bench, "180");
    assert!(ringing.body().is_empty());
    s.ann_answers(&invite);
    s.caller_acks();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn every_change_of_an_agents_state_is_reported_once() {
    use strowger_engine::control::AgentReport;
    let mut s = Scene::new();
    s.talk_straight();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.wait_ms(2_000);
    s.talk_straight();
    // In the midst of the call: it goes on, as both are told.
    for on in [false, true, false] {
        s.bench.login("ann", on);
    }
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.wait_ms(5_000);
    s.bench.login("ann", true);
    s.bench.login("ann", true);
    let names: Vec<_> = s
        .bench
        .events
        .iter()
        .map(|e| match &e.state {
            AgentReport::Offline => "offline",
            AgentReport::Free => "free",
            AgentReport::InCall { flow } => flow.as_ref().map_or("incall", |f| &f.flowid),
            AgentReport::InChat { .. } => "inchat",
            AgentReport::Wrapup { ends_unix_s } => {
                assert_eq!(*ends_unix_s, 1_700_000_004);
                "wrapup"
            }
        })
        .collect();
    assert_eq!(names, ["sales", "wrapup", "free", "sales", "offline", "incall", "offline", "free"]);
    s.assert_rest();
}
