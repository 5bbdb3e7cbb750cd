//! The engine of one shard: inputs in, outputs out. What happens to calls is in the sibling files, by subject.

use crate::agents::Wrapup;
use crate::arena::{Arena, Key};
use crate::audit::Auditor;
use crate::body::Body;
use crate::call::{Call, End};
use crate::config::EngineConfig;
use crate::control::{CallId, MeshMsg, Output};
use crate::journal::Notes;
use crate::leg::{Leg, OutInvite, Phase, Purpose, Role};
use crate::provision::Provisioning;
use crate::rules::Rules;
use crate::stats::StatsHub;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use strowger_dispatch::{Dispatch, Handle, Match};
use strowger_sip::endpoint::{ClientTxn, Endpoint, EndpointConfig, Event, FailReason, Resolve, TimerEvent, Transmit};
use strowger_sip::hash::HashedMap;
use strowger_sip::id::tag_slot;
use strowger_sip::msg::{Message, Method};
use strowger_sip::net::Path;
use strowger_sip::scan;
use strowger_sip::time::{Mono, Now};

/// What a timer of ours is for. Its token is the key of a call, of a leg, or an agent's reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TimerKind {
    /// Leg: the agent does not answer (`agent_ring_timeout`), or somebody a re-INVITE.
    Ring = 0,
    /// Leg: the agent's phone does not end its dialog after the call.
    Grace = 1,
    /// Call: the music is tried again.
    MediaRetry = 2,
    /// Call: 182 is repeated (RFC 3261 section 13.3.1.1).
    Progress = 3,
    /// Call: a re-INVITE that met 491 is tried again (section 14.1).
    Glare = 4,
    /// Leg: session timer (RFC 4028).
    Session = 5,
    /// Agent: the wrap-up is over.
    Wrapup = 6,
    /// Call: it has waited for `dissuading_onhold_th`.
    Onhold = 7,
    /// Leg: after a restart, whether its peer is there still.
    Probe = 8,
}

impl TimerKind {
    const ALL: [TimerKind; 9] = [
        TimerKind::Ring,
        TimerKind::Grace,
        TimerKind::MediaRetry,
        TimerKind::Progress,
        TimerKind::Glare,
        TimerKind::Session,
        TimerKind::Wrapup,
        TimerKind::Onhold,
        TimerKind::Probe,
    ];
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    pub(crate) cfg: Arc<EngineConfig>,
    pub(crate) shard: u16,
    pub(crate) ep: Endpoint,
    pub(crate) shared: Arc<Dispatch>,
    pub(crate) dispatch: Handle,
    pub(crate) stats: Arc<StatsHub>,
    pub(crate) prov: Arc<Provisioning>,
    pub(crate) calls: Arena<Call>,
    pub(crate) legs: Arena<Leg>,
    /// Legs with a claim, by their agent's slot.
    pub(crate) holders: Vec<Vec<Key>>,
    /// Calls by slot of their entry in the waiting set.
    pub(crate) waiting: Vec<Option<Key>>,
    /// By agent slot.
    pub(crate) wrapups: HashedMap<Wrapup>,
    /// Matches for calls of ours, to be worked off, with the time since when their agent is free.
    pub(crate) matches: VecDeque<(Match, Mono)>,
    /// Scratch for what a dispatch operation matches.
    pub(crate) made: Vec<Match>,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) draining: bool,
    /// Empty while it is asked.
    pub(crate) rules: Rules,
    pub(crate) cdr_sequence: u64,
    /// Start of the process, for keys of records.
    pub(crate) born_unix_us: u64,
    /// Scratch of message composition: header lines, body, body before its origin line is replaced.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) draft: Vec<u8>,
    /// By listener: Contact value, address of the origin line.
    pub(crate) contacts: Vec<(Vec<u8>, IpAddr)>,
    /// `Allow` and `Supported` lines of requests and answers that set up a session.
    pub(crate) capabilities: Vec<u8>,
    pub(crate) notes: Notes,
    pub(crate) auditor: Auditor,
    /// Legs whose tag names another slot than theirs, by the tag's hash: after a restart. Empty in normal life.
    pub(crate) revived: HashedMap<Key>,
}

impl Engine {
    /// An engine of `shard`. `seed` differs between shards and starts; it makes tags, branches and Call-IDs.
    #[must_use]
    pub fn new(
        cfg: Arc<EngineConfig>,
        shard: u16,
        dispatch: &Arc<Dispatch>,
        stats: Arc<StatsHub>,
        prov: Arc<Provisioning>,
        seed: [u8; 32],
        now: Now,
    ) -> Engine {
        let bucket = cfg.buckets.owned(shard).next().unwrap_or(0);
        let endpoint = EndpointConfig { bad_from: cfg.call.refusals.bad_from, ..EndpointConfig::clone(&cfg.endpoint) };
        let ep = Endpoint::new(Arc::new(endpoint), cfg.key, seed, bucket);
        let contacts = cfg.endpoint.listeners.iter().map(|l| crate::out::contact(&l.contact_host)).collect();
        let capabilities = crate::out::capabilities(&cfg.endpoint);
        Engine {
            shard,
            ep,
            shared: dispatch.clone(),
            dispatch: dispatch.handle(shard),
            stats,
            prov,
            calls: Arena::new(),
            legs: Arena::new(),
            holders: Vec::new(),
            waiting: Vec::new(),
            wrapups: HashedMap::default(),
            matches: VecDeque::new(),
            made: Vec::new(),
            outputs: VecDeque::new(),
            draining: false,
            rules: cfg.call.rules.clone(),
            cdr_sequence: 0,
            born_unix_us: now.unix_us,
            head: Vec::new(),
            body: Vec::new(),
            draft: Vec::new(),
            contacts,
            capabilities,
            notes: Notes::default(),
            auditor: Auditor::new(now),
            revived: HashedMap::default(),
            cfg,
        }
    }

    /// A datagram (or one framed message) that this shard owns.
    pub fn handle_datagram(&mut self, now: Now, path: Path, bytes: &[u8]) {
        self.auditor.now = now.mono;
        self.stats.shard(self.shard).messages_in.add(1);
        match Message::parse(bytes, &self.cfg.endpoint.limits) {
            Ok(msg) => {
                if let Some(event) = self.ep.receive(now.mono, path, &msg) {
                    self.on_event(event, &msg, path, now);
                }
            }
            Err(fault) => {
                self.stats.shard(self.shard).malformed.add(1);
                self.ep.receive_malformed(now.mono, path, bytes, fault);
            }
        }
        self.settle(now);
    }

    /// A message of another shard.
    pub fn handle_mesh(&mut self, now: Now, msg: MeshMsg) {
        self.auditor.now = now.mono;
        match msg {
            MeshMsg::Matched { matched, since } => self.matches.push_back((matched, since)),
            MeshMsg::ChatOver(over) => self.on_chat_over(&over, now),
        }
        self.settle(now);
    }

    /// Runs everything that is due.
    pub fn handle_timers(&mut self, now: Now) {
        while self.handle_timer(now) {}
    }

    /// Fires the next timer that is due; false: there is none. [`Engine::handle_timers`] in steps, for those who want to know what
    /// comes of each.
    pub fn handle_timer(&mut self, now: Now) -> bool {
        self.auditor.now = now.mono;
        let Some(event) = self.ep.poll_timer(now.mono) else { return false };
        match event {
            TimerEvent::User { token, kind } => self.on_timer(token, kind, now),
            TimerEvent::ClientFailed { txn, user, why } => self.on_client_failed(txn, user, why, now),
            TimerEvent::NoAck { txn, user } => self.on_no_ack(Key::from_u64(user), txn, now),
            TimerEvent::ServerGone { txn, user } => self.on_server_gone(Key::from_u64(user), txn, now),
        }
        self.settle(now);
        true
    }

    /// Answer to a [`Resolve`]; `ttl_us`: how long it holds.
    pub fn handle_resolved(&mut self, now: Now, id: u32, result: Result<&[IpAddr], ()>, ttl_us: u64) {
        self.ep.resolved(now.mono, id, result, ttl_us);
        self.handle_timers(now);
    }

    /// The socket refused a message.
    pub fn handle_send_failed(&mut self, now: Now, transmit: Transmit) {
        self.ep.send_failed(now.mono, transmit);
        self.handle_timers(now);
    }

    /// When [`Engine::handle_timers`] is to be called next.
    #[must_use]
    pub fn next_due(&self) -> Option<Mono> {
        self.ep.next_due()
    }

    /// By how many microseconds the latest of the timers was late that fired since this was last asked.
    pub fn take_lateness(&mut self) -> Option<u64> {
        self.ep.take_lateness()
    }

    /// The next message to send; its bytes are [`Engine::bytes`], and it must be given back by [`Engine::sent`] or
    /// [`Engine::handle_send_failed`].
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.ep.poll_transmit()?;
        self.stats.shard(self.shard).messages_out.add(1);
        Some(transmit)
    }

    #[must_use]
    pub fn bytes(&self, transmit: &Transmit) -> &[u8] {
        self.ep.bytes(transmit)
    }

    pub fn sent(&mut self, transmit: Transmit) {
        self.ep.sent(transmit);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_resolve(&mut self) -> Option<Resolve> {
        self.ep.poll_resolve()
    }

    /// Whether calls of this shard wait for an agent.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.dispatch.waiting() > 0
    }

    /// Nothing to do for now: frees what the epochs hold.
    pub fn idle(&mut self) {
        self.dispatch.collect();
        let stats = self.ep.stats();
        let shard = self.stats.shard(self.shard);
        let sync = |count: &crate::stats::Count, value: u64| {
            count.add(i64::try_from(value).unwrap_or(i64::MAX).wrapping_sub(count.get()));
        };
        sync(&shard.retransmissions_in, stats.retransmissions_in);
        sync(&shard.retransmissions_out, stats.retransmissions_out);
    }

    /// Which shard it is the engine of.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Calls at present.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// The public name of a call.
    pub(crate) fn call_id(&self, c: Key) -> CallId {
        CallId { shard: self.shard, slot: c.slot, generation: c.generation }
    }

    /// Unique over restarts: start of the process, shard, sequence.
    pub(crate) fn cdr_key(&self, sequence: u64) -> u128 {
        #[cfg(mutant)]
        let sequence = if strowger_dispatch::mutant::is("record-keys-repeat") { sequence & !1 } else { sequence };
        (u128::from(self.born_unix_us) << 64) | (u128::from(self.shard) << 48) | u128::from(sequence & 0xffff_ffff_ffff)
    }

    /// The bucket of a message's Call-ID: one of ours, for it came to us.
    pub(crate) fn bucket_of(&self, msg: &Message<'_>) -> u16 {
        scan::bucket_of(msg.call_id().unwrap_or_default(), &self.cfg.key)
    }

    fn on_event(&mut self, event: Event, msg: &Message<'_>, path: Path, now: Now) {
        match event {
            Event::Request { txn } => match self.leg_of(msg) {
                Some(key) => self.in_dialog(key, txn, msg, now),
                None if msg.to_tag().is_some() => self.on_unmatched(txn, msg, now),
                None if msg.method() == Some(Method::Invite) => self.on_arrival(txn, msg, path, now),
                None => self.on_other_request(txn, msg, path, now),
            },
            Event::Ack => {
                if let Some(key) = self.leg_of(msg) {
                    self.on_ack(key, msg, now);
                }
            }
            Event::Cancel { invite, user } => self.on_cancel(Key::from_u64(user), invite, now),
            Event::Response { txn, user } => self.on_response(Key::from_u64(user), txn, msg, path, now),
        }
    }

    /// The leg that a request's To tag names, if the whole dialog matches.
    fn leg_of(&self, msg: &Message<'_>) -> Option<Key> {
        let (to, from, call_id) = (msg.to_tag()?, msg.from_tag().unwrap_or_default(), msg.call_id().ok()?);
        self.leg_named(to, |leg| leg.dialog.matches(call_id, to, from))
    }

    /// The leg whose first INVITE has no final answer yet, by our tag and its Call-ID: who answers it first is not known before that.
    pub(crate) fn unanswered_leg_of(&self, msg: &Message<'_>) -> Option<Key> {
        let (to, call_id) = (msg.to_tag()?, msg.call_id().ok()?);
        self.leg_named(to, |leg| {
            leg.invite.is_some_and(|i| i.purpose == Purpose::Initial) && leg.dialog.matches(call_id, to, b"")
        })
    }

    /// The leg that a tag of ours names, if it `matches`.
    fn leg_named(&self, tag: &[u8], matches: impl Fn(&Leg) -> bool) -> Option<Key> {
        if let Some((key, _)) = self.legs.at(tag_slot(tag)?).filter(|(_, leg)| matches(leg)) {
            return Some(key);
        }
        if self.revived.is_empty() {
            return None;
        }
        let key = *self.revived.get(&self.tag_hash(tag))?;
        self.legs.get(key).filter(|leg| matches(leg)).map(|_| key)
    }

    pub(crate) fn tag_hash(&self, tag: &[u8]) -> u64 {
        self.cfg.key.hash(&[tag])
    }

    /// CANCEL of the caller's INVITE, or of a re-INVITE.
    fn on_cancel(&mut self, key: Key, invite: strowger_sip::endpoint::ServerTxn, now: Now) {
        let Some(leg) = self.legs.get(key) else { return };
        if leg.inbound.is_none_or(|i| i.txn != invite || i.answered) {
            return;
        }
        if leg.phase == Phase::Trying && leg.role == Role::Caller {
            self.on_peer_gone(key, 487, now);
            return;
        }
        // A relayed re-INVITE: the other side is asked to stop; its answer decides.
        let partner = self.relay_partner(key);
        let asked = partner.and_then(|p| self.legs.get(p)).and_then(|p| p.invite);
        if let Some(out) = asked.filter(|o| matches!(o.purpose, Purpose::Relay { txn, .. } if txn == invite)) {
            self.ep.cancel(now.mono, out.txn);
        }
    }

    /// No answer can reach the sender of an open request: an unanswered caller is gone.
    pub(crate) fn on_server_gone(&mut self, key: Key, txn: strowger_sip::endpoint::ServerTxn, now: Now) {
        let Some(leg) = self.legs.get(key) else { return };
        if leg.role == Role::Caller && leg.phase == Phase::Trying && leg.inbound.is_some_and(|i| i.txn == txn) {
            self.on_peer_gone(key, 503, now);
        } else {
            self.take_pending(key, txn);
            self.take_inbound(key, txn);
            if let Some(c) = self.leg_call(key) {
                self.drive_link(c, now);
            }
        }
    }

    fn on_response(&mut self, key: Key, txn: ClientTxn, msg: &Message<'_>, path: Path, now: Now) {
        let code = msg.code().unwrap_or(0);
        let forked = (200..300).contains(&code) && msg.cseq().is_ok_and(|c| c.method == Method::Invite);
        let Some(leg) = self.legs.get_mut(key) else {
            // A branch of a fork may answer when the dialog of the first has come and gone.
            if forked {
                self.end_fork(key, txn, msg, path, now);
            }
            return;
        };
        if let Some(invite) = leg.invite.filter(|i| i.txn == txn) {
            if code < 200 {
                self.on_provisional(key, invite, code, now);
            } else {
                self.on_invite_final(key, invite, code, Some((msg, path)), now);
            }
        } else if leg.bye == Some(txn) {
            if code >= 200 {
                self.leg_gone(key, now);
            }
        } else if leg.refresh == Some(txn) {
            if code >= 200 {
                leg.refresh = None;
                self.on_refreshed(key, code, Some(msg), now);
            }
        } else if leg.probe == Some(txn) {
            if code >= 200 {
                self.on_probed(key, code, now);
            }
        } else if let Some(relay) = leg.relays.iter().find(|r| r.out == txn).copied() {
            self.on_relay_response(key, relay, code, Some(msg), now);
        } else if forked {
            self.end_fork(key, txn, msg, path, now);
        }
    }

    fn on_provisional(&mut self, key: Key, invite: OutInvite, code: u16, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        if invite.purpose == Purpose::Initial
            && leg.role == Role::Agent
            && let Some(c) = leg.call
        {
            self.on_agent_ringing(c, code, now);
        }
    }

    /// The final answer to an INVITE of ours; without `msg` it is a timeout or the like.
    pub(crate) fn on_invite_final(
        &mut self,
        key: Key,
        invite: OutInvite,
        code: u16,
        answer: Option<(&Message<'_>, Path)>,
        now: Now,
    ) {
        let msg = answer.map(|(msg, _)| msg);
        let Some(leg) = self.legs.get_mut(key) else { return };
        leg.invite = None;
        let limit = if invite.purpose == Purpose::Initial || leg.call.is_none() { None } else { leg.timer.take() };
        if let Some(limit) = limit {
            self.ep.stop_timer(limit);
        }
        if code == 422 && self.retry_interval(key, invite.purpose, msg, now) {
            return;
        }
        let Some(leg) = self.legs.get_mut(key) else { return };
        let accepted = (200..300).contains(&code);
        if let Some((msg, path)) = answer.filter(|_| accepted) {
            // A malformed Contact or To leaves what is known; the BYE at the end goes there.
            let _ = leg.dialog.establish(msg, path);
            leg.dialog.confirm();
            self.note_session(key, msg);
        }
        match invite.purpose {
            Purpose::Initial => self.on_initial_final(key, invite, code, msg, now),
            Purpose::Relay { .. } => self.on_relayed_invite(key, invite, code, msg, now),
            Purpose::Bridge { offered } => self.on_agent_moved(key, invite, offered, code, msg, now),
            Purpose::Link | Purpose::Corrective | Purpose::Refresh => {
                if accepted {
                    self.send_ack(key, invite.txn, invite.cseq, None, now);
                }
                self.on_reinvite_final(key, invite.purpose, code, msg, now);
            }
        }
        if accepted {
            self.start_session_timer(key, now);
        }
    }

    fn on_reinvite_final(&mut self, key: Key, purpose: Purpose, code: u16, msg: Option<&Message<'_>>, now: Now) {
        let Some(c) = self.leg_call(key) else { return };
        let answer = msg.and_then(Body::of).filter(|_| code < 300);
        match (purpose, code < 300) {
            (Purpose::Link, true) => self.on_link_accepted(c, answer, now),
            (Purpose::Link, false) if is_unsent(code, msg) => self.on_caller_unreachable(c, code, now),
            (Purpose::Link, false) => self.on_link_refused(c, code, now),
            (Purpose::Corrective, true) => self.on_corrected(c, key, answer, now),
            (Purpose::Corrective, false) => self.on_correction_refused(c, key, code, now),
            _ => {
                self.on_refreshed(key, code, msg, now);
                if let Some(c) = self.leg_call(key) {
                    self.drive_link(c, now);
                }
            }
        }
    }

    /// The first INVITE of a dialog of ours is answered.
    fn on_initial_final(&mut self, key: Key, invite: OutInvite, code: u16, msg: Option<&Message<'_>>, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        let Some(c) = leg.call.filter(|_| leg.phase == Phase::Trying) else {
            // Cancelled: an answer that crossed the CANCEL is acknowledged and ended; an offer in it is refused, since
            // the ACK must answer it (RFC 3261 section 13.2.2.4).
            if code < 300 {
                leg.phase = Phase::Confirmed;
                leg.remote = msg.and_then(Body::of).into();
                let answer = (!leg.offered && leg.remote.is_some()).then_some(End::Silence);
                self.send_ack(key, invite.txn, invite.cseq, answer, now);
                #[cfg(mutant)]
                if strowger_dispatch::mutant::is("late-answer-left-up") {
                    self.leg_gone(key, now);
                    return;
                }
                self.send_bye(key, now);
            } else {
                self.leg_gone(key, now);
            }
            return;
        };
        if code < 300 {
            let medium = self.calls.get(c).map(|call| call.medium);
            leg.remote = msg.and_then(Body::of).filter(|b| b.media() == medium).into();
            if leg.remote.is_some() && !leg.offered {
                leg.phase = Phase::OwesAck;
                leg.owes_ack = Some((invite.txn, invite.cseq));
            } else {
                leg.phase = Phase::Confirmed;
                self.send_ack(key, invite.txn, invite.cseq, None, now);
            }
            match self.legs.get(key).map(|l| l.role) {
                Some(Role::Media) => self.on_media_answered(c, key, now),
                Some(Role::Agent) => self.on_agent_answered(c, key, now),
                Some(Role::FlowMessage) => self.on_flow_message_answered(c, key, now),
                Some(Role::Caller) | None => {}
            }
            return;
        }
        leg.phase = Phase::Closing;
        let contact = msg.and_then(|m| m.contact().ok().flatten()).map(|c| c.uri.to_vec());
        match leg.role {
            Role::Media => {
                self.leg_gone(key, now);
                self.on_media_failed(c, now);
            }
            Role::FlowMessage => {
                self.leg_gone(key, now);
                self.on_flow_message_failed(c, now);
            }
            Role::Agent | Role::Caller => {
                self.on_agent_failed(c, key, code, contact, now);
                self.leg_gone(key, now);
            }
        }
    }

    pub(crate) fn on_client_failed(&mut self, txn: ClientTxn, user: u64, why: FailReason, now: Now) {
        let key = Key::from_u64(user);
        let code = match why {
            FailReason::Timeout => 408,
            FailReason::Transport | FailReason::Unresolvable => 503,
            FailReason::Cancelled => 487,
        };
        let Some(leg) = self.legs.get_mut(key) else { return };
        if let Some(invite) = leg.invite.filter(|i| i.txn == txn) {
            self.on_invite_final(key, invite, code, None, now);
        } else if leg.bye == Some(txn) {
            self.leg_gone(key, now);
        } else if leg.refresh == Some(txn) {
            leg.refresh = None;
            self.on_refreshed(key, code, None, now);
        } else if leg.probe == Some(txn) {
            self.on_probed(key, code, now);
        } else if let Some(relay) = leg.relays.iter().find(|r| r.out == txn).copied() {
            self.on_relay_response(key, relay, code, None, now);
        }
    }

    fn on_timer(&mut self, token: u64, kind: u8, now: Now) {
        let key = Key::from_u64(token);
        let Some(kind) = TimerKind::ALL.get(usize::from(kind)) else { return };
        match kind {
            TimerKind::Ring => self.on_ring_timeout(key, now),
            TimerKind::Grace => self.on_grace_over(key, now),
            TimerKind::MediaRetry => self.on_media_retry(key, now),
            TimerKind::Progress => self.on_progress_timer(key, now),
            TimerKind::Glare => self.on_glare_over(key, now),
            TimerKind::Session => self.on_session_timer(key, now),
            TimerKind::Wrapup => self.on_wrapup_over(token, now),
            TimerKind::Onhold => self.on_onhold_over(key, now),
            TimerKind::Probe => self.probe(key, now),
        }
    }
}

/// Whether a request of ours came to nothing because there was no way to the peer: it has said nothing, and its time was not up
/// (see [`Engine::on_client_failed`]).
pub(crate) fn is_unsent(code: u16, answer: Option<&Message<'_>>) -> bool {
    answer.is_none() && code == 503
}
