//! A deterministic simulator: real engines, real dispatch, real ownership scan, in virtual time, with everything else made up
//! from a seed. `cargo sim -- --seed N` replays a run exactly.
//!
//! A run has two phases. With faults: the network loses, doubles, delays and reorders, peers do what `script.rs` says, operators
//! log agents in and out and reload. Then without: everything must come to rest in bounded virtual time, and the books must
//! balance. What is checked is in `check.rs` (at each step) and `rest.rs` (at the end).
//!
//! With `crashes` the process ends now and then, at any step, and another takes over from its shards' journals (`crash.rs`).
//!
//! Invariants
//! - Nothing but the seed and the options decides a run: no clock, no thread, no map whose order matters.
//! - Peers share nothing with the engine but the message parser, for reading.

mod archive;
mod audited;
mod booked;
pub mod check;
mod clock;
mod cover;
mod crash;
mod damage;
mod desk;
mod disk;
mod door;
mod hazards;
mod heap;
mod hear;
mod journal;
mod model;
pub mod mutants;
mod network;
mod placing;
pub mod plan;
mod records;
mod recount;
mod rest;
pub mod rng;
mod room;
mod routes;
mod rules;
mod script;
pub mod shrink;
mod spool_disk;
mod stages;
mod text;
mod told;
pub mod trace;
mod ua;
mod uac;
mod uas;
mod watch;
mod world;

use check::Violation;
use plan::Options;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use trace::Line;

/// What a run was.
#[derive(Debug, Default)]
pub struct Report {
    pub calls: u64,
    pub steps: u64,
    /// Virtual time, microseconds.
    pub virtual_us: u64,
    /// What happened how often.
    pub seen: BTreeMap<&'static str, u64>,
    /// The ladder, if it was asked for.
    pub lines: Vec<Line>,
    pub violation: Option<Violation>,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Report {
    let mut world = world::World::new(seed, options);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run().and_then(|()| world.check_rest())));
    let violation = match outcome {
        Ok(checked) => checked.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
            Some(Violation::new(format!("panic: {text}")))
        }
    };
    Report {
        calls: u64::from(world.plan.calls),
        steps: world.steps,
        virtual_us: world.now,
        seen: std::mem::take(&mut world.seen),
        lines: std::mem::take(&mut world.trace.lines),
        violation,
    }
}
