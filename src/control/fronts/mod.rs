//! Fronts of the management interface beside HTTP: a FIFO and datagram sockets. All hand bytes to [`mi::handle`].
//!
//! Invariants
//! - A client that asks and does not fetch its answer costs a bounded amount of memory for a bounded time.
//! - What is made in the file system is removed at the stop, unless somebody has put something else there meanwhile.

mod datagram;
mod fifo;
pub mod framing;
mod node;

pub use datagram::MiSocket;

use super::{ControlPlane, mi};
use crate::config::Config;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Why a front cannot be had.
#[derive(Debug, Error)]
pub enum FrontError {
    #[error("cannot listen on {socket}: {source}; choose another in [mi] datagram")]
    Datagram { socket: String, source: std::io::Error },
    #[error("cannot use {}: {source}; choose another path in [mi] {key}", path.display())]
    Node { key: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "{} is in use by another process; stop it, or choose another path in [mi] {key}",
        path.display()
    )]
    InUse { key: &'static str, path: PathBuf },
    #[error("{} is there already and is not {what}; remove it, or choose another path in [mi] {key}", path.display())]
    Taken { key: &'static str, path: PathBuf, what: &'static str },
    #[error("[mi] fifo_reply_dir {} is not a directory; create it, or choose another", .0.display())]
    NoReplyDir(PathBuf),
}

/// Sockets and the FIFO, open; nobody is answered yet.
#[derive(Debug)]
pub struct Bound {
    fifo: Option<fifo::Fifo>,
    datagrams: Vec<datagram::Socket>,
}

/// Fronts that answer.
#[derive(Debug)]
pub struct Fronts {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    fifo: Option<PathBuf>,
    datagrams: Vec<String>,
}

impl Bound {
    /// Opens what `[mi]` names.
    ///
    /// # Errors
    /// The first that cannot be had.
    pub fn open(config: &Config) -> Result<Bound, FrontError> {
        let mi = &config.mi;
        let fifo = match mi.fifo.as_str() {
            "" => None,
            path => Some(fifo::Fifo::open(PathBuf::from(path), &mi.fifo_reply_dir, mi.file_mode.0)?),
        };
        let datagrams = mi.datagram.iter().map(|s| datagram::Socket::open(s, mi.file_mode.0)).collect();
        Ok(Bound {
            fifo,
            datagrams: {
                let d: Result<_, _> = datagrams;
                d?
            },
        })
    }

    /// Begins to answer; `max_request`: longest request on the FIFO, in bytes.
    #[must_use]
    pub fn serve(self, plane: &Arc<ControlPlane>, max_request: usize) -> Fronts {
        let (stop, stopped) = watch::channel(false);
        let fifo = self.fifo.as_ref().map(|f| f.path().to_owned());
        let datagrams = self.datagrams.iter().map(|d| d.name().to_owned()).collect();
        let mut tasks = vec![];
        if let Some(fifo) = self.fifo {
            tasks.push(tokio::spawn(fifo.serve(Arc::clone(plane), max_request, stopped.clone())));
        }
        for socket in self.datagrams {
            tasks.push(tokio::spawn(socket.serve(Arc::clone(plane), stopped.clone())));
        }
        Fronts { stop, tasks, fifo, datagrams }
    }
}

impl Fronts {
    /// The request FIFO.
    #[must_use]
    pub fn fifo(&self) -> Option<&PathBuf> {
        self.fifo.as_ref()
    }

    /// Datagram sockets as `udp:ADDR:PORT`, ports known, or `unix:PATH`.
    #[must_use]
    pub fn datagrams(&self) -> &[String] {
        &self.datagrams
    }

    /// Takes no more requests and removes what is in the file system.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// Ends when the fronts are told to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Carries a request out on a task of its own, so that neither a client that goes away nor a stop cuts it in two.
async fn answer(plane: Arc<ControlPlane>, request: Vec<u8>) -> Option<Vec<u8>> {
    match tokio::spawn(async move { mi::handle(&plane, &request).await }).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::error!(%error, "a management command died");
            None
        }
    }
}
