//! Calls of nobody's, run through an engine of their own while a shard looks out for work: what it is about to do is fresh in
//! the processor's caches then. An agent who comes free is offered the next call through some 25 000 instructions; cold, they
//! take several times as long.
//!
//! Two callers, one agent, music: a caller hangs up, the agent's answer to BYE sets her free, the other caller is connected, a
//! new one comes. Peers answer at once. Nothing of it leaves this module.

use crate::config::{CallConfig, EngineConfig};
use crate::journal::{Entity, Sink};
use crate::registry::{AgentRow, FlowRow, Registry, RegistryLimits, Rows};
use crate::{BucketTable, Control, Engine, StatsHub};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use strowger_dispatch::{ChatPolicy, Dispatch, Limits};
use strowger_sip::endpoint::{EndpointConfig, ListenerInfo};
use strowger_sip::hash::HashKey;
use strowger_sip::msg::{Message, Method, Name, Reply, Start, write_answer};
use strowger_sip::net::{ListenerId, Path, Transport};
use strowger_sip::time::{Mono, Now};

/// Between two messages, microseconds.
const STEP_US: u64 = 1_000;
/// After a call: its transactions are over then (RFC 3261 section 17, 64*T1).
const OVER_US: u64 = 40_000_000;
/// More calls at once than there are by the script: something is amiss, and there are no more rehearsals.
const MOST_CALLS: usize = 4;
/// All addresses here are for documentation (RFC 5737).
const CALLER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5060);
const SDP: &str = "v=0\r\no=- 53655765 2353687637 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
                   m=audio 40376 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n";

/// See the module.
#[derive(Debug)]
pub struct Rehearsal {
    engine: Engine,
    now: Now,
    /// What peers have said.
    inbound: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Connected callers, the first of them with the agent: our answers to their INVITEs.
    callers: VecDeque<Vec<u8>>,
    /// Callers so far.
    made: u64,
    records: Nowhere,
}

/// Where a rehearsal's records go: they are looked at, and forgotten.
#[derive(Debug, Default)]
struct Nowhere(Vec<u8>);

impl Sink for Nowhere {
    fn put(&mut self, _: Entity, record: &[u8]) {
        self.0.clear();
        self.0.extend_from_slice(record);
    }
    fn remove(&mut self, _: Entity) {}
}

impl Rehearsal {
    /// `None`: there is nobody to rehearse with (a programming error, which a test would show).
    #[must_use]
    pub fn new() -> Option<Rehearsal> {
        let own = "192.0.2.9:5060".to_owned();
        let listener = ListenerInfo { transport: Transport::Udp, via: own.clone(), contact_host: own };
        let call = CallConfig { wrapup_us: 0, reject_on_no_agents: false, ..CallConfig::default() };
        let endpoint = EndpointConfig { max_transactions: 1024, ..EngineConfig::endpoint(vec![listener]) };
        let key = HashKey(1, 2);
        let cfg = EngineConfig { endpoint: Arc::new(endpoint), buckets: Arc::new(BucketTable::even(1)), key, call };
        let limits = Limits { shards: 1, agents: 2, waiting_per_shard: 8, skills: 2 };
        let dispatch = Arc::new(Dispatch::new(limits, ChatPolicy::Balancing));
        let mut registry = Registry::new(dispatch.handle(1), RegistryLimits { flows: 2, skills: 2 });
        let named = |name: &str| Some(name.to_owned());
        let (skill, location) = (named("rehearsal"), named("sip:agent@192.0.2.3"));
        let agent = AgentRow { agentid: named("agent"), location, skills: skill.clone(), ..AgentRow::default() };
        let message_queue = named("sip:music@192.0.2.2");
        let flow = FlowRow { flowid: named("rehearsal"), skill, message_queue, ..FlowRow::default() };
        registry.load(&Rows { flows: vec![flow], agents: vec![agent] });
        while registry.commit(16, &mut Vec::new()) {}
        let agent = registry.agent("agent")?;
        let now = Now { mono: Mono(1_000_000_000), unix_us: 1_000_000_000_000_000 };
        let stats = Arc::new(StatsHub::new(1, 2, 2));
        let engine = Engine::new(Arc::new(cfg), 0, &dispatch, stats, registry.current().clone(), [7; 32], now);
        let (inbound, callers) = (VecDeque::new(), VecDeque::new());
        let mut it = Rehearsal { engine, now, inbound, callers, made: 0, records: Nowhere::default() };
        it.turn(|engine, now| engine.handle_control(now, 0, Control::Login { agent, on: true }));
        Some(it)
    }

    /// The next message of a call, and all that comes of it.
    pub fn step(&mut self) {
        if self.engine.calls() > MOST_CALLS {
            return;
        }
        let (from, bytes) = match self.inbound.pop_front() {
            Some(said) => said,
            None => self.begin(),
        };
        self.turn(|engine, now| engine.handle_datagram(now, Path::udp(from, ListenerId(0)), &bytes));
    }

    /// What happens next when all is still: a caller comes, or the one who talks hangs up.
    fn begin(&mut self) -> (SocketAddr, Vec<u8>) {
        if self.callers.len() < 2 {
            self.made += 1;
            return (CALLER, invite(self.made));
        }
        self.now = after(self.now, OVER_US);
        self.turn(Engine::handle_timers);
        let bye = self.callers.pop_front().and_then(|ok| from_caller("BYE", 2, &ok));
        (CALLER, bye.unwrap_or_default())
    }

    fn turn(&mut self, input: impl FnOnce(&mut Engine, Now)) {
        self.now = after(self.now, STEP_US);
        input(&mut self.engine, self.now);
        self.engine.journal(self.now, &mut self.records);
        while let Some(transmit) = self.engine.poll_transmit() {
            let to = transmit.path.remote;
            let said = self.engine.bytes(&transmit).to_vec();
            self.engine.sent(transmit);
            self.hear(to, said);
        }
        while self.engine.poll_output().is_some() {}
        self.engine.idle();
    }

    /// What a peer says to that.
    fn hear(&mut self, peer: SocketAddr, said: Vec<u8>) {
        let Ok(msg) = Message::parse(&said, &Default::default()) else { return };
        let inviting = msg.cseq().is_ok_and(|cseq| cseq.method == Method::Invite);
        match msg.start() {
            Start::Request { method: Method::Ack, .. } => {}
            Start::Request { .. } => {
                let mut answer = Vec::new();
                let (content_type, body): (&[u8], &[u8]) =
                    if inviting { (b"application/sdp", SDP.as_bytes()) } else { (b"", b"") };
                let contact = format!("<sip:peer@{peer}>");
                let contact = contact.as_bytes();
                let reply = Reply { code: 200, to_tag: b"peer", contact, content_type, body, ..Reply::default() };
                write_answer(&msg, peer, &reply, &mut answer);
                self.inbound.push_back((peer, answer));
            }
            Start::Response { code: 200, .. } if inviting => {
                if let Some(ack) = from_caller("ACK", 1, &said) {
                    self.inbound.push_back((CALLER, ack));
                    self.callers.push_back(said);
                }
            }
            Start::Response { .. } => {}
        }
    }
}

fn after(now: Now, us: u64) -> Now {
    Now { mono: now.mono.plus_us(us), unix_us: now.unix_us + us }
}

fn invite(n: u64) -> Vec<u8> {
    format!(
        "INVITE sip:rehearsal@192.0.2.9 SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};rport;branch=z9hG4bK74bf9a{n:08x}\r\n\
         Max-Forwards: 69\r\nFrom: \"Alice\" <sip:+4930123456@192.0.2.1>;tag=9fx{n:08x}\r\nTo: <sip:rehearsal@192.0.2.9>\r\n\
         Call-ID: 38482762{n:08x}@192.0.2.1\r\nCSeq: 1 INVITE\r\nContact: <sip:+4930123456@{CALLER};transport=udp>\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{SDP}",
        SDP.len()
    )
    .into_bytes()
}

/// A caller's request in the dialog that `ok` has made.
fn from_caller(method: &str, cseq: u32, ok: &[u8]) -> Option<Vec<u8>> {
    let ok = Message::parse(ok, &Default::default()).ok()?;
    let line = |name| ok.first(name).map(String::from_utf8_lossy);
    let contact = ok.contact().ok()??;
    let (target, id) = (String::from_utf8_lossy(contact.uri), line(Name::CallId)?);
    let text = format!(
        "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};rport;branch=z9hG4bK{method}{id}\r\nMax-Forwards: 69\r\n\
         From: {}\r\nTo: {}\r\nCall-ID: {id}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
        line(Name::From)?,
        line(Name::To)?,
    );
    Some(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger_sip::scan::Hint;

    #[test]
    fn calls_follow_each_other_and_nothing_is_left() {
        let mut rehearsal = Rehearsal::new().unwrap();
        for _ in 0..5_000 {
            rehearsal.step();
            assert!(rehearsal.engine.calls() <= 3, "{:?}", rehearsal.inbound);
        }
        // A dozen messages a call, from the third on.
        assert!(rehearsal.made > 400, "{}", rehearsal.made);
    }

    #[test]
    fn whatever_a_hint_names_looking_ahead_changes_nothing() {
        let [mut looks, mut does_not] = [(); 2].map(|()| Rehearsal::new().unwrap());
        for at in 0..500u32 {
            for slot in [0, 1, at % 8, 1 << 20, u32::MAX] {
                for hint in [Hint::Transaction(slot), Hint::Dialog(slot)] {
                    (0..4).for_each(|step| looks.engine.foresee(hint, step));
                }
            }
            looks.step();
            does_not.step();
            assert_eq!(looks.inbound, does_not.inbound);
        }
    }
}
