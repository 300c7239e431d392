//! The inner loops of the output layer, for the instructions of each kind of processor.
//!
//! `unsafe` stands in one place, [`call`], and does one thing: it calls a function compiled for instructions that
//! [`Instructions`] was made by finding on this machine. The functions themselves are safe code.
#![cfg_attr(not(target_arch = "x86_64"), allow(unused, reason = "elsewhere there is no such function and no caller"))]
#![allow(unsafe_code, reason = "a function for instructions that were detected cannot be called otherwise")]

use super::{SLACK, scale_of};

/// Terms of a block.
pub(super) const TERMS: usize = 64;

/// The most tokens that are multiplied at a time: with 64 terms, 24 of AVX-512's 32 registers hold sums.
const TOKENS: usize = 6;

/// The code of 0 in features: they are stored as bytes without a sign, weights with one.
const MIDDLE: i32 = 128;

/// 64 terms of the matrix.
#[derive(Debug)]
pub(super) struct Block {
    /// four features at a time: four times the codes of 16 terms, the four of a term side by side
    codes: Vec<[u8; TERMS]>,
    /// initial value of the sums, so that features count from their middle
    start: [i32; TERMS],
}

impl Block {
    /// The block of up to 64 rows of codes.
    pub(super) fn new(rows: &[i8], size: usize) -> Self {
        let fours = size.div_ceil(4);
        let mut block = Self { codes: vec![[0; TERMS]; 4 * fours], start: [0; TERMS] };
        for (term, row) in rows.chunks_exact(size).enumerate() {
            block.start[term] = -MIDDLE * row.iter().map(|code| i32::from(*code)).sum::<i32>();
            for (at, code) in row.iter().enumerate() {
                block.codes[at / 4 * 4 + term / 16][term % 16 * 4 + at % 4] = code.cast_unsigned();
            }
        }
        block
    }
}

/// The rounded features of a text's tokens.
#[derive(Debug)]
pub(super) struct Text {
    /// tiles of up to [`TOKENS`] tokens; in a tile four features at a time, and of those token after token
    codes: Vec<[u8; 4]>,
    /// one per token: `f ≈ scale·(code − 128)`
    scales: Vec<f32>,
    /// features, in fours
    fours: usize,
    /// the largest `‖f − f̂‖`
    error: f32,
    /// the largest `‖f̂‖`
    norm: f32,
}

impl Text {
    /// Rounds features `[T, D]`; `None` if one is not finite.
    pub(super) fn new(features: &[f32], size: usize, instructions: Instructions) -> Option<Self> {
        let (count, fours) = (features.len() / size, size.div_ceil(4));
        let mut text = Self {
            codes: vec![[0; 4]; count * fours],
            scales: Vec::with_capacity(count),
            fours,
            error: 0.0,
            norm: 0.0,
        };
        let mut row = vec![0; 4 * fours];
        let mut codes = text.codes.as_mut_slice();
        let mut tokens = features.chunks_exact(size);
        for tile in tiles(count) {
            let (of_tile, rest) = codes.split_at_mut(tile * fours);
            for (at, token) in tokens.by_ref().take(tile).enumerate() {
                let rounded = instructions.rounded(token, &mut row)?;
                for (four, place) in row.as_chunks::<4>().0.iter().zip(of_tile.iter_mut().skip(at).step_by(tile)) {
                    *place = *four;
                }
                text.scales.push(rounded.scale);
                text.error = text.error.max(rounded.error);
                text.norm = text.norm.max(rounded.norm);
            }
            codes = rest;
        }
        // squares of the smallest numbers are lost
        let root = |squares: f32| (f64::from(squares).sqrt() * SLACK) as f32 + 1e-20;
        (text.error, text.norm) = (root(text.error), root(text.norm));
        Some(text)
    }
}

/// Scale and norms of one token's rounded features.
pub(super) struct Rounded {
    /// `f ≈ scale·(code − 128)`
    scale: f32,
    /// `‖f − f̂‖²`
    error: f32,
    /// `‖f̂‖²`
    norm: f32,
}

/// Codes of one token's features; `None` if one is not finite.
#[inline(always)]
fn rounded(token: &[f32], codes: &mut [u8]) -> Option<Rounded> {
    // as whole numbers, magnitudes keep their order, and those that are not finite are above all others
    let largest = token.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & (u32::MAX >> 1)));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return None;
    }
    let scale = scale_of(largest, 127.0);
    let inverse = 1.0 / scale;
    let (mut errors, mut norms) = ([0.0_f32; 16], [0.0_f32; 16]);
    for (features, codes) in token.chunks(16).zip(codes.chunks_mut(16)) {
        for (at, (x, code)) in features.iter().zip(codes).enumerate() {
            let rounded = (x * inverse).round_ties_even();
            *code = (rounded + MIDDLE as f32) as u8;
            let restored = rounded * scale;
            errors[at] += (x - restored) * (x - restored);
            norms[at] += restored * restored;
        }
    }
    Some(Rounded { scale, error: errors.iter().sum(), norm: norms.iter().sum() })
}

/// Sizes of the tiles of so many tokens: as few as can be, and as even.
fn tiles(count: usize) -> impl Iterator<Item = usize> {
    let tiles = count.div_ceil(TOKENS);
    (0..tiles).map(move |tile| (count + tile) / tiles)
}

/// Operands of a block's logits in floats: one number per term each, and a row.
pub(super) struct BlockTerms<'l> {
    pub(super) scales: &'l [f32],
    pub(super) bias: &'l [f32],
    pub(super) norms: &'l [f32],
    pub(super) errors: &'l [f32],
    /// the rows of the matrix in floats
    pub(super) rows: &'l [f32],
}

impl BlockTerms<'_> {
    /// The least product of every term that may be its largest: where the term has a weight for certain not, +∞.
    #[inline(always)]
    fn least(&self, largest: &[f32; TERMS], text: &Text) -> [f32; TERMS] {
        let mut least = [f32::INFINITY; TERMS];
        let terms = self.scales.iter().zip(self.bias).zip(self.norms).zip(self.errors);
        for ((least, largest), (((scale, bias), norm), error)) in least.iter_mut().zip(largest).zip(terms) {
            // how far a rounded product may be from the true one
            let bound = norm * text.error + error * text.norm;
            let highest = largest * scale + bound + bias + bias.abs().min(f32::MAX) * 1e-6;
            // NaN is no bound: then the products in floats decide
            *least = if highest < 0.0 { f32::INFINITY } else { (largest - 2.0 * bound / scale).max(f32::MIN) };
        }
        least
    }
}

/// Instructions that were found on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instructions(InstructionSet);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InstructionSet {
    /// dot products of four bytes, 16 at a time
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// products of bytes added in pairs, in 16 bits
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

/// Calls the function of this name for the instructions of this machine.
macro_rules! call {
    ($kind:expr, $function:ident($($argument:expr),*)) => {
        match $kind {
            // SAFETY: there is no `Instructions` of this kind but from `all`, which finds the features by name
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Vnni => unsafe { avx512::$function($($argument),*) },
            // SAFETY: as above
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => unsafe { avx2::$function($($argument),*) },
        }
    };
}

impl Instructions {
    /// All kinds this machine has, the best first.
    pub(super) fn all() -> Vec<Self> {
        #[allow(unused_mut, reason = "only on x86-64 there are any")]
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl");
            if has_avx512 && is_x86_feature_detected!("avx512vnni") {
                found.push(Self(InstructionSet::Avx512Vnni));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Self(InstructionSet::Avx2));
            }
        }
        found
    }

    /// The best kind this machine has.
    pub(super) fn detect() -> Option<Self> {
        Self::all().first().copied()
    }

    /// The largest code a weight may have.
    pub(super) fn largest_weight(self) -> u8 {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Vnni => 127,
            // 2·255·63 fits 16 bits
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => 63,
        }
    }

    /// True if a row of codes can be multiplied without overflow.
    pub(super) fn can_multiply(self, row: &[i8]) -> bool {
        let fits = |pair: &[i8]| {
            let sums = [
                pair.iter().map(|code| i32::from(*code).max(0)).sum::<i32>(),
                pair.iter().map(|code| i32::from(*code).min(0)).sum(),
            ];
            sums.iter().all(|sum| i16::try_from(255 * sum).is_ok())
        };
        self.largest_weight() == 127 || row.chunks(2).all(fits)
    }

    /// Codes of one token's features, in as many bytes as there are features or up to three more.
    fn rounded(self, token: &[f32], codes: &mut [u8]) -> Option<Rounded> {
        call!(self.0, rounded(token, codes))
    }

    /// A bit for every number above 0.
    pub(super) fn positive(self, numbers: &[f32; TERMS]) -> u64 {
        call!(self.0, positive(numbers))
    }

    /// The largest product of every term of a block over the tokens of a text, in units of the term's scale, and all of them
    /// in `products`, if given: `[T, 64]`. Of a text without tokens, −∞.
    pub(super) fn largest(self, block: &Block, text: &Text, products: Option<&mut Vec<[f32; TERMS]>>) -> [f32; TERMS] {
        call!(self.0, largest(block, text, products))
    }

    /// The largest logits in floats of the terms of a block, less their bias, from all rounded products and the largest of
    /// them; −∞ for terms without a weight.
    pub(super) fn in_floats(
        self,
        products: &[[f32; TERMS]],
        largest: &[f32; TERMS],
        text: &Text,
        features: &[f32],
        terms: &BlockTerms<'_>,
    ) -> [f32; TERMS] {
        call!(self.0, in_floats(products, largest, text, features, terms))
    }
}

/// Functions of every instruction set: the loop over the tiles of a text, with `tile` for the number of tokens in a tile.
macro_rules! functions {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        pub(super) fn largest(
            block: &Block,
            text: &Text,
            mut products: Option<&mut Vec<[f32; TERMS]>>,
        ) -> [f32; TERMS] {
            let mut largest = [f32::NEG_INFINITY; TERMS];
            if let Some(products) = &mut products {
                products.resize(text.scales.len(), [0.0; TERMS]);
            }
            let (mut codes, mut first) = (text.codes.as_slice(), 0);
            for count in tiles(text.scales.len()) {
                let (of_tile, rest) = codes.split_at(count * text.fours);
                let scales = &text.scales[first..first + count];
                let products = products.as_mut().map(|products| &mut products[first..first + count]);
                match count {
                    1 => tile::<1>(block, of_tile, scales, products, &mut largest),
                    2 => tile::<2>(block, of_tile, scales, products, &mut largest),
                    3 => tile::<3>(block, of_tile, scales, products, &mut largest),
                    4 => tile::<4>(block, of_tile, scales, products, &mut largest),
                    5 => tile::<5>(block, of_tile, scales, products, &mut largest),
                    _ => tile::<TOKENS>(block, of_tile, scales, products, &mut largest),
                }
                (codes, first) = (rest, first + count);
            }
            largest
        }

        #[target_feature(enable = $features)]
        pub(super) fn rounded(token: &[f32], codes: &mut [u8]) -> Option<Rounded> {
            super::rounded(token, codes)
        }

        #[target_feature(enable = $features)]
        pub(super) fn positive(numbers: &[f32; TERMS]) -> u64 {
            at_least(numbers, &[f32::MIN_POSITIVE; TERMS])
        }

        #[target_feature(enable = $features)]
        pub(super) fn in_floats(
            products: &[[f32; TERMS]],
            largest: &[f32; TERMS],
            text: &Text,
            features: &[f32],
            terms: &BlockTerms<'_>,
        ) -> [f32; TERMS] {
            let mut found = [f32::NEG_INFINITY; TERMS];
            let least = terms.least(largest, text);
            if least.iter().all(|least| *least == f32::INFINITY) {
                return found;
            }
            let size = terms.rows.len() / terms.scales.len();
            for (products, token) in products.iter().zip(features.chunks_exact(size)) {
                let mut near = at_least(products, &least);
                while near != 0 {
                    let at = near.trailing_zeros() as usize;
                    near &= near - 1;
                    found[at] = found[at].max(dot(token, &terms.rows[at * size..][..size]));
                }
            }
            found
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, __m512i, _CMP_GE_OQ, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
        _mm512_fmadd_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_setzero_ps,
    };

    use pulp::cast;

    use super::{Block, BlockTerms, Rounded, TERMS, TOKENS, Text, tiles};

    functions!("avx512f,avx512bw,avx512vl,avx512vnni");

    /// `a·b`.
    #[target_feature(enable = "avx512f")]
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
        let mut sums = [_mm512_setzero_ps(); 2];
        for (a, b) in a.iter().zip(b) {
            let (a, b) = (cast::<_, [__m512; 2]>(*a), cast::<_, [__m512; 2]>(*b));
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
        _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1])) + rest
    }

    /// A bit for every number that is at least the other.
    #[target_feature(enable = "avx512f")]
    fn at_least(a: &[f32; TERMS], b: &[f32; TERMS]) -> u64 {
        let (a, b) = (cast::<_, [__m512; 4]>(*a), cast::<_, [__m512; 4]>(*b));
        let mut bits = 0;
        for (at, (a, b)) in a.into_iter().zip(b).enumerate() {
            bits |= u64::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b)) << (16 * at);
        }
        bits
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn tile<const N: usize>(
        block: &Block,
        codes: &[[u8; 4]],
        scales: &[f32],
        products: Option<&mut [[f32; TERMS]]>,
        largest: &mut [f32; TERMS],
    ) {
        let start: [__m512i; 4] = cast(block.start);
        let mut sums = [start; N];
        for (weights, tokens) in block.codes.as_chunks::<4>().0.iter().zip(codes.as_chunks::<N>().0) {
            let weights: [__m512i; 4] = cast(*weights);
            for (sums, token) in sums.iter_mut().zip(tokens) {
                let token = _mm512_set1_epi32(i32::from_le_bytes(*token));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, token, weights);
                }
            }
        }
        let mut most = cast::<_, [__m512; 4]>(*largest);
        let mut scaled = [most; N];
        for ((scaled, sums), scale) in scaled.iter_mut().zip(sums).zip(scales) {
            let scale = _mm512_set1_ps(*scale);
            for ((scaled, sum), most) in scaled.iter_mut().zip(sums).zip(&mut most) {
                *scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
                *most = _mm512_max_ps(*most, *scaled);
            }
        }
        *largest = cast(most);
        for (product, scaled) in products.into_iter().flatten().zip(scaled) {
            *product = cast(scaled);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, __m256i, _CMP_GE_OQ, _mm256_add_epi32, _mm256_add_ps, _mm256_cmp_ps, _mm256_cvtepi32_ps,
        _mm256_fmadd_ps, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_max_ps, _mm256_movemask_ps, _mm256_mul_ps,
        _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    };

    use pulp::cast;

    use super::{Block, BlockTerms, Rounded, TERMS, TOKENS, Text, tiles};

    functions!("avx2,fma");

    /// `a·b`.
    #[target_feature(enable = "avx2,fma")]
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
        let mut sums = [_mm256_setzero_ps(); 4];
        for (a, b) in a.iter().zip(b) {
            let (a, b) = (cast::<_, [__m256; 4]>(*a), cast::<_, [__m256; 4]>(*b));
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
        let sums = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
        cast::<_, [f32; 8]>(sums).iter().sum::<f32>() + rest
    }

    /// A bit for every number that is at least the other.
    #[target_feature(enable = "avx2")]
    fn at_least(a: &[f32; TERMS], b: &[f32; TERMS]) -> u64 {
        let (a, b) = (cast::<_, [__m256; 8]>(*a), cast::<_, [__m256; 8]>(*b));
        let mut bits = 0;
        for (at, (a, b)) in a.into_iter().zip(b).enumerate() {
            let found = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a, b));
            bits |= u64::from(found.cast_unsigned()) << (8 * at);
        }
        bits
    }

    /// 16 terms at a time, since there are half as many registers of half the length.
    #[target_feature(enable = "avx2,fma")]
    fn tile<const N: usize>(
        block: &Block,
        codes: &[[u8; 4]],
        scales: &[f32],
        mut products: Option<&mut [[f32; TERMS]]>,
        largest: &mut [f32; TERMS],
    ) {
        let ones = _mm256_set1_epi16(1);
        for part in 0..4 {
            let terms = 16 * part..16 * (part + 1);
            let sixteen = |of: &[f32]| <[f32; 16]>::try_from(&of[16 * part..][..16]).unwrap_or([0.0; 16]);
            let start: [__m256i; 2] = cast(<[i32; 16]>::try_from(&block.start[terms.clone()]).unwrap_or([0; 16]));
            let mut sums = [start; N];
            for (weights, tokens) in block.codes.as_chunks::<4>().0.iter().zip(codes.as_chunks::<N>().0) {
                let weights: [__m256i; 2] = cast(weights[part]);
                for (sums, token) in sums.iter_mut().zip(tokens) {
                    let token = _mm256_set1_epi32(i32::from_le_bytes(*token));
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        let pairs = _mm256_maddubs_epi16(token, weights);
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            let mut most = cast::<_, [__m256; 2]>(sixteen(largest));
            for (at, (sums, scale)) in sums.into_iter().zip(scales).enumerate() {
                let scale = _mm256_set1_ps(*scale);
                let mut scaled = most;
                for ((scaled, sum), most) in scaled.iter_mut().zip(sums).zip(&mut most) {
                    *scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale);
                    *most = _mm256_max_ps(*most, *scaled);
                }
                if let Some(products) = &mut products {
                    products[at][terms.clone()].copy_from_slice(&cast::<_, [f32; 16]>(scaled));
                }
            }
            largest[terms].copy_from_slice(&cast::<_, [f32; 16]>(most));
        }
    }
}
