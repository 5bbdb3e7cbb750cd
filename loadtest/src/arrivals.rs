//! When calls arrive. Always open-loop: arrivals never wait for the target.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, rngs::SmallRng};

use crate::{dist::parse_duration, scenario::Scenario, timers::Nanos};

/// How the times of arrivals are made.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Arrivals {
    /// One every 1/rate seconds.
    Fixed,
    /// Exponential gaps with that mean, as independent callers make them.
    #[default]
    Poisson,
    /// At these times, in this order; see [`read_arrivals`].
    Listed(Arc<[Arrival]>),
}

/// One listed arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Since the run began.
    pub at: Duration,
    /// The flow that is dialled; `None`: drawn by the scenario's weights.
    pub flow: Option<Arc<str>>,
}

/// A line that is no arrival.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArrivalsError {
    #[error("line {line}: `{text}` is no arrival; write TIME or TIME FLOW, such as `12.5` or `12.5 support`")]
    Line { line: usize, text: String },
    #[error("no arrival in it; write one a line, TIME or TIME FLOW, such as `12.5 support`")]
    Empty,
}

/// Reads a list of arrivals: one a line, `TIME` or `TIME FLOW`, separated by white space or a comma. TIME is in seconds
/// since the start (`12.5`) or has a unit (`200ms`); lines may be in any order; what follows `#` is no part of it.
///
/// # Errors
/// The first line that cannot be read, with its number.
pub fn read_arrivals(text: &str) -> Result<Arrivals, ArrivalsError> {
    let mut list = Vec::new();
    for (number, whole) in text.lines().enumerate() {
        let line = whole.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let bad = || ArrivalsError::Line { line: number + 1, text: whole.trim().to_owned() };
        let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
        let at = words.next().and_then(|time| parse_duration(time).ok()).ok_or_else(bad)?;
        let flow = words.next().map(Arc::from);
        if words.next().is_some() {
            return Err(bad());
        }
        list.push(Arrival { at, flow });
    }
    if list.is_empty() {
        return Err(ArrivalsError::Empty);
    }
    list.sort_by_key(|arrival| arrival.at);
    Ok(Arrivals::Listed(list.into()))
}

/// The arrivals of a run, one after the other.
pub(crate) struct Schedule {
    arrivals: Arrivals,
    gap: f64,
    until: Nanos,
    left: u64,
    /// Exact time of the next arrival, in nanoseconds.
    exact: f64,
    /// Where a list is read.
    at: usize,
    /// `None` when there are no more.
    pub next: Option<Nanos>,
    pub stopped: bool,
}

impl Schedule {
    pub fn new(scenario: &Scenario) -> Self {
        let mut schedule = Self {
            arrivals: scenario.arrivals.clone(),
            gap: 1e9 / scenario.rate,
            until: scenario.duration.as_nanos() as Nanos,
            left: scenario.max_calls.unwrap_or(u64::MAX),
            exact: 0.0,
            at: 0,
            next: None,
            stopped: !scenario.callers,
        };
        let first = match &schedule.arrivals {
            Arrivals::Listed(list) => list.first().map(|arrival| arrival.at.as_nanos() as Nanos),
            _ => Some(0),
        };
        schedule.next = first.filter(|at| *at < schedule.until && schedule.left > 0);
        schedule
    }

    /// The flow that the next arrival dials, where the list says.
    pub fn flow(&self) -> Option<Arc<str>> {
        match &self.arrivals {
            Arrivals::Listed(list) => list.get(self.at)?.flow.clone(),
            _ => None,
        }
    }

    pub fn advance(&mut self, rng: &mut SmallRng) {
        self.left -= 1;
        let next = match &self.arrivals {
            Arrivals::Fixed => {
                self.exact += self.gap;
                Some(self.exact as Nanos)
            }
            Arrivals::Poisson => {
                self.exact += -(1.0 - rng.random::<f64>()).ln() * self.gap;
                Some(self.exact as Nanos)
            }
            Arrivals::Listed(list) => {
                self.at += 1;
                list.get(self.at).map(|arrival| arrival.at.as_nanos() as Nanos)
            }
        };
        self.next = next.filter(|at| *at < self.until && self.left > 0);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn times(scenario: &Scenario) -> Vec<Nanos> {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut schedule = Schedule::new(scenario);
        let mut times = Vec::new();
        while let Some(at) = schedule.next {
            times.push(at);
            schedule.advance(&mut rng);
        }
        times
    }

    #[test]
    fn arrivals_keep_their_rate() {
        let scenario = Scenario {
            rate: 1000.0,
            duration: Duration::from_secs(20),
            arrivals: Arrivals::Fixed,
            ..Scenario::default()
        };
        let fixed = times(&scenario);
        assert_eq!((fixed.len(), fixed[7]), (20_000, 7_000_000));
        let poisson = times(&Scenario { arrivals: Arrivals::Poisson, ..scenario.clone() }).len();
        assert!((19_400..20_600).contains(&poisson), "{poisson}");
        assert_eq!(times(&Scenario { max_calls: Some(12), ..scenario }).len(), 12);
    }

    #[test]
    fn a_list_is_played_in_the_order_of_its_times() {
        let text = "# morning\n0.5 sales\n\n200ms, support # first\n7\n0.5\n";
        let arrivals = read_arrivals(text).unwrap();
        let scenario = Scenario { arrivals, duration: Duration::from_secs(5), ..Scenario::default() };
        assert_eq!(times(&scenario), [200_000_000, 500_000_000, 500_000_000]);
        let mut schedule = Schedule::new(&scenario);
        let mut flows = Vec::new();
        while schedule.next.is_some() {
            flows.push(schedule.flow().as_deref().map(str::to_owned));
            schedule.advance(&mut SmallRng::seed_from_u64(1));
        }
        assert_eq!(flows, [Some("support".to_owned()), Some("sales".to_owned()), None]);
    }

    #[test]
    fn a_bad_list_says_where() {
        for (text, line) in [("1\nsoon", 2), ("1 a b", 1), ("\n\n-3", 3), ("1e400", 1)] {
            let error = read_arrivals(text).unwrap_err();
            assert!(matches!(error, ArrivalsError::Line { line: at, .. } if at == line), "{text}: {error}");
        }
        assert_eq!(read_arrivals("# nothing\n"), Err(ArrivalsError::Empty));
    }
}
