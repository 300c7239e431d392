//! Rankings: hits in the one order of this house.

use std::cmp::Ordering;

/// A document found and its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// the document's external id (`_id` of the corpus)
    pub id: String,
    /// larger is better
    pub score: f32,
}

impl Hit {
    /// The order of rankings: score descending, then id ascending. Written here and nowhere else.
    #[must_use]
    pub fn rank_order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then_with(|| self.id.cmp(&other.id))
    }
}

/// Hits in [`Hit::rank_order`], every id once.
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
    /// Sorts `hits`; of hits with the same id the best stays.
    #[must_use]
    pub fn from_hits(mut hits: Vec<Hit>) -> Self {
        hits.sort_by(Hit::rank_order);
        let mut seen = std::collections::HashSet::with_capacity(hits.len());
        hits.retain(|hit| seen.insert(hit.id.clone()));
        Self { hits }
    }

    /// The hits, best first.
    #[must_use]
    pub fn hits(&self) -> &[Hit] {
        &self.hits
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

    /// True when nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }
}
