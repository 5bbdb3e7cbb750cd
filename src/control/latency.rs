//! What the shards have measured, for people: percentiles of each stage, since the start or over an interval.

use super::cdr::CdrCounts;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde_json::{Map, Value, json};
use strowger_runtime::LatencySnapshot;

/// A stage of the way of a call.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    pub name: &'static str,
    /// Its name among the metrics, in seconds.
    pub metric: &'static str,
    /// What it measures.
    pub what: &'static str,
    pub histogram: fn(&LatencySnapshot) -> &Histogram<u64>,
}

const fn stage(
    name: &'static str,
    metric: &'static str,
    what: &'static str,
    histogram: fn(&LatencySnapshot) -> &Histogram<u64>,
) -> Stage {
    Stage { name, metric, what, histogram }
}

/// The stages, in the order in which a call meets them.
pub const STAGES: [Stage; 10] = [
    stage(
        "receive_to_send",
        "strowger_receive_to_send_seconds",
        "a datagram in the kernel to the answers that it caused on the socket",
        |l| &l.receive_to_send,
    ),
    stage(
        "receive_to_parse",
        "strowger_receive_to_parse_seconds",
        "a datagram in the kernel until its shard began to read it",
        |l| &l.receive_to_parse,
    ),
    stage(
        "parse_to_decision",
        "strowger_parse_to_decision_seconds",
        "from there until the engine had decided what follows",
        |l| &l.parse_to_decision,
    ),
    stage(
        "decision_to_send",
        "strowger_decision_to_send_seconds",
        "from there until the answers were on the socket, the journal's turn included",
        |l| &l.decision_to_send,
    ),
    stage(
        "dispatch",
        "strowger_dispatch_latency_seconds",
        "an agent came free to the INVITE to it on the socket",
        |l| &l.dispatch,
    ),
    stage("mesh", "strowger_mesh_seconds", "handed over to another shard and taken there", |l| &l.mesh),
    stage("timer_lateness", "strowger_timer_lateness_seconds", "a timer due to its being run", |l| &l.timer_lateness),
    stage("turn", "strowger_loop_turn_seconds", "one turn of a shard's loop that had work", |l| &l.turn),
    stage(
        "command_cpu",
        "strowger_command_cpu_seconds",
        "CPU time of a turn that ran a command (a reload, a page of a list)",
        |l| &l.command_cpu,
    ),
    stage(
        "cdr_durable",
        "strowger_cdr_durable_seconds",
        "a CDR handed over by its shard until database or spool had it",
        |l| &l.cdr_durable,
    ),
];

/// Adds what the writer of CDRs has measured.
pub fn add_cdrs(snapshot: &mut LatencySnapshot, cdrs: &CdrCounts) {
    for value in cdrs.latency().durable.iter_recorded() {
        // It grows by itself: every value fits.
        let _ = snapshot.cdr_durable.record_n(value.value_iterated_to() * 1000, value.count_at_value());
    }
}

/// Percentiles that are told, with their names.
pub const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];

/// By stage: count, percentiles in microseconds, and if asked the whole histogram (nanoseconds, HdrHistogram V2, hexadecimal), from
/// which whoever keeps an earlier answer makes an interval.
#[must_use]
pub fn tell(snapshot: &LatencySnapshot, whole: bool) -> Value {
    let mut stages = Map::new();
    for Stage { name, histogram, .. } in STAGES {
        let histogram = histogram(snapshot);
        let mut row = Map::new();
        row.insert("count".into(), json!(histogram.len()));
        for (percentile, value) in percentiles_us(histogram) {
            row.insert(format!("{percentile}_us"), json!(value));
        }
        if whole {
            row.insert("histogram".into(), json!(encode(histogram)));
        }
        stages.insert(name.into(), Value::Object(row));
    }
    Value::Object(stages)
}

/// Of a histogram of nanoseconds; to a tenth of a microsecond.
pub fn percentiles_us(histogram: &Histogram<u64>) -> [(&'static str, f64); 5] {
    #[allow(clippy::cast_precision_loss)] // nanoseconds far below 2^53
    let us = |ns: u64| (ns as f64 / 100.0).round() / 10.0;
    PERCENTILES.map(|(name, p)| (name, us(histogram.value_at_percentile(p))))
}

fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    // Fails only when the buffer does.
    let _ = V2Serializer::new().serialize(histogram, &mut bytes);
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What [`tell`] wrote of a stage; `None` when it is something else.
#[must_use]
pub fn decode(stage: &Value) -> Option<Histogram<u64>> {
    let text = stage["histogram"].as_str()?;
    let pairs =
        text.as_bytes().chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let bytes = pairs.collect::<Option<Vec<u8>>>()?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_can_be_made_of_two_answers() {
        let mut snapshot = LatencySnapshot::merge(&[]);
        snapshot.dispatch.record_n(1_000, 10).unwrap();
        let before = decode(&tell(&snapshot, true)["dispatch"]).unwrap();
        snapshot.dispatch.record_n(90_000, 5).unwrap();
        let told = tell(&snapshot, true);
        assert_eq!((told["dispatch"]["count"].as_u64(), told["dispatch"]["p50_us"].as_f64()), (Some(15), Some(1.0)));
        let mut interval = decode(&told["dispatch"]).unwrap();
        interval.subtract(&before).unwrap();
        assert_eq!((interval.len(), percentiles_us(&interval)[0]), (5, ("p50", 90.0)));
        assert!(decode(&json!({"histogram": "zz"})).is_none() && decode(&json!({})).is_none());
    }
}
