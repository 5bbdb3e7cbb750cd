//! Delivery to one subscriber: its queue into its socket. Only this task waits for a subscriber that is slow.

use super::{Counts, Message, socket::EventSocket};
use rustix::net::{MMsgHdr, RecvFlags, SendAncillaryBuffer, SendFlags};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, lookup_host};
use tokio::time::{sleep, timeout};

/// How long a name may take to be looked up, and a connection to be made.
const CONNECT: Duration = Duration::from_secs(3);
/// Pauses between two tries, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a Unix socket that is not read is looked at, whether its reader is still there.
const PEEP: Duration = Duration::from_secs(1);
/// Messages that go into one write.
const GATHER: usize = 64;
/// Pause after each write of datagrams: under load, a call for many costs a fraction of one for each.
const REST: Duration = Duration::from_millis(1);

/// A subscriber's socket; Unix sockets and streams connect when they have something to send.
#[derive(Debug)]
pub enum Wire {
    Udp(UdpSocket),
    Unix(PathBuf),
    Tcp(String),
}

impl Wire {
    /// Opens it. A peer that is not there yet is no error.
    ///
    /// # Errors
    /// When the host has no address, or the process no sockets.
    pub async fn open(socket: &EventSocket) -> io::Result<Wire> {
        match socket {
            EventSocket::Udp(addr) => {
                let peer = address(addr).await?;
                let any = if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(peer).await?;
                Ok(Wire::Udp(socket))
            }
            EventSocket::Unix(path) => Ok(Wire::Unix(path.clone())),
            EventSocket::Tcp { addr, .. } => {
                address(addr).await?;
                Ok(Wire::Tcp(addr.clone()))
            }
        }
    }
}

async fn address(addr: &str) -> io::Result<SocketAddr> {
    let found = timeout(CONNECT, lookup_host(addr)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    found.into_iter().next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address"))
}

/// Sends what comes until the queue is gone.
pub async fn run(wire: Wire, messages: flume::Receiver<Message>, counts: Arc<Counts>) {
    match wire {
        Wire::Udp(socket) => udp(&socket, &messages, &counts).await,
        Wire::Unix(path) => {
            let mut open = None;
            while let Ok(message) = messages.recv_async().await {
                if unix(&mut open, &path, &message).await.is_err() {
                    counts.lost.fetch_add(1, Relaxed);
                }
            }
        }
        Wire::Tcp(addr) => Stream { addr, open: None, pause: FIRST_PAUSE }.run(messages, &counts).await,
    }
}

/// One message at once; what comes in the [`REST`] after it goes together, in one system call.
async fn udp(socket: &UdpSocket, messages: &flume::Receiver<Message>, counts: &Counts) {
    while let Ok(first) = messages.recv_async().await {
        let mut batch = vec![first];
        while !batch.is_empty() {
            datagrams(socket, &batch, counts).await;
            sleep(REST).await;
            batch = messages.try_iter().take(GATHER).collect();
        }
    }
}

/// Sends them all. What cannot be sent is counted and passed over.
async fn datagrams(socket: &UdpSocket, batch: &[Message], counts: &Counts) {
    let mut rest = batch;
    let mut refused = false;
    while !rest.is_empty() {
        match socket.async_io(Interest::WRITABLE, || Ok(send(socket, rest)?)).await {
            Ok(sent) => (rest, refused) = (&rest[sent..], false),
            // An earlier datagram found nobody; this one has not been sent for it.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && !refused => {
                counts.lost.fetch_add(1, Relaxed);
                refused = true;
            }
            Err(_) => {
                counts.lost.fetch_add(1, Relaxed);
                (rest, refused) = (&rest[1..], false);
            }
        }
    }
}

/// How many of them the kernel took.
fn send(socket: &UdpSocket, messages: &[Message]) -> rustix::io::Result<usize> {
    let texts: Vec<[IoSlice<'_>; 1]> = messages.iter().map(|m| [IoSlice::new(m)]).collect();
    let mut notes: Vec<_> = messages.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut headers: Vec<_> = texts.iter().zip(&mut notes).map(|(text, note)| MMsgHdr::new(text, note)).collect();
    rustix::net::sendmmsg(socket, &mut headers, SendFlags::DONTWAIT)
}

/// A reader that is gone may have come back under the same path: once more with a new connection.
async fn unix(open: &mut Option<UnixDatagram>, path: &Path, message: &[u8]) -> io::Result<()> {
    if let Some(socket) = open {
        match patient(socket, message).await {
            Ok(()) => return Ok(()),
            Err(_) => *open = None,
        }
    }
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    patient(open.insert(socket), message).await
}

/// Waits while the reader's queue is full. Connected, so that the kernel tells when it has room.
async fn patient(socket: &UnixDatagram, message: &[u8]) -> io::Result<()> {
    loop {
        match timeout(PEEP, socket.send(message)).await {
            Ok(sent) => return sent.map(drop),
            Err(_) => {
                // A reader that went away while we waited shows itself here.
                match socket.try_send(message) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    sent => return sent.map(drop),
                }
            }
        }
    }
}

/// A connection that comes and goes.
struct Stream {
    addr: String,
    open: Option<TcpStream>,
    pause: Duration,
}

impl Stream {
    async fn run(mut self, messages: flume::Receiver<Message>, counts: &Counts) {
        loop {
            let first = tokio::select! {
                message = messages.recv_async() => match message {
                    Ok(message) => message,
                    Err(_) => return,
                },
                () = closed(self.open.as_ref()) => {
                    self.open = None;
                    continue;
                }
            };
            let mut batch = first.to_vec();
            let mut count = 1;
            while count < GATHER
                && let Ok(message) = messages.try_recv()
            {
                batch.extend_from_slice(&message);
                count += 1;
            }
            if !alive(self.open.as_ref()) {
                self.open = None;
            }
            if self.stream().await.write_all(&batch).await.is_err() {
                self.open = None;
                counts.lost.fetch_add(count as u64, Relaxed);
            }
        }
    }

    /// The connection; tries until there is one.
    async fn stream(&mut self) -> &mut TcpStream {
        while self.open.is_none() {
            match timeout(CONNECT, TcpStream::connect(&self.addr)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    self.open = Some(stream);
                    self.pause = FIRST_PAUSE;
                }
                _ => {
                    sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        // The loop has just ended with one.
        self.open.as_mut().unwrap_or_else(|| unreachable!("a connection"))
    }
}

/// What the peer says is passed over; false when it has closed. Asks the kernel, not the runtime, which hears of an
/// end a moment later: what is written in that moment would be lost.
fn alive(stream: Option<&TcpStream>) -> bool {
    let Some(stream) = stream else { return false };
    let mut said = [0; 1024];
    loop {
        match rustix::net::recv(stream, &mut said[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return false,
            Ok(_) => {}
            Err(e) => return e == rustix::io::Errno::AGAIN,
        }
    }
}

/// Ends when the peer has closed.
async fn closed(stream: Option<&TcpStream>) {
    let Some(stream) = stream else { return std::future::pending().await };
    let mut said = [0; 1024];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut said) {
            Ok(0) => return,
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}
