//! The ScyllaDB back end on a real server that speaks its protocol: Apache Cassandra (`tests/cassandra/setup` fetches it).

#[path = "../support/cassandra.rs"]
mod cassandra;
mod cdrs;
mod command_line;
mod faults;
mod schema;
#[path = "../store/suite.rs"]
mod suite;

use cassandra::Cassandra;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use strowger::config::DbUrl;
use strowger::store::{CdrPage, CdrStore, Missing, StoreError, Task, cdrs_at};
use strowger_engine::{CallId, CdrRow};

/// The server that tests share which do it no harm; each has keyspaces of its own.
fn shared() -> &'static Cassandra {
    static SERVER: OnceLock<Cassandra> = OnceLock::new();
    SERVER.get_or_init(Cassandra::start)
}

/// Opens the records of a keyspace.
async fn cdrs(server: &Cassandra, keyspace: &str) -> Box<dyn CdrStore> {
    let url: DbUrl = server.url(keyspace).parse().unwrap();
    Box::new(Patient(patiently(|| cdrs_at(&url, Missing::Create)).await.unwrap()))
}

/// Tries again what a busy machine did not do within the limit of a request.
async fn patiently<T, W: Future<Output = Result<T, StoreError>>>(work: impl Fn() -> W) -> Result<T, StoreError> {
    let began = Instant::now();
    loop {
        match work().await {
            Err(StoreError::Failed(what)) if what.contains("timeout") && began.elapsed() < Duration::from_secs(60) => {}
            done => return done,
        }
    }
}

/// A store whose requests may take longer than it allows them.
struct Patient(Box<dyn CdrStore>);

impl CdrStore for Patient {
    fn write<'a>(&'a self, batch: &'a [CdrRow]) -> Task<'a, usize> {
        Box::pin(patiently(move || self.0.write(batch)))
    }
    fn count(&self) -> Task<'_, u64> {
        Box::pin(patiently(move || self.0.count()))
    }
    fn read<'a>(&'a self, after: Option<&'a str>, max: usize) -> Task<'a, CdrPage> {
        Box::pin(patiently(move || self.0.read(after, max)))
    }
    fn back(&self, records: usize) -> Task<'_, Option<String>> {
        Box::pin(patiently(move || self.0.back(records)))
    }
}

/// Behind the back end's back.
async fn session(server: &Cassandra) -> Session {
    let profile = ExecutionProfile::builder().request_timeout(Some(Duration::from_secs(60))).build().into_handle();
    let builder = SessionBuilder::new().known_node(server.node()).default_execution_profile_handle(profile);
    builder.build().await.unwrap()
}

async fn cql(session: &Session, statements: &[&str]) {
    for s in statements {
        session.query_unpaged(*s, &[]).await.unwrap_or_else(|e| panic!("{s}: {e}"));
    }
}

/// A record; each number one of its own.
fn row(n: u128, flow: &str) -> CdrRow {
    CdrRow {
        key: (1_795_000_000_000_000 << 64) | n,
        call: CallId { shard: 1, slot: 2, generation: 3 },
        sip_call_id: format!("{n}@phone.example").into(),
        caller: format!("caller{n}").into(),
        received_unix_us: 1_795_000_000_123_000 + u64::try_from(n % 1000).unwrap() * 1000,
        wait_us: 1_500_000,
        pickup_us: 499_000,
        talk_us: 9_700_000,
        talk_s: 10,
        flow_id: flow.into(),
        agent_id: n.is_multiple_of(2).then(|| "ann".into()),
        call_type: if n.is_multiple_of(3) { -2 } else { 0 },
        rejected: 1,
        fstats: 7,
        cid: u64::try_from(n).unwrap(),
        media: 1,
        cause: 486,
        param: n.is_multiple_of(5).then(|| "order 5 \"ü\"".into()),
    }
}

fn rows(numbers: std::ops::Range<u128>, flow: &str) -> Vec<CdrRow> {
    numbers.map(|n| row(n, flow)).collect()
}

/// Everything after a place, in pages of about `max`; and the last place.
async fn read_on(store: &dyn CdrStore, mut place: Option<String>, max: usize) -> (Vec<CdrRow>, Option<String>) {
    let mut all = vec![];
    loop {
        let page = store.read(place.as_deref(), max).await.unwrap();
        all.extend(page.rows);
        match page.next {
            Some(next) => place = Some(next),
            None => return (all, place),
        }
    }
}

#[tokio::test]
async fn cassandra_does_what_every_back_end_does() {
    let next = std::cell::Cell::new(0);
    suite::suite(async || {
        next.set(next.get() + 1);
        shared().url(&format!("suite{}", next.get()))
    })
    .await;
}
