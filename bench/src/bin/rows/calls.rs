//! Rows of calls that come and go: CPU a call and a message, the highest rate, latency at half of it, a trunk, the soak.

use crate::figures::{Line, median, percentile, told};
use crate::generator::number;
use crate::play::{Agents, Bench, Load, Played, play};
use crate::server::How;
use loadtest::{Goal, Search};
use std::time::Duration;
use strowger_bench::{call::Queue, floor};

/// Messages of a full queued call.
const MESSAGES: f64 = 20.0;
/// Part of the highest rate at which the server counts as saturated, and still keeps up.
const SATURATED: f64 = 0.9;
/// How close the highest rate is sought, as a share of it.
const PRECISION: f64 = 0.04;
/// Above this part of a core the generator itself was the limit.
const GENERATOR_FULL: f64 = 0.9;

/// What a run at nearly the highest rate came to, with the floor of the same minute.
#[derive(Debug)]
pub struct Loaded {
    floor_us: f64,
    played: Played,
}

impl Bench {
    fn load(&self, rate: f64, agents: Agents, how: How) -> Load {
        Load { rate, seconds: self.seconds(), agents, how, more: Vec::new() }
    }

    /// Plays once, quietly, and tells.
    pub fn run(&self, load: &Load) -> Result<Played, String> {
        let played = self.quietly(|| play(self, load))?;
        eprintln!("  {:.0} calls/s: {}", load.rate, played.told());
        Ok(played)
    }

    fn runs(&self, load: &Load) -> Result<Vec<Played>, String> {
        (0..self.options.runs).map(|_| self.run(load)).collect()
    }

    /// The highest rate at which nothing fails and the first answer comes in time; whether the generator was the limit.
    ///
    /// # Errors
    /// A run did not work at all.
    pub fn highest(&self, agents: Agents, how: &How) -> Result<(f64, bool), String> {
        eprintln!("  the highest rate is sought");
        let mut rate = 400.0 * how.quota.unwrap_or(1.0);
        let slow = self.run(&self.load(rate, agents, how.clone()))?;
        // CPU a call falls as calls come closer together.
        rate /= (slow.busy / how.quota.unwrap_or(1.0)).clamp(0.01, 1.0);
        let goal = Goal { precision: PRECISION, ..Goal::default() };
        let (mut search, mut generator) = (Search::new(&goal, rate), false);
        while let Some(rate) = search.next() {
            let played = self.run(&self.load(rate, agents, how.clone()))?;
            let cores = number(&played.report, &["cpu_seconds"]) / number(&played.report, &["seconds"]);
            if !played.borne() {
                generator = cores > GENERATOR_FULL || number(&played.report, &["dropped_by_kernel"]) > 0.0;
            }
            search.tell(played.borne());
        }
        Ok((search.found(), generator))
    }

    /// The same for full queued calls on one core, sought once.
    fn max(&mut self) -> Result<f64, String> {
        if let Some(max) = self.max {
            return Ok(max);
        }
        let (max, generator) = self.highest(Agents::Scarce, &self.one_core())?;
        if generator {
            eprintln!("  the generator was the limit: the server bears more");
        }
        if max <= 0.0 {
            return Err("no rate was borne".to_owned());
        }
        self.max = Some(max);
        Ok(max)
    }

    fn loaded(&mut self) -> Result<&[Loaded], String> {
        if self.loaded.is_empty() {
            let rate = self.max()? * SATURATED;
            let load = self.load(rate, Agents::Scarce, self.one_core());
            let messages = Queue::new(false).messages();
            for _ in 0..self.options.runs {
                let one = self.quietly(|| {
                    let floor_us = floor::echo(&messages, Duration::from_secs(2)) / 1000.0;
                    Ok(Loaded { floor_us, played: play(self, &load)? })
                })?;
                eprintln!("  {:.0} calls/s: {}; floor {:.2} us", load.rate, one.played.told(), one.floor_us);
                self.loaded.push(one);
            }
        }
        Ok(&self.loaded)
    }
}

fn each(runs: &[Loaded], of: impl Fn(&Loaded) -> f64) -> Vec<f64> {
    runs.iter().map(of).collect()
}

/// CPU a call, CDR into SQLite included; and how many calls a core bears.
///
/// # Errors
/// A run did not work at all.
pub fn cpu(bench: &mut Bench) -> Result<Vec<Line>, String> {
    let given = bench.options.max.is_some();
    let max = bench.max()?;
    let runs = bench.loaded()?;
    let calls = each(runs, |r| r.played.us_a_call);
    let whole = each(runs, |r| r.played.whole_us_a_call);
    let messages = each(runs, |r| r.played.messages_a_call);
    let parked = each(runs, |r| r.played.parked * 100.0);
    let bad = each(runs, |r| r.played.bad());
    let rate = if given { format!("{max:.0} calls/s (given, not measured)") } else { format!("{max:.0} calls/s") };
    let full = median(&messages) > MESSAGES - 1.0;
    Ok(vec![
        Line::judged(
            "cpu",
            "CPU a full queued call at 90 % of the highest rate, CDR into SQLite",
            "80 us",
            told(&calls, "us", 1),
            median(&calls) < 80.0 && full,
        ),
        Line::beside("cpu", "the same with start and end of the server", told(&whole, "us", 1)),
        Line::beside("cpu", "messages a call", told(&messages, "", 1)),
        Line::beside("cpu", "calls that were parked at the music first", told(&parked, "%", 1)),
        Line::beside("cpu", "calls that came to nothing", told(&bad, "a run", 0)),
        if given {
            Line::beside("cpu", "highest rate on one core", rate)
        } else {
            Line::judged("cpu", "highest rate on one core, nothing failed", "10000 calls/s", rate, max > 10_000.0)
        },
    ])
}

/// CPU a message against the floor's CPU a packet.
///
/// # Errors
/// A run did not work at all.
pub fn floor(bench: &mut Bench) -> Result<Vec<Line>, String> {
    let runs = bench.loaded()?;
    let ratio = each(runs, |r| r.played.us_a_message / r.floor_us);
    let what = "CPU a message of a full queued call / CPU a packet of the floor, in the same run";
    Ok(vec![
        Line::judged("floor", what, "1.5", told(&ratio, "times", 2), median(&ratio) < 1.5),
        Line::beside("floor", "CPU a message", told(&each(runs, |r| r.played.us_a_message), "us", 2)),
        Line::beside("floor", "CPU a packet of the floor", told(&each(runs, |r| r.floor_us), "us", 2)),
    ])
}

/// Agent free to INVITE on the wire, calls waiting, at half the highest rate.
///
/// # Errors
/// A run did not work at all.
pub fn latency(bench: &mut Bench) -> Result<Vec<Line>, String> {
    let rate = bench.max()? * 0.5;
    let load = bench.load(rate, Agents::Scarce, bench.one_core().swift());
    let runs = bench.runs(&load)?;
    let of = |name: &str| -> Vec<f64> {
        runs.iter().map(|played| number(&played.report, &["free_to_invite_us", name])).collect()
    };
    let line = |name: &str, field: &str, limit: f64| {
        let figures = of(field);
        let what = format!("agent free to INVITE on the wire at {:.0} calls/s, {name}", load.rate);
        let met = median(&figures) < limit;
        Line::judged("latency", &what, &format!("{limit:.0} us"), told(&figures, "us", 0), met)
    };
    let calls: Vec<f64> = runs.iter().map(|played| played.us_a_call).collect();
    Ok(vec![
        line("p50", "p50", 100.0),
        line("p99", "p99", 500.0),
        line("p99.9", "p999", 2000.0),
        Line::beside("latency", "CPU a call at this rate", told(&calls, "us", 1)),
    ])
}

/// One source address and port: how its calls spread over two shards, and what the second shard costs or brings.
///
/// # Errors
/// A run did not work at all.
pub fn trunk(bench: &mut Bench) -> Result<Vec<Line>, String> {
    let rate = bench.max()? * 0.4;
    let runs = |shards: u16| {
        let more = vec!["--one-port".to_owned()];
        bench.runs(&Load { more, ..bench.load(rate, Agents::Scarce, bench.all_cores(shards)) })
    };
    let (one, two) = (runs(1)?, runs(2)?);
    let of = |played: &[Played]| -> Vec<f64> { played.iter().map(|p| p.us_a_call).collect() };
    let spread: Vec<f64> = two.iter().map(|p| fullest(&p.shards) * 100.0).collect();
    let bad: f64 = one.iter().chain(&two).map(Played::bad).sum();
    let mut lines = vec![
        Line::judged(
            "trunk",
            "calls of one ip:port on the fuller of two shards",
            "55 %",
            told(&spread, "%", 1),
            percentile(&spread, 1.0) <= 55.0,
        ),
        Line::beside("trunk", "CPU a call, one shard", told(&of(&one), "us", 1)),
        Line::beside("trunk", "CPU a call, two shards", told(&of(&two), "us", 1)),
        Line::beside("trunk", "calls that came to nothing, all runs", format!("{bad:.0}")),
    ];
    lines.push(if bench.cores.len() < 3 {
        let measured = format!("not on {} cores, generator included: compare CPU a call", bench.cores.len());
        Line { met: None, ..Line::judged("trunk", "two shards against one", "1.7 times the rate", measured, false) }
    } else {
        let of = |shards: u16| {
            let cores = crate::process::comma(&bench.cores[..usize::from(shards)]);
            bench.highest(Agents::Scarce, &How { cores, shards, ..bench.one_core() }).map(|(rate, _)| rate)
        };
        let (one, two) = (of(1)?, of(2)?);
        let measured = format!("{:.2} times ({one:.0} and {two:.0} calls/s)", two / one);
        Line::judged("trunk", "two shards against one", "1.7 times the rate", measured, two / one >= 1.7)
    });
    Ok(lines)
}

/// Share of the fullest shard.
fn fullest(shards: &[f64]) -> f64 {
    shards.iter().copied().fold(0.0, f64::max) / shards.iter().sum::<f64>()
}

/// A long time at half the highest rate.
///
/// # Errors
/// The run did not work at all.
pub fn soak(bench: &mut Bench) -> Result<Vec<Line>, String> {
    let (rate, seconds) = (bench.max()? * 0.5, bench.options.minutes * 60.0);
    // Those who wait longest give up: else ever more would wait.
    let more = vec!["--patience=1:exp:5s".to_owned()];
    let load = Load { seconds, more, ..bench.load(rate, Agents::Scarce, bench.one_core()) };
    let played = bench.run(&load)?;
    let offered = number(&played.report, &["offered"]);
    let faults = ["double_bookings", "agents_stuck", "media_stuck", "unexpected"];
    let faults: f64 = faults.iter().map(|name| number(&played.report, &[name])).sum();
    let expected = number(&played.report, &["cdrs_expected"]);
    let [early, late] = [played.resident.0, played.resident.1].map(|bytes| bytes as f64 / f64::from(1 << 20));
    let long = format!("{offered:.0} calls in {:.0} minutes", bench.options.minutes);
    Ok(vec![
        Line::judged(
            "soak",
            &format!("calls that came to nothing, and faults, of {long}"),
            "0",
            format!("{:.0} and {faults:.0}", played.bad()),
            played.bad() + faults == 0.0,
        ),
        Line::judged(
            "soak",
            "CDRs in the database",
            &format!("{expected:.0}"),
            played.cdrs.to_string(),
            played.cdrs as f64 == expected && expected > 0.0,
        ),
        Line::judged(
            "soak",
            "resident memory at the end against that after a tenth",
            "1.05 times",
            format!("{late:.0} MiB after {early:.0} MiB"),
            late <= early * 1.05,
        ),
        Line::beside("soak", "CPU a call", told(&[played.us_a_call], "us", 1)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_shard_is_a_share_of_all() {
        assert_eq!(fullest(&[30.0, 70.0]), 0.7);
        assert!(fullest(&[]).is_nan());
    }
}
