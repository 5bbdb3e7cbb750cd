//! The rows of calls: of a real engine's records, into a real table.

use super::records::Record;
use super::*;
use crate::config::{Config, Setting};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use strowger_dispatch::{ChatPolicy, Dispatch, Limits};
use strowger_engine::control::{CallState, Control};
use strowger_engine::journal::{Entity, Kind, Sink, unbundle};
use strowger_engine::registry::{AgentRow, FlowRow, Registry, RegistryLimits, Rows};
use strowger_engine::{BucketTable, CallConfig, Engine, EngineConfig, StatsHub};
use strowger_runtime::journal::{Bytes, Generation, Journal, prior};
use strowger_sip::endpoint::ListenerInfo;
use strowger_sip::hash::HashKey;
use strowger_sip::net::{ListenerId, Path, Transport};
use strowger_sip::time::{Mono, Now};
use tempfile::TempDir;

const BEGAN: u64 = 1_795_000_000;

/// An engine with the flow `sales` and the agent `ann`, who is logged out.
struct Scene {
    engine: Engine,
    registry: Registry,
    now: Now,
}

type Rec = Vec<u8>;

impl Record for Rec {
    fn peek(&self) -> Option<Bytes<'_>> {
        Some(self.as_slice().into())
    }

    fn read(&self) -> Option<Bytes<'_>> {
        self.peek()
    }
}

impl Sink for Book<Rec> {
    fn put(&mut self, entity: Entity, record: &[u8]) {
        Book::put(self, 0, entity, record.to_vec());
    }
    fn remove(&mut self, entity: Entity) {
        Book::remove(self, 0, entity);
    }
}

fn scene() -> Scene {
    let addr = "10.0.0.1:5060".to_owned();
    let listener = ListenerInfo { transport: Transport::Udp, via: addr.clone(), contact_host: addr };
    let config = EngineConfig {
        endpoint: Arc::new(EngineConfig::endpoint(vec![listener])),
        buckets: Arc::new(BucketTable::even(1)),
        key: HashKey(1, 2),
        call: CallConfig { reject_on_no_agents: false, ..CallConfig::default() },
    };
    let limits = Limits { shards: 1, agents: 8, waiting_per_shard: 1000, skills: 8 };
    let dispatch = Arc::new(Dispatch::new(limits, ChatPolicy::Balancing));
    let mut registry = Registry::new(dispatch.handle(1), RegistryLimits { flows: 8, skills: 8 });
    let text = |t: &str| Some(t.to_owned());
    let flow = FlowRow {
        flowid: text("sales"),
        skill: text("sell"),
        message_queue: text("sip:music@10.0.3.1"),
        ..FlowRow::default()
    };
    let agent = AgentRow {
        agentid: text("ann"),
        location: text("sip:ann@10.0.2.1"),
        skills: text("sell"),
        ..AgentRow::default()
    };
    let (provisioning, faults) = registry.load(&Rows { flows: vec![flow], agents: vec![agent] });
    assert_eq!(faults, []);
    while registry.commit(16, &mut vec![]) {}
    let stats = Arc::new(StatsHub::new(1, 8, 8));
    let now = Now { mono: Mono(1_000_000_000), unix_us: BEGAN * 1_000_000 };
    Scene { engine: Engine::new(Arc::new(config), 0, &dispatch, stats, provisioning, [7; 32], now), registry, now }
}

impl Scene {
    fn request(&mut self, method: &str, n: usize) {
        let text = format!(
            "{method} sip:sales@10.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.1.1:5060;branch=z9hG4bK-{n}\r\nMax-Forwards: 70\r\n\
             From: \"Carl {n}\" <sip:carl{n}@example.com>;tag=c{n}\r\nTo: <sip:sales@10.0.0.1:5060>\r\nCall-ID: call-{n}@test\r\n\
             CSeq: 1 {method}\r\nContact: <sip:carl@10.0.1.1>\r\nContent-Length: 0\r\n\r\n"
        );
        let from = Path::udp("10.0.1.1:5060".parse().unwrap(), ListenerId(0));
        self.engine.handle_datagram(self.now, from, text.as_bytes());
    }

    fn login(&mut self) {
        let agent = self.registry.agent("ann").unwrap();
        self.engine.handle_control(self.now, 1, Control::Login { agent, on: true });
    }

    fn pass(&mut self, seconds: u64) {
        let us = seconds * 1_000_000;
        self.now = Now { mono: self.now.mono.plus_us(us), unix_us: self.now.unix_us + us };
    }

    /// The turn is over.
    fn turn<S: Sink>(&mut self, sink: &mut S) {
        while self.engine.poll_transmit().is_some() {}
        self.engine.journal(self.now, sink);
    }
}

#[test]
fn a_row_shows_its_call_and_carries_all_its_records() {
    let (mut s, mut book) = (scene(), Book::<Rec>::default());
    s.request("INVITE", 1);
    s.turn(&mut book);
    let mut asked = vec![];
    let first = book.take(10, |flow| {
        asked.push(flow.to_owned());
        77
    });
    assert_eq!((first.over.len(), asked), (0, vec!["sales".to_owned()]));
    let [row] = &first.calls[..] else { panic!("{first:?}") };
    let shown = (row.state, row.media, row.rejections, &*row.caller_display, &*row.caller_user, &*row.flow_id);
    assert_eq!(shown, (CallState::Queued as u8, 0, 0, "Carl 1", "carl1", "sales"));
    assert_eq!((&*row.agent_id, &*row.param, row.estimated_wait_s, row.setup_s), ("", "", 77, 0));
    assert_eq!((row.received_unix_s, row.last_start_unix_s), (BEGAN, BEGAN));
    // The call, the caller's leg and the music's, the INVITEs of both.
    let kinds: Vec<Kind> = unbundle(&row.records).unwrap().iter().map(|(e, _)| e.kind).collect();
    let count = |kind| kinds.iter().filter(|k| **k == kind).count();
    assert_eq!([Kind::Call, Kind::Leg, Kind::Server, Kind::Client].map(count), [1, 2, 1, 1], "{kinds:?}");
    s.pass(5);
    s.login();
    s.turn(&mut book);
    let second = book.take(10, |_| 0);
    let [called] = &second.calls[..] else { panic!("{second:?}") };
    let shown = (called.state, &*called.agent_id, called.last_start_unix_s, called.estimated_wait_s);
    assert_eq!(shown, (CallState::ToAgent as u8, "ann", BEGAN + 5, 77));
    assert_eq!(called.id, row.id);
    assert!(book.take(10, |_| 0).is_empty(), "all is written");
}

#[test]
fn changes_between_two_batches_are_one_row_and_what_came_and_went_is_none() {
    let (mut s, mut book) = (scene(), Book::<Rec>::default());
    s.request("INVITE", 1);
    s.turn(&mut book);
    s.login();
    s.turn(&mut book);
    let batch = book.take(10, |_| 0);
    assert_eq!((batch.calls.len(), batch.calls[0].state), (1, CallState::ToAgent as u8));
    s.request("INVITE", 2);
    s.turn(&mut book);
    s.request("CANCEL", 2);
    s.turn(&mut book);
    assert!(book.take(10, |_| 0).is_empty());
    s.request("CANCEL", 1);
    s.turn(&mut book);
    assert_eq!(book.take(10, |_| 0), Batch { calls: vec![], over: vec![batch.calls[0].id.clone()] });
    assert!(book.take(10, |_| 0).is_empty());
}

#[test]
fn batches_are_bounded_and_one_that_failed_comes_back_as_things_are_then() {
    let (mut s, mut book) = (scene(), Book::<Rec>::default());
    (1..=25).for_each(|n| s.request("INVITE", n));
    s.turn(&mut book);
    let first = book.take(10, |_| 0);
    assert_eq!((first.calls.len(), book.behind()), (10, 15));
    s.request("CANCEL", 1);
    s.turn(&mut book);
    book.put_back(first.clone());
    let (mut ids, mut over) = (vec![], vec![]);
    for most in [10, 10, 10] {
        let batch = book.take(most, |_| 0);
        ids.extend(batch.calls.into_iter().map(|c| c.id));
        over.extend(batch.over);
    }
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), over), (24, vec![first.calls[0].id.clone()]));
    assert!(!ids.contains(&first.calls[0].id));
}

#[test]
fn while_the_database_is_away_memory_is_bounded_by_the_calls_that_there_are() {
    let (mut s, mut book) = (scene(), Book::<Rec>::default());
    let mut forgotten = 0;
    for n in 1..=3000 {
        s.request("INVITE", n);
        s.turn(&mut book);
        if n.is_multiple_of(3) {
            let failed = book.take(1, |_| 0);
            book.put_back(failed);
        }
        s.request("CANCEL", n);
        s.turn(&mut book);
        forgotten += usize::from(!book.trim(100));
        assert!(book.behind() <= 1024 + 102, "{} at {n}", book.behind());
    }
    assert!(forgotten > 3, "{forgotten}");
}

#[test]
fn rows_of_the_process_before_go_unless_their_calls_go_on() {
    let (mut s, mut book) = (scene(), Book::<Rec>::default());
    s.request("INVITE", 1);
    s.turn(&mut book);
    let ours = book.take(1, |_| 0).calls[0].id.clone();
    let mut fresh = Book::<Rec>::default();
    let mut everything = scene();
    everything.request("INVITE", 1);
    everything.turn(&mut fresh);
    let stale = |b: &mut Book<Rec>, ids: &[&str]| {
        let mut stale = b.in_table(ids.iter().map(|id| Box::from(*id)).collect());
        stale.sort();
        stale
    };
    let foreign = ["9.9.9", "B2B.1.2", "00.0.1"].map(Box::<str>::from);
    let mut expected = foreign.to_vec();
    expected.sort();
    assert_eq!(stale(&mut fresh, &[&foreign[0], &ours, &foreign[1], &foreign[2]]), expected);
    everything.request("CANCEL", 1);
    everything.turn(&mut fresh);
    assert_eq!(fresh.take(10, |_| 0).over, [ours], "it was there already, so it is removed");
}

/// A database in a file, and whoever else uses it.
struct Db {
    dir: TempDir,
}

impl Db {
    fn new() -> Db {
        Db { dir: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self) -> DbUrl {
        format!("sqlite:{}", self.path("s.db").display()).parse().unwrap()
    }

    async fn table(&self) -> Arc<dyn CallStore> {
        calls_at(&self.url(), Missing::Create).await.unwrap().into()
    }

    /// A connection on which this has been run.
    async fn run(&self, sql: &str) -> SqliteConnection {
        let mut db = SqliteConnectOptions::new().filename(self.path("s.db")).connect().await.unwrap();
        sqlx::query(AssertSqlSafe(sql)).execute(&mut db).await.unwrap();
        db
    }
}

/// A book kept in a table by [`run`], and the journal that it follows.
struct Desk {
    scene: Scene,
    journal: Journal,
    counts: Arc<RowCounts>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    _generation: Generation,
}

fn desk(table: Table, db: &Db) -> Desk {
    let settings = [format!("server.data_dir={}", db.dir.path().display()), "journal.segment_mb=1".to_owned()];
    let settings = settings.map(|s| Setting::parse(&s).unwrap());
    let spec = Config::from_text("", "", &settings).unwrap().config.journal_spec().unwrap();
    let before = prior(&spec.dir).unwrap();
    let (generation, _) = Generation::begin(spec, before, 1).unwrap();
    let follower = generation.follow();
    let journal = generation.journal(0, [AtomicU64::new(0)].into(), Arc::default()).unwrap();
    let counts = Arc::<RowCounts>::default();
    let (stop, stopped) = oneshot::channel();
    let pause = Duration::from_millis(5);
    let task = tokio::spawn(run(
        Parts { follower, table, pause, estimate: Box::new(|_| 7), counts: Arc::clone(&counts) },
        stopped,
    ));
    Desk { scene: scene(), journal, counts, stop, task, _generation: generation }
}

impl Desk {
    fn turn(&mut self) {
        self.scene.turn(&mut self.journal);
        self.journal.commit();
    }

    async fn until(&self, what: &str, check: impl AsyncFn() -> bool) {
        let wait = async {
            while !check().await {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("not in a minute: {what}"));
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn a_table_follows_the_calls_and_a_locked_one_catches_up_with_their_last_state() {
    let db = Db::new();
    let store = db.table().await;
    let before = {
        let (mut other, mut book) = (scene(), Book::<Rec>::default());
        other.request("INVITE", 9);
        other.turn(&mut book);
        OngoingCall { id: "7.7.7".into(), ..book.take(1, |_| 0).calls.remove(0) }
    };
    store.save(&[before], &[]).await.unwrap();
    let mut desk = desk(Table::Open(Arc::clone(&store)), &db);
    (1..=3).for_each(|n| desk.scene.request("INVITE", n));
    desk.turn();
    let states = async || {
        let mut rows: Vec<_> = store.load().await.unwrap().into_iter().map(|c| (c.caller_user, c.state)).collect();
        rows.sort();
        rows
    };
    let queued = |n: u32| (format!("carl{n}").into_boxed_str(), CallState::Queued as u8);
    let expected: Vec<_> = (1..=3).map(queued).collect();
    desk.until("three wait, and the row of the past is gone", async || states().await == expected).await;
    // Somebody has the database to himself; meanwhile calls come, change and go.
    let mut lock = db.run("BEGIN EXCLUSIVE").await;
    let retried = desk.counts.retried.load(Relaxed);
    desk.scene.request("CANCEL", 2);
    desk.scene.request("INVITE", 4);
    desk.turn();
    desk.until("a write fails", async || desk.counts.retried.load(Relaxed) > retried).await;
    desk.scene.request("CANCEL", 1);
    desk.scene.request("INVITE", 5);
    desk.turn();
    desk.scene.login();
    desk.turn();
    sqlx::query("COMMIT").execute(&mut lock).await.unwrap();
    let called = (Box::<str>::from("carl3"), CallState::ToAgent as u8);
    let expected = vec![called.clone(), queued(4), queued(5)];
    desk.until("it caught up", async || states().await == expected).await;
    desk.until("nothing is behind", async || desk.counts.behind.load(Relaxed) == 0).await;
    // What changes just before the stop is written, too.
    desk.scene.request("CANCEL", 4);
    desk.turn();
    desk.stop().await;
    assert_eq!(states().await, [called, queued(5)]);
}

#[tokio::test]
async fn a_database_that_is_not_there_at_the_start_is_opened_when_it_is() {
    let db = Db::new();
    let url: DbUrl = format!("sqlite:{}", db.path("later/s.db").display()).parse().unwrap();
    let mut desk = desk(Table::At(url.clone()), &db);
    desk.scene.request("INVITE", 1);
    desk.turn();
    desk.until("it is tried", async || desk.counts.retried.load(Relaxed) > 0).await;
    std::fs::create_dir(db.path("later")).unwrap();
    desk.until("it is written", async || desk.counts.written.load(Relaxed) > 0).await;
    let rows = calls_at(&url, Missing::Tell).await.unwrap().load().await.unwrap();
    assert_eq!((rows.len(), &*rows[0].caller_user), (1, "carl1"));
    desk.stop().await;
}

#[tokio::test]
async fn a_row_that_the_database_refuses_holds_up_no_other() {
    let db = Db::new();
    let store = db.table().await;
    let refuse = "CREATE TRIGGER no BEFORE INSERT ON cc_calls WHEN NEW.caller_un = 'carl2' BEGIN SELECT RAISE(ABORT, 'not him'); END";
    drop(db.run(refuse).await);
    let mut desk = desk(Table::Open(Arc::clone(&store)), &db);
    (1..=3).for_each(|n| desk.scene.request("INVITE", n));
    desk.turn();
    desk.until("two are written", async || desk.counts.written.load(Relaxed) == 2).await;
    assert_eq!(desk.counts.refused.load(Relaxed), 1);
    desk.stop().await;
    assert_eq!(store.load().await.unwrap().len(), 2);
}
