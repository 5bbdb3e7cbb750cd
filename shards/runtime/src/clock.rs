//! The one clock of the data plane: CLOCK_MONOTONIC for decisions, CLOCK_REALTIME for what is written down.

use strowger_sip::time::{Mono, Now};

/// The machine's start is a year after the beginning of our time, so that what was before it, in calls that outlive a
/// loss of power, has a time.
const BOOT_NS: u64 = 365 * 24 * 3600 * 1_000_000_000;

/// Nanoseconds of CLOCK_MONOTONIC, and a year.
#[must_use]
pub fn mono_ns() -> u64 {
    BOOT_NS + read(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds since 1970 (CLOCK_REALTIME, which the kernel stamps datagrams with).
#[must_use]
pub fn unix_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// Nanoseconds of CPU time that this thread has used. Costs a system call.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec that outlives the call; these clocks exist on every Linux.
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

    /// Nanoseconds of the monotonic clock now, and when a datagram arrived that bears this kernel stamp. None, or one of
    /// the future (the wall clock was stepped), counts as now. Measures anew when due: a shard that has slept may be the
    /// first to see a step, and must not take a new call for an old one.
    pub fn arrival(&mut self, stamp_unix_ns: Option<u64>) -> (u64, u64) {
        let (now, _) = self.now();
        (now, stamp_unix_ns.map_or(now, |ns| ns.saturating_sub(self.offset_ns).min(now)))
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
        let (now, arrived) = clock.arrival(Some(wall));
        assert!(arrived <= now && now - arrived < 50_000_000);
        let (now, arrived) = clock.arrival(None);
        assert_eq!(now, arrived);
    }

    #[test]
    fn what_was_before_the_machine_started_is_as_long_ago_as_it_was() {
        let (_, now) = Clock::default().now();
        let quarter = 90 * 24 * 3600 * 1_000_000;
        assert_eq!(now.mono_of(now.unix_us - quarter), Mono(now.mono.0 - quarter));
    }

    #[test]
    fn a_step_of_the_wall_clock_while_the_shard_slept_makes_no_datagram_old() {
        let mono = mono_ns();
        // Measured before the sleep; since then the wall clock has gone back by ten seconds.
        let offset_ns = unix_ns().saturating_sub(mono) + 10_000_000_000;
        let mut clock = Clock { offset_ns, measured_ns: mono.saturating_sub(2 * RESYNC_NS) };
        let (now, arrived) = clock.arrival(Some(unix_ns()));
        assert!(now - arrived < 1_000_000_000, "{} ns old", now - arrived);
        // Forward: a stamp of the future is now.
        let (now, arrived) = clock.arrival(Some(unix_ns() + 10_000_000_000));
        assert_eq!(now, arrived);
    }
}
