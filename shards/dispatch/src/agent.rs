//! An agent's state word: every legal change is one `transition_to_*`, each one compare-and-swap.
//!
//! The heart is the bit **`HELD`**: one thread at a time has the agent in hand. Taking an agent for a call, logging in, a release, an
//! update: all take the agent in hand, and only the holder touches the agent's entries in the ordered sets (`Links`). An operation
//! that finds the agent in another's hand makes its change to the word and leaves the rest to the holder, who cannot let go
//! (one compare-and-swap on the whole word) without having seen it. So nobody waits for anybody, and a change is settled exactly once.
//!
//! Who may touch what: anybody the word, by the transitions below. Those named "holder" are for the holder alone.

use crate::{
    AgentState, Media, Release,
    sync::{AtomicU64, Ordering},
};

const CHATS_OPEN_SHIFT: u32 = 0;
const CHATS_ALLOWED_SHIFT: u32 = 8;
const CHATS_MASK: u64 = 0xFF;
const ONE_CHAT: u64 = 1 << CHATS_OPEN_SHIFT;
/// Takes audio calls.
const AUDIO: u64 = 1 << 16;
const LOGGED_IN: u64 = 1 << 17;
/// Gone by reload; the slot is used again after the last release.
const RETIRED: u64 = 1 << 18;
/// The one audio slot has an owner.
const IN_CALL: u64 = 1 << 19;
/// Wrap-up after a call, or pause after a refused chat: takes nothing.
const WRAPUP: u64 = 1 << 20;
/// Wrap-up after a chat: one chat slot is withheld; with no chat open, as `WRAPUP`.
const WITHHELD: u64 = 1 << 21;
/// In the hand of one thread.
const HELD: u64 = 1 << 22;
/// For the holder: goes to the end of the idle order.
const REORDER: u64 = 1 << 23;
/// For the holder: goes back to the place that it had before its last chat.
const RESTORE: u64 = 1 << 24;
/// For the holder: `pending` has a new spec.
const RELINK: u64 = 1 << 25;
/// No agent lives in the slot.
const VACANT: u64 = 1 << 26;
const NOTES: u64 = REORDER | RESTORE | RELINK;
/// Claims made so far, modulo 32: of two equal words, nothing was claimed in between.
const ONE_CLAIM: u64 = 1 << 27;
const CLAIMS_MADE: u64 = 0x1F << 27;
const GEN_SHIFT: u32 = 32;

/// A value of the state word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word(u64);

impl Word {
    #[inline]
    fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }
    #[inline]
    pub(crate) fn gen_(self) -> u32 {
        (self.0 >> GEN_SHIFT) as u32
    }
    /// An agent of this generation lives in the slot.
    pub(crate) fn is_of(self, gen_: u32) -> bool {
        self.gen_() == gen_ && !self.has(VACANT)
    }
    #[inline]
    pub(crate) fn chats_open(self) -> u8 {
        (self.0 >> CHATS_OPEN_SHIFT & CHATS_MASK) as u8
    }
    #[inline]
    pub(crate) fn chats_allowed(self) -> u8 {
        (self.0 >> CHATS_ALLOWED_SHIFT & CHATS_MASK) as u8
    }
    pub(crate) fn withheld(self) -> bool {
        self.has(WITHHELD)
    }
    pub(crate) fn retired(self) -> bool {
        self.has(RETIRED)
    }
    /// Logged in and not retired: counts as an agent of its skills.
    pub(crate) fn on_duty(self) -> bool {
        self.0 & (LOGGED_IN | RETIRED) == LOGGED_IN
    }
    pub(crate) fn logged_in(self) -> bool {
        self.has(LOGGED_IN)
    }
    /// Somebody has to release it.
    pub(crate) fn claimed(self) -> bool {
        self.has(IN_CALL) || self.chats_open() > 0
    }
    /// Wholly free: on duty, no call, no chat, no wrap-up.
    #[inline]
    pub(crate) fn free(self) -> bool {
        #[cfg(mutant)]
        if crate::mutant::is("double-booking") {
            return self.on_duty() && !self.has(WRAPUP | WITHHELD) && self.chats_open() == 0;
        }
        self.on_duty() && !self.has(IN_CALL | WRAPUP | WITHHELD) && self.chats_open() == 0
    }
    /// Whether it can take a call of this media, whoever holds it.
    #[inline]
    pub(crate) fn offers(self, media: Media) -> bool {
        match media {
            Media::Audio => self.has(AUDIO) && self.free(),
            Media::Chat if self.chats_open() == 0 => self.chats_allowed() > 0 && self.free(),
            Media::Chat => {
                #[cfg(mutant)]
                if crate::mutant::is("withheld-slot-given") {
                    let room = self.chats_open() < self.chats_allowed();
                    return self.on_duty() && !self.has(IN_CALL | WRAPUP) && room;
                }
                let used = u32::from(self.chats_open()) + u32::from(self.has(WITHHELD));
                self.on_duty() && !self.has(IN_CALL | WRAPUP) && used < u32::from(self.chats_allowed())
            }
        }
    }
    pub(crate) fn offers_any(self) -> bool {
        self.offers(Media::Audio) || self.offers(Media::Chat)
    }
    pub(crate) fn state(self) -> AgentState {
        if self.has(IN_CALL) {
            AgentState::InCall
        } else if self.chats_open() > 0 {
            AgentState::InChat
        } else if !self.logged_in() {
            AgentState::Offline
        } else if self.has(WRAPUP | WITHHELD) {
            AgentState::Wrapup
        } else {
            AgentState::Free
        }
    }
    fn with(self, bits: u64) -> Word {
        Word(self.0 | bits)
    }
    fn without(self, bits: u64) -> Word {
        Word(self.0 & !bits)
    }
    fn chat_closed(self) -> Word {
        Word(self.0 - ONE_CHAT)
    }
    fn claimed_for(self, media: Media) -> Word {
        let counted = Word(self.0 & !CLAIMS_MADE | self.0.wrapping_add(ONE_CLAIM) & CLAIMS_MADE);
        match media {
            Media::Audio => counted.with(IN_CALL),
            Media::Chat => Word(counted.0 + ONE_CHAT),
        }
    }
    /// How many must release it.
    pub(crate) fn claims(self) -> u32 {
        u32::from(self.has(IN_CALL)) + u32::from(self.chats_open())
    }
    /// In wrap-up, or with a slot withheld for one.
    pub(crate) fn wraps(self) -> bool {
        self.has(WRAPUP | WITHHELD)
    }
    /// The whole of it.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

/// What became of a change that anybody may ask for.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Done, and the agent is in our hand now: settle it.
    Held(Word),
    /// Done; whoever holds the agent settles it.
    Left(Word),
    /// Not done: another generation, or the state does not allow it.
    Refused,
}

/// What became of reaching for an agent.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Held,
    Unavailable,
}

/// What became of a holder's change.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Done,
    /// The word is another than the one seen: look again.
    Changed,
}

/// The holder's notes, as found.
#[derive(Debug)]
pub(crate) struct Notes {
    pub(crate) reorder: bool,
    pub(crate) restore: bool,
    pub(crate) relink: bool,
}

#[derive(Debug)]
pub(crate) struct State(AtomicU64);

impl State {
    /// Generation 0, in hand, as if recycled.
    pub(crate) fn vacant() -> Self {
        Self(AtomicU64::new(HELD | VACANT))
    }

    #[inline]
    pub(crate) fn load(&self) -> Word {
        Word(self.0.load(Ordering::Acquire))
    }

    #[inline]
    fn swap(&self, seen: Word, next: Word) -> Result<(), Word> {
        self.0.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire).map(|_| ()).map_err(Word)
    }

    fn step(&self, seen: Word, next: Word) -> Step {
        debug_assert!(seen.has(HELD), "only the holder takes this step");
        if self.swap(seen, next).is_ok() { Step::Done } else { Step::Changed }
    }

    /// Makes a change that anybody may make, taking the agent in hand where it is in nobody's.
    fn change(&self, gen_: u32, next: impl Fn(Word) -> Option<Word>) -> Change {
        let mut seen = self.load();
        loop {
            if !seen.is_of(gen_) {
                return Change::Refused;
            }
            let Some(next) = next(seen) else { return Change::Refused };
            match self.swap(seen, next.with(HELD)) {
                Ok(()) if seen.has(HELD) => return Change::Left(next),
                Ok(()) => return Change::Held(next),
                Err(now) => seen = now,
            }
        }
    }

    /// A finder reaches for an agent that can take a call of this media.
    #[inline]
    pub(crate) fn transition_to_held(&self, gen_: u32, media: Media) -> Hold {
        let mut seen = self.load();
        #[cfg(mutant)]
        let gen_ = if crate::mutant::is("generation-not-compared") { seen.gen_() } else { gen_ };
        while seen.gen_() == gen_ && !seen.has(HELD) && seen.offers(media) {
            match self.swap(seen, seen.with(HELD)) {
                Ok(()) => return Hold::Held,
                Err(now) => seen = now,
            }
        }
        Hold::Unavailable
    }

    /// Nothing changes; whoever is the holder then looks again.
    pub(crate) fn transition_to_looked_at(&self, gen_: u32) -> Change {
        self.change(gen_, Some)
    }

    /// Takes the agent in hand again, if nothing has happened since it was let go as `seen`.
    pub(crate) fn transition_to_held_again(&self, let_go: Word) -> Hold {
        if self.swap(let_go, let_go.with(HELD)).is_ok() { Hold::Held } else { Hold::Unavailable }
    }

    /// Holder: reads and clears the notes.
    pub(crate) fn transition_to_noted(&self, seen: Word) -> Option<Notes> {
        let notes = Notes { reorder: seen.has(REORDER), restore: seen.has(RESTORE), relink: seen.has(RELINK) };
        (self.step(seen, seen.without(NOTES)) == Step::Done).then_some(notes)
    }

    /// In nobody's hand, so that all changes made before are settled.
    pub(crate) fn at_rest(seen: Word) -> bool {
        !seen.has(HELD)
    }

    pub(crate) fn has_notes(seen: Word) -> bool {
        seen.has(NOTES)
    }

    /// Holder: what the agent takes, from a new spec.
    pub(crate) fn transition_to_equipped(&self, audio: bool, chat_slots: u8) {
        let mut seen = self.load();
        loop {
            let bare = seen.without(AUDIO | CHATS_MASK << CHATS_ALLOWED_SHIFT);
            let next = bare.with(if audio { AUDIO } else { 0 } | u64::from(chat_slots) << CHATS_ALLOWED_SHIFT);
            match self.swap(seen, next) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Holder: claims the agent for a call; the call is committed afterwards.
    pub(crate) fn transition_to_claimed(&self, seen: Word, media: Media) -> Step {
        debug_assert!(seen.offers(media));
        self.step(seen, seen.claimed_for(media))
    }

    /// Holder: takes a claim back whose call was gone; the agent keeps its place.
    pub(crate) fn transition_to_unclaimed(&self, media: Media) {
        let mut seen = self.load();
        loop {
            let next = match media {
                Media::Audio => seen.without(IN_CALL),
                Media::Chat => seen.chat_closed(),
            };
            match self.swap(seen, next) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Holder: lets go, if nothing was left to do since `seen`. Returns the word as let go.
    pub(crate) fn transition_to_settled(&self, seen: Word) -> Result<Word, Word> {
        debug_assert!(seen.has(HELD) && !seen.has(NOTES));
        self.swap(seen, seen.without(HELD)).map(|()| seen.without(HELD))
    }

    /// Holder: ends this generation of the slot. The slot stays in hand, so that nothing can be asked of it.
    pub(crate) fn transition_to_recycled(&self, seen: Word) -> Step {
        debug_assert!(seen.retired() && !seen.claimed());
        self.step(seen, Word(u64::from(seen.gen_().wrapping_add(1)) << GEN_SHIFT | HELD | VACANT))
    }

    /// The one who has the slot off the free list: a new agent, offline, to be settled.
    pub(crate) fn transition_to_added(&self) -> u32 {
        let seen = self.load();
        debug_assert!(seen.has(HELD) && seen.has(VACANT));
        self.0.store(seen.without(VACANT).with(RELINK).0, Ordering::Release);
        seen.gen_()
    }

    pub(crate) fn transition_to_released(&self, gen_: u32, how: Release) -> Change {
        self.change(gen_, |w| {
            if w.has(IN_CALL) {
                let w = w.without(IN_CALL);
                return match how {
                    Release::Free => Some(w.with(REORDER)),
                    Release::GiveBack => Some(w),
                    Release::Wrapup => Some(w.with(WRAPUP)),
                    Release::Chat | Release::ChatWrapup | Release::ChatRefused => None,
                };
            }
            if w.chats_open() == 0 {
                return None;
            }
            let w = w.chat_closed();
            let last = if w.chats_open() == 0 { REORDER } else { 0 };
            match how {
                Release::Free | Release::Chat => Some(w.with(last)),
                Release::GiveBack => Some(w.with(RESTORE)),
                Release::ChatWrapup | Release::Wrapup => Some(w.with(WITHHELD)),
                Release::ChatRefused => Some(w.with(WITHHELD | WRAPUP)),
            }
        })
    }

    pub(crate) fn transition_to_logged_in(&self, gen_: u32) -> Change {
        self.change(gen_, |w| {
            let fresh = if w.logged_in() { 0 } else { REORDER };
            (!w.retired()).then(|| w.with(LOGGED_IN | fresh))
        })
    }

    pub(crate) fn transition_to_logged_out(&self, gen_: u32) -> Change {
        self.change(gen_, |w| (!w.retired()).then(|| w.without(LOGGED_IN)))
    }

    pub(crate) fn transition_to_retired(&self, gen_: u32) -> Change {
        self.change(gen_, |w| (!w.retired()).then(|| w.with(RETIRED)))
    }

    /// A retired agent that still has its call is provisioned again: logged out, with a new spec.
    pub(crate) fn transition_to_revived(&self, gen_: u32) -> Change {
        self.change(gen_, |w| w.retired().then(|| w.without(RETIRED | LOGGED_IN).with(RELINK)))
    }

    pub(crate) fn transition_to_updated(&self, gen_: u32) -> Change {
        self.change(gen_, |w| (!w.retired()).then(|| w.with(RELINK)))
    }

    /// A claim of the process before: whatever the agent's login and wrap-up, if the slot has no owner.
    pub(crate) fn transition_to_reclaimed(&self, gen_: u32, media: Media) -> Change {
        self.change(gen_, |w| match media {
            Media::Audio => (!w.claimed()).then(|| w.claimed_for(media)),
            Media::Chat => {
                let room = !w.has(IN_CALL) && u64::from(w.chats_open()) < CHATS_MASK;
                room.then(|| w.claimed_for(media).with(REORDER))
            }
        })
    }

    /// A free or offline agent, or one in wrap-up already, is put in wrap-up.
    pub(crate) fn transition_to_wrapup(&self, gen_: u32) -> Change {
        self.change(gen_, |w| (!w.retired() && !w.claimed()).then(|| w.with(WRAPUP)))
    }

    pub(crate) fn transition_to_withheld(&self, gen_: u32, pause: bool) -> Change {
        let bits = if pause { WITHHELD | WRAPUP } else { WITHHELD };
        self.change(gen_, |w| (!w.has(IN_CALL)).then(|| w.with(bits)))
    }

    pub(crate) fn transition_to_pause_over(&self, gen_: u32) -> Change {
        self.change(gen_, |w| (w.has(WRAPUP) && w.has(WITHHELD)).then(|| w.without(WRAPUP)))
    }

    pub(crate) fn transition_to_wrapup_over(&self, gen_: u32) -> Change {
        self.change(gen_, |w| {
            let idle = if w.claimed() { 0 } else { REORDER };
            #[cfg(mutant)]
            let idle = if crate::mutant::is("idle-order-kept") { 0 } else { idle };
            w.has(WRAPUP | WITHHELD).then(|| w.without(WRAPUP | WITHHELD).with(idle))
        })
    }
}
