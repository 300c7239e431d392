//! [`Answerer`]: hits of queries, their explanations, and both as JSON.

use std::collections::HashSet;

use anyhow::Result;
use serde_json::{Map, Value, json};
use splade_core::{Encoder, Fusion, SparseVector, Vocabulary};
use splade_files::Query;
use splade_index::{Found, SearchOptions, Searcher, StoredDocument};

use crate::cli::Mode;

/// Query encoder of an index, and the vocabulary that explains hits.
pub(crate) struct QuerySide {
    encoder: Box<dyn Encoder>,
    /// none if hits are not explained; without a maximum length, since it tokenizes whole documents
    vocabulary: Option<Vocabulary>,
}

impl QuerySide {
    /// Query side with this encoder and vocabulary; hits are explained if `explain` is true.
    ///
    /// # Errors
    /// A tokenizer that cannot be built without truncation.
    pub(crate) fn new(encoder: Box<dyn Encoder>, vocabulary: &Vocabulary, explain: bool) -> Result<Self> {
        let vocabulary = explain.then(|| vocabulary.with_max_length(usize::MAX)).transpose()?;
        Ok(Self { encoder, vocabulary })
    }
}

/// Ranking mode, number of hits, fusion and filter of a search.
pub(crate) struct SearchSettings {
    pub(crate) mode: Mode,
    /// hits per query
    pub(crate) k: usize,
    /// hits taken from each ranking before fusion
    pub(crate) depth: usize,
    pub(crate) fusion: Fusion,
    pub(crate) options: SearchOptions,
}

/// Snapshot of an index with everything needed to answer queries.
pub(crate) struct Answerer {
    /// none for BM25 without explanations, which needs no vectors
    pub(crate) side: Option<QuerySide>,
    pub(crate) searcher: Searcher,
    pub(crate) settings: SearchSettings,
}

/// Vector of a query, and the documents it found.
pub(crate) struct Answer {
    vector: SparseVector,
    pub(crate) found: Vec<Found>,
}

/// Hit with its document and its explanation.
pub(crate) struct AnswerHit {
    pub(crate) found: Found,
    pub(crate) document: StoredDocument,
    /// terms that query and document share, by decreasing score; none if hits are not explained
    pub(crate) terms: Option<Vec<MatchedTerm>>,
}

/// Term that query and document share.
pub(crate) struct MatchedTerm {
    pub(crate) token: String,
    pub(crate) query_weight: f32,
    pub(crate) document_weight: f32,
    /// product of the two weights
    pub(crate) score: f32,
    /// true if the term is not in the document's text
    pub(crate) expansion: bool,
}

impl Answerer {
    /// Encodes a query and searches the index.
    pub(crate) fn answer(&self, query: &Query) -> Result<Answer> {
        let vector = match &self.side {
            Some(side) => side.encoder.encode(&[&query.text])?.pop().unwrap_or_default(),
            None => SparseVector::default(),
        };
        let found = self.search(&query.text, &vector)?;
        Ok(Answer { vector, found })
    }

    /// Reads the documents of an answer, with explanations if this answerer has them.
    pub(crate) fn hits(&self, answer: Answer) -> Result<Vec<AnswerHit>> {
        let Answer { vector, found } = answer;
        let hits = found.into_iter().map(|found| {
            let document = self.searcher.document(found.address)?;
            let terms = self.explain(&vector, &found, &document)?;
            Ok(AnswerHit { found, document, terms })
        });
        hits.collect()
    }

    fn search(&self, text: &str, vector: &SparseVector) -> Result<Vec<Found>> {
        let SearchSettings { mode, k, depth, fusion, options, .. } = &self.settings;
        Ok(match mode {
            Mode::Sparse => self.searcher.search(vector, *k, options)?,
            Mode::Bm25 => self.searcher.search_bm25(text, *k, options.filter.as_ref())?,
            Mode::Hybrid => self.searcher.search_hybrid(vector, text, *k, (*depth).max(*k), fusion, options)?,
        })
    }

    fn explain(
        &self,
        vector: &SparseVector,
        found: &Found,
        document: &StoredDocument,
    ) -> Result<Option<Vec<MatchedTerm>>> {
        let Some(vocabulary) = self.side.as_ref().and_then(|side| side.vocabulary.as_ref()) else { return Ok(None) };
        let text = format!("{} {}", document.title.as_deref().unwrap_or_default(), document.text);
        let words: HashSet<u32> = vocabulary.tokenize(&text)?.into_iter().collect();
        let terms = self.searcher.explain(vector, found.address)?.into_iter().map(|term| MatchedTerm {
            token: vocabulary.token(term.dim).unwrap_or_else(|| format!("[{}]", term.dim)),
            query_weight: term.query_weight,
            document_weight: term.document_weight,
            score: term.score,
            expansion: !words.contains(&term.dim),
        });
        Ok(Some(terms.collect()))
    }
}

/// Returns an answer as a JSON object with `query_id`, `query` and `hits`.
pub(crate) fn to_json(query: &Query, hits: &[AnswerHit]) -> Value {
    let hits: Vec<Value> = (1..).zip(hits).map(|(rank, hit)| hit.to_json(rank)).collect();
    json!({"query_id": query.id, "query": query.text, "hits": hits})
}

impl AnswerHit {
    fn to_json(&self, rank: usize) -> Value {
        let mut hit = Map::new();
        hit.insert("rank".into(), json!(rank));
        hit.insert("_id".into(), json!(self.found.hit.id));
        hit.insert("score".into(), number(self.found.hit.score));
        hit.extend(self.document.title.as_ref().map(|title| ("title".to_owned(), json!(title))));
        hit.insert("text".into(), json!(self.document.text));
        for (name, value) in &self.document.other {
            hit.entry(name.clone()).or_insert_with(|| value.clone());
        }
        if let Some(terms) = &self.terms {
            hit.insert("terms".into(), terms.iter().map(MatchedTerm::to_json).collect());
        }
        Value::Object(hit)
    }
}

impl MatchedTerm {
    fn to_json(&self) -> Value {
        json!({
            "token": self.token,
            "query_weight": number(self.query_weight),
            "document_weight": number(self.document_weight),
            "score": number(self.score),
            "expansion": self.expansion,
        })
    }
}

/// Returns the shortest decimal number that reads back as the same f32: `12.3` instead of the f64 `12.300000190734863`.
fn number(weight: f32) -> Value {
    json!(weight.to_string().parse::<f64>().unwrap_or(weight.into()))
}
