//! CPU and memory of another process of this machine: the server under test.

use std::{io, time::Duration};

/// A process being watched.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    clock: libc::clockid_t,
}

impl Process {
    /// Starts to watch a process by its id.
    ///
    /// # Errors
    /// No such process.
    pub fn watch(pid: u32) -> io::Result<Self> {
        let mut clock = 0;
        let known = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
        // SAFETY: `clock` is written by the call and lives through it.
        match unsafe { libc::clock_getcpuclockid(known, &raw mut clock) } {
            0 => Ok(Self { pid, clock }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// CPU time, user and system, of all its threads since it began; `None` once it is gone.
    pub fn cpu(&self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is written by the call and lives through it.
        let result = unsafe { libc::clock_gettime(self.clock, &raw mut time) };
        (result == 0).then(|| Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec as u32))
    }

    /// Resident memory in bytes; `None` once it is gone.
    pub fn memory(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let this = Process::watch(std::process::id()).unwrap();
        let before = this.cpu().unwrap();
        while this.cpu().unwrap() == before {
            std::hint::spin_loop();
        }
        assert!(this.memory().unwrap() > 100_000);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Process::watch(u32::MAX).is_err());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(Process::watch(pid).map_or(true, |gone| gone.cpu().is_none() && gone.memory().is_none()));
    }
}
