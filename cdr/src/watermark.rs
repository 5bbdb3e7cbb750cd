//! Up to where each shard's records are safe: in the database, in the spool, or set aside. What is behind the mark the
//! shard's journal may forget.
//!
//! Batches end in any order; a mark moves when every batch before it has ended.

use std::collections::VecDeque;
use strowger_engine::CdrRow;

/// Every record of that shard, of the process born then, up to that one is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Unix time of the process' start, in microseconds: records of an earlier one have their own.
    pub born_us: u64,
    pub shard: u16,
    pub sequence: u64,
}

impl Mark {
    /// What a record's key says ([`strowger_engine::Cdr::key`]).
    #[must_use]
    pub fn of(key: u128) -> Mark {
        Mark { born_us: (key >> 64) as u64, shard: (key >> 48) as u16, sequence: key as u64 & 0xffff_ffff_ffff }
    }
}

#[derive(Debug)]
struct Batch {
    number: u64,
    marks: Vec<Mark>,
    safe: bool,
}

/// Batches in the order in which their records came.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    batches: VecDeque<Batch>,
}

impl Watermark {
    /// The next batch; its number is greater than those before.
    pub fn begin(&mut self, number: u64, rows: &[CdrRow]) {
        let mut marks: Vec<Mark> = vec![];
        for mark in rows.iter().map(|r| Mark::of(r.key)) {
            match marks.iter_mut().find(|m| (m.born_us, m.shard) == (mark.born_us, mark.shard)) {
                Some(last) => *last = mark,
                None => marks.push(mark),
            }
        }
        self.batches.push_back(Batch { number, marks, safe: false });
    }

    /// That batch is safe; which marks move.
    pub fn safe(&mut self, number: u64) -> Vec<Mark> {
        if let Ok(at) = self.batches.binary_search_by_key(&number, |b| b.number) {
            self.batches[at].safe = true;
        }
        let mut moved = vec![];
        while self.batches.front().is_some_and(|b| b.safe) {
            moved.extend(self.batches.pop_front().into_iter().flat_map(|b| b.marks));
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(born: u64, shard: u16, sequence: u64) -> CdrRow {
        let key = (u128::from(born) << 64) | (u128::from(shard) << 48) | u128::from(sequence);
        CdrRow { key, ..crate::tests::row(0) }
    }

    #[test]
    fn marks_move_when_all_before_them_is_safe() {
        let mut w = Watermark::default();
        w.begin(1, &[row(9, 0, 1), row(9, 1, 1), row(9, 0, 2)]);
        w.begin(2, &[row(9, 0, 3), row(8, 0, 70)]);
        w.begin(5, &[row(9, 1, 2)]);
        let mark = |born_us, shard, sequence| Mark { born_us, shard, sequence };
        assert_eq!(w.safe(2), []);
        assert_eq!(w.safe(1), [mark(9, 0, 2), mark(9, 1, 1), mark(9, 0, 3), mark(8, 0, 70)]);
        assert_eq!(w.safe(5), [mark(9, 1, 2)]);
        assert_eq!(w.safe(7), []);
    }

    #[test]
    fn a_key_tells_process_shard_and_number() {
        let key = (u128::from(u64::MAX - 1) << 64) | (0xfffe << 48) | 0xffff_ffff_fffe;
        assert_eq!(Mark::of(key), Mark { born_us: u64::MAX - 1, shard: 0xfffe, sequence: 0xffff_ffff_fffe });
    }
}
