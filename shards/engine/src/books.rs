//! Records and counters of what happens to calls (spec: call-center.md, "Statistics", "Outcomes and their records").

use crate::arena::Key;
use crate::audit::What;
use crate::call::{Attempt, Call};
use crate::cdr::{CallType, Cdr, CdrMedia, fstats};
use crate::control::{AgentEvent, AgentReport, CallState, Output};
use crate::engine::Engine;
use crate::provision::AgentDef;
use crate::stats::{AgentCounts, FlowCounts, ShardStats};
use std::sync::Arc;
use strowger_dispatch::Media;
use strowger_sip::time::Now;

/// How one attempt, or the call, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Talked with the agent.
    Handled,
    /// The agent refused, did not answer, or hung up at once.
    Rejected,
    /// The caller left while no agent had answered.
    Abandoned,
    /// The dissuading message hung up on it.
    Dissuaded,
    /// We failed.
    Error,
}

impl Engine {
    /// Moves a call to another state, keeping the gauges.
    pub(crate) fn set_state(&mut self, c: Key, state: CallState) {
        let Some(call) = self.calls.get_mut(c) else { return };
        self.notes.flow(&call.flow);
        let counts = self.stats.shard(self.shard).flows.at(call.flow.idx);
        let queued = |s| s == CallState::Queued;
        if queued(call.state) != queued(state) {
            counts.queued.add(if queued(state) { 1 } else { -1 });
        }
        if call.state != state {
            call.history.note(self.auditor.now.since(call.received.mono), What::State, state as u16);
        }
        call.state = state;
        let hold = matches!(
            state,
            CallState::Welcome
                | CallState::Dissuading1
                | CallState::Dissuading2
                | CallState::Queued
                | CallState::Preagent
        );
        if hold != call.onhold {
            counts.onhold.add(if hold { 1 } else { -1 });
            if call.medium == Media::Chat {
                counts.onhold_chats.add(if hold { 1 } else { -1 });
            }
            call.onhold = hold;
        }
        if hold && !call.held_once {
            call.held_once = true;
            counts.onhold_total.add(1);
        }
    }

    /// This shard's counters of the call's flow, to be changed.
    fn flow_counts(&self, call: &Call) -> &FlowCounts {
        self.notes.flow(&call.flow);
        self.stats.shard(self.shard).flows.at(call.flow.idx)
    }

    /// The shard's own counters, to be changed. (Those of messages change without note.)
    pub(crate) fn shard_counts(&self) -> &ShardStats {
        self.notes.shard();
        self.stats.shard(self.shard)
    }

    fn agent_counts(&self, agent: &AgentDef) -> &AgentCounts {
        self.notes.agent_counts(agent.agent.slot);
        self.stats.shard(self.shard).agents.at(agent.agent.slot)
    }

    /// Something has happened to a call, for the audit's reports.
    pub(crate) fn remember(&mut self, c: Key, what: What, number: u16) {
        if let Some(call) = self.calls.get_mut(c) {
            call.history.note(self.auditor.now.since(call.received.mono), what, number);
        }
    }

    /// A call has been accepted.
    pub(crate) fn count_arrival(&self, call: &Call) {
        let counts = self.flow_counts(call);
        counts.incalls.add(1);
        counts.ongoing.add(1);
        self.shard_counts().calls.add(1);
    }

    /// A call goes on after a restart: it was counted when it came.
    pub(crate) fn count_revival(&self, call: &Call) {
        self.flow_counts(call).ongoing.add(1);
    }

    /// A call is gone; its gauges must be down already.
    pub(crate) fn count_departure(&self, call: &Call) {
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("gauge-drifts") {
            return;
        }
        self.flow_counts(call).ongoing.add(-1);
    }

    pub(crate) fn count_distributed(&self, call: &Call, agent: &AgentDef) {
        self.flow_counts(call).distributed.add(1);
        self.agent_counts(agent).distributed.add(1);
    }

    /// An agent answered: `sign` 1; it turned out to be a rejection after all: -1.
    pub(crate) fn count_answered(&self, call: &Call, attempt: &Attempt, sign: i64) {
        let Some(answered) = attempt.answered else { return };
        let counts = self.flow_counts(call);
        let wait = i64::try_from(answered.mono.since(call.received.mono)).unwrap_or(i64::MAX);
        counts.answered.add(sign);
        counts.waited.add(sign);
        counts.wait_us.add(sign * wait);
        let agent = self.agent_counts(&attempt.agent);
        agent.answered.add(sign);
        if call.medium == Media::Chat {
            counts.answered_chats.add(sign);
            agent.answered_chats.add(sign);
        }
    }

    /// A talk ended.
    pub(crate) fn count_talk(&self, call: &Call, attempt: &Attempt, talk_us: u64) {
        let counts = self.flow_counts(call);
        let talk = i64::try_from(talk_us).unwrap_or(i64::MAX);
        counts.processed.add(1);
        counts.talk_us.add(talk);
        let agent = self.agent_counts(&attempt.agent);
        agent.processed.add(1);
        agent.talk_us.add(talk);
    }

    pub(crate) fn count_abandoned(&self, call: &Call) {
        self.flow_counts(call).abandoned.add(1);
        if let Some(attempt) = &call.attempt {
            #[cfg(mutant)]
            if strowger_dispatch::mutant::is("abandoned-uncounted") {
                return;
            }
            self.agent_counts(&attempt.agent).abandoned.add(1);
        }
    }

    /// Writes the record of an attempt, or of the end of a call without one.
    pub(crate) fn write_cdr(&mut self, c: Key, outcome: Outcome, cause: u16, now: Now) {
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("record-missing") && outcome == Outcome::Abandoned {
            return;
        }
        self.cdr_sequence += 1;
        let key = self.cdr_key(self.cdr_sequence);
        let Some(call) = self.calls.get(c) else { return };
        let attempt = call.attempt.as_ref();
        let answered = attempt.and_then(|a| a.answered);
        let until = answered.filter(|_| outcome != Outcome::Rejected).unwrap_or(now);
        let talk_us = match (outcome, answered) {
            (Outcome::Handled, Some(at)) => now.mono.since(at.mono),
            _ => 0,
        };
        #[cfg(mutant)]
        let talk_us = match attempt.filter(|_| talk_us > 0 && strowger_dispatch::mutant::is("talk-from-offer")) {
            Some(attempt) => now.mono.since(attempt.offered.mono),
            None => talk_us,
        };
        #[cfg(mutant)]
        let talk_us = match answered.filter(|_| talk_us > 0 && strowger_dispatch::mutant::is("talk-by-the-wall-clock"))
        {
            Some(at) => now.unix_us.saturating_sub(at.unix_us),
            None => talk_us,
        };
        let bits = fstats::INBOUND
            | attempt.map_or(0, |_| fstats::DISTRIBUTED)
            | match outcome {
                Outcome::Handled => fstats::ANSWERED,
                Outcome::Error => answered.map_or(0, |_| fstats::ANSWERED),
                Outcome::Abandoned => fstats::ABANDONED,
                Outcome::Rejected | Outcome::Dissuaded => 0,
            };
        let cdr = Cdr {
            key,
            call: self.call_id(c),
            sip_call_id: text(self.legs.get(call.caller).map_or(&b""[..], |l| l.dialog.call_id())),
            caller: call.words.user().into(),
            received_unix_us: call.received.unix_us,
            wait_us: until.mono.since(call.received.mono),
            pickup_us: attempt.map_or(0, |a| a.answered.unwrap_or(now).mono.since(a.offered.mono)),
            talk_us,
            talk_s: if outcome == Outcome::Handled { Cdr::seconds(talk_us).max(1) } else { 0 },
            flow: call.flow.clone(),
            agent: attempt.map(|a| a.agent.clone()),
            call_type: match outcome {
                Outcome::Handled => CallType::Handled,
                Outcome::Rejected => CallType::Rejected,
                Outcome::Abandoned | Outcome::Dissuaded => CallType::Dropped,
                Outcome::Error => CallType::InternalError,
            },
            rejected: call.rejected,
            fstats: bits,
            cid: call.ticket,
            media: match call.medium {
                Media::Audio => CdrMedia::Audio,
                Media::Chat => CdrMedia::Chat,
            },
            cause,
            param: call.words.param().map(Box::from),
        };
        self.measure(&cdr);
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("record-not-in-journal") {
            self.outputs.push_back(Output::Cdr(cdr));
            return;
        }
        self.notes.cdr(self.cdr_sequence, &cdr);
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("record-twice") {
            self.outputs.push_back(Output::Cdr(cdr.clone()));
        }
        self.outputs.push_back(Output::Cdr(cdr));
    }

    /// The record's times into the histograms.
    fn measure(&self, cdr: &Cdr) {
        self.notes.flow(&cdr.flow);
        let shard = self.stats.shard(self.shard);
        let flow = shard.flows.at(cdr.flow.idx);
        match cdr.call_type {
            CallType::Handled => {
                flow.waits_answered.record(cdr.wait_us);
                shard.talks.record(cdr.talk_us);
            }
            CallType::Dropped => flow.waits_abandoned.record(cdr.wait_us),
            CallType::Rejected | CallType::InternalError => {}
        }
        if cdr.agent.is_some() {
            shard.rings.record(cdr.pickup_us);
        }
    }

    /// Tells the subscribers of a change of an agent.
    pub(crate) fn report(&mut self, agent: &Arc<AgentDef>, state: AgentReport, now: Now) {
        self.report_call(agent, state, None, now);
    }

    /// The same of a call or chat that the agent has got, with its parameter.
    pub(crate) fn report_call(&mut self, agent: &Arc<AgentDef>, state: AgentReport, param: Option<Box<str>>, now: Now) {
        let event = AgentEvent { agent: agent.clone(), state, unix_us: now.unix_us, param };
        self.outputs.push_back(Output::AgentEvent(event));
    }
}

/// Text of a field whose bytes need not be UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}
