//! Edits of a session description: each copies the body into a buffer and changes single lines.

use super::{Direction, Media, Sdp, SdpError, attributes, lines};
use crate::msg::push_number;
use std::io::Write;
use std::net::IpAddr;

/// The o= line that the engine keeps on a leg for the life of its dialog (RFC 3264 section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Must be free of blanks; empty writes "-".
    pub user: &'a [u8],
    pub session: u64,
    /// Raised by one whenever the body sent on the leg changes.
    pub version: u64,
    pub addr: IpAddr,
}

impl Origin<'_> {
    /// Appends `o=...`, without a line end.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"o=");
        out.extend_from_slice(if self.user.is_empty() { b"-" } else { self.user });
        out.push(b' ');
        push_number(self.session, out);
        out.push(b' ');
        push_number(self.version, out);
        out.extend_from_slice(if self.addr.is_ipv4() { b" IN IP4 " } else { b" IN IP6 " });
        match self.addr {
            IpAddr::V4(addr) => {
                for (i, octet) in addr.octets().into_iter().enumerate() {
                    if i > 0 {
                        out.push(b'.');
                    }
                    push_number(octet.into(), out);
                }
            }
            // Writing to a Vec cannot fail.
            IpAddr::V6(addr) => drop(write!(out, "{addr}")),
        }
    }
}

/// Copies `body` with its o= line replaced and every other byte as it is.
///
/// # Errors
/// When it is no session description ([`Sdp::parse`]); nothing is written then.
pub fn rewrite_origin(body: &[u8], origin: &Origin<'_>, out: &mut Vec<u8>) -> Result<(), SdpError> {
    copy_with_origin(&Sdp::parse(body)?, origin, out);
    Ok(())
}

/// See [`rewrite_origin`].
pub(super) fn copy_with_origin(sdp: &Sdp<'_>, origin: &Origin<'_>, out: &mut Vec<u8>) {
    let (body, at) = (sdp.raw(), sdp.origin_text());
    let text = &body[at.clone()];
    out.extend_from_slice(&body[..at.start]);
    origin.write(out);
    out.extend_from_slice(&text[text.strip_suffix(b"\r").unwrap_or(text).len()..]);
    out.extend_from_slice(&body[at.end..]);
}

/// Copies `body` with every direction attribute taken out and `a=inactive` at the end of each stream: the session
/// stands, no media flows (RFC 3264 section 8.4).
///
/// # Errors
/// When it is no session description; nothing is written then.
pub fn hold_inactive(body: &[u8], out: &mut Vec<u8>) -> Result<(), SdpError> {
    let sdp = Sdp::parse(body)?;
    let end = style(body);
    copy_without_directions(sdp.session(), end, out);
    for media in sdp.media() {
        copy_without_directions(media.raw(), end, out);
        out.extend_from_slice(b"a=inactive");
        out.extend_from_slice(end);
    }
    Ok(())
}

fn copy_without_directions(part: &[u8], end: &[u8], out: &mut Vec<u8>) {
    for line in lines(part) {
        if attributes(line.raw).any(|(name, _)| Direction::of(name).is_some()) {
            continue;
        }
        out.extend_from_slice(line.raw);
        close_line(out, end);
    }
}

/// Copies `offer` and appends, for each m-line of `like` beyond its own, one with port 0: an offer may not have
/// fewer streams than the session it changes (RFC 3264 section 8). Returns how many were added.
///
/// # Errors
/// When either is no session description; nothing is written then.
pub fn pad_media(offer: &[u8], like: &[u8], out: &mut Vec<u8>) -> Result<usize, SdpError> {
    let (sdp, like) = (Sdp::parse(offer)?, Sdp::parse(like)?);
    let end = style(offer);
    out.extend_from_slice(offer);
    let mut added = 0;
    for media in like.media().skip(sdp.media_count()) {
        close_line(out, end);
        out.extend_from_slice(b"m=");
        out.extend_from_slice(media.line.kind);
        out.extend_from_slice(b" 0 ");
        out.extend_from_slice(media.line.proto);
        out.push(b' ');
        out.extend_from_slice(if media.line.formats.is_empty() { b"*" } else { media.line.formats });
        out.extend_from_slice(end);
        added += 1;
    }
    Ok(added)
}

/// Copies `answer` with its first `keep` streams only: the answer to an offer that was padded
/// ([`pad_media`]) goes back to the offerer with as many m-lines as it had (RFC 3264 section 6).
///
/// # Errors
/// When it is no session description; nothing is written then.
pub fn trim_media(answer: &[u8], keep: usize, out: &mut Vec<u8>) -> Result<(), SdpError> {
    let sdp = Sdp::parse(answer)?;
    out.extend_from_slice(sdp.session());
    for media in sdp.media().take(keep) {
        out.extend_from_slice(media.raw());
    }
    Ok(())
}

/// Whether the far end must be told that `b` took the place of `a`: streams differ in kind, transport, address,
/// port or formats (their encodings included, their order not). Origin, direction and the rest do not count.
/// Bodies that are no session descriptions differ when their bytes do.
#[must_use]
pub fn differs_in_media(a: &[u8], b: &[u8]) -> bool {
    // Nearly always it is the same but for its version.
    if without_origin(a) == without_origin(b) {
        return false;
    }
    let (Ok(x), Ok(y)) = (Sdp::parse(a), Sdp::parse(b)) else { return a != b };
    x.media_count() != y.media_count() || x.media().zip(y.media()).any(|(m, n)| !same_stream(&m, &n))
}

/// What stands before a body's first o= line, and behind it.
fn without_origin(body: &[u8]) -> (&[u8], &[u8]) {
    let line = lines(body).find(|l| l.kind == b'o').map_or(&body[body.len()..], |l| l.raw);
    let at = line.as_ptr() as usize - body.as_ptr() as usize;
    (&body[..at], &body[at + line.len()..])
}

fn same_stream(m: &Media<'_>, n: &Media<'_>) -> bool {
    let (p, q) = (&m.line, &n.line);
    if p.kind != q.kind || p.port != q.port || !p.proto.eq_ignore_ascii_case(q.proto) {
        return false;
    }
    // A refused stream has no address and no formats that matter.
    if p.port == 0 {
        return true;
    }
    m.connection() == n.connection()
        // The address of an MSRP stream is its path (RFC 4975 section 8).
        && m.attribute("path") == n.attribute("path")
        && same_formats(m, n)
}

/// Beyond this many formats order counts, so that the comparison stays linear.
const MANY_FORMATS: usize = 64;

fn same_formats(m: &Media<'_>, n: &Media<'_>) -> bool {
    let same_set = || {
        m.formats().count() <= MANY_FORMATS
            && m.formats().count() == n.formats().count()
            && m.formats().all(|f| n.formats().any(|g| f == g))
            && n.formats().all(|f| m.formats().any(|g| f == g))
    };
    if m.line.formats != n.line.formats && !same_set() {
        return false;
    }
    m.formats().take(MANY_FORMATS).all(|f| encoding(m, f) == encoding(n, f))
}

/// What `a=rtpmap` says of a format.
fn encoding<'a>(m: &Media<'a>, format: &[u8]) -> Option<&'a [u8]> {
    attributes(m.raw())
        .filter(|(name, _)| *name == b"rtpmap")
        .filter_map(|(_, value)| value)
        .find_map(|v| v.strip_prefix(format)?.strip_prefix(b" "))
        .map(crate::msg::trim)
}

/// The line end of a body's first line.
fn style(body: &[u8]) -> &[u8] {
    match lines(body).next().map(|l| line_end(l.raw)) {
        Some(end) if !end.is_empty() => end,
        _ => b"\r\n",
    }
}

fn line_end(raw: &[u8]) -> &[u8] {
    if raw.ends_with(b"\r\n") {
        b"\r\n"
    } else if raw.ends_with(b"\n") {
        b"\n"
    } else {
        b""
    }
}

/// Ends the last line, where the body left it open.
fn close_line(out: &mut Vec<u8>, end: &[u8]) {
    if out.last() != Some(&b'\n') {
        out.extend_from_slice(end);
    }
}
