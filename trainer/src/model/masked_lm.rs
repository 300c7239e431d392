//! [`MaskedLm`]: the trait of a family, and checks that families share.

use splade_core::HeadMode;

use super::algebra::{Algebra, Inputs};
use super::mlm_head::Encoded;
use super::problem::ConfigProblem;

/// Sizes of what the layers of a network keep for the backward pass on the CPU, counted from the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activations {
    /// number of layers
    pub layers: usize,
    /// D
    pub hidden: usize,
    /// floats a token of one layer
    pub per_token: usize,
}

impl Activations {
    /// Floats that `rows` texts of `tokens` tokens take at most; with `layers_again`, layers keep their inputs only.
    #[must_use]
    pub fn floats(self, rows: usize, tokens: usize, layers_again: bool) -> usize {
        let layer = rows * tokens * self.per_token;
        let kept = if layers_again { rows * tokens * self.hidden } else { layer };
        // and the gradients of one layer with what is computed again for them, and the layer itself if it is
        self.layers * kept + 2 * layer
    }
}

/// The config of a family: names of its tensors, limits of its sizes, and its forward pass.
pub(super) trait MaskedLm {
    /// Keys of its `config.json` that change nothing in the forward pass, beside those of every family.
    fn harmless_keys(&self) -> &'static [&'static str];

    /// Names of an output matrix and the embedding it is tied to when the two are equal.
    fn tied(&self) -> (&'static str, &'static str);

    /// Second names under which checkpoints store a parameter, with its first; the second name's value counts.
    fn aliases(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Starts of the names of its encoder, to tell a foreign prefix from a name.
    fn encoder_prefixes(&self) -> &'static [&'static str];

    /// Starts of the names of its masked-LM head.
    fn head_prefixes(&self) -> &'static [&'static str];

    /// True if exported files have the input `token_type_ids`, as the family's own export would.
    fn has_token_types(&self) -> bool {
        false
    }

    /// Checks the assumptions of the forward pass; an error names the key.
    fn check(&self) -> Result<(), ConfigProblem>;

    /// Converts texts to hidden states and the head's features.
    fn forward<A: Algebra>(&self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<Encoded<A::Tensor>, A::Error>
    where
        Self: Sized;

    /// V.
    fn vocab_size(&self) -> usize;

    /// True if an output matrix equal to the embedding is the same parameter.
    fn ties_output(&self) -> bool;

    /// Sizes of what its layers keep for the backward pass.
    fn activations(&self) -> Activations;

    /// Use of its logits, for a family that has such a choice.
    fn head_mode(&self) -> Option<HeadMode> {
        None
    }

    /// Chooses the use of its logits; false for a family without such a choice.
    fn set_head_mode(&mut self, _: HeadMode) -> bool {
        false
    }
}

/// Upper limit of a size: no file has a larger one, and products of two still fit a number.
const MAX_SIZE: usize = 1 << 28;

/// Upper limit of a number of layers.
const MAX_LAYERS: usize = 1 << 12;

/// Checks that every size is at least 1.
pub(super) fn check_sizes(sizes: &[(&str, usize)]) -> Result<(), ConfigProblem> {
    sizes.iter().try_for_each(|(key, size)| check_size(key, *size, MAX_SIZE))
}

/// Checks a number of layers.
pub(super) fn check_layers(key: &str, layers: usize) -> Result<(), ConfigProblem> {
    check_size(key, layers, MAX_LAYERS)
}

/// Checks that a size is from 1 to `max`.
pub(super) fn check_size(key: &str, size: usize, max: usize) -> Result<(), ConfigProblem> {
    match size {
        0 => Err(ConfigProblem::value(key, "must be at least 1")),
        size if size > max => Err(ConfigProblem::value(key, format!("{size} is more than the limit {max}"))),
        _ => Ok(()),
    }
}

/// Checks that heads split the hidden size into equal parts.
pub(super) fn check_heads(key: &str, heads: usize, hidden_key: &str, hidden: usize) -> Result<(), ConfigProblem> {
    if heads == 0 || !hidden.is_multiple_of(heads) || hidden == 0 {
        return Err(ConfigProblem::value(key, format!("{heads} does not divide {hidden_key} {hidden}")));
    }
    Ok(())
}

/// Checks that numbers are finite and not negative.
pub(super) fn check_numbers(numbers: &[(&str, f64)]) -> Result<(), ConfigProblem> {
    match numbers.iter().find(|(_, number)| !(number.is_finite() && *number >= 0.0)) {
        Some((key, number)) => Err(ConfigProblem::value(*key, format!("{number} is not a number from 0"))),
        None => Ok(()),
    }
}

/// Checks probabilities of dropout.
pub(super) fn check_probabilities(probabilities: &[(&str, f64)]) -> Result<(), ConfigProblem> {
    match probabilities.iter().find(|(_, probability)| !(0.0..1.0).contains(probability)) {
        Some((key, probability)) => Err(ConfigProblem::value(*key, format!("{probability} is not from 0 to below 1"))),
        None => Ok(()),
    }
}

/// Activations by their names in the transformers library, for serde.
pub(super) mod activation {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::Activation;

    /// Names a config may have.
    const NAMES: [(&str, Activation); 7] = [
        ("gelu", Activation::Gelu),
        // the same formula, written in Python
        ("gelu_python", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        // the same formula with its constants multiplied out
        ("gelu_fast", Activation::GeluTanh),
        ("relu", Activation::Relu),
        ("tanh", Activation::Tanh),
    ];

    /// The first name of an activation.
    pub(in crate::model) fn name(activation: Activation) -> &'static str {
        NAMES.iter().find(|(_, known)| *known == activation).map_or("none", |(name, _)| name)
    }

    pub(in crate::model) fn serialize<S: Serializer>(value: &Activation, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name(*value))
    }

    pub(in crate::model) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Activation, D::Error> {
        let name = String::deserialize(deserializer)?;
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation).ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            serde::de::Error::custom(format!("activation {name:?} is not known ({})", known.join(", ")))
        })
    }
}
