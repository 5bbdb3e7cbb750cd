//! Host names on their way to addresses: questions out, answers in, a small cache.
//!
//! Invariants:
//! - An IP literal never becomes a question.
//! - One question a name at a time, however many wait for it; each question ends in an answer or in its timeout.
//! - Cache and questions are bounded: a full cache drops what expires first, a full list of questions refuses.

use crate::hash::{HashKey, HashedMap};
use crate::time::Mono;
use crate::wheel::TimerId;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Names remembered at most.
const CACHE: usize = 1024;
/// Questions open at most.
const QUESTIONS: usize = 1024;
/// Addresses of a name that are kept.
const ADDRESSES: usize = 8;
/// How long a failure is remembered, microseconds.
const NEGATIVE_US: u64 = 3_000_000;

/// A name to look up; answer with [`Endpoint::resolved`](super::Endpoint::resolved).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    pub id: u32,
    pub host: String,
}

/// What the cache says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known<'a> {
    Addresses(&'a [IpAddr]),
    /// The name has none, as far as we know.
    Nothing,
    Unknown,
}

#[derive(Debug)]
struct Entry {
    host: Box<str>,
    addresses: Box<[IpAddr]>,
    expires: Mono,
}

#[derive(Debug)]
struct Question<W> {
    id: u32,
    host: Box<str>,
    timer: TimerId,
    waiters: Vec<W>,
}

#[derive(Debug)]
pub(super) struct Resolver<W> {
    key: HashKey,
    cache: HashedMap<Entry>,
    questions: Vec<Question<W>>,
    asked: VecDeque<Resolve>,
    next_id: u32,
}

impl<W> Resolver<W> {
    pub(super) fn new(key: HashKey) -> Resolver<W> {
        Resolver { key, cache: HashedMap::default(), questions: Vec::new(), asked: VecDeque::new(), next_id: 1 }
    }

    pub(super) fn known(&self, now: Mono, host: &str) -> Known<'_> {
        match self.cache.get(&self.key.hash(&[host.as_bytes()])) {
            Some(e) if e.expires > now && *e.host == *host => match &e.addresses {
                a if a.is_empty() => Known::Nothing,
                a => Known::Addresses(a),
            },
            _ => Known::Unknown,
        }
    }

    /// Lets `waiter` wait for `host`. `Ok(Some(id))` when that is a new question, to be given a timer; gives the waiter
    /// back when too many are open.
    pub(super) fn wait(&mut self, host: &str, waiter: W) -> Result<Option<u32>, W> {
        if let Some(q) = self.questions.iter_mut().find(|q| *q.host == *host) {
            q.waiters.push(waiter);
            return Ok(None);
        }
        if self.questions.len() >= QUESTIONS {
            return Err(waiter);
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1).max(1);
        self.questions.push(Question { id, host: host.into(), timer: TimerId::NONE, waiters: vec![waiter] });
        self.asked.push_back(Resolve { id, host: host.to_owned() });
        Ok(Some(id))
    }

    /// The timer that ends the question `id`.
    pub(super) fn set_timer(&mut self, id: u32, timer: TimerId) {
        if let Some(q) = self.questions.iter_mut().find(|q| q.id == id) {
            q.timer = timer;
        }
    }

    pub(super) fn timer(&self, id: u32) -> TimerId {
        self.questions.iter().find(|q| q.id == id).map_or(TimerId::NONE, |q| q.timer)
    }

    pub(super) fn poll(&mut self) -> Option<Resolve> {
        self.asked.pop_front()
    }

    /// Ends the question `id` with an answer; those who waited.
    pub(super) fn answer(&mut self, now: Mono, id: u32, result: Result<&[IpAddr], ()>, ttl_us: u64) -> Vec<W> {
        let Some(at) = self.questions.iter().position(|q| q.id == id) else { return Vec::new() };
        let q = self.questions.swap_remove(at);
        let addresses = result.unwrap_or(&[]);
        let ttl = if addresses.is_empty() { NEGATIVE_US } else { ttl_us };
        self.remember(now, q.host, &addresses[..addresses.len().min(ADDRESSES)], now.plus_us(ttl));
        q.waiters
    }

    /// Ends the question `id` without an answer; those who waited.
    pub(super) fn expire(&mut self, id: u32) -> Vec<W> {
        match self.questions.iter().position(|q| q.id == id) {
            Some(at) => {
                self.asked.retain(|a| a.id != id);
                self.questions.swap_remove(at).waiters
            }
            None => Vec::new(),
        }
    }

    /// The host that somebody waits for.
    pub(super) fn host_of(&self, waits: impl Fn(&W) -> bool) -> Option<&str> {
        self.questions.iter().find(|q| q.waiters.iter().any(&waits)).map(|q| &*q.host)
    }

    /// Those who wait, over all questions.
    pub(super) fn waiting(&self) -> usize {
        self.questions.iter().map(|q| q.waiters.len()).sum()
    }

    fn remember(&mut self, now: Mono, host: Box<str>, addresses: &[IpAddr], expires: Mono) {
        if self.cache.len() >= CACHE {
            self.cache.retain(|_, e| e.expires > now);
        }
        if self.cache.len() >= CACHE
            && let Some(first) = self.cache.iter().min_by_key(|(k, e)| (e.expires, **k)).map(|(k, _)| *k)
        {
            self.cache.remove(&first);
        }
        let key = self.key.hash(&[host.as_bytes()]);
        self.cache.insert(key, Entry { host, addresses: addresses.into(), expires });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, n])
    }

    #[test]
    fn one_question_a_name_and_a_cached_answer() {
        let mut r = Resolver::new(HashKey(1, 2));
        assert_eq!(r.wait("a.example", 'x'), Ok(Some(1)));
        assert_eq!(r.wait("a.example", 'y'), Ok(None));
        assert_eq!(r.poll().map(|q| (q.id, q.host)), Some((1, "a.example".to_owned())));
        assert_eq!(r.poll(), None);
        assert_eq!(r.answer(Mono(5), 1, Ok(&[ip(1)]), 100), ['x', 'y']);
        assert_eq!(r.known(Mono(104), "a.example"), Known::Addresses(&[ip(1)]));
        assert_eq!(r.known(Mono(105), "a.example"), Known::Unknown);
        assert_eq!(r.answer(Mono(5), 1, Ok(&[ip(1)]), 100), []);
    }

    #[test]
    fn a_failure_is_remembered_for_a_while() {
        let mut r = Resolver::new(HashKey(1, 2));
        r.wait("a.example", ()).unwrap();
        r.answer(Mono(5), 1, Err(()), 1 << 40);
        assert_eq!(r.known(Mono(6), "a.example"), Known::Nothing);
        assert_eq!(r.known(Mono(5 + NEGATIVE_US), "a.example"), Known::Unknown);
    }

    #[test]
    fn a_question_times_out_once() {
        let mut r = Resolver::new(HashKey(1, 2));
        r.wait("a.example", 'x').unwrap();
        assert_eq!(r.expire(1), ['x']);
        assert_eq!(r.expire(1), []);
        assert_eq!(r.poll(), None, "nobody wants the answer any more");
        assert_eq!(r.waiting(), 0);
    }

    #[test]
    fn everything_is_bounded() {
        let mut r = Resolver::new(HashKey(1, 2));
        for i in 0..QUESTIONS {
            r.wait(&format!("h{i}"), i).unwrap();
        }
        assert_eq!(r.wait("one.more", 7), Err(7));
        for i in 0..2 * CACHE as u32 {
            r.remember(Mono(0), format!("c{i}").into(), &[ip(1)], Mono(100 + u64::from(i)));
        }
        assert_eq!(r.cache.len(), CACHE);
        assert_eq!(r.known(Mono(0), "c0"), Known::Unknown, "what expires first went");
    }
}
