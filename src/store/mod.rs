//! Databases: one trait per kind of data, one back end a folder.
//!
//! - [`Provisioning`]: flows and agents (`db_url`).
//! - [`CdrStore`]: call detail records (`acc_db_url`).
//! - [`CallStore`]: ongoing calls (`rt_db_url`).
//!
//! Each back end creates its tables where they are missing and checks versions and columns where they are there.
//! Nothing in the signalling path waits for any of it.

pub mod copy;
mod late;
pub mod names;
mod scylla;
mod sql;

use crate::config::{Config, DbUrl};
use late::LateCdrs;
use names::Names;
use sql::{Sql, Unfit};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use strowger_engine::CdrRow;
use strowger_engine::registry::{RowFault, Rows, Table};
use thiserror::Error;
use tokio::time::timeout;

/// A database operation under way.
pub type Task<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    Null,
    Int(i64),
    Text(String),
}

/// Flows and agents as the database has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provisioned {
    pub rows: Rows,
    /// Rows that cannot even be read, and so are not among them.
    pub faults: Vec<RowFault>,
}

/// Flows and agents. Columns are named as in data.md, whatever the database calls them.
pub trait Provisioning: Send + Sync {
    /// Every row of both tables, as of one moment.
    fn load(&self) -> Task<'_, Provisioned>;
    /// Changes these columns of the row with that id, or adds the row. True when it was added.
    fn set<'a>(&'a self, table: Table, id: &'a str, cells: &'a [(&'static str, Cell)]) -> Task<'a, bool>;
    /// Removes the row with that id. False when there was none.
    fn remove<'a>(&'a self, table: Table, id: &'a str) -> Task<'a, bool>;
    /// Notes when wrap-ups end: agent id, Unix seconds. Ids without a row are passed over.
    fn save_wrapups<'a>(&'a self, ends: &'a [(Box<str>, u64)]) -> Task<'a, ()>;
}

/// Call detail records.
pub trait CdrStore: Send + Sync {
    /// Writes the records whose keys are not there yet, all or none; says how many were new. A back end that cannot tell
    /// counts all.
    fn write<'a>(&'a self, batch: &'a [CdrRow]) -> Task<'a, usize>;
    /// Rows of `cc_cdrs`.
    fn count(&self) -> Task<'_, u64>;
    /// At most about `max` records after the place that an earlier page ended at (none: from the oldest). Rows of other
    /// programs have keys made of their row's id, always the same ones, and call `0.0.0`.
    fn read<'a>(&'a self, after: Option<&'a str>, max: usize) -> Task<'a, CdrPage>;
    /// The place after which there are the last `records`, or some more; `None`: from the oldest. Reads all that is there,
    /// unless the back end knows better.
    fn back(&self, records: usize) -> Task<'_, Option<String>> {
        Box::pin(async move {
            let (mut place, mut pages, mut held) = (None, VecDeque::new(), 0);
            loop {
                let page = self.read(place.as_deref(), 1000).await?;
                let Some(next) = page.next else { break };
                held += page.rows.len();
                pages.push_back((place.replace(next), page.rows.len()));
                while let Some((_, first)) = pages.front()
                    && held - first >= records
                {
                    held -= first;
                    pages.pop_front();
                }
            }
            Ok(pages.pop_front().map_or(place, |(before, _)| before))
        })
    }
}

/// Some records, and where to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CdrPage {
    pub rows: Vec<CdrRow>,
    /// The place after the last of them, in words of the back end; `None`: there was nothing more. A later `read` from the
    /// same place finds what has been written since.
    pub next: Option<String>,
}

/// An ongoing call: a row of `cc_calls`, and what a restart needs (a table of ours).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OngoingCall {
    /// The public name of the call; the column `b2buaid`.
    pub id: Box<str>,
    pub state: u8,
    /// 0 audio, 1 chat.
    pub media: u8,
    pub rejections: u32,
    /// Unix seconds: when it was received; when its present wait or talk began. Seconds: set-up, estimated wait.
    pub received_unix_s: u64,
    pub last_start_unix_s: u64,
    pub setup_s: u64,
    pub estimated_wait_s: u64,
    pub caller_display: Box<str>,
    pub caller_user: Box<str>,
    pub flow_id: Box<str>,
    /// Empty: none.
    pub agent_id: Box<str>,
    pub param: Box<str>,
    /// Records of the journal.
    pub records: Box<[u8]>,
}

/// Ongoing calls.
pub trait CallStore: Send + Sync {
    /// Adds these calls or replaces them, by id; removes those. All or none.
    fn save<'a>(&'a self, calls: &'a [OngoingCall], over: &'a [Box<str>]) -> Task<'a, ()>;
    /// The ids of all calls that are there, of those with records alone, too.
    fn ids(&self) -> Task<'_, Vec<Box<str>>>;
    /// Every call that is there.
    fn load(&self) -> Task<'_, Vec<OngoingCall>>;
}

/// What to do where a table is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Make it.
    Create,
    /// [`StoreError::Missing`]: who only looks changes nothing.
    Tell,
}

/// What went wrong with a database.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("cannot open {url}: {what}")]
    Open { url: String, what: String },
    #[error(
        "{url}: table `{table}` has version {found} in table `version`, expected {expected}; migrate it as OpenSIPS' \
         documentation of the version says"
    )]
    Version { url: String, table: String, found: i64, expected: i64 },
    #[error(
        "{url}: table `version` has no row for `{table}`; if its columns are those of version {expected}, \
         INSERT INTO version (table_name, table_version) VALUES ('{table}', {expected})"
    )]
    NoVersion { url: String, table: String, expected: i64 },
    #[error("{url}: table `{table}` has no column `{column}`; {fix}")]
    Column { url: String, table: String, column: String, fix: String },
    /// It is there, and somebody must change it.
    #[error("cannot open {url}: {what}; {fix}")]
    Unfit { url: String, what: String, fix: String },
    #[error("{url}: {what} is not there; `strowger db init` or the first start makes it")]
    Missing { url: String, what: String },
    /// The database took the statement and said no to a row: trying again will not help.
    #[error("{0}")]
    Refused(String),
    /// Busy, locked, full, gone: trying again may help.
    #[error("{0}")]
    Failed(String),
}

impl StoreError {
    /// Whether the database may be there later, as it is: away, busy, full. Else somebody must change something.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, StoreError::Open { .. } | StoreError::Failed(_))
    }
}

/// Opens the provisioning database of a configuration.
///
/// # Errors
/// When it cannot be opened or has tables of another version or form.
pub async fn open_provisioning(config: &Config) -> Result<Box<dyn Provisioning>, StoreError> {
    provisioning_at(&config.call_center.db_url, Names::of(&config.call_center), Missing::Create).await
}

/// Opens a database with flows and agents.
///
/// # Errors
/// As [`open_provisioning`].
pub async fn provisioning_at(url: &DbUrl, names: Names, missing: Missing) -> Result<Box<dyn Provisioning>, StoreError> {
    match url {
        DbUrl::Sqlite(_) | DbUrl::Mysql(_) | DbUrl::Postgres(_) => Ok(Box::new(
            sql::provisioning::SqlProvisioning::open(sql_at(url, missing, Unfit::Refuse).await?, names, missing)
                .await?,
        )),
        DbUrl::Scylla { .. } => Ok(Box::new(scylla::ScyllaProvisioning::open(url, names, missing).await?)),
    }
}

/// Opens the CDR database of a configuration.
///
/// # Errors
/// As [`open_provisioning`].
pub async fn open_cdrs(config: &Config) -> Result<Box<dyn CdrStore>, StoreError> {
    cdrs_at(config.acc_db(), Missing::Create).await
}

/// The same for a server that runs, which has a spool: a server of databases that is away holds up no start, nor, with a
/// limit, one that is slow.
///
/// # Errors
/// As [`open_provisioning`], for what does not come right by itself, and is known within the limit.
pub async fn open_cdrs_soon(config: &Config, limit: Option<Duration>) -> Result<Box<dyn CdrStore>, StoreError> {
    let opened = match limit.filter(|_| !matches!(config.acc_db(), DbUrl::Sqlite(_))) {
        None => open_cdrs(config).await,
        Some(limit) => timeout(limit, open_cdrs(config)).await.unwrap_or_else(|_| {
            let what = format!("no answer within {} ms; it is tried again", limit.as_millis());
            Err(StoreError::Open { url: config.acc_db().to_string(), what })
        }),
    };
    match opened {
        Err(error) if error.may_pass() && !matches!(config.acc_db(), DbUrl::Sqlite(_)) => {
            tracing::error!(%error, "CDRs go to the spool until their database can be opened");
            Ok(Box::new(LateCdrs::new(config.acc_db().clone(), &error)))
        }
        opened => opened,
    }
}

/// Opens a database with CDRs.
///
/// # Errors
/// As [`open_provisioning`].
pub async fn cdrs_at(url: &DbUrl, missing: Missing) -> Result<Box<dyn CdrStore>, StoreError> {
    match url {
        DbUrl::Sqlite(_) | DbUrl::Mysql(_) | DbUrl::Postgres(_) => {
            Ok(Box::new(sql::cdrs::SqlCdrs::open(sql_at(url, missing, Unfit::Fit).await?, missing).await?))
        }
        DbUrl::Scylla { .. } => Ok(Box::new(scylla::ScyllaCdrs::open(url, missing).await?)),
    }
}

/// Opens the database of ongoing calls of a configuration.
///
/// # Errors
/// As [`open_provisioning`].
pub async fn open_calls(config: &Config) -> Result<Box<dyn CallStore>, StoreError> {
    calls_at(config.rt_db(), Missing::Create).await
}

/// Opens a database with ongoing calls.
///
/// # Errors
/// As [`open_provisioning`].
pub async fn calls_at(url: &DbUrl, missing: Missing) -> Result<Box<dyn CallStore>, StoreError> {
    match url {
        DbUrl::Sqlite(_) | DbUrl::Mysql(_) | DbUrl::Postgres(_) => {
            Ok(Box::new(sql::calls::SqlCalls::open(sql_at(url, missing, Unfit::Fit).await?, missing).await?))
        }
        DbUrl::Scylla { .. } => Ok(Box::new(scylla::ScyllaCalls::open(url, missing).await?)),
    }
}

async fn sql_at(url: &DbUrl, missing: Missing, unfit: Unfit) -> Result<Sql, StoreError> {
    match url {
        DbUrl::Sqlite(path) => Sql::sqlite(path, missing).await,
        DbUrl::Mysql(whole) => Sql::mysql(whole, url.to_string(), unfit).await,
        DbUrl::Postgres(whole) => Sql::postgres(whole, url.to_string()).await,
        DbUrl::Scylla { .. } => Err(StoreError::Open { url: url.to_string(), what: "is no SQL database".to_owned() }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
