//! All that is known of one target at the end: the report, the run over time, the limit if one was sought; as text and
//! as JSON, of one target or of two side by side.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use crate::{
    limit::{Limit, LimitedBy, Step},
    phase::Phase,
    report::Report,
    series::{Sample, Series},
};

/// What a run, or a search for the limit, came to.
#[derive(Debug)]
pub struct Outcome {
    /// What the target is called.
    pub name: String,
    /// With a search: of the highest rate that was borne, or of the last step when none was.
    pub report: Report,
    pub samples: Vec<Sample>,
    /// CPU time of the target over the report's run, and its highest resident memory in bytes, where its process is known.
    pub target_cpu: Option<Duration>,
    pub target_memory: Option<u64>,
    pub limit: Option<Limit>,
}

impl Outcome {
    pub fn new(name: String, report: Report, series: Series) -> Self {
        let (target_cpu, target_memory) = (series.target_cpu(), series.memory);
        Self { name, report, samples: series.samples, target_cpu, target_memory, limit: None }
    }

    /// CPU time of the target for each call offered, in microseconds.
    pub fn target_cpu_us_per_call(&self) -> Option<f64> {
        let calls = self.report.offered.max(1) as f64;
        self.target_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / calls)
    }

    /// The report's fields, and `name`, `series`, and where known `target_cpu_seconds`, `target_memory`, `find_max`.
    pub fn json(&self) -> Value {
        // The report has string keys and numbers only: it cannot fail to become JSON.
        let mut value = serde_json::to_value(&self.report).unwrap_or_default();
        value["name"] = json!(self.name);
        value["series"] = json!(self.samples);
        if let Some(cpu) = self.target_cpu {
            value["target_cpu_seconds"] = json!(cpu.as_secs_f64());
        }
        if let Some(memory) = self.target_memory {
            value["target_memory"] = json!(memory);
        }
        if let Some(limit) = &self.limit {
            value["find_max"] = json!(limit);
        }
        value
    }

    /// The tables of one target.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        if let Some(limit) = &self.limit {
            let _ = writeln!(text, "{limit}");
        }
        if let Some(cpu) = self.target_cpu {
            let seconds = self.report.seconds.max(1e-9);
            let _ = write!(text, "server     {:.1} s CPU", cpu.as_secs_f64());
            let _ = write!(text, " ({:.0} % of a core)", 100.0 * cpu.as_secs_f64() / seconds);
            let _ = write!(text, ", {:.0} us a call", self.target_cpu_us_per_call().unwrap_or(0.0));
            let memory = self.target_memory.unwrap_or(0) as f64 / f64::from(1 << 20);
            let _ = writeln!(text, ", {memory:.1} MiB resident at most");
        }
        let _ = write!(text, "{}", self.report);
        text
    }
}

/// One JSON object: a target's, or with two `{"targets": [...]}`.
pub fn json_of(outcomes: &[Outcome]) -> Value {
    match outcomes {
        [one] => one.json(),
        all => json!({ "targets": all.iter().map(Outcome::json).collect::<Vec<_>>() }),
    }
}

/// The tables of one target, or of two one after the other and side by side.
pub fn text_of(outcomes: &[Outcome]) -> String {
    match outcomes {
        [one] => one.text(),
        [a, b] => format!("== {} ==\n{}\n== {} ==\n{}\n{}", a.name, a.text(), b.name, b.text(), side_by_side(a, b)),
        all => all.iter().map(Outcome::text).collect(),
    }
}

/// How many times as much `b` is as `a`.
pub(crate) fn ratio(a: f64, b: f64) -> String {
    if a > 0.0 && b > 0.0 { format!("x{:.2}", b / a) } else { String::new() }
}

fn side_by_side(a: &Outcome, b: &Outcome) -> String {
    let short = |name: &str| name.chars().take(16).collect::<String>();
    let mut text = format!("{:<36}{:>17}{:>17}{:>9}\n", "side by side", short(&a.name), short(&b.name), "");
    let mut row = |name: &str, of: &dyn Fn(&Outcome) -> Option<f64>, digits: usize| {
        let (Some(a), Some(b)) = (of(a), of(b)) else { return };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<36}{a:>17.digits$}{b:>17.digits$}{:>9}", ratio(a, b));
    };
    row("highest rate, calls/s", &|o| o.limit.as_ref().map(|limit| limit.max_rate), 1);
    row("answered", &|o| Some(o.report.answered as f64), 0);
    row("refused", &|o| Some(o.report.refused as f64), 0);
    row("failed", &|o| Some(o.report.failed as f64), 0);
    row("violations", &|o| Some(o.report.unexpected as f64), 0);
    row("server CPU, us a call", &Outcome::target_cpu_us_per_call, 1);
    row("server memory, MiB", &|o| o.target_memory.map(|bytes| bytes as f64 / f64::from(1 << 20)), 1);
    for phase in Phase::ALL {
        for (name, percentile) in [("p50", 0), ("p99", 1), ("p99.9", 2)] {
            let latency = |o: &Outcome| {
                let latency = o.report.latency(phase);
                (latency.count > 0).then_some([latency.p50, latency.p99, latency.p999][percentile] as f64)
            };
            row(&format!("{} {name}, us", phase.key()), &latency, 0);
        }
    }
    text
}

impl LimitedBy {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Target => "more was too much for the target",
            Self::Generator => "the generator itself was the limit: give it a core of its own",
            Self::Agents => "more would keep all agents busy: give more --agents, or shorter talks",
            Self::HighestRate => "no higher rate was to be tried (--max-rate)",
            Self::Interrupted => "interrupted",
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>10.1} calls/s {:>8} calls", self.rate, self.offered)?;
        write!(f, "  {}", if self.borne { "borne    " } else { "too much " })?;
        write!(f, " failed {:.3} %", 100.0 * self.share)?;
        for (phase, p99) in &self.bounded_p99_us {
            write!(f, "  p99 {phase} {:.2} ms", *p99 as f64 / 1000.0)?;
        }
        write!(f, "  CPU generator {:.0} %", 100.0 * self.generator_cpu)?;
        if let Some(cpu) = self.target_cpu {
            write!(f, " server {:.0} %", 100.0 * cpu)?;
        }
        if self.why.is_empty() { Ok(()) } else { write!(f, "  ({})", self.why.join("; ")) }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "limit      {:.1} calls/s; {}", self.max_rate, self.limited_by.words())?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{phase::Histograms, process::Process};

    pub fn outcome(name: &str, millis: u64) -> Outcome {
        let mut report = Report { offered: 10, answered: 10, seconds: 2.0, ..Report::default() };
        let mut histograms = Histograms::default();
        histograms.record(Phase::Bye, millis * 1_000_000);
        report.set_histograms(histograms);
        let series = Series::new(Some(Process::watch(std::process::id()).unwrap()));
        Outcome::new(name.to_owned(), report, series)
    }

    #[test]
    fn one_target_is_an_object_and_two_are_a_list() {
        let mut one = outcome("a", 2);
        let limit =
            Limit { max_rate: 7.0, limited_by: LimitedBy::Target, bounds_us: [("first", 5)].into(), steps: Vec::new() };
        one.limit = Some(limit);
        let value = json_of(std::slice::from_ref(&one));
        assert_eq!(
            (&value["name"], &value["answered"], &value["find_max"]["max_rate"]),
            (&json!("a"), &json!(10), &json!(7.0))
        );
        assert_eq!(value["find_max"]["limited_by"], "target");
        assert!(value["target_cpu_seconds"].is_number() && value["series"].is_array());
        assert_eq!(json_of(&[one, outcome("b", 4)])["targets"][1]["name"], "b");
    }

    #[test]
    fn two_targets_are_shown_side_by_side() {
        let text = text_of(&[outcome("a", 2), outcome("b", 4)]);
        let row = text.lines().find(|line| line.starts_with("bye p99,")).unwrap();
        assert!(row.contains("x2.00"), "{text}");
        assert!(text.contains("server CPU, us a call") && text.contains("== b =="), "{text}");
        assert!(!text.contains("highest rate"), "{text}");
    }
}
