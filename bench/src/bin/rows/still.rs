//! Rows of a server on which little happens: idle, calls that only wait, their memory.

use crate::figures::{Line, median, percentile, told};
use crate::generator::{Generator, number};
use crate::ping::{Pings, between};
use crate::play::{Bench, sleep_until, staff};
use crate::process::{Cpu, resident, until};
use crate::server::{Server, Staff, free_port};
use std::time::{Duration, Instant};

/// How long what does little is watched.
const WATCH: Duration = Duration::from_secs(10);
/// After the start, and after the last arrival: until all is quiet.
const SETTLE: Duration = Duration::from_secs(3);

/// After the last arrival: until its transactions have run out (32 s), the shard has tidied up, and what is full rests.
const QUIET: Duration = Duration::from_secs(75);

/// CPU of a server that nobody calls.
///
/// # Errors
/// A run did not work at all.
pub fn idle(bench: &Bench) -> Result<Vec<Line>, String> {
    let run = || {
        let server = Server::start(&bench.options, &bench.one_core(), free_port()?, &[])?;
        let share = watched(&server, SETTLE)?;
        server.stop()?;
        Ok(share * 100.0)
    };
    let runs: Vec<f64> = (0..bench.options.runs).map(|_| bench.quietly(run)).collect::<Result<_, _>>()?;
    let what = "idle server over 10 s, of a core";
    Ok(vec![Line::judged("idle", what, "0.5 %", told(&runs, "%", 3), median(&runs) < 0.5)])
}

/// Cores that a server uses from then on.
fn watched(server: &Server, after: Duration) -> Result<f64, String> {
    std::thread::sleep(after);
    let before = Cpu::of(server.pid())?;
    sleep_until(before.at + WATCH);
    let now = Cpu::of(server.pid())?;
    Ok(now.since(&before) / (now.at - before.at).as_secs_f64())
}

/// A flow that no agent is for: its calls wait.
fn nobody(generator: &Generator, agents: u32) -> Staff {
    Staff { agents_skill: "other".to_owned(), ..staff(generator, agents) }
}

/// Arguments for calls that do nothing but wait.
fn waiting(calls: u32, rate: u32, stay: Duration) -> Vec<String> {
    vec![
        format!("--rate={rate}"),
        format!("--max-calls={calls}"),
        format!("--seconds={}s", calls / rate * 2 + 10),
        "--arrivals=fixed".to_owned(),
        "--agents=1".to_owned(),
        format!("--drain={}s", stay.as_secs()),
    ]
}

struct Foreign {
    /// CPU beyond idle, in parts of a core.
    beyond: f64,
    /// 99th percentile of OPTIONS in microseconds: idle, while the calls arrive, while they wait.
    options: [f64; 3],
    waiting: f64,
}

const CALLS: u32 = 5_000;

/// Agents free of other skills, and calls waiting, as many.
///
/// # Errors
/// A run did not work at all.
pub fn foreign(bench: &Bench) -> Result<Vec<Line>, String> {
    let runs: Vec<Foreign> =
        (0..bench.options.runs).map(|_| bench.quietly(|| foreign_run(bench))).collect::<Result<_, _>>()?;
    let of = |f: &dyn Fn(&Foreign) -> f64| -> Vec<f64> { runs.iter().map(f).collect() };
    let (beyond, [idle, arrive, wait]) = (of(&|r| r.beyond * 100.0), [0, 1, 2].map(|i| of(&|r| r.options[i])));
    let unmoved = median(&wait) <= moved_from(median(&idle));
    let waiting = percentile(&of(&|r| r.waiting), 0.0);
    Ok(vec![
        Line::judged(
            "foreign",
            &format!("{CALLS} agents free of other skills, {waiting:.0} calls waiting: CPU beyond idle, of a core"),
            "1 %",
            told(&beyond, "%", 2),
            median(&beyond) < 1.0 && waiting >= f64::from(CALLS),
        ),
        Line::judged(
            "foreign",
            "p99 of 200 OPTIONS a second while they wait",
            &format!("unmoved: {:.0} us", moved_from(median(&idle))),
            format!("{}; before: {}", told(&wait, "us", 0), told(&idle, "us", 0)),
            unmoved,
        ),
        Line::beside("foreign", "the same while they arrive, 1000 a second", told(&arrive, "us", 0)),
    ])
}

/// What a 99th percentile may be and still be called the same: a quarter more, or a tenth of a millisecond.
fn moved_from(before: f64) -> f64 {
    (before * 1.25).max(before + 100.0)
}

fn foreign_run(bench: &Bench) -> Result<Foreign, String> {
    let at = free_port()?;
    let stay = SETTLE * 2 + WATCH + Duration::from_secs(5);
    let mut generator = Generator::start(&bench.options, bench.generator_core, at, &waiting(CALLS, 1_000, stay))?;
    let mut how = bench.one_core();
    how.sets.push("call_center.reject_on_no_agents=0".to_owned());
    let server = Server::start(&bench.options, &how, at, &[nobody(&generator, CALLS)])?;
    let pings = Pings::start(bench.generator_core, at);
    let (idle, arrive, wait, onhold, ends) = {
        let began = Instant::now() + SETTLE;
        let idle = watched(&server, SETTLE)?;
        let arrive = generator.begin()?;
        let arrived = || server.metric("strowger_onhold_calls").map(|n| n.iter().sum::<f64>());
        sleep_until(arrive + Duration::from_secs(u64::from(CALLS / 1_000)));
        until("calls that wait", SETTLE * 5, || Ok(arrived()? >= f64::from(CALLS)))?;
        let still = Instant::now() + SETTLE;
        let wait = watched(&server, SETTLE)?;
        (idle, arrive, wait, arrived()?, [began, still])
    };
    let now = Instant::now();
    let all = pings.stop()?;
    generator.finish(Duration::from_secs(60))?;
    server.stop()?;
    let p99 = |from, to| percentile(&between(&all, from, to), 0.99);
    let arriving = arrive + Duration::from_secs(u64::from(CALLS / 1_000));
    let options = [p99(ends[0], arrive), p99(arrive, arriving), p99(ends[1], now)];
    eprintln!("  {:.2} % of a core beyond idle; OPTIONS p99 {options:.0?} us", (wait - idle) * 100.0);
    Ok(Foreign { beyond: wait - idle, options, waiting: onhold })
}

/// Memory of calls that wait.
///
/// # Errors
/// A run did not work at all.
pub fn memory(bench: &Bench) -> Result<Vec<Line>, String> {
    const RATE: u32 = 2_500;
    let calls = bench.options.waiting;
    let at = free_port()?;
    let stay = Duration::from_secs(30) + QUIET;
    let mut generator = Generator::start(&bench.options, bench.generator_core, at, &waiting(calls, RATE, stay))?;
    let mut how = bench.one_core();
    how.sets.push("call_center.reject_on_no_agents=0".to_owned());
    let server = Server::start(&bench.options, &how, at, &[nobody(&generator, 1)])?;
    std::thread::sleep(SETTLE);
    let before = resident(server.pid())?;
    let onhold = || server.metric("strowger_onhold_calls").map(|n| n.iter().sum::<f64>());
    let ended = || server.metric("strowger_shed_calls_total").map(|n| n.iter().sum::<f64>());
    let began = generator.begin()?;
    sleep_until(began + Duration::from_secs(u64::from(calls / RATE)));
    until("calls that wait", Duration::from_secs(100), || Ok(onhold()? + ended()? >= f64::from(calls)))?;
    std::thread::sleep(SETTLE);
    let fresh = resident(server.pid())?;
    std::thread::sleep(QUIET);
    let (waiting, with) = (onhold()?, resident(server.pid())?);
    let report = generator.finish(Duration::from_secs(300))?;
    std::thread::sleep(SETTLE);
    let after = resident(server.pid())?;
    server.stop()?;
    let [each, new] = [with, fresh].map(|bytes| bytes.saturating_sub(before) as f64 / waiting / 1024.0);
    let [before, with, after] = [before, with, after].map(|bytes| bytes as f64 / f64::from(1 << 20));
    let refused = number(&report, &["refused"]);
    let what = format!("resident memory a waiting call, {waiting:.0} waiting");
    Ok(vec![
        Line::judged(
            "memory",
            &what,
            "3.5 KiB at 100000",
            told(&[each], "KiB", 2),
            each < 3.5 && waiting >= 0.99 * f64::from(calls) && calls >= 100_000,
        ),
        Line::beside("memory", "while those of the last half minute still have transactions", told(&[new], "KiB", 2)),
        Line::beside("memory", "the process", format!("{before:.0} MiB before, {with:.0} with them, {after:.0} after")),
        Line::beside("memory", "calls that were refused", format!("{refused:.0}")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmoved_has_some_room() {
        assert_eq!(moved_from(100.0), 200.0);
        assert_eq!(moved_from(1000.0), 1250.0);
    }

    #[test]
    fn calls_that_wait_have_time_to_arrive() {
        let args = waiting(5_000, 1_000, Duration::from_secs(30));
        assert!(
            args.contains(&"--seconds=20s".to_owned()) && args.contains(&"--max-calls=5000".to_owned()),
            "{args:?}"
        );
    }
}
