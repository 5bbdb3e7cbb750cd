//! The shards' live audits look on. Nobody damages anything here, so whatever one of them finds is a fault of the engine, or of the audit.

use crate::check::{Checked, Violation};
use crate::plan::SECOND;
use crate::world::World;
use strowger_engine::Output;
use strowger_engine::audit::{AGAIN_US, Fault, Report, describe};

/// Steps between two looks of a shard.
const LOOK: u64 = 8;

impl World {
    /// A slice of a shard's audit, now and then.
    pub(crate) fn audit(&mut self, shard: usize) -> Checked {
        // A turn of the runtime takes in what other shards have sent before it audits; here that may come a moment after a stall. And some
        // control planes here take seconds to tell a match, longer than an audit waits.
        let behind = self.plan.hazards.is_behind(self.now) || self.in_flight > 0 && self.plan.net.desk_us > AGAIN_US;
        if behind || !self.steps.is_multiple_of(LOOK) || self.engines[shard].audit_due().0 > self.now {
            return Ok(());
        }
        self.audit_now(shard)
    }

    fn audit_now(&mut self, shard: usize) -> Checked {
        let now = self.clock();
        self.engines[shard].handle_audit(now);
        while let Some(output) = self.engines[shard].poll_output() {
            // What it repairs, after a loss of power, has its records and events.
            match output {
                Output::Audited(report) => self.nothing_is_amiss(&report)?,
                other => self.on_output(shard as u16, other)?,
            }
        }
        self.saw("audited");
        Ok(())
    }

    pub(crate) fn nothing_is_amiss(&mut self, report: &Report) -> Checked {
        if self.ledger.lost_power && report.fault == Fault::ClaimGone {
            // Shards' journals tell of different moments: calls of two may have the same agent.
            self.saw("talk without its agent after a loss of power");
            return Ok(());
        }
        let (fault, call, agent) = (report.fault.name(), report.sip_call_id.as_deref(), report.agent.as_deref());
        let number = |text: Option<&str>, before: &str| text?.strip_prefix(before)?.split('@').next()?.parse().ok();
        let what = format!(
            "audit of shard {}: {fault}, {call:?}, agent {agent:?}: {}",
            report.shard,
            describe(&report.history)
        );
        Err(Violation { what, call: number(call, "call"), agent: number(agent, "a") })
    }

    /// At rest, each shard goes over everything twice.
    pub(crate) fn audits_find_nothing(&mut self) -> Checked {
        let end = self.now + 2 * SECOND + 4 * AGAIN_US;
        while self.now < end {
            (0..self.engines.len()).try_for_each(|shard| self.audit_now(shard))?;
            self.now += AGAIN_US / 2;
        }
        Ok(())
    }
}
