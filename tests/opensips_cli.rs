//! The field's own clients against a running server: every command through `opensips-cli` over HTTP, FIFO, UDP and
//! Unix datagrams, and events through `opensips-event`. `tests/opensips/setup` installs them.

mod support;

use loadtest::{Dist, Generator, Scenario};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use support::{Scene, Server};

const EVENT: &str = "E_CALLCENTER_AGENT_REPORT";
const PATIENCE: Duration = Duration::from_secs(60);

/// A program of the clients' packages.
fn program(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let path = target.join("opensips/bin").join(name);
    assert!(path.exists(), "{} is missing; run tests/opensips/setup, which installs it from PyPI", path.display());
    path
}

/// A server with flows and agents, its callers, and the ways to its management interface.
struct Desk {
    server: Server,
    fifo: Vec<String>,
    udp: Vec<String>,
    unix: Vec<String>,
    scene: Scene,
}

impl Desk {
    /// Flow `sales` with agents `agent1` and `agent2`, logged out; `calls` callers, who wait, then talk so long.
    fn open(calls: u64, talk: Duration) -> Desk {
        let scene = Scene::new();
        let scenario = Scenario {
            rate: 5.0,
            max_calls: Some(calls),
            flows: vec![loadtest::FlowShare { name: "sales".into(), weight: 1.0, chat: false }],
            talk: Dist::Fixed(talk),
            caller_hangs_up: 1.0,
            drain: Duration::from_secs(600),
            ..Scenario::default()
        };
        let mut generator = Generator::bind(&scenario).unwrap();
        let music = format!("sip:music@{}", generator.media_addr());
        scene.out(&["flow", "set", "sales", "--skill", "sell", "--message-queue", &music]);
        for agent in ["agent1", "agent2"] {
            let location = format!("sip:{agent}@{}", generator.agent_addr());
            scene.out(&["agent", "set", agent, "--location", &location, "--skills", "sell"]);
        }
        let path = |name: &str| scene.path(name).to_str().unwrap().to_owned();
        let (fifo, unix) = (path("mi.fifo"), path("mi.sock"));
        let settings = [
            format!("mi.fifo={fifo}"),
            format!("mi.fifo_reply_dir={}", path("")),
            format!("mi.datagram=[\"udp:127.0.0.1:0\", \"unix:{unix}\"]"),
            "call_center.wrapup_time=1".to_owned(),
            "call_center.reject_on_no_agents=0".to_owned(),
            "sip.overload_max_age_ms=10000".to_owned(),
        ];
        let set: Vec<&str> = settings.iter().flat_map(|s| ["--set", s]).collect();
        let server = Server::start(&scene, &set);
        generator.set_target(server.listen().parse().unwrap());
        if calls > 0 {
            std::thread::spawn(move || generator.run());
        }
        let udp = server.ready["mi_datagram"][0].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
        let options =
            |list: &[String]| -> Vec<String> { list.iter().flat_map(|o| ["-o".to_owned(), o.clone()]).collect() };
        let fifo =
            ["communication_type=fifo".to_owned(), format!("fifo_file={fifo}"), format!("fifo_reply_dir={}", path(""))];
        let patient = "datagram_timeout=30".to_owned();
        let datagram = "communication_type=datagram".to_owned();
        Desk {
            fifo: options(&fifo),
            udp: options(&[datagram.clone(), patient.clone(), format!("datagram_port={udp}")]),
            unix: options(&[datagram, patient, format!("datagram_unix_socket={unix}")]),
            server,
            scene,
        }
    }

    fn http(&self) -> Vec<String> {
        ["-o", "communication_type=http", "-o", &format!("url={}", self.server.mi())].map(str::to_owned).to_vec()
    }

    fn cli(&self, way: &[String], args: &[&str]) -> Result<Value, String> {
        cli(&self.scene.path(""), way, args)
    }

    /// A result by hand, to wait for something.
    fn ask(&self, method: &str) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method}).to_string();
        serde_json::from_str::<Value>(&self.server.post("/mi", &body).1).unwrap()["result"].take()
    }

    fn until(&self, what: &str, check: impl Fn() -> bool) {
        let began = Instant::now();
        while !check() {
            assert!(began.elapsed() < PATIENCE, "not in a minute: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs `opensips-cli -x mi ARGS`; its result, or what it says of an error.
fn cli(home: &Path, way: &[String], args: &[&str]) -> Result<Value, String> {
    let out = Command::new(program("opensips-cli"))
        .args(way)
        .args(["-x", "mi"])
        .args(args)
        .env("HOME", home)
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if out.status.success() {
        return Ok(serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {stdout}{stderr}")));
    }
    Err(format!("{stdout}{stderr}"))
}

/// Keys in their order and types; of a list the first row.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let rows: Vec<String> = map.iter().map(|(k, v)| format!("{k}: {}", shape(v))).collect();
            format!("{{{}}}", rows.join(", "))
        }
        Value::Array(list) => format!("[{}]", list.first().map(shape).unwrap_or_default()),
        Value::String(_) => "text".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::Bool(_) | Value::Null => "odd".to_owned(),
    }
}

/// Command by its old and new name, parameters, and the shape of its answer or the words of its error.
type Case = (&'static str, &'static str, &'static [&'static str], Result<&'static str, &'static str>);

const CASES: &[Case] = &[
    ("cc_reload", "call_center:reload", &[], Ok("text")),
    ("cc_agent_login", "call_center:agent_login", &["agent2", "0"], Ok("text")),
    ("cc_agent_login", "call_center:agent_login", &["agent_id=agent2", "state=0"], Ok("text")),
    ("cc_agent_login", "call_center:agent_login", &["ghost", "1"], Err("404: Agent not found")),
    (
        "cc_agent_login",
        "call_center:agent_login",
        &["agent2"],
        Err("-32602: Invalid params (Too few or too many parameters)"),
    ),
    (
        "cc_agent_login",
        "call_center:agent_login",
        &["agent2", "on"],
        Err("-32602: Invalid params (Bad type for parameter 'state')"),
    ),
    (
        "cc_agent_login",
        "call_center:agent_login",
        &["agent=agent2", "state=1"],
        Err("-32602: Invalid params (Named parameters do not match)"),
    ),
    (
        "cc_list_queue",
        "call_center:list_queue",
        &[],
        Ok("{Calls: [{index: number, id: text, Media: text, Caller username: text, Caller display name: text, \
            Waiting for: number, ETW: number, Flow: text, Priority: number, Skill: text}]}"),
    ),
    (
        "cc_list_flows",
        "call_center:list_flows",
        &[],
        Ok("{Flows: [{id: text, Avg Call Duration: number, Processed Calls: number, Logged Agents: number, \
            Ongoing Calls: number, Ref Calls: number}]}"),
    ),
    (
        "cc_list_agents",
        "call_center:list_agents",
        &[],
        Ok("{Agents: [{id: text, Ref: number, Loged in: text, State: text}]}"),
    ),
    ("cc_reset_stats", "call_center:reset_stats", &[], Ok("text")),
    ("cc_internal_call_dispatching", "call_center:internal_call_dispatching", &[], Ok("{dispatching: number}")),
    ("cc_internal_call_dispatching", "call_center:internal_call_dispatching", &["1"], Ok("{dispatching: number}")),
    (
        "cc_dispatch_call_to_agent",
        "call_center:dispatch_call_to_agent",
        &["call", "agent1"],
        Err("403: Internal dispatching is enabled"),
    ),
    ("get_statistics", "statistics:get", &["ccg_incalls"], Ok("{call_center:ccg_incalls: number}")),
    ("list_statistics", "statistics:list", &["ccg_incalls"], Ok("{call_center:ccg_incalls: text}")),
    ("reset_statistics", "statistics:reset", &["ccg_incalls"], Ok("text")),
    (
        "cdr_status",
        "strowger:cdr_status",
        &[],
        Ok(
            "{Database: text, Spool: text, Queued: number, Waiting: number, In flight: number, Written: number, Retried: number, \
            Spooled: number, In spool: number, Replayed: number, Set aside: number, Torn: number, Damaged: number, \
            Spool errors: number, Durable [ms]: {count: number, p50: number, p99: number, p99.9: number, max: number}, \
            Written [ms]: {count: number, p50: number, p99: number, p99.9: number, max: number}}",
        ),
    ),
    (
        "audit",
        "strowger:audit",
        &[],
        Ok("{Shards: [{Shard: number, Sweeps: number, Last sweep [ms]: number, Looked at: number, Busy [ms]: number, \
            Suspects: number, Found: number, Repaired: number}], Faults: {}, Reports: []}"),
    ),
    ("events_list", "evi:list", &[], Ok("{Events: [{name: text, id: number}]}")),
    ("event_subscribe", "evi:subscribe", &[EVENT, "udp:127.0.0.1:9", "600"], Ok("text")),
    (
        "event_subscribe",
        "evi:subscribe",
        &[EVENT, "nonsense"],
        Err("400: Bad parameter value (`nonsense` is not of the form udp:HOST:PORT"),
    ),
    (
        "subscribers_list",
        "evi:subscribers",
        &[],
        Ok("{Events: [{name: text, id: number, \
            Subscribers: [{socket: text, expire: number, ttl: number, lost: number}]}]}"),
    ),
    ("which", "core:which", &[], Ok("[text]")),
    ("which", "core:which", &["cc_agent_login"], Ok("[[text]]")),
    ("help", "core:help", &["cc_reload"], Ok("{Help: text, Exported by: text}")),
    ("help", "core:help", &["ghost"], Err("404: Command not found")),
    ("version", "core:version", &[], Ok("{Server: text}")),
    ("uptime", "core:uptime", &[], Ok("{Now: text, Up since: text, Up time: text}")),
    ("drain", "core:drain", &[], Ok("{draining: number, calls: number}")),
    ("ps", "core:ps", &[], Ok("{Processes: [{ID: number, PID: number, Type: text}]}")),
    (
        "latency",
        "strowger:latency",
        &[],
        Ok(
            "{receive_to_send: STAGE, receive_to_parse: STAGE, parse_to_decision: STAGE, decision_to_send: STAGE, dispatch: STAGE, mesh: STAGE, timer_lateness: STAGE, turn: STAGE, command_cpu: STAGE, cdr_durable: STAGE}",
        ),
    ),
    ("log_level", "core:log_level", &[], Ok("{Processes: [{PID: number, Log level: number, Type: text}]}")),
    ("log_level", "core:log_level", &["3"], Ok("{New global log level: number}")),
];

/// What is told of a stage that the shards measure.
const STAGE: &str = "{count: number, p50_us: number, p90_us: number, p99_us: number, p99.9_us: number, max_us: number}";

#[test]
fn every_command_answers_opensips_cli_over_every_transport() {
    let desk = Desk::open(3, Duration::from_secs(600));
    desk.until("three wait", || desk.ask("cc_list_queue")["Calls"].as_array().is_some_and(|q| q.len() == 3));
    desk.cli(&desk.http(), &["cc_agent_login", "agent1", "1"]).unwrap();
    desk.until("one call talks and two wait", || {
        let (queue, calls) = (desk.ask("cc_list_queue"), desk.ask("cc_list_calls"));
        let waiting = queue["Calls"].as_array().is_some_and(|q| q.len() == 2);
        waiting && calls["Calls"].as_array().is_some_and(|c| c.iter().any(|c| c["State"] == "toagent"))
    });
    let ways = [(desk.http(), true), (desk.fifo.clone(), false), (desk.udp.clone(), true), (desk.unix.clone(), false)];
    std::thread::scope(|threads| {
        for (way, old) in &ways {
            let home = desk.scene.path("");
            threads.spawn(move || run_all(&home, way, *old));
        }
    });
    let names = desk.ask("which");
    let named: BTreeSet<&str> = names.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    let tried = CASES.iter().flat_map(|c| [c.0, c.1]).chain(["cc_list_calls", "call_center:list_calls"]);
    assert_eq!(tried.chain(["kill", "core:kill"]).collect::<BTreeSet<_>>(), named, "every command is tried");
    // The last: it ends the server.
    assert_eq!(desk.cli(&desk.fifo, &["kill"]), Ok(json!("OK")));
    let mut server = desk.server;
    server.log_until("told to stop by the management interface");
}

fn run_all(home: &Path, way: &[String], old: bool) {
    for (flat, modern, params, expected) in CASES {
        let name = if old { flat } else { modern };
        let args: Vec<&str> = [name].into_iter().chain(params.iter()).copied().collect();
        match (cli(home, way, &args), expected) {
            (Ok(answer), Ok(expected)) => {
                let expected = expected.replace("STAGE", STAGE);
                assert_eq!(shape(&answer), expected, "{args:?}: {answer}");
            }
            (Err(said), Err(expected)) => assert!(said.contains(expected), "{args:?}: {said}"),
            (got, _) => panic!("{args:?} over {way:?}: {got:?}, expected {expected:?}"),
        }
    }
    let name = if old { "cc_list_calls" } else { "call_center:list_calls" };
    let calls = cli(home, way, &[name]).unwrap();
    for call in calls["Calls"].as_array().unwrap() {
        let agent = if call["State"] == "toagent" { ", Agent: text" } else { "" };
        assert_eq!(
            shape(call),
            format!("{{id: text, Ref: number, State: text, Call Time: number, Flow: text{agent}}}")
        );
    }
    let agents = cli(home, way, &[if old { "cc_list_agents" } else { "call_center:list_agents" }]).unwrap();
    assert_eq!(agents["Agents"][0], json!({"id": "agent1", "Ref": 1, "Loged in": "YES", "State": "incall"}));
    assert_eq!(agents["Agents"][1], json!({"id": "agent2", "Ref": 0, "Loged in": "NO"}));
}

/// `opensips-event` at work; ends when dropped.
struct Listener {
    child: Child,
    events: mpsc::Receiver<Value>,
}

impl Listener {
    fn start(desk: &Desk) -> Listener {
        let http = desk.server.ready["mi_http"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
        let mut child = Command::new(program("opensips-event"))
            .args(["-t", "http", "-i", "127.0.0.1", "-p", &http, "-T", "datagram", "-li", "127.0.0.1", EVENT])
            .env("PYTHONUNBUFFERED", "1")
            .current_dir(desk.scene.path(""))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, events) = mpsc::channel();
        let mut out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let (mut text, mut buf) = (vec![], [0; 4096]);
            while let Ok(n @ 1..) = out.read(&mut buf) {
                text.extend_from_slice(&buf[..n]);
                let mut values = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
                while let Some(Ok(event)) = values.next() {
                    let _ = send.send(event);
                }
                let read = values.byte_offset();
                text.drain(..read);
            }
        });
        desk.until("the client has subscribed", || desk.ask("subscribers_list")["Events"][0].is_object());
        Listener { child, events }
    }

    /// The next event; its parameters.
    fn next(&self) -> Value {
        let event = self.events.recv_timeout(PATIENCE).expect("an event");
        assert_eq!((&event["jsonrpc"], &event["method"], event.get("id")), (&json!("2.0"), &json!(EVENT), None));
        event["params"].clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn agent_events_reach_opensips_event() {
    let desk = Desk::open(1, Duration::from_secs(2));
    let listener = Listener::start(&desk);
    desk.until("the caller waits", || desk.ask("cc_list_queue")["Calls"][0].is_object());
    // The call is with the first that logs in.
    for (agent, state) in [("agent1", "1"), ("agent2", "1"), ("agent2", "0")] {
        desk.cli(&desk.http(), &["cc_agent_login", agent, state]).unwrap();
    }
    let mut of = [("agent1", vec![]), ("agent2", vec![])];
    let over = |events: &[Value]| {
        events.iter().any(|e| e["status"] == "wrapup") && events.last().is_some_and(|e| e["status"] == "free")
    };
    while !(over(&of[0].1) && of[1].1.len() == 2) {
        let event = listener.next();
        assert_eq!(event["status"], event["state"], "both names, one word");
        of.iter_mut().find(|(id, _)| event["agent_id"] == *id).unwrap().1.push(event);
    }
    let plain = |agent: &str, state: &str| json!({"agent_id": agent, "status": state, "state": state});
    assert_eq!(of[1].1, [plain("agent2", "free"), plain("agent2", "offline")]);
    let call = &of[0].1;
    let states: Vec<&str> = call.iter().map(|e| e["status"].as_str().unwrap()).collect();
    assert!(states.ends_with(&["incall", "wrapup", "free"]), "{states:?}");
    let talk = &call[call.len() - 3];
    assert_eq!(shape(talk), "{agent_id: text, status: text, state: text, flow_id: text}");
    assert_eq!(talk["flow_id"], "sales");
    let wrapup = &call[call.len() - 2];
    assert_eq!(shape(wrapup), "{agent_id: text, status: text, state: text, wrapup_ends: number}");
    let mut listener = listener;
    let pid = listener.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    listener.child.wait().unwrap();
    assert_eq!(desk.ask("subscribers_list"), json!({"Events": []}), "it unsubscribes when it ends");
}
