//! The largest logit of each term over the tokens of a text, for devices: a text at a time.
//!
//! The logits of a batch are `B·T·V` numbers: 1.6 GB for 32 texts of 256 tokens over 50 000 terms, and a graph keeps several
//! copies. Here those of one text are in memory, and the backward pass needs none: the gradient of a term goes to the token
//! with its largest logit.

use candle_core::{D, DType, Tensor};

use super::attach::{ById, attach};
use crate::Error;

/// A product of two matrices.
type Product = fn(&Tensor, &Tensor) -> Result<Tensor, Error>;

/// The largest logit per row and term over the row's tokens, as [`max_logits`](super::max_logits::max_logits), out of Candle's
/// own operations: `features` `[B, T, D]`, `weight` `[V, D]`, `bias` `[V]`, `mask` `[B, T]`, giving `[B, V]`.
///
/// # Errors
/// A device that fails.
pub(super) fn max_logits_text_by_text(
    features: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mask: &Tensor,
    product: Product,
) -> Result<Tensor, Error> {
    let rows = features.dim(0)?;
    let (kept_features, kept_weight) = (features.detach(), weight.detach());
    let (mut largest, mut at) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for row in 0..rows {
        let logits = product(&kept_weight, &kept_features.get(row)?.t()?)?;
        let mask = mask.get(row)?.broadcast_as(logits.shape())?;
        let low = Tensor::full(f32::MIN, logits.shape(), logits.device())?;
        let logits = mask.where_cond(&logits, &low)?;
        largest.push(logits.max(D::Minus1)?);
        at.push(logits.argmax(D::Minus1)?);
    }
    let largest = Tensor::stack(&largest, 0)?.broadcast_add(&bias.detach())?;
    // a text without tokens has zeros, and no gradient
    let any = mask.max_keepdim(1)?.broadcast_as(largest.shape())?.contiguous()?;
    let largest = any.where_cond(&largest, &largest.zeros_like()?)?;
    let ids = [features.id(), weight.id(), bias.id()];
    let backward = move |grad: &Tensor| -> Result<ById, Error> {
        let grad = any.where_cond(&grad.contiguous()?, &grad.zeros_like()?)?;
        let tokens = kept_features.dim(1)?;
        let mut of_weight = kept_weight.zeros_like()?;
        let mut of_features = Vec::with_capacity(rows);
        for (row, at) in at.iter().enumerate() {
            let grad = grad.get(row)?.unsqueeze(1)?;
            let of_logits = Tensor::zeros((grad.dim(0)?, tokens), DType::F32, grad.device())?;
            let of_logits = of_logits.scatter_add(&at.unsqueeze(1)?, &grad, 1)?;
            of_weight = (of_weight + product(&of_logits, &kept_features.get(row)?)?)?;
            of_features.push(product(&of_logits.t()?, &kept_weight)?);
        }
        let gradients = [Tensor::stack(&of_features, 0)?, of_weight, grad.sum(0)?];
        Ok(ids.into_iter().zip(gradients).collect())
    };
    attach(&largest, &[features.clone(), weight.clone(), bias.clone()], Box::new(backward))
}
