//! Slots with generations: a key of a removed value never finds the next one.
//!
//! For the journal an arena notes whatever is inserted, handed out for changing, or removed, once a turn: so no change can
//! be forgotten. While no journal is kept, that costs one test.

use strowger_sip::chunks::Chunks;

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
struct Slot<T> {
    generation: u32,
    noted: bool,
    /// Fingerprint of the record last written; 0: none.
    print: u64,
    value: Option<T>,
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot { generation: 0, noted: false, print: 0, value: None }
    }
}

#[derive(Debug)]
pub(crate) struct Arena<T> {
    slots: Chunks<Slot<T>>,
    /// Empty slots, the last left one last.
    free: Vec<u32>,
    /// Generation of the next value to be inserted; one counter for the arena, so that no slot repeats one soon.
    next: u32,
    noting: bool,
    noted: Vec<u32>,
    /// Removed, with a record.
    gone: Vec<Key>,
}

/// Slots that a restored value may lie behind the last one: beyond, it gets another key.
const STRETCH: u32 = 1 << 22;

impl<T> Arena<T> {
    pub fn new() -> Arena<T> {
        Arena {
            slots: Chunks::default(),
            free: Vec::new(),
            next: 1,
            noting: false,
            noted: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// The key that the next `insert` will return.
    pub fn next_key(&self) -> Key {
        let end = || u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        Key { slot: self.free.last().copied().unwrap_or_else(end), generation: self.next }
    }

    pub fn insert(&mut self, value: T) -> Key {
        let key = self.next_key();
        if self.free.pop().is_none() {
            self.slots.push(Slot::default());
        }
        self.next = self.next.wrapping_add(1).max(1);
        self.put(key, value);
        key
    }

    fn put(&mut self, key: Key, value: T) {
        let slot = &mut self.slots[key.slot as usize];
        (slot.generation, slot.print, slot.value) = (key.generation, 0, Some(value));
        self.note(key.slot);
    }

    /// Puts a value of an earlier process where it was, or elsewhere when that is taken. To be followed by
    /// [`Arena::planted`] before anything is inserted.
    pub fn plant(&mut self, key: Key, value: T) -> Key {
        let end = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let vacant = self.slots.get(key.slot as usize).map_or_else(|| key.slot - end < STRETCH, |s| s.value.is_none());
        let key = if vacant { key } else { Key { slot: end, generation: self.next } };
        while self.slots.len() <= key.slot as usize {
            self.slots.push(Slot::default());
        }
        self.next = self.next.max(key.generation).wrapping_add(1).max(1);
        self.put(key, value);
        key
    }

    /// All that was to be planted is.
    pub fn planted(&mut self) {
        self.free.clear();
        let empty = |at: &u32| self.slots[*at as usize].value.is_none();
        self.free.extend((0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)).rev().filter(empty));
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        self.slots.get(key.slot as usize).filter(|s| s.generation == key.generation)?.value.as_ref()
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        if self.noting {
            self.get(key)?;
            self.note(key.slot);
        }
        self.slots.get_mut(key.slot as usize).filter(|s| s.generation == key.generation)?.value.as_mut()
    }

    /// The value in a slot, whatever its generation.
    pub fn at(&self, slot: u32) -> Option<(Key, &T)> {
        let s = self.slots.get(slot as usize)?;
        s.value.as_ref().map(|v| (Key { slot, generation: s.generation }, v))
    }

    /// Slots that the journal will look at.
    pub fn noted(&self) -> impl Iterator<Item = u32> {
        self.noted.iter().copied()
    }

    /// The slot will be looked at soon.
    pub fn soon(&self, slot: u32) {
        self.slots.soon(slot as usize);
    }

    /// As [`Arena::at`], for what the journal has no record of.
    pub fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.value.as_mut()
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.slot as usize).filter(|s| s.generation == key.generation)?;
        let value = slot.value.take()?;
        if std::mem::take(&mut slot.print) != 0 {
            self.gone.push(key);
        }
        self.free.push(key.slot);
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Highest slot ever used, plus one.
    pub fn extent(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Keys of all values.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        (0..self.extent()).filter_map(|slot| self.at(slot).map(|(key, _)| key))
    }

    /// Notes changes from now on, and all that there is.
    pub fn keep_notes(&mut self) {
        self.noting = true;
        (0..self.extent()).for_each(|slot| self.note(slot));
    }

    fn note(&mut self, slot: u32) {
        let s = &mut self.slots[slot as usize];
        if self.noting && !s.noted {
            s.noted = true;
            self.noted.push(slot);
        }
    }

    /// Slots noted since the last time; give the list back by [`Arena::done`].
    pub fn take_noted(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.noted)
    }

    pub fn done(&mut self, mut noted: Vec<u32>) {
        for slot in noted.drain(..) {
            self.slots[slot as usize].noted = false;
        }
        self.noted = noted;
    }

    /// Whether a record of a slot's value has been written.
    pub fn is_written(&self, slot: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(|s| s.print != 0)
    }

    /// Whether the record of a slot's value is another than the last one written, which it then is.
    pub fn differs(&mut self, slot: u32, print: u64) -> bool {
        std::mem::replace(&mut self.slots[slot as usize].print, print) != print
    }

    /// Values that had a record and were removed since the last time.
    pub fn drain_gone(&mut self) -> impl Iterator<Item = Key> + '_ {
        self.gone.drain(..)
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

    #[test]
    fn each_change_is_noted_once_and_a_removal_of_what_was_written() {
        let mut arena = Arena::new();
        let a = arena.insert(1);
        arena.keep_notes();
        arena.get_mut(a);
        let b = arena.insert(2);
        let c = arena.insert(3);
        arena.remove(c);
        let noted = arena.take_noted();
        assert_eq!(noted, [a.slot, b.slot, c.slot]);
        assert!(arena.differs(a.slot, 7) && !arena.differs(a.slot, 7));
        arena.done(noted);
        arena.remove(a);
        arena.remove(b);
        assert_eq!(arena.drain_gone().collect::<Vec<_>>(), [a], "the others have no record");
        assert!(arena.take_noted().is_empty());
    }

    #[test]
    fn values_are_planted_where_they_were_or_elsewhere() {
        let mut arena = Arena::new();
        let key = |slot, generation| Key { slot, generation };
        assert_eq!(arena.plant(key(3, 9), "a"), key(3, 9));
        assert_ne!(arena.plant(key(3, 4), "b").slot, 3);
        assert_ne!(arena.plant(key(u32::MAX, 1), "c").slot, u32::MAX);
        arena.planted();
        assert_eq!((arena.len(), arena.get(key(3, 9))), (3, Some(&"a")));
        let next = arena.insert("d");
        assert!(next.slot == 0 && next.generation > 9, "{next:?}");
    }
}
