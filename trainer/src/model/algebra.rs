//! [`Algebra`]: the operations an architecture is written in, as coarse as its implementations can compute them.
//!
//! A forward pass is a function over an [`Algebra`], with three implementations: [`Candle`](super::Candle) computes (with
//! gradients and dropout), [`Declaration`](super::Declaration) collects the names and shapes of parameters, and the
//! recorder of the exporter writes an ONNX node for each operation. The arithmetic of a family therefore stands in one
//! file.
//!
//! Nothing here is tied to one family: parameters are read by their checkpoint name when they are needed, so layers may
//! differ and outputs may be tied or not. A family with other heads or positions adds the operation it lacks.

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
    /// hyperbolic tangent: soft caps
    Tanh,
    /// `1/(1 + exp(−x))`
    Sigmoid,
    /// `log(1 + exp(x))`: learned factors that must be positive
    Softplus,
}

/// Numbering of the positions of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// 0, 1, 2, … from the start of the row
    FromZero,
    /// `pad` for a padding id, and `pad` plus the running count of other ids for those: RoBERTa's
    AfterPadding {
        /// the id padding has
        pad: u32,
    },
}

/// Initial values of a parameter of a new model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// normal with mean 0 and this standard deviation
    Normal(f64),
    /// all zero
    Zeros,
    /// all one
    Ones,
}

/// Rows of a table of relative positions by offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelativeOffsets {
    /// rows by offset, `−last … last`
    rows: std::sync::Arc<[u32]>,
}

impl RelativeOffsets {
    /// `row(offset)` for the offsets from `−last` to `last`; beyond them the outermost rows count.
    pub fn new(last: i64, row: impl FnMut(i64) -> u32) -> Self {
        Self { rows: (-last..=last).map(row).collect() }
    }

    /// The largest offset with a row of its own.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.rows.len() as i64 / 2
    }

    /// The row of an offset: query position minus key position.
    #[must_use]
    pub fn index(&self, offset: i64) -> u32 {
        self.rows[(offset.clamp(-self.last(), self.last()) + self.last()) as usize]
    }

    /// The rows of the offsets `−last … last`.
    #[must_use]
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }
}

/// Inputs of a forward pass: `B` rows of `T` tokens, padded on the right.
#[derive(Debug, Clone)]
pub struct Inputs<T> {
    /// token ids `[B, T]`
    pub ids: T,
    /// 1 for a token, 0 for padding, `[B, T]`
    pub mask: T,
    /// token types `[B, T]`; `None` means all 0
    pub token_types: Option<T>,
}

/// Tensors of an attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionInputs<'a, T> {
    /// `[B, H, T, d]`
    pub query: &'a T,
    /// `[B, H, T, d]`
    pub key: &'a T,
    /// `[B, H, T, e]`
    pub value: &'a T,
    /// table of relative positions `[N, H·2d]`, which holds per head first `Pq`, then `Pk`
    pub positions: Option<&'a T>,
    /// made by [`Algebra::allowed_keys`]
    pub allowed: &'a T,
}

/// Settings of an attention.
#[derive(Debug, Clone)]
pub struct AttentionSettings<'a> {
    /// factor of the scores
    pub scale: f64,
    /// probability of dropout on the weights of values
    pub dropout: f64,
    /// `H·e`
    pub width: usize,
    /// rows of the table of positions; given if that is
    pub offsets: Option<&'a RelativeOffsets>,
}

/// The operations. `B` rows, `T` tokens, `D` hidden size, `H` heads, `d` head size, `V` vocabulary size.
pub trait Algebra {
    /// A tensor: values for Candle, the name of a value for the recorder.
    type Tensor: Clone;
    /// Errors; those of a family are this crate's.
    type Error: From<Error>;

    /// The parameter stored under `name` in a checkpoint, of exactly this shape; `init` is how a new model starts.
    fn parameter(&self, name: &str, shape: &[usize], init: Init) -> Result<Self::Tensor, Self::Error>;

    /// True if the checkpoint has a parameter of this name: for those that may be absent.
    fn has(&self, name: &str) -> bool;

    /// A layer, `part(self, inputs)`, which a training may compute a second time for its backward pass instead of keeping its
    /// intermediate tensors. Every tensor that the part uses is one of its inputs or a parameter that it reads.
    fn recomputed<F>(&self, inputs: &[&Self::Tensor], part: F) -> Result<Self::Tensor, Self::Error>
    where
        F: Fn(&Self, &[Self::Tensor]) -> Result<Self::Tensor, Self::Error> + Send + Sync + 'static,
    {
        part(self, &inputs.iter().copied().cloned().collect::<Vec<_>>())
    }

    /// Rows of `table` `[N, D]` by ids `[…]`, giving `[…, D]`.
    fn embed(&self, table: &Self::Tensor, ids: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// Position ids for token ids `[B, T]`, as `[1, T]` or `[B, T]`.
    fn positions(&self, ids: &Self::Tensor, positions: Positions) -> Result<Self::Tensor, Self::Error>;

    /// The first row of `table` `[N, D]`, as `[1, D]`.
    fn first_row(&self, table: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// A constant of this shape.
    fn constant(&self, values: Vec<f32>, shape: &[usize]) -> Result<Self::Tensor, Self::Error>;

    /// The number at `index` of a vector `[N]`, as `[1]`.
    fn element(&self, vector: &Self::Tensor, index: usize) -> Result<Self::Tensor, Self::Error>;

    /// Sum, broadcast from the right.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// Product element by element, broadcast from the right.
    fn mul(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// `x·scale + shift`, element by element.
    fn affine(&self, x: &Self::Tensor, scale: f64, shift: f64) -> Result<Self::Tensor, Self::Error>;

    /// Splits the last axis into `parts` equal parts.
    fn split(&self, x: &Self::Tensor, parts: usize) -> Result<Vec<Self::Tensor>, Self::Error>;

    /// `x·Wᵀ + bias` for `x` `[…, in]`, `weight` `[out, in]`, `bias` `[out]`.
    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: Option<&Self::Tensor>,
    ) -> Result<Self::Tensor, Self::Error>;

    /// `(x − mean)/√(var + eps)` over the last axis with the biased variance, then `·weight` and `+ bias` where given.
    fn layer_norm(
        &self,
        x: &Self::Tensor,
        weight: Option<&Self::Tensor>,
        bias: Option<&Self::Tensor>,
        eps: f64,
    ) -> Result<Self::Tensor, Self::Error>;

    /// An activation, element by element.
    fn activate(&self, x: &Self::Tensor, activation: Activation) -> Result<Self::Tensor, Self::Error>;

    /// Zeroes each element with this probability and scales the others by `1/(1 − probability)`, in training only.
    fn dropout(&self, x: &Self::Tensor, probability: f64) -> Result<Self::Tensor, Self::Error>;

    /// `[H, d]` to `[H, 1, d]`: one row per head, to be broadcast over `[B, H, T, d]`.
    fn per_head(&self, x: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// `[B, T, H·d]` to `[B, H, T, d]`.
    fn split_heads(&self, x: &Self::Tensor, heads: usize, size: usize) -> Result<Self::Tensor, Self::Error>;

    /// Rotary positions (Su et al., 2021) on `[B, H, T, d]`, halves and not pairs: position `t` rotates the components `j` and
    /// `j + d/2` by the angle `t·theta^(−2j/d)`.
    fn rope(&self, x: &Self::Tensor, theta: f64) -> Result<Self::Tensor, Self::Error>;

    /// Keys each query may attend to, for [`attention`](Self::attention): those of tokens, and with a `window` only those at
    /// most so many positions away. Equal ones are made once.
    fn allowed_keys(&self, mask: &Self::Tensor, window: Option<usize>) -> Result<Self::Tensor, Self::Error>;

    /// Values weighted by the soft-max of scores over the allowed keys, `[B, T, H·e]`. Other keys get exactly 0, and a query
    /// without an allowed key gets zeros, never NaN.
    ///
    /// Scores are `q_i·k_j·scale`, or with positions `(q_i·k_j + q_i·Pk[r] + k_j·Pq[r])·scale` with `r = offsets.index(i − j)`
    /// (He et al., DeBERTa, 2021; Samuel et al., LTG-BERT, 2023).
    fn attention(
        &self,
        inputs: AttentionInputs<'_, Self::Tensor>,
        settings: &AttentionSettings<'_>,
    ) -> Result<Self::Tensor, Self::Error>;

    /// Per row and term, the largest `features·weightᵀ + bias` over the row's tokens with mask 1: `features` `[B, T, D]`,
    /// `weight` `[V, D]`, `bias` `[V]`, giving `[B, V]`. A row without a token gives zeros.
    ///
    /// One operation, so that no implementation needs to hold `[B, T, V]`.
    fn max_logits(
        &self,
        features: &Self::Tensor,
        weight: &Self::Tensor,
        bias: &Self::Tensor,
        mask: &Self::Tensor,
    ) -> Result<Self::Tensor, Self::Error>;

    /// 1 where another token follows, by `mask` `[B, T]`: the mask moved one place to the left.
    fn followed(&self, mask: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// 1 for a row of `mask` `[B, T]` that has a token and 0 for others, as `[B, 1]` floats.
    fn has_token(&self, mask: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// `x` `[B, T, V]` moved one place to the right: token `t` gets the row of token `t − 1`, token 0 gets `first` `[V]`.
    fn shift_right(&self, x: &Self::Tensor, first: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// `log(1 + max(0, x))`, element by element.
    fn log1p_relu(&self, x: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;

    /// Sum of `x` `[B, T, V]` over the tokens with mask 1, giving `[B, V]`.
    fn masked_sum(&self, x: &Self::Tensor, mask: &Self::Tensor) -> Result<Self::Tensor, Self::Error>;
}
