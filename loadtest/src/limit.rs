//! The search for the highest rate that a target bears: double (or halve) until one rate is borne and another is not,
//! then bisect between them.
//!
//! A rate is borne when under a share of its calls failed, and the 99th percentile of each bounded phase is within its
//! bound. What ringing and queueing lengthen is no measure of a server: the default bound is on the INVITE's first answer.

use std::time::Duration;

use serde::Serialize;

use crate::{
    phase::Phase,
    report::Report,
    scenario::{Behaviour, Scenario},
};

/// What a rate must keep to be borne, and how closely the limit is sought.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// The 99th percentile of each phase is at most this.
    pub bounds: Vec<(Phase, Duration)>,
    /// Share of the calls that may fail, be refused, or be left waiting: under this.
    pub failures: f64,
    /// The search ends when the borne and the unborne rate are this close, as a share of the unborne.
    pub precision: f64,
    /// No step is at a higher rate.
    pub highest: f64,
    /// How long calls arrive in a step, at least.
    pub step: Duration,
    /// After a step: quiet for this long, on top of the wrap-up, before the next. A target that was too busy needs a
    /// moment to be itself again.
    pub calm: Duration,
}

impl Default for Goal {
    fn default() -> Self {
        Self {
            bounds: vec![(Phase::First, Duration::from_millis(100))],
            failures: 0.001,
            precision: 0.05,
            highest: 1e6,
            step: Duration::from_secs(10),
            calm: Duration::from_secs(2),
        }
    }
}

/// Calls that a step should have, so that a failure or two say something.
const ENOUGH_CALLS: f64 = 2_000.0;
/// A step is never longer than this many times the goal's.
const LONGEST: u32 = 3;
/// How long the calls of a step may go on after its last arrival, at most.
const DRAIN: Duration = Duration::from_secs(15);
/// The generator was the limit when its thread used more of a core than this.
const SATURATED: f64 = 0.9;

impl Goal {
    /// The scenario of a step: long enough for calls to end at the rate at which they begin, and for [`ENOUGH_CALLS`];
    /// quiet after it.
    pub fn step(&self, scenario: &Scenario, rate: f64) -> Scenario {
        let rings =
            scenario.agents.iter().flat_map(|plan| &plan.behaviours).filter_map(|(_, behaviour)| match behaviour {
                Behaviour::Answer { ring } | Behaviour::Refuse { ring, .. } => Some(ring.mean()),
                Behaviour::HangUp { ring, .. } | Behaviour::Abandon { ring, .. } => Some(ring.mean()),
                Behaviour::Ignore => None,
            });
        let call = (rings.max().unwrap_or_default() + scenario.talk.mean()).min(self.step * LONGEST);
        let enough = Duration::from_secs_f64(ENOUGH_CALLS / rate.max(1e-3));
        Scenario {
            rate,
            duration: call + self.step.max(enough).min(self.step * LONGEST),
            drain: scenario.drain.min(DRAIN),
            calm: scenario.calm.max(self.calm + scenario.wrapup),
            ..scenario.clone()
        }
    }

    /// Judges a step.
    pub fn judge(&self, rate: f64, scenario: &Scenario, report: &Report) -> Step {
        // The agents of a self-test refuse as they were told to; a server is to find others, or let wait.
        let refused = if scenario.loopback { 0 } else { report.refused };
        let bad = report.failed + refused + report.unserved;
        let share = bad as f64 / report.offered.max(1) as f64;
        let mut why = Vec::new();
        if report.offered == 0 || share >= self.failures {
            why.push(format!("{bad} of {} calls failed", report.offered));
        }
        for (phase, bound) in &self.bounds {
            let p99 = report.latency(*phase).p99;
            if u128::from(p99) > bound.as_micros() {
                let ms = Duration::from_micros(p99).as_secs_f64() * 1000.0;
                why.push(format!("p99 of {} {ms:.1} ms", phase.key()));
            }
        }
        let cores = report.cpu_seconds / report.seconds.max(1e-9);
        Step {
            rate,
            offered: report.offered,
            bad,
            share,
            first_p99_us: report.first_answer_us.p99,
            bounded_p99_us: self.bounds.iter().map(|(phase, _)| (phase.key(), report.latency(*phase).p99)).collect(),
            borne: why.is_empty(),
            why,
            generator_saturated: cores > SATURATED || report.dropped_by_kernel > 0,
            generator_cpu: cores,
            target_cpu: None,
        }
    }

    /// The bounds in microseconds, by the phases' keys.
    pub fn bounds_us(&self) -> std::collections::BTreeMap<&'static str, u64> {
        self.bounds.iter().map(|(phase, bound)| (phase.key(), bound.as_micros() as u64)).collect()
    }

    /// Whether a step in progress is lost already: so many latencies of a bounded phase are above its bound that the
    /// 99th percentile of all its calls will be.
    pub fn is_hopeless(&self, above: u64, planned: f64) -> bool {
        above as f64 > planned * 0.015 + 10.0
    }
}

/// One step of the search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    pub rate: f64,
    pub offered: u64,
    /// Calls that failed, were refused, or were left waiting; and their share.
    pub bad: u64,
    pub share: f64,
    pub first_p99_us: u64,
    pub bounded_p99_us: std::collections::BTreeMap<&'static str, u64>,
    pub borne: bool,
    /// Why not.
    pub why: Vec<String>,
    /// The generator itself was the limit.
    pub generator_saturated: bool,
    /// Cores used, on average over the step.
    pub generator_cpu: f64,
    pub target_cpu: Option<f64>,
}

/// What held the rate down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitedBy {
    /// The target did not bear more.
    Target,
    /// The generator could not offer more: run it on a core of its own, or on several.
    Generator,
    /// More agents could not have taken more calls: give more, or shorter talks.
    Agents,
    /// The highest rate that was asked for was borne.
    HighestRate,
    /// It was interrupted.
    Interrupted,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    /// The highest rate that was borne, in calls a second; 0: none was.
    pub max_rate: f64,
    pub limited_by: LimitedBy,
    /// What was asked of each phase's 99th percentile, in microseconds.
    pub bounds_us: std::collections::BTreeMap<&'static str, u64>,
    pub steps: Vec<Step>,
}

/// The state of a search. Feed it with what each rate came to.
#[derive(Debug, Clone)]
pub struct Search {
    precision: f64,
    highest: f64,
    borne: Option<f64>,
    unborne: Option<f64>,
    next: Option<f64>,
    /// The unborne rate's second chance is still to come.
    retry: bool,
}

/// Below this rate no limit is sought.
const LOWEST: f64 = 0.1;

impl Search {
    /// A search that begins at `first` calls a second.
    pub fn new(goal: &Goal, first: f64) -> Self {
        let next = Some(first.clamp(LOWEST, goal.highest));
        let (precision, highest) = (goal.precision, goal.highest);
        Self { precision, highest, borne: None, unborne: None, next, retry: true }
    }

    /// The rate to try next; `None` at the end.
    pub fn next(&self) -> Option<f64> {
        self.next
    }

    /// The highest rate that was borne.
    pub fn found(&self) -> f64 {
        self.borne.unwrap_or(0.0)
    }

    /// Takes what the last rate came to. One that was not borne is tried a second time: machines hiccup.
    pub fn tell(&mut self, borne: bool) {
        let Some(rate) = self.next else { return };
        if !borne && std::mem::replace(&mut self.retry, false) {
            return;
        }
        self.retry = true;
        if borne {
            self.borne = Some(rate);
        } else {
            self.unborne = Some(rate);
        }
        self.next = match (self.borne, self.unborne) {
            (Some(low), Some(high)) if high - low <= self.precision * high => None,
            (Some(low), Some(high)) => Some((low + high) / 2.0),
            (Some(low), None) if low >= self.highest => None,
            (Some(low), None) => Some((low * 2.0).min(self.highest)),
            (None, Some(high)) if high <= LOWEST => None,
            (None, Some(high)) => Some((high / 2.0).max(LOWEST)),
            (None, None) => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches for a limit that is known; returns what was found and the steps that it took.
    fn search(limit: f64, first: f64, goal: &Goal) -> (f64, usize) {
        let mut search = Search::new(goal, first);
        let mut steps = 0;
        while let Some(rate) = search.next() {
            search.tell(rate <= limit);
            steps += 1;
            assert!(steps < 100);
        }
        (search.found(), steps)
    }

    #[test]
    fn a_limit_is_found_from_below_and_from_above() {
        let goal = Goal::default();
        for first in [10.0, 1_000.0, 50_000.0] {
            let (found, steps) = search(1234.0, first, &goal);
            assert!(found <= 1234.0 && found > 1234.0 * 0.95, "{found} from {first}");
            assert!(steps < 30, "{steps} from {first}");
        }
    }

    #[test]
    fn a_search_ends_at_its_bounds() {
        assert_eq!(search(1e9, 100.0, &Goal { highest: 700.0, ..Goal::default() }).0, 700.0);
        assert_eq!(search(0.0, 100.0, &Goal::default()).0, 0.0);
    }

    #[test]
    fn one_hiccup_is_forgiven() {
        let mut search = Search::new(&Goal::default(), 100.0);
        search.tell(false);
        assert_eq!(search.next(), Some(100.0));
        search.tell(true);
        assert_eq!((search.next(), search.found()), (Some(200.0), 100.0));
    }

    #[test]
    fn a_step_is_judged_by_failures_and_bounds() {
        let (goal, scenario) = (Goal::default(), Scenario::default());
        let mut report = Report { offered: 2000, answered: 1999, failed: 1, seconds: 1.0, ..Report::default() };
        assert!(goal.judge(5.0, &scenario, &report).borne);
        report.unserved = 1;
        let step = goal.judge(5.0, &scenario, &report);
        assert_eq!((step.borne, step.why), (false, vec!["2 of 2000 calls failed".to_owned()]));
        report.unserved = 0;
        report.first_answer_us.p99 = 100_001;
        assert_eq!(goal.judge(5.0, &scenario, &report).why, ["p99 of first 100.0 ms"]);
        report.cpu_seconds = 0.95;
        assert!(goal.judge(5.0, &scenario, &report).generator_saturated);
        report.refused = 1999;
        assert!(goal.judge(5.0, &scenario, &report).why.len() == 2);
        assert_eq!(goal.judge(5.0, &Scenario { loopback: true, ..scenario }, &report).why.len(), 1);
        assert!(!goal.judge(5.0, &Scenario::default(), &Report::default()).borne);
    }

    #[test]
    fn a_step_is_long_enough_and_quiet_after() {
        let (goal, scenario) = (Goal::default(), Scenario { wrapup: Duration::from_secs(3), ..Scenario::default() });
        let step = goal.step(&scenario, 100.0);
        // 2 000 calls at 100 a second, and 2.5 s for calls to begin to end.
        assert_eq!((step.rate, step.duration), (100.0, Duration::from_millis(22_500)));
        assert_eq!((step.drain, step.calm), (DRAIN, Duration::from_secs(5)));
        assert_eq!(goal.step(&scenario, 1e4).duration, Duration::from_millis(12_500));
        assert_eq!(goal.step(&scenario, 1.0).duration, Duration::from_millis(32_500));
        assert!(goal.is_hopeless(200, 2_000.0) && !goal.is_hopeless(30, 2_000.0));
    }
}
