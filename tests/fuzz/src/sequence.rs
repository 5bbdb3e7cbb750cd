//! Sequences of messages against a shard: bytes say who sends what, how it is damaged, and how time passes.
//!
//! Each step is an op byte and an argument. Peers know their dialogs from what the shard sent them: any message of its makes
//! an answer, an ACK, a request inside its dialog. In the end everybody falls silent, and the timers must end it all.

use crate::shard::{HERE, Shard, agent, flow};
use std::net::SocketAddr;
use strowger_engine::control::Control;
use strowger_engine::registry::{FlowRow, Rows};
use strowger_sip::msg::{Limits, Message, Method, Name};

/// Steps of one input; more say nothing new.
const STEPS: usize = 96;
/// Messages that peers remember.
const KEPT: usize = 48;

const SDP: &str = "v=0\r\no=p 1 1 IN IP4 10.0.9.1\r\ns=-\r\nc=IN IP4 10.0.9.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\n";
const MOVED: &str =
    "v=0\r\no=p 1 2 IN IP4 10.0.9.2\r\ns=-\r\nc=IN IP4 10.0.9.2\r\nt=0 0\r\nm=audio 4002 RTP/AVP 8\r\na=sendonly\r\n";
const CHAT: &str = "v=0\r\no=p 1 1 IN IP4 10.0.9.1\r\ns=-\r\nc=IN IP4 10.0.9.1\r\nt=0 0\r\nm=message 4000 TCP/MSRP *\r\na=path:msrp://h:1/a;tcp\r\n";
const DTLS: &str = "v=0\r\no=p 1 1 IN IP4 10.0.9.1\r\ns=-\r\nc=IN IP4 10.0.9.1\r\nt=0 0\r\nm=audio 4000 UDP/TLS/RTP/SAVPF 0\r\na=setup:actpass\r\nm=video 0 RTP/AVP 31\r\n";
const MIXED: &str = "--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\no=p 1 1 IN IP4 10.0.9.1\r\ns=-\r\nc=IN IP4 10.0.9.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n\r\n--b--\r\n";
/// Content type and body.
const BODIES: [(&str, &str); 8] = [
    ("application/sdp", SDP),
    ("", ""),
    ("application/sdp", MOVED),
    ("application/sdp", CHAT),
    ("application/sdp", DTLS),
    ("multipart/mixed;boundary=b", MIXED),
    ("application/sdp", "v=0\r\n"),
    ("text/plain", "hello"),
];

/// Fields that peers add, one line.
const EXTRAS: [&str; 12] = [
    "",
    "Supported: timer, 100rel\r\nAllow: INVITE, ACK, BYE, CANCEL, UPDATE\r\n",
    "Session-Expires: 90;refresher=uac\r\nSupported: timer\r\n",
    "Session-Expires: 90;refresher=uas\r\nRequire: timer\r\n",
    "Min-SE: 7200\r\n",
    "Record-Route: <sip:10.0.8.1;lr>, <sip:p.example.com>\r\n",
    "X-CC-Param: p\"<\u{e9}\r\nP-Asserted-Identity: <sip:x@y>\r\n",
    "Retry-After: 1\r\n",
    "Require: nothing\r\n",
    "Contact: <sip:[::1]>\r\n",
    "Max-Forwards: 0\r\n",
    "Refer-To: <sip:a@b>\r\nReplaces: a;to-tag=b;from-tag=c\r\n",
];

const CODES: [u16; 24] = [
    200, 180, 183, 100, 486, 487, 491, 481, 408, 500, 503, 302, 422, 401, 202, 199, 600, 404, 415, 405, 603, 699, 101,
    300,
];
const METHODS: [&str; 14] = [
    "BYE",
    "INVITE",
    "UPDATE",
    "INFO",
    "OPTIONS",
    "ACK",
    "CANCEL",
    "MESSAGE",
    "NOTIFY",
    "REFER",
    "PRACK",
    "REGISTER",
    "SUBSCRIBE",
    "invite",
];
/// Milliseconds.
const TIMES: [u64; 12] = [1, 10, 100, 500, 1000, 2000, 5000, 16_000, 31_000, 33_000, 61_000, 300_000];
const FLOWS: [&str; 6] = ["plain", "full", "chat", "odd", "nobody", ""];

/// What is left of the input.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.byte() % from.len()]
    }
}

/// A message that went one way or the other, with the peer's address.
type Seen = (SocketAddr, Vec<u8>);

struct Scene {
    shard: Shard,
    /// From the shard, and to it.
    got: Vec<Seen>,
    given: Vec<Seen>,
    /// Damage of the next datagram: places and bytes.
    damage: Vec<(usize, u8)>,
    calls: usize,
    cseq: u32,
}

fn rows(variant: usize) -> Rows {
    let text = |s: &str| Some(s.to_owned());
    let mut flows = vec![
        flow("plain", "s"),
        FlowRow {
            message_welcome: text("sip:hello@10.0.3.2"),
            message_flow_id: text("sip:id@10.0.3.3"),
            message_dissuading: text("sip:sorry@10.0.3.4"),
            dissuading_onhold_th: Some(40),
            dissuading_qsize_th: Some(3),
            max_wrapup_time: Some(3),
            prependcid: text("cc"),
            priority: Some(9),
            ..flow("full", "s")
        },
        flow("chat", "c"),
        FlowRow {
            message_queue: text("sip:music@host.example.com:5070;x=y"),
            message_dissuading: text("sip:sorry@10.0.3.4"),
            dissuading_hangup: Some(1),
            dissuading_onhold_th: Some(5),
            ..flow("odd", "t")
        },
        flow("nobody", "n"),
    ];
    let mut agents = vec![agent(1, "s,c"), agent(2, "s,t"), agent(3, "c,t")];
    agents[1].wrapup_time = Some(5);
    for n in [0, 2] {
        agents[n].msrp_location = Some(format!("sip:m{n}@10.0.5.{n}"));
        agents[n].msrp_max_sessions = Some(2);
    }
    match variant % 4 {
        1 => drop(flows.remove(0)),
        2 => drop(agents.remove(0)),
        3 => {
            agents[0].skills = text("t");
            agents[0].logstate = Some(0);
            flows[1].skill = text("c");
        }
        _ => {}
    }
    Rows { flows, agents }
}

/// The target.
pub fn sequence(data: &[u8]) {
    let mut input = Input(data);
    let settings = input.byte();
    let shard = Shard::new(&rows(0), |cfg| {
        cfg.call.max_no_answer = (settings & 1) as u32;
        cfg.call.follow_redirects = settings & 2 != 0;
        cfg.call.reject_on_no_agents = settings & 4 != 0;
        cfg.call.agent_ring_timeout_us = if settings & 8 != 0 { 3_000_000 } else { 30_000_000 };
        cfg.call.queue_pos_param = (settings & 16 != 0).then(|| "pos".to_owned());
        cfg.call.max_calls = if settings & 32 != 0 { 2 } else { 1000 };
        cfg.call.outbound_proxy = (settings & 64 != 0).then(|| "sip:10.0.8.8:5099".to_owned());
    });
    let mut scene = Scene { shard, got: vec![], given: vec![], damage: vec![], calls: 0, cseq: 100 };
    for _ in 0..STEPS {
        if input.0.is_empty() {
            break;
        }
        scene.step(&mut input);
        scene.collect();
    }
    // Session timers find who is silent; a caller that has no final answer is believed to wait on, until somebody ends that.
    scene.shard.refuse_sends = 0;
    scene.shard.audit();
    scene.shard.wait_us(900_000_000);
    scene.shard.control(Control::EndAll);
    scene.shard.assert_rest();
    assert!(scene.shard.found.is_empty(), "{:#?}", scene.shard.found);
}

impl Scene {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 20 {
            0 | 1 => self.call(input),
            2 | 3 => self.answer(input),
            4 => self.answer_all(),
            5 | 6 => self.request(input),
            7 => self.ack(input),
            8..=10 => {
                let ms = input.pick(&TIMES);
                self.shard.wait_us(ms * 1000);
            }
            11 => {
                if let Some((from, bytes)) = pick(&self.given, input.byte()) {
                    self.give(from, bytes);
                }
            }
            12 => {
                for _ in 0..=input.byte() % 4 {
                    let place = input.byte() << 8 | input.byte();
                    self.damage.push((place, input.byte() as u8));
                }
            }
            13 => {
                let n = input.byte() % 3;
                let agent = self.shard.registry.agent(&format!("a{}", n + 1));
                if let Some(agent) = agent {
                    self.shard.control(Control::Login { agent, on: input.byte() & 1 == 0 });
                }
            }
            14 => self.shard.reload(&rows(input.byte())),
            15 => self.shard.refuse_sends = input.byte() % 8,
            16 => {
                let length = (input.byte() * 4).min(input.0.len());
                let (raw, rest) = input.0.split_at(length);
                input.0 = rest;
                self.give(peer(2, 1), raw.to_vec());
            }
            17 => self.command(input),
            18 => drop(self.shard.restart()),
            _ => self.cancel(input),
        }
    }

    /// What the shard has sent goes to the peers: every message must be sound.
    fn collect(&mut self) {
        for (to, bytes) in std::mem::take(&mut self.shard.sent) {
            // Whoever sends a hundred fields may get as many back.
            if bytes.len() < 60_000 && !self.given.iter().any(|(_, g)| g.len() > 4000) {
                let message = Message::parse_head(&bytes, &Limits::default()).expect("what is sent has a first line");
                // A refusal repeats what was wrong.
                let refusal = message.code().is_some_and(|c| c >= 400);
                let sound = message.fault().is_none() && Message::parse(&bytes, &Limits::default()).is_ok();
                assert!(sound || refusal, "what is sent is sound: {}", String::from_utf8_lossy(&bytes));
            }
            self.got.push((to, bytes));
        }
        let excess = self.got.len().saturating_sub(KEPT);
        self.got.drain(..excess);
    }

    /// A datagram for the shard, damaged if that was said.
    fn give(&mut self, from: SocketAddr, mut bytes: Vec<u8>) {
        for (place, byte) in std::mem::take(&mut self.damage) {
            if bytes.is_empty() {
                break;
            }
            let at = place % bytes.len();
            match byte {
                0 => _ = bytes.remove(at),
                1 => bytes.truncate(at),
                2 => bytes.insert(at, b'"'),
                3 => bytes.splice(at..at, *b"\r\n").for_each(drop),
                _ => bytes[at] = byte,
            }
        }
        self.shard.datagram(from, &bytes);
        self.given.push((from, bytes));
        let excess = self.given.len().saturating_sub(KEPT);
        self.given.drain(..excess);
    }

    fn call(&mut self, input: &mut Input<'_>) {
        self.calls += 1;
        let (flow, body, extra) = (input.pick(&FLOWS), input.pick(&BODIES), input.pick(&EXTRAS));
        let (n, from) = (self.calls, peer(2, 1 + self.calls as u8 % 4));
        let head = format!(
            "INVITE sip:{flow}@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKc{n};rport\r\nMax-Forwards: 70\r\n\
             From: \"C {n}\" <sip:c{n}@example.com>;tag=c{n}\r\nTo: <sip:{flow}@10.0.0.1>\r\nCall-ID: call-{n}@peer\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:c{n}@{from}>\r\n{extra}"
        );
        self.give(from, with_body(&head, body));
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        let Some((peer, request)) = self.requests(input.byte()) else { return };
        let (code, body, extra, tag) = (input.pick(&CODES), input.pick(&BODIES), input.pick(&EXTRAS), input.byte() % 4);
        if let Some(bytes) = answer(&request, peer, code, body, extra, tag) {
            self.give(peer, bytes);
        }
    }

    /// Everybody answers what was asked last, and takes what was answered.
    fn answer_all(&mut self) {
        for (peer, message) in self.got.clone().into_iter().rev().take(6) {
            let reply = match Message::parse(&message, &Limits::default()).map(|m| (m.method(), m.code())) {
                Ok((Some(method), _)) if method != Method::Ack => {
                    answer(&message, peer, 200, if method == Method::Invite { BODIES[0] } else { ("", "") }, "", 0)
                }
                Ok((_, Some(code))) if code >= 200 => self.in_dialog(&message, "ACK", ("", ""), ""),
                _ => None,
            };
            if let Some(bytes) = reply {
                self.give(peer, bytes);
            }
        }
    }

    fn request(&mut self, input: &mut Input<'_>) {
        let Some((peer, seen)) = pick(&self.got, input.byte()) else { return };
        let (method, body, extra) = (input.pick(&METHODS), input.pick(&BODIES), input.pick(&EXTRAS));
        if let Some(bytes) = self.in_dialog(&seen, method, body, extra) {
            self.give(peer, bytes);
        }
    }

    fn ack(&mut self, input: &mut Input<'_>) {
        let Some((peer, seen)) = pick(&self.got, input.byte()) else { return };
        let body = input.pick(&BODIES);
        if let Some(bytes) = self.in_dialog(&seen, "ACK", body, "") {
            self.give(peer, bytes);
        }
    }

    /// CANCEL of a request that was given.
    fn cancel(&mut self, input: &mut Input<'_>) {
        let Some((from, given)) = pick(&self.given, input.byte()) else { return };
        let text = String::from_utf8_lossy(&given).into_owned();
        let Some((first, rest)) = text.split_once("\r\n").filter(|(first, _)| first.starts_with("INVITE ")) else {
            return;
        };
        let head = rest.split("\r\n\r\n").next().unwrap_or_default();
        let kept = ["Via:", "From:", "To:", "Call-ID:"];
        let lines: String =
            head.split("\r\n").filter(|l| kept.iter().any(|k| l.starts_with(k))).map(|l| format!("{l}\r\n")).collect();
        let number = head.split("CSeq: ").nth(1).and_then(|s| s.split(' ').next()).unwrap_or("1");
        let first = first.replacen("INVITE", "CANCEL", 1);
        self.give(from, format!("{first}\r\n{lines}CSeq: {number} CANCEL\r\nContent-Length: 0\r\n\r\n").into_bytes());
    }

    fn command(&mut self, input: &mut Input<'_>) {
        match input.byte() % 6 {
            0 => drop(self.shard.control(Control::ListCalls { from: 0, max: 100, queued_only: false })),
            1 => drop(self.shard.control(Control::EndAll)),
            2 => drop(self.shard.control(Control::Drain { on: input.byte() & 1 == 0 })),
            3 => self.shard.set_dispatching(input.byte() & 1 == 0),
            4 => drop(self.shard.control(Control::Audit)),
            _ => {
                let Some(agent) = self.shard.registry.agent("a1") else { return };
                let until_unix_us = self.shard.now.unix_us + (input.byte() as u64) * 100_000;
                self.shard.control(Control::BeginWrapup { agent, until_unix_us });
            }
        }
    }

    /// A request for us among the latest messages.
    fn requests(&self, n: usize) -> Option<Seen> {
        let is_request = |(_, m): &&Seen| !m.starts_with(b"SIP/") && !m.starts_with(b"ACK ");
        let all: Vec<&Seen> = self.got.iter().rev().filter(is_request).collect();
        (!all.is_empty()).then(|| all[n % all.len()].clone())
    }

    /// A request of a peer's in the dialog of a message that it got.
    fn in_dialog(&mut self, seen: &[u8], method: &str, (kind, body): (&str, &str), extra: &str) -> Option<Vec<u8>> {
        let m = Message::parse(seen, &Limits::default()).ok()?;
        let text = |id| m.first(id).map(|v| String::from_utf8_lossy(v).into_owned());
        // In a request of theirs we are To; in an answer of theirs we are From.
        let (from, to) = if m.is_request() { (Name::To, Name::From) } else { (Name::From, Name::To) };
        let (from, to, call_id) = (text(from)?, text(to)?, text(Name::CallId)?);
        let from = if from.contains(";tag=") { from } else { format!("{from};tag=p0") };
        let contact = m.contact().ok().flatten().map(|c| String::from_utf8_lossy(c.uri).into_owned());
        let uri = contact.unwrap_or_else(|| format!("sip:{HERE}"));
        let theirs = m.cseq().ok()?;
        self.cseq += 1;
        let (n, number) = (self.cseq, if method == "ACK" { theirs.number } else { self.cseq });
        // The ACK of a refusal is of its transaction.
        let refused = method == "ACK" && m.code().is_some_and(|c| c >= 300);
        let via = if refused { text(Name::Via)? } else { format!("SIP/2.0/UDP 10.0.9.9;branch=z9hG4bKd{n};rport") };
        let head = format!(
            "{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\n\
             CSeq: {number} {method}\r\nContact: <sip:p@10.0.9.9>\r\n{extra}"
        );
        Some(with_body(&head, (kind, body)))
    }
}

fn pick(from: &[Seen], n: usize) -> Option<Seen> {
    (!from.is_empty()).then(|| from[from.len() - 1 - n % from.len()].clone())
}

fn peer(net: u8, host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, net, host], 5060))
}

fn with_body(head: &str, (kind, body): (&str, &str)) -> Vec<u8> {
    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    format!("{head}{kind}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An answer to a request of the shard's; `tag` tells branches of a fork apart.
fn answer(request: &[u8], peer: SocketAddr, code: u16, body: (&str, &str), extra: &str, tag: usize) -> Option<Vec<u8>> {
    let m = Message::parse(request, &Limits::default()).ok().filter(|m| m.is_request())?;
    let copy = |id: Name| m.all(id).map(|v| format!("{id}: {}\r\n", String::from_utf8_lossy(v))).collect::<String>();
    let mut to = String::from_utf8_lossy(m.first(Name::To)?).into_owned();
    if m.to_tag().is_none() && code > 100 {
        to.push_str(&format!(";tag=p{tag}"));
    }
    let (via, from, call_id, cseq) = (copy(Name::Via), copy(Name::From), copy(Name::CallId), copy(Name::CSeq));
    let head = format!("SIP/2.0 {code} X\r\n{via}{from}To: {to}\r\n{call_id}{cseq}Contact: <sip:p@{peer}>\r\n{extra}");
    Some(with_body(&head, body))
}
