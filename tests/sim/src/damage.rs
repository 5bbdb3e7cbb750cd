//! Datagrams that arrive cut, or with other bytes in them. Whatever comes of it, nothing may stay taken, be booked twice or be
//! left behind; how its call goes on is not foretold any more.
//!
//! What would make it another call's, or another call, is not done: nobody could tell whose records these are.

use crate::heap::Event;
use crate::plan::SECOND;
use crate::rng::Rng;
use crate::routes::Expect;
use crate::text::{self, Bytes};
use crate::world::World;
use std::net::{IpAddr, SocketAddr};
use strowger_sip::endpoint::Resolve;
use strowger_sip::msg::{Message, Method};

/// How many of 1000 damaged datagrams have a name where an address was.
const NAMES: u32 = 150;

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
    (is_new && stays_the_calls(&text::parse(bytes)?, &copy)).then(|| copy.into())
}

/// A copy whose Contact names its host with letters.
fn with_a_name(bytes: &Bytes) -> Option<Bytes> {
    const BEFORE: &[u8] = b"Contact: <sip:1";
    let at = bytes.windows(BEFORE.len()).position(|w| w == BEFORE)? + BEFORE.len();
    let mut copy = bytes.to_vec();
    *copy.get_mut(at).filter(|digit| **digit == b'0')? = b'o';
    stays_the_calls(&text::parse(bytes)?, &copy).then(|| copy.into())
}

/// The address that such a name stands for.
fn named(host: &str) -> Option<IpAddr> {
    host.replacen('o', "0", 1).parse().ok()
}

/// Whether a datagram holds the Call-ID of another caller's call than `n`, readable or not: the engine refuses what it cannot
/// read with what it can read of it.
fn holds_anothers(bytes: &[u8], n: Option<u32>) -> bool {
    let all = String::from_utf8_lossy(bytes);
    let mut numbers = all.split("call").filter_map(|rest| rest.split_once("@sim")?.0.parse::<u32>().ok());
    numbers.any(|number| Some(number) != n)
}

/// Whether nobody could take the damaged one for another call's, or for one more call.
fn stays_the_calls(was: &Message<'_>, copy: &[u8]) -> bool {
    let parsed = text::parse(copy);
    let Some(is) = &parsed else { return !holds_anothers(copy, text::caller_number(was)) };
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
    /// A shard asks for a name: nobody has heard of it, or it is found.
    pub(crate) fn look_up(&mut self, shard: u16, asked: &Resolve) {
        self.saw("asked for a name");
        let way = self.extra.range(1, 6 * SECOND);
        let address = named(&asked.host).filter(|_| self.names.chance(500));
        if address.is_some() {
            self.saw("name found");
        }
        self.push(self.now + way, Event::Name { shard, id: asked.id, address });
    }

    /// Maybe another datagram in this one's place; its call is not foretold from here on.
    pub(crate) fn maybe_damage(&mut self, bytes: Bytes, peer: SocketAddr) -> Bytes {
        let rate = self.plan.hazards.damage;
        if self.calm || rate == 0 || !self.extra.chance(rate) {
            return bytes;
        }
        let call = text::parse(&bytes).and_then(|msg| call_of(&msg));
        let Some(call) = call.filter(|n| (*n as usize) < self.ledger.damaged.len()) else { return bytes };
        let mut copy = damage(&mut self.extra, &bytes);
        if self.names.chance(NAMES) {
            copy = with_a_name(&bytes).or(copy);
        }
        let Some(copy) = copy else { return bytes };
        if let Some(id) = text::parse(&bytes).and_then(|msg| msg.call_id().ok().map(|id| text::text(id).to_owned())) {
            self.ledger.damaged_ids.insert(id);
        }
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
            || msg.call_id().is_ok_and(|id| self.damaged_ids.contains(text::text(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:f1@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.3.0.17:5060;branch=z9hG4bK-17\r\n\
        From: <sip:c17@10.3.0.17>;tag=t17\r\nTo: <sip:f1@10.0.0.1>\r\nCall-ID: call17@sim\r\nCSeq: 1 INVITE\r\n\
        Contact: <sip:10.3.0.17:5060>\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn what_cannot_be_read_and_names_another_call_is_not_sent() {
        let was = text::parse(INVITE.as_bytes()).unwrap();
        let unreadable = INVITE.replace("Length: 0", "Length: 7");
        assert!(text::parse(unreadable.as_bytes()).is_none());
        assert!(stays_the_calls(&was, unreadable.as_bytes()));
        assert!(!stays_the_calls(&was, unreadable.replace("call17", "call37").as_bytes()));
    }

    #[test]
    fn a_contact_becomes_a_name_which_stands_for_its_address() {
        let bytes: Bytes = INVITE.as_bytes().into();
        let copy = with_a_name(&bytes).unwrap();
        let msg = text::parse(&copy).unwrap();
        assert_eq!(msg.contact().unwrap().unwrap().uri, b"sip:1o.3.0.17:5060");
        assert_eq!(named("1o.3.0.17"), "10.3.0.17".parse().ok());
    }
}
