//! What the peers of a shard say: a carrier's trunk, a media server, an agent's phone. Texts of fixed length, whatever their numbers.

use std::net::SocketAddr;
use strowger_sip::net::{ListenerId, Path};

pub const ENGINE: &str = "198.51.100.20:5060";
pub const CALLER: &str = "203.0.113.7:5060";
pub const MEDIA: &str = "198.51.100.30:5060";
pub const AGENT: &str = "198.51.100.40:5060";

/// A message that went out, and where to.
#[derive(Debug, Clone)]
pub struct Sent {
    pub to: SocketAddr,
    pub text: String,
}

impl Sent {
    /// Method, or code.
    #[must_use]
    pub fn what(&self) -> &str {
        let first = self.text.strip_prefix("SIP/2.0 ").unwrap_or(&self.text);
        first.split(' ').next().unwrap_or_default()
    }
}

/// Where a datagram of `peer`'s comes from.
///
/// # Panics
/// If it is no address.
#[must_use]
pub fn path(peer: &str) -> Path {
    Path::udp(peer.parse().expect("an address"), ListenerId(0))
}

/// A session description of `name`'s.
#[must_use]
pub fn sdp(name: &str) -> String {
    format!(
        "v=0\r\no={name} 53655765 2353687637 IN IP4 203.0.113.7\r\ns={name}\r\nc=IN IP4 203.0.113.7\r\nt=0 0\r\n\
         m=audio 40376 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
    )
}

/// An INVITE of 805 bytes with its description, as carriers send it.
///
/// # Panics
/// If it became longer than that.
#[must_use]
pub fn invite(flow: &str, n: u64) -> String {
    let body = sdp("carrier");
    let head = format!(
        "INVITE sip:{flow}@{ENGINE} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {CALLER};rport;branch=z9hG4bK74bf9a{n:08x}\r\n\
         Max-Forwards: 69\r\n\
         From: \"Alice Example\" <sip:+4930123456@203.0.113.7>;tag=9fx{n:08x}\r\n\
         To: <sip:{flow}@198.51.100.20>\r\n\
         Call-ID: 38482762{n:08x}@203.0.113.7\r\n\
         CSeq: 1 INVITE\r\n\
         Contact: <sip:+4930123456@{CALLER};transport=udp>\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO\r\n\
         Content-Type: application/sdp\r\n"
    );
    let tail = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let pad = 805usize.checked_sub(head.len() + tail.len() + "Subject: \r\n".len()).expect("the message fits");
    format!("{head}Subject: {}\r\n{tail}", "p".repeat(pad))
}

/// A request of the caller's in the dialog that `ok`, the answer to its INVITE, made.
#[must_use]
pub fn in_dialog(ok: &str, method: &str, cseq: u32) -> String {
    format!(
        "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};rport;branch=z9hG4bK{method}{cseq}{id:.8}\r\nMax-Forwards: 69\r\n\
         {from}\r\n{to}\r\nCall-ID: {id}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
        target = line(ok, "Contact: ").trim_start_matches("Contact: <").trim_end_matches('>'),
        from = line(ok, "From: "),
        to = line(ok, "To: "),
        id = line(ok, "Call-ID: ").trim_start_matches("Call-ID: "),
    )
}

/// The answer of `name`, who is at `addr`; the final answer to an INVITE has a description.
#[must_use]
pub fn answer(request: &str, code: u16, name: &str, addr: &str) -> String {
    let body = if code == 200 && request.starts_with("INVITE") { sdp(name) } else { String::new() };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    let to = line(request, "To: ");
    let tag = if to.contains(";tag=") || code == 100 { String::new() } else { format!(";tag={name}4711") };
    format!(
        "SIP/2.0 {code} X\r\n{via}\r\n{from}\r\n{to}{tag}\r\n{id}\r\n{cseq}\r\nContact: <sip:{name}@{addr}>\r\n{kind}\
         Content-Length: {len}\r\n\r\n{body}",
        via = line(request, "Via: "),
        from = line(request, "From: "),
        id = line(request, "Call-ID: "),
        cseq = line(request, "CSeq: "),
        len = body.len(),
    )
}

/// The first line that begins so.
#[must_use]
pub fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find(|l| l.starts_with(name)).unwrap_or_default()
}
