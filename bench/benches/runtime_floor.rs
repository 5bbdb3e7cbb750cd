//! The physical limits beside the runtime's own figures: UDP echo with the same batching and no SIP at all, the ring
//! between shards, and a server (one shard and two, engine without calls) that answers OPTIONS.
//!
//! `cargo bench -p strowger-bench --bench runtime_floor`. CPU is that of the threads named, from the kernel's
//! scheduler (nanoseconds), so the load generator's is not in it. Wall-clock bounded: about 27 s.

use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};
use strowger_bench::call::Queue;
use strowger_bench::floor::{cpu_ns, echo, saturate};
use strowger_dispatch::{ChatPolicy, Dispatch, Limits};
use strowger_engine::{BucketTable, CallConfig, EngineConfig, Provisioning, StatsHub};
use strowger_runtime::mesh::{Label, mesh};
use strowger_runtime::{ListenerSpec, OverloadConfig, ServerSpec, Shards, bind, start};
use strowger_sip::endpoint::{EndpointConfig, ListenerInfo};
use strowger_sip::hash::HashKey;
use strowger_sip::net::{ListenerId, Path, Transport};

const RUN: Duration = Duration::from_secs(2);

fn main() {
    println!("{:<52} {:>12}", "what", "figure");
    rings();
    let floor = |messages: &[Vec<u8>]| format!("{:.0} ns", echo(messages, RUN));
    row("floor: echo, saturated, CPU per packet (in or out)", &floor(&[options("floor")]));
    row("floor: the same with a queued call's 20 messages", &floor(&Queue::new(false).messages()));
    server(1);
    server(2);
}

fn row(what: &str, figure: &str) {
    println!("{what:<52} {figure:>12}");
}

fn rings() {
    const ITEMS: u32 = 2_000_000;
    let ports = mesh::<u64>(vec![Waker::noop().clone(), Waker::noop().clone()]);
    let [mut a, mut b] = <[_; 2]>::try_from(ports).expect("two ports");
    let began = Instant::now();
    for n in 0..ITEMS {
        a.send(1, u64::from(n), 0).expect("shard 1 exists");
        black_box(b.receive(0));
    }
    row("ring: message, push and pop on one core", &format!("{:.1} ns", ns_each(began, ITEMS)));
    let label = Label {
        path: Path::udp(SocketAddr::from(([127, 0, 0, 1], 5060)), ListenerId(0)),
        received_ns: 0,
        sent_ns: 0,
        bucket: 0,
        new_invite: false,
    };
    let bytes = [7u8; 800];
    let began = Instant::now();
    for _ in 0..ITEMS {
        assert!(a.forward(1, &bytes, label));
        if let Some(strowger_runtime::mesh::Item::Datagram(parcel)) = b.receive(0) {
            b.recycle(0, black_box(parcel));
        }
    }
    row("ring: datagram of 800 bytes, there and back", &format!("{:.1} ns", ns_each(began, ITEMS)));
}

fn ns_each(began: Instant, items: u32) -> f64 {
    began.elapsed().as_nanos() as f64 / f64::from(items)
}

fn options(call_id: &str) -> Vec<u8> {
    let padding = "p".repeat(400);
    format!(
        "OPTIONS sip:q@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK{call_id};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:q@h>\r\nCall-ID: {call_id}\r\nCSeq: 1 OPTIONS\r\n\
         X-Padding: {padding}\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

fn started(shards: u16) -> (Shards, SocketAddr, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = ListenerSpec { transport: Transport::Udp, addr, shard_port_base: None };
    let bound = bind(dir.path(), &[listener], shards).expect("a free port");
    let addr = bound.addrs()[0];
    let info = ListenerInfo { transport: Transport::Udp, via: addr.to_string(), contact_host: addr.to_string() };
    let endpoint = EndpointConfig { listeners: vec![info], ..EndpointConfig::default() };
    let limits = Limits { shards: shards + 1, agents: 16, waiting_per_shard: 16, skills: 4 };
    let engine = EngineConfig {
        endpoint: Arc::new(endpoint),
        buckets: Arc::new(BucketTable::even(shards)),
        key: HashKey(1, 2),
        call: CallConfig::default(),
    };
    let spec = ServerSpec {
        engine: Arc::new(engine),
        shards,
        dispatch: Arc::new(Dispatch::new(limits, ChatPolicy::default())),
        stats: Arc::new(StatsHub::new(shards, 1, 1)),
        provisioning: Arc::new(Provisioning::default()),
        cdr_capacity: 64,
        overload: OverloadConfig::default(),
        pin: false,
        real_time: false,
        busy_poll_us: 0,
        seed: [1; 32],
        journal: None,
        restored: [].into(),
    };
    (start(bound, spec).inspect(Shards::serve).expect("shards start"), addr, dir)
}

/// Idle CPU, round trips one at a time, CPU per packet at a steady rate and saturated.
fn server(shards: u16) {
    let (running, addr, _dir) = started(shards);
    let named = |what: &str| format!("{shards} shard(s): {what}");
    std::thread::sleep(Duration::from_millis(500));
    let before = cpu_ns("shard-");
    std::thread::sleep(RUN);
    let idle = (cpu_ns("shard-") - before) as f64 / RUN.as_nanos() as f64 * 100.0;
    row(&named("idle"), &format!("{idle:.3} %"));

    let peer = UdpSocket::bind("127.0.0.1:0").expect("a loopback socket");
    peer.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
    let mut trips = Vec::new();
    for n in 0..1000u32 {
        let bytes = options(&format!("rtt{n}"));
        let began = Instant::now();
        peer.send_to(&bytes, addr).expect("sent");
        if peer.recv(&mut [0; 2048]).is_ok() {
            trips.push(began.elapsed().as_nanos());
        }
        std::thread::sleep(Duration::from_micros(if n % 10 == 0 { 4000 } else { 700 }));
    }
    trips.sort_unstable();
    let at = |q: usize| trips.get(trips.len() * q / 100).map_or(0, |ns| ns / 1000);
    row(&named("round trip, one at a time, p50 / p99"), &format!("{} / {} us", at(50), at(99)));
    let spent = running.latency();
    let [p50, p99] = [0.5, 0.99].map(|q| spent.receive_to_send.value_at_quantile(q) / 1000);
    row(&named("of it kernel receive to send, p50 / p99"), &format!("{p50} / {p99} us"));

    for rate in [2_000u32, 20_000] {
        let (cpu, packets) = steady(addr, rate);
        row(&named(&format!("{rate} requests/s, CPU per packet")), &format!("{:.0} ns", cpu as f64 / packets as f64));
    }
    let mesh = running.latency().mesh;
    if !mesh.is_empty() {
        let [p50, p99] = [0.5, 0.99].map(|q| mesh.value_at_quantile(q) / 1000);
        row(&named("hand-over between shards so far, p50 / p99"), &format!("{p50} / {p99} us"));
    }
    let before = cpu_ns("shard-");
    let answered = saturate(addr, &[options("full")], RUN);
    let cpu = (cpu_ns("shard-") - before) as f64 / (answered * 2) as f64;
    row(&named("saturated, CPU per packet"), &format!("{cpu:.0} ns"));
    row(&named("saturated, answers a second"), &format!("{:.0}", answered as f64 / RUN.as_secs_f64()));
    running.stop();
}

/// Requests at a fixed rate with different Call-IDs; the shards' CPU and the packets in and out.
fn steady(addr: SocketAddr, rate: u32) -> (u64, u64) {
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a loopback socket");
    peer.set_nonblocking(true).expect("a socket option");
    let requests: Vec<Vec<u8>> = (0..64).map(|n| options(&format!("steady{n}"))).collect();
    let before = cpu_ns("shard-");
    let (began, mut sent, mut got) = (Instant::now(), 0u64, 0u64);
    while began.elapsed() < RUN {
        let due = u64::try_from(began.elapsed().as_micros()).unwrap_or(0) * u64::from(rate) / 1_000_000;
        while sent < due {
            let bytes = &requests[usize::try_from(sent).unwrap_or(0) % requests.len()];
            sent += u64::from(peer.send_to(bytes, addr).is_ok());
        }
        while peer.recv(&mut [0; 2048]).is_ok() {
            got += 1;
        }
        std::thread::sleep(Duration::from_micros(20));
    }
    (cpu_ns("shard-") - before, sent + got)
}
