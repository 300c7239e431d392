//! [`Explanation`]: the parts of a hit's score by term and by word, and its place in each ranking.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use splade_core::SparseVector;
use splade_files::Query;
use splade_index::{Address, Found, StoredDocument, WordScore};

use super::matches::parts;
use super::{Answerer, Encoded};
use crate::cli::Mode;

/// Parts of the score of a hit.
pub(crate) struct Explanation {
    /// terms that query and document share, by decreasing score; empty in BM25 and dense mode. Summed by increasing dim, their scores
    /// are the sparse score bit for bit
    pub(crate) terms: Vec<MatchedTerm>,
    /// words that query and document share, by decreasing score; empty in sparse and dense mode. Their scores add up to the BM25 score
    /// up to rounding
    pub(crate) words: Vec<WordScore>,
    /// place in each ranking that was fused, or in the dense one; empty in the sparse and the BM25 mode
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

/// Names of the rankings.
const SPARSE: &str = "sparse";
const BM25: &str = "bm25";
const DENSE: &str = "dense";

/// Ranks and scores of documents in the rankings that are fused, by their names.
pub(super) struct Lists(Vec<(&'static str, Places)>);

type Places = HashMap<Address, (usize, f32)>;

fn places(found: &[Found]) -> Places {
    (1..).zip(found).map(|(rank, found)| (found.address, (rank, found.hit.score))).collect()
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
    /// The rankings of a query at their full depth; in dense mode the ranking `found`.
    pub(super) fn lists(&self, query: &Query, encoded: &Encoded, found: &[Found]) -> Result<Lists> {
        if self.settings.mode == Mode::Dense {
            return Ok(Lists(vec![(DENSE, places(found))]));
        }
        let (depth, options) = (self.list_depth(), &self.settings.options);
        let mut lists = vec![
            (SPARSE, places(&self.searcher.search(&encoded.vector, depth, options)?)),
            (BM25, places(&self.searcher.search_bm25_with(&query.text, depth, options)?)),
        ];
        if let Some(part) = self.dense_part(query, encoded.dense.as_ref()) {
            lists.push((DENSE, places(&self.searcher.search_dense_part(part, depth, options)?)));
        }
        Ok(Lists(lists))
    }

    pub(super) fn explain(
        &self,
        query: &Query,
        encoded: &Encoded,
        lists: Option<&Lists>,
        found: &Found,
        document: &StoredDocument,
    ) -> Result<Explanation> {
        let mode = self.settings.mode;
        let (has_terms, has_words) =
            (matches!(mode, Mode::Sparse | Mode::Hybrid), matches!(mode, Mode::Bm25 | Mode::Hybrid));
        let mut explanation = Explanation {
            terms: if has_terms { self.matched_terms(&encoded.vector, found, document)? } else { Vec::new() },
            words: if has_words { self.matched_words(&query.text, found.address)? } else { Vec::new() },
            places: Vec::new(),
        };
        for (list, places) in lists.iter().flat_map(|lists| &lists.0) {
            let place = places.get(&found.address).copied();
            let score = match (place, *list) {
                (Some((_, score)), _) => Some(score),
                (None, SPARSE) => Some(explanation.sparse_score()),
                (None, BM25) => Some(explanation.bm25_score()),
                (None, _) => self.dense_score(encoded, found.address)?,
            };
            let rank = place.map(|(rank, _)| rank);
            // a run has no score of a document that it lacks
            explanation.places.extend(score.map(|score| Place { list, rank, score }));
        }
        Ok(explanation)
    }

    /// Dense score of a document; none if the dense ranking is a run.
    fn dense_score(&self, encoded: &Encoded, address: Address) -> Result<Option<f32>> {
        match &encoded.dense {
            Some(vector) => Ok(self.searcher.dense_scores(vector, &[address])?.pop()),
            None => Ok(None),
        }
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
        let text = document.full_text();
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
