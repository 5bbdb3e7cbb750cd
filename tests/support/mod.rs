//! Running the binary: a folder of its own for each test, a server that ends with the test.
#![allow(dead_code, reason = "each test binary uses its part")]

use serde_json::Value;
use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_strowger");

/// A folder with a database and a data directory in it.
pub struct Scene {
    dir: TempDir,
    pid: Cell<u32>,
    /// The processor's cores that it may use, as `taskset` takes them.
    cores: Option<&'static str>,
}

impl Scene {
    pub fn new() -> Scene {
        Scene { dir: TempDir::new().unwrap(), pid: Cell::new(0), cores: None }
    }

    /// One whose processes have these cores only.
    pub fn on_cores(cores: &'static str) -> Scene {
        Scene { cores: Some(cores), ..Scene::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.cores.map_or(BINARY, |_| "taskset"));
        command.args(self.cores.iter().flat_map(|cores| ["-c", cores, BINARY]));
        command.current_dir(self.dir.path()).args(args);
        if !args.contains(&"demo") {
            command.args(["--db", "sqlite:s.db"]);
        }
        // A server of somebody else on the usual port is not ours to talk to.
        if !args.contains(&"--mi-http") && !args.contains(&"--set") && !args.contains(&"demo") {
            command.args(["--mi-http", "127.0.0.1:1"]);
        }
        command
    }

    /// Runs to the end.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut child =
            self.command(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        self.pid.set(child.id());
        let _ = child.stdin.take();
        child.wait_with_output().unwrap()
    }

    /// Process id of the last run.
    pub fn last_pid(&self) -> u32 {
        self.pid.get()
    }

    /// Standard output of a run that must succeed.
    pub fn out(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(code(&out), 0, "{args:?}: {}{}", stdout(&out), stderr(&out));
        stdout(&out)
    }

    /// Changes the database behind the server's back.
    pub fn sql(&self, statement: &str) {
        let changed = self.on_database(async |db| sqlx::query(sqlx::AssertSqlSafe(statement)).execute(db).await);
        changed.unwrap();
    }

    /// The one number that a query gives.
    pub fn count(&self, query: &str) -> i64 {
        self.on_database(async |db| sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(db).await.unwrap())
    }

    /// Holds the database, so that nobody else can write, while `work` runs.
    pub fn locked(&self, work: impl FnOnce()) {
        self.on_database(async |db| {
            let mut lock = db.acquire().await.unwrap();
            let until = Instant::now() + Duration::from_secs(30);
            while let Err(busy) = sqlx::query("BEGIN EXCLUSIVE").execute(&mut *lock).await {
                assert!(Instant::now() < until, "{busy}");
            }
            work();
            sqlx::query("COMMIT").execute(&mut *lock).await.unwrap();
        });
    }

    fn on_database<T>(&self, work: impl AsyncFnOnce(&sqlx::sqlite::SqlitePool) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let url = format!("sqlite:{}", self.path("s.db").display());
            let db = sqlx::sqlite::SqlitePool::connect(&url).await.unwrap();
            let result = work(&db).await;
            db.close().await;
            result
        })
    }
}

pub fn code(out: &Output) -> i32 {
    out.status.code().unwrap_or(-1)
}

pub fn stdout(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    /// Where its log is, if that is a file.
    log: Option<PathBuf>,
    pub ready: Value,
    mi: String,
}

impl Server {
    /// Starts one on free ports and waits for its ready line.
    pub fn start(scene: &Scene, more: &[&str]) -> Server {
        Server::begin(scene, "127.0.0.1:0", more, None)
    }

    /// The same at that address, for a long life: its log goes to the end of that file of the scene.
    pub fn start_at(scene: &Scene, listen: &str, more: &[&str], log: &str) -> Server {
        Server::begin(scene, listen, more, Some(scene.path(log)))
    }

    fn begin(scene: &Scene, listen: &str, more: &[&str], log: Option<PathBuf>) -> Server {
        let listen = format!("udp:{listen}");
        let args: Vec<&str> =
            ["run", "--listen", &listen, "--mi-http", "127.0.0.1:0"].iter().chain(more).copied().collect();
        let file = log.as_ref().map(|path| File::options().create(true).append(true).open(path).unwrap());
        let stderr = file.map_or_else(Stdio::piped, Stdio::from);
        let mut child = scene.command(&args).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            panic!("no ready line: {}", told(log.as_deref(), child.stderr.take()));
        }
        let ready: Value = serde_json::from_str(&line).unwrap();
        let mi = format!("http://{}/mi", ready["mi_http"].as_str().unwrap());
        Server { child, log, ready, mi }
    }

    /// `ADDR:PORT` of its first listener.
    pub fn listen(&self) -> String {
        self.ready["listen"][0].as_str().unwrap().strip_prefix("udp:").unwrap().to_owned()
    }

    pub fn mi(&self) -> &str {
        &self.mi
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.http("POST", path, body)
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        self.http("GET", path, "")
    }

    /// By hand, so that nothing is between the test and the wire.
    fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.ready["mi_http"].as_str().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses a long body may close before it has all of it.
        let _ = stream.write_all(body.as_bytes());
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What `cdr_status` says.
    pub fn cdr_status(&self) -> Value {
        let body = self.post("/mi", r#"{"jsonrpc":"2.0","id":1,"method":"cdr_status"}"#).1;
        serde_json::from_str::<Value>(&body).unwrap()["result"].clone()
    }

    /// Waits until that says something, for three minutes at most.
    pub fn until_cdrs(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        let end = Instant::now() + Duration::from_secs(180);
        loop {
            let told = self.cdr_status();
            if holds(&told) {
                return;
            }
            assert!(Instant::now() < end, "not in time: {what}: {told}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM.
    pub fn signal(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Reads its log up to a line with these words.
    pub fn log_until(&mut self, words: &str) {
        let log = self.child.stderr.as_mut().unwrap();
        let mut line = vec![];
        while !String::from_utf8_lossy(&line).contains(words) {
            line.clear();
            let mut byte = [0];
            while byte != *b"\n" {
                assert_eq!(log.read(&mut byte).unwrap(), 1, "the log ended without `{words}`");
                line.extend(byte);
            }
        }
    }

    /// SIGTERM; its exit code and its log. One that does not stop in a minute is killed, and then has no exit code.
    pub fn terminate(mut self) -> (Option<i32>, String) {
        self.signal();
        let stderr = self.child.stderr.take();
        let reading = stderr.is_some();
        let log = std::thread::spawn(move || told(None, stderr));
        let began = Instant::now();
        let mut runs = || if reading { !log.is_finished() } else { self.child.try_wait().unwrap().is_none() };
        while runs() && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if runs() {
            self.child.kill().unwrap();
        }
        let log = log.join().unwrap() + &told(self.log.as_deref(), None);
        (self.child.wait().unwrap().code(), log)
    }
}

/// All of a log, from wherever it is.
fn told(file: Option<&Path>, pipe: Option<ChildStderr>) -> String {
    let mut log = file.map(|path| std::fs::read_to_string(path).unwrap()).unwrap_or_default();
    if let Some(mut pipe) = pipe {
        pipe.read_to_string(&mut log).unwrap();
    }
    log
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
