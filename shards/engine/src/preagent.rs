//! `message_flow_id`: the agent is called first and hears it, then is connected to the caller (spec: sip.md, "preagent";
//! RFC 3725 section 4.1, flow I).
//!
//! The agent's first offer goes to the message, its next one to the caller. A caller who has itself made an offer that is
//! not answered yet can only be given an answer to it (RFC 3264 section 4): then the agent is sent that offer.
//!
//! Invariants
//! - The message's leg belongs to the attempt ([`Preagent::Hearing`]) and goes with it.
//! - Until the bridge nothing that the agent does counts as an answer: its hang-up is a rejection.

use crate::arena::Key;
use crate::attempts::Refusal;
use crate::body::Body;
use crate::call::{Call, End, Link, Mode, Preagent};
use crate::control::CallState;
use crate::engine::{Engine, TimerKind};
use crate::leg::{OutInvite, Purpose, Role};
use crate::link::GLARE_OWN_US;
use strowger_sip::msg::Message;
use strowger_sip::time::{Mono, Now};

/// How long the message's server may take to answer, in units of T1: the agent, whose 2xx waits for its ACK meanwhile,
/// gives up after 64 (RFC 3261 section 13.3.1.4).
const ANSWER_T1: u64 = 32;

impl Call {
    /// The agent's leg and the one of the message that it hears.
    pub(crate) fn hearing(&self) -> Option<(Key, Key)> {
        match self.attempt.as_ref() {
            Some(attempt) if let Preagent::Hearing(message) = attempt.pre => Some((attempt.leg, message)),
            _ => None,
        }
    }

    /// The leg of an agent who is between the message and the caller.
    pub(crate) fn moving(&self) -> Option<Key> {
        self.attempt.as_ref().filter(|a| a.pre == Preagent::Moving).map(|a| a.leg)
    }

    fn set_pre(&mut self, pre: Preagent) {
        if let Some(attempt) = self.attempt.as_mut() {
            attempt.pre = pre;
        }
    }
}

impl Engine {
    /// The agent has answered with its offer: the message is called with it.
    pub(crate) fn start_flow_message(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get(c) else { return };
        let Some(agent) = call.attempt.as_ref().map(|a| a.leg) else { return };
        let uri = call.flow.message_flow_id.clone().unwrap_or_default();
        let Some(leg) = self.open_leg(c, Role::FlowMessage, uri.as_bytes(), Some(agent), Mono(0), now) else {
            self.on_flow_message_failed(c, now);
            return;
        };
        let due = now.mono.plus_us(self.cfg.endpoint.t1_us * ANSWER_T1);
        let timer = self.ep.start_timer(due, leg.to_u64(), TimerKind::Ring as u8);
        if let Some(leg) = self.legs.get_mut(leg) {
            leg.timer = Some(timer);
        }
        let Some(call) = self.calls.get_mut(c) else { return };
        call.set_pre(Preagent::Hearing(leg));
        if call.link == Link::Fresh {
            self.repeat_progress(c, now);
        }
    }

    /// The message's 2xx has come: its answer goes to the agent.
    pub(crate) fn on_flow_message_answered(&mut self, c: Key, leg: Key, now: Now) {
        if let Some(timer) = self.legs.get_mut(leg).and_then(|l| l.timer.take()) {
            self.ep.stop_timer(timer);
        }
        if self.legs.get(leg).is_none_or(|l| l.remote.is_none()) {
            self.let_go(leg, now);
            self.on_flow_message_failed(c, now);
            return;
        }
        if let Some((agent, message)) = self.calls.get(c).and_then(Call::hearing) {
            self.ack_owed(agent, End::Leg(message), now);
        }
        self.drive_link(c, now);
    }

    /// The message cannot be played: it is skipped.
    pub(crate) fn on_flow_message_failed(&mut self, c: Key, now: Now) {
        self.shard_counts().media_failures.add(1);
        self.flow_message_over(c, now);
    }

    /// The message is over, its leg gone: the agent is moved to the caller.
    pub(crate) fn flow_message_over(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        let Some(agent) = call.attempt.as_ref().map(|a| a.leg) else { return };
        call.set_pre(Preagent::Moving);
        self.set_state(c, CallState::ToAgent);
        if self.legs.get(agent).is_some_and(|l| l.owes_ack.is_some()) {
            // It heard nothing, and its offer is still open: for the caller, unless that has made one as well.
            if self.unanswered_offer(c).is_some() {
                self.ack_held(agent, now);
                // The re-INVITE must not overtake that ACK, or the phone has two offers at once.
                self.pause_invites(c, self.cfg.endpoint.t1_us, now);
            } else if let Some(call) = self.calls.get_mut(c) {
                call.set_pre(Preagent::Done);
            }
        }
        self.drive_link(c, now);
    }

    /// The caller's leg while its INVITE, which carried an offer, is not answered.
    fn unanswered_offer(&self, c: Key) -> Option<Key> {
        let call = self.calls.get(c).filter(|call| call.link == Link::Fresh)?;
        self.legs.get(call.caller).is_some_and(|l| l.remote.is_some()).then_some(call.caller)
    }

    /// Asks an agent who is between the message and the caller for an offer, when it can be asked.
    pub(crate) fn drive_agent(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get(c).filter(|call| call.glare_timer.is_none()) else { return };
        let Some(agent) = call.moving() else { return };
        if self.legs.get(agent).is_some_and(|l| l.invite_idle() && !l.offer_pending()) {
            let offer = self.unanswered_offer(c);
            let purpose = Purpose::Bridge { offered: offer.is_some() };
            if let Some(attempt) = self.calls.get_mut(c).and_then(|call| call.attempt.as_mut()) {
                attempt.mode = if offer.is_some() { Mode::Caller } else { Mode::Delayed };
            }
            self.reinvite(agent, purpose, offer.map(End::Leg), now);
        }
    }

    /// The agent's final answer to the re-INVITE that moves it to the caller.
    pub(crate) fn on_agent_moved(
        &mut self,
        key: Key,
        invite: OutInvite,
        offered: bool,
        code: u16,
        msg: Option<&Message<'_>>,
        now: Now,
    ) {
        let call = self.leg_call(key).filter(|c| self.calls.get(*c).and_then(Call::moving) == Some(key));
        if (200..300).contains(&code) {
            self.take_move(key, invite, offered, call, msg, now);
            return;
        }
        let Some(c) = call else { return };
        match code {
            491 => self.pause_for_glare(c, GLARE_OWN_US, now),
            // It was cancelled for having no final answer in time.
            487 => self.reject(c, Refusal::NoAnswer, now),
            _ => self.reject(c, Refusal::of(code), now),
        }
    }

    /// The agent accepted; an offer in its answer waits for the caller's, or is refused when nobody is there for it.
    fn take_move(
        &mut self,
        key: Key,
        invite: OutInvite,
        offered: bool,
        call: Option<Key>,
        msg: Option<&Message<'_>>,
        now: Now,
    ) {
        let body = msg.and_then(Body::of);
        let medium = call.and_then(|c| self.calls.get(c)).map(|call| call.medium);
        let usable = medium.is_some() && body.as_ref().and_then(|b| b.media()) == medium;
        let Some(leg) = self.legs.get_mut(key) else { return };
        let offers = body.is_some() && !offered;
        if body.is_some() {
            leg.remote = body.into();
        }
        if usable && offers {
            leg.owes_ack = Some((invite.txn, invite.cseq));
        } else {
            self.send_ack(key, invite.txn, invite.cseq, offers.then_some(End::Silence), now);
        }
        let Some(c) = call else { return };
        if !usable {
            self.reject(c, Refusal::Refused(488), now);
            return;
        }
        if let Some(call) = self.calls.get_mut(c) {
            call.set_pre(Preagent::Done);
        }
        self.drive_link(c, now);
    }
}
