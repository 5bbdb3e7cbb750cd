//! Small pieces of the way of a message: parse, answer, scan; a CDR's bytes; the journal; the timer wheel.

use crate::Meter;
use crate::peers::{CALLER, invite};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use strowger_engine::journal::{Entity, Kind, Sink};
use strowger_engine::{BucketTable, CallId, CdrRow};
use strowger_runtime::journal::{Generation, JournalSpec, prior};
use strowger_runtime::owner::Router;
use strowger_sip::hash::HashKey;
use strowger_sip::msg::{Limits, Message, Reply, write_answer, write_head, write_reply};
use strowger_sip::scan::refuse;
use strowger_sip::time::Mono;
use strowger_sip::wheel::Wheel;

const TIMES: u32 = 16;
const TURNS: u32 = 256;
/// Timers that run beside those that are measured.
const TIMERS: u64 = 100_000;

/// A request of 250 bytes without a body, as phones send it to keep a path open.
#[must_use]
pub fn options() -> Vec<u8> {
    "OPTIONS sip:support@198.51.100.20 SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.7:5060;branch=z9hG4bKnashds8;rport\r\n\
     Max-Forwards: 70\r\nFrom: <sip:trunk@203.0.113.7>;tag=1928301774\r\nTo: <sip:198.51.100.20>\r\n\
     Call-ID: a84b4c76e66710@203.0.113.7\r\nCSeq: 63104 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        .into()
}

/// Parse, route, answer and scan.
///
/// # Panics
/// If a message of this file cannot be parsed.
pub fn messages(m: &mut impl Meter) {
    let limits = Limits::default();
    let invite = invite("support", 1).into_bytes();
    for (name, bytes) in [("invite", invite.as_slice()), ("options", &options())] {
        let parse = |bytes| Message::parse(bytes, &limits);
        m.measure(&format!("parse/{name}"), TIMES, || {
            for _ in 0..TIMES {
                let _ = black_box(&parse(black_box(bytes)));
            }
        });
        m.measure(&format!("parse-and-route/{name}"), TIMES, || {
            for _ in 0..TIMES {
                let Ok(msg) = parse(black_box(bytes)) else { continue };
                let branch = msg.top_via().ok().map(|via| via.branch());
                black_box((branch, msg.from_tag(), msg.to_tag(), msg.call_id().ok(), msg.cseq().ok()));
            }
        });
        let router = Router::new(0, Arc::new(BucketTable::even(2)), HashKey(1, 2));
        m.measure(&format!("owner/{name}"), TIMES, || {
            for _ in 0..TIMES {
                black_box(router.route(black_box(bytes)));
            }
        });
    }
    answers(m, &Message::parse(&invite, &limits).expect("a sound message"), &invite);
}

fn answers(m: &mut impl Meter, msg: &Message<'_>, bytes: &[u8]) {
    let source = CALLER.parse().expect("an address");
    let reply =
        Reply { code: 200, to_tag: b"sw12f-5e1d7c0a9b", contact: b"<sip:198.51.100.20:5060>", ..Reply::default() };
    let mut out = Vec::with_capacity(2048);
    let mut head_bytes = Vec::with_capacity(2048);
    let head = write_head(msg, source, &mut head_bytes);
    m.measure("check-request", TIMES, || {
        for _ in 0..TIMES {
            let _ = black_box(black_box(msg).check_request());
        }
    });
    m.measure("answer", TIMES, || {
        for _ in 0..TIMES {
            out.clear();
            write_answer(black_box(msg), source, &reply, &mut out);
        }
    });
    m.measure("answer-head", TIMES, || {
        for _ in 0..TIMES {
            out.clear();
            black_box(write_head(black_box(msg), source, &mut out));
        }
    });
    m.measure("answer-from-head", TIMES, || {
        for _ in 0..TIMES {
            out.clear();
            write_reply(black_box(&head_bytes), &head, &reply, &mut out);
        }
    });
    m.measure("refuse", TIMES, || {
        for _ in 0..TIMES {
            out.clear();
            black_box(refuse(black_box(bytes), source, &reply, &mut out));
        }
    });
}

/// A record as a handled call leaves it.
#[must_use]
pub fn cdr() -> CdrRow {
    CdrRow {
        key: (1_795_000_000_000_000 << 64) | 4711,
        call: CallId { shard: 1, slot: 2, generation: 3 },
        sip_call_id: "3848276298220188511@203.0.113.7".into(),
        caller: "sip:+4930123456@203.0.113.7".into(),
        received_unix_us: 1_795_000_000_000_000,
        wait_us: 12_345_678,
        pickup_us: 2_345_678,
        talk_us: 185_345_678,
        talk_s: 185,
        flow_id: "support".into(),
        agent_id: Some("agent4711".into()),
        call_type: 0,
        rejected: 0,
        fstats: 7,
        cid: 4711,
        media: 1,
        cause: 0,
        param: None,
    }
}

/// A CDR's bytes, as journal and spool have them.
pub fn cdrs(m: &mut impl Meter) {
    let (row, mut out) = (cdr(), Vec::with_capacity(1024));
    m.measure("encode", TIMES, || {
        for _ in 0..TIMES {
            out.clear();
            black_box(&row).encode(&mut out);
        }
    });
    m.measure("decode", TIMES, || {
        for _ in 0..TIMES {
            let _ = black_box(CdrRow::decode(black_box(&out)));
        }
    });
}

/// Records of two sizes into a mapped segment, and the commit of a turn with two of them.
///
/// # Panics
/// If there is no room for a journal in the folder of temporary files.
pub fn journal(m: &mut impl Meter) {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let spec =
        JournalSpec { dir: dir.path().to_owned(), memory: None, segment: 4 << 20, sync: Duration::from_secs(3600) };
    let before = prior(dir.path()).expect("an empty folder");
    let (generation, _) = Generation::begin(spec, before, 1).expect("a generation");
    let keeper = generation.keep().expect("threads");
    let safe: Arc<[AtomicU64]> = [AtomicU64::new(0)].into();
    let mut journal = generation.journal(0, safe, Arc::default()).expect("a shard");
    for size in [60, 700] {
        let record = vec![7u8; size];
        let turn = |journal: &mut strowger_runtime::journal::Journal| {
            for id in 0..u64::from(TURNS) {
                for kind in [Kind::Call, Kind::Leg] {
                    journal.put(Entity { kind, id: id * 7 % 100 }, black_box(&record));
                }
                journal.commit();
            }
        };
        turn(&mut journal);
        m.measure(&format!("turn-of-2-records/{size}-bytes"), TURNS, || turn(&mut journal));
    }
    drop(keeper);
}

/// Timers start, are stopped and fire among many.
pub fn timers(m: &mut impl Meter) {
    let mut wheel = Wheel::new();
    let mut now = 1_000_000_000;
    // A second to half an hour ahead, spread evenly.
    let due = |now: u64, n: u64| Mono(now + 1_000_000 + n * 7919 * 17_000 % 1_800_000_000);
    m.prepare(|| (0..TIMERS).for_each(|n| _ = wheel.insert(due(now, n), n, 0)));
    for round in 0..8 {
        let mut ids = Vec::with_capacity(TIMES as usize);
        m.measure("start", TIMES, || {
            for n in 0..u64::from(TIMES) {
                ids.push(wheel.insert(due(now, round * 16 + n), n, 0));
            }
        });
        m.measure("next-due", TIMES, || {
            for _ in 0..TIMES {
                black_box(wheel.next_due());
            }
        });
        m.measure("stop", TIMES, || {
            for id in ids {
                wheel.cancel(id);
            }
        });
        // A tenth of a second in steps of a millisecond, as a shard has it.
        let before = wheel.len();
        let (from, until) = (now, now + 100_000);
        let fire = |wheel: &mut Wheel| {
            for at in (from..until).step_by(1000) {
                while let Some(fired) = wheel.pop(Mono(at)) {
                    black_box(fired);
                }
            }
        };
        m.measure("pass-100ms", 1, || fire(&mut wheel));
        now = until;
        for n in wheel.len()..before {
            wheel.insert(due(now, n as u64), 0, 0);
        }
    }
}
