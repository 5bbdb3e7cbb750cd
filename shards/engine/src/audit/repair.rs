//! Repairs: what is wrong is brought to an end that the engine knows, by the functions that do so in any case.

use super::{Fault, Place, What};
use crate::arena::Key;
use crate::books::Outcome;
use crate::call::Link;
use crate::control::CallState;
use crate::engine::{Engine, TimerKind};
use crate::leg::{Claim, Phase, Role};
use strowger_dispatch::{Abandon, AgentRef, Match, Media, Release, Released, WaitLook, WaitRef};
use strowger_sip::endpoint::{ClientTxn, FailReason};
use strowger_sip::time::{Mono, Now};
use strowger_sip::wheel::TimerId;

impl Engine {
    pub(super) fn repair(&mut self, place: Place, fault: Fault, now: Now) {
        match place {
            Place::Agent(slot) => self.repair_agent(slot, fault, now),
            Place::Entry(slot) => self.repair_entry(slot, fault, now),
            Place::Call(c) => {
                self.remember(c, What::Mended, fault as u16);
                self.repair_call(c, fault, now);
            }
            Place::Leg(key) => {
                if let Some(c) = self.legs.get(key).and_then(|l| l.call) {
                    self.remember(c, What::Mended, fault as u16);
                }
                self.repair_leg(key, fault, now);
            }
            Place::Ours(txn) => self.ep.drop_user(now.mono, txn),
            Place::Theirs(txn) => self.refuse(txn, self.cfg.call.refusals.internal, b"", now),
            Place::Flow(idx) => self.mend_gauges(idx),
        }
    }

    fn repair_agent(&mut self, slot: u32, fault: Fault, now: Now) {
        if fault == Fault::HoldsMiscounted {
            self.recount_holds(slot);
            return;
        }
        let Some(agent) = self.agent_at(slot) else { return };
        match fault {
            Fault::AgentUnheld => self.release_unheld(agent, now),
            Fault::AgentUndercounted => self.claim_chats_again(agent, now),
            Fault::WrapupTimerGone => self.time_again(agent, now),
            Fault::WrapupUntimed | Fault::ChatEndLost => {
                self.stats.board.at(slot).give_chats_up();
                self.time_again(agent, now);
            }
            Fault::OwnerWrong => self.shared.set_owner(agent, None),
            Fault::MatchMissed => {
                self.dispatch.match_agent(agent, &mut self.made);
                self.deliver(now.mono);
            }
            _ => {}
        }
    }

    /// Legs with a claim on the agent are found and counted anew.
    fn recount_holds(&mut self, slot: u32) {
        let legs: Vec<Key> = self.legs.keys().filter(|key| self.holds(*key, slot)).collect();
        let counts = self.stats.shard(self.shard).agents.at(slot);
        counts.held.set(i64::try_from(legs.len()).unwrap_or(i64::MAX));
        if self.holders.len() <= slot as usize {
            self.holders.resize(slot as usize + 1, Vec::new());
        }
        self.holders[slot as usize] = legs;
    }

    /// Ends the claims that nobody holds, as long as that can be said of them. They are no shard's: no count goes down.
    fn release_unheld(&mut self, agent: AgentRef, now: Now) {
        while let Some(look) = self.shared.look(agent) {
            if self.unheld(agent, look).is_none_or(|n| n <= 0) {
                break;
            }
            let how = if look.in_call { Release::Free } else { Release::Chat };
            if look.in_call {
                self.shared.set_owner(agent, None);
            }
            if self.dispatch.release(agent, how, &mut self.made) == Released::Stale {
                break;
            }
            self.deliver(now.mono);
        }
        self.report_idle(agent, now);
    }

    /// The chats of the agent that legs have and the table has not. They are counted already.
    fn claim_chats_again(&mut self, agent: AgentRef, now: Now) {
        let claims = self.shared.look(agent).map_or(0, |look| i64::from(look.claims));
        for _ in claims..self.held(agent) {
            self.dispatch.reclaim(agent, Media::Chat);
        }
        self.dispatch.take_late(&mut self.made);
        self.deliver(now.mono);
    }

    /// A wrap-up is timed to the end that is known of it; where none is, or it has passed, it is over.
    fn time_again(&mut self, agent: AgentRef, now: Now) {
        let board = self.stats.board.at(agent.slot);
        let at = |unix_us: u64| if unix_us > now.unix_us { now.mono_of(unix_us) } else { now.mono };
        let known = self.wrapups.get(&u64::from(agent.slot)).filter(|w| w.agent == agent);
        let ends = known.map_or_else(|| at(board.wrapup_ends()), |w| w.until.max(now.mono));
        let pause_ends = board.pause_ends();
        let pause = if pause_ends > now.unix_us { Some(at(pause_ends)) } else { None };
        self.time_wrapup(agent, ends, pause, now);
    }

    fn repair_entry(&mut self, slot: u32, fault: Fault, now: Now) {
        let Some((gen_, state)) = self.shared.look_at_wait(self.shard, slot) else {
            self.forget_entry(slot);
            return;
        };
        let wait = WaitRef { shard: self.shard, slot, gen_ };
        match (fault, state) {
            (Fault::MatchLost, WaitLook::Taken(agent)) => {
                let Some(agent) = self.agent_at(agent).or_else(|| self.dispatch.peek(wait)) else { return };
                self.matches.push_back((Match { wait, agent }, now.mono));
            }
            _ => {
                self.forget_entry(slot);
                if let Abandon::Taken(agent) = self.abandon(wait) {
                    self.shared_release(agent, Release::GiveBack, now.mono);
                }
            }
        }
    }

    fn forget_entry(&mut self, slot: u32) {
        if let Some(entry) = self.waiting.get_mut(slot as usize) {
            *entry = None;
        }
    }

    fn repair_call(&mut self, c: Key, fault: Fault, now: Now) {
        let internal = self.cfg.call.refusals.internal;
        match fault {
            Fault::CallerGone => self.end_call(c, Outcome::Error, internal, now),
            Fault::NotQueued => self.queue_again(c, now),
            Fault::StillQueued => self.leave_queue(c, now),
            Fault::CallIdle => self.send_on(c, now),
            Fault::MessageGone => self.drop_messages(c, now),
            Fault::MusicGivenUp => self.want_music(c, now),
            Fault::AttemptGone => self.give_attempt_up(c, now),
            Fault::ClaimGone => self.claim_again(c, now),
            Fault::BriefingGone => self.flow_message_over(c, now),
            Fault::CallTimerGone => self.fire_stopped(c, now),
            Fault::HoldUnlimited => self.limit_onhold(c, now),
            Fault::LinkBroken => self.mend_link(c, now),
            Fault::LinkIdle => self.drive_link(c, now),
            _ => {}
        }
    }

    /// An entry that lives is known again; without one the call waits anew, by its ticket in its old place.
    fn queue_again(&mut self, c: Key, now: Now) {
        let Some(wait) = self.calls.get(c).and_then(|call| call.wait) else { return };
        let entry = self.shared.look_at_wait(wait.shard, wait.slot);
        if entry.is_some_and(|(gen_, state)| gen_ == wait.gen_ && state != WaitLook::Free) {
            self.note_wait(c, wait);
            return;
        }
        let others = self.waiting.get(wait.slot as usize).copied().flatten().filter(|known| *known != c);
        self.forget_wait(c);
        if let (Some(other), Some(entry)) = (others, self.waiting.get_mut(wait.slot as usize)) {
            *entry = Some(other);
        }
        self.enter_queue(c, now);
    }

    /// What its state would have led to.
    fn send_on(&mut self, c: Key, now: Now) {
        match self.calls.get(c).map(|call| call.state) {
            Some(CallState::Welcome) => self.after_welcome(c, now),
            Some(CallState::Dissuading1 | CallState::Dissuading2) => self.after_dissuading(c, now),
            Some(_) => self.enter_queue(c, now),
            None => {}
        }
    }

    fn drop_messages(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get(c) else { return };
        let gone = |leg: &Key| self.legs.get(*leg).is_none_or(|l| l.call != Some(c));
        let legs: Vec<Key> = [call.media, call.fading].into_iter().flatten().filter(gone).collect();
        for leg in legs {
            self.on_media_ended(c, leg, now);
        }
    }

    /// An error of the attempt; a talk, which cannot go on without its agent's leg, ends.
    fn give_attempt_up(&mut self, c: Key, now: Now) {
        let internal = self.cfg.call.refusals.internal;
        match self.calls.get(c).and_then(|call| call.attempt.as_ref()) {
            Some(attempt) if attempt.answered.is_some() => self.end_call(c, Outcome::Handled, internal, now),
            Some(_) => self.attempt_error(c, internal, now),
            None => {}
        }
    }

    /// The leg has its agent again: by the claim that nobody holds, or a new one.
    fn claim_again(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get(c) else { return };
        let Some(attempt) = &call.attempt else { return };
        let (leg, def, medium, flow) = (attempt.leg, attempt.agent.clone(), call.medium, call.flow.clone());
        let agent = def.agent;
        drop(self.take_claim(leg));
        self.recount_holds(agent.slot);
        if !self.adopt(agent) && !self.reclaim(agent, medium) {
            self.give_attempt_up(c, now);
            return;
        }
        self.deliver(now.mono);
        self.put_claim(leg, Box::new(Claim { agent, def, medium, flow, plan: None }));
        if medium == Media::Audio {
            self.shared.set_owner(agent, Some((self.shard, c.to_u64())));
        }
    }

    /// Takes a claim over that nobody holds, if there is one. Counted first: another who looks for such a claim at this moment finds
    /// that it is ours, or that nothing can be said.
    fn adopt(&mut self, agent: AgentRef) -> bool {
        self.count_held(agent, 1);
        let unheld = self.shared.look(agent).and_then(|look| self.unheld(agent, look));
        let adopted = unheld.is_some_and(|n| n >= 0);
        if !adopted {
            self.count_held(agent, -1);
        }
        adopted
    }

    /// Timers that do not run have fired.
    fn fire_stopped(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get(c) else { return };
        let stopped = |timer: Option<TimerId>| timer.is_some_and(|timer| self.ep.timer_due(timer).is_none());
        let timers = [call.media_timer, call.progress_timer, call.glare_timer, call.onhold_timer].map(stopped);
        let kinds = [TimerKind::MediaRetry, TimerKind::Progress, TimerKind::Glare, TimerKind::Onhold];
        for kind in kinds.into_iter().zip(timers).filter(|(_, stopped)| *stopped).map(|(kind, _)| kind) {
            match kind {
                TimerKind::MediaRetry => self.on_media_retry(c, now),
                TimerKind::Progress => self.on_progress_timer(c, now),
                TimerKind::Glare => self.on_glare_over(c, now),
                _ => self.limit_anew(c, now),
            }
        }
    }

    /// The limit of the queue counts from when the call entered it.
    fn limit_anew(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        call.onhold_timer = None;
        let limit_us = u64::from(call.flow.dissuading_onhold_th) * 1_000_000;
        let due = call.queued.map_or(now.mono, |queued| queued.mono.plus_us(limit_us)).max(now.mono);
        let timer = self.ep.start_timer(due, c.to_u64(), TimerKind::Onhold as u8);
        call.onhold_timer = Some(timer);
    }

    /// The connection stands alone, and is made anew. A caller who cannot be answered any more is gone.
    fn mend_link(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        match call.link {
            Link::Fresh => {
                self.caller_gone(c, 408, now);
                return;
            }
            Link::Acking(_) | Link::Offering { .. } | Link::Linked(_) | Link::Loose => call.link = Link::Loose,
        }
        if let Some(leg) = self.calls.get(c).map(|call| call.caller).and_then(|leg| self.legs.get_mut(leg))
            && leg.phase == Phase::AwaitAck
        {
            leg.phase = Phase::Confirmed;
        }
        self.drive_link(c, now);
    }

    fn repair_leg(&mut self, key: Key, fault: Fault, now: Now) {
        match fault {
            Fault::HoldsMiscounted => {
                if let Some(slot) = self.legs.get(key).and_then(|l| l.claim.as_ref()).map(|claim| claim.agent.slot) {
                    self.recount_holds(slot);
                }
            }
            Fault::AgentUnclaimed => self.reclaim_for(key, now),
            Fault::AgentHeldTwice => self.disclaim(key),
            Fault::OwnerWrong => {
                let leg = self.legs.get(key);
                if let Some((claim, c)) = leg.and_then(|l| Some((l.claim.as_ref()?, l.call?))) {
                    self.shared.set_owner(claim.agent, Some((self.shard, c.to_u64())));
                }
            }
            Fault::LegOrphaned => {
                self.end_claim(key, 0, now);
                self.let_go(key, now);
            }
            Fault::LegUnended => self.end_leg(key, now),
            Fault::LegTransactionGone => self.time_transactions_out(key, now),
            Fault::LegTimerGone => self.start_leg_timers(key, now),
            Fault::SessionUntimed => self.start_session_timer(key, now),
            Fault::LegUnlisted => {
                if let Some(hash) = self.legs.get(key).map(|l| self.tag_hash(l.local_tag())) {
                    self.revived.insert(hash, key);
                }
            }
            _ => {}
        }
    }

    fn reclaim_for(&mut self, key: Key, now: Now) {
        let leg = self.legs.get(key);
        let Some((agent, medium)) = leg.and_then(|l| l.claim.as_ref()).map(|claim| (claim.agent, claim.medium)) else {
            return;
        };
        let owner = leg.and_then(|l| l.call).map(|c| (self.shard, c.to_u64()));
        let reclaimed = self.dispatch.reclaim(agent, medium);
        self.dispatch.take_late(&mut self.made);
        self.deliver(now.mono);
        if !reclaimed {
            self.disclaim(key);
        } else if medium == Media::Audio {
            self.shared.set_owner(agent, owner);
        }
    }

    /// The leg goes on without its agent, who is another's or gone.
    fn disclaim(&mut self, key: Key) {
        if let Some(claim) = self.take_claim(key) {
            self.count_held(claim.agent, -1);
        }
    }

    /// A dialog that may still be up is ended with BYE; else the leg goes, and its call goes the way of a hang-up.
    fn end_leg(&mut self, key: Key, now: Now) {
        let Some(leg) = self.legs.get(key) else { return };
        match (leg.call, leg.phase) {
            (None, Phase::Confirmed | Phase::OwesAck | Phase::AwaitAck) => self.send_bye(key, now),
            (Some(_), Phase::OwesAck | Phase::AwaitAck) => self.drop_peer(key, 408, now),
            (Some(_), Phase::Trying) if leg.role != Role::Caller => self.on_ring_timeout(key, now),
            (Some(_), _) => self.on_peer_gone(key, 408, now),
            (None, _) => {
                self.end_claim(key, 0, now);
                self.leg_gone(key, now);
            }
        }
    }

    fn time_transactions_out(&mut self, key: Key, now: Now) {
        let Some(leg) = self.legs.get(key) else { return };
        let relayed = leg.relays.iter().map(|r| r.out);
        let own = [leg.invite.map(|i| i.txn), leg.bye, leg.refresh, leg.probe].into_iter().flatten();
        let lost: Vec<ClientTxn> = own.chain(relayed).filter(|txn| !self.ep.is_client(*txn)).collect();
        let inbound = leg.inbound.filter(|i| !self.ep.is_server(i.txn));
        for txn in lost {
            self.on_client_failed(txn, key.to_u64(), FailReason::Timeout, now);
        }
        match inbound {
            Some(inbound) if inbound.answered => self.on_no_ack(key, inbound.txn, now),
            Some(inbound) => self.on_server_gone(key, inbound.txn, now),
            None => {}
        }
    }

    fn start_leg_timers(&mut self, key: Key, now: Now) {
        let stopped = |timer: Option<TimerId>, e: &Engine| timer.is_some_and(|t| e.ep.timer_due(t).is_none());
        let Some(leg) = self.legs.get(key) else { return };
        let (session, any) = (stopped(leg.session.timer, self), leg.timer);
        let (phase, closes) = (leg.phase, leg.call.is_none());
        if session {
            self.start_session_timer(key, now);
        }
        if any.is_some() && !stopped(any, self) {
            return;
        }
        if closes {
            self.on_grace_over(key, now);
        } else if phase == Phase::Trying {
            let due: Mono = now.mono.plus_us(self.cfg.call.agent_ring_timeout_us);
            let timer = self.ep.start_timer(due, key.to_u64(), TimerKind::Ring as u8);
            if let Some(leg) = self.legs.get_mut(key) {
                leg.timer = Some(timer);
            }
        } else if any.is_some() {
            self.on_ring_timeout(key, now);
        }
    }
}
