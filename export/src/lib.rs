//! From a checkpoint to an ONNX file that agrees with it.
//!
//! A forward pass is written once, in `splade-trainer`; this crate runs it over a recorder that writes an ONNX node where
//! Candle computes. Nothing about a family is written down a second time.
//!
//! ```no_run
//! use std::path::Path;
//! use splade_export::{Head, Options, export, write};
//! use splade_trainer::model::{TransformerConfig, Weights};
//!
//! # fn main() -> splade_export::Result<()> {
//! let folder = Path::new("model");
//! let path = folder.join("config.json");
//! let json = std::fs::read_to_string(&path).map_err(splade_index::Error::io(&path))?;
//! let config = TransformerConfig::parse(&json, &path)?;
//! let weights = Weights::read(&folder.join("model.safetensors"), &config)?;
//!
//! let model = export(&config, &weights, Head::Splade(Default::default()), &Options::default())?;
//! write(model, &folder.join(splade_export::SPLADE_FILE))?;
//! # Ok(())
//! # }
//! ```
//!
//! Two heads: [`Head::Logits`] is what the Python libraries, Vespa and fastembed read; [`Head::Splade`] gives finished
//! document vectors, several times faster, since `[B, T, V]` is activated nowhere. [`parity`] proves that a file agrees
//! with the checkpoint, in every runtime at hand.

#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod error;
mod graph;
pub mod parity;
mod proto;
mod recorder;

use std::collections::BTreeMap;

use candle_onnx::onnx::tensor_proto::DataType;
use splade_index::SpladePooling;
use splade_trainer::model::{Inputs, TransformerConfig, Weights, splade};

pub use candle_onnx::onnx::ModelProto;
pub use error::{Error, Result};
pub use proto::write;

use proto::{Axis, ROWS, TOKENS};
use recorder::Recorder;

/// The file name of [`Head::Logits`], the one every consumer looks for.
pub const LOGITS_FILE: &str = "model.onnx";
/// The file name of [`Head::Splade`]; not `model.onnx`, which readers take for logits.
pub const SPLADE_FILE: &str = "model_splade.onnx";

/// What an exported file gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// `logits` `[batch_size, sequence_length, V]`, before any pooling
    Logits,
    /// `sentence_embedding` `[batch_size, V]`: SPLADE weights, pooled and activated
    Splade(SpladePooling),
}

impl Head {
    /// The name of the output.
    #[must_use]
    pub fn output(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Splade(_) => "sentence_embedding",
        }
    }

    /// The customary file name.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Logits => LOGITS_FILE,
            Self::Splade(_) => SPLADE_FILE,
        }
    }
}

/// How a file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// version of the operator set, 17 or 18
    pub opset: i64,
    /// `metadata_props` of the file: any keys and values
    pub metadata: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { opset: 17, metadata: BTreeMap::new() }
    }
}

/// The operator sets a file can be written for.
pub const OPSETS: [i64; 2] = [17, 18];

/// Records the forward pass of a checkpoint as an ONNX model.
///
/// Inputs are `input_ids`, `attention_mask` and, for families that have them, `token_type_ids`: int64
/// `[batch_size, sequence_length]`, both axes free, texts padded on the right.
///
/// # Errors
/// An opset other than 17 and 18; weights that are not those of the config.
pub fn export(config: &TransformerConfig, weights: &Weights, head: Head, options: &Options) -> Result<ModelProto> {
    if !OPSETS.contains(&options.opset) {
        let message = format!("opset {} cannot be written", options.opset);
        return Err(Error::invalid(message, "opset 17 is read by every consumer; 18 is the other one"));
    }
    let recorder = Recorder::new(weights, options.opset);
    let mask = recorder.input("attention_mask");
    let inputs = Inputs {
        ids: recorder.input("input_ids"),
        mask: mask.clone(),
        token_types: config.has_token_types().then(|| recorder.input("token_type_ids")),
    };
    let encoded = config.forward(&recorder, &inputs)?;
    let value = match head {
        Head::Logits => encoded.head.logits(&recorder)?,
        Head::Splade(pooling) => splade(&recorder, &encoded.head, &mask, pooling)?,
    };
    let graph = recorder.finish(&value, input_infos(config), output_info(config, head))?;
    Ok(proto::model(graph, options))
}

fn input_infos(config: &TransformerConfig) -> Vec<candle_onnx::onnx::ValueInfoProto> {
    let names = ["input_ids", "attention_mask", "token_type_ids"];
    let names = if config.has_token_types() { &names[..] } else { &names[..2] };
    names.iter().map(|name| proto::value_info(name, DataType::Int64, &[ROWS, TOKENS])).collect()
}

fn output_info(config: &TransformerConfig, head: Head) -> candle_onnx::onnx::ValueInfoProto {
    let terms = Axis::Fixed(config.vocab_size());
    match head {
        Head::Logits => proto::value_info(head.output(), DataType::Float, &[ROWS, TOKENS, terms]),
        Head::Splade(_) => proto::value_info(head.output(), DataType::Float, &[ROWS, terms]),
    }
}
