//! Layers that families share: dense layers and norms by name, attention over heads, the post-norm block of BERT, RoBERTa
//! and DistilBERT.

use super::algebra::{Activation, Algebra, Init, Part, RelativeOffsets};

/// `x·Wᵀ`, plus `name.bias` if `bias`; `x` is `[…, from]`, `name.weight` `[to, from]`.
pub(super) fn dense<A: Algebra>(
    a: &A,
    name: &str,
    x: &A::Tensor,
    (from, to): (usize, usize),
    bias: bool,
    init: Init,
) -> Result<A::Tensor, A::Error> {
    let weight = a.parameter(&format!("{name}.weight"), &[to, from], init)?;
    let bias = if bias { Some(a.parameter(&format!("{name}.bias"), &[to], Init::Zeros)?) } else { None };
    a.linear(x, &weight, bias.as_ref())
}

/// Layer norm with `name.weight`, and `name.bias` if `bias`.
pub(super) fn norm<A: Algebra>(
    a: &A,
    name: &str,
    x: &A::Tensor,
    size: usize,
    bias: bool,
    eps: f64,
) -> Result<A::Tensor, A::Error> {
    let weight = a.parameter(&format!("{name}.weight"), &[size], Init::Ones)?;
    let bias = if bias { Some(a.parameter(&format!("{name}.bias"), &[size], Init::Zeros)?) } else { None };
    a.layer_norm(x, Some(&weight), bias.as_ref(), eps)
}

/// Attention of queries `[B, H, T, d]` to keys and values by scaled products, heads joined again: `[B, T, width]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attention {
    /// factor on the products
    pub(super) scale: f64,
    /// dropout on the probabilities
    pub(super) dropout: f64,
    /// heads times head size of the values
    pub(super) width: usize,
}

impl Attention {
    /// Attends by content alone.
    pub(super) fn forward<A: Algebra>(
        self,
        a: &A,
        [query, key, value]: [&A::Tensor; 3],
        allowed: &A::Tensor,
    ) -> Result<A::Tensor, A::Error> {
        a.recomputed(Part::Attention, &[query, key, value, allowed], move |a, inputs| {
            let scores = a.scores(&inputs[0], &inputs[1], self.scale)?;
            self.attend(a, &scores, &inputs[2], &inputs[3])
        })
    }

    /// Attends by content and relative positions, those of [`Algebra::relative_scores`].
    pub(super) fn relative<A: Algebra>(
        self,
        a: &A,
        [query, key, value]: [&A::Tensor; 3],
        (positions, offsets): (&A::Tensor, &RelativeOffsets),
        allowed: &A::Tensor,
    ) -> Result<A::Tensor, A::Error> {
        let offsets = offsets.clone();
        a.recomputed(Part::Attention, &[query, key, value, positions, allowed], move |a, inputs| {
            let scores = a.relative_scores(&inputs[0], &inputs[1], &inputs[3], &offsets, self.scale)?;
            self.attend(a, &scores, &inputs[2], &inputs[4])
        })
    }

    fn attend<A: Algebra>(
        self,
        a: &A,
        scores: &A::Tensor,
        value: &A::Tensor,
        allowed: &A::Tensor,
    ) -> Result<A::Tensor, A::Error> {
        let probabilities = a.dropout(&a.masked_softmax(scores, allowed)?, self.dropout)?;
        a.merge_heads(&a.matmul(&probabilities, value)?, self.width)
    }
}

/// The block of BERT, RoBERTa and DistilBERT: `x = LN(x + attention(x))`, `x = LN(x + feed-forward(x))`.
#[derive(Clone, Copy)]
pub(super) struct PostNormBlock {
    pub(super) names: &'static PostNormNames,
    /// D
    pub(super) hidden: usize,
    /// I
    pub(super) inner: usize,
    /// H
    pub(super) heads: usize,
    pub(super) activation: Activation,
    pub(super) eps: f64,
    pub(super) dropout: f64,
    pub(super) attention_dropout: f64,
    pub(super) init: Init,
}

/// Names of the parts of a family's block.
pub(super) struct PostNormNames {
    pub(super) query: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    pub(super) attention_output: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) inner: &'static str,
    pub(super) outer: &'static str,
    pub(super) outer_norm: &'static str,
}

impl PostNormBlock {
    /// `x` `[B, T, D]` through the blocks called `stem.0`, `stem.1`, …
    pub(super) fn stack<A: Algebra>(
        self,
        a: &A,
        stem: &str,
        layers: usize,
        mut x: A::Tensor,
        allowed: &A::Tensor,
    ) -> Result<A::Tensor, A::Error> {
        for layer in 0..layers {
            let name = format!("{stem}.{layer}");
            x = a.recomputed(Part::Layer, &[&x, allowed], move |a, inputs| {
                self.forward(a, &name, &inputs[0], &inputs[1])
            })?;
        }
        Ok(x)
    }

    /// `x` `[B, T, D]` through the block called `name`.
    fn forward<A: Algebra>(
        &self,
        a: &A,
        name: &str,
        x: &A::Tensor,
        allowed: &A::Tensor,
    ) -> Result<A::Tensor, A::Error> {
        let (d, inner, names) = (self.hidden, self.inner, self.names);
        let dense = |part: &str, x: &A::Tensor, shape| dense(a, &format!("{name}.{part}"), x, shape, true, self.init);
        let norm = |part: &str, x: &A::Tensor| norm(a, &format!("{name}.{part}"), x, d, true, self.eps);

        let size = d / self.heads;
        let heads = |part: &str| a.split_heads(&dense(part, x, (d, d))?, self.heads, size);
        let (query, key, value) = (heads(names.query)?, heads(names.key)?, heads(names.value)?);
        let attention = Attention { scale: 1.0 / (size as f64).sqrt(), dropout: self.attention_dropout, width: d };
        let attended = attention.forward(a, [&query, &key, &value], allowed)?;
        let attended = a.dropout(&dense(names.attention_output, &attended, (d, d))?, self.dropout)?;
        let x = norm(names.attention_norm, &a.add(x, &attended)?)?;

        let h = a.activate(&dense(names.inner, &x, (d, inner))?, self.activation)?;
        let h = a.dropout(&dense(names.outer, &h, (inner, d))?, self.dropout)?;
        norm(names.outer_norm, &a.add(&x, &h)?)
    }
}
