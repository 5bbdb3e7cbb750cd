//! Each fault of a configuration, with the words that its reader gets; the example file; old names.

use super::*;

fn faults(text: &str) -> Vec<String> {
    match Config::from_text("f.toml", text, &[]) {
        Ok(loaded) => panic!("accepted: {text}\n{:?}", loaded.warnings),
        Err(e) => e.to_string().lines().map(str::to_owned).collect(),
    }
}

fn set(settings: &[&str]) -> Result<Config, String> {
    let settings: Vec<Setting> = settings.iter().map(|s| Setting::parse(s).unwrap()).collect();
    Config::from_text("", "", &settings).map(|l| l.config).map_err(|e| e.to_string())
}

#[test]
fn an_empty_file_is_the_defaults() {
    let loaded = Config::from_text("f.toml", "", &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.warnings.is_empty());
}

/// `UPDATE_EXAMPLE=1 cargo test -p strowger example` writes the file anew.
#[test]
fn the_example_file_is_the_schema_and_loads_as_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("strowger.example.toml");
    if std::env::var_os("UPDATE_EXAMPLE").is_some() {
        std::fs::write(&path, example_toml()).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, example_toml(), "run UPDATE_EXAMPLE=1 cargo test -p strowger example");
    let loaded = Config::from_text("strowger.example.toml", &text, &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.warnings.is_empty());
    let mut keys = 0;
    each_section!(&mut Config::default(), s => for value in s.show() { keys += usize::from(text.contains(&format!(" = {value}\n"))) });
    assert!(keys > 90, "{keys} keys in the example");
    // The rule of the example is a comment; without its marks each of its keys is known.
    let rule: String = text
        .split("\n# [[rules]]\n")
        .nth(1)
        .unwrap()
        .lines()
        .filter_map(|l| l.strip_prefix("# "))
        .fold(String::from("[[rules]]\n"), |text, l| if l.contains(" = ") { text + l + "\n" } else { text });
    // All of its keys are for different actions.
    let written = faults(&rule);
    assert_eq!(written.len(), 4, "{written:?}");
    for (fault, key) in written.iter().zip(["agent", "state", "code", "reason"]) {
        assert!(fault.contains(&format!("[[rules]] 1 {key}: means nothing to `handle_call`; remove it")), "{fault}");
    }
}

#[test]
fn every_key_of_the_manuals_is_there() {
    let names = "db_url acc_db_url rt_db_url wrapup_time queue_pos_param reject_on_no_agents chat_dispatch_policy \
        internal_call_dispatching b2b_scenario b2b_logic_ctx_param cc_agents_table cca_agentid_column cca_location_column \
        cca_msrp_location_column cca_msrp_max_sessions_column cca_skills_column cca_logstate_column cca_wrapuptime_column \
        cca_wrapupend_column cc_flows_table ccf_flowid_column ccf_priority_column ccf_skill_column ccf_cid_column \
        ccf_max_wrapup_column ccf_dissuading_hangup_column ccf_dissuading_onhold_th_column ccf_dissuading_ewt_th_column \
        ccf_dissuading_qsize_th_column ccf_m_welcome_column ccf_m_queue_column ccf_m_dissuading_column ccf_m_flow_id_column";
    for name in names.split_whitespace() {
        assert!(CallCenter::KEYS.iter().any(|k| k.name == name), "{name}");
    }
}

#[test]
fn values_are_read_by_their_types() {
    let text = r#"
        [sip]
        listen = ["udp:127.0.0.1:0", "udp:[::1]:5070"]
        advertise = "192.0.2.7"
        [call_center]
        db_url = "sqlite:///var/lib/s.db"
        wrapup_time = 0.25
        reject_on_no_agents = false
        agent_offer = "delayed"
        cc_agents_table = "my_agents"
        param_header = "X-Order"
        [mi]
        http = ""
        [shards]
        count = 2
    "#;
    let c = Config::from_text("f", text, &[]).unwrap().config;
    assert_eq!(c.sip.listen.iter().map(Listen::to_string).collect::<Vec<_>>(), ["udp:127.0.0.1:0", "udp:[::1]:5070"]);
    assert_eq!(c.sip.advertise.unwrap().to_string(), "192.0.2.7");
    assert_eq!(c.call_center.db_url, DbUrl::Sqlite("/var/lib/s.db".into()));
    assert_eq!(c.acc_db(), &c.call_center.db_url);
    assert_eq!(c.call_center.wrapup_time.us, 250_000);
    assert_eq!(c.call_center.cc_agents_table.as_str(), "my_agents");
    assert_eq!((c.mi.http, c.shard_count()), (None, 2));
    let engine = c.call_config();
    assert!(!engine.reject_on_no_agents);
    assert_eq!(engine.agent_offer, strowger_engine::AgentOffer::Delayed);
    assert_eq!(engine.param_header, "X-Order");
}

#[test]
fn every_fault_is_found_with_its_line_and_its_fix() {
    let text = "[sip]\nlissen = \"udp:1.2.3.4:5060\"\n[call_centre]\nwrapup_time = 3\n[call_center]\nwrapup_tiem = 3\n";
    let text = format!("{text}wrapup_time = \"soon\"\n[shards]\ncount = 5000\n");
    assert_eq!(
        faults(&text),
        [
            "f.toml:2: [sip] lissen: unknown key; did you mean `listen`?",
            "f.toml:3: [call_centre]: unknown section; did you mean `call_center`?",
            "f.toml:6: [call_center] wrapup_tiem: unknown key; did you mean `wrapup_time`?",
            "f.toml:7: [call_center] wrapup_time: expected a number of seconds, 0 or more, such as 30 or 0.5",
            "f.toml:9: [shards] count: 5000 is out of range, expected 0 to 1024",
        ]
    );
}

#[test]
fn each_kind_of_bad_value_is_named() {
    let one = |text: &str| {
        let f = faults(text);
        assert_eq!(f.len(), 1, "{f:?}");
        f[0].clone()
    };
    let cases = [
        (
            "[sip]\nlisten = \"5060\"",
            "`5060` is not of the form TRANSPORT:ADDR:PORT, such as udp:0.0.0.0:5060 or udp:[::]:5060 (a list is written [..])",
        ),
        (
            "[sip]\nlisten = [\"udp:localhost:5060\"]",
            "`udp:localhost:5060` is not of the form TRANSPORT:ADDR:PORT, such as udp:0.0.0.0:5060 or udp:[::]:5060",
        ),
        ("[sip]\nlisten = [\"tls:1.2.3.4:5061\"]", "transport tls is not in this build; use udp"),
        ("[sip]\nlisten = []", "no listener; name at least one, such as \"udp:0.0.0.0:5060\""),
        ("[sip]\nadvertise = \"here\"", "`here` is not an address, expected ADDR or ADDR:PORT, such as 192.0.2.1:5060"),
        ("[sip]\nadvertise = \"0.0.0.0\"", "peers cannot send to a wildcard; name one address, such as 192.0.2.1"),
        (
            "[sip]\nlisten = [\"udp:127.0.0.1:5060\", \"udp:127.0.0.1:5060\"]",
            "udp:127.0.0.1:5060 is there twice; keep one",
        ),
        (
            "[shards]\ncount = 4\n[sip]\nshard_port_base = 65533",
            "leaves no port for each of 4 shards; use at most 65532",
        ),
        ("[sip]\nuser_agent = \"a\\r\\nX-Evil: 1\"", "holds a line break or another control character; remove it"),
        (
            "[sip]\npass_headers = [\"a b\"]",
            "`a b` is no header; write a name such as x-account, or the start of names such as x-*",
        ),
        (
            "[sip]\npass_headers = [\"*\"]",
            "`*` is no header; write a name such as x-account, or the start of names such as x-*",
        ),
        ("[sip]\npass_headers = [\"C*\"]", "`C*` cannot pass: the server writes its own; remove it"),
        ("[sip]\npass_headers = [\"Via\"]", "`Via` cannot pass: the server writes its own; remove it"),
        ("[sip]\noutbound_proxy = \"sip:a b\"", "is not a SIP URI; write sip:HOST or sip:HOST:PORT"),
        ("[sip]\nmax_headers = \"many\"", "expected a whole number, found string"),
        ("[sip]\nmin_se = 2000", "is greater than session_expires; make it at most as long"),
        ("[sip]\noverload_retry_after_min = 11", "is greater than overload_retry_after_max; make it at most as great"),
        ("[sip]\noutbound_proxy = \"proxy\"", "is not a SIP URI; write sip:HOST or sip:HOST:PORT"),
        (
            "[call_center]\ndb_url = \"strowger.db\"",
            "no database URL; use sqlite:PATH, scylla://HOST/KEYSPACE, mysql://USER:PASSWORD@HOST/DATABASE or \
             postgres://USER:PASSWORD@HOST/DATABASE",
        ),
        ("[call_center]\ndb_url = \"sqlite:\"", "`sqlite:` names no file; use sqlite:PATH, such as sqlite:strowger.db"),
        ("[call_center]\nwrapup_time = -1", "expected a number of seconds, 0 or more, such as 30 or 0.5"),
        (
            "[call_center]\ncc_flows_table = \"a; drop\"",
            "`a; drop` is not a plain name; use letters, digits and underscores, at most 64, not starting with a digit",
        ),
        (
            "[call_center]\nccf_skill_column = \"1st\"",
            "`1st` is not a plain name; use letters, digits and underscores, at most 64, not starting with a digit",
        ),
        ("[call_center]\nreject_on_no_agents = \"yes\"", "expected 0, 1, true or false, found string"),
        (
            "[call_center]\nagent_offer = \"late\"",
            "`late` is not known here, expected \"caller\" or \"delayed\" or \"auto\"",
        ),
        (
            "[call_center]\nchat_dispatch_policy = \"fair\"",
            "`fair` is not known here, expected \"balancing\" or \"full-load\"",
        ),
        (
            "[call_center]\nparam_header = \"via\"",
            "`via` is a header that the server writes itself; use one of your own, X-NAME",
        ),
        (
            "[call_center]\ncca_skills_column = \"AgentID\"",
            "`AgentID` is another column of `cc_agents` already; name each once",
        ),
        ("[call_center]\ncc_flows_table = \"cc_agents\"", "`cc_agents` is another table already; name each once"),
        ("[call_center]\ncc_agents_table = \"version\"", "`version` is another table already; name each once"),
        ("[call_center]\nparam_header = \"X Y\"", "`X Y` cannot name a SIP header; use letters, digits and dashes"),
        ("[call_center]\nqueue_pos_param = \"a b\"", "cannot name a URI parameter; use letters, digits and dashes"),
        ("[call_center]\nb2b_logic_ctx_param = \"a b\"", "cannot name a SIP header; use letters, digits and dashes"),
        ("[refusals]\nno_agents = 200", "200 is out of range, expected 400 to 699"),
        ("[mi]\nhttp = \"8888\"", "`8888` is not of the form ADDR:PORT, such as 127.0.0.1:8888"),
        ("[mi]\nhttp_path = \"mi\"", "`mi` is not a path such as /mi"),
        ("[mi]\nhttp_path = \"/healthz\"", "/healthz is taken by the health check; choose another, such as /mi"),
        (
            "[mi]\ndatagram = [\"udp:8080\"]",
            "`udp:8080` is not of the form udp:ADDR:PORT or unix:PATH, such as udp:127.0.0.1:8080",
        ),
        ("[mi]\nfile_mode = \"0999\"", "`0999` is not a file mode, expected octal digits such as \"0660\""),
        (
            "[journal]\nenabled = 0\n[server]\non_stop = \"leave\"",
            "\"leave\" needs the journal; set [journal] enabled = 1",
        ),
        ("[cdr]\nbatch = 0", "0 is out of range, expected 1 to 1000"),
        ("[metrics]\npath = \"/mi\"", "/mi is taken already; choose another, such as /metrics"),
        ("[server]\ndata_dir = \"\"", "the path is empty"),
        ("[log]\nlevel = \"a=b=c\"", "is not a level or filter; use error, warn, info, debug or trace"),
        ("[log]\nlevel = \"loud\"", "is not a level or filter; use error, warn, info, debug or trace"),
        ("[log]\nformat = \"xml\"", "`xml` is not known here, expected \"text\" or \"json\""),
        ("wrapup_time = 3", "a key outside a section; it belongs under [call_center]"),
        ("[nothing_like_it]", "unknown section; did you mean `journal`?"),
        ("[[sip]]\nt1_ms = 500", "not a list of sections; write [sip], once"),
        ("[rules]\nx = 1", "rules are a list; write [[rules]] before each"),
    ];
    for (text, words) in cases {
        let fault = one(text);
        assert!(fault.ends_with(&format!(": {words}")), "{text}\n{fault}");
    }
    assert!(one("[sip\n").starts_with("f.toml:1: not TOML: "));
    let deep = format!("[log]\nlevel = \"off\"\n\n[{}]\n\n", ["a"; 200].join("."));
    assert!(one(&deep).starts_with("f.toml:4: not TOML: "), "{}", one(&deep));
    assert!(one("[log]\n\nlevel = \"loud\"").starts_with("f.toml:3: [log] level: "));
    for level in ["off", "WARN", "info,strowger_engine=debug", "strowger=trace"] {
        assert!(Config::from_text("", &format!("[log]\nlevel = \"{level}\""), &[]).is_ok(), "{level}");
    }
}

#[test]
fn faults_of_rules_name_the_rule_the_key_and_the_fix() {
    let text = r#"
[[rules]]
[[rules]]
name = "codes"
ruri_user = "~("
action = "agent_login"
agent = "$1"
code = 486
[[rules]]
action = "dance"
[[rules]]
flo = "x"
on_failure = "later"
[[rules]]
action = "reject"
code = 200
"#;
    assert_eq!(
        faults(text),
        [
            "f.toml:5: [[rules]] 2 (codes) ruri_user: `(` is not a regular expression: unclosed group",
            "f.toml:7: [[rules]] 2 (codes) agent: there is no capture $1; the patterns of this rule have 0",
            "f.toml:8: [[rules]] 2 (codes) code: means nothing to `agent_login`; remove it, or write action = \"reject\"",
            "f.toml:10: [[rules]] 3 action: `dance` is not known here, expected \"handle_call\" or \"agent_login\" or \"reject\"",
            "f.toml:12: [[rules]] 4 flo: unknown key; did you mean `flow`?",
            "f.toml:16: [[rules]] 5 code: 200 is out of range, expected 400 to 699",
        ]
    );
    let text = "[[rules]]\naction = \"agent_login\"\nagent = \"a\"\nstate = true\n[[rules]]\nparam = \"p\"";
    let config = Config::from_text("f", text, &[]).unwrap().config;
    assert_eq!((config.rules[0].state.0.as_str(), config.routing_rules().list().len()), ("1", 2));
    assert_eq!(Config::default().routing_rules().list().len(), 1, "the Request-URI user is the flow id");
}

#[test]
fn rules_take_the_functions_of_the_manuals_by_their_names() {
    let text = "[[rules]]\naction = \"cc_agent_login\"\nagentID = \"a\"\n[[rules]]\naction = \"cc_handle_call\"\nflowID = \"f\"";
    let loaded = Config::from_text("f", text, &[]).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(Fault::to_string).collect();
    assert_eq!(
        warnings,
        [
            "f:3: [[rules]] 1 agentID: an old name, taken as `agent`",
            "f:1: [[rules]] 1 action: an old name, taken as `agent_login`",
            "f:6: [[rules]] 2 flowID: an old name, taken as `flow`",
            "f:4: [[rules]] 2 action: an old name, taken as `handle_call`",
        ]
    );
    assert_eq!((loaded.config.rules[0].agent.as_str(), loaded.config.rules[1].flow.as_str()), ("a", "f"));
    assert_eq!(
        faults("[[rules]]\nflowID = \"a\"\nflow = \"b\""),
        ["f.toml:2: [[rules]] 1 flowID: is \"a\", and `flow`, the new name of the same thing, is \"b\"; keep one"]
    );
    assert_eq!(
        faults("[[rules]]\naction = \"reject\"\nflowID = \"a\"")[0],
        "f.toml:1: [[rules]] 1 flow: means nothing to `reject`; remove it, or write action = \"handle_call\""
    );
}

#[test]
fn an_old_and_a_new_name_may_not_differ() {
    let both = |old: &str, new: &str| {
        format!("[call_center]\nchat_internal_call_dispatching = {old}\ninternal_call_dispatching = {new}\n")
    };
    let loaded = Config::from_text("f.toml", &both("1", "true"), &[]).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    let clash = "is 1, and `internal_call_dispatching`, the new name of the same thing, is 0; keep one";
    assert_eq!(faults(&both("1", "0")), [format!("f.toml:2: [call_center] chat_internal_call_dispatching: {clash}")]);
    let flags = set(&["call_center.chat_internal_call_dispatching=1", "call_center.internal_call_dispatching=0"]);
    assert_eq!(flags.unwrap_err(), format!("--set: call_center.chat_internal_call_dispatching: {clash}"));
    // What is said on the command line goes over the file, under whatever name.
    let setting = Setting::parse("call_center.chat_internal_call_dispatching=0").unwrap();
    let over = Config::from_text("f", "[call_center]\ninternal_call_dispatching = 1", &[setting]).unwrap();
    assert!(!over.config.call_center.internal_call_dispatching.0);
    assert!(
        faults("[call_center]\nparam_header = \"X-A\"\nb2b_logic_ctx_param = \"b\"")[0]
            .ends_with("b2b_logic_ctx_param: makes the header `X-b`, and param_header says `X-A`; keep one")
    );
}

#[test]
fn old_names_and_keys_without_effect_are_warned_of() {
    let text = "[call_center]\nchat_internal_call_dispatching = 1\nb2b_scenario = \"call center\"\nb2b_logic_ctx_param = \"order\"";
    let loaded = Config::from_text("f.toml", text, &[]).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(Fault::to_string).collect();
    assert_eq!(
        warnings,
        [
            "f.toml:2: [call_center] chat_internal_call_dispatching: an old name, taken as `internal_call_dispatching`",
            "f.toml:3: [call_center] b2b_scenario: does nothing: scenarios are built in; remove the key",
        ]
    );
    assert_eq!(loaded.config.call_center.param_header.0, "X-order");
    let loaded = Config::from_text("", "[call_center]\nrt_db_url = \"sqlite:x\"\n[journal]\nenabled = 0", &[]).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(Fault::to_string).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("cc_calls is kept from the journal"), "{warnings:?}");
}

#[test]
fn settings_go_over_the_file_and_take_strings_without_quotes() {
    let c =
        set(&["call_center.wrapup_time=2", "call_center.agent_offer=caller", "mi.http=", "sip.listen=udp:127.0.0.1:0"])
            .unwrap();
    assert_eq!((c.call_center.wrapup_time.us, c.mi.http, c.sip.listen[0].addr.port()), (2_000_000, None, 0));
    let c = set(&["sip.listen=[\"udp:127.0.0.1:1\", \"udp:127.0.0.1:2\"]", "sip.user_agent=42"]).unwrap();
    assert_eq!((c.sip.listen.len(), c.sip.user_agent.as_str()), (2, "42"));
    assert_eq!(
        set(&["call_center.wrapup=2"]).unwrap_err(),
        "--set: call_center.wrapup: unknown key; did you mean `wrapup_time`?"
    );
    assert_eq!(set(&["centre.x=2"]).unwrap_err().split(';').next(), Some("--set: centre.x: unknown section"));
    assert_eq!(
        set(&["mi.http=8888"]).unwrap_err(),
        "--set: mi.http: `8888` is not of the form ADDR:PORT, such as 127.0.0.1:8888"
    );
    assert_eq!(
        set(&["rules.x=1"]).unwrap_err(),
        "--set: rules.x: rules are set in the file only; write [[rules]] there"
    );
    assert_eq!(
        set(&["sip.listen=[]"]).unwrap_err(),
        "--set: sip.listen: no listener; name at least one, such as \"udp:0.0.0.0:5060\""
    );
    assert!(set(&["shards.count=lots"]).unwrap_err().contains("expected a whole number"));
    assert!(Setting::parse("wrapup_time=2").unwrap_err().contains("section.key=value"));
    assert!(Setting::parse("call_center.wrapup_time").is_err());
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let e = Config::load(Some(Path::new("/nonexistent/x.toml")), &[]).unwrap_err();
    assert!(e.to_string().starts_with("cannot read /nonexistent/x.toml: "));
}

#[test]
fn the_nearest_name_is_the_one_with_the_fewest_edits() {
    assert_eq!(nearest("wrapup", ["wrapup_time", "wrap"]), Some("wrap"));
}
