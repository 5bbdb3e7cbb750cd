//! `cc_list_*`, with the reference's keys in the reference's order.

use super::MiError;
use crate::control::{ControlPlane, clock};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use strowger_dispatch::AgentState;
use strowger_engine::CallState;

/// Waiting calls, in the order of service.
pub async fn queue(plane: &ControlPlane) -> Result<Value, MiError> {
    let mut calls = plane.calls(true).await?;
    calls.sort_by_key(|c| (c.flow.priority, c.ticket));
    let now = clock::unix_us();
    let mut ahead: HashMap<u32, i64> = HashMap::new();
    let rows = calls.iter().enumerate().map(|(index, c)| {
        let before = ahead.entry(c.flow.idx).or_default();
        let etw = plane.statistics.wait_behind(&c.flow, *before);
        *before += 1;
        json!({
            "index": index,
            "id": c.id.to_string(),
            "Media": if c.chat { "MSRP" } else { "RTP" },
            "Caller username": c.caller_user,
            "Caller display name": c.caller_display,
            "Waiting for": seconds_since(c.queued_unix_us, now),
            "ETW": etw,
            "Flow": c.flow.flowid,
            "Priority": c.flow.priority,
            "Skill": c.flow.skill_name,
        })
    });
    let rows: Vec<Value> = rows.collect();
    Ok(json!({"Calls": rows}))
}

/// Flows, by id.
pub fn flows(plane: &ControlPlane) -> Value {
    let hub = plane.statistics.hub();
    let p = plane.provisioning();
    let rows = p.flows.values().map(|f| {
        let ongoing = hub.flow(f.idx, |c| c.ongoing.get());
        json!({
            "id": f.flowid,
            "Avg Call Duration": plane.statistics.average_call(f.idx),
            "Processed Calls": hub.flow(f.idx, |c| c.processed.get()),
            "Logged Agents": plane.dispatch.logged_in(f.skill),
            "Ongoing Calls": ongoing,
            "Ref Calls": ongoing,
        })
    });
    let rows: Vec<Value> = rows.collect();
    json!({"Flows": rows})
}

/// Agents, by id.
pub fn agents(plane: &ControlPlane) -> Value {
    let p = plane.provisioning();
    let now = clock::unix_us();
    let mut rows = vec![];
    for (id, agent) in &p.agents_by_id {
        let Some(view) = plane.dispatch.agent(*agent) else { continue };
        let calls = if view.state == AgentState::InCall { 1 } else { u32::from(view.chats_open) };
        let mut row = Map::new();
        row.insert("id".into(), json!(id));
        row.insert("Ref".into(), json!(calls));
        row.insert("Loged in".into(), json!(if view.logged_in { "YES" } else { "NO" }));
        if view.logged_in {
            row.insert("State".into(), json!(state_name(view.state)));
        }
        let ends = plane.statistics.hub().board.peek(agent.slot).map_or(0, |b| b.wrapup_ends());
        if view.logged_in && view.state == AgentState::Wrapup {
            row.insert("Wrapup-ends".into(), json!(ends.saturating_sub(now).div_ceil(1_000_000)));
        }
        if view.state == AgentState::InChat {
            row.insert("Ongoing chats".into(), json!(view.chats_open));
            let taken = view.chats_open.saturating_add(u8::from(view.slot_withheld));
            row.insert("Free chats".into(), json!(view.chat_slots.saturating_sub(taken)));
        }
        rows.push(Value::Object(row));
    }
    json!({"Agents": rows})
}

/// Ongoing calls.
pub async fn calls(plane: &ControlPlane) -> Result<Value, MiError> {
    let now = clock::unix_us();
    let mut rows = vec![];
    for c in plane.calls(false).await? {
        let mut row = Map::new();
        row.insert("id".into(), json!(c.id.to_string()));
        // As in the reference, the queue holds a call too.
        row.insert("Ref".into(), json!(if c.state == CallState::Queued { 2 } else { 1 }));
        row.insert("State".into(), json!(c.state.name()));
        row.insert("Call Time".into(), json!(seconds_since(c.received_unix_us, now)));
        row.insert("Flow".into(), json!(c.flow.flowid));
        if let Some(agent) = &c.agent {
            row.insert("Agent".into(), json!(agent.agentid));
        }
        rows.push(Value::Object(row));
    }
    Ok(json!({"Calls": rows}))
}

fn seconds_since(then_us: u64, now_us: u64) -> u64 {
    now_us.saturating_sub(then_us) / 1_000_000
}

fn state_name(state: AgentState) -> &'static str {
    match state {
        AgentState::Offline => "offline",
        AgentState::Free => "free",
        AgentState::InCall => "incall",
        AgentState::InChat => "inchat",
        AgentState::Wrapup => "wrapup",
    }
}
