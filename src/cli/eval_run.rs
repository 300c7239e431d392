//! Flags of `eval-run`, and those of comparisons that `eval-mteb` shares.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use splade_eval::Resampling;

use super::NetworkArgs;
use super::values::at_least_one;

/// Score a run file against judgements with the metrics of MTEB
///
/// The means are over the queries that are in the run and in the judgements, equal scores rank by document id descending,
/// and a grade above 0 is relevant, as in trec_eval and MTEB.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade eval-run run.trec qrels.tsv --metrics ndcg_at_10,recall_at_100
  splade eval-run run.trec qrels.tsv --baseline bm25.trec --report report.html

Metrics: ndcg, map, recall, precision, mrr and hit_rate, each with a cut-off (ndcg_at_10), and
accuracy and nauc_* of MTEB.")]
pub(crate) struct EvalRunArgs {
    /// Run: TREC form, .jsonl of `search --json` or of sentence-transformers, or a prediction file of MTEB (.json)
    pub(crate) run: PathBuf,
    /// Judgements: TREC form, .tsv in the form of BEIR, .jsonl or .parquet
    pub(crate) qrels: PathBuf,
    /// Metrics; default: ndcg_at_10, mrr_at_10, map_at_100, recall_at_100, precision_at_10
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) metrics: Vec<String>,
    /// Show the metrics of every query too
    #[arg(long)]
    pub(crate) per_query: bool,
    /// Count judged queries that the run lacks as 0, as `trec_eval -c` does
    #[arg(long)]
    pub(crate) all_judged: bool,
    /// Leave out of a ranking the document with the query's own id
    #[arg(long)]
    pub(crate) ignore_identical_ids: bool,
    /// Subset to read from a prediction file of several
    #[arg(long, value_name = "NAME")]
    pub(crate) subset: Option<String>,
    /// Split to read from a prediction file of several
    #[arg(long, value_name = "NAME")]
    pub(crate) split: Option<String>,
    /// Compare with another run, or with a result file of MTEB
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) comparison: ComparisonArgs,
    /// Number of queries to list that are best and worst, or gained and lost most
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) top: usize,
    /// Texts of the queries: .jsonl, .tsv or .parquet. Without a baseline, the best and worst queries are listed
    #[arg(long, value_name = "FILE")]
    pub(crate) queries: Option<PathBuf>,
    /// Index folder that explains the listed queries by their terms
    #[arg(long, value_name = "DIR", requires = "queries")]
    pub(crate) index: Option<PathBuf>,
    /// Write a report to this file: one self-contained page of HTML
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Replace an existing report
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: ReportFormat,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Model folder or Hub id, for an index whose queries need the network
    #[arg(long, value_name = "MODEL", requires = "index")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    Table,
    /// Markdown
    Md,
    Json,
}

/// Settings of paired tests.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ComparisonArgs {
    /// Number of resamples of the randomisation test and of the bootstrap interval
    #[arg(long, value_name = "N", default_value_t = Resampling::default().resamples, value_parser = at_least_one,
        requires = "baseline")]
    pub(crate) resamples: usize,
    /// Seed of the resamples
    #[arg(long, value_name = "N", default_value_t = Resampling::default().seed, requires = "baseline")]
    pub(crate) seed: u64,
}

impl From<ComparisonArgs> for Resampling {
    fn from(args: ComparisonArgs) -> Self {
        Self { resamples: args.resamples, seed: args.seed }
    }
}
