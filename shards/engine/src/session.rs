//! Session timers (RFC 4028) on every leg: they find dead peers.

use crate::arena::Key;
use crate::call::{End, Link};
use crate::engine::{Engine, TimerKind, is_unsent};
use crate::leg::{Phase, Purpose, Role};
use strowger_sip::msg::{Message, Method, Name, Refresher};
use strowger_sip::time::Now;

/// Pause before a refresh that could not be sent, or was refused for the moment, microseconds.
const RETRY_US: u64 = 5_000_000;

impl Engine {
    /// Takes from a message what the peer says of the session timer: in its request, or in its 2xx to ours.
    pub(crate) fn note_session(&mut self, key: Key, msg: &Message<'_>) {
        let ours = self.cfg.call.session_expires_s;
        let least = self.cfg.call.min_se_s;
        let Some(leg) = self.legs.get_mut(key) else { return };
        if msg.first(Name::Allow).is_some() {
            leg.session.update = msg.allows(Method::Update);
        }
        if ours == 0 {
            return;
        }
        let asked = msg.session_expires().ok().flatten();
        let answer = msg.code().is_some();
        let supports = msg.lists(Name::Supported, "timer") || asked.is_some();
        let session = &mut leg.session;
        session.interval_s = asked.map_or(ours, |s| s.delta).min(ours.max(least)).max(least);
        session.we_refresh = match asked.and_then(|s| s.refresher) {
            // In our requests we are the UAC, in theirs the UAS.
            Some(Refresher::Uac) => answer,
            Some(Refresher::Uas) => !answer,
            None => answer || !supports,
        };
        session.peer_supports = supports;
    }

    /// Starts or restarts the timer of a leg whose session has just been confirmed.
    pub(crate) fn start_session_timer(&mut self, key: Key, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        leg.session.unsent = 0;
        let session = leg.session;
        if session.interval_s == 0 || leg.call.is_none() {
            return;
        }
        let whole = u64::from(session.interval_s) * 1_000_000;
        let due = if session.we_refresh { whole / 2 } else { whole - (whole / 3).min(32_000_000) };
        self.arm_session(key, due, now);
    }

    fn arm_session(&mut self, key: Key, us: u64, now: Now) {
        let timer = self.ep.start_timer(now.mono.plus_us(us), key.to_u64(), TimerKind::Session as u8);
        let Some(leg) = self.legs.get_mut(key) else {
            self.ep.stop_timer(timer);
            return;
        };
        if let Some(old) = leg.session.timer.replace(timer) {
            self.ep.stop_timer(old);
        }
    }

    /// Time to refresh, or the peer has missed its own refresh.
    pub(crate) fn on_session_timer(&mut self, key: Key, now: Now) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        leg.session.timer = None;
        if leg.call.is_none() {
            return;
        }
        if !leg.session.we_refresh {
            self.drop_peer(key, 408, now);
            return;
        }
        let (idle, update) = (leg.invite_idle() && !leg.offer_pending(), leg.session.update);
        if idle && update {
            let txn = self.send_update(key, now);
            if let Some(leg) = self.legs.get_mut(key) {
                leg.refresh = txn;
            }
        } else if idle && let Some(far) = self.session_end(key) {
            self.reinvite(key, Purpose::Refresh, Some(far), now);
        } else {
            self.arm_session(key, RETRY_US, now);
        }
    }

    /// After a restart: OPTIONS asks whether the dialog is still known there (RFC 3261 section 11; 481 or silence end it,
    /// RFC 5057 section 5.1).
    pub(crate) fn probe(&mut self, key: Key, now: Now) {
        if self.legs.get(key).is_none_or(|l| l.call.is_none() || l.phase != Phase::Confirmed) {
            return;
        }
        let txn = self.send_bare(key, Method::Options, b"", now);
        if let Some(leg) = self.legs.get_mut(key) {
            leg.probe = txn;
        }
    }

    /// Whatever but that it knows no such dialog says that the peer is there.
    pub(crate) fn on_probed(&mut self, key: Key, code: u16, now: Now) {
        if let Some(leg) = self.legs.get_mut(key) {
            leg.probe = None;
        }
        if matches!(code, 408 | 481) {
            self.drop_peer(key, code, now);
        }
    }

    /// What this leg's session is connected to, for repeating its description.
    fn session_end(&self, key: Key) -> Option<End> {
        let leg = self.legs.get(key)?;
        let call = self.calls.get(leg.call?)?;
        match (leg.role, call.link) {
            (Role::Caller, Link::Linked(end)) => Some(end),
            (Role::Caller, _) => Some(End::Silence),
            (Role::FlowMessage, _) => call.attempt.as_ref().map(|a| End::Leg(a.leg)),
            (Role::Agent, _) if call.moving() == Some(key) => None,
            (Role::Agent, _) => Some(End::Leg(call.hearing().map_or(call.caller, |(_, message)| message))),
            (Role::Media, _) => Some(End::Leg(call.caller)),
        }
    }

    /// One more refresh could not be sent (its Contact is of no use, nobody knows the name, the network is down): whether that has
    /// lasted for as long as the session had left. Nothing else would ever end it.
    fn is_out_of_reach(&mut self, key: Key) -> bool {
        let Some(leg) = self.legs.get_mut(key) else { return false };
        leg.session.unsent += 1;
        u64::from(leg.session.unsent) * RETRY_US >= u64::from(leg.session.interval_s) * 1_000_000 / 2
    }

    /// The answer to our refresh (`msg`: none for a timeout, or when nothing could be sent).
    pub(crate) fn on_refreshed(&mut self, key: Key, code: u16, msg: Option<&Message<'_>>, now: Now) {
        match code {
            200..300 => {
                if let Some(msg) = msg {
                    self.note_session(key, msg);
                }
                self.start_session_timer(key, now);
            }
            408 | 481 => self.drop_peer(key, code, now),
            _ if is_unsent(code, msg) && self.is_out_of_reach(key) => self.drop_peer(key, code, now),
            _ => {
                if let Some(min) = msg.and_then(|m| m.min_se().ok().flatten()).filter(|_| code == 422)
                    && let Some(leg) = self.legs.get_mut(key)
                {
                    leg.session.min_se_s = min;
                    leg.session.interval_s = leg.session.interval_s.max(min);
                }
                if matches!(code, 405 | 501)
                    && let Some(leg) = self.legs.get_mut(key)
                {
                    // It allows less than it said: by re-INVITE from now on.
                    leg.session.update = false;
                }
                self.arm_session(key, RETRY_US, now);
            }
        }
    }

    /// 422 to our first INVITE: once more with the interval that the peer demands (RFC 4028 section 7.3).
    pub(crate) fn retry_interval(&mut self, key: Key, purpose: Purpose, msg: Option<&Message<'_>>, now: Now) -> bool {
        let Some(min) = msg.and_then(|m| m.min_se().ok().flatten()) else { return false };
        let Some(leg) = self.legs.get_mut(key).filter(|l| purpose == Purpose::Initial && l.phase == Phase::Trying)
        else {
            return false;
        };
        let Some(call) = leg.call.and_then(|c| self.calls.get(c)).filter(|_| leg.session.min_se_s == 0) else {
            return false;
        };
        leg.session.min_se_s = min.max(1);
        let source = call.hearing().filter(|(_, message)| *message == key).map_or(call.caller, |(agent, _)| agent);
        let end = leg.offered.then_some(End::Leg(source));
        self.reinvite(key, Purpose::Initial, end, now);
        true
    }

    /// Header lines of a request of ours that sets up or refreshes a session.
    pub(crate) fn push_session_request(&self, session: &crate::leg::Session, out: &mut Vec<u8>) {
        use std::io::Write;
        let least = self.cfg.call.min_se_s.max(session.min_se_s);
        let wish = if session.interval_s > 0 { session.interval_s } else { self.cfg.call.session_expires_s };
        if self.cfg.call.session_expires_s == 0 {
            return;
        }
        let interval = wish.max(least);
        // Writing to a Vec cannot fail. In a refresh the roles are kept by naming the refresher.
        let _ = if session.interval_s > 0 {
            let refresher = if session.we_refresh { "uac" } else { "uas" };
            write!(out, "Session-Expires: {interval};refresher={refresher}\r\nMin-SE: {least}\r\n")
        } else {
            write!(out, "Session-Expires: {interval}\r\nMin-SE: {least}\r\n")
        };
    }

    /// Header lines of a 2xx of ours to their INVITE or UPDATE.
    pub(crate) fn push_session_answer(session: &crate::leg::Session, out: &mut Vec<u8>) {
        use std::io::Write;
        if session.interval_s == 0 {
            return;
        }
        let refresher = if session.we_refresh { "uas" } else { "uac" };
        let _ = write!(out, "Session-Expires: {};refresher={refresher}\r\n", session.interval_s);
        if session.peer_supports && !session.we_refresh {
            out.extend_from_slice(b"Require: timer\r\n");
        }
    }
}
