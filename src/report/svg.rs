//! Charts as SVG elements of a page.

use std::fmt::Write;

use super::Scatter;
use super::html::escape;

const WIDTH: f64 = 480.0;

/// Horizontal bars with a label and a count each.
pub(super) fn bars(title: &str, bars: &[(String, u64)]) -> String {
    const ROW: f64 = 20.0;
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1) as f64;
    let characters = bars.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let left = (characters as f64 * 7.5 + 8.0).min(WIDTH / 2.0);
    let space = WIDTH - left - 70.0;
    let mut out = open(title, ROW * bars.len() as f64 + 4.0);
    for (at, (label, count)) in bars.iter().enumerate() {
        let y = at as f64 * ROW;
        let width = *count as f64 / most * space;
        let text = y + 14.0;
        let _ = write!(
            out,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{text}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            escape(label)
        );
        let _ =
            write!(out, "<rect class=\"bar\" x=\"{left:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"15\"/>", y + 2.0);
        let _ = write!(out, "<text x=\"{:.1}\" y=\"{text}\">{count}</text>", left + width + 5.0);
    }
    out.push_str("</svg>");
    out
}

/// Points with labels, over axes that begin and end at the smallest and the largest value. The horizontal axis is
/// logarithmic where its values differ by more than ten times.
pub(super) fn scatter(scatter: &Scatter) -> String {
    const HEIGHT: f64 = 300.0;
    const LEFT: f64 = 52.0;
    const BOTTOM: f64 = HEIGHT - 42.0;
    let mut out = open(&scatter.title, HEIGHT);
    let xs = Axis::of(scatter.points.iter().map(|(_, x, _)| *x), true);
    let ys = Axis::of(scatter.points.iter().map(|(_, _, y)| *y), false);
    let across = |x: f64| LEFT + 10.0 + xs.share(x) * (WIDTH - LEFT - 30.0);
    let up = |y: f64| BOTTOM - 10.0 - ys.share(y) * (BOTTOM - 44.0);
    let _ = write!(out, "<path class=\"line\" fill=\"none\" d=\"M{LEFT} 4V{BOTTOM}H{WIDTH}\"/>");
    for (x, text) in xs.ticks() {
        let _ = write!(
            out,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            across(x),
            BOTTOM + 16.0
        );
    }
    for (y, text) in ys.ticks() {
        let _ = write!(
            out,
            "<text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 5.0,
            up(y) + 4.0
        );
    }
    let (x_label, y_label) = (escape(&scatter.x_label), escape(&scatter.y_label));
    let _ = write!(out, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"end\">{x_label}</text>", WIDTH - 4.0, HEIGHT - 6.0);
    let _ = write!(out, "<text x=\"{}\" y=\"14\">{y_label}</text>", LEFT + 6.0);
    let mut points: Vec<(&str, f64, f64)> = scatter
        .points
        .iter()
        .filter(|(_, x, y)| x.is_finite() && y.is_finite())
        .map(|(label, x, y)| (label.as_str(), across(*x), up(*y)))
        .collect();
    points.sort_by(|a, b| a.2.total_cmp(&b.2));
    let label_ys = apart(points.iter().map(|(.., y)| y + 4.0), BOTTOM - 4.0);
    for ((label, x, y), label_y) in points.into_iter().zip(label_ys) {
        let (anchor, text_x) = if x > WIDTH * 0.6 { ("end", x - 8.0) } else { ("start", x + 8.0) };
        let _ = write!(
            out,
            "<circle class=\"bar\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}</title></circle>",
            escape(label)
        );
        let _ =
            write!(out, "<text x=\"{text_x:.1}\" y=\"{label_y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(label));
    }
    out.push_str("</svg>");
    out
}

/// Heights of labels, from top to bottom, that do not overlap and are not below `lowest` as long as there is room.
fn apart(wanted: impl Iterator<Item = f64>, lowest: f64) -> Vec<f64> {
    const LINE: f64 = 13.0;
    let mut above = f64::NEG_INFINITY;
    let mut heights: Vec<f64> = wanted
        .map(|y| {
            above = y.max(above + LINE);
            above
        })
        .collect();
    let mut limit = lowest;
    for y in heights.iter_mut().rev() {
        *y = y.min(limit);
        limit = *y - LINE;
    }
    heights
}

fn open(title: &str, height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">", escape(title))
}

/// Range of an axis.
struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>, may_be_log: bool) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let (low, high) =
            finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        Self { low, high, is_log: may_be_log && low > 0.0 && high / low > 10.0 }
    }

    /// Place of a value between the ends, 0 to 1; the middle if there is one value only.
    fn share(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.is_log { value.ln() } else { value };
        let span = scale(self.high) - scale(self.low);
        if span > 0.0 { (scale(value) - scale(self.low)) / span } else { 0.5 }
    }

    /// Values at the ends and in the middle, and their texts.
    fn ticks(&self) -> Vec<(f64, String)> {
        let middle = if self.is_log { (self.low * self.high).sqrt() } else { (self.low + self.high) / 2.0 };
        let mut ticks: Vec<(f64, String)> = [self.low, middle, self.high].map(|value| (value, short(value))).into();
        ticks.dedup_by(|a, b| a.1 == b.1);
        ticks
    }
}

/// Number with three significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.001 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_near_points_do_not_overlap() {
        assert_eq!(apart([10.0, 12.0, 50.0].into_iter(), 100.0), [10.0, 23.0, 50.0]);
        // those that would be below the chart move up
        assert_eq!(apart([10.0, 95.0, 98.0].into_iter(), 100.0), [10.0, 87.0, 100.0]);
        assert_eq!(apart([].into_iter(), 100.0), [0.0; 0]);
    }

    #[test]
    fn charts_of_any_numbers_are_finite() {
        let lists: [&[(f64, f64)]; 5] =
            [&[], &[(1.0, 0.5)], &[(0.0, 0.0), (0.0, 1.0)], &[(1e-3, 0.1), (1e9, 0.9)], &[(f64::NAN, 1.0), (2.0, 1.0)]];
        for points in lists {
            let points: Vec<_> = points.iter().map(|(x, y)| ("p".to_owned(), *x, *y)).collect();
            let chart = Scatter { title: "t".into(), x_label: "x".into(), y_label: "y".into(), points };
            let text = scatter(&chart);
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
            let drawn = chart.points.iter().filter(|(_, x, _)| x.is_finite()).count();
            assert_eq!(text.matches("<circle").count(), drawn);
        }
        assert!(!bars("t", &[]).contains("NaN"));
        assert_eq!(bars("t", &[("a".into(), 0), ("b".into(), 3)]).matches("<rect").count(), 2);
    }
}
