//! [`Pruning`]: rules by which small weights are left out of a vector.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, SparseVector};

/// Rules that leave out the entries of smallest absolute weight. An entry is kept if every rule keeps it.
///
/// Entries are ordered by decreasing absolute weight, of equal weights the smaller dimension first. Each rule keeps a
/// beginning of this order, so the rules do not depend on each other.
///
/// ```
/// use splade_core::{Pruning, SparseVector};
///
/// let vector = SparseVector::from_pairs([(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)])?;
/// let dims = |pruning: Pruning| pruning.apply(&vector).dims().to_vec();
/// assert_eq!(dims(Pruning::default().with_max_active_dims(2)), [1, 2]);
/// assert_eq!(dims(Pruning::default().with_min_weight(2.0)?), [1, 2, 3]);
/// assert_eq!(dims(Pruning::default().with_mass(0.7)?), [1, 2]);
/// assert_eq!(dims(Pruning::default()), [1, 2, 3, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pruning {
    /// most entries that are kept
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_active_dims: Option<usize>,
    /// smallest absolute weight that is kept
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_weight: Option<f32>,
    /// share of the sum of all absolute weights that the kept entries reach
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mass: Option<f32>,
}

impl Pruning {
    /// Keeps at most so many entries.
    #[must_use]
    pub fn with_max_active_dims(self, max_active_dims: usize) -> Self {
        Self { max_active_dims: Some(max_active_dims), ..self }
    }

    /// Keeps entries of at least this absolute weight.
    ///
    /// # Errors
    /// A weight that is not above 0 or not finite.
    pub fn with_min_weight(self, min_weight: f32) -> Result<Self> {
        if !(min_weight.is_finite() && min_weight > 0.0) {
            return Err(Error::invalid(format!("the smallest weight is {min_weight}, not a number above 0"), ""));
        }
        Ok(Self { min_weight: Some(min_weight), ..self })
    }

    /// Keeps as few of the largest entries as have this share of the sum of all absolute weights.
    ///
    /// # Errors
    /// A share that is not above 0 and at most 1.
    pub fn with_mass(self, mass: f32) -> Result<Self> {
        if !(mass > 0.0 && mass <= 1.0) {
            return Err(Error::invalid(format!("the share of the mass is {mass}, not above 0 and at most 1"), ""));
        }
        Ok(Self { mass: Some(mass), ..self })
    }

    /// True if every entry of every vector is kept.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        *self == Self::default()
    }

    /// The entries of `vector` that every rule keeps.
    #[must_use]
    pub fn apply(&self, vector: &SparseVector) -> SparseVector {
        if self.keeps_all() {
            return vector.clone();
        }
        let mut weights: Vec<f32> = vector.weights().iter().map(|weight| weight.abs()).collect();
        weights.sort_unstable_by(|a, b| b.total_cmp(a));
        vector.top_k(self.kept(&weights))
    }

    /// Number of entries that are kept of absolute weights in decreasing order.
    fn kept(&self, weights: &[f32]) -> usize {
        let by_count = self.max_active_dims.unwrap_or(usize::MAX);
        let by_weight = match self.min_weight {
            Some(least) => weights.partition_point(|weight| *weight >= least),
            None => usize::MAX,
        };
        let by_mass = self.mass.map_or(usize::MAX, |share| {
            // in f64, in which sums of so few f32 hardly round
            let wanted = f64::from(share) * weights.iter().copied().map(f64::from).sum::<f64>();
            let mut sum = 0.0;
            let reached = weights.iter().position(|weight| {
                sum += f64::from(*weight);
                sum >= wanted
            });
            reached.map_or(usize::MAX, |last| last + 1)
        });
        by_count.min(by_weight).min(by_mass)
    }
}

/// The rules in words: `at most 128 dims, weights of at least 0.1`; `none` without a rule.
impl std::fmt::Display for Pruning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules = [
            self.max_active_dims.map(|most| format!("at most {most} dims")),
            self.min_weight.map(|least| format!("weights of at least {least}")),
            self.mass.map(|share| format!("{} % of the mass", share * 100.0)),
        ];
        let rules: Vec<String> = rules.into_iter().flatten().collect();
        if rules.is_empty() { f.write_str("none") } else { f.write_str(&rules.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused() {
        for weight in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(Pruning::default().with_min_weight(weight).is_err(), "{weight}");
        }
        for mass in [0.0, -0.5, 1.5, f32::NAN] {
            assert!(Pruning::default().with_mass(mass).is_err(), "{mass}");
        }
        assert_eq!(Pruning::default().to_string(), "none");
        let all = Pruning::default().with_max_active_dims(8).with_min_weight(0.5).unwrap().with_mass(0.9).unwrap();
        assert_eq!(all.to_string(), "at most 8 dims, weights of at least 0.5, 90 % of the mass");
    }

    proptest! {
        /// Each rule by its definition, entry by entry.
        #[test]
        fn kept_entries_are_those_that_every_rule_keeps(
            weights in prop::collection::vec(-3.0_f32..3.0, 0..40),
            count in prop::option::of(0_usize..40), least in prop::option::of(0.01_f32..3.0), mass in prop::option::of(0.01_f32..=1.0),
        ) {
            let vector = SparseVector::from_pairs((0..).zip(weights)).unwrap();
            let pruning = Pruning { max_active_dims: count, min_weight: least, mass };
            let mut order: Vec<(u32, f32)> = vector.iter().collect();
            order.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
            let total: f64 = order.iter().map(|(_, weight)| f64::from(weight.abs())).sum();
            let mut kept = Vec::new();
            let mut before = 0.0;
            for (rank, (dim, weight)) in order.into_iter().enumerate() {
                let keeps = count.is_none_or(|count| rank < count)
                    && least.is_none_or(|least| weight.abs() >= least)
                    && mass.is_none_or(|mass| before < f64::from(mass) * total);
                before += f64::from(weight.abs());
                kept.extend(keeps.then_some((dim, weight)));
            }
            kept.sort_by_key(|(dim, _)| *dim);
            prop_assert_eq!(pruning.apply(&vector).iter().collect::<Vec<_>>(), kept);
        }
    }
}
