//! The algebra's reader that computes: Candle, with gradients where parameters are variables, and dropout in training.
//!
//! On the CPU the operations that Candle lacks, has without a gradient, or runs on one thread are our own
//! ([`ops`](super::ops)); every one has a plain twin out of Candle's own operations, which is what other devices run and
//! what the tests compare with.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::algebra::{Activation, Algebra, Init, Inputs, Positions};
use super::ops;
use crate::Error;

/// Runs a forward pass in Candle.
#[derive(Debug)]
pub struct Candle<'p> {
    parameters: &'p BTreeMap<String, Tensor>,
    device: Device,
    dropout: Option<RefCell<ChaCha8Rng>>,
    plain: bool,
}

impl<'p> Candle<'p> {
    /// Inference: no dropout. The parameters, by checkpoint name, live on `device` in f32.
    #[must_use]
    pub fn new(parameters: &'p BTreeMap<String, Tensor>, device: &Device) -> Self {
        Self { parameters, device: device.clone(), dropout: None, plain: !device.is_cpu() }
    }

    /// Training: dropout drawn from `seed`, so that a step can be repeated.
    #[must_use]
    pub fn training(parameters: &'p BTreeMap<String, Tensor>, device: &Device, seed: u64) -> Self {
        Self { dropout: Some(RefCell::new(ChaCha8Rng::seed_from_u64(seed))), ..Self::new(parameters, device) }
    }

    /// The plain twin: only Candle's own operations, on any device.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { plain: true, ..self }
    }

    /// The inputs of a batch: `ids` and `mask` hold `rows` rows of equal length.
    ///
    /// # Errors
    /// A device that fails.
    pub fn inputs(&self, ids: Vec<u32>, mask: Vec<u8>, rows: usize) -> Result<Inputs<Tensor>, Error> {
        let width = ids.len() / rows.max(1);
        Ok(Inputs {
            ids: Tensor::from_vec(ids, (rows, width), &self.device)?,
            mask: Tensor::from_vec(mask, (rows, width), &self.device)?,
            token_types: None,
        })
    }
}

impl Algebra for Candle<'_> {
    type Tensor = Tensor;
    type Error = Error;

    fn parameter(&self, name: &str, shape: &[usize], _: Init) -> Result<Tensor, Error> {
        let tensor =
            self.parameters.get(name).ok_or_else(|| Error::invalid(format!("parameter {name} is missing"), ""))?;
        if tensor.dims() != shape {
            let message = format!("parameter {name} has shape {:?}, not {shape:?}", tensor.dims());
            return Err(Error::invalid(message, ""));
        }
        Ok(tensor.clone())
    }

    fn has(&self, name: &str) -> bool {
        self.parameters.contains_key(name)
    }

    fn embed(&self, table: &Tensor, ids: &Tensor) -> Result<Tensor, Error> {
        let mut shape = ids.dims().to_vec();
        shape.push(table.dim(1)?);
        Ok(table.index_select(&ids.flatten_all()?, 0)?.reshape(shape)?)
    }

    fn positions(&self, ids: &Tensor, positions: Positions) -> Result<Tensor, Error> {
        let width = u32::try_from(ids.dim(1)?).map_err(|_| Error::invalid("a text has more than 2^32 tokens", ""))?;
        match positions {
            Positions::FromZero => Ok(Tensor::arange(0, width, &self.device)?.unsqueeze(0)?),
        }
    }

    fn first_row(&self, table: &Tensor) -> Result<Tensor, Error> {
        Ok(table.narrow(0, 0, 1)?)
    }

    fn add(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
        Ok(if a.dims() == b.dims() { a.add(b)? } else { a.broadcast_add(b)? })
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, Error> {
        let mut shape = x.dims().to_vec();
        let input = shape.pop().unwrap_or_default();
        shape.push(weight.dim(0)?);
        let x = x.reshape(((), input))?;
        let sum = match bias {
            None => x.apply_op2(weight, ops::Linear)?,
            Some(bias) if self.plain => x.matmul(&weight.t()?)?.broadcast_add(bias)?,
            Some(bias) => x.apply_op3(weight, bias, ops::Linear)?,
        };
        Ok(sum.reshape(shape)?)
    }

    fn layer_norm(&self, x: &Tensor, affine: Option<(&Tensor, &Tensor)>, eps: f64) -> Result<Tensor, Error> {
        if self.plain {
            return plain_layer_norm(x, affine, eps);
        }
        let x = x.contiguous()?;
        let norm = ops::LayerNorm { eps: eps as f32 };
        Ok(match affine {
            None => x.apply_op1(norm)?,
            Some((weight, bias)) => x.apply_op3(weight, bias, norm)?,
        })
    }

    fn activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor, Error> {
        Ok(match activation {
            Activation::Gelu if self.plain => x.gelu_erf()?,
            Activation::Gelu => x.contiguous()?.apply_op1(ops::Gelu)?,
            Activation::GeluTanh => x.gelu()?,
            Activation::Relu => x.relu()?,
        })
    }

    fn dropout(&self, x: &Tensor, probability: f64) -> Result<Tensor, Error> {
        let Some(rng) = self.dropout.as_ref().filter(|_| probability > 0.0) else {
            return Ok(x.clone());
        };
        let scale = 1.0 / (1.0 - probability as f32);
        let mut rng = rng.borrow_mut();
        // Sixteen bits an element are enough for a probability, and four elements then cost one draw.
        let limit = (probability * 65536.0) as u16;
        let mut bits = 0_u64;
        let kept = (0..x.elem_count())
            .map(|element| {
                bits = if element % 4 == 0 { rng.random() } else { bits >> 16 };
                if (bits as u16) < limit { 0.0 } else { scale }
            })
            .collect::<Vec<f32>>();
        Ok(x.mul(&Tensor::from_vec(kept, x.shape(), &self.device)?)?)
    }

    fn split_heads(&self, x: &Tensor, heads: usize, size: usize) -> Result<Tensor, Error> {
        let (rows, width, _) = x.dims3()?;
        Ok(x.reshape((rows, width, heads, size))?.transpose(1, 2)?.contiguous()?)
    }

    fn merge_heads(&self, x: &Tensor, width: usize) -> Result<Tensor, Error> {
        let (rows, _, tokens, _) = x.dims4()?;
        Ok(x.transpose(1, 2)?.reshape((rows, tokens, width))?)
    }

    fn scores(&self, a: &Tensor, b: &Tensor, scale: f64) -> Result<Tensor, Error> {
        // scaling the factor costs T·d instead of T·T
        Ok(a.affine(scale, 0.0)?.matmul(&b.t()?)?)
    }

    fn allowed_keys(&self, mask: &Tensor) -> Result<Tensor, Error> {
        Ok(mask.to_dtype(DType::F32)?.unsqueeze(1)?.unsqueeze(1)?)
    }

    fn masked_softmax(&self, scores: &Tensor, allowed: &Tensor) -> Result<Tensor, Error> {
        if self.plain {
            return plain_masked_softmax(scores, allowed);
        }
        Ok(scores.contiguous()?.apply_op2(&allowed.contiguous()?, ops::MaskedSoftmax)?)
    }

    fn matmul(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
        Ok(a.matmul(b)?)
    }

    fn max_logits(&self, features: &Tensor, weight: &Tensor, bias: &Tensor, mask: &Tensor) -> Result<Tensor, Error> {
        if self.plain {
            return plain_max_logits(self, features, weight, bias, mask);
        }
        ops::max_logits(features, weight, bias, mask)
    }

    fn log1p_relu(&self, x: &Tensor) -> Result<Tensor, Error> {
        if self.plain {
            return Ok((x.relu()? + 1.0)?.log()?);
        }
        Ok(x.contiguous()?.apply_op1(ops::Log1pRelu)?)
    }

    fn masked_sum(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor, Error> {
        let mask = mask.unsqueeze(2)?.broadcast_as(x.shape())?;
        Ok(mask.where_cond(x, &x.zeros_like()?)?.sum(1)?)
    }
}

/// A number so low that its exponential is 0 beside any score, and finite, so that nothing turns into NaN.
const LOW: f32 = -1e30;

fn plain_layer_norm(x: &Tensor, affine: Option<(&Tensor, &Tensor)>, eps: f64) -> Result<Tensor, Error> {
    let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centered.broadcast_div(&(variance + eps)?.sqrt()?)?;
    Ok(match affine {
        None => normed,
        Some((weight, bias)) => normed.broadcast_mul(weight)?.broadcast_add(bias)?,
    })
}

fn plain_masked_softmax(scores: &Tensor, allowed: &Tensor) -> Result<Tensor, Error> {
    let low = ((1.0 - allowed)? * f64::from(LOW))?;
    let masked = scores.broadcast_add(&low)?;
    let shifted = masked.broadcast_sub(&masked.max_keepdim(D::Minus1)?.detach())?;
    let exp = shifted.exp()?.broadcast_mul(allowed)?;
    // a row without an allowed key has the sum 0: its zeros are divided by 1
    let sum = exp.sum_keepdim(D::Minus1)?;
    let empty = sum.eq(0.0)?.to_dtype(sum.dtype())?;
    Ok(exp.broadcast_div(&(sum + empty)?)?)
}

fn plain_max_logits(
    a: &Candle<'_>,
    features: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mask: &Tensor,
) -> Result<Tensor, Error> {
    let logits = a.linear(features, weight, None)?;
    let mask = mask.unsqueeze(2)?;
    let low = Tensor::full(LOW, logits.shape(), logits.device())?;
    let largest = mask.broadcast_as(logits.shape())?.where_cond(&logits, &low)?.max(1)?.broadcast_add(bias)?;
    let any = mask.max(1)?.broadcast_as(largest.shape())?;
    Ok(any.where_cond(&largest, &largest.zeros_like()?)?)
}
