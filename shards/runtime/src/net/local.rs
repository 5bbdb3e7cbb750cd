//! Which local address a datagram came to, as a small number that fits into `Path::conn`.
//!
//! Needed on wildcard listeners only: there the kernel would choose the source of an answer by its route, and a peer
//! that asked another of our addresses would not recognise it. For datagrams `Path::conn` is 0 (the kernel chooses)
//! or a number of this table. Append-only, shared by the shards, read without locks.

use std::net::IpAddr;
use std::sync::OnceLock;

/// Addresses that one machine is expected to have at most; later ones are answered as the kernel chooses.
const MOST: usize = 256;

/// The table.
#[derive(Debug)]
pub struct LocalAddrs(Box<[OnceLock<IpAddr>]>);

impl Default for LocalAddrs {
    fn default() -> LocalAddrs {
        LocalAddrs((0..MOST).map(|_| OnceLock::new()).collect())
    }
}

impl LocalAddrs {
    /// The number of `ip`, from 1; 0 when the table is full.
    #[must_use]
    pub fn number(&self, ip: IpAddr) -> u32 {
        for (n, place) in (1u32..).zip(self.0.iter()) {
            if *place.get_or_init(|| ip) == ip {
                return n;
            }
        }
        0
    }

    /// The address of that number.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<IpAddr> {
        self.0.get(usize::try_from(number.checked_sub(1)?).ok()?)?.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn numbers_stay_and_a_full_table_says_so() {
        let table = LocalAddrs::default();
        let ip = |n: u32| IpAddr::V4(Ipv4Addr::from(n));
        assert_eq!(table.get(0), None);
        for n in 0..u32::try_from(MOST).unwrap() {
            assert_eq!(table.number(ip(n)), n + 1);
        }
        assert_eq!(table.number(ip(7)), 8);
        assert_eq!(table.get(8), Some(ip(7)));
        assert_eq!(table.number(ip(1_000_000)), 0);
    }
}
