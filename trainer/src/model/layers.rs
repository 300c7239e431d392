//! Layers that families share: dense layers and norms by name, attention over heads, the post-norm block of BERT, RoBERTa
//! and DistilBERT.

use super::algebra::{Activation, Algebra, AttentionInputs, AttentionSettings, Init};

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
            x = a.recomputed(&[&x, allowed], move |a, inputs| self.forward(a, &name, &inputs[0], &inputs[1]))?;
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
        let attended = a.attention(
            AttentionInputs { query: &query, key: &key, value: &value, positions: None, allowed },
            &AttentionSettings {
                scale: 1.0 / (size as f64).sqrt(),
                dropout: self.attention_dropout,
                width: d,
                offsets: None,
            },
        )?;
        let attended = a.dropout(&dense(names.attention_output, &attended, (d, d))?, self.dropout)?;
        let x = norm(names.attention_norm, &a.add(x, &attended)?)?;

        let h = a.activate(&dense(names.inner, &x, (d, inner))?, self.activation)?;
        let h = a.dropout(&dense(names.outer, &h, (inner, d))?, self.dropout)?;
        norm(names.outer_norm, &a.add(&x, &h)?)
    }
}
