//! Media servers: answer at once, play until BYE or, for a welcome-type message, hang up after a time.

use std::sync::atomic::Ordering::Relaxed;

use crate::{
    client,
    leg::{Label, Leg, LegId, Part, Role},
    play::Play,
    server,
    timers::{Due, Nanos},
};

/// One message being played.
#[derive(Debug)]
pub struct Media {
    /// Index of its plan in the scenario; without one it plays until BYE.
    pub plan: Option<usize>,
    pub hears: Option<Label>,
    pub hung_up: bool,
}

impl Media {
    pub fn new(plan: Option<usize>) -> Self {
        Self { plan, hears: None, hung_up: false }
    }
}

impl Play {
    pub fn media_invited(&mut self, id: LegId) {
        self.cx.live.at_media.fetch_add(1, Relaxed);
        if let Some(leg) = self.legs.get_mut(id) {
            server::answer(leg, &mut self.cx, 200, true);
        }
    }

    /// The dialog stands: a message of limited length starts to play.
    pub fn media_confirmed(&mut self, id: LegId) {
        let Some(Leg { part: Part::Media(media), .. }) = self.legs.get(id) else { return };
        let length = media.plan.and_then(|plan| self.scenario.media[plan].hang_up_after);
        if let Some(length) = length {
            let after = length.sample(&mut self.cx.rng).as_nanos() as Nanos;
            self.cx.timers.set(self.cx.now, after, id, Due::HangUp);
        }
    }

    /// Timer: the message is over.
    pub fn media_hangs_up(&mut self, id: LegId) {
        let Some(leg) = self.legs.get_mut(id).filter(|leg| !leg.over) else { return };
        let Part::Media(media) = &mut leg.part else { return };
        if std::mem::replace(&mut media.hung_up, true) {
            return;
        }
        let listener = media.hears.filter(|label| label.role == Role::Caller);
        client::bye(leg, &mut self.cx);
        let now = self.cx.now;
        if let Some(caller) = listener.and_then(|label| self.caller(label.id)) {
            // What follows a message is a matter of agents only.
            caller.ready = now;
        }
    }

    pub fn media_over(&mut self, id: LegId) {
        self.cx.live.at_media.fetch_sub(1, Relaxed);
        self.over(id);
    }
}
