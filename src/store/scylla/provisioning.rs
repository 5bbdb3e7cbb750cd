//! Flows and agents: a partition of its own for each, under its id. The SQL tables' columns, defaults and required values;
//! no row ids, so rows are in the order of their ids' names.

use super::Cluster;
use super::schema::{self, Wanted};
use crate::config::DbUrl;
use crate::store::names::{Column, Names};
use crate::store::{Cell, Missing, Provisioned, Provisioning, StoreError, Task};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlValue;
use std::collections::HashSet;
use strowger_engine::registry::{AgentRow, FlowRow, Rows, Table};

/// Ids that one query asks for: ScyllaDB allows no more.
const IDS: usize = 100;
const IN_FLIGHT: usize = 16;

/// Flows and agents in ScyllaDB.
pub(in crate::store) struct ScyllaProvisioning {
    cluster: Cluster,
    names: Names,
    flows: Statements,
    agents: Statements,
    wrapup: PreparedStatement,
}

/// Statements on a table.
struct Statements {
    all: PreparedStatement,
    /// Which of some ids are there.
    there: PreparedStatement,
    remove: PreparedStatement,
}

impl Statements {
    async fn new(cluster: &Cluster, table: Table, names: &Names) -> Result<Statements, StoreError> {
        let (name, columns) = names.table(table);
        let place = cluster.table(name);
        let id = columns.first().map_or_else(String::new, |c| super::quoted(&c.name));
        let every: Vec<String> = columns.iter().map(|c| super::quoted(&c.name)).collect();
        Ok(Statements {
            all: cluster.prepare(format!("SELECT {} FROM {place}", every.join(", "))).await?,
            there: cluster.prepare(format!("SELECT {id} FROM {place} WHERE {id} IN ?")).await?,
            remove: cluster.prepare(format!("DELETE FROM {place} WHERE {id} = ?")).await?,
        })
    }
}

impl ScyllaProvisioning {
    pub async fn open(url: &DbUrl, names: Names, missing: Missing) -> Result<ScyllaProvisioning, StoreError> {
        let cluster = Cluster::open(url, missing).await?;
        for (table, version) in [(Table::Flows, 2), (Table::Agents, 3)] {
            let (name, columns) = names.table(table);
            let cql = |c: &Column| if number(c.canonical) { "bigint" } else { "text" };
            let wanted: Vec<Wanted> =
                columns.iter().map(|c| Wanted { name: c.name.clone(), key: c.key, cql: cql(c) }).collect();
            let key = columns.first().map_or_else(String::new, |c| format!("({})", super::quoted(&c.name)));
            schema::ensure(&cluster, &schema::Table { name, version, columns: &wanted, key: &key, with: "" }).await?;
        }
        let flows = Statements::new(&cluster, Table::Flows, &names).await?;
        let agents = Statements::new(&cluster, Table::Agents, &names).await?;
        let column = |c| super::quoted(names.column(Table::Agents, c).unwrap_or(c));
        let (end, id) = (column("wrapup_end_time"), column("agentid"));
        let update = format!("UPDATE {} SET {end} = ? WHERE {id} = ?", cluster.table(&names.agents));
        let wrapup = cluster.prepare(update).await?;
        Ok(ScyllaProvisioning { cluster, names, flows, agents, wrapup })
    }

    fn statements(&self, table: Table) -> &Statements {
        match table {
            Table::Flows => &self.flows,
            Table::Agents => &self.agents,
        }
    }

    async fn rows(&self) -> Result<Provisioned, StoreError> {
        let flows: Vec<FlowCells> = self.cluster.all(&self.flows.all, ()).await?;
        let agents: Vec<AgentCells> = self.cluster.all(&self.agents.all, ()).await?;
        let mut flows: Vec<FlowRow> = flows.into_iter().map(flow_row).collect();
        let mut agents: Vec<AgentRow> = agents.into_iter().map(agent_row).collect();
        // What is left where a wrap-up was noted while its agent was removed: an id and that time.
        agents.retain(|a| {
            let bare =
                AgentRow { agentid: a.agentid.clone(), wrapup_end_time: a.wrapup_end_time, ..AgentRow::default() };
            *a != bare
        });
        flows.sort_by(|a, b| a.flowid.cmp(&b.flowid));
        agents.sort_by(|a, b| a.agentid.cmp(&b.agentid));
        // The types of the columns have been checked: nothing in them cannot be read.
        Ok(Provisioned { rows: Rows { flows, agents }, faults: vec![] })
    }

    /// Those of the ids that have a row.
    async fn there<'a>(&self, table: Table, ids: &[&'a str]) -> Result<HashSet<&'a str>, StoreError> {
        let statement = &self.statements(table).there;
        let queries: Vec<_> = ids.chunks(IDS).map(|ids| self.cluster.all::<(String,)>(statement, (ids,))).collect();
        let found: Vec<Vec<(String,)>> = stream::iter(queries).buffered(IN_FLIGHT).try_collect().await?;
        let found: HashSet<String> = found.into_iter().flatten().map(|(id,)| id).collect();
        Ok(ids.iter().copied().filter(|id| found.contains(*id)).collect())
    }

    async fn put(&self, table: Table, id: &str, cells: &[(&'static str, Cell)]) -> Result<bool, StoreError> {
        let (name, columns) = self.names.table(table);
        let added = self.there(table, &[id]).await?.is_empty();
        let mut all: Vec<(&str, Cell)> = cells.iter().map(|(c, v)| (*c, v.clone())).collect();
        if added {
            let given = |c: &str| cells.iter().any(|(name, _)| *name == c);
            all.extend(DEFAULTS.iter().filter(|(t, c, _)| *t == table && !given(c)).map(|(_, c, n)| (*c, n.cell())));
        }
        for (required, needed) in REQUIRED {
            let cell = all.iter().find(|(c, _)| c == needed).map(|(_, cell)| cell);
            if *required == table && (cell == Some(&Cell::Null) || (added && cell.is_none())) {
                let column = self.names.column(table, needed).unwrap_or(needed);
                return Err(StoreError::Refused(format!("table `{name}`: column `{column}` needs a value")));
            }
        }
        let Some(id_column) = columns.first() else { return Ok(false) };
        let mut named = vec![super::quoted(&id_column.name)];
        let mut values = vec![Some(CqlValue::Text(id.to_owned()))];
        for (canonical, cell) in &all {
            let column = self.names.column(table, canonical);
            let column = column.ok_or_else(|| StoreError::Refused(format!("no column {canonical}")))?;
            named.push(super::quoted(column));
            values.push(value(canonical, cell)?);
        }
        let marks = vec!["?"; named.len()].join(", ");
        // Of a row that is there it changes the columns that it names.
        let insert = format!("INSERT INTO {} ({}) VALUES ({marks})", self.cluster.table(name), named.join(", "));
        let insert = self.cluster.prepare(insert).await?;
        self.cluster.execute(&insert, values).await?;
        Ok(added)
    }

    async fn note(&self, ends: &[(Box<str>, u64)]) -> Result<(), StoreError> {
        let ids: Vec<&str> = ends.iter().map(|(id, _)| &**id).collect();
        let there = self.there(Table::Agents, &ids).await?;
        let known = ends.iter().filter(|(id, _)| there.contains(&**id));
        let writes: Vec<_> = known
            .map(|(id, end)| {
                let end = i64::try_from(*end).unwrap_or(i64::MAX);
                self.cluster.execute(&self.wrapup, (end, &**id))
            })
            .collect();
        stream::iter(writes).buffer_unordered(IN_FLIGHT).try_collect().await
    }
}

impl Provisioning for ScyllaProvisioning {
    fn load(&self) -> Task<'_, Provisioned> {
        Box::pin(self.rows())
    }

    fn set<'a>(&'a self, table: Table, id: &'a str, cells: &'a [(&'static str, Cell)]) -> Task<'a, bool> {
        Box::pin(self.put(table, id, cells))
    }

    fn remove<'a>(&'a self, table: Table, id: &'a str) -> Task<'a, bool> {
        Box::pin(async move {
            let there = !self.there(table, &[id]).await?.is_empty();
            if there {
                self.cluster.execute(&self.statements(table).remove, (id,)).await?;
            }
            Ok(there)
        })
    }

    fn save_wrapups<'a>(&'a self, ends: &'a [(Box<str>, u64)]) -> Task<'a, ()> {
        Box::pin(self.note(ends))
    }
}

fn value(canonical: &str, cell: &Cell) -> Result<Option<CqlValue>, StoreError> {
    let odd = |text: &str| StoreError::Refused(format!("column `{canonical}`: `{text}` is not a whole number"));
    Ok(match (cell, number(canonical)) {
        (Cell::Null, _) => None,
        (Cell::Int(n), true) => Some(CqlValue::BigInt(*n)),
        (Cell::Int(n), false) => Some(CqlValue::Text(n.to_string())),
        (Cell::Text(t), true) => Some(CqlValue::BigInt(t.trim().parse().map_err(|_| odd(t))?)),
        (Cell::Text(t), false) => Some(CqlValue::Text(t.clone())),
    })
}

type Text = Option<String>;
type Number = Option<i64>;

/// In the order of [`Names`].
type FlowCells = (Text, Number, Text, Text, Number, Number, Number, Number, Number, Text, Text, Text, Text);
type AgentCells = (Text, Text, Number, Text, Number, Text, Number, Number);

fn flow_row(c: FlowCells) -> FlowRow {
    FlowRow {
        flowid: c.0,
        priority: c.1,
        skill: c.2,
        prependcid: c.3,
        max_wrapup_time: c.4,
        dissuading_hangup: c.5,
        dissuading_onhold_th: c.6,
        dissuading_ewt_th: c.7,
        dissuading_qsize_th: c.8,
        message_welcome: c.9,
        message_queue: c.10,
        message_dissuading: c.11,
        message_flow_id: c.12,
    }
}

fn agent_row(c: AgentCells) -> AgentRow {
    AgentRow {
        agentid: c.0,
        location: c.1,
        logstate: c.2,
        msrp_location: c.3,
        msrp_max_sessions: c.4,
        skills: c.5,
        wrapup_end_time: c.6,
        wrapup_time: c.7,
    }
}

/// Whether a column holds whole numbers.
fn number(canonical: &str) -> bool {
    matches!(
        canonical,
        "priority"
            | "max_wrapup_time"
            | "dissuading_hangup"
            | "dissuading_onhold_th"
            | "dissuading_ewt_th"
            | "dissuading_qsize_th"
            | "logstate"
            | "msrp_max_sessions"
            | "wrapup_end_time"
            | "wrapup_time"
    )
}

/// What the SQL tables declare `NOT NULL` without a default.
const REQUIRED: &[(Table, &str)] = &[(Table::Flows, "skill"), (Table::Flows, "message_queue")];

/// A default of the SQL tables.
#[derive(Clone, Copy)]
enum Default {
    Number(i64),
    Empty,
}

impl Default {
    fn cell(self) -> Cell {
        match self {
            Default::Number(n) => Cell::Int(n),
            Default::Empty => Cell::Text(String::new()),
        }
    }
}

const DEFAULTS: &[(Table, &str, Default)] = &[
    (Table::Flows, "priority", Default::Number(256)),
    (Table::Flows, "max_wrapup_time", Default::Number(0)),
    (Table::Flows, "dissuading_hangup", Default::Number(0)),
    (Table::Flows, "dissuading_onhold_th", Default::Number(0)),
    (Table::Flows, "dissuading_ewt_th", Default::Number(0)),
    (Table::Flows, "dissuading_qsize_th", Default::Number(0)),
    (Table::Agents, "logstate", Default::Number(0)),
    (Table::Agents, "msrp_max_sessions", Default::Number(4)),
    (Table::Agents, "skills", Default::Empty),
    (Table::Agents, "wrapup_end_time", Default::Number(0)),
    (Table::Agents, "wrapup_time", Default::Number(0)),
];
