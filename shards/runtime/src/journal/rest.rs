//! Full segments of a quiet journal are on disk alone: their memory is given back until the shard needs them.
//!
//! Invariants
//! - Who has a segment may look at its records, nobody else may. The shard hands it over, for good, to the syncing thread, which
//!   hands it back when it has been called up; a follower who has it as well keeps it awake.
//! - A segment goes to rest when the disk has all of it. Its file in memory goes first: a restart reads the disk's.
//! - Nobody waits for anybody: what has been called up comes some time later, or, if it cannot be read, never.

use super::JournalError;
use super::keeper::Pool;
use super::segment::Segment;
use crossbeam::queue::SegQueue;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Segments that go to rest in a pass of the syncing thread: each takes some milliseconds, and there is no hurry.
const PER_PASS: usize = 8;

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
}

impl Full {
    fn rest(&mut self) -> io::Result<()> {
        // What others have read of it, they have read before they let it go.
        fence(Ordering::Acquire);
        // SAFETY: the shard has let it go until `wake` (see the module), and nobody has it who could hand it to anybody.
        unsafe { self.segment.rest() }?;
        self.rests = true;
        Ok(())
    }

    fn wake(&self) -> Result<(), JournalError> {
        // SAFETY: it has been here alone since `rest`.
        if self.rests { unsafe { self.segment.wake() } } else { Ok(()) }
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
}

impl Rests {
    pub fn new(pool: &Arc<Pool>) -> Rests {
        Rests { pool: Arc::clone(pool), full: vec![], called: vec![], stuck: false }
    }

    /// Takes what the shard has let go of, gives back memory, hands back what is needed. The disk has all of the segments before
    /// `last`; the syncing thread itself holds each of them once. Blocks.
    pub fn pass(&mut self, last: u64) {
        let door = &self.pool.rests;
        let entered = std::iter::from_fn(|| door.resting.pop());
        self.full.extend(entered.map(|(number, segment)| Full { number, segment, rests: false }));
        self.called.extend(std::iter::from_fn(|| door.called.pop()));
        let called = &self.called;
        let may = |full: &&mut Full| {
            !full.rests && full.number < last && !called.contains(&full.number) && Arc::strong_count(&full.segment) == 2
        };
        if let Err(error) = self.full.iter_mut().filter(may).take(PER_PASS).try_for_each(Full::rest)
            && !door.closed.swap(true, Ordering::Relaxed)
        {
            tracing::info!(shard = self.pool.shard(), %error, "journal: segments that nobody looks at keep their memory");
        }
        self.wake();
    }

    fn wake(&mut self) {
        let stuck = std::mem::take(&mut self.stuck);
        for number in std::mem::take(&mut self.called) {
            let Some(at) = self.full.iter().position(|full| full.number == number) else { continue };
            match self.full[at].wake() {
                Ok(()) => {
                    let full = self.full.swap_remove(at);
                    self.pool.rests.up.push((full.number, full.segment));
                }
                Err(error) => {
                    if !stuck && !self.stuck {
                        tracing::error!(shard = self.pool.shard(), %error, "journal: a segment cannot be read again: the journal grows until it can");
                    }
                    self.stuck = true;
                    self.called.push(number);
                }
            }
        }
    }
}
