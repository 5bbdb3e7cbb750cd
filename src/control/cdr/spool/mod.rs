//! The CDR spool's directory of files (`strowger_cdr::spool` tells what is in them).

pub use strowger_cdr::spool::{Disk, Spool, SpoolError, frame};
pub use strowger_cdr::{Damage, Loaded, Place};

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use strowger_cdr::spool::Opened;

/// How long a start waits for the lock.
const LOCK: Duration = Duration::from_millis(500);

/// Opens the directory, or makes it; says what was torn from its end. No append begins in a segment that has
/// `segment_bytes`.
///
/// # Errors
/// When it cannot be read or written, or another process has it.
pub fn open(dir: &Path, segment_bytes: u64) -> Result<(Spool, Option<Damage>), SpoolError> {
    let Opened { spool, torn, cursor_damaged, full } = Spool::open(Box::new(Folder::take(dir)?), segment_bytes)?;
    if cursor_damaged {
        tracing::warn!(dir = %dir.display(), "the spool's cursor is damaged; the whole spool is replayed");
    }
    if let Some(error) = full {
        tracing::error!(%error, "the disk of the CDR spool is full");
    }
    Ok((spool, torn))
}

/// A directory, held as long as this is there.
#[derive(Debug)]
struct Folder {
    dir: PathBuf,
    _lock: File,
}

impl Folder {
    fn take(dir: &Path) -> Result<Folder, SpoolError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            |source| SpoolError::File { path, source }
        };
        fs::create_dir_all(dir).map_err(at(dir))?;
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(at(&path))?;
        let began = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Folder { dir: dir.to_owned(), _lock: lock }),
                // Whoever has just ended may hold it a moment longer, by a child that it was starting.
                Err(fs::TryLockError::WouldBlock) if began.elapsed() < LOCK => sleep(LOCK / 50),
                Err(fs::TryLockError::WouldBlock) => return Err(SpoolError::Taken(dir.to_owned())),
                Err(fs::TryLockError::Error(e)) => return Err(at(&path)(e)),
            }
        }
    }

    /// Else a loss of power could take a new name with it.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

impl Disk for Folder {
    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.clone() } else { self.dir.join(name) }
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut found = vec![];
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                found.push((name, entry.metadata()?.len()));
            }
        }
        Ok(found)
    }

    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let file = File::open(self.path(name))?;
        let mut have = 0;
        while have < out.len() {
            match file.read_at(&mut out[have..], at + have as u64) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(have)
    }

    fn create(&self, name: &str) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        File::create(self.path(name))?;
        self.sync()
    }

    fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        file.write_all_at(bytes, at)?;
        file.sync_data()
    }

    fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn replace(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        let new = self.path(&format!("{name}.new"));
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        if sync {
            file.sync_data()?;
        }
        fs::rename(&new, self.path(name))?;
        if sync { self.sync() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
