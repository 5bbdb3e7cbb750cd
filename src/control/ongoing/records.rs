//! The latest records of one shard's calls, legs and requests, and what belongs to what.
//!
//! Ids are slots with a generation above them (see [`Entity`]), so these are tables by slot, with lists through them: no hashing,
//! and a third of the memory of maps.
//!
//! Invariants
//! - A slot is its latest user's: who had it before has gone, or is a request that lingers without its leg.
//! - A leg is in its call's list, a request in its leg's, if that is there; each at most once.

use strowger_engine::journal::{Entity, Kind};
use strowger_runtime::journal::{Bytes, Written};

/// Slots from here on are nobody's: a request that names such a leg is of none.
const SLOTS: usize = 1 << 26;
/// Of [`Call::queued`].
const NEVER: u64 = u64::MAX;
/// The end of a list.
const END: u32 = u32::MAX;

/// A record, or where it is.
pub trait Record {
    /// Its bytes, if they are at hand.
    fn peek(&self) -> Option<Bytes<'_>>;
    /// Its bytes, if they can be read now. May block.
    fn read(&self) -> Option<Bytes<'_>>;
}

impl Record for Written {
    fn peek(&self) -> Option<Bytes<'_>> {
        Written::peek(self)
    }

    fn read(&self) -> Option<Bytes<'_>> {
        Written::read(self)
    }
}

/// Whether the record is the same as that before, as far as this is at hand.
pub fn is_same<R: Record>(before: Option<&R>, now: &R) -> bool {
    before.and_then(R::peek).zip(now.peek()).is_some_and(|(before, now)| *before == *now)
}

/// Of one shard. `R` is a record.
#[derive(Debug)]
pub struct Shard<R> {
    pub calls: Table<Call<R>>,
    legs: Table<Leg<R>>,
    /// Of ours, of peers'.
    requests: [Table<Request<R>>; 2],
}

#[derive(Debug)]
pub struct Call<R> {
    /// Absent where a leg has been seen before it, or one of the two before the other.
    pub record: Option<R>,
    pub caller: Option<R>,
    /// When the estimate was made that it shows: as it entered the queue ([`NEVER`]: it has not), and the estimate, seconds.
    pub queued: u64,
    pub estimate_s: u32,
    /// Slot of the leg that came last.
    legs: u32,
    pub changed: bool,
    /// There may be a row.
    pub in_table: bool,
}

#[derive(Debug)]
struct Leg<R> {
    record: Option<R>,
    dialog: Option<R>,
    /// 0: none, as generations begin with 1.
    call: u64,
    /// The leg of the call that came before it.
    next: u32,
    requests: u32,
}

/// A request under way.
#[derive(Debug)]
struct Request<R> {
    /// State and bytes.
    records: [Option<R>; 2],
    leg: u64,
    next: u32,
}

impl<R> Default for Call<R> {
    fn default() -> Call<R> {
        Call { record: None, caller: None, queued: NEVER, estimate_s: 0, legs: END, changed: false, in_table: false }
    }
}

impl<R> Default for Leg<R> {
    fn default() -> Leg<R> {
        Leg { record: None, dialog: None, call: 0, next: END, requests: END }
    }
}

impl<R> Default for Request<R> {
    fn default() -> Request<R> {
        Request { records: [None, None], leg: 0, next: END }
    }
}

impl<R> Default for Shard<R> {
    fn default() -> Shard<R> {
        Shard { calls: Table::default(), legs: Table::default(), requests: [Table::default(), Table::default()] }
    }
}

impl<R: Record> Shard<R> {
    /// A dialog is now this; the call of its leg, if that changes it.
    pub fn put_dialog(&mut self, id: u64, record: R) -> Option<u64> {
        let leg = self.leg(id)?;
        let same = is_same(leg.dialog.as_ref(), &record);
        leg.dialog = Some(record);
        some(leg.call).filter(|_| !same)
    }

    /// A leg is now this, and its call (of which there is one) that; the call, if that changes it.
    pub fn put_leg(&mut self, id: u64, call: Option<u64>, record: R) -> Option<u64> {
        let leg = self.leg(id)?;
        let before = some(leg.call);
        let same = before == call && is_same(leg.record.as_ref(), &record);
        leg.record = Some(record);
        if before != call {
            self.unlink_leg(id);
            let holder = call.and_then(|c| self.calls.get_mut(c));
            if let (Some(call), Some(c), Some(leg)) = (holder, call, self.legs.get_mut(id)) {
                (leg.call, leg.next) = (c, call.legs);
                call.legs = slot(id);
            }
        }
        call.filter(|_| !same)
    }

    /// A leg is no more; its call.
    pub fn remove_leg(&mut self, id: u64) -> Option<u64> {
        let call = self.unlink_leg(id);
        let leg = self.legs.get_mut(id)?;
        (leg.record, leg.dialog) = (None, None);
        // Requests that linger go by themselves.
        if leg.requests == END {
            self.legs.remove(id);
        }
        call
    }

    /// A call is no more.
    pub fn remove_call(&mut self, id: u64) -> Option<Call<R>> {
        let call = self.calls.remove(id)?;
        let mut at = call.legs;
        while let Some(leg) = self.legs.at_mut(at) {
            leg.call = 0;
            at = std::mem::replace(&mut leg.next, END);
        }
        Some(call)
    }

    /// A request on that leg, or its bytes, is now this; the leg's call, if that changes it.
    pub fn put_request(&mut self, entity: Entity, leg: u64, record: R) -> Option<u64> {
        let (table, half) = place(entity.kind)?;
        let id = entity.id;
        if let Some(old) = self.requests[table].holder(id).filter(|old| *old != id) {
            self.unlink_request(table, old);
        }
        let request = self.requests[table].enter(id)?;
        let same = request.leg == leg && is_same(request.records[half].as_ref(), &record);
        request.records[half] = Some(record);
        if request.leg != leg {
            self.unlink_request(table, id);
            if let Some(request) = self.requests[table].get_mut(id) {
                request.leg = leg;
            }
        }
        let link = link(table, id);
        if !self.is_on(leg, link) && self.may_be_there(leg) {
            let holder = self.leg(leg)?;
            let next = std::mem::replace(&mut holder.requests, link);
            self.requests[table].get_mut(id)?.next = next;
        }
        self.legs.get(leg).and_then(|leg| some(leg.call)).filter(|_| !same)
    }

    /// A request is no more, nor are its bytes.
    pub fn remove_request(&mut self, entity: Entity) {
        if let Some((table, _)) = place(entity.kind) {
            self.unlink_request(table, entity.id);
            self.requests[table].remove(entity.id);
        }
    }

    /// Every record of a call; `None`: it cannot be read now.
    pub fn all<'a>(&'a self, id: u64, call: &'a Call<R>) -> impl Iterator<Item = (Entity, Option<Bytes<'a>>)> {
        let own = [(Kind::Call, &call.record), (Kind::Caller, &call.caller)];
        let legs = list(call.legs, move |at| self.legs.at(at).map(|(id, leg)| ((id, leg), leg.next)));
        let of_leg = move |(id, leg): (u64, &'a Leg<R>)| {
            let own = [(Kind::Leg, &leg.record), (Kind::Dialog, &leg.dialog)];
            there(id, own).chain(self.requests_of(leg.requests))
        };
        there(id, own).chain(legs.flat_map(of_leg))
    }

    fn requests_of(&self, first: u32) -> impl Iterator<Item = (Entity, Option<Bytes<'_>>)> {
        let of = move |link: u32| {
            let table = (link & 1) as usize;
            let (id, request) = self.requests[table].at(link >> 1)?;
            Some(((table, id, request), request.next))
        };
        list(first, of).flat_map(|(table, id, request)| {
            let [state, bytes] = &request.records;
            there(id, [(KINDS[table][0], state), (KINDS[table][1], bytes)])
        })
    }

    /// The leg of that id, made if need be.
    fn leg(&mut self, id: u64) -> Option<&mut Leg<R>> {
        if let Some(old) = self.legs.holder(id).filter(|old| *old != id) {
            self.unlink_leg(old);
            self.legs.remove(old);
        }
        self.legs.enter(id)
    }

    /// Whether a leg that is only named may be one that has not been seen: the slot's present user has been.
    fn may_be_there(&self, leg: u64) -> bool {
        let user = self.legs.holder(leg).filter(|user| *user != leg).and_then(|user| self.legs.get(user));
        leg != 0 && user.is_none_or(|user| user.record.is_none() && user.dialog.is_none())
    }

    fn is_on(&self, leg: u64, request: u32) -> bool {
        let first = self.legs.get(leg).map_or(END, |leg| leg.requests);
        let next = |link: u32| self.requests[(link & 1) as usize].at(link >> 1).map(|(_, r)| (link, r.next));
        list(first, next).any(|link| link == request)
    }

    /// Takes a leg from its call; which that was.
    fn unlink_leg(&mut self, id: u64) -> Option<u64> {
        let leg = self.legs.get_mut(id)?;
        let (call, next) = (some(std::mem::take(&mut leg.call))?, std::mem::replace(&mut leg.next, END));
        let holder = self.calls.get_mut(call)?;
        if holder.legs == slot(id) {
            holder.legs = next;
        } else {
            let mut at = holder.legs;
            while let Some(leg) = self.legs.at_mut(at) {
                if leg.next == slot(id) {
                    leg.next = next;
                    break;
                }
                at = leg.next;
            }
        }
        Some(call)
    }

    /// Takes a request from its leg, and lets go of a leg that was there for its sake alone.
    fn unlink_request(&mut self, table: usize, id: u64) {
        let Some(request) = self.requests[table].get_mut(id) else { return };
        let (leg, next) = (request.leg, std::mem::replace(&mut request.next, END));
        let link = link(table, id);
        let Some(holder) = self.legs.get_mut(leg) else { return };
        if holder.requests == link {
            holder.requests = next;
        } else {
            let mut at = holder.requests;
            while let Some(request) = self.requests[(at & 1) as usize].at_mut(at >> 1) {
                if request.next == link {
                    request.next = next;
                    break;
                }
                at = request.next;
            }
        }
        if self.legs.get(leg).is_some_and(|l| l.requests == END && l.record.is_none() && l.dialog.is_none()) {
            self.unlink_leg(leg);
            self.legs.remove(leg);
        }
    }
}

/// Values by the slots of their ids.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Option<Held<T>>>,
    count: usize,
}

#[derive(Debug)]
struct Held<T> {
    generation: u32,
    value: T,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { slots: Vec::new(), count: 0 }
    }
}

impl<T> Table<T> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn get(&self, id: u64) -> Option<&T> {
        let held = self.slots.get(slot(id) as usize)?.as_ref()?;
        (held.generation == generation(id)).then_some(&held.value)
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        let held = self.slots.get_mut(slot(id) as usize)?.as_mut()?;
        (held.generation == generation(id)).then_some(&mut held.value)
    }

    /// Whose the id's slot is.
    pub fn holder(&self, id: u64) -> Option<u64> {
        self.at(slot(id)).map(|(id, _)| id)
    }

    /// The value of that id, made if need be, in the place of another's. `None`: there can be none.
    pub fn enter(&mut self, id: u64) -> Option<&mut T>
    where
        T: Default,
    {
        let at = slot(id) as usize;
        if at >= SLOTS {
            return None;
        }
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, || None);
        }
        let place = &mut self.slots[at];
        if place.as_ref().is_none_or(|held| held.generation != generation(id)) {
            self.count += usize::from(place.is_none());
            *place = Some(Held { generation: generation(id), value: T::default() });
        }
        place.as_mut().map(|held| &mut held.value)
    }

    pub fn remove(&mut self, id: u64) -> Option<T> {
        let place = self.slots.get_mut(slot(id) as usize)?;
        let held = place.take_if(|held| held.generation == generation(id))?;
        self.count -= 1;
        Some(held.value)
    }

    /// The value in a slot, and its id.
    fn at(&self, slot: u32) -> Option<(u64, &T)> {
        let held = self.slots.get(slot as usize)?.as_ref()?;
        Some((u64::from(held.generation) << 32 | u64::from(slot), &held.value))
    }

    fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.as_mut().map(|held| &mut held.value)
    }
}

const fn slot(id: u64) -> u32 {
    id as u32
}

const fn generation(id: u64) -> u32 {
    (id >> 32) as u32
}

fn some(id: u64) -> Option<u64> {
    (id != 0).then_some(id)
}

/// By table and half.
const KINDS: [[Kind; 2]; 2] = [[Kind::Client, Kind::Request], [Kind::Server, Kind::Answer]];

/// Table and half of a request's record.
fn place(kind: Kind) -> Option<(usize, usize)> {
    let table = KINDS.iter().position(|kinds| kinds.contains(&kind))?;
    Some((table, usize::from(KINDS[table][1] == kind)))
}

/// A request in a list: its slot, and behind it its table.
const fn link(table: usize, id: u64) -> u32 {
    slot(id) << 1 | table as u32
}

/// What hangs one on the other from `at` on: `of` gives what is there, and what comes next.
fn list<T>(mut at: u32, of: impl Fn(u32) -> Option<(T, u32)>) -> impl Iterator<Item = T> {
    std::iter::from_fn(move || {
        let (value, next) = of(at)?;
        at = next;
        Some(value)
    })
}

/// Those of an id's records that there are.
fn there<'a, R: Record>(
    id: u64,
    records: [(Kind, &'a Option<R>); 2],
) -> impl Iterator<Item = (Entity, Option<Bytes<'a>>)> {
    let entity = move |(kind, record): (Kind, &'a Option<R>)| Some((Entity { kind, id }, record.as_ref()?.read()));
    records.into_iter().filter_map(entity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(slot: u64, generation: u64) -> u64 {
        generation << 32 | slot
    }

    fn request(kind: Kind, slot: u64, generation: u64) -> Entity {
        Entity { kind, id: id(slot, generation) }
    }

    fn rec(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    /// The texts of a call's records, sorted.
    fn texts(shard: &Shard<Vec<u8>>, call: u64) -> Vec<String> {
        let call = (call, shard.calls.get(call).expect("it is there"));
        let mut texts: Vec<_> =
            shard.all(call.0, call.1).map(|(_, r)| String::from_utf8_lossy(&r.unwrap()).into_owned()).collect();
        texts.sort();
        texts
    }

    fn shard(calls: &[u64]) -> Shard<Vec<u8>> {
        let mut shard = Shard::default();
        for call in calls {
            shard.calls.enter(*call);
        }
        shard
    }

    #[test]
    fn records_of_a_call_are_found_by_its_legs_and_their_requests() {
        let (call, leg, other) = (id(0, 1), id(0, 1), id(1, 1));
        let mut s = shard(&[call]);
        assert_eq!(s.put_leg(leg, Some(call), rec("leg")), Some(call));
        assert_eq!(s.put_leg(leg, Some(call), rec("leg")), None, "it is the same");
        assert_eq!(s.put_dialog(leg, rec("dialog")), Some(call));
        // Known before its leg.
        assert_eq!(s.put_request(request(Kind::Client, 4, 1), other, rec("client")), None);
        assert_eq!(s.put_leg(other, Some(call), rec("other")), Some(call));
        assert_eq!(s.put_request(request(Kind::Server, 4, 1), leg, rec("server")), Some(call));
        assert_eq!(s.put_request(request(Kind::Answer, 4, 1), leg, rec("answer")), Some(call));
        assert_eq!(texts(&s, call), ["answer", "client", "dialog", "leg", "other", "server"]);
        // It is the other leg's from now on.
        s.put_request(request(Kind::Server, 4, 1), other, rec("server"));
        assert_eq!(s.remove_leg(leg), Some(call));
        assert_eq!(texts(&s, call), ["answer", "client", "other", "server"]);
        s.remove_request(request(Kind::Server, 4, 1));
        assert_eq!(texts(&s, call), ["client", "other"]);
    }

    #[test]
    fn what_lingers_is_not_the_next_users_of_its_slot() {
        let (old, new) = (id(0, 1), id(0, 2));
        let mut s = shard(&[old]);
        let lingers = request(Kind::Client, 7, 1);
        s.put_leg(id(3, 1), Some(old), rec("leg"));
        s.put_request(lingers, id(3, 1), rec("lingers"));
        s.remove_leg(id(3, 1));
        assert!(s.remove_call(old).is_some());
        s.calls.enter(new);
        assert_eq!(s.put_leg(id(3, 2), Some(new), rec("next")), Some(new));
        s.put_request(lingers, id(3, 1), rec("still"));
        assert_eq!(texts(&s, new), ["next"]);
        // A slot's next request, too, is another.
        s.put_request(request(Kind::Client, 7, 2), id(3, 2), rec("its own"));
        s.remove_request(lingers);
        assert_eq!(texts(&s, new), ["its own", "next"]);
        s.put_leg(id(3, 2), None, rec("alone"));
        assert_eq!(texts(&s, new), [""; 0]);
    }

    #[test]
    fn a_request_of_no_leg_makes_none() {
        let mut s = shard(&[]);
        for leg in [0, id(u64::from(u32::MAX), 0), u64::MAX] {
            s.put_request(request(Kind::Server, 1, 1), leg, rec("nobody's"));
        }
        assert_eq!((s.legs.count(), s.legs.slots.len()), (0, 0));
        s.remove_request(request(Kind::Server, 1, 1));
        assert_eq!(s.requests[1].count(), 0);
    }
}
