//! `get_statistics`, `list_statistics` and `reset_statistics`: the group `call_center`, and our own `strowger` (signalling and CDRs).

use super::MiError;
use super::params::Args;
use crate::control::ControlPlane;
use crate::control::stats::{GROUP, Statistics};
use serde_json::{Map, Value, json};
use std::sync::atomic::Ordering::Relaxed;
use strowger_engine::stats::ShardStats;

/// Our own group.
const OURS: &str = "strowger";

type Read = fn(&ShardStats) -> i64;

/// Counters of the shards in our own group; the last is a gauge.
const SHARDS: [(&str, Read); 10] = [
    ("messages_in", |s| s.messages_in.get()),
    ("messages_out", |s| s.messages_out.get()),
    ("malformed", |s| s.malformed.get()),
    ("retransmissions_in", |s| s.retransmissions_in.get()),
    ("retransmissions_out", |s| s.retransmissions_out.get()),
    ("media_failures", |s| s.media_failures.get()),
    ("internal_errors", |s| s.internal_errors.get()),
    ("refused_calls", |s| s.refused.get()),
    ("shed_calls", |s| s.shed.get()),
    ("calls", |s| s.calls.get()),
];

const CDRS: [&str; 8] = [
    "cdrs_written",
    "cdrs_retried",
    "cdrs_refused",
    "cdrs_waiting",
    "cdrs_in_flight",
    "cdrs_spooled",
    "cdrs_in_spool",
    "cdrs_replayed",
];

/// By name, by `group:`, or `all`; unknown names are left out, as in the reference.
pub fn get(plane: &ControlPlane, args: &Args<'_>) -> Result<Value, MiError> {
    let p = plane.provisioning();
    let mut out = Map::new();
    for asked in args.texts("statistics")? {
        let group = asked.strip_suffix(':');
        if asked == "all" || group == Some(GROUP) {
            out.extend(plane.statistics.all(&p).into_iter().map(|(n, v)| (format!("{GROUP}:{n}"), json!(v))));
        }
        if asked == "all" || group == Some(OURS) {
            out.extend(ours(plane).map(|(n, v)| (format!("{OURS}:{n}"), json!(v))));
        }
        if asked != "all" && group.is_none() {
            let own = asked.strip_prefix("strowger:").unwrap_or(asked);
            let name = asked.strip_prefix("call_center:").unwrap_or(asked);
            if let Some(value) = plane.statistics.get(&p, name) {
                out.insert(format!("{GROUP}:{name}"), json!(value));
            } else if let Some((_, value)) = ours(plane).find(|(n, _)| *n == own) {
                out.insert(format!("{OURS}:{own}"), json!(value));
            }
        }
    }
    Ok(Value::Object(out))
}

/// Counters begin at 0 again: by name, or all of `call_center:`. Our own are not reset.
pub fn reset(plane: &ControlPlane, args: &Args<'_>) -> Result<Value, MiError> {
    let p = plane.provisioning();
    let mut found = false;
    for asked in args.texts("statistics")? {
        if asked == "all" || asked.strip_suffix(':') == Some(GROUP) {
            plane.statistics.reset(&p);
            found = true;
        } else {
            found |= plane.statistics.reset_one(&p, asked.strip_prefix("call_center:").unwrap_or(asked));
        }
    }
    if found { Ok(json!("OK")) } else { Err(MiError::new(404, "Statistics Not Found")) }
}

/// All names, or those asked for.
pub fn list(plane: &ControlPlane, args: &Args<'_>) -> Result<Value, MiError> {
    let p = plane.provisioning();
    let asked = args.texts("statistics").ok();
    if asked.is_none() && args.text("statistics").is_ok_and(|t| t.is_some()) {
        return Err(MiError::invalid_params("Bad type for parameter 'statistics'"));
    }
    let all = Statistics::names(&p).into_iter().map(|(n, counts)| (format!("{GROUP}:{n}"), counts));
    let gauges = ["calls", "cdrs_waiting", "cdrs_in_flight", "cdrs_in_spool"];
    let own = ours(plane).map(|(n, _)| (format!("{OURS}:{n}"), !gauges.contains(&n)));
    let wanted = |name: &str| {
        asked.as_ref().is_none_or(|asked| {
            asked.iter().any(|a| {
                *a == name || name.split_once(':').is_some_and(|(g, n)| n == *a || a.strip_suffix(':') == Some(g))
            })
        })
    };
    let kind = |counts| json!(if counts { "incremental" } else { "non-incremental" });
    Ok(Value::Object(all.chain(own).filter(|(n, _)| wanted(n)).map(|(n, counts)| (n, kind(counts))).collect()))
}

fn ours(plane: &ControlPlane) -> impl Iterator<Item = (&'static str, i64)> + '_ {
    let hub = plane.statistics.hub();
    let c = &plane.cdrs;
    let cdrs = [&c.written, &c.retried, &c.refused, &c.waiting, &c.in_flight, &c.spooled, &c.in_spool, &c.replayed];
    let shards = SHARDS.iter().map(|(n, read)| (*n, hub.sum(*read)));
    shards.chain(CDRS.into_iter().zip(cdrs.map(|v| i64::try_from(v.load(Relaxed)).unwrap_or(i64::MAX))))
}
