//! Dispatch alone: what an operation costs with few and with many agents and waiting calls.
//!
//! Each agent has up to 3 skills. Calls wait for skills of the lower half, whose agents are busy; free agents have those of the upper half.

use crate::Meter;
use std::hint::black_box;
use std::sync::Arc;
use strowger_dispatch::{
    Abandon, AgentRef, AgentSpec, ChatPolicy, Dispatch, Handle, Limits, Match, Media, Release, Released, SkillId,
    WaitRef, WaitSpec,
};

/// The operations of a round.
pub const STEPS: [&str; 6] = ["abandon", "wait", "wait-and-claim", "release", "release-and-match", "position"];
/// Operations in one measurement, at most.
const BATCH: u32 = 32;

/// See the module.
#[derive(Debug)]
pub struct House {
    shard: Handle,
    dispatch: Arc<Dispatch>,
    half: u32,
    batch: u32,
    waits: Vec<(WaitRef, u32)>,
    /// Where in `waits` the call of a wait slot is.
    places: Vec<usize>,
    busy: Vec<AgentRef>,
    out: Vec<Match>,
    draw: u64,
    served: usize,
}

impl House {
    /// So many calls wait and so many agents are free, of `skills` skills, and one in ten beside them is in a call.
    #[must_use]
    pub fn new(waiting: u32, agents: u32, skills: u32) -> House {
        let half = skills / 2;
        let limits = Limits { shards: 1, agents: agents * 2, waiting_per_shard: waiting * 2 + 1000, skills };
        let dispatch = Arc::new(Dispatch::new(limits, ChatPolicy::Balancing));
        let mut house = House {
            shard: dispatch.handle(0),
            dispatch,
            half,
            batch: BATCH.min(waiting.min(agents) / 2),
            waits: Vec::new(),
            places: vec![0; waiting as usize * 2 + 1000],
            busy: Vec::new(),
            out: Vec::new(),
            draw: 88_172_645_463_325_252,
            served: 0,
        };
        for n in 0..(agents / 10).max(house.batch) {
            let agent = house.agent(n % half, 0);
            let wait = house.arrive(n % half);
            assert_eq!(house.shard.take(wait), Some(agent));
            house.busy.push(agent);
        }
        (0..agents).for_each(|n| _ = house.agent(n % half, half));
        for n in 0..waiting {
            let wait = house.arrive(n % half);
            house.waits.push((wait, 0));
            house.put(n as usize, wait, n % half);
        }
        house.out.clear();
        house
    }

    /// Every operation, a batch of each.
    pub fn round(&mut self, m: &mut impl Meter) {
        self.churn(m);
        self.serve(m);
        self.next_calls(m);
        self.positions(m);
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
        let mut skills = [n, (n + 7) % self.half, (n + 19) % self.half].map(|skill| SkillId(base + skill)).to_vec();
        skills.sort_unstable_by_key(|s| s.0);
        skills.dedup();
        let spec = AgentSpec { skills: &skills, audio: true, chat_slots: 0 };
        let agent = self.shard.add_agent(spec).expect("there is room");
        self.shard.login(agent, &mut self.out);
        agent
    }

    fn arrive(&mut self, skill: u32) -> WaitRef {
        let ticket = self.dispatch.next_ticket();
        let spec = WaitSpec { media: Media::Audio, skill: SkillId(skill), priority: skill % 4, ticket, refused: &[] };
        self.shard.wait(spec, &mut self.out).expect("there is room")
    }

    /// Waiting calls drawn at random leave, others come.
    fn churn(&mut self, m: &mut impl Meter) {
        let mut leaving = Vec::new();
        for _ in 0..self.batch {
            let place = self.below(self.waits.len() as u32) as usize;
            leaving.push(self.waits.swap_remove(place));
            if let Some(moved) = self.waits.get(place) {
                self.places[moved.0.slot as usize] = place;
            }
        }
        m.measure("abandon", self.batch, || {
            for (wait, _) in &leaving {
                assert_eq!(self.shard.abandon(*wait), Abandon::Left);
            }
        });
        let mut arrived = Vec::with_capacity(leaving.len());
        m.measure("wait", self.batch, || {
            for (_, skill) in &leaving {
                arrived.push((self.arrive(*skill), *skill));
            }
        });
        for (wait, skill) in arrived {
            self.waits.push((wait, skill));
            self.put(self.waits.len() - 1, wait, skill);
        }
    }

    /// Calls come to free agents.
    fn serve(&mut self, m: &mut impl Meter) {
        let first = self.below(self.half);
        let skills: Vec<u32> = (0..self.batch).map(|n| self.half + (first + 5 * n) % self.half).collect();
        let mut agents = Vec::with_capacity(skills.len());
        m.measure("wait-and-claim", self.batch, || {
            for skill in &skills {
                let wait = self.arrive(*skill);
                agents.extend(self.shard.take(wait));
            }
        });
        assert_eq!(agents.len(), skills.len(), "each call has an agent");
        m.measure("release", self.batch, || {
            for agent in agents {
                assert_eq!(self.shard.release(agent, Release::Free, &mut self.out), Released::Free);
            }
        });
        self.out.clear();
    }

    /// Agents in a call get the next; others come to the queue.
    fn next_calls(&mut self, m: &mut impl Meter) {
        let agents: Vec<AgentRef> =
            (0..self.batch as usize).map(|n| self.busy[(self.served + n) % self.busy.len()]).collect();
        self.served += agents.len();
        self.out.reserve(agents.len());
        m.measure("release-and-match", self.batch, || {
            for agent in agents {
                self.shard.release(agent, Release::Free, &mut self.out);
                let found = self.out.last().map(|found| found.wait);
                assert_eq!(found.and_then(|wait| self.shard.take(wait)), Some(agent));
            }
        });
        let gone: Vec<usize> = self.out.drain(..).map(|found| self.places[found.wait.slot as usize]).collect();
        for gone in gone {
            let skill = self.waits[gone].1;
            let wait = self.arrive(skill);
            self.put(gone, wait, skill);
        }
    }

    /// A call comes to the end of a queue and asks for its position.
    fn positions(&mut self, m: &mut impl Meter) {
        let skill = self.below(self.half);
        let wait = self.arrive(skill);
        m.measure("position", 1, || black_box(self.shard.calls_ahead(wait)));
        assert_eq!(self.shard.abandon(wait), Abandon::Left);
    }
}
