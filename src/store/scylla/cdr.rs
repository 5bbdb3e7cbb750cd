//! CDRs: `cc_cdrs` in partitions of a flow and an hour, and a log of what was written when, for readers.
//!
//! - Key and partition of a row come from the record alone, so a write that is tried again finds the row that it made.
//! - A write sends each partition's rows in unlogged batches of that partition, several at a time. It is no transaction:
//!   one that fails has written some of its rows, and the next try writes the same ones over them.
//! - With them the log gets one entry that lists the records. Each row names the entry that its last write belongs to; so a record
//!   whose write was tried again is read once, though two entries may list it.
//! - Entries lie in partitions of a minute; `strowger_cdr_index` has the minutes of each day, and the days.

use super::log_entry::{Position, Slice, day, encode, received_ms};
use super::schema::{self, Table, Wanted};
use super::{Cluster, Lease, Times};
use crate::config::DbUrl;
use crate::store::{CdrPage, CdrStore, Missing, StoreError, Task};
use futures_util::future::join;
use futures_util::stream::{self, Stream, StreamExt};
use scylla::SerializeRow;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlTimestamp, MaybeUnset};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::Duration;
use strowger_engine::CdrRow;
use tokio::time::Instant;

/// Rows of a batch, all of one partition.
const BATCH_ROWS: usize = 100;
/// Records of a log entry.
const ENTRY_ROWS: usize = 512;
/// Entries whose rows are under way at once for one write, and batches of each.
const ENTRIES_IN_FLIGHT: usize = 6;
const IN_FLIGHT: usize = 16;
/// What the texts of a record may have together; servers refuse a mutation of 16 MiB, and time out long before.
const MOST_BYTES: usize = 64 * 1024;
/// What a flow's id may have: servers refuse keys of 64 KiB, in a reader's question too.
const MOST_FLOW: usize = 16 * 1024;
/// What takes longer is written again, under a new entry: readers wait for the rows of one no longer than
/// [`SETTLED_US`](super::log_entry::SETTLED_US).
const SLOW: Duration = Duration::from_secs(8);
/// Parent of the days in the index.
pub(super) const DAYS: i32 = -1;

/// CDRs in ScyllaDB.
pub(in crate::store) struct ScyllaCdrs {
    pub(super) cluster: Cluster,
    pub(super) reader: super::log::Reader,
    insert: PreparedStatement,
    log: PreparedStatement,
    index: PreparedStatement,
    times: Times,
    writer: i64,
    /// The last minute that the index is known to have.
    indexed: AtomicI32,
}

impl ScyllaCdrs {
    pub async fn open(url: &DbUrl, missing: Missing) -> Result<ScyllaCdrs, StoreError> {
        let cluster = Cluster::open(url, missing).await?;
        for table in [CDRS, LOG, INDEX] {
            let (name, version, columns, key, with) = table;
            let columns = Wanted::list(columns);
            schema::ensure(&cluster, &Table { name, version, columns: &columns, key, with }).await?;
        }
        let columns: Vec<&str> = CDRS.2.split(',').filter_map(|c| c.trim().split(' ').next()).collect();
        let marks = vec!["?"; columns.len()].join(", ");
        let insert = format!("INSERT INTO {} ({}) VALUES ({marks})", cluster.table(CDRS.0), columns.join(", "));
        let log = format!("INSERT INTO {} (minute, at, writer, records) VALUES (?, ?, ?, ?)", cluster.table(LOG.0));
        let index = format!("INSERT INTO {} (parent, child) VALUES (?, ?)", cluster.table(INDEX.0));
        Ok(ScyllaCdrs {
            insert: cluster.prepare(insert).await?,
            log: cluster.prepare(log).await?,
            index: cluster.prepare(index).await?,
            reader: super::log::Reader::new(&cluster).await?,
            times: Times::default(),
            writer: own_number(),
            indexed: AtomicI32::new(-1),
            cluster,
        })
    }

    async fn insert(&self, rows: &[CdrRow]) -> Result<usize, StoreError> {
        rows.iter().try_for_each(sound)?;
        let session = self.cluster.session().await?;
        let entries: Vec<_> = rows.chunks(ENTRY_ROWS).map(|rows| self.insert_entry(&session, rows)).collect();
        all_of(stream::iter(entries).buffer_unordered(ENTRIES_IN_FLIGHT)).await?;
        Ok(rows.len())
    }

    /// The rows of one entry of the log, and the entry: readers wait for all of it.
    async fn insert_entry(&self, session: &Lease, rows: &[CdrRow]) -> Result<(), StoreError> {
        let position = Position { at: self.times.next(), writer: self.writer };
        let began = Instant::now();
        let sends: Vec<_> = batches(rows).into_iter().map(|rows| self.send(session, position, rows)).collect();
        let sends = all_of(stream::iter(sends).buffer_unordered(IN_FLIGHT));
        let (sent, entered) = join(sends, self.enter(position, encode(rows))).await;
        sent.and(entered)?;
        if began.elapsed() > SLOW {
            let what = format!("{}: {} records took {:?}", self.cluster.url, rows.len(), began.elapsed());
            return Err(StoreError::Failed(what));
        }
        Ok(())
    }

    /// One batch, of one partition: it goes to a server that has it.
    async fn send(&self, session: &Lease, position: Position, rows: Vec<&CdrRow>) -> Result<(), StoreError> {
        let statements = vec![BatchStatement::PreparedStatement(self.insert.clone()); rows.len()];
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_is_idempotent(true);
        batch.set_timestamp(Some(position.at));
        let values: Vec<Values<'_>> = rows.into_iter().map(|row| Values::of(row, position)).collect();
        session.batch(&batch, values).await.map(drop).map_err(|e| self.cluster.fault(session, e))
    }

    /// Puts an entry into the log; the first of its minute into the index before.
    async fn enter(&self, position: Position, records: Vec<u8>) -> Result<(), StoreError> {
        let minute = position.minute();
        if self.indexed.load(Relaxed) != minute {
            self.cluster.execute(&self.index, (DAYS, day(minute))).await?;
            self.cluster.execute(&self.index, (day(minute), minute)).await?;
            self.indexed.store(minute, Relaxed);
        }
        self.cluster.execute(&self.log, (minute, position.at, position.writer, records)).await
    }
}

impl CdrStore for ScyllaCdrs {
    fn write<'a>(&'a self, batch: &'a [CdrRow]) -> Task<'a, usize> {
        Box::pin(self.insert(batch))
    }

    /// Reads the key of every row.
    fn count(&self) -> Task<'_, u64> {
        Box::pin(self.reader.count(&self.cluster))
    }

    fn read<'a>(&'a self, after: Option<&'a str>, max: usize) -> Task<'a, CdrPage> {
        Box::pin(self.reader.page(&self.cluster, after, max))
    }

    fn back(&self, records: usize) -> Task<'_, Option<String>> {
        Box::pin(self.reader.back(&self.cluster, records))
    }
}

/// Waits for all of them. One that failed ends it: it is tried again as a whole. One that was refused does not hold up others.
async fn all_of(mut sent: impl Stream<Item = Result<(), StoreError>> + Unpin) -> Result<(), StoreError> {
    let mut refused = None;
    while let Some(done) = sent.next().await {
        match done {
            Ok(()) => {}
            Err(StoreError::Refused(what)) => refused = Some(what),
            Err(other) => return Err(other),
        }
    }
    refused.map_or(Ok(()), |what| Err(StoreError::Refused(what)))
}

/// Tells this store's entries from those of others of the same microsecond.
fn own_number() -> i64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish().cast_signed()
}

/// Rows that a server would take very long to refuse.
fn sound(row: &CdrRow) -> Result<(), StoreError> {
    let optional = [&row.agent_id, &row.param].into_iter().flatten().map(|t| t.len()).sum::<usize>();
    let bytes = row.flow_id.len() + row.caller.len() + row.sip_call_id.len() + optional;
    let (what, has, most) = match row.flow_id.len() {
        flow if flow > MOST_FLOW => ("in its flow's id", flow, MOST_FLOW),
        _ if bytes > MOST_BYTES => ("of text", bytes, MOST_BYTES),
        _ => return Ok(()),
    };
    Err(StoreError::Refused(format!("the record {:032x} has {has} bytes {what}, {most} at most", row.key)))
}

/// The rows of an entry, by partition, in batches.
fn batches(rows: &[CdrRow]) -> Vec<Vec<&CdrRow>> {
    let mut sorted: Vec<(&str, Slice, &CdrRow)> = rows.iter().map(|r| (&*r.flow_id, Slice::of(r), r)).collect();
    sorted.sort_by_key(|(flow, slice, _)| (*flow, *slice));
    sorted
        .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
        .flat_map(|group| group.chunks(BATCH_ROWS))
        .map(|batch| batch.iter().map(|(_, _, row)| *row).collect())
        .collect()
}

/// A row's values, in the order of [`CDRS`].
#[derive(SerializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct Values<'a> {
    flow_id: &'a str,
    hour: i32,
    part: i16,
    received: CqlTimestamp,
    key: [u8; 16],
    call_id: String,
    sip_call_id: &'a str,
    caller: &'a str,
    wait_ms: i64,
    pickup_ms: i64,
    talk_ms: i64,
    talk_time: i64,
    agent_id: MaybeUnset<&'a str>,
    call_type: i8,
    rejected: i64,
    fstats: i16,
    cid: i64,
    media: i16,
    cause: i32,
    param: MaybeUnset<&'a str>,
    log_at: i64,
    log_writer: i64,
}

impl Values<'_> {
    fn of(row: &CdrRow, position: Position) -> Values<'_> {
        let Slice { hour, part } = Slice::of(row);
        let ms = |us: u64| i64::try_from(us / 1000).unwrap_or(i64::MAX);
        Values {
            flow_id: &row.flow_id,
            hour,
            part,
            received: CqlTimestamp(received_ms(row)),
            key: row.key.to_be_bytes(),
            call_id: row.call.to_string(),
            sip_call_id: &row.sip_call_id,
            caller: &row.caller,
            wait_ms: ms(row.wait_us),
            pickup_ms: ms(row.pickup_us),
            talk_ms: ms(row.talk_us),
            talk_time: i64::from(row.talk_s),
            agent_id: set(row.agent_id.as_deref()),
            call_type: row.call_type,
            rejected: i64::from(row.rejected),
            fstats: i16::from(row.fstats),
            cid: row.cid.cast_signed(),
            media: i16::from(row.media),
            cause: i32::from(row.cause),
            param: set(row.param.as_deref()),
            log_at: position.at,
            log_writer: position.writer,
        }
    }
}

/// No value is left out: a null would be a tombstone.
fn set(text: Option<&str>) -> MaybeUnset<&str> {
    text.map_or(MaybeUnset::Unset, MaybeUnset::Set)
}

type Declared = (&'static str, i64, &'static str, &'static str, &'static str);

/// Key and place of the record; then what it says; then the log entry that it belongs to.
pub(super) const CDRS: Declared = (
    "cc_cdrs",
    2,
    "flow_id text, hour int, part smallint, received timestamp, key blob, call_id text, sip_call_id text, caller text, \
     wait_ms bigint, pickup_ms bigint, talk_ms bigint, talk_time bigint, agent_id text, call_type tinyint, rejected bigint, \
     fstats smallint, cid bigint, media smallint, cause int, param text, log_at bigint, log_writer bigint",
    "((flow_id, hour, part), received, key)",
    "",
);

pub(super) const LOG: Declared =
    ("strowger_cdr_log", 1, "minute int, at bigint, writer bigint, records blob", "(minute, at, writer)", "");

pub(super) const INDEX: Declared = ("strowger_cdr_index", 1, "parent int, child int", "(parent, child)", "");
