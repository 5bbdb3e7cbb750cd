//! `loadtest`: plays callers, agents and media servers towards a SIP queue system, and reports what it saw.

use std::{
    io::{IsTerminal, Write as _},
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use loadtest::{
    AgentPlan, Arrivals, Behaviour, Dist, FlowShare, Generator, Live, MediaPlan, Patience, Report, Scenario,
    parse_duration,
};

/// Load generator for SIP queue systems: callers, agents and media servers over UDP, on one thread.
///
/// Start with `loadtest loopback`: it needs no server, and shows what this machine can generate. Against a server,
/// `loadtest run --target ADDR:PORT` first prints where its agents and media servers listen; provision those, press
/// Enter (or give --wait-ready 0), and calls begin.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Times are written 200ms, 2s, 3m; distributions 2s, uniform:1s-3s, exp:2s (mean), lognormal:2s,0.5 (median, sigma).

Examples:
  loadtest loopback --rate 2000 --seconds 10s
  loadtest run --target 127.0.0.1:5060 --flow support --agents 50 --rate 20 --talk exp:5s
  loadtest run --target 127.0.0.1:5060 --flow sales=3 --flow support=1 --patience 0.2:exp:10s --json

Exit codes: 0 all well; 1 calls failed, agents were booked twice or left over, or messages violated the protocol;
2 bad usage.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Play calls against a server.
    Run(Run),
    /// Self-test without a server: the generator's callers dial its own agents.
    Loopback(Common),
}

#[derive(Debug, Args)]
struct Run {
    /// Address and port of the server under test.
    #[arg(long, value_name = "ADDR:PORT")]
    target: SocketAddr,
    /// A queue that callers dial, sip:NAME@target, with an optional weight. May be given several times.
    #[arg(long = "flow", value_name = "NAME[=WEIGHT]", default_value = "support", value_parser = flow)]
    flows: Vec<FlowShare>,
    /// A queue that callers dial for a chat (MSRP). May be given several times.
    #[arg(long = "chat", value_name = "NAME[=WEIGHT]", value_parser = chat)]
    chats: Vec<FlowShare>,
    /// A welcome-type message sip:NAME@media that hangs up after a time. May be given several times. Any other name
    /// plays until BYE, as music does.
    #[arg(long = "message", value_name = "NAME=DIST", value_parser = message)]
    messages: Vec<MediaPlan>,
    /// The wrap-up that the server is configured with; agents are due that long after a call.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    wrapup: Duration,
    /// Sooner than this, the server counts an agent's hang-up as a rejection.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    min_talk: Duration,
    /// Print the addresses, then wait this long (0s: not at all) instead of for the Enter key.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    wait_ready: Option<Duration>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Calls per second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// How long calls arrive.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    seconds: Duration,
    /// How the gaps between arrivals are drawn.
    #[arg(long, value_enum, default_value_t = Gaps::Poisson)]
    arrivals: Gaps,
    /// Stop arrivals after this many calls.
    #[arg(long, value_name = "N")]
    max_calls: Option<u64>,
    /// Number of agents, users agent1 to agentN.
    #[arg(long, value_name = "N", default_value_t = 50)]
    agents: u32,
    /// Their names; {N} is the number.
    #[arg(long, value_name = "PATTERN", default_value = "agent{N}")]
    agent_name: String,
    /// Most chats that an agent takes at once.
    #[arg(long, value_name = "N", default_value_t = 0)]
    agent_chats: u32,
    /// How long phones ring before they are answered (or refuse).
    #[arg(long, value_name = "DIST", default_value = "500ms")]
    ring: Dist,
    /// Share of the attempts that agents refuse with 486.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    refuse: f64,
    /// Share of the attempts that agents let ring until CANCEL.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    ignore: f64,
    /// Share of the attempts that agents answer, and hang up 100 ms later.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    hang_up_early: f64,
    /// How long caller and agent talk.
    #[arg(long, value_name = "DIST", default_value = "2s")]
    talk: Dist,
    /// Callers who give up while they wait: share of all callers, and after how long.
    #[arg(long, value_name = "SHARE:DIST", value_parser = patience)]
    patience: Option<Patience>,
    /// Share of the talks that the caller ends; the agent ends the others.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    caller_hangs_up: f64,
    /// Share of the callers whose INVITE has no SDP.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    sdp_less: f64,
    /// After the last arrival: how long calls may go on before those left hang up.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    drain: Duration,
    /// Share of the received datagrams to throw away, to exercise retransmission.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    loss: f64,
    /// Local address.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// One port for callers, agents and media servers.
    #[arg(long)]
    one_port: bool,
    /// The same seed draws the same calls.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End with the report as one JSON object on standard output (all else goes to standard error).
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Gaps {
    /// As independent callers make them.
    Poisson,
    /// All the same.
    Fixed,
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

impl Common {
    fn scenario(self) -> Scenario {
        let hang_up = Behaviour::HangUp { ring: self.ring, after: Dist::Fixed(Duration::from_millis(100)) };
        let answered = (1.0 - self.refuse - self.ignore - self.hang_up_early).max(0.0);
        let behaviours = vec![
            (answered, Behaviour::Answer { ring: self.ring }),
            (self.refuse, Behaviour::Refuse { code: 486, ring: self.ring }),
            (self.ignore, Behaviour::Ignore),
            (self.hang_up_early, hang_up),
        ];
        Scenario {
            bind: self.bind,
            one_port: self.one_port,
            rate: self.rate,
            arrivals: match self.arrivals {
                Gaps::Poisson => Arrivals::Poisson,
                Gaps::Fixed => Arrivals::Fixed,
            },
            duration: self.seconds,
            max_calls: self.max_calls,
            agents: vec![AgentPlan { name: self.agent_name, count: self.agents, behaviours, chats: self.agent_chats }],
            talk: self.talk,
            patience: self.patience,
            caller_hangs_up: self.caller_hangs_up,
            sdp_less: self.sdp_less,
            seed: self.seed,
            drain: self.drain,
            loss: self.loss,
            ..Scenario::default()
        }
    }
}

fn main() -> ExitCode {
    let (scenario, wait_ready, json) = match Cli::parse().command {
        Command::Loopback(common) => {
            let json = common.json;
            let scenario = Scenario { loopback: true, min_talk: Duration::ZERO, ..common.scenario() };
            (scenario, Some(Duration::ZERO), json)
        }
        Command::Run(run) => {
            let json = run.common.json;
            let scenario = Scenario {
                target: run.target,
                flows: [run.flows, run.chats].concat(),
                media: run.messages,
                wrapup: run.wrapup,
                min_talk: run.min_talk,
                ..run.common.scenario()
            };
            (scenario, run.wait_ready, json)
        }
    };
    let generator = match Generator::bind(&scenario) {
        Ok(generator) => generator,
        Err(error) => {
            eprintln!("loadtest: {error}");
            return ExitCode::from(2);
        }
    };
    if !scenario.loopback {
        announce(&scenario, &generator, wait_ready);
    }
    let report = watch(generator);
    print(&report, json)
}

/// Says what to provision, and gives time for it.
fn announce(scenario: &Scenario, generator: &Generator, wait: Option<Duration>) {
    let (agents, media) = (generator.agent_addr(), generator.media_addr());
    eprintln!("callers send from {}; agents and media servers answer at:", generator.caller_addr());
    let mut names = scenario.agent_names();
    let (first, last) = (names.next(), names.last());
    if let Some(first) = first {
        let to = last.map_or(String::new(), |last| format!(" to sip:{last}@{agents}"));
        eprintln!("  agents   sip:{first}@{agents}{to}");
    }
    eprintln!("  media    sip:music@{media} (any name plays until BYE)");
    for message in &scenario.media {
        eprintln!("           sip:{}@{media} (hangs up by itself)", message.name);
    }
    match wait {
        Some(time) => thread::sleep(time),
        None => {
            eprintln!("provision them at {}, then press Enter", scenario.target);
            // At the end of standard input there is nobody to wait for.
            let _ = std::io::stdin().read_line(&mut String::new());
        }
    }
}

/// Runs, with a line a second on standard error.
fn watch(generator: Generator) -> Report {
    let (live, stop, done) = (generator.live(), generator.stop_flag(), Arc::<AtomicBool>::default());
    stop_on_interrupt(stop);
    let watcher = {
        let done = Arc::clone(&done);
        thread::spawn(move || {
            let mut before = 0;
            while !done.load(Relaxed) {
                thread::park_timeout(Duration::from_secs(1));
                before = live_line(&live, before);
            }
            if std::io::stderr().is_terminal() {
                eprintln!();
            }
        })
    };
    let report = generator.run();
    done.store(true, Relaxed);
    watcher.thread().unpark();
    if watcher.join().is_err() {
        eprintln!("loadtest: the live view broke; the report is whole");
    }
    report
}

fn live_line(live: &Live, before: u64) -> u64 {
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    let gauge = |gauge: &AtomicI64| gauge.load(Relaxed);
    let messages = count(&live.received) + count(&live.sent);
    let terminal = std::io::stderr().is_terminal();
    let (start, end) = if terminal { ("\r\x1b[K", "") } else { ("", "\n") };
    let mut out = std::io::stderr().lock();
    // A closed standard error is no reason to end the run.
    let _ = write!(
        out,
        "{start}offered {} answered {} abandoned {} refused {} failed {} | waiting {} talking {} | agents busy {} ringing {} \
         | {} msg/s, twice {}{end}",
        count(&live.offered),
        count(&live.answered),
        count(&live.abandoned),
        count(&live.refused),
        count(&live.failed),
        gauge(&live.waiting),
        gauge(&live.talking),
        gauge(&live.agents_busy),
        gauge(&live.ringing),
        messages - before,
        count(&live.retransmissions),
    );
    let _ = out.flush();
    messages
}

/// The flag that the signal handler sets.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupted(_signal: libc::c_int) {
    if INTERRUPTED.swap(true, Relaxed) {
        // SAFETY: _exit is async-signal-safe. The second Ctrl-C means: now.
        unsafe { libc::_exit(130) };
    }
}

/// Ctrl-C ends the arrivals; a second one ends the program.
fn stop_on_interrupt(stop: Arc<AtomicBool>) {
    let handler: extern "C" fn(libc::c_int) = interrupted;
    // SAFETY: the handler only swaps an atomic and may call _exit, both async-signal-safe.
    unsafe { libc::signal(libc::SIGINT, handler as libc::sighandler_t) };
    thread::spawn(move || {
        while !INTERRUPTED.load(Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Relaxed);
    });
}

fn print(report: &Report, json: bool) -> ExitCode {
    if json {
        match serde_json::to_string(report) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("loadtest: cannot write the report as JSON: {error}"),
        }
    } else {
        println!("{report}");
    }
    ExitCode::from(u8::from(!report.clean()))
}
