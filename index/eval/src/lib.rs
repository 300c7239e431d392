//! Evaluation of retrieval: judgements, runs, and the scores that Python's mteb and sentence-transformers give them.
//!
//! * [`Task`] reads a data folder and encodes it; [`EncodedTask`] is what a retriever is measured on.
//! * [`evaluate`] searches with any [`Retriever`](splade_core::Retriever) and scores its rankings by the rules of both
//!   references. [`ExactSearcher`] is the retriever over vectors in memory.
//! * [`mteb_scores`] and [`retrieval_scores`] score a [`Run`] against [`Qrels`], each as its reference does: they differ in
//!   ties, divisors and roundings.
//! * [`stage_mteb_results`] writes the files that mteb loads; [`TaskResult::read`] and [`Baseline::read`] read them.
//! * [`JudgedRun`] has the values of every query, and [`paired_test`] compares two runs by them.
//!
//! To add a metric: a method of `Graded` in `metrics.rs`, and a variant in `metric.rs` or a line in `retrieval.rs`.

#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod analysis;
mod baseline;
mod beir;
mod cross_validation;
mod error;
mod evaluate;
mod exact;
mod identical_ids;
mod metric;
mod metrics;
mod mteb;
mod nauc;
mod predictions;
mod qrels;
mod raw;
mod retrieval;
mod rrf;
mod run;
mod scores;
mod shuffle;
mod significance;
mod task;
mod task_data;
mod tasks;
mod trec;

// Data
pub use predictions::RunPart;
pub use qrels::{Judgements, Qrels};
pub use raw::{BuiltSplit, RawTask};
pub use run::{Run, is_trec_word};
pub use task::{EncodedTask, Task, TaskQuery};
pub use task_data::{DEFAULT_SUBSET, JudgedQueries, TaskData, TaskFiles, TaskIdentity};
pub use tasks::{
    KnownTask, NANO_BEIR, TASK_GROUPS, is_nano_beir_set, known_task, known_tasks, nano_beir_set, task_group,
};
// Evaluation
pub use evaluate::{Evaluation, OwnDocuments, evaluate};
pub use exact::ExactSearcher;
pub use identical_ids::ignores_identical_ids;
// Choice of settings
pub use cross_validation::{Difference, Folds, best_row};
// Scores
pub use metric::{Measure, Metric};
pub use metrics::{hit_rate_at, map_at, mrr_at, ndcg_at, precision_at, recall_at};
pub use retrieval::{RETRIEVAL_DEPTH, RetrievalScores, mean_retrieval_scores, retrieval_csv_name, retrieval_scores};
pub use rrf::{FusionSample, fusion_scores};
pub use scores::Scores;
pub use trec::{JudgedRun, MTEB_CUTOFFS, MTEB_DEPTH, mteb_scores};
// Sparsity
pub use analysis::{Distribution, ExpansionReport, TermReport, VectorAnalysis, VectorReport};
// Comparison with other models and runs
pub use baseline::{Baseline, BaselineModel, BaselineScores};
pub use significance::{PairedTest, Resampling, holm, paired_test};
// Result files of mteb
pub use mteb::{
    MAIN_SCORE, MTEB_VERSION, ModelMeta, NO_REVISION, SubsetResult, TaskResult, UNKNOWN_LANGUAGE, stage_mteb_results,
};
// Errors
pub use error::{Error, Result};
