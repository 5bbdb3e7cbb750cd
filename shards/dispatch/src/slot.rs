//! An agent's slot: its state word (`agent.rs`), and what the holder of the agent keeps beside it.
//!
//! Who may touch what:
//! - `state`: anybody, by the transitions of `agent.rs`.
//! - `links`: the holder.
//! - `spec`: written by the holder, read by anybody under a pin. `pending`: a stack, pushed by anybody, emptied by the holder.
//! - `owner_*`: anybody, for lists and audits; decides nothing. `next_free`: whoever has the slot off the free list.

use std::ptr::{self, NonNull};

use crossbeam_utils::CachePadded;

use crate::{
    AgentRef, AgentSpec, AgentView, SkillId,
    agent::State,
    reclaim::Pin,
    set::Node,
    sync::{
        AtomicPtr, Ordering, UnsafeCell,
        plain::{self, AtomicU32, Relaxed},
    },
};

/// What an agent is provisioned with. Immutable once published; replaced whole.
#[derive(Debug)]
pub(crate) struct Spec {
    /// Sorted, no doubles.
    pub(crate) skills: Box<[SkillId]>,
    pub(crate) audio: bool,
    pub(crate) chat_slots: u8,
    /// The generation that it is meant for.
    gen_: u32,
    /// The one handed in before, while pending.
    next: *mut Spec,
}

impl Spec {
    pub(crate) fn new(spec: &AgentSpec<'_>, gen_: u32) -> Box<Spec> {
        let mut skills = spec.skills.to_vec();
        skills.sort_unstable();
        skills.dedup();
        let (skills, audio, chat_slots) = (skills.into(), spec.audio, spec.chat_slots);
        Box::new(Spec { skills, audio, chat_slots, gen_, next: ptr::null_mut() })
    }

    pub(crate) fn same(&self, other: &Spec) -> bool {
        (&self.skills, self.audio, self.chat_slots) == (&other.skills, other.audio, other.chat_slots)
    }
}

/// The agent's entries in the ordered sets, and what it is counted as.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Place in the order of idle agents.
    pub(crate) order: u64,
    /// The place before the last chat.
    pub(crate) former: u64,
    /// Rank and order under which it is linked for audio, for chat.
    pub(crate) audio: Option<(u32, u64)>,
    pub(crate) chat: Option<(u32, u64)>,
    pub(crate) counted_on_duty: bool,
    pub(crate) counted_free: bool,
    pub(crate) skills: Vec<SkillLink>,
}

#[derive(Debug)]
pub(crate) struct SkillLink {
    pub(crate) skill: SkillId,
    pub(crate) audio: Option<NonNull<Node>>,
    pub(crate) chat: Option<NonNull<Node>>,
}

const NO_OWNER: u32 = u32::MAX;

/// One agent. Two cache lines of its own: its word is swapped by any shard.
pub(crate) struct AgentSlot(CachePadded<AgentCell>);

pub(crate) struct AgentCell {
    pub(crate) state: State,
    spec: AtomicPtr<Spec>,
    pending: AtomicPtr<Spec>,
    links: UnsafeCell<Links>,
    pub(crate) next_free: AtomicU32,
    owner_shard: AtomicU32,
    owner_call: plain::AtomicU64,
}

// SAFETY: `links` holds raw nodes and is touched by the holder alone (see the top); specs are shared by epoch.
unsafe impl Send for AgentSlot {}
// SAFETY: as above.
unsafe impl Sync for AgentSlot {}

impl std::ops::Deref for AgentSlot {
    type Target = AgentCell;
    fn deref(&self) -> &AgentCell {
        &self.0
    }
}

impl Default for AgentSlot {
    /// Generation 0, in hand, as if recycled.
    fn default() -> Self {
        Self(CachePadded::new(AgentCell {
            state: State::vacant(),
            spec: AtomicPtr::new(ptr::null_mut()),
            pending: AtomicPtr::new(ptr::null_mut()),
            links: UnsafeCell::new(Links::default()),
            next_free: AtomicU32::new(0),
            owner_shard: AtomicU32::new(NO_OWNER),
            owner_call: plain::AtomicU64::new(0),
        }))
    }
}

impl AgentCell {
    /// # Safety
    /// The caller holds the agent, and the reference does not outlive the hold nor overlap another.
    #[inline]
    pub(crate) unsafe fn with_links<R>(&self, f: impl FnOnce(&mut Links) -> R) -> R {
        // SAFETY: by the caller; `HELD` is taken by an acquiring and given up by a releasing compare-and-swap.
        self.links.with_mut(|links| f(unsafe { &mut *links }))
    }

    /// What the agent is provisioned with; `None` while it is being made or unmade.
    #[inline]
    pub(crate) fn spec<'a>(&self, _pin: &'a Pin<'_>) -> Option<&'a Spec> {
        // SAFETY: published by Release, retired through the epoch, and the caller is pinned.
        unsafe { self.spec.load(Ordering::Acquire).as_ref() }
    }

    /// Hands in a new spec for the holder to take over at the next `RELINK`.
    pub(crate) fn hand_in(&self, spec: Box<Spec>) {
        let spec = Box::into_raw(spec);
        let mut top = self.pending.load(Ordering::Relaxed);
        loop {
            // SAFETY: ours until it is published.
            unsafe { (*spec).next = top };
            match self.pending.compare_exchange(top, spec, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Holder: the latest spec handed in for this generation; the others are dropped.
    pub(crate) fn take_pending(&self, gen_: u32) -> Option<Box<Spec>> {
        let mut latest = None;
        let mut next = self.pending.swap(ptr::null_mut(), Ordering::AcqRel);
        while !next.is_null() {
            // SAFETY: from `hand_in`; only the one who swapped the stack out has it.
            let spec = unsafe { Box::from_raw(next) };
            next = spec.next;
            if latest.is_none() && spec.gen_ == gen_ {
                latest = Some(spec);
            }
        }
        latest
    }

    /// Holder: puts the spec in place and retires the one before.
    pub(crate) fn install(&self, spec: Option<Box<Spec>>, pin: &Pin<'_>) {
        let old = self.spec.swap(spec.map_or(ptr::null_mut(), Box::into_raw), Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: from `Box::into_raw`, unreachable since the swap, retired here once.
            unsafe { pin.retire(move || drop(Box::from_raw(old))) };
        }
    }

    pub(crate) fn set_owner(&self, owner: Option<(u16, u64)>) {
        self.owner_call.store(owner.map_or(0, |o| o.1), Relaxed);
        self.owner_shard.store(owner.map_or(NO_OWNER, |o| u32::from(o.0)), Relaxed);
    }

    pub(crate) fn owner(&self) -> Option<(u16, u64)> {
        let shard = self.owner_shard.load(Relaxed);
        u16::try_from(shard).ok().map(|shard| (shard, self.owner_call.load(Relaxed)))
    }

    pub(crate) fn view(&self, agent: AgentRef) -> Option<AgentView> {
        let word = self.state.load();
        let in_use = word.is_of(agent.gen_);
        in_use.then(|| AgentView {
            logged_in: word.logged_in(),
            state: word.state(),
            chats_open: word.chats_open(),
            chat_slots: word.chats_allowed(),
            slot_withheld: word.withheld(),
            retired: word.retired(),
            owner: self.owner(),
        })
    }
}

impl Drop for AgentSlot {
    fn drop(&mut self) {
        drop(self.take_pending(0));
        let spec = self.spec.load(Ordering::Acquire);
        if !spec.is_null() {
            // SAFETY: made by `Box::into_raw`, never retired while it is in place; we have the slot to ourselves.
            drop(unsafe { Box::from_raw(spec) });
        }
    }
}
