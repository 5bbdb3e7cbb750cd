//! Where each call is, by the INVITEs and records seen, and whether it ought to be there: the thresholds of its flow.
//! The engine's own lists and gauges are held against it.

use crate::check::{LATE_US, Violation};
use crate::plan::SECOND;
use crate::ua::Kind;
use std::sync::Arc;
use strowger_engine::cdr::{CallType, Cdr, fstats};
use strowger_engine::control::CallState;
use strowger_engine::{CallId, FlowDef};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// Nothing seen yet.
    #[default]
    New,
    Welcome,
    Dissuading1,
    Dissuading2,
    Queued,
    /// An agent is called first, to hear a message.
    Preagent,
    ToAgent,
    /// Its attempt has just ended.
    Back,
    Ended,
}

impl Stage {
    pub fn with_agent(self) -> bool {
        matches!(self, Stage::Preagent | Stage::ToAgent)
    }
    pub fn is_arriving(self) -> bool {
        matches!(self, Stage::New | Stage::Welcome)
    }
    pub fn is_dissuading(self) -> bool {
        matches!(self, Stage::Dissuading1 | Stage::Dissuading2)
    }
}

/// A call has come to another stage.
#[derive(Debug, Clone, Copy)]
pub struct Move {
    pub call: u32,
    pub from: Stage,
    pub to: Stage,
}

#[derive(Debug, Default, Clone)]
pub struct Course {
    pub stage: Stage,
    /// It was on hold at least once.
    pub held: bool,
    /// It may have been: the process was killed when it had just come back, and it has an agent before it is seen again.
    pub maybe_held: bool,
    /// Its last record was caused by no message: a timer of the same moment may have given it another agent, when it had waited
    /// for no time.
    pub timed: bool,
    /// Its session is MSRP.
    pub chat: bool,
    /// What its datagrams said may not be what came.
    pub damaged: bool,
    /// When it entered the queue last, if that was seen.
    pub queued: Option<u64>,
    /// When its first INVITE reached the engine (and what the wall clock said then), its agent was called, and answered.
    pub received: Option<u64>,
    pub received_unix_us: u64,
    pub offered: u64,
    pub answered: Option<u64>,
}

/// A call as the engine lists it.
#[derive(Debug, Clone)]
pub struct Listed {
    pub id: CallId,
    pub call: u32,
    pub state: CallState,
    pub chat: bool,
    pub agent: Option<u32>,
    pub flow: Arc<FlowDef>,
    pub ticket: u64,
    /// When it entered the queue last.
    pub since: u64,
}

impl Listed {
    /// Order of service: the smallest first.
    pub fn rank(&self) -> (u32, u64) {
        (self.flow.priority, self.ticket)
    }
}

#[derive(Debug, Default)]
pub struct Stages {
    pub of: Vec<Course>,
    pub moved: Vec<Move>,
    pub back: Vec<u32>,
    /// A shard is behind: what is late may be excused.
    pub behind: bool,
    /// How far the wall clock is from the truth.
    pub skew_us: i64,
}

impl Stages {
    pub fn new(calls: u32) -> Stages {
        Stages { of: vec![Course::default(); calls as usize], ..Stages::default() }
    }

    fn go(&mut self, call: u32, to: Stage) {
        let Some(course) = self.of.get_mut(call as usize) else { return };
        if course.stage != to {
            self.moved.push(Move { call, from: course.stage, to });
        }
        course.stage = to;
        course.held |= !matches!(to, Stage::ToAgent | Stage::Back | Stage::Ended | Stage::New);
    }

    /// A new dialog of the engine's for a call, with the state that it tells.
    pub fn invited(&mut self, call: u32, to: Kind, state: &str, now: u64) -> Result<(), String> {
        let Some(course) = self.of.get_mut(call as usize) else { return Err("INVITE for no call".to_owned()) };
        let stage = course.stage;
        if stage == Stage::Ended {
            return Err(format!("INVITE to {to:?} for a call that is over"));
        }
        let next = match (to, state) {
            (Kind::Music, "queue") if stage == Stage::Queued => return Ok(()),
            (Kind::Welcome, "welcome") => Stage::Welcome,
            (Kind::Dissuading, "dissuading1") => Stage::Dissuading1,
            (Kind::Dissuading, "dissuading2") => Stage::Dissuading2,
            (Kind::Music, "queue") if !stage.with_agent() => Stage::Queued,
            // A caller whose agent is called again, or first, hears music meanwhile.
            (Kind::Music, "toagent" | "preagent") if stage.with_agent() => return Ok(()),
            (Kind::Briefing, "preagent") if stage == Stage::Preagent => return Ok(()),
            (Kind::Agent, "preagent") => Stage::Preagent,
            (Kind::Agent, "toagent") => Stage::ToAgent,
            _ if course.damaged => return Ok(()),
            _ => return Err(format!("INVITE to {to:?} says {state}, the call was in {stage:?}")),
        };
        if next == Stage::Queued {
            course.queued = Some(now);
        }
        course.maybe_held |= stage == Stage::Back && course.timed;
        if next.with_agent() && !stage.with_agent() {
            (course.offered, course.answered) = (now, None);
        }
        self.go(call, next);
        Ok(())
    }

    /// A record: the attempt's, or the call's. `damaged`: what its first request said, and when it came, is not known.
    pub fn recorded(&mut self, cdr: &Cdr, call: u32, now: u64, damaged: bool) -> Result<(), String> {
        let course = self.of.get(call as usize).cloned().unwrap_or_default();
        let dissuaded = cdr.call_type == CallType::Dropped && cdr.fstats == fstats::INBOUND;
        if dissuaded && course.stage != Stage::Dissuading2 {
            return Err(format!("dissuaded for good in {:?}", course.stage));
        }
        let begun = course.received.ok_or("a record of a call that never came")?;
        let until = begun + cdr.wait_us;
        let fits = match cdr.call_type {
            CallType::Handled => until + cdr.talk_us == now && cdr.wait_us + begun == course.offered + cdr.pickup_us,
            _ if cdr.agent.is_none() => until == now && cdr.pickup_us == 0,
            CallType::Rejected | CallType::Dropped => until == now && course.offered + cdr.pickup_us <= now,
            CallType::InternalError => until <= now,
        };
        if !damaged && (!fits || cdr.received_unix_us != course.received_unix_us) {
            return Err(format!("record with wrong times: {cdr:?}, seen {course:?}"));
        }
        self.note(cdr, call);
        Ok(())
    }

    fn note(&mut self, cdr: &Cdr, call: u32) {
        match cdr.call_type {
            CallType::Handled | CallType::Dropped => self.go(call, Stage::Ended),
            CallType::Rejected | CallType::InternalError => {
                self.go(call, Stage::Back);
                self.back.push(call);
            }
        }
    }

    /// A list that was made now: what it says agrees with what was seen.
    pub fn compare(&mut self, listed: &[Listed], now: u64) -> Result<(), Violation> {
        let damaged: Vec<bool> = self.of.iter().map(|course| course.damaged).collect();
        for l in listed.iter().filter(|l| !damaged[l.call as usize]) {
            let wrong = |what: String| Err(Violation::new(what).call(l.call));
            let stage = self.of[l.call as usize].stage;
            match (l.state, stage) {
                (CallState::Welcome, Stage::Welcome)
                | (CallState::Dissuading1, Stage::Dissuading1)
                | (CallState::Dissuading2, Stage::Dissuading2)
                | (CallState::Queued, Stage::Queued)
                | (CallState::Preagent, Stage::Preagent)
                | (CallState::ToAgent, Stage::ToAgent) => {}
                // The message is over; or it could not be played, and the music played on.
                (CallState::ToAgent, Stage::Preagent) => self.go(l.call, Stage::ToAgent),
                (CallState::Queued, Stage::Dissuading1 | Stage::Back) => {
                    self.of[l.call as usize].queued = Some(l.since);
                    self.go(l.call, Stage::Queued);
                }
                _ => return wrong(format!("c{} is listed as {:?}, seen in {stage:?}", l.call, l.state)),
            }
            if l.chat != self.of[l.call as usize].chat {
                return wrong(format!("c{} is listed with chat: {}", l.call, l.chat));
            }
            if l.agent.is_some() != self.of[l.call as usize].stage.with_agent() {
                return wrong(format!("c{} is listed as {:?} with agent {:?}", l.call, l.state, l.agent));
            }
            let dissuades = l.flow.message_dissuading.is_some() && l.flow.dissuading_onhold_th > 0;
            let limit = l.since + u64::from(l.flow.dissuading_onhold_th) * SECOND;
            if l.state == CallState::Queued && dissuades && !self.behind && now > limit + LATE_US {
                return wrong(format!("c{} waits {} us beyond dissuading_onhold_th", l.call, now - limit));
            }
        }
        self.missing_are_over(listed)
    }

    /// A call that is not listed has ended, and has its last record.
    fn missing_are_over(&mut self, listed: &[Listed]) -> Result<(), Violation> {
        let mut is_listed = vec![false; self.of.len()];
        listed.iter().for_each(|l| is_listed[l.call as usize] = true);
        for (call, there) in is_listed.into_iter().enumerate() {
            let stage = self.of[call].stage;
            match stage {
                Stage::Back if !there => self.go(call as u32, Stage::Ended),
                Stage::New | Stage::Ended => {}
                _ if there || self.of[call].damaged => {}
                _ => return Err(Violation::new(format!("c{call} is not listed, seen in {stage:?}")).call(call as u32)),
            }
        }
        Ok(())
    }
}

/// What decides whether a new call is dissuaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Crowd {
    pub queued: i64,
    pub processed: i64,
    pub talk_us: i64,
}

/// Why a new call of this flow is dissuaded, if it is (call-center.md, "A call's life" 3, and "Estimated wait").
#[must_use]
pub fn dissuaded_for(flow: &FlowDef, crowd: Crowd, agents: usize) -> Option<&'static str> {
    flow.message_dissuading.as_ref()?;
    if flow.dissuading_qsize_th > 0 && crowd.queued >= i64::from(flow.dissuading_qsize_th) {
        return Some("diverted by queue size");
    }
    let average = if crowd.processed > 0 { crowd.talk_us / crowd.processed } else { 0 };
    let wait_s = if agents == 0 { i64::from(i32::MAX) } else { average * crowd.queued / agents as i64 / SECOND as i64 };
    (flow.dissuading_ewt_th > 0 && wait_s > i64::from(flow.dissuading_ewt_th)).then_some("diverted by estimated wait")
}
