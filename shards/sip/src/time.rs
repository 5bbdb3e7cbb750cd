//! Time as it enters the rooms without I/O: a value handed in with each input.

use std::ops::Add;
use std::time::Duration;

/// Microseconds on a monotonic clock (CLOCK_MONOTONIC and a year in production, virtual in the simulator).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// Microseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `us` microseconds after `self`.
    #[must_use]
    pub const fn plus_us(self, us: u64) -> Mono {
        Mono(self.0.saturating_add(us))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        self.plus_us(u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
    }
}

/// The two clocks of one instant: `mono` for every decision, `unix_us` (microseconds since 1970) only for what
/// is written down (CDRs, journal, lists).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    pub mono: Mono,
    pub unix_us: u64,
}

impl Now {
    /// A time of the monotonic clock as Unix time, by the two clocks' distance now.
    #[must_use]
    pub const fn unix_of(self, at: Mono) -> u64 {
        if at.0 >= self.mono.0 {
            self.unix_us.saturating_add(at.0 - self.mono.0)
        } else {
            self.unix_us.saturating_sub(self.mono.0 - at.0)
        }
    }

    /// The reverse of [`unix_of`](Self::unix_of). What was before the monotonic clock began is its beginning.
    #[must_use]
    pub const fn mono_of(self, unix_us: u64) -> Mono {
        if unix_us >= self.unix_us {
            Mono(self.mono.0.saturating_add(unix_us - self.unix_us))
        } else {
            Mono(self.mono.0.saturating_sub(self.unix_us - unix_us))
        }
    }
}
