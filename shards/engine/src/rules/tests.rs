//! Rules by themselves: what matches, what is captured, what the faults say.

use super::*;
use proptest::prelude::*;
use std::net::IpAddr;
use strowger_sip::msg::{Limits, Message};

fn message(uri: &str, from: &str, to: &str, more: &str) -> String {
    format!(
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1\r\nFrom: {from};tag=1\r\nTo: {to}\r\nCall-ID: c1@h\r\nCSeq: 1 INVITE\r\n{more}Content-Length: 0\r\n\r\n"
    )
}

fn plain(uri: &str) -> String {
    message(uri, "\"A\" <sip:al%69ce@Example.COM:5070;user=phone>", "<sip:bob@h>", "")
}

fn def(change: impl FnOnce(&mut RuleDef)) -> RuleDef {
    let mut def = RuleDef { method: String::new(), ..RuleDef::default() };
    change(&mut def);
    def
}

fn call(flow: &str, param: &str) -> ActionDef {
    ActionDef::HandleCall { flow: flow.into(), param: param.into() }
}

/// Flow and parameter that one rule makes of a message from 10.1.2.3.
fn taken(def: &RuleDef, text: &str) -> Option<(String, Option<String>)> {
    taken_from(def, text, "10.1.2.3")
}

fn taken_from(def: &RuleDef, text: &str, source: &str) -> Option<(String, Option<String>)> {
    let msg = Message::parse(text.as_bytes(), &Limits::default()).expect("a sound message");
    let mut rules = Rules::new(vec![Rule::new(def).expect("a sound rule")]);
    match rules.next(0, &Request::new(&msg, source.parse::<IpAddr>().unwrap()))?.act {
        Act::HandleCall { flow, param } => Some((String::from_utf8_lossy(flow).into(), param.map(Into::into))),
        other => panic!("{other:?}"),
    }
}

fn fault(change: impl FnOnce(&mut RuleDef)) -> String {
    let faults = Rule::new(&def(change)).expect_err("a fault");
    faults.iter().map(|f| format!("{}: {}", f.key, f.what)).collect::<Vec<_>>().join("; ")
}

#[test]
fn without_rules_the_user_of_the_request_uri_is_the_flow() {
    let text = plain("sip:sa%6Ces@h");
    let msg = Message::parse(text.as_bytes(), &Limits::default()).unwrap();
    let mut rules = Rules::new(vec![]);
    let request = Request::new(&msg, IpAddr::from([1, 2, 3, 4]));
    let decision = rules.next(0, &request).unwrap();
    assert_eq!(decision.act, Act::HandleCall { flow: b"sales", param: None });
    assert_eq!((decision.index, decision.on_failure), (0, OnFailure::Answer));
    assert!(rules.next(1, &request).is_none());
}

#[test]
fn each_condition_tests_its_own_part_of_the_request() {
    let text = message(
        "sip:100@PBX.example.com;x=1",
        "\"A\" <sip:al%69ce@Example.COM:5070;user=phone>",
        "<tel:+49-30>",
        "X-Tenant: acme 7\r\nX-Tenant: other\r\ns: hello\r\n",
    );
    let holds = |change: &dyn Fn(&mut RuleDef, String), yes: &[&str], no: &[&str]| {
        for (pattern, want) in yes.iter().map(|p| (p, true)).chain(no.iter().map(|p| (p, false))) {
            let def = def(|d| change(d, (*pattern).to_owned()));
            assert_eq!(taken(&def, &text).is_some(), want, "{pattern}");
        }
    };
    holds(&|d, p| d.method = p, &["INVITE", "=INVITE", "*", "I*", "~^INV"], &["MESSAGE"]);
    holds(
        &|d, p| d.ruri_user = p,
        &["100", "1*", "1??", "~^\\d{3}$", "=100", "\\1*0"],
        &["10", "1?", "=1*", "200", "1\\*"],
    );
    holds(&|d, p| d.ruri_host = p, &["pbx.example.com", "*.EXAMPLE.com", "~\\.example\\."], &["example.com"]);
    holds(&|d, p| d.from = p, &["sip:alice@example.com:5070", "*alice@*", "~^sip:alice@"], &["alice", "*user=phone"]);
    holds(&|d, p| d.to = p, &["tel:+49-30", "~\\+49"], &["sip:*"]);
    holds(
        &|d, p| d.header = p,
        &["X-Tenant: acme*", "x-tenant: =other", "Subject: hello"],
        &["X-Tenant: acme", "X-No: *"],
    );
    holds(
        &|d, p| d.source = p,
        &["10.1.2.3", "10.0.0.0/8", "10.1.2.0/24", "0.0.0.0/0", "10.1.2.*", "~^10\\.", "=10.1.2.3"],
        &["10.1.2.4", "10.1.3.0/24", "::/0", "192.168.*"],
    );
}

#[test]
fn sources_of_ipv6_match_however_they_are_written() {
    for (pattern, source, want) in [
        ("2001:DB8::/32", "2001:db8:1::9", true),
        ("2001:db8::/32", "2001:db9::1", false),
        ("2001:0db8:0:0::1", "2001:db8::1", true),
        ("10.0.0.0/8", "::ffff:10.9.9.9", true),
        ("2001:db8::/32", "10.0.0.1", false),
    ] {
        let def = def(|d| d.source = pattern.into());
        assert_eq!(taken_from(&def, &plain("sip:x@h"), source).is_some(), want, "{pattern} {source}");
    }
}

#[test]
fn templates_take_captures_by_number_and_name_and_parts_of_the_request() {
    let def = def(|d| {
        d.ruri_user = "~^(?P<flow>[a-z]+)-(\\d+)?$".into();
        d.ruri_host = "*.example.?".into();
        d.header = "X-Tenant: *-*".into();
        d.action = call("${flow}", "$2|$3|$4|$5/$6|${header}|${from_user}|${to_user}|${call_id}|${source}|$$1|${1}");
    });
    let text = message("sip:sales-42@pbx.example.c", "<sip:al@h>", "<sip:b@h>", "X-Tenant: a-b\r\n");
    let (flow, param) = taken(&def, &text).unwrap();
    assert_eq!(flow, "sales");
    assert_eq!(param.unwrap(), "42|pbx|c|a/b|a-b|al|b|c1@h|10.1.2.3|$1|sales");
    // A group that took no part is empty.
    let text = message("sip:sales-@pbx.example.c", "<sip:al@h>", "<sip:b@h>", "X-Tenant: a-b\r\n");
    assert!(taken(&def, &text).unwrap().1.unwrap().starts_with("|pbx|"));
}

#[test]
fn the_captures_of_a_decision_can_be_listed() {
    let rule = def(|d| {
        d.ruri_user = "~^(?P<op>in|out)(x)?(\\d+)$".into();
        d.action = ActionDef::AgentLogin { agent: "a$3".into(), state: "1".into() };
    });
    let text = plain("sip:in77@h");
    let msg = Message::parse(text.as_bytes(), &Limits::default()).unwrap();
    let mut rules = Rules::new(vec![Rule::new(&rule).unwrap()]);
    let act = rules.next(0, &Request::new(&msg, IpAddr::from([1, 2, 3, 4]))).unwrap().act;
    assert_eq!(act, Act::AgentLogin { agent: b"a77", on: Some(true) });
    let listed: Vec<_> = rules.captures(0).map(|(n, name, text)| (n, name.map(str::to_owned), text)).collect();
    assert_eq!(listed, [(1, Some("op".into()), "in".into()), (2, None, String::new()), (3, None, "77".into())]);
}

#[test]
fn login_states_are_numbers() {
    for (state, want) in [("0", Some(false)), ("1", Some(true)), ("-7", Some(true)), ("$1", None)] {
        let rule = def(|d| {
            d.ruri_user = "~^(x)?".into();
            d.action = ActionDef::AgentLogin { agent: "a".into(), state: state.into() };
        });
        let text = plain("sip:x@h");
        let msg = Message::parse(text.as_bytes(), &Limits::default()).unwrap();
        let mut rules = Rules::new(vec![Rule::new(&rule).unwrap()]);
        let act = rules.next(0, &Request::new(&msg, IpAddr::from([1, 2, 3, 4]))).unwrap().act;
        assert_eq!(act, Act::AgentLogin { agent: b"a", on: want }, "{state}");
    }
}

#[test]
fn faults_name_the_key_and_the_fix() {
    let cases: Vec<(String, &str)> = vec![
        (fault(|d| d.ruri_user = "~(".into()), "ruri_user: `(` is not a regular expression: unclosed group"),
        (
            fault(|d| d.ruri_user = "a\\".into()),
            "ruri_user: ends in a backslash, which takes the meaning from what follows it",
        ),
        (
            fault(|d| d.header = "X-Tenant".into()),
            "header: `X-Tenant` is not of the form Name: PATTERN, such as \"X-Tenant: acme*\"",
        ),
        (
            fault(|d| d.source = "10.0.0.0/33".into()),
            "source: `10.0.0.0/33` is not of the form ADDR/BITS, such as 10.0.0.0/8 or 2001:db8::/32",
        ),
        (
            fault(|d| d.source = "10.1.2.3/8".into()),
            "source: `10.1.2.3/8` has bits set behind its first 8; write 10.0.0.0/8",
        ),
        (
            fault(|d| d.method = "REGISTER".into()),
            "method: `REGISTER` never comes here; rules see INVITE, and MESSAGE outside calls",
        ),
        (fault(|d| d.action = call("$1", "")), "flow: there is no capture $1; the patterns of this rule have 0"),
        (
            fault(|d| d.action = call("x", "${nme}")),
            "param: there is no capture ${nme}; write (?P<nme>..) in a pattern, or one of method, ruri_user, ruri_host, from, to, header, source, from_user, to_user, call_id",
        ),
        (fault(|d| d.action = call("x", "a$")), "param: a $ stands alone; write $1, ${NAME}, or $$ for a dollar"),
        (fault(|d| d.action = call("x", "${a")), "param: a ${ is not closed; write } behind the name"),
        (
            fault(|d| d.action = call("x", "${header}")),
            "param: ${header} is what the rule's condition on a header matched; add one",
        ),
        (
            fault(|d| d.action = call("", "")),
            "flow: is empty; name a flow, or take one from the request, such as \"${ruri_user}\"",
        ),
        (
            fault(|d| d.action = call("x", "a\r\nX-Evil: 1")),
            "param: holds a line break or another control character; remove it",
        ),
        (
            fault(|d| d.action = ActionDef::AgentLogin { agent: "a".into(), state: "in".into() }),
            "state: is neither a number nor a capture; write 1 (in), 0 (out), or such as \"$1\"",
        ),
        (
            fault(|d| d.action = ActionDef::AgentLogin { agent: String::new(), state: "1".into() }),
            "agent: is empty; name an agent, or take one from the request, such as \"$1\"",
        ),
        (
            fault(|d| d.action = ActionDef::Reject { code: 403, reason: "a\r\nb".into() }),
            "reason: holds a line break or another control character; remove it",
        ),
        (
            fault(|d| {
                d.action = ActionDef::Reject { code: 403, reason: String::new() };
                d.on_failure = "next".into();
            }),
            "on_failure: means nothing to `reject`, which cannot fail; remove it",
        ),
        (
            fault(|d| d.on_failure = "later".into()),
            "on_failure: `later` is not known here, expected \"next\" or a SIP code from 400 to 699",
        ),
        (
            fault(|d| {
                d.from = "~(?P<a>x)".into();
                d.to = "~(?P<a>x)".into();
            }),
            "name: two captures have the name `a`; name each once",
        ),
    ];
    for (got, want) in cases {
        assert_eq!(got, want);
    }
}

proptest! {
    /// Whatever a caller puts into the Request-URI, the parameter is one line without control characters.
    #[test]
    fn no_request_can_put_a_line_into_the_parameter(bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
        let user: String = bytes.iter().map(|b| format!("%{b:02X}")).collect();
        let def = def(|d| {
            d.ruri_user = "~(?s-u)^(.*)$".into();
            d.action = call("x", "a${ruri_user}b$1c");
        });
        let text = plain(&format!("sip:{user}@h"));
        let (_, param) = taken(&def, &text).unwrap();
        prop_assert!(!param.unwrap().contains(char::is_control));
    }

    /// A glob takes what a naive matcher takes.
    #[test]
    fn globs_match_as_globs_do(pattern in "[ab*?]{0,6}", value in "[ab]{1,8}") {
        fn naive(p: &[u8], v: &[u8]) -> bool {
            match (p, v) {
                ([], []) => true,
                ([b'*', rest @ ..], _) => naive(rest, v) || (!v.is_empty() && naive(p, &v[1..])),
                ([b'?', p @ ..], [_, v @ ..]) => naive(p, v),
                ([a, p @ ..], [b, v @ ..]) if a == b => naive(p, v),
                _ => false,
            }
        }
        prop_assume!(!pattern.is_empty());
        let def = def(|d| d.ruri_user = pattern.clone());
        prop_assert_eq!(taken(&def, &plain(&format!("sip:{value}@h"))).is_some(), naive(pattern.as_bytes(), value.as_bytes()));
    }
}
