//! The only place that names glommio: starting executors, and waiting on one.
//!
//! How a shard waits, and why (measured by `bench/benches/runtime_floor.rs`):
//! - A *nap* is one `ppoll` on the shard's own descriptors, at most [`NAP_NS`]: one system call a wake instead of the
//!   ten of a glommio park, so moderate load costs a third. It ends at the exact due time of a timer.
//! - A *park* hands the thread to glommio, which then runs whatever other tasks the executor has. A shard parks when a
//!   nap brought nothing, and is woken through io_uring: a peek of one byte is outstanding on each descriptor.
//!   Peeks take no datagram, so one that is no longer wanted loses none. (Never `recv` there: a cancelled one does.)
//! - Foreign threads wake a shard by a byte on a socket pair, which both forms of waiting watch.

use crate::clock::mono_ns;
use crate::error::StartError;
use crate::sys::{self, PollSet};
use glommio::net::{UdpSocket, UnixStream};
use glommio::timer::Timer;
use glommio::{ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, Shares};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

/// Longest nap: no other task of the executor waits longer than this for its turn.
const NAP_NS: u64 = 1_000_000;
/// A park ends this long before the due time; a nap, which is exact, takes the rest.
const PARK_GUARD_NS: u64 = NAP_NS / 2;
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
    /// Gives the thread away until something is readable or `until` has (nearly) come. May return early.
    fn park(&mut self, until: Option<u64>) -> impl Future<Output = ()>;
    /// Between turns under load: lets other tasks run when it is their time.
    fn breathe(&mut self) -> impl Future<Output = ()>;
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

/// A waker for any thread, and what it wakes.
///
/// # Errors
/// When the process is out of descriptors.
pub fn mailbox() -> io::Result<(Waker, Sleeper)> {
    let (poker, sleeper) = StdUnixStream::pair()?;
    Ok((Waker::from(Arc::new(Poker(poker))), Sleeper(sleeper)))
}

type Peek = Pin<Box<dyn Future<Output = ()>>>;

/// [`Driver`] on a glommio executor; made inside it.
pub struct GlommioDriver {
    sleeper: StdUnixStream,
    set: PollSet,
    watched: Vec<Watched>,
}

/// A descriptor, and the peek that is outstanding on it since the last park.
struct Watched {
    socket: PeekSocket,
    peek: Option<Peek>,
}

#[derive(Clone)]
enum PeekSocket {
    Udp(Rc<UdpSocket>),
    Mailbox(Rc<UnixStream>),
}

impl PeekSocket {
    fn peek(&self) -> Peek {
        // An error makes the socket readable too: whoever reads it next sees the error.
        match self.clone() {
            PeekSocket::Udp(s) => Box::pin(async move { drop(s.peek_from(&mut [0]).await) }),
            PeekSocket::Mailbox(s) => Box::pin(async move { drop(s.peek(&mut [0]).await) }),
        }
    }
}

impl GlommioDriver {
    /// Watches UDP sockets (duplicated, so they may be closed independently) and the mailbox.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new<'a>(sockets: impl Iterator<Item = BorrowedFd<'a>>, sleeper: Sleeper) -> io::Result<GlommioDriver> {
        let Sleeper(sleeper) = sleeper;
        let mut fds = vec![sleeper.as_raw_fd()];
        let raw = sleeper.try_clone()?.into_raw_fd();
        // SAFETY: `raw` is a descriptor that we own and give away here.
        let mut watched = vec![PeekSocket::Mailbox(Rc::new(unsafe { UnixStream::from_raw_fd(raw) }))];
        for socket in sockets {
            fds.push(socket.as_raw_fd());
            let raw = socket.try_clone_to_owned()?.into_raw_fd();
            // SAFETY: as above.
            watched.push(PeekSocket::Udp(Rc::new(unsafe { UdpSocket::from_raw_fd(raw) })));
        }
        let watched = watched.into_iter().map(|socket| Watched { socket, peek: None }).collect();
        Ok(GlommioDriver { sleeper, set: PollSet::new(fds), watched })
    }
}

impl Driver for GlommioDriver {
    fn nap(&mut self, until: Option<u64>) -> bool {
        let left = until.map_or(u64::MAX, |u| u.saturating_sub(mono_ns()));
        let ready = self.set.wait(left.min(NAP_NS));
        if self.set.readable(0) {
            sys::drain(self.sleeper.as_fd());
        }
        ready || left <= NAP_NS
    }

    async fn park(&mut self, until: Option<u64>) {
        let left = until.map(|u| u.saturating_sub(mono_ns()).saturating_sub(PARK_GUARD_NS));
        let mut timer = match left {
            Some(0) => return,
            left => left.map(|ns| Timer::new(Duration::from_nanos(ns))),
        };
        poll_fn(|cx| {
            let mut ready = timer.as_mut().is_some_and(|t| Pin::new(t).poll(cx).is_ready());
            for w in &mut self.watched {
                let peek = w.peek.get_or_insert_with(|| w.socket.peek());
                if peek.as_mut().poll(cx).is_ready() {
                    w.peek = None;
                    ready = true;
                }
            }
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        sys::drain(self.sleeper.as_fd());
    }

    async fn breathe(&mut self) {
        glommio::executor().yield_if_needed().await;
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

/// Starts an executor, on `cpu` if given, that runs what `task` makes in a queue of low latency.
///
/// # Errors
/// Why it can not be started.
pub fn launch<F, T>(name: &str, cpu: Option<usize>, task: F) -> Result<Executor, String>
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = ()> + 'static,
{
    LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
        .name(name)
        .ring_depth(RING_DEPTH)
        .io_memory(IO_MEMORY)
        .preempt_timer(Duration::from_millis(1))
        .spawn(move || async move {
            sys::precise_timeouts();
            let soon = Latency::Matters(Duration::from_millis(1));
            let queue = glommio::executor().create_task_queue(Shares::default(), soon, "shard");
            match glommio::spawn_local_into(task(), queue) {
                Ok(running) => running.await,
                Err(e) => tracing::error!(error = %e, "the shard's queue is gone"),
            }
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
