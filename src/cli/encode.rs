//! Flags of `encode`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use splade_core::Pruning;

use super::values::at_least_one;
use super::{NetworkArgs, PruneArgs, ShardArgs};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Query,
    Document,
}

/// Encode texts as sparse vectors
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade encode demo/model/final --input corpus.jsonl --role document --output vectors.jsonl
  splade encode demo/model/final --input corpus.jsonl --role document --output 0.jsonl --shard 0/2
  echo 'Hvem bor i Oslo?' | splade encode demo/model/final --input - --role query")]
pub(crate) struct EncodeArgs {
    /// Model folder, or Hub id: owner/name or owner/name@revision
    pub(crate) model: PathBuf,
    /// Texts: .jsonl, .tsv, .parquet, or .txt with one text per line; also .gz and .zst; -: stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Side of the model that encodes the texts
    #[arg(long)]
    pub(crate) role: Role,
    /// Output file; default: stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Short for --max-active-dims
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with = "max_active_dims")]
    top_k: Option<usize>,
    #[command(flatten)]
    prune: PruneArgs,
    /// Name entries by index or by token
    #[arg(long, value_name = "FORMAT", default_value = "indices")]
    pub(crate) format: VectorFormat,
    /// Replace an existing file
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) share: ShardArgs,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

impl EncodeArgs {
    /// Output file; none for stdout.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| path.as_os_str() != "-")
    }

    /// Pruning of the vectors.
    pub(crate) fn pruning(&self) -> splade_core::Result<Pruning> {
        PruneArgs { max_active_dims: self.top_k.or(self.prune.max_active_dims), ..self.prune }.pruning()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VectorFormat {
    Indices,
    Tokens,
}
