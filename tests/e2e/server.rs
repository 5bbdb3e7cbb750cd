//! A real server process on free ports, provisioned through its own command line, with its database at hand.

use serde_json::{Value, json};
use sqlx::{Connection, Row, SqliteConnection};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_strowger");

pub struct Server {
    child: Child,
    dir: TempDir,
    settings: Vec<String>,
    pub sip: SocketAddr,
    pub mi: String,
}

/// One row of `cc_cdrs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdrRow {
    pub call_type: i64,
    pub agent: Option<String>,
    pub fstats: i64,
    pub rejected: i64,
    pub wait: i64,
    pub pickup: i64,
    pub talk: i64,
}

impl Server {
    /// Starts with these settings (`section.key=value`).
    pub fn start(settings: &[&str]) -> Server {
        Server::start_with("", settings)
    }

    /// The same with a configuration file.
    pub fn start_with(file: &str, settings: &[&str]) -> Server {
        let dir = tempfile::tempdir().expect("a scratch folder");
        std::fs::write(dir.path().join("strowger.toml"), file).expect("a file");
        let settings = settings.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let any = "127.0.0.1:0".parse().expect("an address");
        let (child, sip, mi) = launch(dir.path(), any, 2, &settings);
        Server { child, dir, settings, sip, mi }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().expect("a signal to a living child");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM; the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        self.child.wait().expect("it ends").code()
    }

    /// What a new disk, or another machine, has of it: nothing.
    pub fn lose_journal(&self) {
        std::fs::remove_dir_all(self.dir.path().join("journal")).expect("there was one");
    }

    /// URL of its database.
    pub fn database(&self) -> String {
        format!("sqlite:{}", self.dir.path().join("e2e.db").display())
    }

    /// A metric without labels.
    pub fn metric(&self, name: &str) -> i64 {
        let page = self.mi.replace("/mi", "/metrics");
        let text = ureq::get(&page).call().expect("the page").body_mut().read_to_string().expect("text");
        let line =
            text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{name}"));
        line.parse::<f64>().expect("a number") as i64
    }

    /// A setting of the next process.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.retain(|s| s.split('=').next() != Some(key));
        self.settings.push(format!("{key}={value}"));
    }

    /// A new process in the place of one that has ended; how long it took to serve.
    pub fn start_again(&mut self, shards: u16) -> Duration {
        let began = Instant::now();
        (self.child, self.sip, self.mi) = launch(self.dir.path(), self.sip, shards, &self.settings);
        began.elapsed()
    }

    /// Changes the database behind the server's back.
    pub fn sql(&self, statements: &[String]) {
        self.on_database(async |db| {
            let mut tx = db.begin().await.expect("a transaction");
            for statement in statements {
                sqlx::query(sqlx::AssertSqlSafe(statement.as_str())).execute(&mut *tx).await.expect(statement);
            }
            tx.commit().await.expect("it commits");
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs the command line against this server's database and management interface.
    pub fn cli(&self, args: &[&str]) -> String {
        let out = Command::new(BINARY)
            .args(args)
            .args(["--mi", &self.mi])
            .arg("--db")
            .arg(self.database())
            .current_dir(self.dir.path())
            .output()
            .expect("the command runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
        text
    }

    pub fn flow(&self, id: &str, skill: &str, media: &str, more: &[&str]) {
        self.cli(&[&["flow", "set", id, "--skill", skill, "--message-queue", media], more].concat());
    }

    pub fn agent(&self, id: &str, skills: &str, location: &str, logged_in: bool) {
        let state = if logged_in { "1" } else { "0" };
        self.cli(&["agent", "set", id, "--skills", skills, "--location", location, "--logstate", state]);
    }

    /// A management command's result.
    pub fn mi(&self, method: &str, params: Value) -> Value {
        let ask = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut answer = ureq::post(&self.mi).send_json(&ask).expect("the management interface answers");
        let answer: Value = answer.body_mut().read_json().expect("JSON");
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    pub fn statistic(&self, name: &str) -> i64 {
        let all = self.mi("get_statistics", json!([[name]]));
        all.as_object()
            .and_then(|m| m.values().next())
            .and_then(Value::as_i64)
            .unwrap_or_else(|| panic!("{name}: {all}"))
    }

    pub fn agent_state(&self, id: &str) -> String {
        let agents = self.mi("cc_list_agents", json!([]));
        let agents = agents["Agents"].as_array().cloned().unwrap_or_default();
        let agent = agents.iter().find(|a| a["id"] == json!(id)).unwrap_or_else(|| panic!("no {id} in {agents:?}"));
        agent.get("State").and_then(Value::as_str).unwrap_or("logged out").to_owned()
    }

    /// Waits until `check` holds; the deadline is generous, for a loaded machine.
    #[track_caller]
    pub fn until(&self, what: &str, mut check: impl FnMut(&Server) -> bool) {
        let start = Instant::now();
        while !check(self) {
            assert!(start.elapsed() < Duration::from_secs(60), "not in a minute: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for `count` records; returns all, in order of writing.
    #[track_caller]
    pub fn cdrs(&self, count: usize) -> Vec<CdrRow> {
        let mut rows = Vec::new();
        self.until(&format!("{count} records"), |s| {
            rows = s.cdr_rows();
            rows.len() >= count
        });
        assert_eq!(rows.len(), count, "{rows:?}");
        rows
    }

    fn on_database<T>(&self, work: impl AsyncFnOnce(&mut SqliteConnection) -> T) -> T {
        let url = self.database();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut db = SqliteConnection::connect(&url).await.expect("the database opens");
            work(&mut db).await
        })
    }

    fn cdr_rows(&self) -> Vec<CdrRow> {
        self.on_database(async |db| {
            let sql = "SELECT call_type, agent_id, fstats, rejected, wait_time, pickup_time, talk_time FROM cc_cdrs ORDER BY id";
            let rows = sqlx::query(sql).fetch_all(db).await.expect("cc_cdrs is readable");
            let row = |r: &sqlx::sqlite::SqliteRow| CdrRow {
                call_type: r.get(0),
                agent: r.get(1),
                fstats: r.get(2),
                rejected: r.get(3),
                wait: r.get(4),
                pickup: r.get(5),
                talk: r.get(6),
            };
            rows.iter().map(row).collect()
        })
    }

    /// Nothing is left: no call, no gauge up, every agent idle.
    #[track_caller]
    pub fn assert_rest(&self, agents: &[&str]) {
        self.until("no calls left", |s| {
            s.mi("cc_list_calls", json!([]))["Calls"].as_array().is_some_and(Vec::is_empty)
        });
        assert_eq!(self.statistic("ccg_onhold_calls"), 0);
        for agent in agents {
            self.until("agent idle", |s| matches!(s.agent_state(agent).as_str(), "free" | "wrapup" | "logged out"));
        }
    }

    /// SIGTERM, and the exit code.
    pub fn stop(self) -> i32 {
        self.stop_and_read().0
    }

    /// SIGTERM; the exit code, and all records.
    pub fn stop_and_read(mut self) -> (i32, Vec<CdrRow>) {
        (self.terminate().unwrap_or(-1), self.cdr_rows())
    }

    /// Memory of its own that is resident, in KiB; without the journal's mapped segments, which are the disk's and come and go.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|l| l.starts_with("RssAnon")).expect("RssAnon");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    }
}

/// Starts the binary; the process, and where it listens for SIP and for management.
fn launch(dir: &Path, listen: SocketAddr, shards: u16, settings: &[String]) -> (Child, SocketAddr, String) {
    let mut command = Command::new(BINARY);
    command
        .args([
            "run",
            "--mi-http",
            "127.0.0.1:0",
            "--listen",
            &format!("udp:{listen}"),
            "--shards",
            &shards.to_string(),
        ])
        .arg("--data-dir")
        .arg(dir)
        .arg("--db")
        .arg(format!("sqlite:{}", dir.join("e2e.db").display()))
        // A busy test machine may stall for longer than a carrier would accept.
        .args(["--set", "sip.overload_max_age_ms=10000", "--set", "journal.segment_mb=1"])
        .args(settings.iter().flat_map(|s| ["--set", s]))
        .stdout(Stdio::piped())
        .current_dir(dir);
    let mut child = command.spawn().expect("the server starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its ready line");
    let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("ready line {line:?}: {e}"));
    assert_eq!(ready["ready"], json!(true));
    let sip = ready["listen"][0].as_str().expect("a listener").trim_start_matches("udp:").to_owned();
    let mi = ready["mi_http"].as_str().expect("mi address").to_owned();
    let mi = if mi.starts_with("http") { mi } else { format!("http://{mi}/mi") };
    (child, sip.parse().expect("an address"), mi)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
