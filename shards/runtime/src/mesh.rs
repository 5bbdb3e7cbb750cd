//! Between shards: for each ordered pair a bounded lock-free ring, and a bell that wakes a sleeping receiver.
//!
//! Invariants
//! - One sender and one receiver per ring, so what one shard sends another arrives in order.
//! - Nothing here blocks. What finds its ring full waits in the sender's outbox and is tried again each turn. The
//!   outbox takes at most [`OUTBOX_DATAGRAMS`] datagrams, later ones are given back to be counted (SIP retransmits);
//!   messages (match hand-overs) are never dropped: there are at most as many as agents.
//! - No wake is lost: a receiver arms its bell and looks again before it sleeps; a sender pushes and then looks at
//!   the bell; both have a sequentially-consistent fence between the two.
//! - An alert is a guess and may be lost: who is woken by one has calls that wait, and looks out for a while.
//! - Parcels travel back empty through a ring of their own: in steady state forwarding allocates nothing.
//!
//! Neither glommio nor a clock in here, so that the simulator can use it.

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Waker;
use strowger_sip::net::Path;

/// Items that a ring holds: all rings of a process together stay small however many shards it has.
#[must_use]
pub const fn ring_size(shards: usize) -> usize {
    match 16_384 / if shards == 0 { 1 } else { shards } {
        n if n > 1024 => 1024,
        n if n < 64 => 64,
        n => n,
    }
}
/// Datagrams that wait for one full ring at most.
pub const OUTBOX_DATAGRAMS: usize = 4096;
/// Shards that one alert wakes at most.
const ALERTED: usize = 2;
/// Empty parcels kept per ring.
const EMPTIES: usize = 256;

/// A datagram of another shard, on its way there.
#[derive(Debug, PartialEq, Eq)]
pub struct Parcel {
    pub bytes: Vec<u8>,
    pub label: Label,
}

/// What is known of a parcel besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    pub path: Path,
    /// When the kernel received it, monotonic nanoseconds.
    pub received_ns: u64,
    /// When it was handed over, monotonic nanoseconds.
    pub sent_ns: u64,
    /// What the sender's scan found, so that the receiver need not scan again.
    pub bucket: u16,
    pub new_invite: bool,
}

/// What a ring carries. `M` is the engine's message.
#[derive(Debug)]
pub enum Item<M> {
    Msg { msg: M, sent_ns: u64 },
    Datagram(Box<Parcel>),
}

/// Wakes one shard when it sleeps, and costs a load when it does not.
#[derive(Debug)]
pub struct Bell {
    armed: CachePadded<AtomicBool>,
    /// Calls wait at this shard: it may be woken before there is something for it.
    waits: AtomicBool,
    alerted: AtomicBool,
    waker: Waker,
}

impl Bell {
    /// `waker` is called, from any thread, when the bell rings while armed.
    #[must_use]
    pub fn new(waker: Waker) -> Bell {
        let off = || AtomicBool::new(false);
        Bell { armed: CachePadded::new(off()), waits: off(), alerted: off(), waker }
    }

    /// To be called after something was queued for the shard.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::AcqRel) {
            self.waker.wake_by_ref();
        }
    }

    /// The shard is about to sleep; after this it must look at its queues once more.
    pub fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard is awake again.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    /// The shard says whether calls wait there.
    pub fn waits(&self, waits: bool) {
        if self.waits.load(Ordering::Relaxed) != waits {
            self.waits.store(waits, Ordering::Relaxed);
        }
    }

    /// Whether the shard was woken because something may come soon.
    pub fn take_alert(&self) -> bool {
        self.alerted.load(Ordering::Relaxed) && self.alerted.swap(false, Ordering::Relaxed)
    }

    /// Wakes the shard if it sleeps while calls wait there.
    fn alert(&self) -> bool {
        let asleep = self.waits.load(Ordering::Relaxed) && self.armed.load(Ordering::Relaxed);
        if asleep {
            self.alerted.store(true, Ordering::Relaxed);
            self.ring();
        }
        asleep
    }
}

#[derive(Debug)]
struct Ring<M> {
    full: ArrayQueue<Item<M>>,
    empty: ArrayQueue<Box<Parcel>>,
}

/// One shard's end of the mesh. The shard owns it; the other ends are with the other shards.
#[derive(Debug)]
pub struct Port<M> {
    shard: u16,
    /// By receiving shard; the own place stays unused.
    out: Vec<Lane<M>>,
    /// By sending shard.
    inbound: Vec<Arc<Ring<M>>>,
    bells: Arc<[Bell]>,
}

#[derive(Debug)]
struct Lane<M> {
    ring: Arc<Ring<M>>,
    outbox: VecDeque<Item<M>>,
    datagrams_waiting: usize,
    /// Something was pushed since the receiver's bell last rang.
    rung: bool,
}

/// Makes the mesh: a port for each shard, in order. A waker for each shard.
#[must_use]
pub fn mesh<M>(wakers: Vec<Waker>) -> Vec<Port<M>> {
    let shards = wakers.len();
    let bells: Arc<[Bell]> = wakers.into_iter().map(Bell::new).collect();
    let ring = || Arc::new(Ring { full: ArrayQueue::new(ring_size(shards)), empty: ArrayQueue::new(EMPTIES) });
    // rings[from][to]
    let rings: Vec<Vec<Arc<Ring<M>>>> = (0..shards).map(|_| (0..shards).map(|_| ring()).collect()).collect();
    let lane = |ring: &Arc<Ring<M>>| Lane {
        ring: Arc::clone(ring),
        outbox: VecDeque::new(),
        datagrams_waiting: 0,
        rung: true,
    };
    (0..shards)
        .map(|me| Port {
            shard: u16::try_from(me).unwrap_or(u16::MAX),
            out: rings[me].iter().map(lane).collect(),
            inbound: rings.iter().map(|row| Arc::clone(&row[me])).collect(),
            bells: Arc::clone(&bells),
        })
        .collect()
}

impl<M> Port<M> {
    /// The bell of this shard.
    #[must_use]
    pub fn bell(&self) -> &Bell {
        &self.bells[usize::from(self.shard)]
    }

    /// All bells, for those who are not shards (the control plane).
    #[must_use]
    pub fn bells(&self) -> Arc<[Bell]> {
        Arc::clone(&self.bells)
    }

    /// Hands `msg` to shard `to`, now or in a later turn; never lost. A shard that does not exist gives it back.
    pub fn send(&mut self, to: u16, msg: M, sent_ns: u64) -> Result<(), M> {
        match self.out.get_mut(usize::from(to)) {
            Some(lane) => {
                lane.push(Item::Msg { msg, sent_ns });
                Ok(())
            }
            None => Err(msg),
        }
    }

    /// Copies a datagram for shard `to`; false when its outbox is full (or the shard does not exist): the caller
    /// counts the loss.
    #[must_use]
    pub fn forward(&mut self, to: u16, bytes: &[u8], label: Label) -> bool {
        let Some(lane) = self.out.get_mut(usize::from(to)) else { return false };
        if lane.datagrams_waiting >= OUTBOX_DATAGRAMS {
            return false;
        }
        let mut parcel = lane.ring.empty.pop().unwrap_or_else(|| Box::new(Parcel { bytes: Vec::new(), label }));
        parcel.bytes.clear();
        parcel.bytes.extend_from_slice(bytes);
        parcel.label = label;
        lane.push(Item::Datagram(parcel));
        true
    }

    /// Tries the outboxes again and rings the bells of those who got something. Once a turn.
    pub fn flush(&mut self) {
        for (lane, bell) in self.out.iter_mut().zip(self.bells.iter()) {
            lane.retry();
            if !lane.rung {
                lane.rung = true;
                bell.ring();
            }
        }
    }

    /// Work begins here after a rest: shards where calls wait had better be awake when it frees an agent.
    pub fn alert(&self) {
        let (before, own) = self.bells.split_at(usize::from(self.shard));
        own.iter().skip(1).chain(before).filter(|bell| bell.alert()).take(ALERTED).for_each(drop);
    }

    /// Whether something still waits in an outbox: look again soon.
    #[must_use]
    pub fn backed_up(&self) -> bool {
        self.out.iter().any(|lane| !lane.outbox.is_empty())
    }

    /// Items that wait for this shard from shard `from`.
    #[must_use]
    pub fn depth(&self, from: u16) -> usize {
        self.inbound.get(usize::from(from)).map_or(0, |ring| ring.full.len())
    }

    /// Whether something has arrived.
    #[must_use]
    pub fn waiting(&self) -> bool {
        self.inbound.iter().any(|ring| !ring.full.is_empty())
    }

    /// The next item from shard `from`.
    #[must_use]
    pub fn receive(&mut self, from: u16) -> Option<Item<M>> {
        self.inbound.get(usize::from(from))?.full.pop()
    }

    /// Gives an emptied parcel back to the shard that sent it.
    pub fn recycle(&mut self, from: u16, parcel: Box<Parcel>) {
        if let Some(ring) = self.inbound.get(usize::from(from)) {
            // A full ring of empties lets this one go: the sender has enough.
            let _ = ring.empty.push(parcel);
        }
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(&self) -> u16 {
        u16::try_from(self.out.len()).unwrap_or(u16::MAX)
    }
}

impl<M> Lane<M> {
    fn push(&mut self, item: Item<M>) {
        let item = if self.outbox.is_empty() {
            match self.ring.full.push(item) {
                Ok(()) => {
                    self.rung = false;
                    return;
                }
                Err(item) => item,
            }
        } else {
            item
        };
        self.datagrams_waiting += usize::from(matches!(item, Item::Datagram(_)));
        self.outbox.push_back(item);
    }

    fn retry(&mut self) {
        while let Some(item) = self.outbox.pop_front() {
            let datagram = usize::from(matches!(item, Item::Datagram(_)));
            match self.ring.full.push(item) {
                Ok(()) => {
                    self.rung = false;
                    self.datagrams_waiting -= datagram;
                }
                Err(item) => {
                    self.outbox.push_front(item);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use strowger_sip::net::ListenerId;

    const RING: usize = ring_size(2);

    fn label(received_ns: u64) -> Label {
        let path = Path::udp("127.0.0.1:5060".parse().unwrap(), ListenerId(0));
        Label { path, received_ns, sent_ns: 0, bucket: 0, new_invite: false }
    }

    fn two() -> (Port<usize>, Port<usize>) {
        let mut ports = mesh(vec![Waker::noop().clone(), Waker::noop().clone()]).into_iter();
        (ports.next().unwrap(), ports.next().unwrap())
    }

    fn number(item: Item<usize>) -> usize {
        match item {
            Item::Msg { msg, .. } => msg,
            Item::Datagram(p) => usize::from(u16::from_ne_bytes([p.bytes[0], p.bytes[1]])),
        }
    }

    #[test]
    fn a_full_ring_keeps_every_message_and_the_order() {
        let (mut a, mut b) = two();
        let total = 3 * RING;
        for n in 0..total {
            a.send(1, n, 0).unwrap();
        }
        assert!(a.backed_up());
        let mut got = Vec::new();
        while got.len() < total {
            a.flush();
            while let Some(item) = b.receive(0) {
                got.push(number(item));
            }
        }
        assert!(!a.backed_up() && !b.waiting());
        assert!(got.iter().copied().eq(0..total));
    }

    #[test]
    fn an_alert_wakes_two_sleepers_at_most_and_only_where_calls_wait() {
        struct Rung(AtomicUsize);
        impl Wake for Rung {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let rung: Vec<Arc<Rung>> = (0..5).map(|_| Arc::new(Rung(AtomicUsize::new(0)))).collect();
        let ports = mesh::<usize>(rung.iter().map(|r| Waker::from(Arc::clone(r))).collect());
        let woken = || rung.iter().map(|r| r.0.swap(0, Ordering::Relaxed)).collect::<Vec<_>>();
        ports[3].alert();
        ports.iter().for_each(|p| p.bell().arm());
        ports[3].alert();
        assert_eq!(woken(), [0; 5], "no calls wait");
        ports.iter().for_each(|p| p.bell().waits(true));
        ports[3].alert();
        assert_eq!(woken(), [1, 0, 0, 0, 1], "the next two in the round");
        assert!(ports[0].bell().take_alert() && !ports[0].bell().take_alert() && !ports[1].bell().take_alert());
        ports[3].alert();
        assert_eq!(woken(), [0, 1, 1, 0, 0], "those are awake");
        ports[1].bell().arm();
        ports[1].bell().ring();
        assert_eq!(woken(), [0, 1, 0, 0, 0]);
        ports[1].bell().arm();
        ports[1].bell().waits(false);
        ports[3].alert();
        assert_eq!(woken(), [0; 5]);
    }

    #[test]
    fn datagrams_beyond_the_outbox_are_given_back_and_messages_still_pass() {
        let (mut a, mut b) = two();
        let most = RING + OUTBOX_DATAGRAMS;
        let taken = (0..most + 10).filter(|n| a.forward(1, &(*n as u16).to_ne_bytes(), label(0))).count();
        assert_eq!(taken, most);
        a.send(1, 77, 0).unwrap();
        let mut got = Vec::new();
        while got.len() < most + 1 {
            a.flush();
            while let Some(item) = b.receive(0) {
                got.push(number(item));
            }
        }
        assert_eq!(got.pop(), Some(77));
        assert!(got.iter().copied().eq(0..most));
        assert!(a.forward(1, b"xx", label(0)), "room again");
    }

    #[test]
    fn parcels_come_back_to_their_sender() {
        let (mut a, mut b) = two();
        assert!(a.forward(1, &[7; 700], label(1)));
        let Some(Item::Datagram(parcel)) = b.receive(0) else { panic!("no parcel") };
        let memory = parcel.bytes.as_ptr();
        b.recycle(0, parcel);
        assert!(a.forward(1, &[8; 600], label(3)));
        let Some(Item::Datagram(parcel)) = b.receive(0) else { panic!("no parcel") };
        assert_eq!((parcel.bytes.as_ptr(), parcel.bytes.len()), (memory, 600));
        assert_eq!(parcel.label, label(3));
    }

    #[test]
    fn an_unknown_shard_takes_nothing() {
        let (mut a, _b) = two();
        assert_eq!(a.send(2, 5, 0), Err(5));
        assert!(!a.forward(9, b"x", label(0)));
    }

    struct Counting(AtomicUsize);
    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_bell_wakes_once_and_only_when_armed() {
        let count = Arc::new(Counting(AtomicUsize::new(0)));
        let bell = Bell::new(Waker::from(Arc::clone(&count)));
        bell.ring();
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        bell.arm();
        bell.ring();
        bell.ring();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        bell.arm();
        bell.disarm();
        bell.ring();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// The receiver sleeps without a time limit whenever its ring is empty: a lost wake would hang this test.
    #[test]
    fn no_wake_is_lost_between_two_threads() {
        const MESSAGES: usize = 20_000;
        let me = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut ports = mesh::<usize>(vec![me, Waker::noop().clone()]).into_iter();
        let (mut receiver, mut sender) = (ports.next().unwrap(), ports.next().unwrap());
        let thread = std::thread::spawn(move || {
            for n in 0..MESSAGES {
                sender.send(0, n, 0).unwrap();
                sender.flush();
            }
            while sender.backed_up() {
                sender.flush();
                std::thread::yield_now();
            }
        });
        let mut next = 0;
        while next < MESSAGES {
            receiver.bell().arm();
            if !receiver.waiting() {
                std::thread::park();
            }
            receiver.bell().disarm();
            while let Some(item) = receiver.receive(1) {
                assert_eq!(number(item), next);
                next += 1;
            }
        }
        thread.join().unwrap();
    }
}
