//! Quality against size and latency as an SVG.

use std::fmt::Write;

use super::pruning::Measured;

/// Size of a panel without its margins, in pixels.
const PANEL: [f64; 2] = [340.0, 300.0];
/// Space to the left of a panel, and above it.
const MARGIN: [f64; 2] = [64.0, 56.0];
const STYLE: &str = "svg { color-scheme: light dark; background: #fff; color: #1c1e21; font: 12px system-ui, sans-serif }\n\
text { fill: currentColor } .axis { stroke: #9aa1aa; fill: none } .line { fill: none; stroke-width: 1.5 } .small { font-size: 10px }\n\
.a { stroke: #2f6fdb; color: #2f6fdb } .b { stroke: #b35c00; color: #b35c00 } .c { stroke: #17879b; color: #17879b } \
.d { stroke: #5b6169; color: #5b6169 }\n.dot { fill: currentColor; stroke: none } .knee { fill: none; stroke: #b3261e; stroke-width: 2 }\n\
@media (prefers-color-scheme: dark) { svg { background: #16181c; color: #e6e8eb } .a { stroke: #7aa7f5; color: #7aa7f5 } \
.b { stroke: #f0a35e; color: #f0a35e } .c { stroke: #5cc3d6; color: #5cc3d6 } .knee { stroke: #f28b82 } }";

/// Rules of pruning with their classes and their places in the legend.
const RULES: [(&str, &str); 3] = [("--max-active-dims", "a"), ("--mass", "b"), ("--min-weight", "c")];

/// Cost of a setting.
type Cost<'a> = &'a dyn Fn(&Measured) -> f64;

/// A panel: the value on its horizontal axis, relative to that without pruning, and its scales.
struct Panel<'a> {
    label: &'a str,
    value: Cost<'a>,
    unpruned: &'a Measured,
    left: f64,
    widest: f64,
    /// quality at the bottom and at the top
    range: [f64; 2],
}

/// Draws two panels: quality against the size of the vectors, and against the latency.
pub(super) fn chart(measured: &[Measured], knee: Option<usize>, metric: &str) -> String {
    let width = 2.0 * (MARGIN[0] + PANEL[0]) + 24.0;
    let height = MARGIN[1] + PANEL[1] + 48.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>{metric} against size and latency under pruning</title>\n<style>{STYLE}</style>\n"
    );
    legend(&mut svg);
    let bytes = |at: &Measured| at.bytes as f64;
    let latency = |at: &Measured| at.latency_us;
    let knee = knee.and_then(|knee| measured.get(knee));
    let values: [(&str, Cost<'_>); 2] = [("size of the vectors", &bytes), ("latency", &latency)];
    for (at, (label, value)) in values.into_iter().enumerate() {
        let left = (MARGIN[0] + PANEL[0]) * at as f64;
        let Some(panel) = Panel::new(label, value, measured, left) else { continue };
        panel.axes(&mut svg, metric);
        panel.curves(&mut svg, measured);
        if let Some(knee) = knee {
            let (x, y) = (panel.x(knee), panel.y(knee.quality));
            let _ = writeln!(svg, "<circle class=\"knee\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7\"/>");
        }
    }
    svg + "</svg>\n"
}

/// Draws the names of the rules.
fn legend(svg: &mut String) {
    let dots = RULES.map(|(rule, class)| (rule, format!("<g class=\"{class}\"><circle class=\"dot\" r=\"4\"/></g>")));
    let knee = ("knee", "<circle class=\"knee\" r=\"6\"/>".to_owned());
    for (at, (name, dot)) in dots.into_iter().chain([knee]).enumerate() {
        let x = MARGIN[0] + 160.0 * at as f64;
        let _ = writeln!(svg, "<g transform=\"translate({x} 16)\">{dot}<text x=\"12\" y=\"4\">{name}</text></g>");
    }
}

impl<'a> Panel<'a> {
    /// Panel for measurements; none without any.
    fn new(label: &'a str, value: &'a dyn Fn(&Measured) -> f64, measured: &'a [Measured], left: f64) -> Option<Self> {
        let mut panel = Self { label, value, unpruned: measured.first()?, left, widest: 1.0, range: [0.0, 1.0] };
        panel.widest = measured.iter().map(|at| panel.relative(at)).fold(1.0, f64::max);
        let low = measured.iter().map(|at| at.quality).fold(f64::INFINITY, f64::min);
        let high = measured.iter().map(|at| at.quality).fold(0.0, f64::max);
        let room = if high > low { (high - low) * 0.08 } else { 0.05 };
        panel.range = [low - room, high + room];
        Some(panel)
    }

    fn relative(&self, at: &Measured) -> f64 {
        (self.value)(at) / (self.value)(self.unpruned).max(f64::MIN_POSITIVE)
    }

    fn x(&self, at: &Measured) -> f64 {
        self.left + MARGIN[0] + PANEL[0] * self.relative(at) / self.widest
    }

    fn y(&self, quality: f64) -> f64 {
        let [low, high] = self.range;
        MARGIN[1] + PANEL[1] * (high - quality) / (high - low)
    }

    fn axes(&self, svg: &mut String, metric: &str) {
        let [x0, y0] = [self.left + MARGIN[0], MARGIN[1]];
        let bottom = y0 + PANEL[1];
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{x0:.1} {y0:.1}V{bottom:.1}H{:.1}\"/>", x0 + PANEL[0]);
        for tick in 0..=4 {
            let part = f64::from(tick) / 4.0;
            let quality = self.range[0] + (self.range[1] - self.range[0]) * part;
            text(svg, "small", "end", [x0 - 6.0, self.y(quality) + 4.0], &format!("{quality:.3}"));
            let percent = format!("{:.0} %", 100.0 * self.widest * part);
            text(svg, "small", "middle", [x0 + PANEL[0] * part, bottom + 16.0], &percent);
        }
        text(svg, "", "start", [x0, y0 - 12.0], metric);
        let label = format!("{}, compared with no pruning", self.label);
        text(svg, "", "middle", [x0 + PANEL[0] / 2.0, bottom + 36.0], &label);
    }

    /// Draws a line for every rule, from no pruning on.
    fn curves(&self, svg: &mut String, measured: &[Measured]) {
        let mut labels: Vec<[f64; 2]> = Vec::new();
        for (rule, class) in RULES {
            let points: Vec<&Measured> = measured.iter().filter(|at| at.setting.flag == rule).collect();
            let line = std::iter::once(&self.unpruned).chain(&points);
            let line: Vec<String> = line.map(|at| format!("{:.1},{:.1}", self.x(at), self.y(at.quality))).collect();
            let _ = writeln!(svg, "<g class=\"{class}\"><polyline class=\"line\" points=\"{}\"/>", line.join(" "));
            for at in points {
                let (x, y, value) = (self.x(at), self.y(at.quality), at.setting.value);
                let title = format!("<title>{rule} {value}</title>");
                let _ = writeln!(svg, "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\">{title}</circle>");
                // a label on another one could not be read; the title has its value too
                if labels.iter().all(|[other_x, other_y]| (x - other_x).abs() > 26.0 || (y - other_y).abs() > 11.0) {
                    labels.push([x, y]);
                    text(svg, "small", "start", [x + 4.0, y + 12.0], &value.to_string());
                }
            }
            svg.push_str("</g>\n");
        }
    }
}

fn text(svg: &mut String, class: &str, anchor: &str, [x, y]: [f64; 2], text: &str) {
    let attributes = format!("class=\"{class}\" text-anchor=\"{anchor}\" stroke=\"none\"");
    let _ = writeln!(svg, "<text {attributes} x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
}
