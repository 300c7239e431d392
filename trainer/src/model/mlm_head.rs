//! The masked-language-model head: hidden states to logits over the vocabulary.

use super::algebra::Algebra;

/// What a family's forward pass gives.
#[derive(Debug, Clone)]
pub struct Encoded<T> {
    /// the last block's output `[B, T, D]`
    pub last_hidden_state: T,
    /// the head, ready for logits or for SPLADE pooling
    pub head: MlmHead<T>,
}

/// The head up to its last linear layer: `logits = features·weightᵀ + bias`.
///
/// The product is left undone, because SPLADE wants only its maximum over tokens and never needs all of it.
#[derive(Debug, Clone)]
pub struct MlmHead<T> {
    /// the transformed hidden states `[B, T, D]`
    pub features: T,
    /// the output matrix `[V, D]`, often the word embedding
    pub weight: T,
    /// one per term, `[V]`
    pub bias: T,
}

impl<T: Clone> MlmHead<T> {
    /// The logits `[B, T, V]`.
    ///
    /// # Errors
    /// Those of the algebra.
    pub fn logits<A: Algebra<Tensor = T>>(&self, a: &A) -> Result<T, A::Error> {
        a.linear(&self.features, &self.weight, Some(&self.bias))
    }
}
