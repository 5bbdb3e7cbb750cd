//! Looks at calls: each has a caller, waits for something, and what it waits for is there.

use super::{Fault, Found, mark};
use crate::arena::Key;
use crate::call::{Attempt, Call, End, Link, Preagent};
use crate::control::CallState;
use crate::engine::Engine;
use crate::leg::{Purpose, Role};
use strowger_dispatch::WaitLook;

impl Engine {
    pub(super) fn look_at_call(&self, c: Key) -> Option<Found> {
        let call = self.calls.get(c)?;
        let fault = self
            .fault_of_caller(c, call)
            .or_else(|| self.fault_of_place(c, call))
            .or_else(|| self.fault_of_messages(c, call))
            .or_else(|| call.attempt.as_ref().and_then(|attempt| self.fault_of_attempt(c, attempt)))
            .or_else(|| self.fault_of_timers(call))
            .or_else(|| self.fault_of_link(c, call))?;
        // Whatever happens to the call makes it another mismatch.
        Some((fault, mark(&[c.to_u64(), u64::from(call.history.total), call.state as u64])))
    }

    /// Whether this leg lives and is that call's.
    fn has(&self, c: Key, leg: Key) -> bool {
        self.legs.get(leg).is_some_and(|l| l.call == Some(c))
    }

    fn fault_of_caller(&self, c: Key, call: &Call) -> Option<Fault> {
        let there = self.has(c, call.caller) && self.legs.get(call.caller).is_some_and(|l| l.role == Role::Caller);
        (!there).then_some(Fault::CallerGone)
    }

    /// It has a place in the queue, an agent, or a message that will end.
    fn fault_of_place(&self, c: Key, call: &Call) -> Option<Fault> {
        if let Some(wait) = call.wait {
            if call.attempt.is_some() {
                return Some(Fault::StillQueued);
            }
            let known = self.waiting.get(wait.slot as usize).copied().flatten() == Some(c);
            let entry = self.shared.look_at_wait(wait.shard, wait.slot);
            let live = entry.is_some_and(|(gen_, state)| gen_ == wait.gen_ && state != WaitLook::Free);
            return (!known || !live).then_some(Fault::NotQueued);
        }
        let goes_on = match call.state {
            CallState::Welcome | CallState::Dissuading1 | CallState::Dissuading2 => call.media.is_some(),
            CallState::Queued | CallState::Ended => false,
            CallState::Preagent | CallState::ToAgent => call.attempt.is_some(),
        };
        (!goes_on).then_some(Fault::CallIdle)
    }

    fn fault_of_messages(&self, c: Key, call: &Call) -> Option<Fault> {
        if [call.media, call.fading].into_iter().flatten().any(|leg| !self.has(c, leg)) {
            return Some(Fault::MessageGone);
        }
        let silent = call.media.is_none() && call.fading.is_none() && call.media_timer.is_none();
        (call.state == CallState::Queued && silent).then_some(Fault::MusicGivenUp)
    }

    fn fault_of_attempt(&self, c: Key, attempt: &Attempt) -> Option<Fault> {
        let Some(leg) = self.legs.get(attempt.leg).filter(|l| l.call == Some(c) && l.role == Role::Agent) else {
            return Some(Fault::AttemptGone);
        };
        let agent = attempt.agent.agent;
        // A talk goes on whose agent is not provisioned any more.
        let known = self.prov.agent(agent).is_some() && self.shared.look(agent).is_some();
        if known && leg.claim.as_ref().is_none_or(|claim| claim.agent != agent) {
            return Some(Fault::ClaimGone);
        }
        match attempt.pre {
            Preagent::Hearing(message) if !self.has(c, message) => Some(Fault::BriefingGone),
            _ => None,
        }
    }

    fn fault_of_timers(&self, call: &Call) -> Option<Fault> {
        let timers = [call.media_timer, call.progress_timer, call.glare_timer, call.onhold_timer];
        if timers.into_iter().flatten().any(|timer| self.ep.timer_due(timer).is_none()) {
            return Some(Fault::CallTimerGone);
        }
        let limited = call.flow.dissuading_onhold_th > 0 && call.flow.message_dissuading.is_some();
        let waits = call.state == CallState::Queued && call.wait.is_some();
        (limited && waits && call.onhold_timer.is_none()).then_some(Fault::HoldUnlimited)
    }

    fn fault_of_link(&self, c: Key, call: &Call) -> Option<Fault> {
        let caller = self.legs.get(call.caller)?;
        let broken = match call.link {
            Link::Fresh => caller.inbound.is_none_or(|i| i.answered),
            Link::Acking(_) => caller.inbound.is_none_or(|i| !i.answered),
            Link::Offering { .. } => caller.invite.is_none_or(|i| i.purpose != Purpose::Link),
            Link::Linked(End::Leg(far)) => !self.has(c, far),
            Link::Linked(End::Silence) | Link::Loose => false,
        };
        if broken {
            return Some(Fault::LinkBroken);
        }
        let agent_waits = call.glare_timer.is_none()
            && call
                .moving()
                .and_then(|agent| self.legs.get(agent))
                .is_some_and(|l| l.invite_idle() && !l.offer_pending());
        (agent_waits || self.link_step(c).is_some()).then_some(Fault::LinkIdle)
    }
}
