//! Agents, their claims and wrap-ups, and the waiting set.

use super::ladder::{self, Scene};
use super::{Fault, ann, call, found, hangs_up, leg, mended, mended_in, pass, peace, talk};
use crate::arena::Key;
use crate::engine::Engine;
use crate::leg::Role;
use std::mem::swap;
use strowger_dispatch::{AgentState, Media, Release, WaitSpec};

#[test]
fn an_agent_whom_nobody_holds_is_released_and_matched() {
    let mut s = Scene::queued();
    let agent = ann(&s);
    assert!(s.bench.engine.dispatch.reclaim(agent, Media::Audio));
    s.bench.login("ann", true);
    assert_eq!(s.ann_state(), AgentState::InCall);
    let reports = mended(&mut s, &[Fault::AgentUnheld]);
    assert_eq!((reports[0].agent.as_deref(), reports[0].call), (Some("ann"), None));
    s.ann_rings();
}

#[test]
fn an_agent_in_a_talk_whom_the_table_has_free_is_claimed_again() {
    let mut s = talk();
    let agent = ann(&s);
    let _ = s.bench.engine.dispatch.release(agent, Release::Free, &mut Vec::new());
    let reports = mended(&mut s, &[Fault::AgentUnclaimed]);
    assert_eq!(reports[0].agent.as_deref(), Some("ann"));
    let words: Vec<_> = reports[0].history.iter().map(|m| m.what).collect();
    assert_eq!(words, ["arrived", "entry", "offered", "answered", "connected"]);
    assert!(reports[0].sip_call_id.is_some() && reports[0].call.is_some());
    assert_eq!(s.ann_state(), AgentState::InCall);
    hangs_up(&mut s);
}

#[test]
fn of_two_legs_with_one_agent_the_one_that_the_table_does_not_name_gives_it_up() {
    let mut s = talk();
    let (agent, c, held) = (ann(&s), call(&s), leg(&s, Role::Agent));
    let mut second = s.bench.phone("second", "10.0.2.2:5060");
    let sdp = second.sdp();
    second.invite(&mut s.bench, "sales", &sdp);
    second.expect(&mut s.bench, "100");
    let engine = &mut s.bench.engine;
    let other = engine.calls.keys().find(|key| *key != c).and_then(|key| engine.calls.get(key)).unwrap().caller;
    let claim = engine.legs.get(held).unwrap().claim.clone().unwrap();
    engine.put_claim(other, claim);
    engine.count_held(agent, 1);
    mended(&mut s, &[Fault::AgentHeldTwice]);
    assert!(s.bench.engine.legs.get(other).unwrap().claim.is_none());
    assert!(s.bench.engine.legs.get(held).unwrap().claim.is_some());
}

#[test]
fn a_count_of_claims_is_set_right() {
    let mut s = talk();
    let agent = ann(&s);
    s.bench.engine.count_held(agent, 1);
    mended(&mut s, &[Fault::HoldsMiscounted]);
    s.bench.engine.holders[agent.slot as usize].clear();
    mended(&mut s, &[Fault::HoldsMiscounted]);
    hangs_up(&mut s);
}

#[test]
fn a_talk_that_lost_its_claim_has_it_again() {
    let mut s = talk();
    let key = leg(&s, Role::Agent);
    s.bench.engine.legs.get_mut(key).unwrap().claim = None;
    mended(&mut s, &[Fault::HoldsMiscounted, Fault::ClaimGone]);
    assert_eq!(s.ann_state(), AgentState::InCall);
    hangs_up(&mut s);
}

#[test]
fn an_agents_owner_is_set_right() {
    let mut s = talk();
    let (agent, c) = (ann(&s), call(&s));
    s.bench.dispatch.set_owner(agent, Some((1, 77)));
    mended(&mut s, &[Fault::OwnerWrong]);
    assert_eq!(s.bench.dispatch.agent(agent).unwrap().owner, Some((0, c.to_u64())));
    hangs_up(&mut s);
    s.bench.dispatch.set_owner(agent, Some((1, 77)));
    mended(&mut s, &[Fault::OwnerWrong]);
    assert_eq!(s.bench.dispatch.agent(agent).unwrap().owner, None);
}

#[test]
fn a_wrap_up_that_nobody_times_ends_when_it_was_to() {
    let mut s = Scene::new();
    let agent = ann(&s);
    assert!(s.bench.engine.dispatch.begin_wrapup(agent));
    mended(&mut s, &[Fault::WrapupUntimed]);
    assert_eq!(s.ann_state(), AgentState::Free, "nobody knows an end of it");

    let mut s = talk();
    s.caller_hangs_up_on_ann();
    let timed = s.bench.engine.wrapups.remove(&u64::from(agent.slot)).unwrap();
    s.bench.engine.ep.stop_timer(timed.timer);
    s.bench.stats.shard(0).agents.at(agent.slot).timed.set(0);
    pass(&mut s, 1_900);
    assert_eq!(found(&s), [(Fault::WrapupUntimed, true)]);
    assert_eq!(s.ann_state(), AgentState::Wrapup);
    pass(&mut s, 110);
    assert_eq!(s.ann_state(), AgentState::Free, "at its end, which the board knew");
}

#[test]
fn a_wrap_up_whose_timer_is_gone_ends_when_it_was_to() {
    let mut s = talk();
    s.caller_hangs_up_on_ann();
    let timed = s.bench.engine.wrapups[&u64::from(ann(&s).slot)];
    s.bench.engine.ep.stop_timer(timed.timer);
    pass(&mut s, 1_900);
    assert_eq!(found(&s), [(Fault::WrapupTimerGone, true)]);
    assert_eq!(s.ann_state(), AgentState::Wrapup);
    pass(&mut s, 110);
    assert_eq!(s.ann_state(), AgentState::Free);
}

#[test]
fn the_end_of_a_chat_that_never_arrived_is_given_up_after_seconds() {
    let mut s = Scene::new();
    let agent = ann(&s);
    assert!(s.bench.engine.dispatch.withhold(agent, true));
    s.bench.stats.board.at(agent.slot).tell_chat_over();
    pass(&mut s, 2_000);
    assert_eq!((s.bench.reports.len(), s.ann_state()), (0, AgentState::Wrapup), "it may be on its way");
    mended_in(&mut s, 2_000, &[Fault::ChatEndLost]);
    assert_eq!(s.ann_state(), AgentState::Free);
}

#[test]
fn a_call_and_an_agent_who_missed_each_other_are_matched() {
    let mut s = Scene::nobody();
    s.bench.dispatch.set_dispatching(false);
    s.joins_queue();
    s.bench.login("ann", true);
    pass(&mut s, 2_000);
    assert_eq!(s.bench.reports, [], "nobody is matched while dispatching is off");
    s.bench.dispatch.set_dispatching(true);
    mended(&mut s, &[Fault::MatchMissed]);
    s.ann_rings();
}

#[test]
fn a_chat_that_the_table_has_forgotten_is_claimed_again() {
    let mut c = ladder::chats::chats(|_, _, _| {});
    let mut chats = [c.chat(1, "ann"), c.chat(2, "ann")];
    let agent = c.bench.registry.agent("ann").unwrap();
    let mut s = Scene::new();
    swap(&mut s.bench, &mut c.bench);
    let _ = s.bench.engine.dispatch.release(agent, Release::Chat, &mut Vec::new());
    assert_eq!(s.bench.dispatch.agent(agent).unwrap().chats_open, 1, "there is room for a third chat");
    mended_in(&mut s, 1_500, &[Fault::AgentUndercounted]);
    assert_eq!(s.bench.dispatch.agent(agent).unwrap().chats_open, 2);
    swap(&mut s.bench, &mut c.bench);
    chats.iter_mut().for_each(|chat| c.caller_ends(chat));
    assert_eq!(c.bench.dispatch.look(agent).unwrap().claims, 0);
}

/// An entry of the waiting set that no call has.
fn ghost(s: &mut Scene) {
    let flow = s.bench.registry.current().flow("sales").unwrap().clone();
    let spec = WaitSpec { media: Media::Audio, skill: flow.skill, priority: 0, ticket: 0, refused: &[] };
    s.bench.engine.dispatch.wait(spec, &mut Vec::new()).unwrap();
}

#[test]
fn an_entry_without_call_is_taken_out_and_its_agent_given_back() {
    let mut s = Scene::queued();
    ghost(&mut s);
    mended(&mut s, &[Fault::EntryOrphaned]);
    s.bench.login("ann", true);
    s.ann_rings();

    let mut s = Scene::new();
    ghost(&mut s);
    assert_eq!(s.ann_state(), AgentState::InCall);
    mended(&mut s, &[Fault::EntryOrphaned]);
    assert_eq!(s.ann_state(), AgentState::Free);
    // A slot that is free, and names a call that is no more.
    s.bench.engine.waiting.resize(1, None);
    s.bench.engine.waiting[0] = Some(Key { slot: 5, generation: 5 });
    mended(&mut s, &[Fault::EntryOrphaned]);
    s.assert_rest();
}

#[test]
fn a_call_that_was_not_told_of_its_agent_is_told() {
    let mut s = Scene::queued();
    let agent = ann(&s);
    assert!(s.bench.dispatch.handle(2).login(agent, &mut Vec::new()));
    assert_eq!(s.ann_state(), AgentState::InCall);
    mended(&mut s, &[Fault::MatchLost]);
    s.ann_rings();
}

/// Bob's home is shard 1; he talks on shard 0, whose engine drives.
fn talk_with_bob() -> (Scene, Engine) {
    let mut s = Scene::nobody();
    let other = s.bench.second_engine();
    s.joins_queue();
    s.bench.login("bob", true);
    let invite = s.bob.expect(&mut s.bench, "INVITE");
    let sdp = s.bob.sdp();
    s.bob.answer(&mut s.bench, &invite, 200, &sdp);
    s.bob.expect(&mut s.bench, "ACK");
    s.caller_moves();
    s.media_bye();
    (s, other)
}

#[test]
fn an_agent_is_looked_at_by_its_home_wherever_it_talks() {
    let (mut s, mut other) = talk_with_bob();
    let bob = s.bench.registry.agent("bob").unwrap();
    for _ in 0..2 {
        swap(&mut s.bench.engine, &mut other);
        peace(&mut s);
    }
    // Shard 0 forgets him: its own audit sets its count right, his home's releases him.
    let key = leg(&s, Role::Agent);
    let now = s.bench.now;
    drop(s.bench.engine.take_claim(key));
    let c = call(&s);
    s.bench.engine.end_call(c, crate::books::Outcome::Handled, 0, now);
    s.bench.drain();
    mended(&mut s, &[Fault::HoldsMiscounted]);
    assert_eq!(s.bench.agent_state("bob"), AgentState::InCall);
    swap(&mut s.bench.engine, &mut other);
    mended(&mut s, &[Fault::AgentUnheld]);
    assert_eq!(s.bench.dispatch.agent(bob).unwrap().state, AgentState::Free);
}

#[test]
fn an_agent_whose_match_waits_for_a_shard_without_cpu_is_nobodys_fault() {
    let mut s = Scene::queued();
    let mut other = s.bench.second_engine();
    let bob = s.bench.registry.agent("bob").unwrap();
    assert!(s.bench.dispatch.handle(2).login(bob, &mut Vec::new()));
    assert_eq!(s.bench.agent_state("bob"), AgentState::InCall);
    // Shard 0 does not run: only Bob's home looks on.
    swap(&mut s.bench.engine, &mut other);
    pass(&mut s, 10_000);
    assert_eq!(s.bench.reports, []);
    swap(&mut s.bench.engine, &mut other);
    mended(&mut s, &[Fault::MatchLost]);
    s.bob.expect(&mut s.bench, "INVITE");
}

#[test]
fn what_cannot_be_repaired_is_told_once() {
    let mut s = Scene::new();
    let bob = s.bench.registry.agent("bob").unwrap();
    // The timer of a wrap-up of an agent whom this shard does not know.
    s.bench.stats.shard(0).agents.at(bob.slot + 50).timed.set(1);
    s.bench.engine.holders.resize(bob.slot as usize + 51, Vec::new());
    pass(&mut s, 5_000);
    let found = found(&s);
    assert_eq!(found, [(Fault::WrapupTimerGone, false)]);
    let audit = &s.bench.stats.shard(0).audit;
    assert_eq!((audit.found[Fault::WrapupTimerGone as usize].get(), audit.repaired.get()), (1, 0));
}
