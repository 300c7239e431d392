//! Rankings: hits by decreasing score, equal scores by increasing id.

use std::cmp::Ordering;
use std::collections::HashSet;

/// A document found and its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// the document's external id (`_id` of the corpus)
    pub id: String,
    /// larger is better
    pub score: f32,
}

impl Hit {
    /// Order of rankings: score descending, then id ascending.
    #[must_use]
    pub fn rank_order(&self, other: &Self) -> Ordering {
        score_order(self.score, other.score).then_with(|| self.id.cmp(&other.id))
    }
}

/// Order of scores in a ranking: descending, both zeros equal, NaN last.
///
/// Every comparison of scores uses this order. The caller orders documents of equal score.
///
/// ```
/// use std::cmp::Ordering;
/// use splade_core::score_order;
///
/// assert_eq!(score_order(2.0, 1.0), Ordering::Less);
/// assert_eq!(score_order(0.0, -0.0), Ordering::Equal);
/// assert_eq!(score_order(f32::NAN, f32::NEG_INFINITY), Ordering::Greater);
/// ```
#[must_use]
pub fn score_order(a: f32, b: f32) -> Ordering {
    match b.partial_cmp(&a) {
        Some(order) => order,
        None => a.is_nan().cmp(&b.is_nan()),
    }
}

/// Hits in [`Hit::rank_order`], every id once, no score a negative zero.
///
/// ```
/// use splade_core::{Hit, Ranking};
///
/// let hit = |id: &str, score| Hit { id: id.into(), score };
/// let ranking = Ranking::from_hits(vec![hit("b", 1.0), hit("c", 2.0), hit("a", 1.0)]);
/// let ids: Vec<&str> = ranking.hits().iter().map(|hit| hit.id.as_str()).collect();
/// assert_eq!(ids, ["c", "a", "b"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranking {
    hits: Vec<Hit>,
}

impl Ranking {
    /// Sorts `hits`, whose ids are distinct. [`from_hits`](Self::from_hits) also takes others, for the time of a look-up per
    /// hit.
    #[must_use]
    pub fn from_distinct(mut hits: Vec<Hit>) -> Self {
        // -0.0 + 0.0 is 0.0; every other score stays as it is
        hits.iter_mut().for_each(|hit| hit.score += 0.0);
        hits.sort_by(Hit::rank_order);
        debug_assert_eq!(hits.iter().map(|hit| &hit.id).collect::<HashSet<_>>().len(), hits.len(), "ids are distinct");
        Self { hits }
    }

    /// Sorts `hits` and keeps the best hit of each id.
    #[must_use]
    pub fn from_hits(mut hits: Vec<Hit>) -> Self {
        hits.iter_mut().for_each(|hit| hit.score += 0.0);
        hits.sort_by(Hit::rank_order);
        let mut seen = HashSet::with_capacity(hits.len());
        let is_first: Vec<bool> = hits.iter().map(|hit| seen.insert(hit.id.as_str())).collect();
        let mut is_first = is_first.into_iter();
        hits.retain(|_| is_first.next().unwrap_or(false));
        Self { hits }
    }

    /// The hits, best first.
    #[must_use]
    pub fn hits(&self) -> &[Hit] {
        &self.hits
    }

    /// The hits, best first, without a copy.
    #[must_use]
    pub fn into_hits(self) -> Vec<Hit> {
        self.hits
    }

    /// Keeps the best `k`.
    pub fn truncate(&mut self, k: usize) {
        self.hits.truncate(k);
    }

    /// Number of hits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hits.len()
    }

    /// True if there are no hits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_score_is_a_negative_zero() {
        let hit = |id: &str, score| Hit { id: id.into(), score };
        let ranking = Ranking::from_hits(vec![hit("b", 0.0), hit("a", -0.0), hit("c", 1.0)]);
        assert_eq!(ranking.hits().iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>(), ["c", "a", "b"]);
        assert!(ranking.hits().iter().all(|hit| hit.score.is_sign_positive()));
    }

    proptest! {
        /// The plain twin of `from_distinct` is `from_hits`.
        #[test]
        fn distinct_hits_rank_as_any_hits(scores in prop::collection::vec(-2i8..3, 0..30)) {
            let hit = |(at, score): (usize, &i8)| Hit { id: (at * 7 % 31).to_string(), score: -f32::from(*score) };
            let hits: Vec<Hit> = scores.iter().enumerate().map(hit).collect();
            prop_assert_eq!(Ranking::from_distinct(hits.clone()), Ranking::from_hits(hits));
        }

        /// `sort_by` may panic on an order that is none, so every pair of floats has to be ordered, NaN too.
        #[test]
        fn scores_have_a_total_order(a in any::<f32>(), b in any::<f32>(), c in any::<f32>()) {
            prop_assert_eq!(score_order(a, b), score_order(b, a).reverse());
            if score_order(a, b) != Ordering::Greater && score_order(b, c) != Ordering::Greater {
                prop_assert!(score_order(a, c) != Ordering::Greater);
            }
        }
    }
}
