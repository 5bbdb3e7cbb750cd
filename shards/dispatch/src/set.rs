//! The ordered set: a lock-free skip list (Fraser; Herlihy and Shavit, chapter 14) of `Entry` hints.
//!
//! Made easier by how it is used, and relying on it: **a node has one writer at a time.** Whoever inserts it publishes it (by a
//! word, after `insert` has returned) and only the winner of that word's compare-and-swap removes it. So the insertion of a
//! node always happens before its removal, no two threads remove the same node, and no two nodes are equal. Neighbours come
//! and go at will.
//!
//! Who may touch what: `entry` and `height` are written before the node is linked; `tower[l]` is set by the inserter until it is
//! linked on level `l`, then changed by anybody by compare-and-swap, and frozen by the remover's mark (lowest bit). A marked
//! node is unlinked by whoever passes; the remover passes last and then retires it.
//! `behind_*` is a guess at the entry that the node comes right after, written by neighbours that come and go; it is right when nobody
//! else is at work there, and nothing hangs on it: see [`Set::remove`].
//!
//! Progress: lock-free. A search starts over only when another operation has finished a step.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ptr::{self, NonNull},
};

use crossbeam_utils::CachePadded;

use crate::{
    reclaim::Pin,
    sync::{
        AtomicPtr, Ordering,
        plain::{AtomicU16, AtomicU32, AtomicUsize, Relaxed},
    },
};

/// Highest tower: with one node in eight a level higher, enough for 8^8 = 16 million entries.
#[cfg(not(any(loom, shuttle)))]
const LEVELS: usize = 8;
#[cfg(any(loom, shuttle))]
const LEVELS: usize = 2;

const CACHE_LINE: usize = 64;

/// A hint: where to look, and for which generation. Ordered by rank, then order, then identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Priority of a call; class of an agent.
    pub(crate) rank: u32,
    pub(crate) gen_: u32,
    /// Ticket of a call; idle order of an agent.
    pub(crate) order: u64,
    /// Slot; for calls with the shard above it.
    pub(crate) id: u64,
}

impl Entry {
    #[inline]
    fn before(&self, other: &Entry) -> bool {
        (self.rank, self.order, self.id, self.gen_) < (other.rank, other.order, other.id, other.gen_)
    }

    /// What callers see as the order: (rank, order).
    #[inline]
    pub(crate) fn place(&self) -> (u32, u64) {
        (self.rank, self.order)
    }
}

type Link = AtomicPtr<Node>;

/// Followed in memory by `height` links. A cache line of its own, so that a search pays one miss for each node that it passes: with up to
/// four levels (4 095 nodes of 4 096) a node is one line.
#[repr(C)]
pub(crate) struct Node {
    entry: Entry,
    /// The `id` of the guessed entry, in two halves; a mixture of two is only a wrong guess.
    behind_low: AtomicU32,
    behind_high: AtomicU16,
    height: u8,
    tower: [Link; 0],
}

/// `behind_high` of a node that is the first, as far as is known. More shards than there can be.
const NOBODY: u16 = u16::MAX;

fn mark(node: *mut Node) -> *mut Node {
    node.map_addr(|a| a | 1)
}

fn is_marked(node: *mut Node) -> bool {
    node.addr() & 1 == 1
}

fn unmark(node: *mut Node) -> *mut Node {
    node.map_addr(|a| a & !1)
}

impl Node {
    fn layout(height: usize) -> Layout {
        let tower = Layout::array::<Link>(height).expect("height is at most LEVELS");
        let node = Layout::new::<Node>().extend(tower).expect("a node is small").0;
        node.align_to(CACHE_LINE).expect("a power of two").pad_to_align()
    }

    fn make(entry: Entry, height: usize) -> NonNull<Node> {
        let layout = Self::layout(height);
        // SAFETY: the layout is not of size zero; header and each link are initialised before use; links lie inside it.
        unsafe {
            let node = alloc(layout).cast::<Node>();
            let Some(owned) = NonNull::new(node) else { handle_alloc_error(layout) };
            ptr::write(&raw mut (*node).entry, entry);
            ptr::write(&raw mut (*node).behind_low, AtomicU32::new(0));
            ptr::write(&raw mut (*node).behind_high, AtomicU16::new(NOBODY));
            ptr::write(&raw mut (*node).height, height as u8);
            for level in 0..height {
                ptr::write(Self::link_ptr(node, level).cast_mut(), Link::new(ptr::null_mut()));
            }
            owned
        }
    }

    /// # Safety
    /// `node` is live and `level < height`.
    #[inline]
    unsafe fn link_ptr(node: *mut Node, level: usize) -> *const Link {
        // SAFETY: the tower follows the header in the same allocation.
        unsafe { (&raw const (*node).tower).cast::<Link>().add(level) }
    }

    /// # Safety
    /// As `link_ptr`, and the node lives as long as the reference is used.
    #[inline]
    unsafe fn link<'a>(node: *mut Node, level: usize) -> &'a Link {
        // SAFETY: by the caller.
        unsafe { &*Self::link_ptr(node, level) }
    }

    /// The `id` of the entry that this one comes right after: a guess. `None`: none is known.
    pub(crate) fn behind(&self) -> Option<u64> {
        let (low, high) = (self.behind_low.load(Relaxed), self.behind_high.load(Relaxed));
        (high != NOBODY).then_some(u64::from(high) << 32 | u64::from(low))
    }

    fn guess_behind(&self, id: Option<u64>) {
        let (low, high) = id.map_or((0, NOBODY), |id| (id as u32, (id >> 32) as u16));
        self.behind_low.store(low, Relaxed);
        self.behind_high.store(high, Relaxed);
    }

    /// # Safety
    /// Nobody else can reach `node`, and it is freed once.
    unsafe fn free(node: *mut Node) {
        // SAFETY: made by `make` with this height.
        unsafe {
            let height = usize::from((*node).height);
            for level in 0..height {
                ptr::drop_in_place(Self::link_ptr(node, level).cast_mut());
            }
            dealloc(node.cast(), Self::layout(height));
        }
    }
}

/// Has the processor fetch a node that is about to be read. No effect but on time, so the checkers do without.
#[inline]
pub(crate) fn fetch_early(node: *const Node) {
    #[cfg(all(target_arch = "x86_64", not(any(loom, shuttle, miri))))]
    // SAFETY: a prefetch reads nothing and faults on no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(node.cast());
    }
    _ = node;
}

/// Where a node belongs: on each level the link that must point to it, and what it points to then.
struct Place<'a> {
    links: [&'a Link; LEVELS],
    next: [*mut Node; LEVELS],
    /// What the links are of, on the lowest level; null: the head.
    before: *mut Node,
}

impl Place<'_> {
    /// Corrects the guesses of `node`, when it goes here, and of the one after it.
    ///
    /// # Safety
    /// Of a search under the present pin; `node` is live.
    unsafe fn guess_around(&self, node: Option<NonNull<Node>>) {
        // SAFETY: by the caller; what the search found is not freed under its pin.
        unsafe {
            let mut id = self.before.as_ref().map(|before| before.entry.id);
            if let Some(node) = node {
                node.as_ref().guess_behind(id);
                id = Some(node.as_ref().entry.id);
            }
            if let Some(next) = self.next[0].as_ref() {
                next.guess_behind(id);
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct Set(CachePadded<Inner>);

/// In two cache lines, the lower levels and what each operation touches in the first.
#[repr(C)]
struct Inner {
    /// Levels that were ever used; a hint of where a search starts, never too low for a node whose insertion is known.
    levels: AtomicUsize,
    /// Entries; decides nothing, exact at rest.
    len: AtomicU32,
    head: [Link; LEVELS],
}

// SAFETY: nodes are shared by atomic links and freed by epochs; entries are plain data.
unsafe impl Send for Set {}
// SAFETY: as above.
unsafe impl Sync for Set {}

impl Default for Inner {
    fn default() -> Self {
        Self {
            head: std::array::from_fn(|_| Link::new(ptr::null_mut())),
            levels: AtomicUsize::new(1),
            len: AtomicU32::new(0),
        }
    }
}

impl Set {
    pub(crate) fn len(&self) -> u32 {
        self.0.len.load(Relaxed)
    }

    /// Links a new node; `draw` gives its height. The caller publishes it afterwards.
    pub(crate) fn insert(&self, entry: Entry, draw: &mut Heights, _pin: &Pin<'_>) -> NonNull<Node> {
        let height = draw.next();
        let node = Node::make(entry, height);
        if self.0.levels.load(Relaxed) < height {
            self.0.levels.fetch_max(height, Relaxed);
        }
        let mut place = self.search(&entry);
        for level in 0..height {
            loop {
                // SAFETY: ours, and not linked on this level yet; nobody removes it before `insert` has returned.
                unsafe { Node::link(node.as_ptr(), level) }.store(place.next[level], Ordering::Relaxed);
                let linked = place.links[level].compare_exchange(
                    place.next[level],
                    node.as_ptr(),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                if linked.is_ok() {
                    break;
                }
                place = self.search(&entry);
            }
            if level == 0 {
                // SAFETY: found under our caller's pin; the node is ours until we return.
                unsafe { place.guess_around(Some(node)) };
            }
        }
        self.0.len.fetch_add(1, Relaxed);
        node
    }

    /// Unlinks the node and retires it. A node of one level whose predecessor the caller has guessed right ([`Node::behind`]) costs
    /// one compare-and-swap; any other a search, which in a long queue means a cache miss for each node on the way.
    ///
    /// Why one swap is enough: the lowest level is one chain from the head. A published node whose link there is unmarked is in it, so
    /// where that link is `node`, it is the only one in the chain; once swapped, no new thread gets to `node`, and of the links outside of
    /// the chain (frozen ones of nodes that were removed) those that pinned before know alone.
    ///
    /// # Safety
    /// `node` came from `insert` of this set, which happened before, and this is its only removal. `behind` was seen published (in this
    /// set or another) under this pin.
    pub(crate) unsafe fn remove(&self, node: NonNull<Node>, behind: Option<NonNull<Node>>, pin: &Pin<'_>) {
        let node = node.as_ptr();
        // SAFETY: not retired before this removal.
        let (entry, height) = unsafe { ((*node).entry, usize::from((*node).height)) };
        // Both neighbours are written below: together they cost one miss.
        if let Some(behind) = behind {
            fetch_early(behind.as_ptr());
        }
        #[cfg(not(any(loom, shuttle)))]
        // SAFETY: as above, and each node has level 0.
        fetch_early(unsafe { Node::link(node, 0) }.load(Ordering::Relaxed));
        let mut next = ptr::null_mut();
        for level in (0..height).rev() {
            // SAFETY: as above.
            let link = unsafe { Node::link(node, level) };
            next = link.load(Ordering::Relaxed);
            while let Err(now) = link.compare_exchange(next, mark(next), Ordering::AcqRel, Ordering::Acquire) {
                next = now;
            }
        }
        let unlinked = height == 1
            && behind.is_some_and(|behind| {
                // SAFETY: live under the pin, by the caller, and each node has level 0.
                let link = unsafe { Node::link(behind.as_ptr(), 0) };
                link.compare_exchange(node, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            });
        // SAFETY: `next` was in the chain when the mark went on, under the pin; so was what the search finds.
        unsafe {
            if !unlinked {
                self.search(&entry).guess_around(None);
            } else if let Some(next) = next.as_ref() {
                next.guess_behind((*node).behind());
            }
        }
        self.0.len.fetch_sub(1, Relaxed);
        #[cfg(any(loom, shuttle))]
        self.assert_unreachable(node);
        // SAFETY: unlinked from its only level, or the search has passed its place on each level; its inserter has finished.
        unsafe { pin.retire(move || Node::free(node)) };
    }

    /// Finds the place of `entry` on all levels, unlinking the marked nodes on the way.
    fn search<'a>(&'a self, entry: &Entry) -> Place<'a> {
        'again: loop {
            let mut place = Place {
                links: std::array::from_fn(|level| &self.0.head[level]),
                next: [ptr::null_mut(); LEVELS],
                before: ptr::null_mut(),
            };
            let mut before: *mut Node = ptr::null_mut();
            for level in (0..self.0.levels.load(Relaxed)).rev() {
                let mut link = match NonNull::new(before) {
                    None => &self.0.head[level],
                    // SAFETY: found linked on a higher level, so it has this one; we are pinned.
                    Some(before) => unsafe { Node::link(before.as_ptr(), level) },
                };
                let mut here = link.load(Ordering::Acquire);
                loop {
                    if is_marked(here) {
                        continue 'again; // `before` is being removed
                    }
                    if here.is_null() {
                        break;
                    }
                    // SAFETY: reached by a link under the pin of our caller, linked on this level.
                    let next = unsafe { Node::link(here, level) }.load(Ordering::Acquire);
                    if is_marked(next) {
                        match link.compare_exchange(here, unmark(next), Ordering::AcqRel, Ordering::Acquire) {
                            Ok(_) => here = unmark(next),
                            Err(now) => here = now,
                        }
                    // SAFETY: as above.
                    } else if unsafe { (*here).entry }.before(entry) {
                        before = here;
                        #[cfg(not(any(loom, shuttle)))]
                        // SAFETY: as above, and each node has level 0. The way down starts there while we look further ahead.
                        fetch_early(unsafe { Node::link(here, level.saturating_sub(1)) }.load(Ordering::Relaxed));
                        // SAFETY: as above.
                        link = unsafe { Node::link(here, level) };
                        here = next;
                    } else {
                        break;
                    }
                }
                place.links[level] = link;
                place.next[level] = here;
            }
            place.before = before;
            return place;
        }
    }

    /// The entries in order; those inserted or removed meanwhile may or may not be seen.
    #[inline]
    pub(crate) fn iter<'a>(&'a self, _pin: &'a Pin<'_>) -> Iter<'a> {
        Iter { link: &self.0.head[0] }
    }

    /// How many entries come before `entry`. Walks from both ends at once, so it costs the distance to the nearer end of the
    /// set, not its length.
    pub(crate) fn count_before(&self, entry: &Entry, pin: &Pin<'_>) -> u32 {
        let total = self.len();
        let mut ahead = self.iter(pin).take_while(|(e, _)| e.before(entry));
        let place = self.search(entry);
        let mut behind = Iter { link: place.links[0] };
        let mut steps = 0;
        loop {
            if ahead.next().is_none() {
                return steps;
            }
            if behind.next().is_none() {
                return total.saturating_sub(steps);
            }
            steps += 1;
        }
    }

    #[cfg(any(loom, shuttle))]
    fn assert_unreachable(&self, node: *mut Node) {
        for level in 0..LEVELS {
            let mut here = unmark(self.0.head[level].load(Ordering::Acquire));
            while !here.is_null() {
                assert!(!ptr::eq(here, node), "a node is retired while it can be reached");
                // SAFETY: reached by a link on this level, under the pin of our caller.
                here = unmark(unsafe { Node::link(here, level) }.load(Ordering::Acquire));
            }
        }
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        let mut here = self.0.head[0].load(Ordering::Acquire);
        while !here.is_null() {
            // SAFETY: we have the set to ourselves; what is linked was not retired.
            unsafe {
                let next = unmark(Node::link(here, 0).load(Ordering::Acquire));
                Node::free(here);
                here = next;
            }
        }
    }
}

/// Walks the lowest level past the marked nodes.
pub(crate) struct Iter<'a> {
    link: &'a Link,
}

impl Iterator for Iter<'_> {
    type Item = (Entry, NonNull<Node>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let mut here = unmark(self.link.load(Ordering::Acquire));
        loop {
            let node = NonNull::new(here)?;
            // SAFETY: reached by a link under the pin that this iterator borrows.
            let next = unsafe { Node::link(here, 0) };
            self.link = next;
            let after = next.load(Ordering::Acquire);
            if !is_marked(after) {
                // SAFETY: as above.
                return Some((unsafe { (*here).entry }, node));
            }
            here = unmark(after);
        }
    }
}

/// Draws tower heights: one in eight goes a level higher. Seeded by the handle's number, so runs repeat.
pub(crate) struct Heights(u64);

impl Heights {
    pub(crate) fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn next(&mut self) -> usize {
        // xorshift64 (Marsaglia 2003)
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (1 + (self.0.trailing_zeros() / 3) as usize).min(LEVELS)
    }
}
