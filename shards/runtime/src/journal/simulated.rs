//! A shard's journal for simulations: the writer, the segments, what is synced of them and how they are read again are the real
//! ones; memory has no files, the disk is a program, and what the keeper's threads do happens when it is told to.

use super::ground::{Disk, Ground};
use super::keeper::{Pool, Synced};
use super::recover::{Fault, read_files};
use super::segment::Segment;
use super::{Journal, JournalError};
use crate::counts::RuntimeCounts;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use strowger_engine::journal::Recovered;

/// Files by name, with their bytes.
pub type Files = Vec<(PathBuf, Vec<u8>)>;

/// See the module.
#[derive(Debug)]
pub struct Simulated {
    pool: Arc<Pool>,
    /// The shard's end.
    pub journal: Journal,
    synced: Synced,
    safe: Arc<[AtomicU64]>,
}

impl Simulated {
    /// A new journal of a shard, with segments of `segment` bytes.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, generation: u64, shard: u16, segment: usize) -> Simulated {
        let pool = Arc::new(Pool::new(Ground::Unfiled(disk), generation, shard, segment));
        // Whenever its shard is idle, it is tidied.
        pool.set_quiet(1);
        let safe: Arc<[AtomicU64]> = (0..=shard).map(|_| AtomicU64::new(0)).collect();
        let journal = Journal::new(Arc::clone(&pool), Arc::clone(&safe), Arc::<RuntimeCounts>::default());
        Simulated { synced: Synced::new(&pool), pool, journal, safe }
    }

    /// So many of its CDRs are safe elsewhere.
    pub fn set_safe(&self, cdrs: u64) {
        if let Some(safe) = self.safe.last() {
            safe.store(cdrs, Ordering::Release);
        }
    }

    /// Has segments ready, as one of the keeper's threads does.
    pub fn refill(&self) {
        self.pool.refill();
    }

    /// Has the disk hold what is committed, as the other does.
    ///
    /// # Errors
    /// The disk's; nobody knows what of it is there.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.synced.pass()
    }

    /// Segments that it has written to, one after the other.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.pool.valid().0
    }

    /// What is left in memory when the process is killed now.
    #[must_use]
    pub fn killed(&mut self) -> Files {
        let synced = self.synced.segments();
        let all = self.journal.segments().chain(&synced);
        let files: BTreeMap<PathBuf, &Segment> = all.map(|s| (s.path().to_owned(), &**s)).collect();
        files.into_iter().filter_map(|(path, segment)| Some((path, segment.left()?))).collect()
    }

    /// How many segments are on disk alone.
    #[must_use]
    pub fn rested(&mut self) -> usize {
        self.synced.segments().iter().filter(|s| s.awake().is_none()).count()
    }

    /// So long has it been quiet, in looks: from one on it is tidied up whenever its shard is idle, from five on what is full rests.
    pub fn set_quiet(&self, looks: u32) {
        self.pool.set_quiet(looks);
    }
}

/// What the next process reads from a shard's files; CDRs are among the records.
///
/// # Errors
/// When one is of another version.
pub fn read(files: Files, generation: u64, shard: u16) -> Result<(Recovered, Vec<Fault>), JournalError> {
    let mut faults = vec![];
    read_files(files, generation, shard, &mut faults).map(|found| (found, faults))
}

#[cfg(test)]
mod tests {
    use super::super::recover::Trouble;
    use super::*;
    use std::collections::BTreeSet;
    use std::io;
    use std::path::Path;
    use std::sync::{Mutex, PoisonError};
    use strowger_engine::journal::{Entity, Kind, Sink};

    const SECTOR: usize = 512;

    /// All writes, in order: of which file, from where on, what.
    #[derive(Debug, Default)]
    struct Writes(Mutex<Vec<(String, usize, Vec<u8>)>>);

    impl Disk for Writes {
        fn create(&self, _: &str, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((name.to_owned(), usize::try_from(at).unwrap(), bytes.to_vec()));
            Ok(())
        }

        fn read(&self, name: &str, from: u64, to: &mut [u8]) -> io::Result<()> {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut files = BTreeMap::new();
            all.iter().filter(|w| w.0 == name).for_each(|w| write(&mut files, 16 << 10, w, u64::MAX));
            let file = files.get(Path::new(name)).ok_or(io::ErrorKind::NotFound)?;
            let from = usize::try_from(from).unwrap();
            to.copy_from_slice(&file[from..from + to.len()]);
            Ok(())
        }

        fn remove(&self, _: &str) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes the sectors of `which` to a file that is there, or is made.
    fn write(files: &mut BTreeMap<PathBuf, Vec<u8>>, size: usize, write: &(String, usize, Vec<u8>), which: u64) {
        let (name, from, bytes) = write;
        let file = files.entry(PathBuf::from(name)).or_insert_with(|| vec![0; size]);
        let mut at = *from;
        while at < from + bytes.len() {
            let end = (from + bytes.len()).min((at / SECTOR + 1) * SECTOR);
            if which >> ((at / SECTOR) % 64) & 1 == 1 {
                file[at..end].copy_from_slice(&bytes[at - from..end - from]);
            }
            at = end;
        }
    }

    #[test]
    fn a_busy_journal_writes_to_the_same_segments_again() {
        let disk = Arc::<Writes>::default();
        let mut journal = Simulated::new(disk.clone(), 3, 0, 16 << 10);
        for turn in 0..400_u64 {
            journal.journal.put(Entity { kind: Kind::Call, id: turn % 3 }, &[7; 2000]);
            journal.journal.commit();
            journal.refill();
            if turn % 16 == 0 {
                journal.sync().unwrap();
            }
        }
        let all = std::mem::take(&mut *disk.0.lock().unwrap());
        let made: BTreeSet<_> = all.iter().map(|(name, ..)| name).collect();
        assert!(journal.opened() > 50 && made.len() < 12, "{} made for {}", made.len(), journal.opened());
    }

    #[test]
    fn an_idle_shard_makes_its_journal_shorter_and_no_record_is_lost() {
        let (size, disk) = (16 << 10, Arc::<Writes>::default());
        let mut journal = Simulated::new(disk, 3, 0, size);
        let call = |id| Entity { kind: Kind::Call, id };
        let mut expected = BTreeMap::new();
        for turn in 0..1000_u64 {
            let record = turn.to_le_bytes().repeat(60);
            journal.journal.put(call(turn % 200), &record);
            expected.insert(call(turn % 200), record.into_boxed_slice());
            if turn % 9 == 0 {
                journal.journal.remove(call(turn % 50));
                expected.remove(&call(turn % 50));
            }
            journal.journal.commit();
            journal.refill();
            journal.sync().unwrap();
        }
        let lives: usize = expected.values().map(|record| record.len() + 24).sum();
        let length = |journal: &Simulated| journal.journal.segments().count() * size;
        assert!(length(&journal) > lives * 2, "{} bytes for {lives}", length(&journal));
        journal.pool.set_quiet(0);
        assert!(!journal.journal.tidy(), "it would be written to for nothing: more comes");
        journal.pool.set_quiet(1);
        let mut naps = 0;
        while journal.journal.tidy() {
            naps += 1;
            assert!(naps < 300, "{} bytes for {lives}", length(&journal));
            let (found, faults) = read(journal.killed(), 3, 0).unwrap();
            assert!(found.records.into_iter().eq(expected.clone()) && faults.is_empty(), "{naps}: {faults:?}");
            journal.refill();
            journal.sync().unwrap();
        }
        assert!(naps > 0 && length(&journal) < lives * 5 / 4 + 3 * size, "{naps}: {} for {lives}", length(&journal));
        let opened = journal.opened();
        assert!(!journal.journal.tidy() && journal.opened() == opened);
        // A little more is no reason to begin again; nor does it wait for segments to be made.
        (0..20).for_each(|id| journal.journal.put(call(id), &[1; 480]));
        journal.journal.commit();
        assert!(!journal.journal.tidy());
        (0..400).for_each(|id| journal.journal.put(call(id % 20), &[2; 480]));
        journal.journal.commit();
        assert!(!journal.journal.tidy(), "none is ready");
        journal.refill();
        assert!(journal.journal.tidy());
    }

    #[test]
    fn no_loss_of_power_makes_a_header_look_damaged() {
        let (size, disk) = (16 << 10, Arc::<Writes>::default());
        let mut journal = Simulated::new(disk.clone(), 3, 0, size);
        for turn in 0..60_u64 {
            let call = Entity { kind: Kind::Call, id: turn % 3 };
            journal.journal.put(call, &[u8::try_from(turn).unwrap(); 2000]);
            journal.journal.commit();
            if turn % 4 == 0 {
                journal.sync().unwrap();
            }
        }
        let all = std::mem::take(&mut *disk.0.lock().unwrap());
        let uses = all.iter().filter(|(name, at, _)| name == "segment-1" && *at == 0).count();
        assert!(uses > 4, "segments were used again");
        let mut before = BTreeMap::new();
        for last in &all {
            // Of a header, each combination of its eight sectors; of data, each sector alone, and all but each.
            let torn: Vec<u64> =
                if last.1 == 0 { (0..256).collect() } else { (0..64).flat_map(|n| [1 << n, !(1 << n)]).collect() };
            for which in torn {
                let mut files = before.clone();
                write(&mut files, size, last, which);
                let (_, faults) = read(files.into_iter().collect(), 3, 0).unwrap();
                let damaged = faults.iter().find(|fault| !matches!(fault.trouble, Trouble::Torn { .. }));
                assert_eq!(damaged, None, "sectors {which:b} of {} from byte {} on", last.0, last.1);
            }
            write(&mut before, size, last, u64::MAX);
        }
    }
}
