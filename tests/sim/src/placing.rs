//! External dispatch: matching switched off and on, and calls placed with agents by hand, rightly and wrongly.

use crate::booked::Decided;
use crate::check::{Checked, Violation, agent_number};
use crate::plan::{self, MOST_AGENTS};
use crate::world::World;
use strowger_dispatch::{AgentState, Match};
use strowger_engine::{CallId, Control, NotPlaced, Reply};

/// What a placing must be answered, decided before it is carried out.
#[derive(Debug)]
pub(crate) struct Expected {
    id: u64,
    call: Option<u32>,
    agent: Option<u32>,
    answer: Result<(), NotPlaced>,
}

impl World {
    pub(crate) fn switch_matching(&mut self, on: bool) {
        if self.dispatch.dispatching() == on {
            return;
        }
        self.trace.note(self.now, None, None, || format!("internal dispatching {on}"));
        self.dispatch.set_dispatching(on);
        if !on {
            self.saw("matching switched off");
            return;
        }
        let mut made: Vec<Match> = Vec::new();
        self.matcher.match_all(&mut made);
        self.matcher.collect();
        for m in made {
            self.saw("matched by switching on");
            self.tell_match(m);
        }
    }

    /// A match of the control plane's own goes to the shard of its call.
    pub(crate) fn tell_match(&mut self, m: Match) {
        self.in_flight += 1;
        self.note_match(m);
        self.command(m.wait.shard, Control::Matched(vec![m]));
    }

    /// An operator, or a program, gives a call to an agent: mostly a waiting one to one who may take it.
    pub(crate) fn place_some_call(&mut self) {
        if self.dispatch.dispatching() {
            self.saw("not placed: matching is on");
            return;
        }
        let waiting_only = self.desk.chance(850);
        let calls = self.list_calls(waiting_only);
        let known = (!calls.is_empty()).then(|| self.desk.pick(&calls).id);
        let made_up = CallId { shard: self.desk.below(u64::from(self.plan.shards)) as u16, slot: 4000, generation: 1 };
        let call = known.filter(|_| !self.desk.chance(50)).unwrap_or(made_up);
        let agents = self.plan.rows.agents.len() as u64;
        let one = self.plan.rows.agents.get(self.desk.below(agents) as usize).and_then(|a| a.agentid.clone());
        let one = one.filter(|_| !self.desk.chance(100));
        let name = one.unwrap_or_else(|| plan::agent_id(self.desk.below(u64::from(MOST_AGENTS)) as u32));
        let Some(agent) = self.registry.agent(&name) else {
            self.saw("not placed: no such agent");
            return;
        };
        self.command(call.shard, Control::Place { call, agent });
    }

    /// Before a command is carried out: what the answer must be.
    pub(crate) fn foresee(&mut self, id: u64, command: &Control) {
        let Control::Place { call, agent } = command else { return };
        // Skills and agents change step by step then.
        if self.reload.is_some() || self.ledger.lost_power {
            return;
        }
        let listed = self.list_calls(false).into_iter().find(|l| l.id == *call);
        let waits = self.list_calls(true).iter().any(|l| l.id == *call);
        let def = self.registry.current().agent(*agent).cloned();
        let answer = match (self.dispatch.agent(*agent), &listed, &def) {
            (None, _, _) | (_, _, None) => Err(NotPlaced::NoAgent),
            (Some(v), _, _) if !v.logged_in => Err(NotPlaced::NotLoggedIn),
            (_, None, _) => Err(NotPlaced::NoCall),
            (_, Some(_), _) if !waits => Err(NotPlaced::NotQueued),
            (Some(v), _, _) if v.retired => Err(NotPlaced::NoAgent),
            (_, Some(l), Some(d)) if !d.skills.contains(&l.flow.skill) => Err(NotPlaced::NoSkill),
            (Some(v), Some(l), Some(d)) if l.chat => {
                // How long a pause runs is not told.
                if self.now <= self.ledger.agents[agent_number(&d.agentid) as usize].paused_last {
                    return;
                }
                let used = v.chats_open + u8::from(v.slot_withheld);
                let room = v.state == AgentState::InChat && used < v.chat_slots;
                let free = v.state == AgentState::Free && v.chat_slots > 0;
                if free || room { Ok(()) } else { Err(NotPlaced::NotFreeChat) }
            }
            (Some(v), _, Some(d)) if v.state != AgentState::Free || d.location.is_none() => {
                Err(NotPlaced::NotFreeAudio)
            }
            _ => Ok(()),
        };
        let n = def.map(|d| agent_number(&d.agentid));
        self.foreseen = Some(Expected { id, call: listed.map(|l| l.call), agent: n, answer });
    }

    pub(crate) fn placing_is_right(&mut self, id: u64, reply: &Reply) -> Checked {
        let answer = match reply {
            Reply::Done => Ok(()),
            Reply::NotPlaced(why) => Err(*why),
            _ => return Ok(()),
        };
        if let Err(why) = answer {
            self.saw("refused by hand");
            self.saw(match why {
                NotPlaced::NoAgent => "not placed: no such agent",
                NotPlaced::NotLoggedIn => "not placed: not logged in",
                NotPlaced::NoCall => "not placed: no such call",
                NotPlaced::NotQueued => "not placed: does not wait",
                NotPlaced::NoSkill => "not placed: no skill",
                NotPlaced::NotFreeAudio => "not placed: not free for audio",
                NotPlaced::NotFreeChat => "not placed: not free for chat",
                NotPlaced::UnsupportedMedia => "not placed: unsupported media",
            });
        }
        let Some(e) = self.foreseen.take().filter(|e| e.id == id) else { return Ok(()) };
        if e.answer.is_ok() && answer.is_ok() {
            self.saw("placed by hand");
        }
        let damaged = e.call.is_some_and(|n| self.ledger.damaged[n as usize]);
        if e.answer != answer && !(damaged && answer == Err(NotPlaced::UnsupportedMedia)) {
            let what = format!("placing was answered {answer:?}, ought to be {:?}", e.answer);
            return Err(Violation { what, call: e.call, agent: e.agent });
        }
        Ok(())
    }

    /// An agent was matched with a call of another shard, or by the control plane: the order of service was decided now.
    pub(crate) fn note_match(&mut self, m: Match) {
        let view = self.dispatch.agent(m.agent);
        let beside = view.map_or(0, |v| usize::from(v.chats_open.saturating_sub(1)));
        // A reload may have brought the agent in this moment, and the next one may take its slots before anybody looks.
        let Some(n) = self.registry.current().agent(m.agent).map(|def| agent_number(&def.agentid)) else { return };
        let booked = &mut self.ledger.agents[n as usize];
        booked.is_known_as(m.agent);
        booked.slots = booked.slots.max(view.map_or(0, |v| v.chat_slots));
        booked.pending.push((m.wait, Decided { at: self.now, beside }));
    }

    /// Such a match has come to its call.
    pub(crate) fn match_comes(&mut self, m: Match) {
        self.in_flight -= 1;
        let Some(booked) = self.ledger.agents.iter_mut().find(|b| b.known_as == Some(m.agent)) else { return };
        let Some(at) = booked.pending.iter().position(|(wait, _)| *wait == m.wait) else { return };
        booked.decided = Some(booked.pending.remove(at).1);
    }
}
