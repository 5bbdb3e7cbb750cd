//! kill -9 of a process that writes CDRs, again and again, with its database locked half of the time: no record that it
//! called safe is lost, and none is in the database twice.

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use strowger::config::{Config, Setting};
use strowger::control::cdr::spool;
use strowger::control::cdr::{self, CdrCounts, Mark, Settings};
use strowger::control::mail::Inbox;
use strowger::store::open_cdrs;
use strowger_engine::cdr::{CallType, CdrMedia};
use strowger_engine::{CallId, Cdr, FlowDef};
use strowger_runtime::post::post;

const CHILD: &str = "STROWGER_CDR_CRASH";
const ROUNDS: u64 = 16;
/// Records that a round must have made safe before it is killed; more of them in some rounds.
const SAFE: u64 = 400;
/// Records a millisecond: faster ones would fill the spool with what the last round cannot write in good time.
const A_MILLISECOND: u64 = 10;

fn flow() -> Arc<FlowDef> {
    Arc::new(FlowDef { flowid: "sales".into(), ..FlowDef::default() })
}

fn record(sequence: u64, flow: &Arc<FlowDef>) -> Cdr {
    Cdr {
        key: u128::from(sequence),
        call: CallId { shard: 0, slot: 1, generation: 1 },
        sip_call_id: format!("{sequence}@test").into(),
        caller: "carl".into(),
        received_unix_us: 1_795_000_000_000_000,
        wait_us: 1,
        pickup_us: 1,
        talk_us: 1,
        talk_s: 1,
        flow: Arc::clone(flow),
        agent: None,
        call_type: CallType::Dropped,
        rejected: 0,
        fstats: 1,
        cid: sequence,
        media: CdrMedia::Audio,
        cause: 0,
        param: None,
    }
}

/// The pipeline on the folder: records from that number on, at their pace or slower, until `last`. Marks go to `told`.
async fn write_cdrs(dir: &Path, from: u64, last: Option<u64>, told: impl Fn(Mark) + Send + 'static) -> Arc<CdrCounts> {
    let url = Setting::parse(&format!("call_center.db_url=sqlite:{}", dir.join("s.db").display())).unwrap();
    let config = Config::from_text("", "", &[url]).unwrap().config;
    let (sender, mail) = post(64).unwrap();
    let (spool, torn) = spool::open(&dir.join("spool"), 50_000).unwrap();
    let counts = Arc::<CdrCounts>::default();
    let parts = cdr::Parts {
        store: open_cdrs(&config).await.unwrap().into(),
        spool,
        torn,
        settings: Settings { batch: 32, batch_time_us: 2000, concurrency: 2, retry_max_us: 20_000 },
        refused_file: dir.join("refused.jsonl"),
        counts: Arc::clone(&counts),
    };
    let pipeline = tokio::spawn(cdr::Pipeline::new(parts).run(Inbox::new(mail).unwrap(), Box::new(told)));
    let flow = flow();
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    for sequence in from..=last.unwrap_or(u64::MAX) {
        if sequence % A_MILLISECOND == 0 {
            pace.tick().await;
        }
        while sender.send(record(sequence, &flow)).is_err() {
            pace.tick().await;
        }
    }
    let until = Instant::now() + Duration::from_secs(60);
    while counts.in_spool.load(std::sync::atomic::Ordering::Relaxed) > 0 {
        assert!(Instant::now() < until, "the spool is not replayed: {:?} are left", counts.in_spool);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(sender);
    pipeline.await.unwrap();
    counts
}

/// What the child does: it says each mark, and ends by being killed.
fn child(dir: &Path, from: u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let say = |mark: Mark| {
        let mut out = std::io::stdout();
        let _ = writeln!(out, "safe {}", mark.sequence).and_then(|()| out.flush());
    };
    runtime.block_on(write_cdrs(dir, from, None, say));
}

fn start(dir: &Path, from: u64) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "no_kill_loses_a_safe_record_or_doubles_one", "--nocapture"]);
    command.env(CHILD, format!("{from}")).current_dir(dir);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

/// The next mark that the child says; none when it has ended.
fn next_mark(out: &mut impl BufRead) -> Option<u64> {
    loop {
        let mut line = String::new();
        if out.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(mark) = line.trim_end().strip_prefix("safe ").and_then(|m| m.parse().ok()) {
            return Some(mark);
        }
    }
}

#[test]
fn no_kill_loses_a_safe_record_or_doubles_one() {
    if let Ok(from) = std::env::var(CHILD) {
        return child(Path::new("."), from.parse().unwrap());
    }
    let dir = tempfile::TempDir::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // For connections that are dropped.
    let _inside = runtime.enter();
    let options = SqliteConnectOptions::new().filename(dir.path().join("s.db")).create_if_missing(true);
    let db = runtime.block_on(SqlitePool::connect_with(options)).unwrap();
    let mut safe = 0;
    for round in 0..ROUNDS {
        let (mut child, mut out) = start(dir.path(), safe + 1);
        let first = next_mark(&mut out).expect("a mark");
        safe = safe.max(first);
        let lock = (round % 2 == 1).then(|| {
            runtime.block_on(async {
                let mut lock = db.acquire().await.unwrap();
                let until = Instant::now() + Duration::from_secs(30);
                while sqlx::query("BEGIN EXCLUSIVE").execute(&mut *lock).await.is_err() {
                    assert!(Instant::now() < until, "the database is never free");
                }
                lock
            })
        });
        let goal = safe + SAFE * (1 + round % 3);
        while safe < goal {
            safe = next_mark(&mut out).expect("the child lives").max(safe);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before the end holds, too.
        while let Some(mark) = next_mark(&mut out) {
            safe = safe.max(mark);
        }
        if let Some(mut lock) = lock {
            runtime.block_on(sqlx::query("COMMIT").execute(&mut *lock)).unwrap();
        }
    }
    let counts = runtime.block_on(write_cdrs(dir.path(), safe + 1, Some(safe + 10), |_| {}));
    assert_eq!(counts.refused.load(std::sync::atomic::Ordering::Relaxed), 0);
    let left = spool::open(&dir.path().join("spool"), 50_000).unwrap().0.left();
    assert_eq!(left, 0, "records are in the spool still");
    let one = |query: &'static str| runtime.block_on(sqlx::query_scalar::<_, i64>(query).fetch_one(&db)).unwrap();
    let rows = one("SELECT count(*) FROM cc_cdrs");
    assert_eq!(rows, one("SELECT count(DISTINCT cid) FROM cc_cdrs"), "a record is there twice");
    // Beyond what was called safe there may be what was written and not told.
    let lost = format!("{} of {}", one("SELECT count(DISTINCT cid) FROM cc_cdrs WHERE cid >= 1"), safe + 10);
    let there =
        one("SELECT count(*) FROM (SELECT cid, row_number() OVER (ORDER BY cid) AS n FROM cc_cdrs) WHERE cid = n");
    assert!(there >= i64::try_from(safe + 10).unwrap(), "records are missing: {lost}");
}
