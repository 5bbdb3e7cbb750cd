//! The runtime with real sockets and executors on loopback, driving a small machine instead of the engine: a SIP
//! endpoint that answers each MESSAGE and INVITE with 200 and names its shard.

mod support;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use strowger_dispatch::{AgentRef, ChatPolicy, Dispatch, Limits as DispatchLimits, Match};
use strowger_engine::control::{Audit, Control, Reply};
use strowger_engine::journal::{Entity, Kind, Sink};
use strowger_engine::{BucketTable, CallConfig, EngineConfig, MeshMsg, Output, Provisioning, StatsHub};
use strowger_runtime::journal::{self, Generation, JournalSpec};
use strowger_runtime::machine::Machine;
use strowger_runtime::{
    Bound, Holder, ListenerSpec, OverloadConfig, ServerSpec, Shards, SourceRate, StartError, bind, start_with,
};
use strowger_sip::endpoint::{Endpoint, EndpointConfig, Event, ListenerInfo, Outgoing, Resolve, Target, Transmit};
use strowger_sip::hash::HashKey;
use strowger_sip::msg::{Limits, Message, Method, Reply as SipReply};
use strowger_sip::net::{ListenerId, Path, Transport};
use strowger_sip::scan::bucket_of;
use strowger_sip::time::{Mono, Now};
use support::cdr;

const KEY: HashKey = HashKey(11, 22);
const WAIT: Duration = Duration::from_secs(10);

/// See the file. Commands stand for other things than with the engine:
/// `Matched` sends a message to the next shard, `Drain` starts 50 timers of 1 to 99 ms, `EndAll` makes three CDRs,
/// `ListCalls` panics, `Login` asks for an address, `BeginWrapup` sends three requests that no socket takes.
struct Probe {
    shard: u16,
    shards: u16,
    ep: Endpoint,
    outputs: Vec<Output>,
    questions: Vec<Resolve>,
    seen: Audit,
    /// How long each INVITE takes.
    toil: Duration,
    /// Call-IDs that the journal does not have yet.
    heard: Vec<Vec<u8>>,
    /// It has the shard's own record.
    journaled: bool,
}

impl Machine for Probe {
    fn handle_datagram(&mut self, now: Now, path: Path, bytes: &[u8]) {
        let Ok(msg) = Message::parse(bytes, &Limits::default()) else { return };
        self.heard.push(msg.call_id().unwrap_or_default().to_vec());
        let invite = bytes.starts_with(b"INVITE");
        let Some(Event::Request { txn }) = self.ep.receive(now.mono, path, &msg) else { return };
        if invite {
            self.seen.calls += 1;
            let began = Instant::now();
            while began.elapsed() < self.toil {}
        }
        let line = format!("X-Shard: {}\r\n", self.shard);
        let tag = self.ep.ids().tag(0, 0);
        let code = if invite { 486 } else { 200 };
        let reply = SipReply { code, to_tag: tag.as_bytes(), extra: line.as_bytes(), ..SipReply::default() };
        self.ep.respond(now.mono, txn, &reply);
    }
    fn handle_mesh(&mut self, _: Now, _: MeshMsg) {
        self.seen.legs += 1;
    }
    fn handle_control(&mut self, now: Now, id: u64, cmd: Control) {
        let mut reply = Reply::Done;
        match cmd {
            Control::Matched(matches) => {
                let to = (self.shard + 1) % self.shards;
                for matched in matches {
                    self.outputs.push(Output::Mesh { to, msg: MeshMsg::Matched { matched, since: now.mono } });
                }
            }
            Control::Drain { .. } => {
                for n in 0..50 {
                    self.ep.start_timer(now.mono.plus_us(1_000 + n * 2_000), 0, 0);
                }
            }
            Control::EndAll => self.outputs.extend((0..3).map(|n| Output::Cdr(cdr(n)))),
            Control::Login { .. } => self.questions.push(Resolve { id: 9, host: "name.test".to_owned() }),
            Control::ListCalls { .. } => panic!("on purpose"),
            Control::Audit => reply = Reply::Audit(self.seen),
            Control::BeginWrapup { .. } => {
                let nowhere = Path::udp("127.0.0.1:0".parse().unwrap(), ListenerId(0));
                for _ in 0..3 {
                    let (method, target) = (Method::Options, Target::Addr(nowhere));
                    let head = b"Call-ID: c\r\nCSeq: 1 OPTIONS\r\n";
                    let (content_type, body) = (&b""[..], &b""[..]);
                    let out =
                        Outgoing { method, uri: b"sip:h", target, head, content_type, body, stamp: 0, bucket: None };
                    self.ep.request(now.mono, &out, 0);
                }
            }
            Control::Provision(_) | Control::Place { .. } | Control::Findings => {}
        }
        self.outputs.push(Output::Reply { id, reply });
    }
    fn handle_resolved(&mut self, _: Now, id: u32, result: Result<&[IpAddr], ()>, _: u64) {
        self.seen.buffers = result.map_or(0, <[IpAddr]>::len) + 100 * id as usize;
    }
    fn handle_send_failed(&mut self, now: Now, transmit: Transmit) {
        self.ep.send_failed(now.mono, transmit);
        self.handle_timers(now);
    }
    fn handle_timers(&mut self, now: Now) {
        while let Some(event) = self.ep.poll_timer(now.mono) {
            if matches!(event, strowger_sip::endpoint::TimerEvent::User { .. }) {
                self.seen.timers += 1;
            }
        }
    }
    fn next_due(&self) -> Option<Mono> {
        self.ep.next_due()
    }
    fn take_lateness(&mut self) -> Option<u64> {
        self.ep.take_lateness()
    }
    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.ep.poll_transmit()
    }
    fn bytes(&self, t: &Transmit) -> &[u8] {
        self.ep.bytes(t)
    }
    fn sent(&mut self, t: Transmit) {
        self.ep.sent(t);
    }
    fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() { None } else { Some(self.outputs.remove(0)) }
    }
    fn poll_resolve(&mut self) -> Option<Resolve> {
        self.questions.pop()
    }
    fn idle(&mut self) {
        self.seen.wrapups += 1;
    }
    fn journal<S: Sink>(&mut self, _: Now, sink: &mut S) {
        if !std::mem::replace(&mut self.journaled, true) {
            sink.put(Entity { kind: Kind::Shard, id: 0 }, b"shard");
        }
        for call_id in self.heard.drain(..) {
            self.seen.client_transactions += 1;
            // Those that are said to be so replace each other.
            let id = if call_id.starts_with(b"same") { 0 } else { self.seen.client_transactions as u64 };
            sink.put(Entity { kind: Kind::Call, id }, &call_id);
        }
    }
}

/// A running server of probes, its address and its data directory.
struct Server {
    shards: Option<Shards>,
    addr: SocketAddr,
    stats: Arc<StatsHub>,
    _dir: tempfile::TempDir,
}

fn listener(addr: &str) -> ListenerSpec {
    ListenerSpec { transport: Transport::Udp, addr: addr.parse().unwrap(), shard_port_base: None }
}

fn spec(shards: u16, cdr_capacity: usize, overload: OverloadConfig) -> ServerSpec {
    let listeners = ["h:5060".to_owned()]
        .map(|via| ListenerInfo { transport: Transport::Udp, contact_host: via.clone(), via })
        .to_vec();
    let endpoint = EndpointConfig { listeners, auto_trying: false, ..EndpointConfig::default() };
    let engine = EngineConfig {
        endpoint: Arc::new(endpoint),
        buckets: Arc::new(BucketTable::even(shards)),
        key: KEY,
        call: CallConfig::default(),
    };
    let limits = DispatchLimits { shards: shards + 1, agents: 16, waiting_per_shard: 16, skills: 4 };
    ServerSpec {
        engine: Arc::new(engine),
        shards,
        dispatch: Arc::new(Dispatch::new(limits, ChatPolicy::default())),
        stats: Arc::new(StatsHub::new(shards, 1, 1)),
        provisioning: Arc::new(Provisioning::default()),
        cdr_capacity,
        overload,
        pin: false,
        real_time: false,
        busy_poll_us: 0,
        seed: [7; 32],
        journal: None,
        restored: [].into(),
    }
}

fn run(bound: Bound, spec: ServerSpec, toil: Duration) -> Result<Shards, StartError> {
    let shards = spec.shards;
    let started = start_with(bound, spec, move |shard, spec, _| Probe {
        shard,
        shards,
        ep: Endpoint::new(Arc::clone(&spec.engine.endpoint), KEY, [3; 32], 0),
        outputs: Vec::new(),
        questions: Vec::new(),
        seen: Audit::default(),
        toil,
        heard: vec![],
        journaled: false,
    });
    started.inspect(Shards::serve)
}

fn server(shards: u16, spec: ServerSpec, toil: Duration) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let bound = bind(dir.path(), &[listener("127.0.0.1:0")], shards).unwrap();
    let (addr, stats) = (bound.addrs()[0], Arc::clone(&spec.stats));
    Server { shards: Some(run(bound, spec, toil).unwrap()), addr, stats, _dir: dir }
}

impl Server {
    fn audit(&self, shard: u16) -> Audit {
        match self.control(shard, Control::Audit) {
            Reply::Audit(audit) => audit,
            other => panic!("{other:?}"),
        }
    }
    fn control(&self, shard: u16, cmd: Control) -> Reply {
        self.shards.as_ref().unwrap().control_blocking(shard, cmd).unwrap()
    }
    /// Asks until `done` says so.
    fn until(&self, shard: u16, done: impl Fn(&Audit) -> bool) -> Audit {
        let began = Instant::now();
        loop {
            let audit = self.audit(shard);
            if done(&audit) {
                return audit;
            }
            assert!(began.elapsed() < WAIT, "{audit:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(shards) = self.shards.take() {
            shards.stop();
        }
    }
}

fn peer() -> UdpSocket {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(WAIT)).unwrap();
    peer
}

fn request(method: &str, call_id: &str) -> Vec<u8> {
    format!(
        "{method} sip:q@h SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK{call_id};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:a@h>;tag=1\r\nTo: <sip:q@h>\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// The next answer: status, Call-ID, shard.
fn answer(peer: &UdpSocket, from: SocketAddr) -> (u16, String, Option<u16>) {
    let mut buffer = [0; 4096];
    let (n, source) = peer.recv_from(&mut buffer).expect("an answer in time");
    assert_eq!(source, from, "answers leave from the listener's own address and port");
    let msg = Message::parse(&buffer[..n], &Limits::default()).unwrap();
    let shard = msg.other("x-shard").map(|v| String::from_utf8_lossy(v).trim().parse().unwrap());
    (msg.code().unwrap(), String::from_utf8_lossy(msg.call_id().unwrap()).into_owned(), shard)
}

#[test]
fn each_call_id_is_answered_by_its_owner_from_the_listeners_port() {
    let server = server(3, spec(3, 8, OverloadConfig::default()), Duration::ZERO);
    let table = BucketTable::even(3);
    let peer = peer();
    for round in 0..100 {
        let call_id = format!("call{round}");
        peer.send_to(&request("MESSAGE", &call_id), server.addr).unwrap();
        let owner = table.shard(bucket_of(call_id.as_bytes(), &KEY));
        assert_eq!(answer(&peer, server.addr), (200, call_id, Some(owner)));
    }
    let shards = server.shards.as_ref().unwrap();
    let count = |pick: fn(&strowger_runtime::RuntimeCounts) -> i64| {
        (0..3).map(|s| pick(shards.counts(s).unwrap())).sum::<i64>()
    };
    // One source port lands on one share: about two thirds had to be handed over.
    assert!((40..=90).contains(&count(|c| c.forwarded.get())), "{}", count(|c| c.forwarded.get()));
    assert_eq!((count(|c| c.received.get()), count(|c| c.forward_lost.get())), (100, 0));
    // Recorded after the send, so perhaps after the peer has read the last answer.
    server.until(0, |_| shards.latency().receive_to_send.len() == 100);
    assert!(shards.latency().mesh.len() >= 40);
}

#[test]
fn junk_is_counted_and_changes_nothing() {
    let server = server(1, spec(1, 8, OverloadConfig::default()), Duration::ZERO);
    let peer = peer();
    for junk in [&b"\r\n\r\n"[..], b"", b"\0\x01\x02", b"INVITE"] {
        peer.send_to(junk, server.addr).unwrap();
    }
    peer.send_to(&request("OPTIONS", "o"), server.addr).unwrap();
    assert_eq!(answer(&peer, server.addr).0, 200);
    assert_eq!(server.shards.as_ref().unwrap().counts(0).unwrap().junk.get(), 4);
}

#[test]
fn matches_reach_a_parked_shard_however_many() {
    let server = server(2, spec(2, 8, OverloadConfig::default()), Duration::ZERO);
    let agent = AgentRef { slot: 0, gen_: 0 };
    let wait = strowger_dispatch::WaitRef { shard: 1, slot: 0, gen_: 0 };
    let many = vec![Match { wait, agent }; 5_000];
    server.control(0, Control::Matched(many));
    server.until(1, |seen| seen.legs == 5_000);
    assert_eq!(server.shards.as_ref().unwrap().latency().mesh.len(), 5_000);
}

#[test]
fn timers_fire_within_a_millisecond_of_their_time_as_a_rule() {
    let server = server(1, spec(1, 8, OverloadConfig::default()), Duration::ZERO);
    for round in 1..=4 {
        server.control(0, Control::Drain { on: true });
        // The answer to a command must not be what wakes the shard: wait without asking.
        std::thread::park_timeout(Duration::from_millis(120));
        server.until(0, |seen| seen.timers == 50 * round);
    }
    let latency = server.shards.as_ref().unwrap().latency();
    assert!(latency.command_cpu.len() >= 4, "one for each turn with commands");
    let late = latency.timer_lateness;
    // Each is due alone, and only those that fire count.
    assert!((150..=200).contains(&late.len()), "{}", late.len());
    // The tail belongs to the machine that runs the tests; a tick of even 4 ms would show in the middle.
    let p50 = late.value_at_quantile(0.5);
    assert!(p50 < 1_000_000, "p50 {p50} ns");
}

/// More busy threads than CPUs, and shards that toil: each is put off again and again, anywhere in its loop, and must
/// still hear every datagram.
#[test]
fn shards_short_of_cpu_time_are_never_deaf() {
    let servers: Vec<_> =
        (0..6).map(|_| server(2, spec(2, 8, OverloadConfig::default()), Duration::from_micros(300))).collect();
    let peers: Vec<_> = servers.iter().map(|_| peer()).collect();
    let cpus = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..cpus {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let began = Instant::now();
        let mut calls = 0..;
        while began.elapsed() < Duration::from_secs(4) {
            let call = format!("call{}", calls.next().unwrap_or(0));
            for (server, peer) in servers.iter().zip(&peers) {
                for method in ["INVITE", "MESSAGE"] {
                    peer.send_to(&request(method, &format!("{method}{call}")), server.addr).unwrap();
                }
            }
            let deaf = servers.iter().zip(&peers).find(|(s, p)| !(hears(p, s.addr) && hears(p, s.addr)));
            if deaf.is_some() {
                over.store(true, Relaxed);
                panic!("no answer to {call}");
            }
        }
        over.store(true, Relaxed);
    });
}

/// Whether an answer, whichever, comes in time.
fn hears(peer: &UdpSocket, from: SocketAddr) -> bool {
    peer.recv_from(&mut [0; 4096]).is_ok_and(|(_, source)| source == from)
}

#[test]
fn cdrs_wait_in_order_until_they_are_taken() {
    let server = server(1, spec(1, 1, OverloadConfig::default()), Duration::ZERO);
    let shards = server.shards.as_ref().unwrap();
    server.control(0, Control::EndAll);
    server.control(0, Control::EndAll);
    assert_eq!(shards.counts(0).unwrap().cdrs_waiting.get(), 5);
    let taken: Vec<u128> = (0..6).map(|_| shards.cdrs().take_within(WAIT).unwrap().key).collect();
    assert_eq!(taken, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn new_calls_are_refused_while_cdrs_pile_up_and_other_requests_are_not() {
    let overload = OverloadConfig { cdr_backlog: 1, ..OverloadConfig::default() };
    let server = server(1, spec(1, 1, overload), Duration::ZERO);
    let peer = peer();
    server.control(0, Control::EndAll);
    peer.send_to(&request("INVITE", "one"), server.addr).unwrap();
    assert_eq!(answer(&peer, server.addr), (503, "one".to_owned(), None));
    peer.send_to(&request("MESSAGE", "two"), server.addr).unwrap();
    assert_eq!(answer(&peer, server.addr).0, 200);
    assert_eq!(server.stats.shard(0).shed.get(), 1);
    let cdrs = server.shards.as_ref().unwrap().cdrs();
    (0..3).for_each(|_| drop(cdrs.take_within(WAIT).unwrap()));
    server.until(0, |_| server.shards.as_ref().unwrap().counts(0).unwrap().cdrs_waiting.get() == 0);
    peer.send_to(&request("INVITE", "three"), server.addr).unwrap();
    assert_eq!(answer(&peer, server.addr), (486, "three".to_owned(), Some(0)));
    // A copy of the refused one is refused again, though there is room now.
    peer.send_to(&request("INVITE", "one"), server.addr).unwrap();
    assert_eq!(answer(&peer, server.addr).0, 503);
}

#[test]
fn under_overload_late_calls_are_refused_each_once_and_the_rest_is_served() {
    let overload = OverloadConfig { max_age_us: 30_000, backlog: 100, ..OverloadConfig::default() };
    let server = server(1, spec(1, 8, overload), Duration::from_millis(1));
    let peer = peer();
    const CALLS: usize = 150;
    // Few enough that the answers fit into the buffer of a peer that gets no turn meanwhile.
    let (sender, to) = (peer.try_clone().unwrap(), server.addr);
    let sending = std::thread::spawn(move || {
        for n in 0..CALLS {
            sender.send_to(&request("INVITE", &format!("c{n}")), to).unwrap();
        }
    });
    let (mut served, mut refused) = (0, 0);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < CALLS {
        let (code, call_id, _) = answer(&peer, server.addr);
        if seen.insert(call_id) {
            *if code == 486 { &mut served } else { &mut refused } += 1;
        }
    }
    sending.join().unwrap();
    assert!(served > 0 && refused > CALLS / 4, "{served} served, {refused} refused");
    assert_eq!(server.audit(0).calls as i64 + server.stats.shard(0).shed.get(), CALLS as i64);
}

#[test]
fn a_source_beyond_its_rate_is_not_answered() {
    let source_rate = Some(SourceRate { per_second: 1, burst: 3 });
    let server = server(1, spec(1, 8, OverloadConfig { source_rate, ..OverloadConfig::default() }), Duration::ZERO);
    let peer = peer();
    for n in 0..10 {
        peer.send_to(&request("MESSAGE", &format!("m{n}")), server.addr).unwrap();
    }
    (0..3).for_each(|_| assert_eq!(answer(&peer, server.addr).0, 200));
    server.until(0, |_| server.shards.as_ref().unwrap().counts(0).unwrap().received.get() == 10);
    assert_eq!(server.shards.as_ref().unwrap().counts(0).unwrap().rate_limited.get(), 7);
}

#[test]
fn what_the_kernel_refuses_to_send_goes_back_and_counts_once() {
    let server = server(1, spec(1, 100, OverloadConfig::default()), Duration::ZERO);
    server.control(0, Control::BeginWrapup { agent: AgentRef { slot: 0, gen_: 0 }, until_unix_us: 0 });
    // The next command comes in a later turn, when the failed ones have been given back.
    server.until(0, |_| server.shards.as_ref().unwrap().counts(0).unwrap().send_failed.get() >= 3);
    server.audit(0);
    assert_eq!(server.shards.as_ref().unwrap().counts(0).unwrap().send_failed.get(), 3);
}

#[test]
fn what_is_answered_is_in_the_journal_already() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, copied) = (dir.path().join("kept"), dir.path().join("copied"));
    let spec_of =
        |dir: &std::path::Path| JournalSpec { dir: dir.to_owned(), memory: None, segment: 1 << 20, sync: WAIT };
    let (generation, _) = Generation::begin(spec_of(&kept), journal::prior(&kept).unwrap(), 2).unwrap();
    let spec = ServerSpec { journal: Some(Arc::new(generation)), ..spec(2, 8, OverloadConfig::default()) };
    let server = server(2, spec, Duration::ZERO);
    let peer = peer();
    for n in 0..20 {
        let call_id = format!("kept{n}");
        peer.send_to(&request("MESSAGE", &call_id), server.addr).unwrap();
        assert_eq!(answer(&peer, server.addr).1, call_id);
        // As a process would find it that starts after a kill at this moment.
        for shard in 0..2 {
            let (from, to) = (format!("00000001/shard-{shard}"), copied.join(format!("00000001/shard-{shard}")));
            std::fs::create_dir_all(&to).unwrap();
            for segment in std::fs::read_dir(kept.join(&from)).unwrap().map(Result::unwrap) {
                // A spare that nobody needs may go at any time.
                let _ = std::fs::copy(segment.path(), to.join(segment.file_name()));
            }
        }
        std::fs::copy(kept.join("00000001/COMPLETE"), copied.join("00000001/COMPLETE")).unwrap();
        let found = journal::prior(&copied).unwrap().found;
        assert_eq!(found.faults, []);
        assert!(found.shards.iter().flat_map(|s| &s.records).any(|(_, r)| **r == *call_id.as_bytes()), "{call_id}");
    }
}

#[test]
fn an_idle_shard_makes_its_journal_shorter() {
    let dir = tempfile::tempdir().unwrap();
    let journal = JournalSpec { dir: dir.path().to_owned(), memory: None, segment: 64 << 10, sync: WAIT / 1000 };
    let (generation, _) = Generation::begin(journal, journal::prior(dir.path()).unwrap(), 1).unwrap();
    let spec = ServerSpec { journal: Some(Arc::new(generation)), ..spec(1, 8, OverloadConfig::default()) };
    let server = server(1, spec, Duration::ZERO);
    let (peer, padding) = (peer(), "x".repeat(1000));
    // More than half as long again as what lives in it; a busy shard lets it grow to three times that.
    for n in 0..750 {
        let kind = if n % 15 < 8 { "other" } else { "same" };
        peer.send_to(&request("MESSAGE", &format!("{kind}{n}{padding}")), server.addr).unwrap();
        answer(&peer, server.addr);
    }
    let began = Instant::now();
    let written = || server.shards.as_ref().unwrap().counts(0).unwrap().journal_records.get();
    while written() < 800 {
        assert!(began.elapsed() < WAIT, "{} records", written());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn names_are_asked_for_and_answered() {
    let server = server(2, spec(2, 8, OverloadConfig::default()), Duration::ZERO);
    let shards = server.shards.as_ref().unwrap();
    server.control(1, Control::Login { agent: AgentRef { slot: 0, gen_: 0 }, on: true });
    let asked = shards.resolves().take_within(WAIT).unwrap();
    assert_eq!((asked.shard, asked.id, asked.host.as_str()), (1, 9, "name.test"));
    shards.resolved(asked.shard, asked.id, Ok(vec!["192.0.2.1".parse().unwrap(); 2]), 1_000_000);
    server.until(1, |seen| seen.buffers == 902);
}

#[test]
fn a_shard_that_panics_is_reported_and_the_others_can_be_stopped() {
    let mut server = server(2, spec(2, 8, OverloadConfig::default()), Duration::ZERO);
    let shards = server.shards.take().unwrap();
    let gone = shards.control_blocking(1, Control::ListCalls { from: 0, max: 1, queued_only: false });
    assert_eq!(gone.unwrap_err().to_string(), "shard 1 is gone");
    let failure = shards.failed().recv_timeout(WAIT).unwrap();
    assert_eq!((failure.shard, failure.reason.as_str()), (1, "on purpose"));
    assert!(shards.control_blocking(0, Control::Audit).is_ok());
    shards.stop();
}

#[test]
fn records_that_waited_on_a_shard_outlive_its_panic() {
    let server = server(1, spec(1, 1, OverloadConfig::default()), Duration::ZERO);
    let shards = server.shards.as_ref().unwrap();
    server.control(0, Control::EndAll);
    server.until(0, |_| shards.counts(0).unwrap().cdrs_waiting.get() == 2);
    assert!(shards.control_blocking(0, Control::ListCalls { from: 0, max: 1, queued_only: false }).is_err());
    let keys: Vec<u128> = (0..3).map(|_| shards.cdrs().take_within(WAIT).unwrap().key).collect();
    assert_eq!(keys, [0, 1, 2]);
}

#[test]
fn stop_joins_all_and_frees_locks_and_ports() {
    let dir = tempfile::tempdir().unwrap();
    let bound = bind(dir.path(), &[listener("127.0.0.1:0")], 2).unwrap();
    let addr = bound.addrs()[0];
    let shards = run(bound, spec(2, 8, OverloadConfig::default()), Duration::ZERO).unwrap();
    let me = Holder(i32::try_from(std::process::id()).ok());
    match bind(dir.path(), &[listener("127.0.0.1:0")], 1) {
        Err(StartError::DataDirInUse { holder, .. }) => assert_eq!(holder, me),
        other => panic!("{other:?}"),
    }
    let second = tempfile::tempdir().unwrap();
    match bind(second.path(), &[listener(&addr.to_string())], 1) {
        Err(StartError::AddrInUse { addr: named, holder }) => assert_eq!((named, holder), (addr, me)),
        other => panic!("{other:?}"),
    }
    shards.stop();
    drop(bind(dir.path(), &[listener(&addr.to_string())], 1).unwrap());
}

#[test]
fn a_foreign_socket_on_the_port_is_named_even_when_it_would_share() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = strowger_runtime::net::share("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = foreign.local_addr().unwrap().as_socket().unwrap();
    let text = bind(dir.path(), &[listener(&addr.to_string())], 1).unwrap_err().to_string();
    assert!(text.contains(&format!("udp {addr} is in use by this process")), "{text}");
}

#[test]
fn wrong_listeners_and_shard_counts_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = |listeners: &[ListenerSpec], shards| bind(dir.path(), listeners, shards).unwrap_err().to_string();
    let tcp = ListenerSpec { transport: Transport::Tcp, ..listener("127.0.0.1:5060") };
    assert_eq!(error(&[tcp], 1), "listener tcp:127.0.0.1:5060 is not available: only udp listeners are");
    assert!(error(&[listener("192.0.2.77:5060")], 1).contains("192.0.2.77:5060 is no address of this machine"));
    assert!(error(&[], 1).contains("no listener given"));
    assert!(error(&[listener("127.0.0.1:0")], 0).contains("0 shards asked for"));
    let bound = bind(dir.path(), &[listener("127.0.0.1:0")], 2).unwrap();
    let differ = run(bound, spec(3, 8, OverloadConfig::default()), Duration::ZERO).unwrap_err();
    assert!(differ.to_string().contains("2 shards were bound"), "{differ}");
}

#[test]
fn a_shards_own_port_leads_to_it_and_answers_from_there() {
    let dir = tempfile::tempdir().unwrap();
    // A free pair of ports, as good as one can know.
    let base = peer().local_addr().unwrap().port();
    let spec_own = ListenerSpec { shard_port_base: Some(base), ..listener("127.0.0.1:0") };
    let bound = bind(dir.path(), &[spec_own], 1).unwrap();
    let shards = run(bound, spec(1, 8, OverloadConfig::default()), Duration::ZERO).unwrap();
    let (peer, own) = (peer(), SocketAddr::from(([127, 0, 0, 1], base)));
    peer.send_to(&request("MESSAGE", "own"), own).unwrap();
    assert_eq!(answer(&peer, own), (200, "own".to_owned(), Some(0)));
    shards.stop();
}
