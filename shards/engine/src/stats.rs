//! Counters that shards write and anybody reads. Each shard writes its own; a reader adds them up.
//!
//! Single writer per counter, so a bump is a plain load and store, never a locked instruction. Storage grows by
//! segments that never move.

use crate::audit::Fault;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// A counter or gauge with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicI64);

impl Count {
    pub fn add(&self, n: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
    pub(crate) fn set(&self, n: i64) {
        self.0.store(n, Relaxed);
    }
}

/// Upper bounds of the buckets of [`Durations`], microseconds; one bucket more takes what is longer.
pub const BOUNDS_US: [u64; 15] = [
    100_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    15_000_000,
    20_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// A histogram of times with one writer.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [Count; BOUNDS_US.len() + 1],
    sum_us: Count,
}

impl Durations {
    pub fn record(&self, us: u64) {
        let at = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[at].add(1);
        self.sum_us.add(i64::try_from(us).unwrap_or(i64::MAX));
    }

    /// All that it counts.
    pub(crate) fn counts(&self) -> impl Iterator<Item = &Count> {
        self.buckets.iter().chain([&self.sum_us])
    }

    /// Adds what was recorded to `into`.
    pub fn add_to(&self, into: &mut DurationsSum) {
        for (sum, bucket) in into.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        into.sum_us += self.sum_us.get();
    }
}

/// [`Durations`] of several writers added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DurationsSum {
    /// One for each of [`BOUNDS_US`], not cumulated; the last is beyond them.
    pub buckets: [i64; BOUNDS_US.len() + 1],
    pub sum_us: i64,
}

/// Per flow and shard.
#[derive(Debug, Default)]
pub struct FlowCounts {
    /// Counters (`ccf_*`, reset by `cc_reset_stats` through a reader's baseline).
    pub incalls: Count,
    pub distributed: Count,
    pub answered: Count,
    pub answered_chats: Count,
    pub abandoned: Count,
    /// How many calls were ever put on hold (the old manual's `ccf_onhold_incalls`).
    pub onhold_total: Count,
    /// Gauges: received and not yet with an agent; in the queue; ongoing in any state.
    pub onhold: Count,
    pub onhold_chats: Count,
    pub queued: Count,
    pub ongoing: Count,
    /// Sums behind the averages: talk of processed calls, wait of answered ones (microseconds).
    pub processed: Count,
    pub talk_us: Count,
    pub waited: Count,
    pub wait_us: Count,
    /// Waits of calls until an agent answered, and until the caller left.
    pub waits_answered: Durations,
    pub waits_abandoned: Durations,
}

impl FlowCounts {
    /// What goes on after a restart: all but the gauges, which what is restored raises anew.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = &Count> {
        let counters = [
            &self.incalls,
            &self.distributed,
            &self.answered,
            &self.answered_chats,
            &self.abandoned,
            &self.onhold_total,
            &self.processed,
            &self.talk_us,
            &self.waited,
            &self.wait_us,
        ];
        counters.into_iter().chain(self.waits_answered.counts()).chain(self.waits_abandoned.counts())
    }
}

/// Per agent and shard.
#[derive(Debug, Default)]
pub struct AgentCounts {
    pub distributed: Count,
    pub answered: Count,
    pub answered_chats: Count,
    pub abandoned: Count,
    pub processed: Count,
    pub talk_us: Count,
    /// Claims that the shard has to release; 1 while it times a wrap-up: what an audit compares with the agents' table.
    pub held: Count,
    pub timed: Count,
}

impl AgentCounts {
    /// What goes on after a restart.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = &Count> {
        let counters =
            [&self.distributed, &self.answered, &self.answered_chats, &self.abandoned, &self.processed, &self.talk_us];
        counters.into_iter()
    }
}

/// Per agent, over all shards: written by the shard that holds the agent at that time.
#[derive(Debug, Default)]
pub struct AgentBoard {
    /// End of the running wrap-up, microseconds of Unix time; 0 = none.
    wrapup_ends_us: AtomicU64,
    /// End of the pause at its beginning, after a refused chat; 0 = none.
    pause_ends_us: AtomicU64,
    /// Calls that it let ring out in a row.
    misses: AtomicU32,
    /// Ends of chats told to its home, and heard there.
    chats_told: AtomicU32,
    chats_heard: AtomicU32,
    /// Its last login (1) or logout (2) by command; 0 = none.
    commanded: AtomicU8,
    /// Fingerprint of the latest of all shards' journal records of it; 0 = none.
    print: AtomicU64,
    /// Such records written.
    writes: AtomicU64,
}

impl AgentBoard {
    pub fn set_wrapup_ends(&self, unix_us: u64) {
        self.wrapup_ends_us.store(unix_us, Relaxed);
    }
    pub fn wrapup_ends(&self) -> u64 {
        self.wrapup_ends_us.load(Relaxed)
    }
    pub(crate) fn set_pause_ends(&self, unix_us: u64) {
        self.pause_ends_us.store(unix_us, Relaxed);
    }
    pub(crate) fn pause_ends(&self) -> u64 {
        self.pause_ends_us.load(Relaxed)
    }
    pub(crate) fn set_commanded(&self, on: Option<bool>) {
        self.commanded.store(on.map_or(0, |on| if on { 1 } else { 2 }), Relaxed);
    }
    /// Whether it was logged in or out by command, unless a load has changed that since.
    pub(crate) fn commanded(&self, logged_in: bool) -> Option<bool> {
        let on = match self.commanded.load(Relaxed) {
            1 => true,
            2 => false,
            _ => return None,
        };
        (on == logged_in).then_some(on)
    }
    pub(crate) fn misses(&self) -> u32 {
        self.misses.load(Relaxed)
    }
    pub(crate) fn set_misses(&self, misses: u32) {
        self.misses.store(misses, Relaxed);
    }
    /// Whether the record is another than the latest one, which it then is.
    pub(crate) fn differs(&self, print: u64) -> bool {
        self.print.swap(print, Relaxed) != print
    }
    /// The place of another record in the order of all shards' records of it.
    pub(crate) fn next_write(&self) -> u64 {
        self.writes.fetch_add(1, Relaxed) + 1
    }
    pub(crate) fn tell_chat_over(&self) {
        self.chats_told.fetch_add(1, Relaxed);
    }
    pub(crate) fn hear_chat_over(&self) {
        self.chats_heard.fetch_add(1, Relaxed);
    }
    /// Ends of chats on their way to its home.
    pub(crate) fn chats_on_their_way(&self) -> u32 {
        self.chats_told.load(Relaxed).wrapping_sub(self.chats_heard.load(Relaxed))
    }
    /// No more is waited for those on their way.
    pub(crate) fn give_chats_up(&self) {
        self.chats_heard.store(self.chats_told.load(Relaxed), Relaxed);
    }
    /// Counts a miss; returns how many in a row.
    pub fn miss(&self) -> u32 {
        self.misses.fetch_add(1, Relaxed).saturating_add(1)
    }
    pub fn clear_misses(&self) {
        self.misses.store(0, Relaxed);
    }
}

/// An estimated wait without bound (nobody of the skill is logged in), seconds.
pub const UNBOUNDED_WAIT_S: i64 = 2_147_483_647;

const SEGMENT: usize = 256;

/// Values by index, in segments that appear when first asked for and never move.
#[derive(Debug)]
pub struct Segments<T> {
    segments: Box<[OnceLock<Box<[T]>>]>,
}

impl<T: Default> Segments<T> {
    fn new(most: usize) -> Segments<T> {
        Segments { segments: (0..most.div_ceil(SEGMENT).max(1)).map(|_| OnceLock::new()).collect() }
    }

    /// The value at `index`; beyond the limit, the last one (counted wrongly rather than crashing a shard).
    pub fn at(&self, index: u32) -> &T {
        let i = (index as usize).min(self.segments.len() * SEGMENT - 1);
        let segment = self.segments[i / SEGMENT].get_or_init(|| (0..SEGMENT).map(|_| T::default()).collect());
        &segment[i % SEGMENT]
    }

    /// The value at `index` if its segment exists.
    pub fn peek(&self, index: u32) -> Option<&T> {
        self.segments.get(index as usize / SEGMENT)?.get().map(|s| &s[index as usize % SEGMENT])
    }
}

/// What a shard's audit has done (`audit.rs`).
#[derive(Debug)]
pub struct AuditCounts {
    /// Times that it has looked at everything, and how long the last of them took.
    pub sweeps: Count,
    pub sweep_us: Count,
    /// Agents, queue entries, calls, legs and flows looked at.
    pub looked: Count,
    /// Mismatches, by [`Fault`], and those of them that were gone after their repair.
    pub found: [Count; Fault::COUNT],
    pub repaired: Count,
}

impl Default for AuditCounts {
    fn default() -> AuditCounts {
        let count = Count::default;
        let found = std::array::from_fn(|_| count());
        AuditCounts { sweeps: count(), sweep_us: count(), looked: count(), found, repaired: count() }
    }
}

/// One shard's counters.
#[derive(Debug)]
pub struct ShardStats {
    pub flows: Segments<FlowCounts>,
    pub agents: Segments<AgentCounts>,
    /// SIP level: what happened, for metrics.
    pub messages_in: Count,
    pub messages_out: Count,
    pub malformed: Count,
    pub retransmissions_in: Count,
    pub retransmissions_out: Count,
    pub media_failures: Count,
    pub internal_errors: Count,
    /// Initial INVITEs refused at arrival (-1 to -7), and by overload or drain.
    pub refused: Count,
    pub shed: Count,
    pub calls: Count,
    pub audit: AuditCounts,
    /// Ringing of each attempt that ended; talk of each call that was answered.
    pub rings: Durations,
    pub talks: Durations,
}

impl ShardStats {
    /// What goes on after a restart.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = &Count> {
        let counters = [
            &self.messages_in,
            &self.messages_out,
            &self.malformed,
            &self.media_failures,
            &self.internal_errors,
            &self.refused,
            &self.shed,
            &self.calls,
        ];
        counters.into_iter().chain(self.rings.counts()).chain(self.talks.counts())
    }
}

/// All shards' counters.
#[derive(Debug)]
pub struct StatsHub {
    shards: Box<[ShardStats]>,
    pub board: Segments<AgentBoard>,
}

impl StatsHub {
    /// Room for `flows` and `agents` (upper bounds; memory appears as used).
    #[must_use]
    pub fn new(shards: u16, flows: u32, agents: u32) -> StatsHub {
        let shard = || ShardStats {
            flows: Segments::new(flows as usize),
            agents: Segments::new(agents as usize),
            messages_in: Count::default(),
            messages_out: Count::default(),
            malformed: Count::default(),
            retransmissions_in: Count::default(),
            retransmissions_out: Count::default(),
            media_failures: Count::default(),
            internal_errors: Count::default(),
            refused: Count::default(),
            shed: Count::default(),
            calls: Count::default(),
            audit: AuditCounts::default(),
            rings: Durations::default(),
            talks: Durations::default(),
        };
        StatsHub { shards: (0..shards).map(|_| shard()).collect(), board: Segments::new(agents as usize) }
    }

    /// Counters of one shard.
    #[must_use]
    pub fn shard(&self, shard: u16) -> &ShardStats {
        &self.shards[usize::from(shard)]
    }

    /// A sum over shards.
    pub fn sum(&self, read: impl Fn(&ShardStats) -> i64) -> i64 {
        self.shards.iter().map(read).sum()
    }

    /// A sum over shards for one flow.
    pub fn flow(&self, idx: u32, read: impl Fn(&FlowCounts) -> i64) -> i64 {
        self.sum(|s| s.flows.peek(idx).map_or(0, &read))
    }

    /// Estimated wait behind `ahead` calls of a flow that `agents` logged-in agents serve, whole seconds: average talk x
    /// calls / agents (spec: call-center.md, "Estimated wait").
    pub fn estimated_wait_s(&self, flow: u32, ahead: i64, agents: u32) -> i64 {
        if agents == 0 {
            return UNBOUNDED_WAIT_S;
        }
        let (talk, calls) = (self.flow(flow, |f| f.talk_us.get()), self.flow(flow, |f| f.processed.get()));
        let per_call = if calls > 0 { talk / calls } else { 0 };
        (per_call.saturating_mul(ahead) / i64::from(agents) / 1_000_000).clamp(0, UNBOUNDED_WAIT_S)
    }

    /// A sum over shards for one agent slot.
    pub fn agent(&self, slot: u32, read: impl Fn(&AgentCounts) -> i64) -> i64 {
        self.sum(|s| s.agents.peek(slot).map_or(0, &read))
    }

    /// A histogram over all shards.
    pub fn durations<'a>(&'a self, pick: impl Fn(&'a ShardStats) -> Option<&'a Durations>) -> DurationsSum {
        let mut sum = DurationsSum::default();
        self.shards.iter().filter_map(pick).for_each(|d| d.add_to(&mut sum));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_that_is_no_shorter() {
        let durations = Durations::default();
        for us in [0, 100_000, 100_001, 3_600_000_000, 3_600_000_001] {
            durations.record(us);
        }
        let mut sum = DurationsSum::default();
        durations.add_to(&mut sum);
        assert_eq!((sum.buckets[0], sum.buckets[1], sum.buckets[14], sum.buckets[15]), (2, 1, 1, 1));
        assert_eq!(sum.sum_us, 7_200_200_002);
        assert!(BOUNDS_US.is_sorted());
    }
}
