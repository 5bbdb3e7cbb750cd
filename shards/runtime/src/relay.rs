//! Between a shard and the control plane: commands and addresses in, replies, CDRs, events and questions out.
//!
//! Policies of the queues: CDRs are never dropped: what the channel does not take waits here in order, and above a
//! bound the shard refuses new calls. Events that find their channel full are lost and counted. Questions that do are
//! answered "no address" at once. Replies have a channel each.

use crate::counts::{self, RuntimeCounts};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use strowger_engine::Cdr;
use strowger_engine::control::{AgentEvent, Control, Reply};

/// How long a stopping shard waits for somebody to take its last CDRs.
const LAST_CDRS: Duration = Duration::from_secs(5);

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

/// The shard's ends of the channels.
#[derive(Debug)]
pub(crate) struct Relay {
    pub commands: flume::Receiver<Command>,
    pub resolved: flume::Receiver<Resolved>,
    pub cdrs: flume::Sender<Cdr>,
    pub events: flume::Sender<AgentEvent>,
    pub resolves: flume::Sender<ResolveRequest>,
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

    /// Hands over as many CDRs as the channel takes.
    pub fn pass_cdrs(&mut self) {
        while let Some(cdr) = self.waiting.pop_front() {
            match self.cdrs.try_send(cdr) {
                Ok(()) => {}
                Err(flume::TrySendError::Full(cdr) | flume::TrySendError::Disconnected(cdr)) => {
                    self.waiting.push_front(cdr);
                    break;
                }
            }
        }
        counts::set(&self.counts.cdrs_waiting, self.waiting.len());
    }

    pub fn event(&self, event: AgentEvent) {
        if self.events.try_send(event).is_err() {
            self.counts.events_lost.add(1);
        }
    }

    /// False when it can not be asked now.
    pub fn ask(&self, request: ResolveRequest) -> bool {
        self.resolves.try_send(request).is_ok()
    }
}

impl Drop for Relay {
    /// The shard is over, by a stop or by a panic: its last CDRs go out if anybody takes them.
    fn drop(&mut self) {
        // Whoever still waits for an answer need not wait for the records, too.
        self.replies.clear();
        while let Some(cdr) = self.waiting.pop_front() {
            if let Err(error) = self.cdrs.send_timeout(cdr, LAST_CDRS) {
                let lost = self.waiting.len() + 1;
                tracing::error!(lost, %error, "the last CDRs of a shard could not be handed over");
                return;
            }
        }
    }
}
