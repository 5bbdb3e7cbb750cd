//! Branches, tags and Call-IDs: unguessable, marked with the bucket of their owner, hinting at its slot.
//!
//! Randomness is injected as a seed, so that a run replays. The generator is SipHash-2-4, a keyed pseudo-random
//! function, in counter mode: outputs tell a peer nothing about the ones that follow (RFC 3261 section 19.3 asks for
//! at least 32 cryptographically random bits in a tag; ours carry 60).
//!
//! Shape: `sw` + 3 hex digits of the bucket + `-` + 7 digits (slot) + 12 digits (random), a branch with the magic
//! cookie before it. Digits are base 32 in lower case, since tokens compare without case. The slot makes a look-up an
//! index; the full comparison that follows makes it safe.

use crate::scan;
use siphasher::sip::SipHasher24;
use std::fmt;
use std::hash::Hasher;

/// Slot of an id that belongs to no slot.
pub const NO_SLOT: u32 = u32::MAX;

const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const SLOT_DIGITS: usize = 7;
const RANDOM_DIGITS: usize = 12;
/// Bits of an id's random part.
const RANDOM_MASK: u64 = (1 << 60) - 1;

/// A short text held inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    len: u8,
    text: [u8; Token::CAPACITY],
}

impl Token {
    /// Longest text, in bytes.
    pub const CAPACITY: usize = 39;
    /// The empty token.
    pub const EMPTY: Token = Token { len: 0, text: [0; Token::CAPACITY] };

    /// `None` when `text` is longer than [`CAPACITY`](Self::CAPACITY).
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Token> {
        let mut token = Token::EMPTY;
        token.text.get_mut(..text.len())?.copy_from_slice(text);
        token.len = text.len() as u8;
        Some(token)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    fn push(&mut self, text: &[u8]) {
        let at = usize::from(self.len);
        self.text[at..at + text.len()].copy_from_slice(text);
        self.len += text.len() as u8;
    }

    fn push_digits(&mut self, value: u64, count: usize) {
        for i in (0..count).rev() {
            self.push(&[DIGITS[(value >> (5 * i)) as usize & 31]]);
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl AsRef<[u8]> for Token {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// What a branch of ours says about its client transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchId {
    pub slot: u32,
    /// 60 random bits.
    pub nonce: u64,
}

/// A generator of ids. The same seed gives the same ids.
#[derive(Debug, Clone)]
pub struct IdGen {
    key: [u8; 16],
    nonce: [u8; 16],
    counter: u64,
}

impl IdGen {
    #[must_use]
    pub fn new(seed: [u8; 32]) -> IdGen {
        let (mut key, mut nonce) = ([0; 16], [0; 16]);
        key.copy_from_slice(&seed[..16]);
        nonce.copy_from_slice(&seed[16..]);
        IdGen { key, nonce, counter: 0 }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let mut h = SipHasher24::new_with_key(&self.key);
        h.write(&self.nonce);
        h.write_u64(self.counter);
        self.counter += 1;
        h.finish()
    }

    /// A From or To tag that names its owner's slot.
    pub fn tag(&mut self, bucket: u16, slot: u32) -> Token {
        let mut t = Token::EMPTY;
        push_mark(&mut t, scan::TAG_MARK, bucket);
        t.push_digits(u64::from(slot), SLOT_DIGITS);
        t.push_digits(self.next_u64(), RANDOM_DIGITS);
        t
    }

    /// A Call-ID: 100 random bits, and the mark for readers of traces.
    pub fn call_id(&mut self, bucket: u16) -> Token {
        let mut t = Token::EMPTY;
        push_mark(&mut t, scan::TAG_MARK, bucket);
        t.push_digits(self.next_u64(), 10);
        t.push_digits(self.next_u64(), 10);
        t
    }

    /// The random part of a new branch; [`branch`] writes it.
    pub fn nonce(&mut self) -> u64 {
        self.next_u64() & RANDOM_MASK
    }
}

/// The Via branch of a client transaction.
#[must_use]
pub fn branch(bucket: u16, id: BranchId) -> Token {
    let mut t = Token::EMPTY;
    push_mark(&mut t, scan::BRANCH_MARK, bucket);
    t.push_digits(u64::from(id.slot), SLOT_DIGITS);
    t.push_digits(id.nonce, RANDOM_DIGITS);
    t
}

/// Slot and nonce of a branch that [`branch`] wrote with `bucket`; `None` for any other text.
#[must_use]
pub fn read_branch(text: &[u8], bucket: u16) -> Option<BranchId> {
    let digits = text.get(scan::BRANCH_MARK.len() + 4..)?;
    let slot = u32::try_from(number(digits.get(..SLOT_DIGITS)?)?).ok()?;
    let nonce = number(&digits[SLOT_DIGITS..])?;
    let id = BranchId { slot, nonce };
    branch(bucket, id).as_bytes().eq_ignore_ascii_case(text).then_some(id)
}

/// The slot that [`branch`] wrote into a branch. A hint from outside: [`read_branch`] compares the whole.
#[must_use]
pub fn branch_slot(text: &[u8]) -> Option<u32> {
    let digits = text.get(scan::BRANCH_MARK.len() + 4..)?;
    u32::try_from(number(digits.get(..SLOT_DIGITS)?)?).ok()
}

/// Bucket, slot and nonce of a branch that [`branch`] wrote; `None` for any other text.
#[must_use]
pub fn read_any_branch(text: &[u8]) -> Option<(u16, BranchId)> {
    let hex = text.get(scan::BRANCH_MARK.len()..scan::BRANCH_MARK.len() + 3)?;
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u16::try_from(d).ok());
    let bucket = hex.iter().try_fold(0, |n, b| Some(n << 4 | digit(b)?))?;
    Some((bucket, read_branch(text, bucket)?))
}

/// A tag for answers that no state remembers: the same text for the same `hash` (RFC 3261 section 8.2.7).
#[must_use]
pub fn stateless_tag(bucket: u16, hash: u64) -> Token {
    let mut t = Token::EMPTY;
    push_mark(&mut t, scan::TAG_MARK, bucket);
    t.push_digits(u64::from(NO_SLOT), SLOT_DIGITS);
    t.push_digits(hash, RANDOM_DIGITS);
    t
}

/// Whether [`stateless_tag`] made the tag: no dialog can be behind it.
#[must_use]
pub fn is_stateless_tag(tag: &[u8]) -> bool {
    slot_digits(tag).and_then(number) == Some(u64::from(NO_SLOT))
}

/// The slot that [`IdGen::tag`] wrote into a tag. A hint from outside: the owner compares the whole tag.
#[must_use]
pub fn tag_slot(tag: &[u8]) -> Option<u32> {
    let slot = u32::try_from(number(slot_digits(tag)?)?).ok()?;
    (slot != NO_SLOT).then_some(slot)
}

fn slot_digits(tag: &[u8]) -> Option<&[u8]> {
    let start = scan::TAG_MARK.len() + 4;
    let marked = tag.starts_with(scan::TAG_MARK) && tag.get(start - 1) == Some(&b'-');
    (marked && tag.len() == start + SLOT_DIGITS + RANDOM_DIGITS).then(|| &tag[start..start + SLOT_DIGITS])
}

fn push_mark(t: &mut Token, mark: &[u8], bucket: u16) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    t.push(mark);
    for shift in [8, 4, 0] {
        t.push(&[HEX[usize::from(bucket >> shift) & 15]]);
    }
    t.push(b"-");
}

fn number(digits: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for d in digits {
        let d = match d {
            b'0'..=b'9' => d - b'0',
            b'a'..=b'v' => d - b'a' + 10,
            b'A'..=b'V' => d - b'A' + 10,
            _ => return None,
        };
        value = value.checked_mul(32)?.checked_add(u64::from(d))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_have_their_documented_shape() {
        let mut ids = IdGen::new([7; 32]);
        let tag = ids.tag(0xabc, 5);
        assert!(tag.as_bytes().starts_with(b"swabc-0000005"), "{tag}");
        assert_eq!(tag.as_bytes().len(), 25);
        let branch = branch(0x01f, BranchId { slot: 33, nonce: 1 });
        assert_eq!(branch.as_bytes(), b"z9hG4bKsw01f-0000011000000000001");
        assert!(ids.call_id(1).as_bytes().starts_with(b"sw001-"));
        assert_eq!(size_of::<Token>(), 40);
    }

    #[test]
    fn the_same_seed_gives_the_same_ids_and_another_gives_others() {
        let draw = |seed| {
            let mut ids = IdGen::new(seed);
            (ids.tag(1, 2), ids.call_id(1), ids.nonce())
        };
        assert_eq!(draw([1; 32]), draw([1; 32]));
        let mut other = [1; 32];
        other[31] = 2;
        assert_ne!(draw([1; 32]), draw(other));
        let mut ids = IdGen::new([1; 32]);
        assert_ne!(ids.tag(1, 2), ids.tag(1, 2));
    }

    #[test]
    fn a_stateless_tag_has_no_slot() {
        assert_eq!(tag_slot(stateless_tag(1, 99).as_bytes()), None);
        assert_eq!(stateless_tag(1, 99), stateless_tag(1, 99));
    }

    proptest! {
        #[test]
        fn slots_and_nonces_come_back(seed: [u8; 32], bucket in 0..4096u16, slot in 0..NO_SLOT) {
            let mut ids = IdGen::new(seed);
            prop_assert_eq!(tag_slot(ids.tag(bucket, slot).as_bytes()), Some(slot));
            let id = BranchId { slot, nonce: ids.nonce() };
            let text = branch(bucket, id);
            prop_assert_eq!(read_branch(text.as_bytes(), bucket), Some(id));
            prop_assert_eq!(read_any_branch(text.as_bytes()), Some((bucket, id)));
            prop_assert_eq!(read_branch(&text.as_bytes().to_ascii_uppercase(), bucket), Some(id));
            prop_assert_eq!(read_branch(text.as_bytes(), bucket ^ 1), None);
        }

        #[test]
        fn foreign_texts_are_not_ours(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut tag = b"sw123-".to_vec();
            tag.extend(&text);
            let _ = tag_slot(&tag);
            let mut branch = b"z9hG4bKsw123-".to_vec();
            branch.extend(&text);
            if let Some(id) = read_branch(&branch, 0x123) {
                prop_assert_eq!(self::branch(0x123, id).as_bytes().to_ascii_lowercase(), branch.to_ascii_lowercase());
            }
            prop_assert_eq!(tag_slot(&text), None);
        }
    }
}
