//! Server transaction of requests other than INVITE: RFC 3261 figure 8.

use super::{Output, ServerInput as In, Step, Tell, Timer, Times};

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
    /// A request came in.
    pub fn start() -> Step<ServerNonInvite> {
        Step::to(Trying).tell(Tell::Message)
    }

    pub fn on(self, input: In, times: Times) -> Step<ServerNonInvite> {
        match (self, input) {
            (Trying | Proceeding, In::Provisional) => Step::to(Proceeding).send(Output::New),
            (Trying | Proceeding, In::Success | In::Failure) => {
                let us = if times.reliable { 0 } else { times.life_us() };
                Step::linger(Completed, Timer::J, us).send(Output::New)
            }
            (Proceeding | Completed, In::Request) => Step::to(self).send(Output::Again),
            (Trying | Proceeding, In::TransportError) => Step::end(Tell::TransportError),
            (Completed, In::TransportError | In::Timer(Timer::J)) => Step::end(Tell::Nothing),
            (state, _) => Step::to(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::Clock;
    use crate::txn::tests::{SECOND, TCP, UDP};

    #[test]
    fn trying_and_proceeding() {
        assert_eq!(ServerNonInvite::start(), Step::to(Trying).tell(Tell::Message));
        assert_eq!(Trying.on(In::Request, UDP), Step::to(Trying), "absorbed");
        assert_eq!(Proceeding.on(In::Request, UDP), Step::to(Proceeding).send(Output::Again));
        for state in [Trying, Proceeding] {
            assert_eq!(state.on(In::Provisional, UDP), Step::to(Proceeding).send(Output::New));
            assert_eq!(state.on(In::TransportError, UDP), Step::end(Tell::TransportError));
            assert_eq!(state.on(In::Ack, UDP), Step::to(state));
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
