//! The message view, the answers and the scan, on ordinary and on nasty input.

mod msg_support;

use msg_support::{SDP, invite, parse, source, text, wire};
use std::net::SocketAddr;
use strowger_sip::hash::HashKey;
use strowger_sip::msg::{
    Limits, Message, Method, Name, NameAddr, ParseError, Refresher, Reply, Start, Via, split_list, via_reply_path,
    write_answer, write_head, write_reply,
};
use strowger_sip::scan::{
    BRANCH_MARK, BUCKETS, Class, Owner, TAG_MARK, bucket_of, owner, parse_mark, push_mark, refuse, scan,
};

const KEY: HashKey = HashKey(7, 9);

fn addr(s: &str) -> SocketAddr {
    s.parse().expect("an address")
}

#[test]
fn reads_an_ordinary_invite() {
    let bytes = invite();
    let m = parse(&bytes).expect("valid");
    m.check_request().expect("valid");
    assert_eq!(m.start(), Start::Request { method: Method::Invite, uri: b"sip:support@example.com" });
    assert_eq!(m.raw(), bytes);
    assert_eq!(text(m.body()), SDP);
    assert_eq!(m.headers().count(), 14);
    let via = m.headers().next().expect("one");
    assert_eq!((via.id, via.name), (Name::Via, &b"Via"[..]));
    assert_eq!(via.line, b"Via: SIP/2.0/UDP 203.0.113.7:5060;rport;branch=z9hG4bK74bf9\r\n");
    assert_eq!(m.all(Name::Via).count(), 2);
    assert_eq!(m.values(Name::Via).count(), 3);
    let routes: Vec<_> = m.values(Name::RecordRoute).collect();
    assert_eq!(routes, [&b"<sip:p2.example.com;lr>"[..], b"<sip:p1.example.com;lr>"]);
    assert_eq!(m.from().expect("from").display, b"Alice, A.");
    assert_eq!((m.from_tag(), m.to_tag()), (Some(&b"9fxced76sl"[..]), None));
    let session = m.session_expires().expect("valid").expect("there");
    assert_eq!((session.delta, session.refresher), (1800, Some(Refresher::Uac)));
    assert!(m.lists(Name::Supported, "100REL") && !m.lists(Name::Supported, "100"));
    assert!(m.allows(Method::Update), "no Allow: nothing is known");
    assert_eq!(m.other("x"), m.first(Name::SessionExpires), "compact form");
    assert_eq!(m.other("X-None"), None);
    assert_eq!((m.expires(), m.min_se(), m.rseq(), m.rack()), (Ok(None), Ok(None), Ok(None), Ok(None)));
}

#[test]
fn reads_extension_fields() {
    let bytes = wire(
        "PRACK sip:a@b SIP/2.0\nv: SIP/2.0/UDP h;branch=z9hG4bK1\nf: <sip:a@b>;tag=1\nt: <sip:c@d>;tag=2\ni: x\n\
         CSeq: 2 PRACK\nRAck: 776656 1 INVITE\nRSeq: 5\nMin-SE: 90;x\nRetry-After: 18 (in a meeting);duration=3600\n\
         o: refer;id=93809824\nSubscription-State: active;expires=3600\nr: <sip:dave@denver?Replaces=12345%40x>\n\
         Replaces: 98732@sip.example.com;from-tag=r33th4x0r;to-tag=ff87ff;early-only\nAllow: INVITE, BYE\nX-A: \n\
         Expires: 7200\nContent-Disposition: session;handling=optional\nMax-Forwards: 0\n\n",
    );
    let m = parse(&bytes).expect("valid");
    let rack = m.rack().expect("valid").expect("there");
    assert_eq!((rack.rseq, rack.cseq.number, rack.cseq.method), (776_656, 1, Method::Invite));
    assert_eq!((m.rseq(), m.min_se(), m.retry_after()), (Ok(Some(5)), Ok(Some(90)), Some(18)));
    let event = m.event().expect("there");
    assert_eq!((event.token, event.params.value("id")), (&b"refer"[..], Some(&b"93809824"[..])));
    assert_eq!(m.subscription_state().expect("there").token, b"active");
    let target = m.refer_to().expect("valid").expect("there").uri_parsed().expect("valid");
    assert_eq!(target.headers, Some(&b"Replaces=12345%40x"[..]));
    let replaces = m.replaces().expect("valid").expect("there");
    assert_eq!((replaces.call_id, replaces.to_tag), (&b"98732@sip.example.com"[..], &b"ff87ff"[..]));
    assert!(replaces.early_only);
    assert!(m.allows(Method::Bye) && !m.allows(Method::Update));
    assert_eq!(m.other("x-a"), Some(&b""[..]));
    assert_eq!((m.expires(), m.max_forwards()), (Ok(Some(7200)), Ok(Some(0))));
    assert_eq!(m.content_disposition().expect("there").params.value("handling"), Some(&b"optional"[..]));
}

#[test]
fn limits_and_broken_heads() {
    let bytes = invite();
    let small = Limits { max_message: 200, max_headers: 96 };
    assert_eq!(Message::parse(&bytes, &small).map(|_| ()), Err(ParseError::TooLong));
    assert_eq!(ParseError::TooLong.status(), 513);
    let few = Limits { max_message: 65535, max_headers: 5 };
    assert_eq!(Message::parse(&bytes, &few).map(|_| ()), Err(ParseError::TooManyHeaders));
    assert_eq!(Message::parse_head(&bytes, &few).expect("a head").headers().count(), 5);
    assert_eq!(parse(b"\r\n\r\n").map(|_| ()), Err(ParseError::Empty));
    assert_eq!(parse(b"").map(|_| ()), Err(ParseError::Empty));
    let cut = &bytes[..bytes.len() - SDP.replace('\n', "\r\n").len() - 2];
    assert_eq!(parse(cut).map(|_| ()), Err(ParseError::NoEndOfHead));
    let mut leading = b"\r\n\r\n".to_vec();
    leading.extend_from_slice(&bytes);
    assert_eq!(parse(&leading).expect("valid").raw(), bytes);
    let many = format!("OPTIONS sip:a@b SIP/2.0\n{}\n", "X-A: y\n".repeat(97));
    assert_eq!(parse(&wire(&many)).map(|_| ()), Err(ParseError::TooManyHeaders));
    // A message of the greatest length, offsets at the edge of u16.
    let mut huge =
        b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>\r\nTo: <sip:a@b>\r\nCall-ID: x\r\n\
        CSeq: 1 OPTIONS\r\nX: "
            .to_vec();
    huge.resize(65535 - 4, b'x');
    huge.extend_from_slice(b"\r\n\r\n");
    assert!(parse(&huge).expect("valid").body().is_empty());
    huge.push(b'x');
    assert_eq!(parse(&huge).map(|_| ()), Err(ParseError::TooLong));
}

#[test]
fn a_line_that_is_no_field_is_skipped() {
    let bytes = wire(
        "OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/UDP h\njunk without a colon\n: no name\nFrom: <sip:a@b>\nTo: <sip:a@b>\n\
         Call-ID: x\nCSeq: 1 OPTIONS\n\nrest",
    );
    let m = parse(&bytes).expect("valid");
    assert_eq!(m.headers().filter(|h| h.id == Name::Other).count(), 1);
    assert_eq!(m.body(), b"rest", "without Content-Length the datagram's end is the body's");
}

#[test]
fn latin1_and_binary_pass() {
    let mut bytes = b"MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: J\xfcrgen <sip:a@b>;tag=\xe9\r\n\
        To: \"\xff\x00\" <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 MESSAGE\r\nX-Bin: \xfe\xff\r\nContent-Length: 4\r\n\r\n"
        .to_vec();
    bytes.extend_from_slice(&[0, 255, 13, 10]);
    let m = parse(&bytes).expect("valid");
    assert_eq!(m.from().expect("from").display, b"J\xfcrgen");
    assert_eq!(m.from_tag(), Some(&b"\xe9"[..]));
    assert_eq!(m.other("x-bin"), Some(&b"\xfe\xff"[..]));
    assert_eq!(m.body(), [0, 255, 13, 10]);
}

#[test]
fn lists_split_at_top_level_commas_only() {
    let list: Vec<_> = split_list(br#""a,\"b" <sip:x,y@h;p="q">;z="1,2" , , <sip:c>,sip:d"#).collect();
    assert_eq!(list, [&br#""a,\"b" <sip:x,y@h;p="q">;z="1,2""#[..], b"<sip:c>", b"sip:d"]);
    assert_eq!(split_list(b"\"open, quote").count(), 1);
    assert_eq!(split_list(b" , ,").count(), 0);
}

#[test]
fn name_addr_forms() {
    let read = |s: &'static str| NameAddr::parse(s.as_bytes(), Name::To);
    let a = read("sip:a@b;tag=1").expect("valid");
    assert_eq!((a.uri, a.tag()), (&b"sip:a@b"[..], Some(&b"1"[..])));
    assert_eq!(read("<sip:a@b;tag=uri>").expect("valid").tag(), None, "a parameter of the URI");
    assert_eq!(read("<sip:a@b>;tag=").expect("valid").tag(), None);
    assert_eq!(read("\"a<b>;tag=x\" <sip:a@b>;tag=y").expect("valid").tag(), Some(&b"y"[..]));
    assert!(NameAddr::parse(b"*", Name::Contact).expect("valid").is_star());
    for bad in [
        "",
        "<>",
        "A;\"\"<",
        "<sip:a@b>;x=<y>;tag=1",
        "<sip:a@b>;tag=1, <sip:c>",
        "<sip:a@b",
        "\"a\" sip:a@b",
        "a,b <sip:a@b>",
        "sip:a@b?x=y",
        "<sip:a@b> tag=x",
        "sip:a b",
        "<sip:a@b>;x=\"y",
    ] {
        assert_eq!(read(bad), Err(ParseError::BadHeader(Name::To)), "{bad}");
    }
}

#[test]
fn via_forms() {
    for bad in [
        "SIP/2.0/UDP",
        "SIP/2.0 h",
        "SIP/3.0/UDP h",
        "HTTP/2.0/UDP h",
        "SIP/2.0/UDP ",
        "SIP/2.0/UDP ;branch=x",
        "SIP/2.0/UDP h:99999",
        "SIP/2.0/U@P h",
        "SIP/2.0/UDP [::1",
    ] {
        assert_eq!(Via::parse(bad.as_bytes()), Err(ParseError::BadHeader(Name::Via)), "{bad}");
    }
    let via = Via::parse(b"SIP/2.0/UDP first.example.com: 4000;ttl=16 ;maddr=224.2.0.1 ;branch=z9hG4bKa7c6a8dlze.1")
        .expect("valid");
    assert_eq!((via.port, via.maddr()), (Some(4000), Some(&b"224.2.0.1"[..])));
    assert_eq!(via.rport(), None);
    assert_eq!(Via::parse(b"SIP/2.0/UDP h;rport=7").expect("valid").rport(), Some(Some(7)));
    for open in ["SIP/2.0/UDP h;branch=z9hG4bK\"x", "SIP/2.0/UDP h;x=<y;branch=z9hG4bKx"] {
        assert!(Via::parse(open.as_bytes()).is_err(), "{open}: it would hide the `received` of an answer");
    }
}

#[test]
fn responses_go_where_rfc_3261_and_3581_say() {
    let path = |via: &str| via_reply_path(&Via::parse(via.as_bytes()).expect("valid"), source());
    assert_eq!(path("SIP/2.0/UDP 10.0.0.1:5070;rport"), source());
    assert_eq!(path("SIP/2.0/UDP 10.0.0.1:5070"), addr("192.0.2.99:5070"));
    assert_eq!(path("SIP/2.0/UDP 10.0.0.1"), addr("192.0.2.99:5060"));
    assert_eq!(path("SIP/2.0/UDP 10.0.0.1;received=198.51.100.1"), addr("192.0.2.99:5060"), "a forged received");
    assert_eq!(path("SIP/2.0/UDP h:7;maddr=224.2.0.1;rport"), addr("224.2.0.1:7"));
    assert_eq!(path("SIP/2.0/UDP h;maddr=[2001:db8::1]"), addr("[2001:db8::1]:5060"));
    assert_eq!(path("SIP/2.0/UDP h;maddr=name.example.com"), addr("192.0.2.99:5060"));
}

#[test]
fn answers_copy_what_they_must() {
    let bytes = invite();
    let m = parse(&bytes).expect("valid");
    let mut kept = b"already here".to_vec();
    let from = kept.len();
    let head = write_head(&m, source(), &mut kept);
    let mut out = Vec::new();
    let trying = Reply { code: 100, ..Reply::default() };
    write_reply(&kept[from..], &head, &trying, &mut out);
    out.extend_from_slice(b"-----\r\n");
    let ok = Reply {
        code: 200,
        to_tag: b"sw0a1-x",
        contact: b"<sip:198.51.100.20>",
        extra: b"Supported: timer\r\n",
        content_type: b"application/sdp",
        body: b"v=0\r\n",
        ..Reply::default()
    };
    write_reply(&kept[from..], &head, &ok, &mut out);
    out.extend_from_slice(b"-----\r\n");
    let busy = Reply { code: 486, reason: "Too Busy", to_tag: b"sw0a1-x", ..Reply::default() };
    write_reply(&kept[from..], &head, &busy, &mut out);
    insta::assert_snapshot!("answers", text(&out));
    // The one-step form writes the same.
    for reply in [trying, ok, busy] {
        let (mut two, mut one) = (Vec::new(), Vec::new());
        write_reply(&kept[from..], &head, &reply, &mut two);
        write_answer(&m, source(), &reply, &mut one);
        assert_eq!(text(&one), text(&two));
    }
}

#[test]
fn top_via_gets_received_and_rport() {
    let answer = |via: &str, source: &str| {
        let bytes = wire(&format!(
            "OPTIONS sip:a@b SIP/2.0\nVia: {via}\nFrom: <sip:a@b>;tag=1\nTo: <sip:a@b>;tag=2\nCall-ID: x\nCSeq: 1 OPTIONS\n\n"
        ));
        let mut out = Vec::new();
        write_answer(
            &parse(&bytes).expect("valid"),
            addr(source),
            &Reply { code: 200, to_tag: b"no", ..Reply::default() },
            &mut out,
        );
        let out = text(&out);
        assert!(out.contains("To: <sip:a@b>;tag=2\n"), "an answer keeps the tag that is there");
        out.lines().nth(1).expect("a Via").to_owned()
    };
    let at = "192.0.2.1:5062";
    assert_eq!(answer("SIP/2.0/UDP 192.0.2.1;branch=b", at), "Via: SIP/2.0/UDP 192.0.2.1;branch=b");
    assert_eq!(
        answer("SIP/2.0/UDP h.example.com;branch=b", at),
        "Via: SIP/2.0/UDP h.example.com;branch=b;received=192.0.2.1"
    );
    assert_eq!(
        answer("SIP/2.0/UDP 192.0.2.1;rport;branch=b", at),
        "Via: SIP/2.0/UDP 192.0.2.1;rport=5062;branch=b;received=192.0.2.1"
    );
    assert_eq!(
        answer("SIP/2.0/UDP 10.1.1.1 ;received=1.2.3.4 ; RPORT=9;branch=b;x=\"a;b\"", at),
        "Via: SIP/2.0/UDP 10.1.1.1;rport=5062;branch=b;x=\"a;b\";received=192.0.2.1"
    );
    assert_eq!(
        answer("SIP/2.0/UDP 10.1.1.1;branch=b , SIP/2.0/UDP h2;rport", "[2001:db8::1]:5060"),
        "Via: SIP/2.0/UDP 10.1.1.1;branch=b;received=2001:db8::1, SIP/2.0/UDP h2;rport"
    );
    assert_eq!(
        answer("SIP/2.0/UDP [2001:db8::1];branch=b", "[2001:db8::1]:5060"),
        "Via: SIP/2.0/UDP [2001:db8::1];branch=b"
    );
    assert_eq!(answer("SIP/2.0/UDP 192.0.2.1\n ;branch=b\n\t;x", at), "Via: SIP/2.0/UDP 192.0.2.1;branch=b;x");
    assert_eq!(
        answer("SIP/2.0/UDP 192.0.2.1;branch=b", "[::ffff:192.0.2.1]:5062"),
        "Via: SIP/2.0/UDP 192.0.2.1;branch=b",
        "a mapped address is the same address"
    );
    assert_eq!(answer("nonsense", at), "Via: nonsense");
}

#[test]
fn nothing_that_came_in_breaks_the_lines_of_an_answer() {
    let bytes = b"OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/UDP h;a=\rX-Evil: 1\nFrom: <sip:a@b>\n\t;tag=1\nTo: \"\r\" <sip:a@b>\nCall-ID: x\nCSeq: 1\r\n OPTIONS\n\n";
    let mut out = Vec::new();
    write_answer(
        &parse(bytes).expect("valid"),
        source(),
        &Reply { code: 404, to_tag: b"t", ..Reply::default() },
        &mut out,
    );
    let head = String::from_utf8(out).expect("text");
    assert_eq!(head.matches('\n').count(), head.matches("\r\n").count());
    assert_eq!(head.matches('\r').count(), head.matches("\r\n").count());
    assert!(!head.contains("\nX-Evil"));
    assert!(parse(head.as_bytes()).is_ok());
}

#[test]
fn a_refusal_can_be_written_for_what_parse_refuses() {
    let bytes = wire(
        "OPTIONS sip:t.watson@example.org SIP/7.0\nVia:     SIP/7.0/UDP c.example.com;branch=z9hG4bKkdjuw\nMax-Forwards:     70\n\
         From:    A. Bell <sip:a.g.bell@example.com>;tag=qweoiqpe\nTo:      T. Watson <sip:t.watson@example.org>\n\
         Call-ID: badvers.31417@c.example.com\nCSeq:    1 OPTIONS\nl: 0\n\n",
    );
    let fault = parse(&bytes).map(|_| ()).expect_err("another version");
    let m = Message::parse_head(&bytes, &Limits::default()).expect("a head");
    assert_eq!(m.fault(), Some(fault));
    let mut out = Vec::new();
    let reason = fault.reason();
    let reply = Reply { code: fault.status(), reason: &reason, to_tag: b"t", ..Reply::default() };
    write_answer(&m, source(), &reply, &mut out);
    insta::assert_snapshot!("refusal_505", text(&out));
    assert_eq!(ParseError::MissingHeader(Name::CallId).reason(), "Missing Call-ID");
}

#[test]
fn marks_round_trip() {
    for bucket in [0, 1, 0x7f3, BUCKETS - 1] {
        for mark in [TAG_MARK, BRANCH_MARK] {
            let mut s = mark.to_vec();
            push_mark(bucket, &mut s);
            s.extend_from_slice(b"rest");
            assert_eq!(parse_mark(&s), Some(bucket), "{}", text(&s));
        }
    }
    for foreign in ["", "sw", "sw12", "sw123", "sw12G-", "swABC-x", "z9hG4bKsw12-", "z9hG4bK123-x", "SW123-"] {
        assert_eq!(parse_mark(foreign.as_bytes()), None, "{foreign}");
    }
}

fn dialog_message(first: &str, to: &str, via: &str) -> Vec<u8> {
    let method = first.split(' ').next().expect("a word");
    let method = if method == "SIP/2.0" { "INVITE" } else { method };
    wire(&format!(
        "{first}\nVia: SIP/2.0/UDP 192.0.2.1;branch={via}\nFrom: \"tag=sw001-\" <sip:a@b;tag=sw002->;tag=sw003-f\nt : {to}\n\
         Max-Forwards: 70\nI: call-1@h\nCSeq: 1 {method}\nContent-Length: 0\n\n"
    ))
}

#[test]
fn the_scan_finds_the_owner() {
    let hashed = Owner::Bucket(bucket_of(b"call-1@h", &KEY));
    let of = |first: &str, to: &str, via: &str| scan(&dialog_message(first, to, via), &KEY);
    let foreign = "z9hG4bK77";
    // An INVITE, its CANCEL and the ACK of a refusal without a tag of ours go together.
    for first in ["INVITE sip:a@b SIP/2.0", "CANCEL sip:a@b SIP/2.0", "ACK sip:a@b SIP/2.0", "REGISTER sip:b SIP/2.0"] {
        assert_eq!(of(first, "<sip:a@b>", foreign).owner, hashed, "{first}");
        assert_eq!(
            of(first, "<sip:a@b>;tag=theirs", "z9hG4bKsw123-ours").owner,
            hashed,
            "a branch of ours in a request"
        );
        assert_eq!(of(first, "<sip:a@b> ; TAG = sw0ff-1\n ;x", foreign).owner, Owner::Bucket(0xff), "{first}");
        assert_eq!(of(first, "\"tag=sw001-x\" <sip:a@b;tag=sw002-x>", foreign).owner, hashed, "no tag of To");
        assert_eq!(of(first, "sip:a@b;tag=sw0aa-1", foreign).owner, Owner::Bucket(0xaa), "without brackets");
        assert_eq!(of(first, "<sip:a@b>;mytag=sw001-1;tag=x", foreign).owner, hashed);
        let quoted = "<sip:a@b>;x=\">;tag=sw001-1\";tag=\"sw0cc-1\"";
        assert_eq!(of(first, quoted, foreign).owner, Owner::Bucket(0xcc), "what is quoted is no parameter");
    }
    assert_eq!(of("SIP/2.0 180 Ringing", "<sip:a@b>;tag=sw0ff-1", "z9hG4bKsw123-ours").owner, Owner::Bucket(0x123));
    assert_eq!(of("SIP/2.0 180 Ringing", "<sip:a@b>;tag=sw0ff-1", foreign).owner, hashed, "not ours");
    let two = "z9hG4bKsw00a-1;x, SIP/2.0/UDP h;branch=z9hG4bKsw00b-1";
    assert_eq!(of("SIP/2.0 200 OK", "<sip:a@b>", two).owner, Owner::Bucket(10), "the top Via's branch");
    let second = "x, SIP/2.0/UDP h;branch=z9hG4bKsw00b-1";
    assert_eq!(of("SIP/2.0 200 OK", "<sip:a@b>", second).owner, hashed, "no branch but the top one counts");
}

#[test]
fn the_scan_classifies() {
    let of = |first: &str, to: &str| scan(&dialog_message(first, to, "z"), &KEY).class;
    assert_eq!(of("INVITE sip:a@b SIP/2.0", "<sip:a@b>"), Class::NewInvite);
    assert_eq!(of("INVITE sip:a@b SIP/2.0", "<sip:a@b>;x=\";tag=1\""), Class::NewInvite);
    assert_eq!(of("INVITE sip:a@b SIP/2.0", "<sip:a@b>;tag=1"), Class::InDialogOrResponse);
    for first in ["ACK sip:a@b SIP/2.0", "CANCEL sip:a@b SIP/2.0", "BYE sip:a@b SIP/2.0", "SIP/2.0 200 OK"] {
        assert_eq!(of(first, "<sip:a@b>"), Class::InDialogOrResponse, "{first}");
    }
    assert_eq!(of("OPTIONS sip:a@b SIP/2.0", "<sip:a@b>"), Class::Other);
    for junk in
        [&b""[..], b"\r\n\r\n", b"\x00\x01\x00\x00\x21\x12\xa4\x42", b"GET / HTTP/1.1\r\n\r\n", b"INVITE", b"\n"]
    {
        assert_eq!(owner(junk, &KEY), Owner::Junk);
    }
    let open = dialog_message("INVITE sip:a@b SIP/2.0", "<sip:a@b>", "z");
    let open = &open[..open.len() - 2];
    assert_eq!(owner(open, &KEY), Owner::Bucket(bucket_of(b"call-1@h", &KEY)), "the head need not end");
    assert_eq!(owner(b"INVITE sip:a@b SIP/2.0\r\nX: y", &KEY), Owner::NoCallId);
    assert_eq!(owner(b"INVITE sip:a@b SIP/2.0\r\nTo: x\r\n\r\nCall-ID: in the body\r\n", &KEY), Owner::NoCallId);
    assert_eq!(owner(b"SIP/2.0 200 OK\r\nVia: x\r\ni:\r\n\r\n", &KEY), Owner::NoCallId);
    assert_eq!(owner(b"INVITE sip:a@b SIP/2.0\r\nTo: x;tag=sw001-1\r\n\r\n", &KEY), Owner::NoCallId);
}

#[test]
fn a_stateless_refusal_answers_as_the_parsed_form_does() {
    let bytes = invite();
    let reply = Reply { code: 503, to_tag: b"sw001-t", extra: b"Retry-After: 7\r\n", ..Reply::default() };
    let (mut scanned, mut parsed) = (b"kept".to_vec(), Vec::new());
    assert!(refuse(&bytes, source(), &reply, &mut scanned));
    write_answer(&parse(&bytes).expect("valid"), source(), &reply, &mut parsed);
    assert_eq!(text(&scanned[4..]), text(&parsed));
    let no_call_id = text(&bytes).replace("Call-ID", "X-ID");
    for (bad, why) in [
        (text(&bytes).replace("INVITE", "ACK"), "an ACK is never answered"),
        (no_call_id, "a field is missing"),
        (text(&bytes).replace("INVITE sip:support@example.com SIP/2.0", "SIP/2.0 200 OK"), "a response"),
    ] {
        let mut out = b"kept".to_vec();
        assert!(!refuse(bad.as_bytes(), source(), &reply, &mut out), "{why}");
        assert_eq!(out, b"kept");
    }
}
