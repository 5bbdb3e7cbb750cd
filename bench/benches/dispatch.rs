//! What a dispatch operation costs, and how that grows: 100 calls and agents, 20 000 x 10 000, 100 000 x 100 000, over 100 skills
//! ([`House`]). Arrivals and departures are spread over all skills, so that each operation meets cold memory.
//!
//! - `wait`: a call joins a queue that has no agent. `abandon`: a waiting call leaves, wherever in its queue it is.
//! - `wait-and-claim`: a call comes to free agents and has one; `release`: its agent is free again, no call waiting.
//! - `release-and-match`: an agent in a call is released with calls waiting, and gets the best.
//! - `position`: that of a call that has just arrived.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::time::{Duration, Instant};
use strowger_bench::house::{House, STEPS};
use strowger_bench::meter::Meter;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SKILLS: u32 = 100;
const SIZES: [(u32, u32); 3] = [(100, 100), (20_000, 10_000), (100_000, 100_000)];

/// The times of one step, each of as many operations as it was measured over.
struct Clock<'a> {
    step: &'a str,
    times: Vec<Duration>,
}

impl Meter for Clock<'_> {
    fn measure<R>(&mut self, step: &str, times: u32, work: impl FnOnce() -> R) -> R {
        let began = Instant::now();
        let result = work();
        let took = began.elapsed();
        if step == self.step {
            self.times.push(took / times);
        }
        result
    }
}

fn dispatch(c: &mut Criterion) {
    for (waiting, agents) in SIZES {
        let mut house = House::new(waiting, agents, SKILLS);
        for step in STEPS {
            let mut group = c.benchmark_group(step);
            group.bench_function(BenchmarkId::from_parameter(format!("{waiting}x{agents}")), |b| {
                b.iter_custom(|n| {
                    // The median of the batches, so that a machine with other work to do does not count.
                    let mut clock = Clock { step, times: Vec::new() };
                    (0..n).for_each(|_| house.round(&mut clock));
                    clock.times.sort_unstable();
                    clock.times[clock.times.len() / 2] * n as u32
                });
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    targets = dispatch
}
criterion_main!(benches);
