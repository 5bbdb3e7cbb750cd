//! Every statistic of both manuals by its name: what it reads, both separators, what a reset leaves.

use super::*;
use strowger_dispatch::{ChatPolicy, Limits};
use strowger_engine::registry::{AgentRow, FlowRow, Registry, RegistryLimits, Rows};

/// (name, value, whether it counts up) of the scene below. An id stands for itself.
const FLOW: [(&str, i64, bool); 14] = [
    ("ccf_incalls", 11, true),
    ("ccf_dist_incalls", 12, true),
    ("ccf_answ_incalls", 13, true),
    ("ccf_answ_inchats", 14, true),
    ("ccf_aban_incalls", 15, true),
    ("ccf_onhold_incalls", 16, true),
    ("ccf_onhold_calls", 17, false),
    ("ccf_onhold_chats", 18, false),
    ("ccf_queued_calls", 19, false),
    ("ccf_free_agents", 2, false),
    ("ccf_etw", 95, false),
    ("ccf_awt", 21, false),
    ("ccf_load", 850, false),
    ("ccg_load", 850, false),
];
const AGENT: [(&str, i64, bool); 5] = [
    ("cca_dist_incalls", 31, true),
    ("cca_answ_incalls", 32, true),
    ("cca_answ_inchats", 33, true),
    ("cca_aban_incalls", 34, true),
    ("cca_att", 35, false),
];
/// Over the flow above and another with 100 of each.
const GLOBAL: [(&str, i64, bool); 10] = [
    ("ccg_incalls", 111, true),
    ("ccg_distributed_incalls", 112, true),
    ("ccg_answered_incalls", 113, true),
    ("ccg_answered_inchats", 114, true),
    ("ccg_abandonned_incalls", 115, true),
    ("ccg_onhold_calls", 117, false),
    ("ccg_onhold_chats", 118, false),
    ("ccg_free_agents", 3, false),
    ("ccg_awt", 14, false),
    ("ccg_load", 3900, false),
];

/// Flow `sales` with agents ann and bob, flow `help` with carl, all logged in and free.
fn scene() -> (Statistics, Arc<Provisioning>) {
    let limits = Limits { shards: 1, agents: 8, waiting_per_shard: 8, skills: 4 };
    let dispatch = Arc::new(Dispatch::new(limits, ChatPolicy::Balancing));
    let mut registry = Registry::new(dispatch.handle(1), RegistryLimits { flows: 4, skills: 4 });
    let text = |t: &str| Some(t.to_owned());
    let flow = |id: &str, skill: &str| FlowRow {
        flowid: text(id),
        skill: text(skill),
        message_queue: text("sip:m@h"),
        ..FlowRow::default()
    };
    let agent = |id: &str, skill: &str| AgentRow {
        agentid: text(id),
        location: text("sip:a@h"),
        skills: text(skill),
        logstate: Some(1),
        ..AgentRow::default()
    };
    let flows = vec![flow("sales", "sell"), flow("help", "help")];
    let agents = vec![agent("ann", "sell"), agent("bob", "sell"), agent("carl", "help")];
    assert!(registry.load(&Rows { flows, agents }).1.is_empty());
    while registry.commit(8, &mut vec![]) {}
    let p = Arc::clone(registry.current());
    let statistics = Statistics::new(Arc::new(StatsHub::new(1, 4, 8)), dispatch);
    statistics.note(&p);
    count(&statistics, &p);
    (statistics, p)
}

fn count(statistics: &Statistics, p: &Provisioning) {
    let shard = statistics.hub().shard(0);
    let f = shard.flows.at(p.flow("sales").unwrap().idx);
    let counts = [&f.incalls, &f.distributed, &f.answered, &f.answered_chats, &f.abandoned, &f.onhold_total];
    for (count, n) in counts.into_iter().chain([&f.onhold, &f.onhold_chats, &f.queued]).zip(11..) {
        count.add(n);
    }
    for (count, n) in [(&f.processed, 2), (&f.talk_us, 20_000_000), (&f.waited, 2), (&f.wait_us, 42_000_000)] {
        count.add(n);
    }
    let f = shard.flows.at(p.flow("help").unwrap().idx);
    for count in [&f.incalls, &f.distributed, &f.answered, &f.answered_chats, &f.abandoned, &f.onhold, &f.onhold_chats]
    {
        count.add(100);
    }
    f.waited.add(1);
    let a = shard.agents.at(p.agents_by_id["ann"].slot);
    for (count, n) in [&a.distributed, &a.answered, &a.answered_chats, &a.abandoned].into_iter().zip(31..) {
        count.add(n);
    }
    a.processed.add(2);
    a.talk_us.add(70_000_000);
}

fn names(after_reset: bool) -> impl Iterator<Item = (String, i64)> {
    let own = |id: &'static str| {
        move |(name, value, counts): (&str, i64, bool)| {
            ["-", "_"].map(|by| (format!("{name}{by}{id}"), if counts && after_reset { 0 } else { value }))
        }
    };
    let global =
        GLOBAL.into_iter().map(move |(n, v, counts)| (n.to_owned(), if counts && after_reset { 0 } else { v }));
    FLOW.into_iter().flat_map(own("sales")).chain(AGENT.into_iter().flat_map(own("ann"))).chain(global)
}

#[test]
fn each_statistic_of_the_manuals_reads_what_they_say_under_each_of_its_names() {
    let (statistics, p) = scene();
    for (name, value) in names(false) {
        assert_eq!(statistics.get(&p, &name), Some(value), "{name}");
    }
}

#[test]
fn a_reset_sets_the_counters_to_0_and_leaves_gauges_and_averages() {
    let (statistics, p) = scene();
    statistics.reset(&p);
    for (name, value) in names(true) {
        assert_eq!(statistics.get(&p, &name), Some(value), "{name}");
    }
}
