//! Requests that go out: RFC 3261 sections 8.1, 9.1, 13.2, 17.1 and RFC 6026 in call flows, names on their way to
//! addresses, and what the transport reports.

mod common;

use common::{LIFE, SECOND, Side, answer, config, field, first_line, head, peer_addr, tcp, udp};
use strowger_sip::endpoint::{
    ClientTxn, EndpointConfig, Event, FailReason, ListenerInfo, Outgoing, Target, TimerEvent,
};
use strowger_sip::msg::Method;
use strowger_sip::net::{ListenerId, Transport};

fn response(txn: ClientTxn, user: u64) -> Option<Event> {
    Some(Event::Response { txn, user })
}

fn failed(txn: ClientTxn, user: u64, why: FailReason) -> TimerEvent {
    TimerEvent::ClientFailed { txn, user, why }
}

fn by_name(host: &str) -> Target<'_> {
    Target::Host { host: host.as_bytes(), port: 5070, transport: Transport::Udp, listener: ListenerId(0) }
}

/// An INVITE that went out, its transaction and its text.
fn invited(s: &mut Side) -> (ClientTxn, String) {
    let txn = s.send(Method::Invite, 7);
    (txn, s.one())
}

#[test]
fn a_request_is_written_around_the_users_head() {
    let mut s = Side::default();
    let head = head(Method::Invite, 3, "");
    let req = Outgoing {
        method: Method::Invite,
        uri: b"sip:bob@192.0.2.1",
        target: Target::Addr(udp()),
        head: head.as_bytes(),
        content_type: b"application/sdp",
        body: b"v=0\r\n",
        stamp: 42,
        bucket: None,
    };
    s.ep.request(s.now, &req, 1);
    let t = s.ep.poll_transmit().unwrap();
    assert_eq!((t.stamp, t.path), (42, udp()));
    let text = String::from_utf8(s.ep.bytes(&t).to_vec()).unwrap();
    s.ep.sent(t);
    let via = field(&text, "Via").unwrap();
    assert!(via.starts_with("SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKsw0ab-") && via.ends_with(";rport"), "{via}");
    let expected = format!(
        "INVITE sip:bob@192.0.2.1 SIP/2.0\r\nVia: {via}\r\n{head}User-Agent: {}\r\n\
         Content-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n",
        config().user_agent
    );
    assert_eq!(text, expected);
    s.wait(SECOND / 2);
    let t = s.log.pop().unwrap();
    assert_eq!(t.1, text, "the retransmission is the same message");
}

#[test]
fn an_unanswered_invite_is_sent_seven_times_and_fails() {
    let mut s = Side::default();
    let (txn, text) = invited(&mut s);
    assert_eq!(s.wait(LIFE - 1), []);
    assert!(s.log.iter().all(|(_, again)| *again == text));
    assert_eq!(s.sent_ms(), [500, 1500, 3500, 7500, 15500, 31500]);
    assert_eq!(s.wait(1), [failed(txn, 7, FailReason::Timeout)]);
    s.assert_at_rest();
    assert_eq!(s.ep.stats().timeouts, 1);
}

#[test]
fn another_request_is_retransmitted_up_to_t2_and_fails() {
    let mut s = Side::default();
    let txn = s.send(Method::Bye, 7);
    let text = s.one();
    assert_eq!(s.wait(8 * SECOND), []);
    assert_eq!(s.sent_ms(), [500, 1500, 3500, 7500]);
    assert_eq!(s.receive(answer(&text, 183, "")), response(txn, 7));
    assert_eq!(s.wait(LIFE - 8 * SECOND), [failed(txn, 7, FailReason::Timeout)], "timer F runs on");
    assert_eq!(s.sent_ms(), [3500, 7500, 11500, 15500, 19500, 23500]);
    s.assert_at_rest();
}

#[test]
fn a_reliable_transport_does_not_retransmit() {
    let mut s = Side::default();
    for method in [Method::Invite, Method::Bye] {
        let txn = s.send_to(method, Target::Addr(tcp()), 7);
        let text = s.one();
        assert!(text.contains("Via: SIP/2.0/TCP 192.0.2.9:5060;branch="), "{text}");
        assert_eq!(s.wait(LIFE), [failed(txn, 7, FailReason::Timeout)]);
        assert!(s.sent().is_empty());
        let txn = s.send_to(method, Target::Addr(tcp()), 7);
        let text = s.one();
        assert_eq!(s.receive(answer(&text, 486, "b1")), response(txn, 7));
        s.sent();
        s.assert_at_rest();
    }
}

#[test]
fn a_refusal_is_acknowledged_here_each_time_it_comes() {
    let mut s = Side::default();
    let (txn, text) = invited(&mut s);
    let busy = answer(&text, 486, "b1");
    assert_eq!(s.receive(&busy), response(txn, 7));
    let ack = s.one();
    let expected = format!(
        "ACK sip:bob@192.0.2.1 SIP/2.0\r\nVia: {}\r\nMax-Forwards: 70\r\nRoute: <sip:192.0.2.1;lr>\r\n\
         From: <sip:flow@strowger.example>;tag=ours\r\nTo: <sip:bob@example.com>;tag=b1\r\nCall-ID: out1\r\n\
         CSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
        field(&text, "Via").unwrap()
    );
    assert_eq!(ack, expected, "17.1.1.3");
    assert_eq!(s.receive(&busy), None);
    assert_eq!(s.one(), ack);
    assert_eq!(s.receive(answer(&text, 200, "b1")), None, "too late");
    assert_eq!(s.wait(LIFE), [], "timer D");
    s.assert_at_rest();
    assert_eq!(s.receive(&busy), None);
    assert!(s.sent().is_empty());
    assert_eq!(s.ep.stats().stray_responses, 1);
}

#[test]
fn other_answers_end_the_transaction_and_their_copies_are_absorbed() {
    let mut s = Side::default();
    let txn = s.send(Method::Bye, 7);
    let ok = answer(&s.one(), 200, "b1");
    assert_eq!(s.receive(&ok), response(txn, 7));
    assert_eq!(s.ep.counts().buffers, 0, "nothing is sent any more");
    assert_eq!(s.receive(&ok), None);
    assert_eq!(s.wait(5 * SECOND), [], "timer K");
    s.assert_at_rest();
}

#[test]
fn a_retransmitted_2xx_gets_its_ack_again() {
    let mut s = Side::default();
    let (txn, text) = invited(&mut s);
    let ok = answer(&text, 200, "b1");
    assert_eq!(s.receive(&ok), response(txn, 7));
    assert!(s.sent().is_empty(), "the ACK is the user's");
    assert_eq!(s.receive(&ok), None, "the user knows");
    assert!(s.sent().is_empty());
    s.ack(txn, "b1");
    let ack = s.one();
    assert_eq!(first_line(&ack), "ACK sip:bob@192.0.2.1 SIP/2.0");
    assert_ne!(field(&ack, "Via"), field(&text, "Via"), "a branch of its own (13.2.2.4)");
    assert_eq!(s.receive(&ok), None);
    assert_eq!(s.one(), ack);
    assert_eq!(s.wait(LIFE), [], "timer M");
    s.assert_at_rest();
    assert_eq!(s.receive(&ok), None);
    assert_eq!(s.ep.stats().stray_successes, 1);
    s.ack(txn, "b1");
    assert_eq!(s.sent_lines(), ["ACK sip:bob@192.0.2.1 SIP/2.0"], "a late ACK still goes out");
    s.assert_at_rest();
}

#[test]
fn each_fork_of_a_2xx_is_told_once_and_has_its_own_ack() {
    let mut s = Side::default();
    let (txn, text) = invited(&mut s);
    let (one, two) = (answer(&text, 200, "b1"), answer(&text, 200, "b2"));
    assert_eq!(s.receive(&one), response(txn, 7));
    assert_eq!(s.receive(&two), response(txn, 7));
    s.ack(txn, "b2");
    s.ack(txn, "b1");
    s.sent();
    assert_eq!(s.receive(&one), None);
    assert!(s.one().contains(";tag=b1"));
    assert_eq!(s.receive(&two), None);
    assert!(s.one().contains(";tag=b2"));
    for n in 3..30 {
        let told = s.receive(answer(&text, 200, &format!("b{n}"))).is_some();
        assert_eq!(told, n <= 16, "bounded");
    }
    assert_eq!(s.wait(LIFE), []);
    s.assert_at_rest();
}

#[test]
fn answers_that_match_nothing_are_dropped() {
    let mut s = Side::default();
    let (_, text) = invited(&mut s);
    let ringing = answer(&text, 180, "b1");
    let branch = field(&text, "Via").unwrap().split("branch=").nth(1).unwrap().split(';').next().unwrap();
    let forgeries = [
        ringing.replace(branch, "z9hG4bKsw0ab-0000000000000000000"),
        ringing.replace(branch, &branch.replace("sw0ab", "sw0ac")),
        ringing.replace(branch, "z9hG4bK1"),
        ringing.replace("CSeq: 1 INVITE", "CSeq: 1 BYE"),
        ringing.replace("CSeq: 1 INVITE", "CSeq: 1 CANCEL"),
        ringing.replace("Call-ID", "Via: SIP/2.0/UDP 192.0.2.77\r\nCall-ID"),
    ];
    for forged in &forgeries {
        assert_ne!(*forged, ringing);
        assert_eq!(s.receive(forged), None, "{forged}");
    }
    assert_eq!(s.ep.stats().stray_responses, forgeries.len() as u64);
    assert!(s.receive(&ringing).is_some());
}

#[test]
fn a_cancel_waits_for_a_provisional_answer() {
    let mut s = Side::default();
    let (txn, text) = invited(&mut s);
    s.cancel(txn);
    assert!(s.sent().is_empty(), "9.1");
    assert_eq!(s.receive(answer(&text, 100, "")), response(txn, 7));
    let cancel = s.one();
    let expected = format!(
        "CANCEL sip:bob@192.0.2.1 SIP/2.0\r\nVia: {}\r\nMax-Forwards: 70\r\nRoute: <sip:192.0.2.1;lr>\r\n\
         From: <sip:flow@strowger.example>;tag=ours\r\nTo: <sip:bob@example.com>\r\nCall-ID: out1\r\n\
         CSeq: 1 CANCEL\r\nContent-Length: 0\r\n\r\n",
        field(&text, "Via").unwrap()
    );
    assert_eq!(cancel, expected);
    s.cancel(txn);
    assert_eq!(s.receive(answer(&text, 180, "b1")), response(txn, 7));
    assert!(s.sent().is_empty(), "one CANCEL");
    assert_eq!(s.wait(2 * SECOND), []);
    assert_eq!(s.sent_ms(), [500, 1500], "it is a transaction of its own");
    assert_eq!(s.receive(answer(&cancel, 200, "b1")), None);
    assert_eq!(s.receive(answer(&text, 487, "b1")), response(txn, 7));
    assert_eq!(s.sent_lines(), ["ACK sip:bob@192.0.2.1 SIP/2.0"]);
    s.cancel(txn);
    assert_eq!(s.wait(LIFE), []);
    assert!(s.sent().is_empty());
    s.assert_at_rest();
}

#[test]
fn a_final_answer_first_means_no_cancel() {
    let mut s = Side::default();
    for code in [200, 486] {
        let (txn, text) = invited(&mut s);
        s.cancel(txn);
        assert_eq!(s.receive(answer(&text, code, "b1")), response(txn, 7));
        assert!(s.sent().iter().all(|m| !m.starts_with("CANCEL")));
    }
}

#[test]
fn a_2xx_that_crosses_the_cancel_is_told() {
    let mut s = Side::default();
    let (txn, text) = invited(&mut s);
    s.receive(answer(&text, 180, "b1"));
    s.cancel(txn);
    let cancel = s.one();
    assert_eq!(s.receive(answer(&text, 200, "b1")), response(txn, 7));
    s.ack(txn, "b1");
    assert_eq!(s.receive(answer(&cancel, 481, "")), None);
    assert_eq!(s.wait(LIFE), []);
    s.assert_at_rest();
}

#[test]
fn a_cancelled_invite_ends_by_timeout_at_the_latest() {
    let mut s = Side::default();
    let (txn, text) = invited(&mut s);
    s.receive(answer(&text, 180, "b1"));
    assert_eq!(s.wait(10 * LIFE), [], "ringing has no limit here");
    s.cancel(txn);
    assert_eq!(s.wait(LIFE), [failed(txn, 7, FailReason::Timeout)]);
    s.assert_at_rest();
}

#[test]
fn a_cancel_over_tcp_leaves_nothing_behind() {
    let mut s = Side::default();
    let txn = s.send_to(Method::Invite, Target::Addr(tcp()), 7);
    let text = s.one();
    s.receive(answer(&text, 180, "b1"));
    s.cancel(txn);
    assert_eq!(s.receive(answer(&text, 487, "b1")), response(txn, 7));
    s.sent();
    s.assert_at_rest();
}

#[test]
fn a_dropped_user_hears_nothing_and_its_invite_is_cancelled() {
    let mut s = Side::default();
    let (txn, text) = invited(&mut s);
    s.receive(answer(&text, 180, "b1"));
    s.ep.drop_user(s.now, txn);
    s.drain();
    assert_eq!(s.sent_lines(), ["CANCEL sip:bob@192.0.2.1 SIP/2.0"]);
    assert_eq!(s.receive(answer(&text, 183, "b1")), None);
    assert_eq!(s.wait(LIFE), []);
    s.sent();
    s.assert_at_rest();
    let txn = s.send(Method::Bye, 7);
    s.ep.drop_user(s.now, txn);
    let text = s.one();
    assert_eq!(s.receive(answer(&text, 200, "b1")), None);
}

#[test]
fn stale_handles_are_harmless() {
    let mut s = Side::default();
    let (old, text) = invited(&mut s);
    s.wait(LIFE);
    s.sent();
    let (new, _) = invited(&mut s);
    assert_ne!(old, new);
    s.cancel(old);
    s.ep.drop_user(s.now, old);
    assert_eq!(s.receive(answer(&text, 180, "b1")), None);
    assert_eq!(s.wait(LIFE), [failed(new, 7, FailReason::Timeout)]);
}

#[test]
fn a_failed_send_ends_the_transaction_at_once() {
    let mut s = Side::default();
    for method in [Method::Invite, Method::Info] {
        let head = head(method, 1, "");
        let req = Outgoing {
            method,
            uri: b"sip:x",
            target: Target::Addr(udp()),
            head: head.as_bytes(),
            content_type: b"",
            body: b"",
            stamp: 0,
            bucket: None,
        };
        let txn = s.ep.request(s.now, &req, 5);
        let t = s.ep.poll_transmit().unwrap();
        s.ep.send_failed(s.now, t);
        assert_eq!(s.ep.next_due(), Some(strowger_sip::time::Mono(0)), "at once");
        assert_eq!(s.wait(0), [failed(txn, 5, FailReason::Transport)]);
        s.assert_at_rest();
    }
    let txn = s.send_to(Method::Invite, Target::Addr(tcp()), 7);
    s.ep.path_lost(s.now, tcp());
    assert_eq!(s.wait(0), [failed(txn, 7, FailReason::Transport)]);
    let nowhere = Target::Host { host: b"192.0.2.1", port: 1, transport: Transport::Udp, listener: ListenerId(9) };
    let txn = s.send_to(Method::Invite, nowhere, 7);
    assert_eq!(s.wait(0), [failed(txn, 7, FailReason::Transport)], "no such listener");
    s.sent();
    s.assert_at_rest();
}

#[test]
fn ip_literals_never_become_questions() {
    let mut s = Side::default();
    for (host, addr) in [("192.0.2.1", "192.0.2.1:5070"), ("2001:db8::1", "[2001:db8::1]:5070")] {
        s.send_to(Method::Bye, by_name(host), 7);
        assert_eq!(s.paths[0].remote.to_string(), addr);
        s.sent();
    }
    assert_eq!(s.ep.poll_resolve(), None);
}

#[test]
fn requests_wait_for_the_address_of_their_host() {
    let mut s = Side::default();
    let one = s.send_to(Method::Invite, by_name("Media.Example"), 1);
    let two = s.send_to(Method::Bye, by_name("media.example"), 2);
    assert!(s.sent().is_empty());
    let question = s.ep.poll_resolve().unwrap();
    assert_eq!((question.host.as_str(), s.ep.poll_resolve()), ("media.example", None));
    let addresses = ["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
    s.ep.resolved(s.now, question.id, Ok(&addresses), 10 * SECOND);
    s.drain();
    assert!(s.paths.iter().all(|p| p.remote.to_string() == "192.0.2.1:5070"), "the listener's family");
    assert_eq!(s.sent_lines(), ["INVITE sip:bob@192.0.2.1 SIP/2.0", "BYE sip:bob@192.0.2.1 SIP/2.0"]);
    assert_eq!(s.wait(9 * SECOND), []);
    s.sent();
    s.send_to(Method::Bye, by_name("media.example"), 3);
    assert_eq!(s.sent().len(), 1, "from the cache");
    assert_eq!(s.wait(LIFE)[..2], [failed(one, 1, FailReason::Timeout), failed(two, 2, FailReason::Timeout)]);
    s.sent();
    s.send_to(Method::Bye, by_name("media.example"), 4);
    assert!(s.sent().is_empty() && s.ep.poll_resolve().is_some(), "the answer has expired");
}

#[test]
fn a_host_without_address_fails_and_is_remembered() {
    let mut s = Side::default();
    let txn = s.send_to(Method::Invite, by_name("no.example"), 1);
    let id = s.ep.poll_resolve().unwrap().id;
    s.ep.resolved(s.now, id, Err(()), 0);
    assert_eq!(s.wait(0), [failed(txn, 1, FailReason::Unresolvable)]);
    let txn = s.send_to(Method::Invite, by_name("no.example"), 2);
    assert_eq!(s.wait(0), [failed(txn, 2, FailReason::Unresolvable)]);
    assert_eq!(s.ep.poll_resolve(), None);
    s.wait(3 * SECOND);
    s.send_to(Method::Invite, by_name("no.example"), 3);
    assert!(s.ep.poll_resolve().is_some());
    let empty = s.send_to(Method::Invite, by_name(""), 4);
    assert_eq!(s.wait(0), [failed(empty, 4, FailReason::Unresolvable)]);
}

#[test]
fn a_question_without_answer_times_out() {
    let mut s = Side::default();
    let txn = s.send_to(Method::Invite, by_name("slow.example"), 1);
    let id = s.ep.poll_resolve().unwrap().id;
    assert_eq!(s.wait(config().resolve_timeout_us), [failed(txn, 1, FailReason::Unresolvable)]);
    s.assert_at_rest();
    s.ep.resolved(s.now, id, Ok(&[peer_addr().ip()]), SECOND);
    assert!(s.sent().is_empty());
}

#[test]
fn what_waits_for_an_address_is_cancelled_at_once() {
    let mut s = Side::default();
    let txn = s.send_to(Method::Invite, by_name("slow.example"), 1);
    s.cancel(txn);
    assert_eq!(s.wait(0), [failed(txn, 1, FailReason::Cancelled)]);
    let id = s.ep.poll_resolve().unwrap().id;
    s.ep.resolved(s.now, id, Ok(&[peer_addr().ip()]), SECOND);
    s.drain();
    assert!(s.sent().is_empty());
    s.assert_at_rest();
}

#[test]
fn a_request_that_nobody_follows_is_still_sent_when_its_host_is_known() {
    let mut s = Side::default();
    let txn = s.send_to(Method::Bye, by_name("slow.example"), 1);
    s.ep.drop_user(s.now, txn);
    let id = s.ep.poll_resolve().unwrap().id;
    s.ep.resolved(s.now, id, Ok(&[peer_addr().ip()]), SECOND);
    s.drain();
    assert_eq!(s.sent_lines(), ["BYE sip:bob@192.0.2.1 SIP/2.0"]);
    assert_eq!(s.wait(LIFE), []);
    s.assert_at_rest();
}

#[test]
fn an_ack_waits_for_the_address_of_its_host_too() {
    let mut s = Side::default();
    let (txn, text) = invited(&mut s);
    let ok = answer(&text, 200, "b1");
    s.receive(&ok);
    let head = head(Method::Ack, 1, "b1");
    let req = Outgoing {
        method: Method::Ack,
        uri: b"sip:bob@edge.example",
        target: by_name("edge.example"),
        head: head.as_bytes(),
        content_type: b"",
        body: b"",
        stamp: 0,
        bucket: None,
    };
    s.ep.ack_2xx(s.now, txn, &req);
    let id = s.ep.poll_resolve().unwrap().id;
    assert_eq!(s.receive(&ok), None);
    assert!(s.sent().is_empty());
    s.ep.resolved(s.now, id, Ok(&[peer_addr().ip()]), SECOND);
    s.drain();
    assert_eq!(s.paths[0].remote.to_string(), "192.0.2.1:5070");
    let ack = s.one();
    s.receive(&ok);
    assert_eq!(s.one(), ack);
    s.ep.ack_2xx(s.now, txn, &Outgoing { target: by_name("lost.example"), ..req });
    s.ep.ack_2xx(s.now, txn, &Outgoing { target: by_name(""), ..req });
    assert_eq!(s.wait(LIFE), []);
    s.assert_at_rest();
}

#[test]
fn an_ipv6_listener_takes_ipv6_addresses() {
    let via = ListenerInfo { transport: Transport::Udp, via: "[2001:db8::9]:5060".into(), contact_host: String::new() };
    let mut s = Side::new(EndpointConfig { listeners: vec![via], ..config() });
    s.send_to(Method::Bye, by_name("media.example"), 2);
    let id = s.ep.poll_resolve().unwrap().id;
    s.ep.resolved(s.now, id, Ok(&["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]), SECOND);
    s.drain();
    assert_eq!(s.paths[0].remote.to_string(), "[2001:db8::1]:5070");
    assert!(s.one().contains("Via: SIP/2.0/UDP [2001:db8::9]:5060;branch="));
}

#[test]
fn user_timers_fire_and_stop() {
    let mut s = Side::default();
    s.ep.start_timer(s.now.plus_us(1234), 11, 3);
    let stopped = s.ep.start_timer(s.now.plus_us(1234), 12, 3);
    assert!(s.ep.stop_timer(stopped));
    assert!(!s.ep.stop_timer(stopped));
    assert_eq!(s.wait(1233), []);
    assert_eq!(s.wait(1), [TimerEvent::User { token: 11, kind: 3 }]);
    s.assert_at_rest();
}
