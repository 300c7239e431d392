//! [`Candidates`]: documents of several rankings of one query, with their scores and ranks in each.

use std::collections::HashMap;

use super::scaling::{Scale, Scaling, finite};
use crate::Ranking;

/// Documents of several rankings of one query, each with its score and rank in every ranking.
///
/// A ranking ends at some depth, so a document of one may be missing in another.
/// [`complete`](Self::complete) fills in its score there. A completed document has no rank.
///
/// ```
/// use splade_core::{Candidates, Fusion, Hit, Ranking, Scaling};
///
/// let hit = |id: &str, score| Hit { id: id.into(), score };
/// let sparse = Ranking::from_hits(vec![hit("a", 12.0), hit("b", 8.0)]);
/// let bm25 = Ranking::from_hits(vec![hit("c", 4.0), hit("b", 2.0)]);
/// let mut candidates = Candidates::of(&[sparse, bm25]);
/// assert_eq!(candidates.ids(), ["a", "b", "c"]);
/// assert_eq!(candidates.missing(1).collect::<Vec<_>>(), [0]);
/// candidates.complete(1, 0, 1.0); // `a` has a score of 1.0 in BM25
/// let fused = Fusion::weighted(Scaling::Max, vec![0.5, 0.5])?.fuse_candidates(&candidates);
/// assert_eq!(fused.hits()[0], hit("a", 0.5 + 0.125));
/// # Ok::<(), splade_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    ids: Vec<String>,
    lists: Vec<List>,
}

/// One ranking, by the positions of the candidates.
#[derive(Debug, Clone, PartialEq)]
struct List {
    /// number of hits of the ranking, which are ranks 1 to `len`
    len: usize,
    /// score of each candidate; none if it is not known
    scores: Vec<Option<f64>>,
    /// rank of each candidate, from 1; none if the ranking lacks it
    ranks: Vec<Option<u32>>,
}

impl Candidates {
    /// Candidates of rankings: the documents of the first in its order, then the further ones of the second, and so on.
    #[must_use]
    pub fn of(rankings: &[Ranking]) -> Self {
        let mut ids: Vec<String> = Vec::new();
        let mut positions: HashMap<&str, usize> = HashMap::new();
        let mut position = |id| {
            *positions.entry(id).or_insert_with(|| {
                ids.push(id.to_owned());
                ids.len() - 1
            })
        };
        let lists = rankings
            .iter()
            .map(|ranking| ranking.hits().iter().map(|hit| (position(hit.id.as_str()), hit.score)).collect::<Vec<_>>());
        let lists: Vec<_> = lists.collect();
        Self::of_positions(ids, &lists)
    }

    /// Candidates with these ids, which are distinct. `lists` are the rankings: positions in `ids` and scores, best first. A
    /// position beyond the ids is left out.
    #[must_use]
    pub fn of_positions(ids: Vec<String>, lists: &[Vec<(usize, f32)>]) -> Self {
        let list = |ranking: &Vec<(usize, f32)>| {
            let mut list = List { len: ranking.len(), scores: vec![None; ids.len()], ranks: vec![None; ids.len()] };
            for (&(at, score), rank) in ranking.iter().zip(1_u32..) {
                if let (Some(own_score), Some(own_rank)) = (list.scores.get_mut(at), list.ranks.get_mut(at)) {
                    (*own_score, *own_rank) = (Some(finite(score)), Some(rank));
                }
            }
            list
        };
        let lists = lists.iter().map(list).collect();
        Self { ids, lists }
    }

    /// Ids of the candidates. Their positions are those of the other methods.
    #[must_use]
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Number of candidates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if there are no candidates.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Positions of the candidates whose score in a ranking is not known; none if there is no such ranking.
    pub fn missing(&self, list: usize) -> impl Iterator<Item = usize> + '_ {
        let scores = self.lists.get(list).map_or(&[][..], |list| &list.scores);
        scores.iter().enumerate().filter(|(_, score)| score.is_none()).map(|(at, _)| at)
    }

    /// Sets the score of a candidate that a ranking lacks. A position that is not one of
    /// [`missing`](Self::missing) changes nothing.
    pub fn complete(&mut self, list: usize, position: usize, score: f32) {
        if let Some(entry @ None) = self.lists.get_mut(list).and_then(|list| list.scores.get_mut(position)) {
            *entry = Some(finite(score));
        }
    }

    /// Candidates of the best `depth` hits of each ranking, with all scores that are known here.
    #[must_use]
    pub fn truncated(&self, depth: usize) -> Self {
        let is_kept =
            |at: &usize| self.lists.iter().any(|list| list.ranks[*at].is_some_and(|rank| rank as usize <= depth));
        let kept: Vec<usize> = (0..self.len()).filter(is_kept).collect();
        let list = |list: &List| List {
            len: list.len.min(depth),
            scores: kept.iter().map(|&at| list.scores[at]).collect(),
            ranks: kept.iter().map(|&at| list.ranks[at].filter(|rank| *rank as usize <= depth)).collect(),
        };
        Self {
            ids: kept.iter().map(|&at| self.ids[at].clone()).collect(),
            lists: self.lists.iter().map(list).collect(),
        }
    }

    /// Part of each candidate by reciprocal ranks, for each ranking.
    pub(super) fn reciprocal_ranks(&self, k: f64) -> impl Iterator<Item = impl Iterator<Item = f64> + '_> + '_ {
        let part = move |rank: &Option<u32>| rank.map_or(0.0, |rank| 1.0 / (k + f64::from(rank)));
        self.lists.iter().map(move |list| list.ranks.iter().map(part))
    }

    /// Scaled score of each candidate, for each ranking. The scale is that of the ranking's own hits.
    pub(super) fn scaled(&self, scaling: Scaling) -> impl Iterator<Item = impl Iterator<Item = f64> + '_> + '_ {
        self.lists.iter().map(move |list| {
            let scale = list.scale(scaling);
            list.scores.iter().map(move |score| score.map_or(scale.missing, |score| scale.apply(score)))
        })
    }
}

impl List {
    fn scale(&self, scaling: Scaling) -> Scale {
        // in the order of ranks, so that the sums do not depend on the other rankings
        let mut own: Vec<f64> = vec![0.0; self.len];
        for (score, rank) in self.scores.iter().zip(&self.ranks) {
            if let (Some(score), Some(rank)) = (score, rank) {
                own[*rank as usize - 1] = *score;
            }
        }
        scaling.of(&own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hit;

    fn ranking(hits: &[(&str, f32)]) -> Ranking {
        Ranking::from_hits(hits.iter().map(|&(id, score)| Hit { id: id.into(), score }).collect())
    }

    #[test]
    fn only_a_missing_score_is_completed() {
        let mut candidates = Candidates::of(&[ranking(&[("a", 5.0)]), ranking(&[("b", 4.0)])]);
        let before = candidates.clone();
        candidates.complete(0, 0, 1.0);
        candidates.complete(2, 0, 1.0);
        candidates.complete(0, 9, 1.0);
        assert_eq!(candidates, before);
        candidates.complete(0, 1, 1.0);
        assert_eq!(
            (candidates.missing(0).count(), candidates.missing(1).count(), candidates.missing(2).count()),
            (0, 1, 0)
        );
    }
}
