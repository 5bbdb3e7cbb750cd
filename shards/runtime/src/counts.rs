//! What the runtime itself counts, per shard: written by the shard, read by anybody.

use strowger_engine::stats::Count;

/// One shard's counters.
#[derive(Debug, Default)]
pub struct RuntimeCounts {
    /// Datagrams taken from sockets, and of these those handed to another shard.
    pub received: Count,
    pub forwarded: Count,
    /// Lost because the other shard's ring and our outbox to it were full.
    pub forward_lost: Count,
    /// Lost in the kernel because a socket's buffer was full.
    pub kernel_lost: Count,
    /// No SIP: keep-alives, probes, garbage.
    pub junk: Count,
    /// Cut by the kernel, or without a usable source.
    pub unusable: Count,
    /// Dropped by the limit per source.
    pub rate_limited: Count,
    /// Datagrams sent, and those that the kernel refused.
    pub sent: Count,
    pub send_failed: Count,
    /// Agent events that nobody took in time.
    pub events_lost: Count,
    /// Gauges: CDRs that wait for the control plane, new calls that wait for their turn.
    pub cdrs_waiting: Count,
    pub backlog: Count,
    /// The journal's records and bytes, and segments that were not ready when the shard needed them.
    pub journal_records: Count,
    pub journal_bytes: Count,
    pub journal_unready: Count,
    /// Gauge: entities whose state waits for room on the disk.
    pub journal_unwritten: Count,
    /// CPU time spent in slices of the audit, nanoseconds.
    pub audit_ns: Count,
}

/// Sets a gauge.
pub(crate) fn set(gauge: &Count, value: usize) {
    gauge.add(i64::try_from(value).unwrap_or(i64::MAX) - gauge.get());
}
