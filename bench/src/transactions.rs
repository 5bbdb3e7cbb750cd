//! Each step of each kind of transaction through an `Endpoint`: parsed messages in, events and bytes out.

use crate::Meter;
use crate::meter::Unmetered;
use crate::peers::{AGENT, CALLER, ENGINE, Sent, answer, in_dialog, invite, line, path, sdp};
use std::sync::Arc;
use strowger_sip::endpoint::{ClientTxn, Endpoint, EndpointConfig, Event, ListenerInfo, Outgoing, ServerTxn, Target};
use strowger_sip::hash::HashKey;
use strowger_sip::msg::{Limits, Message, Method, Reply};
use strowger_sip::net::Transport;
use strowger_sip::time::Mono;

/// Longer than any transaction lives.
const LIFE_US: u64 = 70_000_000;

/// See the module.
#[derive(Debug)]
pub struct Transactions {
    ep: Endpoint,
    now: Mono,
    rounds: u64,
    wire: Vec<u8>,
    sent: Vec<Sent>,
}

impl Default for Transactions {
    fn default() -> Transactions {
        let listener = ListenerInfo { transport: Transport::Udp, via: ENGINE.into(), contact_host: ENGINE.into() };
        let cfg = EndpointConfig { listeners: vec![listener], ..EndpointConfig::default() };
        let ep = Endpoint::new(Arc::new(cfg), HashKey(1, 2), [1; 32], 0x0ab);
        Transactions { ep, now: Mono(1_000_000_000), rounds: 0, wire: Vec::new(), sent: Vec::new() }
    }
}

impl Transactions {
    /// Every kind once, until nothing is left.
    pub fn round(&mut self, m: &mut impl Meter) {
        self.rounds += 1;
        self.invite_in(m);
        self.bye_in(m);
        self.refused_in(m);
        self.invite_out(m);
        self.refused_out(m);
        self.cancelled_out(m);
        self.expire(m);
    }

    /// Measures `step`, and takes what it sends.
    fn step<R>(&mut self, m: &mut impl Meter, step: &str, work: impl FnOnce(&mut Endpoint, Mono) -> R) -> R {
        self.now = self.now.plus_us(1000);
        self.wire.clear();
        self.sent.clear();
        let Transactions { ep, now, wire, .. } = self;
        let mut ends = [0; 4];
        let (result, count) = m.measure(step, 1, || {
            let result = work(ep, *now);
            let mut count = 0;
            while let Some(t) = ep.poll_transmit() {
                wire.extend_from_slice(ep.bytes(&t));
                ends[count] = wire.len();
                count += 1;
                ep.sent(t);
            }
            (result, count)
        });
        let mut from = 0;
        for end in &ends[..count] {
            let text = String::from_utf8_lossy(&self.wire[from..*end]).into_owned();
            self.sent.push(Sent { to: path(CALLER).remote, text });
            from = *end;
        }
        result
    }

    /// A message comes in, which brings these messages.
    fn receive(&mut self, m: &mut impl Meter, step: &str, text: &str, brings: &[&str]) -> Option<Event> {
        let msg = Message::parse(text.as_bytes(), &Limits::default()).expect("a sound message");
        let path = path(CALLER);
        let event = self.step(m, step, |ep, now| ep.receive(now, path, &msg));
        self.brought(brings);
        event
    }

    fn brought(&self, want: &[&str]) {
        assert_eq!(self.sent.iter().map(Sent::what).collect::<Vec<_>>(), want);
    }

    fn respond(&mut self, m: &mut impl Meter, step: &str, txn: ServerTxn, code: u16) {
        let body = if code == 200 { sdp("music") } else { String::new() };
        let kind: &[u8] = if code == 200 { b"application/sdp" } else { b"" };
        let contact: &[u8] = b"<sip:198.51.100.20:5060>";
        let reply =
            Reply { code, to_tag: b"ours", contact, content_type: kind, body: body.as_bytes(), ..Reply::default() };
        self.step(m, step, |ep, now| ep.respond(now, txn, &reply));
        self.brought(&[&code.to_string()]);
    }

    fn request(&mut self, m: &mut impl Meter, step: &str, method: Method<'_>) -> (ClientTxn, String) {
        let name = String::from_utf8_lossy(method.as_bytes()).into_owned();
        let (n, body) = (self.rounds, if method == Method::Invite { sdp("carrier") } else { String::new() });
        let head = head(&name, n, "");
        let request = outgoing(method, &head, &body);
        let txn = self.step(m, step, |ep, now| ep.request(now, &request, 1));
        self.brought(&[&name]);
        (txn, self.sent[0].text.clone())
    }

    /// An INVITE comes, rings, comes again, is answered and acknowledged.
    fn invite_in(&mut self, m: &mut impl Meter) {
        let text = invite("support", self.rounds);
        let Some(Event::Request { txn }) = self.receive(m, "server/invite-100", &text, &["100"]) else {
            panic!("an INVITE")
        };
        self.respond(m, "server/180", txn, 180);
        self.receive(m, "server/invite-again", &text, &["180"]);
        self.respond(m, "server/200", txn, 200);
        let ack = in_dialog(&self.sent[0].text, "ACK", 1);
        assert_eq!(self.receive(m, "server/ack", &ack, &[]), Some(Event::Ack));
        self.step(m, "server/acked", |ep, _| ep.acked(txn));
    }

    /// A BYE comes, and an OPTIONS that is answered without state.
    fn bye_in(&mut self, m: &mut impl Meter) {
        let ok = answer(&invite("support", self.rounds), 200, "ours", ENGINE);
        let bye = in_dialog(&ok, "BYE", 2);
        let Some(Event::Request { txn }) = self.receive(m, "server/bye", &bye, &[]) else { panic!("a BYE") };
        self.respond(m, "server/bye-200", txn, 200);
        let options = in_dialog(&ok, "OPTIONS", 3).replace(line(&ok, "To: "), "To: <sip:support@198.51.100.20>");
        assert_eq!(self.receive(m, "server/options", &options, &["200"]), None);
    }

    /// An INVITE that is cancelled.
    fn refused_in(&mut self, m: &mut impl Meter) {
        let text = invite("support", self.rounds + (1 << 28));
        let Some(Event::Request { txn }) = self.receive(&mut Unmetered, "", &text, &["100"]) else {
            panic!("an INVITE")
        };
        let head = text.split("Content-Type").next().unwrap_or_default();
        let cancel = format!("{head}Content-Length: 0\r\n\r\n")
            .replace("INVITE sip", "CANCEL sip")
            .replace("1 INVITE", "1 CANCEL");
        let event = self.receive(m, "server/cancel", &cancel, &["200"]);
        assert!(matches!(event, Some(Event::Cancel { .. })), "{event:?}");
        self.respond(m, "server/487", txn, 487);
        let to = line(&self.sent[0].text, "To: ").to_owned();
        let ack =
            format!("{head}Content-Length: 0\r\n\r\n").replace("INVITE sip", "ACK sip").replace("1 INVITE", "1 ACK");
        let ack = ack.replace(line(&ack, "To: "), &to);
        assert_eq!(self.receive(m, "server/487-ack", &ack, &[]), None);
    }

    /// An INVITE of ours rings, is answered, is answered once more; a BYE of ours.
    fn invite_out(&mut self, m: &mut impl Meter) {
        let (txn, text) = self.request(m, "client/invite", Method::Invite);
        assert!(self.receive(m, "client/180", &answer(&text, 180, "ann", AGENT), &[]).is_some());
        let ok = answer(&text, 200, "ann", AGENT);
        assert!(self.receive(m, "client/200", &ok, &[]).is_some());
        let head = head("ACK", self.rounds, ";tag=ann4711");
        let ack = outgoing(Method::Ack, &head, "");
        self.step(m, "client/ack", |ep, now| ep.ack_2xx(now, txn, &ack));
        self.brought(&["ACK"]);
        assert_eq!(self.receive(m, "client/200-again", &ok, &["ACK"]), None);
        let (_, text) = self.request(m, "client/bye", Method::Bye);
        assert!(self.receive(m, "client/bye-200", &answer(&text, 200, "ann", AGENT), &[]).is_some());
    }

    /// An INVITE of ours that is sent again and refused.
    fn refused_out(&mut self, m: &mut impl Meter) {
        let (_, text) = self.request(&mut Unmetered, "", Method::Invite);
        self.now = self.now.plus_us(500_000);
        self.step(m, "client/invite-again", |ep, now| while ep.poll_timer(now).is_some() {});
        assert_eq!(self.sent.iter().map(Sent::what).filter(|what| *what == "INVITE").count(), 1);
        assert!(self.receive(m, "client/486-ack", &answer(&text, 486, "ann", AGENT), &["ACK"]).is_some());
    }

    /// An INVITE of ours that is cancelled while it rings.
    fn cancelled_out(&mut self, m: &mut impl Meter) {
        let (txn, text) = self.request(&mut Unmetered, "", Method::Invite);
        self.receive(&mut Unmetered, "", &answer(&text, 180, "ann", AGENT), &[]);
        self.step(m, "client/cancel", |ep, now| ep.cancel(now, txn));
        self.brought(&["CANCEL"]);
        let ok = answer(&self.sent[0].text, 200, "ann", AGENT);
        self.receive(m, "client/cancel-200", &ok, &[]);
        assert!(self.receive(m, "client/487-ack", &answer(&text, 487, "ann", AGENT), &["ACK"]).is_some());
    }

    /// All that is left ends by its timers.
    fn expire(&mut self, m: &mut impl Meter) {
        self.now = self.now.plus_us(LIFE_US);
        let transactions = self.ep.counts();
        self.step(m, "timers-of-a-round", |ep, now| while ep.poll_timer(now).is_some() {});
        assert!(!transactions.is_at_rest() && self.ep.counts().is_at_rest());
    }
}

fn head(method: &str, n: u64, to_tag: &str) -> String {
    format!(
        "Max-Forwards: 70\r\nFrom: <sip:support@198.51.100.20>;tag=ours{n:08x}\r\nTo: <sip:ann@198.51.100.40>{to_tag}\r\n\
         Call-ID: out{n:08x}\r\nCSeq: 1 {method}\r\nContact: <sip:198.51.100.20:5060>\r\n"
    )
}

fn outgoing<'a>(method: Method<'a>, head: &'a str, body: &'a str) -> Outgoing<'a> {
    Outgoing {
        method,
        uri: b"sip:ann@198.51.100.40:5060",
        target: Target::Addr(path(AGENT)),
        head: head.as_bytes(),
        content_type: if body.is_empty() { b"" } else { b"application/sdp" },
        body: body.as_bytes(),
        stamp: 1,
        bucket: None,
    }
}
