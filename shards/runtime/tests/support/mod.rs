//! What the runtime's tests share.

use std::sync::Arc;
use strowger_dispatch::SkillId;
use strowger_engine::cdr::{CallType, CdrMedia};
use strowger_engine::{CallId, Cdr, FlowDef};

/// A record with that key.
pub fn cdr(key: u128) -> Cdr {
    let flow = FlowDef {
        idx: 0,
        flowid: "f".into(),
        priority: 0,
        skill: SkillId(0),
        skill_name: "s".into(),
        prependcid: None,
        max_wrapup_s: 0,
        dissuading_hangup: false,
        dissuading_onhold_th: 0,
        dissuading_ewt_th: 0,
        dissuading_qsize_th: 0,
        message_welcome: None,
        message_queue: "sip:m@h".into(),
        message_dissuading: None,
        message_flow_id: None,
        agent_offer: None,
    };
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
