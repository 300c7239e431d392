//! Flags of the commands that make and compare models: they need Candle.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::network::PrecisionChoice;
use super::values::positive;
use super::{DeviceChoice, ReadingArgs, Role};

/// Train a model from a YAML config
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  splade train configs/demo-pretrain.yaml --set training.max_steps=50 --dry-run")]
pub(crate) struct TrainArgs {
    /// Training config
    #[arg(value_name = "CONFIG.yaml")]
    pub(crate) config: PathBuf,
    /// Resume from the last checkpoint in output_dir
    #[arg(long)]
    pub(crate) resume: bool,
    /// Resume from this checkpoint
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub(crate) resume_from: Option<PathBuf>,
    /// Override a config key; repeatable
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print the resolved config, the data sets and the number of steps, without training
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Start from the beginning even if output_dir holds a training, which is removed except `final`
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Number of threads for tensors and tokenizers; 0: all cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

/// Export a model to ONNX files and compare them with the checkpoint
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade export-onnx demo/model/final
  splade export-onnx demo/model/final --precision fp32,int8 --eval tests/data/lohelp-nb

fp16 files have half the size and the speed of fp32; int8 files have a quarter of the size and are
the fastest on a CPU. Names: model_fp16.onnx, model_splade_int8.onnx and so on; the other commands
select them with --precision.")]
pub(crate) struct ExportOnnxArgs {
    /// Model folder, or Hub id: owner/name or owner/name@revision
    pub(crate) model: PathBuf,
    /// Output folder; default: `onnx/` beside the network's config.json. A model of the Hub is copied to ./NAME first
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Version of the ONNX operator set
    #[arg(long, value_name = "N", default_value_t = 17, value_parser = clap::value_parser!(i64).range(17..=18))]
    pub(crate) opset: i64,
    /// Output of the graph: `logits` writes model.onnx (3-D logits, names of optimum), `splade` model_splade.onnx (pooled
    /// vectors); default: both files
    #[arg(long)]
    pub(crate) head: Option<HeadChoice>,
    /// Precision of the files, one or several: `--precision fp32,int8`
    #[arg(long, value_name = "PRECISION", value_delimiter = ',', default_value = "fp32")]
    pub(crate) precision: Vec<PrecisionChoice>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Write the query table of an inference-free model too, as idf.json: weights by token, which OpenSearch and fastembed read
    #[arg(long)]
    pub(crate) idf: bool,
    /// Skip the comparison with the checkpoint
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Evaluate each precision on this data folder (nDCG@10, beside fp32); repeatable
    #[arg(long, value_name = "DIR")]
    pub(crate) eval: Vec<PathBuf>,
    /// Truncate texts of --eval to N tokens; default: as the model folder says
    #[arg(long, value_name = "N", requires = "eval", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_length: Option<u32>,
    /// Replace existing files
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Print the parity table as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Number of threads; 0: all cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HeadChoice {
    Logits,
    Splade,
}

/// Compare all backends and files of a model, stage by stage
///
/// The reference is the checkpoint in Candle on the CPU. Every ONNX file of the folder runs in ONNX Runtime and, where it
/// has the operators, in candle-onnx. Exit code 0: all agree, 1: there is a difference.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade verify demo/model/final
  splade verify demo/model/final --input texts.jsonl --role document --reference python.jsonl")]
pub(crate) struct VerifyArgs {
    /// Model folder, or Hub id
    pub(crate) model: PathBuf,
    /// Texts to compare, in any format of `encode`; default: built-in texts in Norwegian, Danish, Swedish and English
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Vectors of these texts by another implementation, in the format of `encode`, compared with every backend
    #[arg(long, value_name = "FILE", requires = "input")]
    pub(crate) reference: Option<PathBuf>,
    /// Side of the model that the reference vectors belong to
    #[arg(long, default_value = "document", requires = "reference")]
    pub(crate) role: Role,
    /// Largest allowed difference; default: 1e-4 in f32, more in fp16 and int8 files
    #[arg(long, value_name = "X", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) tolerance: Option<f32>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Device of the compared networks
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Number of threads; 0: all cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Truncate texts to N tokens; default: as the model folder says, at most 512
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_length: Option<u32>,
    /// Tokens per batch, padding included
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_tokens: u32,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
