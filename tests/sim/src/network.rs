//! The network between peers and shards: it loses, doubles, delays and reorders what it carries.

use crate::check::{Checked, Violation};
use crate::hazards::may_come_again;
use crate::heap::Event;
use crate::plan::{MS, SECOND};
use crate::text::{self, Bytes, ENGINE};
use crate::ua::{Ctx, Dialog, Kind, Phase};
use crate::world::{KEY, World};
use std::net::SocketAddr;
use strowger_sip::scan::{self, Owner};

impl World {
    /// The network. `from`: a peer's address; none for the engine.
    pub(crate) fn transport(&mut self, bytes: Bytes, to: SocketAddr, from: Option<SocketAddr>) {
        let net = self.plan.net.clone();
        let (peer, to_peer) = from.map_or((to, true), |from| (from, false));
        if !self.calm && self.plan.hazards.cuts(self.now, peer, to_peer) {
            self.saw("cut off by a partition");
            return;
        }
        let replay = self.plan.hazards.replay;
        if let Some(from) = from.filter(|_| !self.calm && replay > 0)
            && self.net.chance(replay)
            && may_come_again(&bytes)
        {
            let late = self.plan.hazards.replay_after(&mut self.net, &mut self.extra);
            self.saw(if late > 1000 * SECOND {
                "datagram came again after an hour"
            } else {
                "datagram came again after minutes"
            });
            self.push(self.now + late, Event::ToEngine { from, bytes: bytes.clone(), waited: 0 });
        }
        let copies = match self.calm {
            true => 1,
            false if self.net.chance(net.loss) => 0,
            false => 1 + u32::from(self.net.chance(net.double)),
        };
        for _ in 0..copies {
            let mut way = MS;
            if !self.calm {
                way = net.delay_us + self.net.below(net.jitter_us + 1);
                if self.net.chance(net.reorder) {
                    way += self.net.below(2 * SECOND);
                }
            }
            let at = self.now + way;
            let bytes = self.maybe_damage(bytes.clone(), peer);
            match from {
                None => self.push(at, Event::ToPeer { to, bytes }),
                Some(from) => self.push(at, Event::ToEngine { from, bytes, waited: 0 }),
            }
        }
        if copies == 0 {
            self.saw("datagram lost");
        }
    }

    /// The shard whose a datagram is, by the real scan.
    pub(crate) fn owner(&self, bytes: &[u8]) -> Option<u16> {
        match scan::owner(bytes, &KEY) {
            Owner::Bucket(bucket) => Some(self.cfg.buckets.shard(bucket)),
            Owner::NoCallId => Some(0),
            Owner::Junk => None,
        }
    }

    pub(crate) fn with_peer(&mut self, dialog: u32, f: impl FnOnce(&mut Dialog, &mut Ctx<'_>)) {
        let mut ctx = Ctx {
            now: self.now,
            calm: self.calm,
            rng: &mut self.peers,
            plan: &self.plan,
            out: &mut self.out,
            timers: &mut self.timers,
            seen: &mut self.seen,
            wrongs: &mut self.wrongs,
        };
        let d = &mut self.dialogs[dialog as usize];
        f(d, &mut ctx);
        if self.ledger.damaged.get(d.call as usize) == Some(&true) {
            self.wrongs.clear(); // What it was told may not be what was said.
        }
    }

    /// Puts what peers send and plan on the heap.
    pub(crate) fn peers_done(&mut self) -> Checked {
        let to = ENGINE.parse().unwrap_or_else(|_| SocketAddr::from(([10, 0, 0, 1], 5060)));
        for (from, bytes) in std::mem::take(&mut self.out) {
            self.transport(bytes, to, Some(from));
        }
        for (us, dialog, tick) in std::mem::take(&mut self.timers) {
            self.push(self.now + us, Event::Peer { dialog, tick });
        }
        match self.wrongs.pop() {
            Some(what) if !self.ledger.lost_power => Err(Violation::new(what)),
            _ => Ok(()),
        }
    }

    /// A datagram reaches a peer's address.
    pub(crate) fn deliver(&mut self, to: SocketAddr, bytes: &Bytes) {
        let Some(msg) = text::parse(bytes) else { return };
        let Ok(id) = msg.call_id() else { return };
        let key = (to, text::text(id).to_owned());
        if let Some(dialog) = self.by_call.get(&key).copied() {
            self.with_peer(dialog, |d, ctx| d.receive(ctx, &msg, bytes));
            return;
        }
        let Some(method) = msg.method() else { return };
        if method != strowger_sip::msg::Method::Invite || msg.to_tag().is_some() {
            if method != strowger_sip::msg::Method::Ack {
                self.out.push((to, text::response(&msg, 481, "gone", to, "", "")));
            }
            return;
        }
        let kind = Kind::at(to);
        let index = self.dialogs.len() as u32;
        let mut d = Dialog::new(index, kind, text::call_number(&msg).unwrap_or(u32::MAX), to, &key.1);
        d.phase = Phase::Ringing;
        d.chat = self.dialogs.get(d.call as usize).is_some_and(|caller| caller.chat);
        d.local =
            format!("{};tag={}", msg.first(strowger_sip::msg::Name::To).map(text::text).unwrap_or_default(), d.tag);
        d.remote = msg.first(strowger_sip::msg::Name::From).map(text::text).unwrap_or_default().to_owned();
        d.target = msg.contact().ok().flatten().map(|c| text::text(c.uri).to_owned()).unwrap_or_default();
        self.by_call.insert(key, index);
        self.dialogs.push(d);
        self.with_peer(index, |d, ctx| d.receive(ctx, &msg, bytes));
    }
}
