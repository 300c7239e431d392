//! `config.json` of a transformer: which family it is, and its sizes.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::algebra::{Activation, Algebra, Inputs};
use super::bert::BertConfig;
use super::declaration::{Declaration, Declared};
use super::mlm_head::Encoded;
use crate::Error;

/// A masked-language model of a family we have; `architectures[0]` of `config.json` says which.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TransformerConfig {
    /// `BertForMaskedLM`
    Bert(BertConfig),
}

/// The values of `architectures[0]` that have a family here.
pub const ARCHITECTURES: [&str; 1] = ["BertForMaskedLM"];

impl TransformerConfig {
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
    /// Broken JSON, an architecture without a family here or without a masked-LM head, a key that cannot be.
    pub fn parse(json: &str, path: &Path) -> Result<Self, Error> {
        let value: Value = serde_json::from_str(json).map_err(|error| Error::file(path, error.to_string()))?;
        let architecture = value
            .get("architectures")
            .and_then(|names| names.get(0))
            .and_then(Value::as_str)
            .ok_or_else(|| Error::file(path, "no architectures[0]: which model this is cannot be known"))?;
        match architecture {
            "BertForMaskedLM" => {
                let config = BertConfig::deserialize(&value).map_err(|error| Error::file(path, error.to_string()))?;
                config.check().map_err(|error| Error::file(path, error.to_string()))?;
                Ok(Self::Bert(config))
            }
            other => Err(unsupported(path, other)),
        }
    }

    /// Texts to hidden states and the head's features, in whatever algebra.
    ///
    /// # Errors
    /// Those of the algebra.
    pub fn forward<A: Algebra>(&self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<Encoded<A::Tensor>, A::Error> {
        match self {
            Self::Bert(config) => config.forward(a, inputs),
        }
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
        match self {
            Self::Bert(config) => config.vocab_size,
        }
    }

    /// The longest text in tokens the position table allows.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        match self {
            Self::Bert(config) => config.max_position_embeddings,
        }
    }

    /// About how many floats a token leaves behind for the backward pass, to estimate memory: some twelve rows of the
    /// hidden size and four of the feed-forward size a layer, and one of the vocabulary's pooled part.
    #[must_use]
    pub fn activation_floats_per_token(&self) -> usize {
        match self {
            Self::Bert(config) => {
                config.num_hidden_layers * (12 * config.hidden_size + 4 * config.intermediate_size)
                    + 6 * config.hidden_size
            }
        }
    }

    /// Whether exported files have the input `token_type_ids`, as the family's own export would.
    #[must_use]
    pub fn has_token_types(&self) -> bool {
        match self {
            Self::Bert(_) => true,
        }
    }

    /// Names of an output matrix and the embedding it is tied to when the two are equal.
    #[must_use]
    pub fn tied(&self) -> (&'static str, &'static str) {
        match self {
            Self::Bert(_) => (super::bert::DECODER, super::bert::WORD_EMBEDDINGS),
        }
    }

    /// Second names under which checkpoints store a parameter, with its first; the second name's value counts.
    pub(crate) fn aliases(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bert(_) => &super::bert::ALIASES,
        }
    }

    /// Whether an output matrix equal to the embedding is the same parameter (`tie_word_embeddings`).
    #[must_use]
    pub fn ties_output(&self) -> bool {
        match self {
            Self::Bert(config) => config.tie_word_embeddings,
        }
    }

    /// Whether a name belongs to this family, to tell a foreign prefix from a name.
    pub(crate) fn owns(&self, name: &str) -> bool {
        match self {
            Self::Bert(_) => name.starts_with("bert.") || name.starts_with("cls."),
        }
    }

    /// Turns every dropout off, for parity runs of models whose config has some.
    pub fn without_dropout(&mut self) {
        match self {
            Self::Bert(config) => {
                config.hidden_dropout_prob = 0.0;
                config.attention_probs_dropout_prob = 0.0;
            }
        }
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

/// Reads an activation by the names of the transformers library.
pub(crate) fn activation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Activation, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => Err(serde::de::Error::custom(format!(
            "activation {other:?} is not known (gelu, gelu_new, gelu_pytorch_tanh, relu)"
        ))),
    }
}
