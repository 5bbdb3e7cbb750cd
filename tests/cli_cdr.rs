//! `strowger cdr tail` and `cdr export` over SQLite.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use strowger::store::{CdrStore, Missing, cdrs_at};
use strowger_engine::{CallId, CdrRow};
use support::{Scene, code, stderr};

fn row(n: u64) -> CdrRow {
    CdrRow {
        key: u128::from(n),
        call: CallId { shard: 1, slot: 2, generation: 3 },
        sip_call_id: format!("{n}@phone").into(),
        caller: if n == 3 { "O'Neil, \"Al\"".into() } else { format!("c{n}").into() },
        received_unix_us: 1_795_323_626_000_000 + n * 60_000_000,
        wait_us: 1_500_000,
        pickup_us: 400_000,
        talk_us: 9_700_000,
        talk_s: 10,
        flow_id: if n.is_multiple_of(2) { "sales".into() } else { "support".into() },
        agent_id: n.is_multiple_of(3).then(|| "ann".into()),
        call_type: 0,
        rejected: 1,
        fstats: 7,
        cid: n,
        media: 1,
        cause: 0,
        param: None,
    }
}

fn write(scene: &Scene, rows: impl Iterator<Item = u64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rows: Vec<CdrRow> = rows.map(row).collect();
    let url = format!("sqlite:{}", scene.path("s.db").display());
    runtime.block_on(async {
        let store: Box<dyn CdrStore> = cdrs_at(&url.parse().unwrap(), Missing::Create).await.unwrap();
        store.write(&rows).await.unwrap();
    });
}

fn callers(csv: &str) -> Vec<String> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    reader.records().map(|r| r.unwrap()[0].to_owned()).collect()
}

#[test]
fn an_export_has_every_record_that_was_asked_for() {
    let scene = Scene::new();
    let none = scene.run(&["cdr", "export"]);
    assert_eq!((code(&none), scene.path("s.db").exists()), (1, false), "reading makes no database");
    assert!(stderr(&none).contains("sqlite:s.db is not there yet"), "{}", stderr(&none));
    write(&scene, 0..2500);
    let all = scene.out(&["cdr", "export"]);
    assert_eq!(
        all.lines().next().unwrap(),
        "caller,received_timestamp,wait_time,pickup_time,talk_time,flow_id,agent_id,call_type,rejected,fstats,cid,media,wait_ms,\
         pickup_ms,talk_ms,cause,param,sip_call_id,key"
    );
    let third = "\"O'Neil, \"\"Al\"\"\",2026-11-22T05:03:26.000Z,2,0,10,support,ann,0,1,7,3,1,1500,400,9700,0,,3@phone,\
                 00000000000000000000000000000003\r";
    assert_eq!(all.split('\n').nth(4).unwrap(), third);
    assert_eq!(callers(&all).len(), 2500);
    let some = |args: &[&str]| callers(&scene.out(&[&["cdr", "export"], args].concat()));
    let between = ["--since", "2026-11-22T05:02:26Z", "--until", "2026-11-22T06:04:26+01:00"];
    assert_eq!(some(&between), ["c2", "O'Neil, \"Al\""]);
    assert_eq!(some(&["--flow", "sales"]).len(), 1250);
    assert_eq!(some(&["--flow", "sales", "--agent", "ann", "--until", "2026-11-22T05:10:26Z"]), ["c0", "c6"]);
    assert_eq!(some(&["--agent", "bob"]), [""; 0]);
    let lines = scene.out(&["cdr", "export", "--format", "jsonl", "--until", "2026-11-22T05:01:26Z"]);
    let object: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(
        (&object["caller"], &object["talk_time"], &object["param"]),
        (&"c0".into(), &10.into(), &serde_json::Value::Null)
    );
    let file = scene.out(&["cdr", "export", "--out", "all.csv"]);
    assert_eq!(file, "2500 records written to all.csv\n");
    assert_eq!(std::fs::read_to_string(scene.path("all.csv")).unwrap(), all);
    let out = scene.run(&["cdr", "export", "--out", "none/all.csv"]);
    assert_eq!(code(&out), 1);
    assert!(stderr(&out).contains("cannot write to none/all.csv"), "{}", stderr(&out));
    let out = scene.run(&["cdr", "export", "--since", "yesterday"]);
    assert_eq!(code(&out), 2);
    assert!(stderr(&out).contains("expected a time such as"), "{}", stderr(&out));
}

#[test]
fn a_tail_shows_the_last_and_those_that_come() {
    let scene = Scene::new();
    write(&scene, 0..30);
    let last = scene.out(&["cdr", "tail", "-n", "2"]);
    let line = "2026-11-22T05:28:26.000Z  sales            -                c28                      handled   wait   1.500  talk    9.700";
    assert_eq!(last.lines().next().unwrap(), line);
    assert_eq!(last.lines().count(), 2);
    assert_eq!(scene.out(&["cdr", "tail"]).lines().count(), 10);
    assert_eq!(scene.out(&["cdr", "tail", "-n", "99"]).lines().count(), 30);
    assert_eq!(scene.out(&["cdr", "tail", "-n", "0"]), "");
    let mut follower = Command::new(env!("CARGO_BIN_EXE_strowger"))
        .args(["cdr", "tail", "-f", "-n", "1", "--json", "--db", "sqlite:s.db"])
        .current_dir(scene.path("."))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next =
        || serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap()).unwrap()["cid"].as_u64();
    assert_eq!(next(), Some(29));
    write(&scene, 25..33);
    assert_eq!([next(), next(), next()], [Some(30), Some(31), Some(32)]);
    // Nobody reads on: the next record ends it, and that is no fault.
    drop(lines);
    write(&scene, 40..41);
    assert!(follower.wait().unwrap().success());
}
