//! Between a shard and the control plane: commands and addresses in, replies, CDRs, events and questions out.
//!
//! Policies of the queues: CDRs are never dropped: what the queue does not take waits here in order, and above a
//! bound the shard refuses new calls. Events that find theirs full are lost and counted. Questions that do are
//! answered "no address" at once. Replies have a channel each: the one place where a shard may meet a lock, for a command.

use crate::counts::{self, RuntimeCounts};
use crate::post::{Orders, Post};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use strowger_engine::Cdr;
use strowger_engine::control::{AgentEvent, Control, Reply};

/// How long a stopping shard waits for somebody to take its last CDRs.
const LAST_CDRS: Duration = Duration::from_secs(5);
/// And how often it looks.
const LOOK: Duration = Duration::from_millis(1);

/// From the control plane to a shard.
#[derive(Debug)]
pub(crate) enum Command {
    Control { cmd: Control, reply: flume::Sender<Reply> },
    Stop,
}

/// An answer to a [`ResolveRequest`].
#[derive(Debug)]
pub(crate) struct Resolved {
    pub id: u32,
    pub result: Result<Vec<IpAddr>, ()>,
    pub ttl_us: u64,
}

/// A host name that a shard needs an address of; answer with `Shards::resolved`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveRequest {
    pub shard: u16,
    pub id: u32,
    pub host: String,
}

/// The shard's ends of the queues.
#[derive(Debug)]
pub(crate) struct Relay {
    pub commands: Orders<Command>,
    pub resolved: Orders<Resolved>,
    pub cdrs: Post<Cdr>,
    pub events: Post<AgentEvent>,
    pub resolves: Post<ResolveRequest>,
    pub waiting: VecDeque<Cdr>,
    pub replies: VecDeque<(u64, flume::Sender<Reply>)>,
    pub next_id: u64,
    pub counts: Arc<RuntimeCounts>,
}

impl Relay {
    /// Whether the control plane has sent something.
    pub fn waiting_for_us(&self) -> bool {
        !self.commands.is_empty() || !self.resolved.is_empty()
    }

    /// Notes who waits for the answer to a command; the id that the engine is given.
    pub fn expect(&mut self, reply: flume::Sender<Reply>) -> u64 {
        self.next_id += 1;
        self.replies.push_back((self.next_id, reply));
        self.next_id
    }

    pub fn reply(&mut self, id: u64, reply: Reply) {
        let Some(at) = self.replies.iter().position(|(waiting, _)| *waiting == id) else { return };
        if let Some((_, sender)) = self.replies.remove(at) {
            // Nobody waits any more: whoever asked has given up.
            let _ = sender.try_send(reply);
        }
    }

    pub fn cdr(&mut self, cdr: Cdr) {
        self.waiting.push_back(cdr);
        self.pass_cdrs();
    }

    /// Hands over as many CDRs as the queue takes.
    pub fn pass_cdrs(&mut self) {
        while let Some(cdr) = self.waiting.pop_front() {
            if let Err(cdr) = self.cdrs.send(cdr) {
                self.waiting.push_front(cdr);
                break;
            }
        }
        counts::set(&self.counts.cdrs_waiting, self.waiting.len());
    }

    pub fn event(&self, event: AgentEvent) {
        if self.events.send(event).is_err() {
            self.counts.events_lost.add(1);
        }
    }

    /// False when it can not be asked now.
    pub fn ask(&self, request: ResolveRequest) -> bool {
        self.resolves.send(request).is_ok()
    }
}

impl Drop for Relay {
    /// The shard is over, by a stop or by a panic: its last CDRs go out if anybody takes them.
    fn drop(&mut self) {
        // Whoever still waits for an answer need not wait for the records, too.
        self.replies.clear();
        let mut until = Instant::now() + LAST_CDRS;
        loop {
            let before = self.waiting.len();
            self.pass_cdrs();
            match self.waiting.len() {
                0 => return,
                left if left < before => until = Instant::now() + LAST_CDRS,
                lost if Instant::now() >= until => {
                    tracing::error!(lost, "the last CDRs of a shard could not be handed over");
                    return;
                }
                _ => sleep(LOOK),
            }
        }
    }
}
