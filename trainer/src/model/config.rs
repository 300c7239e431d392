//! `config.json` of a transformer: which family it is, and its sizes.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use splade_core::HeadMode;
use splade_files::ModelDir;

use super::algebra::{Algebra, Inputs};
use super::bert::BertConfig;
use super::declaration::{Declaration, Declared};
use super::distilbert::DistilBertConfig;
use super::mlm_head::Encoded;
use super::modernbert::ModernBertConfig;
use super::norbert3::Norbert3Config;
use super::norbert4::Norbert4Config;
use super::roberta::RobertaConfig;
use crate::Error;

/// A masked-language model of a family we have; `architectures[0]` of `config.json` says which.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TransformerConfig {
    /// `NorbertForMaskedLM`
    Norbert3(Norbert3Config),
    /// `GptBertForMaskedLM`
    Norbert4(Norbert4Config),
    /// `BertForMaskedLM`
    Bert(BertConfig),
    /// `DistilBertForMaskedLM`
    DistilBert(DistilBertConfig),
    /// `RobertaForMaskedLM`, `XLMRobertaForMaskedLM`
    Roberta(RobertaConfig),
    /// `ModernBertForMaskedLM`
    ModernBert(ModernBertConfig),
}

/// The values of `architectures[0]` that have a family here.
pub const ARCHITECTURES: [&str; 7] = [
    "NorbertForMaskedLM",
    "GptBertForMaskedLM",
    "BertForMaskedLM",
    "DistilBertForMaskedLM",
    "RobertaForMaskedLM",
    "XLMRobertaForMaskedLM",
    "ModernBertForMaskedLM",
];

/// What a family says of itself, beside its forward pass.
pub(super) trait Family: Sized {
    /// Keys of its `config.json` that change nothing in the forward pass, beside those of every family.
    const HARMLESS: &'static [&'static str];
    /// Names of an output matrix and the embedding it is tied to when the two are equal.
    const TIED: (&'static str, &'static str);
    /// Second names under which checkpoints store a parameter, with its first; the second name's value counts.
    const ALIASES: &'static [(&'static str, &'static str)];
    /// What its names begin with, to tell a foreign prefix from a name.
    const PREFIXES: &'static [&'static str];
    /// Whether exported files have the input `token_type_ids`, as the family's own export would.
    const TOKEN_TYPES: bool;

    /// Checks what the forward pass takes for granted; an error names the key.
    fn check(&self) -> Result<(), Error>;
    /// Texts to hidden states and the head's features.
    fn forward<A: Algebra>(&self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<Encoded<A::Tensor>, A::Error>;
    /// V.
    fn vocab_size(&self) -> usize;
    /// The longest text in tokens a table of positions allows; `None` where there is no such table.
    fn max_positions(&self) -> Option<usize>;
    /// Whether an output matrix equal to the embedding is the same parameter.
    fn ties_output(&self) -> bool;
    /// About how many floats a token leaves behind for the backward pass.
    fn activation_floats_per_token(&self) -> usize;
    /// Turns every dropout off.
    fn without_dropout(&mut self);
}

/// The same expression for every family.
macro_rules! each {
    ($config:expr, $family:ident => $value:expr) => {
        match $config {
            TransformerConfig::Norbert3($family) => $value,
            TransformerConfig::Norbert4($family) => $value,
            TransformerConfig::Bert($family) => $value,
            TransformerConfig::DistilBert($family) => $value,
            TransformerConfig::Roberta($family) => $value,
            TransformerConfig::ModernBert($family) => $value,
        }
    };
}

/// A constant of the family a config is of.
macro_rules! constant {
    ($config:expr, $name:ident) => {
        match $config {
            TransformerConfig::Norbert3(_) => Norbert3Config::$name,
            TransformerConfig::Norbert4(_) => Norbert4Config::$name,
            TransformerConfig::Bert(_) => BertConfig::$name,
            TransformerConfig::DistilBert(_) => DistilBertConfig::$name,
            TransformerConfig::Roberta(_) => RobertaConfig::$name,
            TransformerConfig::ModernBert(_) => ModernBertConfig::$name,
        }
    };
}

impl TransformerConfig {
    /// The transformer of a model folder, its logits used as the folder or its opener says.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn of(model: &ModelDir) -> Result<Self, Error> {
        let mut config = Self::read(&model.config_path())?;
        if let Some(choice) = model.head_choice() {
            config.set_head_mode(choice.mode)?;
        }
        Ok(config)
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// A file that is missing, or what [`parse`](Self::parse) refuses.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&std::fs::read_to_string(path).map_err(Error::io(path))?, path)
    }

    /// Reads the text of a `config.json`; `path` is for messages only.
    ///
    /// # Errors
    /// Broken JSON, an architecture without a family here or without a masked-LM head, a key that is unknown, missing or
    /// cannot be.
    pub fn parse(json: &str, path: &Path) -> Result<Self, Error> {
        let value: Value = serde_json::from_str(json).map_err(|error| Error::file(path, error.to_string()))?;
        let architecture = value
            .get("architectures")
            .and_then(|names| names.get(0))
            .and_then(Value::as_str)
            .ok_or_else(|| Error::file(path, "no architectures[0]: which model this is cannot be known"))?;
        let config = match architecture {
            "NorbertForMaskedLM" => Self::Norbert3(family(&value, path)?),
            "GptBertForMaskedLM" => Self::Norbert4(family(&value, path)?),
            "BertForMaskedLM" => Self::Bert(family(&value, path)?),
            "DistilBertForMaskedLM" => Self::DistilBert(family(&value, path)?),
            "RobertaForMaskedLM" | "XLMRobertaForMaskedLM" => Self::Roberta(family(&value, path)?),
            "ModernBertForMaskedLM" => Self::ModernBert(family(&value, path)?),
            other => return Err(unsupported(path, other)),
        };
        Ok(config)
    }

    /// What of its logits a NorBERT4 model uses; `None` for families where there is nothing to choose.
    #[must_use]
    pub fn head_mode(&self) -> Option<HeadMode> {
        match self {
            Self::Norbert4(config) => Some(config.mlm_head),
            _ => None,
        }
    }

    /// Chooses what of its logits a NorBERT4 model uses.
    ///
    /// # Errors
    /// A family where there is nothing to choose.
    pub fn set_head_mode(&mut self, mode: HeadMode) -> Result<(), Error> {
        match self {
            Self::Norbert4(config) => {
                config.mlm_head = mode;
                Ok(())
            }
            _ => Err(Error::invalid("mlm_head is a choice of NorBERT4 models, and this is none", "leave it out")),
        }
    }

    /// Texts to hidden states and the head's features, in whatever algebra.
    ///
    /// # Errors
    /// Those of the algebra.
    pub fn forward<A: Algebra>(&self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<Encoded<A::Tensor>, A::Error> {
        each!(self, family => family.forward(a, inputs))
    }

    /// The parameters the forward pass reads from a checkpoint that holds `present` (none for a new model).
    ///
    /// # Errors
    /// Those of the family.
    pub fn parameters(&self, present: impl IntoIterator<Item = String>) -> Result<Vec<Declared>, Error> {
        let declaration = Declaration::new(present);
        self.forward(&declaration, &declaration.inputs())?;
        Ok(declaration.into_declared())
    }

    /// V: the length of a document vector.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        each!(self, family => family.vocab_size())
    }

    /// The longest text in tokens the position table allows; `None` for families without such a table.
    #[must_use]
    pub fn max_positions(&self) -> Option<usize> {
        each!(self, family => family.max_positions())
    }

    /// About how many floats a token leaves behind for the backward pass, to estimate memory.
    #[must_use]
    pub fn activation_floats_per_token(&self) -> usize {
        each!(self, family => family.activation_floats_per_token())
    }

    /// Whether exported files have the input `token_type_ids`, as the family's own export would.
    #[must_use]
    pub fn has_token_types(&self) -> bool {
        constant!(self, TOKEN_TYPES)
    }

    /// Names of an output matrix and the embedding it is tied to when the two are equal.
    #[must_use]
    pub fn tied(&self) -> (&'static str, &'static str) {
        constant!(self, TIED)
    }

    /// Second names under which checkpoints store a parameter, with its first; the second name's value counts.
    pub(crate) fn aliases(&self) -> &'static [(&'static str, &'static str)] {
        constant!(self, ALIASES)
    }

    /// Whether an output matrix equal to the embedding is the same parameter (`tie_word_embeddings`).
    #[must_use]
    pub fn ties_output(&self) -> bool {
        each!(self, family => family.ties_output())
    }

    /// Whether a name belongs to this family, to tell a foreign prefix from a name.
    pub(crate) fn owns(&self, name: &str) -> bool {
        constant!(self, PREFIXES).iter().any(|prefix| name.starts_with(prefix))
    }

    /// Turns every dropout off, for parity runs of models whose config has some.
    pub fn without_dropout(&mut self) {
        each!(self, family => family.without_dropout());
    }
}

/// Reads and checks the config of one family.
fn family<F: Family + Serialize + DeserializeOwned>(value: &Value, path: &Path) -> Result<F, Error> {
    let config: F = serde_json::from_value(value.clone()).map_err(|error| Error::file(path, error.to_string()))?;
    let wrong = |error: Error| Error::file(path, error.to_string());
    supported(value).map_err(wrong)?;
    let known = serde_json::to_value(&config).map_err(|error| Error::file(path, error.to_string()))?;
    let unknown = value.as_object().into_iter().flat_map(|keys| keys.keys()).find(|key| {
        let key = key.as_str();
        known.get(key).is_none() && !F::HARMLESS.contains(&key) && !HARMLESS.contains(&key) && !key.starts_with('_')
    });
    if let Some(key) = unknown {
        return Err(Error::invalid(
            format!("{}: the key {key} is not known to this architecture", path.display()),
            "remove it if it changes nothing in the forward pass; what it does to the model is not known here",
        ));
    }
    config.check().map_err(wrong)?;
    Ok(config)
}

/// Keys that the libraries write into any config and that change nothing in a masked-LM model's forward pass.
const HARMLESS: [&str; 72] = [
    "add_cross_attention",
    "architectures",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cls_token_id",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "language",
    "length_penalty",
    "mask_token_id",
    "max_length",
    "min_length",
    "model_type",
    "name",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "transformers.js_config",
    "typical_p",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
    "sentence_transformers",
    "matryoshka_dimensions",
    "gradient_checkpointing",
];

/// Values of general keys that would change the forward pass.
fn supported(value: &Value) -> Result<(), Error> {
    let refused = |key: &str, allowed: &[Value]| match value.get(key) {
        Some(found) if !found.is_null() && !allowed.contains(found) => {
            Err(Error::config(key, format!("{found} is not supported"), ""))
        }
        _ => Ok(()),
    };
    refused("position_embedding_type", &["absolute".into(), "sans_pos".into()])?;
    refused("is_decoder", &[false.into()])?;
    refused("add_cross_attention", &[false.into()])?;
    refused("is_encoder_decoder", &[false.into()])?;
    refused("quantization_config", &[])?;
    match value.get("pruned_heads").and_then(Value::as_object) {
        Some(heads) if !heads.is_empty() => Err(Error::config("pruned_heads", "pruned heads are not supported", "")),
        _ => Ok(()),
    }
}

fn unsupported(path: &Path, architecture: &str) -> Error {
    let message = format!("{}: unsupported architecture {architecture}", path.display());
    if architecture.ends_with("ForMaskedLM") {
        return Error::invalid(message, format!("architectures that can be loaded: {}", ARCHITECTURES.join(", ")));
    }
    Error::invalid(
        format!("{message}, which has no masked-LM head and so cannot give SPLADE weights"),
        format!(
            "give the masked-LM checkpoint of this model; architectures that can be loaded: {}",
            ARCHITECTURES.join(", ")
        ),
    )
}

/// The greatest size a config may have: beyond it no file is, and products of two still fit a number.
const MOST: usize = 1 << 28;

/// Every size is at least 1.
pub(super) fn sizes(sizes: &[(&str, usize)]) -> Result<(), Error> {
    sizes.iter().try_for_each(|(key, size)| at_most(key, *size, MOST))
}

/// A number of layers.
pub(super) fn layers(key: &str, layers: usize) -> Result<(), Error> {
    at_most(key, layers, 1 << 12)
}

/// From 1 to `most`.
pub(super) fn at_most(key: &str, size: usize, most: usize) -> Result<(), Error> {
    match size {
        0 => Err(Error::config(key, "must be at least 1", "")),
        size if size > most => Err(Error::config(key, format!("{size} is more than can be"), "")),
        _ => Ok(()),
    }
}

/// Heads cut the hidden size into equal parts.
pub(super) fn heads_divide(key: &str, heads: usize, hidden_key: &str, hidden: usize) -> Result<(), Error> {
    if heads == 0 || !hidden.is_multiple_of(heads) || hidden == 0 {
        return Err(Error::config(key, format!("{heads} does not divide {hidden_key} {hidden}"), ""));
    }
    Ok(())
}

/// Positions that begin behind the padding id leave room for a token.
pub(super) fn positions_left(table: usize, pad: u32) -> Result<(), Error> {
    if table < pad as usize + 2 {
        let message = format!("{table} leaves no position for a token behind pad_token_id {pad}");
        return Err(Error::config("max_position_embeddings", message, ""));
    }
    Ok(())
}

/// Numbers that are finite and not negative.
pub(super) fn numbers(numbers: &[(&str, f64)]) -> Result<(), Error> {
    match numbers.iter().find(|(_, number)| !(number.is_finite() && *number >= 0.0)) {
        Some((key, number)) => Err(Error::config(*key, format!("{number} is not a number from 0"), "")),
        None => Ok(()),
    }
}

/// Probabilities of dropout.
pub(super) fn probabilities(probabilities: &[(&str, f64)]) -> Result<(), Error> {
    match probabilities.iter().find(|(_, probability)| !(0.0..1.0).contains(probability)) {
        Some((key, probability)) => Err(Error::config(*key, format!("{probability} is not from 0 to below 1"), "")),
        None => Ok(()),
    }
}

/// Activations by the names of the transformers library, for serde.
pub(super) mod activation {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::Activation;

    /// The name of an activation a config may ask for.
    pub(in crate::model) fn name(activation: Activation) -> &'static str {
        match activation {
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_new",
            Activation::Relu => "relu",
            Activation::Tanh => "tanh",
            Activation::Sigmoid => "sigmoid",
            Activation::Softplus => "softplus",
        }
    }

    pub(in crate::model) fn serialize<S: Serializer>(value: &Activation, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name(*value))
    }

    pub(in crate::model) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Activation, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            other => Err(serde::de::Error::custom(format!(
                "activation {other:?} is not known (gelu, gelu_new, gelu_pytorch_tanh, relu)"
            ))),
        }
    }
}
