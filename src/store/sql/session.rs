//! Connections: pools of them, the time limits, transactions.

use super::super::{Missing, StoreError};
use super::dialect::{Arg, Dialect};
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use std::borrow::Cow;
use std::future::Future;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// Connecting, and each statement that works on some rows.
const LIMIT: Duration = Duration::from_secs(2);
/// Statements that go through a whole table.
const LONG: Duration = Duration::from_secs(60);
/// The wait for SQLite's one connection, which others of this process may hold.
const SQLITE_TURN: Duration = Duration::from_secs(10);
/// Connections of one store to a server.
const CONNECTIONS: u32 = 4;

/// A row, its cells as bytes.
pub(super) type Cells = Vec<Option<Vec<u8>>>;

#[derive(Debug, Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Mysql(MySqlPool),
    Postgres(PgPool),
}

#[derive(Debug)]
enum Connected {
    Sqlite(PoolConnection<sqlx::Sqlite>),
    Mysql(PoolConnection<sqlx::MySql>),
    Postgres(PoolConnection<sqlx::Postgres>),
}

/// What MySQL does with a value that its column does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Refuses the row, whatever the server is set to: somebody waits for the answer.
    Refuse,
    /// Takes as much of it as fits: letters that a column lacks become question marks, and the row is there.
    Fit,
}

/// A database, with its name for messages.
#[derive(Debug, Clone)]
pub struct Sql {
    pool: Pool,
    pub(super) dialect: Dialect,
    /// Without its password.
    pub(super) url: String,
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Everything as of one moment.
    Read,
    Write,
}

/// A pool that closes no connection for its age: each is tried before it is used anyway. What sqlx 0.9.0 would look for old ones with now
/// and then never ends where a connection comes back at that moment, and takes one of the control plane's threads with it
/// (github.com/launchbadge/sqlx, issue 3645).
fn lasting<DB: sqlx::Database>(pool: PoolOptions<DB>) -> PoolOptions<DB> {
    pool.idle_timeout(None).max_lifetime(None)
}

impl Sql {
    /// Opens SQLite's file, or makes it.
    pub async fn sqlite(path: &Path, missing: Missing) -> Result<Sql, StoreError> {
        let url = format!("sqlite:{}", path.display());
        if missing == Missing::Tell && !path.exists() {
            return Err(match path.parent().filter(|p| !p.as_os_str().is_empty() && !p.is_dir()) {
                Some(directory) => {
                    StoreError::Failed(format!("{url}: there is no directory {}; create it", directory.display()))
                }
                None => StoreError::Missing { url, what: "the file".to_owned() },
            });
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(missing == Missing::Create)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(1));
        let options = if missing == Missing::Create { options.journal_mode(SqliteJournalMode::Wal) } else { options };
        let pool = lasting(SqlitePoolOptions::new()).max_connections(1).acquire_timeout(SQLITE_TURN);
        match pool.connect_with(options).await {
            Ok(pool) => Ok(Sql { pool: Pool::Sqlite(pool), dialect: Dialect::Sqlite, url }),
            Err(e) => Err(cannot_open(Dialect::Sqlite, url, &e)),
        }
    }

    /// Connects to MySQL or MariaDB. `name` is the URL without its password.
    pub async fn mysql(url: &str, name: String, unfit: Unfit) -> Result<Sql, StoreError> {
        let dialect = Dialect::Mysql;
        let options = MySqlConnectOptions::from_str(url).map_err(|e| cannot_open(dialect, name.clone(), &e))?;
        let options = options.disable_statement_logging();
        first(dialect, &name, options.connect()).await?;
        let pool = lasting(MySqlPoolOptions::new()).max_connections(CONNECTIONS).acquire_timeout(LIMIT);
        let mode = match unfit {
            Unfit::Refuse => "CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",
            Unfit::Fit => "REPLACE(REPLACE(@@sql_mode, 'STRICT_TRANS_TABLES', ''), 'STRICT_ALL_TABLES', '')",
        };
        // The server gives up the wait for a lock before we give up the server.
        let set = format!("SET innodb_lock_wait_timeout = 1, lock_wait_timeout = 1, sql_mode = {mode}");
        let pool = pool.after_connect(move |c, _| {
            let set = sqlx::raw_sql(AssertSqlSafe(set.clone()));
            Box::pin(async move { set.execute(c).await.map(drop) })
        });
        Ok(Sql { pool: Pool::Mysql(pool.connect_lazy_with(options)), dialect, url: name })
    }

    /// Connects to PostgreSQL. `name` is the URL without its password.
    pub async fn postgres(url: &str, name: String) -> Result<Sql, StoreError> {
        let dialect = Dialect::Postgres;
        let options = PgConnectOptions::from_str(url).map_err(|e| cannot_open(dialect, name.clone(), &e))?;
        let options = options.disable_statement_logging();
        first(dialect, &name, options.connect()).await?;
        let pool = lasting(PgPoolOptions::new()).max_connections(CONNECTIONS).acquire_timeout(LIMIT);
        let pool = pool.after_connect(|c, _| {
            Box::pin(async move { sqlx::raw_sql("SET lock_timeout = 1000").execute(c).await.map(drop) })
        });
        Ok(Sql { pool: Pool::Postgres(pool.connect_lazy_with(options)), dialect, url: name })
    }

    /// A connection with a transaction on it.
    pub(super) async fn begin(&self, mode: Mode) -> Result<Session<'_>, StoreError> {
        let mut session = self.session().await?;
        for statement in match (self.dialect, mode) {
            (Dialect::Sqlite, Mode::Read) => &["BEGIN"][..],
            (Dialect::Sqlite, Mode::Write) => &["BEGIN IMMEDIATE"],
            (Dialect::Mysql, Mode::Read) => &[
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
            ],
            // At whatever level the server has: READ COMMITTED would not do with statements in its binary log.
            (Dialect::Mysql, Mode::Write) => &["START TRANSACTION"],
            (Dialect::Postgres, Mode::Read) => &["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"],
            (Dialect::Postgres, Mode::Write) => &["BEGIN ISOLATION LEVEL READ COMMITTED"],
        } {
            session.script(statement).await?;
        }
        Ok(session)
    }

    /// A connection.
    pub(super) async fn session(&self) -> Result<Session<'_>, StoreError> {
        let acquired = match &self.pool {
            Pool::Sqlite(p) => p.acquire().await.map(Connected::Sqlite),
            Pool::Mysql(p) => p.acquire().await.map(Connected::Mysql),
            Pool::Postgres(p) => p.acquire().await.map(Connected::Postgres),
        };
        let connected = acquired.map_err(|e| self.sorted(&e))?;
        // A file has no server that could freeze.
        let limit = if self.dialect == Dialect::Sqlite { LONG } else { LIMIT };
        Ok(Session { db: self, connected: Some(connected), sound: false, limit })
    }

    pub(super) fn sorted(&self, e: &sqlx::Error) -> StoreError {
        self.dialect.sorted(&self.url, e)
    }
}

/// The first connection says best why there can be none.
async fn first<C: Connection>(
    dialect: Dialect,
    name: &str,
    connecting: impl Future<Output = Result<C, sqlx::Error>>,
) -> Result<(), StoreError> {
    let connection = limited(LIMIT, connecting).await.map_err(|e| cannot_open(dialect, name.to_owned(), &e))?;
    let _ = limited(LIMIT, connection.close()).await;
    Ok(())
}

fn cannot_open(dialect: Dialect, url: String, e: &sqlx::Error) -> StoreError {
    let code = e.as_database_error().and_then(|d| d.code());
    let what = format!("{e}{}", dialect.fix(code.as_deref().unwrap_or(""), e));
    StoreError::Open { url, what }
}

async fn limited<T>(limit: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => {
            let what = format!("no answer within {} s; see whether the server runs", limit.as_secs());
            Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what)))
        }
    }
}

/// What a statement did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    pub rows: u64,
    /// SQLite: id of the last row that was added. MySQL: of the first.
    pub id: i64,
}

/// A connection in use. Unless its work is known to have ended, it is closed when dropped.
#[derive(Debug)]
pub(super) struct Session<'a> {
    db: &'a Sql,
    connected: Option<Connected>,
    sound: bool,
    limit: Duration,
}

/// Binds the arguments and does it on the connection, whichever of the three it is.
macro_rules! on {
    ($session:expr, $sql:expr, $args:expr, |$query:ident, $c:ident| $work:expr) => {
        match $session.connected.as_mut() {
            Some(Connected::Sqlite($c)) => on!(@bind $sql, $args, whole, $query, { $work }),
            Some(Connected::Mysql($c)) => on!(@bind $sql, $args, whole, $query, { $work }),
            Some(Connected::Postgres($c)) => on!(@bind $sql, $args, without_nul, $query, { $work }),
            None => Err(sqlx::Error::PoolClosed),
        }
    };
    (@bind $sql:expr, $args:expr, $clean:expr, $query:ident, $work:block) => {{
        let mut $query = sqlx::query(AssertSqlSafe($sql));
        for arg in $args {
            $query = match arg {
                Arg::Int(n) => $query.bind(*n),
                Arg::Text(t) => $query.bind(t.map($clean)),
                Arg::Bytes(b) => $query.bind(*b),
            };
        }
        $work
    }};
}

fn whole(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}

/// PostgreSQL has texts of every character but this one.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

impl Session<'_> {
    /// Gives the statements that follow the time that going through a table takes.
    pub fn long(&mut self) {
        self.limit = LONG;
    }

    /// Runs a statement, which is prepared once and kept.
    pub async fn run(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<Done, StoreError> {
        self.execute(sql, args).await.map_err(|e| self.db.sorted(&e))
    }

    /// As [`Session::run`]; the error is as it came.
    pub async fn execute(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<Done, sqlx::Error> {
        let sql = self.db.dialect.marked(sql);
        let work = async {
            match self.connected.as_mut() {
                Some(Connected::Sqlite(c)) => {
                    let done = on!(@bind sql, args, whole, query, { query.execute(&mut **c).await })?;
                    Ok(Done { rows: done.rows_affected(), id: done.last_insert_rowid() })
                }
                Some(Connected::Mysql(c)) => {
                    let done = on!(@bind sql, args, whole, query, { query.execute(&mut **c).await })?;
                    Ok(Done {
                        rows: done.rows_affected(),
                        id: i64::try_from(done.last_insert_id()).unwrap_or(i64::MAX),
                    })
                }
                Some(Connected::Postgres(c)) => {
                    let done = on!(@bind sql, args, without_nul, query, { query.execute(&mut **c).await })?;
                    Ok(Done { rows: done.rows_affected(), id: 0 })
                }
                None => Err(sqlx::Error::PoolClosed),
            }
        };
        limited(self.limit, work).await
    }

    /// The rows that a statement finds.
    pub async fn rows(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<Vec<Cells>, StoreError> {
        self.fetch(sql, args).await.map_err(|e| self.db.sorted(&e))
    }

    async fn fetch(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<Vec<Cells>, sqlx::Error> {
        let (sql, limit) = (self.db.dialect.marked(sql), self.limit);
        let work = async {
            on!(self, sql, args, |query, c| {
                let found = query.fetch_all(&mut **c).await?;
                found.iter().map(|row| (0..row.len()).map(|i| row.try_get_unchecked(i)).collect()).collect()
            })
        };
        limited(limit, work).await
    }

    /// A statement without arguments, such as BEGIN or CREATE TABLE.
    pub async fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let work = async {
            match self.connected.as_mut() {
                Some(Connected::Sqlite(c)) => query.execute(&mut **c).await.map(drop),
                Some(Connected::Mysql(c)) => query.execute(&mut **c).await.map(drop),
                Some(Connected::Postgres(c)) => query.execute(&mut **c).await.map(drop),
                None => Err(sqlx::Error::PoolClosed),
            }
        };
        limited(self.limit, work).await.map_err(|e| self.db.sorted(&e))
    }

    /// Ends the transaction: for good when its work went well, else as if it had not been.
    pub async fn end<T>(mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match result {
            Ok(value) => {
                self.script("COMMIT").await?;
                self.sound = true;
                Ok(value)
            }
            Err(e) => {
                // After a time limit the connection is in the middle of something: closing it rolls back.
                self.sound = matches!(e, StoreError::Refused(_)) && self.script("ROLLBACK").await.is_ok();
                Err(e)
            }
        }
    }

    /// Ends the transaction as if it had not been. A connection that cannot is closed.
    pub async fn undo(mut self) {
        self.sound = self.script("ROLLBACK").await.is_ok();
    }

    /// Ends work without a transaction.
    pub fn done<T>(mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.sound = result.is_ok();
        result
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        match (self.connected.take(), self.sound) {
            (Some(Connected::Sqlite(c)), false) => drop(c.detach()),
            (Some(Connected::Mysql(c)), false) => drop(c.detach()),
            (Some(Connected::Postgres(c)), false) => drop(c.detach()),
            (Some(Connected::Sqlite(mut c)), true) => give_back(c.return_to_pool()),
            (Some(Connected::Mysql(mut c)), true) => give_back(c.return_to_pool()),
            (Some(Connected::Postgres(mut c)), true) => give_back(c.return_to_pool()),
            (None, _) => {}
        }
    }
}

/// The pool asks the server whether the connection is still good: a server that is silent then must not keep it for ever.
fn give_back(returning: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(tokio::time::timeout(LIMIT, returning));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_connection_is_closed_for_its_age() {
        let dir = tempfile::tempdir().unwrap();
        let sql = Sql::sqlite(&dir.path().join("db"), Missing::Create).await.unwrap();
        let Pool::Sqlite(pool) = &sql.pool else { panic!("{sql:?}") };
        assert_eq!((pool.options().get_idle_timeout(), pool.options().get_max_lifetime()), (None, None));
    }
}
