//! URIs: `sip:`, `sips:`, `tel:` (RFC 3261 section 19.1, RFC 3966), every other scheme kept opaque.

use super::error::{ParseError, Result};
use super::params::Params;
use super::text::{number, trim};
use crate::bytes::{self, find, find2};
use crate::net::Transport;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// URI scheme; any case on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme<'a> {
    Sip,
    Sips,
    Tel,
    Other(&'a [u8]),
}

/// A host as written: IPv6 literals without their brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRef<'a> {
    pub text: &'a [u8],
    pub is_ipv6: bool,
}

impl<'a> HostRef<'a> {
    /// `host [":" port]`, brackets around an IPv6 literal; blanks around the colon are taken (RFC 3261 section 25.1).
    /// None when host or port is malformed.
    #[must_use]
    pub fn with_port(bytes: &'a [u8]) -> Option<(HostRef<'a>, Option<u16>)> {
        let bytes = trim(bytes);
        let (host, rest) = if let [b'[', inside @ ..] = bytes {
            let end = find(b']', inside)?;
            let text = &inside[..end];
            ipv6(text)?;
            (HostRef { text, is_ipv6: true }, trim(&inside[end + 1..]))
        } else {
            let end = find(b':', bytes).unwrap_or(bytes.len());
            let text = trim(&bytes[..end]);
            if text.is_empty() || !bytes::all_of(bytes::HOST, text) {
                return None;
            }
            (HostRef { text, is_ipv6: false }, &bytes[end..])
        };
        let port = match rest {
            [] => None,
            [b':', digits @ ..] => Some(u16::try_from(number(trim(digits))?).ok()?),
            _ => return None,
        };
        Some((host, port))
    }

    /// The address, when the host is a literal one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        if self.is_ipv6 {
            return ipv6(self.text).map(IpAddr::V6);
        }
        if !self.text.first()?.is_ascii_digit() {
            return None;
        }
        ipv4(self.text)
    }
}

fn ipv4(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// IPv6 text; three colons in a row count as two, which RFC 3261's grammar generated (RFC 5118 section 4.10).
pub(crate) fn ipv6(text: &[u8]) -> Option<Ipv6Addr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    // No longer than the longest textual address plus the extra colon.
    let mut fixed = [0u8; 46];
    let at = text.find(":::")?;
    let (head, tail) = (&text.as_bytes()[..at], &text.as_bytes()[at + 1..]);
    let n = head.len() + tail.len();
    fixed.get_mut(..at)?.copy_from_slice(head);
    fixed.get_mut(at..n)?.copy_from_slice(tail);
    std::str::from_utf8(&fixed[..n]).ok()?.parse().ok()
}

/// An address in text that may carry brackets (`received`, `maddr`; RFC 5118 section 4.5 has it both ways).
pub(crate) fn any_ip(text: &[u8]) -> Option<IpAddr> {
    let text = match text {
        [b'[', inner @ .., b']'] => inner,
        _ => text,
    };
    if find(b':', text).is_some() { ipv6(text).map(IpAddr::V6) } else { ipv4(text) }
}

/// A URI in its parts; all slices of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'a> {
    pub scheme: Scheme<'a>,
    /// User part as written (escapes stay: [`super::percent_decode`]); the number of a `tel:` URI.
    pub user: Option<&'a [u8]>,
    pub password: Option<&'a [u8]>,
    /// Host without brackets; empty for `tel:` and opaque schemes.
    pub host: &'a [u8],
    pub is_ipv6: bool,
    pub port: Option<u16>,
    pub params: Params<'a>,
    /// What follows `?`.
    pub headers: Option<&'a [u8]>,
    /// The whole URI.
    pub raw: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Parses an absolute URI, without angle brackets.
    ///
    /// # Errors
    /// [`ParseError::BadUri`] for anything malformed, blanks and control characters included; an unknown scheme is
    /// no error here.
    pub fn parse(raw: &'a [u8]) -> Result<Uri<'a>> {
        if bytes::any_of(bytes::NO_URI, raw) {
            return Err(ParseError::BadUri);
        }
        let colon = find(b':', raw).ok_or(ParseError::BadUri)?;
        let (scheme, rest) = (&raw[..colon], &raw[colon + 1..]);
        let opaque = Uri {
            scheme: Scheme::Other(scheme),
            user: None,
            password: None,
            host: b"",
            is_ipv6: false,
            port: None,
            params: Params(b""),
            headers: None,
            raw,
        };
        if scheme.eq_ignore_ascii_case(b"sip") {
            return parse_sip(Uri { scheme: Scheme::Sip, ..opaque }, rest);
        }
        if scheme.eq_ignore_ascii_case(b"sips") {
            return parse_sip(Uri { scheme: Scheme::Sips, ..opaque }, rest);
        }
        if scheme.eq_ignore_ascii_case(b"tel") {
            return parse_tel(Uri { scheme: Scheme::Tel, ..opaque }, rest);
        }
        let letters = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        if scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(letters) && !rest.is_empty() {
            return Ok(opaque);
        }
        Err(ParseError::BadUri)
    }

    /// The host as a value of its own.
    #[must_use]
    pub const fn host_ref(&self) -> HostRef<'a> {
        HostRef { text: self.host, is_ipv6: self.is_ipv6 }
    }

    /// The host's address, when it is a literal one.
    #[must_use]
    pub fn host_ip(&self) -> Option<IpAddr> {
        self.host_ref().ip()
    }

    /// The `transport` parameter as written.
    #[must_use]
    pub fn transport(&self) -> Option<&'a [u8]> {
        self.params.value("transport")
    }

    /// The transport that the parameter names, when it is one that we know.
    #[must_use]
    pub fn transport_known(&self) -> Option<Transport> {
        transport_named(self.transport()?)
    }

    /// Whether the URI is that of a loose router (`lr`, RFC 3261 section 16.12).
    #[must_use]
    pub fn is_loose(&self) -> bool {
        self.params.has("lr")
    }
}

/// The transport with this name, any case.
pub(crate) fn transport_named(name: &[u8]) -> Option<Transport> {
    [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss]
        .into_iter()
        .find(|t| name.eq_ignore_ascii_case(t.via_name().as_bytes()))
}

fn parse_sip<'a>(mut uri: Uri<'a>, rest: &'a [u8]) -> Result<Uri<'a>> {
    // The user part may hold `;`, `?`, `/` and commas: the first `@` decides (RFC 4475 section 3.1.1.13).
    let rest = match find(b'@', rest) {
        Some(0) => return Err(ParseError::BadUri),
        Some(_) if rest[0] == b':' => return Err(ParseError::BadUri),
        Some(at) => {
            let info = &rest[..at];
            match find(b':', info) {
                Some(colon) => {
                    uri.user = Some(&info[..colon]);
                    uri.password = Some(&info[colon + 1..]);
                }
                None => uri.user = Some(info),
            }
            &rest[at + 1..]
        }
        None => rest,
    };
    let end = find2(b';', b'?', rest).unwrap_or(rest.len());
    let (host, port) = HostRef::with_port(&rest[..end]).ok_or(ParseError::BadUri)?;
    uri.host = host.text;
    uri.is_ipv6 = host.is_ipv6;
    uri.port = port;
    let tail = &rest[end..];
    let params = find(b'?', tail).unwrap_or(tail.len());
    uri.params = Params(&tail[..params]);
    uri.headers = tail.get(params + 1..);
    Ok(uri)
}

fn parse_tel<'a>(mut uri: Uri<'a>, rest: &'a [u8]) -> Result<Uri<'a>> {
    let end = find(b';', rest).unwrap_or(rest.len());
    let digit = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b'+' | b'-' | b'.' | b'(' | b')' | b'*' | b'#');
    if end == 0 || !rest[..end].iter().all(digit) {
        return Err(ParseError::BadUri);
    }
    uri.user = Some(&rest[..end]);
    uri.params = Params(&rest[end..]);
    Ok(uri)
}
