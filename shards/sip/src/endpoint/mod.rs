//! The transaction layer of one shard, without I/O: messages and time go in, messages and events come out.
//!
//! Inputs: [`receive`](Endpoint::receive), [`receive_malformed`](Endpoint::receive_malformed),
//! [`resolved`](Endpoint::resolved), [`send_failed`](Endpoint::send_failed), [`path_lost`](Endpoint::path_lost), and the
//! passing of time, [`poll_timer`](Endpoint::poll_timer). The transaction user (TU) speaks through
//! [`respond`](Endpoint::respond), [`request`](Endpoint::request), [`cancel`](Endpoint::cancel),
//! [`ack_2xx`](Endpoint::ack_2xx) and the timers. After each input drain `poll_timer`, `poll_transmit` and
//! `poll_resolve`.
//!
//! Invariants:
//! 1. A request reaches the TU once: retransmissions, merged copies and refusals end here (RFC 3261 section 8.2).
//! 2. A server transaction sends one final answer; what the TU answers after it is dropped.
//! 3. A client transaction ends in one final [`Event::Response`] or one [`TimerEvent::ClientFailed`], never both and
//!    never neither. A forked 2xx is one more `Response`, with a To tag of its own.
//! 4. Everything is bounded: transactions by `max_transactions`, questions and forks by constants.
//! 5. At rest nothing is held: [`Counts::is_at_rest`].
//!
//! What this layer refuses or answers by itself (OPTIONS, 4xx, 5xx, the 200 to a CANCEL) it answers without state, as
//! RFC 3261 section 8.2.7 allows: the same request gets the same answer, tag included, and a flood costs no memory.

mod checks;
mod client;
mod identity;
mod keep;
mod look;
mod outgoing;
mod pool;
mod resolve;
mod server;
mod timers;

pub use keep::{Kept, Record, Restored};
pub use resolve::Resolve;
pub use timers::TimerEvent;

use crate::chunks::{PartedMap, Slab};
use crate::hash::{HashKey, HashedMap};
use crate::id::IdGen;
use crate::msg::{Limits, Message, Method, Reply, Start};
use crate::net::{ListenerId, Path, Transport};
use crate::time::Mono;
use crate::txn::Times;
use crate::wheel::Wheel;
use client::{Client, Fork};
use outgoing::Waiter;
use pool::{BufId, Pool};
use resolve::Resolver;
use server::{Open, Server};
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

/// A listener as peers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerInfo {
    pub transport: Transport,
    /// `host:port` that our Via headers name (sent-by); IPv6 literals in brackets.
    pub via: String,
    /// `host:port` of our Contact URIs.
    pub contact_host: String,
}

/// What an endpoint is told at its start. Times in microseconds.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// RFC 3261 timer T1: 500 000.
    pub t1_us: u64,
    /// RFC 3261 timer T2: 4 000 000.
    pub t2_us: u64,
    /// RFC 3261 timer T4: 5 000 000.
    pub t4_us: u64,
    /// How long a request waits for the address of its host.
    pub resolve_timeout_us: u64,
    pub limits: Limits,
    /// By [`ListenerId`].
    pub listeners: Vec<ListenerInfo>,
    /// Methods that reach the TU; others get 405. Named in Allow.
    pub allow: Vec<Method<'static>>,
    /// Option tags that we understand: Supported, and what Require may name.
    pub supported: Vec<String>,
    /// Body types (`application/sdp`, `multipart/*`) of requests outside a dialog; others get 415.
    pub accept: Vec<String>,
    /// User-Agent of requests, Server of answers made here; empty for none.
    pub user_agent: String,
    /// Max-Forwards of what is made here: CANCEL, and the ACK of a refusal.
    pub max_forwards: u32,
    /// Transactions at once, of servers and clients together; beyond, new requests get 503.
    pub max_transactions: usize,
    /// Answer to an INVITE outside a dialog whose From cannot be read.
    pub bad_from: u16,
    /// Answer an INVITE with 100 at once, so that the TU may take its time (RFC 3261 section 17.2.1).
    pub auto_trying: bool,
}

impl Default for EndpointConfig {
    fn default() -> EndpointConfig {
        use Method::{Ack, Bye, Cancel, Info, Invite, Message, Notify, Options, Update};
        EndpointConfig {
            t1_us: 500_000,
            t2_us: 4_000_000,
            t4_us: 5_000_000,
            resolve_timeout_us: 5_000_000,
            limits: Limits::default(),
            listeners: Vec::new(),
            allow: vec![Invite, Ack, Cancel, Bye, Options, Update, Info, Message, Notify],
            supported: vec!["timer".to_owned()],
            accept: ["application/sdp", "multipart/mixed"].map(str::to_owned).to_vec(),
            user_agent: concat!("Strowger/", env!("CARGO_PKG_VERSION")).to_owned(),
            max_forwards: 70,
            max_transactions: 4_000_000,
            bad_from: 400,
            auto_trying: true,
        }
    }
}

/// An opaque token of the transaction user.
pub type User = u64;

/// A server transaction; a stale handle is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerTxn(NonZeroU64);

/// A client transaction; a stale handle is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientTxn(NonZeroU64);

impl ServerTxn {
    /// A transaction that never was.
    pub const NONE: ServerTxn = ServerTxn(NonZeroU64::MAX);

    /// As the number that a journal knows it by.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0.get()
    }

    /// The reverse of [`number`](Self::number).
    const fn of(number: u64) -> ServerTxn {
        match NonZeroU64::new(number) {
            Some(number) => ServerTxn(number),
            None => ServerTxn::NONE,
        }
    }
}

impl ClientTxn {
    /// A transaction that never was.
    pub const NONE: ClientTxn = ClientTxn(NonZeroU64::MAX);

    /// As the number that a journal knows it by.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0.get()
    }

    /// The reverse of [`number`](Self::number).
    const fn of(number: u64) -> ClientTxn {
        match NonZeroU64::new(number) {
            Some(number) => ClientTxn(number),
            None => ClientTxn::NONE,
        }
    }
}

/// Slot in the low half, generation in the high half; never 0, since no generation is.
const fn handle(slot: usize, generation: u32) -> u64 {
    (generation as u64) << 32 | slot as u64 & 0xffff_ffff
}

/// What the TU must see of a message that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A new request; answer it by [`Endpoint::respond`]. With a To tag: the TU finds the dialog, or answers 481.
    Request { txn: ServerTxn },
    /// ACK of a 2xx (or of nothing): the TU finds the dialog by the To tag and calls [`Endpoint::acked`].
    Ack,
    /// The INVITE is cancelled. The CANCEL is answered already; the TU answers the INVITE, 487.
    Cancel { invite: ServerTxn, user: User },
    /// An answer to a request of the TU.
    Response { txn: ClientTxn, user: User },
}

/// Why a client transaction ended without a final answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailReason {
    /// No answer in 64*T1, or none to a cancelled INVITE (act as on 408, RFC 3261 section 8.1.3.1).
    Timeout,
    /// The transport reported an error (act as on 503).
    Transport,
    /// The host has no address, or none of a kind that the listener reaches.
    Unresolvable,
    /// Cancelled before anything was sent.
    Cancelled,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    Addr(Path),
    /// A name or an IP literal (IPv6 without brackets).
    Host {
        host: &'a [u8],
        port: u16,
        transport: Transport,
        listener: ListenerId,
    },
}

/// A request to send. The endpoint writes the request line and Via (branch, rport), then `head`, User-Agent,
/// Content-Type and Content-Length, then the body.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub method: Method<'a>,
    /// Request-URI.
    pub uri: &'a [u8],
    pub target: Target<'a>,
    /// Ready header lines, each with its CRLF: Max-Forwards, Route, From, To, Call-ID, CSeq, Contact, ...
    pub head: &'a [u8],
    /// Value of Content-Type; empty for none.
    pub content_type: &'a [u8],
    pub body: &'a [u8],
    /// Comes back in the first [`Transmit`]; 0 for none.
    pub stamp: u64,
    /// What the branch carries, so that answers find the call wherever its bucket is; `None`: the endpoint's own.
    pub bucket: Option<u16>,
}

/// Whom a failure to send concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Client(u64),
    Server(u64),
    Stateless,
}

/// A message to send. Give it back with [`Endpoint::sent`] or [`Endpoint::send_failed`].
#[derive(Debug)]
#[must_use = "holds a buffer until it is given back"]
pub struct Transmit {
    pub path: Path,
    /// [`Outgoing::stamp`] on the first transmission of its request, else 0.
    pub stamp: u64,
    buf: BufId,
    /// Where the message begins in the buffer.
    start: u16,
    origin: Origin,
}

/// What happened since the start, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Requests that came again and were absorbed or answered from memory.
    pub retransmissions_in: u64,
    /// Messages of ours sent again by a timer or for a retransmission.
    pub retransmissions_out: u64,
    /// Requests refused here, without the TU.
    pub refused: u64,
    /// Of those, with 503 because of `max_transactions`.
    pub refused_full: u64,
    /// OPTIONS answered here.
    pub options: u64,
    /// Responses that match no transaction.
    pub stray_responses: u64,
    /// Of those, 2xx to an INVITE: a call that the peer believes in.
    pub stray_successes: u64,
    /// ACKs that match nothing and name no dialog of ours.
    pub stray_acks: u64,
    /// Malformed messages that deserve no answer, or get one.
    pub malformed: u64,
    /// Client transactions that failed by timeout.
    pub timeouts: u64,
    /// Requests other than INVITE that the TU left unanswered until their clients gave up.
    pub unanswered: u64,
}

/// What is held now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub client_invites: usize,
    pub client_others: usize,
    pub server_invites: usize,
    pub server_others: usize,
    /// Running timers, the TU's included.
    pub timers: usize,
    /// Message buffers in use.
    pub buffers: usize,
    /// Answers to forks and open requests of server transactions.
    pub side_entries: usize,
    /// Keys in the look-up maps.
    pub keys: usize,
    /// Requests that wait for an address.
    pub resolving: usize,
    /// Messages and events not polled yet.
    pub queued: usize,
}

impl Counts {
    /// Whether nothing is held at all.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        *self == Counts::default()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Endpoint {
    cfg: Arc<EndpointConfig>,
    key: HashKey,
    bucket: u16,
    ids: IdGen,
    wheel: Wheel,
    pool: Pool,
    servers: Slab<Server>,
    open: Slab<Open>,
    by_identity: PartedMap<u32>,
    by_merge: PartedMap<u32>,
    clients: Slab<Client>,
    forks: Slab<Fork>,
    /// Slots of restored requests by the nonce of their branch, which names another slot; empty in normal life.
    revived: HashedMap<u32>,
    notes: keep::Notes,
    resolver: Resolver<Waiter>,
    out: VecDeque<Transmit>,
    events: VecDeque<TimerEvent>,
    lines: checks::Lines,
    /// Reused for the message being written, the identity of the request at hand, and lines of a refusal.
    scratch: Vec<u8>,
    ident: Vec<u8>,
    extra: Vec<u8>,
    generation: u32,
    stats: Stats,
    /// Makes identities collide.
    #[cfg(test)]
    hash_mask: u64,
}

impl Endpoint {
    /// An endpoint whose branches and stateless tags carry `bucket`, one of its shard's own. `key` is the
    /// installation's, `seed` differs between endpoints and starts.
    #[must_use]
    pub fn new(cfg: Arc<EndpointConfig>, key: HashKey, seed: [u8; 32], bucket: u16) -> Endpoint {
        Endpoint {
            lines: checks::Lines::new(&cfg),
            cfg,
            key,
            bucket: bucket % crate::scan::BUCKETS,
            ids: IdGen::new(seed),
            wheel: Wheel::new(),
            pool: Pool::default(),
            servers: Slab::default(),
            open: Slab::default(),
            by_identity: PartedMap::default(),
            by_merge: PartedMap::default(),
            clients: Slab::default(),
            forks: Slab::default(),
            revived: HashedMap::default(),
            notes: keep::Notes::default(),
            resolver: Resolver::new(key),
            out: VecDeque::new(),
            events: VecDeque::new(),
            scratch: Vec::new(),
            ident: Vec::new(),
            extra: Vec::new(),
            generation: 0,
            stats: Stats::default(),
            #[cfg(test)]
            hash_mask: u64::MAX,
        }
    }

    #[must_use]
    pub fn config(&self) -> &Arc<EndpointConfig> {
        &self.cfg
    }

    /// The generator of tags and Call-IDs for the TU.
    pub fn ids(&mut self) -> &mut IdGen {
        &mut self.ids
    }

    /// Takes a well-formed message in. What the TU must see comes back; everything else is handled here.
    pub fn receive(&mut self, now: Mono, path: Path, msg: &Message<'_>) -> Option<Event> {
        match msg.start() {
            Start::Request { method, .. } => self.receive_request(now, path, msg, method),
            Start::Response { code, .. } => self.receive_response(now, msg, code),
        }
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    /// The message's bytes.
    #[must_use]
    pub fn bytes(&self, t: &Transmit) -> &[u8] {
        self.pool.get(t.buf).get(usize::from(t.start)..).unwrap_or_default()
    }

    /// The message was handed to the transport.
    pub fn sent(&mut self, t: Transmit) {
        self.pool.release(t.buf);
    }

    /// The transport refused the message: the transaction concerned ends (RFC 3261 section 17.1.4, 17.2.4).
    pub fn send_failed(&mut self, now: Mono, t: Transmit) {
        self.pool.release(t.buf);
        match t.origin {
            Origin::Client(h) => self.client_transport_error(now, ClientTxn::of(h)),
            Origin::Server(h) => self.server_transport_error(now, ServerTxn::of(h)),
            Origin::Stateless => {}
        }
    }

    /// A connection (`path.conn`) or a destination is gone: every transaction on it ends. Looks at all transactions.
    pub fn path_lost(&mut self, now: Mono, path: Path) {
        let on =
            |p: &Path| if path.conn == 0 { *p == path } else { p.listener == path.listener && p.conn == path.conn };
        let clients: Vec<_> =
            self.clients.iter().filter(|(_, c)| on(&c.path)).map(|(i, c)| handle(i, c.generation)).collect();
        let servers: Vec<_> =
            self.servers.iter().filter(|(_, s)| on(&s.path)).map(|(i, s)| handle(i, s.generation)).collect();
        clients.into_iter().for_each(|h| self.client_transport_error(now, ClientTxn::of(h)));
        servers.into_iter().for_each(|h| self.server_transport_error(now, ServerTxn::of(h)));
    }

    /// The next host name to look up.
    pub fn poll_resolve(&mut self) -> Option<Resolve> {
        self.resolver.poll()
    }

    /// What happened since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// What is held now. Looks at all transactions.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let client_invites = self.clients.iter().filter(|(_, c)| c.is_invite()).count();
        let server_invites = self.servers.iter().filter(|(_, s)| s.is_invite()).count();
        Counts {
            client_invites,
            client_others: self.clients.len() - client_invites,
            server_invites,
            server_others: self.servers.len() - server_invites,
            timers: self.wheel.len(),
            buffers: self.pool.outstanding(),
            side_entries: self.forks.len() + self.open.len(),
            keys: self.by_identity.len() + self.by_merge.len(),
            resolving: self.resolver.waiting(),
            queued: self.out.len() + self.events.len(),
        }
    }

    fn times(&self, transport: Transport) -> Times {
        let EndpointConfig { t1_us, t2_us, t4_us, .. } = *self.cfg;
        Times { t1_us, t2_us, t4_us, reliable: transport.reliable() }
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.generation
    }

    /// Queues the message in `buf` from `start` on, if there is one; takes no hold of the caller's.
    fn transmit(&mut self, path: Path, buf: BufId, start: u16, stamp: u64, origin: Origin) {
        if self.pool.get(buf).len() <= usize::from(start) {
            return;
        }
        let buf = self.pool.retain(buf);
        self.out.push_back(Transmit { path, stamp, buf, start, origin });
    }

    /// Queues an answer of which nothing is kept.
    fn transmit_answer(&mut self, path: Path, msg: &Message<'_>, reply: &Reply<'_>) {
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        crate::msg::write_answer(msg, path.remote, reply, &mut out);
        let buf = self.pool.store(&out);
        self.scratch = out;
        let path = server::reply_path(path, msg.top_via().ok().as_ref());
        self.transmit(path, buf, 0, 0, Origin::Stateless);
        self.pool.release(buf);
    }
}
