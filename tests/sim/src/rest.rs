//! What must hold when nothing is left to happen.

use crate::check::{Checked, Violation, agent_number};
use crate::recount::Counted;
use crate::ua::{Dialog, Kind, Phase};
use crate::world::World;
use strowger_dispatch::AgentState;
use strowger_engine::cdr::{CallType, fstats};
use strowger_engine::control::Audit;
use strowger_engine::stats::{AgentCounts, FlowCounts};

impl World {
    /// # Errors
    /// The first property that does not hold.
    pub fn check_rest(&mut self) -> Checked {
        let (now, lost_power) = (self.now, self.ledger.lost_power);
        self.records.archive.check(now, lost_power).map_err(Violation::new)?;
        self.after_archive()?;
        self.nothing_is_held()?;
        self.gauges_are_zero()?;
        self.audits_find_nothing()?;
        self.agents_are_idle()?;
        if self.ledger.lost_power {
            return Ok(());
        }
        self.every_call_has_its_records()?;
        self.statistics_equal_a_recount()?;
        self.every_dialog_is_over()?;
        self.peers_agree_with_the_records()
    }

    fn every_call_has_its_records(&mut self) -> Checked {
        let begun = self.stats.sum(|s| s.calls.get());
        let recorded = self.ledger.calls.iter().filter(|c| !c.rows.is_empty()).count();
        if begun != recorded as i64 {
            return Err(Violation::new(format!("{begun} calls begun, {recorded} with records")));
        }
        for (n, call) in self.ledger.calls.iter().enumerate() {
            let Some(last) = call.rows.last() else { continue };
            if last.call_type == CallType::Rejected {
                return Err(Violation::new("the call's last record is a refusal: it never ended").call(n as u32));
            }
        }
        Ok(())
    }

    fn nothing_is_held(&mut self) -> Checked {
        if self.doors.waiting() > 0 {
            return Err(Violation::new(format!("{} calls wait at the door at rest", self.doors.waiting())));
        }
        for (shard, engine) in self.engines.iter().enumerate() {
            let audit = engine.audit();
            if audit != Audit::default() {
                return Err(Violation::new(format!("shard {shard} at rest holds {audit:?}")));
            }
        }
        for _ in 0..4 {
            self.engines.iter_mut().for_each(strowger_engine::Engine::idle);
            self.registry.commit(0, &mut Vec::new());
        }
        match self.dispatch.garbage() {
            0 => Ok(()),
            n => Err(Violation::new(format!("{n} objects of the dispatch wait to be freed at rest"))),
        }
    }

    fn gauges_are_zero(&self) -> Checked {
        let flow = |i, read: fn(&FlowCounts) -> i64| self.stats.flow(i, read);
        for idx in 0..8 {
            let gauges = [
                ("onhold", flow(idx, |f| f.onhold.get())),
                ("onhold_chats", flow(idx, |f| f.onhold_chats.get())),
                ("queued", flow(idx, |f| f.queued.get())),
                ("ongoing", flow(idx, |f| f.ongoing.get())),
            ];
            if let Some((name, value)) = gauges.iter().find(|(_, v)| *v != 0) {
                return Err(Violation::new(format!("gauge {name} of flow {idx} is {value} at rest")));
            }
        }
        Ok(())
    }

    fn statistics_equal_a_recount(&self) -> Checked {
        let flow = |i, read: fn(&FlowCounts) -> i64| self.stats.flow(i, read);
        for idx in 0..8 {
            let says = Counted {
                incalls: flow(idx, |f| f.incalls.get()),
                distributed: flow(idx, |f| f.distributed.get()),
                answered: flow(idx, |f| f.answered.get()),
                answered_chats: flow(idx, |f| f.answered_chats.get()),
                abandoned: flow(idx, |f| f.abandoned.get()),
                processed: flow(idx, |f| f.processed.get()),
                talk_us: flow(idx, |f| f.talk_us.get()),
                waited: flow(idx, |f| f.waited.get()),
                wait_us: flow(idx, |f| f.wait_us.get()),
                onhold_total: flow(idx, |f| f.onhold_total.get()),
            };
            let mut is = self.ledger.recount(idx);
            let most = is.onhold_total + self.ledger.maybe_held(idx);
            is.onhold_total = says.onhold_total.clamp(is.onhold_total, most);
            if says != is {
                return Err(Violation::new(format!("flow {idx} counts {says:?}, its records {is:?}")));
            }
        }
        let agent = |i, read: fn(&AgentCounts) -> i64| self.stats.agent(i, read);
        for (id, a) in &self.registry.current().agents_by_id {
            let says = Counted {
                distributed: agent(a.slot, |c| c.distributed.get()),
                answered: agent(a.slot, |c| c.answered.get()),
                answered_chats: agent(a.slot, |c| c.answered_chats.get()),
                abandoned: agent(a.slot, |c| c.abandoned.get()),
                processed: agent(a.slot, |c| c.processed.get()),
                talk_us: agent(a.slot, |c| c.talk_us.get()),
                ..Counted::default()
            };
            let is = self.ledger.recount_slot(a.slot);
            if says != is {
                return Err(Violation::new(format!("agent {id} counts {says:?}, the records {is:?}")));
            }
        }
        Ok(())
    }

    fn agents_are_idle(&self) -> Checked {
        for (id, agent) in &self.registry.current().agents_by_id {
            let Some(view) = self.dispatch.agent(*agent) else {
                return Err(Violation::new(format!("agent {id} has left the table")));
            };
            let loggable = self.plan.call.max_no_answer == 0;
            if view.state != AgentState::Free && (loggable || view.state != AgentState::Offline) {
                let what = format!("agent {id} is {:?} at rest", view.state);
                return Err(Violation::new(what).agent(agent_number(id)));
            }
            if let Some(owner) = view.owner {
                return Err(Violation::new(format!("agent {id} is free, and owned by {owner:?}")));
            }
        }
        Ok(())
    }

    /// No peer is left with a dialog that the engine has forgotten.
    fn every_dialog_is_over(&self) -> Checked {
        let whole = |d: &Dialog| self.ledger.damaged.get(d.call as usize) == Some(&false);
        for d in self.dialogs.iter().filter(|d| d.phase == Phase::Up && !d.dead && whole(d)) {
            if !self.ledger.ended_dialogs.contains(&d.call_id) {
                let what = format!("the engine has left {} with a dialog, {}", d.name(), d.call_id);
                return Err(Violation::new(what).call(d.call));
            }
        }
        // A phone whose provisional answers were all lost rings on: nobody may cancel it (RFC 3261 section 9.1).
        let heard = |d: &Dialog| d.servers.first().is_none_or(|s| self.ledger.is_heard(&s.branch));
        let waits = |d: &&Dialog| !d.dead && matches!(d.phase, Phase::Calling | Phase::Ringing) && heard(d) && whole(d);
        match self.dialogs.iter().find(waits) {
            Some(d) => Err(Violation::new(format!("{} still waits for an answer", d.name())).call(d.call)),
            None => Ok(()),
        }
    }

    /// Records say nothing that the peers have not done.
    fn peers_agree_with_the_records(&self) -> Checked {
        let whole = |n: &usize| !self.ledger.damaged[*n];
        for (n, call) in self.ledger.calls.iter().enumerate().filter(|(n, _)| whole(n)) {
            let caller = &self.dialogs[n];
            let left = caller.facts.cancelled
                || caller.facts.said_bye.is_some()
                || caller.dead
                || caller.never_acks
                || caller.facts.unfaithful;
            for row in &call.rows {
                let wrong = |what: &str| Err(Violation::new(format!("{:?}: {what}", row.call_type)).call(n as u32));
                let mut phones = self.dialogs.iter().filter(|d| {
                    d.kind == Kind::Agent
                        && d.call == n as u32
                        && row.agent.as_ref().is_some_and(|a| a.agentid[1..] == d.name()[1..])
                });
                match row.call_type {
                    CallType::Handled if !phones.any(|d| d.facts.said_2xx.is_some()) => {
                        return wrong("no phone of that agent has answered that call");
                    }
                    CallType::Dropped if row.fstats == fstats::INBOUND => {
                        let mut messages =
                            self.dialogs.iter().filter(|d| d.kind == Kind::Dissuading && d.call == n as u32);
                        let over = |d: &Dialog| {
                            let ended_early = self.ledger.ended_early.contains(&d.call_id);
                            d.facts.said_bye.is_some() || d.facts.said_no.is_some() || d.gone() || ended_early
                        };
                        if self.plan.net.loss == 0 && !messages.any(over) {
                            return wrong("no dissuading message has ended");
                        }
                    }
                    // Sometimes the network swallows all of a caller's ACKs.
                    CallType::Dropped if row.cause == 408 && self.plan.net.loss > 0 => {}
                    CallType::Dropped if !left && !self.peer_gave_up(n) => return wrong("the caller has not left"),
                    _ => {}
                }
            }
            let refused = caller.facts.got_final.is_some_and(|c| c >= 300 && c != 487);
            self.calls_are_as_foretold(n, call.rows.is_empty())?;
            if self.ledger.is_no_call(n, &caller.asks) {
                continue;
            }
            if call.rows.is_empty() && !refused && !left && !self.peer_gave_up(n) {
                return Err(Violation::new("a caller who was not refused has no record").call(n as u32));
            }
        }
        Ok(())
    }

    /// The caller's own transaction ran out, or all its answers were lost.
    fn peer_gave_up(&self, n: usize) -> bool {
        self.dialogs[n].clients.iter().any(|c| c.code == 408)
            || self.dialogs[n].servers.iter().any(|s| matches!(s.code, 408 | 481))
    }
}
