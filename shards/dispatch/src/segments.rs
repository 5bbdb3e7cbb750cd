//! Tables that grow by segments as they are used: nothing moves, so a reference stays good while the table lives.
//!
//! `get` is wait-free. The publication is one compare-and-swap per segment, so it is left out of the models (std atomics). A segment is allocated by whoever first needs it; of two that do so at once one throws its own away.

use crate::sync::plain::{AtomicPtr, Ordering};

/// Slots of a segment: small enough that a new one costs microseconds.
#[cfg(not(any(loom, shuttle)))]
pub(crate) const SEGMENT: usize = 256;
#[cfg(any(loom, shuttle))]
pub(crate) const SEGMENT: usize = 2;

pub(crate) struct Segments<T> {
    segments: Box<[AtomicPtr<T>]>,
    limit: u32,
}

// SAFETY: the table owns its `T`s and hands out shared references only.
unsafe impl<T: Send + Sync> Sync for Segments<T> {}
// SAFETY: as above; the raw pointers are owned.
unsafe impl<T: Send + Sync> Send for Segments<T> {}

impl<T: Default> Segments<T> {
    pub(crate) fn new(limit: u32) -> Self {
        let count = (limit as usize).div_ceil(SEGMENT);
        Self { segments: (0..count).map(|_| AtomicPtr::new(std::ptr::null_mut())).collect(), limit }
    }

    /// Slots that there may be at most.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// The slot, if its segment was ever needed.
    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        if index >= self.limit {
            return None;
        }
        let segment = self.segments[index as usize / SEGMENT].load(Ordering::Acquire);
        // SAFETY: a segment that is not null is a boxed slice of SEGMENT initialised slots, published by Release and freed
        // only by Drop, which has the table to itself.
        (!segment.is_null()).then(|| unsafe { &*segment.add(index as usize % SEGMENT) })
    }

    /// The slot, its segment made if need be; `None` beyond the limit.
    pub(crate) fn get_or_grow(&self, index: u32) -> Option<&T> {
        if index >= self.limit {
            return None;
        }
        let place = &self.segments[index as usize / SEGMENT];
        if place.load(Ordering::Acquire).is_null() {
            let fresh: Box<[T]> = (0..SEGMENT).map(|_| T::default()).collect();
            let fresh = Box::into_raw(fresh).cast::<T>();
            if place.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: made above, never published.
                drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(fresh, SEGMENT)) });
            }
        }
        self.get(index)
    }

    /// All slots of the segments made so far, with their index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..self.limit).step_by(SEGMENT).filter(|&base| self.get(base).is_some()).flat_map(move |base| {
            (base..self.limit.min(base.saturating_add(SEGMENT as u32))).filter_map(move |i| Some((i, self.get(i)?)))
        })
    }
}

impl<T> Drop for Segments<T> {
    fn drop(&mut self) {
        for segment in &self.segments {
            let segment = segment.load(Ordering::Acquire);
            if !segment.is_null() {
                // SAFETY: made in `get_or_grow` from a boxed slice of SEGMENT slots; `&mut self` has the table to itself.
                drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(segment, SEGMENT)) });
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn grows_by_segments_and_stops_at_the_limit() {
        let table: Segments<u64> = Segments::new(SEGMENT as u32 + 3);
        assert!(table.get(0).is_none());
        let first = std::ptr::from_ref(table.get_or_grow(1).unwrap());
        assert!(table.get_or_grow(SEGMENT as u32 + 2).is_some());
        assert!(table.get_or_grow(SEGMENT as u32 + 3).is_none());
        assert_eq!(first, std::ptr::from_ref(table.get(1).unwrap()));
        assert_eq!(table.iter().count(), SEGMENT + 3);
    }
}
