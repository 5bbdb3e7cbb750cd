//! The play: all legs and the books, fed with datagrams, timers and arrivals. No socket, no clock: the loop in
//! [`crate::generator`] gives each input its time.
//!
//! A received message finds its leg by the label in the tag that we gave (From of an answer, To of a request); only a
//! first INVITE and its CANCEL are looked up by Call-ID, From tag and CSeq.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::atomic::Ordering::Relaxed,
};

use crate::{
    agent::User,
    caller::{CallEnd, Caller},
    check,
    client::{self, Answer},
    context::Context,
    leg::{Label, Leg, LegId, Legs, Part, Role},
    media::Media,
    parse::{self, Method, Msg, Start},
    scenario::{AgentPlan, Scenario},
    sdp::{self, Heard},
    server,
    timers::{Due, GIVE_UP, LINGER, Nanos, Timer},
};

pub struct Play {
    pub scenario: Scenario,
    pub cx: Context,
    pub legs: Legs,
    /// Agents' users, by number, with their names and the way back.
    pub users: Vec<User>,
    pub names: Vec<String>,
    numbers: HashMap<Vec<u8>, usize>,
    /// Self-test: agents who are free, or will be, by when; and who is dialled when all are taken.
    pub free_agents: BinaryHeap<Reverse<(Nanos, usize)>>,
    /// Users whose last BYE waits to be sent, with the wrap-up that follows.
    pub leaving: Vec<(usize, Nanos)>,
    pub next_agent: usize,
    /// When a message came last.
    pub last_heard: Nanos,
    /// Legs that have not ended, by role.
    pub open: [usize; 3],
    /// Legs that others started, by [`first_key`].
    firsts: HashMap<u64, LegId>,
}

/// What the copies and the CANCEL of a first INVITE have in common with it.
fn first_key(socket: usize, msg: &Msg<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (socket, msg.call_id, msg.tag_in_from(), msg.cseq).hash(&mut hasher);
    hasher.finish()
}

impl Play {
    pub fn new(scenario: Scenario, mut cx: Context, legs: Legs) -> Self {
        cx.direct = scenario.direct;
        let names: Vec<String> = scenario.agent_names().collect();
        let plans = scenario.agents.iter().enumerate();
        let users = plans
            .flat_map(|(plan, group): (usize, &AgentPlan)| (0..group.count).map(move |_| plan))
            .map(|plan| User { plan, legs: Vec::new(), due: Some(0), unwilling_until: 0, listed: scenario.loopback })
            .collect::<Vec<_>>();
        let free_agents = (0..users.len()).filter(|_| scenario.loopback).map(|user| Reverse((0, user))).collect();
        let numbers = names.iter().enumerate().map(|(number, name)| (name.clone().into_bytes(), number)).collect();
        Self {
            scenario,
            cx,
            legs,
            users,
            names,
            numbers,
            free_agents,
            leaving: Vec::new(),
            next_agent: 0,
            last_heard: 0,
            open: [0; 3],
            firsts: HashMap::new(),
        }
    }

    /// Index of the socket on which a role lives.
    pub fn socket_of(&self, role: Role) -> usize {
        (role as usize).min(self.cx.locals.len() - 1)
    }

    /// A datagram came in on `socket`.
    pub fn datagram(&mut self, socket: usize, source: SocketAddr, bytes: &[u8]) {
        if self.cx.chance(self.scenario.loss) {
            self.cx.books.report.dropped_on_purpose += 1;
            return;
        }
        // RFC 5626 section 4.4.1 keep-alives are no messages.
        if bytes.trim_ascii().is_empty() {
            return;
        }
        self.last_heard = self.cx.now;
        self.cx.books.report.messages_received += 1;
        self.cx.live.received.fetch_add(1, Relaxed);
        match Msg::parse(bytes) {
            Err(fault) => self.cx.books.unexpected(&format!("unreadable message: {fault}"), bytes),
            Ok(msg) => match msg.start {
                Start::Response { code } => self.response(source, code, &msg),
                Start::Request { method, uri } => self.request(socket, source, method, uri, &msg),
            },
        }
    }

    /// The leg that a tag of ours names; `None` for tags that are not of this run.
    fn tagged(&self, tag: &[u8]) -> Option<LegId> {
        let (label, rest) = Label::read(tag)?;
        (rest == self.cx.run_mark.as_bytes()).then_some(label.id)
    }

    /// Whether a tag is of an earlier run on the same sockets.
    fn is_stale(&self, tag: &[u8]) -> bool {
        let mark = self.cx.run_mark.as_bytes();
        let same = mark.iter().rposition(|byte| *byte == b'x').map_or(mark, |at| &mark[..=at]);
        Label::read(tag).is_some_and(|(_, rest)| rest != mark && rest.starts_with(same))
    }

    fn response(&mut self, source: SocketAddr, code: u16, msg: &Msg<'_>) {
        let Some(id) = self.tagged(msg.tag_in_from()) else {
            if self.is_stale(msg.tag_in_from()) {
                self.cx.books.report.stale += 1;
                return;
            }
            return self.cx.books.unexpected("answer to no request of ours", msg.raw);
        };
        let Some(leg) = self.legs.get_mut(id) else {
            // A late copy for a leg that is forgotten.
            return self.cx.retransmission();
        };
        check::response(leg, &mut self.cx, code, msg);
        if msg.cseq_method == Method::Invite {
            return self.caller_answered(id, code, msg, source);
        }
        let Answer::Final(code) = client::request_answered(leg, &mut self.cx, code, msg) else { return };
        match (leg.part.role(), msg.cseq_method) {
            // 481 to a CANCEL: its INVITE was answered at that moment; that answer is on its way.
            (_, Method::Cancel) => self.cancel_answered(id),
            (role, Method::Bye) => {
                // 481 to a BYE: the target's own crossed it (section 15.1.2).
                if !matches!(code, 200..300 | 481) {
                    self.cx.books.unexpected("BYE was refused", msg.raw);
                }
                match role {
                    Role::Caller => self.call_over(id, CallEnd::Left),
                    Role::Agent => self.agent_over(id),
                    Role::Media => self.media_over(id),
                }
            }
            _ => self.cx.books.unexpected("answer to a method that we do not send", msg.raw),
        }
    }

    fn request(&mut self, socket: usize, source: SocketAddr, method: Method, uri: &[u8], msg: &Msg<'_>) {
        check::request(&mut self.cx, method, msg);
        let tag = msg.tag_in_to();
        if tag.is_empty() {
            return match (method, self.firsts.get(&first_key(socket, msg)).copied()) {
                (Method::Invite, None) => self.first_invite(socket, source, uri, msg),
                (Method::Invite | Method::Cancel, Some(id)) => self.in_dialog(id, source, method, uri, msg),
                (Method::Ack, _) => self.cx.books.unexpected("ACK without To tag (section 17.1.1.3)", msg.raw),
                (Method::Options, _) => server::reply_stateless(&mut self.cx, socket, msg, source, 200),
                (Method::Other, _) => server::reply_stateless(&mut self.cx, socket, msg, source, 405),
                _ => self.no_dialog(socket, source, msg),
            };
        }
        match self.tagged(tag) {
            Some(id) if self.legs.get(id).is_some() => self.in_dialog(id, source, method, uri, msg),
            // A late copy for a leg that is forgotten.
            Some(_) if method == Method::Ack => self.cx.retransmission(),
            Some(_) => {
                self.cx.retransmission();
                server::reply_stateless(&mut self.cx, socket, msg, source, 481);
            }
            None if self.is_stale(tag) => {
                self.cx.books.report.stale += 1;
                if method != Method::Ack {
                    server::reply_stateless(&mut self.cx, socket, msg, source, 481);
                }
            }
            // The ACK of a stateless refusal.
            None if method == Method::Ack && tag == b"none" => {}
            None => self.no_dialog(socket, source, msg),
        }
    }

    fn no_dialog(&mut self, socket: usize, source: SocketAddr, msg: &Msg<'_>) {
        self.cx.books.unexpected("request for a dialog that does not exist", msg.raw);
        server::reply_stateless(&mut self.cx, socket, msg, source, 481);
    }

    /// An INVITE that starts a leg: for an agent or a media server.
    fn first_invite(&mut self, socket: usize, source: SocketAddr, uri: &[u8], msg: &Msg<'_>) {
        let user = parse::user_of(uri);
        let agent = self.numbers.get(user).copied();
        let (to_agents, to_media) = (socket == self.socket_of(Role::Agent), socket == self.socket_of(Role::Media));
        // The caller that it is for: by its SDP or, where there is none, by the user that our callers have in From.
        let by_sdp = match sdp::heard(msg) {
            Heard::Leg(label) | Heard::Damaged(label) => Some(label),
            Heard::Nothing | Heard::Stranger => None,
        };
        let by_from = || Label::read(parse::user_of(parse::uri_of(msg.from))).map(|(label, _)| label);
        // Where there are none of ours, a label is another generator's.
        let ours = |label: &Label| self.scenario.callers && label.role == Role::Caller;
        let call = by_sdp.or_else(by_from).filter(ours).map(|label| label.id);
        let part = match agent {
            Some(user) if to_agents => Part::Agent(self.new_agent(user, call)),
            None if to_media => {
                let plan = self.scenario.media.iter().position(|plan| plan.name.as_bytes() == user);
                Part::Media(Media::new(plan))
            }
            _ => {
                self.cx.books.unexpected("INVITE to a user who does not exist here", msg.raw);
                return server::reply_stateless(&mut self.cx, socket, msg, source, 404);
            }
        };
        let role = part.role();
        let id = self.legs.next_id();
        let mut leg = Leg::new(id, part, socket, msg.call_id.into(), source);
        leg.chat = sdp::is_chat(msg.body);
        leg.local = [msg.to, b";tag="].concat();
        self.cx.write_tag(leg.label(), &mut leg.local);
        leg.remote = msg.from.to_vec();
        leg.remote_tag = msg.tag_in_from().to_vec();
        leg.contact = [b"sip:", user, b"@", self.cx.locals[socket].to_string().as_bytes()].concat();
        leg.target = parse::uri_of(msg.contact).to_vec();
        leg.routes = client::route_lines(&msg.record_routes, false);
        leg.peer = client::next_hop(&leg, source);
        let key = first_key(socket, msg);
        leg.first_key = Some(key);
        server::open_invite(&mut leg, &self.cx, msg, source);
        self.legs.insert(leg);
        self.firsts.insert(key, id);
        self.open[role as usize] += 1;
        self.hears(id, msg);
        if role == Role::Agent { self.agent_invited(id) } else { self.media_invited(id) }
    }

    /// A leg got a message that may carry a session description.
    pub fn hears(&mut self, id: LegId, msg: &Msg<'_>) {
        let heeded = !msg.body.is_empty() && !self.scenario.direct && self.scenario.callers;
        let Some(leg) = self.legs.get_mut(id).filter(|_| heeded) else { return };
        if let Some(fault) = leg.origin.check(msg.body) {
            self.cx.books.unexpected(fault, msg.raw);
        }
        let label = match sdp::heard(msg) {
            Heard::Nothing | Heard::Stranger => return,
            Heard::Leg(label) => label,
            Heard::Damaged(label) => {
                self.cx.books.unexpected("media line of a relayed SDP was changed", msg.raw);
                label
            }
        };
        match &mut leg.part {
            Part::Caller(_) => self.caller_hears(id, label),
            Part::Agent(_) => self.agent_hears(id, label),
            Part::Media(media) => media.hears = Some(label),
        }
    }

    fn in_dialog(&mut self, id: LegId, source: SocketAddr, method: Method, uri: &[u8], msg: &Msg<'_>) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let cx = &mut self.cx;
        if matches!(&leg.part, Part::Agent(agent) if agent.dead) {
            return self.dead_agent_got(id, method);
        }
        if method == Method::Ack {
            return self.ack(id, uri, msg);
        }
        if method == Method::Cancel {
            return self.cancel(id, source, msg);
        }
        if server::absorbed(leg, cx, method, msg, source) {
            return;
        }
        check::in_dialog(leg, cx, method, uri, msg);
        match method {
            Method::Invite => self.reinvite(id, source, msg),
            Method::Bye => self.bye(id, source, msg),
            Method::Update => {
                server::reply(leg, cx, msg, source, 200, !msg.body.is_empty());
                self.hears(id, msg);
            }
            Method::Options | Method::Info | Method::Message | Method::Notify => {
                server::reply(leg, cx, msg, source, 200, false);
            }
            Method::Ack | Method::Cancel | Method::Other => server::reply(leg, cx, msg, source, 405, false),
        }
    }

    fn ack(&mut self, id: LegId, uri: &[u8], msg: &Msg<'_>) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let role = leg.part.role();
        match server::acked(leg, &mut self.cx, msg) {
            None => {}
            Some(200..300) => {
                check::in_dialog(leg, &mut self.cx, Method::Ack, uri, msg);
                // The answer to our offer, where the INVITE had none.
                self.hears(id, msg);
                match role {
                    Role::Caller => {}
                    Role::Agent => self.agent_confirmed(id),
                    Role::Media => self.media_confirmed(id),
                }
            }
            // A re-INVITE that we refused leaves its leg as it was.
            Some(_)
                if role == Role::Agent
                    && self.legs.get(id).and_then(|leg| match &leg.part {
                        Part::Agent(agent) => Some(!agent.confirmed),
                        _ => None,
                    }) == Some(true) =>
            {
                self.agent_over(id)
            }
            Some(_) => {}
        }
    }

    fn cancel(&mut self, id: LegId, source: SocketAddr, msg: &Msg<'_>) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let matches = leg.incoming.as_ref().is_some_and(|incoming| incoming.cseq == msg.cseq);
        server::reply(leg, &mut self.cx, msg, source, if matches { 200 } else { 481 }, false);
        match leg.part.role() {
            Role::Agent if matches => self.agent_cancelled(id),
            // Media servers and callers answer at once: the final answer stands (section 9.2).
            _ => {}
        }
    }

    /// An INVITE within the dialog: a new description, or the question for ours.
    fn reinvite(&mut self, id: LegId, source: SocketAddr, msg: &Msg<'_>) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let cx = &mut self.cx;
        let first_open = leg.incoming.as_ref().is_some_and(|incoming| incoming.code < 200);
        let ours_open = leg.invite.as_ref().is_some_and(|invite| !invite.answered);
        let stale = msg.cseq <= leg.remote_cseq;
        if first_open || stale {
            if first_open {
                cx.books.unexpected("INVITE while an earlier one is unanswered (section 14.1)", msg.raw);
            }
            // Section 14.2 for both; the refusal is not kept, so its ACK is looked for by nobody.
            return server::reply_stateless(cx, leg.socket, msg, source, 500);
        }
        server::open_invite(leg, cx, msg, source);
        let leaving = leg.over || leg.request.is_some();
        match (leaving, ours_open) {
            // Our BYE crossed it.
            (true, _) => server::answer(leg, cx, 481, false),
            (_, true) => server::answer(leg, cx, 491, false),
            _ => {
                if !msg.contact.is_empty() {
                    leg.target = parse::uri_of(msg.contact).to_vec();
                }
                server::answer(leg, cx, 200, true);
                self.hears(id, msg);
            }
        }
    }

    fn bye(&mut self, id: LegId, source: SocketAddr, msg: &Msg<'_>) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        server::reply(leg, &mut self.cx, msg, source, 200, false);
        if leg.over {
            return;
        }
        let unanswered = leg.incoming.as_ref().is_some_and(|incoming| incoming.code < 200);
        match &leg.part {
            Part::Caller(caller) if caller.left && caller.established => {}
            Part::Caller(_) => self.call_over(id, CallEnd::HungUpOn),
            Part::Agent(_) if unanswered => self.agent_cancelled(id),
            Part::Agent(_) => self.agent_got_bye(id, msg),
            Part::Media(media) if media.hung_up => {}
            Part::Media(_) => self.media_over(id),
        }
    }

    /// A leg has ended; it stays a while to absorb retransmissions. Returns false when it had ended before.
    pub fn over(&mut self, id: LegId) -> bool {
        let Some(leg) = self.legs.get_mut(id).filter(|leg| !leg.over) else { return false };
        leg.over = true;
        // A refusal is repeated until its ACK, which only this leg can send: timer D (section 17.1.1.2).
        let refused = match &leg.part {
            Part::Caller(caller) => !caller.established,
            // Nor does a dead phone come back to life to say 481.
            Part::Agent(agent) => agent.dead,
            Part::Media(_) => false,
        };
        self.open[leg.part.role() as usize] -= 1;
        self.cx.timers.set(self.cx.now, if refused { GIVE_UP } else { LINGER }, id, Due::Forget);
        true
    }

    /// A timer fired.
    pub fn timer(&mut self, timer: Timer) {
        let id = timer.leg;
        let Some(leg) = self.legs.get_mut(id) else { return };
        let role = leg.part.role();
        match timer.due {
            due @ (Due::Invite(_) | Due::Request(_)) => {
                if client::timer(leg, &mut self.cx, due) {
                    self.gave_up(id, role, due);
                }
            }
            Due::Ack(cseq) => {
                if server::timer(leg, &mut self.cx, cseq) {
                    self.gave_up(id, role, timer.due);
                }
            }
            Due::Forget => {
                if let Some(key) = self.legs.remove(id).and_then(|leg| leg.first_key) {
                    self.firsts.remove(&key);
                }
            }
            Due::Ring => self.ring_over(id),
            Due::Patience => self.patience_over(id),
            Due::Death => self.agent_dies(id),
            Due::Overlap => self.overlap_over(id),
            Due::Bridge if role == Role::Agent => self.agent_bridge_limit(id),
            Due::Bridge => {
                self.caller_bridge_limit(id);
                self.cancel_limit(id);
            }
            Due::HangUp => match &leg.part {
                Part::Caller(caller) if caller.hang_up_at == Some(timer.at) => self.leave(id),
                Part::Agent(agent) if agent.hang_up_at == Some(timer.at) => self.agent_hangs_up(id),
                Part::Media(_) => self.media_hangs_up(id),
                _ => {}
            },
        }
    }

    fn gave_up(&mut self, id: LegId, role: Role, due: Due) {
        match role {
            Role::Caller => self.caller_gave_up(id, due),
            Role::Agent => self.agent_gave_up(id, due),
            Role::Media => {
                let call_id = self.legs.get(id).map(|leg| leg.call_id.clone()).unwrap_or_default();
                self.cx.books.unexpected("no ACK or no answer to BYE at a media server within 64*T1", &call_id);
                self.media_over(id);
            }
        }
    }

    /// The drain is over: who still waits gives up, who still talks hangs up (agents too, where callers are others').
    pub fn close(&mut self) {
        let callers = self.legs.open().filter(|leg| leg.part.role() == Role::Caller);
        let callers: Vec<LegId> = callers.map(|leg| leg.id).collect();
        let waits = |caller: &Caller| !caller.left && !caller.impatient && caller.talks_with.is_none();
        let unserved =
            self.legs.open().filter(|leg| matches!(&leg.part, Part::Caller(caller) if waits(caller))).count();
        self.cx.books.report.unserved += unserved as u64;
        callers.into_iter().for_each(|id| self.leave(id));
        if !self.scenario.callers {
            let agents = self.legs.open().filter(|leg| leg.part.role() == Role::Agent);
            let agents: Vec<LegId> = agents.map(|leg| leg.id).collect();
            agents.into_iter().for_each(|id| self.agent_hangs_up(id));
        }
    }

    /// The run is over: what has not ended is booked as left over.
    pub fn finish(&mut self) {
        let left: Vec<(LegId, Role, bool)> = self
            .legs
            .open()
            .map(|leg| (leg.id, leg.part.role(), matches!(&leg.part, Part::Agent(agent) if agent.holds)))
            .collect();
        for (id, role, holds) in left {
            match role {
                Role::Caller => {
                    self.fail(id, "still open when the drain was over");
                    self.call_over(id, CallEnd::Broken);
                }
                Role::Agent => self.cx.books.report.agents_stuck += u64::from(holds),
                Role::Media => self.cx.books.report.media_stuck += 1,
            }
        }
    }
}
