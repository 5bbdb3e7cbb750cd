//! A shard takes its part of what the process before has written down.
//!
//! Invariants
//! - A call, its legs and the requests under way on them go to the shard that owns their bucket: their messages arrive there.
//!   Old and new number of shards may differ.
//! - Counters of old shard `s` go to new shard `s % n`, agents to their home: each once.
//! - Requests and answers that are outstanding are sent again. Where something cannot go on, it ends as when it fails, with its
//!   record.
//! - Matching must be off until every shard has restored: a call must not be given an agent who is still to be reclaimed.
//!
//! A flow that is gone from the provisioning: its calls in talk go on under its name, all others end. An agent that is
//! gone: its talk goes on, its ringing is given up, and the call waits again.

use super::calls::CallRecord;
use super::legs::LegRecord;
use super::people::{AgentRecord, add_counts, read_counts};
use super::revived::{Definitions, Renamed};
use super::wire::{Corrupt, Reader};
use super::{Entity, Kind, Recovered};
use crate::arena::Key;
use crate::books::Outcome;
use crate::control::home_shard;
use crate::engine::{Engine, TimerKind};
use crate::leg::{InInvite, Phase};
use std::collections::{BTreeMap, BTreeSet};
use strowger_dispatch::{Media, WaitSpec};
use strowger_sip::endpoint::{ClientTxn, Kept, Restored as Txn, ServerTxn};
use strowger_sip::scan;
use strowger_sip::time::Now;

/// What a shard has restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    pub calls: usize,
    pub legs: usize,
    pub transactions: usize,
    /// Agents whose login or wrap-up goes on; this shard is their home.
    pub agents: usize,
    /// Of the calls, those that could not go on.
    pub ended: usize,
    /// What could not be read, and why.
    pub unreadable: Vec<String>,
}

/// What one old shard left for this one.
#[derive(Debug, Default)]
struct Estate<'a> {
    calls: Vec<(Key, CallRecord<'a>)>,
    legs: Vec<(Key, LegRecord<'a>)>,
    txns: Vec<(Entity, Kept<'a>)>,
    renamed: Renamed,
}

/// Pause before the first dialog is asked whether its peer is still there, and between two of them, microseconds.
const PROBE_AFTER_US: u64 = 2_000_000;
const PROBE_EACH_US: u64 = 5_000;

impl Engine {
    /// Takes over what this shard owns of the records of all old shards; call it on each new shard before anything else,
    /// with dispatching off and all agents provisioned. It keeps a journal from then on, whose first turn
    /// ([`Engine::journal`]) has all of it: until every shard has written that, the old records are needed.
    pub fn restore(&mut self, now: Now, recovered: &[Recovered]) -> Restored {
        self.auditor.now = now.mono;
        self.keep_journal();
        let mut told = Restored::default();
        let mut gone = Definitions::default();
        let mut estates: Vec<Estate<'_>> = recovered.iter().map(|r| self.read(r, &mut told)).collect();
        for (old, estate) in recovered.iter().zip(&mut estates) {
            self.plant(old.shard, estate, &mut gone, now, &mut told);
        }
        self.legs.planted();
        self.calls.planted();
        for estate in &mut estates {
            self.revive_transactions(estate, now, &mut told);
        }
        self.furnish(&estates, &mut gone, now);
        self.restore_agents(recovered, now, &mut told);
        for old in recovered {
            self.restore_counts(old, &mut told);
        }
        for estate in &estates {
            for (old, record) in &estate.calls {
                if let Some(c) = estate.renamed.calls.get(&old.to_u64()) {
                    self.resume_call(*c, record, now);
                    self.take_up(*c, record, now);
                    told.calls += 1;
                }
            }
        }
        let before = self.calls.len();
        self.mend(&estates, now);
        told.ended = before - self.calls.len();
        self.start_probes(now);
        self.settle(now);
        told
    }

    /// Decodes what is this shard's.
    fn read<'a>(&self, old: &'a Recovered, told: &mut Restored) -> Estate<'a> {
        let mut estate = Estate::default();
        let mut all_legs = BTreeSet::new();
        let ours = |bucket: Option<u16>| bucket.is_some_and(|b| self.cfg.buckets.shard(b) == self.shard);
        let mut fault = |entity: &Entity, why: Corrupt| self.unreadable(old.shard, entity, &why.to_string(), told);
        let all: BTreeMap<Entity, &[u8]> = old.records.iter().map(|(e, record)| (*e, &**record)).collect();
        // What is not there cannot be read.
        let rest = |e: &Entity| e.other_half().and_then(|half| all.get(&half)).copied().unwrap_or_default();
        for (entity, record) in &old.records {
            let key = Key::from_u64(entity.id);
            match entity.kind {
                Kind::Call => match CallRecord::decode(record, rest(entity)) {
                    Ok(call) if ours(Some(call.bucket)) => estate.calls.push((key, call)),
                    Ok(_) => {}
                    Err(why) => fault(entity, why),
                },
                Kind::Leg => match LegRecord::decode(record, rest(entity)) {
                    Ok(leg) => {
                        all_legs.insert(entity.id);
                        if ours(scan::parse_mark(leg.local_tag.as_bytes())) {
                            estate.renamed.legs.insert(entity.id, key);
                            estate.legs.push((key, leg));
                        }
                    }
                    Err(why) => fault(entity, why),
                },
                _ => {}
            }
        }
        for (entity, record) in old.records.iter().filter(|(e, _)| matches!(e.kind, Kind::Client | Kind::Server)) {
            match Kept::decode(record, rest(entity)) {
                Ok(kept) => {
                    let with_leg = estate.renamed.legs.contains_key(&kept.user());
                    let orphan = || !all_legs.contains(&kept.user()) && ours(Some(kept.bucket(&self.cfg.key)));
                    if with_leg || orphan() {
                        estate.txns.push((*entity, kept));
                    }
                }
                Err(why) => fault(entity, why),
            }
        }
        estate
    }

    /// One shard of the new ones speaks for each old one.
    fn unreadable(&self, old: u16, entity: &Entity, why: &str, told: &mut Restored) {
        if self.speaks_for(old) {
            // Either half may be the one.
            let kinds = match entity.kind.other_half() {
                Some(other) => format!("{:?}/{other:?}", entity.kind),
                None => format!("{:?}", entity.kind),
            };
            told.unreadable.push(format!("{kinds} {} of shard {old}: {why}", entity.id));
        }
    }

    fn speaks_for(&self, old: u16) -> bool {
        old % self.cfg.buckets.shards().max(1) == self.shard
    }

    /// Gives legs and calls their places.
    fn plant(&mut self, old: u16, estate: &mut Estate<'_>, gone: &mut Definitions, now: Now, told: &mut Restored) {
        for (key, record) in &estate.legs {
            match Self::bare_leg(record) {
                Some(leg) => {
                    estate.renamed.legs.insert(key.to_u64(), self.legs.plant(*key, leg));
                    told.legs += 1;
                }
                None => {
                    estate.renamed.legs.remove(&key.to_u64());
                    let entity = Entity { kind: Kind::Leg, id: key.to_u64() };
                    told.unreadable.push(format!("{:?} {} of shard {old}: no dialog", entity.kind, entity.id));
                }
            }
        }
        for (key, record) in &estate.calls {
            let call = self.revived_call(record, &estate.renamed, gone, now);
            estate.renamed.calls.insert(key.to_u64(), self.calls.plant(*key, call));
        }
    }

    fn revive_transactions(&mut self, estate: &mut Estate<'_>, now: Now, told: &mut Restored) {
        for (entity, kept) in &estate.txns {
            let user = estate.renamed.legs.get(&kept.user()).map_or(u64::MAX, |key| key.to_u64());
            match self.ep.restore(now, kept, user) {
                Some(Txn::Client(txn)) => drop(estate.renamed.clients.insert(entity.id, txn)),
                Some(Txn::Server(txn)) => drop(estate.renamed.servers.insert(entity.id, txn)),
                None => continue,
            }
            told.transactions += 1;
        }
    }

    /// Legs get all that they had; those who talk get their agents before those who ring.
    fn furnish(&mut self, estates: &[Estate<'_>], gone: &mut Definitions, now: Now) {
        for talking in [true, false] {
            for estate in estates {
                for (old, record) in &estate.legs {
                    let Some(key) = estate.renamed.leg(*old) else { continue };
                    let call = record.call.and_then(|c| estate.renamed.calls.get(&c.to_u64()));
                    let attempt = call.and_then(|c| self.calls.get(*c)).and_then(|c| c.attempt.as_ref());
                    if attempt.is_some_and(|a| a.leg == key && a.answered.is_some()) == talking {
                        self.furnish_leg(key, record, &estate.renamed, gone, now);
                    }
                }
            }
        }
    }

    /// A call is counted, its agent knows it, and it waits again where it waited.
    fn take_up(&mut self, c: Key, record: &CallRecord<'_>, now: Now) {
        let Some(call) = self.calls.get(c) else { return };
        self.count_revival(call);
        let ticket = call.ticket;
        #[cfg(mutant)]
        let ticket = if strowger_dispatch::mutant::is("restart-reuses-tickets") { 0 } else { ticket };
        self.shared.pass_ticket(ticket);
        let claim = call.attempt.as_ref().and_then(|a| self.legs.get(a.leg)).and_then(|l| l.claim.as_ref());
        if let Some(claim) = claim.filter(|claim| claim.medium == Media::Audio) {
            self.shared.set_owner(claim.agent, Some((self.shard, c.to_u64())));
        }
        self.set_state(c, record.state);
        if record.waits {
            self.wait_again(c, now);
        }
    }

    fn wait_again(&mut self, c: Key, now: Now) {
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("restart-forgets-who-waits") {
            return;
        }
        let Some(call) = self.calls.get(c) else { return };
        let spec = WaitSpec {
            media: call.medium,
            skill: call.flow.skill,
            priority: call.flow.priority,
            ticket: call.ticket,
            refused: &call.refused,
        };
        let joined = self.dispatch.wait(spec, &mut self.made);
        self.deliver(now.mono);
        match joined {
            Ok(wait) => self.note_wait(c, wait),
            Err(_) => self.end_call(c, Outcome::Error, self.cfg.call.refusals.internal, now),
        }
    }

    /// Ends or repairs what cannot go on as it was.
    fn mend(&mut self, estates: &[Estate<'_>], now: Now) {
        for estate in estates {
            for (old, record) in &estate.calls {
                if let Some(c) = estate.renamed.calls.get(&old.to_u64()) {
                    self.mend_call(*c, record, now);
                }
            }
            for (old, record) in &estate.legs {
                if let Some(key) = estate.renamed.leg(*old) {
                    self.mend_leg(key, record, now);
                }
            }
        }
    }

    fn mend_call(&mut self, c: Key, record: &CallRecord<'_>, now: Now) {
        let Some(call) = self.calls.get(c) else { return };
        let talks = call.attempt.as_ref().is_some_and(|a| a.answered.is_some());
        let claimed = |leg| self.legs.get(leg).is_some_and(|l| l.claim.is_some());
        let internal = self.cfg.call.refusals.internal;
        if self.legs.get(call.caller).is_none() || (self.prov.flow(record.flow).is_none() && !talks) {
            self.end_call(c, if talks { Outcome::Handled } else { Outcome::Error }, internal, now);
        } else if call.attempt.as_ref().is_some_and(|a| !talks && !claimed(a.leg)) {
            self.attempt_error(c, internal, now);
        } else if record.attempt.is_some() && call.attempt.is_none() {
            self.enter_queue(c, now);
        }
    }

    /// A leg whose transaction, or whose call, was not to be read.
    fn mend_leg(&mut self, key: Key, record: &LegRecord<'_>, now: Now) {
        let Some(leg) = self.legs.get(key) else { return };
        if record.call.is_some() && leg.call.is_none() {
            self.end_claim(key, 0, now);
            self.let_go(key, now);
            return;
        }
        let lost = |txn: Option<ClientTxn>| txn == Some(ClientTxn::NONE);
        let inbound: Option<InInvite> = leg.inbound.filter(|i| i.txn == ServerTxn::NONE);
        if let Some(invite) = leg.invite.filter(|i| lost(Some(i.txn))) {
            self.on_invite_final(key, invite, 503, None, now);
        } else if lost(leg.bye) {
            self.leg_gone(key, now);
        } else if let Some(inbound) = inbound {
            if inbound.answered {
                self.on_no_ack(key, ServerTxn::NONE, now);
            } else {
                self.on_server_gone(key, ServerTxn::NONE, now);
            }
        }
    }

    /// Logins, wrap-ups and misses of the agents whose home is here, in the order in which they came about.
    fn restore_agents(&mut self, recovered: &[Recovered], now: Now, told: &mut Restored) {
        let mut latest: BTreeMap<&str, AgentRecord<'_>> = BTreeMap::new();
        for old in recovered {
            for (entity, record) in old.records.iter().filter(|(e, _)| e.kind == Kind::Agent) {
                match AgentRecord::decode(record) {
                    Ok(agent)
                        if latest.get(agent.id).is_none_or(|a| (a.order, a.stamp) < (agent.order, agent.stamp)) =>
                    {
                        latest.insert(agent.id, agent);
                    }
                    Ok(_) => {}
                    Err(why) => self.unreadable(old.shard, entity, &why.to_string(), told),
                }
            }
        }
        let mut agents: Vec<_> = latest.into_values().collect();
        agents.sort_by_key(|agent| agent.stamp);
        for record in agents {
            let Some(agent) = self.prov.agents_by_id.get(record.id).copied() else { continue };
            if home_shard(agent, self.cfg.buckets.shards()) == self.shard {
                self.restore_agent(agent, &record, now);
                told.agents += 1;
            }
        }
        self.dispatch.take_late(&mut self.made);
        self.deliver(now.mono);
    }

    fn restore_agent(&mut self, agent: strowger_dispatch::AgentRef, record: &AgentRecord<'_>, now: Now) {
        #[cfg(mutant)]
        let record = &AgentRecord {
            logged_in: record.logged_in.filter(|_| !strowger_dispatch::mutant::is("restart-forgets-logins")),
            ..*record
        };
        let logged_in = record.logged_in.or_else(|| self.shared.agent(agent).map(|v| v.logged_in));
        // One who is logged in already goes behind those who came free before.
        self.dispatch.logout(agent);
        if logged_in == Some(true) {
            self.dispatch.login(agent, &mut self.made);
        }
        let board = self.stats.board.at(agent.slot);
        board.set_commanded(record.logged_in);
        board.set_misses(record.misses);
        // Not longer than it had to run when this was written, whatever the wall clock says now.
        let left = |unix_us: u64| now.mono.plus_us(unix_us.saturating_sub(record.stamp));
        let until = |unix_us: u64| (unix_us > now.unix_us).then(|| now.mono_of(unix_us).min(left(unix_us)));
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("restart-forgets-wrapups") {
            return;
        }
        let Some(ends) = until(record.wrapup_ends) else { return };
        let pause = until(record.pause_ends);
        let begun = if record.withheld {
            self.dispatch.withhold(agent, pause.is_some())
        } else {
            self.dispatch.begin_wrapup(agent)
        };
        if begun {
            self.time_wrapup(agent, ends, pause, now);
        }
    }

    /// Counters of one old shard, if they come here; the sequence of records is passed by all.
    fn restore_counts(&mut self, old: &Recovered, told: &mut Restored) {
        let ours = self.speaks_for(old.shard);
        for (entity, record) in &old.records {
            let read = match entity.kind {
                Kind::Shard => self.restore_shard(record, ours),
                Kind::FlowCounts if ours => read_counts(record).and_then(|(id, mut r)| match self.prov.flow(id) {
                    Some(flow) => add_counts(&mut r, self.stats.shard(self.shard).flows.at(flow.idx).lasting()),
                    None => Ok(()),
                }),
                Kind::AgentCounts if ours => {
                    read_counts(record).and_then(|(id, mut r)| match self.prov.agents_by_id.get(id) {
                        Some(a) => add_counts(&mut r, self.stats.shard(self.shard).agents.at(a.slot).lasting()),
                        None => Ok(()),
                    })
                }
                _ => Ok(()),
            };
            if let Err(why) = read {
                self.unreadable(old.shard, entity, &why.to_string(), told);
            }
        }
    }

    fn restore_shard(&mut self, record: &[u8], ours: bool) -> Result<(), Corrupt> {
        let mut r = Reader(record);
        super::calls::version(&mut r)?;
        self.cdr_sequence = self.cdr_sequence.max(r.uint()?);
        if ours { add_counts(&mut r, self.stats.shard(self.shard).lasting()) } else { Ok(()) }
    }

    /// Each dialog that goes on is asked soon whether its peer is still there, one after the other.
    fn start_probes(&mut self, now: Now) {
        let up = |key: &Key| self.legs.get(*key).is_some_and(|l| l.call.is_some() && l.phase == Phase::Confirmed);
        let legs: Vec<Key> = self.legs.keys().filter(up).collect();
        let mut due = now.mono.plus_us(PROBE_AFTER_US);
        for key in legs {
            self.ep.start_timer(due, key.to_u64(), TimerKind::Probe as u8);
            due = due.plus_us(PROBE_EACH_US);
        }
    }
}
