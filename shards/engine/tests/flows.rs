//! Call flows over the sans-I/O engine in virtual time.

mod ladder;

use ladder::{Bench, Phone, agent, flow};
use strowger_dispatch::AgentState;
use strowger_sip::msg::Name;

const CALLER: &str = "10.0.2.1:5060";
const MEDIA: &str = "10.0.3.1:5060";
const ANN: &str = "10.0.4.1:5060";

/// A bench with one flow, one agent, and the three phones.
fn small(logged_in: bool) -> (Bench, Phone, Phone, Phone) {
    let mut ann = agent("ann", ANN, "sales");
    ann.logstate = Some(i64::from(logged_in));
    let mut bench = Bench::with(&[flow("sales", "sales")], &[ann], |cfg| {
        cfg.call.reject_on_no_agents = false;
        cfg.call.wrapup_us = 2_000_000;
    });
    let caller = bench.phone("caller", CALLER);
    let media = bench.phone("media", MEDIA);
    let ann = bench.phone("ann", ANN);
    (bench, caller, media, ann)
}

/// The caller gets as far as the music.
fn queue_caller(bench: &mut Bench, caller: &mut Phone, media: &mut Phone) {
    let sdp = caller.sdp();
    caller.invite(bench, "sales", &sdp);
    caller.expect(bench, "100");
    let invite = media.expect(bench, "INVITE");
    let sdp = media.sdp();
    media.answer(bench, &invite, 200, &sdp);
    media.expect(bench, "ACK");
    caller.expect(bench, "200");
    caller.ack(bench, "");
}

/// The agent answers and the waiting caller is connected to it.
fn bridge(bench: &mut Bench, caller: &mut Phone, media: &mut Phone, ann: &mut Phone) {
    let invite = ann.expect(bench, "INVITE");
    ann.answer(bench, &invite, 180, "");
    let sdp = ann.sdp();
    ann.answer(bench, &invite, 200, &sdp);
    ann.expect(bench, "ACK");
    let reinvite = caller.expect(bench, "INVITE");
    assert_eq!(reinvite.sdp('s'), "ann", "the caller is offered the agent's session");
    let sdp = caller.sdp();
    caller.answer(bench, &reinvite, 200, &sdp);
    caller.expect(bench, "ACK");
    let bye = media.expect(bench, "BYE");
    media.answer(bench, &bye, 200, "");
}

#[test]
fn a_caller_waits_with_music_and_is_connected_when_the_agent_logs_in() {
    let (mut bench, mut caller, mut media, mut ann) = small(false);
    queue_caller(&mut bench, &mut caller, &mut media);
    assert_eq!(bench.flow_count("sales", |f| f.queued.get()), 1);
    bench.wait_ms(5_000);
    bench.login("ann", true);
    bridge(&mut bench, &mut caller, &mut media, &mut ann);
    assert_eq!(bench.agent_state("ann"), AgentState::InCall);
    bench.wait_ms(10_000);
    caller.send(&mut bench, "BYE", "");
    caller.expect(&mut bench, "200");
    let bye = ann.expect(&mut bench, "BYE");
    assert_eq!(bench.agent_state("ann"), AgentState::Wrapup);
    ann.answer(&mut bench, &bye, 200, "");
    bench.wait_ms(1_999);
    assert_eq!(bench.agent_state("ann"), AgentState::Wrapup);
    bench.wait_ms(1);
    assert_eq!(bench.agent_state("ann"), AgentState::Free, "a wrap-up of 2 s ends after 2.00 s");
    ladder::drawn!(bench);
    bench.assert_rest();
}

#[test]
fn a_free_agent_is_rung_at_once_and_the_caller_hears_it_ring() {
    let (mut bench, mut caller, mut media, mut ann) = small(true);
    let sdp = caller.sdp();
    caller.invite(&mut bench, "sales", &sdp);
    caller.expect(&mut bench, "100");
    let invite = ann.expect(&mut bench, "INVITE");
    assert_eq!((invite.sdp('s').as_str(), invite.sdp('m').as_str()), ("caller", "audio 40061 RTP/AVP 0 8 101"));
    assert!(invite.header(Name::From).starts_with("\"caller Caller\" <sip:caller@example.com>;tag="));
    ann.answer(&mut bench, &invite, 180, "");
    let ringing = caller.expect(&mut bench, "180");
    assert!(ringing.body().is_empty());
    let sdp = ann.sdp();
    ann.answer(&mut bench, &invite, 200, &sdp);
    ann.expect(&mut bench, "ACK");
    let ok = caller.expect(&mut bench, "200");
    assert_eq!(ok.sdp('s'), "ann");
    caller.ack(&mut bench, "");
    media.expect_nothing(&mut bench);
    bench.wait_ms(3_000);
    ann.send(&mut bench, "BYE", "");
    ann.expect(&mut bench, "200");
    let bye = caller.expect(&mut bench, "BYE");
    caller.answer(&mut bench, &bye, 200, "");
    ladder::drawn!(bench);
    bench.assert_rest();
}

#[test]
fn a_refusing_agent_wraps_up_and_the_caller_goes_to_the_music() {
    let (mut bench, mut caller, mut media, mut ann) = small(true);
    let sdp = caller.sdp();
    caller.invite(&mut bench, "sales", &sdp);
    caller.expect(&mut bench, "100");
    let invite = ann.expect(&mut bench, "INVITE");
    ann.answer(&mut bench, &invite, 486, "");
    ann.expect(&mut bench, "ACK");
    let invite = media.expect(&mut bench, "INVITE");
    let sdp = media.sdp();
    media.answer(&mut bench, &invite, 200, &sdp);
    media.expect(&mut bench, "ACK");
    caller.expect(&mut bench, "200");
    caller.ack(&mut bench, "");
    assert_eq!(bench.agent_state("ann"), AgentState::Wrapup);
    bench.wait_ms(2_000);
    bridge(&mut bench, &mut caller, &mut media, &mut ann);
    bench.wait_ms(2_000);
    caller.send(&mut bench, "BYE", "");
    caller.expect(&mut bench, "200");
    let bye = ann.expect(&mut bench, "BYE");
    ann.answer(&mut bench, &bye, 200, "");
    ladder::drawn!(bench);
    bench.assert_rest();
}

#[test]
fn a_caller_who_cancels_while_the_agent_rings_gets_487_and_the_agent_is_free() {
    let (mut bench, mut caller, _media, mut ann) = small(true);
    let sdp = caller.sdp();
    caller.invite(&mut bench, "sales", &sdp);
    caller.expect(&mut bench, "100");
    let invite = ann.expect(&mut bench, "INVITE");
    ann.answer(&mut bench, &invite, 180, "");
    caller.expect(&mut bench, "180");
    caller.cancel(&mut bench);
    caller.expect(&mut bench, "200");
    caller.expect(&mut bench, "487");
    caller.ack_error(&mut bench);
    let cancel = ann.expect(&mut bench, "CANCEL");
    ann.answer(&mut bench, &cancel, 200, "");
    ann.answer(&mut bench, &invite, 487, "");
    ann.expect(&mut bench, "ACK");
    assert_eq!(bench.agent_state("ann"), AgentState::Free);
    ladder::drawn!(bench);
    bench.assert_rest();
}

#[test]
fn an_answer_that_crosses_the_cancel_is_acknowledged_and_ended() {
    let (mut bench, mut caller, _media, mut ann) = small(true);
    let sdp = caller.sdp();
    caller.invite(&mut bench, "sales", &sdp);
    caller.expect(&mut bench, "100");
    let invite = ann.expect(&mut bench, "INVITE");
    ann.answer(&mut bench, &invite, 180, "");
    caller.expect(&mut bench, "180");
    caller.cancel(&mut bench);
    caller.expect(&mut bench, "200");
    caller.expect(&mut bench, "487");
    caller.ack_error(&mut bench);
    let cancel = ann.expect(&mut bench, "CANCEL");
    let sdp = ann.sdp();
    ann.answer(&mut bench, &invite, 200, &sdp);
    ann.answer(&mut bench, &cancel, 200, "");
    ann.expect(&mut bench, "ACK");
    let bye = ann.expect(&mut bench, "BYE");
    ann.answer(&mut bench, &bye, 200, "");
    ladder::drawn!(bench);
    bench.assert_rest();
}

#[test]
fn a_caller_without_a_description_gets_the_offer_and_answers_in_the_ack() {
    let (mut bench, mut caller, mut media, mut ann) = small(false);
    caller.invite(&mut bench, "sales", "");
    caller.expect(&mut bench, "100");
    let invite = media.expect(&mut bench, "INVITE");
    assert!(invite.body().is_empty());
    let sdp = media.sdp();
    media.answer(&mut bench, &invite, 200, &sdp);
    let ok = caller.expect(&mut bench, "200");
    assert_eq!(ok.sdp('s'), "media");
    media.expect_nothing(&mut bench);
    let sdp = caller.sdp();
    caller.ack(&mut bench, &sdp);
    let ack = media.expect(&mut bench, "ACK");
    assert_eq!(ack.sdp('s'), "caller");
    bench.login("ann", true);
    bridge(&mut bench, &mut caller, &mut media, &mut ann);
    bench.wait_ms(2_000);
    caller.send(&mut bench, "BYE", "");
    caller.expect(&mut bench, "200");
    let bye = ann.expect(&mut bench, "BYE");
    ann.answer(&mut bench, &bye, 200, "");
    ladder::drawn!(bench);
    bench.assert_rest();
}
