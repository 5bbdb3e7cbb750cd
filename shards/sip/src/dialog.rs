//! Dialogs (RFC 3261 section 12): what one end of a call remembers of its peer.
//!
//! A compact value: fixed fields of 64 bytes and one allocation with the strings (and the path) behind each other. A
//! [`DialogParts`] is the same laid open, to be written down and read back.
//!
//! One value is one dialog. An INVITE of ours that forks makes one per To tag: clone the one that
//! [`Dialog::uac`] made and [`establish`](Dialog::establish) each clone with its own response.

use crate::ahead::fetch_bytes;
use crate::endpoint::Target;
use crate::msg::write::{one_line, write_line};
use crate::msg::{Message, Method, Name, NameAddr, ParseError, Result, Scheme, Uri, push_number, split_list};
use crate::net::{ListenerId, Path, Transport};
use memchr::memchr2;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Max-Forwards of requests inside a dialog (RFC 3261 section 8.1.1.6).
const MAX_FORWARDS: u32 = 70;
/// `remote_seq` while nothing came from the peer; CSeq numbers are below 2^31.
const NO_SEQ: u32 = u32::MAX;

/// A dialog laid open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialogParts<'a> {
    /// Where the peer's messages come from, and the listener (and connection) that reaches it.
    pub path: Path,
    pub call_id: &'a [u8],
    /// Our From value in requests, with our tag.
    pub local: &'a [u8],
    /// Our To value in requests, with the peer's tag once it is known.
    pub remote: &'a [u8],
    /// URI of the peer's Contact.
    pub target: &'a [u8],
    /// Values of Route, comma-separated, in sending order; empty for none.
    pub routes: &'a [u8],
    /// CSeq number of our last request; 0 before the first.
    pub local_seq: u32,
    /// CSeq number of the peer's last request.
    pub remote_seq: Option<u32>,
    /// A 2xx made it; else it is early, or not yet one.
    pub confirmed: bool,
}

/// Where a string ends in the blob; each begins where the one before ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ends {
    path: u16,
    call_id: u16,
    local: u16,
    remote: u16,
    target: u16,
}

/// Start and length of a part of the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct TagSpan(u16, u16);

/// Where requests go, read once from the strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Aim {
    /// The Request-URI.
    uri: TagSpan,
    /// Host of the first hop.
    host: TagSpan,
    port: u16,
    transport: Transport,
    /// The first hop is a strict router.
    strict: bool,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialog {
    blob: Box<[u8]>,
    local_seq: u32,
    remote_seq: u32,
    ends: Ends,
    local_tag: TagSpan,
    remote_tag: TagSpan,
    aim: Aim,
    confirmed: bool,
    fresh: bool,
}

impl Dialog {
    /// The dialog will be looked at soon, and has been fetched itself.
    pub fn soon(&self) {
        fetch_bytes(&self.blob, 512);
    }

    /// The dialog that our answer with `local_tag` to the request `msg` makes (section 12.1.1); `path` is where the
    /// request came from. Early until [`confirm`](Self::confirm).
    ///
    /// # Errors
    /// A header field that a dialog needs is missing or malformed: Contact above all.
    pub fn uas(msg: &Message<'_>, path: Path, local_tag: &[u8]) -> Result<Dialog> {
        let contact = msg.contact()?.ok_or(ParseError::MissingHeader(Name::Contact))?;
        contact.uri_parsed().map_err(|_| ParseError::BadHeader(Name::Contact))?;
        let [to, from] = [Name::To, Name::From].map(|name| msg.first(name).unwrap_or_default());
        let mut local = Vec::with_capacity(to.len() + b";tag=".len() + local_tag.len());
        let mut routes = Vec::new();
        one_line(to, &mut local);
        if msg.to_tag().is_none() {
            msg.to()?;
            local.extend_from_slice(b";tag=");
            local.extend_from_slice(local_tag);
        }
        for route in msg.values(Name::RecordRoute) {
            push_route(route, &mut routes)?;
        }
        Dialog::from_parts(&DialogParts {
            path,
            call_id: msg.call_id()?,
            local: &local,
            remote: &on_one_line(from),
            target: contact.uri,
            routes: &routes,
            local_seq: 0,
            remote_seq: Some(msg.cseq()?.number),
            confirmed: false,
        })
    }

    /// What becomes a dialog when a response with a To tag [establishes](Self::establish) it (section 12.1.2):
    /// `local` is our From value with its tag, `remote` the To value without, `target` the Request-URI, `routes` the
    /// Route values of a preloaded route set (an outbound proxy), `cseq` the INVITE's number.
    ///
    /// # Errors
    /// `local` or `remote` is malformed.
    pub fn uac(
        call_id: &[u8],
        local: &[u8],
        remote: &[u8],
        target: &[u8],
        routes: &[u8],
        cseq: u32,
        path: Path,
    ) -> Result<Dialog> {
        Dialog::from_parts(&DialogParts {
            path,
            call_id,
            local,
            remote,
            target,
            routes,
            local_seq: cseq,
            remote_seq: None,
            confirmed: false,
        })
    }

    /// Takes the peer's side from a 101 to 299 answer to our INVITE that came over `path`: To with its tag, the route
    /// set (reversed Record-Route) and the remote target. A 2xx confirms, and its route set replaces an early one's
    /// (section 13.2.2.4); a further provisional answer changes nothing. Without a To tag nothing changes; without a
    /// Contact the target stays.
    ///
    /// # Errors
    /// Another To tag than the dialog's ([`ParseError::BadHeader`] of To): that is another dialog, and this one stays as
    /// it was. A malformed Contact or Record-Route: the peer's tag is taken all the same, so that the call can be
    /// acknowledged and ended.
    pub fn establish(&mut self, response: &Message<'_>, path: Path) -> Result<()> {
        let Some(tag) = response.to_tag() else { return response.to().map(drop) };
        if !self.remote_tag().is_empty() && self.remote_tag() != tag {
            return Err(ParseError::BadHeader(Name::To));
        }
        let success = response.code().is_some_and(|c| c >= 200);
        if self.confirmed {
            return self.refresh_target(response);
        }
        if !self.remote_tag().is_empty() && !success {
            return Ok(());
        }
        let remote = on_one_line(response.first(Name::To).unwrap_or_default());
        let mut routes = Vec::new();
        let record: Vec<&[u8]> = response.values(Name::RecordRoute).collect();
        let routed = record.into_iter().rev().try_for_each(|route| push_route(route, &mut routes));
        let contact = contact_uri(response);
        let parts = self.parts();
        *self = Dialog::from_parts(&DialogParts {
            path: Path { remote: path.remote, conn: path.conn, transport: path.transport, ..parts.path },
            remote: &remote,
            target: contact.unwrap_or_default().unwrap_or(parts.target),
            routes: if routed.is_ok() { &routes } else { b"" },
            confirmed: success,
            ..parts
        })?;
        routed.and(contact.map(|_| ()))
    }

    /// Whether its path, strings or tags are others than when this was asked last.
    pub fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// Our 2xx went out, or theirs came in.
    pub fn confirm(&mut self) {
        self.confirmed = true;
    }

    /// Takes a new remote target from the Contact of a re-INVITE, an UPDATE, or a 2xx to one of ours (section 12.2).
    /// Without a Contact nothing changes.
    ///
    /// # Errors
    /// A malformed Contact.
    pub fn refresh_target(&mut self, msg: &Message<'_>) -> Result<()> {
        let Some(target) = contact_uri(msg)? else { return Ok(()) };
        if target != self.remote_target() {
            *self = Dialog::from_parts(&DialogParts { target, ..self.parts() })?;
        }
        Ok(())
    }

    /// Where the peer's messages now come from.
    ///
    /// # Errors
    /// None in practice: the new path takes a few bytes more at most.
    pub fn set_path(&mut self, path: Path) -> Result<()> {
        if path != self.path() {
            *self = Dialog::from_parts(&DialogParts { path, ..self.parts() })?;
        }
        Ok(())
    }

    /// Whether a request of the peer with this CSeq number is in order; if so it is remembered. If not, it is answered
    /// 500 (section 12.2.2). Not for ACK and CANCEL, which carry their INVITE's number.
    #[must_use]
    pub fn accept_request(&mut self, cseq: u32) -> bool {
        let in_order = self.remote_seq == NO_SEQ || cseq >= self.remote_seq;
        if in_order {
            self.remote_seq = cseq;
        }
        in_order
    }

    /// CSeq number of our next request.
    pub fn next_cseq(&mut self) -> u32 {
        self.local_seq = self.local_seq.wrapping_add(1) & 0x7fff_ffff;
        self.local_seq
    }

    /// Whether a message belongs to this dialog: its Call-ID, our tag and the peer's, compared byte by byte
    /// (sections 12, 19.3).
    #[must_use]
    pub fn matches(&self, call_id: &[u8], local_tag: &[u8], remote_tag: &[u8]) -> bool {
        self.local_tag() == local_tag && self.remote_tag() == remote_tag && self.call_id() == call_id
    }

    /// Appends the header lines of a request in this dialog: Max-Forwards, Route, From, To, Call-ID, CSeq
    /// (section 12.2.1.1). An ACK carries its INVITE's `cseq`.
    pub fn write_head(&self, method: Method<'_>, cseq: u32, out: &mut Vec<u8>) {
        self.write_head_limited(method, cseq, MAX_FORWARDS, out);
    }

    /// As [`write_head`](Self::write_head), with another Max-Forwards than 70: what came in on another leg, less one.
    pub fn write_head_limited(&self, method: Method<'_>, cseq: u32, max_forwards: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Max-Forwards: ");
        push_number(u64::from(max_forwards), out);
        out.extend_from_slice(b"\r\n");
        if self.aim.strict {
            for route in split_list(self.routes()).skip(1) {
                write_line(Name::Route, route, b"", out);
            }
            out.extend_from_slice(b"Route: <");
            out.extend_from_slice(self.remote_target());
            out.extend_from_slice(b">\r\n");
        } else if !self.routes().is_empty() {
            write_line(Name::Route, self.routes(), b"", out);
        }
        write_line(Name::From, self.local(), b"", out);
        write_line(Name::To, self.remote(), b"", out);
        write_line(Name::CallId, self.call_id(), b"", out);
        out.extend_from_slice(b"CSeq: ");
        push_number(u64::from(cseq), out);
        out.push(b' ');
        out.extend_from_slice(method.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// Request-URI of a request in this dialog: the remote target, or the first router where that is a strict one.
    #[must_use]
    pub fn request_uri(&self) -> &[u8] {
        self.tag(self.aim.uri)
    }

    /// Where a request of this dialog is sent: its connection, else the first router, else the remote target. A URI
    /// that names no transport goes over the dialog's own.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        let path = self.path();
        if path.conn != 0 {
            return Target::Addr(path);
        }
        let Aim { host, port, transport, .. } = self.aim;
        Target::Host { host: self.tag(host), port, transport, listener: path.listener }
    }

    #[must_use]
    pub fn path(&self) -> Path {
        read_path(&self.blob[..usize::from(self.ends.path)])
    }

    #[must_use]
    pub fn call_id(&self) -> &[u8] {
        self.span(self.ends.path, self.ends.call_id)
    }

    /// Our From value, with our tag.
    #[must_use]
    pub fn local(&self) -> &[u8] {
        self.span(self.ends.call_id, self.ends.local)
    }

    /// Our To value, with the peer's tag once it is known.
    #[must_use]
    pub fn remote(&self) -> &[u8] {
        self.span(self.ends.local, self.ends.remote)
    }

    /// URI of the peer's Contact.
    #[must_use]
    pub fn remote_target(&self) -> &[u8] {
        self.span(self.ends.remote, self.ends.target)
    }

    /// Values of Route, comma-separated, in sending order.
    #[must_use]
    pub fn routes(&self) -> &[u8] {
        &self.blob[usize::from(self.ends.target)..]
    }

    #[must_use]
    pub fn local_tag(&self) -> &[u8] {
        self.tag(self.local_tag)
    }

    /// Empty while it is not known, and for a peer of RFC 2543 that has none.
    #[must_use]
    pub fn remote_tag(&self) -> &[u8] {
        self.tag(self.remote_tag)
    }

    /// CSeq number of our last request.
    #[must_use]
    pub const fn local_seq(&self) -> u32 {
        self.local_seq
    }

    /// CSeq number of the peer's last request.
    #[must_use]
    pub fn remote_seq(&self) -> Option<u32> {
        (self.remote_seq != NO_SEQ).then_some(self.remote_seq)
    }

    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// The dialog laid open.
    #[must_use]
    pub fn parts(&self) -> DialogParts<'_> {
        DialogParts {
            path: self.path(),
            call_id: self.call_id(),
            local: self.local(),
            remote: self.remote(),
            target: self.remote_target(),
            routes: self.routes(),
            local_seq: self.local_seq,
            remote_seq: self.remote_seq(),
            confirmed: self.confirmed,
        }
    }

    /// The dialog of these parts.
    ///
    /// # Errors
    /// `local` or `remote` is no address, or all strings together are longer than a message may be.
    pub fn from_parts(parts: &DialogParts<'_>) -> Result<Dialog> {
        // Exactly so much: it becomes a box, and must not be copied for that.
        let mut blob = Vec::with_capacity(
            path_len(parts.path)
                + [parts.call_id, parts.local, parts.remote, parts.target, parts.routes]
                    .iter()
                    .map(|s| s.len())
                    .sum::<usize>(),
        );
        write_path(parts.path, &mut blob);
        let path = blob.len() as u16;
        let mut add = |s: &[u8]| {
            blob.extend_from_slice(s);
            u16::try_from(blob.len()).map_err(|_| ParseError::TooLong)
        };
        let ends = Ends {
            path,
            call_id: add(parts.call_id)?,
            local: add(parts.local)?,
            remote: add(parts.remote)?,
            target: add(parts.target)?,
        };
        add(parts.routes)?;
        let aim = aim(&blob, &ends, parts.path.transport);
        Ok(Dialog {
            local_tag: tag_span(parts.local, ends.call_id, Name::From)?,
            remote_tag: tag_span(parts.remote, ends.local, Name::To)?,
            blob: blob.into_boxed_slice(),
            local_seq: parts.local_seq,
            remote_seq: parts.remote_seq.unwrap_or(NO_SEQ),
            ends,
            aim,
            confirmed: parts.confirmed,
            fresh: true,
        })
    }

    fn span(&self, from: u16, to: u16) -> &[u8] {
        &self.blob[usize::from(from)..usize::from(to)]
    }

    fn tag(&self, TagSpan(start, len): TagSpan) -> &[u8] {
        &self.blob[usize::from(start)..usize::from(start) + usize::from(len)]
    }
}

/// Where a URI says that its requests go. A URI without a host (`tel:`) gives an empty host, which resolves to nothing.
#[must_use]
pub fn target_of(uri: &[u8], transport: Transport, listener: ListenerId) -> Target<'_> {
    let (host, port, transport) = Uri::parse(uri).map_or((&b""[..], 0, transport), |uri| hop(&uri, transport));
    Target::Host { host, port, transport, listener }
}

/// Host, port and transport of what is sent to this URI.
fn hop<'a>(uri: &Uri<'a>, transport: Transport) -> (&'a [u8], u16, Transport) {
    let secure = uri.scheme == Scheme::Sips;
    let transport = match uri.transport_known() {
        Some(Transport::Tcp) if secure => Transport::Tls,
        Some(Transport::Ws) if secure => Transport::Wss,
        Some(named) => named,
        None if secure => Transport::Tls,
        None => transport,
    };
    let default = if matches!(transport, Transport::Tls | Transport::Wss) { 5061 } else { 5060 };
    (uri.host, uri.port.unwrap_or(default), transport)
}

/// Reads where the requests of the dialog in `blob` go: to the first router, when there is a route set, else to the remote
/// target. The Request-URI is the remote target, or the first router where that is a strict one (no `lr`, section 12.2.1.1).
fn aim(blob: &[u8], ends: &Ends, transport: Transport) -> Aim {
    let target = &blob[usize::from(ends.remote)..usize::from(ends.target)];
    let routes = &blob[usize::from(ends.target)..];
    let first = split_list(routes).next().and_then(|first| NameAddr::parse(first, Name::Route).ok());
    let router = first.map(|route| (route.uri, Uri::parse(route.uri)));
    let strict = router.is_some_and(|(_, uri)| uri.is_ok_and(|uri| !uri.is_loose()));
    let (next, next_uri) = router.unwrap_or_else(|| (target, Uri::parse(target)));
    let (host, port, transport) = next_uri.map_or((&b""[..], 0, transport), |uri| hop(&uri, transport));
    let (uri, parsed) = match router {
        Some(_) if !strict => (target, Uri::parse(target)),
        _ => (next, next_uri),
    };
    // A Request-URI has no header part (section 19.1.1 table 1).
    let headers = parsed.ok().and_then(|u| u.headers).map_or(0, |headers| headers.len() + 1);
    let span = |part: &[u8]| match part {
        [] => TagSpan::default(),
        _ => TagSpan((part.as_ptr() as usize - blob.as_ptr() as usize) as u16, part.len() as u16),
    };
    Aim { uri: span(&uri[..uri.len() - headers]), host: span(host), port, transport, strict }
}

/// URI of the message's Contact, checked.
fn contact_uri<'a>(msg: &Message<'a>) -> Result<Option<&'a [u8]>> {
    let Some(contact) = msg.contact()? else { return Ok(None) };
    contact.uri_parsed().map_err(|_| ParseError::BadHeader(Name::Contact))?;
    Ok(Some(contact.uri))
}

/// A value without its folds, copied only if it has some.
fn on_one_line(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr2(b'\r', b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    one_line(value, &mut out);
    Cow::Owned(out)
}

fn push_route(route: &[u8], routes: &mut Vec<u8>) -> Result<()> {
    NameAddr::parse(route, Name::RecordRoute)?.uri_parsed().map_err(|_| ParseError::BadHeader(Name::RecordRoute))?;
    if !routes.is_empty() {
        routes.extend_from_slice(b", ");
    }
    one_line(route, routes);
    Ok(())
}

/// Where the tag of `value` lies in a blob that holds `value` from `base` on.
fn tag_span(value: &[u8], base: u16, name: Name) -> Result<TagSpan> {
    let Some(tag) = NameAddr::parse(value, name)?.tag() else { return Ok(TagSpan::default()) };
    let at = tag.as_ptr() as usize - value.as_ptr() as usize;
    Ok(TagSpan(base + at as u16, tag.len() as u16))
}

/// Bytes of a path in a blob.
const fn path_len(path: Path) -> usize {
    if path.remote.is_ipv4() { 12 } else { 28 }
}

fn write_path(path: Path, out: &mut Vec<u8>) {
    out.push(path.listener.0);
    out.push(path.transport as u8);
    out.extend_from_slice(&path.conn.to_be_bytes());
    out.extend_from_slice(&path.remote.port().to_be_bytes());
    match path.remote {
        SocketAddr::V4(a) => out.extend_from_slice(&a.ip().octets()),
        SocketAddr::V6(a) => {
            out.extend_from_slice(&a.ip().octets());
            out.extend_from_slice(&a.scope_id().to_be_bytes());
        }
    }
}

/// Reads what [`write_path`] wrote.
fn read_path(b: &[u8]) -> Path {
    let u32_at = |at: usize| u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    let port = u16::from_be_bytes([b[6], b[7]]);
    let remote = if b.len() == 12 {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(u32_at(8))), port)
    } else {
        let mut octets = [0; 16];
        octets.copy_from_slice(&b[8..24]);
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, u32_at(24)))
    };
    let transport = match b[1] {
        0 => Transport::Udp,
        1 => Transport::Tcp,
        2 => Transport::Tls,
        3 => Transport::Ws,
        _ => Transport::Wss,
    };
    Path { remote, listener: ListenerId(b[0]), transport, conn: u32_at(2) }
}

#[cfg(test)]
mod tests;
