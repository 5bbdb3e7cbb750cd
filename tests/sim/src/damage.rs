//! Datagrams that arrive cut, or with other bytes in them. Whatever comes of it, nothing may stay taken, be booked twice or be
//! left behind; how its call goes on is not foretold any more.
//!
//! What would make it another call's, or another call, is not done: nobody could tell whose records these are.

use crate::rng::Rng;
use crate::routes::Expect;
use crate::text::{self, Bytes};
use crate::world::World;
use std::net::SocketAddr;
use strowger_sip::msg::{Message, Method};

/// A damaged copy of a datagram; none when it would not be its call's any more, or is as it was.
fn damage(r: &mut Rng, bytes: &Bytes) -> Option<Bytes> {
    let mut copy = bytes.to_vec();
    let len = copy.len() as u64;
    match r.below(6) {
        0 => copy.truncate(r.below(len) as usize),
        1 => {
            let (from, n) = (r.below(len) as usize, r.range(1, 40) as usize);
            let to = (from + n).min(copy.len());
            copy.drain(from..to);
        }
        2 => {
            let (from, n) = (r.below(len) as usize, r.range(1, 20) as usize);
            let byte = *r.pick(b"\0\r\n ;<\"\xff,");
            copy.iter_mut().skip(from).take(n).for_each(|b| *b = byte);
        }
        _ => {
            for _ in 0..r.range(1, 3) {
                copy[r.below(len) as usize] ^= 1 << r.below(8);
            }
        }
    }
    let is_new = copy != **bytes;
    (is_new && stays_the_calls(&text::parse(bytes)?, text::parse(&copy).as_ref())).then(|| copy.into())
}

/// Whether nobody could take the damaged one for another call's, or for one more call.
fn stays_the_calls(was: &Message<'_>, is: Option<&Message<'_>>) -> bool {
    let Some(is) = is else { return true };
    let from = |m: &Message<'_>| m.first(strowger_sip::msg::Name::From).map(<[u8]>::to_vec);
    let to = |m: &Message<'_>| m.first(strowger_sip::msg::Name::To).map(<[u8]>::to_vec);
    let via = |m: &Message<'_>| m.first(strowger_sip::msg::Name::Via).map(<[u8]>::to_vec);
    let cseq = |m: &Message<'_>| m.cseq().ok().map(|c| (c.number, c.method.as_bytes().to_vec()));
    let begins = |m: &Message<'_>| matches!(m.method(), Some(Method::Invite | Method::Message)) && m.to_tag().is_none();
    let redirects = |m: &Message<'_>| m.code().is_some_and(|c| c / 100 == 3);
    if is.call_id().ok() != was.call_id().ok() || call_of(is) != call_of(was) || redirects(was) || redirects(is) {
        return false;
    }
    // Without our tag all that follows would begin another call.
    if is.to_tag().is_some() != was.to_tag().is_some() {
        return false;
    }
    if begins(is) || begins(was) {
        let same = from(is) == from(was) && to(is) == to(was) && via(is) == via(was) && cseq(is) == cseq(was);
        return same && is.method() == was.method();
    }
    true
}

/// The call that a message is about.
fn call_of(msg: &Message<'_>) -> Option<u32> {
    text::caller_number(msg).or_else(|| text::call_number(msg)).or_else(|| text::called_for(msg))
}

impl World {
    /// Maybe another datagram in this one's place; its call is not foretold from here on.
    pub(crate) fn maybe_damage(&mut self, bytes: Bytes, peer: SocketAddr) -> Bytes {
        let rate = self.plan.hazards.damage;
        if self.calm || rate == 0 || !self.extra.chance(rate) {
            return bytes;
        }
        let call = text::parse(&bytes).and_then(|msg| call_of(&msg));
        let Some(call) = call.filter(|n| (*n as usize) < self.ledger.damaged.len()) else { return bytes };
        let Some(copy) = damage(&mut self.extra, &bytes) else { return bytes };
        self.ledger.damaged[call as usize] = true;
        self.ledger.stages.of[call as usize].damaged = true;
        self.ledger.expects[call as usize] = Some(Expect::Unknown);
        self.saw(if text::parse(&copy).is_some() { "damaged datagram" } else { "datagram beyond reading" });
        self.trace.note(self.now, Some(call), text::agent_of(peer), || {
            format!("damaged: {}", String::from_utf8_lossy(&copy).escape_debug())
        });
        copy
    }
}

impl crate::check::Ledger {
    /// A datagram of this message's call was damaged.
    pub(crate) fn is_damaged(&self, msg: &Message<'_>) -> bool {
        call_of(msg).is_some_and(|n| self.damaged.get(n as usize).copied().unwrap_or(false))
    }
}
