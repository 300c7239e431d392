//! The algebra's reader that computes: Candle, with gradients where parameters are variables, and dropout in training.
//!
//! On the CPU the operations that Candle lacks, has without a gradient, or runs on one thread are our own
//! ([`ops`](super::ops)); every one has a plain twin out of Candle's own operations, which is what other devices run and
//! what the tests compare with.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{D, DType, Device, Tensor, TensorId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use splade_core::TokenBatch;

use super::algebra::{
    Activation, Algebra, AttentionInputs, AttentionSettings, Init, Inputs, Positions, RelativeOffsets,
};
use super::max_logits::max_logits;
use super::ops;
use super::recompute::recompute;
use super::text_by_text::max_logits_text_by_text;
use crate::Error;

/// Runs a forward pass in Candle.
#[derive(Debug)]
pub struct Candle {
    parameters: Arc<BTreeMap<String, Tensor>>,
    device: Device,
    dropout: Option<RefCell<ChaCha8Rng>>,
    plain: bool,
    /// layers are computed again in the backward pass
    recomputing: bool,
    /// products of matrices are computed in bfloat16
    bf16: bool,
    /// in a pass without a graph, the parameters it reads
    read: Option<RefCell<Vec<Tensor>>>,
    allowed: AllowedKeys,
}

/// The results of `allowed_keys`, by mask and window: most layers ask for the same.
type AllowedKeys = Arc<Mutex<Vec<(TensorId, Option<usize>, Tensor)>>>;

/// State of a [`Candle`] at some point of a forward pass, to compute a part of the pass again.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    parameters: Arc<BTreeMap<String, Tensor>>,
    device: Device,
    dropout: Option<ChaCha8Rng>,
    plain: bool,
    recomputing: bool,
    bf16: bool,
    allowed: AllowedKeys,
}

impl From<Snapshot> for Candle {
    fn from(snapshot: Snapshot) -> Self {
        let Snapshot { parameters, device, dropout, plain, recomputing, bf16, allowed } = snapshot;
        let dropout = dropout.map(RefCell::new);
        Self { parameters, device, dropout, plain, recomputing, bf16, read: None, allowed }
    }
}

impl Candle {
    /// Inference: no dropout. The parameters, by checkpoint name, live on `device` in f32.
    #[must_use]
    pub fn new(parameters: &BTreeMap<String, Tensor>, device: &Device) -> Self {
        Self {
            parameters: Arc::new(parameters.clone()),
            device: device.clone(),
            dropout: None,
            plain: !device.is_cpu(),
            recomputing: false,
            bf16: false,
            read: None,
            allowed: AllowedKeys::default(),
        }
    }

    /// Training: dropout drawn from `seed`, so that a step can be repeated.
    #[must_use]
    pub fn training(parameters: &BTreeMap<String, Tensor>, device: &Device, seed: u64) -> Self {
        let dropout = Some(RefCell::new(ChaCha8Rng::seed_from_u64(seed)));
        Self { dropout, ..Self::new(parameters, device) }
    }

    /// The plain twin: only Candle's own operations, on any device.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { plain: true, ..self }
    }

    /// Layers keep their inputs and outputs only, and are computed again in the backward pass: less memory, more time, and
    /// equal values and gradients.
    #[must_use]
    pub fn recomputing(self) -> Self {
        Self { recomputing: true, ..self }
    }

    /// Mixed precision, as torch's autocast: products of matrices round their factors to bfloat16 and add up in f32; weights,
    /// gradients of weights and everything else are f32. It has an effect on the plain twin only, which other devices run.
    #[must_use]
    pub fn mixed_precision(self) -> Self {
        Self { bf16: true, ..self }
    }

    /// The product of two matrices, or of matrices row by row.
    fn product(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
        if self.plain && self.bf16 { mixed_product(a, b) } else { full_product(a, b) }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            parameters: self.parameters.clone(),
            device: self.device.clone(),
            dropout: self.dropout.as_ref().map(|rng| rng.borrow().clone()),
            plain: self.plain,
            // a layer that is computed again is in memory alone, and keeps its parts
            recomputing: false,
            bf16: self.bf16,
            allowed: self.allowed.clone(),
        }
    }

    /// Runs `part` with parameters that have no gradient, and returns the parameters it read too.
    pub(super) fn without_graph(
        &self,
        part: impl FnOnce(&Self) -> Result<Tensor, Error>,
    ) -> Result<(Tensor, Vec<Tensor>), Error> {
        let a = Self { read: Some(RefCell::default()), ..Self::from(self.snapshot()) };
        let output = part(&a)?;
        if let (Some(rng), Some(advanced)) = (&self.dropout, a.dropout) {
            rng.replace(advanced.into_inner());
        }
        Ok((output, a.read.map(RefCell::into_inner).unwrap_or_default()))
    }

    /// The inputs of a batch.
    ///
    /// # Errors
    /// A device that fails.
    pub fn batch(&self, batch: &TokenBatch) -> Result<Inputs<Tensor>, Error> {
        // ids of tokenizers are u32, a mask is 0 or 1
        let ids = batch.ids.iter().map(|id| *id as u32).collect();
        let mask = batch.mask.iter().map(|mask| *mask as u8).collect();
        self.inputs(ids, mask, batch.rows())
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

impl Candle {
    /// Scores by content and relative positions.
    fn relative_scores(
        &self,
        query: &Tensor,
        key: &Tensor,
        positions: &Tensor,
        offsets: &RelativeOffsets,
        scale: f64,
    ) -> Result<Tensor, Error> {
        let (rows, heads, tokens, size) = query.dims4()?;
        let table = positions.dim(0)?;
        let positions = positions.reshape((table, heads, 2 * size))?.transpose(0, 1)?;
        let part = |start: usize| -> Result<Tensor, Error> {
            let part = positions.narrow(2, start, size)?.transpose(1, 2)?.contiguous()?;
            Ok(part.unsqueeze(0)?.broadcast_as((rows, heads, size, table))?.contiguous()?)
        };
        let (position_query, position_key) = (part(0)?, part(size)?);
        let (query, key) = (query.affine(scale, 0.0)?, key.contiguous()?);
        let content = self.product(&query, &key.t()?)?;
        let last = tokens as i64 - 1;
        let distances: Vec<u32> = (-last..=last).map(|offset| offsets.index(offset)).collect();
        let gather = |x: Tensor, from_keys: bool| -> Result<Tensor, Error> {
            if self.plain {
                return plain_relative(&x, &distances, from_keys);
            }
            Ok(x.contiguous()?.apply_op1(ops::RelativeGather { rows: distances.clone().into(), from_keys })?)
        };
        let of_queries = gather(self.product(&query, &position_key)?, false)?;
        let of_keys = gather(self.product(&key.affine(scale, 0.0)?, &position_query)?, true)?;
        Ok(((content + of_queries)? + of_keys)?)
    }

    fn masked_softmax(&self, scores: &Tensor, allowed: &Tensor) -> Result<Tensor, Error> {
        if self.plain {
            return plain_masked_softmax(scores, allowed);
        }
        Ok(scores.contiguous()?.apply_op2(&allowed.contiguous()?, ops::MaskedSoftmax)?)
    }
}

impl Algebra for Candle {
    type Tensor = Tensor;
    type Error = Error;

    fn parameter(&self, name: &str, shape: &[usize], _: Init) -> Result<Tensor, Error> {
        let tensor =
            self.parameters.get(name).ok_or_else(|| Error::invalid(format!("parameter {name} is missing"), ""))?;
        if tensor.dims() != shape {
            let message = format!("parameter {name} has shape {:?}, not {shape:?}", tensor.dims());
            return Err(Error::invalid(message, ""));
        }
        let Some(read) = &self.read else { return Ok(tensor.clone()) };
        let mut read = read.borrow_mut();
        if !read.iter().any(|known| known.id() == tensor.id()) {
            read.push(tensor.clone());
        }
        Ok(tensor.detach())
    }

    fn recomputed<F>(&self, inputs: &[&Tensor], part: F) -> Result<Tensor, Error>
    where
        F: Fn(&Self, &[Tensor]) -> Result<Tensor, Error> + Send + Sync + 'static,
    {
        // a pass without a graph keeps nothing anyway
        if self.recomputing && self.read.is_none() {
            return recompute(self, inputs, Box::new(part));
        }
        part(self, &inputs.iter().copied().cloned().collect::<Vec<_>>())
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
            Positions::AfterPadding { pad } => {
                let mut rows = ids.to_vec2::<u32>()?;
                rows.iter_mut().for_each(|row| count_after_padding(row, pad));
                Ok(Tensor::new(rows, &self.device)?)
            }
        }
    }

    fn first_row(&self, table: &Tensor) -> Result<Tensor, Error> {
        Ok(table.narrow(0, 0, 1)?)
    }

    fn constant(&self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor, Error> {
        Ok(Tensor::from_vec(values, shape, &self.device)?)
    }

    fn element(&self, vector: &Tensor, index: usize) -> Result<Tensor, Error> {
        Ok(vector.narrow(0, index, 1)?)
    }

    fn add(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
        Ok(if a.dims() == b.dims() { a.add(b)? } else { a.broadcast_add(b)? })
    }

    fn mul(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
        Ok(if a.dims() == b.dims() { a.mul(b)? } else { a.broadcast_mul(b)? })
    }

    fn affine(&self, x: &Tensor, scale: f64, shift: f64) -> Result<Tensor, Error> {
        Ok(x.affine(scale, shift)?)
    }

    fn split(&self, x: &Tensor, parts: usize) -> Result<Vec<Tensor>, Error> {
        let size = x.dim(D::Minus1)? / parts;
        (0..parts).map(|part| Ok(x.narrow(D::Minus1, part * size, size)?)).collect()
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, Error> {
        let mut shape = x.dims().to_vec();
        let input = shape.pop().unwrap_or_default();
        shape.push(weight.dim(0)?);
        let x = x.reshape(((), input))?;
        let sum = match bias {
            None if self.plain && self.bf16 => self.product(&x, &weight.t()?)?,
            None => x.apply_op2(weight, ops::Linear)?,
            Some(bias) if self.plain => self.product(&x, &weight.t()?)?.broadcast_add(bias)?,
            Some(bias) => x.apply_op3(weight, bias, ops::Linear)?,
        };
        Ok(sum.reshape(shape)?)
    }

    fn layer_norm(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Result<Tensor, Error> {
        if self.plain {
            return plain_layer_norm(x, weight, bias, eps);
        }
        let x = x.contiguous()?;
        let norm = ops::LayerNorm { eps: eps as f32 };
        Ok(match (weight, bias) {
            (None, None) => x.apply_op1(norm)?,
            (Some(weight), Some(bias)) => x.apply_op3(weight, bias, norm)?,
            (Some(weight), None) => x.apply_op3(weight, &weight.zeros_like()?, norm)?,
            (None, Some(bias)) => x.apply_op3(&bias.ones_like()?, bias, norm)?,
        })
    }

    fn activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor, Error> {
        if self.plain {
            return plain_activation(x, activation);
        }
        let x = x.contiguous()?;
        Ok(match activation {
            Activation::Gelu => x.apply_op1(ops::Gelu)?,
            Activation::GeluTanh => x.apply_op1(ops::GeluTanh)?,
            Activation::Relu => x.relu()?,
            Activation::Tanh => x.apply_op1(ops::Tanh)?,
            Activation::Sigmoid => x.apply_op1(ops::Sigmoid)?,
            Activation::Softplus => x.apply_op1(ops::Softplus)?,
        })
    }

    fn dropout(&self, x: &Tensor, probability: f64) -> Result<Tensor, Error> {
        let Some(rng) = self.dropout.as_ref().filter(|_| probability > 0.0) else {
            return Ok(x.clone());
        };
        let scale = 1.0 / (1.0 - probability as f32);
        let mut rng = rng.borrow_mut();
        if !self.device.is_cpu() {
            // numbers of the device itself: a copy of as many costs more than the layer
            self.device.set_seed(rng.random())?;
            let kept = x.rand_like(0.0, 1.0)?.ge(probability)?.to_dtype(x.dtype())?;
            return Ok((x.mul(&kept)? * f64::from(scale))?);
        }
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

    fn per_head(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(x.unsqueeze(1)?)
    }

    fn split_heads(&self, x: &Tensor, heads: usize, size: usize) -> Result<Tensor, Error> {
        let (rows, width, _) = x.dims3()?;
        Ok(x.reshape((rows, width, heads, size))?.transpose(1, 2)?.contiguous()?)
    }

    fn rope(&self, x: &Tensor, theta: f64) -> Result<Tensor, Error> {
        let (_, _, tokens, size) = x.dims4()?;
        let half = size / 2;
        let angle = |at: usize| {
            let (token, component) = (at / size, at % size % half.max(1));
            (token as f64 * theta.powf(-2.0 * component as f64 / size as f64)) as f32
        };
        let angles: Vec<f32> = (0..tokens * size).map(angle).collect();
        let angles = Tensor::from_vec(angles, (tokens, size), &self.device)?;
        let (first, second) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
        let rotated = Tensor::cat(&[&second.neg()?, &first], D::Minus1)?;
        Ok((x.broadcast_mul(&angles.cos()?)? + rotated.broadcast_mul(&angles.sin()?)?)?)
    }

    fn allowed_keys(&self, mask: &Tensor, window: Option<usize>) -> Result<Tensor, Error> {
        let tokens = mask.dim(1)?;
        // a window wider than the text is none
        let window = window.filter(|window| *window + 1 < tokens);
        let mut made = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, allowed)) = made.iter().find(|(id, w, _)| (*id, *w) == (mask.id(), window)) {
            return Ok(allowed.clone());
        }
        let keys = mask.to_dtype(DType::F32)?.unsqueeze(1)?.unsqueeze(1)?;
        let allowed = match window {
            None => keys,
            Some(window) => {
                let near = |at: usize| f32::from(u8::from((at / tokens).abs_diff(at % tokens) <= window));
                let near: Vec<f32> = (0..tokens * tokens).map(near).collect();
                keys.broadcast_mul(&Tensor::from_vec(near, (1, 1, tokens, tokens), &self.device)?)?
            }
        };
        made.push((mask.id(), window, allowed.clone()));
        Ok(allowed)
    }

    fn attention(
        &self,
        inputs: AttentionInputs<'_, Tensor>,
        settings: &AttentionSettings<'_>,
    ) -> Result<Tensor, Error> {
        let AttentionInputs { query, key, value, positions, allowed } = inputs;
        let scores = match (positions, settings.offsets) {
            (Some(positions), Some(offsets)) => self.relative_scores(query, key, positions, offsets, settings.scale)?,
            // scaling the factor costs T·d instead of T·T
            _ => self.product(&query.affine(settings.scale, 0.0)?, &key.t()?)?,
        };
        let probabilities = self.dropout(&self.masked_softmax(&scores, allowed)?, settings.dropout)?;
        let (rows, _, tokens, _) = query.dims4()?;
        Ok(self.product(&probabilities, value)?.transpose(1, 2)?.reshape((rows, tokens, settings.width))?)
    }

    fn max_logits(&self, features: &Tensor, weight: &Tensor, bias: &Tensor, mask: &Tensor) -> Result<Tensor, Error> {
        match (self.plain, self.device.is_cpu()) {
            (false, _) => max_logits(features, weight, bias, mask),
            (true, true) => plain_max_logits(self, features, weight, bias, mask),
            (true, false) => {
                let product = if self.bf16 { mixed_product } else { full_product };
                max_logits_text_by_text(features, weight, bias, mask, product)
            }
        }
    }

    fn followed(&self, mask: &Tensor) -> Result<Tensor, Error> {
        let (rows, tokens) = mask.dims2()?;
        let end = Tensor::zeros((rows, 1), mask.dtype(), mask.device())?;
        Ok(Tensor::cat(&[mask, &end], 1)?.narrow(1, 1, tokens)?)
    }

    fn has_token(&self, mask: &Tensor) -> Result<Tensor, Error> {
        Ok(mask.max_keepdim(1)?.to_dtype(DType::F32)?)
    }

    fn shift_right(&self, x: &Tensor, first: &Tensor) -> Result<Tensor, Error> {
        let (rows, tokens, terms) = x.dims3()?;
        let first = first.reshape((1, 1, terms))?.broadcast_as((rows, 1, terms))?.contiguous()?;
        Ok(Tensor::cat(&[&first, x], 1)?.narrow(1, 0, tokens)?)
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

fn full_product(a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
    Ok(a.matmul(b)?)
}

/// The product of factors that are rounded to bfloat16.
fn mixed_product(a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
    Ok(a.to_dtype(DType::BF16)?.matmul(&b.to_dtype(DType::BF16)?)?.to_dtype(DType::F32)?)
}

/// Replaces the ids of a row by its positions of [`Positions::AfterPadding`].
pub(super) fn count_after_padding(row: &mut [u32], pad: u32) {
    let mut last = pad;
    for id in row {
        last += u32::from(*id != pad);
        *id = if *id == pad { pad } else { last };
    }
}

/// A number so low that its exponential is 0 beside any score, and finite, so that nothing turns into NaN.
const LOW: f32 = -1e30;

fn plain_layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor, Error> {
    let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
    let mut normed = centered.broadcast_div(&(variance + eps)?.sqrt()?)?;
    if let Some(weight) = weight {
        normed = normed.broadcast_mul(weight)?;
    }
    match bias {
        None => Ok(normed),
        Some(bias) => Ok(normed.broadcast_add(bias)?),
    }
}

fn plain_activation(x: &Tensor, activation: Activation) -> Result<Tensor, Error> {
    Ok(match activation {
        Activation::Gelu => x.gelu_erf()?,
        Activation::GeluTanh => x.gelu()?,
        Activation::Relu => x.relu()?,
        Activation::Tanh => x.tanh()?,
        // (1 + tanh(x/2))/2, which cannot overflow
        Activation::Sigmoid => x.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)?,
        // max(0, x) + log(1 + exp(−|x|)), which cannot either
        Activation::Softplus => (x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?,
    })
}

/// The plain twin of [`ops::RelativeGather`].
fn plain_relative(x: &Tensor, rows: &[u32], from_keys: bool) -> Result<Tensor, Error> {
    let (batch, heads, tokens, _) = x.dims4()?;
    let row = |(this, other): (usize, usize)| {
        let (query, key) = if from_keys { (other, this) } else { (this, other) };
        rows[query + tokens - 1 - key]
    };
    let index: Vec<u32> = (0..tokens * tokens).map(|at| row((at / tokens, at % tokens))).collect();
    let index = Tensor::from_vec(index, (1, 1, tokens, tokens), x.device())?;
    let index = index.broadcast_as((batch, heads, tokens, tokens))?.contiguous()?;
    let gathered = x.contiguous()?.gather(&index, 3)?;
    Ok(if from_keys { gathered.transpose(2, 3)? } else { gathered })
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
    a: &Candle,
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

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    /// The way of devices, on the CPU, against the graph of all logits.
    #[test]
    fn largest_logits_text_by_text_are_those_of_the_batch() {
        let var = |shape: &[usize], seed: f64| {
            let n: usize = shape.iter().product();
            let values: Vec<f32> = (0..n).map(|at| ((at as f64 * 0.7 + seed).sin() * 2.0) as f32).collect();
            Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
        };
        let (features, weight, bias) = (var(&[3, 4, 5], 1.0), var(&[7, 5], 2.0), var(&[7], 3.0));
        // the last text is empty
        let mask = Tensor::new(&[[1_u8, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], &Device::Cpu).unwrap();
        let wanted = var(&[3, 7], 4.0);
        let candle = Candle::new(&BTreeMap::new(), &Device::Cpu).plain();
        let plain = plain_max_logits(&candle, &features, &weight, &bias, &mask).unwrap();
        let fast = max_logits_text_by_text(&features, &weight, &bias, &mask, full_product).unwrap();
        let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let close = |a: &Tensor, b: &Tensor| numbers(a).iter().zip(numbers(b)).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&plain, &fast) && numbers(&fast)[14..] == [0.0; 7], "{plain} {fast}");
        let grads = |result: &Tensor| (result * wanted.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
        let (plain, fast) = (grads(&plain), grads(&fast));
        for var in [&features, &weight, &bias] {
            let (plain, fast) = (plain.get(var).unwrap(), fast.get(var).unwrap());
            assert!(close(plain, fast) && numbers(fast).iter().any(|value| *value != 0.0), "{plain} {fast}");
        }
    }
}
