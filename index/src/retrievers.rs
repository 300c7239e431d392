//! [`ImpactRetriever`] and [`Bm25Retriever`]: the two rankings of a snapshot as [`Retriever`]s.

use splade_core::{EncodedQuery, Ranking, Retriever};

use crate::error::Error;
use crate::searcher::{SearchOptions, Searcher, to_ranking};

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
            return Ok(to_ranking(&found));
        }
        // a search finds scores above 0 only; where there are too few, those below 0 count too
        let nonzero = self.searcher.search_nonzero(query.vector, depth, self.options.filter.as_ref());
        Ok(to_ranking(&nonzero.map_err(retriever_error)?))
    }
}

/// Documents of a snapshot by BM25 over their texts.
pub struct Bm25Retriever<'a> {
    searcher: &'a Searcher,
    options: SearchOptions,
}

impl<'a> Bm25Retriever<'a> {
    /// Searches a snapshot; of `options` the filter counts.
    #[must_use]
    pub fn new(searcher: &'a Searcher, options: SearchOptions) -> Self {
        Self { searcher, options }
    }
}

impl Retriever for Bm25Retriever<'_> {
    fn retrieve(&self, query: EncodedQuery<'_>, depth: usize) -> splade_core::Result<Ranking> {
        let found = self.searcher.search_bm25(query.text, depth, self.options.filter.as_ref());
        Ok(to_ranking(&found.map_err(retriever_error)?))
    }
}

fn retriever_error(error: Error) -> splade_core::Error {
    splade_core::Error::retriever(error.kind(), error)
}
