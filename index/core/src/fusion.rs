//! [`Fusion`]: one ranking made of several, by reciprocal ranks or by a weighted sum of scaled scores.
//!
//! To add a fusion: a variant of `Rule`, a line in [`Fusion::NAMES`] and in [`Fusion::named`], and an arm of
//! [`Fusion::scores`]. To add a scaling: a variant of [`Scaling`].

mod candidates;
mod scaling;

pub use candidates::Candidates;
pub use scaling::Scaling;

use crate::{Error, Hit, Ranking, Result, score_order};

/// Constant of reciprocal rank fusion in the paper, and the default here.
pub const RRF_K: f32 = 60.0;

/// Rule that fuses rankings of one query.
///
/// The constructors check the parameters, so that every fused score is finite. Documents of equal fused score rank by their
/// ids, so the result does not depend on the order in which the hits come.
///
/// ```
/// use splade_core::{Fusion, Hit, RRF_K, Ranking};
///
/// let ranking = |ids: [&str; 2]| Ranking::from_hits(vec![
///     Hit { id: ids[0].into(), score: 9.0 },
///     Hit { id: ids[1].into(), score: 3.0 },
/// ]);
/// let fused = Fusion::rrf(RRF_K, vec![])?.fuse(&[ranking(["a", "b"]), ranking(["b", "c"])]);
/// assert_eq!(fused.hits()[0], Hit { id: "b".into(), score: 1.0 / 62.0 + 1.0 / 61.0 });
/// assert_eq!(fused.hits()[1], Hit { id: "a".into(), score: 1.0 / 61.0 });
/// assert_eq!(fused.hits()[2], Hit { id: "c".into(), score: 1.0 / 62.0 });
/// # Ok::<(), splade_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Fusion {
    rule: Rule,
    weights: Vec<f32>,
}

/// Parameters of all fusions; each fusion reads its own.
#[derive(Debug, Clone, PartialEq)]
pub struct FusionParameters {
    /// constant of reciprocal rank fusion
    pub rrf_k: f32,
    /// scaling of a weighted sum
    pub scaling: Scaling,
    /// weight of each ranking
    pub weights: Vec<f32>,
}

impl Default for FusionParameters {
    fn default() -> Self {
        Self { rrf_k: RRF_K, scaling: Scaling::default(), weights: Vec::new() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    Rrf { k: f32 },
    Weighted(Scaling),
}

impl Default for Fusion {
    /// Reciprocal rank fusion with [`RRF_K`] and equal weights.
    fn default() -> Self {
        Self { rule: Rule::Rrf { k: RRF_K }, weights: Vec::new() }
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
        let weights = parameters.weights.clone();
        match name {
            "rrf" => Self::rrf(parameters.rrf_k, weights),
            "weighted" => Self::weighted(parameters.scaling, weights),
            other => {
                let known = Self::NAMES.join(", ");
                Err(Error::invalid(format!("unknown fusion '{other}'"), format!("known are {known}")))
            }
        }
    }

    /// Reciprocal rank fusion: score(d) = Σ over the rankings that hold d of weight / (k + rank), ranks from 1.
    ///
    /// A ranking that lacks a document adds 0 to its score. A ranking without a weight has weight 1; extra weights are
    /// ignored. Cormack, Clarke and Büttcher, SIGIR 2009, where all weights are 1.
    ///
    /// # Errors
    /// A `k` that is negative or not finite, a weight that is not finite.
    pub fn rrf(k: f32, weights: Vec<f32>) -> Result<Self> {
        if !k.is_finite() || k < 0.0 {
            let message = format!("the constant of reciprocal rank fusion is {k}, not a number of at least 0");
            return Err(Error::invalid(message, ""));
        }
        Self { rule: Rule::Rrf { k }, weights }.checked()
    }

    /// Weighted sum of scaled scores: score(d) = Σ over the rankings of weight · scaled(s(d)).
    ///
    /// With weights that add up to 1 it is the convex combination of Bruch, Gai and Ingber, "An Analysis of Fusion Functions
    /// for Hybrid Retrieval", TOIS 2023. The scale is that of the ranking's own hits, so it depends on the depth. For a
    /// document whose score in a ranking is not known, the ranking adds 0, or the scaled score of its last hit if that is
    /// lower. A ranking without a weight has weight 1; extra weights are ignored.
    ///
    /// ```
    /// use splade_core::{Fusion, Hit, Ranking, Scaling};
    ///
    /// let hit = |id: &str, score| Hit { id: id.into(), score };
    /// let sparse = Ranking::from_hits(vec![hit("a", 12.0), hit("b", 8.0), hit("c", 4.0)]);
    /// let bm25 = Ranking::from_hits(vec![hit("b", 3.0), hit("d", 1.0)]);
    /// let fused = Fusion::weighted(Scaling::MinMax, vec![1.0, 0.5])?.fuse(&[sparse, bm25]);
    /// let fused: Vec<(&str, f32)> = fused.hits().iter().map(|hit| (hit.id.as_str(), hit.score)).collect();
    /// assert_eq!(fused, [("a", 1.0), ("b", 1.0), ("c", 0.0), ("d", 0.0)]);
    /// # Ok::<(), splade_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// A weight that is not finite.
    pub fn weighted(scaling: Scaling, weights: Vec<f32>) -> Result<Self> {
        Self { rule: Rule::Weighted(scaling), weights }.checked()
    }

    /// Sum of z-scores with equal weights, for a number of rankings whose scores have different ranges.
    #[must_use]
    pub fn sum_of_z_scores(rankings: usize) -> Self {
        Self { rule: Rule::Weighted(Scaling::ZScore), weights: vec![1.0 / rankings.max(1) as f32; rankings] }
    }

    fn checked(self) -> Result<Self> {
        match self.weights.iter().find(|weight| !weight.is_finite()) {
            Some(weight) => {
                Err(Error::invalid(format!("the weight of a ranking is {weight}, not a finite number"), ""))
            }
            None => Ok(self),
        }
    }

    /// Name, one of [`NAMES`](Self::NAMES).
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.rule {
            Rule::Rrf { .. } => "rrf",
            Rule::Weighted(_) => "weighted",
        }
    }

    /// Parameters, from which [`named`](Self::named) makes this fusion again. Those that it does not read are the defaults.
    #[must_use]
    pub fn parameters(&self) -> FusionParameters {
        let parameters = FusionParameters { weights: self.weights.clone(), ..FusionParameters::default() };
        match self.rule {
            Rule::Rrf { k } => FusionParameters { rrf_k: k, ..parameters },
            Rule::Weighted(scaling) => FusionParameters { scaling, ..parameters },
        }
    }

    /// True if fused scores depend on the scores of documents that a ranking lacks, so that they are worth completing.
    #[must_use]
    pub fn reads_scores(&self) -> bool {
        matches!(self.rule, Rule::Weighted(_))
    }

    /// Fuses `rankings` of one query.
    #[must_use]
    pub fn fuse(&self, rankings: &[Ranking]) -> Ranking {
        self.fuse_candidates(&Candidates::of(rankings))
    }

    /// Fuses the rankings of `candidates`, with the scores that were completed.
    #[must_use]
    pub fn fuse_candidates(&self, candidates: &Candidates) -> Ranking {
        let hits = candidates.ids().iter().zip(self.scores(candidates));
        Ranking::from_hits(hits.map(|(id, score)| Hit { id: id.clone(), score }).collect())
    }

    /// Best `k` of [`fuse_candidates`](Self::fuse_candidates), without sorting the others.
    #[must_use]
    pub fn best(&self, candidates: &Candidates, k: usize) -> Ranking {
        let ids = candidates.ids();
        let best = self.best_positions(candidates, k).into_iter();
        Ranking::from_distinct(best.map(|(at, score)| Hit { id: ids[at].clone(), score }).collect())
    }

    /// Positions and fused scores of the [`best`](Self::best) candidates, in the order of a [`Ranking`].
    #[must_use]
    pub fn best_positions(&self, candidates: &Candidates, k: usize) -> Vec<(usize, f32)> {
        let ids = candidates.ids();
        // -0.0 + 0.0 is 0.0, as in a ranking
        let scored = self.scores(candidates).into_iter().map(|score| score + 0.0);
        let mut order: Vec<(usize, f32)> = scored.enumerate().collect();
        let rank_order =
            |a: &(usize, f32), b: &(usize, f32)| score_order(a.1, b.1).then_with(|| ids[a.0].cmp(&ids[b.0]));
        if k > 0 && k < order.len() {
            order.select_nth_unstable_by(k - 1, rank_order);
        }
        order.truncate(k);
        order.sort_unstable_by(rank_order);
        order
    }

    /// Fused score of each candidate, in their order.
    #[must_use]
    pub fn scores(&self, candidates: &Candidates) -> Vec<f32> {
        let mut sums = vec![0.0_f64; candidates.len()];
        match self.rule {
            Rule::Rrf { k } => self.add_up(&mut sums, candidates.reciprocal_ranks(k.into())),
            Rule::Weighted(scaling) => self.add_up(&mut sums, candidates.scaled(scaling)),
        }
        sums.into_iter().map(|sum| sum.clamp(f32::MIN.into(), f32::MAX.into()) as f32).collect()
    }

    /// Adds the weighted parts of each ranking.
    fn add_up(&self, sums: &mut [f64], lists: impl Iterator<Item = impl Iterator<Item = f64>>) {
        let weights = self.weights.iter().copied().chain(std::iter::repeat(1.0));
        for (parts, weight) in lists.zip(weights) {
            sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += f64::from(weight) * part);
        }
    }
}

#[cfg(test)]
mod tests;
