//! The matcher: whoever has an agent in hand gives it its best waiting call.
//!
//! All that can make a match possible (a release, a login, a new skill, an arriving call) ends in `settle`, the only place where an agent
//! is let go. `settle` follows "publish, fence, look again"; `enqueue` is its counterpart on the side of calls.

use std::{cmp::Reverse, collections::BinaryHeap, ptr::NonNull};

use crate::{
    AgentRef, ChatPolicy, ClaimError, Dispatch, Handle, Match, Media, SkillId, WaitRef, WaitSpec,
    agent::{Hold, Notes, State, Step, Word},
    index::{Counts, Skill},
    reclaim::Pin,
    set::{Entry, Heights, Node, fetch_early},
    slot::{AgentSlot, Links, SkillLink},
    sync::{Ordering, fence, plain::Relaxed},
    waiting::Commit,
};

/// One operation: pinned, with what it needs of its handle.
pub(crate) struct Op<'a> {
    pub(crate) d: &'a Dispatch,
    pub(crate) pin: Pin<'a>,
    pub(crate) heights: &'a mut Heights,
}

/// A waiting call, as found.
struct Found<'a> {
    wait: WaitRef,
    media: Media,
    skill: &'a Skill,
    node: NonNull<Node>,
}

/// What a holder achieved for its agent.
enum HandOver {
    /// No call waits for it.
    Nothing,
    /// A call was given, or the agent or the call has changed: look again.
    Again,
}

fn wait_ref(entry: &Entry) -> WaitRef {
    WaitRef { shard: (entry.id >> 32) as u16, slot: entry.id as u32, gen_: entry.gen_ }
}

impl<'a> Op<'a> {
    /// Publishes a call, then serves the queue before it, then itself.
    pub(crate) fn enqueue(
        &mut self,
        wait: WaitRef,
        entry: Entry,
        spec: &WaitSpec<'_>,
        out: &mut Vec<Match>,
    ) -> WaitRef {
        let (Some(slot), Some(call)) = (self.d.wait_word(wait), self.d.wait_call(wait)) else { return wait };
        let Some(skill) = self.d.index.skill(spec.skill) else { return wait };
        let gen_ = slot.state.gen_();
        let entry = Entry { gen_, ..entry };
        let node = skill.waiting(spec.media).insert(entry, self.heights, &self.pin);
        call.describe(&entry, spec.skill, spec.media, spec.refused);
        slot.node.store(node.as_ptr(), Ordering::Release);
        slot.state.transition_to_waiting(gen_);
        #[cfg(mutant)]
        let fence = |order| {
            if !crate::mutant::is("call-fence-dropped") {
                fence(order);
            }
        };
        fence(Ordering::SeqCst);
        while self.d.dispatching() && slot.state.is_waiting(gen_) {
            let Some(agent) = self.hold_for(skill, spec.media, spec.refused) else { break };
            self.settle(agent, out);
        }
        WaitRef { gen_, ..wait }
    }

    /// The owner takes an entry that still waits out. False: it is taken, or stale.
    pub(crate) fn leave(&self, wait: WaitRef) -> bool {
        let (Some(slot), Some(call)) = (self.d.wait_word(wait), self.d.wait_call(wait)) else { return false };
        let (node, skill, media) = (slot.node.load(Ordering::Relaxed), call.skill(), call.media());
        fetch_early(node);
        let left = slot.state.transition_to_abandoned(wait.gen_);
        if let (true, Some(node), Some(skill)) = (left, NonNull::new(node), self.d.index.skill(skill)) {
            // SAFETY: written by the owner, who asks; inserted before the word said waiting; we won that word.
            unsafe { skill.waiting(media).remove(node, self.behind(node), &self.pin) };
        }
        left
    }

    /// The node of the call that is guessed to be right before this one's, if it waits.
    fn behind(&self, node: NonNull<Node>) -> Option<NonNull<Node>> {
        // SAFETY: our caller has not removed it yet.
        let id = unsafe { node.as_ref() }.behind()?;
        self.d.wait_word(WaitRef { shard: (id >> 32) as u16, slot: id as u32, gen_: 0 })?.waiting_node()
    }

    pub(crate) fn calls_ahead(&self, wait: WaitRef) -> u32 {
        let waits = self.d.wait_word(wait).is_some_and(|s| s.state.is_waiting(wait.gen_));
        let Some(call) = self.d.wait_call(wait).filter(|_| waits) else { return 0 };
        let (rank, order) = call.place();
        let id = u64::from(wait.shard) << 32 | u64::from(wait.slot);
        let entry = Entry { rank, order, id, gen_: wait.gen_ };
        self.d.index.skill(call.skill()).map_or(0, |skill| skill.calls_before(&entry, &self.pin))
    }

    /// Takes in hand the first available agent of a skill; one that refused the call only when there is no other.
    fn hold_for(&self, skill: &Skill, media: Media, refused: &[AgentRef]) -> Option<u32> {
        let mut passed_over = false;
        for last_resort in [false, true] {
            for (entry, _) in skill.agents(media).iter(&self.pin) {
                let agent = AgentRef { slot: entry.id as u32, gen_: entry.gen_ };
                if !last_resort && refused.contains(&agent) {
                    passed_over = true;
                    continue;
                }
                let Some(slot) = self.d.agents.get(agent.slot) else { continue };
                if slot.state.transition_to_held(agent.gen_, media) == Hold::Held {
                    return Some(agent.slot);
                }
            }
            if !passed_over {
                break;
            }
        }
        None
    }

    /// The best waiting call over the skills, of the media that the agent offers.
    fn best_waiting(&self, skills: &[SkillId], agent: Word) -> Option<Found<'a>> {
        let mut best: Option<((u32, u64), Found<'a>)> = None;
        for media in Media::ALL.into_iter().filter(|&media| agent.offers(media)) {
            for skill in skills.iter().filter_map(|&id| self.d.index.skill(id)) {
                let Some((entry, node)) = self.first_waiting(skill, media) else { continue };
                #[cfg(mutant)]
                if crate::mutant::is("worst-call-first") && best.as_ref().is_some_and(|(p, _)| entry.place() < *p) {
                    continue;
                }
                #[cfg(mutant)]
                if crate::mutant::is("worst-call-first") {
                    best = None;
                }
                if best.as_ref().is_none_or(|(place, _)| entry.place() < *place) {
                    best = Some((entry.place(), Found { wait: wait_ref(&entry), media, skill, node }));
                }
            }
        }
        best.map(|(_, found)| found)
    }

    #[inline]
    fn first_waiting(&self, skill: &Skill, media: Media) -> Option<(Entry, NonNull<Node>)> {
        let waits = |entry: &Entry| self.d.wait_word(wait_ref(entry)).is_some_and(|s| s.state.is_waiting(entry.gen_));
        skill.waiting(media).iter(&self.pin).find(|(entry, _)| waits(entry))
    }

    /// Brings an agent that is in our hand to rest: heeds what others left to do, gives it calls, links it where it is available, lets
    /// it go, and looks again.
    pub(crate) fn settle(&mut self, agent: u32, out: &mut Vec<Match>) {
        let d = self.d;
        let Some(slot) = d.agents.get(agent) else { return };
        loop {
            let seen = slot.state.load();
            if State::has_notes(seen) {
                if let Some(notes) = slot.state.transition_to_noted(seen) {
                    self.heed(slot, &notes);
                }
                continue;
            }
            if seen.retired() && !seen.claimed() {
                if self.recycle(agent, slot, seen) == Step::Done {
                    return;
                }
                continue;
            }
            if seen.offers_any() && d.dispatching() && matches!(self.hand_over(agent, slot, seen, out), HandOver::Again)
            {
                continue;
            }
            // SAFETY: the agent is in our hand.
            unsafe { slot.with_links(|links| self.link(agent, seen, links)) };
            let Ok(let_go) = slot.state.transition_to_settled(seen) else { continue };
            if !let_go.offers_any() {
                return;
            }
            #[cfg(mutant)]
            if crate::mutant::is("agent-does-not-look-again") {
                return;
            }
            #[cfg(mutant)]
            let fence = |order| {
                if !crate::mutant::is("agent-fence-dropped") {
                    fence(order);
                }
            };
            fence(Ordering::SeqCst);
            if !d.dispatching() || !self.call_waits(slot, let_go) {
                return;
            }
            if slot.state.transition_to_held_again(let_go) == Hold::Unavailable {
                return; // Somebody else has it in hand, and looks again after us.
            }
        }
    }

    pub(crate) fn call_waits(&self, slot: &AgentSlot, agent: Word) -> bool {
        slot.spec(&self.pin).is_some_and(|spec| self.best_waiting(&spec.skills, agent).is_some())
    }

    /// Claim, then commit.
    fn hand_over(&self, agent: u32, slot: &AgentSlot, seen: Word, out: &mut Vec<Match>) -> HandOver {
        let best = slot.spec(&self.pin).and_then(|spec| self.best_waiting(&spec.skills, seen));
        let Some(Found { wait, media, skill, node }) = best else { return HandOver::Nothing };
        if slot.state.transition_to_claimed(seen, media) == Step::Changed {
            return HandOver::Again;
        }
        let taken = self.d.wait_word(wait).map(|s| s.state.transition_to_taken(wait.gen_, agent));
        if taken != Some(Commit::Taken) {
            #[cfg(mutant)]
            if crate::mutant::is("failed-commit-keeps-claim") {
                return HandOver::Again;
            }
            slot.state.transition_to_unclaimed(media);
            return HandOver::Again;
        }
        // SAFETY: we won the call's word, after its insertion.
        unsafe { skill.waiting(media).remove(node, None, &self.pin) };
        self.note_claim(slot, media);
        out.push(Match { wait, agent: AgentRef { slot: agent, gen_: seen.gen_() } });
        HandOver::Again
    }

    /// A chat has moved the agent in the order, by policy.
    fn note_claim(&self, slot: &AgentSlot, media: Media) {
        if media == Media::Chat {
            let moved = self.d.policy == ChatPolicy::Balancing;
            let note = |links: &mut Links| {
                links.former = links.order;
                if moved {
                    links.order = self.d.next_order();
                }
            };
            // SAFETY: the agent is in our hand.
            unsafe { slot.with_links(note) };
        }
    }

    /// Does what others noted down for the holder.
    fn heed(&mut self, slot: &AgentSlot, notes: &Notes) {
        if notes.relink
            && let Some(spec) = slot.take_pending(slot.state.load().gen_())
        {
            // SAFETY: the agent is in our hand.
            unsafe { slot.with_links(|links| self.unlink(links)) };
            let fresh = |&skill: &SkillId| SkillLink { skill, audio: None, chat: None };
            let skills: Vec<_> = spec.skills.iter().map(fresh).collect();
            slot.state.transition_to_equipped(spec.audio, spec.chat_slots);
            slot.install(Some(spec), &self.pin);
            // SAFETY: as above.
            unsafe { slot.with_links(|links| links.skills = skills) };
        }
        let order = |links: &mut Links| {
            if notes.restore {
                links.order = links.former;
            }
            if notes.reorder {
                links.order = self.d.next_order();
            }
        };
        // SAFETY: as above.
        unsafe { slot.with_links(order) };
    }

    /// Links the agent's entries as its word says, and counts it.
    fn link(&mut self, agent: u32, word: Word, links: &mut Links) {
        let order = links.order;
        // By full load, agents in chats come before free ones.
        let class = u32::from(self.d.policy == ChatPolicy::FullLoad && word.chats_open() == 0);
        let audio = word.offers(Media::Audio).then_some((0, order));
        let chat = word.offers(Media::Chat).then_some((class, order));
        let id = (agent, word.gen_());
        if links.audio != audio {
            self.relink(Media::Audio, &mut links.skills, audio, id);
            links.audio = audio;
        }
        if links.chat != chat {
            self.relink(Media::Chat, &mut links.skills, chat, id);
            links.chat = chat;
        }
        self.count(links, word.on_duty(), word.free());
    }

    fn relink(&mut self, media: Media, links: &mut [SkillLink], place: Option<(u32, u64)>, id: (u32, u32)) {
        for link in links {
            let Some(skill) = self.d.index.skill(link.skill) else { continue };
            let node = match media {
                Media::Audio => &mut link.audio,
                Media::Chat => &mut link.chat,
            };
            if let Some(node) = node.take() {
                // SAFETY: inserted by a holder before us, and taken out of the links.
                unsafe { skill.agents(media).remove(node, None, &self.pin) };
            }
            if let Some((rank, order)) = place {
                let entry = Entry { rank, order, id: u64::from(id.0), gen_: id.1 };
                *node = Some(skill.agents(media).insert(entry, self.heights, &self.pin));
            }
        }
    }

    fn unlink(&mut self, links: &mut Links) {
        self.relink(Media::Audio, &mut links.skills, None, (0, 0));
        self.relink(Media::Chat, &mut links.skills, None, (0, 0));
        (links.audio, links.chat) = (None, None);
        self.count(links, false, false);
    }

    fn count(&self, links: &mut Links, on_duty: bool, free: bool) {
        let each = |apply: &dyn Fn(&Counts)| {
            apply(&self.d.index.total);
            links.skills.iter().filter_map(|l| self.d.index.skill(l.skill)).for_each(|s| apply(&s.counts));
        };
        // Adding 2^32 - 1 takes one off.
        let by = |up: bool| if up { 1 } else { u32::MAX };
        if links.counted_on_duty != on_duty {
            each(&|counts| _ = counts.on_duty.fetch_add(by(on_duty), Relaxed));
        }
        if links.counted_free != free {
            each(&|counts| _ = counts.free.fetch_add(by(free), Relaxed));
        }
        (links.counted_on_duty, links.counted_free) = (on_duty, free);
    }

    /// Ends the generation of a retired agent with nothing open, and frees its slot.
    fn recycle(&mut self, agent: u32, slot: &AgentSlot, seen: Word) -> Step {
        let clear = |links: &mut Links| {
            self.unlink(links);
            links.skills = Vec::new();
        };
        // SAFETY: the agent is in our hand.
        unsafe { slot.with_links(clear) };
        slot.install(None, &self.pin);
        slot.set_owner(None);
        let step = slot.state.transition_to_recycled(seen);
        if step == Step::Done {
            self.d.push_agent_slot(agent);
        }
        step
    }

    /// Gives this call to this agent, by somebody else's choice.
    fn claim(&mut self, wait: WaitRef, agent: AgentRef, out: &mut Vec<Match>) -> Result<(), ClaimError> {
        let waiting = self.d.wait_word(wait).filter(|s| s.state.is_waiting(wait.gen_));
        let (place, call) = waiting.zip(self.d.wait_call(wait)).ok_or(ClaimError::NotWaiting)?;
        let (id, media, node) = (call.skill(), call.media(), place.node.load(Ordering::Relaxed));
        let skill = self.d.index.skill(id).ok_or(ClaimError::NotWaiting)?;
        let node = NonNull::new(node).ok_or(ClaimError::NotWaiting)?;
        let slot = self.d.agents.get(agent.slot).ok_or(ClaimError::StaleAgent)?;
        let word = slot.state.load();
        let spec = slot.spec(&self.pin).ok_or(ClaimError::StaleAgent)?;
        if !word.is_of(agent.gen_) || word.retired() {
            return Err(ClaimError::StaleAgent);
        }
        if !word.logged_in() {
            return Err(ClaimError::NotLoggedIn);
        }
        if spec.skills.binary_search(&id).is_err() {
            return Err(ClaimError::NoSkill);
        }
        let busy = || match media {
            Media::Audio => ClaimError::NotFreeAudio,
            Media::Chat => ClaimError::NotFreeChat,
        };
        if slot.state.transition_to_held(agent.gen_, media) == Hold::Unavailable {
            return Err(busy());
        }
        let result = self.claim_held(slot, media, id, || place.state.transition_to_taken(wait.gen_, agent.slot));
        if result.is_ok() {
            // SAFETY: we won the call's word, whose generation the node belongs to, after its insertion.
            unsafe { skill.waiting(media).remove(node, None, &self.pin) };
        }
        self.settle(agent.slot, out);
        result.map_err(|e| e.unwrap_or_else(busy))
    }

    /// With the agent in hand: claims it and commits. `Err(None)`: the agent is not available any more.
    fn claim_held(
        &self,
        slot: &AgentSlot,
        media: Media,
        skill: SkillId,
        commit: impl FnOnce() -> Commit,
    ) -> Result<(), Option<ClaimError>> {
        if slot.spec(&self.pin).is_none_or(|spec| spec.skills.binary_search(&skill).is_err()) {
            return Err(Some(ClaimError::NoSkill));
        }
        loop {
            let seen = slot.state.load();
            if !seen.offers(media) {
                return Err(None);
            }
            if slot.state.transition_to_claimed(seen, media) == Step::Done {
                break;
            }
        }
        if commit() == Commit::Gone {
            slot.state.transition_to_unclaimed(media);
            return Err(Some(ClaimError::NotWaiting));
        }
        self.note_claim(slot, media);
        Ok(())
    }

    /// Matches until no call has an agent: the best call first, each time.
    fn match_all(&mut self, out: &mut Vec<Match>) {
        let d = self.d;
        let mut heads = BinaryHeap::new();
        let push = |op: &Self, heads: &mut BinaryHeap<_>, id: u32, skill: &Skill, media: Media| {
            if let Some((entry, _)) = op.first_waiting(skill, media) {
                heads.push(Reverse((entry.place(), media as u8, id)));
            }
        };
        for (id, skill) in d.index.skills.iter() {
            Media::ALL.into_iter().for_each(|media| push(self, &mut heads, id, skill, media));
        }
        while let Some(Reverse((_, media, id))) = heads.pop() {
            let media = Media::ALL[usize::from(media)];
            let Some(skill) = d.index.skill(SkillId(id)) else { continue };
            let Some((entry, _)) = self.first_waiting(skill, media) else { continue };
            let Some(call) = d.wait_call(wait_ref(&entry)).filter(|_| d.dispatching()) else { continue };
            if let Some(agent) = self.hold_for(skill, media, &call.refused()) {
                self.settle(agent, out);
                push(self, &mut heads, id, skill, media);
            }
        }
    }
}

impl Handle {
    /// External dispatch: this waiting call to this agent, also while internal dispatching is off. Then `take` finds it, as after a match.
    ///
    /// # Errors
    /// What stands against it; an agent that another operation has in hand at this moment counts as not free.
    pub fn claim(&mut self, wait: WaitRef, agent: AgentRef) -> Result<(), ClaimError> {
        let mut result = Ok(());
        self.with_late(|op, late| result = op.claim(wait, agent, late));
        result
    }

    /// Matches all that can be matched: after [`Dispatch::set_dispatching`]`(true)`.
    pub fn match_all(&mut self, out: &mut Vec<Match>) {
        self.take_late(out);
        #[cfg(mutant)]
        let fence = |order| {
            if !crate::mutant::is("switch-fence-dropped") {
                fence(order);
            }
        };
        fence(Ordering::SeqCst);
        self.op().match_all(out);
    }
}
