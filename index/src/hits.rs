//! [`Found`]: hits and the places of their documents; [`SearchOptions`].

use splade_core::{Hit, Ranking};

use crate::Filter;
use crate::bm25::Bm25Options;

/// Position of a document in a snapshot. It is invalid in other snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub(crate) segment: u32,
    pub(crate) doc: u32,
}

impl Address {
    pub(crate) fn new(segment: u32, doc: u32) -> Self {
        Self { segment, doc }
    }

    pub(crate) fn segment(self) -> u32 {
        self.segment
    }

    pub(crate) fn doc(self) -> u32 {
        self.doc
    }
}

impl From<tantivy::DocAddress> for Address {
    fn from(address: tantivy::DocAddress) -> Self {
        Self { segment: address.segment_ord, doc: address.doc_id }
    }
}

impl From<Address> for tantivy::DocAddress {
    fn from(address: Address) -> Self {
        Self::new(address.segment, address.doc)
    }
}

/// A hit with the address of its document.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// id and score
    pub hit: Hit,
    /// argument of [`Searcher::document`](crate::Searcher::document), [`Searcher::vector`](crate::Searcher::vector) and [`Searcher::explain`](crate::Searcher::explain)
    pub address: Address,
}

/// The hits of `found`, in their order.
#[must_use]
pub fn to_ranking(found: &[Found]) -> Ranking {
    Ranking::from_distinct(found.iter().map(|found| found.hit.clone()).collect())
}

/// The hits of `found`, in their order, without a copy.
pub(crate) fn into_ranking(found: Vec<Found>) -> Ranking {
    Ranking::from_distinct(found.into_iter().map(|found| found.hit).collect())
}

/// Computation of scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scoring {
    /// In f32 from the stored weights, equal bit for bit to [`SparseVector::dot`](splade_core::SparseVector::dot).
    #[default]
    Exact,
    /// From the impacts alone, which is a little faster. The error is up to half a step of each term. With negative query
    /// weights, a document with a score near zero may be missing.
    Quantized,
}

/// Options of a search.
#[derive(Debug, Clone, Default)]
pub struct SearchOptions {
    /// computation of scores, [`Scoring::Exact`] by default
    pub scoring: Scoring,
    /// condition on the documents, `None` for all documents
    pub filter: Option<Filter>,
    /// number of rayon's threads that search parts of the index at the same time; 0 and 1 mean the caller's thread. The results
    /// do not depend on it.
    pub threads: usize,
    /// parameters of BM25
    pub bm25: Bm25Options,
}

/// Contribution of a term to the score of a document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TermScore {
    /// the dimension
    pub dim: u32,
    /// weight in the query
    pub query_weight: f32,
    /// weight in the document
    pub document_weight: f32,
    /// product of the weights
    pub score: f32,
}
