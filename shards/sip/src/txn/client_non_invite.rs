//! Client transaction of requests other than INVITE: RFC 3261 figure 6.

use super::{ClientInput as In, Clock, Output, Step, Tell, Timer, Times};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientNonInvite {
    /// Sent, `resent` times more; nothing heard.
    Trying { resent: u8 },
    /// A provisional answer came; retransmission goes on, slower.
    Proceeding,
    /// Answered; absorbs retransmitted answers.
    Completed,
}

use ClientNonInvite::{Completed, Proceeding, Trying};

impl ClientNonInvite {
    /// The user sends a request.
    pub fn start(times: Times) -> Step<ClientNonInvite> {
        let again = if times.reliable { Clock::Stop } else { Clock::Start(Timer::E, times.t1_us) };
        Step::to(Trying { resent: 0 })
            .send(Output::New)
            .retransmit(again)
            .expire(Clock::Start(Timer::F, times.life_us()))
    }

    pub fn on(self, input: In, times: Times) -> Step<ClientNonInvite> {
        match (self, input) {
            (Trying { resent }, In::Timer(Timer::E)) => {
                let resent = resent.saturating_add(1);
                let us = times.backoff(resent, times.t2_us);
                Step::to(Trying { resent }).send(Output::Again).retransmit(Clock::Start(Timer::E, us))
            }
            (Proceeding, In::Timer(Timer::E)) => {
                Step::to(Proceeding).send(Output::Again).retransmit(Clock::Start(Timer::E, times.t2_us))
            }
            (Trying { .. } | Proceeding, In::Timer(Timer::F)) => Step::end(Tell::Timeout),
            (Trying { .. } | Proceeding, In::TransportError) => Step::end(Tell::TransportError),
            (Trying { .. } | Proceeding, In::Provisional) => Step::to(Proceeding).tell(Tell::Message),
            (Trying { .. } | Proceeding, In::Success | In::Failure) => {
                let us = if times.reliable { 0 } else { times.t4_us };
                Step::linger(Completed, Timer::K, us).tell(Tell::Message)
            }
            (Completed, In::Timer(Timer::K)) => Step::end(Tell::Nothing),
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
        let s = ClientNonInvite::start(UDP);
        assert_eq!((s.send, s.retransmit), (Output::New, Clock::Start(Timer::E, 500_000)));
        assert_eq!(s.expire, Clock::Start(Timer::F, 32 * SECOND));
        assert_eq!(ClientNonInvite::start(TCP).retransmit, Clock::Stop);
    }

    #[test]
    fn timer_e_doubles_up_to_t2() {
        let mut state = Trying { resent: 0 };
        for expected in [1, 2, 4, 4, 4] {
            let s = state.on(In::Timer(Timer::E), UDP);
            assert_eq!((s.send, s.retransmit), (Output::Again, Clock::Start(Timer::E, expected * SECOND)));
            state = s.state.unwrap();
        }
        let s = Proceeding.on(In::Timer(Timer::E), UDP);
        assert_eq!((s.send, s.retransmit), (Output::Again, Clock::Start(Timer::E, 4 * SECOND)));
    }

    #[test]
    fn trying_and_proceeding() {
        for state in [Trying { resent: 2 }, Proceeding] {
            assert_eq!(state.on(In::Timer(Timer::F), UDP), Step::end(Tell::Timeout));
            assert_eq!(state.on(In::TransportError, UDP), Step::end(Tell::TransportError));
            assert_eq!(state.on(In::Provisional, UDP), Step::to(Proceeding).tell(Tell::Message), "E and F run on");
            for input in [In::Success, In::Failure] {
                let s = state.on(input, UDP);
                assert_eq!((s.state, s.tell), (Some(Completed), Tell::Message));
                assert_eq!((s.retransmit, s.expire), (Clock::Stop, Clock::Start(Timer::K, 5 * SECOND)));
                assert_eq!(state.on(input, TCP), Step::end(Tell::Message), "timer K is 0");
            }
        }
    }

    #[test]
    fn completed() {
        assert_eq!(Completed.on(In::Timer(Timer::K), UDP), Step::end(Tell::Nothing));
        for input in [In::Provisional, In::Success, In::Failure, In::TransportError, In::Timer(Timer::F)] {
            assert_eq!(Completed.on(input, UDP), Step::to(Completed));
        }
    }
}
