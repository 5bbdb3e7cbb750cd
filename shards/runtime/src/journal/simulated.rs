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
        files.into_iter().map(|(path, segment)| (path, segment.image())).collect()
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
