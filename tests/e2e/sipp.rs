//! SIPp as caller, agent and media server, with the scenarios that the load generator ships.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub struct Sipp {
    child: Child,
    name: String,
    dir: TempDir,
    pub addr: SocketAddr,
}

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtest/sipp").join(format!("{name}.xml"))
}

/// A port that is free now.
fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("its number").port()
}

impl Sipp {
    /// A server-side scenario (agent, media) that runs until it is dropped, or for `calls`.
    pub fn serve(name: &str, calls: Option<u32>) -> Sipp {
        Sipp::run(name, "127.0.0.1", &[], calls)
    }

    /// `calls` callers of `flow`.
    pub fn call(name: &str, server: SocketAddr, flow: &str, calls: u32) -> Sipp {
        Sipp::run(name, &server.to_string(), &["-s", flow, "-r", "5", "-recv_timeout", "40000"], Some(calls))
    }

    fn run(name: &str, remote: &str, more: &[&str], calls: Option<u32>) -> Sipp {
        let port = free_port();
        let dir = tempfile::tempdir().expect("a scratch folder");
        let mut command = Command::new("sipp");
        command.arg("-sf").arg(scenario(name)).args(["-i", "127.0.0.1", "-p", &port.to_string(), "-nostdin"]);
        command.args(["-trace_err", "-trace_counts", "-timeout", "120", "-timeout_error"]).args(more);
        if let Some(calls) = calls {
            command.args(["-m", &calls.to_string()]);
        }
        let child = command.arg(remote).current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("sipp (apt-get install sip-tester)");
        let sipp = Sipp { child, name: name.to_owned(), dir, addr: SocketAddr::from(([127, 0, 0, 1], port)) };
        sipp.bound();
        sipp
    }

    /// Waits until its socket is there.
    fn bound(&self) {
        let start = std::time::Instant::now();
        while UdpSocket::bind(self.addr).is_ok() {
            assert!(start.elapsed().as_secs() < 20, "{} does not listen", self.name);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Waits for its end; every call must have gone as written.
    #[track_caller]
    pub fn passed(mut self) {
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "{} failed: {}", self.name, self.errors());
    }

    fn errors(&self) -> String {
        let files = std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        let text = |p: PathBuf| std::fs::read_to_string(&p).unwrap_or_default();
        files.filter(|f| f.file_name().to_string_lossy().contains("errors")).map(|f| text(f.path())).collect()
    }

    /// Messages of the scenario received out of turn, by SIPp's own count (retransmissions and the unexpected).
    pub fn location(&self, user: &str) -> String {
        format!("sip:{user}@{}", self.addr)
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
