//! Where the latest record of each living entity lies.
//!
//! Ids are slots with a generation above them: a table in chunks, so that it grows without copying. CDRs come and go in
//! order of their numbers: a queue.

use std::collections::VecDeque;
use strowger_engine::journal::{Entity, Kind};
use strowger_sip::chunks::Chunks;

/// A record's place: number of its segment (0: nowhere), first byte, size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub segment: u32,
    pub at: u32,
    pub size: u32,
}

/// Of both halves of an entity ([`Kind::half`]).
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    generation: u32,
    halves: [Place; 2],
}

impl Slot {
    fn size(&self) -> u64 {
        self.halves.iter().map(|place| u64::from(place.size)).sum()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Places {
    slots: [Chunks<Slot>; Kind::ALL.len()],
    cdrs: VecDeque<Place>,
    /// Id of the queue's first.
    first_cdr: u64,
    /// Bytes of the records that live.
    live: u64,
}

impl Places {
    /// Bytes that the records of all living entities take.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Where an entity's record lies.
    #[must_use]
    pub fn get(&self, entity: Entity) -> Option<Place> {
        let place = if entity.kind == Kind::Cdr {
            *self.cdrs.get(usize::try_from(entity.id.checked_sub(self.first_cdr)?).ok()?)?
        } else {
            let (kind, half) = entity.kind.half();
            let (at, generation) = split(entity.id);
            let slot = self.slots[kind as usize].get(at)?;
            (slot.generation == generation).then_some(slot.halves[half])?
        };
        (place.segment != 0).then_some(place)
    }

    /// The entity's place will be looked at soon.
    #[inline]
    pub fn soon(&self, entity: Entity) {
        self.slots[entity.kind.half().0 as usize].soon(split(entity.id).0);
    }

    /// The entity's record lies there now.
    pub fn set(&mut self, entity: Entity, place: Place) {
        let kept = if entity.kind == Kind::Cdr {
            let Some(kept) = self.cdr(entity.id) else { return };
            kept
        } else {
            let (kind, half) = entity.kind.half();
            let (at, generation) = split(entity.id);
            let slots = &mut self.slots[kind as usize];
            while slots.len() <= at {
                slots.push(Slot::default());
            }
            let slot = &mut slots[at];
            if slot.generation != generation {
                self.live -= slot.size();
                *slot = Slot { generation, ..Slot::default() };
            }
            &mut slot.halves[half]
        };
        let before = std::mem::replace(kept, place).size;
        self.live = self.live + u64::from(place.size) - u64::from(before);
    }

    /// The entity has no record any more, nor has its other half, if it is the one that goes for both.
    pub fn remove(&mut self, entity: Entity) {
        if entity.kind == Kind::Cdr {
            let at = entity.id.checked_sub(self.first_cdr).and_then(|at| usize::try_from(at).ok());
            if let Some(kept) = at.and_then(|at| self.cdrs.get_mut(at)) {
                self.live -= u64::from(std::mem::take(kept).size);
            }
            return self.trim();
        }
        let (kind, half) = entity.kind.half();
        let (at, generation) = split(entity.id);
        let slot = self.slots[kind as usize].get_mut(at);
        if let Some(slot) = slot.filter(|slot| slot.generation == generation) {
            for place in &mut slot.halves[half..] {
                self.live -= u64::from(std::mem::take(place).size);
            }
        }
    }

    /// CDRs up to that one are not needed any more. True when there was one.
    pub fn drop_cdrs(&mut self, up_to: u64) -> bool {
        let mut any = false;
        while self.first_cdr <= up_to
            && let Some(place) = self.cdrs.pop_front()
        {
            self.live -= u64::from(place.size);
            self.first_cdr += 1;
            any = true;
        }
        self.trim();
        any
    }

    /// The place of a CDR that is to be there.
    fn cdr(&mut self, id: u64) -> Option<&mut Place> {
        if self.cdrs.is_empty() {
            self.first_cdr = id;
        }
        let at = usize::try_from(id.checked_sub(self.first_cdr)?).ok()?;
        if at >= self.cdrs.len() {
            self.cdrs.resize(at + 1, Place::default());
        }
        self.cdrs.get_mut(at)
    }

    /// Lets go of places at the queue's head whose records are gone.
    fn trim(&mut self) {
        while self.cdrs.front().is_some_and(|p| p.segment == 0) {
            self.cdrs.pop_front();
            self.first_cdr += 1;
        }
    }
}

/// Slot, generation.
fn split(id: u64) -> (usize, u32) {
    ((id & 0xffff_ffff) as usize, (id >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn place(segment: u32, size: u32) -> Place {
        Place { segment, at: 0, size }
    }

    #[test]
    fn a_slots_next_generation_takes_its_place_and_the_last_ones_removal_does_not_touch_it() {
        let (mut places, id) = (Places::default(), |generation: u64| generation << 32 | 5000);
        let call = |generation| Entity { kind: Kind::Call, id: id(generation) };
        places.set(call(1), place(1, 100));
        places.set(call(2), place(1, 50));
        assert_eq!((places.get(call(1)), places.get(call(2)), places.live()), (None, Some(place(1, 50)), 50));
        places.remove(call(1));
        assert_eq!((places.get(call(2)), places.live()), (Some(place(1, 50)), 50));
        places.remove(call(2));
        assert_eq!((places.get(call(2)), places.live()), (None, 0));
        places.remove(Entity { kind: Kind::Leg, id: 1 << 20 });
        assert!(places.slots[Kind::Leg as usize].is_empty(), "a removal makes no room");
    }

    #[test]
    fn both_halves_of_an_entity_go_together_and_with_their_slot() {
        let of = |kind, generation: u64| Entity { kind, id: generation << 32 | 7 };
        let mut places = Places::default();
        places.set(of(Kind::Leg, 1), place(1, 10));
        places.set(of(Kind::Dialog, 1), place(1, 20));
        assert_eq!((places.get(of(Kind::Dialog, 1)), places.live()), (Some(place(1, 20)), 30));
        places.remove(of(Kind::Dialog, 1));
        assert_eq!((places.get(of(Kind::Leg, 1)), places.live()), (Some(place(1, 10)), 10));
        places.set(of(Kind::Dialog, 1), place(1, 20));
        places.set(of(Kind::Leg, 2), place(1, 10));
        assert_eq!((places.get(of(Kind::Dialog, 2)), places.live()), (None, 10), "it was the slot's user's before");
        places.set(of(Kind::Dialog, 2), place(1, 20));
        places.remove(of(Kind::Leg, 2));
        assert_eq!((places.get(of(Kind::Dialog, 2)), places.live()), (None, 0));
    }

    #[test]
    fn cdrs_leave_in_order_up_to_a_number_and_start_anywhere() {
        let (mut places, cdr) = (Places::default(), |id| Entity { kind: Kind::Cdr, id });
        (10..15).for_each(|id| places.set(cdr(id), place(1, 10)));
        assert!(places.drop_cdrs(11) && !places.drop_cdrs(11));
        assert_eq!((places.get(cdr(11)), places.get(cdr(12)), places.live()), (None, Some(place(1, 10)), 30));
        places.remove(cdr(12));
        assert!(places.drop_cdrs(100));
        assert_eq!((places.live(), places.cdrs.len()), (0, 0));
        places.set(cdr(1 << 40), place(2, 10));
        assert_eq!(places.live(), 10);
    }
}
