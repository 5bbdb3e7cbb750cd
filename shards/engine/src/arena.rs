//! Slots with generations: a key of a removed value never finds the next one.

use slab::Slab;

/// Where a value lives; stale after its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub slot: u32,
    pub generation: u32,
}

impl Key {
    /// As one word, for tokens of timers and transactions.
    pub const fn to_u64(self) -> u64 {
        ((self.generation as u64) << 32) | self.slot as u64
    }

    pub const fn from_u64(word: u64) -> Key {
        Key { slot: word as u32, generation: (word >> 32) as u32 }
    }
}

#[derive(Debug)]
pub(crate) struct Arena<T> {
    slots: Slab<(u32, T)>,
    /// Generation of the next value to be inserted; one counter for the arena, so that no slot repeats one soon.
    next: u32,
}

impl<T> Arena<T> {
    pub fn new() -> Arena<T> {
        Arena { slots: Slab::new(), next: 1 }
    }

    /// The key that the next `insert` will return.
    pub fn next_key(&self) -> Key {
        Key { slot: u32::try_from(self.slots.vacant_key()).unwrap_or(u32::MAX), generation: self.next }
    }

    pub fn insert(&mut self, value: T) -> Key {
        let key = self.next_key();
        self.slots.insert((key.generation, value));
        self.next = self.next.wrapping_add(1).max(1);
        key
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        self.slots.get(key.slot as usize).filter(|(g, _)| *g == key.generation).map(|(_, v)| v)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slots.get_mut(key.slot as usize).filter(|(g, _)| *g == key.generation).map(|(_, v)| v)
    }

    /// The value in a slot, whatever its generation.
    pub fn at(&self, slot: u32) -> Option<(Key, &T)> {
        self.slots.get(slot as usize).map(|(g, v)| (Key { slot, generation: *g }, v))
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        Some(self.slots.remove(key.slot as usize).1)
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Highest slot ever used, plus one.
    pub fn extent(&self) -> u32 {
        u32::try_from(self.slots.capacity()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut arena = Arena::new();
        let a = arena.insert("a");
        assert_eq!(Key::from_u64(a.to_u64()), a);
        assert_eq!(arena.remove(a), Some("a"));
        let b = arena.insert("b");
        assert_eq!(b.slot, a.slot);
        assert_eq!((arena.get(a), arena.get(b)), (None, Some(&"b")));
        assert!(arena.remove(a).is_none() && arena.len() == 1);
    }
}
