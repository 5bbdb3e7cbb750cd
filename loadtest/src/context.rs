//! What every leg needs besides itself: the clock's reading, outboxes, timers, books, templates, chance.

use std::{
    collections::HashMap,
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    leg::{Label, Leg},
    net::Outbox,
    report::{Books, Live},
    sdp,
    template::{self, Fill, Template},
    timers::{Nanos, Timers},
};

/// Requests that the generator sends, as templates of one socket.
pub struct Requests {
    pub invite: Template,
    pub invite_without_sdp: Template,
    pub ack: Template,
    pub ack_with_sdp: Template,
    pub bye: Template,
    pub cancel: Template,
}

impl Requests {
    fn new(local: SocketAddr) -> Self {
        use rsip::Method::{Ack, Bye, Cancel, Invite};
        Self {
            invite: template::request(Invite, local, true, true),
            invite_without_sdp: template::request(Invite, local, true, false),
            ack: template::request(Ack, local, false, false),
            ack_with_sdp: template::request(Ack, local, false, true),
            bye: template::request(Bye, local, false, false),
            cancel: template::request(Cancel, local, false, false),
        }
    }
}

/// An answer's template: its code, whether it has a Contact, whether it has SDP.
type ResponseKind = (u16, bool, bool);

pub struct Context {
    /// When the present input was read.
    pub now: Nanos,
    /// When the present datagram was on the wire: in the kernel, whatever the generator did meanwhile.
    pub heard: Nanos,
    pub outboxes: Vec<Outbox>,
    pub locals: Vec<SocketAddr>,
    pub timers: Timers,
    pub books: Books,
    pub live: Arc<Live>,
    pub rng: SmallRng,
    /// Draws only what is known of a call when it arrives, so that the same seed makes the same calls at any target.
    pub calls: SmallRng,
    pub requests: Vec<Requests>,
    /// Tells this run's tags and Call-IDs from those of other runs.
    pub run_mark: String,
    /// See [`Scenario::direct`](crate::Scenario::direct).
    pub direct: bool,
    /// Record-Route line of each socket, empty where no route is recorded.
    recorded: Vec<Arc<[u8]>>,
    responses: HashMap<ResponseKind, Template>,
    body: Vec<u8>,
    branch: Vec<u8>,
}

impl Context {
    pub fn new(locals: Vec<SocketAddr>, live: Arc<Live>, rng: SmallRng, run_mark: String, record_route: bool) -> Self {
        let recorded = |local: &SocketAddr| match record_route {
            true => format!("Record-Route: <sip:{local};lr>\r\n").into_bytes().into(),
            false => Arc::default(),
        };
        Self {
            direct: false,
            recorded: locals.iter().map(recorded).collect(),
            now: 0,
            heard: 0,
            outboxes: locals.iter().map(|_| Outbox::default()).collect(),
            requests: locals.iter().map(|local| Requests::new(*local)).collect(),
            locals,
            timers: Timers::default(),
            books: Books::default(),
            live,
            calls: SmallRng::seed_from_u64(rng.clone().random()),
            rng,
            run_mark,
            responses: HashMap::new(),
            body: Vec::new(),
            branch: Vec::new(),
        }
    }

    /// True with this probability.
    pub fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.random::<f64>() < share
    }

    /// The same, of a call that arrives.
    pub fn call_chance(&mut self, share: f64) -> bool {
        self.calls.random::<f64>() < share
    }

    /// The Record-Route line that messages of this socket bear, empty where no route is recorded.
    pub fn record_route(&self, socket: usize) -> Arc<[u8]> {
        Arc::clone(&self.recorded[socket])
    }

    /// Appends a leg's tag: its label, and the mark of the run.
    pub fn write_tag(&self, label: Label, out: &mut Vec<u8>) {
        label.write(out);
        out.extend_from_slice(self.run_mark.as_bytes());
    }

    /// Appends the branch of a leg's request: `kind` tells an INVITE (`i`, its CANCEL and ACK of a refusal too) from
    /// the ACK of a 2xx (`a`) and a BYE (`b`).
    pub fn write_branch(&self, label: Label, cseq: u32, kind: char, out: &mut Vec<u8>) {
        out.extend_from_slice(b"z9hG4bK");
        self.write_tag(label, out);
        // Writing to a Vec cannot fail.
        let _ = write!(out, ".{cseq}{kind}");
    }

    /// Renders and queues a request of a leg; returns its bytes.
    pub fn send_request(
        &mut self,
        leg: &Leg,
        pick: impl Fn(&Requests) -> &Template,
        with_sdp: bool,
        kind: char,
        fill: Fill<'_>,
    ) -> &[u8] {
        let mut branch = std::mem::take(&mut self.branch);
        branch.clear();
        self.write_branch(leg.label(), fill.cseq.0, kind, &mut branch);
        self.prepare_body(leg, with_sdp);
        let fill = Fill {
            branch: &branch,
            from: &leg.local,
            call_id: &leg.call_id,
            contact: &leg.contact,
            body: &self.body,
            ..fill
        };
        let outbox = &mut self.outboxes[leg.socket];
        pick(&self.requests[leg.socket]).render(outbox.begin(leg.peer), &fill);
        self.branch = branch;
        self.live.sent.fetch_add(1, Relaxed);
        outbox.end()
    }

    /// Renders and queues an answer; returns its bytes. `leg` gives Contact and SDP where those are wanted.
    pub fn send_response(
        &mut self,
        leg: Option<&Leg>,
        socket: usize,
        to: SocketAddr,
        (code, with_contact, with_sdp): ResponseKind,
        fill: Fill<'_>,
    ) -> &[u8] {
        let with_sdp = with_sdp && leg.is_some();
        if let Some(leg) = leg {
            self.prepare_body(leg, with_sdp);
        } else {
            self.body.clear();
        }
        let kind = (code, with_contact, with_sdp);
        let template = self.responses.entry(kind).or_insert_with(|| template::response(code, with_contact, with_sdp));
        let outbox = &mut self.outboxes[socket];
        let contact = leg.map_or(&b""[..], |leg| &leg.contact);
        template.render(outbox.begin(to), &Fill { contact, body: &self.body, ..fill });
        self.live.sent.fetch_add(1, Relaxed);
        outbox.end()
    }

    /// Queues bytes that were sent before.
    pub fn resend(&mut self, socket: usize, to: SocketAddr, bytes: &[u8]) {
        self.outboxes[socket].push(to, bytes);
        self.live.sent.fetch_add(1, Relaxed);
    }

    /// Counts a message that the target sent twice without need.
    pub fn retransmission(&mut self) {
        self.books.report.retransmissions_received += 1;
        self.live.retransmissions.fetch_add(1, Relaxed);
    }

    fn prepare_body(&mut self, leg: &Leg, with_sdp: bool) {
        self.body.clear();
        if with_sdp {
            sdp::write(&mut self.body, leg.label(), leg.chat, self.locals[leg.socket].ip());
        }
    }
}
