//! What the shards' live audits do and find.

use super::page::{Kind, Page};
use crate::control::ControlPlane;
use strowger_engine::audit::Fault;
use strowger_engine::stats::AuditCounts;

type Metric = (&'static str, Kind, &'static str, fn(&AuditCounts) -> f64);

const PER_SHARD: [Metric; 4] = [
    (
        "strowger_audit_sweeps_total",
        Kind::Counter,
        "Times that the audit has gone over all that the shard holds.",
        |a| a.sweeps.get() as f64,
    ),
    ("strowger_audit_sweep_seconds", Kind::Gauge, "How long the last of them took.", |a| a.sweep_us.get() as f64 / 1e6),
    ("strowger_audit_looked_total", Kind::Counter, "Agents, queue entries, calls, legs and flows looked at.", |a| {
        a.looked.get() as f64
    }),
    ("strowger_audit_repaired_total", Kind::Counter, "Mismatches that a repair has ended.", |a| {
        a.repaired.get() as f64
    }),
];

pub(super) fn audit(plane: &ControlPlane, page: &mut Page) {
    let hub = plane.statistics.hub();
    let shards: Vec<(u16, String)> = (0..plane.shards.count()).map(|n| (n, n.to_string())).collect();
    for (metric, kind, help, read) in PER_SHARD {
        page.family(metric, kind, help);
        for (n, shard) in &shards {
            page.sample(metric, &[("shard", shard)], read(&hub.shard(*n).audit));
        }
    }
    let metric = "strowger_audit_busy_seconds_total";
    page.family(metric, Kind::Counter, "CPU time spent in it.");
    for (n, shard) in &shards {
        if let Some(ns) = plane.shards.count_of(*n, |c| c.audit_ns.get()) {
            page.sample(metric, &[("shard", shard)], ns as f64 / 1e9);
        }
    }
    let metric = "strowger_audit_faults_total";
    page.family(metric, Kind::Counter, "Mismatches found, by kind.");
    for (n, shard) in &shards {
        for fault in Fault::ALL {
            let found = hub.shard(*n).audit.found[fault as usize].get();
            page.sample(metric, &[("shard", shard), ("fault", fault.name())], found as f64);
        }
    }
}
