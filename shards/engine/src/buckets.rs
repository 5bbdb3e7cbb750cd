//! Which shard owns what: 4096 buckets, named by our marks and by Call-ID hashes, mapped to shards at the start.
//! Spec: sip.md, "Which shard owns a message".

/// Number of buckets that marks and hashes name.
pub const BUCKETS: u16 = 4096;

/// Bucket to shard, fixed for the life of a process.
#[derive(Debug, Clone)]
pub struct BucketTable {
    shards: u16,
    map: Box<[u16]>,
}

impl BucketTable {
    /// Spreads the buckets evenly over `shards` (at least one).
    #[must_use]
    pub fn even(shards: u16) -> BucketTable {
        let shards = shards.max(1);
        let map =
            (0..BUCKETS).map(|b| u16::try_from(u32::from(b) * u32::from(shards) / u32::from(BUCKETS)).unwrap_or(0));
        BucketTable { shards, map: map.collect() }
    }

    /// The shard that owns `bucket` (taken modulo the number of buckets).
    #[must_use]
    pub fn shard(&self, bucket: u16) -> u16 {
        self.map[usize::from(bucket % BUCKETS)]
    }

    /// How many shards share the buckets.
    #[must_use]
    pub const fn shards(&self) -> u16 {
        self.shards
    }

    /// The buckets of one shard.
    pub fn owned(&self, shard: u16) -> impl Iterator<Item = u16> + '_ {
        (0..BUCKETS).filter(move |b| self.map[usize::from(*b)] == shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_owns_its_even_part_of_the_buckets() {
        for shards in [1u16, 2, 3, 7, 64] {
            let t = BucketTable::even(shards);
            let parts: Vec<usize> = (0..shards).map(|s| t.owned(s).count()).collect();
            assert_eq!(parts.iter().sum::<usize>(), usize::from(BUCKETS));
            assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1, "{shards}: {parts:?}");
        }
    }
}
