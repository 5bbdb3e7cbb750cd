//! Prometheus text (exposition format 0.0.4): every statistic of the spec, what the shards and the CDR pipeline count, and
//! histograms. Read when asked for; the shards write on as ever.

mod audit;
mod page;

use super::ControlPlane;
use super::cdr::CdrCounts;
use super::latency::{STAGES, Stage};
use page::{Kind, Page};
use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use strowger_engine::Provisioning;
use strowger_engine::stats::{BOUNDS_US, DurationsSum, ShardStats, UNBOUNDED_WAIT_S};
use strowger_runtime::RuntimeCounts;

/// A statistic of the spec as a metric: its name there, ours, its kind, its help.
type Metric = (&'static str, &'static str, Kind, &'static str);

use Kind::{Counter, Gauge};

const PER_FLOW: [Metric; 13] = [
    ("ccf_incalls", "strowger_flow_calls_total", Counter, "Calls received for the flow (ccf_incalls)."),
    (
        "ccf_dist_incalls",
        "strowger_flow_distributed_calls_total",
        Counter,
        "Calls offered to agents (ccf_dist_incalls).",
    ),
    (
        "ccf_answ_incalls",
        "strowger_flow_answered_calls_total",
        Counter,
        "Calls that agents answered (ccf_answ_incalls).",
    ),
    ("ccf_answ_inchats", "strowger_flow_answered_chats_total", Counter, "Of these, chats (ccf_answ_inchats)."),
    (
        "ccf_aban_incalls",
        "strowger_flow_abandoned_calls_total",
        Counter,
        "Calls whose caller left before an agent answered (ccf_aban_incalls).",
    ),
    (
        "ccf_onhold_incalls",
        "strowger_flow_held_calls_total",
        Counter,
        "Calls that were ever put on hold (ccf_onhold_incalls).",
    ),
    ("ccf_onhold_calls", "strowger_flow_onhold_calls", Gauge, "Calls not yet with an agent (ccf_onhold_calls)."),
    ("ccf_onhold_chats", "strowger_flow_onhold_chats", Gauge, "Of these, chats (ccf_onhold_chats)."),
    ("ccf_queued_calls", "strowger_flow_queued_calls", Gauge, "Calls in the queue (ccf_queued_calls)."),
    ("ccf_free_agents", "strowger_flow_free_agents", Gauge, "Free agents with the flow's skill (ccf_free_agents)."),
    (
        "ccf_etw",
        "strowger_flow_estimated_wait_seconds",
        Gauge,
        "Estimated wait of a new call; +Inf without agents (ccf_etw).",
    ),
    ("ccf_awt", "strowger_flow_average_wait_seconds", Gauge, "Mean wait of answered calls (ccf_awt)."),
    (
        "ccf_load",
        "strowger_flow_load_percent",
        Gauge,
        "Calls on hold and busy agents against agents logged in (ccf_load).",
    ),
];

const PER_AGENT: [Metric; 5] = [
    (
        "cca_dist_incalls",
        "strowger_agent_distributed_calls_total",
        Counter,
        "Calls offered to the agent (cca_dist_incalls).",
    ),
    (
        "cca_answ_incalls",
        "strowger_agent_answered_calls_total",
        Counter,
        "Calls that the agent answered (cca_answ_incalls).",
    ),
    ("cca_answ_inchats", "strowger_agent_answered_chats_total", Counter, "Of these, chats (cca_answ_inchats)."),
    (
        "cca_aban_incalls",
        "strowger_agent_abandoned_calls_total",
        Counter,
        "Calls whose caller left while the agent rang (cca_aban_incalls).",
    ),
    ("cca_att", "strowger_agent_average_talk_seconds", Gauge, "Mean talk of the agent's calls (cca_att)."),
];

const GLOBAL: [Metric; 10] = [
    ("ccg_incalls", "strowger_calls_total", Counter, "Calls received (ccg_incalls)."),
    (
        "ccg_distributed_incalls",
        "strowger_distributed_calls_total",
        Counter,
        "Calls offered to agents (ccg_distributed_incalls).",
    ),
    (
        "ccg_answered_incalls",
        "strowger_answered_calls_total",
        Counter,
        "Calls that agents answered (ccg_answered_incalls).",
    ),
    ("ccg_answered_inchats", "strowger_answered_chats_total", Counter, "Of these, chats (ccg_answered_inchats)."),
    (
        "ccg_abandonned_incalls",
        "strowger_abandoned_calls_total",
        Counter,
        "Calls whose caller left before an agent answered (ccg_abandonned_incalls).",
    ),
    ("ccg_onhold_calls", "strowger_onhold_calls", Gauge, "Calls not yet with an agent (ccg_onhold_calls)."),
    ("ccg_onhold_chats", "strowger_onhold_chats", Gauge, "Of these, chats (ccg_onhold_chats)."),
    ("ccg_free_agents", "strowger_free_agents", Gauge, "Free agents (ccg_free_agents)."),
    ("ccg_awt", "strowger_average_wait_seconds", Gauge, "Mean wait of answered calls (ccg_awt)."),
    ("ccg_load", "strowger_load_percent", Gauge, "Calls on hold and busy agents against agents logged in (ccg_load)."),
];

type OfShard = (&'static str, Kind, &'static str, fn(&ShardStats) -> i64);

const PER_SHARD: [OfShard; 10] = [
    ("strowger_sip_messages_received_total", Counter, "SIP messages that the shard took in.", |s| s.messages_in.get()),
    ("strowger_sip_messages_sent_total", Counter, "SIP messages that the shard made.", |s| s.messages_out.get()),
    ("strowger_sip_malformed_total", Counter, "Messages that could not be read.", |s| s.malformed.get()),
    ("strowger_sip_retransmissions_received_total", Counter, "Messages that came again.", |s| {
        s.retransmissions_in.get()
    }),
    ("strowger_sip_retransmissions_sent_total", Counter, "Messages sent again.", |s| s.retransmissions_out.get()),
    ("strowger_media_failures_total", Counter, "Calls to music servers that failed.", |s| s.media_failures.get()),
    ("strowger_internal_errors_total", Counter, "Attempts and calls ended by an error of the server's own.", |s| {
        s.internal_errors.get()
    }),
    ("strowger_refused_calls_total", Counter, "Calls refused at arrival, return codes -1 to -7, or by a rule.", |s| {
        s.refused.get()
    }),
    ("strowger_shed_calls_total", Counter, "Calls refused for overload or drain.", |s| s.shed.get()),
    ("strowger_shard_calls_total", Counter, "Calls that the shard accepted.", |s| s.calls.get()),
];

type OfRuntime = (&'static str, Kind, &'static str, fn(&RuntimeCounts) -> i64);

const RUNTIME: [OfRuntime; 16] = [
    ("strowger_datagrams_received_total", Counter, "Datagrams taken from sockets.", |c| c.received.get()),
    ("strowger_datagrams_forwarded_total", Counter, "Of these, handed to another shard.", |c| c.forwarded.get()),
    ("strowger_datagrams_forward_lost_total", Counter, "Lost because the other shard's ring was full.", |c| {
        c.forward_lost.get()
    }),
    ("strowger_datagrams_kernel_lost_total", Counter, "Lost in the kernel because a socket's buffer was full.", |c| {
        c.kernel_lost.get()
    }),
    ("strowger_datagrams_junk_total", Counter, "No SIP: keep-alives, probes, garbage.", |c| c.junk.get()),
    ("strowger_datagrams_unusable_total", Counter, "Cut by the kernel, or without a usable source.", |c| {
        c.unusable.get()
    }),
    ("strowger_datagrams_rate_limited_total", Counter, "Dropped by the limit per source.", |c| c.rate_limited.get()),
    ("strowger_datagrams_sent_total", Counter, "Datagrams sent.", |c| c.sent.get()),
    ("strowger_datagrams_send_failed_total", Counter, "Datagrams that the kernel refused.", |c| c.send_failed.get()),
    ("strowger_agent_events_lost_total", Counter, "Agent events that the control plane did not take in time.", |c| {
        c.events_lost.get()
    }),
    ("strowger_shard_cdrs_waiting", Gauge, "CDRs that wait for the control plane.", |c| c.cdrs_waiting.get()),
    ("strowger_shard_backlog_calls", Gauge, "New calls that wait for their turn.", |c| c.backlog.get()),
    ("strowger_journal_records_total", Counter, "Records written to the journal.", |c| c.journal_records.get()),
    ("strowger_journal_bytes_total", Counter, "Their bytes.", |c| c.journal_bytes.get()),
    ("strowger_journal_unready_total", Counter, "Segments that the shard had to make itself.", |c| {
        c.journal_unready.get()
    }),
    ("strowger_journal_unwritten", Gauge, "Records that wait for room on the disk; new calls are refused.", |c| {
        c.journal_unwritten.get()
    }),
];

/// Upper bounds of the latencies' buckets, nanoseconds: 10 us to 10 s.
const BOUNDS_NS: [u64; 19] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// The greatest value shown of each counter since the last reset. An answer that turns out to be a refusal is taken back
/// from the statistic; a counter that falls would be read as one that began anew.
#[derive(Debug, Default)]
pub(crate) struct Peaks {
    resets: u64,
    seen: HashMap<Series, i64>,
}

/// A metric, and which flow or agent.
type Series = (&'static str, u64);

impl Peaks {
    /// Begins anew after a reset, and forgets what was not shown last time.
    fn turn(&mut self, resets: u64) -> HashMap<Series, i64> {
        if std::mem::replace(&mut self.resets, resets) == resets {
            std::mem::take(&mut self.seen)
        } else {
            HashMap::new()
        }
    }
}

/// All of it, at this moment.
#[must_use]
pub fn text(plane: &ControlPlane) -> String {
    let p = plane.provisioning();
    let mut page = Page::default();
    page.one("strowger_build_info", Gauge, "The version that runs.", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let started = plane.started_unix_us as f64 / 1e6;
    page.one("strowger_start_time_seconds", Gauge, "When the server started, Unix time.", &[], started);
    let draining = f64::from(u8::from(plane.draining()));
    page.one("strowger_draining", Gauge, "1 while new calls are refused.", &[], draining);
    statistics(plane, &p, &mut page);
    durations(plane, &p, &mut page);
    shards(plane, &mut page);
    audit::audit(plane, &mut page);
    cdrs(plane, &mut page);
    let subscribers = plane.events.list();
    page.one("strowger_event_subscribers", Gauge, "Subscriptions to events.", &[], subscribers.len() as f64);
    let lost = plane.events.lost() as f64;
    page.one("strowger_events_lost_total", Counter, "Events that subscribers missed.", &[], lost);
    rows(plane, &mut page);
    page.text()
}

/// Seconds, of which the largest integer stands for "never".
fn value(name: &str, v: i64) -> f64 {
    if name == "ccf_etw" && v == UNBOUNDED_WAIT_S { f64::INFINITY } else { v as f64 }
}

fn statistics(plane: &ControlPlane, p: &Provisioning, page: &mut Page) {
    let s = &plane.statistics;
    let mut peaks = plane.peaks.lock().unwrap_or_else(PoisonError::into_inner);
    let last = peaks.turn(s.resets());
    let mut put = |page: &mut Page, metric: &Metric, labels: &[(&str, &str)], which: u64, values: &[(&str, i64)]| {
        let (name, metric, kind, _) = *metric;
        let mut v = values.iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v);
        if kind == Counter {
            v = v.max(last.get(&(metric, which)).copied().unwrap_or(0));
            peaks.seen.insert((metric, which), v);
        }
        page.sample(metric, labels, value(name, v));
    };
    let global = s.global_values();
    for metric in &GLOBAL {
        page.family(metric.1, metric.2, metric.3);
        put(page, metric, &[], 0, &global);
    }
    let flows: Vec<_> = p.flows.values().map(|f| (f, s.flow_values(f))).collect();
    for metric in &PER_FLOW {
        page.family(metric.1, metric.2, metric.3);
        for (flow, values) in &flows {
            put(page, metric, &[("flow", &flow.flowid)], u64::from(flow.idx), values);
        }
    }
    let agents = p.agents_by_id.values().filter_map(|a| p.agent(*a));
    let agents: Vec<_> = agents.map(|def| (def, s.agent_values(def))).collect();
    for metric in &PER_AGENT {
        page.family(metric.1, metric.2, metric.3);
        for (def, values) in &agents {
            let which = u64::from(def.agent.slot) << 32 | u64::from(def.agent.gen_);
            put(page, metric, &[("agent", &def.agentid)], which, values);
        }
    }
}

/// Waits by flow and outcome, ringing, talk.
fn durations(plane: &ControlPlane, p: &Provisioning, page: &mut Page) {
    let hub = plane.statistics.hub();
    let bounds = BOUNDS_US.map(|us| us as f64 / 1e6);
    let put = |page: &mut Page, name, labels: &[(&str, &str)], d: DurationsSum| {
        let counts = d.buckets.map(|n| u64::try_from(n).unwrap_or(0));
        page.histogram(name, labels, &bounds, &counts, d.sum_us as f64 / 1e6);
    };
    let wait = "strowger_flow_wait_seconds";
    page.family(wait, Kind::Histogram, "Waits until an agent answered or the caller left.");
    for flow in p.flows.values() {
        let answered = hub.durations(|s| s.flows.peek(flow.idx).map(|f| &f.waits_answered));
        put(page, wait, &[("flow", &flow.flowid), ("outcome", "answered")], answered);
        let abandoned = hub.durations(|s| s.flows.peek(flow.idx).map(|f| &f.waits_abandoned));
        put(page, wait, &[("flow", &flow.flowid), ("outcome", "abandoned")], abandoned);
    }
    page.family("strowger_ring_seconds", Kind::Histogram, "Ringing at agents, of each attempt that ended.");
    put(page, "strowger_ring_seconds", &[], hub.durations(|s| Some(&s.rings)));
    page.family("strowger_talk_seconds", Kind::Histogram, "Talk of calls that agents answered.");
    put(page, "strowger_talk_seconds", &[], hub.durations(|s| Some(&s.talks)));
}

fn shards(plane: &ControlPlane, page: &mut Page) {
    let hub = plane.statistics.hub();
    let count = plane.shards.count();
    for (metric, kind, help, read) in PER_SHARD {
        page.family(metric, kind, help);
        for shard in 0..count {
            page.sample(metric, &[("shard", &shard.to_string())], read(hub.shard(shard)) as f64);
        }
    }
    for (metric, kind, help, read) in RUNTIME {
        page.family(metric, kind, help);
        for shard in 0..count {
            if let Some(value) = plane.shards.count_of(shard, read) {
                page.sample(metric, &[("shard", &shard.to_string())], value as f64);
            }
        }
    }
    if let Some(latency) = plane.latency() {
        let bounds = BOUNDS_NS.map(|ns| ns as f64 / 1e9);
        for Stage { metric, what, histogram, .. } in STAGES {
            page.family(metric, Kind::Histogram, &sentence(what));
            let (counts, sum_ns) = buckets(histogram(&latency), 1);
            page.histogram(metric, &[], &bounds, &counts, sum_ns / 1e9);
        }
    }
}

fn sentence(words: &str) -> String {
    let first = words.chars().next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(words.chars().skip(1)).chain(['.']).collect()
}

/// Counts between the bounds, and the sum in nanoseconds; the histogram's values are in units of so many.
fn buckets(histogram: &hdrhistogram::Histogram<u64>, unit_ns: u64) -> ([u64; BOUNDS_NS.len() + 1], f64) {
    let (mut counts, mut sum) = ([0; BOUNDS_NS.len() + 1], 0.0);
    for step in histogram.iter_recorded() {
        let (ns, n) = (step.value_iterated_to() * unit_ns, step.count_since_last_iteration());
        counts[BOUNDS_NS.partition_point(|bound| *bound < ns)] += n;
        sum += ns as f64 * n as f64;
    }
    (counts, sum)
}

type CdrMetric = (&'static str, Kind, &'static str, fn(&CdrCounts) -> &AtomicU64);

const CDRS: [CdrMetric; 12] = [
    ("strowger_cdrs_written_total", Counter, "CDRs written to the database, replayed ones among them.", |c| &c.written),
    ("strowger_cdr_retries_total", Counter, "Batches of CDRs that were tried again.", |c| &c.retried),
    ("strowger_cdrs_refused_total", Counter, "CDRs that the database refused, set aside in a file.", |c| &c.refused),
    ("strowger_cdrs_queued", Gauge, "CDRs between the shards and the pipeline.", |c| &c.queued),
    ("strowger_cdrs_waiting", Gauge, "CDRs taken from the shards and neither durable nor in flight.", |c| &c.waiting),
    ("strowger_cdrs_in_flight", Gauge, "CDRs in the hands of the database.", |c| &c.in_flight),
    ("strowger_cdrs_spooled_total", Counter, "CDRs that went to the spool.", |c| &c.spooled),
    ("strowger_cdrs_in_spool", Gauge, "CDRs in the spool that the database has not got.", |c| &c.in_spool),
    ("strowger_cdrs_replayed_total", Counter, "CDRs written from the spool.", |c| &c.replayed),
    ("strowger_cdr_spool_torn_total", Counter, "Ends of the spool that a crash had torn, cut at the start.", |c| {
        &c.torn
    }),
    ("strowger_cdr_spool_damaged_total", Counter, "Damaged places in the spool, set aside in a file.", |c| &c.damaged),
    ("strowger_cdr_spool_errors_total", Counter, "Operations of the spool that failed.", |c| &c.spool_errors),
];

fn cdrs(plane: &ControlPlane, page: &mut Page) {
    let c = &plane.cdrs;
    for (metric, kind, help, value) in CDRS {
        page.one(metric, kind, help, &[], value(c).load(Relaxed) as f64);
    }
    for (metric, help, flag) in [
        ("strowger_cdr_database_gone", "1 while the CDR database is gone.", &c.database_gone),
        ("strowger_cdr_spool_failing", "1 while the spool takes no records.", &c.spool_failing),
    ] {
        page.one(metric, Gauge, help, &[], f64::from(u8::from(flag.load(Relaxed))));
    }
    let bounds = BOUNDS_NS.map(|ns| ns as f64 / 1e9);
    let latency = c.latency();
    let (metric, help) =
        ("strowger_cdr_written_seconds", "From hand-over of a CDR until the database had it, without the spool.");
    page.family(metric, Kind::Histogram, help);
    let (counts, sum) = buckets(&latency.written, 1000);
    page.histogram(metric, &[], &bounds, &counts, sum / 1e9);
}

fn rows(plane: &ControlPlane, page: &mut Page) {
    let c = &plane.rows;
    let all = [
        ("strowger_call_rows_written_total", Counter, "Rows of ongoing calls written to cc_calls.", &c.written),
        ("strowger_call_rows_removed_total", Counter, "Rows of calls that are over removed from it.", &c.removed),
        ("strowger_call_row_retries_total", Counter, "Writes to it that failed and were tried again.", &c.retried),
        ("strowger_call_rows_refused_total", Counter, "Rows that the database refused.", &c.refused),
        ("strowger_call_rows_behind", Gauge, "Rows that are not as their calls are.", &c.behind),
    ];
    for (metric, kind, help, value) in all {
        page.one(metric, kind, help, &[], value.load(Relaxed) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::stats::Statistics;

    #[test]
    fn every_statistic_is_a_metric() {
        let [flow, agent, global] = Statistics::families();
        for (names, metrics) in [(&flow[..], &PER_FLOW[..]), (&agent[..], &PER_AGENT[..]), (&global[..], &GLOBAL[..])] {
            for (name, counts) in names {
                let found = metrics.iter().find(|(n, ..)| n == name).unwrap_or_else(|| panic!("{name}"));
                assert_eq!(found.2 == Counter, *counts, "{name}");
                assert_eq!(found.1.ends_with("_total"), *counts, "{name}");
            }
            // The old manual's counter stands beside them.
            let old = usize::from(metrics.len() == PER_FLOW.len());
            assert_eq!(metrics.len(), names.len() + old);
        }
    }

    #[test]
    fn latencies_fall_into_the_bucket_that_bounds_them() {
        let mut h = hdrhistogram::Histogram::new(3).unwrap();
        for ns in [5_000, 90_000, 2_000_000, 60_000_000_000u64] {
            h.record(ns).unwrap();
        }
        let (counts, sum) = buckets(&h, 1);
        assert_eq!((counts[0], counts[3], counts[7], counts[19]), (1, 1, 1, 1));
        assert!((sum - 60_002_095_000.0).abs() < 1e8);
    }
}
