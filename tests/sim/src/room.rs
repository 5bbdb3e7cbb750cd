//! The disk of the journals without room: for a time others leave them place for a few segments more, or none. Then new calls are
//! refused, and present ones go on in memory (data.md, "CDRs"; `runtime/journal/writer.rs`); who is killed then goes on from what
//! the journals had before.

use crate::crash::Ends;
use crate::plan::SECOND;
use crate::rng::Rng;
use crate::world::World;

/// A time in which so many files have room.
#[derive(Debug, Clone, Copy)]
pub struct Squeeze {
    pub from_us: u64,
    pub until_us: u64,
    pub files: u64,
}

pub fn draw_squeezes(r: &mut Rng, faults_us: u64) -> Vec<Squeeze> {
    let times = if r.chance(400) { r.range(1, 3) } else { 0 };
    let squeeze = |r: &mut Rng| {
        let from_us = r.below(faults_us);
        let until_us = (from_us + r.range(2, 40) * SECOND).min(faults_us);
        Squeeze { from_us, until_us, files: r.below(3) }
    };
    (0..times).map(|_| squeeze(r)).collect()
}

impl Ends {
    /// Whether this shard's journal has no room.
    pub(crate) fn is_full(&self, shard: u16) -> bool {
        self.journals.get(usize::from(shard)).is_some_and(crate::journal::Journal::is_full)
    }

    /// The disk has room for so many files more for each shard.
    pub(crate) fn set_room(&mut self, files: Option<u64>) {
        self.room = files;
        for journal in &mut self.journals {
            self.seen.extend(journal.set_room(files));
        }
    }
}

impl World {
    pub(crate) fn set_room(&mut self, files: Option<u64>) {
        self.trace.note(self.now, None, None, || format!("--- room for journal files: {files:?} ---"));
        self.ends.set_room(files);
    }

    /// The process ends, and a journal has no room: what follows from it was sent, and is forgotten, as after a loss of power.
    pub(crate) fn forget_unkept(&mut self) {
        if (0..self.plan.shards).any(|shard| self.ends.is_full(shard)) {
            self.ledger.lost_power = true;
        }
    }
}
