//! Sockets of subscribers, as `event_subscribe` names them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where notifications go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventSocket {
    /// A datagram each. The address or name, as `HOST:PORT`.
    Udp(String),
    /// A datagram each.
    Unix(PathBuf),
    /// One after the other on a connection; `method` takes the place of the event's name.
    Tcp { addr: String, method: Option<String> },
}

impl EventSocket {
    /// The method to call, if it is not the event.
    pub fn method(&self) -> Option<&str> {
        match self {
            EventSocket::Tcp { method, .. } => method.as_deref(),
            EventSocket::Udp(_) | EventSocket::Unix(_) => None,
        }
    }
}

impl FromStr for EventSocket {
    /// What was given.
    type Err = String;
    fn from_str(s: &str) -> Result<EventSocket, String> {
        let bad = || s.to_owned();
        // The Python client writes a Unix socket as its bare path.
        if s.starts_with('/') {
            return Ok(EventSocket::Unix(PathBuf::from(s)));
        }
        match s.split_once(':').ok_or_else(bad)? {
            ("udp", addr) => host_port(addr).map(EventSocket::Udp).ok_or_else(bad),
            ("unix", path) if !path.is_empty() && !path.contains('\0') => Ok(EventSocket::Unix(PathBuf::from(path))),
            ("tcp", rest) => {
                let (addr, method) = match rest.split_once('/') {
                    Some((addr, method)) => (addr, Some(method.to_owned()).filter(|m| !m.is_empty())),
                    None => (rest, None),
                };
                host_port(addr).map(|addr| EventSocket::Tcp { addr, method }).ok_or_else(bad)
            }
            _ => Err(bad()),
        }
    }
}

/// `HOST:PORT` with a port that can be sent to; an IPv6 address stands in brackets.
fn host_port(s: &str) -> Option<String> {
    let (host, port) = s.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|p| *p != 0)?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let plain = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let fits = bare.map_or(plain, |b| b.parse::<std::net::Ipv6Addr>().is_ok());
    fits.then(|| format!("{host}:{port}"))
}

impl fmt::Display for EventSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventSocket::Udp(addr) => write!(f, "udp:{addr}"),
            EventSocket::Unix(path) => write!(f, "unix:{}", path.display()),
            EventSocket::Tcp { addr, method: None } => write!(f, "tcp:{addr}"),
            EventSocket::Tcp { addr, method: Some(method) } => write!(f, "tcp:{addr}/{method}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read_as_the_field_writes_them() {
        let shown = |s: &str| s.parse::<EventSocket>().map(|s| s.to_string());
        for (given, reads) in [
            ("udp:127.0.0.1:9", "udp:127.0.0.1:9"),
            ("udp:[::1]:9", "udp:[::1]:9"),
            ("udp:desk.example.net:0009", "udp:desk.example.net:9"),
            ("unix:/tmp/s", "unix:/tmp/s"),
            ("/tmp/s", "unix:/tmp/s"),
            ("tcp:127.0.0.1:9", "tcp:127.0.0.1:9"),
            ("tcp:127.0.0.1:9/", "tcp:127.0.0.1:9"),
            ("tcp:127.0.0.1:9/agent_event", "tcp:127.0.0.1:9/agent_event"),
        ] {
            assert_eq!(shown(given).as_deref(), Ok(reads));
        }
        for bad in ["", "nonsense", "udp:", "udp:1.2.3.4", "udp:1.2.3.4:0", "udp:1.2.3.4:99999", "udp::9", "udp:::1:9"]
        {
            assert_eq!(shown(bad), Err(bad.to_owned()));
        }
        for bad in ["unix:", "tcp:x", "tcp:/m", "http://a:1", "udp:a b:9", "udp:[x]:9", "udp:127.0.0.1:9/m"] {
            assert_eq!(shown(bad), Err(bad.to_owned()));
        }
    }
}
