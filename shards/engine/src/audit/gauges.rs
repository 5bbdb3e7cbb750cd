//! Gauges of flows against the calls that there are, counted in one go.

use super::{Fault, Found, RECOUNT, SCANNED, mark};
use crate::control::CallState;
use crate::engine::Engine;
use strowger_dispatch::Media;

/// On hold, chats on hold, queued, ongoing.
pub(super) type Gauges = [i64; 4];

/// The last recount, by flow.
#[derive(Debug, Default)]
pub(super) struct Recount {
    counted: Vec<Gauges>,
    /// Nothing has happened since.
    fresh: bool,
}

impl Recount {
    pub(super) fn extent(&self) -> u32 {
        u32::try_from(self.counted.len()).unwrap_or(u32::MAX)
    }

    /// Something may have happened.
    pub(super) fn spoil(&mut self) {
        self.fresh = false;
    }
}

impl Engine {
    /// Counts the calls of each flow; of too many calls, of none.
    pub(super) fn recount(&mut self) {
        if std::mem::replace(&mut self.auditor.gauges.fresh, true) {
            return;
        }
        let mut counted = std::mem::take(&mut self.auditor.gauges.counted);
        counted.clear();
        if self.calls.extent() as usize <= SCANNED && self.calls.len() <= RECOUNT {
            let most = self.prov.flows.values().map(|flow| flow.idx as usize + 1).max().unwrap_or(0);
            counted.resize(most, Gauges::default());
            for (_, call) in (0..self.calls.extent()).filter_map(|slot| self.calls.at(slot)) {
                let Some(flow) = counted.get_mut(call.flow.idx as usize) else { continue };
                let chat = call.medium == Media::Chat;
                let adds = [call.onhold, call.onhold && chat, call.state == CallState::Queued, true];
                flow.iter_mut().zip(adds).for_each(|(n, add)| *n += i64::from(add));
            }
        }
        self.auditor.gauges.counted = counted;
    }

    /// By how much the gauges of a flow are too high.
    fn drift(&self, idx: u32) -> Gauges {
        let Some(is) = self.auditor.gauges.counted.get(idx as usize) else { return Gauges::default() };
        let Some(says) = self.stats.shard(self.shard).flows.peek(idx) else { return is.map(|n| -n) };
        let says = [says.onhold.get(), says.onhold_chats.get(), says.queued.get(), says.ongoing.get()];
        std::array::from_fn(|i| says[i] - is[i])
    }

    pub(super) fn look_at_flow(&self, idx: u32) -> Option<Found> {
        let drift = self.drift(idx);
        (drift != Gauges::default()).then(|| (Fault::GaugeWrong, mark(&drift.map(|n| n as u64))))
    }

    pub(super) fn mend_gauges(&mut self, idx: u32) {
        self.recount();
        let drift = self.drift(idx);
        let counts = self.stats.shard(self.shard).flows.at(idx);
        let gauges = [&counts.onhold, &counts.onhold_chats, &counts.queued, &counts.ongoing];
        gauges.into_iter().zip(drift).for_each(|(gauge, drift)| gauge.add(-drift));
    }
}
