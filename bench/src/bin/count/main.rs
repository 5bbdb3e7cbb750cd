//! Instruction counts of each piece and step, by Debian's valgrind (callgrind): held in a table, so that a regression fails a test without
//! any clock.
//!
//!     bench/count              prints all of it, beside the table
//!     bench/count --check      fails where something moved by more than its tolerance
//!     bench/count --update     writes the table
//!     bench/count --cache      prints misses of a simulated cache, too (not held: they depend on addresses)
//!
//! This program runs itself under callgrind. What is counted is the same on every x86-64 machine with the same compiler: inputs are fixed,
//! valgrind's processor is its own one, and libc is told to copy memory as the oldest of them do.

mod callgrind;
mod table;

use callgrind::Callgrind;
use std::process::ExitCode;
use strowger_bench::meter::{Meter, Unmetered, Within};
use strowger_bench::{call::Queue, handover, house::House, pieces, transactions::Transactions};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds before a script is counted, and rounds that are.
const WARM: usize = 150;
const ROUNDS: usize = 8;
/// Agents, and as many calls, of the dispatch alone.
const SIZES: [u32; 3] = [10, 1_000, 100_000];

fn main() -> ExitCode {
    let arg = std::env::args().nth(1).unwrap_or_default();
    if arg == callgrind::INSIDE {
        everything(&mut Callgrind::default());
        return ExitCode::SUCCESS;
    }
    let done = match arg.as_str() {
        "" | "--check" | "--update" => callgrind::run(false).and_then(|counts| table::compare(&counts, &arg)),
        "--cache" => callgrind::run(true).map(|counts| table::print_caches(&counts)),
        _ => Err("usage: bench/count [--check | --update | --cache]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn everything(m: &mut Callgrind) {
    for _ in 0..ROUNDS {
        m.measure(callgrind::NOTHING, 1, || ());
    }
    pieces::messages(&mut group("sip", m));
    pieces::cdrs(&mut group("cdr", m));
    pieces::journal(&mut group("journal", m));
    pieces::timers(&mut group("timers", m));
    let mut transactions = Transactions::default();
    m.prepare(|| (0..WARM).for_each(|_| transactions.round(&mut Unmetered)));
    (0..ROUNDS).for_each(|_| transactions.round(&mut group("transaction", m)));
    for (name, journal) in [("call", false), ("call-with-journal", true)] {
        let mut queue = Queue::new(journal);
        m.prepare(|| (0..WARM).for_each(|_| _ = queue.call(&mut Unmetered)));
        (0..ROUNDS).for_each(|_| _ = queue.call(&mut group(name, m)));
        (0..ROUNDS).for_each(|_| queue.give_up(&mut group(name, m)));
    }
    handover::rings(&mut group("handover", m));
    let mut two = handover::TwoShards::new(false);
    m.prepare(|| (0..WARM).for_each(|_| two.call(&mut Unmetered)));
    (0..ROUNDS).for_each(|_| two.call(&mut group("handover", m)));
    for size in SIZES {
        let mut house = m.prepare(|| House::new(size, size, (size / 10).clamp(2, 100)));
        (0..ROUNDS).for_each(|_| house.round(&mut group(&format!("dispatch/{size}"), m)));
    }
}

fn group<'a>(group: &'a str, meter: &'a mut Callgrind) -> Within<'a, Callgrind> {
    Within { group, meter }
}
