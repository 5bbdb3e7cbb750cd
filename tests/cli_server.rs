//! The binary as a user runs it: start, ready line, management, signals, faults and their exit codes.

mod support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;
use support::{Scene, Server, code, stderr, stdout};

#[test]
fn it_serves_on_free_ports_and_stops_orderly() {
    let scene = Scene::new();
    let server = Server::start(&scene, &["--shards", "2"]);
    assert_eq!(server.ready["ready"], true);
    assert_eq!(server.ready["shards"], 2);
    let listen = server.listen();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let local = socket.local_addr().unwrap();
    let options = format!(
        "OPTIONS sip:{listen} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKcli1\r\nMax-Forwards: 70\r\nFrom: <sip:t@{local}>;tag=1\r\n\
         To: <sip:{listen}>\r\nCall-ID: cli-options@{local}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    );
    socket.send_to(options.as_bytes(), listen).unwrap();
    let mut answer = [0; 2048];
    let n = socket.recv(&mut answer).unwrap();
    assert!(answer[..n].starts_with(b"SIP/2.0 200 "), "{}", String::from_utf8_lossy(&answer[..n]));
    let health = server.get("/healthz");
    assert_eq!((health.0, health.1.as_str()), (200, r#"{"status":"ok"}"#));
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
}

/// How Linux schedules the threads of a process, by their names: 0 as all, 2 real-time and round-robin.
fn policies(pid: u32) -> Vec<(String, u32)> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).ok());
    let read = |stat: String| {
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
        (name.to_owned(), rest.split_whitespace().nth(38).unwrap().parse().unwrap())
    };
    stats.map(read).collect()
}

#[test]
fn shards_and_nobody_else_run_in_real_time_where_they_may() {
    let scene = Scene::new();
    let server = Server::start(&scene, &["--shards", "2", "--set", "shards.real_time=1"]);
    let threads = policies(server.pid());
    // What a shard's executor starts beside it has the shard's name.
    let (real_time, others): (Vec<_>, Vec<_>) = threads.iter().partition(|(_, policy)| *policy == 2);
    let names: BTreeSet<_> = real_time.iter().map(|(name, _)| name.as_str()).collect();
    let granted = !real_time.is_empty();
    assert!(others.iter().all(|(_, policy)| *policy == 0), "{threads:?}");
    assert!(!granted || (real_time.len(), names.len()) == (2, 2), "{threads:?}");
    assert!(names.iter().all(|name| name.starts_with("shard-")), "{threads:?}");
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(granted, !log.contains("no real-time priority"), "{threads:?}\n{log}");
}

/// Memory of a process that is in the machine's, and no file's, KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory_is_taken_at_the_start_when_it_is_told_to() {
    let resident_with = |mib: &str| {
        let scene = Scene::new();
        let server = Server::start(&scene, &["--set", &format!("shards.reserve_mb={mib}")]);
        // Longer than the allocator keeps what is freed, if it is not told to.
        std::thread::sleep(Duration::from_millis(2500));
        let kib = resident(server.pid());
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        assert!(status.contains("THP_enabled:\t0"), "no huge pages: {status}");
        let (code, log) = server.terminate();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("reserve_mb"), "{log}");
        kib
    };
    let (without, with) = (resident_with("0"), resident_with("256"));
    // What the start itself needs comes out of it.
    assert!(with > 250 * 1024 && with < without + 270 * 1024, "{with} KiB, {without} without");
    let scene = Scene::new();
    let much = scene.run(&["run", "--listen", "udp:127.0.0.1:0", "--set", "shards.reserve_mb=16000000"]);
    assert_eq!(code(&much), 1);
    assert!(stderr(&much).contains("shards.reserve_mb is 16000000, and only"), "{}", stderr(&much));
}

#[test]
fn the_live_audit_can_be_looked_at() {
    let scene = Scene::new();
    let server = Server::start(&scene, &["--shards", "2"]);
    let until = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let told = stdout(&scene.run(&["audit", "--json", "--mi", server.mi()]));
        let told: Value = serde_json::from_str(&told).unwrap();
        let shards = told["Shards"].as_array().unwrap();
        assert_eq!((shards.len(), &told["Faults"], &told["Reports"]), (2, &json!({}), &json!([])));
        if shards.iter().all(|shard| shard["Sweeps"].as_u64() >= Some(2)) {
            break;
        }
        assert!(std::time::Instant::now() < until, "{told}");
    }
    let table = stdout(&scene.run(&["audit", "--mi", server.mi()]));
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.ends_with("No mismatch was found since the start.\n"), "{table}");
}

#[test]
fn the_management_interface_speaks_json_rpc_over_http() {
    let scene = Scene::new();
    let server = Server::start(&scene, &[]);
    let ask = r#"{"jsonrpc":"2.0","id":1,"method":"version"}"#;
    for path in ["/mi", "/mi/"] {
        let (status, body) = server.post(path, ask);
        assert_eq!(status, 200);
        assert!(body.starts_with(r#"{"jsonrpc":"2.0","result":{"Server":"Strowger ("#), "{body}");
    }
    assert_eq!(server.post("/mi", r#"{"jsonrpc":"2.0","method":"version"}"#), (204, String::new()));
    let (status, body) = server.post("/mi", "");
    assert_eq!(status, 400);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["error"]["code"], -32700);
    assert_eq!(server.post("/mi", "{not json").0, 200);
    assert_eq!(server.post("/mi", &" ".repeat(2_000_000)).0, 413);
    assert_eq!(server.get("/mi").0, 405);
    assert_eq!(server.get("/nothing").0, 404);
}

#[test]
fn flows_and_agents_are_provisioned_and_the_running_server_follows() {
    let scene = Scene::new();
    let server = Server::start(&scene, &[]);
    let run = |args: &[&str]| {
        let all: Vec<&str> = args.iter().copied().chain(["--mi", server.mi()]).collect();
        let out = scene.run(&all);
        assert_eq!(code(&out), 0, "{args:?}: {}", stderr(&out));
        stdout(&out)
    };
    assert_eq!(
        run(&["flow", "set", "sales", "--skill", "en", "--message-queue", "sip:m@127.0.0.1:5099"]),
        "flow sales added\n"
    );
    assert_eq!(
        run(&["agent", "set", "ann", "--location", "sip:a@127.0.0.1:5098", "--skills", "en"]),
        "agent ann added\n"
    );
    let agents = || serde_json::from_str::<Value>(&run(&["mi", "cc_list_agents"])).unwrap()["Agents"].clone();
    assert_eq!(agents(), json!([{"id": "ann", "Ref": 0, "Loged in": "NO"}]));
    assert_eq!(run(&["agent", "login", "ann"]), "agent ann logged in\n");
    assert_eq!(agents()[0]["State"], "free");
    // By hand, the table unchanged; then the command must still do what it says.
    // As the old control tool wrote it.
    run(&["fifo", "cc_agent_login", "ann", "0"]);
    assert_eq!(agents()[0]["Loged in"], "NO");
    run(&["agent", "login", "ann"]);
    assert_eq!(agents()[0]["Loged in"], "YES");
    assert_eq!(run(&["agent", "set", "ann", "--skills", "en,fr"]), "agent ann changed\n");
    assert_eq!(agents()[0]["Loged in"], "YES");
    assert!(scene.out(&["flow", "list"]).contains("sales"));
    let list: Value = serde_json::from_str(&scene.out(&["agent", "list", "--json"])).unwrap();
    assert_eq!((&list[0]["skills"], &list[0]["logstate"]), (&json!("en,fr"), &json!(1)));
    let stats = run(&["mi", "get_statistics", "ccf_free_agents-sales", "ccg_incalls"]);
    assert_eq!(
        serde_json::from_str::<Value>(&stats).unwrap(),
        json!({"call_center:ccf_free_agents-sales": 1, "call_center:ccg_incalls": 0})
    );
    assert_eq!(run(&["agent", "remove", "ann"]), "agent ann removed\n");
    assert_eq!(agents(), json!([]));
    let ghost = scene.run(&["agent", "login", "ghost", "--mi", server.mi()]);
    assert_eq!(
        (code(&ghost), stderr(&ghost).as_str()),
        (1, "strowger: there is no agent `ghost`; `strowger agent list` shows all\n")
    );
    let unknown = scene.run(&["mi", "cc_agent_login", "ghost", "1", "--mi", server.mi()]);
    assert_eq!((code(&unknown), stderr(&unknown).as_str()), (1, "strowger: error 404: Agent not found\n"));
}

#[test]
fn a_second_server_fails_and_names_what_is_taken() {
    let scene = Scene::new();
    let server = Server::start(&scene, &[]);
    let same_data = scene.run(&["run", "--listen", "udp:127.0.0.1:0", "--mi-http", "127.0.0.1:0"]);
    assert_eq!(code(&same_data), 1);
    assert!(stderr(&same_data).contains(&format!("is in use by process {}", server.pid())), "{}", stderr(&same_data));
    let other = Scene::new();
    let same_port = other.run(&["--listen", &format!("udp:{}", server.listen()), "--mi-http", "127.0.0.1:0"]);
    assert_eq!(code(&same_port), 1);
    assert!(stderr(&same_port).contains(&server.listen()), "{}", stderr(&same_port));
    let http = server.ready["mi_http"].as_str().unwrap();
    let same_http = other.run(&["--listen", "udp:127.0.0.1:0", "--mi-http", http]);
    assert_eq!(code(&same_http), 1);
    assert!(stderr(&same_http).contains(&format!("cannot listen on http {http}")), "{}", stderr(&same_http));
}

#[test]
fn rows_that_cannot_be_loaded_are_named_and_the_rest_serves() {
    let scene = Scene::new();
    assert_eq!(code(&scene.run(&["agent", "set", "ann", "--location", "sip:a@127.0.0.1:5098", "--skills", "en"])), 0);
    scene.sql("INSERT INTO cc_agents (agentid, skills) VALUES ('nowhere', 'en')");
    let server = Server::start(&scene, &[]);
    let body = server.post("/mi", r#"{"jsonrpc":"2.0","id":1,"method":"cc_list_agents"}"#).1;
    assert!(body.contains("\"ann\"") && !body.contains("nowhere"), "{body}");
    let (_, log) = server.terminate();
    let words = "row not loaded: cc_agents `nowhere`: location: is empty, and so is msrp_location; set one of them to the agent's SIP URI";
    assert!(log.contains(words), "{log}");
}

#[test]
fn dispatching_begins_as_it_is_configured() {
    let scene = Scene::new();
    for (settings, told) in [
        (&[][..], 1),
        (&["--set", "call_center.internal_call_dispatching=0"], 0),
        (&["--set", "call_center.chat_internal_call_dispatching=0"], 0),
    ] {
        let server = Server::start(&scene, settings);
        let body = server.post("/mi", r#"{"jsonrpc":"2.0","id":1,"method":"cc_internal_call_dispatching"}"#).1;
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["result"], json!({"dispatching": told}), "{settings:?}");
    }
}

/// Two chats for two agents, who both live at one socket and let them ring: whom each INVITE is for.
fn two_chats(policy: &str) -> Vec<String> {
    let scene = Scene::new();
    let agents = UdpSocket::bind("127.0.0.1:0").unwrap();
    agents.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let at = agents.local_addr().unwrap();
    scene.out(&["flow", "set", "sales", "--skill", "en", "--message-queue", "sip:m@127.0.0.1:5099"]);
    for agent in ["ann", "bob"] {
        scene.out(&[
            "agent",
            "set",
            agent,
            "--location",
            &format!("sip:{agent}@{at}"),
            "--skills",
            "en",
            "--logstate",
            "1",
        ]);
    }
    scene.sql("UPDATE cc_agents SET msrp_location = location");
    let server = Server::start(&scene, &["--set", &format!("call_center.chat_dispatch_policy={policy}")]);
    let (to, caller) = (server.listen(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let from = caller.local_addr().unwrap();
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=message 2855 TCP/MSRP *\r\n\
               a=accept-types:text/plain\r\na=path:msrp://127.0.0.1:2855/x;tcp\r\n";
    let (mut calls, mut users) = (vec![], vec![]);
    for n in 1..=2 {
        let invite = format!(
            "INVITE sip:sales@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKchat{n}\r\nMax-Forwards: 70\r\n\
             From: <sip:carl@{from}>;tag={n}\r\nTo: <sip:sales@{to}>\r\nCall-ID: chat{n}@{from}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:carl@{from}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        );
        caller.send_to(invite.as_bytes(), &to).unwrap();
        // What rings is repeated; each chat has a Call-ID of its own.
        while calls.len() < n {
            let mut bytes = [0; 4096];
            let read = agents.recv(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
            let call = text.lines().find(|l| l.starts_with("Call-ID:")).unwrap().to_owned();
            if text.starts_with("INVITE sip:") && !calls.contains(&call) {
                calls.push(call);
                users.push(text["INVITE sip:".len()..].split('@').next().unwrap().to_owned());
            }
        }
    }
    users
}

#[test]
fn chats_go_to_agents_by_the_configured_policy() {
    let (spread, filled) = (two_chats("balancing"), two_chats("full-load"));
    assert!(spread[0] != spread[1] && filled[0] == filled[1], "{spread:?} {filled:?}");
}

#[test]
fn the_data_directory_keeps_its_key() {
    let scene = Scene::new();
    let key = scene.path("data/hash.key");
    Server::start(&scene, &[]).terminate();
    let first = std::fs::read(&key).unwrap();
    Server::start(&scene, &[]).terminate();
    assert_eq!((first.len(), std::fs::read(&key).unwrap()), (16, first));
    std::fs::write(&key, b"short").unwrap();
    let out = scene.run(&["--listen", "udp:127.0.0.1:0", "--mi-http", "127.0.0.1:0"]);
    assert_eq!(code(&out), 1);
    assert!(stderr(&out).contains("hash.key: it is not 16 bytes long; remove it"), "{}", stderr(&out));
}

#[test]
fn a_wrap_up_goes_on_after_a_restart() {
    let scene = Scene::new();
    scene.out(&["agent", "set", "ann", "--location", "sip:a@127.0.0.1:5098", "--skills", "en", "--logstate", "1"]);
    scene.sql("UPDATE cc_agents SET wrapup_end_time = unixepoch() + 60");
    let server = Server::start(&scene, &[]);
    let body = server.post("/mi", r#"{"jsonrpc":"2.0","id":1,"method":"cc_list_agents"}"#).1;
    let agents: Value = serde_json::from_str(&body).unwrap();
    let ann = &agents["result"]["Agents"][0];
    assert_eq!((&ann["Loged in"], &ann["State"]), (&json!("YES"), &json!("wrapup")), "{body}");
    assert!((50..=60).contains(&ann["Wrapup-ends"].as_i64().unwrap()), "{body}");
}

/// A server with a call on its way to the music: the server, its caller.
fn with_a_call(scene: &Scene, stop_timeout: &str) -> (Server, UdpSocket) {
    let media = UdpSocket::bind("127.0.0.1:0").unwrap();
    let caller = UdpSocket::bind("127.0.0.1:0").unwrap();
    for socket in [&media, &caller] {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    let music = format!("sip:music@localhost:{}", media.local_addr().unwrap().port());
    scene.out(&["flow", "set", "sales", "--skill", "en", "--message-queue", &music]);
    let limit = format!("server.stop_timeout={stop_timeout}");
    let server = Server::start(scene, &["--set", &limit, "--set", "call_center.reject_on_no_agents=0"]);
    let (to, from) = (server.listen(), caller.local_addr().unwrap());
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let invite = format!(
        "INVITE sip:sales@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKcli2\r\nMax-Forwards: 70\r\nFrom: <sip:carl@{from}>;tag=1\r\n\
         To: <sip:sales@{to}>\r\nCall-ID: cli-stop@{from}\r\nCSeq: 1 INVITE\r\nContact: <sip:carl@{from}>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    );
    caller.send_to(invite.as_bytes(), &to).unwrap();
    let mut bytes = [0; 4096];
    let n = media.recv(&mut bytes).unwrap();
    assert!(bytes[..n].starts_with(b"INVITE sip:music@localhost"), "{}", String::from_utf8_lossy(&bytes[..n]));
    (server, caller)
}

/// The music server's name is looked up; the stop ends the call that waits and writes its record.
#[test]
fn a_stop_ends_what_its_limit_leaves_and_writes_every_record() {
    let scene = Scene::new();
    let (server, caller) = with_a_call(&scene, "0.1");
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    let mut bytes = [0; 4096];
    let status = loop {
        let n = caller.recv(&mut bytes).unwrap();
        let status: u16 = std::str::from_utf8(&bytes[8..11]).unwrap().parse().unwrap();
        assert!(bytes[..n].starts_with(b"SIP/2.0 "));
        if status >= 200 {
            break status;
        }
    };
    assert!(status >= 400, "{status}");
    assert_eq!(scene.count("SELECT count(*) FROM cc_cdrs WHERE caller = 'carl' AND flow_id = 'sales'"), 1);
}

#[test]
fn a_second_signal_does_not_wait_for_the_calls() {
    let scene = Scene::new();
    let (mut server, _caller) = with_a_call(&scene, "3600");
    server.signal();
    server.log_until("waiting for the present ones");
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(scene.count("SELECT count(*) FROM cc_cdrs WHERE caller = 'carl' AND flow_id = 'sales'"), 1);
}
