//! Properties of the message view: it never panics, it reads what was written, it agrees with a slow reference and,
//! on the subset that rsip reads right, with rsip.

mod msg_support;

use msg_support::{invite, parse, source, text, wire};
use proptest::prelude::*;
use proptest::sample::Index;
use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};
use strowger_sip::hash::HashKey;
use strowger_sip::msg::{
    Limits, Message, Method, Name, NameAddr, ParseError, Reply, Uri, Via, percent_decode, push_number, split_list,
    unescape, unfold, via_reply_path, write_answer, write_head, write_reply,
};
use strowger_sip::scan::{Class, Owner, bucket_of, parse_mark, refuse, scan};

const KEY: HashKey = HashKey(3, 4);

/// Calls everything that reads, writes or scans a message.
fn exercise(bytes: &[u8]) {
    let limits = Limits { max_message: 4000, max_headers: 20 };
    let reply = Reply { code: 200, to_tag: b"t", contact: b"<sip:h>", body: b"x", ..Reply::default() };
    let mut out = Vec::new();
    let scanned = scan(bytes, &KEY);
    if refuse(bytes, source(), &reply, &mut out) {
        one_line_each(&out);
    }
    for limits in [limits, Limits::default()] {
        let Ok(m) = Message::parse_head(bytes, &limits) else { continue };
        read(&m);
        for code in [100, 200, 400] {
            let reply = Reply { code, ..reply };
            let (mut one, mut two, mut kept) = (Vec::new(), Vec::new(), Vec::new());
            write_answer(&m, source(), &reply, &mut one);
            one_line_each(&one);
            let head = write_head(&m, source(), &mut kept);
            assert_eq!(head.len(), kept.len());
            write_reply(&kept, &head, &reply, &mut two);
            assert_eq!(text(&one), text(&two));
        }
        if Message::parse(bytes, &limits).is_ok() {
            agrees(&m, scanned);
            let mut one = Vec::new();
            write_answer(&m, source(), &reply, &mut one);
            let answer = parse(&one).expect("the answer to a message that parses is one itself");
            assert_eq!(answer.call_id(), m.call_id());
            assert_eq!(answer.cseq(), m.cseq());
            assert_eq!(answer.body(), b"x");
            // The tag is seen where To can be read at all.
            assert!(answer.to().is_err() || answer.to_tag().is_some());
        }
    }
}

/// Calls every reader.
fn read(m: &Message<'_>) {
    let raw = m.raw().as_ptr_range();
    for h in m.headers() {
        for part in [h.name, h.value, h.line] {
            let part = part.as_ptr_range();
            assert!(part.start >= raw.start && part.end <= raw.end || part.is_empty());
        }
        assert!(h.line.len() >= h.name.len() + h.value.len());
        let mut line = Vec::new();
        unfold(h.value, &mut line);
        assert!(!line.iter().any(|b| matches!(b, b'\r' | b'\n')));
        for value in m.values(h.id) {
            if let Ok(via) = Via::parse(value) {
                let _ = (
                    via.branch(),
                    via.received(),
                    via.rport(),
                    via.maddr(),
                    via.host.ip(),
                    via_reply_path(&via, source()),
                );
            }
            if let Ok(addr) = NameAddr::parse(value, h.id) {
                let _ = (addr.tag(), addr.uri_parsed().map(|u| (u.host_ip(), u.transport_known(), u.is_loose())));
                let _ = (unescape(addr.display), addr.params.iter().count());
            }
            if let Ok(uri) = Uri::parse(value) {
                let _ = (percent_decode(uri.user.unwrap_or_default()), uri.params.pieces().count());
            }
        }
    }
    let _ = (m.check_request(), m.request_uri(), m.top_via(), m.from(), m.to(), m.contact(), m.cseq(), m.call_id());
    let _ = (m.max_forwards(), m.content_type(), m.content_disposition(), m.expires(), m.session_expires(), m.min_se());
    let _ = (m.retry_after(), m.rseq(), m.rack(), m.event(), m.subscription_state(), m.refer_to(), m.replaces());
    let _ = (m.other("x-a"), m.other("v"), m.reason(), m.fault(), m.body(), format!("{m:?}"));
}

/// The scan that does not parse agrees with the parse, on messages that both take.
fn agrees(m: &Message<'_>, scanned: strowger_sip::scan::Scanned) {
    let by_call_id = Owner::Bucket(bucket_of(m.call_id().expect("checked"), &KEY));
    if let Some(method) = m.method() {
        // A To that cannot be read is refused by any shard alike.
        let Ok(to) = m.to() else { return };
        let expected = to.tag().and_then(parse_mark).map_or(by_call_id, Owner::Bucket);
        assert_eq!(scanned.owner, expected, "{m:?}");
        assert_eq!(scanned.class == Class::NewInvite, method == Method::Invite && to.tag().is_none());
    } else {
        assert_eq!(scanned.class, Class::InDialogOrResponse);
    }
}

/// No bare CR or LF in the head of what we write.
fn one_line_each(out: &[u8]) {
    let head = out.windows(4).position(|w| w == b"\r\n\r\n").expect("a head ends");
    for line in out[..head].split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(!line.contains(&b'\r'));
    }
}

/// Comma-split, one byte at a time.
fn slow_values(value: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut cur) = (Vec::new(), Vec::new());
    let (mut quoted, mut bracket, mut escaped) = (false, false, false);
    for b in value {
        let plain = !quoted && !bracket;
        if plain && *b == b',' {
            all.push(std::mem::take(&mut cur));
            continue;
        }
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !bracket => quoted = !quoted,
            b'<' if !quoted => bracket = true,
            b'>' if bracket => bracket = false,
            _ => {}
        }
        cur.push(*b);
    }
    all.push(cur);
    let trimmed = all.into_iter().map(|v| strowger_sip::msg::trim(&v).to_vec());
    trimmed.filter(|v| !v.is_empty()).collect()
}

fn field() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![
        prop::sample::select(vec![
            "Via",
            "v",
            "From",
            "f",
            "To",
            "t",
            "Call-ID",
            "i",
            "CSeq",
            "Contact",
            "m",
            "Route",
            "Content-Length",
            "l",
            "X-A"
        ])
        .prop_map(str::to_owned),
        "[A-Za-z-]{1,12}",
    ];
    let value = prop_oneof![
        "SIP/2.0/(UDP|TCP) ([a-z.]{1,8}|10\\.0\\.0\\.1|\\[::1\\])(:[0-9]{1,5})?(;(rport|received=1\\.2\\.3\\.4|branch=z9hG4bK(sw0f1-)?[a-z0-9]{0,4})){0,3}",
        "(\"[ -~]{0,6}\" ?|[a-z ]{0,6})<sip:[a-z;@]{1,8}>(;(tag|TAG)=(sw[0-9a-f]{3}-|)[a-z0-9]{0,4}|;x=\"[a-z;,]{0,4}\"|;[a-z]?){0,3}",
        "[0-9]{1,10} (INVITE|OPTIONS|BYE)",
        "[ -~]{0,24}",
        "[0-9]{1,3}",
    ];
    (name, value)
}

/// Something between a message and noise.
fn message_like() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        4 => Just("INVITE sip:a@b SIP/2.0".to_owned()),
        2 => Just("SIP/2.0 200 OK".to_owned()),
        1 => "[A-Z]{0,7} [a-z:@<>; ]{0,12} SIP/[0-9.]{1,3}",
    ];
    let glue = prop::sample::select(vec![":", ": ", " :\t", ":\r\n ", ":\n\t"]);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n "]);
    let fields = proptest::collection::vec((field(), glue, end), 0..14);
    let base = "Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nCSeq: 1 INVITE\r\nCall-ID: c\r\n";
    (first, any::<bool>(), fields, "[ -~]{0,9}").prop_map(move |(first, whole, fields, body)| {
        let mut s = format!("{first}\r\n{}", if whole { base } else { "" });
        for ((name, value), glue, end) in fields {
            s.push_str(&format!("{name}{glue}{value}{end}"));
        }
        format!("{s}\r\n{body}").into_bytes()
    })
}

/// A tag is a token, never empty: To is malformed (RFC 3261 section 25.1), and no answer makes a second tag of it.
#[test]
fn a_tag_that_is_no_word_is_malformed() {
    for to in [
        "\"\"<sip:;>;tag=",
        "<sip:a@b>;tag",
        "sip:a@b;TAG = ;x",
        "<sip:a@b>;tag=\"\"",
        "<sip:a@b>;tag=;tag=1",
        "<sip:a@b>;tag=1 2",
    ] {
        let bytes = wire(&text(&invite()).replace("To: Support <sip:support@example.com>", &format!("To:{to}")));
        exercise(&bytes);
        let m = parse(&bytes).expect("all the rest is well-formed");
        assert_eq!(m.to(), Err(ParseError::BadHeader(Name::To)), "{to}");
        assert_eq!(m.check_request(), Err(ParseError::BadHeader(Name::To)), "{to}");
        let reply = Reply { code: 400, to_tag: b"t", ..Reply::default() };
        let (mut answer, mut unparsed) = (Vec::new(), Vec::new());
        write_answer(&m, source(), &reply, &mut answer);
        assert!(refuse(&bytes, source(), &reply, &mut unparsed));
        for answer in [answer, unparsed] {
            assert!(text(&answer).contains(&format!("\nTo: {to}\n")), "as it came: {}", text(&answer));
        }
        let bytes = wire(&text(&invite()).replace(";tag=9fxced76sl", ";tag="));
        let accepted = parse(&bytes).expect("all the rest is well-formed").check_request();
        assert_eq!(accepted, Err(ParseError::BadHeader(Name::From)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        exercise(&bytes);
        let mut m = b"INVITE sip:a@b SIP/2.0\r\n".to_vec();
        m.extend_from_slice(&bytes);
        exercise(&m);
    }

    #[test]
    fn anything_like_a_message(bytes in message_like()) {
        exercise(&bytes);
    }

    #[test]
    fn mutated_messages(edits in proptest::collection::vec((any::<Index>(), prop_oneof![any::<u8>(), prop::sample::select(b"\r\n \t:;,<>\"\\@[]=".to_vec())], 0..3u8), 1..8)) {
        let mut bytes = invite();
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        exercise(&bytes);
    }

    #[test]
    fn lists_split_as_the_reference_does(value in "[a-c,<>\"\\\\ ;]{0,40}") {
        let fast: Vec<Vec<u8>> = split_list(value.as_bytes()).map(<[u8]>::to_vec).collect();
        prop_assert_eq!(fast, slow_values(value.as_bytes()));
    }

    #[test]
    fn reads_what_was_written(
        fields in proptest::collection::vec(("X-[A-Za-z-]{1,9}", "([!-~]([ -~]{0,20}[!-~])?)?", 0..4u8), 0..40),
        body in proptest::collection::vec(any::<u8>(), 0..80),
        leading in 0..3usize,
    ) {
        let mut bytes = b"\r\n".repeat(leading);
        bytes.extend_from_slice(b"NOTIFY sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>\r\nTo: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 NOTIFY\r\n");
        for (name, value, style) in &fields {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice([&b": "[..], b":", b"\t :\r\n  ", b": \n\t"][usize::from(*style)]);
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice([&b"\r\n"[..], b"\n", b" \t\r\n", b"\r\n \r\n"][usize::from(*style)]);
        }
        bytes.extend_from_slice(b"Content-Length: ");
        push_number(body.len() as u64, &mut bytes);
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(&body);
        let end = bytes.len();
        bytes.extend_from_slice(b"beyond");
        let m = parse(&bytes).expect("valid");
        prop_assert_eq!(m.raw(), &bytes[2 * leading..end]);
        prop_assert_eq!(m.body(), &body[..]);
        let seen: Vec<_> = m.headers().filter(|h| h.id == Name::Other).collect();
        prop_assert_eq!(seen.len(), fields.len());
        for (h, (name, value, _)) in seen.iter().zip(&fields) {
            prop_assert_eq!(h.name, name.as_bytes());
            prop_assert_eq!(h.value, value.as_bytes());
            prop_assert!(m.other(&name.to_ascii_lowercase()).is_some());
        }
        let lines: Vec<u8> = m.headers().flat_map(|h| h.line.to_vec()).collect();
        prop_assert!(m.raw().windows(lines.len()).any(|w| w == lines), "the lines are the head, byte for byte");
    }

    /// rsip reads long names, CRLF without folds, one value a line, users without dots, sip and sips alone.
    #[test]
    fn agrees_with_rsip(
        method in prop::sample::select(vec!["INVITE", "BYE", "OPTIONS", "REGISTER", "UPDATE"]),
        user in "[a-z][a-z0-9]{0,9}", host in "[a-z]{1,8}\\.example\\.com", port in 1024..65535u16,
        display in "[A-Za-z]{1,8}", (tag, branch, call_id) in ("[a-zA-Z0-9]{1,12}", "[a-zA-Z0-9]{1,12}", "[a-zA-Z0-9]{1,16}@[a-z]{1,6}"),
        seq in 0..0x7fff_ffffu32, hops in 0..=255u8, rport in any::<bool>(), status in 100..700u16, request in any::<bool>(),
        body in "[ -~]{0,30}",
    ) {
        let first = if request { format!("{method} sip:{user}@{host}:{port} SIP/2.0") } else { format!("SIP/2.0 {status} Some Reason") };
        let bytes = wire(&format!(
            "{first}\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{branch}{}\nMax-Forwards: {hops}\nFrom: \"{display}\" <sip:{user}@{host}>;tag={tag}\n\
             To: <sip:{user}@{host}:{port}>\nCall-ID: {call_id}\nCSeq: {seq} {method}\nContact: <sip:{user}@{host}:{port}>\n\
             Content-Length: <len>\n\n{body}",
            if rport { ";rport" } else { "" },
        ));
        let ours = parse(&bytes).expect("valid");
        let theirs = rsip::SipMessage::try_from(bytes.as_slice()).expect("valid to rsip");
        prop_assert_eq!(ours.body(), &theirs.body()[..]);
        prop_assert_eq!(ours.headers().count(), rsip::message::HasHeaders::headers(&theirs).iter().count());
        prop_assert_eq!(text(ours.call_id().expect("there")), theirs.call_id_header().expect("there").value());
        let cseq = theirs.cseq_header().expect("there").typed().expect("valid");
        let our_cseq = ours.cseq().expect("valid");
        prop_assert_eq!((our_cseq.number, our_cseq.method.to_string()), (cseq.seq, cseq.method.to_string()));
        prop_assert_eq!(ours.max_forwards().expect("valid"), Some(theirs.max_forwards_header().expect("there").num().expect("a number")));
        let via = theirs.via_header().expect("there").typed().expect("valid");
        let our_via = ours.top_via().expect("valid");
        prop_assert_eq!(text(our_via.branch().expect("there")), via.branch().expect("there").value());
        prop_assert_eq!(text(our_via.host.text), via.uri.host().to_string());
        prop_assert_eq!(our_via.port, via.uri.port().map(|p| *p.value()));
        let from = theirs.from_header().expect("there").typed().expect("valid");
        let our_from = ours.from().expect("valid");
        prop_assert_eq!(text(our_from.tag().expect("there")), from.tag().expect("there").value());
        prop_assert_eq!(text(our_from.display), from.display_name.clone().expect("there").replace('"', ""));
        let uri = our_from.uri_parsed().expect("valid");
        prop_assert_eq!(text(uri.user.expect("there")), from.uri.user().expect("there"));
        prop_assert_eq!(text(uri.host), from.uri.host().to_string());
        prop_assert_eq!(ours.to_tag(), None);
        let contact = theirs.contact_header().expect("there").typed().expect("valid");
        let our_contact = ours.contact().expect("valid").expect("there").uri_parsed().expect("valid");
        prop_assert_eq!(our_contact.port, contact.uri.port().map(|p| *p.value()));
        match theirs {
            rsip::SipMessage::Request(r) => {
                prop_assert_eq!(ours.method().expect("a request").to_string(), r.method.to_string());
                prop_assert_eq!(text(ours.uri().expect("a request")), r.uri.to_string());
            }
            rsip::SipMessage::Response(r) => prop_assert_eq!(ours.code(), Some(r.status_code.code())),
        }
        // What we answer, rsip reads.
        let mut out = Vec::new();
        write_answer(&ours, source(), &Reply { code: 200, to_tag: b"t1", ..Reply::default() }, &mut out);
        let answer = rsip::Response::try_from(out.as_slice()).expect("valid to rsip");
        let to = answer.to_header().expect("there").typed().expect("valid");
        prop_assert_eq!(to.tag().expect("there").value(), "t1");
        let via = answer.via_header().expect("there").typed().expect("valid");
        prop_assert_eq!(via.received().expect("an address"), Some(source().ip()));
    }
}
