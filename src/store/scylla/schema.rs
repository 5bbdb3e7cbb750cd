//! Keyspace, tables and their versions. Names are as CQL reads unquoted ones: in small letters.
//!
//! A keyspace that is made here has `NetworkTopologyStrategy` with one replica: right for one server. Whoever runs more
//! makes it himself, or alters it.

use super::{Cluster, quoted};
use crate::store::{Missing, StoreError};
use scylla::statement::Statement;
use std::time::Duration;

/// Longest time of a change of the schema: servers take their time over it.
const CHANGE: Duration = Duration::from_secs(60);

/// A column: name, key of the configuration that renames it (empty: none), type.
pub(super) struct Wanted {
    pub name: String,
    pub key: &'static str,
    pub cql: &'static str,
}

impl Wanted {
    /// Columns that no key renames, of the form `name type, name type`.
    pub fn list(columns: &'static str) -> Vec<Wanted> {
        let one = |c: &'static str| c.trim().split_once(' ').unwrap_or((c, "text"));
        columns.split(',').map(one).map(|(name, cql)| Wanted { name: name.to_owned(), key: "", cql }).collect()
    }
}

/// A table as it should be.
pub(super) struct Table<'a> {
    pub name: &'a str,
    pub version: i64,
    pub columns: &'a [Wanted],
    /// What follows `PRIMARY KEY`, in brackets.
    pub key: &'a str,
    /// What follows the closing bracket.
    pub with: &'a str,
}

/// Makes the keyspace where it is missing, and the table `version` in it.
pub(super) async fn keyspace(cluster: &Cluster, name: &str) -> Result<(), StoreError> {
    let there = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let there = cluster.prepare(there.to_owned()).await?;
    if cluster.all::<(String,)>(&there, (name.to_ascii_lowercase(),)).await?.is_empty() {
        may_make(cluster, || format!("keyspace `{name}`"))?;
        let create = format!(
            "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = \
             {{'class': 'NetworkTopologyStrategy', 'replication_factor': 1}}",
            cluster.keyspace
        );
        run(cluster, create).await?;
        tracing::info!(url = cluster.url, "made the keyspace with one replica; ALTER KEYSPACE for more");
    }
    let version = columns(cluster, "version").await?;
    if version.is_empty() {
        may_make(cluster, || "table `version`".to_owned())?;
        let table = cluster.table("version");
        let create = format!("CREATE TABLE IF NOT EXISTS {table} (table_name text PRIMARY KEY, table_version int)");
        run(cluster, create).await?;
    }
    Ok(())
}

/// Makes the table if it is missing, and notes its version; else checks its version and columns.
pub(super) async fn ensure(cluster: &Cluster, table: &Table<'_>) -> Result<(), StoreError> {
    let name = table.name.to_ascii_lowercase();
    let present = columns(cluster, &name).await?;
    let version = cluster.table("version");
    if present.is_empty() {
        may_make(cluster, || format!("table `{name}`"))?;
        // Its version first: a table without would be refused at the next start.
        let note = format!("INSERT INTO {version} (table_name, table_version) VALUES (?, ?)");
        let note = cluster.prepare(note).await?;
        cluster.execute(&note, (&name, i32::try_from(table.version).unwrap_or(i32::MAX))).await?;
        let declared: Vec<String> = table.columns.iter().map(|c| format!("{} {}", quoted(&c.name), c.cql)).collect();
        let (declared, key, with) = (declared.join(", "), table.key, table.with);
        let place = cluster.table(&name);
        return run(cluster, format!("CREATE TABLE IF NOT EXISTS {place} ({declared}, PRIMARY KEY {key}){with}")).await;
    }
    let found = cluster.prepare(format!("SELECT table_version FROM {version} WHERE table_name = ?")).await?;
    let found = cluster.all::<(Option<i32>,)>(&found, (&name,)).await?;
    let (url, expected) = (cluster.url.clone(), table.version);
    match found.first().and_then(|(v,)| *v).map(i64::from) {
        None => return Err(StoreError::NoVersion { url, table: name, expected }),
        Some(found) if found != expected => return Err(StoreError::Version { url, table: name, found, expected }),
        Some(_) => {}
    }
    table.columns.iter().try_for_each(|c| check(cluster, &name, c, &present))
}

fn may_make(cluster: &Cluster, what: impl Fn() -> String) -> Result<(), StoreError> {
    match cluster.missing {
        Missing::Create => Ok(()),
        Missing::Tell => Err(StoreError::Missing { url: cluster.url.clone(), what: what() }),
    }
}

fn check(cluster: &Cluster, table: &str, wanted: &Wanted, present: &[(String, String)]) -> Result<(), StoreError> {
    let (url, column) = (cluster.url.clone(), wanted.name.to_ascii_lowercase());
    let or = if wanted.key.is_empty() { String::new() } else { format!(", or set [call_center] {}", wanted.key) };
    match present.iter().find(|(name, _)| *name == column) {
        None => Err(StoreError::Column {
            url,
            table: table.to_owned(),
            column,
            fix: format!("add it as {}{or}", wanted.cql),
        }),
        Some((_, cql)) if cql != wanted.cql => {
            let what = format!("column `{column}` of table `{table}` is {cql}");
            Err(StoreError::Unfit { url, what, fix: format!("make it {}{or}", wanted.cql) })
        }
        Some(_) => Ok(()),
    }
}

/// Names and types of a table's columns; none: no such table.
async fn columns(cluster: &Cluster, table: &str) -> Result<Vec<(String, String)>, StoreError> {
    let columns = "SELECT column_name, type FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?";
    let columns = cluster.prepare(columns.to_owned()).await?;
    cluster.all(&columns, (cluster.keyspace.trim_matches('"'), table)).await
}

/// Changes the schema, and waits until all servers have it.
async fn run(cluster: &Cluster, cql: String) -> Result<(), StoreError> {
    let session = cluster.session().await?;
    let mut cql = Statement::new(cql);
    cql.set_request_timeout(Some(CHANGE));
    session.query_unpaged(cql, &[]).await.map(drop).map_err(|e| cluster.fault(&session, e))
}
