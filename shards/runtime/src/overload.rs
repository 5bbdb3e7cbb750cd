//! What a shard does when more comes in than it can do (spec: sip.md, "Overload").
//!
//! The socket is drained before anything is worked on. Under pressure (a full batch, or calls waiting already) new
//! INVITEs wait in a bounded [`Backlog`] while answers and in-dialog requests are worked on at once; one that became
//! too old there or in the kernel's queue, or that finds the backlog full, is refused statelessly: a reply made from
//! the raw datagram, with a randomised Retry-After. Nothing of it is kept.
//!
//! Invariants
//! - Only an INVITE outside a dialog is ever refused.
//! - Requests of one bucket (so of one Call-ID) never overtake each other: a CANCEL finds its INVITE.
//! - Everything is bounded: the backlog, the refusals of a turn, the table of sources.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use strowger_sip::hash::HashKey;
use strowger_sip::id::stateless_tag;
use strowger_sip::msg::{Limits, Message, Reply, via_reply_path};
use strowger_sip::net::Path;
use strowger_sip::scan::{self, BUCKETS};

/// When to refuse, and how.
#[derive(Debug, Clone)]
pub struct OverloadConfig {
    /// SIP status of a refusal: 503, or 486 or 600 for trunks that would fail over a whole route.
    pub code: u16,
    /// Bounds of the randomised Retry-After, seconds.
    pub retry_after_s: (u32, u32),
    /// A new INVITE older than this (since the kernel received it) is refused, microseconds. Half of T1 by default:
    /// a caller that is still served has not retransmitted yet, and a stall of the machine does not cost calls.
    pub max_age_us: u64,
    /// New INVITEs that wait on one shard at most.
    pub backlog: usize,
    /// CDRs that wait for the control plane on one shard; above it new calls are refused.
    pub cdr_backlog: usize,
    /// New requests (outside dialogs) that one source address may send; `None` = any number.
    pub source_rate: Option<SourceRate>,
}

impl Default for OverloadConfig {
    fn default() -> OverloadConfig {
        OverloadConfig {
            code: 503,
            retry_after_s: (2, 10),
            max_age_us: 250_000,
            backlog: 1024,
            cdr_backlog: 16_384,
            source_rate: None,
        }
    }
}

/// A token bucket's size and refill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRate {
    pub per_second: u32,
    pub burst: u32,
}

/// A new INVITE that waits for its turn.
#[derive(Debug)]
pub struct Waiting {
    pub bytes: Vec<u8>,
    pub path: Path,
    /// `None`: it has no Call-ID.
    pub bucket: Option<u16>,
    /// Monotonic nanoseconds of its arrival in the kernel.
    pub received_ns: u64,
}

/// New INVITEs in the order of their arrival.
#[derive(Debug)]
pub struct Backlog {
    most: usize,
    waiting: VecDeque<Waiting>,
    per_bucket: Box<[u16]>,
    spare: Vec<Vec<u8>>,
}

impl Backlog {
    /// For at most `most` INVITEs (65 535 at the most).
    #[must_use]
    pub fn new(most: usize) -> Backlog {
        let per_bucket = vec![0; usize::from(BUCKETS)].into_boxed_slice();
        Backlog { most: most.min(usize::from(u16::MAX)), waiting: VecDeque::new(), per_bucket, spare: Vec::new() }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Copies an INVITE to the end; false when the backlog is full.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8], path: Path, bucket: Option<u16>, received_ns: u64) -> bool {
        if self.waiting.len() >= self.most {
            return false;
        }
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(bytes);
        if let Some(count) = self.count(bucket) {
            *count += 1;
        }
        self.waiting.push_back(Waiting { bytes: copy, path, bucket, received_ns });
        true
    }

    /// The oldest.
    pub fn pop(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        if let Some(count) = self.count(first.bucket) {
            *count -= 1;
        }
        Some(first)
    }

    /// The oldest of that bucket: a request of the same Call-ID is about to be worked on.
    pub fn pop_bucket(&mut self, bucket: u16) -> Option<Waiting> {
        let count = self.per_bucket.get_mut(usize::from(bucket)).filter(|count| **count > 0)?;
        *count -= 1;
        let at = self.waiting.iter().position(|w| w.bucket == Some(bucket))?;
        self.waiting.remove(at)
    }

    /// Keeps the memory of one that was worked on.
    pub fn recycle(&mut self, waiting: Waiting) {
        if self.spare.len() < self.most {
            self.spare.push(waiting.bytes);
        }
    }

    fn count(&mut self, bucket: Option<u16>) -> Option<&mut u16> {
        self.per_bucket.get_mut(usize::from(bucket?))
    }
}

/// Stateless refusals, written one after the other until they are sent.
#[derive(Debug)]
pub struct Refusals {
    code: u16,
    retry_after_s: (u32, u32),
    random: u64,
    text: Vec<u8>,
    written: Vec<(Path, Range<usize>)>,
}

impl Refusals {
    /// `seed` differs between shards and starts.
    #[must_use]
    pub fn new(config: &OverloadConfig, seed: u64) -> Refusals {
        let (low, high) = config.retry_after_s;
        let retry_after_s = (low, high.max(low));
        Refusals { code: config.code, retry_after_s, random: seed | 1, text: Vec::new(), written: Vec::new() }
    }

    /// Refuses the request in `bytes`, whose keyed hash makes the tag: copies of it get the same. False when it
    /// deserves no answer (an ACK, a head that lacks a field).
    pub fn add(&mut self, bytes: &[u8], hash: u64, path: Path, bucket: Option<u16>) -> bool {
        let tag = stateless_tag(bucket.unwrap_or(0), hash);
        let retry = format_line(self.draw());
        let reply = Reply { code: self.code, to_tag: tag.as_bytes(), extra: retry.as_bytes(), ..Reply::default() };
        let start = self.text.len();
        if !scan::refuse(bytes, path.remote, &reply, &mut self.text) {
            return false;
        }
        let remote = destination(&self.text[start..], path.remote);
        self.written.push((Path { remote, ..path }, start..self.text.len()));
        true
    }

    /// What waits to be sent, in order.
    #[must_use]
    pub fn written(&self) -> &[(Path, Range<usize>)] {
        &self.written
    }

    /// Bytes of one of [`Refusals::written`].
    #[must_use]
    pub fn bytes(&self, span: &Range<usize>) -> &[u8] {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// They were sent (or could not be: the caller's retransmission brings another).
    pub fn clear(&mut self) {
        self.written.clear();
        self.text.clear();
    }

    /// Xorshift: good enough to spread retries.
    fn draw(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let (low, high) = self.retry_after_s;
        low + u32::try_from(self.random % u64::from(high - low + 1)).unwrap_or(0)
    }
}

fn format_line(seconds: u32) -> String {
    format!("Retry-After: {seconds}\r\n")
}

/// Where a written response goes (RFC 3261 section 18.2.2), by its own top Via.
fn destination(response: &[u8], source: SocketAddr) -> SocketAddr {
    let parsed = Message::parse_head(response, &Limits::default()).and_then(|m| m.top_via());
    parsed.map_or(source, |via| via_reply_path(&via, source))
}

/// What was decided of a new INVITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Admitted,
    Refused,
    /// It is in the backlog.
    Waits,
}

/// The verdicts of the last INVITEs, by the hash of the whole datagram: a retransmission gets the verdict of its
/// first copy. Otherwise a call in progress could be refused because the caller asked twice, or a call that the
/// caller has given up after a refusal be accepted. A table of fixed size, in sets whose oldest gives way.
#[derive(Debug)]
pub struct Verdicts(Box<[[u64; VERDICT_WAYS]]>);

/// At 4000 calls a second a shard, of the last 6 s, which is more than the retransmissions that overload causes, less than
/// one in a hundred is forgotten; with one place for each hash it would be one in two.
const VERDICT_SETS: usize = 1 << 13;
const VERDICT_WAYS: usize = 8;

impl Default for Verdicts {
    fn default() -> Verdicts {
        Verdicts(vec![[0; VERDICT_WAYS]; VERDICT_SETS].into_boxed_slice())
    }
}

impl Verdicts {
    /// The verdict on the datagram of that hash, if it is remembered.
    #[must_use]
    pub fn get(&self, hash: u64) -> Option<Verdict> {
        let kept = self.0[Verdicts::place(hash)].iter().find(|kept| *kept & !3 == hash & !3)?;
        [Verdict::Admitted, Verdict::Refused, Verdict::Waits].get((kept & 3) as usize).copied()
    }

    pub fn set(&mut self, hash: u64, verdict: Verdict) {
        let set = &mut self.0[Verdicts::place(hash)];
        let at = set.iter().position(|kept| *kept & !3 == hash & !3).unwrap_or(VERDICT_WAYS - 1);
        // The latest is the first.
        set[..=at].rotate_right(1);
        set[0] = hash & !3 | verdict as u64;
    }

    fn place(hash: u64) -> usize {
        usize::try_from(hash >> 32).unwrap_or(0) % VERDICT_SETS
    }
}

/// Token buckets of the sources seen lately, in a table of fixed size: sets of eight, the fullest bucket gives way.
#[derive(Debug)]
pub struct SourceLimits {
    rate: SourceRate,
    key: HashKey,
    sets: Box<[[Source; WAYS]]>,
}

const SETS: usize = 1024;
const WAYS: usize = 8;
/// Micro-tokens of one request.
const TOKEN: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
struct Source {
    ip: Option<IpAddr>,
    tokens: u64,
    seen_us: u64,
}

impl SourceLimits {
    /// The key keeps peers from choosing addresses that meet in one set.
    #[must_use]
    pub fn new(rate: SourceRate, key: HashKey) -> SourceLimits {
        let none = Source { ip: None, tokens: 0, seen_us: 0 };
        SourceLimits { rate, key, sets: vec![[none; WAYS]; SETS].into_boxed_slice() }
    }

    /// Takes a token of that source; false when it has none left.
    #[must_use]
    pub fn admit(&mut self, ip: IpAddr, now_us: u64) -> bool {
        let hash = match ip {
            IpAddr::V4(ip) => self.key.hash(&[&ip.octets()]),
            IpAddr::V6(ip) => self.key.hash(&[&ip.octets()]),
        };
        let full = u64::from(self.rate.burst.max(1)) * TOKEN;
        let per_us = u64::from(self.rate.per_second);
        let refilled = |s: &Source| {
            if s.ip.is_none() {
                return u64::MAX;
            }
            s.tokens.saturating_add(now_us.saturating_sub(s.seen_us).saturating_mul(per_us)).min(full)
        };
        let set = &mut self.sets[usize::try_from(hash % SETS as u64).unwrap_or(0)];
        let known = set.iter().position(|s| s.ip == Some(ip));
        let place = known.or_else(|| (0..WAYS).max_by_key(|i| refilled(&set[*i]))).unwrap_or(0);
        let tokens = if known.is_some() { refilled(&set[place]) } else { full };
        let admitted = tokens >= TOKEN;
        set[place] = Source { ip: Some(ip), tokens: tokens - if admitted { TOKEN } else { 0 }, seen_us: now_us };
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger_sip::net::ListenerId;

    const KEY: HashKey = HashKey(3, 4);

    fn path() -> Path {
        Path::udp("192.0.2.1:5070".parse().unwrap(), ListenerId(0))
    }

    fn invite(via: &str) -> Vec<u8> {
        format!(
            "INVITE sip:q@h SIP/2.0\r\nVia: SIP/2.0/UDP {via}\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:q@h>\r\n\
             Call-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    #[test]
    fn a_refusal_is_complete_repeatable_and_goes_where_the_via_says() {
        let mut refusals = Refusals::new(&OverloadConfig::default(), 9);
        let rport = invite("192.0.2.1:5060;branch=z9hG4bKa;rport");
        let plain = invite("192.0.2.1:5062;branch=z9hG4bKb");
        assert!(refusals.add(&rport, 5, path(), Some(7)) && refusals.add(&rport, 5, path(), Some(7)));
        assert!(refusals.add(&plain, 6, path(), Some(7)));
        let texts: Vec<String> =
            refusals.written().iter().map(|(_, s)| String::from_utf8(refusals.bytes(s).to_vec()).unwrap()).collect();
        let to: Vec<u16> = refusals.written().iter().map(|(p, _)| p.remote.port()).collect();
        assert_eq!(to, [5070, 5070, 5062]);
        let tag = |t: &str| t.lines().find(|l| l.starts_with("To:")).unwrap().to_owned();
        assert_eq!(tag(&texts[0]), tag(&texts[1]));
        for text in &texts {
            let message = Message::parse(text.as_bytes(), &Limits::default()).unwrap();
            assert_eq!(message.code(), Some(503));
            assert!((2..=10).contains(&message.retry_after().unwrap()), "{text}");
            assert!(message.to_tag().is_some() && text.ends_with("\r\n\r\n"), "{text}");
        }
        refusals.clear();
        assert!(refusals.written().is_empty());
        let ack = b"ACK sip:q@h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nCall-ID: c\r\n\r\n";
        assert!(!refusals.add(ack, 7, path(), None));
    }

    #[test]
    fn retry_after_covers_its_range() {
        let config = OverloadConfig { retry_after_s: (5, 8), ..OverloadConfig::default() };
        let mut refusals = Refusals::new(&config, 1);
        let drawn: std::collections::BTreeSet<u32> = (0..200).map(|_| refusals.draw()).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [5, 6, 7, 8]);
        let mut fixed = Refusals::new(&OverloadConfig { retry_after_s: (5, 1), ..config }, 1);
        assert_eq!(fixed.draw(), 5);
    }

    #[test]
    fn a_copy_gets_the_verdict_of_the_first() {
        let mut verdicts = Verdicts::default();
        let hashes: Vec<u64> = (0u64..24_000).map(|n| KEY.hash(&[&n.to_le_bytes()])).collect();
        let verdict = |hash: u64| if hash.is_multiple_of(3) { Verdict::Refused } else { Verdict::Admitted };
        for hash in &hashes {
            assert_eq!(verdicts.get(*hash), None);
            verdicts.set(*hash, Verdict::Waits);
            assert_eq!(verdicts.get(*hash), Some(Verdict::Waits));
            verdicts.set(*hash, verdict(*hash));
            assert_eq!(verdicts.get(*hash), Some(verdict(*hash)));
        }
        // 6 s of 4000 calls.
        let forgotten = hashes.iter().filter(|h| verdicts.get(**h) != Some(verdict(**h))).count();
        assert!(forgotten < 240, "{forgotten}");
    }

    #[test]
    fn the_backlog_is_bounded_in_order_and_finds_a_bucket() {
        let mut backlog = Backlog::new(3);
        for (bytes, bucket) in [(b"a", 1), (b"b", 2), (b"c", 1)] {
            assert!(backlog.push(bytes, path(), Some(bucket), 0));
        }
        assert!(!backlog.push(b"d", path(), Some(9), 0));
        assert!(backlog.pop_bucket(9).is_none());
        let first = backlog.pop_bucket(1).unwrap();
        assert_eq!(first.bytes, b"a");
        backlog.recycle(first);
        assert!(backlog.push(b"e", path(), None, 0));
        let rest: Vec<Vec<u8>> = std::iter::from_fn(|| backlog.pop()).map(|w| w.bytes).collect();
        assert_eq!(rest, [b"b", b"c", b"e"]);
        assert!(backlog.is_empty() && backlog.pop_bucket(1).is_none() && backlog.pop_bucket(2).is_none());
    }

    #[test]
    fn a_source_gets_its_burst_then_its_rate_and_others_theirs() {
        let mut limits = SourceLimits::new(SourceRate { per_second: 10, burst: 5 }, KEY);
        let ip = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from(n));
        let taken = |limits: &mut SourceLimits, n, at| (0..100).filter(|_| limits.admit(ip(n), at)).count();
        assert_eq!(taken(&mut limits, 1, 1_000_000), 5);
        assert_eq!(taken(&mut limits, 2, 1_000_000), 5);
        assert_eq!(taken(&mut limits, 1, 1_300_000), 3);
        assert_eq!(taken(&mut limits, 1, 100_000_000), 5);
        // However many sources there are, the table stays, and the exhausted one is not forgotten for a full one.
        for n in 10..50_000 {
            assert!(limits.admit(ip(n), 100_000_001));
        }
        assert_eq!(taken(&mut limits, 1, 100_000_002), 0);
    }
}
