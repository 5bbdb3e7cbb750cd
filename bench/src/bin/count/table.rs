//! The table `bench/counts.txt`: a line for each step, `name instructions`, at its end a tolerance where it is not the usual one.

use crate::callgrind::Counts;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

/// How far a count may move, in per cent; and in instructions, for the smallest.
const TOLERANCE: f64 = 3.0;
const LEAST: f64 = 12.0;
const COMPILER: &str = "# compiled by ";
const HEAD: &str = "\
# Instructions of one operation, counted by callgrind. `bench/count --check` holds them, `bench/count --update` writes them anew.
# A third column is the tolerance of a line in per cent, where it is not 3.
";

struct Line {
    count: f64,
    /// Per cent.
    tolerance: f64,
}

struct Table {
    compiler: String,
    lines: BTreeMap<String, Line>,
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("counts.txt")
}

fn compiler() -> String {
    let version = Command::new("rustc").arg("-V").current_dir(env!("CARGO_MANIFEST_DIR")).output();
    version.map_or_else(|_| "unknown".to_owned(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn read() -> Result<Table, String> {
    let text = match std::fs::read_to_string(path()) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(format!("{}: {e}", path().display())),
    };
    let mut table = Table { compiler: String::new(), lines: BTreeMap::new() };
    for (at, line) in text.lines().enumerate() {
        if let Some(version) = line.strip_prefix(COMPILER) {
            version.clone_into(&mut table.compiler);
        }
        let mut words = line.split_whitespace();
        let Some(name) = words.next().filter(|name| !name.starts_with('#')) else { continue };
        let mut number = |otherwise: Option<f64>| words.next().map_or(otherwise, |word| word.parse().ok());
        let (Some(count), Some(tolerance)) = (number(None), number(Some(TOLERANCE))) else {
            return Err(format!("{}:{}: wants `name instructions [tolerance]`: {line}", path().display(), at + 1));
        };
        table.lines.insert(name.to_owned(), Line { count, tolerance });
    }
    Ok(table)
}

fn write(counts: &Counts, old: &Table) -> Result<(), String> {
    let mut text = format!("{HEAD}{COMPILER}{}\n", compiler());
    for (name, events) in counts {
        let own = old.lines.get(name).map(|l| l.tolerance).filter(|t| *t != TOLERANCE);
        let own = own.map(|t| format!("  {t}")).unwrap_or_default();
        let _ = writeln!(text, "{name:<44} {:>8.0}{own}", events[0]);
    }
    std::fs::write(path(), text).map_err(|e| format!("{}: {e}", path().display()))
}

/// Why counts of here are not those of the table, whatever the code.
fn incomparable(table: &Table) -> Option<String> {
    if !std::arch::is_x86_feature_detected!("avx2") {
        return Some("it is of processors with AVX2, which valgrind has only where the machine does".to_owned());
    }
    let here = compiler();
    (table.compiler != here).then(|| format!("it is of {}, this is {here}", table.compiler))
}

/// Prints what moved, or everything without an argument; `--check`: an error where something moved too far; `--update`: keeps it.
pub fn compare(counts: &Counts, arg: &str) -> Result<(), String> {
    let table = read()?;
    let names: BTreeSet<&String> = counts.keys().chain(table.lines.keys()).collect();
    let mut faults = 0;
    println!("{:<44} {:>9} {:>9} {:>8} {:>6}", "instructions", "table", "now", "moved", "limit");
    for name in names {
        let (new, old) = (counts.get(name).map(|events| events[0].round()), table.lines.get(name));
        let moved = match (new, old) {
            (Some(new), Some(old)) => (new - old.count) / old.count.max(1.0) * 100.0,
            _ => f64::INFINITY,
        };
        let limit = old.map_or(0.0, |old| old.tolerance.max(LEAST / old.count.max(1.0) * 100.0));
        let fault = moved.abs() > limit;
        faults += usize::from(fault);
        if arg.is_empty() || fault || moved.abs() >= 0.1 {
            let number = |n: Option<f64>| n.map_or("-".to_owned(), |n| format!("{n:.0}"));
            let moved = if moved.is_finite() { format!("{moved:+.1} %") } else { "-".to_owned() };
            let mark = if !fault { "" } else { "  <-" };
            println!(
                "{name:<44} {:>9} {:>9} {moved:>8} {limit:>4.0} %{mark}",
                number(old.map(|l| l.count)),
                number(new)
            );
        }
    }
    println!("{} steps, {faults} beyond their limits", counts.len());
    if arg == "--update" {
        return write(counts, &table);
    }
    if arg == "--check"
        && let Some(why) = incomparable(&table)
    {
        println!("not held to the table: {why}");
        return Ok(());
    }
    let failed = arg == "--check" && faults > 0;
    let what = "instruction counts moved: if they must, `bench/count --update` and commit bench/counts.txt";
    if failed { Err(what.to_owned()) } else { Ok(()) }
}

/// Instructions and misses of a simulated cache.
pub fn print_caches(counts: &Counts) {
    println!("{:<44} {:>9} {:>9} {:>9} {:>9}", "one operation", "instr.", "accesses", "D1 misses", "LL misses");
    for (name, e) in counts {
        let [count, access, first, last] = [e[0], e[1] + e[2], e[4] + e[5], e[7] + e[8]];
        println!("{name:<44} {count:>9.0} {access:>9.0} {first:>9.1} {last:>9.1}");
    }
}
