//! SVG charts of the report. Text and lines keep their size in CSS pixels at every width of the page: horizontal positions
//! are percentages of the plot, and only the curves are stretched.

use std::fmt::Write as _;

use crate::format::{escape, time};
use crate::summary::Buckets;

/// Height of a plot in CSS pixels, without the labels below it.
const HEIGHT: f64 = 152.0;

/// Width of the coordinate system in which curves are drawn before they are stretched.
const CURVE_WIDTH: f64 = 1000.0;

/// Columns of a chart that have a tooltip. In a longer run a column covers several seconds.
const MAX_COLUMNS: usize = 600;

/// One curve.
pub(super) struct Line {
    pub(super) name: &'static str,
    /// The CSS class that gives the curve its color.
    pub(super) class: &'static str,
    /// A value for each second; `None` if nothing was measured.
    pub(super) values: Vec<Option<f64>>,
}

/// What the vertical axis measures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    Count,
    /// Logarithmic: each mark is ten times the one below.
    Milliseconds,
    CpuCores,
    Mebibytes,
}

impl Axis {
    fn mark(self, value: f64) -> String {
        match self {
            Self::Count | Self::CpuCores | Self::Mebibytes => number(value),
            Self::Milliseconds if value >= 1000.0 => format!("{} s", value / 1000.0),
            Self::Milliseconds if value >= 1.0 => format!("{value} ms"),
            Self::Milliseconds => format!("{} µs", (value * 1000.0).round()),
        }
    }

    fn value(self, value: f64) -> String {
        match self {
            Self::Count => number(value),
            Self::Milliseconds => time(value),
            Self::CpuCores => format!("{value:.2} cores"),
            Self::Mebibytes => format!("{value:.1} MiB"),
        }
    }
}

/// At most two decimals, and none that are zero.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The vertical range of a chart and the marks beside it.
struct Range {
    axis: Axis,
    bottom: f64,
    top: f64,
    marks: Vec<f64>,
}

impl Range {
    fn of(axis: Axis, lines: &[Line]) -> Self {
        let values = || lines.iter().flat_map(|line| line.values.iter().flatten());
        let highest = values().copied().fold(1.0, f64::max);
        if axis == Axis::Milliseconds {
            let lowest = values().copied().fold(f64::MAX, f64::min);
            let bottom = lowest.clamp(0.01, highest).log10().floor();
            let top = highest.log10().ceil().max(bottom + 1.0);
            #[expect(clippy::cast_possible_truncation, reason = "powers of ten")]
            let marks = (bottom as i32..=top as i32).map(|power| 10_f64.powi(power));
            let marks = marks.collect();
            return Self {
                axis,
                bottom,
                top,
                marks,
            };
        }
        let top = highest * 1.08;
        let step = round_step(top / 4.0);
        let marks = (0..=8).map(|n| f64::from(n) * step);
        Self {
            axis,
            bottom: 0.0,
            top,
            marks: marks.filter(|mark| *mark <= top).collect(),
        }
    }

    /// The distance of a value from the upper edge, in CSS pixels.
    fn y(&self, value: f64) -> f64 {
        let value = match self.axis {
            Axis::Milliseconds => value.max(0.001).log10(),
            _ => value,
        };
        (1.0 - (value - self.bottom) / (self.top - self.bottom)) * HEIGHT
    }
}

/// The horizontal position of a second, between 0 (left) and 1 (right).
#[expect(clippy::cast_precision_loss, reason = "seconds of a load test")]
pub(super) fn x(second: f64, seconds: usize) -> f64 {
    let last = (seconds.max(2) - 1) as f64;
    second.clamp(0.0, last) / last
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a load test")]
fn x_of(second: usize, seconds: usize) -> f64 {
    x(second as f64, seconds)
}

/// A line chart over the seconds of a run. `windows` are shaded, each from one second to another.
pub(super) fn lines(
    page: &mut String,
    title: &str,
    axis: Axis,
    lines: &[Line],
    windows: &[(f64, f64)],
) {
    let seconds = lines.iter().map(|line| line.values.len()).max();
    let seconds = seconds.unwrap_or_default();
    let range = Range::of(axis, lines);
    let key: String = lines
        .iter()
        .map(|line| format!("<span><i class=\"{}\"></i>{}</span>", line.class, line.name))
        .collect();
    let _ = write!(
        page,
        "<figure><figcaption>{title} <span class=\"key\">{key}</span></figcaption>"
    );
    open_plot(page, title, "plot");
    for (from, until) in windows {
        let (from, until) = (x(*from, seconds), x(*until, seconds));
        column(page, "window", from, until);
        page.push_str("/>");
    }
    for mark in &range.marks {
        let y = range.y(*mark);
        let _ = write!(
            page,
            "<line x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\" class=\"grid\"/><text x=\"-8\" y=\"{:.1}\" class=\"y\">{}</text>",
            y + 4.0,
            axis.mark(*mark)
        );
    }
    second_labels(page, seconds);
    let _ = write!(
        page,
        "<svg width=\"100%\" height=\"{HEIGHT}\" viewBox=\"0 0 {CURVE_WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\">"
    );
    for line in lines {
        let _ = write!(
            page,
            "<path d=\"{}\" class=\"line {}\"/>",
            curve(line, seconds, &range),
            line.class
        );
    }
    page.push_str("</svg>");
    tooltips(page, axis, lines, seconds);
    page.push_str("</svg></div></figure>");
}

/// Opens a plot that can have the keyboard focus; the script moves its tooltip with the arrow keys.
fn open_plot(page: &mut String, title: &str, class: &str) {
    let _ = write!(
        page,
        "<div class=\"{class}\" tabindex=\"0\" role=\"group\" aria-label=\"{title}\"><svg height=\"{HEIGHT}\">"
    );
}

/// Opens a `rect` of the full height between two horizontal positions; the caller closes it.
fn column(page: &mut String, class: &str, from: f64, until: f64) {
    let _ = write!(
        page,
        "<rect class=\"{class}\" x=\"{:.2}%\" width=\"{:.2}%\" height=\"{HEIGHT}\"",
        from * 100.0,
        (until - from) * 100.0
    );
}

fn second_labels(page: &mut String, seconds: usize) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "seconds of a load test"
    )]
    let every = (round_step(seconds as f64 / 8.0) as usize).max(1);
    for (n, second) in (0..seconds).step_by(every).enumerate() {
        // A narrow page shows every other label.
        let class = if n % 2 == 0 { "x" } else { "x wide" };
        let _ = write!(
            page,
            "<text x=\"{:.2}%\" y=\"{}\" class=\"{class}\">{second} s</text>",
            x_of(second, seconds) * 100.0,
            HEIGHT + 20.0
        );
    }
}

fn curve(line: &Line, seconds: usize, range: &Range) -> String {
    let mut path = String::new();
    let mut pen_down = false;
    for (second, value) in line.values.iter().enumerate() {
        let Some(value) = value else {
            pen_down = false;
            continue;
        };
        let letter = if pen_down { 'L' } else { 'M' };
        let x = x_of(second, seconds) * CURVE_WIDTH;
        // A single second with a value is drawn as a dot.
        let _ = write!(path, "{letter}{x:.1} {:.1}h0.01", range.y(*value));
        pen_down = true;
    }
    path
}

/// Invisible columns with the values of their seconds as titles, which browsers show without scripts.
fn tooltips(page: &mut String, axis: Axis, lines: &[Line], seconds: usize) {
    let width = seconds.div_ceil(MAX_COLUMNS).max(1);
    for first in (0..seconds).step_by(width) {
        let last = (first + width - 1).min(seconds - 1);
        let mut text = match first == last {
            true => format!("{first} s"),
            false => format!("{first} s to {last} s, highest values"),
        };
        for line in lines {
            let values = line
                .values
                .get(first..=last.min(line.values.len().max(1) - 1));
            let values = values.unwrap_or_default().iter().flatten();
            let highest = values.copied().reduce(f64::max);
            let value = highest.map_or("not measured".to_owned(), |value| axis.value(value));
            let _ = write!(text, "\n{}: {value}", line.name);
        }
        let half = 0.5 * x(1.0, seconds);
        let from = (x_of(first, seconds) - half).max(0.0);
        let until = (x_of(last, seconds) + half).min(1.0);
        column(page, "hit", from, until);
        let _ = write!(page, "><title>{}</title></rect>", escape(&text));
    }
}

/// The next larger number that is 1, 2 or 5 times a power of ten.
fn round_step(near: f64) -> f64 {
    let power = 10_f64.powf(near.max(1e-9).log10().floor());
    let factor = near / power;
    let round = match factor {
        _ if factor <= 1.0 => 1.0,
        _ if factor <= 2.0 => 2.0,
        _ if factor <= 5.0 => 5.0,
        _ => 10.0,
    };
    power * round
}

/// A histogram of the latencies of writes.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(super) fn histogram(page: &mut String, title: &str, buckets: &Buckets) {
    let _ = write!(page, "<figure><figcaption>{title}</figcaption>");
    open_plot(page, title, "plot histogram");
    let highest = buckets.iter().map(|(_, count)| *count).max();
    let highest = highest.unwrap_or_default().max(1) as f64;
    let width = 1.0 / buckets.len().max(1) as f64;
    let every = buckets.len().div_ceil(5).max(1);
    for (n, (until, count)) in buckets.iter().enumerate() {
        let left = n as f64 * width;
        let height = *count as f64 / highest * HEIGHT;
        let _ = write!(
            page,
            "<rect x=\"{:.2}%\" y=\"{:.1}\" width=\"{:.2}%\" height=\"{height:.1}\" rx=\"1.5\" class=\"bar\"/>",
            (left + 0.08 * width) * 100.0,
            HEIGHT - height,
            0.84 * width * 100.0,
        );
        column(page, "hit", left, left + width);
        let _ = write!(
            page,
            "><title>up to {}\nwrites: {count}</title></rect>",
            time(*until)
        );
        if n % every == 0 {
            let _ = write!(
                page,
                "<text x=\"{:.2}%\" y=\"{}\" class=\"x\">{}</text>",
                (left + width / 2.0) * 100.0,
                HEIGHT + 20.0,
                time(*until)
            );
        }
    }
    page.push_str("</svg></div></figure>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(values: Vec<Option<f64>>, axis: Axis) -> String {
        let mut page = String::new();
        let line = Line {
            name: "writes",
            class: "a",
            values,
        };
        lines(&mut page, "Writes", axis, &[line], &[(1.0, 2.0)]);
        page
    }

    #[test]
    fn each_second_has_a_tooltip_with_its_values() {
        let page = draw(vec![Some(3.0), None, Some(12.0)], Axis::Count);
        for title in [
            "0 s\nwrites: 3",
            "1 s\nwrites: not measured",
            "2 s\nwrites: 12",
        ] {
            assert!(page.contains(&format!("<title>{title}</title>")), "{page}");
        }
        let times = draw(vec![Some(1234.0)], Axis::Milliseconds);
        assert!(
            times.contains("<title>0 s\nwrites: 1.23 s</title>"),
            "{times}"
        );
    }

    #[test]
    fn columns_of_a_long_run_show_the_highest_value() {
        let mut values = vec![Some(1.0); 3601];
        values[7] = Some(42.0);
        let page = draw(values, Axis::Count);
        assert!(page.contains("<title>7 s to 13 s, highest values\nwrites: 42</title>"));
        assert!(page.matches("<title>").count() <= MAX_COLUMNS);
    }

    #[test]
    fn marks_have_no_rounding_errors() {
        assert_eq!(Axis::CpuCores.mark(3.0 * 0.1), "0.3");
        assert_eq!(Axis::Count.mark(200.0), "200");
        assert_eq!(Axis::Milliseconds.mark(0.1), "100 µs");
    }
}
