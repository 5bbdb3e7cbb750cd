//! Reload in the middle of calls: skills gained, agents and flows that come and go, with SIPp on every side.

use crate::server::Server;
use crate::sipp::Sipp;
use crate::{AGENT, ANSWERED, QUEUED, row};
use serde_json::json;
use std::net::UdpSocket;
use std::time::Duration;

/// The final answer to a call of a flow, which must be a refusal, and whether it says when to try again.
pub fn refusal(server: &Server, flow: &str) -> (String, bool) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let (from, to) = (socket.local_addr().expect("its address"), server.sip);
    let invite = format!(
        "INVITE sip:{flow}@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKlate-{flow}\r\nMax-Forwards: 70\r\n\
         From: <sip:late@{from}>;tag=1\r\nTo: <sip:{flow}@{to}>\r\nCall-ID: late-{flow}@{from}\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:late@{from}>\r\nContent-Length: 0\r\n\r\n"
    );
    socket.send_to(invite.as_bytes(), to).expect("it is sent");
    let mut bytes = [0; 4096];
    loop {
        let n = socket.recv(&mut bytes).expect("an answer");
        let code = String::from_utf8_lossy(&bytes[8..n.clamp(8, 11)]).into_owned();
        if !code.starts_with('1') {
            return (code, String::from_utf8_lossy(&bytes[..n]).contains("\r\nRetry-After: "));
        }
    }
}

#[test]
fn calls_go_on_while_agents_and_flows_come_change_and_go() {
    let media = Sipp::serve("media", None);
    let (one, two, three) = (
        Sipp::serve("agent-answer", Some(1)),
        Sipp::serve("agent-answer", Some(1)),
        Sipp::serve("agent-answer", Some(1)),
    );
    let server = Server::start(&["call_center.wrapup_time=1", "call_center.reject_on_no_agents=0"]);
    server.flow("support", "support", &media.location("music"), &[]);
    server.flow("sales", "selling", &media.location("music"), &[]);
    server.agent("agent2", "cooking", &two.location("agent2"), true);
    let first = Sipp::call("caller-queued", server.sip, "support", 1);
    let buyer = Sipp::call("caller-queued", server.sip, "sales", 1);
    server.until("both wait", |s| s.statistic("ccg_onhold_calls") == 2);
    // An agent who is new takes the call that waits, and is taken away while it talks.
    server.agent(AGENT, "support", &one.location(AGENT), true);
    server.until("the first talks", |s| s.agent_state(AGENT) == "incall");
    server.cli(&["agent", "remove", AGENT]);
    let second = Sipp::call("caller-queued", server.sip, "support", 1);
    server.until("the second waits", |s| s.statistic("ccf_queued_calls-support") == 1);
    // A skill gained is a call taken.
    server.agent("agent2", "cooking,support", &two.location("agent2"), true);
    assert_eq!((first.passed(), one.passed()), (QUEUED.into(), ANSWERED.into()));
    assert_eq!((second.passed(), two.passed()), (QUEUED.into(), ANSWERED.into()));
    // A flow that is gone takes no new caller, and keeps the one that it has.
    server.cli(&["flow", "remove", "sales"]);
    assert_eq!(refusal(&server, "sales").0, "404");
    assert_eq!(server.mi("cc_list_calls", json!([]))["Calls"].as_array().map(Vec::len), Some(1));
    server.agent("agent3", "selling", &three.location("agent3"), true);
    assert_eq!((buyer.passed(), three.passed()), (QUEUED.into(), ANSWERED.into()));
    let cdrs = server.cdrs(3);
    for agent in [AGENT, "agent2", "agent3"] {
        assert!(cdrs.iter().any(|c| row(0, Some(agent), 7, 0)(c)), "{agent}: {cdrs:?}");
    }
    server.assert_rest(&["agent2", "agent3"]);
    assert_eq!(server.stop(), 0);
}
