//! recvmmsg and sendmmsg over preallocated memory.
//!
//! Invariants of the `unsafe` in here: the arrays given to the kernel are built anew for each call, from slices that
//! this call borrows, so no pointer outlives what it points into; lengths given are those of the slices; what the
//! kernel says it wrote is clamped to them before it is read.

use crate::sys::RawAddr;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Largest UDP payload.
pub const MAX_DATAGRAM: usize = 65_535;
/// Datagrams a call.
pub const BATCH: usize = 64;
/// A slot is a datagram and an odd number of cache lines: slots start in different cache sets. Pages that no
/// datagram reaches are never touched, so the memory in use is about a page a slot.
const STRIDE: usize = MAX_DATAGRAM + 1 + 17 * 64;
/// Control messages of one datagram: stamp (32 bytes), packet info (40), overflow (24).
const CONTROL_WORDS: usize = 16;
type Control = [u64; CONTROL_WORDS];

/// A datagram as received, in the batch's memory.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    pub bytes: &'a [u8],
    pub from: SocketAddr,
    /// The address that it came to, where the socket listens on a wildcard.
    pub local: Option<IpAddr>,
    /// CLOCK_REALTIME nanoseconds of its arrival in the kernel.
    pub received_unix_ns: Option<u64>,
    /// It was longer than a datagram can be (or the kernel cut it): not to be used.
    pub truncated: bool,
}

/// Room for [`BATCH`] datagrams.
pub struct RxBatch {
    bytes: Vec<u8>,
    addrs: Box<[RawAddr; BATCH]>,
    controls: Box<[Control; BATCH]>,
    /// For the call alone.
    vectors: Box<[libc::iovec; BATCH]>,
    /// What the kernel said of each slot; its pointers are not used after the call.
    headers: Vec<libc::mmsghdr>,
}

impl std::fmt::Debug for RxBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RxBatch").field("received", &self.headers.len()).finish_non_exhaustive()
    }
}

impl Default for RxBatch {
    fn default() -> RxBatch {
        RxBatch {
            bytes: vec![0; BATCH * STRIDE],
            addrs: Box::new([RawAddr::empty(); BATCH]),
            controls: Box::new([[0; CONTROL_WORDS]; BATCH]),
            vectors: Box::new([NO_VECTOR; BATCH]),
            headers: Vec::with_capacity(BATCH),
        }
    }
}

impl RxBatch {
    /// Takes what the socket holds, at most so many datagrams and [`BATCH`], without waiting. 0: it is empty. Each that is asked
    /// for costs, come or not.
    ///
    /// # Errors
    /// Those of recvmmsg; an error queued by ICMP costs no datagram, the call is simply made again.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        for _ in 0..4 {
            match self.receive_once(fd, most.min(BATCH)) {
                Ok(n) => return Ok(n),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(0),
                    // Reading the pending error cleared it; the datagrams behind it are still there.
                    Some(libc::EINTR | libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH) => {}
                    _ => return Err(e),
                },
            }
        }
        Ok(0)
    }

    fn receive_once(&mut self, fd: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        self.headers.clear();
        let slots = self.bytes.chunks_exact_mut(STRIDE).zip(self.addrs.iter_mut()).zip(self.controls.iter_mut());
        for (((slot, addr), control), vector) in slots.zip(self.vectors.iter_mut()).take(most) {
            *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: MAX_DATAGRAM };
            let mut header = empty_header();
            header.msg_hdr.msg_name = ptr::from_mut(addr).cast();
            header.msg_hdr.msg_namelen = size_of::<RawAddr>() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<Control>() as _;
            self.headers.push(header);
        }
        let asked = libc::c_uint::try_from(self.headers.len()).unwrap_or(0);
        // SAFETY: `headers` holds so many headers, whose name, vector and control pointers were set above to memory that `self`
        // owns, exclusively borrowed for this call, with the lengths given.
        let n = unsafe {
            libc::recvmmsg(fd.as_raw_fd(), self.headers.as_mut_ptr(), asked, libc::MSG_DONTWAIT as _, ptr::null_mut())
        };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error());
        self.headers.truncate(*n.as_ref().unwrap_or(&0));
        n
    }

    /// The datagram in slot `i` of the last [`RxBatch::receive`]; `None` for one without a usable source.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<Datagram<'_>> {
        let header = self.headers.get(i)?;
        let len = usize::try_from(header.msg_len).unwrap_or(0).min(MAX_DATAGRAM);
        let mut datagram = Datagram {
            bytes: &self.bytes[i * STRIDE..][..len],
            from: self.addrs[i].to_std()?,
            local: None,
            received_unix_ns: None,
            truncated: header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        };
        let used = header.msg_hdr.msg_controllen.min(size_of::<Control>());
        for note in notes(&self.controls[i], used) {
            match note {
                Note::Stamp(ns) => datagram.received_unix_ns = Some(ns),
                Note::Local(ip) => datagram.local = Some(ip),
                Note::Dropped(_) => {}
            }
        }
        Some(datagram)
    }

    /// How many datagrams the socket had dropped in all (its buffer was full) when the last of this batch came in.
    #[must_use]
    pub fn dropped(&self) -> Option<u32> {
        let (i, header) = self.headers.iter().enumerate().next_back()?;
        let used = header.msg_hdr.msg_controllen.min(size_of::<Control>());
        notes(&self.controls[i], used).find_map(|n| if let Note::Dropped(n) = n { Some(n) } else { None })
    }
}

const NO_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

fn empty_header() -> libc::mmsghdr {
    // SAFETY: mmsghdr is integers and pointers; all zero bits are a valid value of each.
    unsafe { std::mem::zeroed() }
}

enum Note {
    Stamp(u64),
    Local(IpAddr),
    Dropped(u32),
}

/// Walks the control messages of one datagram, by offsets: each is a header of 16 bytes (length with header, level,
/// type), then data, padded to 8 bytes (cmsg(3), 64-bit Linux).
fn notes(control: &Control, used: usize) -> impl Iterator<Item = Note> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let mut bytes = [0u8; size_of::<Control>()];
    for (word, out) in control.iter().zip(bytes.chunks_exact_mut(8)) {
        out.copy_from_slice(&word.to_ne_bytes());
    }
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let head = bytes.get(at..at + HEADER).filter(|_| at + HEADER <= used)?;
            let len = usize::from_ne_bytes(head[..8].try_into().ok()?);
            let level = libc::c_int::from_ne_bytes(head[8..12].try_into().ok()?);
            let kind = libc::c_int::from_ne_bytes(head[12..16].try_into().ok()?);
            let data = bytes.get(at + HEADER..at.checked_add(len)?.min(used))?;
            at += len.next_multiple_of(8).max(HEADER);
            if let Some(note) = note(level, kind, data) {
                return Some(note);
            }
        }
    })
}

fn note(level: libc::c_int, kind: libc::c_int, data: &[u8]) -> Option<Note> {
    match (level, kind) {
        (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
            let seconds = u64::from_ne_bytes(data.get(..8)?.try_into().ok()?);
            let nanos = u64::from_ne_bytes(data.get(8..16)?.try_into().ok()?);
            Some(Note::Stamp(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
        }
        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
            Some(Note::Dropped(u32::from_ne_bytes(data.get(..4)?.try_into().ok()?)))
        }
        // in_pktinfo: interface, local address, destination of the header.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let octets: [u8; 4] = data.get(4..8)?.try_into().ok()?;
            Some(Note::Local(octets.into()))
        }
        // in6_pktinfo: address, interface.
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let octets: [u8; 16] = data.get(..16)?.try_into().ok()?;
            Some(Note::Local(octets.into()))
        }
        _ => None,
    }
}

/// A datagram to send.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub bytes: &'a [u8],
    pub to: SocketAddr,
    /// Leave from this address (wildcard listeners).
    pub from: Option<IpAddr>,
}

/// Why a batch ended early.
#[derive(Debug)]
pub enum SendError {
    /// The socket takes no more now; try the rest later.
    Full,
    /// The first unsent datagram can not be sent.
    Refused(io::Error),
}

/// Memory of the arrays that sendmmsg wants.
pub struct TxBatch {
    addrs: Box<[RawAddr; BATCH]>,
    controls: Box<[Control; BATCH]>,
    /// Both for the call alone.
    vectors: Box<[libc::iovec; BATCH]>,
    headers: Vec<libc::mmsghdr>,
}

impl std::fmt::Debug for TxBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TxBatch")
    }
}

impl Default for TxBatch {
    fn default() -> TxBatch {
        TxBatch {
            addrs: Box::new([RawAddr::empty(); BATCH]),
            controls: Box::new([[0; CONTROL_WORDS]; BATCH]),
            vectors: Box::new([NO_VECTOR; BATCH]),
            headers: Vec::with_capacity(BATCH),
        }
    }
}

impl TxBatch {
    /// Sends the first datagrams of `items` (at most [`BATCH`]) in one call, without waiting; says how many left,
    /// and what stopped it when that is none.
    ///
    /// # Errors
    /// [`SendError`], about the first of `items`.
    pub fn send<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        items: impl Iterator<Item = Outgoing<'a>>,
    ) -> Result<usize, SendError> {
        self.headers.clear();
        let room = self.addrs.iter_mut().zip(self.controls.iter_mut()).zip(self.vectors.iter_mut());
        // Room first: an item is not asked for that has none.
        for (((addr, control), vector), item) in room.zip(items) {
            // The kernel only reads through this pointer; iovec has no const form.
            *vector = libc::iovec { iov_base: item.bytes.as_ptr().cast_mut().cast(), iov_len: item.bytes.len() };
            let (raw, len) = RawAddr::from_std(item.to);
            *addr = raw;
            let mut header = empty_header();
            header.msg_hdr.msg_name = ptr::from_mut(addr).cast();
            header.msg_hdr.msg_namelen = len;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            if let Some(from) = item.from {
                header.msg_hdr.msg_controllen = source(control, from) as _;
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            }
            self.headers.push(header);
        }
        let count = libc::c_uint::try_from(self.headers.len()).unwrap_or(0);
        for _ in 0..4 {
            // SAFETY: the `count` headers point at names, vectors, payloads and controls that `self` and the items' lifetime
            // `'a` keep alive for this call, with their true lengths.
            let n = unsafe {
                libc::sendmmsg(
                    fd.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    count,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            };
            if let Ok(n) = usize::try_from(n) {
                return Ok(n);
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS) => return Err(SendError::Full),
                // An ICMP error of an earlier datagram, reported now and thereby cleared: nothing was sent yet.
                Some(libc::EINTR | libc::ECONNREFUSED) => {}
                _ => return Err(SendError::Refused(error)),
            }
        }
        Err(SendError::Full)
    }
}

/// Writes the control message that chooses the source address; its length.
fn source(control: &mut Control, from: IpAddr) -> usize {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let mut bytes = [0u8; size_of::<Control>()];
    let (level, kind, len) = match from {
        IpAddr::V4(ip) => {
            // in_pktinfo: interface 0 (any), ipi_spec_dst is the source, ipi_addr unused.
            bytes[HEADER + 4..HEADER + 8].copy_from_slice(&ip.octets());
            (libc::IPPROTO_IP, libc::IP_PKTINFO, HEADER + size_of::<libc::in_pktinfo>())
        }
        IpAddr::V6(ip) => {
            bytes[HEADER..HEADER + 16].copy_from_slice(&ip.octets());
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, HEADER + size_of::<libc::in6_pktinfo>())
        }
    };
    bytes[..8].copy_from_slice(&len.to_ne_bytes());
    bytes[8..12].copy_from_slice(&level.to_ne_bytes());
    bytes[12..16].copy_from_slice(&kind.to_ne_bytes());
    for (word, chunk) in control.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = chunk.try_into().map_or(0, u64::from_ne_bytes);
    }
    len.next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::super::share;
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    fn peer() -> UdpSocket {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        peer
    }

    /// Waits until the socket holds something, then takes a batch.
    fn take(rx: &mut RxBatch, fd: BorrowedFd<'_>) -> usize {
        crate::sys::PollSet::new([fd.as_raw_fd()]).wait(5_000_000_000);
        rx.receive(fd, BATCH).unwrap()
    }

    #[test]
    fn a_batch_arrives_whole_with_sources_and_stamps_and_is_answered() {
        let socket = share("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let (mut rx, mut tx, peer) = (RxBatch::default(), TxBatch::default(), peer());
        let big = vec![b'x'; 65_000];
        peer.send_to(b"one", addr).unwrap();
        peer.send_to(&big, addr).unwrap();
        peer.send_to(b"", addr).unwrap();
        assert_eq!(take(&mut rx, socket.as_fd()), 3);
        let got: Vec<_> = (0..3).map(|i| rx.get(i).unwrap()).collect();
        assert_eq!(got.iter().map(|d| d.bytes).collect::<Vec<_>>(), [b"one", &big[..], b""]);
        for d in &got {
            assert_eq!((d.from, d.truncated), (peer.local_addr().unwrap(), false));
            assert!(d.received_unix_ns.unwrap().abs_diff(crate::clock::unix_ns()) < 5_000_000_000);
        }
        assert!(rx.get(3).is_none());
        let answers = got.iter().map(|d| Outgoing { bytes: d.bytes, to: d.from, from: None });
        assert_eq!(tx.send(socket.as_fd(), answers).unwrap(), 3);
        let mut buffer = vec![0; 65_536];
        for want in [3, 65_000, 0] {
            assert_eq!(peer.recv_from(&mut buffer).unwrap(), (want, addr));
        }
        assert_eq!(rx.receive(socket.as_fd(), BATCH).unwrap(), 0, "empty is no error");
    }

    #[test]
    fn an_unsendable_datagram_names_itself_and_the_rest_goes_on() {
        let socket = share("127.0.0.1:0".parse().unwrap()).unwrap();
        let (mut tx, peer) = (TxBatch::default(), peer());
        let to = peer.local_addr().unwrap();
        let big = vec![0; 65_530];
        let items = [&b"a"[..], &big, b"b"].map(|bytes| Outgoing { bytes, to, from: None });
        assert_eq!(tx.send(socket.as_fd(), items.iter().copied()).unwrap(), 1);
        let refused = tx.send(socket.as_fd(), items[1..].iter().copied());
        assert!(matches!(refused, Err(SendError::Refused(e)) if e.raw_os_error() == Some(libc::EMSGSIZE)));
        assert_eq!(tx.send(socket.as_fd(), items[2..].iter().copied()).unwrap(), 1);
        let mut buffer = [0; 8];
        assert_eq!(peer.recv(&mut buffer).unwrap(), 1);
        assert_eq!((peer.recv(&mut buffer).unwrap(), buffer[0]), (1, b'b'));
    }

    #[test]
    fn a_closed_port_at_the_other_end_eats_nothing() {
        let socket = share("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let (mut rx, mut tx, alive) = (RxBatch::default(), TxBatch::default(), peer());
        let dead = peer().local_addr().unwrap();
        for _ in 0..3 {
            let out = [dead, alive.local_addr().unwrap()].map(|to| Outgoing { bytes: b"x", to, from: None });
            assert_eq!(tx.send(socket.as_fd(), out.into_iter()).unwrap(), 2);
            alive.recv(&mut [0; 4]).unwrap();
        }
        alive.send_to(b"still here", addr).unwrap();
        assert_eq!(take(&mut rx, socket.as_fd()), 1);
        assert_eq!(rx.get(0).unwrap().bytes, b"still here");
    }

    #[test]
    fn a_wildcard_listener_answers_from_the_address_that_was_asked() {
        let socket = share("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let (mut rx, mut tx, peer) = (RxBatch::default(), TxBatch::default(), peer());
        let asked: SocketAddr = format!("127.0.0.9:{port}").parse().unwrap();
        peer.send_to(b"ping", asked).unwrap();
        assert_eq!(take(&mut rx, socket.as_fd()), 1);
        let d = rx.get(0).unwrap();
        assert_eq!(d.local, Some(asked.ip()));
        tx.send(socket.as_fd(), std::iter::once(Outgoing { bytes: b"pong", to: d.from, from: d.local })).unwrap();
        assert_eq!(peer.recv_from(&mut [0; 8]).unwrap(), (4, asked));
    }

    #[test]
    fn an_ipv6_wildcard_listener_does_so_too() {
        let socket = share("[::]:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let (mut rx, mut tx) = (RxBatch::default(), TxBatch::default());
        let peer = UdpSocket::bind("[::1]:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        peer.send_to(b"ping", ("::1", port)).unwrap();
        assert_eq!(take(&mut rx, socket.as_fd()), 1);
        let d = rx.get(0).unwrap();
        assert_eq!(d.local, Some("::1".parse().unwrap()));
        tx.send(socket.as_fd(), std::iter::once(Outgoing { bytes: b"pong", to: d.from, from: d.local })).unwrap();
        assert_eq!(peer.recv_from(&mut [0; 8]).unwrap().0, 4);
    }

    #[test]
    fn datagrams_that_the_kernel_dropped_are_counted() {
        let socket = share("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let (mut rx, peer) = (RxBatch::default(), peer());
        for _ in 0..100 {
            peer.send_to(&[0; 1000], addr).unwrap();
        }
        let kept = take(&mut rx, socket.as_fd());
        while rx.receive(socket.as_fd(), BATCH).unwrap() > 0 {}
        peer.send_to(b"after", addr).unwrap();
        assert_eq!(take(&mut rx, socket.as_fd()), 1);
        assert_eq!(rx.dropped().unwrap() as usize, 100 - kept);
    }
}
