//! Which shard works on a datagram: scan, then bucket table (spec: sip.md, "Which shard owns a message").
//! Neither glommio nor a socket in here, so that the simulator can use it.

use std::sync::Arc;
use strowger_engine::BucketTable;
use strowger_sip::hash::HashKey;
use strowger_sip::scan::{self, Class, Hint, Owner, Scanned};

/// What to do with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// This shard works on it. `bucket`: `None` without a Call-ID (the engine answers 400).
    Own { bucket: Option<u16>, class: Class, hint: Option<Hint> },
    /// That other shard works on it.
    Shard { shard: u16, bucket: u16, class: Class },
    /// No SIP (keep-alives too): to be dropped.
    Junk,
}

/// Finds owners.
#[derive(Debug, Clone)]
pub struct Router {
    shard: u16,
    buckets: Arc<BucketTable>,
    key: HashKey,
}

impl Router {
    /// For one shard.
    #[must_use]
    pub const fn new(shard: u16, buckets: Arc<BucketTable>, key: HashKey) -> Router {
        Router { shard, buckets, key }
    }

    /// Whose `bytes` are.
    #[must_use]
    pub fn route(&self, bytes: &[u8]) -> Route {
        let Scanned { owner, class, hint } = scan::scan(bytes, &self.key);
        match owner {
            Owner::Junk => Route::Junk,
            Owner::NoCallId => Route::Own { bucket: None, class, hint },
            Owner::Bucket(bucket) => match self.buckets.shard(bucket) {
                shard if shard == self.shard => Route::Own { bucket: Some(bucket), class, hint },
                shard => Route::Shard { shard, bucket, class },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger_sip::id::{self, BranchId, IdGen};

    const KEY: HashKey = HashKey(1, 2);

    fn request(method: &str, call_id: &str, to: &str) -> Vec<u8> {
        let call_id = if call_id.is_empty() { String::new() } else { format!("Call-ID: {call_id}\r\n") };
        format!(
            "{method} sip:q@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:a@h>;tag=1\r\n\
             To: <sip:q@h>{to}\r\n{call_id}CSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    #[test]
    fn every_shard_agrees_on_the_owner_of_a_call() {
        let table = Arc::new(BucketTable::even(3));
        let routers: Vec<Router> = (0..3).map(|s| Router::new(s, Arc::clone(&table), KEY)).collect();
        let mut seen = [0; 3];
        for n in 0..300 {
            let call_id = format!("{n}@peer");
            let owner = scan::bucket_of(call_id.as_bytes(), &KEY);
            let shard = table.shard(owner);
            seen[usize::from(shard)] += 1;
            for (me, router) in (0u16..).zip(&routers) {
                for (method, class) in [("INVITE", Class::NewInvite), ("CANCEL", Class::InDialogOrResponse)] {
                    let bucket = owner;
                    let want = if me == shard {
                        Route::Own { bucket: Some(bucket), class, hint: None }
                    } else {
                        Route::Shard { shard, bucket, class }
                    };
                    assert_eq!(router.route(&request(method, &call_id, "")), want);
                }
            }
        }
        assert!(seen.iter().all(|n| *n > 60), "{seen:?}");
    }

    #[test]
    fn what_our_tags_and_branches_name_is_told_and_nobody_elses() {
        let router = Router::new(0, Arc::new(BucketTable::even(1)), KEY);
        let hint = |bytes: &[u8]| match router.route(bytes) {
            Route::Own { hint, .. } => hint,
            other => panic!("{other:?}"),
        };
        let tag = IdGen::new([7; 32]).tag(5, 4711);
        assert_eq!(hint(&request("BYE", "c", &format!(";tag={tag}"))), Some(Hint::Dialog(4711)));
        let branch = id::branch(5, BranchId { slot: 815, nonce: 1 });
        let answer = |branch: &str| {
            format!("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch={branch}\r\nCall-ID: c\r\nContent-Length: 0\r\n\r\n")
        };
        assert_eq!(hint(answer(&branch.to_string()).as_bytes()), Some(Hint::Transaction(815)));
        for foreign in ["z9hG4bKx", "z9hG4bKsw005-", "z9hG4bKsw005-vvvvvvvvvvvvvvvvvvv"] {
            assert_eq!(hint(answer(foreign).as_bytes()), None, "{foreign}");
        }
        assert_eq!(hint(&request("BYE", "c", ";tag=sw005-abc")), None);
    }

    #[test]
    fn our_mark_beats_the_call_id_and_junk_is_junk() {
        let router = Router::new(0, Arc::new(BucketTable::even(2)), KEY);
        let bye = request("BYE", "any@peer", ";tag=swfff-abc");
        let class = Class::InDialogOrResponse;
        assert_eq!(router.route(&bye), Route::Shard { shard: 1, bucket: 4095, class });
        assert_eq!(
            router.route(&request("INVITE", "", "")),
            Route::Own { bucket: None, class: Class::NewInvite, hint: None }
        );
        for junk in [&b""[..], b"\r\n\r\n", b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"] {
            assert_eq!(router.route(junk), Route::Junk);
        }
    }
}
