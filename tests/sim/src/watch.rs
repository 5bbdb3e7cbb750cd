//! What must hold after each step of an engine: the books of calls and agents, the order of service, the thresholds, the gauges.

use crate::booked::Decided;
use crate::check::{self, Able, Checked, Offer, Violation};
use crate::plan::{self, SECOND};
use crate::stages::{Crowd, Listed, Stage, dissuaded_for};
use crate::text;
use crate::ua::{Dialog, Kind, Phase};
use crate::world::World;
use strowger_dispatch::AgentState;
use strowger_engine::Cdr;
use strowger_engine::control::CallState;
use strowger_engine::stats::FlowCounts;
use strowger_engine::{AgentDef, Control, Output, Reply};

/// Flows that a run can see, those of all reloads.
pub(crate) const FLOW_SLOTS: usize = 8;
/// Steps between two looks at all calls, and at all gauges.
const LOOK: u64 = 16;
const COUNT: u64 = 64;

/// What an agent can take when it has nothing.
fn able(agent: u32, def: &AgentDef) -> Able {
    let skills = def.skills.iter().map(|s| s.0).collect();
    Able { agent, skills, audio: def.location.is_some(), chat: def.msrp_location.is_some() }
}

impl World {
    /// Caller and agent send to each other's present address, once all messages have had their time.
    pub(crate) fn both_hear_each_other(&mut self, dialog: u32) -> Checked {
        if self.ledger.lost_power {
            return Ok(());
        }
        const SETTLED_US: u64 = 6 * SECOND;
        let caller = match self.dialogs[dialog as usize].kind {
            Kind::Caller => dialog,
            _ => self.dialogs[dialog as usize].call,
        };
        let phones = self.dialogs.iter().filter(|d| d.kind == Kind::Agent && d.call == caller && d.phase == Phase::Up);
        let phones: Vec<&Dialog> = phones.filter(|d| !self.ledger.ended_dialogs.contains(&d.call_id)).collect();
        let ([phone], Some(c)) = (&phones[..], self.dialogs.get(caller as usize)) else { return Ok(()) };
        let settled =
            |d: &Dialog| !d.dead && d.phase == Phase::Up && d.may_offer() && self.now > d.touched + SETTLED_US;
        let plays = |d: &Dialog| d.facts.said_2xx.is_some() || d.phase == Phase::Ringing;
        let briefed = |d: &Dialog| d.kind == Kind::Briefing && d.call == caller && plays(d);
        let briefed = self.dialogs.iter().any(|d| briefed(d) && !self.ledger.ended_dialogs.contains(&d.call_id));
        let briefed = briefed || self.ledger.damaged[caller as usize];
        // A caller that acknowledges nothing cannot be moved to another agent than its first.
        if briefed || c.never_acks || !settled(c) || !settled(phone) || !c.with_agent() {
            return Ok(());
        }
        // A stall holds up what would have come to its end.
        if !self.plan.hazards.stalls.is_empty() {
            return Ok(());
        }
        let (said, heard) = (phone.media(), c.media());
        if c.remote_media != said || phone.remote_media != heard {
            let what = format!(
                "c{caller} sends to {}, a{} listens at {said}; a{1} sends to {}, c{caller} listens at {heard}",
                c.remote_media,
                text::agent_of(phone.addr).unwrap_or(0),
                phone.remote_media,
            );
            return Err(Violation::new(what).call(caller));
        }
        self.saw("caller and agent heard each other");
        Ok(())
    }

    /// What holds after each step of an engine.
    pub(crate) fn check_step(&mut self, offers: &[Offer], local: bool, placed: bool) -> Checked {
        let in_flight = self.in_flight > 0;
        let prov = self.registry.current().clone();
        if local && !in_flight && !offers.is_empty() && !self.dispatch.dispatching() {
            let what = format!("c{} is matched while matching is off", offers[0].call);
            return Err(Violation::new(what).call(offers[0].call));
        }
        for offer in offers {
            self.cover_offer(*offer);
            let id = plan::agent_id(offer.agent);
            let Some(agent) = self.registry.agent(&id) else { continue };
            let booked = &mut self.ledger.agents[offer.agent as usize];
            let (decided, local) = (booked.decided_for(offer.chat), local && booked.pending.is_empty());
            booked.decided = None;
            let decided =
                decided.filter(|d| d.at >= self.reloaded).or(local.then_some(Decided { at: self.now, beside: 0 }));
            let (Some(decided), Some(def)) = (decided, prov.agent(agent).cloned()) else { continue };
            if self.reload.is_some() || placed {
                continue;
            }
            let able = able(offer.agent, &def);
            // A chat that it was given before may still be on its way.
            let open = self.dispatch.agent(agent).map_or(0, |v| usize::from(v.chats_open));
            let beside = offer.beside.max(open.saturating_sub(1)).max(decided.beside);
            let offer = Offer { beside, ..*offer };
            let all = self.list_calls(false);
            let waiting = self.list_calls(true);
            if let Some(got) = all.iter().find(|w| w.call == offer.call) {
                check::order_is_kept(got, offer, &able, &waiting, decided.at)?;
                let got = got.clone();
                if decided.at == self.now && self.reloaded == 0 && !offer.chat && self.ends.is_first_life() {
                    self.longest_idle_was_chosen(&got, offer.agent)?;
                }
            }
        }
        self.agents_are_true()?;
        if !in_flight
            && !self.ledger.stages.behind
            && self.dispatch.dispatching()
            && self.reload.is_none()
            && (self.steps.is_multiple_of(LOOK) || !offers.is_empty())
        {
            let free = self.free_agents();
            let waiting = self.list_calls(true);
            check::nobody_waits_in_vain(&free, &waiting)?;
        }
        if self.steps.is_multiple_of(COUNT) {
            let all = self.list_calls(false);
            if !self.ledger.lost_power {
                self.ledger.stages.compare(&all, self.now)?;
            }
            self.gauges_are_true(&all)?;
        }
        Ok(())
    }

    /// Of the agents who could have taken a call, those who have refused it come last, and of the others the one who is idle for
    /// longest first (call-center.md, "An agent handles at one time", "Refusal loops").
    fn longest_idle_was_chosen(&mut self, got: &Listed, chosen: u32) -> Checked {
        let rows = &self.ledger.calls[got.call as usize].rows;
        let refused = |agent: u32| {
            let by = |r: &Cdr| r.agent.as_ref().is_some_and(|a| check::agent_number(&a.agentid) == agent);
            rows.iter().any(by)
        };
        let since = |agent: u32| self.ledger.agents[agent as usize].idle_since;
        let Some(chosen_since) = since(chosen) else { return Ok(()) };
        let mut others = 0;
        for other in self.free_agents() {
            let takes = if got.chat { other.chat } else { other.audio };
            let Some(idle) = since(other.agent).filter(|s| takes && *s < self.steps) else { continue };
            if other.agent == chosen || !other.skills.contains(&got.flow.skill.0) {
                continue;
            }
            others += 1;
            if (refused(other.agent), idle) < (refused(chosen), chosen_since) {
                let what = format!(
                    "c{} goes to a{chosen}, idle since step {chosen_since}, not to a{}, idle since step {idle}",
                    got.call, other.agent
                );
                return Err(Violation::new(what).call(got.call).agent(other.agent));
            }
        }
        if others > 0 {
            self.saw("longest idle of several chosen");
        }
        Ok(())
    }

    /// Every new call that has come to a stage came to the right one; and what flows count from here on.
    pub(crate) fn moves_are_right(&mut self, one_call: bool) -> Checked {
        if self.ledger.lost_power {
            return Ok(());
        }
        if !self.ledger.stages.back.is_empty() {
            let all = self.list_calls(false);
            self.ledger.stages.back.clear();
            self.ledger.stages.compare(&all, self.now)?;
        }
        let moved = std::mem::take(&mut self.ledger.stages.moved);
        for m in moved.iter().filter(|m| m.to != Stage::Ended) {
            let of_interest =
                m.to.is_dissuading() || m.from == Stage::Dissuading1 || (m.from.is_arriving() && one_call);
            let listed = if of_interest { self.list_calls(false) } else { Vec::new() };
            if let Some(l) = listed.iter().find(|l| l.call == m.call) {
                match m.from {
                    // It may have come back before this was seen, when the music had never stopped.
                    Stage::Dissuading1 if m.to == Stage::Queued => {
                        self.ledger.stages.of[m.call as usize].queued = Some(l.since);
                    }
                    _ => self.move_is_right(m.from, m.to, l, one_call)?,
                }
            }
            if m.from == Stage::Dissuading1 {
                self.saw("back from dissuading1");
            }
        }
        for idx in 0..FLOW_SLOTS {
            let read = |f: fn(&FlowCounts) -> i64| self.stats.flow(idx as u32, f);
            let crowd = Crowd {
                queued: read(|f| f.queued.get()),
                processed: read(|f| f.processed.get()),
                talk_us: read(|f| f.talk_us.get()),
            };
            self.crowds[idx] = crowd;
        }
        Ok(())
    }

    /// A call that came to be dissuaded had to be; one that came to an agent or the queue had not.
    fn move_is_right(&mut self, from: Stage, to: Stage, l: &Listed, one_call: bool) -> Checked {
        if self.ledger.damaged[l.call as usize] {
            return Ok(());
        }
        let wrong = |what: String| Err(Violation::new(what).call(l.call));
        if to.is_dissuading() && (to == Stage::Dissuading2) != l.flow.dissuading_hangup {
            return wrong(format!("c{} in {to:?}, against its flow's dissuading_hangup", l.call));
        }
        if !to.is_dissuading() && !from.is_arriving() {
            return Ok(());
        }
        if !from.is_arriving() {
            self.saw("diverted by time on hold");
            let limit = u64::from(l.flow.dissuading_onhold_th) * SECOND;
            // An attempt that a reload leaves without an address is over before it is seen, and the call enters the queue anew.
            let until = self.reloaded + self.plan.net.desk_us + self.plan.net.mesh_us;
            let timely = self.reload.is_none() && !self.ledger.stages.behind;
            let since = self.ledger.stages.of[l.call as usize].queued.filter(|at| timely && *at > until);
            return match since {
                Some(at) if from == Stage::Queued && self.now.abs_diff(at + limit) > check::LATE_US => {
                    wrong(format!("c{} is diverted {} us after it was queued", l.call, self.now - at))
                }
                _ if limit == 0 => wrong(format!("c{} is diverted from the queue without a threshold", l.call)),
                _ => Ok(()),
            };
        }
        if to == Stage::Welcome || !one_call || self.reload.is_some() {
            return Ok(());
        }
        let on_duty = self.agents_of(l.flow.skill.0);
        let crowd = self.crowds[(l.flow.idx as usize).min(FLOW_SLOTS - 1)];
        let why = dissuaded_for(&l.flow, crowd, on_duty);
        if why.is_some() != to.is_dissuading() {
            return wrong(format!("c{} goes to {to:?}, its flow says {why:?}: {crowd:?}, {on_duty} agents", l.call));
        }
        if let Some(why) = why {
            self.saw(why);
        }
        Ok(())
    }

    /// Agents of a skill who are logged in.
    fn agents_of(&self, skill: u32) -> usize {
        let prov = self.registry.current();
        let on = |a| self.dispatch.agent(a).is_some_and(|v| v.logged_in && !v.retired);
        let able = |a| prov.agent(a).is_some_and(|d| d.skills.iter().any(|s| s.0 == skill));
        prov.agents_by_id.values().filter(|a| on(**a) && able(**a)).count()
    }

    /// The flows' gauges count the calls that there are.
    fn gauges_are_true(&self, all: &[Listed]) -> Checked {
        let chats: Vec<_> = all.iter().filter(|l| l.chat && l.state != CallState::ToAgent).collect();
        for idx in 0..FLOW_SLOTS as u32 {
            let read = |f: fn(&FlowCounts) -> i64| self.stats.flow(idx, f);
            let count = |wanted: fn(CallState) -> bool| {
                all.iter().filter(|l| l.flow.idx == idx && wanted(l.state)).count() as i64
            };
            let pairs = [
                ("onhold", read(|f| f.onhold.get()), count(|s| s != CallState::ToAgent)),
                (
                    "onhold_chats",
                    read(|f| f.onhold_chats.get()),
                    chats.iter().filter(|l| l.flow.idx == idx).count() as i64,
                ),
                ("queued", read(|f| f.queued.get()), count(|s| s == CallState::Queued)),
                ("ongoing", read(|f| f.ongoing.get()), count(|_| true)),
            ];
            if let Some((name, says, is)) = pairs.iter().find(|(_, says, is)| says != is) {
                return Err(Violation::new(format!("gauge {name} of flow {idx} says {says}, there are {is}")));
            }
        }
        Ok(())
    }

    fn cover_offer(&mut self, offer: Offer) {
        let booked = &self.ledger.agents[offer.agent as usize];
        let (beside, wraps) = (offer.beside > 0, self.now < booked.wraps_until);
        if beside {
            self.saw("chat beside chat");
        }
        if beside && wraps {
            self.saw("chat beside a withheld slot");
        }
    }

    /// Each agent's word fits what was seen of it.
    pub(crate) fn agents_are_true(&mut self) -> Checked {
        if self.ledger.lost_power {
            return Ok(());
        }
        let in_flight = self.in_flight > 0 || self.ledger.stages.behind;
        self.ledger.agents.iter_mut().for_each(|a| (a.decided, a.unsent) = (None, None));
        for (id, agent) in &self.registry.current().agents_by_id {
            let n = check::agent_number(id);
            if self.reload.is_some() || self.now < self.reloaded + self.plan.net.desk_us + self.plan.net.mesh_us {
                let (reload, pause) = (self.registry.current().version, self.plan.call.reject_backoff_us);
                self.ledger.agents[n as usize].excuse_wrapup(reload, pause, self.now);
            }
            if let Some(view) = self.dispatch.agent(*agent) {
                self.ledger.agents[n as usize].note_idle(view.state, self.steps);
                self.ledger.agents[n as usize].is_true(n, *agent, view, in_flight, self.now)?;
            }
        }
        Ok(())
    }

    /// Agents who can take a call or a chat by their word, with what the provisioning says of them.
    fn free_agents(&self) -> Vec<Able> {
        let prov = self.registry.current();
        let mut all = Vec::new();
        for (id, agent) in &prov.agents_by_id {
            let (Some(view), Some(def)) = (self.dispatch.agent(*agent), prov.agent(*agent)) else { continue };
            let mut able = able(check::agent_number(id), def);
            let free = view.state == AgentState::Free && !view.retired;
            let open = view.chats_open + u8::from(view.slot_withheld);
            let paused = self.now <= self.ledger.agents[able.agent as usize].paused_last + check::LATE_US;
            let room = view.state == AgentState::InChat && view.logged_in && open < view.chat_slots && !paused;
            able.audio &= free;
            // After a loss of power nobody knows who is in a pause.
            able.chat &= free || (room && !self.ledger.lost_power);
            all.push(able);
        }
        all
    }

    /// Calls of all shards, by command, as an operator would see them.
    pub(crate) fn list_calls(&mut self, queued_only: bool) -> Vec<Listed> {
        let now = self.clock();
        let mut all = Vec::new();
        for engine in &mut self.engines {
            engine.handle_control(now, u64::MAX, Control::ListCalls { from: 0, max: u32::MAX, queued_only });
            while let Some(output) = engine.poll_output() {
                let Output::Reply { reply: Reply::Calls { calls, .. }, .. } = output else { continue };
                all.extend(calls.into_iter().filter_map(|c| {
                    Some(Listed {
                        id: c.id,
                        call: c.caller_user.strip_prefix('c')?.parse().ok()?,
                        state: c.state,
                        chat: c.chat,
                        agent: c.agent.map(|a| check::agent_number(&a.agentid)),
                        ticket: c.ticket,
                        since: c.queued_unix_us,
                        flow: c.flow,
                    })
                }));
            }
        }
        all.iter_mut().for_each(|listed| listed.since = self.read_clock(listed.since));
        all
    }
}
