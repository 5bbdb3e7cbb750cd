//! What has become of the records, for whoever asks while the pipeline runs.

use super::machine::Tally;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Longest time that is told apart, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;

/// Counters and gauges as [`Tally`] has them, and what the I/O around it counts.
#[derive(Debug, Default)]
pub struct CdrCounts {
    /// In the channel from the shards.
    pub queued: AtomicU64,
    pub waiting: AtomicU64,
    pub in_flight: AtomicU64,
    pub written: AtomicU64,
    pub retried: AtomicU64,
    pub refused: AtomicU64,
    pub spooled: AtomicU64,
    pub in_spool: AtomicU64,
    pub replayed: AtomicU64,
    /// Records cut from the spool's end at the start.
    pub torn: AtomicU64,
    pub damaged: AtomicU64,
    pub spool_errors: AtomicU64,
    /// The database is gone; the spool does not take records.
    pub database_gone: AtomicBool,
    pub spool_failing: AtomicBool,
    latency: Mutex<Latency>,
}

/// From hand-over by the shard's channel, in microseconds.
#[derive(Debug, Clone)]
pub struct Latency {
    /// Until the database or the spool had the record.
    pub durable: Histogram<u64>,
    /// Until the database had it; replayed records are not among them.
    pub written: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Latency {
        // The bounds are constants that the type accepts: 1 to an hour, 3 digits.
        let empty = || Histogram::new_with_bounds(1, LONGEST_US, 3).unwrap_or_else(|_| unreachable!("constant bounds"));
        Latency { durable: empty(), written: empty() }
    }
}

impl CdrCounts {
    /// How long records took so far.
    #[must_use]
    pub fn latency(&self) -> Latency {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn took(&self, us: &[u64], written: bool) {
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        for us in us {
            latency.durable.saturating_record(*us);
            if written {
                latency.written.saturating_record(*us);
            }
        }
    }

    pub(super) fn set(&self, tally: &Tally) {
        for (count, value) in [
            (&self.waiting, tally.waiting),
            (&self.in_flight, tally.in_flight),
            (&self.written, tally.written),
            (&self.retried, tally.retried),
            (&self.refused, tally.refused + tally.stopped),
            (&self.spooled, tally.spooled),
            (&self.in_spool, tally.in_spool),
            (&self.replayed, tally.replayed),
            (&self.damaged, tally.damaged),
            (&self.spool_errors, tally.spool_errors),
        ] {
            count.store(value, Relaxed);
        }
    }
}
