//! SQLite: schemas made here and elsewhere, wrong versions, renamed tables, NULLs, batches that are tried twice.

use super::*;
use crate::config::Setting;
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Row};
use std::sync::Arc;
use strowger_dispatch::{AgentRef, SkillId};
use strowger_engine::Cdr;
use strowger_engine::cdr::{CallType, CdrMedia};
use strowger_engine::registry::{AgentRow, FlowRow, RowFault};
use strowger_engine::{AgentDef, CallId, FlowDef};
use tempfile::TempDir;

fn config(dir: &TempDir, settings: &[&str]) -> Config {
    let mut all = vec![Setting::parse(&format!("call_center.db_url=sqlite:{}/s.db", dir.path().display())).unwrap()];
    all.extend(settings.iter().map(|s| Setting::parse(s).unwrap()));
    Config::from_text("", "", &all).unwrap().config
}

async fn sql(dir: &TempDir, statements: &[&str]) {
    let pool = SqlitePool::connect(&format!("sqlite:{}/s.db?mode=rwc", dir.path().display())).await.unwrap();
    for s in statements {
        sqlx::query(AssertSqlSafe(*s)).execute(&pool).await.unwrap();
    }
    pool.close().await;
}

async fn open_error(config: &Config) -> String {
    let error = open_provisioning(config).await.err().map(|e| e.to_string()).unwrap_or_default();
    error.split_once(": ").map(|(_, what)| what.to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_fresh_database_gets_the_schema_and_its_versions() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir, &[]);
    let p = open_provisioning(&config).await.unwrap();
    let c = open_cdrs(&config).await.unwrap();
    assert_eq!(open_calls(&config).await.unwrap().load().await.unwrap(), []);
    assert_eq!((p.load().await.unwrap(), c.count().await.unwrap()), (Provisioned::default(), 0));
    let pool = SqlitePool::connect(&format!("sqlite:{}/s.db", dir.path().display())).await.unwrap();
    let rows = sqlx::query("SELECT table_name, table_version FROM version ORDER BY 1").fetch_all(&pool).await.unwrap();
    let versions: Vec<(String, i64)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    let expected = [("cc_agents", 3), ("cc_calls", 3), ("cc_cdrs", 2), ("cc_flows", 2)];
    assert_eq!(versions, expected.map(|(t, v)| (t.to_owned(), v)));
    let columns = async |table: &str| {
        let names = sqlx::query_scalar::<_, String>("SELECT name FROM pragma_table_info(?)").bind(table.to_owned());
        names.fetch_all(&pool).await.unwrap().join(" ")
    };
    assert_eq!(
        columns("cc_flows").await,
        "id flowid priority skill prependcid max_wrapup_time dissuading_hangup dissuading_onhold_th dissuading_ewt_th \
         dissuading_qsize_th message_welcome message_queue message_dissuading message_flow_id"
    );
    assert_eq!(
        columns("cc_agents").await,
        "id agentid location logstate msrp_location msrp_max_sessions skills wrapup_end_time wrapup_time"
    );
    assert_eq!(
        columns("cc_cdrs").await,
        "id caller received_timestamp wait_time pickup_time talk_time flow_id agent_id call_type rejected fstats cid media"
    );
    assert_eq!(
        columns("cc_calls").await,
        "id state media ig_cback no_rej setup_time eta last_start recv_time caller_dn caller_un b2buaid flow agent script_param"
    );
    drop(open_provisioning(&config).await.unwrap());
}

#[tokio::test]
async fn rows_are_set_changed_and_removed() {
    let dir = TempDir::new().unwrap();
    let p = open_provisioning(&config(&dir, &[])).await.unwrap();
    let queue = ("message_queue", Cell::Text("sip:m@h".to_owned()));
    let cells = [("skill", Cell::Text("en".to_owned())), queue, ("prependcid", Cell::Null)];
    assert!(p.set(Table::Flows, "sales", &cells).await.unwrap());
    assert!(!p.set(Table::Flows, "sales", &[("priority", Cell::Int(3))]).await.unwrap());
    let rows = p.load().await.unwrap().rows;
    assert_eq!((rows.flows[0].priority, rows.flows[0].skill.as_deref()), (Some(3), Some("en")));
    assert_eq!(rows.flows[0].prependcid, None);
    assert!(p.set(Table::Agents, "ann", &[("location", Cell::Text("sip:a@h".to_owned()))]).await.unwrap());
    p.save_wrapups(&[("ann".into(), 77), ("ghost".into(), 5)]).await.unwrap();
    let rows = p.load().await.unwrap().rows;
    assert_eq!((rows.agents.len(), rows.agents[0].wrapup_end_time), (1, Some(77)));
    assert!(p.remove(Table::Agents, "ann").await.unwrap());
    assert!(!p.remove(Table::Agents, "ann").await.unwrap());
    let missing = p.set(Table::Flows, "bad", &[("skill", Cell::Text("en".to_owned()))]).await.unwrap_err();
    assert!(matches!(missing, StoreError::Refused(_)), "{missing}");
}

#[tokio::test]
async fn wrong_and_missing_versions_are_named() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir, &[]);
    drop(open_provisioning(&config).await.unwrap());
    sql(&dir, &["UPDATE version SET table_version = 1 WHERE table_name = 'cc_flows'"]).await;
    assert_eq!(
        open_error(&config).await,
        "table `cc_flows` has version 1 in table `version`, expected 2; migrate it as OpenSIPS' documentation of the version says"
    );
    sql(
        &dir,
        &[
            "UPDATE version SET table_version = 2 WHERE table_name = 'cc_flows'",
            "DELETE FROM version WHERE table_name = 'cc_agents'",
        ],
    )
    .await;
    assert_eq!(
        open_error(&config).await,
        "table `version` has no row for `cc_agents`; if its columns are those of version 3, INSERT INTO version \
         (table_name, table_version) VALUES ('cc_agents', 3)"
    );
}

#[tokio::test]
async fn an_existing_database_with_other_names_and_nulls_is_read_in_place() {
    let dir = TempDir::new().unwrap();
    let settings = [
        "call_center.cc_flows_table=queues",
        "call_center.ccf_flowid_column=queue_id",
        "call_center.ccf_cid_column=queue_cli_prefix",
        "call_center.cc_agents_table=my_agents",
        "call_center.cca_location_column=sip_uri",
    ];
    let config = config(&dir, &settings);
    sql(
        &dir,
        &[
            "CREATE TABLE version (table_name CHAR(32) NOT NULL, table_version INTEGER DEFAULT 0 NOT NULL)",
            "INSERT INTO version VALUES ('queues', '2'), ('my_agents', 3)",
            "CREATE TABLE queues (id INTEGER PRIMARY KEY, queue_id CHAR(64) NOT NULL, priority INTEGER, skill CHAR(64), \
             queue_cli_prefix CHAR(32), max_wrapup_time INTEGER, dissuading_hangup INTEGER, dissuading_onhold_th INTEGER, \
             dissuading_ewt_th INTEGER, dissuading_qsize_th INTEGER, message_welcome TEXT, message_queue TEXT, \
             message_dissuading TEXT, message_flow_id TEXT, colour TEXT)",
            "INSERT INTO queues (queue_id, skill, message_queue) VALUES ('sales', 'en', 'sip:m@h')",
            "CREATE TABLE my_agents (id INTEGER PRIMARY KEY, agentid CHAR(128), sip_uri TEXT, logstate INTEGER, msrp_location TEXT, \
             msrp_max_sessions INTEGER, skills TEXT, wrapup_end_time INTEGER, wrapup_time INTEGER)",
            "INSERT INTO my_agents (agentid, sip_uri, skills, logstate) VALUES ('ann', 'sip:a@h', 'en', '1')",
        ],
    )
    .await;
    let rows = open_provisioning(&config).await.unwrap().load().await.unwrap().rows;
    assert_eq!((rows.flows[0].flowid.as_deref(), rows.flows[0].priority), (Some("sales"), None));
    assert_eq!((rows.agents[0].location.as_deref(), rows.agents[0].logstate), (Some("sip:a@h"), Some(1)));
    let names = Names::of(&config.call_center);
    let fault = RowFault {
        table: Table::Agents,
        row: "ann".into(),
        column: "location",
        what: "is empty".into(),
        fix: "set it",
    };
    assert_eq!(names.tell(&fault), "my_agents `ann`: sip_uri: is empty; set it");
    sql(&dir, &["ALTER TABLE my_agents DROP COLUMN skills"]).await;
    assert_eq!(
        open_error(&config).await,
        "table `my_agents` has no column `skills`; add it, or set [call_center] cca_skills_column"
    );
}

/// The examples of the new manual; where it keeps a column's own name, another.
const RENAMED: [(&str, &str); 23] = [
    ("cc_agents_table", "my_agents"),
    ("cca_agentid_column", "cid"),
    ("cca_location_column", "sip_uri"),
    ("cca_msrp_location_column", "msrp_uri"),
    ("cca_msrp_max_sessions_column", "max_chats"),
    ("cca_skills_column", "can"),
    ("cca_logstate_column", "log_state"),
    ("cca_wrapuptime_column", "wtime"),
    ("cca_wrapupend_column", "wrapup_ends"),
    ("cc_flows_table", "queues"),
    ("ccf_flowid_column", "queue_id"),
    ("ccf_priority_column", "queue_prio"),
    ("ccf_skill_column", "queue_skill"),
    ("ccf_cid_column", "queue_cli_prefix"),
    ("ccf_max_wrapup_column", "queue_wrapup"),
    ("ccf_dissuading_hangup_column", "hangup_on_dissuading"),
    ("ccf_dissuading_onhold_th_column", "th_diss_onhold"),
    ("ccf_dissuading_ewt_th_column", "th_diss_ewt"),
    ("ccf_dissuading_qsize_th_column", "th_diss_qsize"),
    ("ccf_m_welcome_column", "audio_welcome"),
    ("ccf_m_queue_column", "audio_queue"),
    ("ccf_m_dissuading_column", "audio_dissuading"),
    ("ccf_m_flow_id_column", "audio_flow_id"),
];

/// Each key alone and all together: the schema is made with the new names, and each column means what it meant.
#[tokio::test]
async fn each_key_of_a_table_or_column_renames_it() {
    let mut sets: Vec<Vec<(&str, &str)>> = RENAMED.iter().map(|r| vec![*r]).collect();
    sets.push(RENAMED.to_vec());
    for renamed in sets {
        let dir = TempDir::new().unwrap();
        let settings: Vec<String> = renamed.iter().map(|(key, name)| format!("call_center.{key}={name}")).collect();
        let config = config(&dir, &settings.iter().map(String::as_str).collect::<Vec<_>>());
        let name = |key: &str, own| renamed.iter().find(|(k, _)| *k == key).map_or(own, |(_, n)| *n).to_owned();
        let p = open_provisioning(&config).await.unwrap();
        let flow = format!(
            "INSERT INTO {} ({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}) VALUES \
             ('f', 1, 'en', 'P', 2, 3, 4, 5, 6, 'sip:w@h', 'sip:q@h', 'sip:d@h', 'sip:i@h')",
            name("cc_flows_table", "cc_flows"),
            name("ccf_flowid_column", "flowid"),
            name("ccf_priority_column", "priority"),
            name("ccf_skill_column", "skill"),
            name("ccf_cid_column", "prependcid"),
            name("ccf_max_wrapup_column", "max_wrapup_time"),
            name("ccf_dissuading_hangup_column", "dissuading_hangup"),
            name("ccf_dissuading_onhold_th_column", "dissuading_onhold_th"),
            name("ccf_dissuading_ewt_th_column", "dissuading_ewt_th"),
            name("ccf_dissuading_qsize_th_column", "dissuading_qsize_th"),
            name("ccf_m_welcome_column", "message_welcome"),
            name("ccf_m_queue_column", "message_queue"),
            name("ccf_m_dissuading_column", "message_dissuading"),
            name("ccf_m_flow_id_column", "message_flow_id"),
        );
        let agent = format!(
            "INSERT INTO {} ({}, {}, {}, {}, {}, {}, {}, {}) VALUES ('a', 'sip:a@h', 'sip:c@h', 7, 'en', 1, 8, 9)",
            name("cc_agents_table", "cc_agents"),
            name("cca_agentid_column", "agentid"),
            name("cca_location_column", "location"),
            name("cca_msrp_location_column", "msrp_location"),
            name("cca_msrp_max_sessions_column", "msrp_max_sessions"),
            name("cca_skills_column", "skills"),
            name("cca_logstate_column", "logstate"),
            name("cca_wrapuptime_column", "wrapup_time"),
            name("cca_wrapupend_column", "wrapup_end_time"),
        );
        sql(&dir, &[&flow, &agent]).await;
        let rows = p.load().await.unwrap().rows;
        let text = |t: &str| Some(t.to_owned());
        let flow = FlowRow {
            flowid: text("f"),
            priority: Some(1),
            skill: text("en"),
            prependcid: text("P"),
            max_wrapup_time: Some(2),
            dissuading_hangup: Some(3),
            dissuading_onhold_th: Some(4),
            dissuading_ewt_th: Some(5),
            dissuading_qsize_th: Some(6),
            message_welcome: text("sip:w@h"),
            message_queue: text("sip:q@h"),
            message_dissuading: text("sip:d@h"),
            message_flow_id: text("sip:i@h"),
        };
        let agent = AgentRow {
            agentid: text("a"),
            location: text("sip:a@h"),
            msrp_location: text("sip:c@h"),
            msrp_max_sessions: Some(7),
            skills: text("en"),
            logstate: Some(1),
            wrapup_time: Some(8),
            wrapup_end_time: Some(9),
        };
        assert_eq!((rows.flows, rows.agents), (vec![flow], vec![agent]), "{renamed:?}");
    }
}

#[tokio::test]
async fn records_go_to_the_database_of_acc_db_url() {
    let dir = TempDir::new().unwrap();
    let elsewhere = config(&dir, &[&format!("call_center.acc_db_url=sqlite:{}/cdrs.db", dir.path().display())]);
    let c = open_cdrs(&elsewhere).await.unwrap();
    assert_eq!(c.write(&[(&cdr(1, "carl")).into()]).await.unwrap(), 1);
    let pool = SqlitePool::connect(&format!("sqlite:{}/cdrs.db", dir.path().display())).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM cc_cdrs").fetch_one(&pool).await.unwrap(), 1);
    assert_eq!(open_cdrs(&config(&dir, &[])).await.unwrap().count().await.unwrap(), 0, "the default is db_url");
}

#[tokio::test]
async fn a_path_that_cannot_be_opened_is_named() {
    let url = Setting::parse("call_center.db_url=sqlite:/nonexistent/x/s.db").unwrap();
    let config = Config::from_text("", "", &[url]).unwrap().config;
    let error = open_provisioning(&config).await.err().unwrap().to_string();
    assert!(error.starts_with("cannot open sqlite:/nonexistent/x/s.db: "), "{error}");
}

/// A record to write.
pub(crate) fn cdr(key: u128, caller: &str) -> Cdr {
    let flow = FlowDef { flowid: "sales".into(), ..FlowDef::default() };
    let agent = AgentDef {
        agent: AgentRef { slot: 0, gen_: 0 },
        agentid: "ann".into(),
        location: Some("sip:a@h".into()),
        msrp_location: None,
        msrp_max_sessions: 4,
        skills: vec![SkillId(0)],
        wrapup_s: 0,
    };
    Cdr {
        key,
        call: CallId { shard: 1, slot: 2, generation: 3 },
        sip_call_id: "abc@h".into(),
        caller: caller.into(),
        received_unix_us: 1_795_000_000_500_000,
        wait_us: 1_500_000,
        pickup_us: 499_999,
        talk_us: 9_700_000,
        talk_s: 10,
        flow: Arc::new(flow),
        agent: Some(Arc::new(agent)),
        call_type: CallType::Handled,
        rejected: 1,
        fstats: 7,
        cid: 42,
        media: CdrMedia::Audio,
        cause: 0,
        param: Some("order 5".into()),
    }
}

#[tokio::test]
async fn a_record_is_one_row_however_often_it_is_written() {
    let dir = TempDir::new().unwrap();
    let c = open_cdrs(&config(&dir, &[])).await.unwrap();
    let cdr = |key, caller: &str| CdrRow::from(&cdr(key, caller));
    let all: Vec<CdrRow> = (0..300).map(|i| cdr(i, &format!("c{i}"))).collect();
    assert_eq!(c.write(&all[..200]).await.unwrap(), 200);
    assert_eq!(c.write(&all[100..]).await.unwrap(), 100);
    assert_eq!(c.write(&all).await.unwrap(), 0);
    assert_eq!(c.write(&[all[0].clone(), cdr(1000, "x"), cdr(1000, "x")]).await.unwrap(), 1);
    assert_eq!(c.count().await.unwrap(), 301);
    let pool = SqlitePool::connect(&format!("sqlite:{}/s.db", dir.path().display())).await.unwrap();
    let rows = sqlx::query(
        "SELECT c.caller || '|' || received_timestamp || '|' || wait_time || '|' || pickup_time || '|' || talk_time || '|' || \
         flow_id || '|' || agent_id || '|' || call_type || '|' || rejected || '|' || fstats || '|' || cid || '|' || media || '|' || \
         call_id || '|' || sip_call_id || '|' || received_ms || '|' || wait_ms || '|' || cause || '|' || param \
         FROM cc_cdrs c JOIN strowger_cdrs s ON s.cdr_id = c.id ORDER BY c.id",
    );
    let rows: Vec<String> = rows.fetch_all(&pool).await.unwrap().iter().map(|r| r.get(0)).collect();
    assert_eq!(rows.len(), 301, "each row has its key");
    assert_eq!(
        rows[250],
        "c250|2026-11-18 11:06:40|2|0|10|sales|ann|0|1|7|42|1|1.2.3|abc@h|1795000000500|1500|0|order 5"
    );
}

/// SQLite keeps whatever another tool puts into a column: such a row is named, and the others are read.
#[tokio::test]
async fn a_cell_that_cannot_be_read_costs_its_own_row_only() {
    let dir = TempDir::new().unwrap();
    let p = open_provisioning(&config(&dir, &[])).await.unwrap();
    sql(
        &dir,
        &[
            "INSERT INTO cc_flows (flowid, skill, message_queue, priority) VALUES ('good', 'en', 'sip:m@h', '7')",
            "INSERT INTO cc_flows (flowid, skill, message_queue, priority) VALUES ('high', 'en', 'sip:m@h', 'high')",
            "INSERT INTO cc_flows (flowid, skill, message_queue, priority) VALUES ('half', 'en', 'sip:m@h', 1.5)",
            "INSERT INTO cc_flows (flowid, skill, message_queue, priority) VALUES ('real', 'en', 'sip:m@h', '3.0')",
            "INSERT INTO cc_flows (flowid, skill, message_queue) VALUES ('latin', x'66e972', 'sip:m@h')",
            "INSERT INTO cc_agents (agentid, location, skills) VALUES (CAST(x'e9' AS TEXT), 'sip:a@h', 'en')",
            "INSERT INTO cc_agents (agentid, location, skills, wrapup_end_time) VALUES ('ann', 'sip:a@h', 'en', 'soon')",
        ],
    )
    .await;
    let found = p.load().await.unwrap();
    let read: Vec<_> = found.rows.flows.iter().map(|f| (f.flowid.as_deref(), f.priority)).collect();
    assert_eq!(read, [(Some("good"), Some(7)), (Some("real"), Some(3))]);
    let faults: Vec<String> = found.faults.iter().map(RowFault::to_string).collect();
    assert_eq!(
        faults,
        [
            "cc_flows `high`: priority: `high` is not a whole number; write digits only",
            "cc_flows `half`: priority: `1.5` is not a whole number; write digits only",
            "cc_flows `latin`: skill: `f\u{fffd}r` is not UTF-8; write it anew in UTF-8",
            "cc_agents `\u{fffd}`: agentid: `\u{fffd}` is not UTF-8; write it anew in UTF-8",
            "cc_agents `ann`: wrapup_end_time: `soon` is not a whole number; write digits only",
        ]
    );
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_named_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    let at = |file: &str| config(&dir, &[&format!("call_center.db_url=sqlite:{}/{file}", dir.path().display())]);
    let error = async |file: &str| open_provisioning(&at(file)).await.err().map(|e| e.to_string()).unwrap_or_default();
    let missing = error("none/s.db").await;
    assert!(missing.starts_with("cannot open sqlite:") && missing.contains("; create its directory"), "{missing}");
    std::fs::write(dir.path().join("text.db"), "no database, but a letter to a friend ".repeat(20)).unwrap();
    let text = error("text.db").await;
    assert!(text.ends_with("file is not a database; name another file, or move this one away"), "{text}");
    drop(open_provisioning(&at("s.db")).await.unwrap());
    let holder = SqlitePool::connect(&format!("sqlite:{}/s.db", dir.path().display())).await.unwrap();
    let held = holder.begin_with("BEGIN EXCLUSIVE").await.unwrap();
    let locked = error("s.db").await;
    assert!(locked.starts_with("sqlite:") && locked.contains("end the program that holds it locked"), "{locked}");
    drop(held);
}

#[tokio::test]
async fn a_table_of_records_that_lacks_a_column_is_refused_before_a_record_is_lost_in_it() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir, &[]);
    drop(open_cdrs(&config).await.unwrap());
    sql(&dir, &["ALTER TABLE cc_cdrs DROP COLUMN media"]).await;
    let error = open_cdrs(&config).await.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.ends_with("table `cc_cdrs` has no column `media`; add it"), "{error}");
}
