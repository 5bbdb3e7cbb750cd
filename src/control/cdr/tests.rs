//! The pipeline with a real database (SQLite) and a real disk.

use super::*;
use crate::config::{Config, Setting};
use crate::store::open_cdrs;
use crate::store::tests::cdr;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use strowger_runtime::post::{Post, post};

struct Bench {
    dir: tempfile::TempDir,
    cdrs: Post<Cdr>,
    counts: Arc<CdrCounts>,
    task: tokio::task::JoinHandle<()>,
    db: SqlitePool,
    marks: flume::Receiver<Mark>,
}

const SETTINGS: Settings = Settings { batch: 256, batch_time_us: 20_000, concurrency: 1, retry_max_us: 50_000 };

/// A pipeline to a real database in the folder, and another connection to that.
async fn bench_in(dir: tempfile::TempDir, settings: Settings) -> Bench {
    let path = dir.path().join("s.db");
    let url = Setting::parse(&format!("call_center.db_url=sqlite:{}", path.display())).unwrap();
    let store: Arc<dyn CdrStore> = open_cdrs(&Config::from_text("", "", &[url]).unwrap().config).await.unwrap().into();
    let db = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path)).await.unwrap();
    let (cdrs, mail) = post(10_000).unwrap();
    let counts = Arc::<CdrCounts>::default();
    let (spool, torn) = spool::open(&dir.path().join("spool"), 1 << 20).unwrap();
    let (safe, marks) = flume::unbounded();
    let parts = Parts {
        store,
        spool,
        torn,
        settings,
        refused_file: dir.path().join("refused.jsonl"),
        counts: Arc::clone(&counts),
    };
    let task = tokio::spawn(
        Pipeline::new(parts).run(Inbox::new(mail).unwrap(), Box::new(move |mark| safe.send(mark).unwrap())),
    );
    Bench { dir, cdrs, counts, task, db, marks }
}

async fn bench(settings: Settings) -> Bench {
    bench_in(tempfile::TempDir::new().unwrap(), settings).await
}

impl Bench {
    fn send(&self, keys: std::ops::Range<u128>) {
        keys.for_each(|key| self.cdrs.send(cdr(key, "x")).unwrap());
    }

    /// Holds the database until the connection is given back to [`unlock`].
    async fn lock(&self) -> sqlx::pool::PoolConnection<sqlx::Sqlite> {
        let mut lock = self.db.acquire().await.unwrap();
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut *lock).await.unwrap();
        lock
    }

    async fn stop(self) -> (tempfile::TempDir, SqlitePool) {
        drop(self.cdrs);
        tokio::time::timeout(Duration::from_secs(30), self.task).await.unwrap().unwrap();
        (self.dir, self.db)
    }
}

async fn unlock(mut lock: sqlx::pool::PoolConnection<sqlx::Sqlite>) {
    sqlx::query("COMMIT").execute(&mut *lock).await.unwrap();
}

async fn rows(db: &SqlitePool) -> i64 {
    sqlx::query_scalar::<_, i64>("SELECT count(*) FROM cc_cdrs").fetch_one(db).await.unwrap()
}

async fn until(what: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !what() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn everything_is_written_at_the_stop_and_a_part_of_a_batch_when_its_time_is_up() {
    let b = bench(SETTINGS).await;
    b.cdrs.send(cdr(1, "first")).unwrap();
    until(|| b.counts.written.load(Relaxed) == 1).await;
    (2..1001).for_each(|i| b.cdrs.send(cdr(i, "more")).unwrap());
    drop(b.cdrs);
    b.task.await.unwrap();
    assert_eq!((rows(&b.db).await, b.counts.written.load(Relaxed)), (1000, 1000));
}

#[tokio::test]
async fn a_full_batch_goes_out_at_once() {
    let b = bench(Settings { batch: 10, batch_time_us: 3_600_000_000, ..SETTINGS }).await;
    (0..10).for_each(|i| b.cdrs.send(cdr(i, "x")).unwrap());
    until(|| b.counts.written.load(Relaxed) == 10).await;
    b.cdrs.send(cdr(11, "late")).unwrap();
    drop(b.cdrs);
    b.task.await.unwrap();
    assert_eq!(rows(&b.db).await, 11);
}

#[tokio::test]
async fn while_the_database_is_locked_records_are_safe_in_the_spool_and_then_they_are_replayed() {
    let b = bench(SETTINGS).await;
    let lock = b.lock().await;
    b.send(1..51);
    until(|| b.counts.in_spool.load(Relaxed) == 50).await;
    assert_eq!((b.counts.written.load(Relaxed), b.counts.spooled.load(Relaxed)), (0, 50));
    until(|| b.counts.database_gone.load(Relaxed)).await;
    assert_eq!(b.marks.try_iter().last().map(|m| m.sequence), Some(50));
    b.send(51..61);
    until(|| b.counts.in_spool.load(Relaxed) == 60).await;
    unlock(lock).await;
    until(|| b.counts.replayed.load(Relaxed) == 60 && b.counts.in_spool.load(Relaxed) == 0).await;
    assert!(!b.counts.database_gone.load(Relaxed));
    assert_eq!((rows(&b.db).await, b.counts.refused.load(Relaxed)), (60, 0));
    let latency = b.counts.latency();
    assert_eq!((latency.durable.len(), latency.written.len()), (60, 0));
    b.send(61..62);
    until(|| b.counts.written.load(Relaxed) == 61).await;
    let (_dir, db) = b.stop().await;
    assert_eq!(rows(&db).await, 61);
}

#[tokio::test]
async fn a_stop_leaves_to_the_spool_what_a_locked_database_does_not_take_and_a_start_writes_it() {
    let b = bench(SETTINGS).await;
    let lock = b.lock().await;
    b.send(1..51);
    until(|| b.counts.in_spool.load(Relaxed) == 50).await;
    b.send(51..101);
    let began = Instant::now();
    let (dir, db) = b.stop().await;
    assert!(began.elapsed() < WRITE_LIMIT + Duration::from_secs(1), "{:?}", began.elapsed());
    unlock(lock).await;
    assert_eq!(rows(&db).await, 0);
    let b = bench_in(dir, SETTINGS).await;
    until(|| b.counts.replayed.load(Relaxed) == 100).await;
    let (_dir, db) = b.stop().await;
    assert_eq!(rows(&db).await, 100);
}

#[tokio::test]
async fn what_is_damaged_in_the_spool_is_set_aside_and_the_rest_is_replayed() {
    let dir = tempfile::TempDir::new().unwrap();
    let (mut spool, _) = spool::open(&dir.path().join("spool"), 1 << 20).unwrap();
    spool.append((1..=10).map(|key| CdrRow::from(&cdr(key, "x"))).collect::<Vec<_>>().iter()).unwrap();
    drop(spool);
    let segment = dir.path().join("spool/00000000000000000000.spool");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[300] ^= 1;
    bytes.truncate(bytes.len() - 1);
    std::fs::write(&segment, bytes).unwrap();
    let b = bench_in(dir, SETTINGS).await;
    until(|| b.counts.replayed.load(Relaxed) == 8).await;
    assert_eq!((b.counts.torn.load(Relaxed), b.counts.damaged.load(Relaxed)), (1, 1));
    let (dir, db) = b.stop().await;
    assert_eq!(rows(&db).await, 8);
    let lines = std::fs::read_to_string(dir.path().join("refused.jsonl")).unwrap();
    let whys: Vec<String> = lines
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["why"].as_str().unwrap().to_owned())
        .collect();
    assert!(whys.len() == 2 && whys.iter().all(|w| w.starts_with("damaged in the spool: ")), "{whys:?}");
}

#[tokio::test]
async fn a_record_that_the_database_refuses_is_set_aside_and_holds_up_no_other() {
    let b = bench(Settings { batch_time_us: 50_000, ..SETTINGS }).await;
    let trigger = "CREATE TRIGGER no BEFORE INSERT ON cc_cdrs WHEN NEW.caller = 'bad' BEGIN SELECT RAISE(ABORT, 'no bad ones'); END";
    sqlx::query(trigger).execute(&b.db).await.unwrap();
    (0..100).for_each(|i| b.cdrs.send(cdr(i, if i == 50 { "bad" } else { "good" })).unwrap());
    drop(b.cdrs);
    b.task.await.unwrap();
    assert_eq!(rows(&b.db).await, 99);
    assert_eq!((b.counts.written.load(Relaxed), b.counts.refused.load(Relaxed)), (99, 1));
    let line: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(b.dir.path().join("refused.jsonl")).unwrap()).unwrap();
    assert_eq!((line["caller"].as_str(), line["flow_id"].as_str()), (Some("bad"), Some("sales")));
    assert!(line["why"].as_str().unwrap().contains("no bad ones"), "{line}");
}
