//! What a request must pass before the TU sees it (RFC 3261 section 8.2), and the answers given without state.

use super::server::MAX_IDENTITY;
use super::{Endpoint, EndpointConfig};
use crate::id::{self, Token};
use crate::msg::{Message, Method, Name, ParseError, Reply, push_number};
use crate::net::Path;
use crate::scan;
use crate::time::Mono;
use std::sync::Arc;

/// Header lines that answers made here carry, written once.
#[derive(Debug)]
pub(super) struct Lines {
    server: Vec<u8>,
    allow: Vec<u8>,
    accept: Vec<u8>,
    /// Allow, Accept and Supported, for OPTIONS.
    options: Vec<u8>,
}

impl Lines {
    pub(super) fn new(cfg: &EndpointConfig) -> Lines {
        let line = |name: &str, values: Vec<&str>| format!("{name}: {}\r\n", values.join(", ")).into_bytes();
        let methods: Vec<String> = cfg.allow.iter().map(ToString::to_string).collect();
        let allow = line("Allow", methods.iter().map(String::as_str).collect());
        let accept = line("Accept", cfg.accept.iter().map(String::as_str).collect());
        let supported = line("Supported", cfg.supported.iter().map(String::as_str).collect());
        Lines {
            server: match cfg.user_agent.as_str() {
                "" => Vec::new(),
                agent => line("Server", vec![agent]),
            },
            options: [allow.as_slice(), &accept, &supported].concat(),
            allow,
            accept,
        }
    }
}

impl Endpoint {
    /// Takes in bytes that [`Message::parse`] refused with `err`. A request is answered (400, 505, 513, ...) where its
    /// Via says whom to answer; a response and an ACK never are.
    pub fn receive_malformed(&mut self, _now: Mono, path: Path, bytes: &[u8], err: ParseError) {
        self.stats.malformed += 1;
        let cfg = Arc::clone(&self.cfg);
        let Ok(msg) = Message::parse_head(bytes, &cfg.limits) else { return };
        let acked = msg.method() == Some(Method::Ack) || msg.cseq().is_ok_and(|c| c.method == Method::Ack);
        if msg.is_request() && !acked && msg.has(Name::Via) {
            self.refuse(path, &msg, err.status(), &err.reason());
        }
    }

    /// A request that parses but cannot be used.
    pub(super) fn refuse_fault(&mut self, path: Path, msg: &Message<'_>, err: ParseError) {
        self.stats.malformed += 1;
        if msg.method() != Some(Method::Ack) {
            let arrival = msg.method() == Some(Method::Invite) && msg.to_tag().is_none();
            let code =
                if arrival && err == ParseError::BadHeader(Name::From) { self.cfg.bad_from } else { err.status() };
            self.refuse(path, msg, code, &err.reason());
        }
    }

    /// Refuses without state; `self.extra` holds the header lines that explain it.
    pub(super) fn refuse(&mut self, path: Path, msg: &Message<'_>, code: u16, reason: &str) {
        self.stats.refused += 1;
        self.answer(path, msg, code, reason);
    }

    fn answer(&mut self, path: Path, msg: &Message<'_>, code: u16, reason: &str) {
        let tag = self.stateless_tag_of(msg);
        let mut extra = std::mem::take(&mut self.extra);
        extra.extend_from_slice(&self.lines.server);
        let reply = Reply { code, reason, to_tag: tag.as_bytes(), extra: &extra, ..Reply::default() };
        self.transmit_answer(path, msg, &reply);
        extra.clear();
        self.extra = extra;
    }

    /// The same for each retransmission of a request (RFC 3261 section 8.2.7).
    fn stateless_tag_of(&self, msg: &Message<'_>) -> Token {
        let branch = msg.top_via().ok().and_then(|v| v.branch()).unwrap_or_default();
        let call_id = msg.first(Name::CallId).unwrap_or_default();
        let hash = self.key.hash(&[branch, call_id, msg.from_tag().unwrap_or_default()]);
        // The bucket is not this shard's own: after a restart with another number of shards the tag is still the same.
        id::stateless_tag(scan::bucket_of(call_id, &self.key), hash)
    }

    /// The tag of answers to the transaction with this identity that the TU gave none.
    pub(super) fn stateless_tag(&self, ident: &[u8]) -> Token {
        id::stateless_tag(self.bucket, self.key.hash(&[ident]))
    }

    /// Whether a new request goes to the TU. If not, it is answered here.
    pub(super) fn admit(
        &mut self,
        path: Path,
        msg: &Message<'_>,
        method: Method<'_>,
        merged: bool,
        identity: usize,
    ) -> bool {
        // What cannot be read comes before what is not wanted (RFC 5118 section 4.2); which scheme a URI has is a question of
        // the latter kind.
        let unread = msg.check_request().err().filter(|err| *err != ParseError::UnsupportedScheme);
        if let Some(err) = unread {
            self.refuse_fault(path, msg, err);
        } else if let Some(code) = self.fault(msg, method, merged) {
            self.refuse(path, msg, code, "");
        } else if identity > MAX_IDENTITY {
            self.refuse(path, msg, 400, "Identifiers Too Long");
        } else if method == Method::Options && msg.to_tag().is_none() {
            // Section 11.2.
            self.stats.options += 1;
            self.extra.extend_from_slice(&self.lines.options);
            self.answer(path, msg, 200, "");
        } else if self.servers.len() + self.clients.len() >= self.cfg.max_transactions {
            self.stats.refused_full += 1;
            self.write_retry_after(msg);
            self.refuse(path, msg, 503, "");
        } else {
            return true;
        }
        false
    }

    /// What a user agent refuses, in the order of RFC 3261 section 8.2; the lines that explain it go to `self.extra`.
    fn fault(&mut self, msg: &Message<'_>, method: Method<'_>, merged: bool) -> Option<u16> {
        if !self.cfg.allow.contains(&method) {
            self.extra.extend_from_slice(&self.lines.allow);
            // Known, but not wanted here; or not even known (RFC 3261 section 21.5.2, RFC 4475 section 3.1.1.2).
            return Some(if method.known().is_some() { 405 } else { 501 });
        }
        if msg.request_uri() == Err(ParseError::UnsupportedScheme) {
            return Some(416);
        }
        let outside = msg.to_tag().is_none();
        if outside && merged {
            return Some(482);
        }
        // Zero is fine for who is the target. A request outside a dialog would go on to another leg, except OPTIONS,
        // which the one where Max-Forwards ends answers as its own (RFC 3261 section 16.3, RFC 7332).
        if outside && method != Method::Options && msg.max_forwards() == Ok(Some(0)) {
            return Some(483);
        }
        let mut missing = 0;
        for tag in msg.values(Name::Require) {
            if !self.cfg.supported.iter().any(|s| tag.eq_ignore_ascii_case(s.as_bytes())) {
                self.extra.extend_from_slice(if missing == 0 { b"Unsupported: " } else { b", " });
                self.extra.extend(tag.iter().filter(|b| !matches!(b, b'\r' | b'\n')));
                missing += 1;
            }
        }
        if missing > 0 {
            self.extra.extend_from_slice(b"\r\n");
            return Some(420);
        }
        (outside && self.body_fault(msg)).then_some(415)
    }

    /// A body that nobody behind us understands (RFC 3261 section 8.2.3). Inside a dialog bodies pass to the other
    /// side, who knows.
    fn body_fault(&mut self, msg: &Message<'_>) -> bool {
        let optional = msg
            .content_disposition()
            .and_then(|d| d.params.value("handling"))
            .is_some_and(|h| h.eq_ignore_ascii_case(b"optional"));
        if msg.body().is_empty() || optional {
            return false;
        }
        if msg.values(Name::ContentEncoding).any(|e| !e.eq_ignore_ascii_case(b"identity")) {
            self.extra.extend_from_slice(b"Accept-Encoding: identity\r\n");
            return true;
        }
        // Without the field there is no type to refuse; a malformed one is a fault of its own.
        let Some(kind) = msg.content_type() else { return false };
        let accepted = self.cfg.accept.iter().any(|a| match a.split_once('/') {
            Some((main, "*")) => kind.main.eq_ignore_ascii_case(main.as_bytes()),
            Some((main, sub)) => kind.is(main, sub),
            None => false,
        });
        if !accepted {
            self.extra.extend_from_slice(&self.lines.accept);
        }
        !accepted
    }

    /// 5 to 14 seconds, spread over those refused so that they do not come back together.
    fn write_retry_after(&mut self, msg: &Message<'_>) {
        let spread = self.key.hash(&[msg.first(Name::CallId).unwrap_or_default()]) % 10;
        self.extra.extend_from_slice(b"Retry-After: ");
        push_number(5 + spread, &mut self.extra);
        self.extra.extend_from_slice(b"\r\n");
    }
}
