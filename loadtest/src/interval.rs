//! What is told of a run while it goes on: an interval's latencies, counts and CPU, handed from the generator's thread
//! to a collector, which adds them up and shows them to whoever watches.
//!
//! The generator only swaps two pointers at the end of an interval; adding, logging and percentiles cost it nothing,
//! and so delay no call.

use std::{
    sync::{
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, Sender},
    },
    time::Duration,
};

use crate::{net::thread_cpu, phase::Histograms, report::Live};

/// Counters of [`Live`], read at one moment, or their growth over an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub offered: u64,
    pub answered: u64,
    pub abandoned: u64,
    pub refused: u64,
    pub failed: u64,
    pub received: u64,
    pub sent: u64,
    pub retransmissions: u64,
}

impl Counts {
    pub(crate) fn read(live: &Live) -> Self {
        Self {
            offered: live.offered.load(Relaxed),
            answered: live.answered.load(Relaxed),
            abandoned: live.abandoned.load(Relaxed),
            refused: live.refused.load(Relaxed),
            failed: live.failed.load(Relaxed),
            received: live.received.load(Relaxed),
            sent: live.sent.load(Relaxed),
            retransmissions: live.retransmissions.load(Relaxed),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            offered: self.offered - before.offered,
            answered: self.answered - before.answered,
            abandoned: self.abandoned - before.abandoned,
            refused: self.refused - before.refused,
            failed: self.failed - before.failed,
            received: self.received - before.received,
            sent: self.sent - before.sent,
            retransmissions: self.retransmissions - before.retransmissions,
        }
    }
}

/// Gauges of [`Live`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    pub waiting: i64,
    pub talking: i64,
    pub ringing: i64,
    pub agents_busy: i64,
}

impl Gauges {
    fn read(live: &Live) -> Self {
        Self {
            waiting: live.waiting.load(Relaxed),
            talking: live.talking.load(Relaxed),
            ringing: live.ringing.load(Relaxed),
            agents_busy: live.agents_busy.load(Relaxed),
        }
    }
}

/// One interval of a run.
#[derive(Debug, Default)]
pub struct Interval {
    /// Since the run began.
    pub start: Duration,
    pub length: Duration,
    pub histograms: Histograms,
    /// What happened in it.
    pub counts: Counts,
    /// How things stood at its end.
    pub gauges: Gauges,
    /// CPU time, user and system, of the generator's thread in it.
    pub cpu: Duration,
    /// The furthest that an arrival was behind its intended time.
    pub late: Duration,
}

/// The generator's side: closes intervals.
pub(crate) struct Intervals {
    length: Duration,
    began: Duration,
    cpu: Duration,
    counts: Counts,
    out: Sender<Box<Interval>>,
    back: Receiver<Box<Interval>>,
}

impl Intervals {
    pub fn new(length: Duration, live: &Live, out: Sender<Box<Interval>>, back: Receiver<Box<Interval>>) -> Self {
        let length = length.max(Duration::from_millis(10));
        Self { length, began: Duration::ZERO, cpu: thread_cpu(), counts: Counts::read(live), out, back }
    }

    /// When the present interval ends, since the run began.
    pub fn end(&self) -> Duration {
        self.began + self.length
    }

    /// Ends the interval: `current` is handed over, and an empty one is in its place.
    pub fn close(&mut self, now: Duration, live: &Live, current: &mut Box<Interval>) {
        // An emptied one comes back, unless the collector is late: then there is one more from now on.
        let fresh = self.back.try_recv().unwrap_or_default();
        let mut done = std::mem::replace(current, fresh);
        let (cpu, counts) = (thread_cpu(), Counts::read(live));
        done.start = self.began;
        done.length = now.saturating_sub(self.began);
        done.cpu = cpu.saturating_sub(self.cpu);
        done.counts = counts.since(self.counts);
        done.gauges = Gauges::read(live);
        (self.began, self.cpu, self.counts) = (now, cpu, counts);
        // The collector lives as long as the run does; if it panicked, the run's end tells.
        let _ = self.out.send(done);
    }
}

/// The collector's side: shows each interval, adds it to the whole, and sends its memory back.
pub(crate) fn collect(
    intervals: &Receiver<Box<Interval>>,
    back: &Sender<Box<Interval>>,
    observer: &mut dyn FnMut(&Interval),
) -> Histograms {
    let mut whole = Histograms::default();
    for mut interval in intervals {
        observer(&interval);
        whole.add(&interval.histograms);
        interval.histograms.clear();
        interval.late = Duration::ZERO;
        // At the end of the run nobody takes it any more.
        let _ = back.send(interval);
    }
    whole
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::phase::Phase;

    #[test]
    fn intervals_add_up_to_the_whole_and_are_used_again() {
        let live = Live::default();
        let ((out, intervals), (give, back)) = (channel(), channel());
        let mut closer = Intervals::new(Duration::from_secs(1), &live, out, back);
        let mut current = Box::<Interval>::default();
        assert_eq!(closer.end(), Duration::from_secs(1));
        for (second, calls) in [(1, 3), (2, 0), (3, 2)] {
            live.offered.fetch_add(calls, Relaxed);
            (0..calls).for_each(|_| current.histograms.record(Phase::Bye, second * 1_000_000));
            closer.close(Duration::from_secs(second), &live, &mut current);
        }
        drop(closer);
        let mut seen = Vec::new();
        let whole = collect(&intervals, &give, &mut |interval| {
            let bye = interval.histograms.of(Phase::Bye);
            seen.push((interval.start.as_secs(), interval.length.as_secs(), interval.counts.offered, bye.len()));
        });
        assert_eq!(seen, [(0, 1, 3, 3), (1, 1, 0, 0), (2, 1, 2, 2)]);
        assert_eq!(whole.of(Phase::Bye).len(), 5);
    }
}
