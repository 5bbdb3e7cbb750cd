//! Tables that grow without moving what they hold. A vector or a map that doubles copies all that is in it at once: with hundreds
//! of thousands of transactions, every call of the shard waits for that, for tens of milliseconds.
//!
//! Invariants
//! - Growth takes the time of one chunk, or of one part, whatever the table holds.
//! - A removed entry's slot is the next to be used: slots stay as few as there ever were entries at once.

use crate::hash::{HashedMap, Identity};
use std::ops::{Index, IndexMut};

/// Elements of a chunk.
const CHUNK: usize = 256;
/// Parts of a map.
const PARTS: usize = 256;

/// A vector in chunks. Those are filled with what is of no use when they are made: an index needs one look at how many there are.
#[derive(Debug)]
pub struct Chunks<T> {
    chunks: Vec<Box<[T; CHUNK]>>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Chunks<T> {
        Chunks { chunks: Vec::new(), len: 0 }
    }
}

impl<T: Default> Chunks<T> {
    pub fn push(&mut self, value: T) {
        if self.len == self.chunks.len() * CHUNK {
            let chunk: Vec<T> = std::iter::repeat_with(T::default).take(CHUNK).collect();
            let Ok(chunk) = Box::try_from(chunk) else { unreachable!("it has as many as it takes") };
            self.chunks.push(chunk);
        }
        let at = self.len;
        self.len += 1;
        self[at] = value;
    }
}

impl<T> Chunks<T> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        if at < self.len { self.chunks.get(at / CHUNK).map(|chunk| &chunk[at % CHUNK]) } else { None }
    }

    #[inline]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        if at < self.len { self.chunks.get_mut(at / CHUNK).map(|chunk| &mut chunk[at % CHUNK]) } else { None }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| &**chunk).take(self.len)
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;
    #[inline]
    fn index(&self, at: usize) -> &T {
        debug_assert!(at < self.len);
        &self.chunks[at / CHUNK][at % CHUNK]
    }
}

impl<T> IndexMut<usize> for Chunks<T> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        debug_assert!(at < self.len);
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }
}

#[derive(Debug)]
enum Entry<T> {
    /// The slot that was left before; how many there are, if there is none.
    Vacant(usize),
    Occupied(T),
}

impl<T> Default for Entry<T> {
    fn default() -> Entry<T> {
        Entry::Vacant(0)
    }
}

/// Values in slots that stay theirs.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Chunks<Entry<T>>,
    len: usize,
    /// The slot of the next value.
    next: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { entries: Chunks::default(), len: 0, next: 0 }
    }
}

impl<T> Slab<T> {
    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The highest slot ever used, plus one.
    #[must_use]
    pub fn extent(&self) -> usize {
        self.entries.len()
    }

    /// The slot that the next value will have.
    #[must_use]
    pub fn vacant_key(&self) -> usize {
        self.next
    }

    /// Where the value is now.
    pub fn insert(&mut self, value: T) -> usize {
        let slot = self.next;
        match self.entries.get_mut(slot) {
            Some(entry) => {
                if let Entry::Vacant(next) = std::mem::replace(entry, Entry::Occupied(value)) {
                    self.next = next;
                }
            }
            None => {
                self.entries.push(Entry::Occupied(value));
                self.next = self.entries.len();
            }
        }
        self.len += 1;
        slot
    }

    #[must_use]
    #[inline]
    pub fn get(&self, slot: usize) -> Option<&T> {
        match self.entries.get(slot) {
            Some(Entry::Occupied(value)) => Some(value),
            _ => None,
        }
    }

    #[inline]
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        match self.entries.get_mut(slot) {
            Some(Entry::Occupied(value)) => Some(value),
            _ => None,
        }
    }

    /// Takes the value out, if there is one.
    pub fn remove(&mut self, slot: usize) -> Option<T> {
        let entry = self.entries.get_mut(slot).filter(|entry| matches!(entry, Entry::Occupied(_)))?;
        let Entry::Occupied(value) = std::mem::replace(entry, Entry::Vacant(self.next)) else { return None };
        self.next = slot;
        self.len -= 1;
        Some(value)
    }

    /// Slots and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.entries.iter().enumerate().filter_map(|(slot, entry)| match entry {
            Entry::Occupied(value) => Some((slot, value)),
            Entry::Vacant(_) => None,
        })
    }
}

impl<T> Index<usize> for Slab<T> {
    type Output = T;
    #[inline]
    fn index(&self, slot: usize) -> &T {
        match &self.entries[slot] {
            Entry::Occupied(value) => value,
            Entry::Vacant(_) => panic!("slot {slot} is empty"),
        }
    }
}

impl<T> IndexMut<usize> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, slot: usize) -> &mut T {
        match &mut self.entries[slot] {
            Entry::Occupied(value) => value,
            Entry::Vacant(_) => panic!("slot {slot} is empty"),
        }
    }
}

/// A map keyed by hashes, in parts that grow one by one.
#[derive(Debug)]
pub struct PartedMap<V> {
    parts: Box<[HashedMap<V>]>,
    len: usize,
}

impl<V> Default for PartedMap<V> {
    fn default() -> PartedMap<V> {
        // Some room from the beginning on: else a quiet shard would go on allocating for hundreds of calls.
        let part = || HashedMap::with_capacity_and_hasher(3, Identity);
        PartedMap { parts: (0..PARTS).map(|_| part()).collect(), len: 0 }
    }
}

/// By bits that the parts themselves make no use of: those look at the lowest and the highest.
const fn part(key: u64) -> usize {
    (key >> 48) as usize % PARTS
}

impl<V> PartedMap<V> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn get(&self, key: u64) -> Option<&V> {
        self.parts[part(key)].get(&key)
    }

    pub fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        self.parts[part(key)].get_mut(&key)
    }

    /// What the key had before.
    pub fn insert(&mut self, key: u64, value: V) -> Option<V> {
        let before = self.parts[part(key)].insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    /// If the key has nothing yet.
    pub fn insert_new(&mut self, key: u64, value: V) {
        let map = &mut self.parts[part(key)];
        let before = map.len();
        map.entry(key).or_insert(value);
        self.len += map.len() - before;
    }

    pub fn remove(&mut self, key: u64) -> Option<V> {
        let value = self.parts[part(key)].remove(&key);
        self.len -= usize::from(value.is_some());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn what_is_there_stays_where_it_is_when_the_table_grows() {
        let mut chunks = Chunks::default();
        (0..CHUNK).for_each(|n| chunks.push(n));
        let first = &raw const chunks[0];
        (CHUNK..5 * CHUNK + 3).for_each(|n| chunks.push(n));
        assert!(std::ptr::eq(first, &raw const chunks[0]));
        assert_eq!((chunks.len(), chunks[4 * CHUNK], chunks.get(5 * CHUNK + 3)), (5 * CHUNK + 3, 4 * CHUNK, None));
        assert!(chunks.iter().copied().eq(0..5 * CHUNK + 3));
        chunks[CHUNK] = 7;
        assert_eq!(chunks.get_mut(CHUNK), Some(&mut 7));
    }

    proptest! {
        #[test]
        fn a_slab_does_as_a_map_of_slots(steps in prop::collection::vec((any::<bool>(), 0..40_usize), 1..200)) {
            let (mut slab, mut model) = (Slab::default(), HashMap::new());
            let mut left: Vec<usize> = vec![];
            for (n, (insert, at)) in steps.into_iter().enumerate() {
                if insert {
                    let slot = left.pop().unwrap_or(model.len());
                    prop_assert_eq!((slab.vacant_key(), slab.insert(n)), (slot, slot));
                    model.insert(slot, n);
                } else {
                    let gone = model.remove(&at);
                    prop_assert_eq!(slab.remove(at), gone);
                    left.extend(gone.map(|_| at));
                }
                prop_assert_eq!((slab.len(), slab.get(at)), (model.len(), model.get(&at)));
                prop_assert_eq!(slab.extent(), model.len() + left.len());
            }
            let mut all: Vec<(usize, usize)> = model.into_iter().collect();
            all.sort_unstable();
            prop_assert!(slab.iter().map(|(slot, n)| (slot, *n)).eq(all));
        }

        #[test]
        fn a_map_in_parts_does_as_a_map(steps in prop::collection::vec((0..4_u8, 0..9_u64, 0..9_u64), 1..200)) {
            let (mut map, mut model) = (PartedMap::default(), HashMap::new());
            for (step, part, low) in steps {
                let key = part << 48 | low;
                match step {
                    0 => prop_assert_eq!(map.insert(key, low), model.insert(key, low)),
                    1 => {
                        map.insert_new(key, 100);
                        model.entry(key).or_insert(100);
                    }
                    2 => prop_assert_eq!(map.remove(key), model.remove(&key)),
                    _ => prop_assert_eq!(map.get_mut(key), model.get_mut(&key)),
                }
                prop_assert_eq!((map.len(), map.is_empty(), map.get(key)), (model.len(), model.is_empty(), model.get(&key)));
            }
        }
    }
}
