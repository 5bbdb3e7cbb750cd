//! Heap memory that a call holds on its shard while it waits: the transactions of its arrival still there, and 32 s later.
//!
//! `cargo test -p strowger-bench --test waiting -- --nocapture` prints it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use strowger_bench::call::{House, Wire};
use strowger_bench::meter::Unmetered;

/// As many as fill tables that grow by doubling or by chunks: nothing counts that is there for calls to come.
const CALLS: u64 = 1 << 14;
/// Bytes that a call holds at most: what it takes at present. It only goes down.
const MOST: f64 = 3100.0;
/// And when its transactions are over.
const MOST_LATER: f64 = 2450.0;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
    static BLOCKS: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

fn count(layout: Layout, sign: i64) {
    HELD.set(HELD.get() + sign * layout.size() as i64);
    BLOCKS.set(BLOCKS.get() + sign);
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout, 1);
        // SAFETY: the caller keeps `alloc`'s contract, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(layout, -1);
        // SAFETY: `ptr` came from `alloc` above, that is from the system, with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_waiting_call_holds_no_more_than_is_known() {
    let house = House::waiting(1, CALLS as u32);
    let mut shard = house.shard(0, true);
    let before = (HELD.get(), BLOCKS.get());
    (0..CALLS).for_each(|n| _ = shard.park(&mut Unmetered, n, &mut Wire::default()));
    let each = |now: i64, before: i64| (now - before) as f64 / CALLS as f64;
    let holds = |when: &str, most: f64| {
        let held = each(HELD.get(), before.0);
        println!("{when}: {held:.0} bytes in {:.2} blocks a call", each(BLOCKS.get(), before.1));
        assert!(held <= most, "{when} {held} bytes a call, at most {most} are known");
    };
    holds("at once", MOST);
    shard.pass_us(40_000_000);
    shard.turn(&mut Unmetered, "", |engine, now| engine.handle_timers(now));
    holds("later", MOST_LATER);
    assert_eq!(shard.engine.calls(), CALLS as usize);
}
