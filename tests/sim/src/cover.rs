//! What a record says has happened, counted: a check of a thing that never happens checks nothing.

use crate::ua::{Dialog, Kind, Phase};
use crate::world::World;

impl World {
    pub(crate) fn cover_record(&mut self, cdr: &strowger_engine::Cdr, call: u32) {
        use strowger_engine::cdr::CallType::{Dropped, Handled, InternalError, Rejected};
        let what = match (cdr.call_type, cdr.agent.is_some()) {
            (Handled, _) if cdr.rejected > 0 => "handled after a refusal",
            (Handled, _) => "handled",
            (Rejected, _) if cdr.cause == 0 => "agent's BYE within min_talk",
            (Rejected, _) if cdr.cause == 408 => "agent did not answer",
            (Rejected, _) => "agent refused",
            (Dropped, false) if cdr.fstats == strowger_engine::cdr::fstats::INBOUND => "ended by dissuading2",
            (Dropped, true) => "caller left while the agent rang",
            (Dropped, false) => "caller left the queue",
            (InternalError, true) => "attempt failed by an error",
            (InternalError, false) => "call failed by an error",
        };
        self.saw(what);
        if cdr.flow.message_flow_id.is_none() {
            return;
        }
        let heard = |d: &Dialog| d.kind == Kind::Briefing && d.call == call && d.phase == Phase::Up;
        let hears = self.dialogs.iter().any(|d| heard(d) && !self.ledger.ended_dialogs.contains(&d.call_id));
        match cdr.call_type {
            Handled
                if self
                    .dialogs
                    .iter()
                    .any(|d| d.kind == Kind::Briefing && d.call == call && d.facts.said_2xx.is_some()) =>
            {
                self.saw("briefed agent bridged");
            }
            Rejected if hears && cdr.cause == 0 => self.saw("agent left while briefed"),
            Dropped if hears => self.saw("caller left while briefed"),
            _ => {}
        }
    }
}
