//! Agents come, change, log in and out, and go. Any handle may do any of this at any time; of two updates of one agent at once the later
//! handed in wins.

use crate::{
    AgentRef, AgentSpec, Full, Handle, Match, SkillId,
    agent::{Change, State},
    slot::Spec,
};

impl Handle {
    /// A new agent, offline.
    ///
    /// # Errors
    /// [`Full`] when the table is full or a skill is beyond its limit.
    pub fn add_agent(&mut self, spec: AgentSpec<'_>) -> Result<AgentRef, Full> {
        self.make_skills(&spec)?;
        let slot = self.dispatch().pop_agent_slot().ok_or(Full::Agents)?;
        let cell = self.dispatch().agents.get(slot).ok_or(Full::Agents)?;
        cell.hand_in(Spec::new(&spec, cell.state.load().gen_()));
        let gen_ = cell.state.transition_to_added();
        self.with_late(|op, late| op.settle(slot, late));
        Ok(AgentRef { slot, gen_ })
    }

    /// Skills and slots gained and lost; a chance to match that comes with them is taken. A call that the agent has goes on. Returns false, and
    /// changes nothing, when the agent is stale or retired or a skill is beyond the limit.
    pub fn update_agent(&mut self, agent: AgentRef, spec: AgentSpec<'_>, out: &mut Vec<Match>) -> bool {
        self.take_late(out);
        if self.make_skills(&spec).is_err() {
            return false;
        }
        let op = self.op();
        let Some(cell) = op.d.agents.get(agent.slot) else { return false };
        let word = cell.state.load();
        if !word.is_of(agent.gen_) || word.retired() {
            return false;
        }
        let spec = Spec::new(&spec, agent.gen_);
        if State::at_rest(word) && cell.spec(&op.pin).is_some_and(|now| now.same(&spec)) {
            return true;
        }
        cell.hand_in(spec);
        drop(op);
        self.change(agent, out, |state| state.transition_to_updated(agent.gen_))
    }

    /// The agent is gone from the provisioning: it serves what it has to the end, and nothing new. Its slot is used again after its last
    /// release, with a new generation. See also [`take_late`](Handle::take_late).
    pub fn retire_agent(&mut self, agent: AgentRef) {
        self.change_late(agent, |state| state.transition_to_retired(agent.gen_));
    }

    /// A retired agent that serves its last call is provisioned again, logged out, under the same reference: a second one would be
    /// offered calls while the first still talks. Returns false, and changes nothing, when it is not retired or gone already, or a skill
    /// is beyond the limit. See also [`take_late`](Handle::take_late).
    pub fn revive_agent(&mut self, agent: AgentRef, spec: AgentSpec<'_>) -> bool {
        if self.make_skills(&spec).is_err() {
            return false;
        }
        let Some(cell) = self.dispatch().agents.get(agent.slot) else { return false };
        let word = cell.state.load();
        if word.gen_() != agent.gen_ || !word.retired() {
            return false;
        }
        cell.hand_in(Spec::new(&spec, agent.gen_));
        self.change_late(agent, |state| state.transition_to_revived(agent.gen_))
    }

    /// Logs the agent in: last in the idle order. True when it is logged in now, also if it was before; false when it is stale or retired.
    pub fn login(&mut self, agent: AgentRef, out: &mut Vec<Match>) -> bool {
        self.take_late(out);
        self.change(agent, out, |state| state.transition_to_logged_in(agent.gen_))
    }

    /// Logs the agent out; a call that it has goes on, no new one comes. False when it is stale or retired.
    /// See also [`take_late`](Handle::take_late).
    pub fn logout(&mut self, agent: AgentRef) -> bool {
        self.change_late(agent, |state| state.transition_to_logged_out(agent.gen_))
    }

    /// The agent's wrap-up is over, after a call or a chat. False when it was in none.
    pub fn wrapup_over(&mut self, agent: AgentRef, out: &mut Vec<Match>) -> bool {
        self.take_late(out);
        self.change(agent, out, |state| state.transition_to_wrapup_over(agent.gen_))
    }

    /// As the release of a chat by [`ChatWrapup`](crate::Release::ChatWrapup), or with `pause` by
    /// [`ChatRefused`](crate::Release::ChatRefused), once more: for whoever times wrap-ups and learns of that release from
    /// another thread, in case that an earlier wrap-up ended in between. False, and nothing done, when the agent is in a call or stale.
    /// See also [`take_late`](Handle::take_late).
    pub fn withhold(&mut self, agent: AgentRef, pause: bool) -> bool {
        self.change_late(agent, |state| state.transition_to_withheld(agent.gen_, pause))
    }

    /// The pause after a refused chat is over: of its slots one is withheld on. False when there was none.
    pub fn pause_over(&mut self, agent: AgentRef, out: &mut Vec<Match>) -> bool {
        self.take_late(out);
        self.change(agent, out, |state| state.transition_to_pause_over(agent.gen_))
    }

    /// A free or offline agent is put in wrap-up (as restored from the database at start). False, and nothing done, when it is in a call or
    /// chat, stale or retired. See also [`take_late`](Handle::take_late).
    pub fn begin_wrapup(&mut self, agent: AgentRef) -> bool {
        self.change_late(agent, |state| state.transition_to_wrapup(agent.gen_))
    }

    /// The agent's skills, in order of their ids; empty when the reference is stale.
    pub fn skills_of(&mut self, agent: AgentRef) -> Vec<SkillId> {
        let op = self.op();
        let Some(cell) = op.d.agents.get(agent.slot) else { return Vec::new() };
        let spec = cell.spec(&op.pin).filter(|_| cell.state.load().gen_() == agent.gen_);
        spec.map(|spec| spec.skills.to_vec()).unwrap_or_default()
    }

    fn make_skills(&self, spec: &AgentSpec<'_>) -> Result<(), Full> {
        let skills = &self.dispatch().index.skills;
        spec.skills.iter().try_for_each(|skill| skills.get_or_grow(skill.0).map(|_| ()).ok_or(Full::Skills))
    }

    /// Makes a change; settles the agent if it is in our hand then.
    pub(crate) fn change(
        &mut self,
        agent: AgentRef,
        out: &mut Vec<Match>,
        change: impl FnOnce(&State) -> Change,
    ) -> bool {
        let Some(cell) = self.dispatch().agents.get(agent.slot) else { return false };
        match change(&cell.state) {
            Change::Refused => false,
            Change::Left(_) => true,
            Change::Held(_) => {
                self.op().settle(agent.slot, out);
                true
            }
        }
    }

    pub(crate) fn change_late(&mut self, agent: AgentRef, change: impl FnOnce(&State) -> Change) -> bool {
        let mut late = Vec::new();
        let done = self.change(agent, &mut late, change);
        self.with_late(|_, matches| matches.append(&mut late));
        done
    }
}
