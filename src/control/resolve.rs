//! Name resolution for the shards: the system's resolver, off their cores. The answer goes back as a value.

use super::mail::Inbox;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use strowger_runtime::{ResolveRequest, Shards};
use tokio::sync::Semaphore;

/// How long a found address and a failure are good for. The system's resolver tells no TTL.
const TTL_US: u64 = 30_000_000;
const FAILED_TTL_US: u64 = 5_000_000;
/// Lookups under way at once.
const AT_ONCE: usize = 64;

/// Answers until the shards are gone.
pub async fn run(requests: Inbox<ResolveRequest>, shards: Weak<Shards>) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(request) = requests.recv().await {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let shards = Weak::clone(&shards);
        tokio::spawn(async move {
            let found = lookup(&request.host).await;
            if found.is_err() {
                tracing::warn!(host = request.host, "no address");
            }
            let ttl = if found.is_ok() { TTL_US } else { FAILED_TTL_US };
            if let Some(shards) = shards.upgrade() {
                shards.resolved(request.shard, request.id, found, ttl);
            }
            drop(slot);
        });
    }
}

async fn lookup(host: &str) -> Result<Vec<IpAddr>, ()> {
    let mut found: Vec<IpAddr> = tokio::net::lookup_host((host, 0)).await.map_err(|_| ())?.map(|a| a.ip()).collect();
    found.dedup();
    // A host that has both is reached over IPv4 first: the listener is more often there.
    found.sort_by_key(IpAddr::is_ipv6);
    if found.is_empty() { Err(()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_looked_up_and_unknown_ones_fail() {
        assert!(lookup("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(lookup("no-such-host.invalid").await, Err(()));
    }
}
