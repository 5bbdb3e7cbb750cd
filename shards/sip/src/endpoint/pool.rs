//! Message buffers: counted references, recycled by size, so that a transaction keeps what it sent without a copy.
//!
//! Invariants:
//! - A buffer is as large as its content rounded up to a size class; its content never changes.
//! - In steady state nothing allocates: a released buffer waits in its class's list. What a class keeps is bounded, so
//!   that memory after a burst goes back.
//! - [`Pool::outstanding`] is 0 when nobody holds a buffer.

use crate::chunks::Chunks;

/// Classes: 64 bytes, then four steps to each doubling, as allocators have them, up to 64 KiB, the longest message.
const CLASSES: usize = 1 + 4 * 10;
/// Bytes of the smallest class.
const LEAST: usize = 64;
/// Bytes that a class keeps for reuse.
const KEPT: usize = 1 << 19;

/// No slot.
const NONE: u32 = u32::MAX;

/// Names a buffer. The holder owes one [`Pool::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BufId(u32);

impl BufId {
    /// No buffer: empty, and free to release.
    pub(crate) const NONE: BufId = BufId(NONE);
}

#[derive(Debug, Default)]
struct Slot {
    data: Box<[u8]>,
    /// Of a free slot: the one that was left before.
    len: u32,
    /// 0: the slot is free.
    refs: u32,
}

#[derive(Debug)]
pub(crate) struct Pool {
    slots: Chunks<Slot>,
    /// The slot left last, if any.
    free: u32,
    /// Slots in use.
    held: usize,
    spare: [Vec<Box<[u8]>>; CLASSES],
}

impl Default for Pool {
    fn default() -> Pool {
        Pool { slots: Chunks::default(), free: NONE, held: 0, spare: std::array::from_fn(|_| Vec::new()) }
    }
}

/// The least class that holds so many bytes.
fn class_of(len: usize) -> Option<usize> {
    if len <= LEAST {
        return Some(0);
    }
    let last = len - 1;
    let doubling = last.ilog2();
    let class = (doubling - LEAST.ilog2()) as usize * 4 + (last >> (doubling - 2) & 3) + 1;
    (class < CLASSES).then_some(class)
}

/// Bytes of a class.
const fn size_of_class(class: usize) -> usize {
    match class {
        0 => LEAST,
        _ => ((LEAST / 4) << ((class - 1) / 4)) * (5 + (class - 1) % 4),
    }
}

impl Pool {
    /// Buffers that somebody holds.
    pub(crate) fn outstanding(&self) -> usize {
        self.held
    }

    /// A buffer with `content`, held once.
    pub(crate) fn store(&mut self, content: &[u8]) -> BufId {
        let mut data = match class_of(content.len()) {
            Some(class) => self.spare[class].pop().unwrap_or_else(|| vec![0; size_of_class(class)].into_boxed_slice()),
            None => vec![0; content.len()].into_boxed_slice(),
        };
        data[..content.len()].copy_from_slice(content);
        let slot = Slot { data, len: content.len() as u32, refs: 1 };
        self.held += 1;
        if let Some(free) = self.slots.get_mut(self.free as usize) {
            let index = std::mem::replace(&mut self.free, free.len);
            *free = slot;
            return BufId(index);
        }
        self.slots.push(slot);
        BufId(self.slots.len() as u32 - 1)
    }

    /// The buffer will be looked at soon.
    pub(crate) fn soon(&self, id: BufId) {
        self.slots.soon(id.0 as usize);
    }

    pub(crate) fn get(&self, id: BufId) -> &[u8] {
        self.slots.get(id.0 as usize).filter(|s| s.refs > 0).map_or(&[], |s| &s.data[..s.len as usize])
    }

    /// One holder more.
    pub(crate) fn retain(&mut self, id: BufId) -> BufId {
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            slot.refs += 1;
        }
        id
    }

    /// One holder less.
    pub(crate) fn release(&mut self, id: BufId) {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else { return };
        debug_assert!(slot.refs > 0, "a buffer released twice");
        let Some(refs) = slot.refs.checked_sub(1) else { return };
        slot.refs = refs;
        if refs > 0 {
            return;
        }
        let data = std::mem::take(&mut slot.data);
        slot.len = std::mem::replace(&mut self.free, id.0);
        self.held -= 1;
        if let Some(class) = class_of(data.len()).filter(|c| size_of_class(*c) == data.len())
            && (self.spare[class].len() + 1) * data.len() <= KEPT
        {
            self.spare[class].push(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_lives_until_its_last_holder_lets_go() {
        let mut pool = Pool::default();
        let a = pool.store(b"hello");
        pool.retain(a);
        pool.release(a);
        assert_eq!(pool.get(a), b"hello");
        pool.release(a);
        assert_eq!(pool.outstanding(), 0);
        assert_eq!(pool.get(BufId::NONE), b"");
        pool.release(BufId::NONE);
    }

    #[test]
    fn buffers_are_recycled_by_class() {
        let mut pool = Pool::default();
        let a = pool.store(&[1; 100]);
        let data = pool.slots[0].data.as_ptr();
        pool.release(a);
        let b = pool.store(&[2; 112]);
        assert_eq!(pool.slots[0].data.as_ptr(), data);
        assert_eq!(pool.get(b), [2; 112]);
        assert_eq!(pool.slots.len(), 1);
    }

    #[test]
    fn a_class_is_the_least_that_holds_a_message_and_wastes_no_more_than_a_fifth() {
        let sizes: Vec<usize> = (0..CLASSES).map(size_of_class).collect();
        assert_eq!((&sizes[..6], sizes[CLASSES - 1]), (&[64, 80, 96, 112, 128, 160][..], 65536));
        for len in 0..=65536 {
            let least = sizes.iter().position(|size| *size >= len);
            assert_eq!(class_of(len), least, "{len}");
            assert!(
                len <= LEAST || (size_of_class(least.unwrap()) - len) * 5 <= size_of_class(least.unwrap()),
                "{len}"
            );
        }
        assert_eq!(class_of(65537), None);
    }

    #[test]
    fn a_burst_gives_its_memory_back() {
        let mut pool = Pool::default();
        let held: Vec<BufId> = (0..100).map(|_| pool.store(&[0; 60_000])).collect();
        held.into_iter().for_each(|b| pool.release(b));
        assert!((1..=KEPT / 65536).contains(&pool.spare[CLASSES - 1].len()));
        let odd = pool.store(&vec![7; 70_000]);
        assert_eq!(pool.get(odd).len(), 70_000);
        pool.release(odd);
        assert_eq!(pool.outstanding(), 0);
    }
}
