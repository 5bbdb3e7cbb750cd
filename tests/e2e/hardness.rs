//! What comes from a hostile network: noise and mutated messages at a running server.

use super::server::Server;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// A small generator of its own, so that a run repeats (xorshift64*, Vigna 2016).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn sample(method: &str, local: &str, n: u64) -> String {
    let body = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    format!(
        "{method} sip:nobody@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{n};rport\r\nMax-Forwards: 70\r\n\
         From: \"A\" <sip:a@127.0.0.1>;tag=t{n}\r\nTo: <sip:nobody@127.0.0.1>\r\nCall-ID: c{n}@x\r\nCSeq: {n} {method}\r\n\
         Contact: <sip:a@{local}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Random bytes, or a sound message with some bytes changed, cut, doubled or moved.
fn datagram(noise: &mut Noise, local: &str) -> Vec<u8> {
    if noise.below(4) == 0 {
        return (0..noise.below(1400)).map(|_| noise.next() as u8).collect();
    }
    let methods = ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "UPDATE", "REGISTER", "WHATEVER", "SIP/2.0 200"];
    let n = noise.next() % 100_000;
    let mut bytes = sample(methods[noise.below(methods.len())], local, n).into_bytes();
    for _ in 0..noise.below(12) {
        let at = noise.below(bytes.len());
        match noise.below(4) {
            0 => bytes[at] = noise.next() as u8,
            1 => bytes.truncate(at),
            2 => bytes.extend_from_within(at..),
            _ => {
                bytes.remove(at);
            }
        }
        if bytes.is_empty() || bytes.len() > 20_000 {
            break;
        }
    }
    bytes
}

/// Round trip of one OPTIONS.
fn options(socket: &UdpSocket, n: u64) -> Duration {
    let local = socket.local_addr().expect("bound").to_string();
    let text = sample("OPTIONS", &local, 1_000_000 + n);
    let mine = format!("Call-ID: c{}@x", 1_000_000 + n);
    let mut answer = [0u8; 2048];
    // A datagram may be lost where buffers overflow: asked again, as RFC 3261 has clients do.
    for _ in 0..10 {
        let start = Instant::now();
        socket.send(text.as_bytes()).expect("sent");
        // An answer that was meant for a closed socket with this port may come first.
        while let Ok(len) = socket.recv(&mut answer) {
            let text = String::from_utf8_lossy(&answer[..len]);
            if text.contains(&mine) {
                assert!(text.starts_with("SIP/2.0 200"), "{text}");
                return start.elapsed();
            }
        }
    }
    panic!("OPTIONS is not answered");
}

fn median_rtt(server: &Server, from: u64) -> Duration {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(server.sip).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let mut times: Vec<Duration> = (0..201).map(|n| options(&socket, from + n)).collect();
    times.sort();
    times[100]
}

fn pour(server: &Server, noise: &mut Noise, count: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let local = socket.local_addr().expect("bound").to_string();
    for i in 0..count {
        // Too large a datagram is the test's fault, not the server's.
        let _ = socket.send_to(&datagram(noise, &local), server.sip);
        if i % 64 == 0 {
            // Let the socket buffer drain, so that what is sent is also read.
            options_on_own_socket(server, i as u64);
        }
    }
}

fn options_on_own_socket(server: &Server, n: u64) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(server.sip).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    options(&socket, 2_000_000 + n);
}

#[test]
fn tens_of_thousands_of_bad_datagrams_leave_it_quick_and_lean() {
    // Transactions linger for 64*T1: with a short T1 the first pours reach the level that later ones must not exceed.
    let server = Server::start(&["sip.t1_ms=2"]);
    let mut noise = Noise(0x5eed);
    let mut resident = Vec::new();
    for _ in 0..40 {
        pour(&server, &mut noise, 10_000);
        resident.push(server.resident_kib());
    }
    let rtt = median_rtt(&server, 0);
    assert!(rtt < Duration::from_millis(1), "OPTIONS takes {rtt:?}");
    // A burst may lift the level by a step; a leak lifts it at every pour: 10 bytes a datagram are 98 KiB.
    let mut growth: Vec<i64> = resident.windows(2).map(|w| w[1] as i64 - w[0] as i64).collect();
    growth.sort_unstable();
    let typical = growth[growth.len() / 2];
    let whole = resident[39].saturating_sub(resident[0]);
    assert!(typical < 64 && whole < 65_536, "memory grows, KiB after each pour: {resident:?}");
    assert_eq!(server.stop(), 0);
}

/// Name and niceness of each thread.
fn niceness(pid: u32) -> Vec<(String, i64)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let of = |stat: String| {
        let (head, rest) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        // proc(5): the 19th field; behind the name comes the third.
        Some((name, rest.split_whitespace().nth(16)?.parse().ok()?))
    };
    // One may end meanwhile.
    let stats = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    stats.filter_map(of).collect()
}

#[test]
fn where_a_core_does_not_suffice_for_all_calls_come_first() {
    let server = Server::start(&[]);
    let own = niceness(std::process::id()).iter().map(|(_, nice)| *nice).min().expect("this thread");
    let threads = niceness(server.pid());
    let of =
        |name: &str| threads.iter().filter(|(n, _)| n.starts_with(name)).map(|(_, nice)| *nice).collect::<Vec<_>>();
    let (shards, control) = (of("shard-"), of("control"));
    assert!(shards.len() >= 2 && shards.iter().all(|nice| *nice == own), "shards do not come first: {threads:?}");
    let behind = (own + 10).min(19);
    assert!(!control.is_empty() && control.iter().all(|nice| *nice == behind), "nor does control last: {threads:?}");
    assert_eq!(server.stop(), 0);
}
