//! The end of the process at any step, and another that takes over from the shards' journals, with as many shards or another number.
//!
//! What is on its way inside the process (matches, commands, timers) is gone with it, and what comes in a moment after. The
//! operators reload nothing in such a run: whoever is gone from the tables would be gone with its calls.

use crate::check::{Checked, Violation, agent_number};
use crate::hazards::MOST_SHARDS;
use crate::heap::Event;
use crate::hear::Said;
use crate::journal::{Journal, Left, Records};
use crate::plan::{Op, Options, Plan, SECOND};
use crate::rng::Rng;
use crate::routes::Expect;
use crate::spool_disk::Ending;
use crate::stages::Listed;
use crate::world::{EPOCH, World, provisioned, shared};
use std::sync::Arc;
use strowger_cdr::Mark;
use strowger_dispatch::Match;
use strowger_engine::journal::{Entity, Kind, Recovered};
use strowger_engine::{BucketTable, Cdr, CdrRow, ChatOver, Control, Engine, EngineConfig, MeshMsg, Output};
use strowger_sip::time::Now;

/// Chance of a sync after a turn where the disk does not matter, per mille.
const SYNCS: u32 = 10;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Between two turns.
    Idle,
    /// After the next turn has been committed, and before anything of it was sent.
    Unsent,
    /// With the whole machine: of each shard's journal the disk has what it was at the end of some turn before.
    Power,
}

/// The ends of one run.
#[derive(Debug)]
pub(crate) struct Ends {
    rng: Rng,
    /// Which turns reach the disk.
    sync: Rng,
    /// What happens to the journals' memory and disks.
    disks: Rng,
    /// Kept only in runs with an end.
    pub(crate) journals: Vec<Journal>,
    /// What their disk has room for; and what became of them.
    pub(crate) room: Option<u64>,
    pub(crate) seen: Vec<&'static str>,
    /// What the process that has ended left in them.
    left: Vec<Records>,
    keeps: bool,
    pub(crate) planned: Vec<(u64, End)>,
    /// Chance of a sync after a turn, per mille; 0: there is no disk.
    syncs: u32,
    due: bool,
    lives: u32,
    /// A new process has not sent all that it begins with.
    pub(crate) starting: bool,
    /// A process ends: what it has made, its journals have.
    pub(crate) ending: bool,
    /// When this process began, by the wall clock.
    born_us: u64,
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
        Ends {
            rng,
            sync: Rng::new(seed ^ 0x7379_6e63_0000_0000),
            disks: Rng::new(seed ^ 0x6469_736b_0000_0000),
            journals: Vec::new(),
            room: None,
            seen: Vec::new(),
            left: Vec::new(),
            keeps: options.crashes,
            planned,
            syncs: 0,
            due: false,
            lives: 1,
            starting: false,
            ending: false,
            born_us: EPOCH + SECOND,
            deaf_until: 0,
        }
    }

    /// In some runs the last end is that of the whole machine.
    pub(crate) fn draw_power(&mut self, seed: u64, faults_us: u64) {
        let mut power = Rng::new(seed ^ 0x706f_7765_7200_0000);
        if self.keeps && power.chance(250) {
            self.syncs = power.range(10, 500) as u32;
            let last = self.planned.iter().map(|(at, _)| *at).max().unwrap_or(0);
            self.planned.push((power.range(last, faults_us), End::Power));
        }
    }

    /// Journals for so many shards.
    pub(crate) fn begin(&mut self, shards: u16) {
        let generation = u64::from(self.lives);
        let shards = if self.keeps { shards } else { 0 };
        self.journals = (0..shards).map(|shard| Journal::new(generation, shard, self.disks.fork())).collect();
    }

    /// What a turn changed is written down, before anything is sent.
    pub(crate) fn commit(&mut self, shard: u16, engine: &mut Engine, now: Now) -> Checked {
        if self.keeps {
            let journal = &mut self.journals[usize::from(shard)];
            engine.journal(now, journal);
            self.seen.extend(journal.commit());
            let syncs = if self.syncs > 0 { self.sync.chance(self.syncs) } else { self.disks.chance(SYNCS) };
            if syncs {
                journal.sync()?;
            }
        }
        Ok(())
    }

    /// No process has ended yet.
    pub(crate) fn is_first_life(&self) -> bool {
        self.lives == 1
    }

    /// No more of it.
    pub(crate) fn cancel(&mut self) {
        self.due = false;
    }

    /// Whether the process ends now, after a turn.
    pub(crate) fn is_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }

    /// A record that leaves its shard is in the journal, as it is.
    pub(crate) fn holds(&mut self, shard: u16, cdr: &Cdr, lost_power: bool) -> Checked {
        if !self.keeps || lost_power || self.is_full(shard) {
            return Ok(());
        }
        let id = (cdr.key & 0xffff_ffff_ffff) as u64;
        let kept = self.journals[usize::from(shard)].records.get(&Entity { kind: Kind::Cdr, id });
        let row = kept.and_then(|bytes| CdrRow::decode(bytes).ok());
        if row.is_none_or(|row| row != cdr.into()) {
            return Err(Violation::new(format!("record {id} of shard {shard} is not in its journal")));
        }
        Ok(())
    }

    /// All records up to that one are safe elsewhere.
    pub(crate) fn forget_records(&mut self, mark: Mark) {
        let Some(journal) = self.journals.get_mut(usize::from(mark.shard)).filter(|_| mark.born_us == self.born_us)
        else {
            return;
        };
        journal.set_safe(mark.sequence + 1);
    }

    /// The records that only the journals have, if they can be read.
    fn take_records(&mut self) -> Option<Vec<CdrRow>> {
        let mut rows = Vec::new();
        for left in &mut self.left {
            let all = std::mem::take(left);
            let (records, rest): (Records, Records) = all.into_iter().partition(|(e, _)| e.kind == Kind::Cdr);
            *left = rest;
            for bytes in records.values() {
                rows.push(CdrRow::decode(bytes).ok()?);
            }
        }
        Some(rows)
    }
}

impl World {
    pub(crate) fn end(&mut self, end: End) -> Checked {
        match end {
            End::Idle => self.crash(Ending::Killed),
            End::Power => {
                self.saw("power lost");
                self.ledger.lost_power = true;
                if self.ends.sync.chance(500) {
                    // Its clock has no battery, or is set when the machine starts.
                    let skew_us = (self.ends.sync.range(1, 20) * 3600 * SECOND).cast_signed();
                    let back = self.ends.sync.chance(700);
                    self.set_clock(if back { -skew_us } else { skew_us });
                }
                self.read_journals(Journal::lose_power)?;
                self.crash(Ending::Power)
            }
            End::Unsent => {
                self.ends.due = true;
                Ok(())
            }
        }
    }

    /// What is left of the journals is read.
    fn read_journals(&mut self, end: fn(Journal) -> Result<Left, Violation>) -> Checked {
        for journal in std::mem::take(&mut self.ends.journals) {
            let (records, saw) = end(journal)?;
            self.ends.left.push(records);
            saw.into_iter().for_each(|what| self.saw(what));
        }
        Ok(())
    }

    /// The wrap-up after a chat is lost with the message about it. Of one that a reload has taken, nothing is foretold.
    fn forgive_chat(&mut self, over: &ChatOver) {
        if let Some((def, _)) = &over.report {
            self.forgive(agent_number(&def.agentid));
        }
    }

    /// Calls to which a match has come in the turn that is not sent: the next process offers them, in the moment in which it begins.
    fn keep_unsent_matches(&mut self) {
        if self.ledger.agents.iter().all(|agent| agent.decided.is_none()) {
            return;
        }
        let listed = self.list_calls(false);
        for (n, agent) in (0..).zip(&mut self.ledger.agents) {
            let Some(decided) = agent.decided.take() else { continue };
            let is_matched = |l: &&Listed| l.agent == Some(n) && !agent.calls.contains(&l.call);
            agent.unsent = listed.iter().find(is_matched).map(|l| (l.call, decided));
        }
    }

    /// The process ends, with a turn unsent: one shard's, or at the start those of several.
    pub(crate) fn crash(&mut self, ending: Ending) -> Checked {
        self.saw("process killed");
        self.trace.note(self.now, None, None, || "--- killed ---".to_owned());
        self.ends.ending = true;
        (0..self.plan.shards).for_each(|shard| self.hear(shard));
        for said in std::mem::take(&mut self.said) {
            match said {
                // Its successor finds them in the journal.
                Said::Output(shard, output @ Output::Cdr(_)) => self.on_output(shard, output)?,
                Said::Output(_, Output::Mesh { msg: MeshMsg::ChatOver(over), .. }) => self.forgive_chat(&over),
                _ => {}
            }
        }
        let inside = |e: &Event| {
            use Event::{Command, Commit, Mesh, Name, NewCall, Records, Timers};
            matches!(e, Mesh { .. } | Command { .. } | Timers(_) | Commit | Name { .. } | Records | NewCall(_))
        };
        for event in self.forget(|e| !inside(e)) {
            if let Event::Mesh { msg: MeshMsg::ChatOver(over), .. } = event {
                self.forgive_chat(&over);
            }
        }
        self.forget_unkept();
        self.keep_unsent_matches();
        (self.in_flight, self.reload, self.foreseen) = (0, None, None);
        for agent in &mut self.ledger.agents {
            agent.pending.clear();
            agent.forget_place();
        }
        self.drained.fill(false);
        self.ends.ending = false;
        self.read_journals(Journal::kill)?;
        let Some(rows) = self.ends.take_records() else {
            return Err(Violation::new("a record of a journal cannot be read"));
        };
        self.records.archive.restart(self.now, rows, ending).map_err(Violation::new)?;
        self.records.restart();
        for call in self.doors.begin(0) {
            self.ledger.damaged[call as usize] = true;
            self.ledger.expects[call as usize] = Some(Expect::Unknown);
        }
        self.after_archive()?;
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
            .zip(std::mem::take(&mut self.ends.left))
            .map(|(shard, records)| Recovered { shard, records: records.into_iter().collect() })
            .collect();
        let dispatching = self.dispatch.dispatching();
        if self.ends.rng.chance(300) {
            let most = if self.plan.hazards.shards > 0 { MOST_SHARDS } else { 4 };
            self.plan.shards = self.ends.rng.range(1, most) as u16;
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
        self.ends.born_us = now.unix_us;
        for shard in 0..shards {
            let mut seed = [0; 32];
            seed.chunks_mut(8).for_each(|c| c.copy_from_slice(&self.ends.rng.draw().to_le_bytes()));
            let (cfg, stats) = (self.cfg.clone(), self.stats.clone());
            self.engines.push(Engine::new(cfg, shard, &self.dispatch, stats, prov.clone(), seed, now));
        }
        self.ends.begin(shards);
        self.doors.begin(shards);
        self.timer_at = vec![u64::MAX; usize::from(shards)];
        for engine in &mut self.engines {
            let restored = engine.restore(now, &recovered);
            if !restored.unreadable.is_empty() {
                return Err(Violation::new(format!("cannot be read: {:?}", restored.unreadable)));
            }
        }
        // The old journals are given up when all the new ones hold everything.
        for (shard, engine) in (0..).zip(&mut self.engines) {
            self.ends.commit(shard, engine, now)?;
        }
        self.ends.journals.iter_mut().try_for_each(Journal::sync)?;
        self.ends.set_room(self.ends.room);
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
