//! The passing of time: the TU's timers, the transactions' and the questions', all on one wheel.

use super::{ClientTxn, Endpoint, FailReason, ServerTxn, User};
use crate::ahead::fetch_bytes;
use crate::time::Mono;
use crate::txn::Timer;
use crate::wheel::TimerId;

/// Timers that are looked at ahead.
const AHEAD: usize = 4;
/// By so much of its bytes a transaction is known, mostly.
const IDENTITY: usize = 192;

/// What time brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerEvent {
    /// A timer of [`Endpoint::start_timer`].
    User { token: u64, kind: u8 },
    /// A request ended without a final answer.
    ClientFailed { txn: ClientTxn, user: User, why: FailReason },
    /// Our 2xx to an INVITE was never acknowledged: end the dialog by BYE (RFC 3261 section 13.3.1.4).
    NoAck { txn: ServerTxn, user: User },
    /// The transport of an unanswered request is gone: no answer can reach its sender.
    ServerGone { txn: ServerTxn, user: User },
}

/// Whose a timer on the wheel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    User,
    Client,
    Server,
    Resolve,
}

impl Class {
    /// The wheel's kind: the class above, the timer's own number below.
    pub(super) const fn kind(self, number: u8) -> u16 {
        (self as u16) << 8 | number as u16
    }

    const fn of(kind: u16) -> Class {
        match kind >> 8 {
            0 => Class::User,
            1 => Class::Client,
            2 => Class::Server,
            _ => Class::Resolve,
        }
    }
}

impl Endpoint {
    /// Starts a timer of the TU: [`TimerEvent::User`] at `due` or as soon after it as `poll_timer` is called.
    pub fn start_timer(&mut self, due: Mono, token: u64, kind: u8) -> TimerId {
        self.wheel.insert(due, token, Class::User.kind(kind))
    }

    /// Stops a timer of the TU; whether it was still running.
    pub fn stop_timer(&mut self, id: TimerId) -> bool {
        self.wheel.cancel(id)
    }

    /// When a timer of the TU fires; `None` when it is not running.
    #[must_use]
    pub fn timer_due(&self, id: TimerId) -> Option<Mono> {
        self.wheel.due_of(id)
    }

    /// When to call `poll_timer` next; see [`Wheel::next_due`](crate::wheel::Wheel::next_due). `Mono(0)`: at once.
    #[must_use]
    pub fn next_due(&self) -> Option<Mono> {
        if self.events.is_empty() { self.wheel.next_due() } else { Some(Mono(0)) }
    }

    /// See [`Wheel::take_lateness`](crate::wheel::Wheel::take_lateness).
    pub fn take_lateness(&mut self) -> Option<u64> {
        self.wheel.take_lateness()
    }

    /// The next event that time brought by `now`, and what [`send_failed`](Self::send_failed), the resolver and
    /// [`cancel`](Self::cancel) ended. To be called until `None`.
    pub fn poll_timer(&mut self, now: Mono) -> Option<TimerEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let fired = self.wheel.pop(now)?;
            self.foresee_timers();
            match Class::of(fired.kind) {
                Class::User => return Some(TimerEvent::User { token: fired.token, kind: fired.kind as u8 }),
                Class::Resolve => self.resolve_timeout(now, fired.token as u32),
                class => {
                    let Some(timer) = Timer::from_number(fired.kind as u8) else { continue };
                    match class {
                        Class::Client => self.client_timer(now, fired.token, timer),
                        _ => self.server_timer(now, fired.token, timer),
                    }
                }
            }
        }
    }

    /// Has the processor fetch what the next timers are about: mostly transactions that are over, at which nobody has looked for
    /// half a minute. One step at a time: where what leads there has been fetched.
    fn foresee_timers(&self) {
        for (away, (token, kind)) in self.wheel.ready().take(AHEAD).enumerate() {
            let (class, slot) = (Class::of(kind), (token & 0xffff_ffff) as usize);
            let buf = || match class {
                Class::Client => self.clients.get(slot).map(|client| client.buf),
                Class::Server => self.servers.get(slot).map(|server| server.buf),
                Class::User | Class::Resolve => None,
            };
            match (away, class) {
                (3, Class::Client) => self.clients.soon(slot),
                (3, Class::Server) => self.servers.soon(slot),
                (1, _) => buf().into_iter().for_each(|buf| self.pool.soon(buf)),
                (0, Class::Server) => buf().into_iter().for_each(|buf| fetch_bytes(self.pool.get(buf), IDENTITY)),
                _ => {}
            }
        }
    }
}
