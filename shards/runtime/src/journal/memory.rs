//! The directory in memory (tmpfs) where a journal's segments are mapped.
//!
//! Invariants
//! - Each journal has its own, named after its directory on disk, held by a lock, readable by this user alone. What is not
//!   this user's is not touched.
//! - What is in it counts only when the generation's mark on disk names it and the same mark is in it.
//! - It outlives the process, not the machine; what is in it has a copy on disk.

use super::JournalError;
use crate::error::Holder;
use crate::lock::{self, Lock, Refused};
use crate::sys;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

const PREFIX: &str = "strowger-";
const LOCK: &str = "strowger.lock";
/// Tells which directory on disk it belongs to: number of the device, line feed, path.
const BELONGS: &str = "JOURNAL";
/// Of a file system in memory, this part is left to others.
const LEFT: u64 = 4;

/// Why segments cannot be mapped in memory.
#[derive(Debug, thiserror::Error)]
pub enum NoMemory {
    #[error("{} cannot be used ({error})", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{} is not in memory (no tmpfs)", path.display())]
    NoTmpfs { path: PathBuf },
    #[error("{} belongs to somebody else, or others may write to it", path.display())]
    Foreign { path: PathBuf },
    #[error("{} is in use by {holder}", path.display())]
    InUse { path: PathBuf, holder: Holder },
}

impl NoMemory {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> NoMemory {
        let path = path.to_owned();
        move |error| NoMemory::File { path, error }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Memory {
    dir: PathBuf,
    #[expect(dead_code, reason = "held until the journal is not kept any more")]
    lock: Lock,
}

impl Memory {
    /// Makes the directory, which [`home`] has named, for the journal in `journal`, or takes it as it is.
    ///
    /// # Errors
    /// When it is not to be had for this journal alone.
    pub fn make(dir: PathBuf, journal: &Path) -> Result<Memory, NoMemory> {
        if let Err(error) = DirBuilder::new().mode(0o700).create(&dir)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(NoMemory::File { path: dir, error });
        }
        if !is_ours(&dir) {
            return Err(NoMemory::Foreign { path: dir });
        }
        let lock = hold(&dir)?;
        let device = fs::metadata(journal).map_err(NoMemory::file(journal))?.dev().to_string();
        let journal = journal.canonicalize().map_err(NoMemory::file(journal))?;
        let text = [device.as_bytes(), b"\n", journal.as_os_str().as_bytes()].concat();
        fs::write(dir.join(BELONGS), text).map_err(NoMemory::file(&dir))?;
        Ok(Memory { dir, lock })
    }

    /// What a process that has ended left there, if it is still there and nobody has it.
    #[must_use]
    pub fn left(dir: &Path) -> Option<Memory> {
        let lock = is_ours(dir).then(|| hold(dir))?;
        let told = |why: &NoMemory| tracing::warn!("journal: {why}; its copy on disk is read instead");
        lock.inspect_err(told).ok().map(|lock| Memory { dir: dir.to_owned(), lock })
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Where below `base` the journal in `journal` has its directory.
///
/// # Errors
/// When that is not in memory.
pub fn home(base: &Path, journal: &Path) -> Result<PathBuf, NoMemory> {
    let base = base.canonicalize().map_err(NoMemory::file(base))?;
    if sys::tmpfs_space(&base).map_err(NoMemory::file(&base))?.is_none() {
        return Err(NoMemory::NoTmpfs { path: base });
    }
    let journal = journal.canonicalize().map_err(NoMemory::file(journal))?;
    Ok(base.join(format!("{PREFIX}{:016x}", hash(journal.as_os_str()))))
}

/// FNV-1a: the same in every build, and that is all that is asked of it. Two of one name keep apart by their lock.
fn hash(name: &OsStr) -> u64 {
    name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |sum, b| (sum ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// Whether there are so many bytes more, whatever is left to others: for what is given back soon.
///
/// # Errors
/// As of [`room`].
pub fn space(dir: &Path, needed: usize) -> Result<(), JournalError> {
    match sys::tmpfs_space(dir).map_err(JournalError::file(dir))? {
        Some((_, free)) if free < needed as u64 => Err(JournalError::Memory { path: dir.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

/// Whether there is room for so many bytes more.
///
/// # Errors
/// [`JournalError::Space`], when a good part would not be left to others; [`JournalError::File`].
pub fn room(dir: &Path, needed: usize) -> Result<(), JournalError> {
    let space = sys::tmpfs_space(dir).map_err(JournalError::file(dir))?;
    match space {
        Some((total, free)) if !fits(total, free, needed as u64) => {
            Err(JournalError::Memory { path: dir.to_owned(), needed, free })
        }
        _ => Ok(()),
    }
}

fn fits(total: u64, free: u64, needed: u64) -> bool {
    free.checked_sub(needed).is_some_and(|left| left >= total / LEFT)
}

/// A generation's directory there is on disk and not needed any more; nor is the journal's, when that was all.
pub fn leave(generation: &Path) {
    let Some(dir) = generation.parent() else { return };
    let others = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|e| e.path().is_dir());
    let removed = fs::remove_dir_all(generation).and_then(|()| {
        let alone = !fs::read_dir(dir)?.any(others);
        if alone { fs::remove_dir_all(dir) } else { Ok(()) }
    });
    if let Err(error) = removed {
        tracing::warn!(path = %generation.display(), %error, "journal: what is not needed any more cannot be removed");
    }
}

/// Removes what servers left that have ended and whose journals are gone from a disk that is there.
pub fn sweep(base: &Path) {
    let dirs = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    for dir in dirs.filter(|dir| is_ours(dir) && is_orphan(dir)) {
        // Its server may be there and its journal have been moved away.
        let Ok(_lock) = hold(&dir) else { continue };
        match fs::remove_dir_all(&dir) {
            Ok(()) => tracing::info!(path = %dir.display(), "removed what a journal that is gone had in memory"),
            Err(error) => {
                tracing::warn!(path = %dir.display(), %error, "what a journal that is gone had in memory stays")
            }
        }
    }
}

/// Whether the journal that it belongs to is gone. On a disk that is not mounted now it is not.
fn is_orphan(dir: &Path) -> bool {
    let Ok(text) = fs::read(dir.join(BELONGS)) else { return false };
    let Some(line) = text.iter().position(|b| *b == b'\n') else { return false };
    let journal = Path::new(OsStr::from_bytes(&text[line + 1..]));
    let gone = fs::symlink_metadata(journal).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    let there = journal.ancestors().skip(1).find_map(|above| fs::metadata(above).ok());
    gone && there.is_some_and(|above| above.dev().to_string().as_bytes() == &text[..line])
}

/// Whether it is a directory of this kind that this user alone may read and write.
fn is_ours(dir: &Path) -> bool {
    let private = |m: Metadata| m.is_dir() && m.uid() == sys::effective_user() && m.mode() & 0o077 == 0;
    let named = dir.file_name().is_some_and(|n| n.as_bytes().starts_with(PREFIX.as_bytes()));
    named && fs::symlink_metadata(dir).is_ok_and(private)
}

fn hold(dir: &Path) -> Result<Lock, NoMemory> {
    lock::take(&dir.join(LOCK)).map_err(|refused| match refused {
        Refused::Held(holder) => NoMemory::InUse { path: dir.to_owned(), holder },
        Refused::Io(error) => NoMemory::File { path: dir.to_owned(), error },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Where segments are mapped by default: a tmpfs on every Linux.
    fn base() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    #[test]
    fn what_is_not_in_memory_or_not_ours_alone_is_refused_by_name() {
        let (disk, base) = (tempfile::tempdir().unwrap(), base());
        let refused = |base: &str| home(Path::new(base), disk.path()).unwrap_err().to_string();
        assert_eq!(refused("/proc"), "/proc is not in memory (no tmpfs)");
        assert!(refused("/nowhere/at/all").starts_with("/nowhere/at/all cannot be used (No such file"));
        let dir = home(base.path(), disk.path()).unwrap();
        let foreign = |dir: &Path| Memory::make(dir.to_owned(), disk.path()).unwrap_err().to_string();
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(foreign(&dir), format!("{} belongs to somebody else, or others may write to it", dir.display()));
        fs::remove_dir(&dir).unwrap();
        std::os::unix::fs::symlink(disk.path(), &dir).unwrap();
        assert!(foreign(&dir).contains("somebody else"));
        fs::remove_file(&dir).unwrap();
        let held = Memory::make(dir.clone(), disk.path()).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        assert!(foreign(&dir).contains("is in use by this process"));
        assert!(Memory::left(&dir).is_none());
        drop(held);
        assert!(Memory::left(&dir).is_some());
    }

    #[test]
    fn each_journal_has_a_directory_of_its_own() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let home = |journal: &Path| home(Path::new("/dev/shm"), journal).unwrap();
        assert_ne!(home(one.path()), home(other.path()));
        assert_eq!(home(one.path()), home(&one.path().join("../").join(one.path().file_name().unwrap())));
    }

    #[test]
    fn a_part_of_the_memory_is_left_to_others() {
        assert!(fits(64, 64, 48) && !fits(64, 64, 49) && fits(64, 24, 8) && !fits(64, 23, 8) && !fits(64, 4, 8));
        // No limit is told.
        assert!(fits(0, u64::MAX, 1 << 30));
    }

    #[test]
    fn only_what_is_dead_and_whose_journal_is_gone_is_swept_away() {
        let (disk, base) = (tempfile::tempdir().unwrap(), base());
        let make = |name: &str| {
            let journal = disk.path().join(name);
            fs::create_dir(&journal).unwrap();
            Memory::make(home(base.path(), &journal).unwrap(), &journal).unwrap()
        };
        let dirs = ["gone", "there", "alive", "elsewhere"].map(|name| make(name).dir().to_owned());
        let [gone, there, alive, elsewhere] = &dirs;
        for name in ["gone", "alive", "elsewhere"] {
            fs::remove_dir(disk.path().join(name)).unwrap();
        }
        let _alive = hold(alive).unwrap();
        // Its file system is not mounted now.
        let text = [b"1\n", disk.path().join("elsewhere").as_os_str().as_bytes()].concat();
        fs::write(elsewhere.join(BELONGS), text).unwrap();
        sweep(base.path());
        assert!(!gone.exists() && there.exists() && alive.exists() && elsewhere.exists());
    }
}
