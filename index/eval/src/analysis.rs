//! [`VectorAnalysis`]: distributions over a stream of vectors: active dims, weights, posting lists, expansions and
//! frequent terms.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use splade_core::{SparseVector, SparsityReport, SparsityStats};

/// Counts over a stream of vectors. Memory grows with the vocabulary, not with the number of vectors.
///
/// ```
/// use splade_core::SparseVector;
/// use splade_eval::VectorAnalysis;
///
/// let mut analysis = VectorAnalysis::new(100);
/// // the words 3 and 8 are in the text, 3 is active, 5 is an expansion
/// analysis.add(&SparseVector::from_pairs([(3, 1.5), (5, 0.5)])?, Some(&[3, 8, 3]));
/// let report = analysis.report(10);
/// assert_eq!(report.expansion.unwrap().expansions_mean, 1.0);
/// assert_eq!(report.top_terms[0].dim, 3);
/// # Ok::<(), splade_core::VectorError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VectorAnalysis {
    stats: SparsityStats,
    /// number of weights by their upper 16 bits
    weights: BTreeMap<WeightKey, u64>,
    /// sum of the weights of each dim
    weight_sums: HashMap<u32, f64>,
    expansion: ExpansionCounts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct ExpansionCounts {
    /// vectors whose text is known
    texts: u64,
    entries: u64,
    expansions: u64,
    weight: f64,
    expansion_weight: f64,
    words: u64,
    words_without_weight: u64,
}

/// Upper 16 bits of an f32, in the order of the numbers: within 1 % of a weight.
type WeightKey = i32;

impl VectorAnalysis {
    /// Empty analysis over a vocabulary of `dimensions` terms.
    #[must_use]
    pub fn new(dimensions: usize) -> Self {
        Self { stats: SparsityStats::new(dimensions), ..Self::default() }
    }

    /// Counts one vector. `words` are the token ids of its text, in any order; none if the text is not known.
    pub fn add(&mut self, vector: &SparseVector, words: Option<&[u32]>) {
        self.stats.add(vector);
        for (dim, weight) in vector.iter() {
            *self.weights.entry(weight_key(weight)).or_default() += 1;
            *self.weight_sums.entry(dim).or_default() += f64::from(weight);
        }
        let Some(words) = words else { return };
        let words: HashSet<u32> = words.iter().copied().collect();
        let counts = &mut self.expansion;
        counts.texts += 1;
        for (dim, weight) in vector.iter() {
            let weight = f64::from(weight.abs());
            counts.entries += 1;
            counts.weight += weight;
            if !words.contains(&dim) {
                counts.expansions += 1;
                counts.expansion_weight += weight;
            }
        }
        counts.words += words.len() as u64;
        counts.words_without_weight += words.iter().filter(|dim| vector.weight(**dim) == 0.0).count() as u64;
    }

    /// Active dims and posting lists.
    #[must_use]
    pub fn stats(&self) -> &SparsityStats {
        &self.stats
    }

    /// Weights to within 1 %, ascending, and their numbers.
    pub fn weight_counts(&self) -> impl Iterator<Item = (f64, u64)> + Clone + '_ {
        self.weights.iter().map(|(&key, &count)| (weight_of(key), count))
    }

    /// Summary, with the `top` most frequent terms.
    #[must_use]
    pub fn report(&self, top: usize) -> VectorReport {
        let sparsity = self.stats.report();
        let dead = 1.0 - share(sparsity.used_dims as f64, sparsity.dimensions as f64);
        let term = |(dim, vectors): (u32, u64)| TermReport {
            dim,
            vectors,
            share: share(vectors as f64, sparsity.count as f64),
            weight_mean: share(self.weight_sums.get(&dim).copied().unwrap_or(0.0), vectors as f64),
        };
        VectorReport {
            weights: self.weight_report(),
            posting_lists: self.posting_report(),
            expansion: self.expansion.report(),
            dead_vocabulary_ratio: dead,
            top_terms: self.stats.most_frequent(top).into_iter().map(term).collect(),
            sparsity,
        }
    }

    fn weight_report(&self) -> Distribution {
        let sum: f64 = self.weight_sums.values().sum();
        let mut distribution = Distribution::of(self.weight_counts());
        let count: u64 = self.weights.values().sum();
        distribution.mean = share(sum, count as f64);
        distribution
    }

    fn posting_report(&self) -> Distribution {
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        self.stats.posting_lengths().for_each(|length| *counts.entry(length).or_default() += 1);
        Distribution::of(counts.iter().map(|(&length, &count)| (length as f64, count)))
    }
}

fn weight_key(weight: f32) -> WeightKey {
    let bits = (weight.to_bits() >> 16) as i32;
    // negative numbers in decreasing order of their size
    if weight < 0.0 { -(bits & 0x7FFF) } else { bits }
}

/// Middle of the weights with a key.
fn weight_of(key: WeightKey) -> f64 {
    let size = f32::from_bits(((key.unsigned_abs()) << 16) | 0x8000);
    f64::from(if key < 0 { -size } else { size })
}

impl ExpansionCounts {
    fn report(&self) -> Option<ExpansionReport> {
        (self.texts > 0).then(|| ExpansionReport {
            words_mean: share(self.words as f64, self.texts as f64),
            expansions_mean: share(self.expansions as f64, self.texts as f64),
            expansion_ratio: share(self.expansions as f64, self.entries as f64),
            expansion_weight_ratio: share(self.expansion_weight, self.weight),
            dropped_word_ratio: share(self.words_without_weight as f64, self.words as f64),
        })
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

/// Summary of a [`VectorAnalysis`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VectorReport {
    /// active dims
    #[serde(flatten)]
    pub sparsity: SparsityReport,
    /// weights of all entries; percentiles to within 1 %
    pub weights: Distribution,
    /// lengths of the posting lists of used dims
    pub posting_lists: Distribution,
    /// terms that are not in the text; none if no text is known
    pub expansion: Option<ExpansionReport>,
    /// share of the vocabulary that no vector holds
    pub dead_vocabulary_ratio: f64,
    /// terms that most vectors hold
    pub top_terms: Vec<TermReport>,
}

/// Terms of vectors against the words of their texts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ExpansionReport {
    /// mean number of distinct words (tokens) of a text
    pub words_mean: f64,
    /// mean number of active dims that are not in the text
    pub expansions_mean: f64,
    /// share of the active dims that are not in the text
    pub expansion_ratio: f64,
    /// share of the weight on dims that are not in the text
    pub expansion_weight_ratio: f64,
    /// share of the words of texts whose weight is 0
    pub dropped_word_ratio: f64,
}

/// Frequent term.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TermReport {
    /// dimension
    pub dim: u32,
    /// number of vectors that hold it
    pub vectors: u64,
    /// share of the vectors that hold it
    pub share: f64,
    /// mean weight in them
    pub weight_mean: f64,
}

/// Mean and percentiles, by nearest rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// mean
    pub mean: f64,
    /// smallest value
    pub min: f64,
    /// median
    pub p50: f64,
    /// 90th percentile
    pub p90: f64,
    /// 99th percentile
    pub p99: f64,
    /// largest value
    pub max: f64,
}

impl Distribution {
    /// Distribution of ascending values and their counts; all 0 without values.
    fn of(counts: impl Iterator<Item = (f64, u64)> + Clone) -> Self {
        let total: u64 = counts.clone().map(|(_, count)| count).sum();
        let percentile = |percent: f64| {
            let wanted = (percent / 100.0 * total as f64).ceil().max(1.0);
            let mut seen = 0;
            let reached = |(value, count): (f64, u64)| {
                seen += count;
                (seen as f64 >= wanted).then_some(value)
            };
            counts.clone().find_map(reached).unwrap_or(0.0)
        };
        let sum: f64 = counts.clone().map(|(value, count)| value * count as f64).sum();
        Self {
            mean: share(sum, total as f64),
            min: percentile(0.0),
            p50: percentile(50.0),
            p90: percentile(90.0),
            p99: percentile(99.0),
            max: percentile(100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector(pairs: &[(u32, f32)]) -> SparseVector {
        SparseVector::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn expansions_and_dropped_words_are_counted() {
        let mut analysis = VectorAnalysis::new(10);
        analysis.add(&vector(&[(1, 1.0), (2, 3.0)]), Some(&[1, 1, 7]));
        analysis.add(&vector(&[(1, 2.0)]), Some(&[1]));
        analysis.add(&vector(&[]), Some(&[]));
        let report = analysis.report(1);
        let expansion = report.expansion.unwrap();
        assert_eq!((expansion.words_mean, expansion.expansions_mean), (1.0, 1.0 / 3.0));
        assert_eq!((expansion.expansion_ratio, expansion.expansion_weight_ratio), (1.0 / 3.0, 0.5));
        assert_eq!(expansion.dropped_word_ratio, 1.0 / 3.0);
        assert_eq!(report.dead_vocabulary_ratio, 0.8);
        assert_eq!((report.posting_lists.min, report.posting_lists.max), (1.0, 2.0));
        let [term] = report.top_terms[..] else { panic!() };
        assert_eq!((term.dim, term.vectors, term.weight_mean), (1, 2, 1.5));
        assert_eq!(report.weights.mean, 2.0);
    }

    #[test]
    fn nothing_is_nothing() {
        let report = VectorAnalysis::new(0).report(5);
        assert_eq!((report.weights.p50, report.posting_lists.max, report.sparsity.count), (0.0, 0.0, 0));
        assert!(report.expansion.is_none() && report.top_terms.is_empty());
    }

    proptest! {
        /// The plain twin: sorted weights.
        #[test]
        fn percentiles_are_within_a_percent(weights in prop::collection::vec(-1e6f32..1e6, 1..200)) {
            let weights: Vec<f32> = weights.into_iter().filter(|weight| weight.abs() > 1e-6).collect();
            prop_assume!(!weights.is_empty());
            let mut analysis = VectorAnalysis::new(1000);
            for (dim, weight) in (0..).zip(&weights) {
                analysis.add(&vector(&[(dim, *weight)]), None);
            }
            let mut sorted = weights.clone();
            sorted.sort_by(f32::total_cmp);
            let at = |percent: f64| sorted[((percent / 100.0 * sorted.len() as f64).ceil().max(1.0)) as usize - 1];
            let found = analysis.report(0).weights;
            for (ours, expected) in [(found.min, at(0.0)), (found.p50, at(50.0)), (found.p99, at(99.0)), (found.max, at(100.0))] {
                let expected = f64::from(expected);
                prop_assert!((ours - expected).abs() <= 0.01 * expected.abs(), "{} {}", ours, expected);
            }
        }
    }
}
