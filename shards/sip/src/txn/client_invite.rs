//! INVITE client transaction: RFC 3261 figure 5, with the Accepted state of RFC 6026 section 7.2.

use super::{ClientInput as In, Clock, Output, Step, Tell, Timer, Times};

/// At least 32 s (section 17.1.1.2), and not less than the peer's timer H.
const TIMER_D_US: u64 = 32_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientInvite {
    /// Sent, `resent` times more; nothing heard.
    Calling { resent: u8 },
    /// A provisional answer came. There is no timer here: how long it may ring is the user's affair.
    Proceeding,
    /// Refused; the ACK went out.
    Completed,
    /// Answered 2xx; its retransmissions and those of other forks go to the user.
    Accepted,
}

use ClientInvite::{Accepted, Calling, Completed, Proceeding};

impl ClientInvite {
    /// The user sends an INVITE.
    pub fn start(times: Times) -> Step<ClientInvite> {
        let again = if times.reliable { Clock::Stop } else { Clock::Start(Timer::A, times.t1_us) };
        Step::to(Calling { resent: 0 })
            .send(Output::New)
            .retransmit(again)
            .expire(Clock::Start(Timer::B, times.life_us()))
    }

    pub fn on(self, input: In, times: Times) -> Step<ClientInvite> {
        match (self, input) {
            (Calling { resent }, In::Timer(Timer::A)) => {
                let resent = resent.saturating_add(1);
                let us = times.backoff(resent, u64::MAX);
                Step::to(Calling { resent }).send(Output::Again).retransmit(Clock::Start(Timer::A, us))
            }
            (Calling { .. }, In::Timer(Timer::B)) | (Proceeding, In::Timer(Timer::Cancelled)) => {
                Step::end(Tell::Timeout)
            }
            (Calling { .. }, In::Provisional) => {
                Step::to(Proceeding).retransmit(Clock::Stop).expire(Clock::Stop).tell(Tell::Message)
            }
            (Proceeding, In::Provisional) => Step::to(Proceeding).tell(Tell::Message),
            (Proceeding, In::Cancelled) => Step::to(Proceeding).expire(Clock::Start(Timer::Cancelled, times.life_us())),
            (Calling { .. } | Proceeding, In::Success) => {
                Step::linger(Accepted, Timer::M, times.life_us()).tell(Tell::Message)
            }
            (Calling { .. } | Proceeding, In::Failure) => {
                let us = if times.reliable { 0 } else { times.life_us().max(TIMER_D_US) };
                Step::linger(Completed, Timer::D, us).send(Output::Ack).tell(Tell::Message)
            }
            (Calling { .. } | Proceeding, In::TransportError) => Step::end(Tell::TransportError),
            (Accepted, In::Success) => Step::to(Accepted).tell(Tell::Message),
            (Accepted, In::Timer(Timer::M)) | (Completed, In::Timer(Timer::D)) => Step::end(Tell::Nothing),
            (Completed, In::Failure) => Step::to(Completed).send(Output::Again),
            // The user has its final answer already: there is nothing to tell it.
            (Completed, In::TransportError) => Step::end(Tell::Nothing),
            (state, _) => Step::to(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::tests::{SECOND, TCP, UDP};

    #[test]
    fn start() {
        let s = ClientInvite::start(UDP);
        assert_eq!(s.state, Some(Calling { resent: 0 }));
        assert_eq!((s.send, s.retransmit), (Output::New, Clock::Start(Timer::A, 500_000)));
        assert_eq!(s.expire, Clock::Start(Timer::B, 32 * SECOND));
        assert_eq!(ClientInvite::start(TCP).retransmit, Clock::Stop, "no timer A on a reliable transport");
    }

    #[test]
    fn timer_a_doubles_without_cap() {
        let mut state = Calling { resent: 0 };
        for expected in [1, 2, 4, 8, 16] {
            let s = state.on(In::Timer(Timer::A), UDP);
            assert_eq!((s.send, s.retransmit), (Output::Again, Clock::Start(Timer::A, expected * SECOND)));
            assert_eq!((s.expire, s.tell), (Clock::Keep, Tell::Nothing));
            state = s.state.unwrap();
        }
    }

    #[test]
    fn calling() {
        let calling = Calling { resent: 1 };
        assert_eq!(calling.on(In::Timer(Timer::B), UDP), Step::end(Tell::Timeout));
        assert_eq!(calling.on(In::TransportError, UDP), Step::end(Tell::TransportError));
        let s = calling.on(In::Provisional, UDP);
        assert_eq!((s.state, s.tell), (Some(Proceeding), Tell::Message));
        assert_eq!((s.retransmit, s.expire), (Clock::Stop, Clock::Stop));
        assert_eq!(calling.on(In::Cancelled, UDP), Step::to(calling), "no CANCEL before a provisional answer");
    }

    #[test]
    fn final_answers_from_calling_and_proceeding() {
        for state in [Calling { resent: 0 }, Proceeding] {
            let s = state.on(In::Success, UDP);
            assert_eq!((s.state, s.tell, s.send), (Some(Accepted), Tell::Message, Output::Nothing));
            assert_eq!((s.retransmit, s.expire), (Clock::Stop, Clock::Start(Timer::M, 32 * SECOND)));
            let s = state.on(In::Failure, UDP);
            assert_eq!((s.state, s.tell, s.send), (Some(Completed), Tell::Message, Output::Ack));
            assert_eq!((s.retransmit, s.expire), (Clock::Stop, Clock::Start(Timer::D, 32 * SECOND)));
            let s = state.on(In::Failure, TCP);
            assert_eq!((s.state, s.tell, s.send), (None, Tell::Message, Output::Ack), "timer D is 0");
            let s = state.on(In::Success, TCP);
            assert_eq!(s.expire, Clock::Start(Timer::M, 32 * SECOND), "timer M runs on any transport");
        }
    }

    #[test]
    fn timer_d_never_falls_under_32_seconds() {
        let fast = Times { t1_us: 1000, ..UDP };
        assert_eq!(Proceeding.on(In::Failure, fast).expire, Clock::Start(Timer::D, 32 * SECOND));
    }

    #[test]
    fn proceeding() {
        assert_eq!(Proceeding.on(In::Provisional, UDP), Step::to(Proceeding).tell(Tell::Message));
        assert_eq!(Proceeding.on(In::Timer(Timer::A), UDP), Step::to(Proceeding));
        assert_eq!(Proceeding.on(In::Timer(Timer::B), UDP), Step::to(Proceeding));
        assert_eq!(Proceeding.on(In::TransportError, UDP), Step::end(Tell::TransportError));
        let s = Proceeding.on(In::Cancelled, UDP);
        assert_eq!(s.expire, Clock::Start(Timer::Cancelled, 32 * SECOND));
        assert_eq!(Proceeding.on(In::Timer(Timer::Cancelled), UDP), Step::end(Tell::Timeout));
    }

    #[test]
    fn accepted() {
        assert_eq!(Accepted.on(In::Success, UDP), Step::to(Accepted).tell(Tell::Message));
        assert_eq!(Accepted.on(In::Timer(Timer::M), UDP), Step::end(Tell::Nothing));
        for input in [In::Provisional, In::Failure, In::TransportError, In::Cancelled] {
            assert_eq!(Accepted.on(input, UDP), Step::to(Accepted));
        }
    }

    #[test]
    fn completed() {
        assert_eq!(Completed.on(In::Failure, UDP), Step::to(Completed).send(Output::Again));
        assert_eq!(Completed.on(In::Timer(Timer::D), UDP), Step::end(Tell::Nothing));
        assert_eq!(Completed.on(In::TransportError, UDP), Step::end(Tell::Nothing));
        for input in [In::Provisional, In::Success, In::Cancelled] {
            assert_eq!(Completed.on(input, UDP), Step::to(Completed));
        }
    }
}
