//! Requests that come in: each rule of RFC 3261 sections 8.2, 9.2, 13.3, 17.2 and RFC 6026 in a call flow.

mod common;

use common::{LIFE, Req, SECOND, Side, config, field, first_line, tcp, udp};
use strowger_sip::endpoint::{EndpointConfig, Event, TimerEvent};
use strowger_sip::msg::{Method, Reply};
use strowger_sip::net::{ListenerId, Path};

#[test]
fn an_invite_gets_100_at_once_and_its_retransmissions_the_latest_provisional() {
    let mut s = Side::default();
    let txn = s.request(Req::invite());
    assert_eq!(s.sent_lines(), ["SIP/2.0 100 Trying"]);
    assert_eq!(s.receive(Req::invite()), None);
    assert_eq!(s.sent_lines(), ["SIP/2.0 100 Trying"]);
    s.respond(txn, 100);
    assert!(s.sent().is_empty(), "a second 100 is suppressed");
    s.respond(txn, 180);
    let ringing = s.one();
    assert_eq!(first_line(&ringing), "SIP/2.0 180 Ringing");
    assert_eq!(s.receive(Req::invite()), None);
    assert_eq!(s.one(), ringing);
    s.respond(txn, 100);
    assert!(s.sent().is_empty());
    assert_eq!(s.ep.stats().retransmissions_in, 2);
}

#[test]
fn without_auto_trying_an_unanswered_invite_is_only_absorbed() {
    let mut s = Side::new(EndpointConfig { auto_trying: false, ..config() });
    s.request(Req::invite());
    assert_eq!(s.receive(Req::invite()), None);
    assert!(s.sent().is_empty());
}

#[test]
fn a_2xx_is_retransmitted_until_acked() {
    let mut s = Side::default();
    let txn = s.request(Req::invite());
    s.sent();
    s.respond(txn, 200);
    let ok = s.one();
    assert_eq!(s.wait(8 * SECOND), []);
    assert!(s.log.iter().all(|(_, text)| *text == ok));
    assert_eq!(s.sent_ms(), [500, 1500, 3500, 7500], "T1, 2*T1, then T2 (13.3.1.4)");
    assert_eq!(s.receive(Req::invite()), None);
    assert!(s.sent().is_empty(), "a late INVITE is absorbed (RFC 6026)");
    let ack = Req::new("ACK", "z9hG4bKother").tagged("ours");
    assert_eq!(s.receive(&ack), Some(Event::Ack));
    let before = s.ep.counts().buffers;
    s.ep.acked(txn);
    assert_eq!(s.ep.counts().buffers, before, "the answer is let go, the identity stays");
    assert_eq!(s.wait(10 * SECOND), []);
    assert_eq!(s.receive(Req::invite()), None);
    assert_eq!(s.receive(&ack), Some(Event::Ack), "again: the TU ignores it");
    s.ep.acked(txn);
    assert!(s.sent().is_empty());
    assert_eq!(s.wait(LIFE), []);
    s.assert_at_rest();
}

#[test]
fn a_2xx_that_nobody_acks_is_reported() {
    let mut s = Side::default();
    let txn = s.request_on(tcp(), Req::invite());
    s.ep.set_user(txn, 9);
    s.respond(txn, 200);
    s.sent();
    assert_eq!(s.wait(LIFE - 1), []);
    assert_eq!(s.sent_ms(), [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500], "on TCP too");
    assert_eq!(s.wait(1), [TimerEvent::NoAck { txn, user: 9 }]);
    s.assert_at_rest();
}

#[test]
fn a_refusal_is_retransmitted_until_its_ack_which_ends_here() {
    let mut s = Side::default();
    let txn = s.request(Req::invite());
    s.sent();
    s.respond(txn, 486);
    let busy = s.one();
    assert_eq!(field(&busy, "To"), Some("<sip:flow@strowger.example>;tag=ours"));
    assert_eq!(s.wait(4 * SECOND), []);
    assert_eq!(s.sent_ms(), [500, 1500, 3500]);
    assert_eq!(s.receive(Req::invite()), None);
    assert_eq!(s.one(), busy, "the answer to each retransmission");
    assert_eq!(s.receive(Req::invite().same("ACK").tagged("ours")), None);
    assert_eq!(s.receive(Req::invite()), None, "Confirmed absorbs");
    assert!(s.sent().is_empty());
    assert_eq!(s.wait(5 * SECOND), [], "timer I");
    assert!(s.sent().is_empty());
    s.assert_at_rest();
}

#[test]
fn a_refusal_without_ack_ends_by_timer_h() {
    let mut s = Side::default();
    let txn = s.request(Req::invite());
    s.respond(txn, 486);
    assert_eq!(s.wait(LIFE), []);
    s.assert_at_rest();
}

#[test]
fn a_reliable_transport_needs_no_timers_g_i_j() {
    let mut s = Side::default();
    let txn = s.request_on(tcp(), Req::invite());
    s.sent();
    s.respond(txn, 486);
    assert_eq!(s.wait(10 * SECOND), []);
    assert_eq!(s.sent_ms().len(), 1, "no timer G");
    s.receive_on(tcp(), Req::invite().same("ACK").tagged("ours"));
    s.assert_at_rest();
    let txn = s.request_on(tcp(), Req::new("BYE", "z9hG4bK2").tagged("ours"));
    s.respond(txn, 200);
    assert_eq!(s.one().lines().next(), Some("SIP/2.0 200 OK"));
    s.assert_at_rest();
}

#[test]
fn one_final_answer_only() {
    let mut s = Side::default();
    let txn = s.request(Req::invite());
    s.respond(txn, 486);
    s.sent();
    s.respond(txn, 200);
    s.respond(txn, 180);
    assert!(s.sent().is_empty());
    let bye = s.request(Req::new("BYE", "z9hG4bK2").tagged("ours"));
    s.respond(bye, 481);
    s.respond(bye, 200);
    assert_eq!(s.sent_lines(), ["SIP/2.0 481 Call/Transaction Does Not Exist"]);
}

#[test]
fn other_requests_are_absorbed_then_answered_from_memory() {
    let mut s = Side::default();
    let bye = Req::new("BYE", "z9hG4bK2").tagged("ours");
    let txn = s.request(&bye);
    assert_eq!(s.receive(&bye), None);
    assert!(s.sent().is_empty(), "Trying absorbs");
    s.respond(txn, 200);
    let ok = s.one();
    assert_eq!(s.receive(&bye), None);
    assert_eq!(s.one(), ok);
    assert_eq!(s.wait(LIFE), [], "timer J");
    s.assert_at_rest();
    s.request(&bye);
}

#[test]
fn what_the_user_leaves_unanswered_ends_with_its_client() {
    let mut s = Side::default();
    let txn = s.request(Req::new("INFO", "z9hG4bK2").tagged("ours"));
    assert_eq!(s.wait(LIFE + config().t4_us), [], "RFC 4320: no late answer");
    s.respond(txn, 200);
    assert!(s.sent().is_empty());
    assert_eq!(s.ep.stats().unanswered, 1);
    s.assert_at_rest();
}

#[test]
fn a_cancel_is_answered_and_told_once() {
    let mut s = Side::default();
    let txn = s.request(Req::invite());
    s.ep.set_user(txn, 77);
    s.respond(txn, 180);
    s.sent();
    let cancel = Req::invite().same("CANCEL");
    assert_eq!(s.receive(&cancel), Some(Event::Cancel { invite: txn, user: 77 }));
    let ok = s.one();
    assert_eq!(first_line(&ok), "SIP/2.0 200 OK");
    assert_eq!(field(&ok, "CSeq"), Some("1 CANCEL"));
    assert_eq!(field(&ok, "To"), Some("<sip:flow@strowger.example>;tag=ours"), "the INVITE's tag (9.2)");
    assert_eq!(s.receive(&cancel), None, "a retransmission");
    assert_eq!(s.one(), ok);
    s.respond(txn, 487);
    assert_eq!(s.sent_lines(), ["SIP/2.0 487 Request Terminated"]);
    assert_eq!(s.receive(&cancel), None);
    assert_eq!(s.one(), ok);
}

#[test]
fn a_cancel_before_any_tag_carries_the_tag_of_the_487() {
    let mut s = Side::default();
    let txn = s.request(Req::invite());
    s.sent();
    s.receive(Req::invite().same("CANCEL"));
    let ok = s.one();
    s.ep.respond(s.now, txn, &Reply { code: 487, ..Reply::default() });
    s.drain();
    assert_eq!(field(&s.one(), "To"), field(&ok, "To"));
}

#[test]
fn a_cancel_after_the_final_answer_changes_nothing() {
    let mut s = Side::default();
    let txn = s.request(Req::invite());
    s.respond(txn, 200);
    s.sent();
    assert_eq!(s.receive(Req::invite().same("CANCEL")), None);
    assert_eq!(s.sent_lines(), ["SIP/2.0 200 OK"]);
}

#[test]
fn a_cancel_of_nothing_gets_481() {
    let mut s = Side::default();
    assert_eq!(s.receive(Req::invite().same("CANCEL")), None);
    assert_eq!(s.sent_lines(), ["SIP/2.0 481 Call/Transaction Does Not Exist"]);
    s.assert_at_rest();
}

#[test]
fn a_merged_request_gets_482_while_the_first_lives() {
    let mut s = Side::default();
    let txn = s.request(Req::invite());
    s.sent();
    let merged = Req { branch: "z9hG4bKpath2".into(), ..Req::invite() };
    assert_eq!(s.receive(&merged), None);
    let refused = s.one();
    assert_eq!(first_line(&refused), "SIP/2.0 482 Loop Detected");
    assert_eq!(s.receive(&merged), None);
    assert_eq!(s.one(), refused, "the same answer, its tag too (8.2.7)");
    assert_eq!(
        s.receive(merged.same("ACK").tagged(field(&refused, "To").unwrap().split("tag=").nth(1).unwrap())),
        None
    );
    let next = Req { cseq: 2, branch: "z9hG4bKnext".into(), ..Req::invite() };
    s.request(&next);
    s.respond(txn, 486);
    s.wait(LIFE);
    s.request(&merged);
}

#[test]
fn a_request_inside_a_dialog_is_never_merged() {
    let mut s = Side::default();
    s.request(Req::invite().tagged("ours"));
    s.request(Req { branch: "z9hG4bK2".into(), ..Req::invite() }.tagged("ours"));
}

#[test]
fn methods_that_are_not_allowed_get_405_and_unknown_ones_501() {
    let mut s = Side::default();
    let (known, unknown) = ("SIP/2.0 405 Method Not Allowed", "SIP/2.0 501 Not Implemented");
    for (method, answer) in [("REGISTER", known), ("PUBLISH", known), ("FROBNICATE", unknown), ("invite", unknown)] {
        assert_eq!(s.receive(Req::new(method, "z9hG4bK1")), None);
        let text = s.one();
        assert_eq!(first_line(&text), answer, "{method}");
        assert!(field(&text, "Allow").unwrap().starts_with("INVITE, ACK, CANCEL, BYE, OPTIONS"));
    }
    assert_eq!(s.ep.stats().refused, 4);
    s.assert_at_rest();
}

/// RFC 5118 section 4.2.
#[test]
fn what_cannot_be_read_gets_400_whatever_its_method() {
    let mut s = Side::default();
    for req in [
        Req { uri: "sip:2001:db8::10", ..Req::new("REGISTER", "z9hG4bK1") },
        Req::new("REGISTER", "z9hG4bK1").line("Contact: sip:user@example.com?Route=%3Csip:sip.example.com%3E"),
        Req { uri: "sip:2001:db8::10", ..Req::new("FROBNICATE", "z9hG4bK1") },
    ] {
        assert_eq!(s.receive(req), None);
        assert!(first_line(&s.one()).starts_with("SIP/2.0 400 "));
    }
    assert_eq!(s.receive(Req { uri: "isbn:2983792873", ..Req::new("REGISTER", "z9hG4bK1") }), None);
    assert_eq!(s.sent_lines(), ["SIP/2.0 405 Method Not Allowed"]);
}

#[test]
fn an_unknown_uri_scheme_gets_416() {
    let mut s = Side::default();
    assert_eq!(s.receive(Req { uri: "nobodyKnowsThisScheme:totallyopaquecontent", ..Req::invite() }), None);
    assert_eq!(s.sent_lines(), ["SIP/2.0 416 Unsupported URI Scheme"]);
    s.request(Req { uri: "tel:+15551234", ..Req::invite() });
}

#[test]
fn unknown_extensions_get_420() {
    let mut s = Side::new(EndpointConfig { supported: vec!["timer".into()], ..config() });
    let req = Req::invite().line("Require: timer, nothingSupports1").line("Require: nothingSupports2");
    assert_eq!(s.receive(&req), None);
    let text = s.one();
    assert_eq!(first_line(&text), "SIP/2.0 420 Bad Extension");
    assert_eq!(field(&text, "Unsupported"), Some("nothingSupports1, nothingSupports2"));
    assert_eq!(s.receive(req.same("CANCEL")), None, "Require in a CANCEL is ignored (8.2.2.3)");
    assert_eq!(s.sent_lines(), ["SIP/2.0 481 Call/Transaction Does Not Exist"]);
    assert_eq!(s.receive(req.same("ACK").tagged("ours")), Some(Event::Ack));
    s.request(Req::invite().line("Require: TIMER").line("Proxy-Require: foo"));
}

#[test]
fn bodies_that_nobody_understands_get_415_outside_a_dialog() {
    let mut s = Side::default();
    let text_body = || Req { body: "hello", ..Req::invite() };
    assert_eq!(s.receive(text_body().line("Content-Type: text/plain")), None);
    let text = s.one();
    assert_eq!(first_line(&text), "SIP/2.0 415 Unsupported Media Type");
    assert_eq!(field(&text, "Accept"), Some("application/sdp, multipart/mixed"));
    let zipped = text_body().line("Content-Type: application/sdp").line("Content-Encoding: gzip");
    assert_eq!(s.receive(zipped), None);
    let text = s.one();
    assert_eq!(first_line(&text), "SIP/2.0 415 Unsupported Media Type");
    assert_eq!(field(&text, "Accept-Encoding"), Some("identity"));
    let optional = |n| Req { call_id: format!("c{n}"), branch: format!("z9hG4bK{n}"), ..text_body() };
    s.request(optional(1).line("Content-Type: text/plain").line("Content-Disposition: render;handling=optional"));
    s.request(optional(2).line("Content-Type: Application/SDP;x=y"));
    s.request(optional(3).line("Content-Type: multipart/mixed;boundary=b"));
    s.request(Req { method: "INFO", ..optional(4) }.line("Content-Type: application/dtmf-relay").tagged("ours"));
}

#[test]
fn max_forwards_zero_gets_483_where_it_would_go_on() {
    let mut s = Side::default();
    let zero = |method, branch| Req { extra: "Max-Forwards: 0\r\n".into(), ..Req::new(method, branch) };
    assert_eq!(s.receive(zero("INVITE", "z9hG4bK1")), None);
    assert_eq!(s.sent_lines(), ["SIP/2.0 483 Too Many Hops"]);
    assert_eq!(s.receive(zero("OPTIONS", "z9hG4bK2")), None);
    assert_eq!(s.sent_lines(), ["SIP/2.0 200 OK"], "the one where it ends answers (16.3)");
    s.request(zero("BYE", "z9hG4bK3").tagged("ours"));
}

#[test]
fn options_outside_a_dialog_is_answered_without_state() {
    let mut s = Side::default();
    let options = Req::new("OPTIONS", "z9hG4bK1");
    assert_eq!(s.receive(&options), None);
    let ok = s.one();
    assert_eq!(first_line(&ok), "SIP/2.0 200 OK");
    for name in ["Allow", "Accept", "Supported", "Server"] {
        assert!(field(&ok, name).is_some(), "{name} in {ok}");
    }
    assert_eq!(s.receive(&options), None);
    assert_eq!(s.one(), ok);
    assert_eq!(s.ep.stats().options, 2);
    s.assert_at_rest();
    s.request(options.tagged("ours"));
}

#[test]
fn malformed_requests_get_their_status_and_responses_and_acks_nothing() {
    let mut s = Side::default();
    let cases = [
        (Req::invite().to_string().replace("SIP/2.0\r\n", "SIP/7.0\r\n"), "SIP/2.0 505 Version Not Supported"),
        (Req::invite().to_string().replace("CSeq: 1", "CSeq: x"), "SIP/2.0 400 Bad CSeq"),
        (
            Req::invite().to_string().replace("Content-Length: 0", "Content-Length: 99"),
            "SIP/2.0 400 Bad Content-Length",
        ),
        (Req { uri: "sip:@x", ..Req::invite() }.to_string(), "SIP/2.0 400 Bad Request-URI"),
        (Req::invite().line("Route: <sip:x").to_string(), "SIP/2.0 400 Bad Route"),
        (Req::invite().tagged("x").to_string().replace(";tag=x", ";tag="), "SIP/2.0 400 Bad To"),
        (Req::invite().to_string().replace("Via: SIP/2.0/UDP", "Via: SIP/2.0"), "SIP/2.0 400 Bad Via"),
    ];
    for (text, expected) in cases {
        assert_eq!(s.receive(&text), None);
        assert_eq!(s.sent_lines(), [expected], "{text}");
    }
    let silent = [
        Req::invite().same("ACK").to_string().replace("CSeq: 1", "CSeq: x"),
        Req::invite().same("ACK").to_string().replace("Via: SIP/2.0/UDP", "Via: SIP/2.0"),
        Req::invite().to_string().replace("Via:", "X-Via:"),
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP x\r\n\r\n".to_owned(),
        "garbage\r\n\r\n".to_owned(),
        "\r\n\r\n".to_owned(),
    ];
    for text in silent {
        assert_eq!(s.receive(&text), None);
        assert!(s.sent().is_empty(), "{text}");
    }
    s.assert_at_rest();
}

#[test]
fn above_max_transactions_new_requests_get_503() {
    let mut s = Side::new(EndpointConfig { max_transactions: 2, ..config() });
    let nth = |n: u32| Req { branch: format!("z9hG4bK{n}"), call_id: format!("c{n}"), ..Req::invite() };
    let txn = s.request(nth(1));
    s.request(nth(2));
    s.sent();
    assert_eq!(s.receive(nth(3)), None);
    let text = s.one();
    assert_eq!(first_line(&text), "SIP/2.0 503 Service Unavailable");
    let after: u32 = field(&text, "Retry-After").unwrap().parse().unwrap();
    assert!((5..15).contains(&after));
    assert_eq!(s.receive(nth(1)), None, "what is here goes on");
    assert_eq!(s.sent_lines(), ["SIP/2.0 100 Trying"]);
    assert_eq!(s.ep.stats().refused_full, 1);
    s.respond(txn, 486);
    s.wait(LIFE);
    s.request(nth(3));
}

#[test]
fn acks_of_nothing_are_absorbed() {
    let mut s = Side::default();
    assert_eq!(s.receive(Req::new("ACK", "z9hG4bKx")), None, "no tag, no dialog");
    assert_eq!(s.receive(Req::new("ACK", "z9hG4bKx").tagged("ours")), Some(Event::Ack));
    assert_eq!(s.ep.stats().stray_acks, 1);
    assert!(s.sent().is_empty());
}

#[test]
fn peers_of_rfc_2543_are_matched_by_what_they_repeat() {
    let mut s = Side::default();
    for branch in ["1", "z9hG4bK"] {
        let invite = Req { branch: branch.into(), call_id: format!("old{branch}"), ..Req::invite() };
        let txn = s.request(&invite);
        s.sent();
        assert_eq!(s.receive(&invite), None);
        assert_eq!(s.sent_lines(), ["SIP/2.0 100 Trying"]);
        let other = Req { call_id: format!("other{branch}"), ..invite.clone() };
        s.request(&other);
        assert_eq!(s.receive(invite.same("CANCEL")), Some(Event::Cancel { invite: txn, user: 0 }));
        s.respond(txn, 487);
        assert_eq!(s.receive(invite.same("ACK").tagged("ours")), None);
        s.sent();
        assert_eq!(s.wait(SECOND), [], "the ACK was understood");
        assert!(s.sent().is_empty());
    }
}

#[test]
fn sent_by_and_method_tell_transactions_apart() {
    let mut s = Side::default();
    let invite = Req::invite().tagged("ours");
    s.request(&invite);
    s.request(invite.to_string().replace("UDP 192.0.2.1:5060", "UDP 192.0.2.2:5060"));
    s.request(invite.to_string().replace("UDP 192.0.2.1:5060", "UDP 192.0.2.1:5062"));
    s.request(Req { cseq: 2, ..invite.same("INFO") });
    assert_eq!(s.ep.counts().server_invites, 3);
    assert_eq!(s.receive(invite.to_string().replace("UDP 192.0.2.1", "UDP 192.0.2.1 ")), None);
}

#[test]
fn answers_go_where_the_via_says() {
    let nat = Path::udp("198.51.100.7:40000".parse().unwrap(), ListenerId(0));
    let mut s = Side::default();
    s.request_on(nat, Req::invite());
    assert_eq!(s.paths, [nat], "rport: the source");
    let text = s.one();
    assert!(text.contains(";rport=40000") && text.contains(";received=198.51.100.7"), "{text}");
    let plain = Req { branch: "z9hG4bK2".into(), call_id: "c2".into(), ..Req::invite() };
    s.request_on(nat, plain.to_string().replace(";rport", ""));
    assert_eq!(s.paths[0].remote.to_string(), "198.51.100.7:5060", "no rport: the port of sent-by");
    s.sent();
    s.request_on(tcp(), Req { branch: "z9hG4bK3".into(), call_id: "c3".into(), ..Req::invite() });
    assert_eq!(s.paths, [tcp()], "the connection (18.2.2)");
}

#[test]
fn a_lost_connection_ends_its_transactions() {
    let mut s = Side::default();
    let txn = s.request_on(tcp(), Req::invite());
    s.ep.set_user(txn, 3);
    s.request_on(udp(), Req { branch: "z9hG4bK2".into(), call_id: "c2".into(), ..Req::invite() });
    s.ep.path_lost(s.now, tcp());
    assert_eq!(s.wait(0), [TimerEvent::ServerGone { txn, user: 3 }]);
    assert_eq!(s.ep.counts().server_invites, 1);
    s.respond(txn, 200);
    assert_eq!(s.sent_lines(), ["SIP/2.0 100 Trying"; 2], "a stale handle is harmless");
}

#[test]
fn a_failed_send_of_an_answer_ends_an_open_transaction() {
    let mut s = Side::default();
    let txn = s.request(Req::new("INFO", "z9hG4bK1").tagged("ours"));
    s.ep.respond(s.now, txn, &Reply { code: 183, ..Reply::default() });
    let t = s.ep.poll_transmit().unwrap();
    s.ep.send_failed(s.now, t);
    assert_eq!(s.wait(0), [TimerEvent::ServerGone { txn, user: 0 }]);
    s.assert_at_rest();
}

#[test]
fn long_identifiers_are_kept_and_absurd_ones_refused() {
    let mut s = Side::default();
    s.request(Req { call_id: "x".repeat(1500), ..Req::invite() });
    s.sent();
    assert_eq!(s.receive(Req { call_id: "x".repeat(5000), branch: "z9hG4bK2".into(), ..Req::invite() }), None);
    assert_eq!(s.sent_lines(), ["SIP/2.0 400 Identifiers Too Long"]);
}

#[test]
fn each_method_with_allow_all_reaches_the_tu() {
    let mut s = Side::new(EndpointConfig { allow: vec![Method::Invite, Method::Register], ..config() });
    s.request(Req::new("REGISTER", "z9hG4bK1"));
}
