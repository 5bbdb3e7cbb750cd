//! What a request must pass before the TU sees it (RFC 3261 section 8.2), and the answers given without state.

use super::server::MAX_IDENTITY;
use super::{Endpoint, EndpointConfig};
use crate::id::{self, Token};
use crate::msg::{Message, Method, Name, ParseError, Reply, push_number};
use crate::net::Path;
use crate::time::Mono;

/// Header lines that answers made here carry, written once.
#[derive(Debug)]
pub(super) struct Lines {
    server: Vec<u8>,
    allow: Vec<u8>,
    accept: Vec<u8>,
    supported: Vec<u8>,
}

impl Lines {
    pub(super) fn new(cfg: &EndpointConfig) -> Lines {
        let line = |name: &str, values: Vec<&str>| format!("{name}: {}\r\n", values.join(", ")).into_bytes();
        let methods: Vec<String> = cfg.allow.iter().map(ToString::to_string).collect();
        Lines {
            server: match cfg.user_agent.as_str() {
                "" => Vec::new(),
                agent => line("Server", vec![agent]),
            },
            allow: line("Allow", methods.iter().map(String::as_str).collect()),
            accept: line("Accept", cfg.accept.iter().map(String::as_str).collect()),
            supported: line("Supported", cfg.supported.iter().map(String::as_str).collect()),
        }
    }
}

/// A refusal: status, and the header lines that explain it.
type Refusal = (u16, Vec<u8>);

impl Endpoint {
    /// Takes in bytes that [`Message::parse`] refused with `err`. A request is answered (400, 505, 513, ...) where its
    /// Via says whom to answer; a response and an ACK never are.
    pub fn receive_malformed(&mut self, _now: Mono, path: Path, bytes: &[u8], err: ParseError) {
        self.stats.malformed += 1;
        let Ok(msg) = Message::parse_head(bytes, &self.cfg.limits) else { return };
        let acked = msg.method() == Some(Method::Ack) || msg.cseq().is_ok_and(|c| c.method == Method::Ack);
        if !msg.is_request() || acked || msg.top_via().is_err() {
            return;
        }
        self.refuse(path, &msg, &Reply { code: err.status(), reason: &err.reason(), ..Reply::default() });
    }

    /// A request whose Via cannot be read. There is nobody to answer but the source.
    pub(super) fn refuse_malformed(&mut self, path: Path, msg: &Message<'_>) {
        self.stats.malformed += 1;
        if msg.method() != Some(Method::Ack) {
            self.refuse(path, msg, &Reply { code: 400, reason: "Bad Via", ..Reply::default() });
        }
    }

    /// Answers without state.
    pub(super) fn refuse(&mut self, path: Path, msg: &Message<'_>, reply: &Reply<'_>) {
        self.stats.refused += 1;
        self.answer(path, msg, reply);
    }

    fn answer(&mut self, path: Path, msg: &Message<'_>, reply: &Reply<'_>) {
        let tag = self.stateless_tag_of(msg);
        let mut extra = reply.extra.to_vec();
        extra.extend_from_slice(&self.lines.server);
        self.transmit_answer(path, msg, &Reply { to_tag: tag.as_bytes(), extra: &extra, ..*reply });
    }

    /// The same for each retransmission of a request (RFC 3261 section 8.2.7).
    fn stateless_tag_of(&self, msg: &Message<'_>) -> Token {
        let branch = msg.top_via().ok().and_then(|v| v.branch()).unwrap_or_default();
        let call_id = msg.first(Name::CallId).unwrap_or_default();
        self.stateless_tag_from(&[branch, call_id, msg.from_tag().unwrap_or_default()])
    }

    /// The tag of answers to the transaction with this identity that the TU gave none.
    pub(super) fn stateless_tag(&self, ident: &[u8]) -> Token {
        self.stateless_tag_from(&[ident])
    }

    fn stateless_tag_from(&self, parts: &[&[u8]]) -> Token {
        id::stateless_tag(self.bucket, self.key.hash(parts))
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
        if let Some((code, extra)) = self.fault(msg, method, merged) {
            self.refuse(path, msg, &Reply { code, extra: &extra, ..Reply::default() });
            return false;
        }
        if let Err(err) = msg.check_request() {
            self.stats.malformed += 1;
            self.refuse(path, msg, &Reply { code: err.status(), reason: &err.reason(), ..Reply::default() });
            return false;
        }
        if identity > MAX_IDENTITY {
            self.refuse(path, msg, &Reply { code: 400, reason: "Identifiers Too Long", ..Reply::default() });
            return false;
        }
        if method == Method::Options && msg.to_tag().is_none() {
            self.answer_options(path, msg);
            return false;
        }
        if self.servers.len() + self.clients.len() >= self.cfg.max_transactions {
            self.stats.refused_full += 1;
            let extra = self.retry_after(msg);
            self.refuse(path, msg, &Reply { code: 503, extra: &extra, ..Reply::default() });
            return false;
        }
        true
    }

    /// What a user agent refuses, in the order of RFC 3261 section 8.2.
    fn fault(&self, msg: &Message<'_>, method: Method<'_>, merged: bool) -> Option<Refusal> {
        if !self.cfg.allow.contains(&method) {
            return Some((405, self.lines.allow.clone()));
        }
        if msg.request_uri() == Err(ParseError::UnsupportedScheme) {
            return Some((416, Vec::new()));
        }
        let outside = msg.to_tag().is_none();
        if outside && merged {
            return Some((482, Vec::new()));
        }
        // Zero is fine for who is the target. A request outside a dialog would go on to another leg, except OPTIONS,
        // which the one where Max-Forwards ends answers as its own (RFC 3261 section 16.3, RFC 7332).
        if outside && method != Method::Options && msg.max_forwards() == Ok(Some(0)) {
            return Some((483, Vec::new()));
        }
        let unknown = |v: &&[u8]| !self.cfg.supported.iter().any(|s| v.eq_ignore_ascii_case(s.as_bytes()));
        let missing: Vec<&[u8]> = msg.values(Name::Require).filter(unknown).collect();
        if !missing.is_empty() {
            return Some((420, list_line(b"Unsupported: ", &missing)));
        }
        if outside { self.body_fault(msg) } else { None }
    }

    /// A body that nobody behind us understands (RFC 3261 section 8.2.3). Inside a dialog bodies pass to the other
    /// side, who knows.
    fn body_fault(&self, msg: &Message<'_>) -> Option<Refusal> {
        if msg.body().is_empty() {
            return None;
        }
        let optional = msg
            .content_disposition()
            .and_then(|d| d.params.value("handling"))
            .is_some_and(|h| h.eq_ignore_ascii_case(b"optional"));
        let encoded = msg.values(Name::ContentEncoding).any(|e| !e.eq_ignore_ascii_case(b"identity"));
        if encoded && !optional {
            return Some((415, b"Accept-Encoding: identity\r\n".to_vec()));
        }
        let Some(kind) = msg.content_type() else {
            // Without the field there is no type to refuse; a malformed one is a fault of its own.
            return None;
        };
        let accepted = self.cfg.accept.iter().any(|a| match a.split_once('/') {
            Some((main, "*")) => kind.main.eq_ignore_ascii_case(main.as_bytes()),
            Some((main, sub)) => kind.is(main, sub),
            None => false,
        });
        (!accepted && !optional).then(|| (415, self.lines.accept.clone()))
    }

    /// RFC 3261 section 11.2.
    fn answer_options(&mut self, path: Path, msg: &Message<'_>) {
        self.stats.options += 1;
        let Lines { allow, accept, supported, .. } = &self.lines;
        let extra = [allow.as_slice(), accept, supported].concat();
        self.answer(path, msg, &Reply { code: 200, extra: &extra, ..Reply::default() });
    }

    /// 5 to 14 seconds, spread over those refused so that they do not come back together.
    fn retry_after(&self, msg: &Message<'_>) -> Vec<u8> {
        let spread = self.key.hash(&[msg.first(Name::CallId).unwrap_or_default()]) % 10;
        let mut line = b"Retry-After: ".to_vec();
        push_number(5 + spread, &mut line);
        line.extend_from_slice(b"\r\n");
        line
    }
}

fn list_line(name: &[u8], values: &[&[u8]]) -> Vec<u8> {
    let mut line = name.to_vec();
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            line.extend_from_slice(b", ");
        }
        // Elements of a folded list are trimmed; a fold inside one would not be a token: take it out.
        line.extend(value.iter().filter(|b| !matches!(b, b'\r' | b'\n')));
    }
    line.extend_from_slice(b"\r\n");
    line
}
