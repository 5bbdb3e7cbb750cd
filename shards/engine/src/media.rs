//! Messages to the caller: welcome and music. A failing server never loses the call (spec: sip.md).

use crate::arena::Key;
use crate::audit::What;
use crate::books::Outcome;
use crate::call::{End, Link, Message};
use crate::control::CallState;
use crate::engine::{Engine, TimerKind};
use crate::leg::Role;
use std::borrow::Cow;
use strowger_sip::time::{Mono, Now};

/// A caller whose INVITE is not answered hears again that it is queued, microseconds (RFC 3261 section 13.3.1.1).
const PROGRESS_US: u64 = 60_000_000;
/// How long a server may take to answer, microseconds: Timer B, also for one that said 180 (RFC 3261 section 17.1.1.2).
const ANSWER_US: u64 = 32_000_000;
/// Longest pause between two tries of the music, microseconds.
const MAX_RETRY_US: u64 = 60_000_000;
/// How long an unanswered caller is kept while the music fails, microseconds (Timer C, section 16.6).
const GIVE_UP_US: u64 = 180_000_000;

impl Engine {
    /// Calls the server of `message` for this caller.
    pub(crate) fn start_media(&mut self, c: Key, message: Message, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        call.message = message;
        call.history.note(now.mono.since(call.received.mono), What::Message, message as u16);
        let flow = call.flow.clone();
        let mut uri = Cow::Borrowed(match message {
            Message::Welcome => flow.message_welcome.as_deref().unwrap_or_default().as_bytes(),
            Message::Dissuading => flow.message_dissuading.as_deref().unwrap_or_default().as_bytes(),
            Message::Queue => flow.message_queue.as_bytes(),
        });
        if message == Message::Queue
            && let (Some(param), Some(wait)) = (&self.cfg.call.queue_pos_param, call.wait)
        {
            let ahead = self.dispatch.calls_ahead(wait);
            insert_uri_param(uri.to_mut(), &format!("{param}={ahead}"));
        }
        let caller = call.caller;
        let offer = self.legs.get(caller).filter(|l| l.remote.is_some()).map(|_| caller);
        let opened = self.open_leg(c, Role::Media, &uri, offer, Mono(0), now);
        let Some(call) = self.calls.get_mut(c) else { return };
        call.media = opened;
        let Some(leg) = opened else {
            self.on_media_failed(c, now);
            return;
        };
        let timer = self.ep.start_timer(now.mono.plus_us(ANSWER_US), leg.to_u64(), TimerKind::Ring as u8);
        if let Some(leg) = self.legs.get_mut(leg) {
            leg.timer = Some(timer);
        }
    }

    /// The server's 2xx has come.
    pub(crate) fn on_media_answered(&mut self, c: Key, leg: Key, now: Now) {
        if let Some(timer) = self.legs.get_mut(leg).and_then(|l| l.timer.take()) {
            self.ep.stop_timer(timer);
        }
        if self.legs.get(leg).is_none_or(|l| l.remote.is_none()) {
            self.let_go(leg, now);
            self.on_media_failed(c, now);
            return;
        }
        if let Some(call) = self.calls.get_mut(c) {
            call.media_failures = 0;
            call.stranded = None;
            call.history.note(now.mono.since(call.received.mono), What::Plays, 0);
            if let Some(timer) = call.progress_timer.take() {
                self.ep.stop_timer(timer);
            }
        }
        self.drive_link(c, now);
    }

    /// The server hung up, or its dialog died; its leg is gone.
    pub(crate) fn on_media_ended(&mut self, c: Key, leg: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        call.history.note(now.mono.since(call.received.mono), What::Silent, 0);
        if call.link == Link::Linked(End::Leg(leg)) {
            call.link = Link::Loose;
        }
        if call.fading == Some(leg) {
            call.fading = None;
            self.drive_link(c, now);
            return;
        }
        call.media = None;
        match call.state {
            CallState::Welcome => self.after_welcome(c, now),
            CallState::Dissuading1 | CallState::Dissuading2 => self.after_dissuading(c, now),
            // Music is contracted never to end: try again after a pause.
            _ => self.on_media_failed(c, now),
        }
    }

    /// No message for now: a welcome is skipped, a dissuading message counts as one that hung up, music is retried,
    /// later the caller is kept without.
    pub(crate) fn on_media_failed(&mut self, c: Key, now: Now) {
        self.shard_counts().media_failures.add(1);
        let Some(call) = self.calls.get_mut(c) else { return };
        call.media = None;
        match call.state {
            CallState::Welcome => {
                self.after_welcome(c, now);
                return;
            }
            CallState::Dissuading1 | CallState::Dissuading2 => {
                self.after_dissuading(c, now);
                return;
            }
            _ => {}
        }
        call.media_failures = call.media_failures.saturating_add(1);
        let failures = call.media_failures;
        let fresh = call.link == Link::Fresh;
        let pause =
            (self.cfg.call.media_retry_us << (failures - 1).min(6)).min(MAX_RETRY_US.max(self.cfg.call.media_retry_us));
        let timer = self.ep.start_timer(now.mono.plus_us(pause), c.to_u64(), TimerKind::MediaRetry as u8);
        if let Some(old) = call.media_timer.replace(timer) {
            self.ep.stop_timer(old);
        }
        if fresh {
            self.keep_unanswered(c, now);
        }
        self.drive_link(c, now);
    }

    /// 182 now and every minute to a caller who is not answered yet.
    fn keep_unanswered(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        call.stranded.get_or_insert(now.mono);
        if call.progress_timer.is_some() {
            return;
        }
        let caller = call.caller;
        self.repeat_progress(c, now);
        self.answer_progress(caller, 182, now);
    }

    /// A caller who is not answered within a minute is told again how it stands.
    pub(crate) fn repeat_progress(&mut self, c: Key, now: Now) {
        let timer = self.ep.start_timer(now.mono.plus_us(PROGRESS_US), c.to_u64(), TimerKind::Progress as u8);
        if let Some(old) = self.calls.get_mut(c).and_then(|call| call.progress_timer.replace(timer)) {
            self.ep.stop_timer(old);
        }
    }

    pub(crate) fn on_progress_timer(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        call.progress_timer = None;
        if call.link == Link::Fresh && call.hearing().is_some() {
            let caller = call.caller;
            self.repeat_progress(c, now);
            self.answer_progress(caller, 180, now);
            return;
        }
        if call.link != Link::Fresh || call.attempt.is_some() {
            return;
        }
        let since = call.stranded.unwrap_or(now.mono);
        if now.mono.since(since) >= GIVE_UP_US {
            self.end_call(c, Outcome::Error, 480, now);
        } else {
            self.keep_unanswered(c, now);
        }
    }

    pub(crate) fn on_media_retry(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        call.media_timer = None;
        let answered = call.attempt.as_ref().is_some_and(|a| a.answered.is_some());
        if call.media.is_none() && !answered {
            self.start_media(c, Message::Queue, now);
        }
    }

    /// Lets the media leg go, and every plan to get one.
    pub(crate) fn drop_media(&mut self, c: Key, now: Now) {
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("music-left-up") {
            return;
        }
        let Some(call) = self.calls.get_mut(c) else { return };
        for timer in [call.media_timer.take(), call.progress_timer.take()].into_iter().flatten() {
            self.ep.stop_timer(timer);
        }
        for leg in [call.media.take(), call.fading.take()].into_iter().flatten() {
            self.let_go(leg, now);
        }
    }

    /// The music makes way for another message: it is heard until the caller is connected to that one.
    pub(crate) fn fade_music(&mut self, c: Key, now: Now) {
        let Some(call) = self.calls.get_mut(c) else { return };
        call.media_failures = 0;
        if let Some(timer) = call.media_timer.take() {
            self.ep.stop_timer(timer);
        }
        let Some(leg) = call.media.take() else { return };
        let heard = self.legs.get(leg).is_some_and(|l| l.described());
        let gone = if heard { call.fading.replace(leg) } else { Some(leg) };
        if let Some(gone) = gone {
            if call.link == Link::Linked(End::Leg(gone)) {
                call.link = Link::Loose;
            }
            self.let_go(gone, now);
        }
    }
}

/// Puts `;param` after the URI's own parameters, before its headers, inside angle brackets if there are any.
fn insert_uri_param(uri: &mut Vec<u8>, param: &str) {
    let at = uri.iter().position(|b| matches!(b, b'?' | b'>')).unwrap_or(uri.len());
    let tail = uri.split_off(at);
    uri.push(b';');
    uri.extend_from_slice(param.as_bytes());
    uri.extend_from_slice(&tail);
}

#[cfg(test)]
mod tests {
    use super::insert_uri_param;

    #[test]
    fn the_position_goes_behind_the_parameters_and_before_the_headers() {
        for (uri, want) in [
            ("sip:moh@h", "sip:moh@h;cc_pos=3"),
            ("sip:moh@h;transport=udp", "sip:moh@h;transport=udp;cc_pos=3"),
            ("sip:moh@h?X=1", "sip:moh@h;cc_pos=3?X=1"),
        ] {
            let mut got = uri.as_bytes().to_vec();
            insert_uri_param(&mut got, "cc_pos=3");
            assert_eq!(String::from_utf8(got).unwrap(), want);
        }
    }
}
