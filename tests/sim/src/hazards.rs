//! Rarer faults: peers that nobody reaches for a while, datagrams that come again long after, requests with tags of no dialog,
//! and what came later: damage, clocks that are set, shards that are drained.

use crate::clock::{Step, draw_steps};
use crate::door::Pressure;
use crate::plan::{MOST_AGENTS, Op, SECOND};
use crate::rng::Rng;
use crate::room::Squeeze;
use crate::text::{self, Request};
use crate::ua::{Ctx, Dialog};
use std::net::{IpAddr, SocketAddr};
use strowger_sip::msg::{Message, Method};

pub const LONGEST_STALL_US: u64 = 5 * SECOND;
const LONGEST_REPLAY_US: u64 = 400 * SECOND;
/// Most shards of a run.
pub const MOST_SHARDS: u64 = 8;
/// After a stall all that is due happens at once.
const SETTLES_US: u64 = SECOND / 100;

/// Branches of requests that belong to no dialog.
const STRAY: &str = "z9hG4bK-stray";

/// For a time nothing comes from a peer, or nothing to it, or neither.
#[derive(Debug, Clone)]
pub struct Partition {
    pub from_us: u64,
    pub until_us: u64,
    pub ip: IpAddr,
    pub to_peer: bool,
    pub to_engine: bool,
}

/// A shard does nothing for a time; what comes for it waits.
#[derive(Debug, Clone, Copy)]
pub struct Stall {
    pub shard: u16,
    pub from_us: u64,
    pub until_us: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Hazards {
    pub stalls: Vec<Stall>,
    pub partitions: Vec<Partition>,
    /// Per mille of datagrams to the engine that come again when their transaction is forgotten.
    pub replay: u32,
    /// Per mille of dialogs in which somebody sends requests with wrong tags or an old CSeq.
    pub stray: u32,
    /// Per mille of datagrams that are cut or changed on their way.
    pub damage: u32,
    /// Some of what comes again comes after an hour.
    pub hours: bool,
    /// The wall clock is set.
    pub clock: Vec<Step>,
    /// When all shards are told to take new calls no more, and to take them again.
    pub drains: Vec<(u64, Op)>,
    /// More than four; 0: as the plan says.
    pub shards: u16,
    /// Database and spool have their troubles.
    pub records: bool,
    /// The machine may lose its power, where processes end at all.
    pub power: bool,
    pub pressure: Pressure,
    /// When the journals' disk has no room.
    pub squeezes: Vec<Squeeze>,
    /// New calls that a stall has kept waiting in the socket are as old as that.
    pub ages: bool,
}

const HOUR_US: u64 = 3600 * SECOND;

impl Hazards {
    pub fn draw(r: &mut Rng, faults_us: u64, calls: u32) -> Hazards {
        let (replay, stray) = (if r.chance(250) { r.swarm(100) } else { 0 }, if r.chance(300) { 400 } else { 0 });
        let mut partitions = Vec::new();
        for _ in 0..if r.chance(250) { r.range(1, 6) } else { 0 } {
            let ip = match r.below(4) {
                0 => [10, 2, 0, r.range(1, 4) as u8],
                1 => [10, 3, 0, r.below(u64::from(calls)) as u8],
                _ => [10, 1, 0, r.range(1, u64::from(MOST_AGENTS)) as u8],
            };
            let from_us = r.below(faults_us);
            let (to_peer, to_engine) = *r.pick(&[(true, true), (true, false), (false, true)]);
            let until_us = from_us + r.range(1, 40) * SECOND;
            partitions.push(Partition { from_us, until_us, ip: ip.into(), to_peer, to_engine });
        }
        let mut stalls = Vec::new();
        for _ in 0..if r.chance(250) { r.range(1, 4) } else { 0 } {
            let from_us = r.below(faults_us.saturating_sub(LONGEST_STALL_US));
            let until_us = from_us + r.range(1, LONGEST_STALL_US);
            stalls.push(Stall { shard: r.below(4) as u16, from_us, until_us });
        }
        Hazards { stalls, partitions, replay, stray, ..Hazards::default() }
    }

    /// What came later, from a generator of its own.
    pub fn draw_more(&mut self, r: &mut Rng, faults_us: u64) {
        (self.records, self.power) = (true, true);
        self.damage = if r.chance(300) { *r.pick(&[2, 10, 60]) } else { 0 };
        self.hours = r.chance(300);
        self.clock = if r.chance(300) { draw_steps(r, faults_us) } else { Vec::new() };
        if r.chance(150) {
            for _ in 0..r.range(1, 3) {
                let at = r.below(faults_us);
                self.drains.push((at, Op::Drain(true)));
                self.drains.push((at + r.range(1, 20) * SECOND, Op::Drain(false)));
            }
        }
        self.shards = if r.chance(200) { r.range(5, MOST_SHARDS) as u16 } else { 0 };
        for stall in self.stalls.iter_mut().filter(|_| self.shards > 0) {
            stall.shard += 4 * u16::from(r.chance(500));
        }
    }

    /// How long after it was sent the last datagram may come.
    pub fn latest_us(&self) -> u64 {
        if self.hours && self.replay > 0 { HOUR_US + LONGEST_REPLAY_US } else { 0 }
    }

    /// How long after it was sent a datagram comes again; what is older than any transaction, or than any call.
    pub fn replay_after(&self, r: &mut Rng, more: &mut Rng) -> u64 {
        let late = r.range(40, LONGEST_REPLAY_US / SECOND) * SECOND;
        if self.hours && more.chance(300) { HOUR_US + late } else { late }
    }

    /// Until when this shard does nothing.
    pub fn stalled(&self, now: u64, shard: u16) -> Option<u64> {
        let now_in = |s: &&Stall| s.shard == shard && (s.from_us..s.until_us).contains(&now);
        self.stalls.iter().filter(now_in).map(|s| s.until_us).max()
    }

    /// Some shard is or was behind a moment ago: nothing can be said of what is done in time.
    pub fn is_behind(&self, now: u64) -> bool {
        self.stalls.iter().any(|s| (s.from_us..=s.until_us + SETTLES_US).contains(&now))
    }

    /// Whether a datagram between the engine and this peer is lost to a partition.
    pub fn cuts(&self, now: u64, peer: SocketAddr, to_peer: bool) -> bool {
        let hit = |p: &&Partition| p.ip == peer.ip() && if to_peer { p.to_peer } else { p.to_engine };
        self.partitions.iter().filter(hit).any(|p| (p.from_us..p.until_us).contains(&now))
    }
}

/// Whether a datagram may come again after minutes: another INVITE would be another call.
pub fn may_come_again(bytes: &[u8]) -> bool {
    let Some(msg) = text::parse(bytes) else { return false };
    !matches!(msg.method(), Some(Method::Invite | Method::Message)) && msg.code().is_none_or(|code| code >= 200)
}

/// Whether a request, or the answer to one, is a stray.
pub fn is_stray(msg: &Message<'_>) -> bool {
    msg.top_via().ok().and_then(|v| v.branch()).is_some_and(|b| b.starts_with(STRAY.as_bytes()))
}

/// The answer to a stray: a BYE for no dialog ends nothing.
///
/// # Errors
/// What it should have been.
pub fn stray_is_refused(code: u16, msg: &Message<'_>) -> Result<(), String> {
    let bye = is_stray(msg) && msg.cseq().is_ok_and(|c| c.method == Method::Bye);
    if bye && code != 481 { Err(format!("{code} to a BYE with a wrong tag")) } else { Ok(()) }
}

impl Dialog {
    /// Somebody sends what looks as if it belonged to this dialog.
    pub fn send_stray(&mut self, ctx: &mut Ctx<'_>) {
        let (mut from, mut to) = (self.local.clone(), self.remote.clone());
        let which = ctx.rng.below(3);
        let (method, cseq) =
            if which < 2 { ("BYE", self.last_cseq() + 1) } else { ("INFO", self.last_cseq().max(1) - 1) };
        match which {
            0 => from.push('x'),
            1 => to.push('x'),
            _ => {}
        }
        ctx.saw(if which < 2 { "BYE with a wrong tag" } else { "request with an old CSeq" });
        let branch = format!("{STRAY}{}-{}", self.index, ctx.now);
        let bytes = text::request(&Request {
            method,
            uri: &self.target,
            addr: self.addr,
            branch: &branch,
            from: &from,
            to: &to,
            call_id: &self.call_id,
            cseq,
            extra: "",
            body: "",
        });
        ctx.out.push((self.addr, bytes));
    }
}
