//! What the runtime's tests share.

use std::sync::Arc;
use strowger_engine::cdr::{CallType, CdrMedia};
use strowger_engine::{CallId, Cdr, FlowDef};

/// A record with that key.
pub fn cdr(key: u128) -> Cdr {
    let flow = FlowDef { flowid: "f".into(), ..FlowDef::default() };
    Cdr {
        key,
        call: CallId { shard: 0, slot: 0, generation: 0 },
        sip_call_id: "c".into(),
        caller: "a".into(),
        received_unix_us: 0,
        wait_us: 0,
        pickup_us: 0,
        talk_us: 0,
        talk_s: 0,
        flow: Arc::new(flow),
        agent: None,
        call_type: CallType::Dropped,
        rejected: 0,
        fstats: 0,
        cid: 0,
        media: CdrMedia::Audio,
        cause: 0,
        param: None,
    }
}
