//! [`OutputLayer`]: the product with the vocabulary matrix and the maximum over tokens, fused: `max_t (f_t·w_v + b_v)` where
//! it is above 0.
//!
//! This is most of the work of a SPLADE network, nine tenths in a small model, although only a few hundred of the tokens ×
//! terms products are used. The fused layer keeps the products in the cache. It multiplies 8-bit integers for 64 terms and
//! one text at a time, while that part of the matrix is in the first-level cache, and keeps the maximum in registers.
//!
//! * A matrix **in 8 bits** ([`OutputLayer::of_codes`]): the largest integer product, scaled, is the logit. Every
//!   token has its own scale, so that the vector of a text does not depend on the other texts of its batch. The graph
//!   in the file has one scale per text, so that its vectors differ by rounding.
//! * A matrix **in floats** ([`OutputLayer::of_floats`]) is rounded too, with a bound on the error of a product. With `f̂`
//!   and `ŵ` for the rounded features and the rounded row of the matrix (Cauchy–Schwarz, twice):
//!
//!   `|f·w − f̂·ŵ| ≤ ‖f − f̂‖·‖w‖ + ‖f̂‖·‖w − ŵ‖`
//!
//!   A term whose largest rounded logit is below 0 by more than the bound has no weight. For each other term, tokens whose
//!   rounded logit is within twice the bound of the largest are multiplied in f32, usually one or two. The largest of these
//!   products is the logit, equal to that of the plain f32 product up to the order of its sum.
//!
//! The layer needs instructions of x86-64 ([`OutputLayer::is_supported`]). Without them ONNX Runtime runs the whole file.

#![cfg_attr(not(target_arch = "x86_64"), allow(unused, reason = "no layer is ever made elsewhere"))]

mod simd;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use simd::{Block, BlockTerms, Instructions, TERMS, Text};

/// The matrix of an output layer, `[V, D]`, beside its codes.
#[derive(Debug)]
enum Matrix {
    /// no floats: the codes are the weights
    Codes,
    /// floats, and the norms of the bound: `‖w‖` and `‖w − ŵ‖` of every row
    Floats { rows: Array2<f32>, norms: Vec<f32>, errors: Vec<f32> },
}

/// `logits = max_t f_t·Wᵀ + b`, for terms whose logit is above 0.
#[derive(Debug)]
pub(crate) struct OutputLayer {
    instructions: Instructions,
    /// D
    size: usize,
    /// V
    terms: usize,
    blocks: Vec<Block>,
    scales: Vec<f32>,
    bias: Vec<f32>,
    matrix: Matrix,
}

/// Margin for the rounding of the norms in the bound, which are sums of f32.
const SLACK: f64 = 1.001;
/// Largest D: sums of this many products of bytes fit 32 bits, and the bounds on sums of f32 hold.
const MOST_FEATURES: usize = 1 << 14;

impl OutputLayer {
    /// True if this processor has the instructions.
    pub(crate) fn is_supported() -> bool {
        Instructions::detect().is_some()
    }

    /// Makes a layer of the rows of a matrix `[V, D]` of floats. `None` if the shapes do not fit, a weight is not finite, or
    /// the processor lacks the instructions.
    pub(crate) fn of_floats(rows: Array2<f32>, bias: Vec<f32>) -> Option<Self> {
        Self::of_floats_with(Instructions::detect()?, rows, bias)
    }

    fn of_floats_with(instructions: Instructions, rows: Array2<f32>, bias: Vec<f32>) -> Option<Self> {
        let (terms, size) = rows.dim();
        let weights = rows.as_slice()?;
        if !fits(terms, size, &bias) || !weights.iter().all(|weight| weight.is_finite()) {
            return None;
        }
        let mut codes = vec![0_i8; weights.len()];
        let row_of = |(row, codes): (&[f32], &mut [i8])| {
            let largest = row.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
            let scale = scale_of(largest, f32::from(instructions.largest_weight()));
            row.iter().zip(&mut *codes).for_each(|(weight, code)| *code = (weight / scale).round_ties_even() as i8);
            let apart = row.iter().zip(&*codes).map(|(weight, code)| weight - scale * f32::from(*code));
            let (norm, error) = (norm(row.iter().copied()), norm(apart));
            // rounding of the f32 sums in the plain product, and of the two scales in the rounded one
            let summed = norm * size as f64 * f64::from(f32::EPSILON);
            (scale, ((norm * SLACK) as f32, (error * SLACK + summed) as f32))
        };
        let rounded = weights.par_chunks_exact(size).zip(codes.par_chunks_exact_mut(size)).map(row_of);
        let (scales, (norms, errors)): (Vec<f32>, (Vec<f32>, Vec<f32>)) = rounded.unzip();
        let blocks = blocks(&codes, size);
        Some(Self { instructions, size, terms, blocks, scales, bias, matrix: Matrix::Floats { rows, norms, errors } })
    }

    /// Makes a layer of the rows of a matrix `[V, D]` of codes, with a scale per row. `None` as for
    /// [`of_floats`](Self::of_floats), and if codes are too large for the processor's instructions.
    pub(crate) fn of_codes(codes: ArrayView2<'_, i8>, scales: Vec<f32>, bias: Vec<f32>) -> Option<Self> {
        Self::of_codes_with(Instructions::detect()?, codes, scales, bias)
    }

    fn of_codes_with(
        instructions: Instructions,
        codes: ArrayView2<'_, i8>,
        scales: Vec<f32>,
        bias: Vec<f32>,
    ) -> Option<Self> {
        let (terms, size) = codes.dim();
        let codes = codes.as_slice()?;
        let are_scales = scales.len() == terms && scales.iter().all(|scale| scale.is_finite() && *scale >= 0.0);
        if !fits(terms, size, &bias) || !are_scales {
            return None;
        }
        if !codes.chunks_exact(size).all(|row| instructions.can_multiply(row)) {
            return None;
        }
        let blocks = blocks(codes, size);
        Some(Self { instructions, size, terms, blocks, scales, bias, matrix: Matrix::Codes })
    }

    /// Number of features, D.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Number of terms, V.
    pub(crate) fn terms(&self) -> usize {
        self.terms
    }

    /// Terms with a logit above 0 and their logits, by ascending term, for each text with features `[T, D]`. Runs on this
    /// thread if `threads` is 1, otherwise on rayon's threads.
    ///
    /// `None` if a feature is not finite.
    pub(crate) fn positive_logits(&self, texts: &[&[f32]], threads: usize) -> Option<Vec<Vec<(u32, f32)>>> {
        let rounded: Vec<Text> =
            texts.iter().map(|text| Text::new(text, self.size, self.instructions)).collect::<Option<_>>()?;
        let some_blocks = |(start, blocks): (usize, &[Block])| {
            let (mut found, mut scratch) = (vec![Vec::new(); texts.len()], Vec::new());
            for (at, block) in (start..).zip(blocks) {
                for ((text, features), found) in rounded.iter().zip(texts).zip(&mut found) {
                    self.of_block(at, block, text, features, &mut scratch, found);
                }
            }
            found
        };
        if threads <= 1 {
            return Some(some_blocks((0, &self.blocks)));
        }
        let share = self.blocks.len().div_ceil(4 * threads).max(1);
        let shares: Vec<_> =
            self.blocks.par_chunks(share).enumerate().map(|(n, b)| some_blocks((n * share, b))).collect();
        Some(shares.into_iter().fold(vec![Vec::new(); texts.len()], |mut all, share| {
            all.iter_mut().zip(share).for_each(|(all, found)| all.extend(found));
            all
        }))
    }

    /// Logits of one text for 64 terms.
    fn of_block(
        &self,
        at: usize,
        block: &Block,
        text: &Text,
        features: &[f32],
        scratch: &mut Vec<[f32; TERMS]>,
        found: &mut Vec<(u32, f32)>,
    ) {
        let first = at * TERMS;
        let terms = first..(first + TERMS).min(self.terms);
        let (scales, bias) = (&self.scales[terms.clone()], &self.bias[terms.clone()]);
        let mut logits = match &self.matrix {
            Matrix::Codes => {
                let mut largest = self.instructions.largest(block, text, None);
                largest.iter_mut().zip(scales).for_each(|(product, scale)| *product *= scale);
                largest
            }
            Matrix::Floats { rows, norms, errors } => {
                let largest = self.instructions.largest(block, text, Some(scratch));
                let rows = rows.as_slice().expect("rows lie one after the other");
                let rows = &rows[first * self.size..terms.end * self.size];
                let (norms, errors) = (&norms[terms.clone()], &errors[terms]);
                let terms = BlockTerms { scales, bias, norms, errors, rows };
                self.instructions.in_floats(scratch, &largest, text, features, &terms)
            }
        };
        logits.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
        logits[bias.len()..].fill(0.0);
        let mut positive = self.instructions.positive(&logits);
        while positive != 0 {
            let at = positive.trailing_zeros() as usize;
            positive &= positive - 1;
            found.push(((first + at) as u32, logits[at]));
        }
    }
}

/// True if sizes and bias fit a layer.
fn fits(terms: usize, size: usize, bias: &[f32]) -> bool {
    (1..=MOST_FEATURES).contains(&size) && terms > 0 && bias.len() == terms && !bias.iter().any(|bias| bias.is_nan())
}

/// Scale that gives the largest absolute value the largest code; 1 if all values are 0.
fn scale_of(largest: f32, code: f32) -> f32 {
    let scale = largest / code;
    // smaller values get code 0, and only the bound covers them
    if scale >= f32::MIN_POSITIVE { scale } else { 1.0 }
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

fn blocks(codes: &[i8], size: usize) -> Vec<Block> {
    codes.par_chunks(TERMS * size).map(|codes| Block::new(codes, size)).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use proptest::prelude::*;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    /// The plain twin: floats of twice the precision, one product after the other.
    fn plain(rows: &[f32], bias: &[f32], text: &[f32]) -> Vec<f64> {
        let size = rows.len() / bias.len();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let largest =
            |row: &[f32]| text.chunks_exact(size).map(|token| dot(token, row)).fold(f64::NEG_INFINITY, f64::max);
        rows.chunks_exact(size).zip(bias).map(|(row, bias)| largest(row) + f64::from(*bias)).collect()
    }

    fn dense(found: &[(u32, f32)], terms: usize) -> Vec<f64> {
        assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "ascending");
        let mut all = vec![0.0; terms];
        found.iter().for_each(|(term, logit)| all[*term as usize] = f64::from(*logit));
        all
    }

    fn numbers(random: &mut rand_chacha::ChaCha8Rng, count: usize, spread: f32) -> Vec<f32> {
        (0..count).map(|_| random.random_range(-spread..spread)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn logits_are_those_of_the_plain_product(
            seed: u64,
            terms in 1_usize..200,
            size in 1_usize..70,
            counts in prop::collection::vec(0_usize..30, 1..4),
            shift in -8.0_f32..4.0,
        ) {
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut rows = numbers(&mut random, terms * size, 2.0);
            rows[..size].fill(0.0);
            let mut bias: Vec<f32> = numbers(&mut random, terms, 1.0).iter().map(|bias| bias + shift).collect();
            bias[terms / 2] = f32::NEG_INFINITY;
            let texts: Vec<Vec<f32>> = counts.iter().map(|count| {
                let mut text = numbers(&mut random, count * size, 1.5);
                // equal tokens, a token of zeros and one that is far larger than the others
                if *count > 3 {
                    text.copy_within(0..size, size);
                    text[2 * size..3 * size].fill(0.0);
                    text[3 * size] = 300.0;
                }
                text
            }).collect();
            let views: Vec<&[f32]> = texts.iter().map(Vec::as_slice).collect();
            for instructions in Instructions::all() {
                let matrix = Array2::from_shape_vec((terms, size), rows.clone()).unwrap();
                let layer = OutputLayer::of_floats_with(instructions, matrix, bias.clone()).unwrap();
                let found = layer.positive_logits(&views, 1).unwrap();
                prop_assert_eq!(&found, &layer.positive_logits(&views, 3).unwrap());
                for ((text, found), view) in texts.iter().zip(&found).zip(&views) {
                    prop_assert_eq!(found, &layer.positive_logits(&[view], 1).unwrap()[0], "alone as in company");
                    for (found, expected) in dense(found, terms).iter().zip(plain(&rows, &bias, text)) {
                        let expected = expected.max(0.0);
                        prop_assert!((found - expected).abs() <= 2e-4 * (1.0 + expected), "{} {}", found, expected);
                    }
                }
            }
        }

        #[test]
        fn codes_are_multiplied_without_loss(
            seed: u64,
            terms in 1_usize..150,
            size in 1_usize..70,
            count in 1_usize..20,
        ) {
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let codes: Vec<i8> = (0..terms * size).map(|_| random.random_range(-64..=64)).collect();
            let scales: Vec<f32> = (0..terms).map(|_| random.random_range(0.001..0.1)).collect();
            let bias = numbers(&mut random, terms, 3.0);
            // features whose largest is 127 have themselves as codes
            let mut text: Vec<f32> = (0..count * size).map(|_| random.random_range(-127..=127) as f32).collect();
            text.chunks_exact_mut(size).for_each(|token| token[size / 2] = -127.0);
            let rows: Vec<f32> = codes.iter().map(|code| f32::from(*code)).collect();
            let products = plain(&rows, &vec![0.0; terms], &text);
            for instructions in Instructions::all() {
                let matrix = ArrayView2::from_shape((terms, size), &codes).unwrap();
                let layer = OutputLayer::of_codes_with(instructions, matrix, scales.clone(), bias.clone()).unwrap();
                let found = layer.positive_logits(&[&text], 2).unwrap();
                for (term, found) in dense(&found[0], terms).into_iter().enumerate() {
                    let (product, bias) = (products[term] * f64::from(scales[term]), f64::from(bias[term]));
                    let apart = (found - (product + bias).max(0.0)).abs();
                    prop_assert!(apart <= 1e-6 * (product.abs() + bias.abs()), "{} {} {}", found, product, bias);
                }
            }
        }
    }

    /// On every kind of instructions this machine has; at least one, or there is nothing to test.
    fn all_instructions() -> Vec<Instructions> {
        let all = Instructions::all();
        assert_eq!(all.is_empty(), !OutputLayer::is_supported());
        all
    }

    #[test]
    fn shapes_and_numbers_that_are_no_layer_are_refused() {
        for instructions in all_instructions() {
            let floats = |rows, bias| OutputLayer::of_floats_with(instructions, rows, bias);
            let codes =
                |codes: Array2<i8>, scales, bias| OutputLayer::of_codes_with(instructions, codes.view(), scales, bias);
            assert!(floats(Array2::zeros((0, 0)), vec![]).is_none());
            assert!(floats(Array2::zeros((2, 0)), vec![0.0; 2]).is_none());
            assert!(floats(Array2::zeros((3, 2)), vec![0.0; 2]).is_none());
            assert!(floats(Array2::zeros((3, 2)).reversed_axes(), vec![0.0; 2]).is_none(), "columns, not rows");
            assert!(floats(array![[1.0, f32::NAN]], vec![0.0]).is_none());
            assert!(floats(array![[1.0, 1.0]], vec![f32::NAN]).is_none());
            assert!(codes(array![[1, 2]], vec![1.0, 1.0], vec![0.0]).is_none());
            assert!(codes(array![[1, 2]], vec![f32::INFINITY], vec![0.0]).is_none());
            let layer = floats(array![[1.0, 2.0]], vec![0.5]).unwrap();
            assert!(layer.positive_logits(&[&[1.0, f32::NAN]], 1).is_none());
            assert!(layer.positive_logits(&[&[1.0, f32::INFINITY]], 1).is_none());
            assert_eq!(layer.positive_logits(&[&[], &[3.0, 1.0]], 1).unwrap(), [vec![], vec![(0, 5.5)]]);
        }
    }

    #[test]
    fn neighbors_too_large_for_16_bits_are_refused_where_they_are_added_in_16_bits() {
        for instructions in all_instructions() {
            let layer =
                |codes: [i8; 2]| OutputLayer::of_codes_with(instructions, array![codes].view(), vec![1.0], vec![0.0]);
            assert_eq!(layer([127, 127]).is_some(), instructions.largest_weight() == 127);
            assert!(layer([127, -127]).is_some());
        }
    }
}
