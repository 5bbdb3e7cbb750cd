//! Exclusive locks on the data directory and on each listening address, so that a second server fails at its start
//! instead of taking half of the first one's traffic through SO_REUSEPORT.
//!
//! A lock is an flock on a file that carries its holder's process id. The kernel releases it however the holder
//! ends; the file stays, because removing it would let two processes lock two files of one name. Who lets go while
//! living on says so: closing alone would leave the lock with a child that has just been forked and not yet executed.

use crate::error::{Holder, StartError};
use crate::journal::JournalError;
use crate::sys;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A held lock; dropping it releases.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // An unlock that fails leaves what closing does.
        let _ = self.file.unlock();
    }
}

/// Why a lock is not to be had.
pub(crate) enum Refused {
    Held(Holder),
    Io(io::Error),
}

/// Locks a data directory, which is created if need be.
///
/// # Errors
/// [`StartError::DataDirInUse`] with its holder, [`StartError::DataDir`] when it cannot be used at all.
pub fn data_dir(dir: &Path) -> Result<Lock, StartError> {
    let failed = |error| StartError::DataDir { path: dir.to_owned(), error };
    std::fs::create_dir_all(dir).map_err(failed)?;
    take(&dir.join("strowger.lock")).map_err(|refused| match refused {
        Refused::Held(holder) => StartError::DataDirInUse { path: dir.to_owned(), holder },
        Refused::Io(error) => failed(error),
    })
}

/// Locks a journal's directory, which is created if need be.
///
/// # Errors
/// [`JournalError::InUse`] with its holder, [`JournalError::File`] when it cannot be used at all.
pub fn journal_dir(dir: &Path) -> Result<Lock, JournalError> {
    let failed = |error| JournalError::File { path: dir.to_owned(), error };
    std::fs::create_dir_all(dir).map_err(failed)?;
    take(&dir.join("strowger.lock")).map_err(|refused| match refused {
        Refused::Held(holder) => JournalError::InUse { path: dir.to_owned(), holder },
        Refused::Io(error) => failed(error),
    })
}

/// Locks a listening address of this machine (the port must be known).
///
/// # Errors
/// [`StartError::AddrInUse`] with its holder, [`StartError::LockFile`].
pub fn udp_addr(addr: SocketAddr) -> Result<Lock, StartError> {
    let path = machine_folder().join(format!("strowger-udp-{}-{}.lock", addr.ip(), addr.port()));
    take(&path).map_err(|refused| match refused {
        Refused::Held(holder) => StartError::AddrInUse { addr, holder },
        Refused::Io(error) => StartError::LockFile { path, error },
    })
}

/// A folder that all users of the machine share.
fn machine_folder() -> PathBuf {
    let usual = Path::new("/run/lock");
    if usual.is_dir() { usual.to_owned() } else { std::env::temp_dir() }
}

/// Locks a file, which is made if need be.
pub(crate) fn take(path: &Path) -> Result<Lock, Refused> {
    let mut file = open(path).map_err(Refused::Io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Refused::Held(Holder(read_pid(&mut file)))),
        Err(TryLockError::Error(e)) => return Err(Refused::Io(e)),
    }
    // Another user's left-over file is open for reading only: the lock holds, the process id cannot be told.
    if file.set_len(0).is_ok() {
        let written = file.rewind().and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(Refused::Io)?;
    }
    Ok(Lock { file })
}

fn open(path: &Path) -> io::Result<File> {
    let made = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    // In a sticky folder the kernel refuses to "create" another user's file, and permissions refuse to write it.
    made.or_else(|e| if e.kind() == io::ErrorKind::PermissionDenied { File::open(path) } else { Err(e) })
}

fn read_pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.take(32).read_to_string(&mut text)).ok()?;
    text.trim().parse().ok().filter(|pid| sys::alive(*pid))
}

/// The process that has a UDP socket on `addr` (or on the wildcard of its port), as far as /proc shows it.
pub(crate) fn udp_holder(addr: SocketAddr) -> Option<i32> {
    let table = std::fs::read_to_string(if addr.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" }).ok()?;
    let inodes: Vec<String> = table.lines().skip(1).filter_map(|line| inode_of(line, addr.port())).collect();
    let holds = |pid: &i32| {
        let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        fds.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|link| {
            let link = link.to_string_lossy();
            inodes.iter().any(|inode| link == format!("socket:[{inode}]"))
        })
    };
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.into_iter().find(holds)
}

/// Inode of a line of /proc/net/udp whose local port is `port` (columns as proc(5) names them).
fn inode_of(line: &str, port: u16) -> Option<String> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
    (u16::from_str_radix(local_port, 16).ok()? == port).then(|| columns.get(9).map(|s| (*s).to_owned()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    fn me() -> Holder {
        Holder(i32::try_from(std::process::id()).ok())
    }

    #[test]
    fn a_data_directory_has_one_holder_who_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("not/yet/there");
        let first = data_dir(&inner).unwrap();
        match data_dir(&inner) {
            Err(StartError::DataDirInUse { path, holder }) => assert_eq!((path, holder), (inner.clone(), me())),
            other => panic!("{other:?}"),
        }
        drop(first);
        data_dir(&inner).unwrap();
    }

    /// As a process does that is between fork and exec while its parent lets go.
    #[test]
    fn letting_go_is_not_undone_by_a_copy_of_the_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let first = data_dir(dir.path()).unwrap();
        let copy = first.file.try_clone().unwrap();
        drop(first);
        data_dir(dir.path()).unwrap();
        drop(copy);
    }

    #[test]
    fn an_unusable_data_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let text = data_dir(&file.join("under")).unwrap_err().to_string();
        assert!(text.contains("file/under") && text.contains("create it"), "{text}");
    }

    #[test]
    fn an_address_has_one_holder_and_another_port_is_another_lock() {
        let a: SocketAddr = "127.0.0.254:9".parse().unwrap();
        let first = udp_addr(a).unwrap();
        let text = udp_addr(a).unwrap_err().to_string();
        assert!(text.contains("127.0.0.254:9") && text.contains(&std::process::id().to_string()), "{text}");
        udp_addr("127.0.0.254:10".parse().unwrap()).unwrap();
        drop(first);
        udp_addr(a).unwrap();
    }

    /// flock(1) of util-linux stands for a second server process.
    #[test]
    fn another_process_is_named_and_its_death_releases() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("strowger.lock");
        let script = "echo $$ > \"$0\"; exec 9>>\"$0\"; flock -n 9 || exit 1; echo held; read _";
        let mut other = Command::new("sh")
            .args(["-c", script, path.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(other.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "held");
        match data_dir(dir.path()) {
            Err(StartError::DataDirInUse { holder, .. }) => assert_eq!(holder, Holder(i32::try_from(other.id()).ok())),
            result => panic!("{result:?}"),
        }
        other.kill().unwrap();
        other.wait().unwrap();
        data_dir(dir.path()).unwrap();
    }

    #[test]
    fn the_holder_of_a_foreign_socket_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(Holder(udp_holder(socket.local_addr().unwrap())), me());
        let line = "  12: 0100007F:13C4 00000000:0000 07 00000000:00000000 00:00000000 00000000  0  0 4711 2 0 0";
        assert_eq!(inode_of(line, 5060).as_deref(), Some("4711"));
        assert_eq!(inode_of(line, 5061), None);
        assert_eq!(inode_of("garbage", 1), None);
    }
}
