//! Copies between any two back ends: flows and agents row by row, CDRs page by page with their keys.
//!
//! A copy that was cut short goes on where it was, or from the beginning: keys see to it that no record is doubled.

use super::{CdrPage, CdrRow, CdrStore, Cell, Provisioned, Provisioning, StoreError};
use std::time::Duration;
use strowger_engine::CallId;
use strowger_engine::registry::{AgentRow, FlowRow, RowFault, Table};

/// Records that are read at once.
const PAGE: usize = 1024;
/// How often a database that fails is tried again, with a pause that doubles.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// What has become of the rows of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    pub added: u64,
    /// They were there, and are as in the source now.
    pub changed: u64,
    /// What the source or the target says against a row: the others are copied.
    pub refused: Vec<String>,
}

/// Flows, then agents. `tell` words a fault of a row that the source cannot read.
///
/// # Errors
/// When a database fails; what is copied by then stays.
pub async fn copy_provisioning(
    from: &dyn Provisioning,
    to: &dyn Provisioning,
    tell: impl Fn(&RowFault) -> String,
) -> Result<(Copied, Copied), StoreError> {
    let Provisioned { rows, faults } = again(|| from.load()).await?;
    let told = |table| faults.iter().filter(|f| f.table == table).map(&tell).collect();
    let mut flows = Copied { refused: told(Table::Flows), ..Copied::default() };
    for row in &rows.flows {
        put(to, Table::Flows, row.flowid.as_deref(), &flow_cells(row), &mut flows).await?;
    }
    let mut agents = Copied { refused: told(Table::Agents), ..Copied::default() };
    for row in &rows.agents {
        put(to, Table::Agents, row.agentid.as_deref(), &agent_cells(row), &mut agents).await?;
    }
    Ok((flows, agents))
}

async fn put(
    to: &dyn Provisioning,
    table: Table,
    id: Option<&str>,
    cells: &[(&'static str, Cell)],
    copied: &mut Copied,
) -> Result<(), StoreError> {
    let Some(id) = id else {
        copied.refused.push("a row without an id".to_owned());
        return Ok(());
    };
    match again(|| to.set(table, id, cells)).await {
        Ok(true) => copied.added += 1,
        Ok(false) => copied.changed += 1,
        Err(StoreError::Refused(what)) => copied.refused.push(format!("`{id}`: {what}")),
        Err(e) => return Err(e),
    }
    Ok(())
}

/// One page of records; `source` names where they come from, always in the same words.
///
/// # Errors
/// When a database fails again and again.
pub async fn copy_page(
    from: &dyn CdrStore,
    to: &dyn CdrStore,
    source: &str,
    after: Option<&str>,
    copied: &mut Copied,
) -> Result<Option<String>, StoreError> {
    let CdrPage { mut rows, next } = again(|| from.read(after, PAGE)).await?;
    rows.iter_mut().for_each(|r| r.key = key(r, source));
    match again(|| to.write(&rows)).await {
        Ok(new) => copied.count(new, rows.len()),
        Err(StoreError::Refused(_)) => {
            for row in &rows {
                match again(|| to.write(std::slice::from_ref(row))).await {
                    Ok(new) => copied.count(new, 1),
                    Err(StoreError::Refused(what)) => copied.refused.push(format!("{:032x}: {what}", row.key)),
                    Err(e) => return Err(e),
                }
            }
        }
        Err(e) => return Err(e),
    }
    Ok(next)
}

impl Copied {
    fn count(&mut self, new: usize, all: usize) {
        self.added += new as u64;
        self.changed += all.saturating_sub(new) as u64;
    }
}

/// Records of other programs have the ids of their rows for keys, which two sources may share: they get the source's
/// mark, high above the keys of ours, which begin with a time.
fn key(row: &CdrRow, source: &str) -> u128 {
    let foreign = row.call == CallId { shard: 0, slot: 0, generation: 0 } && row.key <= u128::from(u64::MAX);
    if !foreign {
        return row.key;
    }
    (u128::from(u32::MAX) << 96) | (u128::from(crc32fast::hash(source.as_bytes())) << 64) | row.key
}

/// Tries again what may help.
async fn again<T, F: Future<Output = Result<T, StoreError>>>(mut work: impl FnMut() -> F) -> Result<T, StoreError> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match work().await {
            Err(StoreError::Failed(_)) => tokio::time::sleep(pause).await,
            result => return result,
        }
        pause *= 2;
    }
    work().await
}

fn text(value: &Option<String>) -> Option<Cell> {
    Some(value.clone().map_or(Cell::Null, Cell::Text))
}

/// Columns that are never empty keep their default where the source has nothing.
fn given(value: &Option<String>) -> Option<Cell> {
    value.clone().map(Cell::Text)
}

fn number(value: Option<i64>) -> Option<Cell> {
    value.map(Cell::Int)
}

type Cells = Vec<(&'static str, Cell)>;

fn present(cells: impl IntoIterator<Item = (&'static str, Option<Cell>)>) -> Cells {
    cells.into_iter().filter_map(|(column, cell)| Some((column, cell?))).collect()
}

fn flow_cells(r: &FlowRow) -> Cells {
    present([
        ("priority", number(r.priority)),
        ("skill", given(&r.skill)),
        ("prependcid", text(&r.prependcid)),
        ("max_wrapup_time", number(r.max_wrapup_time)),
        ("dissuading_hangup", number(r.dissuading_hangup)),
        ("dissuading_onhold_th", number(r.dissuading_onhold_th)),
        ("dissuading_ewt_th", number(r.dissuading_ewt_th)),
        ("dissuading_qsize_th", number(r.dissuading_qsize_th)),
        ("message_welcome", text(&r.message_welcome)),
        ("message_queue", given(&r.message_queue)),
        ("message_dissuading", text(&r.message_dissuading)),
        ("message_flow_id", text(&r.message_flow_id)),
    ])
}

fn agent_cells(r: &AgentRow) -> Cells {
    present([
        ("location", text(&r.location)),
        ("logstate", number(r.logstate)),
        ("msrp_location", text(&r.msrp_location)),
        ("msrp_max_sessions", number(r.msrp_max_sessions)),
        ("skills", given(&r.skills)),
        ("wrapup_end_time", number(r.wrapup_end_time)),
        ("wrapup_time", number(r.wrapup_time)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::cdr;

    #[test]
    fn rows_of_two_sources_with_one_id_have_two_keys_and_records_of_ours_their_own() {
        let ours = CdrRow::from(&cdr(7 << 64, "carl"));
        assert_eq!(key(&ours, "mysql://a/d"), ours.key);
        let foreign = CdrRow { key: 7, call: CallId { shard: 0, slot: 0, generation: 0 }, ..ours };
        let keys = ["mysql://a/d", "mysql://b/d", "mysql://a/d"].map(|source| key(&foreign, source));
        assert!(keys[0] != keys[1] && keys[0] == keys[2], "{keys:x?}");
        let again = CdrRow { key: keys[0], ..foreign };
        assert_eq!(key(&again, "sqlite:c"), again.key, "copied on, it keeps the key");
    }
}
