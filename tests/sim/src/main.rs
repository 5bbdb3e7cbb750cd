//! `cargo sim -- --seeds 200`, `cargo sim -- --seed 17 --trace`.

use clap::Parser;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;
use strowger_sim::plan::{Options, SECOND, SUBJECTS};
use strowger_sim::{Report, run};

/// Runs whole call centres in virtual time, with faults, from seeds; exit code 1 when a property does not hold.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds to run, from --from on.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Shards (1 to 4; else drawn from the seed).
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4))]
    shards: Option<u16>,
    /// Calls in a run (else drawn from the seed).
    #[arg(long)]
    calls: Option<u32>,
    /// Prints the message ladder and the changes of state.
    #[arg(long)]
    trace: bool,
    /// Kills the process now and then; another takes over from its journals.
    #[arg(long)]
    crashes: bool,
    /// Leaves faults and subjects out of the runs: some of rules, loss, double, ... (a wrong name lists them).
    #[arg(long, value_delimiter = ',', value_parser = subject)]
    without: Vec<usize>,
    /// Goes on after a failure.
    #[arg(long)]
    keep_going: bool,
}

/// The place of a subject in the list.
fn subject(name: &str) -> Result<usize, String> {
    let known = || SUBJECTS.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ");
    SUBJECTS.iter().position(|(n, _)| *n == name).ok_or_else(|| format!("known are {}", known()))
}

/// Events of the calls and agents concerned that a failure shows.
const LAST: usize = 60;

fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options {
        shards: args.shards.unwrap_or(0),
        calls: args.calls.unwrap_or(0),
        trace: false,
        crashes: args.crashes,
        without: args.without.iter().fold(0, |mask, bit| mask | 1 << bit),
    };
    let (from, to) = args.seed.map_or((args.from, args.from + args.seeds), |s| (s, s + 1));
    let started = Instant::now();
    let mut total = Report::default();
    let mut failures: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    std::panic::set_hook(Box::new(|_| {}));
    for seed in from..to {
        let report = run(seed, &Options { trace: args.trace, ..options });
        if args.trace {
            report.lines.iter().for_each(|l| println!("{l}"));
        }
        total.calls += report.calls;
        total.steps += report.steps;
        total.virtual_us += report.virtual_us;
        for (what, n) in &report.seen {
            *total.seen.entry(what).or_default() += n;
        }
        let Some(violation) = &report.violation else { continue };
        failures.entry(kind(&violation.what)).or_default().push(seed);
        if !args.keep_going {
            explain(seed, &report, &options);
            return ExitCode::FAILURE;
        }
    }
    summary(&total, started.elapsed().as_secs_f64(), to - from);
    for (what, seeds) in &failures {
        println!("FAILED {} times: {what}; seeds {:?}", seeds.len(), &seeds[..seeds.len().min(8)]);
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A violation without its numbers.
fn kind(what: &str) -> String {
    let what = what.split(" of sw").next().unwrap_or(what);
    what.chars().filter(|c| !c.is_ascii_digit()).take(90).collect()
}

fn summary(total: &Report, seconds: f64, seeds: u64) {
    println!(
        "{seeds} seeds, {} calls, {} steps, {} s virtual, {seconds:.1} s: {:.0} calls a second",
        total.calls,
        total.steps,
        total.virtual_us / SECOND,
        total.calls as f64 / seconds
    );
    for (what, n) in &total.seen {
        println!("{n:>9}  {what}");
    }
}

/// What was violated, when, and what the calls and agents concerned had done.
fn explain(seed: u64, report: &Report, options: &Options) {
    let Some(v) = &report.violation else { return };
    println!("seed {seed} at {:.6} s: {}", report.virtual_us as f64 / SECOND as f64, v.what);
    let again = run(seed, &Options { trace: true, ..*options });
    let concerned = |call: Option<u32>, agent: Option<u32>| {
        (v.call.is_none() && v.agent.is_none())
            || (v.call.is_some() && v.call == call)
            || (v.agent.is_some() && v.agent == agent)
    };
    let lines: Vec<_> = again.lines.iter().filter(|l| concerned(l.call, l.agent)).collect();
    lines[lines.len().saturating_sub(LAST)..].iter().for_each(|l| println!("{l}"));
    println!("replay: cargo sim -- --seed {seed} --trace");
}
