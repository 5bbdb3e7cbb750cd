//! CDRs in SQLite: `cc_cdrs` as OpenSIPS has it, and beside it `strowger_cdrs` with each record's key and what
//! `cc_cdrs` has no column for. Both rows of a record are written in one transaction: a retry never doubles one.

use super::names::Column;
use super::sqlite::{Db, Wanted, failed, run};
use super::{CdrPage, CdrStore, StoreError, Task};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use std::collections::HashSet;
use std::path::Path;
use strowger_engine::control::CallId;
use strowger_engine::{Cdr, CdrRow};

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

    async fn insert(&self, batch: &[CdrRow]) -> Result<usize, StoreError> {
        if batch.is_empty() {
            return Ok(0);
        }
        let mut tx = self.db.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let mut there = keys_there(&mut tx, batch).await?;
        let new: Vec<&CdrRow> = batch.iter().filter(|c| there.insert(c.key.to_be_bytes())).collect();
        if !new.is_empty() {
            let last = insert_rows(&mut tx, &new).await?;
            insert_ours(&mut tx, &new, last).await?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(new.len())
    }

    /// In order of the rows' ids, which are what a place is.
    async fn page(&self, after: Option<&str>, max: usize) -> Result<CdrPage, StoreError> {
        let place = after.unwrap_or("0");
        let after = place.parse::<i64>().map_err(|_| StoreError::Refused(format!("`{place}` is not a row's id")))?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let found = sqlx::query(SELECT).bind(after).bind(max).fetch_all(&self.db.pool).await.map_err(failed)?;
        let rows = found.iter().map(row).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let next = found.last().map(|r| r.try_get::<i64, _>("id")).transpose().map_err(failed)?;
        Ok(CdrPage { rows, next: next.map(|id| id.to_string()) })
    }
}

impl CdrStore for SqliteCdrs {
    fn write<'a>(&'a self, batch: &'a [CdrRow]) -> Task<'a, usize> {
        Box::pin(self.insert(batch))
    }

    fn count(&self) -> Task<'_, u64> {
        Box::pin(async {
            let n = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM cc_cdrs").fetch_one(&self.db.pool);
            Ok(n.await.map_err(failed)?.unsigned_abs())
        })
    }

    fn read<'a>(&'a self, after: Option<&'a str>, max: usize) -> Task<'a, CdrPage> {
        Box::pin(async move { self.db.named(self.page(after, max).await) })
    }
}

async fn keys_there(tx: &mut SqliteConnection, batch: &[CdrRow]) -> Result<HashSet<[u8; 16]>, StoreError> {
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
async fn insert_rows(tx: &mut SqliteConnection, new: &[&CdrRow]) -> Result<i64, StoreError> {
    let mut q = QueryBuilder::<Sqlite>::new(
        "INSERT INTO cc_cdrs (caller, received_timestamp, wait_time, pickup_time, talk_time, flow_id, agent_id, \
         call_type, rejected, fstats, cid, media) ",
    );
    q.push_values(new, |mut row, c| {
        row.push_bind(&*c.caller);
        row.push("datetime(").push_bind_unseparated(signed(c.received_unix_us / 1_000_000));
        row.push_unseparated(", 'unixepoch')");
        row.push_bind(Cdr::seconds(c.wait_us)).push_bind(Cdr::seconds(c.pickup_us)).push_bind(c.talk_s);
        row.push_bind(&*c.flow_id).push_bind(c.agent_id.as_deref());
        row.push_bind(c.call_type).push_bind(c.rejected).push_bind(c.fstats);
        row.push_bind(signed(c.cid)).push_bind(c.media);
    });
    Ok(q.build().execute(tx).await.map_err(failed)?.last_insert_rowid())
}

async fn insert_ours(tx: &mut SqliteConnection, new: &[&CdrRow], last: i64) -> Result<(), StoreError> {
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

const SELECT: &str = "SELECT c.id, CAST(strftime('%s', received_timestamp) AS INTEGER) AS received, wait_time, pickup_time, \
    talk_time, caller, flow_id, agent_id, call_type, rejected, fstats, cid, media, key, call_id, sip_call_id, received_ms, \
    wait_ms, pickup_ms, talk_ms, cause, param FROM cc_cdrs c LEFT JOIN strowger_cdrs o ON o.cdr_id = c.id WHERE c.id > ? \
    ORDER BY c.id LIMIT ?";

/// A row of [`SELECT`]. Without a row of ours, seconds are what there is.
fn row(r: &SqliteRow) -> Result<CdrRow, sqlx::Error> {
    let whole =
        |column: &str| Ok::<u64, sqlx::Error>(r.try_get::<Option<i64>, _>(column)?.unwrap_or(0).max(0).unsigned_abs());
    let text =
        |column: &str| Ok::<Box<str>, sqlx::Error>(r.try_get::<Option<String>, _>(column)?.unwrap_or_default().into());
    let some =
        |column: &str| Ok::<Option<Box<str>>, sqlx::Error>(r.try_get::<Option<String>, _>(column)?.map(Into::into));
    let key = r.try_get::<Option<Vec<u8>>, _>("key")?.and_then(|k| k.try_into().ok()).map(u128::from_be_bytes);
    let ours = key.is_some();
    let time = |ms: &str, s: &str| Ok::<u64, sqlx::Error>(if ours { whole(ms)? * 1000 } else { whole(s)? * 1_000_000 });
    Ok(CdrRow {
        key: key.unwrap_or(u128::from(whole("id")?)),
        call: text("call_id")?.parse().unwrap_or(CallId { shard: 0, slot: 0, generation: 0 }),
        sip_call_id: text("sip_call_id")?,
        caller: text("caller")?,
        received_unix_us: time("received_ms", "received")?,
        wait_us: time("wait_ms", "wait_time")?,
        pickup_us: time("pickup_ms", "pickup_time")?,
        talk_us: time("talk_ms", "talk_time")?,
        talk_s: whole("talk_time")?.try_into().unwrap_or(u32::MAX),
        flow_id: text("flow_id")?,
        agent_id: some("agent_id")?,
        call_type: r.try_get::<i64, _>("call_type")?.try_into().unwrap_or(-1),
        rejected: whole("rejected")?.try_into().unwrap_or(u32::MAX),
        fstats: whole("fstats")?.try_into().unwrap_or(u8::MAX),
        cid: whole("cid")?,
        media: whole("media")?.try_into().unwrap_or(u8::MAX),
        cause: whole("cause")?.try_into().unwrap_or(u16::MAX),
        param: some("param")?,
    })
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
