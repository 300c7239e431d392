//! Flags of `inspect` and `push`.

use std::path::PathBuf;

use clap::Args;

use super::ReadingArgs;

/// Show the contents of a model folder, ONNX file, index, query table, checkpoint or vector file
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade inspect demo/model/final
  splade inspect demo/model/final/query_0_SparseStaticEmbedding/model.safetensors --top 20
  splade inspect vectors.jsonl --model demo/model/final")]
pub(crate) struct InspectArgs {
    /// Folder or file, or the Hub id of a model
    pub(crate) path: PathBuf,
    /// Analyse the vectors of an index: distributions of active dims, weights and posting lists, frequent terms, expansions,
    /// decoded samples
    #[arg(long)]
    pub(crate) analyze_sparsity: bool,
    /// Number of terms, operators or tensors to list
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,
    /// Model folder or Hub id whose tokenizer names the terms of a table or vector file
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Upload a model folder to the Hugging Face Hub
///
/// Makes the repository if there is none, and commits the files that it does not have or has otherwise. Left out are hidden
/// and temporary files, checkpoints, and the state of a training. An upload that was interrupted resumes: complete large
/// files are not sent again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade push demo/model/final owner/name --private
  splade push demo/model/final owner/name --revision candidate --message 'A longer training'

The token is that of HF_TOKEN, else the one that `hf auth login` has stored. It is sent to the Hub only.")]
pub(crate) struct PushArgs {
    /// Model folder
    pub(crate) model: PathBuf,
    /// Repository on the Hub: owner/name, or the name of one of your own
    #[arg(value_name = "REPO")]
    pub(crate) repo: String,
    /// Make the repository private; one that exists must be private already
    #[arg(long)]
    pub(crate) private: bool,
    /// Branch to commit to, which is made if there is none; default: main
    #[arg(long, value_name = "BRANCH")]
    pub(crate) revision: Option<String>,
    /// Message of the commit
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) message: Option<String>,
    /// List the files that would be uploaded, without the network
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
