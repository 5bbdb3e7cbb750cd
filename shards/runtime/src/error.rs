//! Why a start fails. Each text names the thing and the fix.

use crate::journal::JournalError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use strowger_sip::net::Transport;

/// Who holds what we want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder(pub Option<i32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) if pid.unsigned_abs() == std::process::id() => write!(f, "this process ({pid})"),
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process (not visible to this user)"),
        }
    }
}

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("data directory {} is in use by {holder}: stop it, or choose another with --data-dir", path.display())]
    DataDirInUse { path: PathBuf, holder: Holder },
    #[error("data directory {} cannot be used ({error}): create it and let this user write to it", path.display())]
    DataDir { path: PathBuf, error: io::Error },
    #[error("udp {addr} is in use by {holder}: stop it, or listen elsewhere with --listen udp:ADDR:PORT")]
    AddrInUse { addr: SocketAddr, holder: Holder },
    #[error("no permission to listen on udp {addr}: ports below 1024 need CAP_NET_BIND_SERVICE")]
    AddrDenied { addr: SocketAddr },
    #[error("udp {addr} is no address of this machine: listen on one of its own or on a wildcard and --advertise")]
    AddrUnknown { addr: SocketAddr },
    #[error("cannot listen on udp {addr}: {error}")]
    Listen { addr: SocketAddr, error: io::Error },
    #[error("listener {}:{addr} is not available: only udp listeners are", transport.via_name().to_ascii_lowercase())]
    Transport { transport: Transport, addr: SocketAddr },
    #[error("no listener given: name at least one, for example --listen udp:127.0.0.1:5060")]
    NoListener,
    #[error("{0} listeners given, at most 255 are possible")]
    TooManyListeners(usize),
    #[error("{shards} shards asked for, but 1 to 1024 are possible")]
    Shards { shards: u16 },
    #[error("{bound} shards were bound, but the configuration is for {configured}")]
    ShardsDiffer { bound: u16, configured: u16 },
    #[error("lock file {} cannot be opened: {error}", path.display())]
    LockFile { path: PathBuf, error: io::Error },
    #[error(
        "only {limit} bytes of memory may be locked, {needed} are needed for io_uring: raise it (ulimit -l unlimited, or \
         LimitMEMLOCK=infinity in the systemd unit)"
    )]
    Memlock { limit: u64, needed: u64 },
    #[error(
        "io_uring is not usable ({error}): allow it (sysctl kernel.io_uring_disabled=0; containers need the \
         io_uring_* calls in their seccomp profile)"
    )]
    IoUring { error: io::Error },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("shard {shard} did not start: {reason}")]
    Executor { shard: u16, reason: String },
}

impl StartError {
    /// The kernel's refusal of a bind, in our words.
    pub(crate) fn bind(addr: SocketAddr, error: io::Error) -> StartError {
        match error.raw_os_error() {
            Some(libc::EADDRINUSE) => StartError::AddrInUse { addr, holder: Holder(crate::lock::udp_holder(addr)) },
            Some(libc::EACCES) => StartError::AddrDenied { addr },
            Some(libc::EADDRNOTAVAIL) => StartError::AddrUnknown { addr },
            _ => StartError::Listen { addr, error },
        }
    }
}
