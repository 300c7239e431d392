//! Hits as text for people.

use std::fmt::Write;

use splade_files::Query;

use crate::answer::{AnswerHit, Explanation, share};
use crate::console::Table;

/// Returns the hits of a query, with the query itself if there are `many`.
pub(super) fn render(query: &Query, hits: &[AnswerHit], many: bool) -> String {
    let mut text = String::new();
    if many {
        text += &format!("{}: {}\n", query.id, query.text);
    }
    if hits.is_empty() {
        text += "nothing found\n";
    }
    for (rank, AnswerHit { found, document, explanation }) in (1..).zip(hits) {
        let title = document.title.as_deref().unwrap_or_default();
        let line = format!("{rank:>2}. {:<8.3} {}  {title}", found.hit.score, found.hit.id);
        text += &format!("{}\n    {}\n", line.trim_end(), snippet(&document.text, 100));
        if let Some(explanation) = explanation {
            text += &explained(explanation);
        }
    }
    text
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
                format!("    {}", term.token),
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
