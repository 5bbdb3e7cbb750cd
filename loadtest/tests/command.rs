//! The command as a user runs it: its files, its JSON, its search for the limit, and the time that it does not lose.

mod uas;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

fn loadtest(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(line.split_whitespace()).stdin(Stdio::null());
    command
}

fn run(line: &str) -> (Output, Value) {
    let output = loadtest(line).output().unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, json)
}

/// Tags of an interval log, without repetition.
fn tags(path: &Path) -> Vec<String> {
    let text = std::fs::read(path).unwrap();
    let mut tags: Vec<String> = IntervalLogIterator::new(&text)
        .filter_map(|entry| match entry.unwrap() {
            LogEntry::Interval(interval) => Some(interval.tag().unwrap().as_str().to_owned()),
            _ => None,
        })
        .collect();
    tags.sort();
    tags.dedup();
    tags
}

#[test]
fn every_output_of_one_run_tells_of_the_same_calls() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (page, log, table) = (at("r.html"), at("r.hlog"), at("r"));
    let (output, json) = run(&format!(
        "loopback --rate 100 --seconds 2s --talk 200ms --ring 20ms --interval 500ms --json --html {page} --hlog {log} --hgrm {table}"
    ));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(json["offered"], json["answered"]);
    let series = json["series"].as_array().unwrap();
    assert!(series.len() >= 4, "{json}");
    let sum: u64 = series.iter().map(|sample| sample["offered"].as_u64().unwrap()).sum();
    assert_eq!(sum, json["offered"].as_u64().unwrap());
    let of_series: u64 = series.iter().filter_map(|sample| sample["latency_us"]["bye"]["count"].as_u64()).sum();
    assert_eq!(of_series, json["bye_latency_us"]["count"].as_u64().unwrap());
    let mut tags = tags(Path::new(&log));
    // On a busy machine a call may be late enough to find an agent who was not free when it was due.
    tags.retain(|tag| tag != "free-to-invite");
    assert_eq!(tags, ["arrival-to-invite", "bye", "first", "ringing", "setup", "wait"]);
    assert!(std::fs::read_to_string(at("r.bye.hgrm")).unwrap().contains("1/(1-Percentile)"));
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("Latency by percentile"));
}

#[test]
fn a_stalled_generator_hides_no_latency() {
    let mut child =
        loadtest("loopback --rate 200 --arrivals fixed --seconds 4s --talk 50ms --ring 0s --agents 500 --json");
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
    // The first line of progress comes a second after the start.
    assert!(progress.next().unwrap().unwrap().contains("offered"));
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: signals to a child that has not been waited for.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    std::thread::sleep(Duration::from_secs(1));
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGCONT) };
    std::thread::spawn(move || progress.for_each(drop));
    let output = child.wait_with_output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Every call was made, and each of the 200 that were due during the stall has its share of it.
    assert_eq!(json["offered"], 800, "{json}");
    assert!(json["latest_arrival_us"].as_u64().unwrap() > 900_000, "{json}");
    let first = &json["first_answer_us"];
    assert!(first["max"].as_u64().unwrap() > 900_000 && first["p99"].as_u64().unwrap() > 800_000, "{json}");
    let late = |sample: &Value| sample["latency_us"]["first"]["max"].as_u64().unwrap_or(0) > 500_000;
    assert!(json["series"].as_array().unwrap().iter().any(late), "{json}");
    // Were they counted from when they were sent, the mean would be that of a loopback: under a millisecond or two.
    assert!(first["mean"].as_f64().unwrap() > 60_000.0, "{json}");
}

#[test]
fn the_limit_that_was_planted_is_found() {
    let limit = 300.0;
    let uas = uas::start(Some(limit), Duration::ZERO);
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("limit.html");
    let search = || {
        let (output, json) = run(&format!(
            "run --target {} --direct --wait-ready 0s --find-max --rate 100 --arrivals fixed --step 400ms --calm 200ms --talk 30ms \
             --bound first=150ms --bound bye=1s --precision 0.1 --json --interval 100ms --html {}",
            uas.address,
            page.display()
        ));
        let found = json["find_max"]["max_rate"].as_f64().unwrap();
        let steps = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(found < limit * 1.15, "{found}\n{steps}");
        (output, json, found, steps)
    };
    // A machine that stands still for a moment looks like a limit: lower ones are looked at again.
    let mut result = search();
    for _ in 0..5 {
        if result.2 >= limit * 0.6 {
            break;
        }
        result = search();
    }
    let (output, json, found, steps) = result;
    assert!(found >= limit * 0.6, "{found}\n{steps}");
    assert!(output.status.success() && steps.contains("too much") && steps.contains("borne"), "{steps}");
    assert_eq!(json["find_max"]["limited_by"], "target", "{steps}");
    let all = json["find_max"]["steps"].as_array().unwrap();
    assert!(all.iter().any(|step| step["borne"] == false && step["why"][0].as_str().unwrap().contains("p99 of first")));
    // What is reported is the run at the rate that was found.
    assert_eq!((&json["failed"], &json["unexpected"]), (&0.into(), &0.into()), "{json}");
    assert!(std::fs::read_to_string(page).unwrap().contains("The search for the limit"));
}

#[test]
fn the_search_says_when_agents_or_the_user_are_the_limit() {
    let line = "loopback --find-max --rate 50 --step 200ms --calm 100ms --talk 100ms --ring 0s --bound first=1s --json --interval 100ms";
    let (_, json) = run(&format!("{line} --agents 1000 --max-rate 100"));
    assert_eq!(
        (&json["find_max"]["max_rate"], &json["find_max"]["limited_by"]),
        (&100.0.into(), &"highest_rate".into())
    );
    // Eight agents, 0.1 s a call: 80 calls a second at most, of which the search goes to nine tenths.
    let (_, json) = run(&format!("{line} --agents 8 --arrivals fixed"));
    let found = json["find_max"]["max_rate"].as_f64().unwrap();
    assert!((50.0..=72.0).contains(&found), "{found}");
    assert_eq!(json["find_max"]["limited_by"], "agents");
}

#[test]
fn two_targets_are_measured_in_turn() {
    let (quick, slow) = (uas::start(None, Duration::ZERO), uas::start(None, Duration::from_millis(20)));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let line = format!(
        "run --target {} --vs {} --name quick --vs-name slow --pid {pid} --vs-pid {pid} --direct --wait-ready 0s \
         --rate 20 --seconds 3s --talk exp:50ms --hlog {} --hgrm {} --html {}",
        quick.address,
        slow.address,
        at("v.hlog"),
        at("v"),
        at("v.html"),
        pid = std::process::id(),
    );
    let (output, json) = run(&format!("{line} --json"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (a, b) = (&json["targets"][0], &json["targets"][1]);
    assert_eq!((&a["name"], &b["name"]), (&"quick".into(), &"slow".into()));
    // The same seed: the same calls.
    assert_eq!(a["offered"], b["offered"]);
    assert_eq!(a["offered"], quick.invites.load(Relaxed));
    assert!(b["first_answer_us"]["p50"].as_u64() >= Some(20_000), "{json}");
    assert!(a["first_answer_us"]["p50"].as_u64() < b["first_answer_us"]["p50"].as_u64(), "{json}");
    assert!(a["target_cpu_seconds"].is_number() && b["target_memory"].as_u64() > Some(1_000_000), "{json}");
    assert!(tags(Path::new(&at("v.hlog"))).contains(&"slow/first".to_owned()));
    assert!(Path::new(&at("v.quick.bye.hgrm")).exists() && Path::new(&at("v.slow.bye.hgrm")).exists());
    assert!(std::fs::read_to_string(at("v.html")).unwrap().contains("Side by side"));
    let output = loadtest(&line).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("side by side") && text.contains("first p99, us"), "{text}");
}

/// A child that is killed when the test is over.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn agents_answer_callers_from_elsewhere() {
    let mut child = loadtest("answer --agents 30 --ring 20ms --talk 100ms --caller-hangs-up 0.5 --seconds 4s --json");
    let mut child = Running(child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("agents   sip:")).unwrap();
    let address = line.split('@').nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    std::thread::spawn(move || lines.for_each(drop));
    let began = Instant::now();
    let (output, json) = run(&format!(
        "run --target {address} --direct --flow agent7 --wait-ready 0s --rate 20 --max-calls 20 --arrivals fixed --talk 2s --json"
    ));
    // One agent, twenty calls: those that come while it talks are double bookings to it, but all are answered.
    assert!(output.status.success() && json["answered"] == 20, "{json}");
    assert!(began.elapsed() < Duration::from_secs(30));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.0.stdout.take().unwrap(), &mut text).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&json["agent_invites"], &json["offered"], &json["agents_stuck"]),
        (&20.into(), &0.into(), &0.into()),
        "{text}"
    );
    // The agent hung up on about half of them.
    let hung_up = json["bye_latency_us"]["count"].as_u64().unwrap();
    assert!((3..=17).contains(&hung_up), "{hung_up}");
}

#[test]
fn faults_of_a_command_are_named_before_anything_is_played() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "1\nlater\n").unwrap();
    let list = file.path().display().to_string();
    for (line, words) in [
        ("run --target 127.0.0.1:5 --pid 4294967295 --wait-ready 0s".to_owned(), "process 4294967295 of 127.0.0.1:5"),
        ("loopback --hlog /nowhere/x".to_owned(), "cannot write /nowhere/x"),
        ("loopback --html /nowhere/x".to_owned(), "cannot write /nowhere/x"),
        ("loopback --rate 0".to_owned(), "rate: 0 calls a second"),
        (format!("loopback --arrivals file:{list}"), "line 2: `later` is no arrival"),
    ] {
        let output = loadtest(&line).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(words), "{line}: {said}");
    }
    std::fs::write(file.path(), "1\n").unwrap();
    let output = loadtest(&format!("loopback --find-max --arrivals file:{list}")).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--find-max chooses the rate itself"));
    let help = String::from_utf8_lossy(&loadtest("run --help").output().unwrap().stdout).into_owned();
    for heading in ["Calls:", "Agents:", "Network:", "Finding the limit:", "Output:"] {
        assert!(help.contains(heading), "{help}");
    }
}
