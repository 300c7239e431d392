//! The largest logit of each term over the tokens of a text, without the logits of all tokens in memory, and its gradient.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::ops::{by_text, read};
use super::product::{Mat, Threads, Write, product};
use crate::Error;

/// Terms of the vocabulary whose logits are held at a time, by each thread.
const TERMS: usize = 256;

/// The largest logit per row and term over the row's tokens: `features` `[B, T, D]`, `weight` `[V, D]`, `bias` `[V]`,
/// `mask` `[B, T]`, giving `[B, V]`.
///
/// The gradient goes to one token per row and term, the first largest (as torch does on the CPU), and only where the incoming
/// gradient is not 0: after log(1+relu) that is a few hundred terms a row, so the backward pass costs almost nothing.
pub(crate) fn max_logits(
    features: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mask: &Tensor,
) -> std::result::Result<Tensor, Error> {
    let (rows, width, size) = features.dims3()?;
    let mask: Vec<u8> = mask.to_dtype(DType::U8)?.flatten_all()?.to_vec1()?;
    let mask: Vec<bool> = mask.into_iter().map(|mask| mask != 0).collect();
    let starts: Vec<usize> = (0..=rows).map(|row| row * width).collect();
    let (largest, at) = read(features, |features| {
        read(weight, |weight| read(bias, |bias| Ok(largest_logits(features, [weight, bias], size, &starts, &mask))))
    })?;
    Ok(features.apply_op3(weight, bias, MaxLogits { largest, at, starts })?)
}

/// Mark of a row without a token that counts.
const NO_TOKEN: u32 = u32::MAX;

/// The largest logit per text and term, `[B, V]`, and its token: `features` `[N, D]` has the tokens of text `i` at
/// `starts[i]..starts[i + 1]`, of which those with a mask count. A text without such a token gets zeros.
///
/// The product is made for some terms and the tokens of some texts at a time, and reduced while it is in the cache.
pub(super) fn largest_logits(
    features: &[f32],
    [weight, bias]: [&[f32]; 2],
    size: usize,
    starts: &[usize],
    mask: &[bool],
) -> (Vec<f32>, Vec<u32>) {
    let terms = bias.len();
    let texts = starts.len().saturating_sub(1);
    let mut largest = vec![0_f32; texts * terms];
    let mut at = vec![NO_TOKEN; texts * terms];
    let groups = groups(starts, mask);
    let chunks = terms.div_ceil(TERMS);
    let block = |task: usize, logits: &mut Vec<f32>| {
        let (group, start) = (&groups[task / chunks], task % chunks * TERMS);
        let some = TERMS.min(terms - start);
        let gathered: Vec<f32>;
        let (first, n) = (group.tokens.first().map_or(0, |token| *token as usize), group.tokens.len());
        // tokens that count mostly follow one another
        let features = if group.tokens.last().is_some_and(|last| *last as usize + 1 - first == n) {
            &features[first * size..][..n * size]
        } else {
            let rows = group.tokens.iter().flat_map(|token| &features[*token as usize * size..][..size]);
            gathered = rows.copied().collect();
            &gathered
        };
        logits.resize(n * some, 0.0);
        let weight = Mat::new(&weight[start * size..], some, size, size);
        product(logits, some, Mat::new(features, n, size, size), weight.t(), 1.0, Write::Over, Threads::One);
        let (mut largest, mut at) = (vec![0_f32; group.texts.len() * some], vec![NO_TOKEN; group.texts.len() * some]);
        let rows = largest.chunks_exact_mut(some).zip(at.chunks_exact_mut(some));
        for ((largest, at), (_, tokens)) in rows.zip(&group.texts) {
            let (product, tokens) = (&logits[tokens.start * some..tokens.end * some], &group.tokens[tokens.clone()]);
            let bias = &bias[start..start + some];
            pulp::Arch::new().dispatch(ReduceRow { product, tokens, largest, at, bias });
        }
        (largest, at)
    };
    let blocks: Vec<(Vec<f32>, Vec<u32>)> =
        (0..groups.len() * chunks).into_par_iter().map_init(Vec::new, |logits, task| block(task, logits)).collect();
    for (task, (block_largest, block_at)) in blocks.into_iter().enumerate() {
        let (group, start) = (&groups[task / chunks], task % chunks * TERMS);
        let some = TERMS.min(terms - start);
        let rows = block_largest.chunks_exact(some).zip(block_at.chunks_exact(some));
        for ((block_largest, block_at), (text, _)) in rows.zip(&group.texts) {
            largest[text * terms + start..][..some].copy_from_slice(block_largest);
            at[text * terms + start..][..some].copy_from_slice(block_at);
        }
    }
    (largest, at)
}

/// Tokens that are multiplied at a time: with fewer, weights would be packed for the product more often.
const TOKENS: usize = 512;

/// Some texts whose logits are made together.
struct Group {
    /// tokens that count
    tokens: Vec<u32>,
    /// texts that have such tokens, and where those are in `tokens`
    texts: Vec<(usize, std::ops::Range<usize>)>,
}

/// Groups of texts of about [`TOKENS`] tokens.
fn groups(starts: &[usize], mask: &[bool]) -> Vec<Group> {
    let mut groups = Vec::<Group>::new();
    for (text, range) in starts.windows(2).enumerate() {
        let tokens = (range[0]..range[1]).filter(|token| mask[*token]).map(|token| token as u32);
        let tokens: Vec<u32> = tokens.collect();
        if tokens.is_empty() {
            continue;
        }
        match groups.last_mut().filter(|group| group.tokens.len() + tokens.len() <= TOKENS) {
            Some(group) => {
                group.texts.push((text, group.tokens.len()..group.tokens.len() + tokens.len()));
                group.tokens.extend(tokens);
            }
            None => groups.push(Group { texts: vec![(text, 0..tokens.len())], tokens }),
        }
    }
    groups
}

/// The tokens of one row, reduced: `product` holds as many values a token as `largest` and `at`.
struct ReduceRow<'a> {
    product: &'a [f32],
    tokens: &'a [u32],
    largest: &'a mut [f32],
    at: &'a mut [u32],
    /// added to the maxima
    bias: &'a [f32],
}

impl pulp::WithSimd for ReduceRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let mut rows = self.product.chunks_exact(self.largest.len()).zip(self.tokens);
        let Some((first, token)) = rows.next() else { return };
        self.largest.copy_from_slice(first);
        self.at.fill(*token);
        for (logits, token) in rows {
            for ((largest, at), logit) in self.largest.iter_mut().zip(self.at.iter_mut()).zip(logits) {
                let larger = *logit > *largest;
                *largest = if larger { *logit } else { *largest };
                *at = if larger { *token } else { *at };
            }
        }
        for (largest, bias) in self.largest.iter_mut().zip(self.bias) {
            *largest += bias;
        }
    }
}

/// Row, term, token and gradient.
type Entry = (usize, usize, usize, f32);

/// Gradients of [`largest_logits`] that are not 0, by row then term.
pub(super) struct Active(Vec<Entry>);

impl Active {
    /// Those of a gradient `[B, V]`.
    pub(super) fn new(grad: &[f32], at: &[u32], terms: usize) -> Self {
        let row_of = |row: (usize, &[f32])| {
            let (row, grad) = row;
            let entries = grad.iter().enumerate().filter(|(_, grad)| **grad != 0.0);
            let entries = entries.map(|(term, grad)| (row, term, at[row * terms + term], *grad));
            let entries = entries.filter(|(_, _, token, _)| *token != NO_TOKEN);
            entries.map(|(row, term, token, grad)| (row, term, token as usize, grad)).collect::<Vec<_>>()
        };
        let rows: Vec<_> = grad.par_chunks(terms.max(1)).enumerate().map(row_of).collect();
        Self(rows.concat())
    }

    /// Adds the gradients of the features, `[N, size]`, to `out`.
    pub(super) fn add_features(&self, weight: &[f32], size: usize, starts: &[usize], out: &mut [f32]) {
        let texts = by_text(out, starts, size);
        texts.into_par_iter().zip(starts).enumerate().for_each(|(text, (out, start))| {
            let from = self.0.partition_point(|entry| entry.0 < text);
            let to = self.0.partition_point(|entry| entry.0 <= text);
            let rows = |&(_, term, token, _): &Entry| (term, token - start);
            pulp::Arch::new().dispatch(AddScaled { entries: &self.0[from..to], rows, from: weight, size, out });
        });
    }

    /// Sorts the gradients by term, then row.
    pub(super) fn by_term(mut self) -> Self {
        self.0.par_sort_by_key(|entry| entry.1);
        self
    }

    /// Adds the gradients of the weights, `[V, size]`, to `out`; sorted [by term](Self::by_term).
    pub(super) fn add_weights(&self, features: &[f32], size: usize, out: &mut [f32]) {
        out.par_chunks_mut((TERMS * size).max(1)).enumerate().for_each(|(chunk, out)| {
            let first = chunk * TERMS;
            let from = self.0.partition_point(|entry| entry.1 < first);
            let to = self.0.partition_point(|entry| entry.1 < first + TERMS);
            let rows = |&(_, term, token, _): &Entry| (token, term - first);
            pulp::Arch::new().dispatch(AddScaled { entries: &self.0[from..to], rows, from: features, size, out });
        });
    }

    /// Adds the gradients of the biases, `[V]`, to `out`.
    pub(super) fn add_biases(&self, out: &mut [f32]) {
        self.0.iter().for_each(|(_, term, _, grad)| out[*term] += grad);
    }
}

/// Carries the maxima already found, and the tokens they came from, for the gradient.
struct MaxLogits {
    largest: Vec<f32>,
    /// flat token index `row·T + t` per row and term
    at: Vec<u32>,
    starts: Vec<usize>,
}

impl CustomOp3 for MaxLogits {
    fn name(&self) -> &'static str {
        "max-logits"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        l2: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = Shape::from((self.starts.len() - 1, l2.dims()[0]));
        Ok((CpuStorage::F32(self.largest.clone()), shape))
    }

    fn bwd(
        &self,
        features: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (terms, size) = weight.dims2()?;
        let active = read(grad, |grad| Ok(Active::new(grad, &self.at, terms)))?;
        let mut features_grad = vec![0_f32; features.elem_count()];
        read(weight, |weight| {
            active.add_features(weight, size, &self.starts, &mut features_grad);
            Ok(())
        })?;
        let active = active.by_term();
        let mut weight_grad = vec![0_f32; weight.elem_count()];
        let mut bias_grad = vec![0_f32; terms];
        read(features, |features| {
            active.add_weights(features, size, &mut weight_grad);
            active.add_biases(&mut bias_grad);
            Ok(())
        })?;
        Ok((
            Some(Tensor::from_vec(features_grad, features.shape(), features.device())?),
            Some(Tensor::from_vec(weight_grad, weight.shape(), weight.device())?),
            Some(Tensor::from_vec(bias_grad, bias.shape(), bias.device())?),
        ))
    }
}

/// Adds rows of `from` times the gradients of entries to rows of `out`; `rows` gives the two rows of an entry.
struct AddScaled<'a, F> {
    entries: &'a [Entry],
    rows: F,
    from: &'a [f32],
    size: usize,
    out: &'a mut [f32],
}

impl<F: Fn(&Entry) -> (usize, usize)> pulp::WithSimd for AddScaled<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for entry in self.entries {
            let (from, to) = (self.rows)(entry);
            let from = &self.from[from * self.size..][..self.size];
            for (out, from) in self.out[to * self.size..][..self.size].iter_mut().zip(from) {
                *out += entry.3 * from;
            }
        }
    }
}
