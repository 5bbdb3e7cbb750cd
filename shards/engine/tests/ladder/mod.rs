//! A bench for call flows in virtual time: one engine, phones that say what the test tells them, and a ladder of
//! what passed, in which everything random is named (so that it can be compared with a snapshot).

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod briefed;
pub mod chats;
mod phone;
mod reborn;
mod scene;

#[allow(unused_macros, reason = "each test binary uses its own part")]
/// The ladder is as its snapshot has it. (Where engines are mortal, the other binary has seen to that.)
macro_rules! drawn {
    ($bench:expr) => {
        if !$bench.is_mortal() {
            insta::assert_snapshot!($bench.ladder());
        }
    };
}
#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use drawn;

#[allow(unused_macros, reason = "each test binary uses its own part")]
/// The test is left out where engines are mortal, for what it is about does not outlive a process.
macro_rules! lives_on {
    ($why:literal) => {
        if ladder::MORTAL {
            return;
        }
    };
}
#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use lives_on;

pub use phone::Phone;
#[allow(unused_imports, reason = "each test binary uses its own part")]
pub use reborn::MORTAL;
#[allow(unused_imports, reason = "each test binary uses its own part")]
pub use scene::{ANN, BOB, MEDIA, Scene};

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use strowger_dispatch::{AgentState, ChatPolicy, Dispatch, Limits};
use strowger_engine::audit::Report;
use strowger_engine::control::{AgentEvent, Audit, Control, Reply};
use strowger_engine::registry::{AgentRow, FlowRow, Registry, RegistryLimits, Rows};
use strowger_engine::{BucketTable, CallInfo, Cdr, Engine, EngineConfig, MeshMsg, Output, StatsHub};
use strowger_sip::endpoint::ListenerInfo;
use strowger_sip::hash::HashKey;
use strowger_sip::net::{ListenerId, Path, Transport};
use strowger_sip::time::{Mono, Now};

pub const ENGINE: &str = "10.0.0.1:5060";
/// The bench drives the engine of shard 0; a test may make that of shard 1 ([`Bench::second_engine`]).
pub const SHARDS: u16 = 2;
pub const START_UNIX_US: u64 = 1_700_000_000_000_000;

/// A message as a phone got it.
#[derive(Clone)]
pub struct Got {
    pub bytes: Vec<u8>,
}

pub struct Bench {
    pub engine: Engine,
    pub dispatch: Arc<Dispatch>,
    pub stats: Arc<StatsHub>,
    pub registry: Registry,
    pub now: Now,
    pub cdrs: Vec<Cdr>,
    pub events: Vec<AgentEvent>,
    pub ladder: Vec<String>,
    pub stamps: Vec<u64>,
    /// Messages to other shards, on their way.
    pub mesh: Vec<(u16, MeshMsg)>,
    /// What the live audit found.
    pub reports: Vec<Report>,
    cfg: Arc<EngineConfig>,
    /// What the journal holds, and what a new process is provisioned with.
    pub journal: reborn::Journal,
    /// That of the second engine, if there is one.
    pub second: reborn::Journal,
    rows: Rows,
    /// Loaded, but this shard does not know of it yet.
    late: Option<Arc<strowger_engine::Provisioning>>,
    policy: ChatPolicy,
    inboxes: BTreeMap<SocketAddr, VecDeque<Vec<u8>>>,
    names: BTreeMap<SocketAddr, String>,
    replies: VecDeque<Reply>,
    /// Time since the last line of the ladder.
    unwritten_us: u64,
}

/// An agent `id` with the location `sip:id@addr`.
pub fn agent(id: &str, addr: &str, skills: &str) -> AgentRow {
    AgentRow {
        agentid: Some(id.into()),
        location: Some(format!("sip:{id}@{addr}")),
        skills: Some(skills.into()),
        logstate: Some(1),
        ..AgentRow::default()
    }
}

/// An agent `id` who takes up to `sessions` chats at `sip:id@addr`, and no audio.
pub fn chatter(id: &str, addr: &str, skills: &str, sessions: i64) -> AgentRow {
    let location = Some(format!("sip:{id}@{addr}"));
    let msrp_max_sessions = Some(sessions);
    AgentRow { location: None, msrp_location: location, msrp_max_sessions, ..agent(id, addr, skills) }
}

/// A flow `id` of priority 256 with music at the media server.
pub fn flow(id: &str, skill: &str) -> FlowRow {
    FlowRow {
        flowid: Some(id.into()),
        skill: Some(skill.into()),
        message_queue: Some("sip:music@10.0.3.1:5060".into()),
        ..FlowRow::default()
    }
}

impl Bench {
    /// Two agents free for `sales` would be `Bench::new(&[flow(..)], &[agent(..), agent(..)])`.
    pub fn new(flows: &[FlowRow], agents: &[AgentRow]) -> Bench {
        Bench::with(flows, agents, |_| {})
    }

    pub fn with(flows: &[FlowRow], agents: &[AgentRow], change: impl FnOnce(&mut EngineConfig)) -> Bench {
        Bench::with_rows(&mut flows.to_vec(), &mut agents.to_vec(), |cfg, _, _| change(cfg))
    }

    /// As [`Bench::with`]; the rows may be changed, too.
    pub fn with_rows(
        flows: &mut Vec<FlowRow>,
        agents: &mut Vec<AgentRow>,
        change: impl FnOnce(&mut EngineConfig, &mut Vec<FlowRow>, &mut Vec<AgentRow>),
    ) -> Bench {
        Bench::with_policy(ChatPolicy::Balancing, flows, agents, change)
    }

    /// As [`Bench::with_rows`], with a policy for chats.
    pub fn with_policy(
        policy: ChatPolicy,
        flows: &mut Vec<FlowRow>,
        agents: &mut Vec<AgentRow>,
        change: impl FnOnce(&mut EngineConfig, &mut Vec<FlowRow>, &mut Vec<AgentRow>),
    ) -> Bench {
        let listeners =
            vec![ListenerInfo { transport: Transport::Udp, via: ENGINE.into(), contact_host: ENGINE.into() }];
        let mut cfg = EngineConfig {
            endpoint: Arc::new(EngineConfig::endpoint(listeners)),
            buckets: Arc::new(BucketTable::even(SHARDS)),
            key: HashKey(1, 2),
            call: Default::default(),
        };
        if reborn::MORTAL {
            cfg.buckets = Arc::new(BucketTable::even(1));
        }
        change(&mut cfg, flows, agents);
        let limits = Limits { shards: SHARDS, agents: 1000, waiting_per_shard: 1000, skills: 100 };
        let dispatch = Arc::new(Dispatch::new(limits, policy));
        let stats = Arc::new(StatsHub::new(SHARDS, 100, 1000));
        let registry = Registry::new(dispatch.handle(SHARDS), RegistryLimits { flows: 100, skills: 100 });
        let now = Now { mono: Mono(1_000_000_000), unix_us: START_UNIX_US };
        let cfg = Arc::new(cfg);
        let engine = Engine::new(cfg.clone(), 0, &dispatch, stats.clone(), registry.current().clone(), [7; 32], now);
        let mut bench = Bench {
            engine,
            dispatch,
            stats,
            registry,
            now,
            cdrs: Vec::new(),
            events: Vec::new(),
            ladder: Vec::new(),
            stamps: Vec::new(),
            mesh: Vec::new(),
            reports: Vec::new(),
            cfg,
            journal: reborn::Journal::default(),
            second: reborn::Journal::default(),
            rows: Rows::default(),
            late: None,
            policy,
            inboxes: BTreeMap::new(),
            names: BTreeMap::new(),
            replies: VecDeque::new(),
            unwritten_us: 0,
        };
        bench.reload(flows, agents);
        bench.events.clear();
        bench
    }

    /// The engine of shard 1, which knows what is loaded now. To drive it, swap it with `engine`.
    pub fn second_engine(&self) -> Engine {
        let prov = self.registry.current().clone();
        Engine::new(self.cfg.clone(), 1, &self.dispatch, self.stats.clone(), prov, [8; 32], self.now)
    }

    /// Loads these rows in place of the ones before.
    pub fn reload(&mut self, flows: &[FlowRow], agents: &[AgentRow]) {
        self.load(flows, agents);
        self.load_arrives();
    }

    fn load(&mut self, flows: &[FlowRow], agents: &[AgentRow]) {
        let rows = Rows { flows: flows.to_vec(), agents: agents.to_vec() };
        self.rows = rows.clone();
        let (prov, faults) = self.registry.load(&rows);
        assert!(faults.is_empty(), "{faults:?}");
        self.late = Some(prov);
    }

    /// Loads rows that another shard has heard of and this one not yet; there the agent logs in by its phone.
    pub fn loads_elsewhere(&mut self, flows: &[FlowRow], agents: &[AgentRow], login: &str) {
        self.load(flows, agents);
        let agent = self.registry.agent(login).expect("it is among the rows");
        let mut made = Vec::new();
        assert!(self.dispatch.handle(2).login(agent, &mut made), "a new agent");
        self.control(Control::Matched(made));
    }

    /// What was loaded comes to this shard, too.
    pub fn load_arrives(&mut self) {
        let prov = self.late.take().expect("something loaded");
        self.control(Control::Provision(prov));
        let mut made = Vec::new();
        while self.registry.commit(16, &mut made) {}
        self.control(Control::Matched(made));
    }

    pub fn control(&mut self, command: Control) -> Reply {
        self.engine.handle_control(self.now, 1, command);
        self.drain();
        self.crash();
        self.replies.pop_front().expect("every command has an answer")
    }

    pub fn login(&mut self, id: &str, on: bool) {
        let agent = self.registry.agent(id).expect("known agent");
        assert!(matches!(self.control(Control::Login { agent, on }), Reply::Done));
    }

    /// A phone at this address.
    pub fn phone(&mut self, name: &str, addr: &str) -> Phone {
        let addr: SocketAddr = addr.parse().unwrap();
        self.names.insert(addr, name.to_owned());
        Phone::new(name, addr)
    }

    pub fn datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        let line = self.ladder_line(from, bytes, true);
        self.write(line);
        self.engine.handle_datagram(self.now, Path::udp(from, ListenerId(0)), bytes);
        self.drain();
        self.crash();
    }

    /// Takes what the engine put out, until it has nothing more.
    pub fn drain(&mut self) {
        self.commit();
        while let Some(transmit) = self.engine.poll_transmit() {
            let bytes = self.engine.bytes(&transmit).to_vec();
            let to = transmit.path.remote;
            if transmit.stamp != 0 {
                self.stamps.push(self.now.mono.0 - transmit.stamp);
            }
            if self.unseen(to, &bytes) {
                self.engine.sent(transmit);
                continue;
            }
            let line = self.ladder_line(to, &bytes, false);
            self.write(line);
            self.inboxes.entry(to).or_default().push_back(bytes);
            self.engine.sent(transmit);
        }
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Cdr(cdr) => {
                    self.write(format!("    CDR {}", cdr_line(&cdr)));
                    self.cdrs.push(cdr);
                }
                Output::AgentEvent(event) => self.events.push(event),
                Output::Reply { reply, .. } => self.replies.push_back(reply),
                Output::Mesh { to, msg } => self.mesh.push((to, msg)),
                Output::Audited(report) => self.reports.push(*report),
            }
        }
        while let Some(resolve) = self.engine.poll_resolve() {
            self.write(format!("    resolve {}", resolve.host));
        }
    }

    /// Lets time pass; every timer fires at its own time.
    pub fn wait_ms(&mut self, ms: u64) {
        let until = self.now.mono.plus_us(ms * 1000);
        while let Some(due) = self.engine.next_due().filter(|d| *d <= until) {
            self.set_mono(due.max(self.now.mono));
            self.engine.handle_timers(self.now);
            self.drain();
            self.crash();
            assert!(self.engine.next_due().is_none_or(|d| d > due), "stuck at {due:?} {:?}", self.engine.audit());
        }
        self.set_mono(until);
    }

    /// Lets time pass until something comes for this phone, at most so long.
    pub fn wait_for(&mut self, addr: SocketAddr, most_ms: u64) {
        let until = self.now.mono.plus_us(most_ms * 1000);
        while self.inboxes.get(&addr).is_none_or(VecDeque::is_empty) && self.now.mono < until {
            self.wait_ms(1);
        }
    }

    fn set_mono(&mut self, to: Mono) {
        let passed = to.since(self.now.mono);
        self.unwritten_us += passed;
        self.now = Now { mono: to, unix_us: self.now.unix_us + passed };
    }

    pub fn next_for(&mut self, addr: SocketAddr) -> Option<Got> {
        self.inboxes.get_mut(&addr)?.pop_front().map(|bytes| Got { bytes })
    }

    pub fn agent_state(&self, id: &str) -> AgentState {
        let agent = self.registry.agent(id).expect("known agent");
        self.dispatch.agent(agent).expect("live agent").state
    }

    pub fn calls(&mut self) -> Vec<CallInfo> {
        match self.control(Control::ListCalls { from: 0, max: 1000, queued_only: false }) {
            Reply::Calls { calls, .. } => calls,
            other => panic!("{other:?}"),
        }
    }

    /// One agent's counter.
    pub fn agent_count(&self, id: &str, read: impl Fn(&strowger_engine::stats::AgentCounts) -> i64) -> i64 {
        self.stats.agent(self.registry.agent(id).expect("known agent").slot, read)
    }

    /// One flow's counter.
    pub fn flow_count(&self, id: &str, read: impl Fn(&strowger_engine::stats::FlowCounts) -> i64) -> i64 {
        let flow = self.registry.current().flow(id).expect("known flow");
        self.stats.flow(flow.idx, read)
    }

    /// After everything ended: waits long enough, then nothing may be left.
    pub fn assert_rest(&mut self) {
        self.wait_ms(120_000);
        self.engine.idle();
        assert_eq!(self.engine.audit(), Audit::default(), "something is left\n{}", self.ladder.join("\n"));
        for id in self.registry.current().agents_by_id.keys().cloned().collect::<Vec<_>>() {
            let state = self.agent_state(&id);
            assert!(matches!(state, AgentState::Free | AgentState::Offline), "{id} is {state:?}");
        }
        for flow in self.registry.current().flows.values() {
            assert_eq!(self.stats.flow(flow.idx, |f| f.onhold.get()), 0, "on hold");
            assert_eq!(self.stats.flow(flow.idx, |f| f.onhold_chats.get()), 0, "chats on hold");
            assert_eq!(self.stats.flow(flow.idx, |f| f.queued.get()), 0, "queued");
            assert_eq!(self.stats.flow(flow.idx, |f| f.ongoing.get()), 0, "ongoing");
        }
    }

    /// A line of the ladder, behind the time that has passed since the last one.
    fn write(&mut self, line: String) {
        let ms = std::mem::take(&mut self.unwritten_us) / 1000;
        if ms > 0 {
            self.ladder.push(format!("    ({ms} ms)"));
        }
        self.ladder.push(line);
    }

    pub fn ladder(&self) -> String {
        self.ladder.join("\n")
    }

    fn ladder_line(&self, peer: SocketAddr, bytes: &[u8], incoming: bool) -> String {
        let text = String::from_utf8_lossy(bytes);
        let first = text.lines().next().unwrap_or_default().to_owned();
        let what = match first.strip_prefix("SIP/2.0 ") {
            Some(status) => {
                let cseq = text.lines().find_map(|l| l.strip_prefix("CSeq: ")).unwrap_or_default();
                format!("{status} ({})", cseq.split(' ').nth(1).unwrap_or_default())
            }
            None => first.split(' ').next().unwrap_or_default().to_owned(),
        };
        let sdp = text.lines().find_map(|l| l.strip_prefix("s=")).map(|s| format!(" [{s}]")).unwrap_or_default();
        let sdp = if text.contains("a=inactive") { " [inactive]".to_owned() } else { sdp };
        let name = self.names.get(&peer).cloned().unwrap_or_else(|| peer.to_string());
        if incoming { format!("{name:>8} -> {what}{sdp}") } else { format!("{name:>8} <- {what}{sdp}") }
    }
}

pub fn cdr_line(cdr: &Cdr) -> String {
    format!(
        "type {} agent {} fstats {} rejected {} wait {}s pickup {}s talk {}s cause {}",
        cdr.call_type as i8,
        cdr.agent.as_ref().map_or("-", |a| &a.agentid),
        cdr.fstats,
        cdr.rejected,
        Cdr::seconds(cdr.wait_us),
        Cdr::seconds(cdr.pickup_us),
        cdr.talk_s,
        cdr.cause,
    )
}
