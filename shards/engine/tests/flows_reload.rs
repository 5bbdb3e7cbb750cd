//! Reloads under calls: who is there keeps what it started with, new chances are taken at once.

mod ladder;

use ladder::{Scene, agent, flow};
use strowger_dispatch::AgentState;
use strowger_engine::registry::AgentRow;
use strowger_sip::msg::Name;

const ANN: &str = "10.0.4.1:5060";
const BOB: &str = "10.0.4.2:5060";

fn ann(skills: &str, logstate: i64) -> AgentRow {
    AgentRow { logstate: Some(logstate), ..agent("ann", ANN, skills) }
}

#[test]
fn a_flow_that_is_gone_serves_its_present_calls_and_takes_no_new_ones() {
    ladder::lives_on!("the present definitions hold");
    let mut s = Scene::queued();
    let gone = s.bench.registry.current().flow("sales").unwrap().idx;
    s.bench.reload(&[flow("support", "sales")], &[ann("sales", 0)]);
    let mut late = s.bench.phone("late", "10.0.2.9:5060");
    let sdp = late.sdp();
    late.invite(&mut s.bench, "sales", &sdp);
    late.expect(&mut s.bench, "100");
    late.expect(&mut s.bench, "404");
    late.ack_error(&mut s.bench);
    s.talk_from_queue();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    let cdr = &s.bench.cdrs[0];
    assert_eq!((&*cdr.flow.flowid, cdr.flow.idx, s.bench.cdrs.len()), ("sales", gone, 1));
    s.assert_rest();
    assert_eq!(s.bench.stats.flow(gone, |f| f.onhold.get() + f.queued.get() + f.ongoing.get()), 0);
    assert_eq!(s.bench.stats.flow(gone, |f| f.answered.get()), 1);
}

#[test]
fn a_waiting_call_keeps_the_definition_that_it_started_with() {
    ladder::lives_on!("the present definitions hold");
    let mut s = Scene::queued();
    let mut changed = flow("sales", "other");
    changed.prependcid = Some("NEW".into());
    changed.message_queue = Some("sip:new@10.0.3.2:5060".into());
    s.bench.reload(&[changed], &[ann("sales,other", 0)]);
    s.bench.login("ann", true);
    let invite = s.ann_rings();
    assert!(invite.header(Name::From).starts_with("\"caller Caller\" <"), "no prefix when it came");
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.bench.login("ann", false);
    // A new call has the new one.
    s.call();
    let mut media = s.bench.phone("new music", "10.0.3.2:5060");
    let invite = media.expect(&mut s.bench, "INVITE");
    assert_eq!(invite.uri(), "sip:new@10.0.3.2:5060");
    s.caller.cancel(&mut s.bench);
    s.caller.expect(&mut s.bench, "200");
    s.caller.expect(&mut s.bench, "487");
    s.caller.ack_error(&mut s.bench);
    media.answer(&mut s.bench, &invite, 180, "");
    let cancel = media.expect(&mut s.bench, "CANCEL");
    media.answer(&mut s.bench, &cancel, 200, "");
    media.answer(&mut s.bench, &invite, 487, "");
    media.expect(&mut s.bench, "ACK");
    s.assert_rest();
}

#[test]
fn an_agent_that_this_shard_does_not_know_yet_waits_for_its_definition() {
    ladder::lives_on!("a reload under way ends with its process");
    let mut s = Scene::with(|cfg, _, agents| {
        cfg.call.reject_on_no_agents = false;
        agents.clear();
    });
    s.joins_queue();
    s.bench.loads_elsewhere(&[flow("sales", "sales")], &[ann("sales", 1)], "ann");
    s.wait_ms(1_000);
    s.ann.expect_nothing(&mut s.bench);
    s.bench.load_arrives();
    s.wait_ms(1_000);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn a_skill_lost_by_reload_gets_no_new_call_and_keeps_the_present_one() {
    let mut s = Scene::new();
    s.talk_straight();
    s.bench.reload(&[flow("sales", "sales")], &[ann("other", 1)]);
    s.wait_ms(3_000);
    s.caller_hangs_up_on_ann();
    s.wait_ms(2_000);
    assert_eq!(s.ann_state(), AgentState::Free);
    s.joins_queue();
    s.ann.expect_nothing(&mut s.bench);
    s.caller_leaves_queue();
    s.assert_rest();
}

#[test]
fn a_login_survives_a_reload_until_the_table_says_otherwise() {
    ladder::lives_on!("a login by command");
    let mut s = Scene::nobody();
    s.bench.login("ann", true);
    s.bench.reload(&[flow("sales", "sales")], &[ann("sales", 0)]);
    assert_eq!(s.ann_state(), AgentState::Free, "the table says what it said before");
    s.talk_straight();
    // Logged out by the table in the middle of a call: the call goes on.
    s.bench.reload(&[flow("sales", "sales")], &[ann("sales", 1)]);
    s.bench.reload(&[flow("sales", "sales")], &[ann("sales", 0)]);
    s.wait_ms(3_000);
    s.caller_hangs_up_on_ann();
    s.wait_ms(3_000);
    assert_eq!(s.ann_state(), AgentState::Offline);
    // Logged in by the table: the waiting call is taken at once.
    s.joins_queue();
    s.bench.reload(&[flow("sales", "sales")], &[ann("sales", 1)]);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn an_agent_that_is_new_takes_a_waiting_call_at_once() {
    let mut s = Scene::queued();
    s.bench.reload(&[flow("sales", "sales")], &[ann("sales", 0), agent("bea", BOB, "sales")]);
    let invite = s.bob.expect(&mut s.bench, "INVITE");
    assert_eq!(invite.uri(), "sip:bea@10.0.4.2:5060");
    let sdp = s.bob.sdp();
    s.bob.answer(&mut s.bench, &invite, 200, &sdp);
    s.bob.expect(&mut s.bench, "ACK");
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up();
    let bye = s.bob.expect(&mut s.bench, "BYE");
    s.bob.answer(&mut s.bench, &bye, 200, "");
    s.assert_rest();
}
