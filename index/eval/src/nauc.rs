//! nAUC: agreement of a system's confidence in a ranking with the ranking's quality.
//!
//! mteb's normalized area under the abstention curve (Gisserot-Boukhlef et al. 2024, arXiv:2402.12997).

use crate::metrics::{mean, sum};

/// Confidence in one ranking, as mteb computes it from the scores of the hits.
pub(crate) struct Confidence {
    pub(crate) max: f64,
    pub(crate) std: f64,
    pub(crate) diff1: f64,
}

impl Confidence {
    /// Confidence in a ranking by its scores, sorted in decreasing order; 0 without scores.
    pub(crate) fn of(scores: &[f64]) -> Self {
        let [max, rest @ ..] = scores else { return Self { max: 0.0, std: 0.0, diff1: 0.0 } };
        let mean = mean(scores);
        let variance = sum(scores.iter().map(|score| (score - mean).powi(2))) / scores.len() as f64;
        Self { max: *max, std: variance.sqrt(), diff1: rest.first().map_or(0.0, |second| max - second) }
    }
}

/// (AUC − flat) / (oracle − flat) of a metric's values and the confidences in them, one of each per query. NaN if all
/// values are equal, since abstention then changes nothing.
pub(crate) fn nauc(confidences: &[f64], values: &[f64]) -> f64 {
    let auc = abstention_auc(confidences, values);
    let oracle = abstention_auc(values, values);
    let flat = mean(values) * LAST_RATE;
    if oracle == flat { f64::NAN } else { (auc - flat) / (oracle - flat) }
}

const RATES: usize = 10;
const LAST_RATE: f64 = 0.9;

/// Area under the curve of mean values after abstention from the least confident 0 %, 10 %, …, 90 % of the queries.
fn abstention_auc(confidences: &[f64], values: &[f64]) -> f64 {
    let sorted = by_confidence(confidences, values);
    // multiples of 0.1 as in NumPy's `linspace`, which differ from the doubles nearest to 0.3, 0.6 and 0.7
    let rate = |at: usize| at as f64 * 0.1;
    let left = |at: usize| {
        let dropped = (rate(at) * sorted.len() as f64).round_ties_even() as usize;
        mean(&sorted[dropped.min(sorted.len().saturating_sub(1))..])
    };
    let curve: Vec<f64> = (0..RATES).map(left).collect();
    sum((1..RATES).map(|at| (rate(at) - rate(at - 1)) * (curve[at] + curve[at - 1]) / 2.0))
}

/// Values by increasing confidence. Values of equal confidence are replaced by their mean.
fn by_confidence(confidences: &[f64], values: &[f64]) -> Vec<f64> {
    let mut pairs: Vec<(f64, f64)> = confidences.iter().copied().zip(values.iter().copied()).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut sorted = Vec::with_capacity(pairs.len());
    for group in pairs.chunk_by(|a, b| a.0 == b.0) {
        let values: Vec<f64> = group.iter().map(|(_, value)| *value).collect();
        sorted.extend(std::iter::repeat_n(mean(&values), group.len()));
    }
    sorted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn perfect_confidence_is_1_and_equal_values_are_undefined() {
        let values: Vec<f64> = (0..20).map(|n| f64::from(n) / 20.0).collect();
        assert!((nauc(&values, &values) - 1.0).abs() < 1e-12);
        assert!(nauc(&values, &[0.0; 20]).is_nan());
        assert!(nauc(&[], &[]).is_nan());
        let same = vec![1.0; 20];
        assert!(nauc(&same, &values).abs() < 1e-12);
    }

    /// Five queries put 0.5 · 5 on a half, which the goldens never do. Expected: the same steps in Python, whose
    /// `round` goes to the even neighbor.
    #[test]
    fn halves_are_rounded_to_even() {
        let value = nauc(&[0.0, 1.0, 2.0, 3.0, 4.0], &[0.5, 0.1, 0.0, 1.0, 0.25]);
        assert!((value - 0.023_255_813_953_488_507).abs() < 1e-12, "{value}");
    }

    #[test]
    fn confidence_of_few_scores() {
        let confidence = Confidence::of(&[3.0]);
        assert_eq!((confidence.max, confidence.std, confidence.diff1), (3.0, 0.0, 0.0));
        let confidence = Confidence::of(&[3.0, 1.0]);
        assert_eq!((confidence.max, confidence.std, confidence.diff1), (3.0, 1.0, 2.0));
        assert_eq!(Confidence::of(&[]).max, 0.0);
    }

    proptest! {
        #[test]
        fn never_above_1_and_the_order_of_queries_does_not_matter(
            pairs in prop::collection::vec((0u8..6, 0u8..6), 1..40),
        ) {
            let split = |pairs: &[(u8, u8)]| -> (Vec<f64>, Vec<f64>) {
                pairs.iter().map(|&(c, v)| (f64::from(c), f64::from(v))).unzip()
            };
            let (confidences, values) = split(&pairs);
            let forward = nauc(&confidences, &values);
            let mut pairs = pairs;
            pairs.reverse();
            let (confidences, values) = split(&pairs);
            let backward = nauc(&confidences, &values);
            prop_assert!(forward.is_nan() == backward.is_nan());
            prop_assert!(forward.is_nan() || ((forward - backward).abs() < 1e-6 && forward < 1.0 + 1e-6));
        }
    }
}
