//! [`ExactSearcher`]: scores of every document, for evaluation during training and as the plain twin of the index.

use std::cmp::Ordering;
use std::collections::HashMap;

use splade_core::{EncodedQuery, Hit, Ranking, Retriever, SparseVector, score_order};

use crate::error::{Error, Result};

/// Document vectors in memory, and their exact dot products with a query.
///
/// Scores equal [`SparseVector::dot`] bit for bit. The ranking has every document, also those of score 0, which share no
/// term with the query, and of negative scores, as in the references' evaluators.
///
/// ```
/// use splade_core::SparseVector;
/// use splade_eval::ExactSearcher;
///
/// let vector = |pairs: &[(u32, f32)]| SparseVector::from_pairs(pairs.iter().copied());
/// let documents = [("d1", vector(&[(3, 1.0)])?), ("d2", vector(&[(3, 0.5), (8, 2.0)])?), ("d3", vector(&[])?)];
/// let searcher = ExactSearcher::new(documents)?;
/// let ranking = searcher.search(&vector(&[(3, 1.0), (8, 1.0)])?, 2);
/// let hits: Vec<_> = ranking.hits().iter().map(|hit| (hit.id.as_str(), hit.score)).collect();
/// assert_eq!(hits, [("d2", 2.5), ("d1", 1.0)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct ExactSearcher {
    ids: Vec<String>,
    /// rank of each document's id among all ids, so that ties compare numbers instead of strings
    id_ranks: Vec<u32>,
    postings: HashMap<u32, Vec<(u32, f32)>>,
}

impl ExactSearcher {
    /// Makes a searcher over ids and vectors in any order.
    ///
    /// # Errors
    /// An id that occurs twice, more than 2³² − 1 documents.
    pub fn new<Id: Into<String>>(documents: impl IntoIterator<Item = (Id, SparseVector)>) -> Result<Self> {
        let mut searcher = Self::default();
        for (id, vector) in documents {
            searcher.add(id.into(), &vector)?;
        }
        searcher.rank_ids()?;
        Ok(searcher)
    }

    /// The number of documents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True without documents.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The best `k` documents: score descending, then id ascending.
    #[must_use]
    pub fn search(&self, query: &SparseVector, k: usize) -> Ranking {
        let scores = self.scores(query);
        self.best(&scores, (0..scores.len() as u32).collect(), k)
    }

    /// The best `k` of `documents`.
    fn best(&self, scores: &[f32], mut documents: Vec<u32>, k: usize) -> Ranking {
        let order = |a: &u32, b: &u32| self.order(scores, *a, *b);
        if k < documents.len() {
            documents.select_nth_unstable_by(k, order);
            documents.truncate(k);
        }
        documents.sort_unstable_by(order);
        let hit = |at: u32| Hit { id: self.ids[at as usize].clone(), score: scores[at as usize] };
        Ranking::from_hits(documents.into_iter().map(hit).collect())
    }

    fn add(&mut self, id: String, vector: &SparseVector) -> Result<()> {
        let too_many = |_| Error::invalid("more documents than an exact search takes", "");
        let place = u32::try_from(self.ids.len()).map_err(too_many)?;
        for (dim, weight) in vector.iter() {
            self.postings.entry(dim).or_default().push((place, weight));
        }
        self.ids.push(id);
        Ok(())
    }

    fn rank_ids(&mut self) -> Result<()> {
        let mut places: Vec<u32> = (0..self.ids.len() as u32).collect();
        places.sort_unstable_by(|a, b| self.ids[*a as usize].cmp(&self.ids[*b as usize]));
        let same = |pair: &&[u32]| self.ids[pair[0] as usize] == self.ids[pair[1] as usize];
        if let Some(pair) = places.windows(2).find(same) {
            let message = format!("document id {} occurs more than once", self.ids[pair[0] as usize]);
            return Err(Error::invalid(message, ""));
        }
        self.id_ranks = vec![0; places.len()];
        for (rank, place) in (0..).zip(places) {
            self.id_ranks[place as usize] = rank;
        }
        Ok(())
    }

    /// One score per document, summed by increasing dimension, which is the order of [`SparseVector::dot`].
    fn scores(&self, query: &SparseVector) -> Vec<f32> {
        let mut scores = vec![0.0; self.ids.len()];
        for (dim, weight) in query.iter() {
            for &(place, impact) in self.postings.get(&dim).into_iter().flatten() {
                scores[place as usize] += weight * impact;
            }
        }
        scores
    }

    /// [`Hit::rank_order`], with ranks of ids instead of strings.
    fn order(&self, scores: &[f32], a: u32, b: u32) -> Ordering {
        let (a, b) = (a as usize, b as usize);
        score_order(scores[a], scores[b]).then(self.id_ranks[a].cmp(&self.id_ranks[b]))
    }
}

impl Retriever for ExactSearcher {
    fn retrieve(&self, query: EncodedQuery<'_>, depth: usize) -> splade_core::Result<Ranking> {
        let scores = self.scores(query.vector);
        let nonzero = (0..scores.len() as u32).filter(|at| scores[*at as usize] != 0.0).collect();
        Ok(self.best(&scores, nonzero, depth))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_repeated_id_is_refused() {
        let documents =
            [("a", SparseVector::default()), ("b", SparseVector::default()), ("a", SparseVector::default())];
        let error = ExactSearcher::new(documents).unwrap_err();
        assert_eq!(error.to_string(), "document id a occurs more than once");
        let nothing = ExactSearcher::new(Vec::<(String, SparseVector)>::new()).unwrap();
        assert!(nothing.search(&SparseVector::default(), 10).is_empty() && nothing.is_empty());
    }

    fn vectors(n: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<SparseVector>> {
        // Few distinct weights and dims, so that ties and cancellation happen; some that do not add exactly.
        let weight = prop::sample::select(vec![-1.0f32, 0.1, 0.3, 1.0, 1e7, -1e7]);
        let pairs = prop::collection::btree_map(0u32..8, weight, 0..6);
        prop::collection::vec(pairs.prop_map(|pairs| SparseVector::from_pairs(pairs).unwrap()), n)
    }

    proptest! {
        /// The twin: sort all dot products.
        #[test]
        fn equals_sorting_all_dot_products(documents in vectors(0..40), query in vectors(1), k in 0usize..50) {
            let named: Vec<(String, SparseVector)> =
                documents.into_iter().enumerate().map(|(n, vector)| (format!("d{}", n * 7 % 41), vector)).collect();
            let hit = |(id, vector): &(String, SparseVector)| Hit { id: id.clone(), score: query[0].dot(vector) };
            let mut expected = Ranking::from_hits(named.iter().map(hit).collect());
            expected.truncate(k);
            let searcher = ExactSearcher::new(named).unwrap();
            prop_assert_eq!(searcher.search(&query[0], k), expected);
        }
    }
}
