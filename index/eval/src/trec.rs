//! Scores of mteb: metrics of trec_eval (through pytrec_eval), with mteb's means, rounding and nAUC.

use std::cmp::Ordering;

use splade_core::{Hit, Ranking, score_order};

use crate::error::{Error, Result};
use crate::metrics::{Graded, mean};
use crate::nauc::{Confidence, nauc};
use crate::qrels::{Judgements, Qrels};
use crate::run::Run;
use crate::scores::{Scores, round_to};

/// Cut-offs of mteb's retrieval tasks.
pub const MTEB_CUTOFFS: [usize; 7] = [1, 3, 5, 10, 20, 100, 1000];

/// Hits per query in mteb's runs.
pub const MTEB_DEPTH: usize = 1000;

/// Computes the 148 scores of mteb for a run, with mteb's names and order.
///
/// Means are over the queries that are in both `run` and `qrels`. Equal scores rank by id **descending**, as in
/// trec_eval, and not ascending as in a [`Ranking`]. nDCG, MAP, recall, precision and hit rate are rounded to 5 decimals,
/// as in mteb; `nauc_*` is NaN where it is undefined.
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
/// A run without a judged query.
pub fn mteb_scores(qrels: &Qrels, run: &Run) -> Result<Scores> {
    let judged: Vec<(&Ranking, &Judgements)> =
        run.iter().filter_map(|(id, ranking)| Some((ranking, qrels.judgements(id)?))).collect();
    if judged.is_empty() {
        let hint = "compare the query ids of the run with those of the qrels";
        return Err(Error::invalid("no query of the run has a judgement", hint));
    }
    let rankings: Vec<JudgedRanking> =
        judged.iter().map(|(ranking, judged)| JudgedRanking::new(ranking, judged)).collect();
    let values: Vec<MetricValues> = METRICS.iter().map(|metric| MetricValues::of(metric, &rankings)).collect();
    let (with_nauc, without): (Vec<&MetricValues>, Vec<&MetricValues>) =
        values.iter().partition(|values| values.metric.has_nauc);
    let mut scores = Scores::default();
    for values in &with_nauc {
        values.push_means(&mut scores);
        if values.metric.name == "recall" {
            scores.push("accuracy", scores.get("recall_at_1").unwrap_or(f64::NAN));
        }
    }
    for values in &with_nauc {
        values.push_naucs(&mut scores, &rankings);
    }
    for values in &without {
        values.push_means(&mut scores);
    }
    Ok(scores)
}

/// A metric of mteb's result files.
struct Metric {
    name: &'static str,
    /// value of one ranking at a cut-off
    value: fn(&Graded, usize) -> f64,
    /// true if mteb rounds the mean to 5 decimals
    is_rounded: bool,
    /// true if mteb computes nAUC of it
    has_nauc: bool,
}

/// All metrics, in the order of mteb's files. A new one is a line here and a method of [`Graded`].
const METRICS: [Metric; 6] = [
    Metric { name: "ndcg", value: Graded::ndcg, is_rounded: true, has_nauc: true },
    Metric { name: "map", value: average_precision, is_rounded: true, has_nauc: true },
    Metric { name: "recall", value: Graded::recall, is_rounded: true, has_nauc: true },
    Metric { name: "precision", value: Graded::precision, is_rounded: true, has_nauc: true },
    Metric { name: "mrr", value: Graded::reciprocal_rank, is_rounded: false, has_nauc: true },
    Metric { name: "hit_rate", value: Graded::hit, is_rounded: true, has_nauc: false },
];

fn average_precision(graded: &Graded, k: usize) -> f64 {
    graded.average_precision(k, graded.relevant_count())
}

/// Ranking of a judged query.
struct JudgedRanking {
    graded: Graded,
    confidence: Confidence,
}

impl JudgedRanking {
    fn new(ranking: &Ranking, judged: &Judgements) -> Self {
        let mut hits: Vec<&Hit> = ranking.hits().iter().collect();
        hits.sort_by(|a, b| trec_order(a, b));
        let scores: Vec<f64> = hits.iter().map(|hit| hit.score.into()).collect();
        let graded = Graded::new(hits.iter().map(|hit| hit.id.as_str()), judged);
        Self { graded, confidence: Confidence::of(&scores) }
    }
}

/// Order of trec_eval: score descending as f32, then id descending.
pub(crate) fn trec_order(a: &Hit, b: &Hit) -> Ordering {
    score_order(a.score, b.score).then_with(|| b.id.cmp(&a.id))
}

/// Values of a metric for every ranking and cut-off, for means and nAUC.
struct MetricValues {
    metric: &'static Metric,
    /// one value per ranking, for each of [`MTEB_CUTOFFS`]
    by_cutoff: [Vec<f64>; MTEB_CUTOFFS.len()],
}

impl MetricValues {
    fn of(metric: &'static Metric, rankings: &[JudgedRanking]) -> Self {
        let column = |k| rankings.iter().map(|ranking| (metric.value)(&ranking.graded, k)).collect();
        Self { metric, by_cutoff: MTEB_CUTOFFS.map(column) }
    }

    fn push_means(&self, scores: &mut Scores) {
        for (k, values) in MTEB_CUTOFFS.iter().zip(&self.by_cutoff) {
            let mean = mean(values);
            let value = if self.metric.is_rounded { round_to(mean, 5) } else { mean };
            scores.push(format!("{}_at_{k}", self.metric.name), value);
        }
    }

    fn push_naucs(&self, scores: &mut Scores, rankings: &[JudgedRanking]) {
        let of = |pick: fn(&Confidence) -> f64| {
            rankings.iter().map(|ranking| pick(&ranking.confidence)).collect::<Vec<f64>>()
        };
        let confidences = [("max", of(|c| c.max)), ("std", of(|c| c.std)), ("diff1", of(|c| c.diff1))];
        for (k, values) in MTEB_CUTOFFS.iter().zip(&self.by_cutoff) {
            for (kind, confidences) in &confidences {
                scores.push(format!("nauc_{}_at_{k}_{kind}", self.metric.name), nauc(confidences, values));
            }
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
