//! The CDR pipeline: from the shards' channel to the database, through the spool while that is gone. Nothing is dropped.
//!
//! - [`machine`] (a room of its own, `cdr`) decides, without I/O: batches, what goes where, when a record is safe.
//! - [`spool`]: the files in which records are on disk.
//! - [`Pipeline`] is the I/O around them: channel, database, the spool on threads that may block, logs.
//!
//! Invariants
//! - Memory is bounded: records wait here, in the channel, then on the shards, which refuse new calls before they lose one.
//! - A record that the database refuses as bad is set aside in a file and counted; it holds up no other.
//! - A database that does not answer within [`WRITE_LIMIT`] is taken for gone.
//! - At the stop, when the channel closes, what the database does not take goes to the spool at once; what is in the spool is
//!   replayed for some seconds more, if the database takes it.
//! - What a process before left in its journal goes the same way, before anything is served.

mod aside;
mod counts;
pub mod spool;

pub use counts::{CdrCounts, Latency};
pub use machine::{Mark, Settings};
pub use strowger_cdr as machine;

use crate::control::mail::Inbox;
use crate::store::{CdrStore, StoreError};
use machine::{Aside, Fault, Machine, Notice, Output};
use spool::{Damage, Loaded, Place, Spool, SpoolError};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use strowger_engine::{Cdr, CdrRow};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

/// How long records gather: no shard wakes a thread that does not wait.
const GATHER: Duration = Duration::from_millis(5);
/// The longest that a database may take for a batch.
pub const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// How long a start tries to make safe what a process before has left.
pub const TAKE_OVER_LIMIT: Duration = Duration::from_secs(10);

/// What the pipeline is made of.
pub struct Parts {
    pub store: Arc<dyn CdrStore>,
    pub spool: Spool,
    /// What [`spool::open`] found torn.
    pub torn: Option<Damage>,
    pub settings: Settings,
    pub refused_file: PathBuf,
    pub counts: Arc<CdrCounts>,
}

/// So many records that a process before has left are safe nowhere yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsafe(pub u64);

/// Something that was under way has ended.
enum Done {
    Written {
        job: u64,
        result: Result<(), Fault>,
    },
    Appended(Spool, Result<(), SpoolError>),
    Loaded(Spool, Result<Loaded, SpoolError>),
    Advanced(Spool, Result<(), SpoolError>),
    Aside {
        job: u64,
    },
    /// An operation of the spool panicked before: there is none any more.
    NoSpool,
}

/// See the module. Made by [`Pipeline::new`], ended by [`Pipeline::run`].
pub struct Pipeline {
    machine: Machine,
    store: Arc<dyn CdrStore>,
    /// Here unless an operation has it.
    spool: Option<Spool>,
    refused_file: PathBuf,
    counts: Arc<CdrCounts>,
    /// Is told of each mark that moves.
    safe: Box<dyn FnMut(Mark) + Send>,
    jobs: JoinSet<Done>,
    /// Writes under way, by their job.
    writes: Vec<(u64, AbortHandle)>,
    began: Instant,
}

impl Pipeline {
    /// Says what is left from before; nothing is done until it runs.
    #[must_use]
    pub fn new(parts: Parts) -> Pipeline {
        let Parts { store, spool, torn, settings, refused_file, counts } = parts;
        if spool.left() > 0 {
            tracing::info!(records = spool.left(), "CDRs are in the spool from before");
        }
        let machine = Machine::new(settings, spool.left());
        let (spool, jobs, writes) = (Some(spool), JoinSet::new(), vec![]);
        let (safe, began) = (Box::new(|_| {}), Instant::now());
        let mut pipeline = Pipeline { machine, store, spool, refused_file, counts, safe, jobs, writes, began };
        // Whoever looks before it runs sees what is in the spool.
        pipeline.counts.set(&pipeline.machine.tally());
        if let Some(damage) = torn {
            pipeline.counts.torn.fetch_add(1, Relaxed);
            pipeline.set_aside(0, vec![Aside::Damaged(damage)]);
        }
        pipeline
    }

    /// What becomes of the records.
    #[must_use]
    pub fn counts(&self) -> &Arc<CdrCounts> {
        &self.counts
    }

    /// Makes safe what the journal of a process before had: records, and bytes that are none.
    ///
    /// # Errors
    /// When neither the spool nor the database takes them in [`TAKE_OVER_LIMIT`]: the journal must be kept.
    pub async fn take_over(&mut self, rows: Vec<CdrRow>, unreadable: Vec<Aside>) -> Result<(), Unsafe> {
        if !unreadable.is_empty() {
            self.set_aside(0, unreadable);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let records = rows.len();
        self.machine.handle_recovered(self.now(), rows);
        let until = Instant::now() + TAKE_OVER_LIMIT;
        loop {
            self.act_all();
            if self.machine.held() == 0 {
                tracing::info!(records, "CDRs of the journal are safe");
                return Ok(());
            }
            tokio::select! {
                () = self.step() => {}
                () = sleep_until(until) => return Err(Unsafe(self.machine.held())),
            }
        }
    }

    /// Passes on what comes through the channel until it is closed and everything is durable; `safe` is told of each mark
    /// that moves.
    pub async fn run(mut self, cdrs: Inbox<Cdr>, safe: Box<dyn FnMut(Mark) + Send>) {
        self.safe = safe;
        self.go(&cdrs).await;
        let left = self.spool.as_ref().map_or(0, Spool::left);
        if left > 0 {
            tracing::warn!(records = left, "CDRs are left in the spool; the next start writes them to the database");
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    async fn go(&mut self, cdrs: &Inbox<Cdr>) {
        let mut ripe = Instant::now();
        loop {
            self.act_all();
            self.counts.queued.store(cdrs.len() as u64, Relaxed);
            if self.machine.is_done() && self.jobs.is_empty() {
                return;
            }
            let wants = self.machine.wants_records();
            tokio::select! {
                () = self.step() => {}
                cdr = after(ripe, cdrs), if wants => {
                    self.take(cdr, cdrs);
                    ripe = Instant::now() + GATHER;
                }
            }
        }
    }

    /// The next thing that happens of itself. May be dropped before.
    async fn step(&mut self) {
        let wake = self.machine.deadline().map(|us| self.began + Duration::from_micros(us));
        tokio::select! {
            Some(done) = self.jobs.join_next() => self.done(done),
            () = sleep_until(wake.unwrap_or(self.began)), if wake.is_some() => self.machine.handle_time(self.now()),
            else => std::future::pending().await,
        }
    }

    fn act_all(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            self.act(output);
        }
        self.counts.set(&self.machine.tally());
    }

    /// The first of what is in the channel, and what is there behind it.
    fn take(&mut self, first: Option<Cdr>, cdrs: &Inbox<Cdr>) {
        let now = self.now();
        let Some(first) = first else { return self.machine.handle_closed(now) };
        self.machine.handle_record(now, CdrRow::from(&first));
        for _ in 0..cdrs.len() {
            if !self.machine.wants_records() {
                return;
            }
            match cdrs.take() {
                Some(cdr) => self.machine.handle_record(now, CdrRow::from(&cdr)),
                None => return,
            }
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Write { job, rows, part } => {
                let task = self.jobs.spawn(write(Arc::clone(&self.store), job, rows, part));
                self.writes.push((job, task));
            }
            Output::Cancel { job } => {
                self.writes.iter().filter(|(j, _)| *j == job).for_each(|(_, task)| task.abort());
            }
            Output::Append { batches } => self.with_spool(move |mut spool| {
                let result = spool.append(batches.iter().flat_map(|rows| rows.iter()));
                Done::Appended(spool, result)
            }),
            Output::Load { max } => self.with_spool(move |spool| {
                let result = spool.load(max);
                Done::Loaded(spool, result)
            }),
            Output::Advance { to } => self.with_spool(move |spool| advance(spool, to)),
            Output::SetAside { job, items } => self.set_aside(job, items),
            Output::Safe(mark) => (self.safe)(mark),
            Output::Took { us, written } => self.counts.took(&us, written),
            Output::Notice(notice) => self.tell(&notice),
        }
    }

    /// One operation of the spool at a time, on a thread that may block.
    fn with_spool(&mut self, work: impl FnOnce(Spool) -> Done + Send + 'static) {
        match self.spool.take() {
            Some(spool) => self.jobs.spawn_blocking(move || work(spool)),
            None => self.jobs.spawn(async { Done::NoSpool }),
        };
    }

    fn set_aside(&mut self, job: u64, items: Vec<Aside>) {
        let file = self.refused_file.clone();
        self.jobs.spawn_blocking(move || {
            aside::set_aside(&file, &items);
            Done::Aside { job }
        });
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = self.now();
        match done {
            Ok(Done::Written { job, result }) => {
                self.writes.retain(|(j, _)| *j != job);
                self.machine.handle_written(now, job, result);
            }
            Ok(Done::Appended(spool, result)) => {
                let result = result.map(|()| spool.left()).map_err(|e| e.to_string());
                self.spool = Some(spool);
                self.machine.handle_appended(now, result);
            }
            Ok(Done::Loaded(spool, result)) => {
                self.spool = Some(spool);
                self.machine.handle_loaded(now, result.map_err(|e| e.to_string()));
            }
            Ok(Done::Advanced(spool, result)) => {
                let left = spool.left();
                self.spool = Some(spool);
                self.machine.handle_advanced(now, left, result.err().map(|e| e.to_string()));
            }
            Ok(Done::NoSpool) => self.machine.handle_spool_died(now),
            Ok(Done::Aside { job }) => self.machine.handle_set_aside(now, job),
            Err(error) => self.lost(now, &error),
        }
    }

    /// A task that was cancelled, or one that panicked: a back end's fault is a failed write.
    fn lost(&mut self, now: u64, error: &tokio::task::JoinError) {
        let at = self.writes.iter().position(|(_, task)| task.id() == error.id());
        let Some((job, _)) = at.map(|at| self.writes.swap_remove(at)) else {
            if error.is_panic() {
                tracing::error!(%error, "an operation of the CDR spool died; records wait for the database alone");
                self.machine.handle_spool_died(now);
            }
            return;
        };
        self.machine.handle_written(now, job, Err(Fault::Failed(error.to_string())));
    }

    fn tell(&self, notice: &Notice) {
        let c = &self.counts;
        match notice {
            Notice::Gone { why } => {
                c.database_gone.store(true, Relaxed);
                tracing::error!(why, "the CDR database is gone; records go to the spool");
            }
            Notice::Slow => tracing::warn!("the CDR database is slower than records come; some go to the spool"),
            Notice::Back => {
                c.database_gone.store(false, Relaxed);
                tracing::info!("the CDR database is back");
            }
            Notice::Replayed { records } => tracing::info!(records, "the CDR spool is replayed"),
            Notice::SpoolFails { why } => {
                c.spool_failing.store(true, Relaxed);
                let left = "records that the database does not take wait in memory, then new calls are refused";
                tracing::error!(why, "the CDR spool takes no records; {left}");
            }
            Notice::SpoolWorks => {
                c.spool_failing.store(false, Relaxed);
                tracing::info!("the CDR spool takes records again");
            }
            Notice::SpoolUnreadable { why } => tracing::error!(why, "the CDR spool cannot be read; it is tried again"),
            Notice::CursorFails { why } => {
                tracing::warn!(why, "the CDR spool's cursor is behind; a start would write some records again");
            }
        }
    }
}

/// The next record, not before that.
async fn after(ripe: Instant, cdrs: &Inbox<Cdr>) -> Option<Cdr> {
    sleep_until(ripe).await;
    cdrs.recv().await
}

fn advance(mut spool: Spool, to: Place) -> Done {
    let result = spool.advance(to);
    Done::Advanced(spool, result)
}

async fn write(store: Arc<dyn CdrStore>, job: u64, rows: Arc<[CdrRow]>, part: Range<usize>) -> Done {
    let result = match timeout(WRITE_LIMIT, store.write(rows.get(part).unwrap_or_default())).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(StoreError::Refused(why))) => Err(Fault::Refused(why)),
        Ok(Err(other)) => Err(Fault::Failed(other.to_string())),
        Err(_) => Err(Fault::TimedOut(format!("no answer within {} s", WRITE_LIMIT.as_secs()))),
    };
    Done::Written { job, result }
}

#[cfg(test)]
mod tests;
