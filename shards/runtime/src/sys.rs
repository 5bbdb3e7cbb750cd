//! System calls that neither std nor socket2 offers, each as a safe function.
//!
//! Every `unsafe` of this crate that is not about datagram batches (`net/batch.rs`) or the clock is here.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Registers this process for expedited memory barriers. Without it the first park of an executor stalls for 8 to
/// 18 ms. Call it before any executor starts. Failing is harmless: the barrier then takes its slow way.
pub fn register_membarrier() {
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 16;
    // SAFETY: membarrier takes two integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0) };
}

/// Lets this thread's timed waits end within a microsecond of their time rather than within the default 50.
pub fn precise_timeouts() {
    // SAFETY: PR_SET_TIMERSLACK takes an integer; it concerns the calling thread alone.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000 as libc::c_ulong, 0, 0, 0) };
}

/// `struct sched_attr` of Linux, its first version.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks the scheduler for short slices for this thread: when it wakes, one with longer slices makes way at once instead of at the end
/// of its own, up to 3 ms later. Linux 6.12 and newer; elsewhere nothing changes.
pub fn short_slices() {
    /// The shortest that Linux grants.
    const SLICE_NS: u64 = 100_000;
    let mut attr = SchedAttr::default();
    let size = u32::try_from(size_of::<SchedAttr>()).unwrap_or(0);
    // SAFETY: `attr` is valid for writes of `size` bytes for the whole call; 0 is this thread.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    if read == 0 && attr.policy == libc::SCHED_OTHER.unsigned_abs() {
        attr.runtime = SLICE_NS;
        // SAFETY: `attr` is valid for reads of the size in it for the whole call; it concerns this thread alone.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    }
}

/// Has this thread run before all others but the kernel's own: real-time, round-robin, at the least priority. Threads that it starts
/// run as usual.
///
/// # Errors
/// The kernel's: without `CAP_SYS_NICE` and with a limit of 0 on real-time priority (`RLIMIT_RTPRIO`) it is not permitted.
pub fn real_time() -> io::Result<()> {
    let least = libc::sched_param { sched_priority: 1 };
    // SAFETY: `least` is valid for reads for the whole call; 0 is this thread.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const least) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has this thread run behind others where CPU time is short, as all threads that it starts. For those that carry no calls.
pub fn step_behind() {
    be_nice(10);
}

/// The same for one that has ready what those need who carry calls: before all others that step behind.
pub fn step_aside() {
    be_nice(5);
}

/// By so much more than the process as it was started.
fn be_nice(by: libc::c_int) {
    // SAFETY: both take integers; for PRIO_PROCESS Linux means one thread: that which has the process' id is its first, 0 is the
    // calling one.
    unsafe {
        let whole = libc::getpriority(libc::PRIO_PROCESS, std::process::id());
        libc::setpriority(libc::PRIO_PROCESS, 0, whole + by);
    }
}

/// Has the kernel map this program's code, so that the first call of each kind does not wait for its pages. Where it cannot, the
/// pages come as they are needed.
pub fn fetch_program() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for line in maps.lines().filter(|l| l.contains(" r-xp ") && l.contains('/')) {
        let range = line.split(' ').next().and_then(|r| r.split_once('-'));
        let Some((from, to)) = range else { continue };
        let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16)) else { continue };
        let start = std::ptr::with_exposed_provenance_mut::<libc::c_void>(from);
        // SAFETY: MADV_POPULATE_READ reads pages in and changes no memory; a range that is no longer mapped is refused.
        unsafe { libc::madvise(start, to.saturating_sub(from), libc::MADV_POPULATE_READ) };
    }
}

/// The CPUs that this process may run on.
#[must_use]
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: cpu_set_t is plain integers, for which all zero bits are a valid value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writes of its size for the whole call.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Vec::new();
    }
    let most = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: CPU_ISSET reads `set` at an index below CPU_SETSIZE, which bounds the range.
    (0..most).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Sets an integer socket option.
pub fn set_option(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: the pointer is to `value`, alive for the call, and `size` is its size.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether `pid` is alive (or was never ours to ask).
#[must_use]
pub fn alive(pid: i32) -> bool {
    // SAFETY: signal 0 only asks; no memory is touched.
    pid > 0 && (unsafe { libc::kill(pid, 0) } == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM))
}

/// This process's effective user.
#[must_use]
pub fn effective_user() -> u32 {
    // SAFETY: takes and touches no memory; it cannot fail.
    unsafe { libc::geteuid() }
}

/// Bytes of a page of memory.
pub fn page_size() -> usize {
    // SAFETY: asks for a number that is always there.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(usize::MAX)
}

/// Of the file system in memory (tmpfs) that holds `path`: its size (0: without limit) and what is free of it, bytes. `None`: it
/// is of another kind.
///
/// # Errors
/// When there is no such path.
pub fn tmpfs_space(path: &Path) -> io::Result<Option<(u64, u64)>> {
    /// `TMPFS_MAGIC` of linux/magic.h.
    const TMPFS: u64 = 0x0102_1994;
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: statfs is plain integers, for which all zero bits are a valid value.
    let mut told: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero, `told` is valid for writes of its size; both outlive the call.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut told) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = |blocks: u64| blocks.saturating_mul(u64::try_from(told.f_bsize).unwrap_or(0));
    let free = if told.f_blocks == 0 { u64::MAX } else { bytes(told.f_bavail) };
    // The type of the field differs from one platform to the next.
    Ok((told.f_type as u64 & 0xffff_ffff == TMPFS).then_some((bytes(told.f_blocks), free)))
}

/// Descriptors to wait for, built once and used for every nap.
#[derive(Debug)]
pub struct PollSet(Vec<libc::pollfd>);

impl PollSet {
    /// `fds` must stay open as long as the set is used; a closed one only makes waits return at once.
    #[must_use]
    pub fn new(fds: impl IntoIterator<Item = RawFd>) -> PollSet {
        PollSet(fds.into_iter().map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect())
    }

    /// Blocks until a descriptor is readable or `timeout_ns` is over; true when one is readable.
    pub fn wait(&mut self, timeout_ns: u64) -> bool {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout_ns / 1_000_000_000).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::try_from(timeout_ns % 1_000_000_000).unwrap_or(0),
        };
        let count = libc::nfds_t::try_from(self.0.len()).unwrap_or(0);
        // SAFETY: the array is ours and `count` long, the timeout outlives the call, no signal mask is passed.
        unsafe { libc::ppoll(self.0.as_mut_ptr(), count, &raw const timeout, std::ptr::null()) > 0 }
    }

    /// Whether the last wait found descriptor `i` (or its end) readable.
    #[must_use]
    pub fn readable(&self, i: usize) -> bool {
        self.0.get(i).is_some_and(|p| p.revents != 0)
    }
}

/// Soft limit on locked memory, bytes.
#[must_use]
pub fn memlock_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes of a rlimit for the whole call.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    limit.rlim_cur
}

/// Sets an io_uring up and closes it again.
///
/// # Errors
/// The kernel's refusal: ENOSYS (too old), EPERM (forbidden by sysctl or seccomp), ENOMEM (limit).
pub fn try_io_uring() -> io::Result<()> {
    /// Bytes of `struct io_uring_params`.
    const PARAMS: usize = 120;
    let mut params = [0u64; PARAMS / 8];
    // SAFETY: `params` is PARAMS zeroed bytes, suitably aligned, valid for writes for the whole call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// Reads and throws away what a socket holds, without waiting.
pub fn drain(fd: BorrowedFd<'_>) {
    let mut sink = [0u8; 64];
    // SAFETY: `sink` is valid for writes of its length for the whole call.
    while unsafe { libc::recv(fd.as_raw_fd(), sink.as_mut_ptr().cast(), sink.len(), libc::MSG_DONTWAIT) } == 64 {}
}

/// Sends one byte without waiting; a full socket is as good as a sent byte for a wake.
pub fn poke(fd: BorrowedFd<'_>) {
    let byte = [1u8];
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `byte` is valid for reads of one byte for the whole call.
    unsafe { libc::send(fd.as_raw_fd(), byte.as_ptr().cast(), 1, flags) };
}

/// Room for an IPv4 or IPv6 socket address as the kernel writes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub union RawAddr {
    any: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddr {
    /// An address to be filled in by the kernel.
    #[must_use]
    pub const fn empty() -> RawAddr {
        let port = 0;
        let (sin6_flowinfo, sin6_scope_id) = (0, 0);
        let sin6_addr = libc::in6_addr { s6_addr: [0; 16] };
        RawAddr { v6: libc::sockaddr_in6 { sin6_family: 0, sin6_port: port, sin6_flowinfo, sin6_addr, sin6_scope_id } }
    }

    /// `addr` in the kernel's form, with its length.
    #[must_use]
    pub fn from_std(addr: SocketAddr) -> (RawAddr, libc::socklen_t) {
        let mut raw = RawAddr::empty();
        match addr {
            SocketAddr::V4(a) => {
                raw.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: a.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                    sin_zero: [0; 8],
                };
                (raw, size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            SocketAddr::V6(a) => {
                raw.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: a.port().to_be(),
                    sin6_flowinfo: a.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                    sin6_scope_id: a.scope_id(),
                };
                (raw, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }

    /// The address; `None` for another family.
    #[must_use]
    pub fn to_std(self) -> Option<SocketAddr> {
        // SAFETY: every constructor initialises the whole union, all variants begin with the family field and are
        // plain integers, so any of them may be read whatever the kernel wrote.
        let family = libc::c_int::from(unsafe { self.any });
        if family == libc::AF_INET {
            // SAFETY: as above.
            let a = unsafe { self.v4 };
            let ip = Ipv4Addr::from(a.sin_addr.s_addr.to_ne_bytes());
            return Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(a.sin_port))));
        }
        if family == libc::AF_INET6 {
            // SAFETY: as above.
            let a = unsafe { self.v6 };
            let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
            let port = u16::from_be(a.sin6_port);
            return Some(SocketAddr::V6(SocketAddrV6::new(ip, port, a.sin6_flowinfo, a.sin6_scope_id)));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn addresses_survive_the_kernels_form() {
        for text in ["127.0.0.1:5060", "203.0.113.7:65535", "[::1]:5060", "[fe80::1%3]:5061"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddr::from_std(addr).0.to_std(), Some(addr));
        }
        assert_eq!(RawAddr::empty().to_std(), None);
    }

    #[test]
    fn a_nap_ends_at_a_poke_or_at_its_time() {
        let (poker, sleeper) = UnixStream::pair().unwrap();
        let mut set = PollSet::new([sleeper.as_raw_fd()]);
        let began = crate::clock::mono_ns();
        assert!(!set.wait(2_000_000));
        assert!(crate::clock::mono_ns() - began >= 2_000_000);
        for _ in 0..3 {
            poke(poker.as_fd());
        }
        assert!(set.wait(u64::MAX / 4) && set.readable(0));
        drain(sleeper.as_fd());
        assert!(!set.wait(0));
    }

    /// The calling thread's policy.
    fn policy() -> i32 {
        // SAFETY: takes an integer; 0 is this thread.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn a_real_time_thread_is_alone_in_that() {
        let seen = std::thread::spawn(|| real_time().map(|()| (policy(), std::thread::spawn(policy).join().unwrap())));
        match seen.join().unwrap() {
            Ok((own, child)) => {
                assert_eq!((own, child), (libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, libc::SCHED_OTHER))
            }
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EPERM)),
        }
        assert_eq!(policy(), libc::SCHED_OTHER);
    }

    #[test]
    fn this_process_has_cpus_and_lives() {
        assert!(!allowed_cpus().is_empty());
        assert!(alive(i32::try_from(std::process::id()).unwrap()));
        assert!(!alive(0));
        assert!(memlock_limit() > 0);
    }
}
