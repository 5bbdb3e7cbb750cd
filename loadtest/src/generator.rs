//! The loop: one thread, its sockets, its clock. Open-loop arrivals, timers, then datagrams in batches, then out.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    context::Context,
    leg::Role,
    net::{self, Inbox},
    play::Play,
    report::{Latency, Live, Report},
    scenario::{Arrivals, Scenario, ScenarioError},
    timers::{MILLIS, Nanos},
};

/// Why a run cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error("cannot open a UDP socket on {address}: {source}")]
    Socket { address: std::net::IpAddr, source: io::Error },
}

/// A scenario with its sockets bound, ready to run.
///
/// Bind first, tell the target the addresses (agents' locations `sip:agent1@AGENT_ADDR`, `message_queue =
/// sip:music@MEDIA_ADDR`), then [`Generator::run`].
pub struct Generator {
    sockets: Vec<UdpSocket>,
    live: Arc<Live>,
    stop: Arc<AtomicBool>,
    play: Play,
}

/// Longest sleep of the loop, so that the stop flag is seen soon.
const LONGEST_WAIT: Nanos = 20 * MILLIS;
/// After the drain, everybody having hung up: how long the last answers may take.
const LAST_ANSWERS: Nanos = 5_000 * MILLIS;
/// Most arrivals and most timers of one turn: after a stall, answers are read between the bursts that make up for it.
/// What ends calls goes before what begins them.
const ARRIVALS_A_TURN: usize = 32;
const TIMERS_A_TURN: usize = 256;
/// Batches read from one socket before the others have their turn.
const BATCHES_A_TURN: usize = 4;

impl Generator {
    /// Checks the scenario and opens its sockets on free ports.
    ///
    /// # Errors
    /// A scenario that makes no sense, or no socket to be had on `scenario.bind`.
    pub fn bind(scenario: &Scenario) -> Result<Self, Error> {
        scenario.validate()?;
        let address = scenario.bind;
        let socket = || {
            let socket = net::open(address)?;
            let local = socket.local_addr()?;
            Ok((socket, local))
        };
        let count = if scenario.one_port { 1 } else { 3 };
        let (sockets, locals): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| socket())
            .collect::<io::Result<Vec<_>>>()
            .map_err(|source| Error::Socket { address, source })?
            .into_iter()
            .unzip();
        let live = Arc::<Live>::default();
        let rng = SmallRng::seed_from_u64(scenario.seed);
        let mut cx = Context::new(locals, Arc::clone(&live), rng, run_mark());
        cx.books.rows = scenario.rows_by_call.then(HashMap::new);
        Ok(Self { sockets, live, stop: Arc::default(), play: Play::new(scenario.clone(), cx) })
    }

    /// Where callers send from.
    pub fn caller_addr(&self) -> SocketAddr {
        self.address(Role::Caller)
    }

    /// Where agents' phones are.
    pub fn agent_addr(&self) -> SocketAddr {
        self.address(Role::Agent)
    }

    /// Where media servers are.
    pub fn media_addr(&self) -> SocketAddr {
        self.address(Role::Media)
    }

    fn address(&self, role: Role) -> SocketAddr {
        self.play.cx.locals[self.play.socket_of(role)]
    }

    /// Changes where calls go: a target that learns of the generator's ports first, and has its own only then.
    pub fn set_target(&mut self, target: SocketAddr) {
        self.play.scenario.target = target;
    }

    /// Counters to watch from another thread.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Set it to true to end arrivals; the drain then follows as usual.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Plays the scenario on the calling thread until every call has ended, or the drain is over.
    pub fn run(mut self) -> Report {
        let cpu = net::thread_cpu();
        let dropped: u64 = self.sockets.iter().map(net::kernel_drops).sum();
        let clock = Instant::now();
        let mut inbox = Inbox::default();
        let mut schedule = Schedule::new(&self.play.scenario);
        let mut ending = Ending::default();
        loop {
            self.play.cx.now = clock.elapsed().as_nanos() as Nanos;
            schedule.stopped |= self.stop.load(Relaxed);
            self.arrivals(&mut schedule);
            for _ in 0..TIMERS_A_TURN {
                let Some(timer) = self.play.cx.timers.pop(self.play.cx.now) else { break };
                self.play.timer(timer);
                self.flush(false);
            }
            self.flush(true);
            if schedule.next.is_none() && self.ended(&mut ending) {
                break;
            }
            let next = [self.play.cx.timers.next_at(), schedule.next].into_iter().flatten().min();
            let now = clock.elapsed().as_nanos() as Nanos;
            let wait = next.map_or(LONGEST_WAIT, |at| at.saturating_sub(now).min(LONGEST_WAIT));
            let readable = net::wait_readable(&self.sockets, Duration::from_nanos(wait));
            self.receive(&clock, &mut inbox, readable);
        }
        self.play.finish();
        self.flush(true);
        self.play.cx.books.report.cpu_seconds = (net::thread_cpu() - cpu).as_secs_f64();
        self.play.cx.books.report.seconds = clock.elapsed().as_secs_f64();
        self.play.cx.books.report.dropped_by_kernel =
            self.sockets.iter().map(net::kernel_drops).sum::<u64>().saturating_sub(dropped);
        self.report()
    }

    /// Begins the calls that are due. Many may be, when the loop was late: each keeps its intended time.
    fn arrivals(&mut self, schedule: &mut Schedule) {
        if schedule.stopped {
            schedule.next = None;
        }
        for _ in 0..ARRIVALS_A_TURN {
            let Some(at) = schedule.next.filter(|at| *at <= self.play.cx.now) else { break };
            self.play.call(at);
            self.flush(false);
            schedule.advance(&mut self.play.cx.rng);
        }
    }

    /// Reads the sockets that have something.
    fn receive(&mut self, clock: &Instant, inbox: &mut Inbox, readable: [bool; net::MAX_SOCKETS]) {
        for number in (0..self.sockets.len()).filter(|number| readable[*number]) {
            for _ in 0..BATCHES_A_TURN {
                let more = inbox.receive(&self.sockets[number]);
                self.play.cx.now = clock.elapsed().as_nanos() as Nanos;
                for (source, bytes) in inbox.datagrams() {
                    self.play.datagram(number, source, bytes);
                }
                self.flush(true);
                if !more {
                    break;
                }
            }
        }
    }

    fn flush(&mut self, all: bool) {
        for (outbox, socket) in self.play.cx.outboxes.iter_mut().zip(&self.sockets) {
            if all || outbox.is_full() {
                self.play.cx.books.report.messages_sent += outbox.flush(socket);
            }
        }
    }

    /// After the last arrival: whether everything has ended, or must.
    fn ended(&mut self, ending: &mut Ending) -> bool {
        let now = self.play.cx.now;
        let drain = self.play.scenario.drain.as_nanos() as Nanos;
        let close_at = *ending.close_at.get_or_insert(now + drain);
        if now >= close_at && !std::mem::replace(&mut ending.closed, true) {
            self.play.close();
        }
        self.play.open.iter().sum::<usize>() == 0 || now >= close_at + LAST_ANSWERS
    }

    fn report(mut self) -> Report {
        let rows = self.play.cx.books.rows.take().unwrap_or_default();
        let by_call = rows
            .into_iter()
            .filter_map(|(id, rows)| Some((self.play.call_id(id), u32::try_from(rows).ok().filter(|n| *n > 0)?)));
        let rows_by_call = by_call.collect();
        let mut report = self.play.cx.books.report;
        report.rows_by_call = rows_by_call;
        report.messages = report.messages_received + report.messages_sent;
        let histograms = &report.histograms;
        report.trying_latency_us = Latency::from(&histograms.trying);
        report.ringing_latency_us = Latency::from(&histograms.ringing);
        report.setup_latency_us = Latency::from(&histograms.setup);
        report.queue_setup_latency_us = Latency::from(&histograms.queue_setup);
        report.free_to_invite_us = Latency::from(&histograms.free_to_invite);
        report.arrival_to_invite_us = Latency::from(&histograms.arrival_to_invite);
        report.bye_latency_us = Latency::from(&histograms.bye);
        report.wait_us = Latency::from(&histograms.wait);
        report
    }
}

/// Differs from run to run, so that a target that remembers the last one takes no message for a copy.
fn run_mark() -> String {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    format!("r{:x}", (nanos ^ u64::from(std::process::id()).rotate_left(40)) & 0xff_ffff_ffff)
}

#[derive(Debug, Default)]
struct Ending {
    close_at: Option<Nanos>,
    closed: bool,
}

/// When calls arrive.
struct Schedule {
    arrivals: Arrivals,
    gap: f64,
    until: Nanos,
    left: u64,
    /// Exact time of the next arrival, in nanoseconds.
    exact: f64,
    /// `None` when there are no more.
    next: Option<Nanos>,
    stopped: bool,
}

impl Schedule {
    fn new(scenario: &Scenario) -> Self {
        let left = scenario.max_calls.unwrap_or(u64::MAX);
        let until = scenario.duration.as_nanos() as Nanos;
        Self {
            arrivals: scenario.arrivals,
            gap: 1e9 / scenario.rate,
            until,
            left,
            exact: 0.0,
            next: (left > 0 && until > 0).then_some(0),
            stopped: false,
        }
    }

    fn advance(&mut self, rng: &mut SmallRng) {
        self.left -= 1;
        self.exact += match self.arrivals {
            Arrivals::Fixed => self.gap,
            Arrivals::Poisson => -(1.0 - rng.random::<f64>()).ln() * self.gap,
        };
        self.next = Some(self.exact as Nanos).filter(|at| *at < self.until && self.left > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(scenario: &Scenario) -> Vec<Nanos> {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut schedule = Schedule::new(scenario);
        let mut times = Vec::new();
        while let Some(at) = schedule.next {
            times.push(at);
            schedule.advance(&mut rng);
        }
        times
    }

    #[test]
    fn arrivals_keep_their_rate() {
        let scenario = Scenario {
            rate: 1000.0,
            duration: Duration::from_secs(20),
            arrivals: Arrivals::Fixed,
            ..Scenario::default()
        };
        let fixed = times(&scenario);
        assert_eq!((fixed.len(), fixed[7]), (20_000, 7_000_000));
        let poisson = times(&Scenario { arrivals: Arrivals::Poisson, ..scenario.clone() }).len();
        assert!((19_400..20_600).contains(&poisson), "{poisson}");
        assert_eq!(times(&Scenario { max_calls: Some(12), ..scenario }).len(), 12);
    }
}
