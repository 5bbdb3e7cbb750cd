//! A small tolerant reader of SIP messages: one pass over the head, slices of the datagram, no allocation.
//!
//! Compact names, folded lines, LF-only lines and quoted strings are understood; unknown headers are skipped.
//! It reads what the generator needs and judges little: violations are counted by [`crate::check`].

/// Request methods that the generator tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Options,
    Info,
    Update,
    Message,
    Notify,
    Other,
}

impl Method {
    fn read(text: &[u8]) -> Self {
        match text {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"OPTIONS" => Self::Options,
            b"INFO" => Self::Info,
            b"UPDATE" => Self::Update,
            b"MESSAGE" => Self::Message,
            b"NOTIFY" => Self::Notify,
            _ => Self::Other,
        }
    }
}

/// The first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    Request { method: Method, uri: &'a [u8] },
    Response { code: u16 },
}

/// Most Via, Route and Record-Route lines that are kept; a message with more is [`Fault::TooMany`].
pub const MAX_LINES: usize = 12;

/// Header values of one name, in order, as raw slices (folds included).
#[derive(Debug, Clone, Copy, Default)]
pub struct Lines<'a> {
    values: [&'a [u8]; MAX_LINES],
    count: usize,
}

impl<'a> Lines<'a> {
    fn push(&mut self, value: &'a [u8]) -> Result<(), Fault> {
        *self.values.get_mut(self.count).ok_or(Fault::TooMany)? = value;
        self.count += 1;
        Ok(())
    }

    pub fn as_slice(&self) -> &[&'a [u8]] {
        &self.values[..self.count]
    }
}

/// A received message. Values are trimmed of outer white space.
#[derive(Debug, Clone, Copy)]
pub struct Msg<'a> {
    pub raw: &'a [u8],
    pub start: Start<'a>,
    pub vias: Lines<'a>,
    pub record_routes: Lines<'a>,
    pub routes: Lines<'a>,
    pub from: &'a [u8],
    pub to: &'a [u8],
    pub call_id: &'a [u8],
    /// The whole CSeq value, its number and its method.
    pub cseq_text: &'a [u8],
    pub cseq: u32,
    pub cseq_method: Method,
    pub contact: &'a [u8],
    pub max_forwards: Option<u32>,
    pub content_length: Option<usize>,
    pub body: &'a [u8],
}

/// Why a datagram is no SIP message that could be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("no SIP/2.0 request or status line")]
    StartLine,
    #[error("a header line without a colon")]
    Header,
    #[error("no end of the headers")]
    Unended,
    #[error("more Via, Route or Record-Route lines than are read")]
    TooMany,
    #[error("From, To, Call-ID, CSeq or Via is missing or broken")]
    Mandatory,
}

impl<'a> Msg<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// When it is no SIP message with the headers that every message must have.
    pub fn parse(raw: &'a [u8]) -> Result<Self, Fault> {
        let mut rest = raw;
        while let [b'\r' | b'\n', tail @ ..] = rest {
            rest = tail;
        }
        let (line, mut rest) = split_line(rest).ok_or(Fault::StartLine)?;
        let mut msg = Self {
            raw,
            start: read_start(line)?,
            vias: Lines::default(),
            record_routes: Lines::default(),
            routes: Lines::default(),
            from: b"",
            to: b"",
            call_id: b"",
            cseq_text: b"",
            cseq: 0,
            cseq_method: Method::Other,
            contact: b"",
            max_forwards: None,
            content_length: None,
            body: b"",
        };
        loop {
            let (line, tail) = split_header(rest).ok_or(Fault::Unended)?;
            rest = tail;
            if line.is_empty() {
                break;
            }
            let colon = memchr::memchr(b':', line).ok_or(Fault::Header)?;
            msg.header(line[..colon].trim_ascii_end(), line[colon + 1..].trim_ascii())?;
        }
        msg.body = msg.content_length.map_or(rest, |length| &rest[..length.min(rest.len())]);
        let complete = [msg.from, msg.to, msg.call_id, msg.cseq_text].iter().all(|value| !value.is_empty());
        if complete && msg.vias.count > 0 { Ok(msg) } else { Err(Fault::Mandatory) }
    }

    fn header(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Fault> {
        let is = |long: &[u8]| name.eq_ignore_ascii_case(long);
        match name.len() {
            1 => match name[0].to_ascii_lowercase() {
                b'v' => self.vias.push(value)?,
                b'f' => self.from = value,
                b't' => self.to = value,
                b'i' => self.call_id = value,
                b'm' => self.contact = value,
                b'l' => self.content_length = number(value),
                _ => {}
            },
            2 if is(b"To") => self.to = value,
            3 if is(b"Via") => self.vias.push(value)?,
            4 if is(b"From") => self.from = value,
            4 if is(b"CSeq") => self.read_cseq(value)?,
            5 if is(b"Route") => self.routes.push(value)?,
            7 if is(b"Call-ID") => self.call_id = value,
            7 if is(b"Contact") => self.contact = value,
            12 if is(b"Max-Forwards") => self.max_forwards = number(value).and_then(|n| u32::try_from(n).ok()),
            12 if is(b"Record-Route") => self.record_routes.push(value)?,
            14 if is(b"Content-Length") => self.content_length = number(value),
            _ => {}
        }
        Ok(())
    }

    fn read_cseq(&mut self, value: &'a [u8]) -> Result<(), Fault> {
        let space = value.iter().position(u8::is_ascii_whitespace).ok_or(Fault::Mandatory)?;
        self.cseq_text = value;
        self.cseq = number(&value[..space]).and_then(|n| u32::try_from(n).ok()).ok_or(Fault::Mandatory)?;
        self.cseq_method = Method::read(value[space..].trim_ascii());
        Ok(())
    }

    pub fn tag_in_from(&self) -> &'a [u8] {
        param(self.from, b"tag").unwrap_or(b"")
    }

    /// Empty where the message has none.
    pub fn tag_in_to(&self) -> &'a [u8] {
        param(self.to, b"tag").unwrap_or(b"")
    }

    /// Branch of the topmost Via.
    pub fn branch(&self) -> &'a [u8] {
        self.vias.as_slice().first().and_then(|via| param(via, b"branch")).unwrap_or(b"")
    }
}

fn read_start(line: &[u8]) -> Result<Start<'_>, Fault> {
    if let Some(status) = line.strip_prefix(b"SIP/2.0 ") {
        let code = status.get(..3).and_then(number).filter(|code| (100..700).contains(code)).ok_or(Fault::StartLine)?;
        return Ok(Start::Response { code: code as u16 });
    }
    let head = line.strip_suffix(b" SIP/2.0").ok_or(Fault::StartLine)?;
    let space = memchr::memchr(b' ', head).ok_or(Fault::StartLine)?;
    let uri = head[space + 1..].trim_ascii();
    if uri.is_empty() {
        Err(Fault::StartLine)
    } else {
        Ok(Start::Request { method: Method::read(&head[..space]), uri })
    }
}

/// The line up to its CRLF or LF, and what follows.
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', text)?;
    Some((text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]), &text[end + 1..]))
}

/// As [`split_line`], with the folded lines that continue it.
fn split_header(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut end = memchr::memchr(b'\n', text)?;
    let is_empty = end == 0 || text[..end] == *b"\r";
    while !is_empty && matches!(text.get(end + 1), Some(b' ' | b'\t')) {
        end += 1 + memchr::memchr(b'\n', &text[end + 1..])?;
    }
    Some((text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]), &text[end + 1..]))
}

/// A plain decimal number of at most 10 digits.
pub fn number(text: &[u8]) -> Option<usize> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    text.iter().try_fold(0usize, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + usize::from(digit - b'0')))
}

/// Where the address of a name-addr value ends and its parameters begin.
fn params_at(value: &[u8]) -> usize {
    let mut at = 0;
    let mut quoted = false;
    while at < value.len() {
        match value[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'<' if !quoted => return memchr::memchr(b'>', &value[at..]).map_or(value.len(), |end| at + end + 1),
            b';' if !quoted => return at,
            _ => {}
        }
        at += 1;
    }
    value.len()
}

/// The value of a header parameter (`;name=value`), outside of quotes and `<>`.
pub fn param<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    value[params_at(value)..].split(|byte| *byte == b';').find_map(|part| {
        let (key, text) = part.split_at(memchr::memchr(b'=', part)?);
        key.trim_ascii().eq_ignore_ascii_case(name).then(|| {
            let text = text[1..].trim_ascii();
            // Only the first value of a list on one line: its end is a comma.
            &text[..memchr::memchr(b',', text).unwrap_or(text.len())]
        })
    })
}

/// The URI of a From, To, Contact or Route value.
pub fn uri_of(value: &[u8]) -> &[u8] {
    let end = params_at(value);
    let head = &value[..end];
    // A quoted display name may hold a `<`: the address is the last one before the parameters.
    memchr::memrchr(b'<', head).map_or(head, |open| head[open + 1..].strip_suffix(b">").unwrap_or(b"")).trim_ascii()
}

/// User part of a `sip:` URI; empty where it has none.
pub fn user_of(uri: &[u8]) -> &[u8] {
    let rest = memchr::memchr(b':', uri).map_or(uri, |colon| &uri[colon + 1..]);
    memchr::memchr(b'@', rest).map_or(b"", |at| &rest[..at])
}

/// Host and port of a `sip:` URI as text (`127.0.0.1:5060`, `[::1]`), without parameters.
pub fn host_of(uri: &[u8]) -> &[u8] {
    let rest = memchr::memchr(b':', uri).map_or(uri, |colon| &uri[colon + 1..]);
    let rest = memchr::memchr(b'@', rest).map_or(rest, |at| &rest[at + 1..]);
    &rest[..rest.iter().position(|b| matches!(b, b';' | b'?' | b'>')).unwrap_or(rest.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] =
        b"INVITE sip:support@h SIP/2.0\r\nVia: SIP/2.0/UDP a:1;branch=z9hG4bK1;rport\r\nv: SIP/2.0/UDP b\r\n\
        From: \"A; tag=\\\"no <x>\" <sip:c1@h;tag=uri>;x=y;TAG=t1\r\nt: sip:support@h\r\ni: id@x\r\nCSeq: 7\tINVITE\r\n\
        m: <sip:c1@1.2.3.4:5;transport=udp>\r\nMax-Forwards: 70\r\nRecord-Route: <sip:p1;lr>,\r\n <sip:p2;lr>\r\n\
        l: 4\r\n\r\nbodyrest";

    #[test]
    fn everyday_liberties_are_read() {
        let msg = Msg::parse(INVITE).unwrap();
        assert_eq!(msg.start, Start::Request { method: Method::Invite, uri: b"sip:support@h" });
        assert_eq!(msg.vias.as_slice().len(), 2);
        assert_eq!(msg.branch(), b"z9hG4bK1");
        assert_eq!(msg.tag_in_from(), b"t1");
        assert_eq!(msg.tag_in_to(), b"");
        assert_eq!((msg.cseq, msg.cseq_method, msg.max_forwards), (7, Method::Invite, Some(70)));
        assert_eq!(msg.body, b"body");
        assert_eq!(user_of(uri_of(msg.from)), b"c1");
        assert_eq!(host_of(uri_of(msg.contact)), b"1.2.3.4:5");
        assert!(msg.record_routes.as_slice()[0].ends_with(b"<sip:p2;lr>"));
    }

    #[test]
    fn lf_only_and_leading_empty_lines() {
        let text = b"\r\n\r\nSIP/2.0 200 OK\nVia: SIP/2.0/UDP a\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@d>;tag=2\nCall-ID: x\nCSeq: 1 BYE\n\n";
        let msg = Msg::parse(text).unwrap();
        assert_eq!(msg.start, Start::Response { code: 200 });
        assert_eq!((msg.tag_in_to(), msg.cseq_method), (&b"2"[..], Method::Bye));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (text, fault) in [
            (&b"hello\r\n\r\n"[..], Fault::StartLine),
            (b"SIP/2.0 9\r\n\r\n", Fault::StartLine),
            (b"BYE sip:a SIP/2.0\r\nVia SIP\r\n\r\n", Fault::Header),
            (b"BYE sip:a SIP/2.0\r\nVia: x\r\n", Fault::Unended),
            (b"BYE sip:a SIP/2.0\r\nVia: x\r\n\r\n", Fault::Mandatory),
            (b"BYE sip:a SIP/2.0\r\nCSeq: x BYE\r\n\r\n", Fault::Mandatory),
        ] {
            assert_eq!(Msg::parse(text).err(), Some(fault), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn cut_or_changed_anywhere_it_does_not_panic() {
        for end in 0..INVITE.len() {
            let _ = Msg::parse(&INVITE[..end]);
            for byte in [0, b'"', b'<', b'\n', b';', 0xff] {
                let mut text = INVITE.to_vec();
                text[end] = byte;
                if let Ok(msg) = Msg::parse(&text) {
                    let _ = (msg.tag_in_from(), msg.tag_in_to(), msg.branch(), uri_of(msg.contact), host_of(msg.from));
                }
            }
        }
    }
}
