//! Charts as SVG elements of a page.

use std::fmt::Write;

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

fn open(title: &str, height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">", escape(title))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_of_any_numbers_are_finite() {
        assert!(!bars("t", &[]).contains("NaN"));
        assert_eq!(bars("t", &[("a".into(), 0), ("b".into(), 3)]).matches("<rect").count(), 2);
    }
}
