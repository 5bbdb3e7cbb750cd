//! How a record lies in a segment.
//!
//! ```text
//! 0   checksum of the payload (CRC-32, begun with the segment's salt)
//! 4   length of the payload
//! 8   id
//! 16  kind
//! 17  what is done
//! 18  0
//! 20  check of the fields from 4 on
//! 24  payload, then zeros to a multiple of 8
//! ```
//! All integers little-endian. The check lets a reader step over a payload that was damaged, and look for the next record
//! without summing up whatever looks like a length; a record without a payload has all its proof in it. The salt tells records
//! of a segment's earlier use apart.

use strowger_engine::journal::{Entity, Kind};

/// Bytes before the payload.
pub const HEAD: usize = 24;
/// Where records begin.
pub const ALIGN: usize = 8;

/// Keeps zeros from being a head.
const SEED: u64 = 0x5354_524F_5747_4552;

/// What records of one use of a segment are told by.
#[derive(Debug, Clone)]
pub struct Salt {
    value: u32,
    /// Begun with it: which instructions there are is asked once.
    begun: crc32fast::Hasher,
}

impl Salt {
    #[must_use]
    pub fn new(value: u32) -> Salt {
        Salt { value, begun: crc32fast::Hasher::new_with_initial(value) }
    }

    fn sum(&self, payload: &[u8]) -> u32 {
        if payload.is_empty() {
            return self.value;
        }
        let mut sum = self.begun.clone();
        sum.update(payload);
        sum.finalize()
    }
}

/// What a record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// The entity is the payload now.
    Put = 0,
    Remove = 1,
    /// As [`Op::Remove`], for every id of the kind up to this.
    RemoveUpTo = 2,
    /// All before is valid. The id is the number of records that the journal has had so far, marks not counted.
    Commit = 3,
}

/// A record's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub op: Op,
    pub entity: Entity,
    pub len: usize,
}

impl Head {
    /// Bytes that the record takes.
    #[must_use]
    pub fn size(&self) -> usize {
        size(self.len)
    }
}

/// Bytes that a record with so long a payload takes.
#[must_use]
pub fn size(payload: usize) -> usize {
    (HEAD + payload).next_multiple_of(ALIGN)
}

/// Writes a record at the beginning of `to`, which must have room; its size.
pub fn write(to: &mut [u8], salt: &Salt, op: Op, entity: Entity, payload: &[u8]) -> usize {
    let (end, size) = (HEAD + payload.len(), size(payload.len()));
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    to[4..8].copy_from_slice(&len.to_le_bytes());
    to[8..16].copy_from_slice(&entity.id.to_le_bytes());
    to[16..20].copy_from_slice(&[entity.kind as u8, op as u8, 0, 0]);
    let check = check(&to[4..20], salt);
    to[20..24].copy_from_slice(&check.to_le_bytes());
    to[HEAD..end].copy_from_slice(payload);
    to[end..size].fill(0);
    let sum = salt.sum(payload);
    to[0..4].copy_from_slice(&sum.to_le_bytes());
    size
}

/// The head at the beginning of `from`; `None`: there is none that is intact, or its payload goes beyond the end.
#[must_use]
pub fn head(from: &[u8], salt: &Salt) -> Option<Head> {
    let raw: &[u8; HEAD] = from.first_chunk()?;
    if check(&raw[4..20], salt) != u32_at(raw, 20) {
        return None;
    }
    let op = [Op::Put, Op::Remove, Op::RemoveUpTo, Op::Commit].get(usize::from(raw[17])).copied()?;
    let id = u64::from_le_bytes(*raw[8..].first_chunk()?);
    let head = Head { op, entity: Entity { kind: Kind::from_u8(raw[16])?, id }, len: u32_at(raw, 4) as usize };
    (head.size() <= from.len()).then_some(head)
}

/// The payload behind a head that was read at the beginning of `from`; `None`: it is damaged.
#[must_use]
pub fn payload<'a>(from: &'a [u8], head: &Head, salt: &Salt) -> Option<&'a [u8]> {
    let payload = from.get(HEAD..HEAD + head.len)?;
    (salt.sum(payload) == u32_at(from, 0)).then_some(payload)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
}

/// Of the sixteen bytes of the head's fields: a mixing that lets no single changed bit through.
fn check(fields: &[u8], salt: &Salt) -> u32 {
    let word = |at: usize| fields[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    let mixed = (word(0) ^ u64::from(salt.value) ^ SEED).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32) ^ word(8);
    (mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_no_single_bit_of_it_may_change() {
        let entity = Entity { kind: Kind::Leg, id: 7 << 32 | 3 };
        let mut bytes = [0u8; 64];
        let size = write(&mut bytes, &Salt::new(99), Op::Put, entity, b"sip:a@h");
        let read = |bytes: &[u8], salt| {
            let salt = Salt::new(salt);
            let head = head(bytes, &salt)?;
            payload(bytes, &head, &salt).map(|p| (head, p.to_vec()))
        };
        assert_eq!(read(&bytes[..size], 99), Some((Head { op: Op::Put, entity, len: 7 }, b"sip:a@h".to_vec())));
        assert_eq!((read(&bytes, 98), read(&bytes[..size - 1], 99)), (None, None));
        for bit in 0..(HEAD + 7) * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes, 99), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_record_without_a_payload_is_as_safe() {
        let (mut bytes, salt) = ([0u8; HEAD], Salt::new(99));
        assert_eq!(write(&mut bytes, &salt, Op::Remove, Entity { kind: Kind::Leg, id: 7 }, &[]), HEAD);
        let reads = |bytes: &[u8]| head(bytes, &salt).is_some_and(|h| payload(bytes, &h, &salt).is_some());
        assert!(reads(&bytes));
        for bit in 0..HEAD * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!reads(&bytes), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn zeros_are_no_record() {
        assert!((0..1000).all(|salt| head(&[0; 64], &Salt::new(salt)).is_none()));
    }
}
