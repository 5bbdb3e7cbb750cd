//! The SIPp scenarios, played against each other: each is valid, and callers and called sides agree.

mod toy;

use std::{
    net::UdpSocket,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use loadtest::{AgentPlan, Behaviour, Dist, Generator, Patience, Report, Scenario};

const CALLS: &str = "3";

fn sipp(scenario: &str) -> Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("sipp").join(scenario).with_extension("xml");
    let mut command = Command::new("sipp");
    command.arg("-sf").arg(file).args(["-i", "127.0.0.1", "-m", CALLS, "-nostdin", "-timeout", "25", "-timeout_error"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.current_dir(std::env::temp_dir());
    command
}

fn start(command: &mut Command) -> Child {
    command.spawn().expect("cannot start sipp: install it with `apt-get install sip-tester`")
}

/// A port that was free a moment ago.
fn free_port() -> String {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Whether somebody listens there. (Trying to bind it would get into that somebody's way.)
fn bound(port: &str) -> bool {
    let local = format!(" 0100007F:{:04X} ", port.parse::<u16>().unwrap());
    std::fs::read_to_string("/proc/net/udp").unwrap().contains(&local)
}

#[test]
fn callers_and_called_sides_agree() {
    let pairs = [
        ("agent-answer", "caller-direct"),
        ("agent-bye", "caller-direct"),
        ("agent-hangup", "caller-direct"),
        ("agent-noanswer", "caller-cancel"),
        ("media", "caller-no-sdp"),
        ("media", "caller-patience-bye"),
        ("agent-answer", "caller-no-sdp"),
    ];
    let running: Vec<_> = pairs
        .iter()
        .map(|(called, caller)| {
            let (server, address) = listen(called, CALLS);
            let target = address.to_string();
            let options = ["-p", &free_port(), "-s", "x", "-r", "3", "-recv_timeout", "8000", &target];
            let client = start(sipp(caller).args(options));
            (called, caller, server, client)
        })
        .collect();
    for (called, caller, mut server, mut client) in running {
        assert!(client.wait().unwrap().success(), "{caller}.xml failed against {called}.xml");
        assert!(server.wait().unwrap().success(), "{called}.xml failed against {caller}.xml");
    }
}

/// A called side that listens.
fn listen(scenario: &str, calls: &str) -> (Child, std::net::SocketAddr) {
    let port = free_port();
    let mut child = start(sipp(scenario).args(["-m", calls, "-p", &port, "127.0.0.1"]));
    while !bound(&port) {
        assert!(child.try_wait().unwrap().is_none(), "{scenario}.xml does not start");
        std::thread::yield_now();
    }
    (child, format!("127.0.0.1:{port}").parse().unwrap())
}

#[test]
fn a_queued_caller_is_served_by_the_scenarios_through_a_queue() {
    let (mut agent, agent_address) = listen("agent-answer", CALLS);
    let (mut media, media_address) = listen("media", CALLS);
    let queue = toy::start(agent_address, 2, media_address, toy::Fault::None);
    let target = queue.address.to_string();
    let mut caller =
        start(sipp("caller-queued").args(["-p", &free_port(), "-s", "x", "-recv_timeout", "8000", &target]));
    for (name, child) in [("caller-queued", &mut caller), ("agent-answer", &mut agent), ("media", &mut media)] {
        assert!(child.wait().unwrap().success(), "{name}.xml failed");
    }
    assert_eq!(queue.stop(), 3);
}

#[test]
fn a_busy_agent_and_an_impatient_caller() {
    let (mut agent, agent_address) = listen("agent-busy", "1");
    let (mut media, media_address) = listen("media", "1");
    let queue = toy::start(agent_address, 1, media_address, toy::Fault::None);
    let target = queue.address.to_string();
    let options = ["-m", "1", "-p", &free_port(), "-s", "x", "-recv_timeout", "8000", &target];
    let mut caller = start(sipp("caller-patience-bye").args(options));
    for (name, child) in [("caller-patience-bye", &mut caller), ("agent-busy", &mut agent), ("media", &mut media)] {
        assert!(child.wait().unwrap().success(), "{name}.xml failed");
    }
    // The refusal and the abandoned call.
    assert!(queue.stop() >= 2);
}

/// The generator's callers dial a SIPp scenario.
fn dial(scenario: &str, patience: Option<Patience>) -> Report {
    let (mut called, target) = listen(scenario, CALLS);
    let talk = Dist::Fixed(Duration::from_secs(2));
    let direct =
        Scenario { direct: true, target, rate: 3.0, max_calls: Some(3), talk, patience, ..Scenario::default() };
    let report = Generator::bind(&direct).unwrap().run();
    assert!(called.wait().unwrap().success(), "{scenario}.xml failed: {report}");
    assert!(report.clean() && report.offered == 3, "{scenario}.xml: {report}");
    report
}

#[test]
fn the_generators_callers_dial_the_called_sides() {
    // They answer and wait for BYE, or hang up themselves after 1.5 s or 0.2 s.
    for (scenario, by_caller) in [("agent-answer", 3), ("media", 3), ("agent-bye", 0), ("agent-hangup", 0)] {
        let report = dial(scenario, None);
        assert_eq!((report.answered, report.bye_latency_us.count), (3, by_caller), "{scenario}.xml: {report}");
    }
    assert_eq!(dial("agent-busy", None).refusals.get(&486), Some(&3));
    let patience = Patience { share: 1.0, after: Dist::Fixed(Duration::from_millis(300)) };
    assert_eq!(dial("agent-noanswer", Some(patience)).abandoned, 3);
}

#[test]
fn the_callers_dial_the_generators_agents() {
    let behaviours = vec![(1.0, Behaviour::Answer { ring: Dist::Fixed(Duration::from_millis(100)) })];
    let agents = vec![AgentPlan { name: "agent{N}".into(), count: 1, behaviours, chats: 3 }];
    let hour = Duration::from_secs(3600);
    let answer = Scenario { callers: false, agents, caller_hangs_up: 1.0, duration: hour, ..Scenario::default() };
    let generator = Generator::bind(&answer).unwrap();
    let (target, stop, live) = (generator.agent_addr().to_string(), generator.stop_flag(), generator.live());
    let playing = std::thread::spawn(move || generator.run());
    let options = ["-p", &free_port(), "-s", "agent1", "-r", "3", "-recv_timeout", "8000", &target];
    let status = start(sipp("caller-direct").args(options)).wait().unwrap();
    stop.store(true, Relaxed);
    let report = playing.join().unwrap();
    assert!(status.success(), "caller-direct.xml failed: {report}");
    assert_eq!((report.agent_invites, report.unexpected, report.agents_stuck), (3, 0, 0), "{report}");
    assert_eq!(live.agents_busy.load(Relaxed), 0);
}

#[test]
fn the_script_plays_a_whole_queue() {
    let (agents, media) = (free_port(), free_port());
    let at = |port: &str| format!("127.0.0.1:{port}").parse().unwrap();
    let queue = toy::start(at(&agents), 2, at(&media), toy::Fault::None);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("sipp/queue.sh");
    let mut command = Command::new(&script);
    command.args([&queue.address.to_string(), "support", "3", "3"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.env("AGENT_PORT", &agents).env("MEDIA_PORT", &media).env("CALLER_PORT", free_port());
    let child = command.spawn().unwrap();
    while !(bound(&agents) && bound(&media)) {
        std::thread::yield_now();
    }
    // The end of its standard input is Enter.
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("3 calls, all as caller-queued.xml says"), "{said}");
    assert_eq!(queue.stop(), 3);
    assert_eq!(Command::new(&script).stderr(Stdio::null()).status().unwrap().code(), Some(2));
}
