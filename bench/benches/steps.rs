//! The time of each step that `bench/count` counts the instructions of: answers, transactions, a queued call, hand-over between shards, CDRs.
//! Reading the clock is in it, some 50 ns a step. `cargo bench -p strowger-bench --bench steps -- call/`: those whose name has this in it.

use criterion::{Criterion, criterion_group, criterion_main};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use strowger_bench::call::Queue;
use strowger_bench::handover::{self, TwoShards};
use strowger_bench::meter::{Meter, Unmetered};
use strowger_bench::pieces;
use strowger_bench::transactions::Transactions;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WARM: usize = 150;

/// Sums the time of each step, and counts how often it ran.
#[derive(Default)]
struct Clock(BTreeMap<String, (Duration, u32)>);

impl Meter for Clock {
    fn measure<R>(&mut self, step: &str, times: u32, work: impl FnOnce() -> R) -> R {
        let began = Instant::now();
        let result = work();
        let took = began.elapsed();
        if let Some(sum) = self.0.get_mut(step) {
            *sum = (sum.0 + took, sum.1 + times);
        } else {
            self.0.insert(step.to_owned(), (took, times));
        }
        result
    }
}

/// A benchmark for each step of a script, which is run as often as one of them wants.
fn script(c: &mut Criterion, name: &str, mut round: impl FnMut(&mut Clock)) {
    let mut names = Clock::default();
    round(&mut names);
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(500));
    for step in names.0.keys() {
        group.bench_function(step, |b| {
            b.iter_custom(|n| {
                let mut clock = Clock::default();
                // A round takes much longer than one step of it: a few are enough.
                for _ in 0..n.min(200) {
                    round(&mut clock);
                }
                let (sum, times) = clock.0[step];
                sum.mul_f64(n as f64 / f64::from(times))
            });
        });
    }
    group.finish();
}

fn steps(c: &mut Criterion) {
    script(c, "sip", pieces::messages);
    script(c, "cdr", pieces::cdrs);
    let mut transactions = Transactions::default();
    (0..WARM).for_each(|_| transactions.round(&mut Unmetered));
    script(c, "transaction", |clock| transactions.round(clock));
    for (name, journal) in [("call", false), ("call-with-journal", true)] {
        let mut queue = Queue::new(journal);
        (0..WARM).for_each(|_| _ = queue.call(&mut Unmetered));
        script(c, name, |clock| {
            queue.call(clock);
            queue.give_up(clock);
        });
    }
    script(c, "handover", handover::rings);
    let mut two = TwoShards::new(false);
    (0..WARM).for_each(|_| two.call(&mut Unmetered));
    script(c, "handover", |clock| two.call(clock));
}

criterion_group!(benches, steps);
criterion_main!(benches);
