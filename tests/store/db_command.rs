//! `strowger db`, and the other commands over databases that are no file.

use super::databases::{Kind, shared};
use super::suite::{cdr, cdrs, everything, names, own_names, provisioned, url};
use super::support::{Scene, code, stderr, stdout};
use std::process::Output;
use strowger::store::{Cell, Missing, provisioning_at};
use strowger_engine::CdrRow;
use strowger_engine::registry::Table;

fn run(scene: &Scene, at: &str, args: &[&str]) -> Output {
    let set = format!("call_center.db_url={at}");
    let args: Vec<&str> = args.iter().chain(&["--mi-http", "127.0.0.1:1", "--set", &set]).copied().collect();
    scene.run(&args)
}

fn out(scene: &Scene, at: &str, args: &[&str]) -> String {
    let out = run(scene, at, args);
    assert_eq!(code(&out), 0, "{args:?}: {}{}", stdout(&out), stderr(&out));
    stdout(&out)
}

fn told(at: &str) -> String {
    url(at).to_string()
}

#[tokio::test]
async fn tables_are_made_when_asked_for_and_not_by_looking() {
    for kind in [Kind::Mariadb, Kind::Postgres] {
        let at = shared(kind).await.fresh().await;
        let scene = Scene::new();
        assert!(out(&scene, &at, &["check"]).contains("is not there yet: it is made at the first start"));
        let listed = run(&scene, &at, &["flow", "list"]);
        assert_eq!((code(&listed), stdout(&listed)), (0, String::new()), "{}", stderr(&listed));
        let checked = run(&scene, &at, &["db", "check"]);
        assert_eq!(code(&checked), 1);
        assert!(stdout(&checked).contains("table `cc_flows` is not there; `strowger db init`"), "{}", stdout(&checked));
        assert!(provisioning_at(&url(&at), own_names(), Missing::Tell).await.is_err(), "looking made no table");
        let line = |what: &str, found: &str| format!("{what}: {}: {found}\n", told(&at));
        let all = |found| ["flows and agents", "CDRs", "ongoing calls"].map(|what| line(what, found)).concat();
        assert_eq!(out(&scene, &at, &["db", "init"]), all("tables created"));
        assert_eq!(out(&scene, &at, &["db", "init"]), all("all tables were there"));
        out(&scene, &at, &["flow", "set", "sales", "--skill", "en", "--message-queue", "sip:m@h"]);
        out(&scene, &at, &["agent", "set", "ann", "--skills", "en", "--location", "sip:a@h"]);
        out(&scene, &at, &["agent", "login", "ann"]);
        assert!(out(&scene, &at, &["agent", "list", "--json"]).contains("\"logstate\": 1"));
        let rows = line("flows and agents", "cc_flows version 2, 1 rows; cc_agents version 3, 1 rows");
        let rest = line("CDRs", "version 2, 0 records") + &line("ongoing calls", "version 3, 0 calls");
        assert_eq!(out(&scene, &at, &["db", "check"]), rows + &rest);
        out(&scene, &at, &["flow", "remove", "sales"]);
    }
}

#[tokio::test]
async fn faults_of_tables_and_rows_are_told_all_at_once() {
    let server = shared(Kind::Mariadb).await;
    let at = server.create("sick").await;
    let scene = Scene::new();
    out(&scene, &at, &["db", "init"]);
    let sick = [
        "INSERT INTO cc_flows (flowid, skill, message_queue) VALUES ('mute', 'en', '')",
        "UPDATE version SET table_version = 7 WHERE table_name = 'cc_calls'",
        "ALTER TABLE cc_cdrs DROP COLUMN cid",
    ];
    server.script(Some("sick"), &sick).await;
    let checked = run(&scene, &at, &["db", "check"]);
    assert_eq!(code(&checked), 1);
    for words in [
        "cc_flows `mute`: message_queue: is empty",
        "table `cc_calls` has version 7",
        "table `cc_cdrs` has no column `cid`; add it",
    ] {
        assert!(stdout(&checked).contains(words), "{words}: {}", stdout(&checked));
    }
}

/// From each kind of database to the next, around; each time the same rows.
#[tokio::test]
async fn everything_is_copied_from_any_database_to_any() {
    let scene = Scene::new();
    let file = |name: &str| format!("sqlite:{}", scene.path(name).display());
    let start = file("a.db");
    let p = provisioned(&start, &own_names()).await;
    let text = |t: &str| Cell::Text(t.to_owned());
    let flow = [
        ("skill", text("en")),
        ("message_queue", text("sip:m@h")),
        ("priority", Cell::Int(0)),
        ("prependcid", text("\u{17b}")),
    ];
    p.set(Table::Flows, "sales", &flow).await.unwrap();
    p.set(
        Table::Agents,
        "ann",
        &[("location", text("sip:a@h")), ("skills", text("en")), ("wrapup_end_time", Cell::Int(7))],
    )
    .await
    .unwrap();
    let rows = p.load().await.unwrap().rows;
    let all: Vec<CdrRow> = (1..=2500).map(|i| cdr(i << 64)).collect();
    let c = cdrs(&start).await;
    for batch in all.chunks(250) {
        c.write(batch).await.unwrap();
    }
    let ways =
        [start, shared(Kind::Mariadb).await.fresh().await, shared(Kind::Postgres).await.fresh().await, file("b.db")];
    for way in ways.windows(2) {
        let said = out(&scene, &ways[0], &["db", "copy", &way[0], &way[1]]);
        assert_eq!(
            said,
            "flows: 1 added, 0 brought up to date, 0 not copied\nagents: 1 added, 0 brought up to date, 0 not copied\n\
             CDRs: 2500 added, 0 were there, 0 not copied\n"
        );
        assert_eq!(provisioned(&way[1], &own_names()).await.load().await.unwrap().rows, rows);
        assert!(everything(&*cdrs(&way[1]).await).await == all);
    }
    let again = out(&scene, &ways[0], &["db", "copy", &ways[0], &ways[2], "--only", "cdrs"]);
    assert_eq!(again, "CDRs: 0 added, 2500 were there, 0 not copied\n");
    let same = run(&scene, &ways[0], &["db", "copy", &ways[0], &ways[0]]);
    assert_eq!(code(&same), 2, "{}", stderr(&same));
}

#[tokio::test]
async fn a_copy_that_was_cut_short_goes_on_where_it_was() {
    let server = shared(Kind::Postgres).await;
    let (from, to) = (shared(Kind::Mariadb).await.fresh().await, server.create("cut").await);
    let all: Vec<CdrRow> = (1..=3000).map(|i| cdr(i << 64)).collect();
    let c = cdrs(&from).await;
    for batch in all.chunks(250) {
        c.write(batch).await.unwrap();
    }
    drop(cdrs(&to).await);
    // The second page is refused by no rule of the row, but fails: as a database does that goes away.
    let fails = "CREATE FUNCTION gone() RETURNS trigger AS $$ BEGIN IF NEW.id > 1500 THEN RAISE SQLSTATE '57P03'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql";
    let trigger = "CREATE TRIGGER gone BEFORE INSERT ON cc_cdrs FOR EACH ROW EXECUTE FUNCTION gone()";
    server.script(Some("cut"), &[fails, trigger]).await;
    let scene = Scene::new();
    let copy = ["db", "copy", &from, &to, "--only", "cdrs", "--progress", "place.json"];
    let cut = run(&scene, &from, &copy);
    assert_eq!(code(&cut), 1);
    assert!(stderr(&cut).contains("1024 records copied by this run; run it again to go on"), "{}", stderr(&cut));
    let other = run(&scene, &from, &["db", "copy", &to, &from, "--only", "cdrs", "--progress", "place.json"]);
    assert!(code(&other) == 2 && stderr(&other).contains("is not of this copy"), "{}", stderr(&other));
    server.script(Some("cut"), &["DROP TRIGGER gone ON cc_cdrs"]).await;
    let on = run(&scene, &from, &copy);
    assert_eq!(stdout(&on), "CDRs: 1976 added, 0 were there, 0 not copied\n", "{}", stderr(&on));
    assert!(stderr(&on).contains("going on after 1024 records (place.json)"), "{}", stderr(&on));
    assert!(everything(&*cdrs(&to).await).await == all);
    assert!(!scene.path("place.json").exists(), "a copy that is whole leaves nothing behind");
}

/// An operator's tables under other names, into a new database with the tables' own; rows that cannot be copied are told.
#[tokio::test]
async fn renamed_tables_are_copied_and_what_cannot_be_is_told() {
    let server = shared(Kind::Mariadb).await;
    let (from, scene) = (server.create("renamed").await, Scene::new());
    let theirs = names(&[("cc_flows_table", "queues"), ("ccf_skill_column", "can")]);
    let p = provisioned(&from, &theirs).await;
    let text = |t: &str| Cell::Text(t.to_owned());
    p.set(Table::Flows, "sales", &[("skill", text("en")), ("message_queue", text("sip:m@h"))]).await.unwrap();
    server
        .script(
            Some("renamed"),
            &[
                "ALTER TABLE queues MODIFY can VARCHAR(64) NULL",
                "INSERT INTO queues (flowid, message_queue) VALUES ('bare', 'sip:m@h')",
            ],
        )
        .await;
    scene.write("c.toml", "[call_center]\ncc_flows_table = \"queues\"\nccf_skill_column = \"can\"\n");
    let to = shared(Kind::Postgres).await.fresh().await;
    let args = ["db", "copy", &from, &to, "--config", "c.toml", "--to-own-names", "--only", "provisioning"];
    let copied = run(&scene, &from, &args);
    assert_eq!(code(&copied), 1);
    assert!(stdout(&copied).contains("flows: 1 added, 0 brought up to date, 1 not copied"), "{}", stdout(&copied));
    assert!(
        stderr(&copied).contains("not copied:") && stderr(&copied).contains("flow `bare`: "),
        "{}",
        stderr(&copied)
    );
    let rows = provisioned(&to, &own_names()).await.load().await.unwrap().rows;
    assert_eq!((rows.flows.len(), rows.flows[0].skill.as_deref()), (1, Some("en")));
}
