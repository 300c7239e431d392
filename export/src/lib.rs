//! Export of a checkpoint to an ONNX file that agrees with it.
//!
//! ONNX Runtime beside the index, Python libraries and search engines run ONNX files. The export needs no Python and no
//! graph written by hand: the forward pass of `splade-trainer` runs over a recorder, which writes an ONNX node for each
//! operation that Candle would compute.
//!
//! ```
//! use splade_export::parity::{CandleOnnx, Reference, compare};
//! use splade_export::{Head, Options, SPLADE_FILE, export, write};
//! use splade_core::TokenBatch;
//! use splade_trainer::model::{BertConfig, TransformerConfig, Weights};
//!
//! // a new model; `TransformerConfig::read` and `Weights::read` read one from a model folder
//! let sizes = BertConfig {
//!     vocab_size: 40, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32,
//!     ..BertConfig::default()
//! };
//! let config = TransformerConfig::Bert(sizes);
//! let weights = Weights::new(&config, 1)?;
//!
//! let head = Head::Splade(Default::default());
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join(SPLADE_FILE);
//! write(export(&config, &weights, head, &Options::default())?, &file)?;
//!
//! // compare the file with the checkpoint on the same texts
//! let batch = TokenBatch::new(&[vec![2, 17, 5, 3], vec![2, 9, 3]], 0);
//! let reference = Reference::new(&config, &weights, head);
//! compare(&file, head, &reference, &[&CandleOnnx::read(&file)?], &[batch])?.check()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Types
//!
//! * [`export`] records a model, [`write()`] writes it; [`Options`] has the operator set and metadata.
//! * [`convert`] converts a recorded model to fp16 or int8; ONNX Runtime runs all precisions.
//! * [`Head::Logits`] is the form for Python libraries, Vespa and fastembed. [`Head::Splade`] gives document vectors and is
//!   several times as fast, since it does not activate `[B, T, V]`.
//! * [`parity`] compares a file with its checkpoint, in every available runtime.
//!
//! # Design
//!
//! * The export has no code per family: a new family can be exported when it can be trained.
//! * Names, types and axes are those of the Python exporter: `input_ids`, `attention_mask`, `token_type_ids`,
//!   `logits`, batch and sequence free, operator sets 17 and 18.
//! * Padding is excluded by selection, never by multiplication, so that no NaN comes out of a masked position.
//! * fp16 and int8 files are conversions of the recorded graph by rules, without data, in standard operators.
//! * Files are written atomically. Above 2 GiB the weights are in a second file beside the first.

#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod error;
mod fp16;
mod graph;
mod int8;
pub mod parity;
mod proto;
mod recorder;

use std::collections::BTreeMap;

use candle_onnx::onnx::tensor_proto::DataType;
use splade_core::{Pooling, SpladePooling};
use splade_encode::metadata;
use splade_trainer::model::{Cap, Inputs, MlmHead, TransformerConfig, Weights, splade};

pub use candle_onnx::onnx::ModelProto;
pub use error::{Error, Result};
pub use proto::{read, write};
pub use splade_files::Precision;

use proto::{Axis, ROWS, TOKENS};
use recorder::Recorder;

/// File name of [`Head::Logits`], which all consumers expect.
pub const LOGITS_FILE: &str = "model.onnx";
/// File name of [`Head::Splade`]; not `model.onnx`, which readers treat as logits.
pub const SPLADE_FILE: &str = "model_splade.onnx";

/// Output of an exported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// `last_hidden_state` `[batch_size, sequence_length, D]`, before the head, for comparisons of stages
    HiddenStates,
    /// `logits` `[batch_size, sequence_length, V]`, before any pooling
    Logits,
    /// `sentence_embedding` `[batch_size, V]`: SPLADE weights, pooled and activated
    Splade(SpladePooling),
}

impl Head {
    /// Name of the output.
    #[must_use]
    pub fn output(self) -> &'static str {
        match self {
            Self::HiddenStates => "last_hidden_state",
            Self::Logits => "logits",
            Self::Splade(_) => "sentence_embedding",
        }
    }

    /// Usual file name.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::HiddenStates => "model_hidden_states.onnx",
            Self::Logits => LOGITS_FILE,
            Self::Splade(_) => SPLADE_FILE,
        }
    }

    /// True if the output has a row for every token, false if for every text.
    #[must_use]
    pub fn is_per_token(self) -> bool {
        !matches!(self, Self::Splade(_))
    }
}

/// Options of an export.
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

/// Converts a recorded model to another precision, with the same inputs and outputs.
///
/// * [`Precision::Fp16`] stores matrices in half the bytes and computes in f32: half the size, the same speed.
/// * [`Precision::Int8`] converts every product with a weight matrix to integers: a quarter of the size, and the
///   fastest on a CPU. Weights have a scale per channel; activations get a scale while the model runs, without data.
///   The texts of a batch share one activation scale, so that a vector depends a little on the other texts, within the
///   error of int8. ONNX Runtime runs it; candle-onnx lacks the operators.
///
/// # Errors
/// A weight beyond the range of the precision, by name.
pub fn convert(model: ModelProto, precision: Precision) -> Result<ModelProto> {
    let mut model = match precision {
        Precision::Fp32 => model,
        Precision::Fp16 => fp16::store_half(model)?,
        Precision::Int8 => int8::quantize(model)?,
    };
    proto::state(&mut model, metadata::PRECISION, precision.name());
    Ok(model)
}

/// Operator sets that a file can have.
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
    let weights = weights.clone().without_copy(config)?;
    let recorder = Recorder::new(&weights, options.opset);
    let mask = recorder.input("attention_mask");
    let inputs = Inputs {
        ids: recorder.input("input_ids"),
        mask: mask.clone(),
        token_types: config.has_token_types().then(|| recorder.input("token_type_ids")),
    };
    let encoded = config.forward(&recorder, &inputs)?;
    let value = match head {
        Head::HiddenStates => encoded.last_hidden_state,
        Head::Logits => encoded.head.logits(&recorder)?,
        Head::Splade(pooling) => splade(&recorder, &encoded.head, &mask, pooling)?,
    };
    let layer = recorder.output_layer().zip(output_cap(&encoded.head, head));
    let graph = recorder.finish(&value, input_infos(config), output_info(config, head, value.width()))?;
    let mut model = proto::model(graph, options);
    if let Some(([features, weight, bias], cap)) = layer {
        let layer = serde_json::json!({"features": features, "weight": weight, "bias": bias, "cap": cap});
        proto::state(&mut model, metadata::OUTPUT_LAYER, &layer.to_string());
    }
    Ok(model)
}

/// Cap of the largest logits of a head before the activation; none if the output layer cannot be split off.
fn output_cap<T>(of: &MlmHead<T>, head: Head) -> Option<&'static str> {
    let max = matches!(head, Head::Splade(pooling) if pooling.strategy == Pooling::Max);
    let cap = match of.cap {
        Cap::None => "none",
        Cap::Soft => "soft",
        Cap::Positive => return None,
    };
    (max && of.first.is_none()).then_some(cap)
}

fn input_infos(config: &TransformerConfig) -> Vec<candle_onnx::onnx::ValueInfoProto> {
    let names = ["input_ids", "attention_mask", "token_type_ids"];
    let names = if config.has_token_types() { &names[..] } else { &names[..2] };
    names.iter().map(|name| proto::value_info(name, DataType::Int64, &[ROWS, TOKENS])).collect()
}

fn output_info(config: &TransformerConfig, head: Head, width: Option<usize>) -> candle_onnx::onnx::ValueInfoProto {
    let terms = match head {
        Head::HiddenStates => width.map_or(Axis::Free("hidden_size"), Axis::Fixed),
        Head::Logits | Head::Splade(_) => Axis::Fixed(config.vocab_size()),
    };
    match head {
        Head::HiddenStates | Head::Logits => proto::value_info(head.output(), DataType::Float, &[ROWS, TOKENS, terms]),
        Head::Splade(_) => proto::value_info(head.output(), DataType::Float, &[ROWS, terms]),
    }
}
