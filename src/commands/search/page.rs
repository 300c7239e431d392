//! `--html`: queries, hits, marked snippets and explanations as one page that loads nothing.

use std::fmt::Write;
use std::ops::Range;

use splade_files::Query;

use crate::answer::{AnswerHit, Explanation, Mark, share};
use crate::cli::Mode;

const STYLE: &str = include_str!("page.css");

/// Start of the page.
pub(super) fn head() -> String {
    // the policy forbids a browser to load anything, whatever the texts contain
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Search results</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Search results</h1>\n\
         <p class=\"soft\"><mark>Word</mark> in query and text, \
         <mark class=\"expansion\">word</mark> that the encoder added to the query. \
         An <em>expansion</em> is a term that the encoder added to the document.</p>\n"
    )
}

/// End of the page.
pub(super) const FOOT: &str = "</main>\n</body>\n</html>\n";

/// Section of a query.
pub(super) fn section(query: &Query, mode: Mode, hits: &[AnswerHit]) -> String {
    let count = match hits.len() {
        0 => "nothing found".to_owned(),
        1 => "1 hit".to_owned(),
        count => format!("{count} hits"),
    };
    let mut html = format!(
        "<section>\n<h2 dir=\"auto\" lang=\"\">{}</h2>\n<p class=\"soft\">query <bdi>{}</bdi> · {} · {count}</p>\n<ol>\n",
        escape(&query.text),
        escape(&query.id),
        mode.name(),
    );
    for (rank, hit) in (1..).zip(hits) {
        html += &hit_item(rank, hit);
    }
    html + "</ol>\n</section>\n"
}

fn hit_item(rank: usize, hit: &AnswerHit) -> String {
    let id = &hit.hit.id;
    let title = hit.document.title.as_deref().unwrap_or(id);
    let mut html = format!(
        "<li class=\"hit\">\n<div class=\"head\"><span class=\"soft\">{rank}</span><h3 dir=\"auto\" lang=\"\">{}</h3>\
         <span class=\"score\">{:.3}</span></div>\n<p class=\"soft\"><bdi>{}</bdi></p>\n",
        escape(title),
        hit.hit.score,
        escape(id),
    );
    let text = &hit.document.text;
    for snippet in &hit.snippets {
        let before = if snippet.range.start > 0 { "… " } else { "" };
        let after = if text[snippet.range.end..].trim().is_empty() { "" } else { " …" };
        let marked = marked(text, &snippet.range, &snippet.marks);
        let _ = writeln!(html, "<p class=\"snippet\" dir=\"auto\" lang=\"\">{before}{marked}{after}</p>");
    }
    if let Some(explanation) = &hit.explanation {
        html += &explained(explanation);
    }
    html + "</li>\n"
}

/// Part of a text with its marks.
fn marked(text: &str, range: &Range<usize>, marks: &[Mark]) -> String {
    let mut html = String::new();
    let mut at = range.start;
    for mark in marks {
        let class = if mark.expansion { " class=\"expansion\"" } else { "" };
        let word = escape(&text[mark.range.clone()]);
        html += &format!("{}<mark{class}>{word}</mark>", escape(&text[at..mark.range.start]));
        at = mark.range.end;
    }
    html + &escape(&text[at..range.end])
}

fn explained(explanation: &Explanation) -> String {
    let mut html = String::new();
    let places: Vec<String> = explanation
        .places
        .iter()
        .map(|place| {
            let rank = place.rank.map_or("below the depth".to_owned(), |rank| format!("rank {rank}"));
            format!("{}: {rank}, score {:.3}", place.list, place.score)
        })
        .collect();
    if !places.is_empty() {
        let _ = writeln!(html, "<p class=\"soft\">{}</p>", places.join(" · "));
    }
    let sum = explanation.sparse_score();
    let largest = explanation.terms.iter().map(|term| term.score.abs()).fold(0.0, f32::max);
    let terms = explanation.terms.iter().map(|term| bar(&term.token, term.score, [sum, largest], term.expansion));
    html += &table("Terms", terms.collect());
    let sum = explanation.bm25_score();
    let largest = explanation.words.iter().map(|word| word.score).fold(0.0, f32::max);
    let words = explanation.words.iter().map(|word| bar(&word.word, word.score, [sum, largest], false));
    html + &table("Words of BM25", words.collect())
}

fn table(caption: &str, rows: Vec<String>) -> String {
    match rows.len() {
        0 => String::new(),
        _ => format!("<table>\n<caption>{caption}</caption>\n{}</table>\n", rows.concat()),
    }
}

/// Row of a term with its share of `sum`, and a bar whose length is relative to the `largest` score of the table.
fn bar(name: &str, score: f32, [sum, largest]: [f32; 2], expansion: bool) -> String {
    let share = share(score, sum);
    let class = match (score < 0.0, expansion) {
        (true, _) => "bar negative",
        (_, true) => "bar expansion",
        _ => "bar",
    };
    let width = if largest > 0.0 { 100.0 * score.abs() / largest } else { 0.0 };
    let percent = share.map_or(String::new(), |share| format!("{:.0} %", share * 100.0));
    let kind = if expansion { " <small>expansion</small>" } else { "" };
    format!(
        "<tr><th scope=\"row\"><bdi lang=\"\">{}</bdi>{kind}</th><td><span class=\"{class}\" style=\"width:{width:.1}%\"></span></td>\
         <td class=\"number\">{score:.3}</td><td class=\"number\">{percent}</td></tr>\n",
        escape(name),
    )
}

/// Text as HTML, in elements and in attributes. Control characters, which HTML does not allow, become U+FFFD.
fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\n' | '\t' => html.push(character),
            _ if character.is_control() => html.push('\u{fffd}'),
            _ => html.push(character),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_texts_is_escaped() {
        assert_eq!(
            escape("<b a='1' c=\"2\">&amp;\u{1b}[0m\n"),
            "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;amp;\u{fffd}[0m\n"
        );
        let text = "a <b> & c";
        let marks = [Mark { range: 2..5, expansion: false }, Mark { range: 8..9, expansion: true }];
        let expected = "a <mark>&lt;b&gt;</mark> &amp; <mark class=\"expansion\">c</mark>";
        assert_eq!(marked(text, &(0..text.len()), &marks), expected);
    }
}
