//! Full segments of a quiet journal are on disk alone: their memory is given back until the shard needs them.
//!
//! Invariants
//! - Who has a segment may look at its records, nobody else may. The shard hands it over, for good, to the syncing thread, which
//!   hands it back when it has been called up. A follower who has it as well looks at it in memory or on disk (`follow.rs`).
//! - A segment goes to rest when the disk has all of it. Its file in memory goes first: a restart reads the disk's.
//! - Nobody waits for anybody: what has been called up comes some time later, or, if it cannot be read, as soon as it can.
//! - What comes back is what was written, or, where the disk has damaged it, a record that says nothing.

use super::JournalError;
use super::keeper::Pool;
use super::record::Salt;
use super::segment::{self, Segment};
use crossbeam::queue::SegQueue;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// A full segment that the shard has let go of.
#[derive(Debug)]
struct Full {
    number: u64,
    segment: Arc<Segment>,
    rests: bool,
    /// It cannot.
    keeps: bool,
}

impl Full {
    fn rest(&mut self) -> io::Result<()> {
        // SAFETY: the shard has let it go until `wake` (see the module), and followers look at it as they should.
        let outcome = unsafe { self.segment.rest() };
        match &outcome {
            Ok(()) => self.rests = true,
            Err(busy) if busy.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => self.keeps = true,
        }
        outcome
    }

    fn wake(&self, salt: &Salt) -> Result<usize, JournalError> {
        // SAFETY: it has been here alone since `rest`.
        if self.rests { unsafe { self.segment.wake(salt) } } else { Ok(0) }
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
        self.full.extend(entered.map(|(number, segment)| Full { number, segment, rests: false, keeps: false }));
        let called = &self.called;
        let may = |full: &&mut Full| {
            door.is_open() && !(full.rests || full.keeps) && full.number < last && !called.contains(&full.number)
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
