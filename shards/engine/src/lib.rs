//! The call machine of one shard: flows, legs, bridging, wrap-up, CDRs as values. Sans-I/O.
//!
//! [`Engine`] owns every call of its shard by value. Inputs are `handle_*(now, ..)`; after each input the driver
//! drains `poll_*` until empty. The glommio runtime and the simulator drive the same code.
//!
//! Invariants
//! - A call lives on one shard from its first message to its last CDR; only [`MeshMsg`]s cross shards.
//! - Every agent claim that the dispatch room hands out ends in exactly one release, however the call ends.
//! - Every attempt that ends writes exactly one CDR (spec: call-center.md, "Outcomes and their records").
//! - At rest nothing is left: no leg, transaction, timer, buffer.

#[cfg(test)]
extern crate self as strowger_engine;

mod agents;
mod arena;
mod arrival;
mod attempts;
pub mod audit;
mod body;
mod books;
pub mod buckets;
mod call;
pub mod cdr;
mod chats;
mod commands;
pub mod config;
pub mod control;
mod describe;
mod dispatching;
mod dissuading;
mod ending;
mod engine;
mod foresee;
pub mod journal;
mod leg;
mod link;
mod media;
mod out;
mod preagent;
pub mod provision;
pub mod registry;
pub mod rehearsal;
mod relay;
mod routing;
pub mod rules;
mod session;
pub mod stats;
mod words;

pub use buckets::BucketTable;
pub use cdr::{Cdr, CdrRow};
pub use config::{AgentOffer, CallConfig, EngineConfig, Refusals};
pub use control::{CallId, CallInfo, CallState, ChatOver, Control, MeshMsg, NotPlaced, Output, Reply};
pub use engine::Engine;
pub use journal::{Recovered, Restored, Sink};
pub use provision::{AgentDef, FlowDef, Provisioning};
pub use rules::Rules;
pub use stats::StatsHub;
