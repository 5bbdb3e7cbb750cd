//! One shard without sockets: an engine with everything that it needs, in virtual time, and what it sends.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use strowger_dispatch::{AgentState, ChatPolicy, Dispatch, Limits};
use strowger_engine::audit::{AGAIN_US, Report, SWEEP_US};
use strowger_engine::cdr::CallType;
use strowger_engine::control::{Audit, Control, Reply};
use strowger_engine::journal::{Entity, Records, Recovered, Sink};
use strowger_engine::registry::{AgentRow, FlowRow, Registry, RegistryLimits, Rows};
use strowger_engine::{BucketTable, CallId, Cdr, Engine, EngineConfig, Output, Restored, StatsHub};
use strowger_sip::endpoint::ListenerInfo;
use strowger_sip::hash::HashKey;
use strowger_sip::net::{ListenerId, Path, Transport};
use strowger_sip::time::{Mono, Now};

/// Where the shard listens.
pub const HERE: &str = "10.0.0.1:5060";
/// Key of the Call-ID hash.
pub const KEY: HashKey = HashKey(1, 2);
/// Flows and skills that may be provisioned.
const MOST: u32 = 16;
/// Timers that may fire until a shard is at rest: far more than any call needs.
const STEPS: usize = 400_000;
/// Virtual time until a shard that nobody talks to is at rest, microseconds: a few session intervals.
const PATIENCE_US: u64 = 48 * 3600 * 1_000_000;

/// The latest record of each entity.
#[derive(Debug, Default)]
struct Journal(BTreeMap<Entity, Box<[u8]>>);

impl Sink for Journal {
    fn put(&mut self, entity: Entity, record: &[u8]) {
        self.0.insert(entity, record.into());
    }

    fn remove(&mut self, entity: Entity) {
        assert!(self.0.remove(&entity).is_some(), "{entity:?} was never written");
        entity.other_half().map(|half| self.0.remove(&half));
    }
}

/// See the module.
#[derive(Debug)]
pub struct Shard {
    pub engine: Engine,
    pub dispatch: Arc<Dispatch>,
    pub stats: Arc<StatsHub>,
    pub registry: Registry,
    pub now: Now,
    /// What it has sent, and nobody has looked at.
    pub sent: Vec<(SocketAddr, Vec<u8>)>,
    /// What its audit has found: without damage, nothing.
    pub found: Vec<Report>,
    /// The next so many messages are refused by the socket.
    pub refuse_sends: usize,
    /// The last record of each call, by its name, which a new process may give again; so those that were over before it are
    /// counted.
    calls: BTreeMap<CallId, CallType>,
    over: usize,
    cfg: Arc<EngineConfig>,
    rows: Rows,
    journal: Journal,
    replies: Vec<Reply>,
    lives: u8,
}

/// A flow whose music is at 10.0.3.1.
#[must_use]
pub fn flow(id: &str, skill: &str) -> FlowRow {
    let text = |s: &str| Some(s.to_owned());
    FlowRow { flowid: text(id), skill: text(skill), message_queue: text("sip:music@10.0.3.1"), ..FlowRow::default() }
}

/// An agent at 10.0.4.`n`, logged in, without wrap-up of its own.
#[must_use]
pub fn agent(n: u8, skills: &str) -> AgentRow {
    AgentRow {
        agentid: Some(format!("a{n}")),
        location: Some(format!("sip:a{n}@10.0.4.{n}")),
        skills: Some(skills.to_owned()),
        logstate: Some(1),
        ..AgentRow::default()
    }
}

fn limits() -> Limits {
    Limits { shards: 1, agents: 64, waiting_per_shard: 256, skills: MOST }
}

impl Shard {
    /// A shard with these rows; `change` may change its settings. Calls are taken whoever is logged in, sessions are
    /// refreshed after 90 s at most.
    #[must_use]
    pub fn new(rows: &Rows, change: impl FnOnce(&mut EngineConfig)) -> Shard {
        let listener = ListenerInfo { transport: Transport::Udp, via: HERE.into(), contact_host: HERE.into() };
        let mut cfg = EngineConfig {
            endpoint: Arc::new(EngineConfig::endpoint(vec![listener])),
            buckets: Arc::new(BucketTable::even(1)),
            key: KEY,
            call: Default::default(),
        };
        cfg.call.reject_on_no_agents = false;
        cfg.call.wrapup_us = 2_000_000;
        cfg.call.session_expires_s = 90;
        change(&mut cfg);
        let cfg = Arc::new(cfg);
        let dispatch = Arc::new(Dispatch::new(limits(), ChatPolicy::Balancing));
        let stats = Arc::new(StatsHub::new(1, MOST, 64));
        let registry = Registry::new(dispatch.handle(1), RegistryLimits { flows: MOST, skills: MOST });
        let now = Now { mono: Mono(1_000_000_000), unix_us: 1_700_000_000_000_000 };
        let prov = registry.current().clone();
        let engine = Engine::new(cfg.clone(), 0, &dispatch, stats.clone(), prov, [7; 32], now);
        let mut shard = Shard {
            engine,
            dispatch,
            stats,
            registry,
            now,
            sent: vec![],
            found: vec![],
            refuse_sends: 0,
            calls: BTreeMap::new(),
            over: 0,
            cfg,
            rows: Rows::default(),
            journal: Journal::default(),
            replies: vec![],
            lives: 0,
        };
        shard.reload(rows);
        shard
    }

    /// Loads these rows in place of those before.
    pub fn reload(&mut self, rows: &Rows) {
        self.rows = rows.clone();
        let (prov, _) = self.registry.load(rows);
        self.control(Control::Provision(prov));
        let mut made = vec![];
        while self.registry.commit(16, &mut made) {}
        self.control(Control::Matched(made));
    }

    /// A command of the control plane, and its answer.
    pub fn control(&mut self, command: Control) -> Reply {
        self.engine.handle_control(self.now, 1, command);
        self.drain();
        assert_eq!(self.replies.len(), 1, "every command has one answer");
        self.replies.remove(0)
    }

    /// A datagram from `from`.
    pub fn datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.engine.handle_datagram(self.now, Path::udp(from, ListenerId(0)), bytes);
        self.drain();
    }

    /// Takes what the engine puts out, until it has nothing more.
    fn drain(&mut self) {
        loop {
            self.engine.journal(self.now, &mut self.journal);
            let mut more = false;
            while let Some(transmit) = self.engine.poll_transmit() {
                more = true;
                self.sent.push((transmit.path.remote, self.engine.bytes(&transmit).to_vec()));
                if self.refuse_sends > 0 {
                    self.refuse_sends -= 1;
                    self.engine.handle_send_failed(self.now, transmit);
                } else {
                    self.engine.sent(transmit);
                }
            }
            while let Some(output) = self.engine.poll_output() {
                more = true;
                match output {
                    Output::Cdr(cdr) => self.note(&cdr),
                    Output::AgentEvent(_) => {}
                    Output::Audited(report) => self.found.push(*report),
                    Output::Reply { reply, .. } => self.replies.push(reply),
                    Output::Mesh { to, msg } => {
                        assert_eq!(to, 0, "there is no other shard");
                        self.engine.handle_mesh(self.now, msg);
                    }
                }
            }
            // Some names have an address, others have none.
            while let Some(question) = self.engine.poll_resolve() {
                more = true;
                let address = IpAddr::V4(Ipv4Addr::new(10, 0, 9, 9));
                let answer = if question.host.len().is_multiple_of(2) { Ok(&[address][..]) } else { Err(()) };
                self.engine.handle_resolved(self.now, question.id, answer, 60_000_000);
            }
            if !more {
                return;
            }
        }
    }

    fn note(&mut self, cdr: &Cdr) {
        let before = self.calls.insert(cdr.call, cdr.call_type);
        // An attempt that fails may be followed by another.
        let ended = before.is_some_and(|b| matches!(b, CallType::Handled | CallType::Dropped));
        assert!(!ended, "a call that has ended got another record: {cdr:?}");
    }

    /// Lets time pass; each timer fires at its own time.
    pub fn wait_us(&mut self, us: u64) {
        let until = self.now.mono.plus_us(us);
        for _ in 0..STEPS {
            let Some(due) = self.engine.next_due().filter(|d| *d <= until) else {
                self.set_clock(until);
                self.look();
                return;
            };
            self.fire(due);
        }
        panic!("timers without end: {:?}", self.engine.audit());
    }

    /// A slice of the audit, when it is due.
    fn look(&mut self) {
        if self.engine.audit_due() <= self.now.mono {
            self.engine.handle_audit(self.now);
            self.drain();
        }
    }

    /// Time for the audit to find and repair whatever is wrong.
    pub fn audit(&mut self) {
        for _ in 0..16 {
            self.wait_us(SWEEP_US.max(AGAIN_US));
        }
    }

    /// Whether waiting calls and agents are matched.
    pub fn set_dispatching(&mut self, on: bool) {
        self.dispatch.set_dispatching(on);
        if on {
            let mut made = vec![];
            self.dispatch.handle(1).match_all(&mut made);
            self.control(Control::Matched(made));
        }
    }

    fn fire(&mut self, due: Mono) {
        self.set_clock(due.max(self.now.mono));
        self.engine.handle_timers(self.now);
        self.drain();
    }

    fn set_clock(&mut self, to: Mono) {
        self.now = Now { mono: to, unix_us: self.now.unix_us + to.since(self.now.mono) };
    }

    /// The process is killed, and a new one restores what was committed.
    pub fn restart(&mut self) -> Restored {
        let records = std::mem::take(&mut self.journal.0).into_iter().collect();
        self.restart_from(records)
    }

    /// The same, from other records.
    pub fn restart_from(&mut self, records: Records) -> Restored {
        self.lives = self.lives.wrapping_add(1);
        let before = self.calls.len();
        self.calls.retain(|_, last| !matches!(last, CallType::Handled | CallType::Dropped));
        self.over += before - self.calls.len();
        self.journal = Journal::default();
        let dispatching = self.dispatch.dispatching();
        self.dispatch = Arc::new(Dispatch::new(limits(), ChatPolicy::Balancing));
        self.dispatch.set_dispatching(false);
        self.stats = Arc::new(StatsHub::new(1, MOST, 64));
        self.registry = Registry::new(self.dispatch.handle(1), RegistryLimits { flows: MOST, skills: MOST });
        let (prov, _) = self.registry.load(&self.rows);
        while self.registry.commit(16, &mut Vec::new()) {}
        let seed = [self.lives; 32];
        self.engine = Engine::new(self.cfg.clone(), 0, &self.dispatch, self.stats.clone(), prov, seed, self.now);
        let restored = self.engine.restore(self.now, &[Recovered { shard: 0, records }]);
        self.drain();
        self.set_dispatching(dispatching);
        restored
    }

    /// What the journal holds.
    #[must_use]
    pub fn records(&self) -> Records {
        self.journal.0.iter().map(|(entity, record)| (*entity, record.clone())).collect()
    }

    /// Nobody says anything any more: the timers must end everything, and nothing may be left.
    pub fn assert_rest(&mut self) {
        let until = self.now.mono.plus_us(PATIENCE_US);
        let mut steps = 0;
        while let Some(due) = self.engine.next_due() {
            assert!(due <= until, "something goes on for hours: {:?}", self.engine.audit());
            steps += 1;
            assert!(steps < STEPS, "timers without end: {:?}", self.engine.audit());
            self.fire(due);
        }
        self.engine.idle();
        assert_eq!(self.engine.audit(), Audit::default(), "something is left at rest");
        self.audit();
        for (id, agent) in &self.registry.current().agents_by_id {
            let view = self.dispatch.agent(*agent).expect("who is provisioned is in the table");
            assert!(matches!(view.state, AgentState::Free | AgentState::Offline), "{id} is {:?}", view.state);
        }
        for flow in self.registry.current().flows.values() {
            let gauge = |read: fn(&strowger_engine::stats::FlowCounts) -> i64| self.stats.flow(flow.idx, read);
            let gauges = [
                gauge(|f| f.onhold.get()),
                gauge(|f| f.onhold_chats.get()),
                gauge(|f| f.queued.get()),
                gauge(|f| f.ongoing.get()),
            ];
            assert_eq!(gauges, [0; 4], "on hold, chats on hold, queued, ongoing of {}", flow.flowid);
        }
        let begun = self.stats.sum(|s| s.calls.get());
        let ended = self.over + self.calls.values().filter(|last| **last != CallType::Rejected).count();
        assert_eq!(begun, ended as i64, "calls begun, calls with a last record");
    }
}
