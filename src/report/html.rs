//! A report as one page of HTML: styles and charts are in the page, and nothing is loaded.

use std::fmt::Write;

use super::{Block, Report, svg};
use crate::console::Table;

/// The page. Every text is escaped, and the page forbids scripts and loading.
pub(super) fn page(report: &Report) -> String {
    let title = escape(&report.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        include_str!("style.css")
    );
    for section in &report.sections {
        out.push_str("<section>\n");
        if !section.heading.is_empty() {
            let _ = writeln!(out, "<h2>{}</h2>", escape(&section.heading));
        }
        blocks(&mut out, &section.blocks);
        out.push_str("</section>\n");
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn blocks(out: &mut String, blocks_of: &[Block]) {
    for block in blocks_of {
        match block {
            Block::Text(text) => {
                let _ = writeln!(out, "<p>{}</p>", escape(text));
            }
            Block::Table(of) => table(out, of),
            Block::Histogram { title, histogram } => figure(out, title, &svg::bars(title, &histogram.bars())),
            Block::Scatter(scatter) => figure(out, &scatter.title, &svg::scatter(scatter)),
            Block::Details { title, blocks: inner } => {
                let _ = writeln!(out, "<details open>\n<summary>{}</summary>", escape(title));
                blocks(out, inner);
                out.push_str("</details>\n");
            }
        }
    }
}

fn figure(out: &mut String, title: &str, svg: &str) {
    let _ = writeln!(out, "<figure>\n<figcaption>{}</figcaption>\n{svg}\n</figure>", escape(title));
}

fn table(out: &mut String, table: &Table) {
    out.push_str("<div class=\"table\"><table>\n");
    for (at, row) in table.rows().iter().enumerate() {
        let tag = if at == 0 { "th" } else { "td" };
        out.push_str(match at {
            0 => "<thead><tr>",
            1 => "<tbody>\n<tr>",
            _ => "<tr>",
        });
        for (column, cell) in row.iter().enumerate() {
            let class = if table.is_text(column) { " class=\"text\"" } else { "" };
            let _ = write!(out, "<{tag}{class}>{}</{tag}>", escape(cell));
        }
        out.push_str(if at == 0 { "</tr></thead>\n" } else { "</tr>\n" });
    }
    out.push_str(if table.rows().len() > 1 { "</tbody></table></div>\n" } else { "</table></div>\n" });
}

/// Text with the characters escaped that HTML reads as marks; control characters, which HTML forbids, are replaced.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            character if character.is_control() => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Histogram, Scale, Scatter, Section};
    use super::*;

    const HOSTILE: &str = "</style><script>alert('x')</script>\"&\u{0}";

    #[test]
    fn every_text_is_escaped_and_nothing_is_loaded() {
        let text = || HOSTILE.to_owned();
        let mut table = Table::new([HOSTILE, "b"]);
        table.row([HOSTILE, HOSTILE]);
        let scatter = Scatter { title: text(), x_label: text(), y_label: text(), points: vec![(text(), 1.0, 2.0)] };
        let histogram = Histogram::of([(1.0, 2)].into_iter(), Scale::Whole);
        let section = Section::new(HOSTILE)
            .with(Block::Text(text()))
            .with(Block::Table(table))
            .with(Block::Histogram { title: text(), histogram })
            .with(Block::Scatter(scatter))
            .with(Block::Details { title: text(), blocks: vec![Block::Text(text())] });
        let page = page(&Report { title: text(), sections: vec![section] });
        assert!(!page.contains("<script") && !page.contains("</style><") && !page.contains('\u{0}'), "{page}");
        assert_eq!(page.matches("</style>").count(), 1);
        for loads in ["http://", "https://", " src=", " href=", "url(", "@import"] {
            assert!(!page.contains(loads), "{loads}");
        }
        assert!(page.matches("&lt;script&gt;").count() >= 12);
    }
}
