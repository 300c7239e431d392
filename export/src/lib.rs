//! From a checkpoint to an ONNX file that agrees with it.
//!
//! A trained model is used where ONNX runs: in ONNX Runtime beside the index, in Python, in search engines. Its graph is
//! not written by hand, and Python is not needed: the forward pass, written once in `splade-trainer`, is run over a
//! recorder that writes an ONNX node where Candle computes.
//!
//! ```
//! use splade_export::parity::{CandleOnnx, Reference, compare};
//! use splade_export::{Head, Options, SPLADE_FILE, export, write};
//! use splade_core::TokenBatch;
//! use splade_trainer::model::{BertConfig, TransformerConfig, Weights};
//!
//! // A new model; `TransformerConfig::read` and `Weights::read` take one from a model folder.
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
//! // Proof: the file and the checkpoint on the same texts.
//! let batch = TokenBatch::new(&[vec![2, 17, 5, 3], vec![2, 9, 3]], 0);
//! let reference = Reference::new(&config, &weights, head);
//! compare(&file, head, &reference, &[&CandleOnnx::read(&file)?], &[batch])?.check()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Types
//!
//! * [`export`] records, [`write()`] writes; [`Options`] has the operator set and metadata.
//! * [`convert`] makes fp16 and int8 of what was recorded; ONNX Runtime runs all three.
//! * [`Head::Logits`] is what the Python libraries, Vespa and fastembed read; [`Head::Splade`] gives finished document
//!   vectors, several times faster, since `[B, T, V]` is activated nowhere.
//! * [`parity`] compares a file with its checkpoint, in every runtime at hand.
//!
//! # Design
//!
//! * Nothing about a family is written down a second time: a new one exports as soon as it trains.
//! * Names, types and axes are those of the Python exporter: `input_ids`, `attention_mask`, `token_type_ids`, `logits`, batch
//!   and sequence free, operator sets 17 and 18.
//! * Padding is excluded by selection, never by multiplication, so that no NaN comes out of a masked position.
//! * fp16 and int8 are made of the recorded graph, by rules: no data, no second exporter, standard operators only.
//! * A file is whole or not there; above 2 GiB its weights lie in a second file beside it.

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

/// The file name of [`Head::Logits`], the one every consumer looks for.
pub const LOGITS_FILE: &str = "model.onnx";
/// The file name of [`Head::Splade`]; not `model.onnx`, which readers take for logits.
pub const SPLADE_FILE: &str = "model_splade.onnx";

/// What an exported file gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// `last_hidden_state` `[batch_size, sequence_length, D]`, before the head: to compare stage by stage
    HiddenStates,
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
            Self::HiddenStates => "last_hidden_state",
            Self::Logits => "logits",
            Self::Splade(_) => "sentence_embedding",
        }
    }

    /// The customary file name.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::HiddenStates => "model_hidden_states.onnx",
            Self::Logits => LOGITS_FILE,
            Self::Splade(_) => SPLADE_FILE,
        }
    }

    /// Whether there is an output row for every token, rather than for every text.
    #[must_use]
    pub fn is_per_token(self) -> bool {
        !matches!(self, Self::Splade(_))
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

/// A recorded model in another precision; what is asked of it, and what it gives, stays the same.
///
/// * [`Precision::Fp16`] stores matrices in half the bytes and computes in f32: half the size, the same speed.
/// * [`Precision::Int8`] turns every product with a weight matrix into one of whole numbers: a quarter of the size, and on
///   a CPU the fastest. Weights have a scale per channel, activations one that is found while the model runs; no data is
///   needed. One activation scale serves a whole batch, so that a text's vector depends a little on its batch mates,
///   within what int8 loses anyway. For ONNX Runtime: candle-onnx lacks the operators.
///
/// # Errors
/// A weight that the precision cannot hold, by name.
pub fn convert(model: ModelProto, precision: Precision) -> Result<ModelProto> {
    let mut model = match precision {
        Precision::Fp32 => model,
        Precision::Fp16 => fp16::store_half(model)?,
        Precision::Int8 => int8::quantize(model)?,
    };
    proto::state(&mut model, metadata::PRECISION, precision.name());
    Ok(model)
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

/// What is done to the largest logits of a head before they are activated, where that is all and leaves zeros.
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
