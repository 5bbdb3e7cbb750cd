//! What the live audit costs a shard with 20 000 calls and 10 000 agents, half of the calls ringing at one of them, half waiting.
//!
//! `audit/slice`: one slice. A shard does one every `SLICE_US` (20 ms): the share of its time is the one by the other.

use criterion::{Criterion, criterion_group, criterion_main};
use std::sync::Arc;
use std::time::Duration;
use strowger_dispatch::{ChatPolicy, Dispatch, Limits};
use strowger_engine::audit::SLICE_US;
use strowger_engine::registry::{AgentRow, FlowRow, Registry, RegistryLimits, Rows};
use strowger_engine::{BucketTable, Engine, EngineConfig, Output, StatsHub};
use strowger_sip::endpoint::ListenerInfo;
use strowger_sip::hash::HashKey;
use strowger_sip::net::{ListenerId, Path, Transport};
use strowger_sip::time::{Mono, Now};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENGINE: &str = "10.0.0.1:5060";
const CALLS: u32 = 20_000;
const AGENTS: u32 = 10_000;

fn invite(n: u32) -> String {
    let sdp =
        "v=0\r\no=c 77 1 IN IP4 10.0.9.9\r\ns=c\r\nc=IN IP4 10.0.9.9\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0 8 101\r\n";
    format!(
        "INVITE sip:sales@{ENGINE} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.2.1:5060;branch=z9hG4bK{n}\r\nMax-Forwards: 70\r\n\
         From: <sip:c{n}@10.0.2.1>;tag={n}\r\nTo: <sip:sales@{ENGINE}>\r\nCall-ID: call{n}@10.0.2.1\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:c{n}@10.0.2.1>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
}

/// A shard full of calls.
fn full() -> (Engine, Arc<StatsHub>, Now) {
    let listener = ListenerInfo { transport: Transport::Udp, via: ENGINE.into(), contact_host: ENGINE.into() };
    let mut cfg = EngineConfig {
        endpoint: Arc::new(EngineConfig::endpoint(vec![listener])),
        buckets: Arc::new(BucketTable::even(1)),
        key: HashKey(1, 2),
        call: Default::default(),
    };
    cfg.call.max_calls = CALLS;
    let limits = Limits { shards: 1, agents: AGENTS, waiting_per_shard: CALLS, skills: 8 };
    let dispatch = Arc::new(Dispatch::new(limits, ChatPolicy::Balancing));
    let mut registry = Registry::new(dispatch.handle(1), RegistryLimits { flows: 8, skills: 8 });
    let agent = |n: u32| AgentRow {
        agentid: Some(format!("a{n}")),
        location: Some(format!("sip:a{n}@10.0.4.1:5060")),
        skills: Some("sales".into()),
        logstate: Some(1),
        ..AgentRow::default()
    };
    let flow = FlowRow {
        flowid: Some("sales".into()),
        skill: Some("sales".into()),
        message_queue: Some("sip:music@10.0.3.1:5060".into()),
        ..FlowRow::default()
    };
    let (prov, _) = registry.load(&Rows { flows: vec![flow], agents: (0..AGENTS).map(agent).collect() });
    while registry.commit(16, &mut Vec::new()) {}
    let now = Now { mono: Mono(1_000_000_000), unix_us: 1_700_000_000_000_000 };
    let stats = Arc::new(StatsHub::new(1, 8, AGENTS));
    let mut engine = Engine::new(Arc::new(cfg), 0, &dispatch, stats.clone(), prov, [7; 32], now);
    for n in 0..CALLS {
        let path = Path::udp("10.0.2.1:5060".parse().expect("an address"), ListenerId(0));
        engine.handle_datagram(now, path, invite(n).as_bytes());
        while let Some(transmit) = engine.poll_transmit() {
            engine.sent(transmit);
        }
        while engine.poll_output().is_some() {}
    }
    assert_eq!((engine.calls(), dispatch.free_total()), (CALLS as usize, 0));
    (engine, stats, now)
}

fn slice(c: &mut Criterion) {
    let (mut engine, stats, mut now) = full();
    let mut group = c.benchmark_group("audit");
    group.measurement_time(Duration::from_secs(8));
    group.bench_function("slice", |b| {
        b.iter(|| {
            now.mono = now.mono.plus_us(SLICE_US);
            now.unix_us += SLICE_US;
            engine.handle_audit(now);
        });
    });
    group.finish();
    while let Some(output) = engine.poll_output() {
        assert!(!matches!(output, Output::Audited(_)), "{output:?}");
    }
    let audit = &stats.shard(0).audit;
    println!("{} sweeps, the last one in {} ms", audit.sweeps.get(), audit.sweep_us.get() / 1000);
}

criterion_group!(benches, slice);
criterion_main!(benches);
