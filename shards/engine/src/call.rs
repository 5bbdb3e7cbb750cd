//! A caller's stay: which flow, which state, which legs, whom it waits for.

use crate::arena::Key;
use crate::audit::History;
use crate::control::CallState;
use crate::provision::{AgentDef, FlowDef};
use crate::words::Words;
use std::sync::Arc;
use strowger_dispatch::{AgentRef, Media, WaitRef};
use strowger_sip::time::{Mono, Now};
use strowger_sip::wheel::TimerId;

/// A far end of the caller's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The media server or agent of that leg.
    Leg(Key),
    /// Nobody: all streams inactive.
    Silence,
}

/// How the caller's session is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// The caller's INVITE is not answered.
    Fresh,
    /// Our 200 with that end's description waits for the ACK.
    Acking(End),
    /// Our re-INVITE with that end's description is outstanding.
    Offering {
        to: End,
        before: Option<End>,
    },
    Linked(End),
    /// The far end has gone; the caller's session stands alone.
    Loose,
}

/// Which message the media leg plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    Welcome,
    Dissuading,
    Queue,
}

/// What the INVITE to the agent carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The caller's description.
    Caller,
    /// Nothing (RFC 3725 flow I).
    Delayed,
}

/// How far an agent has come with `message_flow_id` (spec: sip.md, "preagent").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preagent {
    /// The flow has no such message.
    Off,
    /// The agent is called, without a description.
    Ringing,
    /// The message of that leg is called with the agent's offer, then plays to the agent.
    Hearing(Key),
    /// The message is over; the agent's session is to be moved to the caller.
    Moving,
    /// What the agent described last is for the caller.
    Done,
}

/// One try with one agent.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub leg: Key,
    pub agent: Arc<AgentDef>,
    pub mode: Mode,
    pub pre: Preagent,
    /// The other offer mode has been tried already.
    pub other_mode: bool,
    /// Redirections followed.
    pub redirects: u8,
    pub offered: Now,
    /// When it answered; behind a `message_flow_id`, when it was connected to the caller.
    pub answered: Option<Now>,
    /// The caller has been connected to the agent.
    pub bridged: bool,
    pub corrected: bool,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub state: CallState,
    pub flow: Arc<FlowDef>,
    /// Audio call or chat, by the caller's first description.
    pub medium: Media,
    pub received: Now,
    /// Order of arrival over all shards; kept through rejections.
    pub ticket: u64,
    pub bucket: u16,
    pub caller: Key,
    pub media: Option<Key>,
    pub message: Message,
    /// Music that is heard until the caller is connected to `media`.
    pub fading: Option<Key>,
    /// Music failures in a row.
    pub media_failures: u8,
    /// Since when no music could be had for a caller who is not answered.
    pub stranded: Option<Mono>,
    pub attempt: Option<Box<Attempt>>,
    pub wait: Option<WaitRef>,
    pub queued: Option<Now>,
    pub link: Link,
    /// Attempts that agents refused, and the last of these agents.
    pub rejected: u32,
    pub refused: Vec<AgentRef>,
    /// Attempts that ended by an error of our own, and re-INVITEs for which there was no way to the caller.
    pub errors: u8,
    /// Counted in the on-hold gauge at present; was counted in `onhold_total`.
    pub onhold: bool,
    pub held_once: bool,
    /// 180 has been sent to the caller for this attempt.
    pub rang: bool,
    pub words: Words,
    pub max_forwards: u32,
    /// Next try of the music, or the next 182.
    pub media_timer: Option<TimerId>,
    pub progress_timer: Option<TimerId>,
    /// Pause after a 491 (section 14.1).
    pub glare_timer: Option<TimerId>,
    /// `dissuading_onhold_th`; runs while the call waits in the queue.
    pub onhold_timer: Option<TimerId>,
    /// What happened last, for audits' reports.
    pub history: History,
}
