//! Following the shards' journals from outside: what has been committed since the last look, in order.
//!
//! Nothing here costs a shard anything but one more pointer in a queue for each segment that it begins. A follower is never
//! lapped: a segment that somebody still holds is not used anew. Nor does it hold up a shard: of one who is too slow, the
//! keeper removes the segments instead (`keeper.rs`), which leaves them to the follower alone.
//!
//! Invariants
//! - Only whole turns are handed out: a shard's records up to one of its commits.
//! - The bytes of a [`Written`] do not change: they are below a commit, and it holds their segment.
//!   What the disk has damaged while it was at rest reads as zeros.
//! - They are looked at while that is kept awake, which nobody waits for; or read from disk, where one at rest is. One whose file has
//!   gone there is awake again.

use super::keeper::Pool;
use super::record::{self, HEAD, Op, Salt};
use super::recover;
use super::segment::{self, Awake, HEADER, Segment};
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

/// The bytes of a record.
#[derive(Debug)]
pub struct Bytes<'a>(Lie<'a>);

/// Where they lie.
#[derive(Debug)]
enum Lie<'a> {
    Here(&'a [u8]),
    Mapped(&'a [u8], #[expect(dead_code, reason = "held while it is looked at")] Awake<'a>),
    Copied(Box<[u8]>),
}

impl<'a> From<&'a [u8]> for Bytes<'a> {
    fn from(bytes: &'a [u8]) -> Bytes<'a> {
        Bytes(Lie::Here(bytes))
    }
}

impl Deref for Bytes<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Lie::Here(bytes) | Lie::Mapped(bytes, _) => bytes,
            Lie::Copied(bytes) => bytes,
        }
    }
}

impl Written {
    /// `None`: they are on disk alone.
    #[must_use]
    pub fn peek(&self) -> Option<Bytes<'_>> {
        let (at, len) = (self.at as usize, self.len as usize);
        let awake = self.segment.awake()?;
        // SAFETY: it was committed when this was made, a segment that is held is not taken out of use (`Pool::recycle`), and it is
        // awake for as long as the bytes are lent.
        let written = unsafe { self.segment.written(HEADER + at + len) };
        Some(Bytes(Lie::Mapped(written.get(at..).unwrap_or_default(), awake)))
    }

    /// Blocks, where they are on disk alone. `None`: they cannot be read there now, which is told.
    #[must_use]
    pub fn read(&self) -> Option<Bytes<'_>> {
        loop {
            if let Some(bytes) = self.peek() {
                return Some(bytes);
            }
            match self.segment.copied(HEADER + self.at as usize, self.len as usize) {
                Ok(copied) => return Some(Bytes(Lie::Copied(copied))),
                Err(_) if self.segment.awake().is_some() => {}
                Err(error) => {
                    tracing::error!(%error, "journal: a record cannot be read again");
                    return None;
                }
            }
        }
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Written").field(&self.peek()).finish()
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
            let end = if full { open.segment.committed() } else { end };
            if !open.read(end, changed) || !full {
                return;
            }
            self.open.pop_front();
            number += 1;
        }
    }
}

impl Open {
    /// False: another time.
    fn read(&mut self, end: usize, changed: &mut impl FnMut(Entity, Change)) -> bool {
        let segment = Arc::clone(&self.segment);
        let Some(_awake) = segment.awake() else {
            // One that was full before this could look.
            return match segment.copied(HEADER, end.saturating_sub(HEADER)) {
                Ok(mut written) => {
                    recover::mend(&mut written, &self.salt);
                    self.read_on(&written, changed)
                }
                Err(error) => {
                    tracing::debug!(%error, "journal: a segment cannot be followed now");
                    false
                }
            };
        };
        // SAFETY: committed, as the caller says, and this holds the segment, which is awake.
        self.read_on(unsafe { segment.written(end) }, changed)
    }

    fn read_on(&mut self, written: &[u8], changed: &mut impl FnMut(Entity, Change)) -> bool {
        while let Some(rest) = written.get(self.at - HEADER..).filter(|rest| !rest.is_empty()) {
            // What has just been written can be read, or memory is broken.
            let Some(head) = record::head(rest, &self.salt) else {
                tracing::error!(path = %self.segment.path().display(), at = self.at, "journal: bytes that are no record");
                return true;
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
        true
    }
}
