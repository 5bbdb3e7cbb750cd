//! A bounded run of every target: its seeds, and a fixed number of mutations of them, the same ones each time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use strowger_fuzz::mutate::{Rng, mutate};
use strowger_fuzz::{TARGETS, Target};

/// Runs a target on bytes; says which ones if it does not hold.
fn run(target: &Target, bytes: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))) {
        eprintln!("target {} fails on {} bytes: b\"{}\"", target.name, bytes.len(), bytes.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

fn bounded(name: &str) {
    let target = strowger_fuzz::target(name).expect("a target");
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    run(target, b"");
    seeds.iter().for_each(|seed| run(target, seed));
    let mut rng = Rng(name.bytes().fold(7, |n, b| n * 31 + u64::from(b)));
    // More of them, for who has no libFuzzer at hand: STROWGER_FUZZ=1000 makes a thousand times as many, other ones.
    let times: usize = std::env::var("STROWGER_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    if times > 1 {
        rng.0 ^= times as u64;
    }
    for _ in 0..target.rounds * times {
        let (seed, other) = (&seeds[rng.below(seeds.len())], &seeds[rng.below(seeds.len())]);
        run(target, &mutate(&mut rng, seed, other));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            bounded(stringify!($name));
        })*
    };
}

targets! { message ownership uri via address route values sdp multipart sequence config rows mi journal records spool }

#[test]
fn each_target_has_its_run_and_its_wrapper() {
    let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
    assert_eq!(names, NAMES);
    for name in names {
        let wrapper = format!("{}/fuzz/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&wrapper).unwrap_or_else(|e| panic!("{wrapper}: {e}"));
        assert!(text.contains(&format!("\"{name}\"")), "{wrapper} runs {name}");
    }
}
