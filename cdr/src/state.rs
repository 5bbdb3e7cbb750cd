//! What the pipeline is made of: its inputs and outputs as values, batches, states.

use crate::FIRST_PAUSE_US;
use crate::spooled::{Damage, Place};
use crate::watermark::Mark;
use std::ops::Range;
use std::sync::Arc;
use strowger_engine::CdrRow;

/// Settings of the pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Records of a full batch.
    pub batch: usize,
    /// A batch goes out so long after its first record, full or not.
    pub batch_time_us: u64,
    /// Batches in the hands of the database at once.
    pub concurrency: usize,
    /// Longest pause between two tries.
    pub retry_max_us: u64,
}

/// What a database says that does not take a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A record is bad: trying again does not help.
    Refused(String),
    Failed(String),
    /// No answer in time.
    TimedOut(String),
}

/// Something for the file of what is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aside {
    Refused {
        row: CdrRow,
        why: String,
    },
    /// Neither the database nor the spool took it until the process stopped.
    Stopped {
        row: CdrRow,
    },
    /// Bytes of the spool that are no record.
    Damaged(Damage),
    /// Bytes of the journal that are none.
    Unreadable {
        bytes: Box<[u8]>,
        why: String,
    },
}

/// A change that a log tells, once each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The database is gone; records go to the spool.
    Gone {
        why: String,
    },
    /// It is there, but slower than the records come: some go to the spool.
    Slow,
    Back,
    /// All of the spool is in the database.
    Replayed {
        records: u64,
    },
    /// The disk does not take records.
    SpoolFails {
        why: String,
    },
    SpoolWorks,
    SpoolUnreadable {
        why: String,
    },
    CursorFails {
        why: String,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To the database: that part of the records. Answered by `handle_written`.
    Write {
        job: u64,
        rows: Arc<[CdrRow]>,
        part: Range<usize>,
    },
    /// No answer is wanted any more.
    Cancel {
        job: u64,
    },
    /// To the spool, in this order, all or none. One append, load or advance at a time. Answered by `handle_appended`.
    Append {
        batches: Vec<Arc<[CdrRow]>>,
    },
    /// From the spool. Answered by `handle_loaded`.
    Load {
        max: usize,
    },
    /// The spool's cursor moves. Answered by `handle_advanced`.
    Advance {
        to: Place,
    },
    /// To the file. Answered by `handle_set_aside`.
    SetAside {
        job: u64,
        items: Vec<Aside>,
    },
    Safe(Mark),
    /// Records were durable, and written unless they went to the spool, so many microseconds after they came.
    Took {
        us: Vec<u64>,
        written: bool,
    },
    Notice(Notice),
}

/// What has become of the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// In memory, and neither in the hands of the database nor durable.
    pub waiting: u64,
    /// In the hands of the database now.
    pub in_flight: u64,
    /// Taken by the database, replayed ones among them.
    pub written: u64,
    /// Batches tried again.
    pub retried: u64,
    /// Refused by the database, set aside.
    pub refused: u64,
    /// Put into the spool.
    pub spooled: u64,
    /// In the spool now.
    pub in_spool: u64,
    /// Written from the spool.
    pub replayed: u64,
    /// Places of the spool that were no record, set aside.
    pub damaged: u64,
    /// Operations of the spool that failed.
    pub spool_errors: u64,
    /// Set aside at the stop, since neither database nor spool took them.
    pub stopped: u64,
}

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Work {
    /// Its place in the order of arrival; `None`: it comes from the spool.
    pub number: Option<u64>,
    pub rows: Arc<[CdrRow]>,
    /// When each came.
    pub taken: Vec<u64>,
    /// Since when it waits.
    pub ready_at: u64,
    /// Parts that the database has not got, the next one last.
    pub todo: Vec<Range<usize>>,
    /// The record that was refused, alone, the last time.
    pub doubted: Option<usize>,
    pub aside: Vec<Aside>,
}

impl Work {
    pub fn new(number: Option<u64>, rows: Arc<[CdrRow]>, taken: Vec<u64>, ready_at: u64) -> Work {
        let todo = std::iter::once(0..rows.len()).filter(|all| !all.is_empty()).collect();
        Work { number, rows, taken, ready_at, todo, doubted: None, aside: vec![] }
    }
}

/// A batch in the hands of the database, or being set aside.
#[derive(Debug)]
pub(super) struct Flight {
    pub job: u64,
    pub work: Work,
    pub part: Range<usize>,
    pub aside: bool,
    /// It tries whether a failing database is back.
    pub tries: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Database {
    Up { since: u64 },
    Failing { since: u64, next_try: u64, took: u32, gone: bool },
}

/// What the spool does now.
#[derive(Debug)]
pub(super) enum Busy {
    No,
    Appending(Vec<Work>),
    Reading,
}

/// The batch at the spool's cursor.
#[derive(Debug)]
pub(super) enum Replay {
    Idle,
    Ready(Work),
    Flying,
    /// The cursor may pass it.
    Done,
}

/// An operation of the spool that fails, and when to try it again.
#[derive(Debug, Default)]
pub(super) struct Retry {
    pub failing: bool,
    pub at: u64,
    pause: u64,
}

impl Retry {
    /// True when it works again.
    pub fn worked(&mut self) -> bool {
        std::mem::take(self).failing
    }

    /// True when it had worked.
    pub fn failed(&mut self, now: u64, max: u64) -> bool {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE_US, max);
        self.at = now + self.pause;
        !std::mem::replace(&mut self.failing, true)
    }
}
