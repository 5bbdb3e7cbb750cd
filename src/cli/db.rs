//! `strowger db`: makes the tables, checks them, copies from one database to another.

use super::{Failure, Settings, runtime, say};
use crate::config::{CallCenter, Config, DbUrl};
use crate::store::copy::{Copied, copy_page, copy_provisioning};
use crate::store::names::Names;
use crate::store::{Missing, Provisioned, StoreError, calls_at, cdrs_at, provisioning_at};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::{Path, PathBuf};
use strowger_engine::registry;

#[derive(Debug, Subcommand)]
pub(super) enum DbCommand {
    /// Create the tables that are missing, in each database of the configuration
    Init,
    /// Say what is in each database, and what is wrong with its tables, columns and rows
    Check,
    /// Copy flows, agents and CDRs; run again, it goes on where it was, and no record is doubled
    Copy(Box<CopyArgs>),
}

#[derive(Debug, Args)]
pub(super) struct CopyArgs {
    /// Database to read: sqlite:PATH, scylla://.., mysql://.. or postgres://..
    from: DbUrl,
    /// Database to write; its tables are created where they are missing
    to: DbUrl,
    /// Copy this alone
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// FROM has the tables' own names, not those of the configuration
    #[arg(long)]
    from_own_names: bool,
    /// TO has the tables' own names, not those of the configuration
    #[arg(long)]
    to_own_names: bool,
    /// File that keeps the place of a copy under way [default: strowger-copy-NUMBER.json, in this directory]
    #[arg(long, value_name = "FILE")]
    progress: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Flows and agents
    Provisioning,
    /// Call detail records
    Cdrs,
}

pub(super) fn db(settings: &Settings, command: &DbCommand) -> Result<(), Failure> {
    let config = settings.load()?.config;
    match command {
        DbCommand::Init => runtime()?.block_on(init(&config)).map_err(|e| fault(&e)),
        DbCommand::Check => runtime()?.block_on(check(&config)),
        DbCommand::Copy(args) => runtime()?.block_on(copy(&config, args)),
    }
}

fn fault(e: &StoreError) -> Failure {
    Failure::Fault(e.to_string())
}

async fn init(config: &Config) -> Result<(), StoreError> {
    let (url, names) = (&config.call_center.db_url, Names::of(&config.call_center));
    let was = is_there(provisioning_at(url, names.clone(), Missing::Tell).await)?;
    drop(provisioning_at(url, names, Missing::Create).await?);
    tell_init("flows and agents", url, was);
    let was = is_there(cdrs_at(config.acc_db(), Missing::Tell).await)?;
    drop(cdrs_at(config.acc_db(), Missing::Create).await?);
    tell_init("CDRs", config.acc_db(), was);
    let was = is_there(calls_at(config.rt_db(), Missing::Tell).await)?;
    drop(calls_at(config.rt_db(), Missing::Create).await?);
    tell_init("ongoing calls", config.rt_db(), was);
    Ok(())
}

fn is_there<T>(opened: Result<T, StoreError>) -> Result<bool, StoreError> {
    match opened {
        Ok(_) => Ok(true),
        Err(StoreError::Missing { .. } | StoreError::Column { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

fn tell_init(what: &str, url: &DbUrl, was: bool) {
    say(&format!("{what}: {url}: {}", if was { "all tables were there" } else { "tables created" }));
}

/// Every fault is told, whatever another says.
async fn check(config: &Config) -> Result<(), Failure> {
    let mut sound = true;
    let mut told = |what: &str, url: &DbUrl, found: Result<String, StoreError>| match found {
        Ok(found) => say(&format!("{what}: {url}: {found}")),
        Err(e) => {
            sound = false;
            say(&format!("{what}: {e}"));
        }
    };
    let url = &config.call_center.db_url;
    let names = Names::of(&config.call_center);
    let mut faults = vec![];
    told("flows and agents", url, provisioning(url, &names, &mut faults).await);
    let cdrs = async {
        let count = cdrs_at(config.acc_db(), Missing::Tell).await?.count().await?;
        Ok(format!("version 2, {count} records"))
    };
    told("CDRs", config.acc_db(), cdrs.await);
    let calls = async {
        let calls = calls_at(config.rt_db(), Missing::Tell).await?.load().await?;
        Ok(format!("version 3, {} calls", calls.len()))
    };
    told("ongoing calls", config.rt_db(), calls.await);
    faults.iter().for_each(|f| say(f));
    if sound && faults.is_empty() { Ok(()) } else { Err(Failure::Told) }
}

async fn provisioning(url: &DbUrl, names: &Names, told: &mut Vec<String>) -> Result<String, StoreError> {
    let store = provisioning_at(url, names.clone(), Missing::Tell).await?;
    let Provisioned { rows, mut faults } = store.load().await?;
    faults.extend(registry::check(&rows));
    told.extend(faults.iter().map(|f| names.tell(f)));
    let (flows, agents) = (&names.flows, &names.agents);
    Ok(format!("{flows} version 2, {} rows; {agents} version 3, {} rows", rows.flows.len(), rows.agents.len()))
}

async fn copy(config: &Config, args: &CopyArgs) -> Result<(), Failure> {
    if args.from == args.to {
        return Err(Failure::Usage("FROM and TO are the same database".to_owned()));
    }
    let mut refused = vec![];
    if args.only != Some(Part::Cdrs) {
        let own = |own: bool| Names::of(if own { &OWN } else { &config.call_center });
        let names = (own(args.from_own_names), own(args.to_own_names));
        let (flows, agents) = copy_rows(args, names).await.map_err(|e| fault(&e))?;
        tell_copied("flows", &flows);
        tell_copied("agents", &agents);
        refused.extend(flows.refused.iter().map(|w| format!("flow {w}")));
        refused.extend(agents.refused.iter().map(|w| format!("agent {w}")));
    }
    if args.only != Some(Part::Provisioning) {
        let cdrs = copy_cdrs(args).await?;
        tell_copied("CDRs", &cdrs);
        refused.extend(cdrs.refused.iter().map(|w| format!("CDR {w}")));
    }
    if refused.is_empty() {
        return Ok(());
    }
    Err(Failure::Fault(format!("not copied:\n{}", refused.join("\n"))))
}

static OWN: std::sync::LazyLock<CallCenter> = std::sync::LazyLock::new(CallCenter::default);

fn tell_copied(what: &str, c: &Copied) {
    let there = if what == "CDRs" { "were there" } else { "brought up to date" };
    say(&format!("{what}: {} added, {} {there}, {} not copied", c.added, c.changed, c.refused.len()));
}

async fn copy_rows(args: &CopyArgs, names: (Names, Names)) -> Result<(Copied, Copied), StoreError> {
    let from = provisioning_at(&args.from, names.0.clone(), Missing::Tell).await?;
    let to = provisioning_at(&args.to, names.1, Missing::Create).await?;
    copy_provisioning(&*from, &*to, |f| names.0.tell(f)).await
}

async fn copy_cdrs(args: &CopyArgs) -> Result<Copied, Failure> {
    let from = cdrs_at(&args.from, Missing::Tell).await.map_err(|e| fault(&e))?;
    let to = cdrs_at(&args.to, Missing::Create).await.map_err(|e| fault(&e))?;
    let mut place = Place::of(args)?;
    if place.after.is_some() && to.read(None, 1).await.map_err(|e| fault(&e))?.rows.is_empty() {
        // The target was emptied since.
        place.after = None;
        place.records = 0;
    }
    if place.records > 0 {
        eprintln!("strowger: going on after {} records ({})", place.records, place.file.display());
    }
    let bar = bar(from.count().await.ok());
    let (source, mut copied) = (args.from.to_string(), Copied::default());
    let done = loop {
        bar.set_position(place.records + copied.added + copied.changed + copied.refused.len() as u64);
        match copy_page(&*from, &*to, &source, place.after.as_deref(), &mut copied).await {
            Ok(Some(next)) => {
                place.after = Some(next);
                let all = place.records + copied.added + copied.changed + copied.refused.len() as u64;
                place.save(all)?;
            }
            other => break other,
        }
    };
    bar.finish_and_clear();
    match done {
        Ok(_) => place.forget().map(|()| copied),
        Err(e) => {
            let all = copied.added + copied.changed;
            Err(Failure::Fault(format!("{e}\n{all} records copied by this run; run it again to go on")))
        }
    }
}

/// Hidden where standard error is no terminal.
fn bar(records: Option<u64>) -> ProgressBar {
    let bar = records.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let form = "CDRs {bar:40} {human_pos}/{human_len} {per_sec} {eta}";
    // The form is ours, and a form that is not understood leaves the default one.
    if let Ok(style) = ProgressStyle::with_template(form) { bar.with_style(style) } else { bar }
}

/// Where a copy under way is, in a file.
struct Place {
    file: PathBuf,
    name: String,
    after: Option<String>,
    /// Seen by earlier runs.
    records: u64,
}

impl Place {
    fn of(args: &CopyArgs) -> Result<Place, Failure> {
        let name = format!("{} {}", args.from, args.to);
        let default = || PathBuf::from(format!("strowger-copy-{:08x}.json", crc32fast::hash(name.as_bytes())));
        let file = args.progress.clone().unwrap_or_else(default);
        let (mut after, mut records) = (None, 0);
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                let kept: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
                if kept["copy"] != json!(name) {
                    let file = file.display();
                    return Err(Failure::Usage(format!(
                        "{file} is not of this copy; name another with --progress, or remove it"
                    )));
                }
                after = kept["after"].as_str().map(str::to_owned);
                records = kept["records"].as_u64().unwrap_or(0);
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Failure::Fault(format!("cannot read {}: {e}", file.display()))),
        }
        Ok(Place { file, name, after, records })
    }

    /// The whole file or none: it is renamed into its place.
    fn save(&self, records: u64) -> Result<(), Failure> {
        let text = json!({"copy": self.name, "after": self.after, "records": records}).to_string();
        let new = self.file.with_extension("new");
        let saved = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.file));
        saved.map_err(|e| cannot_keep(&self.file, &e))
    }

    fn forget(&self) -> Result<(), Failure> {
        match std::fs::remove_file(&self.file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(cannot_keep(&self.file, &e)),
            _ => Ok(()),
        }
    }
}

fn cannot_keep(file: &Path, e: &std::io::Error) -> Failure {
    Failure::Fault(format!(
        "cannot keep the place of the copy in {}: {e}; choose another with --progress FILE",
        file.display()
    ))
}
