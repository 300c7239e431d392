//! Metrics of one ranking: nDCG@k, MAP@k, recall@k, precision@k, MRR@k, hit rate@k.
//!
//! These functions rank equal scores by id ascending. The references treat ties, divisors and means in other ways: see
//! `trec.rs` and `retrieval.rs`, which use the same [`Graded`] lists.

use splade_core::Ranking;

use crate::qrels::Judgements;

/// nDCG at `k`: gain = grade, discount 1 / log2(rank + 1), ideal over all judged documents; 0 without a relevant one.
///
/// ```
/// use splade_eval::{Judgements, ndcg_at};
/// use splade_core::{Hit, Ranking};
///
/// let hit = |id: &str, score| Hit { id: id.into(), score };
/// let ranking = Ranking::from_hits(vec![hit("d1", 3.0), hit("d2", 2.0), hit("d3", 1.0)]);
/// let judged = Judgements::from([("d2".into(), 1)]);
/// assert_eq!(ndcg_at(10, &ranking, &judged), 1.0 / 3f64.log2());
/// ```
#[must_use]
pub fn ndcg_at(k: usize, ranking: &Ranking, judged: &Judgements) -> f64 {
    Graded::of_ranking(ranking, judged).ndcg(k)
}

/// Average precision at `k`: precision at each relevant rank ≤ k, summed, over the number of all relevant documents.
#[must_use]
pub fn map_at(k: usize, ranking: &Ranking, judged: &Judgements) -> f64 {
    let graded = Graded::of_ranking(ranking, judged);
    graded.average_precision(k, graded.relevant_count())
}

/// Share of the relevant documents among the best `k`; 0 without a relevant one.
///
/// ```
/// use splade_eval::{Judgements, recall_at};
/// use splade_core::{Hit, Ranking};
///
/// let ranking = Ranking::from_hits(vec![Hit { id: "d1".into(), score: 3.0 }]);
/// let judged = Judgements::from([("d1".into(), 1), ("d2".into(), 2), ("d3".into(), 0)]);
/// assert_eq!(recall_at(10, &ranking, &judged), 0.5);
/// ```
#[must_use]
pub fn recall_at(k: usize, ranking: &Ranking, judged: &Judgements) -> f64 {
    Graded::of_ranking(ranking, judged).recall(k)
}

/// Number of relevant documents among the best `k`, divided by `k` also if fewer documents are found.
#[must_use]
pub fn precision_at(k: usize, ranking: &Ranking, judged: &Judgements) -> f64 {
    Graded::of_ranking(ranking, judged).precision(k)
}

/// 1 / rank of the first relevant document; 0 if none is among the best `k`.
#[must_use]
pub fn mrr_at(k: usize, ranking: &Ranking, judged: &Judgements) -> f64 {
    Graded::of_ranking(ranking, judged).reciprocal_rank(k)
}

/// 1 if a relevant document is among the best `k`, otherwise 0.
#[must_use]
pub fn hit_rate_at(k: usize, ranking: &Ranking, judged: &Judgements) -> f64 {
    Graded::of_ranking(ranking, judged).hit(k)
}

/// Relevant hits of a ranking, and the grades of the ideal ranking.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Graded {
    /// rank, from 1, and grade of each relevant hit, by increasing rank
    found: Vec<(u32, u32)>,
    /// grades of all relevant documents, largest first
    ideal: Vec<u32>,
}

impl Graded {
    pub(crate) fn new<'a>(ranked_ids: impl IntoIterator<Item = &'a str>, judged: &Judgements) -> Self {
        let gain = |grade: i32| u32::try_from(grade).unwrap_or(0);
        let grade = |id: &str| judged.get(id).map_or(0, |grade| gain(*grade));
        let found = (1..).zip(ranked_ids).map(|(rank, id)| (rank, grade(id))).filter(|(_, grade)| *grade > 0).collect();
        let mut ideal: Vec<u32> = judged.values().map(|grade| gain(*grade)).filter(|gain| *gain > 0).collect();
        ideal.sort_unstable_by(|a, b| b.cmp(a));
        Self { found, ideal }
    }

    fn of_ranking(ranking: &Ranking, judged: &Judgements) -> Self {
        Self::new(ranking.hits().iter().map(|hit| hit.id.as_str()), judged)
    }

    /// A copy with 1 for every relevant grade.
    pub(crate) fn binary(mut self) -> Self {
        let grades = self.found.iter_mut().map(|(_, grade)| grade);
        grades.chain(&mut self.ideal).for_each(|grade| *grade = 1);
        self
    }

    /// Number of relevant documents, found or not.
    pub(crate) fn relevant_count(&self) -> usize {
        self.ideal.len()
    }

    /// Rank, from 1, of the first relevant hit.
    pub(crate) fn first_rank(&self) -> Option<u32> {
        self.found.first().map(|(rank, _)| *rank)
    }

    /// Relevant hits among the best `k`.
    fn within(&self, k: usize) -> &[(u32, u32)] {
        &self.found[..self.found.partition_point(|(rank, _)| *rank as usize <= k)]
    }

    pub(crate) fn ndcg(&self, k: usize) -> f64 {
        let ideal = dcg((1..).zip(self.ideal.iter().copied().take(k)));
        if ideal == 0.0 { 0.0 } else { dcg(self.within(k).iter().copied()) / ideal }
    }

    /// The divisor differs between the references.
    pub(crate) fn average_precision(&self, k: usize, divisor: usize) -> f64 {
        let precisions = (1u32..).zip(self.within(k)).map(|(hits, (rank, _))| f64::from(hits) / f64::from(*rank));
        if divisor == 0 { 0.0 } else { sum(precisions) / divisor as f64 }
    }

    pub(crate) fn recall(&self, k: usize) -> f64 {
        if self.ideal.is_empty() { 0.0 } else { self.within(k).len() as f64 / self.ideal.len() as f64 }
    }

    pub(crate) fn precision(&self, k: usize) -> f64 {
        if k == 0 { 0.0 } else { self.within(k).len() as f64 / k as f64 }
    }

    pub(crate) fn reciprocal_rank(&self, k: usize) -> f64 {
        self.within(k).first().map_or(0.0, |(rank, _)| 1.0 / f64::from(*rank))
    }

    pub(crate) fn hit(&self, k: usize) -> f64 {
        if self.within(k).is_empty() { 0.0 } else { 1.0 }
    }
}

/// Discounted cumulative gain of ranks, from 1, and their gains.
fn dcg(gains: impl Iterator<Item = (u32, u32)>) -> f64 {
    sum(gains.map(|(rank, gain)| f64::from(gain) / (f64::from(rank) + 1.0).log2()))
}

/// Sum from the first to the last value; 0 without values, where [`Iterator::sum`] gives −0.
pub(crate) fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |sum, value| sum + value)
}

/// Mean of a metric over queries; NaN without queries.
pub(crate) fn mean(values: &[f64]) -> f64 {
    sum(values.iter().copied()) / values.len() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use splade_core::Hit;

    fn ranking(scored: &[(&str, f32)]) -> Ranking {
        Ranking::from_hits(scored.iter().map(|&(id, score)| Hit { id: id.into(), score }).collect())
    }

    #[test]
    fn by_hand() {
        let ranking = ranking(&[("a", 5.0), ("b", 4.0), ("c", 3.0), ("d", 2.0)]);
        let judged = Judgements::from([("b".into(), 1), ("d".into(), 2), ("x".into(), 1), ("a".into(), -3)]);
        let dcg = 1.0 / 3f64.log2() + 2.0 / 5f64.log2();
        let ideal = 2.0 + 1.0 / 3f64.log2() + 1.0 / 4f64.log2();
        assert_eq!(ndcg_at(10, &ranking, &judged), dcg / ideal);
        assert_eq!(ndcg_at(1, &ranking, &judged), 0.0);
        assert_eq!(map_at(10, &ranking, &judged), (0.5 + 0.5) / 3.0);
        assert_eq!(recall_at(3, &ranking, &judged), 1.0 / 3.0);
        assert_eq!(precision_at(10, &ranking, &judged), 0.2);
        assert_eq!((mrr_at(1, &ranking, &judged), mrr_at(2, &ranking, &judged)), (0.0, 0.5));
        assert_eq!((hit_rate_at(1, &ranking, &judged), hit_rate_at(2, &ranking, &judged)), (0.0, 1.0));
    }

    #[test]
    fn nothing_relevant_nothing_found_and_k_of_0_score_0() {
        let some = ranking(&[("a", 1.0)]);
        let relevant = Judgements::from([("a".into(), 1)]);
        let irrelevant = Judgements::from([("a".into(), 0)]);
        for metric in [ndcg_at, map_at, recall_at, precision_at, mrr_at, hit_rate_at] {
            // compared by their bits: a negative zero is no score
            for (k, ranking, judged) in [
                (10, &some, &irrelevant),
                (10, &some, &Judgements::new()),
                (10, &Ranking::default(), &relevant),
                (0, &some, &relevant),
            ] {
                assert_eq!(metric(k, ranking, judged).to_bits(), 0f64.to_bits());
            }
            assert_eq!(metric(1, &some, &relevant), 1.0);
        }
    }

    proptest! {
        #[test]
        fn metrics_lie_between_0_and_1_and_do_not_depend_on_the_order_of_hits(
            hits in prop::collection::vec((0u8..30, -2i8..3), 0..40).prop_shuffle(),
            judged in prop::collection::btree_map(0u8..40, -1i32..4, 0..20),
            k in 1usize..50,
        ) {
            let judged: Judgements = judged.into_iter().map(|(id, grade)| (id.to_string(), grade)).collect();
            let hits: Vec<Hit> =
                hits.into_iter().map(|(id, score)| Hit { id: id.to_string(), score: score.into() }).collect();
            let mut reversed = hits.clone();
            reversed.reverse();
            let (ranking, reversed) = (Ranking::from_hits(hits), Ranking::from_hits(reversed));
            for metric in [ndcg_at, map_at, recall_at, precision_at, mrr_at, hit_rate_at] {
                let value = metric(k, &ranking, &judged);
                prop_assert!((0.0..=1.0 + 1e-12).contains(&value));
                prop_assert_eq!(value, metric(k, &reversed, &judged));
            }
            for grows in [recall_at, mrr_at, hit_rate_at, map_at] {
                prop_assert!(grows(k, &ranking, &judged) <= grows(k + 1, &ranking, &judged));
            }
        }

        /// The plain twin: each metric by its definition, over the grade at every rank.
        #[test]
        fn relevant_hits_give_what_all_grades_give(
            ids in prop::collection::vec(0u8..40, 0..40),
            judged in prop::collection::btree_map(0u8..40, -1i32..4, 0..20),
            k in 0usize..45,
        ) {
            let judged: Judgements = judged.into_iter().map(|(id, grade)| (id.to_string(), grade)).collect();
            let mut ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
            let mut seen = std::collections::HashSet::new();
            ids.retain(|id| seen.insert(id.clone()));
            let grades: Vec<i32> = ids.iter().map(|id| judged.get(id).copied().unwrap_or(0).max(0)).collect();
            let top = &grades[..k.min(grades.len())];
            let mut ideal: Vec<i32> = judged.values().map(|grade| (*grade).max(0)).collect();
            ideal.sort_unstable_by(|a, b| b.cmp(a));
            let relevant = ideal.iter().filter(|grade| **grade > 0).count();
            let share = |part: f64, whole: f64| if whole == 0.0 { 0.0 } else { part / whole };
            let dcg = |grades: &[i32]| -> f64 {
                (2i32..).zip(grades).map(|(discount, grade)| f64::from(*grade) / f64::from(discount).log2()).sum()
            };
            let hits = |n: usize| grades[..n].iter().filter(|grade| **grade > 0).count() as f64;
            let precisions: f64 =
                (0..top.len()).filter(|at| top[*at] > 0).map(|at| hits(at + 1) / (at + 1) as f64).sum();
            let first = top.iter().position(|grade| *grade > 0);
            let expected = [
                share(dcg(top), dcg(&ideal[..k.min(ideal.len())])),
                share(precisions, relevant as f64),
                share(hits(top.len()), relevant as f64),
                share(hits(top.len()), k as f64),
                first.map_or(0.0, |at| 1.0 / (at + 1) as f64),
                first.map_or(0.0, |_| 1.0),
            ];
            let graded = Graded::new(ids.iter().map(String::as_str), &judged);
            prop_assert_eq!(graded.first_rank(), grades.iter().position(|grade| *grade > 0).map(|at| at as u32 + 1));
            let ours = [
                graded.ndcg(k),
                graded.average_precision(k, relevant),
                graded.recall(k),
                graded.precision(k),
                graded.reciprocal_rank(k),
                graded.hit(k),
            ];
            for (ours, expected) in ours.into_iter().zip(expected) {
                prop_assert!((ours - expected).abs() < 1e-12, "{} {}", ours, expected);
            }
        }

        #[test]
        fn the_ideal_ranking_has_an_ndcg_of_1(grades in prop::collection::vec(0i32..4, 1..20), k in 1usize..25) {
            let judged: Judgements = grades.iter().enumerate().map(|(n, grade)| (n.to_string(), *grade)).collect();
            let hits = judged.iter().map(|(id, grade)| Hit { id: id.clone(), score: *grade as f32 });
            let ndcg = ndcg_at(k, &Ranking::from_hits(hits.collect()), &judged);
            let expected = if grades.iter().any(|grade| *grade > 0) { 1.0 } else { 0.0 };
            prop_assert!((ndcg - expected).abs() < 1e-12);
        }
    }
}
