//! Client transactions: requests, answers, CANCEL, ACK.
//!
//! A branch of ours names its transaction's slot and carries 60 random bits; an answer is matched by both, by the CSeq
//! method and by having one Via. A CANCEL is a transaction of its own with its INVITE's branch (RFC 3261 section 9.1):
//! the INVITE's entry points to it, and it ends with its INVITE at the latest.

use super::keep::Mark;
use super::outgoing::{Destination, NOWHERE, Waiter};
use super::pool::BufId;
use super::timers::Class;
use super::{ClientTxn, Endpoint, Event, FailReason, Origin, Outgoing, TimerEvent, User, handle};
use crate::id::{self, BranchId, NO_SLOT};
use crate::msg::{Message, Method, Name, NameAddr};
use crate::net::Path;
use crate::time::Mono;
use crate::txn::{ClientInput, ClientInvite, ClientNonInvite, Output, Step, Tell, Timer, Times};
use crate::wheel::TimerId;

pub(super) const NONE: u32 = u32::MAX;
/// 2xx of one INVITE with different To tags; more are dropped.
const MAX_FORKS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for the address of its host; nothing is sent.
    Resolving {
        invite: bool,
    },
    Invite(ClientInvite),
    Other(ClientNonInvite),
}

/// How far the CANCEL of an INVITE is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancel {
    No,
    /// Due after the first provisional answer.
    Wanted,
    Sent,
}

/// A client transaction.
#[derive(Debug)]
pub(super) struct Client {
    /// Where the request goes; only the port counts while resolving.
    pub(super) path: Path,
    pub(super) user: User,
    /// The random part of the branch, and what else it names: the slot of its first life, the bucket.
    pub(super) nonce: u64,
    pub(super) branch_slot: u32,
    pub(super) bucket: u16,
    pub(super) retransmit: TimerId,
    pub(super) expire: TimerId,
    /// The request; after a refusal of an INVITE its ACK.
    pub(super) buf: BufId,
    /// Of an INVITE: its CANCEL. Of a CANCEL: its INVITE.
    pub(super) peer: u32,
    /// 2xx seen, a list.
    pub(super) forks: u32,
    pub(super) generation: u32,
    pub(super) state: State,
    pub(super) cancel: Cancel,
    /// Nobody wants events.
    pub(super) dropped: bool,
    /// The request had a body.
    pub(super) bodied: bool,
    pub(super) mark: Mark,
}

/// A 2xx of an INVITE, by its To tag.
#[derive(Debug)]
pub(super) struct Fork {
    pub(super) tag: u64,
    pub(super) next: u32,
    /// Our ACK and where it goes, once the TU sent it.
    pub(super) ack: BufId,
    pub(super) path: Option<Path>,
}

impl Client {
    pub(super) fn is_invite(&self) -> bool {
        matches!(self.state, State::Invite(_) | State::Resolving { invite: true })
    }

    pub(super) fn is_resolving(&self) -> bool {
        self.state.is_resolving()
    }

    /// Whether a restart needs it. A CANCEL is made anew with its INVITE.
    pub(super) fn worth_keeping(&self) -> bool {
        self.state != State::Other(ClientNonInvite::Completed) && self.cancel_target().is_none()
    }
}

impl State {
    /// As numbers, with how often it was sent again.
    pub(super) const fn number(self) -> (u8, u8) {
        match self {
            State::Resolving { invite: true } => (0, 0),
            State::Resolving { invite: false } => (1, 0),
            State::Invite(ClientInvite::Calling { resent }) => (2, resent),
            State::Invite(ClientInvite::Proceeding) => (3, 0),
            State::Invite(ClientInvite::Completed) => (4, 0),
            State::Invite(ClientInvite::Accepted) => (5, 0),
            State::Other(ClientNonInvite::Trying { resent }) => (6, resent),
            State::Other(ClientNonInvite::Proceeding) => (7, 0),
            State::Other(ClientNonInvite::Completed) => (8, 0),
        }
    }

    /// The reverse of [`number`](Self::number).
    pub(super) const fn of((number, resent): (u8, u8)) -> Option<State> {
        Some(match number {
            0 => State::Resolving { invite: true },
            1 => State::Resolving { invite: false },
            2 => State::Invite(ClientInvite::Calling { resent }),
            3 => State::Invite(ClientInvite::Proceeding),
            4 => State::Invite(ClientInvite::Completed),
            5 => State::Invite(ClientInvite::Accepted),
            6 => State::Other(ClientNonInvite::Trying { resent }),
            7 => State::Other(ClientNonInvite::Proceeding),
            8 => State::Other(ClientNonInvite::Completed),
            _ => return None,
        })
    }

    pub(super) const fn is_resolving(self) -> bool {
        matches!(self, State::Resolving { .. })
    }

    /// Its bytes are not needed any more.
    pub(super) const fn is_sent_no_more(self) -> bool {
        matches!(self, State::Invite(ClientInvite::Accepted) | State::Other(ClientNonInvite::Completed))
    }

    /// The timer that sends it again in this state.
    pub(super) const fn retransmits(self) -> Option<Timer> {
        match self {
            State::Invite(ClientInvite::Calling { .. }) => Some(Timer::A),
            State::Other(ClientNonInvite::Trying { .. } | ClientNonInvite::Proceeding) => Some(Timer::E),
            _ => None,
        }
    }

    /// The timer that ends this state.
    pub(super) const fn expires(self) -> Option<Timer> {
        match self {
            State::Resolving { .. } => None,
            State::Invite(ClientInvite::Calling { .. }) => Some(Timer::B),
            State::Invite(ClientInvite::Proceeding) => Some(Timer::Cancelled),
            State::Invite(ClientInvite::Completed) => Some(Timer::D),
            State::Invite(ClientInvite::Accepted) => Some(Timer::M),
            State::Other(ClientNonInvite::Completed) => Some(Timer::K),
            State::Other(_) => Some(Timer::F),
        }
    }
}

impl Cancel {
    pub(super) const fn of(number: u8) -> Cancel {
        match number {
            0 => Cancel::No,
            1 => Cancel::Wanted,
            _ => Cancel::Sent,
        }
    }
}

impl Endpoint {
    /// Sends a request. It ends in a final [`Event::Response`] or in [`TimerEvent::ClientFailed`]; a failure known at
    /// once comes with the next `poll_timer`.
    pub fn request(&mut self, now: Mono, req: &Outgoing<'_>, user: User) -> ClientTxn {
        let invite = req.method == Method::Invite;
        let destination = self.destination(now, &req.target);
        let (path, failed) = match &destination {
            Destination::Known(path) | Destination::Unknown(path, _) => (*path, None),
            Destination::Nowhere(why) => (NOWHERE, Some(*why)),
        };
        let slot = self.clients.vacant_key();
        let nonce = self.ids.nonce();
        let buf = self.write_request(req, path, BranchId { slot: slot as u32, nonce });
        let generation = self.next_generation();
        let state = State::Resolving { invite };
        let client = Client {
            path,
            user,
            nonce,
            branch_slot: slot as u32,
            bucket: req.bucket.unwrap_or(self.bucket),
            retransmit: TimerId::NONE,
            expire: TimerId::NONE,
            buf,
            peer: NONE,
            forks: NONE,
            generation,
            state,
            cancel: Cancel::No,
            dropped: false,
            bodied: !req.body.is_empty(),
            mark: Mark::default(),
        };
        self.clients.insert(client);
        self.note_client(slot);
        let txn = handle(slot, generation);
        match (destination, failed) {
            (_, Some(why)) => self.fail(slot, why),
            (Destination::Unknown(_, host), None) => {
                if self.ask(now, &host, Waiter::Request { txn, stamp: req.stamp }).is_err() {
                    self.fail(slot, FailReason::Unresolvable);
                }
            }
            _ => self.start(now, slot, req.stamp),
        }
        ClientTxn::of(txn)
    }

    /// Cancels an INVITE (RFC 3261 section 9.1): at once when it has a provisional answer, else as soon as it gets
    /// one, never after a final one. The INVITE still ends in a final answer (487, or a 2xx that crossed) or a failure,
    /// at the latest 64*T1 after the CANCEL. One that waits for an address ends at once. Other requests stay.
    pub fn cancel(&mut self, now: Mono, txn: ClientTxn) {
        let Some(slot) = self.live_client(txn) else { return };
        #[cfg(mutant)]
        if crate::mutant::is("cancel-before-provisional") {
            self.send_cancel(now, slot);
            return;
        }
        let client = &mut self.clients[slot];
        match client.state {
            State::Resolving { invite: true } => self.fail(slot, FailReason::Cancelled),
            State::Invite(ClientInvite::Calling { .. }) => {
                client.cancel = Cancel::Wanted;
                self.note_client(slot);
            }
            State::Invite(ClientInvite::Proceeding) if client.cancel != Cancel::Sent => self.send_cancel(now, slot),
            _ => {}
        }
    }

    /// Sends the TU's ACK of a 2xx and remembers it: each retransmission of the 2xx with the same To tag gets it again
    /// while the transaction lives (RFC 6026 timer M). `req.method` is ACK; `req.head` names the dialog. An ACK whose
    /// host has no address is lost; the peer then ends the call.
    pub fn ack_2xx(&mut self, now: Mono, txn: ClientTxn, req: &Outgoing<'_>) {
        let (path, host) = match self.destination(now, &req.target) {
            Destination::Known(path) => (path, None),
            Destination::Unknown(path, host) => (path, Some(host)),
            Destination::Nowhere(_) => return,
        };
        let nonce = self.ids.nonce();
        let buf = self.write_request(req, path, BranchId { slot: NO_SLOT, nonce });
        let tag = self.key.hash(&[to_tag_in(req.head)]);
        let Some(host) = host else { return self.send_ack(txn, tag, buf, path, req.stamp) };
        let waiter = Waiter::Ack { txn: txn.number(), tag, buf, path, stamp: req.stamp };
        if self.ask(now, &host, waiter).is_err() {
            self.pool.release(buf);
        }
    }

    /// Whether the request of a live transaction had a body: of an INVITE, whether a 2xx answers an offer or makes one.
    #[must_use]
    pub fn had_body(&self, txn: ClientTxn) -> Option<bool> {
        self.live_client(txn).map(|slot| self.clients[slot].bodied)
    }

    /// No more events for `txn`. An INVITE without a final answer is cancelled, so that nothing stays; the TU should
    /// wait for its end instead, since a 2xx that crosses the CANCEL wants ACK and BYE.
    pub fn drop_user(&mut self, now: Mono, txn: ClientTxn) {
        if let Some(slot) = self.live_client(txn) {
            self.clients[slot].dropped = true;
            self.note_client(slot);
            self.cancel(now, txn);
        }
    }

    pub(super) fn receive_response(&mut self, now: Mono, msg: &Message<'_>, code: u16) -> Option<Event> {
        let Some((slot, method)) = self.match_response(msg) else {
            self.stats.stray_responses += 1;
            let invite = msg.cseq().is_ok_and(|c| c.method == Method::Invite);
            self.stats.stray_successes += u64::from(invite && (200..300).contains(&code));
            return None;
        };
        let input = match code {
            ..200 => ClientInput::Provisional,
            200..300 => ClientInput::Success,
            300.. => ClientInput::Failure,
        };
        let txn = ClientTxn::of(handle(slot, self.clients[slot].generation));
        let (user, dropped) = (self.clients[slot].user, self.clients[slot].dropped);
        let tell = self.step_client(now, slot, input, Some(msg));
        if let Some(client) = self.clients.get(slot)
            && client.state == State::Invite(ClientInvite::Proceeding)
            && client.cancel == Cancel::Wanted
        {
            self.send_cancel(now, slot);
        }
        let new = tell == Tell::Message
            && (input != ClientInput::Success || method != Method::Invite || self.is_new_fork(slot, msg));
        (new && !dropped).then_some(Event::Response { txn, user })
    }

    /// RFC 3261 sections 17.1.3 and 8.1.3.3.
    fn match_response<'m>(&self, msg: &Message<'m>) -> Option<(usize, Method<'m>)> {
        let via = msg.top_via().ok()?;
        let (bucket, id) = id::read_any_branch(via.branch()?)?;
        let method = msg.cseq().ok()?.method;
        // A CANCEL has its INVITE's branch, and may lie in the slot that this names, where the INVITE of a process before does not.
        let named = |c: &&Client| {
            c.nonce == id.nonce && c.bucket == bucket && c.branch_slot == id.slot && c.cancel_target().is_none()
        };
        let (slot, client) = match self.clients.get(id.slot as usize).filter(named) {
            Some(client) => (id.slot as usize, client),
            None => {
                let slot = *self.revived.get(&id.nonce)? as usize;
                (slot, self.clients.get(slot).filter(named)?)
            }
        };
        if msg.values(Name::Via).nth(1).is_some() {
            return None;
        }
        match client.state {
            State::Resolving { .. } => None,
            State::Invite(_) if method == Method::Invite => Some((slot, method)),
            State::Invite(_) if method == Method::Cancel => {
                Some((client.peer as usize, method)).filter(|p| p.0 != NONE as usize)
            }
            State::Invite(_) => None,
            // Answered: whatever comes is absorbed.
            State::Other(ClientNonInvite::Completed) => Some((slot, method)),
            State::Other(_) => {
                let request = self.pool.get(client.buf).strip_prefix(method.as_bytes());
                request.is_some_and(|rest| rest.first() == Some(&b' ')).then_some((slot, method))
            }
        }
    }

    /// Whether this 2xx is the first with its To tag. One that comes again gets its ACK again, if there is one.
    fn is_new_fork(&mut self, slot: usize, msg: &Message<'_>) -> bool {
        let tag = self.key.hash(&[msg.to_tag().unwrap_or_default()]);
        let first = self.clients[slot].forks;
        let mut count = 0;
        let mut at = first;
        while at != NONE {
            let fork = &self.forks[at as usize];
            if fork.tag == tag {
                if let (ack, Some(path)) = (fork.ack, fork.path) {
                    self.stats.retransmissions_out += 1;
                    self.transmit(path, ack, 0, 0, Origin::Stateless);
                }
                return false;
            }
            count += 1;
            at = fork.next;
        }
        if count >= MAX_FORKS {
            return false;
        }
        let fork = self.forks.insert(Fork { tag, next: first, ack: BufId::NONE, path: None });
        self.clients[slot].forks = fork as u32;
        self.note_client(slot);
        true
    }

    pub(super) fn forks_of(&self, slot: usize) -> impl Iterator<Item = &Fork> {
        let mut at = self.clients[slot].forks;
        std::iter::from_fn(move || {
            let fork = self.forks.get(at as usize)?;
            at = fork.next;
            Some(fork)
        })
    }

    pub(super) fn live_client(&self, txn: ClientTxn) -> Option<usize> {
        let slot = (txn.number() & 0xffff_ffff) as usize;
        self.clients.get(slot).filter(|c| handle(slot, c.generation) == txn.number()).map(|_| slot)
    }

    /// The request of ours in that slot will be looked at soon.
    pub fn soon(&self, slot: u32) {
        self.clients.soon(slot as usize);
    }

    /// What belongs to it, too.
    pub fn soon_with(&self, slot: u32) {
        if let Some(client) = self.clients.get(slot as usize) {
            self.pool.soon(client.buf);
            self.wheel.soon(client.retransmit);
            self.wheel.soon(client.expire);
        }
    }

    /// The TU's token of the request of ours in that slot.
    #[must_use]
    pub fn user_of(&self, slot: u32) -> Option<User> {
        self.clients.get(slot as usize).map(|client| client.user)
    }

    pub(super) fn client_timer(&mut self, now: Mono, token: u64, timer: Timer) {
        if let Some(slot) = self.live_client(ClientTxn::of(token)) {
            self.step_client(now, slot, ClientInput::Timer(timer), None);
        }
    }

    pub(super) fn client_transport_error(&mut self, now: Mono, txn: ClientTxn) {
        if let Some(slot) = self.live_client(txn) {
            self.step_client(now, slot, ClientInput::TransportError, None);
        }
    }

    /// Sends a request whose address is known.
    pub(super) fn start(&mut self, now: Mono, slot: usize, stamp: u64) {
        let times = self.times(self.clients[slot].path.transport);
        let step = if self.clients[slot].is_invite() {
            ClientInvite::start(times).map(State::Invite)
        } else {
            ClientNonInvite::start(times).map(State::Other)
        };
        let client = &self.clients[slot];
        self.transmit(client.path, client.buf, 0, stamp, Origin::Client(handle(slot, client.generation)));
        self.run_clocks(now, slot, &step);
    }

    /// Runs one transition and what it asks for. `response` is what came in, if it is one.
    fn step_client(&mut self, now: Mono, slot: usize, input: ClientInput, response: Option<&Message<'_>>) -> Tell {
        let client = &self.clients[slot];
        let step = step(client.state, input, self.times(client.path.transport));
        if let (Output::Ack, Some(response)) = (step.send, response) {
            let to = response.first(Name::To).unwrap_or_default();
            let ack = self.write_derived(slot, Method::Ack, Some(to));
            self.pool.release(std::mem::replace(&mut self.clients[slot].buf, ack));
            self.clients[slot].mark.laid = false;
        }
        let client = &self.clients[slot];
        if step.send != Output::Nothing {
            self.stats.retransmissions_out += u64::from(step.send == Output::Again);
            self.transmit(client.path, client.buf, 0, 0, Origin::Client(handle(slot, client.generation)));
        }
        match step.tell {
            Tell::Timeout => self.report(slot, FailReason::Timeout),
            Tell::TransportError => self.report(slot, FailReason::Transport),
            _ => {}
        }
        self.run_clocks(now, slot, &step);
        step.tell
    }

    fn run_clocks(&mut self, now: Mono, slot: usize, step: &Step<State>) {
        let Some(state) = step.state else { return self.remove_client(slot) };
        let client = &mut self.clients[slot];
        let changed = client.state != state || step.send != Output::Nothing;
        client.state = state;
        if changed {
            self.note_client(slot);
        }
        let client = &mut self.clients[slot];
        let token = handle(slot, client.generation);
        let (mut retransmit, mut expire) = (client.retransmit, client.expire);
        if state.is_sent_no_more() {
            self.pool.release(std::mem::replace(&mut client.buf, BufId::NONE));
        }
        self.set_clock(now, &mut retransmit, step.retransmit, token, Class::Client);
        self.set_clock(now, &mut expire, step.expire, token, Class::Client);
        let client = &mut self.clients[slot];
        (client.retransmit, client.expire) = (retransmit, expire);
    }

    /// Tells the TU that no final answer comes.
    fn report(&mut self, slot: usize, why: FailReason) {
        let client = &self.clients[slot];
        if !client.dropped {
            self.stats.timeouts += u64::from(why == FailReason::Timeout);
            let txn = ClientTxn::of(handle(slot, client.generation));
            self.events.push_back(TimerEvent::ClientFailed { txn, user: client.user, why });
        }
    }

    pub(super) fn fail(&mut self, slot: usize, why: FailReason) {
        self.report(slot, why);
        self.remove_client(slot);
    }

    fn remove_client(&mut self, slot: usize) {
        let Some(client) = self.clients.remove(slot) else { return };
        self.note_gone(false, handle(slot, client.generation), client.mark);
        // Not for a CANCEL, of whose nonce the INVITE's slot is noted.
        if !self.revived.is_empty() && self.revived.get(&client.nonce) == Some(&(slot as u32)) {
            self.revived.remove(&client.nonce);
        }
        self.wheel.cancel(client.retransmit);
        self.wheel.cancel(client.expire);
        self.pool.release(client.buf);
        let mut at = client.forks;
        while let Some(fork) = self.forks.remove(at as usize) {
            self.pool.release(fork.ack);
            at = fork.next;
        }
        match client.cancel_target() {
            Some(invite) => {
                self.clients[invite].peer = NONE;
                self.note_client(invite);
            }
            None if client.peer != NONE => {
                let cancel = client.peer as usize;
                self.clients[cancel].peer = NONE;
                self.remove_client(cancel);
            }
            None => {}
        }
    }

    /// The INVITE in `slot` has a provisional answer and no CANCEL yet.
    fn send_cancel(&mut self, now: Mono, slot: usize) {
        let buf = self.write_derived(slot, Method::Cancel, None);
        let generation = self.next_generation();
        let invite = &self.clients[slot];
        let cancel = Client { buf, generation, ..invite.canceller(slot) };
        let cancel = self.clients.insert(cancel);
        let invite = &mut self.clients[slot];
        invite.peer = cancel as u32;
        invite.cancel = Cancel::Sent;
        self.note_client(slot);
        self.start(now, cancel, 0);
        self.step_client(now, slot, ClientInput::Cancelled, None);
    }

    /// Sends the ACK in `buf` (whose hold it takes) and keeps it for retransmissions of its 2xx.
    pub(super) fn send_ack(&mut self, txn: ClientTxn, tag: u64, buf: BufId, path: Path, stamp: u64) {
        self.transmit(path, buf, 0, stamp, Origin::Stateless);
        let live = self.live_client(txn);
        live.into_iter().for_each(|slot| self.note_client(slot));
        let mut at = live.map_or(NONE, |slot| self.clients[slot].forks);
        while at != NONE {
            let fork = &mut self.forks[at as usize];
            if fork.tag == tag {
                let old = std::mem::replace(&mut fork.ack, buf);
                fork.path = Some(path);
                return self.pool.release(old);
            }
            at = fork.next;
        }
        self.pool.release(buf);
    }
}

/// Tag of the To line among ready header lines; empty where there is none.
fn to_tag_in(head: &[u8]) -> &[u8] {
    let to = head.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"To: "));
    to.and_then(|to| NameAddr::parse(to, Name::To).ok()?.tag()).unwrap_or_default()
}

impl Client {
    /// The transaction that cancels this INVITE in `slot`, before anything is sent.
    pub(super) fn canceller(&self, slot: usize) -> Client {
        Client {
            path: self.path,
            user: 0,
            nonce: self.nonce,
            branch_slot: self.branch_slot,
            bucket: self.bucket,
            retransmit: TimerId::NONE,
            expire: TimerId::NONE,
            buf: BufId::NONE,
            peer: slot as u32,
            forks: NONE,
            generation: 0,
            state: State::Resolving { invite: false },
            cancel: Cancel::No,
            dropped: true,
            bodied: false,
            mark: Mark::default(),
        }
    }

    /// Sent and not answered yet.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Other(ClientNonInvite::Trying { .. } | ClientNonInvite::Proceeding))
    }

    /// The INVITE that this transaction cancels.
    pub(super) fn cancel_target(&self) -> Option<usize> {
        (!self.is_invite() && self.peer != NONE).then_some(self.peer as usize)
    }
}

fn step(state: State, input: ClientInput, times: Times) -> Step<State> {
    match state {
        State::Invite(s) => s.on(input, times).map(State::Invite),
        State::Other(s) => s.on(input, times).map(State::Other),
        State::Resolving { .. } => {
            // Nothing was sent: no answer, timer or transport can concern it.
            ClientNonInvite::Completed.on(ClientInput::Provisional, times).map(|_| state)
        }
    }
}
