//! Fuzz targets: readers of everything that comes from outside, each with what must hold of what it reads.
//!
//! A target is a function of bytes that panics when something is wrong. `tests/bounded.rs` runs each over its seeds and a
//! fixed number of mutations with every `cargo test`; `tests/fuzz/run` hands them to libFuzzer for as long as one likes.
//! What a long run finds becomes a seed ([`seeds`]) or a test of the room concerned.
//!
//! Here, too, are the messages of RFC 4475 and RFC 5118 ([`torture`]) and what a shard makes of them (`tests/torture.rs`).

pub mod body;
#[cfg(feature = "control")]
pub mod control;
pub mod disk;
pub mod fields;
pub mod message;
pub mod mutate;
pub mod seeds;
pub mod sequence;
pub mod shard;
#[cfg(feature = "control")]
pub mod spool;
pub mod torture;

/// A target.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// What it begins with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Mutations in a bounded run.
    pub rounds: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "message", run: message::message, seeds: seeds::messages, rounds: 6000 },
    Target { name: "ownership", run: message::ownership, seeds: seeds::messages, rounds: 4000 },
    Target { name: "uri", run: fields::uri, seeds: seeds::uris, rounds: 20_000 },
    Target { name: "via", run: fields::via, seeds: seeds::vias, rounds: 10_000 },
    Target { name: "address", run: fields::address, seeds: seeds::addresses, rounds: 20_000 },
    Target { name: "route", run: fields::route, seeds: seeds::routes, rounds: 10_000 },
    Target { name: "values", run: fields::values, seeds: seeds::values, rounds: 20_000 },
    Target { name: "sdp", run: body::sdp, seeds: seeds::descriptions, rounds: 10_000 },
    Target { name: "multipart", run: body::multipart, seeds: seeds::multiparts, rounds: 10_000 },
    Target { name: "sequence", run: sequence::sequence, seeds: seeds::sequences, rounds: 600 },
    #[cfg(feature = "control")]
    Target { name: "config", run: control::config, seeds: seeds::configurations, rounds: 1000 },
    #[cfg(feature = "control")]
    Target { name: "rows", run: control::rows, seeds: seeds::rows, rounds: 1000 },
    #[cfg(feature = "control")]
    Target { name: "mi", run: control::mi, seeds: seeds::requests, rounds: 5000 },
    Target { name: "journal", run: disk::journal, seeds: seeds::damages, rounds: 120 },
    Target { name: "records", run: disk::records, seeds: seeds::bundles, rounds: 600 },
    #[cfg(feature = "control")]
    Target { name: "spool", run: spool::spool, seeds: seeds::damages, rounds: 150 },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

/// Runs a target.
///
/// # Panics
/// When something is wrong with what the bytes are read as; or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    (target(name).expect("a target").run)(data);
}

/// Puts the seeds of a target into the first directory among the program's arguments, if that is empty: where libFuzzer, which
/// calls this before it looks there, finds its corpus.
///
/// # Panics
/// When they cannot be written; or there is no such target.
pub fn sow(name: &str) {
    let dirs = std::env::args_os().skip(1).map(std::path::PathBuf::from);
    let Some(dir) = dirs.into_iter().find(|arg| arg.is_dir()) else { return };
    if std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return;
    }
    for (n, seed) in (target(name).expect("a target").seeds)().iter().enumerate() {
        std::fs::write(dir.join(format!("seed-{n:03}")), seed).expect("the corpus can be written");
    }
}
