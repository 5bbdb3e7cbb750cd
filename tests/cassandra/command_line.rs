//! `strowger cdr` over a keyspace.

use crate::{cdrs, rows, shared};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn strowger(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
    command.args(args).args(["--db", &shared().url("shown")]).current_dir(std::env::temp_dir());
    command
}

#[tokio::test]
async fn records_are_exported_and_followed() {
    let store = cdrs(shared(), "shown").await;
    store.write(&rows(0..700, "sales")).await.unwrap();
    store.write(&rows(700..720, "support")).await.unwrap();
    let export = strowger(&["cdr", "export", "--flow", "support", "--format", "jsonl"]).output().unwrap();
    let told = String::from_utf8(export.stdout).unwrap();
    assert_eq!(told.lines().count(), 20, "{}", String::from_utf8_lossy(&export.stderr));
    let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["cid"].as_u64().unwrap();
    assert_eq!(told.lines().map(number).collect::<Vec<_>>(), (700..720).collect::<Vec<_>>());
    let mut follower = strowger(&["cdr", "tail", "-f", "-n", "3", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
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
