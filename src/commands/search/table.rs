//! Hits as text for people.

use std::fmt::Write;

use splade_files::Query;

use super::paint::Paint;
use crate::answer::{AnswerHit, Explanation, Snippet, share};
use crate::console::Table;

/// Most expansion terms that are listed after a snippet.
const EXPANSIONS: usize = 5;

/// Parts and colours of the hits.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableStyle {
    pub(super) paint: Paint,
    /// true if the query is printed before its hits
    pub(super) many: bool,
    /// true if explanations are printed
    pub(super) explain: bool,
}

/// Returns the hits of a query.
pub(super) fn render(query: &Query, hits: &[AnswerHit], style: TableStyle) -> String {
    let mut text = String::new();
    if style.many {
        text += &format!("{}: {}\n", visible(&query.id), style.paint.title(&visible(&query.text)));
    }
    if hits.is_empty() {
        text += "nothing found\n";
    }
    for (rank, hit) in (1..).zip(hits) {
        let title = hit.document.title.as_deref().map(visible).unwrap_or_default();
        let id = visible(&hit.hit.id);
        let line = format!("{rank:>2}. {:<8.3} {id}  {}", hit.hit.score, style.paint.title(&title));
        text += &format!("{}\n", line.trim_end());
        if !hit.snippets.is_empty() {
            let parts: Vec<String> =
                hit.snippets.iter().map(|snippet| marked(&hit.document.text, snippet, style.paint)).collect();
            text += &format!("    {}\n", parts.join(" "));
        }
        match &hit.explanation {
            Some(explanation) if style.explain => text += &explained(explanation),
            Some(explanation) => text += &expansions(explanation, style.paint),
            None => {}
        }
    }
    text
}

/// Line of the terms with the largest scores that are not in the text.
fn expansions(explanation: &Explanation, paint: Paint) -> String {
    let terms = explanation.terms.iter().filter(|term| term.expansion && term.score > 0.0);
    let tokens: Vec<String> = terms.take(EXPANSIONS).map(|term| visible(&term.token)).collect();
    match tokens.len() {
        0 => String::new(),
        _ => format!("    {}\n", paint.dimmed(&format!("expansions: {}", tokens.join(", ")))),
    }
}

/// A snippet on one line with its marks. An ellipsis stands for text that is left out.
fn marked(text: &str, snippet: &Snippet, paint: Paint) -> String {
    let range = &snippet.range;
    let mut line = String::new();
    if !text[..range.start].trim().is_empty() {
        line.push('…');
    }
    let mut at = range.start;
    for mark in &snippet.marks {
        line += &visible(&text[at..mark.range.start]);
        let word = visible(&text[mark.range.clone()]);
        line += &if mark.expansion { paint.expansion(&word) } else { paint.word(&word) };
        at = mark.range.end;
    }
    line += &visible(&text[at..range.end]);
    if !text[range.end..].trim().is_empty() {
        line.push('…');
    }
    line.trim().to_owned()
}

/// A text with one space for every run of white space, without control characters and without marks that change the
/// direction of what follows: a document must not change the terminal.
fn visible(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            _ if character.is_whitespace() => {
                if !line.ends_with(' ') {
                    line.push(' ');
                }
            }
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            _ if character.is_control() => {}
            _ => line.push(character),
        }
    }
    line
}

/// Tables of the terms and words of a hit, and its places in the rankings that were fused.
fn explained(explanation: &Explanation) -> String {
    let mut text = String::new();
    for place in &explanation.places {
        let rank = place.rank.map_or("below the depth".to_owned(), |rank| format!("rank {rank}"));
        let _ = writeln!(text, "    {:<6}  {rank}, score {:.3}", place.list, place.score);
    }
    if !explanation.terms.is_empty() {
        let sum = explanation.sparse_score();
        let mut table = Table::new(["    term", "query", "document", "score", "share", ""]);
        for term in &explanation.terms {
            table.row([
                format!("    {}", visible(&term.token)),
                format!("{:.3}", term.query_weight),
                format!("{:.3}", term.document_weight),
                format!("{:.3}", term.score),
                percent(share(term.score, sum)),
                if term.expansion { "expansion".to_owned() } else { String::new() },
            ]);
        }
        let _ = write!(text, "{table}");
    }
    if !explanation.words.is_empty() {
        let sum = explanation.bm25_score();
        let mut table = Table::new(["    word of BM25", "score", "share"]);
        for word in &explanation.words {
            let cells = [format!("    {}", word.word), format!("{:.3}", word.score), percent(share(word.score, sum))];
            table.row(cells);
        }
        let _ = write!(text, "{table}");
    }
    text
}

fn percent(share: Option<f32>) -> String {
    share.map_or(String::new(), |share| format!("{:.0} %", share * 100.0))
}

/// Returns the start of a text on one line.
pub(crate) fn snippet(text: &str, characters: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_change_the_terminal() {
        assert_eq!(visible("a\n\t b\u{1b}[31mc\u{202e}d\u{2066}e\u{0}\u{9b}f  "), "a b[31mcdef ");
    }
}
