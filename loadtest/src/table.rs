//! The tables at the end of a run.

use std::fmt;

use crate::{
    phase::Phase,
    report::{Latency, Occurrences, Report},
};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds.max(1e-9);
        writeln!(
            f,
            "calls      offered {}  answered {}  abandoned {}  refused {}  failed {}",
            self.offered, self.answered, self.abandoned, self.refused, self.failed
        )?;
        writeln!(
            f,
            "agents     INVITEs {}  rejected {}  double bookings {}  stuck {}  CDRs expected {}",
            self.agent_invites, self.rejected_by_agents, self.double_bookings, self.agents_stuck, self.cdrs_expected
        )?;
        writeln!(
            f,
            "messages   {} ({:.0}/s)  received twice {}  sent twice {}  dropped by kernel {}  violations {}",
            self.messages,
            self.messages as f64 / seconds,
            self.retransmissions_received,
            self.retransmissions_sent,
            self.dropped_by_kernel,
            self.unexpected
        )?;
        writeln!(
            f,
            "generator  {:.1} s, {:.1} s CPU ({:.0} % of a core), latest arrival {} us behind",
            self.seconds,
            self.cpu_seconds,
            100.0 * self.cpu_seconds / seconds,
            self.latest_arrival_us
        )?;
        writeln!(f, "\n{:<34}{:>9}{:>10}{:>10}{:>10}{:>10}", "latency, us", "count", "p50", "p99", "p99.9", "max")?;
        for phase in Phase::ALL {
            let Latency { count, p50, p99, p999, max, .. } = self.latency(phase);
            writeln!(f, "{:<34}{count:>9}{p50:>10}{p99:>10}{p999:>10}{max:>10}", phase.title())?;
        }
        for (code, count) in &self.refusals {
            writeln!(f, "\nrefused with {code}: {count}")?;
        }
        for (title, map) in [("failed", &self.failures), ("violation", &self.violations)] {
            for (kind, Occurrences { count, first }) in map {
                writeln!(
                    f,
                    "\n{title}: {kind}: {count} times, first:\n    {}",
                    first.trim_end().replace('\n', "\n    ")
                )?;
            }
        }
        Ok(())
    }
}
