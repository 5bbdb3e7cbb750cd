//! The command line: `strowger [run|check|flow|agent|cdr|db|mi|latency|audit|drain|demo]`.
//!
//! Exit codes: 0 done, 1 fault at run time, 2 bad usage or configuration. What a command was asked for goes to
//! standard output, logs and faults to standard error.

mod audit;
mod cdr;
mod check;
mod client;
mod db;
mod demo;
mod latency;
mod provision;
mod rfc3339;
mod route;
mod run;

use crate::config::{Config, ConfigError, Loaded, Setting};
use clap::{Args, Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// SIP contact-centre engine: callers reach flows, wait with music, are connected to the agent with the skill.
///
/// Without a command it serves: SIP on udp 5060, management on http://127.0.0.1:8888/mi, data in ./strowger.db.
/// ./strowger.toml is read when it is there; strowger.example.toml explains every key.
#[derive(Debug, Parser)]
#[command(name = "strowger", version, about, long_about, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Settings that go over the file's.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Settings (they go over the configuration file)")]
struct Settings {
    /// Configuration file [default: ./strowger.toml when it is there]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Directory of keys, locks and spools
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<String>,
    /// SIP listener udp:ADDR:PORT, port 0 for a free one; repeatable
    #[arg(long, value_name = "LISTENER", global = true)]
    listen: Vec<String>,
    /// Address that peers are told, where it is not the listener's own
    #[arg(long, value_name = "ADDR[:PORT]", global = true)]
    advertise: Option<String>,
    /// HTTP address of the management interface
    #[arg(long, value_name = "ADDR:PORT", global = true)]
    mi_http: Option<String>,
    /// Database of flows, agents and CDRs: sqlite:PATH, mysql://.., postgres://.. or scylla://HOST/KEYSPACE
    #[arg(long, value_name = "URL", global = true)]
    db: Option<String>,
    /// Threads that carry the calls [default: one a core]
    #[arg(long, value_name = "N", global = true)]
    shards: Option<String>,
    /// Any key of the configuration, such as call_center.wrapup_time=2; repeatable
    #[arg(long, value_name = "SECTION.KEY=VALUE", global = true, value_parser = Setting::parse)]
    set: Vec<Setting>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default)
    Run,
    /// Check the configuration and every row of flows and agents; try the routing rules without a call
    Check(check::CheckArgs),
    /// List, set and remove flows (queues)
    #[command(subcommand)]
    Flow(provision::FlowCommand),
    /// List, set and remove agents; log them in and out
    #[command(subcommand)]
    Agent(provision::AgentCommand),
    /// Show and export call detail records
    #[command(subcommand)]
    Cdr(cdr::CdrCommand),
    /// Make and check the tables of the databases; copy from one to another
    #[command(subcommand)]
    Db(db::DbCommand),
    /// Send a command to a running server's management interface
    #[command(alias = "fifo")]
    Mi(client::MiArgs),
    /// Show what a running server's shards measure: times of each stage, by percentile
    Latency(latency::LatencyArgs),
    /// Show what a running server's live audits have looked at, found and repaired
    Audit(audit::AuditArgs),
    /// Have a running server refuse new calls (503 with Retry-After), or take them again
    Drain(client::DrainArgs),
    /// Serve simulated callers and agents for a while, then show the books
    Demo(crate::demo::DemoArgs),
}

/// Where a running server's management interface is.
#[derive(Debug, Clone, Args)]
struct MiAddress {
    /// Management interface of the running server [default: as configured, http://127.0.0.1:8888/mi]
    #[arg(long, value_name = "URL")]
    mi: Option<String>,
}

/// How a command ended, when it did not end well.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Exit code 1.
    #[error("{0}")]
    Fault(String),
    /// Exit code 1; everything has been said.
    #[error("")]
    Told,
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Failure {
        Failure::Usage(e.to_string())
    }
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    let settings = &cli.settings;
    let result = match &cli.command {
        None | Some(Command::Run) => run::run(settings),
        Some(Command::Check(args)) => check::check(settings, args),
        Some(Command::Flow(command)) => provision::flow(settings, command),
        Some(Command::Agent(command)) => provision::agent(settings, command),
        Some(Command::Cdr(command)) => cdr::cdr(settings, command),
        Some(Command::Latency(args)) => latency::latency(settings, args),
        Some(Command::Audit(args)) => audit::audit(settings, args),
        Some(Command::Db(command)) => db::db(settings, command),
        Some(Command::Mi(args)) => client::mi(settings, args),
        Some(Command::Drain(args)) => client::drain(settings, args),
        Some(Command::Demo(args)) => demo::demo(settings, args),
    };
    let failure = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    let text = failure.to_string();
    if !text.is_empty() {
        for line in text.lines() {
            eprintln!("strowger: {line}");
        }
    }
    ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
}

impl Settings {
    /// The flags as settings, in the order in which they go over the file: `--set` last.
    fn all(&self) -> Vec<Setting> {
        let one = |flag: &str, key: &str, value: &Option<String>| {
            value.as_ref().map(|v| Setting { flag: flag.to_owned(), key: key.to_owned(), value: v.clone() })
        };
        let quoted: Vec<String> = self.listen.iter().map(crate::config::Value::show).collect();
        let listen = (!quoted.is_empty()).then(|| format!("[{}]", quoted.join(", ")));
        let flags = [
            one("--data-dir", "server.data_dir", &self.data_dir),
            one("--listen", "sip.listen", &listen),
            one("--advertise", "sip.advertise", &self.advertise),
            one("--mi-http", "mi.http", &self.mi_http),
            one("--db", "call_center.db_url", &self.db),
            one("--shards", "shards.count", &self.shards),
        ];
        flags.into_iter().flatten().chain(self.set.iter().cloned()).collect()
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        Config::load(self.config.as_deref(), &self.all())
    }
}

/// The control plane's runtime.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).thread_name("control").enable_all();
    // Where the cores do not suffice for all, a long list or reload must not hold up calls.
    let built = builder.on_thread_start(strowger_runtime::sys::step_behind).build();
    built.map_err(|e| Failure::Fault(format!("cannot start threads: {e}")))
}

/// A line to standard output; nobody reading it is no fault.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
