//! Usage and configuration faults: exit codes and words; `strowger check`.

mod support;

use support::{Scene, code, stderr, stdout};

#[test]
fn help_tells_a_newcomer_what_there_is() {
    let scene = Scene::new();
    let help = scene.run(&["--help"]);
    assert_eq!(code(&help), 0);
    for word in [
        "run",
        "check",
        "flow",
        "agent",
        "cdr",
        "latency",
        "audit",
        "mi",
        "drain",
        "demo",
        "--config",
        "--data-dir",
        "--listen",
        "--advertise",
        "--mi-http",
        "--db",
        "--shards",
        "--set",
    ] {
        assert!(stdout(&help).contains(word), "{word}");
    }
    let demo = stdout(&scene.run(&["demo", "--help"]));
    for word in ["--seconds", "--rate", "--agents", "--talk", "--seed", "--json", "[default: 20]", "[default: 50]"] {
        assert!(demo.contains(word), "{word}");
    }
    assert!(stdout(&scene.run(&["--version"])).starts_with("strowger "));
}

#[test]
fn bad_usage_and_bad_configuration_end_with_2() {
    let scene = Scene::new();
    scene.write("bad.toml", "[call_center]\nwrapup_tiem = 2\n");
    let cases: [(&[&str], &str); 7] = [
        (&["--nonsense"], "unexpected argument '--nonsense'"),
        (&["demo", "--rate", "0"], "expected a number above 0"),
        (&["--set", "wrapup_time=2"], "is not of the form section.key=value"),
        (&["--set", "call_center.wrapup_time=soon"], "--set: call_center.wrapup_time: expected a number of seconds"),
        (&["--listen", "5060"], "--listen: sip.listen: `5060` is not of the form TRANSPORT:ADDR:PORT"),
        (&["--config", "bad.toml"], "bad.toml:2: [call_center] wrapup_tiem: unknown key; did you mean `wrapup_time`?"),
        (&["--config", "missing.toml"], "cannot read missing.toml"),
    ];
    for (args, words) in cases {
        let out = scene.run(args);
        assert_eq!(code(&out), 2, "{args:?}");
        assert!(stderr(&out).contains(words), "{args:?}: {}", stderr(&out));
        assert_eq!(stdout(&out), "", "{args:?}");
    }
}

#[test]
fn check_names_every_fault_of_configuration_and_rows() {
    let scene = Scene::new();
    let fresh = scene.run(&["check"]);
    assert_eq!(code(&fresh), 0);
    assert!(stdout(&fresh).contains("is not there yet: it is made at the first start"));
    assert!(!scene.path("s.db").exists(), "checking makes no database");
    scene.out(&["flow", "set", "sales", "--skill", "en", "--message-queue", "sip:m@h"]);
    assert_eq!(scene.out(&["check"]), "configuration sound; 1 flows and 0 agents sound\n");
    scene.sql("INSERT INTO cc_flows (flowid, skill, message_queue) VALUES ('mute', 'en', '')");
    scene
        .sql("INSERT INTO cc_agents (agentid, location, skills, msrp_location) VALUES ('bob', 'bob', 'en', 'sip:b@h')");
    let out = scene.run(&["check"]);
    assert_eq!(code(&out), 1);
    assert_eq!(
        stdout(&out).lines().collect::<Vec<_>>(),
        [
            "cc_flows `mute`: message_queue: is empty; set it to the SIP URI of the queue's music",
            "cc_agents `bob`: location: `bob` is not a SIP URI; write sip:USER@HOST[:PORT]",
        ]
    );
    scene.write("strowger.toml", "[shards]\ncount = 5000\n[sip]\nlissen = 1\n");
    let out = scene.run(&["check"]);
    assert_eq!(code(&out), 1);
    assert_eq!(stdout(&out).lines().count(), 2, "./strowger.toml is read: {}", stdout(&out));
    scene.write("strowger.toml", "[call_center]\nb2b_scenario = \"call center\"\n");
    scene.sql("DELETE FROM cc_flows WHERE flowid = 'mute'");
    scene.sql("DELETE FROM cc_agents");
    let out = scene.run(&["check"]);
    assert_eq!(code(&out), 0);
    assert!(
        stdout(&out).starts_with("warning: strowger.toml:2: [call_center] b2b_scenario: does nothing"),
        "{}",
        stdout(&out)
    );
    scene.out(&["db", "init"]);
    scene.sql("UPDATE version SET table_version = 1 WHERE table_name = 'cc_cdrs'");
    let out = scene.run(&["check"]);
    assert_eq!(code(&out), 1);
    assert!(stdout(&out).contains("table `cc_cdrs` has version 1"), "{}", stdout(&out));
    let out = scene.run(&["check", "--set", "call_center.acc_db_url=sqlite:none/cdrs.db"]);
    assert_eq!(code(&out), 1);
    assert!(stdout(&out).contains("sqlite:none/cdrs.db: there is no directory none; create it"), "{}", stdout(&out));
    scene.sql("UPDATE version SET table_version = 9 WHERE table_name = 'cc_agents'");
    scene.sql("UPDATE version SET table_version = 2 WHERE table_name = 'cc_cdrs'");
    let out = scene.run(&["check"]);
    assert_eq!(code(&out), 1);
    assert!(stdout(&out).contains("table `cc_agents` has version 9"), "{}", stdout(&out));
}

#[test]
fn provisioning_works_without_a_server_and_refuses_what_would_not_load() {
    let scene = Scene::new();
    let out = scene.run(&["agent", "set", "bob", "--location", "bob"]);
    assert_eq!(code(&out), 1);
    let words = "strowger: cc_agents `bob`: location: `bob` is not a SIP URI; write sip:USER@HOST[:PORT]\nstrowger: nothing was written\n";
    assert_eq!(stderr(&out), words);
    assert!(!scene.out(&["agent", "list"]).contains("bob"));
    let out = scene.run(&["agent", "set", "bob", "--location", "sip:b@h", "--set", "mi.http=127.0.0.1:1"]);
    assert_eq!(code(&out), 0, "{}", stderr(&out));
    assert_eq!(stderr(&out), "strowger: no server at http://127.0.0.1:1/mi; the next start reads it\n");
    let out = scene.run(&["flow", "set", "sales", "--skill", "en", "--message-queue", "sip:m@h", "--priority", "-1"]);
    assert!(stderr(&out).contains("priority: -1 is out of range; use 0 to 4294967295"), "{}", stderr(&out));
    let out = scene.run(&["flow", "remove", "ghost"]);
    assert_eq!(
        (code(&out), stderr(&out).as_str()),
        (1, "strowger: there is no flow `ghost`; `strowger flow list` shows all\n")
    );
    let out = scene.run(&["mi", "version", "--mi", "http://127.0.0.1:1"]);
    assert_eq!(code(&out), 1);
    assert!(stderr(&out).starts_with("strowger: no server answers at http://127.0.0.1:1/mi: "), "{}", stderr(&out));
}

#[test]
fn check_route_tells_which_rule_takes_a_call_and_what_it_would_do() {
    let scene = Scene::new();
    scene.write(
        "strowger.toml",
        r#"
[[rules]]
name = "feature codes"
ruri_user = '~^\*(?P<state>[01])(\d+)$'
source = "10.0.0.0/8"
action = "agent_login"
agent = "a$2"
state = "${state}"
[[rules]]
ruri_user = "8*"
header = "X-Tenant: *"
flow = "$2"
param = "line=$1"
on_failure = "next"
[[rules]]
ruri_user = "8*"
flow = "sales"
[[rules]]
from = "sip:*@spam.example"
action = "reject"
code = 403
reason = "No"
"#,
    );
    scene.out(&["flow", "set", "support", "--skill", "en", "--message-queue", "sip:m@h"]);
    let unknown = scene.out(&["check"]);
    assert!(
        unknown.starts_with("warning: [[rules]] 3 flow: there is no flow `sales`; add it, or the rule refuses\n"),
        "{unknown}"
    );
    scene.out(&["flow", "set", "sales", "--skill", "en", "--message-queue", "sip:m@h"]);
    assert!(!scene.out(&["check"]).contains("warning"));
    scene.out(&["agent", "set", "a77", "--skills", "en", "--location", "sip:a@h", "--logstate", "1"]);
    scene.out(&["agent", "set", "a78", "--skills", "en,de", "--location", "sip:a@h"]);
    scene.out(&["agent", "set", "a79", "--skills", "de", "--location", "sip:a@h"]);
    let tried = |args: &[&str]| {
        let out = scene.run(&[&["check", "--route"], args].concat());
        (code(&out), stdout(&out).lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let (code, said) = tried(&["INVITE sip:*177@h", "--source", "10.2.3.4"]);
    assert_eq!(
        (code, said.iter().map(String::as_str).collect::<Vec<_>>()),
        (0, vec!["rule 1 (feature codes) matches", "  $1 ${state} = 1", "  $2 = 77", "  agent_login: logs `a77` in"])
    );
    let (code, said) = tried(&["INVITE sip:*09@h", "--source", "10.2.3.4"]);
    assert_eq!((code, said[4].as_str()), (1, "nothing takes it: there is no agent `a9` (404)"));
    let (code, said) = tried(&["INVITE sip:*177@h"]);
    assert_eq!((code, said.as_slice()), (1, &["nothing takes it: no rule matches".to_owned()][..]));
    // The first is refused, the second takes it.
    let (code, said) = tried(&["INVITE sip:800@h", "--header", "X-Tenant: acme", "--from", "\"Al\" <sip:al@h>"]);
    assert_eq!(
        (code, said.iter().map(String::as_str).collect::<Vec<_>>()),
        (
            0,
            vec![
                "rule 2 matches",
                "  $1 = 00",
                "  $2 = acme",
                "  handle_call: flow `acme`, param line=00",
                "  on_failure: the next rule is tried",
                "rule 3 matches",
                "  $1 = 00",
                "  handle_call: flow `sales`",
                "  found: skill en, priority 256, agents by their logstate: a77 (in), a78 (out)",
            ]
        )
    );
    scene.out(&["agent", "set", "a77", "--logstate", "0"]);
    let (code, said) = tried(&["INVITE sip:80@h"]);
    assert_eq!((code, said[4].as_str()), (0, "  while none of them is logged in, it is answered 480 (-4)"));
    let (code, said) = tried(&["INVITE sip:1@h", "--from", "sip:x@spam.example"]);
    assert_eq!(
        (code, said[2].as_str(), said[3].as_str()),
        (1, "  reject: 403 No", "nothing takes it: rejected with 403")
    );
    for (args, words) in [
        (&["sip:1@h"][..], "is not of the form \"METHOD URI\""),
        (&["INVITE sip:@@"], "the URI cannot be read"),
        (&["IN\u{1}VITE sip:1@h"], "no request that could come"),
        (&["INVITE sip:1@h", "--header", "X"], "is not of the form \"Name: value\""),
        (&["INVITE sip:1@h", "--header", "X: a\r\nY: b"], "cannot hold a line break"),
        (&["INVITE sip:1@h", "--source", "here"], "invalid value 'here'"),
    ] {
        let out = scene.run(&[&["check", "--route"], args].concat());
        assert_eq!(support::code(&out), 2, "{args:?}");
        assert!(stderr(&out).contains(words), "{args:?}: {}", stderr(&out));
    }
}
