//! How records lie in a segment: mark, length, checksum, bytes; one behind the other.
//!
//! The checksum takes in the segment and the place in it besides length and bytes: bytes within a record that look like a
//! record are none, whoever chose them, and neither is what an older file left behind. After damage, reading goes on at
//! the next mark with a sound record behind it.

/// Begins each record. Two of its bytes are never in UTF-8, so names cannot hold it.
pub const MARK: [u8; 4] = [0xf5, b'C', b'D', 0xfa];
/// Bytes before a record: mark, length, checksum.
pub const HEAD: usize = 12;
/// The longest record that is read, far above what a SIP message can make; a length beyond it is damage.
pub const LONGEST: usize = 4 << 20;

/// Some bytes of a segment.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// Number of the segment.
    pub segment: u64,
    /// Where in the segment the bytes begin.
    pub offset: u64,
    pub bytes: &'a [u8],
    /// They reach the segment's end.
    pub last: bool,
}

/// What is at a place of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    Record {
        bytes: &'a [u8],
        end: usize,
    },
    /// Bytes up to `end` that are no record; behind them is one, or more is to be seen.
    Damaged {
        end: usize,
    },
    /// Nothing from here to the segment's end is a whole record.
    Torn,
    /// It cannot be told without the bytes behind the window.
    More,
    End,
}

enum Look<'a> {
    Record(&'a [u8]),
    Nothing,
    Unknown,
}

/// Appends a record that will begin at `offset` of the segment.
pub fn write(out: &mut Vec<u8>, segment: u64, offset: u64, body: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&MARK);
    let head = out.len();
    out.extend_from_slice(&[0; HEAD - MARK.len()]);
    body(out);
    let (head, body) = out[head..].split_at_mut(HEAD - MARK.len());
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    head[..4].copy_from_slice(&len);
    head[4..].copy_from_slice(&checksum(segment, offset, len, body).to_le_bytes());
}

fn checksum(segment: u64, offset: u64, len: [u8; 4], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for part in [&segment.to_le_bytes()[..], &offset.to_le_bytes(), &len, body] {
        crc.update(part);
    }
    crc.finalize()
}

impl<'a> Window<'a> {
    /// What is at that place of the window.
    #[must_use]
    pub fn at(&self, at: usize) -> Piece<'a> {
        if at >= self.bytes.len() {
            return if self.last { Piece::End } else { Piece::More };
        }
        match self.look(at) {
            Look::Record(bytes) => Piece::Record { bytes, end: at + HEAD + bytes.len() },
            Look::Unknown => Piece::More,
            Look::Nothing => self.damaged(at),
        }
    }

    fn damaged(&self, at: usize) -> Piece<'a> {
        for next in at + 1..self.bytes.len() {
            // All but marks pass by here, at a byte each.
            if self.bytes[next] == MARK[0] && !matches!(self.look(next), Look::Nothing) {
                return Piece::Damaged { end: next };
            }
        }
        if self.last { Piece::Torn } else { Piece::Damaged { end: self.bytes.len() } }
    }

    fn look(&self, at: usize) -> Look<'a> {
        let rest = &self.bytes[at..];
        let short = || if self.last { Look::Nothing } else { Look::Unknown };
        let seen = rest.len().min(MARK.len());
        if rest[..seen] != MARK[..seen] {
            return Look::Nothing;
        }
        let (Some(len), Some(sum)) = (word(rest, 4), word(rest, 8)) else { return short() };
        let bytes = u32::from_le_bytes(len) as usize;
        if bytes > LONGEST {
            return Look::Nothing;
        }
        let Some(body) = rest.get(HEAD..HEAD + bytes) else { return short() };
        match checksum(self.segment, self.offset + at as u64, len, body) == u32::from_le_bytes(sum) {
            true => Look::Record(body),
            false => Look::Nothing,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at + 4)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEGMENT: u64 = 77;

    fn written(offset: u64, bodies: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut out, mut starts) = (vec![], vec![]);
        for body in bodies {
            starts.push(out.len());
            let at = offset + out.len() as u64;
            write(&mut out, SEGMENT, at, |o| o.extend_from_slice(body));
        }
        (out, starts)
    }

    /// Sound records, lengths of damaged parts, bytes of a torn end; read through windows of that size that grow when they must.
    fn read(bytes: &[u8], offset: u64, size: usize) -> (Vec<Vec<u8>>, Vec<usize>, usize) {
        let (mut records, mut damaged, mut at, mut wide) = (vec![], vec![], 0, size);
        loop {
            let end = (at + wide).min(bytes.len());
            let window = Window {
                segment: SEGMENT,
                offset: offset + at as u64,
                bytes: &bytes[at..end],
                last: end == bytes.len(),
            };
            match window.at(0) {
                Piece::Record { bytes, end } => {
                    records.push(bytes.to_vec());
                    at += end;
                    wide = size;
                }
                Piece::Damaged { end } => {
                    damaged.push(end);
                    at += end;
                    wide = size;
                }
                Piece::More => wide += size,
                Piece::Torn => return (records, damaged, bytes.len() - at),
                Piece::End => return (records, damaged, 0),
            }
        }
    }

    fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // Bodies that look like records, too.
        let any = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            proptest::collection::vec(any::<u8>(), 0..30).prop_map(|inner| written(0, &[inner]).0),
            Just([MARK, MARK].concat()),
        ];
        proptest::collection::vec(any, 2..7)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bodies in bodies(), offset in 0u64..1 << 40, size in 1usize..200) {
            let (bytes, _) = written(offset, &bodies);
            prop_assert_eq!(read(&bytes, offset, size), (bodies, vec![], 0));
        }

        #[test]
        fn cut_at_each_byte_of_the_last_record_all_others_are_there(bodies in bodies(), size in 1usize..200) {
            let (bytes, starts) = written(0, &bodies);
            let (last, rest) = (starts[starts.len() - 1], &bodies[..bodies.len() - 1]);
            for len in last..bytes.len() {
                let (records, damaged, torn) = read(&bytes[..len], 0, size);
                prop_assert_eq!(&records[..], rest);
                prop_assert_eq!(damaged.iter().sum::<usize>() + torn, len - last);
            }
        }

        #[test]
        fn a_bit_flipped_anywhere_in_a_middle_record_costs_that_record_alone(
            bodies in bodies(), which in any::<prop::sample::Index>(), size in 1usize..200
        ) {
            let (bytes, starts) = written(0, &bodies);
            let hit = which.index(bodies.len() - 1);
            let mut rest = bodies.clone();
            rest.remove(hit);
            for bit in starts[hit] * 8..starts[hit + 1] * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let (records, damaged, torn) = read(&bad, 0, size);
                prop_assert_eq!(&records, &rest, "bit {}", bit);
                prop_assert_eq!((damaged.iter().sum::<usize>(), torn), (starts[hit + 1] - starts[hit], 0));
            }
        }

        #[test]
        fn no_bytes_upset_it(bytes in proptest::collection::vec(prop_oneof![Just(MARK[0]), any::<u8>()], 0..200), size in 1usize..50) {
            let (records, damaged, torn) = read(&bytes, 0, size);
            let sound: usize = records.iter().map(|r| r.len() + HEAD).sum();
            prop_assert_eq!(sound + damaged.iter().sum::<usize>() + torn, bytes.len());
        }
    }

    #[test]
    fn a_record_of_another_place_or_segment_is_none() {
        let (bytes, _) = written(0, &[b"x".to_vec()]);
        let at = |segment, offset| Window { segment, offset, bytes: &bytes, last: true }.at(0);
        assert!(matches!(at(SEGMENT, 0), Piece::Record { .. }));
        assert_eq!((at(SEGMENT, 1), at(SEGMENT + 1, 0)), (Piece::Torn, Piece::Torn));
    }
}
