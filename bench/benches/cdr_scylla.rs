//! Records into a real Cassandra, on one core beside it: the bare driver with the same rows in the best batches (one
//! partition each, 100 rows, 32 in flight), and `CdrStore::write` as the writer of records calls it (256 records, several
//! writes under way). Fifteen rounds in turn; medians. Ours does more: it enters each write in the log for readers.

#[path = "../../tests/support/cassandra.rs"]
mod cassandra;

use cassandra::Cassandra;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use scylla::SerializeRow;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use std::time::Instant;
use strowger::store::{CdrStore, Missing, cdrs_at};
use strowger_engine::{CallId, CdrRow};

const RECORDS: u64 = 40_000;
const FLOWS: u64 = 4;
const ROUNDS: u64 = 15;
const WRITE: usize = 256;
const WRITES: usize = 16;
const BATCH: usize = 100;
const BATCHES: usize = 32;

fn main() {
    let server = Cassandra::start_with(&["-Xmx1G"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = cdrs_at(&server.url("bench").parse().expect("a URL"), Missing::Create).await.expect("a store");
        let bare = Bare::new(&server).await;
        // The first rounds let the server compile what it runs.
        for round in [900, 901] {
            ours(&*store, round).await;
            bare.write(round + 100).await;
        }
        let (mut rates, mut bare_rates) = (vec![], vec![]);
        for round in 0..ROUNDS {
            bare_rates.push(bare.write(round + 100).await);
            rates.push(ours(&*store, round).await);
            println!("round {round}: bare {:.0}/s, ours {:.0}/s", bare_rates[round as usize], rates[round as usize]);
        }
        let (bare, ours) = (median(bare_rates), median(rates));
        println!("bare driver {bare:.0} records/s, CdrStore {ours:.0} records/s: {:.0} %", ours / bare * 100.0);
    });
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// A record of 280 bytes or so; none of another round.
fn record(round: u64, n: u64) -> CdrRow {
    CdrRow {
        key: (u128::from(1_795_000_000_000_000 + round) << 64) | u128::from(n / FLOWS),
        call: CallId { shard: 1, slot: 2, generation: 3 },
        sip_call_id: format!("a84b4c76e66710-{round}-{n}@pbx.example.com").into(),
        caller: format!("caller-{n}").into(),
        received_unix_us: 1_795_000_000_123_000 + n * 100,
        wait_us: 1_500_000,
        pickup_us: 499_000,
        talk_us: 9_700_000,
        talk_s: 10,
        flow_id: format!("flow-{}", n % FLOWS).into(),
        agent_id: Some("agent-17".into()),
        call_type: 0,
        rejected: 1,
        fstats: 7,
        cid: n,
        media: 1,
        cause: 0,
        param: Some("order 5".into()),
    }
}

async fn ours(store: &dyn CdrStore, round: u64) -> f64 {
    let rows: Vec<CdrRow> = (0..RECORDS).map(|n| record(round, n)).collect();
    let began = Instant::now();
    let writes: Vec<_> = rows.chunks(WRITE).map(|batch| store.write(batch)).collect();
    stream::iter(writes).buffer_unordered(WRITES).try_for_each(|_| async { Ok(()) }).await.expect("they are written");
    RECORDS as f64 / began.elapsed().as_secs_f64()
}

/// The columns of a record, in the order of the table.
#[derive(SerializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct Row {
    flow_id: String,
    hour: i32,
    part: i16,
    received: CqlTimestamp,
    key: [u8; 16],
    call_id: String,
    sip_call_id: String,
    caller: String,
    wait_ms: i64,
    pickup_ms: i64,
    talk_ms: i64,
    talk_time: i64,
    agent_id: Option<String>,
    call_type: i8,
    rejected: i64,
    fstats: i16,
    cid: i64,
    media: i16,
    cause: i32,
    param: Option<String>,
    log_at: i64,
    log_writer: i64,
}

impl Row {
    fn of(c: CdrRow) -> Row {
        Row {
            flow_id: c.flow_id.into(),
            hour: i32::try_from(c.received_unix_us / 3_600_000_000).unwrap_or(0),
            part: i16::try_from((c.key & 0xffff_ffff) >> 10).unwrap_or(0),
            received: CqlTimestamp(c.received_unix_us.cast_signed() / 1000),
            key: c.key.to_be_bytes(),
            call_id: c.call.to_string(),
            sip_call_id: c.sip_call_id.into(),
            caller: c.caller.into(),
            wait_ms: c.wait_us.cast_signed() / 1000,
            pickup_ms: c.pickup_us.cast_signed() / 1000,
            talk_ms: c.talk_us.cast_signed() / 1000,
            talk_time: c.talk_s.into(),
            agent_id: c.agent_id.map(Into::into),
            call_type: c.call_type,
            rejected: c.rejected.into(),
            fstats: c.fstats.into(),
            cid: c.cid.cast_signed(),
            media: c.media.into(),
            cause: c.cause.into(),
            param: c.param.map(Into::into),
            log_at: 1_795_000_000_000_000,
            log_writer: 7,
        }
    }
}

/// The driver alone, on the store's table.
struct Bare {
    session: Session,
    insert: PreparedStatement,
}

impl Bare {
    async fn new(server: &Cassandra) -> Bare {
        let session = SessionBuilder::new().known_node(server.node()).build().await.expect("a session");
        let insert = "INSERT INTO bench.cc_cdrs (flow_id, hour, part, received, key, call_id, sip_call_id, caller, wait_ms, \
            pickup_ms, talk_ms, talk_time, agent_id, call_type, rejected, fstats, cid, media, cause, param, log_at, log_writer) \
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let mut insert = session.prepare(insert).await.expect("a statement");
        insert.set_consistency(Consistency::LocalQuorum);
        Bare { session, insert }
    }

    async fn write(&self, round: u64) -> f64 {
        let mut rows: Vec<Row> = (0..RECORDS).map(|n| Row::of(record(round, n))).collect();
        rows.sort_by(|a, b| (&a.flow_id, a.hour, a.part).cmp(&(&b.flow_id, b.hour, b.part)));
        let same = |a: &Row, b: &Row| (&a.flow_id, a.hour, a.part) == (&b.flow_id, b.hour, b.part);
        let began = Instant::now();
        let batches: Vec<_> =
            rows.chunk_by(same).flat_map(|group| group.chunks(BATCH)).map(|rows| self.send(rows)).collect();
        stream::iter(batches).buffer_unordered(BATCHES).collect::<()>().await;
        RECORDS as f64 / began.elapsed().as_secs_f64()
    }

    async fn send(&self, rows: &[Row]) {
        let statements = vec![BatchStatement::PreparedStatement(self.insert.clone()); rows.len()];
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_consistency(Consistency::LocalQuorum);
        batch.set_is_idempotent(true);
        self.session.batch(&batch, rows).await.expect("it is written");
    }
}
