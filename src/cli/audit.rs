//! `strowger audit`: what a running server's live audits have found.

use super::client::Client;
use super::{Failure, MiAddress, Settings, say};
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[command(flatten)]
    address: MiAddress,
    /// As JSON, as the management interface gives it
    #[arg(long)]
    json: bool,
}

pub(super) fn audit(settings: &Settings, args: &AuditArgs) -> Result<(), Failure> {
    let client = Client::new(&args.address, &settings.load()?.config)?;
    let answer = client.call("audit", &json!([])).map_err(|e| Failure::Fault(e.to_string()))?;
    if args.json {
        say(&serde_json::to_string_pretty(&answer).unwrap_or_else(|_| answer.to_string()));
    } else {
        say(&table(&answer));
    }
    Ok(())
}

const COLUMNS: [&str; 8] =
    ["Shard", "Sweeps", "Last sweep [ms]", "Looked at", "Busy [ms]", "Suspects", "Found", "Repaired"];

/// A line a shard, then the kinds of what was found, then the latest reports.
fn table(answer: &Value) -> String {
    let rows = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let cell = |column: &str, text: &str| format!("{text:>width$}", width = column.len().max(9) + 2);
    let mut lines = vec![COLUMNS.map(|column| cell(column, column)).concat()];
    lines
        .extend(rows("Shards").iter().map(|row| COLUMNS.map(|column| cell(column, &row[column].to_string())).concat()));
    let faults: Vec<String> =
        answer["Faults"].as_object().into_iter().flatten().map(|(name, n)| format!("{name} {n}")).collect();
    lines.push(if faults.is_empty() {
        "No mismatch was found since the start.".to_owned()
    } else {
        format!("Found since the start: {}", faults.join(", "))
    });
    lines.extend(rows("Reports").iter().map(report));
    lines.join("\n")
}

fn report(row: &Value) -> String {
    let text =
        |name: &str| row[name].as_str().map(|value| format!(" {}={value}", name.to_lowercase())).unwrap_or_default();
    let outcome = if row["Repaired"] == json!(true) { "repaired" } else { "NOT repaired" };
    let fault = row["Fault"].as_str().unwrap_or_default();
    let what = format!("{} shard {}: {fault}, {outcome}", row["Time"].as_str().unwrap_or_default(), row["Shard"]);
    let history = row["History"].as_str().map(|h| format!("\n    {h}")).unwrap_or_default();
    format!("{what}{}{}{}{history}", text("Agent"), text("Call"), text("Call-ID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_shard_and_report() {
        let shard = |n: u32, found: u32| {
            json!({"Shard": n, "Sweeps": 7, "Last sweep [ms]": 20.5, "Looked at": 900, "Busy [ms]": 1.25, "Suspects": 0,
                   "Found": found, "Repaired": found})
        };
        let quiet = table(&json!({"Shards": [shard(0, 0), shard(1, 0)], "Faults": {}, "Reports": []}));
        assert_eq!(quiet.lines().count(), 4);
        assert!(quiet.ends_with("No mismatch was found since the start."), "{quiet}");
        let row = json!({"Time": "Thu Jan  1 00:00:05 1970", "Shard": 1, "Fault": "agent_unheld", "Repaired": true,
                         "Agent": "ann", "Call": "1.2.3", "Call-ID": "x@h", "History": "0 arrived"});
        let told = table(&json!({"Shards": [shard(1, 1)], "Faults": {"agent_unheld": 1}, "Reports": [row]}));
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[2], "Found since the start: agent_unheld 1");
        assert_eq!(
            lines[3],
            "Thu Jan  1 00:00:05 1970 shard 1: agent_unheld, repaired agent=ann call=1.2.3 call-id=x@h"
        );
        assert_eq!(lines[4], "    0 arrived");
    }
}
