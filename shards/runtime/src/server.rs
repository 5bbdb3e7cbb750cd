//! Starting and stopping the shards, and the control plane's way to them.

use crate::bind::Bound;
use crate::clock::Clock;
use crate::counts::RuntimeCounts;
use crate::door::Door;
use crate::driver::{self, Executor, GlommioDriver, Sleeper};
use crate::error::StartError;
use crate::journal::{Generation, Journal, Keeper};
use crate::latency::{LatencySnapshot, ShardLatency};
use crate::lock::Lock;
use crate::machine::Machine;
use crate::mesh::{self, Bell, Port};
use crate::net::{LocalAddrs, OwnSockets, Sockets};
use crate::outbound::Outbound;
use crate::overload::{OverloadConfig, SourceLimits};
use crate::owner::Router;
use crate::pace::{AuditPace, BusyPoll};
use crate::post::{Line, Mail, Orders, Post, Refused, line, post};
use crate::relay::{Command, Relay, ResolveRequest, Resolved};
use crate::shard::{self, Shard};
use crate::sys;
use socket2::Socket;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use strowger_dispatch::Dispatch;
use strowger_engine::control::{AgentEvent, Control, Reply};
use strowger_engine::journal::{Recovered, Restored};
use strowger_engine::rehearsal::Rehearsal;
use strowger_engine::{Cdr, Engine, EngineConfig, MeshMsg, Provisioning, StatsHub};
use strowger_sip::time::Now;

/// Commands that wait for one shard at most; more make the sender wait.
const COMMANDS: usize = 256;
/// Agent events that wait for the control plane at most; more are lost and counted.
const EVENTS: usize = 65_536;
/// Names that wait for the control plane at most, and answers for a shard.
const RESOLVES: usize = 4096;
/// Pause between two tries to stop a shard that has no room for the command.
const LOOK: Duration = Duration::from_millis(1);

/// What the shards of one process are told.
#[derive(Debug, Clone)]
pub struct ServerSpec {
    pub engine: Arc<EngineConfig>,
    pub shards: u16,
    pub dispatch: Arc<Dispatch>,
    pub stats: Arc<StatsHub>,
    pub provisioning: Arc<Provisioning>,
    /// CDRs on their way to the control plane, all shards together; more wait on their shards.
    pub cdr_capacity: usize,
    pub overload: OverloadConfig,
    /// One core for each shard, where there are enough.
    pub pin: bool,
    /// Real-time priority for the shards, where the process may.
    pub real_time: bool,
    /// So long after work, and before a timer is due, a shard polls instead of sleeping, microseconds.
    pub busy_poll_us: u32,
    /// Seed of tags, branches and Call-IDs.
    pub seed: [u8; 32],
    /// Where the shards' state is kept, if it is; and what was found of the process before.
    pub journal: Option<Arc<Generation>>,
    pub restored: Arc<[Recovered]>,
}

/// The shard that was asked is gone (stopped, or its executor died).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shard {0} is gone")]
pub struct Gone(pub u16);

/// A shard died. The process must end: its calls are lost, and the rest would limp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardFailure {
    pub shard: u16,
    pub reason: String,
}

/// The running shards. Dropped without [`Shards::stop`], they go on until the process ends.
#[derive(Debug)]
pub struct Shards {
    commands: Vec<Commands>,
    resolved: Vec<Line<Resolved>>,
    bells: Arc<[Bell]>,
    executors: Vec<Executor>,
    cdrs: Mail<Cdr>,
    events: Mail<AgentEvent>,
    resolves: Mail<ResolveRequest>,
    failures: flume::Receiver<ShardFailure>,
    latency: Vec<Arc<ShardLatency>>,
    counts: Vec<Arc<RuntimeCounts>>,
    /// By shard: how many of its CDRs, in order, are safe.
    safe_cdrs: Arc<[AtomicU64]>,
    /// Whether sockets are read.
    serving: Arc<AtomicBool>,
    /// Outlives the executors, so that the last turns are synced.
    keeper: Option<Keeper>,
    #[expect(dead_code, reason = "held until the shards are gone")]
    locks: Vec<Lock>,
}

/// All that goes into one shard's thread.
struct Parts {
    shard: u16,
    spec: ServerSpec,
    shares: Vec<Socket>,
    own: OwnSockets,
    locals: Arc<LocalAddrs>,
    mesh: Port<MeshMsg>,
    sleeper: Sleeper,
    relay: Relay,
    latency: Arc<ShardLatency>,
    counts: Arc<RuntimeCounts>,
    journal: Option<Journal>,
    serving: Arc<AtomicBool>,
}

/// The shards' ends of what they share towards the control plane.
struct Outlets {
    cdrs: Post<Cdr>,
    events: Post<AgentEvent>,
    resolves: Post<ResolveRequest>,
    failures: flume::Sender<ShardFailure>,
}

/// The way of commands to one shard. So many are under way at most; of those that nobody waits for any more some may still be in
/// the line, which has room for as many again: a shard that has not taken those either is taken for gone.
#[derive(Debug)]
struct Commands {
    line: Line<Command>,
    /// Touched by the control plane alone: this queue has a lock.
    permits: flume::Sender<()>,
    given: flume::Receiver<()>,
}

impl Commands {
    fn new() -> (Commands, Orders<Command>) {
        let (line, orders) = line(2 * COMMANDS);
        let (permits, given) = flume::bounded(COMMANDS);
        (Commands { line, permits, given }, orders)
    }
}

/// One of a shard's commands under way.
struct Permit<'a>(&'a Commands);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let _ = self.0.given.try_recv();
    }
}

/// A shard that was launched and has not said yet that it serves.
struct Starting {
    shard: u16,
    executor: Executor,
    ready: flume::Receiver<Result<(), String>>,
}

/// Starts the shards; returns when all of them have restored what they take over and have it in their journals. They take
/// commands then, and calls from [`Shards::serve`] on. `build` makes each shard's machine, on the shard's own thread.
///
/// # Errors
/// [`StartError`]; shards that were started are stopped again.
pub fn start_with<M, B>(bound: Bound, spec: ServerSpec, build: B) -> Result<Shards, StartError>
where
    M: Machine,
    B: FnOnce(u16, &ServerSpec, Now) -> M + Clone + Send + 'static,
{
    let Bound { shards, shares, own, locks, .. } = bound;
    if spec.shards != shards || spec.engine.buckets.shards() != shards {
        let configured = if spec.shards == shards { spec.engine.buckets.shards() } else { spec.shards };
        return Err(StartError::ShardsDiffer { bound: shards, configured });
    }
    driver::preflight()?;
    sys::fetch_program();
    let out_of_files = |e: io::Error| StartError::Executor { shard: 0, reason: e.to_string() };
    let mailboxes: Vec<_> = (0..shards).map(|_| driver::mailbox()).collect::<Result<_, _>>().map_err(out_of_files)?;
    let (wakers, sleepers): (Vec<_>, Vec<_>) = mailboxes.into_iter().unzip();
    let ports = mesh::mesh::<MeshMsg>(wakers);
    let bells = ports.first().map_or_else(|| Arc::from([]), Port::bells);
    let (mut running, outlets) = Shards::new(bells, spec.cdr_capacity, locks).map_err(out_of_files)?;
    let locals = Arc::new(LocalAddrs::default());
    let cpus = if spec.pin { sys::allowed_cpus() } else { Vec::new() };
    let (go_in, go) = flume::bounded(usize::from(shards));
    let mut starting = Vec::new();
    for (((shard, shares), mesh), sleeper) in (0..shards).zip(shares).zip(ports).zip(sleepers) {
        let (own, locals, spec) = (Arc::clone(&own), Arc::clone(&locals), spec.clone());
        let (latency, counts) = (Arc::new(ShardLatency::default()), Arc::new(RuntimeCounts::default()));
        let relay = running.connect(&outlets, &latency, &counts);
        let safe = Arc::clone(&running.safe_cdrs);
        let journal = spec.journal.as_ref().and_then(|g| g.journal(shard, safe, Arc::clone(&counts)));
        let serving = Arc::clone(&running.serving);
        let parts = Parts { shard, spec, shares, own, locals, mesh, sleeper, relay, latency, counts, journal, serving };
        let cpu = cpus.get(usize::from(shard)).copied().filter(|_| cpus.len() >= usize::from(shards));
        let (ready_in, ready) = flume::bounded(1);
        let (build, go, failures) = (build.clone(), go.clone(), outlets.failures.clone());
        let name = format!("shard-{shard}");
        match driver::launch(&name, cpu, move || supervised(parts, build, &ready_in, &go, &failures)) {
            Ok(executor) => starting.push(Starting { shard, executor, ready }),
            Err(reason) => {
                running.executors = starting.into_iter().map(|s| s.executor).collect();
                drop(go_in);
                running.stop();
                return Err(driver::explain(shard, shards, reason));
            }
        }
    }
    let outcome = await_ready(&mut running, starting).and_then(|()| match &spec.journal {
        None => Ok(()),
        Some(generation) => {
            let keeper = generation.keep()?;
            generation.complete(&keeper)?;
            running.keeper = Some(keeper);
            Ok(())
        }
    });
    match outcome {
        Ok(()) => {
            for _ in 0..shards {
                // A shard that is gone has been reported.
                let _ = go_in.send(());
            }
            Ok(running)
        }
        Err(error) => {
            drop(go_in);
            running.stop();
            Err(error)
        }
    }
}

impl Shards {
    fn new(bells: Arc<[Bell]>, cdr_capacity: usize, locks: Vec<Lock>) -> io::Result<(Shards, Outlets)> {
        let (cdr_in, cdrs) = post(cdr_capacity)?;
        let (event_in, events) = post(EVENTS)?;
        let (resolve_in, resolves) = post(RESOLVES)?;
        // At most one failure a shard.
        let (failure_in, failures) = flume::bounded(bells.len().max(1));
        let outlets = Outlets { cdrs: cdr_in, events: event_in, resolves: resolve_in, failures: failure_in };
        let (commands, resolved, executors) = (Vec::new(), Vec::new(), Vec::new());
        let (latency, counts) = (Vec::new(), Vec::new());
        let safe_cdrs = bells.iter().map(|_| AtomicU64::new(0)).collect();
        let shards = Shards {
            commands,
            resolved,
            bells,
            executors,
            cdrs,
            events,
            resolves,
            failures,
            latency,
            counts,
            safe_cdrs,
            serving: Arc::default(),
            keeper: None,
            locks,
        };
        Ok((shards, outlets))
    }

    /// The queues of one more shard.
    fn connect(&mut self, to: &Outlets, latency: &Arc<ShardLatency>, counts: &Arc<RuntimeCounts>) -> Relay {
        let (command_in, commands) = Commands::new();
        let (resolved_in, resolved) = line(RESOLVES);
        self.commands.push(command_in);
        self.resolved.push(resolved_in);
        self.latency.push(Arc::clone(latency));
        self.counts.push(Arc::clone(counts));
        Relay {
            commands,
            resolved,
            cdrs: to.cdrs.clone(),
            events: to.events.clone(),
            resolves: to.resolves.clone(),
            waiting: VecDeque::new(),
            replies: VecDeque::new(),
            next_id: 0,
            counts: Arc::clone(counts),
        }
    }
}

/// As [`start_with`], an [`Engine`] a shard.
///
/// # Errors
/// [`StartError`]; shards that were started are stopped again.
pub fn start(bound: Bound, spec: ServerSpec) -> Result<Shards, StartError> {
    start_with(bound, spec, |shard, spec, now| {
        let (config, provisioning) = (Arc::clone(&spec.engine), Arc::clone(&spec.provisioning));
        let mut seed = spec.seed;
        seed[30] ^= shard.to_le_bytes()[0];
        seed[31] ^= shard.to_le_bytes()[1];
        let mut engine = Engine::new(config, shard, &spec.dispatch, Arc::clone(&spec.stats), provisioning, seed, now);
        if !spec.restored.is_empty() {
            let told = engine.restore(now, &spec.restored);
            told.unreadable.iter().for_each(|what| tracing::error!(shard, what, "journal: a record cannot be read"));
            let Restored { calls, legs, transactions, agents, ended, .. } = told;
            tracing::info!(shard, calls, legs, transactions, agents, ended, "restored");
        }
        engine
    })
}

fn await_ready(running: &mut Shards, starting: Vec<Starting>) -> Result<(), StartError> {
    let mut failed = None;
    let shards = running.shards();
    for Starting { shard, executor, ready } in starting {
        let reason = match ready.recv() {
            Ok(outcome) => {
                running.executors.push(executor);
                outcome.err()
            }
            // It ended before it could say anything.
            Err(_) => Some(executor.join().err().unwrap_or_else(|| "its executor ended at once".to_owned())),
        };
        failed = failed.or(reason.map(|reason| (shard, reason)));
    }
    failed.map_or(Ok(()), |(shard, reason)| Err(driver::explain(shard, shards, reason)))
}

/// One shard from its beginning to its end, panics included.
fn supervised<M: Machine>(
    parts: Parts,
    build: impl FnOnce(u16, &ServerSpec, Now) -> M,
    ready: &flume::Sender<Result<(), String>>,
    go: &flume::Receiver<()>,
    failures: &flume::Sender<ShardFailure>,
) {
    let (shard, real_time) = (parts.shard, parts.spec.real_time);
    let life = AssertUnwindSafe(move || {
        let (mut shard, driver) = assemble(parts, build);
        let kept = shard.checkpoint();
        match real_time.then(sys::real_time) {
            None => {}
            Some(Ok(())) => shard.poll.runs_alone(),
            Some(Err(e)) => tracing::warn!(
                shard.id,
                "no real-time priority ({e}): give the process CAP_SYS_NICE or an RLIMIT_RTPRIO of 1"
            ),
        }
        let _ = ready.send(kept.then_some(()).ok_or_else(|| "its journal has no room on the disk".to_owned()));
        // Nobody says go where another has failed.
        if kept && go.recv().is_ok() {
            shard::run(shard, driver);
        }
    });
    if let Err(panic) = catch_unwind(life) {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let reason = text.unwrap_or_else(|| "panic without a text".to_owned());
        tracing::error!(shard, reason, "a shard died");
        // Nobody listens: the process is on its way out.
        let _ = failures.send(ShardFailure { shard, reason });
    }
}

fn assemble<M: Machine>(parts: Parts, build: impl FnOnce(u16, &ServerSpec, Now) -> M) -> (Shard<M>, GlommioDriver) {
    let Parts { shard, spec, shares, own, locals, mesh, sleeper, relay, latency, counts, journal, serving } = parts;
    let sockets = Sockets::new(shard, shares, own, locals);
    let driver = GlommioDriver::new(sockets.fds(), sleeper);
    let mut clock = Clock::default();
    let machine = build(shard, &spec, clock.now().1);
    let key = spec.engine.key;
    let random = u64::from_le_bytes(std::array::from_fn(|i| spec.seed[i])) ^ u64::from(shard) << 48;
    let shard = Shard {
        id: shard,
        machine,
        clock,
        router: Router::new(shard, Arc::clone(&spec.engine.buckets), key),
        sockets,
        mesh,
        relay,
        out: Outbound::default(),
        door: Door::new(&spec.overload, key, random),
        sources: spec.overload.source_rate.map(|rate| SourceLimits::new(rate, key)),
        overload: spec.overload,
        failed: Vec::new(),
        held: VecDeque::new(),
        journal,
        poll: BusyPoll::new(spec.busy_poll_us),
        rehearsal: if spec.busy_poll_us > 0 { Rehearsal::new() } else { None },
        audit_pace: AuditPace::default(),
        serving,
        latency,
        counts,
        stats: spec.stats,
    };
    (shard, driver)
}

impl Shards {
    /// How many there are.
    #[must_use]
    pub fn shards(&self) -> u16 {
        u16::try_from(self.commands.len()).unwrap_or(u16::MAX)
    }

    /// Sends a command to one shard and waits for its answer.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn control(&self, shard: u16, cmd: Control) -> Result<Reply, Gone> {
        let (reply, answer) = flume::bounded(1);
        let commands = self.commands.get(usize::from(shard)).ok_or(Gone(shard))?;
        let permit = commands.permits.send_async(()).await;
        let _permit = permit.map(|()| Permit(commands)).map_err(|_| Gone(shard))?;
        commands.line.send(Command::Control { cmd, reply }).map_err(|_| Gone(shard))?;
        self.ring(shard);
        answer.recv_async().await.map_err(|_| Gone(shard))
    }

    /// As [`Shards::control`], for threads that may block.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn control_blocking(&self, shard: u16, cmd: Control) -> Result<Reply, Gone> {
        let (reply, answer) = flume::bounded(1);
        let commands = self.commands.get(usize::from(shard)).ok_or(Gone(shard))?;
        let _permit = commands.permits.send(()).map(|()| Permit(commands)).map_err(|_| Gone(shard))?;
        commands.line.send(Command::Control { cmd, reply }).map_err(|_| Gone(shard))?;
        self.ring(shard);
        answer.recv().map_err(|_| Gone(shard))
    }

    /// Lets the shards take calls.
    pub fn serve(&self) {
        self.serving.store(true, Ordering::Release);
        (0..self.shards()).for_each(|shard| self.ring(shard));
    }

    fn ring(&self, shard: u16) {
        if let Some(bell) = self.bells.get(usize::from(shard)) {
            bell.ring();
        }
    }

    /// CDRs of all shards. Taking them slowly makes shards keep them, then refuse calls; none is lost.
    #[must_use]
    pub fn cdrs(&self) -> Mail<Cdr> {
        self.cdrs.clone()
    }

    /// Every CDR of that shard up to the sequence number (the low 48 bits of its key) is in a database or spool: its
    /// journal need not keep it any longer. A lower number than before changes nothing.
    pub fn cdrs_safe(&self, shard: u16, sequence: u64) {
        if let Some(safe) = self.safe_cdrs.get(usize::from(shard)) {
            safe.fetch_max(sequence + 1, Ordering::Release);
        }
    }

    /// Agent events of all shards; those that find the queue full are lost (`RuntimeCounts::events_lost`).
    #[must_use]
    pub fn events(&self) -> Mail<AgentEvent> {
        self.events.clone()
    }

    /// Names to look up; answer each with [`Shards::resolved`].
    #[must_use]
    pub fn resolves(&self) -> Mail<ResolveRequest> {
        self.resolves.clone()
    }

    /// The addresses of a name, valid for `ttl_us`; `Err`: it has none. Never waits: an answer to a shard that has
    /// thousands of them unread is dropped, and the shard's own time limit answers instead.
    pub fn resolved(&self, shard: u16, id: u32, result: Result<Vec<IpAddr>, ()>, ttl_us: u64) {
        if let Some(answers) = self.resolved.get(usize::from(shard)) {
            let _ = answers.send(Resolved { id, result, ttl_us });
            self.ring(shard);
        }
    }

    /// Histograms since the start, all shards together.
    #[must_use]
    pub fn latency(&self) -> LatencySnapshot {
        LatencySnapshot::merge(&self.latency)
    }

    /// One shard's own counters.
    #[must_use]
    pub fn counts(&self, shard: u16) -> Option<&RuntimeCounts> {
        self.counts.get(usize::from(shard)).map(|c| &**c)
    }

    /// Tells of each shard that died by a panic. The process should then end with exit code 1.
    #[must_use]
    pub fn failed(&self) -> flume::Receiver<ShardFailure> {
        self.failures.clone()
    }

    /// Stops all shards and waits for them. Calls are not ended (`Control::EndAll` does that) and CDRs must be taken
    /// until this returns.
    pub fn stop(self) {
        for (shard, commands) in (0u16..).zip(&self.commands) {
            // Gone already: fine.
            while let Err(Refused::Full(_)) = commands.line.send(Command::Stop) {
                self.ring(shard);
                std::thread::sleep(LOOK);
            }
            self.ring(shard);
        }
        for executor in self.executors {
            if let Err(error) = executor.join() {
                tracing::error!(%error, "a shard's executor ended badly");
            }
        }
    }
}
