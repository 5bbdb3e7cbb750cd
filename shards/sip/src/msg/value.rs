//! Header values with structure: each is read from its bytes when asked for.

use super::error::{ParseError, Result};
use super::params::Params;
use super::text::{
    clamped_number, end_of_quote, find_top, is_blank, is_token, number, split_top, trim, trim_end, trim_start,
};
use super::uri::{HostRef, Uri, any_ip, transport_named};
use super::{Method, Name};
use crate::bytes::{self, find, find2};
use crate::net::Transport;
use std::net::IpAddr;

/// One Via value (RFC 3261 section 20.42).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via<'a> {
    /// Transport as written ("UDP", "TLS-SCTP", ...).
    pub transport: &'a [u8],
    pub host: HostRef<'a>,
    /// Port of sent-by, where written.
    pub port: Option<u16>,
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Reads one value: `SIP/2.0/UDP host:port;params`, blanks around the separators allowed. Parameters with an open quote would
    /// hide what an answer adds to them.
    ///
    /// # Errors
    /// `BadHeader(Via)`.
    pub fn parse(value: &'a [u8]) -> Result<Via<'a>> {
        Via::read(value).ok_or(ParseError::BadHeader(Name::Via))
    }

    fn read(value: &'a [u8]) -> Option<Via<'a>> {
        let value = trim(value);
        let rest = match value.strip_prefix(b"SIP/2.0/") {
            // As nearly everybody writes it.
            Some(rest) => trim_start(rest),
            None => {
                let slash = find(b'/', value)?;
                let rest = &value[slash + 1..];
                let slash2 = find(b'/', rest)?;
                if !trim_end(&value[..slash]).eq_ignore_ascii_case(b"SIP") || trim(&rest[..slash2]) != b"2.0" {
                    return None;
                }
                trim_start(&rest[slash2 + 1..])
            }
        };
        let end = rest.iter().position(|b| is_blank(*b))?;
        let (transport, rest) = rest.split_at(end);
        if !is_token(transport) {
            return None;
        }
        let end = find(b';', rest).unwrap_or(rest.len());
        let (host, port) = HostRef::with_port(&rest[..end])?;
        let params = Params::new(&rest[end..]);
        params.is_closed().then_some(Via { transport, host, port, params })
    }

    /// The transaction's branch; None where it is missing or empty.
    #[must_use]
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.params.value("branch").filter(|b| !b.is_empty())
    }

    /// Address in `received`, brackets or not.
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        any_ip(self.params.value("received")?)
    }

    /// `rport` (RFC 3581): None when absent, `Some(None)` when asked for and not yet filled in.
    #[must_use]
    pub fn rport(&self) -> Option<Option<u16>> {
        let value = self.params.get("rport")?;
        Some(value.and_then(number).and_then(|n| u16::try_from(n).ok()))
    }

    /// `maddr` as written.
    #[must_use]
    pub fn maddr(&self) -> Option<&'a [u8]> {
        self.params.value("maddr")
    }

    /// The transport, when it is one that we know.
    #[must_use]
    pub fn transport_known(&self) -> Option<Transport> {
        transport_named(self.transport)
    }
}

/// CSeq (RFC 3261 section 20.16): below 2^31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CSeq<'a> {
    pub number: u32,
    pub method: Method<'a>,
}

impl<'a> CSeq<'a> {
    /// Reads `number method`.
    ///
    /// # Errors
    /// `BadHeader(CSeq)`.
    pub fn parse(value: &'a [u8]) -> Result<CSeq<'a>> {
        let bad = ParseError::BadHeader(Name::CSeq);
        let value = trim(value);
        let digits = value.iter().position(|b| is_blank(*b)).ok_or(bad)?;
        let number = number(&value[..digits]).filter(|n| *n < 1 << 31).ok_or(bad)?;
        let method = trim(&value[digits..]);
        if !is_token(method) {
            return Err(bad);
        }
        Ok(CSeq { number, method: Method::of(method) })
    }
}

/// RAck (RFC 3262 section 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RAck<'a> {
    pub rseq: u32,
    pub cseq: CSeq<'a>,
}

impl<'a> RAck<'a> {
    /// Reads `rseq cseq method`.
    ///
    /// # Errors
    /// `BadHeader(RAck)`.
    pub fn parse(value: &'a [u8]) -> Result<RAck<'a>> {
        let bad = ParseError::BadHeader(Name::RAck);
        let value = trim(value);
        let end = value.iter().position(|b| is_blank(*b)).ok_or(bad)?;
        let rseq = number(&value[..end]).ok_or(bad)?;
        let cseq = CSeq::parse(&value[end..]).map_err(|_| bad)?;
        Ok(RAck { rseq, cseq })
    }
}

/// `[display] <uri> ;params`, or a bare URI with the parameters of the header field (RFC 3261 section 20.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// Display name without its quotes; escapes stay ([`super::unescape`]). Empty when there is none.
    pub display: &'a [u8],
    /// Whether the display name stood in quotes.
    pub quoted: bool,
    /// The URI, not checked: see [`NameAddr::uri_parsed`]. `*` in a Contact of REGISTER.
    pub uri: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value; `name` is the field that errors blame.
    ///
    /// # Errors
    /// `BadHeader(name)`: unclosed quote or bracket, a bracket in a parameter, a display name of other things than
    /// tokens, nothing there, a bare URI with `?` or `,` (RFC 3261 section 20.10 demands brackets).
    pub fn parse(value: &'a [u8], name: Name) -> Result<NameAddr<'a>> {
        NameAddr::read(trim(value)).ok_or(ParseError::BadHeader(name))
    }

    fn read(value: &'a [u8]) -> Option<NameAddr<'a>> {
        if value.first() == Some(&b'"') {
            let end = end_of_quote(value, 0)?;
            let rest = trim_start(&value[end + 1..]).strip_prefix(b"<")?;
            return NameAddr::bracketed(&value[1..end], true, rest);
        }
        match find2(b'<', b';', value) {
            Some(at) if value[at] == b'<' => {
                let display = trim_end(&value[..at]);
                if !bytes::all_of(bytes::DISPLAY, display) {
                    return None;
                }
                NameAddr::bracketed(display, false, &value[at + 1..])
            }
            end => {
                let end = end.unwrap_or(value.len());
                let uri = trim_end(&value[..end]);
                if uri.is_empty() || uri.iter().any(|b| matches!(b, b'?' | b',' | b'"' | b'>') || is_blank(*b)) {
                    return None;
                }
                NameAddr::finish(NameAddr { display: b"", quoted: false, uri, params: Params::new(&value[end..]) })
            }
        }
    }

    fn bracketed(display: &'a [u8], quoted: bool, rest: &'a [u8]) -> Option<NameAddr<'a>> {
        let end = find(b'>', rest)?;
        let uri = trim(&rest[..end]);
        let params = Params::new(&rest[end + 1..]);
        if uri.is_empty() || !(params.0.is_empty() || params.0[0] == b';') {
            return None;
        }
        NameAddr::finish(NameAddr { display, quoted, uri, params })
    }

    /// Else the parameters would hide what follows, the tag that an answer adds above all.
    fn finish(self) -> Option<NameAddr<'a>> {
        self.params.is_closed().then_some(self)
    }

    /// The dialog tag; None where it is missing or empty.
    #[must_use]
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.value("tag").filter(|t| !t.is_empty())
    }

    /// The URI in its parts.
    ///
    /// # Errors
    /// [`ParseError::BadUri`].
    pub fn uri_parsed(&self) -> Result<Uri<'a>> {
        Uri::parse(self.uri)
    }

    /// `Contact: *` (RFC 3261 section 10.2.2).
    #[must_use]
    pub fn is_star(&self) -> bool {
        self.uri == b"*"
    }
}

/// Content-Type, and every other `type/subtype;params`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentType<'a> {
    pub main: &'a [u8],
    pub sub: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> ContentType<'a> {
    /// Reads `type/subtype;params`; None when malformed.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<ContentType<'a>> {
        let (kind, params) = match find(b';', value) {
            Some(at) => (&value[..at], Params::new(&value[at..])),
            None => (value, Params::default()),
        };
        let slash = find(b'/', kind)?;
        let (main, sub) = (trim(&kind[..slash]), trim(&kind[slash + 1..]));
        (is_token(main) && is_token(sub)).then_some(ContentType { main, sub, params })
    }

    /// Whether it is `main/sub`, any case.
    #[must_use]
    pub fn is(&self, main: &str, sub: &str) -> bool {
        self.main.eq_ignore_ascii_case(main.as_bytes()) && self.sub.eq_ignore_ascii_case(sub.as_bytes())
    }

    /// `application/sdp`.
    #[must_use]
    pub fn is_sdp(&self) -> bool {
        self.is("application", "sdp")
    }

    /// Any `multipart/...`.
    #[must_use]
    pub fn is_multipart(&self) -> bool {
        self.main.eq_ignore_ascii_case(b"multipart")
    }
}

/// Who refreshes a session (RFC 4028).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresher {
    Uac,
    Uas,
}

/// Session-Expires (RFC 4028 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionExpires {
    /// Seconds.
    pub delta: u32,
    pub refresher: Option<Refresher>,
}

impl SessionExpires {
    /// Reads `seconds;refresher=uac`; an unknown refresher counts as none.
    ///
    /// # Errors
    /// `BadHeader(SessionExpires)`.
    pub fn parse(value: &[u8]) -> Result<SessionExpires> {
        let (delta, params) = delta_seconds(value).ok_or(ParseError::BadHeader(Name::SessionExpires))?;
        let refresher = match params.value("refresher") {
            Some(v) if v.eq_ignore_ascii_case(b"uac") => Some(Refresher::Uac),
            Some(v) if v.eq_ignore_ascii_case(b"uas") => Some(Refresher::Uas),
            _ => None,
        };
        Ok(SessionExpires { delta, refresher })
    }
}

/// `delta-seconds` with an optional comment and parameters (Expires, Min-SE, Retry-After, Session-Expires).
pub(crate) fn delta_seconds(value: &[u8]) -> Option<(u32, Params<'_>)> {
    let value = trim(value);
    let digits = value.iter().position(|b| !b.is_ascii_digit()).unwrap_or(value.len());
    let rest = trim_start(&value[digits..]);
    // Retry-After: 18 (in a meeting) ;duration=3600
    let rest = match rest {
        [b'(', ..] => trim_start(&rest[find(b')', rest)? + 1..]),
        _ => rest,
    };
    if !matches!(rest.first(), None | Some(b';')) {
        return None;
    }
    Some((clamped_number(&value[..digits])?, Params::new(rest)))
}

/// Replaces, Join, Target-Dialog: a dialog named by its identifiers (RFC 3891 section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialogRef<'a> {
    pub call_id: &'a [u8],
    pub to_tag: &'a [u8],
    pub from_tag: &'a [u8],
    pub early_only: bool,
}

impl<'a> DialogRef<'a> {
    /// Reads `call-id;to-tag=..;from-tag=..`.
    ///
    /// # Errors
    /// `BadHeader(name)` when the Call-ID or a tag is missing.
    pub fn parse(value: &'a [u8], name: Name) -> Result<DialogRef<'a>> {
        let bad = ParseError::BadHeader(name);
        let end = find_top(value, b';').ok_or(bad)?;
        let call_id = trim(&value[..end]);
        let params = Params::new(&value[end..]);
        let to_tag = params.value("to-tag").ok_or(bad)?;
        let from_tag = params.value("from-tag").ok_or(bad)?;
        if call_id.is_empty() {
            return Err(bad);
        }
        Ok(DialogRef { call_id, to_tag, from_tag, early_only: params.has("early-only") })
    }
}

/// A token with parameters: Event, Subscription-State, Content-Disposition, an element of Supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    pub token: &'a [u8],
    pub params: Params<'a>,
}

impl<'a> Token<'a> {
    /// Reads `token;params`; None when the token is malformed.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Token<'a>> {
        let (token, rest) = split_top(value, b';');
        let params = match rest {
            Some(_) => Params::new(&value[token.len()..]),
            None => Params::default(),
        };
        let token = trim(token);
        is_token(token).then_some(Token { token, params })
    }
}
