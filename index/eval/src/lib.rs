//! How good a search is: judgements, runs, and the scores that Python's mteb and sentence-transformers give them.
//!
//! * [`Qrels`] (what is relevant) and [`Run`] (what was found) go in; [`mteb_scores`] and [`retrieval_scores`] come
//!   out, each exactly as its reference computes it. They disagree about ties, divisors and roundings, on purpose.
//! * [`TaskData`] reads a data folder, [`write_mteb_results`] writes what mteb loads.
//! * [`evaluate`] does it all over vectors in memory, by [`ExactSearcher`]; a run of any index is judged the same way.

#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod beir;
mod error;
mod exact;
mod identical_ids;
mod metrics;
mod mteb;
mod nauc;
mod qrels;
mod retrieval;
mod rrf;
mod run;
mod scores;
mod tasks;
mod trec;

pub use beir::{DEFAULT_SUBSET, TaskData};
pub use error::{Error, Result};
pub use exact::ExactSearcher;
pub use identical_ids::ignores_identical_ids;
pub use metrics::{hit_rate_at, map_at, mrr_at, ndcg_at, precision_at, recall_at};
pub use mteb::{
    Comparison, MAIN_SCORE, MTEB_VERSION, ModelMeta, NO_REVISION, SubsetResult, TaskResult, compare_results,
    read_mteb_results, write_mteb_results,
};
pub use qrels::{Judgements, Qrels};
pub use retrieval::{RETRIEVAL_DEPTH, RetrievalScores, mean_retrieval_scores, retrieval_csv_name, retrieval_scores};
pub use rrf::{FusionSample, fusion_scores};
pub use run::{Run, is_trec_word};
pub use scores::Scores;
pub use tasks::{KnownTask, NANO_BEIR, known_task, known_tasks, nano_beir_set};
pub use trec::{MTEB_CUTOFFS, MTEB_DEPTH, mteb_scores};

use splade_core::{SparseVector, SparsityStats};

/// What [`evaluate`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// the best [`MTEB_DEPTH`] documents of every query that was asked
    pub run: Run,
    /// as sentence-transformers scores it, with the sparsity of both sides
    pub retrieval: RetrievalScores,
    /// as mteb scores it
    pub mteb: Scores,
}

/// Searches exactly and scores the result in both references' ways.
///
/// Only queries with a relevant document are asked. `documents` are taken one at a time, so their vectors can be
/// made while this runs; `dimensions` is the vocabulary size.
///
/// ```
/// use splade_core::SparseVector;
/// use splade_eval::{Qrels, evaluate};
///
/// let vector = |dim| SparseVector::from_pairs([(dim, 1.0)]);
/// let queries = [("q1".to_owned(), vector(3)?), ("q2".to_owned(), vector(8)?)];
/// let documents = [("d1".to_owned(), vector(3)?), ("d2".to_owned(), vector(8)?)];
/// let qrels: Qrels = [("q1", "d1", 1), ("q2", "d1", 1)].into_iter().collect();
/// let evaluation = evaluate(&queries, documents, &qrels, 100)?;
/// assert_eq!(evaluation.retrieval.scores("dev").get("dev_dot_accuracy@1"), Some(0.5));
/// assert_eq!(evaluation.mteb.get("recall_at_10"), Some(1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// No query with a relevant document, a document id that occurs twice.
pub fn evaluate(
    queries: &[(String, SparseVector)],
    documents: impl IntoIterator<Item = (String, SparseVector)>,
    qrels: &Qrels,
    dimensions: usize,
) -> Result<Evaluation> {
    let mut document_stats = SparsityStats::new(dimensions);
    let counted = documents.into_iter().inspect(|(_, vector)| document_stats.add(vector));
    let searcher = ExactSearcher::new(counted)?;
    let asked: Vec<(String, SparseVector)> =
        queries.iter().filter(|(id, _)| qrels.relevant_count(id) > 0).cloned().collect();
    let query_stats = SparsityStats::of(dimensions, asked.iter().map(|(_, vector)| vector));
    let run = searcher.search_all(&asked, MTEB_DEPTH);
    let retrieval = retrieval_scores(qrels, &run, query_stats, document_stats)?;
    let mteb = mteb_scores(qrels, &run)?;
    Ok(Evaluation { run, retrieval, mteb })
}
