//! What an engine says in a step, in the order in which it came to say it: carried out, and checked.

use crate::check::{self, Checked, Offer, Violation};
use crate::heap::Event;
use crate::spool_disk::Ending;
use crate::text::{self, Bytes};
use crate::world::World;
use std::net::SocketAddr;
use strowger_engine::{MeshMsg, Output};

pub(crate) enum Said {
    Output(u16, Output),
    Sends(SocketAddr, Bytes),
}

impl World {
    /// Carries out what an engine asks for, and checks. `local`: matches of this step were made in this step.
    pub(crate) fn after(&mut self, shard: u16, local: bool) -> Checked {
        self.after_of(shard, local, false)
    }

    /// Takes what an engine says of what has just happened: records and other outputs first, then what it sends.
    pub(crate) fn hear(&mut self, shard: u16) {
        let engine = &mut self.engines[usize::from(shard)];
        while let Some(output) = engine.poll_output() {
            self.said.push(Said::Output(shard, output));
        }
        while let Some(transmit) = engine.poll_transmit() {
            self.said.push(Said::Sends(transmit.path.remote, engine.bytes(&transmit).into()));
            engine.sent(transmit);
        }
    }

    /// Fires the timers that are due, one after the other.
    pub(crate) fn fire(&mut self, shard: u16) {
        let now = self.clock();
        while self.engines[usize::from(shard)].handle_timer(now) {
            self.hear(shard);
        }
    }

    pub(crate) fn after_of(&mut self, shard: u16, local: bool, placed: bool) -> Checked {
        let s = usize::from(shard);
        let mut offers: Vec<Offer> = Vec::new();
        let now = self.clock();
        self.hear(shard);
        self.ends.commit(shard, &mut self.engines[s], now)?;
        for what in std::mem::take(&mut self.ends.seen) {
            self.saw(what);
        }
        if self.ends.is_due() {
            return self.crash(Ending::Killed);
        }
        for said in std::mem::take(&mut self.said) {
            match said {
                Said::Output(shard, output) => self.on_output(shard, output)?,
                Said::Sends(to, bytes) => offers.extend(self.on_sent(shard, to, bytes)?),
            }
        }
        while let Some(asked) = self.engines[s].poll_resolve() {
            self.look_up(shard, &asked);
        }
        if let Some(due) = self.engines[s].next_due() {
            let due = due.0.max(self.now);
            if due < self.timer_at[s] {
                self.timer_at[s] = due;
                self.push(due, Event::Timers(shard));
            }
        }
        if self.steps.is_multiple_of(100) {
            self.engines[s].idle();
        }
        self.audit(s)?;
        if self.ends.starting {
            return Ok(()); // Not all shards have spoken yet.
        }
        self.check_step(&offers, local, placed)
    }

    /// An engine sends a message; an offer that it makes.
    fn on_sent(&mut self, shard: u16, to: SocketAddr, bytes: Bytes) -> Result<Option<Offer>, Violation> {
        let Some(msg) = text::parse(&bytes) else {
            // The answer to what cannot be read has what could be read of it (RFC 3261 section 8.2.6.2).
            if self.plan.hazards.damage > 0 && bytes.starts_with(b"SIP/2.0 ") {
                self.saw("answer to an unreadable request");
                return Ok(None);
            }
            return Err(Violation::new(format!("the engine sent what cannot be read: {}", text::text(&bytes))));
        };
        self.trace.message(self.now, to, Some(()), shard, &msg);
        let offer = self.ledger.engine_sends(to, &msg, self.now)?;
        self.transport(bytes, to, None);
        Ok(offer)
    }

    pub(crate) fn on_output(&mut self, shard: u16, output: Output) -> Checked {
        match output {
            Output::Mesh { to, msg } => {
                if let MeshMsg::Matched { matched, .. } = &msg {
                    self.saw("match sent to another shard");
                    self.note_match(*matched);
                }
                self.in_flight += 1;
                let way = self.net.range(1, self.plan.net.mesh_us);
                self.push(self.now + way, Event::Mesh { to, msg });
            }
            Output::Cdr(cdr) => {
                let n = cdr.sip_call_id.strip_prefix("call").and_then(|s| s.split('@').next()?.parse().ok());
                let Some(call) = n else { return Err(Violation::new("record of an unknown call")) };
                self.trace.note(self.now, Some(call), None, || {
                    let agent = cdr.agent.as_ref().map_or("-", |a| &a.agentid);
                    format!("CDR {:?} agent {agent} fstats {} cause {}", cdr.call_type, cdr.fstats, cdr.cause)
                });
                self.cover_record(&cdr, call);
                self.record_leaves(shard, &cdr, !self.ends.ending)?;
                self.ledger.record(cdr, call, self.now)?;
                self.saw(if self.ledger.by_message { "record of a message" } else { "record of no message" });
            }
            Output::Audited(report) => return self.nothing_is_amiss(&report),
            Output::AgentEvent(event) => {
                let n = check::agent_number(&event.agent.agentid);
                self.trace.note(self.now, None, Some(n), || format!("agent {}", brief(&event.state)));
            }
            Output::Reply { id, reply } => {
                self.on_reply(shard, id, &reply);
                return self.placing_is_right(id, &reply);
            }
        }
        Ok(())
    }
}

fn brief(state: &strowger_engine::control::AgentReport) -> String {
    use strowger_engine::control::AgentReport::{Free, InCall, InChat, Offline, Wrapup};
    match state {
        Offline => "offline".to_owned(),
        Free => "free".to_owned(),
        InCall { .. } => "incall".to_owned(),
        InChat { ongoing_sessions, .. } => format!("inchat, {ongoing_sessions} chats"),
        Wrapup { .. } => "wrapup".to_owned(),
    }
}
