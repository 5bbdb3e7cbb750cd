//! Plots as inline SVG: two axes, lines, bands and marks. Colours and type sizes are the style sheet's.

use std::fmt::Write as _;

use super::text::{escape, latency, tick};

/// Width and height of the picture, in its own units; the style sheet's type sizes fit both.
#[derive(Debug, Clone, Copy)]
pub struct Size(f64, f64);

pub const LARGE: Size = Size(520.0, 290.0);
/// For three in a row.
pub const SMALL: Size = Size(380.0, 220.0);

const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;

/// Values along one side, from `low` to `high`, with the places that bear a label.
#[derive(Debug, Clone)]
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to somewhat above the highest value, with labels at round numbers.
    pub fn linear(highest: f64, label: impl Fn(f64) -> String) -> Self {
        let highest = if highest > 0.0 { highest } else { 1.0 };
        let rough = highest / 4.0;
        let magnitude = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * magnitude).into_iter().find(|s| *s >= rough).unwrap_or(rough);
        let count = (highest / step).ceil() as usize;
        let ticks = (0..=count).map(|n| n as f64 * step).map(|at| (at, label(at))).collect();
        Self { low: 0.0, high: count as f64 * step, log: false, ticks }
    }

    /// Counts or rates.
    pub fn counts(highest: f64) -> Self {
        Self::linear(highest, tick)
    }

    /// Seconds of a run, to its end.
    pub fn seconds(end: f64) -> Self {
        let axis = Self::linear(end, |at| format!("{}\u{a0}s", tick(at)));
        let ticks = axis.ticks.into_iter().filter(|(at, _)| *at <= end * 1.0001).collect();
        Self { high: end.max(1e-3), ticks, ..axis }
    }

    /// Latencies in microseconds, on a logarithmic scale of whole decades.
    pub fn latencies(values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0f64);
        for value in values.filter(|value| *value > 0.0) {
            (low, high) = (low.min(value), high.max(value));
        }
        let low = if low.is_finite() { low.log10().floor() } else { 0.0 };
        let high = high.max(1.0).log10().ceil().max(low + 1.0);
        let ticks = (low as i32..=high as i32).map(|decade| 10f64.powi(decade)).map(|at| (at, latency(at))).collect();
        Self { low: 10f64.powf(low), high: 10f64.powf(high), log: true, ticks }
    }

    /// Quantiles, each nine as wide as the one before: positions are `log10(1 / (1 - quantile))`.
    pub fn nines(highest: f64) -> Self {
        let names =
            ["0\u{a0}%", "90\u{a0}%", "99\u{a0}%", "99.9\u{a0}%", "99.99\u{a0}%", "99.999\u{a0}%", "99.9999\u{a0}%"];
        let ticks = names.iter().enumerate().map(|(at, name)| (at as f64, (*name).to_owned()));
        Self { low: 0.0, high: highest, log: false, ticks: ticks.filter(|(at, _)| *at <= highest).collect() }
    }

    /// Where a value is, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }
}

/// A plot being drawn.
pub struct Plot {
    size: Size,
    x: Axis,
    y: Axis,
    svg: String,
}

impl Plot {
    /// The frame, its grid and labels. `name` is what a screen reader says.
    pub fn new(name: &str, size: Size, x: Axis, y: Axis) -> Self {
        let Size(width, height) = size;
        let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">", escape(name));
        let mut plot = Self { size, x, y, svg: String::new() };
        // Writing to a String cannot fail.
        for (at, label) in &plot.y.ticks {
            let y = plot.down(*at);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>",
                width - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                escape(label)
            );
        }
        let last = plot.x.ticks.len().saturating_sub(1);
        for (number, (at, label)) in plot.x.ticks.iter().enumerate() {
            let x = plot.across(*at);
            // The last label would run out of the picture if it stood in the middle under its tick.
            let class = if number == last && x > width - RIGHT - 24.0 { "x last" } else { "x" };
            let _ = write!(
                svg,
                "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\"/>\
                 <text class=\"{class}\" x=\"{x:.1}\" y=\"{}\">{}</text>",
                height - BOTTOM,
                height - BOTTOM + 5.0,
                height - BOTTOM + 24.0,
                escape(label)
            );
        }
        plot.svg = svg;
        plot
    }

    fn across(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (self.size.0 - LEFT - RIGHT)
    }

    fn down(&self, value: f64) -> f64 {
        self.size.1 - BOTTOM - self.y.place(value) * (self.size.1 - TOP - BOTTOM)
    }

    fn path(&self, points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
        let (mut path, mut pen_down) = (String::new(), false);
        for point in points {
            let Some((x, y)) = point else {
                pen_down = false;
                continue;
            };
            let command = if std::mem::replace(&mut pen_down, true) { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {:.1}", self.across(x), self.down(y));
        }
        path
    }

    /// A line through points; `None` is a gap.
    pub fn line(&mut self, class: &str, points: impl Iterator<Item = Option<(f64, f64)>>) {
        let path = self.path(points);
        let _ = write!(self.svg, "<path class=\"line {class}\" d=\"{path}\"/>");
    }

    /// The area between a lower and an upper value at each place.
    pub fn band(&mut self, class: &str, points: &[(f64, f64, f64)]) {
        if points.len() < 2 {
            return;
        }
        let upper = points.iter().map(|(x, _, high)| Some((*x, *high)));
        let lower = points.iter().rev().map(|(x, low, _)| Some((*x, *low)));
        let path = self.path(upper.chain(lower));
        let _ = write!(self.svg, "<path class=\"band {class}\" d=\"{path}Z\"/>");
    }

    /// A dot that says what it is when it is pointed at.
    pub fn dot(&mut self, class: &str, x: f64, y: f64, says: &str) {
        let (x, y) = (self.across(x), self.down(y));
        let says = escape(says);
        let _ = write!(
            self.svg,
            "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{says}</title></circle>"
        );
    }

    /// A level across the whole plot.
    pub fn level(&mut self, y: f64, says: &str) {
        let (y, says) = (self.down(y), escape(says));
        let end = self.size.0 - RIGHT;
        let _ = write!(self.svg, "<line class=\"level\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let _ = write!(self.svg, "<text class=\"level\" x=\"{end}\" y=\"{:.1}\">{says}</text>", y - 5.0);
    }

    pub fn finish(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_labels() {
        let labels = |axis: &Axis| axis.ticks.iter().map(|(_, label)| label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&Axis::counts(190.0)), ["0", "50", "100", "150", "200"]);
        assert_eq!(labels(&Axis::counts(0.0)).first().map(String::as_str), Some("0"));
        let latencies = Axis::latencies([250.0, 40_000.0, 0.0].into_iter());
        assert_eq!(labels(&latencies), ["100\u{a0}µs", "1\u{a0}ms", "10\u{a0}ms", "100\u{a0}ms"]);
        assert!((latencies.place(1_000.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(labels(&Axis::nines(3.4)).len(), 4);
        assert!(Axis::seconds(9.3).ticks.iter().all(|(at, _)| *at <= 9.3));
    }

    #[test]
    fn lines_stay_within_the_frame_and_break_at_gaps() {
        let mut plot = Plot::new("a & b", LARGE, Axis::seconds(10.0), Axis::counts(100.0));
        plot.line("c1", [Some((0.0, 0.0)), Some((5.0, 1e9)), None, Some((10.0, 50.0))].into_iter());
        plot.dot("c1", 5.0, 5.0, "five");
        plot.band("c1", &[(0.0, 1.0, 2.0), (5.0, 1.0, 3.0)]);
        plot.level(50.0, "bound");
        let svg = plot.finish();
        assert!(svg.contains("d=\"M62.0 250.0L284.0 14.0M506.0 132.0\""), "{svg}");
        assert!(svg.contains("aria-label=\"a &amp; b\"") && svg.ends_with("</svg>"));
    }
}
