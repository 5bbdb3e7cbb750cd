//! What each operation does, one at a time.
#![cfg(not(any(loom, shuttle)))]

use std::sync::Arc;

use strowger_dispatch::*;

const LIMITS: Limits = Limits { shards: 2, agents: 1000, waiting_per_shard: 1000, skills: 100 };
const SALES: SkillId = SkillId(0);
const TECH: SkillId = SkillId(1);

struct House {
    dispatch: Arc<Dispatch>,
    control: Handle,
    shard: Handle,
    out: Vec<Match>,
}

impl House {
    fn new(policy: ChatPolicy) -> Self {
        let dispatch = Arc::new(Dispatch::new(LIMITS, policy));
        Self { control: dispatch.handle(2), shard: dispatch.handle(0), dispatch, out: Vec::new() }
    }

    fn agent(&mut self, skills: &[SkillId], audio: bool, chat_slots: u8) -> AgentRef {
        let agent = self.control.add_agent(AgentSpec { skills, audio, chat_slots }).unwrap();
        assert!(self.control.login(agent, &mut self.out));
        agent
    }

    fn wait_for(&mut self, media: Media, skill: SkillId, priority: u32, refused: &[AgentRef]) -> WaitRef {
        let ticket = self.dispatch.next_ticket();
        self.shard.wait(WaitSpec { media, skill, priority, ticket, refused }, &mut self.out).unwrap()
    }

    fn call(&mut self, skill: SkillId, priority: u32) -> WaitRef {
        self.wait_for(Media::Audio, skill, priority, &[])
    }

    fn chat(&mut self, skill: SkillId) -> WaitRef {
        self.wait_for(Media::Chat, skill, 0, &[])
    }

    fn matches(&mut self) -> Vec<Match> {
        self.shard.take_late(&mut self.out);
        self.control.take_late(&mut self.out);
        std::mem::take(&mut self.out)
    }

    fn state(&self, agent: AgentRef) -> AgentState {
        self.dispatch.agent(agent).unwrap().state
    }
}

#[test]
fn a_call_gets_the_agent_idle_for_longest_and_a_wrap_up_puts_it_last() {
    let mut h = House::new(ChatPolicy::Balancing);
    let (first, second) = (h.agent(&[SALES, TECH], true, 0), h.agent(&[SALES], true, 0));
    assert_eq!((h.dispatch.logged_in(SALES), h.dispatch.free(TECH), h.dispatch.free_total()), (2, 1, 2));
    let a = h.call(SALES, 5);
    assert_eq!(h.matches(), [Match { wait: a, agent: first }]);
    assert_eq!(h.shard.take(a), Some(first));
    assert_eq!(h.shard.take(a), None);
    assert_eq!((h.dispatch.free(SALES), h.dispatch.free(TECH), h.state(first)), (1, 0, AgentState::InCall));
    assert_eq!(h.shard.release(first, Release::Wrapup, &mut h.out), Released::Wrapup);
    assert_eq!(h.shard.release(first, Release::Wrapup, &mut h.out), Released::Stale);
    assert!(h.shard.wrapup_over(first, &mut h.out) && !h.shard.wrapup_over(first, &mut h.out));
    let b = h.call(SALES, 5);
    assert_eq!(h.matches(), [Match { wait: b, agent: second }]);
}

#[test]
fn an_agent_given_back_keeps_its_place() {
    let mut h = House::new(ChatPolicy::Balancing);
    let (first, _second) = (h.agent(&[SALES], true, 0), h.agent(&[SALES], true, 0));
    let a = h.call(SALES, 5);
    assert_eq!(h.shard.abandon(a), Abandon::Taken(first));
    assert_eq!(h.shard.release(first, Release::GiveBack, &mut h.out), Released::Free);
    h.matches();
    let b = h.call(SALES, 5);
    assert_eq!(h.matches(), [Match { wait: b, agent: first }]);
}

#[test]
fn an_agent_gets_the_best_call_over_all_its_skills() {
    let mut h = House::new(ChatPolicy::Balancing);
    let low = h.call(SALES, 9);
    let late = h.call(TECH, 1);
    let high = h.call(SALES, 0);
    assert_eq!([low, late, high].map(|w| h.shard.calls_ahead(w)), [1, 0, 0]);
    let agent = h.agent(&[TECH, SALES], true, 0);
    let mut served = Vec::new();
    for _ in 0..3 {
        served.extend(h.matches().iter().map(|m| m.wait));
        assert_eq!(h.shard.release(agent, Release::Free, &mut h.out), Released::Free);
    }
    assert_eq!(served, [high, late, low]);
    assert_eq!(h.dispatch.queue_len(SALES) + h.dispatch.queue_len(TECH), 0);
}

#[test]
fn a_call_that_left_is_not_matched_and_its_reference_is_stale() {
    let mut h = House::new(ChatPolicy::Balancing);
    let gone = h.call(SALES, 1);
    assert!(h.shard.is_waiting(gone));
    assert_eq!(h.shard.abandon(gone), Abandon::Left);
    assert_eq!(h.shard.abandon(gone), Abandon::Left);
    let stays = h.call(SALES, 1);
    assert_eq!((stays.slot, stays.gen_), (gone.slot, gone.gen_ + 1));
    let agent = h.agent(&[SALES], true, 0);
    assert_eq!(h.matches(), [Match { wait: stays, agent }]);
    assert_eq!(h.shard.take(gone), None);
}

#[test]
fn a_call_that_leaves_leaves_its_match_to_be_taken() {
    let mut h = House::new(ChatPolicy::Balancing);
    let gone = h.call(SALES, 5);
    assert!(h.shard.leave(gone) && !h.shard.leave(gone));
    let agent = h.agent(&[SALES], true, 0);
    let taken = h.call(SALES, 5);
    assert!(!h.shard.leave(taken) && !h.shard.leave(WaitRef { shard: 1, ..taken }));
    assert_eq!((h.shard.peek(taken), h.shard.take(taken)), (Some(agent), Some(agent)));
    assert_eq!(h.shard.waiting(), 0);
}

#[test]
fn who_refused_is_taken_only_when_there_is_no_other() {
    let mut h = House::new(ChatPolicy::Balancing);
    let (first, second) = (h.agent(&[SALES], true, 0), h.agent(&[SALES], true, 0));
    let a = h.wait_for(Media::Audio, SALES, 0, &[first]);
    let b = h.wait_for(Media::Audio, SALES, 0, &[first]);
    assert_eq!(h.matches(), [Match { wait: a, agent: second }, Match { wait: b, agent: first }]);
}

#[test]
fn an_agent_is_logged_out_in_a_call_and_in_again() {
    let mut h = House::new(ChatPolicy::Balancing);
    let agent = h.agent(&[SALES], true, 0);
    let a = h.call(SALES, 0);
    assert!(h.control.logout(agent));
    assert_eq!((h.state(agent), h.dispatch.logged_in(SALES)), (AgentState::InCall, 0));
    assert_eq!(h.shard.take(a), Some(agent));
    assert_eq!(h.shard.release(agent, Release::Free, &mut h.out), Released::Offline);
    h.matches();
    let b = h.call(SALES, 0);
    assert_eq!(h.matches(), []);
    assert!(h.control.begin_wrapup(agent) && h.control.login(agent, &mut h.out));
    assert_eq!(h.state(agent), AgentState::Wrapup);
    assert!(h.control.wrapup_over(agent, &mut h.out));
    assert_eq!(h.matches(), [Match { wait: b, agent }]);
}

#[test]
fn a_retired_agent_serves_its_call_and_its_slot_gets_a_new_generation() {
    let mut h = House::new(ChatPolicy::Balancing);
    let agent = h.agent(&[SALES], true, 0);
    h.call(SALES, 0);
    h.control.retire_agent(agent);
    assert!(h.dispatch.agent(agent).unwrap().retired && !h.control.login(agent, &mut h.out));
    assert_eq!(h.shard.release(agent, Release::Wrapup, &mut h.out), Released::Retired);
    assert_eq!((h.dispatch.agent(agent), h.dispatch.logged_in_total()), (None, 0));
    assert_eq!(h.shard.release(agent, Release::Wrapup, &mut h.out), Released::Stale);
    let next = h.control.add_agent(AgentSpec { skills: &[TECH], audio: true, chat_slots: 0 }).unwrap();
    assert_eq!((next.slot, next.gen_), (agent.slot, agent.gen_ + 1));
    assert_eq!((h.control.skills_of(next), h.control.skills_of(agent)), (vec![TECH], vec![]));
}

#[test]
fn a_skill_gained_is_a_chance_to_match_and_a_skill_lost_is_none() {
    let mut h = House::new(ChatPolicy::Balancing);
    let agent = h.agent(&[SALES], true, 0);
    let a = h.call(TECH, 0);
    assert_eq!(h.matches(), []);
    assert!(h.control.update_agent(agent, AgentSpec { skills: &[TECH], audio: true, chat_slots: 0 }, &mut h.out));
    assert_eq!(h.matches(), [Match { wait: a, agent }]);
    h.shard.release(agent, Release::Free, &mut h.out);
    h.call(SALES, 0);
    assert_eq!((h.matches(), h.dispatch.logged_in(SALES), h.dispatch.free(TECH)), (vec![], 0, 1));
}

#[test]
fn chats_are_spread_or_filled_by_policy() {
    for (policy, expected) in [(ChatPolicy::Balancing, [0, 1, 0, 1]), (ChatPolicy::FullLoad, [0, 0, 1, 1])] {
        let mut h = House::new(policy);
        let agents = [h.agent(&[SALES], true, 2), h.agent(&[SALES], true, 2)];
        for _ in 0..4 {
            h.chat(SALES);
        }
        let got: Vec<_> = h.matches().iter().map(|m| m.agent).collect();
        assert_eq!(got, expected.map(|i| agents[i]), "{policy:?}");
        h.chat(SALES);
        assert_eq!((h.matches().len(), h.dispatch.queue_len(SALES)), (0, 1));
    }
}

#[test]
fn an_agent_in_chats_takes_no_call_and_a_wrap_up_withholds_a_slot() {
    let mut h = House::new(ChatPolicy::Balancing);
    let agent = h.agent(&[SALES], true, 2);
    h.chat(SALES);
    h.call(SALES, 0);
    assert_eq!((h.matches().len(), h.state(agent), h.dispatch.free(SALES)), (1, AgentState::InChat, 0));
    h.chat(SALES);
    assert_eq!(h.matches().len(), 1);
    assert_eq!(h.shard.release(agent, Release::ChatWrapup, &mut h.out), Released::InChat);
    h.chat(SALES);
    assert_eq!(h.matches(), []);
    assert_eq!(h.shard.release(agent, Release::Chat, &mut h.out), Released::Wrapup);
    assert_eq!(h.matches(), []);
    assert!(h.shard.wrapup_over(agent, &mut h.out));
    assert_eq!((h.matches().len(), h.state(agent)), (1, AgentState::InCall), "the call came first");
}

#[test]
fn a_refused_chat_pauses_the_other_slots_until_the_pause_is_over() {
    let mut h = House::new(ChatPolicy::Balancing);
    let agent = h.agent(&[SALES], true, 3);
    h.chat(SALES);
    h.chat(SALES);
    assert_eq!(h.matches().len(), 2);
    assert!(!h.shard.pause_over(agent, &mut h.out), "there is none");
    assert_eq!(h.shard.release(agent, Release::ChatRefused, &mut h.out), Released::InChat);
    h.chat(SALES);
    h.chat(SALES);
    assert_eq!((h.matches(), h.dispatch.agent(agent).unwrap().slot_withheld), (vec![], true));
    assert!(h.shard.pause_over(agent, &mut h.out));
    assert_eq!(h.matches().len(), 1, "one open, one withheld: one is left");
    assert!(!h.shard.pause_over(agent, &mut h.out));
    assert!(h.shard.withhold(agent, true), "again, and over with the wrap-up as a whole");
    assert!(h.shard.wrapup_over(agent, &mut h.out));
    assert_eq!(h.matches().len(), 1);
    for _ in 0..3 {
        h.shard.release(agent, Release::ChatRefused, &mut h.out);
    }
    assert_eq!((h.state(agent), h.matches()), (AgentState::Wrapup, vec![]));
    assert!(h.shard.pause_over(agent, &mut h.out));
    assert_eq!(h.state(agent), AgentState::Wrapup, "the wrap-up goes on");
    assert!(h.shard.wrapup_over(agent, &mut h.out));
    assert_eq!(h.state(agent), AgentState::Free);
    h.call(SALES, 0);
    assert_eq!((h.matches().len(), h.state(agent)), (1, AgentState::InCall));
    assert!(!h.shard.withhold(agent, false), "a call is not touched");
    assert_eq!(h.shard.release(agent, Release::ChatRefused, &mut h.out), Released::Stale, "it is no chat");
    assert_eq!(h.shard.release(agent, Release::Free, &mut h.out), Released::Free);
}

#[test]
fn of_a_call_and_a_chat_of_equal_rank_the_call_is_first() {
    let mut h = House::new(ChatPolicy::Balancing);
    let same = |media| WaitSpec { media, skill: SALES, priority: 1, ticket: 7, refused: &[] };
    h.shard.wait(same(Media::Chat), &mut h.out).unwrap();
    let call = h.shard.wait(same(Media::Audio), &mut h.out).unwrap();
    let agent = h.agent(&[SALES], true, 4);
    assert_eq!(h.matches(), [Match { wait: call, agent }]);
}

#[test]
fn external_dispatch_refuses_with_a_reason() {
    let mut h = House::new(ChatPolicy::Balancing);
    h.dispatch.set_dispatching(false);
    let (sales, tech) = (h.agent(&[SALES], true, 0), h.agent(&[TECH], true, 1));
    let a = h.call(SALES, 0);
    let b = h.call(SALES, 0);
    let chat = h.chat(SALES);
    assert_eq!(h.matches(), []);
    assert_eq!(h.shard.claim(a, tech), Err(ClaimError::NoSkill));
    assert_eq!(h.shard.claim(chat, sales), Err(ClaimError::NotFreeChat));
    assert_eq!(h.shard.claim(a, AgentRef { gen_: 77, ..sales }), Err(ClaimError::StaleAgent));
    assert_eq!(h.shard.claim(a, sales), Ok(()));
    assert_eq!(h.shard.claim(a, sales), Err(ClaimError::NotWaiting));
    assert_eq!(h.shard.claim(b, sales), Err(ClaimError::NotFreeAudio));
    assert_eq!((h.shard.take(a), h.state(sales)), (Some(sales), AgentState::InCall));
    h.control.logout(tech);
    assert_eq!(h.shard.claim(b, tech), Err(ClaimError::NotLoggedIn));
    h.control.release(sales, Release::Free, &mut h.out);
    h.dispatch.set_dispatching(true);
    h.control.match_all(&mut h.out);
    assert_eq!(h.matches(), [Match { wait: b, agent: sales }]);
}

#[test]
fn switching_dispatching_on_matches_the_best_first_and_remembers_refusals() {
    let mut h = House::new(ChatPolicy::Balancing);
    h.dispatch.set_dispatching(false);
    let (first, second) = (h.agent(&[SALES, TECH], true, 0), h.agent(&[SALES], true, 0));
    let low = h.call(SALES, 3);
    let refused = h.wait_for(Media::Audio, SALES, 1, &[first]);
    h.dispatch.set_dispatching(true);
    h.control.match_all(&mut h.out);
    let expected = [Match { wait: refused, agent: second }, Match { wait: low, agent: first }];
    assert_eq!(h.matches(), expected);
}

#[test]
fn limits_are_errors_and_owners_are_noted() {
    let tiny = Limits { shards: 1, agents: 1, waiting_per_shard: 1, skills: 1 };
    let dispatch = Arc::new(Dispatch::new(tiny, ChatPolicy::Balancing));
    let (mut shard, mut control, mut out) = (dispatch.handle(0), dispatch.handle(1), Vec::new());
    let call = |skill| WaitSpec { media: Media::Audio, skill, priority: 0, ticket: 0, refused: &[] };
    let wait = shard.wait(call(SALES), &mut out).unwrap();
    assert_eq!(shard.wait(call(SALES), &mut out), Err(Full::Waiting));
    assert_eq!(control.wait(call(SALES), &mut out), Err(Full::Waiting));
    assert_eq!(shard.wait(call(TECH), &mut out), Err(Full::Skills));
    let spec = |skills| AgentSpec { skills, audio: true, chat_slots: 0 };
    assert_eq!(control.add_agent(spec(&[TECH])), Err(Full::Skills));
    let agent = control.add_agent(spec(&[])).unwrap();
    assert_eq!(control.add_agent(spec(&[])), Err(Full::Agents));
    dispatch.set_owner(agent, Some((0, 42)));
    assert_eq!(dispatch.agent(agent).unwrap().owner, Some((0, 42)));
    assert_eq!(shard.abandon(wait), Abandon::Left);
}

#[test]
#[should_panic(expected = "a handle of shard 0 lives")]
fn a_second_handle_of_a_shard_is_a_fault() {
    let dispatch = Arc::new(Dispatch::new(LIMITS, ChatPolicy::Balancing));
    let _first = dispatch.handle(0);
    let _second = dispatch.handle(0);
}

#[test]
fn a_handle_made_anew_finds_the_free_slots() {
    let mut h = House::new(ChatPolicy::Balancing);
    let stays = h.call(SALES, 0);
    let gone = h.call(SALES, 0);
    assert_eq!(h.shard.abandon(gone), Abandon::Left);
    let House { dispatch, mut control, shard, mut out } = h;
    drop(shard);
    let mut shard = dispatch.handle(0);
    assert!(shard.is_waiting(stays));
    let spec = WaitSpec { media: Media::Audio, skill: SALES, priority: 0, ticket: 9, refused: &[] };
    let next = shard.wait(spec, &mut out).unwrap();
    assert_eq!((next.slot, next.gen_), (gone.slot, gone.gen_ + 1));
    control.collect();
    shard.collect();
    assert_eq!(dispatch.garbage(), 0);
}

#[test]
fn a_handle_may_move_to_another_thread() {
    fn movable<T: Send>(_: &T) {}
    fn shared<T: Send + Sync>(_: &T) {}
    let h = House::new(ChatPolicy::Balancing);
    movable(&h.shard);
    shared(&*h.dispatch);
}

#[test]
fn two_equal_looks_have_seen_the_same_claims() {
    let mut h = House::new(ChatPolicy::Balancing);
    let agent = h.agent(&[SALES], true, 3);
    let look = |h: &House| h.dispatch.look(agent).unwrap();
    let idle = look(&h);
    assert_eq!((idle.claims, idle.in_call, idle.wraps, idle.at_rest), (0, false, false, true));
    let mut seen = vec![idle.mark];
    for round in 0..20 {
        let wait = h.call(SALES, 5);
        assert_eq!((h.shard.peek(wait), h.dispatch.taken_by(agent), h.shard.wait_slots()), (Some(agent), 1, 1));
        assert_eq!(h.dispatch.look_at_wait(0, 0), Some((wait.gen_, WaitLook::Taken(agent.slot))));
        let taken = look(&h);
        assert_eq!((taken.claims, taken.in_call), (1, true));
        assert_eq!(h.shard.take(wait), Some(agent));
        assert_eq!((h.shard.peek(wait), h.dispatch.taken_by(agent), look(&h)), (None, 0, taken));
        assert!(!seen.contains(&taken.mark), "round {round}");
        h.shard.release(agent, Release::GiveBack, &mut h.out);
        seen.extend([taken.mark, look(&h).mark]);
    }
    let (a, b) = (h.chat(SALES), h.chat(SALES));
    assert_eq!((look(&h).claims, look(&h).in_call, h.dispatch.taken_by(agent)), (2, false, 2));
    h.shard.take(a);
    h.shard.take(b);
    h.shard.release(agent, Release::ChatWrapup, &mut h.out);
    assert_eq!((look(&h).claims, look(&h).wraps), (1, true));
    let stale = AgentRef { gen_: agent.gen_ + 1, ..agent };
    assert_eq!((h.dispatch.look(stale), h.dispatch.look_at_wait(0, 1 << 20)), (None, None));
    assert_eq!((h.shard.peek(WaitRef { slot: 1 << 20, ..a }), h.shard.misses_a_call(stale)), (None, false));
}

#[test]
fn a_match_that_was_missed_is_found_and_made() {
    let mut h = House::new(ChatPolicy::Balancing);
    let (caller, chatter) = (h.agent(&[SALES], true, 0), h.agent(&[SALES], false, 1));
    h.dispatch.set_dispatching(false);
    let wait = h.call(SALES, 5);
    assert!(!h.shard.misses_a_call(caller), "nobody is matched while dispatching is off");
    // Switched on without matching all: as if that had been forgotten.
    h.dispatch.set_dispatching(true);
    assert!(h.shard.misses_a_call(caller) && !h.shard.misses_a_call(chatter));
    h.control.match_agent(chatter, &mut h.out);
    assert!(h.matches().is_empty());
    h.control.match_agent(caller, &mut h.out);
    assert_eq!(h.matches(), [Match { wait, agent: caller }]);
    assert!(!h.shard.misses_a_call(caller));
}
