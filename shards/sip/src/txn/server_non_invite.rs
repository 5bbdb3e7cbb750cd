//! Server transaction of requests other than INVITE: RFC 3261 figure 8.

use super::{Clock, Output, ServerInput as In, Step, Tell, Timer, Times};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerNonInvite {
    /// Nothing answered yet: retransmissions are absorbed.
    Trying,
    /// A provisional answer went out.
    Proceeding,
    /// Answered; the answer is repeated to each retransmission.
    Completed,
}

use ServerNonInvite::{Completed, Proceeding, Trying};

impl ServerNonInvite {
    /// A request came in. Its client gives up after 64*T1, and an answer later than that only does harm (RFC 4320):
    /// what the user leaves unanswered ends then, T4 later so that no last retransmission makes it new.
    pub fn start(times: Times) -> Step<ServerNonInvite> {
        let us = times.life_us().saturating_add(times.t4_us);
        Step::to(Trying).expire(Clock::Start(Timer::Unanswered, us)).tell(Tell::Message)
    }

    pub fn on(self, input: In, times: Times) -> Step<ServerNonInvite> {
        match (self, input) {
            (Trying | Proceeding, In::Provisional) => Step::to(Proceeding).send(Output::New),
            (Trying | Proceeding, In::Success | In::Failure) => {
                let us = if times.reliable { 0 } else { times.life_us() };
                Step::linger(Completed, Timer::J, us).send(Output::New)
            }
            (Proceeding | Completed, In::Request) => Step::to(self).send(Output::Again),
            (Trying | Proceeding, In::Timer(Timer::Unanswered)) => Step::end(Tell::Timeout),
            (Trying | Proceeding, In::TransportError) => Step::end(Tell::TransportError),
            (Completed, In::TransportError | In::Timer(Timer::J)) => Step::end(Tell::Nothing),
            (state, _) => Step::to(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::tests::{SECOND, TCP, UDP};

    #[test]
    fn trying_and_proceeding() {
        let s = ServerNonInvite::start(UDP);
        assert_eq!((s.state, s.tell), (Some(Trying), Tell::Message));
        assert_eq!(s.expire, Clock::Start(Timer::Unanswered, 37 * SECOND));
        assert_eq!(Trying.on(In::Request, UDP), Step::to(Trying), "absorbed");
        assert_eq!(Proceeding.on(In::Request, UDP), Step::to(Proceeding).send(Output::Again));
        for state in [Trying, Proceeding] {
            assert_eq!(state.on(In::Provisional, UDP), Step::to(Proceeding).send(Output::New));
            assert_eq!(state.on(In::TransportError, UDP), Step::end(Tell::TransportError));
            assert_eq!(state.on(In::Ack, UDP), Step::to(state));
            assert_eq!(state.on(In::Timer(Timer::Unanswered), UDP), Step::end(Tell::Timeout));
            for input in [In::Success, In::Failure] {
                let s = state.on(input, UDP);
                assert_eq!((s.state, s.send), (Some(Completed), Output::New));
                assert_eq!((s.retransmit, s.expire), (Clock::Stop, Clock::Start(Timer::J, 32 * SECOND)));
                assert_eq!(state.on(input, TCP), Step::end(Tell::Nothing).send(Output::New), "timer J is 0");
            }
        }
    }

    #[test]
    fn completed() {
        assert_eq!(Completed.on(In::Request, UDP), Step::to(Completed).send(Output::Again));
        assert_eq!(Completed.on(In::Timer(Timer::J), UDP), Step::end(Tell::Nothing));
        assert_eq!(Completed.on(In::TransportError, UDP), Step::end(Tell::Nothing));
        for late in [In::Success, In::Failure, In::Provisional] {
            assert_eq!(Completed.on(late, UDP), Step::to(Completed), "one final answer only");
        }
    }
}
