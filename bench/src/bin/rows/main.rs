//! The rows of README.md's table that need a whole server and a load generator: each measured, and held against its limit.
//!
//!     bench/rows cpu latency      these rows
//!     bench/rows all              all but the soak
//!     bench/rows soak             an hour
//!     bench/rows --list           what there is
//!
//! The server is held to one core and the generator to another. CPU is user and system of the server's whole process, taken
//! between two points while the load is steady. A limit that is missed is printed as missed, and the exit code is 1.

mod args;
mod calls;
mod figures;
mod free;
mod generator;
mod overload;
mod ping;
mod play;
mod process;
mod server;
mod still;

use args::Options;
use clap::Parser as _;
use figures::Line;
use play::Bench;
use std::process::ExitCode;

type Row = (&'static str, &'static str, fn(&mut Bench) -> Result<Vec<Line>, String>);

/// In the order in which `all` measures them.
const ROWS: [Row; 10] = [
    ("idle", "CPU of a server that nobody calls", |bench| still::idle(bench)),
    ("free", "agent free to INVITE in the engine, a few calls a second on an idle machine", |bench| free::free(bench)),
    ("cpu", "CPU a full queued call, CDR into SQLite included; calls a second and core", calls::cpu),
    ("floor", "CPU a message against CPU a packet of a bare echo in the same run", calls::floor),
    ("latency", "agent free to INVITE on the wire at half the highest rate", calls::latency),
    ("foreign", "5000 agents free of other skills and 5000 calls waiting: CPU, and OPTIONS meanwhile", |bench| {
        still::foreign(bench)
    }),
    ("memory", "resident memory a waiting call at 100000", |bench| still::memory(bench)),
    ("overload", "three times the highest rate: goodput, calls in progress, back to normal", |bench| {
        overload::overload(bench)
    }),
    ("trunk", "calls of one source ip:port over two shards", calls::trunk),
    ("soak", "an hour at half the highest rate (not in `all`)", calls::soak),
];

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// Whether no limit was missed.
fn run(options: Options) -> Result<bool, String> {
    if options.list {
        ROWS.iter().for_each(|(name, what, _)| println!("{name:<9} {what}"));
        return Ok(true);
    }
    let rows = chosen(&options.rows)?;
    for (program, package) in [(&options.strowger, "strowger"), (&options.loadtest, "loadtest")] {
        if !program.is_file() {
            return Err(format!(
                "no {}: cargo build --release -p {package}, or give --{package} PATH",
                program.display()
            ));
        }
    }
    let mut bench = Bench::new(options)?;
    println!("{}", surroundings(&bench));
    let (mut met, mut faults) = (true, Vec::new());
    for (name, what, measure) in rows {
        eprintln!("{name}: {what}");
        match measure(&mut bench) {
            Ok(lines) => {
                met &= lines.iter().all(|line| line.met != Some(false));
                lines.iter().for_each(|line| println!("{line}"));
            }
            // The rows that follow may still be measured.
            Err(why) => {
                println!("{name:<9} FAILED {why}");
                faults.push(*name);
            }
        }
    }
    if faults.is_empty() { Ok(met) } else { Err(format!("not measured: {}", faults.join(", "))) }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Row>, String> {
    if names == ["all"] {
        return Ok(ROWS.iter().filter(|(name, ..)| *name != "soak").collect());
    }
    let find = |name: &String| ROWS.iter().find(|(row, ..)| row == name);
    names.iter().map(|name| find(name).ok_or_else(|| format!("no row `{name}`: see --list"))).collect()
}

fn surroundings(bench: &Bench) -> String {
    let shared = match (bench.cores.len(), bench.server_core == bench.generator_core) {
        (_, true) => "server and generator share the only core: rates and latencies say little".to_owned(),
        (n, _) => format!("{n} cores: server on {}, generator on {}", bench.server_core, bench.generator_core),
    };
    let under = if bench.options.under.is_empty() {
        String::new()
    } else {
        format!("; both under `{}`", bench.options.under.join(" "))
    };
    let sets =
        if bench.options.sets.is_empty() { String::new() } else { format!("; with {}", bench.options.sets.join(" ")) };
    format!("# {shared}{under}{sets}; medians of {} runs where not said otherwise", bench.options.runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rows: &[&str]) -> Result<Vec<&'static str>, String> {
        let rows: Vec<String> = rows.iter().map(|row| (*row).to_owned()).collect();
        Ok(chosen(&rows)?.into_iter().map(|(name, ..)| *name).collect())
    }

    #[test]
    fn all_leaves_out_what_takes_an_hour() {
        let all = names(&["all"]).unwrap();
        assert_eq!(all.len(), ROWS.len() - 1);
        assert!(!all.contains(&"soak"));
        assert_eq!(names(&["soak", "cpu"]).unwrap(), ["soak", "cpu"]);
        assert!(names(&["cpus"]).unwrap_err().contains("`cpus`"));
    }
}
