//! [`ImpactRetriever`], [`Bm25Retriever`], [`DenseRetriever`] and [`HybridRetriever`]: the rankings of a snapshot as [`Retriever`]s.

use splade_core::{EncodedQuery, Fusion, Hit, Ranking, Retriever};

use crate::error::Error;
use crate::hits::{SearchOptions, into_ranking};
use crate::hybrid::{DensePart, HybridQuery};
use crate::searcher::Searcher;

/// Documents of a snapshot by the dot product of their vectors with the query's.
pub struct ImpactRetriever<'a> {
    searcher: &'a Searcher,
    options: SearchOptions,
}

impl<'a> ImpactRetriever<'a> {
    /// Searches a snapshot with `options`.
    #[must_use]
    pub fn new(searcher: &'a Searcher, options: SearchOptions) -> Self {
        Self { searcher, options }
    }
}

impl Retriever for ImpactRetriever<'_> {
    fn retrieve(&self, query: EncodedQuery<'_>, depth: usize) -> splade_core::Result<Ranking> {
        let found = self.searcher.search(query.vector, depth, &self.options).map_err(retriever_error)?;
        let has_negative_weights = query.vector.iter().any(|(_, weight)| weight < 0.0);
        if found.len() == depth || !has_negative_weights {
            return Ok(into_ranking(found));
        }
        // a search finds scores above 0 only; where there are too few, those below 0 count too
        let nonzero = self.searcher.search_nonzero(query.vector, depth, self.options.filter.as_ref());
        Ok(into_ranking(nonzero.map_err(retriever_error)?))
    }
}

/// Documents of a snapshot by BM25 over their texts.
pub struct Bm25Retriever<'a> {
    searcher: &'a Searcher,
    options: SearchOptions,
}

impl<'a> Bm25Retriever<'a> {
    /// Searches a snapshot with `options`, of which the filter and the BM25 options count.
    #[must_use]
    pub fn new(searcher: &'a Searcher, options: SearchOptions) -> Self {
        Self { searcher, options }
    }
}

impl Retriever for Bm25Retriever<'_> {
    fn retrieve(&self, query: EncodedQuery<'_>, depth: usize) -> splade_core::Result<Ranking> {
        let found = self.searcher.search_bm25_with(query.text, depth, &self.options);
        Ok(into_ranking(found.map_err(retriever_error)?))
    }
}

/// Documents of a snapshot by the dot product of their dense vectors with the query's.
pub struct DenseRetriever<'a> {
    searcher: &'a Searcher,
    options: SearchOptions,
}

impl<'a> DenseRetriever<'a> {
    /// Searches a snapshot with `options`. Every query needs a dense vector.
    #[must_use]
    pub fn new(searcher: &'a Searcher, options: SearchOptions) -> Self {
        Self { searcher, options }
    }
}

impl Retriever for DenseRetriever<'_> {
    fn retrieve(&self, query: EncodedQuery<'_>, depth: usize) -> splade_core::Result<Ranking> {
        let missing = || splade_core::Error::invalid(format!("query {:?} has no dense vector", query.text), "");
        let found = self.searcher.search_dense(query.dense.ok_or_else(missing)?, depth, &self.options);
        Ok(into_ranking(found.map_err(retriever_error)?))
    }
}

/// Documents of a snapshot by these rankings, fused: [`Searcher::search_hybrid`]. The dense one takes part for queries with a dense
/// vector.
pub struct HybridRetriever<'a> {
    searcher: &'a Searcher,
    fusion: Fusion,
    candidates: usize,
    options: SearchOptions,
}

impl<'a> HybridRetriever<'a> {
    /// Fuses the best `candidates` hits of each ranking, whatever the depth of a retrieval is.
    #[must_use]
    pub fn new(searcher: &'a Searcher, fusion: Fusion, candidates: usize, options: SearchOptions) -> Self {
        Self { searcher, fusion, candidates, options }
    }
}

impl Retriever for HybridRetriever<'_> {
    /// The fused ranking. A fused score may be below 0, where a retriever's documents are above those that it does not list;
    /// then all scores are raised, so that the lowest is 1.
    fn retrieve(&self, query: EncodedQuery<'_>, depth: usize) -> splade_core::Result<Ranking> {
        let dense = query.dense.map(DensePart::Vector);
        let query = HybridQuery { vector: query.vector, text: query.text, dense };
        let found = self.searcher.search_hybrid(query, depth, self.candidates, &self.fusion, &self.options);
        let found = found.map_err(retriever_error)?;
        let lowest = found.last().map_or(1.0, |found| found.hit.score);
        let raise = if lowest > 0.0 { 0.0 } else { 1.0 - lowest };
        let hits = found.into_iter().map(|found| Hit { score: found.hit.score + raise, ..found.hit });
        Ok(Ranking::from_distinct(hits.collect()))
    }
}

fn retriever_error(error: Error) -> splade_core::Error {
    splade_core::Error::retriever(error.kind(), error)
}
