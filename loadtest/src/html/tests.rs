//! The page is well-formed, whole, and asks nobody for anything.

use std::time::Duration;

use super::*;
use crate::{
    interval::Interval,
    limit::{Limit, LimitedBy, Step},
    phase::Histograms,
    series::Series,
};

fn outcome(name: &str, seconds: u64) -> Outcome {
    let (mut series, mut whole) = (Series::default(), Histograms::default());
    for second in 0..seconds {
        let length = Duration::from_secs(1);
        let mut interval = Interval { start: Duration::from_secs(second), length, ..Interval::default() };
        for call in 0..50 {
            interval.histograms.record(Phase::First, 300_000 + 10_000 * call * second);
            interval.histograms.record(Phase::Bye, 90_000 + call);
        }
        interval.counts.offered = 50;
        interval.gauges.talking = 20;
        interval.cpu = Duration::from_millis(300);
        series.add(&interval);
        whole.add(&interval.histograms);
    }
    let mut report =
        Report { offered: 50 * seconds, answered: 50 * seconds, seconds: seconds as f64, ..Report::default() };
    report.set_histograms(whole);
    let first = "INVITE sip:<x>&\"\u{1}".to_owned();
    report.violations.insert("odd <kind>".to_owned(), Occurrences { count: 2, first });
    Outcome::new(name.to_owned(), report, series)
}

fn with_limit(mut outcome: Outcome) -> Outcome {
    let step = |rate, borne| Step {
        rate,
        offered: 2000,
        bad: 0,
        share: 0.0,
        first_p99_us: 400,
        bounded_p99_us: [("first", if borne { 800 } else { 120_000 })].into(),
        borne,
        why: if borne { Vec::new() } else { vec!["p99 of first 120.0 ms".to_owned()] },
        generator_saturated: false,
        generator_cpu: 0.4,
        target_cpu: Some(0.7),
    };
    let steps = vec![step(100.0, true), step(200.0, false), step(150.0, true)];
    outcome.limit =
        Some(Limit { max_rate: 150.0, limited_by: LimitedBy::Target, bounds_us: [("first", 100_000)].into(), steps });
    outcome
}

/// Reads the page as XML: each tag is closed in order, attributes are quoted, no stray markup.
fn check_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a document type");
    while let Some(at) = rest.find('<') {
        let (before, tail) = rest.split_at(at);
        assert!(!before.contains('>') || open.last() == Some(&"style"), "stray > in {before:?}");
        let end = tail.find('>').expect("an end of the tag");
        let tag = &tail[1..end];
        rest = &tail[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closing {name}");
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert_eq!(attributes.matches('"').count() % 2, 0, "{tag}");
        for (number, part) in attributes.trim_end_matches('/').split('"').enumerate().filter(|(n, _)| n % 2 == 0) {
            assert!(part.trim().is_empty() || part.trim().ends_with('='), "attribute {number} of {tag}");
        }
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    for entity in page.split('&').skip(1) {
        assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|known| entity.starts_with(known)), "&{entity:.12}");
    }
}

fn check(page: &str) {
    check_well_formed(page);
    for outside in ["http:", "https:", "//", "url(", "@import", "<script", "<link", "<img", "src=", "href="] {
        assert!(!page.replace("sip://", "").contains(outside), "the page refers to the outside: {outside}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "numbers that are none");
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("name=\"viewport\""));
}

#[test]
fn one_target_makes_a_whole_page() {
    let page = html_of(&[outcome("a <b>", 20)], &Scenario::default());
    check(&page);
    assert!(page.contains("a &lt;b&gt;") && page.contains("odd &lt;kind&gt;"));
    for part in
        ["Latency by percentile", "Latency over time", "Rates and load", "CPU", "INVITE to first answer", "BYE to 200"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("Side by side") && !page.contains("The search for the limit"));
    // Percentiles, two phases over time, and four of rates.
    assert_eq!(page.matches("<svg ").count(), 7);
}

#[test]
fn two_targets_and_a_search_make_a_whole_page() {
    let page = html_of(&[with_limit(outcome("a", 30)), with_limit(outcome("b", 10))], &Scenario::default());
    check(&page);
    assert!(page.contains("Side by side") && page.contains("The search for the limit"));
    assert!(page.contains("p99 of first 120.0 ms"));
    assert_eq!(page.matches("<svg ").count(), 10);
}

#[test]
fn a_long_run_stays_a_small_page_and_an_empty_one_a_page() {
    let page = html_of(&[outcome("long", 5_000)], &Scenario::default());
    check(&page);
    assert!(page.len() < 200_000, "{} bytes", page.len());
    check(&html_of(&[Outcome::new("empty".to_owned(), Report::default(), Series::default())], &Scenario::default()));
}
