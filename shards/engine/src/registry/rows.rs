//! Rows of `cc_flows` and `cc_agents` as a database gives them, and what is wrong with one.

use std::collections::BTreeSet;
use std::fmt;
use strowger_sip::msg::{Scheme, Uri};

/// All rows of both tables.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    pub flows: Vec<FlowRow>,
    pub agents: Vec<AgentRow>,
}

/// A row of `cc_flows`; `None` is NULL.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FlowRow {
    pub flowid: Option<String>,
    pub priority: Option<i64>,
    pub skill: Option<String>,
    pub prependcid: Option<String>,
    pub max_wrapup_time: Option<i64>,
    pub dissuading_hangup: Option<i64>,
    pub dissuading_onhold_th: Option<i64>,
    pub dissuading_ewt_th: Option<i64>,
    pub dissuading_qsize_th: Option<i64>,
    pub message_welcome: Option<String>,
    pub message_queue: Option<String>,
    pub message_dissuading: Option<String>,
    pub message_flow_id: Option<String>,
}

/// A row of `cc_agents`; `None` is NULL.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentRow {
    pub agentid: Option<String>,
    pub location: Option<String>,
    pub msrp_location: Option<String>,
    pub msrp_max_sessions: Option<i64>,
    pub skills: Option<String>,
    pub logstate: Option<i64>,
    pub wrapup_time: Option<i64>,
    /// Unix time, seconds.
    pub wrapup_end_time: Option<i64>,
}

/// Which table a row stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    Flows,
    Agents,
}

/// What is wrong with a row that was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFault {
    pub table: Table,
    /// Its id, or `#N` by its place when it has none.
    pub row: String,
    /// The manuals' name of the column, whatever the database calls it.
    pub column: &'static str,
    pub what: String,
    pub fix: &'static str,
}

impl fmt::Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match self.table {
            Table::Flows => "cc_flows",
            Table::Agents => "cc_agents",
        };
        write!(f, "{table} `{}`: {}: {}; {}", self.row, self.column, self.what, self.fix)
    }
}

/// A flow whose row is sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flow {
    pub flowid: Box<str>,
    pub priority: u32,
    pub skill: Box<str>,
    pub prependcid: Option<Box<str>>,
    pub max_wrapup_s: u32,
    pub dissuading_hangup: bool,
    pub dissuading_onhold_th: u32,
    pub dissuading_ewt_th: u32,
    pub dissuading_qsize_th: u32,
    pub message_welcome: Option<Box<str>>,
    pub message_queue: Box<str>,
    pub message_dissuading: Option<Box<str>>,
    pub message_flow_id: Option<Box<str>>,
}

/// An agent whose row is sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agent {
    pub agentid: Box<str>,
    pub location: Option<Box<str>>,
    pub msrp_location: Option<Box<str>>,
    pub msrp_max_sessions: u8,
    pub skills: Vec<Box<str>>,
    pub logstate: bool,
    pub wrapup_s: u32,
}

/// The sound rows, in order; of two with one id the first. The others become faults.
pub(super) fn check(rows: &Rows, faults: &mut Vec<RowFault>) -> (Vec<Flow>, Vec<Agent>) {
    let flows = sound(Table::Flows, "flowid", &rows.flows, |r| r.flowid.as_deref(), flow, faults);
    let agents = sound(Table::Agents, "agentid", &rows.agents, |r| r.agentid.as_deref(), agent, faults);
    (flows, agents)
}

/// Why a column makes its row unsound: column, what, fix.
type Bad = (&'static str, String, &'static str);

fn sound<R, T>(
    table: Table,
    id_column: &'static str,
    rows: &[R],
    id: impl Fn(&R) -> Option<&str>,
    read: impl Fn(&R, &str) -> Result<T, Bad>,
    faults: &mut Vec<RowFault>,
) -> Vec<T> {
    let mut seen = BTreeSet::new();
    let mut good = Vec::with_capacity(rows.len());
    for (n, row) in rows.iter().enumerate() {
        let name = id(row).map(str::trim).filter(|s| !s.is_empty());
        let result = match name {
            None => Err((id_column, "is empty".to_owned(), "give the row an id")),
            Some(name) if seen.contains(name) => {
                Err((id_column, "is there twice".to_owned(), "keep one of the rows; the first was taken"))
            }
            Some(name) => read(row, name),
        };
        match (result, name) {
            (Ok(t), name) => {
                seen.extend(name);
                good.push(t);
            }
            (Err((column, what, fix)), name) => {
                let row = name.map_or_else(|| format!("#{}", n + 1), str::to_owned);
                faults.push(RowFault { table, row, column, what, fix });
            }
        }
    }
    good
}

fn flow(r: &FlowRow, id: &str) -> Result<Flow, Bad> {
    let skill = optional(r.skill.as_deref());
    let skill = skill.ok_or(("skill", "is empty".to_owned(), "name the skill that the flow's calls require"))?;
    let queue = uri("message_queue", r.message_queue.as_deref())?;
    let queue = queue.ok_or(("message_queue", "is empty".to_owned(), "set it to the SIP URI of the queue's music"))?;
    Ok(Flow {
        flowid: id.into(),
        priority: number("priority", r.priority, 256)?,
        skill: skill.into(),
        prependcid: optional(r.prependcid.as_deref()).map(Box::from),
        max_wrapup_s: number("max_wrapup_time", r.max_wrapup_time, 0)?,
        dissuading_hangup: r.dissuading_hangup.unwrap_or(0) != 0,
        dissuading_onhold_th: number("dissuading_onhold_th", r.dissuading_onhold_th, 0)?,
        dissuading_ewt_th: number("dissuading_ewt_th", r.dissuading_ewt_th, 0)?,
        dissuading_qsize_th: number("dissuading_qsize_th", r.dissuading_qsize_th, 0)?,
        message_welcome: uri("message_welcome", r.message_welcome.as_deref())?,
        message_queue: queue,
        message_dissuading: uri("message_dissuading", r.message_dissuading.as_deref())?,
        message_flow_id: uri("message_flow_id", r.message_flow_id.as_deref())?,
    })
}

fn agent(r: &AgentRow, id: &str) -> Result<Agent, Bad> {
    let location = uri("location", r.location.as_deref())?;
    let msrp_location = uri("msrp_location", r.msrp_location.as_deref())?;
    if location.is_none() && msrp_location.is_none() {
        return Err((
            "location",
            "is empty, and so is msrp_location".to_owned(),
            "set one of them to the agent's SIP URI",
        ));
    }
    let sessions = number("msrp_max_sessions", r.msrp_max_sessions, 4)?;
    let sessions = u8::try_from(sessions).ok().filter(|n| *n > 0);
    let sessions = sessions.ok_or(("msrp_max_sessions", "is out of range".to_owned(), "use 1 to 255"))?;
    let mut skills: Vec<Box<str>> = vec![];
    for skill in r.skills.as_deref().unwrap_or("").split(',').map(str::trim).filter(|s| !s.is_empty()) {
        if !skills.iter().any(|s| **s == *skill) {
            skills.push(skill.into());
        }
    }
    Ok(Agent {
        agentid: id.into(),
        location,
        msrp_location,
        msrp_max_sessions: sessions,
        skills,
        logstate: r.logstate.unwrap_or(0) != 0,
        wrapup_s: number("wrapup_time", r.wrapup_time, 0)?,
    })
}

fn optional(s: Option<&str>) -> Option<&str> {
    s.map(str::trim).filter(|s| !s.is_empty())
}

fn number(column: &'static str, value: Option<i64>, default: u32) -> Result<u32, Bad> {
    let Some(value) = value else { return Ok(default) };
    u32::try_from(value).map_err(|_| (column, format!("{value} is out of range"), "use 0 to 4294967295"))
}

fn uri(column: &'static str, value: Option<&str>) -> Result<Option<Box<str>>, Bad> {
    let Some(value) = optional(value) else { return Ok(None) };
    let clean = !value.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control() || b"<>\"".contains(&b));
    let parsed = Uri::parse(value.as_bytes())
        .ok()
        .filter(|u| clean && matches!(u.scheme, Scheme::Sip | Scheme::Sips) && !u.host.is_empty() && u.port != Some(0));
    let Some(parsed) = parsed else {
        return Err((column, format!("`{}` is not a SIP URI", value.escape_debug()), "write sip:USER@HOST[:PORT]"));
    };
    // Taken as it is, such an address would cost an agent a wrap-up for every call that cannot reach it.
    let udp = parsed.transport().is_none_or(|t| t.eq_ignore_ascii_case(b"udp"));
    if parsed.scheme == Scheme::Sips || !udp {
        let what = format!("`{value}` needs another transport than UDP, which this build does not speak");
        return Err((column, what, "write sip:USER@HOST[:PORT] without a transport"));
    }
    Ok(Some(value.into()))
}
