//! [`SparsityStats`]: active dims, sparsity ratio, FLOPS and lengths of posting lists.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use serde::Serialize;

use crate::SparseVector;

/// Counts over a stream of vectors; its memory grows with the vocabulary, not with the number of vectors.
///
/// ```
/// use splade_core::{SparseVector, SparsityStats, flops};
///
/// let mut documents = SparsityStats::new(8);
/// documents.add(&SparseVector::from_pairs([(1, 0.5), (2, 1.0)])?);
/// documents.add(&SparseVector::from_pairs([(2, 2.0), (3, 0.1), (5, 0.2), (7, 1.0)])?);
/// assert_eq!(documents.mean_active_dims(), 3.0);
/// assert_eq!(documents.sparsity_ratio(), 1.0 - 3.0 / 8.0);
///
/// let mut queries = SparsityStats::new(8);
/// queries.add(&SparseVector::from_pairs([(1, 1.0), (2, 1.0)])?);
/// assert_eq!(flops(&queries, &documents), 0.5 + 1.0);
/// # Ok::<(), splade_core::VectorError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SparsityStats {
    dimensions: usize,
    count: u64,
    /// number of vectors by active dims
    by_active_dims: BTreeMap<usize, u64>,
    /// number of vectors that hold a dimension
    frequencies: HashMap<u32, u64>,
}

impl SparsityStats {
    /// Empty statistics over a vocabulary of `dimensions` terms.
    #[must_use]
    pub fn new(dimensions: usize) -> Self {
        Self { dimensions, ..Self::default() }
    }

    /// Statistics of `vectors`.
    #[must_use]
    pub fn of<'a>(dimensions: usize, vectors: impl IntoIterator<Item = &'a SparseVector>) -> Self {
        let mut stats = Self::new(dimensions);
        vectors.into_iter().for_each(|vector| stats.add(vector));
        stats
    }

    /// Counts one vector.
    pub fn add(&mut self, vector: &SparseVector) {
        self.count += 1;
        *self.by_active_dims.entry(vector.active_dims()).or_default() += 1;
        for &dim in vector.dims() {
            *self.frequencies.entry(dim).or_default() += 1;
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.dimensions = self.dimensions.max(other.dimensions);
        self.count += other.count;
        for (&active, count) in &other.by_active_dims {
            *self.by_active_dims.entry(active).or_default() += count;
        }
        for (&dim, count) in &other.frequencies {
            *self.frequencies.entry(dim).or_default() += count;
        }
    }

    /// The number of vectors.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The vocabulary size.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The number of vectors in which `dim` is not zero: the length of its posting list.
    #[must_use]
    pub fn frequency(&self, dim: u32) -> u64 {
        self.frequencies.get(&dim).copied().unwrap_or(0)
    }

    /// Mean of the active dims; 0 without vectors.
    #[must_use]
    pub fn mean_active_dims(&self) -> f64 {
        ratio(self.postings(), self.count)
    }

    /// 1 − mean active dims / vocabulary size; 1 without vectors or vocabulary.
    #[must_use]
    pub fn sparsity_ratio(&self) -> f64 {
        if self.dimensions == 0 { 1.0 } else { 1.0 - self.mean_active_dims() / self.dimensions as f64 }
    }

    /// The smallest number of active dims that at least `percent` of 100 of the vectors do not exceed (nearest rank);
    /// 0 without vectors.
    #[must_use]
    pub fn active_dims_percentile(&self, percent: f64) -> usize {
        let wanted = (percent / 100.0 * self.count as f64).ceil().max(1.0);
        let mut seen = 0;
        for (&active, &count) in &self.by_active_dims {
            seen += count;
            if seen as f64 >= wanted {
                return active;
            }
        }
        self.by_active_dims.last_key_value().map_or(0, |(&active, _)| active)
    }

    /// The `k` most frequent dimensions with their numbers of vectors; of equal numbers the smaller dimension first.
    #[must_use]
    pub fn most_frequent(&self, k: usize) -> Vec<(u32, u64)> {
        let mut all: Vec<(u32, u64)> = self.frequencies.iter().map(|(&dim, &count)| (dim, count)).collect();
        all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(k);
        all
    }

    /// Active dims that occur and their numbers of vectors, ascending.
    pub fn active_dims_counts(&self) -> impl Iterator<Item = (usize, u64)> + Clone + '_ {
        self.by_active_dims.iter().map(|(&active, &count)| (active, count))
    }

    /// Lengths of the posting lists of all used dims, in no order.
    pub fn posting_lengths(&self) -> impl Iterator<Item = u64> + Clone + '_ {
        self.frequencies.values().copied()
    }

    /// Summary of all counts.
    #[must_use]
    pub fn report(&self) -> SparsityReport {
        let percentile = |percent| self.active_dims_percentile(percent);
        SparsityReport {
            count: self.count,
            empty_count: self.by_active_dims.get(&0).copied().unwrap_or(0),
            dimensions: self.dimensions,
            active_dims_mean: self.mean_active_dims(),
            active_dims_min: percentile(0.0),
            active_dims_p50: percentile(50.0),
            active_dims_p90: percentile(90.0),
            active_dims_p95: percentile(95.0),
            active_dims_p99: percentile(99.0),
            active_dims_max: percentile(100.0),
            sparsity_ratio: self.sparsity_ratio(),
            used_dims: self.frequencies.len(),
            posting_list_mean: ratio(self.postings(), self.frequencies.len() as u64),
            posting_list_max: self.frequencies.values().copied().max().unwrap_or(0),
        }
    }

    fn postings(&self) -> u64 {
        self.by_active_dims.iter().map(|(&active, &count)| active as u64 * count).sum()
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Expected multiplications per query–document pair (`avg_flops` of sentence-transformers): Σ over dims of (share of
/// queries that hold the dim) · (share of documents that hold it). 0 if a side has no vector.
#[must_use]
pub fn flops(queries: &SparsityStats, documents: &SparsityStats) -> f64 {
    if queries.count == 0 || documents.count == 0 {
        return 0.0;
    }
    // Whole products, exact up to 2^53: the sum does not depend on the order of a hash map.
    let products: u128 =
        queries.frequencies.iter().map(|(&dim, &count)| u128::from(count) * u128::from(documents.frequency(dim))).sum();
    products as f64 / (queries.count as f64 * documents.count as f64)
}

/// Target of the active dims of queries.
pub const QUERY_ACTIVE_DIMS: RangeInclusive<f64> = 5.0..=10.0;

/// Target of the sparsity ratio of documents.
pub const DOCUMENT_SPARSITY: RangeInclusive<f64> = 0.90..=0.95;

/// Size of an index of a million documents, and the cost of a query in it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MillionEstimate {
    /// bytes of the index without the texts
    pub index_bytes: u64,
    /// postings of a query's dims, before any is skipped
    pub postings_per_query: u64,
}

impl MillionEstimate {
    const DOCUMENTS: f64 = 1e6;
    /// Bytes of an index per active dim of a document: 3.2 of the posting lists, 3 of the exact weights.
    const BYTES_PER_POSTING: f64 = 6.2;

    /// Estimate from the mean active dims of documents and the [`flops`] of a pair.
    #[must_use]
    pub fn of(document_active_dims: f64, flops: f64) -> Self {
        Self {
            index_bytes: (Self::DOCUMENTS * document_active_dims * Self::BYTES_PER_POSTING) as u64,
            postings_per_query: (Self::DOCUMENTS * flops) as u64,
        }
    }
}

/// Summary of [`SparsityStats`] of one side, queries or documents.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SparsityReport {
    /// number of vectors
    pub count: u64,
    /// number of vectors without active dims
    pub empty_count: u64,
    /// the vocabulary size
    pub dimensions: usize,
    /// mean number of active dims
    pub active_dims_mean: f64,
    /// smallest number of active dims
    pub active_dims_min: usize,
    /// median, by nearest rank as all percentiles here
    pub active_dims_p50: usize,
    /// 90th percentile
    pub active_dims_p90: usize,
    /// 95th percentile
    pub active_dims_p95: usize,
    /// 99th percentile
    pub active_dims_p99: usize,
    /// largest number of active dims
    pub active_dims_max: usize,
    /// 1 − mean active dims / vocabulary size
    pub sparsity_ratio: f64,
    /// dims that at least one vector holds
    pub used_dims: usize,
    /// mean length of the posting lists of used dims
    pub posting_list_mean: f64,
    /// length of the longest posting list
    pub posting_list_max: u64,
}

/// Sparsity of queries and documents, and the expected cost of a pair.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SparsityAnalysis {
    /// sparsity of the query vectors
    pub queries: SparsityReport,
    /// sparsity of the document vectors
    pub documents: SparsityReport,
    /// [`flops`] of the two
    pub flops: f64,
}

impl SparsityAnalysis {
    /// Analysis of the counts of both sides.
    #[must_use]
    pub fn of(queries: &SparsityStats, documents: &SparsityStats) -> Self {
        Self { queries: queries.report(), documents: documents.report(), flops: flops(queries, documents) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector(dims: &[u32]) -> SparseVector {
        SparseVector::from_pairs(dims.iter().map(|&dim| (dim, 1.0))).unwrap()
    }

    #[test]
    fn no_vectors_are_perfectly_sparse() {
        let none = SparsityStats::new(10);
        assert_eq!((none.mean_active_dims(), none.sparsity_ratio()), (0.0, 1.0));
        assert_eq!(SparsityStats::new(0).sparsity_ratio(), 1.0);
        assert_eq!((flops(&none, &none), none.active_dims_percentile(50.0)), (0.0, 0));
        assert_eq!(none.report().posting_list_mean, 0.0);
    }

    #[test]
    fn the_report_counts() {
        let vectors: Vec<SparseVector> = (0..=100).map(|n| vector(&(0..n).collect::<Vec<_>>())).collect();
        let report = SparsityStats::of(200, &vectors).report();
        assert_eq!((report.count, report.empty_count, report.used_dims), (101, 1, 100));
        assert_eq!((report.active_dims_min, report.active_dims_p50, report.active_dims_max), (0, 50, 100));
        assert_eq!((report.active_dims_p90, report.active_dims_p99), (90, 99));
        assert_eq!((report.active_dims_mean, report.sparsity_ratio), (50.0, 0.75));
        assert_eq!((report.posting_list_mean, report.posting_list_max), (50.5, 100));
        let stats = SparsityStats::of(200, &vectors);
        assert_eq!(stats.most_frequent(2), [(0, 100), (1, 99)]);
        assert_eq!((stats.frequency(99), stats.frequency(100)), (1, 0));
    }

    proptest! {
        #[test]
        fn parts_merge_to_the_whole(
            sides in prop::collection::vec(prop::collection::btree_set(0u32..40, 0..12), 0..20),
            cut in 0usize..20,
        ) {
            let vectors: Vec<SparseVector> =
                sides.iter().map(|dims| vector(&dims.iter().copied().collect::<Vec<_>>())).collect();
            let cut = cut.min(vectors.len());
            let whole = SparsityStats::of(40, &vectors);
            let mut parts = SparsityStats::of(40, &vectors[cut..]);
            parts.merge(&SparsityStats::of(40, &vectors[..cut]));
            prop_assert_eq!(&parts, &whole);
            // The plain twin of `flops`: count the shared dims of every pair.
            let pairs: usize = vectors
                .iter()
                .flat_map(|a| vectors.iter().map(move |b| a.dims().iter().filter(|dim| b.weight(**dim) != 0.0).count()))
                .sum();
            let plain = pairs as f64 / (vectors.len() * vectors.len()).max(1) as f64;
            prop_assert!((flops(&whole, &whole) - plain).abs() < 1e-12);
        }
    }
}
