//! Hashing without a random seed of its own: the key comes from outside, so that runs replay.

use siphasher::sip::SipHasher13;
use std::hash::{BuildHasher, Hasher};

/// A secret of this installation (kept with its data): peers cannot choose keys that collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub u64, pub u64);

impl HashKey {
    /// Keyed 64-bit hash of `parts`, each closed by a separator.
    #[must_use]
    pub fn hash(&self, parts: &[&[u8]]) -> u64 {
        let mut h = SipHasher13::new_with_keys(self.0, self.1);
        for part in parts {
            h.write(part);
            h.write_u8(0);
        }
        h.finish()
    }
}

/// A map keyed by values that are hashes already.
pub type HashedMap<V> = std::collections::HashMap<u64, V, Identity>;

/// Passes a 64-bit hash through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity;

impl BuildHasher for Identity {
    type Hasher = IdentityHasher;
    fn build_hasher(&self) -> IdentityHasher {
        IdentityHasher(0)
    }
}

/// See [`Identity`].
#[derive(Debug, Clone, Copy, Default)]
pub struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }
    fn write_u64(&mut self, v: u64) {
        self.0 = v;
    }
}
