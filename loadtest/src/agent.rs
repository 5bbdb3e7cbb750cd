//! Agents' phones: ring, answer, refuse, ignore, hang up; and who of them is in a call, as seen on the wire.

use std::{cmp::Reverse, sync::atomic::Ordering::Relaxed, time::Duration};

use rand::RngExt;

use crate::{
    client,
    dist::Dist,
    leg::{Label, Leg, LegId, Part, Role},
    parse::{Method, Msg},
    phase::Phase,
    play::Play,
    scenario::Behaviour,
    server,
    timers::{Due, MILLIS, Nanos, T1},
};

/// A user of the agents' address.
#[derive(Debug)]
pub struct User {
    /// Its group in the scenario.
    pub plan: usize,
    /// The legs that occupy it: an audio call, or chats.
    pub legs: Vec<Occupied>,
    /// Since when it is due for a call; `None` after a rejection, when the target's rules for those decide.
    pub due: Option<Nanos>,
    /// Its own wrap-up: it refuses calls until then.
    pub unwilling_until: Nanos,
    /// Self-test: it is among the free agents.
    pub listed: bool,
}

/// When a user is free again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Freed {
    /// Due for the target's next call; `None`: the target's rules for rejections decide.
    pub due: Option<Nanos>,
    /// What of that is wrap-up.
    pub wrapup: Nanos,
    /// Refuses until then.
    pub unwilling_until: Nanos,
}

/// A leg that occupies a user.
#[derive(Debug, Clone, Copy)]
pub struct Occupied {
    pub leg: LegId,
    pub chat: bool,
}

impl User {
    /// Whether it has more than one audio call, or `chats` chats, or both kinds.
    fn is_double_booked(&self, chats: u32) -> bool {
        let talking = self.legs.iter().filter(|held| held.chat).count();
        let calls = self.legs.len() - talking;
        calls > 1 || talking > chats as usize || (calls > 0 && talking > 0)
    }
}

/// One attempt to reach an agent.
#[derive(Debug)]
pub struct Agent {
    pub user: usize,
    pub behaviour: Behaviour,
    /// The caller that it is for, by the SDP or, without one, by the From user.
    pub call: Option<LegId>,
    pub invited: Nanos,
    pub hears: Option<Label>,
    /// Occupies its user: until a refusal, a BYE or a CANCEL.
    pub holds: bool,
    /// Booked as a rejection.
    pub rejected: bool,
    /// When the user's due time was looked at: the attempt's latency is still to be recorded once the call is known.
    pub due: Option<Nanos>,
    pub hang_up_at: Option<Nanos>,
    pub confirmed: bool,
    pub hung_up: bool,
    /// Its phone has gone dead: it neither hears nor says anything.
    pub dead: bool,
}

impl Agent {
    pub fn hangs_up_early(&self) -> bool {
        matches!(self.behaviour, Behaviour::HangUp { .. })
    }

    /// How long into a talk its phone goes dead, if it does.
    pub fn dies_after(&self) -> Option<Dist> {
        match self.behaviour {
            Behaviour::Abandon { after, .. } => Some(after),
            _ => None,
        }
    }
}

/// How long the end of an agent's last call may be on its way when the next INVITE comes.
const IN_FLIGHT: Nanos = 100 * MILLIS;

impl Play {
    pub fn new_agent(&mut self, user: usize, call: Option<LegId>) -> Agent {
        Agent {
            user,
            behaviour: self.draw_behaviour(user),
            call,
            invited: self.cx.heard,
            hears: None,
            holds: true,
            rejected: false,
            due: None,
            hang_up_at: None,
            confirmed: false,
            hung_up: false,
            dead: false,
        }
    }

    fn draw_behaviour(&mut self, user: usize) -> Behaviour {
        let behaviours = &self.scenario.agents[self.users[user].plan].behaviours;
        let mut draw = self.cx.rng.random::<f64>() * behaviours.iter().map(|(weight, _)| weight).sum::<f64>();
        let drawn = behaviours.iter().find(|(weight, _)| {
            draw -= weight;
            draw < 0.0
        });
        // A validated plan has a behaviour; rounding may leave the draw just above the sum.
        drawn.or(behaviours.last()).map_or(Behaviour::Ignore, |(_, behaviour)| *behaviour)
    }

    /// Self-test: a free agent to dial, or, when all are taken, any.
    pub fn pick_agent(&mut self) -> String {
        while let Some(&Reverse((at, user))) = self.free_agents.peek().filter(|Reverse((at, _))| *at <= self.cx.now) {
            self.free_agents.pop();
            self.users[user].listed = false;
            if self.users[user].legs.is_empty() && self.users[user].unwilling_until <= at {
                return self.names[user].clone();
            }
        }
        let user = self.next_agent % self.users.len().max(1);
        self.next_agent = user + 1;
        self.names.get(user).cloned().unwrap_or_default()
    }

    fn list_as_free(&mut self, user: usize, at: Nanos) {
        if self.scenario.loopback && !std::mem::replace(&mut self.users[user].listed, true) {
            self.free_agents.push(Reverse((at, user)));
        }
    }

    /// An INVITE came for an agent. (A refused or cancelled one is over when its ACK comes.)
    pub fn agent_invited(&mut self, id: LegId) {
        let now = self.cx.now;
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Part::Agent(agent) = &mut leg.part else { return };
        let user = &mut self.users[agent.user];
        if self.scenario.loopback && !user.legs.is_empty() {
            agent.holds = false;
            self.open_gauges(1, 0);
            return self.agent_refuses(id, 486);
        }
        self.cx.books.report.agent_invites += 1;
        let unwilling = now < user.unwilling_until;
        if unwilling {
            agent.behaviour = Behaviour::Refuse { code: 486, ring: Dist::Fixed(Duration::ZERO) };
        }
        agent.due = if user.legs.is_empty() && !unwilling { user.due } else { None };
        user.legs.push(Occupied { leg: id, chat: leg.chat });
        let overlaps = user.is_double_booked(self.scenario.agents[user.plan].chats);
        let behaviour = agent.behaviour;
        server::answer(leg, &mut self.cx, 180, false);
        if overlaps {
            // A lost datagram comes again after T1 and twice T1.
            let grace = if self.scenario.loss > 0.0 { 8 * T1 } else { IN_FLIGHT };
            self.cx.timers.set(now, grace, id, Due::Overlap);
        }
        if let Behaviour::Answer { ring }
        | Behaviour::Refuse { ring, .. }
        | Behaviour::HangUp { ring, .. }
        | Behaviour::Abandon { ring, .. } = behaviour
        {
            let ring = ring.sample(&mut self.cx.rng).as_nanos() as Nanos;
            self.cx.timers.set(now, ring, id, Due::Ring);
        }
        self.open_gauges(1, 1);
        self.call_known(id);
    }

    fn open_gauges(&self, busy: i64, ringing: i64) {
        self.cx.live.agents_busy.fetch_add(busy, Relaxed);
        self.cx.live.ringing.fetch_add(ringing, Relaxed);
    }

    /// The caller of an attempt is known: its dispatch latency can be told, and an early BYE before it was a rejection.
    fn call_known(&mut self, id: LegId) {
        let Some(agent) = self.legs.get_mut(id).and_then(Leg::agent) else { return };
        let (Some(call), due, invited) = (agent.call, agent.due.take(), agent.invited) else { return };
        if self.caller(call).is_some_and(|caller| caller.left_by.is_some_and(|(left, _)| left != id)) {
            self.rejection_settled(call);
        }
        let Some(Leg { over: false, part: Part::Caller(caller), .. }) = self.legs.get(call) else { return };
        let Some(due) = due else { return };
        let ready = caller.ready;
        if due > ready {
            self.cx.books.record(Phase::FreeToInvite, invited.saturating_sub(due));
        } else {
            self.cx.books.record(Phase::ArrivalToInvite, invited.saturating_sub(ready));
        }
    }

    /// The agent got a session description.
    pub fn agent_hears(&mut self, id: LegId, label: Label) {
        let Some(agent) = self.legs.get_mut(id).and_then(Leg::agent) else { return };
        agent.hears = Some(label);
        if label.role != Role::Caller {
            return;
        }
        let known = agent.call.replace(label.id);
        if known.is_none() {
            self.call_known(id);
        }
        if self.caller(label.id).is_some_and(|caller| caller.hears.is_some_and(|heard| heard.id == id)) {
            self.pair(label.id, id);
        }
    }

    /// Timer: the phone was picked up, or the call declined.
    pub fn ring_over(&mut self, id: LegId) {
        let Some(leg) = self.legs.get_mut(id).filter(|leg| !leg.over) else { return };
        if leg.incoming.as_ref().is_none_or(|incoming| incoming.code >= 200) {
            return;
        }
        let Part::Agent(agent) = &leg.part else { return };
        match agent.behaviour {
            Behaviour::Refuse { code, .. } => {
                self.cx.live.ringing.fetch_sub(1, Relaxed);
                self.agent_refuses(id, code);
            }
            Behaviour::Answer { .. } | Behaviour::HangUp { .. } | Behaviour::Abandon { .. } => {
                self.cx.live.ringing.fetch_sub(1, Relaxed);
                server::answer(leg, &mut self.cx, 200, true);
            }
            Behaviour::Ignore => {}
        }
    }

    fn agent_refuses(&mut self, id: LegId, code: u16) {
        let now = self.cx.now;
        let Some(leg) = self.legs.get_mut(id) else { return };
        server::answer(leg, &mut self.cx, code, false);
        let Part::Agent(agent) = &mut leg.part else { return };
        let call = agent.call;
        if !self.scenario.loopback {
            agent.rejected = true;
            self.cx.books.rejected(&self.cx.live, call);
            if let Some(caller) = call.and_then(|call| self.caller(call)) {
                caller.ready = now;
            }
        }
        self.release(id, Freed::default());
    }

    /// The agent's user is free again from this leg.
    pub fn release(&mut self, id: LegId, freed: Freed) {
        let Some(agent) = self.legs.get_mut(id).and_then(Leg::agent) else { return };
        if !std::mem::replace(&mut agent.holds, false) {
            return;
        }
        let number = agent.user;
        let user = &mut self.users[number];
        if let Some(at) = user.legs.iter().position(|held| held.leg == id) {
            let held = user.legs.swap_remove(at);
            // Wrap-ups of chats add up and withhold a slot: the target's rules decide.
            user.due = freed.due.filter(|_| !held.chat);
            user.unwilling_until = user.unwilling_until.max(freed.unwilling_until);
            let at = user.unwilling_until;
            self.list_as_free(number, at);
        }
    }

    /// When a user is free again whose talk ended `at`.
    fn after_talk(&mut self, at: Nanos) -> Freed {
        let own = self.scenario.after_call.map_or(0, |dist| dist.sample(&mut self.cx.rng).as_nanos() as Nanos);
        let wrapup = own.max(self.scenario.wrapup.as_nanos() as Nanos);
        Freed { due: Some(at + wrapup), wrapup, unwilling_until: if own > 0 { self.cx.now + own } else { 0 } }
    }

    /// Timer: what stood in the way of this leg must be gone, or its user was booked twice.
    pub fn overlap_over(&mut self, id: LegId) {
        let Some(Leg { part: Part::Agent(agent), .. }) = self.legs.get(id) else { return };
        let user = &self.users[agent.user];
        let held = user.legs.iter().any(|held| held.leg == id);
        if held && user.is_double_booked(self.scenario.agents[user.plan].chats) {
            self.cx.books.report.double_bookings += 1;
        }
    }

    /// The ACK came: the talk can begin.
    pub fn agent_confirmed(&mut self, id: LegId) {
        let now = self.cx.now;
        let limit = self.scenario.bridge_limit.as_nanos() as Nanos;
        let Some(agent) = self.legs.get_mut(id).and_then(Leg::agent) else { return };
        if std::mem::replace(&mut agent.confirmed, true) {
            return;
        }
        if agent.call.is_none() && !self.scenario.callers {
            return self.plan_with_stranger(id);
        }
        if agent.hang_up_at.is_some_and(|at| at <= now) {
            // The talk was over before a lost ACK came again.
            return self.agent_hangs_up(id);
        }
        if let Behaviour::HangUp { after, .. } = agent.behaviour {
            let after = after.sample(&mut self.cx.rng).as_nanos() as Nanos;
            agent.hang_up_at = Some(now + after);
            self.cx.timers.set(now, after, id, Due::HangUp);
        } else {
            self.cx.timers.set(now, limit, id, Due::Bridge);
        }
    }

    /// Somebody else's caller: the agent hangs up after the talk, unless it is the caller's turn.
    fn plan_with_stranger(&mut self, id: LegId) {
        let now = self.cx.now;
        let talk = self.scenario.talk.sample(&mut self.cx.rng).as_nanos() as Nanos;
        let by_caller = self.cx.chance(self.scenario.caller_hangs_up);
        let Some(agent) = self.legs.get_mut(id).and_then(Leg::agent) else { return };
        let after = match agent.behaviour {
            Behaviour::HangUp { after, .. } => after.sample(&mut self.cx.rng).as_nanos() as Nanos,
            Behaviour::Abandon { after, .. } => {
                let after = after.sample(&mut self.cx.rng).as_nanos() as Nanos;
                return self.cx.timers.set(now, after, id, Due::Death);
            }
            _ if by_caller => return,
            _ => talk,
        };
        agent.hang_up_at = Some(now + after);
        self.cx.timers.set(now, after, id, Due::HangUp);
    }

    /// Timer: the phone goes dead.
    pub fn agent_dies(&mut self, id: LegId) {
        if let Some(agent) = self.legs.get_mut(id).filter(|leg| !leg.over).and_then(Leg::agent) {
            agent.dead |= !agent.hung_up;
        }
    }

    /// Whether this leg's phone is dead.
    pub fn is_dead(&self, id: LegId) -> bool {
        matches!(self.legs.get(id), Some(Leg { part: Part::Agent(Agent { dead: true, .. }), .. }))
    }

    /// A request came for a dead phone, which does not answer; a BYE frees its user all the same.
    pub fn dead_agent_got(&mut self, id: LegId, method: Method) {
        if method == Method::Bye {
            self.release(id, Freed::default());
            self.agent_over(id);
        }
    }

    /// Timer: agent and caller should hear each other by now.
    pub fn agent_bridge_limit(&mut self, id: LegId) {
        let Some(Leg { over: false, part: Part::Agent(agent), .. }) = self.legs.get(id) else { return };
        let hears_a_message = agent.hears.is_some_and(|label| label.role == Role::Media);
        let Some(call) = agent.call.filter(|_| !agent.hung_up && !hears_a_message) else { return };
        let talks = self.caller(call).is_some_and(|caller| caller.talks_with == Some(id) || caller.left);
        if !talks && !self.caller_left(call) {
            self.fail(call, "agent answered, and the caller never got the agent's SDP");
            self.agent_hangs_up(id);
        }
    }

    /// The agent hangs up.
    pub fn agent_hangs_up(&mut self, id: LegId) {
        let now = self.cx.now;
        let freed = self.after_talk(now);
        let Some(leg) = self.legs.get_mut(id).filter(|leg| !leg.over) else { return };
        let Part::Agent(agent) = &mut leg.part else { return };
        if !agent.confirmed || std::mem::replace(&mut agent.hung_up, true) {
            return;
        }
        let call = agent.call;
        let (user, early) = (agent.user, agent.hangs_up_early());
        client::bye(leg, &mut self.cx);
        self.release(id, if early { Freed::default() } else { freed });
        self.leaving.push((user, freed.wrapup));
        let Some(call) = call.filter(|call| !self.caller_left(*call)) else { return };
        if let Some(caller) = self.caller(call)
            && caller.talks_with.is_none_or(|agent| agent == id)
        {
            caller.left_by = Some((id, now));
            self.unpair(call);
        }
    }

    /// What agents have sent goes out at that time: whose last BYE it was is free from then on, not from when it was written.
    pub fn agents_left(&mut self, at: Nanos) {
        for (user, wrapup) in self.leaving.drain(..) {
            if let Some(due) = &mut self.users[user].due {
                *due = (*due).max(at + wrapup);
            }
        }
    }

    /// The target sent BYE to the agent.
    pub fn agent_got_bye(&mut self, id: LegId, msg: &Msg<'_>) {
        let freed = self.after_talk(self.cx.heard);
        let Some(Leg { part: Part::Agent(agent), .. }) = self.legs.get(id) else { return };
        let (call, hung_up) = (agent.call, agent.hung_up);
        if let Some(call) = call.filter(|call| !hung_up && !self.caller_left(*call)) {
            if self.caller(call).is_some_and(|caller| caller.talks_with == Some(id)) {
                self.fail(call, "target hung up on the agent of a talk that nobody had ended");
            } else {
                self.cx.books.unexpected("target hung up on an agent whose caller waits", msg.raw);
            }
        }
        self.release(id, freed);
        if !hung_up {
            self.agent_over(id);
        }
    }

    /// The target cancelled the attempt.
    pub fn agent_cancelled(&mut self, id: LegId) {
        let now = self.cx.now;
        let Some(leg) = self.legs.get_mut(id) else { return };
        let code = leg.incoming.as_ref().map_or(0, |incoming| incoming.code);
        let Part::Agent(agent) = &mut leg.part else { return };
        let (call, ignores) = (agent.call, matches!(agent.behaviour, Behaviour::Ignore));
        let was_rejected = std::mem::replace(&mut agent.rejected, false);
        let caller_left = call.map_or(!ignores, |call| self.caller_left(call));
        if code >= 300 && was_rejected {
            // Our refusal crossed it. The caller's leaving came first, unless the target gave up ringing.
            match caller_left {
                true => self.cx.books.not_rejected(&self.cx.live, call),
                false => self.restore_rejected(id),
            }
        }
        if code >= 200 {
            return;
        }
        if let Some(leg) = self.legs.get_mut(id) {
            server::answer(leg, &mut self.cx, 487, false);
        }
        self.cx.live.ringing.fetch_sub(1, Relaxed);
        if !caller_left {
            self.cx.books.rejected(&self.cx.live, call);
            if let Some(caller) = call.and_then(|call| self.caller(call)) {
                caller.ready = now;
            }
        }
        self.release(id, Freed { due: caller_left.then_some(self.cx.heard), ..Freed::default() });
    }

    fn restore_rejected(&mut self, id: LegId) {
        if let Some(agent) = self.legs.get_mut(id).and_then(Leg::agent) {
            agent.rejected = true;
        }
    }

    /// Timer: no answer to our BYE, or no ACK to our answer.
    pub fn agent_gave_up(&mut self, id: LegId, due: Due) {
        let Some(leg) = self.legs.get_mut(id).filter(|leg| !leg.over) else { return };
        let Part::Agent(agent) = &mut leg.part else { return };
        let call = agent.call;
        let code = leg.incoming.as_ref().map_or(0, |incoming| incoming.code);
        let kind = match due {
            Due::Ack(_) if code >= 300 => "no ACK to an agent's refusal within 64*T1",
            Due::Ack(_) => "no ACK to an agent's 200 within 64*T1",
            _ => "no answer to an agent's BYE within 64*T1",
        };
        let call_id = leg.call_id.clone();
        self.cx.books.unexpected(kind, &call_id);
        if matches!(due, Due::Ack(_)) && code < 300 {
            // Section 13.3.1.4: the dialog stands, and should be ended with BYE.
            agent.confirmed = true;
            if let Some(call) = call {
                self.fail(call, kind);
            }
            return self.agent_hangs_up(id);
        }
        self.release(id, Freed::default());
        self.agent_over(id);
    }

    pub fn agent_over(&mut self, id: LegId) {
        if self.over(id) {
            self.cx.live.agents_busy.fetch_sub(1, Relaxed);
        }
    }
}
