//! The caller's connection to a far end: music, agent, or silence.
//!
//! One reconciler, [`Engine::drive_link`]: it compares what the caller should be connected to with what it is, and
//! takes the next step when the caller's dialog is idle. Every event that may change either side ends in it, so an
//! agent that answers during a re-INVITE, before the ACK, or while the caller itself re-INVITEs needs no case of
//! its own.

use crate::arena::Key;
use crate::attempts::MAX_ERRORS;
use crate::audit::What;
use crate::body::Body;
use crate::books::Outcome;
use crate::call::{End, Link, Mode, Preagent};
use crate::engine::{Engine, TimerKind};
use crate::leg::{Phase, Purpose, Role};
use strowger_sip::time::Now;

/// Least pause after a 491 in a dialog whose Call-ID is ours, microseconds (RFC 3261 section 14.1).
pub(crate) const GLARE_OWN_US: u64 = 2_100_000;

/// Pause before a caller is tried again to whom there was no way, microseconds: longer than a name is remembered as unknown.
const UNREACHABLE_US: u64 = 4_000_000;

/// What is to be done next towards the wanted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The caller's INVITE is answered with that leg's description.
    Answer(Key),
    /// The far end is told the caller's present description.
    Correct(End),
    /// The caller is offered that end.
    Offer(End),
}

impl Engine {
    /// What the caller should be connected to by now; `None`: nothing is there yet.
    fn wanted_end(&self, c: Key) -> Option<End> {
        let call = self.calls.get(c)?;
        let ready = |leg: Key| self.legs.get(leg).is_some_and(|l| l.described());
        if let Some(attempt) = &call.attempt
            && matches!(attempt.pre, Preagent::Off | Preagent::Done)
            && ready(attempt.leg)
        {
            return Some(End::Leg(attempt.leg));
        }
        if let Some(media) = [call.media, call.fading].into_iter().flatten().find(|leg| ready(*leg)) {
            return Some(End::Leg(media));
        }
        (call.media_failures >= 2 && call.attempt.as_ref().is_none_or(|a| a.answered.is_none())).then_some(End::Silence)
    }

    /// Takes the next step towards the wanted connection.
    pub(crate) fn drive_link(&mut self, c: Key, now: Now) {
        self.drive_agent(c, now);
        match self.link_step(c) {
            Some(Step::Answer(leg)) => self.answer_caller(c, leg, now),
            Some(Step::Correct(end)) => self.correct(c, end, now),
            Some(Step::Offer(end)) => self.offer_caller(c, end, now),
            None => {}
        }
    }

    /// The next step, if it can be taken now. Between inputs there is none.
    pub(crate) fn link_step(&self, c: Key) -> Option<Step> {
        let want = self.wanted_end(c)?;
        let call = self.calls.get(c)?;
        let idle = |leg: Key| self.legs.get(leg).is_some_and(|l| l.invite_idle() && !l.offer_pending());
        match (call.link, want) {
            (Link::Fresh, End::Leg(leg)) => Some(Step::Answer(leg)),
            (Link::Fresh, End::Silence) | (Link::Acking(_) | Link::Offering { .. }, _) => None,
            _ if call.glare_timer.is_some() => None,
            (Link::Linked(End::Leg(far)), want) if want == End::Leg(far) => {
                let told = self.legs.get(far).is_none_or(|l| !l.stale);
                (!told && idle(far)).then_some(Step::Correct(want))
            }
            (Link::Linked(end), want) if end == want => None,
            (Link::Linked(_) | Link::Loose, want) => {
                let far_idle = match want {
                    End::Leg(leg) => self.legs.get(leg).is_some_and(|l| l.invite.is_none() && l.inbound.is_none()),
                    End::Silence => true,
                };
                (idle(call.caller) && far_idle).then_some(Step::Offer(want))
            }
        }
    }

    /// Answers the caller's INVITE with the description of `leg`.
    fn answer_caller(&mut self, c: Key, leg: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        call.link = Link::Acking(End::Leg(leg));
        let caller = call.caller;
        self.answer_invite(caller, End::Leg(leg), now);
    }

    /// Re-INVITEs the caller with the description of `end`.
    fn offer_caller(&mut self, c: Key, end: End, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        let before = match call.link {
            Link::Linked(end) => Some(end),
            _ => None,
        };
        call.link = Link::Offering { to: end, before };
        let caller = call.caller;
        self.reinvite(caller, Purpose::Link, Some(end), now);
    }

    /// The caller's ACK to our 2xx of its first INVITE.
    pub(crate) fn on_caller_acked(&mut self, c: Key, answer: Option<Body>, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        let Link::Acking(end) = call.link else { return };
        call.link = Link::Linked(end);
        let caller = call.caller;
        let End::Leg(far) = end else { return };
        let Some(far_leg) = self.legs.get(far).filter(|l| l.call == Some(c)) else {
            self.keep_description(caller, answer);
            self.loosen(c, now);
            return;
        };
        if far_leg.owes_ack.is_some() {
            let Some(answer) = answer else {
                // Our offer was never answered (RFC 3261 section 13.2.1): no session.
                self.end_call(c, Outcome::Abandoned, 488, now);
                return;
            };
            self.keep_description(caller, Some(answer));
            self.ack_owed(far, End::Leg(caller), now);
        }
        self.on_linked(c, end, now);
    }

    /// A connection whose far end went away while it was being made.
    fn loosen(&mut self, c: Key, now: Now) {
        if let Some(call) = self.calls.get_mut(c) {
            call.link = Link::Loose;
        }
        if self.wanted_end(c).is_none() {
            self.want_music(c, now);
        }
        self.drive_link(c, now);
    }

    /// Takes in what a side described last. Far ends that know another of the caller's are to be told.
    pub(crate) fn keep_description(&mut self, key: Key, body: Option<Body>) {
        let (Some(leg), Some(body)) = (self.legs.get_mut(key), body) else { return };
        let changed = leg.remote.as_ref().is_some_and(|old| old.differs_in_media(&body));
        leg.remote = Some(body).into();
        let Some(call) = leg.call.filter(|_| changed && leg.role == Role::Caller).and_then(|c| self.calls.get(c))
        else {
            return;
        };
        for far in [call.media, call.fading, call.attempt.as_ref().map(|a| a.leg)].into_iter().flatten() {
            if let Some(far) = self.legs.get_mut(far).filter(|l| l.described != 0) {
                far.stale = true;
            }
        }
    }

    /// The caller accepted our re-INVITE; `answer` is its description.
    pub(crate) fn on_link_accepted(&mut self, c: Key, answer: Option<Body>, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        let Link::Offering { to, .. } = call.link else { return };
        call.link = Link::Linked(to);
        let caller = call.caller;
        let answered = answer.is_some();
        self.keep_description(caller, answer);
        let End::Leg(far) = to else {
            self.drive_link(c, now);
            return;
        };
        let Some(far_leg) = self.legs.get(far).filter(|l| l.call == Some(c)) else {
            self.loosen(c, now);
            return;
        };
        if far_leg.owes_ack.is_some() {
            if !answered {
                self.link_refused(c, to, 488, now);
                return;
            }
            self.ack_owed(far, End::Leg(caller), now);
        }
        self.on_linked(c, to, now);
    }

    /// Caller and far end are connected.
    fn on_linked(&mut self, c: Key, end: End, now: Now) {
        let End::Leg(far) = end else { return };
        self.remember(c, What::Connected, far.slot as u16);
        let Some(call) = self.calls.get_mut(c) else { return };
        if let Some(attempt) = call.attempt.as_mut().filter(|a| a.leg == far) {
            attempt.bridged = true;
            self.note_answered(c, now);
            self.drop_media(c, now);
        } else if call.media == Some(far)
            && let Some(old) = call.fading.take()
        {
            self.let_go(old, now);
        }
        self.drive_link(c, now);
    }

    /// Tells a far end that knows an old description of the caller's the present one, when it can be told; an agent
    /// at most once (spec: sip.md).
    fn correct(&mut self, c: Key, end: End, now: Now) {
        let End::Leg(far) = end else { return };
        let Some(call) = self.calls.get_mut(c) else { return };
        let caller = call.caller;
        if let Some(attempt) = call.attempt.as_mut().filter(|a| a.leg == far) {
            if attempt.corrected {
                self.attempt_error(c, 488, now);
                return;
            }
            attempt.corrected = true;
        }
        self.reinvite(far, Purpose::Corrective, Some(End::Leg(caller)), now);
    }

    /// The far end's answer to the correction.
    pub(crate) fn on_corrected(&mut self, c: Key, far: Key, answer: Option<Body>, now: Now) {
        let before = self.legs.get(far).and_then(|l| (*l.remote).clone());
        let differs = matches!((&before, &answer), (Some(old), Some(new)) if old.differs_in_media(new));
        self.keep_description(far, answer);
        let agent = self.calls.get(c).and_then(|call| call.attempt.as_ref()).is_some_and(|a| a.leg == far);
        if differs && agent {
            self.attempt_error(c, 488, now);
        } else {
            self.drive_link(c, now);
        }
    }

    /// The far end refused the correction.
    pub(crate) fn on_correction_refused(&mut self, c: Key, far: Key, code: u16, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        let agent = call.attempt.as_mut().filter(|a| a.leg == far);
        match (code, agent) {
            (408 | 481, _) => self.drop_peer(far, code, now),
            (491, agent) => {
                if let Some(attempt) = agent {
                    attempt.corrected = false;
                }
                if let Some(leg) = self.legs.get_mut(far) {
                    leg.stale = true;
                }
                self.pause_for_glare(c, GLARE_OWN_US, now);
            }
            (_, Some(_)) => self.attempt_error(c, code, now),
            // Music goes on as well as it can.
            (_, None) => self.drive_link(c, now),
        }
    }

    /// Our re-INVITE to the caller came to nothing: the session is as it was. What was offered.
    fn link_back(&mut self, c: Key, code: u16, now: Now) -> Option<End> {
        let Some(Link::Offering { to, before }) = self.calls.get(c).map(|call| call.link) else { return None };
        // What it was connected to may have gone meanwhile.
        let there = |end: &End| match end {
            End::Leg(far) => self.legs.get(*far).is_some_and(|l| l.call == Some(c)),
            End::Silence => true,
        };
        let before = before.filter(there);
        let call = self.calls.get_mut(c)?;
        call.history.note(now.mono.since(call.received.mono), What::Unconnected, code);
        call.link = before.map_or(Link::Loose, Link::Linked);
        Some(to)
    }

    /// No way to the caller was found for our re-INVITE: its Contact is of no use, nobody knows the name, the network is down.
    /// That may pass; but one who is gone for good would be kept for ever, as nothing that is sent can tell.
    pub(crate) fn on_caller_unreachable(&mut self, c: Key, code: u16, now: Now) {
        if self.link_back(c, code, now).is_none() {
            return;
        }
        let Some(call) = self.calls.get_mut(c) else { return };
        call.errors += 1;
        if call.errors >= MAX_ERRORS {
            self.caller_gone(c, code, now);
        } else {
            self.pause_invites(c, UNREACHABLE_US, now);
        }
    }

    /// The caller refused our re-INVITE with `code`.
    pub(crate) fn on_link_refused(&mut self, c: Key, code: u16, now: Now) {
        let Some(to) = self.link_back(c, code, now) else { return };
        match code {
            // Both asked at once: again after 0 to 2 s, as this Call-ID is the caller's (section 14.1).
            491 => self.pause_for_glare(c, 0, now),
            408 | 481 => self.caller_gone(c, code, now),
            _ => self.link_refused(c, to, code, now),
        }
    }

    /// The old session stands. With an agent: once more in the other offer mode, then an error of the attempt.
    fn link_refused(&mut self, c: Key, to: End, code: u16, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        let Some(attempt) = call.attempt.as_mut().filter(|a| to == End::Leg(a.leg)) else {
            // Music or silence: the caller stays as it was; it will not be asked again for that.
            if self.wanted_end(c) == Some(to)
                && let Some(call) = self.calls.get_mut(c)
            {
                call.link = Link::Linked(to);
            }
            self.drive_link(c, now);
            return;
        };
        let (leg, mode) = (attempt.leg, attempt.mode);
        let other = if mode == Mode::Caller { Mode::Delayed } else { Mode::Caller };
        let again = !attempt.other_mode;
        attempt.other_mode = true;
        let uri = attempt.agent.address(call.medium).unwrap_or_default().to_owned();
        if again && self.swap_agent_leg(c, leg, uri.as_bytes(), other, now) {
            // Meanwhile the caller hears what else there is.
            self.drive_link(c, now);
        } else {
            self.attempt_error(c, code, now);
            // One who agreed, and said nothing, is with nobody; one whose music began anew meanwhile, too.
            self.drive_link(c, now);
        }
    }

    /// Waits `least` and up to 2 s more before the next re-INVITE (RFC 3261 section 14.1).
    pub(crate) fn pause_for_glare(&mut self, c: Key, least: u64, now: Now) {
        let pause = least + (self.ep.ids().nonce() % 201) * 10_000;
        self.pause_invites(c, pause, now);
    }

    /// No re-INVITE for the call's next connection before `us` have passed.
    pub(crate) fn pause_invites(&mut self, c: Key, us: u64, now: Now) {
        let timer = self.ep.start_timer(now.mono.plus_us(us), c.to_u64(), TimerKind::Glare as u8);
        if let Some(old) = self.calls.get_mut(c).and_then(|call| call.glare_timer.replace(timer)) {
            self.ep.stop_timer(old);
        }
    }

    pub(crate) fn on_glare_over(&mut self, c: Key, now: Now) {
        if let Some(call) = self.calls.get_mut(c) {
            call.glare_timer = None;
            self.drive_link(c, now);
        }
    }

    /// The caller's dialog is dead (408, 481, session timer, no ACK).
    pub(crate) fn caller_gone(&mut self, c: Key, code: u16, now: Now) {
        self.end_call(c, Outcome::Abandoned, code, now);
    }

    /// Whether the leg's dialog still belongs to a call.
    pub(crate) fn leg_call(&self, leg: Key) -> Option<Key> {
        self.legs.get(leg).filter(|l| l.phase != Phase::Closing).and_then(|l| l.call)
    }
}
