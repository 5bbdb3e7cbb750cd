//! The end of the process at any step, and another that takes over from the shards' journals, with as many shards or another number.
//!
//! What is on its way inside the process (matches, commands, timers) is gone with it, and what comes in a moment after. The
//! operators reload nothing in such a run: whoever is gone from the tables would be gone with its calls.

use crate::check::{Checked, Violation, agent_number};
use crate::plan::{Op, Options, Plan, SECOND};
use crate::rng::Rng;
use crate::world::{Event, World, provisioned, shared};
use std::collections::BTreeMap;
use std::sync::Arc;
use strowger_dispatch::Match;
use strowger_engine::journal::{Entity, Kind, Recovered, Sink};
use strowger_engine::{BucketTable, Cdr, ChatOver, Control, Engine, EngineConfig, MeshMsg, Output};
use strowger_sip::time::Now;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Between two turns.
    Idle,
    /// After the next turn has been committed, and before anything of it was sent.
    Unsent,
}

/// The latest records of one shard.
#[derive(Debug, Default)]
struct Journal {
    records: BTreeMap<Entity, Box<[u8]>>,
    /// Removals of what was never written.
    strays: u32,
}

impl Sink for Journal {
    fn put(&mut self, entity: Entity, record: &[u8]) {
        self.records.insert(entity, record.into());
    }

    fn remove(&mut self, entity: Entity) {
        self.strays += u32::from(self.records.remove(&entity).is_none());
    }
}

/// The ends of one run.
#[derive(Debug)]
pub(crate) struct Ends {
    rng: Rng,
    /// Kept only in runs with an end.
    journals: Vec<Journal>,
    keeps: bool,
    pub(crate) planned: Vec<(u64, End)>,
    due: bool,
    lives: u32,
    /// A new process has not sent all that it begins with.
    pub(crate) starting: bool,
    pub(crate) deaf_until: u64,
}

impl Ends {
    pub(crate) fn draw(seed: u64, options: &Options, plan: &mut Plan) -> Ends {
        let mut rng = Rng::new(seed ^ 0x6b69_6c6c_2d39_0000);
        let mut planned = Vec::new();
        if options.crashes {
            plan.ops.retain(|(_, op)| !matches!(op, Op::Reload));
            // What comes while nobody listens is lost.
            plan.net.loss = plan.net.loss.max(1);
            for _ in 0..rng.range(1, 6) {
                let end = if rng.chance(500) { End::Idle } else { End::Unsent };
                planned.push((rng.below(plan.faults_us), end));
            }
        }
        let journals = (0..plan.shards).map(|_| Journal::default()).collect();
        Ends { rng, journals, keeps: options.crashes, planned, due: false, lives: 1, starting: false, deaf_until: 0 }
    }

    /// What a turn changed is written down, before anything is sent.
    pub(crate) fn commit(&mut self, shard: u16, engine: &mut Engine, now: Now) {
        if self.keeps {
            engine.journal(now, &mut self.journals[usize::from(shard)]);
        }
    }

    /// No more of it.
    pub(crate) fn cancel(&mut self) {
        self.due = false;
    }

    /// Whether the process ends now, after a turn.
    pub(crate) fn is_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }

    /// A record has reached the database: it was in the journal, as it is.
    pub(crate) fn delivered(&mut self, shard: u16, cdr: &Cdr) -> Checked {
        if !self.keeps {
            return Ok(());
        }
        let id = (cdr.key & 0xffff_ffff_ffff) as u64;
        let kept = self.journals[usize::from(shard)].records.remove(&Entity { kind: Kind::Cdr, id });
        let row = kept.and_then(|bytes| strowger_engine::CdrRow::decode(&bytes).ok());
        if row.is_none_or(|row| row != cdr.into()) {
            return Err(Violation::new(format!("record {id} of shard {shard} is not in its journal")));
        }
        Ok(())
    }
}

impl World {
    pub(crate) fn end(&mut self, end: End) -> Checked {
        match end {
            End::Idle => self.crash(0),
            End::Unsent => {
                self.ends.due = true;
                Ok(())
            }
        }
    }

    /// The wrap-up after a chat is lost with the message about it. Of one that a reload has taken, nothing is foretold.
    fn forgive_chat(&mut self, over: &ChatOver) {
        if let Some((def, _)) = &over.report {
            self.forgive(agent_number(&def.agentid));
        }
    }

    /// The process ends, with a turn of `shard` unsent.
    pub(crate) fn crash(&mut self, shard: u16) -> Checked {
        self.saw("process killed");
        self.trace.note(self.now, None, None, || "--- killed ---".to_owned());
        while let Some(output) = self.engines[usize::from(shard)].poll_output() {
            match output {
                // Its successor finds them in the journal.
                Output::Cdr(_) => self.on_output(shard, output)?,
                Output::Mesh { msg: MeshMsg::ChatOver(over), .. } => self.forgive_chat(&over),
                _ => {}
            }
        }
        let inside =
            |e: &Event| matches!(e, Event::Mesh { .. } | Event::Command { .. } | Event::Timers(_) | Event::Commit);
        for event in self.forget(|e| !inside(e)) {
            if let Event::Mesh { msg: MeshMsg::ChatOver(over), .. } = event {
                self.forgive_chat(&over);
            }
        }
        (self.in_flight, self.reload, self.foreseen) = (0, None, None);
        self.ledger.agents.iter_mut().for_each(|a| (a.decided, a.pending) = (None, Vec::new()));
        self.drained.fill(false);
        self.ledger.forget_ended_numbers();
        self.restart()
    }

    /// The wrap-up after a chat that ended a moment before went with the message that told of it.
    fn forgive(&mut self, agent: u32) {
        let booked = &mut self.ledger.agents[agent as usize];
        (booked.wraps_until, booked.pauses_until, booked.known_from) = (0, 0, self.now);
    }

    fn restart(&mut self) -> Checked {
        let recovered: Vec<Recovered> = (0..)
            .zip(std::mem::take(&mut self.ends.journals))
            .map(|(shard, journal)| Recovered { shard, records: journal.records.into_iter().collect() })
            .collect();
        let dispatching = self.dispatch.dispatching();
        if self.ends.rng.chance(300) {
            self.plan.shards = self.ends.rng.range(1, 4) as u16;
        }
        let shards = self.plan.shards;
        self.cfg =
            Arc::new(EngineConfig { buckets: Arc::new(BucketTable::even(shards)), ..EngineConfig::clone(&self.cfg) });
        self.engines.clear();
        (self.dispatch, self.stats) = shared(&self.plan);
        self.dispatch.set_dispatching(false);
        let (registry, prov) = provisioned(&self.plan, &self.dispatch);
        self.registry = registry;
        self.matcher = self.dispatch.handle(shards);
        let now = self.clock();
        for shard in 0..shards {
            let mut seed = [0; 32];
            seed.chunks_mut(8).for_each(|c| c.copy_from_slice(&self.ends.rng.draw().to_le_bytes()));
            let (cfg, stats) = (self.cfg.clone(), self.stats.clone());
            self.engines.push(Engine::new(cfg, shard, &self.dispatch, stats, prov.clone(), seed, now));
        }
        self.ends.journals = (0..shards).map(|_| Journal::default()).collect();
        self.timer_at = vec![u64::MAX; usize::from(shards)];
        for engine in &mut self.engines {
            let restored = engine.restore(now, &recovered);
            if !restored.unreadable.is_empty() {
                return Err(Violation::new(format!("cannot be read: {:?}", restored.unreadable)));
            }
        }
        // The old journals are given up when all the new ones hold everything.
        for (shard, engine) in (0..).zip(&mut self.engines) {
            self.ends.commit(shard, engine, now);
        }
        self.ends.lives += 1;
        let life = self.ends.lives;
        self.ends.deaf_until = self.now + if self.ends.rng.chance(500) { 0 } else { self.ends.rng.below(2 * SECOND) };
        for call in std::mem::take(&mut self.ledger.stages.back) {
            self.ledger.stages.of[call as usize].maybe_held = true;
        }
        self.dispatch.set_dispatching(dispatching);
        if dispatching {
            let mut made: Vec<Match> = Vec::new();
            self.matcher.match_all(&mut made);
            self.matcher.collect();
            for m in made {
                let engine = &mut self.engines[usize::from(m.wait.shard)];
                engine.handle_control(now, u64::MAX, Control::Matched(vec![m]));
            }
        }
        for starting in [true, false] {
            for shard in 0..shards {
                self.ends.starting = starting;
                self.after(shard, false)?;
                if self.ends.lives != life {
                    return Ok(()); // It has ended again.
                }
            }
        }
        self.moves_are_right(false)
    }
}
