//! Inside callgrind: tells it what to count. Outside: runs it, and reads what it found.

use std::arch::asm;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use strowger_bench::Meter;

/// The argument of the run under callgrind.
pub const INSIDE: &str = "inside";
/// The step that shows what measuring itself takes.
pub const NOTHING: &str = "nothing";
/// Events of a run, in callgrind's order, for one operation: instructions, then (with a simulated cache) reads, writes and misses.
pub type Counts = BTreeMap<String, Vec<f64>>;

/// Instructions, reads, writes; misses of the first cache (instructions, reads, writes), and of the last.
const EVENTS: usize = 9;

/// Client requests of callgrind, from `callgrind.h` of valgrind 3.x: tool base 'C' 'T'.
const ZERO: u64 = 0x4354_0001;
const TOGGLE: u64 = 0x4354_0002;
const DUMP_AT: u64 = 0x4354_0003;
const START: u64 = 0x4354_0004;
const STOP: u64 = 0x4354_0005;

fn client_request(request: u64, argument: u64) {
    let arguments = [request, argument, 0, 0, 0, 0];
    // SAFETY: valgrind's client request for x86-64 (valgrind.h, `VALGRIND_DO_CLIENT_REQUEST_EXPR`): rdi comes back as it was, since it is
    // rotated by 128 bits in all, and on a processor the exchange of rbx with itself does nothing. rax points to the arguments, which live
    // until then; rdx takes the result. Valgrind reads memory (the arguments, and the text that a dump is named by, which its caller owns).
    unsafe {
        asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") 0u64 => _,
            options(nostack),
        );
    }
}

/// A meter that has callgrind count.
#[derive(Debug, Default)]
pub struct Callgrind {
    counts: bool,
}

impl Meter for Callgrind {
    #[inline(never)]
    fn measure<R>(&mut self, step: &str, times: u32, work: impl FnOnce() -> R) -> R {
        if !self.counts {
            client_request(START, 0);
            client_request(ZERO, 0);
            self.counts = true;
        }
        let name = CString::new(format!("{step} x{times}")).unwrap_or_default();
        client_request(TOGGLE, 0);
        let result = black_box(work)();
        client_request(TOGGLE, 0);
        client_request(DUMP_AT, name.as_ptr() as u64);
        result
    }

    fn prepare<R>(&mut self, work: impl FnOnce() -> R) -> R {
        if std::mem::take(&mut self.counts) {
            client_request(STOP, 0);
        }
        work()
    }
}

/// Runs this program under callgrind.
pub fn run(cache: bool) -> Result<Counts, String> {
    let dir = tempfile::tempdir().map_err(|e| format!("no folder for callgrind's files: {e}"))?;
    let out = dir.path().join("counts");
    let program = std::env::current_exe().map_err(|e| format!("where am I? {e}"))?;
    let run = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--instr-atstart=no",
            "--collect-atstart=no",
            "--combine-dumps=yes",
            "--error-exitcode=9",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--cache-sim={}", if cache { "yes" } else { "no" }))
        .arg(program)
        .arg(INSIDE)
        // Memory is copied alike whatever glibc would choose for a processor: names as of 2.33, and as before.
        .env("GLIBC_TUNABLES", TUNABLES)
        .env_remove("LD_PRELOAD")
        .output()
        .map_err(|e| format!("valgrind does not start (apt-get install valgrind): {e}"))?;
    if !run.status.success() {
        return Err(format!("under valgrind: {}\n{}", run.status, String::from_utf8_lossy(&run.stderr)));
    }
    read(&out)
}

const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX,-AVX_Usable,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM,-BMI2";

/// The parts of callgrind's file, each of which says what it was dumped for and sums its events up; means of those of one name, less what
/// measuring takes.
fn read(file: &Path) -> Result<Counts, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("callgrind wrote no {}: {e}", file.display()))?;
    let mut sums: BTreeMap<String, (f64, Vec<f64>)> = BTreeMap::new();
    let mut overhead = [0.0f64; EVENTS];
    let mut step = None;
    for line in text.lines() {
        if let Some(trigger) = line.strip_prefix("desc: Trigger: Client Request: ") {
            step =
                trigger.rsplit_once(" x").and_then(|(name, times)| Some((name.to_owned(), times.parse::<f64>().ok()?)));
        } else if let Some(events) = line.strip_prefix("totals: ")
            && let Some((name, times)) = step.take()
        {
            let mut counted = [0.0f64; EVENTS];
            counted.iter_mut().zip(events.split_whitespace()).for_each(|(to, n)| *to = n.parse().unwrap_or(0.0));
            if name == NOTHING {
                overhead = counted;
                continue;
            }
            let (count, sum) = sums.entry(name).or_insert((0.0, vec![0.0; EVENTS]));
            *count += 1.0;
            for ((sum, n), overhead) in sum.iter_mut().zip(counted).zip(overhead) {
                *sum += (n - overhead).max(0.0) / times;
            }
        }
    }
    if sums.is_empty() {
        return Err(format!("callgrind counted nothing: {}", text.lines().take(5).collect::<String>()));
    }
    Ok(sums.into_iter().map(|(name, (count, sum))| (name, sum.into_iter().map(|s| s / count).collect())).collect())
}
