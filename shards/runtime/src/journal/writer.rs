//! The shard's end of its journal.
//!
//! A turn: [`Sink::put`] and [`Sink::remove`] copy records into the mapping, [`Journal::commit`] makes them valid. Where
//! there is no room (the disk is full) changes wait in memory, latest state only, and are written when there is room again;
//! meanwhile [`Journal::is_full`] has the shard refuse new calls.

use super::keeper::{Pool, REST_AFTER};
use super::places::{Place, Places};
use super::record::{self, HEAD, Op, Salt};
use super::segment::{self, HEADER, Segment};
use crate::counts::{self, RuntimeCounts};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use strowger_engine::journal::{Entity, Kind, Sink};

/// The journal is cleaned when its closed segments but one are longer than so many eighths of what lives in it.
const LENGTH: u64 = 2 * 8;
/// While the shard has nothing else to do, that begins above the first of these, and ends below the other. (At 8 it would never.)
const IDLE_LENGTH: [u64; 2] = [12, 10];
/// Bytes of the oldest segment that a turn looks through, for each that it has written.
const CLEAN_FACTOR: usize = 2;
/// And at least.
const CLEAN_LEAST: usize = 4096;
/// Bytes that an idle shard looks through before it looks for work again; of a small segment an eighth.
const TIDY: usize = 64 << 10;
const MARK: Entity = Entity { kind: Kind::Shard, id: 0 };

/// Looks at a quiet journal (`Pool::quiet`) before it is tidied up.
const TIDY_AFTER: u32 = 1;
/// Segments at rest that are called up at once; by a journal that is tidied up.
const CALLED: usize = 16;
const CALLED_IDLE: usize = 4;

/// A segment that is full.
#[derive(Debug)]
struct Closed {
    /// Absent while it is at rest.
    segment: Option<Arc<Segment>>,
    /// It is to come back from its rest.
    called: bool,
    number: u64,
    salt: Salt,
    end: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Journal {
    pool: Arc<Pool>,
    /// Absent until there is room for the first.
    current: Option<Arc<Segment>>,
    /// Number and salt of the current segment, and where its next record begins.
    number: u64,
    salt: Salt,
    at: usize,
    /// Full ones, the oldest first; how many of the last of them were closed since the last commit.
    closed: VecDeque<Closed>,
    fresh: usize,
    /// How many of the last of them have not been sent to rest; how many were called up, and whether any of them has come.
    awake: usize,
    called: usize,
    up: bool,
    /// Number of the oldest that is needed as of the last commit.
    oldest: u64,
    /// How far the oldest has been cleaned; cleaned ones that wait for the commit.
    cleaned: usize,
    done: Vec<Arc<Segment>>,
    places: Places,
    /// It is being tidied up.
    untidy: bool,
    /// Records written, marks not counted; and at the last mark.
    records: u64,
    marked: u64,
    /// Bytes written since the last mark.
    appended: usize,
    /// What could not be written: `None` is a removal. In an order, so that a simulation's journal is the same each time.
    unwritten: BTreeMap<Entity, Option<Box<[u8]>>>,
    /// How many CDRs, in order, are safe elsewhere, and how many of them were dropped here.
    safe: Arc<[AtomicU64]>,
    dropped: u64,
    counts: Arc<RuntimeCounts>,
}

impl Journal {
    /// A new journal in a generation; `safe` tells by shard how many of its CDRs are safe.
    pub(super) fn new(pool: Arc<Pool>, safe: Arc<[AtomicU64]>, counts: Arc<RuntimeCounts>) -> Journal {
        Journal {
            pool,
            current: None,
            number: 0,
            salt: Salt::new(0),
            at: 0,
            closed: VecDeque::new(),
            fresh: 0,
            awake: 0,
            called: 0,
            up: false,
            oldest: 0,
            cleaned: 0,
            done: Vec::new(),
            places: Places::default(),
            untidy: false,
            records: 0,
            marked: 0,
            appended: 0,
            unwritten: BTreeMap::new(),
            safe,
            dropped: 0,
            counts,
        }
    }

    /// Whether changes wait for room on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// The segments that it needs.
    pub(super) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.current.iter().chain(self.closed.iter().filter_map(|c| c.segment.as_ref())).chain(&self.done)
    }

    /// What it shares with the journal's threads.
    #[cfg(test)]
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The turn is over: what was put and removed is valid from here on. Nothing that follows from it may leave before.
    pub fn commit(&mut self) {
        if self.unwritten.is_empty() {
            self.drop_safe_cdrs();
        } else if !self.catch_up() {
            counts::set(&self.counts.journal_unwritten, self.unwritten.len());
            return;
        }
        if self.records == self.marked {
            return;
        }
        self.clean();
        self.mark();
    }

    /// CDRs that are in a database or a spool need not be kept.
    fn drop_safe_cdrs(&mut self) {
        let safe = self.safe.get(usize::from(self.pool.shard())).map_or(0, |s| s.load(Ordering::Acquire));
        if safe > self.dropped && self.room(record::size(0)) {
            self.dropped = safe;
            let last = Entity { kind: Kind::Cdr, id: safe - 1 };
            if self.places.drop_cdrs(last.id) {
                self.append(Op::RemoveUpTo, last, &[]);
            }
        }
    }

    /// Writes what waits for room; false when there is not enough.
    fn catch_up(&mut self) -> bool {
        while let Some((&entity, record)) = self.unwritten.first_key_value() {
            let len = record.as_ref().map_or(0, |r| r.len());
            if !self.room(record::size(len)) {
                return false;
            }
            let record = self.unwritten.remove(&entity).flatten();
            #[cfg(mutant)]
            if strowger_dispatch::mutant::is("unwritten-forgotten") {
                continue;
            }
            match record {
                Some(record) => self.append(Op::Put, entity, &record),
                None => self.append(Op::Remove, entity, &[]),
            }
        }
        counts::set(&self.counts.journal_unwritten, 0);
        true
    }

    fn mark(&mut self) {
        let Some(current) = &self.current else { return };
        // SAFETY: this journal is the segment's only writer, and below `at` is what it has written.
        let free = unsafe { current.free(self.at) };
        self.at += record::write(free, &self.salt, Op::Commit, Entity { id: self.records, ..MARK }, &[]);
        let mut next = self.number;
        for closed in self.closed.iter().rev().take(self.fresh) {
            if let Some(segment) = &closed.segment {
                segment.commit(closed.end);
                segment.set_next(next);
            }
            next = closed.number;
        }
        current.commit(self.at);
        self.pool.publish(self.number, self.at, self.appended);
        self.fresh = 0;
        self.counts.journal_records.add(i64::try_from(self.records - self.marked).unwrap_or(0));
        self.counts.journal_bytes.add(i64::try_from(self.appended).unwrap_or(0));
        (self.marked, self.appended) = (self.records, 0);
        if !self.done.is_empty() {
            self.oldest = self.closed.front().map_or(self.number, |c| c.number);
            current.set_oldest(self.oldest);
            self.pool.set_oldest(self.oldest);
            self.done.drain(..).for_each(|segment| self.pool.retire(segment));
        }
    }

    /// Whether a record of that size, and a mark, has room; takes another segment if need be.
    fn room(&mut self, size: usize) -> bool {
        let fits = |segment: &Segment, at: usize| at + size + HEAD <= segment.size();
        if self.current.as_ref().is_some_and(|s| fits(s, self.at)) {
            return true;
        }
        let Some(next) = self.pool.take(&self.counts) else { return false };
        self.number += 1;
        if let Some(full) = self.current.take() {
            let salt = self.salt.clone();
            let (segment, number) = (Some(full), self.number - 1);
            self.closed.push_back(Closed { segment, called: false, number, salt, end: self.at });
            self.fresh += 1;
            self.awake += 1;
        }
        if self.number == 1 {
            self.oldest = 1;
            self.pool.set_oldest(1);
        }
        next.open(self.number, self.records, self.oldest);
        self.salt = segment::salt(self.pool.generation(), self.pool.shard(), self.number);
        self.at = HEADER;
        self.pool.tell(self.number, &next);
        self.current = Some(next);
        true
    }

    /// Writes a record; there must be room.
    fn append(&mut self, op: Op, entity: Entity, payload: &[u8]) {
        let Some(current) = &self.current else { return };
        // SAFETY: this journal is the segment's only writer, and below `at` is what it has written.
        let free = unsafe { current.free(self.at) };
        let size = record::write(free, &self.salt, op, entity, payload);
        match op {
            Op::Put => self.places.set(entity, self.place(self.number, self.at, size)),
            Op::Remove => self.places.remove(entity),
            Op::RemoveUpTo | Op::Commit => {}
        }
        self.at += size;
        self.records += 1;
        self.appended += size;
    }

    #[expect(clippy::cast_possible_truncation, reason = "segments are below 4 GiB; numbers are compared in 32 bits")]
    fn place(&self, number: u64, at: usize, size: usize) -> Place {
        Place { segment: number as u32, at: at as u32, size: size as u32 }
    }

    /// The shard has nothing else to do: makes the journal somewhat shorter. Whether it could be shorter still. What a busy shard
    /// leaves behind, up to three times what lives in it, is more than all else that a waiting call takes. When it is as short as
    /// it is to be, and stays so, what is full goes to rest. All that only while little is written, or it would never end.
    pub fn tidy(&mut self) -> bool {
        let quiet = self.pool.quiet();
        self.untidy = quiet >= TIDY_AFTER && self.is_longer(IDLE_LENGTH[usize::from(self.untidy)]);
        // Making a segment takes longer than anybody should wait who comes meanwhile.
        if !self.untidy || self.is_full() || !self.pool.has_plenty() {
            // Where there is no room in memory, that is how there will be.
            if self.pool.still() >= REST_AFTER && (!self.untidy || self.pool.is_crowded()) && !self.is_full() {
                self.rest();
            }
            return false;
        }
        if !self.front_is_up() {
            return false;
        }
        self.clean_up(TIDY.min(self.pool.size() / 8), IDLE_LENGTH[1]);
        #[cfg(mutant)]
        if strowger_dispatch::mutant::is("tidied-without-a-mark") {
            return true;
        }
        if self.records > self.marked || !self.done.is_empty() && self.room(0) {
            self.mark();
        }
        true
    }

    /// Cleans as a turn does that has written something.
    pub(super) fn clean(&mut self) {
        self.clean_up(CLEAN_LEAST.max(self.appended * CLEAN_FACTOR), LENGTH);
    }

    /// Writes living records of the oldest segment anew, `left` bytes of it at most, so that it can be used again; as long as the
    /// journal is longer than so many eighths of what lives in it.
    fn clean_up(&mut self, mut left: usize, eighths: u64) {
        if self.is_longer(eighths) {
            self.foresee(left);
        }
        while left > 0 && self.is_longer(eighths) {
            if !self.front_is_up() {
                return;
            }
            let Some(Closed { segment: Some(segment), number, salt, end, .. }) = self.closed.front() else { return };
            let (segment, number, end) = (Arc::clone(segment), *number, *end);
            let at = self.cleaned.max(HEADER);
            // SAFETY: this journal wrote all below `end`, and takes the segment out of use itself, after this.
            let written = unsafe { segment.written(end) };
            let rest = &written[(at - HEADER).min(written.len())..];
            let Some(head) = record::head(rest, salt) else {
                self.done.extend(self.closed.pop_front().and_then(|c| c.segment));
                self.fresh = self.fresh.min(self.closed.len());
                self.awake = self.awake.min(self.closed.len());
                self.cleaned = 0;
                continue;
            };
            let lives = head.op == Op::Put && self.places.get(head.entity) == Some(self.place(number, at, head.size()));
            #[cfg(mutant)]
            let lives = lives && !strowger_dispatch::mutant::is("cleaned-without-a-copy");
            if lives {
                if !self.room(head.size()) {
                    return;
                }
                let counted = self.appended;
                self.append(Op::Put, head.entity, &rest[HEAD..HEAD + head.len]);
                // Cleaning is no reason for more cleaning.
                self.appended = counted;
            }
            self.cleaned = at + head.size();
            left = left.saturating_sub(head.size());
        }
    }

    /// Has the processor fetch the places of what is about to be cleaned.
    fn foresee(&self, left: usize) {
        let Some(Closed { segment: Some(segment), salt, end, .. }) = self.closed.front() else { return };
        // SAFETY: this journal wrote all below `end`, and takes the segment out of use itself, after this.
        let written = unsafe { segment.written(*end) };
        let mut at = self.cleaned.saturating_sub(HEADER).min(written.len());
        let until = written.len().min(at + left);
        while at < until
            && let Some(head) = record::head(&written[at..], salt)
        {
            self.places.soon(head.entity);
            at += head.size();
        }
    }

    /// Sends what is full to rest: until it is called up, nothing in it is looked at.
    fn rest(&mut self) {
        if self.fresh > 0 || !self.pool.rests.is_open() {
            return;
        }
        self.take_up();
        // Those that were called up are at the front.
        let front = if std::mem::take(&mut self.up) { CALLED.min(self.closed.len()) } else { 0 };
        let from = (self.closed.len() - std::mem::take(&mut self.awake)).max(front);
        let (front, last) = (0..front, from..self.closed.len());
        for at in front.chain(last) {
            let closed = &mut self.closed[at];
            let rests = closed.segment.take_if(|segment| segment.can_rest());
            let Some(segment) = rests else { continue };
            self.pool.rests.enter(closed.number, segment);
            if at == 0 {
                // It may come back with fewer records, and is looked through anew.
                self.cleaned = 0;
            }
        }
    }

    /// Takes back those that were called up.
    fn take_up(&mut self) {
        while self.called > 0
            && let Some((number, segment)) = self.pool.rests.next_up()
        {
            self.called -= 1;
            let front = self.closed.front().map_or(0, |c| c.number);
            let at = number.checked_sub(front).and_then(|at| usize::try_from(at).ok());
            if let Some(closed) = at.and_then(|at| self.closed.get_mut(at)) {
                (closed.segment, closed.called) = (Some(segment), false);
                self.up = true;
            }
        }
    }

    /// Whether the oldest full segment, if any, is not at rest. If it is, it and the next ones are called up.
    fn front_is_up(&mut self) -> bool {
        self.take_up();
        if self.closed.front().is_none_or(|c| c.segment.is_some()) {
            return true;
        }
        let ahead = if self.pool.quiet() > 0 { CALLED_IDLE } else { CALLED };
        for closed in self.closed.iter_mut().take(ahead).filter(|c| c.segment.is_none() && !c.called) {
            closed.called = true;
            self.called += 1;
            self.pool.rests.call_up(closed.number);
        }
        false
    }

    fn is_longer(&self, eighths: u64) -> bool {
        let size = self.pool.size() as u64;
        (self.closed.len() as u64).saturating_sub(1) * size > eighths * self.places.live() / 8
    }
}

impl Sink for Journal {
    fn soon(&self, entity: Entity) {
        self.places.soon(entity);
    }

    fn put(&mut self, entity: Entity, record: &[u8]) {
        let size = record::size(record.len());
        if size + HEADER + HEAD > self.pool.size() {
            tracing::error!(
                ?entity,
                bytes = record.len(),
                "a record is larger than a segment of the journal; raise [journal] segment_mb"
            );
            return;
        }
        if self.unwritten.is_empty() && self.room(size) {
            self.append(Op::Put, entity, record);
        } else {
            self.unwritten.insert(entity, Some(record.into()));
        }
    }

    fn remove(&mut self, entity: Entity) {
        if self.unwritten.is_empty() && self.room(record::size(0)) {
            self.append(Op::Remove, entity, &[]);
        } else {
            let half = entity.other_half();
            self.unwritten.extend([Some(entity), half].into_iter().flatten().map(|gone| (gone, None)));
        }
    }
}
