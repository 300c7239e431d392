//! The masked-language-model head: hidden states to logits over the vocabulary.

use super::algebra::{Activation, Algebra, Init};

/// Result of a family's forward pass.
#[derive(Debug, Clone)]
pub struct Encoded<T> {
    /// the last block's output `[B, T, D]`
    pub last_hidden_state: T,
    /// the head, ready for logits or for SPLADE pooling
    pub head: MlmHead<T>,
}

/// The head up to its last linear layer: `logits = features·weightᵀ + bias`.
///
/// The product is not computed here: SPLADE needs only its maximum over tokens.
#[derive(Debug, Clone)]
pub struct MlmHead<T> {
    /// the transformed hidden states `[B, T, D]`
    pub features: T,
    /// the output matrix `[V, D]`, often the word embedding
    pub weight: T,
    /// one per term, `[V]`; −∞ switches a term off
    pub bias: T,
    /// V
    pub terms: usize,
    /// function applied to every logit
    pub cap: Cap,
    /// logits are moved one token on, and the first token gets 1 for this id and 0 for all others
    pub first: Option<u32>,
    /// true if the features of a token were trained to predict the *next* token rather than their own
    pub predicts_next: bool,
}

/// A monotone function of logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// as they are
    None,
    /// `15·tanh(x/15)`: zeros where `x` has them
    Soft,
    /// `30·sigmoid(x/7.5)`, which is the same plus 15: never 0
    Positive,
}

impl Cap {
    /// The capped values of `x`.
    ///
    /// # Errors
    /// Those of the algebra.
    pub fn apply<A: Algebra>(self, a: &A, x: &A::Tensor) -> Result<A::Tensor, A::Error> {
        let (inside, activation, outside) = match self {
            Self::None => return Ok(x.clone()),
            Self::Soft => (15.0, Activation::Tanh, 15.0),
            Self::Positive => (7.5, Activation::Sigmoid, 30.0),
        };
        a.affine(&a.activate(&a.affine(x, 1.0 / inside, 0.0)?, activation)?, outside, 0.0)
    }
}

impl<T: Clone> MlmHead<T> {
    /// A head without a cap, every token with its own logits.
    pub(super) fn new(features: T, weight: T, bias: T, terms: usize) -> Self {
        Self { features, weight, bias, terms, cap: Cap::None, first: None, predicts_next: false }
    }

    /// The logits `[B, T, V]`.
    ///
    /// # Errors
    /// Those of the algebra.
    pub fn logits<A: Algebra<Tensor = T>>(&self, a: &A) -> Result<T, A::Error> {
        let logits = self.cap.apply(a, &a.linear(&self.features, &self.weight, Some(&self.bias))?)?;
        match self.first {
            None => Ok(logits),
            Some(first) => a.shift_right(&logits, &one_hot(a, first, self.terms)?),
        }
    }

    /// The largest logit per row and term over the tokens with mask 1, `[B, V]`; rows without a token give zeros.
    ///
    /// # Errors
    /// Those of the algebra.
    pub fn max_logits<A: Algebra<Tensor = T>>(&self, a: &A, mask: &T) -> Result<T, A::Error> {
        // moved one token on, a token's features count where another token follows
        let counted = if self.first.is_some() { a.followed(mask)? } else { mask.clone() };
        let largest = a.max_logits(&self.features, &self.weight, &self.bias, &counted)?;
        let largest = match self.cap {
            Cap::None => largest,
            // the cap of nothing may be more than 0
            cap => a.mul(&cap.apply(a, &largest)?, &a.has_token(&counted)?)?,
        };
        let Some(first) = self.first else { return Ok(largest) };
        // the maximum with the first token's row: 1 for one term, and 0, which SPLADE does not see, for the others
        let missing = a.activate(&a.affine(&largest, -1.0, 1.0)?, Activation::Relu)?;
        let missing = a.mul(&missing, &one_hot(a, first, self.terms)?)?;
        a.add(&largest, &a.mul(&missing, &a.has_token(mask)?)?)
    }
}

fn one_hot<A: Algebra>(a: &A, term: u32, terms: usize) -> Result<A::Tensor, A::Error> {
    let values = (0..terms).map(|other| f32::from(u8::from(other == term as usize))).collect();
    a.constant(values, &[terms])
}

/// The output matrix `[V, D]`: the one stored under `name`, else the word embedding.
pub(super) fn output_matrix<A: Algebra>(
    a: &A,
    name: &str,
    words: &A::Tensor,
    shape: [usize; 2],
    init: Init,
) -> Result<A::Tensor, A::Error> {
    if a.has(name) { a.parameter(name, &shape, init) } else { Ok(words.clone()) }
}
