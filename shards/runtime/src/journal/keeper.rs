//! The journal's threads: one has segments ready before shards need them, one syncs what is committed to disk.
//!
//! A shard never waits for them: it takes a ready segment or makes one itself (counted), and what it lets go of is
//! made ready anew by the syncing thread once everything written until then is on disk; or removed, if it has rested.

use super::ground::{Copy, Ground};
use super::rest::{Doorway, Rests};
use super::segment::{HEADER, Progress, Segment};
use super::{JournalError, JournalSpec, memory};
use crate::counts::RuntimeCounts;
use crate::sys;
use crossbeam::queue::{ArrayQueue, SegQueue};
use std::cmp::Ordering as CmpOrdering;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Segments that are made ready for each shard.
const READY: usize = 2;
/// Used ones that may be ready beside them: a busy shard writes to the same few again and again, and none is made.
const SPARES: usize = 12;
/// Segments that wait for a follower to let them go, for each shard; of more, the oldest are removed instead.
const HELD: usize = 12;
/// Pause before the disk is asked for room again.
const AGAIN: Duration = Duration::from_millis(100);
/// Pause between looks at what the shards have written. A spare that nobody needed meanwhile goes.
const LOOK: Duration = Duration::from_secs(2);
/// Looks at a still journal (`Pool::still`) before what is full goes to rest, and spares go at once.
pub(super) const REST_AFTER: u32 = 5;
/// Bytes that are little for a shard to write between two.
const LITTLE: u64 = 1 << 20;
/// And so few that what is full may rest: what comes back cannot be used anew.
const HARDLY: u64 = 256 << 10;

/// What a shard and the journal's threads share. Lock-free.
#[derive(Debug)]
pub(super) struct Pool {
    ground: Ground,
    generation: u64,
    shard: u16,
    size: usize,
    spares: ArrayQueue<Arc<Segment>>,
    /// How often one was asked for.
    taken: AtomicU64,
    /// From the shard: segments that it writes to from now on, and those that it does not need any more.
    opened: SegQueue<(u64, Arc<Segment>)>,
    retired: SegQueue<Arc<Segment>>,
    /// How far the journal is valid: number of a segment, and bytes of it. All segments below are, as far as they are committed.
    valid: AtomicU64,
    /// Number of the oldest segment that is needed. Stored after the `valid` that it relies on.
    oldest: AtomicU64,
    /// Segments that the shard writes to from now on, for a follower, if there is one.
    followed: AtomicBool,
    to_follow: SegQueue<Arc<Segment>>,
    /// Name of the next file.
    files: AtomicU64,
    /// The disk had no room when it was last asked.
    starved: AtomicBool,
    /// The memory had none.
    crowded: AtomicBool,
    /// The thread that makes segments.
    maker: OnceLock<Thread>,
    /// Bytes that turns have written; and how often in a row it was found that they were few.
    written: AtomicU64,
    quiet: AtomicU32,
    still: AtomicU32,
    pub rests: Doorway,
}

impl Pool {
    pub fn new(ground: Ground, generation: u64, shard: u16, size: usize) -> Pool {
        Pool {
            ground,
            generation,
            shard,
            size,
            spares: ArrayQueue::new(SPARES),
            taken: AtomicU64::new(0),
            opened: SegQueue::new(),
            retired: SegQueue::new(),
            valid: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
            followed: AtomicBool::new(false),
            to_follow: SegQueue::new(),
            files: AtomicU64::new(1),
            starved: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            maker: OnceLock::new(),
            written: AtomicU64::new(0),
            quiet: AtomicU32::new(0),
            still: AtomicU32::new(0),
            rests: Doorway::default(),
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
        self.taken.fetch_add(1, Ordering::Relaxed);
        if let Some(maker) = self.maker.get() {
            maker.unpark();
        }
        if ready.is_some() || self.starved.load(Ordering::Relaxed) {
            return ready;
        }
        counts.journal_unready.add(1);
        self.make().ok()
    }

    /// Whether one may take a segment that is not needed at once: the rest will do for who comes meanwhile, and there is room.
    pub fn has_plenty(&self) -> bool {
        let short = [&self.starved, &self.crowded].iter().any(|flag| flag.load(Ordering::Relaxed));
        self.spares.len() >= READY && !short
    }

    /// The shard writes to this one now.
    pub fn tell(&self, number: u64, segment: &Arc<Segment>) {
        self.opened.push((number, Arc::clone(segment)));
        if self.followed.load(Ordering::Acquire) {
            self.to_follow.push(Arc::clone(segment));
        }
    }

    /// A turn is over, which wrote so many bytes: the journal is valid up to byte `end` of segment `number`, which is the newest.
    pub fn publish(&self, number: u64, end: usize, bytes: usize) {
        // Only the shard does this.
        self.written.store(self.written.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
        self.valid.store(number << 32 | end as u64, Ordering::Release);
    }

    /// Number of the newest segment with something valid in it (0: there is none), and how far it is.
    pub fn valid(&self) -> (u64, usize) {
        let valid = self.valid.load(Ordering::Acquire);
        (valid >> 32, (valid & 0xffff_ffff) as usize)
    }

    /// Segments below are not needed as of what was published last.
    pub fn set_oldest(&self, oldest: u64) {
        self.oldest.store(oldest, Ordering::Release);
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

    /// How often in a row, every two seconds, it was found that the shard writes little.
    pub fn quiet(&self) -> u32 {
        self.quiet.load(Ordering::Relaxed)
    }

    /// As [`Pool::quiet`], that it writes hardly anything.
    pub fn still(&self) -> u32 {
        self.still.load(Ordering::Relaxed)
    }

    /// For simulations.
    pub fn set_quiet(&self, looks: u32) {
        self.quiet.store(looks, Ordering::Relaxed);
        self.still.store(looks, Ordering::Relaxed);
    }

    /// Whether there was no room in memory the last time that anybody asked.
    pub fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Looks whether the shard has written much since `seen`, and whether there is room in memory again.
    pub fn look(&self, seen: &mut u64) {
        let written = self.written.load(Ordering::Relaxed);
        let bytes = written - std::mem::replace(seen, written);
        for (looks, most) in [(&self.quiet, LITTLE), (&self.still, HARDLY)] {
            let before = looks.load(Ordering::Relaxed);
            looks.store(if bytes <= most { before.saturating_add(1) } else { 0 }, Ordering::Relaxed);
        }
        if self.is_crowded()
            && let Ground::Files { memory: Some(dir), .. } = &self.ground
            && memory::room(dir, self.size).is_ok()
            && self.crowded.swap(false, Ordering::Relaxed)
        {
            tracing::info!(shard = self.shard, "journal: there is room in memory again");
        }
    }

    /// Makes a segment. Says so when the disk begins to have no room.
    fn make(&self) -> Result<Arc<Segment>, JournalError> {
        let file = self.files.fetch_add(1, Ordering::Relaxed);
        let name = format!("segment-{file}");
        let made = match &self.ground {
            Ground::Files { dir, memory } => {
                let path = dir.join(&name);
                match memory.as_ref().and_then(|memory| self.in_memory(memory, &name)) {
                    Some(segment) => segment.with_copy(&path),
                    None => Segment::create(&path, self.shard, self.size),
                }
            }
            Ground::Unfiled(disk) => {
                let made = disk.create(&name, self.size);
                let copy = Copy::Unfiled { disk: Arc::clone(disk), name };
                let path = copy.path();
                let made = made.and_then(|()| Segment::unfiled(copy, self.shard, self.size));
                made.map_err(JournalError::file(&path))
            }
        };
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

    /// A segment in memory, its copy still to be made. Where there is no room, it is to be on disk itself.
    fn in_memory(&self, dir: &Path, name: &str) -> Option<Segment> {
        let made = memory::room(dir, self.size).and_then(|()| Segment::create(&dir.join(name), self.shard, self.size));
        if self.crowded.swap(made.is_err(), Ordering::Relaxed) != made.is_err() {
            match &made {
                Err(error) => {
                    tracing::warn!(shard = self.shard, %error, "further segments are mapped on disk, where calls may wait for it")
                }
                Ok(_) => tracing::info!(shard = self.shard, "journal: there is room in memory again"),
            }
        }
        made.ok()
    }

    pub fn refill(&self) {
        while self.spares.len() < READY {
            let Ok(segment) = self.make() else { return };
            if let Err(segment) = self.spares.push(segment) {
                segment.remove();
            }
        }
    }

    /// Lets go of a spare that was of use when there was more to write, if none has been taken since `seen`; of all of these when
    /// little has been written for long.
    fn shrink(&self, seen: &mut u64) {
        let taken = self.taken.load(Ordering::Relaxed);
        if std::mem::replace(seen, taken) != taken {
            return;
        }
        let all_but_one = self.spares.len().saturating_sub(1);
        let keep = if self.still() >= REST_AFTER { READY } else { READY.max(all_but_one) };
        while self.spares.len() > keep
            && let Some(segment) = self.spares.pop()
        {
            segment.remove();
        }
    }

    /// Takes a segment out of use; its file serves again, or goes. One that a follower still holds must stay as it is.
    fn recycle(&self, mut segment: Arc<Segment>) {
        if Arc::get_mut(&mut segment).is_none() || segment.is_unnamed() {
            return segment.remove();
        }
        segment.freshen();
        if let Err(segment) = self.spares.push(segment) {
            segment.remove();
        }
    }
}

/// A segment in use, and what of it is on disk.
#[derive(Debug)]
struct Used {
    segment: Arc<Segment>,
    number: u64,
    /// How far its bytes are.
    data: usize,
    /// What its header says there.
    header: Option<Progress>,
}

impl Used {
    fn new(number: u64, segment: Arc<Segment>) -> Used {
        Used { segment, number, data: HEADER, header: None }
    }
}

/// What is synced of one shard.
#[derive(Debug)]
pub(super) struct Synced {
    pool: Arc<Pool>,
    /// Segments in use, the oldest first.
    used: Vec<Used>,
    /// Not needed any more, but what was written before may not be on disk.
    retired: Vec<Arc<Segment>>,
    failing: bool,
    /// Files were made whose names the disk may not have.
    unnamed: bool,
    rests: Rests,
}

impl Synced {
    pub fn new(pool: &Arc<Pool>) -> Synced {
        Synced {
            pool: Arc::clone(pool),
            used: vec![],
            retired: vec![],
            failing: false,
            unnamed: false,
            rests: Rests::new(pool),
        }
    }

    /// Has the disk hold what is valid now, and gives back what is not needed any more. Blocks.
    ///
    /// # Errors
    /// When it does not get there; it is tried again with the next pass.
    pub fn pass(&mut self) -> Result<(), JournalError> {
        // In this order: what was retired, is not needed as of this `oldest`; what replaced it, is within this `valid`; and
        // the segments of that are among those opened.
        self.retired.extend(std::iter::from_fn(|| self.pool.retired.pop()));
        let oldest = self.pool.oldest.load(Ordering::Acquire);
        let valid = self.pool.valid();
        let before = self.used.len();
        self.used
            .extend(std::iter::from_fn(|| self.pool.opened.pop()).map(|(number, segment)| Used::new(number, segment)));
        self.unnamed |= self.used.len() > before;
        let named = if self.unnamed { self.pool.ground.sync() } else { Ok(()) };
        self.unnamed = named.is_err();
        let outcome = named.and_then(|()| self.write(oldest, valid));
        if let Err(error) = &outcome
            && !self.failing
        {
            tracing::error!(shard = self.pool.shard, %error, "the journal does not reach the disk: calls outlive a kill, but no loss of power");
        }
        self.failing = outcome.is_err();
        if outcome.is_ok() {
            for segment in &self.retired {
                self.used.retain(|used| !Arc::ptr_eq(&used.segment, segment));
            }
            // What a follower is at may wait a while.
            let waits = |s: &mut Arc<Segment>| Arc::get_mut(s).is_none();
            let mut held: Vec<_> = self.retired.extract_if(.., waits).collect();
            let most = held.len().saturating_sub(HELD);
            self.retired.drain(..).chain(held.drain(..most)).for_each(|segment| self.pool.recycle(segment));
            self.retired = held;
        }
        // Of whatever is older than the newest of what is valid, all is on disk then.
        self.rests.pass(if outcome.is_ok() { valid.0 } else { 0 });
        outcome
    }

    /// Whether the shard waits for something that the next pass may bring.
    pub fn has_more(&self) -> bool {
        self.rests.has_more()
    }

    /// The segments that are not free for other use yet, in no order.
    pub fn segments(&mut self) -> Vec<Arc<Segment>> {
        self.retired.extend(std::iter::from_fn(|| self.pool.retired.pop()));
        let opened: Vec<_> = std::iter::from_fn(|| self.pool.opened.pop()).collect();
        self.used.extend(opened.into_iter().map(|(number, segment)| Used::new(number, segment)));
        self.used.iter().map(|used| &used.segment).chain(&self.retired).map(Arc::clone).collect()
    }

    /// Has the disk hold the journal up to `valid`. Every step leaves whole turns there: data comes before any header; new
    /// segments are first written down as opened, in order, where commit marks tell what is valid; then headers follow from the
    /// newest on, so that none names a segment that is not there, and the last of a turn makes all of it valid.
    fn write(&mut self, oldest: u64, valid: (u64, usize)) -> Result<(), JournalError> {
        let (last, end) = valid;
        let of = |used: &Used| match used.number.cmp(&last) {
            CmpOrdering::Less => {
                let (committed, oldest) = (used.segment.committed(), used.segment.oldest());
                Some(Progress { committed, oldest, next: used.number + 1 })
            }
            CmpOrdering::Equal => Some(Progress { committed: end, oldest, next: 0 }),
            // Nothing in it is valid yet.
            CmpOrdering::Greater => None,
        };
        let now: Vec<Option<Progress>> = self.used.iter().map(of).collect();
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("journal-header-before-data") {
            for (used, now) in self.used.iter().zip(&now) {
                now.map_or(Ok(()), |now| used.segment.sync_header(&now))?;
            }
        }
        for (used, now) in self.used.iter_mut().zip(&now) {
            if let Some(Progress { committed, .. }) = *now
                && committed > used.data
            {
                let synced = used.segment.sync_data(used.data, committed);
                // What the disk has of it is not known now: it is written again as a whole.
                used.data = if synced.is_ok() { committed } else { HEADER };
                synced?;
            }
        }
        for (used, now) in self.used.iter_mut().zip(&now) {
            if let Some(now) = now.filter(|_| used.header.is_none()) {
                let opened = Progress { committed: HEADER, next: 0, ..now };
                used.segment.sync_opened(&opened)?;
                used.header = Some(opened);
            }
        }
        for (used, now) in self.used.iter_mut().zip(&now).rev() {
            if let Some(now) = now.filter(|now| used.header != Some(*now)) {
                used.segment.sync_header(&now)?;
                used.header = Some(now);
            }
        }
        Ok(())
    }
}

/// A request for a sync at once, with where the answer goes.
type Request = flume::Sender<Result<(), JournalError>>;

/// The journal's threads. Dropped, they end after a last sync; what is in memory goes when the disk has it.
#[derive(Debug)]
pub struct Keeper {
    over: Arc<AtomicBool>,
    /// Dropped first of all, which ends the syncing thread.
    syncs: Option<flume::Sender<Request>>,
    maker: Option<JoinHandle<()>>,
    syncer: Option<JoinHandle<Result<(), JournalError>>>,
    dir: PathBuf,
    /// This generation's directory in memory.
    memory: Option<PathBuf>,
}

impl Keeper {
    /// Starts the threads for these shards; `memory` is the generation's directory there.
    ///
    /// # Errors
    /// When the system has no threads left.
    pub(super) fn start(
        pools: &[Arc<Pool>],
        spec: &JournalSpec,
        memory: Option<PathBuf>,
    ) -> Result<Keeper, JournalError> {
        let (syncs, requests) = flume::bounded::<Request>(1);
        let over = Arc::<AtomicBool>::default();
        let (makers, ended) = (pools.to_vec(), Arc::clone(&over));
        // A shard that finds none ready waits for the disk itself.
        let maker = spawn("journal-space", sys::step_aside, move || {
            let mut seen = vec![[0; 2]; makers.len()];
            let mut looked = Instant::now();
            while !ended.load(Ordering::Acquire) {
                makers.iter().for_each(|pool| pool.refill());
                if looked.elapsed() >= LOOK {
                    looked = Instant::now();
                    for (pool, [taken, written]) in makers.iter().zip(&mut seen) {
                        pool.shrink(taken);
                        pool.look(written);
                    }
                }
                std::thread::park_timeout(AGAIN);
            }
        });
        let maker = maker.map_err(JournalError::file(&spec.dir))?;
        pools.iter().for_each(|pool| drop(pool.maker.set(maker.thread().clone())));
        let dir = spec.dir.clone();
        let mut keeper = Keeper { over, syncs: Some(syncs), maker: Some(maker), syncer: None, dir, memory };
        let shards: Vec<Synced> = pools.iter().map(Synced::new).collect();
        let pause = spec.sync;
        let syncer = spawn("journal-sync", sys::step_behind, move || sync(shards, &requests, pause));
        keeper.syncer = Some(syncer.map_err(JournalError::file(&spec.dir))?);
        Ok(keeper)
    }

    /// Waits until all that is committed is on disk.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn sync_now(&self) -> Result<(), JournalError> {
        let (answer, done) = flume::bounded(1);
        let asked = self.syncs.as_ref().is_some_and(|s| s.send(answer).is_ok());
        let died = || io::Error::other("the syncing thread is gone");
        done.recv().ok().filter(|_| asked).unwrap_or_else(|| Err(JournalError::file(&self.dir)(died())))
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    yields: fn(),
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let background = move || {
        yields();
        work()
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(background)
}

/// Syncs at intervals and on request, and a last time at the end.
fn sync(mut shards: Vec<Synced>, requests: &flume::Receiver<Request>, pause: Duration) -> Result<(), JournalError> {
    loop {
        let more = shards.iter().any(Synced::has_more);
        let request = requests.recv_timeout(if more { Duration::ZERO } else { pause });
        let outcome = shards.iter_mut().map(Synced::pass).fold(Ok(()), Result::and);
        match request {
            Ok(answer) => drop(answer.send(outcome)),
            Err(flume::RecvTimeoutError::Timeout) => {}
            Err(flume::RecvTimeoutError::Disconnected) => return outcome,
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.syncs = None;
        if let Some(maker) = self.maker.take() {
            maker.thread().unpark();
            let _ = maker.join();
        }
        let synced = self.syncer.take().is_some_and(|syncer| matches!(syncer.join(), Ok(Ok(()))));
        if let Some(home) = self.memory.take().filter(|_| synced) {
            memory::leave(&home);
        }
    }
}
