//! Looks at legs: each has a call that knows it or an end that will come, what it waits for lives, and its agent is its own.

use super::{Fault, Found, mark};
use crate::arena::Key;
use crate::call::Preagent;
use crate::engine::Engine;
use crate::leg::{Claim, Leg, Phase, Plan, Role};
use strowger_dispatch::Media;
use strowger_sip::endpoint::{ClientTxn, ServerTxn};
use strowger_sip::id::tag_slot;

impl Engine {
    pub(super) fn look_at_leg(&self, key: Key) -> Option<Found> {
        let leg = self.legs.get(key)?;
        let fault = self
            .fault_of_claim(key, leg)
            .or_else(|| self.fault_of_call(key, leg))
            .or_else(|| self.fault_of_transactions(leg))
            .or_else(|| self.fault_of_leg_timers(leg))
            .or_else(|| self.fault_of_tag(key, leg))?;
        let txn = |txn: Option<ClientTxn>| txn.map_or(0, ClientTxn::number);
        let inbound = leg.inbound.map_or(0, |i| i.txn.number() ^ u64::from(i.answered));
        let call = leg.call.map_or(0, Key::to_u64);
        let (invite, phase) = (txn(leg.invite.map(|i| i.txn)), leg.phase as u64);
        Some((fault, mark(&[key.to_u64(), call, phase, inbound, invite, txn(leg.bye), txn(leg.refresh)])))
    }

    /// The agents' table says the same of its agent.
    fn fault_of_claim(&self, key: Key, leg: &Leg) -> Option<Fault> {
        let claim: &Claim = leg.claim.as_deref()?;
        let agent = claim.agent;
        if !self.holders.get(agent.slot as usize).is_some_and(|holders| holders.contains(&key)) {
            return Some(Fault::HoldsMiscounted);
        }
        let Some(look) = self.shared.look(agent) else { return Some(Fault::AgentUnclaimed) };
        if !look.at_rest {
            return None;
        }
        if look.claims == 0 || (claim.medium == Media::Audio) != look.in_call {
            return Some(Fault::AgentUnclaimed);
        }
        let ours = leg.call.map(|c| (self.shard, c.to_u64()));
        if claim.medium == Media::Chat || ours.is_none() || look.owner == ours {
            return None;
        }
        let twice = self.stats.agent(agent.slot, |c| c.held.get()) > i64::from(look.claims);
        Some(if twice { Fault::AgentHeldTwice } else { Fault::OwnerWrong })
    }

    /// Its call knows it; without one, something will end it.
    fn fault_of_call(&self, key: Key, leg: &Leg) -> Option<Fault> {
        let Some(c) = leg.call else {
            let ends = leg.bye.is_some() || leg.invite.is_some() || leg.inbound.is_some();
            return (!ends).then_some(Fault::LegUnended);
        };
        let known = self.calls.get(c).is_some_and(|call| {
            let attempt = call.attempt.as_ref();
            let briefs = attempt.is_some_and(|a| a.pre == Preagent::Hearing(key));
            let ours = [Some(call.caller), call.media, call.fading, attempt.map(|a| a.leg)];
            briefs || ours.contains(&Some(key))
        });
        if !known {
            return Some(Fault::LegOrphaned);
        }
        let ends = match leg.phase {
            Phase::Trying if leg.role == Role::Caller => leg.inbound.is_some(),
            Phase::Trying => leg.invite.is_some(),
            Phase::AwaitAck => leg.inbound.is_some(),
            Phase::OwesAck => leg.owes_ack.is_some(),
            Phase::Confirmed => true,
            Phase::Cancelled | Phase::Closing => false,
        };
        (!ends).then_some(Fault::LegUnended)
    }

    /// The transactions that it waits for live.
    fn fault_of_transactions(&self, leg: &Leg) -> Option<Fault> {
        let relayed = leg.relays.iter().map(|r| r.out);
        let own = [leg.invite.map(|i| i.txn), leg.bye, leg.refresh, leg.probe].into_iter().flatten();
        let lost = own.chain(relayed).any(|txn| !self.ep.is_client(txn))
            || leg.inbound.is_some_and(|i| !self.ep.is_server(i.txn));
        lost.then_some(Fault::LegTransactionGone)
    }

    fn fault_of_leg_timers(&self, leg: &Leg) -> Option<Fault> {
        let stopped = |timer| self.ep.timer_due(timer).is_none();
        if [leg.timer, leg.session.timer].into_iter().flatten().any(stopped) {
            return Some(Fault::LegTimerGone);
        }
        let rings = leg.call.is_some() && leg.phase == Phase::Trying && leg.role != Role::Caller;
        // One that its call has let go frees its agent in time, whatever its phone does.
        let graced = leg.claim.as_ref().is_some_and(|claim| claim.plan == Some(Plan::Free) || leg.call.is_none());
        if (rings || graced) && leg.timer.is_none() {
            return Some(Fault::LegTimerGone);
        }
        let talks = leg.call.is_some() && leg.phase == Phase::Confirmed && leg.session.interval_s > 0;
        let refreshing = leg.refresh.is_some() || leg.offer_pending() || leg.owes_ack.is_some();
        (talks && leg.session.timer.is_none() && !refreshing).then_some(Fault::SessionUntimed)
    }

    /// An INVITE of ours that is open, and whose leg knows of it no more.
    pub(super) fn look_at_ours(&self, txn: ClientTxn) -> Option<Found> {
        let (open, user) = self.ep.open_invite_of_ours(txn.number() as u32 as usize)?;
        let waits = self.legs.get(Key::from_u64(user)).is_some_and(|l| l.invite.is_some_and(|i| i.txn == txn));
        (open == txn && !waits).then_some((Fault::InviteForgotten, txn.number()))
    }

    /// One that came in, is open, and will be answered by nobody.
    pub(super) fn look_at_theirs(&self, txn: ServerTxn) -> Option<Found> {
        let (open, user) = self.ep.open_invite_of_theirs(txn.number() as u32 as usize)?;
        let works = self.legs.get(Key::from_u64(user)).is_some_and(|l| l.inbound.is_some_and(|i| i.txn == txn));
        (open == txn && !works).then_some((Fault::InviteUnanswered, txn.number()))
    }

    /// Requests of its peer lead to it.
    fn fault_of_tag(&self, key: Key, leg: &Leg) -> Option<Fault> {
        let tag = leg.local_tag();
        let found = tag_slot(tag) == Some(key.slot) || self.revived.get(&self.tag_hash(tag)) == Some(&key);
        (!found && leg.call.is_some()).then_some(Fault::LegUnlisted)
    }
}
