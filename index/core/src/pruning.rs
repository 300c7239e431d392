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
/// let dims = |pruning: Pruning| pruning.apply(vector.clone()).dims().to_vec();
/// assert_eq!(dims(Pruning::default().with_max_active_dims(2)), [1, 2]);
/// assert_eq!(dims(Pruning::default().with_min_weight(2.0)?), [1, 2, 3]);
/// assert_eq!(dims(Pruning::default().with_mass(0.7)?), [1, 2]);
/// assert_eq!(dims(Pruning::default()), [1, 2, 3, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Rules", into = "Rules")]
pub struct Pruning {
    rules: Rules,
}

// no number is NaN
impl Eq for Pruning {}

/// The rules as they are stored, which any numbers may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
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

impl TryFrom<Rules> for Pruning {
    type Error = Error;

    fn try_from(rules: Rules) -> Result<Self> {
        let mut pruning = Self::default();
        pruning.rules.max_active_dims = rules.max_active_dims;
        if let Some(least) = rules.min_weight {
            pruning = pruning.with_min_weight(least)?;
        }
        match rules.mass {
            Some(share) => pruning.with_mass(share),
            None => Ok(pruning),
        }
    }
}

impl From<Pruning> for Rules {
    fn from(pruning: Pruning) -> Self {
        pruning.rules
    }
}

impl Pruning {
    /// Keeps at most so many entries.
    #[must_use]
    pub fn with_max_active_dims(self, max_active_dims: usize) -> Self {
        Self { rules: Rules { max_active_dims: Some(max_active_dims), ..self.rules } }
    }

    /// Keeps entries of at least this absolute weight.
    ///
    /// # Errors
    /// A weight that is not above 0 or not finite.
    pub fn with_min_weight(self, min_weight: f32) -> Result<Self> {
        if !(min_weight.is_finite() && min_weight > 0.0) {
            return Err(Error::invalid(format!("the smallest weight is {min_weight}, not a number above 0"), ""));
        }
        Ok(Self { rules: Rules { min_weight: Some(min_weight), ..self.rules } })
    }

    /// Keeps as few of the largest entries as have this share of the sum of all absolute weights.
    ///
    /// # Errors
    /// A share that is not above 0 and at most 1.
    pub fn with_mass(self, mass: f32) -> Result<Self> {
        if !(mass > 0.0 && mass <= 1.0) {
            return Err(Error::invalid(format!("the share of the mass is {mass}, not above 0 and at most 1"), ""));
        }
        Ok(Self { rules: Rules { mass: Some(mass), ..self.rules } })
    }

    /// True if every entry of every vector is kept.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        *self == Self::default()
    }

    /// The entries of `vector` that every rule keeps.
    #[must_use]
    pub fn apply(&self, vector: SparseVector) -> SparseVector {
        if self.keeps_all() {
            return vector;
        }
        let mut weights: Vec<f32> = vector.weights().iter().map(|weight| weight.abs()).collect();
        weights.sort_unstable_by(|a, b| b.total_cmp(a));
        vector.top_k(self.kept(&weights))
    }

    /// Number of entries that are kept of absolute weights in decreasing order.
    fn kept(&self, weights: &[f32]) -> usize {
        let by_count = self.rules.max_active_dims.unwrap_or(usize::MAX);
        let by_weight = match self.rules.min_weight {
            Some(least) => weights.partition_point(|weight| *weight >= least),
            None => usize::MAX,
        };
        let by_mass = self.rules.mass.map_or(usize::MAX, |share| {
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
            self.rules.max_active_dims.map(|most| format!("at most {most} dims")),
            self.rules.min_weight.map(|least| format!("weights of at least {least}")),
            self.rules.mass.map(|share| format!("{} % of the mass", share * 100.0)),
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

    #[test]
    fn stored_rules_are_checked() {
        let read = |json: &str| serde_json::from_str::<Pruning>(json);
        let pruning = Pruning::default().with_max_active_dims(8).with_mass(0.75).unwrap();
        let json = serde_json::to_string(&pruning).unwrap();
        assert_eq!(json, r#"{"max_active_dims":8,"mass":0.75}"#);
        assert_eq!(read(&json).unwrap(), pruning);
        assert_eq!(read("{}").unwrap(), Pruning::default());
        for bad in [r#"{"mass": 2}"#, r#"{"min_weight": -1}"#, r#"{"top": 3}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Each rule by its definition, entry by entry.
        #[test]
        fn kept_entries_are_those_that_every_rule_keeps(
            weights in prop::collection::vec(-3.0_f32..3.0, 0..40),
            count in prop::option::of(0_usize..40), least in prop::option::of(0.01_f32..3.0), mass in prop::option::of(0.01_f32..=1.0),
        ) {
            let vector = SparseVector::from_pairs((0..).zip(weights)).unwrap();
            let pruning = Pruning { rules: Rules { max_active_dims: count, min_weight: least, mass } };
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
            prop_assert_eq!(pruning.apply(vector.clone()).iter().collect::<Vec<_>>(), kept);
        }
    }
}
