//! [`Report`]: findings as sections of text, tables and charts, for the terminal, as Markdown and as a page.

pub(crate) mod evaluated;
mod histogram;
mod html;
pub(crate) mod mteb;
mod queries;
mod svg;
mod text;

use std::path::Path;

use anyhow::Result;
use splade_eval::{MAIN_SCORE, PairedTest};

pub(crate) use histogram::{Histogram, Scale};
pub(crate) use queries::{QuerySource, ReportedQuery, extremes, query_section};

use crate::console::Table;
use crate::outputs::Output;

/// Findings under a title.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) title: String,
    pub(crate) sections: Vec<Section>,
}

/// Blocks under a heading.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) heading: String,
    pub(crate) blocks: Vec<Block>,
}

/// Part of a section.
#[derive(Debug)]
pub(crate) enum Block {
    /// A paragraph.
    Text(String),
    /// A table, whose first row is the heading.
    Table(Table),
    /// Bars of counts.
    Histogram { title: String, histogram: Histogram },
    /// Points by two quantities; in text its numbers are in a table beside it.
    Scatter(Scatter),
    /// A title, and blocks that a page shows on demand.
    Details { title: String, blocks: Vec<Block> },
}

/// Points by two quantities.
#[derive(Debug)]
pub(crate) struct Scatter {
    pub(crate) title: String,
    /// name of the horizontal quantity, with its unit
    pub(crate) x_label: String,
    /// name of the vertical quantity
    pub(crate) y_label: String,
    /// label of a point, x and y
    pub(crate) points: Vec<(String, f64, f64)>,
}

impl Section {
    /// A section without blocks.
    pub(crate) fn new(heading: impl Into<String>) -> Self {
        Self { heading: heading.into(), blocks: Vec::new() }
    }

    /// Adds a block.
    pub(crate) fn with(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }
}

impl Report {
    /// Text for a terminal.
    pub(crate) fn to_text(&self) -> String {
        text::terminal(self)
    }

    /// Markdown of GitHub.
    pub(crate) fn to_markdown(&self) -> String {
        text::markdown(self)
    }

    /// Writes one self-contained page of HTML.
    ///
    /// # Errors
    /// A file that exists already, without `overwrite`, or that cannot be written.
    pub(crate) fn write_html(&self, path: &Path, overwrite: bool) -> Result<()> {
        use std::io::Write;

        let mut output = Output::open(Some(path), overwrite)?;
        output.put(|output| output.write_all(html::page(self).as_bytes()))?;
        output.finish()
    }
}

/// Significance of a corrected p value: `**` below 0.01, `*` below 0.05.
pub(crate) fn mark(p: f64) -> &'static str {
    match p {
        p if p < 0.01 => "**",
        p if p < 0.05 => "*",
        _ => "",
    }
}

/// Formats a difference with its sign and 4 decimals; a difference that rounds to zero is `+0.0000`.
pub(crate) fn signed(difference: f64) -> String {
    let text = format!("{difference:+.4}");
    if text == "-0.0000" { "+0.0000".to_owned() } else { text }
}

/// Formats a p value: `0.034`, `<0.001`.
pub(crate) fn p_value(p: f64) -> String {
    match p {
        p if p.is_nan() => "undefined".to_owned(),
        p if p < 0.001 => "<0.001".to_owned(),
        p => format!("{p:.3}"),
    }
}

/// Name of a metric for people: `nDCG@10` for `ndcg_at_10`.
pub(crate) fn metric_title(metric: &str) -> String {
    let Some((measure, cutoff)) = metric.split_once("_at_") else { return metric.to_owned() };
    let measure = match measure {
        "ndcg" => "nDCG",
        "map" => "MAP",
        "mrr" => "MRR",
        "hit_rate" => "hit rate",
        other => other,
    };
    format!("{measure}@{cutoff}")
}

/// One row of a table of comparisons.
#[derive(Debug)]
pub(crate) struct ComparisonRow {
    /// task and mode, or metric
    pub(crate) labels: Vec<String>,
    pub(crate) ours: f64,
    pub(crate) baseline: f64,
    /// test, and its two p values corrected for the number of tests
    pub(crate) test: Option<(PairedTest, CorrectedP)>,
}

/// p values of a paired test, corrected for the number of tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CorrectedP {
    pub(crate) randomisation: f64,
    pub(crate) t_test: f64,
}

/// Table of comparisons; columns of tests are there if a row has one.
pub(crate) fn comparison_table(labels: &[&str], ours: &str, rows: &[ComparisonRow]) -> Table {
    let tested = rows.iter().any(|row| row.test.is_some());
    let mut heading: Vec<&str> = labels.to_vec();
    heading.extend([ours, "baseline", "difference"]);
    if tested {
        heading.extend(["95 % interval", "wins", "ties", "losses", "p randomisation", "p t test"]);
    }
    let mut table = Table::new(heading).with_text(&(0..labels.len()).collect::<Vec<_>>());
    for row in rows {
        let mut cells = row.labels.clone();
        cells.push(format!("{:.4}", row.ours));
        cells.push(format!("{:.4}", row.baseline));
        let mark = row.test.as_ref().map_or("", |(_, p)| mark(p.randomisation));
        cells.push(format!("{}{mark}", signed(row.ours - row.baseline)));
        if let Some((test, p)) = &row.test {
            cells.push(format!("{} to {}", signed(test.interval[0]), signed(test.interval[1])));
            cells.extend([test.wins, test.ties, test.losses].map(|count| count.to_string()));
            cells.extend([p.randomisation, p.t_test].map(p_value));
        }
        table.row(cells);
    }
    table
}

/// Metrics shown unless others are chosen; result files have further ones.
pub(crate) const SHOWN: [&str; 5] = [MAIN_SCORE, "mrr_at_10", "map_at_100", "recall_at_100", "precision_at_10"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_that_rounds_to_zero_is_positive() {
        assert_eq!([-1e-9, -0.0, 0.0, -0.5, 0.25].map(signed), ["+0.0000", "+0.0000", "+0.0000", "-0.5000", "+0.2500"]);
    }

    #[test]
    fn p_values_and_marks() {
        assert_eq!([0.2, 0.05, 0.049, 0.01, 0.009, f64::NAN].map(mark), ["", "", "*", "*", "**", ""]);
        assert_eq!([0.0341, 0.0004, f64::NAN].map(p_value), ["0.034", "<0.001", "undefined"]);
        assert_eq!(
            ["ndcg_at_10", "hit_rate_at_1", "accuracy"].map(metric_title),
            ["nDCG@10", "hit rate@1", "accuracy"]
        );
    }
}
