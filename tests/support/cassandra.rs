//! A real Apache Cassandra: a server of its own for whoever asks, on free ports, with its data in a scratch folder. It dies
//! with the process that started it, however that ends.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// On a busy machine a start takes half a minute.
const START: Duration = Duration::from_secs(180);

pub struct Cassandra {
    dir: TempDir,
    port: u16,
    storage_port: u16,
    more: Vec<String>,
    running: Option<(u32, JoinHandle<()>)>,
}

impl Cassandra {
    /// Started and ready. It compiles little, for tests are short.
    pub fn start() -> Cassandra {
        Cassandra::start_with(&["-Xmx640M", "-XX:TieredStopAtLevel=1"])
    }

    /// With these options of the JVM.
    pub fn start_with(more: &[&str]) -> Cassandra {
        let more: Vec<String> = more.iter().map(|m| (*m).to_owned()).collect();
        // Somebody else may take a port before it does.
        for _ in 0..3 {
            let (port, storage_port) = (free_port(), free_port());
            let dir = TempDir::new().unwrap();
            let mut server = Cassandra { dir, port, storage_port, more: more.clone(), running: None };
            if server.launch() {
                return server;
            }
        }
        panic!("Cassandra could not be started");
    }

    /// `scylla:` URL of a keyspace.
    pub fn url(&self, keyspace: &str) -> String {
        format!("scylla://127.0.0.1:{}/{keyspace}", self.port)
    }

    pub fn node(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it as a crash does.
    pub fn kill(&mut self) {
        if let Some((pid, waiter)) = self.running.take() {
            signal(pid, "KILL");
            let _ = waiter.join();
        }
    }

    /// Starts it again on its data; returns when it answers.
    pub fn restart(&mut self) {
        assert!(self.launch(), "Cassandra did not start again");
    }

    /// It does nothing until [`Cassandra::thaw`], but its connections stay.
    pub fn freeze(&self) {
        self.running.iter().for_each(|(pid, _)| signal(*pid, "STOP"));
    }

    pub fn thaw(&self) {
        self.running.iter().for_each(|(pid, _)| signal(*pid, "CONT"));
    }

    fn launch(&mut self) -> bool {
        let mut command = self.command();
        let (said, pid) = channel();
        // The death of the thread that started it would be its end: this one lives as long as it does.
        let waiter = spawn(move || {
            let mut child = command.spawn().expect("setpriv and java are installed");
            said.send(child.id()).unwrap();
            child.wait().unwrap();
        });
        self.running = Some((pid.recv().unwrap(), waiter));
        let began = Instant::now();
        while !self.answers() {
            let gone = self.running.as_ref().is_none_or(|(_, waiter)| waiter.is_finished());
            if gone || began.elapsed() > START {
                eprintln!("Cassandra did not start:\n{}", self.log_tail());
                self.kill();
                return false;
            }
            sleep(Duration::from_millis(100));
        }
        true
    }

    fn command(&self) -> Command {
        let (files, data) = (root().join("tests/cassandra"), self.dir.path().join("data"));
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "java"])
            .arg(format!("@{}", files.join("jvm.options").display()))
            .args(&self.more)
            .arg("-cp")
            .arg(format!("{}/*", jars().display()))
            .arg(format!("-Dlogback.configurationFile={}", files.join("logback.xml").display()))
            .arg(format!("-Dcassandra.config=file://{}", files.join("cassandra.yaml").display()))
            .arg(format!("-Dcassandra.storagedir={}", data.display()))
            .arg(format!("-Dcassandra.native_transport_port={}", self.port))
            .arg(format!("-Dcassandra.storage_port={}", self.storage_port))
            .args(["-Dcassandra-foreground=yes", "org.apache.cassandra.service.CassandraDaemon"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    /// Whether it answers an OPTIONS request of CQL's protocol 4 by SUPPORTED.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let mut head = [0; 5];
        let asked = stream.write_all(&[4, 0, 0, 0, 5, 0, 0, 0, 0]);
        asked.and_then(|()| stream.read_exact(&mut head)).is_ok() && head == [0x84, 0, 0, 0, 6]
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Cassandra {
    fn drop(&mut self) {
        self.kill();
    }
}

fn signal(pid: u32, name: &str) {
    let done = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(done.unwrap().success(), "kill -{name} {pid}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    if own.join("tests/cassandra").is_dir() { own.to_owned() } else { own.parent().unwrap().to_owned() }
}

/// Where `tests/cassandra/setup` puts the jars; it is run where they are missing.
fn jars() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // TARGET/PROFILE/deps/TEST
    let target = test.ancestors().nth(3).expect("tests run in a target directory");
    let done = Command::new(root().join("tests/cassandra/setup")).env("CARGO_TARGET_DIR", target).status();
    assert!(done.is_ok_and(|d| d.success()), "tests/cassandra/setup failed; it wants java 17 and mvn (see there)");
    target.join("cassandra/lib")
}
