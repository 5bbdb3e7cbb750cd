//! Processes: started on a core of their own, ended with us, their CPU and memory as the kernel counts them.

use loadtest::Process;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The cores that this process may use.
///
/// # Errors
/// `/proc` does not say.
pub fn cores() -> Result<Vec<u32>, String> {
    let status = read("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.and_then(|list| core_list(list.trim())).ok_or_else(|| "/proc/self/status: no list of cores".to_owned())
}

/// `0-2,5` as numbers.
fn core_list(list: &str) -> Option<Vec<u32>> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

/// `0,1` of numbers.
pub fn comma(cores: &[u32]) -> String {
    cores.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// A program held to cores, that gets SIGTERM when this one is gone.
pub fn held(cores: &str, under: &[String], program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "taskset", "--cpu-list", cores]).args(under).arg(program);
    command
}

/// CPU time of a process at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    used: Duration,
    pub at: Instant,
}

impl Cpu {
    /// # Errors
    /// No such process.
    pub fn of(pid: u32) -> Result<Self, String> {
        let used = watched(pid)?.cpu().ok_or_else(|| format!("process {pid} has gone"))?;
        Ok(Self { used, at: Instant::now() })
    }

    /// Seconds of CPU since then.
    pub fn since(&self, then: &Self) -> f64 {
        self.used.saturating_sub(then.used).as_secs_f64()
    }

    /// Seconds of CPU since the process began.
    pub fn whole(&self) -> f64 {
        self.used.as_secs_f64()
    }
}

/// Resident bytes, what is shared with files included.
///
/// # Errors
/// No such process.
pub fn resident(pid: u32) -> Result<u64, String> {
    watched(pid)?.memory().ok_or_else(|| format!("process {pid} has gone"))
}

fn watched(pid: u32) -> Result<Process, String> {
    Process::watch(pid).map_err(|e| format!("process {pid}: {e}"))
}

/// Sends a signal by its name, such as `TERM`.
pub fn signal(pid: u32, name: &str) {
    // It may be gone already.
    let _ =
        Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(std::process::Stdio::null()).status();
}

/// Waits until it is so, looking every few milliseconds.
///
/// # Errors
/// It was not so within the time.
pub fn until(what: &str, limit: Duration, mut so: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let began = Instant::now();
    while !so()? {
        if began.elapsed() > limit {
            return Err(format!("not within {} s: {what}", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Holds the calling thread to a core.
pub fn pin_this_thread(core: u32) {
    let me = std::fs::read_link("/proc/thread-self").ok();
    let id = me.as_deref().and_then(Path::file_name).and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    // Without it the figures are noisier, not wrong.
    let _ = Command::new("taskset").args(["-p", "-c", &core.to_string(), &id]).output();
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))
}

/// Holds processes to a part of a core, by a control group of their own (version 1 or 2).
#[derive(Debug)]
pub struct Quota {
    dir: std::path::PathBuf,
}

/// Microseconds in which the share must be kept: short, so that what is held stands still for a few milliseconds only.
const PERIOD_US: u32 = 5_000;

impl Quota {
    /// # Errors
    /// No right to make a control group, or no control of CPU in this machine.
    pub fn of(pid: u32, share: f64) -> Result<Self, String> {
        let one = Path::new("/sys/fs/cgroup/cpu");
        let old = one.join("cpu.cfs_quota_us").exists();
        let root = if old { one } else { Path::new("/sys/fs/cgroup") };
        let this = Self { dir: root.join(format!("strowger-rows-{pid}")) };
        let fault = |e: std::io::Error| format!("no control group for the part of a core (are you root?): {e}");
        std::fs::create_dir(&this.dir).map_err(fault)?;
        let us = (share * f64::from(PERIOD_US)) as u32;
        let files = if old {
            vec![("cpu.cfs_period_us", PERIOD_US.to_string()), ("cpu.cfs_quota_us", us.to_string())]
        } else {
            vec![("cpu.max", format!("{us} {PERIOD_US}"))]
        };
        for (file, text) in files.into_iter().chain([("cgroup.procs", pid.to_string())]) {
            std::fs::write(this.dir.join(file), text).map_err(fault)?;
        }
        Ok(this)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // Busy until the process has gone, which is waited for before.
        let _ = std::fs::remove_dir(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_have_ranges() {
        assert_eq!(core_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(core_list("x"), None);
        assert_eq!(comma(&[1, 3]), "1,3");
    }

    #[test]
    fn this_process_has_cpu_and_memory() {
        let me = std::process::id();
        let before = Cpu::of(me).unwrap();
        until("CPU is used", Duration::from_secs(30), || Ok(Cpu::of(me)?.since(&before) > 0.001)).unwrap();
        assert!(resident(me).unwrap() > 100_000 && !cores().unwrap().is_empty());
        assert!(Cpu::of(u32::MAX).is_err() && resident(u32::MAX).is_err());
    }
}
