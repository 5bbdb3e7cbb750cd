//! UDP sockets of our own making, and datagrams in batches.
//!
//! Every shard has a share (SO_REUSEPORT) of each listener; everything is sent from the listener's own address and
//! port. Receive buffers are as large as the kernel grants, because a queue that it drops from silently is worse
//! than one that we drain and shed with an answer.

mod batch;
mod local;
mod sockets;

pub use batch::{BATCH, Datagram, MAX_DATAGRAM, Outgoing, RxBatch, SendError, TxBatch};
pub use local::LocalAddrs;
pub use sockets::{Inlet, OwnSockets, Sockets};

use crate::sys::set_option;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// Bytes of socket buffer asked for in each direction; the kernel may grant less (net.core.rmem_max).
const SOCKET_BUFFER: usize = 8 << 20;

/// A socket bound to `addr`, sharing the port with the other shards of this process.
///
/// # Errors
/// Whatever the kernel answers to socket, setsockopt or bind.
pub fn share(addr: SocketAddr) -> io::Result<Socket> {
    let socket = plain(addr)?;
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    grow(&socket);
    let fd = socket.as_fd();
    set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    if addr.ip().is_unspecified() {
        // Which of the machine's addresses a datagram came to, so that the answer leaves from it.
        match addr {
            SocketAddr::V4(_) => set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
            SocketAddr::V6(_) => set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
        }
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Binds `addr` without sharing and lets it go again: fails when anybody holds it, even with SO_REUSEPORT.
///
/// # Errors
/// `AddrInUse` when it is held; whatever else the kernel answers to bind.
pub fn probe(addr: SocketAddr) -> io::Result<()> {
    plain(addr)?.bind(&addr.into())
}

fn plain(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        // IPv4 has listeners of its own; mapped addresses would give a peer two names.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Asks for large buffers: beyond the administrator's limit where we may, else up to it.
fn grow(socket: &Socket) {
    let bytes = libc::c_int::try_from(SOCKET_BUFFER).unwrap_or(libc::c_int::MAX);
    for (force, usual) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if set_option(socket.as_fd(), libc::SOL_SOCKET, force, bytes).is_err() {
            // Not privileged: the kernel clamps this one to its limit by itself, so it cannot fail for its size.
            let _ = set_option(socket.as_fd(), libc::SOL_SOCKET, usual, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_one_port_coexist_and_the_probe_sees_them() {
        let first = share("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = first.local_addr().unwrap().as_socket().unwrap();
        let second = share(addr).unwrap();
        assert_eq!(probe(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop((first, second));
        probe(addr).unwrap();
    }

    #[test]
    fn ipv6_and_ipv4_wildcards_of_one_port_are_two_listeners() {
        let v4 = share("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = v4.local_addr().unwrap().as_socket().unwrap().port();
        share(SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port)).unwrap();
    }

    #[test]
    fn the_receive_buffer_is_far_above_the_default() {
        let socket = share("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(socket.recv_buffer_size().unwrap() >= 212_992);
    }
}
