//! Sockets of the loop: datagrams in and out in batches (recvmmsg, sendmmsg), and waiting with nanosecond time-outs.

use std::{
    io,
    mem::{self, MaybeUninit},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    ptr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Most datagrams moved by one system call.
const BATCH: usize = 64;
/// Longest datagram read; more is cut, which the parser then sees by its Content-Length.
const DATAGRAM: usize = 8192;
/// Socket buffers: bursts of tens of thousands of messages must not be lost in the generator itself.
const RECEIVE_BUFFER: usize = 32 << 20;
const SEND_BUFFER: usize = 8 << 20;

/// A bound, non-blocking UDP socket with large buffers.
///
/// # Errors
/// What the system says to socket or bind.
pub fn open(address: IpAddr) -> io::Result<UdpSocket> {
    let local = SocketAddr::new(address, 0);
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    for (forced, plain, size) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER)]
    {
        // Only root may pass the system's limit; others get what it allows.
        if !set_option(&socket, forced, size) {
            set_option(&socket, plain, size);
        }
    }
    // Where the kernel does not stamp datagrams, they count from when they are read.
    set_option(&socket, libc::SO_TIMESTAMPNS, 1);
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    Ok(socket.into())
}

fn set_option(socket: &Socket, option: libc::c_int, size: usize) -> bool {
    let size = size as libc::c_int;
    let length = mem::size_of_val(&size) as libc::socklen_t;
    // SAFETY: the pointer and length describe `size`, which lives through the call; the descriptor is open.
    unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const size).cast(), length) == 0 }
}

/// The receive buffer that the system granted, in bytes (half of what Linux says: the rest is its own bookkeeping).
pub fn receive_buffer(socket: &UdpSocket) -> usize {
    socket2::SockRef::from(socket).recv_buffer_size().map_or(0, |size| size / 2)
}

/// Datagrams that the kernel threw away since the receive buffer was full; 0 where it does not tell.
pub fn kernel_drops(socket: &UdpSocket) -> u64 {
    const SO_MEMINFO: libc::c_int = 55;
    const SK_MEMINFO_DROPS: usize = 8;
    let mut info = [0u32; 9];
    let mut length = mem::size_of_val(&info) as libc::socklen_t;
    let (fd, level) = (socket.as_raw_fd(), libc::SOL_SOCKET);
    // SAFETY: the pointer and length describe `info`, which lives through the call; the kernel writes at most `length`.
    let result = unsafe { libc::getsockopt(fd, level, SO_MEMINFO, info.as_mut_ptr().cast(), &raw mut length) };
    if result == 0 && length as usize == mem::size_of_val(&info) { u64::from(info[SK_MEMINFO_DROPS]) } else { 0 }
}

/// CPU time, user and system, of the calling thread.
pub fn thread_cpu() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole rusage; all-zero is a valid value of it, should the call fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time =
        |t: libc::timeval| Duration::new(t.tv_sec.max(0) as u64, 0) + Duration::from_micros(t.tv_usec.max(0) as u64);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Most sockets of a loop.
pub const MAX_SOCKETS: usize = 3;

/// Waits until a socket is readable or the time is over; returns which ones are.
pub fn wait_readable(sockets: &[UdpSocket], limit: Duration) -> [bool; MAX_SOCKETS] {
    let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; MAX_SOCKETS];
    for (entry, socket) in polled.iter_mut().zip(sockets) {
        entry.fd = socket.as_raw_fd();
    }
    let limit = libc::timespec {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(limit.subsec_nanos() as i32),
    };
    // SAFETY: pointer and length describe `polled` (entries with descriptor -1 are skipped); `limit` lives through the
    // call; a null mask changes none. An interrupted wait is an early return, which the caller's loop bears.
    unsafe { libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, &raw const limit, ptr::null()) };
    // A socket in error is read too: that takes the error off it.
    polled.map(|entry| entry.revents != 0)
}

/// The wall clock, nanoseconds since 1970, as the kernel stamps datagrams.
pub fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Room for what the kernel says of a datagram: one time stamp.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// When the kernel got the datagram, nanoseconds since 1970.
fn stamp(header: &libc::msghdr) -> Option<u64> {
    // SAFETY: the kernel has filled `header`, whose control buffer lives, is aligned for cmsghdr, and whose length says how much
    // of it is valid: CMSG_FIRSTHDR returns null or a whole header in it.
    let said = unsafe { libc::CMSG_FIRSTHDR(header).as_ref()? };
    if (said.cmsg_level, said.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
        return None;
    }
    // SAFETY: a message of this type has a timespec behind its header, maybe unaligned.
    let time = unsafe { libc::CMSG_DATA(said).cast::<libc::timespec>().read_unaligned() };
    Some(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

/// Buffers for one batch of received datagrams.
pub struct Inbox {
    buffers: Box<[[u8; DATAGRAM]; BATCH]>,
    sources: Box<[libc::sockaddr_storage; BATCH]>,
    controls: Box<[Control; BATCH]>,
    stamps: [Option<u64>; BATCH],
    lengths: [usize; BATCH],
    count: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        let buffers = vec![[0; DATAGRAM]; BATCH].into_boxed_slice();
        Self {
            // The vector has BATCH entries: the conversion cannot fail.
            buffers: buffers.try_into().expect("BATCH buffers"),
            // SAFETY: all-zero is a valid sockaddr_storage (of no family).
            sources: Box::new(unsafe { mem::zeroed() }),
            controls: Box::new([Control([0; 64]); BATCH]),
            stamps: [None; BATCH],
            lengths: [0; BATCH],
            count: 0,
        }
    }
}

impl Inbox {
    /// Reads what waits on a socket, at most [`BATCH`] datagrams; returns whether there may be more.
    pub fn receive(&mut self, socket: &UdpSocket) -> bool {
        let mut parts: [libc::iovec; BATCH] =
            std::array::from_fn(|at| libc::iovec { iov_base: self.buffers[at].as_mut_ptr().cast(), iov_len: DATAGRAM });
        // SAFETY: all-zero is a valid mmsghdr (null pointers, zero lengths).
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        for at in 0..BATCH {
            let header = &mut headers[at].msg_hdr;
            header.msg_name = (&raw mut self.sources[at]).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut parts[at];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[at]).cast();
            header.msg_controllen = mem::size_of::<Control>() as _;
        }
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: each header points to its own buffer, part, source and control buffer, of the lengths given, and all of them outlive
        // the call; the kernel fills at most BATCH of them.
        let count =
            unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), BATCH as libc::c_uint, flags as _, ptr::null_mut()) };
        // An error here is an empty socket, or the ICMP answer to a datagram sent to a closed port: nothing to read.
        self.count = usize::try_from(count).unwrap_or(0);
        for (at, header) in headers[..self.count].iter().enumerate() {
            self.lengths[at] = (header.msg_len as usize).min(DATAGRAM);
            self.stamps[at] = stamp(&header.msg_hdr);
        }
        self.count == BATCH
    }

    /// The datagrams of the last batch with their senders, and when the kernel got them (see [`unix_nanos`]).
    pub fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8], Option<u64>)> {
        (0..self.count).filter_map(|at| {
            let bytes = &self.buffers[at][..self.lengths[at]];
            socket_address(&self.sources[at]).map(|source| (source, bytes, self.stamps[at]))
        })
    }
}

fn socket_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in; the storage is large and aligned enough for any.
            let v4 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            Some(SocketAddr::from((v4.sin_addr.s_addr.to_ne_bytes(), u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for a sockaddr_in6.
            let v6 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            Some(SocketAddr::from((v6.sin6_addr.s6_addr, u16::from_be(v6.sin6_port))))
        }
        _ => None,
    }
}

/// Datagrams that wait for the end of the turn, to leave in batches.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Receiver and end of each datagram in `bytes`.
    queue: Vec<(SocketAddr, usize)>,
    begun: Option<SocketAddr>,
}

impl Outbox {
    /// Starts a datagram, to be appended to the returned buffer and ended by [`Outbox::end`].
    pub fn begin(&mut self, to: SocketAddr) -> &mut Vec<u8> {
        self.begun = Some(to);
        &mut self.bytes
    }

    /// Ends the datagram begun last, and returns it.
    pub fn end(&mut self) -> &[u8] {
        let start = self.queue.last().map_or(0, |(_, end)| *end);
        if let Some(to) = self.begun.take() {
            self.queue.push((to, self.bytes.len()));
        }
        &self.bytes[start..]
    }

    pub fn push(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.begin(to).extend_from_slice(datagram);
        self.end();
    }

    pub fn is_full(&self) -> bool {
        self.queue.len() >= BATCH
    }

    /// Sends everything; returns how many datagrams left. A receiver that cannot be reached loses its datagram, as
    /// UDP does. When the send buffer is full, what is left is sent by the next flush.
    pub fn flush(&mut self, socket: &UdpSocket) -> u64 {
        let mut sent = 0;
        while sent < self.queue.len() {
            match self.send_batch(socket, sent) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => sent += 1,
            }
        }
        if sent == self.queue.len() {
            self.queue.clear();
            self.bytes.clear();
        } else if sent > 0 {
            let from = self.queue[sent - 1].1;
            self.bytes.drain(..from);
            self.queue.drain(..sent);
            self.queue.iter_mut().for_each(|(_, end)| *end -= from);
        }
        sent as u64
    }

    fn send_batch(&mut self, socket: &UdpSocket, first: usize) -> io::Result<usize> {
        let count = (self.queue.len() - first).min(BATCH);
        // SAFETY: all-zero is a valid iovec and mmsghdr (null pointers, zero lengths).
        let (mut parts, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) = unsafe { mem::zeroed() };
        let mut addresses: [MaybeUninit<SockAddr>; BATCH] = [const { MaybeUninit::uninit() }; BATCH];
        let mut start = first.checked_sub(1).map_or(0, |before| self.queue[before].1);
        for at in 0..count {
            let (to, end) = self.queue[first + at];
            let address = addresses[at].write(to.into());
            parts[at].iov_base = self.bytes[start..end].as_mut_ptr().cast();
            parts[at].iov_len = end - start;
            start = end;
            let header = &mut headers[at].msg_hdr;
            header.msg_name = address.as_ptr().cast_mut().cast();
            header.msg_namelen = address.len();
            header.msg_iov = &raw mut parts[at];
            header.msg_iovlen = 1;
        }
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: the first `count` headers point to their own part and address, which outlive the call; sendmmsg only
        // reads what they point to. (SockAddr has no destructor that uninitialised entries would need.)
        let result = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), count as libc::c_uint, flags as _) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn batches_arrive_whole_and_in_order() {
        let (a, b) = (open(Ipv4Addr::LOCALHOST.into()).unwrap(), open(Ipv4Addr::LOCALHOST.into()).unwrap());
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
        let to = b.local_addr().unwrap();
        // The kernel begins to stamp some time after it was asked to.
        outbox.push(to, b"early");
        outbox.flush(&a);
        std::thread::sleep(Duration::from_millis(100));
        inbox.receive(&b);
        for number in 0..150u32 {
            outbox.push(to, format!("{number}").repeat(20).as_bytes());
        }
        assert!(outbox.is_full());
        assert_eq!(outbox.flush(&a), 150);
        assert_eq!(outbox.flush(&a), 0);
        let (mut next, sent) = (0, unix_nanos());
        std::thread::sleep(Duration::from_millis(5));
        while next < 150 {
            wait_readable(std::slice::from_ref(&b), Duration::from_secs(5));
            inbox.receive(&b);
            for (source, bytes, stamp) in inbox.datagrams() {
                assert!(stamp.is_some_and(|stamp| stamp <= sent), "when it came, not when it was read");
                assert_eq!(source, a.local_addr().unwrap());
                assert_eq!(bytes, format!("{next}").repeat(20).as_bytes());
                next += 1;
            }
        }
        assert_eq!(kernel_drops(&b), 0);
    }

    #[test]
    fn an_unreachable_receiver_does_not_stop_the_others() {
        let (a, b) = (open(Ipv4Addr::LOCALHOST.into()).unwrap(), open(Ipv4Addr::LOCALHOST.into()).unwrap());
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
        outbox.push("[::1]:9".parse().unwrap(), b"wrong family");
        outbox.push(b.local_addr().unwrap(), b"right");
        assert_eq!(outbox.flush(&a), 2);
        wait_readable(std::slice::from_ref(&b), Duration::from_secs(5));
        inbox.receive(&b);
        assert_eq!(inbox.datagrams().map(|(_, bytes, _)| bytes).collect::<Vec<_>>(), [b"right"]);
    }
}
