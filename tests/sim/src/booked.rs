//! What each agent has, by the offers and records seen: one audio call or several chats, and the wrap-ups after them
//! (call-center.md, "An agent handles at one time").

use crate::check::{LATE_US, Violation};
use crate::plan::SECOND;
use strowger_dispatch::{AgentRef, AgentState, AgentView, WaitRef};
use strowger_engine::cdr::{CallType, Cdr, CdrMedia};

/// How long an agent may stay taken after its call: until its phone has ended the dialog, a second at most.
const GRACE_US: u64 = SECOND + SECOND / 10;

/// Most chats of an agent in any plan.
const MOST_CHATS: u64 = 4;

/// The settings that say how long a wrap-up is.
#[derive(Debug, Default, Clone, Copy)]
pub struct WrapupRules {
    pub global_us: u64,
    pub reject_backoff_us: u64,
    /// An agent's hang-up before that is a refusal.
    pub min_talk_us: u64,
    /// How long the end of a chat may be on its way to the shard that times the agent's wrap-ups.
    pub way_us: u64,
}

impl WrapupRules {
    /// What follows a record: min(the agent's own or else the global one, the flow's ceiling); after a refusal never nothing.
    fn after(self, cdr: &Cdr) -> u64 {
        let Some(agent) = &cdr.agent else { return 0 };
        let own = if agent.wrapup_s > 0 { u64::from(agent.wrapup_s) * SECOND } else { self.global_us };
        let ceiling = u64::from(cdr.flow.max_wrapup_s) * SECOND;
        let wrapup = if ceiling > 0 { own.min(ceiling) } else { own };
        match cdr.call_type {
            CallType::Handled => wrapup,
            CallType::Rejected if wrapup == 0 => self.reject_backoff_us,
            CallType::Rejected => wrapup,
            CallType::Dropped | CallType::InternalError => 0,
        }
    }
}

/// A match that was made before its INVITE left.
#[derive(Debug, Clone, Copy)]
pub struct Decided {
    pub at: u64,
    /// Chats that the agent had then; they may be over when the INVITE leaves.
    pub beside: usize,
}

/// An agent, as seen.
#[derive(Debug, Default, Clone)]
pub struct Booked {
    /// The calls whose INVITEs went to it, until their attempts' records.
    pub calls: Vec<u32>,
    /// They are chats.
    pub chats: bool,
    /// When it was last seen with good reason to be taken.
    pub excused: u64,
    /// When the wrap-up after its last call ends: at the earliest, and at the latest.
    pub wraps_until: u64,
    pub wraps_until_last: u64,
    /// After a refused chat: nothing is offered until then.
    pub pauses_until: u64,
    pub paused_last: u64,
    /// Until then its client may still be ending a chat that has no wrap-up, and the agent be in chats.
    pub lingers_until: u64,
    /// When all know that its last attempt is over.
    pub known_from: u64,
    /// Matches on their way to their calls, the oldest first.
    pub pending: Vec<(WaitRef, Decided)>,
    /// When the match was made that has come to its call in this step.
    pub decided: Option<Decided>,
    /// The call to which a match had come when the process ended, before its INVITE left: its successor sends that.
    pub unsent: Option<(u32, Decided)>,
    /// Most chats at once.
    pub slots: u8,
    /// The last reload in which attempts with it may not have begun.
    excused_in: u64,
    /// Its reference; another one is another agent by the same name.
    pub known_as: Option<AgentRef>,
    /// In which step it became free, if it then went to the end of the order of idle agents.
    pub idle_since: Option<u64>,
    /// It has not just been what leads to the end of that order.
    holds_place: bool,
}

impl Booked {
    /// Call `call` is offered to it now. False: again.
    pub fn offer(&mut self, call: u32, chat: bool, now: u64) -> Result<bool, String> {
        if self.calls.contains(&call) {
            return Ok(false);
        }
        let open = self.calls.len();
        if open > 0 && !(chat && self.chats) {
            return Err(format!("is double-booked: {:?} not over, and c{call} is offered", self.calls));
        }
        let unsent = self.unsent.take_if(|(matched, _)| *matched == call).map(|(_, decided)| decided);
        let decided = unsent.or_else(|| self.decided_for(chat));
        let then = decided.map_or(now, |d| d.at);
        // Its wrap-ups are timed in one place, which may have ended an earlier one before it heard of the last.
        let known = match decided {
            // Made in the same moment, and maybe before that attempt was over.
            Some(_) => then > self.known_from,
            None => then >= self.known_from && self.pending.is_empty(),
        };
        let wraps = known && then < self.wraps_until;
        let lingers = chat && then < self.lingers_until;
        // Another chat may be its own whose call has not heard of it yet: then a wrap-up withholds one slot of several.
        let beside = decided.map_or(open, |d| d.beside);
        if wraps && open == 0 && !(chat && beside > 0) && !lingers {
            return Err(format!("is offered c{call} in its wrap-up, {} us too early", self.wraps_until - then));
        }
        if chat && known && then < self.pauses_until {
            return Err(format!("is offered c{call} {} us before its pause is over", self.pauses_until - then));
        }
        if chat && open.max(beside + usize::from(wraps)) >= usize::from(self.slots) {
            return Err(format!(
                "is offered c{call} beside {:?}, of {} slots, wraps up: {wraps}",
                self.calls, self.slots
            ));
        }
        self.calls.push(call);
        self.chats = chat;
        self.excused = now;
        Ok(true)
    }

    /// When the match for an offer of this step was made, if that was before the step. A call may find out by itself that it
    /// was matched; of several chats it is not known which did.
    pub fn decided_for(&self, chat: bool) -> Option<Decided> {
        let first = self.pending.first().filter(|_| !chat).map(|(_, decided)| *decided);
        self.decided.or(first)
    }

    /// The attempt of `call` has its record.
    pub fn ended(&mut self, call: u32, cdr: &Cdr, rules: WrapupRules, now: u64) -> Result<(), String> {
        let Some(n) = self.calls.iter().position(|c| *c == call) else {
            return Err(format!("record with an agent who was with {:?}", self.calls));
        };
        self.calls.swap_remove(n);
        (self.idle_since, self.holds_place) = (None, cdr.call_type != CallType::Handled);
        (self.excused, self.known_from) = (now, now + if self.chats { rules.way_us } else { 0 });
        let us = rules.after(cdr);
        if cdr.media == CdrMedia::Audio {
            (self.wraps_until, self.wraps_until_last) = (now + us, now + us);
        } else if us == 0 {
            self.lingers_until = now + GRACE_US + rules.way_us;
        } else {
            // The ends of chats add up where they are timed, and may come there late, and out of order.
            self.wraps_until = (self.wraps_until.max(now) + us).saturating_sub(rules.way_us);
            self.wraps_until_last = self.wraps_until_last.max(now) + us + rules.way_us;
            if cdr.call_type == CallType::Rejected {
                self.paused_last = now + rules.reject_backoff_us + rules.way_us;
                self.pauses_until = self.wraps_until.min((now + rules.reject_backoff_us).saturating_sub(rules.way_us));
            }
        }
        Ok(())
    }

    /// It may be in pauses for attempts that could not be begun: its address is gone by a reload. Those of chats add up.
    pub fn excuse_wrapup(&mut self, reload: u64, pause_us: u64, now: u64) {
        let most = MOST_CHATS * pause_us;
        if self.excused_in != reload {
            self.excused_in = reload;
            self.wraps_until_last += most;
        }
        self.wraps_until_last = self.wraps_until_last.max(now + most);
    }

    /// Its place in the order of idle agents is not known, until it next goes to the end.
    pub fn forget_place(&mut self) {
        (self.idle_since, self.holds_place) = (None, true);
    }

    /// Notes since when it is idle: after a talk, a wrap-up or a login it is the last of those who are.
    pub fn note_idle(&mut self, state: AgentState, step: u64) {
        match state {
            AgentState::Wrapup | AgentState::Offline => (self.idle_since, self.holds_place) = (None, false),
            AgentState::Free if !self.holds_place => {
                (self.idle_since, self.holds_place) = (Some(step), true);
            }
            // Matched in the moment in which it came free: if the match comes to nothing, that is its place.
            AgentState::InCall if !self.holds_place && !self.pending.is_empty() => {
                (self.idle_since, self.holds_place) = (Some(step), true);
            }
            _ => {}
        }
    }

    /// Who has another reference is another agent, of whom nothing is known.
    pub fn is_known_as(&mut self, agent: AgentRef) {
        if self.known_as != Some(agent) {
            self.known_as = Some(agent);
            (self.wraps_until, self.wraps_until_last, self.pauses_until, self.slots) = (0, 0, 0, 0);
        }
    }

    /// The agent's word is true. `in_flight`: a match, or the end of a chat, is on its way between shards.
    pub fn is_true(
        &mut self,
        n: u32,
        agent: AgentRef,
        view: AgentView,
        in_flight: bool,
        now: u64,
    ) -> Result<(), Violation> {
        self.is_known_as(agent);
        self.slots =
            if self.calls.is_empty() && !in_flight { view.chat_slots } else { self.slots.max(view.chat_slots) };
        let call = self.calls.first().copied();
        let wrong = |what: String| Err(Violation { what, call, agent: Some(n) });
        if view.state == AgentState::Wrapup && now > self.wraps_until_last + LATE_US && !in_flight {
            return wrong(format!("the wrap-up of a{n} should have ended {} us ago", now - self.wraps_until_last));
        }
        let taken = match view.state {
            AgentState::InCall => 1,
            AgentState::InChat => usize::from(view.chats_open),
            _ => 0,
        };
        if taken < self.calls.len() || (call.is_some() && self.chats != (view.state == AgentState::InChat)) {
            return wrong(format!("a{n} has {:?}, and is {view:?} by its word", self.calls));
        }
        if taken == self.calls.len() || in_flight {
            self.excused = now;
        }
        if now > self.excused + GRACE_US {
            return wrong(format!("agent a{n} is stuck: {view:?}, and has {:?}", self.calls));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_made_before_a_wrap_up_whose_invite_the_next_process_sends_is_no_offer_in_it() {
        let made = Decided { at: 10 * SECOND, beside: 1 };
        let wraps = Booked {
            wraps_until: 40 * SECOND,
            known_from: 11 * SECOND,
            unsent: Some((7, made)),
            slots: 2,
            ..Booked::default()
        };
        let now = 12 * SECOND;
        assert_eq!(wraps.clone().offer(7, true, now), Ok(true));
        // It excuses no other call, and no match that was made when the end before was known.
        assert!(wraps.clone().offer(8, true, now).unwrap_err().contains("in its wrap-up"));
        let later = Decided { at: 11 * SECOND + 1, beside: 0 };
        let mut known = Booked { unsent: Some((7, later)), ..wraps };
        assert!(known.offer(7, true, now).unwrap_err().contains("in its wrap-up"));
    }
}
