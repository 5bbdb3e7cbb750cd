//! Distributions of times: how long a phone rings, a talk lasts, a caller has patience.
//!
//! Written on the command line as `2s`, `uniform:1s-3s`, `exp:2s` (mean) or `lognormal:2s,0.5` (median, sigma).

use std::{fmt, str::FromStr, time::Duration};

use rand::{RngExt, rngs::SmallRng};

/// A distribution of durations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Dist {
    /// Always the same.
    Fixed(Duration),
    /// Evenly between two bounds.
    Uniform(Duration, Duration),
    /// Exponential with this mean (a memoryless talk time).
    Exponential(Duration),
    /// Log-normal: its median, and sigma of the underlying normal (talk times of people fit it well).
    LogNormal(Duration, f64),
}

impl Dist {
    /// One draw.
    pub fn sample(&self, rng: &mut SmallRng) -> Duration {
        match *self {
            Self::Fixed(time) => time,
            Self::Uniform(low, high) => low + (high.saturating_sub(low)).mul_f64(rng.random::<f64>()),
            Self::Exponential(mean) => mean.mul_f64(-(1.0 - rng.random::<f64>()).ln()),
            Self::LogNormal(median, sigma) => {
                // Box-Muller: 1 - u is in (0, 1], so the logarithm is finite.
                let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * rng.random::<f64>()).cos();
                median.mul_f64((sigma * normal).exp().min(1e6))
            }
        }
    }

    /// The mean of the distribution.
    pub fn mean(&self) -> Duration {
        match *self {
            Self::Fixed(time) | Self::Exponential(time) => time,
            Self::Uniform(low, high) => (low + high) / 2,
            Self::LogNormal(median, sigma) => median.mul_f64((sigma * sigma / 2.0).exp()),
        }
    }
}

/// A text that is no [`Dist`] or no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DistError {
    #[error("`{0}` is no duration: write a number with ms, s, m or h, such as 200ms or 2s")]
    Duration(String),
    #[error("`{0}` is no distribution: write 2s, uniform:1s-3s, exp:2s or lognormal:2s,0.5 (median, sigma)")]
    Shape(String),
    #[error("`{0}`: the lower bound is above the upper one")]
    Order(String),
    #[error("`{0}`: sigma must be a number from 0 to 5")]
    Sigma(String),
}

/// Reads `200ms`, `2s`, `1.5s`, `3m`, `1h`; a bare number is in seconds.
pub fn parse_duration(text: &str) -> Result<Duration, DistError> {
    let bad = || DistError::Duration(text.to_owned());
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    let number: f64 = number.trim().parse().map_err(|_| bad())?;
    // A year is more than any load test lasts, and keeps every later sum far from overflow.
    Duration::try_from_secs_f64(number * scale).ok().filter(|d| d.as_secs() <= 31_536_000).ok_or_else(bad)
}

impl FromStr for Dist {
    type Err = DistError;

    fn from_str(text: &str) -> Result<Self, DistError> {
        let shape = || DistError::Shape(text.to_owned());
        match text.split_once(':') {
            None => parse_duration(text).map(Self::Fixed).map_err(|_| shape()),
            Some(("fixed", rest)) => parse_duration(rest).map(Self::Fixed),
            Some(("exp", rest)) => parse_duration(rest).map(Self::Exponential),
            Some(("uniform", rest)) => {
                let (low, high) = rest.split_once('-').ok_or_else(shape)?;
                let (low, high) = (parse_duration(low)?, parse_duration(high)?);
                if low > high { Err(DistError::Order(text.to_owned())) } else { Ok(Self::Uniform(low, high)) }
            }
            Some(("lognormal", rest)) => {
                let (median, sigma) = rest.split_once(',').ok_or_else(shape)?;
                let sigma: f64 = sigma.trim().parse().map_err(|_| DistError::Sigma(text.to_owned()))?;
                if !(0.0..=5.0).contains(&sigma) {
                    return Err(DistError::Sigma(text.to_owned()));
                }
                Ok(Self::LogNormal(parse_duration(median)?, sigma))
            }
            Some(_) => Err(shape()),
        }
    }
}

impl fmt::Display for Dist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(time) => write!(f, "{time:?}"),
            Self::Uniform(low, high) => write!(f, "uniform:{low:?}-{high:?}"),
            Self::Exponential(mean) => write!(f, "exp:{mean:?}"),
            Self::LogNormal(median, sigma) => write!(f, "lognormal:{median:?},{sigma}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn texts_are_read() {
        assert_eq!("2s".parse(), Ok(Dist::Fixed(Duration::from_secs(2))));
        assert_eq!("0.25".parse(), Ok(Dist::Fixed(Duration::from_millis(250))));
        assert_eq!("exp:1m".parse(), Ok(Dist::Exponential(Duration::from_secs(60))));
        assert_eq!("uniform:1s-3s".parse(), Ok(Dist::Uniform(Duration::from_secs(1), Duration::from_secs(3))));
        assert_eq!("lognormal:2s,0.5".parse(), Ok(Dist::LogNormal(Duration::from_secs(2), 0.5)));
    }

    #[test]
    fn faults_are_named() {
        for (text, error) in [
            ("soon", DistError::Shape("soon".into())),
            ("exp:-2s", DistError::Duration("-2s".into())),
            ("uniform:3s-1s", DistError::Order("uniform:3s-1s".into())),
            ("lognormal:2s,x", DistError::Sigma("lognormal:2s,x".into())),
            ("gamma:2s", DistError::Shape("gamma:2s".into())),
            ("exp:1e300h", DistError::Duration("1e300h".into())),
        ] {
            assert_eq!(text.parse::<Dist>(), Err(error), "{text}");
        }
    }

    #[test]
    fn draws_have_the_mean_that_they_promise() {
        let mut rng = SmallRng::seed_from_u64(7);
        for text in ["2s", "uniform:1s-3s", "exp:2s", "lognormal:2s,0.5"] {
            let dist: Dist = text.parse().unwrap();
            let count = 40_000;
            let total: f64 = (0..count).map(|_| dist.sample(&mut rng).as_secs_f64()).sum();
            let (mean, promised) = (total / f64::from(count), dist.mean().as_secs_f64());
            assert!((mean / promised - 1.0).abs() < 0.03, "{text}: {mean} against {promised}");
        }
    }

    #[test]
    fn display_reads_back() {
        for text in ["2s", "uniform:1s-3s", "exp:2s", "lognormal:2s,0.5"] {
            let dist: Dist = text.parse().unwrap();
            assert_eq!(dist.to_string().parse(), Ok(dist));
        }
    }
}
