//! Hybrid search: the sparse and the BM25 ranking of one snapshot, fused.

use std::collections::HashMap;

use splade_core::{Candidates, Fusion, Ranking, SparseVector};

use crate::searcher::{Address, SearchOptions, to_ranking};
use crate::{Found, Result, Searcher};

/// Position of the sparse ranking among the rankings that are fused, and of its weight among a fusion's weights.
const SPARSE: usize = 0;
/// Position of the BM25 ranking.
const BM25: usize = 1;

impl Searcher {
    /// Fuses the sparse and the BM25 ranking, of `depth` hits each, and returns the best `k`.
    ///
    /// The first weight of `fusion` is that of the sparse ranking. For a weighted sum, the score that a document of one
    /// ranking has in the other is computed exactly, below the depth too; a document without the query's words has a BM25
    /// score of 0. Reciprocal rank fusion needs no such scores.
    ///
    /// # Errors
    /// Those of [`search`](Self::search) and [`search_bm25_with`](Self::search_bm25_with).
    pub fn search_hybrid(
        &self,
        query: &SparseVector,
        text: &str,
        k: usize,
        depth: usize,
        fusion: &Fusion,
        options: &SearchOptions,
    ) -> Result<Vec<Found>> {
        let found = self.hybrid_candidates(query, text, depth, fusion.reads_scores(), options)?;
        Ok(found.find(&fusion.best(&found.candidates, k)))
    }

    /// The candidates of [`search_hybrid`](Self::search_hybrid): the sparse and the BM25 ranking, of `depth` hits each, with
    /// all scores if `complete` is true.
    ///
    /// # Errors
    /// Those of [`search_hybrid`](Self::search_hybrid).
    pub fn hybrid_candidates(
        &self,
        query: &SparseVector,
        text: &str,
        depth: usize,
        complete: bool,
        options: &SearchOptions,
    ) -> Result<HybridCandidates> {
        let sparse = self.search(query, depth, options)?;
        let bm25 = self.search_bm25_with(text, depth, options)?;
        // of a document with passages, the address of the best one
        let addresses = bm25.iter().chain(&sparse).map(|found| (found.hit.id.clone(), found.address)).collect();
        let candidates = Candidates::of(&[to_ranking(&sparse), to_ranking(&bm25)]);
        let mut found = HybridCandidates { candidates, addresses };
        if complete {
            found.complete(SPARSE, |addresses| self.best_passages(query, addresses))?;
            found.complete(BM25, |addresses| {
                let scores = self.bm25_scores(text, addresses, options.bm25)?;
                Ok(scores.into_iter().zip(addresses.iter().copied()).collect())
            })?;
        }
        Ok(found)
    }
}

/// Candidates of a query with their places in the snapshot.
#[derive(Debug, Clone)]
pub struct HybridCandidates {
    /// the sparse ranking first, then that of BM25
    pub candidates: Candidates,
    addresses: HashMap<String, Address>,
}

impl HybridCandidates {
    /// Adds the missing scores of a list. `score` returns them for some addresses, with the addresses of the hits.
    fn complete(&mut self, list: usize, score: impl FnOnce(&[Address]) -> Result<Vec<(f32, Address)>>) -> Result<()> {
        let missing: Vec<usize> = self.candidates.missing(list).collect();
        let addresses: Vec<Address> = missing.iter().map(|&at| self.addresses[&self.candidates.ids()[at]]).collect();
        for (at, (score, address)) in missing.into_iter().zip(score(&addresses)?) {
            self.candidates.complete(list, at, score);
            self.addresses.insert(self.candidates.ids()[at].clone(), address);
        }
        Ok(())
    }

    /// The hits of a fused ranking with their addresses.
    fn find(&self, fused: &Ranking) -> Vec<Found> {
        let found = fused.hits().iter().map(|hit| Found { hit: hit.clone(), address: self.addresses[&hit.id] });
        found.collect()
    }
}
