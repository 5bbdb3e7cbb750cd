//! Waiting: welcome, order of service, wrap-up, logging in and out.

mod ladder;

use ladder::{Bench, Got, Phone, Scene, agent, flow};
use strowger_dispatch::AgentState;
use strowger_engine::CallState;
use strowger_engine::stats::{AgentCounts, FlowCounts};

fn welcome_scene(ann_is_in: bool) -> Scene {
    Scene::with(|_, flows, agents| {
        flows[0].message_welcome = Some("sip:welcome@10.0.3.1:5060".into());
        agents[0].logstate = Some(i64::from(ann_is_in));
    })
}

#[test]
fn after_the_welcome_the_caller_waits_with_music_and_then_talks() {
    let mut s = welcome_scene(false);
    s.call();
    let invite = s.media_answers();
    assert_eq!(invite.uri(), "sip:welcome@10.0.3.1:5060");
    assert_eq!(invite.other("X-CC-State").as_deref(), Some("welcome"));
    s.caller_acks();
    assert_eq!(s.gauges(), (1, 0), "in the welcome a call is on hold, not queued");
    assert_eq!(s.bench.calls()[0].state, CallState::Welcome);
    s.wait_ms(4_000);
    s.media.send(&mut s.bench, "BYE", "");
    s.media.expect(&mut s.bench, "200");
    let invite = s.media_answers();
    assert_eq!(invite.uri(), "sip:music@10.0.3.1:5060");
    assert_eq!(invite.other("X-CC-State").as_deref(), Some("queue"));
    s.caller_moves();
    assert_eq!(s.gauges(), (1, 1));
    s.wait_ms(1_000);
    s.talk_from_queue();
    s.wait_ms(3_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 5s pickup 0s talk 3s cause 0"]);
    s.assert_counts([1, 1, 1, 0]);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

#[test]
fn after_the_welcome_the_caller_hears_music_while_the_free_agent_rings() {
    let mut s = welcome_scene(true);
    s.call();
    s.media_answers();
    s.caller_acks();
    s.ann.expect_nothing(&mut s.bench);
    s.wait_ms(2_000);
    s.media.send(&mut s.bench, "BYE", "");
    s.media.expect(&mut s.bench, "200");
    let invite = s.ann_rings();
    let music = s.media_answers();
    assert_eq!(music.uri(), "sip:music@10.0.3.1:5060");
    s.caller_moves();
    s.wait_ms(1_000);
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.ann_hangs_up();
    s.caller_bye();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 3s pickup 1s talk 2s cause 0"]);
    ladder::drawn!(s.bench);
    s.assert_rest();
}

/// Behind `ccg_awt`, `ccf_awt`, `cca_att` and the estimated wait: a call that was answered and one that left.
#[test]
fn averages_are_over_what_answered_calls_waited_and_talked() {
    let mut s = Scene::nobody();
    s.joins_queue();
    s.wait_ms(4_000);
    s.caller_leaves_queue();
    s.joins_queue();
    s.wait_ms(5_000);
    s.talk_from_queue();
    s.wait_ms(3_000);
    s.caller_hangs_up_on_ann();
    let flow = |read: fn(&FlowCounts) -> i64| s.bench.flow_count("sales", read);
    assert_eq!((flow(|f| f.waited.get()), flow(|f| f.wait_us.get())), (1, 5_000_000));
    assert_eq!((flow(|f| f.processed.get()), flow(|f| f.talk_us.get())), (1, 3_000_000));
    let ann = |read: fn(&AgentCounts) -> i64| s.bench.agent_count("ann", read);
    assert_eq!((ann(|a| a.processed.get()), ann(|a| a.talk_us.get())), (1, 3_000_000));
    assert_eq!((ann(|a| a.distributed.get()), ann(|a| a.answered.get()), ann(|a| a.abandoned.get())), (1, 1, 0));
    s.assert_rest();
}

#[test]
fn a_welcome_that_fails_is_skipped() {
    let mut s = welcome_scene(false);
    s.call();
    let invite = s.media.expect(&mut s.bench, "INVITE");
    s.media.answer(&mut s.bench, &invite, 503, "");
    s.media.expect(&mut s.bench, "ACK");
    let music = s.media_answers();
    assert_eq!(music.uri(), "sip:music@10.0.3.1:5060");
    s.caller_acks();
    s.caller_leaves_queue();
    s.assert_cdrs(&["type 1 agent - fstats 9 rejected 0 wait 0s pickup 0s talk 0s cause 0"]);
    s.assert_rest();
}

#[test]
fn a_welcome_that_never_answers_is_skipped_for_the_free_agent() {
    let mut s = welcome_scene(true);
    s.call();
    let invite = s.media.expect(&mut s.bench, "INVITE");
    s.media.answer(&mut s.bench, &invite, 180, "");
    s.wait_ms(32_000);
    let cancel = s.media.expect(&mut s.bench, "CANCEL");
    s.media.answer(&mut s.bench, &cancel, 200, "");
    s.media.answer(&mut s.bench, &invite, 487, "");
    s.media.expect(&mut s.bench, "ACK");
    let invite = s.ann_rings();
    s.caller.expect(&mut s.bench, "180");
    s.ann_answers(&invite);
    s.caller_acks();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 32s pickup 0s talk 2s cause 0"]);
    s.assert_rest();
}

/// Calls of several callers, in the order in which they came.
struct Crowd {
    bench: Bench,
    callers: Vec<Phone>,
    media: Phone,
    ann: Phone,
}

impl Crowd {
    /// Flows `low` (256, skill `a`) and `high` (0, skill `b`); Ann has both skills and is logged out.
    fn new() -> Crowd {
        let mut low = flow("low", "a");
        low.priority = Some(256);
        let mut high = flow("high", "b");
        high.priority = Some(0);
        let mut ann = agent("ann", "10.0.4.1:5060", "a, b");
        ann.logstate = Some(0);
        let mut bench = Bench::with(&[low, high], &[ann], |cfg| {
            cfg.call.reject_on_no_agents = false;
            cfg.call.wrapup_us = 1_000_000;
            cfg.call.session_expires_s = 0;
        });
        let media = bench.phone("media", "10.0.3.1:5060");
        let ann = bench.phone("ann", "10.0.4.1:5060");
        Crowd { bench, callers: Vec::new(), media, ann }
    }

    fn waits(&mut self, name: &str, flow: &str) {
        let addr = format!("10.0.2.{}:5060", 10 + self.callers.len());
        let mut caller = self.bench.phone(name, &addr);
        let sdp = caller.sdp();
        caller.invite(&mut self.bench, flow, &sdp);
        caller.expect(&mut self.bench, "100");
        let invite = self.media.expect(&mut self.bench, "INVITE");
        let sdp = self.media.sdp();
        self.media.answer(&mut self.bench, &invite, 200, &sdp);
        self.media.expect(&mut self.bench, "ACK");
        caller.expect(&mut self.bench, "200");
        caller.ack(&mut self.bench, "");
        self.callers.push(caller);
        self.bench.wait_ms(100);
    }

    /// Ann's next INVITE, and whose call it is.
    #[track_caller]
    fn rings(&mut self) -> (String, Got) {
        let invite = self.ann.expect(&mut self.bench, "INVITE");
        (invite.sdp('s'), invite)
    }

    /// The call is refused; Ann's wrap-up passes.
    fn refuses(&mut self, invite: &Got) {
        self.ann.answer(&mut self.bench, invite, 486, "");
        self.ann.expect(&mut self.bench, "ACK");
        self.bench.wait_ms(1_000);
    }

    /// The call is answered, talks and ends; Ann's wrap-up passes.
    fn talks(&mut self, name: &str, invite: &Got) {
        let sdp = self.ann.sdp();
        self.ann.answer(&mut self.bench, invite, 200, &sdp);
        self.ann.expect(&mut self.bench, "ACK");
        let caller = self.callers.iter_mut().find(|c| c.name == name).unwrap();
        let offer = caller.expect(&mut self.bench, "INVITE");
        let sdp = caller.sdp();
        caller.answer(&mut self.bench, &offer, 200, &sdp);
        caller.expect(&mut self.bench, "ACK");
        let bye = self.media.expect(&mut self.bench, "BYE");
        self.media.answer(&mut self.bench, &bye, 200, "");
        self.bench.wait_ms(2_000);
        caller.send(&mut self.bench, "BYE", "");
        caller.expect(&mut self.bench, "200");
        let bye = self.ann.expect(&mut self.bench, "BYE");
        self.ann.answer(&mut self.bench, &bye, 200, "");
        self.bench.wait_ms(1_000);
    }
}

#[test]
fn service_goes_by_priority_then_arrival_over_all_skills_of_the_agent() {
    let mut crowd = Crowd::new();
    for (name, flow) in [("one", "low"), ("two", "low"), ("three", "high"), ("four", "high")] {
        crowd.waits(name, flow);
    }
    crowd.bench.login("ann", true);
    for want in ["three", "four", "one", "two"] {
        let (who, invite) = crowd.rings();
        assert_eq!(who, want);
        crowd.talks(&who, &invite);
    }
    let order: Vec<_> = crowd.bench.cdrs.iter().map(|c| (c.caller.to_string(), c.cid)).collect();
    assert_eq!(order, [("three".into(), 2), ("four".into(), 3), ("one".into(), 0), ("two".into(), 1)]);
    crowd.bench.assert_rest();
}

#[test]
fn a_refused_call_keeps_its_ticket_and_goes_before_later_ones() {
    let mut crowd = Crowd::new();
    crowd.waits("one", "low");
    crowd.bench.login("ann", true);
    let (who, invite) = crowd.rings();
    assert_eq!(who, "one");
    crowd.waits("two", "low");
    crowd.refuses(&invite);
    let (who, invite) = crowd.rings();
    assert_eq!(who, "one", "it came first");
    crowd.talks("one", &invite);
    let (who, invite) = crowd.rings();
    assert_eq!(who, "two");
    crowd.talks("two", &invite);
    let rows: Vec<_> = crowd.bench.cdrs.iter().map(|c| (&*c.caller, c.call_type as i8, c.fstats, c.rejected)).collect();
    assert_eq!(rows, [("one", -2, 3, 0), ("one", 0, 7, 1), ("two", 0, 7, 0)]);
    crowd.bench.assert_rest();
}

#[test]
fn a_caller_who_leaves_the_queue_is_skipped_and_counted() {
    let mut crowd = Crowd::new();
    crowd.waits("one", "low");
    crowd.waits("two", "low");
    crowd.callers[0].send(&mut crowd.bench, "BYE", "");
    crowd.callers[0].expect(&mut crowd.bench, "200");
    let bye = crowd.media.expect(&mut crowd.bench, "BYE");
    crowd.media.answer(&mut crowd.bench, &bye, 200, "");
    crowd.bench.login("ann", true);
    let (who, invite) = crowd.rings();
    assert_eq!(who, "two");
    crowd.talks("two", &invite);
    assert_eq!(crowd.bench.flow_count("low", |f| f.abandoned.get()), 1);
    assert_eq!(crowd.bench.flow_count("low", |f| f.incalls.get()), 2);
    crowd.bench.assert_rest();
}

#[test]
fn the_wrap_up_is_the_agents_own_under_the_flows_ceiling_and_ends_exactly() {
    for (own, ceiling, want_ms) in [(0, 0, 2_000), (5, 0, 5_000), (5, 3, 3_000), (0, 1, 1_000), (5, 9, 5_000)] {
        let mut s = Scene::with(|_, flows, agents| {
            flows[0].max_wrapup_time = Some(ceiling);
            agents[0].wrapup_time = Some(own);
        });
        s.talk_straight();
        s.wait_ms(2_000);
        s.caller_hangs_up_on_ann();
        s.wait_ms(want_ms - 1);
        assert_eq!(s.ann_state(), AgentState::Wrapup, "own {own}, ceiling {ceiling}");
        s.wait_ms(1);
        assert_eq!(s.ann_state(), AgentState::Free, "own {own}, ceiling {ceiling}");
        s.assert_rest();
    }
}

#[test]
fn with_a_wrap_up_of_two_seconds_the_next_call_rings_after_two_seconds() {
    let mut s = Scene::new();
    s.talk_straight();
    let mut next = s.bench.phone("next", "10.0.2.9:5060");
    let sdp = next.sdp();
    next.invite(&mut s.bench, "sales", &sdp);
    next.expect(&mut s.bench, "100");
    s.media_answers();
    next.expect(&mut s.bench, "200");
    next.ack(&mut s.bench, "");
    s.wait_ms(3_000);
    s.caller_hangs_up_on_ann();
    s.wait_ms(1_999);
    s.ann.expect_nothing(&mut s.bench);
    s.wait_ms(1);
    s.ann_rings();
    assert_eq!(s.bench.stamps, [0, 0], "each INVITE says since when the agent was due");
    next.send(&mut s.bench, "BYE", "");
    next.expect(&mut s.bench, "200");
    s.media_bye();
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    assert_eq!(s.bench.cdrs[1].fstats, 11);
    s.bench.assert_rest();
}

#[test]
fn an_agent_who_logs_out_in_a_call_finishes_it_and_gets_no_other() {
    let mut s = Scene::new();
    s.talk_straight();
    s.bench.login("ann", false);
    assert_eq!(s.ann_state(), AgentState::InCall);
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.wait_ms(10_000);
    assert_eq!(s.ann_state(), AgentState::Offline);
    s.joins_queue();
    s.ann.expect_nothing(&mut s.bench);
    s.caller_leaves_queue();
    s.assert_cdrs(&[
        "type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 2s cause 0",
        "type 1 agent - fstats 9 rejected 0 wait 0s pickup 0s talk 0s cause 0",
    ]);
    s.assert_rest();
}

#[test]
fn logging_out_and_in_does_not_shorten_a_wrap_up() {
    let mut s = Scene::new();
    s.talk_straight();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.wait_ms(500);
    s.bench.login("ann", false);
    s.wait_ms(500);
    s.joins_queue();
    s.bench.login("ann", true);
    s.wait_ms(999);
    s.ann.expect_nothing(&mut s.bench);
    s.wait_ms(1);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn a_reload_in_a_call_changes_nothing_for_it_and_frees_a_retired_agent() {
    let mut s = Scene::new();
    s.talk_straight();
    let mut changed = flow("sales", "sales");
    changed.max_wrapup_time = Some(1);
    s.bench.reload(&[changed.clone()], &[]);
    s.wait_ms(3_000);
    s.caller_hangs_up_on_ann();
    s.assert_cdrs(&["type 0 agent ann fstats 7 rejected 0 wait 0s pickup 0s talk 3s cause 0"]);
    s.wait_ms(2_000);
    s.bench.reload(&[changed], &[agent("ann", "10.0.4.1:5060", "sales")]);
    s.talk_straight();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.wait_ms(1_000);
    assert_eq!(s.ann_state(), AgentState::Free, "the new ceiling");
    s.assert_rest();
}

#[test]
fn a_skill_gained_by_reload_serves_the_queue_at_once() {
    let mut s = Scene::with(|_, _, agents| agents[0].skills = Some("other".into()));
    s.joins_queue();
    s.ann.expect_nothing(&mut s.bench);
    s.bench.reload(&[flow("sales", "sales")], &[agent("ann", "10.0.4.1:5060", "other,sales")]);
    let invite = s.ann_rings();
    s.ann_answers(&invite);
    s.caller_moves();
    s.media_bye();
    s.wait_ms(2_000);
    s.caller_hangs_up_on_ann();
    s.assert_rest();
}

#[test]
fn the_queue_position_is_told_once_for_each_entry() {
    let mut s = Scene::with(|cfg, _, agents| {
        cfg.call.queue_pos_param = Some("cc_pos".into());
        agents[0].logstate = Some(0);
    });
    s.call();
    let invite = s.media_answers();
    assert_eq!(invite.uri(), "sip:music@10.0.3.1:5060;cc_pos=0");
    s.caller_acks();
    let mut second = s.bench.phone("second", "10.0.2.2:5060");
    let sdp = second.sdp();
    second.invite(&mut s.bench, "sales", &sdp);
    second.expect(&mut s.bench, "100");
    let invite = s.media_answers();
    assert_eq!(invite.uri(), "sip:music@10.0.3.1:5060;cc_pos=1");
    second.expect(&mut s.bench, "200");
    second.ack(&mut s.bench, "");
    second.send(&mut s.bench, "BYE", "");
    second.expect(&mut s.bench, "200");
    s.media_bye();
    s.caller_leaves_queue();
    s.assert_rest();
}
