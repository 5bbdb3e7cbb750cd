//! Routing rules on the wire: which flow takes a call, what its parameter becomes, feature codes, refusals.

mod ladder;

use ladder::chats::chats;
use ladder::{Got, Scene};
use strowger_dispatch::AgentState;
use strowger_engine::Rules;
use strowger_engine::control::{AgentReport, Control, Reply};
use strowger_engine::rules::{ActionDef, Rule, RuleDef};
use strowger_sip::msg::Name;

fn call(flow: &str, param: &str) -> ActionDef {
    ActionDef::HandleCall { flow: flow.into(), param: param.into() }
}

fn rule(ruri_user: &str, action: ActionDef, on_failure: &str) -> RuleDef {
    RuleDef { ruri_user: ruri_user.into(), action, on_failure: on_failure.into(), ..RuleDef::default() }
}

/// Feature code *1AGENT logs in, *0AGENT out.
fn feature_code() -> RuleDef {
    let method = "~^(?:INVITE|MESSAGE)$".to_owned();
    let action = ActionDef::AgentLogin { agent: "${who}".into(), state: "$1".into() };
    RuleDef { method, ..rule("~^\\*([01x])(?P<who>.*)$", action, "") }
}

fn scene(rules: &[RuleDef]) -> Scene {
    let rules = Rules::new(rules.iter().map(|d| Rule::new(d).unwrap()).collect());
    Scene::with(|cfg, _, agents| {
        cfg.call.rules = rules;
        agents[0].logstate = Some(0);
    })
}

/// Dials, and skips the 100.
#[track_caller]
fn dial(s: &mut Scene, user: &str, body: &str, code: &str) -> Got {
    s.caller.invite(&mut s.bench, user, body);
    s.caller.expect(&mut s.bench, "100");
    s.caller.expect(&mut s.bench, code)
}

#[track_caller]
fn dial_refused(s: &mut Scene, user: &str, code: &str) -> Got {
    let sdp = s.caller.sdp();
    s.caller.invite(&mut s.bench, user, &sdp);
    let mut got = s.caller.expect_any(&mut s.bench);
    if got.what() == "100" {
        got = s.caller.expect_any(&mut s.bench);
    }
    assert_eq!(got.what(), code, "{user}\n{}", s.bench.ladder());
    s.caller.ack_error(&mut s.bench);
    got
}

#[test]
fn a_rule_names_the_flow_and_its_parameter_travels_with_the_call() {
    let mut s = scene(&[rule("8*", call("sales", "line=$1;from=${from_user}"), "")]);
    let sdp = s.caller.sdp();
    s.caller.extra = "X-CC-Param: forged\r\n".into();
    s.caller.invite(&mut s.bench, "800", &sdp);
    s.caller.extra.clear();
    s.caller.expect(&mut s.bench, "100");
    let music = s.media_answers();
    s.caller_acks();
    assert_eq!(music.other("X-CC-Param").as_deref(), Some("line=00;from=caller"));
    assert_eq!(music.other("X-CC-State").as_deref(), Some("queue"));
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    assert_eq!(invite.other("X-CC-Param").as_deref(), Some("line=00;from=caller"));
    assert_eq!(invite.view().headers().filter(|h| h.name.eq_ignore_ascii_case(b"x-cc-param")).count(), 1);
    assert_eq!(invite.other("X-CC-State").as_deref(), Some("toagent"));
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    assert_eq!(s.bench.cdrs[0].param.as_deref(), Some("line=00;from=caller"));
    let told: Vec<_> = s.bench.events.iter().filter_map(|e| Some((&e.state, e.param.as_deref()?))).collect();
    assert!(matches!(told[..], [(AgentReport::InCall { .. }, "line=00;from=caller")]), "{told:?}");
    s.assert_rest();
}

#[test]
fn the_parameter_has_the_configured_header() {
    let rules = Rules::new(vec![Rule::new(&rule("", call("sales", "p"), "")).unwrap()]);
    let mut s = Scene::with(|cfg, _, _| {
        cfg.call.rules = rules;
        cfg.call.param_header = "X-Order".into();
    });
    s.call();
    let invite = s.ann_rings();
    assert_eq!((invite.other("X-Order").as_deref(), invite.other("X-CC-Param")), (Some("p"), None));
    s.caller.cancel(&mut s.bench);
    s.caller.expect(&mut s.bench, "180");
    s.caller.expect(&mut s.bench, "200");
    s.caller.expect(&mut s.bench, "487");
    s.caller.ack_error(&mut s.bench);
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, &invite, 487, "");
    s.ann.expect(&mut s.bench, "ACK");
    s.assert_rest();
}

#[test]
fn a_caller_cannot_put_a_header_into_the_parameter() {
    let mut s = scene(&[rule("", call("sales", "${ruri_user}"), "")]);
    let sdp = s.caller.sdp();
    s.caller.invite(&mut s.bench, "x%0D%0AX-Evil%3A%201%00", &sdp);
    s.caller.expect(&mut s.bench, "100");
    let music = s.media_answers();
    assert_eq!(music.other("X-Evil"), None);
    assert_eq!(music.other("X-CC-Param").as_deref(), Some("xX-Evil: 1"));
    s.caller_acks();
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_call_that_a_flow_refuses_tries_the_next_rule() {
    let mut s = scene(&[
        rule("a*", call("nowhere", ""), "next"),
        rule("ab*", call("nowhere", "x"), "486"),
        rule("a*", call("sales", "second"), ""),
        rule("c*", call("nowhere", ""), "next"),
        rule("d*", call("nowhere", ""), ""),
    ]);
    // To the next, past one that does not match.
    let sdp = s.caller.sdp();
    s.caller.invite(&mut s.bench, "ac", &sdp);
    s.caller.expect(&mut s.bench, "100");
    let music = s.media_answers();
    assert_eq!(music.other("X-CC-Param").as_deref(), Some("second"));
    s.caller_acks();
    s.caller_leaves_queue();
    dial_refused(&mut s, "ab", "486");
    // None is left: the refusal of the last one stands.
    dial_refused(&mut s, "c", "404");
    dial_refused(&mut s, "d", "404");
    // No rule at all: no flow id.
    dial_refused(&mut s, "e", "404");
    assert_eq!(s.bench.stats.sum(|shard| shard.refused.get()), 4);
    s.assert_rest();
}

#[test]
fn a_rule_can_reject_with_a_code_and_a_reason() {
    let reject = |reason: &str| ActionDef::Reject { code: 486, reason: reason.into() };
    let here = RuleDef { source: "10.0.2.0/24".into(), ..rule("1", reject("Not Today"), "") };
    let elsewhere = RuleDef { source: "10.0.3.0/24".into(), ..rule("2", reject("Never"), "") };
    let mut s = scene(&[here, elsewhere, rule("2", reject(""), "")]);
    let got = dial_refused(&mut s, "1", "486");
    assert!(got.bytes.starts_with(b"SIP/2.0 486 Not Today\r\n"));
    let got = dial_refused(&mut s, "2", "486");
    assert!(got.bytes.starts_with(b"SIP/2.0 486 Busy Here\r\n"));
    s.assert_counts([0; 4]);
    s.assert_rest();
}

#[test]
fn a_feature_code_logs_an_agent_in_and_out_and_ends_with_a_bye() {
    let mut s = scene(&[feature_code()]);
    for (code, state) in [("*1ann", AgentState::Free), ("*0ann", AgentState::Offline)] {
        let sdp = s.caller.sdp();
        let ok = dial(&mut s, code, &sdp, "200");
        assert_eq!(s.ann_state(), state);
        assert!(ok.body().contains("m=audio 4") && ok.body().contains("a=inactive"), "{}", ok.body());
        assert!(ok.sdp('o').ends_with("IN IP4 10.0.0.1"));
        s.caller.expect_nothing(&mut s.bench);
        s.caller.ack(&mut s.bench, "");
        s.caller_bye();
    }
    let reports: Vec<_> = s.bench.events.iter().map(|e| (&*e.agent.agentid, &e.state)).collect();
    assert!(matches!(reports[..], [("ann", AgentReport::Free), ("ann", AgentReport::Offline)]), "{reports:?}");
    s.assert_counts([0; 4]);
    s.assert_cdrs(&[]);
    s.assert_rest();
}

#[test]
fn a_feature_code_without_a_description_gets_an_offer_of_nothing() {
    let mut s = scene(&[feature_code()]);
    let ok = dial(&mut s, "*1ann", "", "200");
    assert_eq!(ok.header(Name::ContentType), "application/sdp");
    assert_eq!((ok.sdp('m').as_str(), ok.sdp('a').as_str()), ("audio 9 RTP/AVP 0 8", "inactive"));
    let answer = s.caller.sdp();
    s.caller.ack(&mut s.bench, &answer);
    s.caller_bye();
    s.assert_rest();
}

#[test]
fn a_feature_code_survives_lost_messages() {
    // Our 200 is lost: it is repeated, and the INVITE's repetition changes nothing.
    let mut s = scene(&[feature_code()]);
    let sdp = s.caller.sdp();
    dial(&mut s, "*1ann", &sdp, "200");
    s.caller.repeat_invite(&mut s.bench, "*1ann", &sdp);
    let addr = s.caller.addr;
    s.bench.wait_for(addr, 1_000);
    s.caller.expect(&mut s.bench, "200");
    // A CANCEL comes too late.
    s.caller.cancel(&mut s.bench);
    s.caller.expect(&mut s.bench, "200");
    // The caller hangs up first.
    s.caller.send(&mut s.bench, "BYE", "");
    s.caller.expect(&mut s.bench, "200");
    s.caller.ack(&mut s.bench, "");
    s.assert_rest();
    assert_eq!(s.bench.events.len(), 1);

    // No ACK ever comes: BYE after timer H.
    let mut s = scene(&[feature_code()]);
    dial(&mut s, "*1ann", &sdp, "200");
    s.wait_ms(40_000);
    let mut last = s.caller.expect(&mut s.bench, "200");
    while last.what() == "200" {
        last = s.caller.expect_any(&mut s.bench);
    }
    assert_eq!(last.what(), "BYE");
    s.caller.answer(&mut s.bench, &last, 200, "");
    s.wait_ms(120_000);
    s.bench.assert_rest();
}

#[test]
fn a_feature_code_for_nobody_is_refused() {
    let mut s = scene(&[feature_code()]);
    dial_refused(&mut s, "*1nobody", "404");
    dial_refused(&mut s, "*xann", "400");
    dial(&mut s, "*1ann", "no description", "488");
    s.caller.ack_error(&mut s.bench);
    assert_eq!(s.ann_state(), AgentState::Offline);
    // It works while new calls are refused, too.
    assert!(matches!(s.bench.control(Control::Drain { on: true }), Reply::Done));
    let sdp = s.caller.sdp();
    dial(&mut s, "*1ann", &sdp, "200");
    s.caller.ack(&mut s.bench, "");
    s.caller_bye();
    s.assert_rest();
}

#[test]
fn a_login_by_feature_code_takes_a_waiting_call_at_once() {
    let mut s = scene(&[feature_code(), RuleDef::default()]);
    s.joins_queue();
    let mut desk = s.bench.phone("desk", "10.0.5.1:5060");
    desk.invite(&mut s.bench, "*1ann", "");
    let invite = s.ann_rings();
    desk.expect(&mut s.bench, "100");
    desk.expect(&mut s.bench, "200");
    desk.ack(&mut s.bench, "");
    let bye = desk.expect(&mut s.bench, "BYE");
    desk.answer(&mut s.bench, &bye, 200, "");
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn a_message_outside_calls_can_log_in_and_is_no_call() {
    let mut s = scene(&[feature_code(), RuleDef { method: String::new(), ..RuleDef::default() }]);
    let mut message = |user: &str, code: &str| {
        let addr = s.caller.addr;
        let text = format!(
            "MESSAGE sip:{user}@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {addr};branch=z9hG4bKm{user}\r\nMax-Forwards: 70\r\nFrom: <sip:c@h>;tag=m\r\nTo: <sip:x@h>\r\nCall-ID: m-{user}\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n"
        );
        s.bench.datagram(addr, text.as_bytes());
        s.caller.expect(&mut s.bench, code);
        s.ann_state()
    };
    assert_eq!(message("*1ann", "200"), AgentState::Free);
    assert_eq!(message("*0ann", "200"), AgentState::Offline);
    assert_eq!(message("*1nobody", "404"), AgentState::Offline);
    assert_eq!(message("sales", "481"), AgentState::Offline);
    s.assert_rest();
}

#[test]
fn the_event_of_a_chat_tells_its_parameter_and_that_of_its_end_none() {
    let rules = Rules::new(vec![Rule::new(&rule("", call("sales", "to=${to_user}"), "")).unwrap()]);
    let mut s = chats(|cfg, _, _| cfg.call.rules = rules);
    let mut chat = s.chat(1, "ann");
    s.bench.wait_ms(2_000);
    s.caller_ends(&mut chat);
    let told: Vec<_> =
        s.bench.events.iter().map(|e| (matches!(e.state, AgentReport::InChat { .. }), &e.param)).collect();
    assert!(matches!(told[..], [(true, Some(p)), (false, None)] if **p == *"to=sales"), "{told:?}");
    s.bench.assert_rest();
}
