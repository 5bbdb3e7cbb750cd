//! What the routing rules must make of each caller's first request, foretold at the moment when it comes, and held against the
//! answers, the INVITEs that follow, and the records.

use crate::check::{Checked, Ledger, Violation};
use crate::rules::{Asked, Asker, Body, Says};
use crate::text;
use crate::world::World;
use std::net::IpAddr;
use strowger_engine::cdr::Cdr;
use strowger_engine::rules::OnFailure;
use strowger_sip::msg::{Message, Method};

/// What must become of a first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Flows and agents were changing at that moment.
    Unknown,
    Call {
        flow: String,
        param: Option<String>,
    },
    Login {
        agent: String,
        on: bool,
    },
    Refused(u16),
}

impl World {
    /// Foretells what a caller's first request must lead to, when it first comes to the engine. Its caller.
    pub(crate) fn foretell(&mut self, shard: u16, msg: &Message<'_>) -> Option<u32> {
        let first = matches!(msg.method(), Some(Method::Invite | Method::Message)) && msg.to_tag().is_none();
        let call = text::caller_number(msg).filter(|_| first)?;
        if self.ledger.expects.get(call as usize)?.is_some() {
            return None;
        }
        let expect = self.expected(shard, call);
        self.trace.note(self.now, Some(call), None, || format!("foretold {expect:?}"));
        self.ledger.expects[call as usize] = Some(expect);
        Some(call)
    }

    fn expected(&mut self, shard: u16, call: u32) -> Expect {
        let caller = &self.dialogs[call as usize];
        let (asked, to) = (caller.asks.clone(), caller.flow);
        let IpAddr::V4(ip) = caller.addr.ip() else { return Expect::Unknown };
        let codes = self.plan.call.refusals;
        if asked.bad_from {
            self.saw("refused: From cannot be read");
            return Expect::Refused(if asked.message { 400 } else { codes.bad_from });
        }
        if self.reload.is_some() {
            return Expect::Unknown;
        }
        let mut refused = if asked.message { 481 } else { codes.no_flow_id };
        for (says, on_failure) in self.plan.guide.says(&asked, Asker { call, ip, to }) {
            let code = match says {
                Says::Reject(code) => {
                    self.saw("rejected by a rule");
                    return Expect::Refused(code);
                }
                Says::Login { agent, on } => match (self.has_agent(&agent), on) {
                    (true, Some(on)) => {
                        self.saw(if on { "logged in by feature code" } else { "logged out by feature code" });
                        if asked.message {
                            self.saw("feature code in a MESSAGE");
                        }
                        return Expect::Login { agent, on };
                    }
                    (false, _) => 404,
                    (true, None) => 400,
                },
                Says::Flow { id, param } => match self.flow_refuses(shard, &id, &asked) {
                    Some((503, why)) => {
                        self.saw(why);
                        return Expect::Refused(503);
                    }
                    Some((code, why)) => {
                        self.saw(why);
                        code
                    }
                    None => {
                        if param.is_some() {
                            self.saw("call with a parameter");
                        }
                        return Expect::Call { flow: id, param };
                    }
                },
            };
            refused = code;
            match on_failure {
                OnFailure::Answer => break,
                OnFailure::Next => self.saw("next rule after a failure"),
                OnFailure::Code(code) => return Expect::Refused(code),
            }
        }
        Expect::Refused(refused)
    }

    fn has_agent(&self, id: &str) -> bool {
        self.plan.rows.agents.iter().any(|a| a.agentid.as_deref() == Some(id))
    }

    /// The answer of `cc_handle_call`, in the order of its return codes, and why.
    fn flow_refuses(&self, shard: u16, id: &str, asked: &Asked) -> Option<(u16, &'static str)> {
        let codes = self.plan.call.refusals;
        let most = self.plan.call.max_calls as usize;
        let full = most < 1000 && self.engines[usize::from(shard)].audit().calls >= most;
        if full || self.drained[usize::from(shard)] {
            return Some((503, "refused: too many calls"));
        }
        if id.is_empty() {
            return Some((codes.no_flow_id, "refused: no flow id"));
        }
        let Some(flow) = self.plan.rows.flows.iter().find(|f| f.flowid.as_deref() == Some(id)) else {
            return Some((codes.unknown_flow, "refused: unknown flow"));
        };
        let skill = flow.skill.as_deref().unwrap_or_default();
        let has_it = |skills: &Option<String>| skills.iter().flat_map(|s| s.split(',')).any(|s| s == skill);
        let on_duty = |id: &Option<String>| {
            let agent = id.as_deref().and_then(|id| self.registry.agent(id));
            agent.and_then(|a| self.dispatch.agent(a)).is_some_and(|v| v.logged_in)
        };
        let staffed = self.plan.rows.agents.iter().any(|a| has_it(&a.skills) && on_duty(&a.agentid));
        if self.plan.call.reject_on_no_agents && !staffed {
            return Some((codes.no_agents, "refused: no agent logged in"));
        }
        match asked.body {
            Body::Good => None,
            Body::Unusable => Some((codes.bad_sdp, "refused: no usable stream")),
            Body::Other => Some((codes.bad_media, "refused: neither RTP nor MSRP")),
        }
    }

    /// Who dialled a feature code has logged the agent in or out, at once.
    pub(crate) fn feature_code_worked(&self, call: u32) -> Checked {
        let Some(Expect::Login { agent, on }) = &self.ledger.expects[call as usize] else { return Ok(()) };
        let view = self.registry.agent(agent).and_then(|a| self.dispatch.agent(a));
        if view.is_some_and(|v| v.logged_in == *on) {
            return Ok(());
        }
        Err(Violation::new(format!("{agent} was to be logged in: {on}, by feature code; it is {view:?}")).call(call))
    }

    /// At rest: whatever was to become a call has become one.
    pub(crate) fn calls_are_as_foretold(&self, n: usize, no_record: bool) -> Checked {
        match &self.ledger.expects[n] {
            Some(Expect::Call { .. }) if no_record => {
                Err(Violation::new("an INVITE that was to become a call has no record").call(n as u32))
            }
            _ => Ok(()),
        }
    }
}

impl Ledger {
    /// What was sent was no call, or may have been none.
    pub(crate) fn is_no_call(&self, n: usize, asked: &Asked) -> bool {
        let code = asked.user.as_ref().is_some_and(|u| u.starts_with('*'));
        match &self.expects[n] {
            Some(Expect::Login { .. } | Expect::Refused(_)) => true,
            Some(Expect::Unknown) | None => code || asked.message,
            Some(Expect::Call { .. }) => false,
        }
    }

    /// The final answer to a caller's first request.
    pub(crate) fn answers_as_foretold(&self, code: u16, msg: &Message<'_>) -> Result<(), String> {
        let first = msg.cseq().is_ok_and(|c| c.number == 1 && matches!(c.method, Method::Invite | Method::Message));
        let call = text::caller_number(msg).filter(|_| first && code >= 200);
        let expect = call.and_then(|n| self.expects.get(n as usize)?.as_ref());
        let fits = match expect {
            Some(Expect::Refused(wanted)) => code == *wanted,
            Some(Expect::Login { .. }) => code == 200,
            _ => true,
        };
        if fits { Ok(()) } else { Err(format!("the answer is {code}, foretold was {expect:?}")) }
    }

    /// An INVITE of the engine's for a call: that it is one, and its parameter, in its only place.
    pub(crate) fn begins_as_foretold(&self, call: u32, msg: &Message<'_>) -> Result<(), String> {
        let values = |name: &[u8]| -> Vec<String> {
            let named = msg.headers().filter(|h| h.name.eq_ignore_ascii_case(name));
            named.map(|h| text::text(h.value).to_owned()).collect()
        };
        let (told, states) = (values(b"X-CC-Param"), values(b"X-CC-State"));
        if states.len() != 1 || !values(b"X-Evil").is_empty() || told.iter().any(|t| t == "forged") {
            return Err(format!("INVITE with X-CC-State {states:?}, X-CC-Param {told:?}"));
        }
        match self.expects.get(call as usize).and_then(Option::as_ref) {
            Some(Expect::Call { param, .. }) if told == param.iter().cloned().collect::<Vec<_>>() => Ok(()),
            Some(Expect::Unknown) => Ok(()),
            expect => Err(format!("INVITE with X-CC-Param {told:?}, foretold was {expect:?}")),
        }
    }

    pub(crate) fn recorded_as_foretold(&self, cdr: &Cdr, call: u32) -> Result<(), String> {
        match self.expects.get(call as usize).and_then(Option::as_ref) {
            Some(Expect::Call { flow, param })
                if *cdr.flow.flowid == **flow && cdr.param.as_deref() == param.as_deref() =>
            {
                Ok(())
            }
            Some(Expect::Unknown) => Ok(()),
            expect => {
                Err(format!("record of flow {}, param {:?}, foretold was {expect:?}", cdr.flow.flowid, cdr.param))
            }
        }
    }
}
