//! A run over time: one sample an interval, for plots and JSON.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{interval::Interval, process::Process};

/// Percentiles of one phase in one interval, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    pub count: u64,
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

/// One interval of a run. Counts are of what happened in it, gauges of its end.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Seconds from the run's beginning to the interval's end, and its length.
    pub at: f64,
    pub seconds: f64,
    pub offered: u64,
    pub answered: u64,
    pub abandoned: u64,
    pub refused: u64,
    pub failed: u64,
    /// SIP messages, sent and received.
    pub messages: u64,
    pub waiting: i64,
    pub talking: i64,
    pub ringing: i64,
    /// The furthest that an arrival was behind its intended time.
    pub late_us: u64,
    /// CPU in cores (1.0 is one core fully used), of the generator's thread and of the server.
    pub generator_cpu: f64,
    pub target_cpu: Option<f64>,
    /// The server's resident memory, in bytes.
    pub target_memory: Option<u64>,
    /// By the phase's key; phases in which nothing happened are left out.
    pub latency_us: BTreeMap<&'static str, Spread>,
}

/// Collects samples.
#[derive(Debug, Default)]
pub struct Series {
    pub samples: Vec<Sample>,
    target: Option<Process>,
    cpu: Option<Duration>,
    began: Option<Duration>,
    /// The server's highest resident memory, in bytes.
    pub memory: Option<u64>,
}

impl Series {
    /// Samples of a run against `target`, where its process is known.
    pub fn new(target: Option<Process>) -> Self {
        let cpu = target.as_ref().and_then(Process::cpu);
        Self { samples: Vec::new(), cpu, began: cpu, target, memory: None }
    }

    /// Takes an interval in, as it ends.
    pub fn add(&mut self, interval: &Interval) {
        let seconds = interval.length.as_secs_f64().max(1e-9);
        let cpu = self.target.as_ref().and_then(Process::cpu);
        let target_cpu = cpu.zip(self.cpu).map(|(now, before)| now.saturating_sub(before).as_secs_f64() / seconds);
        self.cpu = cpu.or(self.cpu);
        let target_memory = self.target.as_ref().and_then(Process::memory);
        self.memory = self.memory.max(target_memory);
        let spread = |histogram: &hdrhistogram::Histogram<u64>| Spread {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            max: histogram.max(),
        };
        let happened = interval.histograms.iter().filter(|(_, histogram)| !histogram.is_empty());
        let counts = interval.counts;
        self.samples.push(Sample {
            at: (interval.start + interval.length).as_secs_f64(),
            seconds,
            offered: counts.offered,
            answered: counts.answered,
            abandoned: counts.abandoned,
            refused: counts.refused,
            failed: counts.failed,
            messages: counts.received + counts.sent,
            waiting: interval.gauges.waiting,
            talking: interval.gauges.talking,
            ringing: interval.gauges.ringing,
            late_us: interval.late.as_micros() as u64,
            generator_cpu: interval.cpu.as_secs_f64() / seconds,
            target_cpu,
            target_memory,
            latency_us: happened.map(|(phase, histogram)| (phase.key(), spread(histogram))).collect(),
        });
    }

    /// CPU time that the server has used since the series began.
    pub fn target_cpu(&self) -> Option<Duration> {
        self.cpu.zip(self.began).map(|(now, began)| now.saturating_sub(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Phase;

    #[test]
    fn an_interval_is_a_sample() {
        let mut series = Series::new(Some(Process::watch(std::process::id()).unwrap()));
        let mut interval =
            Interval { length: Duration::from_secs(2), cpu: Duration::from_secs(1), ..Interval::default() };
        interval.histograms.record(Phase::Bye, 3_000_000);
        interval.counts.sent = 3;
        series.add(&interval);
        let sample = &series.samples[0];
        assert_eq!((sample.at, sample.generator_cpu, sample.messages), (2.0, 0.5, 3));
        assert_eq!(sample.latency_us.keys().collect::<Vec<_>>(), [&"bye"]);
        assert_eq!(sample.latency_us["bye"].count, 1);
        assert!(sample.target_cpu.is_some() && series.memory > Some(0) && series.target_cpu().is_some());
        let mut blind = Series::new(None);
        blind.add(&interval);
        assert_eq!((blind.samples[0].target_cpu, blind.target_cpu()), (None, None));
    }
}
