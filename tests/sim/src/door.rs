//! The way in: new INVITEs under pressure wait in the real backlog of their shard, and are refused by the real rules
//! (`runtime/door.rs`) when too many wait, when they have waited too long, while too many records wait, or the journal has no room.

use crate::check::Checked;
use crate::heap::Event;
use crate::plan::MS;
use crate::rng::Rng;
use crate::routes::Expect;
use crate::text;
use crate::world::{KEY, World};
use std::net::SocketAddr;
use strowger_runtime::OverloadConfig;
use strowger_runtime::door::{Door, Entry};
use strowger_sip::net::{ListenerId, Path};
use strowger_sip::scan::{Class, Owner, scan};

/// How long a shard under pressure has no time for the next new call, at the most: longer than a call waits.
const LONGEST_US: u64 = 300 * MS;

/// How often shards are under pressure.
#[derive(Debug, Clone, Default)]
pub struct Pressure {
    /// Of new INVITEs, per mille.
    pub rate: u32,
    /// Calls that may wait on a shard.
    pub backlog: usize,
}

impl Pressure {
    pub fn draw(r: &mut Rng) -> Pressure {
        let backlog = *r.pick(&[1, 2, 5, 1024]);
        Pressure { rate: if r.chance(300) { r.range(20, 1000) as u32 } else { 0 }, backlog }
    }
}

/// The doors of all shards.
#[derive(Debug)]
pub(crate) struct Doors {
    config: OverloadConfig,
    of: Vec<Door>,
    /// Whose INVITE this process has refused.
    refused: Vec<u32>,
    rng: Rng,
}

impl Doors {
    pub(crate) fn new(seed: u64, pressure: &Pressure) -> Doors {
        let config = OverloadConfig { backlog: pressure.backlog, ..OverloadConfig::default() };
        Doors { config, of: Vec::new(), refused: Vec::new(), rng: Rng::new(seed ^ 0x646f_6f72_0000_0000) }
    }

    /// Those of a new process, which does not know whom the last one refused: these calls.
    pub(crate) fn begin(&mut self, shards: u16) -> Vec<u32> {
        self.of = (0..shards).map(|_| Door::new(&self.config, KEY, self.rng.draw())).collect();
        std::mem::take(&mut self.refused)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.of.iter().map(Door::waiting).sum()
    }
}

impl World {
    /// A datagram comes to its shard, which has left it in its socket for so many microseconds.
    pub(crate) fn arrives(&mut self, shard: u16, from: SocketAddr, bytes: &[u8], waited: u64) -> Checked {
        let scanned = scan(bytes, &KEY);
        let bucket = if let Owner::Bucket(bucket) = scanned.owner { Some(bucket) } else { None };
        if scanned.class != Class::NewInvite {
            // What waits of the same call came first.
            while let Some(earlier) = self.doors.of[usize::from(shard)].earlier(bucket) {
                self.saw("request behind a call that waited");
                self.admit(shard, earlier.path, &earlier.bytes, earlier.bucket, earlier.received_ns)?;
            }
            return self.work(shard, from, bytes);
        }
        if text::parse(bytes).is_some_and(|msg| self.comes_too_late(&msg)) {
            return Ok(());
        }
        let waited = if self.plan.hazards.ages { waited } else { 0 };
        if waited > 0 {
            self.saw("new call aged by a stall");
        }
        let (path, received_ns) = (Path::udp(from, ListenerId(0)), (self.now - waited) * 1000);
        let rate = self.plan.hazards.pressure.rate;
        let waiting = self.doors.of[usize::from(shard)].waiting();
        let pressed = rate > 0 && !self.calm && (self.doors.rng.chance(rate) || waiting > 0);
        if !pressed {
            return self.admit(shard, path, bytes, bucket, received_ns);
        }
        let entry = self.doors.of[usize::from(shard)].put_off(bytes, path, bucket, received_ns);
        match self.doors.of[usize::from(shard)].waiting() {
            now if now == waiting && entry == Entry::Waits => self.saw("copy of a call that waits"),
            _ if entry == Entry::Waits => self.saw("call waited for its shard"),
            _ => self.saw("refused: too many calls wait"),
        }
        if waiting == 0 {
            self.next_call_later(shard);
        }
        self.enter(shard, entry, path, bytes)
    }

    fn next_call_later(&mut self, shard: u16) {
        let us = self.doors.rng.range(MS, LONGEST_US);
        self.push(self.now + us, Event::NewCall(shard));
    }

    /// The shard has time for a new call.
    pub(crate) fn on_new_call(&mut self, shard: u16) -> Checked {
        let Some(next) = self.doors.of[usize::from(shard)].next_waiting() else { return Ok(()) };
        if self.doors.of[usize::from(shard)].waiting() > 0 {
            self.next_call_later(shard);
        }
        self.admit(shard, next.path, &next.bytes, next.bucket, next.received_ns)
    }

    /// A new INVITE whose turn has come.
    fn admit(&mut self, shard: u16, path: Path, bytes: &[u8], bucket: Option<u16>, received_ns: u64) -> Checked {
        let (full, unkept) = (self.records.archive.is_full(), self.ends.is_full(shard));
        let door = &mut self.doors.of[usize::from(shard)];
        let late = door.is_late(self.now * 1000, received_ns);
        let entry = door.decide(bytes, path, bucket, full || late || unkept);
        if entry == Entry::Refused {
            self.saw(match (late, full) {
                (true, _) => "refused: waited too long",
                (false, true) => "refused: too many records wait",
                (false, false) if unkept => "refused: no room for the journal",
                _ => "refused: a copy of a refused one",
            });
        }
        self.enter(shard, entry, path, bytes)
    }

    fn enter(&mut self, shard: u16, entry: Entry, path: Path, bytes: &[u8]) -> Checked {
        match entry {
            Entry::Work => return self.work(shard, path.remote, bytes),
            Entry::Waits | Entry::Dropped => return Ok(()),
            Entry::Refused => {}
        }
        if let Some(call) = text::parse(bytes).and_then(|msg| text::caller_number(&msg)) {
            self.trace.note(self.now, Some(call), None, || "refused at the door".to_owned());
            let answered = self.ledger.expects[call as usize].is_some() && !self.doors.refused.contains(&call);
            self.doors.refused.push(call);
            if answered || self.ledger.stages.of[call as usize].received.is_some() {
                // The process before knew it: this one does not, and the caller hears of both.
                self.ledger.damaged[call as usize] = true;
                self.ledger.stages.of[call as usize].damaged = true;
                self.ledger.expects[call as usize] = Some(Expect::Unknown);
            } else if !self.ledger.damaged[call as usize] {
                self.ledger.expects[call as usize] = Some(Expect::Refused(self.doors.config.code));
            }
        }
        let refusals = &mut self.doors.of[usize::from(shard)].refusals;
        let written: Vec<_> =
            refusals.written().iter().map(|(p, span)| (p.remote, refusals.bytes(span).into())).collect();
        refusals.clear();
        for (to, answer) in written {
            self.transport(answer, to, None);
        }
        Ok(())
    }
}
