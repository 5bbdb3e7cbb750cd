//! Where messages come from and go to, as values.

use std::net::SocketAddr;

/// Transports of RFC 3261 and RFC 7118.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transport {
    #[default]
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl Transport {
    /// The name in a Via header ("UDP", ...).
    #[must_use]
    pub const fn via_name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Ws => "WS",
            Transport::Wss => "WSS",
        }
    }

    /// Whether the transport itself retransmits (RFC 3261 section 17: no timers A, E, G, K, I, J then).
    #[must_use]
    pub const fn reliable(self) -> bool {
        !matches!(self, Transport::Udp)
    }
}

/// Index of a configured listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ListenerId(pub u8);

/// One hop as a shard sees it: the peer's address, and the listener (and connection) that reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    pub remote: SocketAddr,
    pub listener: ListenerId,
    pub transport: Transport,
    /// Connection of a stream transport, 0 for datagrams.
    pub conn: u32,
}

impl Path {
    /// A datagram path through `listener`.
    #[must_use]
    pub const fn udp(remote: SocketAddr, listener: ListenerId) -> Path {
        Path { remote, listener, transport: Transport::Udp, conn: 0 }
    }
}
