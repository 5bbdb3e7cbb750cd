//! The hub with real sockets: what arrives, what ends, what a subscriber that does not read costs.

use super::*;
use serde_json::json;
use std::path::Path;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket, UnixDatagram};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

fn event(n: u64) -> Value {
    json!({"agent_id": "ann", "status": "free", "state": "free", "n": n})
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("in a minute")
}

/// Waits for what a task does by the by.
async fn until(check: impl Fn() -> bool) {
    soon(async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// The notifications that a text holds one after the other, with nothing between them.
fn parse(text: &[u8]) -> Vec<Value> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    std::iter::from_fn(|| match values.next() {
        Some(Ok(v)) => Some(v),
        Some(Err(e)) if !e.is_eof() => panic!("{e}"),
        _ => None,
    })
    .collect()
}

async fn udp() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let name = format!("udp:{}", socket.local_addr().unwrap());
    (socket, name)
}

async fn next(socket: &UdpSocket) -> String {
    let mut buf = vec![0; 65_536];
    let n = soon(socket.recv(&mut buf)).await.unwrap();
    String::from_utf8(buf[..n].to_vec()).unwrap()
}

#[tokio::test]
async fn a_notification_reads_as_the_clients_expect_it() {
    let hub = Hub::new(16, 3600);
    let (socket, name) = udp().await;
    hub.subscribe(AGENT_REPORT, &name, None).await.unwrap();
    hub.raise(AGENT_REPORT, &json!({"agent_id": "ann", "status": "incall", "state": "incall", "flow_id": "sales"}));
    let expected = r#"{"jsonrpc":"2.0","method":"E_CALLCENTER_AGENT_REPORT","params":{"agent_id":"ann","status":"incall","state":"incall","flow_id":"sales"}}"#;
    assert_eq!(next(&socket).await, expected);
}

#[tokio::test]
async fn a_subscription_is_renewed_listed_ended_and_expires() {
    let hub = Hub::new(16, 3600);
    let (socket, name) = udp().await;
    hub.subscribe(AGENT_REPORT, &name, None).await.unwrap();
    hub.subscribe(AGENT_REPORT, &name, Some(90)).await.unwrap();
    let only = Subscriber { event: AGENT_REPORT, socket: name.clone(), expire_s: 90, ttl_s: 90, lost: 0 };
    assert_eq!(hub.list(), std::slice::from_ref(&only), "the same again renews");
    assert_eq!((hub.find(AGENT_REPORT, &name), hub.find(AGENT_REPORT, "udp:127.0.0.1:9")), (Some(only), None));
    hub.raise(AGENT_REPORT, &event(1));
    assert_eq!(parse(next(&socket).await.as_bytes()).len(), 1, "and brings each event once");
    hub.subscribe(AGENT_REPORT, &name, Some(0)).await.unwrap();
    assert!(hub.list().is_empty() && !hub.wanted(AGENT_REPORT));
    hub.subscribe(AGENT_REPORT, &name, Some(0)).await.unwrap();
    hub.subscribe(AGENT_REPORT, &name, Some(1)).await.unwrap();
    assert!(hub.wanted(AGENT_REPORT));
    until(|| {
        hub.expire();
        !hub.wanted(AGENT_REPORT)
    })
    .await;
    let longest = Hub::new(16, 3600);
    longest.subscribe(AGENT_REPORT, &name, Some(u64::MAX)).await.unwrap();
    assert_eq!(longest.list()[0].expire_s, LONGEST_S);
}

#[tokio::test]
async fn what_cannot_be_subscribed_says_why() {
    let hub = Hub::new(16, 3600);
    let refused = async |event: &str, socket: &str| hub.subscribe(event, socket, None).await.unwrap_err().to_string();
    assert_eq!(refused("E_NOPE", "udp:127.0.0.1:9").await, "there is no event `E_NOPE`; events_list names all");
    assert_eq!(
        refused(AGENT_REPORT, "nonsense").await,
        "`nonsense` is not of the form udp:HOST:PORT, unix:PATH or tcp:HOST:PORT[/METHOD]"
    );
    let nowhere = refused(AGENT_REPORT, "udp:no-such-host.invalid:9").await;
    assert!(nowhere.starts_with("`udp:no-such-host.invalid:9` cannot be reached: "), "{nowhere}");
    for port in 1..=MOST {
        hub.subscribe(AGENT_REPORT, &format!("unix:/nowhere/{port}"), None).await.unwrap();
    }
    assert_eq!(hub.subscribe(AGENT_REPORT, "unix:/nowhere/x", None).await, Err(SubscribeError::Full));
}

#[tokio::test]
async fn streams_get_all_in_order_and_their_own_method() {
    let hub = Hub::new(10_000, 3600);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = format!("tcp:{}/agent_event", listener.local_addr().unwrap());
    hub.subscribe(AGENT_REPORT, &name, None).await.unwrap();
    for n in 0..5000 {
        hub.raise(AGENT_REPORT, &event(n));
    }
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    // What the subscriber says back is passed over.
    stream.write_all(b"{\"jsonrpc\":\"2.0\",\"result\":0,\"id\":null}").await.unwrap();
    let (mut text, mut seen) = (vec![], vec![]);
    while seen.len() < 5000 {
        let mut buf = vec![0; 1 << 20];
        let n = soon(stream.read(&mut buf)).await.unwrap();
        assert!(n > 0, "the stream goes on");
        text.extend_from_slice(&buf[..n]);
        seen = parse(&text);
    }
    assert!(seen.iter().zip(0..).all(|(v, n)| v["params"]["n"] == n && v["method"] == "agent_event"));
    assert_eq!(hub.lost(), 0);
}

#[tokio::test]
async fn datagrams_that_gather_arrive_all_and_in_order() {
    let hub = Hub::new(1000, 3600);
    let (socket, name) = udp().await;
    hub.subscribe(AGENT_REPORT, &name, None).await.unwrap();
    for round in 0..3 {
        for n in 0..150 {
            hub.raise(AGENT_REPORT, &event(n + 150 * round));
        }
        for n in 0..150 {
            assert_eq!(parse(next(&socket).await.as_bytes())[0]["params"]["n"], n + 150 * round);
        }
    }
    assert_eq!(hub.lost(), 0);
}

#[tokio::test]
async fn a_stream_that_closes_or_is_not_there_yet_is_connected_again() {
    let hub = Hub::new(16, 3600);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    hub.subscribe(AGENT_REPORT, &format!("tcp:{addr}"), None).await.unwrap();
    // As the Python client does: one read a connection.
    for n in 0..3 {
        hub.raise(AGENT_REPORT, &event(n));
        let (mut stream, _) = soon(listener.accept()).await.unwrap();
        let mut buf = vec![0; 65_536];
        let got = soon(stream.read(&mut buf)).await.unwrap();
        assert_eq!(parse(&buf[..got])[0]["params"]["n"], n);
    }
    drop(listener);
    hub.raise(AGENT_REPORT, &event(3));
    hub.raise(AGENT_REPORT, &event(4));
    let listener = TcpListener::bind(addr).await.unwrap();
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    let mut text = vec![];
    while parse(&text).len() < 2 {
        let mut buf = vec![0; 65_536];
        let got = soon(stream.read(&mut buf)).await.unwrap();
        text.extend_from_slice(&buf[..got]);
    }
    assert_eq!((parse(&text)[1]["params"]["n"].clone(), hub.lost()), (json!(4), 0));
}

#[tokio::test]
async fn what_a_subscriber_that_is_gone_misses_is_counted() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s");
    let hub = Hub::new(16, 3600);
    let name = path.to_str().unwrap().to_owned();
    hub.subscribe(AGENT_REPORT, &name, None).await.unwrap();
    hub.raise(AGENT_REPORT, &event(0));
    until(|| hub.lost() == 1).await;
    let socket = UnixDatagram::bind(&path).unwrap();
    hub.raise(AGENT_REPORT, &event(1));
    let mut buf = vec![0; 1000];
    assert!(soon(socket.recv(&mut buf)).await.is_ok());
    // It comes back under the same path.
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    let socket = UnixDatagram::bind(&path).unwrap();
    hub.raise(AGENT_REPORT, &event(2));
    let n = soon(socket.recv(&mut buf)).await.unwrap();
    assert_eq!(parse(&buf[..n])[0]["params"]["n"], 2);
    let (gone, name) = udp().await;
    drop(gone);
    hub.subscribe(AGENT_REPORT, &name, None).await.unwrap();
    soon(async {
        while hub.find(AGENT_REPORT, &name).unwrap().lost == 0 {
            hub.raise(AGENT_REPORT, &event(3));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    let before = hub.lost();
    hub.subscribe(AGENT_REPORT, &name, Some(0)).await.unwrap();
    assert!(hub.lost() >= before && before >= 2, "what a subscription lost outlives it");
}

/// Sockets of one kind, each read by a task that counts.
struct Readers(Vec<tokio::task::JoinHandle<u64>>);

impl Readers {
    async fn unix(hub: &Hub, dir: &Path, count: usize, each: u64) -> Readers {
        let mut tasks = vec![];
        for n in 0..count {
            let path = dir.join(format!("reader{n}"));
            let socket = UnixDatagram::bind(&path).unwrap();
            hub.subscribe(AGENT_REPORT, path.to_str().unwrap(), None).await.unwrap();
            tasks.push(tokio::spawn(async move {
                let mut buf = vec![0; 1000];
                let mut seen = 0;
                while seen < each {
                    let n = socket.recv(&mut buf).await.unwrap();
                    assert!(buf[..n].starts_with(b"{\"jsonrpc\""));
                    seen += 1;
                }
                seen
            }));
        }
        Readers(tasks)
    }

    async fn tcp(hub: &Hub, count: usize, each: u64) -> Readers {
        let mut tasks = vec![];
        for _ in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let name = format!("tcp:{}", listener.local_addr().unwrap());
            hub.subscribe(AGENT_REPORT, &name, None).await.unwrap();
            tasks.push(tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buf = vec![0; 65_536];
                let mut seen = 0;
                while seen < each {
                    let n = stream.read(&mut buf).await.unwrap();
                    // A brace that opens params and one that opens the notification.
                    seen += buf[..n].iter().filter(|b| **b == b'{').count() as u64;
                }
                seen / 2
            }));
        }
        Readers(tasks)
    }

    async fn done(self) -> Vec<u64> {
        let mut seen = vec![];
        for task in self.0 {
            seen.push(soon(task).await.unwrap());
        }
        seen
    }
}

/// The longest queue, but for the first two subscribers.
fn behind(hub: &Hub) -> usize {
    hub.all().iter().skip(2).map(|s| s.queue.len()).max().unwrap_or(0)
}

/// 100 sockets at 5000 events a second, two of them deaf: nobody else misses anything, and raising never waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deaf_subscriber_costs_the_others_nothing() {
    const EVENTS: u64 = 15_000;
    const QUEUE: u64 = 10_000;
    const EVERY: Duration = Duration::from_millis(10);
    let dir = TempDir::new().unwrap();
    let hub = Hub::new(QUEUE as usize, 3600);
    let deaf = dir.path().join("deaf");
    let _deaf = UnixDatagram::bind(&deaf).unwrap();
    hub.subscribe(AGENT_REPORT, deaf.to_str().unwrap(), None).await.unwrap();
    let deaf_stream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    hub.subscribe(AGENT_REPORT, &format!("tcp:{}", deaf_stream.local_addr().unwrap()), None).await.unwrap();
    let (_udp, name) = udp().await;
    hub.subscribe(AGENT_REPORT, &name, None).await.unwrap();
    let unix = Readers::unix(&hub, dir.path(), 48, EVENTS).await;
    let tcp = Readers::tcp(&hub, 49, 2 * EVENTS).await;
    assert_eq!(hub.list().len(), 100);
    let began = Instant::now();
    let (mut raised, mut raising) = (0, Duration::ZERO);
    let mut tick = tokio::time::interval(EVERY);
    while raised < EVENTS {
        tick.tick().await;
        // A machine that is busy otherwise is given the time that it needs; the deaf ones are not waited for.
        until(|| behind(&hub) < QUEUE as usize / 2).await;
        let start = Instant::now();
        for n in 0..50 {
            hub.raise(AGENT_REPORT, &event(raised + n));
        }
        raised += 50;
        raising += start.elapsed();
    }
    assert!(unix.done().await.iter().chain(&tcp.done().await).all(|seen| *seen == EVENTS));
    println!(
        "{EVENTS} events to 100 sockets in {:?}; raising one took {:?} on average",
        began.elapsed(),
        raising / EVENTS as u32
    );
    let lost = hub.find(AGENT_REPORT, deaf.to_str().unwrap()).unwrap().lost;
    // What it has not lost waits in its queue, in the kernel, and in the hand of its task.
    assert!(lost > 0 && lost <= EVENTS - QUEUE, "{lost}");
    let others: u64 = hub.list().iter().filter(|s| !s.socket.ends_with("deaf")).skip(1).map(|s| s.lost).sum();
    assert_eq!(others, 0, "nobody else lost anything");
}
