//! Flags of dense models and rankings.

use std::path::PathBuf;

use clap::Args;

/// Dense model of documents and queries.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DenseArgs {
    /// Dense model, in the layout of sentence-transformers with an ONNX file: a folder or Hub id. Its vectors stand beside the
    /// sparse ones, for --mode dense and as a third ranking in hybrid mode
    #[arg(long, value_name = "MODEL")]
    pub(crate) dense: Option<PathBuf>,
    /// Text put before queries for the dense model; default: as its folder says
    #[arg(long, value_name = "TEXT", requires = "dense", allow_hyphen_values = true)]
    pub(crate) dense_query_prompt: Option<String>,
    /// Text put before documents for the dense model; default: as its folder says
    #[arg(long, value_name = "TEXT", requires = "dense", allow_hyphen_values = true)]
    pub(crate) dense_document_prompt: Option<String>,
}

/// Source of the dense ranking of a search.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DenseSearchArgs {
    /// Dense model that the index was made with, a folder or Hub id: for --mode dense, and for a third ranking in hybrid mode
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["dense_run", "query_vectors"])]
    pub(crate) dense: Option<PathBuf>,
    /// TREC run to take as the dense ranking, by the ids of --queries; the index needs no dense vectors
    #[arg(long, value_name = "FILE")]
    pub(crate) dense_run: Option<PathBuf>,
}
