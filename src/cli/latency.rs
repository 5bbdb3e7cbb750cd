//! `strowger latency`: what a running server's shards measure.

use super::client::Client;
use super::{Failure, MiAddress, Settings, say};
use crate::control::latency::{PERCENTILES, STAGES, Stage, decode, percentiles_us};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct LatencyArgs {
    #[command(flatten)]
    address: MiAddress,
    /// Go on: a table every SECONDS, each of that interval alone
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    /// With --watch: of the time since the start, not of the interval
    #[arg(long, requires = "watch")]
    since_start: bool,
}

pub(super) fn latency(settings: &Settings, args: &LatencyArgs) -> Result<(), Failure> {
    let client = Client::new(&args.address, &settings.load()?.config)?;
    let ask = || client.call("latency", &json!([1])).map_err(|e| Failure::Fault(e.to_string())).and_then(|v| read(&v));
    let mut before = ask()?;
    say(&table(&before));
    while let Some(seconds) = args.watch {
        std::thread::sleep(Duration::from_secs(seconds));
        let now = ask()?;
        let shown = if args.since_start { now.clone() } else { interval(&now, &before) };
        say(&format!("\n{}", table(&shown)));
        before = now;
    }
    Ok(())
}

fn read(answer: &Value) -> Result<Vec<Histogram<u64>>, Failure> {
    let stages = STAGES.iter().map(|stage| decode(&answer[stage.name]));
    let unread = || Failure::Fault("the server's answer has no histograms; is it of another version?".to_owned());
    stages.collect::<Option<Vec<_>>>().ok_or_else(unread)
}

/// What came since an earlier answer; all of it when the server has started anew.
fn interval(now: &[Histogram<u64>], before: &[Histogram<u64>]) -> Vec<Histogram<u64>> {
    let since = |(now, before): (&Histogram<u64>, &Histogram<u64>)| {
        let mut rest = now.clone();
        if rest.subtract(before).is_err() { now.clone() } else { rest }
    };
    now.iter().zip(before).map(since).collect()
}

fn table(stages: &[Histogram<u64>]) -> String {
    let heads: String = PERCENTILES.iter().map(|(name, _)| format!("{name:>11}")).collect();
    let mut lines = vec![format!("{:<18}{:>11}{heads}   (microseconds)", "stage", "count")];
    for (Stage { name, what, .. }, histogram) in STAGES.iter().zip(stages) {
        let values: String = percentiles_us(histogram).iter().map(|(_, us)| format!("{us:>11.1}")).collect();
        lines.push(format!("{name:<18}{:>11}{values}   {what}", histogram.len()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_started_anew_is_told_from_its_beginning() {
        let histogram = |ns: u64, n| {
            let mut h = Histogram::<u64>::new(3).unwrap();
            h.record_n(ns, n).unwrap();
            h
        };
        assert_eq!(interval(&[histogram(50, 3)], &[histogram(50, 2)])[0].len(), 1);
        assert_eq!(interval(&[histogram(50, 3)], &[histogram(70, 9)])[0].len(), 3);
        let shown = table(&vec![histogram(1_500, 4); STAGES.len()]);
        let line = shown.lines().find(|l| l.starts_with("dispatch"));
        assert!(line.is_some_and(|l| l.starts_with("dispatch                    4        1.5")), "{shown}");
        let names = STAGES.iter().map(|stage| stage.name.len());
        assert!(names.max() < Some(18), "a column between the name and the count");
    }
}
