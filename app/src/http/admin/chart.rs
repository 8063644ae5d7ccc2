//! Charts as pictures that the server draws.

use maud::{Markup, html};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 150.0;

/// The room for the axis' labels.
const LEFT: f64 = 96.0;
const BOTTOM: f64 = 30.0;
const TOP: f64 = 16.0;

/// A line of a chart. `None`: there is no value at this point.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) values: Vec<Option<f64>>,
}

/// A chart of at most two lines over the same points, from `start` until now. Readers of the screen get `summary` instead.
pub(super) fn chart(
    caption: &str,
    unit: &str,
    start: &str,
    summary: &str,
    lines: &[Line],
) -> Markup {
    let values = lines.iter().flat_map(|line| line.values.iter().flatten());
    let max = rounded_up(values.fold(0.0, |max: f64, value| max.max(*value)));
    let path = |line: &Line| path(&line.values, max);
    html! {
        figure class="panel" {
            figcaption {
                (caption)
                @if lines.len() > 1 {
                    span class="muted" {
                        @for (number, line) in lines.iter().enumerate() {
                            @if number > 0 { ", " }
                            (if number == 0 { "solid: " } else { "dashed: " }) (line.name)
                        }
                    }
                }
            }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(summary) {
                @for (at, label) in [(max, format!("{max} {unit}")), (0.0, "0".to_owned())] {
                    @let y = y(at, max);
                    line class="axis" x1=(LEFT) x2=(WIDTH) y1=(y) y2=(y) {}
                    text x=(LEFT - 6.0) y=(y + 5.0) text-anchor="end" { (label) }
                }
                text x=(LEFT) y=(HEIGHT - 4.0) { (start) }
                text x=(WIDTH) y=(HEIGHT - 4.0) text-anchor="end" { "now" }
                @for (number, line) in lines.iter().enumerate() {
                    path class=(format!("line-{}", number + 1)) d=(path(line)) {}
                }
            }
        }
    }
}

fn y(value: f64, max: f64) -> f64 {
    let height = HEIGHT - BOTTOM - TOP;
    (TOP + height * (1.0 - value / max)).round()
}

/// The line through the values. Points without a value interrupt it.
fn path(values: &[Option<f64>], max: f64) -> String {
    let step = (WIDTH - LEFT) / (values.len().max(2) - 1) as f64;
    let mut path = String::new();
    let mut is_drawing = false;
    for (at, value) in values.iter().enumerate() {
        if let Some(value) = value {
            let x = LEFT + step * at as f64;
            let command = if is_drawing { 'L' } else { 'M' };
            // A value between two gaps is a dot.
            path += &format!("{command}{x:.1} {}h0.1", y(*value, max));
        }
        is_drawing = value.is_some();
    }
    path
}

/// The next larger number with one significant digit that is 1, 2 or 5; at least 1.
fn rounded_up(max: f64) -> f64 {
    let mut step = 1.0;
    loop {
        for factor in [1.0, 2.0, 5.0] {
            if max <= step * factor {
                return step * factor;
            }
        }
        step *= 10.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_ends_at_a_round_number() {
        for (max, end) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (1.5, 2.0),
            (23.0, 50.0),
            (501.0, 1000.0),
        ] {
            assert_eq!(rounded_up(max), end, "{max}");
        }
    }

    #[test]
    fn points_without_a_value_interrupt_a_line() {
        let drawn = path(&[Some(0.0), Some(1.0), None, Some(0.5)], 1.0);
        assert_eq!(drawn.matches('M').count(), 2, "{drawn}");
        assert_eq!(drawn.matches('L').count(), 1, "{drawn}");
        assert!(drawn.starts_with("M96.0 120"), "{drawn}");
    }
}
