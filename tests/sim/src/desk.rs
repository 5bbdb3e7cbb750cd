//! The operators: logins and logouts, reloads in their two phases, and the moment when the faults stop.

use crate::check::Checked;
use crate::heap::Event;
use crate::plan::{self, MOST_AGENTS, MS, Op, SECOND};
use crate::ua::{Act, Kind, Phase, Tick};
use crate::world::World;
use strowger_dispatch::Match;
use strowger_engine::{Control, Reply};

/// How long the last feature code may still be under way.
const DIALLED_US: u64 = 40 * SECOND;

/// A reload under way.
#[derive(Debug)]
pub(crate) struct Reload {
    /// Shards that have not answered yet.
    waiting: u16,
    first_id: u64,
}

impl World {
    pub(crate) fn command(&mut self, shard: u16, command: Control) {
        self.next_command += 1;
        let way = self.desk.range(1, self.plan.net.desk_us);
        let id = self.next_command;
        self.push(self.now + way, Event::Command { shard, id, command: Box::new(command) });
    }

    pub(crate) fn operate(&mut self, op: Op) {
        match op {
            Op::Login { agent, on } => {
                if let Some(agent) = self.registry.agent(&plan::agent_id(agent)) {
                    self.saw(if on { "login" } else { "logout" });
                    let shard = self.desk.below(u64::from(self.plan.shards)) as u16;
                    self.command(shard, Control::Login { agent, on });
                }
            }
            Op::Matching(on) => self.switch_matching(on),
            Op::Drain(on) => {
                self.saw(if on { "drained" } else { "drain is over" });
                for shard in 0..self.plan.shards {
                    self.command(shard, Control::Drain { on });
                }
            }
            Op::Place => self.place_some_call(),
            Op::Reload if self.reload.is_some() => self.reloads_wanted += 1,
            Op::Reload => {
                self.change_rows();
                self.load();
            }
        }
    }

    fn change_rows(&mut self) {
        let r = &mut self.desk;
        let rows = &mut self.plan.rows;
        for _ in 0..r.range(1, 3) {
            match r.below(6) {
                0 if rows.flows.len() > 1 => {
                    let n = r.below(rows.flows.len() as u64) as usize;
                    rows.flows.remove(n);
                }
                1 if !rows.agents.is_empty() => {
                    let n = r.below(rows.agents.len() as u64) as usize;
                    rows.agents.remove(n);
                }
                2 | 3 => {
                    let n = r.below(u64::from(plan::MOST_FLOWS)) as u32;
                    let row = plan::flow_row(n, r);
                    rows.flows.retain(|f| f.flowid != row.flowid);
                    rows.flows.push(row);
                }
                _ => {
                    let n = r.below(u64::from(MOST_AGENTS)) as u32;
                    let row = plan::agent_row(n, r);
                    rows.agents.retain(|a| a.agentid != row.agentid);
                    rows.agents.push(row);
                }
            }
        }
    }

    fn load(&mut self) {
        self.saw("reload");
        let (prov, _) = self.registry.load(&self.plan.rows);
        self.reload = Some(Reload { waiting: self.plan.shards, first_id: self.next_command + 1 });
        for shard in 0..self.plan.shards {
            self.command(shard, Control::Provision(prov.clone()));
        }
    }

    pub(crate) fn on_reply(&mut self, shard: u16, id: u64, reply: &Reply) {
        let Some(reload) = self.reload.as_mut() else { return };
        if id == reload.first_id + u64::from(shard) && matches!(reply, Reply::Done) {
            reload.waiting -= 1;
            if reload.waiting == 0 {
                self.push(self.now + 1, Event::Commit);
            }
        }
    }

    /// A slice of a reload's second phase.
    pub(crate) fn commit(&mut self) -> Checked {
        let mut made: Vec<Match> = Vec::new();
        let more = self.registry.commit(1, &mut made);
        for m in made {
            self.saw("match made by a reload");
            self.tell_match(m);
        }
        if more {
            let way = self.desk.range(1, MS);
            self.push(self.now + way, Event::Commit);
            return Ok(());
        }
        // Whom this reload has brought the next one may take at once.
        self.agents_are_true()?;
        self.reload = None;
        self.reloaded = self.now;
        if self.reloads_wanted > 0 {
            self.reloads_wanted -= 1;
            self.operate(Op::Reload);
        }
        Ok(())
    }

    /// The faults stop: the network is perfect, everybody who lives behaves, and nobody new comes.
    pub(crate) fn calm_down(&mut self) {
        if self.reload.is_some() {
            self.push(self.now + MS, Event::Calm);
            return;
        }
        self.calm = true;
        self.ends.cancel();
        self.trace.note(self.now, None, None, || "--- faults off ---".to_owned());
        // After all commands that are still under way.
        let codes = if self.plan.guide.has_features() { DIALLED_US } else { 0 };
        let after = self.now + self.plan.net.desk_us + SECOND + codes;
        self.push(after, Event::Operate(Op::Matching(true)));
        for n in 0..MOST_AGENTS {
            self.push(after, Event::Operate(Op::Login { agent: n, on: true }));
        }
        for shard in 0..self.plan.shards {
            if self.plan.end_all {
                self.saw("end of all calls by command");
                self.command(shard, Control::EndAll);
            }
        }
        for d in 0..self.dialogs.len() {
            if self.dialogs[d].kind == Kind::Agent && self.dialogs[d].phase == Phase::Up {
                let at = self.peers.range(1, 10) * SECOND;
                self.push(self.now + at, Event::Peer { dialog: d as u32, tick: Tick::Act(Act::Leave) });
            }
        }
    }
}
