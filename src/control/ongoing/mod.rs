//! Ongoing calls into `cc_calls`: write-behind, from the shards' journals.
//!
//! - [`book`]: what the table is to show, and what of it is not there yet; [`records`]: what it is made from.
//! - [`run`]: reads the journals on, writes what changed, until the shards have stopped.
//!
//! Invariants
//! - No shard does anything for it, nor waits for it: the journals are read by a [`Follower`], which is never behind for long,
//!   however slow the database is.
//! - Of each call the latest state is written; the database is at it for at most a tenth of the time.
//! - Whatever a failed write left in the table is written again, or removed.
//! - What is kept in memory is bounded by the calls that there are, however long the database is away.

mod book;
mod records;
#[cfg(test)]
mod tests;

use crate::config::DbUrl;
use crate::store::{CallStore, Missing, OngoingCall, StoreError, calls_at};
use book::{Batch, Book};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use strowger_engine::journal::{Entity, Kind};
use strowger_runtime::journal::{Change, Follower, Written};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Most calls of one write.
const BATCH: usize = 512;
/// Most rows that one write removes.
const REMOVALS: usize = 2048;
/// Most rows to be removed that are remembered; with more, while the database is away, it is asked afterwards which it has.
const REMEMBERED: usize = 65_536;
/// The database rests for so many times as long as it has taken.
const REST: u32 = 9;
/// Longest pause between two tries of a database that fails.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the last writes of a stopping process may take.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// What has become of the rows.
#[derive(Debug, Default)]
pub struct RowCounts {
    pub written: AtomicU64,
    pub removed: AtomicU64,
    /// Writes that failed and are tried again.
    pub retried: AtomicU64,
    /// Rows that the database refused.
    pub refused: AtomicU64,
    /// Rows that are not as their calls are, now.
    pub behind: AtomicU64,
}

/// The database: open, or to be opened when it answers.
#[derive(Clone)]
pub enum Table {
    Open(Arc<dyn CallStore>),
    At(DbUrl),
}

/// How long a call that enters the queue of that flow is to wait, seconds.
pub type Estimate = Box<dyn FnMut(&str) -> u64 + Send>;

/// What [`run`] is made of.
pub struct Parts {
    pub follower: Follower,
    pub table: Table,
    /// Pause between two writes.
    pub pause: Duration,
    pub estimate: Estimate,
    pub counts: Arc<RowCounts>,
}

/// Keeps the table until `ended` is dropped, then writes what is left.
pub async fn run(parts: Parts, mut ended: oneshot::Receiver<()>) {
    let Parts { follower, table, pause, estimate, counts } = parts;
    let reader = Reader { follower, book: Book::default(), estimate, last: LastChanges::default() };
    let mut keeper =
        Keeper { reader: Some(reader), table, stale: None, under_way: None, due: Instant::now(), failed: 0, counts };
    let mut over = false;
    while !over {
        keeper.turn(false).await;
        over = tokio::select! {
            _ = &mut ended => true,
            () = sleep(pause) => false,
        };
    }
    if timeout(LAST_WRITES, keeper.finish()).await.is_err() {
        tracing::warn!("cc_calls is not up to date: the database did not take the last changes in time");
    }
}

/// The journals' end. Its work takes milliseconds, with many calls: it is done where that blocks nobody.
struct Reader {
    follower: Follower,
    book: Book<Written>,
    estimate: Estimate,
    last: LastChanges,
}

/// What has become of each entity that changed since the last look, by shard, in the order in which they changed first.
#[derive(Default)]
struct LastChanges {
    changes: Vec<(u16, Entity, Change)>,
    /// Where the change of whoever has that slot is, by shard, kind and slot; of an earlier look, or of a slot's user before, it
    /// is another's.
    at: Vec<[Vec<u32>; Kind::ALL.len()]>,
}

impl LastChanges {
    fn note(&mut self, shard: u16, entity: Entity, change: Change) {
        if matches!(entity.kind, Kind::Shard | Kind::Agent | Kind::FlowCounts | Kind::AgentCounts | Kind::Cdr) {
            return;
        }
        if matches!(change, Change::Removed)
            && let Some(half) = entity.other_half().and_then(|half| self.find(shard, half))
        {
            self.changes[half].2 = Change::Removed;
        }
        match self.find(shard, entity) {
            Some(at) => self.changes[at].2 = change,
            None => {
                *self.place(shard, entity) = u32::try_from(self.changes.len()).unwrap_or(u32::MAX);
                self.changes.push((shard, entity, change));
            }
        }
    }

    fn find(&self, shard: u16, entity: Entity) -> Option<usize> {
        let slots = &self.at.get(usize::from(shard))?[entity.kind as usize];
        let at = *slots.get(slot(entity))? as usize;
        self.changes.get(at).is_some_and(|(s, e, _)| (*s, *e) == (shard, entity)).then_some(at)
    }

    fn place(&mut self, shard: u16, entity: Entity) -> &mut u32 {
        let shards = self.at.len().max(usize::from(shard) + 1);
        self.at.resize_with(shards, Default::default);
        let slots = &mut self.at[usize::from(shard)][entity.kind as usize];
        let at = slot(entity);
        if at >= slots.len() {
            slots.resize((at + 1).next_power_of_two(), 0);
        }
        &mut slots[at]
    }

    fn take(&mut self) -> impl Iterator<Item = (u16, Entity, Change)> + '_ {
        self.changes.drain(..)
    }
}

/// Small and dense (see [`Entity`]).
fn slot(entity: Entity) -> usize {
    (entity.id & 0xffff_ffff) as usize
}

impl Reader {
    /// Reads on. Most of what happens to a call happens within a second: only what has become of it in the end is looked at.
    fn follow(&mut self) {
        let Reader { follower, book, last, .. } = self;
        follower.follow(|shard, entity, change| last.note(shard, entity, change));
        for (shard, entity, change) in last.take() {
            match change {
                Change::Put(record) => book.put(shard, entity, record),
                Change::Removed => book.remove(shard, entity),
            }
        }
    }

    fn take(&mut self) -> Batch {
        let mut batch = self.book.take(BATCH, &mut self.estimate);
        if batch.over.len() > REMOVALS {
            self.book.strike(batch.over.split_off(REMOVALS));
        }
        batch
    }
}

/// What the database has done.
enum Done {
    Opened(Result<Opened, StoreError>),
    Saved { batch: Batch, result: Result<u64, StoreError> },
}

/// A table, and whose rows are in it.
struct Opened {
    store: Arc<dyn CallStore>,
    ids: Vec<Box<str>>,
}

struct Keeper {
    /// Absent after a panic of its work alone.
    reader: Option<Reader>,
    table: Table,
    /// Rows of no present call, which go when all of those are there; `None`: the table is to be asked for them.
    stale: Option<Vec<Box<str>>>,
    under_way: Option<JoinHandle<(Done, Duration)>>,
    /// When the next write may begin.
    due: Instant,
    /// Failures in a row.
    failed: u32,
    counts: Arc<RowCounts>,
}

impl Keeper {
    /// Reads on, and has the database do the next thing, if it does nothing. `last`: without a rest, and waits for it.
    async fn turn(&mut self, last: bool) {
        if let Some(task) = self.under_way.take_if(|task| last || task.is_finished())
            && let Ok((done, took)) = task.await
        {
            self.done(done, took);
        }
        let idle = self.under_way.is_none() && (last || Instant::now() >= self.due);
        let open = match &self.table {
            Table::Open(store) if self.stale.is_some() => Some(Arc::clone(store)),
            _ => None,
        };
        let take = idle && open.is_some();
        let Some(batch) = self.read(take).await else { return };
        if !idle {
            return;
        }
        let task = match open {
            None => tokio::spawn(timed(opened(self.table.clone()))),
            Some(_) if batch.is_empty() => return,
            Some(store) => tokio::spawn(timed(saved(store, batch, Arc::clone(&self.counts)))),
        };
        self.under_way = Some(task);
    }

    /// Follows the journals, then takes a batch if there is to be one; `None`: nothing can be read any more.
    async fn read(&mut self, take: bool) -> Option<Batch> {
        let mut reader = self.reader.take()?;
        let stale = &mut self.stale;
        if take && reader.book.is_written() {
            // A call that came since may have the name of one of them.
            let stale = reader.book.in_table(stale.as_mut().map(std::mem::take).unwrap_or_default());
            reader.book.strike(stale);
        }
        let work = move || {
            reader.follow();
            let known = reader.book.trim(REMEMBERED);
            let batch = if take { reader.take() } else { Batch::default() };
            (reader, batch, known)
        };
        let worked = tokio::task::spawn_blocking(work).await;
        let told = worked.inspect_err(|error| tracing::error!(%error, "cc_calls is not kept any longer"));
        let (reader, batch, known) = told.ok()?;
        if !known {
            self.stale = None;
        }
        self.counts.behind.store((reader.book.behind() + batch.calls.len() + batch.over.len()) as u64, Relaxed);
        self.reader = Some(reader);
        Some(batch)
    }

    fn done(&mut self, done: Done, took: Duration) {
        let error = match (done, &mut self.reader) {
            (Done::Opened(Ok(Opened { store, ids })), Some(reader)) => {
                self.table = Table::Open(store);
                self.stale = Some(reader.book.in_table(ids));
                None
            }
            (Done::Saved { batch, result: Ok(refused) }, _) => {
                self.counts.written.fetch_add(batch.calls.len() as u64 - refused, Relaxed);
                self.counts.removed.fetch_add(batch.over.len() as u64, Relaxed);
                None
            }
            (Done::Saved { batch, result: Err(error) }, Some(reader)) => {
                reader.book.put_back(batch);
                Some(error)
            }
            (Done::Opened(Err(error)), _) => Some(error),
            (_, None) => return,
        };
        self.due = Instant::now() + took * REST;
        match error {
            None if self.failed > 0 => {
                self.failed = 0;
                tracing::info!("cc_calls is written again");
            }
            None => {}
            Some(error) => {
                if self.failed == 0 {
                    tracing::warn!(%error, "cc_calls is not up to date; calls go on, and it is tried again");
                }
                self.failed += 1;
                self.counts.retried.fetch_add(1, Relaxed);
                self.due = Instant::now() + AGAIN.min(Duration::from_millis(50) * (1 << self.failed.min(6)));
            }
        }
    }

    /// The shards have stopped: the table gets their last state. A database that fails now is left as it is.
    async fn finish(&mut self) {
        loop {
            self.turn(true).await;
            if self.under_way.is_none() || self.failed > 0 {
                return;
            }
        }
    }
}

async fn timed(work: impl Future<Output = Done>) -> (Done, Duration) {
    let began = Instant::now();
    (work.await, began.elapsed())
}

/// Opens the table, if it is not open, and says what is in it.
async fn opened(table: Table) -> Done {
    let open = async {
        let store = match table {
            Table::Open(store) => store,
            Table::At(url) => calls_at(&url, Missing::Create).await?.into(),
        };
        let ids = store.ids().await?;
        Ok(Opened { store, ids })
    };
    Done::Opened(open.await)
}

/// Writes a batch; how many rows of it were refused.
async fn saved(store: Arc<dyn CallStore>, batch: Batch, counts: Arc<RowCounts>) -> Done {
    let result = match store.save(&batch.calls, &batch.over).await {
        Err(StoreError::Refused(_)) => one_by_one(&*store, &batch, &counts).await,
        other => other.map(|()| 0),
    };
    Done::Saved { batch, result }
}

/// A row that the database refuses holds up no other.
async fn one_by_one(store: &dyn CallStore, batch: &Batch, counts: &RowCounts) -> Result<u64, StoreError> {
    store.save(&[], &batch.over).await?;
    let mut refused = 0;
    for call in &batch.calls {
        match store.save(std::slice::from_ref::<OngoingCall>(call), &[]).await {
            Err(StoreError::Refused(why)) => {
                tracing::warn!(id = &*call.id, why, "the database refuses the row of a call");
                counts.refused.fetch_add(1, Relaxed);
                refused += 1;
            }
            other => other?,
        }
    }
    Ok(refused)
}
