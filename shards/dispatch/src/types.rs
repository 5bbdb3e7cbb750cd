//! The values of the interface.

use std::fmt;

/// Number of a shard, from 0.
pub type Shard = u16;

/// A skill, interned by the caller: dense from 0, below [`Limits::skills`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SkillId(pub u32);

/// An agent: its slot, and the generation of the slot. Stale once the agent has been retired and its slot is free.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AgentRef {
    pub slot: u32,
    pub gen_: u32,
}

/// The entry of a waiting call. Stale once taken, left or abandoned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct WaitRef {
    pub shard: Shard,
    pub slot: u32,
    pub gen_: u32,
}

/// What a call needs of an agent: all of it (RTP), or one of its chat slots (MSRP).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Media {
    Audio = 0,
    Chat = 1,
}

impl Media {
    pub(crate) const ALL: [Media; 2] = [Media::Audio, Media::Chat];
}

/// `chat_dispatch_policy` (spec/call-center.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChatPolicy {
    /// Spread: after each chat the agent goes to the end of the order.
    #[default]
    Balancing,
    /// An agent in chats is filled before a free one is begun.
    FullLoad,
}

/// Upper bounds. Memory grows with use, by segments; nothing is moved.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Shards that wait; the control plane takes handles numbered `shards`.
    pub shards: u16,
    /// Agents at one time, at most 2^30.
    pub agents: u32,
    /// Calls that wait or are taken and not yet consumed, for each shard.
    pub waiting_per_shard: u32,
    pub skills: u32,
}

/// What an agent can do.
#[derive(Clone, Copy, Debug)]
pub struct AgentSpec<'a> {
    /// In any order; doubles count once.
    pub skills: &'a [SkillId],
    /// Takes audio calls.
    pub audio: bool,
    /// Most chats at once; 0: takes none.
    pub chat_slots: u8,
}

/// A call that needs an agent.
#[derive(Clone, Copy, Debug)]
pub struct WaitSpec<'a> {
    pub media: Media,
    pub skill: SkillId,
    /// 0 is the highest.
    pub priority: u32,
    /// Order of arrival ([`Dispatch::next_ticket`](crate::Dispatch::next_ticket)); a call that comes back keeps its own.
    pub ticket: u64,
    /// Agents that refused this call: taken only when no other is available. While the call waits the last three are remembered.
    pub refused: &'a [AgentRef],
}

/// A call has an agent. The call's shard must be told; it is a hint, the entry's word is already committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Match {
    pub wait: WaitRef,
    pub agent: AgentRef,
}

/// How a claim ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    /// The call or chat is over, no wrap-up: when nothing else is open, free and last in the idle order.
    Free,
    /// The call or chat never came about: the agent keeps the place that it had in the idle order.
    GiveBack,
    /// The call is over: in wrap-up until [`Handle::wrapup_over`](crate::Handle::wrapup_over). For a chat, as `ChatWrapup`.
    Wrapup,
    /// One chat closed, no wrap-up.
    Chat,
    /// One chat closed; one slot is withheld until [`Handle::wrapup_over`](crate::Handle::wrapup_over), with no chat open all of them.
    ChatWrapup,
    /// One chat was refused: as `ChatWrapup`, and the other slots take nothing, either, until
    /// [`Handle::pause_over`](crate::Handle::pause_over), lest the same chat comes back through the next of them at once.
    ChatRefused,
}

/// The agent's state right after the release, before a new match (which is in `out`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Released {
    Free,
    /// Other chats are open.
    InChat,
    Wrapup,
    /// Logged out during the call.
    Offline,
    /// Gone by reload during the call; the slot is free now, unless other chats are open.
    Retired,
    /// Nothing was released: the reference is stale, or no such claim was open.
    Stale,
}

/// `offline`, `free`, `incall`, `inchat`, `wrapup` (spec/call-center.md). An agent that logged out in a call is still in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AgentState {
    Offline,
    Free,
    InCall,
    InChat,
    Wrapup,
}

/// An agent as lists show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgentView {
    pub logged_in: bool,
    pub state: AgentState,
    pub chats_open: u8,
    pub chat_slots: u8,
    /// One of them takes nothing, for a wrap-up after a chat runs.
    pub slot_withheld: bool,
    /// Gone by reload, serving its present call to the end.
    pub retired: bool,
    /// Shard and call, as told by [`Dispatch::set_owner`](crate::Dispatch::set_owner).
    pub owner: Option<(Shard, u64)>,
}

/// How a waiting call's entry ended by its owner's wish.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abandon {
    /// It waited no more than that. (A stale entry, too.)
    Left,
    /// It had an agent already, whom the caller must release now.
    Taken(AgentRef),
}

/// A limit of [`Limits`] is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    Agents,
    Waiting,
    /// A skill id at or above the limit.
    Skills,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Agents => "agent table is full: raise the limit of agents",
            Full::Waiting => "waiting calls of this shard are at their limit: raise it",
            Full::Skills => "skill id is beyond the limit of skills: raise it",
        })
    }
}

impl std::error::Error for Full {}

/// Why a call could not be given to an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimError {
    /// The call does not wait any more.
    NotWaiting,
    /// No such agent any more.
    StaleAgent,
    NotLoggedIn,
    /// The agent lacks the skill that the call needs.
    NoSkill,
    /// An audio call, and the agent is not wholly free or takes no audio.
    NotFreeAudio,
    /// A chat, and the agent has no chat slot left or takes no chats now.
    NotFreeChat,
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClaimError::NotWaiting => "call not in queue any more",
            ClaimError::StaleAgent => "agent not found",
            ClaimError::NotLoggedIn => "agent not logged in",
            ClaimError::NoSkill => "agent has no skill for the call",
            ClaimError::NotFreeAudio => "agent is not free/audio enabled",
            ClaimError::NotFreeChat => "agent is not free/chat enabled",
        })
    }
}

impl std::error::Error for ClaimError {}
