//! Calls go on while their database is away, while it and the spool are, and through an orderly stop: one row for each
//! attempt that the load generator saw end, no double, no gap.
//! Kills of the server itself, and many calls: `cdr_storm`.

#[path = "support/cassandra.rs"]
mod cassandra;
#[path = "support/disk.rs"]
mod disk;
mod support;

use cassandra::Cassandra;
use disk::Disk;
use loadtest::{AgentPlan, Behaviour, Dist, FlowShare, Generator, Patience, Report, Scenario};
use serde_json::Value;
use std::collections::HashSet;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use strowger::store::{Missing, cdrs_at};
use support::{Scene, Server, code, stderr};

const RATE: u64 = 40;
const SECONDS: u64 = 5;

fn scenario(rate: u64) -> Scenario {
    let ring = Dist::Fixed(Duration::from_millis(20));
    let behaviours = vec![
        (0.9, Behaviour::Answer { ring }),
        (0.1, Behaviour::Refuse { code: 486, ring: Dist::Fixed(Duration::from_millis(20)) }),
    ];
    let agents = u32::try_from(rate).unwrap_or(u32::MAX);
    Scenario {
        rate: rate as f64,
        // Until it is told to stop.
        duration: Duration::from_secs(3600),
        flows: vec![FlowShare { name: "sales".to_owned(), weight: 1.0, chat: false }],
        agents: vec![AgentPlan { name: "agent{N}".to_owned(), count: agents, behaviours, chats: 0 }],
        talk: Dist::Fixed(Duration::from_millis(300)),
        patience: Some(Patience { share: 0.2, after: Dist::Fixed(Duration::from_millis(100)) }),
        wrapup: Duration::ZERO,
        min_talk: Duration::ZERO,
        drain: Duration::from_secs(30),
        seed: 7,
        ..Scenario::default()
    }
}

/// Adds the flow and the agents of the generator, all at once.
fn provision(scene: &Scene, generator: &Generator, agents: u64) {
    scene.out(&[
        "flow",
        "set",
        "sales",
        "--skill",
        "en",
        "--message-queue",
        &format!("sip:music@{}", generator.media_addr()),
    ]);
    let rows: Vec<String> =
        (1..=agents).map(|n| format!("('agent{n}', 'sip:agent{n}@{}', 1, 'en')", generator.agent_addr())).collect();
    scene.sql(&format!("INSERT INTO cc_agents (agentid, location, logstate, skills) VALUES {}", rows.join(", ")));
}

/// Plays calls while `faults` does its part, and so many seconds at least; then the generator's books, and the server.
fn play(scene: &Scene, rate: u64, seconds: u64, more: &[&str], faults: impl FnOnce(&Server)) -> (Report, Server) {
    let mut generator = Generator::bind(&scenario(rate)).unwrap();
    provision(scene, &generator, rate);
    let own = ["call_center.wrapup_time=0", "call_center.min_talk_time=0", "sip.overload_max_age_ms=10000"];
    let settings: Vec<&str> = own.iter().chain(more).flat_map(|s| ["--set", *s]).collect();
    let server = Server::start(scene, &settings);
    generator.set_target(server.listen().parse().unwrap());
    let (stop, began) = (generator.stop_flag(), Instant::now());
    let playing = std::thread::spawn(move || generator.run());
    faults(&server);
    std::thread::sleep(Duration::from_secs(seconds).saturating_sub(began.elapsed()));
    stop.store(true, Relaxed);
    (playing.join().unwrap(), server)
}

fn gone(server: &Server) {
    server.until_cdrs("the database is gone", |s| s["Database"] == "gone" && s["In spool"].as_u64() > Some(20));
}

fn replayed(server: &Server) {
    server.until_cdrs("the spool is replayed", |s| s["Database"] == "ok" && s["In spool"] == 0);
}

/// Each attempt that the generator saw end has its row.
fn assert_exact(scene: &Scene, report: &Report) {
    assert!(report.balanced() && report.failed == 0, "{report}");
    let rows = scene.count("SELECT count(*) FROM cc_cdrs");
    assert_eq!(rows.unsigned_abs(), report.cdrs_expected, "{report}");
    assert_eq!(scene.count("SELECT count(DISTINCT key) FROM strowger_cdrs"), rows);
}

#[test]
fn calls_outlive_their_database_and_each_attempt_has_one_row() {
    let scene = Scene::new();
    let (report, server) = play(&scene, RATE, SECONDS, &[], |server| {
        for _ in 0..2 {
            scene.locked(|| gone(server));
            replayed(server);
        }
    });
    let told = server.cdr_status();
    println!("{told}\n{report}");
    assert!(told["Replayed"].as_u64() > Some(40), "{told}");
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    for (words, times) in [("the CDR database is gone", 2), ("the CDR database is back", 2)] {
        assert_eq!(log.matches(words).count(), times, "once for each change: {log}");
    }
    assert_exact(&scene, &report);
}

#[test]
fn calls_outlive_cassandra_killed_and_frozen_and_each_attempt_has_one_row() {
    let (scene, mut database) = (Scene::new(), Cassandra::start());
    let url = database.url("faults");
    let (report, server) = play(&scene, RATE, SECONDS, &[&format!("call_center.acc_db_url={url}")], |server| {
        server.until_cdrs("rows are written", |s| s["Written"].as_u64() > Some(20));
        database.kill();
        gone(server);
        database.restart();
        replayed(server);
        database.freeze();
        gone(server);
        database.thaw();
        replayed(server);
    });
    println!("{}\n{report}", server.cdr_status());
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(report.balanced() && report.failed == 0, "{report}");
    let keys = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = cdrs_at(&url.parse().unwrap(), Missing::Create).await.unwrap();
        let (mut keys, mut place) = (vec![], None);
        loop {
            let page = store.read(place.as_deref(), 1000).await.unwrap();
            keys.extend(page.rows.iter().map(|r| r.key));
            match page.next {
                Some(next) => place = Some(next),
                None => return keys,
            }
        }
    });
    assert_eq!(keys.len() as u64, report.cdrs_expected, "{report}");
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
}

/// One call, which the stop ends while nothing takes its record but the spool; the log.
fn one_call_and_a_stop(scene: &Scene, more: &[&str]) -> String {
    let settings = [&["--set", "call_center.reject_on_no_agents=0", "--set", "server.stop_timeout=0"], more].concat();
    let server = Server::start(scene, &settings);
    let caller = UdpSocket::bind("127.0.0.1:0").unwrap();
    caller.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (to, from) = (server.listen(), caller.local_addr().unwrap());
    let invite = format!(
        "INVITE sip:sales@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKs1\r\nMax-Forwards: 70\r\n\
         From: <sip:carl@{from}>;tag=1\r\nTo: <sip:sales@{to}>\r\nCall-ID: stop@{from}\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:carl@{from}>\r\nContent-Length: 0\r\n\r\n"
    );
    caller.send_to(invite.as_bytes(), &to).unwrap();
    caller.recv(&mut [0; 4096]).unwrap();
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("CDRs are left in the spool"), "{log}");
    log
}

#[test]
fn a_stop_leaves_records_to_the_spool_and_the_next_start_brings_them() {
    let scene = Scene::new();
    scene.out(&["flow", "set", "sales", "--skill", "en", "--message-queue", "sip:music@127.0.0.1:9"]);
    scene.out(&["agent", "set", "ann", "--skills", "en", "--location", "sip:ann@127.0.0.1:9"]);
    // A database that is not there holds up no start; the spool keeps records for whichever comes.
    let log = one_call_and_a_stop(&scene, &["--set", "call_center.acc_db_url=scylla://127.0.0.1:9/x"]);
    assert!(log.contains("CDRs go to the spool until their database can be opened"), "{log}");
    let server = Server::start(&scene, &[]);
    server.until_cdrs("the spool is replayed", |s| s["In spool"] == 0 && s["Replayed"] == 1);
    assert_eq!(server.terminate().0, Some(0));
    assert_eq!(scene.count("SELECT count(*) FROM cc_cdrs"), 1);
}

#[test]
fn with_neither_database_nor_spool_new_calls_are_refused_and_no_record_is_lost() {
    let scene = Scene::new();
    let tight = ["cdr.batch=1", "cdr.channel=1", "cdr.shard_backlog=1", "cdr.spool_dir=spool"];
    let away = scene.path("away");
    let (report, server) = play(&scene, 60, 0, &tight, |server| {
        std::fs::rename(scene.path("spool"), &away).unwrap();
        scene.write("spool", "not a directory");
        scene.locked(|| {
            server.until_cdrs("the spool fails", |s| s["Spool"] == "failing");
            server.until_cdrs("new calls are refused", |_| server.get("/metrics").1.lines().any(shed));
        });
        std::fs::remove_file(scene.path("spool")).unwrap();
    });
    assert!(report.refused > 0, "{report}");
    // What had waited goes to the spool, now that there is one, and then to the database.
    replayed(&server);
    assert_eq!(server.terminate().0, Some(0));
    assert_exact(&scene, &report);
}

fn shed(line: &str) -> bool {
    line.starts_with("strowger_shed_calls_total") && !line.ends_with(" 0")
}

/// A full disk stops the spool, not the calls: records wait in memory until there is room, and all that the spool took before is there.
#[test]
fn calls_outlive_a_full_disk_under_the_spool_and_no_record_is_lost() {
    let scene = Scene::new();
    let Some(disk) = Disk::mount(&scene.path("spool"), "size=256k") else {
        eprintln!("left out: this user may not mount a small disk (spool's own tests limit the size of files instead)");
        return;
    };
    disk.fill(160 << 10);
    let (report, server) = play(&scene, RATE, SECONDS, &["cdr.spool_dir=spool/records"], |server| {
        scene.locked(|| {
            server.until_cdrs("the disk is full", |s| s["Spool"] == "failing" && s["In spool"].as_u64() > Some(20));
            let told = server.cdr_status();
            let waiting = |s: &Value| s["Queued"].as_u64().unwrap() + s["Waiting"].as_u64().unwrap();
            server.until_cdrs("calls go on", |s| waiting(s) > waiting(&told) + 40);
            disk.make_room();
            server.until_cdrs("the spool takes records again", |s| {
                s["Spool"] == "ok" && s["In spool"].as_u64() > told["In spool"].as_u64().map(|n| n + 40)
            });
        });
        replayed(server);
    });
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    let told = ["the CDR spool takes no records", "make room on its disk", "the CDR spool takes records again"];
    for words in told {
        assert!(log.contains(words), "`{words}`: {log}");
    }
    assert!(report.answered > 0 && report.refused == 0, "{report}");
    assert_exact(&scene, &report);
}

/// A server that finds the disk under its spool full starts all the same, and brings what the spool has.
#[test]
fn a_start_with_a_full_disk_under_the_spool_brings_what_the_spool_has() {
    let scene = Scene::new();
    let Some(disk) = Disk::mount(&scene.path("spool"), "size=64k") else {
        eprintln!("left out: this user may not mount a small disk");
        return;
    };
    scene.out(&["flow", "set", "sales", "--skill", "en", "--message-queue", "sip:music@127.0.0.1:9"]);
    scene.out(&["agent", "set", "ann", "--skills", "en", "--location", "sip:ann@127.0.0.1:9"]);
    one_call_and_a_stop(
        &scene,
        &["--set", "call_center.acc_db_url=scylla://127.0.0.1:9/x", "--set", "cdr.spool_dir=spool/records"],
    );
    disk.fill(usize::MAX);
    let server = Server::start(&scene, &["--set", "cdr.spool_dir=spool/records"]);
    server.until_cdrs("the spool is replayed", |s| s["In spool"] == 0 && s["Replayed"] == 1);
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("the disk of the CDR spool is full"), "{log}");
    assert_eq!(scene.count("SELECT count(*) FROM cc_cdrs"), 1);
}

/// Whoever may not write to the spool learns of it at the start, with the fix, and not when records are at stake.
#[test]
fn a_server_that_may_not_write_to_its_spool_does_not_start() {
    let scene = Scene::new();
    let spool = scene.path("spool");
    std::fs::create_dir(&spool).unwrap();
    std::fs::set_permissions(&spool, std::fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write wherever a disk is writable.
    let root = std::fs::write(spool.join("probe"), "").is_ok();
    let _disk = root.then(|| Disk::mount(&spool, "ro").expect("root may mount"));
    let args = ["run", "--listen", "udp:127.0.0.1:0", "--mi-http", "127.0.0.1:0", "--set", "cdr.spool_dir=spool"];
    let out = scene.run(&args);
    let told = stderr(&out);
    assert_ne!(code(&out), 0, "{told}");
    assert!(told.contains("CDR spool: ") && told.contains("spool"), "{told}");
    assert!(told.contains("let this user write there, or set [cdr] spool_dir to another directory"), "{told}");
}
