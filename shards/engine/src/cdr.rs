//! Call detail records as values: one for each attempt that ends (spec: call-center.md, "CDRs").

use crate::control::CallId;
use crate::provision::{AgentDef, FlowDef};
use std::sync::Arc;

/// Bits of `fstats`.
pub mod fstats {
    pub const INBOUND: u8 = 1;
    pub const DISTRIBUTED: u8 = 2;
    pub const ANSWERED: u8 = 4;
    pub const ABANDONED: u8 = 8;
}

/// How the attempt ended, `cc_cdrs.call_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum CallType {
    Rejected = -2,
    InternalError = -1,
    Handled = 0,
    Dropped = 1,
}

/// `cc_cdrs.media`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CdrMedia {
    Audio = 1,
    Chat = 2,
}

/// One row of `cc_cdrs`, with what our own stores add (call id, exact times, cause, parameter).
#[derive(Debug, Clone, PartialEq)]
pub struct Cdr {
    /// Made with the record; a retried write of the same key never doubles a row. Unique over restarts
    /// (start of the process, shard, sequence).
    pub key: u128,
    pub call: CallId,
    /// The caller's SIP Call-ID.
    pub sip_call_id: Box<str>,
    pub caller: Box<str>,
    pub received_unix_us: u64,
    /// Arrival until the answer, or until the end.
    pub wait_us: u64,
    /// Ringing at the agent.
    pub pickup_us: u64,
    /// 0 unless handled.
    pub talk_us: u64,
    /// Whole seconds as the reference writes them (`Cdr::seconds`, at least 1 for a handled call's talk).
    pub talk_s: u32,
    pub flow: Arc<FlowDef>,
    pub agent: Option<Arc<AgentDef>>,
    pub call_type: CallType,
    pub rejected: u32,
    pub fstats: u8,
    /// Sequence number of the call.
    pub cid: u64,
    pub media: CdrMedia,
    /// SIP status that ended the attempt, 0 for a normal hang-up.
    pub cause: u16,
    pub param: Option<Box<str>>,
}

impl Cdr {
    /// Whole seconds, half rounded up.
    #[must_use]
    pub fn seconds(us: u64) -> u32 {
        u32::try_from(us.saturating_add(500_000) / 1_000_000).unwrap_or(u32::MAX)
    }
}
