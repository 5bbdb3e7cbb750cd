//! Datagram sockets: a request a datagram, over UDP or a Unix socket; its answer goes back in one.

use super::node::Node;
use super::{ControlPlane, FrontError, answer, mi, told};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

/// Requests at work at once on one socket; more wait in the socket.
const AT_ONCE: usize = 32;
/// Longest answer: what a UDP datagram over IPv4 holds. Clients read no more than 64 KiB from either kind.
pub const MAX_ANSWER: usize = 65_507;
/// How long a Unix client with a full queue is waited for.
const TRIES: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(20);

/// `udp:ADDR:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MiSocket {
    Udp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for MiSocket {
    type Err = String;
    fn from_str(s: &str) -> Result<MiSocket, String> {
        let form = || format!("`{s}` is not of the form udp:ADDR:PORT or unix:PATH, such as udp:127.0.0.1:8080");
        match s.split_once(':') {
            Some(("udp", addr)) => addr.parse().map(MiSocket::Udp).map_err(|_| form()),
            Some(("unix", path)) if !path.is_empty() => Ok(MiSocket::Unix(PathBuf::from(path))),
            _ => Err(form()),
        }
    }
}

impl fmt::Display for MiSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MiSocket::Udp(addr) => write!(f, "udp:{addr}"),
            MiSocket::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket, bound.
#[derive(Debug)]
pub struct Socket {
    name: String,
    wire: Wire,
    /// The socket's file; goes with the socket.
    _node: Option<Node>,
}

#[derive(Debug, Clone)]
enum Wire {
    Udp(Arc<UdpSocket>),
    Unix(Arc<UnixDatagram>),
}

/// Where an answer goes.
enum Peer {
    Udp(SocketAddr),
    Unix(PathBuf),
}

impl Socket {
    /// Binds it; `mode`: access bits of a Unix socket's file. Inside a runtime.
    ///
    /// # Errors
    /// When the address is taken or the path cannot be used.
    pub fn open(at: &MiSocket, mode: u32) -> Result<Socket, FrontError> {
        let failed = |source| FrontError::Datagram { socket: at.to_string(), source };
        let (wire, node) = match at {
            MiSocket::Udp(addr) => {
                let socket = std::net::UdpSocket::bind(addr).map_err(failed)?;
                socket.set_nonblocking(true).map_err(failed)?;
                (Wire::Udp(Arc::new(UdpSocket::from_std(socket).map_err(failed)?)), None)
            }
            MiSocket::Unix(path) => {
                let (node, socket) = Node::socket(path, mode)?;
                socket.set_nonblocking(true).map_err(failed)?;
                (Wire::Unix(Arc::new(UnixDatagram::from_std(socket).map_err(failed)?)), Some(node))
            }
        };
        let name = match &wire {
            Wire::Udp(socket) => format!("udp:{}", socket.local_addr().map_err(failed)?),
            Wire::Unix(_) => at.to_string(),
        };
        Ok(Socket { name, wire, _node: node })
    }

    /// `udp:ADDR:PORT`, the port known, or `unix:PATH`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Answers until told to stop.
    pub async fn serve(self, plane: Arc<ControlPlane>, mut stopped: watch::Receiver<bool>) {
        let working = Arc::new(Semaphore::new(AT_ONCE));
        let mut buf = vec![0; 65_536];
        loop {
            let (place, request) = tokio::select! {
                () = told(&mut stopped) => return,
                next = async {
                    let place = Arc::clone(&working).acquire_owned().await;
                    (place, self.wire.receive(&mut buf).await)
                } => next,
            };
            let (wire, plane) = (self.wire.clone(), Arc::clone(&plane));
            match request {
                Ok((n, peer)) => {
                    let request = buf[..n].to_vec();
                    tokio::spawn(async move {
                        wire.answer(plane, request, peer).await;
                        drop(place);
                    });
                }
                // An answer that its client did not wait for comes back as an error of the next receive.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    tracing::warn!(%error, socket = self.name, "a datagram was not received");
                    sleep(BETWEEN).await;
                }
            }
        }
    }
}

impl Wire {
    async fn receive(&self, buf: &mut [u8]) -> io::Result<(usize, Option<Peer>)> {
        match self {
            Wire::Udp(socket) => socket.recv_from(buf).await.map(|(n, from)| (n, Some(Peer::Udp(from)))),
            // A client without an address of its own can ask, and gets no answer.
            Wire::Unix(socket) => {
                let (n, from) = socket.recv_from(buf).await?;
                Ok((n, from.as_pathname().map(|p| Peer::Unix(p.to_owned()))))
            }
        }
    }

    async fn answer(&self, plane: Arc<ControlPlane>, request: Vec<u8>, peer: Option<Peer>) {
        let Some(mut text) = answer(plane, request.clone()).await else { return };
        if text.len() > MAX_ANSWER {
            let what = format!(
                "The answer is {} bytes long and a datagram holds {MAX_ANSWER}; ask over HTTP or the FIFO",
                text.len()
            );
            text = mi::refusal(&request, 500, &what);
        }
        let sent = match (self, peer) {
            (Wire::Udp(socket), Some(Peer::Udp(to))) => socket.send_to(&text, to).await.map(drop),
            (Wire::Unix(socket), Some(Peer::Unix(to))) => send_unix(socket, &text, &to).await,
            _ => return,
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "an answer in a datagram was not sent");
        }
    }
}

/// A full queue of the peer does not wake the sender, so it is tried again now and then.
async fn send_unix(socket: &UnixDatagram, text: &[u8], to: &std::path::Path) -> io::Result<()> {
    for _ in 0..TRIES {
        match socket.try_send_to(text, to) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => sleep(BETWEEN).await,
            outcome => return outcome.map(drop),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))
}
