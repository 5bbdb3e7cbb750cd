//! What audits see and mend: an agent's word, the wait slots, what a handle's own entry says.
//!
//! Who may touch what: this only reads, but for [`Handle::match_agent`], which changes nothing and settles.

use crate::{
    AgentRef, Dispatch, Handle, Match, Shard, WaitRef,
    agent::{State, Word},
};

/// An agent's word at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgentLook {
    /// Equal in two looks: no claim, release, login or wrap-up in between (but for a multiple of 32 claims).
    pub mark: u64,
    /// In nobody's hand: whatever was claimed before has been committed, or taken back.
    pub at_rest: bool,
    /// Releases that are due: one for a call, one for each chat.
    pub claims: u32,
    pub in_call: bool,
    /// In wrap-up, or with a chat slot withheld for one.
    pub wraps: bool,
    /// As [`AgentView::owner`](crate::AgentView::owner).
    pub owner: Option<(Shard, u64)>,
}

/// A wait slot at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitLook {
    Free,
    Waiting,
    /// By the agent in this slot; the owner has not consumed it yet.
    Taken(u32),
}

fn looked(word: Word, owner: Option<(Shard, u64)>) -> AgentLook {
    AgentLook {
        mark: word.bits(),
        at_rest: State::at_rest(word),
        claims: word.claims(),
        in_call: word.claims() > u32::from(word.chats_open()),
        wraps: word.wraps(),
        owner,
    }
}

impl Dispatch {
    /// An agent's word; `None` when the reference is stale.
    pub fn look(&self, agent: AgentRef) -> Option<AgentLook> {
        let slot = self.agents.get(agent.slot)?;
        let word = slot.state.load();
        word.is_of(agent.gen_).then(|| looked(word, slot.owner()))
    }

    /// Generation and state of a wait slot; `None` when it was never made.
    pub fn look_at_wait(&self, shard: Shard, slot: u32) -> Option<(u32, WaitLook)> {
        Some(self.wait_word(WaitRef { shard, slot, gen_: 0 })?.state.look())
    }

    /// Entries of all shards that this agent has taken and nobody has consumed. Looks at all wait slots. An entry that is consumed
    /// before it is looked at counts no more, and all that its owner wrote before is seen.
    pub fn taken_by(&self, agent: AgentRef) -> u32 {
        let taken = WaitLook::Taken(agent.slot);
        let all = self.waiting.iter().flat_map(|shard| shard.words.iter());
        u32::try_from(all.filter(|(_, word)| word.state.look().1 == taken).count()).unwrap_or(u32::MAX)
    }
}

impl Handle {
    /// The agent that [`take`](Self::take) would return.
    pub fn peek(&self, wait: WaitRef) -> Option<AgentRef> {
        let (gen_, state) = self.dispatch().look_at_wait(wait.shard, wait.slot)?;
        match state {
            WaitLook::Taken(slot) if gen_ == wait.gen_ => Some(self.claimed(slot)),
            _ => None,
        }
    }

    /// Wait slots of this shard that were ever used.
    pub fn wait_slots(&self) -> u32 {
        self.used()
    }

    /// Whether the agent is available, in nobody's hand, and a call waits that it could take: at rest never ("no lost match").
    pub fn misses_a_call(&mut self, agent: AgentRef) -> bool {
        let op = self.op();
        let Some(slot) = op.d.agents.get(agent.slot) else { return false };
        let word = slot.state.load();
        let idle = word.is_of(agent.gen_) && State::at_rest(word) && word.offers_any();
        idle && op.d.dispatching() && op.call_waits(slot, word)
    }

    /// Matches the agent with what waits for it, as after a release.
    pub fn match_agent(&mut self, agent: AgentRef, out: &mut Vec<Match>) {
        self.take_late(out);
        self.change(agent, out, |state| state.transition_to_looked_at(agent.gen_));
    }
}
