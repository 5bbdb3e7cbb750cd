//! What a journal costs a shard: a queued call of some twenty messages (music, an agent logs in, talk, hang-up) over and over.
//!
//! `call/without`, `call/with`: a whole call, its peers' part included, without and with a journal whose sink copies each record,
//! as a mapped file does. What is between them is the journal's.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use strowger_dispatch::{AgentRef, ChatPolicy, Dispatch, Limits};
use strowger_engine::journal::{Entity, Kind, Sink};
use strowger_engine::registry::{AgentRow, FlowRow, Registry, RegistryLimits, Rows};
use strowger_engine::{BucketTable, Control, Engine, EngineConfig, StatsHub};
use strowger_sip::endpoint::ListenerInfo;
use strowger_sip::hash::HashKey;
use strowger_sip::net::{ListenerId, Path, Transport};
use strowger_sip::time::{Mono, Now};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENGINE: &str = "10.0.0.1:5060";
const CALLER: &str = "10.0.2.1:5060";
const MEDIA: &str = "10.0.3.1:5060";
const AGENT: &str = "10.0.4.1:5060";

/// A ring of memory that records are copied to.
struct Ring {
    bytes: Vec<u8>,
    at: usize,
    records: u64,
    written: u64,
    kinds: [(u64, u64); Kind::ALL.len()],
}

impl Sink for Ring {
    fn put(&mut self, entity: Entity, record: &[u8]) {
        if self.at + record.len() > self.bytes.len() {
            self.at = 0;
        }
        self.bytes[self.at..self.at + record.len()].copy_from_slice(record);
        self.at += record.len();
        self.records += 1;
        self.written += record.len() as u64;
        let kind = &mut self.kinds[entity.kind as usize];
        *kind = (kind.0 + 1, kind.1 + record.len() as u64);
    }
    fn remove(&mut self, entity: Entity) {
        black_box(entity);
    }
}

fn sdp(name: &str) -> String {
    format!(
        "v=0\r\no={name} 77 1 IN IP4 10.0.9.9\r\ns={name}\r\nc=IN IP4 10.0.9.9\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0 8 101\r\n\
         a=rtpmap:101 telephone-event/8000\r\n"
    )
}

fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find(|l| l.starts_with(name)).unwrap_or_default()
}

struct Bench {
    engine: Engine,
    agent: AgentRef,
    ring: Ring,
    now: Now,
    calls: u64,
    keeps: bool,
    turns: u64,
}

impl Bench {
    fn new(keeps: bool) -> Bench {
        let listener = ListenerInfo { transport: Transport::Udp, via: ENGINE.into(), contact_host: ENGINE.into() };
        let mut cfg = EngineConfig {
            endpoint: Arc::new(EngineConfig::endpoint(vec![listener])),
            buckets: Arc::new(BucketTable::even(1)),
            key: HashKey(1, 2),
            call: Default::default(),
        };
        cfg.call.reject_on_no_agents = false;
        cfg.call.wrapup_us = 1;
        let limits = Limits { shards: 1, agents: 8, waiting_per_shard: 100, skills: 8 };
        let dispatch = Arc::new(Dispatch::new(limits, ChatPolicy::Balancing));
        let mut registry = Registry::new(dispatch.handle(1), RegistryLimits { flows: 8, skills: 8 });
        let agent = AgentRow {
            agentid: Some("ann".into()),
            location: Some(format!("sip:ann@{AGENT}")),
            skills: Some("sales".into()),
            ..AgentRow::default()
        };
        let flow = FlowRow {
            flowid: Some("sales".into()),
            skill: Some("sales".into()),
            message_queue: Some(format!("sip:music@{MEDIA}")),
            ..FlowRow::default()
        };
        let (prov, _) = registry.load(&Rows { flows: vec![flow], agents: vec![agent] });
        while registry.commit(16, &mut Vec::new()) {}
        let agent = registry.agent("ann").expect("she is loaded");
        let now = Now { mono: Mono(1_000_000_000), unix_us: 1_700_000_000_000_000 };
        let stats = Arc::new(StatsHub::new(1, 8, 8));
        let engine = Engine::new(Arc::new(cfg), 0, &dispatch, stats, prov, [7; 32], now);
        let ring = Ring { bytes: vec![0; 1 << 20], at: 0, records: 0, written: 0, kinds: Default::default() };
        Bench { engine, agent, ring, now, calls: 0, keeps, turns: 0 }
    }

    fn turn(&mut self, input: impl FnOnce(&mut Engine, Now)) -> Vec<(SocketAddr, String)> {
        self.now.mono = self.now.mono.plus_us(1000);
        self.now.unix_us += 1000;
        input(&mut self.engine, self.now);
        if self.keeps {
            self.engine.journal(self.now, &mut self.ring);
            self.turns += 1;
        }
        let mut sent = Vec::new();
        while let Some(t) = self.engine.poll_transmit() {
            sent.push((t.path.remote, String::from_utf8_lossy(self.engine.bytes(&t)).into_owned()));
            self.engine.sent(t);
        }
        while self.engine.poll_output().is_some() {}
        sent
    }

    fn message(&mut self, from: &str, text: &str) -> Vec<(SocketAddr, String)> {
        let path = Path::udp(from.parse().expect("an address"), ListenerId(0));
        self.turn(|engine, now| engine.handle_datagram(now, path, text.as_bytes()))
    }

    /// Peers answer all that comes, and what that brings, until nothing comes.
    fn settle(&mut self, mut sent: Vec<(SocketAddr, String)>) {
        while let Some((to, text)) = sent.pop() {
            let name = if to.to_string() == AGENT { "agent" } else { "peer" };
            let cseq = line(&text, "CSeq:");
            if text.starts_with("SIP/2.0 200") && cseq.ends_with("INVITE") {
                let ack = self.request(&text, "ACK", "");
                sent.extend(self.message(&to.to_string(), &ack));
            } else if text.starts_with("INVITE ") || text.starts_with("BYE ") {
                let codes: &[u16] =
                    if name == "agent" && text.starts_with("INVITE ") { &[100, 180, 200] } else { &[200] };
                for code in codes {
                    let answer = answer(&text, *code, name);
                    sent.extend(self.message(&to.to_string(), &answer));
                }
            }
        }
    }

    /// A request of the caller's in the dialog that the 200 made.
    fn request(&self, ok: &str, method: &str, body: &str) -> String {
        let cseq = if method == "ACK" { 1 } else { 2 };
        format!(
            "{method} sip:{ENGINE} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};branch=z9hG4bK{method}{n};rport\r\nMax-Forwards: 70\r\n\
             {from}\r\n{to}\r\n{id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:caller@{CALLER}>\r\nContent-Length: {len}\r\n\r\n{body}",
            n = self.calls,
            from = line(ok, "From:"),
            to = line(ok, "To:"),
            id = line(ok, "Call-ID:"),
            len = body.len(),
        )
    }

    fn call(&mut self) {
        self.calls += 1;
        let agent = self.agent;
        self.turn(|engine, now| engine.handle_control(now, 0, Control::Login { agent, on: false }));
        let body = sdp("caller");
        let invite = format!(
            "INVITE sip:sales@{ENGINE} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};branch=z9hG4bKi{n};rport\r\nMax-Forwards: 70\r\n\
             From: \"Caller\" <sip:caller@example.com>;tag=c{n}\r\nTo: <sip:sales@example.com>\r\nCall-ID: call{n}@10.0.2.1\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:caller@{CALLER}>\r\nContent-Type: application/sdp\r\nContent-Length: {len}\r\n\r\n{body}",
            n = self.calls,
            len = body.len(),
        );
        let mut sent = self.message(CALLER, &invite);
        let music = sent.pop().expect("the music is called");
        let answered = answer(&music.1, 200, "music");
        let mut sent = self.message(MEDIA, &answered);
        let ok = sent.iter().find(|(_, t)| t.starts_with("SIP/2.0 200")).expect("the caller is answered").1.clone();
        sent.retain(|(_, t)| !t.starts_with("SIP/2.0 200"));
        let ack = self.request(&ok, "ACK", "");
        sent.extend(self.message(CALLER, &ack));
        self.settle(sent);
        let sent = self.turn(|engine, now| engine.handle_control(now, 0, Control::Login { agent, on: true }));
        self.settle(sent);
        let bye = self.request(&ok, "BYE", "");
        let sent = self.message(CALLER, &bye);
        self.settle(sent);
        self.now.mono = self.now.mono.plus_us(60_000_000);
        self.now.unix_us += 60_000_000;
        self.turn(|engine, now| engine.handle_timers(now));
        assert_eq!(self.engine.calls(), 0, "the call is over");
    }
}

fn answer(request: &str, code: u16, name: &str) -> String {
    let body = if code == 200 && request.starts_with("INVITE") { sdp(name) } else { String::new() };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    let to = line(request, "To:");
    let tag = if to.contains(";tag=") || code == 100 { String::new() } else { format!(";tag={name}") };
    let at = if name == "agent" { AGENT } else { MEDIA };
    let at = if request.contains("CALLER") { CALLER } else { at };
    format!(
        "SIP/2.0 {code} X\r\n{via}\r\n{from}\r\n{to}{tag}\r\n{id}\r\n{cseq}\r\nContact: <sip:{name}@{at}>\r\n{kind}Content-Length: {len}\r\n\r\n{body}",
        via = line(request, "Via:"),
        from = line(request, "From:"),
        id = line(request, "Call-ID:"),
        cseq = line(request, "CSeq:"),
        len = body.len(),
    )
}

/// Time that this thread has had on a processor: other work on the machine does not count.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

fn journal(c: &mut Criterion) {
    let mut with = Bench::new(true);
    (0..100).for_each(|_| with.call());
    let before = (with.turns, with.ring.records, with.ring.written);
    (0..100).for_each(|_| with.call());
    let each = |now: u64, before: u64| (now - before) as f64 / 100.0;
    let turns = each(with.turns, before.0);
    let (records, bytes) = (each(with.ring.records, before.1), each(with.ring.written, before.2));
    println!("a call: {turns} turns, {records} records, {bytes} bytes");
    for (kind, (records, bytes)) in Kind::ALL.into_iter().zip(with.ring.kinds) {
        println!("    {kind:?}: {} records, {} bytes", records as f64 / 200.0, bytes as f64 / 200.0);
    }
    let mut without = Bench::new(false);
    let mut group = c.benchmark_group("call");
    group.sample_size(10).sampling_mode(criterion::SamplingMode::Flat);
    let mut times = Vec::new();
    for (name, bench) in [("without", &mut without), ("with", &mut with)] {
        let mut best = Duration::MAX;
        group.bench_function(name, |b| {
            b.iter_custom(|n| {
                let before = on_cpu();
                (0..n).for_each(|_| bench.call());
                let spent = on_cpu() - before;
                if n > 200 {
                    best = best.min(spent / n as u32);
                }
                spent
            });
        });
        times.push(best.as_secs_f64() * 1e6);
    }
    group.finish();
    let journal = times[1] - times[0];
    println!(
        "best of each: a call {:.1} us, its journal {journal:.1} us: {:.0} ns a turn, {:.0} ns a record",
        times[0],
        journal * 1000.0 / turns,
        journal * 1000.0 / records
    );
}

criterion_group!(benches, journal);
criterion_main!(benches);
