//! The wall clock of the engine's machine, which operators and time servers set forward and back. No decision may depend on it:
//! what is timed goes on in monotonic time, and records tell what the clock said.

use crate::plan::SECOND;
use crate::rng::Rng;
use crate::world::{EPOCH, World};
use strowger_sip::time::{Mono, Now};

/// Steps are longer than a run, so that each reading was one moment.
const LEAST_STEP_US: u64 = 10 * 3600 * SECOND;

/// When the clock is set, and how far from the truth it is from then on.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub at_us: u64,
    pub skew_us: i64,
}

/// The clock is set some times.
pub fn draw_steps(r: &mut Rng, faults_us: u64) -> Vec<Step> {
    let count = r.range(1, 4);
    let mut at_us: Vec<u64> = (0..count).map(|_| r.below(faults_us)).collect();
    at_us.sort_unstable();
    let step = |(n, at_us): (u64, u64)| {
        let skew_us = ((n + 1) * LEAST_STEP_US + r.below(LEAST_STEP_US / 2)).cast_signed();
        Step { at_us, skew_us: if r.chance(500) { -skew_us } else { skew_us } }
    };
    (0..).zip(at_us).map(step).collect()
}

impl World {
    pub(crate) fn clock(&self) -> Now {
        Now { mono: Mono(self.now), unix_us: self.unix(self.now) }
    }

    /// What the wall clock says at a time, as it goes now.
    pub(crate) fn unix(&self, at: u64) -> u64 {
        (EPOCH + at).saturating_add_signed(self.ledger.stages.skew_us)
    }

    pub(crate) fn set_clock(&mut self, skew_us: i64) {
        self.saw(if skew_us < self.ledger.stages.skew_us { "clock set back" } else { "clock set forward" });
        self.trace.note(self.now, None, None, || format!("--- clock {} s from the truth ---", skew_us / SECOND as i64));
        self.ledger.stages.skew_us = skew_us;
        self.skews.push(skew_us);
    }

    /// When the wall clock said that; 0 for never.
    pub(crate) fn read_clock(&self, unix_us: u64) -> u64 {
        let at = |skew: &i64| unix_us.checked_add_signed(-skew)?.checked_sub(EPOCH).filter(|at| *at <= self.now);
        self.skews.iter().find_map(at).unwrap_or(0)
    }
}
