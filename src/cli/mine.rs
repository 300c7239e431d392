//! Flags of `mine`.

use std::path::PathBuf;

use clap::Args;

use super::search::mode_without_dense;
use super::values::at_least_one;
use super::{Mode, NetworkArgs};

/// Mine hard negatives for training pairs from an index or a run file
///
/// For each pair of a query and a document that answers it, the documents of a window of ranks become its negatives, unless
/// the input has them as a positive of the query. The output is in the training format: anchor, positive, negative_1, …
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade mine pairs.jsonl --index wiki.index --ranks 2-50 --negatives 3 --output mined.jsonl
  splade mine pairs.jsonl --index wiki.index --mode bm25 --teacher demo/model/final > scored.jsonl

A high rank is a hard negative, and is sometimes an answer that nobody has marked: a window that begins
below the first ranks, or a margin to the positive's score, leaves most of those out.")]
pub(crate) struct MineArgs {
    /// Training pairs: .jsonl, .tsv or .parquet; also .gz and .zst; -: stdin
    #[arg(value_name = "PAIRS")]
    pub(crate) input: PathBuf,
    /// Index folder to search
    #[arg(long, value_name = "DIR", required_unless_present = "run", conflicts_with = "run")]
    pub(crate) index: Option<PathBuf>,
    /// Ranking mode of the index
    #[arg(long, default_value = "sparse", value_parser = mode_without_dense())]
    pub(crate) mode: Mode,
    /// TREC run to take rankings from, by the query_id of each pair
    #[arg(long, value_name = "FILE", requires = "corpus")]
    pub(crate) run: Option<PathBuf>,
    /// Documents that the run names: .jsonl, .tsv or .parquet
    #[arg(long, value_name = "CORPUS", requires = "run")]
    pub(crate) corpus: Option<PathBuf>,
    /// Output file; default: stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Negatives per row; a row for which there are fewer is left out
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) negatives: usize,
    /// Ranks to take negatives from, both ends included
    #[arg(long, value_name = "FIRST-LAST", default_value = "1-100", value_parser = crate::commands::mine::ranks)]
    pub(crate) ranks: std::ops::RangeInclusive<usize>,
    /// Leave out documents whose score is above that of the positive minus X
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) margin: Option<f32>,
    /// Leave out documents whose score is above that of the positive minus this share of it: 0.05 is 5 %
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(crate) relative_margin: Option<f32>,
    /// Model folder or Hub id whose scores of positive and negatives become the column label
    #[arg(long, value_name = "MODEL")]
    pub(crate) teacher: Option<PathBuf>,
    /// Column of queries; default: anchor, query, question or sentence1
    #[arg(long, value_name = "NAME")]
    pub(crate) anchor: Option<String>,
    /// Column of positives; default: positive, pos, answer, context, document or sentence2
    #[arg(long, value_name = "NAME")]
    pub(crate) positive: Option<String>,
    /// Replace an existing file
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Print the counts as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Model folder or Hub id, for an index whose queries need the network
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}
