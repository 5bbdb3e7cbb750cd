//! The generator against a toy queue: what it sees, counts and complains about.

mod play;
mod toy;

use std::time::Duration;

use loadtest::{Behaviour, Dist, Patience};
use play::{fixed, play, scenario};
use toy::Fault;

#[test]
fn waiting_calls_are_all_served() {
    let mut scenario = scenario(20, vec![(1.0, Behaviour::Answer { ring: fixed(50) })]);
    scenario.sdp_less = 0.25;
    let (report, rows) = play(&scenario, Fault::None);
    assert!(report.clean(), "{report}");
    assert_eq!((report.answered, rows), (report.offered, report.offered), "{report}");
    assert_eq!(report.cdrs_expected, rows, "{report}");
    assert_eq!(report.retransmissions_received, 0, "{report}");
    // Twenty agents cannot serve 80 calls at once: many waited, and were matched when an agent came free.
    assert!(report.free_to_invite_us.count > report.offered / 4, "{report}");
    assert!(report.free_to_invite_us.p50 < 30_000, "{report}");
    assert_eq!(report.free_to_invite_us.count + report.arrival_to_invite_us.count, report.offered, "{report}");
    assert_eq!(report.queue_setup_latency_us.count, report.offered, "{report}");
}

#[test]
fn attempts_that_fail_have_a_record_each() {
    let mut scenario = scenario(
        30,
        vec![
            (0.4, Behaviour::Answer { ring: fixed(50) }),
            (0.2, Behaviour::Refuse { code: 486, ring: fixed(30) }),
            (0.2, Behaviour::Ignore),
            (0.2, Behaviour::HangUp { ring: fixed(30), after: fixed(100) }),
        ],
    );
    scenario.patience = Some(Patience { share: 0.4, after: Dist::Uniform(Duration::ZERO, Duration::from_secs(2)) });
    let (report, rows) = play(&scenario, Fault::None);
    assert!(report.clean(), "{report}");
    assert!(report.rejected_by_agents > 10 && report.abandoned > 3 && report.answered > 20, "{report}");
    assert_eq!(report.cdrs_expected, rows, "{report}");
    assert_eq!(rows, report.rejected_by_agents + report.answered + report.abandoned, "{report}");
}

#[test]
fn a_second_call_to_a_busy_agent_is_a_double_booking() {
    let scenario = scenario(3, vec![(1.0, Behaviour::Answer { ring: fixed(50) })]);
    let (report, _) = play(&scenario, Fault::BooksTwice);
    assert!(report.balanced() && report.double_bookings > 20, "{report}");
}

#[test]
fn a_caller_who_never_hears_the_agent_has_failed() {
    let scenario = scenario(100, vec![(1.0, Behaviour::Answer { ring: fixed(50) })]);
    let (report, _) = play(&scenario, Fault::NeverBridges);
    assert!(report.balanced(), "{report}");
    assert_eq!((report.answered, report.failed), (0, report.offered), "{report}");
    let reason = "agent answered, and the caller never got the agent's SDP";
    assert_eq!(report.failures[reason].count, report.failed, "{report}");
}

#[test]
fn agents_who_are_left_in_a_dialog_are_stuck() {
    let mut scenario = scenario(100, vec![(1.0, Behaviour::Answer { ring: fixed(50) })]);
    scenario.caller_hangs_up = 1.0;
    scenario.drain = Duration::from_secs(4);
    let (report, _) = play(&scenario, Fault::ForgetsAgents);
    assert!(report.balanced(), "{report}");
    assert_eq!(report.agents_stuck, report.answered.min(100), "{report}");
    assert!(!report.clean());
}

#[test]
fn copies_and_wrong_versions_are_noticed() {
    let scenario = scenario(100, vec![(1.0, Behaviour::Answer { ring: fixed(50) })]);
    let (report, _) = play(&scenario, Fault::SendsTwice);
    assert!(report.clean() && report.retransmissions_received >= report.offered, "{report}");
    let (report, _) = play(&scenario, Fault::KeepsVersion);
    let kind = "SDP changed, and its version did not go up by one";
    assert_eq!(report.violations[kind].count, report.offered, "{report}");
}
