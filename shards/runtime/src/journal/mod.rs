//! The journal on disk: for each shard a log of records in mapped segments, which survives kill -9; what is kept of it, how
//! it is read again, and how one process's hands over to the next one's.
//!
//! - [`Journal`]: the shard's end, a [`strowger_engine::journal::Sink`]. Appends, commits, cleans; waits for nobody.
//! - [`Keeper`]: threads that have segments ready before they are needed, and sync what is committed to disk.
//! - [`Follower`]: hands out what is committed to whoever keeps something that depends on it.
//! - [`Generation`]: the directory of one process: `DIR/GEN/shard-N/segment-M`, with a file `COMPLETE` once its shards have
//!   written down all that they took over from the generation before.
//! - [`prior`]: what the newest complete generation holds.
//!
//! Segments are mapped in memory where there is a tmpfs: `MEMORY/strowger-HASH/GEN/shard-N/segment-M`, each with its copy of the
//! same name in `DIR`. That outlives a kill; the copies outlive a loss of power.
//!
//! Invariants
//! - A turn is valid as a whole or not at all: a record counts once a commit mark follows it, or once the segment's
//!   committed length covers it.
//! - The log is in the order of its segments' numbers; a later record of an entity replaces the earlier. Only the oldest
//!   segment is cleaned, so a removal may go with its segment: no older record of the entity is left.
//! - A header names as the oldest segment only one that was the oldest at a commit: what was written anew of an older one
//!   counts before that one goes.
//! - A segment is used anew only when all that was written before it was let go is on disk, and nobody else holds it.
//! - The copies on disk are at every moment the journal as it was at the end of some turn (`Synced::write`), and never ahead of
//!   what is in memory.
//! - `COMPLETE` on disk says which generation counts and where it is in memory; there the same file must lie. A segment that is
//!   not found in memory is read from the disk.
//! - While little is written, full segments rest: they are on disk alone, and have no file in memory. Whoever may look at the
//!   records of such a one has it: the shard hands it to the syncing thread, which hands it back when the shard calls it up.
//! - What is in memory goes when the disk has all of it (the end of the process), or the next generation is complete.
//! - A generation without `COMPLETE` has carried no call: it may go at any time. The one before goes last.

mod follow;
mod generation;
mod ground;
mod keeper;
mod memory;
mod places;
mod record;
mod recover;
mod rest;
mod segment;
pub mod simulated;
#[cfg(test)]
mod tests;
mod writer;

pub use follow::{Bytes, Change, Follower, Written};
pub use generation::{Generation, Prior, prior};
pub use ground::Disk;
pub use keeper::Keeper;
pub use recover::{Fault, Found, Trouble};
pub use segment::VERSION;
pub use writer::Journal;

use crate::error::Holder;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Where and how a journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalSpec {
    pub dir: PathBuf,
    /// Directory of a tmpfs below which segments are mapped. `None`: they are mapped in `dir`.
    pub memory: Option<PathBuf>,
    /// Size of a segment, bytes; at least 64 KiB, below 4 GiB.
    pub segment: usize,
    /// Pause between two syncs to disk.
    pub sync: Duration,
}

/// Why a journal cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("journal: {} cannot be used ({error}): let this user read and write it, or name another [journal] dir", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("journal: {} is in use by {holder}: stop it, or name another [journal] dir", path.display())]
    InUse { path: PathBuf, holder: Holder },
    #[error("journal: no room on the disk for {} ({needed} bytes): make room, or name another [journal] dir", path.display())]
    Space { path: PathBuf, needed: usize },
    #[error(
        "journal: no room in memory for {} ({needed} bytes, {free} are free, a quarter is left to others): give that tmpfs more \
         (in a container: --shm-size), or name another [journal] memory_dir",
        path.display()
    )]
    Memory { path: PathBuf, needed: usize, free: u64 },
    #[error(
        "journal: {} is of format version {found}, this program reads {VERSION}: finish its calls with the program that \
         wrote it (on_stop = \"finish\"), or move the file's directory away to start without them",
        path.display()
    )]
    Version { path: PathBuf, found: u32 },
}

impl JournalError {
    fn file(path: &std::path::Path) -> impl FnOnce(io::Error) -> JournalError {
        let path = path.to_owned();
        move |error| JournalError::File { path, error }
    }
}
