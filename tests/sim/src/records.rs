//! Records on their way out of the shards: into the archive, out of the journals once they are safe.

use crate::archive::Archive;
use crate::check::{Checked, Violation};
use crate::heap::Event;
use crate::text;
use crate::ua::LIFE;
use crate::world::World;
use strowger_engine::{Cdr, CdrRow};
use strowger_sip::msg::{Message, Method};

/// The pipeline, and what depends on it.
#[derive(Debug)]
pub(crate) struct Records {
    pub archive: Archive,
    /// When it is looked at next.
    due: u64,
}

impl Records {
    pub(crate) fn new(archive: Archive) -> Records {
        Records { archive, due: u64::MAX }
    }

    /// The process has ended.
    pub(crate) fn restart(&mut self) {
        self.due = u64::MAX;
    }
}

impl World {
    /// A record has left its shard; `goes_on`: the process has not ended meanwhile.
    pub(crate) fn record_leaves(&mut self, shard: u16, cdr: &Cdr, goes_on: bool) -> Checked {
        self.ends.holds(shard, cdr, self.ledger.lost_power)?;
        self.records.archive.made(self.now, CdrRow::from(cdr), goes_on);
        self.after_archive()
    }

    /// What a message asked for has been written.
    pub(crate) fn moment_is_over(&mut self) -> Checked {
        if self.ledger.lost_power {
            return Ok(());
        }
        self.ledger.told.moment_is_over().map_err(|(call, what)| Violation::new(what).call(call))
    }

    /// It is time for the pipeline.
    pub(crate) fn on_records(&mut self) -> Checked {
        if self.records.due == self.now {
            self.records.due = u64::MAX;
            self.records.archive.advance(self.now).map_err(Violation::new)?;
        }
        self.after_archive()
    }

    pub(crate) fn after_archive(&mut self) -> Checked {
        for what in std::mem::take(&mut self.records.archive.seen) {
            self.saw(what);
        }
        for mark in std::mem::take(&mut self.records.archive.moved) {
            self.ends.forget_records(mark);
        }
        if let Some(at) = self.records.archive.next().map(|at| at.max(self.now))
            && at < self.records.due
        {
            self.records.due = at;
            self.push(at, Event::Records);
        }
        Ok(())
    }

    /// A copy of a caller's INVITE from before its transaction ended would be another call (RFC 6026 section 7.1): none comes so late.
    pub(crate) fn comes_too_late(&self, msg: &Message<'_>) -> bool {
        let new = msg.method() == Some(Method::Invite) && msg.to_tag().is_none();
        let call = text::caller_number(msg).filter(|_| new).and_then(|n| self.ledger.stages.of.get(n as usize));
        call.and_then(|course| course.received).is_some_and(|at| self.now >= at + LIFE)
    }
}
