//! Looks at agents and at the waiting set: the shared tables against what this shard has.

use super::{Fault, Found, mark};
use crate::arena::Key;
use crate::control::home_shard;
use crate::engine::Engine;
use strowger_dispatch::{AgentLook, AgentRef, WaitLook, WaitRef};

impl Engine {
    pub(super) fn look_at_agent(&mut self, slot: u32, closely: bool) -> Option<Found> {
        self.look_at_holds(slot).or_else(|| self.look_at_word(slot, closely))
    }

    /// What this shard itself has of an agent.
    fn look_at_holds(&self, slot: u32) -> Option<Found> {
        let counts = self.stats.shard(self.shard).agents.peek(slot);
        let (held, timed) = counts.map_or((0, 0), |c| (c.held.get(), c.timed.get()));
        let holders = self.holders.get(slot as usize).map_or(&[][..], |h| h);
        let sound = holders.iter().filter(|leg| self.holds(**leg, slot)).count();
        if sound != holders.len() || sound as i64 != held {
            return Some((Fault::HoldsMiscounted, mark(&[sound as u64, holders.len() as u64, held as u64])));
        }
        if timed == 0 {
            return None;
        }
        let running = |w: &crate::agents::Wrapup| self.ep.timer_due(w.timer).is_some();
        let wrapup = self.wrapups.get(&u64::from(slot));
        (!wrapup.is_some_and(running)).then(|| (Fault::WrapupTimerGone, mark(&[wrapup.map_or(0, |w| w.until.0)])))
    }

    /// Whether this leg has a claim on the agent in that slot.
    pub(super) fn holds(&self, leg: Key, slot: u32) -> bool {
        self.legs.get(leg).and_then(|l| l.claim.as_ref()).is_some_and(|claim| claim.agent.slot == slot)
    }

    /// The word of an agent whose home is here.
    fn look_at_word(&mut self, slot: u32, closely: bool) -> Option<Found> {
        let agent = self.agent_at(slot)?;
        if home_shard(agent, self.cfg.buckets.shards()) != self.shard {
            return None;
        }
        let look = self.shared.look(agent).filter(|l| l.at_rest)?;
        let claims = if look.claims > 0 { self.fault_of_claims(agent, look, closely) } else { None };
        if let Some(fault) = claims {
            return Some((fault, look.mark));
        }
        if look.wraps && self.stats.agent(slot, |c| c.timed.get()) == 0 && (!closely || self.still(agent, look)) {
            return Some(match self.stats.board.at(slot).chats_on_their_way() {
                0 => (Fault::WrapupUntimed, look.mark),
                n => (Fault::ChatEndLost, mark(&[look.mark, u64::from(n)])),
            });
        }
        if look.claims == 0 && look.owner.is_some() && self.held(agent) == 0 {
            return Some((Fault::OwnerWrong, look.mark));
        }
        let waits = |skill| self.shared.queue_len(skill) > 0;
        let wanted = self.prov.agent(agent).is_some_and(|def| def.skills.iter().any(|skill| waits(*skill)));
        (wanted && self.dispatch.misses_a_call(agent)).then_some((Fault::MatchMissed, look.mark))
    }

    /// The agent in a slot of the table, as this shard knows it.
    pub(super) fn agent_at(&self, slot: u32) -> Option<AgentRef> {
        self.prov.agents.get(slot as usize)?.as_ref().map(|def| def.agent)
    }

    /// Claims on the agent that all shards say to have.
    pub(super) fn held(&self, agent: AgentRef) -> i64 {
        self.stats.agent(agent.slot, |c| c.held.get())
    }

    /// Whether nothing has happened to the agent since that look.
    fn still(&self, agent: AgentRef, look: AgentLook) -> bool {
        self.shared.look(agent).is_some_and(|now| now.mark == look.mark)
    }

    /// The claims in the agent's word against those that shards hold. `closely`: exact, by the order of the reads (see the module).
    fn fault_of_claims(&self, agent: AgentRef, look: AgentLook, closely: bool) -> Option<Fault> {
        let (claims, held) = (i64::from(look.claims), self.held(agent));
        let unheld = || !closely || self.unheld(agent, look).is_some_and(|n| n > 0);
        if claims > held {
            return unheld().then_some(Fault::AgentUnheld);
        }
        // Of an audio call, and of chats of which the table has none, the legs say so themselves.
        let fewer = claims < held && !look.in_call && (!closely || self.still(agent, look));
        fewer.then_some(Fault::AgentUndercounted)
    }

    /// How many claims more the agent's word had at that look than shards hold, or fewer. `None` when it was in somebody's hand or is
    /// another by now: then nothing can be said.
    pub(super) fn unheld(&self, agent: AgentRef, look: AgentLook) -> Option<i64> {
        let taken = i64::from(self.shared.taken_by(agent));
        let unheld = i64::from(look.claims) - taken - self.held(agent);
        (look.at_rest && self.still(agent, look)).then_some(unheld)
    }

    /// A wait slot of this shard.
    pub(super) fn look_at_entry(&self, slot: u32) -> Option<Found> {
        let key = self.waiting.get(slot as usize).copied().flatten();
        let wait = key.and_then(|key| self.calls.get(key)).and_then(|call| call.wait);
        let number = key.map_or(0, Key::to_u64);
        let Some((gen_, state)) = self.shared.look_at_wait(self.shard, slot) else {
            return key.map(|_| (Fault::EntryOrphaned, number));
        };
        let had = wait == Some(WaitRef { shard: self.shard, slot, gen_ });
        match state {
            // A call that believes to wait here speaks for itself.
            WaitLook::Free if key.is_none() || wait.is_some_and(|w| w.slot == slot) => None,
            WaitLook::Waiting if had => None,
            WaitLook::Taken(_) if had => Some((Fault::MatchLost, mark(&[number, u64::from(gen_)]))),
            WaitLook::Free | WaitLook::Waiting | WaitLook::Taken(_) => {
                Some((Fault::EntryOrphaned, mark(&[number, u64::from(gen_)])))
            }
        }
    }
}
