//! The timer wheel of a shard: one for transactions and for their users.
//!
//! Invariants:
//! - An entry keeps its exact due time. It never fires before it, and a poll at or after it fires it.
//! - [`Wheel::next_due`] is exact for everything due within the lowest level (64 slots of 128 us); for later entries
//!   it is a time not after the earliest one at which polling moves them down.
//! - Insert and cancel take constant time; a timer moves down at most once a level in its life.
//! - Entries live in a table with intrusive lists: nothing allocates once it has reached its working size.
//! - A [`TimerId`] carries a generation: a stale one cancels nothing.
//!
//! Levels of 64 slots cover the whole of `u64` microseconds, so there is no overflow list and no longest timer.
//! An entry sits on the level of the highest base-64 digit in which its tick differs from the wheel's present tick.

use crate::chunks::Chunks;
use crate::time::Mono;
use std::num::NonZeroU32;

/// Microseconds of a slot of the lowest level, as a power of two.
const TICK_BITS: u32 = 7;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 7 + 10 * 6 bits cover 64.
const LEVELS: usize = 10;
const NONE: u32 = u32::MAX;
/// `Node::level` of an entry that is due and waits to be popped.
const READY: u8 = 0xfe;
/// `Node::level` of a free node.
const FREE: u8 = 0xff;

/// Names one started timer; harmless once it fired or was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    generation: NonZeroU32,
}

impl TimerId {
    /// A timer that never was: cancelling it does nothing.
    pub const NONE: TimerId = TimerId { index: NONE, generation: NonZeroU32::MIN };
}

impl Default for TimerId {
    fn default() -> TimerId {
        TimerId::NONE
    }
}

/// A timer that came due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fired {
    pub id: TimerId,
    pub due: Mono,
    pub token: u64,
    pub kind: u16,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    due: u64,
    token: u64,
    next: u32,
    prev: u32,
    generation: NonZeroU32,
    kind: u16,
    level: u8,
    slot: u8,
}

impl Default for Node {
    fn default() -> Node {
        let generation = NonZeroU32::MIN;
        Node { due: 0, token: 0, next: NONE, prev: NONE, generation, kind: 0, level: FREE, slot: 0 }
    }
}

/// Head and tail of an intrusive list.
#[derive(Debug, Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

impl List {
    const EMPTY: List = List { head: NONE, tail: NONE };
}

/// See the module.
#[derive(Debug)]
pub struct Wheel {
    nodes: Chunks<Node>,
    free: u32,
    len: usize,
    /// The wheel's present tick: everything before it has been moved to `ready`.
    tick: u64,
    occupied: [u64; LEVELS],
    lists: Box<[[List; SLOTS]; LEVELS]>,
    ready: List,
    late: Option<u64>,
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel::new()
    }
}

impl Wheel {
    /// An empty wheel at time 0.
    #[must_use]
    pub fn new() -> Wheel {
        Wheel {
            nodes: Chunks::default(),
            free: NONE,
            len: 0,
            tick: 0,
            occupied: [0; LEVELS],
            lists: Box::new([[List::EMPTY; SLOTS]; LEVELS]),
            ready: List::EMPTY,
            late: None,
        }
    }

    /// Timers started and neither popped nor cancelled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Starts a timer that a [`pop`](Self::pop) at `due` or later returns with `token` and `kind`.
    pub fn insert(&mut self, due: Mono, token: u64, kind: u16) -> TimerId {
        let node = Node { due: due.0, token, kind, ..Node::default() };
        let index = if self.free == NONE {
            // 4 billion entries of 32 bytes do not fit in memory: the index fits.
            let index = self.nodes.len() as u32;
            self.nodes.push(node);
            index
        } else {
            let index = self.free;
            let old = &mut self.nodes[index as usize];
            self.free = old.next;
            *old = Node { generation: old.generation, ..node };
            index
        };
        self.len += 1;
        self.place(index);
        TimerId { index, generation: self.nodes[index as usize].generation }
    }

    /// Whether `id` was still running; it will not fire now.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        if !self.is_running(id) {
            return false;
        }
        self.unlink(id.index);
        self.release(id.index);
        true
    }

    /// Whether `id` has neither fired nor been cancelled.
    #[must_use]
    pub fn is_running(&self, id: TimerId) -> bool {
        self.nodes.get(id.index as usize).is_some_and(|n| n.generation == id.generation && n.level != FREE)
    }

    /// When `id` fires; `None` when it is not running.
    #[must_use]
    pub fn due_of(&self, id: TimerId) -> Option<Mono> {
        self.is_running(id).then(|| Mono(self.nodes[id.index as usize].due))
    }

    /// The time at which to poll next: see the module's invariants.
    #[must_use]
    pub fn next_due(&self) -> Option<Mono> {
        if self.ready.head != NONE {
            return Some(Mono(self.nodes[self.ready.head as usize].due));
        }
        let (level, slot, start) = self.earliest()?;
        if level > 0 {
            return Some(Mono(start << TICK_BITS));
        }
        let mut at = self.lists[0][slot].head;
        let mut least = u64::MAX;
        while at != NONE {
            let node = &self.nodes[at as usize];
            least = least.min(node.due);
            at = node.next;
        }
        Some(Mono(least))
    }

    /// The next timer due at `now`, slot by slot in order of time and within a slot in order of insertion; `None` when
    /// there is none. `now` never goes back.
    pub fn pop(&mut self, now: Mono) -> Option<Fired> {
        if self.ready.head == NONE {
            self.advance(now);
        }
        let index = self.ready.head;
        if index == NONE {
            return None;
        }
        let node = self.nodes[index as usize];
        self.unlink(index);
        self.release(index);
        let late = now.0.saturating_sub(node.due);
        self.late = Some(self.late.map_or(late, |worst| worst.max(late)));
        let id = TimerId { index, generation: node.generation };
        Some(Fired { id, due: Mono(node.due), token: node.token, kind: node.kind })
    }

    /// Token and kind of those that have come due and wait to be popped, in that order; not all that are due may be among them.
    pub fn ready(&self) -> impl Iterator<Item = (u64, u16)> {
        let mut at = self.ready.head;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.next;
            Some((node.token, node.kind))
        })
    }

    /// The timer will be looked at soon.
    #[inline]
    pub fn soon(&self, id: TimerId) {
        self.nodes.soon(id.index as usize);
    }

    /// By how many microseconds the latest timer was late that [`pop`](Self::pop) gave out since this was last asked.
    pub fn take_lateness(&mut self) -> Option<u64> {
        self.late.take()
    }

    /// Moves the present tick up to that of `now`, what came due into `ready`. Stops at the first slot that had some.
    fn advance(&mut self, now: Mono) {
        let target = now.0 >> TICK_BITS;
        while let Some((level, slot, start)) = self.earliest() {
            if start > target {
                break;
            }
            self.tick = self.tick.max(start);
            let mut at = std::mem::replace(&mut self.lists[level][slot], List::EMPTY).head;
            self.occupied[level] &= !(1 << slot);
            while at != NONE {
                let next = self.nodes[at as usize].next;
                if self.nodes[at as usize].due <= now.0 && level == 0 {
                    self.append_ready(at);
                } else {
                    self.place(at);
                }
                at = next;
            }
            if self.ready.head != NONE || (level == 0 && start == target) {
                return;
            }
        }
        self.tick = self.tick.max(target);
    }

    /// Level, slot and first tick of the earliest occupied slot. Levels are ordered in time: the lowest one wins.
    fn earliest(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = level as u32 * SLOT_BITS;
        // The digits above this level are those of the present tick.
        let above = self.tick.checked_shr(shift + SLOT_BITS).unwrap_or(0);
        let start = above.checked_shl(shift + SLOT_BITS).unwrap_or(0) | ((slot as u64) << shift);
        Some((level, slot, start))
    }

    fn place(&mut self, index: u32) {
        let tick = self.nodes[index as usize].due >> TICK_BITS;
        if tick < self.tick {
            return self.append_ready(index);
        }
        let differing = tick ^ self.tick;
        let level = if differing == 0 { 0 } else { ((63 - differing.leading_zeros()) / SLOT_BITS) as usize };
        let slot = (tick >> (level as u32 * SLOT_BITS)) as usize & (SLOTS - 1);
        self.occupied[level] |= 1 << slot;
        let node = &mut self.nodes[index as usize];
        (node.level, node.slot) = (level as u8, slot as u8);
        append(&mut self.nodes, &mut self.lists[level][slot], index);
    }

    fn append_ready(&mut self, index: u32) {
        self.nodes[index as usize].level = READY;
        append(&mut self.nodes, &mut self.ready, index);
    }

    fn unlink(&mut self, index: u32) {
        let Node { next, prev, level, slot, .. } = self.nodes[index as usize];
        let list =
            if level == READY { &mut self.ready } else { &mut self.lists[usize::from(level)][usize::from(slot)] };
        match prev {
            NONE => list.head = next,
            p => self.nodes[p as usize].next = next,
        }
        match next {
            NONE => list.tail = prev,
            n => self.nodes[n as usize].prev = prev,
        }
        if level != READY && list.head == NONE {
            self.occupied[usize::from(level)] &= !(1 << slot);
        }
    }

    fn release(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        node.generation = node.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        node.level = FREE;
        node.next = self.free;
        self.free = index;
        self.len -= 1;
    }
}

fn append(nodes: &mut Chunks<Node>, list: &mut List, index: u32) {
    let tail = list.tail;
    nodes[index as usize].next = NONE;
    nodes[index as usize].prev = tail;
    match tail {
        NONE => list.head = index,
        t => nodes[t as usize].next = index,
    }
    list.tail = index;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_node_takes_half_a_cache_line() {
        assert_eq!(size_of::<Node>(), 32);
    }

    #[test]
    fn fires_at_its_exact_due_time_and_not_before() {
        let mut w = Wheel::new();
        w.insert(Mono(1_000_123), 7, 3);
        assert_eq!(w.pop(Mono(1_000_122)), None);
        assert_eq!(w.next_due(), Some(Mono(1_000_123)), "exact once in the lowest level");
        let fired = w.pop(Mono(1_000_123)).unwrap();
        assert_eq!((fired.token, fired.kind, fired.due), (7, 3, Mono(1_000_123)));
        assert!(w.is_empty());
        assert_eq!(w.next_due(), None);
    }

    #[test]
    fn a_stale_id_cancels_nothing() {
        let mut w = Wheel::new();
        let a = w.insert(Mono(10), 1, 0);
        assert!(w.cancel(a));
        let b = w.insert(Mono(20), 2, 0);
        assert!(!w.cancel(a));
        assert!(!w.cancel(TimerId::NONE) && w.due_of(TimerId::NONE).is_none());
        assert!(w.is_running(b));
        assert_eq!(w.pop(Mono(20)).unwrap().token, 2);
        assert!(!w.cancel(b));
    }

    #[test]
    fn a_ready_timer_can_still_be_cancelled() {
        let mut w = Wheel::new();
        w.insert(Mono(10), 1, 0);
        let b = w.insert(Mono(10), 2, 0);
        w.insert(Mono(10), 3, 7);
        assert_eq!(w.ready().count(), 0, "none has been looked for");
        assert_eq!(w.pop(Mono(500)).unwrap().token, 1);
        assert_eq!(w.ready().collect::<Vec<_>>(), [(2, 0), (3, 7)]);
        assert!(w.cancel(b));
        assert_eq!(w.pop(Mono(500)).unwrap().token, 3);
        assert_eq!(w.pop(Mono(500)), None);
    }

    #[test]
    fn the_farthest_time_is_no_special_case() {
        let mut w = Wheel::new();
        w.insert(Mono(u64::MAX), 1, 0);
        assert_eq!(w.pop(Mono(u64::MAX - 1)), None);
        assert_eq!(w.pop(Mono(u64::MAX)).unwrap().token, 1);
    }

    #[test]
    fn working_size_is_reused() {
        let mut w = Wheel::new();
        for round in 0..100u64 {
            for i in 0..50 {
                w.insert(Mono(round * 1000 + i), i, 0);
            }
            while w.pop(Mono(round * 1000 + 999)).is_some() {}
        }
        assert_eq!(w.nodes.len(), 50);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u64),
        Cancel(usize),
        Advance(u64),
        ToNext,
    }

    fn op() -> impl Strategy<Value = Op> {
        let span = prop_oneof![0..200u64, 0..100_000u64, 0..40_000_000u64, 0..1u64 << 45];
        prop_oneof![
            4 => span.clone().prop_map(Op::Insert),
            2 => any::<usize>().prop_map(Op::Cancel),
            2 => span.prop_map(Op::Advance),
            2 => Just(Op::ToNext),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_map(ops in proptest::collection::vec(op(), 1..200)) {
            let mut w = Wheel::new();
            let mut model: BTreeMap<(u64, u64), TimerId> = BTreeMap::new();
            let mut ids = Vec::new();
            let mut now = 0u64;
            for (n, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Insert(after) => {
                        let id = w.insert(Mono(now + after), n as u64, n as u16);
                        model.insert((now + after, n as u64), id);
                        ids.push(((now + after, n as u64), id));
                    }
                    Op::Cancel(i) if !ids.is_empty() => {
                        let (key, id) = ids[i % ids.len()];
                        prop_assert_eq!(w.cancel(id), model.remove(&key).is_some());
                    }
                    Op::Cancel(_) => {}
                    Op::Advance(by) => now += by,
                    Op::ToNext => now = w.next_due().map_or(now, |d| d.0.max(now)),
                }
                let mut last_slot = 0;
                while let Some(fired) = w.pop(Mono(now)) {
                    prop_assert!(fired.due.0 <= now);
                    prop_assert!(fired.due.0 >> TICK_BITS >= last_slot, "slots in order of time");
                    last_slot = fired.due.0 >> TICK_BITS;
                    prop_assert_eq!(model.remove(&(fired.due.0, fired.token)), Some(fired.id));
                }
                let first = model.keys().next().map(|k| k.0);
                prop_assert!(first.is_none_or(|due| due > now), "everything due has fired");
                prop_assert_eq!(w.len(), model.len());
                match (w.next_due(), first) {
                    (Some(next), Some(first)) => {
                        prop_assert!(next.0 <= first && next.0 > now, "{} {} {}", next.0, first, now);
                        if (first >> TICK_BITS >> SLOT_BITS) == (now >> TICK_BITS >> SLOT_BITS) {
                            prop_assert_eq!(next.0, first);
                        }
                    }
                    (next, first) => prop_assert_eq!(next.map(|n| n.0), first),
                }
            }
        }
    }
}
