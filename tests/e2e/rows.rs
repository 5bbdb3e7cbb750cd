//! Ongoing calls in the database: rows appear, follow the states and go; a start that finds no journal goes on with them.

use crate::databases::{Kind, shared};
use crate::restart::{Play, agents};
use crate::server::Server;
use crate::sipp::Sipp;
use loadtest::{Dist, Scenario};
use serde_json::json;
use sqlx::{Connection, Row, SqliteConnection};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use strowger::store::{Missing, OngoingCall, calls_at};

const QUEUED: u8 = 4;
const TO_AGENT: u8 = 6;

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

fn postgres() -> String {
    wait(async { shared(Kind::Postgres).await.fresh().await })
}

/// Where the server keeps the calls: `rt_db_url`, or the database of everything.
fn table(server: &Server, rt_db: Option<&str>) -> Vec<OngoingCall> {
    let url = rt_db.map_or_else(|| server.database(), str::to_owned);
    wait(async {
        let store = calls_at(&url.parse().expect("a URL"), Missing::Tell).await.expect("the table");
        store.load().await.expect("its rows")
    })
}

/// How many rows are in which state.
fn states(server: &Server, rt_db: Option<&str>) -> BTreeMap<u8, usize> {
    let mut states = BTreeMap::new();
    table(server, rt_db).iter().for_each(|c| *states.entry(c.state).or_default() += 1);
    states
}

fn scenario(rate: f64, calls: u32, talking: u32, ringing: u32, talk: Duration) -> Scenario {
    Scenario {
        rate,
        max_calls: Some(u64::from(calls)),
        duration: Duration::from_secs(60),
        agents: vec![agents(talking, Duration::ZERO), agents(ringing, Duration::from_secs(12))],
        talk: Dist::Fixed(talk),
        wrapup: Duration::from_secs(1),
        drain: Duration::from_secs(240),
        bridge_limit: Duration::from_secs(30),
        ..Scenario::default()
    }
}

fn rows_follow(rt_db: Option<&str>) {
    let setting = rt_db.map(|url| format!("call_center.rt_db_url={url}"));
    let settings: Vec<&str> = setting.iter().map(String::as_str).collect();
    let play = Play::begin(scenario(10.0, 3, 1, 0, Duration::from_secs(3)), &settings);
    let expected = BTreeMap::from([(QUEUED, 2), (TO_AGENT, 1)]);
    play.server.until("one talks, two wait", |s| states(s, rt_db) == expected);
    let rows = table(&play.server, rt_db);
    for row in &rows {
        assert!(row.agent_id.is_empty() != (row.state == TO_AGENT), "{row:?}");
        assert_eq!((&*row.flow_id, row.media, row.rejections), ("support", 0, 0));
        assert!(row.last_start_unix_s >= row.received_unix_s && !row.records.is_empty(), "{row:?}");
    }
    let ids: Vec<String> = rows.iter().map(|c| c.id.to_string()).collect();
    let listed = play.server.mi("cc_list_calls", json!([]))["Calls"].clone();
    assert!(listed.as_array().is_some_and(|l| l.iter().all(|c| ids.iter().any(|id| c["id"] == json!(id)))), "{listed}");
    play.server.until("the next is served", |s| states(s, rt_db) == BTreeMap::from([(QUEUED, 1), (TO_AGENT, 1)]));
    play.server.until("no call, no row", |s| table(s, rt_db).is_empty());
    play.end();
}

#[test]
fn rows_of_calls_appear_follow_them_and_go() {
    rows_follow(None);
}

#[test]
fn rows_of_calls_are_kept_in_the_database_of_rt_db_url() {
    rows_follow(Some(&postgres()));
}

#[test]
fn other_tools_find_calls_in_opensips_own_columns() {
    let mut server = Server::start_with(
        "[[rules]]\nruri_user = \"*\"\nflow = \"$1\"\nparam = \"order 5\"\n",
        // The caller waits for less than the second that rows are behind.
        &["call_center.reject_on_no_agents=0", "journal.rows_ms=50"],
    );
    let media = Sipp::serve("media", None);
    server.flow("support", "support", &media.location("music"), &[]);
    let caller = Sipp::call("caller-patience-bye", server.sip, "support", 1);
    let columns =
        "state, media, ig_cback, no_rej, setup_time, eta, last_start - recv_time, caller_un, flow, agent, script_param";
    let path = server.database();
    let read = async |what: &str| {
        let mut db = SqliteConnection::connect(&path).await.expect("it opens");
        let sql = format!("SELECT {what} FROM cc_calls");
        sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut db).await.expect("it is readable")
    };
    server.until("it waits", |_| wait(read("state")).iter().any(|r| r.get::<i64, _>(0) == 4));
    let rows = wait(read(columns));
    let (row, number) = (&rows[0], |i: usize| rows[0].get::<i64, _>(i));
    assert_eq!((0..5).map(number).collect::<Vec<_>>(), [4, 0, 0, 0, 0]);
    // Nobody is there to take it: the wait is unbounded.
    assert_eq!((number(5), number(6)), (i64::from(i32::MAX), 0));
    let text = |i: usize| row.get::<String, _>(i);
    assert_eq!((text(8), text(9), text(10)), ("support".into(), String::new(), "order 5".into()));
    assert!(!text(7).is_empty());
    caller.passed();
    server.until("it is gone", |_| wait(read("state")).is_empty());
    assert_eq!(server.terminate(), Some(0));
}

/// Everybody in place, kill -9, the journal lost.
fn go_on(rt_db: Option<&str>, shards: u16) {
    let (waiting, talking, ringing) = (30, 40, 5);
    let (calls, talk) = (waiting + talking + ringing, Duration::from_secs(12));
    let setting = rt_db.map(|url| format!("call_center.rt_db_url={url}"));
    let mut settings = vec!["call_center.agent_ring_timeout=60"];
    settings.extend(setting.as_deref());
    let mut play = Play::begin(scenario(60.0, calls, talking, ringing, talk), &settings);
    play.until("they talk", |l| &l.talking, i64::from(talking));
    play.until("they ring", |l| &l.ringing, i64::from(ringing));
    let expected = BTreeMap::from([(QUEUED, waiting as usize), (TO_AGENT, (talking + ringing) as usize)]);
    play.server.until("they are in the table", |s| states(s, rt_db) == expected);
    play.server.until("so as they are", |s| s.metric("strowger_call_rows_behind") == 0);
    let (queue, busy) = (play.queue(), play.talking());
    assert_eq!((queue.len(), busy.len()), (waiting as usize, (talking + ringing) as usize));
    // Of an agent the table of agents alone knows.
    let ends = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 3600;
    play.server.sql(&[format!(
        "INSERT INTO cc_agents (agentid, location, logstate, skills, wrapup_end_time) VALUES ('rests', 'sip:r@127.0.0.1:9', 1, 'rest', {ends})"
    )]);
    play.server.kill();
    play.server.lose_journal();
    play.server.start_again(shards);
    assert_eq!((play.queue(), play.talking()), (queue, busy));
    assert_eq!(play.server.agent_state("rests"), "wrapup");
    let (server, report) = play.end();
    assert_eq!(report.offered, u64::from(calls));
    let told = talk.as_secs() as i64;
    let wrong: Vec<_> =
        server.cdrs(calls as usize).into_iter().filter(|r| r.talk < told - 1 || r.talk > told + 2).collect();
    assert!(wrong.is_empty(), "talks of {told} s: {wrong:?}");
    server.until("no call, no row", |s| table(s, rt_db).is_empty());
}

#[test]
fn without_its_journal_a_killed_server_goes_on_from_the_table() {
    go_on(None, 2);
}

#[test]
fn on_another_machine_with_other_shards_calls_go_on_from_the_table() {
    go_on(Some(&postgres()), 3);
}

#[test]
fn a_row_that_cannot_go_on_ends_with_a_record_and_leaves_no_agent_busy() {
    let mut server = Server::start(&[]);
    server.flow("support", "support", "sip:music@127.0.0.1:9", &[]);
    server.agent("agent1", "support", "sip:agent1@127.0.0.1:9", true);
    server.kill();
    server.lose_journal();
    let row = |state: u8, id: &str, agent: &str| {
        format!(
            "INSERT INTO cc_calls (state, media, ig_cback, no_rej, setup_time, eta, last_start, recv_time, caller_dn, caller_un, \
             b2buaid, flow, agent, script_param) VALUES ({state}, 0, 0, 2, 4, 0, 1795000030, 1795000000, '', 'carl', '{id}', \
             'support', '{agent}', '')"
        )
    };
    server.sql(&[row(6, "B2B.7.1", "agent1"), row(4, "0.9.9", ""), row(7, "B2B.7.2", "agent1")]);
    server.start_again(2);
    let mut cdrs = server.cdrs(2);
    cdrs.sort_by_key(|r| r.fstats);
    let told: Vec<_> =
        cdrs.iter().map(|r| (r.call_type, r.agent.as_deref(), r.fstats, r.rejected, r.wait, r.talk)).collect();
    assert_eq!(told, [(-1, None, 1, 2, 30, 0), (-1, Some("agent1"), 7, 2, 30, 0)]);
    server.until("the rows are gone", |s| table(s, None).is_empty());
    assert_eq!(server.agent_state("agent1"), "free");
    server.assert_rest(&["agent1"]);
}
