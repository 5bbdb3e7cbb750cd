//! A disk whose power may go: between two writes, or in the midst of one, which leaves any of its sectors; and that others may
//! fill. And what damage does to files.

use crate::rng::Rng;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use strowger_runtime::journal::Disk;
use strowger_runtime::journal::simulated::Files;

/// What a disk writes as a whole or not at all, bytes.
const SECTOR: usize = 512;

#[derive(Debug)]
struct State {
    rng: Rng,
    files: BTreeMap<String, Vec<u8>>,
    made: u64,
    /// Made since the directory was synced.
    unsynced: Vec<String>,
    /// Writes until the power goes.
    left: Option<u64>,
    /// Files that there is room for; none: as many as one likes.
    room: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct PowerDisk(Mutex<State>);

impl PowerDisk {
    pub(crate) fn new(rng: Rng) -> PowerDisk {
        PowerDisk(Mutex::new(State {
            rng,
            files: BTreeMap::new(),
            made: 0,
            unsynced: Vec::new(),
            left: None,
            room: None,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files that were ever made.
    pub(crate) fn made(&self) -> u64 {
        self.state().made
    }

    /// The power goes with the write after so many.
    pub(crate) fn fail_after(&self, writes: u64) {
        self.state().left = Some(writes);
    }

    /// From now on there is room for so many files more.
    pub(crate) fn limit(&self, room: Option<u64>) {
        self.state().room = room;
    }

    /// What is there when the power is back.
    pub(crate) fn lose_power(&self) -> Files {
        let mut state = self.state();
        for name in std::mem::take(&mut state.unsynced) {
            if state.rng.chance(500) {
                state.files.remove(&name);
            }
        }
        state.files.iter().map(|(name, bytes)| (PathBuf::from(name), bytes.clone())).collect()
    }
}

impl State {
    fn is_on(&self) -> io::Result<()> {
        if self.left == Some(0) { Err(io::Error::other("no power")) } else { Ok(()) }
    }
}

impl Disk for PowerDisk {
    fn create(&self, name: &str, size: usize) -> io::Result<()> {
        let mut state = self.state();
        state.is_on()?;
        if let Some(room) = &mut state.room {
            *room = room.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        }
        state.files.insert(name.to_owned(), vec![0; size]);
        state.unsynced.push(name.to_owned());
        state.made += 1;
        Ok(())
    }

    fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.is_on()?;
        let State { rng, files, left, .. } = &mut *state;
        let torn = match left {
            None => false,
            Some(left) => {
                *left -= 1;
                *left == 0
            }
        };
        let file = files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        let mut at = at as usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
            if !torn || rng.chance(500) {
                file[at..at + piece.len()].copy_from_slice(piece);
            }
            at += piece.len();
            rest = others;
        }
        if torn { Err(io::Error::other("the power went")) } else { Ok(()) }
    }

    fn read(&self, name: &str, at: u64, to: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let file = state.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        to.copy_from_slice(
            file.get(at as usize..).and_then(|f| f.get(..to.len())).ok_or(io::ErrorKind::UnexpectedEof)?,
        );
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.room = state.room.map(|room| room + 1);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.is_on()?;
        state.unsynced.clear();
        Ok(())
    }
}

/// Copies of files to which so many things have happened.
pub(crate) fn damaged(files: &Files, times: u64, rng: &mut Rng) -> Files {
    let mut files = files.clone();
    for _ in 0..times {
        let of = rng.below(files.len() as u64) as usize;
        let Some((_, bytes)) = files.get_mut(of) else { break };
        // Half of it near the beginning, where headers and first records are.
        let near = if rng.chance(500) { bytes.len().min(6000) } else { bytes.len() };
        let at = rng.below(near as u64) as usize;
        match rng.below(8) {
            // One of which nothing is left, and that no other names as its next, is like one that was never made.
            0 => bytes.truncate(at.max(1)),
            1 => bytes.iter_mut().skip(at & !(SECTOR - 1)).take(SECTOR).for_each(|b| *b = 0),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
    }
    files
}
