//! `strowger cdr` and `strowger db` over a keyspace.

use crate::{cdrs, rows, shared};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn strowger(keyspace: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
    command.args(args).args(["--db", &shared().url(keyspace)]).current_dir(std::env::temp_dir());
    command
}

#[tokio::test]
async fn records_are_exported_and_followed() {
    let store = cdrs(shared(), "shown").await;
    store.write(&rows(0..700, "sales")).await.unwrap();
    store.write(&rows(700..720, "support")).await.unwrap();
    let export = strowger("shown", &["cdr", "export", "--flow", "support", "--format", "jsonl"]).output().unwrap();
    let told = String::from_utf8(export.stdout).unwrap();
    assert_eq!(told.lines().count(), 20, "{}", String::from_utf8_lossy(&export.stderr));
    let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["cid"].as_u64().unwrap();
    assert_eq!(told.lines().map(number).collect::<Vec<_>>(), (700..720).collect::<Vec<_>>());
    let mut follower =
        strowger("shown", &["cdr", "tail", "-f", "-n", "3", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || number(&lines.next().unwrap().unwrap());
    assert_eq!([next(), next(), next()], [717, 718, 719]);
    store.write(&rows(5000..5002, "sales")).await.unwrap();
    assert_eq!([next(), next()], [5000, 5001]);
    // Written once more: seen already.
    store.write(&rows(718..722, "support")).await.unwrap();
    assert_eq!([next(), next()], [720, 721]);
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn every_table_is_made_and_checked() {
    let url = shared().url("made");
    let run = |command: &str| {
        let out = strowger("made", &["db", command]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let lines = |told: [&str; 3]| {
        let [rows, cdrs, calls] = told;
        format!("flows and agents: {url}: {rows}\nCDRs: {url}: {cdrs}\nongoing calls: {url}: {calls}\n")
    };
    assert_eq!(run("init"), lines(["tables created"; 3]));
    assert_eq!(run("init"), lines(["all tables were there"; 3]));
    let rows = "cc_flows version 2, 0 rows; cc_agents version 3, 0 rows";
    assert_eq!(run("check"), lines([rows, "version 2, 0 records", "version 3, 0 calls"]));
}
