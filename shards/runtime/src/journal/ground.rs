//! Where segments lie: files in memory with copies on disk, files on disk alone; or memory without files, with copies on a
//! disk that is a program ([`Disk`]).

use super::JournalError;
use super::generation::sync_dir;
use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a simulation has in place of a disk. Files lie in one directory.
pub trait Disk: Debug + Send + Sync {
    /// Makes a file of zeros, with all its blocks.
    ///
    /// # Errors
    /// As a file system's: there is no room, the disk is broken.
    fn create(&self, name: &str, size: usize) -> io::Result<()>;

    /// Has the disk hold these bytes of a file: when this has returned, they survive a loss of power.
    ///
    /// # Errors
    /// Nobody knows, then, which of them are there.
    fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads what the file has there.
    ///
    /// # Errors
    /// As a file system's.
    fn read(&self, name: &str, at: u64, to: &mut [u8]) -> io::Result<()>;

    /// # Errors
    /// As a file system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Has the disk hold the directory's entries.
    ///
    /// # Errors
    /// As a file system's.
    fn sync(&self) -> io::Result<()>;
}

/// Where the segments of a shard are made.
#[derive(Debug)]
pub(super) enum Ground {
    /// On disk, and where segments are mapped that have their copy there.
    Files {
        dir: PathBuf,
        memory: Option<PathBuf>,
    },
    Unfiled(Arc<dyn Disk>),
}

impl Ground {
    /// Has the disk hold the names of all files.
    pub fn sync(&self) -> Result<(), JournalError> {
        match self {
            Ground::Files { dir, .. } => sync_dir(dir),
            Ground::Unfiled(disk) => disk.sync().map_err(JournalError::file("".as_ref())),
        }
    }
}

/// What writes past the page cache are aligned to, in memory and in the file.
pub(super) const PAGE: usize = 4096;
/// From so many bytes on they pay.
const DIRECT_LEAST: usize = 16 * PAGE;

/// A segment's file on disk. Opened when it is written to: a disk that stalls must not cost descriptors.
#[derive(Debug)]
pub(super) enum Copy {
    File(PathBuf),
    Unfiled { disk: Arc<dyn Disk>, name: String },
}

impl Copy {
    pub fn path(&self) -> PathBuf {
        match self {
            Copy::File(path) => path.clone(),
            Copy::Unfiled { name, .. } => PathBuf::from(name),
        }
    }

    /// Has the disk hold these bytes of the file; zeros may follow, to the end of their last page.
    pub fn write(&self, bytes: &[u8], at: u64) -> Result<(), JournalError> {
        let written = match self {
            Copy::File(path) => match write_direct(path, bytes, at) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => write_cached(path, bytes, at),
                done => done,
            },
            Copy::Unfiled { disk, name } => disk.write(name, at, bytes),
        };
        written.map_err(|error| JournalError::File { path: self.path(), error })
    }

    /// Reads what it has there.
    pub fn read(&self, bytes: &mut [u8], at: u64) -> Result<(), JournalError> {
        let read = match self {
            Copy::File(path) => std::fs::File::open(path).and_then(|file| file.read_exact_at(bytes, at)),
            Copy::Unfiled { disk, name } => disk.read(name, at, bytes),
        };
        read.map_err(|error| JournalError::File { path: self.path(), error })
    }

    pub fn remove(&self) -> io::Result<()> {
        match self {
            Copy::File(path) => std::fs::remove_file(path),
            Copy::Unfiled { disk, name } => disk.remove(name),
        }
    }
}

fn write_cached(path: &Path, bytes: &[u8], at: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, at)?;
    file.sync_data()
}

#[derive(Debug)]
#[repr(align(4096))]
struct Page([u8; PAGE]);

/// Past the page cache, which would take ten times the processor's time for what nobody reads again. `EINVAL`: not so few
/// bytes, not from there, or not on this file system.
fn write_direct(path: &Path, bytes: &[u8], at: u64) -> io::Result<()> {
    if bytes.len() < DIRECT_LEAST || !at.is_multiple_of(PAGE as u64) || !bytes.as_ptr().addr().is_multiple_of(PAGE) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
    let (whole, rest) = bytes.split_at(bytes.len() / PAGE * PAGE);
    file.write_all_at(whole, at)?;
    if !rest.is_empty() {
        let mut page = Box::new(Page([0; PAGE]));
        page.0[..rest.len()].copy_from_slice(rest);
        file.write_all_at(&page.0, at + whole.len() as u64)?;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that begin at a page.
    fn pages(n: usize) -> Vec<Page> {
        (0..n).map(|i| Page(std::array::from_fn(|at| (i + at % 251) as u8))).collect()
    }

    fn bytes(pages: &[Page]) -> Vec<u8> {
        pages.iter().flat_map(|page| page.0).collect()
    }

    #[test]
    fn what_goes_past_the_page_cache_is_in_the_file_and_only_zeros_follow_in_its_last_page() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("s");
        let size = (DIRECT_LEAST / PAGE + 4) * PAGE;
        std::fs::write(&path, vec![9; size]).unwrap();
        let pages = pages(DIRECT_LEAST / PAGE + 1);
        // SAFETY: pages lie one after the other, without padding.
        let all = unsafe { std::slice::from_raw_parts(pages.as_ptr().cast::<u8>(), pages.len() * PAGE) };
        let some = &all[..DIRECT_LEAST + 100];
        match write_direct(&path, some, PAGE as u64) {
            // This file system has no such writes.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return,
            done => done.unwrap(),
        }
        let now = std::fs::read(&path).unwrap();
        assert_eq!(now.len(), size);
        assert_eq!(now[..PAGE], vec![9; PAGE]);
        assert_eq!(now[PAGE..PAGE + some.len()], bytes(&pages)[..some.len()]);
        let end = PAGE + DIRECT_LEAST + PAGE;
        assert!(now[PAGE + some.len()..end].iter().all(|b| *b == 0) && now[end..].iter().all(|b| *b == 9));
    }

    #[test]
    fn what_cannot_go_past_it_goes_through_it() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, [0; 64]).unwrap();
        let copy = Copy::File(path.clone());
        copy.write(b"few bytes", 3).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[3..12], *b"few bytes");
        let odd = vec![7; DIRECT_LEAST + 1];
        copy.write(&odd[1..], 1).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[1..], odd[1..]);
    }
}
