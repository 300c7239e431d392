//! Flags of `eval-mteb`.

use std::path::PathBuf;

use clap::Args;
use splade_core::PassageLength;

use super::{Bm25Args, ComparisonArgs, DenseArgs, EngineArgs, EngineKind, FusionArgs, Mode, NetworkArgs, ReportFormat};
use crate::tasks::NANO_BEIR_ID;

/// Evaluate a model on retrieval tasks with the metrics of MTEB
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade eval-mteb demo/model/final --data tests/data/lohelp-nb --modes sparse,bm25,hybrid
  splade eval-mteb demo/model/final --data tests/data/lohelp-nb --modes dense --dense dense-model
  splade eval-mteb demo/model/final --data tests/data/lohelp-nb --passages 48/12
  splade eval-mteb --list --language nb

A task is a data folder, or a known task of mteb, whose data is downloaded at the commit that mteb uses.
Groups of tasks: MTEB(Scandinavian), its retrieval tasks; Nordic, all known tasks in Norwegian, Danish
and Swedish; NanoBEIR, thirteen small English sets (--nanobeir-dataset names a translation).")]
pub(crate) struct EvalMtebArgs {
    /// Model folder, or Hub id: owner/name or owner/name@revision
    #[arg(required_unless_present = "list")]
    pub(crate) model: Option<PathBuf>,
    /// Data folders, in BEIR layout or in the parquet layout of the Hub; also a data set in the cache of the Hub
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Names of tasks and groups: those of the data folders first, then known tasks of mteb, which are downloaded;
    /// default: all tasks of the data folders
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub(crate) tasks: Vec<String>,
    /// Data set of the group NanoBEIR, on the Hub or a folder: another language, in the same layout
    #[arg(long, value_name = "ID", default_value = NANO_BEIR_ID)]
    pub(crate) nanobeir_dataset: String,
    /// List the known tasks and exit; --language selects
    #[arg(long)]
    pub(crate) list: bool,
    /// Output folder, in the layout of mteb
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) output_dir: PathBuf,
    /// Ranking modes to evaluate
    #[arg(long, value_name = "MODES", value_delimiter = ',', default_value = "sparse")]
    pub(crate) modes: Vec<Mode>,
    #[command(flatten)]
    pub(crate) dense: DenseArgs,
    /// Split documents at sentence ends into passages of at most N tokens, special tokens included, of which up to OVERLAP are
    /// those of the passage before, as `index --passages` does; the sparse score of a document is that of its best passage
    #[arg(long, value_name = "N[/OVERLAP]", conflicts_with_all = ["dense", "engine"])]
    pub(crate) passages: Option<PassageLength>,
    /// Search engine that gives the rankings of the mode sparse: each task fills a collection, which is removed afterwards
    #[arg(long, value_name = "ENGINE", requires_all = ["url", "collection"])]
    pub(crate) engine: Option<EngineKind>,
    #[command(flatten)]
    pub(crate) at: EngineArgs,
    /// Split of the judgements; default: the task's own, else test
    #[arg(long, value_name = "SPLIT")]
    pub(crate) split: Option<String>,
    /// Stemmers of BM25, each a row of the table: none, norwegian (nb, nn), danish (da), swedish (sv), english (en); default:
    /// that of --tuned, else none; with --list, languages of the tasks: nb, da, ...
    #[arg(long, value_name = "LANGUAGE", value_delimiter = ',')]
    pub(crate) language: Vec<String>,
    #[command(flatten)]
    pub(crate) fusion: FusionArgs,
    #[command(flatten)]
    pub(crate) bm25: Bm25Args,
    /// Take the settings that `tune --hybrid` has written into this index, for rankings with its stemmer
    #[arg(long, value_name = "INDEX")]
    pub(crate) tuned: Option<PathBuf>,
    /// Report active dims, weights, posting lists, expansions and frequent terms of queries and documents, against the
    /// targets
    #[arg(long)]
    pub(crate) analyze_sparsity: bool,
    /// Write a report to this file: one self-contained page of HTML
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Compare with other results: a result file or a results folder of MTEB, of any version and of several models, an object
    /// of tasks and scores (.json), or a TREC run. Where both runs exist, they are tested query by query
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) baseline: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) comparison: ComparisonArgs,
    /// Model name in the results; default: `local/` and the folder's name
    #[arg(long, value_name = "OWNER/NAME")]
    pub(crate) model_name: Option<String>,
    /// Score a TREC run of another system beside the modes; repeatable
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) run: Vec<String>,
    /// Write each ranking as a TREC run
    #[arg(long)]
    pub(crate) save_runs: bool,
    /// Write the sparse scores into the model card: `model-index` in README.md of the model folder
    #[arg(long)]
    pub(crate) publish: bool,
    /// Leave out of a ranking the document with the query's own id; default: for the data sets where mteb does
    /// (ArguAna, Quora, FiQA, ...)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) ignore_identical_ids: Option<bool>,
    /// Encode every text again: neither take vectors from the cache nor keep them there
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Replace existing results
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Output format; md is the whole report as Markdown
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: ReportFormat,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

impl EvalMtebArgs {
    /// Output format.
    pub(crate) fn format(&self) -> ReportFormat {
        if self.json { ReportFormat::Json } else { self.format }
    }
}
