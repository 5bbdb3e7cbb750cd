//! One side of a dialog (or of an attempt at one) with its open transactions, and the slab of all of them.
//!
//! A leg's label (`c1fg2`: role, slot, generation) is in its tags, in its SDP and in callers' user part, so that any
//! message names the leg that it belongs to without a lookup table, and any SDP names the leg that it came from.

use std::{io::Write as _, net::SocketAddr};

use crate::{agent::Agent, caller::Caller, media::Media, sdp::Origin, timers::Nanos};

/// Who a leg plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Caller,
    Agent,
    Media,
}

/// A slot of the slab and the use of it that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegId {
    pub index: u32,
    pub generation: u32,
}

/// What is played on top of the dialog.
#[derive(Debug)]
pub enum Part {
    Caller(Caller),
    Agent(Agent),
    Media(Media),
}

impl Part {
    pub fn role(&self) -> Role {
        match self {
            Self::Caller(_) => Role::Caller,
            Self::Agent(_) => Role::Agent,
            Self::Media(_) => Role::Media,
        }
    }
}

/// A leg's name in tags and SDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    pub role: Role,
    pub id: LegId,
}

impl Label {
    pub fn write(self, out: &mut Vec<u8>) {
        let role = match self.role {
            Role::Caller => 'c',
            Role::Agent => 'a',
            Role::Media => 'm',
        };
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{role}{:x}g{:x}", self.id.index, self.id.generation);
    }

    /// Reads a label at the start of `text`; what follows it must be no hexadecimal digit.
    pub fn read(text: &[u8]) -> Option<(Self, &[u8])> {
        let role = match text.first()? {
            b'c' => Role::Caller,
            b'a' => Role::Agent,
            b'm' => Role::Media,
            _ => return None,
        };
        let (index, rest) = hex(&text[1..])?;
        let (generation, rest) = hex(rest.strip_prefix(b"g")?)?;
        Some((Self { role, id: LegId { index, generation } }, rest))
    }

    /// The port that this leg's SDP names: two legs alive at once rarely share it, and it can be computed from the label.
    pub fn media_port(self) -> u16 {
        10_000 + 2 * (self.id.index.wrapping_add(self.id.generation) % 25_000) as u16
    }
}

fn hex(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).count();
    if digits == 0 || digits > 8 {
        return None;
    }
    let digit = |byte: &u8| u32::from(if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 });
    Some((text[..digits].iter().fold(0, |sum, byte| sum << 4 | digit(byte)), &text[digits..]))
}

/// A request of ours that waits for its final answer.
#[derive(Debug)]
pub struct Pending {
    pub cseq: u32,
    /// For latencies: when it should have been sent.
    pub intended: Nanos,
    pub give_up: Nanos,
    pub interval: Nanos,
    /// Sent again at least once: second answers are then our doing.
    pub resent: bool,
    /// A provisional answer came.
    pub provisional: bool,
    pub answered: bool,
    /// The request, for retransmission; emptied by its final answer.
    pub bytes: Vec<u8>,
}

/// An INVITE that we got, and our answer to it.
#[derive(Debug)]
pub struct Incoming {
    pub cseq: u32,
    pub branch: Box<[u8]>,
    /// Via and Record-Route lines for the answers.
    pub vias: Vec<u8>,
    pub record_routes: Vec<u8>,
    pub reply_to: SocketAddr,
    /// The final answer's code; 0 before.
    pub code: u16,
    pub acked: bool,
    pub resent: bool,
    pub interval: Nanos,
    pub give_up: Nanos,
    /// The last answer, for retransmission; emptied by the ACK.
    pub bytes: Vec<u8>,
}

/// One side of a dialog.
#[derive(Debug)]
pub struct Leg {
    pub id: LegId,
    pub part: Part,
    /// An MSRP session instead of audio.
    pub chat: bool,
    /// Which socket it lives on.
    pub socket: usize,
    pub call_id: Box<[u8]>,
    /// From or To value of this side, with its tag.
    pub local: Vec<u8>,
    /// From or To value of the other side, with its tag once known.
    pub remote: Vec<u8>,
    pub remote_tag: Vec<u8>,
    /// URI of our Contact, without `<>`.
    pub contact: Vec<u8>,
    /// Request-URI of in-dialog requests: the other side's Contact.
    pub target: Vec<u8>,
    /// Route lines of in-dialog requests.
    pub routes: Vec<u8>,
    pub peer: SocketAddr,
    /// CSeq of our last request, and of the last request that we got (0: none).
    pub local_cseq: u32,
    pub remote_cseq: u32,
    pub invite: Option<Pending>,
    /// BYE or CANCEL of ours.
    pub request: Option<Pending>,
    pub incoming: Option<Incoming>,
    /// Last other request that we got, and the answer to it.
    pub last_reply: Option<(u32, Vec<u8>)>,
    /// Our ACK to a 2xx, sent again for each copy of it.
    pub ack: Vec<u8>,
    pub origin: Origin,
    /// Hash under which retransmissions of its first INVITE find it (legs that we did not start).
    pub first_key: Option<u64>,
    /// Ended: it only absorbs retransmissions.
    pub over: bool,
}

impl Leg {
    /// A leg without dialog state yet.
    pub fn new(id: LegId, part: Part, socket: usize, call_id: Box<[u8]>, peer: SocketAddr) -> Self {
        Self {
            id,
            part,
            chat: false,
            socket,
            call_id,
            local: Vec::new(),
            remote: Vec::new(),
            remote_tag: Vec::new(),
            contact: Vec::new(),
            target: Vec::new(),
            routes: Vec::new(),
            peer,
            local_cseq: 0,
            remote_cseq: 0,
            invite: None,
            request: None,
            incoming: None,
            last_reply: None,
            ack: Vec::new(),
            origin: Origin::default(),
            first_key: None,
            over: false,
        }
    }

    pub fn label(&self) -> Label {
        Label { role: self.part.role(), id: self.id }
    }

    pub fn caller(&mut self) -> Option<&mut Caller> {
        match &mut self.part {
            Part::Caller(caller) => Some(caller),
            _ => None,
        }
    }

    pub fn agent(&mut self) -> Option<&mut Agent> {
        match &mut self.part {
            Part::Agent(agent) => Some(agent),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    leg: Option<Box<Leg>>,
}

/// All legs. A slot that is used again has a new generation, so that late messages do not find a stranger.
#[derive(Debug, Default)]
pub struct Legs {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Generation of slots used for the first time, less one.
    generation: u32,
}

impl Legs {
    /// An empty slab whose ids are none of `before`'s.
    pub fn after(before: &Self) -> Self {
        let last = before.slots.iter().map(|slot| slot.generation).max();
        Self { generation: last.unwrap_or(before.generation) + 1, ..Self::default() }
    }

    /// The id that the next leg will have.
    pub fn next_id(&self) -> LegId {
        match self.free.last() {
            Some(&index) => LegId { index, generation: self.slots[index as usize].generation },
            None => LegId { index: self.slots.len() as u32, generation: self.generation + 1 },
        }
    }

    /// Adds the leg that was made with [`Legs::next_id`].
    pub fn insert(&mut self, leg: Leg) {
        let id = leg.id;
        debug_assert_eq!(id, self.next_id());
        let slot = Slot { generation: id.generation, leg: Some(Box::new(leg)) };
        match self.free.pop() {
            Some(index) => self.slots[index as usize] = slot,
            None => self.slots.push(slot),
        }
    }

    pub fn get(&self, id: LegId) -> Option<&Leg> {
        self.slots.get(id.index as usize).filter(|slot| slot.generation == id.generation)?.leg.as_deref()
    }

    pub fn get_mut(&mut self, id: LegId) -> Option<&mut Leg> {
        self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?.leg.as_deref_mut()
    }

    pub fn remove(&mut self, id: LegId) -> Option<Box<Leg>> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        let leg = slot.leg.take()?;
        slot.generation += 1;
        self.free.push(id.index);
        Some(leg)
    }

    /// Ids of all legs that have not ended.
    pub fn open(&self) -> impl Iterator<Item = &Leg> {
        self.slots.iter().filter_map(|slot| slot.leg.as_deref()).filter(|leg| !leg.over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legs_of_another_run_are_strangers() {
        let mut legs = Legs::default();
        for _ in 0..3 {
            let id = legs.next_id();
            let address = "127.0.0.1:5060".parse().unwrap();
            legs.insert(Leg::new(id, Part::Caller(Caller::default()), 0, b"id"[..].into(), address));
            legs.remove(id);
        }
        let later = Legs::after(&legs);
        assert!(later.next_id().generation > legs.next_id().generation);
        assert!(Legs::after(&later).next_id().generation > later.next_id().generation);
    }

    #[test]
    fn labels_read_back() {
        let label = Label { role: Role::Agent, id: LegId { index: 0xbeef, generation: 3 } };
        let mut text = Vec::new();
        label.write(&mut text);
        assert_eq!(text, b"abeefg3");
        text.extend_from_slice(b"r77");
        assert_eq!(Label::read(&text), Some((label, &b"r77"[..])));
        for bad in [&b""[..], b"c", b"cg1", b"x1g1", b"c1", b"c1g", b"c123456789g1"] {
            assert_eq!(Label::read(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
