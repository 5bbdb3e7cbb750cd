//! The one clock of the data plane: CLOCK_MONOTONIC for decisions, CLOCK_REALTIME for what is written down.

use strowger_sip::time::{Mono, Now};

/// Nanoseconds of CLOCK_MONOTONIC.
#[must_use]
pub fn mono_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds since 1970 (CLOCK_REALTIME, which the kernel stamps datagrams with).
#[must_use]
pub fn unix_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec that outlives the call; both clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut t) };
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// Both clocks from one cheap reading: the distance between them is measured again every [`RESYNC_NS`], so a
/// stepped wall clock shows soon, and an input costs one reading.
#[derive(Debug)]
pub struct Clock {
    /// `unix - mono`, nanoseconds.
    offset_ns: u64,
    measured_ns: u64,
}

/// Nanoseconds between two measurements of the distance between the clocks.
const RESYNC_NS: u64 = 50_000_000;

impl Default for Clock {
    fn default() -> Clock {
        let mono = mono_ns();
        Clock { offset_ns: unix_ns().saturating_sub(mono), measured_ns: mono }
    }
}

impl Clock {
    /// Nanoseconds of the monotonic clock, and the same instant for the engine.
    pub fn now(&mut self) -> (u64, Now) {
        let mono = mono_ns();
        if mono.saturating_sub(self.measured_ns) >= RESYNC_NS {
            *self = Clock::default();
        }
        (mono, self.at(mono))
    }

    /// The engine's view of a monotonic instant.
    #[must_use]
    pub fn at(&self, mono_ns: u64) -> Now {
        Now { mono: Mono(mono_ns / 1000), unix_us: (mono_ns + self.offset_ns) / 1000 }
    }

    /// The monotonic instant (nanoseconds) of a kernel receive stamp.
    #[must_use]
    pub const fn mono_of_unix(&self, unix_ns: u64) -> u64 {
        unix_ns.saturating_sub(self.offset_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_of_an_instant_agree_with_the_system() {
        let mut clock = Clock::default();
        let (ns, now) = clock.now();
        assert_eq!(now.mono, Mono(ns / 1000));
        let wall = unix_ns();
        assert!(wall.abs_diff(now.unix_us * 1000) < 50_000_000, "{wall} {now:?}");
        assert!(clock.mono_of_unix(wall).abs_diff(mono_ns()) < 50_000_000);
    }
}
