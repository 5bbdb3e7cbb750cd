//! During the talk, and while with a message: what passes from one side to the other.

mod ladder;

use ladder::{Got, Phone, Scene};
use strowger_sip::msg::Name;

fn talking() -> Scene {
    let mut s = Scene::new();
    s.talk_straight();
    s.wait_ms(2_000);
    s
}

/// `from` sends a re-INVITE with `offer`, `to` answers with `answer`; what each got.
fn exchange(s: &mut Scene, by_caller: bool, offer: &str, answer: &str) -> (Got, Got) {
    let Scene { bench, caller, ann, .. } = s;
    let (from, to): (&mut Phone, &mut Phone) = if by_caller { (caller, ann) } else { (ann, caller) };
    from.send(bench, "INVITE", offer);
    from.expect(bench, "100");
    let passed = to.expect(bench, "INVITE");
    to.answer(bench, &passed, 200, answer);
    to.expect(bench, "ACK");
    let ok = from.expect(bench, "200");
    from.ack(bench, "");
    (passed, ok)
}

fn hang_up(mut s: Scene) {
    s.caller_hangs_up_on_ann();
    assert_eq!(s.bench.cdrs.len(), 1);
    assert_eq!(s.bench.cdrs[0].call_type as i8, 0);
    s.assert_rest();
}

#[test]
fn hold_and_resume_pass_both_ways() {
    let mut s = talking();
    for by_caller in [true, false] {
        let (asker, other) = if by_caller { (s.caller.sdp(), s.ann.sdp()) } else { (s.ann.sdp(), s.caller.sdp()) };
        let (hold, held) = (format!("{asker}a=sendonly\r\n"), format!("{other}a=recvonly\r\n"));
        let (passed, ok) = exchange(&mut s, by_caller, &hold, &held);
        assert!(passed.body().contains("a=sendonly") && ok.body().contains("a=recvonly"));
        let (passed, ok) = exchange(&mut s, by_caller, &asker, &other);
        assert!(!passed.body().contains("a=sendonly") && !ok.body().contains("a=recvonly"));
    }
    ladder::drawn!(s.bench);
    hang_up(s);
}

#[test]
fn a_change_of_codec_passes_and_only_the_origin_is_ours() {
    let mut s = talking();
    let offer = s.caller.move_to_port(47_000).replace("RTP/AVP 0 8 101", "RTP/AVP 9 101");
    let answer = s.ann.move_to_port(48_000).replace("RTP/AVP 0 8 101", "RTP/AVP 9 101");
    let (passed, ok) = exchange(&mut s, true, &offer, &answer);
    let rest = |body: &str| body.lines().filter(|l| !l.starts_with("o=")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rest(&passed.body()), rest(&offer));
    assert_eq!(rest(&ok.body()), rest(&answer));
    hang_up(s);
}

#[test]
fn a_reinvite_without_description_is_relayed_with_the_offer_in_the_200_and_the_answer_in_the_ack() {
    for by_caller in [true, false] {
        let mut s = talking();
        let Scene { bench, caller, ann, .. } = &mut s;
        let (from, to) = if by_caller { (caller, ann) } else { (ann, caller) };
        from.send(bench, "INVITE", "");
        from.expect(bench, "100");
        let passed = to.expect(bench, "INVITE");
        assert!(passed.body().is_empty());
        let offer = to.move_to_port(47_000);
        to.answer(bench, &passed, 200, &offer);
        to.expect_nothing(bench);
        let ok = from.expect(bench, "200");
        assert_eq!(ok.sdp('m'), "audio 47000 RTP/AVP 0 8 101");
        let answer = from.move_to_port(48_000);
        from.ack(bench, &answer);
        let ack = to.expect(bench, "ACK");
        assert_eq!(ack.sdp('m'), "audio 48000 RTP/AVP 0 8 101");
        to.expect_nothing(bench);
        if by_caller {
            ladder::drawn!(s.bench);
        }
        hang_up(s);
    }
}

#[test]
fn an_offer_in_a_relayed_200_that_the_ack_leaves_unanswered_ends_the_call() {
    let mut s = talking();
    s.caller.send(&mut s.bench, "INVITE", "");
    s.caller.expect(&mut s.bench, "100");
    let passed = s.ann.expect(&mut s.bench, "INVITE");
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &passed, 200, &sdp);
    s.caller.expect(&mut s.bench, "200");
    s.caller.ack(&mut s.bench, "");
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(ack.sdp('m'), "audio 0 RTP/AVP 0 8 101");
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &bye, 200, "");
    s.caller_bye();
    s.assert_rest();
}

#[test]
fn a_bye_in_the_middle_of_a_relayed_offer_leaves_no_ack_owed() {
    let mut s = talking();
    s.caller.send(&mut s.bench, "INVITE", "");
    s.caller.expect(&mut s.bench, "100");
    let passed = s.ann.expect(&mut s.bench, "INVITE");
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &passed, 200, &sdp);
    s.caller.expect(&mut s.bench, "200");
    let cseq = s.caller.cseq();
    s.caller_hangs_up();
    let ack = s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(ack.sdp('m'), "audio 0 RTP/AVP 0 8 101");
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &bye, 200, "");
    s.caller.set_cseq(cseq);
    s.caller.ack(&mut s.bench, "");
    s.assert_rest();
}

#[test]
fn update_with_and_info_with_body_pass_with_their_answers() {
    let mut s = talking();
    let offer = format!("{}a=sendonly\r\n", s.caller.sdp());
    s.caller.send(&mut s.bench, "UPDATE", &offer);
    let passed = s.ann.expect(&mut s.bench, "UPDATE");
    assert!(passed.body().contains("a=sendonly"));
    let answer = format!("{}a=recvonly\r\n", s.ann.sdp());
    s.ann.answer(&mut s.bench, &passed, 200, &answer);
    let ok = s.caller.expect(&mut s.bench, "200");
    assert!(ok.body().contains("a=recvonly"));

    s.ann.extra = "X-Tone: 5\r\n".into();
    s.ann.send(&mut s.bench, "INFO", "Signal=5\r\n");
    let passed = s.caller.expect(&mut s.bench, "INFO");
    assert_eq!((passed.body().as_str(), passed.other("X-Tone").as_deref()), ("Signal=5\r\n", Some("5")));
    s.caller.answer_extra = "X-Heard: yes\r\n".into();
    s.caller.answer(&mut s.bench, &passed, 202, "heard");
    let ok = s.ann.expect(&mut s.bench, "202");
    assert_eq!((ok.body().as_str(), ok.other("X-Heard").as_deref()), ("heard", Some("yes")));
    s.ann.extra.clear();

    for (method, code) in [("MESSAGE", 415), ("NOTIFY", 489)] {
        s.caller.send(&mut s.bench, method, "");
        let passed = s.ann.expect(&mut s.bench, method);
        s.ann.answer(&mut s.bench, &passed, code, "");
        s.caller.expect(&mut s.bench, &code.to_string());
    }
    ladder::drawn!(s.bench);
    hang_up(s);
}

#[test]
fn glare_is_491_on_the_side_that_has_our_invite() {
    for by_caller in [true, false] {
        let mut s = talking();
        let Scene { bench, caller, ann, .. } = &mut s;
        let (from, to) = if by_caller { (caller, ann) } else { (ann, caller) };
        let (offer, counter) = (from.move_to_port(47_000), to.move_to_port(48_000));
        from.send(bench, "INVITE", &offer);
        from.expect(bench, "100");
        let passed = to.expect(bench, "INVITE");
        to.send(bench, "INVITE", &counter);
        to.expect(bench, "100");
        to.expect(bench, "491");
        to.ack_error(bench);
        // And it refuses ours for the same reason.
        to.answer(bench, &passed, 491, "");
        to.expect(bench, "ACK");
        from.expect(bench, "491");
        from.ack_error(bench);
        // The refused proposals are forgotten: the old description stands.
        from.send(bench, "INVITE", &offer);
        from.expect(bench, "100");
        let passed = to.expect(bench, "INVITE");
        to.answer(bench, &passed, 200, &counter);
        to.expect(bench, "ACK");
        from.expect(bench, "200");
        from.ack(bench, "");
        hang_up(s);
    }
}

#[test]
fn an_update_glares_with_an_offer_under_way() {
    let mut s = talking();
    let (offer, counter) = (s.caller.move_to_port(47_000), s.ann.move_to_port(48_000));
    s.caller.send(&mut s.bench, "UPDATE", &offer);
    let passed = s.ann.expect(&mut s.bench, "UPDATE");
    // Ann has an offer of ours: hers, by UPDATE or INVITE, is refused.
    s.ann.send(&mut s.bench, "UPDATE", &counter);
    s.ann.expect(&mut s.bench, "491");
    s.ann.send(&mut s.bench, "INVITE", &counter);
    s.ann.expect(&mut s.bench, "100");
    s.ann.expect(&mut s.bench, "491");
    s.ann.ack_error(&mut s.bench);
    s.ann.answer(&mut s.bench, &passed, 200, &counter);
    s.caller.expect(&mut s.bench, "200");
    hang_up(s);
}

#[test]
fn a_second_invite_before_the_first_is_answered_gets_500_with_retry_after() {
    let mut s = talking();
    let offer = s.caller.move_to_port(47_000);
    s.caller.send(&mut s.bench, "INVITE", &offer);
    s.caller.expect(&mut s.bench, "100");
    let passed = s.ann.expect(&mut s.bench, "INVITE");
    s.caller.send(&mut s.bench, "INVITE", &offer);
    s.caller.expect(&mut s.bench, "100");
    let refused = s.caller.expect(&mut s.bench, "500");
    let after: u32 = refused.header(Name::RetryAfter).parse().unwrap();
    assert!(after <= 10);
    s.caller.ack_error(&mut s.bench);
    s.ann_answers(&passed);
    s.caller.expect(&mut s.bench, "200");
    s.caller.set_cseq(s.caller.cseq() - 1);
    s.caller.ack(&mut s.bench, "");
    s.caller.set_cseq(s.caller.cseq() + 1);
    hang_up(s);
}

#[test]
fn a_cancelled_reinvite_is_cancelled_on_the_other_side_and_the_session_stands() {
    let mut s = talking();
    let offer = s.caller.move_to_port(47_000);
    s.caller.send(&mut s.bench, "INVITE", &offer);
    s.caller.expect(&mut s.bench, "100");
    let passed = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.answer(&mut s.bench, &passed, 180, "");
    s.caller.cancel(&mut s.bench);
    s.caller.expect(&mut s.bench, "200");
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, &passed, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
    s.caller.expect(&mut s.bench, "487");
    s.caller.ack_error(&mut s.bench);
    s.wait_ms(5_000);
    hang_up(s);
}

#[test]
fn an_unchanged_description_is_a_refresh_and_answered_here() {
    let mut s = talking();
    let sdp = s.caller.sdp();
    for method in ["INVITE", "UPDATE"] {
        s.caller.send(&mut s.bench, method, &sdp);
        if method == "INVITE" {
            s.caller.expect(&mut s.bench, "100");
        }
        let ok = s.caller.expect(&mut s.bench, "200");
        assert_eq!(ok.sdp('s'), "ann");
        if method == "INVITE" {
            s.caller.ack(&mut s.bench, "");
        }
        s.ann.expect_nothing(&mut s.bench);
    }
    s.ann.send(&mut s.bench, "UPDATE", "");
    let ok = s.ann.expect(&mut s.bench, "200");
    assert!(ok.body().is_empty());
    s.caller.expect_nothing(&mut s.bench);
    hang_up(s);
}

#[test]
fn options_in_the_dialog_strangers_and_requests_out_of_order() {
    let mut s = talking();
    s.caller.send(&mut s.bench, "OPTIONS", "");
    s.caller.expect(&mut s.bench, "200");
    let cseq = s.caller.cseq();
    s.caller.set_cseq(0);
    s.caller.send(&mut s.bench, "INFO", "");
    s.caller.expect(&mut s.bench, "500");
    s.caller.set_cseq(cseq);
    let mut stranger = s.bench.phone("stranger", "10.0.2.9:5060");
    stranger.invite(&mut s.bench, "nowhere", "");
    stranger.expect(&mut s.bench, "100");
    stranger.expect(&mut s.bench, "404");
    for method in ["BYE", "INFO", "UPDATE"] {
        stranger.send(&mut s.bench, method, "");
        stranger.expect(&mut s.bench, "481");
    }
    stranger.send(&mut s.bench, "REFER", "");
    let refused = stranger.expect(&mut s.bench, "405");
    assert!(refused.header(Name::Allow).contains("INVITE"));
    hang_up(s);
}

#[test]
fn a_reinvite_refused_by_the_other_side_is_refused_with_its_code_and_the_session_stands() {
    let mut s = talking();
    let offer = s.caller.move_to_port(47_000);
    s.caller.send(&mut s.bench, "INVITE", &offer);
    s.caller.expect(&mut s.bench, "100");
    let passed = s.ann.expect(&mut s.bench, "INVITE");
    s.ann.answer(&mut s.bench, &passed, 488, "");
    s.ann.expect(&mut s.bench, "ACK");
    s.caller.expect(&mut s.bench, "488");
    s.caller.ack_error(&mut s.bench);
    s.caller.send(&mut s.bench, "INVITE", "no description at all");
    s.caller.expect(&mut s.bench, "100");
    s.caller.expect(&mut s.bench, "488");
    s.caller.ack_error(&mut s.bench);
    s.ann.expect_nothing(&mut s.bench);
    hang_up(s);
}

#[test]
fn an_agent_whose_dialog_is_dead_ends_the_call() {
    for method in ["INVITE", "INFO"] {
        let mut s = talking();
        let offer = s.caller.move_to_port(47_000);
        s.caller.send(&mut s.bench, method, &offer);
        if method == "INVITE" {
            s.caller.expect(&mut s.bench, "100");
        }
        let passed = s.ann.expect(&mut s.bench, method);
        s.ann.answer(&mut s.bench, &passed, 481, "");
        if method == "INVITE" {
            s.ann.expect(&mut s.bench, "ACK");
        }
        s.caller.expect(&mut s.bench, "500");
        if method == "INVITE" {
            s.caller.ack_error(&mut s.bench);
        }
        s.caller_bye();
        let bye = s.ann.expect(&mut s.bench, "BYE");
        s.ann.answer(&mut s.bench, &bye, 481, "");
        s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 2s cause 481"]);
        s.assert_rest();
    }
}

#[test]
fn a_reinvite_in_the_queue_goes_to_the_music_and_the_agent_gets_the_new_description() {
    let mut s = Scene::queued();
    let moved = s.caller.move_to_port(45_000);
    s.caller.send(&mut s.bench, "INVITE", &moved);
    s.caller.expect(&mut s.bench, "100");
    let passed = s.media.expect(&mut s.bench, "INVITE");
    assert_eq!(passed.sdp('m'), "audio 45000 RTP/AVP 0 8 101");
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &passed, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    s.caller.expect(&mut s.bench, "200");
    s.caller.ack(&mut s.bench, "");
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    assert_eq!(invite.sdp('m'), "audio 45000 RTP/AVP 0 8 101");
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.ann.expect_nothing(&mut s.bench);
    s.wait_ms(2_000);
    hang_up(s);
}

#[test]
fn a_reinvite_while_the_agent_rings_is_told_to_the_agent_after_the_bridge() {
    let mut s = Scene::queued();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    let moved = s.caller.move_to_port(45_000);
    s.caller.send(&mut s.bench, "INVITE", &moved);
    s.caller.expect(&mut s.bench, "100");
    let passed = s.media.expect(&mut s.bench, "INVITE");
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &passed, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    s.caller.expect(&mut s.bench, "200");
    s.caller.ack(&mut s.bench, "");
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    let corrected = s.ann.expect(&mut s.bench, "INVITE");
    assert_eq!(corrected.sdp('m'), "audio 45000 RTP/AVP 0 8 101");
    s.ann_answers(&corrected);
    s.wait_ms(2_000);
    ladder::drawn!(s.bench);
    hang_up(s);
}

#[test]
fn info_in_the_queue_goes_to_the_music_and_without_a_far_end_gets_480() {
    let mut s = Scene::queued();
    s.caller.send(&mut s.bench, "INFO", "Signal=1\r\n");
    let passed = s.media.expect(&mut s.bench, "INFO");
    s.media.answer(&mut s.bench, &passed, 200, "");
    s.caller.expect(&mut s.bench, "200");
    s.caller.send(&mut s.bench, "INFO", "Signal=2\r\n");
    s.media.expect(&mut s.bench, "INFO");
    s.media.send(&mut s.bench, "BYE", "");
    s.media.expect(&mut s.bench, "200");
    s.caller.expect(&mut s.bench, "500");
    s.caller.send(&mut s.bench, "INFO", "Signal=3\r\n");
    s.caller.expect(&mut s.bench, "480");
    s.caller_hangs_up();
    s.wait_ms(60_000);
    while s.bench.next_for(s.media.addr).is_some() {}
    s.assert_rest();
}

#[test]
fn an_agent_who_never_answers_a_relayed_reinvite_is_dead() {
    let mut s = talking();
    let offer = s.caller.move_to_port(47_000);
    s.caller.send(&mut s.bench, "INVITE", &offer);
    s.caller.expect(&mut s.bench, "100");
    s.wait_ms(32_000);
    s.caller.expect(&mut s.bench, "500");
    s.caller.ack_error(&mut s.bench);
    s.caller_bye();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 34s cause 408"]);
    s.wait_ms(60_000);
    while s.bench.next_for(s.ann.addr).is_some() {}
    s.assert_rest();
}

#[test]
fn a_hang_up_answers_what_the_other_side_still_waits_for() {
    for by_caller in [true, false] {
        let mut s = talking();
        let Scene { bench, caller, ann, .. } = &mut s;
        let (asker, other) = if by_caller { (caller, ann) } else { (ann, caller) };
        asker.send(bench, "INFO", "Signal=1\r\n");
        other.expect(bench, "INFO");
        let offer = asker.move_to_port(47_000);
        asker.send(bench, "INVITE", &offer);
        asker.expect(bench, "100");
        let relayed = other.expect(bench, "INVITE");
        other.send(bench, "BYE", "");
        other.expect(bench, "200");
        other.answer(bench, &relayed, 487, "");
        other.expect(bench, "ACK");
        let mut codes =
            [asker.expect_any(bench).what(), asker.expect_any(bench).what(), asker.expect_any(bench).what()];
        codes.sort();
        assert!(codes[2] == "BYE" && codes[..2].iter().all(|c| ["487", "500"].contains(&c.as_str())), "{codes:?}");
        s.bench.wait_ms(60_000);
        for addr in [s.caller.addr, s.ann.addr] {
            while s.bench.next_for(addr).is_some() {}
        }
        assert_eq!(s.bench.cdrs.len(), 1);
        s.assert_rest();
    }
}
