//! What the loop drives: the engine's verbs as a trait, so that the loop can be tested without a whole call machine.

use std::net::IpAddr;
use strowger_engine::journal::Sink;
use strowger_engine::{Control, MeshMsg, Output};
use strowger_sip::endpoint::{Resolve, Transmit};
use strowger_sip::net::Path;
use strowger_sip::scan::Hint;
use strowger_sip::time::{Mono, Now};

/// Inputs are `handle_*`; after each the loop drains `poll_*` until empty. See `strowger_engine::Engine`.
pub trait Machine: 'static {
    fn handle_datagram(&mut self, now: Now, path: Path, bytes: &[u8]);
    /// What a datagram will be looked up by that is handled soon; see `strowger_engine::Engine::foresee`.
    fn foresee(&self, _hint: Hint, _step: u8) {}
    fn handle_mesh(&mut self, now: Now, msg: MeshMsg);
    fn handle_control(&mut self, now: Now, id: u64, cmd: Control);
    fn handle_resolved(&mut self, now: Now, id: u32, result: Result<&[IpAddr], ()>, ttl_us: u64);
    fn handle_send_failed(&mut self, now: Now, transmit: Transmit);
    /// All that is due.
    fn handle_timers(&mut self, now: Now);
    fn next_due(&self) -> Option<Mono>;
    /// By how many microseconds the latest of the timers was late that fired since this was last asked.
    fn take_lateness(&mut self) -> Option<u64>;
    fn poll_transmit(&mut self) -> Option<Transmit>;
    fn bytes(&self, t: &Transmit) -> &[u8];
    fn sent(&mut self, t: Transmit);
    fn poll_output(&mut self) -> Option<Output>;
    fn poll_resolve(&mut self) -> Option<Resolve>;
    /// When a slice of its audit is due; `None`: it has no audit.
    fn audit_due(&self) -> Option<Mono> {
        None
    }
    /// A slice of its audit.
    fn handle_audit(&mut self, _now: Now) {}
    /// Nothing to do: collect garbage.
    fn idle(&mut self);
    /// Whether calls wait here for what another shard may have soon.
    fn waits(&self) -> bool {
        false
    }
    /// Writes down what has changed since the last call; the first call writes everything, and the shard's own record in
    /// any case: one of which nothing is found has lost it. A machine without state that outlives it writes nothing.
    fn journal<S: Sink>(&mut self, _now: Now, _sink: &mut S) {}
}

impl Machine for strowger_engine::Engine {
    fn handle_datagram(&mut self, now: Now, path: Path, bytes: &[u8]) {
        self.handle_datagram(now, path, bytes);
    }
    fn foresee(&self, hint: Hint, step: u8) {
        self.foresee(hint, step);
    }
    fn handle_mesh(&mut self, now: Now, msg: MeshMsg) {
        self.handle_mesh(now, msg);
    }
    fn handle_control(&mut self, now: Now, id: u64, cmd: Control) {
        self.handle_control(now, id, cmd);
    }
    fn handle_resolved(&mut self, now: Now, id: u32, result: Result<&[IpAddr], ()>, ttl_us: u64) {
        self.handle_resolved(now, id, result, ttl_us);
    }
    fn handle_send_failed(&mut self, now: Now, transmit: Transmit) {
        self.handle_send_failed(now, transmit);
    }
    fn handle_timers(&mut self, now: Now) {
        self.handle_timers(now);
    }
    fn next_due(&self) -> Option<Mono> {
        self.next_due()
    }
    fn take_lateness(&mut self) -> Option<u64> {
        self.take_lateness()
    }
    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.poll_transmit()
    }
    fn bytes(&self, t: &Transmit) -> &[u8] {
        self.bytes(t)
    }
    fn sent(&mut self, t: Transmit) {
        self.sent(t);
    }
    fn poll_output(&mut self) -> Option<Output> {
        self.poll_output()
    }
    fn poll_resolve(&mut self) -> Option<Resolve> {
        self.poll_resolve()
    }
    fn audit_due(&self) -> Option<Mono> {
        Some(self.audit_due())
    }
    fn handle_audit(&mut self, now: Now) {
        self.handle_audit(now);
    }
    fn idle(&mut self) {
        self.idle();
    }
    fn waits(&self) -> bool {
        self.waits()
    }
    fn journal<S: Sink>(&mut self, now: Now, sink: &mut S) {
        self.journal(now, sink);
    }
}
