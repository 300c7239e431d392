//! Candle operations of our own for the CPU: fused, on all threads, with a gradient.
//!
//! Every reduction over rows is cut into chunks of a fixed size whose partial sums are added in order, so results do not
//! depend on the number of threads. Inner loops are written so that the compiler vectorizes them, and run in the widest
//! instruction set of the machine (`pulp`).

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, MetalStorage, Result, Shape, Storage, Tensor,
    bail,
};
use rayon::prelude::*;

use crate::Error;

/// Rows per chunk of a reduction or a parallel loop: a constant, so that sums are the same on any machine.
pub(super) const CHUNK: usize = 64;

/// The elements of a contiguous f32 argument.
fn slice<'s>(storage: &'s CpuStorage, layout: &Layout) -> Result<&'s [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("an argument is not contiguous"),
    }
}

/// Runs `read` on the elements of a CPU f32 tensor, copying them only if they are not contiguous.
pub(super) fn read<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(slice(storage, layout)?),
        _ => bail!("an argument is not on the CPU"),
    }
}

fn last(shape: &Shape) -> usize {
    shape.dims().last().copied().unwrap_or(1).max(1)
}

/// Sum in sixteen lanes: vectorized, more exact than one running sum, and always in the same order.
#[inline(always)]
pub(super) fn sum(values: impl ExactSizeIterator<Item = f32> + Clone) -> f32 {
    let mut lanes = [0_f32; 16];
    let n = values.len();
    let mut values = values;
    for _ in 0..n / 16 {
        for lane in &mut lanes {
            *lane += values.next().unwrap_or(0.0);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(values) {
        *lane += value;
    }
    let mut width = 8;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `exp(x)` for `x ≤ 88`, to 2 units in the last place: Cephes' polynomial, written without branches so that it
/// vectorizes. Below -87 it gives 0.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.0, 88.0);
    let n = (clamped * std::f32::consts::LOG2_E + 0.5).floor();
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4_f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let y = p * r * r + r + 1.0;
    let power = f32::from_bits(((n as i32 + 127) as u32) << 23);
    if x < -87.0 { 0.0 } else { y * power }
}

/// `erf(x)`, to about 3 units in the last place: the rational approximation of Eigen, XLA and TensorFlow.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let x2 = x * x;
    let mut p = -2.726_142_3e-10_f32;
    for c in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_5e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2] {
        p = p * x2 + c;
    }
    let mut q = -1.456_607_2e-5_f32;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        q = q * x2 + c;
    }
    x * p / q
}

/// A mutable slice for each text: the rows `starts[i]..starts[i + 1]` of `width` numbers.
pub(super) fn by_text<'a>(mut numbers: &'a mut [f32], starts: &[usize], width: usize) -> Vec<&'a mut [f32]> {
    let mut texts = Vec::with_capacity(starts.len().saturating_sub(1));
    for pair in starts.windows(2) {
        let (text, rest) = std::mem::take(&mut numbers).split_at_mut((pair[1] - pair[0]) * width);
        texts.push(text);
        numbers = rest;
    }
    texts
}

/// A piece of work for [`pulp::Arch::dispatch`].
///
/// A struct, since a closure would be called through a function of its own, which is compiled for the oldest machine.
struct Fill<'a, F> {
    fill: &'a F,
    start: usize,
    out: &'a mut [f32],
}

impl<F: Fn(usize, &mut [f32])> pulp::WithSimd for Fill<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        (self.fill)(self.start, self.out);
    }
}

/// Fills `out` chunk by chunk on all threads; `fill` gets the index of the chunk's first element.
pub(super) fn fill(out: &mut [f32], chunk: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
    let arch = pulp::Arch::new();
    out.par_chunks_mut(chunk.max(1)).enumerate().for_each(|(index, out)| {
        arch.dispatch(Fill { fill: &fill, start: index * chunk, out });
    });
}

/// Some rows of [`column_sums`], for [`pulp::Arch::dispatch`].
struct AddRows<'a, F> {
    add: &'a F,
    rows: std::ops::Range<usize>,
    sums: &'a mut [f32],
}

impl<F: Fn(usize, &mut [f32])> pulp::WithSimd for AddRows<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for row in self.rows {
            (self.add)(row, self.sums);
        }
    }
}

/// Column sums of a matrix with `width` columns, over rows made by `row(index, out)`.
pub(super) fn column_sums(rows: usize, width: usize, add: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let arch = pulp::Arch::new();
    let partial = |chunk: usize| {
        let mut sums = vec![0_f32; width];
        let rows = chunk * CHUNK..((chunk + 1) * CHUNK).min(rows);
        arch.dispatch(AddRows { add: &add, rows, sums: &mut sums });
        sums
    };
    let partials: Vec<Vec<f32>> = (0..rows.div_ceil(CHUNK)).into_par_iter().map(partial).collect();
    let mut total = vec![0_f32; width];
    for partial in partials {
        for (total, value) in total.iter_mut().zip(partial) {
            *total += value;
        }
    }
    total
}

/// `x·Wᵀ` for `x` `[N, in]` and `W` `[out, in]`, plus a bias `[out]` on the CPU.
///
/// Candle's own product with a transposed matrix has a backward pass that writes the gradient of `W` transposed, and
/// everything after it walks over it element by strided element; here both gradients come in the layout of their
/// tensors, and the bias is added in place.
pub(crate) struct Linear;

impl Linear {
    fn product<S: BackendStorage>(x: &S, x_layout: &Layout, w: &S, w_layout: &Layout) -> Result<(S, Shape)> {
        let ((n, from), (to, _)) = (x_layout.shape().dims2()?, w_layout.shape().dims2()?);
        let product = x.matmul(w, (1, n, to, from), x_layout, &w_layout.transpose(0, 1)?)?;
        Ok((product, Shape::from((n, to))))
    }

    fn gradients(x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        // detached: a gradient with a graph of its own would keep the tensors it was made of until the step is over
        let grad = grad.contiguous()?;
        Ok((Some(grad.matmul(&weight.detach())?), Some(grad.t()?.matmul(&x.detach())?)))
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        Self::product(x, xl, w, wl)
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, w: &CudaStorage, wl: &Layout) -> Result<(CudaStorage, Shape)> {
        Self::product(x, xl, w, wl)
    }

    fn metal_fwd(&self, x: &MetalStorage, xl: &Layout, w: &MetalStorage, wl: &Layout) -> Result<(MetalStorage, Shape)> {
        Self::product(x, xl, w, wl)
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Self::gradients(x, weight, grad)
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear-bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (product, shape) = Self::product(x, xl, w, wl)?;
        let bias = slice(bias, bl)?;
        let CpuStorage::F32(mut out) = product else { bail!("a product is not of f32") };
        let width = bias.len().max(1);
        fill(
            &mut out,
            CHUNK * width,
            #[inline(always)]
            |_, out| {
                for row in out.chunks_exact_mut(width) {
                    for (out, bias) in row.iter_mut().zip(bias) {
                        *out += bias;
                    }
                }
            },
        );
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let width = bias.elem_count().max(1);
        let sums = read(grad, |grad| {
            Ok(column_sums(
                grad.len() / width,
                width,
                #[inline(always)]
                |row, sums| {
                    for (sum, grad) in sums.iter_mut().zip(&grad[row * width..(row + 1) * width]) {
                        *sum += grad;
                    }
                },
            ))
        })?;
        let (x, weight) = Self::gradients(x, weight, grad)?;
        Ok((x, weight, Some(Tensor::from_vec(sums, bias.shape(), grad.device())?)))
    }
}

/// Layer norm over the last axis: `(x)` plain, or `(x, weight, bias)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNorm {
    pub(crate) eps: f32,
}

impl LayerNorm {
    /// The normed rows, times a weight and plus a bias where given.
    pub(super) fn forward(
        &self,
        x: &[f32],
        width: usize,
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
        out: &mut [f32],
    ) {
        fill(
            out,
            CHUNK * width,
            #[inline(always)]
            |start, out| {
                for (out, x) in out.chunks_exact_mut(width).zip(x[start..].chunks_exact(width)) {
                    let (mean, inverse) = self.moments(x);
                    for (out, x) in out.iter_mut().zip(x) {
                        *out = (x - mean) * inverse;
                    }
                    if let Some(weight) = weight {
                        for (out, weight) in out.iter_mut().zip(weight) {
                            *out *= weight;
                        }
                    }
                    if let Some(bias) = bias {
                        for (out, bias) in out.iter_mut().zip(bias) {
                            *out += bias;
                        }
                    }
                }
            },
        );
    }

    /// Mean and `1/√(var + eps)` of a row.
    #[inline(always)]
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let n = x.len() as f32;
        let mean = sum(x.iter().copied()) / n;
        let variance = sum(x.iter().map(|x| (x - mean) * (x - mean))) / n;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }

    /// The gradient of `x`; `weight` is empty for a plain norm.
    pub(super) fn input_gradient(&self, x: &[f32], weight: &[f32], grad: &[f32], width: usize, out: &mut [f32]) {
        fill(
            out,
            CHUNK * width,
            #[inline(always)]
            |start, out| {
                let rows = x[start..].chunks_exact(width).zip(grad[start..].chunks_exact(width));
                for (out, (x, grad)) in out.chunks_exact_mut(width).zip(rows) {
                    let (mean, inverse) = self.moments(x);
                    // out = gradient of the normed row
                    if weight.is_empty() {
                        out.copy_from_slice(grad);
                    } else {
                        for ((out, grad), weight) in out.iter_mut().zip(grad).zip(weight) {
                            *out = grad * weight;
                        }
                    }
                    let n = width as f32;
                    let along_one = sum(out.iter().copied()) / n;
                    let along_normed = sum(out.iter().zip(x).map(|(out, x)| out * (x - mean) * inverse)) / n;
                    for (out, x) in out.iter_mut().zip(x) {
                        *out = inverse * (*out - along_one - (x - mean) * inverse * along_normed);
                    }
                }
            },
        );
    }

    /// The gradients of weight and bias, one after the other.
    pub(super) fn affine_gradient(&self, x: &[f32], grad: &[f32], width: usize) -> Vec<f32> {
        column_sums(
            x.len() / width,
            2 * width,
            #[inline(always)]
            |row, sums| {
                let (x, grad) = (&x[row * width..(row + 1) * width], &grad[row * width..(row + 1) * width]);
                let (mean, inverse) = self.moments(x);
                let (weight_sums, bias_sums) = sums.split_at_mut(width);
                for (((weight, bias), x), grad) in weight_sums.iter_mut().zip(bias_sums).zip(x).zip(grad) {
                    *weight += grad * (x - mean) * inverse;
                    *bias += grad;
                }
            },
        )
    }
}

impl CustomOp1 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let mut out = vec![0_f32; x.len()];
        self.forward(x, last(layout.shape()), None, None, &mut out);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let width = last(x.shape());
        let mut out = vec![0_f32; x.elem_count()];
        read(x, |x| {
            read(grad, |grad| {
                self.input_gradient(x, &[], grad, width, &mut out);
                Ok(())
            })
        })?;
        Ok(Some(Tensor::from_vec(out, x.shape(), x.device())?))
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm-affine"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = slice(s1, l1)?;
        let mut out = vec![0_f32; x.len()];
        self.forward(x, last(l1.shape()), Some(slice(s2, l2)?), Some(slice(s3, l3)?), &mut out);
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let width = last(x.shape());
        let (input, affine) = read(x, |x| {
            read(grad, |grad| {
                let mut input = vec![0_f32; x.len()];
                read(weight, |weight| {
                    self.input_gradient(x, weight, grad, width, &mut input);
                    Ok(())
                })?;
                Ok((input, self.affine_gradient(x, grad, width)))
            })
        })?;
        let (weight_sums, bias_sums) = affine.split_at(width);
        Ok((
            Some(Tensor::from_vec(input, x.shape(), x.device())?),
            Some(Tensor::from_slice(weight_sums, weight.shape(), x.device())?),
            Some(Tensor::from_slice(bias_sums, bias.shape(), x.device())?),
        ))
    }
}

/// An element-wise function and its derivative.
pub(super) trait Pointwise {
    const NAME: &'static str;
    fn value(x: f32) -> f32;
    fn derivative(x: f32) -> f32;
}

/// Elements per chunk of a pointwise loop.
const ELEMENTS: usize = 1 << 14;

fn map<P: Pointwise>(storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let x = slice(storage, layout)?;
    let mut out = vec![0_f32; x.len()];
    fill(
        &mut out,
        ELEMENTS,
        #[inline(always)]
        |start, out| {
            for (out, x) in out.iter_mut().zip(&x[start..]) {
                *out = P::value(*x);
            }
        },
    );
    Ok((CpuStorage::F32(out), layout.shape().clone()))
}

fn map_gradient<P: Pointwise>(x: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
    let mut out = vec![0_f32; x.elem_count()];
    read(x, |x| {
        read(grad, |grad| {
            fill(
                &mut out,
                ELEMENTS,
                #[inline(always)]
                |start, out| {
                    for ((out, x), grad) in out.iter_mut().zip(&x[start..]).zip(&grad[start..]) {
                        *out = grad * P::derivative(*x);
                    }
                },
            );
            Ok(())
        })
    })?;
    Ok(Some(Tensor::from_vec(out, x.shape(), x.device())?))
}

/// Exact GELU.
pub(crate) struct Gelu;

impl Pointwise for Gelu {
    const NAME: &'static str = "gelu";

    #[inline(always)]
    fn value(x: f32) -> f32 {
        0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
    }

    #[inline(always)]
    fn derivative(x: f32) -> f32 {
        // Φ(x) + x·φ(x), φ the normal density
        let density = 0.398_942_3 * exp(-0.5 * x * x);
        0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + x * density
    }
}

/// `tanh(x)`: near 0 the difference of two exponentials would lose its digits, so the series stands in.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let square = x * x;
    let near =
        x * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 + square * (-17.0 / 315.0 + square * (62.0 / 2835.0)))));
    let power = exp((2.0 * x.abs()).min(40.0));
    let far = (1.0 - 2.0 / (power + 1.0)).copysign(x);
    if x.abs() < 0.3 { near } else { far }
}

/// GELU by tanh.
pub(crate) struct GeluTanh;

/// `√(2/π)`
const ROOT: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

impl Pointwise for GeluTanh {
    const NAME: &'static str = "gelu-tanh";

    #[inline(always)]
    fn value(x: f32) -> f32 {
        0.5 * x * (1.0 + tanh(ROOT * (x + CUBIC * x * x * x)))
    }

    #[inline(always)]
    fn derivative(x: f32) -> f32 {
        let t = tanh(ROOT * (x + CUBIC * x * x * x));
        0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * ROOT * (1.0 + 3.0 * CUBIC * x * x)
    }
}

/// `max(0, x)`.
pub(crate) struct Relu;

impl Pointwise for Relu {
    const NAME: &'static str = "relu";

    #[inline(always)]
    fn value(x: f32) -> f32 {
        if x > 0.0 { x } else { 0.0 }
    }

    #[inline(always)]
    fn derivative(x: f32) -> f32 {
        if x > 0.0 { 1.0 } else { 0.0 }
    }
}

/// Hyperbolic tangent.
pub(crate) struct Tanh;

impl Pointwise for Tanh {
    const NAME: &'static str = "tanh";

    #[inline(always)]
    fn value(x: f32) -> f32 {
        tanh(x)
    }

    #[inline(always)]
    fn derivative(x: f32) -> f32 {
        let t = tanh(x);
        1.0 - t * t
    }
}

/// `1/(1 + exp(−x))`.
pub(crate) struct Sigmoid;

impl Pointwise for Sigmoid {
    const NAME: &'static str = "sigmoid";

    #[inline(always)]
    fn value(x: f32) -> f32 {
        1.0 / (1.0 + exp((-x).min(88.0)))
    }

    #[inline(always)]
    fn derivative(x: f32) -> f32 {
        let y = Self::value(x);
        y * (1.0 - y)
    }
}

/// `log(1 + exp(x))`.
pub(crate) struct Softplus;

impl Pointwise for Softplus {
    const NAME: &'static str = "softplus";

    #[inline(always)]
    fn value(x: f32) -> f32 {
        x.max(0.0) + exp(-x.abs()).ln_1p()
    }

    #[inline(always)]
    fn derivative(x: f32) -> f32 {
        Sigmoid::value(x)
    }
}

/// `log(1 + max(0, x))`; NaN stays NaN, so that a model gone wrong is noticed.
pub(crate) struct Log1pRelu;

impl Pointwise for Log1pRelu {
    const NAME: &'static str = "log1p-relu";

    #[inline(always)]
    fn value(x: f32) -> f32 {
        if x <= 0.0 { 0.0 } else { x.ln_1p() }
    }

    #[inline(always)]
    fn derivative(x: f32) -> f32 {
        if x <= 0.0 { 0.0 } else { 1.0 / (1.0 + x) }
    }
}

macro_rules! pointwise {
    ($op:ty) => {
        impl CustomOp1 for $op {
            fn name(&self) -> &'static str {
                <Self as Pointwise>::NAME
            }

            fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
                map::<Self>(storage, layout)
            }

            fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
                map_gradient::<Self>(x, grad)
            }
        }
    };
}
pointwise!(Gelu);
pointwise!(GeluTanh);
pointwise!(Tanh);
pointwise!(Sigmoid);
pointwise!(Softplus);
pointwise!(Log1pRelu);

/// Soft-max over the last axis of `[B, H, T, K]` where `[B, 1, 1 or T, K]` is 1; other keys get 0, rows without a key too.
pub(crate) struct MaskedSoftmax;

impl CustomOp2 for MaskedSoftmax {
    fn name(&self) -> &'static str {
        "masked-softmax"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (scores, allowed) = (slice(s1, l1)?, slice(s2, l2)?);
        let &[_, heads, queries, keys] = l1.dims() else { bail!("scores are not of four axes") };
        let per_row = l2.dims()[2];
        let mut out = vec![0_f32; scores.len()];
        if out.is_empty() {
            return Ok((CpuStorage::F32(out), l1.shape().clone()));
        }
        // one chunk per row of the batch and head
        fill(
            &mut out,
            queries * keys,
            #[inline(always)]
            |start, out| {
                let row = start / (heads * queries * keys);
                for (query, out) in out.chunks_exact_mut(keys).enumerate() {
                    let scores = &scores[start + query * keys..][..keys];
                    let allowed = &allowed[(row * per_row + query.min(per_row - 1)) * keys..][..keys];
                    softmax_row(scores, allowed, out);
                }
            },
        );
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        scores: &Tensor,
        _: &Tensor,
        probabilities: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let keys = last(scores.shape());
        let mut out = vec![0_f32; scores.elem_count()];
        read(probabilities, |p| {
            read(grad, |grad| {
                fill(
                    &mut out,
                    CHUNK * keys,
                    #[inline(always)]
                    |start, out| {
                        let rows = p[start..].chunks_exact(keys).zip(grad[start..].chunks_exact(keys));
                        for (out, (p, grad)) in out.chunks_exact_mut(keys).zip(rows) {
                            let mean = sum(p.iter().zip(grad).map(|(p, grad)| p * grad));
                            for ((out, p), grad) in out.iter_mut().zip(p).zip(grad) {
                                *out = p * (grad - mean);
                            }
                        }
                    },
                );
                Ok(())
            })
        })?;
        Ok((Some(Tensor::from_vec(out, scores.shape(), scores.device())?), None))
    }
}

#[inline(always)]
fn softmax_row(scores: &[f32], allowed: &[f32], out: &mut [f32]) {
    let mut largest = f32::NEG_INFINITY;
    for (score, allowed) in scores.iter().zip(allowed) {
        let score = if *allowed > 0.0 { *score } else { f32::NEG_INFINITY };
        largest = if score > largest { score } else { largest };
    }
    if largest == f32::NEG_INFINITY {
        out.fill(0.0);
        return;
    }
    for ((out, score), allowed) in out.iter_mut().zip(scores).zip(allowed) {
        *out = if *allowed > 0.0 { exp(score - largest) } else { 0.0 };
    }
    let total = sum(out.iter().copied());
    for out in out.iter_mut() {
        *out /= total;
    }
}

/// From what each token has for every row of a table of positions, `[B, H, T, N]`, to what it has for every other token,
/// `[B, H, T, T]` with queries before keys.
pub(crate) struct RelativeGather {
    /// the table's row for the offsets `−(T−1) … T−1`, query minus key
    pub(crate) rows: Arc<[u32]>,
    /// whether the argument's tokens are keys, rather than queries
    pub(crate) from_keys: bool,
}

impl RelativeGather {
    /// Index in the argument of the element `(query, key)`.
    #[inline(always)]
    fn source(&self, tokens: usize, table: usize, query: usize, key: usize) -> usize {
        let token = if self.from_keys { key } else { query };
        token * table + self.rows[query + tokens - 1 - key] as usize
    }
}

impl CustomOp1 for RelativeGather {
    fn name(&self) -> &'static str {
        "relative-gather"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let &[rows, heads, tokens, table] = layout.dims() else { bail!("positions are not of four axes") };
        let mut out = vec![0_f32; rows * heads * tokens * tokens];
        out.par_chunks_mut((tokens * tokens).max(1)).zip(x.par_chunks((tokens * table).max(1))).for_each(|(out, x)| {
            for (query, out) in out.chunks_exact_mut(tokens).enumerate() {
                for (key, out) in out.iter_mut().enumerate() {
                    *out = x[self.source(tokens, table, query, key)];
                }
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((rows, heads, tokens, tokens))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, tokens, table) = x.dims4()?;
        let mut out = vec![0_f32; x.elem_count()];
        read(grad, |grad| {
            let chunks = out.par_chunks_mut((tokens * table).max(1)).zip(grad.par_chunks((tokens * tokens).max(1)));
            chunks.for_each(|(out, grad)| {
                for (query, grad) in grad.chunks_exact(tokens).enumerate() {
                    for (key, grad) in grad.iter().enumerate() {
                        out[self.source(tokens, table, query, key)] += grad;
                    }
                }
            });
            Ok(())
        })?;
        Ok(Some(Tensor::from_vec(out, x.shape(), x.device())?))
    }
}

/// Mean over rows of `log Σ exp(logits) − logits[target]` for `logits` `[N, V]`.
///
/// # Errors
/// As many targets as rows are needed; tensor operations.
pub fn cross_entropy(logits: &Tensor, targets: Vec<u32>) -> std::result::Result<Tensor, Error> {
    let (rows, terms) = logits.dims2()?;
    if targets.len() != rows || targets.iter().any(|target| *target as usize >= terms) {
        return Err(Error::invalid(format!("{} targets do not fit {rows} rows of {terms} logits", targets.len()), ""));
    }
    if !logits.device().is_cpu() {
        let largest = logits.max_keepdim(1)?.detach();
        let shifted = logits.broadcast_sub(&largest)?;
        let total = shifted.exp()?.sum(1)?.log()?;
        let index = Tensor::from_vec(targets, (rows, 1), logits.device())?;
        return Ok((total - shifted.gather(&index, 1)?.squeeze(1)?)?.mean_all()?);
    }
    Ok(logits.contiguous()?.apply_op1(CrossEntropy { targets })?)
}

/// Fused, since its parts would each pass over `[N, V]`.
struct CrossEntropy {
    targets: Vec<u32>,
}

/// Largest value of a row and the sum of `exp(x − largest)`.
#[inline(always)]
fn exp_total(row: &[f32]) -> (f32, f32) {
    let largest = row.iter().fold(f32::NEG_INFINITY, |largest, x| if *x > largest { *x } else { largest });
    (largest, sum(row.iter().map(|x| exp(x - largest))))
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (logits, terms) = (slice(storage, layout)?, last(layout.shape()));
        let mut losses = vec![0_f32; self.targets.len()];
        fill(
            &mut losses,
            1,
            #[inline(always)]
            |row, out| {
                let logits = &logits[row * terms..][..terms];
                let (largest, total) = exp_total(logits);
                out[0] = total.ln() + largest - logits[self.targets[row] as usize];
            },
        );
        let mean = losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / losses.len().max(1) as f64;
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let terms = last(logits.shape());
        let scale = grad.to_scalar::<f32>()? / self.targets.len().max(1) as f32;
        let mut out = vec![0_f32; logits.elem_count()];
        read(logits, |logits| {
            fill(
                &mut out,
                terms,
                #[inline(always)]
                |start, out| {
                    let logits = &logits[start..][..terms];
                    let (largest, total) = exp_total(logits);
                    let factor = scale / total;
                    for (out, x) in out.iter_mut().zip(logits) {
                        *out = exp(x - largest) * factor;
                    }
                    out[self.targets[start / terms] as usize] -= scale;
                },
            );
            Ok(())
        })?;
        Ok(Some(Tensor::from_vec(out, logits.shape(), logits.device())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device, Var};
    use rand::{Rng, SeedableRng};

    use super::*;

    fn random(shape: &[usize], seed: u64) -> Var {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-3.0..3.0)).collect();
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn close(a: &Tensor, b: &Tensor, tolerance: f32) {
        assert_eq!(a.dims(), b.dims());
        let largest =
            (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
        assert!(largest <= tolerance, "{largest}");
    }

    #[test]
    fn exp_and_erf_are_exact_to_a_few_units() {
        for step in -8700..=8800 {
            let x = step as f32 / 100.0;
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found - exact).abs() <= 3e-7 * exact, "exp {x}: {found} {exact}");
        }
        assert_eq!((exp(-1e30), exp(f32::NEG_INFINITY)), (0.0, 0.0));
        // erf by its series, in f64
        for step in -600..=600 {
            let x = f64::from(step) / 100.0;
            let (mut term, mut exact) = (x, x);
            for n in 1..200 {
                term *= -x * x / f64::from(n);
                exact += term / f64::from(2 * n + 1);
            }
            let exact = if x.abs() > 4.5 { x.signum() } else { exact * std::f64::consts::FRAC_2_SQRT_PI };
            assert!((f64::from(erf(x as f32)) - exact).abs() <= 4e-7, "erf {x}");
        }
    }

    #[test]
    fn tanh_and_its_kin_are_exact_to_a_few_units() {
        for step in -4000..=4000 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).tanh();
            assert!((f64::from(tanh(x)) - exact).abs() <= 4e-7 * exact.abs().max(1e-30) + 1e-12, "tanh {x}");
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(Sigmoid::value(x)) - exact).abs() <= 4e-7 * exact, "sigmoid {x}");
            let exact = f64::from(x).exp().ln_1p();
            assert!((f64::from(Softplus::value(x)) - exact).abs() <= 5e-7 * exact, "softplus {x}");
        }
    }

    #[test]
    fn cross_entropy_and_its_gradient_are_those_of_the_plain_operations() {
        let logits = random(&[7, 33], 1);
        let targets = vec![0, 32, 5, 5, 7, 1, 20];
        let fast = cross_entropy(logits.as_tensor(), targets.clone()).unwrap();
        let index = Tensor::from_vec(targets, (7, 1), &Device::Cpu).unwrap();
        let exp = logits.exp().unwrap();
        let log_probability = exp.broadcast_div(&exp.sum_keepdim(D::Minus1).unwrap()).unwrap().log().unwrap();
        let plain = log_probability.gather(&index, 1).unwrap().mean_all().unwrap().neg().unwrap();
        close(&fast, &plain, 1e-5);
        let (fast, plain) = (fast.backward().unwrap(), plain.backward().unwrap());
        close(fast.get(&logits).unwrap(), plain.get(&logits).unwrap(), 1e-6);
    }

    #[test]
    fn a_query_without_an_allowed_key_gets_zeros_and_no_gradient() {
        let scores = random(&[2, 2, 3, 3], 2);
        let allowed = Tensor::new(&[[[[1_f32, 0.0, 1.0]]], [[[0.0, 0.0, 0.0]]]], &Device::Cpu).unwrap();
        let probabilities = scores.apply_op2(&allowed, MaskedSoftmax).unwrap();
        let rows = probabilities.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(rows[18..].iter().all(|p| *p == 0.0));
        assert!(rows[..18].chunks(3).all(|row| row[1] == 0.0 && (row[0] + row[2] - 1.0).abs() < 1e-6));
        let grads = probabilities.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let grad = grads.get(&scores).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(grad[18..].iter().all(|g| *g == 0.0) && grad.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn many_rows_give_the_sums_of_few() {
        // more rows than one chunk, so that partial sums are joined
        let x = random(&[3 * CHUNK + 5, 20], 3);
        let (weight, bias) = (random(&[20], 4), random(&[20], 5));
        let norm = LayerNorm { eps: 1e-5 };
        let fast = x.apply_op3(weight.as_tensor(), bias.as_tensor(), norm).unwrap();
        let loss = |y: &Tensor| y.sqr().unwrap().mul(&random(&[3 * CHUNK + 5, 20], 6)).unwrap().sum_all().unwrap();
        let grads = loss(&fast).backward().unwrap();
        let mean = x.mean_keepdim(1).unwrap();
        let centered = x.broadcast_sub(&mean).unwrap();
        let deviation = (centered.sqr().unwrap().mean_keepdim(1).unwrap() + 1e-5).unwrap().sqrt().unwrap();
        let plain = centered.broadcast_div(&deviation).unwrap();
        let plain = plain.broadcast_mul(weight.as_tensor()).unwrap().broadcast_add(bias.as_tensor()).unwrap();
        close(&fast, &plain, 1e-5);
        let plain_grads = loss(&plain).backward().unwrap();
        for variable in [&x, &weight, &bias] {
            close(grads.get(variable).unwrap(), plain_grads.get(variable).unwrap(), 2e-3);
        }
    }

    #[test]
    fn a_model_gone_wrong_is_not_taken_for_an_empty_vector() {
        let x = Tensor::new(&[f32::NAN, -1.0, 0.0, 1.0], &candle_core::Device::Cpu).unwrap();
        let y: Vec<f32> = x.apply_op1(Log1pRelu).unwrap().to_vec1().unwrap();
        assert!(y[0].is_nan());
        assert_eq!(y[1..], [0.0, 0.0, 2_f32.ln()]);
    }
}
