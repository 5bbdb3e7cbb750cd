//! Answers, by copying slices of the request into a buffer that the caller keeps.
//!
//! A response is the status line, then what the request dictates (its *head*: Via lines with `received` and
//! `rport` filled in, From, To, Call-ID, CSeq, and where due Timestamp and Record-Route), then what the answer
//! adds. A server transaction keeps the head ([`write_head`]: bytes in its own buffer and a [`ReplyHead`] of
//! offsets) and writes each answer from it ([`write_reply`]) when the request is long gone;
//! a stateless answer is written in one step ([`write_answer`]).
//!
//! Whatever came in, each field written is one line that ends in CRLF: folds and stray CR or LF become a space.

use super::text::{find_top, push_number, split_top, trim, trim_end, trim_start, unfold};
use super::{Message, Method, Name, NameAddr, Via, any_ip, reason_phrase};
use memchr::memchr2;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// What an answer adds to the head. Every slice must be free of line ends except `extra` and `body`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reply<'a> {
    pub code: u16,
    /// Reason phrase; empty for [`reason_phrase`].
    pub reason: &'a str,
    /// Tag for To, used when the request's To has none (a malformed one is left as it is); empty for none (100).
    pub to_tag: &'a [u8],
    /// Value of Contact; empty for none.
    pub contact: &'a [u8],
    /// Ready header lines, each with its CRLF.
    pub extra: &'a [u8],
    /// Value of Content-Type; empty for none.
    pub content_type: &'a [u8],
    pub body: &'a [u8],
}

/// Offsets into the bytes of a head, from its beginning; see [`write_head`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplyHead {
    /// Where `;tag=` goes: past the To value.
    to_end: u32,
    /// Past CSeq: what every response copies. Then Timestamp up to `timestamp_end`, then Record-Route.
    core_end: u32,
    timestamp_end: u32,
    end: u32,
    to_tagged: bool,
}

impl ReplyHead {
    /// Whether the request's To carried a tag: [`Reply::to_tag`] is then not used.
    #[must_use]
    pub const fn to_tagged(&self) -> bool {
        self.to_tagged
    }

    /// Bytes of the head.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.end as usize
    }

    /// The offsets laid open, to be written down with the head: past To, past CSeq, past Timestamp; and
    /// [`to_tagged`](Self::to_tagged).
    #[must_use]
    pub const fn parts(&self) -> ([u32; 3], bool) {
        ([self.to_end, self.core_end, self.timestamp_end], self.to_tagged)
    }

    /// The reverse of [`parts`](Self::parts), for this head; `None` when they do not fit it.
    #[must_use]
    pub fn new(head: &[u8], [to_end, core_end, timestamp_end]: [u32; 3], to_tagged: bool) -> Option<ReplyHead> {
        let end = u32::try_from(head.len()).ok()?;
        let ordered = [to_end, core_end, timestamp_end, end].is_sorted();
        ordered.then_some(ReplyHead { to_end, core_end, timestamp_end, end, to_tagged })
    }

    /// True for a head that nothing was written to.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end == 0
    }
}

/// Appends to `out` the part of a response that is copied from its request (RFC 3261 sections 8.2.6 and 18.2.1,
/// RFC 3581), `source` being where the request came from. The offsets returned count from `out`'s length before.
pub fn write_head(req: &Message<'_>, source: SocketAddr, out: &mut Vec<u8>) -> ReplyHead {
    let base = out.len();
    let at = |out: &Vec<u8>| (out.len() - base) as u32;
    let mut head = ReplyHead { to_tagged: is_tagged(req), ..ReplyHead::default() };
    write_vias(req, source, out);
    write_copy(req, Name::From, out);
    if let Some(to) = req.first(Name::To) {
        out.extend_from_slice(b"To: ");
        one_line(to, out);
        head.to_end = at(out);
        out.extend_from_slice(b"\r\n");
    }
    write_copy(req, Name::CallId, out);
    write_copy(req, Name::CSeq, out);
    head.core_end = at(out);
    write_copy(req, Name::Timestamp, out);
    head.timestamp_end = at(out);
    if copies_record_route(req, head.to_tagged) {
        write_copy(req, Name::RecordRoute, out);
    }
    head.end = at(out);
    head
}

/// Appends a response: `head_bytes` are what [`write_head`] wrote and nothing else.
pub fn write_reply(head_bytes: &[u8], head: &ReplyHead, reply: &Reply<'_>, out: &mut Vec<u8>) {
    let part = |from: u32, to: u32| head_bytes.get(from as usize..to as usize).unwrap_or_default();
    write_status_line(reply, out);
    out.extend_from_slice(part(0, head.to_end));
    if !head.to_tagged && head.to_end > 0 {
        write_tag(reply, out);
    }
    out.extend_from_slice(part(head.to_end, head.core_end));
    if reply.code == 100 {
        out.extend_from_slice(part(head.core_end, head.timestamp_end));
    }
    if wants_record_route(reply.code) {
        out.extend_from_slice(part(head.timestamp_end, head.end));
    }
    write_tail(reply, out);
}

/// Appends a response to `req` in one step, for answers of which nothing is kept.
pub fn write_answer(req: &Message<'_>, source: SocketAddr, reply: &Reply<'_>, out: &mut Vec<u8>) {
    let tagged = is_tagged(req);
    write_status_line(reply, out);
    write_vias(req, source, out);
    write_copy(req, Name::From, out);
    if let Some(to) = req.first(Name::To) {
        out.extend_from_slice(b"To: ");
        one_line(to, out);
        if !tagged {
            write_tag(reply, out);
        }
        out.extend_from_slice(b"\r\n");
    }
    write_copy(req, Name::CallId, out);
    write_copy(req, Name::CSeq, out);
    if reply.code == 100 {
        write_copy(req, Name::Timestamp, out);
    }
    if wants_record_route(reply.code) && copies_record_route(req, tagged) {
        write_copy(req, Name::RecordRoute, out);
    }
    write_tail(reply, out);
}

/// Where the response to a request with this top Via goes over datagrams, the request having come from `source`
/// (RFC 3261 section 18.2.2, RFC 3581 section 4): a literal `maddr`, else the source address; the source port
/// where `rport` asks for it, else the port of sent-by or 5060.
#[must_use]
pub fn via_reply_path(via: &Via<'_>, source: SocketAddr) -> SocketAddr {
    let port = via.port.unwrap_or(5060);
    if let Some(ip) = via.maddr().and_then(any_ip) {
        return SocketAddr::new(ip, port);
    }
    match via.rport() {
        Some(_) => source,
        None => SocketAddr::new(source.ip(), port),
    }
}

/// Whether To has a tag, even an empty one: no parameter may occur twice (RFC 3261 section 7.3.1).
fn is_tagged(req: &Message<'_>) -> bool {
    let to = req.first(Name::To).and_then(|to| NameAddr::parse(to, Name::To).ok());
    to.is_some_and(|to| to.params.has("tag"))
}

/// Record-Route matters to the peer only in answers that can make a dialog (RFC 3261 section 12.1.1).
fn copies_record_route(req: &Message<'_>, to_tagged: bool) -> bool {
    !to_tagged && req.method().is_some_and(|m: Method<'_>| m.forms_dialog())
}

const fn wants_record_route(code: u16) -> bool {
    code > 100 && code < 300
}

pub(crate) fn write_status_line(reply: &Reply<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"SIP/2.0 ");
    push_number(u64::from(reply.code), out);
    out.push(b' ');
    let reason = if reply.reason.is_empty() { reason_phrase(reply.code) } else { reply.reason };
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_tag(reply: &Reply<'_>, out: &mut Vec<u8>) {
    if !reply.to_tag.is_empty() {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(reply.to_tag);
    }
}

pub(crate) fn write_tail(reply: &Reply<'_>, out: &mut Vec<u8>) {
    if !reply.contact.is_empty() {
        write_field(b"Contact: ", reply.contact, out);
    }
    out.extend_from_slice(reply.extra);
    if !reply.content_type.is_empty() {
        write_field(b"Content-Type: ", reply.content_type, out);
    }
    out.extend_from_slice(b"Content-Length: ");
    push_number(reply.body.len() as u64, out);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(reply.body);
}

fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The value on one line.
pub(crate) fn one_line(value: &[u8], out: &mut Vec<u8>) {
    if memchr2(b'\r', b'\n', value).is_some() {
        unfold(value, out);
    } else {
        out.extend_from_slice(value);
    }
}

/// All lines of a field, under its long name.
fn write_copy(req: &Message<'_>, id: Name, out: &mut Vec<u8>) {
    for value in req.all(id) {
        write_line(id, value, b"", out);
    }
}

/// One line, with `;tag=` behind the value where `tag` is not empty.
pub(crate) fn write_line(id: Name, value: &[u8], tag: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(id.text().as_bytes());
    out.extend_from_slice(b": ");
    one_line(value, out);
    if !tag.is_empty() {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(tag);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_vias(req: &Message<'_>, source: SocketAddr, out: &mut Vec<u8>) {
    let mut lines = req.all(Name::Via);
    if let Some(top) = lines.next() {
        write_top_via(top, source, out);
    }
    for value in lines {
        out.extend_from_slice(b"Via: ");
        one_line(value, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// The first Via line, with `received` and `rport` of its first value set to `source`. A `received` that came
/// with the request is a forgery or a mistake and goes (only the next server fills it in).
pub(crate) fn write_top_via(line: &[u8], source: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Via: ");
    let (value, more) = split_top(line, b',');
    let Ok(via) = Via::parse(value) else {
        one_line(line, out);
        out.extend_from_slice(b"\r\n");
        return;
    };
    one_line(trim(&value[..find_top(value, b';').unwrap_or(value.len())]), out);
    let mut asked = false;
    for piece in via.params.pieces() {
        let name = trim_end(split_top(piece, b'=').0);
        if name.eq_ignore_ascii_case(b"rport") {
            asked = true;
            out.extend_from_slice(b";rport=");
            push_number(u64::from(source.port()), out);
        } else if !name.eq_ignore_ascii_case(b"received") {
            out.push(b';');
            one_line(piece, out);
        }
    }
    // A dual-stack socket shows IPv4 peers as mapped addresses.
    let ip = source.ip().to_canonical();
    if asked || via.host.ip().map(|host| host.to_canonical()) != Some(ip) {
        out.extend_from_slice(b";received=");
        push_ip(ip, out);
    }
    if let Some(more) = more {
        out.extend_from_slice(b", ");
        one_line(trim_start(more), out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends an address; IPv6 without brackets, as `received` has it (RFC 5118 section 4.5).
fn push_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(v4) => {
            for (i, octet) in v4.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                push_number(u64::from(octet), out);
            }
        }
        IpAddr::V6(v6) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{v6}");
        }
    }
}
