//! Records as others read them who keep a table of ongoing calls: which call a record belongs to, what the table shows of a
//! call, and all records of a call in one piece, from which it can be restored.

use super::calls::{CallRecord, read_key, version};
use super::wire::{Corrupt, Reader, Writer};
use super::{Entity, Kind, Records};
use crate::control::CallState;
use std::ops::Deref;
use strowger_dispatch::Media;
use strowger_sip::endpoint::Kept;

/// Of [`bundle`].
const VERSION: u64 = 2;

/// What a record is part of. Calls and legs by the ids of their entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Call,
    /// What stays of the call with that id.
    Caller,
    /// A leg; `None`: its call is over.
    LegOf(Option<u64>),
    /// What seldom changes of the leg with that id.
    Dialog,
    /// A request under way on that leg, or its bytes. It may be no leg's: then there is none of that id.
    RequestOn(u64),
    /// None of a call.
    Other,
}

/// Says what a record is part of; reads no more of it than that takes.
///
/// # Errors
/// [`Corrupt`].
pub fn part(kind: Kind, record: &[u8]) -> Result<Part, Corrupt> {
    Ok(match kind {
        Kind::Call => Part::Call,
        Kind::Caller => Part::Caller,
        Kind::Dialog => Part::Dialog,
        Kind::Leg => {
            let mut r = Reader(record);
            version(&mut r)?;
            Part::LegOf(r.option(read_key)?.map(|key| key.to_u64()))
        }
        Kind::Client | Kind::Server | Kind::Request | Kind::Answer => Part::RequestOn(Kept::user_of(record)?),
        Kind::Shard | Kind::Agent | Kind::FlowCounts | Kind::AgentCounts | Kind::Cdr => Part::Other,
    })
}

/// What a table of ongoing calls shows of a call. Times are Unix time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ongoing<'a> {
    pub state: CallState,
    pub media: Media,
    pub flow: &'a str,
    /// Who is called or talks.
    pub agent: Option<&'a str>,
    pub caller_user: &'a str,
    pub caller_display: &'a str,
    pub param: Option<&'a str>,
    pub rejected: u32,
    pub received: u64,
    /// When it entered the queue, last.
    pub queued: Option<u64>,
    /// When the agent was called, and answered.
    pub offered: Option<u64>,
    pub answered: Option<u64>,
}

impl<'a> Ongoing<'a> {
    /// Reads the two records of a call: of what changes, and of what stays.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn decode(changing: &'a [u8], fixed: &'a [u8]) -> Result<Ongoing<'a>, Corrupt> {
        let call = CallRecord::decode(changing, fixed)?;
        let attempt = call.attempt.as_ref();
        Ok(Ongoing {
            state: call.state,
            media: call.medium,
            flow: call.flow,
            agent: attempt.map(|a| a.agent),
            caller_user: call.caller_user,
            caller_display: call.caller_display,
            param: call.param,
            rejected: call.rejected,
            received: call.received,
            queued: call.queued,
            offered: attempt.map(|a| a.offered),
            answered: attempt.and_then(|a| a.answered),
        })
    }

    /// When its present state began, as far as a table tells: the talk, the ringing, the wait, the call.
    #[must_use]
    pub fn since(&self) -> u64 {
        let waits = self.queued.filter(|_| self.state == CallState::Queued);
        self.answered.or(self.offered).or(waits).unwrap_or(self.received)
    }

    /// How long it rang at the agent who answered, microseconds.
    #[must_use]
    pub fn rang(&self) -> u64 {
        self.answered.zip(self.offered).map_or(0, |(answered, offered)| answered.saturating_sub(offered))
    }
}

/// Packs records.
#[must_use]
pub fn bundle<R: Deref<Target = [u8]>>(records: impl IntoIterator<Item = (Entity, R)>) -> Vec<u8> {
    let mut out = vec![];
    let mut w = Writer(&mut out);
    w.uint(VERSION);
    for (entity, record) in records {
        w.uint(entity.kind as u64);
        w.uint(entity.id);
        w.bytes(&record);
    }
    out
}

/// Unpacks what [`bundle`] has packed.
///
/// # Errors
/// [`Corrupt`].
pub fn unbundle(bundle: &[u8]) -> Result<Records, Corrupt> {
    let mut r = Reader(bundle);
    match r.uint()? {
        VERSION => {}
        other => return Err(Corrupt::Version(other)),
    }
    let mut records = vec![];
    while !r.0.is_empty() {
        let kind = Kind::from_u8(r.small("kind")?).ok_or(Corrupt::Nonsense("kind"))?;
        records.push((Entity { kind, id: r.uint()? }, r.bytes()?.into()));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again_and_nothing_else_does() {
        let records = [
            (Entity { kind: Kind::Call, id: 7 << 32 | 3 }, &b"a call"[..]),
            (Entity { kind: Kind::Leg, id: u64::MAX }, &[0; 300][..]),
            (Entity { kind: Kind::Server, id: 0 }, &[][..]),
        ];
        let packed = bundle(records);
        let found = unbundle(&packed).unwrap();
        assert!(found.iter().map(|(e, r)| (*e, &**r)).eq(records));
        assert_eq!(unbundle(&bundle::<&[u8]>([])), Ok(vec![]));
        assert_eq!(unbundle(&[]), Err(Corrupt::Short));
        assert_eq!(unbundle(&[9]), Err(Corrupt::Version(9)));
        assert_eq!(unbundle(&[VERSION as u8, 99, 0, 0]), Err(Corrupt::Nonsense("kind")));
        assert_eq!(unbundle(&packed[..packed.len() - 1]), Err(Corrupt::Short));
    }

    #[test]
    fn what_is_no_calls_is_told_apart_and_what_cannot_be_read_is_said() {
        let records = crate::journal::VERSION as u8;
        assert_eq!(part(Kind::Agent, b""), Ok(Part::Other));
        assert_eq!(part(Kind::Leg, &[records, 0]), Ok(Part::LegOf(None)));
        assert_eq!(part(Kind::Leg, &[records, 1, 5]), Ok(Part::LegOf(Some(5))));
        assert_eq!((part(Kind::Leg, b"").is_err(), part(Kind::Client, &[77]).is_err()), (true, true));
    }
}
