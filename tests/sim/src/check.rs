//! The reference: what must hold, from the wire, the records and the dispatch words. It shares no code with the engine and keeps no
//! state machine of calls: only what was seen, and rules that a reader can check by eye.

use crate::booked::{Booked, WrapupRules};
use crate::hazards::{is_stray, stray_is_refused};
use crate::plan::SECOND;
use crate::routes::Expect;
use crate::stages::{Listed, Stages};
use crate::text;
use crate::told::Told;
use crate::ua::Kind;
use crate::world::EPOCH;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use strowger_engine::CallConfig;
use strowger_engine::cdr::{CallType, Cdr, CdrMedia, fstats};
use strowger_sip::msg::{Message, Method};

/// A property that does not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    pub what: String,
    pub call: Option<u32>,
    pub agent: Option<u32>,
}

impl Violation {
    pub fn new(what: impl Into<String>) -> Violation {
        Violation { what: what.into(), call: None, agent: None }
    }
    #[must_use]
    pub fn call(mut self, call: u32) -> Violation {
        self.call = Some(call);
        self
    }
    #[must_use]
    pub fn agent(mut self, agent: u32) -> Violation {
        self.agent = Some(agent);
        self
    }
}

pub type Checked = Result<(), Violation>;

/// Life of an INVITE that nobody answers.
const TIMER_B_US: u64 = 32 * SECOND;

/// How long an INVITE that was answered with 2xx is known (RFC 6026 section 8.11).
const TIMER_L_US: u64 = 32 * SECOND;

/// How late a wrap-up may end.
pub const LATE_US: u64 = 2_000;

/// One call's records.
#[derive(Debug, Default)]
pub struct Rows {
    pub cid: Option<u64>,
    pub rows: Vec<Cdr>,
    pub ended: Option<u64>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Ledger {
    pub calls: Vec<Rows>,
    pub agents: Vec<Booked>,
    /// Final answer of the engine to an INVITE, and when it was sent first: by branch and CSeq.
    finals: HashMap<String, (u16, String, u64)>,
    /// Branches of the engine's INVITEs that a provisional answer has reached, and those that got one in time.
    provisional: HashSet<String>,
    heard: HashSet<String>,
    /// When each INVITE of the engine was sent first, by branch.
    sent: HashMap<String, u64>,
    /// By Call-ID and receiver: session id, version and rest of the engine's last description.
    described: HashMap<(String, SocketAddr), (String, u64, String)>,
    /// Of which of them the last may have been written down and never sent: a kill came between.
    unsent: HashSet<(String, SocketAddr)>,
    /// Call-IDs of dialogs that the engine has ended, or has seen ended.
    pub ended_dialogs: HashSet<String>,
    /// Call-IDs of INVITEs to peers that were sent already, and of those that have no final answer yet, with the engine's tag.
    invited: HashSet<String>,
    unanswered: HashMap<String, String>,
    /// By call: that of the last dialog with an agent.
    phones: HashMap<u32, String>,
    /// Branches of BYEs that came before that answer, and the Call-IDs of what they ended: with what tag of the peer's does not
    /// matter.
    pub early: HashSet<String>,
    pub ended_early: HashSet<String>,
    pub stages: Stages,
    /// The call whose agent hung up last, and when.
    agent_left: Option<(u32, u64)>,
    /// Whose call each sequence number is.
    cids: HashMap<u64, u32>,
    /// What must become of each caller's first request, once it has come.
    pub expects: Vec<Option<Expect>>,
    /// Calls of which datagrams were damaged: how they go on is not foretold. And these datagrams' Call-IDs, for where nothing
    /// else in a message tells its call any more.
    pub damaged: Vec<bool>,
    pub damaged_ids: HashSet<String>,
    /// The shards have gone on from what was on their disks, each from another moment: what was seen before does not count.
    pub lost_power: bool,
    /// The reference, and what it is told.
    pub told: Told,
    /// The last record was caused by a message of its moment.
    pub by_message: bool,
    wrapups: WrapupRules,
}

/// An agent's first INVITE of an attempt has gone out.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    pub call: u32,
    pub agent: u32,
    pub chat: bool,
    /// Chats that the agent has already.
    pub beside: usize,
}

impl Ledger {
    #[must_use]
    pub fn new(calls: u32, agents: u32, wrapups: WrapupRules, call: &CallConfig) -> Ledger {
        Ledger {
            told: Told::new(calls, call),
            wrapups,
            stages: Stages::new(calls),
            expects: vec![None; calls as usize],
            damaged: vec![false; calls as usize],
            calls: (0..calls).map(|_| Rows::default()).collect(),
            agents: vec![Booked::default(); agents as usize],
            ..Ledger::default()
        }
    }

    /// A message reaches the engine.
    pub fn engine_gets(&mut self, msg: &Message<'_>, now: u64) {
        let id = msg.call_id().map(text::text).unwrap_or_default();
        if !is_stray(msg) && !self.lost_power && !self.is_damaged(msg) {
            let begins = msg.method() == Some(Method::Invite) && msg.to_tag().is_none();
            let call = text::caller_number(msg).filter(|_| begins);
            let foretold = |n: &u32| matches!(self.expects.get(*n as usize), Some(Some(Expect::Call { .. })));
            self.told.gets(msg, call.filter(foretold), now);
        }
        self.notes_early_bye(id, msg);
        let received_unix_us = (EPOCH + now).saturating_add_signed(self.stages.skew_us);
        match (msg.method(), msg.code()) {
            _ if is_stray(msg) => {}
            (Some(Method::Bye), _) => {
                let call = text::called_for(msg).filter(|call| self.phones.get(call).is_some_and(|phone| phone == id));
                if self.ended_dialogs.insert(id.to_owned()) && call.is_some() {
                    self.agent_left = call.map(|call| (call, now));
                }
            }
            (Some(Method::Invite), _) if msg.to_tag().is_none() => {
                let call = text::call_number(msg).and_then(|n| self.stages.of.get_mut(n as usize));
                if let Some(course) = call
                    && course.received.is_none()
                {
                    course.received = Some(now);
                    course.received_unix_us = received_unix_us;
                    course.chat = msg.body().windows(9).any(|w| w == b"m=message");
                }
            }
            (_, Some(code)) if code < 200 => {
                if let Some(branch) = branch(msg) {
                    // Of one letter a damaged bit makes the other, and branches are compared without case (section 7.3.1).
                    self.provisional.insert(branch.to_ascii_lowercase());
                    if self.sent.get(branch).is_some_and(|at| now < at + TIMER_B_US) {
                        self.heard.insert(branch.to_owned());
                    }
                }
            }
            _ => {}
        }
    }

    /// A BYE that overtakes the final answer to its dialog's INVITE ends the attempt, a stray one as well: there is no tag yet
    /// that it could lack.
    fn notes_early_bye(&mut self, id: &str, msg: &Message<'_>) {
        match (msg.method(), msg.code()) {
            (None, Some(200..)) if msg.cseq().is_ok_and(|c| c.method == Method::Invite) => {
                self.unanswered.remove(id);
            }
            (Some(Method::Bye), _)
                if self.unanswered.get(id).is_some_and(|tag| msg.to_tag() == Some(tag.as_bytes())) =>
            {
                let first = branch(msg).is_some_and(|b| self.early.insert(b.to_owned()));
                self.ended_early.insert(id.to_owned());
                if first && is_stray(msg) && !self.lost_power && !self.is_damaged(msg) {
                    self.told.phone_hangs_up(id, msg);
                }
            }
            _ => {}
        }
    }

    /// Whether a provisional answer to the INVITE of this branch has reached the engine before it gave up.
    #[must_use]
    pub fn is_heard(&self, branch: &str) -> bool {
        self.heard.contains(branch)
    }

    /// A message leaves the engine. `Some`: it offers a call to an agent.
    pub fn engine_sends(&mut self, to: SocketAddr, msg: &Message<'_>, now: u64) -> Result<Option<Offer>, Violation> {
        if self.lost_power {
            return Ok(None);
        }
        let call = text::call_number(msg);
        let wrong = |what: String| Violation { what, call, agent: text::agent_of(to) };
        self.told.sends(to, msg);
        if !self.is_damaged(msg) {
            self.check_origin(to, msg).map_err(wrong)?;
        }
        if let (Some(Method::Invite), Some(branch)) = (msg.method(), branch(msg)) {
            self.sent.entry(branch.to_owned()).or_insert(now);
        }
        match (msg.method(), msg.code()) {
            (None, Some(code)) if !self.is_damaged(msg) => {
                self.one_final_answer(code, msg, now).map_err(wrong)?;
                self.answers_as_foretold(code, msg).map_err(wrong)?;
                if branch(msg).is_none_or(|b| !self.early.contains(b)) {
                    stray_is_refused(code, msg).map_err(wrong)?;
                }
            }
            (Some(Method::Cancel), _) => {
                let known = branch(msg).is_some_and(|b| self.provisional.contains(&b.to_ascii_lowercase()));
                if !known {
                    return Err(wrong("CANCEL before any provisional answer (RFC 3261 section 9.1)".to_owned()));
                }
            }
            (Some(Method::Bye), _) => {
                self.ended_dialogs.insert(msg.call_id().map(text::text).unwrap_or_default().to_owned());
            }
            (Some(Method::Invite), _) if msg.to_tag().is_none() => {
                return self.books_agent(to, msg, now).map_err(wrong);
            }
            _ => {}
        }
        Ok(None)
    }

    /// No agent is offered a call while it has another.
    fn books_agent(&mut self, to: SocketAddr, msg: &Message<'_>, now: u64) -> Result<Option<Offer>, String> {
        let id = msg.call_id().map(text::text).unwrap_or_default();
        if !self.invited.insert(id.to_owned()) {
            return Ok(None);
        }
        let tag = msg.from_tag().map(text::text).unwrap_or_default().to_owned();
        self.unanswered.insert(id.to_owned(), tag);
        let Some(call) = text::call_number(msg) else { return Err("INVITE of no caller".to_owned()) };
        if !self.is_damaged(msg) {
            self.begins_as_foretold(call, msg)?;
        }
        self.stages.invited(call, Kind::at(to), text::header(msg, b"X-CC-State"), now)?;
        let Some(agent) = text::agent_of(to) else { return Ok(None) };
        self.phones.insert(call, id.to_owned());
        let chat = self.stages.of.get(call as usize).is_some_and(|c| c.chat);
        let uri = msg.uri().map(text::text).unwrap_or_default();
        let chat = if self.is_damaged(msg) { uri.starts_with("sip:chat-") } else { chat };
        let again = self.agents[agent as usize].calls.contains(&call); // At another address, maybe.
        if chat != uri.starts_with("sip:chat-") && !again {
            return Err(format!("agent a{agent} is called at {uri}, chat: {chat}"));
        }
        let booked = &mut self.agents[agent as usize];
        let beside = booked.calls.len();
        match booked.offer(call, chat, now) {
            Ok(true) => {
                self.told.offered(call, agent, msg, now);
                Ok(Some(Offer { call, agent, chat, beside }))
            }
            Ok(false) => Ok(None),
            Err(what) => Err(format!("agent a{agent} {what}")),
        }
    }

    /// At most one final answer to each INVITE. One that comes again when the engine must not know it any more is another,
    /// which is out of order: that it is refused takes nothing back.
    fn one_final_answer(&mut self, code: u16, msg: &Message<'_>, now: u64) -> Result<(), String> {
        let cseq = msg.cseq().map_err(|_| "answer without CSeq".to_owned())?;
        if code < 200 || cseq.method != Method::Invite {
            return Ok(());
        }
        // With its Call-ID: that of a damaged copy may be another, and its answer tells nothing of the INVITE's.
        let id = msg.call_id().map(text::text).unwrap_or_default();
        let key = format!("{id}/{}/{}", branch(msg).unwrap_or_default(), cseq.number);
        let tag = msg.to_tag().map(text::text).unwrap_or_default().to_owned();
        let Some((before, its_tag, at)) = self.finals.get(&key) else {
            self.finals.insert(key, (code, tag, now));
            return Ok(());
        };
        // Out of order, or of a dialog that is over.
        let late = code == 500 || code == 481 && self.ended_dialogs.contains(id);
        let forgotten = *before < 300 && late && now >= at + TIMER_L_US;
        if *its_tag == tag && (*before == code || forgotten) {
            return Ok(());
        }
        Err(format!("INVITE {key} got {:?} and then {:?}", (before, its_tag), (code, tag)))
    }

    /// One session id per dialog; the version goes up by one when, and only when, the description changes.
    fn check_origin(&mut self, to: SocketAddr, msg: &Message<'_>) -> Result<(), String> {
        let body = text::text(msg.body());
        if body.is_empty() {
            return Ok(());
        }
        let Some(origin) = body.lines().find(|l| l.starts_with("o=")) else {
            return Err("description without o= line".to_owned());
        };
        let mut words = origin.split(' ').skip(1);
        let session = words.next().unwrap_or_default().to_owned();
        let version: u64 = words.next().and_then(|v| v.parse().ok()).unwrap_or(0);
        let rest: String = body.lines().filter(|l| !l.starts_with("o=")).collect();
        // The losing branch of a fork is a dialog of its own.
        let fork = msg.to_tag().filter(|t| t.starts_with(b"fork")).map(text::text).unwrap_or_default();
        let key = (format!("{}{fork}", msg.call_id().map(text::text).unwrap_or_default()), to);
        if let Some((s, v, r)) = self.described.get(&key) {
            if *s != session {
                return Err(format!("session id changed from {s} to {session} (RFC 3264 section 8)"));
            }
            if version < *v {
                return Ok(()); // Sent again.
            }
            let skipped = self.unsent.contains(&key) && version > *v;
            if !skipped && ((version == *v) != (*r == rest) || version > v + 1) {
                return Err(format!("description version {v} then {version}, changed: {}", *r != rest));
            }
        }
        self.unsent.remove(&key);
        self.described.insert(key, (session, version, rest));
        Ok(())
    }

    /// A new process counts on from the calls that it has taken over.
    pub fn forget_ended_numbers(&mut self) {
        self.unsent.extend(self.described.keys().cloned());
        let calls = &self.calls;
        self.cids.retain(|_, call| calls[*call as usize].ended.is_none());
    }

    /// A record: right in itself, and as the attempt that it ends.
    pub fn record(&mut self, cdr: Cdr, call: u32, now: u64) -> Checked {
        let wrong = |what: String| Violation::new(what).call(call);
        record_is_sound(&cdr).map_err(wrong)?;
        if self.lost_power {
            return Ok(());
        }
        self.stages.recorded(&cdr, call, now, self.damaged[call as usize]).map_err(wrong)?;
        self.recorded_as_foretold(&cdr, call).map_err(wrong)?;
        let followed = !self.damaged[call as usize] && self.told.follows(call);
        self.by_message = followed && self.told.writes(call, &cdr, now).map_err(wrong)?;
        self.stages.of[call as usize].timed = !self.by_message;
        let rows = &mut self.calls[call as usize];
        if rows.ended.is_some() {
            return Err(wrong(format!("record {:?} after the call's last one", cdr.call_type)));
        }
        if *rows.cid.get_or_insert(cdr.cid) != cdr.cid {
            return Err(wrong("a second call of one INVITE".to_owned()));
        }
        if *self.cids.entry(cdr.cid).or_insert(call) != call {
            return Err(wrong(format!("sequence number {} is another call's, too", cdr.cid)));
        }
        let brief = cdr.call_type == CallType::Handled && cdr.cause == 0 && cdr.talk_us < self.wrapups.min_talk_us;
        if brief && self.agent_left == Some((call, now)) && !self.damaged[call as usize] {
            return Err(wrong(format!("handled, though the agent hung up after {} us", cdr.talk_us)));
        }
        let refused = rows.rows.iter().filter(|r| r.call_type == CallType::Rejected).count();
        if cdr.rejected as usize != refused {
            return Err(wrong(format!("rejected = {} after {refused} refusals", cdr.rejected)));
        }
        if let Some(agent) = &cdr.agent {
            let n = agent_number(&agent.agentid);
            let booked = &mut self.agents[n as usize];
            booked.ended(call, &cdr, self.wrapups, now).map_err(|what| wrong(what).agent(n))?;
        } else if let Some(n) = self.agents.iter().position(|a| a.calls.contains(&call)) {
            return Err(wrong(format!("record without agent while a{n} is offered the call")));
        }
        if self.stages.of[call as usize].chat != (cdr.media == CdrMedia::Chat) && !self.damaged[call as usize] {
            return Err(wrong(format!("record of {:?}", cdr.media)));
        }
        if matches!(cdr.call_type, CallType::Handled | CallType::Dropped) {
            rows.ended = Some(now);
        }
        rows.rows.push(cdr);
        Ok(())
    }
}

/// Type, agent, bits and times of a record fit each other (call-center.md, "Outcomes and their records").
fn record_is_sound(c: &Cdr) -> Result<(), String> {
    let agent = c.agent.is_some();
    let bits = c.fstats;
    let fits = match c.call_type {
        CallType::Handled => agent && bits == 7 && c.talk_s >= 1,
        CallType::Dropped if agent => bits == 11,
        CallType::Dropped if bits == fstats::INBOUND => c.flow.dissuading_hangup && c.flow.message_dissuading.is_some(),
        CallType::Dropped => bits == 9,
        CallType::Rejected => agent && bits == 3,
        CallType::InternalError => bits & fstats::INBOUND > 0 && (bits & fstats::DISTRIBUTED > 0) == agent,
    };
    if !fits {
        return Err(format!("record {:?} with agent {agent}, fstats {bits}, talk {} s", c.call_type, c.talk_s));
    }
    if c.call_type != CallType::Handled && (c.talk_us > 0 || c.talk_s > 0) {
        return Err(format!("{:?} with talk time", c.call_type));
    }
    if c.pickup_us > c.wait_us {
        return Err(format!("it rang for {} us of {} us of waiting", c.pickup_us, c.wait_us));
    }
    Ok(())
}

/// An agent who has just got `got` (now not waiting) could have had no better call, of those that waited before this moment.
/// One who is in chats could have had chats alone; one who is free, what it has an address for.
pub fn order_is_kept(got: &Listed, offer: Offer, can: &Able, waiting: &[Listed], now: u64) -> Checked {
    let agent = offer.agent;
    for w in waiting.iter().filter(|w| w.since < now) {
        let takes = if offer.beside > 0 { w.chat } else { can.takes(w) };
        if takes && can.skills.contains(&w.flow.skill.0) && w.rank() < got.rank() {
            let say = |l: &Listed| format!("c{} (rank {:?}, chat: {})", l.call, l.rank(), l.chat);
            let what = format!("a{agent} got {} while {} waits since {}; decided at {now}", say(got), say(w), w.since);
            return Err(Violation::new(what).call(w.call).agent(agent));
        }
    }
    Ok(())
}

/// An agent and what it can take.
#[derive(Debug)]
pub struct Able {
    pub agent: u32,
    pub skills: Vec<u32>,
    pub audio: bool,
    pub chat: bool,
}

impl Able {
    fn takes(&self, w: &Listed) -> bool {
        if w.chat { self.chat } else { self.audio }
    }
}

/// A waiting call and an agent of its skill who can take it do not coexist.
pub fn nobody_waits_in_vain(free: &[Able], waiting: &[Listed]) -> Checked {
    for w in waiting {
        if let Some(a) = free.iter().find(|a| a.skills.contains(&w.flow.skill.0) && a.takes(w)) {
            let what = format!("c{} waits while a{} is free", w.call, a.agent);
            return Err(Violation::new(what).call(w.call).agent(a.agent));
        }
    }
    Ok(())
}

/// The number in `a7`.
#[must_use]
pub fn agent_number(id: &str) -> u32 {
    id.strip_prefix('a').and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn branch<'a>(msg: &Message<'a>) -> Option<&'a str> {
    msg.top_via().ok()?.branch().map(text::text)
}

#[cfg(test)]
mod tests {
    use super::{Ledger, TIMER_L_US};
    use crate::text;

    #[test]
    fn an_invite_gets_one_final_answer_while_it_is_known() {
        let answers = |code: u16, at: u64| {
            let mut ledger = Ledger::default();
            let mut says = |code: u16, at| {
                let answer = format!(
                    "SIP/2.0 {code} X\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=a\r\nTo: <sip:b@h>;tag=b\r\n\
                     Call-ID: c\r\nCSeq: 2 INVITE\r\nContent-Length: 0\r\n\r\n"
                );
                ledger.one_final_answer(code, &text::parse(answer.as_bytes()).unwrap(), at)
            };
            says(200, 5).unwrap();
            says(code, at)
        };
        assert_eq!(answers(200, 6), Ok(()));
        assert!(answers(500, 4 + TIMER_L_US).is_err(), "it is known for so long");
        assert_eq!(answers(500, 5 + TIMER_L_US), Ok(()), "the same, sent again and late, is out of order");
        assert!(answers(488, 5 + TIMER_L_US).is_err(), "that would be an answer to what it asks");
    }
}
