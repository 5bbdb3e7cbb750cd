//! Running the binary: a folder of its own for each test, a server that ends with the test.
#![allow(dead_code, reason = "each test binary uses its part")]

use serde_json::Value;
use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_strowger");

/// A folder with a database and a data directory in it.
pub struct Scene {
    dir: TempDir,
    pid: Cell<u32>,
}

impl Scene {
    pub fn new() -> Scene {
        Scene { dir: TempDir::new().unwrap(), pid: Cell::new(0) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
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
    pub ready: Value,
    mi: String,
}

impl Server {
    /// Starts one on free ports and waits for its ready line.
    pub fn start(scene: &Scene, more: &[&str]) -> Server {
        let args: Vec<&str> =
            ["run", "--listen", "udp:127.0.0.1:0", "--mi-http", "127.0.0.1:0"].iter().chain(more).copied().collect();
        let mut child = scene.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut log = String::new();
            child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
            panic!("no ready line: {log}");
        }
        let ready: Value = serde_json::from_str(&line).unwrap();
        let mi = format!("http://{}/mi", ready["mi_http"].as_str().unwrap());
        Server { child, ready, mi }
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
        let mut stderr = self.child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).map(|_| log).unwrap()
        });
        let began = Instant::now();
        while !log.is_finished() && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if !log.is_finished() {
            self.child.kill().unwrap();
        }
        let log = log.join().unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
