//! Messages that cross, and peers that go in the middle of something: stories that the simulator found.

mod ladder;

use ladder::{Bench, ENGINE, Phone, agent, flow};
use strowger_engine::AgentOffer;
use strowger_sip::msg::Name;

const CALLER: &str = "10.0.2.1:5060";
const MEDIA: &str = "10.0.3.1:5060";
const ANN: &str = "10.0.4.1:5060";

fn scene(offer: AgentOffer, agents: bool) -> (Bench, Phone, Phone, Phone) {
    let mut ann = agent("ann", ANN, "sales");
    ann.logstate = Some(i64::from(agents));
    let mut bench = Bench::with(&[flow("sales", "sales")], &[ann], |cfg| {
        cfg.call.agent_offer = offer;
        cfg.call.reject_on_no_agents = false;
    });
    let (caller, media, ann) = (bench.phone("caller", CALLER), bench.phone("media", MEDIA), bench.phone("ann", ANN));
    (bench, caller, media, ann)
}

/// Found by `cargo sim`: the ACK carried no answer, and the phone was left with an offer of its own.
#[test]
fn an_offer_in_a_200_that_crossed_the_cancel_is_refused_in_the_ack() {
    let (mut bench, mut caller, _, mut ann) = scene(AgentOffer::Auto, true);
    caller.invite(&mut bench, "sales", "");
    let invite = ann.expect(&mut bench, "INVITE");
    assert_eq!(invite.body(), "");
    ann.answer(&mut bench, &invite, 180, "");
    caller.cancel(&mut bench);
    let offer = ann.sdp();
    ann.answer(&mut bench, &invite, 200, &offer);
    ann.expect(&mut bench, "CANCEL");
    let ack = ann.expect(&mut bench, "ACK");
    assert!(ack.sdp('m').starts_with("audio 0 "), "every stream is refused: {}", ack.body());
    ann.expect(&mut bench, "BYE");
}

/// Found by `cargo sim`: as above, with the music's answer to a caller's re-INVITE that asked for an offer.
#[test]
fn an_offer_that_nobody_waits_for_any_more_is_refused_in_the_ack() {
    let (mut bench, mut caller, mut media, _) = scene(AgentOffer::Auto, false);
    let sdp = caller.sdp();
    caller.invite(&mut bench, "sales", &sdp);
    let invite = media.expect(&mut bench, "INVITE");
    let sdp = media.sdp();
    media.answer(&mut bench, &invite, 200, &sdp);
    media.expect(&mut bench, "ACK");
    caller.expect(&mut bench, "100");
    caller.expect(&mut bench, "200");
    caller.ack(&mut bench, "");
    caller.send(&mut bench, "INVITE", "");
    let reinvite = media.expect(&mut bench, "INVITE");
    caller.send(&mut bench, "BYE", "");
    let bye = media.expect(&mut bench, "BYE");
    let sdp = media.sdp();
    media.answer(&mut bench, &reinvite, 200, &sdp);
    let ack = media.expect(&mut bench, "ACK");
    assert!(ack.sdp('m').starts_with("audio 0 "), "every stream is refused: {}", ack.body());
    media.answer(&mut bench, &bye, 200, "");
}

/// Found by `cargo sim`: a caller that hung up on the early dialog never got a final answer when the first 200 was lost.
#[test]
fn a_200_is_repeated_until_its_ack_although_the_caller_has_hung_up() {
    let (mut bench, mut caller, mut media, _) = scene(AgentOffer::Auto, false);
    let sdp = caller.sdp();
    caller.invite(&mut bench, "sales", &sdp);
    let invite = media.expect(&mut bench, "INVITE");
    let sdp = media.sdp();
    media.answer(&mut bench, &invite, 200, &sdp);
    caller.expect(&mut bench, "100");
    caller.expect(&mut bench, "200");
    caller.send(&mut bench, "BYE", "");
    caller.expect(&mut bench, "200");
    assert_eq!(bench.cdrs.len(), 1, "the call is over at once");
    media.expect(&mut bench, "ACK");
    let bye = media.expect(&mut bench, "BYE");
    media.answer(&mut bench, &bye, 200, "");
    bench.wait_ms(500);
    let ok = caller.expect(&mut bench, "200");
    let field = |name| ok.header(name);
    let ack = format!(
        "ACK sip:{ENGINE} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};branch=z9hG4bKack\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\n\
         CSeq: {}\r\nContent-Length: 0\r\n\r\n",
        field(Name::From),
        field(Name::To),
        field(Name::CallId),
        field(Name::CSeq).replace("INVITE", "ACK"),
    );
    bench.datagram(CALLER.parse().unwrap(), ack.as_bytes());
    bench.wait_ms(5_000);
    caller.expect_nothing(&mut bench);
    bench.assert_rest();
}

/// Found by `cargo sim`: a caller that died after its 100 to our re-INVITE was kept for ever, and given one agent after another.
#[test]
fn a_caller_who_dies_behind_a_provisional_answer_is_not_waited_for_without_end() {
    let (mut bench, mut caller, mut media, mut ann) = scene(AgentOffer::Auto, false);
    let sdp = caller.sdp();
    caller.invite(&mut bench, "sales", &sdp);
    let invite = media.expect(&mut bench, "INVITE");
    let sdp = media.sdp();
    media.answer(&mut bench, &invite, 200, &sdp);
    caller.expect(&mut bench, "100");
    caller.expect(&mut bench, "200");
    caller.ack(&mut bench, "");
    bench.login("ann", true);
    let invite = ann.expect(&mut bench, "INVITE");
    let sdp = ann.sdp();
    ann.answer(&mut bench, &invite, 200, &sdp);
    ann.expect(&mut bench, "ACK");
    let reinvite = caller.expect(&mut bench, "INVITE");
    caller.answer(&mut bench, &reinvite, 100, "");
    bench.wait_ms(32_000);
    caller.expect(&mut bench, "CANCEL");
    assert_eq!(bench.cdrs.len(), 0);
    bench.wait_ms(32_000);
    assert_eq!(bench.cdrs.len(), 1, "the caller is gone");
    ann.expect(&mut bench, "BYE");
}

/// Found by `cargo sim`: the late branch of a fork makes an offer, which the ACK must answer although the call is over.
#[test]
fn a_branch_of_a_fork_that_answers_after_the_call_has_its_offer_refused() {
    let (mut bench, mut caller, _, mut ann) = scene(AgentOffer::Auto, true);
    caller.invite(&mut bench, "sales", "");
    let invite = ann.expect(&mut bench, "INVITE");
    let offer = ann.sdp();
    ann.answer(&mut bench, &invite, 200, &offer);
    caller.expect(&mut bench, "100");
    caller.expect(&mut bench, "200");
    let answer = caller.sdp();
    caller.ack(&mut bench, &answer);
    ann.expect(&mut bench, "ACK");
    caller.send(&mut bench, "BYE", "");
    let bye = ann.expect(&mut bench, "BYE");
    ann.answer(&mut bench, &bye, 200, "");
    ann.answer_as_fork(&mut bench, &invite, 200, &offer);
    let ack = ann.expect(&mut bench, "ACK");
    assert!(ack.sdp('m').starts_with("audio 0 "), "every stream is refused: {}", ack.body());
    ann.expect(&mut bench, "BYE");
}
