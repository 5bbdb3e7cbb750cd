//! The row of an idle machine: an agent comes free, and a call that waits goes to it, on the same shard or another.

use crate::figures::{Line, median, told};
use crate::generator::Generator;
use crate::play::{Agents, Bench, Load, staff};
use crate::server::{How, Server, free_port};
use std::time::Duration;

/// Calls a second: so few that each finds the machine asleep.
const RATE: f64 = 20.0;
/// After the first call: all agents are busy then, and calls wait.
const WARM: Duration = Duration::from_secs(6);
const WATCH: Duration = Duration::from_secs(15);

/// Agent free (its 200 to BYE, wrap-up 0) to INVITE handed to the socket, as the engine measures it.
///
/// # Errors
/// A run did not work at all.
pub fn free(bench: &Bench) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (shards, how) in [(1, bench.one_core()), (2, bench.all_cores(2))] {
        let runs = (0..bench.options.runs).map(|_| bench.quietly(|| run(bench, how.clone())));
        let runs = runs.collect::<Result<Vec<_>, _>>()?;
        let of = |column: usize| -> Vec<f64> { runs.iter().map(|figures| figures[column]).collect() };
        let p99 = of(3);
        let what = format!("agent free to INVITE in the engine at {RATE} calls/s, {shards} shard(s), p99");
        lines.push(Line::judged("free", &what, "200 us", told(&p99, "us", 0), median(&p99) < 200.0));
        lines.push(Line::beside("free", "p50", told(&of(1), "us", 0)));
        lines.push(Line::beside("free", "agents that came free while a call waited", told(&of(0), "a run", 0)));
    }
    Ok(lines)
}

/// Count, p50, p90, p99 in microseconds.
fn run(bench: &Bench, how: How) -> Result<Vec<f64>, String> {
    let at = free_port()?;
    let seconds = (WARM + WATCH).as_secs_f64() + 2.0;
    let more = vec!["--caller-hangs-up=1".to_owned()];
    let load = Load { rate: RATE, seconds, agents: Agents::Scarce, how: how.swift(), more };
    let mut generator = Generator::start(&bench.options, bench.generator_core, at, &load.arguments())?;
    let staff = staff(&generator, load.agents.number(RATE));
    let server = Server::start(&bench.options, &load.how, at, &[staff])?;
    generator.begin()?;
    std::thread::sleep(WARM);
    let figures = server.latency(&bench.options, "dispatch", WATCH)?;
    generator.finish(Duration::from_secs(90))?;
    server.stop()?;
    eprintln!("  {} times, p50 {} us, p99 {} us", figures[0], figures[1], figures[3]);
    Ok(figures)
}
