//! Messages that cross, and peers that go in the middle of something: stories that the simulator found.

mod ladder;

use ladder::{Bench, ENGINE, Phone, Scene, agent, flow};
use strowger_dispatch::AgentState;
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

/// Found by `cargo sim`: the BYE got 481, the 200 behind it made a talk, and the agent was busy until somebody else ended it.
#[test]
fn a_hang_up_that_overtakes_the_agents_200_is_a_refusal() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.wait_ms(1_000);
    s.ann.send(&mut s.bench, "BYE", "");
    s.ann.expect(&mut s.bench, "200");
    s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 1s pickup 1s talk 0s cause 0"]);
    assert_eq!(s.ann_state(), AgentState::Wrapup);
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.media_answers();
    s.caller_acks();
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    s.ann.expect(&mut s.bench, "ACK");
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    s.ann.expect(&mut s.bench, "ACK");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, &bye, 481, "");
    assert_eq!((s.bench.cdrs.len(), s.gauges()), (1, (1, 1)), "the caller waits on");
    s.bench.login("ann", false);
    s.caller_leaves_queue();
    s.assert_counts([1, 1, 0, 1]);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

/// As above; its 200 is lost for good.
#[test]
fn a_hang_up_whose_200_never_comes_leaves_nothing() {
    let mut s = Scene::queued();
    s.bench.login("ann", true);
    s.ann_rings();
    s.ann.send(&mut s.bench, "BYE", "");
    s.ann.expect(&mut s.bench, "200");
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    // Once more, in a transaction of its own: nothing more comes of it.
    s.ann.send(&mut s.bench, "BYE", "");
    s.ann.expect(&mut s.bench, "200");
    s.ann.answer(&mut s.bench, &cancel, 481, "");
    s.bench.login("ann", false);
    s.assert_cdrs(&["type -2 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 0"]);
    s.wait_ms(33_000);
    s.caller_leaves_queue();
    s.assert_rest();
}

/// Who does not know the whole dialog ends nothing.
#[test]
fn a_hang_up_with_another_call_id_ends_no_call_that_rings() {
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    let bye = format!(
        "BYE sip:{ENGINE} SIP/2.0\r\nVia: SIP/2.0/UDP {ANN};branch=z9hG4bKforged\r\nFrom: {};tag=any\r\nTo: {}\r\nCall-ID: {}x\r\n\
         CSeq: 9 BYE\r\nContent-Length: 0\r\n\r\n",
        invite.header(Name::To),
        invite.header(Name::From),
        invite.header(Name::CallId),
    );
    s.bench.datagram(ANN.parse().unwrap(), bye.as_bytes());
    s.ann.expect(&mut s.bench, "481");
    s.ann_answers(&invite);
    s.caller_acks();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_counts([1, 1, 1, 0]);
    s.assert_rest();
}

/// Of a message it is the message's end: the caller heard nothing behind a server that was gone.
#[test]
fn a_hang_up_that_overtakes_the_welcomes_200_moves_the_call_on() {
    let mut s = Scene::with(|_, flows, agents| {
        flows[0].message_welcome = Some("sip:welcome@10.0.3.2:5060".into());
        agents[0].logstate = Some(0);
    });
    s.call();
    let invite = s.news.expect(&mut s.bench, "INVITE");
    s.news.answer(&mut s.bench, &invite, 180, "");
    s.news.send(&mut s.bench, "BYE", "");
    s.news.expect(&mut s.bench, "200");
    let cancel = s.news.expect(&mut s.bench, "CANCEL");
    let sdp = s.news.sdp();
    s.news.answer(&mut s.bench, &invite, 200, &sdp);
    s.news.expect(&mut s.bench, "ACK");
    s.news_bye();
    s.news.answer(&mut s.bench, &cancel, 481, "");
    s.media_answers();
    s.caller_acks();
    s.caller_leaves_queue();
    s.assert_rest();
}
