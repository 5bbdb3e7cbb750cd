//! Single values: URIs, Via, addresses, routes, lists, and the small ones.

use crate::message::{is_uri, source, with_fields};
use strowger_sip::dialog::{Dialog, target_of};
use strowger_sip::msg::{
    CSeq, ContentType, DialogRef, Limits, Message, Method, Name, NameAddr, Params, ParseError, RAck, Reply, Scheme,
    SessionExpires, Token, Uri, Via, percent_decode, split_list, trim, unescape, write_answer,
};
use strowger_sip::net::{ListenerId, Path, Transport};

/// URIs: the parts make up the whole.
pub fn uri(data: &[u8]) {
    let Ok(uri) = Uri::parse(data) else { return };
    assert_eq!(uri.raw, data);
    let _ = (uri.host_ip(), uri.transport_known(), uri.is_loose(), target_of(data, Transport::Udp, ListenerId(0)));
    assert!(percent_decode(uri.user.unwrap_or_default()).len() <= uri.user.unwrap_or_default().len());
    params(&uri.params);
    let mut front = data.iter().take_while(|b| **b != b':').copied().collect::<Vec<u8>>();
    front.push(b':');
    match uri.scheme {
        Scheme::Sip | Scheme::Sips => {
            if let Some(user) = uri.user {
                front.extend_from_slice(user);
                if let Some(password) = uri.password {
                    front.extend_from_slice(&[b":", password].concat());
                }
                front.push(b'@');
            }
            let host = if uri.is_ipv6 { [b"[", uri.host, b"]"].concat() } else { uri.host.to_vec() };
            front.extend_from_slice(&host);
            let headers = uri.headers.map(|h| [b"?", h].concat()).unwrap_or_default();
            let back = [uri.params.raw(), &headers].concat();
            assert!(!uri.host.is_empty() && data.starts_with(&front) && data.ends_with(&back));
            let between = &data[front.len()..data.len() - back.len()];
            match uri.port {
                None => assert_eq!(between, b""),
                Some(port) => {
                    let digits = between.strip_prefix(b":").expect("a colon before the port");
                    let digits = digits.iter().map(|b| char::from(*b)).collect::<String>();
                    assert_eq!(digits.parse(), Ok(port));
                }
            }
            assert_eq!(uri.host_ip().is_some_and(|ip| ip.is_ipv6()), uri.is_ipv6);
        }
        Scheme::Tel => assert_eq!([&front, uri.user.expect("a number"), uri.params.raw()].concat(), data),
        Scheme::Other(name) => assert!(data.starts_with(name) && uri.host.is_empty()),
    }
}

fn params(params: &Params<'_>) {
    assert_eq!(params.pieces().count(), params.iter().count());
    for (name, value) in params.iter() {
        assert!(!name.contains(&b'=') && value.is_none_or(|v| v.len() < params.raw().len()));
        if let Ok(name) = std::str::from_utf8(name) {
            assert!(params.has(name));
        }
    }
}

/// Via values: what is read of one is what its answer says.
pub fn via(data: &[u8]) {
    if let Ok(via) = Via::parse(data) {
        let _ = (via.branch(), via.received(), via.rport(), via.maddr(), via.transport_known(), via.host.ip());
        assert!(!via.transport.is_empty() && !via.host.text.is_empty());
        params(&via.params);
    }
    let line = [b"Via: ", data].concat();
    let bytes = with_fields(&[&line, b"From: <sip:a@b>;tag=1", b"To: <sip:c@d>", b"Call-ID: c", b"CSeq: 1 INVITE"]);
    let Ok(message) = Message::parse(&bytes, &Limits::default()) else { return };
    if message.check_request().is_err() {
        return;
    }
    let mut out = vec![];
    write_answer(&message, source(), &Reply { code: 200, to_tag: b"t", ..Reply::default() }, &mut out);
    let answer = Message::parse(&out, &Limits::default()).expect("the answer to what parses parses");
    let (asked, told) = (message.top_via().expect("checked"), answer.top_via().expect("kept"));
    assert_eq!((told.transport, told.host, told.port), (asked.transport, asked.host, asked.port));
    let one_line =
        |branch: &[u8]| branch.split(|b| matches!(b, b'\r' | b'\n' | b' ' | b'\t')).collect::<Vec<_>>().concat();
    assert_eq!(told.branch().map(one_line), asked.branch().map(one_line), "but for folds");
    assert_eq!(told.rport(), asked.rport().map(|_| Some(source().port())));
    let elsewhere = asked.rport().is_some() || asked.host.ip().map(|ip| ip.to_canonical()) != Some(source().ip());
    assert_eq!(told.received(), elsewhere.then(|| source().ip()));
    let rest = |m: &Message<'_>| m.values(Name::Via).skip(1).map(|v| Via::parse(v).is_ok()).collect::<Vec<_>>();
    assert_eq!(rest(&answer), rest(&message));
}

/// Addresses: a tag that is put behind one is found, for From, To and Contact live by that.
pub fn address(data: &[u8]) {
    for name in [Name::From, Name::To, Name::Contact, Name::Route] {
        let Ok(addr) = NameAddr::parse(data, name) else { continue };
        let _ = (addr.tag(), addr.uri_parsed(), addr.is_star(), unescape(addr.display));
        assert!(!addr.uri.is_empty());
        params(&addr.params);
        if addr.params.has("tag") {
            continue;
        }
        let tagged = [trim(data), b";tag=sw123-x"].concat();
        let again = NameAddr::parse(&tagged, name).expect("a tag makes it no worse");
        assert_eq!((again.tag(), again.uri, again.display), (Some(&b"sw123-x"[..]), addr.uri, addr.display));
    }
    lists(data);
}

/// Comma-separated lists, against a reader that takes one byte at a time.
fn lists(value: &[u8]) {
    let (mut all, mut current) = (vec![], vec![]);
    let (mut quoted, mut bracket, mut escaped) = (false, false, false);
    for b in value {
        if !quoted && !bracket && *b == b',' {
            all.push(std::mem::take(&mut current));
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
        current.push(*b);
    }
    all.push(current);
    let slow: Vec<&[u8]> = all.iter().map(|v| trim(v)).filter(|v| !v.is_empty()).collect();
    assert_eq!(split_list(value).collect::<Vec<_>>(), slow);
}

/// Routes: a dialog with this Record-Route and this Contact writes requests that parse and go where they say.
pub fn route(data: &[u8]) {
    let (record, contact) = halves(data);
    let (record, contact) = ([b"Record-Route: ", record].concat(), [b"Contact: ", contact].concat());
    let bytes = with_fields(&[
        b"Via: SIP/2.0/UDP h;branch=z9hG4bK1",
        b"From: <sip:a@b>;tag=1",
        b"To: <sip:c@d>",
        b"Call-ID: c",
        b"CSeq: 1 INVITE",
        &record,
        &contact,
    ]);
    let Ok(message) = Message::parse(&bytes, &Limits::default()) else { return };
    let checked = message.check_request().is_ok();
    let Ok(dialog) = Dialog::uas(&message, Path::udp(source(), ListenerId(0)), b"t") else { return };
    let _ = dialog.target();
    if !checked || message.values(Name::RecordRoute).count() > 80 {
        return;
    }
    let mut out = [b"BYE ", dialog.request_uri(), b" SIP/2.0\r\n"].concat();
    dialog.write_head(Method::Bye, 7, &mut out);
    out.extend_from_slice(b"Via: SIP/2.0/UDP h;branch=z9hG4bK2\r\nContent-Length: 0\r\n\r\n");
    let bye = Message::parse(&out, &Limits::default()).expect("a request in a dialog parses");
    // A Contact may be of a scheme that leads nowhere.
    let sound = bye.check_request();
    assert!(matches!(sound, Ok(()) | Err(ParseError::UnsupportedScheme)), "{sound:?}: {bye:?}");
    assert_eq!((bye.from_tag(), bye.to_tag(), bye.call_id()), (Some(&b"t"[..]), Some(&b"1"[..]), Ok(&b"c"[..])));
}

/// Two inputs out of one.
pub(crate) fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|b| *b == 0xff) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => data.split_at(data.len() / 2),
    }
}

/// The small values: none takes what it cannot give back.
pub fn values(data: &[u8]) {
    if let Ok(cseq) = CSeq::parse(data) {
        let text = [cseq.number.to_string().as_bytes(), b" ", cseq.method.as_bytes()].concat();
        assert_eq!(CSeq::parse(&text), Ok(cseq));
        assert!(cseq.number < 1 << 31);
    }
    if let Ok(rack) = RAck::parse(data) {
        let numbers = format!("{} {} ", rack.rseq, rack.cseq.number);
        assert_eq!(RAck::parse(&[numbers.as_bytes(), rack.cseq.method.as_bytes()].concat()), Ok(rack));
    }
    if let Some(kind) = ContentType::parse(data) {
        let text = [kind.main, b"/", kind.sub, kind.params.raw()].concat();
        assert_eq!(ContentType::parse(&text), Some(kind));
    }
    if let Ok(session) = SessionExpires::parse(data) {
        assert_eq!(SessionExpires::parse(session.delta.to_string().as_bytes()).map(|s| s.delta), Ok(session.delta));
    }
    if let Some(token) = Token::parse(data) {
        assert_eq!(Token::parse(&[token.token, token.params.raw()].concat()), Some(token));
    }
    if let Ok(dialog) = DialogRef::parse(data, Name::Replaces) {
        assert!(!dialog.call_id.is_empty());
    }
    assert!(unescape(data).len() <= data.len() && percent_decode(data).len() <= data.len());
    // As a Refer-To or a Request-URI it may go into a message of ours: never more than one word.
    assert!(!is_uri(data) || !data.iter().any(|b| *b <= b' '));
}
