//! A peer's dialog: RFC 3261 transactions with their own retransmissions, correct unless its script says otherwise.
//! What it decides to do is in `script.rs`; here is how it does it.

use crate::plan::{MS, Plan, SECOND};
use crate::rng::Rng;
use crate::rules::{Asked, Body};
use crate::text::{self, Bytes, Request, media_of, odd_sdp, sdp};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use strowger_sip::msg::{Message, Name};

pub const T1: u64 = 500 * MS;
const T2: u64 = 4 * SECOND;
pub const LIFE: u64 = 32 * SECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Caller,
    Agent,
    Music,
    Welcome,
    Dissuading,
    /// `message_flow_id`.
    Briefing,
}

impl Kind {
    /// Who lives at an address.
    #[must_use]
    pub fn at(addr: SocketAddr) -> Kind {
        match addr.ip() {
            IpAddr::V4(ip) => match ip.octets() {
                [10, 1, ..] => Kind::Agent,
                [10, 3, ..] => Kind::Caller,
                [.., 2] => Kind::Welcome,
                [.., 3] => Kind::Dissuading,
                [.., 4] => Kind::Briefing,
                _ => Kind::Music,
            },
            IpAddr::V6(_) => Kind::Music,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// INVITE sent.
    Calling,
    /// INVITE received, not answered.
    Ringing,
    Up,
    Over,
}

/// What wakes a dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Sends request `n` again, or gives it up.
    Retry(u32),
    /// Sends the final answer to the INVITE of server transaction `n` again, or gives up on its ACK.
    Again(usize),
    Act(Act),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The caller's INVITE.
    Dial,
    Ring(usize),
    Answer(usize),
    Refuse(usize, u16),
    /// A 2xx of another branch of a fork.
    Fork(usize),
    Patience,
    Leave,
    ReInvite,
    ReInviteBare,
    Update,
    UpdateBare,
    Info,
    Refresh,
    /// A request with a wrong tag, or an old CSeq.
    Stray,
    /// Goes silent.
    Die,
    /// Starts anew and knows nothing of its dialogs.
    Reboot,
}

/// A request of ours.
#[derive(Debug)]
pub struct Client {
    pub method: &'static str,
    pub cseq: u32,
    pub branch: String,
    pub(crate) bytes: Bytes,
    pub(crate) interval: u64,
    pub(crate) born: u64,
    pub rang: bool,
    /// Final answer; 0 for none.
    pub code: u16,
    pub(crate) ack: Option<Bytes>,
    pub(crate) cancel_wanted: bool,
    pub cancelled: bool,
    /// It carried a description.
    pub(crate) offered: bool,
}

/// A request of theirs.
#[derive(Debug)]
pub struct Server {
    pub branch: String,
    pub method: String,
    pub cseq: u32,
    pub(crate) request: Bytes,
    pub(crate) last: Option<Bytes>,
    pub code: u16,
    pub acked: bool,
    pub(crate) interval: u64,
    pub(crate) born: u64,
    /// Their request, our answer carried a description.
    pub offered: bool,
}

/// What has happened to the dialog, for the checks.
#[derive(Debug, Default)]
pub struct Facts {
    pub said_2xx: Option<u64>,
    pub said_no: Option<u16>,
    pub got_final: Option<u16>,
    pub cancelled: bool,
    pub said_bye: Option<u64>,
    pub got_bye: bool,
    pub got_cancel: bool,
    pub met_agent: Option<u64>,
    /// Left the engine without an answer, an ACK or a refresh by its own fault.
    pub unfaithful: bool,
}

#[derive(Debug)]
pub struct Dialog {
    pub index: u32,
    pub kind: Kind,
    pub call: u32,
    pub addr: SocketAddr,
    pub call_id: String,
    pub tag: String,
    pub local: String,
    pub remote: String,
    pub target: String,
    pub flow: u32,
    cseq: u32,
    pub(crate) remote_cseq: u32,
    pub phase: Phase,
    pub dead: bool,
    pub clients: Vec<Client>,
    pub servers: Vec<Server>,
    pub port: u16,
    pub version: u32,
    pub held: bool,
    /// Its session is MSRP.
    pub chat: bool,
    /// Port and hold before the change that is being offered.
    pub before: (u16, bool),
    /// When a message last came or went.
    pub touched: u64,
    pub remote_media: String,
    /// The caller's INVITE has a description; the phone knows UPDATE; it asks for session timers.
    pub with_sdp: bool,
    pub updates: bool,
    pub timer: bool,
    pub never_acks: bool,
    pub leaving: bool,
    /// Tag of the other branch of a fork that has answered.
    pub fork: Option<String>,
    /// What a caller begins with.
    pub asks: Asked,
    pub facts: Facts,
}

/// What a peer may touch.
pub struct Ctx<'a> {
    pub now: u64,
    /// Faults are off.
    pub calm: bool,
    pub rng: &'a mut Rng,
    pub plan: &'a Plan,
    pub out: &'a mut Vec<(SocketAddr, Bytes)>,
    pub timers: &'a mut Vec<(u64, u32, Tick)>,
    pub seen: &'a mut BTreeMap<&'static str, u64>,
    /// What the engine did wrong, as a peer sees it.
    pub wrongs: &'a mut Vec<String>,
}

impl Ctx<'_> {
    pub fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }
}

impl Dialog {
    #[must_use]
    pub fn new(index: u32, kind: Kind, call: u32, addr: SocketAddr, call_id: &str) -> Dialog {
        let tag = format!("t{index}");
        Dialog {
            index,
            kind,
            call,
            addr,
            call_id: call_id.to_owned(),
            local: String::new(),
            remote: String::new(),
            target: String::new(),
            tag,
            flow: 0,
            cseq: 0,
            remote_cseq: 0,
            phase: Phase::Calling,
            dead: false,
            clients: Vec::new(),
            servers: Vec::new(),
            port: 4000 + (index % 10_000) as u16 * 2,
            version: 1,
            held: false,
            chat: false,
            before: (0, false),
            touched: 0,
            remote_media: String::new(),
            with_sdp: true,
            updates: true,
            timer: false,
            never_acks: false,
            leaving: false,
            fork: None,
            asks: Asked::default(),
            facts: Facts::default(),
        }
    }

    /// It will answer nothing, or knows nothing of the dialog any more.
    pub fn gone(&self) -> bool {
        self.dead || self.facts.unfaithful
    }

    pub fn describe(&self) -> String {
        if self.asks.body != Body::Good {
            return odd_sdp(self.addr, self.asks.body);
        }
        sdp(
            self.addr,
            self.index + 1,
            self.version,
            self.port,
            if self.held { "sendonly" } else { "sendrecv" },
            self.chat,
        )
    }

    /// Where we listen.
    pub fn media(&self) -> String {
        format!("{}:{}", self.addr.ip(), self.port)
    }

    /// Whether an INVITE or UPDATE of ours may go out (RFC 3261 section 14.1, RFC 3311 section 5.1).
    pub fn may_offer(&self) -> bool {
        self.phase == Phase::Up
            && !self.clients.iter().any(|c| c.code == 0 && matches!(c.method, "INVITE" | "UPDATE"))
            && !self.servers.iter().any(|s| s.method == "INVITE" && (s.code == 0 || (s.code < 300 && !s.acked)))
    }

    /// An offer of ours may be open: in a request, or in a 2xx whose ACK has not come (RFC 6337 section 4).
    pub fn has_offered(&self) -> bool {
        self.clients.iter().any(|c| c.code == 0 && matches!(c.method, "INVITE" | "UPDATE"))
            || self.servers.iter().any(|s| s.method == "INVITE" && s.code / 100 == 2 && !s.acked && !s.offered)
    }

    pub(crate) fn last_cseq(&self) -> u32 {
        self.cseq
    }

    /// Sends a request. Its number in `clients`.
    pub fn send(&mut self, ctx: &mut Ctx<'_>, method: &'static str, extra: &str, body: &str) {
        self.cseq += 1;
        self.touched = ctx.now;
        let id = self.clients.len() as u32;
        let branch = format!("z9hG4bK-{}-{id}", self.index);
        let bytes = text::request(&Request {
            method,
            uri: &self.target,
            addr: self.addr,
            branch: &branch,
            from: &self.local,
            to: &self.remote,
            call_id: &self.call_id,
            cseq: self.cseq,
            extra,
            body,
        });
        ctx.out.push((self.addr, bytes.clone()));
        ctx.timers.push((T1, self.index, Tick::Retry(id)));
        self.clients.push(Client {
            method,
            cseq: self.cseq,
            branch,
            bytes,
            interval: T1,
            born: ctx.now,
            rang: false,
            code: 0,
            ack: None,
            cancel_wanted: false,
            cancelled: false,
            offered: !body.is_empty(),
        });
    }

    /// Ends what there is: CANCEL before an answer, BYE after.
    pub fn leave(&mut self, ctx: &mut Ctx<'_>) {
        self.leaving = true;
        match self.phase {
            Phase::Calling => {
                if let Some(invite) = self.clients.first_mut() {
                    if invite.rang {
                        self.cancel(ctx, 0);
                    } else {
                        invite.cancel_wanted = true;
                    }
                }
            }
            Phase::Up => self.bye(ctx),
            _ => {}
        }
    }

    pub fn bye(&mut self, ctx: &mut Ctx<'_>) {
        self.facts.said_bye.get_or_insert(ctx.now);
        self.phase = Phase::Over;
        self.send(ctx, "BYE", "", "");
    }

    pub(crate) fn cancel(&mut self, ctx: &mut Ctx<'_>, n: usize) {
        let invite = &mut self.clients[n];
        if invite.code > 0 || invite.cancelled {
            return;
        }
        invite.cancelled = true;
        self.facts.cancelled = true;
        let (branch, cseq) = (invite.branch.clone(), invite.cseq);
        let bytes = text::request(&Request {
            method: "CANCEL",
            uri: &self.target,
            addr: self.addr,
            branch: &branch,
            from: &self.local,
            to: &self.remote,
            call_id: &self.call_id,
            cseq,
            extra: "",
            body: "",
        });
        let id = self.clients.len() as u32;
        ctx.out.push((self.addr, bytes.clone()));
        ctx.timers.push((T1, self.index, Tick::Retry(id)));
        self.clients.push(Client {
            method: "CANCEL",
            cseq,
            branch,
            bytes,
            interval: T1,
            born: ctx.now,
            rang: false,
            code: 0,
            ack: None,
            cancel_wanted: false,
            cancelled: false,
            offered: false,
        });
        ctx.timers.push((LIFE, self.index, Tick::Retry(n as u32)));
    }

    /// Retransmission or end of a request of ours.
    pub fn retry(&mut self, ctx: &mut Ctx<'_>, id: u32) {
        let Some(c) = self.clients.get_mut(id as usize).filter(|c| c.code == 0) else { return };
        let ended = ctx.now >= c.born + LIFE;
        // A caller who has left, by CANCEL or by BYE, does not wait for ever for what was lost (RFC 3261 section 9.1).
        let left = c.cancelled || self.leaving;
        if c.method == "INVITE" && c.rang && !(left && ended) {
            return;
        }
        if ended {
            c.code = 408;
            let method = c.method;
            match (method, self.phase) {
                ("INVITE" | "MESSAGE", Phase::Calling) => self.phase = Phase::Over,
                ("INVITE" | "UPDATE", Phase::Up) => self.bye(ctx),
                _ => {}
            }
            return;
        }
        c.interval = if c.method == "INVITE" { c.interval * 2 } else { (c.interval * 2).min(T2) };
        ctx.out.push((self.addr, c.bytes.clone()));
        ctx.timers.push((c.interval.min(c.born + LIFE - ctx.now), self.index, Tick::Retry(id)));
    }

    /// Retransmission of a final answer to an INVITE, or the end of waiting for its ACK.
    pub fn again(&mut self, ctx: &mut Ctx<'_>, n: usize) {
        let Some(s) = self.servers.get_mut(n).filter(|s| s.code >= 200 && !s.acked) else { return };
        if ctx.now >= s.born + LIFE {
            s.acked = true;
            if s.code < 300 && self.phase == Phase::Up {
                ctx.saw("peer's 2xx never acknowledged");
                self.bye(ctx);
            }
            return;
        }
        s.interval = (s.interval * 2).min(T2);
        if let Some(last) = &s.last {
            ctx.out.push((self.addr, last.clone()));
        }
        ctx.timers.push((s.interval, self.index, Tick::Again(n)));
    }

    /// Answers server transaction `n`.
    pub fn reply(&mut self, ctx: &mut Ctx<'_>, n: usize, code: u16, extra: &str, body: &str) {
        self.touched = ctx.now;
        let Some(s) = self.servers.get_mut(n).filter(|s| s.code < 200) else { return };
        let request = s.request.clone();
        let Some(msg) = text::parse(&request) else { return };
        let bytes = text::response(&msg, code, &self.tag, self.addr, extra, body);
        s.code = code;
        s.last = Some(bytes.clone());
        ctx.out.push((self.addr, bytes));
        if code >= 200 && s.method == "INVITE" {
            s.born = ctx.now;
            s.interval = T1;
            ctx.timers.push((T1, self.index, Tick::Again(n)));
        }
    }

    /// 200 to their INVITE or UPDATE, with a description.
    pub fn accept(&mut self, ctx: &mut Ctx<'_>, n: usize) {
        let mut extra = String::new();
        if self.updates {
            extra.push_str("Allow: INVITE, ACK, CANCEL, BYE, UPDATE, INFO\r\n");
        }
        let request = self.servers[n].request.clone();
        if let Some(value) = text::parse(&request).filter(|_| self.timer).and_then(|m| m.first(Name::SessionExpires)) {
            extra.push_str(&format!("Supported: timer\r\nSession-Expires: {}\r\n", text::text(value)));
        }
        let body = self.describe();
        self.reply(ctx, n, 200, &extra, &body);
    }

    /// A datagram for this dialog.
    pub fn receive(&mut self, ctx: &mut Ctx<'_>, msg: &Message<'_>, raw: &Bytes) {
        if self.dead {
            return;
        }
        self.touched = ctx.now;
        match (msg.method(), msg.code()) {
            (Some(method), _) => self.on_request(ctx, method, msg, raw),
            (None, Some(code)) => self.on_response(ctx, code, msg),
            _ => {}
        }
    }

    /// Their description.
    pub fn note_media(&mut self, ctx: &mut Ctx<'_>, msg: &Message<'_>) {
        if msg.body().is_empty() {
            return;
        }
        self.remote_media = media_of(msg.body());
        if self.remote_media.is_empty() && self.asks.body == Body::Good {
            ctx.wrongs.push(format!("a description without audio for {}", self.call_id));
        }
        self.on_media(ctx);
    }
}
