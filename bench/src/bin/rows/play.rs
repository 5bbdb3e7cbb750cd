//! A run: a server of its own, calls at a rate, and what they took while the load was steady.

use crate::args::Options;
use crate::calls::Loaded;
use crate::generator::{Generator, number};
use crate::process::{Cpu, comma, cores, resident};
use crate::server::{How, Server, Staff, free_port};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// What all runs share.
#[derive(Debug)]
pub struct Bench {
    pub options: Options,
    /// The core of server and of generator.
    pub server_core: u32,
    pub generator_core: u32,
    pub cores: Vec<u32>,
    /// The highest rate, once it is known.
    pub max: Option<f64>,
    /// Runs at nearly that rate, which two rows look at.
    pub loaded: Vec<Loaded>,
}

impl Bench {
    /// # Errors
    /// The machine does not tell its cores.
    pub fn new(options: Options) -> Result<Self, String> {
        let cores = cores()?;
        let (Some(&first), Some(&last)) = (cores.first(), cores.last()) else { return Err("no cores".to_owned()) };
        let max = options.max;
        Ok(Self { options, server_core: first, generator_core: last, cores, max, loaded: Vec::new() })
    }

    /// How a server is run that nothing special is asked of: one shard, one core.
    pub fn one_core(&self) -> How {
        How { cores: self.server_core.to_string(), shards: 1, quota: None, sets: Vec::new() }
    }

    /// Server and generator together on whatever there is.
    pub fn all_cores(&self, shards: u16) -> How {
        How { cores: comma(&self.cores), shards, ..self.one_core() }
    }

    /// Between the commands for quiet.
    pub fn quietly<T>(&self, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        hook(self.options.before.as_deref())?;
        let done = work();
        hook(self.options.after.as_deref())?;
        done
    }

    /// Seconds that calls arrive in a run.
    pub fn seconds(&self) -> f64 {
        self.options.seconds.unwrap_or(12.0).max(WARM + 3.0)
    }
}

fn hook(command: Option<&str>) -> Result<(), String> {
    let Some(command) = command else { return Ok(()) };
    let done = Command::new("sh").args(["-c", command]).status().map_err(|e| format!("sh: {e}"))?;
    if done.success() { Ok(()) } else { Err(format!("`{command}` failed: {done}")) }
}

/// Start-up, which does not count: all agents are busy and calls wait then.
pub const WARM: f64 = 4.0;
/// Length of a talk; its least is above what counts as a rejection.
const TALK: &str = "uniform:1100ms-1300ms";
const TALK_MEAN: f64 = 1.2;

/// Agents against calls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Agents {
    /// Somewhat fewer than calls need: each is parked at the music first, and there is always one that waits.
    Scarce,
    /// More than calls need: none waits.
    Plenty,
}

impl Agents {
    pub fn number(self, rate: f64) -> u32 {
        let share = if self == Self::Scarce { 0.96 } else { 2.0 };
        ((rate * TALK_MEAN * share) as u32).max(1)
    }
}

/// What is played.
#[derive(Debug, Clone)]
pub struct Load {
    pub rate: f64,
    pub seconds: f64,
    pub agents: Agents,
    pub how: How,
    /// More arguments for the generator.
    pub more: Vec<String>,
}

/// What it came to. CPU is of the server's whole process.
#[derive(Debug)]
pub struct Played {
    pub report: Value,
    /// While the load was steady: CPU a call and a message in microseconds, cores used, messages a call, share of the
    /// calls that were parked first.
    pub us_a_call: f64,
    pub us_a_message: f64,
    pub busy: f64,
    pub messages_a_call: f64,
    pub parked: f64,
    /// Start and end included.
    pub whole_us_a_call: f64,
    /// Records in the database at the end.
    pub cdrs: u64,
    /// Resident bytes after a tenth of the run (and after start-up), and at the end of the load.
    pub resident: (u64, u64),
    /// Calls of each shard.
    pub shards: Vec<f64>,
}

impl Load {
    pub fn arguments(&self) -> Vec<String> {
        let args = [
            format!("--rate={}", self.rate),
            format!("--seconds={}ms", (self.seconds * 1000.0) as u64),
            format!("--agents={}", self.agents.number(self.rate)),
            "--ring=0ms".to_owned(),
            format!("--talk={TALK}"),
            "--drain=20s".to_owned(),
        ];
        args.into_iter().chain(self.more.iter().cloned()).collect()
    }
}

/// One flow, `support`, with its agents.
pub fn staff(generator: &Generator, agents: u32) -> Staff {
    Staff {
        flow: "support".to_owned(),
        skill: "x".to_owned(),
        agents_skill: "x".to_owned(),
        name: "agent".to_owned(),
        agents,
        agents_at: generator.agents.clone(),
        media_at: generator.media.clone(),
    }
}

pub fn sleep_until(then: Instant) {
    std::thread::sleep(then.saturating_duration_since(Instant::now()));
}

/// Plays a load against a server of its own.
///
/// # Errors
/// Something did not work at all; calls that fail are in the report.
pub fn play(bench: &Bench, load: &Load) -> Result<Played, String> {
    let at = free_port()?;
    let mut generator = Generator::start(&bench.options, bench.generator_core, at, &load.arguments())?;
    let staff = staff(&generator, load.agents.number(load.rate));
    let server = Server::start(&bench.options, &load.how, at, &[staff])?;
    let began = generator.begin()?;
    sleep_until(began + Duration::from_secs_f64(WARM));
    let before = Cpu::of(server.pid())?;
    sleep_until(began + Duration::from_secs_f64(WARM.max(load.seconds / 10.0)));
    let early = resident(server.pid())?;
    sleep_until(began + Duration::from_secs_f64(load.seconds));
    let (after, late) = (Cpu::of(server.pid())?, resident(server.pid())?);
    let report = generator.finish(Duration::from_secs(90))?;
    let whole = Cpu::of(server.pid())?.whole();
    let shards = server.metric("strowger_shard_calls_total")?;
    let cdrs = server.stop()?;
    let steady = Steady::of(&report, WARM, load.seconds);
    let busy = after.since(&before) / (after.at - before.at).as_secs_f64();
    Ok(Played {
        us_a_call: busy / steady.answered * 1e6,
        us_a_message: busy / steady.messages * 1e6,
        busy,
        messages_a_call: steady.messages / steady.answered,
        parked: steady.parked,
        whole_us_a_call: whole / number(&report, &["offered"]) * 1e6,
        cdrs,
        resident: (early, late),
        shards,
        report,
    })
}

/// What happened a second, between two times of a run.
#[derive(Debug, PartialEq)]
pub struct Steady {
    /// Calls that ended well, and messages, sent and received.
    pub answered: f64,
    pub messages: f64,
    /// Share of the calls let in that heard music first.
    pub parked: f64,
}

impl Steady {
    /// From the report's series of intervals.
    pub fn of(report: &Value, from: f64, to: f64) -> Self {
        let (mut seconds, mut answered, mut messages, mut parked, mut set_up) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for sample in report["series"].as_array().into_iter().flatten() {
            let (end, length) = (number(sample, &["at"]), number(sample, &["seconds"]));
            if end - length < from - 0.1 || end > to + 0.1 {
                continue;
            }
            // A phase in which nothing happened is left out of an interval.
            let count = |phase: &str| number(sample, &["latency_us", phase, "count"]).max(0.0);
            seconds += length;
            answered += number(sample, &["answered"]);
            messages += number(sample, &["messages"]);
            parked += count("queue-setup");
            set_up += count("setup");
        }
        Self { answered: answered / seconds, messages: messages / seconds, parked: parked / set_up }
    }
}

impl Played {
    /// Calls that came to nothing: failed, refused, or waiting until the end.
    pub fn bad(&self) -> f64 {
        ["failed", "refused", "unserved"].iter().map(|name| number(&self.report, &[name])).sum()
    }

    /// Nothing failed, and the first answer came in time.
    pub fn borne(&self) -> bool {
        self.bad() == 0.0 && number(&self.report, &["first_answer_us", "p99"]) <= 100_000.0
    }

    /// A line for whoever watches.
    pub fn told(&self) -> String {
        format!(
            "{:.1} us a call, {:.2} us a message ({:.1} a call, {:.1} % parked), {:.0} % of a core; of {} calls {} bad; first answer p99 {:.1} ms",
            self.us_a_call,
            self.us_a_message,
            self.messages_a_call,
            self.parked * 100.0,
            self.busy * 100.0,
            number(&self.report, &["offered"]),
            self.bad(),
            number(&self.report, &["first_answer_us", "p99"]) / 1000.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_steady_part_counts() {
        let sample = |at: f64, answered: u32, parked: u32| {
            json!({"at": at, "seconds": 1.0, "answered": answered, "messages": answered * 20,
                   "latency_us": {"setup": {"count": 50}, "queue-setup": {"count": parked}}})
        };
        let report =
            json!({"series": [sample(1.0, 7, 0), sample(2.02, 50, 50), sample(3.01, 52, 25), sample(4.0, 9, 0)]});
        assert_eq!(Steady::of(&report, 1.0, 3.0), Steady { answered: 51.0, messages: 1020.0, parked: 0.75 });
        assert!(Steady::of(&json!({}), 1.0, 3.0).answered.is_nan());
    }

    #[test]
    fn scarce_agents_are_fewer_than_calls_need() {
        assert_eq!(Agents::Scarce.number(1000.0), 1152);
        assert!(f64::from(Agents::Plenty.number(1000.0)) > 1.5 * 1000.0 * TALK_MEAN);
    }
}
