//! One dialog of a call: the caller's, a media server's, or an agent's.

use crate::arena::Key;
use crate::body::Body;
use crate::provision::{AgentDef, FlowDef};
use std::ops::Deref;
use std::sync::Arc;
use strowger_dispatch::{AgentRef, Media};
use strowger_sip::dialog::Dialog;
use strowger_sip::endpoint::{ClientTxn, ServerTxn};
use strowger_sip::wheel::TimerId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Caller,
    Media,
    Agent,
    /// The server of `message_flow_id`, for the agent.
    FlowMessage,
}

/// Where the dialog stands. `Trying` on the caller's side: its INVITE is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No final answer to the first INVITE yet.
    Trying,
    /// Our first INVITE is being cancelled.
    Cancelled,
    /// Our 2xx waits for its ACK.
    AwaitAck,
    /// Their 2xx carries an offer; our ACK waits for the answer.
    OwesAck,
    Confirmed,
    /// We have ended it: BYE sent, or due when the ACK comes.
    Closing,
}

/// Something that is replaced as a whole, and seldom: the journal asks whether it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept<T> {
    value: T,
    fresh: bool,
}

impl<T> From<T> for Kept<T> {
    fn from(value: T) -> Kept<T> {
        Kept { value, fresh: true }
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Kept<Option<T>> {
    pub fn take(&mut self) -> Option<T> {
        self.fresh |= self.value.is_some();
        self.value.take()
    }
}

impl<T> Kept<T> {
    /// Whether it is another than when this was asked last.
    pub fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }
}

/// A list that is nearly always empty, and then takes one word.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "a word where a list takes three")]
pub(crate) struct Few<T>(Option<Box<Vec<T>>>);

impl<T> Default for Few<T> {
    fn default() -> Few<T> {
        Few(None)
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.0.as_ref().map_or(&[], |list| list)
    }
}

impl<T> Few<T> {
    pub fn push(&mut self, value: T) {
        self.0.get_or_insert_default().push(value);
    }

    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        if let Some(list) = &mut self.0 {
            list.retain(keep);
        }
    }

    /// Takes out all that there is.
    pub fn take(&mut self) -> Vec<T> {
        self.0.as_mut().map(|list| std::mem::take(&mut **list)).unwrap_or_default()
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Few<T> {
        let list: Vec<T> = values.into_iter().collect();
        Few((!list.is_empty()).then(|| Box::new(list)))
    }
}

/// Why an INVITE of ours is outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The first of the dialog.
    Initial,
    /// The caller is moved to another far end.
    Link,
    /// The agent is moved from its message to the caller. `offered`: with the caller's description.
    Bridge { offered: bool },
    /// The far end is told the caller's changed description (at most once).
    Corrective,
    /// A re-INVITE of the other side, passed on. `offered`: it carried a description.
    Relay { from: Key, txn: ServerTxn, offered: bool },
    /// Session timer (RFC 4028).
    Refresh,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct OutInvite {
    pub txn: ClientTxn,
    pub purpose: Purpose,
    pub cseq: u32,
}

/// A request other than INVITE passed on to this leg.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relay {
    pub out: ClientTxn,
    pub from: Key,
    pub txn: ServerTxn,
    /// An UPDATE with a description: an offer is outstanding.
    pub offer: bool,
}

/// Their INVITE that we have not finished: unanswered, or answered 2xx without ACK yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InInvite {
    pub txn: ServerTxn,
    pub cseq: u32,
    pub answered: bool,
    /// Answered 2xx with our offer: the ACK carries the answer, due to this leg's OwesAck or relay partner.
    pub ack_to: Option<Key>,
}

/// What becomes of the agent when this leg's attempt is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Free as soon as the phone is (its dialog ended), at the latest after a grace.
    Free,
}

/// An agent's audio slot, or one of its chat slots, held by this leg until it is released.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub agent: AgentRef,
    pub def: Arc<AgentDef>,
    pub medium: Media,
    /// Whose call it is.
    pub flow: Arc<FlowDef>,
    pub plan: Option<Plan>,
}

/// RFC 4028 on this dialog.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Session {
    /// Negotiated interval, seconds; 0 = none.
    pub interval_s: u32,
    pub we_refresh: bool,
    pub timer: Option<TimerId>,
    /// Lowest interval that the peer accepts (from a 422).
    pub min_se_s: u32,
    /// The peer understands session timers (then it may be made the refresher).
    pub peer_supports: bool,
    /// The peer allows UPDATE.
    pub update: bool,
    /// Refreshes in a row for which there was no way to the peer.
    pub unsent: u32,
}

#[derive(Debug)]
pub(crate) struct Leg {
    /// `None`: the call has let it go and it only closes its dialog.
    pub call: Option<Key>,
    pub role: Role,
    pub phase: Phase,
    pub dialog: Dialog,
    /// Their INVITE in progress.
    pub inbound: Option<InInvite>,
    /// Ours.
    pub invite: Option<OutInvite>,
    pub bye: Option<ClientTxn>,
    /// The 2xx whose ACK waits for an answer, and its CSeq.
    pub owes_ack: Option<(ClientTxn, u32)>,
    /// Our first INVITE carried a description.
    pub offered: bool,
    /// What they last described.
    pub remote: Kept<Option<Body>>,
    /// What they propose in a request that is on its way to the other side.
    pub proposed: Kept<Option<Body>>,
    /// Our origin line on this dialog: session id, version.
    pub session_id: u64,
    pub version: u32,
    /// Fingerprint of what we last described there, without the origin line.
    pub described: u64,
    /// The caller has changed its media since it was described there.
    pub stale: bool,
    pub claim: Option<Box<Claim>>,
    /// Ring timeout, limit of a re-INVITE, or grace of a closing leg.
    pub timer: Option<TimerId>,
    pub session: Session,
    /// Requests of the other side, sent on to this one.
    pub relays: Few<Relay>,
    /// Requests of this side that wait for the other one's answer.
    pub pending: Few<ServerTxn>,
    /// Our session refresh by UPDATE.
    pub refresh: Option<ClientTxn>,
    /// Our OPTIONS after a restart.
    pub probe: Option<ClientTxn>,
    /// The dialog has ended; what remains waits for the ACK to our 2xx.
    pub over: bool,
}

impl Leg {
    /// A leg before its first final answer, without a call yet.
    pub fn new(role: Role, dialog: Dialog, session_id: u64) -> Leg {
        Leg {
            call: None,
            role,
            phase: Phase::Trying,
            dialog,
            inbound: None,
            invite: None,
            bye: None,
            owes_ack: None,
            offered: false,
            remote: None.into(),
            proposed: None.into(),
            session_id,
            version: 0,
            described: 0,
            stale: false,
            claim: None,
            timer: None,
            session: Session::default(),
            relays: Few::default(),
            pending: Few::default(),
            refresh: None,
            probe: None,
            over: false,
        }
    }

    /// Whether its dialog or a description is another than when this was asked last.
    pub fn take_fresh(&mut self) -> bool {
        // Each is asked.
        self.dialog.take_fresh() | self.remote.take_fresh() | self.proposed.take_fresh()
    }

    /// Our tag.
    pub fn local_tag(&self) -> &[u8] {
        self.dialog.local_tag()
    }

    /// The bucket of its call, which our tag names.
    pub fn bucket(&self) -> Option<u16> {
        strowger_sip::scan::parse_mark(self.local_tag())
    }

    /// No INVITE of either side in progress: a new one may be sent (RFC 3261 section 14.1).
    pub fn invite_idle(&self) -> bool {
        self.invite.is_none() && self.inbound.is_none() && self.owes_ack.is_none() && self.phase == Phase::Confirmed
    }

    /// An offer of either side is unanswered (RFC 3264), by INVITE or UPDATE.
    pub fn offer_pending(&self) -> bool {
        self.invite.is_some() || self.inbound.is_some() || self.relays.iter().any(|r| r.offer)
    }

    /// The dialog is up and a description of theirs is known.
    pub fn described(&self) -> bool {
        matches!(self.phase, Phase::Confirmed | Phase::OwesAck) && self.remote.is_some()
    }
}
