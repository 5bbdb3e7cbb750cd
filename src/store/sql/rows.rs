//! From cells to rows of flows and agents. A cell that is not UTF-8 or no number costs its own row only, with a fault.

use super::super::Provisioned;
use super::super::names::Names;
use super::session::Cells;
use strowger_engine::registry::{AgentRow, FlowRow, RowFault, Rows, Table};

/// A cell as text, when it is one.
pub(super) fn word(row: &Cells, column: usize) -> Option<String> {
    String::from_utf8(row.get(column)?.clone()?).ok()
}

/// Reads what was selected in the order of [`Names`].
pub(super) fn read(flows: &[Cells], agents: &[Cells], names: &Names) -> Provisioned {
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
    rows: &[Cells],
    read: impl Fn(&Cells) -> Result<T, Unread>,
    faults: &mut Vec<RowFault>,
) -> Vec<T> {
    let columns = names.table(table).1;
    let mut good = Vec::with_capacity(rows.len());
    for (n, row) in rows.iter().enumerate() {
        match read(row) {
            Ok(r) => good.push(r),
            Err(Unread(column, what, fix)) => {
                let id = row.first().and_then(Option::as_deref).filter(|b| !b.is_empty());
                let row = id.map_or_else(|| format!("#{}", n + 1), shown);
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

fn text(r: &Cells, column: usize) -> Result<Option<String>, Unread> {
    let Some(bytes) = r.get(column).and_then(Option::as_ref) else { return Ok(None) };
    let not_utf8 = |_| Unread(column, format!("`{}` is not UTF-8", shown(bytes)), "write it anew in UTF-8");
    std::str::from_utf8(bytes).map(|s| Some(s.to_owned())).map_err(not_utf8)
}

/// A whole number, also where another tool has stored it as text (`'7'`) or as a float (`7.0`).
fn number(r: &Cells, column: usize) -> Result<Option<i64>, Unread> {
    let Some(text) = text(r, column)? else { return Ok(None) };
    let digits = text.trim();
    let digits = digits.strip_suffix(".0").unwrap_or(digits);
    let no_number = |_| Unread(column, format!("`{}` is not a whole number", text.escape_debug()), "write digits only");
    digits.parse().map(Some).map_err(no_number)
}

fn flow_row(r: &Cells) -> Result<FlowRow, Unread> {
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

fn agent_row(r: &Cells) -> Result<AgentRow, Unread> {
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
