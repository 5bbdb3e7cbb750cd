//! ScyllaDB and Apache Cassandra: the connection. Only CQL that both understand is used.
//!
//! The driver's own pool takes up to ten seconds to notice that a server is back. So a session whose pool is broken is
//! replaced: whoever needs it next connects anew, one at a time, [`PAUSE`] after the last failure at the earliest; the
//! others share what comes of it. Statements stay prepared over that.

mod calls;
mod cdr;
mod faults;
mod log;
mod log_entry;
mod provisioning;
mod schema;

pub(super) use calls::ScyllaCalls;
pub(super) use cdr::ScyllaCdrs;
pub(super) use provisioning::ScyllaProvisioning;

use super::{Missing, StoreError};
use crate::config::DbUrl;
use crate::control::clock::unix_us;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::response::PagingState;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;
use std::ops::{ControlFlow, Deref};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// Longest time of a request: a frozen server is known as such after this.
const REQUEST: Duration = Duration::from_secs(2);
/// Longest time of connecting: every contact point, and what the driver asks of the first that answers.
const CONNECT: Duration = Duration::from_secs(4);
/// From a failure to connect to the next try.
const PAUSE: Duration = Duration::from_millis(250);
const PORT: &str = "9042";

/// A connection to a cluster, replaced when it is broken.
pub(super) struct Cluster {
    /// Name for messages.
    pub url: String,
    /// Quoted, as it stands in statements.
    pub keyspace: String,
    pub missing: Missing,
    builder: SessionBuilder,
    current: RwLock<Current>,
    /// Held by whoever connects. When that failed last, and how.
    turn: Mutex<Option<(Instant, String)>>,
}

#[derive(Clone)]
struct Current {
    session: Arc<Session>,
    /// How many came before it.
    number: u64,
    broken: bool,
}

/// A session, as long as somebody uses it.
pub(super) struct Lease {
    session: Arc<Session>,
    number: u64,
}

impl Deref for Lease {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

/// A name as CQL reads an unquoted one; in quotes, for it may be a reserved word.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.to_ascii_lowercase())
}

impl Cluster {
    /// Connects, and makes the keyspace where it is missing, unless that is only to be told.
    pub async fn open(url: &DbUrl, missing: Missing) -> Result<Cluster, StoreError> {
        let told = url.to_string();
        let DbUrl::Scylla { user, hosts, keyspace } = url else {
            return Err(StoreError::Open { url: told, what: "is no scylla: URL".to_owned() });
        };
        let profile = ExecutionProfile::builder()
            .request_timeout(Some(REQUEST))
            .consistency(Consistency::LocalQuorum)
            .build()
            .into_handle();
        let mut builder = SessionBuilder::new()
            .known_nodes(nodes(hosts))
            .default_execution_profile_handle(profile)
            .connection_timeout(Duration::from_secs(1))
            .metadata_request_clientside_timeout(REQUEST)
            .keepalive_interval(Duration::from_secs(5))
            .keepalive_timeout(Duration::from_secs(5))
            .keyspaces_to_fetch([keyspace.as_str().to_ascii_lowercase()]);
        if let Some((name, password)) = user {
            builder = builder.user(name, password);
        }
        let session = match connect(&builder).await {
            Ok(session) => Arc::new(session),
            Err(what) => return Err(StoreError::Open { url: told, what }),
        };
        let cluster = Cluster {
            url: told,
            keyspace: quoted(keyspace.as_str()),
            missing,
            builder,
            current: RwLock::new(Current { session, number: 0, broken: false }),
            turn: Mutex::new(None),
        };
        schema::keyspace(&cluster, keyspace.as_str()).await?;
        Ok(cluster)
    }

    /// A table of the keyspace, as it stands in statements.
    pub fn table(&self, name: &str) -> String {
        format!("{}.{}", self.keyspace, quoted(name))
    }

    /// The session, a new one where the last is broken.
    pub async fn session(&self) -> Result<Lease, StoreError> {
        let seen = self.current();
        if !seen.broken {
            return Ok(Lease { session: seen.session, number: seen.number });
        }
        let mut failed = self.turn.lock().await;
        let now = self.current();
        if !now.broken {
            return Ok(Lease { session: now.session, number: now.number });
        }
        if let Some((at, what)) = &*failed
            && at.elapsed() < PAUSE
        {
            return Err(StoreError::Failed(format!("{}: {what}", self.url)));
        }
        match connect(&self.builder).await {
            Ok(session) => {
                let session = Arc::new(session);
                let next = Current { session: Arc::clone(&session), number: now.number + 1, broken: false };
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
                *failed = None;
                tracing::info!(url = self.url, "connected to the database again");
                Ok(Lease { session, number: now.number + 1 })
            }
            Err(what) => {
                *failed = Some((Instant::now(), what.clone()));
                Err(StoreError::Failed(format!("{}: {what}", self.url)))
            }
        }
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The session of that lease cannot reach a server any more.
    fn broken(&self, lease: &Lease) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.number == lease.number {
            current.broken = true;
        }
    }

    /// Prepares a statement that may be repeated without harm.
    pub async fn prepare(&self, cql: String) -> Result<PreparedStatement, StoreError> {
        let session = self.session().await?;
        let mut prepared = session.prepare(cql).await.map_err(|e| self.fault(&session, e.into()))?;
        prepared.set_is_idempotent(true);
        Ok(prepared)
    }

    /// Runs a prepared statement that gives no rows.
    pub async fn execute(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<(), StoreError> {
        let session = self.session().await?;
        let done = session.execute_unpaged(statement, values).await;
        done.map(drop).map_err(|e| self.fault(&session, e))
    }

    /// Every row that a prepared statement gives, page by page: `take` gets each, and says when it has enough.
    pub async fn rows<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow + Clone,
        mut take: impl FnMut(R) -> ControlFlow<()>,
    ) -> Result<(), StoreError>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let session = self.session().await?;
        let mut from = PagingState::start();
        loop {
            let page = session.execute_single_page(statement, values.clone(), from).await;
            let (found, more) = page.map_err(|e| self.fault(&session, e))?;
            let found = found.into_rows_result().map_err(|e| self.odd(&e))?;
            for row in found.rows::<R>().map_err(|e| self.odd(&e))? {
                if take(row.map_err(|e| self.odd(&e))?).is_break() {
                    return Ok(());
                }
            }
            match more.into_paging_control_flow() {
                ControlFlow::Continue(next) => from = next,
                ControlFlow::Break(()) => return Ok(()),
            }
        }
    }

    /// As [`Cluster::rows`], all at once.
    pub async fn all<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow + Clone,
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let mut all = vec![];
        let take = |row| {
            all.push(row);
            ControlFlow::Continue(())
        };
        self.rows(statement, values, take).await?;
        Ok(all)
    }

    /// An answer that is not of the form that was asked for.
    fn odd(&self, e: &dyn std::error::Error) -> StoreError {
        StoreError::Failed(format!("{}: {e}", self.url))
    }
}

async fn connect(builder: &SessionBuilder) -> Result<Session, String> {
    match timeout(CONNECT, builder.build()).await {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(e)) => Err(faults::told(&e)),
        Err(_) => Err(format!("no answer in {} s; start it, or correct the hosts of the URL", CONNECT.as_secs())),
    }
}

/// Contact points with their ports: one without has the port of the last host, else the usual one.
fn nodes(hosts: &[String]) -> Vec<String> {
    let port = |host: &str| {
        let tail = host.rsplit_once(']').map_or(host, |(_, tail)| tail);
        tail.rsplit_once(':').map(|(_, port)| port.to_owned())
    };
    let common = hosts.last().and_then(|h| port(h)).unwrap_or_else(|| PORT.to_owned());
    let with_port = |h: &String| if port(h).is_some() { h.clone() } else { format!("{h}:{common}") };
    hosts.iter().map(with_port).collect()
}

/// Times of writes, in microseconds of Unix time: each later than the one before. They go along with what is written, so
/// that a write which a server took up late does not undo a newer one.
#[derive(Default)]
pub(super) struct Times(AtomicI64);

impl Times {
    pub fn next(&self) -> i64 {
        let now = i64::try_from(unix_us()).unwrap_or(i64::MAX);
        let later = |last: i64| Some(now.max(last.saturating_add(1)));
        self.0.fetch_update(Relaxed, Relaxed, later).map_or(now, |last| now.max(last.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_port_has_the_last_ones() {
        let nodes = |hosts: &[&str]| nodes(&hosts.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()).join(" ");
        assert_eq!(nodes(&["h1", "h2"]), "h1:9042 h2:9042");
        assert_eq!(nodes(&["h1", "h2:9043"]), "h1:9043 h2:9043");
        assert_eq!(nodes(&["h1:1", "[::1]"]), "h1:1 [::1]:9042");
        assert_eq!(nodes(&["[::2]", "[::1]:7"]), "[::2]:7 [::1]:7");
    }

    #[test]
    fn each_write_is_later_than_the_last() {
        let times = Times::default();
        let mut last = times.next();
        for _ in 0..1000 {
            let next = times.next();
            assert!(next > last);
            last = next;
        }
    }
}
