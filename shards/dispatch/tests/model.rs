//! The dispatch against a model that anybody can read: lists, scanned from the front. One operation at a time, so the order must be exact:
//! who gets what, and when.
#![cfg(not(any(loom, shuttle)))]

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};
use strowger_dispatch::*;

const SKILLS: u32 = 3;
const SLOTS: usize = 4;

/// Indices are taken modulo what there is.
#[derive(Clone, Debug)]
enum Op {
    Add {
        skills: Vec<u32>,
        audio: bool,
        chats: u8,
    },
    Update {
        agent: usize,
        skills: Vec<u32>,
        audio: bool,
        chats: u8,
    },
    Retire(usize),
    Login(usize),
    Logout(usize),
    BeginWrapup(usize),
    WrapupOver(usize),
    PauseOver(usize),
    Withhold(usize, bool),
    /// Of an audio call, or of a chat.
    Reclaim(usize, bool),
    Wait {
        chat: bool,
        skill: u32,
        priority: u32,
        refused: Option<usize>,
    },
    /// A call that was taken comes back with its ticket, refused by its agent.
    Return(usize, Release),
    Abandon(usize),
    Release(usize, Release),
    Dispatching(bool),
}

fn release() -> impl Strategy<Value = Release> {
    prop_oneof![
        Just(Release::Free),
        Just(Release::GiveBack),
        Just(Release::Wrapup),
        Just(Release::Chat),
        Just(Release::ChatWrapup),
        Just(Release::ChatRefused),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let spec = || (vec(0..SKILLS, 0..4), prop::bool::weighted(0.8), 0..3_u8);
    let any = 0..1000_usize;
    prop_oneof![
        1 => spec().prop_map(|(skills, audio, chats)| Op::Add { skills, audio, chats }),
        1 => (any.clone(), spec()).prop_map(|(agent, (skills, audio, chats))| Op::Update { agent, skills, audio, chats }),
        1 => any.clone().prop_map(Op::Retire),
        3 => any.clone().prop_map(Op::Login),
        1 => any.clone().prop_map(Op::Logout),
        1 => any.clone().prop_map(Op::BeginWrapup),
        3 => any.clone().prop_map(Op::WrapupOver),
        1 => any.clone().prop_map(Op::PauseOver),
        1 => (any.clone(), prop::bool::ANY).prop_map(|(agent, pause)| Op::Withhold(agent, pause)),
        1 => (any.clone(), prop::bool::ANY).prop_map(|(agent, chat)| Op::Reclaim(agent, chat)),
        8 => (prop::bool::weighted(0.4), 0..SKILLS, 0..2_u32, prop::option::of(any.clone()))
            .prop_map(|(chat, skill, priority, refused)| Op::Wait { chat, skill, priority, refused }),
        2 => (any.clone(), release()).prop_map(|(call, how)| Op::Return(call, how)),
        3 => any.clone().prop_map(Op::Abandon),
        6 => (any, release()).prop_map(|(call, how)| Op::Release(call, how)),
        1 => prop::bool::ANY.prop_map(Op::Dispatching),
    ]
}

#[derive(Clone, Debug, Default)]
struct Agent {
    skills: Vec<u32>,
    audio: bool,
    slots: u8,
    logged_in: bool,
    retired: bool,
    in_call: bool,
    wrapup: bool,
    withheld: bool,
    chats: u8,
    order: u64,
    former: u64,
    gone: bool,
}

impl Agent {
    fn free(&self) -> bool {
        self.logged_in && !(self.retired || self.in_call || self.wrapup || self.withheld) && self.chats == 0
    }
    fn offers(&self, chat: bool) -> bool {
        match (chat, self.chats) {
            (false, _) => self.audio && self.free(),
            (true, 0) => self.slots > 0 && self.free(),
            (true, open) => {
                self.logged_in
                    && !(self.retired || self.in_call || self.wrapup)
                    && open + u8::from(self.withheld) < self.slots
            }
        }
    }
    fn state(&self) -> AgentState {
        match self {
            Agent { in_call: true, .. } => AgentState::InCall,
            Agent { chats: 1.., .. } => AgentState::InChat,
            Agent { logged_in: false, .. } => AgentState::Offline,
            a if a.wrapup || a.withheld => AgentState::Wrapup,
            _ => AgentState::Free,
        }
    }
    /// What the interface says of a release.
    fn released(&self) -> Released {
        match self.state() {
            _ if self.retired => Released::Retired,
            AgentState::Free => Released::Free,
            AgentState::InChat => Released::InChat,
            AgentState::Offline => Released::Offline,
            AgentState::Wrapup | AgentState::InCall => Released::Wrapup,
        }
    }
}

#[derive(Clone, Debug)]
struct Call {
    chat: bool,
    skill: u32,
    priority: u32,
    ticket: u64,
    refused: Vec<usize>,
    /// Waiting, or with an agent.
    agent: Option<usize>,
}

/// The model. Agents and calls are named by when they came.
#[derive(Default)]
struct Model {
    full_load: bool,
    on: bool,
    agents: Vec<Agent>,
    calls: Vec<Option<Call>>,
    clock: u64,
    matches: Vec<(usize, usize)>,
}

impl Model {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn best_call(&self, takes: impl Fn(&Call) -> bool) -> Option<usize> {
        let waiting = self.calls.iter().enumerate().filter_map(|(i, c)| Some((i, c.as_ref()?)));
        let waiting = waiting.filter(|(_, c)| c.agent.is_none() && takes(c));
        waiting.min_by_key(|(_, c)| (c.priority, c.ticket)).map(|(i, _)| i)
    }

    /// The agent takes calls while it can: the best over its skills.
    fn serve(&mut self, agent: usize) {
        while self.on {
            let a = &self.agents[agent];
            let Some(best) = self.best_call(|c| a.offers(c.chat) && a.skills.contains(&c.skill)) else { return };
            self.give(best, agent);
        }
    }

    fn give(&mut self, call: usize, agent: usize) {
        let fresh = self.tick();
        let call_entry = self.calls[call].as_mut().unwrap();
        call_entry.agent = Some(agent);
        let a = &mut self.agents[agent];
        if call_entry.chat {
            a.chats += 1;
            a.former = a.order;
            if !self.full_load {
                a.order = fresh;
            }
        } else {
            a.in_call = true;
        }
        self.matches.push((call, agent));
    }

    /// The agent for a call: who has not refused it, then (by full load) who is in chats, then who is idle for longest.
    fn agent_for(&self, call: &Call) -> Option<usize> {
        let able = self.agents.iter().enumerate();
        let able = able.filter(|(_, a)| !a.gone && a.offers(call.chat) && a.skills.contains(&call.skill));
        let key = |(i, a): &(usize, &Agent)| {
            let begun = call.chat && self.full_load && a.chats > 0;
            (call.refused.contains(i), !begun, a.order)
        };
        able.min_by_key(key).map(|(i, _)| i)
    }

    fn arrive(&mut self, call: Call) {
        self.calls.push(Some(call.clone()));
        if self.on
            && let Some(agent) = self.agent_for(&call)
        {
            self.serve(agent);
        }
    }

    fn match_all(&mut self) {
        while let Some(best) = self.best_call(|c| self.agent_for(c).is_some()) {
            let agent = self.agent_for(self.calls[best].as_ref().unwrap()).unwrap();
            self.serve(agent);
        }
    }

    /// Ends the claim of a call; false when it is not of that kind.
    fn release(&mut self, agent: usize, chat: bool, how: Release) -> bool {
        let fresh = self.tick();
        let a = &mut self.agents[agent];
        if !chat {
            match how {
                Release::Free => a.order = fresh,
                Release::GiveBack => {}
                Release::Wrapup => a.wrapup = true,
                Release::Chat | Release::ChatWrapup | Release::ChatRefused => return false,
            }
            a.in_call = false;
        } else {
            a.chats -= 1;
            match how {
                Release::GiveBack => a.order = a.former,
                Release::Wrapup | Release::ChatWrapup => a.withheld = true,
                Release::ChatRefused => (a.withheld, a.wrapup) = (true, true),
                Release::Free | Release::Chat if a.chats == 0 => a.order = fresh,
                Release::Free | Release::Chat => {}
            }
        }
        self.settle(agent);
        true
    }

    fn settle(&mut self, agent: usize) {
        let a = &mut self.agents[agent];
        if a.retired && !a.in_call && a.chats == 0 {
            a.gone = true;
        }
        self.serve(agent);
    }
}

/// Both, side by side.
struct Pair {
    model: Model,
    dispatch: Arc<Dispatch>,
    shards: [Handle; 2],
    control: Handle,
    refs: Vec<AgentRef>,
    waits: Vec<WaitRef>,
    out: Vec<Match>,
}

fn ids(skills: &[u32]) -> Vec<SkillId> {
    skills.iter().map(|&s| SkillId(s)).collect()
}

impl Pair {
    fn new(full_load: bool) -> Self {
        let limits = Limits { shards: 2, agents: 100, waiting_per_shard: 1000, skills: SKILLS };
        let policy = if full_load { ChatPolicy::FullLoad } else { ChatPolicy::Balancing };
        let dispatch = Arc::new(Dispatch::new(limits, policy));
        let shards = [dispatch.handle(0), dispatch.handle(1)];
        let model = Model { full_load, on: true, ..Model::default() };
        Self { model, shards, control: dispatch.handle(2), dispatch, refs: vec![], waits: vec![], out: vec![] }
    }

    fn pick(&self, n: usize) -> Option<usize> {
        (!self.refs.is_empty()).then(|| n % self.refs.len())
    }

    /// A call that is with an agent, or one that waits.
    fn pick_call(&self, n: usize, taken: bool) -> Option<usize> {
        let fits = |c: &Option<Call>| c.as_ref().is_some_and(|c| c.agent.is_some() == taken);
        let calls: Vec<usize> = (0..self.waits.len()).filter(|&i| fits(&self.model.calls[i])).collect();
        (!calls.is_empty()).then(|| calls[n % calls.len()])
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Add { skills, audio, chats } if self.refs.len() < SLOTS * 2 => {
                let spec = AgentSpec { skills: &ids(&skills), audio, chat_slots: chats };
                self.refs.push(self.control.add_agent(spec).unwrap());
                self.model.agents.push(Agent { skills, audio, slots: chats, ..Agent::default() });
            }
            Op::Wait { chat, skill, priority, refused } => {
                let refused = refused.and_then(|n| self.pick(n)).into_iter().collect();
                let ticket = self.dispatch.next_ticket();
                self.arrive(Call { chat, skill, priority, ticket, refused, agent: None });
            }
            Op::Return(n, how) => {
                let Some(call) = self.pick_call(n, true) else { return };
                let Call { agent, refused, .. } = self.model.calls[call].clone().unwrap();
                let mut back = self.model.calls[call].clone().unwrap();
                if self.release(call, how) {
                    back.refused = refused.into_iter().chain(agent).collect();
                    back.agent = None;
                    self.arrive(back);
                }
            }
            Op::Release(n, how) => {
                if let Some(call) = self.pick_call(n, true) {
                    self.release(call, how);
                }
            }
            Op::Abandon(n) => {
                if let Some(call) = self.pick_call(n, false) {
                    assert_eq!(self.shards[call % 2].abandon(self.waits[call]), Abandon::Left);
                    self.model.calls[call] = None;
                }
            }
            Op::Dispatching(on) => {
                self.dispatch.set_dispatching(on);
                self.model.on = on;
                if on {
                    self.control.match_all(&mut self.out);
                    self.model.match_all();
                }
            }
            other => self.apply_to_agent(other),
        }
    }

    fn apply_to_agent(&mut self, op: Op) {
        let (Op::Update { agent: n, .. }
        | Op::Retire(n)
        | Op::Login(n)
        | Op::Logout(n)
        | Op::BeginWrapup(n)
        | Op::WrapupOver(n)
        | Op::PauseOver(n)
        | Op::Withhold(n, _)
        | Op::Reclaim(n, _)) = op
        else {
            return;
        };
        let Some(which) = self.pick(n) else { return };
        let (agent, fresh) = (self.refs[which], self.model.tick());
        let a = &mut self.model.agents[which];
        let (alive, claimed) = (!a.retired && !a.gone, a.in_call || a.chats > 0);
        let (did, expected) = match op {
            Op::Update { skills, audio, chats, .. } => {
                let spec = AgentSpec { skills: &ids(&skills), audio, chat_slots: chats };
                if alive {
                    (a.skills, a.audio, a.slots) = (skills.clone(), audio, chats);
                }
                (self.control.update_agent(agent, spec, &mut self.out), alive)
            }
            Op::Retire(_) => {
                a.retired = true;
                self.control.retire_agent(agent);
                (true, true)
            }
            Op::Login(_) => {
                if alive && !a.logged_in {
                    (a.logged_in, a.order) = (true, fresh);
                }
                (self.control.login(agent, &mut self.out), alive)
            }
            Op::Logout(_) => {
                a.logged_in &= !alive;
                (self.control.logout(agent), alive)
            }
            Op::BeginWrapup(_) => {
                a.wrapup |= alive && !claimed;
                (self.control.begin_wrapup(agent), alive && !claimed)
            }
            Op::PauseOver(_) => {
                let any = !a.gone && a.wrapup && a.withheld;
                a.wrapup &= !any;
                (self.control.pause_over(agent, &mut self.out), any)
            }
            Op::Withhold(_, pause) => {
                let any = !a.gone && !a.in_call;
                a.withheld |= any;
                a.wrapup |= any && pause;
                (self.control.withhold(agent, pause), any)
            }
            Op::Reclaim(_, chat) => {
                let any = !a.gone && if chat { !a.in_call } else { !claimed };
                if any && chat {
                    (a.chats, a.order) = (a.chats + 1, fresh);
                }
                a.in_call |= any && !chat;
                let media = if chat { Media::Chat } else { Media::Audio };
                if any {
                    let refused = Vec::new();
                    let ticket = self.dispatch.next_ticket();
                    let call = Call { chat, skill: 0, priority: 0, ticket, refused, agent: Some(which) };
                    self.model.calls.push(Some(call));
                    self.waits.push(WaitRef { shard: 0, slot: u32::MAX, gen_: 0 });
                }
                (self.control.reclaim(agent, media), any)
            }
            _ => {
                let any = !a.gone && (a.wrapup || a.withheld);
                (a.wrapup, a.withheld) = (false, false);
                if any && !claimed {
                    a.order = fresh;
                }
                (self.control.wrapup_over(agent, &mut self.out), any)
            }
        };
        assert_eq!(did, expected);
        self.model.settle(which);
    }

    fn arrive(&mut self, call: Call) {
        let refused: Vec<AgentRef> = call.refused.iter().map(|&a| self.refs[a]).collect();
        let media = if call.chat { Media::Chat } else { Media::Audio };
        let (skill, priority, ticket) = (SkillId(call.skill), call.priority, call.ticket);
        let spec = WaitSpec { media, skill, priority, ticket, refused: &refused };
        let shard = &mut self.shards[self.waits.len() % 2];
        self.waits.push(shard.wait(spec, &mut self.out).unwrap());
        self.model.arrive(call);
    }

    fn release(&mut self, call: usize, how: Release) -> bool {
        let Call { chat, agent, .. } = self.model.calls[call].clone().unwrap();
        let agent = agent.unwrap();
        self.shards[call % 2].take(self.waits[call]);
        let did = self.shards[call % 2].release(self.refs[agent], how, &mut self.out);
        let mut before = Model { agents: self.model.agents.clone(), ..Model::default() };
        if !self.model.release(agent, chat, how) {
            assert_eq!(did, Released::Stale);
            return false;
        }
        before.release(agent, chat, how);
        assert_eq!(did, before.agents[agent].released());
        self.model.calls[call] = None;
        true
    }

    fn compare(&mut self) {
        self.control.take_late(&mut self.out);
        let number =
            |m: &Match| (self.waits.iter().position(|w| *w == m.wait), self.refs.iter().position(|a| *a == m.agent));
        let got: Vec<_> = self.out.iter().map(number).collect();
        let expected: Vec<_> = self.model.matches.iter().map(|&(c, a)| (Some(c), Some(a))).collect();
        assert_eq!(got, expected, "matches, in order");
        self.out.clear();
        self.model.matches.clear();
        for (agent, a) in self.refs.iter().zip(&self.model.agents) {
            let view =
                self.dispatch.agent(*agent).map(|v| (v.state, v.chats_open, v.slot_withheld, v.logged_in, v.retired));
            assert_eq!(view, (!a.gone).then(|| (a.state(), a.chats, a.withheld, a.logged_in, a.retired)));
        }
        for skill in 0..SKILLS {
            let count = |f: &dyn Fn(&Agent) -> bool| {
                self.model.agents.iter().filter(|a| a.skills.contains(&skill) && f(a)).count()
            };
            let on_duty = count(&|a| a.logged_in && !a.retired);
            let id = SkillId(skill);
            assert_eq!(
                (self.dispatch.logged_in(id), self.dispatch.free(id)),
                (on_duty as u32, count(&Agent::free) as u32)
            );
        }
        self.compare_queues();
    }

    fn compare_queues(&mut self) {
        let waiting: Vec<(usize, Call)> =
            self.model.calls.iter().enumerate().filter_map(|(i, c)| Some((i, c.clone()?))).collect();
        let waiting: Vec<_> = waiting.into_iter().filter(|(_, c)| c.agent.is_none()).collect();
        for (i, call) in &waiting {
            let before = |c: &Call| c.skill == call.skill && (c.priority, c.ticket) < (call.priority, call.ticket);
            let ahead = waiting.iter().filter(|(_, c)| before(c)).count();
            assert_eq!(self.shards[i % 2].calls_ahead(self.waits[*i]) as usize, ahead);
            assert!(self.shards[i % 2].is_waiting(self.waits[*i]));
        }
        let queued: u32 = (0..SKILLS).map(|s| self.dispatch.queue_len(SkillId(s))).sum();
        assert_eq!(queued as usize, waiting.len());
    }

    fn finish(mut self) {
        self.shards.iter_mut().chain([&mut self.control]).for_each(Handle::collect);
        assert_eq!(self.dispatch.garbage(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 1000 }))]
    #[test]
    fn does_what_the_model_does(full_load: bool, ops in vec(op(), 1..120)) {
        let mut pair = Pair::new(full_load);
        for op in ops {
            pair.apply(op);
            pair.compare();
        }
        pair.finish();
    }
}
