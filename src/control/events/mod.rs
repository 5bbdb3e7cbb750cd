//! Events to subscribers (spec: call-center.md "Events"): `E_CALLCENTER_AGENT_REPORT` as JSON-RPC notifications.
//!
//! [`Hub::raise`] hands an event to every subscriber's queue and never waits; [`deliver`] empties each queue on a
//! task of its own.
//!
//! Invariants
//! - One subscription for an event and a socket: a second one renews it.
//! - A queue is bounded. What a subscriber that is gone or slow misses is counted, at the subscriber and in all.
//! - Nothing is left of a subscription that has ended: queue, task and socket go with it.

mod deliver;
mod report;
mod socket;

pub use report::run;

use serde_json::Value;
use socket::EventSocket;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::task::AbortHandle;

/// The one event.
pub const AGENT_REPORT: &str = "E_CALLCENTER_AGENT_REPORT";
/// Every event, in the order of its id.
pub const EVENTS: [&str; 1] = [AGENT_REPORT];
/// Most subscriptions at once.
const MOST: usize = 1024;
/// Longest life of a subscription: what a client's 32 bits hold.
const LONGEST_S: u64 = 0x7fff_ffff;

/// A notification as it goes out.
type Message = Arc<[u8]>;

/// Why there is no subscription.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubscribeError {
    #[error("there is no event `{0}`; events_list names all")]
    Event(String),
    #[error("`{0}` is not of the form udp:HOST:PORT, unix:PATH or tcp:HOST:PORT[/METHOD]")]
    Form(String),
    #[error("`{socket}` cannot be reached: {reason}")]
    Socket { socket: String, reason: String },
    #[error("there are {MOST} subscriptions already; end one with expire 0")]
    Full,
}

/// Counts of one subscription.
#[derive(Debug, Default)]
struct Counts {
    lost: AtomicU64,
}

#[derive(Debug)]
struct Subscription {
    event: &'static str,
    socket: EventSocket,
    expire_s: u64,
    until: Instant,
    queue: flume::Sender<Message>,
    counts: Arc<Counts>,
    task: AbortHandle,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One subscription, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    pub event: &'static str,
    pub socket: String,
    /// Seconds that it was made for, and that are left.
    pub expire_s: u64,
    pub ttl_s: u64,
    pub lost: u64,
}

/// All subscriptions.
#[derive(Debug)]
pub struct Hub {
    subscriptions: Mutex<Vec<Subscription>>,
    /// Messages of one queue.
    queue: usize,
    /// Seconds of a subscription that does not say.
    expire_s: u64,
    /// Of subscriptions that have ended.
    lost_before: AtomicU64,
}

impl Hub {
    /// `queue`: messages that wait for one subscriber; `expire_s`: life of a subscription that does not say.
    #[must_use]
    pub fn new(queue: usize, expire_s: u64) -> Hub {
        Hub { subscriptions: Mutex::default(), queue: queue.max(1), expire_s, lost_before: AtomicU64::new(0) }
    }

    /// Begins, renews, or with `expire_s` 0 ends a subscription.
    ///
    /// # Errors
    /// Unknown event, a socket that is none or cannot be reached, too many subscriptions.
    pub async fn subscribe(&self, event: &str, socket: &str, expire_s: Option<u64>) -> Result<(), SubscribeError> {
        let event = EVENTS.into_iter().find(|e| *e == event).ok_or_else(|| SubscribeError::Event(event.to_owned()))?;
        let socket: EventSocket = socket.parse().map_err(SubscribeError::Form)?;
        let expire_s = expire_s.unwrap_or(self.expire_s).min(LONGEST_S);
        if expire_s == 0 {
            self.retain(|s| s.event != event || s.socket != socket);
            return Ok(());
        }
        if self.renew(event, &socket, expire_s) {
            return Ok(());
        }
        let unreachable =
            |e: std::io::Error| SubscribeError::Socket { socket: socket.to_string(), reason: e.to_string() };
        let wire = deliver::Wire::open(&socket).await.map_err(unreachable)?;
        // While the name was looked up, somebody else may have subscribed the same.
        let mut all = self.all();
        self.keep(&mut all, |s| s.event != event || s.socket != socket);
        if all.len() >= MOST {
            return Err(SubscribeError::Full);
        }
        let (queue, messages) = flume::bounded(self.queue);
        let counts = Arc::<Counts>::default();
        let task = tokio::spawn(deliver::run(wire, messages, Arc::clone(&counts))).abort_handle();
        let until = Instant::now() + Duration::from_secs(expire_s);
        all.push(Subscription { event, socket, expire_s, until, queue, counts, task });
        Ok(())
    }

    fn renew(&self, event: &str, socket: &EventSocket, expire_s: u64) -> bool {
        self.expire();
        let mut all = self.all();
        let Some(found) = all.iter_mut().find(|s| s.event == event && s.socket == *socket) else { return false };
        found.expire_s = expire_s;
        found.until = Instant::now() + Duration::from_secs(expire_s);
        true
    }

    /// Hands an event to its subscribers. Never waits.
    pub fn raise(&self, event: &'static str, params: &Value) {
        let all = self.all();
        // Most have the same method, so that one text serves them all.
        let mut made: Vec<(&str, Message)> = vec![];
        for s in all.iter().filter(|s| s.event == event) {
            let method = s.socket.method().unwrap_or(event);
            let message = match made.iter().find(|(m, _)| *m == method) {
                Some((_, message)) => Arc::clone(message),
                None => {
                    let message = notification(method, params);
                    made.push((method, Arc::clone(&message)));
                    message
                }
            };
            if s.queue.try_send(message).is_err() {
                s.counts.lost.fetch_add(1, Relaxed);
            }
        }
    }

    /// Whether anybody wants to hear of it.
    #[must_use]
    pub fn wanted(&self, event: &str) -> bool {
        self.all().iter().any(|s| s.event == event)
    }

    /// Ends the subscriptions whose time is over.
    pub fn expire(&self) {
        let now = Instant::now();
        self.retain(|s| s.until > now);
    }

    /// Present subscriptions, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Subscriber> {
        self.expire();
        let now = Instant::now();
        let seen = |s: &Subscription| Subscriber {
            event: s.event,
            socket: s.socket.to_string(),
            expire_s: s.expire_s,
            ttl_s: (s.until - now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
            lost: s.counts.lost.load(Relaxed),
        };
        self.all().iter().map(seen).collect()
    }

    /// One subscription, by its socket as written to subscribe.
    #[must_use]
    pub fn find(&self, event: &str, socket: &str) -> Option<Subscriber> {
        let socket = socket.parse::<EventSocket>().ok()?.to_string();
        self.list().into_iter().find(|s| s.event == event && s.socket == socket)
    }

    /// Events that subscribers have missed since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.all().iter().map(|s| s.counts.lost.load(Relaxed)).sum::<u64>() + self.lost_before.load(Relaxed)
    }

    fn retain(&self, wanted: impl Fn(&Subscription) -> bool) {
        self.keep(&mut self.all(), wanted);
    }

    fn keep(&self, all: &mut Vec<Subscription>, wanted: impl Fn(&Subscription) -> bool) {
        all.retain(|s| {
            let kept = wanted(s);
            if !kept {
                self.lost_before.fetch_add(s.counts.lost.load(Relaxed), Relaxed);
            }
            kept
        });
    }

    fn all(&self) -> MutexGuard<'_, Vec<Subscription>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// JSON-RPC 2.0 notification. No line end: the field's clients take one for the start of the next message.
fn notification(method: &str, params: &Value) -> Message {
    serde_json::json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string().into_bytes().into()
}

#[cfg(test)]
mod tests;
