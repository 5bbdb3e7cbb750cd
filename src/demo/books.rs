//! The books of a demo: what the generator counted, what the database holds, what the shards measured.

use super::sample::micros;
use hdrhistogram::Histogram;
use loadtest::{Latency, Report};
use serde_json::{Value, json};
use std::fmt;
use strowger_runtime::LatencySnapshot;

/// What the server was like at the end.
pub struct Outcome {
    /// No call and no wrap-up is left on any shard.
    pub settled: bool,
    pub agents_in_call: u64,
    pub onhold: i64,
    pub latency: LatencySnapshot,
    pub shards: u16,
    /// Of the process without the generator's thread.
    pub cpu_seconds: f64,
}

/// Microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Percentiles {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Percentiles {
    fn of_nanos(h: &Histogram<u64>) -> Percentiles {
        Percentiles { p50: micros(h, 0.5), p99: micros(h, 0.99), p999: micros(h, 0.999), max: micros(h, 1.0) }
    }

    fn of_latency(l: &Latency) -> Percentiles {
        Percentiles { p50: l.p50, p99: l.p99, p999: l.p999, max: l.max }
    }

    fn json(&self) -> Value {
        json!({"p50": self.p50, "p99": self.p99, "p999": self.p999, "max": self.max})
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:>7}  p99 {:>7}  p99.9 {:>7}  max {:>7} us", self.p50, self.p99, self.p999, self.max)
    }
}

/// A demo's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub offered: u64,
    pub answered: u64,
    pub abandoned: u64,
    pub rejected_by_agents: u64,
    pub refused: u64,
    pub failed: u64,
    /// Rows of `cc_cdrs` after the stop, and how many the generator says there must be.
    pub cdrs_written: u64,
    pub cdrs_expected: u64,
    /// In a call at rest, by the server's list or the generator's agents.
    pub agents_stuck: u64,
    pub double_bookings: u64,
    pub onhold_at_rest: i64,
    /// Whether the shards were empty within the time allowed.
    pub settled: bool,
    pub dispatch_latency_us: Percentiles,
    /// On the wire: agent due to its INVITE received.
    pub free_to_invite_us: Percentiles,
    pub setup_latency_us: Percentiles,
    pub wait_us: Percentiles,
    pub messages: u64,
    pub retransmissions: u64,
    pub violations: u64,
    pub cpu_us_per_call: f64,
    pub shards: u16,
    pub seconds: f64,
    /// Why calls failed, and what was wrong in messages, with the first of each.
    pub remarks: Vec<String>,
}

impl Summary {
    /// From what everybody counted; `written`: rows of `cc_cdrs`.
    pub(super) fn of(r: &Report, o: &Outcome, written: u64) -> Summary {
        let tell =
            |(kind, what): (&String, &loadtest::Occurrences)| format!("{} x {kind}, first: {}", what.count, what.first);
        #[allow(clippy::cast_precision_loss)] // a figure for people
        let per_call = if r.offered == 0 { 0.0 } else { o.cpu_seconds.max(0.0) * 1e6 / r.offered as f64 };
        Summary {
            offered: r.offered,
            answered: r.answered,
            abandoned: r.abandoned,
            rejected_by_agents: r.rejected_by_agents,
            refused: r.refused,
            failed: r.failed,
            cdrs_written: written,
            cdrs_expected: r.cdrs_expected,
            agents_stuck: r.agents_stuck.max(o.agents_in_call),
            double_bookings: r.double_bookings,
            onhold_at_rest: o.onhold,
            settled: o.settled,
            dispatch_latency_us: Percentiles::of_nanos(&o.latency.dispatch),
            free_to_invite_us: Percentiles::of_latency(&r.free_to_invite_us),
            setup_latency_us: Percentiles::of_latency(&r.setup_latency_us),
            wait_us: Percentiles::of_latency(&r.wait_us),
            messages: r.messages,
            retransmissions: r.retransmissions_received,
            violations: r.unexpected,
            cpu_us_per_call: (per_call * 10.0).round() / 10.0,
            shards: o.shards,
            seconds: r.seconds,
            remarks: r.failures.iter().chain(&r.violations).map(tell).collect(),
        }
    }

    /// Whether every call, record and agent is accounted for.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.offered == self.answered + self.abandoned + self.refused + self.failed
            && self.cdrs_written == self.cdrs_expected
            && self.agents_stuck == 0
            && self.double_bookings == 0
            && self.onhold_at_rest == 0
            && self.settled
    }

    /// One object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "balanced": self.balanced(),
            "offered": self.offered,
            "answered": self.answered,
            "abandoned": self.abandoned,
            "rejected_by_agents": self.rejected_by_agents,
            "refused": self.refused,
            "failed": self.failed,
            "cdrs_written": self.cdrs_written,
            "cdrs_expected": self.cdrs_expected,
            "agents_stuck": self.agents_stuck,
            "double_bookings": self.double_bookings,
            "onhold_at_rest": self.onhold_at_rest,
            "dispatch_latency_us": self.dispatch_latency_us.json(),
            "free_to_invite_us": self.free_to_invite_us.json(),
            "setup_latency_us": self.setup_latency_us.json(),
            "wait_us": self.wait_us.json(),
            "messages": self.messages,
            "retransmissions": self.retransmissions,
            "violations": self.violations,
            "cpu_us_per_call": self.cpu_us_per_call,
            "shards": self.shards,
            "seconds": self.seconds,
            "remarks": self.remarks,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self;
        writeln!(
            f,
            "calls       {} offered = {} answered + {} abandoned + {} refused + {} failed",
            s.offered, s.answered, s.abandoned, s.refused, s.failed
        )?;
        writeln!(f, "attempts    {} rejected by agents", s.rejected_by_agents)?;
        writeln!(f, "CDRs        {} in the database, {} expected", s.cdrs_written, s.cdrs_expected)?;
        writeln!(f, "agents      {} stuck, {} booked twice", s.agents_stuck, s.double_bookings)?;
        writeln!(f, "at rest     {} on hold{}", s.onhold_at_rest, if s.settled { "" } else { ", shards not empty" })?;
        writeln!(f, "dispatch    {}   (agent free to INVITE sent)", s.dispatch_latency_us)?;
        writeln!(f, "on the wire {}   (agent free to INVITE received)", s.free_to_invite_us)?;
        writeln!(f, "set-up      {}   (INVITE to 200)", s.setup_latency_us)?;
        writeln!(f, "wait        {}   (INVITE to both talking)", s.wait_us)?;
        writeln!(
            f,
            "messages    {}, {} retransmitted by the server, {} against the rules",
            s.messages, s.retransmissions, s.violations
        )?;
        writeln!(f, "CPU         {} us per call, {} shards, {:.1} s in all", s.cpu_us_per_call, s.shards, s.seconds)?;
        for remark in &s.remarks {
            writeln!(f, "remark      {remark}")?;
        }
        write!(f, "{}", if s.balanced() { "The books balance." } else { "THE BOOKS DO NOT BALANCE." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadtest::Report;

    fn outcome() -> Outcome {
        let latency = LatencySnapshot::merge(&[]);
        Outcome { settled: true, agents_in_call: 0, onhold: 0, latency, shards: 2, cpu_seconds: 0.5 }
    }

    fn report() -> Report {
        Report { offered: 10, answered: 7, abandoned: 2, refused: 1, cdrs_expected: 12, ..Report::default() }
    }

    #[test]
    fn the_books_balance_only_when_everything_is_accounted_for() {
        let good = Summary::of(&report(), &outcome(), 12);
        assert!(good.balanced(), "{good}");
        assert_eq!(good.cpu_us_per_call, 50_000.0);
        assert!(!Summary::of(&report(), &outcome(), 11).balanced(), "a record is missing");
        assert!(!Summary::of(&report(), &outcome(), 13).balanced(), "a record is double");
        assert!(!Summary::of(&report(), &Outcome { agents_in_call: 1, ..outcome() }, 12).balanced());
        assert!(!Summary::of(&report(), &Outcome { onhold: 1, ..outcome() }, 12).balanced());
        assert!(!Summary::of(&report(), &Outcome { settled: false, ..outcome() }, 12).balanced());
        assert!(!Summary::of(&Report { double_bookings: 1, ..report() }, &outcome(), 12).balanced());
        assert!(!Summary::of(&Report { answered: 6, ..report() }, &outcome(), 12).balanced());
    }

    #[test]
    fn the_json_has_the_keys_that_scripts_read() {
        let json = Summary::of(&report(), &outcome(), 12).json();
        for key in "offered answered abandoned rejected_by_agents refused failed cdrs_written cdrs_expected agents_stuck double_bookings \
            onhold_at_rest dispatch_latency_us setup_latency_us messages cpu_us_per_call shards"
            .split_whitespace()
        {
            assert!(json.get(key).is_some(), "{key}");
        }
        for key in ["p50", "p99", "p999", "max"] {
            assert!(json["dispatch_latency_us"][key].is_u64() && json["setup_latency_us"][key].is_u64());
        }
    }
}
