//! Flags of `index`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use splade_core::PassageLength;
use splade_core::segment::ForwardPrecision;

use super::values::size;
use super::{DenseArgs, NetworkArgs, PruneArgs, ShardArgs};

/// Encode a corpus into an index
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade index demo/model/final --input corpus.jsonl.gz --index wiki.index --language norwegian
  splade index demo/model/final --input corpus.jsonl --index fields.index --fields year:int
  splade index demo/model/final --input corpus.jsonl --index long.index --passages 48/12
  splade index demo/model/final --index wiki.index --append --input more.jsonl --delete gone.txt
  splade index demo/model/final --input corpus.jsonl --index dense.index --dense dense-model
  splade index demo/model/final --input corpus.jsonl --index 0.index --shard 0/2
  splade index --optimize wiki.index
  splade index --check wiki.index

A run that is interrupted or killed is resumed by the same command. It reads the input again,
compares it with what is in DIR.unfinished, and continues after the last checkpoint. Input from
stdin cannot be resumed.")]
#[command(override_usage = "splade index [OPTIONS] --index <DIR> --input <CORPUS> <MODEL>
       splade index [OPTIONS] --optimize <DIR>
       splade index [OPTIONS] --check <DIR>")]
pub(crate) struct IndexArgs {
    /// Model folder, or Hub id: owner/name or owner/name@revision
    #[arg(required_unless_present_any = ["check", "optimize"])]
    model: Option<PathBuf>,
    /// Documents: .jsonl, .tsv or .parquet; also .gz and .zst; -: stdin
    #[arg(long, value_name = "CORPUS", required_unless_present_any = ["delete", "vectors", "check", "optimize"])]
    pub(crate) input: Option<PathBuf>,
    /// Index folder
    #[arg(long, value_name = "DIR", required_unless_present_any = ["check", "optimize"])]
    index: Option<PathBuf>,
    /// Check every byte of an index instead of writing one, by its checksums and its structure; a damaged, missing or
    /// unknown file is named, and the exit code is 1
    #[arg(long, value_name = "DIR", conflicts_with = "optimize", conflicts_with_all = OF_WRITING)]
    pub(crate) check: Option<PathBuf>,
    /// Merge all segments of an index into one, the fastest to search, and remove deleted documents; searches go on
    #[arg(long, value_name = "DIR", conflicts_with_all = OF_WRITING)]
    pub(crate) optimize: Option<PathBuf>,
    /// Add to an existing index; a document with the id of an indexed one replaces it
    #[arg(long, conflicts_with_all = ["overwrite", "shard"])]
    pub(crate) append: bool,
    /// Replace an existing index
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Delete the documents with these ids, one per line and taken exactly, before adding; requires --append
    #[arg(long, value_name = "IDS.txt", requires = "append", conflicts_with = "shard")]
    pub(crate) delete: Option<PathBuf>,
    /// Discard what an interrupted run left in DIR.unfinished, instead of resuming it
    #[arg(long)]
    pub(crate) restart: bool,
    /// Number of documents between two checkpoints, from which an interrupted run is resumed; there is one each minute too
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) checkpoint_every: u64,
    /// Memory for documents and vectors that are not on disk yet, and for merging them: `200MB`, `4GB`
    #[arg(long, value_name = "SIZE", default_value = "512MB", value_parser = size)]
    pub(crate) memory: usize,
    /// Read vectors from this file instead of encoding: .jsonl, .npz (CSR of SciPy), .safetensors (CSR: tensors indptr,
    /// indices, data) or .csr (CSR of the Big ANN Benchmarks). With --input, the same ids in the same order; alone, documents without text
    #[arg(long, value_name = "FILE")]
    pub(crate) vectors: Option<PathBuf>,
    /// Read the ids of --vectors from this file, one per line; default: those of --input, else row numbers from 0. Only for
    /// .npz, .safetensors and .csr
    #[arg(long, value_name = "IDS.txt", requires = "vectors")]
    pub(crate) vector_ids: Option<PathBuf>,
    /// Split documents at sentence ends into passages of at most N tokens, special tokens included, of which up to OVERLAP are
    /// those of the passage before; a hit is a document with its best passage; fixed when the index is created
    #[arg(long, value_name = "N[/OVERLAP]", conflicts_with_all = ["vectors", "dense"])]
    pub(crate) passages: Option<PassageLength>,
    #[command(flatten)]
    pub(crate) prune: PruneArgs,
    /// Number format of the weights: f32; f16, rounded to 11 bits; u8, rounded to multiples of 1/64 up to 3.98, which takes half
    /// the space of f32; fixed when the index is created; default: f32
    #[arg(long, value_name = "FORMAT")]
    pub(crate) weight_format: Option<WeightFormat>,
    /// Stemmer of BM25: none, norwegian (nb, nn), danish (da), swedish (sv), english (en), or auto: as the first documents
    /// are; fixed when the index is created
    #[arg(long, value_name = "LANGUAGE")]
    pub(crate) language: Option<String>,
    /// Typed fields of the documents, for filters and counts: keyword, int, float, date or bool, for instance
    /// `lang:keyword,year:int`; fixed when the index is created; default: those of the first 1000 documents; `none` for none
    #[arg(long, value_name = "NAME:TYPE,...")]
    pub(crate) fields: Option<String>,
    #[command(flatten)]
    pub(crate) dense: DenseArgs,
    #[command(flatten)]
    pub(crate) share: ShardArgs,
    /// Print the statistics, or what --check found, as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Number formats of the weights of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightFormat {
    F32,
    F16,
    U8,
}

impl From<WeightFormat> for ForwardPrecision {
    fn from(format: WeightFormat) -> Self {
        match format {
            WeightFormat::F32 => Self::F32,
            WeightFormat::F16 => Self::F16,
            WeightFormat::U8 => Self::U8,
        }
    }
}

/// Arguments of `index` that make no sense with `--check` and `--optimize`.
const OF_WRITING: [&str; 23] = [
    "model",
    "input",
    "index",
    "append",
    "overwrite",
    "delete",
    "restart",
    "checkpoint_every",
    "memory",
    "vectors",
    "vector_ids",
    "max_active_dims",
    "min_weight",
    "mass",
    "weight_format",
    "language",
    "fields",
    "passages",
    "dense",
    "dense_query_prompt",
    "dense_document_prompt",
    "shard",
    "presplit",
];

impl IndexArgs {
    /// Model to index with.
    pub(crate) fn model(&self) -> &Path {
        self.model.as_deref().expect("clap requires a model unless --check or --optimize is given")
    }

    /// Folder of the index to write.
    pub(crate) fn index(&self) -> &Path {
        self.index.as_deref().expect("clap requires --index unless --check or --optimize is given")
    }
}
