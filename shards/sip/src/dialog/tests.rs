//! Dialogs made from both ends, their requests, routing and parts.

use super::*;
use crate::msg::Limits;
use proptest::prelude::*;

fn path() -> Path {
    Path::udp("192.0.2.1:5060".parse().unwrap(), ListenerId(2))
}

fn parse(text: &str) -> Message<'_> {
    Message::parse(text.as_bytes(), &Limits::default()).unwrap()
}

fn message(start: &str, to_tag: &str, extra: &str) -> String {
    format!(
        "{start}\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: \"A; b\" <sip:a@example.com>;tag=from1\r\n\
         To: <sip:b@example.com>{to_tag}\r\nCall-ID: c1\r\nCSeq: 9 INVITE\r\n{extra}Content-Length: 0\r\n\r\n"
    )
}

const INVITE: &str = "INVITE sip:b@example.com SIP/2.0";
const OK: &str = "SIP/2.0 200 OK";
const RINGING: &str = "SIP/2.0 180 Ringing";

fn uas(extra: &str) -> Dialog {
    Dialog::uas(&parse(&message(INVITE, "", extra)), path(), b"ours").unwrap()
}

fn uac() -> Dialog {
    let local = b"\"A; b\" <sip:a@example.com>;tag=from1";
    Dialog::uac(b"c1", local, b"<sip:b@example.com>", b"sip:b@example.com", b"", 9, path()).unwrap()
}

fn head_of(dialog: &Dialog, method: Method<'_>, cseq: u32) -> String {
    let mut out = Vec::new();
    dialog.write_head(method, cseq, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_called_end() {
    let d = uas(
        "Contact: <sip:a@192.0.2.1:5070>\r\nRecord-Route: <sip:p1;lr>, <sip:p2;lr>\r\nRecord-Route: <sip:p3;lr>\r\n",
    );
    assert_eq!(d.call_id(), b"c1");
    assert_eq!((d.local_tag(), d.remote_tag()), (&b"ours"[..], &b"from1"[..]));
    assert_eq!(d.remote_target(), b"sip:a@192.0.2.1:5070");
    assert_eq!(d.routes(), b"<sip:p1;lr>, <sip:p2;lr>, <sip:p3;lr>", "in order (12.1.1)");
    assert_eq!((d.local_seq(), d.remote_seq(), d.is_confirmed()), (0, Some(9), false));
    assert_eq!(d.path(), path());
    assert!(d.matches(b"c1", b"ours", b"from1"));
    assert!(!d.matches(b"c1", b"ours", b"from2") && !d.matches(b"c2", b"ours", b"from1"));
    assert!(!d.matches(b"c1", b"from1", b"ours"));
    assert_eq!(
        head_of(&d, Method::Bye, 1),
        "Max-Forwards: 70\r\nRoute: <sip:p1;lr>, <sip:p2;lr>, <sip:p3;lr>\r\nFrom: <sip:b@example.com>;tag=ours\r\n\
         To: \"A; b\" <sip:a@example.com>;tag=from1\r\nCall-ID: c1\r\nCSeq: 1 BYE\r\n"
    );
}

#[test]
fn the_called_end_needs_a_contact_and_takes_what_is_well_formed() {
    let fails = |extra: &str| Dialog::uas(&parse(&message(INVITE, "", extra)), path(), b"ours").unwrap_err();
    assert_eq!(fails(""), ParseError::MissingHeader(Name::Contact));
    assert_eq!(fails("Contact: <sip:@>\r\n"), ParseError::BadHeader(Name::Contact));
    assert_eq!(fails("Contact: <sip:a@b>\r\nRecord-Route: <sip:@>\r\n"), ParseError::BadHeader(Name::RecordRoute));
    let no_tag = message(INVITE, "", "Contact: <sip:a@b>\r\n").replace(";tag=from1", "");
    let d = Dialog::uas(&parse(&no_tag), path(), b"ours").unwrap();
    assert_eq!(d.remote_tag(), b"", "an RFC 2543 peer");
    let folded = message(INVITE, "", "Contact: <sip:a@b>\r\nRecord-Route: <sip:p1;lr>,\r\n  <sip:p2;lr>\r\n");
    let d = Dialog::uas(&parse(&folded), path(), b"ours").unwrap();
    assert_eq!(d.routes(), b"<sip:p1;lr>, <sip:p2;lr>");
}

#[test]
fn the_calling_end_from_trying_to_confirmed() {
    let mut d = uac();
    assert_eq!((d.local_tag(), d.remote_tag()), (&b"from1"[..], &b""[..]));
    let before = d.clone();
    d.establish(&parse(&message("SIP/2.0 100 Trying", "", "")), path()).unwrap();
    assert_eq!(d, before, "no tag, no dialog");
    let early = "Contact: <sip:b@192.0.2.2>\r\nRecord-Route: <sip:p1;lr>, <sip:p2;lr>\r\n";
    d.establish(&parse(&message(RINGING, ";tag=b1", early)), path()).unwrap();
    assert_eq!((d.remote_tag(), d.is_confirmed()), (&b"b1"[..], false));
    assert_eq!(d.routes(), b"<sip:p2;lr>, <sip:p1;lr>", "reversed (12.1.2)");
    d.establish(&parse(&message(RINGING, ";tag=b1", "Contact: <sip:b@elsewhere>\r\n")), path()).unwrap();
    assert_eq!(d.routes(), b"<sip:p2;lr>, <sip:p1;lr>", "a second 18x without Record-Route takes nothing away");
    let from = Path::udp("192.0.2.7:5080".parse().unwrap(), ListenerId(0));
    let last = "Contact: <sip:b@192.0.2.3>\r\nRecord-Route: <sip:p3;lr>\r\n";
    d.establish(&parse(&message(OK, ";tag=b1", last)), from).unwrap();
    assert!(d.is_confirmed());
    assert_eq!(d.routes(), b"<sip:p3;lr>", "the 2xx's replaces the early one (13.2.2.4)");
    assert_eq!(d.remote_target(), b"sip:b@192.0.2.3");
    assert_eq!(d.path(), Path { listener: ListenerId(2), ..from }, "our listener stays");
    let refresh = "Contact: <sip:b@192.0.2.4>\r\nRecord-Route: <sip:p9;lr>\r\n";
    d.establish(&parse(&message(OK, ";tag=b1", refresh)), path()).unwrap();
    assert_eq!((d.routes(), d.remote_target()), (&b"<sip:p3;lr>"[..], &b"sip:b@192.0.2.4"[..]), "then only the target");
    assert_eq!(d.next_cseq(), 10);
    assert_eq!(d.next_cseq(), 11);
}

#[test]
fn forks_are_dialogs_of_their_own() {
    let half = uac();
    let mut one = half.clone();
    one.establish(&parse(&message(RINGING, ";tag=b1", "Contact: <sip:b@192.0.2.2>\r\n")), path()).unwrap();
    let other = message(OK, ";tag=b2", "Contact: <sip:b@192.0.2.3>\r\n");
    assert_eq!(one.establish(&parse(&other), path()), Err(ParseError::BadHeader(Name::To)));
    assert!(!one.is_confirmed());
    let mut two = half;
    two.establish(&parse(&other), path()).unwrap();
    assert!(two.matches(b"c1", b"from1", b"b2") && two.is_confirmed());
}

#[test]
fn a_malformed_2xx_still_gives_a_dialog_to_end() {
    let mut d = uac();
    let bad = message(OK, ";tag=b1", "Contact: <sip:@>\r\nRecord-Route: <sip:p1;lr>\r\n");
    assert_eq!(d.establish(&parse(&bad), path()), Err(ParseError::BadHeader(Name::Contact)));
    assert_eq!((d.remote_tag(), d.is_confirmed()), (&b"b1"[..], true));
    assert_eq!((d.remote_target(), d.routes()), (&b"sip:b@example.com"[..], &b"<sip:p1;lr>"[..]));
    let mut d = uac();
    let bad = message(OK, ";tag=b1", "Contact: <sip:b@h>\r\nRecord-Route: <sip:p1;lr>, <sip:@>\r\n");
    assert_eq!(d.establish(&parse(&bad), path()), Err(ParseError::BadHeader(Name::RecordRoute)));
    assert_eq!((d.remote_tag(), d.remote_target(), d.routes()), (&b"b1"[..], &b"sip:b@h"[..], &b""[..]));
}

#[test]
fn requests_of_the_peer_must_be_in_order() {
    let mut d = uas("Contact: <sip:a@b>\r\n");
    assert!(!d.accept_request(8), "12.2.2: 500");
    assert!(d.accept_request(12));
    assert!(!d.accept_request(11));
    let mut d = uac();
    assert!(d.accept_request(0));
    assert_eq!(d.remote_seq(), Some(0));
}

#[test]
fn targets_are_refreshed_and_confirmation_is_told() {
    let mut d = uas("Contact: <sip:a@192.0.2.1>\r\n");
    d.confirm();
    assert!(d.is_confirmed());
    d.refresh_target(&parse(&message(INVITE, ";tag=ours", "Contact: <sip:a@198.51.100.1:5099>\r\n"))).unwrap();
    assert_eq!(d.remote_target(), b"sip:a@198.51.100.1:5099");
    assert!(d.is_confirmed() && d.remote_seq() == Some(9));
    d.refresh_target(&parse(&message(INVITE, ";tag=ours", ""))).unwrap();
    assert_eq!(d.remote_target(), b"sip:a@198.51.100.1:5099");
    let bad = d.refresh_target(&parse(&message(INVITE, ";tag=ours", "Contact: <sip:@>\r\n")));
    assert_eq!(bad, Err(ParseError::BadHeader(Name::Contact)));
    let moved = Path::udp("[2001:db8::7]:5090".parse().unwrap(), ListenerId(3));
    d.set_path(moved).unwrap();
    assert_eq!((d.path(), d.remote_tag()), (moved, &b"from1"[..]));
}

#[test]
fn loose_routers_leave_the_request_uri_alone() {
    let d = uas("Contact: <sip:a@192.0.2.1:5070?Subject=x>\r\nRecord-Route: <sip:10.0.0.1:5080;lr>\r\n");
    assert_eq!(d.request_uri(), b"sip:a@192.0.2.1:5070", "no headers in a Request-URI");
    let expected = Target::Host { host: b"10.0.0.1", port: 5080, transport: Transport::Udp, listener: ListenerId(2) };
    assert_eq!(d.target(), expected);
}

#[test]
fn a_strict_router_gets_the_request_uri() {
    let d = uas("Contact: <sip:a@192.0.2.1:5070>\r\nRecord-Route: <sip:10.0.0.1>, <sip:p2;lr>\r\n");
    assert_eq!(d.request_uri(), b"sip:10.0.0.1");
    let head = head_of(&d, Method::Bye, 2);
    assert!(head.contains("\r\nRoute: <sip:p2;lr>\r\nRoute: <sip:a@192.0.2.1:5070>\r\nFrom:"), "12.2.1.1: {head}");
    let expected = Target::Host { host: b"10.0.0.1", port: 5060, transport: Transport::Udp, listener: ListenerId(2) };
    assert_eq!(d.target(), expected);
}

#[test]
fn targets_follow_the_uri() {
    let to = |uri: &'static [u8]| match target_of(uri, Transport::Udp, ListenerId(1)) {
        Target::Host { host, port, transport, listener: ListenerId(1) } => (host, port, transport),
        other => panic!("{other:?}"),
    };
    assert_eq!(to(b"sip:a@h"), (&b"h"[..], 5060, Transport::Udp));
    assert_eq!(to(b"sip:a@[2001:db8::1]:99"), (&b"2001:db8::1"[..], 99, Transport::Udp));
    assert_eq!(to(b"sip:a@h;transport=tcp"), (&b"h"[..], 5060, Transport::Tcp));
    assert_eq!(to(b"sips:a@h"), (&b"h"[..], 5061, Transport::Tls));
    assert_eq!(to(b"sips:a@h:1;transport=ws"), (&b"h"[..], 1, Transport::Wss));
    assert_eq!(to(b"tel:+123").0, b"", "nowhere to go");
    assert_eq!(to(b"garbage").0, b"");
    let mut d = uas("Contact: <sip:a@b>\r\n");
    let tcp = Path { transport: Transport::Tcp, conn: 4, ..path() };
    d.set_path(tcp).unwrap();
    assert_eq!(d.target(), Target::Addr(tcp), "the connection is used again (RFC 5923)");
}

#[test]
fn another_max_forwards() {
    let mut out = Vec::new();
    uac().write_head_limited(Method::Invite, 9, 12, &mut out);
    assert!(out.starts_with(b"Max-Forwards: 12\r\nFrom: "));
}

#[test]
fn the_value_is_small_and_bounded() {
    assert!(size_of::<Dialog>() <= 56, "{}", size_of::<Dialog>());
    let long = vec![b'x'; 40_000];
    let dialog = uac();
    let parts = DialogParts { call_id: &long, target: &long, ..dialog.parts() };
    assert_eq!(Dialog::from_parts(&parts), Err(ParseError::TooLong));
}

proptest! {
    #[test]
    fn parts_make_the_same_dialog(
        v6: bool, port: u16, conn: u32, listener: u8, transport in 0..5u8, scope: u32,
        seqs: (u16, Option<u16>), confirmed: bool, tag in "[a-z0-9]{0,20}", routes in "(<sip:[a-z]{1,9};lr>)?",
    ) {
        let remote: SocketAddr = if v6 {
            SocketAddrV6::new("fe80::1".parse().unwrap(), port, 0, scope).into()
        } else {
            ([192, 0, 2, 1], port).into()
        };
        let transport = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss][usize::from(transport)];
        let to = if tag.is_empty() { "<sip:b@c>".to_owned() } else { format!("<sip:b@c>;x=1;tag={tag};y") };
        let parts = DialogParts {
            path: Path { remote, listener: ListenerId(listener), transport, conn },
            call_id: b"id",
            local: b"sip:a@b;tag=l",
            remote: to.as_bytes(),
            target: b"sip:t",
            routes: routes.as_bytes(),
            local_seq: u32::from(seqs.0),
            remote_seq: seqs.1.map(u32::from),
            confirmed,
        };
        let dialog = Dialog::from_parts(&parts).unwrap();
        prop_assert_eq!(dialog.parts(), parts);
        prop_assert_eq!(dialog.remote_tag(), tag.as_bytes());
        prop_assert_eq!(dialog.local_tag(), b"l");
    }
}
