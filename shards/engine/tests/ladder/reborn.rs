//! The engine's process dies and a new one takes over from the journal: in the test binary `revival` after every input, so that each
//! flow test there is one of a restart at each step of its ladder. What it expects stays as it is.

use super::{Bench, SHARDS};
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use strowger_dispatch::{Dispatch, Limits};
use strowger_engine::control::Control;
use strowger_engine::journal::{Entity, Recovered, Sink};
use strowger_engine::registry::{AgentRow, FlowRow, Registry, RegistryLimits, Rows};
use strowger_engine::{Engine, Restored, StatsHub};
use strowger_sip::net::{ListenerId, Path};

/// Whether this is the binary whose engines never live longer than one input.
pub const MORTAL: bool = matches!(module_path!().as_bytes(), [b'r', b'e', b'v', b'i', b'v', b'a', b'l', ..]);

/// The latest record of each entity.
#[derive(Debug, Default, Clone)]
pub struct Journal {
    pub records: BTreeMap<Entity, Box<[u8]>>,
    pub puts: usize,
    lives: u64,
    /// What has been sent, and whether a new process begins: it sends what is outstanding again.
    sent: HashSet<(SocketAddr, Vec<u8>)>,
    begins: bool,
    /// OPTIONS of a new process, which every phone here answers.
    probes: Vec<(SocketAddr, Vec<u8>)>,
}

impl Sink for Journal {
    fn put(&mut self, entity: Entity, record: &[u8]) {
        self.puts += 1;
        self.records.insert(entity, record.into());
    }

    fn remove(&mut self, entity: Entity) {
        assert!(self.records.remove(&entity).is_some(), "{entity:?} was never written");
        entity.other_half().map(|half| self.records.remove(&half));
    }
}

impl Bench {
    pub fn is_mortal(&self) -> bool {
        MORTAL
    }

    /// What the engine changed goes into the journal, before anything is sent.
    pub fn commit(&mut self) {
        let journal = if self.engine.shard() == 0 { &mut self.journal } else { &mut self.second };
        self.engine.journal(self.now, journal);
    }

    /// After an input: the end of the process, where that is what is tested.
    pub(super) fn crash(&mut self) {
        if MORTAL {
            self.restart();
        }
    }

    /// Whether a message is none of the ladder: a new process sends it again, or asks a phone if its dialog is still there; then
    /// the phone will say so.
    pub(super) fn unseen(&mut self, to: SocketAddr, bytes: &[u8]) -> bool {
        if MORTAL && !self.journal.sent.insert((to, bytes.to_vec())) && self.journal.begins {
            return true;
        }
        let probe = MORTAL && bytes.starts_with(b"OPTIONS ");
        if probe {
            self.journal.probes.push((to, bytes.to_vec()));
        }
        probe
    }

    /// Phones answer what asks whether they are there.
    fn answer_probes(&mut self) {
        while let Some((from, probe)) = self.journal.probes.pop() {
            let probe = String::from_utf8(probe).unwrap();
            let kept = |l: &&str| ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| l.starts_with(name));
            let lines: String = probe.lines().filter(kept).map(|l| format!("{l}\r\n")).collect();
            let answer = format!("SIP/2.0 200 OK\r\n{lines}Content-Length: 0\r\n\r\n");
            self.engine.handle_datagram(self.now, Path::udp(from, ListenerId(0)), answer.as_bytes());
            self.drain();
        }
    }

    /// Kill -9, and a new process that restores what was committed.
    pub fn restart(&mut self) -> Restored {
        let restored = self.restart_with(|_| {});
        assert!(restored.unreadable.is_empty(), "{restored:?}");
        restored
    }

    /// The same, with other rows.
    pub fn restart_provisioned(&mut self, flows: &[FlowRow], agents: &[AgentRow]) -> Restored {
        self.rows = Rows { flows: flows.to_vec(), agents: agents.to_vec() };
        self.restart()
    }

    /// The same, with something done to the journal meanwhile.
    pub fn restart_with(&mut self, change: impl FnOnce(&mut BTreeMap<Entity, Box<[u8]>>)) -> Restored {
        self.answer_probes();
        self.journal.begins = true;
        let mut records = std::mem::take(&mut self.journal.records);
        change(&mut records);
        let recovered = [Recovered { shard: 0, records: records.into_iter().collect() }];
        let dispatching = self.dispatch.dispatching();
        self.journal.lives += 1;
        let limits = Limits { shards: SHARDS, agents: 1000, waiting_per_shard: 1000, skills: 100 };
        self.dispatch = Arc::new(Dispatch::new(limits, self.policy));
        self.dispatch.set_dispatching(false);
        self.stats = Arc::new(StatsHub::new(SHARDS, 100, 1000));
        self.registry = Registry::new(self.dispatch.handle(SHARDS), RegistryLimits { flows: 100, skills: 100 });
        let (prov, _) = self.registry.load(&self.rows);
        while self.registry.commit(16, &mut Vec::new()) {}
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&self.journal.lives.to_be_bytes());
        self.engine = Engine::new(self.cfg.clone(), 0, &self.dispatch, self.stats.clone(), prov, seed, self.now);
        let restored = self.engine.restore(self.now, &recovered);
        self.drain();
        self.dispatch.set_dispatching(dispatching);
        if dispatching {
            let mut made = Vec::new();
            self.dispatch.handle(SHARDS).match_all(&mut made);
            self.engine.handle_control(self.now, 0, Control::Matched(made));
            let replies = self.replies.len();
            self.drain();
            self.replies.truncate(replies);
        }
        // A new timer wheel begins at zero.
        self.engine.handle_timers(self.now);
        self.drain();
        self.journal.begins = false;
        restored
    }
}
