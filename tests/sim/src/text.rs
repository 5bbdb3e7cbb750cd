//! Messages as the simulated peers write them: small templates, no code of the engine's.

use crate::rules::Body;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use strowger_sip::msg::{Limits, Message, Name};

pub type Bytes = Rc<[u8]>;

/// The one listener of the server under test.
pub const ENGINE: &str = "10.0.0.1:5060";

/// A request of a peer.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    pub uri: &'a str,
    pub addr: SocketAddr,
    pub branch: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    pub call_id: &'a str,
    pub cseq: u32,
    /// The number in CSeq may stand beside another method than the request line's never: ACK and CANCEL say theirs.
    pub extra: &'a str,
    pub body: &'a str,
}

#[must_use]
pub fn request(r: &Request<'_>) -> Bytes {
    let mut out = String::with_capacity(512 + r.body.len());
    let Request { method, uri, addr, branch, from, to, call_id, cseq, extra, body } = r;
    let _ = write!(
        out,
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {addr};branch={branch};rport\r\nMax-Forwards: 70\r\nFrom: {from}\r\n\
         To: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:{addr}>\r\n{extra}"
    );
    push_body(body, &mut out);
    out.into_bytes().into()
}

/// An answer to `msg`; `tag` goes to a To that has none.
#[must_use]
pub fn response(msg: &Message<'_>, code: u16, tag: &str, addr: SocketAddr, extra: &str, body: &str) -> Bytes {
    let mut out = String::with_capacity(512 + body.len());
    let _ = write!(out, "SIP/2.0 {code} Sim\r\n");
    for h in msg.headers() {
        let name = match h.id {
            Name::Via => "Via",
            Name::From => "From",
            Name::CallId => "Call-ID",
            Name::CSeq => "CSeq",
            Name::RecordRoute => "Record-Route",
            Name::To => "To",
            _ => continue,
        };
        let _ = write!(out, "{name}: {}", text(h.value));
        if h.id == Name::To && msg.to_tag().is_none() && code > 100 {
            let _ = write!(out, ";tag={tag}");
        }
        out.push_str("\r\n");
    }
    let _ = write!(out, "Contact: <sip:{addr}>\r\n{extra}");
    push_body(body, &mut out);
    out.into_bytes().into()
}

fn push_body(body: &str, out: &mut String) {
    if !body.is_empty() {
        out.push_str("Content-Type: application/sdp\r\n");
    }
    let _ = write!(out, "Content-Length: {}\r\n\r\n{body}", body.len());
}

/// A session description of one audio stream, or one chat.
#[must_use]
pub fn sdp(addr: SocketAddr, session: u32, version: u32, port: u16, direction: &str, chat: bool) -> String {
    let ip = addr.ip();
    let stream = match chat {
        false => format!("m=audio {port} RTP/AVP 0 8\r\n"),
        true => format!(
            "m=message {port} TCP/MSRP *\r\na=accept-types:text/plain\r\na=path:msrp://{ip}:{port}/s{session};tcp\r\n"
        ),
    };
    format!(
        "v=0\r\no=sim {session} {version} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n{stream}\
         a={direction}\r\n"
    )
}

/// A session description that no call can be made of.
#[must_use]
pub fn odd_sdp(addr: SocketAddr, body: Body) -> String {
    let stream = if body == Body::Other { "m=image 4000 udptl t38" } else { "m=audio 0 RTP/AVP 0" };
    let ip = addr.ip();
    format!("v=0\r\no=sim 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n{stream}\r\n")
}

/// Where a description sends the audio, `ip:port`; empty for none.
#[must_use]
pub fn media_of(body: &[u8]) -> String {
    let line = |p: &[u8]| {
        body.split(|b| *b == b'\n').find(|l| l.starts_with(p)).map(|l| text(&l[p.len()..]).trim().to_owned())
    };
    let (Some(ip), Some(media)) = (line(b"c=IN IP4 "), line(b"m=audio ").or_else(|| line(b"m=message "))) else {
        return String::new();
    };
    format!("{ip}:{}", media.split(' ').next().unwrap_or("0"))
}

#[must_use]
pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("?")
}

/// Value of a header by its name; empty for none.
#[must_use]
pub fn header<'a>(msg: &Message<'a>, name: &[u8]) -> &'a str {
    let found = msg.headers().find(|h| h.name.eq_ignore_ascii_case(name));
    found.map(|h| text(h.value)).unwrap_or_default()
}

/// Parses what came from the network; everything here is well-formed.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Message<'_>> {
    Message::parse(bytes, &Limits::default()).ok()
}

/// The number of the call in a From of ours: `<sip:c12@...>`.
#[must_use]
pub fn call_number(msg: &Message<'_>) -> Option<u32> {
    let from = msg.from().ok()?;
    let uri = from.uri_parsed().ok()?;
    text(uri.user?).strip_prefix('c')?.parse().ok()
}

/// The call's number where the caller stands in To: `<sip:c12@...>`.
#[must_use]
pub fn called_for(msg: &Message<'_>) -> Option<u32> {
    let to = msg.to().ok()?;
    let uri = to.uri_parsed().ok()?;
    text(uri.user?).strip_prefix('c')?.parse().ok()
}

/// The number of the caller whose dialog this is: `call12@sim`.
#[must_use]
pub fn caller_number(msg: &Message<'_>) -> Option<u32> {
    text(msg.call_id().ok()?).strip_prefix("call")?.strip_suffix("@sim")?.parse().ok()
}

/// The number of the agent that lives at an address.
#[must_use]
pub fn agent_of(addr: SocketAddr) -> Option<u32> {
    match addr {
        SocketAddr::V4(v4) => match v4.ip().octets() {
            [10, 1, 0, n] => Some(u32::from(n).saturating_sub(1)),
            _ => None,
        },
        SocketAddr::V6(_) => None,
    }
}
