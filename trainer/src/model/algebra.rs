//! The algebra an architecture is written in: the few operations of a transformer, as coarse as every reader likes them.
//!
//! A forward pass is a function over an [`Algebra`]. Three readers exist: [`Candle`](super::Candle) computes (with
//! gradients and dropout), [`Declaration`](super::Declaration) only notes which parameters are asked for, and the
//! exporter's recorder writes an ONNX node where Candle computes. So `bert.rs` is the only place that knows BERT, and a
//! new family is one file.
//!
//! Nothing here is tied to one family: parameters are asked for by their checkpoint name when they are needed, so layers
//! may differ, outputs may be tied or not, and a family with other heads or positions adds the operation it lacks.

use crate::Error;

/// Element-wise activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// exact GELU, `x/2 · (1 + erf(x/√2))`
    Gelu,
    /// GELU by tanh, `x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))`: `gelu_new`, `gelu_pytorch_tanh`
    GeluTanh,
    /// `max(0, x)`
    Relu,
}

/// Where the positions of a row start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// 0, 1, 2, … from the start of the row
    FromZero,
}

/// How a parameter of a new model starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// normal with mean 0 and this standard deviation
    Normal(f64),
    /// all zero
    Zeros,
    /// all one
    Ones,
}

/// What a forward pass is given: `B` rows of `T` tokens, padded on the right.
#[derive(Debug, Clone)]
pub struct Inputs<T> {
    /// token ids `[B, T]`
    pub ids: T,
    /// 1 for a token, 0 for padding, `[B, T]`
    pub mask: T,
    /// token types `[B, T]`; `None` means all 0
    pub token_types: Option<T>,
}

/// The operations. `B` rows, `T` tokens, `D` hidden size, `H` heads, `d` head size, `V` vocabulary size.
pub trait Algebra {
    /// A tensor: values for Candle, the name of a value for the recorder.
    type Tensor: Clone;
    /// What can go wrong; a family's own complaints are this crate's.
    type Error: From<Error>;

    /// The parameter stored under `name` in a checkpoint, of exactly this shape; `init` is how a new model starts.
    fn parameter(&self, name: &str, shape: &[usize], init: Init) -> Result<Self::Tensor, Self::Error>;

    /// Whether the checkpoint has a parameter of this name: for those that may be absent.
    fn has(&self, name: &str) -> bool;

    /// Rows of `table` `[N, D]` by ids `[…]`, giving `[…, D]`.
    fn embed(&self, table: &Self::Tensor, ids: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// Position ids for token ids `[B, T]`, as `[1, T]` or `[B, T]`.
    fn positions(&self, ids: &Self::Tensor, positions: Positions) -> Result<Self::Tensor, Self::Error>;

    /// The first row of `table` `[N, D]`, as `[1, D]`.
    fn first_row(&self, table: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// Sum, broadcast from the right.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// `x·Wᵀ + bias` for `x` `[…, in]`, `weight` `[out, in]`, `bias` `[out]`.
    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: Option<&Self::Tensor>,
    ) -> Result<Self::Tensor, Self::Error>;

    /// `(x − mean)/√(var + eps)` over the last axis with the biased variance, then `·weight + bias` where given.
    fn layer_norm(
        &self,
        x: &Self::Tensor,
        affine: Option<(&Self::Tensor, &Self::Tensor)>,
        eps: f64,
    ) -> Result<Self::Tensor, Self::Error>;

    /// An activation, element by element.
    fn activate(&self, x: &Self::Tensor, activation: Activation) -> Result<Self::Tensor, Self::Error>;

    /// Zeroes each element with this probability and scales the others by `1/(1 − probability)`, in training only.
    fn dropout(&self, x: &Self::Tensor, probability: f64) -> Result<Self::Tensor, Self::Error>;

    /// `[B, T, H·d]` to `[B, H, T, d]`.
    fn split_heads(&self, x: &Self::Tensor, heads: usize, size: usize) -> Result<Self::Tensor, Self::Error>;

    /// `[B, H, T, d]` to `[B, T, H·d]`; `width` is `H·d`.
    fn merge_heads(&self, x: &Self::Tensor, width: usize) -> Result<Self::Tensor, Self::Error>;

    /// `a·bᵀ·scale` over the last two axes: `[B, H, T, d]` twice gives `[B, H, T, T]`.
    fn scores(&self, a: &Self::Tensor, b: &Self::Tensor, scale: f64) -> Result<Self::Tensor, Self::Error>;

    /// Which keys each query may see, for [`masked_softmax`](Self::masked_softmax): made once, used by every layer.
    fn allowed_keys(&self, mask: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// Soft-max of `scores` `[B, H, T, T]` over the allowed keys. Other keys get exactly 0, and a query without an
    /// allowed key gets zeros, never NaN.
    fn masked_softmax(&self, scores: &Self::Tensor, allowed: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// Matrix product over the last two axes.
    fn matmul(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// Per row and term, the largest `features·weightᵀ + bias` over the row's tokens with mask 1: `features` `[B, T, D]`,
    /// `weight` `[V, D]`, `bias` `[V]`, giving `[B, V]`. A row without a token gives zeros.
    ///
    /// One operation, so that no reader needs to hold `[B, T, V]`.
    fn max_logits(
        &self,
        features: &Self::Tensor,
        weight: &Self::Tensor,
        bias: &Self::Tensor,
        mask: &Self::Tensor,
    ) -> Result<Self::Tensor, Self::Error>;

    /// `log(1 + max(0, x))`, element by element.
    fn log1p_relu(&self, x: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// Sum of `x` `[B, T, V]` over the tokens with mask 1, giving `[B, V]`.
    fn masked_sum(&self, x: &Self::Tensor, mask: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;
}
