//! The report as one HTML file: no script, no font, no picture from elsewhere; plots are inline SVG. It is well-formed
//! XML too, follows the reader's light or dark setting, and fits a phone.

mod charts;
mod plot;
mod text;

use std::{fmt::Write as _, time::SystemTime};

use crate::{
    arrivals::Arrivals,
    outcome::{Outcome, ratio},
    phase::Phase,
    report::{Occurrences, Report},
    scenario::Scenario,
};
use text::{escape, grouped, latency, moment, number, trimmed};

const STYLE: &str = include_str!("style.css");

/// The page for one target, or for two side by side.
pub fn html_of(outcomes: &[Outcome], scenario: &Scenario) -> String {
    let names: Vec<String> = outcomes.iter().map(|outcome| escape(&outcome.name)).collect();
    let title = names.join(" against ");
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>{title}: load test</title><style>{STYLE}</style></head><body><main>\
         <header><p class=\"over\">Load test \u{b7} {}</p><h1>{title}</h1><p class=\"lead\">{}</p></header>",
        moment(SystemTime::now()),
        escape(&in_words(scenario, outcomes))
    );
    for outcome in outcomes {
        overview(&mut page, outcome, outcomes.len() > 1);
    }
    if let [a, b] = outcomes {
        duel(&mut page, a, b);
    }
    if outcomes.iter().any(|outcome| outcome.limit.is_some()) {
        limits(&mut page, outcomes);
    }
    charts::percentiles(&mut page, outcomes);
    charts::latencies_over_time(&mut page, outcomes);
    charts::rates(&mut page, outcomes);
    for outcome in outcomes {
        faults(&mut page, outcome, outcomes.len() > 1);
    }
    page.push_str(
        "<footer>Latencies count from the time when a message should have been sent, so that a stall of the generator or \
         of the server is not hidden. Calls arrive whether or not the server keeps up. Made by loadtest ",
    );
    let _ = writeln!(page, "{}.</footer></main></body></html>", env!("CARGO_PKG_VERSION"));
    page
}

/// What was played, in a sentence.
fn in_words(scenario: &Scenario, outcomes: &[Outcome]) -> String {
    let sought = outcomes.iter().any(|outcome| outcome.limit.is_some());
    let how = match (&scenario.arrivals, sought) {
        (_, true) => "The highest rate that is borne, by bisection".to_owned(),
        (Arrivals::Listed(list), _) => format!("{} listed arrivals", grouped(list.len() as i64)),
        (Arrivals::Fixed, _) => format!("{} calls a second, evenly", trimmed(scenario.rate)),
        (Arrivals::Poisson, _) => {
            format!("{} calls a second, as independent callers make them", trimmed(scenario.rate))
        }
    };
    let seconds = |time: std::time::Duration| format!("{}\u{a0}s", trimmed(time.as_secs_f64()));
    let mut words = how;
    if !sought {
        let _ = write!(words, ", for {}", seconds(scenario.duration));
    }
    let _ = write!(words, "; talks of {}", seconds(scenario.talk.mean()));
    if !scenario.direct {
        let _ = write!(words, ", {} agents", grouped(scenario.agent_count() as i64));
    }
    if let Some(patience) = &scenario.patience {
        let _ = write!(words, "; {} % of the callers give up", trimmed(patience.share * 100.0));
    }
    if scenario.loss > 0.0 {
        let _ = write!(words, "; {} % of the datagrams lost on purpose", trimmed(scenario.loss * 100.0));
    }
    words + "."
}

/// The figures that one looks for first, and where the calls went.
fn overview(page: &mut String, outcome: &Outcome, named: bool) {
    let report = &outcome.report;
    let name = if named { escape(&outcome.name) } else { "In short".to_owned() };
    let _ = write!(page, "<section class=\"card\"><h2>{name}</h2><dl class=\"figures\">");
    let mut figure = |name: &str, value: String, class: &str| {
        let _ = write!(page, "<div><dt>{name}</dt><dd class=\"{class}\">{value}</dd></div>");
    };
    if let Some(limit) = &outcome.limit {
        figure(
            "Highest rate borne",
            format!("{}/s", number(limit.max_rate)),
            if limit.max_rate > 0.0 { "good" } else { "bad" },
        );
    }
    figure("Calls", grouped(report.offered as i64), "");
    let faults = report.failed + report.unexpected + report.double_bookings + report.agents_stuck + report.media_stuck;
    let verdict = if faults == 0 { "good" } else { "bad" };
    figure("Failures and violations", grouped(faults as i64), verdict);
    for phase in [Phase::First, Phase::FreeToInvite] {
        let spread = report.latency(phase);
        if spread.count > 0 {
            let short = if phase == Phase::First { "First answer, p99" } else { "Agent free to INVITE, p99" };
            figure(short, latency(spread.p99 as f64), "");
        }
    }
    figure("Messages a second", grouped((report.messages as f64 / report.seconds.max(1e-9)) as i64), "");
    if let Some(cpu) = outcome.target_cpu_us_per_call() {
        figure("Server CPU a call", latency(cpu), "");
    }
    if let Some(memory) = outcome.target_memory {
        figure("Server memory", format!("{}\u{a0}MiB", number(memory as f64 / f64::from(1 << 20))), "");
    }
    page.push_str("</dl>");
    balance(page, report);
    page.push_str("</section>");
}

/// Each call is in one column, and the columns sum to the calls.
fn balance(page: &mut String, report: &Report) {
    let columns = [
        ("answered", report.answered),
        ("abandoned", report.abandoned),
        ("refused", report.refused),
        ("failed", report.failed),
    ];
    let offered = report.offered.max(1) as f64;
    page.push_str("<div class=\"bar\" role=\"img\" aria-label=\"where the calls went\">");
    for (class, count) in columns.iter().filter(|(_, count)| *count > 0) {
        let _ = write!(page, "<i class=\"{class}\" style=\"width:{:.3}%\"></i>", 100.0 * *count as f64 / offered);
    }
    page.push_str("</div><ul class=\"legend\">");
    for (class, count) in columns {
        let _ = write!(page, "<li><span class=\"box {class}\"></span>{class} <b>{}</b></li>", grouped(count as i64));
    }
    page.push_str("</ul>");
}

/// Two targets, figure by figure.
fn duel(page: &mut String, a: &Outcome, b: &Outcome) {
    let _ = write!(
        page,
        "<section><h2>Side by side</h2><p>The same calls, played against one and then the other.</p>\
         <div class=\"card scroll\"><table><thead><tr><th></th><th>{}</th><th>{}</th><th>ratio</th></tr></thead><tbody>",
        escape(&a.name),
        escape(&b.name)
    );
    let mut row = |name: &str, of: &dyn Fn(&Outcome) -> Option<f64>, show: &dyn Fn(f64) -> String| {
        let (Some(a), Some(b)) = (of(a), of(b)) else { return };
        let times = ratio(a, b).replace('x', "\u{d7}");
        let _ = write!(page, "<tr><td>{name}</td><td>{}</td><td>{}</td><td>{times}</td></tr>", show(a), show(b));
    };
    row("Highest rate borne, calls/s", &|o| o.limit.as_ref().map(|limit| limit.max_rate), &number);
    row("Answered", &|o| Some(o.report.answered as f64), &number);
    row("Refused", &|o| Some(o.report.refused as f64), &number);
    row("Failed", &|o| Some(o.report.failed as f64), &number);
    row("Violations", &|o| Some(o.report.unexpected as f64), &number);
    row("Server CPU a call", &Outcome::target_cpu_us_per_call, &latency);
    row("Server memory, MiB", &|o| o.target_memory.map(|bytes| bytes as f64 / f64::from(1 << 20)), &number);
    for phase in Phase::ALL {
        let of = |percentile: usize| {
            move |o: &Outcome| {
                let spread = o.report.latency(phase);
                (spread.count > 0).then_some([spread.p50, spread.p99][percentile] as f64)
            }
        };
        row(&format!("{}, median", phase.title()), &of(0), &latency);
        row(&format!("{}, p99", phase.title()), &of(1), &latency);
    }
    page.push_str("</tbody></table></div></section>");
}

/// The search: each step, as a plot and as a table.
fn limits(page: &mut String, outcomes: &[Outcome]) {
    page.push_str("<section><h2>The search for the limit</h2>");
    for outcome in outcomes {
        let Some(limit) = &outcome.limit else { continue };
        let _ = write!(
            page,
            "<p>{}: <b>{}</b> calls a second; {}.</p><div class=\"grid top\">",
            escape(&outcome.name),
            number(limit.max_rate),
            escape(limit.limited_by.words())
        );
        charts::steps(page, limit);
        let measured = limit.steps.iter().any(|step| step.target_cpu.is_some());
        page.push_str("<div class=\"card scroll\"><table class=\"steps\"><thead><tr><th>calls/s</th><th>calls</th><th>failed</th>");
        for phase in limit.bounds_us.keys() {
            let _ = write!(page, "<th>p99 {phase}</th>");
        }
        let server = if measured { "<th>server</th>" } else { "" };
        let _ = write!(page, "<th>generator</th>{server}<th></th></tr></thead><tbody>");
        for step in &limit.steps {
            let (rate, calls) = (trimmed(step.rate), grouped(step.offered as i64));
            let _ = write!(page, "<tr><td>{rate}</td><td>{calls}</td><td>{}\u{a0}%</td>", number(step.share * 100.0));
            for (phase, p99) in &step.bounded_p99_us {
                let over = limit.bounds_us.get(phase).is_some_and(|bound| p99 > bound);
                let _ = write!(page, "<td{}>{}</td>", if over { " class=\"bad\"" } else { "" }, latency(*p99 as f64));
            }
            let _ = write!(page, "<td>{:.0}\u{a0}%</td>", step.generator_cpu * 100.0);
            if measured {
                let _ = write!(page, "<td>{:.0}\u{a0}%</td>", step.target_cpu.unwrap_or(0.0) * 100.0);
            }
            let (class, verdict) = if step.borne { ("good", "borne") } else { ("bad", "too much") };
            let why = escape(&step.why.join("; "));
            let _ = write!(page, "<td class=\"{class}\" title=\"{why}\">{verdict}</td></tr>");
        }
        page.push_str("</tbody></table></div></div>");
    }
    page.push_str("</section>");
}

/// What went wrong, with the first example of each, and what else the books hold.
fn faults(page: &mut String, outcome: &Outcome, named: bool) {
    let report = &outcome.report;
    let of = if named { format!(" of {}", escape(&outcome.name)) } else { String::new() };
    let _ = write!(page, "<section><h2>The books{of}</h2><div class=\"card\"><dl class=\"figures\">");
    for (name, count) in [
        ("INVITEs at agents", report.agent_invites),
        ("Rejected by agents", report.rejected_by_agents),
        ("Double bookings", report.double_bookings),
        ("Agents left over", report.agents_stuck),
        ("Still waiting at the end", report.unserved),
        ("CDRs expected", report.cdrs_expected),
        ("Received twice", report.retransmissions_received),
        ("Sent twice", report.retransmissions_sent),
        ("Dropped by the kernel", report.dropped_by_kernel),
        ("Violations", report.unexpected),
    ] {
        let _ = write!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", grouped(count as i64));
    }
    let late = latency(report.latest_arrival_us as f64);
    let _ = write!(page, "<div><dt>Arrivals late by</dt><dd>{late}</dd></div></dl></div>");
    let refused = report.refusals.iter().map(|(code, count)| (format!("refused with {code}"), *count, ""));
    let kinds = [("failed: ", &report.failures), ("violation: ", &report.violations)];
    let noted = kinds.into_iter().flat_map(|(title, map)| {
        map.iter().map(move |(kind, Occurrences { count, first })| (format!("{title}{kind}"), *count, first.as_str()))
    });
    let all: Vec<_> = refused.chain(noted).collect();
    if !all.is_empty() {
        page.push_str("<div class=\"card\" style=\"margin-top:1.1rem\">");
        for (what, count, first) in all {
            let _ = write!(page, "<details><summary>{} \u{d7} {}</summary>", grouped(count as i64), escape(&what));
            if !first.is_empty() {
                let _ = write!(page, "<pre>{}</pre>", escape(first.trim_end()));
            }
            page.push_str("</details>");
        }
        page.push_str("</div>");
    }
    page.push_str("</section>");
}

#[cfg(test)]
mod tests;
