//! The only place that names glommio: starting executors, and waiting on one.
//!
//! A shard is all that its executor runs: it waits in one `ppoll` on its own descriptors, one system call a wake
//! instead of the ten of a glommio park, and never yields. The wait ends at the exact due time of a timer. A *nap* is at
//! most [`NAP_NS`]; a *park*, when a nap brought nothing, at most [`PARK_NS`].
//! Foreign threads wake a shard by a byte on a socket pair, which the wait watches too.
//!
//! Why not glommio's own parking: in 0.9 `LocalExecutor::run_task_queues` returns false, "nothing to run", also when
//! the preemption timer fired before the first queue had its turn, and the executor then sleeps in its ring with a
//! runnable task and no timer left. On a machine short of CPU that happened within seconds to minutes; a shard that
//! yielded was deaf to sockets and timers alike. Hence no yields, and a preemption timer that never fires
//! ([`NEVER`]), so that the first turn can't be lost either.

use crate::clock::mono_ns;
use crate::error::StartError;
use crate::sys::{self, PollSet};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

/// Longest nap: after it a shard that had nothing to do sees to its housekeeping.
const NAP_NS: u64 = 1_000_000;
/// Longest park: a few wakes a second cost an idle shard less than a thousandth of a core.
const PARK_NS: u64 = 250_000_000;
/// A preemption timer that does not fire between an executor's start and the shard's first turn, the only one.
const NEVER: Duration = Duration::from_secs(86_400);
/// Submission queue entries of each of an executor's rings: more only locks memory.
const RING_DEPTH: usize = 128;
/// glommio's buffer pool for file I/O, which shards do not do.
const IO_MEMORY: usize = 64 << 10;
/// What glommio itself insists on, and about what an executor's registered memory takes.
const MEMLOCK_LEAST: u64 = 512 << 10;
const MEMLOCK_EACH: u64 = 52 << 10;

/// How a shard waits. An instant is nanoseconds of the monotonic clock; `None` is no limit.
pub trait Driver {
    /// Blocks briefly; true when something is readable or `until` has come.
    fn nap(&mut self, until: Option<u64>) -> bool;
    /// Blocks until something is readable or `until` has (nearly) come. May return early.
    fn park(&mut self, until: Option<u64>);
    /// Whether the last nap or park found that socket readable.
    fn readable(&self, socket: usize) -> bool;
}

/// The mailbox's end that wakes: one byte on a socket pair.
struct Poker(StdUnixStream);

impl Wake for Poker {
    fn wake(self: Arc<Self>) {
        sys::poke(self.0.as_fd());
    }
    fn wake_by_ref(self: &Arc<Self>) {
        sys::poke(self.0.as_fd());
    }
}

/// The mailbox's end that is woken; moves into the shard's thread.
#[derive(Debug)]
pub struct Sleeper(StdUnixStream);

impl AsFd for Sleeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A waker for any thread, and what it wakes.
///
/// # Errors
/// When the process is out of descriptors.
pub fn mailbox() -> io::Result<(Waker, Sleeper)> {
    let (poker, sleeper) = StdUnixStream::pair()?;
    Ok((Waker::from(Arc::new(Poker(poker))), Sleeper(sleeper)))
}

/// [`Driver`] on a glommio executor.
pub struct GlommioDriver {
    sleeper: StdUnixStream,
    set: PollSet,
}

impl GlommioDriver {
    /// Watches UDP sockets, which must stay open for as long, and the mailbox.
    #[must_use]
    pub fn new<'a>(sockets: impl Iterator<Item = BorrowedFd<'a>>, sleeper: Sleeper) -> GlommioDriver {
        let Sleeper(sleeper) = sleeper;
        let fds: Vec<_> = std::iter::once(sleeper.as_raw_fd()).chain(sockets.map(|s| s.as_raw_fd())).collect();
        GlommioDriver { sleeper, set: PollSet::new(fds) }
    }

    /// True when something is readable or `until` has come.
    fn wait(&mut self, until: Option<u64>, most: u64) -> bool {
        let left = until.map_or(u64::MAX, |u| u.saturating_sub(mono_ns()));
        let ready = self.set.wait(left.min(most));
        if self.set.readable(0) {
            sys::drain(self.sleeper.as_fd());
        }
        ready || left <= most
    }
}

impl Driver for GlommioDriver {
    fn nap(&mut self, until: Option<u64>) -> bool {
        self.wait(until, NAP_NS)
    }

    fn park(&mut self, until: Option<u64>) {
        self.wait(until, PARK_NS);
    }

    fn readable(&self, socket: usize) -> bool {
        // The mailbox is before them.
        self.set.readable(socket + 1)
    }
}

/// A running executor.
#[derive(Debug)]
pub struct Executor(ExecutorJoinHandle<()>);

impl Executor {
    /// Waits until its task is over.
    ///
    /// # Errors
    /// Why the executor ended otherwise.
    pub fn join(self) -> Result<(), String> {
        self.0.join().map_err(|e| e.to_string())
    }
}

/// Starts an executor, on `cpu` if given, that runs `task` to its end.
///
/// # Errors
/// Why it can not be started.
pub fn launch(name: &str, cpu: Option<usize>, task: impl FnOnce() + Send + 'static) -> Result<Executor, String> {
    LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
        .name(name)
        .ring_depth(RING_DEPTH)
        .io_memory(IO_MEMORY)
        .preempt_timer(NEVER)
        .spawn(move || async move {
            sys::precise_timeouts();
            sys::short_slices();
            task();
        })
        .map(Executor)
        .map_err(|e| e.to_string())
}

/// Looks for what glommio reports in a misleading way or by a panic, and registers for memory barriers.
///
/// # Errors
/// [`StartError::Memlock`], [`StartError::IoUring`].
pub fn preflight() -> Result<(), StartError> {
    sys::register_membarrier();
    let limit = sys::memlock_limit();
    if limit < MEMLOCK_LEAST {
        return Err(StartError::Memlock { limit, needed: MEMLOCK_LEAST });
    }
    // In a thread of its own: closing a ring interrupts later system calls of the thread that made it.
    let tried = std::thread::spawn(sys::try_io_uring).join();
    tried.unwrap_or_else(|_| Err(io::Error::other("panic"))).map_err(|error| StartError::IoUring { error })
}

/// Why an executor did not come up, in our words where we know them.
#[must_use]
pub fn explain(shard: u16, shards: u16, reason: String) -> StartError {
    let (limit, needed) = (sys::memlock_limit(), MEMLOCK_LEAST.max(MEMLOCK_EACH * u64::from(shards)));
    if limit < needed { StartError::Memlock { limit, needed } } else { StartError::Executor { shard, reason } }
}
