//! Flags of a job on many machines: a shard of an input, and the union of all shards.

use std::path::PathBuf;

use clap::Args;
use splade_files::Shard;

/// Share of an input.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ShardArgs {
    /// Take only the documents of shard I of N, numbered from 0, by a hash of their ids; `splade merge` joins the shards. An
    /// output that is complete stays as it is, so that the command can be run again
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<Shard>,
    /// Take all documents of the input, which is part I of N parts already
    #[arg(long, requires = "shard")]
    pub(crate) presplit: bool,
}

/// Join the shards of `index --shard` or `encode --shard` into one index or vector file
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade merge shards/0.index shards/1.index --index merged.index
  splade merge shards/0.jsonl shards/1.jsonl --output merged.jsonl

A merged vector file equals that of one run byte for byte, and a merged index gives the same hits with
the same scores. Shards that do not belong together, or do not make up their input, are refused by name.")]
pub(crate) struct MergeArgs {
    /// All shards of a job, in any order: index folders or vector files
    #[arg(required = true, value_name = "SHARDS")]
    pub(crate) shards: Vec<PathBuf>,
    /// Index folder to write, from shards that are indexes
    #[arg(long, value_name = "DIR", required_unless_present = "output", conflicts_with = "output")]
    pub(crate) index: Option<PathBuf>,
    /// Vector file to write, from shards that are vector files; -: stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace an existing output
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Print the numbers as JSON
    #[arg(long, conflicts_with = "output")]
    pub(crate) json: bool,
}
