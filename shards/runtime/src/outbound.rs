//! What a shard sends: messages gather until a batch is full or the turn is over, then leave in one system call.
//!
//! Invariants: order is kept; a message is given back to its machine exactly once, as sent or as failed; what a full
//! socket does not take waits (the machine's transactions bound how much) and goes first the next time.

use crate::counts::RuntimeCounts;
use crate::latency::{ShardLatency, stamp_ns};
use crate::machine::Machine;
use crate::net::{BATCH, Outgoing, SendError, Sockets, TxBatch};
use crate::overload::Refusals;
use std::collections::VecDeque;
use strowger_sip::endpoint::Transmit;

/// A datagram that was worked on: when it arrived and when that was done, monotonic nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cause {
    pub received: u64,
    pub decided: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    batch: TxBatch,
    pending: VecDeque<Transmit>,
    /// The datagrams that caused what is pending.
    causes: Vec<Cause>,
    full: bool,
}

impl Outbound {
    pub fn push(&mut self, transmit: Transmit) {
        self.pending.push_back(transmit);
    }

    /// That datagram caused the last pushes.
    pub fn caused_by(&mut self, cause: Cause) {
        self.causes.push(cause);
    }

    /// Enough for a whole batch.
    pub fn batch_is_full(&self) -> bool {
        self.pending.len() >= BATCH && !self.full
    }

    /// Whether something waits for a socket that was full.
    pub fn is_blocked(&self) -> bool {
        self.full
    }

    /// Sends what is pending. Failed ones are collected in `failed`, for the machine.
    pub fn flush<M: Machine>(
        &mut self,
        machine: &mut M,
        sockets: &Sockets,
        latency: &ShardLatency,
        counts: &RuntimeCounts,
        failed: &mut Vec<Transmit>,
    ) {
        self.full = false;
        while let Some(first) = self.pending.front() {
            let path = first.path;
            let Some((fd, _)) = sockets.route(&path) else {
                counts.send_failed.add(1);
                failed.extend(self.pending.pop_front());
                continue;
            };
            let run = self.pending.iter().take_while(|t| Sockets::together(&t.path, &path)).map(|t| {
                let from = sockets.route(&t.path).and_then(|(_, from)| from);
                Outgoing { bytes: machine.bytes(t), to: t.path.remote, from }
            });
            match self.batch.send(fd, run) {
                Ok(n) => self.done(n, machine, latency, counts),
                Err(SendError::Full) => {
                    self.full = true;
                    return;
                }
                Err(SendError::Refused(error)) => {
                    tracing::debug!(%error, remote = %path.remote, "datagram not sent");
                    counts.send_failed.add(1);
                    failed.extend(self.pending.pop_front());
                }
            }
        }
        self.causes.clear();
    }

    fn done<M: Machine>(&mut self, n: usize, machine: &mut M, latency: &ShardLatency, counts: &RuntimeCounts) {
        let now = stamp_ns();
        for t in self.pending.drain(..n) {
            if t.stamp != 0 {
                latency.dispatch.record(now.saturating_sub(t.stamp.saturating_mul(1000)));
            }
            machine.sent(t);
        }
        counts.sent.add(i64::try_from(n).unwrap_or(0));
        if self.pending.is_empty() {
            for Cause { received, decided } in self.causes.drain(..) {
                latency.receive_to_send.record(now.saturating_sub(received));
                latency.decision_to_send.record(now.saturating_sub(decided));
            }
        }
    }

    /// Sends the refusals of this turn; what a full socket does not take is dropped (the caller asks again).
    pub fn refuse(&mut self, refusals: &mut Refusals, sockets: &Sockets, counts: &RuntimeCounts) {
        let mut rest = refusals.written();
        while let Some((path, _)) = rest.first() {
            let sent = sockets.route(path).map(|(fd, _)| {
                let run = rest.iter().take_while(|(p, _)| Sockets::together(p, path)).map(|(p, span)| {
                    let from = sockets.route(p).and_then(|(_, from)| from);
                    Outgoing { bytes: refusals.bytes(span), to: p.remote, from }
                });
                self.batch.send(fd, run)
            });
            let n = match sent {
                Some(Ok(n)) => n,
                Some(Err(SendError::Full)) => break,
                Some(Err(SendError::Refused(_))) | None => {
                    counts.send_failed.add(1);
                    rest = &rest[1..];
                    continue;
                }
            };
            counts.sent.add(i64::try_from(n).unwrap_or(0));
            rest = &rest[n..];
        }
        refusals.clear();
    }
}
