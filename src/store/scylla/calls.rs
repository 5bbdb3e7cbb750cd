//! Ongoing calls: `cc_calls` with the columns of OpenSIPS and the journal's records, a partition for each call.
//!
//! A save is no transaction: one that fails may have done a part, and the next does all of it. Every statement carries a
//! time of its own, so that one which a server took up late undoes nothing newer.

use super::schema::{self, Table, Wanted};
use super::{Cluster, Lease, Times};
use crate::config::DbUrl;
use crate::store::{CallStore, Missing, OngoingCall, StoreError, Task};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use scylla::statement::prepared::PreparedStatement;
use scylla::{DeserializeRow, SerializeRow};

/// Statements under way at once for one save.
const IN_FLIGHT: usize = 64;
/// What a call may have; servers refuse a mutation of 16 MiB, and time out long before.
const MOST_BYTES: usize = 1024 * 1024;

/// Ongoing calls in ScyllaDB.
pub(in crate::store) struct ScyllaCalls {
    cluster: Cluster,
    insert: PreparedStatement,
    delete: PreparedStatement,
    all: PreparedStatement,
    ids: PreparedStatement,
    times: Times,
}

impl ScyllaCalls {
    pub async fn open(url: &DbUrl, missing: Missing) -> Result<ScyllaCalls, StoreError> {
        let cluster = Cluster::open(url, missing).await?;
        let columns = Wanted::list(COLUMNS);
        let table = Table { name: "cc_calls", version: 3, columns: &columns, key: "(b2buaid)", with: WITH };
        schema::ensure(&cluster, &table).await?;
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        let (names, marks) = (names.join(", "), vec!["?"; names.len()].join(", "));
        let place = cluster.table("cc_calls");
        let mut all = cluster.prepare(format!("SELECT {names} FROM {place}")).await?;
        all.set_page_size(500);
        let mut ids = cluster.prepare(format!("SELECT b2buaid FROM {place}")).await?;
        // A page may have to look through many calls that are over.
        for statement in [&mut all, &mut ids] {
            statement.set_request_timeout(Some(std::time::Duration::from_secs(10)));
        }
        Ok(ScyllaCalls {
            insert: cluster
                .prepare(format!("INSERT INTO {place} ({names}) VALUES ({marks}) USING TIMESTAMP ?"))
                .await?,
            delete: cluster.prepare(format!("DELETE FROM {place} USING TIMESTAMP ? WHERE b2buaid = ?")).await?,
            all,
            ids,
            times: Times::default(),
            cluster,
        })
    }

    async fn put(&self, calls: &[OngoingCall], over: &[Box<str>]) -> Result<(), StoreError> {
        if let Some(call) = calls.iter().find(|c| c.records.len() > MOST_BYTES) {
            let (id, bytes) = (&call.id, call.records.len());
            return Err(StoreError::Refused(format!(
                "the call {id} has {bytes} bytes of records, {MOST_BYTES} at most"
            )));
        }
        let session = self.cluster.session().await?;
        // Of a call that is named twice the last holds; one that is also over is over.
        let saves: Vec<_> = calls.iter().map(|call| self.save_one(&session, call, self.times.next())).collect();
        stream::iter(saves).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
        let removals: Vec<_> = over.iter().map(|id| self.remove_one(&session, id, self.times.next())).collect();
        stream::iter(removals).buffer_unordered(IN_FLIGHT).try_collect().await
    }

    async fn save_one(&self, session: &Lease, call: &OngoingCall, at: i64) -> Result<(), StoreError> {
        let done = session.execute_unpaged(&self.insert, Values::of(call, at)).await;
        done.map(drop).map_err(|e| self.cluster.fault(session, e))
    }

    async fn remove_one(&self, session: &Lease, id: &str, at: i64) -> Result<(), StoreError> {
        let done = session.execute_unpaged(&self.delete, (at, id)).await;
        done.map(drop).map_err(|e| self.cluster.fault(session, e))
    }
}

impl CallStore for ScyllaCalls {
    fn save<'a>(&'a self, calls: &'a [OngoingCall], over: &'a [Box<str>]) -> Task<'a, ()> {
        Box::pin(self.put(calls, over))
    }

    fn ids(&self) -> Task<'_, Vec<Box<str>>> {
        Box::pin(async {
            let rows: Vec<(String,)> = self.cluster.all(&self.ids, ()).await?;
            Ok(rows.into_iter().map(|(id,)| id.into()).collect())
        })
    }

    fn load(&self) -> Task<'_, Vec<OngoingCall>> {
        Box::pin(async {
            let rows: Vec<Saved> = self.cluster.all(&self.all, ()).await?;
            Ok(rows.into_iter().map(Saved::into_call).collect())
        })
    }
}

const COLUMNS: &str = "b2buaid text, state int, media int, ig_cback int, no_rej bigint, setup_time bigint, eta bigint, \
     last_start bigint, recv_time bigint, caller_dn text, caller_un text, flow text, agent text, script_param text, records blob";

/// Calls come and go: what is left of those that are over goes soon, yet not before a server that was away for some hours
/// has heard of it.
const WITH: &str = " WITH gc_grace_seconds = 10800";

/// In the order of [`COLUMNS`], then the time.
#[derive(SerializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct Values<'a> {
    id: &'a str,
    state: i32,
    media: i32,
    ig_cback: i32,
    rejections: i64,
    setup_s: i64,
    estimated_wait_s: i64,
    last_start: i64,
    received: i64,
    caller_display: &'a str,
    caller_user: &'a str,
    flow: &'a str,
    agent: &'a str,
    param: &'a str,
    records: &'a [u8],
    at: i64,
}

impl Values<'_> {
    fn of(call: &OngoingCall, at: i64) -> Values<'_> {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Values {
            id: &call.id,
            state: i32::from(call.state),
            media: i32::from(call.media),
            ig_cback: 0,
            rejections: i64::from(call.rejections),
            setup_s: signed(call.setup_s),
            estimated_wait_s: signed(call.estimated_wait_s),
            last_start: signed(call.last_start_unix_s),
            received: signed(call.received_unix_s),
            caller_display: &call.caller_display,
            caller_user: &call.caller_user,
            flow: &call.flow_id,
            agent: &call.agent_id,
            param: &call.param,
            records: &call.records,
            at,
        }
    }
}

/// A row, in the order of [`COLUMNS`].
#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct Saved {
    id: String,
    state: Option<i32>,
    media: Option<i32>,
    _ig_cback: Option<i32>,
    rejections: Option<i64>,
    setup_s: Option<i64>,
    estimated_wait_s: Option<i64>,
    last_start: Option<i64>,
    received: Option<i64>,
    caller_display: Option<String>,
    caller_user: Option<String>,
    flow: Option<String>,
    agent: Option<String>,
    param: Option<String>,
    records: Option<Vec<u8>>,
}

impl Saved {
    fn into_call(self) -> OngoingCall {
        let whole = |n: Option<i64>| n.unwrap_or(0).max(0).unsigned_abs();
        let small = |n: Option<i32>| u8::try_from(n.unwrap_or(0)).unwrap_or(u8::MAX);
        let text = |t: Option<String>| t.unwrap_or_default().into_boxed_str();
        OngoingCall {
            id: self.id.into(),
            state: small(self.state),
            media: small(self.media),
            rejections: u32::try_from(whole(self.rejections)).unwrap_or(u32::MAX),
            received_unix_s: whole(self.received),
            last_start_unix_s: whole(self.last_start),
            setup_s: whole(self.setup_s),
            estimated_wait_s: whole(self.estimated_wait_s),
            caller_display: text(self.caller_display),
            caller_user: text(self.caller_user),
            flow_id: text(self.flow),
            agent_id: text(self.agent),
            param: text(self.param),
            records: self.records.unwrap_or_default().into(),
        }
    }
}
