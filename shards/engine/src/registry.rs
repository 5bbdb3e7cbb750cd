//! From rows to [`Provisioning`], and the agents behind it in the dispatch table. Sans-I/O: the control plane and the
//! simulator own one each.
//!
//! A load has two phases, so that every shard knows a definition before a match for it can come:
//! 1. [`Registry::load`] checks the rows, allocates new agents (offline) and returns the new provisioning.
//! 2. When all shards have answered `Done` to `Control::Provision`, [`Registry::commit`], slice by slice, lets the
//!    changes loose: skills and slots, logins, retirements; the matches that this makes go to the shards.
//!
//! Invariants
//! - A flow id keeps its index, a skill its id, an agent id its reference, over all loads in which it stands; an agent
//!   that comes back while its last call still goes on, too.
//! - Who can be matched or is in a call has a definition in [`Provisioning::agents`], whatever the rows say.
//! - A login state is changed by a load only where the row is new or its `logstate` is another than at the last load.
//! - Rows that cannot be loaded are faults; the rest loads. A row that was sound and is not any more counts as missing.

mod rows;

pub use rows::{AgentRow, FlowRow, RowFault, Rows, Table};

use crate::provision::{AgentDef, FlowDef, Provisioning};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use strowger_dispatch::{AgentRef, AgentSpec, Handle, Match, SkillId};

/// Upper bounds of what may ever be provisioned.
#[derive(Debug, Clone, Copy)]
pub struct RegistryLimits {
    pub flows: u32,
    pub skills: u32,
}

/// What is provisioned, and how it came about.
#[derive(Debug)]
pub struct Registry {
    handle: Handle,
    limits: RegistryLimits,
    skills: BTreeMap<Box<str>, SkillId>,
    flow_indexes: BTreeMap<Box<str>, u32>,
    /// `logstate` of each agent at the last load.
    logstates: BTreeMap<Box<str>, bool>,
    current: Arc<Provisioning>,
    /// What [`Registry::commit`] has still to do, in order.
    steps: VecDeque<Step>,
}

#[derive(Debug)]
enum Step {
    Retire(AgentRef),
    Update(Arc<AgentDef>),
    Login(AgentRef),
    Logout(AgentRef),
}

/// What is wrong with the rows by themselves, without loading them.
#[must_use]
pub fn check(rows: &Rows) -> Vec<RowFault> {
    let mut faults = vec![];
    rows::check(rows, &mut faults);
    faults
}

impl Registry {
    /// Nothing provisioned. `handle` is one of the control plane's.
    #[must_use]
    pub fn new(handle: Handle, limits: RegistryLimits) -> Registry {
        Registry {
            handle,
            limits,
            skills: BTreeMap::new(),
            flow_indexes: BTreeMap::new(),
            logstates: BTreeMap::new(),
            current: Arc::new(Provisioning::default()),
            steps: VecDeque::new(),
        }
    }

    /// What was loaded last.
    #[must_use]
    pub fn current(&self) -> &Arc<Provisioning> {
        &self.current
    }

    /// The agent of that id.
    #[must_use]
    pub fn agent(&self, id: &str) -> Option<AgentRef> {
        self.current.agents_by_id.get(id).copied()
    }

    /// First phase: the new provisioning, for the shards, and what is wrong with the rows that it lacks.
    pub fn load(&mut self, rows: &Rows) -> (Arc<Provisioning>, Vec<RowFault>) {
        let mut faults = vec![];
        let (flows, agents) = rows::check(rows, &mut faults);
        let mut next = Provisioning { version: self.current.version + 1, ..Provisioning::default() };
        for flow in flows {
            match self.flow(flow) {
                Ok(def) => drop(next.flows.insert(def.flowid.clone(), Arc::new(def))),
                Err(fault) => faults.push(fault),
            }
        }
        let mut logstates = BTreeMap::new();
        let mut late = VecDeque::new();
        for agent in agents {
            match self.agent_def(&agent, &mut late) {
                Ok(def) => {
                    next.agents_by_id.insert(def.agentid.clone(), def.agent);
                    logstates.insert(def.agentid.clone(), agent.logstate);
                    place(&mut next.agents, def);
                }
                Err(fault) => faults.push(fault),
            }
        }
        // Those that go are known as long as they live: until they are retired they can still be matched, afterwards they
        // serve their last calls.
        let lives = |def: &&Arc<AgentDef>| self.handle.dispatch().agent(def.agent).is_some();
        for def in self.current.agents.iter().flatten().filter(lives) {
            if next.agent(def.agent).is_none() {
                place(&mut next.agents, Arc::clone(def));
            }
        }
        let gone = self.current.agents_by_id.iter().filter(|(id, _)| !next.agents_by_id.contains_key(*id));
        self.steps.extend(gone.map(|(_, agent)| Step::Retire(*agent)));
        self.steps.append(&mut late);
        self.logstates = logstates;
        self.current = Arc::new(next);
        (Arc::clone(&self.current), faults)
    }

    /// Second phase: carries out at most `most` changes; `out` gets the matches that they make. True while more is to
    /// be done.
    pub fn commit(&mut self, most: usize, out: &mut Vec<Match>) -> bool {
        for _ in 0..most {
            let Some(step) = self.steps.pop_front() else { break };
            match step {
                Step::Retire(agent) => self.handle.retire_agent(agent),
                Step::Update(def) => drop(self.handle.update_agent(def.agent, spec(&def), out)),
                Step::Login(agent) => drop(self.handle.login(agent, out)),
                Step::Logout(agent) => drop(self.handle.logout(agent)),
            }
            self.handle.take_late(out);
        }
        if self.steps.is_empty() {
            self.handle.collect();
        }
        !self.steps.is_empty()
    }

    fn flow(&mut self, f: rows::Flow) -> Result<FlowDef, RowFault> {
        let fault = |column, what: &str, fix| RowFault {
            table: Table::Flows,
            row: f.flowid.to_string(),
            column,
            what: what.to_owned(),
            fix,
        };
        let skill = self.skill(&f.skill).ok_or_else(|| fault("skill", "no room for another skill", MORE_SKILLS))?;
        let used = u32::try_from(self.flow_indexes.len()).unwrap_or(u32::MAX);
        let idx = match self.flow_indexes.get(&f.flowid) {
            Some(idx) => *idx,
            None if used < self.limits.flows => used,
            None => return Err(fault("flowid", "no room for another flow", "raise [shards] max_flows and start anew")),
        };
        self.flow_indexes.insert(f.flowid.clone(), idx);
        Ok(FlowDef {
            idx,
            flowid: f.flowid,
            priority: f.priority,
            skill,
            skill_name: f.skill,
            prependcid: f.prependcid,
            max_wrapup_s: f.max_wrapup_s,
            dissuading_hangup: f.dissuading_hangup,
            dissuading_onhold_th: f.dissuading_onhold_th,
            dissuading_ewt_th: f.dissuading_ewt_th,
            dissuading_qsize_th: f.dissuading_qsize_th,
            message_welcome: f.message_welcome,
            message_queue: f.message_queue,
            message_dissuading: f.message_dissuading,
            message_flow_id: f.message_flow_id,
            agent_offer: None,
        })
    }

    /// The agent's definition: under its old reference, or a new one. Notes what the commit has to do.
    fn agent_def(&mut self, a: &rows::Agent, steps: &mut VecDeque<Step>) -> Result<Arc<AgentDef>, RowFault> {
        let fault = |column, what: String, fix| RowFault {
            table: Table::Agents,
            row: a.agentid.to_string(),
            column,
            what,
            fix,
        };
        let skills: Option<Vec<SkillId>> = a.skills.iter().map(|s| self.skill(s)).collect();
        let skills = skills.ok_or_else(|| fault("skills", "no room for another skill".to_owned(), MORE_SKILLS))?;
        let known = self.agent(&a.agentid);
        let mut def = AgentDef {
            agent: known.unwrap_or(AgentRef { slot: 0, gen_: 0 }),
            agentid: a.agentid.clone(),
            location: a.location.clone(),
            msrp_location: a.msrp_location.clone(),
            msrp_max_sessions: a.msrp_max_sessions,
            skills,
            wrapup_s: a.wrapup_s,
        };
        let Some(agent) = known else {
            let serving = self.current.agents.iter().flatten().find(|d| d.agentid == def.agentid).map(|d| d.agent);
            def.agent = match serving.filter(|agent| self.handle.revive_agent(*agent, spec(&def))) {
                Some(agent) => agent,
                None => self
                    .handle
                    .add_agent(spec(&def))
                    .map_err(|full| fault("agentid", full.to_string(), "raise [shards] max_agents and start anew"))?,
            };
            if a.logstate {
                steps.push_back(Step::Login(def.agent));
            }
            return Ok(Arc::new(def));
        };
        let def = match self.current.agent(agent) {
            Some(old) if **old == def => Arc::clone(old),
            _ => {
                let def = Arc::new(def);
                steps.push_back(Step::Update(Arc::clone(&def)));
                def
            }
        };
        if self.logstates.get(&a.agentid) != Some(&a.logstate) {
            steps.push_back(if a.logstate { Step::Login(agent) } else { Step::Logout(agent) });
        }
        Ok(def)
    }

    /// The id of a skill, a new one for a new name; `None` at the limit.
    fn skill(&mut self, name: &str) -> Option<SkillId> {
        if let Some(id) = self.skills.get(name) {
            return Some(*id);
        }
        let id = u32::try_from(self.skills.len()).ok().filter(|n| *n < self.limits.skills)?;
        self.skills.insert(name.into(), SkillId(id));
        Some(SkillId(id))
    }
}

const MORE_SKILLS: &str = "raise [shards] max_skills and start anew";

fn place(agents: &mut Vec<Option<Arc<AgentDef>>>, def: Arc<AgentDef>) {
    let slot = def.agent.slot as usize;
    if agents.len() <= slot {
        agents.resize(slot + 1, None);
    }
    agents[slot] = Some(def);
}

fn spec(def: &AgentDef) -> AgentSpec<'_> {
    AgentSpec {
        skills: &def.skills,
        audio: def.location.is_some(),
        chat_slots: if def.msrp_location.is_some() { def.msrp_max_sessions } else { 0 },
    }
}

#[cfg(test)]
mod tests;
