//! What is shown while a run goes on, and Ctrl-C.

use std::{
    io::{IsTerminal, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use loadtest::Live;

/// A line a second on standard error, while `work` is done.
pub fn while_watched<T>(live: Arc<Live>, work: impl FnOnce() -> T) -> T {
    let done = Arc::<AtomicBool>::default();
    let watcher = {
        let done = Arc::clone(&done);
        thread::spawn(move || {
            let mut before = 0;
            while !done.load(Relaxed) {
                thread::park_timeout(Duration::from_secs(1));
                before = live_line(&live, before);
            }
            if std::io::stderr().is_terminal() {
                eprintln!();
            }
        })
    };
    let result = work();
    done.store(true, Relaxed);
    watcher.thread().unpark();
    if watcher.join().is_err() {
        eprintln!("loadtest: the live view broke; the report is whole");
    }
    result
}

fn live_line(live: &Live, before: u64) -> u64 {
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    let gauge = |gauge: &AtomicI64| gauge.load(Relaxed);
    let messages = count(&live.received) + count(&live.sent);
    let terminal = std::io::stderr().is_terminal();
    let (start, end) = if terminal { ("\r\x1b[K", "") } else { ("", "\n") };
    let mut out = std::io::stderr().lock();
    // A closed standard error is no reason to end the run.
    let _ = write!(
        out,
        "{start}offered {} answered {} abandoned {} refused {} failed {} | waiting {} talking {} | agents busy {} ringing {} \
         | {} msg/s, twice {}{end}",
        count(&live.offered),
        count(&live.answered),
        count(&live.abandoned),
        count(&live.refused),
        count(&live.failed),
        gauge(&live.waiting),
        gauge(&live.talking),
        gauge(&live.agents_busy),
        gauge(&live.ringing),
        messages.saturating_sub(before),
        count(&live.retransmissions),
    );
    let _ = out.flush();
    messages
}

/// The flag that the signal handler sets.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_signal: libc::c_int) {
    if INTERRUPTED.swap(true, Relaxed) {
        // SAFETY: _exit is async-signal-safe. The second Ctrl-C means: now.
        unsafe { libc::_exit(130) };
    }
}

/// Whether Ctrl-C was pressed.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// Ctrl-C ends the arrivals; a second one ends the program.
pub fn stop_on_interrupt(stop: Arc<AtomicBool>) {
    let handler: extern "C" fn(libc::c_int) = interrupt;
    // SAFETY: the handler only swaps an atomic and may call _exit, both async-signal-safe.
    unsafe { libc::signal(libc::SIGINT, handler as libc::sighandler_t) };
    thread::spawn(move || {
        while !interrupted() {
            thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Relaxed);
    });
}
