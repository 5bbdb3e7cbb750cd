//! INVITE server transaction: RFC 3261 figure 7, with the Accepted state of RFC 6026 section 7.1, and the
//! retransmission of the 2xx that section 13.3.1.4 lays on the user agent: one machine keeps both.

use super::{Clock, Output, ServerInput as In, Step, Tell, Timer, Times};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerInvite {
    /// The user works on it.
    Proceeding,
    /// Refused, `resent` times more; waits for the ACK.
    Completed { resent: u8 },
    /// The ACK of the refusal came.
    Confirmed,
    /// Answered 2xx, sent `resent` times more; waits for the ACK.
    Accepted { resent: u8 },
    /// The 2xx was acknowledged; absorbs late INVITEs.
    Acked,
}

use ServerInvite::{Accepted, Acked, Completed, Confirmed, Proceeding};

impl ServerInvite {
    /// An INVITE came in.
    pub fn start() -> Step<ServerInvite> {
        Step::to(Proceeding).tell(Tell::Message)
    }

    pub fn on(self, input: In, times: Times) -> Step<ServerInvite> {
        match (self, input) {
            (Proceeding, In::Request) => Step::to(Proceeding).send(Output::Again),
            (Proceeding, In::Provisional) => Step::to(Proceeding).send(Output::New),
            (Proceeding, In::Success) => Step::to(Accepted { resent: 0 })
                .send(Output::New)
                .retransmit(Clock::Start(Timer::Success, times.t1_us))
                .expire(Clock::Start(Timer::L, times.life_us())),
            (Proceeding, In::Failure) => {
                let again = if times.reliable { Clock::Stop } else { Clock::Start(Timer::G, times.t1_us) };
                Step::to(Completed { resent: 0 })
                    .send(Output::New)
                    .retransmit(again)
                    .expire(Clock::Start(Timer::H, times.life_us()))
            }
            (Proceeding, In::TransportError) => Step::end(Tell::TransportError),
            (Completed { resent }, In::Request) => Step::to(Completed { resent }).send(Output::Again),
            (Completed { resent }, In::Timer(Timer::G)) => {
                let resent = resent.saturating_add(1);
                let us = times.backoff(resent, times.t2_us);
                Step::to(Completed { resent }).send(Output::Again).retransmit(Clock::Start(Timer::G, us))
            }
            (Completed { .. }, In::Ack) => {
                Step::linger(Confirmed, Timer::I, if times.reliable { 0 } else { times.t4_us })
            }
            // The user refused the call: a lost ACK or a dead peer changes nothing for it.
            (Completed { .. }, In::Timer(Timer::H) | In::TransportError) => Step::end(Tell::Nothing),
            (Confirmed, In::Timer(Timer::I)) => Step::end(Tell::Nothing),
            (Accepted { resent }, In::Timer(Timer::Success)) => {
                let resent = resent.saturating_add(1);
                let us = times.backoff(resent, times.t2_us);
                Step::to(Accepted { resent }).send(Output::Again).retransmit(Clock::Start(Timer::Success, us))
            }
            (Accepted { .. }, In::Acked) => Step::to(Acked).retransmit(Clock::Stop),
            (Accepted { .. }, In::Timer(Timer::L)) => Step::end(Tell::NoAck),
            // A retransmitted INVITE is absorbed here; an ACK of the same branch is a peer's error that does no harm.
            (Accepted { .. } | Acked, In::Ack) => Step::to(self).tell(Tell::Message),
            (Acked, In::Timer(Timer::L)) => Step::end(Tell::Nothing),
            (state, _) => Step::to(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::tests::{SECOND, TCP, UDP};

    #[test]
    fn proceeding() {
        assert_eq!(ServerInvite::start(), Step::to(Proceeding).tell(Tell::Message));
        assert_eq!(Proceeding.on(In::Request, UDP), Step::to(Proceeding).send(Output::Again));
        assert_eq!(Proceeding.on(In::Provisional, UDP), Step::to(Proceeding).send(Output::New));
        assert_eq!(Proceeding.on(In::TransportError, UDP), Step::end(Tell::TransportError));
        assert_eq!(Proceeding.on(In::Ack, UDP), Step::to(Proceeding));
    }

    #[test]
    fn refusal() {
        let s = Proceeding.on(In::Failure, UDP);
        assert_eq!((s.state, s.send), (Some(Completed { resent: 0 }), Output::New));
        assert_eq!((s.retransmit, s.expire), (Clock::Start(Timer::G, 500_000), Clock::Start(Timer::H, 32 * SECOND)));
        let s = Proceeding.on(In::Failure, TCP);
        assert_eq!((s.retransmit, s.expire), (Clock::Stop, Clock::Start(Timer::H, 32 * SECOND)));
        let mut state = Completed { resent: 0 };
        for expected in [1, 2, 4, 4] {
            let s = state.on(In::Timer(Timer::G), UDP);
            assert_eq!((s.send, s.retransmit), (Output::Again, Clock::Start(Timer::G, expected * SECOND)));
            state = s.state.unwrap();
        }
        assert_eq!(state.on(In::Request, UDP), Step::to(state).send(Output::Again));
        assert_eq!(state.on(In::Timer(Timer::H), UDP), Step::end(Tell::Nothing));
        assert_eq!(state.on(In::TransportError, UDP), Step::end(Tell::Nothing));
        let s = state.on(In::Ack, UDP);
        assert_eq!(
            (s.state, s.retransmit, s.expire),
            (Some(Confirmed), Clock::Stop, Clock::Start(Timer::I, 5 * SECOND))
        );
        assert_eq!(state.on(In::Ack, TCP), Step::end(Tell::Nothing), "timer I is 0");
        for late in [In::Success, In::Failure, In::Provisional, In::Acked] {
            assert_eq!(state.on(late, UDP), Step::to(state), "one final answer only");
        }
    }

    #[test]
    fn confirmed() {
        assert_eq!(Confirmed.on(In::Timer(Timer::I), UDP), Step::end(Tell::Nothing));
        for input in [In::Request, In::Ack, In::Success, In::Failure, In::Timer(Timer::G), In::Timer(Timer::H)] {
            assert_eq!(Confirmed.on(input, UDP), Step::to(Confirmed));
        }
    }

    #[test]
    fn success() {
        for times in [UDP, TCP] {
            let s = Proceeding.on(In::Success, times);
            assert_eq!((s.state, s.send), (Some(Accepted { resent: 0 }), Output::New));
            assert_eq!(s.retransmit, Clock::Start(Timer::Success, 500_000), "on any transport (13.3.1.4)");
            assert_eq!(s.expire, Clock::Start(Timer::L, 32 * SECOND));
        }
        let mut state = Accepted { resent: 0 };
        for expected in [1, 2, 4, 4] {
            let s = state.on(In::Timer(Timer::Success), UDP);
            assert_eq!((s.send, s.retransmit), (Output::Again, Clock::Start(Timer::Success, expected * SECOND)));
            state = s.state.unwrap();
        }
        assert_eq!(state.on(In::Request, UDP), Step::to(state), "absorbed (RFC 6026)");
        assert_eq!(state.on(In::Ack, UDP), Step::to(state).tell(Tell::Message));
        assert_eq!(state.on(In::Timer(Timer::L), UDP), Step::end(Tell::NoAck));
        assert_eq!(state.on(In::TransportError, UDP), Step::to(state));
        for late in [In::Success, In::Failure, In::Provisional] {
            assert_eq!(state.on(late, UDP), Step::to(state), "one final answer only");
        }
        assert_eq!(state.on(In::Acked, UDP), Step::to(Acked).retransmit(Clock::Stop), "timer L runs on");
    }

    #[test]
    fn acknowledged() {
        assert_eq!(Acked.on(In::Request, UDP), Step::to(Acked));
        assert_eq!(Acked.on(In::Ack, UDP), Step::to(Acked).tell(Tell::Message));
        assert_eq!(Acked.on(In::Timer(Timer::L), UDP), Step::end(Tell::Nothing));
        for input in [In::Acked, In::Success, In::Failure, In::TransportError, In::Timer(Timer::Success)] {
            assert_eq!(Acked.on(input, UDP), Step::to(Acked));
        }
    }
}
