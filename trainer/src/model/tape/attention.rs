//! Attention as one operation with a backward pass of its own: scores exist for a few queries at a time.
//!
//! A text's scores are computed in blocks of [`BLOCK`] queries that stay in the cache, and again in the backward pass: nothing
//! quadratic is kept (Dao et al., FlashAttention, 2022; without its running soft-max, since a block has all keys).
//!
//! Relative positions (see [`Algebra::attention`](super::Algebra)) need, for each pair of tokens, a product of the query and
//! one of the key with rows of a small table. Offsets far apart share a row, so a block adds runs of numbers that follow one
//! another rather than looking up each pair.

use std::ops::Range;
use std::sync::Arc;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::buffer::{Buffer, Pool};
use super::value::Place;
use crate::model::ops::{by_text, exp, sum};
use crate::model::product::{Mat, Threads, Write, product};

/// Queries of a block.
const BLOCK: usize = 128;

/// Sizes and settings of an attention.
#[derive(Debug, Clone)]
pub(super) struct Attention {
    pub(super) heads: usize,
    pub(super) scale: f32,
    pub(super) window: Option<usize>,
    pub(super) dropout: Option<Dropout>,
    pub(super) relative: Option<Relative>,
}

/// Numbers zeroed at random, the others scaled up; equal seeds zero the same ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropout {
    pub(super) seed: u64,
    pub(super) probability: f64,
}

impl Dropout {
    /// Multiplies the numbers of a chunk by 0 or by `1/(1 − probability)`.
    pub(super) fn apply(self, chunk: u64, numbers: &mut [f32]) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(chunk);
        let scale = 1.0 / (1.0 - self.probability as f32);
        // sixteen bits an element are enough for a probability
        let limit = (self.probability * 65536.0) as u16;
        let mut bits = [0_u8; 512];
        for numbers in numbers.chunks_mut(bits.len() / 2) {
            rng.fill_bytes(&mut bits[..numbers.len() * 2]);
            for (number, bits) in numbers.iter_mut().zip(bits.as_chunks::<2>().0) {
                *number = if u16::from_le_bytes(*bits) < limit { 0.0 } else { *number * scale };
            }
        }
    }
}

/// Rows of the table of relative positions, by offset.
#[derive(Debug, Clone)]
pub(super) struct Relative {
    /// offsets (query minus key) from the lowest, and their row: each run ends where the next one begins
    runs: Arc<[(i64, usize)]>,
}

impl Relative {
    /// `row(offset)` for the offsets below `tokens` in both directions.
    pub(super) fn new(tokens: usize, row: impl Fn(i64) -> u32) -> Self {
        let last = tokens.max(1) as i64 - 1;
        let mut runs: Vec<(i64, usize)> = (-last..=last).map(|offset| (offset, row(offset) as usize)).collect();
        runs.dedup_by_key(|(_, row)| *row);
        Self { runs: runs.into() }
    }

    /// Calls `run(row, keys)` for the runs of keys in `keys` that have the same row for the query `query`.
    #[inline(always)]
    fn for_runs(&self, query: usize, keys: Range<usize>, mut run: impl FnMut(usize, Range<usize>)) {
        // offsets fall as keys rise: from the last run to the first
        let mut end = keys.start;
        for &(lowest, row) in self.runs.iter().rev() {
            // keys with an offset of at least `lowest`
            let start = end;
            end = (query as i64 - lowest + 1).clamp(start as i64, keys.end as i64) as usize;
            if start < end {
                run(row, start..end);
            }
            if end == keys.end {
                break;
            }
        }
    }
}

/// A matrix with a row per token, as attention reads it.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) place: Place,
}

impl<'a> Rows<'a> {
    /// The columns of a head, for some tokens.
    fn head(self, tokens: Range<usize>, head: usize, size: usize) -> Mat<'a> {
        let start = self.place.start + tokens.start * self.place.stride + head * size;
        Mat::new(&self.numbers[start.min(self.numbers.len())..], tokens.len(), size, self.place.stride)
    }
}

/// The inputs of an attention. `query` and `key` are `[N, H·d]`, `value` is `[N, H·e]`, and `positions`, `[P, H·2d]`, has
/// per head first the rows that keys are multiplied with, then those of queries.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) query: Rows<'a>,
    pub(super) key: Rows<'a>,
    pub(super) value: Rows<'a>,
    pub(super) positions: Option<Rows<'a>>,
}

/// The gradients of [`Inputs`], contiguous.
pub(super) struct Gradients {
    pub(super) query: Buffer,
    pub(super) key: Buffer,
    pub(super) value: Buffer,
    pub(super) positions: Option<Buffer>,
}

/// Memory of one thread.
#[derive(Default)]
struct Work {
    scores: Vec<f32>,
    gradient: Vec<f32>,
    dropped: Vec<f32>,
    of_queries: Vec<f32>,
    of_keys: Vec<f32>,
    of_queries_gradient: Vec<f32>,
    of_keys_gradient: Vec<f32>,
}

/// The first `n` numbers of a vector, which grows to hold them.
fn space(numbers: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if numbers.len() < n {
        numbers.resize(n, 0.0);
    }
    &mut numbers[..n]
}

/// A block of queries of one head of one text.
struct Block {
    /// tokens of the text
    text: Range<usize>,
    head: usize,
    /// queries and keys, counted from the text's first token
    queries: Range<usize>,
    keys: Range<usize>,
}

impl Block {
    /// Number of the block's random numbers: different for every block of a batch.
    fn chunk(&self) -> u64 {
        (self.head as u64) << 40 | (self.text.start + self.queries.start) as u64
    }

    fn query_tokens(&self) -> Range<usize> {
        self.text.start + self.queries.start..self.text.start + self.queries.end
    }

    fn key_tokens(&self) -> Range<usize> {
        self.text.start + self.keys.start..self.text.start + self.keys.end
    }
}

impl Attention {
    /// `[N, H·e]`: for each token, the values of the tokens of its text, weighted by the soft-max of the scores.
    pub(super) fn forward(&self, inputs: Inputs<'_>, starts: &[usize], pool: &Arc<Pool>) -> Buffer {
        let width = inputs.value.place.width;
        let value_size = width / self.heads;
        let mut out = pool.take(inputs.value.place.rows * width);
        let texts = by_text(&mut out, starts, width);
        texts.into_par_iter().enumerate().for_each_init(Work::default, |work, (text, out)| {
            let text = starts[text]..starts[text + 1];
            for head in 0..if text.is_empty() { 0 } else { self.heads } {
                self.keys_by_position(inputs, &text, head, work);
                for block in self.blocks(&text, head) {
                    self.probabilities(inputs, &block, work);
                    let (n_queries, n_keys) = (block.queries.len(), block.keys.len());
                    let probabilities = space(&mut work.scores, n_queries * n_keys);
                    if let Some(dropout) = self.dropout {
                        dropout.apply(block.chunk(), probabilities);
                    }
                    let values = inputs.value.head(block.key_tokens(), head, value_size);
                    let out = &mut out[block.queries.start * width + head * value_size..];
                    let probabilities = Mat::new(probabilities, n_queries, n_keys, n_keys);
                    product(out, width, probabilities, values, 1.0, Write::Over, Threads::One);
                }
            }
        });
        out
    }

    /// The gradients of the inputs from that of the output, `[N, H·e]`.
    pub(super) fn backward(
        &self,
        inputs: Inputs<'_>,
        gradient: &[f32],
        starts: &[usize],
        pool: &Arc<Pool>,
    ) -> Gradients {
        let (n, width, value_width) = (inputs.query.place.rows, inputs.query.place.width, inputs.value.place.width);
        let n_positions = inputs.positions.map_or(0, |positions| positions.place.count());
        let mut query = pool.zeros(n * width);
        let mut key = pool.zeros(n * width);
        let mut value = pool.zeros(n * value_width);
        let n_texts = starts.len().saturating_sub(1);
        // one for each text, added in their order
        let mut partial = pool.zeros(n_texts * n_positions);
        let texts = by_text(&mut query, starts, width).into_iter().zip(by_text(&mut key, starts, width));
        let texts = texts.zip(by_text(&mut value, starts, value_width)).collect::<Vec<_>>();
        let mut partials: Vec<&mut [f32]> = match n_positions {
            0 => (0..n_texts).map(|_| &mut [][..]).collect(),
            n => partial.chunks_mut(n).collect(),
        };
        let texts = texts.into_par_iter().zip(partials.par_iter_mut()).enumerate();
        texts.for_each_init(Work::default, |work, (text, (((query, key), value), positions))| {
            let text = starts[text]..starts[text + 1];
            let rows = gradient.get(text.start * value_width..text.end * value_width).unwrap_or_default();
            for head in 0..if text.is_empty() { 0 } else { self.heads } {
                let mut gradients = TextGradients { output: rows, query, key, value, positions };
                self.head_backward(inputs, &text, head, &mut gradients, work);
            }
        });
        let positions = inputs.positions.map(|_| {
            let mut sum = pool.zeros(n_positions);
            for partial in partial.chunks(n_positions.max(1)) {
                sum.iter_mut().zip(partial).for_each(|(sum, partial)| *sum += partial);
            }
            sum
        });
        Gradients { query, key, value, positions }
    }

    fn head_backward(
        &self,
        inputs: Inputs<'_>,
        text: &Range<usize>,
        head: usize,
        gradients: &mut TextGradients<'_>,
        work: &mut Work,
    ) {
        let (width, value_width) = (inputs.query.place.width, inputs.value.place.width);
        let (size, value_size) = (width / self.heads, value_width / self.heads);
        let n_rows = inputs.positions.map_or(0, |positions| positions.place.rows);
        let tokens = text.len();
        self.keys_by_position(inputs, text, head, work);
        space(&mut work.of_keys_gradient, n_rows * tokens).fill(0.0);
        for block in self.blocks(text, head) {
            self.probabilities(inputs, &block, work);
            let (n_queries, n_keys) = (block.queries.len(), block.keys.len());
            let count = n_queries * n_keys;
            let output = &gradients.output[block.queries.start * value_width + head * value_size..];
            let output = Mat::new(output, n_queries, value_size, value_width);
            let (values, keys, queries) = (
                inputs.value.head(block.key_tokens(), head, value_size),
                inputs.key.head(block.key_tokens(), head, size),
                inputs.query.head(block.query_tokens(), head, size),
            );

            // what the values were multiplied with
            let weights = match self.dropout {
                None => space(&mut work.scores, count),
                Some(dropout) => {
                    let dropped = space(&mut work.dropped, count);
                    dropped.copy_from_slice(&work.scores[..count]);
                    dropout.apply(block.chunk(), dropped);
                    dropped
                }
            };
            let of_values = &mut gradients.value[block.keys.start * value_width + head * value_size..];
            let weights = Mat::new(weights, n_queries, n_keys, n_keys);
            product(of_values, value_width, weights.t(), output, 1.0, Write::Add, Threads::One);

            let scores = space(&mut work.gradient, count);
            product(scores, n_keys, output, values.t(), 1.0, Write::Over, Threads::One);
            if let Some(dropout) = self.dropout {
                dropout.apply(block.chunk(), scores);
            }
            pulp::Arch::new().dispatch(SoftmaxBackward {
                probabilities: &work.scores[..count],
                gradient: scores,
                n_keys,
            });

            let scores = Mat::new(scores, n_queries, n_keys, n_keys);
            let of_queries = &mut gradients.query[block.queries.start * width + head * size..];
            product(of_queries, width, scores, keys, self.scale, Write::Over, Threads::One);
            let of_keys = &mut gradients.key[block.keys.start * width + head * size..];
            product(of_keys, width, scores.t(), queries, self.scale, Write::Add, Threads::One);

            if let (Some(relative), Some(positions)) = (&self.relative, inputs.positions) {
                let by_query = space(&mut work.of_queries_gradient, n_queries * n_rows);
                by_query.fill(0.0);
                pulp::Arch::new().dispatch(RelativeBackward {
                    relative,
                    block: &block,
                    n_rows,
                    tokens,
                    scores: &work.gradient[..count],
                    by_query,
                    by_key: &mut work.of_keys_gradient,
                });
                let by_query = Mat::new(by_query, n_queries, n_rows, n_rows);
                let table = positions.head(0..n_rows, 2 * head + 1, size);
                product(of_queries, width, by_query, table, self.scale, Write::Add, Threads::One);
                let of_table = &mut gradients.positions[(2 * head + 1) * size..];
                product(of_table, 2 * width, by_query.t(), queries, self.scale, Write::Add, Threads::One);
            }
        }
        if let (Some(_), Some(positions)) = (&self.relative, inputs.positions) {
            let by_key = Mat::new(&work.of_keys_gradient, n_rows, tokens, tokens);
            let table = positions.head(0..n_rows, 2 * head, size);
            let of_keys = &mut gradients.key[head * size..];
            product(of_keys, width, by_key.t(), table, self.scale, Write::Add, Threads::One);
            let keys = inputs.key.head(text.clone(), head, size);
            let of_table = &mut gradients.positions[2 * head * size..];
            product(of_table, 2 * width, by_key, keys, self.scale, Write::Add, Threads::One);
        }
    }

    /// The blocks of queries of a text.
    fn blocks(&self, text: &Range<usize>, head: usize) -> impl Iterator<Item = Block> {
        let (text, tokens, window) = (text.clone(), text.len(), self.window);
        (0..tokens).step_by(BLOCK).map(move |start| {
            let queries = start..(start + BLOCK).min(tokens);
            let keys = match window {
                None => 0..tokens,
                Some(window) => start.saturating_sub(window)..queries.end.saturating_add(window).min(tokens),
            };
            Block { text: text.clone(), head, queries, keys }
        })
    }

    /// Products of all keys of a text with the table's rows, `[P, T]`, into `work.of_keys`.
    fn keys_by_position(&self, inputs: Inputs<'_>, text: &Range<usize>, head: usize, work: &mut Work) {
        let Some(positions) = inputs.positions else { return };
        let (n_rows, tokens) = (positions.place.rows, text.len());
        let size = inputs.query.place.width / self.heads;
        let out = space(&mut work.of_keys, n_rows * tokens);
        let (table, keys) = (positions.head(0..n_rows, 2 * head, size), inputs.key.head(text.clone(), head, size));
        product(out, tokens, table, keys.t(), self.scale, Write::Over, Threads::One);
    }

    /// The soft-max of the scores of a block, into `work.scores`.
    fn probabilities(&self, inputs: Inputs<'_>, block: &Block, work: &mut Work) {
        let (n_queries, n_keys) = (block.queries.len(), block.keys.len());
        let size = inputs.query.place.width / self.heads;
        let queries = inputs.query.head(block.query_tokens(), block.head, size);
        let keys = inputs.key.head(block.key_tokens(), block.head, size);
        let scores = space(&mut work.scores, n_queries * n_keys);
        product(scores, n_keys, queries, keys.t(), self.scale, Write::Over, Threads::One);
        let mut relative = None;
        if let (Some(rows), Some(positions)) = (&self.relative, inputs.positions) {
            let n_rows = positions.place.rows;
            let by_query = space(&mut work.of_queries, n_queries * n_rows);
            let table = positions.head(0..n_rows, 2 * block.head + 1, size);
            product(by_query, n_rows, queries, table.t(), self.scale, Write::Over, Threads::One);
            relative = Some(RelativeScores { rows, n_rows, tokens: block.text.len(), by_query, by_key: &work.of_keys });
        }
        pulp::Arch::new().dispatch(Softmax { block, window: self.window, scores, relative });
    }
}

/// Gradients of one text: of the output, and of the inputs, which are added to.
struct TextGradients<'a> {
    output: &'a [f32],
    query: &'a mut [f32],
    key: &'a mut [f32],
    value: &'a mut [f32],
    positions: &'a mut [f32],
}

/// Terms that relative positions add to the scores of a block.
struct RelativeScores<'a> {
    rows: &'a Relative,
    n_rows: usize,
    tokens: usize,
    /// by query of the block and row of the table
    by_query: &'a [f32],
    /// by row of the table and key of the text
    by_key: &'a [f32],
}

/// Scores of a block to probabilities, in place.
struct Softmax<'a> {
    block: &'a Block,
    window: Option<usize>,
    scores: &'a mut [f32],
    relative: Option<RelativeScores<'a>>,
}

impl pulp::WithSimd for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let keys = self.block.keys.clone();
        for (query, scores) in self.block.queries.clone().zip(self.scores.chunks_exact_mut(keys.len().max(1))) {
            if let Some(relative) = &self.relative {
                let by_query = &relative.by_query[(query - self.block.queries.start) * relative.n_rows..];
                relative.rows.for_runs(query, keys.clone(), |row, run| {
                    let by_key = &relative.by_key[row * relative.tokens..][run.clone()];
                    let scores = &mut scores[run.start - keys.start..run.end - keys.start];
                    let by_query = by_query[row];
                    for (score, by_key) in scores.iter_mut().zip(by_key) {
                        *score += by_query + by_key;
                    }
                });
            }
            let allowed = match self.window {
                None => 0..keys.len(),
                Some(window) => {
                    query.saturating_sub(window).max(keys.start) - keys.start
                        ..query.saturating_add(window + 1).min(keys.end) - keys.start
                }
            };
            scores[..allowed.start].fill(0.0);
            scores[allowed.end..].fill(0.0);
            softmax(&mut scores[allowed]);
        }
    }
}

/// Soft-max in place.
#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = scores.as_chunks::<16>();
    for chunk in chunks {
        for (lane, score) in lanes.iter_mut().zip(chunk) {
            *lane = if *score > *lane { *score } else { *lane };
        }
    }
    let largest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    for score in scores.iter_mut() {
        *score = exp(*score - largest);
    }
    let inverse = 1.0 / sum(scores.iter().copied());
    for score in scores.iter_mut() {
        *score *= inverse;
    }
}

/// The gradient of probabilities to that of scores, in place.
struct SoftmaxBackward<'a> {
    probabilities: &'a [f32],
    gradient: &'a mut [f32],
    n_keys: usize,
}

impl pulp::WithSimd for SoftmaxBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let n_keys = self.n_keys.max(1);
        let rows = self.probabilities.chunks_exact(n_keys).zip(self.gradient.chunks_exact_mut(n_keys));
        for (probabilities, gradient) in rows {
            let mean = sum(probabilities.iter().zip(gradient.iter()).map(|(p, gradient)| p * gradient));
            for (gradient, p) in gradient.iter_mut().zip(probabilities) {
                *gradient = p * (*gradient - mean);
            }
        }
    }
}

/// Sums of the gradients of scores by query and row of the table, and by row and key.
struct RelativeBackward<'a> {
    relative: &'a Relative,
    block: &'a Block,
    n_rows: usize,
    tokens: usize,
    scores: &'a [f32],
    by_query: &'a mut [f32],
    by_key: &'a mut [f32],
}

impl pulp::WithSimd for RelativeBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let keys = self.block.keys.clone();
        let rows = self.scores.chunks_exact(keys.len().max(1)).zip(self.by_query.chunks_exact_mut(self.n_rows.max(1)));
        for (query, (scores, by_query)) in self.block.queries.clone().zip(rows) {
            self.relative.for_runs(query, keys.clone(), |row, run| {
                let scores = &scores[run.start - keys.start..run.end - keys.start];
                by_query[row] += sum(scores.iter().copied());
                let by_key = &mut self.by_key[row * self.tokens..][run];
                for (by_key, score) in by_key.iter_mut().zip(scores) {
                    *by_key += score;
                }
            });
        }
    }
}
