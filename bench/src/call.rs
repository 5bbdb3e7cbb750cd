//! A full queued call of 20 messages through the engine of one shard: music, wrap-up over, match, talk, hang-up.

use crate::Meter;
use crate::peers::{AGENT, CALLER, ENGINE, MEDIA, Sent, answer, in_dialog, invite, path};
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use strowger_dispatch::{AgentRef, ChatPolicy, Dispatch, Limits};
use strowger_engine::journal::{Entity, Sink};
use strowger_engine::registry::{AgentRow, FlowRow, Registry, RegistryLimits, Rows};
use strowger_engine::{BucketTable, Control, Engine, EngineConfig, Output, StatsHub};
use strowger_sip::endpoint::ListenerInfo;
use strowger_sip::hash::HashKey;
use strowger_sip::net::Transport;
use strowger_sip::time::{Mono, Now};

const SECOND: u64 = 1_000_000;
/// The agent's wrap-up: long enough that all transactions of a call are over before.
const WRAPUP_US: u64 = 60 * SECOND;
/// Messages of the call, in and out.
pub const MESSAGES: usize = 20;

/// A ring of memory that records are copied to.
#[derive(Debug)]
pub struct Ring {
    bytes: Vec<u8>,
    at: usize,
}

impl Default for Ring {
    fn default() -> Ring {
        Ring { bytes: vec![0; 1 << 20], at: 0 }
    }
}

impl Sink for Ring {
    fn put(&mut self, entity: Entity, record: &[u8]) {
        black_box(entity);
        if self.at + record.len() > self.bytes.len() {
            self.at = 0;
        }
        self.bytes[self.at..self.at + record.len()].copy_from_slice(record);
        self.at += record.len();
    }
    fn remove(&mut self, entity: Entity) {
        black_box(entity);
    }
}

/// Flow `support` with music and one agent, for some shards.
#[derive(Debug)]
pub struct House {
    pub agent: AgentRef,
    cfg: Arc<EngineConfig>,
    dispatch: Arc<Dispatch>,
    stats: Arc<StatsHub>,
    registry: Registry,
}

impl House {
    /// # Panics
    /// If its rows have faults.
    #[must_use]
    pub fn new(shards: u16) -> House {
        House::waiting(shards, 100)
    }

    /// One in which so many calls may wait on a shard.
    ///
    /// # Panics
    /// If its rows have faults.
    #[must_use]
    pub fn waiting(shards: u16, waiting_per_shard: u32) -> House {
        let listener = ListenerInfo { transport: Transport::Udp, via: ENGINE.into(), contact_host: ENGINE.into() };
        let mut cfg = EngineConfig {
            endpoint: Arc::new(EngineConfig::endpoint(vec![listener])),
            buckets: Arc::new(BucketTable::even(shards)),
            key: HashKey(1, 2),
            call: Default::default(),
        };
        cfg.call.reject_on_no_agents = false;
        cfg.call.wrapup_us = WRAPUP_US;
        let limits = Limits { shards, agents: 8, waiting_per_shard, skills: 8 };
        let dispatch = Arc::new(Dispatch::new(limits, ChatPolicy::Balancing));
        let mut registry = Registry::new(dispatch.handle(shards), RegistryLimits { flows: 8, skills: 8 });
        let agent = AgentRow {
            agentid: Some("ann".into()),
            location: Some(format!("sip:ann@{AGENT}")),
            skills: Some("support".into()),
            ..AgentRow::default()
        };
        let flow = FlowRow {
            flowid: Some("support".into()),
            skill: Some("support".into()),
            message_queue: Some(format!("sip:music@{MEDIA}")),
            ..FlowRow::default()
        };
        let (_, faults) = registry.load(&Rows { flows: vec![flow], agents: vec![agent] });
        assert!(faults.is_empty(), "{faults:?}");
        while registry.commit(16, &mut Vec::new()) {}
        let agent = registry.agent("ann").expect("she is loaded");
        let stats = Arc::new(StatsHub::new(shards, 8, 8));
        House { agent, cfg: Arc::new(cfg), dispatch, stats, registry }
    }

    /// The engine of a shard, with a journal or without.
    #[must_use]
    pub fn shard(&self, shard: u16, journal: bool) -> Shard {
        let now = Now { mono: Mono(1_000_000_000), unix_us: 1_700_000_000_000_000 };
        let (cfg, stats, prov) = (self.cfg.clone(), self.stats.clone(), self.registry.current().clone());
        Shard {
            engine: Engine::new(cfg, shard, &self.dispatch, stats, prov, [7; 32], now),
            now,
            journal: journal.then(Ring::default),
            wire: Vec::new(),
            sent: Vec::new(),
            outputs: Vec::new(),
        }
    }
}

/// An engine, its clock, and what it put out.
#[derive(Debug)]
pub struct Shard {
    pub engine: Engine,
    pub now: Now,
    journal: Option<Ring>,
    /// What was sent in a turn, as it would be handed to the kernel.
    wire: Vec<u8>,
    sent: Vec<(std::net::SocketAddr, Range<usize>)>,
    pub outputs: Vec<Output>,
}

impl Shard {
    /// Lets time pass.
    pub fn pass_us(&mut self, us: u64) {
        self.now = Now { mono: self.now.mono.plus_us(us), unix_us: self.now.unix_us + us };
    }

    /// One turn of the shard, a millisecond after the last: an input, the journal's records, all that is to be sent.
    pub fn turn(&mut self, m: &mut impl Meter, step: &str, input: impl FnOnce(&mut Engine, Now)) -> Vec<Sent> {
        self.pass_us(1000);
        self.wire.clear();
        self.sent.clear();
        self.outputs.clear();
        let Shard { engine, now, journal, wire, sent, outputs } = self;
        m.measure(step, 1, || {
            input(engine, *now);
            if let Some(ring) = journal {
                engine.journal(*now, ring);
            }
            while let Some(t) = engine.poll_transmit() {
                let from = wire.len();
                wire.extend_from_slice(engine.bytes(&t));
                sent.push((t.path.remote, from..wire.len()));
                engine.sent(t);
            }
            outputs.extend(std::iter::from_fn(|| engine.poll_output()));
        });
        let text = |range: &Range<usize>| String::from_utf8_lossy(&self.wire[range.clone()]).into_owned();
        self.sent.iter().map(|(to, range)| Sent { to: *to, text: text(range) }).collect()
    }

    /// A datagram of `from`'s.
    pub fn message(&mut self, m: &mut impl Meter, step: &str, from: &str, text: &str) -> Vec<Sent> {
        let path = path(from);
        self.turn(m, step, |engine, now| engine.handle_datagram(now, path, text.as_bytes()))
    }

    /// A call comes and is parked with music; the answer to its INVITE. Messages 1 to 7.
    #[must_use]
    pub fn park(&mut self, m: &mut impl Meter, n: u64, wire: &mut Wire) -> String {
        let text = invite("support", n);
        let [_, music] = wire.turn([text.clone()], self.message(m, "01-invite", CALLER, &text), ["100", "INVITE"]);
        let text = answer(&music.text, 200, "music", MEDIA);
        let sent = self.message(m, "02-music-answers", MEDIA, &text);
        let [_, ok] = wire.turn([text], sent, ["ACK", "200"]);
        let ack = in_dialog(&ok.text, "ACK", 1);
        let sent = self.message(m, "03-parked", CALLER, &ack);
        let [] = wire.turn([ack], sent, []);
        ok.text
    }

    /// The agent, who is sent `invite`, and the caller are connected. Messages 9 to 16.
    pub fn connect(&mut self, m: &mut impl Meter, invite: &Sent, wire: &mut Wire) {
        let text = answer(&invite.text, 180, "ann", AGENT);
        let sent = self.message(m, "05-rings", AGENT, &text);
        let [] = wire.turn([text], sent, []);
        let text = answer(&invite.text, 200, "ann", AGENT);
        let sent = self.message(m, "06-agent-answers", AGENT, &text);
        let [_, moves] = wire.turn([text], sent, ["ACK", "INVITE"]);
        let text = answer(&moves.text, 200, "carrier", CALLER);
        let sent = self.message(m, "07-caller-moves", CALLER, &text);
        let [_, bye] = wire.turn([text], sent, ["ACK", "BYE"]);
        let text = answer(&bye.text, 200, "music", MEDIA);
        let sent = self.message(m, "08-music-ends", MEDIA, &text);
        let [] = wire.turn([text], sent, []);
    }

    /// The caller hangs up. Messages 17 to 20, and the timers of all that.
    ///
    /// # Panics
    /// If something is left.
    pub fn hang_up(&mut self, m: &mut impl Meter, ok: &str, wire: &mut Wire) {
        let text = in_dialog(ok, "BYE", 2);
        let sent = self.message(m, "09-bye", CALLER, &text);
        let [_, bye] = wire.turn([text], sent, ["200", "BYE"]);
        let text = answer(&bye.text, 200, "ann", AGENT);
        let sent = self.message(m, "10-agent-gone", AGENT, &text);
        let [] = wire.turn([text], sent, []);
        self.pass_us(40 * SECOND);
        let sent = self.turn(m, "11-timers", |engine, now| engine.handle_timers(now));
        assert!(sent.is_empty(), "{sent:?}");
        assert_eq!(self.engine.calls(), 0, "the call is over");
    }
}

/// Holds what passes to what must, and keeps it, in order.
#[derive(Debug, Clone, Default)]
pub struct Wire {
    pub messages: Vec<String>,
}

impl Wire {
    /// What came out of a turn, which must be these.
    ///
    /// # Panics
    /// If it is not.
    pub fn turn<const IN: usize, const OUT: usize>(
        &mut self,
        received: [String; IN],
        sent: Vec<Sent>,
        want: [&str; OUT],
    ) -> [Sent; OUT] {
        self.messages.extend(received);
        self.messages.extend(sent.iter().map(|s| s.text.clone()));
        let got: Vec<String> = sent.iter().map(|s| s.what().to_owned()).collect();
        assert_eq!(got, want, "{sent:#?}");
        <[Sent; OUT]>::try_from(sent).unwrap_or_else(|sent| panic!("{sent:?}"))
    }
}

/// One shard whose agent comes out of its wrap-up, over and over, when a call waits.
#[derive(Debug)]
pub struct Queue {
    shard: Shard,
    agent: AgentRef,
    calls: u64,
    /// When the wrap-up that runs is over.
    free_at: Mono,
}

impl Queue {
    #[must_use]
    pub fn new(journal: bool) -> Queue {
        let house = House::new(1);
        let shard = house.shard(0, journal);
        Queue { free_at: shard.now.mono, shard, agent: house.agent, calls: 0 }
    }

    /// One whole call.
    ///
    /// # Panics
    /// If it is not one of [`MESSAGES`] messages.
    pub fn call(&mut self, m: &mut impl Meter) -> Wire {
        self.calls += 1;
        let mut wire = Wire::default();
        let soon = self.free_at.since(self.shard.now.mono);
        self.shard.pass_us(soon.saturating_sub(SECOND / 100));
        let ok = self.shard.park(m, self.calls, &mut wire);
        let agent = self.agent;
        let sent = if self.calls == 1 {
            self.shard
                .turn(m, "04-match", |engine, now| engine.handle_control(now, 0, Control::Login { agent, on: true }))
        } else {
            self.shard.pass_us(self.free_at.since(self.shard.now.mono));
            self.shard.turn(m, "04-match", |engine, now| engine.handle_timers(now))
        };
        let [invite] = wire.turn([], sent, ["INVITE"]);
        self.shard.connect(m, &invite, &mut wire);
        self.shard.hang_up_at(m, &ok, &mut wire, &mut self.free_at);
        assert_eq!(wire.messages.len(), MESSAGES);
        wire
    }

    /// What passes in a call, in and out.
    pub fn messages(&mut self) -> Vec<Vec<u8>> {
        self.call(&mut crate::meter::Unmetered).messages.into_iter().map(String::into_bytes).collect()
    }

    /// A call that is parked and gives up.
    ///
    /// # Panics
    /// If something is left.
    pub fn give_up(&mut self, m: &mut impl Meter) {
        self.calls += 1;
        let mut wire = Wire::default();
        let ok = self.shard.park(&mut crate::meter::Unmetered, self.calls, &mut wire);
        let sent = self.shard.message(m, "21-gives-up", CALLER, &in_dialog(&ok, "BYE", 2));
        let [_, bye] = wire.turn([], sent, ["200", "BYE"]);
        self.shard.message(m, "22-music-gone", MEDIA, &answer(&bye.text, 200, "music", MEDIA));
        self.shard.pass_us(40 * SECOND);
        self.shard.turn(&mut crate::meter::Unmetered, "", |engine, now| engine.handle_timers(now));
        assert_eq!(self.shard.engine.calls(), 0, "the call is over");
    }
}

impl Shard {
    fn hang_up_at(&mut self, m: &mut impl Meter, ok: &str, wire: &mut Wire, free_at: &mut Mono) {
        // Two turns, of which the second ends the agent's dialog.
        *free_at = self.now.mono.plus_us(1000 + WRAPUP_US);
        self.hang_up(m, ok, wire);
    }
}
