//! [`Scaling`]: scores of different systems brought to one scale.

use std::str::FromStr;

use crate::Error;

/// Rule that makes the scores of one ranking comparable with those of another.
///
/// Every rule is an affine map `(s − subtract) / divide`. Its two numbers come from the scores of the ranking, so they
/// depend on the ranking's depth.
///
/// | rule | scaled score | source |
/// |---|---|---|
/// | `max` | s / \|max\| | Bruch, Gai, Ingber, TOIS 2023: min-max with the least possible score, 0, as the minimum |
/// | `min-max` | (s − min) / (max − min) | Lee, SIGIR 1997 |
/// | `z-score` | (s − μ) / σ | Montague, Aslam, CIKM 2001 (ZMUV) |
/// | `distribution` | (s − μ + 3σ) / 6σ | Mazzeschi, distribution-based score fusion, 2023 |
///
/// μ is the mean and σ the population's standard deviation. A score may scale to a number below 0 or above 1. If the scores
/// of every document are known in all rankings, `z-score` and `distribution` order them alike: the maps differ by a factor
/// and a constant that are equal in every ranking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scaling {
    /// division by the largest score
    #[default]
    Max,
    /// smallest score to 0, largest to 1
    MinMax,
    /// mean to 0, standard deviation to 1
    ZScore,
    /// mean minus three standard deviations to 0, mean plus three to 1
    Distribution,
}

impl Scaling {
    /// All rules.
    pub const ALL: [Self; 4] = [Self::Max, Self::MinMax, Self::ZScore, Self::Distribution];

    /// Names of [`ALL`](Self::ALL), in their order.
    pub const NAMES: [&str; 4] = ["max", "min-max", "z-score", "distribution"];

    /// Name, as [`Display`](std::fmt::Display) and [`FromStr`] use it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::MinMax => "min-max",
            Self::ZScore => "z-score",
            Self::Distribution => "distribution",
        }
    }

    /// Map of this rule for a ranking with these scores.
    pub(super) fn of(self, scores: &[f64]) -> Scale {
        let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if scores.is_empty() {
            return Scale { subtract: 0.0, divide: 1.0, missing: 0.0 };
        }
        let (mean, deviation) = mean_and_deviation(scores);
        let (subtract, divide) = match self {
            Self::Max => (0.0, largest.abs()),
            Self::MinMax => (least, largest - least),
            Self::ZScore => (mean, deviation),
            Self::Distribution => (mean - 3.0 * deviation, 6.0 * deviation),
        };
        // scores that do not differ have no deviation: the ranking's own become 1 and lower ones 0
        let is_flat = divide <= 0.0 || (self != Self::Max && largest <= least);
        let (subtract, divide) = if is_flat { (largest, 0.0) } else { (subtract, divide) };
        let scale = Scale { subtract, divide, missing: 0.0 };
        Scale { missing: scale.apply(least).min(0.0), ..scale }
    }
}

impl std::fmt::Display for Scaling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scaling {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|scaling| scaling.name() == name).ok_or_else(|| {
            Error::invalid(format!("unknown scaling '{name}'"), format!("known are {}", Self::NAMES.join(", ")))
        })
    }
}

/// Affine map of the scores of one ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    subtract: f64,
    /// 0 for a ranking of equal scores
    divide: f64,
    /// scaled score of a document whose score is not known
    pub(super) missing: f64,
}

impl Scale {
    /// Scaled score.
    pub(super) fn apply(self, score: f64) -> f64 {
        if self.divide > 0.0 {
            (score - self.subtract) / self.divide
        } else if score >= self.subtract {
            1.0
        } else {
            0.0
        }
    }
}

fn mean_and_deviation(scores: &[f64]) -> (f64, f64) {
    let count = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / count;
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// The score as f64. Infinities become the largest or smallest f32 and NaN the smallest, which is where
/// [`score_order`](crate::score_order) ranks them.
pub(super) fn finite(score: f32) -> f64 {
    if score.is_nan() { f64::from(f32::MIN) } else { f64::from(score.clamp(f32::MIN, f32::MAX)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formulas_on_a_small_ranking() {
        // mean 5, population deviation 2
        let scores = [8.0, 6.0, 4.0, 2.0, 5.0, 5.0];
        let deviation = (20.0_f64 / 6.0).sqrt();
        for (scaling, score, expected) in [
            (Scaling::Max, 4.0, 0.5),
            (Scaling::Max, 0.0, 0.0),
            (Scaling::MinMax, 2.0, 0.0),
            (Scaling::MinMax, 5.0, 0.5),
            (Scaling::MinMax, 0.0, -1.0 / 3.0),
            (Scaling::ZScore, 8.0, 3.0 / deviation),
            (Scaling::ZScore, 5.0, 0.0),
            (Scaling::Distribution, 5.0, 0.5),
            (Scaling::Distribution, 5.0 + deviation, 0.5 + 1.0 / 6.0),
        ] {
            let scaled = scaling.of(&scores).apply(score);
            assert!((scaled - expected).abs() < 1e-12, "{scaling} {score}: {scaled}, expected {expected}");
        }
    }

    #[test]
    fn a_score_that_is_not_known_is_at_most_0_and_at_most_the_last() {
        let scores = [8.0, 6.0, 2.0];
        assert_eq!(Scaling::Max.of(&scores).missing, 0.0);
        assert_eq!(Scaling::MinMax.of(&scores).missing, 0.0);
        let z = Scaling::ZScore.of(&scores);
        assert_eq!(z.missing, z.apply(2.0));
        // negative scores, as of a dense system: the order stays
        let negative = Scaling::Max.of(&[-1.0, -2.0]);
        assert_eq!((negative.apply(-1.0), negative.apply(-2.0), negative.missing), (-1.0, -2.0, -2.0));
    }

    #[test]
    fn equal_scores_scale_to_one_and_lower_ones_to_zero() {
        for scaling in Scaling::ALL {
            if scaling != Scaling::Max {
                let scale = scaling.of(&[3.0, 3.0]);
                assert_eq!((scale.apply(3.0), scale.apply(2.0), scale.missing), (1.0, 0.0, 0.0), "{scaling}");
            }
            assert_eq!(scaling.of(&[0.0]).apply(0.0), 1.0, "{scaling}");
            assert_eq!(scaling.of(&[]).missing, 0.0, "{scaling}");
        }
    }

    #[test]
    fn names_read_back() {
        for (scaling, name) in Scaling::ALL.into_iter().zip(Scaling::NAMES) {
            assert_eq!((scaling.name(), name.parse::<Scaling>().unwrap()), (name, scaling));
        }
        assert_eq!("sum".parse::<Scaling>().unwrap_err().hint(), Some("known are max, min-max, z-score, distribution"));
    }

    proptest! {
        /// The order of scores stays, and all numbers are finite.
        #[test]
        fn scaling_keeps_the_order(scores in prop::collection::vec(any::<f32>(), 1..12)) {
            let scores: Vec<f64> = scores.into_iter().map(finite).collect();
            for scaling in Scaling::ALL {
                let scale = scaling.of(&scores);
                for a in &scores {
                    prop_assert!(scale.apply(*a).is_finite() && scale.missing <= scale.apply(*a).max(0.0));
                    for b in &scores {
                        prop_assert!(a > b || scale.apply(*a) <= scale.apply(*b), "{scaling} {a} {b}");
                    }
                }
            }
        }

        /// A change of unit changes nothing; for all but `max`, a constant added to the scores changes nothing either.
        #[test]
        fn units_do_not_matter(scores in prop::collection::vec(-9i16..9, 2..9), factor in 1i16..9, constant in -9i16..9) {
            let scaled = |scaling: Scaling, factor: f64, constant: f64| {
                let scores: Vec<f64> = scores.iter().map(|score| f64::from(*score) * factor + constant).collect();
                let scale = scaling.of(&scores);
                scores.iter().map(|score| scale.apply(*score)).collect::<Vec<f64>>()
            };
            for scaling in Scaling::ALL {
                let constant = if scaling == Scaling::Max { 0.0 } else { f64::from(constant) };
                for (a, b) in scaled(scaling, 1.0, 0.0).iter().zip(scaled(scaling, f64::from(factor), constant)) {
                    prop_assert!((a - b).abs() < 1e-9, "{scaling} {a} {b}");
                }
            }
        }
    }
}
