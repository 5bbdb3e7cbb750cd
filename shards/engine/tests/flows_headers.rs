//! What the messages say: origin lines, display names, headers that pass and headers that must not.

mod ladder;

use ladder::{Got, Scene};
use strowger_sip::msg::Name;

/// Session id and version of the origin line.
fn origin(got: &Got) -> (String, u64) {
    let line = got.sdp('o');
    let mut words = line.split(' ').skip(1);
    (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap())
}

fn without_origin(body: &str) -> String {
    body.lines().filter(|l| !l.starts_with("o=")).collect::<Vec<_>>().join("\r\n")
}

#[test]
fn each_leg_has_one_session_id_whose_version_rises_exactly_with_the_description() {
    let mut s = Scene::nobody();
    s.call();
    let to_media = s.media_answers();
    assert_eq!(without_origin(&to_media.body()), without_origin(&s.caller.sdp()), "all else as it came");
    assert!(to_media.sdp('o').ends_with(" IN IP4 10.0.0.1"));
    let ok = s.caller_acks();
    let (id, first) = origin(&ok);
    assert_eq!(without_origin(&ok.body()), without_origin(&s.media.sdp()));
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    let offer = s.caller_moves();
    assert_eq!(origin(&offer), (id.clone(), first + 1), "from music to agent: the same session, another description");
    s.media_bye();
    assert_ne!(origin(&invite).0, origin(&to_media).0, "another leg");
    // A refresh answered here says the same again.
    let sdp = s.caller.sdp();
    s.caller.send(&mut s.bench, "INVITE", &sdp);
    s.caller.expect(&mut s.bench, "100");
    let again = s.caller_acks();
    assert_eq!(again.body(), offer.body());
    // The agent's hold does not.
    s.ann.send(&mut s.bench, "UPDATE", &format!("{}a=sendonly\r\n", s.ann.sdp()));
    let update = s.caller.expect(&mut s.bench, "UPDATE");
    assert_eq!(origin(&update), (id.clone(), first + 2));
    s.caller.answer(&mut s.bench, &update, 200, &sdp);
    let answer = s.ann.expect(&mut s.bench, "200");
    assert_eq!(origin(&answer), origin(&invite), "the caller's description is what Ann has already");
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn the_prefix_goes_before_the_callers_name() {
    for (prefix, want) in [
        (None, "\"caller Caller\" <sip:caller@example.com>"),
        (Some("VIP"), "\"VIP caller Caller\" <sip:caller@example.com>"),
        (Some("a \"b\" \\c"), "\"a \\\"b\\\" \\\\c caller Caller\" <sip:caller@example.com>"),
    ] {
        for straight in [true, false] {
            let mut s = Scene::with(|_, flows, agents| {
                flows[0].prependcid = prefix.map(str::to_owned);
                agents[0].logstate = Some(i64::from(straight));
            });
            s.call();
            if !straight {
                let music = s.media_answers();
                assert!(
                    music.header(Name::From).starts_with("\"caller Caller\" <sip:caller@example.com>;tag="),
                    "music gets no prefix"
                );
                s.caller_acks();
                s.bench.login("ann", true);
            }
            let invite = s.ann_rings();
            assert_eq!(invite.header(Name::From).rsplit_once(";tag=").unwrap().0, want);
            if straight {
                s.caller.expect(&mut s.bench, "180");
                s.ann_answers(&invite);
                s.caller_acks();
            } else {
                s.ann_answers(&invite);
                s.caller_moves();
                s.media_bye();
            }
            s.caller_hangs_up_on_ann();
            s.assert_rest();
        }
    }
}

#[test]
fn without_a_name_the_callers_user_stands_behind_the_prefix() {
    let mut s = Scene::with(|_, flows, _| flows[0].prependcid = Some("VIP".into()));
    let addr = s.caller.addr;
    let send = |method: &str, s: &mut Scene| {
        let text = format!(
            "{method} sip:sales@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {addr};branch=z9hG4bKnameless\r\nMax-Forwards: 70\r\n\
             From: <sip:c%61rl@example.com>;tag=1\r\nTo: <sip:sales@10.0.0.1>\r\nCall-ID: nameless\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:carl@{addr}>\r\nContent-Length: 0\r\n\r\n"
        );
        s.bench.datagram(addr, text.as_bytes());
    };
    send("INVITE", &mut s);
    let invite = s.ann_rings();
    let from = invite.header(Name::From);
    assert_eq!(from.rsplit_once(";tag=").unwrap().0, "\"VIP carl\" <sip:c%61rl@example.com>");
    send("CANCEL", &mut s);
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, &invite, 487, "");
    s.bench.assert_rest();
}

#[test]
fn state_and_listed_headers_pass_to_the_agent_and_the_parameter_cannot_be_forged() {
    let mut s = Scene::new();
    s.caller.extra = "X-CC-State: toagent\r\nX-CC-Param: forged\r\nX-Account: 42\r\nP-Asserted-Identity: <sip:me@example.com>\r\nDiversion: <sip:d@h>\r\nSubject: not listed\r\n".into();
    s.call();
    s.caller.extra.clear();
    let invite = s.ann_rings();
    assert_eq!(invite.view().headers().filter(|h| h.name.eq_ignore_ascii_case(b"x-cc-state")).count(), 1);
    assert_eq!(invite.other("X-CC-State").as_deref(), Some("toagent"));
    assert_eq!(invite.other("X-CC-Param"), None);
    assert_eq!(invite.other("X-Account").as_deref(), Some("42"));
    let text = String::from_utf8_lossy(&invite.bytes).into_owned();
    assert!(
        text.contains("\r\nP-Asserted-Identity: <sip:me@example.com>\r\n")
            && text.contains("\r\nDiversion: <sip:d@h>\r\n")
    );
    assert!(!text.contains("not listed"));
    assert!(text.contains("\r\nMax-Forwards: 69\r\n"), "one less");
    s.caller.expect(&mut s.bench, "180");
    s.ann_answers(&invite);
    s.caller_acks();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn the_record_route_of_both_sides_is_followed() {
    let mut s = Scene::new();
    s.caller.extra = "Record-Route: <sip:10.0.8.1;lr>\r\n".into();
    s.ann.answer_extra = "Record-Route: <sip:10.0.9.1;lr>\r\n".into();
    s.call();
    s.caller.extra.clear();
    let invite = s.ann.expect(&mut s.bench, "INVITE");
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    s.ann.expect_nothing(&mut s.bench);
    let mut proxy_a = s.bench.phone("proxy_a", "10.0.9.1:5060");
    let ack = proxy_a.expect(&mut s.bench, "ACK");
    assert_eq!((ack.uri().as_str(), ack.header(Name::Route).as_str()), ("sip:ann@10.0.4.1:5060", "<sip:10.0.9.1;lr>"));
    let ok = s.caller_acks();
    assert_eq!(ok.header(Name::RecordRoute), "<sip:10.0.8.1;lr>");
    s.wait_ms(2_000);
    s.ann.send(&mut s.bench, "BYE", "");
    s.ann.expect(&mut s.bench, "200");
    let mut proxy_c = s.bench.phone("proxy_c", "10.0.8.1:5060");
    let bye = proxy_c.expect(&mut s.bench, "BYE");
    assert_eq!(bye.header(Name::Route), "<sip:10.0.8.1;lr>");
    proxy_c.answer(&mut s.bench, &bye, 200, "");
    s.assert_rest();
}

#[test]
fn the_outbound_proxy_gets_every_call_of_ours() {
    let mut s = Scene::with(|cfg, _, _| cfg.call.outbound_proxy = Some("sip:10.0.7.1".into()));
    s.call();
    let mut proxy = s.bench.phone("proxy", "10.0.7.1:5060");
    let invite = proxy.expect(&mut s.bench, "INVITE");
    assert_eq!(
        (invite.uri().as_str(), invite.header(Name::Route).as_str()),
        ("sip:ann@10.0.4.1:5060", "<sip:10.0.7.1;lr>")
    );
    proxy.answer(&mut s.bench, &invite, 486, "");
    proxy.expect(&mut s.bench, "ACK");
    let music = proxy.expect(&mut s.bench, "INVITE");
    assert_eq!(music.uri(), "sip:music@10.0.3.1:5060");
    s.caller.cancel(&mut s.bench);
    proxy.answer(&mut s.bench, &music, 180, "");
    let cancel = proxy.expect(&mut s.bench, "CANCEL");
    proxy.answer(&mut s.bench, &cancel, 200, "");
    proxy.answer(&mut s.bench, &music, 487, "");
    s.bench.assert_rest();
}

#[test]
fn a_multipart_body_keeps_its_other_parts() {
    let mut s = Scene::new();
    let sdp = s.caller.sdp();
    let body = format!(
        "--b1\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--b1\r\nContent-Type: application/isup\r\n\r\n\u{1}\u{2}\r\n--b1--\r\n"
    );
    s.caller.content_type = "multipart/mixed;boundary=b1".into();
    s.caller.invite(&mut s.bench, "sales", &body);
    s.caller.expect(&mut s.bench, "100");
    let invite = s.ann_rings();
    assert_eq!(invite.header(Name::ContentType), "multipart/mixed;boundary=b1");
    assert_eq!(without_origin(&invite.body()), without_origin(&body));
    s.caller.expect(&mut s.bench, "180");
    s.ann_answers(&invite);
    s.caller_acks();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}
