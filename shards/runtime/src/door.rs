//! How new calls come into a shard: at once; under pressure after those that wait already; or not at all. What was decided of an
//! INVITE once holds for every copy of it. No clock and no socket in here, so that the simulator can use it.

use crate::overload::{Backlog, OverloadConfig, Refusals, Verdict, Verdicts, Waiting};
use strowger_sip::hash::HashKey;
use strowger_sip::net::Path;

/// See the module.
#[derive(Debug)]
pub struct Door {
    key: HashKey,
    max_age_ns: u64,
    verdicts: Verdicts,
    backlog: Backlog,
    /// Written, to be sent.
    pub refusals: Refusals,
}

/// What becomes of a new INVITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It is to be worked on now.
    Work,
    /// It waits for its turn, or is a copy of one that does.
    Waits,
    /// The answer is among the refusals.
    Refused,
    /// Refused, and it deserves no answer.
    Dropped,
}

impl Door {
    /// `random` differs between shards and starts.
    #[must_use]
    pub fn new(config: &OverloadConfig, key: HashKey, random: u64) -> Door {
        Door {
            key,
            max_age_ns: config.max_age_us.saturating_mul(1000),
            verdicts: Verdicts::default(),
            backlog: Backlog::new(config.backlog),
            refusals: Refusals::new(config, random),
        }
    }

    /// Calls that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// The next whose turn has come; to be decided on ([`Door::decide`]), then given back ([`Door::recycle`]).
    pub fn next_waiting(&mut self) -> Option<Waiting> {
        self.backlog.pop()
    }

    /// One that came before another request of its bucket, which is about to be worked on.
    pub fn earlier(&mut self, bucket: Option<u16>) -> Option<Waiting> {
        self.backlog.pop_bucket(bucket?)
    }

    /// Keeps the memory of one that was decided on.
    pub fn recycle(&mut self, waiting: Waiting) {
        self.backlog.recycle(waiting);
    }

    /// Whether one that the kernel received then comes too late: its caller has begun to ask again.
    #[must_use]
    pub fn is_late(&self, now_ns: u64, received_ns: u64) -> bool {
        now_ns.saturating_sub(received_ns) > self.max_age_ns
    }

    /// A new INVITE goes behind those that wait, or, when too many do, is refused; a copy of one that waits goes nowhere.
    pub fn put_off(&mut self, bytes: &[u8], path: Path, bucket: Option<u16>, received_ns: u64) -> Entry {
        let hash = self.key.hash(&[bytes]);
        match self.verdicts.get(hash) {
            Some(Verdict::Waits) => Entry::Waits,
            None if self.backlog.push(bytes, path, bucket, received_ns) => {
                self.verdicts.set(hash, Verdict::Waits);
                Entry::Waits
            }
            _ => self.decide(bytes, path, bucket, true),
        }
    }

    /// A new INVITE is worked on or refused; a copy of one that was decided on goes the same way.
    pub fn decide(&mut self, bytes: &[u8], path: Path, bucket: Option<u16>, refuse: bool) -> Entry {
        let hash = self.key.hash(&[bytes]);
        let new = if refuse { Verdict::Refused } else { Verdict::Admitted };
        let verdict = self.verdicts.get(hash).filter(|v| *v != Verdict::Waits).unwrap_or(new);
        self.verdicts.set(hash, verdict);
        if verdict == Verdict::Admitted {
            return Entry::Work;
        }
        if self.refusals.add(bytes, hash, path, bucket) { Entry::Refused } else { Entry::Dropped }
    }
}
