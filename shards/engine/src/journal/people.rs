//! The records of agents, of counters, and of the shard.

use super::VERSION;
use super::calls::version;
use super::wire::{Corrupt, Reader, Writer};
use crate::engine::Engine;
use crate::provision::FlowDef;
use crate::stats::Count;

/// An agent as its record has it. Times are Unix time, 0 for none.
#[derive(Debug, Clone, Copy)]
pub(super) struct AgentRecord<'a> {
    pub id: &'a str,
    /// By command; `None`: as it is provisioned.
    pub logged_in: Option<bool>,
    pub wrapup_ends: u64,
    pub pause_ends: u64,
    /// After a chat: the other slots go on.
    pub withheld: bool,
    pub misses: u32,
    pub stamp: u64,
    /// Place in the order of all shards' records of it; 0 in those of older versions.
    pub order: u64,
}

impl<'a> AgentRecord<'a> {
    pub(super) fn decode(record: &'a [u8]) -> Result<AgentRecord<'a>, Corrupt> {
        let r = &mut Reader(record);
        version(r)?;
        let mut agent = AgentRecord {
            id: r.text()?,
            logged_in: r.option(Reader::flag)?,
            wrapup_ends: r.uint()?,
            pause_ends: r.uint()?,
            withheld: r.flag()?,
            misses: r.small("misses")?,
            stamp: r.uint()?,
            order: 0,
        };
        if !r.0.is_empty() {
            agent.order = r.uint()?;
        }
        Reader(r.0).end().map(|()| agent)
    }
}

fn write_counts<'a>(w: &mut Writer<'_>, id: &str, counts: impl Iterator<Item = &'a Count>) {
    w.uint(VERSION);
    w.bytes(id.as_bytes());
    counts.for_each(|count| w.int(count.get()));
}

/// Whose counters these are, and what follows.
pub(super) fn read_counts(record: &[u8]) -> Result<(&str, Reader<'_>), Corrupt> {
    let mut r = Reader(record);
    version(&mut r)?;
    Ok((r.text()?, r))
}

/// Adds the counters that follow in a record; those that an older one lacks stay.
pub(super) fn add_counts<'a>(r: &mut Reader<'_>, counts: impl Iterator<Item = &'a Count>) -> Result<(), Corrupt> {
    for count in counts {
        if r.0.is_empty() {
            break;
        }
        count.add(r.int()?);
    }
    Ok(())
}

impl Engine {
    /// Appends the record of an agent, without its stamp and its place in the order. False: no agent is known in that slot.
    pub(super) fn write_agent(&self, slot: u32, out: &mut Vec<u8>) -> bool {
        let Some(def) = self.prov.agents.get(slot as usize).and_then(Option::as_ref) else { return false };
        let Some(view) = self.shared.agent(def.agent) else { return false };
        let board = self.stats.board.at(slot);
        let w = &mut Writer(out);
        w.uint(VERSION);
        w.bytes(def.agentid.as_bytes());
        w.option(board.commanded(view.logged_in), Writer::flag);
        w.uint(board.wrapup_ends());
        w.uint(board.pause_ends());
        w.flag(view.slot_withheld);
        w.uint(u64::from(board.misses()));
        true
    }

    pub(super) fn write_flow_counts(&self, flow: &FlowDef, out: &mut Vec<u8>) {
        write_counts(&mut Writer(out), &flow.flowid, self.stats.shard(self.shard).flows.at(flow.idx).lasting());
    }

    pub(super) fn write_agent_counts(&self, slot: u32, out: &mut Vec<u8>) -> bool {
        let Some(def) = self.prov.agents.get(slot as usize).and_then(Option::as_ref) else { return false };
        write_counts(&mut Writer(out), &def.agentid, self.stats.shard(self.shard).agents.at(slot).lasting());
        true
    }

    /// Appends the record of the shard: sequence of CDRs, counters.
    pub(super) fn write_shard(&self, out: &mut Vec<u8>) {
        let w = &mut Writer(out);
        w.uint(VERSION);
        w.uint(self.cdr_sequence);
        self.stats.shard(self.shard).lasting().for_each(|count| w.int(count.get()));
    }
}
