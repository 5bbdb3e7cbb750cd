//! Records on their way out of the shards: into the archive, out of the journals once they are safe; and the new calls that are
//! refused while too many wait.

use crate::archive::Archive;
use crate::check::{Checked, Violation};
use crate::heap::Event;
use crate::routes::Expect;
use crate::text;
use crate::ua::LIFE;
use crate::world::World;
use std::collections::HashMap;
use std::net::SocketAddr;
use strowger_engine::{Cdr, CdrRow};
use strowger_sip::msg::{Message, Method};

/// The pipeline, and what depends on it.
#[derive(Debug)]
pub(crate) struct Records {
    pub archive: Archive,
    /// When it is looked at next.
    due: u64,
    /// Whether the call of a new INVITE was refused, by its branch: copies go the same way.
    verdicts: HashMap<String, (u32, bool)>,
}

impl Records {
    pub(crate) fn new(archive: Archive) -> Records {
        Records { archive, due: u64::MAX, verdicts: HashMap::new() }
    }

    /// A new process does not know whom the last one refused. These calls.
    pub(crate) fn forget_verdicts(&mut self) -> Vec<u32> {
        self.due = u64::MAX;
        self.verdicts.drain().filter_map(|(_, (call, refused))| refused.then_some(call)).collect()
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

    /// A new INVITE while too many records wait is refused without a look into it, and so is every copy of it.
    pub(crate) fn is_refused(&mut self, from: SocketAddr, msg: &Message<'_>) -> bool {
        let new = msg.method() == Some(Method::Invite) && msg.to_tag().is_none();
        let call = text::caller_number(msg).filter(|_| new);
        let branch = msg.top_via().ok().and_then(|v| v.branch()).map(text::text);
        let (Some(call), Some(branch)) = (call, branch) else { return false };
        let known = self.records.verdicts.get(branch).map(|(_, refused)| *refused);
        let refused = known.unwrap_or_else(|| self.records.archive.is_full());
        if known.is_none() {
            self.records.verdicts.insert(branch.to_owned(), (call, refused));
            if refused {
                self.saw("refused: too many records wait");
                self.trace.note(self.now, Some(call), None, || "refused: too many records wait".to_owned());
                self.ledger.expects[call as usize] = Some(Expect::Refused(503));
            }
        }
        if refused {
            let answer = text::response(msg, 503, "busy", from, "Retry-After: 5\r\n", "");
            self.transport(answer, from, None);
        }
        refused
    }
}
