//! Commands of the control plane, and lists.

use crate::arena::Key;
use crate::books::Outcome;
use crate::control::{Audit, CallInfo, Control, Output, Reply};
use crate::engine::Engine;
use strowger_dispatch::Media;
use strowger_sip::time::Now;

impl Engine {
    /// A command; its answer comes as [`Output::Reply`] with the same `id`.
    pub fn handle_control(&mut self, now: Now, id: u64, command: Control) {
        self.auditor.now = now.mono;
        let reply = self.obey(now, command);
        self.settle(now);
        self.outputs.push_back(Output::Reply { id, reply });
    }

    fn obey(&mut self, now: Now, command: Control) -> Reply {
        match command {
            Control::Provision(prov) => self.prov = prov,
            Control::Matched(matches) => self.matches.extend(matches.into_iter().map(|m| (m, now.mono))),
            Control::Login { agent, on } => {
                if !self.log_agent(agent, on, now) {
                    return Reply::NotFound;
                }
            }
            Control::Place { call, agent } => {
                if let Err(why) = self.place(call, agent, now) {
                    return Reply::NotPlaced(why);
                }
            }
            Control::BeginWrapup { agent, until_unix_us } => self.restore_wrapup(agent, until_unix_us, now),
            Control::ListCalls { from, max, queued_only } => return self.list_calls(from, max, queued_only),
            Control::Drain { on } => self.draining = on,
            Control::EndAll => self.end_all(now),
            Control::Audit => return Reply::Audit(self.audit()),
            Control::Findings => return Reply::Findings(self.findings()),
        }
        Reply::Done
    }

    /// A page of calls: at most `max` slots are looked at, so that a long list never stalls the calls.
    fn list_calls(&self, from: u32, max: u32, queued_only: bool) -> Reply {
        let end = self.calls.extent();
        let until = from.saturating_add(max.max(1)).min(end);
        let calls = (from..until).filter_map(|slot| self.describe_call(slot, queued_only)).collect();
        Reply::Calls { calls, next: (until < end).then_some(until) }
    }

    fn describe_call(&self, slot: u32, queued_only: bool) -> Option<CallInfo> {
        let (key, call) = self.calls.at(slot)?;
        let waits = call.wait.is_some_and(|w| self.dispatch.is_waiting(w));
        if queued_only && !waits {
            return None;
        }
        Some(CallInfo {
            id: self.call_id(key),
            state: call.state,
            chat: call.medium == Media::Chat,
            caller_user: call.words.user().into(),
            caller_display: call.words.display().into(),
            received_unix_us: call.received.unix_us,
            queued_unix_us: call.queued.map_or(0, |q| q.unix_us),
            flow: call.flow.clone(),
            agent: call.attempt.as_ref().map(|a| a.agent.clone()),
            ticket: call.ticket,
        })
    }

    /// Ends every call, with records.
    fn end_all(&mut self, now: Now) {
        self.draining = true;
        let keys: Vec<Key> = (0..self.calls.extent()).filter_map(|s| self.calls.at(s).map(|(k, _)| k)).collect();
        for key in keys {
            let talks = self.calls.get(key).and_then(|c| c.attempt.as_ref()).is_some_and(|a| a.answered.is_some());
            self.end_call(key, if talks { Outcome::Handled } else { Outcome::Error }, 503, now);
        }
    }

    /// What is held, for "nothing is left" checks.
    #[must_use]
    pub fn audit(&self) -> Audit {
        let counts = self.ep.counts();
        Audit {
            calls: self.calls.len(),
            legs: self.legs.len(),
            client_transactions: counts.client_invites + counts.client_others,
            server_transactions: counts.server_invites + counts.server_others,
            timers: counts.timers,
            buffers: counts.buffers,
            wrapups: self.wrapups.len(),
        }
    }
}
