//! Shards on glommio: one executor a core, each driving one engine; their sockets, the mesh between them, the clock.
//!
//! Entry points: [`bind::bind`] (locks and sockets), [`server::start`] (the shards), [`server::Shards`] (the control
//! plane's way to them). The loop is in `shard.rs`; glommio is named in `driver.rs` alone.
//!
//! Invariants
//! - One owner: a shard's engine, sockets and queues belong to its thread; others reach it through bounded lock-free
//!   queues and a bell.
//! - Nothing on a shard blocks on anything but its own wait; the control plane may be as slow as it likes.
//! - A shard that dies is reported ([`server::Shards::failed`]); nothing limps on.

pub mod bind;
pub mod clock;
pub mod counts;
pub mod door;
pub mod driver;
pub mod error;
pub mod journal;
pub mod latency;
pub mod lock;
pub mod machine;
pub mod mesh;
pub mod net;
mod outbound;
pub mod overload;
pub mod owner;
mod pace;
pub mod post;
mod relay;
pub mod server;
mod shard;
pub mod sys;

pub use bind::{Bound, ListenerSpec, bind};
pub use counts::RuntimeCounts;
pub use error::{Holder, StartError};
pub use latency::LatencySnapshot;
pub use overload::{OverloadConfig, SourceRate};
pub use relay::ResolveRequest;
pub use server::{Gone, ServerSpec, ShardFailure, Shards, start, start_with};
