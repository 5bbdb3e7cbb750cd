//! Chats, and calls placed by an external logic.

use super::{ANSWERED, MUSIC, QUEUED, one_agent, row};
use crate::server::Server;
use crate::sipp::Sipp;
use serde_json::json;

/// Three chats wait for an agent with two slots: two begin together, the third when a slot is free and no wrap-up runs.
#[test]
fn two_chats_at_one_agent_and_the_third_waits() {
    let (media, agent) = (Sipp::serve("chat media", Some(3)), Sipp::serve("chat agent-answer", Some(3)));
    let server = Server::start(&["call_center.wrapup_time=1", "call_center.reject_on_no_agents=0"]);
    server.flow("support", "support", &media.location("music"), &[]);
    let location = agent.location("ann");
    let chatter = ["--skills", "support", "--msrp-location", &location, "--msrp-max-sessions", "2", "--logstate", "0"];
    server.cli(&[&["agent", "set", "ann"], &chatter[..]].concat());
    let callers = Sipp::call("chat caller-queued", server.sip, "support", 3);
    server.until("three wait", |s| s.statistic("ccg_onhold_chats") == 3);
    server.until("three are listed", |s| {
        let queue = s.mi("cc_list_queue", json!([]));
        queue["Calls"].as_array().is_some_and(|c| c.len() == 3 && c.iter().all(|c| c["Media"] == "MSRP"))
    });
    server.mi("cc_agent_login", json!(["ann", 1]));
    let times =
        |ladder: &str, n: usize| ladder.split(' ').map(|step| vec![step; n].join(" ")).collect::<Vec<_>>().join(" ");
    assert_eq!(callers.passed(), times(QUEUED, 3));
    assert_eq!((agent.passed(), media.passed()), (times(ANSWERED, 3), times(MUSIC, 3)));
    let cdrs = server.cdrs(3);
    assert!(cdrs.iter().all(row(0, Some("ann"), 7, 0)) && cdrs.iter().all(|c| c.talk >= 2), "{cdrs:?}");
    let (first, third) = (cdrs.iter().map(|c| c.wait).min(), cdrs.iter().map(|c| c.wait).max());
    assert!(third >= first.map(|w| w + 2), "a talk and a wrap-up later: {cdrs:?}");
    assert_eq!((server.statistic("ccg_answered_inchats"), server.statistic("cca_answ_inchats-ann")), (3, 3));
    assert_eq!(server.statistic("ccg_onhold_chats"), 0);
    server.assert_rest(&["ann"]);
    assert_eq!(server.stop(), 0);
}

#[test]
fn calls_are_placed_from_outside_until_matching_is_switched_on() {
    let (media, agent) = (Sipp::serve("media", None), Sipp::serve("agent-answer", None));
    let server = one_agent(&agent, &media, true, &["call_center.internal_call_dispatching=0"]);
    assert_eq!(server.mi("cc_internal_call_dispatching", json!([])), json!({"dispatching": 0}));
    let caller = Sipp::call("caller-queued", server.sip, "support", 1);
    server.until("the caller waits", |s| s.statistic("ccf_queued_calls-support") == 1);
    assert_eq!(server.agent_state(super::AGENT), "free");
    let call = server.mi("cc_list_queue", json!([]))["Calls"][0]["id"].clone();
    let placed = server.mi("cc_dispatch_call_to_agent", json!({"call_id": call, "agent_id": super::AGENT}));
    assert_eq!((placed, caller.passed()), (json!("OK"), QUEUED.to_owned()));
    server.until("the wrap-up is over", |s| s.agent_state(super::AGENT) == "free");
    let caller = Sipp::call("caller-queued", server.sip, "support", 1);
    server.until("the next caller waits", |s| s.statistic("ccf_queued_calls-support") == 1);
    assert_eq!(server.mi("cc_internal_call_dispatching", json!(["1"])), json!({"dispatching": 1}));
    assert_eq!(caller.passed(), QUEUED);
    let cdrs = server.cdrs(2);
    assert!(cdrs.iter().all(row(0, Some(super::AGENT), 7, 0)), "{cdrs:?}");
    server.assert_rest(&[super::AGENT]);
}
