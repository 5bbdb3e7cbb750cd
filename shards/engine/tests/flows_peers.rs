//! Faults that were seen in what users run today: each is here shown not to happen. And matches that come too late.

mod ladder;

use ladder::{Bench, Phone, Scene, agent, flow};
use strowger_dispatch::AgentState;
use strowger_engine::control::Control;

/// A caller in the queue of `sales`, hearing music.
fn waits(bench: &mut Bench, media: &mut Phone, name: &str, n: u8) -> Phone {
    let mut caller = bench.phone(name, &format!("10.0.2.{n}:5060"));
    let sdp = caller.sdp();
    caller.invite(bench, "sales", &sdp);
    caller.expect(bench, "100");
    let invite = media.expect(bench, "INVITE");
    let sdp = media.sdp();
    media.answer(bench, &invite, 200, &sdp);
    media.expect(bench, "ACK");
    caller.expect(bench, "200");
    caller.ack(bench, "");
    caller
}

/// The reference frees one agent a second while the head of its list is in wrap-up.
#[test]
fn agents_whose_wrap_ups_end_together_all_get_their_calls_at_that_moment() {
    let rows: Vec<_> = (0..5)
        .map(|n| {
            let mut row = agent(&format!("a{n}"), &format!("10.0.4.{}:5060", n + 1), "sales");
            // The first in the list wraps up for long.
            row.wrapup_time = Some(if n == 0 { 60 } else { 2 });
            row
        })
        .collect();
    let mut bench = Bench::with(&[flow("sales", "sales")], &rows, |cfg| cfg.call.session_expires_s = 0);
    let mut media = bench.phone("media", "10.0.3.1:5060");
    let mut phones: Vec<_> = (0..5).map(|n| bench.phone(&format!("a{n}"), &format!("10.0.4.{}:5060", n + 1))).collect();
    let mut first: Vec<_> = (0..5).map(|n| bench.phone(&format!("c{n}"), &format!("10.0.2.{}:5060", n + 1))).collect();
    for caller in &mut first {
        let sdp = caller.sdp();
        caller.invite(&mut bench, "sales", &sdp);
        caller.expect(&mut bench, "100");
    }
    for phone in &mut phones {
        let invite = phone.expect(&mut bench, "INVITE");
        let sdp = phone.sdp();
        phone.answer(&mut bench, &invite, 200, &sdp);
        phone.expect(&mut bench, "ACK");
    }
    for caller in &mut first {
        caller.expect(&mut bench, "200");
        caller.ack(&mut bench, "");
    }
    let mut later: Vec<_> = (0..5).map(|n| waits(&mut bench, &mut media, &format!("w{n}"), 10 + n)).collect();
    bench.wait_ms(5_000);
    for (caller, phone) in first.iter_mut().zip(&mut phones) {
        caller.send(&mut bench, "BYE", "");
        caller.expect(&mut bench, "200");
        let bye = phone.expect(&mut bench, "BYE");
        phone.answer(&mut bench, &bye, 200, "");
    }
    bench.wait_ms(2_000);
    let mut rung = Vec::new();
    for phone in &mut phones[1..] {
        rung.push(phone.expect(&mut bench, "INVITE"));
    }
    let whose: Vec<_> = rung.iter().map(|i| i.sdp('s')).collect();
    assert_eq!(whose, ["w0", "w1", "w2", "w3"], "in the order of arrival");
    assert!(bench.stamps.iter().all(|late| *late == 0), "{:?}", bench.stamps);
    phones[0].expect_nothing(&mut bench);
    for caller in &mut later {
        caller.send(&mut bench, "BYE", "");
        caller.expect(&mut bench, "200");
        let bye = media.expect(&mut bench, "BYE");
        media.answer(&mut bench, &bye, 200, "");
    }
    for (phone, invite) in phones[1..].iter_mut().zip(&rung) {
        phone.answer(&mut bench, invite, 487, "");
        phone.expect(&mut bench, "ACK");
    }
    bench.assert_rest();
}

/// In the reference, 14 of 14 times.
#[test]
fn a_new_call_does_not_overtake_when_an_agent_logs_in() {
    let mut s = Scene::nobody();
    let mut media = s.bench.phone("media", "10.0.3.1:5060");
    let mut first = waits(&mut s.bench, &mut media, "first", 10);
    s.wait_ms(60_000);
    s.bench.login("ann", true);
    s.call();
    let invite = s.ann_rings();
    assert_eq!(invite.sdp('s'), "first");
    s.media_answers();
    s.caller_acks();
    first.send(&mut s.bench, "BYE", "");
    first.expect(&mut s.bench, "200");
    s.media_bye();
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.expect_nothing(&mut s.bench);
    s.ann.answer(&mut s.bench, &invite, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
    let invite = s.ann_rings();
    assert_eq!(invite.sdp('s'), "caller");
    s.caller_leaves_queue();
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, &invite, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
    s.assert_rest();
}

#[test]
fn the_200_to_the_caller_is_whole_when_the_music_answers_at_once() {
    let mut s = Scene::nobody();
    s.call();
    s.media_answers();
    let ok = s.caller_acks();
    let view = ok.view();
    assert_eq!(ok.header(strowger_sip::msg::Name::ContentLength), view.body().len().to_string());
    assert_eq!(ok.header(strowger_sip::msg::Name::ContentType), "application/sdp");
    assert!(strowger_sip::sdp::Sdp::parse(view.body()).is_ok());
    assert_eq!(view.all(strowger_sip::msg::Name::Contact).count(), 1);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn nothing_is_retransmitted_when_an_agent_is_found_before_the_music_has_answered() {
    let mut s = Scene::nobody();
    s.call();
    let music = s.media.expect(&mut s.bench, "INVITE");
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    let sdp = s.media.sdp();
    s.media.answer(&mut s.bench, &music, 200, &sdp);
    s.media.expect(&mut s.bench, "ACK");
    s.caller_acks();
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(40_000);
    s.caller_hangs_up_on_ann();
    s.bench.engine.idle();
    assert_eq!(s.bench.stats.sum(|shard| shard.retransmissions_out.get()), 0);
    assert_eq!(s.bench.stats.sum(|shard| shard.retransmissions_in.get()), 0);
    s.assert_rest();
}

#[test]
fn the_music_plays_until_the_agent_has_answered() {
    let mut s = Scene::queued();
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.wait_ms(25_000);
    s.media.expect_nothing(&mut s.bench);
    s.caller.expect_nothing(&mut s.bench);
    s.ann_answers(&invite);
    let offer = s.caller.expect(&mut s.bench, "INVITE");
    s.media.expect_nothing(&mut s.bench);
    let sdp = s.caller.sdp();
    s.caller.answer(&mut s.bench, &offer, 200, &sdp);
    s.caller.expect(&mut s.bench, "ACK");
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

/// The reference sends no 487, queues the dead call again, and its agent stays busy for ever.
#[test]
fn a_cancel_while_the_agent_rings_is_answered_and_nobody_is_left_busy() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.caller.cancel(&mut s.bench);
    s.caller.expect(&mut s.bench, "200");
    s.caller.expect(&mut s.bench, "487");
    s.caller.ack_error(&mut s.bench);
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, &invite, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
    assert_eq!(s.gauges(), (0, 0));
    assert_eq!(s.bench.calls().len(), 0);
    assert_eq!(s.ann_state(), AgentState::Free);
    s.talk_straight();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn null_in_every_optional_column_loads() {
    let mut bare_flow = flow("sales", "sales");
    (bare_flow.priority, bare_flow.prependcid, bare_flow.message_welcome) = (None, None, None);
    let mut bare_agent = agent("ann", "10.0.4.1:5060", "sales");
    (bare_agent.logstate, bare_agent.wrapup_time, bare_agent.wrapup_end_time) = (None, None, None);
    let mut bench = Bench::new(&[bare_flow], &[bare_agent]);
    bench.login("ann", true);
    assert_eq!(bench.agent_state("ann"), AgentState::Free);
    bench.assert_rest();
}

/// A match made elsewhere, on its way when the caller leaves; and one that is told twice.
#[test]
fn a_match_for_a_call_that_has_left_gives_the_agent_back() {
    ladder::lives_on!("a match under way");
    for leaves in [true, false] {
        let mut s = Scene::queued();
        let mut elsewhere = s.bench.dispatch.handle(ladder::SHARDS);
        let ann = s.bench.registry.agent("ann").unwrap();
        let mut made = Vec::new();
        assert!(elsewhere.login(ann, &mut made));
        assert_eq!((made.len(), s.ann_state()), (1, AgentState::InCall));
        if leaves {
            s.caller_leaves_queue();
            assert_eq!(s.ann_state(), AgentState::Free);
            s.bench.control(Control::Matched(made));
            s.ann.expect_nothing(&mut s.bench);
            s.assert_cdrs(&["type 1 agent - fstats 9 rejected 0 wait 0s pickup 0s talk 0s cause 0"]);
        } else {
            s.bench.control(Control::Matched(made.clone()));
            let invite = s.ann_rings();
            s.bench.control(Control::Matched(made));
            s.ann.expect_nothing(&mut s.bench);
            s.ann_answers(&invite);
            s.caller_moves();
            s.media_bye();
            s.wait_ms(2_000);
            s.caller_hangs_up_on_ann();
        }
        s.assert_rest();
    }
}
