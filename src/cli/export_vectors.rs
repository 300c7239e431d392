//! Flags of `export-vectors`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use splade_files::Impacts;

/// Write the vectors of an index, or of a file, as files that other programs read
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade export-vectors wiki.index --format jsonl --impacts 100 --output impacts.jsonl
  splade export-vectors wiki.index --format csr --output vectors.csr
  splade export-vectors wiki.index --format ciff --output vectors.ciff
  splade export-vectors wiki.index --format parquet-postings --output tables

jsonl: a document a line, for Anserini, Pyserini and Seismic.
csr: the matrix of the Big ANN Benchmarks, with the ids in FILE.ids.txt.
ciff: the Common Index File Format, for PISA, Anserini, PyTerrier and BMP.
parquet-postings: a folder with postings.parquet and documents.parquet, for DuckDB, ClickHouse and Spark.")]
pub(crate) struct ExportVectorsArgs {
    /// Index folder, or file of vectors in any form of `index --vectors`
    #[arg(value_name = "INDEX|VECTORS")]
    pub(crate) source: PathBuf,
    /// Format of the output
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: ExportFormat,
    /// Output file, or folder of parquet-postings; -: stdout, for jsonl
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Name the entries of jsonl and ciff by dimension or by token; default: ids
    #[arg(long, value_name = "KEYS")]
    pub(crate) keys: Option<ExportKeys>,
    /// Write whole numbers in the place of weights: weight × SCALE, rounded; for jsonl and ciff; default of ciff: 100
    #[arg(long, value_name = "SCALE", value_parser = impacts)]
    pub(crate) impacts: Option<Impacts>,
    /// Model folder or Hub id that made the vectors: gives the names of tokens if the source has none, and the number of
    /// dimensions of a file of vectors
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Read the ids of a file of vectors from this file, one per line; default: row numbers from 0. Only for .npz,
    /// .safetensors and .csr
    #[arg(long, value_name = "IDS.txt")]
    pub(crate) vector_ids: Option<PathBuf>,
    /// Replace an existing output
    #[arg(long)]
    pub(crate) overwrite: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    Jsonl,
    Csr,
    Ciff,
    ParquetPostings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportKeys {
    Ids,
    Tokens,
}

fn impacts(text: &str) -> Result<Impacts, String> {
    let scale = text.parse().ok().and_then(Impacts::new);
    scale.ok_or_else(|| "expected a number above 0, like 100".to_owned())
}
