//! Scores of sentence-transformers' SparseInformationRetrievalEvaluator and its NanoBEIR mean.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use splade_core::{SparsityStats, flops};

use crate::error::{Error, Result};
use crate::metrics::{Graded, mean};
use crate::qrels::Qrels;
use crate::run::Run;
use crate::scores::Scores;

/// Number of hits per query that the reference's evaluator keeps.
pub const RETRIEVAL_DEPTH: usize = 100;

const CUTOFFS: [usize; 4] = [1, 3, 5, 10];

/// Metric by which the reference compares checkpoints.
const PRIMARY: &str = "dot_ndcg@10";

/// Ranking metrics of one data set, and the sparsity of its query and document vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrievalScores {
    ranking: Scores,
    queries: SparsityStats,
    documents: SparsityStats,
}

/// Scores of a run by the rules of the reference: relevance is binary (a grade above 0), equal scores rank by id
/// ascending, and `map@100` divides by min(100, relevant documents).
///
/// Means are over the queries of the run that have a relevant document. `queries` has the statistics of these queries,
/// `documents` those of the corpus.
///
/// # Errors
/// No query of the run has a relevant document.
pub fn retrieval_scores(
    qrels: &Qrels,
    run: &Run,
    queries: SparsityStats,
    documents: SparsityStats,
) -> Result<RetrievalScores> {
    let graded: Vec<Graded> = run
        .iter()
        .filter_map(|(id, ranking)| Some((ranking, qrels.judgements(id)?)))
        .map(|(ranking, judged)| Graded::new(ranking.hits().iter().map(|hit| hit.id.as_str()), judged).binary())
        .filter(|graded| graded.relevant_count() > 0)
        .collect();
    if graded.is_empty() {
        let hint = "do the query ids of the queries file and of the qrels agree?";
        return Err(Error::invalid("no query of the run has a relevant document", hint));
    }
    let mean = |metric: &dyn Fn(&Graded) -> f64| mean(&graded.iter().map(metric).collect::<Vec<f64>>());
    let mut ranking = Scores::default();
    for k in CUTOFFS {
        ranking.push(format!("dot_accuracy@{k}"), mean(&|graded| graded.hit(k)));
    }
    for k in CUTOFFS {
        ranking.push(format!("dot_precision@{k}"), mean(&|graded| graded.precision(k)));
    }
    for k in CUTOFFS {
        ranking.push(format!("dot_recall@{k}"), mean(&|graded| graded.recall(k)));
    }
    ranking.push(PRIMARY, mean(&|graded| graded.ndcg(10)));
    ranking.push("dot_mrr@10", mean(&|graded| graded.reciprocal_rank(10)));
    let map = |graded: &Graded| graded.average_precision(100, graded.relevant_count().min(100));
    ranking.push("dot_map@100", mean(&map));
    Ok(RetrievalScores { ranking, queries, documents })
}

impl RetrievalScores {
    /// nDCG@10, the main metric.
    #[must_use]
    pub fn ndcg_at_10(&self) -> f64 {
        self.ranking.get(PRIMARY).unwrap_or(f64::NAN)
    }

    /// Sparsity of the query vectors.
    #[must_use]
    pub fn queries(&self) -> &SparsityStats {
        &self.queries
    }

    /// Sparsity of the document vectors.
    #[must_use]
    pub fn documents(&self) -> &SparsityStats {
        &self.documents
    }

    /// All metrics under the reference's names, `dot_accuracy@1` … `dot_map@100`, `query_active_dims` … `avg_flops`;
    /// with `name_` before each unless `name` is empty.
    #[must_use]
    pub fn scores(&self, name: &str) -> Scores {
        let mut scores = self.ranking.clone();
        scores.push("query_active_dims", self.queries.mean_active_dims());
        scores.push("query_sparsity_ratio", self.queries.sparsity_ratio());
        scores.push("corpus_active_dims", self.documents.mean_active_dims());
        scores.push("corpus_sparsity_ratio", self.documents.sparsity_ratio());
        scores.push("avg_flops", flops(&self.queries, &self.documents));
        scores.prefixed(name)
    }

    /// Appends a row to the reference's CSV file, with a header line first in a new file. `epoch` and `step` are
    /// −1 outside training.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append_csv(&self, path: &Path, epoch: f64, step: i64) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(path))?;
        let new = file.metadata().map_err(Error::io(path))?.len() == 0;
        let header = if new {
            format!("epoch,steps,{}\r\n", CSV_COLUMNS.map(|(column, _)| column).join(","))
        } else {
            String::new()
        };
        let scores = self.scores("");
        let values = CSV_COLUMNS.map(|(_, metric)| scores.get(metric).unwrap_or(f64::NAN).to_string());
        // one write, so that rows of two processes do not mix
        let rows = format!("{header}{epoch},{step},{}\r\n", values.join(","));
        file.write_all(rows.as_bytes()).map_err(Error::io(path))
    }
}

/// File name of the reference's CSV.
///
/// ```
/// assert_eq!(splade_eval::retrieval_csv_name("dev"), "Information-Retrieval_evaluation_dev_results.csv");
/// ```
#[must_use]
pub fn retrieval_csv_name(name: &str) -> String {
    let name = if name.is_empty() { String::new() } else { format!("_{name}") };
    format!("Information-Retrieval_evaluation{name}_results.csv")
}

/// Columns of the CSV file and the metrics in them.
const CSV_COLUMNS: [(&str, &str); 20] = [
    ("dot-Accuracy@1", "dot_accuracy@1"),
    ("dot-Accuracy@3", "dot_accuracy@3"),
    ("dot-Accuracy@5", "dot_accuracy@5"),
    ("dot-Accuracy@10", "dot_accuracy@10"),
    ("dot-Precision@1", "dot_precision@1"),
    ("dot-Recall@1", "dot_recall@1"),
    ("dot-Precision@3", "dot_precision@3"),
    ("dot-Recall@3", "dot_recall@3"),
    ("dot-Precision@5", "dot_precision@5"),
    ("dot-Recall@5", "dot_recall@5"),
    ("dot-Precision@10", "dot_precision@10"),
    ("dot-Recall@10", "dot_recall@10"),
    ("dot-MRR@10", "dot_mrr@10"),
    ("dot-NDCG@10", PRIMARY),
    ("dot-MAP@100", "dot_map@100"),
    ("query_active_dims", "query_active_dims"),
    ("query_sparsity_ratio", "query_sparsity_ratio"),
    ("corpus_active_dims", "corpus_active_dims"),
    ("corpus_sparsity_ratio", "corpus_sparsity_ratio"),
    ("avg_flops", "avg_flops"),
];

/// Mean over several data sets (`NanoBEIR_mean` of the reference). Ranking metrics are means over the sets; sparsity is
/// that of all vectors together, so that large sets weigh more.
///
/// # Errors
/// No data set.
pub fn mean_retrieval_scores(sets: &[RetrievalScores]) -> Result<RetrievalScores> {
    let [first, rest @ ..] = sets else {
        return Err(Error::invalid("no data set to take the mean of", ""));
    };
    let mut whole = first.clone();
    for set in rest {
        whole.queries.merge(&set.queries);
        whole.documents.merge(&set.documents);
    }
    let over_sets = |metric: &str| {
        let values: Vec<f64> = sets.iter().filter_map(|set| set.ranking.get(metric)).collect();
        (metric.to_owned(), mean(&values))
    };
    whole.ranking = first.ranking.iter().map(|(metric, _)| over_sets(metric)).collect();
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use splade_core::{Hit, Ranking, SparseVector};

    fn set(documents: usize, relevant: &str) -> RetrievalScores {
        let qrels: Qrels = [("q", relevant, 2), ("unasked", "a", 1)].into_iter().collect();
        let hits = vec![Hit { id: "b".into(), score: 1.0 }, Hit { id: "a".into(), score: 1.0 }];
        let run = [("q".to_owned(), Ranking::from_hits(hits)), ("unjudged".to_owned(), Ranking::default())];
        let vector = SparseVector::from_pairs((0..documents as u32).map(|dim| (dim, 1.0))).unwrap();
        let queries = SparsityStats::of(10, [&vector]);
        let documents = SparsityStats::of(10, vec![&vector; documents]);
        retrieval_scores(&qrels, &run.into_iter().collect(), queries, documents).unwrap()
    }

    #[test]
    fn ties_rank_by_id_ascending() {
        assert_eq!(set(1, "a").ndcg_at_10(), 1.0);
        assert_eq!(set(1, "b").ndcg_at_10(), 1.0 / 3f64.log2());
        assert_eq!(set(1, "a").scores("dev").get("dev_dot_accuracy@1"), Some(1.0));
    }

    #[test]
    fn the_mean_weighs_sets_equally_and_vectors_equally() {
        let mean = mean_retrieval_scores(&[set(1, "a"), set(3, "x")]).unwrap();
        let scores = mean.scores("NanoBEIR_mean");
        assert_eq!(scores.get("NanoBEIR_mean_dot_ndcg@10"), Some(0.5));
        assert_eq!(scores.get("NanoBEIR_mean_query_active_dims"), Some(2.0));
        assert_eq!(scores.get("NanoBEIR_mean_corpus_active_dims"), Some((1.0 + 3.0 * 3.0) / 4.0));
        // dim 0: 2/2 · 4/4, dims 1 and 2: 1/2 · 3/4
        assert_eq!(scores.get("NanoBEIR_mean_avg_flops"), Some(1.75));
        assert!(mean_retrieval_scores(&[]).is_err());
    }

    #[test]
    fn nothing_relevant_is_an_error() {
        let error = retrieval_scores(&Qrels::default(), &Run::default(), SparsityStats::new(1), SparsityStats::new(1));
        assert!(error.unwrap_err().kind().is_bad_input());
    }
}
