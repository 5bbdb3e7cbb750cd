//! Configuration: one typed TOML file, defaults without one, `--set section.key=value` over both.
//!
//! [`Config::load`] is the entry. Every fault of a file is found in one go, and each says where it is and what to do.
//! Invariant: a key is honoured, or it is an error; nothing is ignored.

mod db_url;
mod engine;
mod example;
mod read;
mod rules;
mod schema;
mod sense;
mod value;

pub use db_url::DbUrl;
pub use example::example_toml;
pub use read::nearest;
pub use schema::{
    CallCenter, Cdr, Events, Journal, Key, Log, Metrics, Mi, Refusals, Rule, Section, Server, Shards, Sip,
};
pub use value::{
    Advertise, FileMode, HeaderName, HttpPath, Ident, Listen, LogFormat, OnStop, Scalar, Seconds, Switch, Value, Whole,
    Word,
};

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use strowger_runtime::journal::JournalSpec;
use thiserror::Error;

/// The file that is read when it is there and no other is named.
pub const DEFAULT_FILE: &str = "strowger.toml";

/// All settings of a server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    pub server: Server,
    pub sip: Sip,
    pub call_center: CallCenter,
    pub refusals: Refusals,
    pub mi: Mi,
    pub journal: Journal,
    pub cdr: Cdr,
    pub shards: Shards,
    pub log: Log,
    pub events: Events,
    pub metrics: Metrics,
    /// `[[rules]]`, in order.
    pub rules: Vec<Rule>,
}

/// Runs `$body` with `$section` bound to each section of `$config` in turn, in the order of the file.
macro_rules! each_section {
    ($config:expr, $section:ident => $body:expr) => {{
        let config = $config;
        {
            let $section = &mut config.server;
            $body
        }
        {
            let $section = &mut config.sip;
            $body
        }
        {
            let $section = &mut config.call_center;
            $body
        }
        {
            let $section = &mut config.refusals;
            $body
        }
        {
            let $section = &mut config.mi;
            $body
        }
        {
            let $section = &mut config.journal;
            $body
        }
        {
            let $section = &mut config.cdr;
            $body
        }
        {
            let $section = &mut config.shards;
            $body
        }
        {
            let $section = &mut config.log;
            $body
        }
        {
            let $section = &mut config.events;
            $body
        }
        {
            let $section = &mut config.metrics;
            $body
        }
    }};
}
pub(crate) use each_section;

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// File, or the flag.
    pub place: String,
    pub line: Option<usize>,
    /// `[section] key`, or empty.
    pub key: String,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}", .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<Fault>),
}

/// A configuration, and what its reader should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Things accepted that do nothing, old names and the like.
    pub warnings: Vec<Fault>,
}

/// A setting from the command line: the flag it came by, `section.key`, and the value as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub flag: String,
    pub key: String,
    pub value: String,
}

impl Setting {
    /// Takes `section.key=value` apart.
    ///
    /// # Errors
    /// When there is no `=` or no dot before it.
    pub fn parse(s: &str) -> Result<Setting, String> {
        let form = || format!("`{s}` is not of the form section.key=value, such as call_center.wrapup_time=2");
        let (key, value) = s.split_once('=').ok_or_else(form)?;
        if !key.contains('.') {
            return Err(form());
        }
        Ok(Setting { flag: "--set".to_owned(), key: key.trim().to_owned(), value: value.to_owned() })
    }
}

impl Config {
    /// Reads `file`; without one `./strowger.toml` if it is there, else the defaults; `settings` go over it.
    ///
    /// # Errors
    /// With every fault found.
    pub fn load(file: Option<&Path>, settings: &[Setting]) -> Result<Loaded, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let file = file.or_else(|| default.exists().then_some(default));
        let text = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                Some(text.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?)
            }
            None => None,
        };
        let place = file.map(|p| p.display().to_string()).unwrap_or_default();
        let mut loaded = Config::from_text(&place, text.as_deref().unwrap_or(""), settings)?;
        loaded.file = file.map(Path::to_owned);
        Ok(loaded)
    }

    /// The same from a text; `place` names it in faults.
    ///
    /// # Errors
    /// With every fault found.
    pub fn from_text(place: &str, text: &str, settings: &[Setting]) -> Result<Loaded, ConfigError> {
        read::read(place, text, settings)
    }

    /// Where the CDRs go.
    #[must_use]
    pub fn acc_db(&self) -> &DbUrl {
        self.call_center.acc_db_url.as_ref().unwrap_or(&self.call_center.db_url)
    }

    /// Where ongoing calls are kept.
    #[must_use]
    pub fn rt_db(&self) -> &DbUrl {
        self.call_center.rt_db_url.as_ref().unwrap_or(&self.call_center.db_url)
    }

    /// Where CDRs that the database refuses go.
    #[must_use]
    pub fn refused_cdr_file(&self) -> PathBuf {
        match self.cdr.refused_file.as_str() {
            "" => self.server.data_dir.join("refused-cdrs.jsonl"),
            path => PathBuf::from(path),
        }
    }

    /// How the journal is kept, if it is.
    #[must_use]
    pub fn journal_spec(&self) -> Option<JournalSpec> {
        let dir = match self.journal.dir.as_str() {
            "" => self.server.data_dir.join("journal"),
            path => PathBuf::from(path),
        };
        let memory = (!self.journal.memory_dir.is_empty()).then(|| PathBuf::from(&self.journal.memory_dir));
        let sync = Duration::from_millis(self.journal.sync_ms.0);
        self.journal.enabled.0.then(|| JournalSpec {
            dir,
            memory,
            segment: self.journal.segment_mb.usize() << 20,
            sync,
        })
    }

    /// Where CDRs wait while their database is away.
    #[must_use]
    pub fn cdr_spool_dir(&self) -> PathBuf {
        match self.cdr.spool_dir.as_str() {
            "" => self.server.data_dir.join("spool"),
            path => PathBuf::from(path),
        }
    }

    /// CDR batches in the hands of the database at once.
    #[must_use]
    pub fn cdr_concurrency(&self) -> usize {
        match self.acc_db() {
            DbUrl::Sqlite(_) => 1,
            _ => self.cdr.concurrency.usize(),
        }
    }

    /// How many shards to start.
    #[must_use]
    pub fn shard_count(&self) -> u16 {
        match self.shards.count.u16() {
            0 => std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX)),
            n => n,
        }
    }
}

#[cfg(test)]
mod tests;
