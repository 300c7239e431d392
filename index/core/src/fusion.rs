//! Fusion of rankings: reciprocal ranks, or a weighted sum of scaled scores.

use std::collections::HashMap;

use crate::{Hit, Ranking};

/// The constant of reciprocal rank fusion that the paper found robust.
pub const RRF_K: f32 = 60.0;

/// How rankings of the same query become one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fusion {
    /// [`rrf`] with this k
    Rrf {
        /// 60 in the paper
        k: f32,
    },
    /// [`weighted_sum`] with one weight a ranking
    Weighted {
        /// in the order of the rankings; a ranking without one counts 1
        weights: Vec<f32>,
    },
}

impl Default for Fusion {
    fn default() -> Self {
        Self::Rrf { k: RRF_K }
    }
}

impl Fusion {
    /// Fuses `rankings`.
    #[must_use]
    pub fn fuse(&self, rankings: &[Ranking]) -> Ranking {
        match self {
            Self::Rrf { k } => rrf(rankings, *k),
            Self::Weighted { weights } => weighted_sum(rankings, weights),
        }
    }
}

/// Reciprocal rank fusion: score(d) = Σ over the rankings that hold d of 1 / (k + rank), ranks from 1.
///
/// A ranking that lacks a document adds nothing to it. Cormack, Clarke and Büttcher, SIGIR 2009.
///
/// ```
/// use splade_core::{Hit, RRF_K, Ranking, rrf};
///
/// let ranking = |ids: [&str; 2]| Ranking::from_hits(vec![
///     Hit { id: ids[0].into(), score: 9.0 },
///     Hit { id: ids[1].into(), score: 3.0 },
/// ]);
/// let fused = rrf(&[ranking(["a", "b"]), ranking(["b", "c"])], RRF_K);
/// assert_eq!(fused.hits()[0], Hit { id: "b".into(), score: 1.0 / 62.0 + 1.0 / 61.0 });
/// assert_eq!(fused.hits()[1], Hit { id: "a".into(), score: 1.0 / 61.0 });
/// assert_eq!(fused.hits()[2], Hit { id: "c".into(), score: 1.0 / 62.0 });
/// ```
#[must_use]
pub fn rrf(rankings: &[Ranking], k: f32) -> Ranking {
    add_up(rankings.iter().map(|ranking| {
        let hits = ranking.hits().iter().zip(1_u32..);
        hits.map(|(hit, rank)| (hit.id.as_str(), 1.0 / (f64::from(k) + f64::from(rank)))).collect()
    }))
}

/// Weighted sum of min-max scaled scores: score(d) = Σ over the rankings of weight · (s(d) − min) / (max − min).
///
/// `min` and `max` are those of the ranking as given, so its depth matters. A ranking whose scores are all equal
/// scales them to 1. A document that a ranking lacks gets 0 from it, what the last of that ranking gets. A ranking
/// without a weight counts 1; further weights are ignored.
///
/// ```
/// use splade_core::{Hit, Ranking, weighted_sum};
///
/// let hit = |id: &str, score| Hit { id: id.into(), score };
/// let sparse = Ranking::from_hits(vec![hit("a", 12.0), hit("b", 8.0), hit("c", 4.0)]);
/// let bm25 = Ranking::from_hits(vec![hit("b", 3.0), hit("d", 1.0)]);
/// let fused = weighted_sum(&[sparse, bm25], &[1.0, 0.5]);
/// let fused: Vec<(&str, f32)> = fused.hits().iter().map(|hit| (hit.id.as_str(), hit.score)).collect();
/// assert_eq!(fused, [("a", 1.0), ("b", 1.0), ("c", 0.0), ("d", 0.0)]);
/// ```
#[must_use]
pub fn weighted_sum(rankings: &[Ranking], weights: &[f32]) -> Ranking {
    let weights = weights.iter().copied().chain(std::iter::repeat(1.0));
    add_up(rankings.iter().zip(weights).map(|(ranking, weight)| {
        let score = |hit: Option<&Hit>| hit.map_or(0.0, |hit| f64::from(hit.score));
        let (max, min) = (score(ranking.hits().first()), score(ranking.hits().last()));
        let scaled = |hit: &Hit| if max > min { (f64::from(hit.score) - min) / (max - min) } else { 1.0 };
        ranking.hits().iter().map(|hit| (hit.id.as_str(), f64::from(weight) * scaled(hit))).collect()
    }))
}

/// Adds up the parts of every document, in f64 so that the order of the rankings does not show.
fn add_up<'a>(parts: impl Iterator<Item = Vec<(&'a str, f64)>>) -> Ranking {
    let mut sums: HashMap<&str, f64> = HashMap::new();
    for (id, part) in parts.flatten() {
        *sums.entry(id).or_default() += part;
    }
    Ranking::from_hits(sums.into_iter().map(|(id, score)| Hit { id: id.into(), score: score as f32 }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(hits: &[(&str, f32)]) -> Ranking {
        Ranking::from_hits(hits.iter().map(|&(id, score)| Hit { id: id.into(), score }).collect())
    }

    #[test]
    fn no_rankings_and_empty_rankings_make_an_empty_one() {
        for fusion in [Fusion::default(), Fusion::Weighted { weights: vec![] }] {
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
    fn the_order_of_rankings_does_not_matter_to_rrf() {
        let (a, b) = (ranking(&[("x", 3.0), ("y", 2.0), ("z", 1.0)]), ranking(&[("z", 9.0), ("y", 8.0)]));
        assert_eq!(rrf(&[a.clone(), b.clone()], RRF_K), rrf(&[b, a], RRF_K));
    }
}
