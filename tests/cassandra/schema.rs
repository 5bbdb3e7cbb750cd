//! What is made in a fresh keyspace, and what is said of one that does not fit.

use crate::{cdrs, cql, patiently, session, shared};
use strowger::config::{Config, DbUrl, Setting};
use strowger::store::names::Names;
use strowger::store::{Cell, Missing, Provisioning, StoreError, cdrs_at, open_cdrs_soon, provisioning_at};
use strowger_engine::registry::Table;

async fn provisioning(keyspace: &str, settings: &[&str]) -> Result<Box<dyn Provisioning>, StoreError> {
    let settings: Vec<Setting> = settings.iter().map(|s| Setting::parse(s).unwrap()).collect();
    let config = Config::from_text("", "", &settings).unwrap().config;
    let (url, names): (DbUrl, Names) = (shared().url(keyspace).parse().unwrap(), Names::of(&config.call_center));
    patiently(|| provisioning_at(&url, names.clone(), Missing::Create)).await
}

async fn error(keyspace: &str) -> String {
    let url = shared().url(keyspace);
    let parsed: DbUrl = url.parse().unwrap();
    let told = match provisioning(keyspace, &[]).await {
        Err(e) => e.to_string(),
        Ok(_) => patiently(|| cdrs_at(&parsed, Missing::Create)).await.err().map(|e| e.to_string()).unwrap_or_default(),
    };
    told.replace(&url, "URL")
}

#[tokio::test]
async fn a_fresh_keyspace_gets_tables_versions_and_one_replica_and_another_start_finds_them() {
    drop((provisioning("Fresh", &[]).await.unwrap(), cdrs(shared(), "fresh").await));
    drop((provisioning("fresh", &[]).await.unwrap(), cdrs(shared(), "Fresh").await));
    let db = session(shared()).await;
    let found = db.query_unpaged("SELECT table_name, table_version FROM fresh.version", &[]).await.unwrap();
    let found = found.into_rows_result().unwrap();
    let mut versions: Vec<(String, i32)> = found.rows().unwrap().map(Result::unwrap).collect();
    versions.sort();
    let expected =
        [("cc_agents", 3), ("cc_cdrs", 2), ("cc_flows", 2), ("strowger_cdr_index", 1), ("strowger_cdr_log", 1)];
    assert_eq!(versions, expected.map(|(t, v)| (t.to_owned(), v)));
    let replication = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = 'fresh'";
    let found = db.query_unpaged(replication, &[]).await.unwrap().into_rows_result().unwrap();
    let (replication,) = found.single_row::<(std::collections::HashMap<String, String>,)>().unwrap();
    assert!(replication["class"].ends_with("NetworkTopologyStrategy"), "{replication:?}");
    assert_eq!(replication["datacenter1"], "1");
}

#[tokio::test]
async fn a_keyspace_that_does_not_fit_is_told_what_to_do() {
    drop((provisioning("wrong", &[]).await.unwrap(), cdrs(shared(), "wrong").await));
    let db = session(shared()).await;
    let set = |v: &str| format!("UPDATE wrong.version SET table_version = {v} WHERE table_name = 'cc_flows'");
    cql(&db, &[&set("1")]).await;
    assert_eq!(
        error("wrong").await,
        "URL: table `cc_flows` has version 1 in table `version`, expected 2; migrate it as OpenSIPS' documentation of the \
         version says"
    );
    cql(&db, &[&set("2"), "DELETE FROM wrong.version WHERE table_name = 'cc_agents'"]).await;
    assert!(error("wrong").await.contains("INSERT INTO version (table_name, table_version) VALUES ('cc_agents', 3)"));
    cql(&db, &["INSERT INTO wrong.version (table_name, table_version) VALUES ('cc_agents', 3)"]).await;
    cql(&db, &["ALTER TABLE wrong.cc_agents DROP skills"]).await;
    assert_eq!(
        error("wrong").await,
        "URL: table `cc_agents` has no column `skills`; add it as text, or set [call_center] cca_skills_column"
    );
    cql(&db, &["DROP TABLE wrong.cc_agents", "CREATE TABLE wrong.cc_agents (agentid int PRIMARY KEY)"]).await;
    assert_eq!(
        error("wrong").await,
        "cannot open URL: column `agentid` of table `cc_agents` is int; make it text, or set [call_center] cca_agentid_column"
    );
    cql(&db, &["DROP TABLE wrong.cc_agents", "ALTER TABLE wrong.cc_cdrs DROP media"]).await;
    assert_eq!(error("wrong").await, "URL: table `cc_cdrs` has no column `media`; add it as smallint");
    // A server that would do without one that is away starts on none that does not fit.
    cql(&db, &["DROP TABLE wrong.cc_cdrs", "CREATE TABLE wrong.cc_cdrs (flow_id int PRIMARY KEY)"]).await;
    let url = format!("call_center.acc_db_url={}", shared().url("wrong"));
    let config = Config::from_text("", "", &[Setting::parse(&url).unwrap()]).unwrap().config;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let told = loop {
        // A server that is too busy to answer passes for one that is away.
        match open_cdrs_soon(&config, None).await {
            Err(error) => break error.to_string(),
            Ok(_) => assert!(std::time::Instant::now() < until, "it opens"),
        }
    };
    assert!(told.ends_with("column `flow_id` of table `cc_cdrs` is int; make it text"), "{told}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let error =
        cdrs_at(&"scylla://u:secret@127.0.0.1:1/k".parse().unwrap(), Missing::Create).await.err().unwrap().to_string();
    assert!(error.starts_with("cannot open scylla://127.0.0.1:1/k: ") && !error.contains("secret"), "{error}");
    assert!(error.ends_with("; start a server, or correct the hosts of the URL"), "{error}");
}

#[tokio::test]
async fn flows_and_agents_are_set_changed_and_removed_under_other_names_too() {
    let renamed = ["call_center.cc_flows_table=Order", "call_center.ccf_priority_column=from"];
    for (keyspace, settings) in [("plain", &[][..]), ("renamed", &renamed[..])] {
        let p = provisioning(keyspace, settings).await.unwrap();
        let text = |t: &str| Cell::Text(t.to_owned());
        let cells = [("skill", text("en")), ("message_queue", text("sip:m@h")), ("prependcid", Cell::Null)];
        assert!(p.set(Table::Flows, "sales", &cells).await.unwrap());
        assert!(p.set(Table::Flows, "desk", &cells).await.unwrap());
        assert!(!p.set(Table::Flows, "sales", &[("priority", Cell::Int(3))]).await.unwrap());
        assert!(!p.set(Table::Flows, "sales", &[]).await.unwrap());
        let rows = p.load().await.unwrap().rows;
        let told: Vec<_> = rows.flows.iter().map(|f| (f.flowid.as_deref(), f.priority, f.skill.as_deref())).collect();
        assert_eq!(told, [(Some("desk"), Some(256), Some("en")), (Some("sales"), Some(3), Some("en"))]);
        for bad in [&[("skill", text("en"))][..], &[("skill", Cell::Null), ("message_queue", text("sip:m@h"))]] {
            let refused = p.set(Table::Flows, "bad", bad).await.unwrap_err();
            assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
        }
        assert!(matches!(p.set(Table::Flows, "sales", &[("skill", Cell::Null)]).await, Err(StoreError::Refused(_))));
        assert!(p.set(Table::Agents, "ann", &[("location", text("sip:a@h"))]).await.unwrap());
        p.save_wrapups(&[("ann".into(), 77), ("ghost".into(), 5)]).await.unwrap();
        let agents = p.load().await.unwrap().rows.agents;
        assert_eq!((agents.len(), agents[0].wrapup_end_time, agents[0].msrp_max_sessions), (1, Some(77), Some(4)));
        // What the server itself refuses.
        let long = p.set(Table::Agents, &"x".repeat(70_000), &[]).await.unwrap_err();
        assert!(matches!(&long, StoreError::Refused(what) if what.contains("65535")), "{long}");
        assert!(p.remove(Table::Agents, "ann").await.unwrap());
        assert!(!p.remove(Table::Agents, "ann").await.unwrap());
        assert_eq!(p.load().await.unwrap().rows.agents, []);
    }
}
