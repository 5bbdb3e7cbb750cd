//! The search for the highest rate that is borne: outwards from a guess until it is between two rates, then halves.

/// State of a search.
#[derive(Debug, Clone)]
pub struct Search {
    borne: Option<f64>,
    unborne: Option<f64>,
    next: f64,
    /// An unborne rate gets a second chance: machines hiccup.
    retried: bool,
}

/// How far a step goes while one side is not known.
const STRIDE: f64 = 1.25;
/// The search ends when both sides are this close.
const PRECISION: f64 = 0.04;
/// Below this many calls a second nothing is sought.
const LOWEST: f64 = 10.0;

impl Search {
    pub fn from(guess: f64) -> Self {
        Self { borne: None, unborne: None, next: guess.max(LOWEST), retried: false }
    }

    /// The rate to try next; `None` at the end.
    pub fn next(&self) -> Option<f64> {
        match (self.borne, self.unborne) {
            (Some(low), Some(high)) if high - low <= PRECISION * high => None,
            (None, Some(high)) if high <= LOWEST => None,
            _ => Some(self.next),
        }
    }

    /// The highest rate that was borne; 0 when none was.
    pub fn found(&self) -> f64 {
        self.borne.unwrap_or(0.0)
    }

    /// Takes what the last rate came to.
    pub fn tell(&mut self, borne: bool) {
        if !borne && !std::mem::replace(&mut self.retried, true) {
            return;
        }
        self.retried = false;
        *if borne { &mut self.borne } else { &mut self.unborne } = Some(self.next);
        self.next = match (self.borne, self.unborne) {
            (Some(low), Some(high)) => (low + high) / 2.0,
            (Some(low), None) => low * STRIDE,
            (None, high) => (high.unwrap_or(LOWEST) / STRIDE).max(LOWEST),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(limit: f64, guess: f64) -> (f64, u32) {
        let (mut search, mut steps) = (Search::from(guess), 0);
        while let Some(rate) = search.next() {
            search.tell(rate <= limit);
            steps += 1;
            assert!(steps < 100);
        }
        (search.found(), steps)
    }

    #[test]
    fn a_limit_is_found_from_below_and_above() {
        for guess in [1000.0, 4321.0, 9000.0, 20_000.0] {
            let (found, steps) = search(5000.0, guess);
            assert!(found <= 5000.0 && found > 5000.0 * 0.96, "{found} from {guess}");
            assert!(steps < 25, "{steps} from {guess}");
        }
        assert_eq!(search(0.0, 100.0).0, 0.0);
    }

    #[test]
    fn one_hiccup_is_forgiven() {
        let mut search = Search::from(100.0);
        search.tell(false);
        assert_eq!(search.next(), Some(100.0));
        search.tell(true);
        assert_eq!((search.found(), search.next()), (100.0, Some(125.0)));
    }
}
