//! What can happen, in the order of time.

use crate::crash::End;
use crate::plan::Op;
use crate::text::Bytes;
use crate::ua::Tick;
use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};
use strowger_engine::{Control, MeshMsg};

#[derive(Debug)]
pub(crate) enum Event {
    ToEngine {
        from: SocketAddr,
        bytes: Bytes,
        /// How long the shard has left it in its socket.
        waited: u64,
    },
    ToPeer {
        to: SocketAddr,
        bytes: Bytes,
    },
    Mesh {
        to: u16,
        msg: MeshMsg,
    },
    Timers(u16),
    /// A shard under pressure has time for a new call that waits.
    NewCall(u16),
    Peer {
        dialog: u32,
        tick: Tick,
    },
    Command {
        shard: u16,
        id: u64,
        command: Box<Control>,
    },
    Operate(Op),
    Commit,
    Calm,
    Crash(End),
    /// The CDR pipeline has something to do.
    Records,
    /// The journals' disk has room for so many files more.
    Room(Option<u64>),
    /// The wall clock is set, so far from the truth.
    SetClock(i64),
    /// What an engine asked a name server is answered; none: there is no such name.
    Name {
        shard: u16,
        id: u32,
        address: Option<IpAddr>,
    },
}

/// An event and its time; of those of one time the first that was planned comes first.
#[derive(Debug)]
pub(crate) struct Item {
    pub at: u64,
    pub seq: u64,
    pub event: Event,
}

impl PartialEq for Item {
    fn eq(&self, other: &Item) -> bool {
        self.seq == other.seq
    }
}
impl Eq for Item {}
impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Item) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Item {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Item) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}
