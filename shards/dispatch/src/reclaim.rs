//! Epoch reclamation: a collector of our own per `Dispatch`, and a count of what still waits to be freed.
//!
//! Who may touch what: a `Local` belongs to one handle; `pending` is written by any thread that retires or frees, and decides
//! nothing. An object is retired once, after it can no longer be reached from the shared structures.

use std::cell::Cell;

use crossbeam_epoch::{Collector, Guard, LocalHandle};
use crossbeam_utils::CachePadded;

use crate::sync::plain::{AtomicUsize, Relaxed};

/// Objects of a bag of `crossbeam_epoch`.
const BAG: u32 = 64;

/// The collector and one garbage counter per handle (its own cache line: retiring is the hot path).
pub(crate) struct Reclaim {
    collector: Collector,
    pending: Box<[CachePadded<AtomicUsize>]>,
}

impl Reclaim {
    pub(crate) fn new(handles: usize) -> Self {
        Self { collector: Collector::new(), pending: (0..handles).map(|_| CachePadded::default()).collect() }
    }

    pub(crate) fn register(&self, handle: usize) -> Local {
        Local { handle: self.collector.register(), counter: handle, retired: Cell::new(0) }
    }

    /// Objects retired and not yet freed, over all handles; exact at rest.
    pub(crate) fn garbage(&self) -> usize {
        // A counter alone may wrap below zero (its objects are freed elsewhere); the sum does not.
        self.pending.iter().fold(0, |sum, n| sum.wrapping_add(n.load(Relaxed)))
    }

    pub(crate) fn pin<'a>(&'a self, local: &'a Local) -> Pin<'a> {
        Pin { guard: local.handle.pin(), pending: &self.pending[local.counter], retired: &local.retired }
    }

    /// Hands over the handle's bag and turns the epoch, until all is freed or nothing more can be: another handle is pinned, or has not
    /// handed over its own.
    pub(crate) fn flush(&self, local: &Local) {
        loop {
            let before = self.garbage();
            // An object is freed two epochs after it was retired; each flush turns the epoch at most once, and frees a few bags.
            for _ in 0..4 {
                local.handle.pin().flush();
            }
            let left = self.garbage();
            if left == 0 || left >= before {
                return;
            }
        }
    }
}

/// A handle's registration with the collector.
pub(crate) struct Local {
    handle: LocalHandle,
    counter: usize,
    retired: Cell<u32>,
}

// SAFETY: `LocalHandle` is a pointer to a registration whose fields are only touched through this one value, and a `Pin` made
// from it never outlives the call of the `Handle` that made it. Moving the whole to another thread between calls (which is a
// happens-before) therefore keeps one owner at a time; what its bag holds is `Send` by `defer`'s contract.
unsafe impl Send for Local {}

/// While it lives nothing that was reachable when it was made is freed.
pub(crate) struct Pin<'a> {
    guard: Guard,
    pending: &'a AtomicUsize,
    retired: &'a Cell<u32>,
}

impl Pin<'_> {
    /// Runs `free` when every thread pinned now has been unpinned.
    ///
    /// # Safety
    /// What `free` releases can be reached by no thread that pins from now on, is retired once, and may be freed on any
    /// thread. The `Reclaim` outlives the collector's last bag (it owns the collector and is dropped after all handles).
    pub(crate) unsafe fn retire(&self, free: impl FnOnce()) {
        self.pending.fetch_add(1, Relaxed);
        let pending = std::ptr::from_ref(self.pending);
        // SAFETY: by the caller's promise; `pending` is boxed in the `Reclaim`, which outlives the bags.
        unsafe {
            self.guard.defer_unchecked(move || {
                free();
                (*pending).fetch_sub(1, Relaxed);
            });
        }
        // The collector by itself frees a few bags every 128 pins; an operation may retire a dozen objects. So free as fast as we retire.
        self.retired.set(self.retired.get() + 1);
        if self.retired.get() == BAG {
            self.retired.set(0);
            self.guard.flush();
        }
    }
}
