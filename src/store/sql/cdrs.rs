//! CDRs: `cc_cdrs` as OpenSIPS has it, and beside it `strowger_cdrs` with each record's key and what `cc_cdrs` has no
//! column for. Both rows of a record are written in one transaction: a retry never doubles one.
//!
//! Batches are written one after another, so that ids grow as transactions end, and who reads on from an id misses none.

use super::super::{CdrPage, CdrStore, Missing, StoreError, Task};
use super::dialect::{Arg, Dialect, Type};
use super::rows::word;
use super::schema::{Form, Found, Table, Wanted};
use super::session::{Cells, Mode, Session, Sql};
use super::shapes::shaped;
use std::collections::HashSet;
use std::time::Duration;
use strowger_engine::control::CallId;
use strowger_engine::{Cdr, CdrRow};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a batch waits for those before it.
const TURN: Duration = Duration::from_secs(10);

/// `cc_cdrs`: what a record writes. No key renames these.
const COLUMNS: [(&str, Type, &str); 12] = [
    ("caller", Type::Text(64), "NOT NULL"),
    ("received_timestamp", Type::Time, "NOT NULL"),
    ("wait_time", Type::Int, "DEFAULT 0 NOT NULL"),
    ("pickup_time", Type::Int, "DEFAULT 0 NOT NULL"),
    ("talk_time", Type::Int, "DEFAULT 0 NOT NULL"),
    ("flow_id", Type::Text(128), "NOT NULL"),
    ("agent_id", Type::Text(128), "DEFAULT NULL"),
    ("call_type", Type::Int, "DEFAULT -1 NOT NULL"),
    ("rejected", Type::Int, "DEFAULT 0 NOT NULL"),
    ("fstats", Type::Int, "DEFAULT 0 NOT NULL"),
    ("cid", Type::Int, "DEFAULT 0"),
    ("media", Type::Int, "DEFAULT 0 NOT NULL"),
];

/// `strowger_cdrs`. Times in milliseconds; `caller` only where `cc_cdrs` cannot keep it whole.
const OURS: [(&str, Type, &str); 11] = [
    ("key", Type::Key, "NOT NULL"),
    ("cdr_id", Type::BigInt, "NOT NULL"),
    ("call_id", Type::Text(64), "NOT NULL"),
    ("sip_call_id", Type::LongText, "NOT NULL"),
    ("received_ms", Type::BigInt, "NOT NULL"),
    ("wait_ms", Type::BigInt, "NOT NULL"),
    ("pickup_ms", Type::BigInt, "NOT NULL"),
    ("talk_ms", Type::BigInt, "NOT NULL"),
    ("cause", Type::Int, "NOT NULL"),
    ("param", Type::LongText, ""),
    ("caller", Type::LongText, ""),
];

/// Why a batch is not written.
enum Unwritten {
    /// A record of it is in the table, or somebody is just writing it, perhaps we ourselves before a time limit.
    There(StoreError),
    Store(StoreError),
}

impl From<StoreError> for Unwritten {
    fn from(e: StoreError) -> Unwritten {
        Unwritten::Store(e)
    }
}

impl From<Unwritten> for StoreError {
    fn from(e: Unwritten) -> StoreError {
        match e {
            Unwritten::There(e) | Unwritten::Store(e) => e,
        }
    }
}

/// CDRs in an SQL database.
pub struct SqlCdrs {
    db: Sql,
    cdrs: Found,
    ours: Found,
    select: String,
    turn: Semaphore,
}

impl SqlCdrs {
    pub async fn open(db: Sql, missing: Missing) -> Result<SqlCdrs, StoreError> {
        let table = |name, form, columns: &[(&'static str, Type, &'static str)]| Table {
            name,
            form,
            columns: columns.iter().map(|&(name, kind, rule)| Wanted { name, key: "", kind, rule }).collect(),
        };
        let versioned = Form::Versioned { version: 2, unique: None };
        let cdrs = db.ensure(&table("cc_cdrs", versioned, &COLUMNS), missing).await?;
        let keyed = Form::Ours { key: "key", index: Some("cdr_id") };
        let ours = db.ensure(&table("strowger_cdrs", keyed, &OURS), missing).await?;
        let select = select(db.dialect, &cdrs, &ours);
        Ok(SqlCdrs { db, cdrs, ours, select, turn: Semaphore::new(1) })
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        match tokio::time::timeout(TURN, self.turn.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(StoreError::Failed(format!("{}: the batches before this one are not written yet", self.db.url))),
        }
    }

    /// `seen`: some of them may be in the table already, and stay as they are there.
    async fn insert(&self, s: &mut Session<'_>, batch: &[CdrRow], seen: bool) -> Result<usize, Unwritten> {
        let mut there = HashSet::new();
        if seen {
            for part in shaped(batch) {
                self.keys_there(s, part, &mut there).await?;
            }
        }
        let new: Vec<&CdrRow> = batch.iter().filter(|c| there.insert(c.key.to_be_bytes())).collect();
        for part in shaped(&new) {
            let ids = self.insert_rows(s, part).await?;
            self.insert_ours(s, part, &ids).await?;
        }
        Ok(new.len())
    }

    /// One transaction.
    async fn write_once(&self, batch: &[CdrRow], seen: bool) -> Result<usize, Unwritten> {
        let mut s = self.db.begin(Mode::Write).await?;
        match self.insert(&mut s, batch, seen).await {
            Ok(new) => Ok(s.end(Ok(new)).await?),
            Err(Unwritten::There(what)) => {
                s.undo().await;
                Err(Unwritten::There(what))
            }
            Err(Unwritten::Store(e)) => Ok(s.end(Err(e)).await?),
        }
    }

    async fn keys_there(
        &self,
        s: &mut Session<'_>,
        part: &[CdrRow],
        there: &mut HashSet<[u8; 16]>,
    ) -> Result<(), StoreError> {
        let keys: Vec<[u8; 16]> = part.iter().map(|c| c.key.to_be_bytes()).collect();
        let args: Vec<Arg<'_>> = keys.iter().map(|k| Arg::Bytes(k)).collect();
        let (key, marks) = (self.ours.name(0), vec!["?"; keys.len()].join(", "));
        let select = format!("SELECT {key} FROM {} WHERE {key} IN ({marks})", self.ours.table);
        let found = s.rows(&select, &args).await?;
        there.extend(found.iter().filter_map(|r| <[u8; 16]>::try_from(r.first()?.as_deref()?).ok()));
        Ok(())
    }

    /// Into `cc_cdrs`; their ids.
    async fn insert_rows(&self, s: &mut Session<'_>, part: &[&CdrRow]) -> Result<Vec<i64>, StoreError> {
        let t = &self.cdrs;
        let row = format!("(?, {}{})", self.db.dialect.timestamp(), ", ?".repeat(COLUMNS.len() - 2));
        let rows = vec![row; part.len()].join(", ");
        let insert = format!("INSERT INTO {} ({}) VALUES {rows}", t.table, t.names().join(", "));
        let args: Vec<Arg<'_>> = part.iter().flat_map(|c| self.args(c)).collect();
        let count = i64::try_from(part.len()).unwrap_or(0);
        match self.db.dialect {
            Dialect::Postgres => {
                let found = s.rows(&format!("{insert} RETURNING id::text"), &args).await?;
                Ok(found.iter().map(|r| integer(r, 0)).collect())
            }
            // Ids of one statement follow one another.
            Dialect::Sqlite => {
                let last = s.run(&insert, &args).await?.id;
                Ok((last + 1 - count..=last).collect())
            }
            // So they do here, at this distance.
            Dialect::Mysql => {
                let first = s.run(&insert, &args).await?.id;
                let step = s.rows("SELECT CONCAT(@@auto_increment_increment, '')", &[]).await?;
                let step = step.first().map_or(1, |r| integer(r, 0));
                Ok((0..count).map(|i| first + i * step).collect())
            }
        }
    }

    fn args<'c>(&self, c: &'c CdrRow) -> [Arg<'c>; 12] {
        let t = &self.cdrs;
        let int = |i, n| Arg::Int(Some(t.most(i, n)));
        [
            Arg::Text(Some(t.cut(0, &c.caller))),
            Arg::Int(Some(signed(c.received_unix_us / 1_000_000))),
            int(2, Cdr::seconds(c.wait_us).into()),
            int(3, Cdr::seconds(c.pickup_us).into()),
            int(4, c.talk_s.into()),
            Arg::Text(Some(t.cut(5, &c.flow_id))),
            Arg::Text(c.agent_id.as_deref().map(|a| t.cut(6, a))),
            Arg::Int(Some(c.call_type.into())),
            int(8, c.rejected.into()),
            int(9, c.fstats.into()),
            Arg::Int(Some(t.around(10, c.cid))),
            int(11, c.media.into()),
        ]
    }

    async fn insert_ours(&self, s: &mut Session<'_>, part: &[&CdrRow], ids: &[i64]) -> Result<(), Unwritten> {
        let t = &self.ours;
        let row = format!("(?{})", ", ?".repeat(OURS.len() - 1));
        let rows = vec![row; part.len()].join(", ");
        let insert = format!("INSERT INTO {} ({}) VALUES {rows}", t.table, t.names().join(", "));
        let words: Vec<([u8; 16], String)> = part.iter().map(|c| (c.key.to_be_bytes(), c.call.to_string())).collect();
        let mut args = Vec::with_capacity(part.len() * OURS.len());
        for ((c, id), (key, call)) in part.iter().zip(ids).zip(&words) {
            let changed = !self.cdrs.keeps(0, &c.caller);
            args.extend([Arg::Bytes(key), Arg::Int(Some(*id)), Arg::Text(Some(call)), Arg::Text(Some(&c.sip_call_id))]);
            let times = [c.received_unix_us, c.wait_us, c.pickup_us, c.talk_us];
            args.extend(times.map(|us| Arg::Int(Some(signed(us / 1000)))));
            args.extend([Arg::Int(Some(c.cause.into())), Arg::Text(c.param.as_deref())]);
            args.push(Arg::Text(changed.then_some(&*c.caller)));
        }
        match s.execute(&insert, &args).await {
            Ok(_) => Ok(()),
            Err(e) if e.as_database_error().is_some_and(|d| d.is_unique_violation()) => {
                let what = format!("{}: a record of the batch is just being written: {e}", self.db.url);
                Err(Unwritten::There(StoreError::Failed(what)))
            }
            Err(e) => Err(Unwritten::Store(self.db.sorted(&e))),
        }
    }

    /// In order of the rows' ids, which are what a place is.
    async fn page(&self, s: &mut Session<'_>, after: Option<&str>, max: usize) -> Result<CdrPage, StoreError> {
        let place = after.unwrap_or("0");
        let after = place.parse::<i64>().map_err(|_| StoreError::Refused(format!("`{place}` is not a row's id")))?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let found = s.rows(&self.select, &[Arg::Int(Some(after)), Arg::Int(Some(max))]).await?;
        let next = found.last().and_then(|r| word(r, 0));
        Ok(CdrPage { rows: found.iter().map(row).collect(), next })
    }
}

impl CdrStore for SqlCdrs {
    fn write<'a>(&'a self, batch: &'a [CdrRow]) -> Task<'a, usize> {
        Box::pin(async move {
            if batch.is_empty() {
                return Ok(0);
            }
            let _turn = self.turn().await?;
            // Nearly always all are new: what is there is asked for only when the database says so.
            match self.write_once(batch, false).await {
                Err(Unwritten::There(_)) => {}
                other => return other.map_err(StoreError::from),
            }
            Ok(self.write_once(batch, true).await?)
        })
    }

    fn count(&self) -> Task<'_, u64> {
        Box::pin(async {
            let mut s = self.db.session().await?;
            s.long();
            let count = self.db.dialect.text("count(*)");
            let found = s.rows(&format!("SELECT {count} FROM {}", self.cdrs.table), &[]).await;
            s.done(found.map(|rows| rows.first().map_or(0, |r| integer(r, 0)).unsigned_abs()))
        })
    }

    fn back(&self, records: usize) -> Task<'_, Option<String>> {
        Box::pin(async move {
            let id = self.db.dialect.text("id");
            let select = format!("SELECT {id} FROM {} ORDER BY id DESC LIMIT 1 OFFSET ?", self.cdrs.table);
            let mut s = self.db.session().await?;
            let found = s.rows(&select, &[Arg::Int(Some(i64::try_from(records).unwrap_or(i64::MAX)))]).await;
            s.done(found.map(|rows| rows.first().and_then(|r| word(r, 0))))
        })
    }

    fn read<'a>(&'a self, after: Option<&'a str>, max: usize) -> Task<'a, CdrPage> {
        Box::pin(async move {
            let mut s = self.db.session().await?;
            let page = self.page(&mut s, after, max).await;
            s.done(page)
        })
    }
}

/// The id, the time, `cc_cdrs` as [`COLUMNS`] without the time, then [`OURS`] without the id.
fn select(d: Dialect, cdrs: &Found, ours: &Found) -> String {
    let mut cells = vec![d.text("c.id"), d.text(&d.unix(&format!("c.{}", cdrs.name(1))))];
    cells.extend((0..COLUMNS.len()).filter(|i| *i != 1).map(|i| d.text(&format!("c.{}", cdrs.name(i)))));
    cells.push(format!("o.{}", ours.name(0)));
    cells.extend((2..OURS.len()).map(|i| d.text(&format!("o.{}", ours.name(i)))));
    format!(
        "SELECT {} FROM {} c LEFT JOIN {} o ON o.{} = c.id WHERE c.id > ? ORDER BY c.id LIMIT ?",
        cells.join(", "),
        cdrs.table,
        ours.table,
        ours.name(1),
    )
}

/// A row of [`select`]. Without a row of ours, seconds are what there is.
fn row(r: &Cells) -> CdrRow {
    let text = |i: usize| r.get(i).and_then(Option::as_deref).map(|b| Box::from(String::from_utf8_lossy(b)));
    let whole = |i: usize| integer(r, i).max(0).unsigned_abs();
    let key = r.get(13).and_then(|c| c.as_deref()?.try_into().ok()).map(u128::from_be_bytes);
    let time = |ms: usize, s: usize| if key.is_some() { whole(ms) * 1000 } else { whole(s) * 1_000_000 };
    CdrRow {
        key: key.unwrap_or_else(|| u128::from(whole(0))),
        received_unix_us: time(16, 1),
        wait_us: time(17, 3),
        pickup_us: time(18, 4),
        talk_us: time(19, 5),
        talk_s: whole(5).try_into().unwrap_or(u32::MAX),
        caller: text(22).or_else(|| text(2)).unwrap_or_default(),
        flow_id: text(6).unwrap_or_default(),
        agent_id: text(7),
        call_type: integer(r, 8).try_into().unwrap_or(-1),
        rejected: whole(9).try_into().unwrap_or(u32::MAX),
        fstats: whole(10).try_into().unwrap_or(u8::MAX),
        cid: whole(11),
        media: whole(12).try_into().unwrap_or(u8::MAX),
        call: text(14).and_then(|c| c.parse().ok()).unwrap_or(CallId { shard: 0, slot: 0, generation: 0 }),
        sip_call_id: text(15).unwrap_or_default(),
        cause: whole(20).try_into().unwrap_or(u16::MAX),
        param: text(21),
    }
}

fn integer(r: &Cells, i: usize) -> i64 {
    word(r, i).and_then(|w| w.trim().parse().ok()).unwrap_or(0)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
