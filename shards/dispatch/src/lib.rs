//! Lock-free dispatch: who talks to whom. An agent table, the waiting calls, an index by skill, and the matcher, shared by all
//! shards; no lock, no clock, no thread of its own.
//!
//! # Invariants
//!
//! 1. **No double booking.** An agent's audio slot or chat slot has at most one owner.
//! 2. **No lost match.** With no operation and no [`Match`] in flight, no waiting call and available agent of its skill coexist.
//! 3. **Order.** An agent gets the best waiting call over all its skills by (priority, original ticket), of two equal ones the audio
//!    call; a call gets the available agent that the policy puts first. Under races the inversion is bounded by the operations
//!    that overlap in time.
//! 4. **One winner per call.** `waiting -> taken` and `waiting -> abandoned` are the same compare-and-swap.
//! 5. **Nothing leaks.** Every claim ends in a [`Handle::release`]; memory is reclaimed by epochs
//!    ([`Dispatch::garbage`] is 0 at rest after each handle's [`Handle::collect`]).
//! 6. **Progress.** Lock-free: a stalled thread blocks no other. Costs grow with the logarithm of the number of agents and calls.
//!
//! # How
//!
//! - Set entries are hints (place, slot, generation); the words decide. `agent.rs` and `waiting.rs` name each bit and transition.
//! - An agent is changed **in hand**: its `HELD` bit makes one thread the holder, which alone links and unlinks the agent's entries.
//!   Who finds the agent in another's hand makes its change to the word; the holder cannot let go without seeing it.
//! - **Match = claim, then commit**: the agent's word, then the call's. A commit that fails takes the claim back.
//! - **Every release is an arrival**: publish, sequentially consistent fence, look again. Of a call that publishes itself and an agent
//!   that is let go at the same time, at least one sees the other.
//! - **Nobody overtakes**: an arriving call publishes itself, takes an agent in hand, and that agent gets the best call over its skills.
//! - Available agents of a skill are kept apart by media, and so are waiting calls: nobody walks past what it cannot take.
//!
//! Who may touch which field is at the top of each file.
//!
//! # Checking
//!
//! ```text
//! cargo test -p strowger-dispatch                       # units, a sequential model (proptest), real threads
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p strowger-dispatch --test loom
//! RUSTFLAGS="--cfg shuttle" cargo test --release -p strowger-dispatch --test shuttle
//! ```

mod agent;
mod dispatch;
mod handle;
mod index;
mod matcher;
mod provision;
mod reclaim;
mod segments;
mod set;
mod sync;
mod types;
mod waiting;

pub use dispatch::Dispatch;
pub use handle::Handle;
pub use types::*;
