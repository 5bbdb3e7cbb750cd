//! Dissuading on arrival: by the length of the queue, by the estimated wait; what follows the message.

mod ladder;

use ladder::{Got, Phone, Scene, flow};
use strowger_engine::CallState;
use strowger_engine::registry::FlowRow;

const NEWS: &str = "sip:dissuading@10.0.3.2:5060";
const MUSIC: &str = "sip:music@10.0.3.1:5060";

/// Nobody is logged in; the flow dissuades by `change`.
fn scene(change: impl FnOnce(&mut FlowRow)) -> Scene {
    Scene::with(|_, flows, agents| {
        agents[0].logstate = Some(0);
        flows[0].message_dissuading = Some(NEWS.into());
        change(&mut flows[0]);
    })
}

/// A caller who waits in the queue of flow `id` from now on.
fn another_waits(s: &mut Scene, name: &str, addr: &str, id: &str) -> Phone {
    let mut phone = s.bench.phone(name, addr);
    let sdp = phone.sdp();
    phone.invite(&mut s.bench, id, &sdp);
    phone.expect(&mut s.bench, "100");
    s.media_answers();
    phone.expect(&mut s.bench, "200");
    phone.ack(&mut s.bench, "");
    phone
}

fn leaves(s: &mut Scene, mut phone: Phone) {
    phone.send(&mut s.bench, "BYE", "");
    phone.expect(&mut s.bench, "200");
    s.media_bye();
}

/// One waits, and the queue is full at one: the scene's caller hears the message.
fn dissuaded(hangup: i64) -> (Scene, Phone, Got) {
    let mut s = scene(|f| {
        f.dissuading_qsize_th = Some(1);
        f.dissuading_hangup = Some(hangup);
    });
    let first = another_waits(&mut s, "first", "10.0.2.9:5060", "sales");
    s.call();
    let invite = s.news_answers();
    s.caller_acks();
    (s, first, invite)
}

#[test]
fn a_full_queue_dissuades_and_the_caller_waits_after_the_message() {
    let mut s = scene(|f| f.dissuading_qsize_th = Some(1));
    s.joins_queue();
    let mut second = s.bench.phone("second", "10.0.2.9:5060");
    let sdp = second.sdp();
    second.invite(&mut s.bench, "sales", &sdp);
    second.expect(&mut s.bench, "100");
    let invite = s.news_answers();
    assert_eq!((invite.uri().as_str(), invite.other("X-CC-State").as_deref()), (NEWS, Some("dissuading1")));
    let ok = second.expect(&mut s.bench, "200");
    assert_eq!(ok.sdp('s'), "news");
    second.ack(&mut s.bench, "");
    assert_eq!(s.gauges(), (2, 1), "on hold in the message, not in the queue");
    assert_eq!(s.bench.calls()[1].state, CallState::Dissuading1);
    // The first one leaves: the media phone's dialog must be free for the next.
    s.caller_leaves_queue();
    s.wait_ms(5_000);
    s.news_hangs_up();
    let music = s.media_answers();
    assert_eq!((music.uri().as_str(), music.other("X-CC-State").as_deref()), (MUSIC, Some("queue")));
    let offer = second.expect(&mut s.bench, "INVITE");
    assert_eq!(offer.sdp('s'), "media");
    let sdp = second.sdp();
    second.answer(&mut s.bench, &offer, 200, &sdp);
    second.expect(&mut s.bench, "ACK");
    assert_eq!(s.gauges(), (1, 1));
    assert_eq!(s.bench.flow_count("sales", |f| f.onhold_total.get()), 2, "each call once");
    second.send(&mut s.bench, "BYE", "");
    second.expect(&mut s.bench, "200");
    s.media_bye();
    s.assert_cdrs(&[
        "type 1 agent - fstats 9 rejected 0 wait 0s pickup 0s talk 0s cause 0",
        "type 1 agent - fstats 9 rejected 0 wait 5s pickup 0s talk 0s cause 0",
    ]);
    s.assert_counts([2, 0, 0, 2]);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn with_dissuading_hangup_the_message_ends_the_call() {
    let (mut s, first, invite) = dissuaded(1);
    assert_eq!(invite.other("X-CC-State").as_deref(), Some("dissuading2"));
    assert_eq!(s.bench.calls()[1].state, CallState::Dissuading2);
    s.wait_ms(4_000);
    s.news_hangs_up();
    s.caller_bye();
    s.assert_cdrs(&["type 1 agent - fstats 1 rejected 0 wait 4s pickup 0s talk 0s cause 0"]);
    s.assert_counts([2, 0, 0, 0]);
    assert_eq!(s.gauges(), (1, 1), "the reference left it on hold for ever");
    leaves(&mut s, first);
    s.assert_rest();
}

#[test]
fn only_the_flows_own_waiting_calls_count() {
    let mut s = Scene::with(|_, flows, agents| {
        agents[0].logstate = Some(0);
        flows[0].message_dissuading = Some(NEWS.into());
        flows[0].dissuading_qsize_th = Some(2);
        flows.push(flow("other", "sales"));
    });
    let mut others = Vec::new();
    for n in 1..3 {
        others.push(another_waits(&mut s, &format!("other{n}"), &format!("10.0.2.{}:5060", 10 + n), "other"));
    }
    s.joins_queue();
    s.news.expect_nothing(&mut s.bench);
    s.caller_leaves_queue();
    for phone in others {
        leaves(&mut s, phone);
    }
    s.assert_rest();
}

/// Ann has talked for 10 s and logged out; one caller waits. What an arriving call is told depends on the threshold.
fn after_a_talk_of_ten_seconds(change: impl FnOnce(&mut FlowRow)) -> (Scene, Phone) {
    let mut s = Scene::with(|_, flows, _| {
        flows[0].message_dissuading = Some(NEWS.into());
        change(&mut flows[0]);
    });
    s.talk_straight();
    s.wait_ms(10_000);
    // The agent is in her wrap-up, and logged in.
    s.caller_hangs_up_on_ann();
    let first = another_waits(&mut s, "first", "10.0.2.9:5060", "sales");
    (s, first)
}

#[test]
fn an_estimated_wait_above_the_threshold_dissuades_and_one_at_it_does_not() {
    let (mut s, first) = after_a_talk_of_ten_seconds(|f| f.dissuading_ewt_th = Some(9));
    s.call();
    s.news_answers();
    s.caller_acks();
    assert_eq!(s.bench.calls()[1].state, CallState::Dissuading1);
    s.caller_hangs_up();
    s.news_bye();
    leaves(&mut s, first);
    s.assert_rest();

    let (mut s, first) = after_a_talk_of_ten_seconds(|f| f.dissuading_ewt_th = Some(10));
    s.call();
    s.news.expect_nothing(&mut s.bench);
    s.media_answers();
    s.caller_acks();
    assert_eq!(s.bench.calls()[1].state, CallState::Queued);
    s.caller_leaves_queue();
    leaves(&mut s, first);
    s.assert_rest();
}

#[test]
fn with_nobody_logged_in_the_wait_is_unbounded() {
    let mut s = scene(|f| f.dissuading_ewt_th = Some(1_000_000));
    let idx = s.bench.registry.current().flow("sales").unwrap().idx;
    assert_eq!(s.bench.stats.estimated_wait_s(idx, 0, 0), 2_147_483_647);
    s.call();
    s.news_answers();
    s.caller_acks();
    assert_eq!(s.state(), CallState::Dissuading1);
    s.caller_hangs_up();
    s.news_bye();
    s.assert_cdrs(&["type 1 agent - fstats 9 rejected 0 wait 0s pickup 0s talk 0s cause 0"]);
    s.assert_rest();
}

#[test]
fn thresholds_without_the_message_do_nothing() {
    let mut s = scene(|f| {
        f.message_dissuading = None;
        f.dissuading_ewt_th = Some(1);
        f.dissuading_qsize_th = Some(1);
        f.dissuading_onhold_th = Some(1);
        f.dissuading_hangup = Some(1);
    });
    let first = another_waits(&mut s, "first", "10.0.2.9:5060", "sales");
    leaves(&mut s, first);
    s.joins_queue();
    s.wait_ms(60_000);
    assert_eq!(s.state(), CallState::Queued);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn thresholds_of_0_are_off() {
    let mut s = scene(|f| f.dissuading_hangup = Some(1));
    s.joins_queue();
    s.wait_ms(60_000);
    assert_eq!(s.state(), CallState::Queued);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn dissuading_comes_after_the_welcome_by_the_queue_of_that_time() {
    let mut s = scene(|f| {
        f.message_welcome = Some("sip:welcome@10.0.3.2:5060".into());
        f.dissuading_qsize_th = Some(1);
    });
    s.call();
    let welcome = s.news_answers();
    assert_eq!(welcome.uri(), "sip:welcome@10.0.3.2:5060");
    s.caller_acks();
    // The welcome of another fails, so that it is in the queue before the one who came first.
    let mut first = s.bench.phone("first", "10.0.2.9:5060");
    let sdp = first.sdp();
    first.invite(&mut s.bench, "sales", &sdp);
    first.expect(&mut s.bench, "100");
    let skipped = s.news.expect(&mut s.bench, "INVITE");
    s.news.answer_as_fork(&mut s.bench, &skipped, 503, "");
    s.news.expect(&mut s.bench, "ACK");
    s.media_answers();
    first.expect(&mut s.bench, "200");
    first.ack(&mut s.bench, "");
    assert_eq!(s.gauges(), (2, 1));
    s.news_hangs_up();
    let invite = s.news_answers();
    assert_eq!(invite.uri(), NEWS);
    let offer = s.caller_moves();
    assert_eq!(offer.sdp('s'), "news");
    s.caller_hangs_up();
    s.news_bye();
    leaves(&mut s, first);
    s.assert_rest();
}

#[test]
fn after_the_message_a_free_agent_takes_the_call_at_once() {
    let mut s = scene(|f| f.dissuading_ewt_th = Some(5));
    s.call();
    s.news_answers();
    s.caller_acks();
    s.bench.login("ann", true);
    s.ann.expect_nothing(&mut s.bench);
    s.wait_ms(3_000);
    s.news_hangs_up();
    let invite = s.ann_rings();
    s.media_answers();
    s.caller_moves();
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 3s pickup 0s talk 2s cause 0"]);
    s.assert_rest();
}

#[test]
fn the_caller_may_leave_in_either_state_while_the_message_is_called_and_while_it_plays() {
    for hangup in [0, 1] {
        let mut s = scene(|f| {
            f.dissuading_ewt_th = Some(5);
            f.dissuading_hangup = Some(hangup);
        });
        s.call();
        let invite = s.news.expect(&mut s.bench, "INVITE");
        s.news.answer(&mut s.bench, &invite, 180, "");
        s.caller.cancel(&mut s.bench);
        s.caller.expect(&mut s.bench, "200");
        s.caller.expect(&mut s.bench, "487");
        s.caller.ack_error(&mut s.bench);
        // The 200 crosses our CANCEL.
        let cancel = s.news.expect(&mut s.bench, "CANCEL");
        s.news.answer(&mut s.bench, &cancel, 200, "");
        let sdp = s.news.sdp();
        s.news.answer(&mut s.bench, &invite, 200, &sdp);
        s.news.expect(&mut s.bench, "ACK");
        s.news_bye();
        s.wait_ms(1_000);
        s.call();
        s.news_answers();
        s.caller_acks();
        s.wait_ms(2_000);
        s.caller_hangs_up();
        s.news_bye();
        s.assert_cdrs(&[
            "type 1 agent - fstats 9 rejected 0 wait 0s pickup 0s talk 0s cause 487",
            "type 1 agent - fstats 9 rejected 0 wait 2s pickup 0s talk 0s cause 0",
        ]);
        s.assert_counts([2, 0, 0, 2]);
        s.assert_rest();
    }
}

#[test]
fn a_message_that_fails_counts_as_one_that_hung_up() {
    let mut s = scene(|f| f.dissuading_ewt_th = Some(5));
    s.call();
    s.news_refuses(503);
    s.media_answers();
    s.caller_acks();
    assert_eq!(s.state(), CallState::Queued);
    s.caller_leaves_queue();
    s.assert_rest();

    let mut s = scene(|f| {
        f.dissuading_ewt_th = Some(5);
        f.dissuading_hangup = Some(1);
    });
    s.call();
    s.news_refuses(503);
    s.caller.expect(&mut s.bench, "480");
    s.caller.ack_error(&mut s.bench);
    s.assert_cdrs(&["type 1 agent - fstats 1 rejected 0 wait 0s pickup 0s talk 0s cause 480"]);
    s.assert_counts([1, 0, 0, 0]);
    s.assert_rest();
}

#[test]
fn a_message_without_a_description_or_without_an_answer_fails() {
    let mut s = scene(|f| f.dissuading_ewt_th = Some(5));
    s.call();
    let invite = s.news.expect(&mut s.bench, "INVITE");
    s.news.answer(&mut s.bench, &invite, 200, "");
    s.news.expect(&mut s.bench, "ACK");
    s.news_bye();
    s.media_answers();
    s.caller_acks();
    s.caller_leaves_queue();
    s.assert_rest();

    let mut s = scene(|f| f.dissuading_ewt_th = Some(5));
    s.call();
    let invite = s.news.expect(&mut s.bench, "INVITE");
    s.news.answer(&mut s.bench, &invite, 180, "");
    s.wait_ms(32_000);
    s.news.expect(&mut s.bench, "CANCEL");
    s.news.answer(&mut s.bench, &invite, 487, "");
    s.news.expect(&mut s.bench, "ACK");
    s.media_answers();
    s.caller_acks();
    s.caller_leaves_queue();
    s.wait_ms(60_000);
    while s.bench.next_for(s.news.addr).is_some() {}
    s.assert_rest();
}

#[test]
fn a_message_that_hangs_up_before_the_callers_ack() {
    for hangup in [0, 1] {
        let mut s = scene(|f| {
            f.dissuading_ewt_th = Some(5);
            f.dissuading_hangup = Some(hangup);
        });
        s.call();
        s.news_answers();
        s.caller.expect(&mut s.bench, "200");
        s.news_hangs_up();
        if hangup == 0 {
            s.media_answers();
            s.caller.expect_nothing(&mut s.bench);
            s.caller.ack(&mut s.bench, "");
            let offer = s.caller_moves();
            assert_eq!(offer.sdp('s'), "media");
            s.caller_leaves_queue();
        } else {
            s.caller.expect_nothing(&mut s.bench);
            s.caller.ack(&mut s.bench, "");
            s.caller_bye();
            s.assert_cdrs(&["type 1 agent - fstats 1 rejected 0 wait 0s pickup 0s talk 0s cause 0"]);
        }
        s.assert_rest();
    }
}

#[test]
fn a_caller_without_a_description_answers_the_messages_offer_and_then_the_musics() {
    let mut s = scene(|f| f.dissuading_ewt_th = Some(5));
    s.caller.invite(&mut s.bench, "sales", "");
    s.caller.expect(&mut s.bench, "100");
    let invite = s.news.expect(&mut s.bench, "INVITE");
    assert_eq!(invite.body(), "");
    let sdp = s.news.sdp();
    s.news.answer(&mut s.bench, &invite, 200, &sdp);
    let ok = s.caller.expect(&mut s.bench, "200");
    assert_eq!(ok.sdp('s'), "news");
    let answer = s.caller.sdp();
    s.caller.ack(&mut s.bench, &answer);
    let ack = s.news.expect(&mut s.bench, "ACK");
    assert_eq!(ack.sdp('s'), "caller");
    s.wait_ms(2_000);
    s.news_hangs_up();
    s.media_answers();
    s.caller_moves();
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn the_callers_reinvite_in_the_message_is_answered_by_its_server() {
    let (mut s, first, _) = dissuaded(0);
    let moved = s.caller.move_to_port(45_000);
    s.caller.send(&mut s.bench, "INVITE", &moved);
    s.caller.expect(&mut s.bench, "100");
    let relayed = s.news.expect(&mut s.bench, "INVITE");
    assert_eq!(relayed.sdp('m'), "audio 45000 RTP/AVP 0 8 101");
    let sdp = s.news.sdp();
    s.news.answer(&mut s.bench, &relayed, 200, &sdp);
    s.news.expect(&mut s.bench, "ACK");
    let ok = s.caller.expect(&mut s.bench, "200");
    assert_eq!(ok.sdp('s'), "news");
    s.caller.ack(&mut s.bench, "");
    s.caller_hangs_up();
    s.news_bye();
    leaves(&mut s, first);
    s.assert_rest();
}
