//! Latency histograms of a shard: one writer, any reader, no lock.
//!
//! Buckets are log-linear, 64 to a power of two (values are right within 1.6 %), atomics written by plain load and
//! store since each has one writer. A reader rebuilds HdrHistograms and adds the shards up.

use crate::clock::mono_ns;
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// With the feature `unmeasured` nothing is measured: to know what measuring costs.
const MEASURES: bool = !cfg!(feature = "unmeasured");

/// Nanoseconds of the monotonic clock, for a [`Recorder`].
pub fn stamp_ns() -> u64 {
    if MEASURES { mono_ns() } else { 0 }
}

const SUB_BITS: u32 = 6;
const SUB: usize = 1 << SUB_BITS;
/// Values from 2^36 ns (69 s) on share the last bucket.
const TOP_BITS: u32 = 36;
const BUCKETS: usize = (TOP_BITS - SUB_BITS + 1) as usize * SUB;

/// A histogram of nanoseconds with one writer.
#[derive(Debug)]
pub struct Recorder(Box<[AtomicU64]>);

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Recorder {
    /// Counts one value, in nanoseconds. Only the shard that owns the histogram may call this.
    pub fn record(&self, ns: u64) {
        if !MEASURES {
            return;
        }
        let bucket = &self.0[index(ns)];
        bucket.store(bucket.load(Relaxed) + 1, Relaxed);
    }

    /// Adds what was counted to `into`.
    fn add_to(&self, into: &mut Histogram<u64>) {
        for (i, bucket) in self.0.iter().enumerate() {
            let count = bucket.load(Relaxed);
            if count > 0 {
                // It grows by itself up to 2^63: every bucket's value fits.
                let _ = into.record_n(middle(i), count);
            }
        }
    }
}

fn index(ns: u64) -> usize {
    let ns = ns.min((1 << TOP_BITS) - 1);
    let magnitude = (63 - (ns | (SUB as u64 - 1)).leading_zeros()) + 1 - SUB_BITS;
    // Below SUB the bucket is the value; above, the top SUB_BITS + 1 bits choose it.
    if magnitude == 0 {
        return usize::try_from(ns).unwrap_or(0);
    }
    let sub = usize::try_from(ns >> (magnitude - 1)).unwrap_or(0) - SUB;
    magnitude as usize * SUB + sub
}

/// The value that stands for a bucket.
fn middle(index: usize) -> u64 {
    let (magnitude, sub) = (index / SUB, (index % SUB) as u64);
    if magnitude == 0 {
        return sub;
    }
    let width = 1u64 << (magnitude - 1);
    (sub + SUB as u64) * width + width / 2
}

/// What one shard measures.
#[derive(Debug, Default)]
pub struct ShardLatency {
    /// An agent came free (or its wrap-up was due) until its INVITE was handed to the socket.
    pub dispatch: Recorder,
    /// One turn of the loop that had work.
    pub turn: Recorder,
    /// CPU time of a turn that ran a command of the control plane: a reload, a list's page.
    pub command_cpu: Recorder,
    /// A datagram reached the kernel until the answers that it caused were handed to the socket.
    pub receive_to_send: Recorder,
    /// Its first part: until the shard began to read it.
    pub receive_to_parse: Recorder,
    /// Its second: until the engine had decided what follows.
    pub parse_to_decision: Recorder,
    /// Its third: until the answers were handed to the socket, the journal's turn included.
    pub decision_to_send: Recorder,
    /// The first due timer of a turn: how late it fired.
    pub timer_lateness: Recorder,
    /// A message or datagram was put on the ring until the other shard took it off.
    pub mesh: Recorder,
}

/// All shards together, in nanoseconds.
#[derive(Debug, Clone)]
pub struct LatencySnapshot {
    pub dispatch: Histogram<u64>,
    pub turn: Histogram<u64>,
    pub command_cpu: Histogram<u64>,
    pub receive_to_send: Histogram<u64>,
    pub receive_to_parse: Histogram<u64>,
    pub parse_to_decision: Histogram<u64>,
    pub decision_to_send: Histogram<u64>,
    pub timer_lateness: Histogram<u64>,
    pub mesh: Histogram<u64>,
    /// A CDR handed over until database or spool had it. Not the shards', who know nothing of it: the control plane adds it.
    pub cdr_durable: Histogram<u64>,
}

impl LatencySnapshot {
    /// Adds up the shards.
    #[must_use]
    pub fn merge(shards: &[Arc<ShardLatency>]) -> LatencySnapshot {
        let merged = |pick: fn(&ShardLatency) -> &Recorder| {
            let mut sum = empty();
            shards.iter().for_each(|s| pick(s).add_to(&mut sum));
            sum
        };
        LatencySnapshot {
            dispatch: merged(|s| &s.dispatch),
            turn: merged(|s| &s.turn),
            command_cpu: merged(|s| &s.command_cpu),
            receive_to_send: merged(|s| &s.receive_to_send),
            receive_to_parse: merged(|s| &s.receive_to_parse),
            parse_to_decision: merged(|s| &s.parse_to_decision),
            decision_to_send: merged(|s| &s.decision_to_send),
            timer_lateness: merged(|s| &s.timer_lateness),
            mesh: merged(|s| &s.mesh),
            cdr_durable: empty(),
        }
    }
}

/// A histogram that grows by itself, three significant digits.
fn empty() -> Histogram<u64> {
    match Histogram::new(3) {
        Ok(h) => h,
        // Fails only for more than five digits.
        Err(_) => unreachable!("three significant digits are legal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_bucket_close_to_it_and_buckets_rise() {
        let mut last = 0;
        for power in 0..40u32 {
            for step in 0..200u64 {
                let v = (1u64 << power) + step * ((1u64 << power) / 200);
                let i = index(v);
                let shown = middle(i);
                let capped = v.min((1 << TOP_BITS) - 1);
                assert!(shown.abs_diff(capped) as f64 <= capped as f64 * 0.016, "{v}: {shown}");
                assert!(i >= last || v < (1 << power), "{v}");
                last = i;
            }
        }
        assert_eq!(index(u64::MAX), BUCKETS - 1);
        for i in 0..BUCKETS {
            assert_eq!(index(middle(i)), i);
        }
    }

    #[test]
    fn shards_add_up() {
        let shards = [Arc::new(ShardLatency::default()), Arc::new(ShardLatency::default())];
        for us in 1..=100 {
            shards[usize::from(us % 2 == 0)].dispatch.record(us * 1000);
        }
        let all = LatencySnapshot::merge(&shards);
        assert_eq!(all.dispatch.len(), 100);
        assert!(all.dispatch.value_at_quantile(0.5).abs_diff(50_000) < 1_500);
        assert!(all.dispatch.max().abs_diff(100_000) < 2_000);
        assert!(all.turn.is_empty());
    }
}
