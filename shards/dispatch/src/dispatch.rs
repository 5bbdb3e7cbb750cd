//! What all shards share, and what can be read without a handle.
//!
//! Who may touch what: `agents` by the rules of `agent.rs`, `waiting[s]` by those of `waiting.rs` (slots opened by shard `s`'s handle
//! alone), `index` by those of `index.rs`. `free_agents` is a stack of vacant agent slots, popped and pushed by anybody, with a tag against ABA.
//! `dispatching` is read after the fence of each operation, so that whoever switches it on and then matches all misses nobody.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::{
    AgentRef, AgentView, ChatPolicy, Handle, Limits, Shard, SkillId, WaitRef,
    index::{Counts, Index},
    reclaim::Reclaim,
    segments::Segments,
    slot::AgentSlot,
    sync::{
        AtomicBool, Ordering,
        plain::{self, AtomicU32, AtomicU64, Relaxed},
    },
    waiting::{MAX_AGENTS, WaitCall, WaitWord},
};

/// The agent table, the waiting calls and their index. Shared in an `Arc`; worked on through a [`Handle`] per shard.
pub struct Dispatch {
    pub(crate) policy: ChatPolicy,
    pub(crate) agents: Segments<AgentSlot>,
    pub(crate) waiting: Box<[ShardWaiting]>,
    pub(crate) index: Index,
    dispatching: AtomicBool,
    /// Next place in the idle order.
    order: CachePadded<AtomicU64>,
    tickets: CachePadded<AtomicU64>,
    /// Tag in the upper half, slot + 1 in the lower; 0 there: empty.
    free_agents: AtomicU64,
    /// Agent slots that were ever used.
    used_agents: AtomicU32,
    /// Last, so that what retired objects count down lives until they are gone.
    pub(crate) reclaim: Reclaim,
}

/// The wait slots of one shard: each an index into both tables.
pub(crate) struct ShardWaiting {
    pub(crate) words: Segments<WaitWord>,
    pub(crate) calls: Segments<WaitCall>,
    /// A handle for this shard lives.
    pub(crate) handled: plain::AtomicBool,
}

impl Dispatch {
    /// Empty tables; dispatching is on.
    pub fn new(limits: Limits, policy: ChatPolicy) -> Self {
        let shard = |_| ShardWaiting {
            words: Segments::new(limits.waiting_per_shard),
            calls: Segments::new(limits.waiting_per_shard),
            handled: plain::AtomicBool::new(false),
        };
        Self {
            policy,
            agents: Segments::new(limits.agents.min(MAX_AGENTS)),
            waiting: (0..limits.shards).map(shard).collect(),
            index: Index::new(limits.skills),
            dispatching: AtomicBool::new(true),
            order: CachePadded::default(),
            tickets: CachePadded::default(),
            free_agents: AtomicU64::new(0),
            used_agents: AtomicU32::new(0),
            reclaim: Reclaim::new(usize::from(limits.shards) + 1),
        }
    }

    /// The handle of a shard, one at a time. Control planes take the number [`Limits::shards`], as many as they like; these cannot `wait`.
    ///
    /// # Panics
    /// When a handle of this shard lives, or the number is beyond the limit: a fault of the program.
    pub fn handle(self: &Arc<Self>, shard: Shard) -> Handle {
        Handle::new(Arc::clone(self), shard)
    }

    /// Agents of the skill that are logged in. O(1), relaxed, exact at rest.
    pub fn logged_in(&self, skill: SkillId) -> u32 {
        self.index.skill(skill).map_or(0, |s| Counts::read(&s.counts.on_duty))
    }

    /// Agents of the skill that are wholly free (no call, no chat, no wrap-up). O(1), relaxed, exact at rest.
    pub fn free(&self, skill: SkillId) -> u32 {
        self.index.skill(skill).map_or(0, |s| Counts::read(&s.counts.free))
    }

    /// As [`logged_in`](Self::logged_in), over all agents.
    pub fn logged_in_total(&self) -> u32 {
        Counts::read(&self.index.total.on_duty)
    }

    /// As [`free`](Self::free), over all agents.
    pub fn free_total(&self) -> u32 {
        Counts::read(&self.index.total.free)
    }

    /// Calls and chats that wait for the skill. O(1), relaxed, exact at rest.
    pub fn queue_len(&self, skill: SkillId) -> u32 {
        self.index.skill(skill).map_or(0, crate::index::Skill::queue_len)
    }

    /// Switches internal dispatching. While off nothing matches but by [`Handle::claim`]; after switching on call [`Handle::match_all`].
    pub fn set_dispatching(&self, on: bool) {
        self.dispatching.store(on, Ordering::Release);
    }

    /// Whether calls and agents are matched.
    pub fn dispatching(&self) -> bool {
        self.dispatching.load(Ordering::Acquire)
    }

    /// The order of arrival over all shards.
    pub fn next_ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Relaxed)
    }

    /// Lets the order of arrival go on behind `ticket`, which a call has that came before a restart.
    pub fn pass_ticket(&self, ticket: u64) {
        self.tickets.fetch_max(ticket.saturating_add(1), Relaxed);
    }

    /// An agent as it is now; `None` when the reference is stale.
    pub fn agent(&self, agent: AgentRef) -> Option<AgentView> {
        self.agents.get(agent.slot)?.view(agent)
    }

    /// Notes who owns the agent's call, for lists and audits.
    pub fn set_owner(&self, agent: AgentRef, owner: Option<(Shard, u64)>) {
        if let Some(slot) = self.agents.get(agent.slot).filter(|s| s.state.load().is_of(agent.gen_)) {
            slot.set_owner(owner);
        }
    }

    /// Objects that wait to be freed. 0 at rest after each handle has [collected](Handle::collect): nothing leaks.
    pub fn garbage(&self) -> usize {
        self.reclaim.garbage()
    }

    pub(crate) fn next_order(&self) -> u64 {
        self.order.fetch_add(1, Relaxed)
    }

    #[inline]
    pub(crate) fn wait_word(&self, wait: WaitRef) -> Option<&WaitWord> {
        self.waiting.get(usize::from(wait.shard))?.words.get(wait.slot)
    }

    /// Of a slot that was ever opened.
    pub(crate) fn wait_call(&self, wait: WaitRef) -> Option<&WaitCall> {
        self.waiting.get(usize::from(wait.shard))?.calls.get(wait.slot)
    }

    /// A vacant agent slot: one given back, or a new one.
    pub(crate) fn pop_agent_slot(&self) -> Option<u32> {
        let mut top = self.free_agents.load(plain::Ordering::Acquire);
        while let Some(slot) = (top as u32).checked_sub(1) {
            let below = self.agents.get(slot)?.next_free.load(Relaxed);
            let next = (top >> 32).wrapping_add(1) << 32 | u64::from(below);
            match self.free_agents.compare_exchange(top, next, plain::Ordering::AcqRel, plain::Ordering::Acquire) {
                Ok(_) => return Some(slot),
                Err(now) => top = now,
            }
        }
        let limit = self.agents.limit();
        let slot = self.used_agents.try_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).ok()?;
        self.agents.get_or_grow(slot).map(|_| slot)
    }

    /// Gives a vacant slot back.
    pub(crate) fn push_agent_slot(&self, slot: u32) {
        let Some(cell) = self.agents.get(slot) else { return };
        let mut top = self.free_agents.load(plain::Ordering::Acquire);
        loop {
            cell.next_free.store(top as u32, Relaxed);
            let next = (top >> 32).wrapping_add(1) << 32 | u64::from(slot + 1);
            match self.free_agents.compare_exchange(top, next, plain::Ordering::AcqRel, plain::Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatch").field("policy", &self.policy).finish_non_exhaustive()
    }
}
