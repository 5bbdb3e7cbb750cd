//! `audit`: the live audits of the shards at a glance.

use super::MiError;
use crate::control::{ControlPlane, clock};
use serde_json::{Map, Value, json};
use strowger_engine::audit::{Fault, Findings, Report, describe};
use strowger_engine::{Control, Reply};

/// For each shard what it has looked at and found; faults by name; the latest reports of all, the latest at the end.
pub async fn status(plane: &ControlPlane) -> Result<Value, MiError> {
    let hub = plane.statistics.hub();
    let mut shards = Vec::new();
    let mut reports = Vec::new();
    for shard in 0..plane.shards.count() {
        let asked = plane.shards.ask(shard, Control::Findings).await.map_err(crate::control::ControlError::from)?;
        let findings = if let Reply::Findings(findings) = asked { findings } else { Findings::default() };
        let audit = &hub.shard(shard).audit;
        let busy_ns = plane.shards.count_of(shard, |c| c.audit_ns.get()).unwrap_or(0);
        shards.push(json!({
            "Shard": shard,
            "Sweeps": audit.sweeps.get(),
            "Last sweep [ms]": audit.sweep_us.get() as f64 / 1e3,
            "Looked at": audit.looked.get(),
            "Busy [ms]": (busy_ns / 1000) as f64 / 1e3,
            "Suspects": findings.suspects,
            "Found": audit.found.iter().map(|n| n.get()).sum::<i64>(),
            "Repaired": audit.repaired.get(),
        }));
        reports.extend(findings.reports);
    }
    reports.sort_by_key(|report| report.unix_us);
    let found = |fault: Fault| hub.sum(|shard| shard.audit.found[fault as usize].get());
    let faults = Fault::ALL.into_iter().map(|fault| (fault.name().to_owned(), found(fault))).filter(|(_, n)| *n > 0);
    let faults: Map<String, Value> = faults.map(|(name, n)| (name, json!(n))).collect();
    Ok(json!({"Shards": shards, "Faults": faults, "Reports": reports.iter().map(told).collect::<Vec<_>>()}))
}

fn told(report: &Report) -> Value {
    let Report { unix_us, shard, fault, repaired, agent, call, sip_call_id, history } = report;
    let mut row = Map::new();
    row.insert("Time".to_owned(), json!(clock::ctime(unix_us / 1_000_000)));
    row.insert("Shard".to_owned(), json!(shard));
    row.insert("Fault".to_owned(), json!(fault.name()));
    row.insert("Repaired".to_owned(), json!(repaired));
    let optional = [
        ("Agent", agent.as_ref().map(ToString::to_string)),
        ("Call", call.map(|id| id.to_string())),
        ("Call-ID", sip_call_id.as_ref().map(ToString::to_string)),
        ("History", (!history.is_empty()).then(|| describe(history))),
    ];
    row.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))));
    Value::Object(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_what_is_known_of_it() {
        let bare = Report {
            unix_us: 5_000_000,
            shard: 3,
            fault: Fault::AgentUnheld,
            repaired: true,
            agent: None,
            call: None,
            sip_call_id: None,
            history: Vec::new(),
        };
        let row = told(&bare);
        assert_eq!(row.as_object().unwrap().keys().collect::<Vec<_>>(), ["Time", "Shard", "Fault", "Repaired"]);
        assert_eq!((&row["Shard"], &row["Fault"]), (&json!(3), &json!("agent_unheld")));
        let named = Report { agent: Some("ann".into()), sip_call_id: Some("x@h".into()), ..bare };
        assert_eq!((&told(&named)["Agent"], &told(&named)["Call-ID"]), (&json!("ann"), &json!("x@h")));
    }
}
