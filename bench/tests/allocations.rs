//! Heap allocations of a full queued call on its shard, journal records included, once the shard has its working size.
//!
//! `cargo test -p strowger-bench --test allocations -- --nocapture` prints them by step and by the line that asks for them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use strowger_bench::Meter;
use strowger_bench::call::Queue;
use strowger_bench::meter::Unmetered;

/// What a call may allocate at most, over all its steps: what is known to be left. It only goes down.
const MOST: f64 = 17.5;
const WARM: usize = 300;
const CALLS: usize = 100;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Whether the next allocation leaves its trace.
    static TRACING: Cell<bool> = const { Cell::new(false) };
    static TRACES: RefCell<Vec<Backtrace>> = const { RefCell::new(Vec::new()) };
}

struct Counting;

impl Counting {
    fn count() {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        if TRACING.replace(false) {
            let trace = Backtrace::force_capture();
            TRACES.with_borrow_mut(|traces| traces.push(trace));
            TRACING.set(true);
        }
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged; what counting itself allocates (a trace) is not traced again.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::count();
        // SAFETY: the caller keeps `alloc`'s contract, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counting::count();
        // SAFETY: `ptr` came from the system with this layout, and the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, that is from the system, with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts by step; with traces, by line, too.
#[derive(Default)]
struct Allocations {
    steps: BTreeMap<String, u64>,
    traced: bool,
    lines: BTreeMap<String, u64>,
}

impl Meter for Allocations {
    fn measure<R>(&mut self, step: &str, _: u32, work: impl FnOnce() -> R) -> R {
        TRACING.set(self.traced);
        let before = ALLOCATIONS.get();
        let result = work();
        let count = ALLOCATIONS.get() - before;
        TRACING.set(false);
        if self.traced {
            for trace in TRACES.take() {
                *self.lines.entry(format!("{step}: {}", asker(&trace))).or_default() += 1;
            }
        } else if count > 0 {
            *self.steps.entry(step.to_owned()).or_default() += count;
        }
        result
    }
}

/// The frames of ours, from the one that allocates outwards.
fn asker(trace: &Backtrace) -> String {
    let text = trace.to_string();
    let ours = text.lines().filter_map(|l| l.trim().strip_prefix("at ")?.split_once("shards/")).map(|(_, place)| place);
    ours.take(3).collect::<Vec<_>>().join(" < ")
}

#[test]
fn a_queued_call_allocates_no_more_than_is_known() {
    let mut queue = Queue::new(true);
    (0..WARM).for_each(|_| _ = queue.call(&mut Unmetered));
    let mut counts = Allocations::default();
    (0..CALLS).for_each(|_| _ = queue.call(&mut counts));
    let mut traces = Allocations { traced: true, ..Allocations::default() };
    queue.call(&mut traces);
    let each = |count: u64| count as f64 / CALLS as f64;
    let all = each(counts.steps.values().sum());
    println!("{all:.2} allocations a call");
    counts.steps.iter().for_each(|(step, count)| println!("{:8.2} {step}", each(*count)));
    println!("one call:");
    traces.lines.iter().for_each(|(line, count)| println!("{count:8} {line}"));
    assert!(all <= MOST, "{all} allocations a call, at most {MOST} are known: run with --nocapture");
}
