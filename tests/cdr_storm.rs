//! A storm of faults under load: the CDR database is killed, restarted and frozen, the server itself is killed three times;
//! then each attempt that the load generator saw end has exactly one row, and set-up times have not suffered.
//!
//! With all tests it runs short, on PostgreSQL. The whole of it, on PostgreSQL and on Cassandra, for at least so many seconds:
//! `STROWGER_CDR_STORM=60 cargo test --release -p strowger --test cdr_storm -- --nocapture`
//! (`STROWGER_CDR_STORM_RATE` changes its 1000 calls a second). It wants two cores: one is the server's, the other the
//! generator's and the database's, which yields to the generator.

#[path = "support/cassandra.rs"]
mod cassandra;
#[path = "support/databases.rs"]
mod databases;
mod support;

use cassandra::Cassandra;
use databases::{Database, Kind};
use hdrhistogram::Histogram;
use loadtest::{AgentPlan, Behaviour, Dist, FlowShare, Generator, Live, Patience, Report, Scenario};
use std::collections::{BTreeMap, HashSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};
use strowger::store::{Missing, cdrs_at};
use support::{Scene, Server};

/// What is played.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rate: u64,
    /// How long calls come at least, of that without a fault at first, and how long the database stands still.
    seconds: Duration,
    calm: Duration,
    frozen: Duration,
    /// Everybody on his own core, and set-up times are judged.
    whole: bool,
}

impl Plan {
    fn from_env() -> Plan {
        let number = |name| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
        match number("STROWGER_CDR_STORM") {
            Some(seconds) => Plan {
                rate: number("STROWGER_CDR_STORM_RATE").unwrap_or(1000),
                seconds: Duration::from_secs(seconds),
                calm: Duration::from_secs(15),
                frozen: Duration::from_secs(20),
                whole: true,
            },
            None => Plan {
                rate: 100,
                seconds: Duration::from_secs(15),
                calm: Duration::from_secs(2),
                frozen: Duration::from_secs(4),
                whole: false,
            },
        }
    }

    fn scenario(self) -> Scenario {
        // No time to ring: set-up times are the server's own.
        let ring = || Dist::Fixed(Duration::ZERO);
        let behaviours =
            vec![(0.9, Behaviour::Answer { ring: ring() }), (0.1, Behaviour::Refuse { code: 486, ring: ring() })];
        Scenario {
            rate: self.rate as f64,
            // Until it is told to stop.
            duration: Duration::from_secs(3600),
            flows: vec![FlowShare { name: "sales".to_owned(), weight: 1.0, chat: false }],
            agents: vec![AgentPlan {
                name: "agent{N}".to_owned(),
                count: u32::try_from(self.rate).unwrap(),
                behaviours,
                chats: 0,
            }],
            talk: Dist::Fixed(Duration::from_millis(300)),
            patience: Some(Patience { share: 0.2, after: Dist::Fixed(Duration::from_millis(100)) }),
            wrapup: Duration::ZERO,
            min_talk: Duration::ZERO,
            bridge_limit: Duration::from_secs(30),
            drain: Duration::from_secs(60),
            seed: 7,
            rows_by_call: true,
            ..Scenario::default()
        }
    }
}

enum Base {
    Postgres(Database),
    Cassandra(Cassandra),
}

impl Base {
    /// Does something with the database so that its processes yield to the generator, with whom they share a core.
    fn yielding<T: Send>(plan: Plan, work: impl FnOnce() -> T + Send) -> T {
        if !plan.whole {
            return work();
        }
        std::thread::scope(|scope| {
            let niced = scope.spawn(|| {
                on_this_thread("renice", &["-n", "19", "-p"]);
                work()
            });
            niced.join().unwrap()
        })
    }

    fn start(plan: Plan, kind: &str) -> Base {
        Base::yielding(plan, || match kind {
            "postgres" => Base::Postgres(wait(Database::start(Kind::Postgres))),
            _ => Base::Cassandra(Cassandra::start_with(&["-Xmx1G"])),
        })
    }

    fn url(&self) -> String {
        match self {
            Base::Postgres(db) => wait(db.create("storm")),
            Base::Cassandra(db) => db.url("storm"),
        }
    }

    fn kill(&mut self) {
        match self {
            Base::Postgres(db) => db.kill(),
            Base::Cassandra(db) => db.kill(),
        }
    }

    fn restart(&mut self, plan: Plan) {
        Base::yielding(plan, || match self {
            Base::Postgres(db) => wait(db.run()),
            Base::Cassandra(db) => db.restart(),
        });
    }

    fn freeze(&self) {
        match self {
            Base::Postgres(db) => db.freeze(),
            Base::Cassandra(db) => db.freeze(),
        }
    }

    fn thaw(&self) {
        match self {
            Base::Postgres(db) => db.thaw(),
            Base::Cassandra(db) => db.thaw(),
        }
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Runs a command about the calling thread; what it starts inherits that.
fn on_this_thread(program: &str, args: &[&str]) {
    let me = std::fs::read_link("/proc/thread-self").unwrap();
    let done = Command::new(program).args(args).arg(me.file_name().unwrap()).output();
    assert!(done.is_ok_and(|out| out.status.success()), "{program} {args:?}");
}

/// A server under fire, and who calls it.
struct Storm {
    plan: Plan,
    scene: Scene,
    settings: Vec<String>,
    server: Server,
    live: Arc<Live>,
    stop: Arc<AtomicBool>,
    calls: JoinHandle<Report>,
    began: Instant,
    /// The epoch without faults, and those in which the server was not just killed.
    calm: usize,
    judged: Vec<usize>,
}

impl Storm {
    fn begin(plan: Plan, url: &str) -> Storm {
        let scene = if plan.whole { Scene::on_cores("1") } else { Scene::new() };
        let mut generator = Generator::bind(&plan.scenario()).unwrap();
        let (phones, music) = (generator.agent_addr(), generator.media_addr());
        scene.out(&["flow", "set", "sales", "--skill", "en", "--message-queue", &format!("sip:music@{music}")]);
        let rows: Vec<String> =
            (1..=plan.rate).map(|n| format!("('agent{n}', 'sip:agent{n}@{phones}', 1, 'en')")).collect();
        scene.sql(&format!("INSERT INTO cc_agents (agentid, location, logstate, skills) VALUES {}", rows.join(", ")));
        let own = ["call_center.wrapup_time=0", "call_center.min_talk_time=0", "sip.overload_max_age_ms=10000"];
        let own = own.map(str::to_owned).into_iter().chain([format!("call_center.acc_db_url={url}")]);
        let settings: Vec<String> = own.flat_map(|s| ["--set".to_owned(), s]).collect();
        let server = launch(&scene, "127.0.0.1:0", &settings);
        generator.set_target(server.listen().parse().unwrap());
        let (live, stop, began) = (generator.live(), generator.stop_flag(), Instant::now());
        let calls = std::thread::spawn(move || generator.run());
        Storm { plan, scene, settings, server, live, stop, calls, began, calm: 0, judged: vec![] }
    }

    /// What comes now has set-up times of its own.
    fn next_epoch(&self) -> usize {
        self.live.epoch.fetch_add(1, Relaxed) + 1
    }

    /// A time without faults, after one to warm up in.
    fn calm(&mut self) {
        sleep(self.plan.calm / 3);
        self.calm = self.next_epoch();
        sleep(self.plan.calm - self.plan.calm / 3);
        let epoch = self.next_epoch();
        self.judged.push(epoch);
    }

    /// kill -9, and another process at the same address; then a second to catch up.
    fn kill(self) -> Storm {
        self.next_epoch();
        let listen = self.server.listen();
        self.server.kill();
        let began = Instant::now();
        let server = launch(&self.scene, &listen, &self.settings);
        println!("at {:.1} s: killed, and ready after {:?}", self.began.elapsed().as_secs_f64(), began.elapsed());
        sleep(Duration::from_secs(1));
        let mut storm = Storm { server, ..self };
        let epoch = storm.next_epoch();
        storm.judged.push(epoch);
        storm
    }

    fn tell(&self, what: &str) {
        println!("at {:.1} s: {what}: {}", self.began.elapsed().as_secs_f64(), self.server.cdr_status());
    }

    fn gone(&self) {
        self.server.until_cdrs("the database is gone", |s| s["Database"] == "gone" && s["In spool"] != 0);
        self.tell("the database is gone");
    }

    fn back(&self) {
        self.server.until_cdrs("the database is back", |s| s["Database"] == "ok");
        self.tell("the database is back");
    }

    fn replayed(&self) {
        self.server.until_cdrs("the spool is replayed", |s| s["Database"] == "ok" && s["In spool"] == 0);
        self.tell("the spool is replayed");
    }

    /// The last calls, and an orderly stop; what the generator saw.
    fn end(self) -> Report {
        sleep(self.plan.seconds.saturating_sub(self.began.elapsed()));
        self.stop.store(true, Relaxed);
        let report = self.calls.join().unwrap();
        self.server.until_cdrs("all is written", |s| s["In spool"] == 0 && s["Waiting"] == 0 && s["In flight"] == 0);
        let (code, log) = self.server.terminate();
        println!("{log}\n{report}");
        assert_eq!(code, Some(0));
        judge(self.plan, self.calm, &self.judged, &report);
        report
    }
}

/// Set-up times: under faults the p99 is not more than twice that of calm times.
fn judge(plan: Plan, calm: usize, judged: &[usize], report: &Report) {
    let epochs = &report.histograms.setup_by_epoch;
    let calm = &epochs[calm];
    let mut storm = Histogram::new_from(calm);
    judged.iter().filter_map(|n| epochs.get(*n)).for_each(|epoch| storm.add(epoch).unwrap());
    let at = |h: &Histogram<u64>| [0.5, 0.99, 0.999].map(|q| h.value_at_quantile(q));
    let (before, under) = (at(calm), at(&storm));
    println!(
        "set-up [us], p50 p99 p99.9: calm {before:?} of {}, under faults {under:?} of {}",
        calm.len(),
        storm.len()
    );
    if plan.whole {
        assert!(under[1] <= 2 * before[1], "the set-up p99 went from {} us to {} us", before[1], under[1]);
    }
}

fn launch(scene: &Scene, listen: &str, settings: &[String]) -> Server {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Server::start_at(scene, listen, &settings, "log")
}

/// Rows by the Call-ID of their caller, and how many different keys they have.
async fn rows(url: &str) -> (BTreeMap<String, u32>, usize) {
    let store = cdrs_at(&url.parse().unwrap(), Missing::Tell).await.unwrap();
    let (mut calls, mut keys, mut place) = (BTreeMap::new(), HashSet::new(), None);
    loop {
        let page = store.read(place.as_deref(), 1000).await.unwrap();
        for row in &page.rows {
            *calls.entry(row.sip_call_id.to_string()).or_insert(0) += 1;
            keys.insert(row.key);
        }
        match page.next {
            Some(next) => place = Some(next),
            None => return (calls, keys.len()),
        }
    }
}

fn storm(kind: &str) {
    let plan = Plan::from_env();
    if plan.whole {
        on_this_thread("taskset", &["-c", "-p", "0"]);
    }
    let mut database = Base::start(plan, kind);
    let url = database.url();
    let mut storm = Storm::begin(plan, &url);
    storm.calm();

    storm.tell("the database is killed");
    database.kill();
    storm.gone();
    storm = storm.kill();
    database.restart(plan);
    storm.back();
    // In the middle of a replay, as likely as not.
    storm = storm.kill();
    storm.replayed();

    storm.tell("the database stands still");
    database.freeze();
    let frozen = Instant::now();
    storm.gone();
    storm = storm.kill();
    sleep(plan.frozen.saturating_sub(frozen.elapsed()));
    database.thaw();
    storm.replayed();

    let report = storm.end();
    assert!(report.balanced() && report.failed == 0);
    let (calls, keys) = wait(rows(&url));
    let expected = &report.rows_by_call;
    let faults: Vec<String> = expected
        .keys()
        .chain(calls.keys().filter(|c| !expected.contains_key(*c)))
        .map(|call| (call, expected.get(call).unwrap_or(&0), calls.get(call).unwrap_or(&0)))
        .filter(|(_, wanted, found)| wanted != found)
        .map(|(call, wanted, found)| format!("{call}: {wanted} expected, {found} found"))
        .collect();
    let total: u64 = calls.values().map(|n| u64::from(*n)).sum();
    println!("{kind}: {} CDRs expected, {total} rows, {keys} keys, {} calls", report.cdrs_expected, calls.len());
    assert!(faults.is_empty(), "{} calls, the first: {:?}", faults.len(), &faults[..faults.len().min(10)]);
    assert_eq!((total, keys as u64), (report.cdrs_expected, report.cdrs_expected));
}

#[test]
fn each_attempt_has_one_row_after_kills_and_freezes() {
    storm("postgres");
    if Plan::from_env().whole {
        storm("cassandra");
    }
}
