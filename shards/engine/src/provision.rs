//! Flows and agents as the shards see them: one immutable value, replaced as a whole by a reload.

use crate::config::AgentOffer;
use std::collections::BTreeMap;
use std::sync::Arc;
use strowger_dispatch::{AgentRef, Media, SkillId};

/// A flow (queue), row of `cc_flows`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FlowDef {
    /// Index of its counters; kept for the same flow id over reloads, never reused.
    pub idx: u32,
    pub flowid: Box<str>,
    /// 0 is the highest.
    pub priority: u32,
    pub skill: SkillId,
    pub skill_name: Box<str>,
    pub prependcid: Option<Box<str>>,
    /// Ceiling on the wrap-up, seconds; 0 = none.
    pub max_wrapup_s: u32,
    pub dissuading_hangup: bool,
    /// Thresholds, 0 = off: seconds, seconds, calls.
    pub dissuading_onhold_th: u32,
    pub dissuading_ewt_th: u32,
    pub dissuading_qsize_th: u32,
    pub message_welcome: Option<Box<str>>,
    pub message_queue: Box<str>,
    pub message_dissuading: Option<Box<str>>,
    pub message_flow_id: Option<Box<str>>,
    /// Overrides the global `agent_offer`.
    pub agent_offer: Option<AgentOffer>,
}

/// An agent, row of `cc_agents`.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentDef {
    pub agent: AgentRef,
    pub agentid: Box<str>,
    pub location: Option<Box<str>>,
    pub msrp_location: Option<Box<str>>,
    pub msrp_max_sessions: u8,
    pub skills: Vec<SkillId>,
    /// Seconds; 0 = the global one.
    pub wrapup_s: u32,
}

impl AgentDef {
    /// Where it takes audio calls, or chats; `None`: it takes none.
    #[must_use]
    pub fn address(&self, medium: Media) -> Option<&str> {
        match medium {
            Media::Audio => self.location.as_deref(),
            Media::Chat => self.msrp_location.as_deref(),
        }
    }
}

/// Everything provisioned, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Provisioning {
    /// Counts reloads.
    pub version: u64,
    pub flows: BTreeMap<Box<str>, Arc<FlowDef>>,
    /// By slot of the agent table. Also those that the last load took away and that still live; `agents_by_id` has them
    /// no more.
    pub agents: Vec<Option<Arc<AgentDef>>>,
    pub agents_by_id: BTreeMap<Box<str>, AgentRef>,
}

impl Provisioning {
    /// The flow of that id.
    #[must_use]
    pub fn flow(&self, id: &str) -> Option<&Arc<FlowDef>> {
        self.flows.get(id)
    }

    /// The definition behind a claim; `None` when the slot has been given to another agent meanwhile.
    #[must_use]
    pub fn agent(&self, a: AgentRef) -> Option<&Arc<AgentDef>> {
        self.agents.get(a.slot as usize)?.as_ref().filter(|d| d.agent == a)
    }
}
