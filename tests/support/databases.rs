//! Real database servers from Debian's packages, private to a test: own data, own port, own socket; gone with the test.
//!
//! They are children that die with the thread that started them (a thread kept for that), so a test that is killed
//! leaves none behind; folders of dead tests are removed by the next. PostgreSQL refuses to run as root: it gets the
//! user `postgres` or `nobody`. Each server can be frozen, killed and started again on its data.
#![allow(dead_code, reason = "each test binary uses its part")]

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);
const PREFIX: &str = "strowger-db-";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Mariadb,
    Postgres,
}

/// A server of one test, or of all tests of this binary.
#[derive(Debug)]
pub struct Database {
    kind: Kind,
    folder: PathBuf,
    port: u16,
    process: Option<Process>,
}

/// A child; its death by the kernel when the thread that started it ends.
#[derive(Debug)]
struct Process {
    child: Child,
    _parent: mpsc::Sender<()>,
}

static MARIADB: OnceCell<Database> = OnceCell::const_new();
static POSTGRES: OnceCell<Database> = OnceCell::const_new();

/// The server that the tests of this binary share; it goes with the process.
pub async fn shared(kind: Kind) -> &'static Database {
    match kind {
        Kind::Mariadb => MARIADB.get_or_init(|| Database::start(kind)).await,
        Kind::Postgres => POSTGRES.get_or_init(|| Database::start(kind)).await,
    }
}

impl Database {
    /// A new, empty server.
    pub async fn start(kind: Kind) -> Database {
        let mut database = Database { kind, folder: folder(), port: 0, process: None };
        database.initialise();
        database.run().await;
        if kind == Kind::Mariadb {
            let mut c = database.mariadb(None).await.unwrap();
            let sql =
                "CREATE USER strowger@'%' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO strowger@'%' WITH GRANT OPTION";
            sqlx::raw_sql(sql).execute(&mut c).await.unwrap();
        }
        database
    }

    fn initialise(&self) {
        let owner = owner(self.kind);
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(&self.folder, Some(uid), Some(gid)).unwrap();
        }
        let data = self.folder.join("data");
        let mut command = match self.kind {
            Kind::Mariadb => {
                let mut c = run_as(owner, "mariadb-install-db");
                c.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
                c.args(["--innodb-log-file-size=16M", "--user=root"]).arg(format!("--datadir={}", data.display()));
                c.arg(self.temporary());
                c
            }
            Kind::Postgres => {
                let mut c = run_as(owner, &postgres("initdb"));
                c.args(["--no-sync", "--auth=trust", "--username=strowger", "--encoding=UTF8", "--locale=C"]);
                c.arg("--pgdata").arg(data);
                c
            }
        };
        let out = command.output().unwrap_or_else(|e| panic!("{e}; {}", package(self.kind)));
        let told = || format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{}", told());
    }

    /// Starts the server on its data, at its port or a free one, and waits until it takes statements.
    pub async fn run(&mut self) {
        let again = self.port != 0;
        for _ in 0..5 {
            if !again {
                self.port = free_port();
            }
            self.process = Some(Process::start(self.command(), self.kind));
            let began = Instant::now();
            while !self.answers().await {
                if self.process.as_mut().is_some_and(|p| p.child.try_wait().unwrap().is_some()) {
                    break;
                }
                assert!(began.elapsed() < START, "{:?} does not start: {}", self.kind, self.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if self.answers().await {
                return;
            }
            // Somebody else may have taken the port in between.
            assert!(!again && self.log().contains("in use"), "{:?} ended: {}", self.kind, self.log());
        }
        panic!("no free port for {:?}", self.kind);
    }

    fn command(&self) -> Command {
        let (data, socket) = (self.folder.join("data"), self.folder.join("socket"));
        let mut command = match self.kind {
            Kind::Mariadb => {
                let mut c = run_as(owner(self.kind), "mariadbd");
                c.args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--skip-log-bin"]);
                c.args(["--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M", "--max-connections=200"]);
                c.arg(format!("--datadir={}", data.display())).arg(format!("--socket={}", socket.display()));
                c.arg(self.temporary())
                    .arg(format!("--port={}", self.port))
                    .arg(format!("--pid-file={}.pid", socket.display()));
                c
            }
            Kind::Postgres => {
                let mut c = run_as(owner(self.kind), &postgres("postgres"));
                c.arg("-D").arg(data).arg("-k").arg(&self.folder);
                c.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-c", "max_connections=200"]);
                c
            }
        };
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// A MariaDB that starts removes what it finds of temporary tables, another's as well.
    fn temporary(&self) -> String {
        format!("--tmpdir={}", self.folder.display())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    async fn answers(&self) -> bool {
        let connecting = async {
            match self.kind {
                Kind::Mariadb => self.mariadb(None).await.is_ok(),
                Kind::Postgres => self.postgres("postgres").await.is_ok(),
            }
        };
        tokio::time::timeout(Duration::from_secs(1), connecting).await.unwrap_or(false)
    }

    /// As root, through the socket.
    async fn mariadb(&self, database: Option<&str>) -> Result<MySqlConnection, sqlx::Error> {
        let options = MySqlConnectOptions::new().socket(self.folder.join("socket")).username("root");
        database.map_or(options.clone(), |d| options.database(d)).disable_statement_logging().connect().await
    }

    async fn postgres(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::new().host("127.0.0.1").port(self.port).username("strowger").database(database);
        options.disable_statement_logging().connect().await
    }

    /// Makes an empty database; its URL.
    pub async fn create(&self, name: &str) -> String {
        match self.kind {
            Kind::Mariadb => self.script(None, &[&format!("CREATE DATABASE `{name}`")]).await,
            Kind::Postgres => self.script(None, &[&format!("CREATE DATABASE \"{name}\"")]).await,
        }
        self.url(name)
    }

    /// A new database of a name that no other has; its URL.
    pub async fn fresh(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        self.create(&format!("t{}", NEXT.fetch_add(1, Relaxed))).await
    }

    pub fn url(&self, name: &str) -> String {
        match self.kind {
            Kind::Mariadb => format!("mysql://strowger:secret@127.0.0.1:{}/{name}", self.port),
            Kind::Postgres => format!("postgres://strowger:secret@127.0.0.1:{}/{name}", self.port),
        }
    }

    /// Runs statements as the administrator.
    pub async fn script(&self, database: Option<&str>, statements: &[&str]) {
        match self.kind {
            Kind::Mariadb => {
                let mut c = self.mariadb(database).await.unwrap();
                for sql in statements {
                    sqlx::raw_sql(AssertSqlSafe(*sql)).execute(&mut c).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
                }
            }
            Kind::Postgres => {
                let mut c = self.postgres(database.unwrap_or("postgres")).await.unwrap();
                for sql in statements {
                    sqlx::raw_sql(AssertSqlSafe(*sql)).execute(&mut c).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
                }
            }
        }
    }

    /// Every process of the server stops where it is (SIGSTOP).
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// They go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// As a power cut does it to the process (SIGKILL). [`Database::run`] starts it again.
    pub fn kill(&mut self) {
        self.signal("-KILL");
        if let Some(mut process) = self.process.take() {
            process.child.wait().unwrap();
        }
    }

    /// To the server and to what it has forked.
    fn signal(&self, signal: &str) {
        let Some(process) = &self.process else { return };
        let mut told: Vec<u32> = vec![];
        // One that is forked meanwhile is found by the next look.
        loop {
            let new: Vec<u32> = family(process.child.id()).into_iter().filter(|p| !told.contains(p)).collect();
            if new.is_empty() {
                return;
            }
            let pids: Vec<String> = new.iter().map(u32::to_string).collect();
            let _ = Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status();
            told.extend(new);
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Process {
    fn start(mut command: Command, kind: Kind) -> Process {
        let (parent, alive) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            tell.send(command.spawn()).unwrap();
            let _ = alive.recv();
        });
        let child = told.recv().unwrap().unwrap_or_else(|e| panic!("{e}; {}", package(kind)));
        Process { child, _parent: parent }
    }
}

fn root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// The user that the server runs as, where it is not ours.
fn owner(kind: Kind) -> Option<(u32, u32)> {
    if !root() || kind == Kind::Mariadb {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let id = |name: &str| {
        let fields: Vec<&str> = users.lines().map(|l| l.split(':').collect()).find(|f: &Vec<&str>| f[0] == name)?;
        Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
    };
    id("postgres").or_else(|| id("nobody"))
}

fn run_as(owner: Option<(u32, u32)>, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some((uid, gid)) = owner {
        command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"]);
    }
    // Servers and their tools are where a plain user's PATH does not reach.
    let path = std::env::var("PATH").unwrap_or_default();
    command.arg(program).env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin")).env("LC_ALL", "C");
    command
}

/// A program of the newest PostgreSQL that is installed.
fn postgres(program: &str) -> String {
    let found = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = found.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.unwrap_or_else(|| panic!("no /usr/lib/postgresql; {}", package(Kind::Postgres)));
    format!("/usr/lib/postgresql/{newest}/bin/{program}")
}

fn package(kind: Kind) -> &'static str {
    match kind {
        Kind::Mariadb => "apt-get install mariadb-server-core (tests/run does it)",
        Kind::Postgres => "apt-get install postgresql (tests/run does it, without a cluster that runs)",
    }
}

/// A new folder that names this process; those of dead processes are removed.
fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let place = std::env::temp_dir();
    for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let folder = place.join(format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)));
    fs::create_dir(&folder).unwrap();
    folder
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A process and what it has forked.
fn family(first: u32) -> Vec<u32> {
    let mut found = vec![first];
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name, which may have anything in it: state, parent.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        if parent == Some(first) {
            found.push(pid);
        }
    }
    found
}
