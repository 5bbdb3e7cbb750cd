//! The four transaction machines of RFC 3261 section 17 with the corrections of RFC 6026, as pure tables.
//!
//! A machine is a small `Copy` state; `on(input, times)` returns a [`Step`]: the next state and what its owner does.
//! Nothing here holds a message, a timer or an address: the [endpoint](crate::endpoint) does.
//!
//! A transaction has two clocks at most: one that retransmits and one that ends a state. Starting a clock replaces
//! what ran on it; a state that is left takes its clocks with it, unless the step says [`Clock::Keep`].

mod client_invite;
mod client_non_invite;
mod server_invite;
mod server_non_invite;

pub use client_invite::ClientInvite;
pub use client_non_invite::ClientNonInvite;
pub use server_invite::ServerInvite;
pub use server_non_invite::ServerNonInvite;

/// What the timers derive from, and whether the transport retransmits by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Round-trip estimate, microseconds; 500 000 by default (RFC 3261 section 17.1.1.1).
    pub t1_us: u64,
    /// Longest retransmission interval of non-INVITE requests and INVITE answers; 4 000 000 by default.
    pub t2_us: u64,
    /// How long a message stays in the network; 5 000 000 by default.
    pub t4_us: u64,
    pub reliable: bool,
}

impl Times {
    /// 64*T1, the life of an unanswered transaction.
    #[must_use]
    pub const fn life_us(self) -> u64 {
        self.t1_us.saturating_mul(64)
    }

    /// T1 doubled `times` times, at most `cap`.
    const fn backoff(self, times: u8, cap: u64) -> u64 {
        let factor = if times > 32 { 1 << 32 } else { 1u64 << times };
        let us = self.t1_us.saturating_mul(factor);
        if us < cap { us } else { cap }
    }
}

/// The timers, by the names of RFC 3261 table 4 and RFC 6026; three have no letter there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// Sends an unanswered INVITE again: the datagram may be lost.
    A,
    /// Gives up on an INVITE that nobody answers.
    B,
    /// Keeps a refused INVITE long enough to acknowledge retransmitted refusals.
    D,
    /// Sends an unanswered request other than INVITE again.
    E,
    /// Gives up on a request other than INVITE.
    F,
    /// Sends our refusal of an INVITE again until its ACK.
    G,
    /// Gives up waiting for the ACK to a refusal.
    H,
    /// Absorbs retransmitted ACKs to a refusal.
    I,
    /// Answers retransmitted requests other than INVITE from memory.
    J,
    /// Absorbs retransmitted answers to a request other than INVITE.
    K,
    /// Absorbs retransmitted INVITEs that a 2xx answered (RFC 6026), and waits for the 2xx's ACK.
    L,
    /// Passes up retransmitted and forked 2xx (RFC 6026).
    M,
    /// Sends our 2xx to an INVITE again until its ACK, on any transport (section 13.3.1.4).
    Success,
    /// Gives up on the final answer to a cancelled INVITE (section 9.1).
    Cancelled,
    /// Ends a request other than INVITE that our user does not answer: its client gave up (RFC 4320).
    Unanswered,
}

impl Timer {
    const ALL: [Timer; 15] = [
        Timer::A,
        Timer::B,
        Timer::D,
        Timer::E,
        Timer::F,
        Timer::G,
        Timer::H,
        Timer::I,
        Timer::J,
        Timer::K,
        Timer::L,
        Timer::M,
        Timer::Success,
        Timer::Cancelled,
        Timer::Unanswered,
    ];

    /// The timer of this number (`timer as u8`).
    #[must_use]
    pub(crate) fn from_number(number: u8) -> Option<Timer> {
        Timer::ALL.get(usize::from(number)).copied()
    }
}

/// What a step does to one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    #[default]
    Keep,
    Stop,
    /// Runs `.0` for `.1` microseconds.
    Start(Timer, u64),
}

/// What a step sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    #[default]
    Nothing,
    /// The message that came with the input (a new request, or the user's answer).
    New,
    /// The last message sent once more.
    Again,
    /// The ACK of a refusal, built from the INVITE (section 17.1.1.3).
    Ack,
}

/// What a step tells the transaction's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tell {
    #[default]
    Nothing,
    /// The message that came in.
    Message,
    Timeout,
    TransportError,
    /// Our 2xx was never acknowledged.
    NoAck,
}

/// A transition.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<S> {
    /// The next state; `None` is Terminated: the transaction is gone, clocks and all.
    pub state: Option<S>,
    pub send: Output,
    pub retransmit: Clock,
    pub expire: Clock,
    pub tell: Tell,
}

impl<S> Step<S> {
    const fn to(state: S) -> Step<S> {
        Step {
            state: Some(state),
            send: Output::Nothing,
            retransmit: Clock::Keep,
            expire: Clock::Keep,
            tell: Tell::Nothing,
        }
    }

    const fn end(tell: Tell) -> Step<S> {
        Step { state: None, send: Output::Nothing, retransmit: Clock::Stop, expire: Clock::Stop, tell }
    }

    /// To a state that lasts `us`; a state of no duration is Terminated at once.
    fn linger(state: S, timer: Timer, us: u64) -> Step<S> {
        if us == 0 {
            return Step::end(Tell::Nothing);
        }
        Step { retransmit: Clock::Stop, expire: Clock::Start(timer, us), ..Step::to(state) }
    }

    /// The same transition of a larger machine.
    pub(crate) fn map<T>(self, f: impl FnOnce(S) -> T) -> Step<T> {
        Step {
            state: self.state.map(f),
            send: self.send,
            retransmit: self.retransmit,
            expire: self.expire,
            tell: self.tell,
        }
    }

    fn send(self, send: Output) -> Step<S> {
        Step { send, ..self }
    }

    fn tell(self, tell: Tell) -> Step<S> {
        Step { tell, ..self }
    }

    fn retransmit(self, retransmit: Clock) -> Step<S> {
        Step { retransmit, ..self }
    }

    fn expire(self, expire: Clock) -> Step<S> {
        Step { expire, ..self }
    }
}

/// Input of a client transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientInput {
    /// 1xx.
    Provisional,
    /// 2xx.
    Success,
    /// 300 to 699.
    Failure,
    Timer(Timer),
    TransportError,
    /// The CANCEL of this INVITE was sent.
    Cancelled,
}

/// Input of a server transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerInput {
    /// The request again.
    Request,
    /// An ACK of this transaction (same branch).
    Ack,
    /// The user answers 1xx.
    Provisional,
    /// The user answers 2xx.
    Success,
    /// The user answers 300 to 699.
    Failure,
    /// The user saw the ACK of its 2xx (it has a branch of its own).
    Acked,
    Timer(Timer),
    TransportError,
}

#[cfg(test)]
mod tests {
    use super::*;

    pub const UDP: Times = Times { t1_us: 500_000, t2_us: 4_000_000, t4_us: 5_000_000, reliable: false };
    pub const TCP: Times = Times { reliable: true, ..UDP };
    pub const SECOND: u64 = 1_000_000;

    #[test]
    fn backoff_doubles_and_stays_in_range() {
        assert_eq!(UDP.backoff(0, u64::MAX), 500_000);
        assert_eq!(UDP.backoff(3, u64::MAX), 4_000_000);
        assert_eq!(UDP.backoff(4, UDP.t2_us), 4_000_000);
        assert_eq!(UDP.backoff(255, UDP.t2_us), 4_000_000);
        assert_eq!(Times { t1_us: u64::MAX, ..UDP }.life_us(), u64::MAX);
    }

    #[test]
    fn timers_are_numbered_in_order() {
        assert!((0u8..).zip(Timer::ALL).all(|(n, timer)| timer as u8 == n));
        assert_eq!(Timer::from_number(15), None);
    }

    #[test]
    fn states_are_small() {
        assert!(size_of::<ClientInvite>() <= 2 && size_of::<ServerInvite>() <= 2);
        assert!(size_of::<ClientNonInvite>() <= 2 && size_of::<ServerNonInvite>() <= 1);
    }
}
