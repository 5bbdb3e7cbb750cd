//! What operators send and write: the configuration, rows of flows and agents, the management interface.

use crate::fields::halves;
use crate::shard::{Shard, agent, flow};
use serde_json::Value;
use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use strowger::config::{Config, ConfigError, Setting};
use strowger::control::cdr::CdrCounts;
use strowger::control::events::Hub;
use strowger::control::fronts::framing::{Frame, Framer};
use strowger::control::stats::Statistics;
use strowger::control::{Answer, ControlPlane, Parts, ShardPort, mi};
use strowger::store::names::Names;
use strowger::store::{Cell, Provisioned, Provisioning, Task};
use strowger_engine::control::Control;
use strowger_engine::registry::{AgentRow, FlowRow, Rows, Table, check};

/// The configuration file, and a setting of the command line behind 0xff: a configuration, or faults that each name a key or a
/// line.
pub fn config(data: &[u8]) {
    let (text, setting) = if data.contains(&0xff) { halves(data) } else { (data, &b""[..]) };
    let (Ok(text), Ok(setting)) = (std::str::from_utf8(text), std::str::from_utf8(setting)) else { return };
    let settings: Vec<Setting> = Setting::parse(setting).ok().into_iter().collect();
    let read = Config::from_text("f.toml", text, &settings);
    match &read {
        Ok(loaded) => {
            let again = Config::from_text("f.toml", text, &settings);
            assert!(again.is_ok_and(|l| l == *loaded), "the same text, the same configuration");
            assert!(loaded.warnings.iter().all(|f| !f.what.is_empty()));
            let c = &loaded.config;
            let _ = (c.call_config(), c.listeners(), c.overload_config(), c.journal_spec(), c.cdr_spool_dir());
            let _ = (c.acc_db().to_string(), c.rt_db().to_string(), c.refused_cdr_file(), c.cdr_concurrency());
            assert!(c.shard_count() > 0);
        }
        Err(ConfigError::Faults(faults)) => {
            assert!(!faults.is_empty());
            for fault in faults {
                assert!(!fault.what.is_empty());
                assert!(!fault.key.is_empty() || fault.line.is_some(), "neither key nor line: {fault}");
            }
        }
        Err(other) => panic!("a text is not read from a file: {other}"),
    }
}

/// A text of rows: `F` or `A`, then columns between bars.
fn read_rows(text: &str) -> Rows {
    let mut rows = Rows::default();
    for line in text.split('\n').take(24) {
        let mut cells = line.split('|').map(|c| (!c.is_empty()).then(|| c.to_owned()));
        let mut text = || cells.next().flatten();
        let kind = text();
        let number = |s: Option<String>| s.and_then(|s| s.parse::<i64>().ok());
        if kind.as_deref() == Some("F") {
            rows.flows.push(FlowRow {
                flowid: text(),
                skill: text(),
                message_queue: text(),
                message_welcome: text(),
                message_dissuading: text(),
                message_flow_id: text(),
                prependcid: text(),
                priority: number(text()),
                max_wrapup_time: number(text()),
                dissuading_onhold_th: number(text()),
                ..FlowRow::default()
            });
        } else {
            rows.agents.push(AgentRow {
                agentid: text(),
                location: text(),
                msrp_location: text(),
                skills: text(),
                msrp_max_sessions: number(text()),
                logstate: number(text()),
                wrapup_time: number(text()),
                wrapup_end_time: number(text()),
            });
        }
    }
    rows
}

/// Rows of flows and agents: each is loaded, or is a fault that names its column and the fix.
pub fn rows(data: &[u8]) {
    let (one, two) = halves(data);
    let (one, two) = (read_rows(&String::from_utf8_lossy(one)), read_rows(&String::from_utf8_lossy(two)));
    let mut shard = Shard::new(&Rows::default(), |_| {});
    for rows in [&one, &two, &one] {
        for fault in check(rows) {
            assert!(
                !fault.row.is_empty() && !fault.column.is_empty() && !fault.what.is_empty() && !fault.fix.is_empty()
            );
        }
        let (prov, faults) = shard.registry.load(rows);
        let loaded = prov.flows.len() + prov.agents_by_id.len();
        assert_eq!(loaded + faults.len(), rows.flows.len() + rows.agents.len(), "loaded, or a fault: {faults:?}");
        shard.control(Control::Provision(prov));
        let mut made = vec![];
        while shard.registry.commit(3, &mut made) {}
        shard.control(Control::Matched(made));
    }
    shard.assert_rest();
}

/// A shard's end of the control plane, in one thread.
struct Port(Mutex<Shard>);

impl ShardPort for Port {
    fn count(&self) -> u16 {
        1
    }

    fn ask(&self, _: u16, command: Control) -> Answer<'_> {
        let reply = self.0.lock().expect("one thread").control(command);
        Box::pin(async move { Ok(reply) })
    }
}

/// Rows in memory that nothing changes.
struct Fixed(Rows);

impl Provisioning for Fixed {
    fn load(&self) -> Task<'_, Provisioned> {
        Box::pin(async { Ok(Provisioned { rows: self.0.clone(), faults: vec![] }) })
    }

    fn set<'a>(&'a self, _: Table, _: &'a str, _: &'a [(&'static str, Cell)]) -> Task<'a, bool> {
        Box::pin(async { Ok(false) })
    }

    fn remove<'a>(&'a self, _: Table, _: &'a str) -> Task<'a, bool> {
        Box::pin(async { Ok(false) })
    }

    fn save_wrapups<'a>(&'a self, _: &'a [(Box<str>, u64)]) -> Task<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A control plane over one shard with a flow and two agents.
fn plane() -> ControlPlane {
    let rows = Rows { flows: vec![flow("sales", "s")], agents: vec![agent(1, "s"), agent(2, "s")] };
    let mut shard = Shard::new(&rows, |_| {});
    let registry = std::mem::replace(
        &mut shard.registry,
        strowger_engine::registry::Registry::new(
            shard.dispatch.handle(1),
            strowger_engine::registry::RegistryLimits { flows: 8, skills: 8 },
        ),
    );
    let (dispatch, stats) = (Arc::clone(&shard.dispatch), Arc::clone(&shard.stats));
    let config = Config::from_text("", "", &[]).expect("the defaults").config;
    ControlPlane::new(Parts {
        statistics: Statistics::new(stats, Arc::clone(&dispatch)),
        shards: Arc::new(Port(Mutex::new(shard))),
        dispatch,
        store: Arc::new(Fixed(rows)),
        names: Names::of(&config.call_center),
        registry,
        cdrs: Arc::<CdrCounts>::default(),
        events: Arc::new(Hub::new(4, 60)),
    })
}

thread_local! {
    static PLANE: RefCell<Option<(tokio::runtime::Runtime, ControlPlane)>> = const { RefCell::new(None) };
}

/// The management interface: every request has its answer, with its id, and bytes of a FIFO end somewhere.
pub fn mi(data: &[u8]) {
    framing(data);
    let asked = serde_json::from_slice::<Value>(data);
    // Subscriptions reach out to sockets.
    if asked.as_ref().is_ok_and(subscribes) {
        return;
    }
    let told = PLANE.with_borrow_mut(|slot| {
        let (runtime, plane) = slot.get_or_insert_with(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            (runtime, plane())
        });
        runtime.block_on(mi::handle(plane, data))
    });
    let told = told.map(|t| serde_json::from_slice::<Value>(&t).expect("an answer is JSON"));
    match (asked, told) {
        (Err(_), Some(told)) => {
            assert_eq!((answered(&told), &told["error"]["code"]), (Value::Null, &Value::from(-32700)))
        }
        (Ok(Value::Array(batch)), told) if !batch.is_empty() => {
            let ids: Vec<Value> = batch.iter().filter_map(expected).collect();
            let told = told.map_or(vec![], |t| t.as_array().expect("a batch for a batch").clone());
            assert_eq!(told.iter().map(answered).collect::<Vec<_>>(), ids);
        }
        (Ok(request), told) => assert_eq!(told.as_ref().map(answered), expected(&request)),
        (Err(_), None) => panic!("no answer to what is no JSON"),
    }
}

fn subscribes(asked: &Value) -> bool {
    match asked {
        Value::Array(batch) => batch.iter().any(subscribes),
        other => other["method"].as_str().is_some_and(|m| m.ends_with("subscribe")),
    }
}

/// The id that an answer to this must have; `None`: it wants none.
fn expected(request: &Value) -> Option<Value> {
    let Value::Object(request) = request else { return Some(Value::Null) };
    let sound = request.get("jsonrpc").is_some_and(|v| v == "2.0")
        && request.get("method").is_some_and(Value::is_string)
        && request.get("params").is_none_or(|p| p.is_array() || p.is_object());
    match request.get("id") {
        None if sound => None,
        Some(id) if id.is_string() || id.is_number() => Some(id.clone()),
        _ => Some(Value::Null),
    }
}

/// The id of an answer, which is a result or an error.
fn answered(answer: &Value) -> Value {
    assert_eq!(answer["jsonrpc"], "2.0");
    assert_ne!(answer.get("result").is_some(), answer.get("error").is_some());
    if let Some(error) = answer.get("error") {
        assert!(error["code"].is_i64() && error["message"].as_str().is_some_and(|m| !m.is_empty()));
    }
    answer["id"].clone()
}

/// Bytes of a FIFO, in two pieces: what comes out was there, and nothing waits for ever.
fn framing(data: &[u8]) {
    const MOST: usize = 300;
    let (one, two) = halves(data);
    let mut framer = Framer::new(MOST);
    let mut frames = vec![];
    for piece in [one, two] {
        framer.push(piece);
        frames.extend(std::iter::from_fn(|| framer.next_frame()));
    }
    frames.extend(framer.give_up());
    assert!(!framer.waits());
    let all = [one, two].concat();
    for frame in &frames {
        let (Frame::Request { reply, .. } | Frame::TooLong { reply }) = frame;
        assert!(reply.len() <= 255 && reply.bytes().all(|b| b.is_ascii_graphic()));
        if let Frame::Request { json, .. } = frame {
            assert!(json.is_empty() || all.windows(json.len()).any(|w| w == &json[..]), "it was there");
        }
    }
    assert!(frames.len() <= data.len());
}
