//! The row of overload: three times what the server bears, on a part of a core, so that the generator can offer it.

use crate::figures::Line;
use crate::generator::{Generator, number};
use crate::play::{Agents, Bench, Load, WARM, sleep_until, staff};
use crate::process::Cpu;
use crate::server::{How, Server, Staff, free_port};
use serde_json::Value;
use std::io::Write as _;
use std::time::Duration;

/// How many times the highest rate is offered.
const TIMES: f64 = 3.0;
/// Seconds at half the highest rate before, and after.
const BEFORE: f64 = 8.0;
const AFTER: f64 = 15.0;
/// Calls in progress all the time, which nothing may touch: so many a second in the beginning.
const STANDING_RATE: u32 = 40;
const STANDING_SECONDS: u32 = 5;
/// A first answer that takes longer is not normal, microseconds.
const NORMAL_US: f64 = 100_000.0;

/// Goodput, calls in progress, and the way back.
///
/// # Errors
/// A run did not work at all, or there is no way to hold the server to a part of a core.
pub fn overload(bench: &Bench) -> Result<Vec<Line>, String> {
    if !bench.options.under.is_empty() {
        // A control group's part of a core does not hold real-time processes.
        return Err("--under does not go with overload: measure it without, on a quiet machine".to_owned());
    }
    let quota = bench.options.quota;
    let how = How { quota: Some(quota), ..bench.one_core() };
    let (max, generator) = bench.highest(Agents::Plenty, &how)?;
    if max <= 0.0 {
        return Err("no rate was borne".to_owned());
    }
    let limit = if generator { ", held down by the generator" } else { "" };
    // At the rate of the overload: at a lower one waking up for each would be most of it.
    let refusal_us = bench.quietly(|| refusal(bench, &how, max * TIMES))?;
    let lasts = bench.options.seconds.unwrap_or(60.0);
    let (report, standing) = bench.quietly(|| storm(bench, &how, max, lasts))?;
    let good = Rates::of(&report, BEFORE + 2.0, BEFORE + lasts);
    let goal = goodput(max, good.refused, refusal_us, quota);
    let back = back_to_normal(&report, BEFORE + lasts);
    let lost = number(&report, &["failed"]);
    let (kept, stood) = (number(&standing, &["answered"]), number(&standing, &["offered"]));
    let faults = ["double_bookings", "agents_stuck", "media_stuck", "unexpected"];
    let faults: f64 = faults.iter().flat_map(|n| [&report, &standing].map(|r| number(r, &[n]))).sum();
    let what = format!("{:.0} calls/s offered for {lasts:.0} s on {quota} of a core", max * TIMES);
    let retried = number(&report, &["retransmissions_sent"]);
    Ok(vec![
        Line {
            row: "overload",
            what: format!("goodput, {what}"),
            limit: format!(
                "{goal:.0} calls/s: 90 % of {max:.0} less {:.0} refusals/s of {refusal_us:.1} us",
                good.refused
            ),
            measured: format!("{:.0} calls/s (one run)", good.answered),
            // Where refusals alone would take all of the quota, nothing is asked of the goodput.
            met: (goal > 0.0).then_some(good.answered >= goal),
        },
        Line::judged(
            "overload",
            "calls in progress all the while that went on to their end",
            &format!("{stood:.0}"),
            format!("{kept:.0}"),
            kept == stood,
        ),
        Line::judged(
            "overload",
            "back to normal: nothing refused, first answer p99 under 100 ms",
            "2 s",
            back.map_or("never".to_owned(), |s| format!("{s:.1} s")),
            back.is_some_and(|s| s <= 2.0),
        ),
        Line::judged(
            "overload",
            "calls neither answered nor refused, and faults",
            "0",
            format!("{lost:.0} and {faults:.0}, {retried:.0} retransmissions; {}", causes(&report)),
            lost + faults == 0.0,
        ),
        Line::beside("overload", "highest rate, no call parked", format!("{max:.0} calls/s{limit}")),
    ])
}

/// 90 % of what is left of the highest rate when so many refusals a second have taken their CPU.
fn goodput(max: f64, refused: f64, refusal_us: f64, quota: f64) -> f64 {
    0.9 * max * (1.0 - refused * refusal_us / 1e6 / quota).max(0.0)
}

/// CPU of a bare refusal in microseconds: of a server that refuses all.
fn refusal(bench: &Bench, how: &How, rate: f64) -> Result<f64, String> {
    let seconds = bench.options.seconds.unwrap_or(12.0).max(WARM + 3.0);
    let load = Load { rate, seconds, agents: Agents::Plenty, how: how.clone(), more: Vec::new() };
    let at = free_port()?;
    let mut generator = Generator::start(&bench.options, bench.generator_core, at, &load.arguments())?;
    let staff = staff(&generator, load.agents.number(rate));
    let server = Server::start(&bench.options, how, at, &[staff])?;
    server.drain(&bench.options)?;
    let began = generator.begin()?;
    sleep_until(began + Duration::from_secs_f64(WARM));
    let before = Cpu::of(server.pid())?;
    sleep_until(began + Duration::from_secs_f64(seconds));
    let after = Cpu::of(server.pid())?;
    let report = generator.finish(Duration::from_secs(90))?;
    server.stop()?;
    let busy = after.since(&before) / (after.at - before.at).as_secs_f64();
    let us = busy / Rates::of(&report, WARM, seconds).refused * 1e6;
    eprintln!("  {rate:.0} calls/s, all refused: {us:.1} us each");
    Ok(us)
}

/// The overload itself, with a second generator whose calls stand through it; both reports.
fn storm(bench: &Bench, how: &How, max: f64, lasts: f64) -> Result<(Value, Value), String> {
    let file = tempfile::NamedTempFile::new().map_err(|e| format!("a temporary file: {e}"))?;
    let phases = [(BEFORE, max / 2.0), (lasts, max * TIMES), (AFTER, max / 2.0)];
    write_arrivals(file.as_file(), &phases).map_err(|e| format!("a temporary file: {e}"))?;
    let load = Load {
        rate: max,
        seconds: BEFORE + lasts + AFTER,
        agents: Agents::Plenty,
        how: how.clone(),
        more: vec![format!("--arrivals=file:{}", file.path().display()), "--interval=500ms".to_owned()],
    };
    let at = free_port()?;
    let start = |args: &[String]| Generator::start(&bench.options, bench.generator_core, at, args);
    let mut calls = start(&load.arguments())?;
    let mut standing = start(&standing(lasts))?;
    let agents = staff(&calls, load.agents.number(max));
    let others = Staff {
        flow: "standing".to_owned(),
        skill: "y".to_owned(),
        agents_skill: "y".to_owned(),
        name: "stander".to_owned(),
        ..staff(&standing, STANDING_RATE * STANDING_SECONDS * 2)
    };
    let server = Server::start(&bench.options, how, at, &[agents, others])?;
    standing.begin()?;
    calls.begin()?;
    let limit = Duration::from_secs_f64(load.seconds + 120.0);
    let reports = (calls.finish(limit)?, standing.finish(limit)?);
    server.stop()?;
    Ok(reports)
}

/// Calls that begin before the overload and end after it.
fn standing(lasts: f64) -> Vec<String> {
    let talk = (BEFORE + lasts) as u64 + 5;
    vec![
        "--flow=standing".to_owned(),
        "--agent-name=stander{N}".to_owned(),
        format!("--agents={}", STANDING_RATE * STANDING_SECONDS * 2),
        format!("--rate={STANDING_RATE}"),
        format!("--seconds={STANDING_SECONDS}s"),
        "--ring=0ms".to_owned(),
        format!("--talk=uniform:{talk}s-{}s", talk + 5),
        format!("--drain={}s", talk + 30),
    ]
}

/// Arrivals of independent callers, whose rate changes: a time in seconds a line.
fn write_arrivals(file: impl std::io::Write, phases: &[(f64, f64)]) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(file);
    let (mut end, mut at, mut state) = (0.0, 0.0, 1u64);
    for (seconds, rate) in phases {
        end += seconds;
        loop {
            // splitmix64, to a number above 0 and at most 1.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let draw = (((mixed ^ (mixed >> 31)) >> 11) + 1) as f64 / (1u64 << 53) as f64;
            let next: f64 = at - draw.ln() / rate;
            if next >= end {
                // Without memory: the next phase may begin its own gap.
                at = end;
                break;
            }
            at = next;
            writeln!(out, "{at:.6}")?;
        }
    }
    out.flush()
}

/// What happened a second, between two times of a run.
struct Rates {
    answered: f64,
    refused: f64,
}

impl Rates {
    fn of(report: &Value, from: f64, to: f64) -> Self {
        let (mut seconds, mut answered, mut refused) = (0.0, 0.0, 0.0);
        for sample in report["series"].as_array().into_iter().flatten() {
            let (end, length) = (number(sample, &["at"]), number(sample, &["seconds"]));
            if end - length >= from - 0.1 && end <= to + 0.1 {
                seconds += length;
                answered += number(sample, &["answered"]);
                refused += number(sample, &["refused"]);
            }
        }
        Self { answered: answered / seconds, refused: refused / seconds }
    }
}

/// Seconds from the end of the overload to the end of the last interval that was not normal; `None` when the last of all
/// intervals in which calls came was not.
fn back_to_normal(report: &Value, end: f64) -> Option<f64> {
    let after = report["series"].as_array().into_iter().flatten();
    let after: Vec<(f64, bool)> = after
        .filter(|sample| number(sample, &["at"]) > end + 0.1 && number(sample, &["offered"]) > 0.0)
        .map(|sample| {
            let bad = number(sample, &["refused"]) + number(sample, &["failed"]) > 0.0;
            (number(sample, &["at"]) - end, bad || number(sample, &["latency_us", "first", "p99"]) > NORMAL_US)
        })
        .collect();
    match after.last() {
        None | Some((_, true)) => None,
        Some(_) => Some(after.iter().rev().find(|(_, bad)| *bad).map_or(0.0, |(at, _)| *at)),
    }
}

/// Why calls failed, and how many.
fn causes(report: &Value) -> String {
    let of = |(why, note): (&String, &Value)| format!("{why}: {}", note["count"]);
    let all: Vec<String> = report["failures"].as_object().into_iter().flatten().map(of).collect();
    if all.is_empty() { "no failures".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refusals_take_their_part_of_the_goal() {
        // 2000 refusals of 50 us are 0.1 of a core: half of the quota.
        assert!((goodput(1000.0, 2000.0, 50.0, 0.2) - 450.0).abs() < 1e-9);
        assert_eq!(goodput(1000.0, 9000.0, 50.0, 0.2), 0.0);
    }

    #[test]
    fn normal_is_what_stays_normal() {
        let sample = |at: f64, refused: u32, p99: u32| {
            json!({"at": at, "seconds": 0.5, "offered": 9, "refused": refused, "failed": 0, "answered": 4,
                   "latency_us": {"first": {"p99": p99}}})
        };
        let report =
            json!({"series": [sample(10.0, 50, 9), sample(10.5, 3, 9), sample(11.0, 0, 200_000), sample(11.5, 0, 9)]});
        assert_eq!(back_to_normal(&report, 10.0), Some(1.0));
        assert_eq!(back_to_normal(&report, 11.0), Some(0.0));
        assert_eq!(back_to_normal(&json!({"series": [sample(10.5, 3, 9)]}), 10.0), None);
        assert_eq!(back_to_normal(&json!({}), 10.0), None);
        let rates = Rates::of(&report, 10.0, 11.0);
        assert_eq!((rates.answered, rates.refused), (8.0, 3.0));
    }

    #[test]
    fn arrivals_follow_their_rates() {
        let mut file = Vec::new();
        write_arrivals(&mut file, &[(10.0, 100.0), (10.0, 1000.0)]).unwrap();
        let times: Vec<f64> = String::from_utf8(file).unwrap().lines().map(|line| line.parse().unwrap()).collect();
        assert!(times.is_sorted() && times.last().unwrap() < &20.0);
        let slow = times.iter().filter(|at| **at < 10.0).count();
        assert!((900..1100).contains(&slow) && (9_700..10_300).contains(&(times.len() - slow)), "{slow}");
    }

    #[test]
    fn causes_are_named() {
        assert_eq!(causes(&json!({"failures": {"no answer": {"count": 3, "first": ""}}})), "no answer: 3");
        assert_eq!(causes(&json!({})), "no failures");
    }
}
