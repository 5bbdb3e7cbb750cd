//! The loop: one thread, its sockets, its clock. Open-loop arrivals, timers, then datagrams in batches, then out.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use rand::{SeedableRng, rngs::SmallRng};

use crate::{
    arrivals::Schedule,
    context::Context,
    interval::{Interval, Intervals, collect},
    leg::{Legs, Role},
    net::{self, Inbox},
    play::Play,
    report::{Live, Report},
    scenario::{Scenario, ScenarioError},
    timers::{GIVE_UP, MILLIS, Nanos},
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
    /// Runs played, and the mark that they share.
    played: u32,
    mark: String,
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
        let (live, mark) = (Arc::<Live>::default(), run_mark());
        let play = fresh_play(scenario.clone(), locals, &live, format!("{mark}x0"), Legs::default());
        Ok(Self { sockets, live, stop: Arc::default(), play, played: 0, mark })
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

    /// Changes what the next [`Generator::play`] plays. The sockets stay: `bind` and `one_port` are as they were.
    ///
    /// # Errors
    /// A scenario that makes no sense.
    pub fn set_scenario(&mut self, scenario: &Scenario) -> Result<(), ScenarioError> {
        scenario.validate()?;
        self.play.scenario = scenario.clone();
        Ok(())
    }

    /// The receive buffer that the system granted to each socket, in bytes.
    pub fn receive_buffer(&self) -> usize {
        self.sockets.iter().map(net::receive_buffer).min().unwrap_or(0)
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
    ///
    /// # Panics
    /// As [`Generator::play`].
    pub fn run(mut self) -> Report {
        self.play(|_| {})
    }

    /// Plays the scenario, and shows each of its intervals to `observer` as it ends, on another thread: what that does
    /// delays no call. May be played again, on the same sockets, when it is over.
    ///
    /// # Panics
    /// When the system has no thread to spare for the observer, or the observer panics.
    pub fn play(&mut self, mut observer: impl FnMut(&Interval) + Send) -> Report {
        if self.played > 0 {
            self.start_afresh();
        }
        self.played += 1;
        let (out, intervals) = mpsc::channel();
        let (give, back) = mpsc::channel();
        let closer = Intervals::new(self.play.scenario.interval, &self.live, out, back);
        let histograms = thread::scope(|scope| {
            let collector = scope.spawn(move || collect(&intervals, &give, &mut observer));
            self.turns(closer);
            collector.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let mut report = self.report();
        report.set_histograms(histograms);
        report
    }

    /// A new play for the next run. What is left of the one before is no part of it.
    fn start_afresh(&mut self) {
        self.live.reset();
        let (scenario, locals) = (self.play.scenario.clone(), self.play.cx.locals.clone());
        let (mark, legs) = (format!("{}x{}", self.mark, self.played), Legs::after(&self.play.legs));
        self.play = fresh_play(scenario, locals, &self.live, mark, legs);
    }

    /// The loop. The intervals end with it.
    fn turns(&mut self, mut intervals: Intervals) {
        let cpu = net::thread_cpu();
        let dropped: u64 = self.sockets.iter().map(net::kernel_drops).sum();
        let clock = Instant::now();
        let mut inbox = Inbox::default();
        let mut schedule = Schedule::new(&self.play.scenario);
        let mut ending = Ending::default();
        loop {
            self.play.cx.now = clock.elapsed().as_nanos() as Nanos;
            if self.play.cx.now >= intervals.end().as_nanos() as Nanos {
                intervals.close(clock.elapsed(), &self.live, &mut self.play.cx.books.interval);
            }
            schedule.stopped |= self.stop.load(Relaxed);
            self.arrivals(&clock, &mut schedule);
            for _ in 0..TIMERS_A_TURN {
                let Some(timer) = self.play.cx.timers.pop(self.play.cx.now) else { break };
                self.play.timer(timer);
                self.flush(&clock, false);
            }
            self.flush(&clock, true);
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
        self.flush(&clock, true);
        intervals.close(clock.elapsed(), &self.live, &mut self.play.cx.books.interval);
        let report = &mut self.play.cx.books.report;
        report.cpu_seconds = (net::thread_cpu() - cpu).as_secs_f64();
        report.seconds = clock.elapsed().as_secs_f64();
        report.dropped_by_kernel = self.sockets.iter().map(net::kernel_drops).sum::<u64>().saturating_sub(dropped);
    }

    /// Begins the calls that are due. Many may be, when the loop was late: each keeps its intended time.
    fn arrivals(&mut self, clock: &Instant, schedule: &mut Schedule) {
        if schedule.stopped {
            schedule.next = None;
        }
        for _ in 0..ARRIVALS_A_TURN {
            let Some(at) = schedule.next.filter(|at| *at <= self.play.cx.now) else { break };
            self.play.call(at, schedule.flow().as_deref());
            self.flush(clock, false);
            schedule.advance(&mut self.play.cx.calls);
        }
    }

    /// Reads the sockets that have something.
    fn receive(&mut self, clock: &Instant, inbox: &mut Inbox, readable: [bool; net::MAX_SOCKETS]) {
        for number in (0..self.sockets.len()).filter(|number| readable[*number]) {
            for _ in 0..BATCHES_A_TURN {
                let more = inbox.receive(&self.sockets[number]);
                // In this order: who is halted in between takes the message for later than it was, never for earlier.
                let (unix, now) = (net::unix_nanos(), clock.elapsed().as_nanos() as Nanos);
                self.play.cx.now = now;
                for (source, bytes, stamp) in inbox.datagrams() {
                    // The time that it lay in the socket is the generator's doing.
                    self.play.cx.heard = now.saturating_sub(stamp.map_or(0, |stamp| unix.saturating_sub(stamp)));
                    self.play.datagram(number, source, bytes);
                }
                self.flush(clock, true);
                if !more {
                    break;
                }
            }
        }
    }

    fn flush(&mut self, clock: &Instant, all: bool) {
        let agents = self.play.socket_of(Role::Agent);
        if !self.play.leaving.is_empty() && (all || self.play.cx.outboxes[agents].is_full()) {
            self.play.agents_left(clock.elapsed().as_nanos() as Nanos);
        }
        for (outbox, socket) in self.play.cx.outboxes.iter_mut().zip(&self.sockets) {
            if all || outbox.is_full() {
                self.play.cx.books.report.messages_sent += outbox.flush(socket);
            }
        }
    }

    /// After the last arrival: whether everything has ended, or must.
    fn ended(&mut self, ending: &mut Ending) -> bool {
        let (now, scenario) = (self.play.cx.now, &self.play.scenario);
        if !scenario.callers && !self.stop.load(Relaxed) && now < scenario.duration.as_nanos() as Nanos {
            return false;
        }
        let (drain, calm) = (scenario.drain.as_nanos() as Nanos, scenario.calm.as_nanos() as Nanos);
        let close_at = *ending.close_at.get_or_insert(now + drain);
        if now >= close_at && !std::mem::replace(&mut ending.closed, true) {
            self.play.close();
        }
        if self.play.open.iter().sum::<usize>() > 0 && now < close_at + LAST_ANSWERS {
            return false;
        }
        let over_at = *ending.over_at.get_or_insert(now);
        now >= self.play.last_heard.max(over_at) + calm || now >= over_at + GIVE_UP
    }

    fn report(&mut self) -> Report {
        let rows = self.play.cx.books.rows.take().unwrap_or_default();
        let by_call = rows
            .into_iter()
            .filter_map(|(id, rows)| Some((self.play.call_id(id), u32::try_from(rows).ok().filter(|n| *n > 0)?)));
        let rows_by_call = by_call.collect();
        let mut report = std::mem::take(&mut self.play.cx.books.report);
        report.rows_by_call = rows_by_call;
        report.messages = report.messages_received + report.messages_sent;
        report
    }
}

fn fresh_play(scenario: Scenario, locals: Vec<SocketAddr>, live: &Arc<Live>, mark: String, legs: Legs) -> Play {
    let rng = SmallRng::seed_from_u64(scenario.seed);
    let mut cx = Context::new(locals, Arc::clone(live), rng, mark, scenario.record_route);
    cx.books.rows = scenario.rows_by_call.then(HashMap::new);
    Play::new(scenario, cx, legs)
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
    over_at: Option<Nanos>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_free_from_when_its_bye_leaves() {
        let locals = vec!["127.0.0.1:1".parse().unwrap()];
        let mut play = fresh_play(Scenario::default(), locals, &Arc::default(), String::new(), Legs::default());
        play.users[0].due = Some(100);
        play.users[1].due = None;
        play.leaving.extend([(0, 7), (1, 7)]);
        play.agents_left(200);
        assert_eq!((play.users[0].due, play.users[1].due), (Some(207), None));
        play.agents_left(300);
        assert_eq!(play.users[0].due, Some(207), "it has left already");
    }
}
