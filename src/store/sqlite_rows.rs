//! From what SQLite holds to rows of flows and agents. It stores anything in any column, so every cell is taken as
//! the bytes of its text and read here: one that is not UTF-8 or no number costs its own row only, with a fault.

use super::Provisioned;
use super::names::{Column, Names};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use strowger_engine::registry::{AgentRow, FlowRow, RowFault, Rows, Table};

/// Every column as text, in the order of [`Names`]; rows in the order of insertion.
pub(super) fn select(table: Table, names: &Names) -> String {
    let (name, columns) = names.table(table);
    let cast = |c: &Column| format!("CAST({} AS TEXT)", c.name);
    format!("SELECT {} FROM {name} ORDER BY rowid", columns.iter().map(cast).collect::<Vec<_>>().join(", "))
}

/// Reads what [`select`] found.
pub(super) fn read(flows: &[SqliteRow], agents: &[SqliteRow], names: &Names) -> Provisioned {
    let mut faults = vec![];
    let rows = Rows {
        flows: sound(Table::Flows, names, flows, flow_row, &mut faults),
        agents: sound(Table::Agents, names, agents, agent_row, &mut faults),
    };
    Provisioned { rows, faults }
}

/// The number of a column, what is wrong with its cell, what to do.
struct Unread(usize, String, &'static str);

fn sound<T>(
    table: Table,
    names: &Names,
    rows: &[SqliteRow],
    read: impl Fn(&SqliteRow) -> Result<T, Unread>,
    faults: &mut Vec<RowFault>,
) -> Vec<T> {
    let columns = names.table(table).1;
    let mut good = Vec::with_capacity(rows.len());
    for (n, row) in rows.iter().enumerate() {
        match read(row) {
            Ok(r) => good.push(r),
            Err(Unread(column, what, fix)) => {
                let id = bytes(row, 0).ok().flatten().filter(|b| !b.is_empty());
                let row = id.map_or_else(|| format!("#{}", n + 1), |b| shown(&b));
                let column = columns.get(column).map_or("", |c| c.canonical);
                faults.push(RowFault { table, row, column, what, fix });
            }
        }
    }
    good
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

fn bytes(r: &SqliteRow, column: usize) -> Result<Option<Vec<u8>>, Unread> {
    r.try_get_unchecked(column).map_err(|e| Unread(column, e.to_string(), "write it anew"))
}

fn text(r: &SqliteRow, column: usize) -> Result<Option<String>, Unread> {
    let Some(bytes) = bytes(r, column)? else { return Ok(None) };
    let not_utf8 = |e: std::string::FromUtf8Error| {
        Unread(column, format!("`{}` is not UTF-8", shown(e.as_bytes())), "write it anew in UTF-8")
    };
    String::from_utf8(bytes).map(Some).map_err(not_utf8)
}

/// A whole number, also where another tool has stored it as text (`'7'`) or as a float (`7.0`).
fn number(r: &SqliteRow, column: usize) -> Result<Option<i64>, Unread> {
    let Some(text) = text(r, column)? else { return Ok(None) };
    let digits = text.trim();
    let digits = digits.strip_suffix(".0").unwrap_or(digits);
    let no_number = |_| Unread(column, format!("`{}` is not a whole number", text.escape_debug()), "write digits only");
    digits.parse().map(Some).map_err(no_number)
}

fn flow_row(r: &SqliteRow) -> Result<FlowRow, Unread> {
    Ok(FlowRow {
        flowid: text(r, 0)?,
        priority: number(r, 1)?,
        skill: text(r, 2)?,
        prependcid: text(r, 3)?,
        max_wrapup_time: number(r, 4)?,
        dissuading_hangup: number(r, 5)?,
        dissuading_onhold_th: number(r, 6)?,
        dissuading_ewt_th: number(r, 7)?,
        dissuading_qsize_th: number(r, 8)?,
        message_welcome: text(r, 9)?,
        message_queue: text(r, 10)?,
        message_dissuading: text(r, 11)?,
        message_flow_id: text(r, 12)?,
    })
}

fn agent_row(r: &SqliteRow) -> Result<AgentRow, Unread> {
    Ok(AgentRow {
        agentid: text(r, 0)?,
        location: text(r, 1)?,
        logstate: number(r, 2)?,
        msrp_location: text(r, 3)?,
        msrp_max_sessions: number(r, 4)?,
        skills: text(r, 5)?,
        wrapup_end_time: number(r, 6)?,
        wrapup_time: number(r, 7)?,
    })
}
