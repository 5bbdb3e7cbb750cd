//! Before the start: locks on the data directory and the listeners, and the sockets.

use crate::error::StartError;
use crate::lock::{self, Lock};
use crate::net::{self, OwnSockets};
use socket2::Socket;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strowger_sip::net::Transport;

/// A listening address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSpec {
    pub transport: Transport,
    /// Port 0: a free one.
    pub addr: SocketAddr,
    /// Shard n has a socket of its own on this port + n as well.
    pub shard_port_base: Option<u16>,
}

/// Locks held and sockets bound; nothing is read from them yet.
#[derive(Debug)]
pub struct Bound {
    pub(crate) shards: u16,
    addrs: Vec<SocketAddr>,
    /// By shard, then by listener.
    pub(crate) shares: Vec<Vec<Socket>>,
    pub(crate) own: OwnSockets,
    pub(crate) locks: Vec<Lock>,
}

impl Bound {
    /// The listeners' addresses, in their order, ports known.
    #[must_use]
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.addrs.clone()
    }
}

/// Locks the data directory and the listeners, and binds a share of each listener for each shard.
///
/// # Errors
/// [`StartError`]: names what is in use by whom, or what is wrong.
pub fn bind(data_dir: &Path, listeners: &[ListenerSpec], shards: u16) -> Result<Bound, StartError> {
    if !(1..=1024).contains(&shards) {
        return Err(StartError::Shards { shards });
    }
    if listeners.is_empty() {
        return Err(StartError::NoListener);
    }
    if listeners.len() > usize::from(u8::MAX) {
        return Err(StartError::TooManyListeners(listeners.len()));
    }
    let mut bound = Bound {
        shards,
        addrs: Vec::new(),
        shares: (0..shards).map(|_| Vec::new()).collect(),
        own: Arc::new([]),
        locks: vec![lock::data_dir(data_dir)?],
    };
    let mut own = Vec::new();
    for spec in listeners {
        if spec.transport != Transport::Udp {
            return Err(StartError::Transport { transport: spec.transport, addr: spec.addr });
        }
        bound.listen(spec.addr)?;
        own.push(spec.shard_port_base.map(|base| bound.own_sockets(spec.addr.ip(), base)).transpose()?);
    }
    bound.own = own.into();
    Ok(bound)
}

impl Bound {
    fn listen(&mut self, wanted: SocketAddr) -> Result<(), StartError> {
        let failed = |addr| move |error| StartError::bind(addr, error);
        let mut first = None;
        let mut addr = wanted;
        if wanted.port() == 0 {
            let socket = net::share(wanted).map_err(failed(wanted))?;
            addr.set_port(local_port(&socket).map_err(failed(wanted))?);
            first = Some(socket);
        }
        self.locks.push(lock::udp_addr(addr)?);
        if first.is_none() {
            probe(addr).map_err(failed(addr))?;
        }
        for shares in &mut self.shares {
            shares.push(first.take().map_or_else(|| net::share(addr), Ok).map_err(failed(addr))?);
        }
        self.addrs.push(addr);
        Ok(())
    }

    fn own_sockets(&mut self, ip: IpAddr, base: u16) -> Result<Vec<Socket>, StartError> {
        let mut sockets = Vec::new();
        for shard in 0..self.shards {
            let addr = SocketAddr::new(ip, base.saturating_add(shard));
            self.locks.push(lock::udp_addr(addr)?);
            probe(addr).map_err(|e| StartError::bind(addr, e))?;
            sockets.push(net::share(addr).map_err(|e| StartError::bind(addr, e))?);
        }
        Ok(sockets)
    }
}

/// Whether the address is free. A socket that no process has any more is on its way out (the kernel takes an ended
/// process's io_uring requests down after it, and with them their sockets): it is given a second.
fn probe(addr: SocketAddr) -> std::io::Result<()> {
    let began = Instant::now();
    loop {
        match net::probe(addr) {
            Err(e)
                if e.kind() == std::io::ErrorKind::AddrInUse
                    && began.elapsed() < Duration::from_secs(1)
                    && lock::udp_holder(addr).is_none() =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

fn local_port(socket: &Socket) -> std::io::Result<u16> {
    Ok(socket.local_addr()?.as_socket().map_or(0, |a| a.port()))
}
