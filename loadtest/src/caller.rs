//! Callers: dial a flow, wait, hear who answers, talk, leave; and the booking of each call's end.

use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};

use rand::RngExt;

use crate::{
    client::{self, Answer},
    leg::{Label, Leg, LegId, Part, Role},
    parse::Msg,
    phase::Phase,
    play::Play,
    report::Outcome,
    template::host_text,
    timers::{Due, MILLIS, Nanos, T1},
};

/// A call, as its caller lives it.
#[derive(Debug, Default)]
pub struct Caller {
    /// When the INVITE should have been sent.
    pub intended: Nanos,
    /// `Live::epoch` then.
    pub epoch: usize,
    /// Since when the call is ready for an agent: its start, the end of a welcome, the last rejection.
    pub ready: Nanos,
    pub without_sdp: bool,
    /// How long it talks, and whether it is the one to hang up then.
    pub talk: Nanos,
    pub hangs_up: bool,
    /// Got a 180 or 183.
    pub rang: bool,
    /// Got a 2xx: the dialog stands.
    pub established: bool,
    /// Whose session description came last.
    pub hears: Option<Label>,
    /// In talk: this agent and the caller hear each other. In a direct call, where the target is the agent: itself.
    pub talks_with: Option<LegId>,
    /// The agent who hung up, and when, while what the target makes of it is not known yet: the end of the call or, in
    /// the first moments, a rejection.
    pub left_by: Option<(LegId, Nanos)>,
    /// Timer of the talk that this side ends; an older one is void.
    pub hang_up_at: Option<Nanos>,
    /// Wants to leave, or has left.
    pub impatient: bool,
    /// BYE or CANCEL was sent (or waits for the first provisional answer).
    pub left: bool,
    /// Hears an agent who must hear it by then.
    pub bridge_by: Option<Nanos>,
    pub failed: bool,
}

/// How a caller's leg ended on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// Its BYE was answered, or it got 487 after its CANCEL.
    Left,
    /// The target sent BYE.
    HungUpOn,
    Refused(u16),
    /// Something that [`Play::fail`] has noted.
    Broken,
}

/// A talk that an agent ends is at least this much longer than the target's `min_talk`, which it counts from the bridge.
const MIN_TALK_MARGIN: Nanos = 250 * MILLIS;
/// An impatient caller whose agent just hung up looks again after this time.
const SECOND_THOUGHT: Nanos = 200 * MILLIS;

/// Where a call goes.
struct Destination {
    host: String,
    user: String,
    chat: bool,
    peer: SocketAddr,
}

impl Play {
    /// A call arrives: it should have been sent at `intended`.
    pub fn call(&mut self, intended: Nanos, flow: Option<&str>) {
        let lag = self.cx.now.saturating_sub(intended);
        let books = &mut self.cx.books;
        books.report.offered += 1;
        books.report.latest_arrival_us = books.report.latest_arrival_us.max(lag / 1000);
        books.interval.late = books.interval.late.max(Duration::from_nanos(lag));
        self.cx.live.offered.fetch_add(1, Relaxed);
        self.cx.live.waiting.fetch_add(1, Relaxed);
        let without_sdp = self.cx.call_chance(self.scenario.sdp_less);
        let hangs_up = self.cx.call_chance(self.scenario.caller_hangs_up);
        let talk = self.scenario.talk.sample(&mut self.cx.calls).as_nanos() as Nanos;
        let epoch = self.cx.live.epoch.load(Relaxed);
        let caller = Caller { intended, epoch, ready: intended, without_sdp, talk, hangs_up, ..Default::default() };
        let Destination { host, user, chat, peer } = self.pick_destination(flow);
        let id = self.legs.next_id();
        let mut leg = self.new_caller_leg(id, caller);
        leg.chat = chat;
        leg.target = format!("sip:{user}@{host}").into_bytes();
        leg.remote = format!("<sip:{user}@{host}>").into_bytes();
        leg.peer = peer;
        client::invite(&mut leg, &mut self.cx, !without_sdp, intended);
        self.legs.insert(leg);
        self.open[Role::Caller as usize] += 1;
        if let Some(patience) = self.scenario.patience.clone()
            && self.cx.call_chance(patience.share)
        {
            let after = patience.after.sample(&mut self.cx.calls).as_nanos() as Nanos;
            self.cx.timers.set(self.cx.now, after, id, Due::Patience);
        }
    }

    fn pick_destination(&mut self, listed: Option<&str>) -> Destination {
        if self.scenario.loopback {
            let address = self.cx.locals[self.socket_of(Role::Agent)];
            return Destination { host: address.to_string(), user: self.pick_agent(), chat: false, peer: address };
        }
        let peer = self.scenario.target;
        if let Some(user) = listed {
            let chat = self.scenario.flows.iter().any(|flow| flow.chat && flow.name == user);
            return Destination { host: peer.to_string(), user: user.to_owned(), chat, peer };
        }
        let total: f64 = self.scenario.flows.iter().map(|flow| flow.weight).sum();
        let mut draw = self.cx.calls.random::<f64>() * total;
        let drawn = self.scenario.flows.iter().find(|flow| {
            draw -= flow.weight;
            draw < 0.0
        });
        // Rounding may leave the draw just above the sum.
        let flow = drawn.or(self.scenario.flows.last());
        let (user, chat) = flow.map_or((String::new(), false), |flow| (flow.name.clone(), flow.chat));
        Destination { host: peer.to_string(), user, chat, peer }
    }

    /// A caller's Call-ID.
    pub fn call_id(&self, id: LegId) -> String {
        let mut tag = Vec::with_capacity(40);
        self.cx.write_tag(Label { role: Role::Caller, id }, &mut tag);
        String::from_utf8_lossy(&tag).into_owned() + "@loadtest"
    }

    fn new_caller_leg(&self, id: LegId, caller: Caller) -> Leg {
        let socket = self.socket_of(Role::Caller);
        let local_address = self.cx.locals[socket];
        let label = Label { role: Role::Caller, id };
        let mut tag = Vec::with_capacity(24);
        self.cx.write_tag(label, &mut tag);
        let mut user = Vec::with_capacity(12);
        label.write(&mut user);
        let mut local = b"<sip:".to_vec();
        local.extend_from_slice(&user);
        local.extend_from_slice(format!("@{}>;tag=", host_text(local_address)).as_bytes());
        local.extend_from_slice(&tag);
        let mut contact = b"sip:".to_vec();
        contact.extend_from_slice(&user);
        contact.extend_from_slice(format!("@{local_address}").as_bytes());
        let call_id = self.call_id(id).into_bytes();
        let mut leg = Leg::new(id, Part::Caller(caller), socket, call_id.into(), local_address);
        leg.local = local;
        leg.contact = contact;
        leg
    }

    /// An answer to a caller's INVITE.
    pub fn caller_answered(&mut self, id: LegId, code: u16, msg: &Msg<'_>, source: SocketAddr) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let cx = &mut self.cx;
        let answer = client::invite_answered(leg, cx, code, msg);
        let Part::Caller(caller) = &mut leg.part else { return };
        match answer {
            Answer::Absorbed => {}
            Answer::Provisional(code) => {
                if matches!(code, 180 | 183) && !std::mem::replace(&mut caller.rang, true) {
                    let since = cx.heard.saturating_sub(caller.intended);
                    cx.books.record(Phase::Ringing, since);
                }
                if caller.left && leg.request.is_none() {
                    client::cancel(leg, cx);
                }
            }
            Answer::Final(200..300) => {
                caller.established = true;
                let (left, without_sdp) = (caller.left, caller.without_sdp);
                let since = cx.heard.saturating_sub(caller.intended);
                cx.books.record(Phase::Setup, since);
                if cx.live.epoch.load(Relaxed) == caller.epoch {
                    cx.books.interval.histograms.set_up_in(caller.epoch, since);
                }
                client::confirm(leg, cx, msg, source);
                client::ack(leg, cx, without_sdp);
                if self.scenario.direct {
                    self.talks_directly(id);
                }
                self.hears(id, msg);
                let by_media =
                    self.caller(id).is_some_and(|caller| caller.hears.is_some_and(|label| label.role == Role::Media));
                if by_media {
                    self.cx.books.record(Phase::QueueSetup, since);
                }
                if left && let Some(leg) = self.legs.get_mut(id) {
                    // The 200 crossed our CANCEL (section 9.1): the caller has left all the same.
                    client::bye(leg, &mut self.cx);
                }
            }
            Answer::Final(code) => {
                let end = if code == 487 && caller.left { CallEnd::Left } else { CallEnd::Refused(code) };
                client::ack_refusal(leg, cx, msg);
                self.call_over(id, end);
            }
        }
    }

    /// A call that has not ended.
    pub fn caller(&mut self, id: LegId) -> Option<&mut Caller> {
        self.legs.get_mut(id).filter(|leg| !leg.over)?.caller()
    }

    /// Whether this caller has left or is gone: then its agent's release is no rejection.
    pub fn caller_left(&self, id: LegId) -> bool {
        match self.legs.get(id) {
            Some(Leg { over: false, part: Part::Caller(caller), .. }) => caller.left,
            _ => true,
        }
    }

    /// The caller got a session description of `label`.
    pub fn caller_hears(&mut self, id: LegId, label: Label) {
        let Some(caller) = self.caller(id) else { return };
        caller.hears = Some(label);
        if caller.left_by.is_some_and(|(agent, _)| agent == label.id) {
            return;
        }
        self.rejection_settled(id);
        match label.role {
            Role::Caller => self.fail(id, "caller was connected to another caller"),
            Role::Media => {
                self.unpair(id);
                match self.legs.get(label.id).map(|leg| &leg.part) {
                    Some(Part::Media(media)) if media.hears.is_some_and(|heard| heard.id != id) => {
                        self.fail(id, "caller hears a media leg that hears somebody else");
                    }
                    _ => {}
                }
                self.reconsider(id);
            }
            Role::Agent => {
                let (now, limit) = (self.cx.now, self.scenario.bridge_limit.as_nanos() as Nanos);
                if let Some(caller) = self.caller(id).filter(|caller| caller.talks_with != Some(label.id)) {
                    caller.bridge_by = Some(now + limit);
                    self.cx.timers.set(now, limit, id, Due::Bridge);
                }
                self.pair(id, label.id);
            }
        }
    }

    /// Caller and agent talk, once each has the other's session description.
    pub fn pair(&mut self, id: LegId, agent_id: LegId) {
        let Some(Leg { over: false, part: Part::Agent(agent), .. }) = self.legs.get(agent_id) else { return };
        match agent.hears {
            Some(Label { role: Role::Caller, id: heard }) if heard == id => {}
            Some(Label { role: Role::Caller, .. }) => {
                return self.fail(id, "caller hears an agent who hears another caller");
            }
            _ => return,
        }
        let (early, dies) = (agent.hangs_up_early(), agent.dies_after());
        let now = self.cx.now;
        let Some(caller) = self.caller(id) else { return };
        if caller.talks_with == Some(agent_id) || caller.left_by.is_some_and(|(left, _)| left == agent_id) {
            return;
        }
        let first = caller.talks_with.replace(agent_id).is_none();
        caller.bridge_by = None;
        let waited = now.saturating_sub(caller.intended);
        if first {
            self.cx.live.waiting.fetch_sub(1, Relaxed);
            self.cx.live.talking.fetch_add(1, Relaxed);
            self.cx.books.record(Phase::Wait, waited);
        }
        if let Some(after) = dies {
            let after = after.sample(&mut self.cx.rng).as_nanos() as Nanos;
            self.cx.timers.set(now, after, agent_id, Due::Death);
        }
        if !early {
            self.plan_end_of_talk(id, agent_id, dies.is_some());
        }
    }

    /// A target that answers by itself did: the caller hangs up after the talk, unless the target does before.
    fn talks_directly(&mut self, id: LegId) {
        let now = self.cx.now;
        let Some(caller) = self.caller(id).filter(|caller| !caller.left) else { return };
        let talk = caller.talk;
        caller.talks_with = Some(id);
        caller.hang_up_at = Some(now + talk);
        let waited = now.saturating_sub(caller.intended);
        self.cx.live.waiting.fetch_sub(1, Relaxed);
        self.cx.live.talking.fetch_add(1, Relaxed);
        self.cx.books.record(Phase::Wait, waited);
        self.cx.timers.set(now, talk, id, Due::HangUp);
    }

    fn plan_end_of_talk(&mut self, id: LegId, agent_id: LegId, agent_dies: bool) {
        let now = self.cx.now;
        let least = self.scenario.min_talk.as_nanos() as Nanos + MIN_TALK_MARGIN;
        let Some(caller) = self.caller(id) else { return };
        let talk = caller.talk;
        let by_caller = talk < least || agent_dies || caller.hangs_up;
        let at = now + talk;
        if by_caller {
            if let Some(caller) = self.caller(id) {
                caller.hang_up_at = Some(at);
            }
        } else if let Some(agent) = self.legs.get_mut(agent_id).and_then(Leg::agent) {
            agent.hang_up_at = Some(at);
        }
        self.cx.timers.set(now, talk, if by_caller { id } else { agent_id }, Due::HangUp);
    }

    /// The talk is over for the caller, who stays in the call.
    pub fn unpair(&mut self, id: LegId) {
        let Some(caller) = self.caller(id) else { return };
        caller.hang_up_at = None;
        caller.bridge_by = None;
        if caller.talks_with.take().is_some() {
            self.cx.live.talking.fetch_sub(1, Relaxed);
            self.cx.live.waiting.fetch_add(1, Relaxed);
        }
    }

    /// The target carried on after an agent's early BYE: it counts as a rejection.
    pub fn rejection_settled(&mut self, id: LegId) {
        let Some(caller) = self.caller(id) else { return };
        if let Some((_, when)) = caller.left_by.take() {
            caller.ready = when;
            self.cx.books.rejected(&self.cx.live, Some(id));
        }
    }

    /// An impatient caller who is back in the queue leaves.
    fn reconsider(&mut self, id: LegId) {
        if self.caller(id).is_some_and(|caller| caller.impatient && !caller.left) {
            self.leave(id);
        }
    }

    /// Timer: patience is over.
    pub fn patience_over(&mut self, id: LegId) {
        let now = self.cx.now;
        let Some(caller) = self.caller(id) else { return };
        caller.impatient = true;
        if let Some((_, when)) = caller.left_by {
            // A moment for the target to say what the agent's BYE means; past that, there is nothing to wait for.
            if now < when + 10 * SECOND_THOUGHT {
                self.cx.timers.set(now, SECOND_THOUGHT, id, Due::Patience);
                return;
            }
        }
        if caller.talks_with.is_none() {
            self.leave(id);
        }
    }

    /// Timer: caller and agent should hear each other by now.
    pub fn caller_bridge_limit(&mut self, id: LegId) {
        let now = self.cx.now;
        let late = |caller: &mut Caller| caller.bridge_by.is_some_and(|by| by <= now) && caller.left_by.is_none();
        if self.caller(id).is_some_and(|caller| !caller.left && late(caller)) {
            self.fail(id, "caller hears an agent who never got the caller's SDP");
        }
    }

    /// The caller hangs up: CANCEL before its 200, BYE after.
    pub fn leave(&mut self, id: LegId) {
        let Some(leg) = self.legs.get_mut(id).filter(|leg| !leg.over) else { return };
        let Part::Caller(caller) = &mut leg.part else { return };
        if caller.left {
            return;
        }
        caller.left = true;
        if caller.established {
            client::bye(leg, &mut self.cx);
        } else if leg.invite.as_ref().is_some_and(|invite| invite.provisional) {
            client::cancel(leg, &mut self.cx);
        }
    }

    /// Something is wrong with this call: it is hung up, and booked as failed.
    pub fn fail(&mut self, id: LegId, reason: &str) {
        let now = self.cx.now;
        let Some(leg) = self.legs.get_mut(id).filter(|leg| !leg.over) else { return };
        let call_id = String::from_utf8_lossy(&leg.call_id).into_owned();
        let Part::Caller(caller) = &mut leg.part else { return };
        if caller.failed {
            return;
        }
        caller.failed = true;
        let age = (now.saturating_sub(caller.intended)) as f64 / 1e9;
        let (established, hears) = (caller.established, caller.hears);
        self.cx.books.failure(reason, || {
            format!("Call-ID {call_id}, {age:.3} s after its start, established: {established}, heard last: {hears:?}")
        });
        self.leave(id);
    }

    /// Ends a call and books it.
    pub fn call_over(&mut self, id: LegId, end: CallEnd) {
        if end == CallEnd::HungUpOn {
            self.judge_hang_up(id);
        }
        let still_waiting = |caller: &Caller| caller.hears.is_none_or(|label| label.role == Role::Media);
        if self.caller(id).is_some_and(|caller| caller.left_by.is_some() && still_waiting(caller)) {
            self.rejection_settled(id);
        }
        let Some(leg) = self.legs.get_mut(id).filter(|leg| !leg.over) else { return };
        let Part::Caller(caller) = &mut leg.part else { return };
        let answered = caller.talks_with.is_some() || caller.left_by.is_some();
        let outcome = match end {
            _ if caller.failed => Outcome::Failed,
            CallEnd::Refused(code) => Outcome::Refused(code),
            _ if answered => Outcome::Answered,
            _ => Outcome::Abandoned,
        };
        let rows = match outcome {
            Outcome::Answered | Outcome::Abandoned => 1,
            Outcome::Refused(_) => 0,
            Outcome::Failed => u64::from(caller.established),
        };
        // In the self-test there is no target that writes any.
        let rows = if self.scenario.loopback { 0 } else { rows };
        let gauge = if caller.talks_with.is_some() { &self.cx.live.talking } else { &self.cx.live.waiting };
        gauge.fetch_sub(1, Relaxed);
        self.cx.books.settle(&self.cx.live, id, outcome, rows);
        self.over(id);
    }

    /// The target sent BYE to a caller: right after its agent's BYE, or crossing its own, wrong otherwise.
    fn judge_hang_up(&mut self, id: LegId) {
        let Some(caller) = self.caller(id) else { return };
        if caller.left || caller.left_by.is_some() {
            return;
        }
        let talks_with = caller.talks_with;
        // Nobody need talk to a dead phone, and the other end of a direct call hangs up when it likes.
        if talks_with.is_some_and(|agent| self.scenario.direct || self.is_dead(agent)) {
            return;
        }
        let Some(caller) = self.caller(id) else { return };
        let reason = match talks_with {
            Some(_) => "target ended a talk that nobody had ended",
            None => "target hung up on a waiting caller",
        };
        caller.left = true;
        self.fail(id, reason);
    }

    /// Timer: retransmission, or the end of trying.
    pub fn caller_gave_up(&mut self, id: LegId, due: Due) {
        let agent = self.caller(id).and_then(|caller| caller.talks_with);
        if self.scenario.loopback && matches!(due, Due::Request(_)) && agent.is_some_and(|agent| self.is_dead(agent)) {
            // A dead phone answers no BYE; here nobody stands between it and the caller.
            return self.call_over(id, CallEnd::Left);
        }
        let reason = match due {
            Due::Invite(_) => "no answer to INVITE within 64*T1",
            Due::Request(_) => "no answer to BYE or CANCEL within 64*T1",
            _ => "no ACK to our 2xx within 64*T1",
        };
        self.fail(id, reason);
        if !matches!(due, Due::Ack(_)) {
            self.call_over(id, CallEnd::Broken);
        }
    }

    /// The answer to a CANCEL came: its INVITE must be answered soon, too.
    pub fn cancel_answered(&mut self, id: LegId) {
        self.cx.timers.set(self.cx.now, 64 * T1, id, Due::Bridge);
    }

    /// Timer: a cancelled INVITE should be answered by now.
    pub fn cancel_limit(&mut self, id: LegId) {
        if self.caller(id).is_some_and(|caller| caller.left && !caller.established) {
            self.fail(id, "no final answer to INVITE within 64*T1 of the CANCEL");
            self.call_over(id, CallEnd::Broken);
        }
    }
}
