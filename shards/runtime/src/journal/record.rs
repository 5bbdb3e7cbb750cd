//! How a record lies in a segment.
//!
//! ```text
//! 0   checksum of what follows, payload included (CRC-32, begun with the segment's salt)
//! 4   length of the payload
//! 8   id
//! 16  kind
//! 17  what is done
//! 18  0
//! 20  check of the fields from 4 on
//! 24  payload, then zeros to a multiple of 8
//! ```
//! All integers little-endian. The check lets a reader step over a payload that was damaged, and look for the next record
//! without summing up whatever looks like a length. The salt tells records of a segment's earlier use apart.

use strowger_engine::journal::{Entity, Kind};

/// Bytes before the payload.
pub const HEAD: usize = 24;
/// Where records begin.
pub const ALIGN: usize = 8;

/// Keeps zeros from being a head.
const SEED: u64 = 0x5354_524F_5747_4552;

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
pub fn write(to: &mut [u8], salt: u32, op: Op, entity: Entity, payload: &[u8]) -> usize {
    let (end, size) = (HEAD + payload.len(), size(payload.len()));
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    to[4..8].copy_from_slice(&len.to_le_bytes());
    to[8..16].copy_from_slice(&entity.id.to_le_bytes());
    to[16..20].copy_from_slice(&[entity.kind as u8, op as u8, 0, 0]);
    let check = check(&to[4..20], salt);
    to[20..24].copy_from_slice(&check.to_le_bytes());
    to[HEAD..end].copy_from_slice(payload);
    to[end..size].fill(0);
    let sum = checksum(&to[4..end], salt);
    to[0..4].copy_from_slice(&sum.to_le_bytes());
    size
}

/// The head at the beginning of `from`; `None`: there is none that is intact, or its payload goes beyond the end.
#[must_use]
pub fn head(from: &[u8], salt: u32) -> Option<Head> {
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
pub fn payload<'a>(from: &'a [u8], head: &Head, salt: u32) -> Option<&'a [u8]> {
    let bytes = from.get(..HEAD + head.len)?;
    (checksum(&bytes[4..], salt) == u32_at(bytes, 0)).then(|| &bytes[HEAD..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
}

fn checksum(bytes: &[u8], salt: u32) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial(salt);
    sum.update(bytes);
    sum.finalize()
}

/// Of the sixteen bytes of the head's fields: a mixing that lets no single changed bit through.
fn check(fields: &[u8], salt: u32) -> u32 {
    let word = |at: usize| fields[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    let mixed = (word(0) ^ u64::from(salt) ^ SEED).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32) ^ word(8);
    (mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_no_single_bit_of_it_may_change() {
        let entity = Entity { kind: Kind::Leg, id: 7 << 32 | 3 };
        let mut bytes = [0u8; 64];
        let size = write(&mut bytes, 99, Op::Put, entity, b"sip:a@h");
        let read = |bytes: &[u8], salt| {
            let head = head(bytes, salt)?;
            payload(bytes, &head, salt).map(|p| (head, p.to_vec()))
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
    fn zeros_are_no_record() {
        assert!((0..1000).all(|salt| head(&[0; 64], salt).is_none()));
    }
}
