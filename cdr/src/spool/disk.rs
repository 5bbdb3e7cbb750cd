//! Where a spool lies.

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

/// A directory of files.
pub trait Disk: Debug + Send {
    /// What messages call a file; of no name, the directory.
    fn path(&self, name: &str) -> PathBuf;

    /// Names and lengths of all files.
    ///
    /// # Errors
    /// As a file system's, here and below.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Reads from a place of a file on; how many bytes. They are fewer than asked for only where the file ends.
    ///
    /// # Errors
    /// `NotFound` where there is no such file.
    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> io::Result<usize>;

    /// Makes a file without bytes; one of that name that is there loses its own. Its name survives a loss of power.
    ///
    /// # Errors
    /// See [`Disk::list`].
    fn create(&self, name: &str) -> io::Result<()>;

    /// Writes to a file that is there. The bytes survive a loss of power when this has returned.
    ///
    /// # Errors
    /// Nobody knows, then, which of them are there.
    fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes a file shorter, for good.
    ///
    /// # Errors
    /// See [`Disk::list`].
    fn cut(&self, name: &str, len: u64) -> io::Result<()>;

    /// # Errors
    /// `NotFound` where there is no such file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Puts a file with these bytes in the place of one that may be there, whole or not at all as long as the power stays; with
    /// `sync` it stays when that goes, too.
    ///
    /// # Errors
    /// See [`Disk::list`].
    fn replace(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()>;
}
