//! The [`Retriever`] contract, query in and ranking out, and [`Hybrid`], which fuses retrievers.

use crate::{Fusion, Hit, Ranking, Result, SparseVector};

/// A query as retrievers take it; each reads the part it needs.
#[derive(Debug, Clone, Copy)]
pub struct EncodedQuery<'a> {
    /// text of the query, for BM25
    pub text: &'a str,
    /// vector of the query, for whatever ranks by vectors
    pub vector: &'a SparseVector,
}

/// Ranks the documents of a corpus for a query.
///
/// Implemented by exact search over vectors in memory, by the impact index, by BM25 and by [`Hybrid`]; evaluation is
/// written against this trait, once.
pub trait Retriever: Send + Sync {
    /// Best `depth` documents whose score is not 0, in the order of a [`Ranking`].
    ///
    /// Fewer hits mean that every other document has a score of 0. Documents of score 0 may be among the hits.
    ///
    /// # Errors
    /// A broken index or another failure of the system behind it.
    fn retrieve(&self, query: EncodedQuery<'_>, depth: usize) -> Result<Ranking>;
}

/// Several retrievers whose rankings a [`Fusion`] makes one.
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
            // a document that does not match gets nothing from a ranking, as in a search
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
