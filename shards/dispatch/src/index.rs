//! The skill index: for each skill the available agents and the waiting calls, by media, and the counts.
//!
//! Counts decide nothing; they are exact at rest. Sets are changed by the holder of an agent and by the winner of a wait word.

use crossbeam_utils::CachePadded;

use crate::{
    Media, SkillId,
    reclaim::Pin,
    segments::Segments,
    set::{Entry, Set},
    sync::plain::{AtomicU32, Relaxed},
};

/// Agents of a skill, or of all.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) on_duty: AtomicU32,
    pub(crate) free: AtomicU32,
}

impl Counts {
    pub(crate) fn read(counter: &AtomicU32) -> u32 {
        // A count that is momentarily below zero (leave seen before arrival) reads as zero.
        counter.load(Relaxed).cast_signed().max(0).cast_unsigned()
    }
}

#[derive(Default)]
pub(crate) struct Skill {
    agents: [Set; 2],
    waiting: [Set; 2],
    pub(crate) counts: CachePadded<Counts>,
}

impl Skill {
    #[inline]
    pub(crate) fn agents(&self, media: Media) -> &Set {
        &self.agents[media as usize]
    }

    #[inline]
    pub(crate) fn waiting(&self, media: Media) -> &Set {
        &self.waiting[media as usize]
    }

    pub(crate) fn queue_len(&self) -> u32 {
        self.waiting.iter().map(Set::len).sum()
    }

    pub(crate) fn calls_before(&self, entry: &Entry, pin: &Pin<'_>) -> u32 {
        self.waiting.iter().map(|set| set.count_before(entry, pin)).sum()
    }
}

pub(crate) struct Index {
    pub(crate) skills: Segments<Skill>,
    pub(crate) total: CachePadded<Counts>,
}

impl Index {
    pub(crate) fn new(skills: u32) -> Self {
        Self { skills: Segments::new(skills), total: CachePadded::default() }
    }

    #[inline]
    pub(crate) fn skill(&self, skill: SkillId) -> Option<&Skill> {
        self.skills.get(skill.0)
    }
}
