//! Full segments of a quiet journal are on disk alone: their memory is given back until the shard needs them.
//!
//! Invariants
//! - Who has a segment may look at its records, nobody else may. The shard hands it over, for good, to the syncing thread, which
//!   hands it back when it has been called up. A follower who has it as well looks at it in memory or on disk (`follow.rs`).
//! - A segment goes to rest when the disk has all of it. Its file in memory goes first: a restart reads the disk's.
//! - Nobody waits for anybody: what has been called up comes some time later, or, if it cannot be read, as soon as it can.
//! - What comes back is what was written, or, where the disk has damaged it, a record that says nothing.

use super::ground::Copy;
use super::keeper::Pool;
use super::record::Salt;
use super::segment::{self, Awake, HEADER, Segment};
use super::{JournalError, memory, recover};
use crate::sys;
use crossbeam::queue::SegQueue;
use memmap2::UncheckedAdvice;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

/// Segments that go to rest in a pass of the syncing thread: each takes some milliseconds, and there is no hurry.
const PER_PASS: usize = 8;
/// Segments that come back in a pass: other shards' turns are to reach the disk meanwhile.
const WAKES: usize = 4;

/// What passes between a shard and the syncing thread. Lock-free.
#[derive(Debug, Default)]
pub(super) struct Doorway {
    resting: SegQueue<(u64, Arc<Segment>)>,
    called: SegQueue<u64>,
    up: SegQueue<(u64, Arc<Segment>)>,
    /// This system's segments cannot rest.
    closed: AtomicBool,
}

impl Doorway {
    /// Whether segments can rest here, as far as is known.
    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed)
    }

    /// This full segment may rest, until it is called up.
    pub fn enter(&self, number: u64, segment: Arc<Segment>) {
        self.resting.push((number, segment));
    }

    /// The shard needs a segment again.
    pub fn call_up(&self, number: u64) {
        self.called.push(number);
    }

    /// One that has been called up.
    pub fn next_up(&self) -> Option<(u64, Arc<Segment>)> {
        self.up.pop()
    }
}

impl Segment {
    /// Whether its records may be on disk alone for a while.
    #[must_use]
    pub fn can_rest(&self) -> bool {
        self.copy.is_some()
    }

    /// Gives back the memory of its records, which its copy on disk has. From here on a restart reads them there. Blocks.
    ///
    /// # Safety
    /// Nobody reads or writes its records until [`Segment::wake`] has succeeded; but with [`Segment::awake`] or [`Segment::copied`].
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: somebody looks at them. Others, when that cannot be: then its records are where they were; its
    /// file in memory may be gone.
    pub unsafe fn rest(&self) -> io::Result<()> {
        let filed = match &self.copy {
            None => return Err(io::ErrorKind::Unsupported.into()),
            Some(copy) => matches!(copy, Copy::File(_)),
        };
        // What begins within a page cannot be given back without what is before it.
        if sys::page_size() > HEADER {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // Who looks does not wait for this, so may look at several.
        let Ok(mut asleep) = self.asleep.try_write() else { return Err(io::ErrorKind::WouldBlock.into()) };
        // What `wake` needs.
        self.populate(0, HEADER)?;
        if !self.is_unnamed() {
            if filed {
                std::fs::remove_file(&self.path)?;
            }
            self.unnamed.store(true, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise, and who looks at them with `awake` does not now.
        let rests = unsafe { self.forget(filed) };
        *asleep = rests.is_ok();
        rests
    }

    /// Keeps its records in memory; `None`: they are on disk alone.
    pub fn awake(&self) -> Option<Awake<'_>> {
        Some(self.asleep.read().unwrap_or_else(PoisonError::into_inner)).filter(|asleep| !**asleep)
    }

    /// Reads these bytes, which were committed before it went to rest, from its copy on disk. Blocks.
    ///
    /// # Errors
    /// The disk's; or it is awake again, and out of use.
    pub fn copied(&self, from: usize, len: usize) -> Result<Box<[u8]>, JournalError> {
        let mut bytes = vec![0; len].into_boxed_slice();
        self.copy.as_ref().map_or(Ok(()), |copy| copy.read(&mut bytes, from as u64))?;
        Ok(bytes)
    }

    /// Has zeros in place of its records, in no memory if that is a file's.
    ///
    /// # Safety
    /// Nobody relies on them.
    unsafe fn forget(&self, filed: bool) -> io::Result<()> {
        let len = self.size() - HEADER;
        if filed {
            // SAFETY: within the mapping; by the caller's promise nobody sees that its bytes are zeros then.
            return unsafe { self.map.unchecked_advise_range(UncheckedAdvice::Remove, HEADER, len) };
        }
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(HEADER), len) }.fill(0);
        Ok(())
    }

    /// Whether it is in memory without a file there, so that it cannot be used anew.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.unnamed.load(Ordering::Relaxed)
    }

    /// Has its records in memory again, if they are not; how many bytes of them are damaged, and left out. Blocks.
    ///
    /// # Safety
    /// As of [`Segment::rest`].
    ///
    /// # Errors
    /// There is no memory, or the copy cannot be read: it still rests.
    pub unsafe fn wake(&self, salt: &Salt) -> Result<usize, JournalError> {
        let Some(copy) = self.copy.as_ref().filter(|_| self.awake().is_none()) else { return Ok(0) };
        let (end, filed) = (self.committed().max(HEADER), matches!(copy, Copy::File(_)));
        if let Some(dir) = self.path.parent().filter(|_| filed) {
            memory::space(dir, end)?;
        }
        // A store to a page that there is no memory for would end the process.
        let there = self.populate(HEADER, end - HEADER).map_err(JournalError::file(&self.path));
        // SAFETY: within the mapping, and by the caller's promise nobody else reads or writes there.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(HEADER), end - HEADER) };
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("came-back-unread") {
            *self.asleep.write().unwrap_or_else(PoisonError::into_inner) = false;
            return Ok(recover::mend(bytes, salt));
        }
        let read = there.and_then(|()| copy.read(bytes, HEADER as u64));
        if read.is_err() {
            // SAFETY: as above. What memory it has got it gives back; it tries again.
            let _ = unsafe { self.forget(filed) };
        }
        read?;
        let damaged = recover::mend(bytes, salt);
        *self.asleep.write().unwrap_or_else(PoisonError::into_inner) = false;
        Ok(damaged)
    }
}

/// A full segment that the shard has let go of.
#[derive(Debug)]
struct Full {
    number: u64,
    segment: Arc<Segment>,
    /// It cannot rest.
    keeps: bool,
}

impl Full {
    fn rest(&mut self) -> io::Result<()> {
        // SAFETY: the shard has let it go until `wake` (see the module), and followers look at it as they should.
        let outcome = unsafe { self.segment.rest() };
        if outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return Ok(());
        }
        self.keeps = outcome.is_err();
        outcome
    }

    fn wake(&self, salt: &Salt) -> Result<usize, JournalError> {
        // SAFETY: it has been here alone since `rest`.
        unsafe { self.segment.wake(salt) }
    }
}

/// The syncing thread's side.
#[derive(Debug)]
pub(super) struct Rests {
    pool: Arc<Pool>,
    full: Vec<Full>,
    called: Vec<u64>,
    /// One that was called up could not come.
    stuck: bool,
    more: bool,
    /// It has been told that one keeps its memory.
    told: bool,
}

impl Rests {
    pub fn new(pool: &Arc<Pool>) -> Rests {
        Rests { pool: Arc::clone(pool), full: vec![], called: vec![], stuck: false, more: false, told: false }
    }

    /// Whether more could have come in the last pass.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Takes what the shard has let go of, gives back memory, hands back what is needed. The disk has all of the segments before
    /// `last`. Blocks.
    pub fn pass(&mut self, last: u64) {
        let door = &self.pool.rests;
        // In this order: what was called up, has been let go of before.
        self.called.extend(std::iter::from_fn(|| door.called.pop()));
        let entered = std::iter::from_fn(|| door.resting.pop());
        self.full.extend(entered.map(|(number, segment)| Full { number, segment, keeps: false }));
        let called = &self.called;
        let may = |full: &&mut Full| {
            door.is_open()
                && !full.keeps
                && full.number < last
                && !called.contains(&full.number)
                && full.segment.awake().is_some()
        };
        for outcome in self.full.iter_mut().filter(may).take(PER_PASS).map(Full::rest) {
            let Err(error) = outcome else { continue };
            if [io::ErrorKind::Unsupported, io::ErrorKind::InvalidInput].contains(&error.kind()) {
                door.closed.store(true, Ordering::Relaxed);
            }
            if !std::mem::replace(&mut self.told, true) {
                tracing::info!(shard = self.pool.shard(), %error, "journal: segments that nobody looks at keep their memory");
            }
        }
        self.wake();
    }

    fn wake(&mut self) {
        let stuck = std::mem::take(&mut self.stuck);
        let mut come = 0;
        for number in std::mem::take(&mut self.called) {
            let at = self.full.iter().position(|full| full.number == number);
            let Some(at) = at.filter(|_| come < WAKES && !self.stuck) else {
                self.called.push(number);
                continue;
            };
            match self.full[at].wake(&segment::salt(self.pool.generation(), self.pool.shard(), number)) {
                Ok(damaged) => {
                    let full = self.full.swap_remove(at);
                    self.tell(&full, damaged);
                    self.pool.rests.up.push((full.number, full.segment));
                    come += 1;
                }
                Err(error) => {
                    if !stuck {
                        tracing::error!(shard = self.pool.shard(), %error, "journal: a segment cannot be had in memory again: the journal grows until it can");
                    }
                    self.stuck = true;
                    self.called.push(number);
                }
            }
        }
        self.more = come > 0 && !self.stuck && !self.called.is_empty();
    }

    fn tell(&self, full: &Full, damaged: usize) {
        if damaged > 0 {
            let path = full.segment.path().display();
            tracing::error!(shard = self.pool.shard(), segment = %path, bytes = damaged, "journal: damaged on disk: a restart does not find calls that were there, unless they have changed since");
        }
    }
}
