//! The load generator as a process: it says where its agents and media servers are, waits for the word, and reports as JSON.

use crate::args::Options;
use crate::process::held;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A generator that has its sockets.
#[derive(Debug)]
pub struct Generator {
    child: Child,
    stdin: Option<ChildStdin>,
    report: Receiver<String>,
    said: Receiver<String>,
    /// Where its agents are called, as ADDR:PORT.
    pub agents: String,
    /// Where its media servers are.
    pub media: String,
}

/// How long a generator may take to be there.
const START: Duration = Duration::from_secs(60);

impl Generator {
    /// Starts one that will call `target`.
    ///
    /// # Errors
    /// It cannot be started, or says something else than expected.
    pub fn start(options: &Options, core: u32, target: SocketAddr, args: &[String]) -> Result<Self, String> {
        let mut command = held(&core.to_string(), &options.under, &options.loadtest);
        command.args(["run", "--json", "--target", &target.to_string()]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("setpriv (Debian's util-linux): {e}"))?;
        let (tell, said) = channel();
        let (hand, report) = channel();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        std::thread::spawn(move || {
            for line in err.into_iter().flat_map(|err| BufReader::new(err).lines()).map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        std::thread::spawn(move || {
            let mut text = String::new();
            if out.is_some_and(|mut out| out.read_to_string(&mut text).is_ok()) {
                let _ = hand.send(text);
            }
        });
        let stdin = child.stdin.take();
        let mut this = Self { child, stdin, report, said, agents: String::new(), media: String::new() };
        let began = Instant::now();
        let mut heard = String::new();
        while this.agents.is_empty() || this.media.is_empty() {
            let rest = START.saturating_sub(began.elapsed());
            let line = this.said.recv_timeout(rest).map_err(|_| format!("the generator did not begin: {heard}"))?;
            if let Some(at) = address_in(&line, "agents") {
                this.agents = at;
            } else if let Some(at) = address_in(&line, "media") {
                this.media = at;
            }
            heard = line;
        }
        Ok(this)
    }

    /// Calls begin; now.
    ///
    /// # Errors
    /// It has gone.
    pub fn begin(&mut self) -> Result<Instant, String> {
        let mut stdin = self.stdin.take().ok_or("the generator began already")?;
        stdin.write_all(b"\n").map_err(|e| format!("the generator has gone: {e}"))?;
        Ok(Instant::now())
    }

    /// Waits for its report.
    ///
    /// # Errors
    /// There is none within the time.
    pub fn finish(mut self, limit: Duration) -> Result<Value, String> {
        let text = self.report.recv_timeout(limit);
        let last = self.said.try_iter().last().unwrap_or_default();
        let text = text.map_err(|_| format!("no report of the generator within {} s: {last}", limit.as_secs()))?;
        let _ = self.child.wait();
        serde_json::from_str(&text).map_err(|e| format!("the generator's report: {e}; it said: {last}"))
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in `  agents   sip:agent1@127.0.0.1:5070 to ...`.
fn address_in(line: &str, what: &str) -> Option<String> {
    let uri = line.trim_start().strip_prefix(what)?.trim_start().strip_prefix("sip:")?;
    let (_, host) = uri.split(' ').next()?.split_once('@')?;
    Some(host.to_owned())
}

/// A number of a report, by the names on the way to it; NaN where there is none, which meets no limit.
pub fn number(report: &Value, path: &[&str]) -> f64 {
    path.iter().try_fold(report, |value, name| value.get(name)).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_what_it_says() {
        let of = |line| address_in(line, "agents");
        assert_eq!(of("  agents   sip:agent1@127.0.0.1:5070 to sip:agent9@127.0.0.1:5070").unwrap(), "127.0.0.1:5070");
        assert_eq!(of("  agents   sip:agent1@127.0.0.1:5070").unwrap(), "127.0.0.1:5070");
        assert_eq!(of("callers send from 127.0.0.1:1; agents and media servers answer at:"), None);
        assert_eq!(address_in("  media    sip:music@[::1]:9 (any name)", "media").unwrap(), "[::1]:9");
    }

    #[test]
    fn what_is_not_in_a_report_is_no_number() {
        let report = serde_json::json!({"a": {"b": 2}});
        assert_eq!(number(&report, &["a", "b"]), 2.0);
        assert!(number(&report, &["a", "c"]).is_nan());
    }
}
