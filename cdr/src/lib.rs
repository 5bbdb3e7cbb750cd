//! The CDR pipeline without its I/O: what goes where, and when it is safe. Time comes with each input, in microseconds of any
//! clock that only rises; outputs are drained after each input.
//!
//! A batch of records goes to the database, or, when that is gone or too slow, to the spool. What is in the spool is
//! replayed in its order, one batch at a time, beside the new records: those go to the database at once when it is there.
//!
//! Invariants
//! - A record is told safe ([`Output::Safe`]) once the database has it, or the spool has it on the disk, or it is set aside.
//! - A record leaves memory in no other way. At most `Machine::most` of them are here; then no more are wanted.
//! - The cursor passes a record when the database has it, or it is set aside.
//! - Whatever is written may be written again: keys keep the database from having it twice.
//!
//! The database is *up*, or *failing* since its first error: then one batch at a time tries it, with growing pauses. It
//! is *gone* when that lasts longer than [`PATIENCE_US`], or when it has not answered in time: then all goes to the
//! spool. It is up again after [`STEADY`] writes in a row. The pause begins small again only if it was up for a while.

pub mod spool;
mod spooled;
mod state;
mod steps;
mod watermark;

pub use spooled::{Damage, Loaded, Place};
pub use state::{Aside, Fault, Notice, Output, Settings, Tally};
pub use watermark::Mark;

use state::{Busy, Database, Flight, Replay, Retry, Work};
use std::collections::VecDeque;
use std::sync::Arc;
use strowger_engine::CdrRow;
use watermark::Watermark;

/// How long a record waits for a database that fails or is slow before it goes to the spool.
pub const PATIENCE_US: u64 = 250_000;
/// Writes in a row after which a database that had failed is up again.
pub const STEADY: u32 = 3;
/// First pause between two tries.
pub const FIRST_PAUSE_US: u64 = 10_000;
/// How long a stop goes on with records that neither the database nor the spool takes.
pub const LAST_TRIES_US: u64 = 10_000_000;
/// How long a stop goes on replaying the spool to a database that takes it.
pub const LAST_REPLAY_US: u64 = 5_000_000;
/// Batches that may wait for the spool's disk.
const AHEAD: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    /// Most records in memory.
    most: usize,
    tally: Tally,
    outputs: VecDeque<Output>,
    /// When to look again though nothing has happened.
    wake: Option<u64>,
    closed_at: Option<u64>,
    /// Records of the batch that is being made, with the times at which they came.
    open: Vec<CdrRow>,
    taken: Vec<u64>,
    /// Batches that wait for the database or the spool, in order.
    pending: VecDeque<Work>,
    flying: Vec<Flight>,
    batches: u64,
    jobs: u64,
    /// Records in memory, without those of the replay.
    held: usize,
    watermark: Watermark,
    database: Database,
    /// The last pause between two tries of the database, and what it said.
    pause: u64,
    last_error: String,
    busy: Busy,
    appends: Retry,
    loads: Retry,
    /// The cursor could not be written the last time.
    cursor_fails: bool,
    /// The last thing that the spool did was an append: others have a turn.
    appended: bool,
    replay: Replay,
    /// Where the spool's cursor goes when the replay's batch is done.
    replay_to: Place,
    /// After the end of input: the replay goes on for a while.
    last_replay: bool,
    /// The records of a process before go to the spool first.
    taking_over: bool,
    /// Records went to the spool, and not all of it is replayed; how many were.
    spooling: bool,
    replayed: u64,
}

impl Machine {
    /// A pipeline over a spool that has so many records.
    #[must_use]
    pub fn new(settings: Settings, in_spool: u64) -> Machine {
        let most = settings.batch * (settings.concurrency * 2 + AHEAD);
        Machine {
            settings,
            most,
            tally: Tally { in_spool, ..Tally::default() },
            outputs: VecDeque::new(),
            wake: Some(0),
            closed_at: None,
            open: vec![],
            taken: vec![],
            pending: VecDeque::new(),
            flying: vec![],
            batches: 0,
            jobs: 0,
            held: 0,
            watermark: Watermark::default(),
            database: Database::Up { since: 0 },
            pause: 0,
            last_error: String::new(),
            busy: Busy::No,
            appends: Retry::default(),
            loads: Retry::default(),
            cursor_fails: false,
            appended: false,
            replay: Replay::Idle,
            replay_to: Place::default(),
            last_replay: false,
            taking_over: false,
            spooling: in_spool > 0,
            replayed: 0,
        }
    }

    /// Whether there is room for one more record.
    #[must_use]
    pub fn wants_records(&self) -> bool {
        self.closed_at.is_none() && self.held < self.most
    }

    /// Records that are safe nowhere yet.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held as u64
    }

    /// After the end of input: nothing is in memory any more, and nothing is under way.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.closed_at.is_some()
            && self.held == 0
            && self.flying.is_empty()
            && matches!(self.busy, Busy::No)
            && !matches!(self.replay, Replay::Done)
            && !self.last_replay
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Machine::handle_time`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.wake
    }

    /// What has become of the records.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let flying = self.flying.iter().filter(|f| !f.aside);
        let live = flying.clone().filter(|f| f.work.number.is_some()).map(|f| f.work.rows.len()).sum::<usize>();
        Tally {
            waiting: (self.held - live.min(self.held)) as u64,
            in_flight: flying.map(|f| f.part.len() as u64).sum(),
            ..self.tally
        }
    }

    /// A record from a shard.
    pub fn handle_record(&mut self, now: u64, row: CdrRow) {
        self.open.push(row);
        self.taken.push(now);
        self.held += 1;
        if self.open.len() >= self.settings.batch {
            self.seal(now);
        }
        self.drive(now);
    }

    /// Records of a process before, however many: to the spool at once, and to the database only when that does not take them.
    pub fn handle_recovered(&mut self, now: u64, rows: Vec<CdrRow>) {
        self.taking_over = true;
        self.held += rows.len();
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let batch: Vec<CdrRow> = rows.by_ref().take(self.settings.batch).collect();
            self.add(batch, vec![], now);
        }
        self.drive(now);
    }

    /// There are no more: the orderly stop. What the database does not take goes to the spool at once; what is in the spool is
    /// replayed for some seconds more, if the database takes it.
    pub fn handle_closed(&mut self, now: u64) {
        self.closed_at.get_or_insert(now);
        self.drive(now);
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: u64) {
        self.drive(now);
    }

    /// What the database said to [`Output::Write`].
    pub fn handle_written(&mut self, now: u64, job: u64, result: Result<(), Fault>) {
        // A job that was cancelled is none any more.
        let Some(at) = self.flying.iter().position(|f| f.job == job && !f.aside) else { return };
        match result {
            Ok(()) => {
                self.tally.written += self.flying[at].part.len() as u64;
                self.database_took(now);
                self.next_part(now, at);
            }
            Err(Fault::Refused(why)) => {
                // It answers: what it does not like is the record.
                self.database_took(now);
                let flight = &mut self.flying[at];
                let part = flight.part.clone();
                let middle = part.start + part.len() / 2;
                if part.len() > 1 {
                    flight.work.todo.extend([middle..part.end, part.start..middle]);
                } else if flight.work.doubted != Some(part.start) {
                    // Once more: an earlier write of it, given up for its time, may have ended just now beside this one.
                    flight.work.doubted = Some(part.start);
                    flight.work.todo.push(part);
                } else if let Some(row) = flight.work.rows.get(part.start) {
                    flight.work.aside.push(Aside::Refused { row: row.clone(), why });
                }
                self.next_part(now, at);
            }
            Err(Fault::Failed(why)) => self.write_failed(now, at, why, false),
            Err(Fault::TimedOut(why)) => self.write_failed(now, at, why, true),
        }
        self.drive(now);
    }

    fn write_failed(&mut self, now: u64, at: usize, why: String, timed_out: bool) {
        let flight = self.flying.swap_remove(at);
        let tried = flight.tries;
        self.tally.retried += 1;
        self.back(flight);
        self.database_failed(now, why, timed_out, tried);
    }

    /// What the spool said to [`Output::Append`]: how many it has, or why it does not take them.
    pub fn handle_appended(&mut self, now: u64, result: Result<u64, String>) {
        let Busy::Appending(batches) = std::mem::replace(&mut self.busy, Busy::No) else { return };
        match result {
            Ok(in_spool) => {
                self.tally.in_spool = in_spool;
                self.spooling = true;
                if self.appends.worked() {
                    self.outputs.push_back(Output::Notice(Notice::SpoolWorks));
                }
                for work in batches {
                    self.tally.spooled += work.rows.len() as u64;
                    self.safe(now, &work, false);
                }
            }
            Err(why) => {
                self.tally.spool_errors += 1;
                if self.appends.failed(now, self.settings.retry_max_us) {
                    self.outputs.push_back(Output::Notice(Notice::SpoolFails { why }));
                }
                for work in batches.into_iter().rev() {
                    self.pending.push_front(work);
                }
            }
        }
        self.drive(now);
    }

    /// What the spool said to [`Output::Load`].
    pub fn handle_loaded(&mut self, now: u64, result: Result<Loaded, String>) {
        self.busy = Busy::No;
        match result {
            Ok(found) => {
                self.loads.worked();
                self.tally.damaged += found.damaged.len() as u64;
                self.replay_to = found.next;
                let mut work = Work::new(None, found.rows.into(), vec![], now);
                work.aside = found.damaged.into_iter().map(Aside::Damaged).collect();
                let empty = work.rows.is_empty() && work.aside.is_empty();
                self.replay = if empty { Replay::Done } else { Replay::Ready(work) };
            }
            Err(why) => {
                self.tally.spool_errors += 1;
                if self.loads.failed(now, self.settings.retry_max_us) {
                    self.outputs.push_back(Output::Notice(Notice::SpoolUnreadable { why }));
                }
            }
        }
        self.drive(now);
    }

    /// The spool has done [`Output::Advance`]: how many records it has left. An error costs nothing but repeated work.
    pub fn handle_advanced(&mut self, now: u64, in_spool: u64, error: Option<String>) {
        (self.busy, self.replay) = (Busy::No, Replay::Idle);
        self.tally.in_spool = in_spool;
        self.tally.spool_errors += u64::from(error.is_some());
        let failed_before = std::mem::replace(&mut self.cursor_fails, error.is_some());
        if let (Some(why), false) = (error, failed_before) {
            self.outputs.push_back(Output::Notice(Notice::CursorFails { why }));
        }
        if in_spool == 0 && self.spooling {
            self.spooling = false;
            let records = std::mem::take(&mut self.replayed);
            self.outputs.push_back(Output::Notice(Notice::Replayed { records }));
        }
        self.drive(now);
    }

    /// There is no spool any more.
    pub fn handle_spool_died(&mut self, now: u64) {
        if matches!(self.busy, Busy::Appending(_)) {
            return self.handle_appended(now, Err("it died".to_owned()));
        }
        (self.busy, self.replay) = (Busy::No, Replay::Idle);
        self.tally.in_spool = 0;
        self.drive(now);
    }

    /// The file has the records of [`Output::SetAside`].
    pub fn handle_set_aside(&mut self, now: u64, job: u64) {
        if let Some(at) = self.flying.iter().position(|f| f.job == job && f.aside) {
            let flight = self.flying.swap_remove(at);
            self.finish(now, flight.work);
        }
        self.drive(now);
    }
}

#[cfg(test)]
mod tests;
