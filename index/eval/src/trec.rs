//! The scores of mteb: trec_eval's metrics through pytrec_eval, with mteb's means, roundings and nAUC.

use std::cmp::Ordering;

use super::metrics::{Graded, mean};
use super::nauc::{Confidence, nauc};
use super::scores::round_to;
use super::{Judgements, Qrels, Run, Scores};
use crate::{Error, Result};
use splade_core::{Hit, Ranking};

/// The cut-offs of mteb's retrieval tasks.
pub const MTEB_CUTOFFS: [usize; 7] = [1, 3, 5, 10, 20, 100, 1000];

/// How many hits per query mteb keeps in a run.
pub const MTEB_DEPTH: usize = 1000;

/// mteb's 148 scores of a run, under mteb's names and in its order, `ndcg_at_10` among them.
///
/// Means over the queries that are in both `run` and `qrels`. Equal scores rank by id **descending**, as in trec_eval,
/// unlike everywhere else here. nDCG, MAP, recall, precision and hit rate are rounded to 5 decimals, which is what
/// mteb does before it writes 6; `nauc_*` is NaN where it is undefined.
///
/// ```
/// use splade_eval::{Qrels, Run, mteb_scores};
/// use splade_core::{Hit, Ranking};
///
/// let qrels: Qrels = [("q1", "d2", 1), ("q2", "d1", 1)].into_iter().collect();
/// let hits = || vec![Hit { id: "d1".into(), score: 2.0 }, Hit { id: "d2".into(), score: 1.0 }];
/// let mut run = Run::default();
/// run.insert("q1", Ranking::from_hits(hits()));
/// run.insert("q2", Ranking::from_hits(hits()));
/// let scores = mteb_scores(&qrels, &run)?;
/// assert_eq!(scores.get("ndcg_at_10"), Some(0.81546));
/// assert_eq!(scores.get("mrr_at_10"), Some(0.75));
/// # Ok::<(), splade_eval::Error>(())
/// ```
///
/// # Errors
/// No query of the run was judged.
pub fn mteb_scores(qrels: &Qrels, run: &Run) -> Result<Scores> {
    let judged: Vec<(&Ranking, &Judgements)> =
        run.iter().filter_map(|(id, ranking)| Some((ranking, qrels.judgements(id)?))).collect();
    if judged.is_empty() {
        let hint = "do the query ids of the queries file and of the qrels agree?";
        return Err(Error::invalid("no query of the run has a judgement", hint));
    }
    let queries: Vec<Judged> = judged.iter().map(|(ranking, judged)| Judged::new(ranking, judged)).collect();
    let table = Table::of(&queries);
    let mut scores = Scores::default();
    for metric in [Metric::Ndcg, Metric::Map, Metric::Recall] {
        table.push_means(&mut scores, metric);
    }
    scores.push("accuracy", round_to(mean(table.values(Metric::Recall, 0)), 5));
    for metric in [Metric::Precision, Metric::Mrr] {
        table.push_means(&mut scores, metric);
    }
    for metric in [Metric::Ndcg, Metric::Map, Metric::Recall, Metric::Precision, Metric::Mrr] {
        push_naucs(&mut scores, &table, metric, &queries);
    }
    table.push_means(&mut scores, Metric::HitRate);
    Ok(scores)
}

/// A query that was asked and judged.
struct Judged {
    graded: Graded,
    confidence: Confidence,
}

impl Judged {
    fn new(ranking: &Ranking, judged: &Judgements) -> Self {
        let mut hits: Vec<&Hit> = ranking.hits().iter().collect();
        hits.sort_by(|a, b| trec_order(a, b));
        let scores: Vec<f64> = hits.iter().map(|hit| hit.score.into()).collect();
        let graded = Graded::new(hits.iter().map(|hit| hit.id.as_str()), judged);
        Self { graded, confidence: Confidence::of(&scores) }
    }
}

/// trec_eval's order: score descending as f32, then id descending. `+ 0.0` makes the two zeros equal.
fn trec_order(a: &Hit, b: &Hit) -> Ordering {
    (b.score + 0.0).total_cmp(&(a.score + 0.0)).then_with(|| b.id.cmp(&a.id))
}

#[derive(Debug, Clone, Copy)]
enum Metric {
    Ndcg,
    Map,
    Recall,
    Precision,
    Mrr,
    HitRate,
}

impl Metric {
    const ALL: [Self; 6] = [Self::Ndcg, Self::Map, Self::Recall, Self::Precision, Self::Mrr, Self::HitRate];

    fn name(self) -> &'static str {
        match self {
            Self::Ndcg => "ndcg",
            Self::Map => "map",
            Self::Recall => "recall",
            Self::Precision => "precision",
            Self::Mrr => "mrr",
            Self::HitRate => "hit_rate",
        }
    }

    fn of(self, graded: &Graded, k: usize) -> f64 {
        match self {
            Self::Ndcg => graded.ndcg(k),
            Self::Map => graded.average_precision(k, graded.relevant_count()),
            Self::Recall => graded.recall(k),
            Self::Precision => graded.precision(k),
            Self::Mrr => graded.reciprocal_rank(k),
            Self::HitRate => graded.hit(k),
        }
    }
}

/// Every metric at every cut-off of every query, computed once for means and nAUC.
struct Table {
    values: Vec<Vec<Vec<f64>>>,
}

impl Table {
    fn of(queries: &[Judged]) -> Self {
        let column = |metric: Metric, k| queries.iter().map(|query| metric.of(&query.graded, k)).collect();
        let columns = |metric| MTEB_CUTOFFS.iter().map(|&k| column(metric, k)).collect();
        Self { values: Metric::ALL.into_iter().map(columns).collect() }
    }

    /// One value per query, at the cut-off `MTEB_CUTOFFS[cutoff]`.
    fn values(&self, metric: Metric, cutoff: usize) -> &[f64] {
        &self.values[metric as usize][cutoff]
    }

    fn push_means(&self, scores: &mut Scores, metric: Metric) {
        for (cutoff, k) in MTEB_CUTOFFS.iter().enumerate() {
            let mean = mean(self.values(metric, cutoff));
            let value = if matches!(metric, Metric::Mrr) { mean } else { round_to(mean, 5) };
            scores.push(format!("{}_at_{k}", metric.name()), value);
        }
    }
}

fn push_naucs(scores: &mut Scores, table: &Table, metric: Metric, queries: &[Judged]) {
    let of = |pick: fn(&Confidence) -> f64| queries.iter().map(|query| pick(&query.confidence)).collect::<Vec<f64>>();
    let confidences = [("max", of(|c| c.max)), ("std", of(|c| c.std)), ("diff1", of(|c| c.diff1))];
    for (cutoff, k) in MTEB_CUTOFFS.iter().enumerate() {
        for (kind, confidences) in &confidences {
            let value = nauc(confidences, table.values(metric, cutoff));
            scores.push(format!("nauc_{}_at_{k}_{kind}", metric.name()), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(scored: &[(&str, f32)]) -> Ranking {
        Ranking::from_hits(scored.iter().map(|&(id, score)| Hit { id: id.into(), score }).collect())
    }

    #[test]
    fn ties_rank_by_id_descending() {
        let qrels: Qrels = [("q", "a", 1)].into_iter().collect();
        let run: Run = [("q".to_owned(), ranking(&[("a", 0.0), ("b", -0.0), ("c", 0.0)]))].into_iter().collect();
        assert_eq!(mteb_scores(&qrels, &run).unwrap().get("mrr_at_10"), Some(1.0 / 3.0));
    }

    #[test]
    fn only_queries_in_both_count_and_none_is_an_error() {
        let qrels: Qrels = [("q", "a", 1), ("unasked", "a", 1)].into_iter().collect();
        let mut run = Run::default();
        run.insert("unjudged", ranking(&[("a", 1.0)]));
        let error = mteb_scores(&qrels, &run).unwrap_err();
        assert!(error.hint().is_some() && error.kind().is_bad_input());
        run.insert("q", ranking(&[("a", 1.0)]));
        let scores = mteb_scores(&qrels, &run).unwrap();
        assert_eq!(scores.get("recall_at_1"), Some(1.0));
        assert!(scores.get("nauc_ndcg_at_10_max").unwrap().is_nan());
        assert_eq!(scores.len(), 148);
    }
}
