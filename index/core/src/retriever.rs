//! The trait [`Retriever`], from a query to a ranking, and [`Hybrid`], which fuses retrievers.

use crate::{Fusion, Hit, Ranking, Result, SparseVector};

/// Text and vector of a query; a retriever reads one of them or both.
#[derive(Debug, Clone, Copy)]
pub struct EncodedQuery<'a> {
    /// text of the query, for BM25
    pub text: &'a str,
    /// vector of the query, for retrievers over vectors
    pub vector: &'a SparseVector,
}

/// Ranks the documents of a corpus for a query.
///
/// Exact search over vectors in memory, the impact index, BM25 and [`Hybrid`] implement it, and evaluation uses it.
pub trait Retriever: Send + Sync {
    /// Best `depth` documents whose score is not 0, in the order of a [`Ranking`].
    ///
    /// If there are fewer hits, every other document has a score of 0. The hits may include documents of score 0.
    ///
    /// # Errors
    /// A failure of the index or other system that searches.
    fn retrieve(&self, query: EncodedQuery<'_>, depth: usize) -> Result<Ranking>;
}

/// Several retrievers whose rankings are fused by a [`Fusion`].
pub struct Hybrid<'a> {
    retrievers: Vec<&'a dyn Retriever>,
    fusion: Fusion,
    candidates: usize,
}

impl<'a> Hybrid<'a> {
    /// Fuses the best `candidates` hits of each retriever, in the order of [`Fusion`]'s weights.
    #[must_use]
    pub fn new(retrievers: Vec<&'a dyn Retriever>, fusion: Fusion, candidates: usize) -> Self {
        Self { retrievers, fusion, candidates }
    }
}

impl Retriever for Hybrid<'_> {
    fn retrieve(&self, query: EncodedQuery<'_>, depth: usize) -> Result<Ranking> {
        let matches = |retriever: &&dyn Retriever| {
            // a document of score 0 adds nothing to the fused score, as in a search
            let hits = retriever.retrieve(query, self.candidates)?;
            let matching: Vec<Hit> = hits.hits().iter().filter(|hit| hit.score > 0.0).cloned().collect();
            Ok(Ranking::from_hits(matching))
        };
        let rankings = self.retrievers.iter().map(matches).collect::<Result<Vec<_>>>()?;
        let mut fused = self.fusion.fuse(&rankings);
        fused.truncate(depth);
        Ok(fused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<Hit>);

    impl Retriever for Fixed {
        fn retrieve(&self, _: EncodedQuery<'_>, depth: usize) -> Result<Ranking> {
            let mut ranking = Ranking::from_hits(self.0.clone());
            ranking.truncate(depth);
            Ok(ranking)
        }
    }

    #[test]
    fn the_candidates_do_not_depend_on_the_depth() {
        let fixed =
            |hits: &[(&str, f32)]| Fixed(hits.iter().map(|&(id, score)| Hit { id: id.into(), score }).collect());
        let (a, b) = (fixed(&[("x", 3.0), ("y", 2.0), ("z", -1.0)]), fixed(&[("z", 5.0), ("x", 0.0)]));
        let query = EncodedQuery { text: "", vector: &SparseVector::default() };
        let hybrid = |candidates| Hybrid::new(vec![&a, &b], Fusion::default(), candidates);
        let ids = |candidates, depth| -> Vec<String> {
            let ranking = hybrid(candidates).retrieve(query, depth).unwrap();
            ranking.hits().iter().map(|hit| hit.id.clone()).collect()
        };
        assert_eq!(ids(10, 10), ["x", "z", "y"]);
        assert_eq!(ids(10, 1), ["x"]);
        assert_eq!(ids(1, 10), ["x", "z"]);
    }
}
