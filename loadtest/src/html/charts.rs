//! What is plotted: percentiles, latencies over time, rates, calls in progress, CPU, and the steps of a search.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    plot::{Axis, LARGE, Plot, SMALL},
    text::{escape, grouped, latency},
};
use crate::{
    limit::Limit,
    outcome::Outcome,
    phase::Phase,
    series::{Sample, Spread},
};

/// Most points of a line; more samples are drawn as their worst.
const POINTS: usize = 240;

fn colour(phase: Phase) -> String {
    format!("c{}", phase as usize + 1)
}

fn card(page: &mut String, title: &str, says: &str, plot: Plot, legend: &[(String, String)]) {
    let _ = write!(page, "<div class=\"card\"><h3>{title}</h3>");
    if !says.is_empty() {
        let _ = write!(page, "<p>{says}</p>");
    }
    page.push_str(&plot.finish());
    if !legend.is_empty() {
        page.push_str("<ul class=\"legend\">");
        for (class, name) in legend {
            let _ = write!(page, "<li><span class=\"key {class}\"></span>{name}</li>");
        }
        page.push_str("</ul>");
    }
    page.push_str("</div>");
}

fn phases_seen(outcomes: &[Outcome]) -> Vec<Phase> {
    let seen = |phase: &Phase| outcomes.iter().any(|outcome| outcome.report.latency(*phase).count > 0);
    Phase::ALL.into_iter().filter(seen).collect()
}

/// Latency by percentile: a plot for each target, on the same axes.
pub fn percentiles(page: &mut String, outcomes: &[Outcome]) {
    let phases = phases_seen(outcomes);
    if phases.is_empty() {
        return;
    }
    page.push_str(
        "<section><h2>Latency by percentile</h2><p>How long the slowest callers waited: each nine to the right is a tenth \
         of the calls. Both scales are logarithmic.</p><div class=\"grid\">",
    );
    let most = outcomes.iter().flat_map(|o| phases.iter().map(|phase| o.report.latency(*phase).count)).max();
    let nines = (most.unwrap_or(1).max(1) as f64).log10().clamp(2.0, 6.0);
    let curve = |outcome: &Outcome, phase: Phase| -> Vec<(f64, f64)> {
        let histogram = outcome.report.histograms.of(phase);
        let end = (histogram.len().max(1) as f64).log10().min(nines);
        let steps = (0..=120).map(|step| nines * f64::from(step) / 120.0).filter(|x| *x <= end);
        steps.map(|x| (x, histogram.value_at_quantile(1.0 - 10f64.powf(-x)) as f64)).collect()
    };
    let values =
        || outcomes.iter().flat_map(|o| phases.iter().flat_map(move |phase| curve(o, *phase)).collect::<Vec<_>>());
    let y = Axis::latencies(values().map(|(_, micros)| micros));
    for outcome in outcomes {
        let name = if outcomes.len() > 1 { escape(&outcome.name) } else { "All phases".to_owned() };
        let mut plot = Plot::new("latency by percentile", LARGE, Axis::nines(nines), y.clone());
        let mut legend = Vec::new();
        for phase in phases.iter().filter(|phase| outcome.report.latency(**phase).count > 0) {
            let spread = outcome.report.latency(*phase);
            plot.line(&colour(*phase), curve(outcome, *phase).into_iter().map(Some));
            for (x, micros, percentile) in [(2.0, spread.p99, "p99"), (3.0, spread.p999, "p99.9")] {
                if (spread.count as f64).log10() >= x && x <= nines {
                    let says = format!("{}, {percentile}: {}", phase.title(), latency(micros as f64));
                    plot.dot(&colour(*phase), x, micros as f64, &says);
                }
            }
            legend.push((colour(*phase), format!("{} <b>{}</b>", phase.title(), latency(spread.p99 as f64))));
        }
        card(page, &name, "The figure beside each name is its 99th percentile.", plot, &legend);
    }
    for outcome in outcomes {
        table(page, outcome);
    }
    page.push_str("</div></section>");
}

/// The percentiles of each phase in figures.
fn table(page: &mut String, outcome: &Outcome) {
    page.push_str(
        "<div class=\"card scroll\"><table><thead><tr><th>phase</th><th>count</th><th>p50</th><th>p99</th><th>p99.9</th>\
         <th>max</th></tr></thead><tbody>",
    );
    for phase in Phase::ALL {
        let spread = outcome.report.latency(phase);
        if spread.count == 0 {
            continue;
        }
        let _ = write!(page, "<tr><td>{}</td><td>{}</td>", phase.title(), grouped(spread.count as i64));
        for micros in [spread.p50, spread.p99, spread.p999, spread.max] {
            let _ = write!(page, "<td>{}</td>", latency(micros as f64));
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table></div>");
}

/// At most [`POINTS`] groups of neighbouring samples.
fn groups(samples: &[Sample]) -> impl Iterator<Item = &[Sample]> {
    samples.chunks(samples.len().div_ceil(POINTS).max(1))
}

/// Without the end of the run, where that is too short an interval for a rate.
fn whole(samples: &[Sample]) -> &[Sample] {
    match samples {
        [first, .., last] if last.seconds < first.seconds / 2.0 => &samples[..samples.len() - 1],
        all => all,
    }
}

fn end_of(outcomes: &[Outcome]) -> f64 {
    outcomes.iter().filter_map(|outcome| outcome.samples.last()).map(|sample| sample.at).fold(0.0, f64::max)
}

/// Median, 99th percentile and maximum of a phase over time, where anything happened.
fn spreads(samples: &[Sample], phase: Phase) -> Vec<(f64, Option<Spread>)> {
    let worst = |group: &[Sample]| {
        let seen = group.iter().filter_map(|sample| sample.latency_us.get(phase.key()).copied());
        seen.reduce(|a, b| Spread {
            count: a.count + b.count,
            p50: a.p50.max(b.p50),
            p99: a.p99.max(b.p99),
            max: a.max.max(b.max),
        })
    };
    groups(samples).map(|group| (group.last().map_or(0.0, |sample| sample.at), worst(group))).collect()
}

/// A small plot for each phase.
pub fn latencies_over_time(page: &mut String, outcomes: &[Outcome]) {
    let phases = phases_seen(outcomes);
    if phases.is_empty() {
        return;
    }
    let says = match outcomes {
        [a, b] => format!(
            "99th percentiles: {} in blue, {} in orange. The shaded band begins at the median.",
            escape(&a.name),
            escape(&b.name)
        ),
        _ => {
            "The line is the 99th percentile of each interval, the band below it begins at the median, dots are maxima."
                .to_owned()
        }
    };
    let _ = write!(page, "<section><h2>Latency over time</h2><p>{says}");
    page.push_str("</p><div class=\"grid small\">");
    for phase in phases {
        let all: Vec<Vec<(f64, Option<Spread>)>> = outcomes.iter().map(|o| spreads(&o.samples, phase)).collect();
        let values = all.iter().flatten().filter_map(|(_, spread)| *spread);
        let y = Axis::latencies(values.flat_map(|spread| [spread.p50 as f64, spread.p99 as f64, spread.max as f64]));
        let mut plot = Plot::new(phase.title(), SMALL, Axis::seconds(end_of(outcomes)), y);
        for (number, series) in all.iter().enumerate() {
            let class = if outcomes.len() > 1 { format!("c{}", number + 1) } else { colour(phase) };
            let seen: Vec<(f64, f64, f64)> =
                series.iter().filter_map(|(at, s)| s.map(|s| (*at, s.p50 as f64, s.p99 as f64))).collect();
            plot.band(&class, &seen);
            plot.line(&class, series.iter().map(|(at, spread)| spread.map(|spread| (*at, spread.p99 as f64))));
            let few = outcomes.len() == 1 && series.len() <= 60;
            for (at, spread) in series.iter().filter_map(|(at, spread)| Some((*at, (*spread)?))).filter(|_| few) {
                plot.dot(&class, at, spread.max as f64, &format!("{at:.0} s: max {}", latency(spread.max as f64)));
            }
        }
        card(page, phase.title(), phase.meaning(), plot, &[]);
    }
    page.push_str("</div></section>");
}

/// A value of each sample over time.
type Value<'a> = (&'a str, &'a str, &'a dyn Fn(&Sample) -> Option<f64>);

fn over_time(
    page: &mut String,
    outcomes: &[Outcome],
    title: &str,
    says: &str,
    values: &[Value<'_>],
    label: Option<&str>,
) {
    let means = |outcome: &Outcome, value: &dyn Fn(&Sample) -> Option<f64>| -> Vec<Option<(f64, f64)>> {
        let mean = |group: &[Sample]| {
            let seen: Vec<f64> = group.iter().filter_map(value).collect();
            let at = group.last()?.at;
            (!seen.is_empty()).then(|| (at, seen.iter().sum::<f64>() / seen.len() as f64))
        };
        groups(whole(&outcome.samples)).map(mean).collect()
    };
    let mut lines = Vec::new();
    for (number, outcome) in outcomes.iter().enumerate() {
        for (class, name, value) in values {
            let points = means(outcome, value);
            if points.iter().flatten().any(|(_, value)| *value != 0.0) {
                let class = format!("{class}{}", if number > 0 { " dash" } else { "" });
                let name =
                    if outcomes.len() > 1 { format!("{name}, {}", escape(&outcome.name)) } else { (*name).to_owned() };
                lines.push((class, name, points));
            }
        }
    }
    let highest =
        lines.iter().flat_map(|(_, _, points)| points.iter().flatten()).map(|(_, value)| *value).fold(0.0, f64::max);
    let y = match label {
        Some(unit) => Axis::linear(highest, |at| format!("{}\u{a0}{unit}", super::text::tick(at))),
        None => Axis::counts(highest),
    };
    let mut plot = Plot::new(title, LARGE, Axis::seconds(end_of(outcomes)), y);
    for (class, _, points) in &lines {
        plot.line(class, points.iter().copied());
    }
    let legend: Vec<(String, String)> = lines.into_iter().map(|(class, name, _)| (class, name)).collect();
    card(page, title, says, plot, &legend);
}

/// Rates, calls in progress, messages and CPU over time.
pub fn rates(page: &mut String, outcomes: &[Outcome]) {
    if outcomes.iter().all(|outcome| outcome.samples.is_empty()) {
        return;
    }
    page.push_str("<section><h2>Rates and load</h2><div class=\"grid\">");
    let rate = |count: u64, sample: &Sample| Some(count as f64 / sample.seconds.max(1e-9));
    over_time(
        page,
        outcomes,
        "Calls a second",
        "Begun, and ended in each way.",
        &[
            ("c1", "offered", &|s| rate(s.offered, s)),
            ("c3", "answered", &|s| rate(s.answered, s)),
            ("c5", "abandoned", &|s| rate(s.abandoned, s)),
            ("c4", "refused", &|s| rate(s.refused, s)),
            ("bad", "failed", &|s| rate(s.failed, s)),
        ],
        None,
    );
    over_time(
        page,
        outcomes,
        "Calls in progress",
        "Callers who wait (ringing included), callers in talk, phones that ring.",
        &[
            ("c2", "waiting", &|s| Some(s.waiting as f64)),
            ("c1", "talking", &|s| Some(s.talking as f64)),
            ("c6", "ringing", &|s| Some(s.ringing as f64)),
        ],
        None,
    );
    over_time(
        page,
        outcomes,
        "SIP messages a second",
        "Sent and received by the generator.",
        &[("c4", "messages", &|s| rate(s.messages, s))],
        None,
    );
    over_time(
        page,
        outcomes,
        "CPU",
        "Of one core: the generator\u{2019}s thread, and all threads of the server where its process is known.",
        &[
            ("c9", "generator", &|s| Some(100.0 * s.generator_cpu)),
            ("c7", "server", &|s| s.target_cpu.map(|cpu| 100.0 * cpu)),
        ],
        Some("%"),
    );
    page.push_str("</div></section>");
}

/// Each step of a search: rate across, the 99th percentile of what is bounded up.
pub fn steps(page: &mut String, limit: &Limit) {
    let p99 =
        |step: &crate::limit::Step| step.bounded_p99_us.values().max().copied().unwrap_or(step.first_p99_us).max(1);
    let fastest = limit.steps.iter().map(|step| step.rate).fold(0.0, f64::max);
    let bounds = limit.bounds_us.values().map(|bound| *bound as f64);
    let y = Axis::latencies(limit.steps.iter().map(|step| p99(step) as f64).chain(bounds));
    let mut plot = Plot::new("steps of the search", LARGE, Axis::counts(fastest), y);
    let mut levels: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    limit.bounds_us.iter().for_each(|(phase, bound)| levels.entry(*bound).or_default().push(phase));
    for (bound, phases) in levels {
        plot.level(bound as f64, &format!("bound on {}", phases.join(", ")));
    }
    for step in &limit.steps {
        let says =
            format!("{:.1} calls/s: p99 {}, {:.2} % failed", step.rate, latency(p99(step) as f64), 100.0 * step.share);
        plot.dot(if step.borne { "good" } else { "bad" }, step.rate, p99(step) as f64, &says);
    }
    let legend = [("good".to_owned(), "borne".to_owned()), ("bad".to_owned(), "too much".to_owned())];
    card(page, "p99 by rate", "Each dot is a step; calls a second across.", plot, &legend);
}
