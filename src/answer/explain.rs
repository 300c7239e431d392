//! [`Explanation`]: the parts of a hit's score by term and by word, and its place in each ranking.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use splade_core::SparseVector;
use splade_index::{Address, Found, StoredDocument, WordScore};

use super::Answerer;
use super::matches::parts;
use crate::cli::Mode;

/// Parts of the score of a hit.
pub(crate) struct Explanation {
    /// terms that query and document share, by decreasing score; empty in BM25 mode. Summed by increasing dim, their scores
    /// are the sparse score bit for bit
    pub(crate) terms: Vec<MatchedTerm>,
    /// words that query and document share, by decreasing score; empty in sparse mode. Their scores add up to the BM25 score
    /// up to rounding
    pub(crate) words: Vec<WordScore>,
    /// place in each ranking that was fused; empty outside the hybrid mode
    pub(crate) places: Vec<Place>,
}

/// Term that query and document share.
pub(crate) struct MatchedTerm {
    pub(crate) dim: u32,
    pub(crate) token: String,
    pub(crate) query_weight: f32,
    pub(crate) document_weight: f32,
    /// product of the two weights
    pub(crate) score: f32,
    /// true if the term is not in the document's text
    pub(crate) expansion: bool,
}

/// Rank and score of a hit in one ranking.
pub(crate) struct Place {
    /// name of the ranking
    pub(crate) list: &'static str,
    /// rank from 1; none if the document is below the depth of the ranking
    pub(crate) rank: Option<usize>,
    pub(crate) score: f32,
}

/// Ranks and scores of documents in the two rankings that are fused.
pub(super) struct Lists {
    sparse: HashMap<Address, (usize, f32)>,
    bm25: HashMap<Address, (usize, f32)>,
}

impl Explanation {
    /// The sparse score: the terms' scores, summed in f32 by increasing dim.
    pub(crate) fn sparse_score(&self) -> f32 {
        let mut terms: Vec<&MatchedTerm> = self.terms.iter().collect();
        terms.sort_unstable_by_key(|term| term.dim);
        terms.iter().fold(0.0, |sum, term| sum + term.score)
    }

    /// The BM25 score: the words' scores, summed in f32.
    pub(crate) fn bm25_score(&self) -> f32 {
        self.words.iter().fold(0.0, |sum, word| sum + word.score)
    }
}

/// Share of a part in a score; none if the score is not above zero.
pub(crate) fn share(part: f32, score: f32) -> Option<f32> {
    (score > 0.0).then(|| part / score)
}

impl Answerer {
    /// Both rankings of a query at their full depth.
    pub(super) fn lists(&self, text: &str, vector: &SparseVector) -> Result<Lists> {
        let (depth, options) = (self.list_depth(), &self.settings.options);
        let places = |found: Vec<Found>| -> HashMap<Address, (usize, f32)> {
            (1..).zip(found).map(|(rank, found)| (found.address, (rank, found.hit.score))).collect()
        };
        Ok(Lists {
            sparse: places(self.searcher.search(vector, depth, options)?),
            bm25: places(self.searcher.search_bm25_with(text, depth, options)?),
        })
    }

    pub(super) fn explain(
        &self,
        text: &str,
        vector: &SparseVector,
        lists: Option<&Lists>,
        found: &Found,
        document: &StoredDocument,
    ) -> Result<Explanation> {
        let mode = self.settings.mode;
        let mut explanation = Explanation {
            terms: if mode == Mode::Bm25 { Vec::new() } else { self.matched_terms(vector, found, document)? },
            words: if mode == Mode::Sparse { Vec::new() } else { self.matched_words(text, found.address)? },
            places: Vec::new(),
        };
        if let Some(lists) = lists {
            let place = |list, places: &HashMap<Address, (usize, f32)>, score| match places.get(&found.address) {
                Some(&(rank, score)) => Place { list, rank: Some(rank), score },
                None => Place { list, rank: None, score },
            };
            explanation.places = vec![
                place("sparse", &lists.sparse, explanation.sparse_score()),
                place("bm25", &lists.bm25, explanation.bm25_score()),
            ];
        }
        Ok(explanation)
    }

    fn matched_words(&self, text: &str, address: Address) -> Result<Vec<WordScore>> {
        Ok(self.searcher.explain_bm25(text, address, self.settings.options.bm25)?)
    }

    fn matched_terms(
        &self,
        vector: &SparseVector,
        found: &Found,
        document: &StoredDocument,
    ) -> Result<Vec<MatchedTerm>> {
        let Some(vocabulary) = self.vocabulary() else { return Ok(Vec::new()) };
        let text = format!("{} {}", document.title.as_deref().unwrap_or_default(), document.text);
        let mut in_text = HashSet::new();
        for (_, part) in parts(&text) {
            in_text.extend(vocabulary.tokenize(part)?);
        }
        let terms = self.searcher.explain(vector, found.address)?.into_iter().map(|term| MatchedTerm {
            dim: term.dim,
            token: vocabulary.token(term.dim).unwrap_or_else(|| format!("[{}]", term.dim)),
            query_weight: term.query_weight,
            document_weight: term.document_weight,
            score: term.score,
            expansion: !in_text.contains(&term.dim),
        });
        Ok(terms.collect())
    }
}
