//! A zero-copy view of a SIP message over the bytes that came in.
//!
//! [`Message::parse`] makes a table of offsets, one row a header field, inside the value itself: nothing is
//! allocated, values are read when asked for. [`write`] answers by copying slices of the request.
//!
//! Invariants:
//! 1. No input makes any function here panic; every offset in the table lies inside the message.
//! 2. The time to parse is linear in the head's length; the body is never looked at.
//! 3. What `Message::parse` accepts has one each of Via (at least), From, To, Call-ID and CSeq, a CSeq that fits
//!    the method, and a body of the length that Content-Length says. [`Message::parse_head`] accepts what can be
//!    answered at all, so that a refusal can be written.

mod error;
mod method;
mod name;
mod params;
mod status;
mod text;
mod typed;
mod uri;
mod value;
pub mod write;

pub use error::{ParseError, Result};
pub use method::Method;
pub use name::Name;
pub use params::Params;
pub use status::reason_phrase;
pub use text::{number, percent_decode, push_number, trim, unescape, unfold};
pub use uri::{HostRef, Scheme, Uri};
pub use value::{CSeq, ContentType, DialogRef, NameAddr, RAck, Refresher, SessionExpires, Token, Via};
pub use write::{Reply, ReplyHead, via_reply_path, write_answer, write_head, write_reply};

pub(crate) use text::{find_top, is_blank, trim_end, trim_start};
pub(crate) use uri::any_ip;

use crate::bytes::find;
use memchr::memchr;
use name::NAMES;
use std::cell::Cell;
use text::{has_blank, is_token};

/// Hard cap of header fields: the size of the table.
pub const MAX_HEADERS: usize = 96;

/// What a message may hold; more is refused before anything is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a whole message; at most 65535 counts.
    pub max_message: usize,
    /// Header fields; at most [`MAX_HEADERS`] counts.
    pub max_headers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_message: usize::from(u16::MAX), max_headers: MAX_HEADERS }
    }
}

/// The first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    Request { method: Method<'a>, uri: &'a [u8] },
    Response { code: u16, reason: &'a [u8] },
}

/// One header field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    pub id: Name,
    /// The name as written.
    pub name: &'a [u8],
    /// The value without leading and trailing blanks; may still hold folds ([`unfold`]).
    pub value: &'a [u8],
    /// The whole line, folds and line end included.
    pub line: &'a [u8],
}

/// A row of the table: offsets into the message.
#[derive(Debug, Clone, Copy)]
struct Row {
    start: u16,
    value: u16,
    /// Past the line end of the last fold.
    end: u16,
    id: u8,
}

/// A tag that is looked for more than once: where it stands in the message.
#[derive(Debug, Clone, Copy)]
enum Tag {
    Unknown,
    At {
        start: u16,
        len: u16,
    },
    /// There is none, or its field is missing or malformed.
    None,
}

/// No row.
const NONE: u8 = u8::MAX;

/// A message over its bytes. About 900 bytes: pass it by reference.
#[derive(Clone)]
pub struct Message<'a> {
    /// From the first line to the end of the body.
    raw: &'a [u8],
    start: Start<'a>,
    /// What makes a message unfit that can still be answered.
    fault: Option<ParseError>,
    body: u16,
    count: u8,
    /// First row of each name.
    first: [u8; NAMES],
    /// Tags of From and To, once they have been looked for.
    tags: [Cell<Tag>; 2],
    rows: [Row; MAX_HEADERS],
}

impl<'a> Message<'a> {
    /// Parses a datagram (or one framed message of a stream). Leading line ends are skipped, bytes beyond
    /// Content-Length are ignored (RFC 3261 sections 7.5 and 18.3). Values are checked when they are asked for:
    /// see [`Message::check_request`].
    ///
    /// # Errors
    /// See [`ParseError`]; where it is a request's, [`Message::parse_head`] may still give what a refusal needs.
    pub fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Message<'a>> {
        let mut message = Message::blank();
        message.read(bytes, limits)?;
        if let Some(fault) = message.fault {
            return Err(fault);
        }
        message.check_fields()?;
        Ok(message)
    }

    /// Parses what can be made out of a message, so that it can be refused: the table of its header fields, as far
    /// as the limits allow. Such a message may lack or repeat fields and its body may be cut.
    ///
    /// # Errors
    /// When the first line is none of SIP or nothing is there: no answer is possible.
    pub fn parse_head(bytes: &'a [u8], limits: &Limits) -> Result<Message<'a>> {
        let mut message = Message::blank();
        message.read(bytes, limits)?;
        Ok(message)
    }

    const fn blank() -> Message<'a> {
        Message {
            raw: b"",
            start: Start::Response { code: 0, reason: b"" },
            fault: None,
            body: 0,
            count: 0,
            first: [NONE; NAMES],
            tags: [const { Cell::new(Tag::Unknown) }; 2],
            rows: [Row { start: 0, value: 0, end: 0, id: 0 }; MAX_HEADERS],
        }
    }

    /// Fills a blank one, in its place: the value is large.
    fn read(&mut self, bytes: &'a [u8], limits: &Limits) -> Result<()> {
        let skip = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).ok_or(ParseError::Empty)?;
        let mut raw = &bytes[skip..];
        let mut fault = None;
        let most = limits.max_message.min(usize::from(u16::MAX));
        if raw.len() > most {
            raw = &raw[..most];
            fault = Some(ParseError::TooLong);
        }
        let end = memchr(b'\n', raw).ok_or(ParseError::BadStartLine)?;
        let line = &raw[..end];
        let (start, bad_start) = start_line(line.strip_suffix(b"\r").unwrap_or(line))?;
        (self.raw, self.start, self.fault) = (raw, start, fault.or(bad_start));
        self.fill_table(end + 1, limits.max_headers.min(MAX_HEADERS));
        self.cut_body();
        Ok(())
    }

    /// One row a header field, from offset `at` to the empty line.
    fn fill_table(&mut self, mut at: usize, most: usize) {
        let raw = self.raw;
        loop {
            if at >= raw.len() {
                self.note(ParseError::NoEndOfHead);
                break;
            }
            if let Some(blank) = empty_line(&raw[at..]) {
                at += blank;
                break;
            }
            let end = line_end(raw, at);
            if usize::from(self.count) == most {
                self.note(ParseError::TooManyHeaders);
                at = raw.len();
                break;
            }
            self.add_row(at, end);
            at = end;
        }
        self.body = at as u16;
    }

    /// A line without a colon or a name is skipped: a malformed field that nobody needs must not matter
    /// (RFC 3261 section 8.2.2), and one that is needed will be missed.
    #[inline]
    fn add_row(&mut self, start: usize, end: usize) {
        let line = &self.raw[start..end];
        let Some(colon) = find(b':', line) else { return };
        let id = Name::of(trim_end(&line[..colon]));
        let value = trim_start(&line[colon + 1..]);
        let row = self.count;
        let first = &mut self.first[id as usize];
        if *first == NONE {
            *first = row;
        } else if id.single() {
            self.note(ParseError::DuplicateHeader(id));
        }
        self.rows[usize::from(row)] =
            Row { start: start as u16, value: (end - value.len()) as u16, end: end as u16, id: id as u8 };
        self.count = row + 1;
    }

    /// Ends the message where Content-Length says.
    fn cut_body(&mut self) {
        let Some(value) = self.first(Name::ContentLength) else { return };
        let there = self.raw.len() - usize::from(self.body);
        match number(value).and_then(|n| usize::try_from(n).ok()) {
            Some(n) if n <= there => self.raw = &self.raw[..usize::from(self.body) + n],
            _ => self.note(ParseError::BadContentLength),
        }
    }

    /// Keeps the first fault.
    fn note(&mut self, fault: ParseError) {
        self.fault = self.fault.or(Some(fault));
    }

    /// The fields without which nothing can be matched or answered (RFC 3261 section 8.1.1).
    fn check_fields(&self) -> Result<()> {
        for id in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
            if self.first[id as usize] == NONE {
                return Err(ParseError::MissingHeader(id));
            }
        }
        self.call_id()?;
        let cseq = self.cseq()?;
        match self.start {
            Start::Request { method, .. } if method != cseq.method => Err(ParseError::MethodMismatch),
            _ => Ok(()),
        }
    }

    /// The whole message: from its first line to the end of its body.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The first line.
    #[must_use]
    pub const fn start(&self) -> Start<'a> {
        self.start
    }

    /// What is wrong with a message of [`Message::parse_head`]; None for one of [`Message::parse`].
    #[must_use]
    pub const fn fault(&self) -> Option<ParseError> {
        self.fault
    }

    /// Whether it is a request.
    #[must_use]
    pub const fn is_request(&self) -> bool {
        matches!(self.start, Start::Request { .. })
    }

    /// Method of a request.
    #[must_use]
    pub const fn method(&self) -> Option<Method<'a>> {
        match self.start {
            Start::Request { method, .. } => Some(method),
            Start::Response { .. } => None,
        }
    }

    /// Request-URI, not checked: see [`Message::request_uri`].
    #[must_use]
    pub const fn uri(&self) -> Option<&'a [u8]> {
        match self.start {
            Start::Request { uri, .. } => Some(uri),
            Start::Response { .. } => None,
        }
    }

    /// Status code of a response, 100 to 699.
    #[must_use]
    pub const fn code(&self) -> Option<u16> {
        match self.start {
            Start::Response { code, .. } => Some(code),
            Start::Request { .. } => None,
        }
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.raw.get(usize::from(self.body)..).unwrap_or_default()
    }

    /// All header fields in their order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + '_ {
        self.rows[..usize::from(self.count)].iter().map(|row| self.header(row))
    }

    fn header(&self, row: &Row) -> Header<'a> {
        let line = &self.raw[usize::from(row.start)..usize::from(row.end)];
        let colon = line.iter().position(|b| *b == b':').unwrap_or(0);
        let name = trim_end(&line[..colon]);
        Header { id: Name::of(name), name, value: self.value(row), line }
    }

    #[inline]
    fn value(&self, row: &Row) -> &'a [u8] {
        trim_end(&self.raw[usize::from(row.value)..usize::from(row.end)])
    }

    /// Value of the first line of this field.
    #[must_use]
    pub fn first(&self, id: Name) -> Option<&'a [u8]> {
        match self.first[id as usize] {
            NONE => None,
            row => Some(self.value(&self.rows[usize::from(row)])),
        }
    }

    /// Whether the field is there.
    #[must_use]
    pub const fn has(&self, id: Name) -> bool {
        self.first[id as usize] != NONE
    }

    /// Values of all lines of this field, in order, a line each.
    pub fn all(&self, id: Name) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.rows_of(id).map(|row| self.value(row))
    }

    fn rows_of(&self, id: Name) -> impl Iterator<Item = &Row> {
        let from = usize::from(self.first[id as usize].min(self.count));
        self.rows[from..usize::from(self.count)].iter().filter(move |row| row.id == id as u8)
    }

    /// The elements of a list field over all its lines, in document order: split at commas outside quotes and
    /// angle brackets, trimmed, empty ones left out.
    pub fn values(&self, id: Name) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.all(id).flat_map(split_list)
    }

    /// A field by any name, in any case, long or compact.
    #[must_use]
    pub fn other(&self, name: &str) -> Option<&'a [u8]> {
        match Name::of(name.as_bytes()) {
            Name::Other => self
                .rows_of(Name::Other)
                .map(|row| self.header(row))
                .find(|h| h.name.eq_ignore_ascii_case(name.as_bytes()))
                .map(|h| h.value),
            id => self.first(id),
        }
    }
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = self.raw.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
        write!(f, "Message({:?}, {} fields, {} bytes)", String::from_utf8_lossy(line), self.count, self.raw.len())
    }
}

/// The elements of one comma-separated value; see [`Message::values`].
pub fn split_list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        loop {
            let (element, tail) = text::split_top(rest?, b',');
            rest = tail;
            let element = trim(element);
            if !element.is_empty() {
                return Some(element);
            }
        }
    })
}

/// Length of the empty line that `rest` begins with: the end of the head.
#[inline]
pub(crate) fn empty_line(rest: &[u8]) -> Option<usize> {
    match rest {
        [b'\n', ..] => Some(1),
        [b'\r', b'\n', ..] => Some(2),
        _ => None,
    }
}

/// Offset past the line that starts at `at` and past its continuation lines (RFC 3261 section 7.3.1).
#[inline]
pub(crate) fn line_end(raw: &[u8], mut at: usize) -> usize {
    while let Some(lf) = memchr(b'\n', &raw[at..]) {
        at += lf + 1;
        if !matches!(raw.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
    raw.len()
}

/// Reads the first line; the second value is a fault that still allows an answer.
fn start_line(line: &[u8]) -> Result<(Start<'_>, Option<ParseError>)> {
    if is_sip(line) { Ok((status_line(line)?, None)) } else { request_line(line) }
}

fn is_sip(s: &[u8]) -> bool {
    s.get(..4).is_some_and(|s| s.eq_ignore_ascii_case(b"SIP/"))
}

/// `SIP/2.0 code reason`
fn status_line(line: &[u8]) -> Result<Start<'_>> {
    let space = memchr(b' ', line).ok_or(ParseError::BadStartLine)?;
    if &line[4..space] != b"2.0" {
        return Err(ParseError::BadVersion);
    }
    let rest = &line[space + 1..];
    let (code, reason) = rest.split_at_checked(3).ok_or(ParseError::BadStartLine)?;
    let code = number(code).and_then(|n| u16::try_from(n).ok()).filter(|n| (100..700).contains(n));
    match (code, reason) {
        (Some(code), [] | [b' ', ..]) => Ok(Start::Response { code, reason: trim(reason) }),
        _ => Err(ParseError::BadStartLine),
    }
}

/// `method uri SIP/2.0`
fn request_line(line: &[u8]) -> Result<(Start<'_>, Option<ParseError>)> {
    let space = memchr(b' ', line).ok_or(ParseError::BadStartLine)?;
    let method = &line[..space];
    if !is_token(method) {
        return Err(ParseError::BadStartLine);
    }
    let rest = trim_end(&line[space + 1..]);
    let space = memchr::memrchr(b' ', rest).ok_or(ParseError::BadStartLine)?;
    let version = &rest[space + 1..];
    if !is_sip(version) {
        return Err(ParseError::BadStartLine);
    }
    let uri = &rest[..space];
    let fault = if &version[4..] != b"2.0" {
        Some(ParseError::BadVersion)
    } else if uri.is_empty() || has_blank(uri) || line.ends_with(b" ") {
        // Blanks in or around the URI, or behind the version (RFC 4475 sections 3.1.2.7 to 3.1.2.9).
        Some(ParseError::BadStartLine)
    } else {
        None
    };
    Ok((Start::Request { method: Method::of(method), uri: trim(uri) }, fault))
}
