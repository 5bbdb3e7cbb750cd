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
    /// Something could not be cut off.
    uncut: bool,
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
            uncut: false,
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

    /// What an append that failed left may still be there.
    pub(crate) fn is_littered(&self) -> bool {
        self.state().uncut
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

    /// Some of the bytes come to be in the file: a part from their beginning on, or any sectors.
    fn tear(&mut self, name: &str, at: usize, bytes: &[u8], sectors: bool) -> io::Result<()> {
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
        Ok(())
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
        Ok(())
    }

    fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.is_on()?;
        let at = at as usize;
        if let Some(ending) = state.ending.take() {
            state.ended = true;
            state.tear(name, at, bytes, ending == Ending::Power)?;
            return Err(io::Error::other("the process ends"));
        }
        if state.full {
            state.tear(name, at, bytes, false)?;
            return state.has_room();
        }
        let file = state.file(name)?;
        if file.len() < at + bytes.len() {
            file.resize(at + bytes.len(), 0);
        }
        file[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.is_on()?;
        if state.full && !state.starting && state.rng.chance(200) {
            state.uncut = true;
            return Err(io::Error::other("a fault of the disk"));
        }
        state.file(name)?.truncate(len as usize);
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
