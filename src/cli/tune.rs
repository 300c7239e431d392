//! Flags of `tune`.

use std::path::PathBuf;

use clap::Args;

use super::NetworkArgs;
use super::values::at_least_one;

/// Measure how pruning changes an index, or choose the settings of hybrid search
///
/// Every setting of --max-active-dims, --mass and --min-weight is applied to the vectors in the index, in a temporary index
/// beside it. Quality is nDCG@10 by judgements, or the recall of the best 10 documents without pruning. The knee is the setting
/// with the largest quality minus size, both scaled to 0 to 1 over all settings.
///
/// With --hybrid, the settings are the fusion of the sparse and the BM25 ranking, its weights, scaling and depth, and k1, b and
/// compounds of BM25. With --dense or --dense-run, a dense ranking is the third; searches with one use the settings then. They are chosen on queries with judgements, written into the index, and used by `search` where no flag
/// says otherwise. The score of the choice is that of queries that it had not seen, by cross-validation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade tune --index wiki.index --queries queries.jsonl --svg pruning.svg
  splade tune --hybrid --index wiki.index --queries queries.jsonl --qrels qrels/test.tsv --folds 2
  splade tune --hybrid --index dense.index --queries queries.jsonl --qrels qrels/test.tsv --folds 2 --dense dense-model

Take other queries to tune than to evaluate.")]
pub(crate) struct TuneArgs {
    /// Choose the settings of hybrid search instead
    #[arg(long)]
    pub(crate) hybrid: bool,
    /// Index folder
    #[arg(long, value_name = "DIR")]
    pub(crate) index: PathBuf,
    /// File of queries: .jsonl, .tsv or .parquet; -: stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) queries: PathBuf,
    /// Judgements of the queries: TSV with the columns query-id, corpus-id and score
    #[arg(long, value_name = "FILE", required_if_eq("hybrid", "true"))]
    pub(crate) qrels: Option<PathBuf>,
    /// Draw quality against size and latency
    #[arg(long, value_name = "FILE", conflicts_with = "hybrid")]
    pub(crate) svg: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long, conflicts_with = "hybrid")]
    pub(crate) overwrite: bool,
    /// Number of parts of the queries in the cross-validation of --hybrid
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        requires = "hybrid",
        value_parser = clap::value_parser!(u16).range(2..=100)
    )]
    pub(crate) folds: u16,
    /// Numbers of hits taken from each ranking that --hybrid chooses from
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "50,100,200",
        requires = "hybrid",
        value_parser = at_least_one
    )]
    pub(crate) depths: Vec<usize>,
    /// Dense model that the index was made with, a folder or Hub id: --hybrid chooses the weights of three rankings
    #[arg(long, value_name = "MODEL", requires = "hybrid", conflicts_with = "dense_run")]
    pub(crate) dense: Option<PathBuf>,
    /// TREC run to take as the dense ranking, by the ids of --queries; the index needs no dense vectors
    #[arg(long, value_name = "FILE", requires = "hybrid")]
    pub(crate) dense_run: Option<PathBuf>,
    /// Print the choice of --hybrid without writing it into the index
    #[arg(long, requires = "hybrid")]
    pub(crate) dry_run: bool,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Model folder or Hub id, for models whose queries need the network
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}
