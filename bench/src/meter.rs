//! How a script says what of it is measured, and under which name.

/// Measures steps of a script.
pub trait Meter {
    /// Runs `work`, which does the same thing `times` times, and books what it took under `step`.
    fn measure<R>(&mut self, step: &str, times: u32, work: impl FnOnce() -> R) -> R;

    /// Runs what is not measured and may take long.
    fn prepare<R>(&mut self, work: impl FnOnce() -> R) -> R {
        work()
    }
}

/// Measures nothing: for the rounds before a script has its working size.
#[derive(Debug, Clone, Copy)]
pub struct Unmetered;

impl Meter for Unmetered {
    fn measure<R>(&mut self, _: &str, _: u32, work: impl FnOnce() -> R) -> R {
        work()
    }
}

/// Names as `group/step`, for a meter that knows `step` alone.
#[derive(Debug)]
pub struct Within<'a, M> {
    pub group: &'a str,
    pub meter: &'a mut M,
}

impl<M: Meter> Meter for Within<'_, M> {
    fn measure<R>(&mut self, step: &str, times: u32, work: impl FnOnce() -> R) -> R {
        self.meter.measure(&format!("{}/{step}", self.group), times, work)
    }
}
