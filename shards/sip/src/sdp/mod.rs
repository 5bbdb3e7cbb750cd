//! Session descriptions (RFC 4566/8866) as views over their bytes, and the few edits that a relaying engine makes.
//!
//! Bodies pass through as they are; what is read here decides (is it audio or chat, could an answer serve as an
//! offer, did an address move), what is written ([`edit`], [`multipart`]) changes single lines.
//!
//! Invariants:
//! 1. No input makes a function here panic, and none takes more than linear time in the body's length (for a
//!    bounded number of formats).
//! 2. An edit leaves every byte alone that it does not name.

pub mod edit;
pub mod multipart;

pub use edit::{Origin, differs_in_media, hold_inactive, pad_media, rewrite_origin, trim_media};
pub use multipart::{find_sdp, rewrite_body_origin};

use crate::bytes::{self, find};
use crate::msg::{number, trim};
use std::net::IpAddr;
use std::ops::Range;

/// Why a session description cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    #[error("session description does not begin with v=0")]
    NoVersion,
    #[error("session description has no o= line")]
    NoOrigin,
    #[error("m= line is malformed")]
    BadMedia,
    #[error("the body holds no session description")]
    NotFound,
}

/// A line `kind=value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The letter; 0 for a line that is not of this form.
    pub kind: u8,
    /// What follows `=`, without the line end.
    pub value: &'a [u8],
    /// The whole line with its end.
    pub raw: &'a [u8],
}

/// The lines of a description; LF and CRLF both end one.
pub fn lines(body: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = find(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (raw, tail) = rest.split_at(end);
        rest = tail;
        let text = raw.strip_suffix(b"\n").unwrap_or(raw);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        Some(match text {
            [kind, b'=', value @ ..] => Line { kind: *kind, value, raw },
            _ => Line { kind: 0, value: text, raw },
        })
    })
}

/// What the media of a description are to the call centre (specification "call-center", on the media type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Transport holds "RTP".
    Audio,
    /// Transport holds "MSRP".
    Chat,
    /// Neither.
    Other,
    /// No m-line, or each with port 0.
    Unusable,
}

/// Direction of a stream (RFC 3264 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    /// The direction that an attribute name says, if it is one.
    #[must_use]
    pub fn of(attribute: &[u8]) -> Option<Direction> {
        match attribute {
            b"sendrecv" => Some(Direction::SendRecv),
            b"sendonly" => Some(Direction::SendOnly),
            b"recvonly" => Some(Direction::RecvOnly),
            b"inactive" => Some(Direction::Inactive),
            _ => None,
        }
    }
}

/// The fields of an o= line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginRef<'a> {
    pub user: &'a [u8],
    /// Session id and version: numbers by the RFC, but kept as written.
    pub session: &'a [u8],
    pub version: &'a [u8],
    /// Network type, address type and address ("IN IP4 192.0.2.1").
    pub address: &'a [u8],
}

/// A view of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sdp<'a> {
    body: &'a [u8],
    /// Length of the session part, up to the first m= line.
    session: usize,
    /// Where its first o= line begins.
    origin: usize,
}

impl<'a> Sdp<'a> {
    /// Looks at what every description must have: `v=0` first, an o= line, m= lines of the right form.
    ///
    /// # Errors
    /// See [`SdpError`].
    pub fn parse(body: &'a [u8]) -> Result<Sdp<'a>, SdpError> {
        let mut session = body.len();
        let mut origin = None;
        let mut rest = body;
        if lines(body).next().is_none_or(|first| first.kind != b'v' || trim(first.value) != b"0") {
            return Err(SdpError::NoVersion);
        }
        // Most lines are attributes, which nobody looks at here.
        while let [kind, next, ..] = rest {
            match (kind, next) {
                (b'o', b'=') if session == body.len() && origin.is_none() => origin = Some(body.len() - rest.len()),
                (b'm', b'=') => {
                    session = session.min(body.len() - rest.len());
                    let line = lines(rest).next().and_then(|line| MediaLine::parse(line.value));
                    line.ok_or(SdpError::BadMedia)?;
                }
                _ => {}
            }
            rest = find(b'\n', rest).map_or(b"", |end| &rest[end + 1..]);
        }
        let origin = origin.ok_or(SdpError::NoOrigin)?;
        Ok(Sdp { body, session, origin })
    }

    /// The bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.body
    }

    /// The session part, up to the first m= line.
    #[must_use]
    pub fn session(&self) -> &'a [u8] {
        &self.body[..self.session]
    }

    /// Where the first o= line is, without its line feed.
    #[must_use]
    pub fn origin_text(&self) -> Range<usize> {
        let rest = &self.session()[self.origin..];
        self.origin..self.origin + find(b'\n', rest).unwrap_or(rest.len())
    }

    /// The o= line; None where its fields are not six.
    #[must_use]
    pub fn origin(&self) -> Option<OriginRef<'a>> {
        let value = lines(self.session()).find(|l| l.kind == b'o')?.value;
        let (user, rest) = word(value)?;
        let (session, rest) = word(rest)?;
        let (version, rest) = word(rest)?;
        let address = trim(rest);
        (words(address).count() == 3).then_some(OriginRef { user, session, version, address })
    }

    /// The session's c= value ("IN IP4 192.0.2.1"), which holds for each stream without one of its own.
    #[must_use]
    pub fn connection(&self) -> Option<&'a [u8]> {
        connection_in(self.session())
    }

    /// Attributes of the session part.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        attributes(self.session())
    }

    /// The streams, in their order.
    pub fn media(&self) -> impl Iterator<Item = Media<'a>> + use<'a> {
        let (connection, direction) = (self.connection(), direction_in(self.session()));
        let mut rest = &self.body[self.session..];
        std::iter::from_fn(move || {
            let head = lines(rest).next()?;
            let more = lines(&rest[head.raw.len()..]).take_while(|l| l.kind != b'm');
            let len = head.raw.len() + more.map(|l| l.raw.len()).sum::<usize>();
            let (section, tail) = rest.split_at(len);
            rest = tail;
            Some(Media { line: MediaLine::parse(head.value)?, section, connection, direction })
        })
    }

    /// How many m= lines there are.
    #[must_use]
    pub fn media_count(&self) -> usize {
        media_lines(&self.body[self.session..])
    }

    /// Audio or chat: by the transport of the first m= line that is in use (port not 0).
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        let mut lines = lines(&self.body[self.session..]).filter(|l| l.kind == b'm');
        match lines.find_map(|l| MediaLine::parse(l.value).filter(|m| m.port != 0)) {
            None => Flavour::Unusable,
            Some(m) if contains(m.proto, b"MSRP") => Flavour::Chat,
            Some(m) if contains(m.proto, b"RTP") => Flavour::Audio,
            Some(_) => Flavour::Other,
        }
    }

    /// Whether an answer of this kind could not serve as an offer to somebody else: roles are fixed in it
    /// (`a=setup`, with DTLS or with MSRP over connections made comedia-wise, RFC 4145 and 6135) or ICE
    /// credentials (`a=ice-ufrag`). The engine then lets the agent make the offer ("delayed").
    #[must_use]
    pub fn answer_cannot_offer(&self) -> bool {
        attributes(self.body).any(|(name, _)| matches!(name, b"setup" | b"ice-ufrag"))
    }
}

/// How many m= lines a description, or a part of one, has.
#[must_use]
fn media_lines(part: &[u8]) -> usize {
    let (mut count, mut rest) = (0, part);
    while !rest.is_empty() {
        count += usize::from(rest.starts_with(b"m="));
        rest = find(b'\n', rest).map_or(b"", |end| &rest[end + 1..]);
    }
    count
}

/// The value of an m= line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaLine<'a> {
    /// "audio", "message", ...
    pub kind: &'a [u8],
    /// 0 for a refused or removed stream.
    pub port: u16,
    /// Transport: "RTP/AVP", "TCP/MSRP", ...
    pub proto: &'a [u8],
    /// Formats, separated by blanks.
    pub formats: &'a [u8],
}

impl<'a> MediaLine<'a> {
    fn parse(value: &'a [u8]) -> Option<MediaLine<'a>> {
        let (kind, rest) = word(value)?;
        let (port, rest) = word(rest)?;
        let (proto, rest) = word(rest)?;
        let port = port.split(|b| *b == b'/').next()?;
        let port = u16::try_from(number(port)?).ok()?;
        Some(MediaLine { kind, port, proto, formats: trim(rest) })
    }
}

/// One stream with its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media<'a> {
    pub line: MediaLine<'a>,
    section: &'a [u8],
    /// The session's, for a stream without its own.
    connection: Option<&'a [u8]>,
    direction: Option<Direction>,
}

impl<'a> Media<'a> {
    /// The bytes from its m= line to the next.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.section
    }

    /// Formats, in their order.
    pub fn formats(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        words(self.line.formats)
    }

    /// Attributes of the stream: name and value.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        attributes(self.section)
    }

    /// Value of the attribute `name`: None when absent, `Some(None)` without a value.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.attributes().find(|(n, _)| *n == name.as_bytes()).map(|(_, v)| v)
    }

    /// Its c= value, or the session's.
    #[must_use]
    pub fn connection(&self) -> Option<&'a [u8]> {
        connection_in(self.section).or(self.connection)
    }

    /// The address of its connection, when it is a literal one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        let address = words(self.connection()?).nth(2)?;
        let address = address.split(|b| *b == b'/').next()?;
        crate::msg::any_ip(address)
    }

    /// Its direction, or the session's, or both ways (RFC 3264 section 5.1).
    #[must_use]
    pub fn direction(&self) -> Direction {
        direction_in(self.section).or(self.direction).unwrap_or(Direction::SendRecv)
    }
}

fn connection_in(part: &[u8]) -> Option<&[u8]> {
    lines(part).find(|l| l.kind == b'c').map(|l| trim(l.value))
}

fn direction_in(part: &[u8]) -> Option<Direction> {
    attributes(part).find_map(|(name, _)| Direction::of(name))
}

/// Attributes in a run of lines: name and value.
pub(crate) fn attributes(part: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    lines(part).filter(|l| l.kind == b'a').map(|l| match find(b':', l.value) {
        Some(at) => (&l.value[..at], Some(&l.value[at + 1..])),
        None => (trim(l.value), None),
    })
}

/// First word and what follows it.
fn word(s: &[u8]) -> Option<(&[u8], &[u8])> {
    let s = trim(s);
    let end = bytes::position(bytes::BLANK, s).unwrap_or(s.len());
    (end > 0).then(|| s.split_at(end))
}

/// Words between blanks.
pub(crate) fn words(s: &[u8]) -> impl Iterator<Item = &[u8]> {
    s.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty())
}

/// Whether `s` holds `part`, in any case.
fn contains(s: &[u8], part: &[u8]) -> bool {
    s.windows(part.len()).any(|w| w.eq_ignore_ascii_case(part))
}
