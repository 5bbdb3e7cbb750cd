//! What chats have of their own beside audio calls: an agent has several at once, and the wrap-ups after them add up
//! (spec: call-center.md, "An agent handles at one time").
//!
//! Invariants
//! - Each chat that is over gives its slot back at once, where it was. The wrap-ups after an agent's chats are timed by one
//!   shard, its home ([`home_shard`]), which each end reaches, at once or by [`MeshMsg::ChatOver`].
//! - While one of them runs, a chat slot is withheld (`dispatch` does that); with no chat open the agent is in wrap-up.
//! - An agent that refused a chat gets no other for `reject_backoff`, though it may have slots left: the same chat would come
//!   back at once, and again.

use crate::control::{AgentReport, ChatOver, MeshMsg, Output, home_shard};
use crate::engine::Engine;
use crate::leg::Claim;
use crate::provision::{AgentDef, FlowDef};
use std::sync::Arc;
use strowger_dispatch::{AgentState, Release};
use strowger_sip::time::Now;

impl Engine {
    /// A chat of `claim` is over, with a wrap-up to be added to what runs; when the agent refused it, with a pause.
    pub(crate) fn end_chat(&mut self, claim: Claim, wrapup_us: u64, pause_us: u64, now: Now) {
        let report = Some((claim.def, claim.flow));
        self.tell_chat_over(ChatOver { agent: claim.agent, report, wrapup_us, pause_us, ended: now.mono }, now);
    }

    /// Releases the agent and has its home time what follows.
    pub(crate) fn tell_chat_over(&mut self, over: ChatOver, now: Now) {
        let home = home_shard(over.agent, self.cfg.buckets.shards());
        let how = if over.pause_us > 0 { Release::ChatRefused } else { Release::ChatWrapup };
        self.stats.board.at(over.agent.slot).tell_chat_over();
        self.shared_release(over.agent, how, now.mono);
        if home == self.shard {
            self.on_chat_over(&over, now);
        } else {
            self.outputs.push_back(Output::Mesh { to: home, msg: MeshMsg::ChatOver(Box::new(over)) });
        }
    }

    /// A chat of an agent whose home is here is over: wrap-up end = max(end of the chat, present end) + wrap-up.
    pub(crate) fn on_chat_over(&mut self, over: &ChatOver, now: Now) {
        let agent = over.agent;
        self.stats.board.at(agent.slot).hear_chat_over();
        self.notes.agent(agent);
        // A wrap-up that ran out before the message came has let the slot go.
        let withheld = self.dispatch.withhold(agent, over.pause_us > 0);
        self.dispatch.take_late(&mut self.made);
        self.deliver(now.mono);
        if !withheld {
            return;
        }
        let running = self.wrapups.get(&u64::from(agent.slot)).filter(|w| w.agent == agent);
        let from = running.map_or(over.ended, |w| w.until.max(over.ended));
        #[cfg(mutant)]
        let from = if strowger_dispatch::mutant::is("chat-wrapups-overlap") { over.ended } else { from };
        let before = running.and_then(|w| w.pause);
        let pause = if over.pause_us > 0 { before.max(Some(over.ended.plus_us(over.pause_us))) } else { before };
        self.time_wrapup(agent, from.plus_us(over.wrapup_us), pause, now);
        if let Some((def, flow)) = &over.report {
            self.report_chats(def, Some(flow), None, now);
        }
    }

    /// Reports what an agent does after a chat of `flow` began (with its parameter) or ended. One who has logged out meanwhile was reported
    /// offline then, and stays so.
    pub(crate) fn report_chats(
        &mut self,
        def: &Arc<AgentDef>,
        flow: Option<&Arc<FlowDef>>,
        param: Option<Box<str>>,
        now: Now,
    ) {
        let Some(view) = self.shared.agent(def.agent).filter(|v| v.logged_in) else { return };
        let ends = self.stats.board.at(def.agent.slot).wrapup_ends();
        let ends_unix_s = ends / 1_000_000;
        match view.state {
            AgentState::InChat => {
                let report = AgentReport::InChat {
                    flow: flow.cloned(),
                    ongoing_sessions: u32::from(view.chats_open),
                    wrapup_ends_unix_s: (ends > now.unix_us).then_some(ends_unix_s),
                };
                self.report_call(def, report, param, now);
            }
            AgentState::Wrapup => self.report(def, AgentReport::Wrapup { ends_unix_s }, now),
            AgentState::Free => self.report(def, AgentReport::Free, now),
            // In the next call already, which has reported that.
            AgentState::InCall | AgentState::Offline => {}
        }
    }
}
