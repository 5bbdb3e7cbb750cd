//! When a shard looks for work, and how much of its time its audit may take.

/// Looking for work again and again instead of sleeping: for a time after there was some, and before a timer is due.
/// Waking a thread up takes the machine tens of microseconds, on virtual ones hundreds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BusyPoll {
    /// 0: not at all.
    pub ns: u64,
    /// When there was work last, monotonic nanoseconds.
    worked_at: u64,
    /// Something may come until then.
    look_out: u64,
    share: Option<Share>,
    /// It polls no more until it has slept: its share is used up.
    tired: bool,
}

/// How long after an alert, nanoseconds: what another shard begins with has come by then.
const LOOK_OUT_NS: u64 = 200_000;

impl BusyPoll {
    pub fn new(us: u32) -> BusyPoll {
        BusyPoll { ns: u64::from(us) * 1000, worked_at: 0, look_out: 0, share: None, tired: false }
    }

    /// Nothing else runs on the processor while the shard does: it polls only as long as it rests for its part ([`Share`]).
    pub fn runs_alone(&mut self) {
        self.share = Some(Share::default());
    }

    /// Another shard begins to work on something that may concern this one.
    pub fn look_out(&mut self, now: u64) {
        self.look_out = now + LOOK_OUT_NS;
    }

    /// Whether to look again at once, after a turn that found work or not, with a timer due then.
    pub fn goes_on(&mut self, worked: bool, now: impl FnOnce() -> u64, due: Option<u64>) -> bool {
        if self.ns == 0 {
            return false;
        }
        let now = now();
        if worked {
            (self.worked_at, self.look_out) = (now, 0);
        }
        let hopes =
            now < self.look_out || now < self.worked_at + self.ns || due.is_some_and(|due| due <= now + self.ns);
        self.tired = self.share.as_mut().is_some_and(|share| !share.has_run(now));
        hopes && !self.tired
    }

    /// It has slept, and wakes up.
    pub fn woke(&mut self, now: impl FnOnce() -> u64) {
        if let Some(share) = self.share.as_mut().filter(|_| self.ns > 0) {
            share.has_rested(now());
        }
    }

    /// When to wake for a timer that is due then.
    pub fn wake_for(&self, due: u64) -> u64 {
        if self.tired { due } else { due.saturating_sub(self.ns) }
    }
}

/// The part of its time for which a thread runs that nothing else can interrupt: three quarters, if its work takes no more.
/// Polling for all that work leaves would starve the control plane where it shares the processor, and Linux halts such threads
/// for 50 ms in each second that they use up (`sched_rt_runtime_us`).
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    /// For how long it may run on, nanoseconds; less than nothing where its work took more.
    credit: i64,
    /// The clock when that was reckoned.
    at: u64,
}

/// What a nanosecond of rest is worth.
const RUNS_PER_REST: i64 = 3;
/// It runs for so long at a stretch before it rests, nanoseconds; and so much is owed at most.
const MOST_CREDIT_NS: i64 = 2_000_000;

impl Share {
    fn since(&mut self, now: u64) -> i64 {
        let then = std::mem::replace(&mut self.at, now);
        i64::try_from(now.saturating_sub(then)).unwrap_or(i64::MAX).min(MOST_CREDIT_NS)
    }

    /// It has run since it was asked last. Whether it may go on without work.
    fn has_run(&mut self, now: u64) -> bool {
        self.credit = (self.credit - self.since(now)).max(-MOST_CREDIT_NS);
        self.credit > 0
    }

    /// It has slept since then.
    fn has_rested(&mut self, now: u64) {
        self.credit = (self.credit + self.since(now) * RUNS_PER_REST).min(MOST_CREDIT_NS);
    }
}

/// An audit takes one part in so many of its shard's time.
const AUDIT_PARTS: u64 = 100;

/// Holds the audit to its share: after a slice it rests for 99 times as long as that took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AuditPace {
    /// Monotonic nanoseconds.
    rests_until: u64,
}

impl AuditPace {
    /// When a slice that wants to be done at `due` may be (monotonic nanoseconds).
    pub fn due(&self, due: u64) -> u64 {
        due.max(self.rests_until)
    }

    /// A slice that ended `now` took so much of the processor, nanoseconds.
    pub fn took(&mut self, now: u64, cpu: u64) {
        self.rests_until = now.saturating_add(cpu.saturating_mul(AUDIT_PARTS - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_goes_on_for_its_time_after_work_and_before_a_timer() {
        let mut poll = BusyPoll::new(100);
        let mut looks = |worked, now: u64, due| poll.goes_on(worked, || now * 1000, due);
        assert!(looks(true, 1000, None) && looks(false, 1099, None));
        assert!(!looks(false, 1100, None) && !looks(false, 1200, Some(1_301_000)));
        assert!(looks(false, 1201, Some(1_301_000)), "a timer is near");
        assert!(looks(true, 1301, None) && looks(false, 1400, None) && !looks(false, 1401, None));
        assert_eq!((poll.wake_for(1_301_000), poll.wake_for(5)), (1_201_000, 0));
        let mut alerted = BusyPoll::new(10);
        alerted.look_out(1_000_000);
        assert!(alerted.goes_on(false, || 1_199_999, None) && !alerted.goes_on(false, || 1_200_000, None));
        alerted.look_out(2_000_000);
        assert!(alerted.goes_on(true, || 2_000_001, None) && alerted.goes_on(false, || 2_010_000, None));
        assert!(!alerted.goes_on(false, || 2_010_001, None), "what it looked out for has come");
        let mut never = BusyPoll::new(0);
        assert!(!never.goes_on(true, || unreachable!("the clock is not read"), Some(0)));
        assert_eq!(never.wake_for(7), 7);
    }

    /// Time in which a shard runs, and polls, microseconds of a second, when it has work for `work` of each 100 us, and a timer
    /// due at the beginning of each.
    fn runs(poll: &mut BusyPoll, work: u64) -> (u64, u64) {
        let (mut ran, mut polled) = (0, 0);
        for step in 0..100_000u64 {
            let at = (1_000_000 + step * 10) * 1000;
            let due = (1_000_000 + (step / 10 + 1) * 100) * 1000;
            let worked = step % 10 < work / 10;
            if poll.goes_on(worked, || at, Some(due)) || worked || poll.wake_for(due) <= at {
                (ran, polled) = (ran + 10, polled + if worked { 0 } else { 10 });
            } else {
                poll.woke(|| at + 10_000);
            }
        }
        (ran, polled)
    }

    #[test]
    fn who_runs_alone_rests_for_a_quarter_of_its_time_unless_it_has_work() {
        for (work, ran) in
            [(0, 700_000..=752_000), (20, 700_000..=752_000), (50, 700_000..=752_000), (80, 800_000..=803_000)]
        {
            let mut poll = BusyPoll::new(100);
            poll.runs_alone();
            let (ran_us, polled_us) = runs(&mut poll, work);
            assert!(ran.contains(&ran_us), "{work} %: runs for {ran_us} us of a second, {polled_us} us without work");
        }
        assert_eq!(runs(&mut BusyPoll::new(100), 20).0, 1_000_000, "others can interrupt it");
        assert_eq!(runs(&mut BusyPoll::new(0), 20), (200_000, 0), "it sleeps until the timer is due");
    }

    #[test]
    fn an_audit_takes_no_more_than_its_share_however_long_its_slices_are() {
        for (slice_ns, least) in [(50_000, 49), (1_000_000, 9), (7_000_000, 1)] {
            let (mut pace, mut now, mut due, mut slices) = (AuditPace::default(), 0, 0, 0);
            loop {
                now = pace.due(due).max(now);
                if now >= 1_000_000_000 {
                    break;
                }
                (now, due, slices) = (now + slice_ns, now + 20_000_000, slices + 1);
                pace.took(now, slice_ns);
            }
            assert!((slices - 1) * slice_ns <= 10_000_000, "{slices} of {slice_ns} ns in a second");
            assert!(slices >= least, "{slices} of {slice_ns} ns in a second");
        }
    }
}
