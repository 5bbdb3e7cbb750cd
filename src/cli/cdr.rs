//! `strowger cdr`: the last call detail records, and all of them as CSV or JSON lines, from whichever database.

use super::{Failure, Settings, rfc3339, runtime};
use crate::store::{CdrStore, Missing, StoreError, cdrs_at};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use std::time::Duration;
use strowger_engine::{Cdr, CdrRow};

/// Records of a page.
const PAGE: usize = 1000;
/// How often a follower looks for new ones.
const POLL: Duration = Duration::from_millis(500);
/// Keys that a follower remembers: a record whose write was tried again may come once more.
const REMEMBERED: usize = 100_000;

#[derive(Debug, Subcommand)]
pub(super) enum CdrCommand {
    /// Show the last records, in the order in which they were written
    Tail(TailArgs),
    /// Write all records, or those of a time, a flow, an agent, in the order in which they were written
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// Go on showing new ones
    #[arg(short, long)]
    follow: bool,
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: usize,
    /// As JSON, one a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// Received then or later, as 2026-11-22T05:00:26Z or a date
    #[arg(long, value_name = "TIME", value_parser = rfc3339::read)]
    since: Option<u64>,
    /// Received before
    #[arg(long, value_name = "TIME", value_parser = rfc3339::read)]
    until: Option<u64>,
    /// Of this flow alone
    #[arg(long, value_name = "ID")]
    flow: Option<String>,
    /// Of this agent alone
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Into this file, not to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// With a line of names; RFC 4180
    Csv,
    /// An object a line
    Jsonl,
}

pub(super) fn cdr(settings: &Settings, command: &CdrCommand) -> Result<(), Failure> {
    let config = settings.load()?.config;
    let url = config.acc_db();
    let done = runtime()?.block_on(async {
        let store = cdrs_at(url, Missing::Tell).await?;
        match command {
            CdrCommand::Tail(args) => tail(&*store, args).await,
            CdrCommand::Export(args) => export(&*store, args).await,
        }
    });
    match done {
        // Who has seen enough closes the pipe.
        Err(Ended::Output(e, _)) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(Ended::Output(e, place)) => Err(Failure::Fault(format!("cannot write to {place}: {e}"))),
        Err(Ended::Store(StoreError::Missing { .. })) => {
            Err(Failure::Fault(format!("{url} is not there yet: it is made at the first start")))
        }
        Err(Ended::Store(e)) => Err(Failure::Fault(e.to_string())),
        Ok(()) => Ok(()),
    }
}

/// Why a command did not come to its end.
enum Ended {
    Store(StoreError),
    /// What could not be written, and where to.
    Output(io::Error, String),
}

impl From<StoreError> for Ended {
    fn from(e: StoreError) -> Ended {
        Ended::Store(e)
    }
}

async fn tail(store: &dyn CdrStore, args: &TailArgs) -> Result<(), Ended> {
    let mut place = store.back(args.lines).await?;
    let mut last = VecDeque::new();
    loop {
        let page = store.read(place.as_deref(), PAGE).await?;
        last.extend(page.rows);
        last.drain(..last.len().saturating_sub(args.lines.max(REMEMBERED)));
        let Some(next) = page.next else { break };
        place = Some(next);
    }
    show(last.iter().skip(last.len().saturating_sub(args.lines)), args.json)?;
    if !args.follow {
        return Ok(());
    }
    let mut shown: VecDeque<u128> = last.iter().map(|row| row.key).collect();
    let mut known: HashSet<u128> = shown.iter().copied().collect();
    let mut told = false;
    loop {
        match store.read(place.as_deref(), PAGE).await {
            Ok(page) => {
                told = false;
                let new: Vec<CdrRow> = page.rows.into_iter().filter(|row| known.insert(row.key)).collect();
                show(new.iter(), args.json)?;
                shown.extend(new.iter().map(|row| row.key));
                shown.drain(..shown.len().saturating_sub(REMEMBERED)).for_each(|key| {
                    known.remove(&key);
                });
                match page.next {
                    Some(next) => place = Some(next),
                    None => tokio::time::sleep(POLL).await,
                }
            }
            Err(StoreError::Failed(what)) => {
                if !told {
                    eprintln!("strowger: {what}; trying again");
                }
                told = true;
                tokio::time::sleep(POLL).await;
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// Prints records, one a line.
fn show<'a>(rows: impl Iterator<Item = &'a CdrRow>, as_json: bool) -> Result<(), Ended> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut shown = Ok(());
    for row in rows {
        shown = shown
            .and_then(|()| if as_json { writeln!(out, "{}", object(row)) } else { writeln!(out, "{}", line(row)) });
    }
    shown.and_then(|()| out.flush()).map_err(|e| Ended::Output(e, "standard output".to_owned()))
}

async fn export(store: &dyn CdrStore, args: &ExportArgs) -> Result<(), Ended> {
    let place = args.out.as_ref().map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
    let output = |e: io::Error| Ended::Output(e, place.clone());
    let out: Box<dyn Write> = match &args.out {
        Some(path) => Box::new(BufWriter::new(File::create(path).map_err(output)?)),
        None => Box::new(BufWriter::new(io::stdout())),
    };
    let mut out = match args.format {
        Format::Csv => {
            Export::Csv(Box::new(csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(out)))
        }
        Format::Jsonl => Export::Jsonl(out),
    };
    out.head().map_err(output)?;
    let (mut after, mut written) = (None, 0_u64);
    loop {
        let page = store.read(after.as_deref(), PAGE).await?;
        for row in page.rows.iter().filter(|row| args.wants(row)) {
            out.row(row).map_err(output)?;
            written += 1;
        }
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    out.flush().map_err(output)?;
    if args.out.is_some() {
        super::say(&format!("{written} records written to {place}"));
    }
    Ok(())
}

impl ExportArgs {
    fn wants(&self, row: &CdrRow) -> bool {
        self.since.is_none_or(|t| row.received_unix_us >= t)
            && self.until.is_none_or(|t| row.received_unix_us < t)
            && self.flow.as_ref().is_none_or(|f| *row.flow_id == **f)
            && self.agent.as_ref().is_none_or(|a| row.agent_id.as_deref() == Some(a))
    }
}

enum Export {
    Csv(Box<csv::Writer<Box<dyn Write>>>),
    Jsonl(Box<dyn Write>),
}

impl Export {
    fn head(&mut self) -> io::Result<()> {
        match self {
            Export::Csv(out) => Ok(out.write_record(COLUMNS)?),
            Export::Jsonl(_) => Ok(()),
        }
    }

    fn row(&mut self, row: &CdrRow) -> io::Result<()> {
        match self {
            Export::Csv(out) => Ok(out.write_record(values(row).iter().map(text))?),
            Export::Jsonl(out) => writeln!(out, "{}", object(row)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Export::Csv(out) => out.flush(),
            Export::Jsonl(out) => out.flush(),
        }
    }
}

/// Those of `cc_cdrs` under their names, then what it has no column for.
const COLUMNS: [&str; 19] = [
    "caller",
    "received_timestamp",
    "wait_time",
    "pickup_time",
    "talk_time",
    "flow_id",
    "agent_id",
    "call_type",
    "rejected",
    "fstats",
    "cid",
    "media",
    "wait_ms",
    "pickup_ms",
    "talk_ms",
    "cause",
    "param",
    "sip_call_id",
    "key",
];

fn values(c: &CdrRow) -> [Value; 19] {
    [
        json!(c.caller),
        json!(rfc3339::written(c.received_unix_us / 1000)),
        json!(Cdr::seconds(c.wait_us)),
        json!(Cdr::seconds(c.pickup_us)),
        json!(c.talk_s),
        json!(c.flow_id),
        json!(c.agent_id),
        json!(c.call_type),
        json!(c.rejected),
        json!(c.fstats),
        json!(c.cid),
        json!(c.media),
        json!(c.wait_us / 1000),
        json!(c.pickup_us / 1000),
        json!(c.talk_us / 1000),
        json!(c.cause),
        json!(c.param),
        json!(c.sip_call_id),
        json!(format!("{:032x}", c.key)),
    ]
}

fn object(row: &CdrRow) -> Value {
    Value::Object(COLUMNS.into_iter().map(str::to_owned).zip(values(row)).collect())
}

/// As a cell of a CSV file: no value is an empty one.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// For a reader: when, which flow, which agent, who, what came of it, how long.
fn line(c: &CdrRow) -> String {
    let ended = match c.call_type {
        -2 => "rejected",
        -1 => "error",
        0 => "handled",
        1 => "dropped",
        _ => "other",
    };
    let shown = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    let cause = if c.cause == 0 { String::new() } else { format!("  {}", c.cause) };
    format!(
        "{}  {:<16} {:<16} {:<24} {:<8}  wait {:>7.3}  talk {:>8.3}{cause}",
        rfc3339::written(c.received_unix_us / 1000),
        shown(&c.flow_id),
        shown(c.agent_id.as_deref().unwrap_or("-")),
        shown(&c.caller),
        ended,
        seconds(c.wait_us),
        seconds(c.talk_us),
    )
}

#[expect(clippy::cast_precision_loss, reason = "shown with three places")]
fn seconds(us: u64) -> f64 {
    (us / 1000) as f64 / 1000.0
}
