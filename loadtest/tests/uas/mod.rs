//! A stub of a SIP phone or media server: it answers every INVITE at once with its own SDP, and every BYE. Beyond a
//! planted rate it drops INVITEs, as an overloaded server does; and it can be slow.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A running stub. It ends when this is dropped.
pub struct Uas {
    pub address: SocketAddr,
    /// First copies of INVITEs that it answered.
    pub invites: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Uas {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn header<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.eq_ignore_ascii_case(name)));
    line.map_or("", |line| line[name.len() + 1..].trim())
}

fn answer(text: &str, code: &str, address: SocketAddr, body: &str) -> String {
    let tag = if header(text, "To").contains("tag=") { "" } else { ";tag=uas" };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    let recorded: String = text
        .lines()
        .filter(|line| line.starts_with("Record-Route:"))
        .map(|line| format!("{}\r\n", line.trim()))
        .collect();
    format!(
        "SIP/2.0 {code}\r\nVia: {}\r\n{recorded}From: {}\r\nTo: {}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
         Contact: <sip:uas@{address}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        header(text, "Via"),
        header(text, "From"),
        header(text, "To"),
        header(text, "Call-ID"),
        header(text, "CSeq"),
        body.len()
    )
}

/// Starts a stub that answers at most `limit` INVITEs a second, each after `delay`.
pub fn start(limit: Option<f64>, delay: Duration) -> Uas {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let address = socket.local_addr().unwrap();
    let (stop, invites) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&invites));
    let thread = thread::spawn(move || {
        let (mut buffer, mut tokens, mut last) = ([0; 4096], 5.0, Instant::now());
        while !stopped.load(Relaxed) {
            let Ok((length, source)) = socket.recv_from(&mut buffer) else { continue };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.starts_with("INVITE") {
                if let Some(limit) = limit {
                    tokens = f64::min(tokens + last.elapsed().as_secs_f64() * limit, 5.0);
                    last = Instant::now();
                    if tokens < 1.0 {
                        continue;
                    }
                    tokens -= 1.0;
                }
                counter.fetch_add(1, Relaxed);
                thread::sleep(delay);
                let sdp = format!(
                    "v=0\r\no=uas 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {} RTP/AVP 8\r\n",
                    4000
                );
                socket.send_to(answer(&text, "200 OK", address, &sdp).as_bytes(), source).unwrap();
            } else if text.starts_with("BYE") {
                socket.send_to(answer(&text, "200 OK", address, "").as_bytes(), source).unwrap();
            }
        }
    });
    Uas { address, invites, stop, thread: Some(thread) }
}
