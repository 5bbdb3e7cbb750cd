//! Trying agents: the queue entry, the INVITE to the agent, its answer or refusal, and the way back to the queue.

use crate::arena::Key;
use crate::audit::What;
use crate::books::Outcome;
use crate::call::{Attempt, End, Link, Message, Mode, Preagent};
use crate::config::AgentOffer;
use crate::control::{AgentReport, CallState, ChatOver};
use crate::engine::{Engine, TimerKind};
use crate::leg::{Claim, Phase, Purpose, Role};
use strowger_dispatch::{AgentRef, Media, WaitRef, WaitSpec};
use strowger_sip::sdp::Sdp;
use strowger_sip::time::{Mono, Now};

/// Attempts that may fail by our own or the caller's side before the call is given up.
pub(crate) const MAX_ERRORS: u8 = 3;
const MAX_REDIRECTS: u8 = 5;
/// Least pause after a refusal, microseconds. A refusal may come at once (no address, a socket that does not take it):
/// without a pause the same agent would be tried again and again within one turn, and the shard do nothing else.
const LEAST_BACKOFF_US: u64 = 10_000;

/// Why an agent did not take a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A final answer, or a hang-up at once.
    Refused(u16),
    /// Nobody answered in time.
    NoAnswer,
}

impl Refusal {
    /// What a final answer means; 408 is also what a timeout counts as.
    pub(crate) fn of(code: u16) -> Refusal {
        if code == 408 { Refusal::NoAnswer } else { Refusal::Refused(code) }
    }
}

/// Agents that are remembered as having refused a call.
const REFUSED_KEPT: usize = 8;

/// Remembers who refused last, each once: one who refuses again and again must not take the others' places.
fn remember(refused: &mut Vec<AgentRef>, agent: AgentRef) {
    refused.retain(|a| *a != agent);
    if refused.len() >= REFUSED_KEPT {
        refused.remove(0);
    }
    refused.push(agent);
}

impl Engine {
    /// The call asks for an agent: taken at once when one is available, else it waits in its place, with music.
    pub(crate) fn enter_queue(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get(c) else { return };
        let spec = WaitSpec {
            media: call.medium,
            skill: call.flow.skill,
            priority: call.flow.priority,
            ticket: call.ticket,
            refused: &call.refused,
        };
        #[cfg(mutant)]
        let spec = if call.rejected > 0 && strowger_dispatch::mutant::is("place-lost-after-refusal") {
            WaitSpec { ticket: u64::MAX >> 1, ..spec }
        } else {
            spec
        };
        let joined = self.dispatch.wait(spec, &mut self.made);
        self.deliver(now.mono);
        let Ok(wait) = joined else {
            self.end_call(c, Outcome::Error, self.cfg.call.refusals.internal, now);
            return;
        };
        self.note_wait(c, wait);
        self.remember(c, What::Queued, wait.slot as u16);
        if let Some(call) = self.calls.get_mut(c) {
            call.queued = Some(now);
        }
        if self.dispatch.is_waiting(wait) {
            self.set_state(c, CallState::Queued);
            self.limit_onhold(c, now);
            self.want_music(c, now);
        }
    }

    /// The call has this entry in the waiting set.
    pub(crate) fn note_wait(&mut self, c: Key, wait: WaitRef) {
        let slot = wait.slot as usize;
        if self.waiting.len() <= slot {
            self.waiting.resize(slot + 1, None);
        }
        self.waiting[slot] = Some(c);
        if let Some(call) = self.calls.get_mut(c) {
            call.wait = Some(wait);
        }
    }

    /// Starts the flow's music for a caller who hears nothing.
    pub(crate) fn want_music(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        if call.media.is_some() || call.media_timer.is_some() {
            return;
        }
        let tells = self.cfg.call.queue_pos_param.is_some() && call.wait.is_some();
        if call.fading.is_some() && !tells {
            // The music that was to make way for a message that failed plays on.
            call.media = call.fading.take();
            call.message = Message::Queue;
            self.drive_link(c, now);
        } else {
            self.start_media(c, Message::Queue, now);
            // Until then the old music is what there is, for a caller who was moved from it, or has refused to be.
            self.drive_link(c, now);
        }
    }

    /// An agent has been claimed for this call (`since`: when it came free).
    pub(crate) fn start_attempt(&mut self, c: Key, agent: AgentRef, since: Mono, now: Now) {
        let Some(def) = self.prov.agent(agent).cloned() else {
            self.attempt_unknown(c, agent, now);
            return;
        };
        let Some(call) = self.calls.get(c) else { return };
        let (medium, flow) = (call.medium, call.flow.clone());
        let (state, mode, pre) = if flow.message_flow_id.is_some() {
            (CallState::Preagent, Mode::Delayed, Preagent::Ringing)
        } else {
            (CallState::ToAgent, self.offer_mode(c), Preagent::Off)
        };
        self.set_state(c, state);
        self.remember(c, What::Offered, agent.slot as u16);
        let uri = def.address(medium).unwrap_or_default();
        let claim = Claim { agent, def: def.clone(), medium, flow: flow.clone(), plan: None };
        let attempt = |leg| Attempt {
            leg,
            agent: def.clone(),
            mode,
            pre,
            other_mode: false,
            redirects: 0,
            offered: now,
            answered: None,
            bridged: false,
            corrected: false,
        };
        if medium == Media::Audio {
            self.shared.set_owner(agent, Some((self.shard, c.to_u64())));
        }
        let Some(leg) = self.open_leg(c, Role::Agent, uri.as_bytes(), self.offered_to(c, mode), since, now) else {
            self.attempt_unsendable(c, claim, now);
            return;
        };
        let ring = self.ep.start_timer(
            now.mono.plus_us(self.cfg.call.agent_ring_timeout_us),
            leg.to_u64(),
            TimerKind::Ring as u8,
        );
        if let Some(l) = self.legs.get_mut(leg) {
            l.timer = Some(ring);
        }
        self.put_claim(leg, Box::new(claim));
        let Some(call) = self.calls.get_mut(c) else { return };
        call.attempt = Some(Box::new(attempt(leg)));
        call.queued = None;
        call.stranded = None;
        call.rang = false;
        let param = call.words.param().map(Box::from);
        let alone = call.link == Link::Loose;
        if let Some(call) = self.calls.get(c) {
            self.count_distributed(call, &def);
        }
        match medium {
            Media::Audio => self.report_call(&def, AgentReport::InCall { flow: Some(flow) }, param, now),
            Media::Chat => self.report_chats(&def, Some(&flow), param, now),
        }
        if alone {
            self.want_music(c, now);
        }
    }

    /// A reload has brought the agent, it has logged in by its phone at another shard, and this one has not heard of the reload
    /// yet. Released as free it would be matched with the same call at once, and again, within one turn: it is tried a pause later.
    fn attempt_unknown(&mut self, c: Key, agent: AgentRef, now: Now) {
        let Some(call) = self.calls.get(c) else { return };
        let pause_us = self.backoff_us();
        match call.medium {
            Media::Audio => {
                self.release_to_wrapup(agent, pause_us, now);
            }
            Media::Chat => {
                let over = ChatOver { agent, report: None, wrapup_us: pause_us, pause_us, ended: now.mono };
                self.tell_chat_over(over, now);
            }
        }
        self.enter_queue(c, now);
    }

    /// No INVITE can be written: the agent has lost its location by a reload, or the caller's own fields leave no room
    /// for ours. As the fault may be the caller's, it ends the call before that has tried every agent for ever.
    fn attempt_unsendable(&mut self, c: Key, claim: Claim, now: Now) {
        self.shard_counts().internal_errors.add(1);
        let agent = claim.agent;
        match claim.medium {
            Media::Audio => self.begin_wrapup(&claim, self.backoff_us(), now),
            Media::Chat => self.end_chat(claim, self.backoff_us(), self.backoff_us(), now),
        }
        let Some(call) = self.calls.get_mut(c) else { return };
        call.errors += 1;
        remember(&mut call.refused, agent);
        if call.errors >= MAX_ERRORS {
            self.end_call(c, Outcome::Error, self.cfg.call.refusals.internal, now);
        } else {
            self.enter_queue(c, now);
        }
    }

    /// Whose description the INVITE to the agent carries.
    fn offered_to(&self, c: Key, mode: Mode) -> Option<Key> {
        self.calls.get(c).filter(|_| mode == Mode::Caller).map(|call| call.caller)
    }

    /// Pause after a refusal.
    pub(crate) fn backoff_us(&self) -> u64 {
        self.cfg.call.reject_backoff_us.max(LEAST_BACKOFF_US)
    }

    /// What the INVITE to the agent carries (spec: sip.md).
    fn offer_mode(&self, c: Key) -> Mode {
        let Some(call) = self.calls.get(c) else { return Mode::Delayed };
        let Some(body) = self.legs.get(call.caller).and_then(|l| l.remote.as_ref()) else { return Mode::Delayed };
        if call.link == Link::Fresh {
            // The caller's own offer, unanswered: it passes as it is ("Straight to an agent").
            return Mode::Caller;
        }
        match call.flow.agent_offer.unwrap_or(self.cfg.call.agent_offer) {
            AgentOffer::Caller => Mode::Caller,
            AgentOffer::Delayed => Mode::Delayed,
            AgentOffer::Auto => {
                let delayed = Sdp::parse(body.sdp()).is_ok_and(|s| s.answer_cannot_offer());
                if delayed { Mode::Delayed } else { Mode::Caller }
            }
        }
    }

    /// The agent's phone rings.
    pub(crate) fn on_agent_ringing(&mut self, c: Key, code: u16, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        if call.link == Link::Fresh && !call.rang && code >= 180 {
            call.rang = true;
            let caller = call.caller;
            self.answer_progress(caller, 180, now);
        }
    }

    /// The agent's 2xx has come; its leg is confirmed or owes the ACK.
    pub(crate) fn on_agent_answered(&mut self, c: Key, leg: Key, now: Now) {
        if let Some(timer) = self.legs.get_mut(leg).and_then(|l| l.timer.take()) {
            self.ep.stop_timer(timer);
        }
        if self.legs.get(leg).is_none_or(|l| l.remote.is_none()) {
            self.reject(c, Refusal::Refused(488), now);
            return;
        }
        let Some(attempt) = self.calls.get(c).and_then(|call| call.attempt.as_ref()) else { return };
        let agent = attempt.agent.agent;
        if self.stats.board.at(agent.slot).misses() > 0 {
            self.stats.board.at(agent.slot).clear_misses();
            self.notes.agent(agent);
        }
        let Some(attempt) = self.calls.get(c).and_then(|call| call.attempt.as_ref()) else { return };
        let pre = attempt.pre;
        self.remember(c, What::Answered, 0);
        match pre {
            Preagent::Ringing => self.start_flow_message(c, now),
            Preagent::Off => {
                self.note_answered(c, now);
                self.drive_link(c, now);
            }
            Preagent::Hearing(_) | Preagent::Moving | Preagent::Done => self.drive_link(c, now),
        }
    }

    /// The call counts as answered from now on. A second answer to the same attempt (other offer mode) keeps the
    /// first one's time.
    pub(crate) fn note_answered(&mut self, c: Key, now: Now) {
        let Some(attempt) = self.calls.get_mut(c).and_then(|call| call.attempt.as_mut()) else { return };
        if attempt.answered.is_some() {
            return;
        }
        attempt.answered = Some(now);
        if let Some(call) = self.calls.get(c)
            && let Some(attempt) = &call.attempt
        {
            self.count_answered(call, attempt, 1);
        }
    }

    /// The agent's final answer was no, or none came (`code` 408), or its dialog ended before the talk.
    pub(crate) fn on_agent_failed(&mut self, c: Key, leg: Key, code: u16, contact: Option<Vec<u8>>, now: Now) {
        if let Some(uri) = contact
            && (300..400).contains(&code)
            && self.cfg.call.follow_redirects
            && self.redirect(c, leg, &uri, now)
        {
            return;
        }
        self.reject(c, Refusal::of(code), now);
    }

    /// Follows a 3xx with the same claim. False: no more.
    fn redirect(&mut self, c: Key, leg: Key, uri: &[u8], now: Now) -> bool {
        let Some(attempt) = self.calls.get_mut(c).and_then(|call| call.attempt.as_mut()) else { return false };
        if attempt.redirects >= MAX_REDIRECTS {
            return false;
        }
        attempt.redirects += 1;
        let mode = attempt.mode;
        self.swap_agent_leg(c, leg, uri, mode, now)
    }

    /// Calls the same agent again on a new dialog; the claim moves over.
    pub(crate) fn swap_agent_leg(&mut self, c: Key, old: Key, uri: &[u8], mode: Mode, now: Now) -> bool {
        // The BYE goes first: a phone with one line must be free for the new INVITE.
        let claim = self.take_claim(old);
        self.let_go(old, now);
        let Some(leg) = self.open_leg(c, Role::Agent, uri, self.offered_to(c, mode), Mono(0), now) else {
            if let Some(claim) = claim {
                self.put_claim(old, claim);
            }
            return false;
        };
        let ring = self.ep.start_timer(
            now.mono.plus_us(self.cfg.call.agent_ring_timeout_us),
            leg.to_u64(),
            TimerKind::Ring as u8,
        );
        if let Some(l) = self.legs.get_mut(leg) {
            l.timer = Some(ring);
        }
        if let Some(claim) = claim {
            self.put_claim(leg, claim);
        }
        if let Some(call) = self.calls.get_mut(c) {
            if let Some(attempt) = call.attempt.as_mut() {
                attempt.leg = leg;
                attempt.mode = mode;
            }
            if call.link == Link::Linked(End::Leg(old)) {
                call.link = Link::Loose;
            }
        }
        true
    }

    /// A re-INVITE that a provisional answer keeps open has no timer of its own (RFC 3261 section 17.1.1.2): a peer that
    /// dies then would be waited for without end. It is cancelled after 64*T1; without an answer to that the peer is gone.
    pub(crate) fn limit_reinvite(&mut self, leg: Key, now: Now) {
        let due = now.mono.plus_us(self.cfg.endpoint.t1_us * 64);
        let timer = self.ep.start_timer(due, leg.to_u64(), TimerKind::Ring as u8);
        let old = self.legs.get_mut(leg).and_then(|l| l.timer.replace(timer));
        if let Some(old) = old {
            self.ep.stop_timer(old);
        }
    }

    /// Ringing took too long.
    pub(crate) fn on_ring_timeout(&mut self, leg: Key, now: Now) {
        let Some(l) = self.legs.get_mut(leg) else { return };
        l.timer = None;
        if let Some(invite) = l.invite.filter(|i| i.purpose != Purpose::Initial) {
            self.ep.cancel(now.mono, invite.txn);
            return;
        }
        let (Some(c), role) = (l.call.filter(|_| l.phase == Phase::Trying), l.role) else { return };
        match role {
            Role::Media => {
                self.let_go(leg, now);
                self.on_media_failed(c, now);
            }
            Role::FlowMessage => {
                self.let_go(leg, now);
                self.on_flow_message_failed(c, now);
            }
            Role::Agent | Role::Caller => self.reject(c, Refusal::NoAnswer, now),
        }
    }

    /// The attempt counts as a rejection: record, wrap-up, and back into the queue with the original ticket.
    pub(crate) fn reject(&mut self, c: Key, refusal: Refusal, now: Now) {
        let cause = match refusal {
            Refusal::Refused(code) => code,
            Refusal::NoAnswer => 408,
        };
        self.remember(c, What::Refused, cause);
        self.write_cdr(c, Outcome::Rejected, cause, now);
        let Some(attempt) = self.take_attempt(c, now) else { return };
        if let Some(call) = self.calls.get_mut(c) {
            call.rejected += 1;
            remember(&mut call.refused, attempt.agent.agent);
        }
        if let Some(call) = self.calls.get(c) {
            self.count_answered(call, &attempt, -1);
        }
        let ceiling = self.calls.get(c).map_or(0, |call| call.flow.max_wrapup_s);
        self.end_refused_claim(attempt.leg, self.wrapup_us(attempt.agent.wrapup_s, ceiling), now);
        self.let_go(attempt.leg, now);
        if refusal == Refusal::NoAnswer {
            self.count_miss(attempt.agent.agent, now);
        }
        self.enter_queue(c, now);
    }

    fn count_miss(&mut self, agent: AgentRef, now: Now) {
        self.notes.agent(agent);
        let most = self.cfg.call.max_no_answer;
        if self.stats.board.at(agent.slot).miss() >= most && most > 0 {
            self.stats.board.at(agent.slot).clear_misses();
            self.log_agent(agent, false, now);
        }
    }

    /// The attempt failed by our own or the caller's side: record -1, the agent free without wrap-up, the caller
    /// waits on; after too many of these the call is given up.
    pub(crate) fn attempt_error(&mut self, c: Key, code: u16, now: Now) {
        self.shard_counts().internal_errors.add(1);
        let errors = self.calls.get(c).map_or(0, |call| call.errors);
        if errors + 1 >= MAX_ERRORS {
            self.end_call(c, Outcome::Error, code, now);
            return;
        }
        self.remember(c, What::Failed, code);
        self.write_cdr(c, Outcome::Error, code, now);
        let Some(attempt) = self.take_attempt(c, now) else { return };
        if let Some(call) = self.calls.get_mut(c) {
            call.errors += 1;
            remember(&mut call.refused, attempt.agent.agent);
        }
        if let Some(call) = self.calls.get(c) {
            self.count_answered(call, &attempt, -1);
        }
        self.end_claim(attempt.leg, 0, now);
        self.let_go(attempt.leg, now);
        self.enter_queue(c, now);
    }

    /// Removes the attempt, its message too; a caller who was connected to its agent stands alone now.
    pub(crate) fn take_attempt(&mut self, c: Key, now: Now) -> Option<Attempt> {
        let call = self.calls.get_mut(c)?;
        let attempt = call.attempt.take()?;
        if call.link == Link::Linked(End::Leg(attempt.leg)) {
            call.link = Link::Loose;
        }
        if let Preagent::Hearing(message) = attempt.pre {
            self.let_go(message, now);
        }
        Some(*attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_again_and_again_takes_nobodys_place() {
        let agent = |slot| AgentRef { slot, gen_: 0 };
        let mut refused = vec![];
        for slot in [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3] {
            remember(&mut refused, agent(slot));
        }
        assert_eq!(refused, [1, 2, 3].map(agent));
        (10..20).for_each(|slot| remember(&mut refused, agent(slot)));
        assert_eq!((refused.len(), refused.last()), (REFUSED_KEPT, Some(&agent(19))));
    }
}
