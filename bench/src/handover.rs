//! Between shards: the rings of the mesh, and an agent of one shard for a call of another.

use crate::Meter;
use crate::call::{House, Shard, Wire};
use crate::meter::Unmetered;
use crate::peers::{AGENT, path};
use std::hint::black_box;
use std::task::Waker;
use strowger_dispatch::AgentRef;
use strowger_engine::{Control, MeshMsg, Output};
use strowger_runtime::mesh::{Item, Label, Port, mesh};

const TIMES: u32 = 64;

fn two<M>() -> (Port<M>, Port<M>) {
    let ports = mesh(vec![Waker::noop().clone(), Waker::noop().clone()]);
    let [a, b] = <[_; 2]>::try_from(ports).unwrap_or_else(|_| panic!("a port for each waker"));
    (a, b)
}

/// A message and a datagram of 805 bytes through a ring, each taken before the next is sent.
pub fn rings(m: &mut impl Meter) {
    let (mut a, mut b) = two::<u64>();
    let label = Label { path: path(AGENT), received_ns: 0, sent_ns: 0, bucket: 0, new_invite: false };
    let bytes = [7; 805];
    for _ in 0..4 {
        m.measure("ring-message", TIMES, || {
            for n in 0..TIMES {
                let _ = a.send(1, u64::from(n), 0);
                a.flush();
                black_box(b.receive(0));
            }
        });
        m.measure("ring-datagram", TIMES, || {
            for _ in 0..TIMES {
                let _ = a.forward(1, &bytes, label);
                a.flush();
                if let Some(Item::Datagram(parcel)) = b.receive(0) {
                    b.recycle(0, black_box(parcel));
                }
            }
        });
    }
}

/// Two shards: the agent logs in at the first when the second has a call waiting.
#[derive(Debug)]
pub struct TwoShards {
    agents: Shard,
    calls: Shard,
    agent: AgentRef,
    ports: (Port<MeshMsg>, Port<MeshMsg>),
    count: u64,
}

impl TwoShards {
    #[must_use]
    pub fn new(journal: bool) -> TwoShards {
        let house = House::new(2);
        let (agents, calls) = (house.shard(0, journal), house.shard(1, journal));
        TwoShards { agents, calls, agent: house.agent, ports: two(), count: 0 }
    }

    /// A call on one shard with an agent of the other.
    ///
    /// # Panics
    /// If the match is not handed over.
    pub fn call(&mut self, m: &mut impl Meter) {
        let (agent, mut wire) = (self.agent, Wire::default());
        self.count += 1;
        let ok = self.calls.park(&mut Unmetered, self.count, &mut wire);
        self.agents.pass_us(3000);
        let login = |on| {
            move |engine: &mut strowger_engine::Engine, now| engine.handle_control(now, 0, Control::Login { agent, on })
        };
        self.agents.turn(m, "agent-free", login(true));
        let is_mesh = |o: &Output| matches!(o, Output::Mesh { .. });
        let at = self.agents.outputs.iter().position(is_mesh).expect("a match for the other shard");
        let Output::Mesh { to: 1, msg } = self.agents.outputs.swap_remove(at) else { panic!("for shard 1") };
        let (from, to) = &mut self.ports;
        let item = m.measure("match-through-ring", 1, || {
            let _ = from.send(1, msg, 0);
            from.flush();
            to.receive(0)
        });
        let Some(Item::Msg { msg, .. }) = item else { panic!("the ring gives the message") };
        let sent = self.calls.turn(m, "matched", |engine, now| engine.handle_mesh(now, msg));
        let [invite] = wire.turn([], sent, ["INVITE"]);
        self.calls.connect(&mut Unmetered, &invite, &mut wire);
        self.calls.hang_up(&mut Unmetered, &ok, &mut wire);
        self.calls.pass_us(100_000_000);
        self.calls.turn(&mut Unmetered, "", |engine, now| engine.handle_timers(now));
        self.agents.turn(&mut Unmetered, "", login(false));
        self.agents.now = self.calls.now;
    }
}
