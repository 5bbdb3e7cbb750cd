//! The disk of the CDR spool: others fill it at times, the process ends in the midst of a write, or the power goes, which leaves
//! any of its sectors, and takes what nobody had it hold.

use crate::plan::SECOND;
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use strowger_cdr::spool::Disk;

/// What a disk writes as a whole or not at all, bytes.
const SECTOR: usize = 512;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Killed,
    /// The power of its machine goes.
    Power,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    files: BTreeMap<String, Vec<u8>>,
    /// What was replaced or removed without having the disk hold that, with what was there before.
    unsynced: BTreeMap<String, Option<Vec<u8>>>,
    full: bool,
    /// The longest that a write waits, microseconds.
    slow: u64,
    /// The process ends in the next write; it has ended.
    ending: Option<Ending>,
    ended: bool,
    /// A process has begun, and made no file yet: cutting does not fail now, for a start that fails is a start less.
    starting: bool,
    /// Where something may be of a write that was never told to have succeeded, and may lack parts: file, from, to.
    unsure: Vec<(String, usize, usize)>,
}

/// See the module. Copies are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct SpoolDisk(Arc<Mutex<State>>);

impl SpoolDisk {
    pub(crate) fn new(mut rng: Rng) -> SpoolDisk {
        let slow = if rng.chance(300) { 5 * SECOND } else { 0 };
        SpoolDisk(Arc::new(Mutex::new(State {
            rng,
            files: BTreeMap::new(),
            unsynced: BTreeMap::new(),
            full: false,
            slow,
            ending: None,
            ended: false,
            starting: true,
            unsure: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has no room for more.
    pub(crate) fn fill(&self, full: bool) {
        self.state().full = full;
    }

    /// What a write waits for others, microseconds.
    pub(crate) fn delay(&self) -> u64 {
        let mut state = self.state();
        let most = state.slow;
        state.rng.below(most)
    }

    /// The process ends in the midst of the next write.
    pub(crate) fn end_in_write(&self, ending: Ending) {
        self.state().ending = Some(ending);
    }

    /// Whether this place of a segment is all of a write that the power or the disk's fill cut short, and nothing of another.
    pub(crate) fn is_unsure(&self, segment: u64, offset: u64, len: usize) -> bool {
        let (from, to) = (offset as usize, offset as usize + len);
        let is_it = |name: &str| name.strip_suffix(".spool").and_then(|n| n.parse().ok()) == Some(segment);
        self.state().unsure.iter().any(|(name, begin, end)| is_it(name) && *begin <= from && from < to && to <= *end)
    }

    /// One in so many cases.
    pub(crate) fn draws(&self, per_mille: u32) -> bool {
        self.state().rng.chance(per_mille)
    }

    /// Another process begins after such an end of the one before.
    pub(crate) fn begin(&self, after: Ending) {
        let mut state = self.state();
        (state.ending, state.ended, state.starting) = (None, false, true);
        for (name, before) in std::mem::take(&mut state.unsynced) {
            if after == Ending::Killed {
                continue;
            }
            match state.rng.below(3) {
                0 => {}
                // Its name is there, and its bytes are not.
                1 if state.files.contains_key(&name) => drop(state.files.insert(name, Vec::new())),
                _ => match before {
                    Some(bytes) => drop(state.files.insert(name, bytes)),
                    None => drop(state.files.remove(&name)),
                },
            }
        }
    }
}

impl State {
    fn is_on(&self) -> io::Result<()> {
        if self.ended { Err(io::Error::other("the process has ended")) } else { Ok(()) }
    }

    fn has_room(&self) -> io::Result<()> {
        if self.full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Vec<u8>> {
        self.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What such writes left from there on is gone, or written over.
    fn settle(&mut self, name: &str, from: usize) {
        for (file, _, end) in &mut self.unsure {
            if file == name {
                *end = from.min(*end);
            }
        }
        self.unsure.retain(|(_, begin, end)| begin < end);
    }

    /// Some of the bytes come to be in the file: a part from their beginning on, or any sectors of it; where that ends.
    fn tear(&mut self, name: &str, at: usize, bytes: &[u8], sectors: bool) -> io::Result<usize> {
        let kept = self.rng.below(bytes.len() as u64 + 1) as usize;
        let mut from = 0;
        while from < kept {
            let to = kept.min(from + SECTOR - (at + from) % SECTOR);
            let there = !sectors || self.rng.chance(500);
            let file = self.file(name)?;
            if file.len() < at + to {
                file.resize(at + to, 0);
            }
            if there {
                file[at + from..at + to].copy_from_slice(&bytes[from..to]);
            }
            from = to;
        }
        Ok(at + kept)
    }
}

impl Disk for SpoolDisk {
    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.state();
        state.is_on()?;
        Ok(state.files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }

    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        state.is_on()?;
        let file = state.file(name)?;
        let rest = file.get(at as usize..).unwrap_or_default();
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn create(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.is_on()?;
        state.has_room()?;
        state.starting = false;
        state.files.insert(name.to_owned(), Vec::new());
        state.unsynced.remove(name);
        state.settle(name, 0);
        Ok(())
    }

    fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.is_on()?;
        let at = at as usize;
        if let Some(ending) = state.ending.take() {
            state.ended = true;
            let power = ending == Ending::Power;
            let end = state.tear(name, at, bytes, power)?;
            if power {
                state.unsure.push((name.to_owned(), at, end));
            }
            return Err(io::Error::other("the process ends"));
        }
        if state.full {
            let end = state.tear(name, at, bytes, false)?;
            state.unsure.push((name.to_owned(), at, end));
            return state.has_room();
        }
        let file = state.file(name)?;
        if file.len() < at + bytes.len() {
            file.resize(at + bytes.len(), 0);
        }
        file[at..at + bytes.len()].copy_from_slice(bytes);
        state.settle(name, at);
        Ok(())
    }

    fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.is_on()?;
        if state.full && !state.starting && state.rng.chance(200) {
            return Err(io::Error::other("a fault of the disk"));
        }
        state.file(name)?.truncate(len as usize);
        state.settle(name, len as usize);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.is_on()?;
        let before = state.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.unsynced.entry(name.to_owned()).or_insert(Some(before));
        Ok(())
    }

    fn replace(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        let mut state = self.state();
        state.is_on()?;
        state.has_room()?;
        let before = state.files.insert(name.to_owned(), bytes.to_vec());
        if sync {
            state.unsynced.remove(name);
        } else {
            state.unsynced.entry(name.to_owned()).or_insert(before);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger_cdr::spool::{Opened, Spool};
    use strowger_engine::{CallId, CdrRow};

    fn row(n: u64) -> CdrRow {
        CdrRow {
            key: u128::from(n),
            call: CallId { shard: 0, slot: 0, generation: 1 },
            sip_call_id: format!("call{n}@sim").into(),
            caller: "x".repeat(n as usize * 37 % 500).into(),
            received_unix_us: n,
            wait_us: 0,
            pickup_us: 0,
            talk_us: 0,
            talk_s: 0,
            flow_id: "f0".into(),
            agent_id: None,
            call_type: 0,
            rejected: 0,
            fstats: 0,
            cid: n,
            media: 0,
            cause: 0,
            param: None,
        }
    }

    fn open(disk: &SpoolDisk) -> Opened {
        Spool::open(Box::new(disk.clone()), 1 << 20).unwrap()
    }

    #[test]
    fn a_loss_of_power_amid_an_append_costs_none_of_those_before_and_what_it_tears_is_unsure() {
        let (mut in_midst, mut cut) = (0, 0);
        for seed in 0..200 {
            let disk = SpoolDisk::new(Rng::new(seed));
            let told: Vec<CdrRow> = (0..seed % 5).map(row).collect();
            let torn: Vec<CdrRow> = (50..60).map(row).collect();
            let mut spool = open(&disk).spool;
            spool.append(told.iter()).unwrap();
            disk.end_in_write(Ending::Power);
            spool.append(torn.iter()).unwrap_err();
            drop(spool);
            disk.begin(Ending::Power);
            let opened = open(&disk);
            cut += u32::from(opened.torn.is_some());
            let found = opened.spool.load(100).unwrap();
            assert_eq!(found.rows[..told.len()], told, "seed {seed}");
            assert!(found.rows[told.len()..].iter().all(|row| torn.contains(row)), "seed {seed}");
            for damage in &found.damaged {
                let (from, len) = (damage.offset, damage.bytes.len());
                assert!(disk.is_unsure(damage.segment, from, len), "seed {seed}: {damage:?}");
                in_midst += 1;
            }
        }
        assert!(in_midst > 20 && cut > 20, "{in_midst} in the midst, {cut} cut");
    }

    #[test]
    fn of_a_file_only_what_a_write_has_torn_is_unsure_until_it_is_cut() {
        let disk = SpoolDisk::new(Rng::new(3));
        let name = format!("{:020}.spool", 7);
        disk.create(&name).unwrap();
        disk.write(&name, 0, &[1; 1000]).unwrap();
        assert!(!disk.is_unsure(7, 0, 1000));
        disk.fill(true);
        disk.write(&name, 1000, &[2; 4000]).unwrap_err();
        let len = disk.list().unwrap()[0].1 as usize;
        assert!(len > 1100, "{len}");
        assert!(disk.is_unsure(7, 1000, len - 1000) && disk.is_unsure(7, len as u64 - 1, 1));
        assert!(!disk.is_unsure(7, 999, 2) && !disk.is_unsure(7, len as u64 - 1, 2) && !disk.is_unsure(8, 1000, 10));
        disk.fill(false);
        disk.cut(&name, 1100).unwrap();
        assert!(disk.is_unsure(7, 1000, 100) && !disk.is_unsure(7, 1000, 101));
        disk.write(&name, 1050, &[3; 100]).unwrap();
        assert!(disk.is_unsure(7, 1000, 50) && !disk.is_unsure(7, 1000, 51));
        disk.create(&name).unwrap();
        assert!(!disk.is_unsure(7, 1000, 1));
    }
}
