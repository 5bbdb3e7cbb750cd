//! How calls and legs end: everything released, everything written, nothing left.

use crate::agents::RELEASE_GRACE_US;
use crate::arena::Key;
use crate::attempts::Refusal;
use crate::books::Outcome;
use crate::call::{End, Link};
use crate::control::CallState;
use crate::engine::{Engine, TimerKind};
use crate::leg::{Phase, Plan, Purpose, Role};
use strowger_dispatch::{Abandon, Release};
use strowger_sip::endpoint::ServerTxn;
use strowger_sip::msg::{Message, Method};
use strowger_sip::time::Now;

/// Answer to a request whose other side went away under way. Not 481, which would end the asker's own dialog with
/// us, too (RFC 5057 section 5.1).
const FAR_END_GONE: u16 = 500;

/// What the asker is told when the other side answered its relayed request with `code`.
pub(crate) fn relayed_code(code: u16) -> u16 {
    if matches!(code, 408 | 481) { FAR_END_GONE } else { code }
}

impl Engine {
    /// Ends a call. `outcome` is for a call that no agent answered; one that talked is `Handled` in any case but
    /// `Error`. `code` answers an INVITE of the caller that is still open, and is the record's cause.
    pub(crate) fn end_call(&mut self, c: Key, outcome: Outcome, code: u16, now: Now) {
        self.leave_queue(c, now);
        let Some(call) = self.calls.get(c) else { return };
        let answered = call.attempt.as_ref().is_some_and(|a| a.answered.is_some());
        let outcome = if answered && outcome != Outcome::Error { Outcome::Handled } else { outcome };
        self.write_cdr(c, outcome, code, now);
        if let Some(call) = self.calls.get(c) {
            match (outcome, &call.attempt) {
                (Outcome::Handled, Some(attempt)) => {
                    let talk = attempt.answered.map_or(0, |at| now.mono.since(at.mono));
                    self.count_talk(call, attempt, talk);
                }
                (Outcome::Error, Some(attempt)) => self.count_answered(call, attempt, -1),
                (Outcome::Abandoned, _) => self.count_abandoned(call),
                _ => {}
            }
        }
        self.set_state(c, CallState::Ended);
        self.drop_media(c, now);
        self.close_attempt(c, outcome, now);
        self.close_caller(c, code, now);
        if let Some(mut call) = self.calls.remove(c) {
            self.count_departure(&call);
            if let Some(timer) = call.glare_timer.take() {
                self.ep.stop_timer(timer);
            }
        }
    }

    /// Takes the call out of the waiting set; an agent that was given to it meanwhile goes back.
    pub(crate) fn leave_queue(&mut self, c: Key, now: Now) {
        let Some(wait) = self.calls.get(c).and_then(|call| call.wait) else { return };
        self.forget_wait(c);
        if let Abandon::Taken(agent) = self.abandon(wait) {
            #[cfg(mutant)]
            if strowger_dispatch::mutant::is("crossed-match-kept") {
                return;
            }
            self.shared_release(agent, Release::GiveBack, now.mono);
        }
    }

    /// After a talk the agent wraps up; one that only rang is free.
    fn close_attempt(&mut self, c: Key, outcome: Outcome, now: Now) {
        let ceiling = self.calls.get(c).map_or(0, |call| call.flow.max_wrapup_s);
        let Some(attempt) = self.take_attempt(c, now) else { return };
        let us = if outcome == Outcome::Handled { self.wrapup_us(attempt.agent.wrapup_s, ceiling) } else { 0 };
        #[cfg(mutant)]
        let us = if strowger_dispatch::mutant::is("wrapup-after-cancel") { us.max(1_000_000) } else { us };
        self.end_claim(attempt.leg, us, now);
        self.let_go(attempt.leg, now);
    }

    fn close_caller(&mut self, c: Key, code: u16, now: Now) {
        let Some(call) = self.calls.get(c) else { return };
        let (caller, fresh) = (call.caller, call.link == Link::Fresh);
        if fresh {
            if let Some(inbound) = self.legs.get_mut(caller).and_then(|l| l.inbound.take()) {
                let code = if code == 0 { 487 } else { code.max(400) };
                self.answer_final(caller, inbound.txn, code, now);
            }
            self.leg_gone(caller, now);
        } else {
            self.let_go(caller, now);
        }
    }

    /// The call no longer needs this leg: its dialog is ended, and the leg goes when that is done.
    pub(crate) fn let_go(&mut self, key: Key, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        leg.call = None;
        for timer in [leg.timer.take(), leg.session.timer.take()].into_iter().flatten() {
            self.ep.stop_timer(timer);
        }
        self.refuse_relayed(key, now);
        // Whatever offer of theirs is still open is refused, so that the BYE follows an ACK.
        self.ack_owed(key, End::Silence, now);
        let Some(leg) = self.legs.get_mut(key) else { return };
        match leg.phase {
            Phase::Trying => {
                leg.phase = Phase::Cancelled;
                if let Some(invite) = leg.invite {
                    self.ep.cancel(now.mono, invite.txn);
                }
            }
            Phase::AwaitAck => leg.phase = Phase::Closing,
            Phase::OwesAck | Phase::Confirmed => self.send_bye(key, now),
            Phase::Cancelled | Phase::Closing => {}
        }
        self.start_grace(key, now);
    }

    /// An agent whose phone does not end its dialog in time is released all the same.
    fn start_grace(&mut self, key: Key, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        if leg.claim.as_ref().is_some_and(|c| c.plan == Some(Plan::Free)) {
            let due = now.mono.plus_us(RELEASE_GRACE_US);
            let timer = self.ep.start_timer(due, key.to_u64(), TimerKind::Grace as u8);
            if let Some(old) = leg.timer.replace(timer) {
                self.ep.stop_timer(old);
            }
        }
    }

    pub(crate) fn on_grace_over(&mut self, key: Key, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        leg.timer = None;
        if let Some(claim) = self.take_claim(key) {
            self.free_claim(&claim, now);
        }
    }

    /// Requests of theirs that wait for the other side's answer get one now, and what this leg was asked for the
    /// other side is refused there.
    fn refuse_relayed(&mut self, key: Key, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        let (relays, pending) = (leg.relays.take(), leg.pending.take());
        let initial = leg.phase == Phase::Trying || leg.phase == Phase::AwaitAck;
        let inbound = if initial { None } else { leg.inbound.filter(|i| !i.answered) };
        if inbound.is_some() {
            leg.inbound = None;
        }
        let asked = match leg.invite {
            Some(invite) => match invite.purpose {
                Purpose::Relay { from, txn, .. } => Some((from, txn)),
                _ => None,
            },
            None => None,
        };
        if let Some(inbound) = inbound {
            self.answer_final(key, inbound.txn, 487, now);
        }
        for txn in pending {
            self.answer_final(key, txn, 487, now);
        }
        for relay in relays {
            self.ep.drop_user(now.mono, relay.out);
            if relay.offer
                && let Some(from) = self.legs.get_mut(relay.from)
            {
                from.proposed.take();
            }
            if self.take_pending(relay.from, relay.txn) {
                self.answer_final(relay.from, relay.txn, FAR_END_GONE, now);
            }
        }
        if let Some((from, txn)) = asked
            && self.take_inbound(from, txn)
        {
            self.answer_final(from, txn, FAR_END_GONE, now);
        }
    }

    /// Their unanswered INVITE `txn` is taken off the leg; false when it is not there any more.
    pub(crate) fn take_inbound(&mut self, key: Key, txn: ServerTxn) -> bool {
        match self.legs.get_mut(key) {
            Some(leg) if leg.inbound.is_some_and(|i| i.txn == txn && !i.answered) => {
                leg.inbound = None;
                leg.proposed.take();
                true
            }
            _ => false,
        }
    }

    /// The dialog is over: the leg and all that hangs on it go. Only a 2xx of ours that is not acknowledged yet keeps the
    /// bare leg, for it is repeated until its ACK whatever else happens (RFC 3261 section 13.3.1.4): without it the
    /// peer's INVITE might never get its final answer.
    pub(crate) fn leg_gone(&mut self, key: Key, now: Now) {
        self.refuse_relayed(key, now);
        let claim = self.take_claim(key);
        let Some(leg) = self.legs.get_mut(key) else { return };
        let timers = [leg.timer.take(), leg.session.timer.take()];
        let txns = [leg.invite.take().map(|i| i.txn), leg.bye.take(), leg.refresh.take(), leg.probe.take()];
        let owed = leg.owes_ack.take().map(|(txn, _)| txn);
        let unacknowledged = leg.inbound.is_some_and(|i| i.answered);
        if unacknowledged && !leg.over {
            leg.over = true;
            leg.call = None;
            leg.phase = Phase::Closing;
        } else {
            self.drop_leg(key);
        }
        for timer in timers.into_iter().flatten() {
            self.ep.stop_timer(timer);
        }
        for txn in txns.into_iter().chain([owed]).flatten() {
            self.ep.drop_user(now.mono, txn);
        }
        if let Some(claim) = claim {
            debug_assert!(claim.plan.is_some(), "an agent's leg went before its attempt was closed");
            self.free_claim(&claim, now);
        }
    }

    /// Removes a leg that nothing hangs on any more but a 2xx that is given up.
    pub(crate) fn drop_leg(&mut self, key: Key) {
        let Some(leg) = self.legs.remove(key) else { return };
        if !self.revived.is_empty() {
            // The losing branch of a fork has the same tag of ours: its leg goes, and the dialog that won stays known.
            let hash = self.tag_hash(leg.local_tag());
            if self.revived.get(&hash) == Some(&key) {
                self.revived.remove(&hash);
            }
        }
        if let Some(inbound) = leg.inbound.filter(|i| i.answered) {
            self.ep.acked(inbound.txn);
        }
    }

    /// The peer ended the dialog (BYE, 481, timeout): what that means for the call.
    pub(crate) fn on_peer_gone(&mut self, key: Key, code: u16, now: Now) {
        let Some(leg) = self.legs.get(key) else { return };
        let Some(c) = leg.call else {
            self.leg_gone(key, now);
            return;
        };
        match leg.role {
            // An unanswered INVITE gets its answer from `close_caller`.
            Role::Caller => {
                self.end_call(c, Outcome::Abandoned, code, now);
                self.leg_gone(key, now);
            }
            Role::Media => {
                self.leg_gone(key, now);
                self.on_media_ended(c, key, now);
            }
            Role::FlowMessage => {
                self.leg_gone(key, now);
                self.flow_message_over(c, now);
            }
            Role::Agent => self.on_agent_gone(c, key, code, now),
        }
    }

    /// A request with a tag of ours, for no dialog that is known: a hang-up may have overtaken the 2xx that makes its dialog.
    pub(crate) fn on_unmatched(&mut self, txn: ServerTxn, msg: &Message<'_>, now: Now) {
        let early = self.unanswered_leg_of(msg).filter(|_| msg.method() == Some(Method::Bye));
        #[cfg(mutant)]
        let early = early.filter(|_| !strowger_dispatch::mutant::is("early-hang-up-refused"));
        match early {
            Some(key) => self.on_early_bye(key, txn, now),
            None => self.refuse(txn, 481, b"", now),
        }
    }

    /// Whom our first INVITE calls has hung up before its 2xx has come here (RFC 3261 section 15 has it wait for our ACK, or for
    /// the end of its 2xx; what it sent may be lost, or late). The INVITE is cancelled, for nobody knows whether that 2xx will
    /// come at all; if it comes it gets its ACK, and the BYE that any answer gets which crosses a CANCEL: it may be another branch's.
    fn on_early_bye(&mut self, key: Key, txn: ServerTxn, now: Now) {
        self.ep.set_user(txn, key.to_u64());
        self.answer_final(key, txn, 200, now);
        let Some(leg) = self.legs.get(key) else { return };
        let Some(c) = leg.call else { return };
        match leg.role {
            Role::Agent => self.reject(c, Refusal::Refused(0), now),
            Role::Media | Role::FlowMessage | Role::Caller => self.drop_peer(key, 0, now),
        }
    }

    /// An agent's hang-up: of an answered call the end, within `min_talk_time` a rejection.
    fn on_agent_gone(&mut self, c: Key, key: Key, code: u16, now: Now) {
        let attempt = self.calls.get(c).and_then(|call| call.attempt.as_ref());
        let talked = attempt.is_some_and(|a| {
            a.bridged && a.answered.is_some_and(|at| now.mono.since(at.mono) >= self.cfg.call.min_talk_us)
        });
        #[cfg(mutant)]
        let talked = talked
            || strowger_dispatch::mutant::is("min-talk-ignored")
                && attempt.is_some_and(|a| a.bridged && a.answered.is_some());
        // Closing already, so that nothing is sent to a dialog that is gone.
        if let Some(leg) = self.legs.get_mut(key) {
            leg.phase = Phase::Closing;
        }
        if talked {
            self.end_call(c, Outcome::Handled, code, now);
        } else {
            self.reject(c, Refusal::Refused(code), now);
        }
        self.leg_gone(key, now);
    }
}
