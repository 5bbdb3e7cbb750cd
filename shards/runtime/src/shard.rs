//! THE loop: one shard, its sockets, its machine, its end of the mesh. [`run`] is where to begin.
//!
//! A turn takes a bounded amount from each source (control plane, other shards, sockets, the backlog of new calls,
//! timers), drains the machine's outputs after each input, and sends in batches. Without work the shard naps, then
//! collects garbage and parks until something is readable, somebody rings, or a timer is due.
//!
//! Invariants
//! - The machine is touched by this thread alone, and its outputs are drained before its next input.
//! - Nothing that an input caused leaves the shard before the journal has what it changed: messages and outputs are held
//!   until [`Shard::commit`].
//! - Nothing in a turn blocks, locks or (in steady state) allocates.
//! - No queue starves another: each has its cap a turn; [`Turn::more`] says that one was reached, and then the shard
//!   does not sleep.

use crate::clock::{Clock, mono_ns, thread_cpu_ns};
use crate::counts::{self, RuntimeCounts};
use crate::door::{Door, Entry};
use crate::driver::Driver;
use crate::journal::Journal;
use crate::latency::{ShardLatency, stamp_ns};
use crate::machine::Machine;
use crate::mesh::{Item, Label, Parcel, Port};
use crate::net::{BATCH, Datagram, Inlet, RxBatch, Sockets};
use crate::outbound::{Cause, Outbound};
use crate::overload::{OverloadConfig, SourceLimits};
use crate::owner::{Route, Router};
use crate::pace::{AuditPace, BusyPoll};
use crate::relay::{Command, Relay, ResolveRequest};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use strowger_engine::audit::{Report, describe};
use strowger_engine::rehearsal::Rehearsal;
use strowger_engine::{MeshMsg, Output, StatsHub};
use strowger_sip::endpoint::Transmit;
use strowger_sip::net::Path;
use strowger_sip::scan::Class;
use strowger_sip::time::{Mono, Now};

/// Most of each kind a turn.
const COMMANDS: usize = 64;
const MESH_ITEMS: usize = 256;
const BATCHES: usize = 8;
/// Datagrams that are asked for first.
const FIRST: usize = 8;
const NEW_CALLS: usize = 64;
const REFUSALS: usize = 512;
/// When something waits for another's room (a full ring, channel or socket), look again after this.
const RETRY_NS: u64 = 1_000_000;

/// What a shard is made of.
pub(crate) struct Shard<M> {
    pub id: u16,
    pub machine: M,
    pub clock: Clock,
    pub router: Router,
    pub sockets: Sockets,
    pub mesh: Port<MeshMsg>,
    pub relay: Relay,
    pub out: Outbound,
    pub overload: OverloadConfig,
    pub door: Door,
    pub sources: Option<SourceLimits>,
    pub failed: Vec<Transmit>,
    /// Outputs that wait for the commit.
    pub held: VecDeque<Output>,
    pub journal: Option<Journal>,
    pub poll: BusyPoll,
    /// What a shard that polls does meanwhile, if calls wait.
    pub rehearsal: Option<Rehearsal>,
    pub audit_pace: AuditPace,
    /// Whether sockets are read.
    pub serving: Arc<AtomicBool>,
    pub latency: Arc<ShardLatency>,
    pub counts: Arc<RuntimeCounts>,
    pub stats: Arc<StatsHub>,
}

/// What a turn found.
#[derive(Debug, Default, Clone, Copy)]
struct Turn {
    /// It did something.
    worked: bool,
    /// It left something that could be done at once.
    more: bool,
    stop: bool,
    /// CPU time of the thread when the turn's first command was taken.
    commanded_at_cpu: Option<u64>,
}

/// Runs until the control plane says stop.
pub(crate) fn run<M: Machine, D: Driver>(mut shard: Shard<M>, mut driver: D) {
    let mut rx = RxBatch::default();
    let inlets: Vec<Inlet> = shard.sockets.inlets().collect();
    // Those that may have something.
    let mut ready = inlets.clone();
    loop {
        let turn = shard.turn(&mut rx, &ready);
        if turn.stop {
            return;
        }
        ready.clone_from(&inlets);
        if turn.more {
            continue;
        }
        if shard.poll.goes_on(turn.worked, mono_ns, shard.due_ns()) {
            shard.rehearse(turn.worked);
            continue;
        }
        if shard.arm_and_look() {
            continue;
        }
        let mut tidied = false;
        if !driver.nap(shard.wake_at()) {
            shard.machine.idle();
            shard.drain(None);
            shard.flush();
            tidied = shard.tidy();
            if !tidied {
                driver.park(shard.wake_at());
            }
        }
        shard.poll.woke(mono_ns);
        ready.retain(|inlet| driver.readable(inlet.index));
        shard.mesh.bell().disarm();
        if !tidied {
            shard.awake();
        }
    }
}

impl<M: Machine> Shard<M> {
    /// Has the journal hold what the machine begins with; false when there is no room.
    pub fn checkpoint(&mut self) -> bool {
        self.commit();
        !self.journal.as_ref().is_some_and(Journal::is_full)
    }

    fn turn(&mut self, rx: &mut RxBatch, inlets: &[Inlet]) -> Turn {
        let began = mono_ns();
        let mut turn = Turn::default();
        self.take_commands(&mut turn);
        self.take_mesh(&mut turn);
        if self.serving.load(Ordering::Relaxed) {
            for inlet in inlets {
                self.take_datagrams(*inlet, rx, &mut turn);
            }
        }
        self.take_new_calls(&mut turn);
        self.fire_timers(&mut turn);
        self.audit(began);
        self.flush();
        self.relay.pass_cdrs();
        if turn.worked {
            self.latency.turn.record(stamp_ns().saturating_sub(began));
        }
        if let Some(cpu) = turn.commanded_at_cpu {
            self.latency.command_cpu.record(thread_cpu_ns() - cpu);
        }
        turn
    }

    /// Has the processor's caches hold what the next free agent will need, a message at a time; not right after work: more may
    /// have come meanwhile.
    fn rehearse(&mut self, worked: bool) {
        if !worked
            && self.machine.waits()
            && let Some(rehearsal) = &mut self.rehearsal
        {
            rehearsal.step();
        }
    }

    /// When the next timer is due, monotonic nanoseconds.
    fn due_ns(&self) -> Option<u64> {
        self.machine.next_due().map(|Mono(us)| us.saturating_mul(1000))
    }

    /// Arms the bell; true when something has come in meanwhile (sockets are watched by the wait itself).
    fn arm_and_look(&mut self) -> bool {
        self.mesh.bell().waits(self.machine.waits());
        self.mesh.bell().arm();
        let found = self.mesh.waiting() || self.relay.waiting_for_us();
        if found {
            self.mesh.bell().disarm();
        }
        found
    }

    /// Work may begin. Woken because another's does, this one looks out for what comes of it, else it wakes those, if time counts
    /// for more than the processor's.
    fn awake(&mut self) {
        if self.mesh.bell().take_alert() {
            self.poll.look_out(mono_ns());
        } else if self.poll.ns > 0 && !self.mesh.waiting() {
            self.mesh.alert();
        }
    }

    /// When to wake up at the latest, monotonic nanoseconds.
    fn wake_at(&self) -> Option<u64> {
        let due = self.due_ns().map(|due| self.poll.wake_for(due));
        let due = [due, self.audit_due_ns()].into_iter().flatten().min();
        if self.mesh.backed_up() || self.out.is_blocked() || !self.relay.waiting.is_empty() {
            let retry = mono_ns() + RETRY_NS;
            return Some(due.map_or(retry, |due| due.min(retry)));
        }
        due
    }

    fn take_commands(&mut self, turn: &mut Turn) {
        for _ in 0..COMMANDS {
            let Some(command) = self.relay.commands.take() else { break };
            turn.worked = true;
            turn.commanded_at_cpu.get_or_insert_with(thread_cpu_ns);
            match command {
                Command::Stop => turn.stop = true,
                Command::Control { cmd, reply } => {
                    let id = self.relay.expect(reply);
                    let now = self.now();
                    self.machine.handle_control(now, id, cmd);
                    self.drain(None);
                }
            }
        }
        for _ in 0..COMMANDS {
            let Some(answer) = self.relay.resolved.take() else { break };
            turn.worked = true;
            let now = self.now();
            self.machine.handle_resolved(now, answer.id, answer.result.as_deref().or(Err(())), answer.ttl_us);
            self.drain(None);
        }
        turn.more |= self.relay.waiting_for_us();
    }

    fn take_mesh(&mut self, turn: &mut Turn) {
        for from in 0..self.mesh.shards() {
            let pressed = self.mesh.depth(from) >= BATCH || self.door.waiting() > 0;
            for _ in 0..MESH_ITEMS {
                let Some(item) = self.mesh.receive(from) else { break };
                turn.worked = true;
                let (ns, now) = self.clock.now();
                match item {
                    Item::Msg { msg, sent_ns } => {
                        self.latency.mesh.record(ns.saturating_sub(sent_ns));
                        self.machine.handle_mesh(now, msg);
                        self.drain(None);
                    }
                    Item::Datagram(parcel) => {
                        self.latency.mesh.record(ns.saturating_sub(parcel.label.sent_ns));
                        let Parcel { bytes, label } = &*parcel;
                        self.take(bytes, *label, Some(label.bucket), pressed);
                        self.mesh.recycle(from, parcel);
                    }
                }
            }
        }
        turn.more |= self.mesh.waiting();
    }

    /// Drains one socket, at most [`BATCHES`] batches.
    fn take_datagrams(&mut self, inlet: Inlet, rx: &mut RxBatch, turn: &mut Turn) {
        for round in 0..BATCHES {
            // Mostly a few are there.
            let most = if round == 0 { FIRST } else { BATCH };
            let (n, lost) = match self.sockets.receive(inlet, rx, most) {
                Ok(received) => received,
                Err(error) => {
                    tracing::error!(%error, "a listener can not be read");
                    return;
                }
            };
            self.counts.kernel_lost.add(i64::from(lost));
            if n == 0 {
                return;
            }
            turn.worked = true;
            self.counts.received.add(i64::try_from(n).unwrap_or(0));
            let pressed = n == BATCH || self.door.waiting() > 0;
            let mut routes = [Route::Junk; BATCH];
            for (i, route) in routes.iter_mut().enumerate().take(n) {
                if let Some(d) = rx.get(i) {
                    *route = self.router.route(d.bytes);
                }
            }
            self.foresee(&routes[..n]);
            for (i, route) in routes.into_iter().enumerate().take(n) {
                match rx.get(i) {
                    Some(d) if !d.truncated => self.sort(inlet, &d, route, pressed),
                    _ => self.counts.unusable.add(1),
                }
            }
            if n < most {
                return;
            }
        }
        turn.more = true;
    }

    /// Has the processor fetch what several datagrams will be looked up by: their waits for memory overlap.
    fn foresee(&self, routes: &[Route]) {
        if routes.len() < 2 {
            return;
        }
        for step in 0..3 {
            for route in routes {
                if let Route::Own { hint: Some(hint), .. } = route {
                    self.machine.foresee(*hint, step);
                }
            }
        }
    }

    /// A datagram from a socket: ours, another shard's, or nobody's.
    fn sort(&mut self, inlet: Inlet, d: &Datagram<'_>, route: Route, pressed: bool) {
        let (Route::Own { class, .. } | Route::Shard { class, .. }) = route else {
            self.counts.junk.add(1);
            return;
        };
        let (now_ns, received_ns) = self.clock.arrival(d.received_unix_ns);
        if class != Class::InDialogOrResponse
            && let Some(sources) = &mut self.sources
            && !sources.admit(d.from.ip(), now_ns / 1000)
        {
            self.counts.rate_limited.add(1);
            return;
        }
        let path = self.sockets.path(inlet, d.from, d.local);
        let label =
            |bucket| Label { path, received_ns, sent_ns: now_ns, bucket, new_invite: class == Class::NewInvite };
        match route {
            Route::Own { bucket, .. } => self.take(d.bytes, label(bucket.unwrap_or(0)), bucket, pressed),
            Route::Shard { shard, bucket, .. } => {
                let taken = self.mesh.forward(shard, d.bytes, label(bucket));
                let counter = if taken { &self.counts.forwarded } else { &self.counts.forward_lost };
                counter.add(1);
            }
            Route::Junk => {}
        }
    }

    /// A datagram of this shard: worked on now, or, a new INVITE under pressure, in its turn.
    fn take(&mut self, bytes: &[u8], label: Label, bucket: Option<u16>, pressed: bool) {
        let Label { path, received_ns, .. } = label;
        if !label.new_invite {
            // What waits of the same Call-ID came first.
            while let Some(earlier) = self.door.earlier(bucket) {
                self.admit(&earlier.bytes, earlier.path, earlier.bucket, earlier.received_ns);
                self.door.recycle(earlier);
            }
            self.work(bytes, path, received_ns);
        } else if !pressed {
            self.admit(bytes, path, bucket, received_ns);
        } else {
            let entry = self.door.put_off(bytes, path, bucket, received_ns);
            self.enter(entry, bytes, path, received_ns);
        }
    }

    fn take_new_calls(&mut self, turn: &mut Turn) {
        let (mut calls, mut refused) = (NEW_CALLS, REFUSALS);
        while calls > 0 && refused > 0 {
            let Some(next) = self.door.next_waiting() else { break };
            turn.worked = true;
            let admitted = self.admit(&next.bytes, next.path, next.bucket, next.received_ns);
            *if admitted { &mut calls } else { &mut refused } -= 1;
            self.door.recycle(next);
        }
        counts::set(&self.counts.backlog, self.door.waiting());
        turn.more |= self.door.waiting() > 0;
    }

    /// A new INVITE whose turn has come: worked on, unless it is too late, CDRs pile up or the journal has no room (how
    /// many calls a shard holds is the engine's own limit). True: worked on.
    fn admit(&mut self, bytes: &[u8], path: Path, bucket: Option<u16>, received_ns: u64) -> bool {
        let too_late = self.door.is_late(mono_ns(), received_ns);
        let unkept = self.journal.as_ref().is_some_and(Journal::is_full);
        let refuse = too_late || unkept || self.relay.waiting.len() > self.overload.cdr_backlog;
        let entry = self.door.decide(bytes, path, bucket, refuse);
        self.enter(entry, bytes, path, received_ns)
    }

    /// Works on a new INVITE, or not. True: worked on.
    fn enter(&mut self, entry: Entry, bytes: &[u8], path: Path, received_ns: u64) -> bool {
        match entry {
            Entry::Work => {
                self.work(bytes, path, received_ns);
                return true;
            }
            Entry::Refused => self.stats.shard(self.id).shed.add(1),
            Entry::Waits | Entry::Dropped => {}
        }
        if self.door.refusals.written().len() >= BATCH {
            self.out.refuse(&mut self.door.refusals, &self.sockets, &self.counts);
        }
        false
    }

    fn work(&mut self, bytes: &[u8], path: Path, received_ns: u64) {
        let (began, now) = self.clock.now();
        self.machine.handle_datagram(now, path, bytes);
        let decided = stamp_ns();
        self.latency.receive_to_parse.record(began.saturating_sub(received_ns));
        self.latency.parse_to_decision.record(decided.saturating_sub(began));
        self.drain(Some(Cause { received: received_ns, decided }));
    }

    fn fire_timers(&mut self, turn: &mut Turn) {
        let Some(due) = self.machine.next_due() else { return };
        let now = self.now();
        if due <= now.mono {
            turn.worked = true;
            self.machine.handle_timers(now);
            if let Some(us) = self.machine.take_lateness() {
                self.latency.timer_lateness.record(us.saturating_mul(1000));
            }
            self.drain(None);
        }
    }

    /// When the next slice of the audit is due, monotonic nanoseconds.
    fn audit_due_ns(&self) -> Option<u64> {
        self.machine.audit_due().map(|Mono(us)| self.audit_pace.due(us.saturating_mul(1000)))
    }

    /// A slice of the audit, when it is due: bounded work, some hundred microseconds at most. No work of a turn: a shard that does
    /// nothing else may sleep again.
    fn audit(&mut self, turn_began: u64) {
        if self.audit_due_ns().is_none_or(|due| due > turn_began) {
            return;
        }
        let began = thread_cpu_ns();
        let now = self.now();
        self.machine.handle_audit(now);
        self.drain(None);
        let cpu = thread_cpu_ns().saturating_sub(began);
        self.audit_pace.took(mono_ns(), cpu);
        self.counts.audit_ns.add(i64::try_from(cpu).unwrap_or(0));
    }

    /// Takes all that the machine has to say after an input.
    fn drain(&mut self, caused_by: Option<Cause>) {
        let mut sends = false;
        loop {
            while let Some(t) = self.machine.poll_transmit() {
                self.out.push(t);
                sends = true;
            }
            self.held.extend(std::iter::from_fn(|| self.machine.poll_output()));
            let Some(question) = self.machine.poll_resolve() else { break };
            let request = ResolveRequest { shard: self.id, id: question.id, host: question.host };
            if !self.relay.ask(request) {
                let now = self.now();
                self.machine.handle_resolved(now, question.id, Err(()), 0);
            }
        }
        if let (true, Some(cause)) = (sends, caused_by) {
            self.out.caused_by(cause);
        }
        if self.out.batch_is_full() {
            self.send();
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Mesh { to, msg } => {
                if self.mesh.send(to, msg, mono_ns()).is_err() {
                    tracing::error!(to, "message for a shard that does not exist");
                }
            }
            Output::Cdr(cdr) => self.relay.cdr(cdr),
            Output::AgentEvent(event) => self.relay.event(event),
            Output::Reply { id, reply } => self.relay.reply(id, reply),
            Output::Audited(report) => tell(&report),
        }
    }

    /// The journal has all that the inputs so far have changed; what they put out may go.
    fn commit(&mut self) {
        if let Some(journal) = &mut self.journal {
            let now = self.clock.now().1;
            self.machine.journal(now, journal);
            journal.commit();
        }
    }

    /// There is nothing else to do: makes the journal shorter. Whether it could be shorter still.
    fn tidy(&mut self) -> bool {
        self.journal.as_mut().is_some_and(Journal::tidy)
    }

    /// Other shards first, who work on it meanwhile; then peers; then the control plane, whose threads take time to wake.
    fn send(&mut self) {
        self.commit();
        let is_mesh = |o: &Output| matches!(o, Output::Mesh { .. });
        if self.held.iter().any(is_mesh) {
            for _ in 0..self.held.len() {
                match self.held.pop_front() {
                    Some(mesh) if is_mesh(&mesh) => self.output(mesh),
                    Some(other) => self.held.push_back(other),
                    None => break,
                }
            }
            self.mesh.flush();
        }
        self.out.flush(&mut self.machine, &self.sockets, &self.latency, &self.counts, &mut self.failed);
        while let Some(output) = self.held.pop_front() {
            self.output(output);
        }
    }

    /// Sends all that is pending, tells the machine of what could not be sent, and hands the mesh its items.
    fn flush(&mut self) {
        if !self.door.refusals.written().is_empty() {
            self.out.refuse(&mut self.door.refusals, &self.sockets, &self.counts);
        }
        self.send();
        while let Some(t) = self.failed.pop() {
            let now = self.now();
            self.machine.handle_send_failed(now, t);
            self.drain(None);
            self.send();
        }
        self.mesh.flush();
    }

    fn now(&mut self) -> Now {
        self.clock.now().1
    }
}

/// What the audit has found goes to the log.
fn tell(report: &Report) {
    let Report { shard, fault, repaired, agent, call, sip_call_id, history, .. } = report;
    let call = call.map(|id| id.to_string());
    tracing::error!(
        shard,
        fault = fault.name(),
        repaired,
        agent = agent.as_deref(),
        call,
        call_id = sip_call_id.as_deref(),
        history = describe(history),
        "the audit found a mismatch"
    );
}

impl<M> Drop for Shard<M> {
    /// After a panic: what a journal does not have yet has never been; without one, the last CDRs go out.
    fn drop(&mut self) {
        if self.journal.is_none() {
            let records = self.held.drain(..).filter_map(|o| if let Output::Cdr(cdr) = o { Some(cdr) } else { None });
            records.for_each(|cdr| self.relay.cdr(cdr));
        }
    }
}
