//! What crosses an engine's walls besides SIP: commands from the control plane, messages between shards, outputs.

use crate::arena::Key;
use crate::audit::{Findings, Report};
use crate::cdr::Cdr;
use crate::provision::{AgentDef, FlowDef, Provisioning};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use strowger_dispatch::{AgentRef, Match};
use strowger_sip::time::Mono;

/// Name of a call: shard, slot and generation; `shard.slot.generation` in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId {
    pub shard: u16,
    pub slot: u32,
    pub generation: u32,
}

impl CallId {
    /// The call of this shard whose record in the journal has this id ([`Entity`](crate::journal::Entity)).
    #[must_use]
    pub fn of_record(shard: u16, id: u64) -> CallId {
        let Key { slot, generation } = Key::from_u64(id);
        CallId { shard, slot, generation }
    }

    /// The id of its record in the journal of its shard.
    #[must_use]
    pub fn record(self) -> u64 {
        Key { slot: self.slot, generation: self.generation }.to_u64()
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.shard, self.slot, self.generation)
    }
}

impl FromStr for CallId {
    type Err = ();
    fn from_str(s: &str) -> Result<CallId, ()> {
        let mut parts = s.splitn(3, '.');
        let (Some(a), Some(b), Some(c)) = (parts.next(), parts.next(), parts.next()) else { return Err(()) };
        let number = |t: &str| t.parse::<u32>().map_err(|_| ());
        Ok(CallId { shard: a.parse().map_err(|_| ())?, slot: number(b)?, generation: number(c)? })
    }
}

/// `$cc_state`; the numbers are those of `cc_calls.state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CallState {
    Welcome = 1,
    Dissuading1 = 2,
    Dissuading2 = 3,
    Queued = 4,
    Preagent = 5,
    ToAgent = 6,
    Ended = 7,
}

impl CallState {
    /// As the lists and events write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CallState::Welcome => "welcome",
            CallState::Dissuading1 => "dissuading1",
            CallState::Dissuading2 => "dissuading2",
            CallState::Queued => "queued",
            CallState::Preagent => "preagent",
            CallState::ToAgent => "toagent",
            CallState::Ended => "ended",
        }
    }

    /// As `$cc_state` and `X-CC-State` write it.
    #[must_use]
    pub const fn header_name(self) -> &'static str {
        match self {
            CallState::Queued => "queue",
            other => other.name(),
        }
    }
}

/// A command from the control plane. Each is sent with an id; the engine answers with `Output::Reply` of that id,
/// in the order of the commands.
#[derive(Debug, Clone)]
pub enum Control {
    /// New provisioning from here on; ongoing calls keep their definitions. Answer: `Done`.
    Provision(Arc<Provisioning>),
    /// Matches that the control plane's own dispatch operations made, for calls of this shard. Answer: `Done`.
    Matched(Vec<Match>),
    /// Log an agent in or out. Answer: `Done`, or `NotFound`.
    Login { agent: AgentRef, on: bool },
    /// Place a waiting call of this shard with an agent, whether or not matching is on. Answer: `Done`, or `NotPlaced`.
    Place { call: CallId, agent: AgentRef },
    /// Wrap-up that was running when the last process stopped. Answer: `Done`.
    BeginWrapup { agent: AgentRef, until_unix_us: u64 },
    /// At most `max` calls from slab position `from` on. Answer: `Calls`.
    ListCalls { from: u32, max: u32, queued_only: bool },
    /// Refuse new calls (503 with Retry-After) from now on. Answer: `Done`.
    Drain { on: bool },
    /// End every call cleanly, CDRs included (orderly stop, after its limit). Answer: `Done`.
    EndAll,
    /// Counts for "nothing is left" checks and metrics. Answer: `Audit`.
    Audit,
    /// What the live audit has found. Answer: `Findings`.
    Findings,
}

/// Answer to a [`Control`].
#[derive(Debug, Clone)]
pub enum Reply {
    Done,
    NotFound,
    /// `next`: where to go on; `None` at the end.
    Calls {
        calls: Vec<CallInfo>,
        next: Option<u32>,
    },
    Audit(Audit),
    Findings(Findings),
    NotPlaced(NotPlaced),
}

/// Why a call was not placed with an agent, in the words of `cc_dispatch_call_to_agent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPlaced {
    #[error("Agent not found")]
    NoAgent,
    #[error("Agent not logged in")]
    NotLoggedIn,
    #[error("Call not found")]
    NoCall,
    /// It is in a message, with an agent, or on its way to one.
    #[error("Call not in queue any more")]
    NotQueued,
    #[error("Agent has no skill for the call")]
    NoSkill,
    /// An audio call, and the agent is not wholly free or takes no audio.
    #[error("Agent is not free/audio enabled")]
    NotFreeAudio,
    /// A chat, and the agent has no chat slot left or takes no chats now.
    #[error("Agent is not free/chat enabled")]
    NotFreeChat,
    /// The caller has changed its session to what no agent takes.
    #[error("Unsupported media in call")]
    UnsupportedMedia,
}

/// What a shard holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audit {
    pub calls: usize,
    pub legs: usize,
    pub client_transactions: usize,
    pub server_transactions: usize,
    pub timers: usize,
    pub buffers: usize,
    /// Agents in a wrap-up that this shard times.
    pub wrapups: usize,
}

/// One ongoing call, for lists.
#[derive(Debug, Clone)]
pub struct CallInfo {
    pub id: CallId,
    pub state: CallState,
    pub chat: bool,
    pub caller_user: Box<str>,
    pub caller_display: Box<str>,
    pub received_unix_us: u64,
    /// When it last entered the queue; 0 when it is not there.
    pub queued_unix_us: u64,
    pub flow: Arc<FlowDef>,
    pub agent: Option<Arc<AgentDef>>,
    /// Order of arrival over all shards.
    pub ticket: u64,
}

/// Between shards. Bounded rings with outboxes carry it; messages are hints, the dispatch words decide.
#[derive(Debug, Clone)]
pub enum MeshMsg {
    /// A call of the receiving shard was given an agent; `since`: when that agent came free.
    Matched { matched: Match, since: Mono },
    /// A chat with an agent whose home is the receiving shard is over. No hint: the wrap-up is timed there alone.
    ChatOver(Box<ChatOver>),
}

/// A chat that is over, with a wrap-up. Times in microseconds.
#[derive(Debug, Clone)]
pub struct ChatOver {
    pub agent: AgentRef,
    /// Who and what the event about it names; `None`: the shard does not know the agent.
    pub report: Option<(Arc<AgentDef>, Arc<FlowDef>)>,
    /// To be added to what runs.
    pub wrapup_us: u64,
    /// When the agent refused it: nothing is offered to the agent for so long.
    pub pause_us: u64,
    pub ended: Mono,
}

/// An agent's home: the shard that carries out the control plane's commands about it, and times the wrap-ups after its chats.
#[must_use]
pub fn home_shard(agent: AgentRef, shards: u16) -> u16 {
    u16::try_from(agent.slot % u32::from(shards.max(1))).unwrap_or(0)
}

/// A change of an agent's state, for `E_CALLCENTER_AGENT_REPORT`.
#[derive(Debug, Clone)]
pub struct AgentEvent {
    pub agent: Arc<AgentDef>,
    pub state: AgentReport,
    pub unix_us: u64,
    /// In a call or chat: its opaque parameter.
    pub param: Option<Box<str>>,
}

/// What the event says of the agent.
#[derive(Debug, Clone)]
pub enum AgentReport {
    Offline,
    Free,
    /// `flow` is missing where a login in the midst of a call is told, by a shard that need not carry that call; with chats, too.
    InCall {
        flow: Option<Arc<FlowDef>>,
    },
    InChat {
        flow: Option<Arc<FlowDef>>,
        ongoing_sessions: u32,
        wrapup_ends_unix_s: Option<u64>,
    },
    Wrapup {
        ends_unix_s: u64,
    },
}

/// What the driver must carry out after an input.
#[derive(Debug)]
pub enum Output {
    Mesh {
        to: u16,
        msg: MeshMsg,
    },
    Cdr(Cdr),
    AgentEvent(AgentEvent),
    Reply {
        id: u64,
        reply: Reply,
    },
    /// The live audit has found something; for the log.
    Audited(Box<Report>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_manuals_names_and_the_numbers_of_cc_calls() {
        use CallState::{Dissuading1, Dissuading2, Ended, Preagent, Queued, ToAgent, Welcome};
        let states = [Welcome, Dissuading1, Dissuading2, Queued, Preagent, ToAgent, Ended];
        let told = states.map(|s| (s as u8, s.name(), s.header_name()));
        let expected = [
            (1, "welcome", "welcome"),
            (2, "dissuading1", "dissuading1"),
            (3, "dissuading2", "dissuading2"),
            (4, "queued", "queue"),
            (5, "preagent", "preagent"),
            (6, "toagent", "toagent"),
            (7, "ended", "ended"),
        ];
        assert_eq!(told, expected);
    }
}
