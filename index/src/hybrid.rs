//! Hybrid search: the sparse and the BM25 ranking of one snapshot, and a dense one where the query has it, fused.

use std::collections::HashMap;

use splade_core::dense::DenseVector;
use splade_core::{Candidates, Fusion, Hit, Ranking, SparseVector};

use crate::hits::{Address, SearchOptions};
use crate::{Found, Result, Searcher};

/// Position of the sparse ranking among the rankings that are fused, and of its weight among a fusion's weights.
const SPARSE: usize = 0;
/// Position of the BM25 ranking.
const BM25: usize = 1;
/// Position of the dense ranking.
const DENSE: usize = 2;

/// Parts of a query, one for each ranking that is fused.
#[derive(Debug, Clone, Copy)]
pub struct HybridQuery<'q> {
    /// vector of the sparse ranking
    pub vector: &'q SparseVector,
    /// text of the BM25 ranking
    pub text: &'q str,
    /// source of a third ranking; none for two rankings
    pub dense: Option<DensePart<'q>>,
}

/// Source of the dense ranking of a query.
#[derive(Debug, Clone, Copy)]
pub enum DensePart<'q> {
    /// search by this vector: [`Searcher::search_dense`]
    Vector(&'q DenseVector),
    /// ranking made elsewhere: [`Searcher::locate`]. Documents that it lacks have no score.
    Ranking(&'q Ranking),
}

impl<'q> From<(&'q SparseVector, &'q str)> for HybridQuery<'q> {
    fn from((vector, text): (&'q SparseVector, &'q str)) -> Self {
        Self { vector, text, dense: None }
    }
}

impl Searcher {
    /// Fuses the sparse, the BM25 and, if the query has one, the dense ranking, of `depth` hits each, and returns the best `k`.
    ///
    /// The weights of `fusion` are in this order. For a weighted sum, the score that a document of one
    /// ranking has in the other is computed exactly, below the depth too; a document without the query's words has a BM25
    /// score of 0. Reciprocal rank fusion needs no such scores.
    ///
    /// # Errors
    /// Those of [`search`](Self::search), [`search_bm25_with`](Self::search_bm25_with) and
    /// [`search_dense_part`](Self::search_dense_part).
    pub fn search_hybrid<'q>(
        &self,
        query: impl Into<HybridQuery<'q>>,
        k: usize,
        depth: usize,
        fusion: &Fusion,
        options: &SearchOptions,
    ) -> Result<Vec<Found>> {
        let found = self.hybrid_candidates(query, depth, fusion.reads_scores(), options)?;
        Ok(found.best(fusion, k))
    }

    /// The candidates of [`search_hybrid`](Self::search_hybrid): its rankings, of `depth` hits each, with all scores if `complete`
    /// is true.
    ///
    /// # Errors
    /// Those of [`search_hybrid`](Self::search_hybrid).
    pub fn hybrid_candidates<'q>(
        &self,
        query: impl Into<HybridQuery<'q>>,
        depth: usize,
        complete: bool,
        options: &SearchOptions,
    ) -> Result<HybridCandidates> {
        let HybridQuery { vector, text, dense } = query.into();
        let mut lists = vec![self.search(vector, depth, options)?, self.search_bm25_with(text, depth, options)?];
        if let Some(part) = dense {
            lists.push(self.search_dense_part(part, depth, options)?);
        }
        let mut found = self.numbered(lists)?;
        if complete {
            found.complete(SPARSE, |addresses| self.best_passages(vector, addresses))?;
            found.complete(BM25, |addresses| {
                let scores = self.bm25_scores(text, addresses, options.bm25)?;
                Ok(scores.into_iter().zip(addresses.iter().copied()).collect())
            })?;
            if let Some(DensePart::Vector(vector)) = dense {
                found.complete(DENSE, |addresses| {
                    let scores = self.dense_scores(vector, addresses)?;
                    Ok(scores.into_iter().zip(addresses.iter().copied()).collect())
                })?;
            }
        }
        Ok(found)
    }

    /// Candidates of rankings, each document once.
    fn numbered(&self, lists: Vec<Vec<Found>>) -> Result<HybridCandidates> {
        let (mut ids, mut addresses) = (Vec::new(), Vec::new());
        // documents with passages have several addresses: the head stands for all
        let mut positions: HashMap<Address, usize> = HashMap::new();
        let mut rankings = Vec::with_capacity(lists.len());
        for list in lists {
            let mut ranking = Vec::with_capacity(list.len());
            for Found { hit, address } in list {
                let position = *positions.entry(self.head(address)?).or_insert(ids.len());
                if position == ids.len() {
                    ids.push(hit.id);
                    // that of the best passage, since the sparse ranking comes first
                    addresses.push(address);
                }
                ranking.push((position, hit.score));
            }
            rankings.push(ranking);
        }
        Ok(HybridCandidates { candidates: Candidates::of_positions(ids, &rankings), addresses })
    }
}

/// Candidates of a query with their places in the snapshot.
#[derive(Debug, Clone)]
pub struct HybridCandidates {
    /// the sparse ranking first, then that of BM25, then the dense one
    pub candidates: Candidates,
    /// by the positions of the candidates
    addresses: Vec<Address>,
}

impl HybridCandidates {
    /// Adds the missing scores of a list. `score` returns them for some addresses, with the addresses of the hits.
    fn complete(&mut self, list: usize, score: impl FnOnce(&[Address]) -> Result<Vec<(f32, Address)>>) -> Result<()> {
        let missing: Vec<usize> = self.candidates.missing(list).collect();
        let addresses: Vec<Address> = missing.iter().map(|&at| self.addresses[at]).collect();
        for (at, (score, address)) in missing.into_iter().zip(score(&addresses)?) {
            self.candidates.complete(list, at, score);
            self.addresses[at] = address;
        }
        Ok(())
    }

    /// The best `k` of a fused ranking with their addresses.
    fn best(&self, fusion: &Fusion, k: usize) -> Vec<Found> {
        let best = fusion.best_positions(&self.candidates, k).into_iter();
        let found = best.map(|(at, score)| Found {
            hit: Hit { id: self.candidates.ids()[at].clone(), score },
            address: self.addresses[at],
        });
        found.collect()
    }
}
