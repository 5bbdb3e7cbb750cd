//! Transactions written down for a journal, and read back after a restart.
//!
//! Kept are INVITE transactions in every state, their lingering included, and others until their answer: so a restart
//! neither asks nor answers twice. After it the clocks go on where they were; one that was due meanwhile fires at once. What
//! waits for an answer or an ACK is sent at once, too: it may have been written down and then never sent.
//!
//! A transaction has two records ([`Record`]): the bytes that it sends, written where they change, and its state. Bytes that are
//! let go are not written again for that.
//!
//! Invariants
//! - While no journal is kept, noting a change costs one test.
//! - A restored request of ours keeps its branch. It may name another slot: `revived` finds it then.

use super::client::{self, Client, Fork};
use super::outgoing::Waiter;
use super::pool::BufId;
use super::server::{self, Open, Server};
use super::timers::Class;
use super::{ClientTxn, Endpoint, FailReason, Origin, ServerTxn, User, handle, identity};
use crate::hash::HashKey;
use crate::msg::{Limits, Message, ReplyHead};
use crate::net::Path;
use crate::scan;
use crate::time::{Mono, Now};
use crate::txn::Timer;
use crate::wheel::TimerId;
use crate::wire::{Corrupt, Reader, Writer};

const VERSION: u64 = 2;
/// Timer D is the longest one where T1 is the usual one, microseconds.
const LONGEST_US: u64 = 33_000_000;

/// What has changed since it was last written down.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) on: bool,
    clients: Vec<u64>,
    servers: Vec<u64>,
    /// Written down, and gone since: of a server, handle.
    gone: Vec<(bool, u64)>,
}

/// Of one transaction: it is noted as changed; it is written down; and so are the bytes that it has now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    noted: bool,
    kept: bool,
    pub(super) laid: bool,
}

/// What is written down of transactions. The two of one have the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Record {
    /// A request of ours: its state.
    Client,
    /// Its bytes, and what its branch names.
    Request,
    /// A peer's request: its state.
    Server,
    /// By what it is known, and our last answer.
    Answer,
}

impl Record {
    /// The one that goes for both of a transaction.
    fn first(server: bool) -> Record {
        if server { Record::Server } else { Record::Client }
    }
}

/// A transaction as its record has it.
#[derive(Debug)]
pub struct Kept<'a> {
    user: User,
    path: Path,
    state: (u8, u8),
    retransmit: Option<u64>,
    expire: Option<u64>,
    body: Body<'a>,
}

#[derive(Debug)]
enum Body<'a> {
    Client(ClientBody<'a>),
    Server(ServerBody<'a>),
}

#[derive(Debug)]
struct ClientBody<'a> {
    bucket: u16,
    nonce: u64,
    slot: u32,
    cancel: u8,
    dropped: bool,
    bodied: bool,
    request: &'a [u8],
    host: Option<&'a str>,
    /// Its CANCEL, while that is not answered.
    canceller: Option<Canceller<'a>>,
    forks: Vec<(u64, Acked<'a>)>,
}

/// The ACK of a 2xx, if the TU has sent it.
type Acked<'a> = Option<(Path, &'a [u8])>;

#[derive(Debug)]
struct Canceller<'a> {
    state: (u8, u8),
    retransmit: Option<u64>,
    expire: Option<u64>,
    request: &'a [u8],
}

#[derive(Debug)]
struct ServerBody<'a> {
    cancelled: bool,
    split: u16,
    identity: &'a [u8],
    answer: &'a [u8],
    open: Option<(&'a [u8], ReplyHead)>,
}

/// A transaction that lives again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    Client(ClientTxn),
    Server(ServerTxn),
}

impl<'a> Kept<'a> {
    /// Reads the two records of a transaction.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn decode(state: &'a [u8], bytes: &'a [u8]) -> Result<Kept<'a>, Corrupt> {
        let (mut r, mut b) = (Reader(state), Reader(bytes));
        let (server, user) = head(&mut r)?;
        if head(&mut b)?.0 != server {
            return Err(Corrupt::Nonsense("bytes"));
        }
        let path = r.path()?;
        let state = (r.small("state")?, r.small("resent")?);
        let (retransmit, expire) = (r.option(Reader::uint)?, r.option(Reader::uint)?);
        let body = if server {
            Body::Server(server_body(&mut r, &mut b)?)
        } else {
            Body::Client(client_body(&mut r, &mut b)?)
        };
        b.end()?;
        let sound = match body {
            Body::Client(_) => client::State::of(state).is_some(),
            Body::Server(_) => server::State::of(state).is_some(),
        };
        if !sound {
            return Err(Corrupt::Nonsense("state"));
        }
        r.end().map(|()| Kept { user, path, state, retransmit, expire, body })
    }

    /// The TU's token in either record; the rest of it is not looked at.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn user_of(record: &'a [u8]) -> Result<User, Corrupt> {
        let mut r = Reader(record);
        head(&mut r).map(|(_, user)| user)
    }

    /// The TU's token.
    #[must_use]
    pub fn user(&self) -> User {
        self.user
    }

    /// Where its messages arrive. Of a request inside a dialog, whose user is asked first, the final answer tells it.
    #[must_use]
    pub fn bucket(&self, key: &HashKey) -> u16 {
        match &self.body {
            Body::Client(c) => c.bucket,
            Body::Server(s) => match identity::call_id(&s.identity[usize::from(s.split)..]) {
                b"" => answered_at(s.answer, key),
                call_id => scan::bucket_of(call_id, key),
            },
        }
    }
}

/// Whether it is of a server, and the TU's token.
fn head(r: &mut Reader<'_>) -> Result<(bool, User), Corrupt> {
    match r.uint()? {
        VERSION => Ok((r.flag()?, r.uint()?)),
        other => Err(Corrupt::Version(other)),
    }
}

fn write_head(server: bool, user: User, w: &mut Writer<'_>) {
    w.uint(VERSION);
    w.flag(server);
    w.uint(user);
}

/// The bucket of a request inside a dialog, by the answer to it: our tag says it, or else the Call-ID.
fn answered_at(answer: &[u8], key: &HashKey) -> u16 {
    let Ok(answer) = Message::parse(answer, &Limits::default()) else { return scan::bucket_of(b"", key) };
    let marked = answer.to_tag().and_then(scan::parse_mark);
    marked.unwrap_or_else(|| scan::bucket_of(answer.call_id().unwrap_or_default(), key))
}

fn client_body<'a>(r: &mut Reader<'a>, b: &mut Reader<'a>) -> Result<ClientBody<'a>, Corrupt> {
    let mut c = ClientBody {
        bucket: b.small("bucket")?,
        nonce: b.uint()?,
        slot: b.small("slot")?,
        bodied: b.flag()?,
        request: b.bytes()?,
        cancel: r.small("cancel")?,
        dropped: r.flag()?,
        host: r.option(Reader::text)?,
        canceller: r.option(|r| {
            let state = (r.small("state")?, r.small("resent")?);
            let (retransmit, expire) = (r.option(Reader::uint)?, r.option(Reader::uint)?);
            let sound = matches!(client::State::of(state), Some(client::State::Other(_)));
            let request = r.bytes()?;
            if sound { Ok(Canceller { state, retransmit, expire, request }) } else { Err(Corrupt::Nonsense("state")) }
        })?,
        forks: Vec::new(),
    };
    for _ in 0..r.small::<u8>("forks")? {
        c.forks.push((r.uint()?, r.option(|r| Ok((r.path()?, r.bytes()?)))?));
    }
    Ok(c)
}

fn server_body<'a>(r: &mut Reader<'a>, b: &mut Reader<'a>) -> Result<ServerBody<'a>, Corrupt> {
    let s = ServerBody {
        cancelled: r.flag()?,
        split: b.small("split")?,
        identity: b.bytes()?,
        answer: b.bytes()?,
        open: b.option(|b| {
            let head = b.bytes()?;
            let offsets = [b.small("head")?, b.small("head")?, b.small("head")?];
            ReplyHead::new(head, offsets, b.flag()?).map(|h| (head, h)).ok_or(Corrupt::Nonsense("head"))
        })?,
    };
    let long = s.identity.len() > server::MAX_IDENTITY || usize::from(s.split) > s.identity.len();
    if long { Err(Corrupt::Nonsense("identity")) } else { Ok(s) }
}

impl Endpoint {
    /// Hands out what changed since the last call: `put(what, number, record)`, without a record for a
    /// transaction of which both are to be forgotten. From the first call on a journal is kept; it hands out everything. `out` is scratch.
    pub fn journal(&mut self, now: Now, out: &mut Vec<u8>, mut put: impl FnMut(Record, u64, Option<&[u8]>)) {
        self.keep_journal();
        for (server, number) in self.notes.gone.drain(..) {
            put(Record::first(server), number, None);
        }
        let mut noted = std::mem::take(&mut self.notes.clients);
        for number in noted.drain(..) {
            let Some(slot) = self.live_client(ClientTxn::of(number)) else { continue };
            let was = std::mem::take(&mut self.clients[slot].mark);
            let kept = self.clients[slot].worth_keeping();
            if kept {
                if !was.laid {
                    out.clear();
                    self.write_bytes(slot, out);
                    put(Record::Request, number, Some(out));
                }
                out.clear();
                self.write_client(slot, number, now, out);
                put(Record::Client, number, Some(out));
            } else if was.kept {
                put(Record::Client, number, None);
            }
            self.clients[slot].mark = Mark { noted: false, kept, laid: kept };
        }
        self.notes.clients = noted;
        let mut noted = std::mem::take(&mut self.notes.servers);
        for number in noted.drain(..) {
            let Some(slot) = self.live_server(ServerTxn::of(number)) else { continue };
            let was = std::mem::take(&mut self.servers[slot].mark);
            let kept = self.servers[slot].worth_keeping();
            if kept {
                if !was.laid {
                    out.clear();
                    self.write_answer(slot, out);
                    put(Record::Answer, number, Some(out));
                }
                out.clear();
                self.write_server(slot, now, out);
                put(Record::Server, number, Some(out));
            } else if was.kept {
                put(Record::Server, number, None);
            }
            self.servers[slot].mark = Mark { noted: false, kept, laid: kept };
        }
        self.notes.servers = noted;
    }

    /// What the next [`Endpoint::journal`] will look at.
    pub fn noted(&self) -> impl Iterator<Item = (Record, u64)> {
        let clients = self.notes.clients.iter().map(|number| (Record::Client, *number));
        clients.chain(self.notes.servers.iter().map(|number| (Record::Server, *number)))
    }

    /// Notes changes from now on, and all that there is.
    pub fn keep_journal(&mut self) {
        if self.notes.on {
            return;
        }
        self.notes.on = true;
        (0..self.clients.extent()).for_each(|slot| self.note_client(slot));
        (0..self.servers.extent()).for_each(|slot| self.note_server(slot));
    }

    pub(super) fn note_client(&mut self, slot: usize) {
        if !self.notes.on {
            return;
        }
        // A CANCEL is kept with its INVITE.
        let slot = self.clients.get(slot).and_then(Client::cancel_target).unwrap_or(slot);
        if let Some(client) = self.clients.get_mut(slot).filter(|c| !c.mark.noted) {
            client.mark.noted = true;
            self.notes.clients.push(handle(slot, client.generation));
        }
    }

    pub(super) fn note_server(&mut self, slot: usize) {
        if self.notes.on
            && let Some(server) = self.servers.get_mut(slot).filter(|s| !s.mark.noted)
        {
            server.mark.noted = true;
            self.notes.servers.push(handle(slot, server.generation));
        }
    }

    pub(super) fn note_gone(&mut self, server: bool, number: u64, mark: Mark) {
        if mark.kept {
            self.notes.gone.push((server, number));
        }
    }

    fn write_start(&self, path: &Path, state: (u8, u8), timers: [TimerId; 2], now: Now, w: &mut Writer<'_>) {
        w.path(path);
        w.uint(u64::from(state.0));
        w.uint(u64::from(state.1));
        for timer in timers {
            w.option(self.wheel.due_of(timer), |w, due| w.uint(now.unix_of(due)));
        }
    }

    fn write_bytes(&self, slot: usize, out: &mut Vec<u8>) {
        let c = &self.clients[slot];
        let w = &mut Writer(out);
        write_head(false, c.user, w);
        w.uint(u64::from(c.bucket));
        w.uint(c.nonce);
        w.uint(u64::from(c.branch_slot));
        w.flag(c.bodied);
        w.bytes(self.pool.get(c.buf));
    }

    fn write_client(&self, slot: usize, number: u64, now: Now, out: &mut Vec<u8>) {
        let c = &self.clients[slot];
        let w = &mut Writer(out);
        write_head(false, c.user, w);
        self.write_start(&c.path, c.state.number(), [c.retransmit, c.expire], now, w);
        w.uint(c.cancel as u64);
        w.flag(c.dropped);
        let waits = |waiter: &Waiter| matches!(waiter, Waiter::Request { txn, .. } if *txn == number);
        let host = if c.is_resolving() { self.resolver.host_of(waits) } else { None };
        w.option(host, |w, host| w.bytes(host.as_bytes()));
        let canceller = if c.is_invite() { self.clients.get(c.peer as usize) } else { None };
        w.option(canceller.filter(|c| c.is_open()), |w, c| {
            let (state, resent) = c.state.number();
            w.uint(u64::from(state));
            w.uint(u64::from(resent));
            for timer in [c.retransmit, c.expire] {
                w.option(self.wheel.due_of(timer), |w, due| w.uint(now.unix_of(due)));
            }
            w.bytes(self.pool.get(c.buf));
        });
        w.uint(self.forks_of(slot).count() as u64);
        for fork in self.forks_of(slot) {
            w.uint(fork.tag);
            w.option(fork.path, |w, path| {
                w.path(&path);
                w.bytes(self.pool.get(fork.ack));
            });
        }
    }

    fn write_server(&self, slot: usize, now: Now, out: &mut Vec<u8>) {
        let s = &self.servers[slot];
        let w = &mut Writer(out);
        write_head(true, s.user, w);
        self.write_start(&s.path, s.state.number(), [s.retransmit, s.expire], now, w);
        w.flag(s.cancelled);
    }

    fn write_answer(&self, slot: usize, out: &mut Vec<u8>) {
        let s = &self.servers[slot];
        let w = &mut Writer(out);
        write_head(true, s.user, w);
        w.uint(u64::from(s.split));
        let (identity, answer) = self.pool.get(s.buf).split_at(usize::from(s.identity));
        w.bytes(identity);
        w.bytes(answer);
        w.option(self.open.get(s.open as usize), |w, open| {
            w.bytes(self.pool.get(open.head));
            let (offsets, tagged) = open.offsets.parts();
            offsets.iter().for_each(|n| w.uint(u64::from(*n)));
            w.flag(tagged);
        });
    }

    /// Brings a transaction back to life for `user`. Its timers go on; those that came due meanwhile fire at once.
    /// `None`: one with the same identity lives already.
    pub fn restore(&mut self, now: Now, kept: &Kept<'_>, user: User) -> Option<Restored> {
        match &kept.body {
            Body::Client(body) => self.restore_client(now, kept, body, user),
            Body::Server(body) => self.restore_server(now, kept, body, user),
        }
    }

    fn resume(&mut self, now: Now, timer: Option<Timer>, due: Option<u64>, token: u64, class: Class) -> TimerId {
        match (timer, due) {
            (Some(timer), Some(due)) => {
                // A wall clock that was set back must not stretch it; none is longer than Timer B, or D.
                let latest = now.mono.plus_us((64 * self.cfg.t1_us).max(LONGEST_US));
                let due: Mono = now.mono_of(due).clamp(now.mono, latest);
                self.wheel.insert(due, token, class.kind(timer as u8))
            }
            _ => TimerId::NONE,
        }
    }

    fn restore_client(&mut self, now: Now, kept: &Kept<'_>, body: &ClientBody<'_>, user: User) -> Option<Restored> {
        let state = client::State::of(kept.state)?;
        let generation = self.next_generation();
        let mut forks = super::client::NONE;
        for (tag, ack) in &body.forks {
            let buf = ack.map_or(BufId::NONE, |(_, bytes)| self.pool.store(bytes));
            forks =
                self.forks.insert(Fork { tag: *tag, next: forks, ack: buf, path: ack.map(|(path, _)| path) }) as u32;
        }
        let slot = self.clients.vacant_key();
        let txn = handle(slot, generation);
        let cancel = client::Cancel::of(body.cancel);
        let retransmit = self.resume(now, state.retransmits(), kept.retransmit, txn, Class::Client);
        let expire = self.resume(now, state.expires(), kept.expire, txn, Class::Client);
        let buf = if state.is_sent_no_more() || body.request.is_empty() {
            BufId::NONE
        } else {
            self.pool.store(body.request)
        };
        self.clients.insert(Client {
            path: kept.path,
            user,
            nonce: body.nonce,
            branch_slot: body.slot,
            bucket: body.bucket,
            retransmit,
            expire,
            buf,
            peer: super::client::NONE,
            forks,
            generation,
            state,
            cancel,
            dropped: body.dropped,
            bodied: body.bodied,
            mark: Mark::default(),
        });
        if body.slot as usize != slot {
            self.revived.insert(body.nonce, slot as u32);
        }
        self.note_client(slot);
        if state.is_resolving() {
            let asked =
                body.host.is_some_and(|host| self.ask(now.mono, host, Waiter::Request { txn, stamp: 0 }).is_ok());
            if !asked {
                self.fail(slot, FailReason::Unresolvable);
            }
        }
        if state.retransmits().is_some() {
            self.transmit(kept.path, buf, 0, 0, Origin::Client(txn));
        }
        if let Some(canceller) = &body.canceller {
            self.restore_cancel(now, canceller, slot);
        }
        Some(Restored::Client(ClientTxn::of(txn)))
    }

    /// The CANCEL of the INVITE in `invite` goes on.
    fn restore_cancel(&mut self, now: Now, kept: &Canceller<'_>, invite: usize) {
        let Some(state) = client::State::of(kept.state) else { return };
        let generation = self.next_generation();
        let slot = self.clients.vacant_key();
        let token = handle(slot, generation);
        let retransmit = self.resume(now, state.retransmits(), kept.retransmit, token, Class::Client);
        let expire = self.resume(now, state.expires(), kept.expire, token, Class::Client);
        let buf = self.pool.store(kept.request);
        let cancel = Client { retransmit, expire, buf, generation, state, ..self.clients[invite].canceller(invite) };
        self.transmit(cancel.path, buf, 0, 0, Origin::Client(token));
        self.clients.insert(cancel);
        self.clients[invite].peer = slot as u32;
    }

    fn restore_server(&mut self, now: Now, kept: &Kept<'_>, body: &ServerBody<'_>, user: User) -> Option<Restored> {
        let state = server::State::of(kept.state)?;
        #[cfg(mutant)]
        if crate::mutant::is("restart-forgets-answered-invites") && matches!(kept.state.0, 1..=4) {
            return None;
        }
        let (first, second) = body.identity.split_at(usize::from(body.split));
        if self.find_server(first).is_some() {
            return None;
        }
        let generation = self.next_generation();
        let slot = self.servers.vacant_key();
        let txn = handle(slot, generation);
        let open = body.open.map_or(server::NONE, |(head, offsets)| {
            let head = self.pool.store(head);
            self.open.insert(Open { head, offsets }) as u32
        });
        // Of a request inside a dialog the next process needs the answer once more, to know whose it is ([`Kept::bucket`]).
        let answer = if state.is_sent_no_more() && !second.is_empty() { b"" } else { body.answer };
        let buf = self.pool.store(&[body.identity, answer].concat());
        let retransmit = self.resume(now, state.retransmits(), kept.retransmit, txn, Class::Server);
        let expire = self.resume(now, state.expires(), kept.expire, txn, Class::Server);
        let chain = self.by_identity.insert(self.identity_hash(first), slot as u32).unwrap_or(server::NONE);
        self.servers.insert(Server {
            path: kept.path,
            user,
            retransmit,
            expire,
            buf,
            chain,
            open,
            generation,
            identity: body.identity.len() as u16,
            split: body.split,
            state,
            cancelled: body.cancelled,
            mark: Mark::default(),
        });
        if !second.is_empty() {
            self.by_merge.insert_new(self.key.hash(&[second]), slot as u32);
        }
        self.note_server(slot);
        if state.retransmits().is_some() || body.open.is_some() {
            self.transmit(kept.path, buf, body.identity.len() as u16, 0, Origin::Server(txn));
        }
        Some(Restored::Server(ServerTxn::of(txn)))
    }
}
