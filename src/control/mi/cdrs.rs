//! `cdr_status`: the CDR pipeline at a glance.

use crate::control::ControlPlane;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// States of database and spool, every count of the pipeline, latencies in milliseconds.
pub fn status(plane: &ControlPlane) -> Value {
    let c = &plane.cdrs;
    let counts: [(&str, &AtomicU64); 12] = [
        ("Queued", &c.queued),
        ("Waiting", &c.waiting),
        ("In flight", &c.in_flight),
        ("Written", &c.written),
        ("Retried", &c.retried),
        ("Spooled", &c.spooled),
        ("In spool", &c.in_spool),
        ("Replayed", &c.replayed),
        ("Set aside", &c.refused),
        ("Torn", &c.torn),
        ("Damaged", &c.damaged),
        ("Spool errors", &c.spool_errors),
    ];
    let mut status = Map::new();
    let state = |bad: bool, name: &str| json!(if bad { name } else { "ok" });
    status.insert("Database".to_owned(), state(c.database_gone.load(Relaxed), "gone"));
    status.insert("Spool".to_owned(), state(c.spool_failing.load(Relaxed), "failing"));
    status.extend(counts.map(|(name, count)| (name.to_owned(), json!(count.load(Relaxed)))));
    let latency = c.latency();
    status.insert("Durable [ms]".to_owned(), percentiles(&latency.durable));
    status.insert("Written [ms]".to_owned(), percentiles(&latency.written));
    Value::Object(status)
}

fn percentiles(histogram: &Histogram<u64>) -> Value {
    let ms = |us: u64| us as f64 / 1000.0;
    let at = |q: f64| ms(histogram.value_at_quantile(q));
    json!({"count": histogram.len(), "p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "max": ms(histogram.max())})
}
