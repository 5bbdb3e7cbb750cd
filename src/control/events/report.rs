//! The shards' agent events on their way: to the subscribers, and to the writer of wrap-ups.

use super::{AGENT_REPORT, Hub};
use crate::control::mail::Inbox;
use crate::control::wrapup::Latest;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use strowger_engine::control::{AgentEvent, AgentReport};

/// How often subscriptions whose time is over are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// How long events gather.
const GATHER: Duration = Duration::from_millis(2);

/// Takes the shards' events until they are gone.
pub async fn run(events: Inbox<AgentEvent>, hub: Arc<Hub>, wrapups: Latest) {
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(first) = event else { return };
                let wanted = hub.wanted(AGENT_REPORT);
                for event in std::iter::once(first).chain(std::iter::from_fn(|| events.take())) {
                    wrapups.note(&event);
                    if wanted {
                        hub.raise(AGENT_REPORT, &params(&event));
                    }
                }
                // No shard wakes a thread that does not wait: it does not for a while.
                tokio::time::sleep(GATHER).await;
            }
            _ = sweep.tick() => hub.expire(),
        }
    }
}

/// Parameters of the event: `status` is the module's word on the wire, `state` the manuals'.
fn params(event: &AgentEvent) -> Value {
    let (state, wrapup_ends, flow, sessions) = match &event.state {
        AgentReport::Offline => ("offline", None, None, None),
        AgentReport::Free => ("free", None, None, None),
        AgentReport::InCall { flow } => ("incall", None, flow.as_ref(), None),
        AgentReport::InChat { flow, ongoing_sessions, wrapup_ends_unix_s } => {
            ("inchat", *wrapup_ends_unix_s, flow.as_ref(), Some(*ongoing_sessions))
        }
        AgentReport::Wrapup { ends_unix_s } => ("wrapup", Some(*ends_unix_s), None, None),
    };
    let mut params = Map::new();
    params.insert("agent_id".to_owned(), json!(event.agent.agentid));
    params.insert("status".to_owned(), json!(state));
    params.insert("state".to_owned(), json!(state));
    if let Some(ends) = wrapup_ends {
        params.insert("wrapup_ends".to_owned(), json!(ends));
    }
    if let Some(flow) = flow {
        params.insert("flow_id".to_owned(), json!(flow.flowid));
    }
    if let Some(sessions) = sessions {
        params.insert("ongoing_sessions".to_owned(), json!(sessions));
    }
    if let Some(param) = &event.param {
        params.insert("param".to_owned(), json!(param));
    }
    Value::Object(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::cdr;

    #[test]
    fn each_state_has_its_parameters() {
        let record = cdr(1, "carl");
        let (flow, agent) = (record.flow, record.agent.unwrap());
        let told = |state, param: Option<&str>| {
            params(&AgentEvent { agent: Arc::clone(&agent), state, unix_us: 7, param: param.map(Box::from) })
        };
        for (state, word) in [(AgentReport::Offline, "offline"), (AgentReport::Free, "free")] {
            assert_eq!(told(state, None), json!({"agent_id": "ann", "status": word, "state": word}));
        }
        assert_eq!(
            told(AgentReport::InCall { flow: Some(Arc::clone(&flow)) }, Some("order 5")),
            json!({"agent_id": "ann", "status": "incall", "state": "incall", "flow_id": "sales", "param": "order 5"})
        );
        assert_eq!(
            told(AgentReport::InCall { flow: None }, None),
            json!({"agent_id": "ann", "status": "incall", "state": "incall"})
        );
        assert_eq!(
            told(AgentReport::Wrapup { ends_unix_s: 9 }, None),
            json!({"agent_id": "ann", "status": "wrapup", "state": "wrapup", "wrapup_ends": 9})
        );
        let chat = |wrapup_ends_unix_s| AgentReport::InChat {
            flow: Some(Arc::clone(&flow)),
            ongoing_sessions: 2,
            wrapup_ends_unix_s,
        };
        assert_eq!(
            told(chat(Some(9)), None),
            json!({"agent_id": "ann", "status": "inchat", "state": "inchat", "flow_id": "sales", "ongoing_sessions": 2, "wrapup_ends": 9})
        );
        assert_eq!(told(chat(None), None).get("wrapup_ends"), None);
    }
}
