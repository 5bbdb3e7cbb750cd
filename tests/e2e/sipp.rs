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

/// The lines of the scenarios' descriptions that say audio, without their indents, and what says a chat instead.
const AUDIO: [&str; 4] =
    ["m=audio [media_port] RTP/AVP 8 0", "a=rtpmap:8 PCMA/8000", "a=rtpmap:0 PCMU/8000", "a=sendrecv"];
const CHAT: [&str; 3] =
    ["m=message 2855 TCP/MSRP *", "a=accept-types:text/plain", "a=path:msrp://[local_ip]:2855/[call_number];tcp"];

/// The scenario with MSRP sessions in place of audio, written into `dir`. SIPp takes no part in either.
fn as_chat(name: &str, dir: &Path) -> PathBuf {
    let text = std::fs::read_to_string(scenario(name)).expect("the scenario");
    let (audio, chat) = (AUDIO.join("\n      "), CHAT.join("\n      "));
    assert!(text.contains(&audio), "{name} describes audio");
    let path = dir.join("chat.xml");
    std::fs::write(&path, text.replace(&audio, &chat)).expect("a file");
    path
}

/// A port that is free now.
fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("its number").port()
}

impl Sipp {
    /// A server-side scenario (agent, media; as an MSRP session with "chat " before its name) that runs until it is dropped, or for `calls`, to be checked by `passed`.
    pub fn serve(name: &str, calls: Option<u32>) -> Sipp {
        Sipp::run(name, "127.0.0.1", &[], calls)
    }

    /// `calls` callers of `flow`.
    pub fn call(name: &str, server: SocketAddr, flow: &str, calls: u32) -> Sipp {
        Sipp::run(name, &server.to_string(), &["-s", flow, "-r", "5", "-recv_timeout", "40000"], Some(calls))
    }

    fn run(name: &str, remote: &str, more: &[&str], calls: Option<u32>) -> Sipp {
        // Between the choice of a port and SIPp's bind another test may take it: then once more, with another.
        (0..5).find_map(|_| Sipp::try_run(name, remote, more, calls)).unwrap_or_else(|| panic!("{name} does not start"))
    }

    fn try_run(name: &str, remote: &str, more: &[&str], calls: Option<u32>) -> Option<Sipp> {
        let port = free_port();
        let dir = tempfile::tempdir().expect("a scratch folder");
        let mut command = Command::new("sipp");
        let scenario = match name.strip_prefix("chat ") {
            Some(name) => as_chat(name, dir.path()),
            None => scenario(name),
        };
        command.arg("-sf").arg(scenario).args(["-i", "127.0.0.1", "-p", &port.to_string(), "-nostdin"]);
        command.args(["-trace_err", "-trace_counts", "-fd", "1", "-timeout", "120", "-timeout_error"]).args(more);
        if let Some(calls) = calls {
            command.args(["-m", &calls.to_string()]);
        }
        let child = command.arg(remote).current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("sipp (apt-get install sip-tester)");
        let mut sipp = Sipp { child, name: name.to_owned(), dir, addr: SocketAddr::from(([127, 0, 0, 1], port)) };
        sipp.listens().then_some(sipp)
    }

    /// Waits until its socket is there, by the kernel's list (a bind of ours would be in its way).
    fn listens(&mut self) -> bool {
        let entry = format!(":{:04X} ", self.addr.port());
        let start = std::time::Instant::now();
        loop {
            let sockets = std::fs::read_to_string("/proc/net/udp").expect("the kernel's list of sockets");
            if sockets.lines().skip(1).any(|l| l.contains(&entry)) {
                return true;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                // A short scenario may be over already.
                return status.success();
            }
            assert!(start.elapsed().as_secs() < 30, "{} does not listen", self.name);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Waits for its end; every call must have gone as written. Returns the messages in the scenario's order
    /// (`>` sent, `<` received), each as often as it passed: `"INVITE> 100< 200< ACK>"`.
    #[track_caller]
    pub fn passed(mut self) -> String {
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "{} failed: {}", self.name, self.errors());
        let file = self.files("counts").pop().expect("SIPp writes its counts");
        let text = std::fs::read_to_string(file).expect("they are readable");
        let mut lines = text.lines();
        let names = lines.next().unwrap_or_default().split(';');
        let mut messages = Vec::new();
        for (name, value) in names.zip(lines.next_back().unwrap_or_default().split(';')).skip(2) {
            let count: usize = value.parse().unwrap_or(0);
            let mut words = name.split('_').skip(1);
            match (words.next(), words.next()) {
                (Some(message), Some("Sent")) => messages.extend(std::iter::repeat_n(format!("{message}>"), count)),
                (Some(message), Some("Recv")) => messages.extend(std::iter::repeat_n(format!("{message}<"), count)),
                (Some(message), Some("Unexp")) => assert_eq!(count, 0, "{}: unexpected {message}", self.name),
                _ => {}
            }
        }
        messages.join(" ")
    }

    fn files(&self, kind: &str) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        files.filter(|f| f.file_name().to_string_lossy().contains(kind)).map(|f| f.path()).collect()
    }

    fn errors(&self) -> String {
        self.files("errors").iter().map(|p| std::fs::read_to_string(p).unwrap_or_default()).collect()
    }

    /// The SIP URI of `user` here.
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
