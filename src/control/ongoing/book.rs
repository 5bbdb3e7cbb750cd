//! What `cc_calls` is to show: the calls as the journal has them, and which of their rows are not as they should be.
//!
//! Nothing is kept twice: records stay where the shard wrote them. Changes of one call between two batches are one row; a call
//! that came and went between two was never there.
//!
//! Invariants
//! - A call is in `changed` once, or is as the table has it.
//! - A row that may be in the table is either of a call that is there, or in `over`.

use super::records::{Call, Record, Shard, is_same};
use crate::store::OngoingCall;
use foldhash::fast::RandomState;
use std::collections::{HashSet, VecDeque};
use strowger_dispatch::Media;
use strowger_engine::control::{CallId, CallState};
use strowger_engine::journal::{Entity, Kind, Ongoing, Part, bundle, part};

/// Calls that are over may stay so many in the list of those that changed.
const SLACK: usize = 1024;

/// Keyed by what our own shards made.
type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// See the module. `R` is a record.
#[derive(Debug)]
pub struct Book<R> {
    shards: HashMap<u16, Shard<R>>,
    /// Calls whose rows are to be written, the one that waits longest first; some may be over.
    changed: VecDeque<(u16, u64)>,
    /// Rows to be removed.
    over: Vec<Box<str>>,
}

/// Rows to write, and rows to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub calls: Vec<OngoingCall>,
    pub over: Vec<Box<str>>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.over.is_empty()
    }
}

impl<R> Default for Book<R> {
    fn default() -> Book<R> {
        Book { shards: HashMap::default(), changed: VecDeque::new(), over: Vec::new() }
    }
}

impl<R: Record> Book<R> {
    /// An entity is now this.
    pub fn put(&mut self, shard: u16, entity: Entity, record: R) {
        // A reader of what has just been written has it in memory; else it has been told.
        let Some(part) = record.read().map(|bytes| part(entity.kind, &bytes)) else { return };
        match part {
            Ok(Part::Call) => self.put_call(shard, entity.id, |call| &mut call.record, record),
            Ok(Part::Caller) => self.put_call(shard, entity.id, |call| &mut call.caller, record),
            Ok(Part::Dialog) => {
                let touched = self.shards.entry(shard).or_default().put_dialog(entity.id, record);
                self.touch(shard, touched);
            }
            Ok(Part::LegOf(call)) => self.put_leg(shard, entity.id, call, record),
            Ok(Part::RequestOn(leg)) => {
                let touched = self.shards.entry(shard).or_default().put_request(entity, leg, record);
                self.touch(shard, touched);
            }
            Ok(Part::Other) => {}
            Err(error) => tracing::error!(?entity, %error, "ongoing calls: a record of the journal cannot be read"),
        }
    }

    /// An entity is no more, nor is its other half.
    pub fn remove(&mut self, shard: u16, entity: Entity) {
        match entity.kind {
            Kind::Call => self.remove_call(shard, entity.id),
            Kind::Leg => self.remove_leg(shard, entity.id),
            // That a request is over changes its leg, too, if it changes anything: there is no need to write a row for it.
            Kind::Client | Kind::Server => {
                if let Some(at) = self.shards.get_mut(&shard) {
                    at.remove_request(entity);
                }
            }
            // They go with the other half.
            Kind::Caller | Kind::Dialog | Kind::Request | Kind::Answer => {}
            Kind::Shard | Kind::Agent | Kind::FlowCounts | Kind::AgentCounts | Kind::Cdr => {}
        }
    }

    /// Makes the call where there is none; another that had its slot is over.
    fn make_call(&mut self, shard: u16, id: u64) {
        let before = self.shards.get(&shard).and_then(|at| at.calls.holder(id));
        if let Some(before) = before.filter(|before| *before != id) {
            self.remove_call(shard, before);
        }
        self.shards.entry(shard).or_default().calls.enter(id);
    }

    fn put_call(&mut self, shard: u16, id: u64, which: impl Fn(&mut Call<R>) -> &mut Option<R>, record: R) {
        self.make_call(shard, id);
        let Some(call) = self.shards.get_mut(&shard).and_then(|at| at.calls.get_mut(id)) else { return };
        if !is_same(which(call).as_ref(), &record) {
            touch(&mut self.changed, shard, id, call);
        }
        // Even where it is the same: the old place is to be let go.
        *which(call) = Some(record);
    }

    fn put_leg(&mut self, shard: u16, id: u64, call: Option<u64>, record: R) {
        if let Some(call) = call {
            self.make_call(shard, call);
        }
        let touched = self.shards.entry(shard).or_default().put_leg(id, call, record);
        self.touch(shard, touched);
    }

    fn remove_call(&mut self, shard: u16, id: u64) {
        let call = self.shards.get_mut(&shard).and_then(|at| at.remove_call(id));
        if call.is_some_and(|call| call.in_table) {
            self.over.push(CallId::of_record(shard, id).to_string().into());
        }
    }

    fn remove_leg(&mut self, shard: u16, id: u64) {
        let touched = self.shards.get_mut(&shard).and_then(|at| at.remove_leg(id));
        self.touch(shard, touched);
    }

    /// The call's row is not as it should be.
    fn touch(&mut self, shard: u16, id: Option<u64>) {
        let call = id.and_then(|id| Some((id, self.shards.get_mut(&shard)?.calls.get_mut(id)?)));
        if let Some((id, call)) = call {
            touch(&mut self.changed, shard, id, call);
        }
    }

    /// Takes what is to be written now, of at most so many calls. `estimate` says how long a call that enters a flow's queue is
    /// to wait, seconds.
    pub fn take(&mut self, most: usize, mut estimate: impl FnMut(&str) -> u64) -> Batch {
        let mut batch = Batch { calls: vec![], over: std::mem::take(&mut self.over) };
        let mut unread = vec![];
        while batch.calls.len() < most
            && let Some((shard, id)) = self.changed.pop_front()
        {
            let Some(at) = self.shards.get_mut(&shard) else { continue };
            let Some(call) = at.calls.get_mut(id) else { continue };
            call.changed = false;
            let (Some(record), Some(caller)) = (&call.record, &call.caller) else { continue };
            let kept = (&mut call.queued, &mut call.estimate_s);
            let row = record
                .read()
                .zip(caller.read())
                .map(|(record, caller)| row(CallId::of_record(shard, id), (&record, &caller), kept, &mut estimate));
            match row {
                Some(Ok(row)) => {
                    let records = at.calls.get(id).and_then(|call| {
                        let all: Option<Vec<_>> = at.all(id, call).map(|(e, record)| Some((e, record?))).collect();
                        all.map(|all| bundle(all).into())
                    });
                    let Some(records) = records else {
                        unread.push((shard, id));
                        continue;
                    };
                    if let Some(call) = at.calls.get_mut(id) {
                        call.in_table = true;
                    }
                    batch.calls.push(OngoingCall { records, ..row });
                }
                Some(Err(error)) => tracing::error!(id, %error, "ongoing calls: the record of a call cannot be read"),
                None => unread.push((shard, id)),
            }
        }
        // Another time.
        unread.into_iter().for_each(|(shard, id)| self.touch(shard, Some(id)));
        batch
    }

    /// The batch is not in the table, or it is not known.
    pub fn put_back(&mut self, batch: Batch) {
        self.over.extend(batch.over);
        for row in batch.calls {
            let Ok(id) = row.id.parse::<CallId>() else { continue };
            let call = self.shards.get_mut(&id.shard).and_then(|s| s.calls.get_mut(id.record()));
            if let Some(call) = call {
                touch(&mut self.changed, id.shard, id.record(), call);
            }
        }
    }

    /// These rows are in the table; says which of them are of no call that there is.
    pub fn in_table(&mut self, ids: Vec<Box<str>>) -> Vec<Box<str>> {
        let mut unknown = HashSet::new();
        for text in ids {
            let id = text.parse::<CallId>().ok().filter(|id| id.to_string() == *text);
            match id.and_then(|id| self.shards.get_mut(&id.shard)?.calls.get_mut(id.record())) {
                Some(call) => call.in_table = true,
                None => drop(unknown.insert(text)),
            }
        }
        unknown.into_iter().collect()
    }

    /// Rows of no call, to be removed.
    pub fn strike(&mut self, ids: Vec<Box<str>>) {
        self.over.extend(ids);
    }

    /// Lets go of what the calls that there are do not need. False: there were more than `most` rows to remove, and it is
    /// forgotten which.
    pub fn trim(&mut self, most: usize) -> bool {
        let calls: usize = self.shards.values().map(|s| s.calls.count()).sum();
        if self.changed.len() > 2 * calls + SLACK {
            let shards = &self.shards;
            self.changed.retain(|(shard, id)| shards.get(shard).is_some_and(|s| s.calls.get(*id).is_some()));
        }
        let known = self.over.len() <= most;
        if !known {
            self.over = Vec::new();
        }
        known
    }

    /// Rows that are not as they should be; nearly so.
    pub fn behind(&self) -> usize {
        self.changed.len() + self.over.len()
    }

    /// Whether every call that changed has been taken.
    pub fn is_written(&self) -> bool {
        self.changed.is_empty()
    }
}

fn touch<R>(changed: &mut VecDeque<(u16, u64)>, shard: u16, id: u64, call: &mut Call<R>) {
    if !std::mem::replace(&mut call.changed, true) {
        changed.push_back((shard, id));
    }
}

/// The row of a call, without its records; `records`: of what changes and of what stays; `kept`: the estimate and its time.
fn row(
    id: CallId,
    records: (&[u8], &[u8]),
    (since, kept): (&mut u64, &mut u32),
    estimate: impl FnOnce(&str) -> u64,
) -> Result<OngoingCall, strowger_engine::journal::wire::Corrupt> {
    let call = Ongoing::decode(records.0, records.1)?;
    let queued = call.queued.unwrap_or(0);
    if call.state == CallState::Queued && *since != queued {
        (*since, *kept) = (queued, u32::try_from(estimate(call.flow)).unwrap_or(u32::MAX));
    }
    Ok(OngoingCall {
        id: id.to_string().into(),
        state: call.state as u8,
        media: u8::from(call.media == Media::Chat),
        rejections: call.rejected,
        received_unix_s: call.received / 1_000_000,
        last_start_unix_s: call.since() / 1_000_000,
        setup_s: call.rang() / 1_000_000,
        estimated_wait_s: u64::from(*kept),
        caller_display: call.caller_display.into(),
        caller_user: call.caller_user.into(),
        flow_id: call.flow.into(),
        agent_id: call.agent.unwrap_or_default().into(),
        param: call.param.unwrap_or_default().into(),
        records: Box::default(),
    })
}
