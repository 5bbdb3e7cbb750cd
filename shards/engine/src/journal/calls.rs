//! The records of a call.

use super::VERSION;
use super::wire::{Corrupt, Reader, Writer};
use crate::arena::Key;
use crate::call::{Attempt, Call, End, Link, Message, Mode, Preagent};
use crate::control::CallState;
use crate::engine::Engine;
use strowger_dispatch::Media;
use strowger_sip::time::{Mono, Now};
use strowger_sip::wheel::TimerId;

/// A call as its record has it. Times are Unix time, agents and flows ids.
#[derive(Debug)]
pub(super) struct CallRecord<'a> {
    pub bucket: u16,
    pub state: CallState,
    pub medium: Media,
    pub flow: &'a str,
    pub received: u64,
    pub ticket: u64,
    pub caller: Key,
    pub media: Option<Key>,
    pub message: Message,
    pub fading: Option<Key>,
    pub media_failures: u8,
    pub stranded: Option<u64>,
    pub attempt: Option<AttemptRecord<'a>>,
    pub waits: bool,
    pub queued: Option<u64>,
    pub link: Link,
    pub rejected: u32,
    pub refused: Vec<&'a str>,
    pub errors: u8,
    pub held_once: bool,
    pub rang: bool,
    pub caller_user: &'a str,
    pub caller_display: &'a str,
    pub from: &'a [u8],
    pub max_forwards: u32,
    pub passed: &'a [u8],
    pub param: Option<&'a str>,
    /// Music retry or 182, progress, glare, limit of the queue.
    pub timers: [Option<u64>; 4],
}

#[derive(Debug)]
pub(super) struct AttemptRecord<'a> {
    pub leg: Key,
    pub agent: &'a str,
    pub mode: Mode,
    pub pre: Preagent,
    pub other_mode: bool,
    pub redirects: u8,
    pub offered: u64,
    pub answered: Option<u64>,
    pub bridged: bool,
    pub corrected: bool,
}

const STATES: [CallState; 7] = [
    CallState::Welcome,
    CallState::Dissuading1,
    CallState::Dissuading2,
    CallState::Queued,
    CallState::Preagent,
    CallState::ToAgent,
    CallState::Ended,
];
const MESSAGES: [Message; 3] = [Message::Welcome, Message::Dissuading, Message::Queue];
const MODES: [Mode; 2] = [Mode::Caller, Mode::Delayed];
pub(super) const MEDIA: [Media; 2] = [Media::Audio, Media::Chat];

/// One of `all`, by its place there.
pub(super) fn pick<T: Copy>(r: &mut Reader<'_>, all: &[T], what: &'static str) -> Result<T, Corrupt> {
    all.get(r.small::<usize>(what)?).copied().ok_or(Corrupt::Nonsense(what))
}

pub(super) fn version(r: &mut Reader<'_>) -> Result<(), Corrupt> {
    match r.uint()? {
        VERSION => Ok(()),
        other => Err(Corrupt::Version(other)),
    }
}

pub(super) fn read_key(r: &mut Reader<'_>) -> Result<Key, Corrupt> {
    r.uint().map(Key::from_u64)
}

pub(super) fn write_key(w: &mut Writer<'_>, key: Key) {
    w.uint(key.to_u64());
}

fn write_end(w: &mut Writer<'_>, end: End) {
    let leg = match end {
        End::Leg(key) => Some(key),
        End::Silence => None,
    };
    w.option(leg, write_key);
}

fn read_end(r: &mut Reader<'_>) -> Result<End, Corrupt> {
    Ok(r.option(read_key)?.map_or(End::Silence, End::Leg))
}

fn write_link(w: &mut Writer<'_>, link: Link) {
    match link {
        Link::Fresh => w.uint(0),
        Link::Acking(end) => {
            w.uint(1);
            write_end(w, end);
        }
        Link::Offering { to, before } => {
            w.uint(2);
            write_end(w, to);
            w.option(before, write_end);
        }
        Link::Linked(end) => {
            w.uint(3);
            write_end(w, end);
        }
        Link::Loose => w.uint(4),
    }
}

fn read_link(r: &mut Reader<'_>) -> Result<Link, Corrupt> {
    Ok(match r.uint()? {
        0 => Link::Fresh,
        1 => Link::Acking(read_end(r)?),
        2 => Link::Offering { to: read_end(r)?, before: r.option(read_end)? },
        3 => Link::Linked(read_end(r)?),
        4 => Link::Loose,
        _ => return Err(Corrupt::Nonsense("link")),
    })
}

fn write_attempt(w: &mut Writer<'_>, attempt: &Attempt) {
    write_key(w, attempt.leg);
    w.bytes(attempt.agent.agentid.as_bytes());
    w.uint(attempt.mode as u64);
    match attempt.pre {
        Preagent::Off => w.uint(0),
        Preagent::Ringing => w.uint(1),
        Preagent::Hearing(key) => {
            w.uint(2);
            write_key(w, key);
        }
        Preagent::Moving => w.uint(3),
        Preagent::Done => w.uint(4),
    }
    w.flag(attempt.other_mode);
    w.uint(u64::from(attempt.redirects));
    w.uint(attempt.offered.unix_us);
    w.option(attempt.answered, |w, at| w.uint(at.unix_us));
    w.flag(attempt.bridged);
    w.flag(attempt.corrected);
}

fn read_attempt<'a>(r: &mut Reader<'a>) -> Result<AttemptRecord<'a>, Corrupt> {
    Ok(AttemptRecord {
        leg: read_key(r)?,
        agent: r.text()?,
        mode: pick(r, &MODES, "offer mode")?,
        pre: match r.uint()? {
            0 => Preagent::Off,
            1 => Preagent::Ringing,
            2 => Preagent::Hearing(read_key(r)?),
            3 => Preagent::Moving,
            4 => Preagent::Done,
            _ => return Err(Corrupt::Nonsense("preagent")),
        },
        other_mode: r.flag()?,
        redirects: r.small("redirects")?,
        offered: r.uint()?,
        answered: r.option(Reader::uint)?,
        bridged: r.flag()?,
        corrected: r.flag()?,
    })
}

impl<'a> CallRecord<'a> {
    pub(super) fn decode(changing: &'a [u8], fixed: &'a [u8]) -> Result<CallRecord<'a>, Corrupt> {
        let (r, f) = (&mut Reader(changing), &mut Reader(fixed));
        version(r)?;
        version(f)?;
        let call = CallRecord {
            bucket: f.small("bucket")?,
            medium: pick(f, &MEDIA, "medium")?,
            flow: f.text()?,
            received: f.uint()?,
            ticket: f.uint()?,
            caller: read_key(f)?,
            caller_user: f.text()?,
            caller_display: f.text()?,
            from: f.bytes()?,
            max_forwards: f.small("forwards")?,
            passed: f.bytes()?,
            param: f.option(Reader::text)?,
            state: pick(r, &STATES, "state")?,
            media: r.option(read_key)?,
            message: pick(r, &MESSAGES, "message")?,
            fading: r.option(read_key)?,
            media_failures: r.small("failures")?,
            stranded: r.option(Reader::uint)?,
            attempt: r.option(read_attempt)?,
            waits: r.flag()?,
            queued: r.option(Reader::uint)?,
            link: read_link(r)?,
            rejected: r.small("rejections")?,
            refused: (0..r.small::<u16>("refusals")?).map(|_| r.text()).collect::<Result<_, _>>()?,
            errors: r.small("errors")?,
            held_once: r.flag()?,
            rang: r.flag()?,
            timers: {
                let mut timers = [None; 4];
                for timer in &mut timers {
                    *timer = r.option(Reader::uint)?;
                }
                timers
            },
        };
        Reader(r.0).end().and(Reader(f.0).end()).map(|()| call)
    }
}

/// Appends the record of what stays of a call.
pub(super) fn write_caller(call: &Call, out: &mut Vec<u8>) {
    let w = &mut Writer(out);
    w.uint(VERSION);
    w.uint(u64::from(call.bucket));
    w.uint(call.medium as u64);
    w.bytes(call.flow.flowid.as_bytes());
    w.uint(call.received.unix_us);
    w.uint(call.ticket);
    write_key(w, call.caller);
    w.bytes(call.words.user().as_bytes());
    w.bytes(call.words.display().as_bytes());
    w.bytes(call.words.from());
    w.uint(u64::from(call.max_forwards));
    w.bytes(call.words.passed());
    w.option(call.words.param(), |w, p| w.bytes(p.as_bytes()));
}

impl Engine {
    /// When a timer fires, as Unix time.
    pub(super) fn write_timer(&self, w: &mut Writer<'_>, timer: Option<TimerId>, now: Now) {
        let due: Option<Mono> = timer.and_then(|id| self.ep.timer_due(id));
        w.option(due, |w, due| w.uint(now.unix_of(due)));
    }

    /// Appends the record of what changes of a call.
    pub(super) fn write_call(&self, call: &Call, now: Now, out: &mut Vec<u8>) {
        let w = &mut Writer(out);
        w.uint(VERSION);
        w.uint(call.state as u64 - 1);
        w.option(call.media, write_key);
        w.uint(call.message as u64);
        w.option(call.fading, write_key);
        w.uint(u64::from(call.media_failures));
        w.option(call.stranded, |w, at| w.uint(now.unix_of(at)));
        w.option(call.attempt.as_deref(), write_attempt);
        w.flag(call.wait.is_some());
        w.option(call.queued, |w, at| w.uint(at.unix_us));
        write_link(w, call.link);
        w.uint(u64::from(call.rejected));
        let refused = || call.refused.iter().filter_map(|agent| self.prov.agent(*agent));
        w.uint(refused().count() as u64);
        refused().for_each(|agent| w.bytes(agent.agentid.as_bytes()));
        w.uint(u64::from(call.errors));
        w.flag(call.held_once);
        w.flag(call.rang);
        for timer in [call.media_timer, call.progress_timer, call.glare_timer, call.onhold_timer] {
            self.write_timer(w, timer, now);
        }
    }
}
