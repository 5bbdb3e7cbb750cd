//! Messages that the engine writes: INVITEs, answers, what passes from one leg to the other.

use crate::arena::Key;
use crate::body::Body;
use crate::call::{Call, End};
use crate::describe::{Kind, Use};
use crate::engine::Engine;
use crate::leg::{Leg, OutInvite, Phase, Purpose, Role};
use crate::relay::copy_relayed_headers;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use strowger_sip::dialog::Dialog;
use strowger_sip::endpoint::{ClientTxn, EndpointConfig, Outgoing, ServerTxn};
use strowger_sip::id::{NO_SLOT, Token};
use strowger_sip::msg::{HostRef, Message, Method, Name, Reply, Uri};
use strowger_sip::net::Path;
use strowger_sip::time::{Mono, Now};

/// Longest message that a UDP datagram over IPv4 carries.
const MAX_DATAGRAM: usize = 65_507;
/// Bytes that an INVITE of ours takes at most beside what comes from the caller and the provisioning.
const OWN_FIELDS: usize = 2_048;

/// Contact value of a listener, and the address for origin lines.
pub(crate) fn contact(host: &str) -> (Vec<u8>, IpAddr) {
    let addr =
        HostRef::with_port(host.as_bytes()).and_then(|(h, _)| h.ip()).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    (format!("<sip:{host}>").into_bytes(), addr)
}

/// `Allow` and `Supported` lines.
pub(crate) fn capabilities(cfg: &EndpointConfig) -> Vec<u8> {
    let mut out = b"Allow: ".to_vec();
    out.extend_from_slice(&cfg.allow.iter().map(|m| m.as_bytes()).collect::<Vec<_>>().join(&b", "[..]));
    out.extend_from_slice(b"\r\n");
    if !cfg.supported.is_empty() {
        let _ = write!(out, "Supported: {}\r\n", cfg.supported.join(", "));
    }
    out
}

impl Engine {
    /// Calls `uri` for a call; the description of leg `offer` goes along. `since` is when the agent came
    /// free, for the dispatch latency. `None`: the URI is unusable, or what the caller sent leaves no room for ours.
    pub(crate) fn open_leg(
        &mut self,
        c: Key,
        role: Role,
        uri: &[u8],
        offer: Option<Key>,
        since: Mono,
        now: Now,
    ) -> Option<Key> {
        let call = self.calls.get(c)?;
        Uri::parse(uri).ok().filter(|u| !u.host.is_empty())?;
        let (bucket, caller) = (call.bucket, call.caller);
        let key = self.legs.next_key();
        let local_tag = self.ep.ids().tag(bucket, key.slot);
        let call_id = self.ep.ids().call_id(bucket);
        let session_id = self.ep.ids().nonce() >> 8;
        let path = self.legs.get(caller).map(|l| l.dialog.path())?;
        let path = Path::udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), path.listener);
        let call = self.calls.get(c)?;
        let ends = &mut self.draft;
        ends.clear();
        write_from(call, role, ends);
        ends.extend_from_slice(b";tag=");
        ends.extend_from_slice(local_tag.as_bytes());
        let from = ends.len();
        [b"<", uri, b">"].into_iter().for_each(|part| ends.extend_from_slice(part));
        let (from, to) = ends.split_at(from);
        let routes = self.cfg.call.outbound_proxy.as_ref().map(|proxy| format!("<{proxy};lr>")).unwrap_or_default();
        let passed = if role == Role::Agent { call.words.passed().len() } else { 0 };
        let body = offer.and_then(|k| self.legs.get(k)).and_then(|l| l.remote.as_ref()).map_or(0, |b| b.data().len());
        let param = call.words.param().map_or(0, |p| p.len());
        let carried = from.len() + to.len() + uri.len() + routes.len() + passed + param + body;
        if carried + OWN_FIELDS > MAX_DATAGRAM {
            return None;
        }
        let dialog = Dialog::uac(call_id.as_bytes(), from, to, uri, routes.as_bytes(), 0, path).ok()?;
        let mut leg = Leg::new(role, dialog, session_id);
        leg.call = Some(c);
        leg.offered = offer.is_some();
        self.legs.insert(leg);
        self.invite(key, Purpose::Initial, offer.map(End::Leg), since, now);
        Some(key)
    }

    /// Sends a re-INVITE with the description of `end`, or without any.
    pub(crate) fn reinvite(&mut self, key: Key, purpose: Purpose, end: Option<End>, now: Now) {
        self.invite(key, purpose, end, Mono(0), now);
    }

    fn invite(&mut self, key: Key, purpose: Purpose, end: Option<End>, since: Mono, now: Now) {
        let content_type = match end {
            Some(end) => self.describe(end, key, Use::Offer),
            None => None,
        };
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        let Some(leg) = self.legs.get_mut(key) else { return };
        let cseq = leg.dialog.next_cseq();
        let forwards = match leg.call.and_then(|c| self.calls.get(c)).filter(|_| purpose == Purpose::Initial) {
            Some(call) => call.max_forwards.saturating_sub(1),
            None => self.cfg.endpoint.max_forwards,
        };
        leg.dialog.write_head_limited(Method::Invite, cseq, forwards, &mut head);
        let (session, listener, call) = (leg.session, leg.dialog.path().listener, leg.call);
        self.push_contact(listener.0, &mut head);
        head.extend_from_slice(&self.capabilities);
        self.push_session_request(&session, &mut head);
        if let Some(call) = call.and_then(|c| self.calls.get(c)) {
            self.push_call_headers(call, key, purpose, &mut head);
        }
        let body: &[u8] = if content_type.is_some() { &self.body } else { b"" };
        let content_type = content_type.unwrap_or_default();
        if let Some(leg) = self.legs.get_mut(key) {
            let (uri, target) = (leg.dialog.request_uri(), leg.dialog.target());
            let out = Outgoing {
                method: Method::Invite,
                uri,
                target,
                head: &head,
                content_type: &content_type,
                body,
                stamp: since.0,
                bucket: leg.bucket(),
            };
            let txn = self.ep.request(now.mono, &out, key.to_u64());
            leg.invite = Some(OutInvite { txn, purpose, cseq });
        }
        self.head = head;
        if purpose != Purpose::Initial {
            self.limit_reinvite(key, now);
        }
    }

    /// `X-CC-State`, the parameter, and for the agent what passes from the caller.
    fn push_call_headers(&self, call: &Call, key: Key, purpose: Purpose, head: &mut Vec<u8>) {
        let agent = call.attempt.as_ref().is_some_and(|a| a.leg == key)
            || self.legs.get(key).is_some_and(|l| l.role == Role::Agent);
        let _ = write!(head, "X-CC-State: {}\r\n", call.state.header_name());
        if purpose != Purpose::Initial {
            return;
        }
        if let Some(param) = call.words.param() {
            let _ = write!(head, "{}: {param}\r\n", self.cfg.call.param_header);
        }
        if agent {
            head.extend_from_slice(call.words.passed());
        }
    }

    fn push_contact(&self, listener: u8, head: &mut Vec<u8>) {
        head.extend_from_slice(b"Contact: ");
        head.extend_from_slice(self.contact_value(listener));
        head.extend_from_slice(b"\r\n");
    }

    fn contact_value(&self, listener: u8) -> &[u8] {
        self.contacts.get(usize::from(listener)).map_or(b"", |(value, _)| value)
    }

    /// ACK of a 2xx, with the description of `end` as the answer if one is due.
    pub(crate) fn send_ack(&mut self, key: Key, txn: ClientTxn, cseq: u32, end: Option<End>, now: Now) {
        let content_type = match end {
            Some(End::Silence) => self.describe_refusal(key),
            Some(end) => self.describe(end, key, Use::Answer),
            None => None,
        };
        self.write_ack(key, txn, cseq, content_type, now);
    }

    /// ACK of a 2xx, with the description in `self.body` when there is a content type.
    fn write_ack(&mut self, key: Key, txn: ClientTxn, cseq: u32, content_type: Option<Kind>, now: Now) {
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        let body: &[u8] = if content_type.is_some() { &self.body } else { b"" };
        let content_type = content_type.unwrap_or_default();
        if let Some(leg) = self.legs.get_mut(key) {
            leg.dialog.write_head_limited(Method::Ack, cseq, self.cfg.endpoint.max_forwards, &mut head);
            let (uri, target) = (leg.dialog.request_uri(), leg.dialog.target());
            let out = Outgoing {
                method: Method::Ack,
                uri,
                target,
                head: &head,
                content_type: &content_type,
                body,
                stamp: 0,
                bucket: leg.bucket(),
            };
            self.ep.ack_2xx(now.mono, txn, &out);
        }
        self.head = head;
    }

    /// The ACK that waited for the answer of `end`; silence refuses every stream.
    pub(crate) fn ack_owed(&mut self, key: Key, end: End, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        let Some((txn, cseq)) = leg.owes_ack.take() else { return };
        if leg.phase == Phase::OwesAck {
            leg.phase = Phase::Confirmed;
        }
        self.send_ack(key, txn, cseq, Some(end), now);
    }

    /// The ACK that waits for an answer, with one that accepts every stream but lets none flow (RFC 3264 section 6.1).
    pub(crate) fn ack_held(&mut self, key: Key, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        let Some((txn, cseq)) = leg.owes_ack.take() else { return };
        if leg.phase == Phase::OwesAck {
            leg.phase = Phase::Confirmed;
        }
        let content_type = self.describe(End::Silence, key, Use::Answer);
        self.write_ack(key, txn, cseq, content_type, now);
    }

    /// Ends the dialog.
    pub(crate) fn send_bye(&mut self, key: Key, now: Now) {
        let txn = self.send_bare(key, Method::Bye, b"", now);
        if let Some(leg) = self.legs.get_mut(key) {
            leg.phase = Phase::Closing;
            leg.bye = txn;
        }
    }

    /// Session refresh without a description (RFC 4028 section 7.4).
    pub(crate) fn send_update(&mut self, key: Key, now: Now) -> Option<ClientTxn> {
        let leg = self.legs.get(key)?;
        let (session, listener) = (leg.session, leg.dialog.path().listener);
        let mut lines = Vec::new();
        self.push_contact(listener.0, &mut lines);
        lines.extend_from_slice(&self.capabilities);
        self.push_session_request(&session, &mut lines);
        self.send_bare(key, Method::Update, &lines, now)
    }

    pub(crate) fn send_bare(&mut self, key: Key, method: Method<'_>, lines: &[u8], now: Now) -> Option<ClientTxn> {
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        let leg = self.legs.get_mut(key)?;
        let cseq = leg.dialog.next_cseq();
        leg.dialog.write_head_limited(method, cseq, self.cfg.endpoint.max_forwards, &mut head);
        head.extend_from_slice(lines);
        let (uri, target) = (leg.dialog.request_uri(), leg.dialog.target());
        let out =
            Outgoing { method, uri, target, head: &head, content_type: b"", body: b"", stamp: 0, bucket: leg.bucket() };
        let txn = self.ep.request(now.mono, &out, key.to_u64());
        self.head = head;
        Some(txn)
    }

    /// Passes a request of leg `from` on to leg `to`. With `offer` its body is the description just proposed.
    pub(crate) fn send_relayed(
        &mut self,
        to: Key,
        from: Key,
        msg: &Message<'_>,
        offer: bool,
        now: Now,
    ) -> Option<ClientTxn> {
        let described = if offer { self.describe(End::Leg(from), to, Use::Offer) } else { None };
        let method = msg.method()?;
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        let forwards = msg.max_forwards().ok().flatten().unwrap_or(70).saturating_sub(1);
        let leg = self.legs.get_mut(to)?;
        let cseq = leg.dialog.next_cseq();
        leg.dialog.write_head_limited(method, cseq, forwards, &mut head);
        let (listener, session) = (leg.dialog.path().listener, leg.session);
        if offer {
            self.push_contact(listener.0, &mut head);
            self.push_session_request(&session, &mut head);
        }
        copy_relayed_headers(msg, &mut head);
        let (content_type, body): (&[u8], &[u8]) = match &described {
            Some(content_type) => (content_type, &self.body),
            None => (msg.first(Name::ContentType).unwrap_or_default(), msg.body()),
        };
        let leg = self.legs.get(to)?;
        let (uri, target) = (leg.dialog.request_uri(), leg.dialog.target());
        let out = Outgoing { method, uri, target, head: &head, content_type, body, stamp: 0, bucket: leg.bucket() };
        let txn = self.ep.request(now.mono, &out, to.to_u64());
        self.head = head;
        Some(txn)
    }

    /// 200 to their INVITE with the description of `end`.
    pub(crate) fn answer_invite(&mut self, key: Key, end: End, now: Now) {
        let Some(leg) = self.legs.get(key) else { return };
        let offers = leg.remote.is_none() || leg.inbound.is_some_and(|i| i.ack_to.is_some());
        let content_type = self.describe(end, key, if offers { Use::Offer } else { Use::Answer });
        let Some(leg) = self.legs.get_mut(key) else { return };
        let Some(inbound) = leg.inbound.as_mut() else { return };
        inbound.answered = true;
        let txn = inbound.txn;
        if leg.phase == Phase::Trying {
            leg.phase = Phase::AwaitAck;
        }
        let Some(leg) = self.legs.get(key) else { return };
        let (listener, session) = (leg.dialog.path().listener, leg.session);
        let mut extra = std::mem::take(&mut self.head);
        extra.clear();
        extra.extend_from_slice(&self.capabilities);
        Self::push_session_answer(&session, &mut extra);
        let body: &[u8] = if content_type.is_some() { &self.body } else { b"" };
        let reply = Reply {
            code: 200,
            to_tag: leg.local_tag(),
            contact: self.contacts.get(usize::from(listener.0)).map_or(b"", |(v, _)| v),
            extra: &extra,
            content_type: content_type.as_deref().unwrap_or_default(),
            body,
            ..Reply::default()
        };
        self.ep.respond(now.mono, txn, &reply);
        self.head = extra;
        self.start_session_timer(key, now);
    }

    /// 200 to their UPDATE; with `end`, its description is the answer.
    pub(crate) fn answer_update(&mut self, key: Key, txn: ServerTxn, end: Option<End>, now: Now) {
        let content_type = match end {
            Some(end) => self.describe(end, key, Use::Answer),
            None => None,
        };
        let Some(leg) = self.legs.get(key) else { return };
        let (listener, session) = (leg.dialog.path().listener, leg.session);
        let mut extra = Vec::new();
        Self::push_session_answer(&session, &mut extra);
        let body: &[u8] = if content_type.is_some() { &self.body } else { b"" };
        let reply = Reply {
            code: 200,
            contact: self.contacts.get(usize::from(listener.0)).map_or(b"", |(v, _)| v),
            extra: &extra,
            content_type: content_type.as_deref().unwrap_or_default(),
            body,
            ..Reply::default()
        };
        self.ep.respond(now.mono, txn, &reply);
        self.start_session_timer(key, now);
    }

    /// An answer without more to say.
    pub(crate) fn answer_final(&mut self, key: Key, txn: ServerTxn, code: u16, now: Now) {
        let tag = self.legs.get(key).map_or(&b""[..], |l| l.local_tag());
        self.ep.respond(now.mono, txn, &Reply { code, to_tag: tag, ..Reply::default() });
    }

    /// 500 with Retry-After 0 to 10 s (RFC 3261 sections 12.2.2 and 14.2).
    pub(crate) fn answer_retry_later(&mut self, txn: ServerTxn, now: Now) {
        let extra = format!("Retry-After: {}\r\n", self.ep.ids().nonce() % 11);
        self.ep.respond(now.mono, txn, &Reply { code: 500, extra: extra.as_bytes(), ..Reply::default() });
    }

    /// A provisional answer without a description to the caller's first INVITE.
    pub(crate) fn answer_progress(&mut self, key: Key, code: u16, now: Now) {
        let Some(leg) = self.legs.get(key) else { return };
        let Some(inbound) = leg.inbound.filter(|i| !i.answered) else { return };
        let contact = self.contact_value(leg.dialog.path().listener.0).to_vec();
        let reply = Reply { code, to_tag: leg.local_tag(), contact: &contact, ..Reply::default() };
        self.ep.respond(now.mono, inbound.txn, &reply);
    }

    /// The other side's answer to a relayed request, body included.
    pub(crate) fn answer_relayed(&mut self, txn: ServerTxn, code: u16, msg: Option<&Message<'_>>, now: Now) {
        let content_type = msg.and_then(|m| m.first(Name::ContentType)).unwrap_or_default();
        let body = msg.map_or(&b""[..], |m| m.body());
        let mut extra = Vec::new();
        if let Some(msg) = msg {
            copy_relayed_headers(msg, &mut extra);
        }
        let reply = Reply { code, extra: &extra, content_type, body, ..Reply::default() };
        self.ep.respond(now.mono, txn, &reply);
    }

    /// An answer to a request outside every dialog of ours.
    pub(crate) fn refuse(&mut self, txn: ServerTxn, code: u16, extra: &[u8], now: Now) {
        self.refuse_with(txn, (code, ""), extra, now);
    }

    /// The same with a reason phrase; an empty one is the code's own.
    pub(crate) fn refuse_with(&mut self, txn: ServerTxn, (code, reason): (u16, &str), extra: &[u8], now: Now) {
        let bucket = self.cfg.buckets.owned(self.shard).next().unwrap_or(0);
        let tag = self.ep.ids().tag(bucket, NO_SLOT);
        self.ep.respond(now.mono, txn, &Reply { code, reason, to_tag: tag.as_bytes(), extra, ..Reply::default() });
    }

    /// A second 2xx to one INVITE, from another branch of a fork: acknowledged and ended (RFC 3261 section 13.2.2.4).
    pub(crate) fn end_fork(&mut self, key: Key, txn: ClientTxn, msg: &Message<'_>, path: Path, now: Now) {
        // The leg may be gone by now: what the branch's dialog needs stands in the answer.
        let role = self.legs.get(key).map_or(Role::Agent, |l| l.role);
        let offered = self.ep.had_body(txn).unwrap_or(true);
        // Our tag, and not longer than those are.
        let (Some(_), Ok(cseq)) = (msg.from_tag().and_then(Token::new), msg.cseq()) else { return };
        let (Ok(call_id), Ok(to)) = (msg.call_id(), msg.to()) else { return };
        let remote = [b"<", to.uri, b">"].concat();
        let mut local = Vec::new();
        strowger_sip::msg::unfold(msg.first(Name::From).unwrap_or_default(), &mut local);
        let made = Dialog::uac(call_id, &local, &remote, to.uri, b"", cseq.number, path);
        let Ok(mut dialog) = made else { return };
        if dialog.establish(msg, path).is_err() {
            return;
        }
        let mut fork = Leg::new(role, dialog, 0);
        fork.phase = Phase::Confirmed;
        fork.remote = Body::of(msg).into();
        let fork = self.legs.insert(fork);
        let end = (!offered && self.legs.get(fork).is_some_and(|l| l.remote.is_some())).then_some(End::Silence);
        self.send_ack(fork, txn, cseq.number, end, now);
        self.send_bye(fork, now);
    }
}

/// From value of a leg of ours, without its tag: the caller's own, for an agent with the flow's prefix before the name.
fn write_from(call: &Call, role: Role, out: &mut Vec<u8>) {
    let prefix = call.flow.prependcid.as_deref().filter(|_| role == Role::Agent);
    let Some(prefix) = prefix else {
        out.extend_from_slice(call.words.from());
        return;
    };
    out.push(b'"');
    for c in prefix.bytes().chain(*b" ").chain(call.words.display().bytes()) {
        if matches!(c, b'"' | b'\\') {
            out.push(b'\\');
        }
        if !c.is_ascii_control() {
            out.push(c);
        }
    }
    out.extend_from_slice(b"\" ");
    let at = call.words.from().iter().position(|b| *b == b'<');
    match at {
        Some(_) => {
            // Behind the caller's own display name, which may hold a bracket inside quotes.
            let value = strowger_sip::msg::NameAddr::parse(call.words.from(), Name::From);
            let uri = value.map_or(call.words.from(), |v| v.uri);
            out.push(b'<');
            out.extend_from_slice(uri);
            out.push(b'>');
        }
        None => {
            out.push(b'<');
            out.extend_from_slice(call.words.from());
            out.push(b'>');
        }
    }
}
