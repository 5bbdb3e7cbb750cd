//! One run: engines, peers, network and operators around one heap of events in virtual time.

use crate::archive::Archive;
use crate::booked::WrapupRules;
use crate::check::{self, Checked, Ledger, Violation};
use crate::crash::Ends;
use crate::desk::Reload;
use crate::door::{Doors, Pressure};
use crate::hazards::{Hazards, LONGEST_STALL_US, MOST_SHARDS};
use crate::heap::{Event, Item};
use crate::hear::Said;
use crate::placing::Expected;
use crate::plan::{self, MOST_AGENTS, Options, Plan, SECOND};
use crate::records::Records;
use crate::rng::Rng;
use crate::room::draw_squeezes;
use crate::rules::{Asked, Guide, draw_refusals};
use crate::stages::Crowd;
use crate::text::{self, Bytes, ENGINE};
use crate::trace::Trace;
use crate::ua::{Act, Dialog, Kind, Phase, Tick};
use crate::watch::FLOW_SLOTS;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use strowger_dispatch::{Dispatch, Limits};
use strowger_engine::control::Audit;
use strowger_engine::registry::{Registry, RegistryLimits};
use strowger_engine::{BucketTable, Control, Engine, EngineConfig, MeshMsg, Provisioning, StatsHub};
use strowger_sip::endpoint::{EndpointConfig, ListenerInfo};
use strowger_sip::hash::HashKey;
use strowger_sip::net::{ListenerId, Path, Transport};
use strowger_sip::time::{Mono, Now};

/// Unix time of the start, microseconds.
pub(crate) const EPOCH: u64 = 1_700_000_000 * SECOND;
/// A run that is not at rest this long after the faults stopped does not come to rest. (Wrap-ups of 30 s after dozens of chats
/// add up.)
const REST_US: u64 = 3600 * SECOND;
const MOST_STEPS: u64 = 3_000_000;
pub(crate) const KEY: HashKey = HashKey(7, 11);

pub struct World {
    pub plan: Plan,
    pub now: u64,
    pub seen: BTreeMap<&'static str, u64>,
    pub ledger: Ledger,
    pub dialogs: Vec<Dialog>,
    pub engines: Vec<Engine>,
    pub dispatch: Arc<Dispatch>,
    pub stats: Arc<StatsHub>,
    pub registry: Registry,
    pub trace: Trace,
    pub steps: u64,
    pub calm: bool,
    seq: u64,
    heap: BinaryHeap<Item>,
    pub(crate) cfg: Arc<EngineConfig>,
    pub(crate) timer_at: Vec<u64>,
    /// The ends of the process, and what its shards' journals hold.
    pub(crate) ends: Ends,
    pub(crate) by_call: HashMap<(SocketAddr, String), u32>,
    pub(crate) net: Rng,
    pub(crate) peers: Rng,
    pub(crate) desk: Rng,
    pub(crate) reload: Option<Reload>,
    pub(crate) reloads_wanted: u32,
    /// Matches between shards.
    pub(crate) in_flight: u32,
    pub(crate) next_command: u64,
    pub(crate) out: Vec<(SocketAddr, Bytes)>,
    pub(crate) timers: Vec<(u64, u32, Tick)>,
    pub(crate) wrongs: Vec<String>,
    /// What the flows' counters said before this step.
    pub(crate) crowds: Vec<Crowd>,
    /// The control plane's own hand for matching.
    pub(crate) matcher: strowger_dispatch::Handle,
    /// Shards that take no new calls: they were told to end all.
    pub(crate) drained: [bool; MOST_SHARDS as usize],
    pub(crate) foreseen: Option<Expected>,
    /// When the last reload was done.
    pub(crate) reloaded: u64,
    /// Draws for what came later than the runs of `net`.
    pub(crate) extra: Rng,
    /// Which addresses become names, and whether these are found.
    pub(crate) names: Rng,
    /// How far the wall clock has been from the truth.
    pub(crate) skews: Vec<i64>,
    pub(crate) records: Records,
    pub(crate) doors: Doors,
    /// What an engine has said in this step, in order.
    pub(crate) said: Vec<Said>,
}

impl World {
    #[must_use]
    pub fn new(seed: u64, options: &Options) -> World {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::draw(&mut rng, options);
        let mut ends = Ends::draw(seed, options, &mut plan);
        // Draws of their own, so that runs without rules stay as they are.
        let mut guide = Rng::new(seed ^ 0x7275_6c65_7300_0000);
        plan.guide = Guide::draw(&mut guide);
        plan.hazards = Hazards::draw(&mut Rng::new(seed ^ 0x6861_7a61_7264_0000), plan.faults_us, plan.calls);
        plan.hazards.draw_more(&mut Rng::new(seed ^ 0x6d6f_7265_0000_0000), plan.faults_us);
        plan.hazards.pressure = Pressure::draw(&mut Rng::new(seed ^ 0x7072_6573_7300_0000));
        plan.hazards.squeezes = draw_squeezes(&mut Rng::new(seed ^ 0x726f_6f6d_0000_0000), plan.faults_us);
        plan.hazards.ages = Rng::new(seed ^ 0x6167_6573_0000_0000).chance(500);
        for (bit, (_, leave_out)) in plan::SUBJECTS.iter().enumerate() {
            if options.without >> bit & 1 == 1 {
                leave_out(&mut plan);
            }
        }
        if options.crashes {
            plan.hazards.clock = Vec::new(); // Whoever starts knows no other clock.
        } else {
            plan.hazards.squeezes = Vec::new(); // No journal is kept.
        }
        if plan.hazards.shards > 0 && options.shards == 0 {
            plan.shards = plan.hazards.shards;
        }
        if !plan.hazards.partitions.is_empty() || plan.hazards.damage > 0 {
            // What loss explains, they explain.
            plan.net.loss = plan.net.loss.max(1);
        }
        if !plan.guide.drawn.is_empty() {
            plan.call.rules = plan.guide.compiled();
            plan.call.refusals = draw_refusals(&mut guide);
        }
        ends.begin(plan.shards);
        if plan.hazards.power {
            ends.draw_power(seed, plan.faults_us);
        }
        let mut archive = Archive::draw(seed, plan.faults_us);
        if !plan.hazards.records {
            archive.without_troubles();
        }
        let mut doors = Doors::new(seed, &plan.hazards.pressure);
        doors.begin(plan.shards);
        let (dispatch, stats) = shared(&plan);
        let buckets = Arc::new(BucketTable::even(plan.shards));
        let listener =
            ListenerInfo { transport: Transport::Udp, via: ENGINE.to_owned(), contact_host: ENGINE.to_owned() };
        let endpoint = Arc::new(EndpointConfig {
            listeners: vec![listener],
            bad_from: plan.call.refusals.bad_from,
            ..EndpointConfig::default()
        });
        let cfg = Arc::new(EngineConfig { endpoint, buckets, key: KEY, call: plan.call.clone() });
        let (registry, prov) = provisioned(&plan, &dispatch);
        let now = Now { mono: Mono(SECOND), unix_us: EPOCH + SECOND };
        let engine = |shard: u16, rng: &mut Rng| {
            let mut key = [0; 32];
            key.chunks_mut(8).for_each(|c| c.copy_from_slice(&rng.draw().to_le_bytes()));
            Engine::new(cfg.clone(), shard, &dispatch, stats.clone(), prov.clone(), key, now)
        };
        let matcher = dispatch.handle(plan.shards);
        let engines: Vec<Engine> = (0..plan.shards).map(|s| engine(s, &mut rng)).collect();
        let way_us = if plan.shards > 1 || options.crashes { plan.net.mesh_us } else { 0 };
        let way_us = way_us + if plan.hazards.stalls.is_empty() { 0 } else { LONGEST_STALL_US };
        let wrapups = WrapupRules {
            global_us: plan.call.wrapup_us,
            reject_backoff_us: plan.call.reject_backoff_us,
            min_talk_us: plan.call.min_talk_us,
            way_us,
        };
        let mut world = World {
            now: SECOND,
            seen: BTreeMap::new(),
            ledger: Ledger::new(plan.calls, 2 * MOST_AGENTS, wrapups, &plan.call),
            dialogs: Vec::new(),
            timer_at: vec![u64::MAX; engines.len()],
            engines,
            dispatch,
            stats,
            registry,
            trace: Trace::new(options.trace),
            steps: 0,
            calm: false,
            seq: 0,
            heap: BinaryHeap::new(),
            cfg,
            ends,
            by_call: HashMap::new(),
            net: rng.fork(),
            peers: rng.fork(),
            desk: rng.fork(),
            reload: None,
            reloads_wanted: 0,
            in_flight: 0,
            next_command: 0,
            out: Vec::new(),
            timers: Vec::new(),
            wrongs: Vec::new(),
            crowds: vec![Crowd::default(); FLOW_SLOTS],
            matcher,
            drained: [false; MOST_SHARDS as usize],
            foreseen: None,
            reloaded: 0,
            extra: Rng::new(seed ^ 0x6d6f_7265_0000_0001),
            names: Rng::new(seed ^ 0x6e61_6d65_7300_0000),
            skews: vec![0],
            records: Records::new(archive),
            doors,
            said: Vec::new(),
            plan,
        };
        world.populate(&mut guide, options.absent);
        world
    }

    /// Callers and operators are put on the heap.
    fn populate(&mut self, guide: &mut Rng, absent: u64) {
        for n in 0..self.plan.calls {
            let addr = SocketAddr::from(([10, 3, (n >> 8) as u8, n as u8], 5060));
            let call_id = format!("call{n}@sim");
            let mut d = Dialog::new(n, Kind::Caller, n, addr, &call_id);
            d.flow = self.desk.below(u64::from(plan::MOST_FLOWS)) as u32;
            if !self.desk.chance(50) {
                d.flow %= self.plan.rows.flows.len().max(1) as u32;
            }
            d.local = format!("<sip:c{n}@{}>;tag={}", addr.ip(), d.tag);
            d.remote = format!("<sip:f{}@10.0.0.1>", d.flow);
            d.target = format!("sip:f{}@{ENGINE}", d.flow);
            d.asks = Asked { user: Some(plan::flow_id(d.flow)), ..Asked::default() };
            if !self.plan.guide.drawn.is_empty() {
                d.asks = Asked::draw(guide, d.flow);
                d.target =
                    d.asks.user.as_ref().map_or_else(|| format!("sip:{ENGINE}"), |u| format!("sip:{u}@{ENGINE}"));
                if d.asks.bad_from {
                    d.local = format!("<sip:@{}>;tag={}", addr.ip(), d.tag);
                }
            }
            self.by_call.insert((addr, call_id), n);
            self.dialogs.push(d);
            let at = self.now + self.desk.below(self.plan.faults_us);
            if n >= 64 || absent >> n & 1 == 0 {
                self.push(at, Event::Peer { dialog: n, tick: Tick::Act(Act::Dial) });
            }
        }
        let drains = std::mem::take(&mut self.plan.hazards.drains);
        for step in &self.plan.hazards.clock.clone() {
            self.push(self.now + step.at_us, Event::SetClock(step.skew_us));
        }
        for (at, op) in std::mem::take(&mut self.plan.ops).into_iter().chain(drains) {
            self.push(self.now + at, Event::Operate(op));
        }
        for squeeze in std::mem::take(&mut self.plan.hazards.squeezes) {
            self.push(self.now + squeeze.from_us, Event::Room(Some(squeeze.files)));
            self.push(self.now + squeeze.until_us, Event::Room(None));
        }
        self.push(self.now + self.plan.faults_us, Event::Calm);
        for (at, end) in std::mem::take(&mut self.ends.planned) {
            self.push(self.now + at, Event::Crash(end));
        }
    }

    /// What is on its way inside the process goes with it; true keeps an event.
    pub(crate) fn forget(&mut self, keep: impl Fn(&Event) -> bool) -> Vec<Event> {
        let (kept, gone): (Vec<Item>, Vec<Item>) =
            std::mem::take(&mut self.heap).into_iter().partition(|i| keep(&i.event));
        self.heap = kept.into();
        gone.into_iter().map(|item| item.event).collect()
    }

    pub(crate) fn push(&mut self, at: u64, event: Event) {
        self.seq += 1;
        self.heap.push(Item { at, seq: self.seq, event });
    }

    /// Runs until nothing is left to happen.
    ///
    /// # Errors
    /// The first property that does not hold.
    pub fn run(&mut self) -> Checked {
        let now = self.clock();
        for (shard, engine) in (0..).zip(&mut self.engines) {
            self.ends.commit(shard, engine, now)?; // A journal is kept from the start.
        }
        self.agents_are_true()?;
        let end = self.plan.faults_us + REST_US + self.plan.hazards.latest_us();
        while let Some(item) = self.heap.pop() {
            if matches!(item.event, Event::Timers(shard) if self.timer_at.get(usize::from(shard)) != Some(&item.at)) {
                continue; // Replaced by an earlier one.
            }
            self.now = self.now.max(item.at);
            self.steps += 1;
            if self.now > end || self.steps > MOST_STEPS {
                let audits: Vec<_> =
                    self.engines.iter().map(Engine::audit).filter(|a| *a != Audit::default()).collect();
                let alive = self.dialogs.iter().filter(|d| d.phase != Phase::Over && !d.dead);
                let alive: Vec<String> = alive.map(|d| format!("{} of c{} {:?}", d.name(), d.call, d.phase)).collect();
                let what = format!("no rest after {} steps: engines {audits:?}, peers {alive:?}", self.steps);
                return Err(Violation::new(what));
            }
            self.step(item.event)?;
        }
        Ok(())
    }

    /// Where an event is for a shard that does nothing now: until when.
    fn waits_for(&self, event: &Event) -> Option<u64> {
        let shard = match event {
            Event::ToEngine { bytes, .. } => self.owner(bytes)?,
            Event::Timers(shard)
            | Event::NewCall(shard)
            | Event::Command { shard, .. }
            | Event::Name { shard, .. }
            | Event::Mesh { to: shard, .. } => *shard,
            _ => return None,
        };
        self.plan.hazards.stalled(self.now, shard)
    }

    fn step(&mut self, event: Event) -> Checked {
        if !self.plan.hazards.stalls.is_empty()
            && let Some(until) = self.waits_for(&event)
        {
            self.saw("a shard stalled");
            let shard = match event {
                Event::Timers(shard) => shard,
                Event::ToEngine { from, bytes, waited } => {
                    let waited = waited + until - self.now;
                    self.push(until, Event::ToEngine { from, bytes, waited });
                    return Ok(());
                }
                _ => {
                    self.push(until, event);
                    return Ok(());
                }
            };
            // A turn of the runtime takes in what waits before it fires timers: a request that was sent twice must not
            // find its transaction over just because both waited.
            let timer_at = &mut self.timer_at[usize::from(shard)];
            if *timer_at == self.now {
                *timer_at = until + 1;
                self.push(until + 1, event);
            }
            return Ok(());
        }
        self.ledger.stages.behind = self.plan.hazards.is_behind(self.now);
        let now = self.clock();
        match event {
            Event::ToEngine { from, bytes, waited } => {
                // Nobody listens for a moment after the end of a process.
                let Some(shard) = self.owner(&bytes).filter(|_| self.now >= self.ends.deaf_until) else {
                    return Ok(());
                };
                self.arrives(shard, from, &bytes, waited)
            }
            Event::NewCall(shard) => self.on_new_call(shard),
            Event::Timers(shard) => {
                self.timer_at[usize::from(shard)] = u64::MAX;
                self.fire(shard);
                self.after(shard, true)?;
                self.moves_are_right(false)
            }
            Event::Mesh { to, msg } => {
                match &msg {
                    MeshMsg::Matched { matched, .. } => self.match_comes(*matched),
                    MeshMsg::ChatOver(_) => self.in_flight -= 1,
                }
                self.engines[usize::from(to)].handle_mesh(now, msg);
                self.after(to, false)?;
                self.moves_are_right(false)
            }
            Event::Command { shard, id, command } => {
                let placed = matches!(*command, Control::Place { .. });
                let matched = if let Control::Matched(matches) = &*command {
                    matches.iter().for_each(|m| self.match_comes(*m));
                    true
                } else {
                    false
                };
                let agent = self.agent_in(&command);
                self.trace.note(self.now, None, agent, || format!("shard {shard}: {}", describe(&command)));
                self.foresee(id, &command);
                match *command {
                    Control::EndAll => self.drained[usize::from(shard)] = true,
                    Control::Drain { on } => self.drained[usize::from(shard)] = on,
                    _ => {}
                }
                self.engines[usize::from(shard)].handle_control(now, id, *command);
                self.after_of(shard, !matched && !placed, placed)?;
                self.moves_are_right(false)
            }
            Event::ToPeer { to, bytes } => {
                self.deliver(to, &bytes);
                self.peers_done()
            }
            Event::Peer { dialog, tick } => {
                if tick == Tick::Act(Act::Leave) {
                    self.both_hear_each_other(dialog)?;
                }
                self.with_peer(dialog, |d, ctx| d.wake(ctx, tick));
                self.peers_done()
            }
            Event::Operate(op) => {
                self.operate(op);
                Ok(())
            }
            Event::Commit => {
                self.commit()?;
                self.agents_are_true()
            }
            Event::Calm => {
                self.calm_down();
                Ok(())
            }
            Event::Crash(end) => self.end(end),
            Event::Records => self.on_records(),
            Event::Room(files) => {
                self.set_room(files);
                Ok(())
            }
            Event::SetClock(skew_us) => {
                self.set_clock(skew_us);
                Ok(())
            }
            Event::Name { shard, id, address } => {
                // It fires what is due; of several timers each is to be heard by itself.
                self.fire(shard);
                let found = address.as_ref().map(std::slice::from_ref).ok_or(());
                self.engines[usize::from(shard)].handle_resolved(now, id, found, 10 * SECOND);
                self.after(shard, true)?;
                self.moves_are_right(false)
            }
        }
    }

    /// A shard's engine gets a datagram.
    pub(crate) fn work(&mut self, shard: u16, from: SocketAddr, bytes: &[u8]) -> Checked {
        let mut begun = None;
        if let Some(msg) = text::parse(bytes) {
            begun = self.foretell(shard, &msg);
            let before = self.ledger.early.len();
            self.ledger.engine_gets(&msg, self.now);
            if self.ledger.early.len() > before {
                self.saw("hang-up before its answer");
            }
            self.trace.message(self.now, from, None, shard, &msg);
        }
        let (now, path) = (self.clock(), Path::udp(from, ListenerId(0)));
        self.engines[usize::from(shard)].handle_datagram(now, path, bytes);
        self.after(shard, true)?;
        self.moment_is_over()?;
        begun.map_or(Ok(()), |call| self.feature_code_worked(call))?;
        self.moves_are_right(true)
    }

    /// The one agent whom a command concerns.
    fn agent_in(&self, command: &Control) -> Option<u32> {
        let agent = match command {
            Control::Login { agent, .. } | Control::Place { agent, .. } => *agent,
            Control::Matched(matches) => matches.first()?.agent,
            _ => return None,
        };
        self.registry.current().agent(agent).map(|def| check::agent_number(&def.agentid))
    }

    pub fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }
}

/// What all shards of a process share.
pub(crate) fn shared(plan: &Plan) -> (Arc<Dispatch>, Arc<StatsHub>) {
    let limits = Limits { shards: plan.shards, agents: 64, waiting_per_shard: 4096, skills: 16 };
    (Arc::new(Dispatch::new(limits, plan.policy)), Arc::new(StatsHub::new(plan.shards, 64, 64)))
}

/// The plan's rows, loaded.
pub(crate) fn provisioned(plan: &Plan, dispatch: &Arc<Dispatch>) -> (Registry, Arc<Provisioning>) {
    let mut registry = Registry::new(dispatch.handle(plan.shards), RegistryLimits { flows: 64, skills: 16 });
    let (prov, _) = registry.load(&plan.rows);
    while registry.commit(100, &mut Vec::new()) {}
    (registry, prov)
}

fn describe(command: &Control) -> String {
    match command {
        Control::Provision(p) => format!("provisioning {}", p.version),
        Control::Matched(m) => format!("matched {m:?}"),
        other => format!("{other:?}"),
    }
}
