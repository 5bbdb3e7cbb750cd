//! Where segments lie: files in memory with copies on disk, files on disk alone; or memory without files, with copies on a
//! disk that is a program ([`Disk`]).

use super::JournalError;
use super::generation::sync_dir;
use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
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

    /// Has the disk hold these bytes of the file.
    pub fn write(&self, bytes: &[u8], at: u64) -> Result<(), JournalError> {
        let written = match self {
            Copy::File(path) => {
                let file = OpenOptions::new().write(true).open(path);
                file.and_then(|file| file.write_all_at(bytes, at).and_then(|()| file.sync_data()))
            }
            Copy::Unfiled { disk, name } => disk.write(name, at, bytes),
        };
        written.map_err(|error| JournalError::File { path: self.path(), error })
    }

    pub fn remove(&self) -> io::Result<()> {
        match self {
            Copy::File(path) => std::fs::remove_file(path),
            Copy::Unfiled { disk, name } => disk.remove(name),
        }
    }
}
