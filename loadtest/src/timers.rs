//! Timers of one loop. A timer is never cancelled: who set it looks, when it fires, whether it still matters.
//!
//! Most timers wait for T1 (a retransmission that the answer makes needless): those, and the lingering of ended legs,
//! go into first-in first-out lanes, where setting and firing are constant time. The rest are in a binary heap.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use crate::leg::LegId;

/// Nanoseconds since the run began.
pub type Nanos = u64;

pub const MILLIS: Nanos = 1_000_000;
/// RFC 3261 section 17.1.1.1: estimate of the round trip, and first retransmission interval.
pub const T1: Nanos = 500 * MILLIS;
/// RFC 3261 section 17.1.2.2: longest retransmission interval.
pub const T2: Nanos = 4_000 * MILLIS;
/// RFC 3261: 64*T1, timers B, F, H: a transaction without an answer is given up.
pub const GIVE_UP: Nanos = 64 * T1;
/// How long an ended leg is kept to absorb retransmissions. RFC 3261 says 64*T1 (timer J); ten seconds see the first
/// five repeats and keep the memory of 10 000 calls a second small. Later ones get 481.
pub const LINGER: Nanos = 10_000 * MILLIS;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// Timers A, B: our INVITE, by CSeq.
    Invite(u32),
    /// Timers E, F: our BYE or CANCEL, by CSeq.
    Request(u32),
    /// Timers G, H: our final answer to an INVITE waits for its ACK, by CSeq.
    Ack(u32),
    /// The agent picks up, refuses or, having answered, hangs up.
    Ring,
    /// The talk is over, and this leg hangs up.
    HangUp,
    /// The caller's patience is over.
    Patience,
    /// Agent and caller must be bridged by now.
    Bridge,
    /// An agent's other leg must have ended by now, or it was booked twice.
    Overlap,
    /// The phone goes dead.
    Death,
    /// The ended leg is forgotten.
    Forget,
}

/// A timer of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    pub at: Nanos,
    pub leg: LegId,
    pub due: Due,
}

/// All timers of a run.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
    /// Set with a delay of [`T1`] exactly.
    first: VecDeque<Timer>,
    /// Set with a delay of [`LINGER`] exactly.
    linger: VecDeque<Timer>,
}

impl Timers {
    /// Sets a timer. `now` must never go back between calls.
    pub fn set(&mut self, now: Nanos, delay: Nanos, leg: LegId, due: Due) {
        let timer = Timer { at: now + delay, leg, due };
        match delay {
            T1 => self.first.push_back(timer),
            LINGER => self.linger.push_back(timer),
            _ => self.heap.push(Reverse(timer)),
        }
    }

    /// When the next timer is due.
    pub fn next_at(&self) -> Option<Nanos> {
        let heap = self.heap.peek().map(|Reverse(timer)| timer.at);
        let lanes = [self.first.front(), self.linger.front()].into_iter().flatten().map(|timer| timer.at);
        lanes.chain(heap).min()
    }

    /// Takes a timer that is due, the earliest first.
    pub fn pop(&mut self, now: Nanos) -> Option<Timer> {
        let at = self.next_at().filter(|at| *at <= now)?;
        for lane in [&mut self.first, &mut self.linger] {
            if lane.front().is_some_and(|timer| timer.at == at) {
                return lane.pop_front();
            }
        }
        self.heap.pop().map(|Reverse(timer)| timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leg::LegId;

    #[test]
    fn lanes_and_heap_fire_in_one_order() {
        let mut timers = Timers::default();
        let leg = LegId { index: 1, generation: 1 };
        timers.set(0, LINGER, leg, Due::Forget);
        timers.set(0, 700 * MILLIS, leg, Due::Ring);
        timers.set(0, T1, leg, Due::Invite(1));
        timers.set(100 * MILLIS, T1, leg, Due::Request(2));
        assert_eq!(timers.next_at(), Some(T1));
        assert_eq!(timers.pop(T1 - 1), None);
        let mut fired = Vec::new();
        while let Some(timer) = timers.pop(LINGER) {
            fired.push((timer.at / MILLIS, timer.due));
        }
        assert_eq!(fired, [(500, Due::Invite(1)), (600, Due::Request(2)), (700, Due::Ring), (10_000, Due::Forget)]);
        assert_eq!(timers.next_at(), None);
    }
}
