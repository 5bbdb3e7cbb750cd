//! Messages are made once with rsip's types, with marks where values differ, and cut into templates:
//! a message on the wire is then a few copies.

use std::{io::Write as _, net::SocketAddr};

use rsip::prelude::*;

/// What differs from message to message.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Uri,
    Branch,
    From,
    To,
    CallId,
    CSeq,
    Contact,
    /// Whole header lines, possibly none: Via of an answer, Route of a request.
    Lines,
    RecordRoutes,
    Length,
    Body,
}

/// Marks that survive rsip's printing, in no order. Line marks take the whole line.
const MARKS: [(&str, Slot); 11] = [
    ("sip:slot-uri.invalid", Slot::Uri),
    ("slot-branch", Slot::Branch),
    ("slot-from", Slot::From),
    ("slot-to", Slot::To),
    ("slot-call-id", Slot::CallId),
    ("0 slot-cseq", Slot::CSeq),
    ("slot-contact", Slot::Contact),
    ("Via: slot-lines\r\n", Slot::Lines),
    ("Record-Route: slot-rr\r\n", Slot::RecordRoutes),
    ("slot-length", Slot::Length),
    ("slot-body", Slot::Body),
];

/// Values for the slots of a template.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fill<'a> {
    pub uri: &'a [u8],
    pub branch: &'a [u8],
    pub from: &'a [u8],
    pub to: &'a [u8],
    pub call_id: &'a [u8],
    /// Number and method.
    pub cseq: (u32, &'a [u8]),
    /// URI of the Contact, without `<>`.
    pub contact: &'a [u8],
    /// Complete header lines, each with its CRLF.
    pub lines: &'a [u8],
    pub record_routes: &'a [u8],
    pub body: &'a [u8],
}

/// A message with slots.
#[derive(Debug, Clone)]
pub struct Template {
    text: String,
    /// Literal up to this offset, then the slot.
    parts: Vec<(usize, Slot)>,
}

impl Template {
    /// Cuts a printed message at its marks.
    fn cut(printed: &str) -> Self {
        let mut found: Vec<(usize, &str, Slot)> = MARKS
            .iter()
            .flat_map(|(mark, slot)| printed.match_indices(mark).map(|(at, text)| (at, text, *slot)))
            .collect();
        found.sort_by_key(|(at, ..)| *at);
        let mut text = String::new();
        let mut parts = Vec::with_capacity(found.len());
        let mut from = 0;
        for (at, mark, slot) in found {
            text.push_str(&printed[from..at]);
            parts.push((text.len(), slot));
            from = at + mark.len();
        }
        text.push_str(&printed[from..]);
        Self { text, parts }
    }

    /// Appends the message to `out`.
    pub fn render(&self, out: &mut Vec<u8>, fill: &Fill<'_>) {
        let text = self.text.as_bytes();
        let mut from = 0;
        for &(until, slot) in &self.parts {
            out.extend_from_slice(&text[from..until]);
            from = until;
            match slot {
                Slot::Uri => out.extend_from_slice(fill.uri),
                Slot::Branch => out.extend_from_slice(fill.branch),
                Slot::From => out.extend_from_slice(fill.from),
                Slot::To => out.extend_from_slice(fill.to),
                Slot::CallId => out.extend_from_slice(fill.call_id),
                Slot::CSeq => {
                    push_number(out, u64::from(fill.cseq.0));
                    out.push(b' ');
                    out.extend_from_slice(fill.cseq.1);
                }
                Slot::Contact => out.extend_from_slice(fill.contact),
                Slot::Lines => out.extend_from_slice(fill.lines),
                Slot::RecordRoutes => out.extend_from_slice(fill.record_routes),
                Slot::Length => push_number(out, fill.body.len() as u64),
                Slot::Body => out.extend_from_slice(fill.body),
            }
        }
        out.extend_from_slice(&text[from..]);
    }
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{number}");
}

fn shared_headers() -> Vec<rsip::Header> {
    vec![
        rsip::headers::From::new("slot-from").into(),
        rsip::headers::To::new("slot-to").into(),
        rsip::headers::CallId::new("slot-call-id").into(),
        rsip::headers::CSeq::new("0 slot-cseq").into(),
    ]
}

fn allow() -> rsip::Header {
    use rsip::Method::{Ack, Bye, Cancel, Info, Invite, Message, Notify, Options, Update};
    let methods = vec![Invite, Ack, Bye, Cancel, Options, Info, Update, Message, Notify];
    rsip::headers::Allow::from(rsip::typed::Allow(methods)).into()
}

fn body_headers(with_body: bool) -> Vec<rsip::Header> {
    let mut headers = Vec::new();
    if with_body {
        let sdp = rsip::typed::ContentType(rsip::typed::MediaType::Sdp(Vec::new()));
        headers.push(rsip::headers::ContentType::from(sdp).into());
    }
    headers.push(rsip::headers::ContentLength::new("slot-length").into());
    headers
}

/// A request of ours, sent from `local`.
pub fn request(method: rsip::Method, local: SocketAddr, with_contact: bool, with_body: bool) -> Template {
    let host = rsip::HostWithPort::from((host_text(local), local.port()));
    let via = rsip::typed::Via {
        version: rsip::Version::V2,
        transport: rsip::Transport::Udp,
        uri: rsip::Uri { host_with_port: host, ..Default::default() },
        params: vec![
            rsip::Param::Branch(rsip::param::Branch::new("slot-branch")),
            rsip::Param::Other("rport".into(), None),
        ],
    };
    let mut headers: Vec<rsip::Header> = vec![
        rsip::headers::Via::from(via).into(),
        rsip::headers::Via::new("slot-lines").into(),
        rsip::headers::MaxForwards::default().into(),
    ];
    headers.extend(shared_headers());
    if with_contact {
        headers.push(rsip::headers::Contact::new("<slot-contact>").into());
        headers.push(allow());
    }
    headers.push(rsip::headers::UserAgent::new("strowger-loadtest").into());
    headers.extend(body_headers(with_body));
    let request = rsip::Request {
        method,
        uri: rsip::Uri {
            scheme: Some(rsip::Scheme::Sip),
            host_with_port: rsip::Domain::from("slot-uri.invalid").into(),
            ..Default::default()
        },
        version: rsip::Version::V2,
        headers: headers.into(),
        body: if with_body { b"slot-body".to_vec() } else { Vec::new() },
    };
    Template::cut(&request.to_string())
}

/// An answer of ours.
pub fn response(code: u16, with_contact: bool, with_body: bool) -> Template {
    let mut headers: Vec<rsip::Header> =
        vec![rsip::headers::Via::new("slot-lines").into(), rsip::headers::RecordRoute::new("slot-rr").into()];
    headers.extend(shared_headers());
    if with_contact {
        headers.push(rsip::headers::Contact::new("<slot-contact>").into());
    }
    if with_contact || code == 405 {
        headers.push(allow());
    }
    headers.extend(body_headers(with_body));
    let response = rsip::Response {
        status_code: code.into(),
        version: rsip::Version::V2,
        headers: headers.into(),
        body: if with_body { b"slot-body".to_vec() } else { Vec::new() },
    };
    Template::cut(&response.to_string())
}

/// An address's host as SIP writes it: IPv6 in brackets. (rsip's own host type prints none, so it is given as a name.)
pub fn host_text(address: SocketAddr) -> rsip::Domain {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string().into(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Method, Msg, Start};

    fn fill() -> Fill<'static> {
        Fill {
            uri: b"sip:support@127.0.0.1:5060",
            branch: b"z9hG4bKx",
            from: b"<sip:c1@h>;tag=a",
            to: b"<sip:support@h>",
            call_id: b"id",
            cseq: (3, b"INVITE"),
            contact: b"sip:c1@127.0.0.1:9",
            lines: b"Route: <sip:p;lr>\r\n",
            record_routes: b"",
            body: b"v=0\r\n",
        }
    }

    #[test]
    fn a_request_reads_back() {
        let template = request(rsip::Method::Invite, "[::1]:9".parse().unwrap(), true, true);
        let mut out = Vec::new();
        template.render(&mut out, &fill());
        let text = String::from_utf8(out.clone()).unwrap();
        assert!(!text.contains("slot"), "{text}");
        assert!(text.contains("Via: SIP/2.0/UDP [::1]:9;branch=z9hG4bKx;rport\r\n"), "{text}");
        let msg = Msg::parse(&out).unwrap();
        assert_eq!(msg.start, Start::Request { method: Method::Invite, uri: fill().uri });
        assert_eq!((msg.cseq, msg.body, msg.contact), (3, fill().body, &b"<sip:c1@127.0.0.1:9>"[..]));
        assert_eq!((msg.max_forwards, msg.content_length), (Some(70), Some(5)));
    }

    #[test]
    fn an_answer_reads_back_with_the_vias_that_it_is_given() {
        let mut out = Vec::new();
        let lines = b"Via: SIP/2.0/UDP a;branch=b\r\n";
        response(200, true, false).render(&mut out, &Fill { lines, body: b"", ..fill() });
        let msg = Msg::parse(&out).unwrap();
        assert_eq!(msg.start, Start::Response { code: 200 });
        assert_eq!((msg.branch(), msg.body, msg.content_length), (&b"b"[..], &b""[..], Some(0)));
    }
}
