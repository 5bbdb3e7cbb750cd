//! Legs and calls of the process before, made live again: old keys and transactions become the new ones.

use super::calls::{AttemptRecord, CallRecord};
use super::legs::{ClaimRecord, LegRecord, PurposeRecord};
use super::notes::NOTHING;
use crate::arena::Key;
use crate::audit::{History, What};
use crate::call::{Attempt, Call, End, Link, Preagent};
use crate::control::CallState;
use crate::engine::{Engine, TimerKind};
use crate::leg::{Claim, InInvite, Leg, OutInvite, Plan, Purpose, Relay};
use crate::provision::{AgentDef, FlowDef};
use crate::words::{Said, Words};
use std::collections::BTreeMap;
use std::sync::Arc;
use strowger_dispatch::AgentRef;
use strowger_sip::dialog::Dialog;
use strowger_sip::endpoint::{ClientTxn, ServerTxn};
use strowger_sip::hash::HashedMap;
use strowger_sip::time::Now;
use strowger_sip::wheel::TimerId;

/// What has become of the keys and transactions of one old shard.
#[derive(Debug, Default)]
pub(super) struct Renamed {
    pub calls: HashedMap<Key>,
    pub legs: HashedMap<Key>,
    pub clients: HashedMap<ClientTxn>,
    pub servers: HashedMap<ServerTxn>,
}

/// What stands in for definitions that are gone.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    flows: BTreeMap<Box<str>, Arc<FlowDef>>,
}

/// A time that has been, also where the wall clock was set back meanwhile.
fn past(now: Now, unix_us: u64) -> Now {
    Now { mono: now.mono_of(unix_us).min(now.mono), unix_us }
}

/// No agent of the table: claims and counters that name it concern nobody.
const NOBODY: AgentRef = AgentRef { slot: NOTHING, gen_: u32::MAX };

/// The key of no leg.
const NO_LEG: Key = Key { slot: u32::MAX, generation: 0 };

impl Renamed {
    fn call(&self, old: Key) -> Option<Key> {
        self.calls.get(&old.to_u64()).copied()
    }

    pub(super) fn leg(&self, old: Key) -> Option<Key> {
        self.legs.get(&old.to_u64()).copied()
    }

    /// A far end that had gone before stays gone.
    fn end(&self, old: End) -> End {
        match old {
            End::Silence => End::Silence,
            End::Leg(key) => End::Leg(self.leg(key).unwrap_or(NO_LEG)),
        }
    }

    fn link(&self, old: Link) -> Link {
        match old {
            Link::Fresh => Link::Fresh,
            Link::Loose => Link::Loose,
            Link::Acking(end) => Link::Acking(self.end(end)),
            Link::Linked(end) => Link::Linked(self.end(end)),
            Link::Offering { to, before } => {
                Link::Offering { to: self.end(to), before: before.map(|end| self.end(end)) }
            }
        }
    }
}

/// A caller hears again that it is queued once a minute; nothing else of a call that is timed here takes longer, microseconds.
const LONGEST_US: u64 = 60_000_000;

impl Engine {
    /// The flow of that id, or one that is gone: its calls in talk go on under its name.
    pub(super) fn flow_named(&self, id: &str, gone: &mut Definitions) -> Arc<FlowDef> {
        if let Some(flow) = self.prov.flow(id) {
            return Arc::clone(flow);
        }
        let make = || Arc::new(FlowDef { idx: NOTHING, flowid: id.into(), priority: u32::MAX, ..FlowDef::default() });
        Arc::clone(gone.flows.entry(id.into()).or_insert_with(make))
    }

    /// The agent of that id, or one that is gone.
    fn agent_named(&self, id: &str) -> Arc<AgentDef> {
        let known = self.prov.agents_by_id.get(id).and_then(|agent| self.prov.agent(*agent));
        known.map_or_else(
            || {
                Arc::new(AgentDef {
                    agent: NOBODY,
                    agentid: id.into(),
                    location: None,
                    msrp_location: None,
                    msrp_max_sessions: 0,
                    skills: Vec::new(),
                    wrapup_s: 0,
                })
            },
            Arc::clone,
        )
    }

    /// A timer goes on; one that came due meanwhile fires at once. `longest_us`: it never runs longer: a wall clock that was set
    /// back while no process ran, as one without a battery is at the start of its machine, must not stretch it.
    fn resume(&mut self, due: Option<u64>, token: Key, kind: TimerKind, longest_us: u64, now: Now) -> Option<TimerId> {
        let latest = now.mono.plus_us(longest_us);
        let due = now.mono_of(due?).clamp(now.mono, latest);
        Some(self.ep.start_timer(due, token.to_u64(), kind as u8))
    }

    /// A leg with its dialog alone, to be planted: the rest needs the keys of all.
    pub(super) fn bare_leg(record: &LegRecord<'_>) -> Option<Leg> {
        let dialog = Dialog::from_parts(&record.dialog).ok()?;
        Some(Leg::new(record.role, dialog, record.session_id))
    }

    /// All that a planted leg had.
    pub(super) fn furnish_leg(
        &mut self,
        key: Key,
        record: &LegRecord<'_>,
        renamed: &Renamed,
        gone: &mut Definitions,
        now: Now,
    ) {
        let call = record.call.and_then(|old| renamed.call(old));
        let kind = if call.is_none() { TimerKind::Grace } else { TimerKind::Ring };
        let rings_us = self.cfg.call.agent_ring_timeout_us.max(64 * self.cfg.endpoint.t1_us);
        let timer = self.resume(record.timer, key, kind, rings_us, now);
        let interval_us = u64::from(record.session.interval_s) * 1_000_000;
        let session = self.resume(record.session_due, key, TimerKind::Session, interval_us, now);
        let claim = record.claim.as_ref().and_then(|claim| self.reclaimed(claim, gone));
        let client = |old: u64| renamed.clients.get(&old).copied().unwrap_or(ClientTxn::NONE);
        let server = |old: u64| renamed.servers.get(&old).copied().unwrap_or(ServerTxn::NONE);
        let Some(leg) = self.legs.get_mut(key) else { return };
        leg.call = call;
        leg.phase = record.phase;
        leg.inbound = record.inbound.as_ref().map(|i| {
            let ack_to = i.ack_to.and_then(|old| renamed.leg(old));
            InInvite { txn: server(i.txn), cseq: i.cseq, answered: i.answered, ack_to }
        });
        leg.invite = record.invite.as_ref().map(|i| {
            let purpose = match i.purpose {
                PurposeRecord::Plain(purpose) => purpose,
                PurposeRecord::Relay { from, txn, offered } => {
                    Purpose::Relay { from: renamed.leg(from).unwrap_or(NO_LEG), txn: server(txn), offered }
                }
            };
            OutInvite { txn: client(i.txn), purpose, cseq: i.cseq }
        });
        leg.bye = record.bye.map(client);
        leg.owes_ack = record.owes_ack.map(|(txn, cseq)| (client(txn), cseq));
        leg.offered = record.offered;
        leg.remote = record.remote.map(|b| b.to_body()).into();
        leg.proposed = record.proposed.map(|b| b.to_body()).into();
        (leg.version, leg.described, leg.stale) = (record.version, record.described, record.stale);
        leg.timer = timer;
        leg.session = crate::leg::Session { timer: session, ..record.session };
        let relay = |r: &super::legs::RelayRecord| {
            Some(Relay { out: client(r.out), from: renamed.leg(r.from)?, txn: server(r.txn), offer: r.offer })
        };
        leg.relays = record.relays.iter().filter_map(relay).collect();
        leg.pending = record.pending.iter().map(|txn| server(*txn)).collect();
        leg.refresh = record.refresh.map(client).filter(|txn| *txn != ClientTxn::NONE);
        leg.over = record.over;
        if let Some(claim) = claim {
            self.put_claim(key, claim);
        }
        let named = strowger_sip::id::tag_slot(record.local_tag.as_bytes());
        if named != Some(key.slot) {
            let hash = self.tag_hash(record.local_tag.as_bytes());
            // Of the branches of a fork, which have one tag of ours, that of the call.
            if call.is_some() || !self.revived.contains_key(&hash) {
                self.revived.insert(hash, key);
            }
        }
    }

    /// The agent is this leg's again, unless it is gone or somebody else has it.
    fn reclaimed(&mut self, record: &ClaimRecord<'_>, gone: &mut Definitions) -> Option<Box<Claim>> {
        let agent = self.prov.agents_by_id.get(record.agent).copied()?;
        let def = self.prov.agent(agent).cloned()?;
        let reclaimed = self.reclaim(agent, record.medium);
        let plan: Option<Plan> = record.plan;
        let flow = self.flow_named(record.flow, gone);
        reclaimed.then(|| Box::new(Claim { agent, def, medium: record.medium, flow, plan }))
    }

    /// A call, its legs' keys renamed. It is to enter the queue afterwards, where its record says so.
    pub(super) fn revived_call(
        &self,
        record: &CallRecord<'_>,
        renamed: &Renamed,
        gone: &mut Definitions,
        now: Now,
    ) -> Call {
        let at = |unix_us| past(now, unix_us);
        let leg = |old: Option<Key>| old.and_then(|old| renamed.leg(old));
        Call {
            // The gauges rise when its state is set.
            state: CallState::Ended,
            flow: self.flow_named(record.flow, gone),
            medium: record.medium,
            received: at(record.received),
            ticket: record.ticket,
            bucket: record.bucket,
            caller: renamed.leg(record.caller).unwrap_or(NO_LEG),
            media: leg(record.media),
            message: record.message,
            fading: leg(record.fading),
            media_failures: record.media_failures,
            stranded: record.stranded.map(|unix| now.mono_of(unix)),
            attempt: record.attempt.as_ref().and_then(|a| self.revived_attempt(a, renamed, now)).map(Box::new),
            wait: None,
            queued: record.queued.map(at),
            link: renamed.link(record.link),
            rejected: record.rejected,
            refused: record.refused.iter().filter_map(|id| self.prov.agents_by_id.get(*id).copied()).collect(),
            errors: record.errors,
            onhold: false,
            held_once: record.held_once,
            rang: record.rang,
            words: Words::new(&Said {
                user: record.caller_user,
                display: record.caller_display,
                from: record.from,
                passed: record.passed,
                param: record.param,
            }),
            max_forwards: record.max_forwards,
            media_timer: None,
            progress_timer: None,
            glare_timer: None,
            onhold_timer: None,
            history: History::new(What::Revived),
        }
    }

    fn revived_attempt(&self, record: &AttemptRecord<'_>, renamed: &Renamed, now: Now) -> Option<Attempt> {
        let at = |unix_us| past(now, unix_us);
        Some(Attempt {
            leg: renamed.leg(record.leg)?,
            agent: self.agent_named(record.agent),
            mode: record.mode,
            pre: match record.pre {
                Preagent::Hearing(old) => renamed.leg(old).map_or(Preagent::Moving, Preagent::Hearing),
                other => other,
            },
            other_mode: record.other_mode,
            redirects: record.redirects,
            offered: at(record.offered),
            answered: record.answered.map(at),
            bridged: record.bridged,
            corrected: record.corrected,
        })
    }

    /// The timers of a call that lives again.
    pub(super) fn resume_call(&mut self, c: Key, record: &CallRecord<'_>, now: Now) {
        let kinds = [TimerKind::MediaRetry, TimerKind::Progress, TimerKind::Glare, TimerKind::Onhold];
        let onhold_us = self.calls.get(c).map_or(0, |call| u64::from(call.flow.dissuading_onhold_th) * 1_000_000);
        let others_us = self.cfg.call.media_retry_us.max(LONGEST_US);
        let mut timers = [None; 4];
        for (timer, (due, kind)) in timers.iter_mut().zip(record.timers.into_iter().zip(kinds)) {
            let longest_us = if kind == TimerKind::Onhold { onhold_us } else { others_us };
            *timer = self.resume(due, c, kind, longest_us, now);
        }
        let Some(call) = self.calls.get_mut(c) else { return };
        [call.media_timer, call.progress_timer, call.glare_timer, call.onhold_timer] = timers;
    }
}
