//! A database that OpenSIPS' own schema made, with an operator's rows: Strowger runs on it as it is.

use super::databases::{Database, Kind, shared};
use super::suite::{cdr, cdrs, everything, ongoing, own_names, provisioned};
use super::support::{Scene, Server};
use sqlx::{Connection, Row};
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use strowger::store::OngoingCall;
use strowger_engine::{CdrRow, registry};

/// The database; its tables' CREATE statements, to compare.
async fn operators(name: &str) -> (&'static Database, String) {
    let server = shared(Kind::Mariadb).await;
    // As MySQL 5 and MariaDB make it where nothing else is said.
    server.script(None, &[&format!("CREATE DATABASE {name} CHARACTER SET latin1")]).await;
    server.script(Some(name), &[include_str!("../data/opensips-mysql.sql")]).await;
    (server, server.url(name))
}

async fn forms(at: &str) -> Vec<String> {
    let mut c = sqlx::MySqlConnection::connect(at).await.unwrap();
    let mut forms = vec![];
    for table in ["version", "cc_flows", "cc_agents", "cc_cdrs", "cc_calls"] {
        let row =
            sqlx::query(sqlx::AssertSqlSafe(format!("SHOW CREATE TABLE {table}"))).fetch_one(&mut c).await.unwrap();
        let form: String = row.get(1);
        // The next id is not of the form.
        let words: Vec<&str> = form.split(' ').filter(|w| !w.starts_with("AUTO_INCREMENT=")).collect();
        forms.push(words.join(" "));
    }
    forms
}

#[tokio::test]
async fn rows_of_opensips_are_read_and_ours_stand_beside_them() {
    let (_, at) = operators("opensips_rows").await;
    let before = forms(&at).await;
    let p = provisioned(&at, &own_names()).await;
    let found = p.load().await.unwrap();
    assert_eq!((found.faults.len(), registry::check(&found.rows)), (0, vec![]));
    assert_eq!(found.rows.flows[0].prependcid.as_deref(), Some("Support"));
    assert_eq!(found.rows.agents[1].agentid.as_deref(), Some("j\u{f6}rg"), "Latin 1 there, UTF-8 here");
    p.save_wrapups(&[("j\u{f6}rg".into(), 1_795_000_000)]).await.unwrap();
    assert_eq!(p.load().await.unwrap().rows.agents[1].wrapup_end_time, Some(1_795_000_000));

    let c = cdrs(&at).await;
    let theirs = everything(&*c).await;
    assert_eq!((theirs.len(), theirs[0].talk_s, theirs[0].talk_us), (2, 60, 60_000_000));
    assert_eq!(theirs[0].received_unix_us, 1_714_557_600_000_000, "timestamps are UTC");
    // Letters that Latin 1 has not, and more of them than the column takes: kept whole beside it.
    let ours = [cdr(77), CdrRow { caller: "\u{1f9e1}".repeat(70).into(), cid: u64::MAX, ..cdr(78) }];
    assert_eq!(c.write(&ours).await.unwrap(), 2);
    assert_eq!(c.write(&ours).await.unwrap(), 0);
    let rows = everything(&*c).await;
    assert_eq!((rows.len(), &rows[2], &rows[3].caller), (4, &ours[0], &ours[1].caller));

    let o = ongoing(&at).await;
    let call = OngoingCall {
        id: "0.1.2".into(),
        state: 5,
        media: 0,
        rejections: 0,
        received_unix_s: 1_795_000_000,
        last_start_unix_s: 1_795_000_000,
        setup_s: 0,
        estimated_wait_s: u32::MAX.into(),
        caller_display: "\u{17b}\u{f3}\u{142}w ".repeat(40).into(),
        caller_user: "z".into(),
        flow_id: "support".into(),
        agent_id: "".into(),
        param: "".into(),
        records: vec![1, 0, 255].into(),
    };
    for _ in 0..2 {
        o.save(std::slice::from_ref(&call), &[]).await.unwrap();
        assert_eq!(o.load().await.unwrap(), std::slice::from_ref(&call));
    }
    assert_eq!(forms(&at).await, before, "their tables are as they were");
}

/// A caller who gives up in the queue, as a phone would do it.
fn abandoned_call(to: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.connect(to).unwrap();
    let here = socket.local_addr().unwrap();
    let send = |method: &str, to_tag: &str, body: &str| {
        let message = format!(
            "{method} sip:support@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bKone\r\nMax-Forwards: 70\r\n\
             From: \"Carl\" <sip:carl@{here}>;tag=c\r\nTo: <sip:support@{to}>{to_tag}\r\nCall-ID: one@{here}\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:carl@{here}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.send(message.as_bytes()).unwrap();
    };
    let answer = |code: &str, method: &str| loop {
        let mut buffer = [0; 4096];
        let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no {code} to {method}: {e}"));
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if text.starts_with(&format!("SIP/2.0 {code} ")) && text.contains(&format!("1 {method}\r\n")) {
            return text;
        }
        assert!(!text.starts_with("SIP/2.0 4") || text.starts_with("SIP/2.0 487"), "{text}");
    };
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    send("INVITE", "", sdp);
    answer("100", "INVITE");
    send("CANCEL", "", "");
    answer("200", "CANCEL");
    let end = answer("487", "INVITE");
    let tag = end.lines().find_map(|l| l.strip_prefix("To: ")?.split_once(";tag=")).map(|(_, t)| t.to_owned()).unwrap();
    send("ACK", &format!(";tag={tag}"), "");
}

#[tokio::test]
async fn a_server_runs_on_the_database_of_opensips() {
    let (_, at) = operators("opensips_server").await;
    let before = forms(&at).await;
    let set = format!("call_center.db_url={at}");
    let scene = Scene::new();
    let run = |args: &[&str]| {
        let args: Vec<&str> = args.iter().chain(&["--mi-http", "127.0.0.1:1", "--set", &set]).copied().collect();
        scene.out(&args)
    };
    assert_eq!(run(&["check"]), "configuration sound; 2 flows and 2 agents sound\n");
    assert!(run(&["agent", "list"]).contains("j\u{f6}rg"));
    let server = Server::start(&scene, &["--set", &set, "--set", "call_center.reject_on_no_agents=0"]);
    let from = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    abandoned_call(&server.listen());
    let c = cdrs(&at).await;
    let began = Instant::now();
    while c.count().await.unwrap() < 3 {
        assert!(began.elapsed() < Duration::from_secs(20), "no record");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rows = everything(&*c).await;
    let row = &rows[2];
    assert_eq!((&*row.caller, &*row.flow_id, row.call_type, row.fstats, row.media), ("carl", "support", 1, 9, 1));
    assert!((from..from + 60).contains(&(row.received_unix_us / 1_000_000)));
    let mut mysql = sqlx::MySqlConnection::connect(&at).await.unwrap();
    let age = "SELECT TIMESTAMPDIFF(SECOND, received_timestamp, UTC_TIMESTAMP()) FROM cc_cdrs WHERE caller = 'carl'";
    let age: i64 = sqlx::query_scalar(age).fetch_one(&mut mysql).await.unwrap();
    assert!((0..60).contains(&age), "UTC: {age}");
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(forms(&at).await, before, "their tables are as they were");
}
