//! The books of a run: each call in exactly one column, each latency in a histogram, each fault with an example.
//!
//! Invariant: `offered = answered + abandoned + refused + failed`. A call is booked once, when its caller's leg ends.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    interval::Interval,
    leg::LegId,
    phase::{Histograms, Phase},
};

/// Counters that another thread may read while a run goes on.
#[derive(Debug, Default)]
pub struct Live {
    /// Calls begun.
    pub offered: AtomicU64,
    /// Calls ended, by outcome; the four sum to `offered` at the end.
    pub answered: AtomicU64,
    pub abandoned: AtomicU64,
    pub refused: AtomicU64,
    pub failed: AtomicU64,
    /// Attempts that agents refused, ignored or hung up early.
    pub rejected_by_agents: AtomicU64,
    /// Gauges: callers without an agent, callers in talk, agents ringing, agents in a dialog, calls at media servers.
    pub waiting: AtomicI64,
    pub talking: AtomicI64,
    pub ringing: AtomicI64,
    pub agents_busy: AtomicI64,
    pub at_media: AtomicI64,
    /// SIP messages received and sent, and retransmissions received.
    pub received: AtomicU64,
    pub sent: AtomicU64,
    pub retransmissions: AtomicU64,
    /// For whoever watches, to count up: see [`Histograms::setup_by_epoch`].
    pub epoch: AtomicUsize,
}

impl Live {
    /// All to 0, for the next run on the same sockets.
    pub(crate) fn reset(&self) {
        let counters = [&self.offered, &self.answered, &self.abandoned, &self.refused, &self.failed];
        let others = [&self.rejected_by_agents, &self.received, &self.sent, &self.retransmissions];
        counters.into_iter().chain(others).for_each(|counter| counter.store(0, Relaxed));
        let gauges = [&self.waiting, &self.talking, &self.ringing, &self.agents_busy, &self.at_media];
        gauges.into_iter().for_each(|gauge| gauge.store(0, Relaxed));
    }
}

/// Percentiles of one latency, in microseconds. All 0 when nothing was recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            mean: (histogram.mean() * 10.0).round() / 10.0,
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

/// How often something happened, and the first time that it did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrences {
    pub count: u64,
    /// The first message or call concerned.
    pub first: String,
}

/// What happened in a run, as seen on the wire by callers, agents and media servers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Calls begun. Always the sum of the next four.
    pub offered: u64,
    /// Callers that heard the agent who served them, who heard them.
    pub answered: u64,
    /// Callers that gave up before that.
    pub abandoned: u64,
    /// Calls that got a final answer of 300 or above (save the 487 to our CANCEL).
    pub refused: u64,
    /// All others: no answer, wrong SDP, protocol errors; see `failures`.
    pub failed: u64,
    /// Attempts that agents refused, did not answer, or hung up early.
    pub rejected_by_agents: u64,
    /// INVITEs to an agent who was ringing or in a call, without the end of that being on its way.
    pub double_bookings: u64,
    /// INVITEs that agents got (without retransmissions).
    pub agent_invites: u64,
    /// Agents still in a dialog when the drain was over.
    pub agents_stuck: u64,
    /// Media servers' dialogs still standing then.
    pub media_stuck: u64,
    /// CDRs that the target must have written: one for each rejected attempt, one for each end of a call that was let in.
    pub cdrs_expected: u64,
    /// Messages that the target sent twice though we had answered in time, or it had.
    pub retransmissions_received: u64,
    /// Second copies of answers that our own retransmissions asked for.
    pub duplicates_received: u64,
    /// Messages that we sent twice, since no answer came.
    pub retransmissions_sent: u64,
    /// All SIP messages, received and sent.
    pub messages: u64,
    pub messages_received: u64,
    pub messages_sent: u64,
    /// Datagrams thrown away on purpose (`Scenario::loss`), and by the kernel because we read too late.
    pub dropped_on_purpose: u64,
    pub dropped_by_kernel: u64,
    /// Messages of calls of an earlier run on the same sockets.
    pub stale: u64,
    /// Violations of RFC 3261, 3264 and so on seen in received messages; see `violations`.
    pub unexpected: u64,
    /// Calls that were still waiting when the drain was over, and were then hung up: among the abandoned.
    pub unserved: u64,
    /// Wall time of the run, and CPU time (user + system) of the generator's thread, in seconds.
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// The furthest that an arrival was behind its intended time: large when the generator, not the target, was the limit.
    pub latest_arrival_us: u64,
    /// INVITE's intended send time to the first answer of any kind.
    pub first_answer_us: Latency,
    /// INVITE's intended send time to its 100 (where that came first), to a 180 or 183, and to the 200.
    pub trying_latency_us: Latency,
    pub ringing_latency_us: Latency,
    pub setup_latency_us: Latency,
    /// INVITE's intended send time to the 200, only callers that were first connected to a media server (no ringing in it).
    pub queue_setup_latency_us: Latency,
    /// Agent due (freed, plus wrap-up) to INVITE received, where the call had been waiting.
    pub free_to_invite_us: Latency,
    /// Call ready for an agent to the agent's INVITE received, where the agent had been idle.
    pub arrival_to_invite_us: Latency,
    /// BYE sent to its 200.
    pub bye_latency_us: Latency,
    /// Caller's INVITE to both hearing each other.
    pub wait_us: Latency,
    /// Why calls failed, by reason.
    pub failures: BTreeMap<String, Occurrences>,
    /// Final codes that callers were refused with.
    pub refusals: BTreeMap<u16, u64>,
    /// What `unexpected` counts, by kind.
    pub violations: BTreeMap<String, Occurrences>,
    /// Those CDRs by the Call-ID of their caller; see [`Scenario::rows_by_call`](crate::Scenario::rows_by_call).
    #[serde(skip)]
    pub rows_by_call: BTreeMap<String, u32>,
    /// The whole distributions, for those who plot or merge them.
    #[serde(skip)]
    pub histograms: Histograms,
}

impl Report {
    /// The percentiles of a phase.
    pub fn latency(&self, phase: Phase) -> &Latency {
        match phase {
            Phase::First => &self.first_answer_us,
            Phase::Trying => &self.trying_latency_us,
            Phase::Ringing => &self.ringing_latency_us,
            Phase::Setup => &self.setup_latency_us,
            Phase::QueueSetup => &self.queue_setup_latency_us,
            Phase::FreeToInvite => &self.free_to_invite_us,
            Phase::ArrivalToInvite => &self.arrival_to_invite_us,
            Phase::Bye => &self.bye_latency_us,
            Phase::Wait => &self.wait_us,
        }
    }

    /// Takes the distributions of the whole run, and their percentiles.
    pub(crate) fn set_histograms(&mut self, histograms: Histograms) {
        let of = |phase| Latency::from(histograms.of(phase));
        self.first_answer_us = of(Phase::First);
        self.trying_latency_us = of(Phase::Trying);
        self.ringing_latency_us = of(Phase::Ringing);
        self.setup_latency_us = of(Phase::Setup);
        self.queue_setup_latency_us = of(Phase::QueueSetup);
        self.free_to_invite_us = of(Phase::FreeToInvite);
        self.arrival_to_invite_us = of(Phase::ArrivalToInvite);
        self.bye_latency_us = of(Phase::Bye);
        self.wait_us = of(Phase::Wait);
        self.histograms = histograms;
    }

    /// Whether each call is in exactly one column.
    pub fn balanced(&self) -> bool {
        self.offered == self.answered + self.abandoned + self.refused + self.failed
    }

    /// Whether nothing at all went wrong: balanced, no failure, no double booking, no agent left over, no violation.
    pub fn clean(&self) -> bool {
        self.balanced()
            && self.failed == 0
            && self.double_bookings == 0
            && self.agents_stuck == 0
            && self.media_stuck == 0
            && self.unexpected == 0
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Abandoned,
    Refused(u16),
    Failed,
}

/// The books while they are being kept.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub report: Report,
    /// The latencies of the present interval.
    pub interval: Box<Interval>,
    /// CDRs by their caller's leg, where that is wanted.
    pub rows: Option<HashMap<LegId, i64>>,
}

/// Longest text kept as an example.
const EXAMPLE_BYTES: usize = 1500;

impl Books {
    /// Adds one latency given in nanoseconds.
    pub fn record(&mut self, phase: Phase, nanos: u64) {
        self.interval.histograms.record(phase, nanos);
    }

    /// Books the end of a call. `rows` are the CDRs that its end makes (0 or 1).
    pub fn settle(&mut self, live: &Live, call: LegId, outcome: Outcome, rows: u64) {
        self.row(Some(call), rows.cast_signed());
        let report = &mut self.report;
        let (column, gauge) = match outcome {
            Outcome::Answered => (&mut report.answered, &live.answered),
            Outcome::Abandoned => (&mut report.abandoned, &live.abandoned),
            Outcome::Refused(code) => {
                *report.refusals.entry(code).or_default() += 1;
                (&mut report.refused, &live.refused)
            }
            Outcome::Failed => (&mut report.failed, &live.failed),
        };
        *column += 1;
        gauge.fetch_add(1, Relaxed);
        report.cdrs_expected += rows;
    }

    /// An attempt that an agent refused, ignored or hung up early: it has a CDR of its own.
    pub fn rejected(&mut self, live: &Live, call: Option<LegId>) {
        self.row(call, 1);
        self.report.rejected_by_agents += 1;
        self.report.cdrs_expected += 1;
        live.rejected_by_agents.fetch_add(1, Relaxed);
    }

    /// Takes a [`Books::rejected`] back: the call had ended before the target saw the rejection.
    pub fn not_rejected(&mut self, live: &Live, call: Option<LegId>) {
        self.row(call, -1);
        self.report.rejected_by_agents -= 1;
        self.report.cdrs_expected -= 1;
        live.rejected_by_agents.fetch_sub(1, Relaxed);
    }

    fn row(&mut self, call: Option<LegId>, rows: i64) {
        if let (Some(by_call), Some(call)) = (&mut self.rows, call) {
            *by_call.entry(call).or_default() += rows;
        }
    }

    /// Notes why a call failed (the call itself is booked by [`Books::settle`]).
    pub fn failure(&mut self, reason: &str, example: impl FnOnce() -> String) {
        note(&mut self.report.failures, reason, example);
    }

    /// Counts a protocol violation in `message`.
    pub fn unexpected(&mut self, kind: &str, message: &[u8]) {
        self.report.unexpected += 1;
        note(&mut self.report.violations, kind, || String::from_utf8_lossy(message).into_owned());
    }
}

fn note(map: &mut BTreeMap<String, Occurrences>, kind: &str, example: impl FnOnce() -> String) {
    if let Some(known) = map.get_mut(kind) {
        known.count += 1;
        return;
    }
    let mut first = example();
    if first.len() > EXAMPLE_BYTES {
        let cut = (0..=EXAMPLE_BYTES).rev().find(|&at| first.is_char_boundary(at)).unwrap_or(0);
        first.truncate(cut);
    }
    map.insert(kind.to_owned(), Occurrences { count: 1, first });
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: LegId = LegId { index: 1, generation: 2 };

    #[test]
    fn each_outcome_has_its_column() {
        let (mut books, live) = (Books::default(), Live::default());
        books.report.offered = 4;
        for outcome in [Outcome::Answered, Outcome::Abandoned, Outcome::Refused(480), Outcome::Failed] {
            assert!(!books.report.balanced());
            books.settle(&live, CALL, outcome, u64::from(outcome != Outcome::Refused(480)));
        }
        assert!(books.report.balanced());
        assert_eq!(books.report.cdrs_expected, 3);
        assert_eq!(books.report.refusals[&480], 1);
        assert_eq!(live.abandoned.load(Relaxed), 1);
    }

    #[test]
    fn a_rejection_can_be_taken_back() {
        let (mut books, live) = (Books { rows: Some(HashMap::new()), ..Books::default() }, Live::default());
        books.rejected(&live, Some(CALL));
        books.rejected(&live, Some(CALL));
        books.not_rejected(&live, Some(CALL));
        books.settle(&live, CALL, Outcome::Answered, 1);
        assert_eq!((books.report.rejected_by_agents, books.report.cdrs_expected), (1, 2));
        assert_eq!(books.rows, Some(HashMap::from([(CALL, 2)])));
    }

    #[test]
    fn the_first_example_is_kept_and_cut_at_a_character() {
        let mut books = Books::default();
        books.unexpected("odd", "é".repeat(2000).as_bytes());
        books.unexpected("odd", b"second");
        let odd = &books.report.violations["odd"];
        assert_eq!(odd.count, 2);
        assert!(odd.first.len() <= EXAMPLE_BYTES && odd.first.starts_with('é'));
        assert!(!books.report.clean());
    }

    #[test]
    fn percentiles_come_out_in_microseconds() {
        let mut histograms = Histograms::default();
        for millis in 1..=100 {
            histograms.record(Phase::Setup, millis * 1_000_000);
        }
        let latency = Latency::from(histograms.of(Phase::Setup));
        assert_eq!(latency.count, 100);
        assert!((49_900..=50_100).contains(&latency.p50) && latency.max >= 99_900);
        assert_eq!(Latency::from(histograms.of(Phase::Bye)), Latency::default());
    }
}
