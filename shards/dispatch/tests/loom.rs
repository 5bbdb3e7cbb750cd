//! Every interleaving (up to the preemption bound) of two or three threads, on the code that ships.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p strowger-dispatch --test loom`: what is explored are the words, the links and the data that
//! `HELD` guards; epochs run for real, unseen. With `--cfg loom --cfg crossbeam_loom` the epochs are explored, too.
//! `LOOM_MAX_PREEMPTIONS` changes the bound.
#![cfg(loom)]

mod house;

use std::sync::Arc;

use house::{House, Work};
use strowger_dispatch::*;

const SALES: SkillId = SkillId(0);
const TECH: SkillId = SkillId(1);

fn arrive(handle: &mut Handle, media: Media, skill: SkillId, out: &mut Vec<Match>) -> WaitRef {
    let ticket = handle.dispatch().next_ticket();
    handle.wait(WaitSpec { media, skill, priority: 0, ticket, refused: &[] }, out).unwrap()
}

fn call(skill: SkillId) -> Work {
    Box::new(move |handle, out| _ = arrive(handle, Media::Audio, skill, out))
}

fn chat(skill: SkillId) -> Work {
    Box::new(move |handle, out| _ = arrive(handle, Media::Chat, skill, out))
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // With the epochs explored, too, the models are larger.
    builder.preemption_bound.get_or_insert(if cfg!(crossbeam_loom) { 2 } else { 3 });
    builder.max_branches = 10_000;
    let runs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    println!("{} interleavings", runs.load(std::sync::atomic::Ordering::Relaxed));
}

/// The first entry of a shard's table.
fn first(shard: Shard) -> WaitRef {
    WaitRef { shard, slot: 0, gen_: 0 }
}

#[test]
fn claim_against_claim() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        h.login(agent);
        h.race(vec![(0, call(SALES)), (1, call(SALES))]);
        let (a, b) = (h.agent_of(first(0)), h.agent_of(first(1)));
        assert!(a.is_some() != b.is_some(), "one of two calls has the one agent: {a:?} {b:?}");
        assert_eq!([first(0), first(1)].map(|w| h.waits(w)), [a.is_none(), b.is_none()]);
        assert_eq!((h.state(agent), h.dispatch.free(SALES), h.dispatch.queue_len(SALES)), (AgentState::InCall, 0, 1));
        h.no_garbage();
    });
}

#[test]
fn claim_against_claim_with_an_agent_each() {
    explore(|| {
        let mut h = House::new();
        for _ in 0..2 {
            let agent = h.agent(&[SALES], true, 0);
            h.login(agent);
        }
        h.race(vec![(0, call(SALES)), (1, call(SALES))]);
        let (a, b) = (h.agent_of(first(0)), h.agent_of(first(1)));
        assert!(a.is_some() && b.is_some() && a != b, "two calls, two agents: {a:?} {b:?}");
        h.no_garbage();
    });
}

#[test]
fn arrival_against_login() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        h.race(vec![(0, call(SALES)), (2, Box::new(move |handle, out| assert!(handle.login(agent, out))))]);
        assert_eq!(h.agent_of(first(0)), Some(agent));
        assert_eq!(h.on(0).take(first(0)), Some(agent));
        h.no_garbage();
    });
}

#[test]
fn arrival_against_release() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES, TECH], true, 0);
        h.login(agent);
        let before = h.call(1, TECH);
        assert_eq!(h.on(1).take(before), Some(agent));
        let release = move |handle: &mut Handle, out: &mut Vec<_>| {
            assert_eq!(handle.release(agent, Release::Free, out), Released::Free);
        };
        h.race(vec![(0, call(SALES)), (1, Box::new(release))]);
        assert_eq!(h.agent_of(first(0)), Some(agent));
    });
}

/// S1 claims X for C1; C2 looks, finds X busy, waits; C1 is abandoned and X goes back: C2 must have it.
#[test]
fn abandon_and_give_back_against_arrival() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        h.login(agent);
        let come_and_go = |handle: &mut Handle, out: &mut Vec<_>| {
            let wait = arrive(handle, Media::Audio, SALES, out);
            if let Abandon::Taken(agent) = handle.abandon(wait) {
                assert_eq!(handle.release(agent, Release::GiveBack, out), Released::Free);
            }
        };
        h.race(vec![(0, Box::new(come_and_go)), (1, call(SALES))]);
        assert_eq!(h.agent_of(first(1)), Some(agent));
        assert_eq!((h.state(agent), h.dispatch.queue_len(SALES)), (AgentState::InCall, 0));
        h.no_garbage();
    });
}

#[test]
fn abandon_against_match() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        let wait = h.call(0, SALES);
        let abandon = move |handle: &mut Handle, out: &mut Vec<_>| {
            if let Abandon::Taken(agent) = handle.abandon(wait) {
                assert_eq!(handle.release(agent, Release::GiveBack, out), Released::Free);
            }
        };
        h.race(vec![(0, Box::new(abandon)), (2, Box::new(move |handle, out| assert!(handle.login(agent, out))))]);
        assert_eq!((h.state(agent), h.dispatch.free(SALES), h.dispatch.queue_len(SALES)), (AgentState::Free, 1, 0));
        let next = h.call(1, SALES);
        assert_eq!(h.agent_of(next), Some(agent));
        h.no_garbage();
    });
}

#[test]
fn abandon_against_match_with_another_call_behind() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        let (leaves, stays) = (h.call(0, SALES), h.call(1, SALES));
        let abandon = move |handle: &mut Handle, out: &mut Vec<_>| {
            if let Abandon::Taken(agent) = handle.abandon(leaves) {
                assert_eq!(handle.release(agent, Release::GiveBack, out), Released::Free);
            }
        };
        h.race(vec![(0, Box::new(abandon)), (2, Box::new(move |handle, out| assert!(handle.login(agent, out))))]);
        assert_eq!(h.agent_of(stays), Some(agent));
        h.no_garbage();
    });
}

#[test]
fn newcomer_against_queue() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        let before = h.call(0, SALES);
        h.race(vec![(1, call(SALES)), (2, Box::new(move |handle, out| assert!(handle.login(agent, out))))]);
        assert_eq!((h.agent_of(before), h.agent_of(first(1))), (Some(agent), None), "nobody overtakes");
        assert!(h.waits(first(1)));
    });
}

#[test]
fn update_against_claim() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        h.login(agent);
        let tech = h.call(1, TECH);
        let spec = AgentSpec { skills: &[TECH], audio: true, chat_slots: 0 };
        h.race(vec![
            (0, call(SALES)),
            (2, Box::new(move |handle, out| assert!(handle.update_agent(agent, spec, out)))),
        ]);
        let (a, b) = (h.agent_of(first(0)), h.agent_of(tech));
        assert!(a.is_some() != b.is_some(), "{a:?} {b:?}");
        assert_eq!((h.dispatch.logged_in(SALES), h.dispatch.logged_in(TECH)), (0, 1));
        if a.is_some() {
            h.on(0).take(first(0)).unwrap();
            let handle = h.handles[0].as_mut().unwrap();
            assert_eq!(handle.release(agent, Release::Free, &mut h.out), Released::Free);
            assert_eq!(h.agent_of(tech), Some(agent));
        }
        h.no_garbage();
    });
}

#[test]
fn retire_against_claim_and_the_slot_again() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        h.login(agent);
        let reload = move |handle: &mut Handle, _: &mut Vec<_>| {
            handle.retire_agent(agent);
            let next = handle.add_agent(AgentSpec { skills: &[TECH], audio: true, chat_slots: 0 }).unwrap();
            assert_ne!(next, agent);
        };
        h.race(vec![(0, call(SALES)), (2, Box::new(reload))]);
        if h.agent_of(first(0)).is_some() {
            assert_eq!(h.on(0).take(first(0)), Some(agent));
            let handle = h.handles[0].as_mut().unwrap();
            assert_eq!(handle.release(agent, Release::Wrapup, &mut h.out), Released::Retired);
        } else {
            assert!(h.waits(first(0)));
        }
        assert_eq!((h.dispatch.agent(agent), h.dispatch.logged_in(SALES), h.dispatch.free(SALES)), (None, 0, 0));
        h.no_garbage();
    });
}

#[test]
fn retire_against_release() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        h.login(agent);
        let wait = h.call(0, SALES);
        assert_eq!(h.on(0).take(wait), Some(agent));
        let release = move |handle: &mut Handle, out: &mut Vec<_>| {
            assert_ne!(handle.release(agent, Release::Free, out), Released::Stale);
        };
        h.race(vec![(0, Box::new(release)), (2, Box::new(move |handle, _| handle.retire_agent(agent)))]);
        assert_eq!((h.dispatch.agent(agent), h.dispatch.free_total()), (None, 0));
        h.no_garbage();
    });
}

#[test]
fn chat_slot_against_call() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 1);
        h.login(agent);
        h.race(vec![(0, call(SALES)), (1, chat(SALES))]);
        let (a, b) = (h.agent_of(first(0)), h.agent_of(first(1)));
        assert!(a.is_some() != b.is_some(), "call or chat: {a:?} {b:?}");
        let state = if a.is_some() { AgentState::InCall } else { AgentState::InChat };
        assert_eq!((h.state(agent), h.dispatch.free(SALES)), (state, 0));
    });
}

#[test]
fn two_chat_slots_against_two_chats() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], false, 2);
        h.login(agent);
        h.race(vec![(0, chat(SALES)), (1, chat(SALES))]);
        assert_eq!([first(0), first(1)].map(|w| h.agent_of(w)), [Some(agent); 2]);
        assert_eq!(h.dispatch.agent(agent).unwrap().chats_open, 2);
        h.no_garbage();
    });
}

#[test]
fn a_chat_slot_opens_against_an_arriving_chat() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], false, 1);
        h.login(agent);
        let handle = h.handles[0].as_mut().unwrap();
        let before = arrive(handle, Media::Chat, SALES, &mut h.out);
        assert_eq!(handle.take(before), Some(agent));
        let close = move |handle: &mut Handle, out: &mut Vec<_>| {
            assert_eq!(handle.release(agent, Release::Chat, out), Released::Free);
        };
        h.race(vec![(0, Box::new(close)), (1, chat(SALES))]);
        assert_eq!(h.agent_of(first(1)), Some(agent));
    });
}

/// One chat is open, another was refused: of three slots one is free once the pause is over.
#[test]
fn a_pause_after_a_refused_chat_ends_against_an_arriving_chat() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], false, 3);
        h.login(agent);
        let handle = h.handles[0].as_mut().unwrap();
        let chats = [0, 1].map(|_| arrive(handle, Media::Chat, SALES, &mut h.out));
        assert_eq!(chats.map(|chat| handle.take(chat)), [Some(agent); 2]);
        handle.release(agent, Release::ChatRefused, &mut h.out);
        let over = move |handle: &mut Handle, out: &mut Vec<_>| assert!(handle.pause_over(agent, out));
        h.race(vec![(0, Box::new(over)), (1, chat(SALES))]);
        assert_eq!(h.agent_of(first(1)), Some(agent));
    });
}

/// The slot is withheld before the chat comes, or after it was given: never both lost.
#[test]
fn a_chat_slot_is_withheld_against_an_arriving_chat() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], false, 2);
        h.login(agent);
        let handle = h.handles[0].as_mut().unwrap();
        let open = arrive(handle, Media::Chat, SALES, &mut h.out);
        assert_eq!(handle.take(open), Some(agent));
        let withhold = move |handle: &mut Handle, _: &mut Vec<_>| assert!(handle.withhold(agent, false));
        h.race(vec![(0, Box::new(withhold)), (1, chat(SALES))]);
        let given = h.agent_of(first(1)) == Some(agent);
        assert_eq!(h.waits(first(1)), !given);
        assert_eq!(h.dispatch.agent(agent).unwrap().chats_open, if given { 2 } else { 1 });
        let mut out = Vec::new();
        assert!(h.on(0).wrapup_over(agent, &mut out));
        h.out.append(&mut out);
        assert_eq!(h.agent_of(first(1)), Some(agent));
    });
}

#[test]
fn logout_against_claim() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        h.login(agent);
        h.race(vec![(0, call(SALES)), (2, Box::new(move |handle, _| assert!(handle.logout(agent))))]);
        assert_eq!((h.dispatch.logged_in(SALES), h.dispatch.free(SALES)), (0, 0));
        let state = if h.agent_of(first(0)).is_some() { AgentState::InCall } else { AgentState::Offline };
        assert_eq!((h.state(agent), h.waits(first(0))), (state, state == AgentState::Offline));
        h.no_garbage();
    });
}

/// After a restart: the slot has one owner, whichever of the old claim and a match comes first.
#[test]
fn reclaim_against_login_with_a_call_waiting() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        let wait = h.call(0, SALES);
        let reclaim = move |handle: &mut Handle, out: &mut Vec<_>| {
            if handle.reclaim(agent, Media::Audio) {
                assert_eq!(handle.take(wait), None, "two owners");
                assert!(matches!(handle.release(agent, Release::Free, out), Released::Free | Released::Offline));
            }
        };
        let login = move |handle: &mut Handle, out: &mut Vec<_>| assert!(handle.login(agent, out));
        h.race(vec![(0, Box::new(reclaim)), (2, Box::new(login))]);
        assert_eq!((h.agent_of(first(0)), h.state(agent)), (Some(agent), AgentState::InCall));
        h.no_garbage();
    });
}

#[test]
fn external_claim_against_abandon() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        h.dispatch.set_dispatching(false);
        h.login(agent);
        let wait = h.call(0, SALES);
        let abandon = move |handle: &mut Handle, out: &mut Vec<_>| {
            if let Abandon::Taken(agent) = handle.abandon(wait) {
                assert_eq!(handle.release(agent, Release::GiveBack, out), Released::Free);
            }
        };
        let claim = move |handle: &mut Handle, _: &mut Vec<_>| {
            assert!(matches!(handle.claim(wait, agent), Ok(()) | Err(ClaimError::NotWaiting)));
        };
        h.race(vec![(0, Box::new(abandon)), (1, Box::new(claim))]);
        assert_eq!((h.state(agent), h.dispatch.free(SALES), h.dispatch.queue_len(SALES)), (AgentState::Free, 1, 0));
        h.no_garbage();
    });
}

/// The agent's slot is used again under the claim's eyes: the call never goes to the one who came after.
#[test]
fn external_claim_against_the_slot_used_again() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        h.dispatch.set_dispatching(false);
        h.login(agent);
        let wait = h.call(0, SALES);
        let claim = move |handle: &mut Handle, _: &mut Vec<_>| {
            let claimed = handle.claim(wait, agent).is_ok();
            assert_eq!(handle.take(wait), claimed.then_some(agent));
        };
        let reload = move |handle: &mut Handle, out: &mut Vec<_>| {
            handle.retire_agent(agent);
            let next = handle.add_agent(AgentSpec { skills: &[SALES], audio: true, chat_slots: 0 }).unwrap();
            assert!(handle.login(next, out));
        };
        h.race(vec![(0, Box::new(claim)), (2, Box::new(reload))]);
        assert_eq!((h.dispatch.logged_in(SALES), h.dispatch.free(SALES)), (1, 1));
    });
}

#[test]
fn dispatching_switched_on_against_arrival() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        h.dispatch.set_dispatching(false);
        h.login(agent);
        let switch = move |handle: &mut Handle, out: &mut Vec<_>| {
            handle.dispatch().set_dispatching(true);
            handle.match_all(out);
        };
        h.race(vec![(0, call(SALES)), (2, Box::new(switch))]);
        assert_eq!(h.agent_of(first(0)), Some(agent));
    });
}

/// The ordered set alone: calls of one skill come and go around each other, nothing matches.
#[test]
fn neighbours_come_and_go_in_a_set() {
    explore(|| {
        let mut h = House::new();
        let stays = h.call(0, SALES);
        let leaves = h.call(1, SALES);
        let leave = move |handle: &mut Handle, _: &mut Vec<_>| assert_eq!(handle.abandon(leaves), Abandon::Left);
        h.race(vec![(0, call(SALES)), (1, Box::new(leave))]);
        let came = WaitRef { slot: 1, ..first(0) };
        assert_eq!([stays, came].map(|w| h.on(0).calls_ahead(w)), [0, 1]);
        assert_eq!(h.dispatch.queue_len(SALES), 2);
        h.no_garbage();
        let agent = h.agent(&[SALES], true, 0);
        h.login(agent);
        assert_eq!(h.agent_of(stays), Some(agent));
    });
}

#[test]
fn neighbours_leave_a_set_at_once() {
    explore(|| {
        let mut h = House::new();
        let calls = [h.call(0, SALES), h.call(1, SALES), h.call(0, SALES)];
        let leave =
            |call: WaitRef| -> Work { Box::new(move |handle, _| assert_eq!(handle.abandon(call), Abandon::Left)) };
        h.race(vec![(0, leave(calls[0])), (1, leave(calls[1]))]);
        assert_eq!((h.on(0).calls_ahead(calls[2]), h.dispatch.queue_len(SALES)), (0, 1));
        h.no_garbage();
    });
}

/// Each leaves by the one before it, which may be on its way out.
#[test]
fn neighbours_leave_the_middle_of_a_set_at_once() {
    explore(|| {
        let mut h = House::new();
        let calls = [h.call(0, SALES), h.call(1, SALES), h.call(0, SALES), h.call(1, SALES)];
        let leave =
            |call: WaitRef| -> Work { Box::new(move |handle, _| assert_eq!(handle.abandon(call), Abandon::Left)) };
        h.race(vec![(1, leave(calls[1])), (0, leave(calls[2]))]);
        let ahead = [calls[0], calls[3]].map(|call| h.on(0).calls_ahead(call));
        assert_eq!((ahead, h.dispatch.queue_len(SALES)), ([0, 1], 2));
        h.no_garbage();
    });
}

/// One thread, nodes of both heights: nothing that has left can be reached on any level (checked as each is retired).
#[test]
fn whoever_leaves_is_gone_from_each_level() {
    explore(|| {
        let limits = Limits { shards: 1, agents: 1, waiting_per_shard: 12, skills: 1 };
        let dispatch = Arc::new(Dispatch::new(limits, ChatPolicy::Balancing));
        let mut handle = dispatch.handle(0);
        let calls: Vec<_> = (0..12).map(|_| arrive(&mut handle, Media::Audio, SALES, &mut Vec::new())).collect();
        for call in calls.iter().rev() {
            assert_eq!(handle.abandon(*call), Abandon::Left);
        }
        assert_eq!(dispatch.queue_len(SALES), 0);
    });
}

/// The one before changes while a call leaves by it.
#[test]
fn a_call_comes_between_neighbours_of_which_one_leaves() {
    explore(|| {
        let mut h = House::new();
        let urgent = |priority, handle: &mut Handle, out: &mut Vec<Match>| {
            let ticket = handle.dispatch().next_ticket();
            let spec = WaitSpec { media: Media::Audio, skill: SALES, priority, ticket, refused: &[] };
            handle.wait(spec, out).unwrap()
        };
        let mut out = Vec::new();
        let first = urgent(0, h.on(0), &mut out);
        let leaves = urgent(2, h.on(1), &mut out);
        let last = urgent(3, h.on(1), &mut out);
        let leave: Work = Box::new(move |handle, _| assert_eq!(handle.abandon(leaves), Abandon::Left));
        let come: Work = Box::new(move |handle, out| _ = urgent(1, handle, out));
        h.race(vec![(1, leave), (0, come)]);
        let ahead = [first, last].map(|call| h.on(0).calls_ahead(call));
        assert_eq!((ahead, h.dispatch.queue_len(SALES)), ([0, 2], 3));
        h.no_garbage();
    });
}

/// Three at once: two arrivals and a login.
#[test]
fn two_arrivals_against_a_login() {
    explore(|| {
        let mut h = House::new();
        let agent = h.agent(&[SALES], true, 0);
        h.race(vec![
            (0, call(SALES)),
            (1, call(SALES)),
            (2, Box::new(move |handle, out| assert!(handle.login(agent, out)))),
        ]);
        let (a, b) = (h.agent_of(first(0)), h.agent_of(first(1)));
        assert!(a.is_some() != b.is_some(), "{a:?} {b:?}");
    });
}
