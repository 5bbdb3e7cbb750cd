//! Calls, legs, timers and gauges.

use super::ladder::{self, Scene};
use super::{Fault, call, found, hangs_up, leg, mended, pass, peace, ringing, talk, with_call};
use crate::arena::Key;
use crate::call::{End, Link, Preagent};
use crate::control::CallState;
use crate::leg::Role;
use strowger_dispatch::{AgentState, Media, WaitSpec};
use strowger_sip::dialog::{Dialog, DialogParts};
use strowger_sip::endpoint::ClientTxn;

#[test]
fn a_call_without_its_caller_ends_with_a_record() {
    let mut s = Scene::queued();
    let caller = leg(&s, Role::Caller);
    s.bench.engine.legs.remove(caller);
    mended(&mut s, &[Fault::CallerGone]);
    s.media_bye();
    assert_eq!((s.bench.cdrs.len(), s.bench.cdrs[0].call_type as i8), (1, -1));
    assert_eq!(s.gauges(), (0, 0));
    s.bench.assert_rest();
}

#[test]
fn a_call_without_its_entry_waits_in_its_old_place() {
    let mut s = Scene::queued();
    let (wait, ticket) = with_call(&mut s, |call| (call.wait.unwrap(), call.ticket));
    let _ = s.bench.engine.dispatch.abandon(wait);
    mended(&mut s, &[Fault::NotQueued]);
    s.bench.engine.waiting[0] = None;
    // Nobody knows any more whose entry it is, and the call says so itself.
    pass(&mut s, 1_000);
    assert!(s.bench.reports.iter().all(|r| r.repaired), "{:?}", s.bench.reports);
    s.bench.reports.clear();
    peace(&mut s);
    assert_eq!(with_call(&mut s, |call| call.ticket), ticket);
    s.bench.login("ann", true);
    s.ann_rings();
}

#[test]
fn a_call_that_waits_for_nothing_is_queued_again() {
    let mut s = Scene::queued();
    let (c, wait) = (call(&s), with_call(&mut s, |call| call.wait.unwrap()));
    s.bench.engine.forget_wait(c);
    let _ = s.bench.engine.dispatch.abandon(wait);
    mended(&mut s, &[Fault::CallIdle]);
    assert_eq!(s.state(), CallState::Queued);
    s.bench.login("ann", true);
    s.ann_rings();
}

#[test]
fn a_call_that_has_an_agent_gets_no_second_one() {
    let mut s = talk();
    let c = call(&s);
    let flow = with_call(&mut s, |call| call.flow.clone());
    let spec = WaitSpec { media: Media::Audio, skill: flow.skill, priority: 0, ticket: 0, refused: &[] };
    let wait = s.bench.engine.dispatch.wait(spec, &mut Vec::new()).unwrap();
    s.bench.engine.note_wait(c, wait);
    mended(&mut s, &[Fault::StillQueued]);
    s.bench.login("bob", true);
    s.bob.expect_nothing(&mut s.bench);
    assert_eq!(s.bench.agent_state("bob"), AgentState::Free);
    hangs_up(&mut s);
}

#[test]
fn music_whose_leg_is_gone_is_called_again() {
    let mut s = Scene::queued();
    let media = leg(&s, Role::Media);
    s.bench.engine.legs.remove(media);
    pass(&mut s, 600);
    assert_eq!(found(&s), [(Fault::MessageGone, true)]);
    s.bench.wait_for("10.0.3.1:5060".parse().unwrap(), 10_000);
    s.media_answers();
    s.caller_moves();
    s.bench.reports.clear();
    peace(&mut s);
}

#[test]
fn music_that_nobody_tries_any_more_is_tried() {
    let mut s = Scene::queued();
    let (c, media) = (call(&s), leg(&s, Role::Media));
    with_call(&mut s, |call| (call.media, call.link) = (None, Link::Loose));
    let now = s.bench.now;
    s.bench.engine.let_go(media, now);
    s.bench.drain();
    s.media_bye();
    pass(&mut s, 600);
    assert_eq!(found(&s), [(Fault::MusicGivenUp, true)]);
    assert_eq!(s.bench.reports[0].call, Some(s.bench.engine.call_id(c)));
    s.media_answers();
    s.caller_moves();
    s.bench.reports.clear();
    peace(&mut s);
}

#[test]
fn an_attempt_whose_leg_is_gone_is_an_error_and_the_call_waits_on() {
    let mut s = Scene::queued();
    s.bench.login("ann", true);
    let first = s.ann_rings();
    let key = leg(&s, Role::Agent);
    s.bench.engine.legs.remove(key);
    pass(&mut s, 1_000);
    let found = found(&s);
    let wanted = [Fault::HoldsMiscounted, Fault::AttemptGone, Fault::InviteForgotten, Fault::AgentUnheld];
    assert_eq!(found, wanted.map(|f| (f, true)), "{}", s.bench.ladder());
    let cancel = s.ann.expect(&mut s.bench, "CANCEL");
    s.ann.answer(&mut s.bench, &cancel, 200, "");
    s.ann.answer(&mut s.bench, &first, 487, "");
    let mut again = s.ann.expect_any(&mut s.bench);
    while again.what() != "INVITE" {
        again = s.ann.expect_any(&mut s.bench);
    }
    // What came a second time while the test looked elsewhere, and the ACK of that 487.
    while s.bench.next_for(ladder::ANN.parse().unwrap()).is_some() {}
    s.ann_answers(&again);
    s.caller_moves();
    s.media_bye();
    s.bench.reports.clear();
    hangs_up(&mut s);
}

#[test]
fn a_message_to_the_agent_whose_leg_is_gone_is_over() {
    let mut s = ladder::briefed::scene_with(true, |_| {});
    s.call();
    let invite = s.ann_rings();
    let sdp = s.ann.sdp();
    s.ann.answer(&mut s.bench, &invite, 200, &sdp);
    s.news_answers();
    s.ann.expect(&mut s.bench, "ACK");
    let message = with_call(&mut s, |call| match call.attempt.as_ref().unwrap().pre {
        Preagent::Hearing(message) => message,
        other => panic!("{other:?}"),
    });
    s.bench.engine.legs.remove(message);
    pass(&mut s, 600);
    assert_eq!(found(&s), [(Fault::BriefingGone, true)]);
    let reinvite = s.ann.expect(&mut s.bench, "INVITE");
    assert_eq!(reinvite.sdp('s'), "caller", "she is moved to the caller");
}

fn limited() -> Scene {
    let mut s = Scene::with(|_, flows, agents| {
        agents[0].logstate = Some(0);
        flows[0].dissuading_onhold_th = Some(5);
        flows[0].message_dissuading = Some("sip:news@10.0.3.2:5060".into());
    });
    s.joins_queue();
    s
}

#[test]
fn a_call_whose_limit_does_not_run_is_dissuaded_in_time() {
    for forgotten in [false, true] {
        let mut s = limited();
        let timer = with_call(&mut s, |call| if forgotten { call.onhold_timer.take() } else { call.onhold_timer });
        s.bench.engine.ep.stop_timer(timer.unwrap());
        mended(&mut s, &[if forgotten { Fault::HoldUnlimited } else { Fault::CallTimerGone }]);
        s.news.expect_nothing(&mut s.bench);
        pass(&mut s, 3_500);
        s.news.expect(&mut s.bench, "INVITE");
    }
}

#[test]
fn a_caller_who_is_connected_to_nobody_is_connected_again() {
    let gone = Link::Linked(End::Leg(Key { slot: 9, generation: 9 }));
    for (link, fault) in [(gone, Fault::LinkBroken), (Link::Loose, Fault::LinkIdle)] {
        let mut s = talk();
        with_call(&mut s, |call| call.link = link);
        pass(&mut s, 600);
        assert_eq!(found(&s), [(fault, true)]);
        let offer = s.caller.expect(&mut s.bench, "INVITE");
        assert_eq!(offer.sdp('s'), "ann");
        let sdp = s.caller.sdp();
        s.caller.answer(&mut s.bench, &offer, 200, &sdp);
        s.caller.expect(&mut s.bench, "ACK");
        s.bench.reports.clear();
        peace(&mut s);
        hangs_up(&mut s);
    }
}

#[test]
fn a_leg_that_its_call_has_forgotten_is_ended() {
    for (orphan, fault) in [(false, Fault::LegOrphaned), (true, Fault::LegUnended)] {
        let mut s = Scene::queued();
        let media = leg(&s, Role::Media);
        // The music is to be tried again later.
        let c = call(&s);
        let now = s.bench.now;
        let timer = s.bench.engine.ep.start_timer(now.mono.plus_us(3_600_000_000), c.to_u64(), 2);
        with_call(&mut s, |call| (call.media, call.link, call.media_timer) = (None, Link::Loose, Some(timer)));
        if orphan {
            s.bench.engine.legs.get_mut(media).unwrap().call = None;
        }
        pass(&mut s, 600);
        assert_eq!(found(&s), [(fault, true)]);
        s.media_bye();
        s.bench.reports.clear();
        peace(&mut s);
    }
}

#[test]
fn a_leg_without_its_transaction_has_timed_out() {
    let mut s = ringing();
    let key = leg(&s, Role::Agent);
    s.bench.engine.legs.get_mut(key).unwrap().invite.as_mut().unwrap().txn = ClientTxn::NONE;
    mended(&mut s, &[Fault::LegTransactionGone, Fault::InviteForgotten]);
    assert_eq!((s.bench.cdrs.len(), s.bench.cdrs[0].cause), (1, 408));
    s.ann.expect(&mut s.bench, "CANCEL");
}

#[test]
fn a_phone_whose_ring_timer_is_gone_does_not_ring_for_ever() {
    let mut s = ringing();
    let key = leg(&s, Role::Agent);
    let timer = s.bench.engine.legs.get(key).unwrap().timer.unwrap();
    s.bench.engine.ep.stop_timer(timer);
    mended(&mut s, &[Fault::LegTimerGone]);
    pass(&mut s, 60_000);
    assert_eq!(s.bench.cdrs[0].cause, 408, "{}", s.bench.ladder());
}

#[test]
fn a_leg_that_was_let_go_frees_its_agent_before_its_phone_does() {
    let mut s = talk();
    let (c, key) = (call(&s), leg(&s, Role::Agent));
    let now = s.bench.now;
    // The call ends, and nobody says what becomes of the agent.
    let claim = s.bench.engine.take_claim(key).unwrap();
    s.bench.engine.end_call(c, crate::books::Outcome::Handled, 0, now);
    s.bench.engine.put_claim(key, claim);
    s.bench.drain();
    assert_eq!(s.ann_state(), AgentState::InCall);
    pass(&mut s, 1_000);
    assert_eq!((found(&s), s.ann_state()), (vec![(Fault::LegTimerGone, true)], AgentState::Free));
}

#[test]
fn a_session_that_nobody_watches_is_watched() {
    let mut s = Scene::with(|cfg, _, _| cfg.call.session_expires_s = 1800);
    s.talk_straight();
    let key = leg(&s, Role::Agent);
    let timer = s.bench.engine.legs.get_mut(key).unwrap().session.timer.take().expect("timed");
    s.bench.engine.ep.stop_timer(timer);
    mended(&mut s, &[Fault::SessionUntimed]);
    let timer = s.bench.engine.legs.get(key).unwrap().session.timer.unwrap();
    s.bench.engine.ep.stop_timer(timer);
    mended(&mut s, &[Fault::LegTimerGone]);
    assert!(s.bench.engine.ep.timer_due(s.bench.engine.legs.get(key).unwrap().session.timer.unwrap()).is_some());
}

#[test]
fn a_leg_whose_tag_does_not_lead_to_it_is_listed() {
    let mut s = talk();
    let key = leg(&s, Role::Agent);
    let engine = &mut s.bench.engine;
    let bucket = engine.legs.get(key).unwrap().bucket().unwrap();
    let tag = engine.ep.ids().tag(bucket, key.slot + 70);
    let local = [b"<sip:x@10.0.0.1>;tag=", tag.as_bytes()].concat();
    let dialog = &mut engine.legs.get_mut(key).unwrap().dialog;
    *dialog = Dialog::from_parts(&DialogParts { local: &local, ..dialog.parts() }).unwrap();
    mended(&mut s, &[Fault::LegUnlisted]);
    let hash = s.bench.engine.tag_hash(tag.as_bytes());
    assert_eq!(s.bench.engine.revived.get(&hash), Some(&key));
}

#[test]
fn a_caller_whom_nobody_will_answer_is_refused() {
    let mut s = Scene::nobody();
    s.call();
    let caller = leg(&s, Role::Caller);
    s.bench.engine.legs.remove(caller);
    mended(&mut s, &[Fault::CallerGone, Fault::InviteUnanswered]);
    s.caller.expect(&mut s.bench, "500");
}

#[test]
fn a_gauge_is_set_right() {
    let mut s = Scene::queued();
    let idx = s.bench.registry.current().flow("sales").unwrap().idx;
    s.bench.stats.shard(0).flows.at(idx).queued.add(2);
    s.bench.stats.shard(0).flows.at(idx).onhold.add(-1);
    mended(&mut s, &[Fault::GaugeWrong]);
    assert_eq!(s.gauges(), (1, 1));
}

#[test]
fn gauges_are_recounted_of_a_shard_that_once_had_thousands_of_calls() {
    let mut s = Scene::queued();
    let c = call(&s);
    let engine = &mut s.bench.engine;
    let (wait, moved) = (engine.calls.get(c).unwrap().wait.unwrap(), Key { slot: 9_000, ..c });
    let alone = engine.calls.remove(c).unwrap();
    assert_eq!(engine.calls.plant(moved, alone), moved);
    engine.calls.planted();
    engine.note_wait(moved, wait);
    for key in engine.legs.keys().collect::<Vec<_>>() {
        engine.legs.get_mut(key).unwrap().call = Some(moved);
    }
    let idx = s.bench.registry.current().flow("sales").unwrap().idx;
    s.bench.stats.shard(0).flows.at(idx).queued.add(2);
    mended(&mut s, &[Fault::GaugeWrong]);
    assert_eq!(s.gauges(), (1, 1));
}
