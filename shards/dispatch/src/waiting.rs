//! A waiting call's word: `waiting -> taken` and `waiting -> abandoned` are the same compare-and-swap, so a call has one winner.
//!
//! Who may touch what: the slots of a shard belong to its handle, which alone opens and frees them; `state` leaves `waiting` by
//! anybody's compare-and-swap; all else is written by the owner before it opens the slot and read by others only as of a
//! generation whose word they swap afterwards.
//!
//! Words and nodes are kept apart from the rest ([`WaitWord`], [`WaitCall`]) and close together: whoever leaves a long queue looks at
//! its neighbour's, and that should be in the processor's cache.

use std::ptr::{self, NonNull};

use crate::{
    AgentRef, Media, SkillId, WaitLook,
    set::{Entry, Node},
    sync::{
        AtomicPtr, AtomicU64, Ordering,
        plain::{self, AtomicU8, AtomicU32, Relaxed},
    },
};

/// Refusals that are remembered while the call waits, the latest ones.
pub(crate) const REFUSALS: usize = 3;

const STATE_SHIFT: u32 = 30;
const SLOT_MASK: u64 = (1 << STATE_SHIFT) - 1;
const GEN_SHIFT: u32 = 32;
const FREE: u64 = 0;
const WAITING: u64 = 1;
const TAKEN: u64 = 2;

/// Most agents that a wait word can name.
pub(crate) const MAX_AGENTS: u32 = 1 << STATE_SHIFT;

fn word(gen_: u32, state: u64, agent_slot: u32) -> u64 {
    u64::from(gen_) << GEN_SHIFT | state << STATE_SHIFT | u64::from(agent_slot)
}

fn gen_of(word: u64) -> u32 {
    (word >> GEN_SHIFT) as u32
}

fn state_of(word: u64) -> u64 {
    word >> STATE_SHIFT & 3
}

/// How a commit ended.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// The call is the agent's.
    Taken,
    /// It was taken or abandoned before.
    Gone,
}

#[derive(Debug, Default)]
pub(crate) struct WaitState(AtomicU64);

impl WaitState {
    pub(crate) fn is_waiting(&self, gen_: u32) -> bool {
        self.0.load(Ordering::Acquire) == word(gen_, WAITING, 0)
    }

    /// Generation and state.
    pub(crate) fn look(&self) -> (u32, WaitLook) {
        let seen = self.0.load(Ordering::Acquire);
        let state = match state_of(seen) {
            FREE => WaitLook::Free,
            WAITING => WaitLook::Waiting,
            _ => WaitLook::Taken((seen & SLOT_MASK) as u32),
        };
        (gen_of(seen), state)
    }

    pub(crate) fn is_free(&self) -> bool {
        state_of(self.0.load(Ordering::Acquire)) == FREE
    }

    /// Owner: the generation that the next opening will have.
    pub(crate) fn gen_(&self) -> u32 {
        gen_of(self.0.load(Ordering::Relaxed))
    }

    /// Owner: the call waits. Publishes what was written and linked before.
    pub(crate) fn transition_to_waiting(&self, gen_: u32) {
        self.0.store(word(gen_, WAITING, 0), Ordering::Release);
    }

    /// Anybody who has claimed the agent: gives the call to it.
    pub(crate) fn transition_to_taken(&self, gen_: u32, agent_slot: u32) -> Commit {
        let (from, to) = (word(gen_, WAITING, 0), word(gen_, TAKEN, agent_slot));
        match self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Commit::Taken,
            Err(_) => Commit::Gone,
        }
    }

    /// Owner: frees the entry when it is taken; `None` when stale or still waiting.
    pub(crate) fn transition_to_consumed(&self, gen_: u32) -> Option<u32> {
        let seen = self.0.load(Ordering::Acquire);
        if gen_of(seen) != gen_ || state_of(seen) != TAKEN {
            return None;
        }
        self.0.store(word(gen_.wrapping_add(1), FREE, 0), Ordering::Release);
        Some((seen & SLOT_MASK) as u32)
    }

    /// Owner: frees the entry if its call still waits; then the owner is to unlink it. False: it is taken, or stale.
    #[must_use]
    pub(crate) fn transition_to_abandoned(&self, gen_: u32) -> bool {
        let (from, to) = (word(gen_, WAITING, 0), word(gen_.wrapping_add(1), FREE, 0));
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// One waiting call: what decides, and where it is.
#[derive(Debug)]
pub(crate) struct WaitWord {
    pub(crate) state: WaitState,
    /// Its node in the set of its skill, while it waits.
    pub(crate) node: AtomicPtr<Node>,
}

impl Default for WaitWord {
    fn default() -> Self {
        Self { state: WaitState::default(), node: AtomicPtr::new(ptr::null_mut()) }
    }
}

impl WaitWord {
    /// The node of the call that waits here now. Whoever is pinned may look at it: it is retired after the call has left that state,
    /// and so after we have pinned.
    pub(crate) fn waiting_node(&self) -> Option<NonNull<Node>> {
        let seen = self.state.0.load(Ordering::Acquire);
        let node = self.node.load(Ordering::Acquire);
        // A node of a later generation was stored after the word of this one had changed, which we would see now.
        let still = state_of(seen) == WAITING && self.state.0.load(Ordering::Acquire) == seen;
        NonNull::new(node).filter(|_| still)
    }
}

/// One waiting call: what it is, in a cache line of its own.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct WaitCall {
    ticket: plain::AtomicU64,
    priority: AtomicU32,
    skill: AtomicU32,
    refused: [plain::AtomicU64; REFUSALS],
    refusals: AtomicU8,
    media: AtomicU8,
}

impl Default for WaitCall {
    fn default() -> Self {
        Self {
            ticket: plain::AtomicU64::new(0),
            priority: AtomicU32::new(0),
            skill: AtomicU32::new(0),
            refused: Default::default(),
            refusals: AtomicU8::new(0),
            media: AtomicU8::new(0),
        }
    }
}

impl WaitCall {
    /// Owner, before it opens the slot.
    pub(crate) fn describe(&self, entry: &Entry, skill: SkillId, media: Media, refused: &[AgentRef]) {
        self.priority.store(entry.rank, Relaxed);
        self.ticket.store(entry.order, Relaxed);
        self.skill.store(skill.0, Relaxed);
        self.media.store(media as u8, Relaxed);
        let latest = &refused[refused.len().saturating_sub(REFUSALS)..];
        for (place, agent) in self.refused.iter().zip(latest) {
            place.store(u64::from(agent.slot) << 32 | u64::from(agent.gen_), Relaxed);
        }
        self.refusals.store(latest.len() as u8, Relaxed);
    }

    /// Rank and order of the call's entry.
    pub(crate) fn place(&self) -> (u32, u64) {
        (self.priority.load(Relaxed), self.ticket.load(Relaxed))
    }

    pub(crate) fn skill(&self) -> SkillId {
        SkillId(self.skill.load(Relaxed))
    }

    pub(crate) fn media(&self) -> Media {
        if self.media.load(Relaxed) == Media::Audio as u8 { Media::Audio } else { Media::Chat }
    }

    /// The latest agents that refused the call.
    pub(crate) fn refused(&self) -> Refusals {
        let count = usize::from(self.refusals.load(Relaxed)).min(REFUSALS);
        let agents = std::array::from_fn(|i| {
            let packed = self.refused[i].load(Relaxed);
            AgentRef { slot: (packed >> 32) as u32, gen_: packed as u32 }
        });
        Refusals { agents, count }
    }
}

/// The agents that refused a call, as remembered.
pub(crate) struct Refusals {
    agents: [AgentRef; REFUSALS],
    count: usize,
}

impl std::ops::Deref for Refusals {
    type Target = [AgentRef];
    fn deref(&self) -> &[AgentRef] {
        &self.agents[..self.count]
    }
}
