//! `strowger demo`: the whole server in this process, with simulated callers, agents and a media server around it, over
//! real UDP on loopback.
//!
//! The verdicts are not the engine's own: calls are counted by the generator, CDRs by the database.

mod books;
mod sample;
mod view;

pub use books::Summary;

use crate::config::{Config, ConfigError, Setting};
use crate::control::clock;
use crate::server::{Server, ServerError};
use crate::store::{Cell, StoreError, open_cdrs, open_provisioning};
use books::Outcome;
use clap::Args;
use loadtest::{AgentPlan, Behaviour, Dist, FlowShare, Generator, MediaPlan, Patience, Report, Scenario};
use sample::Sampler;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use strowger_dispatch::AgentState;
use strowger_engine::registry::Table;
use thiserror::Error;
use view::View;

/// What is played.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// How long calls arrive
    #[arg(long, default_value_t = 20.0, value_parser = positive)]
    pub seconds: f64,
    /// Calls a second
    #[arg(long, default_value_t = 20.0, value_parser = positive)]
    pub rate: f64,
    /// Agents
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub agents: u32,
    /// Mean length of a talk, seconds
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    pub talk: f64,
    /// The same seed plays the same calls
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// End with one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

fn positive(s: &str) -> Result<f64, String> {
    let n = s.parse::<f64>().ok().filter(|n| *n > 0.0 && *n <= 1e6);
    n.ok_or_else(|| "expected a number above 0, at most 1000000".to_owned())
}

/// Why a demo does not come to its end.
#[derive(Debug, Error)]
pub enum DemoError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Generator(#[from] loadtest::Error),
    #[error("cannot use {}: {source}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("the load generator died")]
    GeneratorDied,
}

/// A queue of the demo; callers dial its name.
struct Queue {
    name: &'static str,
    skill: &'static str,
    /// Share of the callers.
    weight: f64,
    /// 0 is served first.
    priority: i64,
    chat: bool,
    /// So many waiting, and the next caller hears an apology first.
    dissuade_at: Option<i64>,
}

const QUEUES: [Queue; 4] = [
    Queue { name: "sales", skill: "selling", weight: 0.45, priority: 10, chat: false, dissuade_at: None },
    Queue { name: "support", skill: "helping", weight: 0.30, priority: 20, chat: false, dissuade_at: Some(10) },
    // The same agents as sales, before its callers.
    Queue { name: "vip", skill: "selling", weight: 0.05, priority: 0, chat: false, dissuade_at: None },
    Queue { name: "web", skill: "writing", weight: 0.20, priority: 30, chat: true, dissuade_at: None },
];
/// Skills of agents in turn; who writes takes chats as well as calls.
const SKILLS: [&str; 4] = ["selling,helping", "selling", "helping,writing", "selling,writing"];
/// Chats at once of an agent who writes.
const CHATS: u32 = 3;
const APOLOGY: Duration = Duration::from_secs(1);
/// Short, so that things move.
const WRAPUP: Duration = Duration::from_secs(1);
const RING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long shards may take to finish what the generator has finished, the agents' wrap-ups not counted.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(250);

/// The demo's settings, then the user's over them.
///
/// # Errors
/// When the user's are wrong.
pub fn config(folder: &Path, user: &[Setting]) -> Result<Config, ConfigError> {
    let of = |key: &str, value: String| Setting { flag: "demo".to_owned(), key: key.to_owned(), value };
    let mut all = vec![
        of("server.data_dir", folder.join("data").display().to_string()),
        of("server.stop_timeout", "5".to_owned()),
        of("call_center.db_url", format!("sqlite:{}", folder.join("demo.db").display())),
        of("call_center.wrapup_time", WRAPUP.as_secs_f64().to_string()),
        of("call_center.agent_ring_timeout", RING_TIMEOUT.as_secs_f64().to_string()),
        of("sip.listen", "udp:127.0.0.1:0".to_owned()),
        of("mi.http", "127.0.0.1:0".to_owned()),
        of("log.level", "warn".to_owned()),
    ];
    all.extend(user.iter().cloned());
    Ok(Config::from_text("demo", "", &all)?.config)
}

/// Plays the demo and balances its books.
///
/// # Errors
/// When something cannot be started, or dies.
pub async fn run(args: &DemoArgs, user: &[Setting]) -> Result<Summary, DemoError> {
    let folder = Folder::make()?;
    let config = config(&folder.0, user)?;
    let terminal = !args.json && std::io::stdout().is_terminal();
    if !terminal {
        crate::logs::start(&config);
    }
    let mut generator = Generator::bind(&scenario(args, &config))?;
    provision(&config, args, generator.agent_addr(), generator.media_addr()).await?;
    let server = Server::start(&config, Some(seed(args.seed))).await?;
    if let Some(target) = server.listen().first().and_then(|l| l.strip_prefix("udp:")?.parse().ok()) {
        generator.set_target(target);
    }
    let (live, stop) = (generator.live(), generator.stop_flag());
    let cpu = cpu_seconds();
    let playing = std::thread::Builder::new().name("loadtest".to_owned()).spawn(move || generator.run());
    let playing = playing.map_err(|_| DemoError::GeneratorDied)?;
    let view = View::open(terminal, args.json);
    let report = watch(&server, playing, Sampler::new(live), view, &stop).await?;
    let settled = settle(&server).await?;
    let outcome = Outcome {
        settled,
        agents_in_call: agents_in_call(&server),
        onhold: ["ccg_onhold_calls", "ccg_onhold_chats"]
            .iter()
            .map(|name| server.plane().statistics.get(&server.plane().provisioning(), name).unwrap_or(-1))
            .sum(),
        latency: server.shards().latency(),
        shards: server.shards().shards(),
        cpu_seconds: cpu_seconds() - cpu - report.cpu_seconds,
    };
    server.stop(std::future::pending()).await?;
    let written = open_cdrs(&config).await?.count().await?;
    Ok(Summary::of(&report, &outcome, written))
}

/// Watches until the generator is done.
async fn watch(
    server: &Server,
    playing: std::thread::JoinHandle<Report>,
    mut sampler: Sampler,
    mut view: View,
    stop: &AtomicBool,
) -> Result<Report, DemoError> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut tick = tokio::time::interval(LOOK);
    while !playing.is_finished() {
        tokio::select! {
            _ = tick.tick() => {
                if view.show(&sampler.take(server)) {
                    stop.store(true, Relaxed);
                }
            }
            _ = &mut interrupted, if !stop.load(Relaxed) => stop.store(true, Relaxed),
            failure = server.failure() => return Err(failure.into()),
        }
    }
    drop(view);
    playing.join().map_err(|_| DemoError::GeneratorDied)
}

fn scenario(args: &DemoArgs, config: &Config) -> Scenario {
    let ring = Dist::Uniform(Duration::from_millis(100), Duration::from_millis(600));
    let behaviours = vec![
        (0.90, Behaviour::Answer { ring }),
        (0.05, Behaviour::Refuse { code: 486, ring: Dist::Fixed(Duration::from_millis(200)) }),
        (0.03, Behaviour::Ignore),
        (0.02, Behaviour::HangUp { ring, after: Dist::Fixed(Duration::from_millis(100)) }),
    ];
    let talk = Duration::from_secs_f64(args.talk);
    Scenario {
        target: SocketAddr::from(([127, 0, 0, 1], 5060)),
        rate: args.rate,
        duration: Duration::from_secs_f64(args.seconds),
        flows: QUEUES.iter().map(|q| FlowShare { name: q.name.to_owned(), weight: q.weight, chat: q.chat }).collect(),
        agents: vec![AgentPlan { name: "agent{N}".to_owned(), count: args.agents, behaviours, chats: CHATS }],
        media: vec![MediaPlan { name: "sorry".to_owned(), hang_up_after: Some(Dist::Fixed(APOLOGY)) }],
        talk: Dist::LogNormal(talk.mul_f64(0.88), 0.5),
        patience: Some(Patience { share: 0.2, after: Dist::Exponential(Duration::from_secs(4)) }),
        wrapup: Duration::from_micros(config.call_center.wrapup_time.us),
        min_talk: Duration::from_micros(config.call_center.min_talk_time.us),
        seed: args.seed,
        drain: Duration::from_secs(30) + talk * 2,
        ..Scenario::default()
    }
}

async fn provision(config: &Config, args: &DemoArgs, agents: SocketAddr, media: SocketAddr) -> Result<(), DemoError> {
    let store = open_provisioning(config).await?;
    for q in &QUEUES {
        let mut cells = vec![
            ("skill", Cell::Text(q.skill.to_owned())),
            ("priority", Cell::Int(q.priority)),
            ("prependcid", Cell::Text(q.name.to_uppercase())),
            ("message_queue", Cell::Text(format!("sip:music@{media}"))),
        ];
        if let Some(waiting) = q.dissuade_at {
            cells.push(("dissuading_qsize_th", Cell::Int(waiting)));
            cells.push(("message_dissuading", Cell::Text(format!("sip:sorry@{media}"))));
        }
        store.set(Table::Flows, q.name, &cells).await?;
    }
    for n in 1..=args.agents {
        let skills = SKILLS[n as usize % SKILLS.len()];
        // A few alone serve all.
        let skills = if (args.agents as usize) < SKILLS.len() { "selling,helping,writing" } else { skills };
        let mut cells = vec![
            ("location", Cell::Text(format!("sip:agent{n}@{agents}"))),
            ("skills", Cell::Text(skills.to_owned())),
            ("logstate", Cell::Int(1)),
        ];
        if skills.contains("writing") {
            cells.push(("msrp_location", Cell::Text(format!("sip:agent{n}@{agents}"))));
            cells.push(("msrp_max_sessions", Cell::Int(CHATS.into())));
        }
        store.set(Table::Agents, &format!("agent{n}"), &cells).await?;
    }
    Ok(())
}

/// Waits until no shard has a call; false when one keeps some.
async fn settle(server: &Server) -> Result<bool, DemoError> {
    let until = Instant::now() + SETTLE + longest_wrapup(server);
    loop {
        let audit = server.audit().await?;
        if audit.calls == 0 && audit.wrapups == 0 {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How long the last wrap-up still takes: those after chats add up.
fn longest_wrapup(server: &Server) -> Duration {
    let plane = server.plane();
    let board = &plane.statistics.hub().board;
    let agents = plane.provisioning();
    let ends = agents.agents_by_id.values().filter_map(|agent| board.peek(agent.slot).map(|b| b.wrapup_ends())).max();
    Duration::from_micros(ends.unwrap_or(0).saturating_sub(clock::unix_us()))
}

fn agents_in_call(server: &Server) -> u64 {
    let p = server.plane().provisioning();
    let busy = |a: &&strowger_dispatch::AgentRef| {
        server.plane().dispatch.agent(**a).is_some_and(|v| matches!(v.state, AgentState::InCall | AgentState::InChat))
    };
    p.agents_by_id.values().filter(busy).count() as u64
}

fn seed(n: u64) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    seed[8..24].copy_from_slice(b"strowger demo se");
    seed
}

/// CPU time of this process, user and system, all threads.
fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage writes a whole rusage to the pointer, which is to one; zeroed is a valid value of it as well.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    #[allow(clippy::cast_precision_loss)] // seconds of a short run
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// A folder that goes when the demo does.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Folder, DemoError> {
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        let path = std::env::temp_dir().join(format!("strowger-demo-{}-{nanos}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Folder(path)),
            Err(source) => Err(DemoError::Folder { path, source }),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Shared with the view and the books.
type Live = Arc<loadtest::Live>;
