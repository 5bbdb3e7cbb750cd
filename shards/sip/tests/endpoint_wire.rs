//! Two endpoints over a wire that loses, doubles, delays and reorders: what must hold however it goes.

mod common;

use common::{LIFE, Req, SECOND, config, endpoint, field, head};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use strowger_sip::endpoint::{ClientTxn, Endpoint, Event, Outgoing, ServerTxn, Target, TimerEvent};
use strowger_sip::msg::{Limits, Message, Method, Reply};
use strowger_sip::net::{ListenerId, Path, Transport};
use strowger_sip::time::Mono;

const START: u8 = 0;
const CANCEL: u8 = 1;
const ACK: u8 = 2;
const RING: u8 = 3;
const FINAL: u8 = 4;
/// A provisional answer has come and every copy of the final one was lost: nothing but the user ends such an INVITE.
const GIVE_UP: u8 = 5;
/// Longer than any plan takes to answer.
const PATIENCE: u64 = 600 * SECOND;

/// What happens in one transaction; times in microseconds.
#[derive(Debug, Clone)]
struct Plan {
    invite: bool,
    start: u64,
    cancel: Option<u64>,
    ack_delay: u64,
    ring: Option<u64>,
    answer: Option<u64>,
    code: u16,
}

fn plan() -> impl Strategy<Value = Plan> {
    let soon = || prop_oneof![Just(0u64), 0..3 * SECOND, 0..40 * SECOND];
    (
        any::<bool>(),
        0..20 * SECOND,
        proptest::option::weighted(0.4, soon()),
        prop_oneof![Just(0u64), 0..5 * SECOND],
        proptest::option::of(soon()),
        proptest::option::weighted(0.9, soon()),
        prop_oneof![Just(200u16), Just(202), Just(302), Just(486), Just(603)],
    )
        .prop_map(|(invite, start, cancel, ack_delay, ring, answer, code)| Plan {
            invite,
            start,
            cancel: cancel.filter(|_| invite),
            ack_delay,
            ring,
            // How long an INVITE rings is its users' affair: one of them ends it.
            answer: answer.or(invite.then_some(90 * SECOND)),
            code,
        })
}

#[derive(Debug, Clone, Copy)]
struct Wire {
    /// Of 256.
    loss: u8,
    doubling: u8,
    delay_us: u64,
    transport: Transport,
}

fn wire() -> impl Strategy<Value = Wire> {
    let udp = (prop_oneof![Just(0u8), 0..160u8], prop_oneof![Just(0u8), 0..128u8], 1..2 * SECOND);
    let udp = udp.prop_map(|(loss, doubling, delay_us)| Wire { loss, doubling, delay_us, transport: Transport::Udp });
    let tcp = (1..2 * SECOND).prop_map(|delay_us| Wire { loss: 0, doubling: 0, delay_us, transport: Transport::Tcp });
    prop_oneof![4 => udp, 1 => tcp]
}

/// The calling side's view of one plan.
#[derive(Debug, Default)]
struct Caller {
    txn: Option<ClientTxn>,
    finals: Vec<u16>,
    failures: u32,
    to_tag: String,
}

/// The called side's.
#[derive(Debug, Default)]
struct Called {
    txn: Option<ServerTxn>,
    /// When the request came, as often as the user saw it.
    requests: Vec<Mono>,
    acks: u32,
    no_ack: u32,
    cancels: u32,
}

struct World {
    wire: Wire,
    plans: Vec<Plan>,
    now: Mono,
    draws: u64,
    sides: [Endpoint; 2],
    callers: Vec<Caller>,
    called: Vec<Called>,
    /// By arrival and order of sending: to which side, and the bytes.
    flying: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    sent: u64,
    /// Final answers seen on the wire, by branch and CSeq.
    answers: BTreeMap<String, Vec<u8>>,
    lost: u64,
}

impl World {
    fn new(wire: Wire, plans: Vec<Plan>, seed: u64) -> World {
        let mut sides = [endpoint(config(), 1), endpoint(config(), 2)];
        for (i, plan) in plans.iter().enumerate() {
            sides[0].start_timer(Mono(plan.start), i as u64, START);
        }
        World {
            wire,
            callers: plans.iter().map(|_| Caller::default()).collect(),
            called: plans.iter().map(|_| Called::default()).collect(),
            plans,
            now: Mono(0),
            draws: seed | 1,
            sides,
            flying: BTreeMap::new(),
            sent: 0,
            answers: BTreeMap::new(),
            lost: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.draws ^= self.draws << 13;
        self.draws ^= self.draws >> 7;
        self.draws ^= self.draws << 17;
        self.draws % below.max(1)
    }

    fn addr(side: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1 + side as u8], 5060))
    }

    fn path_to(&self, side: usize) -> Path {
        let stream = self.wire.transport.reliable();
        Path {
            remote: World::addr(side),
            listener: ListenerId(u8::from(stream)),
            transport: self.wire.transport,
            conn: u32::from(stream),
        }
    }

    /// Runs until nothing is on its way and no timer runs.
    fn run(&mut self) {
        loop {
            self.drain();
            let timers = self.sides.iter().filter_map(Endpoint::next_due).min();
            let arrival = self.flying.keys().next().map(|k| Mono(k.0));
            let Some(next) = timers.into_iter().chain(arrival).min() else { return };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (to, bytes)) = self.flying.pop_first().unwrap();
                self.arrive(to, &bytes);
            }
            self.poll_timers();
        }
    }

    fn drain(&mut self) {
        for side in 0..2 {
            while let Some(t) = self.sides[side].poll_transmit() {
                let bytes = self.sides[side].bytes(&t).to_vec();
                self.sides[side].sent(t);
                self.check_sent(side, &bytes);
                self.fly(1 - side, bytes);
            }
        }
    }

    fn check_sent(&mut self, side: usize, bytes: &[u8]) {
        let msg = Message::parse(bytes, &Limits::default()).expect("what we send parses");
        let text = String::from_utf8_lossy(bytes);
        // The answer to a CANCEL has no state of its own: it follows that of its INVITE.
        let cancel = msg.cseq().is_ok_and(|c| c.method == Method::Cancel);
        if side == 1 && !cancel && msg.code().is_some_and(|c| c >= 200) {
            let key = format!("{:?} {:?}", field(&text, "Via"), field(&text, "CSeq"));
            let first = self.answers.entry(key).or_insert_with(|| bytes.to_vec());
            assert_eq!(*first, bytes, "one final answer a transaction");
        }
        if msg.is_request() {
            msg.check_request().expect("our requests pass our own checks");
        }
    }

    fn fly(&mut self, to: usize, bytes: Vec<u8>) {
        let copies = 1 + u64::from(self.draw(256) < u64::from(self.wire.doubling));
        for _ in 0..copies {
            if self.draw(256) < u64::from(self.wire.loss) {
                self.lost += 1;
                continue;
            }
            let delay = if self.wire.transport.reliable() { self.wire.delay_us } else { self.draw(self.wire.delay_us) };
            self.sent += 1;
            self.flying.insert((self.now.0 + delay, self.sent), (to, bytes.clone()));
        }
    }

    fn arrive(&mut self, side: usize, bytes: &[u8]) {
        let msg = Message::parse(bytes, &Limits::default()).unwrap();
        let path = self.path_to(1 - side);
        let event = self.sides[side].receive(self.now, path, &msg);
        let call: usize = std::str::from_utf8(msg.call_id().unwrap()).unwrap()[4..].parse().unwrap();
        match event {
            Some(Event::Request { txn }) => self.requested(call, txn),
            Some(Event::Ack) => {
                self.called[call].acks += 1;
                let txn = self.called[call].txn.expect("an ACK follows its INVITE");
                self.sides[1].acked(txn);
            }
            Some(Event::Cancel { invite, user }) => {
                assert_eq!((Some(invite), user), (self.called[call].txn, call as u64));
                self.called[call].cancels += 1;
                self.respond(call, 487);
            }
            Some(Event::Response { txn, user }) => {
                assert_eq!((Some(txn), user), (self.callers[call].txn, call as u64));
                self.answered(call, &msg);
            }
            None => {}
        }
    }

    fn requested(&mut self, call: usize, txn: ServerTxn) {
        self.called[call].requests.push(self.now);
        self.called[call].txn = Some(txn);
        self.sides[1].set_user(txn, call as u64);
        let plan = self.plans[call].clone();
        for (delay, kind) in [(plan.ring, RING), (plan.answer, FINAL)] {
            if let Some(delay) = delay {
                self.sides[1].start_timer(self.now.plus_us(delay), call as u64, kind);
            }
        }
    }

    fn respond(&mut self, call: usize, code: u16) {
        let tag = format!("b{call}");
        let reply = Reply { code, to_tag: tag.as_bytes(), contact: b"<sip:b@192.0.2.2>", ..Reply::default() };
        let txn = self.called[call].txn.unwrap();
        self.sides[1].respond(self.now, txn, &reply);
    }

    fn answered(&mut self, call: usize, msg: &Message<'_>) {
        let code = msg.code().unwrap();
        if code < 200 {
            return;
        }
        self.callers[call].finals.push(code);
        if code < 300 && self.plans[call].invite {
            self.callers[call].to_tag = String::from_utf8_lossy(msg.to_tag().unwrap()).into_owned();
            let due = self.now.plus_us(self.plans[call].ack_delay);
            self.sides[0].start_timer(due, call as u64, ACK);
        }
    }

    fn poll_timers(&mut self) {
        for side in 0..2 {
            while let Some(event) = self.sides[side].poll_timer(self.now) {
                match event {
                    TimerEvent::User { token, kind } => self.planned(token as usize, kind),
                    TimerEvent::ClientFailed { txn, user, .. } => {
                        assert_eq!(Some(txn), self.callers[user as usize].txn);
                        self.callers[user as usize].failures += 1;
                    }
                    TimerEvent::NoAck { user, .. } => self.called[user as usize].no_ack += 1,
                    TimerEvent::ServerGone { .. } => panic!("no transport fails here"),
                }
            }
        }
    }

    fn planned(&mut self, call: usize, kind: u8) {
        match kind {
            START => {
                let method = if self.plans[call].invite { Method::Invite } else { Method::Info };
                let txn = self.send(call, method, None);
                self.callers[call].txn = txn;
                if self.plans[call].invite {
                    self.sides[0].start_timer(self.now.plus_us(PATIENCE), call as u64, GIVE_UP);
                }
                if let Some(delay) = self.plans[call].cancel {
                    self.sides[0].start_timer(self.now.plus_us(delay), call as u64, CANCEL);
                }
            }
            CANCEL => {
                let txn = self.callers[call].txn.unwrap();
                self.sides[0].cancel(self.now, txn);
            }
            ACK => {
                let txn = self.callers[call].txn;
                self.send(call, Method::Ack, txn);
            }
            GIVE_UP => {
                let caller = &self.callers[call];
                if let Some(txn) = caller.txn.filter(|_| caller.finals.is_empty() && caller.failures == 0) {
                    assert!(self.lost > 0, "call {call} hangs");
                    self.sides[0].cancel(self.now, txn);
                }
            }
            RING => self.respond(call, 180),
            FINAL => self.respond(call, self.plans[call].code),
            other => panic!("timer {other}"),
        }
    }

    fn send(&mut self, call: usize, method: Method<'_>, ack_of: Option<ClientTxn>) -> Option<ClientTxn> {
        let tag = match method {
            Method::Info => "b",
            _ => &self.callers[call].to_tag,
        };
        let head = head(method, 1, tag).replace("out1", &format!("call{call}"));
        let target = Target::Addr(self.path_to(1));
        let head = head.as_bytes();
        let req = Outgoing {
            method,
            uri: b"sip:b@192.0.2.2",
            target,
            head,
            content_type: b"",
            body: b"",
            stamp: 0,
            bucket: None,
        };
        match ack_of {
            Some(txn) => {
                self.sides[0].ack_2xx(self.now, txn, &req);
                None
            }
            None => Some(self.sides[0].request(self.now, &req, call as u64)),
        }
    }

    fn check_end(&self) {
        for (call, (caller, called)) in self.callers.iter().zip(&self.called).enumerate() {
            let plan = &self.plans[call];
            let ends = caller.finals.len() as u32 + caller.failures;
            assert_eq!(ends, 1, "call {call} {plan:?} ended as {caller:?}");
            // A last retransmission that takes its time outlives timers H, J and L: the RFC's own gap.
            let gap = |w: &[Mono]| w[1].since(w[0]) >= LIFE && self.lost > 0;
            assert!(called.requests.windows(2).all(gap), "call {call} reached its user twice: {:?}", called.requests);
            assert!(called.cancels <= 1);
            let established = plan.invite && caller.finals.first().is_some_and(|c| *c < 300);
            if self.lost == 0 {
                // Otherwise the ACK of a refusal may come after timer H, and the user sees an ACK of nothing.
                assert!(established || called.acks == 0, "call {call}: an ACK of nothing");
                assert_eq!(called.requests.len(), 1);
                assert_eq!(called.no_ack, 0, "call {call} {plan:?}");
                let silent = plan.answer.is_none_or(|at| at >= 25 * SECOND) && !plan.invite;
                let cancelled_silent = plan.cancel.is_some();
                assert!(caller.failures == 0 || silent || cancelled_silent, "call {call} {plan:?} {caller:?}");
                assert!(!established || called.acks > 0);
            }
        }
        for side in &self.sides {
            assert!(side.counts().is_at_rest(), "{:?}", side.counts());
        }
    }
}

proptest! {
    #[test]
    fn every_transaction_ends_once_and_leaves_nothing(
        wire in wire(),
        plans in proptest::collection::vec(plan(), 1..12),
        seed: u64,
    ) {
        let mut world = World::new(wire, plans, seed);
        world.run();
        world.check_end();
    }

    /// Whatever is thrown at it in whatever order: it never panics, stays bounded and comes to rest.
    #[test]
    fn mutated_traffic_never_harms(
        picks in proptest::collection::vec((0..8usize, 0..6u8, any::<u16>(), any::<u8>(), 0..2 * SECOND), 1..120),
    ) {
        let mut ep = endpoint(config(), 3);
        let mut now = Mono(0);
        let path = Path::udp(World::addr(0), ListenerId(0));
        for (kind, branch, at, with, wait) in picks {
            let method = ["INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "INFO", "PRACK", "MESSAGE"][kind];
            let req = Req { cseq: u32::from(branch % 2), ..Req::new(method, &format!("z9hG4bK{}", branch / 2)) };
            let req = if with & 3 == 0 { req.tagged("ours") } else { req };
            let mut bytes = req.to_string().into_bytes();
            if with & 4 == 0 {
                let at = usize::from(at) % bytes.len();
                bytes[at] = with;
            }
            let event = match Message::parse(&bytes, &Limits::default()) {
                Ok(msg) => ep.receive(now, path, &msg),
                Err(err) => {
                    ep.receive_malformed(now, path, &bytes, err);
                    None
                }
            };
            if let Some(Event::Request { txn } | Event::Cancel { invite: txn, .. }) = event {
                ep.respond(now, txn, &Reply { code: 180 + u16::from(with) % 320, to_tag: b"ours", ..Reply::default() });
                if with & 8 == 0 {
                    ep.acked(txn);
                }
            }
            now = now.plus_us(wait);
            while ep.poll_timer(now).is_some() {}
            while let Some(t) = ep.poll_transmit() {
                prop_assert!(!ep.bytes(&t).is_empty());
                if with & 16 == 0 { ep.send_failed(now, t) } else { ep.sent(t) }
            }
        }
        // Only what nobody answered is left.
        let waiting: Vec<_> = std::iter::from_fn(|| {
            now = ep.next_due()?.max(now);
            while ep.poll_timer(now).is_some() {}
            while let Some(t) = ep.poll_transmit() {
                ep.sent(t);
            }
            Some(())
        }).collect();
        prop_assert!(waiting.len() < 10_000);
        let counts = ep.counts();
        prop_assert_eq!(counts.timers + counts.queued + counts.resolving, 0);
        prop_assert_eq!(counts.server_others, 0);
        prop_assert!(counts.buffers <= 2 * counts.server_invites);
    }
}
