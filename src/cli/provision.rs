//! `strowger flow` and `strowger agent`: write the database, then have the running server read it.

use super::client::{CallError, Client};
use super::{Failure, MiAddress, Settings, runtime, say};
use crate::config::Config;
use crate::store::names::Names;
use crate::store::{Cell, Missing, Provisioned, Provisioning, StoreError, open_provisioning, provisioning_at};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use strowger_engine::registry::{self, AgentRow, FlowRow, Rows, Table};

#[derive(Debug, Subcommand)]
pub(super) enum FlowCommand {
    /// List the flows
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a flow, or change what is given of it
    Set(Box<FlowSet>),
    /// Remove a flow
    Remove {
        /// Id of the flow
        id: String,
        #[command(flatten)]
        address: MiAddress,
    },
}

#[derive(Debug, Args)]
pub(super) struct FlowSet {
    /// Id of the flow: what callers dial
    id: String,
    /// Skill that its calls require
    #[arg(long)]
    skill: Option<String>,
    /// SIP URI of the music for waiting callers
    #[arg(long, value_name = "URI")]
    message_queue: Option<String>,
    /// SIP URI that is played first
    #[arg(long, value_name = "URI")]
    message_welcome: Option<String>,
    /// SIP URI that new callers are diverted to when the wait is long
    #[arg(long, value_name = "URI")]
    message_dissuading: Option<String>,
    /// SIP URI that is played to the agent before the caller is connected
    #[arg(long, value_name = "URI")]
    message_flow_id: Option<String>,
    /// 0 is the highest; 256 when never set
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i64>,
    /// Prefix to the caller's display name
    #[arg(long, value_name = "TEXT")]
    prependcid: Option<String>,
    /// Ceiling on the wrap-up after its calls, seconds; 0 = none
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    max_wrapup_time: Option<i64>,
    /// 1: the call ends when the dissuading destination hangs up
    #[arg(long, value_name = "0|1", allow_negative_numbers = true)]
    dissuading_hangup: Option<i64>,
    /// Seconds in the queue after which a call is diverted; 0 = off
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    dissuading_onhold_th: Option<i64>,
    /// Estimated wait above which a new call is diverted, seconds; 0 = off
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    dissuading_ewt_th: Option<i64>,
    /// Waiting calls from which on a new one is diverted; 0 = off
    #[arg(long, value_name = "CALLS", allow_negative_numbers = true)]
    dissuading_qsize_th: Option<i64>,
    #[command(flatten)]
    address: MiAddress,
}

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// List the agents
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Add an agent, or change what is given of it
    Set(AgentSet),
    /// Remove an agent; a call that it has goes on
    Remove {
        /// Id of the agent
        id: String,
        #[command(flatten)]
        address: MiAddress,
    },
    /// Log an agent in, now and at the next start
    Login {
        /// Id of the agent
        id: String,
        #[command(flatten)]
        address: MiAddress,
    },
    /// Log an agent out, now and at the next start; a call that it has goes on
    Logout {
        /// Id of the agent
        id: String,
        #[command(flatten)]
        address: MiAddress,
    },
}

#[derive(Debug, Args)]
pub(super) struct AgentSet {
    /// Id of the agent
    id: String,
    /// SIP URI for audio calls
    #[arg(long, value_name = "URI")]
    location: Option<String>,
    /// Skills, separated by commas
    #[arg(long, value_name = "SKILLS")]
    skills: Option<String>,
    /// 1: logged in from the start
    #[arg(long, value_name = "0|1", allow_negative_numbers = true)]
    logstate: Option<i64>,
    /// Seconds between two calls; 0 = the global wrapup_time
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    wrapup_time: Option<i64>,
    /// SIP URI for chats
    #[arg(long, value_name = "URI")]
    msrp_location: Option<String>,
    /// Most chats at once
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    msrp_max_sessions: Option<i64>,
    #[command(flatten)]
    address: MiAddress,
}

type Cells = Vec<(&'static str, Cell)>;

/// An empty text takes the value away.
fn text(cells: &mut Cells, column: &'static str, value: &Option<String>) {
    if let Some(v) = value {
        cells.push((column, if v.is_empty() { Cell::Null } else { Cell::Text(v.clone()) }));
    }
}

fn number(cells: &mut Cells, column: &'static str, value: Option<i64>) {
    cells.extend(value.map(|v| (column, Cell::Int(v))));
}

impl FlowSet {
    fn cells(&self) -> Cells {
        let mut c = vec![];
        text(&mut c, "skill", &self.skill);
        text(&mut c, "message_queue", &self.message_queue);
        text(&mut c, "message_welcome", &self.message_welcome);
        text(&mut c, "message_dissuading", &self.message_dissuading);
        text(&mut c, "message_flow_id", &self.message_flow_id);
        text(&mut c, "prependcid", &self.prependcid);
        number(&mut c, "priority", self.priority);
        number(&mut c, "max_wrapup_time", self.max_wrapup_time);
        number(&mut c, "dissuading_hangup", self.dissuading_hangup);
        number(&mut c, "dissuading_onhold_th", self.dissuading_onhold_th);
        number(&mut c, "dissuading_ewt_th", self.dissuading_ewt_th);
        number(&mut c, "dissuading_qsize_th", self.dissuading_qsize_th);
        c
    }
}

impl AgentSet {
    fn cells(&self) -> Cells {
        let mut c = vec![];
        text(&mut c, "location", &self.location);
        text(&mut c, "skills", &self.skills);
        text(&mut c, "msrp_location", &self.msrp_location);
        number(&mut c, "logstate", self.logstate);
        number(&mut c, "wrapup_time", self.wrapup_time);
        number(&mut c, "msrp_max_sessions", self.msrp_max_sessions);
        c
    }
}

pub(super) fn flow(settings: &Settings, command: &FlowCommand) -> Result<(), Failure> {
    let config = settings.load()?.config;
    match command {
        FlowCommand::List { json } => list(&config, Table::Flows, *json),
        FlowCommand::Set(set) => put(&config, Table::Flows, &set.id, &set.cells(), &set.address),
        FlowCommand::Remove { id, address } => remove(&config, Table::Flows, id, address),
    }
}

pub(super) fn agent(settings: &Settings, command: &AgentCommand) -> Result<(), Failure> {
    let config = settings.load()?.config;
    match command {
        AgentCommand::List { json } => list(&config, Table::Agents, *json),
        AgentCommand::Set(set) => put(&config, Table::Agents, &set.id, &set.cells(), &set.address),
        AgentCommand::Remove { id, address } => remove(&config, Table::Agents, id, address),
        AgentCommand::Login { id, address } => login(&config, id, true, address),
        AgentCommand::Logout { id, address } => login(&config, id, false, address),
    }
}

/// Opens the database and does something with it.
fn with_store<T>(
    config: &Config,
    work: impl AsyncFnOnce(&dyn Provisioning) -> Result<T, StoreError>,
) -> Result<T, Failure> {
    let result = runtime()?.block_on(async { work(&*open_provisioning(config).await?).await });
    result.map_err(|e| Failure::Fault(e.to_string()))
}

/// What is there; nothing is made for it.
fn looked_at(config: &Config) -> Result<Provisioned, Failure> {
    let looking = async {
        let names = Names::of(&config.call_center);
        match provisioning_at(&config.call_center.db_url, names, Missing::Tell).await {
            Ok(store) => store.load().await,
            Err(StoreError::Missing { .. }) => Ok(Provisioned::default()),
            Err(e) => Err(e),
        }
    };
    runtime()?.block_on(looking).map_err(|e| Failure::Fault(e.to_string()))
}

fn put(config: &Config, table: Table, id: &str, cells: &Cells, address: &MiAddress) -> Result<(), Failure> {
    let mut rows = looked_at(config)?.rows;
    apply(&mut rows, table, id, cells);
    // A flow and an agent may have one name: the table tells them apart.
    let faults = registry::check(&rows).into_iter().filter(|f| f.table == table && f.row == id.trim());
    let faults: Vec<String> = faults.map(|f| Names::of(&config.call_center).tell(&f)).collect();
    if !faults.is_empty() || id.trim().is_empty() {
        let why = if faults.is_empty() { "the id is empty".to_owned() } else { faults.join("\n") };
        return Err(Failure::Fault(format!("{why}\nnothing was written")));
    }
    let added = with_store(config, async |s| s.set(table, id, cells).await)?;
    say(&format!("{} {id} {}", noun(table), if added { "added" } else { "changed" }));
    reload(config, address).map(drop)
}

fn remove(config: &Config, table: Table, id: &str, address: &MiAddress) -> Result<(), Failure> {
    if !with_store(config, async |s| s.remove(table, id).await)? {
        return Err(no_such(table, id));
    }
    say(&format!("{} {id} removed", noun(table)));
    reload(config, address).map(drop)
}

fn login(config: &Config, id: &str, on: bool, address: &MiAddress) -> Result<(), Failure> {
    let rows = looked_at(config)?.rows;
    if !rows.agents.iter().any(|a| a.agentid.as_deref() == Some(id)) {
        return Err(no_such(Table::Agents, id));
    }
    with_store(config, async |s| s.set(Table::Agents, id, &[("logstate", Cell::Int(on.into()))]).await)?;
    say(&format!("agent {id} logged {}", if on { "in" } else { "out" }));
    // The table may have said so before, and the agent have been logged out by hand since: say it outright.
    match reload(config, address)? {
        Some(client) => client
            .call("cc_agent_login", &json!([id, u8::from(on)]))
            .map(drop)
            .map_err(|e| Failure::Fault(e.to_string())),
        None => Ok(()),
    }
}

/// Has the running server read the database again; `None` when none runs.
fn reload(config: &Config, address: &MiAddress) -> Result<Option<Client>, Failure> {
    if address.mi.is_none() && config.mi.http.is_none() {
        return Ok(None);
    }
    let client = Client::new(address, config)?;
    match client.call("cc_reload", &json!([])) {
        Ok(_) => Ok(Some(client)),
        Err(CallError::Unreachable { .. }) if address.mi.is_none() => {
            eprintln!("strowger: no server at {}; the next start reads it", client.url());
            Ok(None)
        }
        Err(e) => Err(Failure::Fault(e.to_string())),
    }
}

fn no_such(table: Table, id: &str) -> Failure {
    Failure::Fault(format!("there is no {noun} `{id}`; `strowger {noun} list` shows all", noun = noun(table)))
}

fn noun(table: Table) -> &'static str {
    match table {
        Table::Flows => "flow",
        Table::Agents => "agent",
    }
}

/// Lays the cells over the row of that id, or over a new one.
fn apply(rows: &mut Rows, table: Table, id: &str, cells: &Cells) {
    let id = id.to_owned();
    match table {
        Table::Flows => {
            let at = rows.flows.iter().position(|r| r.flowid.as_ref() == Some(&id)).unwrap_or(rows.flows.len());
            if at == rows.flows.len() {
                rows.flows.push(FlowRow { flowid: Some(id), ..FlowRow::default() });
            }
            cells.iter().for_each(|(column, cell)| flow_cell(&mut rows.flows[at], column, cell));
        }
        Table::Agents => {
            let at = rows.agents.iter().position(|r| r.agentid.as_ref() == Some(&id)).unwrap_or(rows.agents.len());
            if at == rows.agents.len() {
                rows.agents.push(AgentRow { agentid: Some(id), ..AgentRow::default() });
            }
            cells.iter().for_each(|(column, cell)| agent_cell(&mut rows.agents[at], column, cell));
        }
    }
}

fn flow_cell(r: &mut FlowRow, column: &str, cell: &Cell) {
    match column {
        "skill" => r.skill = as_text(cell),
        "message_queue" => r.message_queue = as_text(cell),
        "message_welcome" => r.message_welcome = as_text(cell),
        "message_dissuading" => r.message_dissuading = as_text(cell),
        "message_flow_id" => r.message_flow_id = as_text(cell),
        "prependcid" => r.prependcid = as_text(cell),
        "priority" => r.priority = as_number(cell),
        "max_wrapup_time" => r.max_wrapup_time = as_number(cell),
        "dissuading_hangup" => r.dissuading_hangup = as_number(cell),
        "dissuading_onhold_th" => r.dissuading_onhold_th = as_number(cell),
        "dissuading_ewt_th" => r.dissuading_ewt_th = as_number(cell),
        "dissuading_qsize_th" => r.dissuading_qsize_th = as_number(cell),
        _ => {}
    }
}

fn agent_cell(r: &mut AgentRow, column: &str, cell: &Cell) {
    match column {
        "location" => r.location = as_text(cell),
        "skills" => r.skills = as_text(cell),
        "msrp_location" => r.msrp_location = as_text(cell),
        "logstate" => r.logstate = as_number(cell),
        "wrapup_time" => r.wrapup_time = as_number(cell),
        "msrp_max_sessions" => r.msrp_max_sessions = as_number(cell),
        _ => {}
    }
}

fn as_text(cell: &Cell) -> Option<String> {
    if let Cell::Text(s) = cell { Some(s.clone()) } else { None }
}

fn as_number(cell: &Cell) -> Option<i64> {
    if let Cell::Int(i) = cell { Some(*i) } else { None }
}

fn list(config: &Config, table: Table, as_json: bool) -> Result<(), Failure> {
    let Provisioned { rows, faults } = looked_at(config)?;
    for fault in faults.iter().filter(|f| f.table == table) {
        eprintln!("strowger: not listed: {}", Names::of(&config.call_center).tell(fault));
    }
    let rows: Vec<Map<String, Value>> = match table {
        Table::Flows => rows.flows.iter().map(flow_map).collect(),
        Table::Agents => rows.agents.iter().map(agent_map).collect(),
    };
    if as_json {
        say(&serde_json::to_string_pretty(&rows).unwrap_or_default());
        return Ok(());
    }
    let Some(first) = rows.first() else {
        eprintln!("strowger: no {noun}s; `strowger {noun} set --help` tells how to add one", noun = noun(table));
        return Ok(());
    };
    let shown = |v: &Value| match v {
        Value::Null => "-".to_owned(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    let head: Vec<String> = first.keys().cloned().collect();
    let lines: Vec<Vec<String>> =
        std::iter::once(head).chain(rows.iter().map(|r| r.values().map(shown).collect())).collect();
    let widths: Vec<usize> =
        (0..first.len()).map(|c| lines.iter().map(|l| l[c].chars().count()).max().unwrap_or(0)).collect();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, w)| format!("{cell:w$}")).collect();
        say(cells.join("  ").trim_end());
    }
    Ok(())
}

fn flow_map(r: &FlowRow) -> Map<String, Value> {
    let map = json!({
        "flowid": r.flowid, "skill": r.skill, "priority": r.priority, "message_queue": r.message_queue,
        "message_welcome": r.message_welcome, "message_dissuading": r.message_dissuading,
        "message_flow_id": r.message_flow_id, "prependcid": r.prependcid, "max_wrapup_time": r.max_wrapup_time,
        "dissuading_hangup": r.dissuading_hangup, "dissuading_onhold_th": r.dissuading_onhold_th,
        "dissuading_ewt_th": r.dissuading_ewt_th, "dissuading_qsize_th": r.dissuading_qsize_th,
    });
    map.as_object().cloned().unwrap_or_default()
}

fn agent_map(r: &AgentRow) -> Map<String, Value> {
    let map = json!({
        "agentid": r.agentid, "skills": r.skills, "location": r.location, "logstate": r.logstate,
        "wrapup_time": r.wrapup_time, "msrp_location": r.msrp_location, "msrp_max_sessions": r.msrp_max_sessions,
    });
    map.as_object().cloned().unwrap_or_default()
}
