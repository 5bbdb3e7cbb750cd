//! `/metrics` of a real server, held against the exposition format (0.0.4) by a parser that forgives nothing.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use support::{Scene, Server};

/// One sample: its name, its labels in order, its value.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    samples: Vec<Sample>,
}

fn is_name(s: &str, colons: bool) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    s.chars().next().is_some_and(|c| good(c) && !c.is_ascii_digit()) && s.chars().all(good)
}

/// The text behind an opening quote up to the closing one, with the escapes undone, and what follows.
fn quoted(s: &str) -> (String, &str) {
    let (mut text, mut chars) = (String::new(), s.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, &s[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, c @ ('\\' | '"'))) => text.push(c),
                other => panic!("escape {other:?} in {s:?}"),
            },
            '\n' => unreachable!("lines have none"),
            c => text.push(c),
        }
    }
    panic!("an open quote in {s:?}");
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line:?}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, true), "{line:?}");
    let mut labels = vec![];
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line:?}"));
            assert!(is_name(label, false), "{line:?}");
            let (text, after) = quoted(after);
            labels.push((label.to_owned(), text));
            match after.split_at(1) {
                (",", after) => rest = after,
                ("}", after) => {
                    rest = after;
                    break;
                }
                _ => panic!("{line:?}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no blank before the value: {line:?}"));
    let value = match value {
        "+Inf" => f64::INFINITY,
        v => {
            assert!(v.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)), "{line:?}");
            v.parse().unwrap_or_else(|_| panic!("no number: {line:?}"))
        }
    };
    Sample { name: name.to_owned(), labels, value }
}

/// Reads a page; panics at the first thing that the format does not allow.
fn read(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line must end, too");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut now = String::new();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name, true) && !help.is_empty(), "{line}");
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} comes twice, or in two places");
            now = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, now, "TYPE follows its HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let family = families.get_mut(name).unwrap();
            assert!(family.kind.is_empty() && family.samples.is_empty(), "{line}");
            family.kind = kind.to_owned();
        } else {
            let s = sample(line);
            let family = families.get_mut(&now).unwrap();
            let allowed: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(allowed.iter().any(|end| s.name == format!("{now}{end}")), "{line} under {now}");
            let key = format!("{} {:?}", s.name, s.labels);
            assert!(seen.insert(key), "{line} comes twice");
            family.samples.push(s);
        }
    }
    for (name, family) in &families {
        match family.kind.as_str() {
            "histogram" => histograms(name, family),
            "counter" => {
                assert!(name.ends_with("_total"), "{name}");
                assert!(family.samples.iter().all(|s| s.value >= 0.0 && s.value.is_finite()), "{name}");
            }
            "gauge" => assert!(!name.ends_with("_total"), "{name}"),
            other => panic!("{name} has the type {other:?}"),
        }
    }
    families
}

/// Each histogram: bounds rise to +Inf, counts never fall, the last is the count, and there is a sum.
fn histograms(name: &str, family: &Family) {
    let mut by_labels: BTreeMap<String, Vec<&Sample>> = BTreeMap::new();
    for s in &family.samples {
        let own: Vec<_> = s.labels.iter().filter(|(l, _)| l != "le").collect();
        by_labels.entry(format!("{own:?}")).or_default().push(s);
    }
    for (labels, samples) in by_labels {
        let buckets: Vec<&&Sample> = samples.iter().filter(|s| s.name.ends_with("_bucket")).collect();
        let bounds: Vec<f64> = buckets
            .iter()
            .map(|s| match s.labels.iter().find(|(l, _)| l == "le").unwrap().1.as_str() {
                "+Inf" => f64::INFINITY,
                le => le.parse().unwrap(),
            })
            .collect();
        assert!(bounds.windows(2).all(|w| w[0] < w[1]) && bounds.last() == Some(&f64::INFINITY), "{name}{labels}");
        assert!(buckets.windows(2).all(|w| w[0].value <= w[1].value), "{name}{labels}");
        let one = |end: &str| {
            let found: Vec<_> = samples.iter().filter(|s| s.name == format!("{name}{end}")).collect();
            assert_eq!(found.len(), 1, "{name}{end}{labels}");
            found[0].value
        };
        assert_eq!(buckets.last().unwrap().value, one("_count"), "{name}{labels}");
        assert!(one("_sum") >= 0.0);
    }
}

fn value(families: &BTreeMap<String, Family>, family: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let wanted: Vec<(String, String)> = labels.iter().map(|(l, v)| ((*l).to_owned(), (*v).to_owned())).collect();
    let samples = &families.get(family).unwrap_or_else(|| panic!("no {family}")).samples;
    let found = samples.iter().find(|s| s.name == name && s.labels == wanted);
    found.unwrap_or_else(|| panic!("no {name} {labels:?} in {samples:?}")).value
}

/// A caller that INVITEs, waits for the music server's INVITE, and cancels.
fn abandoned_call(server: &Server, media: &UdpSocket) {
    let caller = UdpSocket::bind("127.0.0.1:0").unwrap();
    caller.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (to, from) = (server.listen(), caller.local_addr().unwrap());
    let request = |method: &str| {
        format!(
            "{method} sip:sales@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKm1\r\nMax-Forwards: 70\r\n\
             From: <sip:carl@{from}>;tag=1\r\nTo: <sip:sales@{to}>\r\nCall-ID: metrics@{from}\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:carl@{from}>\r\nContent-Length: 0\r\n\r\n"
        )
    };
    caller.send_to(request("INVITE").as_bytes(), &to).unwrap();
    if let Err(error) = media.recv(&mut [0; 4096]) {
        let mut told = [0; 4096];
        let n = caller.recv(&mut told).unwrap_or(0);
        panic!("no INVITE to the music server: {error}; the caller was told {:?}", String::from_utf8_lossy(&told[..n]));
    }
    caller.send_to(request("CANCEL").as_bytes(), &to).unwrap();
    let mut bytes = [0; 4096];
    while !bytes.starts_with(b"SIP/2.0 487") {
        caller.recv(&mut bytes).unwrap();
    }
}

#[test]
fn a_page_of_metrics_is_sound_and_tells_what_happened() {
    let scene = Scene::new();
    let media = UdpSocket::bind("127.0.0.1:0").unwrap();
    media.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let music = format!("sip:music@127.0.0.1:{}", media.local_addr().unwrap().port());
    let odd = "a\"b\\c";
    scene.out(&["flow", "set", "sales", "--skill", "en", "--message-queue", &music]);
    scene.out(&["flow", "set", odd, "--skill", "none", "--message-queue", "sip:m@127.0.0.1"]);
    scene.out(&["agent", "set", "ann", "--skills", "en", "--location", "sip:ann@127.0.0.1"]);
    let server = Server::start(&scene, &["--shards", "2", "--set", "call_center.reject_on_no_agents=0"]);
    let (status, idle) = server.get("/metrics");
    assert_eq!(status, 200);
    let idle = read(&idle);
    assert_eq!(value(&idle, "strowger_flow_calls_total", "strowger_flow_calls_total", &[("flow", odd)]), 0.0);
    let etw = "strowger_flow_estimated_wait_seconds";
    assert_eq!(value(&idle, etw, etw, &[("flow", odd)]), f64::INFINITY, "nobody is logged in");
    abandoned_call(&server, &media);
    scene.out(&["mi", "event_subscribe", "E_CALLCENTER_AGENT_REPORT", "unix:/nowhere/at/all", "--mi", server.mi()]);
    scene.out(&["mi", "cc_agent_login", "ann", "1", "--mi", server.mi()]);
    let families = {
        // The record goes to the database in its own time.
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let families = read(&server.get("/metrics").1);
            let count = |name: &str| value(&families, name, name, &[]);
            // Nobody reads what tells of the login.
            let both = (count("strowger_cdrs_written_total"), count("strowger_events_lost_total"));
            if both == (1.0, 1.0) || Instant::now() > until {
                assert_eq!(both, (1.0, 1.0));
                break families;
            }
        }
    };
    let one = |name: &str, labels: &[(&str, &str)]| value(&families, name, name, labels);
    assert_eq!(one("strowger_event_subscribers", &[]), 1.0);
    let sales = [("flow", "sales")];
    assert_eq!(one("strowger_calls_total", &[]), 1.0);
    assert_eq!(one("strowger_flow_calls_total", &sales), 1.0);
    assert_eq!(one("strowger_flow_held_calls_total", &sales), 1.0);
    assert_eq!(one("strowger_flow_abandoned_calls_total", &sales), 1.0);
    assert_eq!((one("strowger_flow_onhold_calls", &sales), one("strowger_flow_queued_calls", &sales)), (0.0, 0.0));
    assert_eq!(one("strowger_agent_answered_calls_total", &[("agent", "ann")]), 0.0);
    let wait = "strowger_flow_wait_seconds";
    let left = [("flow", "sales"), ("outcome", "abandoned")];
    assert_eq!(value(&families, wait, "strowger_flow_wait_seconds_count", &left), 1.0);
    let received = families["strowger_datagrams_received_total"].samples.iter().map(|s| s.value).sum::<f64>();
    assert!(received >= 2.0, "{received}");
    assert_eq!(families["strowger_shard_calls_total"].samples.len(), 2, "one for each shard");
    let turns = value(&families, "strowger_loop_turn_seconds", "strowger_loop_turn_seconds_count", &[]);
    assert!(turns >= 1.0, "{turns}");
    let audited = families["strowger_audit_sweeps_total"].samples.iter().map(|s| s.value).sum::<f64>();
    assert!(audited >= 1.0, "{audited}");
    let faults = &families["strowger_audit_faults_total"].samples;
    assert!(faults.len() > 40 && faults.iter().all(|s| s.value == 0.0), "{faults:?}");
    let info = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(one("strowger_build_info", &info), 1.0);
    assert!(families.values().all(|f| !f.help.is_empty()));
}

#[test]
fn metrics_have_a_path_of_their_own_and_can_be_turned_off() {
    let scene = Scene::new();
    let server = Server::start(&scene, &["--set", "metrics.path=/prom"]);
    assert_eq!((server.get("/prom").0, server.get("/metrics").0), (200, 404));
    drop(server);
    let server = Server::start(&scene, &["--set", "metrics.enabled=0"]);
    assert_eq!(server.get("/metrics").0, 404);
}
