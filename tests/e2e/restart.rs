//! kill -9 and a new start: what was on the wire goes on. Load generator on the other side, real processes, real UDP.
//!
//! With more calls: `STROWGER_WAITING=2000 STROWGER_TALKING=500 cargo test --release -p strowger --test e2e restart`.

use crate::server::Server;
use loadtest::{AgentPlan, Behaviour, Dist, Generator, Live, Report, Scenario};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// A server with the flow `support`, and the calls of a scenario under way.
pub struct Play {
    pub server: Server,
    live: Arc<Live>,
    run: JoinHandle<Report>,
}

fn from_env(name: &str, usual: u32) -> u32 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

pub fn agents(count: u32, ring: Duration) -> AgentPlan {
    let name = format!("ring{}-{{N}}", ring.as_millis());
    AgentPlan { name, count, behaviours: vec![(1.0, Behaviour::Answer { ring: Dist::Fixed(ring) })], chats: 0 }
}

impl Play {
    pub fn begin(scenario: Scenario, settings: &[&str]) -> Play {
        let own = ["call_center.wrapup_time=1", "call_center.reject_on_no_agents=0"];
        let server = Server::start(&[&own, settings].concat());
        let mut generator = Generator::bind(&scenario).expect("sockets");
        let (phones, music) = (generator.agent_addr(), generator.media_addr());
        let agent = |name: String| {
            format!(
                "INSERT INTO cc_agents (agentid, location, logstate, skills) VALUES ('{name}', 'sip:{name}@{phones}', 1, 'help')"
            )
        };
        let mut rows: Vec<String> = scenario.agents.iter().flat_map(AgentPlan::names).map(agent).collect();
        rows.push(format!(
            "INSERT INTO cc_flows (flowid, skill, message_queue) VALUES ('support', 'help', 'sip:music@{music}')"
        ));
        server.sql(&rows);
        server.mi("cc_reload", json!([]));
        generator.set_target(server.sip);
        let live = generator.live();
        Play { server, live, run: std::thread::spawn(move || generator.run()) }
    }

    #[track_caller]
    pub fn until(&self, what: &str, gauge: fn(&Live) -> &AtomicI64, value: i64) {
        self.server.until(what, |_| gauge(&self.live).load(Relaxed) == value);
    }

    /// Callers in the queue, in the order in which they will be served.
    pub fn queue(&self) -> Vec<String> {
        let list = self.server.mi("cc_list_queue", json!([]));
        let rows = list["Calls"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|c| c["Caller username"].as_str().expect("a name").to_owned()).collect()
    }

    /// Who talks: agents, by the list of agents.
    pub fn talking(&self) -> BTreeSet<String> {
        let list = self.server.mi("cc_list_agents", json!([]));
        let rows = list["Agents"].as_array().cloned().unwrap_or_default();
        let busy = rows.iter().filter(|a| a.get("State").and_then(Value::as_str) == Some("incall"));
        busy.map(|a| a["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// The end of it: every call was served, nobody noticed, each has its record.
    #[track_caller]
    pub fn end(self) -> (Server, Report) {
        let report = self.run.join().expect("the generator ends");
        assert!(report.balanced(), "{report}");
        let bad = report.failed + report.refused + report.double_bookings + report.agents_stuck + report.media_stuck;
        assert_eq!((report.answered, bad + report.unexpected), (report.offered, 0), "{report}");
        let rows = self.server.cdrs(usize::try_from(report.cdrs_expected).expect("a few"));
        assert!(rows.iter().all(|r| r.call_type == 0 && r.fstats == 7), "{rows:?}");
        (self.server, report)
    }
}

#[test]
fn a_killed_server_goes_on_with_every_call() {
    let (waiting, talking, ringing) = (from_env("STROWGER_WAITING", 200), from_env("STROWGER_TALKING", 500), 50);
    let (talk, calls) = (Duration::from_secs(20), waiting + talking + ringing);
    let scenario = Scenario {
        rate: 400.0,
        max_calls: Some(u64::from(calls)),
        duration: Duration::from_secs(60),
        agents: vec![agents(talking, Duration::ZERO), agents(ringing, Duration::from_secs(15))],
        talk: Dist::Fixed(talk),
        wrapup: Duration::from_secs(1),
        drain: Duration::from_secs(240),
        bridge_limit: Duration::from_secs(30),
        ..Scenario::default()
    };
    let mut play = Play::begin(scenario, &["call_center.agent_ring_timeout=60"]);
    play.until("they talk", |l| &l.talking, i64::from(talking));
    play.until("they ring", |l| &l.ringing, i64::from(ringing));
    play.server.until("they wait", |s| s.statistic("ccf_queued_calls-support") == i64::from(waiting));
    let (queue, busy) = (play.queue(), play.talking());
    assert_eq!((queue.len(), busy.len()), (waiting as usize, (talking + ringing) as usize));
    let answered = play.server.statistic("ccg_answered_incalls");
    play.server.kill();
    let took = play.server.start_again(2);
    assert_eq!((play.queue(), play.talking()), (queue, busy));
    assert_eq!(play.server.statistic("ccg_answered_incalls"), answered);
    println!("{calls} calls: from start to serving {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (server, report) = play.end();
    assert_eq!(report.offered, u64::from(calls));
    let talks: BTreeSet<i64> = server.cdrs(calls as usize).iter().map(|r| r.talk).collect();
    let (least, most) = (*talks.first().expect("some"), *talks.last().expect("some"));
    let told = talk.as_secs() as i64;
    assert!(least >= told - 1 && most <= told + 2, "talks of {told} s are told as {least} to {most} s");
}

#[test]
fn a_storm_goes_on_through_one_kill_after_the_other() {
    let scenario = Scenario {
        rate: 40.0,
        duration: Duration::from_secs(12),
        agents: vec![agents(100, Duration::from_millis(200))],
        talk: Dist::Uniform(Duration::from_millis(1500), Duration::from_secs(3)),
        wrapup: Duration::from_secs(1),
        drain: Duration::from_secs(120),
        bridge_limit: Duration::from_secs(30),
        ..Scenario::default()
    };
    let mut play = Play::begin(scenario, &["call_center.agent_ring_timeout=60"]);
    for kill in 1..=4 {
        play.server.until("more calls", |_| play.live.offered.load(Relaxed) >= kill * 100);
        play.server.kill();
        play.server.start_again(2);
    }
    play.end();
}

#[test]
fn another_number_of_shards_takes_over() {
    let scenario = Scenario {
        rate: 40.0,
        max_calls: Some(60),
        duration: Duration::from_secs(60),
        agents: vec![agents(40, Duration::from_millis(100))],
        talk: Dist::Fixed(Duration::from_secs(8)),
        wrapup: Duration::from_secs(1),
        drain: Duration::from_secs(120),
        bridge_limit: Duration::from_secs(30),
        ..Scenario::default()
    };
    let mut play = Play::begin(scenario, &[]);
    play.until("they talk", |l| &l.talking, 40);
    play.server.until("they wait", |s| s.statistic("ccf_queued_calls-support") == 20);
    let (queue, busy) = (play.queue(), play.talking());
    for shards in [3, 1] {
        play.server.kill();
        play.server.start_again(shards);
        assert_eq!((play.queue(), play.talking()), (queue.clone(), busy.clone()), "{shards} shards");
    }
    play.end();
}

#[test]
fn calls_are_left_to_the_next_start_when_the_stop_says_so() {
    let scenario = Scenario {
        rate: 40.0,
        max_calls: Some(30),
        duration: Duration::from_secs(60),
        agents: vec![agents(20, Duration::from_millis(100))],
        talk: Dist::Fixed(Duration::from_secs(6)),
        wrapup: Duration::from_secs(1),
        drain: Duration::from_secs(120),
        bridge_limit: Duration::from_secs(30),
        ..Scenario::default()
    };
    let mut play = Play::begin(scenario, &["server.on_stop=leave"]);
    play.until("they talk", |l| &l.talking, 20);
    play.server.until("they wait", |s| s.statistic("ccf_queued_calls-support") == 10);
    let (queue, busy) = (play.queue(), play.talking());
    assert_eq!(play.server.terminate(), Some(0));
    play.server.start_again(2);
    assert_eq!((play.queue(), play.talking()), (queue, busy));
    play.end();
}

#[test]
fn drained_a_server_takes_no_new_calls_and_a_reset_of_counters_outlives_a_kill() {
    let mut server = Server::start(&["call_center.reject_on_no_agents=0"]);
    server.flow("support", "support", "sip:music@127.0.0.1:9", &[]);
    assert_eq!(server.cli(&["drain"]), "new calls are refused; calls at present: 0\n");
    assert_eq!(server.mi("drain", json!([])), json!({"draining": 1, "calls": 0}));
    let (code, retry_after) = crate::reload::refusal(&server, "support");
    assert_eq!((code.as_str(), retry_after), ("503", true));
    assert_eq!(server.cli(&["drain", "off"]), "new calls are taken; calls at present: 0\n");
    assert_eq!(server.cli(&["drain", "status"]), "new calls are taken; calls at present: 0\n");
    assert_eq!(crate::reload::refusal(&server, "nobody").0, "404");
    let shown = |s: &Server| (s.statistic("ccg_incalls"), s.statistic("ccf_incalls-support"));
    let before = shown(&server);
    server.kill();
    server.start_again(2);
    assert_eq!(shown(&server), before);
    server.mi("cc_reset_stats", json!([]));
    server.kill();
    server.start_again(1);
    assert_eq!(shown(&server), (0, 0));
}

#[test]
fn the_switch_of_dispatching_outlives_a_kill_until_the_configuration_changes() {
    let mut server = Server::start(&[]);
    let switched = |s: &Server| s.mi("cc_internal_call_dispatching", json!([]))["dispatching"].clone();
    assert_eq!(server.mi("cc_internal_call_dispatching", json!([0])), json!({"dispatching": 0}));
    server.kill();
    server.start_again(2);
    assert_eq!(switched(&server), 0);
    for (configured, on) in [("0", 0), ("1", 1)] {
        server.set("call_center.internal_call_dispatching", configured);
        server.kill();
        server.start_again(2);
        assert_eq!(switched(&server), on);
    }
}
