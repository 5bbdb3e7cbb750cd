//! The session description inside a body: the whole of it, or one part of a multipart (RFC 2046, RFC 5621).

use super::edit::{Origin, copy_with_origin};
use super::{Sdp, SdpError};
use crate::msg::{ContentType, Name, line_end, number, push_number, trim, trim_end};
use memchr::memchr;
use std::ops::Range;

/// Multiparts inside multiparts are searched so deep.
const DEPTH: usize = 4;

/// Where the session description stands in a body of this type; None where there is none.
#[must_use]
pub fn find_sdp(content_type: &ContentType<'_>, body: &[u8]) -> Option<Range<usize>> {
    find(content_type, body, DEPTH).map(|found| found.sdp)
}

/// Copies a body with the o= line of its session description replaced ([`super::rewrite_origin`]); all else passes byte for
/// byte. A Content-Length among the part's own fields, which some gateways write, follows the new length.
///
/// # Errors
/// [`SdpError::NotFound`], or what [`Sdp::parse`] says; nothing is written then.
pub fn rewrite_body_origin(
    content_type: &ContentType<'_>,
    body: &[u8],
    origin: &Origin<'_>,
    out: &mut Vec<u8>,
) -> Result<(), SdpError> {
    let found = find(content_type, body, DEPTH).ok_or(SdpError::NotFound)?;
    let sdp = &body[found.sdp.clone()];
    let sdp = Sdp::parse(sdp)?;
    let head = &body[..found.sdp.start];
    match found.length {
        None => out.extend_from_slice(head),
        Some(digits) => {
            // Its length is known only once it is written: write it, measure it, put the head before it.
            let base = out.len();
            copy_with_origin(&sdp, origin, out);
            let len = out.len() - base;
            out.truncate(base);
            out.extend_from_slice(&head[..digits.start]);
            push_number(len as u64, out);
            out.extend_from_slice(&head[digits.end..]);
        }
    }
    copy_with_origin(&sdp, origin, out);
    out.extend_from_slice(&body[found.sdp.end..]);
    Ok(())
}

/// Offsets into the outermost body.
struct Found {
    sdp: Range<usize>,
    /// The digits of the part's own Content-Length, where it has one that is right.
    length: Option<Range<usize>>,
}

fn find(content_type: &ContentType<'_>, body: &[u8], depth: usize) -> Option<Found> {
    if content_type.is_sdp() {
        return Some(Found { sdp: 0..body.len(), length: None });
    }
    if !content_type.is_multipart() || depth == 0 {
        return None;
    }
    let boundary = content_type.params.value("boundary").filter(|b| !b.is_empty())?;
    parts(body, boundary).find_map(|range| {
        let part = &body[range.clone()];
        let head = PartHead::read(part);
        let content = &part[head.end..];
        // RFC 2046 section 5.1: text/plain where nothing is said.
        let mut found = find(&ContentType::parse(head.content_type?)?, content, depth - 1)?;
        let start = range.start + head.end;
        found.length = match (found.length, head.length) {
            (Some(digits), _) => Some(start + digits.start..start + digits.end),
            (None, Some(digits)) if found.sdp.len() == content.len() && says(&part[digits.clone()], content.len()) => {
                Some(range.start + digits.start..range.start + digits.end)
            }
            _ => None,
        };
        found.sdp = start + found.sdp.start..start + found.sdp.end;
        Some(found)
    })
}

/// The fields before a part's content.
struct PartHead<'a> {
    content_type: Option<&'a [u8]>,
    length: Option<Range<usize>>,
    /// Where the content begins.
    end: usize,
}

impl PartHead<'_> {
    fn read(part: &[u8]) -> PartHead<'_> {
        let mut head = PartHead { content_type: None, length: None, end: 0 };
        loop {
            match &part[head.end..] {
                [] => return head,
                [b'\n', ..] => head.end += 1,
                [b'\r', b'\n', ..] => head.end += 2,
                _ => {
                    let end = line_end(part, head.end);
                    let line = &part[head.end..end];
                    if let Some(colon) = memchr(b':', line) {
                        let value = trim(&line[colon + 1..]);
                        match Name::of(trim_end(&line[..colon])) {
                            Name::ContentType => head.content_type = Some(value),
                            Name::ContentLength => {
                                let start = end - (line.len() - colon - 1) + leading(&line[colon + 1..]);
                                head.length = Some(start..start + value.len());
                            }
                            _ => {}
                        }
                    }
                    head.end = end;
                    continue;
                }
            }
            return head;
        }
    }
}

/// Whether `digits` are the number `n`.
fn says(digits: &[u8], n: usize) -> bool {
    number(digits).and_then(|d| usize::try_from(d).ok()) == Some(n)
}

/// How many blanks a value begins with.
fn leading(value: &[u8]) -> usize {
    value.len() - crate::msg::trim_start(value).len()
}

/// The parts between the delimiter lines: fields and content, without the line end that belongs to the delimiter.
fn parts<'a>(body: &'a [u8], boundary: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
    let mut delimiters = delimiters(body, boundary);
    let mut open = delimiters.next().filter(|d| !d.last).map(|d| d.line.end);
    std::iter::from_fn(move || {
        let start = open?;
        let Some(next) = delimiters.next() else {
            // The closing delimiter is missing: what is there is the last part.
            open = None;
            return Some(start..body.len());
        };
        open = (!next.last).then_some(next.line.end);
        let content = &body[start..next.line.start];
        let content = content.strip_suffix(b"\n").unwrap_or(content);
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        Some(start..start + content.len())
    })
}

struct Delimiter {
    line: Range<usize>,
    last: bool,
}

/// Lines that are `--boundary` or `--boundary--`, blanks behind them allowed (RFC 2046 section 5.1.1).
fn delimiters<'a>(body: &'a [u8], boundary: &'a [u8]) -> impl Iterator<Item = Delimiter> + 'a {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < body.len() {
            let start = at;
            at = memchr(b'\n', &body[start..]).map_or(body.len(), |lf| start + lf + 1);
            let line = &body[start..at];
            if let Some(rest) = line.strip_prefix(b"--").and_then(|l| l.strip_prefix(boundary)) {
                match trim(rest) {
                    b"" => return Some(Delimiter { line: start..at, last: false }),
                    b"--" => return Some(Delimiter { line: start..at, last: true }),
                    _ => {}
                }
            }
        }
        None
    })
}
