//! SQLite: opening, the schema with its versions, flows and agents.

use super::names::{Column, Names};
use super::sqlite_rows::{read, select};
use super::{Cell, Provisioned, Provisioning, StoreError, Task};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, SqliteConnection};
use std::path::Path;
use std::time::Duration;
use strowger_engine::registry::Table;

/// A database file with its name for messages.
#[derive(Debug, Clone)]
pub(super) struct Db {
    pub pool: SqlitePool,
    pub url: String,
}

impl Db {
    /// Opens the file, or makes it.
    pub async fn open(path: &Path) -> Result<Db, StoreError> {
        let url = format!("sqlite:{}", path.display());
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(1));
        let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(10));
        match pool.connect_with(options).await {
            Ok(pool) => Ok(Db { pool, url }),
            Err(e) => Err(StoreError::Open { url, what: told(&e) }),
        }
    }

    /// What went wrong, with the name of the database.
    pub fn named<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.map_err(|e| match e {
            StoreError::Failed(what) => StoreError::Failed(format!("{}: {what}", self.url)),
            other => other,
        })
    }

    /// Makes the table if it is missing, and notes its version; else checks its version and columns.
    pub async fn ensure(&self, table: &Wanted<'_>) -> Result<(), StoreError> {
        self.named(self.made(table).await)
    }

    async fn made(&self, table: &Wanted<'_>) -> Result<(), StoreError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        run(&mut tx, "CREATE TABLE IF NOT EXISTS version (table_name VARCHAR(64) NOT NULL, table_version INTEGER NOT NULL DEFAULT 0, UNIQUE (table_name))".to_owned()).await?;
        let present = columns(&mut tx, table.name).await?;
        if present.is_empty() {
            run(&mut tx, table.create.to_owned()).await?;
            let version = sqlx::query("INSERT OR REPLACE INTO version (table_name, table_version) VALUES (?, ?)");
            version.bind(table.name).bind(table.version).execute(&mut *tx).await.map_err(failed)?;
        } else {
            self.check(&mut tx, table, &present).await?;
        }
        tx.commit().await.map_err(failed)
    }

    async fn check(&self, tx: &mut SqliteConnection, table: &Wanted<'_>, present: &[String]) -> Result<(), StoreError> {
        let found =
            sqlx::query_scalar::<_, i64>("SELECT CAST(table_version AS INTEGER) FROM version WHERE table_name = ?");
        let found = found.bind(table.name).fetch_optional(tx).await.map_err(failed)?;
        let (url, name, expected) = (self.url.clone(), table.name.to_owned(), table.version);
        match found {
            None => return Err(StoreError::NoVersion { url, table: name, expected }),
            Some(found) if found != expected => return Err(StoreError::Version { url, table: name, found, expected }),
            Some(_) => {}
        }
        for c in table.columns {
            if !present.iter().any(|p| p.eq_ignore_ascii_case(&c.name)) {
                let fix = match c.key {
                    "" => "add it".to_owned(),
                    key => format!("add it, or set [call_center] {key}"),
                };
                return Err(StoreError::Column { url, table: name, column: c.name.clone(), fix });
            }
        }
        Ok(())
    }
}

/// A table as it should be.
pub(super) struct Wanted<'a> {
    pub name: &'a str,
    pub version: i64,
    pub columns: &'a [Column],
    pub create: &'a str,
}

/// Runs one statement of our own making.
pub(super) async fn run(c: &mut SqliteConnection, sql: String) -> Result<u64, StoreError> {
    sqlx::query(AssertSqlSafe(sql)).execute(c).await.map(|done| done.rows_affected()).map_err(failed)
}

async fn columns(c: &mut SqliteConnection, table: &str) -> Result<Vec<String>, StoreError> {
    let names = sqlx::query_scalar::<_, String>("SELECT name FROM pragma_table_info(?)").bind(table);
    names.fetch_all(c).await.map_err(failed)
}

/// SQLite's primary result code.
fn code(e: &sqlx::Error) -> Option<u32> {
    let code = e.as_database_error().and_then(|d| d.code()).and_then(|c| c.parse::<u32>().ok());
    code.map(|c| c & 0xff)
}

/// Sorts out what the database says: constraint, mismatch, too big, out of range are about the row.
pub(super) fn failed(e: sqlx::Error) -> StoreError {
    match code(&e) {
        Some(18 | 19 | 20 | 25) => StoreError::Refused(e.to_string()),
        _ => StoreError::Failed(told(&e)),
    }
}

/// What the database says, and what to do about it.
fn told(e: &sqlx::Error) -> String {
    let fix = match code(e) {
        Some(5 | 6) => "; end the program that holds it locked, or its transaction",
        Some(8) => "; let this user write to the file and to its directory",
        Some(13) => "; make room on its disk",
        Some(14) => "; create its directory, and let this user read and write there",
        Some(26) => "; name another file, or move this one away",
        _ => "",
    };
    format!("{e}{fix}")
}

/// Flows and agents in SQLite.
pub(super) struct SqliteProvisioning {
    db: Db,
    names: Names,
    select_flows: String,
    select_agents: String,
}

impl SqliteProvisioning {
    pub async fn open(path: &Path, names: Names) -> Result<SqliteProvisioning, StoreError> {
        let db = Db::open(path).await?;
        for (table, version) in [(Table::Flows, 2), (Table::Agents, 3)] {
            let (name, columns) = names.table(table);
            db.ensure(&Wanted { name, version, columns, create: &create(table, &names) }).await?;
        }
        db.ensure(&Wanted { name: "cc_calls", version: 3, columns: &[], create: CREATE_CALLS }).await?;
        let (select_flows, select_agents) = (select(Table::Flows, &names), select(Table::Agents, &names));
        Ok(SqliteProvisioning { db, names, select_flows, select_agents })
    }

    async fn rows(&self) -> Result<Provisioned, StoreError> {
        let mut tx = self.db.pool.begin().await.map_err(failed)?;
        let flows = sqlx::query(AssertSqlSafe(self.select_flows.as_str())).fetch_all(&mut *tx).await.map_err(failed)?;
        let agents =
            sqlx::query(AssertSqlSafe(self.select_agents.as_str())).fetch_all(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(read(&flows, &agents, &self.names))
    }

    async fn put(&self, table: Table, id: &str, cells: &[(&'static str, Cell)]) -> Result<bool, StoreError> {
        let (name, columns) = self.names.table(table);
        let Some(id_column) = columns.first().map(|c| c.name.as_str()) else { return Ok(false) };
        let mut named = Vec::with_capacity(cells.len());
        for (canonical, cell) in cells {
            let column = self.names.column(table, canonical);
            named.push((column.ok_or_else(|| StoreError::Refused(format!("no column {canonical}")))?, cell));
        }
        let mut tx = self.db.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        // A row that is there is touched in any case, so that the count tells whether it is.
        let sets: Vec<String> = named.iter().map(|(c, _)| format!("{c} = ?")).collect();
        let sets = if sets.is_empty() { format!("{id_column} = {id_column}") } else { sets.join(", ") };
        let update = format!("UPDATE {name} SET {sets} WHERE {id_column} = ?");
        let query = named.iter().fold(sqlx::query(AssertSqlSafe(update)), |q, (_, cell)| bind(q, cell));
        let added = query.bind(id).execute(&mut *tx).await.map_err(failed)?.rows_affected() == 0;
        if added {
            let columns: Vec<&str> = std::iter::once(id_column).chain(named.iter().map(|(c, _)| *c)).collect();
            let marks = vec!["?"; columns.len()].join(", ");
            let insert = format!("INSERT INTO {name} ({}) VALUES ({marks})", columns.join(", "));
            let query = sqlx::query(AssertSqlSafe(insert)).bind(id);
            named.iter().fold(query, |q, (_, cell)| bind(q, cell)).execute(&mut *tx).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(added)
    }
}

impl Provisioning for SqliteProvisioning {
    fn load(&self) -> Task<'_, Provisioned> {
        Box::pin(async { self.db.named(self.rows().await) })
    }

    fn set<'a>(&'a self, table: Table, id: &'a str, cells: &'a [(&'static str, Cell)]) -> Task<'a, bool> {
        Box::pin(async move { self.db.named(self.put(table, id, cells).await) })
    }

    fn remove<'a>(&'a self, table: Table, id: &'a str) -> Task<'a, bool> {
        Box::pin(async move {
            let (name, columns) = self.names.table(table);
            let Some(column) = columns.first() else { return Ok(false) };
            let delete = format!("DELETE FROM {name} WHERE {} = ?", column.name);
            let done = sqlx::query(AssertSqlSafe(delete)).bind(id).execute(&self.db.pool).await.map_err(failed);
            Ok(self.db.named(done)?.rows_affected() > 0)
        })
    }

    fn save_wrapups<'a>(&'a self, ends: &'a [(Box<str>, u64)]) -> Task<'a, ()> {
        Box::pin(async move {
            let column = |c| self.names.column(Table::Agents, c).unwrap_or(c);
            let (table, end, id) = (&self.names.agents, column("wrapup_end_time"), column("agentid"));
            let update = format!("UPDATE {table} SET {end} = ? WHERE {id} = ?");
            let mut tx = self.db.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            for (agent, unix) in ends {
                let unix = i64::try_from(*unix).unwrap_or(i64::MAX);
                let query = sqlx::query(AssertSqlSafe(update.as_str())).bind(unix).bind(&**agent);
                query.execute(&mut *tx).await.map_err(failed)?;
            }
            tx.commit().await.map_err(failed)
        })
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn bind<'q>(q: Query<'q>, cell: &'q Cell) -> Query<'q> {
    match cell {
        Cell::Null => q.bind(None::<i64>),
        Cell::Int(i) => q.bind(*i),
        Cell::Text(s) => q.bind(s.as_str()),
    }
}

const NUMBERS: [&str; 9] = [
    "priority",
    "max_wrapup_time",
    "dissuading_hangup",
    "dissuading_onhold_th",
    "dissuading_ewt_th",
    "dissuading_qsize_th",
    "logstate",
    "msrp_max_sessions",
    "wrapup_time",
];

/// The statement that creates a table with these names (types of data.md).
fn create(table: Table, names: &Names) -> String {
    let (name, columns) = names.table(table);
    let declared: Vec<String> = columns.iter().map(|c| format!("{} {}", c.name, declaration(c.canonical))).collect();
    let id = columns.first().map_or("", |c| c.name.as_str());
    format!(
        "CREATE TABLE {name} (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, {}, UNIQUE ({id}))",
        declared.join(", ")
    )
}

fn declaration(canonical: &str) -> &'static str {
    match canonical {
        "flowid" | "skill" => "VARCHAR(64) NOT NULL",
        "agentid" | "message_queue" => "VARCHAR(128) NOT NULL",
        "skills" => "VARCHAR(255) NOT NULL DEFAULT ''",
        "prependcid" => "VARCHAR(32) DEFAULT NULL",
        "priority" => "INTEGER NOT NULL DEFAULT 256",
        "msrp_max_sessions" => "INTEGER NOT NULL DEFAULT 4",
        "wrapup_end_time" => "INTEGER NOT NULL DEFAULT 0",
        c if NUMBERS.contains(&c) => "INTEGER NOT NULL DEFAULT 0",
        _ => "VARCHAR(128) DEFAULT NULL",
    }
}

const CREATE_CALLS: &str = "CREATE TABLE cc_calls (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, state INTEGER NOT NULL, \
    media INTEGER DEFAULT 0 NOT NULL, ig_cback INTEGER NOT NULL, no_rej INTEGER NOT NULL, setup_time INTEGER NOT NULL, \
    eta INTEGER NOT NULL, last_start INTEGER NOT NULL, recv_time INTEGER NOT NULL, caller_dn VARCHAR(128) NOT NULL, \
    caller_un VARCHAR(128) NOT NULL, b2buaid VARCHAR(128) DEFAULT '' NOT NULL, flow VARCHAR(128) NOT NULL, \
    agent VARCHAR(128) NOT NULL, script_param VARCHAR(128) NOT NULL, UNIQUE (b2buaid))";
