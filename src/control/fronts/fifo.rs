//! The FIFO: requests `:reply_fifo_name:JSON` come in, each answer goes out as one line to the reply FIFO of that
//! name in the reply directory, which its client makes and reads.

use super::framing::{Frame, Framer};
use super::node::Node;
use super::{ControlPlane, FrontError, answer, mi, told};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

/// Commands at work at once; more wait in the FIFO.
const AT_ONCE: usize = 32;
/// Answers that wait for their readers at once, in pieces of 64 KiB; when there are more, they wait less.
const UNREAD: usize = 1024;
const PIECE: usize = 65_536;
/// How long a client may take to open its reply FIFO, and between two reads of a long answer.
const PATIENCE: Duration = Duration::from_secs(5);
const SHORT_PATIENCE: Duration = Duration::from_millis(250);
/// A request of which no more has come for so long is not going to be completed.
const TORN: Duration = Duration::from_secs(1);

/// The request FIFO, open.
#[derive(Debug)]
pub struct Fifo {
    node: Node,
    requests: pipe::Receiver,
    replies: Arc<Path>,
}

impl Fifo {
    /// Makes the FIFO, with these access bits.
    ///
    /// # Errors
    /// When the path or the directory for replies cannot be used.
    pub fn open(path: PathBuf, replies: &Path, mode: u32) -> Result<Fifo, FrontError> {
        if !replies.is_dir() {
            return Err(FrontError::NoReplyDir(replies.to_owned()));
        }
        let node = Node::fifo(&path, mode)?;
        // Its own writer as well: without any, the end of the file would come again and again.
        let opened = pipe::OpenOptions::new().read_write(true).open_receiver(&path);
        let requests = opened.map_err(|source| FrontError::Node { key: "fifo", path, source })?;
        Ok(Fifo { node, requests, replies: replies.into() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.node.path()
    }

    /// Answers until told to stop.
    pub async fn serve(self, plane: Arc<ControlPlane>, max_request: usize, mut stopped: watch::Receiver<bool>) {
        let desk = Desk {
            plane,
            replies: Arc::clone(&self.replies),
            working: Arc::new(Semaphore::new(AT_ONCE)),
            unread: Arc::new(Semaphore::new(UNREAD)),
            max_request,
        };
        let mut framer = Framer::new(max_request);
        let mut buf = vec![0; 65_536];
        loop {
            let torn = tokio::select! {
                () = told(&mut stopped) => return,
                () = sleep(TORN), if framer.waits() => true,
                ready = self.requests.readable() => match ready.and_then(|()| self.requests.try_read(&mut buf)) {
                    Ok(n) => {
                        framer.push(&buf[..n]);
                        false
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return tracing::error!(%error, "the FIFO cannot be read any more"),
                },
            };
            while let Some(frame) = framer.next_frame() {
                tokio::select! {
                    () = told(&mut stopped) => return,
                    () = desk.take(frame) => {}
                }
            }
            if torn && let Some(frame) = framer.give_up() {
                desk.take(frame).await;
            }
        }
    }
}

/// Carries requests out and sends the answers.
struct Desk {
    plane: Arc<ControlPlane>,
    replies: Arc<Path>,
    working: Arc<Semaphore>,
    unread: Arc<Semaphore>,
    max_request: usize,
}

impl Desk {
    /// Begins the work on a request; waits while too many are at work.
    async fn take(&self, frame: Frame) {
        let Ok(working) = Arc::clone(&self.working).acquire_owned().await else { return };
        let (plane, max) = (Arc::clone(&self.plane), self.max_request);
        let (replies, unread) = (Arc::clone(&self.replies), Arc::clone(&self.unread));
        tokio::spawn(async move {
            let (reply, answer) = match frame {
                Frame::Request { reply, json } => (reply, answer(plane, json).await),
                Frame::TooLong { reply } => {
                    let what = format!("Request longer than {max} bytes; raise [mi] max_request_size");
                    (reply, Some(mi::refusal(b"", -32600, &what)))
                }
            };
            drop(working);
            match answer {
                Some(line) if !reply.is_empty() => {
                    let pieces = u32::try_from(line.len() / PIECE + 1).unwrap_or(u32::MAX);
                    let place = unread.try_acquire_many_owned(pieces).ok();
                    send(&replies, &reply, line, if place.is_some() { PATIENCE } else { SHORT_PATIENCE }).await;
                }
                _ => {}
            }
        });
    }
}

/// Sends an answer as one line.
async fn send(dir: &Path, name: &str, mut line: Vec<u8>, patience: Duration) {
    line.push(b'\n');
    let outcome = match reply_path(dir, name) {
        Ok(path) => match opened(&path, patience).await {
            Ok(sender) => write(&sender, &line, patience).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        tracing::warn!(%error, reply = %name.escape_debug(), "an answer on the FIFO found no reader");
    }
}

/// The reply FIFO's path: a plain file name, which cannot lead out of the directory.
fn reply_path(dir: &Path, name: &str) -> io::Result<PathBuf> {
    if name.contains('/') || name.contains('\0') || name == "." || name == ".." {
        let what = "not the plain name of a file in [mi] fifo_reply_dir";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(dir.join(name))
}

/// Opens a reply FIFO as soon as it is read (until then ENXIO).
async fn opened(path: &Path, patience: Duration) -> io::Result<pipe::Sender> {
    let until = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        match open(path) {
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) && Instant::now() < until => {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            outcome => return outcome,
        }
    }
}

/// Nothing but a FIFO is opened, and no link is followed.
fn open(path: &Path) -> io::Result<pipe::Sender> {
    let not_fifo = || io::Error::new(io::ErrorKind::InvalidInput, "not a FIFO");
    if !path.symlink_metadata()?.file_type().is_fifo() {
        return Err(not_fifo());
    }
    let file = std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        return Err(not_fifo());
    }
    pipe::Sender::from_file(file)
}

async fn write(sender: &pipe::Sender, line: &[u8], patience: Duration) -> io::Result<()> {
    let mut rest = line;
    while !rest.is_empty() {
        let ready = timeout(patience, sender.writable()).await;
        ready.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match sender.try_write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn names_cannot_lead_out_of_the_directory() {
        let dir = Path::new("/replies");
        for bad in ["../x", "/etc/passwd", "a/b", "..", ".", "a\0b"] {
            assert!(reply_path(dir, bad).is_err(), "{bad}");
        }
        assert_eq!(reply_path(dir, "opensips_fifo_reply_1_2").unwrap(), dir.join("opensips_fifo_reply_1_2"));
    }

    #[tokio::test]
    async fn only_fifos_are_written_to_and_links_are_not_followed() {
        let dir = TempDir::new().unwrap();
        let node = Node::fifo(&dir.path().join("real"), 0o600).unwrap();
        let _reader = pipe::OpenOptions::new().read_write(true).open_receiver(node.path()).unwrap();
        std::os::unix::fs::symlink(node.path(), dir.path().join("link")).unwrap();
        std::fs::write(dir.path().join("file"), "kept").unwrap();
        assert!(open(&dir.path().join("real")).is_ok());
        for bad in ["link", "file", "missing"] {
            assert!(open(&dir.path().join(bad)).is_err(), "{bad}");
        }
        assert_eq!(std::fs::read_to_string(dir.path().join("file")).unwrap(), "kept");
    }
}
