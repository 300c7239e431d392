//! Hits as JSON. The types are those of the server's description too.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use splade_files::Query;
use splade_index::{FieldCounts, StoredDocument, WordScore};

use super::counts;
use super::explain::{MatchedTerm, Place};
use super::passage::AnswerPassage;
use super::{AnswerHit, Explanation, Mark, Snippet, share};

/// Optional parts of a hit in JSON.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) explanation: bool,
    pub(crate) snippets: bool,
    /// names of the document's fields to show, with title and text; none for all
    pub(crate) fields: Option<Vec<String>>,
}

/// Returns an answer as one line of JSON with `query_id`, `query` and `hits`, and `counts` if there are any.
///
/// # Errors
/// None: numbers and texts can be written.
pub(crate) fn to_json(
    query: &Query,
    hits: &[AnswerHit],
    shown: &Shown,
    counted: &[FieldCounts],
) -> serde_json::Result<String> {
    serde_json::to_string(&AnswerJson::of(query, hits, shown, counted))
}

/// Answer to a query.
#[derive(Serialize)]
#[cfg_attr(feature = "serve", derive(utoipa::ToSchema), schema(as = Answer))]
pub(crate) struct AnswerJson<'a> {
    /// id of the query; 1 for a query without one
    query_id: &'a str,
    /// text of the query
    query: &'a str,
    /// hits, the best first
    hits: Vec<HitJson<'a>>,
    /// counts of the values of the fields that were asked for
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "serve", schema(value_type = Option<std::collections::HashMap<String, counts::CountsJson>>))]
    counts: Option<Value>,
}

impl<'a> AnswerJson<'a> {
    /// The hits of a query, with counts if there are any.
    pub(crate) fn of(query: &'a Query, hits: &'a [AnswerHit], shown: &'a Shown, counted: &[FieldCounts]) -> Self {
        Self {
            query_id: &query.id,
            query: &query.text,
            hits: (1..).zip(hits).map(|(rank, hit)| hit.to_json(rank, shown)).collect(),
            counts: (!counted.is_empty()).then(|| counts::to_json(counted)),
        }
    }
}

/// Document that a query found, with its stored fields.
#[derive(Serialize)]
#[cfg_attr(feature = "serve", derive(utoipa::ToSchema), schema(as = Hit))]
pub(crate) struct HitJson<'a> {
    /// rank from 1
    rank: usize,
    /// id of the document
    #[serde(rename = "_id")]
    id: &'a str,
    /// score in the ranking
    #[serde(serialize_with = "number")]
    score: f32,
    /// title, if the document has one
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    /// text
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(flatten)]
    #[cfg_attr(feature = "serve", schema(value_type = std::collections::HashMap<String, Value>))]
    other: Others<'a>,
    /// passage that was found, in an index whose documents are split
    #[serde(skip_serializing_if = "Option::is_none")]
    passage: Option<&'a AnswerPassage>,
    /// parts of the text with the best matching words
    #[serde(skip_serializing_if = "Option::is_none")]
    snippets: Option<Vec<SnippetJson<'a>>>,
    /// terms that query and document share, the largest share of the score first
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<Vec<TermJson<'a>>>,
    /// words that query and document share, in the modes bm25 and hybrid
    #[serde(skip_serializing_if = "Option::is_none")]
    bm25_terms: Option<Vec<WordJson<'a>>>,
    /// places in the rankings that were fused, in the modes dense and hybrid
    #[serde(skip_serializing_if = "Option::is_none")]
    lists: Option<Vec<PlaceJson>>,
}

/// Names of the parts of a hit that every hit has.
const FIXED: [&str; 5] = ["rank", "_id", "score", "title", "text"];

/// Stored fields of a document that stand beside the parts of a hit.
struct Others<'a> {
    fields: &'a Map<String, Value>,
    shown: Option<&'a [String]>,
    /// names of the optional parts of the hit
    taken: Vec<&'static str>,
}

impl Serialize for Others<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_shown = |name: &str| self.shown.is_none_or(|shown| shown.iter().any(|field| field == name));
        let is_free = |name: &str| !FIXED.contains(&name) && !self.taken.contains(&name);
        serializer.collect_map(self.fields.iter().filter(|(name, _)| is_free(name) && is_shown(name)))
    }
}

impl AnswerHit {
    fn to_json<'a>(&'a self, rank: usize, shown: &'a Shown) -> HitJson<'a> {
        let StoredDocument { title, text, other, .. } = &self.document;
        let has = |name: &str| shown.fields.as_ref().is_none_or(|fields| fields.iter().any(|field| field == name));
        let explanation = self.explanation.as_ref().filter(|_| shown.explanation);
        let mut hit = HitJson {
            rank,
            id: &self.hit.id,
            score: self.hit.score,
            title: title.as_deref().filter(|_| has("title")),
            text: has("text").then_some(text),
            other: Others { fields: other, shown: shown.fields.as_deref(), taken: Vec::new() },
            passage: self.passage.as_ref(),
            snippets: shown.snippets.then(|| snippets_to_json(text, &self.snippets)),
            terms: explanation.map(Explanation::terms_to_json),
            bm25_terms: explanation.filter(|explanation| !explanation.words.is_empty()).map(Explanation::words_to_json),
            lists: explanation
                .filter(|explanation| !explanation.places.is_empty())
                .map(|explanation| explanation.places.iter().map(Place::to_json).collect()),
        };
        let parts = [
            ("passage", hit.passage.is_some()),
            ("snippets", hit.snippets.is_some()),
            ("terms", hit.terms.is_some()),
            ("bm25_terms", hit.bm25_terms.is_some()),
            ("lists", hit.lists.is_some()),
        ];
        hit.other.taken = parts.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect();
        hit
    }
}

/// Scores of a document for a query, and their parts.
#[cfg(feature = "serve")]
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Explained)]
pub(crate) struct ExplainedJson<'a> {
    /// id of the document
    #[serde(rename = "_id")]
    id: &'a str,
    /// score by the terms
    #[serde(serialize_with = "number")]
    sparse_score: f32,
    /// score by the words
    #[serde(serialize_with = "number")]
    bm25_score: f32,
    /// terms that query and document share
    terms: Vec<TermJson<'a>>,
    /// words that query and document share
    bm25_terms: Vec<WordJson<'a>>,
}

#[cfg(feature = "serve")]
impl<'a> ExplainedJson<'a> {
    /// The parts of a hit's scores; none of a hit without an explanation.
    pub(crate) fn of(hit: &'a AnswerHit) -> Self {
        let parts = hit.explanation.as_ref();
        Self {
            id: &hit.hit.id,
            sparse_score: parts.map_or(0.0, Explanation::sparse_score),
            bm25_score: parts.map_or(0.0, Explanation::bm25_score),
            terms: parts.map(Explanation::terms_to_json).unwrap_or_default(),
            bm25_terms: parts.map(Explanation::words_to_json).unwrap_or_default(),
        }
    }
}

impl Explanation {
    /// Terms with their shares of the sparse score.
    fn terms_to_json(&self) -> Vec<TermJson<'_>> {
        let total = self.sparse_score();
        self.terms.iter().map(|term| term.to_json(total)).collect()
    }

    /// Words with their shares of the BM25 score.
    fn words_to_json(&self) -> Vec<WordJson<'_>> {
        let total = self.bm25_score();
        let words = self.words.iter();
        words
            .map(|WordScore { word, score }| WordJson { token: word, score: *score, share: share(*score, total) })
            .collect()
    }
}

/// Term that query and document share.
#[derive(Serialize)]
#[cfg_attr(feature = "serve", derive(utoipa::ToSchema), schema(as = Term))]
pub(crate) struct TermJson<'a> {
    /// token of the vocabulary
    token: &'a str,
    /// dimension of the token
    dim: u32,
    /// weight in the query
    #[serde(serialize_with = "number")]
    query_weight: f32,
    /// weight in the document
    #[serde(serialize_with = "number")]
    document_weight: f32,
    /// product of the weights
    #[serde(serialize_with = "number")]
    score: f32,
    /// part of the sparse score; null if that is not above 0
    #[serde(serialize_with = "optional_number")]
    #[cfg_attr(feature = "serve", schema(required))]
    share: Option<f32>,
    /// true if the token is not in the document's text
    expansion: bool,
}

/// Word that query and document share.
#[derive(Serialize)]
#[cfg_attr(feature = "serve", derive(utoipa::ToSchema), schema(as = Word))]
pub(crate) struct WordJson<'a> {
    /// the word as BM25 indexes it
    token: &'a str,
    /// part of the BM25 score
    #[serde(serialize_with = "number")]
    score: f32,
    /// the part divided by the BM25 score; null if that is not above 0
    #[serde(serialize_with = "optional_number")]
    #[cfg_attr(feature = "serve", schema(required))]
    share: Option<f32>,
}

/// Place of a document in a ranking.
#[derive(Serialize)]
#[cfg_attr(feature = "serve", derive(utoipa::ToSchema), schema(as = Place))]
pub(crate) struct PlaceJson {
    /// name of the ranking: sparse, bm25 or dense
    list: &'static str,
    /// rank from 1; null below the depth of the ranking
    #[cfg_attr(feature = "serve", schema(required))]
    rank: Option<usize>,
    /// score in the ranking
    #[serde(serialize_with = "number")]
    score: f32,
}

/// Part of a text. Positions are in characters (code points).
#[derive(Serialize)]
#[cfg_attr(feature = "serve", derive(utoipa::ToSchema), schema(as = Snippet))]
pub(crate) struct SnippetJson<'a> {
    /// first character
    start: usize,
    /// character after the last
    end: usize,
    text: &'a str,
    /// words of the query, and words that the document's expansion matches
    matches: Vec<MarkJson<'a>>,
}

/// Matching word of a snippet. Positions are in characters of the document's text.
#[derive(Serialize)]
#[cfg_attr(feature = "serve", derive(utoipa::ToSchema), schema(as = Mark))]
pub(crate) struct MarkJson<'a> {
    /// first character
    start: usize,
    /// character after the last
    end: usize,
    text: &'a str,
    /// true if the word itself is not in the query
    expansion: bool,
}

impl MatchedTerm {
    /// JSON of a term of a hit whose terms add up to `total`.
    pub(crate) fn to_json(&self, total: f32) -> TermJson<'_> {
        TermJson {
            token: &self.token,
            dim: self.dim,
            query_weight: self.query_weight,
            document_weight: self.document_weight,
            score: self.score,
            share: share(self.score, total),
            expansion: self.expansion,
        }
    }
}

impl Place {
    fn to_json(&self) -> PlaceJson {
        PlaceJson { list: self.list, rank: self.rank, score: self.score }
    }
}

/// Converts increasing positions in a text from bytes to characters (code points), which are the indexes of a text in Python.
struct Positions<'a> {
    text: &'a str,
    bytes: usize,
    characters: usize,
}

fn snippets_to_json<'a>(text: &'a str, snippets: &[Snippet]) -> Vec<SnippetJson<'a>> {
    let mut positions = Positions { text, bytes: 0, characters: 0 };
    snippets.iter().map(|snippet| positions.snippet(snippet)).collect()
}

impl<'a> Positions<'a> {
    fn characters(&mut self, bytes: usize) -> usize {
        if bytes < self.bytes {
            (self.bytes, self.characters) = (0, 0);
        }
        self.characters += self.text[self.bytes..bytes].chars().count();
        self.bytes = bytes;
        self.characters
    }

    fn snippet(&mut self, snippet: &Snippet) -> SnippetJson<'a> {
        let start = self.characters(snippet.range.start);
        let matches = snippet.marks.iter().map(|mark| self.mark(mark)).collect();
        let end = self.characters(snippet.range.end);
        SnippetJson { start, end, text: &self.text[snippet.range.clone()], matches }
    }

    fn mark(&mut self, mark: &Mark) -> MarkJson<'a> {
        let (start, end) = (self.characters(mark.range.start), self.characters(mark.range.end));
        MarkJson { start, end, text: &self.text[mark.range.clone()], expansion: mark.expansion }
    }
}

/// Writes the shortest decimal number that reads back as the same f32: `12.3` instead of the f64 `12.300000190734863`.
#[allow(clippy::trivially_copy_pass_by_ref)] // the signature that serde calls
fn number<S: Serializer>(weight: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(weight.to_string().parse().unwrap_or_else(|_| f64::from(*weight)))
}

/// As [`number`], and null for none.
#[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option)] // the signature that serde calls
fn optional_number<S: Serializer>(weight: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
    match weight {
        Some(weight) => number(weight, serializer),
        None => serializer.serialize_none(),
    }
}
