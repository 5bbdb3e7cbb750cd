//! Tables that grow without moving what they hold. A vector or a map that doubles copies all that is in it at once: with hundreds
//! of thousands of transactions, every call of the shard waits for that, for tens of milliseconds.
//!
//! Invariants
//! - Growth takes the time of one chunk, or of one part, whatever the table holds.
//! - Slots are used again: chunks stay as few as are filled by all entries that there ever were at once.

use crate::ahead::fetch;
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

    /// The element will be looked at soon.
    #[inline]
    pub fn soon(&self, at: usize) {
        self.get(at).into_iter().for_each(fetch);
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

/// No chunk, no entry.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Entry<T> {
    /// The next vacant one of the chunk.
    Vacant(u32),
    Occupied(T),
}

/// Of a slab; those that have vacant entries are in a list.
#[derive(Debug)]
struct Chunk<T> {
    /// Empty: it has given its memory back.
    entries: Box<[Entry<T>]>,
    used: usize,
    vacant: u32,
    before: u32,
    after: u32,
}

/// Values in slots that stay theirs. A chunk of which none is left gives its memory back.
#[derive(Debug)]
pub struct Slab<T, const N: usize = CHUNK> {
    chunks: Vec<Chunk<T>>,
    len: usize,
    extent: usize,
    /// Chunks with vacant entries: new values go to the first, where the last value left that had been in a full one. So the
    /// others get empty. One that is wholly empty is the last.
    first: u32,
    last: u32,
    /// Chunks that have given their memory back.
    gone: Vec<u32>,
}

impl<T, const N: usize> Default for Slab<T, N> {
    fn default() -> Slab<T, N> {
        Slab { chunks: Vec::new(), len: 0, extent: 0, first: NONE, last: NONE, gone: Vec::new() }
    }
}

impl<T, const N: usize> Slab<T, N> {
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
        self.extent
    }

    /// The slot that the next value will have.
    #[must_use]
    pub fn vacant_key(&self) -> usize {
        match self.chunks.get(self.first as usize) {
            Some(chunk) => self.first as usize * N + chunk.vacant as usize,
            None => self.gone.last().map_or(self.chunks.len(), |chunk| *chunk as usize) * N,
        }
    }

    /// Where the value is now.
    pub fn insert(&mut self, value: T) -> usize {
        if self.first == NONE {
            self.grow();
        }
        let at = self.first;
        let chunk = &mut self.chunks[at as usize];
        let vacant = chunk.vacant;
        let entry = &mut chunk.entries[vacant as usize];
        if let Entry::Vacant(next) = std::mem::replace(entry, Entry::Occupied(value)) {
            chunk.vacant = next;
        }
        chunk.used += 1;
        if chunk.vacant == NONE {
            self.unlink(at);
        }
        self.len += 1;
        let slot = at as usize * N + vacant as usize;
        self.extent = self.extent.max(slot + 1);
        slot
    }

    /// One chunk more that is empty.
    fn grow(&mut self) {
        let vacant = (1..=N).map(|next| Entry::Vacant(if next < N { next as u32 } else { NONE }));
        let chunk = Chunk { entries: vacant.collect(), used: 0, vacant: 0, before: NONE, after: NONE };
        let at = self.gone.pop().unwrap_or(self.chunks.len() as u32);
        match self.chunks.get_mut(at as usize) {
            Some(gone) => *gone = chunk,
            None => self.chunks.push(chunk),
        }
        self.link_first(at);
    }

    #[must_use]
    #[inline]
    pub fn get(&self, slot: usize) -> Option<&T> {
        match self.chunks.get(slot / N)?.entries.get(slot % N) {
            Some(Entry::Occupied(value)) => Some(value),
            _ => None,
        }
    }

    #[inline]
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        match self.chunks.get_mut(slot / N)?.entries.get_mut(slot % N) {
            Some(Entry::Occupied(value)) => Some(value),
            _ => None,
        }
    }

    /// The slot will be looked at soon.
    #[inline]
    pub fn soon(&self, slot: usize) {
        self.chunks.get(slot / N).and_then(|chunk| chunk.entries.get(slot % N)).into_iter().for_each(fetch);
    }

    /// Takes the value out, if there is one.
    pub fn remove(&mut self, slot: usize) -> Option<T> {
        let at = u32::try_from(slot / N).ok()?;
        let chunk = self.chunks.get_mut(slot / N)?;
        let entry = chunk.entries.get_mut(slot % N).filter(|entry| matches!(entry, Entry::Occupied(_)))?;
        let Entry::Occupied(value) = std::mem::replace(entry, Entry::Vacant(chunk.vacant)) else { return None };
        let was_full = chunk.vacant == NONE;
        chunk.vacant = (slot % N) as u32;
        chunk.used -= 1;
        let is_empty = chunk.used == 0;
        self.len -= 1;
        if was_full {
            self.link_first(at);
        }
        if is_empty {
            self.leave(at);
        }
        Some(value)
    }

    /// The chunk has got empty: it is the last to be filled again, and gives its memory back if there is another one like that.
    fn leave(&mut self, at: u32) {
        let last = self.last;
        if last == at {
            return;
        }
        self.unlink(at);
        if self.chunks[last as usize].used == 0 {
            self.chunks[at as usize].entries = Box::default();
            self.gone.push(at);
        } else {
            self.chunks[last as usize].after = at;
            (self.chunks[at as usize].before, self.chunks[at as usize].after) = (last, NONE);
            self.last = at;
        }
    }

    fn link_first(&mut self, at: u32) {
        let after = std::mem::replace(&mut self.first, at);
        (self.chunks[at as usize].before, self.chunks[at as usize].after) = (NONE, after);
        match self.chunks.get_mut(after as usize) {
            Some(chunk) => chunk.before = at,
            None => self.last = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Chunk { before, after, .. } = self.chunks[at as usize];
        match self.chunks.get_mut(before as usize) {
            Some(chunk) => chunk.after = after,
            None => self.first = after,
        }
        match self.chunks.get_mut(after as usize) {
            Some(chunk) => chunk.before = before,
            None => self.last = before,
        }
    }

    /// Slots and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.chunks.iter().enumerate().flat_map(|(at, chunk)| {
            chunk.entries.iter().enumerate().filter_map(move |(n, entry)| match entry {
                Entry::Vacant(_) => None,
                Entry::Occupied(value) => Some((at * N + n, value)),
            })
        })
    }
}

impl<T, const N: usize> Index<usize> for Slab<T, N> {
    type Output = T;
    #[inline]
    fn index(&self, slot: usize) -> &T {
        match &self.chunks[slot / N].entries[slot % N] {
            Entry::Occupied(value) => value,
            Entry::Vacant(_) => panic!("slot {slot} is empty"),
        }
    }
}

impl<T, const N: usize> IndexMut<usize> for Slab<T, N> {
    #[inline]
    fn index_mut(&mut self, slot: usize) -> &mut T {
        match &mut self.chunks[slot / N].entries[slot % N] {
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

    #[test]
    fn a_slab_gives_back_what_a_burst_took_even_if_something_is_left_and_more_comes() {
        let held = |slab: &Slab<usize, 4>| slab.chunks.iter().filter(|chunk| !chunk.entries.is_empty()).count();
        let mut slab = Slab::<usize, 4>::default();
        let burst: Vec<usize> = (0..400).map(|n| slab.insert(n)).collect();
        assert_eq!((held(&slab), slab.extent()), (100, 400));
        // As a few come all the time, the others end, the oldest first.
        let mut few = std::collections::VecDeque::new();
        for slot in burst {
            few.push_back(slab.insert(0));
            if few.len() > 4 {
                slab.remove(few.pop_front().unwrap());
            }
            slab.remove(slot);
        }
        assert!(held(&slab) <= 5, "{}", held(&slab));
        few.into_iter().for_each(|slot| _ = slab.remove(slot));
        assert_eq!((held(&slab), slab.len()), (1, 0));
        (0..400).for_each(|n| _ = slab.insert(n));
        assert!(slab.extent() <= 404, "slots are used again");
    }

    proptest! {
        #[test]
        fn a_slab_does_as_a_map_of_slots(steps in prop::collection::vec((any::<bool>(), 0..40_usize), 1..200)) {
            let (mut slab, mut model) = (Slab::<usize, 4>::default(), HashMap::new());
            let (mut most, mut extent) = (0, 0);
            for (n, (insert, at)) in steps.into_iter().enumerate() {
                if insert {
                    let slot = slab.vacant_key();
                    prop_assert_eq!(slab.insert(n), slot);
                    prop_assert_eq!(model.insert(slot, n), None);
                    (most, extent) = (most.max(model.len()), extent.max(slot + 1));
                } else {
                    prop_assert_eq!(slab.remove(at), model.remove(&at));
                }
                prop_assert_eq!((slab.len(), slab.is_empty(), slab.get(at)), (model.len(), model.is_empty(), model.get(&at)));
                prop_assert_eq!((slab.extent(), slab.get_mut(at).copied()), (extent, model.get(&at).copied()));
                // Of those that are empty one is kept, and no more are made than there were values at once.
                let held: Vec<_> = slab.chunks.iter().filter(|chunk| !chunk.entries.is_empty()).collect();
                prop_assert!(held.iter().filter(|chunk| chunk.used == 0).count() <= 1);
                prop_assert!(slab.chunks.len() <= most.div_ceil(4));
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
