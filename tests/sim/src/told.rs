//! What passes on the wire, told to the reference (`model`): which message means what to it. Each is looked at when the engine
//! gets it, or sends it.

use crate::model::{Kind, Model, Row};
use crate::text;
use crate::ua;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use strowger_engine::CallConfig;
use strowger_engine::cdr::{CallType, Cdr};
use strowger_sip::msg::{Message, Method};

/// The dialog with the agent of a call's attempt.
#[derive(Debug, Default, Clone)]
struct Phone {
    call_id: String,
    branch: String,
    /// The tag in its first 2xx.
    tag: Option<String>,
    over: bool,
}

/// The phone with which the engine has that dialog now, and its call.
fn with<'a>(phones: &'a mut [Option<Phone>], id: &str) -> Option<(u32, &'a mut Phone)> {
    let all = (0..).zip(phones).filter_map(|(call, phone)| Some((call, phone.as_mut()?)));
    all.into_iter().find(|(_, phone)| phone.call_id == id)
}

/// See the module.
#[derive(Debug, Default)]
pub struct Told {
    model: Model,
    follow_redirects: bool,
    /// By call: the dialog with its agent that counts now.
    phones: Vec<Option<Phone>>,
    /// Call-IDs of INVITEs to agents.
    begun: HashSet<String>,
    /// By caller: its INVITE has its final answer.
    answered: Vec<bool>,
    /// The highest CSeq of each peer, by Call-ID.
    numbers: HashMap<String, u32>,
    /// Whom the message of this moment was about.
    moment: Option<u32>,
}

impl Told {
    #[must_use]
    pub fn new(calls: u32, call: &CallConfig) -> Told {
        Told {
            model: Model::new(calls, call.min_talk_us, call.agent_ring_timeout_us),
            follow_redirects: call.follow_redirects,
            answered: vec![false; calls as usize],
            phones: vec![None; calls as usize],
            ..Told::default()
        }
    }

    /// The engine gets a message that is as it was sent; `call`: the first request of one that is to become a call.
    pub fn gets(&mut self, msg: &Message<'_>, call: Option<u32>, now: u64) {
        if let Some(call) = call {
            self.model.arrives(call, now);
        }
        let (Ok(id), Ok(cseq)) = (msg.call_id().map(text::text), msg.cseq()) else { return };
        let Some(method) = msg.method() else {
            if cseq.method == Method::Invite {
                self.phone_answers(id, msg, now);
            }
            return;
        };
        let caller = text::caller_number(msg);
        let last = self.numbers.entry(id.to_owned()).or_default();
        let in_order = cseq.number > *last;
        if !matches!(method, Method::Ack | Method::Cancel) {
            *last = (*last).max(cseq.number);
        }
        match (method, caller) {
            (Method::Cancel, Some(call)) if cseq.number == 1 && !self.answered[call as usize] => self.left(call),
            (Method::Bye, Some(call)) if in_order => self.left(call),
            (Method::Bye, None) if in_order => self.phone_hangs_up(id, msg),
            _ => {}
        }
    }

    fn left(&mut self, call: u32) {
        self.moment = Some(call);
        self.model.caller_left(call);
    }

    /// A final answer to the INVITE of an attempt, the first one.
    fn phone_answers(&mut self, id: &str, msg: &Message<'_>, now: u64) {
        let Some((call, phone)) = with(&mut self.phones, id) else { return };
        let branch = msg.top_via().ok().and_then(|v| v.branch()).map(text::text);
        let code = msg.code().unwrap_or(0);
        if code < 200 || phone.over || branch != Some(phone.branch.as_str()) {
            return;
        }
        phone.over = true;
        self.moment = Some(call);
        match code {
            200..300 => {
                phone.tag = msg.to_tag().map(|t| text::text(t).to_owned());
                self.model.picked_up(call, now);
            }
            300..400 if self.follow_redirects => self.model.redirected(call),
            _ => self.model.refused(call),
        }
    }

    /// A hang-up. One that overtakes the answer refuses, whatever its tag: nobody knows yet who answers.
    pub fn phone_hangs_up(&mut self, id: &str, msg: &Message<'_>) {
        let Some((call, phone)) = with(&mut self.phones, id) else { return };
        if !phone.over {
            self.moment = Some(call);
            self.model.left_unheard(call);
            return;
        }
        let tag = msg.from().ok().and_then(|f| f.tag().map(|t| text::text(t).to_owned()));
        if phone.tag.is_some() && phone.tag == tag {
            self.moment = Some(call);
            self.model.agent_left(call);
        }
    }

    /// The engine sends a message.
    pub fn sends(&mut self, to: SocketAddr, msg: &Message<'_>) {
        let (Ok(id), Ok(cseq)) = (msg.call_id().map(text::text), msg.cseq()) else { return };
        if let (Some(200..), Some(call), Method::Invite, 1) =
            (msg.code(), text::caller_number(msg), cseq.method, cseq.number)
        {
            self.answered[call as usize] = true;
        }
        let begins = msg.method() == Some(Method::Invite) && msg.to_tag().is_none();
        if begins
            && ua::Kind::at(to) == ua::Kind::Agent
            && let Some(call) = text::call_number(msg)
            && let Some(branch) = msg.top_via().ok().and_then(|v| v.branch())
        {
            let known = self.phones[call as usize].as_ref().is_some_and(|p| p.call_id == id);
            if !known && self.begun.insert(id.to_owned()) {
                let (call_id, branch) = (id.to_owned(), text::text(branch).to_owned());
                self.phones[call as usize] = Some(Phone { call_id, branch, ..Phone::default() });
            }
        }
    }

    /// An attempt begins with what the engine sends.
    pub fn offered(&mut self, call: u32, agent: u32, msg: &Message<'_>, now: u64) {
        let briefed = text::header(msg, b"X-CC-State") == "preagent";
        self.model.offered(call, agent, briefed, now);
    }

    /// The engine writes a record. True when a message of this moment is its reason.
    ///
    /// # Errors
    /// What it ought to be.
    pub fn writes(&mut self, call: u32, cdr: &Cdr, now: u64) -> Result<bool, String> {
        let row = Row {
            kind: match cdr.call_type {
                CallType::Rejected => Kind::Rejected,
                CallType::InternalError => Kind::Error,
                CallType::Handled => Kind::Handled,
                CallType::Dropped => Kind::Dropped,
            },
            agent: cdr.agent.as_ref().map(|a| crate::check::agent_number(&a.agentid)),
            fstats: cdr.fstats,
            wait: cdr.wait_us,
            pickup: cdr.pickup_us,
            talk: cdr.talk_us,
            talk_s: u64::from(cdr.talk_s),
            rejected: cdr.rejected,
        };
        self.phones[call as usize] = None;
        self.model.writes(call, &row, now)
    }

    /// Whether it follows that call: whether it was told that it would be one.
    #[must_use]
    pub fn follows(&self, call: u32) -> bool {
        self.model.follows(call)
    }

    /// All that the message of this moment has caused is seen.
    ///
    /// # Errors
    /// What is missing, and of which call.
    pub fn moment_is_over(&mut self) -> Result<(), (u32, String)> {
        match self.moment.take() {
            Some(call) => self.model.moment_is_over(call).map_err(|what| (call, what)),
            None => Ok(()),
        }
    }
}
