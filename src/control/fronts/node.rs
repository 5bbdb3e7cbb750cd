//! FIFOs and socket files that are ours: replaced when a dead process left them, removed when we are done.

use super::FrontError;
use std::fs::FileType;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file of ours; dropping it removes it if it is still the same.
#[derive(Debug)]
pub struct Node {
    path: PathBuf,
    identity: Identity,
}

impl Node {
    /// A FIFO with these access bits.
    ///
    /// # Errors
    /// When the path is taken or cannot be used.
    pub fn fifo(path: &Path, mode: u32) -> Result<Node, FrontError> {
        const KEY: &str = "fifo";
        let failed = |source| FrontError::Node { key: KEY, path: path.to_owned(), source };
        match path.symlink_metadata() {
            Ok(meta) if !meta.file_type().is_fifo() => {
                return Err(FrontError::Taken { key: KEY, path: path.to_owned(), what: "a FIFO" });
            }
            Ok(_) if is_read(path) => return Err(FrontError::InUse { key: KEY, path: path.to_owned() }),
            Ok(_) => std::fs::remove_file(path).map_err(failed)?,
            Err(_) => {}
        }
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(mode))
            .map_err(|e| failed(e.into()))?;
        Node::ours(path, mode).map_err(failed)
    }

    /// A bound datagram socket with these access bits.
    ///
    /// # Errors
    /// When the path is taken or cannot be used.
    pub fn socket(path: &Path, mode: u32) -> Result<(Node, UnixDatagram), FrontError> {
        const KEY: &str = "datagram";
        let failed = |source| FrontError::Node { key: KEY, path: path.to_owned(), source };
        match path.symlink_metadata() {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(FrontError::Taken { key: KEY, path: path.to_owned(), what: "a socket" });
            }
            Ok(_) if UnixDatagram::unbound().and_then(|s| s.connect(path)).is_ok() => {
                return Err(FrontError::InUse { key: KEY, path: path.to_owned() });
            }
            Ok(_) => std::fs::remove_file(path).map_err(failed)?,
            Err(_) => {}
        }
        let socket = UnixDatagram::bind(path).map_err(failed)?;
        let node = Node::ours(path, mode).map_err(failed)?;
        Ok((node, socket))
    }

    fn ours(path: &Path, mode: u32) -> io::Result<Node> {
        // The process's mask may have taken bits away.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Node { path: path.to_owned(), identity: identity(path)? })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Device, number, kind and time of birth where the file system knows it: numbers are used again.
type Identity = (u64, u64, FileType, Option<SystemTime>);

fn identity(path: &Path) -> io::Result<Identity> {
    let meta = path.symlink_metadata()?;
    Ok((meta.dev(), meta.ino(), meta.file_type(), meta.created().ok()))
}

/// Whether a process reads this FIFO: without one it cannot be opened for writing (ENXIO).
fn is_read(path: &Path) -> bool {
    std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn what_a_dead_process_left_is_replaced_and_what_lives_is_not() {
        let dir = TempDir::new().unwrap();
        let (fifo, socket) = (dir.path().join("fifo"), dir.path().join("socket"));
        std::mem::forget(Node::fifo(&fifo, 0o600).unwrap());
        std::mem::forget(Node::socket(&socket, 0o600).unwrap().0);
        let node = Node::fifo(&fifo, 0o620).unwrap();
        assert_eq!(fifo.metadata().unwrap().permissions().mode() & 0o777, 0o620);
        let _reader = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let in_use = Node::fifo(&fifo, 0o600).unwrap_err().to_string();
        assert!(
            in_use.contains("is in use by another process; stop it, or choose another path in [mi] fifo"),
            "{in_use}"
        );
        let bound = Node::socket(&socket, 0o600).unwrap();
        assert!(matches!(Node::socket(&socket, 0o600), Err(FrontError::InUse { .. })));
        drop((node, bound));
        assert!(!fifo.exists() && !socket.exists());
    }

    #[test]
    fn what_is_not_ours_is_never_removed() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("notes");
        std::fs::write(&path, "mine").unwrap();
        let taken = Node::fifo(&path, 0o600).unwrap_err().to_string();
        assert!(taken.contains("is there already and is not a FIFO; remove it"), "{taken}");
        assert!(Node::socket(&path, 0o600).unwrap_err().to_string().contains("is not a socket"));
        let ours = dir.path().join("ours");
        let node = Node::fifo(&ours, 0o600).unwrap();
        std::fs::remove_file(&ours).unwrap();
        std::fs::write(&ours, "somebody else's").unwrap();
        drop(node);
        assert_eq!(std::fs::read_to_string(&ours).unwrap(), "somebody else's");
        assert!(Node::fifo(&dir.path().join("no/such"), 0o600).unwrap_err().to_string().contains("[mi] fifo"));
    }
}
