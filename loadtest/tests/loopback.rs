//! The generator against itself: its callers dial its own agents over real UDP.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use loadtest::{AgentPlan, Behaviour, Dist, Generator, Patience, Report, Scenario};

fn fixed(millis: u64) -> Dist {
    Dist::Fixed(Duration::from_millis(millis))
}

fn loopback(behaviours: Vec<(f64, Behaviour)>) -> Scenario {
    Scenario {
        loopback: true,
        rate: 400.0,
        duration: Duration::from_secs(1),
        agents: vec![AgentPlan { name: "agent{N}".into(), count: 800, behaviours, chats: 0 }],
        talk: Dist::Uniform(Duration::from_millis(1), Duration::from_millis(300)),
        min_talk: Duration::ZERO,
        drain: Duration::from_secs(20),
        ..Scenario::default()
    }
}

/// Plays it; whatever happened, the gauges are at rest afterwards.
fn run(scenario: &Scenario) -> Report {
    let generator = Generator::bind(scenario).unwrap();
    let live = generator.live();
    let report = generator.run();
    for gauge in [&live.waiting, &live.talking, &live.ringing, &live.agents_busy, &live.at_media] {
        assert_eq!(gauge.load(Relaxed), 0, "{live:?}");
    }
    report
}

#[test]
fn every_call_is_answered() {
    let report = run(&loopback(vec![(1.0, Behaviour::Answer { ring: fixed(50) })]));
    assert!(report.clean(), "{report}");
    assert!((300..500).contains(&report.offered), "{report}");
    assert_eq!(report.answered, report.offered);
    assert_eq!(report.agent_invites, report.offered);
    assert_eq!((report.retransmissions_received, report.retransmissions_sent), (0, 0), "{report}");
    // INVITE, 180, 200, ACK, BYE, 200: each sent once and received once.
    assert_eq!(report.messages, 12 * report.offered);
    assert!(report.setup_latency_us.p50 >= 50_000 && report.setup_latency_us.p50 < 80_000, "{report}");
    assert_eq!(report.wait_us.count, report.answered);
    assert_eq!(report.bye_latency_us.count, report.answered);
}

#[test]
fn refusals_patience_and_early_hang_ups_are_told_apart() {
    let mut scenario = loopback(vec![
        (0.25, Behaviour::Answer { ring: fixed(50) }),
        (0.25, Behaviour::Refuse { code: 486, ring: fixed(20) }),
        (0.25, Behaviour::Ignore),
        (0.25, Behaviour::HangUp { ring: fixed(20), after: fixed(0) }),
    ]);
    scenario.patience = Some(Patience { share: 1.0, after: fixed(500) });
    scenario.sdp_less = 0.3;
    let report = run(&scenario);
    assert!(report.clean(), "{report}");
    assert_eq!(report.refusals.get(&486), Some(&report.refused));
    for column in [report.answered / 2, report.refused, report.abandoned] {
        assert!(column > report.offered / 8 && column < report.offered / 2, "{report}");
    }
}

#[test]
fn lost_datagrams_are_sent_again_and_the_books_balance() {
    let mut scenario = loopback(vec![
        (0.7, Behaviour::Answer { ring: fixed(50) }),
        (0.15, Behaviour::Refuse { code: 603, ring: fixed(20) }),
        (0.15, Behaviour::Ignore),
    ]);
    scenario.patience = Some(Patience { share: 1.0, after: fixed(4_000) });
    scenario.loss = 0.1;
    scenario.sdp_less = 0.2;
    scenario.talk = Dist::Uniform(Duration::ZERO, Duration::from_millis(900));
    scenario.drain = Duration::from_secs(60);
    let report = run(&scenario);
    assert!(report.balanced(), "{report}");
    assert!(report.dropped_on_purpose > 100, "{report}");
    assert!(report.retransmissions_sent > 50, "{report}");
    assert_eq!((report.agents_stuck, report.double_bookings, report.failed), (0, 0, 0), "{report}");
    assert_eq!(report.unexpected, 0, "{report}");
    assert!(report.answered > report.offered / 2, "{report}");
    // Everybody left in time: nothing had to be closed when the drain was over.
    assert!(report.seconds < 55.0, "{report}");
}

#[test]
fn one_port_serves_all_roles_and_busy_agents_refuse() {
    let mut scenario = loopback(vec![(1.0, Behaviour::Answer { ring: fixed(0) })]);
    scenario.one_port = true;
    scenario.agents[0].count = 1;
    scenario.talk = fixed(400);
    scenario.bind = "::1".parse().unwrap();
    let report = run(&scenario);
    assert!(report.clean(), "{report}");
    assert!(report.answered >= 2 && report.answered <= 4, "{report}");
    assert_eq!(report.refused, report.offered - report.answered);
}

#[test]
fn who_never_answers_is_left_when_the_drain_is_over() {
    let mut scenario = loopback(vec![(1.0, Behaviour::Ignore)]);
    scenario.drain = Duration::from_millis(300);
    let report = run(&scenario);
    assert!(report.clean(), "{report}");
    assert_eq!(report.abandoned, report.offered, "{report}");
}

#[test]
fn a_target_that_is_not_there_fails_every_call() {
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let scenario = Scenario {
        target: closed.local_addr().unwrap(),
        rate: 100.0,
        max_calls: Some(10),
        drain: Duration::from_millis(700),
        ..Scenario::default()
    };
    // No test waits for the last answers that cannot come: 5 s of grace and the drain.
    let report = run(&scenario);
    assert!(report.balanced(), "{report}");
    assert_eq!((report.offered, report.failed), (10, 10), "{report}");
    assert_eq!(report.failures["still open when the drain was over"].count, 10);
    assert!(report.retransmissions_sent >= 10, "{report}");
}

#[test]
fn the_stop_flag_ends_arrivals() {
    let mut scenario = loopback(vec![(1.0, Behaviour::Answer { ring: fixed(0) })]);
    scenario.duration = Duration::from_secs(3600);
    let generator = Generator::bind(&scenario).unwrap();
    let (live, stop) = (generator.live(), generator.stop_flag());
    let running = std::thread::spawn(move || generator.run());
    while live.answered.load(Relaxed) < 20 {
        std::thread::yield_now();
    }
    stop.store(true, Relaxed);
    let report = running.join().unwrap();
    assert!(report.clean() && report.answered >= 20, "{report}");
    assert_eq!(live.answered.load(Relaxed), report.answered);
}
