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

/// Grades of a ranking by rank, and the grades of the ideal ranking.
#[derive(Debug, Clone)]
pub(crate) struct Graded {
    /// grade of the hit at each rank, 0 where it is not relevant
    grades: Vec<u32>,
    /// grades of all relevant documents, largest first
    ideal: Vec<u32>,
}

impl Graded {
    pub(crate) fn new<'a>(ranked_ids: impl IntoIterator<Item = &'a str>, judged: &Judgements) -> Self {
        let gain = |grade: i32| u32::try_from(grade).unwrap_or(0);
        let grades = ranked_ids.into_iter().map(|id| judged.get(id).map_or(0, |grade| gain(*grade))).collect();
        let mut ideal: Vec<u32> = judged.values().map(|grade| gain(*grade)).filter(|gain| *gain > 0).collect();
        ideal.sort_unstable_by(|a, b| b.cmp(a));
        Self { grades, ideal }
    }

    fn of_ranking(ranking: &Ranking, judged: &Judgements) -> Self {
        Self::new(ranking.hits().iter().map(|hit| hit.id.as_str()), judged)
    }

    /// A copy with 1 for every relevant grade.
    pub(crate) fn binary(mut self) -> Self {
        self.grades.iter_mut().chain(&mut self.ideal).for_each(|grade| *grade = (*grade).min(1));
        self
    }

    /// The number of relevant documents, found or not.
    pub(crate) fn relevant_count(&self) -> usize {
        self.ideal.len()
    }

    fn hits(&self, k: usize) -> usize {
        self.grades.iter().take(k).filter(|grade| **grade > 0).count()
    }

    pub(crate) fn ndcg(&self, k: usize) -> f64 {
        let ideal = dcg(&self.ideal, k);
        if ideal == 0.0 { 0.0 } else { dcg(&self.grades, k) / ideal }
    }

    /// The divisor differs between the references.
    pub(crate) fn average_precision(&self, k: usize, divisor: usize) -> f64 {
        let mut hits = 0.0;
        let mut sum = 0.0;
        for (rank, _) in (1..).zip(self.grades.iter().take(k)).filter(|(_, grade)| **grade > 0) {
            hits += 1.0;
            sum += hits / f64::from(rank);
        }
        if divisor == 0 { 0.0 } else { sum / divisor as f64 }
    }

    pub(crate) fn recall(&self, k: usize) -> f64 {
        if self.ideal.is_empty() { 0.0 } else { self.hits(k) as f64 / self.ideal.len() as f64 }
    }

    pub(crate) fn precision(&self, k: usize) -> f64 {
        if k == 0 { 0.0 } else { self.hits(k) as f64 / k as f64 }
    }

    pub(crate) fn reciprocal_rank(&self, k: usize) -> f64 {
        self.grades.iter().take(k).position(|grade| *grade > 0).map_or(0.0, |at| 1.0 / (at + 1) as f64)
    }

    pub(crate) fn hit(&self, k: usize) -> f64 {
        if self.hits(k) > 0 { 1.0 } else { 0.0 }
    }
}

fn dcg(grades: &[u32], k: usize) -> f64 {
    let discounted = (2..).zip(grades.iter().take(k));
    sum(discounted.map(|(rank_and_1, grade)| f64::from(*grade) / f64::from(rank_and_1).log2()))
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
