//! Databases: one trait per kind of data, one back end a file.
//!
//! - [`Provisioning`]: flows and agents (`db_url`).
//! - [`CdrStore`]: call detail records (`acc_db_url`).
//!
//! Each back end creates its tables where they are missing and checks versions and columns where they are there.
//! Nothing in the signalling path waits for any of it.

pub mod names;
mod sqlite;
mod sqlite_cdr;
mod sqlite_rows;

use crate::config::{Config, DbUrl};
use names::Names;
use std::future::Future;
use std::pin::Pin;
use strowger_engine::Cdr;
use strowger_engine::registry::{RowFault, Rows, Table};
use thiserror::Error;

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
    /// Writes the records whose keys are not there yet, all or none; says how many were new.
    fn write<'a>(&'a self, batch: &'a [Cdr]) -> Task<'a, usize>;
    /// Rows of `cc_cdrs`.
    fn count(&self) -> Task<'_, u64>;
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
    /// The database took the statement and said no to a row: trying again will not help.
    #[error("{0}")]
    Refused(String),
    /// Busy, locked, full, gone: trying again may help.
    #[error("{0}")]
    Failed(String),
}

/// Opens the provisioning database.
///
/// # Errors
/// When it cannot be opened or has tables of another version or form.
pub async fn open_provisioning(config: &Config) -> Result<Box<dyn Provisioning>, StoreError> {
    let names = Names::of(&config.call_center);
    match &config.call_center.db_url {
        DbUrl::Sqlite(path) => Ok(Box::new(sqlite::SqliteProvisioning::open(path, names).await?)),
    }
}

/// Opens the CDR database.
///
/// # Errors
/// As [`open_provisioning`].
pub async fn open_cdrs(config: &Config) -> Result<Box<dyn CdrStore>, StoreError> {
    match config.acc_db() {
        DbUrl::Sqlite(path) => Ok(Box::new(sqlite_cdr::SqliteCdrs::open(path).await?)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
