//! The command line, and the scenario that it says.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use loadtest::{
    AgentPlan, Arrivals, Behaviour, Dist, FlowShare, Goal, MediaPlan, Patience, Phase, Scenario, parse_duration,
    read_arrivals,
};

/// Load generator for SIP queues and other SIP systems: callers, agents and media servers over UDP, on one thread.
///
/// Start with `loadtest loopback`: it needs no server, and shows what this machine can generate. Against a queue,
/// `loadtest run --target ADDR:PORT` first prints where its agents and media servers listen; provision those, press
/// Enter (or give --wait-ready 0), and calls begin. Against a system that answers by itself, add --direct.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Times are written 200ms, 2s, 3m; distributions 2s, uniform:1s-3s, exp:2s (mean), lognormal:2s,0.5 (median, sigma).

Examples:
  loadtest loopback --rate 2000 --seconds 10s
  loadtest run --target 127.0.0.1:5060 --flow support --agents 50 --rate 20 --talk exp:5s --html report.html
  loadtest run --target 127.0.0.1:5060 --flow sales=3 --flow support=1 --patience 0.2:exp:10s --json
  loadtest run --target 127.0.0.1:5060 --agents 20000 --find-max --bound first=20ms --bound free-to-invite=5ms
  loadtest run --target 127.0.0.1:5060 --vs 127.0.0.1:5070 --html both.html
  loadtest run --target 127.0.0.1:5060 --direct --flow echo        (a phone, a PBX, a media server)
  loadtest answer --agents 100                                     (agents and media for other callers, as SIPp's)

Latencies count from the time when a message should have been sent: a stall of server or generator is not hidden.

Exit codes: 0 all well (with --find-max: a rate was found); 1 calls failed, agents were booked twice or left over,
or messages violated the protocol; 2 bad usage.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Play calls against a server.
    Run(Box<Run>),
    /// Self-test without a server: the generator's callers dial its own agents.
    Loopback(Box<Loopback>),
    /// Only agents and media servers, for callers from elsewhere; until Ctrl-C, or for --seconds.
    Answer(Box<Answer>),
}

#[derive(Debug, Args)]
pub struct Run {
    /// Address and port of the server under test.
    #[arg(long, value_name = "ADDR:PORT")]
    pub target: SocketAddr,
    /// A second server: the same calls are played against both, in turn, and shown side by side.
    #[arg(long, value_name = "ADDR:PORT")]
    pub vs: Option<SocketAddr>,
    /// What reports call the server (its address, if not given).
    #[arg(long, value_name = "NAME", value_parser = label)]
    pub name: Option<String>,
    /// What reports call the second server.
    #[arg(long, value_name = "NAME", value_parser = label, requires = "vs")]
    pub vs_name: Option<String>,
    /// Process id of the server, where it runs on this machine: its CPU and memory are in the reports.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Process id of the second server.
    #[arg(long, value_name = "PID", requires = "vs")]
    pub vs_pid: Option<u32>,
    /// A queue that callers dial, sip:NAME@target, with an optional weight. May be given several times.
    #[arg(long = "flow", value_name = "NAME[=WEIGHT]", default_value = "support", value_parser = flow)]
    pub flows: Vec<FlowShare>,
    /// A queue that callers dial for a chat (MSRP). May be given several times.
    #[arg(long = "chat", value_name = "NAME[=WEIGHT]", value_parser = chat)]
    pub chats: Vec<FlowShare>,
    /// A welcome-type message sip:NAME@media that hangs up after a time. May be given several times. Any other name
    /// plays until BYE, as music does.
    #[arg(long = "message", value_name = "NAME=DIST", value_parser = message)]
    pub messages: Vec<MediaPlan>,
    /// The target answers by itself (a phone, a PBX, a media server): any 200 with SDP is an answered call.
    #[arg(long)]
    pub direct: bool,
    /// The wrap-up that the server is configured with; agents are due that long after a call.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub wrapup: Duration,
    /// Sooner than this, the server counts an agent's hang-up as a rejection.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub min_talk: Duration,
    /// Print the addresses, then wait this long (0s: not at all) instead of for the Enter key.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub wait_ready: Option<Duration>,
    #[command(flatten)]
    pub calls: Calls,
    #[command(flatten)]
    pub agents: Agents,
    #[command(flatten)]
    pub network: Network,
    #[command(flatten)]
    pub limit: LimitArgs,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Loopback {
    #[command(flatten)]
    pub calls: Calls,
    #[command(flatten)]
    pub agents: Agents,
    #[command(flatten)]
    pub network: Network,
    #[command(flatten)]
    pub limit: LimitArgs,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Answer {
    /// How long to answer; without it, until Ctrl-C.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub seconds: Option<Duration>,
    /// How long answered calls last whose agent hangs up; see --caller-hangs-up.
    #[arg(long, value_name = "DIST", default_value = "2s")]
    pub talk: Dist,
    /// Share of the calls that the agent leaves to the caller to end.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub caller_hangs_up: f64,
    /// A message that hangs up by itself; see `loadtest run --help`.
    #[arg(long = "message", value_name = "NAME=DIST", value_parser = message)]
    pub messages: Vec<MediaPlan>,
    /// How long the last calls may go on.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub drain: Duration,
    #[command(flatten)]
    pub agents: Agents,
    #[command(flatten)]
    pub network: Network,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Calls")]
pub struct Calls {
    /// Calls per second.
    #[arg(long, default_value_t = 10.0)]
    pub rate: f64,
    /// How long calls arrive (10s, or as long as the file of arrivals is, if not given).
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub seconds: Option<Duration>,
    /// `poisson` (as independent callers make them), `fixed` (all gaps the same), or `file:PATH`: one arrival a line,
    /// TIME or TIME FLOW, in seconds since the start.
    #[arg(long, value_name = "HOW", default_value = "poisson", value_parser = arrivals)]
    pub arrivals: Arrivals,
    /// Stop arrivals after this many calls.
    #[arg(long, value_name = "N")]
    pub max_calls: Option<u64>,
    /// How long caller and agent talk.
    #[arg(long, value_name = "DIST", default_value = "2s")]
    pub talk: Dist,
    /// Callers who give up while they wait: share of all callers, and after how long.
    #[arg(long, value_name = "SHARE:DIST", value_parser = patience)]
    pub patience: Option<Patience>,
    /// Share of the talks that the caller ends; the agent ends the others.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub caller_hangs_up: f64,
    /// Share of the callers whose INVITE has no SDP.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub sdp_less: f64,
    /// After the last arrival: how long calls may go on before those left hang up.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub drain: Duration,
    /// The same seed draws the same calls: when they arrive, whom they dial, how long they wait and talk.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Agents")]
pub struct Agents {
    /// Number of agents, users agent1 to agentN.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub agents: u32,
    /// Their names; {N} is the number.
    #[arg(long, value_name = "PATTERN", default_value = "agent{N}")]
    pub agent_name: String,
    /// Most chats that an agent takes at once.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub agent_chats: u32,
    /// How long phones ring before they are answered (or refuse).
    #[arg(long, value_name = "DIST", default_value = "500ms")]
    pub ring: Dist,
    /// Share of the attempts that agents refuse with 486.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub refuse: f64,
    /// Share of the attempts that agents let ring until CANCEL.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub ignore: f64,
    /// Share of the attempts that agents answer, and hang up 100 ms later.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub hang_up_early: f64,
    /// Share of the attempts that agents answer, and abandon 100 ms into the talk: the phone goes dead, and answers
    /// nothing any more, no BYE either.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub abandon: f64,
    /// The agents' own wrap-up after each talk: their phones refuse calls (486) until it is over.
    #[arg(long, value_name = "DIST")]
    pub after_call: Option<Dist>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// Local address.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub bind: IpAddr,
    /// One port for callers, agents and media servers.
    #[arg(long)]
    pub one_port: bool,
    /// Play a proxy too, that records its route: the server must send what follows along it.
    #[arg(long)]
    pub record_route: bool,
    /// Share of the received datagrams to throw away, to exercise retransmission.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub loss: f64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Finding the limit")]
pub struct LimitArgs {
    /// Find the highest rate with under --failures failures and each --bound kept, by bisection from --rate.
    #[arg(long)]
    pub find_max: bool,
    /// Bound on the 99th percentile of a phase: first, trying, ringing, setup, queue-setup, free-to-invite,
    /// arrival-to-invite, bye or wait. May be given several times. `first` is the INVITE's first answer of any kind,
    /// which neither ringing nor queueing lengthens.
    #[arg(long = "bound", value_name = "PHASE=TIME", default_value = "first=100ms", value_parser = bound)]
    pub bounds: Vec<(Phase, Duration)>,
    /// Share of the calls that may fail, be refused or be left waiting.
    #[arg(long, value_name = "SHARE", default_value_t = 0.001)]
    pub failures: f64,
    /// How long calls arrive in each step, at least; slow rates take up to three times that.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub step: Duration,
    /// How long all must be quiet between two steps, on top of --wrapup.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub calm: Duration,
    /// How closely the limit is sought, as a share of it.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    pub precision: f64,
    /// Try no higher rate.
    #[arg(long, value_name = "RATE", default_value_t = 1e6)]
    pub max_rate: f64,
}

#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// End with the report as one JSON object on standard output (all else goes to standard error).
    #[arg(long)]
    pub json: bool,
    /// Write a report with plots as one HTML file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write an HdrHistogram interval log, with a tag for each phase.
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Write percentile tables PREFIX.PHASE.hgrm, for HdrHistogram's plotter.
    #[arg(long, value_name = "PREFIX")]
    pub hgrm: Option<PathBuf>,
    /// How long the intervals of plots, interval log and JSON are.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub interval: Duration,
}

fn label(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && !text.contains([',', ' ', '\t', '\r', '\n']);
    if fits { Ok(text.to_owned()) } else { Err("write a name without commas and white space".to_owned()) }
}

fn flow(text: &str) -> Result<FlowShare, String> {
    let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
    let weight = weight.parse().map_err(|_| format!("`{weight}` is no weight; write NAME=NUMBER"))?;
    Ok(FlowShare { name: name.to_owned(), weight, chat: false })
}

fn chat(text: &str) -> Result<FlowShare, String> {
    Ok(FlowShare { chat: true, ..flow(text)? })
}

fn message(text: &str) -> Result<MediaPlan, String> {
    let (name, time) = text.split_once('=').ok_or("write NAME=TIME, such as welcome=2s")?;
    let time = time.parse().map_err(|error| format!("{error}"))?;
    Ok(MediaPlan { name: name.to_owned(), hang_up_after: Some(time) })
}

fn patience(text: &str) -> Result<Patience, String> {
    let (share, after) = text.split_once(':').ok_or("write SHARE:TIME, such as 0.2:exp:10s")?;
    let share = share.parse().map_err(|_| format!("`{share}` is no share; write a number from 0 to 1"))?;
    Ok(Patience { share, after: after.parse().map_err(|error| format!("{error}"))? })
}

fn arrivals(text: &str) -> Result<Arrivals, String> {
    match text.split_once(':') {
        Some(("file", path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            read_arrivals(&text).map_err(|error| format!("{path}: {error}"))
        }
        _ if text == "poisson" => Ok(Arrivals::Poisson),
        _ if text == "fixed" => Ok(Arrivals::Fixed),
        _ => Err("write poisson, fixed, or file:PATH".to_owned()),
    }
}

fn bound(text: &str) -> Result<(Phase, Duration), String> {
    let (phase, time) = text.split_once('=').ok_or("write PHASE=TIME, such as first=50ms")?;
    Ok((phase.parse()?, parse_duration(time).map_err(|error| error.to_string())?))
}

impl Calls {
    fn set(&self, scenario: &mut Scenario) {
        let last = match &self.arrivals {
            Arrivals::Listed(list) => list.last().map(|arrival| arrival.at + Duration::from_nanos(1)),
            _ => None,
        };
        scenario.rate = self.rate;
        scenario.arrivals = self.arrivals.clone();
        scenario.duration = self.seconds.or(last).unwrap_or(Duration::from_secs(10));
        scenario.max_calls = self.max_calls;
        scenario.talk = self.talk;
        scenario.patience.clone_from(&self.patience);
        scenario.caller_hangs_up = self.caller_hangs_up;
        scenario.sdp_less = self.sdp_less;
        scenario.seed = self.seed;
        scenario.drain = self.drain;
    }
}

impl Agents {
    fn set(&self, scenario: &mut Scenario) {
        let (ring, after) = (self.ring, Dist::Fixed(Duration::from_millis(100)));
        let answered = 1.0 - self.refuse - self.ignore - self.hang_up_early - self.abandon;
        // Shares that sum to 1 may leave a little less than nothing.
        let answered = if answered.abs() < 1e-9 { 0.0 } else { answered };
        let behaviours = vec![
            (answered, Behaviour::Answer { ring }),
            (self.refuse, Behaviour::Refuse { code: 486, ring }),
            (self.ignore, Behaviour::Ignore),
            (self.hang_up_early, Behaviour::HangUp { ring, after }),
            (self.abandon, Behaviour::Abandon { ring, after }),
        ];
        let (name, count, chats) = (self.agent_name.clone(), self.agents, self.agent_chats);
        scenario.agents = vec![AgentPlan { name, count, behaviours, chats }];
        scenario.after_call = self.after_call;
    }
}

impl Network {
    fn set(&self, scenario: &mut Scenario) {
        scenario.bind = self.bind;
        scenario.one_port = self.one_port;
        scenario.record_route = self.record_route;
        scenario.loss = self.loss;
    }
}

impl LimitArgs {
    /// What is sought, if a limit is.
    pub fn goal(&self) -> Option<Goal> {
        self.find_max.then(|| Goal {
            bounds: self.bounds.clone(),
            failures: self.failures,
            precision: self.precision.max(0.001),
            highest: self.max_rate,
            step: self.step,
            calm: self.calm,
        })
    }
}

impl Run {
    pub fn scenario(&self) -> Scenario {
        let mut scenario = Scenario {
            target: self.target,
            flows: [&self.flows[..], &self.chats].concat(),
            media: self.messages.clone(),
            wrapup: self.wrapup,
            min_talk: self.min_talk,
            direct: self.direct,
            interval: self.output.interval,
            ..Scenario::default()
        };
        self.calls.set(&mut scenario);
        self.agents.set(&mut scenario);
        self.network.set(&mut scenario);
        scenario
    }
}

impl Loopback {
    pub fn scenario(&self) -> Scenario {
        let (min_talk, interval) = (Duration::ZERO, self.output.interval);
        let mut scenario = Scenario { loopback: true, min_talk, interval, ..Scenario::default() };
        self.calls.set(&mut scenario);
        self.agents.set(&mut scenario);
        self.network.set(&mut scenario);
        scenario
    }
}

impl Answer {
    pub fn scenario(&self) -> Scenario {
        let mut scenario = Scenario {
            callers: false,
            // A year: until Ctrl-C.
            duration: self.seconds.unwrap_or(Duration::from_secs(31_536_000)),
            talk: self.talk,
            caller_hangs_up: self.caller_hangs_up,
            media: self.messages.clone(),
            drain: self.drain,
            interval: self.output.interval,
            target: SocketAddr::new(self.network.bind, 5060),
            ..Scenario::default()
        };
        self.agents.set(&mut scenario);
        self.network.set(&mut scenario);
        scenario
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_option_comes_through() {
        let line = "loadtest run --target [::1]:5 --flow a=2 --chat b --message w=1s --wrapup 3s --min-talk 2s --rate 7 \
            --arrivals fixed --seconds 4s --max-calls 9 --talk exp:1s --patience 0.5:2s --caller-hangs-up 1 \
            --sdp-less 0.25 --drain 6s --seed 8 --agents 3 --agent-name x{N} --agent-chats 2 --ring 1s --refuse 0.1 \
            --ignore 0.2 --hang-up-early 0.3 --abandon 0.4 --after-call uniform:1s-2s --bind ::1 --one-port \
            --record-route --loss 0.01 --interval 2s --direct --find-max --bound bye=1ms --bound setup=2s \
            --failures 0.1 --calm 5s --step 3s --precision 0.2 --max-rate 99";
        let Command::Run(run) = Cli::parse_from(line.split_whitespace()).command else { panic!("not run") };
        let scenario = run.scenario();
        assert_eq!(scenario.validate(), Ok(()));
        let seconds = Duration::from_secs;
        assert_eq!(scenario.flows, [flow("a=2").unwrap(), chat("b").unwrap()]);
        assert_eq!((scenario.wrapup, scenario.min_talk, scenario.duration), (seconds(3), seconds(2), seconds(4)));
        assert_eq!((scenario.rate, scenario.max_calls, scenario.arrivals), (7.0, Some(9), Arrivals::Fixed));
        assert_eq!((scenario.caller_hangs_up, scenario.sdp_less, scenario.drain), (1.0, 0.25, seconds(6)));
        assert_eq!((scenario.patience.unwrap().share, scenario.seed, scenario.loss), (0.5, 8, 0.01));
        assert_eq!((scenario.media[0].name.as_str(), scenario.talk), ("w", Dist::Exponential(seconds(1))));
        let agents = &scenario.agents[0];
        assert_eq!((agents.name.as_str(), agents.count, agents.chats), ("x{N}", 3, 2));
        let weights: Vec<f64> = agents.behaviours.iter().map(|(weight, _)| *weight).collect();
        assert_eq!(weights, [0.0, 0.1, 0.2, 0.3, 0.4]);
        assert_eq!(scenario.after_call, Some(Dist::Uniform(seconds(1), seconds(2))));
        assert!(scenario.one_port && scenario.record_route && scenario.direct && scenario.bind.is_ipv6());
        assert_eq!(scenario.interval, seconds(2));
        let goal = run.limit.goal().unwrap();
        let bounds = vec![(Phase::Bye, Duration::from_millis(1)), (Phase::Setup, seconds(2))];
        assert_eq!(
            goal,
            Goal { bounds, failures: 0.1, precision: 0.2, highest: 99.0, step: seconds(3), calm: seconds(5) }
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "run",
            "run --target x",
            "run --target 1.2.3.4:5 --vs-name b",
            "run --target 1.2.3.4:5 --name a,b",
            "loopback --bound soon=1s",
            "loopback --bound first",
            "loopback --arrivals weekly",
            "loopback --arrivals file:/nowhere/at/all",
            "loopback --patience 2s",
            "loopback --talk gamma:1s",
        ] {
            let line = std::iter::once("loadtest").chain(bad.split_whitespace());
            assert!(Cli::try_parse_from(line).is_err(), "{bad}");
        }
        let Command::Loopback(loopback) =
            Cli::parse_from(["loadtest", "loopback", "--refuse", "0.7", "--ignore", "0.7"]).command
        else {
            panic!("not loopback")
        };
        assert!(loopback.scenario().validate().is_err());
    }

    #[test]
    fn a_file_of_arrivals_sets_the_length_of_the_run() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0.5\n2.5 sales\n").unwrap();
        let arrivals = format!("file:{}", file.path().display());
        let Command::Loopback(loopback) = Cli::parse_from(["loadtest", "loopback", "--arrivals", &arrivals]).command
        else {
            panic!("not loopback")
        };
        assert_eq!(loopback.scenario().duration, Duration::from_nanos(2_500_000_001));
    }
}
