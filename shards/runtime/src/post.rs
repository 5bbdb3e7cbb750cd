//! Queues between the shards and the control plane, without locks: whoever holds one may have been taken off its core, and a
//! shard that waits for it waits for all that runs there before.
//!
//! [`post`]: from the shards to the control plane. [`line`]: from the control plane to a shard, which its own bell wakes.
//!
//! Invariants
//! - At the shards' ends there are atomic operations, and one system call more where somebody sleeps at the other end.
//! - Who is about to sleep arms the bell and looks once more: what is put in after that look rings it.
//! - What is in a queue can be taken after its senders have gone. What is in one whose receiver has gone is dropped.

use crate::driver::{Sleeper, mailbox};
use crate::mesh::Bell;
use crate::sys::{self, PollSet};
use crossbeam::queue::ArrayQueue;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Letters<T> {
    queue: ArrayQueue<T>,
    bell: Bell,
    ear: Sleeper,
    senders: AtomicUsize,
}

/// The shards' end. There may be several.
#[derive(Debug)]
pub struct Post<T>(Arc<Letters<T>>);

/// The control plane's end. One waits at a time.
#[derive(Debug)]
pub struct Mail<T>(Arc<Letters<T>>);

/// A queue of so many, at least one.
///
/// # Errors
/// When the process is out of descriptors.
pub fn post<T>(capacity: usize) -> io::Result<(Post<T>, Mail<T>)> {
    let (waker, ear) = mailbox()?;
    let (queue, bell) = (ArrayQueue::new(capacity.max(1)), Bell::new(waker));
    let shared = Arc::new(Letters { queue, bell, ear, senders: AtomicUsize::new(1) });
    Ok((Post(Arc::clone(&shared)), Mail(shared)))
}

impl<T> Post<T> {
    /// # Errors
    /// Gives it back when there is no room.
    pub fn send(&self, item: T) -> Result<(), T> {
        self.0.queue.push(item)?;
        self.0.bell.ring();
        Ok(())
    }
}

impl<T> Clone for Post<T> {
    fn clone(&self) -> Post<T> {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Post(Arc::clone(&self.0))
    }
}

impl<T> Drop for Post<T> {
    fn drop(&mut self) {
        // Whoever sees that there is none left sees all that they sent.
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.bell.ring();
        }
    }
}

impl<T> Clone for Mail<T> {
    fn clone(&self) -> Mail<T> {
        Mail(Arc::clone(&self.0))
    }
}

impl<T> Mail<T> {
    /// What came first, if there is anything.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.0.queue.pop()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.queue.len()
    }

    /// Whether there is nothing now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.queue.is_empty()
    }

    /// Whether there is nothing and will be nothing.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.senders.load(Ordering::Acquire) == 0 && self.is_empty()
    }

    /// Its reader is about to wait until the ear is readable; false: it need not, there is something or it is over.
    #[must_use]
    pub fn arm(&self) -> bool {
        self.0.bell.arm();
        let waits = self.is_empty() && self.0.senders.load(Ordering::Acquire) > 0;
        if !waits {
            self.0.bell.disarm();
        }
        waits
    }

    /// What becomes readable when the bell rings, and is to be read then, for those who wait for many things; never blocks.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn ear(&self) -> io::Result<UnixStream> {
        let ear = UnixStream::from(self.0.ear.as_fd().try_clone_to_owned()?);
        ear.set_nonblocking(true)?;
        Ok(ear)
    }

    /// Its reader waits no longer.
    pub fn disarm(&self) {
        self.0.bell.disarm();
    }

    /// The next, for threads that may block; `None`: there is none so soon, or there will be none.
    #[must_use]
    pub fn take_within(&self, limit: Duration) -> Option<T> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.take() {
                None if !left.is_zero() && !self.is_over() => {}
                taken => return taken,
            }
            if self.arm() {
                let ns = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
                PollSet::new([self.0.ear.as_fd().as_raw_fd()]).wait(ns);
                self.disarm();
                sys::drain(self.0.ear.as_fd());
            }
        }
    }
}

#[derive(Debug)]
struct Queue<T> {
    items: ArrayQueue<T>,
    closed: AtomicBool,
}

/// The control plane's end of a way to a shard.
#[derive(Debug)]
pub struct Line<T>(Arc<Queue<T>>);

/// The shard's end. Dropped, it closes the line.
#[derive(Debug)]
pub struct Orders<T>(Arc<Queue<T>>);

/// Why something does not go to a shard.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<T> {
    Full(T),
    Closed,
}

/// A queue of so many, at least one. Whoever sends rings the shard's bell.
#[must_use]
pub fn line<T>(capacity: usize) -> (Line<T>, Orders<T>) {
    let queue = Arc::new(Queue { items: ArrayQueue::new(capacity.max(1)), closed: AtomicBool::new(false) });
    (Line(Arc::clone(&queue)), Orders(queue))
}

impl<T> Line<T> {
    /// # Errors
    /// [`Refused`].
    pub fn send(&self, item: T) -> Result<(), Refused<T>> {
        let pushed = self.0.items.push(item);
        fence(Ordering::SeqCst);
        // It may have gone meanwhile: one of both sees the other, and drops what nobody takes.
        if self.0.closed.load(Ordering::Relaxed) {
            self.0.clear();
            return Err(Refused::Closed);
        }
        pushed.map_err(Refused::Full)
    }
}

impl<T> Orders<T> {
    /// What came first, if there is anything.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.0.items.pop()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.items.is_empty()
    }
}

impl<T> Queue<T> {
    fn clear(&self) {
        while self.items.pop().is_some() {}
    }
}

impl<T> Drop for Orders<T> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn what_is_sent_comes_in_order_and_what_has_no_room_comes_back() {
        let (post, mail) = post(2).unwrap();
        assert_eq!((mail.take(), mail.is_over()), (None, false));
        assert_eq!((post.send(1), post.send(2), post.send(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((mail.len(), mail.take(), mail.take_within(LONG), mail.take()), (2, Some(1), Some(2), None));
        let began = Instant::now();
        assert_eq!(mail.take_within(Duration::from_millis(20)), None);
        assert!(began.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn what_was_sent_is_there_when_the_senders_have_gone_and_then_it_is_over() {
        let (post, mail) = post(8).unwrap();
        let other = post.clone();
        drop(post);
        assert!(!mail.is_over());
        other.send(1).unwrap();
        drop(other);
        assert!(!mail.is_over() && !mail.arm());
        assert_eq!((mail.take_within(LONG), mail.take_within(LONG)), (Some(1), None));
        assert!(mail.is_over());
    }

    #[test]
    fn a_reader_that_sleeps_is_woken_each_time() {
        const ITEMS: u32 = 20_000;
        let (post, mail) = post(4).unwrap();
        let reader = std::thread::spawn(move || std::iter::from_fn(|| mail.take_within(LONG)).collect::<Vec<_>>());
        for item in 0..ITEMS {
            let mut item = Some(item);
            while let Some(again) = item.and_then(|i| post.send(i).err()) {
                item = Some(again);
                std::thread::yield_now();
            }
            if item.is_some_and(|i| i % 50 == 0) {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
        drop(post);
        assert_eq!(reader.join().unwrap(), (0..ITEMS).collect::<Vec<_>>());
    }

    #[test]
    fn the_end_of_the_last_sender_wakes_whoever_sleeps() {
        let (post, mail) = post::<u32>(1).unwrap();
        let reader = std::thread::spawn(move || mail.take_within(LONG));
        std::thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        drop(post);
        assert_eq!(reader.join().unwrap(), None);
        assert!(began.elapsed() < LONG / 2);
    }

    #[test]
    fn nothing_stays_in_a_line_that_is_closed() {
        let (line, orders) = line(2);
        let (held, watched) = (Arc::new(()), Arc::new(()));
        assert_eq!(line.send(Arc::clone(&held)), Ok(()));
        assert_eq!(line.send(Arc::clone(&watched)), Ok(()));
        assert_eq!(line.send(Arc::clone(&watched)), Err(Refused::Full(Arc::clone(&watched))));
        assert_eq!(orders.take(), Some(held));
        drop(orders);
        assert_eq!(Arc::strong_count(&watched), 1);
        assert_eq!(line.send(Arc::clone(&watched)), Err(Refused::Closed));
        assert_eq!(Arc::strong_count(&watched), 1);
    }

    #[test]
    fn whatever_is_sent_while_a_line_closes_is_taken_or_dropped() {
        for _ in 0..if cfg!(miri) { 30 } else { 2000 } {
            let (line, orders) = line(4);
            let item = Arc::new(());
            let sent = Arc::clone(&item);
            let sender = std::thread::spawn(move || (line.send(sent).is_ok(), line));
            drop(orders);
            let (_, line) = sender.join().unwrap();
            assert_eq!(Arc::strong_count(&item), 1);
            drop(line);
        }
    }
}
