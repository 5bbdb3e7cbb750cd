//! Ongoing calls in a database: opened at the start, and restored from where there is no journal (its disk is lost, or this
//! is another machine).
//!
//! A row has all records of its call, so calls go on from it as from the journal, as of the last write. What the journal
//! has besides (logins by command, counters) is not there: agents begin as their rows say. A row without records, or with
//! such as cannot be read, ends with a CDR.

use super::ServerError;
use crate::config::{Config, DbUrl};
use crate::control::ongoing::Table;
use crate::store::{CallStore, Missing, OngoingCall, calls_at};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use strowger_engine::CdrRow;
use strowger_engine::cdr::{CallType, CdrMedia, fstats};
use strowger_engine::control::{CallId, CallState};
use strowger_engine::journal::{Entity, Kind, Ongoing, Records, Recovered, unbundle};
use tokio::time::timeout;

/// How long a start waits for a database that it can do without.
const PATIENCE: Duration = Duration::from_secs(1);

/// Opens the table of ongoing calls, where they are to be kept. `needed`: nothing else knows of calls that there were.
///
/// # Errors
/// When the table is of another form; when it is needed and cannot be opened.
pub(super) async fn open(config: &Config, needed: bool) -> Result<Option<Table>, ServerError> {
    if !config.journal.enabled.0 || config.journal.rows_ms.0 == 0 {
        return Ok(None);
    }
    let url: &DbUrl = config.rt_db();
    let opening = calls_at(url, Missing::Create);
    let opened = if needed { Ok(opening.await) } else { timeout(PATIENCE, opening).await };
    match opened {
        Ok(Ok(store)) => Ok(Some(Table::Open(store.into()))),
        Ok(Err(error)) if needed || !error.may_pass() => Err(error.into()),
        // It is tried again, and told of, by whoever keeps the table.
        _ => Ok(Some(Table::At(url.clone()))),
    }
}

/// Reads the calls of the process before: what goes on, and CDRs of the rest, which are nowhere else.
///
/// # Errors
/// When the database fails.
pub(super) async fn restore(calls: &dyn CallStore) -> Result<(Vec<Recovered>, Vec<CdrRow>), ServerError> {
    let rows = calls.load().await?;
    if rows.is_empty() {
        return Ok((vec![], vec![]));
    }
    let (shards, lost) = sorted(rows);
    tracing::info!(
        calls = shards.iter().map(|s| s.records.iter().filter(|(e, _)| e.kind == Kind::Call).count()).sum::<usize>(),
        lost = lost.len(),
        "there is no journal: going on with the calls in cc_calls"
    );
    Ok((shards, lost))
}

/// What the shards can restore, and CDRs of the rest.
fn sorted(rows: Vec<OngoingCall>) -> (Vec<Recovered>, Vec<CdrRow>) {
    let mut shards: BTreeMap<u16, Records> = BTreeMap::new();
    let (mut seen, mut lost) = (BTreeSet::new(), vec![]);
    for row in rows {
        match records(&row) {
            Ok((shard, records)) => {
                let new = |(e, _): &(Entity, _)| seen.insert((shard, *e));
                shards.entry(shard).or_default().extend(records.into_iter().filter(new));
            }
            // Its CDR was written when it ended.
            Err(_) if row.state == CallState::Ended as u8 => {}
            Err(why) => {
                tracing::error!(id = &*row.id, why, "a row of cc_calls cannot go on as a call; it ends with a CDR");
                lost.push(cdr(&row));
            }
        }
    }
    (shards.into_iter().map(|(shard, records)| Recovered { shard, records }).collect(), lost)
}

/// The shard of a call, and its records.
fn records(row: &OngoingCall) -> Result<(u16, Records), String> {
    let id: CallId = row.id.parse().map_err(|()| "it is of another program".to_owned())?;
    if row.records.is_empty() {
        return Err("it has no dialogs".to_owned());
    }
    let records = unbundle(&row.records).map_err(|e| e.to_string())?;
    let find = |kind| records.iter().find(|(e, _)| e.kind == kind).map(|(_, record)| &**record);
    let call = find(Kind::Call).zip(find(Kind::Caller)).ok_or("its call is not among its records")?;
    Ongoing::decode(call.0, call.1).map_err(|e| e.to_string())?;
    Ok((id.shard, records))
}

/// The end of a call of which no more is known than its row. Its key is made of that, so that it is written once.
fn cdr(row: &OngoingCall) -> CdrRow {
    let received = row.received_unix_s.saturating_mul(1_000_000);
    // No shard has this number.
    let key = u128::from(received) << 64 | 0xffff << 48 | u128::from(crc32fast::hash(row.id.as_bytes()));
    let answered = row.state == CallState::ToAgent as u8 && !row.agent_id.is_empty();
    let agent = (!row.agent_id.is_empty()).then(|| row.agent_id.clone());
    CdrRow {
        key,
        call: row.id.parse().unwrap_or(CallId { shard: 0, slot: 0, generation: 0 }),
        sip_call_id: "".into(),
        caller: row.caller_user.clone(),
        received_unix_us: received,
        wait_us: row.last_start_unix_s.saturating_sub(row.received_unix_s).saturating_mul(1_000_000),
        pickup_us: row.setup_s.saturating_mul(1_000_000),
        talk_us: 0,
        talk_s: 0,
        flow_id: row.flow_id.clone(),
        call_type: CallType::InternalError as i8,
        rejected: row.rejections,
        fstats: fstats::INBOUND
            | agent.as_ref().map_or(0, |_| fstats::DISTRIBUTED)
            | if answered { fstats::ANSWERED } else { 0 },
        agent_id: agent,
        cid: 0,
        media: if row.media == 1 { CdrMedia::Chat } else { CdrMedia::Audio } as u8,
        cause: 0,
        param: Some(row.param.clone()).filter(|p| !p.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger_engine::journal::bundle;

    fn row(id: &str, state: CallState, records: &[u8]) -> OngoingCall {
        OngoingCall {
            id: id.into(),
            state: state as u8,
            media: 1,
            rejections: 0,
            received_unix_s: 1_795_000_000,
            last_start_unix_s: 1_795_000_010,
            setup_s: 3,
            estimated_wait_s: 0,
            caller_display: "".into(),
            caller_user: "carl".into(),
            flow_id: "sales".into(),
            agent_id: "".into(),
            param: "order".into(),
            records: records.into(),
        }
    }

    #[test]
    fn a_row_that_cannot_go_on_is_one_record_however_often_it_is_read_and_an_ended_one_is_none() {
        let noise = bundle([(Entity { kind: Kind::Call, id: 1 }, &[200][..])]);
        let legs_alone = bundle([(Entity { kind: Kind::Leg, id: 1 }, &[1][..])]);
        let rows = || {
            vec![
                row("0.1.1", CallState::Queued, &[]),
                row("0.1.2", CallState::Queued, &noise),
                row("0.1.3", CallState::ToAgent, &legs_alone),
                row("B2B.1", CallState::Welcome, &noise),
                row("B2B.2", CallState::Ended, &[]),
            ]
        };
        let ((shards, lost), (_, again)) = (sorted(rows()), sorted(rows()));
        assert_eq!((shards.len(), lost.len(), &lost), (0, 4, &again));
        let keys: BTreeSet<u128> = lost.iter().map(|c| c.key).collect();
        assert_eq!(keys.len(), 4);
        let first = &lost[0];
        let told = (first.call.to_string(), first.call_type, first.fstats, first.wait_us, first.pickup_us, first.media);
        assert_eq!(told, ("0.1.1".to_owned(), -1, 1, 10_000_000, 3_000_000, 2));
        assert_eq!((first.received_unix_us, first.param.as_deref()), (1_795_000_000_000_000, Some("order")));
    }
}
