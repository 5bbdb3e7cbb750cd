//! What a dispatch operation costs, and how that grows: 100 calls and agents, 20 000 x 10 000, 100 000 x 100 000, over 100 skills.
//!
//! Each agent has 3 skills. Waiting calls are for skills 0 to 49 and free agents have skills of 50 to 99, as in real life where a queue means
//! that its agents are busy; the two touch only in what a benchmark adds. Arrivals and departures are spread over all skills, so that each
//! operation meets cold memory.
//!
//! - `arrive`: a call joins a queue that has no agent. `abandon`: a waiting call leaves, wherever in its queue it is.
//! - `arrive_matched`: a call comes to free agents and has one; `release`: its agent is free again, no call waiting.
//! - `match`: an agent in a call is released with calls waiting, and gets the best.
//! - `ahead`: the position of a call that has just arrived.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use strowger_dispatch::*;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SKILLS: u32 = 100;
const SIZES: [(u32, u32); 3] = [(100, 100), (20_000, 10_000), (100_000, 100_000)];
/// Operations between two readings of the clock.
const BATCH: usize = 10;
const HALF: u32 = SKILLS / 2;

struct House {
    shard: Handle,
    dispatch: Arc<Dispatch>,
    /// With their skills: a call that goes is followed by one of its skill.
    waits: Vec<(WaitRef, u32)>,
    /// Where in `waits` the call of a wait slot is.
    places: Vec<usize>,
    busy: Vec<AgentRef>,
    out: Vec<Match>,
    draw: u64,
    served: usize,
}

impl House {
    /// `waiting` calls for the lower skills, `agents` of the upper ones free, and one in ten beside them in a call, of the lower skills.
    fn new(waiting: u32, agents: u32) -> Self {
        let limits = Limits { shards: 1, agents: agents * 2, waiting_per_shard: waiting * 2 + 1000, skills: SKILLS };
        let dispatch = Arc::new(Dispatch::new(limits, ChatPolicy::Balancing));
        let mut house = House {
            shard: dispatch.handle(0),
            dispatch,
            waits: vec![],
            places: vec![0; waiting as usize * 2 + 1000],
            busy: vec![],
            out: vec![],
            draw: 88_172_645_463_325_252,
            served: 0,
        };
        for n in 0..agents / 10 {
            let agent = house.agent(n % HALF, 0);
            let wait = house.arrive(n % HALF);
            assert_eq!(house.shard.take(wait), Some(agent));
            house.busy.push(agent);
        }
        (0..agents).for_each(|n| _ = house.agent(n % HALF, HALF));
        for n in 0..waiting {
            let wait = house.arrive(n % HALF);
            house.waits.push((wait, 0));
            house.put(n as usize, wait, n % HALF);
        }
        house.out.clear();
        house
    }

    fn put(&mut self, place: usize, wait: WaitRef, skill: u32) {
        self.waits[place] = (wait, skill);
        self.places[wait.slot as usize] = place;
    }

    fn below(&mut self, n: u32) -> u32 {
        self.draw ^= self.draw << 13;
        self.draw ^= self.draw >> 7;
        self.draw ^= self.draw << 17;
        (self.draw >> 32) as u32 % n
    }

    fn agent(&mut self, n: u32, base: u32) -> AgentRef {
        let skills = [n, (n + 7) % HALF, (n + 19) % HALF].map(|skill| SkillId(base + skill));
        let agent = self.shard.add_agent(AgentSpec { skills: &skills, audio: true, chat_slots: 0 }).unwrap();
        self.shard.login(agent, &mut self.out);
        agent
    }

    fn arrive(&mut self, skill: u32) -> WaitRef {
        let ticket = self.dispatch.next_ticket();
        let spec = WaitSpec { media: Media::Audio, skill: SkillId(skill), priority: skill % 4, ticket, refused: &[] };
        self.shard.wait(spec, &mut self.out).unwrap()
    }

    /// Replaces waiting calls drawn at random; times their leaving and the arrival of the new ones.
    fn churn(&mut self) -> (Duration, Duration) {
        let gone: [usize; BATCH] = std::array::from_fn(|_| self.below(self.waits.len() as u32 - BATCH as u32) as usize);
        let leaving = gone.map(|place| {
            let leaving = self.waits.swap_remove(place);
            if let Some(moved) = self.waits.get(place) {
                self.places[moved.0.slot as usize] = place;
            }
            leaving
        });
        let start = Instant::now();
        for (wait, _) in leaving {
            assert_eq!(self.shard.abandon(wait), Abandon::Left);
        }
        let left = start.elapsed();
        let start = Instant::now();
        let arrived = leaving.map(|(_, skill)| (self.arrive(skill), skill));
        let came = start.elapsed();
        for (wait, skill) in arrived {
            self.waits.push((wait, skill));
            self.put(self.waits.len() - 1, wait, skill);
        }
        (left, came)
    }

    /// Calls to free agents; times their matches and the release of their agents.
    fn serve(&mut self) -> (Duration, Duration) {
        // Skills that share no agent, so that each call finds one.
        let first = self.below(HALF);
        let skills: [u32; BATCH] = std::array::from_fn(|n| HALF + (first + 5 * n as u32) % HALF);
        let start = Instant::now();
        let agents = skills.map(|skill| {
            let wait = self.arrive(skill);
            self.shard.take(wait).unwrap()
        });
        let matched = start.elapsed();
        let start = Instant::now();
        for agent in agents {
            assert_eq!(self.shard.release(agent, Release::Free, &mut self.out), Released::Free);
        }
        let released = start.elapsed();
        self.out.clear();
        (matched, released)
    }

    /// Agents in a call get the next; times the matches, and puts other calls in the queue.
    fn next_calls(&mut self) -> Duration {
        let agents: [AgentRef; BATCH] = std::array::from_fn(|n| self.busy[(self.served + n) % self.busy.len()]);
        self.served += BATCH;
        let start = Instant::now();
        for agent in agents {
            self.shard.release(agent, Release::Free, &mut self.out);
            let found = self.out.last().expect("a call waits");
            assert_eq!(self.shard.take(found.wait), Some(agent));
        }
        let matched = start.elapsed();
        let gone: Vec<usize> = self.out.drain(..).map(|found| self.places[found.wait.slot as usize]).collect();
        for gone in gone {
            let skill = self.waits[gone].1;
            let wait = self.arrive(skill);
            self.put(gone, wait, skill);
        }
        matched
    }

    /// A call arrives at the end of a queue and asks for its position.
    fn positions(&mut self) -> Duration {
        let mut asking = Duration::ZERO;
        for _ in 0..BATCH {
            let skill = self.below(HALF);
            let wait = self.arrive(skill);
            let start = Instant::now();
            black_box(self.shard.calls_ahead(wait));
            asking += start.elapsed();
            assert_eq!(self.shard.abandon(wait), Abandon::Left);
        }
        asking
    }
}

fn dispatch(c: &mut Criterion) {
    type Timed = fn(&mut House) -> Duration;
    let operations: [(&str, Timed); 6] = [
        ("arrive", |house| house.churn().1),
        ("abandon", |house| house.churn().0),
        ("match", House::next_calls),
        ("arrive_matched", |house| house.serve().0),
        ("release", |house| house.serve().1),
        ("ahead", House::positions),
    ];
    for (waiting, agents) in SIZES {
        let mut house = House::new(waiting, agents);
        for (name, timed) in operations {
            let mut group = c.benchmark_group(name);
            group.bench_function(BenchmarkId::from_parameter(format!("{waiting}x{agents}")), |b| {
                b.iter_custom(|n| {
                    // The median of the batches, so that a machine with other work to do does not count.
                    let mut batches: Vec<Duration> = (0..n).map(|_| timed(&mut house)).collect();
                    batches.sort_unstable();
                    batches[batches.len() / 2] * n as u32 / BATCH as u32
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
