//! Requests inside a dialog: hang-ups, ACKs, and everything that passes from one side to the other (spec: sip.md,
//! "During talk").

use crate::arena::Key;
use crate::attempts::Refusal;
use crate::body::Body;
use crate::books::Outcome;
use crate::call::{End, Link};
use crate::ending::relayed_code;
use crate::engine::Engine;
use crate::leg::{InInvite, OutInvite, Phase, Purpose, Relay, Role};
use strowger_sip::endpoint::ServerTxn;
use strowger_sip::msg::{Message, Method, Name};
use strowger_sip::time::Now;

impl Engine {
    /// A request whose To tag names `key` and whose dialog matches.
    pub(crate) fn in_dialog(&mut self, key: Key, txn: ServerTxn, msg: &Message<'_>, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        let cseq = msg.cseq().map_or(0, |c| c.number);
        if !leg.dialog.accept_request(cseq) {
            // Out of order (RFC 3261 section 12.2.2).
            self.answer_retry_later(txn, now);
            return;
        }
        self.ep.set_user(txn, key.to_u64());
        let closed = leg.call.is_none() || leg.phase == Phase::Closing;
        match msg.method() {
            Some(Method::Bye) => {
                self.answer_final(key, txn, 200, now);
                if let Some(leg) = self.legs.get_mut(key)
                    && leg.phase != Phase::Trying
                {
                    leg.phase = Phase::Closing;
                }
                self.on_peer_gone(key, 0, now);
            }
            _ if closed => self.answer_final(key, txn, 481, now),
            Some(Method::Invite) => self.on_reinvite(key, txn, msg, cseq, now),
            Some(Method::Update) => self.on_update(key, txn, msg, now),
            Some(Method::Options) => self.answer_final(key, txn, 200, now),
            _ => self.relay_request(key, txn, msg, false, now),
        }
    }

    /// ACK to a 2xx of ours.
    pub(crate) fn on_ack(&mut self, key: Key, msg: &Message<'_>, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        let Some(inbound) = leg.inbound.filter(|i| i.answered) else { return };
        if msg.cseq().is_ok_and(|c| c.number != inbound.cseq) {
            return;
        }
        leg.inbound = None;
        self.ep.acked(inbound.txn);
        let Some(leg) = self.legs.get_mut(key) else { return };
        match (leg.phase, leg.call) {
            (Phase::Closing, _) if leg.over => self.drop_leg(key),
            (Phase::Closing, _) if leg.bye.is_none() => self.send_bye(key, now),
            (Phase::AwaitAck, Some(c)) => {
                leg.phase = Phase::Confirmed;
                self.on_caller_acked(c, Body::of(msg), now);
            }
            (_, Some(c)) => {
                if let Some(partner) = inbound.ack_to {
                    self.pass_answer(key, partner, Body::of(msg), now);
                }
                self.drive_link(c, now);
            }
            _ => {}
        }
    }

    /// The answer to the partner's offer came in our peer's ACK.
    fn pass_answer(&mut self, key: Key, partner: Key, answer: Option<Body>, now: Now) {
        if self.legs.get(partner).is_none_or(|p| p.owes_ack.is_none()) {
            return;
        }
        match answer {
            Some(body) => {
                self.keep_description(key, Some(body));
                self.ack_owed(partner, End::Leg(key), now);
            }
            // An offer without an answer: the far end is told that nothing is accepted; the session cannot go on.
            None => {
                self.ack_owed(partner, End::Silence, now);
                if let Some(c) = self.leg_call(key) {
                    self.end_call(c, Outcome::Abandoned, 488, now);
                }
            }
        }
    }

    /// Our 2xx was never acknowledged (section 13.3.1.4): the dialog is ended with BYE.
    pub(crate) fn on_no_ack(&mut self, key: Key, txn: ServerTxn, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        if leg.inbound.is_none_or(|i| i.txn != txn) {
            return;
        }
        leg.inbound = None;
        if leg.over {
            self.drop_leg(key);
            return;
        }
        if leg.phase == Phase::Closing {
            if leg.bye.is_none() {
                self.send_bye(key, now);
            }
            return;
        }
        leg.phase = Phase::Confirmed;
        self.drop_peer(key, 408, now);
    }

    /// We end this side's dialog, and the call goes the way it goes when that side hangs up.
    pub(crate) fn drop_peer(&mut self, key: Key, code: u16, now: Now) {
        let Some(leg) = self.legs.get(key) else { return };
        let Some(c) = leg.call else { return };
        match leg.role {
            Role::Caller => self.end_call(c, Outcome::Abandoned, code, now),
            Role::Media => {
                self.let_go(key, now);
                self.on_media_ended(c, key, now);
            }
            Role::FlowMessage => {
                self.let_go(key, now);
                self.flow_message_over(c, now);
            }
            Role::Agent => {
                let call = self.calls.get(c).and_then(|call| call.attempt.as_ref());
                if call.is_some_and(|a| a.answered.is_none()) {
                    self.reject(c, Refusal::of(code), now);
                } else {
                    self.end_call(c, Outcome::Handled, code, now);
                }
            }
        }
    }

    /// The other side of this leg, when the two are connected.
    pub(crate) fn relay_partner(&self, key: Key) -> Option<Key> {
        let leg = self.legs.get(key)?;
        let call = self.calls.get(leg.call?)?;
        if let Some((agent, message)) = call.hearing()
            && (key == agent || key == message)
        {
            let up = |k: Key| self.legs.get(k).is_some_and(|l| l.phase == Phase::Confirmed);
            return (up(agent) && up(message)).then_some(if key == agent { message } else { agent });
        }
        match (leg.role, call.link) {
            (Role::Caller, Link::Linked(End::Leg(far))) => Some(far),
            (_, Link::Linked(End::Leg(far))) if far == key => Some(call.caller),
            _ => None,
        }
    }

    fn on_reinvite(&mut self, key: Key, txn: ServerTxn, msg: &Message<'_>, cseq: u32, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        if leg.inbound.is_some_and(|i| !i.answered) {
            self.answer_retry_later(txn, now);
            return;
        }
        if !leg.invite_idle() || leg.offer_pending() {
            self.answer_final(key, txn, 491, now);
            return;
        }
        let _ = leg.dialog.refresh_target(msg);
        let body = Body::of(msg);
        if body.is_none() && !msg.body().is_empty() {
            self.answer_final(key, txn, 488, now);
            return;
        }
        let unchanged = body.is_some() && body == *leg.remote;
        let inbound = InInvite { txn, cseq, answered: false, ack_to: None };
        let silent = leg
            .call
            .and_then(|c| self.calls.get(c))
            .is_some_and(|call| call.link == Link::Linked(End::Silence) || call.moving() == Some(key));
        self.note_session(key, msg);
        let partner = self.relay_partner(key);
        if let Some(leg) = self.legs.get_mut(key) {
            leg.inbound = Some(inbound);
        }
        if let Some(partner) = partner {
            if unchanged {
                self.answer_invite(key, End::Leg(partner), now);
                return;
            }
            let free = self.legs.get(partner).is_some_and(|p| p.invite_idle() && !p.offer_pending());
            if free {
                let offered = body.is_some();
                if let Some(leg) = self.legs.get_mut(key) {
                    leg.proposed = body.into();
                }
                let end = offered.then_some(End::Leg(key));
                self.reinvite(partner, Purpose::Relay { from: key, txn, offered }, end, now);
                return;
            }
        } else if silent && body.is_some() {
            self.keep_description(key, body);
            self.answer_invite(key, End::Silence, now);
            return;
        }
        if let Some(leg) = self.legs.get_mut(key) {
            leg.inbound = None;
        }
        self.answer_final(key, txn, 491, now);
    }

    /// The partner's final answer to a relayed re-INVITE.
    pub(crate) fn on_relayed_invite(
        &mut self,
        key: Key,
        invite: OutInvite,
        code: u16,
        msg: Option<&Message<'_>>,
        now: Now,
    ) {
        let Purpose::Relay { from, txn, offered } = invite.purpose else { return };
        let asks = self.legs.get(from).is_some_and(|l| l.inbound.is_some_and(|i| i.txn == txn && !i.answered));
        let accepted = (200..300).contains(&code);
        if accepted {
            self.relay_accepted(key, invite, (from, offered, asks), msg.and_then(Body::of), now);
        } else {
            if asks && self.take_inbound(from, txn) {
                self.answer_final(from, txn, relayed_code(code), now);
            }
            if matches!(code, 408 | 481) {
                self.drop_peer(key, code, now);
                return;
            }
        }
        if let Some(c) = self.leg_call(key) {
            self.drive_link(c, now);
        }
    }

    fn relay_accepted(&mut self, key: Key, invite: OutInvite, ask: (Key, bool, bool), body: Option<Body>, now: Now) {
        let (from, offered, asks) = ask;
        self.keep_description(key, body);
        if offered {
            self.send_ack(key, invite.txn, invite.cseq, None, now);
        } else if !asks {
            // Nobody waits for this offer any more, but the ACK must answer it: with what holds already, or by refusing.
            let side = self.legs.get(from).filter(|l| l.call.is_some() && l.remote.is_some()).map(|_| End::Leg(from));
            let end = side.filter(|_| self.leg_call(key).is_some()).unwrap_or(End::Silence);
            self.send_ack(key, invite.txn, invite.cseq, Some(end), now);
        } else if let Some(leg) = self.legs.get_mut(key) {
            leg.owes_ack = Some((invite.txn, invite.cseq));
        }
        if !asks {
            return;
        }
        self.adopt_proposal(from, key);
        if let Some(inbound) = self.legs.get_mut(from).and_then(|l| l.inbound.as_mut()) {
            inbound.ack_to = (!offered).then_some(key);
        }
        self.answer_invite(from, End::Leg(key), now);
    }

    /// What `from` proposed holds: `told` has accepted it.
    fn adopt_proposal(&mut self, from: Key, told: Key) {
        let proposed = self.legs.get_mut(from).and_then(|l| l.proposed.take());
        self.keep_description(from, proposed);
        if let Some(leg) = self.legs.get_mut(told) {
            leg.stale = false;
        }
    }

    /// UPDATE (RFC 3311): without a description a session refresh; unchanged, answered here; else relayed.
    fn on_update(&mut self, key: Key, txn: ServerTxn, msg: &Message<'_>, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        let _ = leg.dialog.refresh_target(msg);
        let body = Body::of(msg);
        let ours = leg.invite.is_some() || leg.owes_ack.is_some() || leg.relays.iter().any(|r| r.offer);
        let theirs = leg.inbound.is_some() || leg.proposed.is_some();
        let unchanged = body.is_none() || body == *leg.remote;
        self.note_session(key, msg);
        let partner = self.relay_partner(key);
        match (body, partner) {
            (None, _) => self.answer_update(key, txn, None, now),
            (Some(_), _) if ours => self.answer_final(key, txn, 491, now),
            (Some(_), _) if theirs => self.answer_retry_later(txn, now),
            (Some(_), Some(p)) if unchanged => self.answer_update(key, txn, Some(End::Leg(p)), now),
            (Some(body), Some(p)) => match self.legs.get(p) {
                Some(far) if !far.session.update => self.answer_final(key, txn, 504, now),
                Some(far) if far.offer_pending() || far.owes_ack.is_some() => self.answer_final(key, txn, 491, now),
                _ => {
                    if let Some(leg) = self.legs.get_mut(key) {
                        leg.proposed = Some(body).into();
                    }
                    self.relay_request(key, txn, msg, true, now);
                }
            },
            (Some(_), None) => self.answer_final(key, txn, 491, now),
        }
    }

    /// Passes a request on to the other side; `offer`: its body is a description.
    fn relay_request(&mut self, key: Key, txn: ServerTxn, msg: &Message<'_>, offer: bool, now: Now) {
        let Some(partner) =
            self.relay_partner(key).filter(|p| self.legs.get(*p).is_some_and(|l| l.phase == Phase::Confirmed))
        else {
            self.answer_final(key, txn, if offer { 491 } else { 480 }, now);
            return;
        };
        let Some(out) = self.send_relayed(partner, key, msg, offer, now) else {
            self.answer_final(key, txn, 500, now);
            return;
        };
        if let Some(leg) = self.legs.get_mut(partner) {
            leg.relays.push(Relay { out, from: key, txn, offer });
        }
        if let Some(leg) = self.legs.get_mut(key) {
            leg.pending.push(txn);
        }
    }

    /// An answer to a relayed request.
    pub(crate) fn on_relay_response(&mut self, key: Key, relay: Relay, code: u16, msg: Option<&Message<'_>>, now: Now) {
        if code < 200 {
            return;
        }
        if let Some(leg) = self.legs.get_mut(key) {
            leg.relays.retain(|r| r.out != relay.out);
        }
        let waits = self.take_pending(relay.from, relay.txn);
        if relay.offer {
            let accepted = (200..300).contains(&code);
            self.keep_description(key, msg.and_then(Body::of).filter(|_| accepted));
            if accepted {
                self.adopt_proposal(relay.from, key);
            } else if let Some(leg) = self.legs.get_mut(relay.from) {
                leg.proposed.take();
            }
            if waits && accepted {
                self.answer_update(relay.from, relay.txn, Some(End::Leg(key)), now);
            } else if waits {
                self.answer_final(relay.from, relay.txn, relayed_code(code), now);
            }
        } else if waits {
            self.answer_relayed(relay.txn, relayed_code(code), msg, now);
        }
        if matches!(code, 408 | 481) && self.leg_call(key).is_some() {
            self.drop_peer(key, code, now);
        } else if let Some(c) = self.leg_call(key) {
            self.drive_link(c, now);
        }
    }

    /// Their unanswered request is taken off the leg; false when it is not there any more.
    pub(crate) fn take_pending(&mut self, key: Key, txn: ServerTxn) -> bool {
        let Some(leg) = self.legs.get_mut(key) else { return false };
        if !leg.pending.contains(&txn) {
            return false;
        }
        leg.pending.retain(|t| *t != txn);
        true
    }
}

/// Copies the header lines that a relayed request keeps: all but what belongs to the hop or the dialog.
pub(crate) fn copy_relayed_headers(msg: &Message<'_>, out: &mut Vec<u8>) {
    for header in msg.headers() {
        let kept = !matches!(
            header.id,
            Name::Via
                | Name::From
                | Name::To
                | Name::CallId
                | Name::CSeq
                | Name::Contact
                | Name::MaxForwards
                | Name::Route
                | Name::RecordRoute
                | Name::ContentLength
                | Name::ContentType
                | Name::Allow
                | Name::Supported
                | Name::Require
                | Name::ProxyRequire
                | Name::UserAgent
                | Name::Server
                | Name::SessionExpires
                | Name::MinSe
                | Name::Authorization
                | Name::ProxyAuthorization
        );
        if kept {
            push_line(header.name, header.value, out);
        }
    }
}

/// A header line whose value is made one line.
pub(crate) fn push_line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    strowger_sip::msg::unfold(value, out);
    out.extend_from_slice(b"\r\n");
}
