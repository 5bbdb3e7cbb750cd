//! The file of what is set aside: one JSON object a line, and why. Behind a crash a line may stand there twice.

use super::machine::Aside;
use super::spool::Damage;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use strowger_engine::CdrRow;

/// Appends the items to the file; they are on the disk when this returns. Blocks on the disk.
pub(super) fn set_aside(path: &Path, items: &[Aside]) {
    let lines: String = items.iter().map(|item| value(item).to_string() + "\n").collect();
    let why = items.first().map(why).unwrap_or_default();
    match append(path, lines.as_bytes()) {
        Ok(()) => tracing::error!(why, records = items.len(), file = %path.display(), "CDRs set aside"),
        // The log is the last place left.
        Err(error) => {
            tracing::error!(why, %error, file = %path.display(), lines, "CDRs could not be set aside; here they are");
        }
    }
}

fn append(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

fn why(item: &Aside) -> String {
    match item {
        Aside::Refused { why, .. } => format!("refused by the database: {why}"),
        Aside::Stopped { .. } => "neither the database nor the spool took it until the process stopped".to_owned(),
        Aside::Damaged(d) => format!("damaged in the spool: {}", d.why),
        Aside::Unreadable { why, .. } => format!("unreadable in the journal: {why}"),
    }
}

fn value(item: &Aside) -> Value {
    match item {
        Aside::Refused { row, .. } | Aside::Stopped { row } => record(row, &why(item)),
        Aside::Damaged(Damage { segment, offset, bytes, .. }) => {
            json!({"why": why(item), "segment": segment, "offset": offset, "bytes": hex(bytes)})
        }
        Aside::Unreadable { bytes, .. } => json!({"why": why(item), "bytes": hex(bytes)}),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn record(c: &CdrRow, why: &str) -> Value {
    json!({
        "why": why, "key": format!("{:032x}", c.key), "call_id": c.call.to_string(), "sip_call_id": c.sip_call_id, "caller": c.caller,
        "received_us": c.received_unix_us, "wait_us": c.wait_us, "pickup_us": c.pickup_us, "talk_us": c.talk_us,
        "talk_time": c.talk_s, "flow_id": c.flow_id, "agent_id": c.agent_id,
        "call_type": c.call_type, "rejected": c.rejected, "fstats": c.fstats, "cid": c.cid, "media": c.media,
        "cause": c.cause, "param": c.param,
    })
}
