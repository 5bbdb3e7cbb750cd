//! Agents as this shard holds them: claims, releases, wrap-ups, logins; matches on their way to their calls.

use crate::arena::Key;
use crate::control::{AgentReport, MeshMsg, Output};
use crate::engine::{Engine, TimerKind};
use crate::leg::{Claim, Plan};
use std::sync::Arc;
use strowger_dispatch::{Abandon, AgentRef, AgentState, Match, Media, Release, WaitRef};
use strowger_sip::time::{Mono, Now};
use strowger_sip::wheel::TimerId;

/// A wrap-up that this shard times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrapup {
    pub agent: AgentRef,
    pub until: Mono,
    /// After a refused chat: until then nothing is offered to the agent.
    pub pause: Option<Mono>,
    pub timer: TimerId,
}

/// Longest time that an agent stays taken after its call, waiting for its phone to end the dialog, microseconds.
/// A phone that is dead answers nothing; the next call's ringing will find that out.
pub(crate) const RELEASE_GRACE_US: u64 = 1_000_000;

impl Engine {
    /// Wrap-up after a call of `flow`: the agent's own or else the global one, under the flow's ceiling. Microseconds.
    pub(crate) fn wrapup_us(&self, agent_s: u32, ceiling_s: u32) -> u64 {
        #[cfg(mutant)]
        let ceiling_s = if strowger_dispatch::mutant::is("wrapup-ceiling-ignored") { 0 } else { ceiling_s };
        let own = if agent_s > 0 { u64::from(agent_s) * 1_000_000 } else { self.cfg.call.wrapup_us };
        if ceiling_s > 0 { own.min(u64::from(ceiling_s) * 1_000_000) } else { own }
    }

    /// The attempt of `leg` is over: its agent goes into a wrap-up of `wrapup_us`, or with 0 is free as soon as
    /// its phone has ended the dialog.
    pub(crate) fn end_claim(&mut self, leg: Key, wrapup_us: u64, now: Now) {
        if wrapup_us > 0 {
            match self.take_claim(leg) {
                Some(claim) if claim.medium == Media::Chat => self.end_chat(*claim, wrapup_us, 0, now),
                Some(claim) => self.begin_wrapup(&claim, wrapup_us, now),
                None => {}
            }
        } else if let Some(claim) = self.legs.get_mut(leg).and_then(|l| l.claim.as_mut()) {
            claim.plan = Some(Plan::Free);
        }
    }

    /// As [`Engine::end_claim`], of an attempt that the agent refused: with a wrap-up of 0 a pause stands in for it.
    pub(crate) fn end_refused_claim(&mut self, leg: Key, wrapup_us: u64, now: Now) {
        let pause = self.backoff_us();
        let us = if wrapup_us == 0 { pause } else { wrapup_us };
        #[cfg(mutant)]
        let us = if strowger_dispatch::mutant::is("refusal-without-pause") { 1 } else { us };
        match self.take_claim(leg) {
            Some(claim) if claim.medium == Media::Chat => self.end_chat(*claim, us, pause, now),
            Some(claim) => self.begin_wrapup(&claim, us, now),
            None => {}
        }
    }

    /// Starts the wrap-up after an audio call.
    pub(crate) fn begin_wrapup(&mut self, claim: &Claim, us: u64, now: Now) {
        self.shared.set_owner(claim.agent, None);
        self.release_to_wrapup(claim.agent, us, now);
        // One who logged out during the call was reported offline then, and stays so.
        if self.shared.agent(claim.agent).is_some_and(|v| v.logged_in) {
            let ends = (now.unix_us + us) / 1_000_000;
            self.report(&claim.def.clone(), AgentReport::Wrapup { ends_unix_s: ends }, now);
        }
    }

    /// Releases an agent after an audio call into a wrap-up of `us`. It is timed before the table says so, and longer: whoever looks on
    /// (audits of other shards) never finds one that nobody times.
    pub(crate) fn release_to_wrapup(&mut self, agent: AgentRef, us: u64, now: Now) {
        self.time_wrapup(agent, now.mono.plus_us(us), None, now);
        self.shared_release(agent, Release::Wrapup, now.mono);
    }

    /// Times a wrap-up, from its beginning or anew.
    pub(crate) fn time_wrapup(&mut self, agent: AgentRef, until: Mono, pause: Option<Mono>, now: Now) {
        let token = Key { slot: agent.slot, generation: agent.gen_ }.to_u64();
        let due = pause.map_or(until, |pause| pause.min(until));
        let timer = self.ep.start_timer(due, token, TimerKind::Wrapup as u8);
        let board = self.stats.board.at(agent.slot);
        board.set_wrapup_ends(now.unix_of(until));
        board.set_pause_ends(pause.map_or(0, |pause| now.unix_of(pause)));
        self.notes.agent(agent);
        if let Some(old) = self.wrapups.insert(u64::from(agent.slot), Wrapup { agent, until, pause, timer }) {
            self.ep.stop_timer(old.timer);
        }
        self.stats.shard(self.shard).agents.at(agent.slot).timed.set(1);
    }

    /// A wrap-up's time is up, or that of the pause at its beginning.
    pub(crate) fn on_wrapup_over(&mut self, token: u64, now: Now) {
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("wrapup-never-ends") {
            return;
        }
        let key = Key::from_u64(token);
        let agent = AgentRef { slot: key.slot, gen_: key.generation };
        let due = self.wrapups.get(&u64::from(agent.slot)).filter(|w| w.agent == agent).copied();
        let Some(wrapup) = due else { return };
        self.wrapups.remove(&u64::from(agent.slot));
        self.notes.agent(agent);
        let mut made = std::mem::take(&mut self.made);
        if let Some(pause) = wrapup.pause.filter(|pause| *pause < wrapup.until) {
            self.dispatch.pause_over(agent, &mut made);
            self.made = made;
            self.time_wrapup(agent, wrapup.until, None, now);
            self.deliver(pause);
            return;
        }
        self.dispatch.wrapup_over(agent, &mut made);
        self.made = made;
        self.stats.shard(self.shard).agents.at(agent.slot).timed.set(0);
        if self.shared.agent(agent).is_some() {
            self.stats.board.at(agent.slot).set_wrapup_ends(0);
        }
        self.deliver(wrapup.until);
        self.report_idle(agent, now);
    }

    /// The agent that has taken this entry is the shard's now; the entry is free.
    pub(crate) fn consume(&mut self, wait: WaitRef) -> Option<AgentRef> {
        let agent = self.dispatch.peek(wait)?;
        self.count_held(agent, 1);
        self.dispatch.take(wait)
    }

    /// The entry is no more; an agent that has taken it is the shard's.
    pub(crate) fn abandon(&mut self, wait: WaitRef) -> Abandon {
        if self.dispatch.leave(wait) { Abandon::Left } else { self.consume(wait).map_or(Abandon::Left, Abandon::Taken) }
    }

    /// A claim of the process before, or one that the table has lost, is the shard's again: counted before it is claimed, as any.
    pub(crate) fn reclaim(&mut self, agent: AgentRef, medium: Media) -> bool {
        self.count_held(agent, 1);
        let reclaimed = self.dispatch.reclaim(agent, medium);
        self.dispatch.take_late(&mut self.made);
        if !reclaimed {
            self.count_held(agent, -1);
        }
        reclaimed
    }

    /// Claims that the shard has and must release, for audits.
    pub(crate) fn count_held(&self, agent: AgentRef, n: i64) {
        self.stats.shard(self.shard).agents.at(agent.slot).held.add(n);
    }

    /// The claim sits on this leg.
    pub(crate) fn put_claim(&mut self, leg: Key, claim: Box<Claim>) {
        let slot = claim.agent.slot as usize;
        let Some(l) = self.legs.get_mut(leg) else { return };
        l.claim = Some(claim);
        if self.holders.len() <= slot {
            self.holders.resize(slot + 1, Vec::new());
        }
        self.holders[slot].push(leg);
    }

    /// The claim of this leg, to be released or put on another.
    pub(crate) fn take_claim(&mut self, leg: Key) -> Option<Box<Claim>> {
        let claim = self.legs.get_mut(leg).filter(|l| l.claim.is_some())?.claim.take()?;
        if let Some(holders) = self.holders.get_mut(claim.agent.slot as usize) {
            holders.retain(|holder| *holder != leg);
        }
        Some(claim)
    }

    /// Gives an agent back, and what that makes possible is matched.
    pub(crate) fn shared_release(&mut self, agent: AgentRef, how: Release, since: Mono) {
        let mut made = std::mem::take(&mut self.made);
        let _ = self.dispatch.release(agent, how, &mut made);
        self.made = made;
        // Behind the release, as it is counted before the entry is consumed: the table never says more than the shards, but of
        // what is taken and not consumed.
        self.count_held(agent, -1);
        self.deliver(since);
    }

    /// A claim whose phone is idle again.
    pub(crate) fn free_claim(&mut self, claim: &Claim, now: Now) {
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("release-forgotten") && claim.medium == Media::Audio {
            return;
        }
        if claim.medium == Media::Chat {
            self.shared_release(claim.agent, Release::Chat, now.mono);
            self.report_chats(&claim.def, Some(&claim.flow), None, now);
            return;
        }
        self.shared.set_owner(claim.agent, None);
        self.shared_release(claim.agent, Release::Free, now.mono);
        self.report_idle(claim.agent, now);
    }

    /// Reports an agent that is free now, unless a new call has it already or it has logged out meanwhile.
    pub(crate) fn report_idle(&mut self, agent: AgentRef, now: Now) {
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
        let Some(agent) = self.consume(matched.wait) else { return };
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
        self.notes.agent(agent);
        let before = self.shared.agent(agent);
        let known = if on { self.dispatch.login(agent, &mut self.made) } else { self.dispatch.logout(agent) };
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("login-match-dropped") {
            self.made.clear();
        }
        // A logout may meet another shard's change of the same agent, and then it is the one that matches.
        self.dispatch.take_late(&mut self.made);
        if known {
            self.stats.board.at(agent.slot).set_commanded(Some(on));
        }
        if on {
            self.stats.board.at(agent.slot).clear_misses();
        }
        self.deliver(now.mono);
        if known && before.map(|v| v.logged_in) != Some(on) {
            self.report_login(&def, on, before.map(|v| v.state), now);
        }
        known
    }

    /// `before`: what the agent did until then.
    fn report_login(&mut self, def: &Arc<crate::AgentDef>, on: bool, before: Option<AgentState>, now: Now) {
        if !on {
            self.report(def, AgentReport::Offline, now);
            return;
        }
        let agent = def.agent;
        match self.shared.agent(agent).map(|v| v.state) {
            Some(AgentState::Free) => self.report(def, AgentReport::Free, now),
            Some(AgentState::Wrapup) => {
                let ends = self.stats.board.at(agent.slot).wrapup_ends() / 1_000_000;
                self.report(def, AgentReport::Wrapup { ends_unix_s: ends }, now);
            }
            // In a call that it had before. What it is given by this login reports itself.
            Some(AgentState::InCall) if before == Some(AgentState::InCall) => {
                self.report(def, AgentReport::InCall { flow: None }, now);
            }
            Some(AgentState::InChat) if before == Some(AgentState::InChat) => self.report_chats(def, None, None, now),
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
            self.time_wrapup(agent, now.mono.plus_us(left), None, now);
        }
    }
}
