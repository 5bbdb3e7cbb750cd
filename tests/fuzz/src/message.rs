//! Whole messages: the view and everything that reads it, answers, the ownership scan.

use crate::shard::KEY;
use std::net::SocketAddr;
use std::sync::Arc;
use strowger_engine::BucketTable;
use strowger_runtime::owner::{Route, Router};
use strowger_sip::id::IdGen;
use strowger_sip::msg::{
    Limits, Message, Method, Name, Reply, Start, Uri, push_number, reason_phrase, trim, unfold, via_reply_path,
    write_answer, write_head, write_reply,
};
use strowger_sip::scan::{Class, Owner, bucket_of, parse_mark, refuse, scan};

/// Fields that an answer adds, at most; with fewer than this left in the table it may have too many.
const ADDED: usize = 6;

/// Where messages come from.
#[must_use]
pub fn source() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 99], 5099))
}

fn lies_in(part: &[u8], whole: &[u8]) -> bool {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    part.start == part.end || part.start >= whole.start && part.end <= whole.end
}

fn one_line(value: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    unfold(value, &mut out);
    out
}

/// The message view: every reader, and what must hold between them.
pub fn message(data: &[u8]) {
    for limits in [Limits::default(), Limits { max_message: 900, max_headers: 12 }] {
        let whole = Message::parse(data, &limits);
        let Ok(head) = Message::parse_head(data, &limits) else {
            assert!(whole.is_err(), "what parses has a head");
            continue;
        };
        every_reader(&head);
        answers(&head);
        match &whole {
            Ok(message) => {
                assert_eq!(head.fault(), None);
                assert_eq!(message.raw(), head.raw());
                assert!(message.raw().len() <= limits.max_message && message.headers().count() <= limits.max_headers);
                reads_the_same_unfolded(message);
                is_answered_soundly(message);
            }
            Err(fault) => assert!((400..600).contains(&fault.status()) && !fault.reason().is_empty()),
        }
    }
}

/// Calls every reader; values are slices of the message.
fn every_reader(m: &Message<'_>) {
    for h in m.headers() {
        assert!([h.name, h.value, h.line].iter().all(|part| lies_in(part, m.raw())));
        assert!(h.line.len() > h.name.len() + h.value.len(), "a colon between them");
        assert!(m.has(h.id) && m.all(h.id).any(|v| v == h.value));
        let line = one_line(h.value);
        assert!(!line.iter().any(|b| matches!(b, b'\r' | b'\n')));
        assert!(m.values(h.id).all(|v| lies_in(v, m.raw()) && !v.is_empty() && trim(v).len() == v.len()));
    }
    assert!(lies_in(m.body(), m.raw()) && m.raw().ends_with(m.body()));
    let _ = (m.check_request(), m.request_uri(), m.top_via(), m.from(), m.to(), m.contact(), m.cseq(), m.call_id());
    let _ = (m.max_forwards(), m.content_type(), m.content_disposition(), m.expires(), m.session_expires(), m.min_se());
    let _ = (m.retry_after(), m.rseq(), m.rack(), m.event(), m.subscription_state(), m.refer_to(), m.replaces());
    let _ = (m.other("x-a"), m.other("v"), m.reason(), m.contacts().count(), m.allows(Method::Bye), format!("{m:?}"));
    let _ = m.lists(Name::Supported, "timer");
    assert_eq!(m.is_request(), m.method().is_some());
    assert_ne!(m.is_request(), m.code().is_some());
    if let Ok(via) = m.top_via() {
        let to = via_reply_path(&via, source());
        assert!(via.maddr().is_some() || to.ip() == source().ip());
    }
}

/// An answer in one step and one from a kept head are the same bytes, each field on one line.
fn answers(m: &Message<'_>) {
    for code in [100, 180, 200, 400] {
        let reply = Reply { code, to_tag: b"t", contact: b"<sip:h>", body: b"x", ..Reply::default() };
        let (mut one, mut two, mut kept) = (vec![], vec![], vec![]);
        write_answer(m, source(), &reply, &mut one);
        let head = write_head(m, source(), &mut kept);
        assert_eq!(head.len(), kept.len());
        write_reply(&kept, &head, &reply, &mut two);
        assert_eq!(one, two);
        let end = one.windows(4).position(|w| w == b"\r\n\r\n").expect("a head ends");
        for line in one[..end].split(|b| *b == b'\n') {
            assert!(!line.strip_suffix(b"\r").unwrap_or(line).contains(&b'\r'));
        }
    }
}

/// Line folding means a blank (RFC 3261 section 7.3.1): written without folds, the message says the same.
fn reads_the_same_unfolded(m: &Message<'_>) {
    // A fold within a name makes another name.
    if m.headers().any(|h| h.name.iter().any(|b| matches!(b, b'\r' | b'\n'))) {
        return;
    }
    let mut out = vec![];
    match m.start() {
        Start::Request { method, uri } => {
            out.extend_from_slice(&[method.as_bytes(), b" ", uri, b" SIP/2.0\r\n"].concat());
        }
        Start::Response { code, reason } => {
            out.extend_from_slice(b"SIP/2.0 ");
            push_number(u64::from(code), &mut out);
            out.extend_from_slice(&[b" ", reason, b"\r\n"].concat());
        }
    }
    for h in m.headers() {
        out.extend_from_slice(&[h.name, b": ", &one_line(h.value), b"\r\n"].concat());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(m.body());
    if out.len() > usize::from(u16::MAX) {
        return;
    }
    let again = Message::parse(&out, &Limits::default()).expect("the same message without folds");
    assert_eq!((again.start(), again.body()), (m.start(), m.body()));
    assert_eq!(again.headers().count(), m.headers().count());
    for (a, b) in again.headers().zip(m.headers()) {
        assert_eq!((a.id, a.value), (b.id, &one_line(b.value)[..]));
    }
    assert_eq!(again.check_request().is_ok(), m.check_request().is_ok());
    assert_eq!((again.call_id(), again.cseq()), (m.call_id(), m.cseq()));
    let tags = |m: &Message<'_>| {
        [m.from_tag(), m.to_tag(), m.top_via().ok().and_then(|v| v.branch())].map(|t| t.map(one_line))
    };
    assert_eq!(tags(&again), tags(m));
}

/// The answer to what parses parses, and keeps Via, From, To, Call-ID and CSeq (RFC 3261 section 8.2.6.2).
fn is_answered_soundly(m: &Message<'_>) {
    if m.headers().count() + ADDED > strowger_sip::msg::MAX_HEADERS || m.raw().len() > 60_000 {
        return;
    }
    let mut out = vec![];
    let reply = Reply { code: 200, to_tag: b"t", contact: b"<sip:h>", body: b"x", ..Reply::default() };
    write_answer(m, source(), &reply, &mut out);
    let answer = Message::parse(&out, &Limits::default()).expect("the answer to what parses parses");
    assert_eq!((answer.code(), answer.reason()), (Some(200), Some(reason_phrase(200).as_bytes())));
    assert_eq!((answer.call_id(), answer.cseq(), answer.body()), (m.call_id(), m.cseq(), &b"x"[..]));
    assert_eq!(answer.first(Name::From).map(one_line), m.first(Name::From).map(one_line));
    let (to, asked) = (answer.first(Name::To).map(one_line), m.first(Name::To).map(one_line));
    assert!(to.zip(asked).is_some_and(|(to, asked)| to.starts_with(&asked)), "To with or without a tag");
    if m.check_request().is_ok() {
        assert_eq!(answer.values(Name::Via).count(), m.values(Name::Via).count());
        let (mine, theirs) = (answer.top_via().expect("kept"), m.top_via().expect("checked"));
        assert_eq!((mine.host, mine.port), (theirs.host, theirs.port));
        assert_eq!(mine.branch().map(one_line), theirs.branch().map(one_line));
        assert_eq!(answer.from_tag().map(one_line), m.from_tag().map(one_line));
        assert_eq!(answer.to_tag().map(one_line), Some(m.to_tag().map_or(b"t".to_vec(), one_line)));
        if theirs.rport().is_some() {
            assert_eq!((mine.rport(), mine.received()), (Some(Some(source().port())), Some(source().ip())));
        }
    }
}

/// The ownership scan: every shard names the same owner, the parser agrees, a dialog stays where it began.
pub fn ownership(data: &[u8]) {
    let scanned = scan(data, &KEY);
    assert_eq!(scan(data, &KEY), scanned);
    for shards in [1, 2, 3, 5] {
        one_owner(data, shards);
    }
    let (mut out, reply) = (b"before".to_vec(), Reply { code: 503, to_tag: b"t", ..Reply::default() });
    if refuse(data, source(), &reply, &mut out) {
        let refusal = Message::parse_head(&out[6..], &Limits::default()).expect("a refusal has a first line");
        assert_eq!(refusal.code(), Some(503));
    } else {
        assert_eq!(out, b"before");
    }
    if let Ok(message) = Message::parse(data, &Limits::default()) {
        assert_ne!(scanned.owner, Owner::Junk, "what parses is SIP");
        assert_ne!(scanned.owner, Owner::NoCallId, "what parses has a Call-ID");
        agrees(&message, data);
        if message.check_request().is_ok() && message.method() == Some(Method::Invite) && message.to_tag().is_none() {
            stays(&message, data);
        }
    }
}

/// Exactly one shard takes a datagram, and all others know which.
fn one_owner(data: &[u8], shards: u16) {
    let table = Arc::new(BucketTable::even(shards));
    let routes: Vec<Route> = (0..shards).map(|s| Router::new(s, Arc::clone(&table), KEY).route(data)).collect();
    let owners: Vec<u16> =
        (0u16..).zip(&routes).filter(|(_, r)| matches!(r, Route::Own { .. })).map(|(s, _)| s).collect();
    match routes[0] {
        Route::Junk => assert!(routes.iter().all(|r| *r == Route::Junk)),
        // Whoever gets it refuses it.
        Route::Own { bucket: None, .. } => assert_eq!(owners.len(), usize::from(shards)),
        _ => {
            assert_eq!(owners.len(), 1, "{routes:?}");
            let named = |r: &Route| matches!(r, Route::Shard { shard, .. } if *shard == owners[0]);
            assert!(routes.iter().all(|r| named(r) || matches!(r, Route::Own { .. })));
        }
    }
}

/// The scan agrees with the parser where both can read the To.
fn agrees(m: &Message<'_>, data: &[u8]) {
    let scanned = scan(data, &KEY);
    let by_call_id = Owner::Bucket(bucket_of(m.call_id().unwrap_or_default(), &KEY));
    let Some(method) = m.method() else {
        assert_eq!(scanned.class, Class::InDialogOrResponse);
        return;
    };
    let Ok(to) = m.to() else { return };
    assert_eq!(scanned.owner, to.tag().and_then(parse_mark).map_or(by_call_id, Owner::Bucket), "{m:?}");
    assert_eq!(scanned.class == Class::NewInvite, method == Method::Invite && to.tag().is_none(), "{m:?}");
}

/// What belongs to an INVITE and to the dialog that it makes goes to the same shard.
fn stays(m: &Message<'_>, data: &[u8]) {
    let first = scan(data, &KEY).owner;
    let (call_id, from, to) = (m.call_id().unwrap_or_default(), m.first(Name::From), m.first(Name::To));
    let (Some(from), Some(to)) = (from.map(one_line), to.map(one_line)) else { return };
    let tag = IdGen::new([3; 32]).tag(bucket_of(call_id, &KEY), 7);
    let tagged = [&to, &b";tag="[..], tag.as_bytes()].concat();
    let write = |start: &[u8], from: &[u8], to: &[u8], method: &[u8]| {
        let lines = [
            start,
            b"\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKother\r\nFrom: ",
            from,
            b"\r\nTo: ",
            to,
            b"\r\nCall-ID: ",
            call_id,
            b"\r\nCSeq: 7 ",
            method,
            b"\r\n\r\n",
        ];
        lines.concat()
    };
    for (method, to) in [("CANCEL", &to), ("ACK", &tagged), ("BYE", &tagged), ("INVITE", &tagged)] {
        let request = write(format!("{method} sip:h SIP/2.0").as_bytes(), &from, to, method.as_bytes());
        let scanned = scan(&request, &KEY);
        assert_eq!(scanned.owner, first, "{}", String::from_utf8_lossy(&request));
        assert_eq!(scanned.class, Class::InDialogOrResponse);
    }
}

/// A message to put a field into.
pub(crate) fn with_fields(lines: &[&[u8]]) -> Vec<u8> {
    let mut out = b"INVITE sip:user@example.com SIP/2.0\r\n".to_vec();
    for line in lines {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// For other targets: whether a URI goes into a message as one word.
pub(crate) fn is_uri(text: &[u8]) -> bool {
    Uri::parse(text).is_ok()
}
