//! Following the shards' journals from outside: what has been committed since the last look, in order.
//!
//! Nothing here costs a shard anything but one more pointer in a queue for each segment that it begins. A follower is never
//! lapped: a segment that somebody still holds is not used anew. Nor does it hold up a shard: of one who is too slow, the
//! keeper removes the segments instead (`keeper.rs`), which leaves them to the follower alone.
//!
//! Invariants
//! - Only whole turns are handed out: a shard's records up to one of its commits.
//! - The bytes of a [`Written`] do not change: they are below a commit, and it holds their segment.

use super::keeper::Pool;
use super::record::{self, HEAD, Op, Salt};
use super::segment::{self, HEADER, Segment};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use strowger_engine::journal::Entity;

/// A record where the shard wrote it. Keeps its segment from being used anew.
#[derive(Clone)]
pub struct Written {
    segment: Arc<Segment>,
    /// Where its payload is, the header of the segment not counted.
    at: u32,
    len: u32,
}

impl Deref for Written {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let (at, len) = (self.at as usize, self.len as usize);
        // SAFETY: it was committed when this was made, and a segment that is held is not taken out of use (`Pool::recycle`).
        let written = unsafe { self.segment.written(HEADER + at + len) };
        written.get(at..).unwrap_or_default()
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Written").field(&&**self).finish()
    }
}

/// What has become of an entity.
#[derive(Debug, Clone)]
pub enum Change {
    Put(Written),
    Removed,
}

/// A segment that has not been read to its end.
#[derive(Debug)]
struct Open {
    segment: Arc<Segment>,
    salt: Salt,
    /// How far it has been read.
    at: usize,
}

#[derive(Debug)]
struct Trail {
    pool: Arc<Pool>,
    /// The oldest first; the last is the one that the shard writes to.
    open: VecDeque<Open>,
    /// Number of the last one.
    number: u64,
}

/// See the module. There is one at most of a generation, made before its shards begin to write.
#[derive(Debug)]
pub struct Follower {
    trails: Vec<Trail>,
}

impl Follower {
    pub(super) fn new(pools: &[Arc<Pool>]) -> Follower {
        let trail = |pool: &Arc<Pool>| {
            pool.set_followed(true);
            Trail { pool: Arc::clone(pool), open: VecDeque::new(), number: 0 }
        };
        Follower { trails: pools.iter().map(trail).collect() }
    }

    /// Reads on, up to the last turn of each shard: tells of each change, in the shard's order.
    pub fn follow(&mut self, mut changed: impl FnMut(u16, Entity, Change)) {
        for trail in &mut self.trails {
            let shard = trail.pool.shard();
            trail.follow(&mut |entity, change| changed(shard, entity, change));
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        for trail in &self.trails {
            trail.pool.set_followed(false);
            while trail.pool.next_followed().is_some() {}
        }
    }
}

impl Trail {
    fn follow(&mut self, changed: &mut impl FnMut(Entity, Change)) {
        // What is valid is asked first: its segments have been told by then.
        let (last, end) = self.pool.valid();
        while let Some(segment) = self.pool.next_followed() {
            self.number += 1;
            let salt = segment::salt(self.pool.generation(), self.pool.shard(), self.number);
            self.open.push_back(Open { segment, salt, at: HEADER });
        }
        let mut number = self.number + 1 - self.open.len() as u64;
        while number <= last
            && let Some(open) = self.open.front_mut()
        {
            let full = number < last;
            open.read(if full { open.segment.committed() } else { end }, changed);
            if !full {
                return;
            }
            self.open.pop_front();
            number += 1;
        }
    }
}

impl Open {
    fn read(&mut self, end: usize, changed: &mut impl FnMut(Entity, Change)) {
        // SAFETY: committed, as the caller says, and this holds the segment.
        let written = unsafe { self.segment.written(end) };
        while let Some(rest) = written.get(self.at - HEADER..).filter(|rest| !rest.is_empty()) {
            // What has just been written can be read, or memory is broken.
            let Some(head) = record::head(rest, &self.salt) else {
                tracing::error!(path = %self.segment.path().display(), at = self.at, "journal: bytes that are no record");
                return;
            };
            let at = u32::try_from(self.at - HEADER + HEAD).unwrap_or(u32::MAX);
            let len = u32::try_from(head.len).unwrap_or(u32::MAX);
            self.at += head.size();
            match head.op {
                Op::Put => changed(head.entity, Change::Put(Written { segment: Arc::clone(&self.segment), at, len })),
                Op::Remove => changed(head.entity, Change::Removed),
                Op::RemoveUpTo | Op::Commit => {}
            }
        }
    }
}
