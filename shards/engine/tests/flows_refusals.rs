//! Arrivals that are refused, in the order of `cc_handle_call`; they count nowhere.

mod ladder;

use ladder::Scene;
use strowger_engine::control::{Control, Reply};
use strowger_sip::msg::Name;

const CHAT: &str = "v=0\r\no=c 1 1 IN IP4 10.0.2.1\r\ns=c\r\nc=IN IP4 10.0.2.1\r\nt=0 0\r\nm=message 2855 TCP/MSRP *\r\na=path:msrp://10.0.2.1:2855/x;tcp\r\n";
const FAX: &str = "v=0\r\no=c 1 1 IN IP4 10.0.2.1\r\ns=c\r\nc=IN IP4 10.0.2.1\r\nt=0 0\r\nm=image 5000 udptl t38\r\n";
const REFUSED: &str = "v=0\r\no=c 1 1 IN IP4 10.0.2.1\r\ns=c\r\nc=IN IP4 10.0.2.1\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n";

fn scene() -> Scene {
    Scene::with(|cfg, _, agents| {
        cfg.call.reject_on_no_agents = true;
        agents[0].logstate = Some(0);
        // One code for each reason.
        cfg.call.refusals.no_flow_id = 601;
        cfg.call.refusals.bad_from = 602;
        cfg.call.refusals.unknown_flow = 603;
        cfg.call.refusals.no_agents = 604;
        cfg.call.refusals.bad_sdp = 606;
        cfg.call.refusals.bad_media = 607;
    })
}

/// An INVITE as it stands, answered with `code`.
fn refused(s: &mut Scene, uri: &str, from: &str, body: &str, code: &str) {
    static N: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = N.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    let invite = format!(
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.2.1:5060;branch=z9hG4bKr{n}\r\nMax-Forwards: 70\r\nFrom: {from};tag=t{n}\r\nTo: <sip:x@h>\r\nCall-ID: refused{n}\r\nCSeq: 1 INVITE\r\nContact: <sip:c@10.0.2.1>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let addr = s.caller.addr;
    s.bench.datagram(addr, invite.as_bytes());
    let mut got = s.caller.expect_any(&mut s.bench);
    if got.what() == "100" {
        got = s.caller.expect_any(&mut s.bench);
    }
    assert_eq!(got.what(), code, "{uri} {from}\n{body}");
    let to = got.header(Name::To);
    let ack = format!(
        "ACK {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.2.1:5060;branch=z9hG4bKr{n}\r\nMax-Forwards: 70\r\nFrom: {from};tag=t{n}\r\nTo: {to}\r\nCall-ID: refused{n}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n"
    );
    s.bench.datagram(addr, ack.as_bytes());
}

#[test]
fn every_refusal_has_its_code_and_the_first_reason_wins() {
    let mut s = scene();
    let good = "<sip:c@example.com>";
    let audio = s.caller.sdp();
    // Each has the faults of all lines below it, too.
    refused(&mut s, "sip:10.0.0.1", good, CHAT, "601");
    refused(&mut s, "sip:nowhere@10.0.0.1", good, CHAT, "603");
    refused(&mut s, "sip:sales@10.0.0.1", good, CHAT, "604");
    s.bench.login("ann", true);
    refused(&mut s, "sip:sales@10.0.0.1", good, REFUSED, "606");
    refused(&mut s, "sip:sales@10.0.0.1", good, "no description", "606");
    refused(&mut s, "sip:sales@10.0.0.1", good, FAX, "607");
    s.bench.login("ann", false);
    refused(&mut s, "sip:sales@10.0.0.1", good, &audio, "604");
    refused(&mut s, "sip:sales@10.0.0.1", good, CHAT, "604");
    refused(&mut s, "sip:sales@10.0.0.1", good, "", "604");
    s.assert_counts([0, 0, 0, 0]);
    s.assert_cdrs(&[]);
    assert_eq!(s.bench.stats.sum(|shard| shard.refused.get()), 9);
    assert_eq!(s.bench.stats.sum(|shard| shard.calls.get()), 0);
    s.assert_rest();
}

#[test]
fn an_unparsable_from_has_its_code() {
    let mut s = scene();
    let sdp = s.caller.sdp();
    for from in ["<sip:>", "nobody at all", "<sip:c@example.com"] {
        refused(&mut s, "sip:sales@10.0.0.1", from, &sdp, "602");
    }
    s.assert_counts([0, 0, 0, 0]);
    s.assert_rest();
}

#[test]
fn a_flow_id_may_be_escaped_in_the_uri() {
    let mut s = Scene::nobody();
    let sdp = s.caller.sdp();
    s.caller.invite(&mut s.bench, "%73ales", &sdp);
    s.caller.expect(&mut s.bench, "100");
    s.media_answers();
    s.caller_acks();
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn draining_and_too_many_calls_are_503_with_retry_after_and_calls_go_on() {
    ladder::lives_on!("a new process does not drain");
    let mut s = Scene::with(|cfg, _, agents| {
        cfg.call.max_calls = 1;
        agents[0].logstate = Some(0);
    });
    s.joins_queue();
    let mut second = s.bench.phone("second", "10.0.2.2:5060");
    let sdp = second.sdp();
    second.invite(&mut s.bench, "sales", &sdp);
    second.expect(&mut s.bench, "100");
    let busy = second.expect(&mut s.bench, "503");
    let after: u32 = busy.header(Name::RetryAfter).parse().unwrap();
    assert!((2..10).contains(&after));
    second.ack_error(&mut s.bench);
    s.caller_leaves_queue();
    s.bench.control(Control::Drain { on: true });
    second.invite(&mut s.bench, "sales", &sdp);
    second.expect(&mut s.bench, "100");
    second.expect(&mut s.bench, "503");
    second.ack_error(&mut s.bench);
    s.bench.control(Control::Drain { on: false });
    s.joins_queue();
    s.caller_leaves_queue();
    assert_eq!(s.bench.stats.sum(|shard| shard.shed.get()), 2);
    s.assert_counts([2, 0, 0, 2]);
    s.assert_rest();
}

#[test]
fn end_all_ends_every_call_with_its_record() {
    // Queued.
    let mut s = Scene::queued();
    assert!(matches!(s.bench.control(Control::EndAll), Reply::Done));
    s.caller_bye();
    s.media_bye();
    s.assert_cdrs(&["type -1 agent - fstats 1 rejected 0 wait 0s pickup 0s talk 0s cause 503"]);
    s.assert_rest();
    // Unanswered.
    let mut s = Scene::new();
    s.call();
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.bench.control(Control::EndAll);
    s.caller.expect(&mut s.bench, "503");
    s.caller.ack_error(&mut s.bench);
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, &invite, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
    s.assert_cdrs(&["type -1 agent ann fstats 3 rejected 0 wait 0s pickup 0s talk 0s cause 503"]);
    s.assert_rest();
    // Talking: it was answered, and is billed.
    let mut s = Scene::new();
    s.talk_straight();
    s.wait_ms(7_000);
    s.bench.control(Control::EndAll);
    s.caller_bye();
    let bye = s.ann.expect(&mut s.bench, "BYE");
    s.ann.answer(&mut s.bench, &bye, 200, "");
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 7s cause 503"]);
    s.assert_rest();
}

#[test]
fn an_invite_without_contact_is_400_and_counts_nowhere() {
    let mut s = Scene::new();
    let invite = "INVITE sip:sales@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.2.1:5060;branch=z9hG4bKnc\r\nMax-Forwards: 70\r\nFrom: <sip:c@h>;tag=1\r\nTo: <sip:x@h>\r\nCall-ID: nocontact\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
    let addr = s.caller.addr;
    s.bench.datagram(addr, invite.as_bytes());
    let mut got = s.caller.expect_any(&mut s.bench);
    if got.what() == "100" {
        got = s.caller.expect_any(&mut s.bench);
    }
    assert_eq!(got.what(), "400");
    s.assert_counts([0, 0, 0, 0]);
    s.bench.wait_ms(40_000);
    while s.bench.next_for(addr).is_some() {}
    s.assert_rest();
}
