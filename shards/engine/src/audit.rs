//! The live audit: each shard goes over all that it holds, a slice now and then, and compares what is written down twice: agents'
//! table and legs, waiting set and calls, calls and legs, legs and transactions (both ways), timers, gauges. Nothing that it looks for can
//! happen; should it happen all the same, it is logged, counted, and mended within a second (or so), and no operator has to restart anything.
//!
//! # Rules
//!
//! - **A mismatch counts at its second look**, [`AGAIN_US`] after the first, and only when it is the same: same things, same
//!   generations, same words. What is under way (an event not polled yet, a message to another shard) is another by then; what may be
//!   under way for longer is looked at more often ([`Fault`]).
//! - **Each thing is looked at by one shard**: calls, legs and queue entries by theirs, an agent's word by its home, the claims and
//!   wrap-ups that a shard holds of it by that shard, which publishes how many they are ([`AgentCounts::held`](crate::stats::AgentCounts::held)).
//! - **No agent is taken for stuck who is not.** A claim is counted before its queue entry is consumed, and uncounted after its release;
//!   it never changes its shard. The home first reads the agent's word, then which entries name it, then the counts, then the word
//!   again: the word, which counts claims, is the one of the first look and nobody has the agent in hand. So all claims that it shows were
//!   there at both looks, and each had its entry or its count where it was looked for. A wrap-up is timed before the table says so, and
//!   until it says so no more. (So a shard that has no CPU for seconds, at whatever instruction, makes nobody stuck.)
//! - **Repairs are what the engine does anyway**: a release, a BYE, a record, an entry into the queue, a timer; so gauges, records, events
//!   and the journal follow by themselves. A repair that leaves a second mismatch behind is followed by that one's.
//! - What a repair does not mend is told once, and looked at on.
//!
//! # Pace
//!
//! A slice looks at [`SLICE`] things at most; slices are [`SLICE_US`] apart, whole sweeps [`SWEEP_US`] at least. A shard with 100 calls and
//! 200 agents is gone over in one slice, so that damage is repaired within `SWEEP_US + AGAIN_US`, half a second. One with 20 000 calls
//! (40 000 legs, as many requests under way) and 10 000 agents takes 5 s for a sweep, and as much longer to find what is behind. [`SUSPECTS`] are under
//! suspicion at a time; what else there is waits for the next sweep. Gauges are recounted in one go, and only of at most [`RECOUNT`] calls
//! in [`SCANNED`] slots.
//!
//! The driver has a slice done when it is due ([`Engine::audit_due`], [`Engine::handle_audit`]), or later, since it alone knows what slices
//! cost and holds them to their share of the processor; it is an input like any other. It is no
//! timer of the wheel, so that a shard at rest is at rest.

mod agents;
mod calls;
mod fault;
mod gauges;
mod history;
mod legs;
mod repair;

#[cfg(test)]
mod tests;

pub use fault::Fault;
pub(crate) use history::{History, What};
pub use history::{Moment, describe};

use crate::arena::Key;
use crate::control::{CallId, Output};
use crate::engine::Engine;
use std::collections::VecDeque;
use strowger_sip::endpoint::{ClientTxn, ServerTxn};
use strowger_sip::time::{Mono, Now};

/// Things looked at in a slice.
pub const SLICE: u32 = 512;
/// Pause between two slices, microseconds.
pub const SLICE_US: u64 = 20_000;
/// From the beginning of one sweep to that of the next at least, microseconds.
pub const SWEEP_US: u64 = 200_000;
/// From the first look at a mismatch to the second, microseconds.
pub const AGAIN_US: u64 = 300_000;
/// Mismatches that wait for another look.
pub const SUSPECTS: usize = 64;
/// Calls whose gauges are recounted.
pub const RECOUNT: usize = 2_048;
/// Slots of calls, empty ones included, that are looked at for it.
pub const SCANNED: usize = 32_768;
/// Reports that are kept for the control plane.
const REPORTS: usize = 32;

/// What an audit found wrong, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub unix_us: u64,
    pub shard: u16,
    pub fault: Fault,
    /// It was gone when looked for after the repair.
    pub repaired: bool,
    pub agent: Option<Box<str>>,
    pub call: Option<CallId>,
    /// Call-ID of its caller's dialog.
    pub sip_call_id: Option<Box<str>>,
    /// What happened to the call last, the latest at the end.
    pub history: Vec<Moment>,
}

/// What a shard's audit tells beside its counters ([`crate::stats::AuditCounts`]).
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Mismatches that wait for their second look.
    pub suspects: usize,
    /// The latest reports, the latest at the end.
    pub reports: Vec<Report>,
}

/// Where a mismatch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// By slot of the agents' table.
    Agent(u32),
    /// By wait slot of this shard.
    Entry(u32),
    Call(Key),
    Leg(Key),
    /// An INVITE of ours, one that came in.
    Ours(ClientTxn),
    Theirs(ServerTxn),
    /// By index.
    Flow(u32),
}

/// A mismatch, with a fingerprint of what it is about: another is another mismatch.
pub(crate) type Found = (Fault, u64);

#[derive(Debug, Clone, Copy)]
struct Suspect {
    place: Place,
    found: Found,
    again: Mono,
    looks: u32,
    told: bool,
}

/// What a sweep goes over, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Agents,
    Entries,
    Calls,
    Legs,
    Ours,
    Theirs,
    Flows,
}

/// Where the audit stands.
#[derive(Debug)]
pub(crate) struct Auditor {
    due: Mono,
    begun: Mono,
    stage: Stage,
    at: u32,
    suspects: Vec<Suspect>,
    reports: VecDeque<Report>,
    /// Something was mended: the next sweep begins at once, for there may be more behind it.
    mended: bool,
    /// Time of the input at hand, for histories.
    pub(crate) now: Mono,
    gauges: gauges::Recount,
}

impl Auditor {
    pub(crate) fn new(now: Now) -> Auditor {
        Auditor {
            due: now.mono,
            begun: now.mono,
            stage: Stage::Agents,
            at: 0,
            suspects: Vec::new(),
            reports: VecDeque::new(),
            mended: false,
            now: now.mono,
            gauges: gauges::Recount::default(),
        }
    }

    fn suspects(&self, place: Place) -> bool {
        self.suspects.iter().any(|s| s.place == place)
    }
}

/// A fingerprint of some numbers.
pub(crate) fn mark(of: &[u64]) -> u64 {
    of.iter().fold(0xcbf2_9ce4_8422_2325, |h, n| (h ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
}

impl Engine {
    /// When [`Engine::handle_audit`] is to be called next.
    #[must_use]
    pub fn audit_due(&self) -> Mono {
        let again = self.auditor.suspects.iter().map(|s| s.again);
        again.fold(self.auditor.due, Mono::min)
    }

    /// A slice of the audit.
    pub fn handle_audit(&mut self, now: Now) {
        self.auditor.now = now.mono;
        self.auditor.gauges.spoil();
        self.look_again(now);
        if self.auditor.due <= now.mono {
            self.look_on(now);
        }
        self.settle(now);
    }

    /// What the audit has found.
    #[must_use]
    pub fn findings(&self) -> Findings {
        let a = &self.auditor;
        Findings { suspects: a.suspects.len(), reports: a.reports.iter().cloned().collect() }
    }

    /// The next things in turn.
    fn look_on(&mut self, now: Now) {
        let mut left = SLICE;
        while left > 0 {
            let end = self.extent();
            while left > 0 && self.auditor.at < end {
                let at = self.auditor.at;
                self.auditor.at += 1;
                left -= 1;
                if let Some(place) = self.thing(at)
                    && let Some(found) = self.look_at(place, false)
                    && !self.auditor.suspects(place)
                {
                    self.suspect(place, found, 1, now);
                }
            }
            if self.auditor.at < end {
                break;
            }
            self.auditor.at = 0;
            self.auditor.stage = match self.auditor.stage {
                Stage::Agents => Stage::Entries,
                Stage::Entries => Stage::Calls,
                Stage::Calls => Stage::Legs,
                Stage::Legs => Stage::Ours,
                Stage::Ours => Stage::Theirs,
                Stage::Theirs => Stage::Flows,
                Stage::Flows => {
                    self.sweep_over(SLICE - left, now);
                    return;
                }
            };
        }
        self.count_looks(SLICE - left);
        self.auditor.due = now.mono.plus_us(SLICE_US);
    }

    fn sweep_over(&mut self, looked: u32, now: Now) {
        self.count_looks(looked);
        let begun = self.auditor.begun;
        let counts = &self.stats.shard(self.shard).audit;
        counts.sweeps.add(1);
        counts.sweep_us.set(i64::try_from(now.mono.since(begun)).unwrap_or(i64::MAX));
        self.auditor.stage = Stage::Agents;
        let pause = if std::mem::take(&mut self.auditor.mended) { SLICE_US } else { SWEEP_US };
        self.auditor.due = begun.plus_us(pause).max(now.mono.plus_us(SLICE_US));
        self.auditor.begun = self.auditor.due;
    }

    fn count_looks(&self, n: u32) {
        self.stats.shard(self.shard).audit.looked.add(i64::from(n));
    }

    /// How many things the present stage has.
    fn extent(&mut self) -> u32 {
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        match self.auditor.stage {
            Stage::Agents => size(self.prov.agents.len().max(self.holders.len())),
            Stage::Entries => self.dispatch.wait_slots().max(size(self.waiting.len())),
            Stage::Calls => self.calls.extent(),
            Stage::Legs => self.legs.extent(),
            Stage::Ours => size(self.ep.client_slots()),
            Stage::Theirs => size(self.ep.server_slots()),
            Stage::Flows => {
                self.recount();
                self.auditor.gauges.extent()
            }
        }
    }

    /// What is there, if anything.
    fn thing(&self, at: u32) -> Option<Place> {
        match self.auditor.stage {
            Stage::Agents => Some(Place::Agent(at)),
            Stage::Entries => Some(Place::Entry(at)),
            Stage::Calls => self.calls.at(at).map(|(key, _)| Place::Call(key)),
            Stage::Legs => self.legs.at(at).map(|(key, _)| Place::Leg(key)),
            Stage::Ours => self.ep.open_invite_of_ours(at as usize).map(|(txn, _)| Place::Ours(txn)),
            Stage::Theirs => self.ep.open_invite_of_theirs(at as usize).map(|(txn, _)| Place::Theirs(txn)),
            Stage::Flows => Some(Place::Flow(at)),
        }
    }

    /// The first mismatch at a place. `closely`: it has been seen before, and the look may take longer.
    fn look_at(&mut self, place: Place, closely: bool) -> Option<Found> {
        match place {
            Place::Agent(slot) => self.look_at_agent(slot, closely),
            Place::Entry(slot) => self.look_at_entry(slot),
            Place::Call(key) => self.look_at_call(key),
            Place::Leg(key) => self.look_at_leg(key),
            Place::Ours(txn) => self.look_at_ours(txn),
            Place::Theirs(txn) => self.look_at_theirs(txn),
            Place::Flow(idx) => {
                if closely {
                    self.recount();
                }
                self.look_at_flow(idx)
            }
        }
    }

    fn suspect(&mut self, place: Place, found: Found, looks: u32, now: Now) {
        if self.auditor.suspects.len() < SUSPECTS {
            let again = now.mono.plus_us(AGAIN_US);
            self.auditor.suspects.push(Suspect { place, found, again, looks, told: false });
        }
    }

    /// Suspects whose time has come.
    fn look_again(&mut self, now: Now) {
        let (due, kept) = std::mem::take(&mut self.auditor.suspects).into_iter().partition(|s| s.again <= now.mono);
        self.auditor.suspects = kept;
        let due: Vec<Suspect> = due;
        for suspect in due {
            let Suspect { place, found, looks, told, .. } = suspect;
            match self.look_at(place, true) {
                Some(same) if same == found && told => {
                    self.auditor.suspects.push(Suspect { again: now.mono.plus_us(AGAIN_US), ..suspect });
                }
                Some(same) if same == found && looks + 1 >= found.0.looks() => self.conclude(place, found, now),
                Some(same) if same == found => self.suspect(place, found, looks + 1, now),
                Some(other) => self.suspect(place, other, 1, now),
                None => {}
            }
        }
    }

    /// It is so: mended, counted and told.
    fn conclude(&mut self, place: Place, found: Found, now: Now) {
        let mut report = self.report_of(place, found.0, now);
        self.repair(place, found.0, now);
        self.settle(now);
        self.auditor.gauges.spoil();
        report.repaired = self.look_at(place, true) != Some(found);
        let counts = &self.stats.shard(self.shard).audit;
        counts.found[found.0 as usize].add(1);
        counts.repaired.add(i64::from(report.repaired));
        if report.repaired {
            self.auditor.mended = true;
            self.auditor.due = self.auditor.due.min(now.mono.plus_us(SLICE_US));
        } else if self.auditor.suspects.iter().filter(|s| s.told).count() < SUSPECTS / 2 {
            let again = now.mono.plus_us(AGAIN_US);
            self.auditor.suspects.push(Suspect { place, found, again, looks: 0, told: true });
        }
        if self.auditor.reports.len() == REPORTS {
            self.auditor.reports.pop_front();
        }
        self.auditor.reports.push_back(report.clone());
        self.outputs.push_back(Output::Audited(Box::new(report)));
    }

    /// Whom and what it concerns.
    fn report_of(&self, place: Place, fault: Fault, now: Now) -> Report {
        let (c, agent) = match place {
            Place::Agent(slot) => (None, self.prov.agents.get(slot as usize).and_then(Option::as_ref)),
            Place::Entry(slot) => (self.waiting.get(slot as usize).copied().flatten(), None),
            Place::Call(key) => (Some(key), None),
            Place::Leg(key) => {
                let leg = self.legs.get(key);
                (leg.and_then(|l| l.call), leg.and_then(|l| l.claim.as_ref()).map(|claim| &claim.def))
            }
            Place::Ours(_) | Place::Theirs(_) | Place::Flow(_) => (None, None),
        };
        let call = c.and_then(|c| self.calls.get(c));
        let agent = agent.or(call.and_then(|call| call.attempt.as_ref()).map(|a| &a.agent));
        let leg = match (place, call) {
            (Place::Leg(key), None) => Some(key),
            (_, call) => call.map(|call| call.caller),
        };
        let sip_call_id = leg.and_then(|leg| self.legs.get(leg)).map(|l| crate::books::text(l.dialog.call_id()));
        Report {
            unix_us: now.unix_us,
            shard: self.shard,
            fault,
            repaired: false,
            agent: agent.map(|def| def.agentid.clone()),
            call: c.filter(|_| call.is_some()).map(|c| self.call_id(c)),
            sip_call_id,
            history: call.map(|call| call.history.moments()).unwrap_or_default(),
        }
    }
}
