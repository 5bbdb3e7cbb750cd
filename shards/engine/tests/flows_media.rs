//! Music servers that refuse, die, are silent, or answer at an awkward moment.

mod ladder;

use ladder::{Got, Scene};

fn media_refuses(s: &mut Scene, code: u16) {
    let invite = s.media.expect(&mut s.bench, "INVITE");
    s.media.answer(&mut s.bench, &invite, code, "");
    s.media.expect(&mut s.bench, "ACK");
}

fn media_failures(s: &Scene) -> i64 {
    s.bench.stats.sum(|shard| shard.media_failures.get())
}

#[test]
fn an_unanswered_caller_is_kept_with_182_while_the_music_is_retried() {
    let mut s = Scene::nobody();
    s.call();
    media_refuses(&mut s, 503);
    let queued = s.caller.expect(&mut s.bench, "182");
    assert!(queued.body().is_empty());
    s.wait_ms(2_000);
    media_refuses(&mut s, 486);
    s.wait_ms(4_000);
    s.media_answers();
    s.caller_acks();
    s.wait_ms(120_000);
    s.caller.expect_nothing(&mut s.bench);
    assert_eq!(media_failures(&s), 2);
    s.caller_leaves_queue();
    s.assert_cdrs(&["type 1 agent - fstats 9 rejected 0 wait 126s pickup 0s talk 0s cause 0"]);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn an_unanswered_caller_whose_music_never_comes_gets_182_each_minute_and_480_in_the_end() {
    let mut s = Scene::nobody();
    s.call();
    for _ in 0..3 {
        // Nobody there at all: each try lasts until Timer B.
        s.wait_ms(60_000);
        while s.bench.next_for(s.media.addr).is_some() {}
    }
    for _ in 0..3 {
        s.caller.expect(&mut s.bench, "182");
    }
    s.wait_ms(32_000);
    s.caller.expect(&mut s.bench, "480");
    s.caller.ack_error(&mut s.bench);
    s.assert_cdrs(&["type -1 agent - fstats 1 rejected 0 wait 212s pickup 0s talk 0s cause 480"]);
    s.assert_counts([1, 0, 0, 0]);
    s.bench.wait_ms(60_000);
    while s.bench.next_for(s.media.addr).is_some() {}
    s.assert_rest();
}

#[test]
fn a_server_that_rings_for_ever_is_cancelled_and_tried_again() {
    let mut s = Scene::nobody();
    s.call();
    let invite = s.media.expect(&mut s.bench, "INVITE");
    s.media.answer(&mut s.bench, &invite, 180, "");
    s.wait_ms(32_000);
    let cancel = s.media.expect(&mut s.bench, "CANCEL");
    s.media.answer(&mut s.bench, &cancel, 200, "");
    s.media.answer(&mut s.bench, &invite, 487, "");
    s.media.expect(&mut s.bench, "ACK");
    s.caller.expect(&mut s.bench, "182");
    s.wait_ms(2_000);
    s.media_answers();
    s.caller_acks();
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn an_unanswered_caller_may_leave_or_meet_an_agent_while_the_music_fails() {
    let mut s = Scene::nobody();
    s.call();
    media_refuses(&mut s, 503);
    s.caller.expect(&mut s.bench, "182");
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.wait_ms(2_000);
    media_refuses(&mut s, 503);
    s.ann_answers(&invite);
    s.caller_acks();
    s.wait_ms(10_000);
    s.media.expect_nothing(&mut s.bench);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 2s pickup 2s talk 10s cause 0"]);
    s.assert_rest();

    let mut s = Scene::nobody();
    s.call();
    media_refuses(&mut s, 503);
    s.caller.expect(&mut s.bench, "182");
    s.caller.cancel(&mut s.bench);
    s.caller.expect(&mut s.bench, "200");
    s.caller.expect(&mut s.bench, "487");
    s.caller.ack_error(&mut s.bench);
    s.assert_rest();
}

fn media_hangs_up(s: &mut Scene) {
    s.media.send(&mut s.bench, "BYE", "");
    s.media.expect(&mut s.bench, "200");
}

#[test]
fn music_that_hangs_up_comes_back_after_the_pause() {
    let mut s = Scene::queued();
    media_hangs_up(&mut s);
    s.wait_ms(1_999);
    s.media.expect_nothing(&mut s.bench);
    s.wait_ms(1);
    s.media_answers();
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "media");
    assert_eq!(media_failures(&s), 1);
    assert_eq!(s.gauges(), (1, 1));
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn an_established_caller_waits_in_silence_while_the_music_fails_and_hears_it_again() {
    let mut s = Scene::queued();
    media_hangs_up(&mut s);
    s.wait_ms(2_000);
    media_refuses(&mut s, 503);
    let silence = s.caller.expect(&mut s.bench, "INVITE");
    assert!(silence.body().contains("a=inactive"));
    let sdp = s.caller.sdp();
    s.caller.answer(&mut s.bench, &silence, 200, &sdp);
    s.caller.expect(&mut s.bench, "ACK");
    // A refresh in the silence is answered here.
    s.caller.send(&mut s.bench, "INVITE", &sdp);
    s.caller.expect(&mut s.bench, "100");
    let ok = s.caller.expect(&mut s.bench, "200");
    assert!(ok.body().contains("a=inactive"));
    s.caller.ack(&mut s.bench, "");
    s.wait_ms(4_000);
    s.media_answers();
    let offer = s.caller_moves();
    assert!(!offer.body().contains("a=inactive"));
    s.talk_from_queue();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn a_caller_in_silence_talks_to_the_agent_at_once() {
    let mut s = Scene::queued();
    media_hangs_up(&mut s);
    s.wait_ms(2_000);
    media_refuses(&mut s, 503);
    s.caller_moves();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.caller_moves();
    s.wait_ms(10_000);
    s.media.expect_nothing(&mut s.bench);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

/// The agent is found before the media server has answered.
fn matched_early() -> (Scene, Got, Got) {
    let mut s = Scene::nobody();
    s.call();
    let music = s.media.expect(&mut s.bench, "INVITE");
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    (s, music, invite)
}

#[test]
fn media_that_answers_while_the_agent_rings_is_heard_until_the_bridge() {
    let (mut s, music, invite) = matched_early();
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &music, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    let ok = s.caller_acks();
    assert_eq!(ok.sdp('s'), "media");
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn media_whose_200_crosses_our_cancel_gets_ack_and_bye_and_the_caller_its_one_200() {
    let (mut s, music, invite) = matched_early();
    s.media.answer(&mut s.bench, &music, 180, "");
    s.ann_answers(&invite);
    let ok = s.caller_acks();
    assert_eq!(ok.sdp('s'), "ann");
    assert!(ok.body().contains("m=audio") && ok.view().body().len() == ok.body().len());
    let cancel = s.media.expect(&mut s.bench, "CANCEL");
    s.media_answers_late(&music);
    s.media.answer(&mut s.bench, &cancel, 200, "");
    s.wait_ms(2_000);
    s.caller.expect_nothing(&mut s.bench);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 2s cause 0"]);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn media_that_answers_between_our_200_and_the_ack_is_ended_at_the_bridge() {
    let (mut s, music, invite) = matched_early();
    s.ann_answers(&invite);
    let ok = s.caller.expect(&mut s.bench, "200");
    assert_eq!(ok.sdp('s'), "ann");
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &music, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    s.caller.ack(&mut s.bench, "");
    s.media_bye();
    s.wait_ms(2_000);
    s.caller.expect_nothing(&mut s.bench);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn an_agent_matched_between_our_200_and_the_ack_rings_and_is_bridged_after_it() {
    let mut s = Scene::nobody();
    s.call();
    s.media_answers();
    s.caller.expect(&mut s.bench, "200");
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.caller.expect_nothing(&mut s.bench);
    s.caller.ack(&mut s.bench, "");
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "ann");
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn media_that_dies_with_the_callers_reinvite_in_its_hands_stops_nothing() {
    let mut s = Scene::queued();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    let moved = s.caller.move_to_port(45_000);
    s.caller.send(&mut s.bench, "INVITE", &moved);
    s.caller.expect(&mut s.bench, "100");
    let relayed = s.media.expect(&mut s.bench, "INVITE");
    s.ann_answers(&invite);
    s.caller.expect_nothing(&mut s.bench);
    media_hangs_up(&mut s);
    s.media.answer(&mut s.bench, &relayed, 487, "");
    s.media.expect(&mut s.bench, "ACK");
    // The asker's own dialog lives: no 481.
    s.caller.expect(&mut s.bench, "500");
    s.caller.ack_error(&mut s.bench);
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    assert_eq!(offer.sdp('s'), "ann");
    s.caller.answer(&mut s.bench, &offer, 200, &moved);
    s.caller.expect(&mut s.bench, "ACK");
    // Its description is not the one that Ann was called with.
    let corrected = s.ann.expect(&mut s.bench, "INVITE");
    assert_eq!(corrected.sdp('m'), "audio 45000 RTP/AVP 0 8 101");
    s.ann_answers(&corrected);
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn media_may_answer_at_once_and_again() {
    let mut s = Scene::nobody();
    s.call();
    let invite = s.media.expect(&mut s.bench, "INVITE");
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &invite, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    s.media.answer(&mut s.bench, &invite, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    let ok = s.caller_acks();
    assert_eq!(ok.sdp('s'), "media");
    s.caller.expect_nothing(&mut s.bench);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn music_that_hangs_up_before_the_callers_ack_is_replaced_after_it() {
    let mut s = Scene::nobody();
    s.call();
    s.media_answers();
    s.caller.expect(&mut s.bench, "200");
    media_hangs_up(&mut s);
    s.caller.ack(&mut s.bench, "");
    s.caller.expect_nothing(&mut s.bench);
    s.wait_ms(2_000);
    s.media_answers();
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "media");
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn music_whose_dialog_is_found_dead_by_a_relayed_reinvite_is_replaced() {
    let mut s = Scene::queued();
    let moved = s.caller.move_to_port(45_000);
    s.caller.send(&mut s.bench, "INVITE", &moved);
    s.caller.expect(&mut s.bench, "100");
    let relayed = s.media.expect(&mut s.bench, "INVITE");
    s.media.answer(&mut s.bench, &relayed, 481, "");
    s.media.expect(&mut s.bench, "ACK");
    s.caller.expect(&mut s.bench, "500");
    s.caller.ack_error(&mut s.bench);
    s.media_bye();
    s.wait_ms(2_000);
    let invite = s.media_answers();
    assert_eq!(invite.sdp('m'), "audio 40061 RTP/AVP 0 8 101", "what was refused was never agreed");
    s.caller.move_to_port(40_061);
    s.caller_moves();
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_caller_who_leaves_on_the_way_from_welcome_to_music_leaves_nothing() {
    let mut s = Scene::with(|_, flows, agents| {
        flows[0].message_welcome = Some("sip:welcome@10.0.3.1:5060".into());
        agents[0].logstate = Some(0);
    });
    s.joins_queue();
    media_hangs_up(&mut s);
    s.media_answers();
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.caller_hangs_up();
    s.caller.answer(&mut s.bench, &offer, 487, "");
    s.caller.expect(&mut s.bench, "ACK");
    s.media_bye();
    s.assert_cdrs(&["type 1 agent - fstats 9 rejected 0 wait 0s pickup 0s talk 0s cause 0"]);
    s.assert_rest();
}
