//! A shard's way to the dispatch: the calls of its own that wait, and the release of agents.
//!
//! Who may touch what: a handle is one thread's at a time. `free` and `used` say which of the shard's wait slots are free; nobody else
//! opens or frees them. `late` holds matches made by operations that have no `out`.

use std::sync::Arc;

use crate::{
    Abandon, AgentRef, AgentState, Dispatch, Full, Match, Media, Release, Released, Shard, WaitRef, WaitSpec,
    agent::{Change, Word},
    matcher::Op,
    reclaim::Local,
    set::{Entry, Heights},
    sync::plain,
};

/// One per shard; see [`Dispatch::handle`]. May be moved to another thread, not shared.
pub struct Handle {
    /// Before `dispatch`: it unregisters from the collector there.
    local: Local,
    heights: Heights,
    shard: Shard,
    /// Free wait slots, the last used first; those from `used` on were never used.
    free: Vec<u32>,
    used: u32,
    late: Vec<Match>,
    dispatch: Arc<Dispatch>,
}

impl Handle {
    pub(crate) fn new(dispatch: Arc<Dispatch>, shard: Shard) -> Self {
        let shards = dispatch.waiting.len();
        assert!(usize::from(shard) <= shards, "shard {shard} is beyond the limit of {shards}");
        let mut free = Vec::new();
        let mut used = 0;
        if let Some(waiting) = dispatch.waiting.get(usize::from(shard)) {
            let handled = waiting.handled.swap(true, plain::Ordering::AcqRel);
            assert!(!handled, "a handle of shard {shard} lives");
            // Entries of a handle that was dropped with calls waiting stay out of use.
            free.extend(waiting.words.iter().filter(|(_, slot)| slot.state.is_free()).map(|(i, _)| i));
            free.reverse();
            used = waiting.words.iter().map(|(i, _)| i + 1).last().unwrap_or(0);
        }
        let local = dispatch.reclaim.register(usize::from(shard));
        Self { local, heights: Heights::new(u64::from(shard)), shard, free, used, late: Vec::new(), dispatch }
    }

    /// What the handle works on.
    pub fn dispatch(&self) -> &Arc<Dispatch> {
        &self.dispatch
    }

    /// Begins an operation: pins the epoch.
    #[inline]
    pub(crate) fn op(&mut self) -> Op<'_> {
        Op { d: &self.dispatch, pin: self.dispatch.reclaim.pin(&self.local), heights: &mut self.heights }
    }

    /// A call of this shard waits for an agent. It publishes itself, then available agents of its skill are each given their best waiting
    /// call, until this call has its agent or none can be had. `out` gets every match made, this call's own too.
    ///
    /// # Errors
    /// [`Full`] when the shard's waiting calls are at their limit (0 for a control plane's handle) or the skill is beyond its limit.
    pub fn wait(&mut self, spec: WaitSpec<'_>, out: &mut Vec<Match>) -> Result<WaitRef, Full> {
        self.take_late(out);
        if self.dispatch.index.skills.get_or_grow(spec.skill.0).is_none() {
            return Err(Full::Skills);
        }
        let slot = self.pop_wait_slot()?;
        let shard = self.shard;
        let id = u64::from(shard) << 32 | u64::from(slot);
        let entry = Entry { rank: spec.priority, gen_: 0, order: spec.ticket, id };
        let wait = self.op().enqueue(WaitRef { shard, slot, gen_: 0 }, entry, &spec, out);
        Ok(wait)
    }

    /// The caller left, or the call leaves the queue otherwise. Frees the entry either way; a `Match` for it that is still under way is stale.
    pub fn abandon(&mut self, wait: WaitRef) -> Abandon {
        if self.leave(wait) { Abandon::Left } else { self.take(wait).map_or(Abandon::Left, Abandon::Taken) }
    }

    /// As [`abandon`](Self::abandon), but an entry that is taken stays as it is, for [`take`](Self::take). False: it is taken, or stale.
    pub fn leave(&mut self, wait: WaitRef) -> bool {
        let left = wait.shard == self.shard && self.op().leave(wait);
        if left {
            self.free.push(wait.slot);
        }
        left
    }

    /// Consumes a match: the agent is the call's now, the entry is free. `None` when the reference is stale or the call still waits.
    /// Messages are only hints: to ask twice, or late, does no harm.
    pub fn take(&mut self, wait: WaitRef) -> Option<AgentRef> {
        if wait.shard != self.shard {
            return None;
        }
        let agent = self.dispatch.wait_word(wait)?.state.transition_to_consumed(wait.gen_)?;
        self.free.push(wait.slot);
        Some(self.claimed(agent))
    }

    /// A call or chat that had this agent before a restart has it again: logged in or not, in wrap-up or not. It ends in a
    /// [`release`](Self::release) as every claim. False, and nothing done, when the agent is stale or its slot has an owner.
    /// See also [`take_late`](Self::take_late).
    pub fn reclaim(&mut self, agent: AgentRef, media: Media) -> bool {
        self.change_late(agent, |state| state.transition_to_reclaimed(agent.gen_, media))
    }

    /// How many calls of this shard wait, those with a match under way included.
    pub fn waiting(&self) -> usize {
        (self.used as usize).saturating_sub(self.free.len())
    }

    /// Whether the call waits, without agent.
    pub fn is_waiting(&self, wait: WaitRef) -> bool {
        self.dispatch.wait_word(wait).is_some_and(|slot| slot.state.is_waiting(wait.gen_))
    }

    /// Ends a claim. The agent is matched again at once where a call waits for it: `out` says so.
    pub fn release(&mut self, agent: AgentRef, how: Release, out: &mut Vec<Match>) -> Released {
        self.take_late(out);
        let Some(slot) = self.dispatch.agents.get(agent.slot) else { return Released::Stale };
        let change = slot.state.transition_to_released(agent.gen_, how);
        let word = match change {
            Change::Refused => return Released::Stale,
            Change::Left(word) => word,
            #[cfg(mutant)]
            Change::Held(word) if crate::mutant::is("release-not-settled") => word,
            Change::Held(word) => {
                self.op().settle(agent.slot, out);
                word
            }
        };
        released(word)
    }

    /// Calls and chats of the same skill that come before this one by (priority, ticket); 0 when it does not wait. Exact at rest. Costs the
    /// distance to the nearer end of the queue: a new or a returning call is near one.
    pub fn calls_ahead(&mut self, wait: WaitRef) -> u32 {
        self.op().calls_ahead(wait)
    }

    /// Hands over matches made by [`claim`](Self::claim), [`logout`](Self::logout), [`retire_agent`](Self::retire_agent),
    /// [`begin_wrapup`](Self::begin_wrapup) and [`withhold`](Self::withhold). Call it after them. (They make one only when another
    /// thread changes the same agent at the same moment, or for further chats.) Every operation that has an `out` hands them over, too.
    pub fn take_late(&mut self, out: &mut Vec<Match>) {
        out.append(&mut self.late);
    }

    /// Frees what can be freed. Call it when idle; at rest, after every handle's `collect`, [`Dispatch::garbage`] is 0.
    pub fn collect(&mut self) {
        self.dispatch.reclaim.flush(&self.local);
    }

    /// Runs an operation whose matches go to `late`.
    pub(crate) fn with_late(&mut self, f: impl FnOnce(&mut Op<'_>, &mut Vec<Match>)) {
        let mut late = std::mem::take(&mut self.late);
        f(&mut self.op(), &mut late);
        self.late = late;
    }

    /// The agent in a slot that a call of ours has claimed: its generation cannot change before we release it.
    pub(crate) fn claimed(&self, slot: u32) -> AgentRef {
        let gen_ = self.dispatch.agents.get(slot).map_or(0, |agent| agent.state.load().gen_());
        AgentRef { slot, gen_ }
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    fn pop_wait_slot(&mut self) -> Result<u32, Full> {
        if let Some(slot) = self.free.pop() {
            return Ok(slot);
        }
        let waiting = self.dispatch.waiting.get(usize::from(self.shard)).ok_or(Full::Waiting)?;
        waiting.calls.get_or_grow(self.used).ok_or(Full::Waiting)?;
        waiting.words.get_or_grow(self.used).ok_or(Full::Waiting)?;
        self.used += 1;
        Ok(self.used - 1)
    }
}

fn released(word: Word) -> Released {
    if word.retired() {
        return Released::Retired;
    }
    match word.state() {
        AgentState::Free => Released::Free,
        AgentState::InChat => Released::InChat,
        AgentState::Offline => Released::Offline,
        // A release never ends in a call.
        AgentState::Wrapup | AgentState::InCall => Released::Wrapup,
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.dispatch.reclaim.flush(&self.local);
        if let Some(waiting) = self.dispatch.waiting.get(usize::from(self.shard)) {
            waiting.handled.store(false, plain::Ordering::Release);
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("shard", &self.shard).finish_non_exhaustive()
    }
}
