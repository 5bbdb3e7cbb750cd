//! The process' memory: none of a shard's calls is to wait for the machine to give some.
//!
//! A page that is touched for the first time is cleared by the kernel. One of 4 KiB takes about a microsecond; a huge one, of
//! 2 MiB, up to six milliseconds, and mimalloc asks for those: a loaded shard stood still several times a second. A server does
//! without them, and may take its memory at the start.

use libmimalloc_sys::{mi_option_set, mi_option_t};
use std::fs::read_to_string;
use std::path::Path;

const MIB: u64 = 1 << 20;
/// Smallest page of the machines that we run on, bytes.
const PAGE: usize = 4096;
/// `mi_option_purge_delay` of mimalloc 3, which its crate does not name.
const PURGE_DELAY: mi_option_t = 15;

#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("shards.reserve_mb is {wanted}, and only {free} MiB of memory are free here: set it to less")]
    TooMuch { wanted: u64, free: u64 },
}

/// Has the allocator take so many MiB, and keep from then on whatever it has taken. 0: nothing of it.
///
/// # Errors
/// [`MemoryError`]; nothing is taken then.
pub fn reserve(wanted: u64) -> Result<(), MemoryError> {
    if wanted == 0 {
        return Ok(());
    }
    if let Some(free) = free_bytes().map(|free| free / MIB).filter(|free| *free <= wanted) {
        return Err(MemoryError::TooMuch { wanted, free });
    }
    // SAFETY: takes two integers; options may be set at any time, by any thread.
    unsafe { mi_option_set(PURGE_DELAY, -1) };
    let touched = |_| {
        let mut block = Vec::<u8>::with_capacity(MIB as usize);
        for page in block.spare_capacity_mut().iter_mut().step_by(PAGE) {
            std::hint::black_box(page.write(0));
        }
        block
    };
    drop((0..wanted).map(touched).collect::<Vec<_>>());
    Ok(())
}

/// Has the kernel give this process no huge pages any more. Those that it has it keeps.
pub fn without_huge_pages() {
    let [on, none]: [libc::c_ulong; 2] = [1, 0];
    // SAFETY: prctl takes five longs here, and changes nothing but how page faults of this process are served.
    let done = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, none, none, none) };
    if done != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "huge pages cannot be done without: calls may wait for some milliseconds while memory grows");
    }
}

/// What the machine, and this process' control group, have left, bytes; unknown where neither says.
fn free_bytes() -> Option<u64> {
    let machine = read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    [machine, group_left()].into_iter().flatten().min()
}

/// `MemAvailable` of /proc/meminfo.
fn available(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Of the limits of the control group (version 2) and of those that it is in. What is of files there can be taken back.
fn group_left() -> Option<u64> {
    let groups = read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let inside = Path::new("/sys/fs/cgroup");
    inside.join(path).ancestors().take_while(|group| group.starts_with(inside)).filter_map(left_in).min()
}

/// `None`: the group has no limit.
fn left_in(group: &Path) -> Option<u64> {
    let read = |name: &str| read_to_string(group.join(name)).ok();
    let number = |name: &str| -> Option<u64> { read(name)?.trim().parse().ok() };
    let limit = number("memory.max")?;
    let files: u64 = read("memory.stat").map_or(0, |text| of_files(&text));
    Some(limit.saturating_sub(number("memory.current")?.saturating_sub(files)))
}

/// Bytes of files in a group's `memory.stat`.
fn of_files(stat: &str) -> u64 {
    let lines = stat.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter(|(name, _)| matches!(*name, "active_file" | "inactive_file"))
        .filter_map(|(_, n)| n.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_read_as_linux_tells_it() {
        assert_eq!(available("MemTotal:       24612340 kB\nMemAvailable:     20480 kB\n"), Some(20 << 20));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(of_files("anon 7\nactive_file 30\ninactive_file 12\nfile_mapped 9\n"), 42);
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("memory.current", "100\n");
        write("memory.max", "max\n");
        assert_eq!(left_in(dir.path()), None);
        write("memory.max", "150\n");
        assert_eq!(left_in(dir.path()), Some(50));
        write("memory.stat", "active_file 30\n");
        assert_eq!(left_in(dir.path()), Some(80));
        assert!(free_bytes().is_some_and(|free| free > 0));
    }

    #[test]
    fn more_than_there_is_is_refused_by_name() {
        let error = reserve(1 << 30).unwrap_err().to_string();
        assert!(error.contains("shards.reserve_mb is 1073741824, and only"), "{error}");
        assert!(error.ends_with("set it to less"), "{error}");
    }
}
