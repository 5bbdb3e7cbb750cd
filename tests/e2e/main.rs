//! End to end: the real binary, real UDP, SIPp on the other side, records read from the database.

mod chats;
#[path = "../support/databases.rs"]
mod databases;
mod hardness;
mod reload;
mod restart;
mod rows;
mod rules;
mod server;
mod sipp;
mod states;

use serde_json::json;
use server::{CdrRow, Server};
use sipp::Sipp;

const AGENT: &str = "agent1";

/// What each side sees of a call that waited: 20 messages in all.
const QUEUED: &str = "INVITE> 100< 200< ACK> INVITE< 200> ACK< BYE> 200<";
const DIRECT: &str = "INVITE> 100< 180< 200< ACK> BYE> 200<";
const ANSWERED: &str = "INVITE< 180> 200> ACK< BYE< 200>";
const MUSIC: &str = "INVITE< 200> ACK< BYE< 200>";

/// A server with the flow `support` and one agent at `agent`'s address.
fn one_agent(agent: &Sipp, media: &Sipp, logged_in: bool, more: &[&str]) -> Server {
    let settings = [&["call_center.wrapup_time=1", "call_center.reject_on_no_agents=0"], more].concat();
    let server = Server::start(&settings);
    server.flow("support", "support", &media.location("music"), &[]);
    server.agent(AGENT, "support", &agent.location(AGENT), logged_in);
    server
}

fn row(call_type: i64, agent: Option<&str>, fstats: i64, rejected: i64) -> impl Fn(&CdrRow) -> bool {
    let agent = agent.map(str::to_owned);
    move |r| (r.call_type, &r.agent, r.fstats, r.rejected) == (call_type, &agent, fstats, rejected)
}

#[test]
fn queue_then_agent() {
    let (media, agent) = (Sipp::serve("media", Some(1)), Sipp::serve("agent-answer", Some(1)));
    let server = one_agent(&agent, &media, false, &[]);
    let caller = Sipp::call("caller-queued", server.sip, "support", 1);
    server.until("the caller waits", |s| s.statistic("ccf_queued_calls-support") == 1);
    server.mi("cc_agent_login", json!([AGENT, 1]));
    server.until("talk", |s| s.agent_state(AGENT) == "incall");
    assert_eq!((caller.passed(), agent.passed(), media.passed()), (QUEUED.into(), ANSWERED.into(), MUSIC.into()));
    let cdrs = server.cdrs(1);
    assert!(row(0, Some(AGENT), 7, 0)(&cdrs[0]) && cdrs[0].talk >= 2, "{cdrs:?}");
    assert_eq!((server.statistic("ccg_answered_incalls"), server.statistic("ccg_abandonned_incalls")), (1, 0));
    server.assert_rest(&[AGENT]);
    assert_eq!(server.stop(), 0);
}

#[test]
fn straight_to_a_free_agent() {
    let (media, agent) = (Sipp::serve("media", None), Sipp::serve("agent-answer", Some(1)));
    let server = one_agent(&agent, &media, true, &[]);
    let caller = Sipp::call("caller-direct", server.sip, "support", 1);
    assert_eq!((caller.passed(), agent.passed()), (DIRECT.into(), ANSWERED.into()));
    let cdrs = server.cdrs(1);
    assert!(row(0, Some(AGENT), 7, 0)(&cdrs[0]), "{cdrs:?}");
    server.assert_rest(&[AGENT]);
}

#[test]
fn welcome_then_queue() {
    let (media, agent) = (Sipp::serve("media", None), Sipp::serve("agent-answer", None));
    let welcome = Sipp::serve("agent-bye", None);
    let server = one_agent(&agent, &media, false, &[]);
    server.flow("support", "support", &media.location("music"), &["--message-welcome", &welcome.location("welcome")]);
    let caller = Sipp::call("caller-patience-bye", server.sip, "support", 1);
    caller.passed();
    let cdrs = server.cdrs(1);
    assert!(row(1, None, 9, 0)(&cdrs[0]), "{cdrs:?}");
    server.assert_rest(&[AGENT]);
}

#[test]
fn a_caller_without_a_description() {
    let (media, agent) = (Sipp::serve("media", Some(1)), Sipp::serve("agent-answer", Some(1)));
    let server = one_agent(&agent, &media, false, &[]);
    let caller = Sipp::call("caller-no-sdp", server.sip, "support", 1);
    server.until("the caller waits", |s| s.statistic("ccf_queued_calls-support") == 1);
    server.mi("cc_agent_login", json!([AGENT, 1]));
    assert_eq!((caller.passed(), agent.passed(), media.passed()), (QUEUED.into(), ANSWERED.into(), MUSIC.into()));
    assert!(row(0, Some(AGENT), 7, 0)(&server.cdrs(1)[0]));
    server.assert_rest(&[AGENT]);
}

#[test]
fn a_busy_agent_then_another() {
    let media = Sipp::serve("media", None);
    let (busy, good) = (Sipp::serve("agent-busy", Some(1)), Sipp::serve("agent-answer", Some(1)));
    let server = one_agent(&busy, &media, true, &["call_center.wrapup_time=30"]);
    let caller = Sipp::call("caller-queued", server.sip, "support", 1);
    server.until("the first agent refused", |s| s.agent_state(AGENT) == "wrapup");
    server.until("the caller waits", |s| s.statistic("ccf_queued_calls-support") == 1);
    server.agent("agent2", "support", &good.location("agent2"), true);
    assert_eq!((caller.passed(), good.passed()), (QUEUED.into(), ANSWERED.into()));
    assert_eq!(busy.passed(), "INVITE< 486> ACK<");
    let cdrs = server.cdrs(2);
    assert!(row(-2, Some(AGENT), 3, 0)(&cdrs[0]) && row(0, Some("agent2"), 7, 1)(&cdrs[1]), "{cdrs:?}");
    server.assert_rest(&[AGENT, "agent2"]);
}

#[test]
fn an_agent_that_does_not_answer_and_a_caller_that_gives_up() {
    let (media, agent) = (Sipp::serve("media", None), Sipp::serve("agent-noanswer", None));
    let server = one_agent(&agent, &media, true, &["call_center.agent_ring_timeout=1", "call_center.wrapup_time=30"]);
    let caller = Sipp::call("caller-patience-bye", server.sip, "support", 1);
    caller.passed();
    let cdrs = server.cdrs(2);
    assert!(row(-2, Some(AGENT), 3, 0)(&cdrs[0]) && row(1, None, 9, 1)(&cdrs[1]), "{cdrs:?}");
    assert_eq!(server.agent_state(AGENT), "wrapup");
    server.assert_rest(&[AGENT]);
}

#[test]
fn an_agent_that_hangs_up_at_once_counts_as_a_refusal() {
    let (media, agent) = (Sipp::serve("media", None), Sipp::serve("agent-hangup", None));
    let server = one_agent(&agent, &media, false, &["call_center.wrapup_time=30"]);
    let caller = Sipp::call("caller-queued", server.sip, "support", 1);
    server.until("the caller waits", |s| s.statistic("ccf_queued_calls-support") == 1);
    server.mi("cc_agent_login", json!([AGENT, 1]));
    server.until("back in the queue", |s| {
        s.agent_state(AGENT) == "wrapup" && s.statistic("ccf_queued_calls-support") == 1
    });
    assert!(row(-2, Some(AGENT), 3, 0)(&server.cdrs(1)[0]));
    let good = Sipp::serve("agent-answer", None);
    server.agent("agent2", "support", &good.location("agent2"), true);
    server.until("second agent", |s| s.agent_state("agent2") == "incall");
    caller.passed();
    assert!(row(0, Some("agent2"), 7, 1)(&server.cdrs(2)[1]));
    server.assert_rest(&[AGENT, "agent2"]);
}

#[test]
fn an_agent_hangs_up_after_the_talk() {
    let (media, agent) = (Sipp::serve("media", None), Sipp::serve("agent-bye", Some(1)));
    let server = one_agent(&agent, &media, true, &[]);
    let caller = Sipp::call("caller-direct", server.sip, "support", 1);
    assert_eq!(caller.passed(), "INVITE> 100< 180< 200< ACK> BYE< 200>");
    assert_eq!(agent.passed(), "INVITE< 180> 200> ACK< BYE> 200<");
    assert!(row(0, Some(AGENT), 7, 0)(&server.cdrs(1)[0]));
    server.assert_rest(&[AGENT]);
}

#[test]
fn a_caller_cancels_while_the_agent_rings() {
    let (media, agent) = (Sipp::serve("media", None), Sipp::serve("agent-noanswer", Some(1)));
    let server = one_agent(&agent, &media, true, &[]);
    let caller = Sipp::call("caller-cancel", server.sip, "support", 1);
    assert_eq!(caller.passed(), "INVITE> 100< 180< CANCEL> 200< 487< ACK>");
    assert_eq!(agent.passed(), "INVITE< 180> CANCEL< 200> 487> ACK<");
    let cdrs = server.cdrs(1);
    assert!(row(1, Some(AGENT), 11, 0)(&cdrs[0]), "{cdrs:?}");
    server.until("the agent is free", |s| s.agent_state(AGENT) == "free");
    assert_eq!(server.statistic("cca_aban_incalls-agent1"), 1);
    server.assert_rest(&[AGENT]);
}

#[test]
fn a_caller_gives_up_in_the_queue() {
    let (media, agent) = (Sipp::serve("media", Some(3)), Sipp::serve("agent-answer", None));
    let server = one_agent(&agent, &media, false, &[]);
    let caller = Sipp::call("caller-patience-bye", server.sip, "support", 3);
    caller.passed();
    assert_eq!(media.passed().split(' ').count(), 15, "three times: {MUSIC}");
    let cdrs = server.cdrs(3);
    assert!(cdrs.iter().all(row(1, None, 9, 0)), "{cdrs:?}");
    assert_eq!(server.statistic("ccg_abandonned_incalls"), 3);
    server.assert_rest(&[AGENT]);
}

#[test]
fn ten_callers_one_after_the_other_through_two_agents() {
    let (media, agent) = (Sipp::serve("media", None), Sipp::serve("agent-answer", None));
    let server = one_agent(&agent, &media, false, &["call_center.wrapup_time=1"]);
    server.agent("agent2", "support", &agent.location("agent2"), false);
    let caller = Sipp::call("caller-queued", server.sip, "support", 10);
    server.until("all wait", |s| s.statistic("ccf_queued_calls-support") == 10);
    server.mi("cc_agent_login", json!([AGENT, 1]));
    server.mi("cc_agent_login", json!(["agent2", 1]));
    caller.passed();
    let cdrs = server.cdrs(10);
    assert!(cdrs.iter().all(|r| r.call_type == 0 && r.fstats == 7), "{cdrs:?}");
    server.assert_rest(&[AGENT, "agent2"]);
}

#[test]
fn an_orderly_stop_ends_what_is_there_with_records() {
    let (media, agent) = (Sipp::serve("media", None), Sipp::serve("agent-answer", None));
    let server = one_agent(&agent, &media, false, &["server.stop_timeout=1"]);
    let _caller = Sipp::call("caller-queued", server.sip, "support", 2);
    server.until("two wait", |s| s.statistic("ccf_queued_calls-support") == 2);
    let (code, cdrs) = server.stop_and_read();
    assert_eq!((code, cdrs.len()), (0, 2), "{cdrs:?}");
}
