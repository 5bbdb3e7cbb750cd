//! `cargo sim -- --seeds 200`, `cargo sim -- --seed 17 --trace`.

use clap::Parser;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use strowger_sim::mutants::hunt;
use strowger_sim::plan::{Options, SECOND, SUBJECTS};
use strowger_sim::shrink::{kind, shrink};
use strowger_sim::{Report, run};

/// Runs whole call centres in virtual time, with faults, from seeds; exit code 1 when a property does not hold.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds to run, from --from on.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Goes on from seed to seed for so long instead.
    #[arg(long)]
    minutes: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Shards (1 to 8; else drawn from the seed).
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=8))]
    shards: Option<u16>,
    /// Calls in a run (else drawn from the seed).
    #[arg(long)]
    calls: Option<u32>,
    /// Prints the message ladder and the changes of state: of the calls and agents concerned when a property does not hold,
    /// else of all.
    #[arg(long)]
    trace: bool,
    /// Leaves out what it can of a run that fails, as long as it fails in the same way, and tells how to run the rest.
    #[arg(long)]
    shrink: bool,
    /// Callers who never dial, by their numbers.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(..64))]
    absent: Vec<u8>,
    /// Kills the process now and then; another takes over from its journals.
    #[arg(long)]
    crashes: bool,
    /// Leaves faults and subjects out of the runs: some of rules, loss, double, ... (a wrong name lists them).
    #[arg(long, value_delimiter = ',', value_parser = subject)]
    without: Vec<usize>,
    /// Plants bugs, one after the other, and has each caught by its tool; those whose names hold TEXT.
    #[arg(long, value_name = "TEXT", num_args = 0..=1, default_missing_value = "")]
    mutants: Option<String>,
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
    if let Some(only) = &args.mutants {
        return hunt(only);
    }
    let options = Options {
        shards: args.shards.unwrap_or(0),
        calls: args.calls.unwrap_or(0),
        trace: false,
        crashes: args.crashes,
        without: args.without.iter().fold(0, |mask, bit| mask | 1 << bit),
        absent: args.absent.iter().fold(0, |mask, n| mask | 1 << n),
    };
    let count = if args.minutes.is_some() { u64::MAX / 2 } else { args.seeds };
    let limit = args.minutes.map(|m| Duration::from_secs(60 * m));
    let (from, to) = args.seed.map_or((args.from, args.from.saturating_add(count)), |s| (s, s + 1));
    let started = Instant::now();
    let mut total = Report::default();
    let mut failures: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    std::panic::set_hook(Box::new(|_| {}));
    let mut seeds = 0;
    for seed in from..to {
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            break;
        }
        seeds += 1;
        let report = run(seed, &Options { trace: args.trace, ..options });
        if args.trace && report.violation.is_none() {
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
            let smallest = if args.shrink { shrink(seed, &options) } else { None };
            explain(seed, &smallest.unwrap_or(options), if args.trace { usize::MAX } else { LAST });
            return ExitCode::FAILURE;
        }
    }
    summary(&total, started.elapsed().as_secs_f64(), seeds);
    for (what, seeds) in &failures {
        println!("FAILED {} times: {what}; seeds {:?}", seeds.len(), &seeds[..seeds.len().min(8)]);
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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

/// What was violated, when, and what the calls and agents concerned had done: the last `most` lines of that.
fn explain(seed: u64, options: &Options, most: usize) {
    let report = run(seed, &Options { trace: true, ..*options });
    let Some(v) = &report.violation else { return };
    let concerned = |call: Option<u32>, agent: Option<u32>| {
        (v.call.is_none() && v.agent.is_none())
            || (call.is_none() && agent.is_none())
            || (v.call.is_some() && v.call == call)
            || (v.agent.is_some() && v.agent == agent)
    };
    let lines: Vec<_> = report.lines.iter().filter(|l| concerned(l.call, l.agent)).collect();
    lines[lines.len().saturating_sub(most)..].iter().for_each(|l| println!("{l}"));
    println!("seed {seed} at {:.6} s: {}", report.virtual_us as f64 / SECOND as f64, v.what);
    println!("replay: cargo sim -- --seed {seed}{} --trace", flags(options));
}

/// The options as they are written on the command line.
fn flags(o: &Options) -> String {
    let mut out = String::new();
    let mut flag = |name: &str, value: String| out.push_str(&format!(" --{name}{value}"));
    if o.crashes {
        flag("crashes", String::new());
    }
    if o.shards > 0 {
        flag("shards", format!(" {}", o.shards));
    }
    if o.calls > 0 {
        flag("calls", format!(" {}", o.calls));
    }
    let listed = |bits: u64, name: &dyn Fn(usize) -> String| {
        let set: Vec<String> = (0..64).filter(|n| bits >> n & 1 == 1).map(name).collect();
        format!(" {}", set.join(","))
    };
    if o.without > 0 {
        flag("without", listed(o.without, &|bit| SUBJECTS[bit].0.to_owned()));
    }
    if o.absent > 0 {
        flag("absent", listed(o.absent, &|n| n.to_string()));
    }
    out
}
