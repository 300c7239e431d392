//! [`Fusion`]: one ranking made of several, by reciprocal ranks or by a weighted sum of scaled scores.
//!
//! To add a fusion: a variant of `Rule`, a line in [`Fusion::NAMES`] and in [`Fusion::named`], an arm of
//! [`Fusion::fuse`], and the function it calls.

use std::collections::HashMap;

use crate::{Error, Hit, Ranking, Result};

/// Constant of reciprocal rank fusion in the paper, and the default here.
pub const RRF_K: f32 = 60.0;

/// Rule that fuses rankings of one query.
///
/// The constructors check the parameters, so that every fused score is finite.
///
/// ```
/// use splade_core::{Fusion, Hit, RRF_K, Ranking};
///
/// let ranking = |ids: [&str; 2]| Ranking::from_hits(vec![
///     Hit { id: ids[0].into(), score: 9.0 },
///     Hit { id: ids[1].into(), score: 3.0 },
/// ]);
/// let fused = Fusion::rrf(RRF_K)?.fuse(&[ranking(["a", "b"]), ranking(["b", "c"])]);
/// assert_eq!(fused.hits()[0], Hit { id: "b".into(), score: 1.0 / 62.0 + 1.0 / 61.0 });
/// assert_eq!(fused.hits()[1], Hit { id: "a".into(), score: 1.0 / 61.0 });
/// assert_eq!(fused.hits()[2], Hit { id: "c".into(), score: 1.0 / 62.0 });
/// # Ok::<(), splade_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Fusion {
    rule: Rule,
}

/// Parameters of all fusions; each fusion reads its own.
#[derive(Debug, Clone, PartialEq)]
pub struct FusionParameters {
    /// constant of reciprocal rank fusion
    pub rrf_k: f32,
    /// weight of each ranking in a weighted sum
    pub weights: Vec<f32>,
}

impl Default for FusionParameters {
    fn default() -> Self {
        Self { rrf_k: RRF_K, weights: Vec::new() }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Rrf { k: f32 },
    Weighted { weights: Vec<f32> },
}

impl Default for Fusion {
    /// Reciprocal rank fusion with [`RRF_K`].
    fn default() -> Self {
        Self { rule: Rule::Rrf { k: RRF_K } }
    }
}

impl Fusion {
    /// Names of the fusions, for [`named`](Self::named).
    pub const NAMES: [&str; 2] = ["rrf", "weighted"];

    /// The fusion called `name`.
    ///
    /// # Errors
    /// A name that is not one of [`NAMES`](Self::NAMES), parameters out of range.
    pub fn named(name: &str, parameters: &FusionParameters) -> Result<Self> {
        match name {
            "rrf" => Self::rrf(parameters.rrf_k),
            "weighted" => Self::weighted(parameters.weights.clone()),
            other => {
                let known = Self::NAMES.join(", ");
                Err(Error::invalid(format!("unknown fusion '{other}'"), format!("known are {known}")))
            }
        }
    }

    /// Reciprocal rank fusion: score(d) = Σ over the rankings that hold d of 1 / (k + rank), ranks from 1.
    ///
    /// A ranking that lacks a document adds 0 to its score. Cormack, Clarke and Büttcher, SIGIR 2009.
    ///
    /// # Errors
    /// A `k` that is negative or not finite.
    pub fn rrf(k: f32) -> Result<Self> {
        if !k.is_finite() || k < 0.0 {
            let message = format!("the constant of reciprocal rank fusion is {k}, not a number of at least 0");
            return Err(Error::invalid(message, ""));
        }
        Ok(Self { rule: Rule::Rrf { k } })
    }

    /// Weighted sum of min-max scaled scores: score(d) = Σ over the rankings of weight · (s(d) − min) / (max − min).
    ///
    /// `min` and `max` are those of the ranking as given, so scaled scores depend on its depth. If all scores of a
    /// ranking are equal, they scale to 1. A document that a ranking lacks gets 0 from it, and so does the last hit of
    /// that ranking. A ranking without a weight has weight 1; extra weights are ignored.
    ///
    /// ```
    /// use splade_core::{Fusion, Hit, Ranking};
    ///
    /// let hit = |id: &str, score| Hit { id: id.into(), score };
    /// let sparse = Ranking::from_hits(vec![hit("a", 12.0), hit("b", 8.0), hit("c", 4.0)]);
    /// let bm25 = Ranking::from_hits(vec![hit("b", 3.0), hit("d", 1.0)]);
    /// let fused = Fusion::weighted(vec![1.0, 0.5])?.fuse(&[sparse, bm25]);
    /// let fused: Vec<(&str, f32)> = fused.hits().iter().map(|hit| (hit.id.as_str(), hit.score)).collect();
    /// assert_eq!(fused, [("a", 1.0), ("b", 1.0), ("c", 0.0), ("d", 0.0)]);
    /// # Ok::<(), splade_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// A weight that is not finite.
    pub fn weighted(weights: Vec<f32>) -> Result<Self> {
        if let Some(weight) = weights.iter().find(|weight| !weight.is_finite()) {
            return Err(Error::invalid(format!("the weight of a ranking is {weight}, not a finite number"), ""));
        }
        Ok(Self { rule: Rule::Weighted { weights } })
    }

    /// Fuses `rankings` of one query.
    #[must_use]
    pub fn fuse(&self, rankings: &[Ranking]) -> Ranking {
        match &self.rule {
            Rule::Rrf { k } => reciprocal_ranks(rankings, *k),
            Rule::Weighted { weights } => weighted_sum(rankings, weights),
        }
    }
}

fn reciprocal_ranks(rankings: &[Ranking], k: f32) -> Ranking {
    add_up(rankings.iter().map(|ranking| {
        let hits = ranking.hits().iter().zip(1_u32..);
        hits.map(|(hit, rank)| (hit.id.as_str(), 1.0 / (f64::from(k) + f64::from(rank)))).collect()
    }))
}

fn weighted_sum(rankings: &[Ranking], weights: &[f32]) -> Ranking {
    let weights = weights.iter().copied().chain(std::iter::repeat(1.0));
    add_up(rankings.iter().zip(weights).map(|(ranking, weight)| {
        let score = |hit: Option<&Hit>| hit.map_or(0.0, |hit| finite(hit.score));
        let (max, min) = (score(ranking.hits().first()), score(ranking.hits().last()));
        let scaled = |hit: &Hit| if max > min { (finite(hit.score) - min) / (max - min) } else { 1.0 };
        ranking.hits().iter().map(|hit| (hit.id.as_str(), f64::from(weight) * scaled(hit))).collect()
    }))
}

/// The score as f64. Infinities become the largest or smallest f32 and NaN the smallest, which is where
/// [`score_order`](crate::score_order) ranks them.
fn finite(score: f32) -> f64 {
    if score.is_nan() { f64::from(f32::MIN) } else { f64::from(score.clamp(f32::MIN, f32::MAX)) }
}

/// Sums the parts of every document in f64.
fn add_up<'a>(parts: impl Iterator<Item = Vec<(&'a str, f64)>>) -> Ranking {
    let mut sums: HashMap<&str, f64> = HashMap::new();
    for (id, part) in parts.flatten() {
        *sums.entry(id).or_default() += part;
    }
    let score = |sum: f64| sum.clamp(f32::MIN.into(), f32::MAX.into()) as f32;
    Ranking::from_hits(sums.into_iter().map(|(id, sum)| Hit { id: id.into(), score: score(sum) }).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranking(hits: &[(&str, f32)]) -> Ranking {
        Ranking::from_hits(hits.iter().map(|&(id, score)| Hit { id: id.into(), score }).collect())
    }

    #[test]
    fn no_rankings_and_empty_rankings_make_an_empty_one() {
        for fusion in [Fusion::default(), Fusion::weighted(vec![]).unwrap()] {
            assert!(fusion.fuse(&[]).is_empty());
            assert!(fusion.fuse(&[Ranking::default(), Ranking::default()]).is_empty());
        }
    }

    #[test]
    fn equal_scores_scale_to_one() {
        let fused = weighted_sum(&[ranking(&[("b", 2.0), ("a", 2.0)]), ranking(&[("a", -7.0)])], &[0.25]);
        assert_eq!(fused, ranking(&[("a", 1.25), ("b", 0.25)]));
    }

    #[test]
    fn the_order_of_two_rankings_does_not_matter_to_rrf() {
        let (a, b) = (ranking(&[("x", 3.0), ("y", 2.0), ("z", 1.0)]), ranking(&[("z", 9.0), ("y", 8.0)]));
        let fusion = Fusion::default();
        assert_eq!(fusion.fuse(&[a.clone(), b.clone()]), fusion.fuse(&[b, a]));
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        for k in [-1.0, f32::NAN, f32::INFINITY] {
            assert!(Fusion::rrf(k).unwrap_err().to_string().contains(&format!("is {k}, not a number")));
        }
        assert!(Fusion::weighted(vec![1.0, f32::NAN]).unwrap_err().to_string().contains("is NaN, not a finite"));
        let defaults = FusionParameters::default();
        for name in Fusion::NAMES {
            assert!(Fusion::named(name, &defaults).is_ok(), "{name}");
        }
        let error = Fusion::named("sum", &defaults).unwrap_err();
        assert_eq!(error.hint(), Some("known are rrf, weighted"));
    }

    proptest! {
        /// Scores of any kind go in; numbers come out, none of them a negative zero, in the one order.
        #[test]
        fn fused_scores_are_finite(
            rankings in prop::collection::vec(prop::collection::vec((0u8..9, any::<f32>()), 0..8), 0..4),
            weights in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 0..4),
            k in 0f32..100.0,
        ) {
            let hits = |hits: &Vec<(u8, f32)>| {
                hits.iter().map(|(id, score)| Hit { id: id.to_string(), score: *score }).collect()
            };
            let rankings: Vec<Ranking> = rankings.iter().map(|ranking| Ranking::from_hits(hits(ranking))).collect();
            for fusion in [Fusion::rrf(k).unwrap(), Fusion::weighted(weights).unwrap()] {
                let fused = fusion.fuse(&rankings);
                prop_assert!(fused.hits().is_sorted_by(|a, b| a.rank_order(b).is_lt()));
                for hit in fused.hits() {
                    prop_assert!(hit.score.is_finite() && (hit.score != 0.0 || hit.score.is_sign_positive()));
                }
            }
        }
    }
}
