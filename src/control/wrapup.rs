//! Ends of wrap-ups into the agents' table, so that they go on after a restart: write-behind, the latest per agent.

use crate::store::Provisioning as Store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use strowger_engine::control::{AgentEvent, AgentReport};
use tokio::sync::oneshot;

/// Pause between two writes.
const EVERY: Duration = Duration::from_millis(500);

/// Ends that are not written yet, by agent.
#[derive(Debug, Clone, Default)]
pub struct Latest(Arc<Mutex<HashMap<Box<str>, u64>>>);

impl Latest {
    /// Takes note of an event that begins a wrap-up.
    pub fn note(&self, event: &AgentEvent) {
        if let Some(ends) = end_of(&event.state) {
            self.map().insert(event.agent.agentid.clone(), ends);
        }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Box<str>, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A failure is tried again with the next; what is lost is the rest of a wrap-up, after a crash.
    async fn save(&self, store: &dyn Store) {
        let batch: Vec<(Box<str>, u64)> = std::mem::take(&mut *self.map()).into_iter().collect();
        if batch.is_empty() {
            return;
        }
        if let Err(error) = store.save_wrapups(&batch).await {
            tracing::warn!(%error, "wrap-ups not written; tried again");
            let mut map = self.map();
            for (agent, ends) in batch {
                map.entry(agent).or_insert(ends);
            }
        }
    }
}

/// The end of the wrap-up that runs, Unix time.
fn end_of(state: &AgentReport) -> Option<u64> {
    match state {
        AgentReport::Wrapup { ends_unix_s } => Some(*ends_unix_s),
        AgentReport::InChat { wrapup_ends_unix_s, .. } => *wrapup_ends_unix_s,
        AgentReport::Offline | AgentReport::Free | AgentReport::InCall { .. } => None,
    }
}

/// Writes what is noted until `ended` is dropped, then the rest.
pub async fn run(latest: Latest, store: Arc<dyn Store>, mut ended: oneshot::Receiver<()>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = &mut ended => return latest.save(&*store).await,
            _ = tick.tick() => latest.save(&*store).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger_dispatch::{ChatPolicy, Dispatch, Limits};
    use strowger_engine::registry::{FlowRow, Registry, RegistryLimits, Rows};

    #[test]
    fn the_wrapup_after_a_chat_is_kept_though_others_go_on() {
        let limits = Limits { shards: 1, agents: 1, waiting_per_shard: 1, skills: 1 };
        let dispatch = Arc::new(Dispatch::new(limits, ChatPolicy::Balancing));
        let mut registry = Registry::new(dispatch.handle(1), RegistryLimits { flows: 1, skills: 1 });
        let (flowid, skill) = (Some("f".to_owned()), Some("s".to_owned()));
        let row = FlowRow { flowid, skill, message_queue: Some("sip:m@h".to_owned()), ..FlowRow::default() };
        let (loaded, faults) = registry.load(&Rows { flows: vec![row], agents: vec![] });
        assert_eq!(faults, []);
        let flow = Arc::clone(loaded.flow("f").unwrap());
        let chats = |wrapup_ends_unix_s| AgentReport::InChat {
            flow: Some(flow.clone()),
            ongoing_sessions: 1,
            wrapup_ends_unix_s,
        };
        assert_eq!((end_of(&chats(Some(7))), end_of(&chats(None))), (Some(7), None));
        assert_eq!((end_of(&AgentReport::Wrapup { ends_unix_s: 9 }), end_of(&AgentReport::Free)), (Some(9), None));
    }
}
