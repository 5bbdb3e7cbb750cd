//! Agents as this shard holds them: claims, releases, wrap-ups, logins; matches on their way to their calls.

use crate::arena::Key;
use crate::control::{AgentReport, MeshMsg, Output};
use crate::engine::{Engine, TimerKind};
use crate::leg::{Claim, Plan};
use std::sync::Arc;
use strowger_dispatch::{AgentRef, AgentState, Match, Release};
use strowger_sip::time::{Mono, Now};
use strowger_sip::wheel::TimerId;

/// A wrap-up that this shard times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrapup {
    pub agent: AgentRef,
    pub until: Mono,
    pub timer: TimerId,
}

/// Longest time that an agent stays taken after its call, waiting for its phone to end the dialog, microseconds.
/// A phone that is dead answers nothing; the next call's ringing will find that out.
pub(crate) const RELEASE_GRACE_US: u64 = 1_000_000;

impl Engine {
    /// Wrap-up after a call of `flow`: the agent's own or else the global one, under the flow's ceiling. Microseconds.
    pub(crate) fn wrapup_us(&self, agent_s: u32, ceiling_s: u32) -> u64 {
        let own = if agent_s > 0 { u64::from(agent_s) * 1_000_000 } else { self.cfg.call.wrapup_us };
        if ceiling_s > 0 { own.min(u64::from(ceiling_s) * 1_000_000) } else { own }
    }

    /// The attempt of `leg` is over: its agent goes into a wrap-up of `wrapup_us`, or with 0 is free as soon as
    /// its phone has ended the dialog.
    pub(crate) fn end_claim(&mut self, leg: Key, wrapup_us: u64, now: Now) {
        if wrapup_us > 0 {
            let claim = self.legs.get_mut(leg).and_then(|l| l.claim.take());
            if let Some(claim) = claim {
                self.begin_wrapup(&claim, wrapup_us, now);
            }
        } else if let Some(claim) = self.legs.get_mut(leg).and_then(|l| l.claim.as_mut()) {
            claim.plan = Some(Plan::Free);
        }
    }

    /// Starts a wrap-up.
    fn begin_wrapup(&mut self, claim: &Claim, us: u64, now: Now) {
        self.shared.set_owner(claim.agent, None);
        self.shared_release(claim.agent, Release::Wrapup, now.mono);
        self.time_wrapup(claim.agent, us, now);
        // One who logged out during the call was reported offline then, and stays so.
        if self.shared.agent(claim.agent).is_some_and(|v| v.logged_in) {
            let ends = (now.unix_us + us) / 1_000_000;
            self.report(&claim.def.clone(), AgentReport::Wrapup { ends_unix_s: ends }, now);
        }
    }

    pub(crate) fn time_wrapup(&mut self, agent: AgentRef, us: u64, now: Now) {
        let until = now.mono.plus_us(us);
        let token = Key { slot: agent.slot, generation: agent.gen_ }.to_u64();
        let timer = self.ep.start_timer(until, token, TimerKind::Wrapup as u8);
        self.stats.board.at(agent.slot).set_wrapup_ends(now.unix_us + us);
        if let Some(old) = self.wrapups.insert(u64::from(agent.slot), Wrapup { agent, until, timer }) {
            self.ep.stop_timer(old.timer);
        }
    }

    /// A wrap-up's time is up.
    pub(crate) fn on_wrapup_over(&mut self, token: u64, now: Now) {
        let key = Key::from_u64(token);
        let agent = AgentRef { slot: key.slot, gen_: key.generation };
        let due = self.wrapups.get(&u64::from(agent.slot)).filter(|w| w.agent == agent).copied();
        let Some(wrapup) = due else { return };
        self.wrapups.remove(&u64::from(agent.slot));
        self.stats.board.at(agent.slot).set_wrapup_ends(0);
        let mut made = std::mem::take(&mut self.made);
        self.dispatch.wrapup_over(agent, &mut made);
        self.made = made;
        self.deliver(wrapup.until);
        self.report_idle(agent, now);
    }

    /// Gives an agent back, and what that makes possible is matched.
    pub(crate) fn shared_release(&mut self, agent: AgentRef, how: Release, since: Mono) {
        let mut made = std::mem::take(&mut self.made);
        let _ = self.dispatch.release(agent, how, &mut made);
        self.made = made;
        self.deliver(since);
    }

    /// A claim whose phone is idle again.
    pub(crate) fn free_claim(&mut self, claim: &Claim, now: Now) {
        self.shared.set_owner(claim.agent, None);
        self.shared_release(claim.agent, Release::Free, now.mono);
        self.report_idle(claim.agent, now);
    }

    /// Reports an agent that is free now, unless a new call has it already or it has logged out meanwhile.
    fn report_idle(&mut self, agent: AgentRef, now: Now) {
        let Some(def) = self.prov.agent(agent).cloned() else { return };
        if self.shared.agent(agent).is_some_and(|v| v.state == AgentState::Free) {
            self.report(&def, AgentReport::Free, now);
        }
    }

    /// Sends the matches just made to the shards of their calls.
    pub(crate) fn deliver(&mut self, since: Mono) {
        let mut made = std::mem::take(&mut self.made);
        for matched in made.drain(..) {
            if matched.wait.shard == self.shard {
                self.matches.push_back((matched, since));
            } else {
                let msg = MeshMsg::Matched { matched, since };
                self.outputs.push_back(Output::Mesh { to: matched.wait.shard, msg });
            }
        }
        self.made = made;
    }

    /// Works off the matches for calls of this shard until none is left.
    pub(crate) fn settle(&mut self, now: Now) {
        while let Some((matched, since)) = self.matches.pop_front() {
            self.on_matched(matched, since, now);
        }
    }

    /// A call of ours has got an agent, unless it left meanwhile.
    fn on_matched(&mut self, matched: Match, since: Mono, now: Now) {
        let Some(c) = self.waiting.get(matched.wait.slot as usize).copied().flatten() else { return };
        if self.calls.get(c).and_then(|call| call.wait) != Some(matched.wait) {
            return;
        }
        let Some(agent) = self.dispatch.take(matched.wait) else { return };
        self.forget_wait(c);
        self.start_attempt(c, agent, since, now);
    }

    /// The call is no longer in the waiting set.
    pub(crate) fn forget_wait(&mut self, c: Key) {
        let Some(call) = self.calls.get_mut(c) else { return };
        if let Some(entry) = call.wait.take().and_then(|wait| self.waiting.get_mut(wait.slot as usize)) {
            *entry = None;
        }
        if let Some(timer) = call.onhold_timer.take() {
            self.ep.stop_timer(timer);
        }
    }

    /// Logs an agent in or out. False: no such agent.
    pub(crate) fn log_agent(&mut self, agent: AgentRef, on: bool, now: Now) -> bool {
        let Some(def) = self.prov.agent(agent).cloned() else { return false };
        let before = self.shared.agent(agent).map(|v| v.logged_in);
        let known = if on { self.dispatch.login(agent, &mut self.made) } else { self.dispatch.logout(agent) };
        // A logout may meet another shard's change of the same agent, and then it is the one that matches.
        self.dispatch.take_late(&mut self.made);
        if on {
            self.stats.board.at(agent.slot).clear_misses();
        }
        self.deliver(now.mono);
        if known && before != Some(on) {
            self.report_login(agent, &def, on, now);
        }
        known
    }

    fn report_login(&mut self, agent: AgentRef, def: &Arc<crate::AgentDef>, on: bool, now: Now) {
        if !on {
            self.report(def, AgentReport::Offline, now);
            return;
        }
        match self.shared.agent(agent).map(|v| v.state) {
            Some(AgentState::Free) => self.report(def, AgentReport::Free, now),
            Some(AgentState::Wrapup) => {
                let ends = self.stats.board.at(agent.slot).wrapup_ends() / 1_000_000;
                self.report(def, AgentReport::Wrapup { ends_unix_s: ends }, now);
            }
            _ => {}
        }
    }

    /// A wrap-up that was running when the last process stopped.
    pub(crate) fn restore_wrapup(&mut self, agent: AgentRef, until_unix_us: u64, now: Now) {
        let left = until_unix_us.saturating_sub(now.unix_us);
        let begun = left > 0 && self.dispatch.begin_wrapup(agent);
        self.dispatch.take_late(&mut self.made);
        self.deliver(now.mono);
        if begun {
            self.time_wrapup(agent, left, now);
        }
    }
}
