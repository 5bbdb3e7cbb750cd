//! The journal's threads: one has segments ready before shards need them, one syncs what is committed to disk.
//!
//! A shard never waits for them: it takes a ready segment or makes one itself (counted), and what it lets go of is used
//! anew by the syncing thread once everything written until then is on disk.

use super::segment::Segment;
use super::{JournalError, JournalSpec};
use crate::counts::RuntimeCounts;
use crate::sys;
use crossbeam::queue::{ArrayQueue, SegQueue};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// Segments that are kept ready for each shard.
const SPARES: usize = 2;
/// Segments that wait for a follower to let them go, for each shard; of more, the oldest are removed instead.
const HELD: usize = 4;
/// Pause before the disk is asked for room again.
const AGAIN: Duration = Duration::from_millis(100);

/// What a shard and the journal's threads share. Lock-free.
#[derive(Debug)]
pub(super) struct Pool {
    dir: PathBuf,
    generation: u64,
    shard: u16,
    size: usize,
    spares: ArrayQueue<Arc<Segment>>,
    /// From the shard: segments that it writes to from now on, and those that it does not need any more.
    opened: SegQueue<Arc<Segment>>,
    retired: SegQueue<Arc<Segment>>,
    /// How far the journal is valid: number of a segment, and bytes of it. All segments below are, as far as they are committed.
    valid: AtomicU64,
    /// Segments that the shard writes to from now on, for a follower, if there is one.
    followed: AtomicBool,
    to_follow: SegQueue<Arc<Segment>>,
    /// Name of the next file.
    files: AtomicU64,
    /// The disk had no room when it was last asked.
    starved: AtomicBool,
    /// The thread that makes segments.
    maker: OnceLock<Thread>,
}

impl Pool {
    pub fn new(dir: PathBuf, generation: u64, shard: u16, size: usize) -> Pool {
        Pool {
            dir,
            generation,
            shard,
            size,
            spares: ArrayQueue::new(SPARES),
            opened: SegQueue::new(),
            retired: SegQueue::new(),
            valid: AtomicU64::new(0),
            followed: AtomicBool::new(false),
            to_follow: SegQueue::new(),
            files: AtomicU64::new(1),
            starved: AtomicBool::new(false),
            maker: OnceLock::new(),
        }
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn shard(&self) -> u16 {
        self.shard
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// A segment to write to; `None`: the disk has no room.
    pub fn take(&self, counts: &RuntimeCounts) -> Option<Arc<Segment>> {
        let ready = self.spares.pop();
        if let Some(maker) = self.maker.get() {
            maker.unpark();
        }
        if ready.is_some() || self.starved.load(Ordering::Relaxed) {
            return ready;
        }
        counts.journal_unready.add(1);
        self.make().ok()
    }

    /// The shard writes to this one now.
    pub fn tell(&self, segment: &Arc<Segment>) {
        self.opened.push(Arc::clone(segment));
        if self.followed.load(Ordering::Acquire) {
            self.to_follow.push(Arc::clone(segment));
        }
    }

    /// A turn is over: the journal is valid up to byte `end` of segment `number`, which is the newest.
    pub fn publish(&self, number: u64, end: usize) {
        self.valid.store(number << 32 | end as u64, Ordering::Release);
    }

    /// Number of the newest segment with something valid in it (0: there is none), and how far it is.
    pub fn valid(&self) -> (u64, usize) {
        let valid = self.valid.load(Ordering::Acquire);
        (valid >> 32, (valid & 0xffff_ffff) as usize)
    }

    /// Whether a follower is told of segments: of all, or it takes their numbers for others.
    pub fn set_followed(&self, on: bool) {
        self.followed.store(on, Ordering::Release);
    }

    /// The next segment that the follower has not been told of.
    pub fn next_followed(&self) -> Option<Arc<Segment>> {
        self.to_follow.pop()
    }

    /// The shard does not need this one any more.
    pub fn retire(&self, segment: Arc<Segment>) {
        self.retired.push(segment);
    }

    /// Makes a segment. Says so when the disk begins to have no room.
    fn make(&self) -> Result<Arc<Segment>, JournalError> {
        let file = self.files.fetch_add(1, Ordering::Relaxed);
        let made = Segment::create(&self.dir.join(format!("segment-{file}")), self.shard, self.size);
        if self.starved.swap(made.is_err(), Ordering::Relaxed) != made.is_err() {
            match &made {
                Err(error) => {
                    tracing::error!(shard = self.shard, %error, "new calls are refused when the room that is left is used up")
                }
                Ok(_) => tracing::info!(shard = self.shard, "journal: there is room again"),
            }
        }
        made.map(Arc::new)
    }

    fn refill(&self) {
        while !self.spares.is_full() {
            let Ok(segment) = self.make() else { return };
            if let Err(segment) = self.spares.push(segment) {
                remove(&segment);
            }
        }
    }

    /// Takes a segment out of use; its file serves again, or goes. One that a follower still holds must stay as it is.
    fn recycle(&self, mut segment: Arc<Segment>) {
        if Arc::get_mut(&mut segment).is_none() {
            return remove(&segment);
        }
        segment.close();
        segment.prefault(0, segment.size());
        if let Err(segment) = self.spares.push(segment) {
            remove(&segment);
        }
    }
}

fn remove(segment: &Segment) {
    if let Err(error) = std::fs::remove_file(segment.path()) {
        tracing::warn!(path = %segment.path().display(), %error, "journal: a segment cannot be removed");
    }
}

/// What is synced of one shard: its segments in use, each with how far it is on disk.
struct Synced {
    pool: Arc<Pool>,
    segments: Vec<(Arc<Segment>, usize)>,
    /// Not needed any more, but what was written before may not be on disk.
    retired: Vec<Arc<Segment>>,
    failing: bool,
}

impl Synced {
    fn pass(&mut self) -> Result<(), JournalError> {
        self.retired.extend(std::iter::from_fn(|| self.pool.retired.pop()));
        self.segments.extend(std::iter::from_fn(|| self.pool.opened.pop()).map(|s| (s, 0)));
        let mut outcome = Ok(());
        for (segment, synced) in &mut self.segments {
            if segment.committed() != *synced {
                let end = segment.sync(*synced).map(|end| *synced = end);
                outcome = outcome.and(end);
            }
        }
        if let Err(error) = &outcome
            && !self.failing
        {
            tracing::error!(shard = self.pool.shard, %error, "the journal does not reach the disk: calls outlive a kill, but no loss of power");
        }
        self.failing = outcome.is_err();
        if outcome.is_ok() {
            for segment in &self.retired {
                self.segments.retain(|(kept, _)| !Arc::ptr_eq(kept, segment));
            }
            // What a follower is at may wait a while.
            let waits = |s: &mut Arc<Segment>| Arc::get_mut(s).is_none();
            let mut held: Vec<_> = self.retired.extract_if(.., waits).collect();
            let most = held.len().saturating_sub(HELD);
            self.retired.drain(..).chain(held.drain(..most)).for_each(|segment| self.pool.recycle(segment));
            self.retired = held;
        }
        outcome
    }
}

/// A request for a sync at once, with where the answer goes.
type Request = flume::Sender<Result<(), JournalError>>;

/// The journal's threads. Dropped, they end after a last sync.
#[derive(Debug)]
pub struct Keeper {
    over: Arc<AtomicBool>,
    /// Dropped first of all, which ends the syncing thread.
    syncs: Option<flume::Sender<Request>>,
    threads: Vec<JoinHandle<()>>,
    dir: PathBuf,
}

impl Keeper {
    /// Starts the threads for these shards.
    ///
    /// # Errors
    /// When the system has no threads left.
    pub(super) fn start(pools: &[Arc<Pool>], spec: &JournalSpec) -> Result<Keeper, JournalError> {
        let (syncs, requests) = flume::bounded::<Request>(1);
        let mut keeper = Keeper { over: Arc::default(), syncs: Some(syncs), threads: vec![], dir: spec.dir.clone() };
        let over = Arc::clone(&keeper.over);
        let makers = pools.to_vec();
        keeper.spawn("journal-space", move || {
            while !over.load(Ordering::Acquire) {
                makers.iter().for_each(|pool| pool.refill());
                std::thread::park_timeout(AGAIN);
            }
        })?;
        if let Some(maker) = keeper.threads.first() {
            pools.iter().for_each(|pool| drop(pool.maker.set(maker.thread().clone())));
        }
        let synced =
            |pool: &Arc<Pool>| Synced { pool: Arc::clone(pool), segments: vec![], retired: vec![], failing: false };
        let shards: Vec<Synced> = pools.iter().map(synced).collect();
        let pause = spec.sync;
        keeper.spawn("journal-sync", move || sync(shards, &requests, pause))?;
        Ok(keeper)
    }

    /// Waits until all that is committed is on disk.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn sync_now(&self) -> Result<(), JournalError> {
        let (answer, done) = flume::bounded(1);
        let asked = self.syncs.as_ref().is_some_and(|s| s.send(answer).is_ok());
        let died = || std::io::Error::other("the syncing thread is gone");
        done.recv().ok().filter(|_| asked).unwrap_or_else(|| Err(JournalError::file(&self.dir)(died())))
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), JournalError> {
        let background = move || {
            sys::step_behind();
            work();
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(background);
        self.threads.push(thread.map_err(JournalError::file(&self.dir))?);
        Ok(())
    }
}

/// Syncs at intervals and on request, and a last time at the end.
fn sync(mut shards: Vec<Synced>, requests: &flume::Receiver<Request>, pause: Duration) {
    loop {
        let request = requests.recv_timeout(pause);
        let outcome = shards.iter_mut().map(Synced::pass).fold(Ok(()), Result::and);
        match request {
            Ok(answer) => drop(answer.send(outcome)),
            Err(flume::RecvTimeoutError::Timeout) => {}
            Err(flume::RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.syncs = None;
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
