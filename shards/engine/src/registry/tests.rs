//! Faults of rows, the two phases, and any sequence of loads and logins against a plain model.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use strowger_dispatch::{AgentState, ChatPolicy, Dispatch, Limits, Media, WaitSpec};

fn dispatch() -> Arc<Dispatch> {
    Arc::new(Dispatch::new(Limits { shards: 1, agents: 64, waiting_per_shard: 64, skills: 8 }, ChatPolicy::Balancing))
}

fn registry(d: &Arc<Dispatch>) -> Registry {
    Registry::new(d.handle(1), RegistryLimits { flows: 4, skills: 8 })
}

fn flow(id: &str, skill: &str) -> FlowRow {
    FlowRow {
        flowid: Some(id.to_owned()),
        skill: Some(skill.to_owned()),
        message_queue: Some("sip:music@127.0.0.1".to_owned()),
        ..FlowRow::default()
    }
}

fn agent(id: &str, skills: &str, logstate: i64) -> AgentRow {
    AgentRow {
        agentid: Some(id.to_owned()),
        location: Some(format!("sip:{id}@127.0.0.1:5070")),
        skills: Some(skills.to_owned()),
        logstate: Some(logstate),
        ..AgentRow::default()
    }
}

fn load(r: &mut Registry, flows: &[FlowRow], agents: &[AgentRow]) -> Vec<String> {
    let (_, faults) = r.load(&Rows { flows: flows.to_vec(), agents: agents.to_vec() });
    while r.commit(1, &mut vec![]) {}
    faults.iter().map(RowFault::to_string).collect()
}

#[test]
fn each_bad_row_is_a_fault_that_names_it_and_the_rest_loads() {
    let d = dispatch();
    let mut r = registry(&d);
    let flows = [
        flow("good", "en"),
        FlowRow { flowid: None, ..flow("", "en") },
        flow("good", "fr"),
        FlowRow { skill: Some(" ".to_owned()), ..flow("noskill", "") },
        FlowRow { message_queue: None, ..flow("silent", "en") },
        FlowRow { message_welcome: Some("tel:+123".to_owned()), ..flow("phone", "en") },
        FlowRow { priority: Some(-1), ..flow("minus", "en") },
    ];
    let agents = [
        agent("ann", " en , fr,,en", 1),
        AgentRow { location: None, ..agent("nowhere", "en", 1) },
        AgentRow { location: Some("ann".to_owned()), ..agent("bad", "en", 1) },
        AgentRow { location: Some("sip:a@h\r\nX: y".to_owned()), ..agent("split", "en", 1) },
        AgentRow { location: Some("sip:a@h;transport=TCP".to_owned()), ..agent("stream", "en", 1) },
        AgentRow { location: Some("sips:a@h".to_owned()), ..agent("secure", "en", 1) },
        AgentRow { location: Some("sip:a@h:0".to_owned()), ..agent("zero", "en", 1) },
        AgentRow { msrp_max_sessions: Some(300), ..agent("chatty", "en", 1) },
        AgentRow { agentid: Some(String::new()), ..agent("", "en", 1) },
        AgentRow { wrapup_time: Some(-5), ..agent("early", "en", 1) },
    ];
    assert_eq!(
        load(&mut r, &flows, &agents),
        [
            "cc_flows `#2`: flowid: is empty; give the row an id",
            "cc_flows `good`: flowid: is there twice; keep one of the rows; the first was taken",
            "cc_flows `noskill`: skill: is empty; name the skill that the flow's calls require",
            "cc_flows `silent`: message_queue: is empty; set it to the SIP URI of the queue's music",
            "cc_flows `phone`: message_welcome: `tel:+123` is not a SIP URI; write sip:USER@HOST[:PORT]",
            "cc_flows `minus`: priority: -1 is out of range; use 0 to 4294967295",
            "cc_agents `nowhere`: location: is empty, and so is msrp_location; set one of them to the agent's SIP URI",
            "cc_agents `bad`: location: `ann` is not a SIP URI; write sip:USER@HOST[:PORT]",
            "cc_agents `split`: location: `sip:a@h\\r\\nX: y` is not a SIP URI; write sip:USER@HOST[:PORT]",
            "cc_agents `stream`: location: `sip:a@h;transport=TCP` needs another transport than UDP, which this build does not speak; write sip:USER@HOST[:PORT] without a transport",
            "cc_agents `secure`: location: `sips:a@h` needs another transport than UDP, which this build does not speak; write sip:USER@HOST[:PORT] without a transport",
            "cc_agents `zero`: location: `sip:a@h:0` is not a SIP URI; write sip:USER@HOST[:PORT]",
            "cc_agents `chatty`: msrp_max_sessions: is out of range; use 1 to 255",
            "cc_agents `#9`: agentid: is empty; give the row an id",
            "cc_agents `early`: wrapup_time: -5 is out of range; use 0 to 4294967295",
        ]
    );
    let p = Arc::clone(r.current());
    assert_eq!(p.flows.keys().map(|k| &**k).collect::<Vec<_>>(), ["good"]);
    let good = p.flow("good").unwrap();
    assert_eq!((good.priority, &*good.skill_name), (256, "en"));
    let ann = p.agent(r.agent("ann").unwrap()).unwrap();
    assert_eq!((ann.skills.len(), ann.msrp_max_sessions), (2, 4));
    assert!(d.agent(ann.agent).unwrap().logged_in);
}

#[test]
fn limits_are_faults_of_the_rows_beyond_them() {
    let d = dispatch();
    let mut r = registry(&d);
    let flows: Vec<FlowRow> = (0..5).map(|i| flow(&format!("f{i}"), "en")).collect();
    assert_eq!(
        load(&mut r, &flows, &[agent("a", "1,2,3,4,5,6,7,8", 0)]),
        [
            "cc_flows `f4`: flowid: no room for another flow; raise [shards] max_flows and start anew",
            "cc_agents `a`: skills: no room for another skill; raise [shards] max_skills and start anew",
        ]
    );
    let agents: Vec<AgentRow> = (0..65).map(|i| agent(&format!("a{i}"), "en", 0)).collect();
    let faults = load(&mut r, &flows[..1], &agents);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("cc_agents `a64`: agentid: agent table is full"), "{faults:?}");
}

#[test]
fn nothing_matches_before_the_commit_and_all_of_it_after() {
    let d = dispatch();
    let mut shard = d.handle(0);
    let mut r = registry(&d);
    load(&mut r, &[flow("f", "en")], &[]);
    let skill = r.current().flow("f").unwrap().skill;
    let mut out = vec![];
    for ticket in 0..3 {
        let spec = WaitSpec { media: Media::Audio, skill, priority: 0, ticket, refused: &[] };
        shard.wait(spec, &mut out).unwrap();
    }
    let (p, faults) =
        r.load(&Rows { flows: vec![flow("f", "en")], agents: vec![agent("a", "en", 1), agent("b", "en", 1)] });
    assert!(faults.is_empty() && out.is_empty());
    assert_eq!(d.logged_in(skill), 0, "agents are offline until the shards know them");
    assert!(r.commit(1, &mut out), "a slice is one change");
    assert!(!r.commit(1, &mut out));
    assert_eq!(out.len(), 2, "both new agents got a waiting call");
    assert!(out.iter().all(|m| p.agent(m.agent).is_some()));
}

#[test]
fn an_agent_keeps_its_login_over_loads_until_the_table_says_otherwise() {
    let d = dispatch();
    let mut r = registry(&d);
    let mut op = d.handle(1);
    let on = |d: &Dispatch, r: &Registry| d.agent(r.agent("a").unwrap()).unwrap().logged_in;
    load(&mut r, &[], &[agent("a", "en", 1)]);
    op.logout(r.agent("a").unwrap());
    load(&mut r, &[], &[agent("a", "en,fr", 1)]);
    assert!(!on(&d, &r), "logged out by hand, and the row says what it said");
    load(&mut r, &[], &[agent("a", "en", 0)]);
    op.login(r.agent("a").unwrap(), &mut vec![]);
    load(&mut r, &[], &[agent("a", "en", 0)]);
    assert!(on(&d, &r));
    load(&mut r, &[], &[agent("a", "en", 1)]);
    load(&mut r, &[], &[agent("a", "en", 0)]);
    assert!(!on(&d, &r), "the row was changed");
}

#[derive(Debug, Clone)]
enum Act {
    /// Rows by number: flows (skill), agents (skills as bits, logstate).
    Load(BTreeMap<u8, u8>, BTreeMap<u8, (u8, bool)>),
    Login(u8, bool),
}

fn act() -> impl Strategy<Value = Act> {
    let flows = prop::collection::btree_map(0u8..4, 0u8..4, 0..4);
    let agents = prop::collection::btree_map(0u8..8, (0u8..16, any::<bool>()), 0..8);
    prop_oneof![
        3 => (flows, agents).prop_map(|(f, a)| Act::Load(f, a)),
        1 => (0u8..8, any::<bool>()).prop_map(|(a, on)| Act::Login(a, on)),
    ]
}

proptest! {
    /// The model: who stands in the last load, with which skills, and whether logged in.
    #[test]
    fn any_sequence_of_loads_agrees_with_a_plain_model(acts in prop::collection::vec(act(), 1..30)) {
        let d = dispatch();
        let mut r = registry(&d);
        let mut op = d.handle(1);
        let mut rows: BTreeMap<u8, (u8, bool)> = BTreeMap::new();
        let mut on: BTreeSet<u8> = BTreeSet::new();
        let mut indexes: BTreeMap<String, u32> = BTreeMap::new();
        let mut refs: BTreeMap<u8, AgentRef> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Login(a, state) => if let Some(agent) = r.agent(&format!("a{a}")) {
                    if state { op.login(agent, &mut vec![]); on.insert(a); } else { op.logout(agent); on.remove(&a); }
                },
                Act::Load(flows, agents) => {
                    let names = |bits: u8| (0..4).filter(|b| bits & (1 << b) != 0).map(|b| format!("s{b}")).collect::<Vec<_>>().join(",");
                    let flow_rows: Vec<FlowRow> = flows.iter().map(|(f, s)| flow(&format!("f{f}"), &format!("s{s}"))).collect();
                    let agent_rows: Vec<AgentRow> = agents.iter().map(|(a, (s, l))| agent(&format!("a{a}"), &names(*s), i64::from(*l))).collect();
                    prop_assert!(load(&mut r, &flow_rows, &agent_rows).is_empty());
                    for (a, (_, logstate)) in &agents {
                        if rows.get(a).map(|(_, l)| l) != Some(logstate) {
                            if *logstate { on.insert(*a); } else { on.remove(a); }
                        }
                    }
                    on.retain(|a| agents.contains_key(a));
                    for (a, agent) in &refs {
                        if !agents.contains_key(a) {
                            prop_assert!(d.agent(*agent).is_none_or(|v| v.retired), "a{a} is gone");
                        }
                    }
                    refs.retain(|a, _| agents.contains_key(a));
                    rows = agents;
                    prop_assert_eq!(r.current().flows.len(), flows.len());
                    for def in r.current().flows.values() {
                        prop_assert_eq!(*indexes.entry(def.flowid.to_string()).or_insert(def.idx), def.idx);
                    }
                }
            }
            prop_assert_eq!(r.current().agents_by_id.len(), rows.len());
            for a in rows.keys() {
                let agent = r.agent(&format!("a{a}")).unwrap();
                prop_assert_eq!(*refs.entry(*a).or_insert(agent), agent, "an id keeps its reference");
                let view = d.agent(agent).unwrap();
                prop_assert_eq!(view.logged_in, on.contains(a));
                prop_assert_eq!(view.state, if on.contains(a) { AgentState::Free } else { AgentState::Offline });
                prop_assert_eq!(r.current().agent(agent).map(|d| d.agentid.to_string()), Some(format!("a{a}")));
            }
            for s in 0..4u8 {
                let Some(id) = r.skills.get(format!("s{s}").as_str()) else { continue };
                let expected = rows.iter().filter(|(a, (bits, _))| bits & (1 << s) != 0 && on.contains(a)).count();
                prop_assert_eq!(d.logged_in(*id) as usize, expected);
                prop_assert_eq!(d.free(*id) as usize, expected);
            }
        }
        let distinct: BTreeSet<u32> = indexes.values().copied().collect();
        prop_assert_eq!(distinct.len(), indexes.len(), "a flow's index is its own");
    }
}

#[test]
fn an_agent_that_comes_back_during_its_last_call_is_the_same_one() {
    let d = dispatch();
    let mut r = registry(&d);
    let flows = [flow("f", "en")];
    load(&mut r, &flows, &[agent("ann", "en", 1)]);
    let ann = r.agent("ann").unwrap();
    let mut shard = d.handle(0);
    let spec = WaitSpec { media: Media::Audio, skill: SkillId(0), priority: 0, ticket: 0, refused: &[] };
    let call = shard.wait(spec, &mut vec![]).unwrap();
    assert_eq!(shard.take(call), Some(ann));
    load(&mut r, &flows, &[]);
    assert_eq!(r.agent("ann"), None);
    assert!(r.current().agent(ann).is_some(), "a match that is still on its way finds its agent's definition");
    load(&mut r, &flows, &[agent("ann", "en", 1)]);
    assert_eq!(r.agent("ann"), Some(ann), "a second ann would be offered calls while the first talks");
    assert_eq!(d.agent(ann).map(|v| (v.state, v.retired)), Some((AgentState::InCall, false)));
    shard.release(ann, strowger_dispatch::Release::Free, &mut vec![]);
    assert_eq!(d.agent(ann).map(|v| v.state), Some(AgentState::Free));
}
