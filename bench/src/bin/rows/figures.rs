//! Figures: medians of runs, verdicts, and the line that a row prints.

/// The middle of some figures; of an even number the lower of the two in the middle, so that it is one that was measured.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// The value below which a share of the figures is, or the greatest.
pub fn percentile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// A median with what it is a median of.
pub fn told(figures: &[f64], unit: &str, digits: usize) -> String {
    let middle = median(figures);
    match figures {
        [_] => format!("{middle:.digits$} {unit} (one run)"),
        _ => {
            let (least, most) = (percentile(figures, 0.0), percentile(figures, 1.0));
            format!("{middle:.digits$} {unit} (median of {}: {least:.digits$} to {most:.digits$})", figures.len())
        }
    }
}

/// What a row comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub row: &'static str,
    pub what: String,
    pub limit: String,
    pub measured: String,
    /// `None`: this machine cannot tell.
    pub met: Option<bool>,
}

impl Line {
    /// A figure that is to be at most, or at least, so much. No figure at all misses.
    pub fn judged(row: &'static str, what: &str, limit: &str, measured: String, met: bool) -> Self {
        Self { row, what: what.to_owned(), limit: limit.to_owned(), measured, met: Some(met) }
    }

    /// A figure beside a row, without a limit.
    pub fn beside(row: &'static str, what: &str, measured: String) -> Self {
        Self { row, what: what.to_owned(), limit: String::new(), measured, met: None }
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { row, what, limit, measured, met } = self;
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "-",
        };
        write!(f, "{row:<9} {verdict:<6} {what}: {measured}")?;
        if limit.is_empty() { Ok(()) } else { write!(f, "; limit {limit}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_one_of_the_figures() {
        assert_eq!(median(&[5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.0);
        // No figure is no success.
        assert!(median(&[]).is_nan() && !Line::judged("cpu", "", "", String::new(), median(&[]) < 80.0).met.unwrap());
    }

    #[test]
    fn percentiles_reach_both_ends() {
        let all: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 0.999, 1.0].map(|q| percentile(&all, q)), [1.0, 500.0, 990.0, 999.0, 1000.0]);
    }

    #[test]
    fn a_single_run_is_said() {
        assert_eq!(told(&[1.25], "us", 1), "1.2 us (one run)");
        assert_eq!(told(&[3.0, 1.0, 2.0], "us", 0), "2 us (median of 3: 1 to 3)");
    }

    #[test]
    fn a_missed_limit_is_loud() {
        let line = Line::judged("cpu", "a call", "80 us", "90 us".to_owned(), 90.0 < 80.0).to_string();
        assert_eq!(line, "cpu       MISSED a call: 90 us; limit 80 us");
        assert!(Line::beside("cpu", "a call", "90 us".to_owned()).to_string().ends_with("a call: 90 us"));
    }
}
