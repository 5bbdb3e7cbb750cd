//! Where a record lies, and what an entry of the log says of it; places of a reader. No database here.

use crate::store::StoreError;
use std::fmt;
use strowger_engine::CdrRow;
use strowger_engine::journal::wire::{Corrupt, Reader, Writer};

/// Partitions of one flow and hour: at 10 000 records a second of 300 bytes each has 84 MB.
const PARTS: u64 = 128;
/// Records that follow one another lie together, so that they go in one batch, and an hour with few calls has few partitions.
const RUN_BITS: u32 = 10;
const HOUR_MS: i64 = 3_600_000;
const MINUTE_US: i64 = 60_000_000;
const MINUTES_A_DAY: i32 = 1440;
/// A reader counts on no entry that is older than this to appear still.
pub(super) const SETTLED_US: i64 = 10_000_000;

/// A partition of `cc_cdrs`, within its flow. Made of the record alone: a retry finds the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slice {
    /// Hours of Unix time when the call was received.
    pub hour: i32,
    pub part: i16,
}

impl Slice {
    pub fn of(row: &CdrRow) -> Slice {
        let hour = i32::try_from(received_ms(row) / HOUR_MS).unwrap_or(i32::MAX);
        // Keys are start of the process, shard, sequence; see the engine's `cdr_key`.
        let (sequence, shard) = (row.key & 0xffff_ffff_ffff, (row.key >> 48) & 0xffff);
        let run = u64::try_from(sequence >> RUN_BITS).unwrap_or(0);
        let shard = u64::try_from(shard).unwrap_or(0);
        let part = run.wrapping_add(shard.wrapping_mul(37)) % PARTS;
        Slice { hour, part: i16::try_from(part).unwrap_or(0) }
    }
}

pub(super) fn received_ms(row: &CdrRow) -> i64 {
    i64::try_from(row.received_unix_us / 1000).unwrap_or(i64::MAX)
}

/// Name and order of an entry of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Position {
    /// When it was written, in microseconds of Unix time.
    pub at: i64,
    /// A number of the writing store alone.
    pub writer: i64,
}

impl Position {
    /// Minutes of Unix time: the partition of the log.
    pub fn minute(self) -> i32 {
        i32::try_from(self.at / MINUTE_US).unwrap_or(i32::MAX)
    }
}

pub(super) fn day(minute: i32) -> i32 {
    minute / MINUTES_A_DAY
}

/// Lists records, in their order.
pub(super) fn encode(rows: &[CdrRow]) -> Vec<u8> {
    let mut groups: Vec<(&str, Slice)> = rows.iter().map(|r| (&*r.flow_id, Slice::of(r))).collect();
    groups.sort_unstable();
    groups.dedup();
    let mut bytes = Vec::with_capacity(rows.len() * 26 + groups.len() * 24);
    let mut w = Writer(&mut bytes);
    w.uint(VERSION);
    w.uint(groups.len() as u64);
    for (flow, slice) in &groups {
        w.bytes(flow.as_bytes());
        w.int(i64::from(slice.hour));
        w.int(i64::from(slice.part));
    }
    w.uint(rows.len() as u64);
    for row in rows {
        let group = groups.binary_search(&(&*row.flow_id, Slice::of(row))).unwrap_or(0);
        w.uint(group as u64);
        w.int(received_ms(row));
        w.u128(row.key);
    }
    bytes
}

const VERSION: u64 = 2;

/// Where a record of an entry lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Of the entry's groups.
    pub group: usize,
    pub received_ms: i64,
    pub key: u128,
}

/// An entry, read again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub groups: Vec<(String, Slice)>,
    pub members: Vec<Member>,
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> Result<Listed, Corrupt> {
    let mut r = Reader(bytes);
    match r.uint()? {
        VERSION => {}
        other => return Err(Corrupt::Version(other)),
    }
    let mut listed = Listed::default();
    for _ in 0..r.uint()? {
        let flow = r.text()?.to_owned();
        let hour = i32::try_from(r.int()?).map_err(|_| Corrupt::Nonsense("hour"))?;
        let part = i16::try_from(r.int()?).map_err(|_| Corrupt::Nonsense("part"))?;
        listed.groups.push((flow, Slice { hour, part }));
    }
    for _ in 0..r.uint()? {
        let group = r.small("group")?;
        if group >= listed.groups.len() {
            return Err(Corrupt::Nonsense("group"));
        }
        listed.members.push(Member { group, received_ms: r.int()?, key: r.u128()? });
    }
    r.end().map(|()| listed)
}

/// How many records an entry lists.
pub(super) fn count(bytes: &[u8]) -> usize {
    decode(bytes).map_or(0, |listed| listed.members.len())
}

/// How far a reader is: past every entry up to one, and past some later ones, between which others may still appear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub upto: Position,
    pub seen: Vec<Position>,
}

impl Place {
    /// Reads what `to_string` wrote.
    pub fn parse(text: &str) -> Result<Place, StoreError> {
        let mut all = text.split(',').map(|one| {
            let (at, writer) = one.split_once('.')?;
            let writer = u64::from_str_radix(writer, 16).ok()?.cast_signed();
            Some(Position { at: at.parse().ok()?, writer })
        });
        let upto = all.next().flatten();
        let seen: Option<Vec<Position>> = all.collect();
        match (upto, seen) {
            (Some(upto), Some(seen)) => Ok(Place { upto, seen }),
            _ => Err(StoreError::Refused(format!("`{text}` is no place in the records"))),
        }
    }

    pub fn is_past(&self, entry: Position) -> bool {
        entry <= self.upto || self.seen.contains(&entry)
    }

    /// The place after these entries as well, which are in order and later than `upto`. Entries may still appear
    /// between those that are later than `settled`, a time.
    pub fn after(mut self, read: &[Position], settled: i64) -> Place {
        let Some(last) = read.last() else { return self };
        let sure = *last.min(&Position { at: settled, writer: i64::MIN });
        self.upto = self.upto.max(sure);
        self.seen.extend(read);
        self.seen.retain(|p| *p > self.upto);
        self.seen.sort_unstable();
        self.seen.dedup();
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.upto.at, self.upto.writer)?;
        self.seen.iter().try_for_each(|p| write!(f, ",{}.{:x}", p.at, p.writer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::cdr;
    use std::collections::HashMap;

    fn row(key: u128, flow: &str) -> CdrRow {
        CdrRow { flow_id: flow.into(), ..(&cdr(key, "c")).into() }
    }

    #[test]
    fn an_entry_lists_records_in_their_order() {
        let rows = [row(9, "sales"), row(1 << 50, "support"), row(u128::MAX, "sales"), row(0, "")];
        let listed = decode(&encode(&rows)).unwrap();
        assert_eq!(count(&encode(&rows)), 4);
        for (row, m) in rows.iter().zip(&listed.members) {
            assert_eq!((m.key, m.received_ms), (row.key, 1_795_000_000_500));
            assert_eq!(listed.groups[m.group], (row.flow_id.to_string(), Slice::of(row)));
        }
        let bytes = encode(&rows);
        assert!((0..bytes.len()).all(|len| decode(&bytes[..len]).is_err()));
    }

    #[test]
    fn a_busy_flow_fills_many_partitions_evenly_and_a_quiet_one_few() {
        let mut parts = HashMap::<Slice, u32>::new();
        for shard in 0..4_u128 {
            for n in 0..1_000_000 {
                *parts.entry(Slice::of(&row_key((77 << 64) | (shard << 48) | n))).or_default() += 1;
            }
        }
        let (least, most) = (parts.values().min().unwrap(), parts.values().max().unwrap());
        assert_eq!(parts.len(), 128);
        assert!(*most < 40_000 && *least > 25_000, "{least} to {most} of 4 000 000");
        let quiet: std::collections::HashSet<Slice> = (0..500).map(|n| Slice::of(&row_key(n))).collect();
        assert_eq!(quiet.len(), 1);
    }

    fn row_key(key: u128) -> CdrRow {
        thread_local!(static ROW: CdrRow = row(0, "f"));
        ROW.with(|r| CdrRow { key, ..r.clone() })
    }

    #[test]
    fn a_place_keeps_what_came_early_and_waits_for_what_comes_late() {
        let p = |at| Position { at, writer: -1 };
        let place = Place::default().after(&[p(10), p(20), p(30)], 25);
        assert_eq!(place.upto, Position { at: 25, writer: i64::MIN });
        assert_eq!(place.seen, [p(30)]);
        assert_eq!(Place::parse(&place.to_string()).unwrap(), place);
        assert!(place.is_past(p(20)) && place.is_past(p(30)) && !place.is_past(p(28)));
        // One that appears between, and a later one; all has settled.
        let place = place.after(&[p(28), p(40)], 100);
        assert_eq!(place, Place { upto: p(40), seen: vec![] });
        // Settled times do not take a reader past what it has not read.
        assert_eq!(Place::default().after(&[p(10)], 100).upto, p(10));
        assert_eq!(place.clone().after(&[], 100), place);
        for wrong in ["", "7", "x.1", "7.1,", "7.1,z"] {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }
}
