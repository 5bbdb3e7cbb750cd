//! The CDR spool: as files that were damaged meanwhile, and as bytes.

use crate::disk::{Files, damaged, files, scratch};
use std::path::Path;
use std::sync::OnceLock;
use strowger::control::cdr::spool::frame::{HEAD, Piece, Window};
use strowger::control::cdr::spool::{self, Place};
use strowger_engine::{CallId, CdrRow};

fn row(n: u64) -> CdrRow {
    CdrRow {
        key: u128::from(n) << 64 | 7,
        call: CallId { shard: 0, slot: n as u32, generation: 3 },
        sip_call_id: format!("{n}@h").into(),
        caller: "x".repeat((n % 90) as usize).into(),
        received_unix_us: 1_795_000_000_500_000 + n,
        wait_us: n,
        pickup_us: 0,
        talk_us: u64::MAX,
        talk_s: 10,
        flow_id: "sales".into(),
        agent_id: n.is_multiple_of(2).then(|| "ann".into()),
        call_type: (n % 4) as i8 - 2,
        rejected: 1,
        fstats: 7,
        cid: n,
        media: 1,
        cause: 486,
        param: None,
    }
}

/// A spool on disk: its files, its rows, and how many of them are behind the cursor.
struct Spooled {
    files: Files,
    rows: Vec<CdrRow>,
    done: usize,
}

fn spooled() -> &'static Spooled {
    static MADE: OnceLock<Spooled> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = scratch();
        let (mut spool, _) = spool::open(dir.path(), 1500).expect("a spool");
        let rows: Vec<CdrRow> = (0..60).map(row).collect();
        for batch in rows.chunks(4) {
            spool.append(batch.iter()).expect("written");
        }
        let loaded = spool.load(6).expect("read");
        let done = loaded.rows.len();
        spool.advance(loaded.next).expect("written");
        drop(spool);
        let mut found = vec![];
        files(dir.path(), dir.path(), &mut found);
        found.retain(|(name, _)| name != Path::new("lock"));
        Spooled { files: found, rows, done }
    })
}

/// The spool: rows come back in order, none that was not written; one that is missing is told, and reading ends.
pub fn spool(data: &[u8]) {
    frames(data);
    let made = spooled();
    let dir = scratch();
    let touched = damaged(&made.files, data, dir.path());
    let (mut spool, torn) = spool::open(dir.path(), 1500).expect("damage keeps no spool closed");
    let (mut rows, mut told, mut place) = (vec![], usize::from(torn.is_some()), Place::default());
    for n in 0.. {
        assert!(n < 1000, "reading does not end: at {place:?}");
        let loaded = spool.load(5).expect("readable");
        if loaded.next == place || loaded.rows.is_empty() && loaded.damaged.is_empty() && spool.left() == 0 {
            break;
        }
        place = loaded.next;
        told += loaded.damaged.len();
        rows.extend(loaded.rows);
        spool.advance(loaded.next).expect("written");
    }
    assert_eq!(spool.left(), 0, "all was read");
    let mut known = made.rows.iter();
    assert!(rows.iter().all(|row| known.any(|k| k == row)), "rows as they were written, in their order");
    assert!(touched || rows == made.rows[made.done..], "nothing was damaged");
    // Whoever cut the file of a segment between two records left no trace there.
    let whole = made.rows[made.done..].iter().all(|row| rows.contains(row));
    assert!(whole || told > 0 || shortened(&made.files, data), "rows are lost, and nobody is told");
}

/// Whether a file was cut.
fn shortened(files: &Files, damage: &[u8]) -> bool {
    !files.is_empty() && damage.chunks_exact(6).take(8).any(|op| op[1] >> 1 & 3 == 1)
}

/// Bytes as a segment of the spool: every byte is of a record, or damaged, or torn.
fn frames(data: &[u8]) {
    for last in [true, false] {
        let window = Window { segment: 7, offset: 0, bytes: data, last };
        let mut at = 0;
        loop {
            match window.at(at) {
                Piece::Record { bytes, end } => {
                    assert_eq!(end, at + HEAD + bytes.len());
                    let _ = CdrRow::decode(bytes);
                    at = end;
                }
                Piece::Damaged { end } => {
                    assert!(end > at);
                    at = end;
                }
                Piece::Torn | Piece::End => {
                    assert!(last);
                    break;
                }
                Piece::More => {
                    assert!(!last);
                    break;
                }
            }
            assert!(at <= data.len());
        }
    }
}
