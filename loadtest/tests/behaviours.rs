//! Agents that abandon, agents' own wrap-up, listed arrivals, recorded routes, and targets that answer by themselves.

mod play;
mod toy;
mod uas;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use loadtest::{Behaviour, Dist, FlowShare, Generator, Interval, Phase, Scenario, read_arrivals};
use play::{fixed, play, scenario};
use toy::Fault;

#[test]
fn a_phone_that_goes_dead_leaves_the_books_in_order() {
    let abandon = Behaviour::Abandon { ring: fixed(30), after: fixed(50) };
    let scenario = scenario(150, vec![(0.5, abandon), (0.5, Behaviour::Answer { ring: fixed(30) })]);
    let (report, rows) = play(&scenario, Fault::None);
    assert!(report.clean(), "{report}");
    assert_eq!((report.answered, rows), (report.offered, report.offered), "{report}");
    // Half of the agents do not answer the BYE that ends their call; callers always get theirs answered.
    assert!(report.bye_latency_us.count >= report.offered / 3, "{report}");
}

#[test]
fn a_phone_that_goes_dead_answers_no_bye() {
    let abandon = Behaviour::Abandon { ring: fixed(0), after: fixed(10) };
    let mut scenario = scenario(20, vec![(1.0, abandon)]);
    (scenario.loopback, scenario.max_calls, scenario.min_talk) = (true, Some(3), Duration::ZERO);
    scenario.drain = Duration::from_secs(60);
    let report = Generator::bind(&scenario).unwrap().run();
    // Each BYE is sent, and ten times again (figure 6 of RFC 3261), until 64*T1 are over.
    assert_eq!((report.answered, report.failed, report.bye_latency_us.count), (3, 0, 0), "{report}");
    assert_eq!(report.retransmissions_sent, 30, "{report}");
    assert!(report.seconds > 32.0 && report.unexpected == 0, "{report}");
}

#[test]
fn agents_refuse_calls_until_their_own_wrap_up_is_over() {
    let mut scenario = scenario(25, vec![(1.0, Behaviour::Answer { ring: fixed(20) })]);
    scenario.after_call = Some(Dist::Uniform(Duration::from_millis(50), Duration::from_millis(250)));
    scenario.talk = fixed(300);
    scenario.caller_hangs_up = 1.0;
    let (report, rows) = play(&scenario, Fault::None);
    assert!(report.clean(), "{report}");
    assert_eq!((report.answered, report.cdrs_expected), (report.offered, rows), "{report}");
    assert!(report.rejected_by_agents > 10, "{report}");
}

#[test]
fn the_generators_own_agents_are_not_dialled_while_they_wrap_up() {
    let mut scenario = scenario(60, vec![(1.0, Behaviour::Answer { ring: fixed(0) })]);
    (scenario.loopback, scenario.min_talk) = (true, Duration::ZERO);
    (scenario.talk, scenario.after_call) = (fixed(100), Some(fixed(300)));
    let report = Generator::bind(&scenario).unwrap().run();
    // Forty calls a second of 0.4 s each, wrap-up included, occupy 16 agents.
    assert!(report.clean() && report.answered == report.offered, "{report}");
}

#[test]
fn arrivals_are_played_from_a_list() {
    let arrivals = read_arrivals("0.1 web\n0.15 support\n0.2 support\n0.2 nobody\n").unwrap();
    let flows = vec![
        FlowShare { name: "support".into(), weight: 1.0, chat: false },
        FlowShare { name: "web".into(), weight: 1.0, chat: true },
    ];
    let uas = uas::start(None, Duration::ZERO);
    let listed =
        Scenario { arrivals, flows, direct: true, talk: fixed(50), target: uas.address, ..Scenario::default() };
    let report = Generator::bind(&listed).unwrap().run();
    assert!(report.clean(), "{report}");
    assert_eq!((report.offered, report.answered), (4, 4), "{report}");
    assert!(report.seconds < 5.0, "{report}");
}

#[test]
fn a_target_that_answers_by_itself_is_called_directly() {
    let uas = uas::start(None, Duration::ZERO);
    let mut direct = scenario(1, vec![(1.0, Behaviour::Ignore)]);
    (direct.direct, direct.target, direct.sdp_less) = (true, uas.address, 0.3);
    let report = Generator::bind(&direct).unwrap().run();
    assert!(report.clean(), "{report}");
    assert_eq!((report.answered, report.offered), (uas.invites.load(Relaxed), report.answered), "{report}");
    for phase in [Phase::First, Phase::Setup, Phase::Wait, Phase::Bye] {
        assert_eq!(report.latency(phase).count, report.offered, "{}: {report}", phase.key());
    }
    assert_eq!(report.ringing_latency_us.count + report.trying_latency_us.count, 0, "{report}");
}

#[test]
fn recorded_routes_must_be_followed() {
    let mut own = scenario(80, vec![(1.0, Behaviour::Answer { ring: fixed(10) })]);
    (own.loopback, own.record_route, own.min_talk) = (true, true, Duration::ZERO);
    let report = Generator::bind(&own).unwrap().run();
    assert!(report.clean() && report.answered == report.offered, "{report}");

    let mut queue = scenario(80, vec![(1.0, Behaviour::Answer { ring: fixed(10) })]);
    queue.record_route = true;
    let (report, _) = play(&queue, Fault::None);
    let kind = "request without the Route that was recorded (section 12.2.1.1)";
    // The toy knows no routes: ACKs and BYEs come without, in each call several.
    assert!(report.violations[kind].count > 2 * report.offered, "{report}");
    queue.record_route = false;
    let (report, _) = play(&queue, Fault::AddsRoute);
    let kind = "request with a Route where none was recorded (section 12.2.1.1)";
    assert!(report.violations[kind].count > report.offered, "{report}");
}

#[test]
fn sequence_numbers_must_go_up() {
    let queue = scenario(80, vec![(1.0, Behaviour::Answer { ring: fixed(10) })]);
    let (report, _) = play(&queue, Fault::KeepsCSeq);
    let kind = "CSeq does not go up within the dialog (section 12.2.1.1)";
    assert!(report.violations[kind].count > report.offered / 2, "{report}");
}

#[test]
fn a_generator_plays_again_on_the_same_sockets() {
    let mut queue = scenario(40, vec![(1.0, Behaviour::Answer { ring: fixed(10) })]);
    (queue.duration, queue.talk, queue.min_talk) = (Duration::from_millis(500), fixed(100), Duration::ZERO);
    queue.interval = Duration::from_millis(100);
    queue.calm = Duration::from_millis(200);
    let mut generator = Generator::bind(&queue).unwrap();
    let toy = toy::start(generator.agent_addr(), 40, generator.media_addr(), Fault::None);
    queue.target = toy.address;
    for run in 1..=3 {
        queue.seed = run;
        generator.set_scenario(&queue).unwrap();
        let (mut offered, mut setups, mut ends) = (0, 0, Vec::new());
        let report = generator.play(|interval: &Interval| {
            offered += interval.counts.offered;
            setups += interval.histograms.of(Phase::Setup).len();
            ends.push(interval.start + interval.length);
        });
        assert!(report.clean() && report.stale == 0, "run {run}: {report}");
        assert_eq!((offered, setups), (report.offered, report.answered), "run {run}: {report}");
        // Half a second of calls, then at least 0.2 s of quiet.
        assert!(ends.len() >= 5 && ends.is_sorted() && report.seconds > 0.7, "{ends:?}");
    }
    drop(generator);
    toy.stop();
}

#[test]
fn what_an_earlier_run_left_behind_is_no_part_of_the_next() {
    // Nobody hangs up on the agents of the first run: that is for the toy to do, which here forgets them.
    let mut queue = scenario(200, vec![(1.0, Behaviour::Answer { ring: fixed(10) })]);
    (queue.duration, queue.drain) = (Duration::from_millis(300), Duration::ZERO);
    queue.talk = fixed(60_000);
    let mut generator = Generator::bind(&queue).unwrap();
    let toy = toy::start(generator.agent_addr(), 200, generator.media_addr(), Fault::ForgetsAgents);
    generator.set_target(toy.address);
    let first = generator.play(|_| {});
    assert!(first.agents_stuck > 0, "{first}");
    let mut second = queue.clone();
    (second.target, second.max_calls) = (toy.address, Some(0));
    generator.set_scenario(&second).unwrap();
    let second = generator.play(|_| {});
    assert_eq!((second.offered, second.agents_stuck, second.unexpected), (0, 0, 0), "{second}");
    toy.stop();
}
