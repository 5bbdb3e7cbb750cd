//! What a restart needs of a shard, as records: the latest state of each entity (spec: data.md, "Journal").
//!
//! The engine notes which entities an input changed. Before the messages of a turn are sent, its driver has them written
//! ([`Sink`]) and commits the turn. A turn that is not committed is as if it had never been: nothing of it was sent.
//!
//! Invariants
//! - What changes often and what does not of a call, a leg or a transaction are two entities ([`Kind::other_half`]); neither
//!   is without the other.
//! - A record replaces the entity's earlier ones; a removal ends them, and its other half's. Order between entities of one
//!   turn has no meaning.
//! - Times in records are Unix time: the monotonic clock does not survive.
//! - Records name flows and agents by their ids, never by index or slot: provisioning may differ after the restart.

mod calls;
mod legs;
mod notes;
mod ongoing;
mod people;
mod restore;
mod revived;

pub(crate) use notes::Notes;
pub use ongoing::{Ongoing, Part, bundle, part, unbundle};
pub use restore::Restored;
pub use strowger_sip::wire;

/// Version of the records of calls, legs, agents and counters.
const VERSION: u64 = 3;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// What the shard as a whole must know: sequence of records, shard counters. One entity, id 0.
    Shard = 0,
    /// What changes of a call; id: its key.
    Call = 1,
    /// What changes of a dialog from message to message; id: the key of its leg.
    Leg = 2,
    /// Run-time state of an agent: logged in, wrap-up, misses; id: slot in this process.
    Agent = 3,
    /// Counters of a flow; id: index in this process.
    FlowCounts = 4,
    /// Counters of an agent; id: slot in this process.
    AgentCounts = 5,
    /// A CDR ([`crate::cdr::CdrRow`]) that neither database nor spool is known to have; id: its sequence number.
    Cdr = 6,
    /// A request of ours, its state; id: slot and generation of its transaction.
    Client = 7,
    /// A request of a peer's, its state; id: slot and generation of its transaction.
    Server = 8,
    /// What stays of a call; id: its key.
    Caller = 9,
    /// Strings of a dialog, and what its peer has described; id: the key of its leg.
    Dialog = 10,
    /// The bytes of a request of ours; id: as of [`Kind::Client`].
    Request = 11,
    /// The identity of a peer's request and our last answer; id: as of [`Kind::Server`].
    Answer = 12,
}

impl Kind {
    /// Every kind, by number.
    pub const ALL: [Kind; 13] = [
        Kind::Shard,
        Kind::Call,
        Kind::Leg,
        Kind::Agent,
        Kind::FlowCounts,
        Kind::AgentCounts,
        Kind::Cdr,
        Kind::Client,
        Kind::Server,
        Kind::Caller,
        Kind::Dialog,
        Kind::Request,
        Kind::Answer,
    ];

    /// The kind of the records that hold the rest of such an entity, under the same id; they are written less often.
    #[must_use]
    pub fn other_half(self) -> Option<Kind> {
        match self {
            Kind::Call => Some(Kind::Caller),
            Kind::Leg => Some(Kind::Dialog),
            Kind::Client => Some(Kind::Request),
            Kind::Server => Some(Kind::Answer),
            _ => None,
        }
    }

    /// The kind that an entity of this kind goes by, and which half of it this is: 0, or 1 for [`Kind::other_half`].
    #[must_use]
    pub fn half(self) -> (Kind, usize) {
        match self {
            Kind::Caller => (Kind::Call, 1),
            Kind::Dialog => (Kind::Leg, 1),
            Kind::Request => (Kind::Client, 1),
            Kind::Answer => (Kind::Server, 1),
            whole => (whole, 0),
        }
    }

    /// The kind of that number.
    #[must_use]
    pub fn from_u8(n: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(n)).copied()
    }
}

/// What a record is about, unique in the journal of one shard. The low half of `id` is small and dense (a slot, an index),
/// but for CDRs, whose ids count up by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entity {
    pub kind: Kind,
    pub id: u64,
}

impl Entity {
    /// The one that holds the rest of it ([`Kind::other_half`]).
    #[must_use]
    pub fn other_half(self) -> Option<Entity> {
        self.kind.other_half().map(|kind| Entity { kind, ..self })
    }
}

/// Where an engine writes its records. Never fails and never blocks: whoever keeps them reports his troubles elsewhere.
pub trait Sink {
    /// The entity that has this slot, whatever its generation, will be put or removed soon.
    fn soon(&self, _entity: Entity) {}
    /// The entity is now this.
    fn put(&mut self, entity: Entity, record: &[u8]);
    /// The entity is no more, nor is its other half ([`Kind::other_half`]).
    fn remove(&mut self, entity: Entity);
}

/// What was found of one shard of the process before: the last committed record of each entity that was not removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The shard that wrote them; there may be another number of shards now.
    pub shard: u16,
    pub records: Records,
}

/// Entities and their records.
pub type Records = Vec<(Entity, Box<[u8]>)>;
