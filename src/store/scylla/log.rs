//! Reading CDRs in the order of writing: days, their minutes, the entries of a minute, the rows that they list.
//!
//! Writers enter what they write at times of their own, so an entry may appear before one that has been read; and it may
//! be there before its rows are. A [`Place`] therefore names each entry of the last [`SETTLED_US`] that it is past, and an
//! entry of that time some of whose rows are missing is left for later. Clocks of servers that share a keyspace
//! may differ by some seconds, no more: Cassandra and ScyllaDB ask for the same.

use super::Cluster;
use super::cdr::{CDRS, DAYS, INDEX, LOG};
use super::log_entry::{Listed, Place, Position, SETTLED_US, count, day, decode};
use crate::control::clock::unix_us;
use crate::store::{CdrPage, StoreError};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use scylla::DeserializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::Duration;
use strowger_engine::CdrRow;
use strowger_engine::control::CallId;

/// Keys that one query asks for: ScyllaDB allows no more.
const KEYS: usize = 100;
/// Queries under way at once.
const IN_FLIGHT: usize = 8;

/// Statements of a reader.
pub(super) struct Reader {
    children: PreparedStatement,
    children_back: PreparedStatement,
    entries: PreparedStatement,
    entries_back: PreparedStatement,
    entry: PreparedStatement,
    records: PreparedStatement,
    keys: PreparedStatement,
}

impl Reader {
    pub async fn new(cluster: &Cluster) -> Result<Reader, StoreError> {
        let (cdrs, log, index) = (cluster.table(CDRS.0), cluster.table(LOG.0), cluster.table(INDEX.0));
        let columns: Vec<&str> = CDRS
            .2
            .split(',')
            .filter_map(|c| c.trim().split(' ').next())
            .filter(|c| !["hour", "part"].contains(c))
            .collect();
        let columns = columns.join(", ");
        let mut entries =
            cluster.prepare(format!("SELECT at, writer, records FROM {log} WHERE minute = ? AND at >= ?")).await?;
        entries.set_page_size(32);
        let back = format!("SELECT at, writer, records FROM {log} WHERE minute = ? ORDER BY at DESC, writer DESC");
        let mut entries_back = cluster.prepare(back).await?;
        entries_back.set_page_size(32);
        let records = format!(
            "SELECT {columns} FROM {cdrs} WHERE flow_id = ? AND hour = ? AND part = ? AND (received, key) IN ?"
        );
        let mut keys = cluster.prepare(format!("SELECT key FROM {cdrs}")).await?;
        // A page of a scan may have to look through much that is deleted.
        keys.set_request_timeout(Some(Duration::from_secs(30)));
        Ok(Reader {
            children: cluster.prepare(format!("SELECT child FROM {index} WHERE parent = ? AND child >= ?")).await?,
            children_back: cluster
                .prepare(format!("SELECT child FROM {index} WHERE parent = ? ORDER BY child DESC"))
                .await?,
            entries,
            entries_back,
            entry: cluster.prepare(format!("SELECT at FROM {log} WHERE minute = ? AND at = ? AND writer = ?")).await?,
            records: cluster.prepare(records).await?,
            keys,
        })
    }

    pub async fn count(&self, cluster: &Cluster) -> Result<u64, StoreError> {
        let mut rows = 0;
        let take = |_: (Vec<u8>,)| {
            rows += 1;
            ControlFlow::Continue(())
        };
        cluster.rows(&self.keys, (), take).await?;
        Ok(rows)
    }

    /// Whole entries, until there are `max` records or no more.
    pub async fn page(&self, cluster: &Cluster, after: Option<&str>, max: usize) -> Result<CdrPage, StoreError> {
        let place = after.map_or(Ok(Place::default()), Place::parse)?;
        let settled = settled();
        let mut found = Found { settled, read: vec![], rows: vec![], owners: HashMap::new() };
        let from = place.upto.minute();
        'days: for (day,) in cluster.all::<(i32,)>(&self.children, (DAYS, day(from))).await? {
            for (minute,) in cluster.all::<(i32,)>(&self.children, (day, from)).await? {
                self.minute(cluster, minute, &place, max, &mut found).await?;
                if found.rows.len() >= max.max(1) {
                    break 'days;
                }
            }
        }
        let next = (!found.rows.is_empty()).then(|| place.after(&found.read, settled).to_string());
        Ok(CdrPage { rows: found.rows, next })
    }

    /// Reads entries of a minute that the place is not past.
    async fn minute(
        &self,
        cluster: &Cluster,
        minute: i32,
        place: &Place,
        max: usize,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let settled = found.settled;
        let mut from = place.upto;
        loop {
            // Some at a time: an entry is small, but what it lists is not.
            let mut entries: Vec<(Position, Listed)> = vec![];
            let mut listed = found.rows.len();
            let mut corrupt = None;
            let take = |(at, writer, records): (i64, i64, Vec<u8>)| {
                let position = Position { at, writer };
                if place.is_past(position) || position <= from {
                    return ControlFlow::Continue(());
                }
                match decode(&records) {
                    Ok(entry) => {
                        listed += entry.members.len();
                        entries.push((position, entry));
                    }
                    Err(e) => corrupt = Some(format!("log entry {at}.{writer:x} of minute {minute}: {e}")),
                }
                if listed >= max.max(1) || corrupt.is_some() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            cluster.rows(&self.entries, (minute, from.at), take).await?;
            if let Some(what) = corrupt {
                return Err(StoreError::Failed(format!("{}: {what}", cluster.url)));
            }
            let Some((last, _)) = entries.last() else { return Ok(()) };
            from = *last;
            for (position, entry) in &entries {
                let had = found.rows.len();
                let complete = self.records(cluster, *position, entry, found).await?;
                if complete || position.at <= settled {
                    found.read.push(*position);
                } else {
                    found.rows.truncate(had);
                }
            }
            if found.rows.len() >= max.max(1) {
                return Ok(());
            }
        }
    }

    /// Fetches the rows of an entry; those that belong to another are left to that one. Says whether all were there.
    async fn records(
        &self,
        cluster: &Cluster,
        position: Position,
        entry: &Listed,
        found: &mut Found,
    ) -> Result<bool, StoreError> {
        let mut groups: Vec<Vec<(CqlTimestamp, Vec<u8>)>> = vec![vec![]; entry.groups.len()];
        for m in &entry.members {
            groups[m.group].push((CqlTimestamp(m.received_ms), m.key.to_be_bytes().to_vec()));
        }
        let asked = groups.iter().zip(&entry.groups).flat_map(|(keys, (flow, slice))| {
            keys.chunks(KEYS).map(move |keys| (flow.as_str(), slice.hour, slice.part, keys))
        });
        let queries: Vec<_> = asked.map(|values| cluster.all::<Record>(&self.records, values)).collect();
        let rows: Vec<Vec<Record>> = stream::iter(queries).buffered(IN_FLIGHT).try_collect().await?;
        let mut rows: HashMap<u128, Record> = rows.into_iter().flatten().filter_map(|r| Some((r.key()?, r))).collect();
        let keys: HashSet<u128> = entry.members.iter().map(|m| m.key).collect();
        let complete = rows.len() == keys.len();
        for m in &entry.members {
            let Some(record) = rows.remove(&m.key) else { continue };
            let owner = Position { at: record.log_at, writer: record.log_writer };
            if owner == position || !self.is_there(cluster, owner, found).await? {
                found.rows.push(record.into_row(m.key));
            }
        }
        Ok(complete)
    }

    /// Whether the log has that entry.
    async fn is_there(&self, cluster: &Cluster, entry: Position, found: &mut Found) -> Result<bool, StoreError> {
        if let Some(known) = found.owners.get(&entry) {
            return Ok(*known);
        }
        let asked = (entry.minute(), entry.at, entry.writer);
        let there = !cluster.all::<(i64,)>(&self.entry, asked).await?.is_empty();
        found.owners.insert(entry, there);
        Ok(there)
    }

    /// The place before the last `records`, or somewhat more.
    pub async fn back(&self, cluster: &Cluster, records: usize) -> Result<Option<String>, StoreError> {
        let settled = settled();
        let mut listed = 0;
        let mut place = Place::default();
        for (day,) in cluster.all::<(i32,)>(&self.children_back, (DAYS,)).await? {
            for (minute,) in cluster.all::<(i32,)>(&self.children_back, (day,)).await? {
                let mut found = false;
                let take = |(at, writer, entry): (i64, i64, Vec<u8>)| {
                    let position = Position { at, writer };
                    if listed < records {
                        listed += count(&entry);
                    } else if position.at > settled {
                        place.seen.push(position);
                    } else {
                        place.upto = position;
                        found = true;
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                };
                cluster.rows(&self.entries_back, (minute,), take).await?;
                if found {
                    return Ok(Some(place.to_string()));
                }
            }
        }
        Ok((!place.seen.is_empty()).then(|| place.to_string()))
    }
}

/// A time before which no entry appears any more.
fn settled() -> i64 {
    i64::try_from(unix_us()).unwrap_or(i64::MAX).saturating_sub(SETTLED_US)
}

/// What a page has so far.
struct Found {
    /// Entries up to this time, microseconds of Unix time, are as complete as they will be.
    settled: i64,
    read: Vec<Position>,
    rows: Vec<CdrRow>,
    /// Entries that rows name, and whether they are there.
    owners: HashMap<Position, bool>,
}

/// A row of `cc_cdrs`.
#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order")]
struct Record {
    flow_id: String,
    received: CqlTimestamp,
    key: Vec<u8>,
    call_id: Option<String>,
    sip_call_id: Option<String>,
    caller: Option<String>,
    wait_ms: Option<i64>,
    pickup_ms: Option<i64>,
    talk_ms: Option<i64>,
    talk_time: Option<i64>,
    agent_id: Option<String>,
    call_type: Option<i8>,
    rejected: Option<i64>,
    fstats: Option<i16>,
    cid: Option<i64>,
    media: Option<i16>,
    cause: Option<i32>,
    param: Option<String>,
    #[scylla(default_when_null)]
    log_at: i64,
    #[scylla(default_when_null)]
    log_writer: i64,
}

impl Record {
    fn key(&self) -> Option<u128> {
        Some(u128::from_be_bytes(self.key.as_slice().try_into().ok()?))
    }

    fn into_row(self, key: u128) -> CdrRow {
        let us = |ms: Option<i64>| ms.unwrap_or(0).max(0).unsigned_abs().saturating_mul(1000);
        let text = |t: Option<String>| t.unwrap_or_default().into_boxed_str();
        let none = CallId { shard: 0, slot: 0, generation: 0 };
        CdrRow {
            key,
            call: self.call_id.and_then(|c| c.parse().ok()).unwrap_or(none),
            sip_call_id: text(self.sip_call_id),
            caller: text(self.caller),
            received_unix_us: us(Some(self.received.0)),
            wait_us: us(self.wait_ms),
            pickup_us: us(self.pickup_ms),
            talk_us: us(self.talk_ms),
            talk_s: u32::try_from(self.talk_time.unwrap_or(0)).unwrap_or(u32::MAX),
            flow_id: self.flow_id.into(),
            agent_id: self.agent_id.map(Into::into),
            call_type: self.call_type.unwrap_or(-1),
            rejected: u32::try_from(self.rejected.unwrap_or(0)).unwrap_or(u32::MAX),
            fstats: u8::try_from(self.fstats.unwrap_or(0)).unwrap_or(u8::MAX),
            cid: self.cid.unwrap_or(0).cast_unsigned(),
            media: u8::try_from(self.media.unwrap_or(0)).unwrap_or(u8::MAX),
            cause: u16::try_from(self.cause.unwrap_or(0)).unwrap_or(u16::MAX),
            param: self.param.map(Into::into),
        }
    }
}
