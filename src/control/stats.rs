//! Statistics of `call_center` (spec: call-center.md "Statistics"): one table of names, read over all shards.
//!
//! Counters are reset by subtraction: a baseline is kept here and the shards count on. An agent's baseline is taken
//! when its slot is given to it, so that it does not inherit what the slot's last agent did.

mod kept;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use strowger_dispatch::{AgentRef, Dispatch};
use strowger_engine::stats::{AgentCounts, FlowCounts, StatsHub};
use strowger_engine::{AgentDef, FlowDef, Provisioning};

/// The group's name.
pub const GROUP: &str = "call_center";

const FLOW_COUNTERS: usize = 6;
const AGENT_COUNTERS: usize = 6;

/// Where a value comes from.
#[derive(Clone, Copy)]
enum FlowStat {
    /// Index of a counter.
    Counter(usize),
    Gauge(fn(&FlowCounts) -> i64),
    FreeAgents,
    Etw,
    Awt,
    Load,
}

#[derive(Clone, Copy)]
enum AgentStat {
    Counter(usize),
    Att,
}

#[derive(Clone, Copy)]
enum GlobalStat {
    Counter(usize),
    Gauge(fn(&FlowCounts) -> i64),
    Awt,
    Load,
    FreeAgents,
}

/// In the order of the reference's answers.
const PER_FLOW: [(&str, FlowStat); 12] = [
    ("ccf_incalls", FlowStat::Counter(0)),
    ("ccf_dist_incalls", FlowStat::Counter(1)),
    ("ccf_answ_incalls", FlowStat::Counter(2)),
    ("ccf_answ_inchats", FlowStat::Counter(3)),
    ("ccf_aban_incalls", FlowStat::Counter(4)),
    ("ccf_onhold_calls", FlowStat::Gauge(|f| f.onhold.get())),
    ("ccf_onhold_chats", FlowStat::Gauge(|f| f.onhold_chats.get())),
    ("ccf_queued_calls", FlowStat::Gauge(|f| f.queued.get())),
    ("ccf_etw", FlowStat::Etw),
    ("ccf_awt", FlowStat::Awt),
    ("ccf_load", FlowStat::Load),
    ("ccf_free_agents", FlowStat::FreeAgents),
];

/// Names of the old manual: answered when asked for, not listed.
const OLD_PER_FLOW: [(&str, FlowStat); 2] =
    [("ccf_onhold_incalls", FlowStat::Counter(5)), ("ccg_load", FlowStat::Load)];

const PER_AGENT: [(&str, AgentStat); 5] = [
    ("cca_dist_incalls", AgentStat::Counter(0)),
    ("cca_answ_incalls", AgentStat::Counter(1)),
    ("cca_answ_inchats", AgentStat::Counter(2)),
    ("cca_aban_incalls", AgentStat::Counter(3)),
    ("cca_att", AgentStat::Att),
];

const GLOBAL: [(&str, GlobalStat); 10] = [
    ("ccg_incalls", GlobalStat::Counter(0)),
    ("ccg_awt", GlobalStat::Awt),
    ("ccg_load", GlobalStat::Load),
    ("ccg_distributed_incalls", GlobalStat::Counter(1)),
    ("ccg_answered_incalls", GlobalStat::Counter(2)),
    ("ccg_answered_inchats", GlobalStat::Counter(3)),
    ("ccg_abandonned_incalls", GlobalStat::Counter(4)),
    ("ccg_onhold_calls", GlobalStat::Gauge(|f| f.onhold.get())),
    ("ccg_onhold_chats", GlobalStat::Gauge(|f| f.onhold_chats.get())),
    ("ccg_free_agents", GlobalStat::FreeAgents),
];

const COUNTERS: [fn(&FlowCounts) -> i64; FLOW_COUNTERS] = [
    |f| f.incalls.get(),
    |f| f.distributed.get(),
    |f| f.answered.get(),
    |f| f.answered_chats.get(),
    |f| f.abandoned.get(),
    |f| f.onhold_total.get(),
];

/// The last two are the sums behind the average.
const AGENT_READS: [fn(&AgentCounts) -> i64; AGENT_COUNTERS] = [
    |a| a.distributed.get(),
    |a| a.answered.get(),
    |a| a.answered_chats.get(),
    |a| a.abandoned.get(),
    |a| a.processed.get(),
    |a| a.talk_us.get(),
];

#[derive(Debug, Default)]
struct Baseline {
    /// Indexes that flows have had, gone ones too: the global counts go over all.
    indexes: u32,
    flows: HashMap<u32, [i64; FLOW_COUNTERS]>,
    /// Of the counters over all flows.
    global: [i64; FLOW_COUNTERS],
    agents: HashMap<AgentRef, [i64; AGENT_COUNTERS]>,
}

/// Reads the shards' counters.
#[derive(Debug)]
pub struct Statistics {
    hub: Arc<StatsHub>,
    dispatch: Arc<Dispatch>,
    baseline: Mutex<Baseline>,
    file: Mutex<kept::File>,
    resets: AtomicU64,
}

/// A statistic that a name stands for.
enum Named<'p> {
    Flow(&'p FlowDef, FlowStat),
    Agent(&'p AgentDef, AgentStat),
    Global(GlobalStat),
}

impl Statistics {
    /// Over these counters and this agent table.
    #[must_use]
    pub fn new(hub: Arc<StatsHub>, dispatch: Arc<Dispatch>) -> Statistics {
        Statistics { hub, dispatch, baseline: Mutex::default(), file: Mutex::default(), resets: AtomicU64::new(0) }
    }

    /// The shards' counters.
    #[must_use]
    pub fn hub(&self) -> &StatsHub {
        &self.hub
    }

    /// Call it with new provisioning before the shards have it: new agents begin at 0, gone ones are forgotten.
    pub fn note(&self, p: &Provisioning) {
        let mut base = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        base.indexes = p.flows.values().map(|f| f.idx + 1).fold(base.indexes, u32::max);
        base.agents.retain(|agent, _| p.agent(*agent).is_some());
        for def in p.agents.iter().flatten() {
            base.agents.entry(def.agent).or_insert_with(|| AGENT_READS.map(|r| self.hub.agent(def.agent.slot, r)));
        }
        drop(base);
        self.save(p);
    }

    /// `cc_reset_stats`: counters begin at 0 again; gauges and averages go on.
    pub fn reset(&self, p: &Provisioning) {
        let mut base = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        base.global = [0; FLOW_COUNTERS];
        for idx in 0..base.indexes {
            let now = COUNTERS.map(|r| self.hub.flow(idx, r));
            base.global.iter_mut().zip(now).for_each(|(sum, n)| *sum += n);
            base.flows.insert(idx, now);
        }
        for def in p.agents.iter().flatten() {
            let sums = base.agents.entry(def.agent).or_default();
            for (sum, read) in sums.iter_mut().zip(AGENT_READS).take(4) {
                *sum = self.hub.agent(def.agent.slot, read);
            }
        }
        drop(base);
        self.save(p);
        self.resets.fetch_add(1, Relaxed);
    }

    /// `reset_statistics`: one counter begins at 0 again; a gauge or an average goes on. False: no such statistic.
    pub fn reset_one(&self, p: &Provisioning, name: &str) -> bool {
        let Some(named) = Self::find(p, name) else { return false };
        let mut base = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        match named {
            Named::Flow(flow, FlowStat::Counter(i)) => {
                base.flows.entry(flow.idx).or_default()[i] = self.hub.flow(flow.idx, COUNTERS[i]);
            }
            Named::Agent(def, AgentStat::Counter(i)) => {
                base.agents.entry(def.agent).or_default()[i] = self.hub.agent(def.agent.slot, AGENT_READS[i]);
            }
            Named::Global(GlobalStat::Counter(i)) => base.global[i] = self.counted(base.indexes, i),
            _ => {}
        }
        drop(base);
        self.save(p);
        self.resets.fetch_add(1, Relaxed);
        true
    }

    /// How often counters have been reset.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.resets.load(Relaxed)
    }

    /// Every statistic, by its name.
    #[must_use]
    pub fn all(&self, p: &Provisioning) -> Vec<(String, i64)> {
        let mut out =
            Vec::with_capacity(p.flows.len() * PER_FLOW.len() + p.agents_by_id.len() * PER_AGENT.len() + GLOBAL.len());
        for flow in p.flows.values() {
            out.extend(
                PER_FLOW.iter().map(|(name, stat)| (format!("{name}-{}", flow.flowid), self.of_flow(flow, *stat))),
            );
        }
        for def in p.agents_by_id.values().filter_map(|a| p.agent(*a)) {
            out.extend(
                PER_AGENT.iter().map(|(name, stat)| (format!("{name}-{}", def.agentid), self.of_agent(def, *stat))),
            );
        }
        out.extend(GLOBAL.iter().map(|(name, stat)| ((*name).to_owned(), self.of_all(*stat))));
        out
    }

    /// A flow's statistics, the old manual's counter with them.
    #[must_use]
    pub fn flow_values(&self, flow: &FlowDef) -> Vec<(&'static str, i64)> {
        PER_FLOW.iter().chain(&OLD_PER_FLOW[..1]).map(|(name, stat)| (*name, self.of_flow(flow, *stat))).collect()
    }

    /// An agent's statistics.
    #[must_use]
    pub fn agent_values(&self, def: &AgentDef) -> Vec<(&'static str, i64)> {
        PER_AGENT.iter().map(|(name, stat)| (*name, self.of_agent(def, *stat))).collect()
    }

    /// The statistics over all.
    #[must_use]
    pub fn global_values(&self) -> Vec<(&'static str, i64)> {
        GLOBAL.iter().map(|(name, stat)| (*name, self.of_all(*stat))).collect()
    }

    /// The names without ids (per flow, per agent, over all), and whether each is a counter.
    #[cfg(test)]
    pub(super) fn families() -> [Vec<(&'static str, bool)>; 3] {
        [
            PER_FLOW.iter().map(|(n, s)| (*n, matches!(s, FlowStat::Counter(_)))).collect(),
            PER_AGENT.iter().map(|(n, s)| (*n, matches!(s, AgentStat::Counter(_)))).collect(),
            GLOBAL.iter().map(|(n, s)| (*n, matches!(s, GlobalStat::Counter(_)))).collect(),
        ]
    }

    /// Every name, and whether it is a counter (against a gauge or an average).
    #[must_use]
    pub fn names(p: &Provisioning) -> Vec<(String, bool)> {
        let mut out = vec![];
        for id in p.flows.keys() {
            out.extend(PER_FLOW.iter().map(|(n, s)| (format!("{n}-{id}"), matches!(s, FlowStat::Counter(_)))));
        }
        for id in p.agents_by_id.keys() {
            out.extend(PER_AGENT.iter().map(|(n, s)| (format!("{n}-{id}"), matches!(s, AgentStat::Counter(_)))));
        }
        out.extend(GLOBAL.iter().map(|(n, s)| ((*n).to_owned(), matches!(s, GlobalStat::Counter(_)))));
        out
    }

    /// One statistic by a name of either manual, `-` or `_` before the id.
    #[must_use]
    pub fn get(&self, p: &Provisioning, name: &str) -> Option<i64> {
        Some(match Self::find(p, name)? {
            Named::Flow(flow, stat) => self.of_flow(flow, stat),
            Named::Agent(def, stat) => self.of_agent(def, stat),
            Named::Global(stat) => self.of_all(stat),
        })
    }

    fn find<'p>(p: &'p Provisioning, name: &str) -> Option<Named<'p>> {
        if let Some((_, stat)) = GLOBAL.iter().find(|(n, _)| *n == name) {
            return Some(Named::Global(*stat));
        }
        let id = |prefix: &str| name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(['-', '_']));
        for (prefix, stat) in PER_FLOW.iter().chain(&OLD_PER_FLOW) {
            if let Some(flow) = id(prefix).and_then(|id| p.flow(id)) {
                return Some(Named::Flow(flow, *stat));
            }
        }
        for (prefix, stat) in &PER_AGENT {
            let agent = id(prefix).and_then(|id| p.agents_by_id.get(id)).and_then(|a| p.agent(*a));
            if let Some(def) = agent {
                return Some(Named::Agent(def, *stat));
            }
        }
        None
    }

    /// Mean talk of a flow's processed calls, whole seconds.
    #[must_use]
    pub fn average_call(&self, flow: u32) -> i64 {
        mean_seconds(self.hub.flow(flow, |f| f.talk_us.get()), self.hub.flow(flow, |f| f.processed.get()))
    }

    /// Estimated wait behind `ahead` calls of the flow, seconds.
    #[must_use]
    pub fn wait_behind(&self, flow: &FlowDef, ahead: i64) -> i64 {
        self.hub.estimated_wait_s(flow.idx, ahead, self.dispatch.logged_in(flow.skill))
    }

    /// The same of the call that waits last in that flow's queue, seconds.
    #[must_use]
    pub fn wait_of_last(&self, flow: &FlowDef) -> u64 {
        let queued = self.hub.flow(flow.idx, |f| f.queued.get());
        u64::try_from(self.wait_behind(flow, (queued - 1).max(0))).unwrap_or(0)
    }

    fn of_flow(&self, flow: &FlowDef, stat: FlowStat) -> i64 {
        match stat {
            FlowStat::Counter(i) => self.flow_counter(flow.idx, i),
            FlowStat::Gauge(read) => self.hub.flow(flow.idx, read),
            FlowStat::FreeAgents => i64::from(self.dispatch.free(flow.skill)),
            FlowStat::Etw => self.wait_behind(flow, self.hub.flow(flow.idx, |f| f.queued.get())),
            FlowStat::Awt => {
                mean_seconds(self.hub.flow(flow.idx, |f| f.wait_us.get()), self.hub.flow(flow.idx, |f| f.waited.get()))
            }
            FlowStat::Load => {
                let (logged, free) = (self.dispatch.logged_in(flow.skill), self.dispatch.free(flow.skill));
                load(self.hub.flow(flow.idx, |f| f.onhold.get()), logged, free)
            }
        }
    }

    fn flow_counter(&self, idx: u32, i: usize) -> i64 {
        let mut base = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = self.hub.flow(idx, COUNTERS[i]);
        base.flows.get_mut(&idx).map_or(counted, |b| since(counted, &mut b[i]))
    }

    /// A counter over all flows that ever were.
    fn counted(&self, indexes: u32, i: usize) -> i64 {
        (0..indexes).map(|idx| self.hub.flow(idx, COUNTERS[i])).sum()
    }

    fn of_agent(&self, def: &AgentDef, stat: AgentStat) -> i64 {
        let mut base = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        let base = base.agents.entry(def.agent).or_default();
        let mut counted = |i: usize| since(self.hub.agent(def.agent.slot, AGENT_READS[i]), &mut base[i]);
        match stat {
            AgentStat::Counter(i) => counted(i),
            AgentStat::Att => mean_seconds(counted(5), counted(4)),
        }
    }

    fn of_all(&self, stat: GlobalStat) -> i64 {
        let indexes = self.baseline.lock().unwrap_or_else(PoisonError::into_inner).indexes;
        let sum = |read: fn(&FlowCounts) -> i64| (0..indexes).map(|i| self.hub.flow(i, read)).sum::<i64>();
        match stat {
            GlobalStat::Counter(i) => {
                let counted = self.counted(indexes, i);
                let mut base = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
                since(counted, &mut base.global[i])
            }
            GlobalStat::Gauge(read) => sum(read),
            GlobalStat::Awt => mean_seconds(sum(|c| c.wait_us.get()), sum(|c| c.waited.get())),
            GlobalStat::Load => {
                load(sum(|c| c.onhold.get()), self.dispatch.logged_in_total(), self.dispatch.free_total())
            }
            GlobalStat::FreeAgents => i64::from(self.dispatch.free_total()),
        }
    }
}

/// What was counted since a reset. An answer that is taken back as a refusal after it goes with the base, lest the
/// counter fall below 0.
fn since(counted: i64, base: &mut i64) -> i64 {
    *base = counted.min(*base);
    counted - *base
}

fn load(onhold: i64, logged_in: u32, free: u32) -> i64 {
    if logged_in == 0 { 0 } else { 100 * (onhold + i64::from(logged_in) - i64::from(free)) / i64::from(logged_in) }
}

/// Half rounded up.
fn mean_seconds(us: i64, n: i64) -> i64 {
    if n <= 0 { 0 } else { (us / n + 500_000) / 1_000_000 }
}

#[cfg(test)]
mod tests;
