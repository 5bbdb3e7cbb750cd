//! The CDR writer: batches by size and time, retries until the database takes them. Nothing is dropped.
//!
//! A record that the database refuses as bad is set aside in a file and counted; it holds up no other. While the
//! database fails, records wait here, in the channel, then on the shards, which refuse new calls before they lose one.

use crate::store::{CdrStore, StoreError};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use strowger_engine::{Cdr, CdrRow};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, timeout_at};

/// What has become of the records.
#[derive(Debug, Default)]
pub struct CdrCounts {
    /// In the hands of the database now.
    pub in_flight: AtomicU64,
    /// Rows written.
    pub written: AtomicU64,
    /// Batches tried again.
    pub retried: AtomicU64,
    /// Set aside in the file.
    pub refused: AtomicU64,
    /// Taken from the channel and not written yet.
    pub waiting: AtomicU64,
    /// Set when the process stops: a failing database is given [`LAST_TRIES`] more.
    pub stopping: AtomicBool,
}

/// How long a stopping process goes on trying a database that fails.
const LAST_TRIES: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Settings of the writer.
#[derive(Debug, Clone)]
pub struct WriterConfig {
    pub batch: usize,
    pub batch_time: Duration,
    pub retry_max: Duration,
    pub refused_file: PathBuf,
}

/// Writes what comes through the channel until it is closed and empty. `safe` is told the keys of records that are written or set
/// aside, in the order in which they came.
pub async fn run(
    cdrs: flume::Receiver<Cdr>,
    store: Arc<dyn CdrStore>,
    config: WriterConfig,
    counts: Arc<CdrCounts>,
    mut safe: impl FnMut(u128),
) {
    let mut writer = Writer { store, config, counts, tries_until: None };
    while let Ok(first) = cdrs.recv_async().await {
        let due = Instant::now() + writer.config.batch_time;
        let mut batch = Vec::with_capacity(writer.config.batch);
        batch.push(CdrRow::from(&first));
        while batch.len() < writer.config.batch {
            match timeout_at(due, cdrs.recv_async()).await {
                Ok(Ok(cdr)) => batch.push(CdrRow::from(&cdr)),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        writer.write(&batch).await;
        batch.iter().for_each(|cdr| safe(cdr.key));
    }
}

struct Writer {
    store: Arc<dyn CdrStore>,
    config: WriterConfig,
    counts: Arc<CdrCounts>,
    /// When the last tries of a stopping process end.
    tries_until: Option<Instant>,
}

impl Writer {
    async fn write(&mut self, batch: &[CdrRow]) {
        self.counts.waiting.store(batch.len() as u64, Relaxed);
        match self.until_taken(batch).await {
            Ok(()) => {}
            Err(Stuck::Refused(_)) if batch.len() > 1 => {
                for cdr in batch {
                    if let Err(why) = self.until_taken(std::slice::from_ref(cdr)).await {
                        self.set_aside(std::slice::from_ref(cdr), &why).await;
                    }
                }
            }
            Err(why) => self.set_aside(batch, &why).await,
        }
        self.counts.waiting.store(0, Relaxed);
    }

    /// Tries until the database has the batch, or refuses it, or there is no more time.
    async fn until_taken(&mut self, batch: &[CdrRow]) -> Result<(), Stuck> {
        let mut pause = FIRST_PAUSE;
        loop {
            self.counts.in_flight.store(batch.len() as u64, Relaxed);
            let result = self.store.write(batch).await;
            self.counts.in_flight.store(0, Relaxed);
            match result {
                Ok(_) => {
                    self.counts.written.fetch_add(batch.len() as u64, Relaxed);
                    return Ok(());
                }
                Err(StoreError::Refused(what)) => return Err(Stuck::Refused(what)),
                Err(error) => {
                    self.counts.retried.fetch_add(1, Relaxed);
                    tracing::warn!(%error, records = batch.len(), "CDRs not written; trying again");
                    if self.out_of_time() {
                        return Err(Stuck::Stopped(error.to_string()));
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(self.config.retry_max);
                }
            }
        }
    }

    fn out_of_time(&mut self) -> bool {
        if !self.counts.stopping.load(Relaxed) {
            return false;
        }
        Instant::now() >= *self.tries_until.get_or_insert_with(|| Instant::now() + LAST_TRIES)
    }

    async fn set_aside(&self, batch: &[CdrRow], why: &Stuck) {
        let path = &self.config.refused_file;
        let lines: String = batch.iter().map(|c| line(c, &why.to_string()) + "\n").collect();
        self.counts.refused.fetch_add(batch.len() as u64, Relaxed);
        match append(path, lines.as_bytes()).await {
            Ok(()) => tracing::error!(%why, records = batch.len(), file = %path.display(), "CDRs set aside"),
            // The log is the last place left.
            Err(error) => {
                tracing::error!(%why, %error, file = %path.display(), lines, "CDRs could not be set aside; here they are")
            }
        }
    }
}

/// Why a batch is not in the database.
#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error("refused by the database: {0}")]
    Refused(String),
    #[error("the database failed until the process stopped: {0}")]
    Stopped(String),
}

async fn append(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = tokio::fs::OpenOptions::new().create(true).append(true).open(path).await?;
    file.write_all(bytes).await?;
    file.sync_data().await
}

fn line(c: &CdrRow, why: &str) -> String {
    json!({
        "why": why, "key": format!("{:032x}", c.key), "call_id": c.call.to_string(), "sip_call_id": c.sip_call_id, "caller": c.caller,
        "received_us": c.received_unix_us, "wait_us": c.wait_us, "pickup_us": c.pickup_us, "talk_us": c.talk_us,
        "talk_time": c.talk_s, "flow_id": c.flow_id, "agent_id": c.agent_id,
        "call_type": c.call_type, "rejected": c.rejected, "fstats": c.fstats, "cid": c.cid, "media": c.media,
        "cause": c.cause, "param": c.param,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Setting};
    use crate::store::open_cdrs;
    use crate::store::tests::cdr;
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

    struct Bench {
        dir: tempfile::TempDir,
        cdrs: flume::Sender<Cdr>,
        counts: Arc<CdrCounts>,
        task: tokio::task::JoinHandle<()>,
        db: SqlitePool,
    }

    /// A writer on a real database, and another connection to it.
    async fn bench(batch: usize, batch_time: Duration) -> Bench {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("s.db");
        let url = Setting::parse(&format!("call_center.db_url=sqlite:{}", path.display())).unwrap();
        let store: Arc<dyn CdrStore> =
            open_cdrs(&Config::from_text("", "", &[url]).unwrap().config).await.unwrap().into();
        let db = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path)).await.unwrap();
        let (cdrs, rx) = flume::bounded(10_000);
        let counts = Arc::<CdrCounts>::default();
        let refused_file = dir.path().join("refused.jsonl");
        let config = WriterConfig { batch, batch_time, retry_max: Duration::from_millis(50), refused_file };
        let task = tokio::spawn(run(rx, store, config, Arc::clone(&counts), |_| {}));
        Bench { dir, cdrs, counts, task, db }
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
        let b = bench(256, Duration::from_millis(20)).await;
        b.cdrs.send(cdr(1, "first")).unwrap();
        until(|| b.counts.written.load(Relaxed) == 1).await;
        (2..1001).for_each(|i| b.cdrs.send(cdr(i, "more")).unwrap());
        drop(b.cdrs);
        b.task.await.unwrap();
        assert_eq!((rows(&b.db).await, b.counts.written.load(Relaxed)), (1000, 1000));
    }

    #[tokio::test]
    async fn a_full_batch_goes_out_at_once() {
        let b = bench(10, Duration::from_secs(3600)).await;
        (0..10).for_each(|i| b.cdrs.send(cdr(i, "x")).unwrap());
        until(|| b.counts.written.load(Relaxed) == 10).await;
        b.cdrs.send(cdr(11, "late")).unwrap();
        drop(b.cdrs);
        b.task.await.unwrap();
        assert_eq!(rows(&b.db).await, 11);
    }

    #[tokio::test]
    async fn a_locked_database_is_tried_until_it_gives_way() {
        let b = bench(256, Duration::from_millis(1)).await;
        let mut lock = b.db.acquire().await.unwrap();
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut *lock).await.unwrap();
        (0..50).for_each(|i| b.cdrs.send(cdr(i, "x")).unwrap());
        until(|| b.counts.retried.load(Relaxed) >= 1).await;
        assert_eq!(b.counts.written.load(Relaxed), 0);
        sqlx::query("COMMIT").execute(&mut *lock).await.unwrap();
        drop(lock);
        drop(b.cdrs);
        b.task.await.unwrap();
        assert_eq!((rows(&b.db).await, b.counts.refused.load(Relaxed)), (50, 0));
    }

    #[tokio::test]
    async fn a_record_that_the_database_refuses_is_set_aside_and_holds_up_no_other() {
        let b = bench(256, Duration::from_millis(50)).await;
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
}
