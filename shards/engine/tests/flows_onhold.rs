//! `dissuading_onhold_th`: callers who have waited too long are diverted to the message, and may come back.

mod ladder;

use ladder::{Got, Phone, Scene};
use std::mem::swap;
use strowger_dispatch::AgentState;
use strowger_engine::registry::FlowRow;
use strowger_engine::{CallState, EngineConfig};

/// Nobody is logged in; after 5 s in the queue callers are diverted.
fn scene_with(change: impl FnOnce(&mut EngineConfig, &mut FlowRow)) -> Scene {
    Scene::with(|cfg, flows, agents| {
        agents[0].logstate = Some(0);
        flows[0].message_dissuading = Some("sip:dissuading@10.0.3.2:5060".into());
        flows[0].dissuading_onhold_th = Some(5);
        change(cfg, &mut flows[0]);
    })
}

fn scene() -> Scene {
    scene_with(|_, _| {})
}

/// The caller waits, is diverted after 5 s, and hears the message; the music has gone.
#[track_caller]
fn diverted(s: &mut Scene) -> Got {
    s.wait_ms(4_999);
    s.news.expect_nothing(&mut s.bench);
    s.wait_ms(1);
    let invite = s.news_answers();
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "news");
    s.media_bye();
    invite
}

/// The message is over; the caller has music again.
#[track_caller]
fn comes_back(s: &mut Scene) -> Got {
    s.news_hangs_up();
    let music = s.media_answers();
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "media");
    music
}

fn second_waits(s: &mut Scene) -> Phone {
    let mut second = s.bench.phone("second", "10.0.2.9:5060");
    let sdp = second.sdp();
    second.invite(&mut s.bench, "sales", &sdp);
    second.expect(&mut s.bench, "100");
    let music = s.media.expect(&mut s.bench, "INVITE");
    let sdp = s.media.sdp();
    // In a dialog beside that of the first.
    s.media.answer_as_fork(&mut s.bench, &music, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    second.expect(&mut s.bench, "200");
    second.ack(&mut s.bench, "");
    second
}

#[test]
fn after_the_threshold_the_call_is_diverted_and_comes_back_and_is_diverted_again() {
    let mut s = scene();
    s.joins_queue();
    let invite = diverted(&mut s);
    assert_eq!(invite.uri(), "sip:dissuading@10.0.3.2:5060");
    assert_eq!(invite.other("X-CC-State").as_deref(), Some("dissuading1"));
    assert_eq!((s.state(), s.gauges()), (CallState::Dissuading1, (1, 0)));
    s.bench.login("ann", true);
    s.ann.expect_nothing(&mut s.bench);
    assert_eq!(s.ann_state(), AgentState::Free, "who hears the message waits for nobody");
    s.bench.login("ann", false);
    s.wait_ms(20_000);
    comes_back(&mut s);
    assert_eq!((s.state(), s.gauges()), (CallState::Queued, (1, 1)));
    diverted(&mut s);
    s.wait_ms(1_000);
    comes_back(&mut s);
    s.wait_ms(2_000);
    s.talk_from_queue();
    s.wait_ms(10_000);
    assert_eq!(s.state(), CallState::ToAgent);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 33s pickup 0s talk 10s cause 0"]);
    s.assert_counts([1, 1, 1, 0]);
    assert_eq!(s.bench.flow_count("sales", |f| f.onhold_total.get()), 1);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn who_comes_back_goes_before_those_who_arrived_later() {
    let mut s = scene();
    s.joins_queue();
    diverted(&mut s);
    let mut second = second_waits(&mut s);
    s.wait_ms(1_000);
    comes_back(&mut s);
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    assert_eq!(invite.sdp('s'), "caller", "it came first");
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    second.send(&mut s.bench, "BYE", "");
    second.expect(&mut s.bench, "200");
    s.media_bye();
    s.assert_rest();
}

#[test]
fn with_dissuading_hangup_the_diverted_call_ends_with_the_message() {
    let mut s = scene_with(|_, f| f.dissuading_hangup = Some(1));
    s.joins_queue();
    let invite = diverted(&mut s);
    assert_eq!(invite.other("X-CC-State").as_deref(), Some("dissuading2"));
    s.wait_ms(2_000);
    s.news_hangs_up();
    s.caller_bye();
    s.assert_cdrs(&["type 1 agent - fstats 1 rejected 0 wait 7s pickup 0s talk 0s cause 0"]);
    s.assert_counts([1, 0, 0, 0]);
    s.assert_rest();
}

#[test]
fn the_wait_counts_from_each_entry_a_rejection_begins_it_anew() {
    let mut s = scene();
    s.joins_queue();
    s.wait_ms(4_000);
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.wait_ms(3_000);
    s.ann.answer(&mut s.bench, &invite, 486, "");
    s.ann.expect(&mut s.bench, "ACK");
    s.bench.login("ann", false);
    diverted(&mut s);
    s.caller_hangs_up();
    s.news_bye();
    s.assert_cdrs(&[
        "type -2 agent ann fstats 3 rejected 0 wait 7s pickup 3s talk 0s cause 486",
        "type 1 agent - fstats 9 rejected 1 wait 12s pickup 0s talk 0s cause 0",
    ]);
    s.assert_rest();
}

#[test]
fn a_match_that_is_under_way_when_the_time_is_up_goes_before_the_message() {
    ladder::lives_on!("a match under way");
    let mut s = scene();
    let mut other = s.bench.second_engine();
    s.joins_queue();
    s.wait_ms(4_999);
    swap(&mut s.bench.engine, &mut other);
    s.bench.login("ann", true);
    swap(&mut s.bench.engine, &mut other);
    let (to, msg) = s.bench.mesh.remove(0);
    assert_eq!((to, s.ann_state()), (0, AgentState::InCall));
    s.wait_ms(1);
    s.news.expect_nothing(&mut s.bench);
    let invite = s.ann_rings();
    s.bench.engine.handle_mesh(s.bench.now, msg);
    s.bench.drain();
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_counts([1, 1, 1, 0]);
    s.assert_rest();
    s.bench.engine = other;
    s.assert_rest();
}

#[test]
fn a_match_that_comes_after_the_diversion_finds_nobody() {
    let mut s = scene();
    s.joins_queue();
    diverted(&mut s);
    s.bench.login("ann", true);
    s.wait_ms(10_000);
    s.ann.expect_nothing(&mut s.bench);
    s.caller_hangs_up();
    s.news_bye();
    s.assert_rest();
}

#[test]
fn the_caller_may_leave_while_the_message_is_called() {
    let mut s = scene();
    s.joins_queue();
    s.wait_ms(5_000);
    let invite = s.news.expect(&mut s.bench, "INVITE");
    s.news.answer(&mut s.bench, &invite, 180, "");
    s.caller_leaves_queue();
    let cancel = s.news.expect(&mut s.bench, "CANCEL");
    s.news.answer(&mut s.bench, &cancel, 200, "");
    s.news.answer(&mut s.bench, &invite, 487, "");
    s.news.expect(&mut s.bench, "ACK");
    s.assert_cdrs(&["type 1 agent - fstats 9 rejected 0 wait 5s pickup 0s talk 0s cause 0"]);
    s.assert_rest();
}

#[test]
fn the_caller_may_leave_on_the_way_to_the_message() {
    let mut s = scene();
    s.joins_queue();
    s.wait_ms(5_000);
    s.news_answers();
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.caller_hangs_up();
    s.media_bye();
    s.news_bye();
    s.caller.answer(&mut s.bench, &offer, 487, "");
    s.caller.expect(&mut s.bench, "ACK");
    s.assert_counts([1, 0, 0, 1]);
    s.assert_rest();
}

#[test]
fn a_message_that_cannot_be_played_leaves_the_caller_with_the_music() {
    let mut s = scene();
    s.joins_queue();
    s.wait_ms(5_000);
    s.news_refuses(503);
    assert_eq!(s.state(), CallState::Queued);
    s.media.expect_nothing(&mut s.bench);
    s.caller.expect_nothing(&mut s.bench);
    // It is tried again after another such wait.
    s.wait_ms(5_000);
    s.news_refuses(503);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_message_that_cannot_be_played_ends_the_call_under_dissuading_hangup() {
    let mut s = scene_with(|_, f| f.dissuading_hangup = Some(1));
    s.joins_queue();
    s.wait_ms(5_000);
    s.news_refuses(503);
    s.caller_bye();
    s.media_bye();
    s.assert_cdrs(&["type 1 agent - fstats 1 rejected 0 wait 5s pickup 0s talk 0s cause 0"]);
    s.assert_rest();
}

#[test]
fn a_caller_who_refuses_the_message_keeps_the_music() {
    let mut s = scene();
    s.joins_queue();
    s.wait_ms(5_000);
    s.news_answers();
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.caller.answer(&mut s.bench, &offer, 488, "");
    s.caller.expect(&mut s.bench, "ACK");
    s.media.expect_nothing(&mut s.bench);
    s.news_hangs_up();
    assert_eq!(s.state(), CallState::Queued);
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "media");
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_caller_who_refuses_the_message_hears_the_old_music_until_that_with_its_new_place_answers() {
    let mut s = scene_with(|cfg, _| cfg.call.queue_pos_param = Some("cc_pos".into()));
    s.joins_queue();
    s.wait_ms(5_000);
    s.news_answers();
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.caller.answer(&mut s.bench, &offer, 488, "");
    s.caller.expect(&mut s.bench, "ACK");
    s.news_hangs_up();
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "media");
    s.media_answers();
    s.caller_moves();
    s.media_bye();
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_caller_who_is_busy_with_a_reinvite_of_its_own_is_moved_after_it() {
    let mut s = scene();
    s.joins_queue();
    s.wait_ms(5_000);
    let moved = s.caller.move_to_port(45_000);
    s.caller.send(&mut s.bench, "INVITE", &moved);
    s.caller.expect(&mut s.bench, "100");
    let relayed = s.media.expect(&mut s.bench, "INVITE");
    let message = s.news_answers();
    assert_eq!(message.sdp('m'), "audio 40061 RTP/AVP 0 8 101");
    s.caller.expect_nothing(&mut s.bench);
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &relayed, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    s.caller.expect(&mut s.bench, "200");
    s.caller.ack(&mut s.bench, "");
    s.caller_moves();
    s.media_bye();
    // The message's server knows the old description of the caller's.
    let corrected = s.news.expect(&mut s.bench, "INVITE");
    assert_eq!(corrected.sdp('m'), "audio 45000 RTP/AVP 0 8 101");
    let sdp = s.news.sdp();
    s.news.answer(&mut s.bench, &corrected, 200, &sdp);
    s.news.expect(&mut s.bench, "ACK");
    s.caller_hangs_up();
    s.news_bye();
    s.assert_rest();
}

#[test]
fn a_caller_whose_reinvite_crosses_ours_is_asked_again() {
    let mut s = scene();
    s.joins_queue();
    s.wait_ms(5_000);
    s.news_answers();
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    let moved = s.caller.move_to_port(45_000);
    s.caller.send(&mut s.bench, "INVITE", &moved);
    s.caller.expect(&mut s.bench, "100");
    s.caller.expect(&mut s.bench, "491");
    s.caller.ack_error(&mut s.bench);
    s.caller.answer(&mut s.bench, &offer, 491, "");
    s.caller.expect(&mut s.bench, "ACK");
    s.bench.wait_for(s.caller.addr, 3_000);
    s.caller.move_to_port(40_061);
    s.caller_moves();
    s.media_bye();
    s.caller_hangs_up();
    s.news_bye();
    s.assert_rest();
}

#[test]
fn music_that_hangs_up_while_the_message_is_called_is_not_called_again() {
    let mut s = scene();
    s.joins_queue();
    s.wait_ms(5_000);
    let invite = s.news.expect(&mut s.bench, "INVITE");
    s.media.send(&mut s.bench, "BYE", "");
    s.media.expect(&mut s.bench, "200");
    // Longer than the pause before music is tried again.
    s.news.answer(&mut s.bench, &invite, 180, "");
    s.wait_ms(4_000);
    s.media.expect_nothing(&mut s.bench);
    let sdp = s.news.sdp();
    s.news.answer(&mut s.bench, &invite, 200, &sdp);
    s.news.expect(&mut s.bench, "ACK");
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "news");
    comes_back(&mut s);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn music_that_is_only_being_called_makes_way_at_once() {
    let mut s = scene();
    s.call();
    let music = s.media.expect(&mut s.bench, "INVITE");
    s.media.answer(&mut s.bench, &music, 180, "");
    s.wait_ms(5_000);
    s.news_answers();
    let ok = s.caller_acks();
    assert_eq!(ok.sdp('s'), "news");
    let cancel = s.media.expect(&mut s.bench, "CANCEL");
    s.media.answer(&mut s.bench, &cancel, 200, "");
    s.media_answers_late(&music);
    s.caller_hangs_up();
    s.news_bye();
    s.assert_rest();
}

#[test]
fn an_unanswered_caller_for_whom_nothing_can_be_played_is_given_up_in_time() {
    let mut s = scene();
    s.call();
    let mut minutes = 0;
    for _ in 0..400 {
        for server in [&mut s.media, &mut s.news] {
            while let Some(got) = s.bench.next_for(server.addr) {
                if got.what() == "INVITE" {
                    server.answer(&mut s.bench, &got, 503, "");
                }
            }
        }
        while let Some(got) = s.bench.next_for(s.caller.addr) {
            match got.what().as_str() {
                "182" => minutes += 1,
                _ => assert_eq!(got.what(), "480"),
            }
        }
        s.wait_ms(1_000);
    }
    s.caller.ack_error(&mut s.bench);
    assert_eq!(minutes, 3, "182 at the first failure and each minute");
    s.assert_cdrs(&["type -1 agent - fstats 1 rejected 0 wait 180s pickup 0s talk 0s cause 480"]);
    s.assert_rest();
}

#[test]
fn the_position_is_told_at_each_entry_into_the_queue() {
    let mut s = scene_with(|cfg, _| cfg.call.queue_pos_param = Some("cc_pos".into()));
    s.call();
    let music = s.media_answers();
    assert_eq!(music.uri(), "sip:music@10.0.3.1:5060;cc_pos=0");
    s.caller_acks();
    let message = diverted(&mut s);
    assert_eq!(message.uri(), "sip:dissuading@10.0.3.2:5060");
    let music = comes_back(&mut s);
    assert_eq!(music.uri(), "sip:music@10.0.3.1:5060;cc_pos=0");
    // The message fails: the music that still plays was told the position of the entry before.
    s.wait_ms(5_000);
    s.news_refuses(503);
    let music = s.media.expect(&mut s.bench, "INVITE");
    assert_eq!(music.uri(), "sip:music@10.0.3.1:5060;cc_pos=0");
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &music, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    s.caller_moves();
    s.media_bye();
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_reload_in_the_message_changes_nothing_for_the_call() {
    let mut s = scene();
    s.joins_queue();
    diverted(&mut s);
    s.bench.reload(&[ladder::flow("sales", "sales")], &[ladder::agent("ann", "10.0.4.1:5060", "sales")]);
    s.wait_ms(1_000);
    s.news_hangs_up();
    let invite = s.ann_rings();
    s.media_answers();
    s.caller_moves();
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn the_end_of_the_server_ends_a_call_in_the_message() {
    let mut s = scene();
    s.joins_queue();
    diverted(&mut s);
    s.bench.control(strowger_engine::Control::EndAll);
    s.caller_bye();
    s.news_bye();
    s.assert_cdrs(&["type -1 agent - fstats 1 rejected 0 wait 5s pickup 0s talk 0s cause 503"]);
    s.assert_rest();
}
