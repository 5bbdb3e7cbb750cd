//! Whole operations of several shards and a control plane under schedules drawn at random; a failure prints a schedule to replay.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test --release -p strowger-dispatch --test shuttle`; `SHUTTLE_RUNS` changes the number of schedules.
#![cfg(shuttle)]

mod storm;

use std::sync::Arc;

use shuttle::{rand::Rng as _, thread};
use storm::{Storm, Worker};
use strowger_dispatch::ChatPolicy;

fn weather(shards: u16, agents: u32, turns: usize) {
    let seed = u64::from(shuttle::rand::thread_rng().r#gen::<u32>());
    let policy = if seed.is_multiple_of(2) { ChatPolicy::Balancing } else { ChatPolicy::FullLoad };
    let storm = Arc::new(Storm::new(shards, agents, seed, policy));
    let spawn = |n: u16| {
        let storm = Arc::clone(&storm);
        let work = move || match n {
            n if n < shards => storm.shard(n, turns, seed + u64::from(n)),
            _ => storm.control(shards, turns, seed + 99),
        };
        thread::spawn(work)
    };
    let threads: Vec<_> = (0..=shards).map(spawn).collect();
    let workers: Vec<Worker> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    storm.check(workers);
}

fn runs() -> usize {
    std::env::var("SHUTTLE_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

#[test]
fn random_schedules_of_two_shards() {
    shuttle::check_random(|| weather(2, 2, 20), runs());
}

#[test]
fn random_schedules_of_four_shards() {
    shuttle::check_random(|| weather(4, 3, 30), runs());
}

/// Probabilistic concurrency testing (Burckhardt et al. 2010): few, well-placed preemptions.
#[test]
fn few_preemptions_of_three_shards() {
    shuttle::check_pct(|| weather(3, 1, 20), runs(), 3);
}
