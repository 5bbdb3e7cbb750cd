//! Messages written as text: line ends become CRLF, Content-Length is filled in where the text says `<len>`.
#![allow(dead_code)] // each test binary uses a part

use std::net::SocketAddr;
use strowger_sip::msg::{Limits, Message, ParseError};

/// `text` with CRLF line ends; `<len>` becomes the length of what follows the first empty line.
pub fn wire(text: &str) -> Vec<u8> {
    let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
    let body = text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
    text.replace("<len>", &body.to_string()).into_bytes()
}

pub fn parse(bytes: &[u8]) -> Result<Message<'_>, ParseError> {
    Message::parse(bytes, &Limits::default())
}

/// What a user agent makes of a request: parse, then the full check.
pub fn accept(bytes: &[u8]) -> Result<(), ParseError> {
    parse(bytes)?.check_request()
}

pub fn source() -> SocketAddr {
    "192.0.2.99:5099".parse().expect("an address")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n")
}

pub const SDP: &str = "v=0
o=mhandley 29739 7272939 IN IP4 192.0.2.1
s=-
c=IN IP4 192.0.2.1
t=0 0
m=audio 49217 RTP/AVP 0 12
m=video 3227 RTP/AVP 31
a=rtpmap:31 LPC
";

/// An ordinary INVITE.
pub fn invite() -> Vec<u8> {
    wire(&format!(
        "INVITE sip:support@example.com SIP/2.0
Via: SIP/2.0/UDP 203.0.113.7:5060;rport;branch=z9hG4bK74bf9
Via: SIP/2.0/UDP 203.0.113.8;branch=z9hG4bK1, SIP/2.0/TCP [2001:db8::1]:5061;branch=z9hG4bK2
Max-Forwards: 70
From: \"Alice, A.\" <sip:alice@example.com>;tag=9fxced76sl
To: Support <sip:support@example.com>
Call-ID: 3848276298220188511@example.com
CSeq: 1 INVITE
Contact: <sip:alice@203.0.113.7:5060;transport=udp>
Record-Route: <sip:p2.example.com;lr>, <sip:p1.example.com;lr>
Timestamp: 54.3
Supported: timer, 100rel
Session-Expires: 1800;refresher=uac
Content-Type: application/sdp
Content-Length: <len>

{SDP}"
    ))
}
