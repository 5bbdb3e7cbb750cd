//! One endpoint under virtual time, and short messages to feed it.
#![allow(dead_code)] // each test file uses its part

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use strowger_sip::endpoint::{
    ClientTxn, Counts, Endpoint, EndpointConfig, Event, ListenerInfo, Outgoing, ServerTxn, Target, TimerEvent,
};
use strowger_sip::hash::HashKey;
use strowger_sip::msg::{Limits, Message, Method, Reply, write_answer};
use strowger_sip::net::{ListenerId, Path, Transport};
use strowger_sip::time::Mono;

pub const SECOND: u64 = 1_000_000;
/// Life of an unanswered transaction, 64*T1.
pub const LIFE: u64 = 32 * SECOND;
pub const BUCKET: u16 = 0x0ab;

pub fn config() -> EndpointConfig {
    let listener = |transport, via: &str| ListenerInfo { transport, via: via.into(), contact_host: via.into() };
    EndpointConfig {
        listeners: vec![listener(Transport::Udp, "192.0.2.9:5060"), listener(Transport::Tcp, "192.0.2.9:5060")],
        ..EndpointConfig::default()
    }
}

pub fn endpoint(cfg: EndpointConfig, seed: u8) -> Endpoint {
    Endpoint::new(Arc::new(cfg), HashKey(1, 2), [seed; 32], BUCKET)
}

pub fn peer_addr() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 5060))
}

pub fn udp() -> Path {
    Path::udp(peer_addr(), ListenerId(0))
}

pub fn tcp() -> Path {
    Path { remote: peer_addr(), listener: ListenerId(1), transport: Transport::Tcp, conn: 7 }
}

/// A request of the peer.
#[derive(Debug, Clone)]
pub struct Req {
    pub method: &'static str,
    pub uri: &'static str,
    pub branch: String,
    pub from_tag: &'static str,
    pub to_tag: String,
    pub call_id: String,
    pub cseq: u32,
    pub extra: String,
    pub body: &'static str,
}

impl Req {
    pub fn new(method: &'static str, branch: &str) -> Req {
        Req {
            method,
            uri: "sip:flow@strowger.example",
            branch: branch.to_owned(),
            from_tag: "a1",
            to_tag: String::new(),
            call_id: "c1@192.0.2.1".to_owned(),
            cseq: 1,
            extra: "Contact: <sip:alice@192.0.2.1>\r\nMax-Forwards: 70\r\n".to_owned(),
            body: "",
        }
    }

    pub fn invite() -> Req {
        Req::new("INVITE", "z9hG4bK1")
    }

    pub fn line(mut self, line: &str) -> Req {
        self.extra.push_str(line);
        self.extra.push_str("\r\n");
        self
    }

    /// The ACK or CANCEL of the same transaction.
    pub fn same(&self, method: &'static str) -> Req {
        Req { method, body: "", ..self.clone() }
    }

    pub fn tagged(mut self, tag: &str) -> Req {
        self.to_tag = tag.to_owned();
        self
    }
}

impl fmt::Display for Req {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Req { method, uri, branch, from_tag, to_tag, call_id, cseq, extra, body } = self;
        let to = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
        write!(
            f,
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch={branch};rport\r\n\
             From: <sip:alice@example.com>;tag={from_tag}\r\nTo: <sip:flow@strowger.example>{to}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{extra}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// An endpoint, its clock and what it sent.
pub struct Side {
    pub ep: Endpoint,
    pub now: Mono,
    /// When, and what.
    pub log: Vec<(u64, String)>,
    pub paths: Vec<Path>,
}

impl Default for Side {
    fn default() -> Side {
        Side::new(config())
    }
}

impl Side {
    pub fn new(cfg: EndpointConfig) -> Side {
        Side { ep: endpoint(cfg, 1), now: Mono(5 * SECOND), log: Vec::new(), paths: Vec::new() }
    }

    pub fn receive(&mut self, text: impl fmt::Display) -> Option<Event> {
        self.receive_on(udp(), text)
    }

    pub fn receive_on(&mut self, path: Path, text: impl fmt::Display) -> Option<Event> {
        let text = text.to_string();
        let event = match Message::parse(text.as_bytes(), &Limits::default()) {
            Ok(msg) => self.ep.receive(self.now, path, &msg),
            Err(err) => {
                self.ep.receive_malformed(self.now, path, text.as_bytes(), err);
                None
            }
        };
        self.drain();
        event
    }

    /// A request that must reach the TU.
    pub fn request(&mut self, text: impl fmt::Display) -> ServerTxn {
        self.request_on(udp(), text)
    }

    pub fn request_on(&mut self, path: Path, text: impl fmt::Display) -> ServerTxn {
        match self.receive_on(path, text) {
            Some(Event::Request { txn }) => txn,
            other => panic!("no request but {other:?}; sent {:?}", self.log),
        }
    }

    pub fn respond(&mut self, txn: ServerTxn, code: u16) {
        self.ep.respond(self.now, txn, &Reply { code, to_tag: b"ours", ..Reply::default() });
        self.drain();
    }

    /// Sends a request of ours to the peer.
    pub fn send(&mut self, method: Method<'_>, user: u64) -> ClientTxn {
        self.send_to(method, Target::Addr(udp()), user)
    }

    pub fn send_to(&mut self, method: Method<'_>, target: Target<'_>, user: u64) -> ClientTxn {
        let head = head(method, 1, "");
        let req = Outgoing {
            method,
            uri: b"sip:bob@192.0.2.1",
            target,
            head: head.as_bytes(),
            content_type: b"",
            body: b"",
            stamp: 42,
            bucket: None,
        };
        let txn = self.ep.request(self.now, &req, user);
        self.drain();
        txn
    }

    /// Sends our ACK of a 2xx whose To tag is `tag`.
    pub fn ack(&mut self, txn: ClientTxn, tag: &str) {
        let head = head(Method::Ack, 1, tag);
        let req = Outgoing {
            method: Method::Ack,
            uri: b"sip:bob@192.0.2.1",
            target: Target::Addr(udp()),
            head: head.as_bytes(),
            content_type: b"",
            body: b"",
            stamp: 0,
            bucket: None,
        };
        self.ep.ack_2xx(self.now, txn, &req);
        self.drain();
    }

    pub fn cancel(&mut self, txn: ClientTxn) {
        self.ep.cancel(self.now, txn);
        self.drain();
    }

    pub fn drain(&mut self) {
        while let Some(t) = self.ep.poll_transmit() {
            self.log.push((self.now.0, String::from_utf8_lossy(self.ep.bytes(&t)).into_owned()));
            self.paths.push(t.path);
            self.ep.sent(t);
        }
    }

    /// What was sent since the last call.
    pub fn sent(&mut self) -> Vec<String> {
        self.paths.clear();
        self.log.drain(..).map(|(_, text)| text).collect()
    }

    /// First lines of what was sent since the last call.
    pub fn sent_lines(&mut self) -> Vec<String> {
        self.sent().iter().map(|text| first_line(text)).collect()
    }

    /// The one message sent since the last call.
    #[track_caller]
    pub fn one(&mut self) -> String {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:#?}");
        sent.remove(0)
    }

    /// Lets `us` microseconds pass; what they brought. Times in the log count from the start of the wait.
    pub fn wait(&mut self, us: u64) -> Vec<TimerEvent> {
        let start = self.now;
        let end = self.now.plus_us(us);
        let logged = self.log.len();
        let mut events = Vec::new();
        while let Some(due) = self.ep.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            events.extend(std::iter::from_fn(|| self.ep.poll_timer(self.now)));
            self.drain();
        }
        self.now = end;
        self.log[logged..].iter_mut().for_each(|(at, _)| *at -= start.0);
        events
    }

    /// Milliseconds at which messages went out during the last wait, and forgets them.
    pub fn sent_ms(&mut self) -> Vec<u64> {
        self.paths.clear();
        self.log.drain(..).map(|(at, _)| at / 1000).collect()
    }

    #[track_caller]
    pub fn assert_at_rest(&self) {
        assert_eq!(self.ep.counts(), Counts::default());
    }
}

pub fn head(method: Method<'_>, cseq: u32, to_tag: &str) -> String {
    let to = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
    format!(
        "Max-Forwards: 70\r\nRoute: <sip:192.0.2.1;lr>\r\nFrom: <sip:flow@strowger.example>;tag=ours\r\n\
         To: <sip:bob@example.com>{to}\r\nCall-ID: out1\r\nCSeq: {cseq} {method}\r\n"
    )
}

/// The peer's answer to our request `text`.
pub fn answer(text: &str, code: u16, to_tag: &str) -> String {
    let msg = Message::parse(text.as_bytes(), &Limits::default()).expect("our own request parses");
    let mut out = Vec::new();
    let reply = Reply { code, to_tag: to_tag.as_bytes(), contact: b"<sip:bob@192.0.2.1>", ..Reply::default() };
    write_answer(&msg, SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), 5060), &reply, &mut out);
    String::from_utf8(out).expect("ASCII")
}

pub fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Value of the first header line with this name.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
}
