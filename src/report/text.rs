//! A report in text: for a terminal, and as Markdown.

use std::fmt::Write;

use super::{Block, Report};
use crate::console::Table;

/// Text for a terminal: tables in columns, bars of characters.
pub(super) fn terminal(report: &Report) -> String {
    let mut out = String::new();
    for (at, section) in report.sections.iter().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        if !section.heading.is_empty() {
            let _ = writeln!(out, "{}", section.heading);
        }
        terminal_blocks(&mut out, &section.blocks);
    }
    out
}

fn terminal_blocks(out: &mut String, blocks: &[Block]) {
    for block in blocks {
        match block {
            Block::Text(text) => {
                let _ = writeln!(out, "{text}");
            }
            Block::Table(table) => {
                let _ = write!(out, "{table}");
            }
            Block::Histogram { title, histogram } => {
                let _ = write!(out, "\n{title}\n{histogram}");
            }
            Block::Scatter(_) => {}
            Block::Details { title, blocks } => {
                let _ = writeln!(out, "\n{title}");
                terminal_blocks(out, blocks);
            }
        }
    }
}

/// Markdown of GitHub.
pub(super) fn markdown(report: &Report) -> String {
    let mut out = format!("# {}\n", markdown_text(&report.title));
    for section in &report.sections {
        if !section.heading.is_empty() {
            let _ = write!(out, "\n## {}\n", markdown_text(&section.heading));
        }
        markdown_blocks(&mut out, &section.blocks);
    }
    out
}

fn markdown_blocks(out: &mut String, blocks: &[Block]) {
    for block in blocks {
        match block {
            Block::Text(text) => {
                let _ = write!(out, "\n{}\n", markdown_text(text));
            }
            Block::Table(table) => {
                let _ = write!(out, "\n{}", markdown_table(table));
            }
            Block::Histogram { title, histogram } => {
                let mut table = Table::new([title.as_str(), "count"]);
                histogram.bars().into_iter().for_each(|(label, count)| table.row([label, count.to_string()]));
                let _ = write!(out, "\n{}", markdown_table(&table));
            }
            Block::Scatter(_) => {}
            Block::Details { title, blocks } => {
                let _ = write!(out, "\n### {}\n", markdown_text(title));
                markdown_blocks(out, blocks);
            }
        }
    }
}

fn markdown_table(table: &Table) -> String {
    let mut out = String::new();
    let columns = table.rows().first().map_or(0, Vec::len);
    for (at, row) in table.rows().iter().enumerate() {
        let cells: Vec<String> =
            (0..columns).map(|at| row.get(at).map_or(String::new(), |cell| markdown_text(cell))).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
        if at == 0 {
            let rules: Vec<&str> = (0..columns).map(|at| if table.is_text(at) { "---" } else { "---:" }).collect();
            let _ = writeln!(out, "| {} |", rules.join(" | "));
        }
    }
    out
}

/// Text on one line, with the characters escaped that Markdown or HTML would read as marks.
fn markdown_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut characters = line.chars().peekable();
    let mut before = ' ';
    while let Some(character) = characters.next() {
        // an underscore inside a word is no mark
        let is_inside = character == '_'
            && before.is_alphanumeric()
            && characters.peek().is_some_and(|next| next.is_alphanumeric());
        if "\\`*_[]<>|#&~".contains(character) && !is_inside {
            out.push('\\');
        }
        out.push(character);
        before = character;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Histogram, Scale, Section};
    use super::*;

    fn report() -> Report {
        let mut table = Table::new(["query", "value"]);
        table.row(["<a|b>", "1.0"]);
        table.row(["_a_b_", "2.0"]);
        let histogram = Histogram::of([(1.0, 2), (2.0, 1)].into_iter(), Scale::Whole);
        let details = Block::Details { title: "more".into(), blocks: vec![Block::Text("*x*".into())] };
        let section = Section::new("scores")
            .with(Block::Table(table))
            .with(Block::Histogram { title: "dims".into(), histogram })
            .with(details);
        Report { title: "r".into(), sections: vec![section] }
    }

    #[test]
    fn text_and_markdown() {
        let text = terminal(&report());
        assert!(text.starts_with("scores\nquery  value\n<a|b>    1.0\n_a_b_    2.0\n\ndims\n1  2  █"), "{text}");
        let markdown = markdown(&report());
        assert!(
            markdown.contains("| query | value |\n| --- | ---: |\n| \\<a\\|b\\> | 1.0 |\n| \\_a_b\\_ | 2.0 |\n"),
            "{markdown}"
        );
        assert!(markdown.contains("### more\n\n\\*x\\*\n") && markdown.contains("| 1 | 2 |"), "{markdown}");
    }
}
