//! The phases of a call whose latencies are kept, and their histograms.
//!
//! Every latency counts from the *intended* time of sending, so that a generator (or a target) that stalls does not
//! hide the calls that it delayed: no coordinated omission. But an agent's time to its next call counts from when its last
//! BYE left, and every one ends when the message was in the kernel: what the generator does with it then is not the target's.

use hdrhistogram::Histogram;

/// What a latency is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    First,
    Trying,
    Ringing,
    Setup,
    QueueSetup,
    FreeToInvite,
    ArrivalToInvite,
    Bye,
    Wait,
}

impl Phase {
    pub const ALL: [Self; 9] = [
        Self::First,
        Self::Trying,
        Self::Ringing,
        Self::Setup,
        Self::QueueSetup,
        Self::FreeToInvite,
        Self::ArrivalToInvite,
        Self::Bye,
        Self::Wait,
    ];

    /// Its name on the command line, and as the tag in interval logs.
    pub fn key(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Trying => "trying",
            Self::Ringing => "ringing",
            Self::Setup => "setup",
            Self::QueueSetup => "queue-setup",
            Self::FreeToInvite => "free-to-invite",
            Self::ArrivalToInvite => "arrival-to-invite",
            Self::Bye => "bye",
            Self::Wait => "wait",
        }
    }

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::First => "INVITE to first answer",
            Self::Trying => "INVITE to 100",
            Self::Ringing => "INVITE to 180",
            Self::Setup => "INVITE to 200",
            Self::QueueSetup => "INVITE to 200, into the queue",
            Self::FreeToInvite => "agent free to INVITE, call waiting",
            Self::ArrivalToInvite => "call to INVITE, agent waiting",
            Self::Bye => "BYE to 200",
            Self::Wait => "INVITE to talk",
        }
    }

    /// What it holds, in a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::First => {
                "The caller's INVITE to whatever answer came first: the target's own time, no ringing in it."
            }
            Self::Trying => "The caller's INVITE to its 100 Trying.",
            Self::Ringing => "The caller's INVITE to a 180 or 183.",
            Self::Setup => {
                "The caller's INVITE to its 200: with ringing where a phone answers, without where music does."
            }
            Self::QueueSetup => "The same, of callers who were first connected to a media server.",
            Self::FreeToInvite => {
                "An agent's last BYE on the wire, plus wrap-up, to the next INVITE at that agent, while calls waited."
            }
            Self::ArrivalToInvite => "A call ready for an agent to the INVITE at that agent, who had been idle.",
            Self::Bye => "A BYE to its 200.",
            Self::Wait => "The caller's INVITE until caller and agent hear each other: queueing and ringing too.",
        }
    }
}

impl std::str::FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|phase| phase.key() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|phase| phase.key()).collect();
            format!("`{text}` is no phase; write one of {}", known.join(", "))
        })
    }
}

const HIGHEST_US: u64 = 600_000_000;

fn empty() -> Histogram<u64> {
    // The bounds are constants that hdrhistogram accepts: the error cannot happen.
    Histogram::new_with_bounds(1, HIGHEST_US, 3).expect("constant bounds")
}

/// A histogram for each phase: microseconds, 1 us to 10 minutes, three digits.
#[derive(Debug, Clone)]
pub struct Histograms {
    phases: [Histogram<u64>; Phase::ALL.len()],
    /// INVITE to 200 by [`Live::epoch`](crate::Live::epoch): calls that were set up in the epoch in which they began.
    pub setup_by_epoch: Vec<Histogram<u64>>,
}

impl Default for Histograms {
    fn default() -> Self {
        Self { phases: std::array::from_fn(|_| empty()), setup_by_epoch: Vec::new() }
    }
}

impl Histograms {
    /// The histogram of a phase.
    pub fn of(&self, phase: Phase) -> &Histogram<u64> {
        &self.phases[phase as usize]
    }

    /// Each phase with its histogram.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, &Histogram<u64>)> {
        Phase::ALL.into_iter().zip(&self.phases)
    }

    /// Adds one latency given in nanoseconds.
    pub(crate) fn record(&mut self, phase: Phase, nanos: u64) {
        self.phases[phase as usize].saturating_record((nanos / 1000).clamp(1, HIGHEST_US));
    }

    /// A call was set up in the epoch in which it began.
    pub(crate) fn set_up_in(&mut self, epoch: usize, nanos: u64) {
        let epochs = &mut self.setup_by_epoch;
        while epochs.len() <= epoch {
            epochs.push(empty());
        }
        epochs[epoch].saturating_record((nanos / 1000).clamp(1, HIGHEST_US));
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        // All have the same bounds: adding cannot fail.
        let add = |to: &mut Histogram<u64>, from: &Histogram<u64>| {
            if !from.is_empty() {
                let _ = to.add(from);
            }
        };
        self.phases.iter_mut().zip(&other.phases).for_each(|(to, from)| add(to, from));
        while self.setup_by_epoch.len() < other.setup_by_epoch.len() {
            self.setup_by_epoch.push(empty());
        }
        self.setup_by_epoch.iter_mut().zip(&other.setup_by_epoch).for_each(|(to, from)| add(to, from));
    }

    /// Empties all, and keeps their memory.
    pub(crate) fn clear(&mut self) {
        // Resetting is as dear as the whole range is long: most phases of an interval have nothing to reset.
        self.phases.iter_mut().filter(|phase| !phase.is_empty()).for_each(Histogram::reset);
        self.setup_by_epoch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_told_apart() {
        let mut histograms = Histograms::default();
        histograms.set_up_in(2, 5_000_000);
        histograms.set_up_in(0, 1_000_000);
        let counts: Vec<u64> = histograms.setup_by_epoch.iter().map(Histogram::len).collect();
        assert_eq!(counts, [1, 0, 1]);
    }

    #[test]
    fn parts_add_up_and_are_emptied() {
        let (mut whole, mut part) = (Histograms::default(), Histograms::default());
        for millis in [3, 4] {
            part.record(Phase::Bye, millis * 1_000_000);
            part.set_up_in(1, 1_000_000);
            whole.add(&part);
            part.clear();
        }
        assert_eq!(whole.of(Phase::Bye).len(), 2);
        assert_eq!((whole.of(Phase::Bye).min(), part.of(Phase::Bye).len()), (3_000, 0));
        assert_eq!(whole.setup_by_epoch[1].len(), 2);
        assert!(part.setup_by_epoch.is_empty());
    }

    #[test]
    fn phases_are_found_by_their_keys() {
        for phase in Phase::ALL {
            assert_eq!(phase.key().parse(), Ok(phase));
            assert!(!phase.title().is_empty() && phase.meaning().ends_with('.'));
        }
        assert!("set-up".parse::<Phase>().unwrap_err().contains("queue-setup"));
    }
}
