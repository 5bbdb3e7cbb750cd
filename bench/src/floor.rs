//! The physical limit: what the kernel takes for a datagram in or out with our batches, and nothing else done.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use strowger_runtime::net::{BATCH, Outgoing, RxBatch, TxBatch, share};
use strowger_runtime::sys::PollSet;

/// Datagrams on their way at once.
const WINDOW: u64 = 256;

/// Nanoseconds of CPU, user and system, of this process's living threads whose name begins so.
#[must_use]
pub fn cpu_ns(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of = |task: std::fs::DirEntry| {
        let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        comm.starts_with(name).then(|| stat.split(' ').next()?.parse::<u64>().ok())?
    };
    tasks.filter_map(of).sum()
}

/// Nanoseconds of CPU for a packet, received or sent, of an echo that is kept busy with these messages for `run`.
///
/// # Panics
/// Without a socket or a thread.
#[must_use]
pub fn echo(messages: &[Vec<u8>], run: Duration) -> f64 {
    let socket = share(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a loopback socket");
    let addr = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("an address");
    let stop = Arc::new(AtomicBool::new(false));
    let echo = {
        let stop = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("echo".to_owned());
        thread.spawn(move || {
            let (mut rx, mut tx) = (RxBatch::default(), TxBatch::default());
            let mut set = PollSet::new([socket.as_raw_fd()]);
            let mut packets = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let n = rx.receive(socket.as_fd(), BATCH).unwrap_or(0);
                if n == 0 {
                    set.wait(10_000_000);
                }
                let all: Vec<Outgoing<'_>> = (0..n)
                    .filter_map(|i| rx.get(i))
                    .map(|d| Outgoing { bytes: d.bytes, to: d.from, from: None })
                    .collect();
                let mut rest = &all[..];
                while let Some(sent) = (!rest.is_empty()).then(|| tx.send(socket.as_fd(), rest.iter().copied())) {
                    let Ok(sent) = sent else { break };
                    packets += sent as u64 * 2;
                    rest = &rest[sent..];
                }
            }
            // Read here, for the kernel forgets it with the thread.
            (cpu_ns("echo"), packets)
        })
    };
    let echo = echo.expect("a thread");
    saturate(addr, messages, run);
    stop.store(true, Ordering::Relaxed);
    let (cpu, packets) = echo.join().expect("no panic");
    cpu as f64 / packets as f64
}

/// Sends as fast as this thread can, keeping a window open; how many were answered.
///
/// # Panics
/// Without a socket.
pub fn saturate(addr: SocketAddr, messages: &[Vec<u8>], run: Duration) -> u64 {
    let peer = share(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a loopback socket");
    let (mut rx, mut tx) = (RxBatch::default(), TxBatch::default());
    let mut set = PollSet::new([peer.as_raw_fd()]);
    let (mut sent, mut got) = (0u64, 0u64);
    let mut next = messages.iter().cycle();
    let began = Instant::now();
    while began.elapsed() < run {
        let room = usize::try_from(WINDOW.saturating_sub(sent - got)).unwrap_or(0).min(BATCH);
        let out = next.by_ref().take(room).map(|bytes| Outgoing { bytes, to: addr, from: None });
        sent += if room > 0 { tx.send(peer.as_fd(), out).unwrap_or(0) as u64 } else { 0 };
        if room == 0 && !set.wait(5_000_000) {
            // Something was dropped: open the window again.
            got = sent;
        }
        got = (got + rx.receive(peer.as_fd(), BATCH).unwrap_or(0) as u64).min(sent);
    }
    got
}
