//! Scores of mteb: metrics of trec_eval (through pytrec_eval), with mteb's means, rounding and nAUC.
//!
//! Values equal those of pytrec_eval, mteb and ranx on random runs (`tests/golden_references.rs`), with these intended
//! differences:
//!
//! * Scores are 32-bit floats everywhere, as in trec_eval. mteb's MRR and nAUC compare 64-bit scores.
//! * ranx leaves the order of equal scores undefined. Here they rank by document id descending, as in trec_eval and mteb.
//! * pytrec_eval-terrier 0.5.11 crashes on a query whose grades are all negative. Here such a query scores 0.

use std::cmp::Ordering;

use rayon::prelude::*;

use splade_core::{Hit, Ranking, score_order};

use crate::error::{Error, Result};
use crate::metric::{Measure, Metric};
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
    Ok(JudgedRun::new(qrels, run)?.scores())
}

/// Judged queries of a run, with their relevant hits in the order of trec_eval.
///
/// ```
/// use splade_eval::{JudgedRun, Metric, Qrels, Run};
/// use splade_core::{Hit, Ranking};
///
/// let qrels: Qrels = [("q1", "d2", 1)].into_iter().collect();
/// let mut run = Run::default();
/// let hit = |id: &str, score| Hit { id: id.into(), score };
/// run.insert("q1", Ranking::from_hits(vec![hit("d1", 2.0), hit("d2", 1.0)]));
/// let judged = JudgedRun::new(&qrels, &run)?;
/// assert_eq!(judged.values("mrr_at_10".parse()?).collect::<Vec<_>>(), [("q1", 0.5)]);
/// // rounded as in mteb: 1/log2(3)
/// assert_eq!(judged.mean(Metric::MAIN), 0.63093);
/// # Ok::<(), splade_eval::Error>(())
/// ```
pub struct JudgedRun<'a> {
    queries: Vec<(&'a str, JudgedRanking)>,
}

impl<'a> JudgedRun<'a> {
    /// The queries that are in both `run` and `qrels`, in the order of the run.
    ///
    /// # Errors
    /// A run without a judged query.
    pub fn new(qrels: &Qrels, run: &'a Run) -> Result<Self> {
        let judged: Vec<(&str, &Ranking, &Judgements)> =
            run.iter().filter_map(|(id, ranking)| Some((id, ranking, qrels.judgements(id)?))).collect();
        if judged.is_empty() {
            let hint = "compare the query ids of the run with those of the qrels";
            return Err(Error::invalid("no query of the run has a judgement", hint));
        }
        let queries = judged.into_par_iter().map(|(id, ranking, judged)| (id, JudgedRanking::new(ranking, judged)));
        Ok(Self { queries: queries.collect() })
    }

    /// Number of queries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// False: a judged run has a query.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// Query ids and values of a metric, in the order of the run.
    pub fn values(&self, metric: Metric) -> impl ExactSizeIterator<Item = (&'a str, f64)> + '_ {
        self.queries.iter().map(move |(id, ranking)| (*id, metric.value(&ranking.graded)))
    }

    /// Query ids and ranks, from 1, of the first relevant hit, in the order of the run; none without a relevant hit.
    pub fn first_ranks(&self) -> impl ExactSizeIterator<Item = (&'a str, Option<u32>)> + '_ {
        self.queries.iter().map(|(id, ranking)| (*id, ranking.graded.first_rank()))
    }

    /// Mean of a metric over the queries, with mteb's rounding: to 5 decimals, except MRR.
    #[must_use]
    pub fn mean(&self, metric: Metric) -> f64 {
        rounded_mean(metric.measure(), &self.column(metric))
    }

    /// The 148 scores of mteb, with mteb's names and order.
    #[must_use]
    pub fn scores(&self) -> Scores {
        let measures = Measure::ALL
            .map(|measure| (measure, MTEB_CUTOFFS.map(|cutoff| (cutoff, self.column(Metric::new(measure, cutoff))))));
        let (with_nauc, without): (Vec<_>, Vec<_>) = measures.iter().partition(|(measure, _)| measure.has_nauc());
        let mut scores = Scores::default();
        let push_means = |scores: &mut Scores, (measure, columns): &(Measure, [Column; MTEB_CUTOFFS.len()])| {
            for (cutoff, values) in columns {
                scores.push(Metric::new(*measure, *cutoff).to_string(), rounded_mean(*measure, values));
            }
        };
        for of_measure in &with_nauc {
            push_means(&mut scores, of_measure);
            if of_measure.0 == Measure::Recall {
                scores.push("accuracy", scores.get("recall_at_1").unwrap_or(f64::NAN));
            }
        }
        let columns = with_nauc.iter().flat_map(|(measure, columns)| columns.iter().map(|column| (*measure, column)));
        self.push_naucs(&mut scores, &columns.collect::<Vec<_>>());
        without.into_iter().for_each(|of_measure| push_means(&mut scores, of_measure));
        scores
    }

    /// Values of a metric, one per query.
    fn column(&self, metric: Metric) -> Vec<f64> {
        self.values(metric).map(|(_, value)| value).collect()
    }

    fn push_naucs(&self, scores: &mut Scores, columns: &[(Measure, &Column)]) {
        let of = |pick: fn(&Confidence) -> f64| self.queries.iter().map(|(_, query)| pick(&query.confidence)).collect();
        let confidences: [(&str, Vec<f64>); 3] =
            [("max", of(|c| c.max)), ("std", of(|c| c.std)), ("diff1", of(|c| c.diff1))];
        let naucs = columns.par_iter().flat_map_iter(|(measure, (cutoff, values))| {
            let metric = Metric::new(*measure, *cutoff);
            confidences
                .iter()
                .map(move |(kind, confidences)| (format!("nauc_{metric}_{kind}"), nauc(confidences, values)))
        });
        naucs.collect::<Vec<_>>().into_iter().for_each(|(name, value)| scores.push(name, value));
    }
}

/// Cut-off, and values of a measure at it, one per query.
type Column = (usize, Vec<f64>);

fn rounded_mean(measure: Measure, values: &[f64]) -> f64 {
    let mean = mean(values);
    if measure.is_rounded() { round_to(mean, 5) } else { mean }
}

/// Ranking of a judged query.
struct JudgedRanking {
    graded: Graded,
    confidence: Confidence,
}

impl JudgedRanking {
    fn new(ranking: &Ranking, judged: &Judgements) -> Self {
        let scores: Vec<f64> = ranking.hits().iter().map(|hit| hit.score.into()).collect();
        Self { graded: Graded::new(in_trec_order(ranking), judged), confidence: Confidence::of(&scores) }
    }
}

/// Ids of a ranking in [`trec_order`]: groups of equal scores are reversed, since a [`Ranking`] has them by id ascending.
fn in_trec_order(ranking: &Ranking) -> impl Iterator<Item = &str> {
    let equal = |a: &Hit, b: &Hit| score_order(a.score, b.score) == Ordering::Equal;
    ranking.hits().chunk_by(equal).flat_map(|group| group.iter().rev()).map(|hit| hit.id.as_str())
}

/// Order of trec_eval: score descending as f32, then id descending.
pub(crate) fn trec_order(a: &Hit, b: &Hit) -> Ordering {
    score_order(a.score, b.score).then_with(|| b.id.cmp(&a.id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        /// The plain twin: all hits sorted by the order itself.
        #[test]
        fn reversed_groups_equal_sorting(
            hits in prop::collection::vec((0u8..30, prop::sample::select(vec![0.0f32, -0.0, 1.0, 1e-30, f32::NAN])), 0..30),
        ) {
            let hits = hits.into_iter().map(|(id, score)| Hit { id: id.to_string(), score }).collect();
            let ranking = Ranking::from_hits(hits);
            let mut sorted: Vec<&Hit> = ranking.hits().iter().collect();
            sorted.sort_by(|a, b| trec_order(a, b));
            let sorted: Vec<&str> = sorted.into_iter().map(|hit| hit.id.as_str()).collect();
            prop_assert_eq!(in_trec_order(&ranking).collect::<Vec<_>>(), sorted);
        }
    }
}
