//! SIP without I/O: a zero-copy message view, the RFC 3261 transaction machines, dialogs, SDP.
//!
//! Nothing here reads a clock, opens a socket or draws a random number: inputs carry `now`, randomness is an
//! injected seed. Nothing allocates to parse, answer or route a message.

pub mod ahead;
pub mod chunks;
pub mod hash;
pub mod net;
pub mod time;
pub mod wire;

// Messages: bytes in, views out.
pub mod msg;
#[cfg(mutant)]
#[path = "../../dispatch/src/mutant.rs"]
mod mutant;
pub mod scan;
pub mod sdp;

// Transactions and dialogs.
mod bytes;
pub mod dialog;
pub mod endpoint;
pub mod id;
pub mod txn;
pub mod wheel;
