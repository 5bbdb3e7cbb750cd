//! The records of a leg.

use super::VERSION;
use super::calls::{MEDIA, pick, read_key, version, write_key};
use super::wire::{Corrupt, Reader, Writer};
use crate::arena::Key;
use crate::body::Body;
use crate::engine::Engine;
use crate::leg::{Leg, Phase, Plan, Purpose, Role, Session};
use strowger_dispatch::Media;
use strowger_sip::dialog::DialogParts;
use strowger_sip::id::Token;
use strowger_sip::time::Now;

/// A leg as its record has it; transactions by the numbers that they had.
#[derive(Debug)]
pub(super) struct LegRecord<'a> {
    pub call: Option<Key>,
    pub local_tag: Token,
    pub role: Role,
    pub phase: Phase,
    pub dialog: DialogParts<'a>,
    pub inbound: Option<InboundRecord>,
    pub invite: Option<InviteRecord>,
    pub bye: Option<u64>,
    pub owes_ack: Option<(u64, u32)>,
    pub offered: bool,
    pub remote: Option<BodyRecord<'a>>,
    pub proposed: Option<BodyRecord<'a>>,
    pub session_id: u64,
    pub version: u32,
    pub described: u64,
    pub stale: bool,
    pub claim: Option<ClaimRecord<'a>>,
    pub timer: Option<u64>,
    pub session: Session,
    pub session_due: Option<u64>,
    pub relays: Vec<RelayRecord>,
    pub pending: Vec<u64>,
    pub refresh: Option<u64>,
    pub over: bool,
}

#[derive(Debug)]
pub(super) struct InboundRecord {
    pub txn: u64,
    pub cseq: u32,
    pub answered: bool,
    pub ack_to: Option<Key>,
}

#[derive(Debug)]
pub(super) struct InviteRecord {
    pub txn: u64,
    pub cseq: u32,
    pub purpose: PurposeRecord,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum PurposeRecord {
    Plain(Purpose),
    Relay { from: Key, txn: u64, offered: bool },
}

#[derive(Debug)]
pub(super) struct RelayRecord {
    pub out: u64,
    pub from: Key,
    pub txn: u64,
    pub offer: bool,
}

#[derive(Debug)]
pub(super) struct ClaimRecord<'a> {
    pub agent: &'a str,
    pub medium: Media,
    pub flow: &'a str,
    pub plan: Option<Plan>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct BodyRecord<'a> {
    content_type: Option<&'a [u8]>,
    data: &'a [u8],
}

impl BodyRecord<'_> {
    pub(super) fn to_body(self) -> Body {
        Body::again(self.content_type, self.data)
    }
}

const ROLES: [Role; 4] = [Role::Caller, Role::Media, Role::Agent, Role::FlowMessage];
const PHASES: [Phase; 6] =
    [Phase::Trying, Phase::Cancelled, Phase::AwaitAck, Phase::OwesAck, Phase::Confirmed, Phase::Closing];

fn read_dialog<'a>(r: &mut Reader<'a>, f: &mut Reader<'a>) -> Result<DialogParts<'a>, Corrupt> {
    Ok(DialogParts {
        path: f.path()?,
        call_id: f.bytes()?,
        local: f.bytes()?,
        remote: f.bytes()?,
        target: f.bytes()?,
        routes: f.bytes()?,
        local_seq: r.small("cseq")?,
        remote_seq: r.option(|r| r.small("cseq"))?,
        confirmed: r.flag()?,
    })
}

fn write_body(w: &mut Writer<'_>, body: &Body) {
    w.option(body.content_type(), Writer::bytes);
    w.bytes(body.data());
}

fn read_body<'a>(r: &mut Reader<'a>) -> Result<BodyRecord<'a>, Corrupt> {
    Ok(BodyRecord { content_type: r.option(Reader::bytes)?, data: r.bytes()? })
}

fn write_purpose(w: &mut Writer<'_>, purpose: Purpose) {
    match purpose {
        Purpose::Initial => w.uint(0),
        Purpose::Link => w.uint(1),
        Purpose::Bridge { offered } => w.uint(if offered { 3 } else { 2 }),
        Purpose::Corrective => w.uint(4),
        Purpose::Refresh => w.uint(5),
        Purpose::Relay { from, txn, offered } => {
            w.uint(6);
            write_key(w, from);
            w.uint(txn.number());
            w.flag(offered);
        }
    }
}

fn read_purpose(r: &mut Reader<'_>) -> Result<PurposeRecord, Corrupt> {
    Ok(PurposeRecord::Plain(match r.uint()? {
        0 => Purpose::Initial,
        1 => Purpose::Link,
        2 => Purpose::Bridge { offered: false },
        3 => Purpose::Bridge { offered: true },
        4 => Purpose::Corrective,
        5 => Purpose::Refresh,
        6 => return Ok(PurposeRecord::Relay { from: read_key(r)?, txn: r.uint()?, offered: r.flag()? }),
        _ => return Err(Corrupt::Nonsense("purpose")),
    }))
}

fn read_session(r: &mut Reader<'_>) -> Result<(Session, Option<u64>), Corrupt> {
    let session = Session {
        interval_s: r.small("interval")?,
        we_refresh: r.flag()?,
        timer: None,
        min_se_s: r.small("interval")?,
        peer_supports: r.flag()?,
        update: r.flag()?,
        unsent: r.small("refreshes")?,
    };
    Ok((session, r.option(Reader::uint)?))
}

fn read_claim<'a>(r: &mut Reader<'a>) -> Result<ClaimRecord<'a>, Corrupt> {
    Ok(ClaimRecord {
        agent: r.text()?,
        medium: pick(r, &MEDIA, "medium")?,
        flow: r.text()?,
        plan: r.flag()?.then_some(Plan::Free),
    })
}

impl<'a> LegRecord<'a> {
    pub(super) fn decode(changing: &'a [u8], fixed: &'a [u8]) -> Result<LegRecord<'a>, Corrupt> {
        let (r, f) = (&mut Reader(changing), &mut Reader(fixed));
        version(r)?;
        version(f)?;
        let local_tag = Token::new(f.bytes()?).ok_or(Corrupt::Nonsense("tag"))?;
        let (role, session_id) = (pick(f, &ROLES, "role")?, f.uint()?);
        let call = r.option(read_key)?;
        let phase = pick(r, &PHASES, "phase")?;
        let dialog = read_dialog(r, f)?;
        let (remote, proposed) = (f.option(read_body)?, f.option(read_body)?);
        Reader(f.0).end()?;
        let inbound = r.option(|r| {
            Ok(InboundRecord {
                txn: r.uint()?,
                cseq: r.small("cseq")?,
                answered: r.flag()?,
                ack_to: r.option(read_key)?,
            })
        })?;
        let invite =
            r.option(|r| Ok(InviteRecord { txn: r.uint()?, cseq: r.small("cseq")?, purpose: read_purpose(r)? }))?;
        let bye = r.option(Reader::uint)?;
        let owes_ack = r.option(|r| Ok((r.uint()?, r.small("cseq")?)))?;
        let offered = r.flag()?;
        let (version, described, stale) = (r.small("version")?, r.uint()?, r.flag()?);
        let claim = r.option(read_claim)?;
        let timer = r.option(Reader::uint)?;
        let (session, session_due) = read_session(r)?;
        let relays = (0..r.small::<u16>("relays")?)
            .map(|_| Ok(RelayRecord { out: r.uint()?, from: read_key(r)?, txn: r.uint()?, offer: r.flag()? }))
            .collect::<Result<_, Corrupt>>()?;
        let pending = (0..r.small::<u16>("pending")?).map(|_| r.uint()).collect::<Result<_, _>>()?;
        let (refresh, over) = (r.option(Reader::uint)?, r.flag()?);
        let leg = LegRecord {
            call,
            local_tag,
            role,
            phase,
            dialog,
            inbound,
            invite,
            bye,
            owes_ack,
            offered,
            remote,
            proposed,
            session_id,
            version,
            described,
            stale,
            claim,
            timer,
            session,
            session_due,
            relays,
            pending,
            refresh,
            over,
        };
        Reader(r.0).end().map(|()| leg)
    }
}

/// Appends the record of what seldom changes of a leg.
pub(super) fn write_dialog(leg: &Leg, out: &mut Vec<u8>) {
    let w = &mut Writer(out);
    w.uint(VERSION);
    w.bytes(leg.local_tag());
    w.uint(leg.role as u64);
    w.uint(leg.session_id);
    let d = leg.dialog.parts();
    w.path(&d.path);
    for text in [d.call_id, d.local, d.remote, d.target, d.routes] {
        w.bytes(text);
    }
    for body in [leg.remote.as_ref(), leg.proposed.as_ref()] {
        w.option(body, write_body);
    }
}

impl Engine {
    /// Appends the record of what changes of a leg.
    pub(super) fn write_leg(&self, leg: &Leg, now: Now, out: &mut Vec<u8>) {
        let w = &mut Writer(out);
        w.uint(VERSION);
        w.option(leg.call, write_key);
        w.uint(leg.phase as u64);
        let d = leg.dialog.parts();
        w.uint(u64::from(d.local_seq));
        w.option(d.remote_seq, |w, n| w.uint(u64::from(n)));
        w.flag(d.confirmed);
        w.option(leg.inbound, |w, i| {
            w.uint(i.txn.number());
            w.uint(u64::from(i.cseq));
            w.flag(i.answered);
            w.option(i.ack_to, write_key);
        });
        w.option(leg.invite, |w, i| {
            w.uint(i.txn.number());
            w.uint(u64::from(i.cseq));
            write_purpose(w, i.purpose);
        });
        w.option(leg.bye, |w, txn| w.uint(txn.number()));
        w.option(leg.owes_ack, |w, (txn, cseq)| {
            w.uint(txn.number());
            w.uint(u64::from(cseq));
        });
        w.flag(leg.offered);
        w.uint(u64::from(leg.version));
        w.uint(leg.described);
        w.flag(leg.stale);
        w.option(leg.claim.as_deref(), |w, c| {
            w.bytes(c.def.agentid.as_bytes());
            w.uint(c.medium as u64);
            w.bytes(c.flow.flowid.as_bytes());
            w.flag(c.plan.is_some());
        });
        self.write_timer(w, leg.timer, now);
        w.uint(u64::from(leg.session.interval_s));
        w.flag(leg.session.we_refresh);
        w.uint(u64::from(leg.session.min_se_s));
        w.flag(leg.session.peer_supports);
        w.flag(leg.session.update);
        w.uint(u64::from(leg.session.unsent));
        self.write_timer(w, leg.session.timer, now);
        w.uint(leg.relays.len() as u64);
        for relay in leg.relays.iter() {
            w.uint(relay.out.number());
            write_key(w, relay.from);
            w.uint(relay.txn.number());
            w.flag(relay.offer);
        }
        w.uint(leg.pending.len() as u64);
        leg.pending.iter().for_each(|txn| w.uint(txn.number()));
        w.option(leg.refresh, |w, txn| w.uint(txn.number()));
        w.flag(leg.over);
    }
}
