//! Requests on their way out: where they go, and their bytes.

use super::pool::BufId;
use super::resolve::Known;
use super::timers::Class;
use super::{ClientTxn, Endpoint, FailReason, Outgoing, Target};
use crate::id::{self, BranchId};
use crate::msg::write::write_line;
use crate::msg::{Limits, Message, Method, Name, any_ip, push_number};
use crate::net::{ListenerId, Path};
use crate::time::Mono;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What waits for an address.
#[derive(Debug)]
pub(super) enum Waiter {
    Request {
        txn: u64,
        stamp: u64,
    },
    /// An ACK of a 2xx; `path` lacks the address.
    Ack {
        txn: u64,
        tag: u64,
        buf: BufId,
        path: Path,
        stamp: u64,
    },
}

/// Whether a target has an address.
pub(super) enum Destination {
    Known(Path),
    /// `Path` lacks the address of the name.
    Unknown(Path, String),
    Nowhere(FailReason),
}

impl Endpoint {
    /// The answer to a [`Resolve`](super::Resolve): addresses, best first, good for `ttl_us`; or that there are none.
    pub fn resolved(&mut self, now: Mono, id: u32, result: Result<&[IpAddr], ()>, ttl_us: u64) {
        let addresses = result.unwrap_or(&[]);
        self.wheel.cancel(self.resolver.timer(id));
        for waiter in self.resolver.answer(now, id, result, ttl_us) {
            self.wake(now, waiter, addresses);
        }
    }

    pub(super) fn resolve_timeout(&mut self, now: Mono, id: u32) {
        for waiter in self.resolver.expire(id) {
            self.wake(now, waiter, &[]);
        }
    }

    pub(super) fn destination(&self, now: Mono, target: &Target<'_>) -> Destination {
        let (host, port, transport, listener) = match *target {
            Target::Addr(path) if self.cfg.listeners.len() > usize::from(path.listener.0) => {
                return Destination::Known(path);
            }
            Target::Addr(_) => return Destination::Nowhere(FailReason::Transport),
            Target::Host { host, port, transport, listener } => (host, port, transport, listener),
        };
        if self.cfg.listeners.len() <= usize::from(listener.0) {
            return Destination::Nowhere(FailReason::Transport);
        }
        let at = |ip| Path { remote: SocketAddr::new(ip, port), listener, transport, conn: 0 };
        if host.is_empty() {
            return Destination::Nowhere(FailReason::Unresolvable);
        }
        if let Some(ip) = any_ip(host) {
            return Destination::Known(at(ip));
        }
        let Ok(name) = std::str::from_utf8(host) else { return Destination::Nowhere(FailReason::Unresolvable) };
        let name = name.to_ascii_lowercase();
        match self.resolver.known(now, &name) {
            Known::Addresses(all) => match self.pick(listener, all) {
                Some(ip) => Destination::Known(at(ip)),
                None => Destination::Nowhere(FailReason::Unresolvable),
            },
            Known::Nothing => Destination::Nowhere(FailReason::Unresolvable),
            Known::Unknown => Destination::Unknown(at(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), name),
        }
    }

    /// The first address that the listener reaches: of its own family, when its sent-by is a literal.
    fn pick(&self, listener: ListenerId, addresses: &[IpAddr]) -> Option<IpAddr> {
        let via = self.cfg.listeners.get(usize::from(listener.0))?.via.as_str();
        let host = via.rsplit_once(':').map_or(via, |(host, _)| host);
        match any_ip(host.as_bytes()) {
            Some(own) => addresses.iter().copied().find(|a| a.is_ipv4() == own.is_ipv4()),
            None => addresses.first().copied(),
        }
    }

    pub(super) fn ask(&mut self, now: Mono, host: &str, waiter: Waiter) -> Result<(), Waiter> {
        let due = now.plus_us(self.cfg.resolve_timeout_us);
        if let Some(id) = self.resolver.wait(host, waiter)? {
            let timer = self.wheel.insert(due, u64::from(id), Class::Resolve.kind(0));
            self.resolver.set_timer(id, timer);
        }
        Ok(())
    }

    /// Goes on with what waited for `addresses`.
    fn wake(&mut self, now: Mono, waiter: Waiter, addresses: &[IpAddr]) {
        match waiter {
            Waiter::Request { txn, stamp } => {
                let Some(slot) = self.live_client(ClientTxn::of(txn)) else { return };
                match self.pick(self.clients[slot].path.listener, addresses) {
                    Some(ip) => {
                        self.clients[slot].path.remote.set_ip(ip);
                        self.start(now, slot, stamp);
                    }
                    None => self.fail(slot, FailReason::Unresolvable),
                }
            }
            Waiter::Ack { txn, tag, buf, mut path, stamp } => match self.pick(path.listener, addresses) {
                Some(ip) => {
                    path.remote.set_ip(ip);
                    self.send_ack(ClientTxn::of(txn), tag, buf, path, stamp);
                }
                None => self.pool.release(buf),
            },
        }
    }

    pub(super) fn write_request(&mut self, req: &Outgoing<'_>, path: Path, branch: BranchId) -> BufId {
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        write_request_line(req.method, req.uri, &mut out);
        let via = self.cfg.listeners.get(usize::from(path.listener.0)).map_or("", |l| l.via.as_str());
        out.extend_from_slice(b"Via: SIP/2.0/");
        out.extend_from_slice(path.transport.via_name().as_bytes());
        out.push(b' ');
        out.extend_from_slice(via.as_bytes());
        out.extend_from_slice(b";branch=");
        out.extend_from_slice(id::branch(req.bucket.unwrap_or(self.bucket), branch).as_bytes());
        out.extend_from_slice(b";rport\r\n");
        out.extend_from_slice(req.head);
        if !self.cfg.user_agent.is_empty() && req.method != Method::Ack {
            out.extend_from_slice(b"User-Agent: ");
            out.extend_from_slice(self.cfg.user_agent.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if !req.content_type.is_empty() {
            out.extend_from_slice(b"Content-Type: ");
            out.extend_from_slice(req.content_type);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"Content-Length: ");
        push_number(req.body.len() as u64, &mut out);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(req.body);
        let buf = self.pool.store(&out);
        self.scratch = out;
        buf
    }

    /// CANCEL, or the ACK of a refusal, of the INVITE in `slot`: its Via, Route, From, Call-ID and CSeq number, and
    /// its To or the answer's (RFC 3261 sections 9.1 and 17.1.1.3).
    pub(super) fn write_derived(&mut self, slot: usize, method: Method<'_>, to: Option<&[u8]>) -> BufId {
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let limits = Limits::default();
        if let Ok(invite) = Message::parse(self.pool.get(self.clients[slot].buf), &limits) {
            write_request_line(method, invite.uri().unwrap_or_default(), &mut out);
            write_line(Name::Via, invite.first(Name::Via).unwrap_or_default(), b"", &mut out);
            out.extend_from_slice(b"Max-Forwards: ");
            push_number(u64::from(self.cfg.max_forwards), &mut out);
            out.extend_from_slice(b"\r\n");
            for route in invite.all(Name::Route) {
                write_line(Name::Route, route, b"", &mut out);
            }
            write_line(Name::From, invite.first(Name::From).unwrap_or_default(), b"", &mut out);
            write_line(Name::To, to.or(invite.first(Name::To)).unwrap_or_default(), b"", &mut out);
            write_line(Name::CallId, invite.first(Name::CallId).unwrap_or_default(), b"", &mut out);
            out.extend_from_slice(b"CSeq: ");
            push_number(u64::from(invite.cseq().map_or(0, |c| c.number)), &mut out);
            out.push(b' ');
            out.extend_from_slice(method.as_bytes());
            out.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
        }
        let buf = self.pool.store(&out);
        self.scratch = out;
        buf
    }
}

fn write_request_line(method: Method<'_>, uri: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(uri);
    out.extend_from_slice(b" SIP/2.0\r\n");
}

/// The path of a request that has none.
pub(super) const NOWHERE: Path = Path::udp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), ListenerId(0));
