//! A failing seed made small: callers, subjects, shards and crashes are left out as long as it fails in the same way.

use crate::plan::{Options, SUBJECTS};
use crate::run;

/// Callers that can be left out one by one.
const CALLERS: u32 = 64;

/// A violation without its numbers.
#[must_use]
pub fn kind(what: &str) -> String {
    let what = what.split(" of sw").next().unwrap_or(what);
    what.chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
}

/// The smallest options found with which the seed fails in the same way; none where it does not fail.
#[must_use]
pub fn shrink(seed: u64, options: &Options) -> Option<Options> {
    let first = run(seed, options);
    let wanted = kind(&first.violation?.what);
    let fails = |o: &Options| run(seed, o).violation.is_some_and(|v| kind(&v.what) == wanted);
    let mut best = *options;
    let mut shrinks = true;
    while shrinks {
        shrinks = false;
        for smaller in candidates(&best, first.calls as u32) {
            // Each was made from what was the best then.
            let merged = merge(&best, &smaller);
            if merged != best && fails(&merged) {
                (best, shrinks) = (merged, true);
            }
        }
    }
    Some(best)
}

/// Each leaves one thing out, or many callers.
fn candidates(best: &Options, calls: u32) -> Vec<Options> {
    let all = if calls >= CALLERS { u64::MAX } else { (1 << calls) - 1 };
    let mut out: Vec<Options> = Vec::new();
    if best.crashes {
        out.push(Options { crashes: false, ..*best });
    }
    out.extend((1..=3).map(|shards| Options { shards, ..*best }));
    out.extend((0..SUBJECTS.len()).map(|bit| Options { without: best.without | 1 << bit, ..*best }));
    for width in [32, 16, 8, 4, 2, 1] {
        let block = if width >= 64 { u64::MAX } else { (1_u64 << width) - 1 };
        let blocks = (0..calls.min(CALLERS)).step_by(width).map(|at| block << at);
        out.extend(blocks.map(|gone| Options { absent: best.absent | (gone & all), ..*best }));
    }
    out
}

/// What is left out of both.
fn merge(a: &Options, b: &Options) -> Options {
    let shards = if a.shards > 0 && b.shards > 0 { a.shards.min(b.shards) } else { a.shards.max(b.shards) };
    Options {
        shards,
        crashes: a.crashes && b.crashes,
        without: a.without | b.without,
        absent: a.absent | b.absent,
        ..*a
    }
}
