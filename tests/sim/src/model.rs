//! The reference: what becomes of calls and attempts, and what each record must say, as the specification tells it
//! (call-center.md, "A call's life", "CDRs", "Outcomes and their records"). Nothing of the engine's is used here; all of it can
//! be checked by eye.
//!
//! It is told what passes on the wire: a call arrives, an agent is called, answers, refuses, hangs up, the caller leaves. From
//! that follows which record must be written at that very moment, to the microsecond. Records that nobody's message causes
//! (nobody answered in time, a transaction ran out) are held against what is known of the call.

pub type Us = u64;

/// Whole seconds of a talk: half rounds up, and a talk has one at least.
fn seconds(us: Us) -> u64 {
    ((us + 500_000) / 1_000_000).max(1)
}

/// `call_type` of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rejected,
    Error,
    Handled,
    Dropped,
}

/// A record, as far as it is foretold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub kind: Kind,
    pub agent: Option<u32>,
    /// 1 inbound, 2 distributed, 4 answered, 8 abandoned.
    pub fstats: u8,
    pub wait: Us,
    pub pickup: Us,
    pub talk: Us,
    pub talk_s: u64,
    pub rejected: u32,
}

/// A message that ends an attempt, or the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    CallerLeft,
    AgentRefused,
    AgentLeft,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    agent: u32,
    offered: Us,
    /// Its phone has answered.
    picked_up: Option<Us>,
    /// It hears a message first: caller and agent are connected some time after it has picked up.
    briefed: bool,
    /// Its phone has named another address: whether that was tried is not foretold.
    redirected: bool,
}

#[derive(Debug, Clone, Default)]
struct Call {
    arrived: Option<Us>,
    refusals: u32,
    attempt: Option<Attempt>,
    ended: bool,
    /// Its last record was of an error: that may have been its end.
    erred: bool,
    fact: Option<Fact>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Model {
    calls: Vec<Call>,
    /// An agent's hang-up within that time of its answer is a refusal.
    min_talk: Us,
    ring_timeout: Us,
}

impl Model {
    #[must_use]
    pub fn new(calls: u32, min_talk: Us, ring_timeout: Us) -> Model {
        Model { calls: vec![Call::default(); calls as usize], min_talk, ring_timeout }
    }

    /// Its first INVITE has come.
    pub fn arrives(&mut self, call: u32, now: Us) {
        self.calls[call as usize].arrived.get_or_insert(now);
    }

    /// Whether that has come.
    #[must_use]
    pub fn follows(&self, call: u32) -> bool {
        self.calls[call as usize].arrived.is_some()
    }

    /// An agent is called for it.
    pub fn offered(&mut self, call: u32, agent: u32, briefed: bool, now: Us) {
        let attempt = Attempt { agent, offered: now, picked_up: None, briefed, redirected: false };
        let call = &mut self.calls[call as usize];
        call.attempt = Some(attempt).filter(|_| call.arrived.is_some());
        call.erred = false;
    }

    /// The agent's phone has answered.
    pub fn picked_up(&mut self, call: u32, now: Us) {
        if let Some(attempt) = &mut self.calls[call as usize].attempt {
            attempt.picked_up.get_or_insert(now);
        }
    }

    /// The agent's phone has refused.
    pub fn refused(&mut self, call: u32) {
        let call = &mut self.calls[call as usize];
        if call.attempt.is_some_and(|a| a.picked_up.is_none()) {
            call.fact = Some(Fact::AgentRefused);
        }
    }

    /// The agent has hung up, and its phone's answer has not come: it refuses. One that is called once more may have talked
    /// already.
    pub fn left_unheard(&mut self, call: u32) {
        self.refused(call);
        self.agent_left(call);
    }

    /// The agent's phone has named another address.
    pub fn redirected(&mut self, call: u32) {
        if let Some(attempt) = &mut self.calls[call as usize].attempt {
            attempt.redirected = true;
        }
    }

    /// The agent has hung up.
    pub fn agent_left(&mut self, call: u32) {
        let call = &mut self.calls[call as usize];
        if call.attempt.is_some_and(|a| a.picked_up.is_some()) {
            call.fact = Some(Fact::AgentLeft);
        }
    }

    /// The caller has hung up, or cancelled.
    pub fn caller_left(&mut self, call: u32) {
        let call = &mut self.calls[call as usize];
        if call.arrived.is_some() && !call.ended && !call.erred {
            call.fact = Some(Fact::CallerLeft);
        }
    }

    /// A moment is over: what had to be written then has been.
    pub fn moment_is_over(&mut self, call: u32) -> Result<(), String> {
        match self.calls[call as usize].fact.take() {
            Some(fact) => Err(format!("{fact:?}, and there is no record of it")),
            None => Ok(()),
        }
    }

    /// A record is written. True when a message of this moment is its reason.
    pub fn writes(&mut self, n: u32, row: &Row, now: Us) -> Result<bool, String> {
        let call = self.calls.get_mut(n as usize).ok_or("a record of no call")?;
        let arrived = call.arrived.ok_or("a record of a call that never came")?;
        if call.ended {
            return Err("a record after the call's last".to_owned());
        }
        if call.attempt.map(|a| a.agent) != row.agent {
            return Err(format!("a record with agent {:?}, called is {:?}", row.agent, call.attempt));
        }
        if row.rejected != call.refusals {
            return Err(format!("a record with rejected = {}, refused have {}", row.rejected, call.refusals));
        }
        let fact = call.fact.take();
        let mut may_be = Vec::new();
        match (fact, call.attempt) {
            (Some(Fact::CallerLeft), None) => may_be.push(dropped(None, arrived, now)),
            (Some(Fact::CallerLeft), Some(a)) => may_be.extend(left_with(&a, arrived, now, row)),
            (Some(Fact::AgentRefused), Some(a)) => may_be.push(rejected(&a, arrived, now, row)),
            (Some(Fact::AgentLeft), Some(a)) => {
                may_be.push(rejected(&a, arrived, now, row));
                // Nobody has hung up early who talked for that long, if they talked at all.
                if a.picked_up.is_some_and(|at| now >= at + self.min_talk) {
                    may_be.extend(handled(&a, arrived, now, row));
                }
            }
            (Some(Fact::AgentRefused | Fact::AgentLeft), None) => {}
            (None, attempt) => may_be.extend(by_itself(attempt.as_ref(), arrived, now, row, self.ring_timeout)),
        }
        let may_be: Vec<Row> = may_be.into_iter().map(|r| Row { rejected: call.refusals, ..r }).collect();
        // Our own error is one whatever the others do.
        if !may_be.contains(row) && row.kind != Kind::Error {
            return Err(format!("{fact:?} at {now}, {call:?}: the record is {row:?}, it ought to be of {may_be:?}"));
        }
        call.refusals += u32::from(row.kind == Kind::Rejected);
        call.attempt = None;
        call.erred = row.kind == Kind::Error;
        call.ended = matches!(row.kind, Kind::Handled | Kind::Dropped) || (call.erred && row.agent.is_none());
        Ok(fact.is_some())
    }
}

/// The caller left, and no agent had answered.
fn dropped(a: Option<&Attempt>, arrived: Us, now: Us) -> Row {
    let (agent, pickup) = a.map_or((None, 0), |a| (Some(a.agent), now - a.offered));
    let fstats = if agent.is_some() { 11 } else { 9 };
    Row { kind: Kind::Dropped, agent, fstats, wait: now - arrived, pickup, talk: 0, talk_s: 0, rejected: 0 }
}

/// The agent refused, did not answer, or hung up at once.
fn rejected(a: &Attempt, arrived: Us, now: Us, row: &Row) -> Row {
    let rang_until = answered_at(a, arrived, now, row).filter(|at| row.pickup == at - a.offered).unwrap_or(now);
    let (wait, pickup) = (now - arrived, rang_until - a.offered);
    Row { kind: Kind::Rejected, agent: Some(a.agent), fstats: 3, wait, pickup, talk: 0, talk_s: 0, rejected: 0 }
}

/// They talked.
fn handled(a: &Attempt, arrived: Us, now: Us, row: &Row) -> Option<Row> {
    let at = answered_at(a, arrived, now, row)?;
    let (wait, pickup, talk) = (at - arrived, at - a.offered, now - at);
    let (kind, agent) = (Kind::Handled, Some(a.agent));
    Some(Row { kind, agent, fstats: 7, wait, pickup, talk, talk_s: seconds(talk), rejected: 0 })
}

/// When the agent counts as having answered. One who hears a message first is connected to the caller when that is over: at some
/// time after its phone answered; the record says when.
fn answered_at(a: &Attempt, arrived: Us, now: Us, row: &Row) -> Option<Us> {
    let picked_up = a.picked_up?;
    if !a.briefed {
        return Some(picked_up);
    }
    let says = if row.kind == Kind::Handled { arrived + row.wait } else { a.offered + row.pickup };
    (picked_up..=now).contains(&says).then_some(says)
}

/// The caller left during an attempt. While a briefing runs nobody has answered yet.
fn left_with(a: &Attempt, arrived: Us, now: Us, row: &Row) -> Vec<Row> {
    let abandoned = (a.picked_up.is_none() || a.briefed).then(|| dropped(Some(a), arrived, now));
    abandoned.into_iter().chain(handled(a, arrived, now, row)).collect()
}

/// Nobody's message is the reason: a timer, an error, an operator.
fn by_itself(a: Option<&Attempt>, arrived: Us, now: Us, row: &Row, ring_timeout: Us) -> Vec<Row> {
    let Some(a) = a else {
        // The dissuading message's end counts as nobody's leaving.
        let dropped = dropped(None, arrived, now);
        return vec![dropped, Row { fstats: 1, ..dropped }];
    };
    let mut all = left_with(a, arrived, now, row);
    // A phone that rings has its time.
    let rings = a.picked_up.is_none();
    if !rings || a.redirected || now >= a.offered + ring_timeout.min(32_000_000) {
        all.push(rejected(a, arrived, now, row));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Us = 1_000_000;

    fn row(kind: Kind, agent: Option<u32>, fstats: u8, [wait, pickup, talk]: [Us; 3]) -> Row {
        let talk_s = if kind == Kind::Handled { seconds(talk) } else { 0 };
        Row { kind, agent, fstats, wait, pickup, talk, talk_s, rejected: 0 }
    }

    #[test]
    fn a_call_is_refused_and_then_handled() {
        let mut m = Model::new(1, S, 30 * S);
        m.arrives(0, 10 * S);
        m.offered(0, 4, false, 12 * S);
        m.refused(0);
        assert_eq!(m.writes(0, &row(Kind::Rejected, Some(4), 3, [5 * S, 3 * S, 0]), 15 * S), Ok(true));
        m.offered(0, 5, false, 16 * S);
        m.picked_up(0, 18 * S);
        m.caller_left(0);
        let last = Row { rejected: 1, ..row(Kind::Handled, Some(5), 7, [8 * S, 2 * S, 4 * S]) };
        assert!(m.clone().writes(0, &Row { rejected: 0, ..last }, 22 * S).is_err());
        assert!(m.clone().writes(0, &Row { talk: 5 * S, ..last }, 22 * S).is_err());
        assert!(m.clone().moment_is_over(0).is_err());
        assert_eq!(m.writes(0, &last, 22 * S), Ok(true));
        assert_eq!(m.moment_is_over(0), Ok(()));
        assert!(m.writes(0, &last, 23 * S).is_err());
    }

    #[test]
    fn a_phone_has_its_time_to_ring_and_an_early_hang_up_is_a_refusal() {
        let mut m = Model::new(1, S, 10 * S);
        m.arrives(0, 0);
        m.offered(0, 4, false, 0);
        let unanswered = |at: Us| row(Kind::Rejected, Some(4), 3, [at, at, 0]);
        assert!(m.clone().writes(0, &unanswered(9 * S), 9 * S).is_err());
        assert_eq!(m.clone().writes(0, &unanswered(10 * S), 10 * S), Ok(false));
        m.picked_up(0, 3 * S);
        m.agent_left(0);
        assert!(m.clone().writes(0, &row(Kind::Handled, Some(4), 7, [3 * S, 3 * S, S / 2]), 3 * S + S / 2).is_err());
        assert_eq!(m.writes(0, &row(Kind::Rejected, Some(4), 3, [3 * S + S / 2, 3 * S, 0]), 3 * S + S / 2), Ok(true));
    }

    #[test]
    fn a_hang_up_before_the_answer_is_a_refusal() {
        let mut m = Model::new(1, S, 10 * S);
        m.arrives(0, 0);
        m.offered(0, 4, false, S);
        m.left_unheard(0);
        assert!(m.clone().moment_is_over(0).is_err());
        assert!(m.clone().writes(0, &row(Kind::Handled, Some(4), 7, [3 * S, 2 * S, 0]), 3 * S).is_err());
        assert_eq!(m.writes(0, &row(Kind::Rejected, Some(4), 3, [3 * S, 2 * S, 0]), 3 * S), Ok(true));
    }

    #[test]
    fn a_caller_who_leaves_has_abandoned_the_queue_or_the_agent_that_rang() {
        let mut m = Model::new(2, S, 10 * S);
        m.arrives(0, 0);
        m.caller_left(0);
        assert!(m.clone().writes(0, &row(Kind::Dropped, None, 1, [S, 0, 0]), S).is_err());
        assert_eq!(m.writes(0, &row(Kind::Dropped, None, 9, [S, 0, 0]), S), Ok(true));
        m.arrives(1, 0);
        m.offered(1, 2, false, S);
        m.caller_left(1);
        assert!(m.clone().writes(1, &row(Kind::Dropped, None, 9, [3 * S, 0, 0]), 3 * S).is_err());
        assert_eq!(m.writes(1, &row(Kind::Dropped, Some(2), 11, [3 * S, 2 * S, 0]), 3 * S), Ok(true));
    }
}
