//! CDRs in SQLite: `cc_cdrs` as OpenSIPS has it, and beside it `strowger_cdrs` with each record's key and what
//! `cc_cdrs` has no column for. Both rows of a record are written in one transaction: a retry never doubles one.

use super::names::Column;
use super::sqlite::{Db, Wanted, failed, run};
use super::{CdrStore, StoreError, Task};
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use std::collections::HashSet;
use std::path::Path;
use strowger_engine::Cdr;

/// What a record writes. No key renames these.
const COLUMNS: [&str; 12] = [
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
];

/// CDRs in SQLite.
pub(super) struct SqliteCdrs {
    db: Db,
}

impl SqliteCdrs {
    pub async fn open(path: &Path) -> Result<SqliteCdrs, StoreError> {
        let db = Db::open(path).await?;
        let columns = COLUMNS.map(|c| Column { canonical: c, key: "", name: c.to_owned() });
        db.ensure(&Wanted { name: "cc_cdrs", version: 2, columns: &columns, create: CREATE_CDRS }).await?;
        let mut c = db.pool.acquire().await.map_err(failed)?;
        run(&mut c, CREATE_OURS.to_owned()).await?;
        drop(c);
        Ok(SqliteCdrs { db })
    }

    async fn insert(&self, batch: &[Cdr]) -> Result<usize, StoreError> {
        if batch.is_empty() {
            return Ok(0);
        }
        let mut tx = self.db.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let mut there = keys_there(&mut tx, batch).await?;
        let new: Vec<&Cdr> = batch.iter().filter(|c| there.insert(c.key.to_be_bytes())).collect();
        if !new.is_empty() {
            let last = insert_rows(&mut tx, &new).await?;
            insert_ours(&mut tx, &new, last).await?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(new.len())
    }
}

impl CdrStore for SqliteCdrs {
    fn write<'a>(&'a self, batch: &'a [Cdr]) -> Task<'a, usize> {
        Box::pin(self.insert(batch))
    }

    fn count(&self) -> Task<'_, u64> {
        Box::pin(async {
            let n = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM cc_cdrs").fetch_one(&self.db.pool);
            Ok(n.await.map_err(failed)?.unsigned_abs())
        })
    }
}

async fn keys_there(tx: &mut SqliteConnection, batch: &[Cdr]) -> Result<HashSet<[u8; 16]>, StoreError> {
    let mut q = QueryBuilder::<Sqlite>::new("SELECT key FROM strowger_cdrs WHERE key IN (");
    let mut keys = q.separated(", ");
    for cdr in batch {
        keys.push_bind(cdr.key.to_be_bytes().to_vec());
    }
    q.push(")");
    let rows = q.build().fetch_all(tx).await.map_err(failed)?;
    Ok(rows.iter().filter_map(|r| r.try_get::<Vec<u8>, _>(0).ok()?.try_into().ok()).collect())
}

/// Into `cc_cdrs`; the id of the last. Ids of one statement follow one another.
async fn insert_rows(tx: &mut SqliteConnection, new: &[&Cdr]) -> Result<i64, StoreError> {
    let mut q = QueryBuilder::<Sqlite>::new(
        "INSERT INTO cc_cdrs (caller, received_timestamp, wait_time, pickup_time, talk_time, flow_id, agent_id, \
         call_type, rejected, fstats, cid, media) ",
    );
    q.push_values(new, |mut row, c| {
        row.push_bind(&*c.caller);
        row.push("datetime(").push_bind_unseparated(signed(c.received_unix_us / 1_000_000));
        row.push_unseparated(", 'unixepoch')");
        row.push_bind(Cdr::seconds(c.wait_us)).push_bind(Cdr::seconds(c.pickup_us)).push_bind(c.talk_s);
        row.push_bind(&*c.flow.flowid).push_bind(c.agent.as_ref().map(|a| &*a.agentid));
        row.push_bind(c.call_type as i8).push_bind(c.rejected).push_bind(c.fstats);
        row.push_bind(signed(c.cid)).push_bind(c.media as u8);
    });
    Ok(q.build().execute(tx).await.map_err(failed)?.last_insert_rowid())
}

async fn insert_ours(tx: &mut SqliteConnection, new: &[&Cdr], last: i64) -> Result<(), StoreError> {
    let first = last + 1 - i64::try_from(new.len()).unwrap_or(0);
    let mut q = QueryBuilder::<Sqlite>::new(
        "INSERT INTO strowger_cdrs (key, cdr_id, call_id, sip_call_id, received_ms, wait_ms, pickup_ms, talk_ms, cause, param) ",
    );
    q.push_values(new.iter().zip(first..), |mut row, (c, id)| {
        row.push_bind(c.key.to_be_bytes().to_vec())
            .push_bind(id)
            .push_bind(c.call.to_string())
            .push_bind(&*c.sip_call_id);
        row.push_bind(signed(c.received_unix_us / 1000)).push_bind(signed(c.wait_us / 1000));
        row.push_bind(signed(c.pickup_us / 1000)).push_bind(signed(c.talk_us / 1000));
        row.push_bind(c.cause).push_bind(c.param.as_deref());
    });
    q.build().execute(tx).await.map_err(failed)?;
    Ok(())
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

const CREATE_CDRS: &str = "CREATE TABLE cc_cdrs (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, caller VARCHAR(64) NOT NULL, \
    received_timestamp DATETIME NOT NULL, wait_time INTEGER DEFAULT 0 NOT NULL, pickup_time INTEGER DEFAULT 0 NOT NULL, \
    talk_time INTEGER DEFAULT 0 NOT NULL, flow_id VARCHAR(128) NOT NULL, agent_id VARCHAR(128) DEFAULT NULL, \
    call_type INTEGER DEFAULT -1 NOT NULL, rejected INTEGER DEFAULT 0 NOT NULL, fstats INTEGER DEFAULT 0 NOT NULL, \
    cid INTEGER DEFAULT 0, media INTEGER DEFAULT 0 NOT NULL)";

const CREATE_OURS: &str = "CREATE TABLE IF NOT EXISTS strowger_cdrs (key BLOB PRIMARY KEY NOT NULL, cdr_id INTEGER NOT NULL, \
    call_id TEXT NOT NULL, sip_call_id TEXT NOT NULL, received_ms INTEGER NOT NULL, wait_ms INTEGER NOT NULL, \
    pickup_ms INTEGER NOT NULL, talk_ms INTEGER NOT NULL, cause INTEGER NOT NULL, param TEXT) WITHOUT ROWID";
