//! Server transactions: matching, answers, retransmissions, CANCEL.
//!
//! An entry lingers up to 64*T1 after its answer, thousands a second, so it is small: its last answer in a buffer of
//! its size, behind the transaction's identity, which the comparison needs. What an open transaction needs besides
//! (the head that its answers copy) is in a side table and goes with the final answer; a 2xx goes with its ACK.

use super::keep::Mark;
use super::pool::BufId;
use super::timers::Class;
use super::{Endpoint, Event, Origin, ServerTxn, TimerEvent, User, handle, identity};
use crate::id::{self, Token};
use crate::msg::{
    Limits, Message, Method, Name, ParseError, Reply, ReplyHead, Via, via_reply_path, write_head, write_reply,
};
use crate::net::Path;
use crate::time::Mono;
use crate::txn::{Clock, Output, ServerInput, ServerInvite, ServerNonInvite, Step, Tell, Timer, Times};
use crate::wheel::TimerId;

pub(super) const NONE: u32 = u32::MAX;
/// Longest identity, in bytes; peers with longer identifiers are refused.
pub(super) const MAX_IDENTITY: usize = 4096;

#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    Invite(ServerInvite),
    Other(ServerNonInvite),
}

/// A server transaction.
#[derive(Debug)]
pub(super) struct Server {
    /// Where answers go.
    pub(super) path: Path,
    pub(super) user: User,
    pub(super) retransmit: TimerId,
    pub(super) expire: TimerId,
    /// Identity, then the last answer.
    pub(super) buf: BufId,
    /// The next entry with the same hash.
    pub(super) chain: u32,
    /// Entry of the side table while unanswered.
    pub(super) open: u32,
    pub(super) generation: u32,
    /// Length of the identity, and of its first part.
    pub(super) identity: u16,
    pub(super) split: u16,
    pub(super) state: State,
    pub(super) cancelled: bool,
    pub(super) mark: Mark,
}

/// What answers are built from.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) head: BufId,
    pub(super) offsets: ReplyHead,
}

impl Server {
    pub(super) fn is_invite(&self) -> bool {
        matches!(self.state, State::Invite(_))
    }

    /// Whether a restart needs it.
    pub(super) fn worth_keeping(&self) -> bool {
        self.is_invite() || !self.state.answered()
    }
}

/// Where the answer to a request that came over `path` goes.
pub(super) fn reply_path(path: Path, via: Option<&Via<'_>>) -> Path {
    match via {
        Some(via) if !path.transport.reliable() => Path { remote: via_reply_path(via, path.remote), ..path },
        _ => path,
    }
}

impl Endpoint {
    pub(super) fn receive_request(
        &mut self,
        now: Mono,
        path: Path,
        msg: &Message<'_>,
        method: Method<'_>,
    ) -> Option<Event> {
        let Ok(via) = msg.top_via() else {
            self.refuse_fault(path, msg, ParseError::BadHeader(Name::Via));
            return None;
        };
        let mut ident = std::mem::take(&mut self.ident);
        ident.clear();
        let split = identity::write(msg, &via, &mut ident);
        let event = self.dispatch_request(now, path, msg, method, &ident, split);
        self.ident = ident;
        event
    }

    fn dispatch_request(
        &mut self,
        now: Mono,
        path: Path,
        msg: &Message<'_>,
        method: Method<'_>,
        ident: &[u8],
        split: usize,
    ) -> Option<Event> {
        let found = self.find_server(&ident[..split]);
        #[cfg(mutant)]
        let found = found.filter(|_| method != Method::Invite || !crate::mutant::is("retransmission-taken-anew"));
        match (method, found) {
            (Method::Ack, Some(slot)) => match self.step_server(now, slot, ServerInput::Ack, None) {
                Tell::Message => Some(Event::Ack),
                _ => None,
            },
            (Method::Ack, None) => self.lone_ack(msg),
            (Method::Cancel, Some(slot)) => self.receive_cancel(path, msg, slot, &ident[..split]),
            (Method::Cancel, None) => {
                self.refuse(path, msg, 481, "");
                None
            }
            (_, Some(slot)) => {
                self.stats.retransmissions_in += 1;
                self.step_server(now, slot, ServerInput::Request, None);
                None
            }
            (_, None) => {
                let merged = ident.len() > split && self.find_merge(&ident[split..]);
                if !self.admit(path, msg, method, merged, ident.len()) {
                    return None;
                }
                Some(self.open_server(now, path, msg, method, ident, split))
            }
        }
    }

    /// An ACK without transaction: of a 2xx, for the TU; or of a refusal without state, for nobody.
    fn lone_ack(&mut self, msg: &Message<'_>) -> Option<Event> {
        let ours = msg.to_tag().is_some_and(|tag| !id::is_stateless_tag(tag));
        if !ours {
            self.stats.stray_acks += 1;
        }
        ours.then_some(Event::Ack)
    }

    /// RFC 3261 section 9.2.
    fn receive_cancel(&mut self, path: Path, msg: &Message<'_>, slot: usize, ident: &[u8]) -> Option<Event> {
        let tag = self.answer_tag(slot).unwrap_or_else(|| self.stateless_tag(ident));
        self.transmit_answer(path, msg, &Reply { code: 200, to_tag: tag.as_bytes(), ..Reply::default() });
        let server = &mut self.servers[slot];
        if server.cancelled || !matches!(server.state, State::Invite(ServerInvite::Proceeding)) {
            return None;
        }
        server.cancelled = true;
        self.note_server(slot);
        let server = &self.servers[slot];
        Some(Event::Cancel { invite: ServerTxn::of(handle(slot, server.generation)), user: server.user })
    }

    /// The To tag of the last answer.
    fn answer_tag(&self, slot: usize) -> Option<Token> {
        let server = &self.servers[slot];
        let answer = self.pool.get(server.buf).get(usize::from(server.identity)..)?;
        Token::new(Message::parse(answer, &Limits::default()).ok()?.to_tag()?)
    }

    fn open_server(
        &mut self,
        now: Mono,
        path: Path,
        msg: &Message<'_>,
        method: Method<'_>,
        ident: &[u8],
        split: usize,
    ) -> Event {
        let mut head = std::mem::take(&mut self.scratch);
        head.clear();
        let offsets = write_head(msg, path.remote, &mut head);
        let open = self.open.insert(Open { head: self.pool.store(&head), offsets }) as u32;
        self.scratch = head;
        let (state, expire) = match method {
            Method::Invite => (State::Invite(ServerInvite::Proceeding), Clock::Keep),
            _ => (State::Other(ServerNonInvite::Trying), ServerNonInvite::start(self.times(path.transport)).expire),
        };
        let generation = self.next_generation();
        let hash = self.identity_hash(&ident[..split]);
        let slot = self.servers.insert(Server {
            path: reply_path(path, msg.top_via().ok().as_ref()),
            user: 0,
            retransmit: TimerId::NONE,
            expire: TimerId::NONE,
            buf: self.pool.store(ident),
            chain: NONE,
            open,
            generation,
            identity: ident.len() as u16,
            split: split as u16,
            state,
            cancelled: false,
            mark: Mark::default(),
        });
        self.note_server(slot);
        self.servers[slot].chain = self.by_identity.insert(hash, slot as u32).unwrap_or(NONE);
        if ident.len() > split {
            self.by_merge.insert_new(self.key.hash(&[&ident[split..]]), slot as u32);
        }
        let txn = ServerTxn::of(handle(slot, generation));
        let mut timer = TimerId::NONE;
        self.set_clock(now, &mut timer, expire, txn.number(), Class::Server);
        self.servers[slot].expire = timer;
        if method == Method::Invite && self.cfg.auto_trying {
            self.respond(now, txn, &Reply { code: 100, ..Reply::default() });
        }
        Event::Request { txn }
    }

    /// The transaction with this identity.
    pub(super) fn find_server(&self, first_part: &[u8]) -> Option<usize> {
        let mut at = self.by_identity.get(self.identity_hash(first_part)).copied().unwrap_or(NONE);
        while at != NONE {
            let server = &self.servers[at as usize];
            if self.pool.get(server.buf).get(..usize::from(server.split)) == Some(first_part) {
                return Some(at as usize);
            }
            at = server.chain;
        }
        None
    }

    pub(super) fn identity_hash(&self, first_part: &[u8]) -> u64 {
        let hash = self.key.hash(&[first_part]);
        #[cfg(test)]
        let hash = hash & self.hash_mask;
        hash
    }

    /// Whether the same request came over another path already and lives (RFC 3261 section 8.2.2.2).
    fn find_merge(&self, second_part: &[u8]) -> bool {
        let Some(slot) = self.by_merge.get(self.key.hash(&[second_part])) else { return false };
        let server = &self.servers[*slot as usize];
        self.pool.get(server.buf).get(usize::from(server.split)..usize::from(server.identity)) == Some(second_part)
    }

    pub(super) fn live_server(&self, txn: ServerTxn) -> Option<usize> {
        let slot = (txn.number() & 0xffff_ffff) as usize;
        self.servers.get(slot).filter(|s| handle(slot, s.generation) == txn.number()).map(|_| slot)
    }

    /// Names the TU's own object in later events of `txn`.
    pub fn set_user(&mut self, txn: ServerTxn, user: User) {
        if let Some(slot) = self.live_server(txn) {
            self.servers[slot].user = user;
            self.servers[slot].mark.laid = false;
            self.note_server(slot);
        }
    }

    /// Answers a request. 1xx any number of times, one final answer; what follows it is dropped. A second 100 is not
    /// sent. A 2xx to an INVITE is sent again until [`acked`](Self::acked), at most 64*T1: then
    /// [`TimerEvent::NoAck`].
    pub fn respond(&mut self, now: Mono, txn: ServerTxn, reply: &Reply<'_>) {
        let Some(slot) = self.live_server(txn) else { return };
        let server = &self.servers[slot];
        let answered = self.pool.get(server.buf).len() > usize::from(server.identity);
        if reply.code == 100 && answered {
            return;
        }
        let Some(open) = self.open.get(server.open as usize) else { return };
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        out.extend_from_slice(&self.pool.get(server.buf)[..usize::from(server.identity)]);
        let tag = self.stateless_tag(&out[..usize::from(server.split)]);
        let reply = match reply.to_tag {
            [] if reply.code > 100 => Reply { to_tag: tag.as_bytes(), ..*reply },
            _ => *reply,
        };
        write_reply(self.pool.get(open.head), &open.offsets, &reply, &mut out);
        let new = self.pool.store(&out);
        self.scratch = out;
        let input = match reply.code {
            ..200 => ServerInput::Provisional,
            200..300 => ServerInput::Success,
            300.. => ServerInput::Failure,
        };
        self.step_server(now, slot, input, Some(new));
    }

    /// The TU saw the ACK of its 2xx: it is not sent again.
    pub fn acked(&mut self, txn: ServerTxn) {
        let Some(slot) = self.live_server(txn) else { return };
        // It stops a clock and starts none: the time does not matter.
        self.step_server(Mono(0), slot, ServerInput::Acked, None);
        let server = &mut self.servers[slot];
        let identity = usize::from(server.identity);
        if server.state.is_sent_no_more() && self.pool.get(server.buf).len() > identity {
            // Late INVITEs are absorbed: only the identity is needed to know them.
            let mut out = std::mem::take(&mut self.scratch);
            out.clear();
            out.extend_from_slice(&self.pool.get(server.buf)[..identity]);
            self.pool.release(server.buf);
            server.buf = self.pool.store(&out);
            self.scratch = out;
        }
    }

    pub(super) fn server_transport_error(&mut self, now: Mono, txn: ServerTxn) {
        if let Some(slot) = self.live_server(txn) {
            self.step_server(now, slot, ServerInput::TransportError, None);
        }
    }

    pub(super) fn server_timer(&mut self, now: Mono, token: u64, timer: Timer) {
        if let Some(slot) = self.live_server(ServerTxn::of(token)) {
            self.step_server(now, slot, ServerInput::Timer(timer), None);
        }
    }

    /// Runs one transition and what it asks for. `new` is the answer that comes with the input.
    fn step_server(&mut self, now: Mono, slot: usize, input: ServerInput, new: Option<BufId>) -> Tell {
        let times = self.times(self.servers[slot].path.transport);
        let step = step(self.servers[slot].state, input, times);
        let server = &mut self.servers[slot];
        let token = handle(slot, server.generation);
        let (user, path, identity) = (server.user, server.path, server.identity);
        match (step.send, new) {
            (Output::New, Some(new)) => {
                self.pool.release(std::mem::replace(&mut server.buf, new));
                server.mark.laid = false;
            }
            (_, Some(unused)) => self.pool.release(unused),
            _ => {}
        }
        let buf = server.buf;
        if step.send != Output::Nothing {
            self.stats.retransmissions_out += u64::from(step.send == Output::Again);
            self.transmit(path, buf, identity, 0, Origin::Server(token));
        }
        let server = &mut self.servers[slot];
        let (mut retransmit, mut expire) = (server.retransmit, server.expire);
        self.set_clock(now, &mut retransmit, step.retransmit, token, Class::Server);
        self.set_clock(now, &mut expire, step.expire, token, Class::Server);
        let server = &mut self.servers[slot];
        (server.retransmit, server.expire) = (retransmit, expire);
        match step.state {
            Some(state) => {
                let changed = server.state.number() != state.number() || step.send == Output::New;
                server.state = state;
                if changed {
                    self.note_server(slot);
                }
                if state.answered() {
                    self.close(slot);
                }
            }
            None => self.remove_server(slot),
        }
        match step.tell {
            Tell::NoAck => self.events.push_back(TimerEvent::NoAck { txn: ServerTxn::of(token), user }),
            Tell::TransportError => self.events.push_back(TimerEvent::ServerGone { txn: ServerTxn::of(token), user }),
            Tell::Timeout => self.stats.unanswered += 1,
            Tell::Nothing | Tell::Message => {}
        }
        step.tell
    }

    /// Lets go of what further answers would need.
    fn close(&mut self, slot: usize) {
        let open = std::mem::replace(&mut self.servers[slot].open, NONE);
        if let Some(open) = self.open.remove(open as usize) {
            self.pool.release(open.head);
        }
    }

    fn remove_server(&mut self, slot: usize) {
        self.close(slot);
        let Some(server) = self.servers.remove(slot) else { return };
        self.note_gone(true, handle(slot, server.generation), server.mark);
        let ident = &self.pool.get(server.buf)[..usize::from(server.identity)];
        let (first, second) = ident.split_at(usize::from(server.split));
        let hash = self.identity_hash(first);
        let merge = self.key.hash(&[second]);
        if !second.is_empty() && self.by_merge.get(merge) == Some(&(slot as u32)) {
            self.by_merge.remove(merge);
        }
        self.unchain(hash, slot as u32, server.chain);
        self.wheel.cancel(server.retransmit);
        self.wheel.cancel(server.expire);
        self.pool.release(server.buf);
    }

    fn unchain(&mut self, hash: u64, slot: u32, next: u32) {
        match self.by_identity.get_mut(hash) {
            Some(head) if *head == slot && next == NONE => {
                self.by_identity.remove(hash);
            }
            Some(head) if *head == slot => *head = next,
            Some(head) => {
                let mut at = *head;
                while at != NONE && self.servers[at as usize].chain != slot {
                    at = self.servers[at as usize].chain;
                }
                if at != NONE {
                    self.servers[at as usize].chain = next;
                }
            }
            None => {}
        }
    }

    pub(super) fn set_clock(&mut self, now: Mono, id: &mut TimerId, clock: Clock, token: u64, class: Class) {
        if clock == Clock::Keep {
            return;
        }
        self.wheel.cancel(std::mem::take(id));
        if let Clock::Start(timer, us) = clock {
            *id = self.wheel.insert(now.plus_us(us), token, class.kind(timer as u8));
        }
    }
}

impl State {
    /// As numbers, with how often it was sent again.
    pub(super) const fn number(self) -> (u8, u8) {
        match self {
            State::Invite(ServerInvite::Proceeding) => (0, 0),
            State::Invite(ServerInvite::Completed { resent }) => (1, resent),
            State::Invite(ServerInvite::Confirmed) => (2, 0),
            State::Invite(ServerInvite::Accepted { resent }) => (3, resent),
            State::Invite(ServerInvite::Acked) => (4, 0),
            State::Other(ServerNonInvite::Trying) => (5, 0),
            State::Other(ServerNonInvite::Proceeding) => (6, 0),
            State::Other(ServerNonInvite::Completed) => (7, 0),
        }
    }

    /// The reverse of [`number`](Self::number).
    pub(super) const fn of((number, resent): (u8, u8)) -> Option<State> {
        Some(match number {
            0 => State::Invite(ServerInvite::Proceeding),
            1 => State::Invite(ServerInvite::Completed { resent }),
            2 => State::Invite(ServerInvite::Confirmed),
            3 => State::Invite(ServerInvite::Accepted { resent }),
            4 => State::Invite(ServerInvite::Acked),
            5 => State::Other(ServerNonInvite::Trying),
            6 => State::Other(ServerNonInvite::Proceeding),
            7 => State::Other(ServerNonInvite::Completed),
            _ => return None,
        })
    }

    /// The answer is not needed any more.
    pub(super) const fn is_sent_no_more(self) -> bool {
        matches!(self, State::Invite(ServerInvite::Acked))
    }

    /// The timer that sends the answer again in this state.
    pub(super) const fn retransmits(self) -> Option<Timer> {
        match self {
            State::Invite(ServerInvite::Completed { .. }) => Some(Timer::G),
            State::Invite(ServerInvite::Accepted { .. }) => Some(Timer::Success),
            _ => None,
        }
    }

    /// The timer that ends this state.
    pub(super) const fn expires(self) -> Option<Timer> {
        match self {
            State::Invite(ServerInvite::Proceeding) => None,
            State::Invite(ServerInvite::Completed { .. }) => Some(Timer::H),
            State::Invite(ServerInvite::Confirmed) => Some(Timer::I),
            State::Invite(ServerInvite::Accepted { .. } | ServerInvite::Acked) => Some(Timer::L),
            State::Other(ServerNonInvite::Completed) => Some(Timer::J),
            State::Other(_) => Some(Timer::Unanswered),
        }
    }

    /// Whether the final answer is out.
    const fn answered(self) -> bool {
        !matches!(
            self,
            State::Invite(ServerInvite::Proceeding)
                | State::Other(ServerNonInvite::Trying | ServerNonInvite::Proceeding)
        )
    }
}

fn step(state: State, input: ServerInput, times: Times) -> Step<State> {
    match state {
        State::Invite(s) => s.on(input, times).map(State::Invite),
        State::Other(s) => s.on(input, times).map(State::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::EndpointConfig;
    use super::*;
    use crate::hash::HashKey;
    use std::sync::Arc;

    #[test]
    fn a_lingering_entry_is_small() {
        assert!(size_of::<Server>() <= 96, "{}", size_of::<Server>());
    }

    fn receive(ep: &mut Endpoint, branch: u32) -> Option<Event> {
        let text = format!(
            "BYE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{branch}\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:c@d>;tag=2\r\nCall-ID: c\r\nCSeq: 1 BYE\r\n\r\n"
        );
        let path = Path::udp("192.0.2.1:5060".parse().unwrap(), crate::net::ListenerId(0));
        ep.receive(Mono(0), path, &Message::parse(text.as_bytes(), &Limits::default()).unwrap())
    }

    #[test]
    fn colliding_hashes_do_not_confuse_transactions() {
        // Every order in which four entries of one chain can go.
        for order in 0..24u32 {
            let mut ep = Endpoint::new(Arc::new(EndpointConfig::default()), HashKey(1, 2), [0; 32], 0);
            ep.hash_mask = 0;
            let mut txns = Vec::new();
            for branch in 0..4 {
                match receive(&mut ep, branch) {
                    Some(Event::Request { txn }) => txns.push((branch, txn)),
                    other => panic!("{other:?}"),
                }
            }
            let mut pick = order;
            while !txns.is_empty() {
                let (branch, txn) = txns.remove(pick as usize % txns.len());
                pick /= 4 - txns.len() as u32;
                ep.server_transport_error(Mono(0), txn);
                for (other, _) in &txns {
                    assert_eq!(receive(&mut ep, *other), None, "a retransmission");
                }
                assert!(ep.find_server(&[]).is_none());
                match receive(&mut ep, branch) {
                    Some(Event::Request { txn }) => ep.server_transport_error(Mono(0), txn),
                    other => panic!("{branch} should be gone: {other:?}"),
                }
            }
            while ep.poll_timer(Mono(0)).is_some() {}
            assert!(ep.counts().is_at_rest());
        }
    }
}
