//! The trait [`Retriever`], from a query to a ranking.

use crate::dense::DenseVector;
use crate::{Ranking, Result, SparseVector};

/// Text and vectors of a query; a retriever reads some of them.
#[derive(Debug, Clone, Copy)]
pub struct EncodedQuery<'a> {
    /// text of the query, for BM25
    pub text: &'a str,
    /// vector of the query, for retrievers over vectors
    pub vector: &'a SparseVector,
    /// dense vector of the query, for retrievers over dense vectors; none if it was not computed
    pub dense: Option<&'a DenseVector>,
}

/// Ranks the documents of a corpus for a query.
///
/// Exact search over vectors in memory, the impact index, BM25 and hybrid search implement it, and evaluation uses it.
pub trait Retriever: Send + Sync {
    /// Best `depth` documents whose score is not 0, in the order of a [`Ranking`].
    ///
    /// If there are fewer hits, every other document has a score of 0. The hits may include documents of score 0.
    ///
    /// # Errors
    /// A failure of the index or other system that searches.
    fn retrieve(&self, query: EncodedQuery<'_>, depth: usize) -> Result<Ranking>;
}
