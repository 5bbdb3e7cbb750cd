//! What `cc_calls` is to show: the calls as the journal has them, and which of their rows are not as they should be.
//!
//! Nothing is copied: records stay where the shard wrote them. Changes of one call between two batches are one row; a call
//! that came and went between two was never there.
//!
//! Invariants
//! - A call is in `changed` once, or is as the table has it.
//! - A row that may be in the table is either of a call that is there, or in `over`.

use crate::store::OngoingCall;
use foldhash::fast::RandomState;
use std::collections::{HashSet, VecDeque};
use std::ops::Deref;
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

#[derive(Debug)]
struct Shard<R> {
    calls: HashMap<u64, Call<R>>,
    legs: HashMap<u64, Leg<R>>,
    /// Requests under way, and on which legs.
    requests: HashMap<Entity, u64>,
}

#[derive(Debug)]
struct Call<R> {
    /// Absent where a leg has been seen before it, or one of the two before the other.
    record: Option<R>,
    caller: Option<R>,
    legs: Vec<u64>,
    changed: bool,
    /// There may be a row.
    in_table: bool,
    /// The estimate when it entered the queue, and when that was.
    estimate: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Leg<R> {
    call: Option<u64>,
    record: Option<R>,
    dialog: Option<R>,
    /// States and bytes.
    requests: Vec<(Entity, R)>,
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

impl<R> Default for Shard<R> {
    fn default() -> Shard<R> {
        Shard { calls: HashMap::default(), legs: HashMap::default(), requests: HashMap::default() }
    }
}

impl<R> Default for Call<R> {
    fn default() -> Call<R> {
        Call { record: None, caller: None, legs: Vec::new(), changed: false, in_table: false, estimate: None }
    }
}

impl<R> Default for Leg<R> {
    fn default() -> Leg<R> {
        Leg { call: None, record: None, dialog: None, requests: Vec::new() }
    }
}

impl<R: Deref<Target = [u8]>> Book<R> {
    /// An entity is now this.
    pub fn put(&mut self, shard: u16, entity: Entity, record: R) {
        match part(entity.kind, &record) {
            Ok(Part::Call) => self.put_call(shard, entity.id, |call| &mut call.record, record),
            Ok(Part::Caller) => self.put_call(shard, entity.id, |call| &mut call.caller, record),
            Ok(Part::Dialog) => self.put_dialog(shard, entity.id, record),
            Ok(Part::LegOf(call)) => self.put_leg(shard, entity.id, call, record),
            Ok(Part::RequestOn(leg)) => self.put_request(shard, entity, leg, record),
            Ok(Part::Other) => {}
            Err(error) => tracing::error!(?entity, %error, "ongoing calls: a record of the journal cannot be read"),
        }
    }

    /// An entity is no more, nor is its other half.
    pub fn remove(&mut self, shard: u16, entity: Entity) {
        match entity.kind {
            Kind::Call => self.remove_call(shard, entity.id),
            Kind::Leg => self.remove_leg(shard, entity.id),
            Kind::Client | Kind::Server => {
                self.remove_request(shard, entity);
                let half = entity.other_half();
                half.into_iter().for_each(|half| self.remove_request(shard, half));
            }
            // They go with the other half.
            Kind::Caller | Kind::Dialog | Kind::Request | Kind::Answer => {}
            Kind::Shard | Kind::Agent | Kind::FlowCounts | Kind::AgentCounts | Kind::Cdr => {}
        }
    }

    fn put_call(&mut self, shard: u16, id: u64, which: impl Fn(&mut Call<R>) -> &mut Option<R>, record: R) {
        let call = self.shards.entry(shard).or_default().calls.entry(id).or_default();
        if which(call).as_deref() != Some(&*record) {
            touch(&mut self.changed, shard, id, call);
        }
        // Even where it is the same: the old place is to be let go.
        *which(call) = Some(record);
    }

    fn put_dialog(&mut self, shard: u16, id: u64, record: R) {
        let at = self.shards.entry(shard).or_default();
        let leg = at.legs.entry(id).or_default();
        let same = leg.dialog.as_deref() == Some(&*record);
        leg.dialog = Some(record);
        if let Some(c) = leg.call.filter(|_| !same)
            && let Some(call) = at.calls.get_mut(&c)
        {
            touch(&mut self.changed, shard, c, call);
        }
    }

    fn remove_call(&mut self, shard: u16, id: u64) {
        let Some(at) = self.shards.get_mut(&shard) else { return };
        let Some(call) = at.calls.remove(&id) else { return };
        for leg in call.legs {
            if let Some(leg) = at.legs.get_mut(&leg) {
                leg.call = None;
            }
        }
        if call.in_table {
            self.over.push(CallId::of_record(shard, id).to_string().into());
        }
    }

    fn put_leg(&mut self, shard: u16, id: u64, call: Option<u64>, record: R) {
        let at = self.shards.entry(shard).or_default();
        let leg = at.legs.entry(id).or_default();
        let before = std::mem::replace(&mut leg.call, call);
        let same = before == call && leg.record.as_deref() == Some(&*record);
        leg.record = Some(record);
        if before != call
            && let Some(left) = before.and_then(|c| at.calls.get_mut(&c))
        {
            left.legs.retain(|l| *l != id);
        }
        let Some(c) = call.filter(|_| !same) else { return };
        let call = at.calls.entry(c).or_default();
        if !call.legs.contains(&id) {
            call.legs.push(id);
        }
        touch(&mut self.changed, shard, c, call);
    }

    fn remove_leg(&mut self, shard: u16, id: u64) {
        let Some(at) = self.shards.get_mut(&shard) else { return };
        let Some(leg) = at.legs.get_mut(&id) else { return };
        (leg.record, leg.dialog) = (None, None);
        let call = leg.call.take();
        // Those that linger go by themselves.
        if leg.requests.is_empty() {
            at.legs.remove(&id);
        }
        let Some(c) = call else { return };
        let Some(call) = at.calls.get_mut(&c) else { return };
        call.legs.retain(|l| *l != id);
        touch(&mut self.changed, shard, c, call);
    }

    fn put_request(&mut self, shard: u16, entity: Entity, leg: u64, record: R) {
        let at = self.shards.entry(shard).or_default();
        if let Some(before) = at.requests.insert(entity, leg).filter(|before| *before != leg) {
            forget(&mut at.legs, before, entity);
        }
        let leg = at.legs.entry(leg).or_default();
        let same = match leg.requests.iter_mut().find(|(e, _)| *e == entity) {
            Some((_, kept)) => {
                let same = **kept == *record;
                *kept = record;
                same
            }
            None => {
                leg.requests.push((entity, record));
                false
            }
        };
        let Some(c) = leg.call.filter(|_| !same) else { return };
        if let Some(call) = at.calls.get_mut(&c) {
            touch(&mut self.changed, shard, c, call);
        }
    }

    /// That a request is over changes its leg, too, if it changes anything: there is no need to write a row for it.
    fn remove_request(&mut self, shard: u16, entity: Entity) {
        let Some(at) = self.shards.get_mut(&shard) else { return };
        let Some(id) = at.requests.remove(&entity) else { return };
        forget(&mut at.legs, id, entity);
    }

    /// Takes what is to be written now, of at most so many calls. `estimate` says how long a call that enters a flow's queue is
    /// to wait, seconds.
    pub fn take(&mut self, most: usize, mut estimate: impl FnMut(&str) -> u64) -> Batch {
        let mut batch = Batch { calls: vec![], over: std::mem::take(&mut self.over) };
        while batch.calls.len() < most
            && let Some((shard, id)) = self.changed.pop_front()
        {
            let Some(at) = self.shards.get_mut(&shard) else { continue };
            let Some(call) = at.calls.get_mut(&id) else { continue };
            call.changed = false;
            let (Some(record), Some(caller)) = (&call.record, &call.caller) else { continue };
            match row(CallId::of_record(shard, id), (record, caller), &mut call.estimate, &mut estimate) {
                Ok(row) => {
                    call.in_table = true;
                    let records = bundle(all(&at.legs, id, call)).into();
                    batch.calls.push(OngoingCall { records, ..row });
                }
                Err(error) => tracing::error!(id, %error, "ongoing calls: the record of a call cannot be read"),
            }
        }
        batch
    }

    /// The batch is not in the table, or it is not known.
    pub fn put_back(&mut self, batch: Batch) {
        self.over.extend(batch.over);
        for row in batch.calls {
            let Ok(id) = row.id.parse::<CallId>() else { continue };
            let call = self.shards.get_mut(&id.shard).and_then(|s| s.calls.get_mut(&id.record()));
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
            match id.and_then(|id| self.shards.get_mut(&id.shard)?.calls.get_mut(&id.record())) {
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
        let calls: usize = self.shards.values().map(|s| s.calls.len()).sum();
        if self.changed.len() > 2 * calls + SLACK {
            let shards = &self.shards;
            self.changed.retain(|(shard, id)| shards.get(shard).is_some_and(|s| s.calls.contains_key(id)));
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

/// A request is not that leg's any more.
fn forget<R>(legs: &mut HashMap<u64, Leg<R>>, id: u64, request: Entity) {
    let Some(leg) = legs.get_mut(&id) else { return };
    leg.requests.retain(|(e, _)| *e != request);
    if leg.requests.is_empty() && leg.record.is_none() {
        legs.remove(&id);
    }
}

fn touch<R>(changed: &mut VecDeque<(u16, u64)>, shard: u16, id: u64, call: &mut Call<R>) {
    if !std::mem::replace(&mut call.changed, true) {
        changed.push_back((shard, id));
    }
}

/// Every record of a call.
fn all<'a, R: Deref<Target = [u8]>>(
    legs: &'a HashMap<u64, Leg<R>>,
    id: u64,
    call: &'a Call<R>,
) -> impl Iterator<Item = (Entity, &'a [u8])> {
    let own = [(Kind::Call, &call.record), (Kind::Caller, &call.caller)];
    let of_leg = |id: &u64| {
        let leg = legs.get(id)?;
        let own = [(Kind::Leg, &leg.record), (Kind::Dialog, &leg.dialog)];
        Some(there(*id, own).chain(leg.requests.iter().map(|(e, record)| (*e, &**record))))
    };
    there(id, own).chain(call.legs.iter().filter_map(of_leg).flatten())
}

/// Those of an id's records that there are.
fn there<'a, R: Deref<Target = [u8]>>(
    id: u64,
    records: [(Kind, &'a Option<R>); 2],
) -> impl Iterator<Item = (Entity, &'a [u8])> {
    let entity = move |(kind, record): (Kind, &'a Option<R>)| Some((Entity { kind, id }, record.as_deref()?));
    records.into_iter().filter_map(entity)
}

/// The row of a call, without its records; `records`: of what changes and of what stays.
fn row(
    id: CallId,
    records: (&[u8], &[u8]),
    kept: &mut Option<(u64, u64)>,
    estimate: impl FnOnce(&str) -> u64,
) -> Result<OngoingCall, strowger_engine::journal::wire::Corrupt> {
    let call = Ongoing::decode(records.0, records.1)?;
    let queued = call.queued.unwrap_or(0);
    if call.state == CallState::Queued && kept.is_none_or(|(since, _)| since != queued) {
        *kept = Some((queued, estimate(call.flow)));
    }
    Ok(OngoingCall {
        id: id.to_string().into(),
        state: call.state as u8,
        media: u8::from(call.media == Media::Chat),
        rejections: call.rejected,
        received_unix_s: call.received / 1_000_000,
        last_start_unix_s: call.since() / 1_000_000,
        setup_s: call.rang() / 1_000_000,
        estimated_wait_s: kept.map_or(0, |(_, seconds)| seconds),
        caller_display: call.caller_display.into(),
        caller_user: call.caller_user.into(),
        flow_id: call.flow.into(),
        agent_id: call.agent.unwrap_or_default().into(),
        param: call.param.unwrap_or_default().into(),
        records: Box::default(),
    })
}
