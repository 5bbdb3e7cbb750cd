//! A shard's journal: what it must hold, turn by turn, and beside it the real one, over memory and a disk of the simulator's. When the
//! process ends, what a new one reads of it is compared.
//!
//! - A kill leaves all turns that were committed, and nothing of one that was not.
//! - Without room on its disk it has all turns up to the last before that, and when there is room again all of them.
//! - A loss of power leaves the journal as it was at the end of some turn since the last sync that came to its end.
//! - Of damaged files nothing is read that was not written; and after one damage, what is missing, or older than it should be,
//!   is told.

use crate::check::Violation;
use crate::disk::{PowerDisk, damaged};
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strowger_engine::journal::{Entity, Kind, Sink};
use strowger_runtime::journal::simulated::{Files, Simulated, read};
use strowger_runtime::journal::{Fault, Trouble};

/// Less than a server takes, so that segments are used up.
const SEGMENT: usize = 16 << 10;

/// After one turn in so many the shard is idle for a while.
const IDLE: u32 = 5;
/// For a fourth of so many turns it has been quiet for long.
const LONG: u32 = 80;

/// What a turn has put, and removed.
type Turn = Vec<(Entity, Option<Box<[u8]>>)>;
pub(crate) type Records = BTreeMap<Entity, Box<[u8]>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Journal {
    /// The latest records.
    pub(crate) records: Records,
    /// What the disk has for sure, and what each turn since has changed.
    synced: Records,
    turns: Vec<Turn>,
    /// How many of these turns it holds: the rest wait for room.
    kept: usize,
    full: bool,
    /// Removals of what was never written.
    strays: u32,
    /// All that was ever put, by a fingerprint.
    past: BTreeSet<(Entity, u64)>,
    /// CDRs up to here may be there or not.
    safe: u64,
    real: Simulated,
    disk: Arc<PowerDisk>,
    generation: u64,
    shard: u16,
    rng: Rng,
    commits: u32,
}

/// What a journal held in the end, and what happened when it was read.
pub(crate) type Left = (Records, Saw);
type Saw = Vec<&'static str>;

fn print(record: &[u8]) -> u64 {
    record.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// An entity is no more, nor is its other half.
fn forget(records: &mut Records, entity: Entity) -> Option<Box<[u8]>> {
    entity.other_half().map(|half| records.remove(&half));
    records.remove(&entity)
}

fn apply(records: &mut Records, turn: &[(Entity, Option<Box<[u8]>>)]) {
    for (entity, record) in turn {
        match record {
            Some(record) => drop(records.insert(*entity, record.clone())),
            None => drop(forget(records, *entity)),
        }
    }
}

impl Sink for Journal {
    fn put(&mut self, entity: Entity, record: &[u8]) {
        self.real.journal.put(entity, record);
        self.past.insert((entity, print(record)));
        self.note(entity, Some(record.into()));
        self.records.insert(entity, record.into());
    }

    fn remove(&mut self, entity: Entity) {
        self.real.journal.remove(entity);
        self.note(entity, None);
        self.strays += u32::from(forget(&mut self.records, entity).is_none());
    }
}

impl Journal {
    pub(crate) fn new(generation: u64, shard: u16, mut rng: Rng) -> Journal {
        let disk = Arc::new(PowerDisk::new(rng.fork()));
        Journal {
            records: Records::new(),
            synced: Records::new(),
            turns: vec![Vec::new()],
            kept: 0,
            full: false,
            strays: 0,
            past: BTreeSet::new(),
            safe: 0,
            real: Simulated::new(disk.clone(), generation, shard, SEGMENT),
            disk,
            generation,
            shard,
            rng,
            commits: 0,
        }
    }

    fn note(&mut self, entity: Entity, record: Option<Box<[u8]>>) {
        if let Some(turn) = self.turns.last_mut() {
            turn.push((entity, record));
        }
    }

    /// The turn is over. What there is to say of its room.
    pub(crate) fn commit(&mut self) -> Option<&'static str> {
        self.real.journal.commit();
        if self.turns.last().is_some_and(|turn| !turn.is_empty()) {
            self.turns.push(Vec::new());
        }
        if self.rng.chance(30) {
            self.real.refill();
        }
        let full = self.real.journal.is_full();
        if !full {
            self.kept = self.turns.len() - 1;
        }
        self.commits += 1;
        // As a shard does that has nothing else to do.
        self.real.set_quiet(if self.commits % LONG < LONG / 4 { 5 } else { 1 });
        let tidied = self.commits.is_multiple_of(IDLE) && self.real.journal.tidy();
        match (std::mem::replace(&mut self.full, full), full) {
            (false, true) => Some("journal without room"),
            (true, false) => Some("journal with room again"),
            _ => tidied.then_some("journal tidied up"),
        }
    }

    /// Whether changes wait for room.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Its disk has room for so many files more; it is asked for it, as by the keeper's thread now and then.
    pub(crate) fn set_room(&mut self, files: Option<u64>) -> Option<&'static str> {
        self.disk.limit(files);
        self.real.refill();
        self.commit()
    }

    /// The disk has all that the journal holds.
    pub(crate) fn sync(&mut self) -> Result<(), Violation> {
        let synced = self.real.sync();
        synced.map_err(|error| Violation::new(format!("the journal does not reach its disk: {error}")))?;
        self.turns.drain(..self.kept).for_each(|turn| apply(&mut self.synced, &turn));
        self.kept = 0;
        Ok(())
    }

    /// So many CDRs, by their order, need not be kept.
    pub(crate) fn set_safe(&mut self, cdrs: u64) {
        self.safe = cdrs;
        self.real.set_safe(cdrs);
        let cdr = |id| Entity { kind: Kind::Cdr, id };
        let gone: Vec<Entity> = self.records.range(cdr(0)..cdr(cdrs)).map(|(e, _)| *e).collect();
        for entity in gone {
            self.note(entity, None);
            self.records.remove(&entity);
        }
    }

    /// The process is killed.
    pub(crate) fn kill(mut self) -> Result<Left, Violation> {
        let mut saw = vec!["journal read after a kill"];
        if self.strays > 0 {
            return Err(Violation::new(format!("{} entities that were never written were removed", self.strays)));
        }
        // In the midst of a turn: something was written, and is not committed.
        let torn = self.rng.chance(500) && !self.records.is_empty() && !self.full;
        if torn {
            self.tear();
        }
        if self.real.opened() > self.disk.made() {
            saw.push("segment of a journal used again");
        }
        if self.real.rested() > 0 {
            saw.push("killed while segments of its journal rested");
        }
        let files = self.real.killed();
        let (found, faults) = recovered(files.clone(), self.generation, self.shard)?;
        let mut was = std::mem::take(&mut self.synced);
        self.turns.iter().take(self.kept).for_each(|turn| apply(&mut was, turn));
        if differs(&found, &was, self.safe) {
            return Err(self.wrong("after a kill", &found, &faults));
        }
        self.only_torn(&faults)?;
        // What waits for room may be there in part, and is not committed.
        let unkept = self.real.journal.is_full();
        if unkept {
            saw.push("killed while the journal had no room");
        } else if faults.is_empty() == torn {
            return Err(Violation::new(format!("a turn that was cut is not told, or one that was not: {faults:?}")));
        }
        if torn {
            saw.push("turn that was not committed left out");
        }
        self.damage(&files, &found, !unkept, &mut saw)?;
        Ok((was, saw))
    }

    /// The machine loses its power.
    pub(crate) fn lose_power(mut self) -> Result<Left, Violation> {
        let mut saw = vec!["journal read after a loss of power"];
        let mut amid = false;
        if self.rng.chance(700) {
            self.disk.fail_after(self.rng.range(1, 8));
            amid = self.real.sync().is_err();
            if amid {
                saw.push("power lost amid a sync");
            }
        }
        let files = self.disk.lose_power();
        let (found, faults) = recovered(files.clone(), self.generation, self.shard)?;
        self.only_torn(&faults)?;
        let mut was = std::mem::take(&mut self.synced);
        let mut turns = std::mem::take(&mut self.turns).into_iter().take(self.kept);
        while differs(&found, &was, self.safe) {
            let Some(turn) = turns.next() else {
                return Err(self.wrong("after a loss of power", &found, &faults));
            };
            apply(&mut was, &turn);
        }
        self.damage(&files, &found, !amid && !self.full, &mut saw)?;
        Ok((was, saw))
    }

    fn tear(&mut self) {
        let some: Vec<Entity> = self.records.keys().copied().step_by(7).take(3).collect();
        for entity in some {
            let record = self.rng.draw().to_le_bytes();
            self.past.insert((entity, print(&record)));
            self.real.journal.put(entity, &record);
        }
    }

    fn only_torn(&self, faults: &[Fault]) -> Result<(), Violation> {
        match faults.iter().find(|f| !matches!(f.trouble, Trouble::Torn { .. })) {
            Some(fault) => Err(Violation::new(format!("shard {}'s journal: {fault}", self.shard))),
            None => Ok(()),
        }
    }

    fn wrong(&self, when: &str, found: &Records, faults: &[Fault]) -> Violation {
        let (is, was) = (found.len(), self.records.len());
        Violation::new(format!(
            "shard {}'s journal {when}: {is} records, not as any turn left them ({was} last); {faults:?}",
            self.shard
        ))
    }

    /// What is read of damaged files. `sealed`: their headers tell of all that they hold; after a sync that was cut they may hold
    /// turns more, and nobody misses those.
    fn damage(&mut self, files: &Files, intact: &Records, sealed: bool, saw: &mut Saw) -> Result<(), Violation> {
        if files.is_empty() || !self.rng.chance(400) {
            return Ok(());
        }
        let times = self.rng.range(1, 4);
        let files = damaged(files, times, &mut self.rng);
        let (found, faults) = recovered(files, self.generation, self.shard)?;
        if let Some((entity, _)) = found.iter().find(|(e, r)| !self.past.contains(&(**e, print(r)))) {
            return Err(Violation::new(format!("{entity:?} is read of damaged files, and was never written so")));
        }
        let differs = differs(&found, intact, self.safe);
        // Where a header is damaged in more places than one, what follows may be taken for the end.
        if differs && faults.is_empty() && times == 1 && sealed {
            return Err(Violation::new("damage of a journal is not told"));
        }
        saw.push(if differs { "journal's damage told" } else { "journal's damage without loss" });
        Ok(())
    }
}

fn recovered(files: Files, generation: u64, shard: u16) -> Result<(Records, Vec<Fault>), Violation> {
    let read = read(files, generation, shard);
    let (found, faults) = read.map_err(|error| Violation::new(format!("a journal cannot be read: {error}")))?;
    Ok((found.records.into_iter().collect(), faults))
}

/// Whether these are other records, but for CDRs that are safe.
fn differs(a: &Records, b: &Records, safe: u64) -> bool {
    let counts = |e: &Entity| e.kind != Kind::Cdr || e.id >= safe;
    !a.iter().filter(|(e, _)| counts(e)).eq(b.iter().filter(|(e, _)| counts(e)))
}
