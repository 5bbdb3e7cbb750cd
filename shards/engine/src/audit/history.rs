//! What happened to a call last: a small ring in the call, for reports. It is not in the journal; after a restart it begins anew.

use super::Fault;
use crate::control::CallState;

/// Moments that are kept.
const KEPT: usize = 8;

/// What happened. The number with it is in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum What {
    Arrived,
    /// After a restart.
    Revived,
    /// Its state changed (state).
    State,
    /// It entered the waiting set (wait slot).
    Queued,
    /// An agent was given to it (agent's slot).
    Offered,
    /// The agent answered.
    Answered,
    /// The agent did not take it (code).
    Refused,
    /// The attempt failed by our side (code).
    Failed,
    /// A message server is called (message).
    Message,
    /// It answered.
    Plays,
    /// It hung up, or failed.
    Silent,
    /// The caller is connected to a far end (slot of its leg).
    Connected,
    /// The caller refused that (code).
    Unconnected,
    /// An audit mended something (fault).
    Mended,
}

/// One moment of a call, as told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since it came, milliseconds.
    pub ms: u32,
    pub what: &'static str,
    pub number: u16,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    ms: u32,
    number: u16,
    what: What,
}

/// The last moments; 68 bytes, no allocation.
#[derive(Debug, Clone)]
pub(crate) struct History {
    ring: [Entry; KEPT],
    /// Moments so far.
    pub total: u32,
}

impl History {
    pub fn new(first: What) -> History {
        let mut history = History { ring: [Entry { ms: 0, number: 0, what: first }; KEPT], total: 0 };
        history.note(0, first, 0);
        history
    }

    /// `age_us`: since the call came.
    pub fn note(&mut self, age_us: u64, what: What, number: u16) {
        let ms = u32::try_from(age_us / 1000).unwrap_or(u32::MAX);
        self.ring[self.total as usize % KEPT] = Entry { ms, number, what };
        self.total = self.total.wrapping_add(1);
    }

    /// The moments that are kept, the latest at the end.
    pub fn moments(&self) -> Vec<Moment> {
        let kept = self.total.min(KEPT as u32);
        let entries = (self.total - kept..self.total).map(|n| &self.ring[n as usize % KEPT]);
        entries.map(|e| Moment { ms: e.ms, what: e.what.word(e.number), number: e.number }).collect()
    }
}

impl What {
    fn word(self, number: u16) -> &'static str {
        match self {
            What::Arrived => "arrived",
            What::Revived => "revived",
            What::State => state(number),
            What::Queued => "entry",
            What::Offered => "offered",
            What::Answered => "answered",
            What::Refused => "refused",
            What::Failed => "failed",
            What::Message => "message",
            What::Plays => "plays",
            What::Silent => "silent",
            What::Connected => "connected",
            What::Unconnected => "unconnected",
            What::Mended => Fault::ALL.get(usize::from(number)).map_or("mended", |fault| fault.name()),
        }
    }
}

fn state(number: u16) -> &'static str {
    use CallState::{Dissuading1, Dissuading2, Ended, Preagent, Queued, ToAgent, Welcome};
    let states = [Welcome, Dissuading1, Dissuading2, Queued, Preagent, ToAgent, Ended];
    states.iter().find(|s| **s as u16 == number).map_or("state", |s| s.name())
}

/// A history in a line: `0 arrived, 3 toagent, 3 offered(7), ..`, times in milliseconds since the call came.
#[must_use]
pub fn describe(history: &[Moment]) -> String {
    let moment = |m: &Moment| match m.number {
        0 => format!("{} {}", m.ms, m.what),
        n => format!("{} {}({n})", m.ms, m.what),
    };
    history.iter().map(moment).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_keeps_the_last_moments_in_their_order() {
        let mut history = History::new(What::Arrived);
        assert_eq!(describe(&history.moments()), "0 arrived");
        history.note(3_500, What::State, CallState::ToAgent as u16);
        history.note(4_000, What::Offered, 7);
        assert_eq!(describe(&history.moments()), "0 arrived, 3 toagent(6), 4 offered(7)");
        for n in 0..20 {
            history.note(5_000_000 + n, What::Refused, 486);
        }
        history.note(9_000_000, What::Mended, Fault::LinkIdle as u16);
        let moments = history.moments();
        assert_eq!((moments.len(), moments[0].what, moments[7].what), (8, "refused", "link_idle"));
        assert!(size_of::<History>() <= 68);
    }
}
