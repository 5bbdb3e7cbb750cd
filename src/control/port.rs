//! The control plane's way to the shards, as a trait, so that it can be tested without sockets.

use std::future::Future;
use std::pin::Pin;
use std::sync::Weak;
use strowger_engine::{Control, Reply};
use strowger_runtime::{Gone, LatencySnapshot, RuntimeCounts, Shards};

/// An answer on its way.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Reply, Gone>> + Send + 'a>>;

/// Shards that take commands.
pub trait ShardPort: Send + Sync {
    /// How many there are.
    fn count(&self) -> u16;
    /// Sends a command to one shard; its answer.
    fn ask(&self, shard: u16, command: Control) -> Answer<'_>;
    /// What the shards have measured; `None` where there is nothing that measures.
    fn latency(&self) -> Option<LatencySnapshot> {
        None
    }
    /// One of a shard's counters.
    fn count_of(&self, _shard: u16, _read: fn(&RuntimeCounts) -> i64) -> Option<i64> {
        None
    }
}

/// Weak, so that whoever stops the shards is their only owner; an answer on its way holds them until it is there.
impl ShardPort for Weak<Shards> {
    fn count(&self) -> u16 {
        self.upgrade().map_or(0, |s| s.shards())
    }

    fn ask(&self, shard: u16, command: Control) -> Answer<'_> {
        let shards = self.upgrade();
        Box::pin(async move { shards.ok_or(Gone(shard))?.control(shard, command).await })
    }

    fn latency(&self) -> Option<LatencySnapshot> {
        self.upgrade().map(|s| s.latency())
    }

    fn count_of(&self, shard: u16, read: fn(&RuntimeCounts) -> i64) -> Option<i64> {
        self.upgrade()?.counts(shard).map(read)
    }
}
