//! What is read back from disk: the journal and its records. Bytes say what was damaged meanwhile.

use crate::shard::{Shard, agent, flow};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use strowger_engine::CdrRow;
use strowger_engine::control::{Audit, Control};
use strowger_engine::journal::{Entity, Kind, Ongoing, Records, Sink, bundle, part, unbundle};
use strowger_engine::registry::Rows;
use strowger_runtime::RuntimeCounts;
use strowger_runtime::journal::{Generation, JournalSpec, prior};
use tempfile::TempDir;

/// Files of a directory, by their paths in it.
pub(crate) type Files = Vec<(PathBuf, Vec<u8>)>;

/// In memory where there is a tmpfs: a run writes some files.
pub(crate) fn scratch() -> TempDir {
    let shm = Path::new("/dev/shm");
    let made = if shm.is_dir() { TempDir::with_prefix_in("strowger-fuzz-", shm) } else { TempDir::new() };
    made.expect("a scratch directory")
}

pub(crate) fn files(dir: &Path, base: &Path, found: &mut Files) {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).expect("readable").map(|e| e.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files(&path, base, found);
        } else {
            let name = path.strip_prefix(base).expect("below it").to_owned();
            found.push((name, fs::read(&path).expect("readable")));
        }
    }
}

/// Copies of files with what the bytes say done to them; whether anything was.
pub(crate) fn damaged(files: &Files, damage: &[u8], dir: &Path) -> bool {
    let mut files = files.clone();
    let mut done = false;
    for op in damage.chunks_exact(6).take(8) {
        let count = files.len();
        let bytes = &mut files[usize::from(op[0]) % count].1;
        // Half of the damage is near the beginning, where headers are.
        let near = usize::from(u16::from_be_bytes([op[2], op[3]]));
        let at = if op[1] & 1 == 0 { near % bytes.len().clamp(1, 600) } else { near % bytes.len().max(1) };
        let before = bytes.clone();
        match op[1] >> 1 & 3 {
            0 if at < bytes.len() => bytes[at] ^= op[4].max(1),
            1 => bytes.truncate(at),
            2 => bytes.iter_mut().skip(at).take(usize::from(op[4]) * 8).for_each(|b| *b = op[5]),
            _ => {
                let from = usize::from(op[4]) * 16 % bytes.len().max(1);
                let piece: Vec<u8> = bytes.iter().skip(from).take(usize::from(op[5])).copied().collect();
                bytes.iter_mut().skip(at).zip(piece).for_each(|(b, new)| *b = new);
            }
        }
        done |= *bytes != before;
    }
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("below it")).expect("a directory");
        fs::write(path, bytes).expect("written");
    }
    done
}

/// A shard in the midst of its work.
fn busy() -> Shard {
    let rows = Rows { flows: vec![flow("sales", "s")], agents: vec![agent(1, "s"), agent(2, "s")] };
    let mut shard = Shard::new(&rows, |_| {});
    // The records of a shard that has been restored once are complete.
    drop(shard.restart());
    for n in 1..=3 {
        let invite = format!(
            "INVITE sip:sales@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.2.{n};branch=z9hG4bK{n}\r\nFrom: <sip:c@h>;tag={n}\r\n\
             To: <sip:sales@h>\r\nCall-ID: {n}@h\r\nCSeq: 1 INVITE\r\nContact: <sip:c@10.0.2.{n}>\r\nContent-Type: application/sdp\r\n\
             Content-Length: 97\r\n\r\nv=0\r\no=p 1 1 IN IP4 10.0.9.1\r\ns=-\r\nc=IN IP4 10.0.9.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\na=x:y\r\n"
        );
        shard.datagram(([10, 0, 2, n], 5060).into(), invite.as_bytes());
        shard.wait_us(20_000);
    }
    shard
}

/// A journal on disk, and what it was made of.
struct Journaled {
    files: Files,
    /// Every value that an entity of a shard has had.
    past: BTreeMap<(u16, Entity), Vec<Vec<u8>>>,
    last: BTreeMap<(u16, Entity), Vec<u8>>,
    cdrs: Vec<Vec<u8>>,
}

fn journaled() -> &'static Journaled {
    static MADE: OnceLock<Journaled> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = scratch();
        let spec =
            JournalSpec { dir: dir.path().to_owned(), memory: None, segment: 64 << 10, sync: Duration::from_millis(2) };
        let (generation, _) = Generation::begin(spec, prior(dir.path()).expect("empty"), 2).expect("a generation");
        let safe: Arc<[AtomicU64]> = [AtomicU64::new(0), AtomicU64::new(0)].into();
        let keeper = generation.keep().expect("threads");
        let (mut past, mut last, mut cdrs) = (BTreeMap::<_, Vec<Vec<u8>>>::new(), BTreeMap::new(), vec![]);
        let real = busy().records();
        for shard in 0..2u16 {
            let mut journal =
                generation.journal(shard, Arc::clone(&safe), Arc::<RuntimeCounts>::default()).expect("a shard's");
            for turn in 0..300u64 {
                for (n, (entity, record)) in (0u64..).zip(&real) {
                    if !(turn + n).is_multiple_of(7) {
                        continue;
                    }
                    let mut record = record.to_vec();
                    record.extend(turn.to_le_bytes().iter().take((turn % 5) as usize));
                    journal.put(*entity, &record);
                    past.entry((shard, *entity)).or_default().push(record.clone());
                    last.insert((shard, *entity), record);
                }
                if turn.is_multiple_of(60) {
                    let entity = Entity { kind: Kind::Cdr, id: turn / 60 };
                    let record = format!("record {shard} {turn}").into_bytes();
                    journal.put(entity, &record);
                    cdrs.push(record);
                }
                journal.commit();
                // What is full is made anew by another thread.
                while journal.is_full() {
                    std::thread::yield_now();
                    journal.commit();
                }
            }
        }
        generation.complete(&keeper).expect("on disk");
        drop(keeper);
        let mut found = vec![];
        files(dir.path(), dir.path(), &mut found);
        found.retain(|(name, _)| name.components().count() > 1);
        Journaled { files: found, past, last, cdrs }
    })
}

/// The journal: what is found was once written, what is missing or old is told.
pub fn journal(data: &[u8]) {
    let made = journaled();
    let dir = scratch();
    let touched = damaged(&made.files, data, dir.path());
    let Ok(prior) = prior(dir.path()) else {
        assert!(touched, "an intact journal is read");
        return;
    };
    let told = !prior.found.faults.is_empty();
    assert!(prior.found.faults.iter().all(|f| !f.to_string().is_empty()));
    let mut found = BTreeMap::new();
    for shard in &prior.found.shards {
        for (entity, record) in &shard.records {
            let past = made.past.get(&(shard.shard, *entity)).expect("an entity that was written");
            assert!(past.iter().any(|p| p[..] == record[..]), "a record that was never written: {entity:?}");
            found.insert((shard.shard, *entity), record.to_vec());
        }
    }
    let cdrs: Vec<&[u8]> = prior.found.cdrs.iter().map(|c| &**c).collect();
    assert!(cdrs.iter().all(|c| made.cdrs.iter().any(|m| m == c)), "a CDR that was never written");
    let whole = found == made.last && cdrs.len() == made.cdrs.len();
    assert!(touched || whole && !told, "nothing was damaged: {:?}", prior.found.faults);
    assert!(whole || told, "something is lost, and nobody is told");
}

/// The records of a busy shard, in one piece.
#[must_use]
pub fn bundled() -> Vec<u8> {
    let records = busy().records();
    bundle(records.iter().map(|(entity, record)| (*entity, &**record)))
}

/// Records themselves: whatever they say, a shard takes over what it can and tells the rest, and ends all calls when told.
pub fn records(data: &[u8]) {
    if let Ok(row) = CdrRow::decode(data) {
        let mut again = vec![];
        row.encode(&mut again);
        assert_eq!(CdrRow::decode(&again), Ok(row));
    }
    let Ok(records) = unbundle(data) else { return };
    let again = bundle(records.iter().map(|(entity, record)| (*entity, &**record)));
    assert_eq!(unbundle(&again).as_ref(), Ok(&records));
    for (entity, record) in &records {
        let rest = entity.other_half();
        let rest = records.iter().find(|(e, _)| Some(*e) == rest).map_or(&[][..], |(_, rest)| rest);
        let _ = (part(entity.kind, record), Ongoing::decode(record, rest));
    }
    restore(records);
}

fn restore(records: Records) {
    // Each entity once, as a journal has them.
    let records: BTreeMap<Entity, Box<[u8]>> = records.into_iter().collect();
    let rows = Rows { flows: vec![flow("sales", "s")], agents: vec![agent(1, "s"), agent(2, "s")] };
    let mut shard = Shard::new(&rows, |_| {});
    shard.wait_us(60_000);
    let restored = shard.restart_from(records.into_iter().collect());
    assert!(restored.unreadable.iter().all(|why| !why.is_empty()));
    shard.audit();
    // A second life from what the first has written down.
    let again = shard.restart();
    assert!(again.unreadable.is_empty(), "what a shard writes it reads: {:?}", again.unreadable);
    shard.control(Control::EndAll);
    shard.wait_us(600_000_000);
    shard.audit();
    assert!(shard.found.iter().all(|report| report.repaired), "{:#?}", shard.found);
    let Audit { calls, .. } = shard.engine.audit();
    assert_eq!(calls, 0, "all calls were told to end");
}
