//! Hits as JSON.

use serde_json::{Map, Value, json};
use splade_files::Query;
use splade_index::WordScore;

use super::explain::{MatchedTerm, Place};
use super::{AnswerHit, Explanation, Mark, Snippet, share};

/// Optional parts of a hit in JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) explanation: bool,
    pub(crate) snippets: bool,
}

/// Returns an answer as a JSON object with `query_id`, `query` and `hits`.
pub(crate) fn to_json(query: &Query, hits: &[AnswerHit], shown: Shown) -> Value {
    let hits: Vec<Value> = (1..).zip(hits).map(|(rank, hit)| hit.to_json(rank, shown)).collect();
    json!({"query_id": query.id, "query": query.text, "hits": hits})
}

impl AnswerHit {
    fn to_json(&self, rank: usize, shown: Shown) -> Value {
        let mut hit = Map::new();
        hit.insert("rank".into(), json!(rank));
        hit.insert("_id".into(), json!(self.hit.id));
        hit.insert("score".into(), number(self.hit.score));
        hit.extend(self.document.title.as_ref().map(|title| ("title".to_owned(), json!(title))));
        hit.insert("text".into(), json!(self.document.text));
        for (name, value) in &self.document.other {
            hit.entry(name.clone()).or_insert_with(|| value.clone());
        }
        if let Some(passage) = &self.passage {
            hit.insert("passage".into(), passage.to_json());
        }
        if shown.snippets {
            let mut positions = Positions::new(&self.document.text);
            hit.insert("snippets".into(), self.snippets.iter().map(|snippet| positions.snippet(snippet)).collect());
        }
        if let Some(explanation) = self.explanation.as_ref().filter(|_| shown.explanation) {
            explanation.add_to(&mut hit);
        }
        Value::Object(hit)
    }
}

impl Explanation {
    /// Adds `terms`, and `bm25_terms` and `lists` where the mode has them.
    fn add_to(&self, hit: &mut Map<String, Value>) {
        let (sparse, bm25) = (self.sparse_score(), self.bm25_score());
        let terms = self.terms.iter().map(|term| term.to_json(sparse)).collect();
        hit.insert("terms".into(), terms);
        if !self.words.is_empty() {
            let words = self.words.iter().map(|word| word_to_json(word, bm25)).collect();
            hit.insert("bm25_terms".into(), words);
        }
        if !self.places.is_empty() {
            hit.insert("lists".into(), self.places.iter().map(Place::to_json).collect());
        }
    }
}

impl MatchedTerm {
    /// JSON of a term of a hit whose terms add up to `total`.
    pub(crate) fn to_json(&self, total: f32) -> Value {
        json!({
            "token": self.token,
            "dim": self.dim,
            "query_weight": number(self.query_weight),
            "document_weight": number(self.document_weight),
            "score": number(self.score),
            "share": share(self.score, total).map(number),
            "expansion": self.expansion,
        })
    }
}

impl Place {
    fn to_json(&self) -> Value {
        json!({"list": self.list, "rank": self.rank, "score": number(self.score)})
    }
}

/// Converts increasing positions in a text from bytes to characters (code points), which are the indexes of a text in Python.
struct Positions<'a> {
    text: &'a str,
    bytes: usize,
    characters: usize,
}

impl<'a> Positions<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, bytes: 0, characters: 0 }
    }

    fn characters(&mut self, bytes: usize) -> usize {
        if bytes < self.bytes {
            *self = Self::new(self.text);
        }
        self.characters += self.text[self.bytes..bytes].chars().count();
        self.bytes = bytes;
        self.characters
    }

    fn snippet(&mut self, snippet: &Snippet) -> Value {
        let start = self.characters(snippet.range.start);
        let marks: Vec<Value> = snippet.marks.iter().map(|mark| self.mark(mark)).collect();
        let end = self.characters(snippet.range.end);
        json!({"start": start, "end": end, "text": self.text[snippet.range.clone()], "matches": marks})
    }

    fn mark(&mut self, mark: &Mark) -> Value {
        let (start, end) = (self.characters(mark.range.start), self.characters(mark.range.end));
        json!({"start": start, "end": end, "text": self.text[mark.range.clone()], "expansion": mark.expansion})
    }
}

fn word_to_json(word: &WordScore, total: f32) -> Value {
    json!({"token": word.word, "score": number(word.score), "share": share(word.score, total).map(number)})
}

/// Returns the shortest decimal number that reads back as the same f32: `12.3` instead of the f64 `12.300000190734863`.
fn number(weight: f32) -> Value {
    json!(weight.to_string().parse::<f64>().unwrap_or(weight.into()))
}
