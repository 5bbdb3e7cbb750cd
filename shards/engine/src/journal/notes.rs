//! What has changed since the last turn, and its way into the journal.

use super::calls::write_caller;
use super::legs::write_dialog;
use super::{Entity, Kind, Sink};
use crate::arena::Key;
use crate::cdr::Cdr;
use crate::control::home_shard;
use crate::engine::Engine;
use crate::provision::FlowDef;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use strowger_dispatch::AgentRef;
use strowger_sip::endpoint::Record;
use strowger_sip::time::Now;

/// What the arenas cannot note: counters and agents that an input touched, records that it wrote.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(super) on: bool,
    /// All counters and agents are due: nothing is listed one by one.
    all: bool,
    /// Short lists of the present turn. Counters are bumped where the engine is only looked at.
    flows: RefCell<Vec<Arc<FlowDef>>>,
    /// The shard's own record is due. Its counters change with each message: it goes with calls that come and records.
    shard: Cell<bool>,
    counted: RefCell<Vec<u32>>,
    agents: RefCell<Vec<u32>>,
    /// Records one behind the other, and for each its sequence number and its end.
    cdrs: Vec<u8>,
    ends: Vec<(u64, usize)>,
    /// Where the slow look at the agents stands, and which of them have a record here.
    sweep: u32,
    turns: u32,
    pub(super) kept_agents: Vec<bool>,
    /// Fingerprints of the counters' records, by index.
    flow_prints: Vec<u64>,
    count_prints: Vec<u64>,
    /// The record at hand.
    scratch: Vec<u8>,
}

/// Index of a flow, slot of an agent, that is gone.
pub(super) const NOTHING: u32 = u32::MAX;

impl Notes {
    /// The flow's counters change.
    pub(crate) fn flow(&self, flow: &Arc<FlowDef>) {
        if self.lists(flow.idx) {
            let mut flows = self.flows.borrow_mut();
            if !flows.iter().any(|f| f.idx == flow.idx) {
                flows.push(Arc::clone(flow));
            }
        }
    }

    /// The shard's own counters change.
    pub(crate) fn shard(&self) {
        self.shard.set(self.on);
    }

    /// The agent's counters change.
    pub(crate) fn agent_counts(&self, slot: u32) {
        self.add(&self.counted, slot);
    }

    /// The agent's login, wrap-up or misses change.
    pub(crate) fn agent(&self, agent: AgentRef) {
        self.add(&self.agents, agent.slot);
    }

    fn lists(&self, id: u32) -> bool {
        self.on && !self.all && id != NOTHING
    }

    fn add(&self, list: &RefCell<Vec<u32>>, id: u32) {
        if self.lists(id) {
            let mut list = list.borrow_mut();
            if !list.contains(&id) {
                list.push(id);
            }
        }
    }

    /// A record is made.
    pub(crate) fn cdr(&mut self, sequence: u64, cdr: &Cdr) {
        if self.on {
            cdr.encode(&mut self.cdrs);
            self.ends.push((sequence, self.cdrs.len()));
            self.shard();
        }
    }
}

/// Fingerprint of a record, never 0: equal records have the same, others almost surely another.
pub(super) fn print(record: &[u8]) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd6e8_feb8_6659_fd93;
    let fold = |x: u64, y: u64| {
        let wide = u128::from(x) * u128::from(y);
        (wide as u64) ^ (wide >> 64) as u64
    };
    let word = |at: &[u8]| at.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    let (mut a, mut b) = (A ^ record.len() as u64, B);
    let mut chunks = record.chunks_exact(32);
    for chunk in &mut chunks {
        a = fold(a ^ word(chunk), B ^ word(&chunk[8..]));
        b = fold(b ^ word(&chunk[16..]), A ^ word(&chunk[24..]));
    }
    let mut tail = [0; 32];
    tail[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    a = fold(a ^ word(&tail), B ^ word(&tail[8..]));
    b = fold(b ^ word(&tail[16..]), A ^ word(&tail[24..]));
    fold(a ^ A, b ^ B) | 1
}

/// Whether the fingerprint at `at` is another, which it then is.
fn replaced(prints: &mut Vec<u64>, at: u32, print: u64) -> bool {
    let at = at as usize;
    if prints.len() <= at {
        prints.resize(at + 1, 0);
    }
    std::mem::replace(&mut prints[at], print) != print
}

fn kind_of(record: Record) -> Kind {
    match record {
        Record::Client => Kind::Client,
        Record::Request => Kind::Request,
        Record::Server => Kind::Server,
        Record::Answer => Kind::Answer,
    }
}

impl Engine {
    /// Writes what changed since the last call; the first one writes everything. To be called each turn, before anything
    /// that the turn put out is sent.
    pub fn journal(&mut self, now: Now, sink: &mut dyn Sink) {
        self.keep_journal();
        self.list_all();
        self.soon_in(sink);
        let mut out = std::mem::take(&mut self.notes.scratch);
        self.journal_calls(now, sink, &mut out);
        self.journal_legs(now, sink, &mut out);
        self.ep.journal(now, &mut out, |what, id, record| {
            let entity = Entity { kind: kind_of(what), id };
            match record {
                Some(record) => sink.put(entity, record),
                None => sink.remove(entity),
            }
        });
        self.journal_counts(sink, &mut out);
        self.journal_agents(now, sink, &mut out);
        self.notes.scratch = out;
        let mut at = 0;
        for (id, end) in self.notes.ends.drain(..) {
            sink.put(Entity { kind: Kind::Cdr, id }, &self.notes.cdrs[at..end]);
            at = end;
        }
        self.notes.cdrs.clear();
    }

    /// Tells which records are to come.
    fn soon_in(&self, sink: &dyn Sink) {
        let soon = |kind, id| sink.soon(Entity { kind, id });
        self.calls.noted().for_each(|slot| soon(Kind::Call, u64::from(slot)));
        self.legs.noted().for_each(|slot| soon(Kind::Leg, u64::from(slot)));
        self.ep.noted().for_each(|(what, number)| soon(kind_of(what), number));
    }

    /// Notes changes from now on, and all that there is.
    pub(crate) fn keep_journal(&mut self) {
        if self.notes.on {
            return;
        }
        self.notes.on = true;
        self.notes.all = true;
        self.calls.keep_notes();
        self.legs.keep_notes();
        self.ep.keep_journal();
    }

    /// The lists of the first turn.
    fn list_all(&mut self) {
        if !std::mem::take(&mut self.notes.all) {
            return;
        }
        self.notes.shard();
        self.notes.flows.get_mut().extend(self.prov.flows.values().cloned());
        let agents = 0..u32::try_from(self.prov.agents.len()).unwrap_or(u32::MAX);
        self.notes.counted.get_mut().extend(agents.clone());
        let home: Vec<u32> = agents.filter(|slot| self.is_home(*slot)).collect();
        self.notes.agents.get_mut().extend(home);
    }

    fn is_home(&self, slot: u32) -> bool {
        home_shard(AgentRef { slot, gen_: 0 }, self.cfg.buckets.shards()) == self.shard
    }

    fn journal_calls(&mut self, now: Now, sink: &mut dyn Sink, out: &mut Vec<u8>) {
        let entity = |kind, key: Key| Entity { kind, id: key.to_u64() };
        for key in self.calls.drain_gone() {
            sink.remove(entity(Kind::Call, key));
        }
        let noted = self.calls.take_noted();
        for slot in &noted {
            let Some((key, call)) = self.calls.at(*slot) else { continue };
            if !self.calls.is_written(*slot) {
                out.clear();
                write_caller(call, out);
                sink.put(entity(Kind::Caller, key), out);
            }
            out.clear();
            self.write_call(call, now, out);
            if self.calls.differs(*slot, print(out)) {
                sink.put(entity(Kind::Call, key), out);
            }
        }
        self.calls.done(noted);
    }

    fn journal_legs(&mut self, now: Now, sink: &mut dyn Sink, out: &mut Vec<u8>) {
        let entity = |kind, key: Key| Entity { kind, id: key.to_u64() };
        for key in self.legs.drain_gone() {
            sink.remove(entity(Kind::Leg, key));
        }
        let noted = self.legs.take_noted();
        for slot in &noted {
            let written = self.legs.is_written(*slot);
            let Some(leg) = self.legs.at_mut(*slot) else { continue };
            if leg.take_fresh() || !written {
                out.clear();
                write_dialog(leg, out);
                let Some((key, _)) = self.legs.at(*slot) else { continue };
                sink.put(entity(Kind::Dialog, key), out);
            }
            let Some((key, leg)) = self.legs.at(*slot) else { continue };
            out.clear();
            self.write_leg(leg, now, out);
            if self.legs.differs(*slot, print(out)) {
                sink.put(entity(Kind::Leg, key), out);
            }
        }
        self.legs.done(noted);
    }

    fn journal_counts(&mut self, sink: &mut dyn Sink, out: &mut Vec<u8>) {
        if self.notes.shard.take() {
            out.clear();
            self.write_shard(out);
            sink.put(Entity { kind: Kind::Shard, id: 0 }, out);
        }
        let mut noted = std::mem::take(self.notes.flows.get_mut());
        for flow in noted.drain(..) {
            out.clear();
            self.write_flow_counts(&flow, out);
            if replaced(&mut self.notes.flow_prints, flow.idx, print(out)) {
                sink.put(Entity { kind: Kind::FlowCounts, id: u64::from(flow.idx) }, out);
            }
        }
        *self.notes.flows.get_mut() = noted;
        let mut noted = std::mem::take(self.notes.counted.get_mut());
        for slot in noted.drain(..) {
            out.clear();
            if self.write_agent_counts(slot, out) && replaced(&mut self.notes.count_prints, slot, print(out)) {
                sink.put(Entity { kind: Kind::AgentCounts, id: u64::from(slot) }, out);
            }
        }
        *self.notes.counted.get_mut() = noted;
    }

    fn next_home_agent(&mut self) -> u32 {
        let shards = u32::from(self.cfg.buckets.shards().max(1));
        let next = self.notes.sweep.saturating_add(shards);
        let agents = self.prov.agents.len().max(self.notes.kept_agents.len());
        self.notes.sweep = if next as usize >= agents { u32::from(self.shard) } else { next };
        self.notes.sweep
    }

    /// Agents that changed, and now and then one more: a reload changes them where no shard sees it.
    fn journal_agents(&mut self, now: Now, sink: &mut dyn Sink, out: &mut Vec<u8>) {
        let mut noted = std::mem::take(self.notes.agents.get_mut());
        self.notes.turns = self.notes.turns.wrapping_add(1);
        if self.notes.turns.is_multiple_of(SWEEP_TURNS) {
            noted.push(self.next_home_agent());
        }
        for slot in noted.drain(..) {
            let entity = Entity { kind: Kind::Agent, id: u64::from(slot) };
            let at = slot as usize;
            out.clear();
            if !self.write_agent(slot, out) {
                if let Some(kept) = self.notes.kept_agents.get_mut(at).filter(|kept| **kept) {
                    *kept = false;
                    sink.remove(entity);
                }
                continue;
            }
            if self.stats.board.at(slot).differs(print(out)) {
                stamp(now, self.stats.board.at(slot).next_write(), out);
                sink.put(entity, out);
                if self.notes.kept_agents.len() <= at {
                    self.notes.kept_agents.resize(at + 1, false);
                }
                self.notes.kept_agents[at] = true;
            }
        }
        *self.notes.agents.get_mut() = noted;
    }
}

/// Turns between two agents of the slow look.
const SWEEP_TURNS: u32 = 16;

/// When an agent's record was made, and after how many, behind what the fingerprint is of: of several shards' records the last
/// holds, whatever the wall clock said.
fn stamp(now: Now, order: u64, out: &mut Vec<u8>) {
    let mut w = super::wire::Writer(out);
    w.uint(now.unix_us);
    w.uint(order);
}

#[cfg(test)]
mod tests {
    use super::print;

    #[test]
    fn each_byte_counts_in_a_fingerprint() {
        let record: Vec<u8> = (0..100).collect();
        for len in 0..record.len() {
            let base = print(&record[..len]);
            assert_ne!(base, print(&record[..len + 1]));
            for at in 0..len {
                let mut other = record[..len].to_vec();
                other[at] ^= 0x40;
                assert_ne!(print(&other), base, "byte {at} of {len}");
            }
        }
    }
}
