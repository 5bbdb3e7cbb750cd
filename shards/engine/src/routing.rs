//! What the rules make of a request outside every dialog: a call, a feature code, a refusal.

use crate::arrival::Refused;
use crate::body::Body;
use crate::call::End;
use crate::engine::Engine;
use crate::leg::{InInvite, Leg, Phase, Role};
use crate::provision::FlowDef;
use crate::rules::{Act, OnFailure, Request, Rules};
use std::sync::Arc;
use strowger_dispatch::AgentRef;
use strowger_sip::dialog::Dialog;
use strowger_sip::endpoint::ServerTxn;
use strowger_sip::msg::{Message, Method};
use strowger_sip::net::Path;
use strowger_sip::time::Now;

/// What a rule has decided.
enum Verdict {
    /// The flow takes the call.
    Call {
        flow: Arc<FlowDef>,
        param: Option<Box<str>>,
    },
    Login {
        agent: AgentRef,
        on: bool,
    },
    Refuse(Refused),
    Reject {
        code: u16,
        reason: String,
    },
    /// No rule matches.
    None,
}

impl Engine {
    /// Asks the rules about a new INVITE. What is no call is answered here; a call comes back with its flow and
    /// parameter.
    pub(crate) fn route(
        &mut self,
        txn: ServerTxn,
        msg: &Message<'_>,
        path: Path,
        now: Now,
    ) -> Option<(Arc<FlowDef>, Option<Box<str>>)> {
        match self.decide(msg, path) {
            Verdict::Call { flow, param } => return Some((flow, param)),
            Verdict::Login { agent, on } => self.take_feature_code(txn, msg, path, (agent, on), now),
            Verdict::Refuse(refused) => self.turn_away(txn, refused, now),
            Verdict::Reject { code, reason } => {
                self.shard_counts().refused.add(1);
                self.refuse_with(txn, (code, &reason), b"", now);
            }
            Verdict::None => self.turn_away(txn, Refused::Code(self.cfg.call.refusals.no_flow_id), now),
        }
        None
    }

    /// A request outside every dialog that can be no call: rules may log in an agent by it, or say its answer.
    pub(crate) fn on_other_request(&mut self, txn: ServerTxn, msg: &Message<'_>, path: Path, now: Now) {
        let verdict = if msg.method() == Some(Method::Message) { self.decide(msg, path) } else { Verdict::None };
        match verdict {
            Verdict::Login { agent, on } => {
                let code = if self.log_agent(agent, on, now) { 200 } else { 404 };
                self.refuse(txn, code, b"", now);
            }
            Verdict::Refuse(Refused::Code(code)) => self.refuse(txn, code, b"", now),
            Verdict::Reject { code, reason } => self.refuse_with(txn, (code, &reason), b"", now),
            _ => self.refuse(txn, 481, b"", now),
        }
    }

    /// The first rule whose action can be carried out, or the refusal of the last that cannot.
    fn decide(&mut self, msg: &Message<'_>, path: Path) -> Verdict {
        let mut rules = std::mem::replace(&mut self.rules, Rules::nothing());
        let request = Request::new(msg, path.remote.ip());
        let (mut from, mut verdict) = (0, Verdict::None);
        while let Some(decision) = rules.next(from, &request) {
            from = decision.index + 1;
            verdict = self.verdict(decision.act, msg);
            let Verdict::Refuse(Refused::Code(_)) = verdict else { break };
            match decision.on_failure {
                #[cfg(mutant)]
                OnFailure::Next if strowger_dispatch::mutant::is("failure-ends-the-rules") => break,
                OnFailure::Next => {}
                OnFailure::Answer => break,
                OnFailure::Code(code) => {
                    verdict = Verdict::Refuse(Refused::Code(code));
                    break;
                }
            }
        }
        self.rules = rules;
        verdict
    }

    fn verdict(&self, act: Act<'_>, msg: &Message<'_>) -> Verdict {
        match act {
            Act::HandleCall { flow, param } => match self.admit(flow, msg) {
                Ok(flow) => Verdict::Call { flow, param },
                Err(refused) => Verdict::Refuse(refused),
            },
            Act::AgentLogin { agent, on } => {
                let known = std::str::from_utf8(agent).ok().and_then(|id| self.prov.agents_by_id.get(id));
                #[cfg(mutant)]
                let on = on.map(|on| on || strowger_dispatch::mutant::is("logout-code-logs-in"));
                match (known, on) {
                    (Some(agent), Some(on)) => Verdict::Login { agent: *agent, on },
                    (None, _) => Verdict::Refuse(Refused::Code(404)),
                    (_, None) => Verdict::Refuse(Refused::Code(400)),
                }
            }
            Act::Reject { code, reason } => Verdict::Reject { code, reason: reason.to_owned() },
        }
    }

    /// A feature code was dialled: the agent is logged in or out, and the call answered without media and ended.
    fn take_feature_code(
        &mut self,
        txn: ServerTxn,
        msg: &Message<'_>,
        path: Path,
        (agent, on): (AgentRef, bool),
        now: Now,
    ) {
        let offer = Body::of(msg);
        if offer.is_none() && !msg.body().is_empty() {
            self.turn_away(txn, Refused::Code(self.cfg.call.refusals.bad_sdp), now);
            return;
        }
        let bucket = self.bucket_of(msg);
        let key = self.legs.next_key();
        let local_tag = self.ep.ids().tag(bucket, key.slot);
        let Ok(dialog) = Dialog::uas(msg, path, local_tag.as_bytes()) else {
            self.refuse(txn, 400, b"", now);
            return;
        };
        if !self.log_agent(agent, on, now) {
            self.refuse(txn, 404, b"", now);
            return;
        }
        let session_id = self.ep.ids().nonce() >> 8;
        let mut leg = Leg::new(Role::Caller, dialog, session_id);
        let cseq = msg.cseq().map_or(0, |c| c.number);
        leg.inbound = Some(InInvite { txn, cseq, answered: false, ack_to: None });
        leg.remote = offer.into();
        self.legs.insert(leg);
        self.ep.set_user(txn, key.to_u64());
        self.answer_invite(key, End::Silence, now);
        // The BYE follows the ACK, or the time in which none came.
        if let Some(leg) = self.legs.get_mut(key) {
            leg.phase = Phase::Closing;
        }
    }
}
