//! Routing rules over the wire: a parameter on its way to the agent, feature codes.

use crate::server::Server;
use crate::sipp::Sipp;
use crate::{AGENT, QUEUED, row};

const RULES: &str = r#"
[[rules]]
name = "feature codes"
ruri_user = '~^\*(?P<state>[01])(?P<who>.+)$'
source = "127.0.0.0/8"
action = "agent_login"
agent = "${who}"
state = "${state}"
[[rules]]
ruri_user = "acme-*"
flow = "$1"
param = "tenant=acme"
"#;

const DIALLED: &str = "INVITE> 100< 200< ACK> BYE< 200>";

#[test]
fn a_feature_code_logs_in_an_agent_who_gets_the_parameter_of_the_rule() {
    let (media, agent) = (Sipp::serve("media", Some(1)), Sipp::serve("agent-param", Some(1)));
    let server = Server::start_with(RULES, &["call_center.wrapup_time=1", "call_center.reject_on_no_agents=0"]);
    server.flow("support", "support", &media.location("music"), &[]);
    server.agent(AGENT, "support", &agent.location(AGENT), false);
    let caller = Sipp::call("caller-queued", server.sip, "acme-support", 1);
    server.until("the caller waits", |s| s.statistic("ccf_queued_calls-support") == 1);
    let login = Sipp::call("feature-code", server.sip, "*1agent1", 1);
    assert_eq!(login.passed(), DIALLED);
    assert_eq!((caller.passed(), agent.passed()), (QUEUED.into(), "INVITE< 200> ACK< BYE< 200>".into()));
    let cdrs = server.cdrs(1);
    assert!(row(0, Some(AGENT), 7, 0)(&cdrs[0]), "{cdrs:?}");
    let logout = Sipp::call("feature-code", server.sip, "*0agent1", 1);
    assert_eq!(logout.passed(), DIALLED);
    server.until("the agent is logged out", |s| s.agent_state(AGENT) == "logged out");
    assert_eq!(server.statistic("ccg_incalls"), 1, "feature codes are no calls");
    server.assert_rest(&[AGENT]);
    assert_eq!(server.stop(), 0);
}
