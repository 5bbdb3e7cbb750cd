//! The states between welcome and talk: dissuaded on arrival, diverted from the queue, the message to the agent.

use crate::server::Server;
use crate::sipp::Sipp;
use crate::{AGENT, ANSWERED, QUEUED, row};
use serde_json::{Value, json};

/// A server who rings, plays for a second and a half, and hangs up.
const MESSAGE: &str = "INVITE< 180> 200> ACK< BYE> 200<";

/// A server with the flow `support`, set up by `more`, and one agent, who is logged out.
fn support(agent: &Sipp, media: &Sipp, more: &[&str]) -> Server {
    let server = Server::start(&["call_center.wrapup_time=1", "call_center.reject_on_no_agents=0"]);
    server.flow("support", "support", &media.location("music"), more);
    server.agent(AGENT, "support", &agent.location(AGENT), false);
    server
}

fn states(server: &Server) -> Vec<Value> {
    let calls = server.mi("cc_list_calls", json!([]));
    calls["Calls"].as_array().into_iter().flatten().map(|c| c["State"].clone()).collect()
}

#[test]
fn a_caller_to_a_full_queue_hears_the_dissuading_message_and_is_hung_up() {
    let (media, agent) = (Sipp::serve("media", Some(1)), Sipp::serve("agent-answer", Some(1)));
    let news = Sipp::serve("agent-bye", Some(1));
    let message = news.location("dissuading");
    let more = ["--message-dissuading", &message, "--dissuading-qsize-th", "1", "--dissuading-hangup", "1"];
    let server = support(&agent, &media, &more);
    let first = Sipp::call("caller-queued", server.sip, "support", 1);
    server.until("the first waits", |s| s.statistic("ccf_queued_calls-support") == 1);
    let second = Sipp::call("caller-queued", server.sip, "support", 1);
    server.until("the second is dissuaded", |s| states(s).contains(&json!("dissuading2")));
    assert_eq!((server.statistic("ccf_queued_calls-support"), server.statistic("ccf_onhold_calls-support")), (1, 2));
    assert_eq!(second.passed(), "INVITE> 100< 200< ACK> BYE< 200>");
    assert_eq!(news.passed(), MESSAGE);
    let cdrs = server.cdrs(1);
    assert!(row(1, None, 1, 0)(&cdrs[0]) && cdrs[0].wait >= 1, "{cdrs:?}");
    assert_eq!(server.statistic("ccg_abandonned_incalls"), 0);
    server.mi("cc_agent_login", json!([AGENT, 1]));
    assert_eq!((first.passed(), agent.passed()), (QUEUED.into(), ANSWERED.into()));
    assert!(row(0, Some(AGENT), 7, 0)(&server.cdrs(2)[1]));
    server.assert_rest(&[AGENT]);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_caller_who_waits_too_long_is_diverted_comes_back_and_is_served() {
    let (media, agent) = (Sipp::serve("media", None), Sipp::serve("agent-answer", Some(1)));
    let news = Sipp::serve("agent-bye", None);
    let message = news.location("dissuading");
    let server = support(&agent, &media, &["--message-dissuading", &message, "--dissuading-onhold-th", "1"]);
    // Its 2 s without a re-INVITE never come before it talks.
    let caller = Sipp::call("caller-queued", server.sip, "support", 1);
    server.until("it is diverted", |s| states(s) == [json!("dissuading1")]);
    assert_eq!((server.statistic("ccf_queued_calls-support"), server.statistic("ccf_onhold_calls-support")), (0, 1));
    server.until("it is back", |s| states(s) == [json!("queued")]);
    server.until("it is diverted again", |s| states(s) == [json!("dissuading1")]);
    server.mi("cc_agent_login", json!([AGENT, 1]));
    server.until("talk", |s| states(s) == [json!("toagent")]);
    caller.passed();
    assert_eq!(agent.passed(), ANSWERED);
    let cdrs = server.cdrs(1);
    assert!(row(0, Some(AGENT), 7, 0)(&cdrs[0]) && cdrs[0].wait >= 4, "{cdrs:?}");
    server.assert_rest(&[AGENT]);
    assert_eq!(server.stop(), 0);
}

#[test]
fn the_agent_hears_the_flows_message_before_the_caller() {
    let (media, agent) = (Sipp::serve("media", Some(1)), Sipp::serve("agent-answer", Some(1)));
    let news = Sipp::serve("agent-bye", Some(1));
    let server = support(&agent, &media, &["--message-flow-id", &news.location("flowid")]);
    let caller = Sipp::call("caller-queued", server.sip, "support", 1);
    server.until("the caller waits", |s| s.statistic("ccf_queued_calls-support") == 1);
    server.mi("cc_agent_login", json!([AGENT, 1]));
    server.until("the agent hears the message", |s| states(s) == [json!("preagent")]);
    assert_eq!((server.statistic("ccf_queued_calls-support"), server.statistic("ccf_onhold_calls-support")), (0, 1));
    server.until("the bridge", |s| states(s) == [json!("toagent")]);
    assert_eq!((caller.passed(), news.passed()), (QUEUED.into(), MESSAGE.into()));
    assert_eq!(agent.passed(), "INVITE< 180> 200> ACK< INVITE< BYE< 200> ACK< 200>");
    let cdrs = server.cdrs(1);
    assert!(row(0, Some(AGENT), 7, 0)(&cdrs[0]) && cdrs[0].pickup >= 2 && cdrs[0].talk >= 2, "{cdrs:?}");
    server.assert_rest(&[AGENT]);
    assert_eq!(server.stop(), 0);
}
