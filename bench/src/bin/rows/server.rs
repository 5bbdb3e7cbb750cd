//! The server as a process: a database of its own with flows and agents, start, metrics, orderly stop, the CDRs it wrote.

use crate::args::Options;
use crate::process::{Quota, held, signal, until};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A flow, and agents of a skill.
#[derive(Debug, Clone)]
pub struct Staff {
    pub flow: String,
    /// Skill that the flow's calls require.
    pub skill: String,
    /// Skill that the agents have.
    pub agents_skill: String,
    /// Agents are called this and a number from 1 on.
    pub name: String,
    pub agents: u32,
    /// ADDR:PORT of agents and media servers.
    pub agents_at: String,
    pub media_at: String,
}

/// How a server is run.
#[derive(Debug, Clone)]
pub struct How {
    /// The cores that it is held to.
    pub cores: String,
    pub shards: u16,
    /// Part of a core.
    pub quota: Option<f64>,
    pub sets: Vec<String>,
}

/// What a server is told where latency counts (README.md).
const SWIFT: [&str; 3] = ["shards.busy_poll_us=100", "shards.real_time=1", "shards.reserve_mb=1024"];

impl How {
    /// The same where latency counts more than some CPU and memory.
    pub fn swift(mut self) -> How {
        self.sets.splice(..0, SWIFT.map(str::to_owned));
        self
    }
}

/// A server that serves.
#[derive(Debug)]
pub struct Server {
    child: Child,
    quota: Option<Quota>,
    dir: tempfile::TempDir,
    mi: String,
}

/// A port of loopback that nobody has.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<SocketAddr, String> {
    let any = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    any.map_err(|e| format!("no free port: {e}"))
}

/// How long a server may take to start, and to stop.
const START: Duration = Duration::from_secs(120);

impl Server {
    /// Writes a new database and starts a server on it, which listens at `listen`.
    ///
    /// # Errors
    /// A program is missing, or the server says what is wrong.
    pub fn start(options: &Options, how: &How, listen: SocketAddr, staff: &[Staff]) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
        let settings = settings(options, how, listen, dir.path());
        provision(options, &settings, &dir.path().join("db"), staff)?;
        let log = dir.path().join("log");
        let errors = std::fs::File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let mut command = held(&how.cores, &options.under, &options.strowger);
        command.arg("run").args(&settings).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(|e| format!("setpriv (Debian's util-linux): {e}"))?;
        let mut line = String::new();
        let out = child.stdout.take();
        let read = out.map(|out| BufReader::new(out).read_line(&mut line));
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let Some(mi) = ready["mi_http"].as_str() else {
            let _ = child.kill();
            let _ = child.wait();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("the server did not start ({read:?}): {line}{said}"));
        };
        let mi = mi.to_owned();
        let mut this = Self { child, quota: None, dir, mi };
        this.quota = how.quota.map(|share| Quota::of(this.pid(), share)).transpose()?;
        Ok(this)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Values of a metric by shard, in the order of the shards; one value when it has no shards.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn metric(&self, name: &str) -> Result<Vec<f64>, String> {
        let mut text = String::new();
        let mut ask = || -> std::io::Result<()> {
            let mut tcp = TcpStream::connect(&self.mi)?;
            tcp.set_read_timeout(Some(Duration::from_secs(30)))?;
            tcp.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            tcp.read_to_string(&mut text).map(drop)
        };
        ask().map_err(|e| format!("no metrics from {}: {e}", self.mi))?;
        Ok(values(&text, name))
    }

    /// What a stage took in the time from now on: count, then p50, p90, p99, p99.9 and the most in microseconds.
    ///
    /// # Errors
    /// The server does not tell.
    pub fn latency(&self, options: &Options, stage: &str, time: Duration) -> Result<Vec<f64>, String> {
        let mut command = Command::new(&options.strowger);
        command.args(["latency", "--mi", &format!("http://{}/mi", self.mi), "--watch", &time.as_secs().to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("strowger latency: {e}"))?;
        let tables = child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok);
        // The first table is of the time before.
        let line = tables.filter(|line| line.split_whitespace().next() == Some(stage)).nth(1);
        let _ = child.kill();
        let _ = child.wait();
        line.and_then(|line| columns(&line)).ok_or_else(|| format!("no latency of {stage}"))
    }

    /// Has it refuse all new calls.
    ///
    /// # Errors
    /// It does not.
    pub fn drain(&self, options: &Options) -> Result<(), String> {
        let mut command = Command::new(&options.strowger);
        run(command.args(["drain", "on", "--mi", &format!("http://{}/mi", self.mi)])).map(drop)
    }

    /// Stops it when its calls have ended, and counts the CDRs that it wrote.
    ///
    /// # Errors
    /// It does not stop.
    pub fn stop(mut self) -> Result<u64, String> {
        signal(self.pid(), "TERM");
        let child = &mut self.child;
        until("the server's end", START, || child.try_wait().map(|s| s.is_some()).map_err(|e| e.to_string()))?;
        let count = sql(&self.dir.path().join("db"), "SELECT count(*) FROM cc_cdrs;")?;
        count.trim().parse().map_err(|_| format!("not a count of CDRs: {count}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.quota = None;
    }
}

fn settings(options: &Options, how: &How, listen: SocketAddr, dir: &std::path::Path) -> Vec<String> {
    let mut all = vec![
        "--data-dir".to_owned(),
        dir.display().to_string(),
        "--db".to_owned(),
        format!("sqlite:{}", dir.join("db").display()),
        "--listen".to_owned(),
        format!("udp:{listen}"),
        "--mi-http".to_owned(),
        "127.0.0.1:0".to_owned(),
        "--shards".to_owned(),
        how.shards.to_string(),
    ];
    for set in ["call_center.wrapup_time=0", "log.level=warn"].into_iter().map(str::to_owned) {
        all.extend(["--set".to_owned(), set]);
    }
    for set in how.sets.iter().chain(&options.sets) {
        all.extend(["--set".to_owned(), set.clone()]);
    }
    all
}

/// Tables and flows by the server's own command line; its agents, thousands of them, in one statement.
fn provision(options: &Options, settings: &[String], db: &PathBuf, staff: &[Staff]) -> Result<(), String> {
    run(Command::new(&options.strowger).args(["db", "init"]).args(settings))?;
    for Staff { flow, skill, agents_skill, name, agents, agents_at, media_at } in staff {
        let music = format!("sip:music@{media_at}");
        let flow = ["flow", "set", flow, "--skill", skill, "--message-queue", &music];
        run(Command::new(&options.strowger).args(flow).args(settings))?;
        sql(
            db,
            &format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {agents}) \
                 INSERT INTO cc_agents (agentid, location, logstate, skills) \
                 SELECT '{name}' || i, 'sip:{name}' || i || '@{agents_at}', 1, '{agents_skill}' FROM n;"
            ),
        )?;
    }
    Ok(())
}

fn sql(db: &PathBuf, script: &str) -> Result<String, String> {
    run(Command::new("sqlite3").arg(db).arg(script))
}

fn run(command: &mut Command) -> Result<String, String> {
    let name = format!("{:?}", command.get_program());
    let done = command.stdin(Stdio::null()).output().map_err(|e| format!("{name}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(format!("{name}: {}", text(&done.stderr))) }
}

/// Values of a metric in Prometheus' text format, in the order of its lines.
fn values(text: &str, name: &str) -> Vec<f64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let rest = if let Some(labels) = rest.strip_prefix('{') { labels.split_once('}')?.1 } else { rest };
        rest.strip_prefix(' ')?.trim().parse().ok()
    };
    text.lines().filter_map(value).collect()
}

/// The six figures behind the name of a line of `strowger latency`.
fn columns(line: &str) -> Option<Vec<f64>> {
    let figures = line.split_whitespace().skip(1).take(6).map(str::parse);
    figures.collect::<Result<Vec<f64>, _>>().ok().filter(|figures| figures.len() == 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_read_from_the_table() {
        let line = "dispatch                  264       48.9       85.6      126.5     9248.8     9248.8   an agent came free to ..";
        assert_eq!(columns(line).unwrap(), [264.0, 48.9, 85.6, 126.5, 9248.8, 9248.8]);
        assert_eq!(columns("dispatch 5 too few"), None);
    }

    #[test]
    fn metrics_are_read_by_shard() {
        let text = "# TYPE a counter\na{shard=\"0\"} 5\na{shard=\"1\"} 7\na_b 1\nb 2\n";
        assert_eq!(values(text, "a"), [5.0, 7.0]);
        assert_eq!(values(text, "b"), [2.0]);
        assert_eq!(values(text, "c"), [0.0; 0]);
    }
}
