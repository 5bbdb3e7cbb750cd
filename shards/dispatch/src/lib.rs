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
//! - **Audits look on** (`look.rs`): a claim never changes its shard, and an agent's word counts them; so of a word that two looks find
//!   equal, the same claims were there all the time, and what each shard says of its own at any moment in between adds up.
//! - Available agents of a skill are kept apart by media, and so are waiting calls: nobody walks past what it cannot take.
//!
//! Who may touch which field is at the top of each file.
//!
//! Memory: a waiting call is one wait slot and one node of its skill's set, a cache line each (128 bytes; node with its allocator's
//! overhead). An agent is two lines, its spec, and a node for each skill and media that it is available for.
//!
//! # Checking
//!
//! Under loom and shuttle the words, the links and the data that `HELD` guards are the checker's; epochs run for real but unseen (with
//! `crossbeam_loom` loom explores them, too), and each retired node is checked to be unreachable, which is what epochs ask of us. Orderings are loom's to check (shuttle knows only
//! sequential consistency), whole operations of many threads shuttle's. Each of these planted bugs fails the test named:
//!
//! | planted | loom | shuttle |
//! |---|---|---|
//! | either fence of "publish, fence, look again" dropped; orderings relaxed in the words or links | fails | cannot see it |
//! | `settle` does not look again; a release is not settled; the call publishes itself after it looked | fails | fails |
//! | `HELD` ignored; the holder lets go by a store; a commit by a store; a failed commit keeps its claim | fails | fails |
//! | the generation not compared when an agent is taken in hand, or not raised when its slot is recycled | fails | passes |
//! | the wait slot's generation not raised; an equal update skipped while another is in flight | passes | fails |
//! | a node marked on its lowest level only, not unlinked, or linked behind a marked one | fails | fails |
//! | a node unlinked by its neighbour alone though it has two levels, or though that swap failed | fails | |
//! | `dispatching` read before the call is published; `match_all` without its fence | fails | |
//! | the worst call instead of the best over the skills | passes | `tests/model.rs` fails |
//!
//! ```text
//! cargo test -p strowger-dispatch                    # units, a sequential model (proptest), real threads
//! RUSTFLAGS="--cfg loom" cargo test --release -p strowger-dispatch --test loom         # a minute; LOOM_MAX_PREEMPTIONS=2: seconds
//! RUSTFLAGS="--cfg loom --cfg crossbeam_loom" cargo test --release -p strowger-dispatch --test loom   # half a minute
//! RUSTFLAGS="--cfg shuttle" cargo test --release -p strowger-dispatch --test shuttle   # SHUTTLE_RUNS=100000: overnight
//! ```

mod agent;
mod dispatch;
mod handle;
mod index;
mod look;
mod matcher;
#[cfg(mutant)]
#[doc(hidden)]
pub mod mutant;
mod provision;
mod reclaim;
mod segments;
mod set;
mod slot;
mod sync;
mod types;
mod waiting;

pub use dispatch::Dispatch;
pub use handle::Handle;
pub use look::{AgentLook, WaitLook};
pub use types::*;
