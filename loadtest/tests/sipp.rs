//! The SIPp scenarios, played against each other: each is valid, and callers and called sides agree.

mod toy;

use std::{
    net::UdpSocket,
    path::Path,
    process::{Child, Command, Stdio},
};

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
