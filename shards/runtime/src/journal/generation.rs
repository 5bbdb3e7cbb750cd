//! Generations: each process writes a journal of its own, and takes over from the newest complete one.
//!
//! Order of a take-over: CDRs that nobody else is known to have go to the spool; the new generation's directory; all shards
//! write down what they restored; everything synced; `COMPLETE` (written beside, synced, renamed); only then calls are
//! served, and the old generation goes. Whatever is cut short leaves one complete generation, the old or the new, with the
//! same state.

use super::follow::Follower;
use super::keeper::{Keeper, Pool};
use super::recover::{Fault, Found, Trouble, read_shard, take_cdrs};
use super::{Journal, JournalError, JournalSpec, VERSION};
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
    let Some(number) = complete else { return Ok(Prior { number: 0, found, lock }) };
    let home = home(dir, number);
    let told = read_mark(&home.join(COMPLETE), &mut found.faults)?;
    let mut shards: Vec<u16> = (0..told).collect();
    for entry in fs::read_dir(&home).map_err(JournalError::file(&home))? {
        let name = entry.map_err(JournalError::file(&home))?.file_name();
        let shard: Option<u16> = name.to_str().and_then(|n| n.strip_prefix("shard-")?.parse().ok());
        shards.extend(shard.filter(|s| *s >= told));
    }
    for shard in shards {
        let dir = home.join(format!("shard-{shard}"));
        if dir.exists() {
            let mut recovered = read_shard(&dir, number, shard, &mut found.faults)?;
            take_cdrs(&mut recovered, &mut found.cdrs);
            found.shards.push(recovered);
        } else {
            found.faults.push(Fault { path: dir, trouble: Trouble::NoShard, lost: None });
        }
    }
    Ok(Prior { number, found, lock })
}

fn mark(shards: u16) -> String {
    let text = format!("strowger-journal {VERSION}\nshards {shards}\n");
    let sum = crc32fast::hash(text.as_bytes());
    format!("{text}sum {sum:08x}\n")
}

/// How many shards wrote the generation; 0: it can't be read.
fn read_mark(path: &Path, faults: &mut Vec<Fault>) -> Result<u16, JournalError> {
    let text = fs::read(path).map_err(JournalError::file(path))?;
    let text = String::from_utf8_lossy(&text);
    let word = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
    let (body, sum) = text.split_at(text.find("sum ").unwrap_or(0));
    if sum.trim_end().strip_prefix("sum ") == Some(&format!("{:08x}", crc32fast::hash(body.as_bytes()))) {
        let found = word("strowger-journal ").and_then(|v| v.parse().ok()).unwrap_or(0);
        if found != VERSION {
            return Err(JournalError::Version { path: path.to_owned(), found });
        }
        if let Some(shards) = word("shards ").and_then(|s| s.parse().ok()) {
            return Ok(shards);
        }
    }
    faults.push(Fault { path: path.to_owned(), trouble: Trouble::Mark, lost: Some(0) });
    Ok(0)
}

/// This process's generation.
#[derive(Debug)]
pub struct Generation {
    spec: JournalSpec,
    number: u64,
    home: PathBuf,
    pools: Vec<Arc<Pool>>,
    #[expect(dead_code, reason = "held until the journal is not kept any more")]
    lock: Lock,
}

impl Generation {
    /// Begins the generation after `prior`, in the same directory; what an earlier attempt left behind goes first.
    ///
    /// # Errors
    /// When its directories cannot be made.
    pub fn begin(spec: JournalSpec, prior: Prior, shards: u16) -> Result<(Generation, Found), JournalError> {
        let Prior { number: before, found, lock } = prior;
        for unfinished in numbers(&spec.dir)?.into_iter().filter(|n| *n > before) {
            let path = home(&spec.dir, unfinished);
            fs::remove_dir_all(&path).map_err(JournalError::file(&path))?;
        }
        let number = before + 1;
        let home = home(&spec.dir, number);
        let mut pools = vec![];
        for shard in 0..shards {
            let dir = home.join(format!("shard-{shard}"));
            fs::create_dir_all(&dir).map_err(JournalError::file(&dir))?;
            pools.push(Arc::new(Pool::new(dir, number, shard, spec.segment)));
        }
        Ok((Generation { spec, number, home, pools, lock }, found))
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
        Keeper::start(&self.pools, &self.spec)
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
        let (new, path) = (self.home.join("COMPLETE.new"), self.home.join(COMPLETE));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(mark(self.pools.len().try_into().unwrap_or(u16::MAX)).as_bytes())?;
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
        for old in numbers(&self.spec.dir)?.into_iter().filter(|n| *n < self.number) {
            let path = home(&self.spec.dir, old);
            // First what makes it count.
            let _ = fs::remove_file(path.join(COMPLETE));
            fs::remove_dir_all(&path).map_err(JournalError::file(&path))?;
        }
        Ok(())
    }
}

fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(JournalError::file(dir))
}
