//! A shard's sockets: its share of each listener, and where asked for a socket of its own beside it.
//!
//! Which socket and source address an answer leaves from travels in `Path::conn`: low half the number of the local
//! address (0: the kernel chooses), high half 0 for the listener's port, or 1 + the shard whose own socket it was.
//! Own sockets are known to all shards, so that a datagram which was handed over is answered from where it came in.

use super::{LocalAddrs, RxBatch};
use socket2::Socket;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use strowger_sip::net::{ListenerId, Path, Transport};

/// By listener, then by shard; `None` where the listener has no `shard_port_base`.
pub type OwnSockets = Arc<[Option<Vec<Socket>>]>;

/// See the module.
#[derive(Debug)]
pub struct Sockets {
    shard: u16,
    /// By listener.
    shares: Vec<Socket>,
    own: OwnSockets,
    locals: Arc<LocalAddrs>,
    /// By inlet: what the kernel last said it had dropped.
    dropped: Vec<u32>,
}

/// One socket to read from.
#[derive(Debug, Clone, Copy)]
pub struct Inlet {
    /// Place in [`Sockets::inlets`] and [`Sockets::fds`].
    pub index: usize,
    listener: ListenerId,
    own: bool,
}

impl Sockets {
    /// `shares` by listener, in the order of `own`.
    #[must_use]
    pub fn new(shard: u16, shares: Vec<Socket>, own: OwnSockets, locals: Arc<LocalAddrs>) -> Sockets {
        let mut sockets = Sockets { shard, shares, own, locals, dropped: Vec::new() };
        sockets.dropped = vec![0; sockets.inlets().count()];
        sockets
    }

    /// What to read from.
    pub fn inlets(&self) -> impl Iterator<Item = Inlet> + use<> {
        let own: Vec<u8> = (0u8..).zip(self.own.iter()).filter(|(_, own)| own.is_some()).map(|(l, _)| l).collect();
        let shares = (0u8..).take(self.shares.len()).map(|l| (l, false));
        let all = shares.chain(own.into_iter().map(|l| (l, true)));
        all.enumerate().map(|(index, (l, own))| Inlet { index, listener: ListenerId(l), own })
    }

    /// Descriptors of the inlets, in order.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.inlets().filter_map(|inlet| self.fd(inlet.listener, if inlet.own { self.shard + 1 } else { 0 }))
    }

    fn fd(&self, listener: ListenerId, own: u16) -> Option<BorrowedFd<'_>> {
        let listener = usize::from(listener.0);
        let socket = match own.checked_sub(1) {
            None => self.shares.get(listener),
            Some(shard) => self.own.get(listener)?.as_ref()?.get(usize::from(shard)),
        };
        socket.map(AsFd::as_fd)
    }

    /// Takes a batch of at most so many from an inlet; how many, and how many the kernel had to drop since the last time.
    ///
    /// # Errors
    /// Those of [`RxBatch::receive`].
    pub fn receive(&mut self, inlet: Inlet, batch: &mut RxBatch, most: usize) -> std::io::Result<(usize, u32)> {
        let own = if inlet.own { self.shard + 1 } else { 0 };
        let Some(fd) = self.fd(inlet.listener, own) else { return Ok((0, 0)) };
        let n = batch.receive(fd, most)?;
        let (Some(told), Some(last)) = (batch.dropped(), self.dropped.get_mut(inlet.index)) else { return Ok((n, 0)) };
        Ok((n, told.wrapping_sub(std::mem::replace(last, told))))
    }

    /// The path of a datagram that came in.
    #[must_use]
    pub fn path(&self, inlet: Inlet, remote: std::net::SocketAddr, local: Option<IpAddr>) -> Path {
        let own = if inlet.own { u32::from(self.shard) + 1 } else { 0 };
        let conn = own << 16 | local.map_or(0, |ip| self.locals.number(ip));
        Path { conn, ..Path::udp(remote, inlet.listener) }
    }

    /// The socket and the source address that reach `path`; `None` when we have none.
    #[must_use]
    pub fn route(&self, path: &Path) -> Option<(BorrowedFd<'_>, Option<IpAddr>)> {
        if path.transport != Transport::Udp {
            return None;
        }
        let [high, low] = [path.conn >> 16, path.conn & 0xffff];
        Some((self.fd(path.listener, u16::try_from(high).ok()?)?, self.locals.get(low)))
    }

    /// Whether two paths leave by the same socket.
    #[must_use]
    pub fn together(a: &Path, b: &Path) -> bool {
        a.listener == b.listener && a.transport == b.transport && a.conn >> 16 == b.conn >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::super::share;
    use super::*;
    use std::net::{SocketAddr, UdpSocket};

    /// Two shards, one listener with own sockets: shard 1 answers what shard 0 received on its own socket, from there.
    #[test]
    fn what_came_in_on_another_shards_own_socket_is_answered_from_it() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let first = share(any).unwrap();
        let port = first.local_addr().unwrap().as_socket().unwrap();
        let own: OwnSockets = Arc::new([Some(vec![share(any).unwrap(), share(any).unwrap()])]);
        let locals = Arc::new(LocalAddrs::default());
        let mut zero = Sockets::new(0, vec![first], Arc::clone(&own), Arc::clone(&locals));
        let one = Sockets::new(1, vec![share(port).unwrap()], Arc::clone(&own), locals);
        let target = own[0].as_ref().unwrap()[0].local_addr().unwrap().as_socket().unwrap();
        let peer = UdpSocket::bind(any).unwrap();
        peer.send_to(b"x", target).unwrap();
        let mut batch = RxBatch::default();
        let inlets: Vec<Inlet> = zero.inlets().collect();
        assert_eq!((inlets.len(), zero.fds().count()), (2, 2));
        assert_eq!(zero.receive(inlets[0], &mut batch, 1).unwrap(), (0, 0));
        assert_eq!(zero.receive(inlets[1], &mut batch, 8).unwrap(), (1, 0));
        let path = zero.path(inlets[1], batch.get(0).unwrap().from, None);
        let (fd, from) = one.route(&path).unwrap();
        assert_eq!(from, None);
        socket2::SockRef::from(&fd).send_to(b"y", &path.remote.into()).unwrap();
        assert_eq!(peer.recv_from(&mut [0; 4]).unwrap(), (1, target));
        let shared = zero.path(inlets[0], path.remote, None);
        assert_eq!(shared.conn, 0);
        assert!(!Sockets::together(&path, &shared));
        assert!(one.route(&Path { transport: Transport::Tcp, ..shared }).is_none());
        assert!(one.route(&Path { listener: ListenerId(3), ..shared }).is_none());
    }
}
