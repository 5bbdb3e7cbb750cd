//! Call detail records as values: one for each attempt that ends (spec: call-center.md, "CDRs").

use crate::control::CallId;
use crate::journal::wire::{Corrupt, Reader, Writer};
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

/// A record on its own, without the definitions that it was made with: what journal, spool and databases keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdrRow {
    /// These are the fields of [`Cdr`].
    pub key: u128,
    pub call: CallId,
    pub sip_call_id: Box<str>,
    pub caller: Box<str>,
    pub received_unix_us: u64,
    pub wait_us: u64,
    pub pickup_us: u64,
    pub talk_us: u64,
    pub talk_s: u32,
    pub flow_id: Box<str>,
    pub agent_id: Option<Box<str>>,
    /// As a number of `cc_cdrs.call_type`: records of other programs may have others than [`CallType`].
    pub call_type: i8,
    pub rejected: u32,
    pub fstats: u8,
    pub cid: u64,
    pub media: u8,
    pub cause: u16,
    pub param: Option<Box<str>>,
}

impl From<&Cdr> for CdrRow {
    fn from(c: &Cdr) -> CdrRow {
        CdrRow {
            key: c.key,
            call: c.call,
            sip_call_id: c.sip_call_id.clone(),
            caller: c.caller.clone(),
            received_unix_us: c.received_unix_us,
            wait_us: c.wait_us,
            pickup_us: c.pickup_us,
            talk_us: c.talk_us,
            talk_s: c.talk_s,
            flow_id: c.flow.flowid.clone(),
            agent_id: c.agent.as_ref().map(|a| a.agentid.clone()),
            call_type: c.call_type as i8,
            rejected: c.rejected,
            fstats: c.fstats,
            cid: c.cid,
            media: c.media as u8,
            cause: c.cause,
            param: c.param.clone(),
        }
    }
}

/// Version of the layout of [`CdrRow::encode`].
const VERSION: u64 = 2;

impl Cdr {
    /// As [`CdrRow::encode`], of the row that this makes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let agent = self.agent.as_ref().map(|a| &*a.agentid);
        let texts = [&*self.sip_call_id, &*self.caller, &*self.flow.flowid];
        start(out, self.key, self.call, texts, [agent, self.param.as_deref()]);
        let times = [self.received_unix_us, self.wait_us, self.pickup_us, self.talk_us, u64::from(self.talk_s)];
        let rest = (self.rejected, self.fstats, self.cid, self.media as u8, self.cause);
        finish(out, times, self.call_type as i8, rest);
    }
}

fn start(out: &mut Vec<u8>, key: u128, call: CallId, texts: [&str; 3], optional: [Option<&str>; 2]) {
    let mut w = Writer(out);
    w.uint(VERSION);
    w.u128(key);
    for n in [u64::from(call.shard), u64::from(call.slot), u64::from(call.generation)] {
        w.uint(n);
    }
    texts.iter().for_each(|text| w.bytes(text.as_bytes()));
    for text in optional {
        w.option(text, |w, text| w.bytes(text.as_bytes()));
    }
}

fn finish(
    out: &mut Vec<u8>,
    times: [u64; 5],
    call_type: i8,
    (rejected, fstats, cid, media, cause): (u32, u8, u64, u8, u16),
) {
    let mut w = Writer(out);
    times.iter().for_each(|n| w.uint(*n));
    w.int(i64::from(call_type));
    for n in [u64::from(rejected), u64::from(fstats), cid, u64::from(media), u64::from(cause)] {
        w.uint(n);
    }
}

impl CdrRow {
    /// Appends the record as bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let texts = [&*self.sip_call_id, &*self.caller, &*self.flow_id];
        start(out, self.key, self.call, texts, [self.agent_id.as_deref(), self.param.as_deref()]);
        let times = [self.received_unix_us, self.wait_us, self.pickup_us, self.talk_us, u64::from(self.talk_s)];
        finish(out, times, self.call_type, (self.rejected, self.fstats, self.cid, self.media, self.cause));
    }

    /// Reads what [`CdrRow::encode`] wrote.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn decode(record: &[u8]) -> Result<CdrRow, Corrupt> {
        let mut r = Reader(record);
        match r.uint()? {
            VERSION => {}
            other => return Err(Corrupt::Version(other)),
        }
        let key = r.u128()?;
        let call = CallId { shard: r.small("shard")?, slot: r.small("slot")?, generation: r.small("generation")? };
        let (sip_call_id, caller, flow_id) = (r.text()?.into(), r.text()?.into(), r.text()?.into());
        let (agent_id, param) = (r.option(Reader::text)?.map(Box::from), r.option(Reader::text)?.map(Box::from));
        let row = CdrRow {
            key,
            call,
            sip_call_id,
            caller,
            flow_id,
            agent_id,
            param,
            received_unix_us: r.uint()?,
            wait_us: r.uint()?,
            pickup_us: r.uint()?,
            talk_us: r.uint()?,
            talk_s: r.small("talk")?,
            call_type: i8::try_from(r.int()?).map_err(|_| Corrupt::Nonsense("call type"))?,
            rejected: r.small("rejections")?,
            fstats: r.small("fstats")?,
            cid: r.uint()?,
            media: r.small("media")?,
            cause: r.small("cause")?,
        };
        r.end().map(|()| row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(call_type: i8) -> CdrRow {
        CdrRow {
            key: 7 << 100,
            call: CallId { shard: 1, slot: 2, generation: 3 },
            sip_call_id: "a@h".into(),
            caller: "Żółw".into(),
            received_unix_us: 1_795_000_000_500_000,
            wait_us: 1,
            pickup_us: 0,
            talk_us: u64::MAX,
            talk_s: 10,
            flow_id: "sales".into(),
            agent_id: (call_type == 0).then(|| "ann".into()),
            call_type,
            rejected: 1,
            fstats: 7,
            cid: 42,
            media: 2,
            cause: 486,
            param: Some("".into()),
        }
    }

    #[test]
    fn a_record_comes_back_from_its_bytes() {
        for call_type in [-2, -1, 0, 1] {
            let mut bytes = Vec::new();
            row(call_type).encode(&mut bytes);
            assert_eq!(CdrRow::decode(&bytes), Ok(row(call_type)));
        }
    }

    #[test]
    fn no_cut_or_lengthened_record_is_taken() {
        let mut bytes = Vec::new();
        row(0).encode(&mut bytes);
        assert!((0..bytes.len()).all(|len| CdrRow::decode(&bytes[..len]).is_err()));
        bytes.push(0);
        assert_eq!(CdrRow::decode(&bytes), Err(Corrupt::Long(1)));
        bytes[0] = 9;
        assert_eq!(CdrRow::decode(&bytes), Err(Corrupt::Version(9)));
    }
}
