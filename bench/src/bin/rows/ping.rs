//! OPTIONS at a steady rate, as a monitor sends them: how long each answer takes, from the moment when it was due.

use crate::process::pin_this_thread;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two of them: 200 a second.
const GAP: Duration = Duration::from_millis(5);
/// One that is not answered counts as so long.
const LOST: Duration = Duration::from_secs(1);

/// OPTIONS under way.
#[derive(Debug)]
pub struct Pings {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<(Instant, f64)>, String>>,
}

impl Pings {
    /// Begins.
    pub fn start(core: u32, to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            pin_this_thread(core);
            ping(to, &ended).map_err(|e| format!("OPTIONS to {to}: {e}"))
        });
        Self { stop, thread }
    }

    /// Ends; when each was due, and the microseconds to its answer.
    ///
    /// # Errors
    /// Sockets failed.
    pub fn stop(self) -> Result<Vec<(Instant, f64)>, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the thread of OPTIONS ended by a panic".to_owned())?
    }
}

fn ping(to: SocketAddr, ended: &AtomicBool) -> std::io::Result<Vec<(Instant, f64)>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(LOST))?;
    let here = socket.local_addr()?;
    let (mut all, mut due) = (Vec::new(), Instant::now());
    let mut answer = [0u8; 2048];
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let id = format!("ping{}", all.len());
        socket.send_to(options(&id, here).as_bytes(), to)?;
        let header = format!("Call-ID: {id}\r\n");
        // A late answer to one before is not this one's.
        let took = loop {
            match socket.recv(&mut answer) {
                Ok(n) if answer[..n].windows(header.len()).any(|part| part == header.as_bytes()) => {
                    break due.elapsed();
                }
                Ok(_) if due.elapsed() < LOST => {}
                _ => break due.elapsed().max(LOST),
            }
        };
        all.push((due, took.as_secs_f64() * 1e6));
        due += GAP;
    }
    Ok(all)
}

fn options(id: &str, here: SocketAddr) -> String {
    format!(
        "OPTIONS sip:ping@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bK{id};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:monitor@{here}>;tag=1\r\nTo: <sip:ping@127.0.0.1>\r\nCall-ID: {id}\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// Those that were due between two moments.
pub fn between(all: &[(Instant, f64)], from: Instant, to: Instant) -> Vec<f64> {
    all.iter().filter(|(due, _)| (from..to).contains(due)).map(|(_, took)| *took).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_its_own() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let began = Instant::now();
        let pings = Pings::start(0, to);
        let mut request = [0u8; 2048];
        for _ in 0..3 {
            let (n, from) = server.recv_from(&mut request).unwrap();
            // An answer to something else first.
            server.send_to(b"SIP/2.0 200 OK\r\nCall-ID: other\r\n\r\n", from).unwrap();
            server.send_to(&request[..n], from).unwrap();
        }
        pings.stop.store(true, Ordering::Relaxed);
        // The one that is under way is answered, too, if there is one.
        server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        if let Ok((n, from)) = server.recv_from(&mut request) {
            server.send_to(&request[..n], from).unwrap();
        }
        let all = pings.stop().unwrap();
        assert!((3..=4).contains(&all.len()), "{all:?}");
        assert_eq!(between(&all, began, Instant::now()).len(), all.len());
        assert!(between(&all, began, began).is_empty());
    }
}
