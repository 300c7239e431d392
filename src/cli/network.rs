//! Flags of models, their networks and the pruning of vectors.

use clap::{Args, ValueEnum};
use splade_core::{HeadMode, Pruning};

use super::values::{at_least_one, head_mode, key_value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionChoice {
    Fp32,
    Fp16,
    Int8,
}

impl From<PrecisionChoice> for splade_files::Precision {
    fn from(choice: PrecisionChoice) -> Self {
        match choice {
            PrecisionChoice::Fp32 => Self::Fp32,
            PrecisionChoice::Fp16 => Self::Fp16,
            PrecisionChoice::Int8 => Self::Int8,
        }
    }
}

/// Settings for reading a model folder, where its files leave a choice.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ReadingArgs {
    /// Logits of a NorBERT4 model to use; default: as the model folder says
    #[arg(long, value_name = "MODE", value_parser = head_mode())]
    pub(crate) mlm_head: Option<HeadMode>,
    /// Ignore an unknown key of the network's config.json that changes nothing in the forward pass; repeatable
    #[arg(long, value_name = "KEY")]
    pub(crate) ignore_config_key: Vec<String>,
}

/// Pruning of encoded vectors; an entry is kept if every given rule keeps it.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct PruneArgs {
    /// Keep the N entries of largest weight of each encoded vector
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(super) max_active_dims: Option<usize>,
    /// Keep entries of at least this weight
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    pub(super) min_weight: Option<f32>,
    /// Keep the entries of largest weight that have this share of the sum of all weights: 0.9 is 90 %
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(super) mass: Option<f32>,
}

impl PruneArgs {
    /// Checks the numbers.
    pub(crate) fn pruning(&self) -> splade_core::Result<Pruning> {
        let mut pruning = Pruning::default();
        if let Some(most) = self.max_active_dims {
            pruning = pruning.with_max_active_dims(most);
        }
        if let Some(least) = self.min_weight {
            pruning = pruning.with_min_weight(least)?;
        }
        match self.mass {
            Some(share) => pruning.with_mass(share),
            None => Ok(pruning),
        }
    }
}

/// Settings of the network.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArgs {
    /// Runtime of the network; auto: ONNX Runtime if the folder has an ONNX file and the library loads, else Candle
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    pub(crate) backend: Backend,
    /// Precision of the ONNX file to run, as written by `export-onnx --precision`
    #[arg(long, value_name = "PRECISION", default_value = "fp32")]
    pub(crate) precision: PrecisionChoice,
    /// Device of the network; ONNX Runtime falls back to the CPU, with a warning, if the device cannot be used
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Option of ONNX Runtime's execution provider (`device_id=1`), or of its session on the CPU
    /// (`session.intra_op.allow_spinning=0`); repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) ep_option: Vec<(String, String)>,
    /// Number of threads; 0: all cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Truncate texts to N tokens; default: as the model folder says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_length: Option<u32>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Remove special tokens, such as CLS, from every vector
    #[arg(long)]
    pub(crate) drop_special_terms: bool,
    /// Tokens per batch, padding included; memory is proportional to it
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_tokens: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    Auto,
    Onnx,
    Candle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceChoice {
    Auto,
    Cpu,
    Cuda,
    Coreml,
    Metal,
}
