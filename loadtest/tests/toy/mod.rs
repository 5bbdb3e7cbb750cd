//! A toy queue: as much of a back-to-back user agent as the generator needs to be tested against one. It answers in
//! order of arrival, retransmits nothing, and can be told to misbehave.

use std::{
    collections::{HashMap, VecDeque},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What the toy does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Gives busy agents more calls.
    BooksTwice,
    /// Sends callers the session description of the media server again instead of their agent's.
    NeverBridges,
    /// Does not hang up on agents.
    ForgetsAgents,
    /// Sends every re-INVITE twice.
    SendsTwice,
    /// Leaves the version of the session description as it is.
    KeepsVersion,
    /// Sends requests within dialogs along a route that nobody recorded.
    AddsRoute,
    /// Numbers a BYE as the request before it.
    KeepsCSeq,
}

const RING_TIMEOUT: Duration = Duration::from_millis(400);
const MIN_TALK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Caller,
    Media,
    Agent(usize),
}

struct Leg {
    call: usize,
    kind: Kind,
    call_id: String,
    local: String,
    remote: String,
    uri: String,
    to: SocketAddr,
    cseq: u32,
    sdp: String,
    version: u32,
    live: bool,
}

struct Call {
    caller: usize,
    invite: String,
    sdp: String,
    answered: bool,
    waiting: bool,
    over: bool,
    media: Option<usize>,
    agent: Option<usize>,
    rings_since: Option<Instant>,
    bridged: Option<Instant>,
}

pub struct Toy {
    socket: UdpSocket,
    address: SocketAddr,
    fault: Fault,
    agents: (SocketAddr, VecDeque<usize>),
    media: SocketAddr,
    legs: Vec<Leg>,
    calls: Vec<Call>,
    by_call_id: HashMap<String, usize>,
    queue: VecDeque<usize>,
    rows: u64,
}

/// A running toy.
pub struct Running {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Running {
    /// Stops it; returns how many CDRs it would have written.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

fn header<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.eq_ignore_ascii_case(name)));
    line.map_or("", |line| line[name.len() + 1..].trim())
}

fn body(text: &str) -> &str {
    text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn contact(text: &str) -> String {
    header(text, "Contact").trim_matches(['<', '>']).to_owned()
}

fn method(text: &str) -> &str {
    header(text, "CSeq").split(' ').nth(1).unwrap_or("")
}

/// Starts a toy queue for agents `agent1` to `agentN` and music at these addresses.
pub fn start(agents: SocketAddr, count: usize, media: SocketAddr, fault: Fault) -> Running {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let address = socket.local_addr().unwrap();
    let stop = Arc::<AtomicBool>::default();
    let stopped = Arc::clone(&stop);
    let mut toy = Toy {
        socket,
        address,
        fault,
        agents: (agents, (1..=count).collect()),
        media,
        legs: Vec::new(),
        calls: Vec::new(),
        by_call_id: HashMap::new(),
        queue: VecDeque::new(),
        rows: 0,
    };
    let thread = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while !stopped.load(Relaxed) {
            if let Ok((length, source)) = toy.socket.recv_from(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if text.starts_with("SIP/2.0") { toy.response(&text) } else { toy.request(&text, source) }
            }
            toy.ring_timeouts();
            toy.dispatch();
        }
        toy.rows
    });
    Running { address, stop, thread }
}

impl Toy {
    fn send(&self, to: SocketAddr, text: &str) {
        self.socket.send_to(text.as_bytes(), to).unwrap();
    }

    fn leg(&mut self, call: usize, kind: Kind, call_id: String, to: SocketAddr) -> usize {
        let (local, remote) = (String::new(), String::new());
        let (uri, sdp) = (String::new(), String::new());
        self.by_call_id.insert(call_id.clone(), self.legs.len());
        self.legs.push(Leg { call, kind, call_id, local, remote, uri, to, cseq: 0, sdp, version: 0, live: true });
        self.legs.len() - 1
    }

    /// The description as this leg gets it: our origin, its version up by one with each change.
    fn own_origin(&mut self, leg: usize, sdp: &str) -> String {
        let fixed = self.fault == Fault::KeepsVersion;
        let state = &mut self.legs[leg];
        let content: String = sdp.lines().filter(|line| !line.starts_with("o=")).collect();
        if content != state.sdp {
            state.sdp = content;
            state.version = if fixed { 1 } else { state.version + 1 };
        }
        let origin = format!("o=toy {leg} {} IN IP4 127.0.0.1", state.version);
        sdp.lines().map(|line| if line.starts_with("o=") { &origin } else { line }.to_owned() + "\r\n").collect()
    }

    fn ask(&mut self, leg: usize, method: &str, sdp: &str) {
        let counts = !(method == "BYE" && self.fault == Fault::KeepsCSeq);
        if counts && !matches!(method, "ACK" | "CANCEL") {
            self.legs[leg].cseq += 1;
        }
        let route = if self.fault == Fault::AddsRoute { "Route: <sip:stray;lr>\r\n" } else { "" };
        let sdp = if sdp.is_empty() { String::new() } else { self.own_origin(leg, sdp) };
        let Leg { call_id, local, remote, uri, to, cseq, .. } = &self.legs[leg];
        let branch = if method == "CANCEL" { "INVITE" } else { method };
        let kind = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{leg}.{cseq}{branch}\r\nMax-Forwards: 70\r\n\
             From: {local}\r\nTo: {remote}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\
             {route}Contact: <sip:toy@{me}>\r\n{kind}Content-Length: {}\r\n\r\n{sdp}",
            sdp.len(),
            me = self.address,
        );
        self.send(*to, &text);
        if self.fault == Fault::SendsTwice && method == "INVITE" && self.legs[leg].kind == Kind::Caller {
            self.send(self.legs[leg].to, &text);
        }
    }

    fn answer(&mut self, to: SocketAddr, request: &str, code: &str, leg: usize, sdp: &str) {
        let sdp = if sdp.is_empty() { String::new() } else { self.own_origin(leg, sdp) };
        let tag = if code.starts_with("100") || header(request, "To").contains("tag=") {
            String::new()
        } else {
            format!(";tag=toy{leg}")
        };
        let text = format!(
            "SIP/2.0 {code}\r\nVia: {}\r\nFrom: {}\r\nTo: {}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\nContact: <sip:toy@{}>\r\n\
             Content-Length: {}\r\n\r\n{sdp}",
            header(request, "Via"),
            header(request, "From"),
            header(request, "To"),
            header(request, "Call-ID"),
            header(request, "CSeq"),
            self.address,
            sdp.len(),
        );
        self.send(to, &text);
    }

    fn invite(&mut self, call: usize, kind: Kind) -> usize {
        let (to, user) = match kind {
            Kind::Agent(number) => (self.agents.0, format!("agent{number}")),
            _ => (self.media, "music".into()),
        };
        let leg = self.leg(call, kind, format!("toy-{}", self.legs.len()), to);
        let from = header(&self.calls[call].invite, "From");
        let from = from.split(";tag").next().unwrap_or("").to_owned();
        let state = &mut self.legs[leg];
        state.local = format!("{from};tag=toy{leg}");
        state.uri = format!("sip:{user}@{to}");
        state.remote = format!("<sip:{user}@{to}>");
        let sdp = self.calls[call].sdp.clone();
        self.ask(leg, "INVITE", &sdp);
        leg
    }

    fn request(&mut self, text: &str, source: SocketAddr) {
        let known = self.by_call_id.get(header(text, "Call-ID")).copied();
        match (method(text), known) {
            ("INVITE", None) => self.arrival(text, source),
            ("ACK", Some(leg)) => {
                let call = self.legs[leg].call;
                if self.calls[call].sdp.is_empty() && !body(text).is_empty() {
                    self.calls[call].sdp = body(text).to_owned();
                    if let Some(media) = self.calls[call].media {
                        self.ask(media, "ACK", body(text));
                    }
                    self.wait(call);
                }
            }
            ("BYE", Some(leg)) => {
                self.answer(source, text, "200 OK", leg, "");
                self.hung_up(leg);
            }
            (_, Some(leg)) => self.answer(source, text, "200 OK", leg, ""),
            (_, None) => {}
        }
    }

    fn arrival(&mut self, text: &str, source: SocketAddr) {
        let call = self.calls.len();
        let caller = self.leg(call, Kind::Caller, header(text, "Call-ID").into(), source);
        self.legs[caller].local = format!("{};tag=toy{caller}", header(text, "To"));
        self.legs[caller].remote = header(text, "From").into();
        self.legs[caller].uri = contact(text);
        self.answer(source, text, "100 Trying", caller, "");
        self.calls.push(Call {
            caller,
            invite: text.into(),
            sdp: body(text).into(),
            answered: false,
            waiting: false,
            over: false,
            media: None,
            agent: None,
            rings_since: None,
            bridged: None,
        });
        self.calls[call].media = Some(self.invite(call, Kind::Media));
    }

    fn wait(&mut self, call: usize) {
        if !std::mem::replace(&mut self.calls[call].waiting, true) {
            self.queue.push_back(call);
        }
    }

    fn hung_up(&mut self, leg: usize) {
        if !std::mem::replace(&mut self.legs[leg].live, false) {
            return;
        }
        let call = self.legs[leg].call;
        let early = self.calls[call].bridged.is_none_or(|since| since.elapsed() < MIN_TALK);
        if let Kind::Agent(number) = self.legs[leg].kind {
            self.agents.1.push_back(number);
            self.calls[call].agent = None;
            if early && !self.calls[call].over {
                self.rows += 1;
                self.calls[call].bridged = None;
                // Where the caller was not bridged yet, the music plays on.
                if self.calls[call].media.is_none() {
                    self.calls[call].media = Some(self.invite(call, Kind::Media));
                } else {
                    self.queue.push_front(call);
                }
                return;
            }
        }
        self.end(call);
    }

    fn end(&mut self, call: usize) {
        if std::mem::replace(&mut self.calls[call].over, true) {
            return;
        }
        self.rows += 1;
        self.queue.retain(|waiting| *waiting != call);
        let Call { caller, media, agent, rings_since, .. } = self.calls[call];
        for leg in [Some(caller), media].into_iter().flatten() {
            if std::mem::replace(&mut self.legs[leg].live, false) {
                self.ask(leg, "BYE", "");
            }
        }
        if let Some(agent) = agent.filter(|_| self.fault != Fault::ForgetsAgents) {
            self.ask(agent, if rings_since.is_some() { "CANCEL" } else { "BYE" }, "");
        }
    }

    fn response(&mut self, text: &str) {
        let code = text[8..11].parse::<u16>().unwrap();
        let Some(&leg) = self.by_call_id.get(header(text, "Call-ID")) else { return };
        let (call, kind) = (self.legs[leg].call, self.legs[leg].kind);
        match (method(text), code) {
            ("INVITE", 200..300) => {
                self.legs[leg].remote = if kind == Kind::Caller {
                    self.legs[leg].remote.clone()
                } else {
                    self.legs[leg].uri = contact(text);
                    header(text, "To").into()
                };
                match kind {
                    Kind::Caller => self.caller_moved(leg, call),
                    Kind::Media => self.music_plays(leg, call, body(text)),
                    Kind::Agent(_) => self.agent_answered(leg, call, body(text)),
                }
            }
            ("INVITE", 300..) => {
                self.legs[leg].remote = header(text, "To").into();
                self.ask(leg, "ACK", "");
                if let Kind::Agent(number) = kind {
                    self.agents.1.push_back(number);
                    self.legs[leg].live = false;
                    self.calls[call].agent = None;
                    self.calls[call].rings_since = None;
                    if !self.calls[call].over {
                        self.rows += 1;
                        self.queue.push_front(call);
                    }
                }
            }
            ("BYE", _) => {
                if let Kind::Agent(number) = kind
                    && std::mem::replace(&mut self.legs[leg].live, false)
                {
                    self.agents.1.push_back(number);
                }
            }
            _ => {}
        }
    }

    fn music_plays(&mut self, leg: usize, call: usize, sdp: &str) {
        let caller = self.calls[call].caller;
        if !std::mem::replace(&mut self.calls[call].answered, true) {
            let request = self.calls[call].invite.clone();
            let to = self.legs[caller].to;
            self.answer(to, &request, "200 OK", caller, sdp);
            if !self.calls[call].sdp.is_empty() {
                self.ask(leg, "ACK", "");
                self.wait(call);
            }
            return;
        }
        self.ask(leg, "ACK", "");
        if self.calls[call].over {
            self.ask(leg, "BYE", "");
        } else {
            self.ask(caller, "INVITE", sdp);
            self.queue.push_front(call);
        }
    }

    fn agent_answered(&mut self, leg: usize, call: usize, sdp: &str) {
        self.ask(leg, "ACK", "");
        if self.calls[call].rings_since.take().is_none() {
            return;
        }
        if self.calls[call].over {
            return self.ask(leg, "BYE", "");
        }
        let caller = self.calls[call].caller;
        if self.fault != Fault::NeverBridges {
            self.ask(caller, "INVITE", sdp);
        }
    }

    fn caller_moved(&mut self, leg: usize, call: usize) {
        self.ask(leg, "ACK", "");
        let state = &mut self.calls[call];
        if state.agent.is_some() && state.rings_since.is_none() && !state.over && state.bridged.is_none() {
            state.bridged = Some(Instant::now());
            if let Some(media) = state.media.take() {
                self.legs[media].live = false;
                self.ask(media, "BYE", "");
            }
        }
    }

    fn ring_timeouts(&mut self) {
        for call in 0..self.calls.len() {
            let Call { agent: Some(agent), rings_since: Some(since), over: false, .. } = self.calls[call] else {
                continue;
            };
            // The agent's answer to a CANCEL is awaited with the same mark, moved on so that no second is sent.
            if since.elapsed() > RING_TIMEOUT {
                self.calls[call].rings_since = Some(Instant::now() + Duration::from_secs(60));
                self.ask(agent, "CANCEL", "");
            }
        }
    }

    fn dispatch(&mut self) {
        while let (Some(&agent), Some(&call)) = (self.agents.1.front(), self.queue.front()) {
            self.queue.pop_front();
            if self.fault == Fault::BooksTwice {
                self.agents.1.rotate_left(1);
            } else {
                self.agents.1.pop_front();
            }
            self.calls[call].rings_since = Some(Instant::now());
            self.calls[call].agent = Some(self.invite(call, Kind::Agent(agent)));
        }
    }
}
