//! Dissuading: a caller who would wait too long, or has waited too long, hears `message_dissuading` (spec:
//! call-center.md, "A call's life" 3 and 5).
//!
//! Invariants
//! - A call in a dissuading state is not in the waiting set and has no agent; `media` is the message's leg.
//! - Only a flow that has the message dissuades, whatever its thresholds say.
//! - A call keeps its ticket: one that comes back goes before all that arrived later.

use crate::arena::Key;
use crate::books::Outcome;
use crate::call::{Link, Message};
use crate::control::CallState;
use crate::engine::{Engine, TimerKind};
use crate::provision::FlowDef;
use strowger_dispatch::Abandon;
use strowger_sip::time::Now;

/// Answer to a caller who was dissuaded by a message that could not be played.
const DISSUADED: u16 = 480;

impl Engine {
    /// The welcome is over, or there is none: the call is dissuaded, or goes on to an agent or the queue.
    pub(crate) fn after_welcome(&mut self, c: Key, now: Now) {
        if self.calls.get(c).is_some_and(|call| self.is_crowded(&call.flow)) {
            self.dissuade(c, now);
        } else {
            self.enter_queue(c, now);
        }
    }

    /// Whether a new call of the flow is to be dissuaded: all that the flow has waiting is ahead of it.
    fn is_crowded(&self, flow: &FlowDef) -> bool {
        if flow.message_dissuading.is_none() {
            return false;
        }
        let (size, wait) = (i64::from(flow.dissuading_qsize_th), i64::from(flow.dissuading_ewt_th));
        let ahead = self.stats.flow(flow.idx, |f| f.queued.get());
        #[cfg(mutant)]
        let size = if size > 0 { size + i64::from(strowger_dispatch::mutant::is("queue-size-exceeds")) } else { size };
        let estimate = || self.stats.estimated_wait_s(flow.idx, ahead, self.shared.logged_in(flow.skill));
        (size > 0 && ahead >= size) || (wait > 0 && estimate() > wait)
    }

    fn dissuade(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        call.queued = None;
        let state = if call.flow.dissuading_hangup { CallState::Dissuading2 } else { CallState::Dissuading1 };
        self.set_state(c, state);
        self.start_media(c, Message::Dissuading, now);
    }

    /// The message hung up, or could not be played.
    pub(crate) fn after_dissuading(&mut self, c: Key, now: Now) {
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("dissuading-hangup-ignored") {
            self.enter_queue(c, now);
            return;
        }
        let Some(call) = self.calls.get(c) else { return };
        if call.state == CallState::Dissuading2 {
            let code = if call.link == Link::Fresh { DISSUADED } else { 0 };
            self.end_call(c, Outcome::Dissuaded, code, now);
        } else {
            self.enter_queue(c, now);
        }
    }

    /// The call has entered the queue: `dissuading_onhold_th` counts from now.
    pub(crate) fn limit_onhold(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        let limit_us = u64::from(call.flow.dissuading_onhold_th) * 1_000_000;
        #[cfg(mutant)]
        let limit_us = if strowger_dispatch::mutant::is("onhold-limit-late") { limit_us * 2 } else { limit_us };
        if limit_us > 0 && call.flow.message_dissuading.is_some() {
            let timer = self.ep.start_timer(now.mono.plus_us(limit_us), c.to_u64(), TimerKind::Onhold as u8);
            if let Some(old) = call.onhold_timer.replace(timer) {
                self.ep.stop_timer(old);
            }
        }
    }

    /// The call has waited too long. An agent who was given to it at this very moment goes before the message.
    pub(crate) fn on_onhold_over(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        call.onhold_timer = None;
        let Some(wait) = call.wait else { return };
        self.forget_wait(c);
        if let Abandon::Taken(agent) = self.abandon(wait) {
            self.start_attempt(c, agent, now.mono, now);
            return;
        }
        self.fade_music(c, now);
        self.dissuade(c, now);
    }
}
