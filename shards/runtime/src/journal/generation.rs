//! Generations: each process writes a journal of its own, and takes over from the newest complete one.
//!
//! Order of a take-over: CDRs that nobody else is known to have go to the spool; the new generation's directory; all shards
//! write down what they restored; everything synced; `COMPLETE` (written beside, synced, renamed); only then calls are
//! served, and the old generation goes. Whatever is cut short leaves one complete generation, the old or the new, with the
//! same state.

use super::follow::Follower;
use super::ground::Ground;
use super::keeper::{Keeper, Pool};
use super::memory::{self, Memory, NoMemory};
use super::recover::{Fault, Found, Trouble, read_shard, take_cdrs};
use super::{Journal, JournalError, JournalSpec, VERSION};
use crate::clock;
use crate::counts::RuntimeCounts;
use crate::lock::{self, Lock};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

const COMPLETE: &str = "COMPLETE";

/// What there was before this process. Holds the directory's lock.
#[derive(Debug)]
pub struct Prior {
    /// 0: nothing.
    pub number: u64,
    pub found: Found,
    lock: Lock,
    /// Where it was mapped, if that is still there.
    memory: Option<Memory>,
}

/// Numbers of the generations in a directory, the oldest first.
fn numbers(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let mut found = vec![];
    for entry in fs::read_dir(dir).map_err(JournalError::file(dir))? {
        let name = entry.map_err(JournalError::file(dir))?.file_name();
        found.extend(name.to_str().and_then(|n| n.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

fn home(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}"))
}

/// Reads the newest complete generation.
///
/// # Errors
/// When the directory cannot be made or read, is in use, or is of another version.
pub fn prior(dir: &Path) -> Result<Prior, JournalError> {
    let lock = lock::journal_dir(dir)?;
    let complete = numbers(dir)?.into_iter().rev().find(|n| home(dir, *n).join(COMPLETE).exists());
    let mut found = Found::default();
    let Some(number) = complete else { return Ok(Prior { number: 0, found, lock, memory: None }) };
    let home = home(dir, number);
    let mark = Mark::read(&home.join(COMPLETE), &mut found.faults)?;
    let memory = mark.memory.as_deref().and_then(Memory::left).filter(|m| mark.is_in(&self::home(m.dir(), number)));
    let mapped = memory.as_ref().map(|m| self::home(m.dir(), number));
    let mut shards: Vec<u16> = (0..mark.shards).collect();
    for entry in fs::read_dir(&home).map_err(JournalError::file(&home))? {
        let name = entry.map_err(JournalError::file(&home))?.file_name();
        let shard: Option<u16> = name.to_str().and_then(|n| n.strip_prefix("shard-")?.parse().ok());
        shards.extend(shard.filter(|s| *s >= mark.shards));
    }
    for shard in shards {
        let name = format!("shard-{shard}");
        let dir = home.join(&name);
        if dir.exists() {
            let places: Vec<PathBuf> =
                mapped.iter().map(|m| m.join(&name)).filter(|m| m.exists()).chain([dir]).collect();
            let mut recovered = read_shard(&places, number, shard, &mut found.faults)?;
            // A generation is complete when each shard has written what it began with.
            if shard < mark.shards && recovered.records.is_empty() {
                let path = places.last().cloned().unwrap_or_default();
                found.faults.push(Fault { path, trouble: Trouble::NoRecord, lost: None });
            }
            take_cdrs(&mut recovered, &mut found.cdrs);
            found.shards.push(recovered);
        } else {
            found.faults.push(Fault { path: dir, trouble: Trouble::NoShard, lost: None });
        }
    }
    Ok(Prior { number, found, lock, memory })
}

/// What the file says that a complete generation has: in lines, the version, how many shards wrote it, when it was written
/// (Unix nanoseconds, so that no two are alike), where it is in memory, and a checksum of all that.
struct Mark {
    text: Vec<u8>,
    /// 0: it can't be read.
    shards: u16,
    memory: Option<PathBuf>,
}

impl Mark {
    fn text(shards: usize, memory: Option<&Path>) -> String {
        let mut text = format!("strowger-journal {VERSION}\nshards {shards}\nwritten {}\n", clock::unix_ns());
        if let Some(dir) = memory.and_then(Path::to_str).filter(|dir| !dir.contains('\n')) {
            text.push_str(&format!("memory {dir}\n"));
        }
        let sum = crc32fast::hash(text.as_bytes());
        format!("{text}sum {sum:08x}\n")
    }

    fn read(path: &Path, faults: &mut Vec<Fault>) -> Result<Mark, JournalError> {
        let bytes = fs::read(path).map_err(JournalError::file(path))?;
        let text = String::from_utf8_lossy(&bytes);
        let word = |key: &str| text.lines().find_map(|l| l.strip_prefix(key));
        let (body, sum) = text.split_at(text.rfind("sum ").unwrap_or(0));
        if sum.trim_end().strip_prefix("sum ") == Some(&format!("{:08x}", crc32fast::hash(body.as_bytes()))) {
            let found = word("strowger-journal ").and_then(|v| v.parse().ok()).unwrap_or(0);
            if found != VERSION {
                return Err(JournalError::Version { path: path.to_owned(), found });
            }
            if let Some(shards) = word("shards ").and_then(|s| s.parse().ok()) {
                let memory = word("memory ").map(PathBuf::from);
                return Ok(Mark { shards, memory, text: bytes });
            }
        }
        faults.push(Fault { path: path.to_owned(), trouble: Trouble::Mark, lost: Some(0) });
        Ok(Mark { text: bytes, shards: 0, memory: None })
    }

    /// Whether a generation's directory has this very mark.
    fn is_in(&self, home: &Path) -> bool {
        fs::read(home.join(COMPLETE)).is_ok_and(|text| text == self.text)
    }
}

/// This process's generation.
#[derive(Debug)]
pub struct Generation {
    spec: JournalSpec,
    number: u64,
    home: PathBuf,
    pools: Vec<Arc<Pool>>,
    memory: Option<Memory>,
    /// Where the generation before is mapped, if that is elsewhere.
    left: Option<Memory>,
    #[expect(dead_code, reason = "held until the journal is not kept any more")]
    lock: Lock,
}

impl Generation {
    /// Begins the generation after `prior`, in the same directory; what an earlier attempt left behind goes first.
    ///
    /// # Errors
    /// When its directories cannot be made.
    pub fn begin(spec: JournalSpec, prior: Prior, shards: u16) -> Result<(Generation, Found), JournalError> {
        let Prior { number: before, found, lock, memory: left } = prior;
        remove(&spec.dir, |n| n > before)?;
        let number = before + 1;
        let took_over = left.is_some();
        let (memory, left) = map_in_memory(&spec, left);
        if let Some(memory) = &memory {
            remove(memory.dir(), |n| n != before || !took_over || left.is_some())?;
        }
        let home = home(&spec.dir, number);
        let mut pools = vec![];
        for shard in 0..shards {
            let name = format!("shard-{shard}");
            let mapped = memory.as_ref().map(|m| self::home(m.dir(), number).join(&name));
            let dir = home.join(name);
            for dir in mapped.iter().chain([&dir]) {
                fs::create_dir_all(dir).map_err(JournalError::file(dir))?;
            }
            let ground = Ground::Files { dir, memory: mapped };
            pools.push(Arc::new(Pool::new(ground, number, shard, spec.segment)));
        }
        Ok((Generation { spec, number, home, pools, memory, left, lock }, found))
    }

    /// The journal of a shard, to be taken once.
    #[must_use]
    pub fn journal(&self, shard: u16, safe: Arc<[AtomicU64]>, counts: Arc<RuntimeCounts>) -> Option<Journal> {
        self.pools.get(usize::from(shard)).map(|pool| Journal::new(Arc::clone(pool), safe, counts))
    }

    /// Follows the journals, from their beginning: to be called once, before the shards write.
    #[must_use]
    pub fn follow(&self) -> Follower {
        Follower::new(&self.pools)
    }

    /// Starts the threads that keep it.
    ///
    /// # Errors
    /// When the system has no threads left.
    pub fn keep(&self) -> Result<Keeper, JournalError> {
        Keeper::start(&self.pools, &self.spec, self.mapped())
    }

    /// Its directory in memory.
    fn mapped(&self) -> Option<PathBuf> {
        self.memory.as_ref().map(|m| home(m.dir(), self.number))
    }

    /// All shards have committed what they took over, and the CDRs of the generation before are safe: from here on this is
    /// the generation that a restart reads.
    ///
    /// # Errors
    /// When something does not reach the disk; the generation before is the one that counts, then.
    pub fn complete(&self, keeper: &Keeper) -> Result<(), JournalError> {
        keeper.sync_now()?;
        for pool in &self.pools {
            sync_dir(&self.home.join(format!("shard-{}", pool.shard())))?;
        }
        let text = Mark::text(self.pools.len(), self.memory.as_ref().map(Memory::dir));
        if let Some(path) = self.mapped().map(|home| home.join(COMPLETE)) {
            fs::write(&path, &text).map_err(JournalError::file(&path))?;
        }
        let (new, path) = (self.home.join("COMPLETE.new"), self.home.join(COMPLETE));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(JournalError::file(&path))?;
        sync_dir(&self.home)?;
        sync_dir(&self.spec.dir)
    }

    /// Removes the generations before.
    ///
    /// # Errors
    /// When they cannot be removed; they are tried again at the next start.
    pub fn drop_prior(&self) -> Result<(), JournalError> {
        let dirs = [Some(&*self.spec.dir), self.memory.as_ref().map(Memory::dir)];
        dirs.into_iter().flatten().try_for_each(|dir| remove(dir, |n| n < self.number))?;
        match self.left.as_ref().map(Memory::dir) {
            Some(left) => fs::remove_dir_all(left).map_err(JournalError::file(left)),
            None => Ok(()),
        }
    }
}

/// Removes generations.
fn remove(dir: &Path, which: impl Fn(u64) -> bool) -> Result<(), JournalError> {
    for number in numbers(dir)?.into_iter().filter(|n| which(*n)) {
        let path = home(dir, number);
        // First what makes it count.
        let _ = fs::remove_file(path.join(COMPLETE));
        fs::remove_dir_all(&path).map_err(JournalError::file(&path))?;
    }
    Ok(())
}

/// Where this generation is mapped, and where the one before is if that is elsewhere. `None`: on disk.
fn map_in_memory(spec: &JournalSpec, left: Option<Memory>) -> (Option<Memory>, Option<Memory>) {
    let Some(base) = &spec.memory else { return (None, left) };
    memory::sweep(base);
    let made = match memory::home(base, &spec.dir) {
        Ok(dir) if left.as_ref().is_some_and(|m| m.dir() == dir) => return (left, None),
        Ok(dir) => Memory::make(dir, &spec.dir),
        Err(error) => Err(error),
    };
    let told = |error: &NoMemory| {
        tracing::warn!(
            "journal: {error}: segments are mapped on disk, where calls may wait for it; name a tmpfs of this machine in \
             [journal] memory_dir, or leave it empty"
        )
    };
    (made.inspect_err(told).ok(), left)
}

/// Has the disk hold a directory's entries.
pub(super) fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(JournalError::file(dir))
}
