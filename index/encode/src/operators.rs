//! Two custom operators, which replace chains of ONNX operators in a split graph.
//!
//! A file has only standard operators, so that every runtime runs it. A graph split ([`crate::split_graph`]) replaces two
//! chains by one node each:
//!
//! * [`LAYER_NORM`]: `(x − mean)/√(variance + eps)·weight + bias`. The fused node of ONNX Runtime takes 1.5 times as long.
//! * [`RELATIVE_SCORES`]: attention scores with relative positions (DeBERTa's, NorBERT3's),
//!   `content[i, j] + of_queries[i, r] + of_keys[r, j] + allowed[j]` with `r = rows[i, j]`. With standard operators every
//!   score passes through memory five times.

use std::sync::Mutex;

use ort::operator::{
    BoxedKernel, ComputeContext, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
    ShapeInferenceContext,
};
use ort::value::TensorElementType;
use pulp::Arch;

/// Domain of both operators.
pub(crate) const DOMAIN: &str = "splade";
/// Inputs: `x` `[…, D]`, `weight` `[D]`, `bias` `[D]`, `eps` (one number); output as `x`.
pub(crate) const LAYER_NORM: &str = "LayerNorm";
/// Inputs: `content` `[B, H, T, T]`, `of_queries` `[B, H, T, N]`, `of_keys` `[B, H, N, T]`, `rows` `[T, T]` of int32, each
/// from 0 to N − 1, `allowed` `[B, 1, 1, T]`; output as `content`.
pub(crate) const RELATIVE_SCORES: &str = "RelativeScores";

/// Makes the domain with both operators.
pub(crate) fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new(DOMAIN)?.add(LayerNorm)?.add(RelativeScores)
}

/// Number of values in one piece of work, which is whole rows.
const PIECE: usize = 1 << 14;

struct LayerNorm;

impl Operator for LayerNorm {
    type Kernel<'k> = BoxedKernel<'k>;

    fn name(&self) -> &str {
        LAYER_NORM
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [const { OperatorInput::required(TensorElementType::Float32) }; 4]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'k>(&self, _: &KernelContext<'k>) -> ort::Result<Self::Kernel<'k>> {
        let arch = Arch::new();
        Ok(Box::new(move |context: &ComputeContext| {
            let inputs = Floats::of(context, [0, 1, 2, 3])?;
            let [(shape, x), (weights, weight), (biases, bias), (_, eps)] = inputs.slices()?;
            let size = weight.len();
            let fits = shape.last() == Some(&size) && weights == [size] && biases == [size] && size > 0;
            let (true, &[eps]) = (fits, eps) else { return Err(ort::Error::new("LayerNorm: shapes do not fit")) };
            let work = |at: usize, out: &mut [f32]| {
                let x = &x[at..at + out.len()];
                arch.dispatch(Normed { x, weight, bias, eps, out });
            };
            write_pieces(context, &shape, size, work)
        }))
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        as_first_input(context)
    }
}

struct RelativeScores;

impl Operator for RelativeScores {
    type Kernel<'k> = BoxedKernel<'k>;

    fn name(&self) -> &str {
        RELATIVE_SCORES
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let float = || OperatorInput::required(TensorElementType::Float32);
        [float(), float(), float(), OperatorInput::required(TensorElementType::Int32), float()]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'k>(&self, _: &KernelContext<'k>) -> ort::Result<Self::Kernel<'k>> {
        let arch = Arch::new();
        Ok(Box::new(move |context: &ComputeContext| {
            let inputs = Floats::of(context, [0, 1, 2, 4])?;
            let [(shape, content), (queries, of_queries), (keys, of_keys), (mask, allowed)] = inputs.slices()?;
            let rows = context.input(3)?.ok_or_else(missing)?;
            let (square, rows) = rows.try_extract_tensor::<i32>()?;
            let (&[batch, heads, tokens, _], &[.., places]) = (shape.as_slice(), queries.as_slice()) else {
                return Err(ort::Error::new("RelativeScores: four axes are needed"));
            };
            let fits = shape == [batch, heads, tokens, tokens]
                && queries == [batch, heads, tokens, places]
                && keys == [batch, heads, places, tokens]
                && square.iter().all(|axis| usize::try_from(*axis) == Ok(tokens))
                && square.len() == 2
                && mask == [batch, 1, 1, tokens]
                && rows.iter().all(|row| usize::try_from(*row).is_ok_and(|row| row < places));
            if !fits {
                return Err(ort::Error::new("RelativeScores: shapes do not fit"));
            }
            let runs = runs(rows, tokens);
            let work = |at: usize, out: &mut [f32]| {
                for (query, out) in (at / tokens..).zip(out.chunks_exact_mut(tokens)) {
                    let (of_head, place) = (query / tokens, query % tokens);
                    arch.dispatch(Scores {
                        content: &content[query * tokens..][..tokens],
                        of_query: &of_queries[query * places..][..places],
                        of_keys: &of_keys[of_head * places * tokens..][..places * tokens],
                        rows: &rows[place * tokens..][..tokens],
                        runs: &runs[place],
                        allowed: &allowed[of_head / heads * tokens..][..tokens],
                        out,
                    });
                }
            };
            write_pieces(context, &shape, tokens, work)
        }))
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        as_first_input(context)
    }
}

fn missing() -> ort::Error {
    ort::Error::new("an input is missing")
}

fn as_first_input(context: &mut ShapeInferenceContext) -> ort::Result<()> {
    let first = context.inputs().into_iter().next().ok_or_else(missing)?;
    context.set_output(0, &first)
}

/// Inputs that are floats.
struct Floats<'c, const N: usize>([ort::value::ValueRef<'c>; N]);

impl<'c, const N: usize> Floats<'c, N> {
    fn of(context: &'c ComputeContext, places: [usize; N]) -> ort::Result<Self> {
        let mut found = Vec::with_capacity(N);
        for place in places {
            found.push(context.input(place)?.ok_or_else(missing)?);
        }
        found.try_into().map(Self).map_err(|_| missing())
    }

    /// Shape and values of each input.
    fn slices(&self) -> ort::Result<[(Vec<usize>, &[f32]); N]> {
        let mut found = Vec::with_capacity(N);
        for value in &self.0 {
            let (shape, values) = value.try_extract_tensor::<f32>()?;
            found.push((shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect(), values));
        }
        found.try_into().map_err(|_| missing())
    }
}

/// Fills an output of this shape on the session's threads, in pieces of whole rows. `work` gets the start of a piece.
fn write_pieces(
    context: &ComputeContext,
    shape: &[usize],
    row: usize,
    work: impl Fn(usize, &mut [f32]) + Send + Sync,
) -> ort::Result<()> {
    let axes: Vec<i64> = shape.iter().map(|axis| *axis as i64).collect();
    let mut output = context.output(0, axes)?.ok_or_else(missing)?;
    let (_, out) = output.try_extract_tensor_mut::<f32>()?;
    let piece = (PIECE / row.max(1)).max(1) * row.max(1);
    let count = out.len().div_ceil(piece);
    let pieces = Mutex::new(out.chunks_mut(piece).enumerate());
    context.par_for(count, 0, |_| {
        let next = pieces.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
        if let Some((at, out)) = next {
            work(at * piece, out);
        }
    })
}

/// Sum in 16 partial sums: this order can be vectorized and does not depend on the machine.
#[inline(always)]
fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; 16];
    let (sixteens, rest) = values.as_chunks::<16>();
    for values in sixteens {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += of(*value);
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += of(*value);
    }
    sums.iter().sum()
}

struct Normed<'n> {
    x: &'n [f32],
    weight: &'n [f32],
    bias: &'n [f32],
    eps: f32,
    out: &'n mut [f32],
}

impl pulp::WithSimd for Normed<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let size = self.weight.len();
        for (x, out) in self.x.chunks_exact(size).zip(self.out.chunks_exact_mut(size)) {
            let mean = sum(x, |x| x) / size as f32;
            let variance = sum(x, |x| (x - mean) * (x - mean)) / size as f32;
            let scale = 1.0 / (variance + self.eps).sqrt();
            for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(self.weight).zip(self.bias) {
                *out = (x - mean) * scale * weight + bias;
            }
        }
    }
}

/// Consecutive keys of a query.
struct Run {
    keys: std::ops::Range<usize>,
    /// common row of the keys; `None` if each key has another row
    row: Option<usize>,
}

/// Splits the keys of every query into runs: distant keys share a row, near keys have one row each.
fn runs(rows: &[i32], tokens: usize) -> Vec<Vec<Run>> {
    let of_query = |rows: &[i32]| {
        let mut runs: Vec<Run> = Vec::new();
        let mut start = 0;
        for same in rows.chunk_by(|one, other| one == other) {
            let keys = start..start + same.len();
            start = keys.end;
            let row = (same.len() > 1).then_some(same[0] as usize);
            match runs.last_mut() {
                Some(last) if row.is_none() && last.row.is_none() => last.keys.end = keys.end,
                _ => runs.push(Run { keys, row }),
            }
        }
        runs
    };
    rows.chunks_exact(tokens.max(1)).map(of_query).collect()
}

/// Operands and output of the scores of one query.
struct Scores<'s> {
    content: &'s [f32],
    of_query: &'s [f32],
    of_keys: &'s [f32],
    rows: &'s [i32],
    runs: &'s [Run],
    allowed: &'s [f32],
    out: &'s mut [f32],
}

impl pulp::WithSimd for Scores<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let tokens = self.rows.len();
        for Run { keys, row } in self.runs {
            let others = self.content[keys.clone()].iter().zip(&self.allowed[keys.clone()]);
            let out = self.out[keys.clone()].iter_mut().zip(others);
            if let Some(row) = *row {
                let (of_query, of_keys) = (self.of_query[row], &self.of_keys[row * tokens..][keys.clone()]);
                for ((out, (content, allowed)), of_key) in out.zip(of_keys) {
                    *out = content + (of_query + of_key) + allowed;
                }
            } else {
                for (((out, (content, allowed)), row), key) in out.zip(&self.rows[keys.clone()]).zip(keys.clone()) {
                    let row = *row as usize;
                    *out = content + (self.of_query[row] + self.of_keys[row * tokens + key]) + allowed;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    fn numbers(random: &mut rand_chacha::ChaCha8Rng, count: usize) -> Vec<f32> {
        (0..count).map(|_| random.random_range(-2.0..2.0)).collect()
    }

    #[test]
    fn rows_are_normed() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for size in [1, 5, 16, 33, 192] {
            let (x, weight, bias) =
                (numbers(&mut random, 3 * size), numbers(&mut random, size), numbers(&mut random, size));
            let mut out = vec![f32::NAN; x.len()];
            Arch::new().dispatch(Normed { x: &x, weight: &weight, bias: &bias, eps: 1e-5, out: &mut out });
            for (x, out) in x.chunks(size).zip(out.chunks(size)) {
                let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / size as f64;
                let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / size as f64;
                for at in 0..size {
                    let normed = (f64::from(x[at]) - mean) / (variance + 1e-5).sqrt();
                    let expected = normed * f64::from(weight[at]) + f64::from(bias[at]);
                    assert!((f64::from(out[at]) - expected).abs() <= 1e-4, "{size}: {} {expected}", out[at]);
                }
            }
        }
    }

    #[test]
    fn scores_are_looked_up_and_added() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(2);
        for (tokens, near) in [(1, 1), (7, 2), (40, 3), (70, 100), (33, 0)] {
            // as a family's: every offset its own near the query, one for many beyond
            let places = 2 * near as usize + 3;
            let row = |query: i32, key: i32| {
                let offset = (query - key).clamp(-near - 1, near + 1);
                offset + near + 1
            };
            let rows: Vec<i32> = (0..tokens).flat_map(|query| (0..tokens).map(move |key| row(query, key))).collect();
            let tokens = tokens as usize;
            let (content, of_queries) = (numbers(&mut random, tokens * tokens), numbers(&mut random, tokens * places));
            let (of_keys, allowed) = (numbers(&mut random, places * tokens), numbers(&mut random, tokens));
            let runs = runs(&rows, tokens);
            for query in 0..tokens {
                let mut out = vec![f32::NAN; tokens];
                Arch::new().dispatch(Scores {
                    content: &content[query * tokens..][..tokens],
                    of_query: &of_queries[query * places..][..places],
                    of_keys: &of_keys,
                    rows: &rows[query * tokens..][..tokens],
                    runs: &runs[query],
                    allowed: &allowed,
                    out: &mut out,
                });
                for key in 0..tokens {
                    let row = rows[query * tokens + key] as usize;
                    let positional = of_queries[query * places + row] + of_keys[row * tokens + key];
                    assert_eq!(out[key], content[query * tokens + key] + positional + allowed[key]);
                }
            }
        }
    }
}
