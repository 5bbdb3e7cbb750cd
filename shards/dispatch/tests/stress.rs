//! Real threads, as many as there may be shards on a small machine, for a bounded number of turns.
#![cfg(not(any(loom, shuttle)))]

mod storm;

use std::thread;

use storm::{Storm, Worker};
use strowger_dispatch::ChatPolicy;

fn weather(shards: u16, agents: u32, turns: usize, seed: u64) {
    let policy = if seed.is_multiple_of(2) { ChatPolicy::Balancing } else { ChatPolicy::FullLoad };
    let storm = &Storm::new(shards, agents, seed, policy);
    let workers: Vec<Worker> = thread::scope(|scope| {
        let control = scope.spawn(move || storm.control(shards, turns, seed * 100 + 99));
        let spawn = |n: u16| scope.spawn(move || storm.shard(n, turns, seed * 100 + u64::from(n)));
        let shards: Vec<_> = (0..shards).map(spawn).collect();
        shards.into_iter().chain([control]).map(|thread| thread.join().unwrap()).collect()
    });
    storm.check(workers);
}

/// Miri is thousands of times slower than a processor.
const fn few(times: u64) -> u64 {
    if cfg!(miri) { 1 } else { times }
}

const fn short(turns: usize) -> usize {
    if cfg!(miri) { turns / 100 } else { turns }
}

#[test]
fn few_agents_many_shards() {
    (0..few(200)).for_each(|seed| weather(4, 2, short(2_000), seed));
}

#[test]
fn many_agents() {
    (0..few(10)).for_each(|seed| weather(4, 64, short(20_000), seed));
}
