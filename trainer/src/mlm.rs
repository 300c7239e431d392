//! Masked-language-model objective: the model predicts masked tokens.
//!
//! The method is that of Devlin et al., 2018, with more picked tokens (Wettig et al., 2022: 15 % is too little for small
//! models). More of them stay unchanged, since SPLADE needs a head that predicts the word of the text. Instead of single
//! tokens, whole words or spans of words (SpanBERT, Joshi et al., 2020) are picked, if the config says so.

use std::ops::Range;

use candle_core::Tensor;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use splade_core::{TokenBatch, Vocabulary};

use crate::config::{MaskingUnit, MlmConfig, SPAN_MAX_LENGTH};
use crate::data::Piece;
use crate::model::{Algebra, MlmHead, cross_entropy};
use crate::{Error, Result};

/// Share of the picked units that become `[MASK]`, and share that become random tokens; the rest stays.
const MASKED: f64 = 0.70;
const RANDOM: f64 = 0.15;

/// Tokens of a vocabulary for masking, and the units that are masked together.
#[derive(Debug, Clone)]
pub(crate) struct Masking {
    mask: u32,
    size: u32,
    special: Vec<u32>,
    /// share of the tokens that are picked
    picked: f64,
    unit: MaskingUnit,
    spans: Spans,
}

impl Masking {
    /// Finds the mask token among the usual names.
    ///
    /// # Errors
    /// A vocabulary without a mask token, a share that is none.
    pub(crate) fn new(vocabulary: &Vocabulary, config: &MlmConfig) -> Result<Self> {
        let mask = ["[MASK]", "<mask>"].iter().find_map(|token| vocabulary.dim(token));
        let mask =
            mask.ok_or_else(|| Error::invalid("the tokenizer has no mask token: objective mlm needs one", ""))?;
        let size = u32::try_from(vocabulary.size()).map_err(|_| Error::invalid("more than 2^32 tokens", ""))?;
        for (key, share) in [("mlm.probability", config.probability), ("mlm.span_p", config.span_p)] {
            if !(share > 0.0 && share <= 1.0) {
                return Err(Error::config(key, format!("{share} is not above 0 and at most 1"), ""));
            }
        }
        Ok(Self {
            mask,
            size,
            special: vocabulary.special_dims(),
            picked: config.probability,
            unit: config.masking,
            spans: Spans::new(config.span_p, config.span_max_length, config.probability),
        })
    }

    /// Masks tokens of the batch of `rows` in place. Returns the flat index `row·T + t` and the true id of every picked
    /// token, at least one.
    ///
    /// The tokens of a word or a span are picked together, and all of them become `[MASK]`, or random tokens, or stay.
    pub(crate) fn apply(&self, batch: &mut TokenBatch, rows: &[&Piece], rng: &mut ChaCha8Rng) -> Vec<(u32, u32)> {
        let flat = |index: (usize, usize)| (index.0 * batch.width() + index.1) as u32;
        let (tokens, words) = self.words(batch, rows);
        let picked = self.pick(&tokens, &words, rng);
        let all = picked.iter().flat_map(|unit| &tokens[unit.clone()]);
        let targets = all.map(|&at| (flat(at), batch.ids[at] as u32)).collect();
        for unit in picked {
            let draw: f64 = rng.random();
            for &at in &tokens[unit] {
                if draw < MASKED {
                    batch.ids[at] = i64::from(self.mask);
                } else if draw < MASKED + RANDOM {
                    batch.ids[at] = i64::from(rng.random_range(0..self.size));
                }
            }
        }
        targets
    }

    /// The places of the tokens that may be masked, row by row, and the words as ranges of these: words of one token where
    /// tokens are masked one by one.
    fn words(&self, batch: &TokenBatch, rows: &[&Piece]) -> (Vec<(usize, usize)>, Vec<Range<usize>>) {
        let is_word = |id: i64| self.special.binary_search(&(id as u32)).is_err();
        let (mut tokens, mut words) = (Vec::new(), Vec::<Range<usize>>::new());
        let mut begins = true;
        for (at, id) in batch.ids.indexed_iter() {
            let starts = rows.get(at.0).map_or(&[][..], |row| &row.begins);
            begins |= at.1 == 0 || self.unit == MaskingUnit::Token || starts.get(at.1).copied().unwrap_or(true);
            if batch.mask[at] != 1 || !is_word(*id) {
                continue;
            }
            tokens.push(at);
            match words.last_mut().filter(|_| !begins) {
                Some(word) => word.end = tokens.len(),
                None => words.push(tokens.len() - 1..tokens.len()),
            }
            begins = false;
        }
        (tokens, words)
    }

    /// Ranges of tokens that are picked together, at least one if there are words.
    fn pick(&self, tokens: &[(usize, usize)], words: &[Range<usize>], rng: &mut ChaCha8Rng) -> Vec<Range<usize>> {
        let mut picked: Vec<Range<usize>> = match self.unit {
            MaskingUnit::Token | MaskingUnit::WholeWord => {
                words.iter().filter(|_| rng.random_bool(self.picked)).cloned().collect()
            }
            MaskingUnit::Span => {
                let of_one_row = |a: &Range<usize>, b: &Range<usize>| tokens[a.start].0 == tokens[b.start].0;
                let whole = |row: &[Range<usize>], span: Range<usize>| row[span.start].start..row[span.end - 1].end;
                let rows = words.chunk_by(of_one_row);
                rows.flat_map(|row| self.spans.draw(row.len(), rng).into_iter().map(|span| whole(row, span))).collect()
            }
        };
        if picked.is_empty() && !words.is_empty() {
            picked.push(words[rng.random_range(0..words.len())].clone());
        }
        picked
    }
}

/// Spans of words whose lengths have a geometric distribution up to a greatest length, as those of SpanBERT.
///
/// A row is read from left to right: before every word a span begins with a probability so that the wanted share of the
/// words is in spans. The first word is in the middle of a span as often as any other word is, so the share does not depend
/// on the length of a row.
#[derive(Debug, Clone)]
struct Spans {
    /// probability that a word is in a span
    covered: f64,
    /// probability that a span begins after a span or an uncovered word
    begins: f64,
    /// probabilities of a length of at most 1, 2, …
    lengths: Vec<f64>,
    /// the same for what is left of a span at any of its words, that word counted
    remains: Vec<f64>,
}

impl Spans {
    /// Spans of at most `max_length` words that cover the share `covered`; p(length) is proportional to `(1-p)^(length-1)·p`.
    fn new(p: f64, max_length: usize, covered: f64) -> Self {
        let weights: Vec<f64> =
            (0..max_length.clamp(1, SPAN_MAX_LENGTH)).map(|n| p * (1.0 - p).powi(n as i32)).collect();
        // P(length ≥ 1), P(length ≥ 2), …: their sum is the mean
        let mut at_least: Vec<f64> = weights.iter().rev().scan(0.0, |sum, weight| Some(add(sum, *weight))).collect();
        at_least.reverse();
        let mean = at_least.iter().sum::<f64>() / at_least[0];
        Self {
            covered,
            begins: covered / (covered + mean * (1.0 - covered)),
            lengths: cumulative(&weights),
            remains: cumulative(&at_least),
        }
    }

    /// Spans of a row of `n_words` words, in order.
    fn draw(&self, n_words: usize, rng: &mut ChaCha8Rng) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        let mut add = |start: usize, length: usize| {
            let end = n_words.min(start + length);
            spans.push(start..end);
            end
        };
        let is_in_span = n_words > 0 && rng.random_bool(self.covered);
        let mut at = if is_in_span { add(0, drawn(&self.remains, rng)) } else { 1 };
        while at < n_words {
            at = if rng.random_bool(self.begins) { add(at, drawn(&self.lengths, rng)) } else { at + 1 };
        }
        spans
    }
}

/// Adds to a sum and returns it.
fn add(sum: &mut f64, term: f64) -> f64 {
    *sum += term;
    *sum
}

/// The sums of the first 1, 2, … weights, divided by the sum of all.
fn cumulative(weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    weights.iter().scan(0.0, |sum, weight| Some(add(sum, weight / total))).collect()
}

/// A number from 1 on with these [`cumulative`] probabilities.
fn drawn(cumulative: &[f64], rng: &mut ChaCha8Rng) -> usize {
    let draw: f64 = rng.random();
    // rounding may leave the last sum below 1
    (cumulative.partition_point(|sum| *sum <= draw) + 1).min(cumulative.len())
}

/// Mean cross-entropy of the true tokens at the picked positions, with `logits` `[n, V]` of [`logits_at`].
///
/// # Errors
/// A tensor operation that fails.
pub(crate) fn mlm_loss(logits: &Tensor, targets: &[(u32, u32)]) -> Result<Tensor> {
    cross_entropy(logits, targets.iter().map(|(_, id)| *id).collect())
}

/// Flat indices of the tokens whose features predict the picked ones.
pub(crate) fn predicting<T>(head: &MlmHead<T>, targets: &[(u32, u32)]) -> Vec<u32> {
    // no picked token is the first of its row, which is a special token
    let before = u32::from(head.predicts_next);
    targets.iter().map(|(at, _)| at.saturating_sub(before)).collect()
}

/// Logits of some rows of the head's features.
///
/// # Errors
/// A tensor operation that fails.
pub(crate) fn logits_at<A: Algebra>(a: &A, head: &MlmHead<A::Tensor>, rows: &A::Tensor) -> Result<A::Tensor, A::Error> {
    head.cap.apply(a, &a.linear(rows, &head.weight, Some(&head.bias))?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use rand::SeedableRng;

    /// Ids 0 to 4 are special, 4 is the mask, the others are words.
    fn masking(unit: MaskingUnit, picked: f64) -> Masking {
        Masking { mask: 4, size: 100, special: vec![0, 1, 2, 3, 4], picked, unit, spans: Spans::new(0.2, 10, picked) }
    }

    /// Pieces of words of 1 to 4 tokens with their special tokens; all tokens of a word are alike, those of two words in
    /// succession are not.
    fn pieces(n_pieces: usize, n_words: usize) -> Vec<Piece> {
        let piece = |n: usize| {
            let mut piece = Piece { ids: vec![2], begins: vec![true] };
            for word in 0..n_words {
                // an unknown token is in the middle of some words
                let length = 1 + (7 * word + n) % 4;
                let id = |at: usize| if at == 1 && word % 10 == 9 { 1 } else { 5 + (word % 95) as u32 };
                piece.ids.extend((0..length).map(id));
                piece.begins.extend((0..length).map(|at| at == 0));
            }
            piece.ids.push(3);
            piece.begins.push(true);
            piece
        };
        (0..n_pieces).map(piece).collect()
    }

    /// The batch of pieces before and after masking, and its targets.
    fn masked(masking: &Masking, pieces: &[Piece], seed: u64) -> (TokenBatch, TokenBatch, Vec<(u32, u32)>) {
        let rows: Vec<&Piece> = pieces.iter().collect();
        let ids: Vec<&[u32]> = rows.iter().map(|piece| piece.ids.as_slice()).collect();
        let original = TokenBatch::new(&ids, 0);
        let mut batch = original.clone();
        let targets = masking.apply(&mut batch, &rows, &mut ChaCha8Rng::seed_from_u64(seed));
        (original, batch, targets)
    }

    fn id(batch: &TokenBatch, at: u32) -> u32 {
        batch.ids.as_slice().unwrap()[at as usize] as u32
    }

    const UNITS: [MaskingUnit; 3] = [MaskingUnit::Token, MaskingUnit::WholeWord, MaskingUnit::Span];

    #[test]
    fn the_share_of_picked_tokens_is_the_probability_in_rows_of_any_length() {
        for (unit, picked, (n_pieces, n_words)) in UNITS
            .into_iter()
            .flat_map(|unit| [0.15, 0.2, 0.5, 1.0].map(|picked| (unit, picked)))
            .flat_map(|(unit, picked)| [(20_000, 4), (1000, 80), (4, 20_000)].map(|shape| (unit, picked, shape)))
        {
            let (original, batch, targets) = masked(&masking(unit, picked), &pieces(n_pieces, n_words), 7);
            let words = original.ids.iter().filter(|id| **id > 4).count();
            let share = targets.len() as f64 / words as f64;
            assert!((share - picked).abs() < 0.01, "{unit:?} {picked} {n_words}: {share}");
            let part = |count: usize| count as f64 / targets.len() as f64;
            let mask = part(targets.iter().filter(|(at, _)| id(&batch, *at) == 4).count());
            let kept = part(targets.iter().filter(|(at, true_id)| id(&batch, *at) == *true_id).count());
            // one in a hundred random tokens is the mask, one in a hundred the true one
            assert!((mask - 0.7015).abs() < 0.02 && (kept - 0.1515).abs() < 0.02, "{unit:?} {picked}: {mask} {kept}");
        }
    }

    #[test]
    fn special_tokens_and_padding_are_never_picked_and_nothing_else_changes() {
        for unit in UNITS {
            let mut pieces = pieces(40, 30);
            pieces.extend(self::pieces(40, 5));
            let (original, batch, targets) = masked(&masking(unit, 0.5), &pieces, 3);
            let mut restored = batch.clone();
            for (at, true_id) in &targets {
                assert!(original.mask.as_slice().unwrap()[*at as usize] == 1);
                assert!(id(&original, *at) == *true_id && *true_id > 4, "{unit:?}");
                restored.ids.as_slice_mut().unwrap()[*at as usize] = i64::from(*true_id);
            }
            assert!(restored.ids == original.ids && batch.ids != original.ids && batch.mask == original.mask);
            let mut places: Vec<u32> = targets.iter().map(|(at, _)| *at).collect();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), targets.len(), "no token is picked twice");
        }
    }

    /// The tokens of every word: its places in the batch, special tokens left out.
    fn words_of(pieces: &[Piece], batch: &TokenBatch) -> Vec<Vec<u32>> {
        let mut words: Vec<Vec<u32>> = Vec::new();
        for (row, piece) in pieces.iter().enumerate() {
            for (column, begins) in piece.begins.iter().enumerate() {
                if *begins {
                    words.push(Vec::new());
                }
                if piece.ids[column] > 4 {
                    words.last_mut().unwrap().push((row * batch.width() + column) as u32);
                }
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn words_are_masked_whole_or_not_at_all() {
        for unit in [MaskingUnit::WholeWord, MaskingUnit::Span] {
            let pieces = pieces(50, 60);
            let (original, batch, targets) = masked(&masking(unit, 0.2), &pieces, 11);
            let picked: std::collections::BTreeSet<u32> = targets.iter().map(|(at, _)| *at).collect();
            let (mut n_whole, mut n_mixed) = (0, 0);
            for word in words_of(&pieces, &original) {
                let n_picked = word.iter().filter(|at| picked.contains(at)).count();
                assert!(n_picked == 0 || n_picked == word.len(), "{unit:?}: {n_picked} of {}", word.len());
                n_whole += usize::from(n_picked > 1);
                let n_masked = word.iter().filter(|at| id(&batch, **at) == 4).count();
                // a random token may be the mask
                n_mixed += usize::from(n_masked > 0 && n_masked < word.len());
            }
            assert!(n_whole > 200 && n_mixed < 10, "{unit:?}: {n_whole} {n_mixed}");
        }
        // single tokens are picked from within words
        let pieces = pieces(50, 60);
        let (original, _, targets) = masked(&masking(MaskingUnit::Token, 0.2), &pieces, 11);
        let is_picked = |at: &u32| targets.iter().any(|(target, _)| target == at);
        let words = words_of(&pieces, &original);
        assert!(words.iter().any(|word| word.iter().any(is_picked) && !word.iter().all(is_picked)));
    }

    #[test]
    fn lengths_of_spans_are_those_of_spanbert() {
        let spans = Spans::new(0.2, 10, 0.2);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let n_words = 2_000_000;
        let drawn = spans.draw(n_words, &mut rng);
        assert!(drawn.windows(2).all(|pair| pair[0].end <= pair[1].start) && drawn.last().unwrap().end <= n_words);
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        drawn.iter().for_each(|span| *counts.entry(span.len()).or_default() += 1);
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
        let whole = 1.0 - 0.8_f64.powi(10);
        for (length, count) in &counts {
            let expected = 0.2 * 0.8_f64.powi(*length as i32 - 1) / whole;
            let share = *count as f64 / drawn.len() as f64;
            assert!((share - expected).abs() < 0.004, "{length}: {share} {expected}");
        }
        let mean = drawn.iter().map(ExactSizeIterator::len).sum::<usize>() as f64 / drawn.len() as f64;
        // the mean that the paper gives
        assert!((mean - 3.8).abs() < 0.03, "{mean}");
        // ends of the range
        assert!(Spans::new(1.0, 10, 0.3).draw(1000, &mut rng).iter().all(|span| span.len() == 1));
        assert!(Spans::new(1e-9, usize::MAX, 0.3).draw(5, &mut rng).iter().all(|span| span.len() <= 5));
        assert!(Spans::new(0.2, 10, 0.2).draw(0, &mut rng).is_empty());
    }

    /// The masking of the first version.
    fn plain(batch: &mut TokenBatch, rng: &mut ChaCha8Rng) -> Vec<(u32, u32)> {
        let flat = |index: (usize, usize)| (index.0 * batch.width() + index.1) as u32;
        let candidates: Vec<(usize, usize)> =
            batch.ids.indexed_iter().filter(|(at, id)| batch.mask[*at] == 1 && **id > 4).map(|(at, _)| at).collect();
        let mut picked: Vec<(usize, usize)> = candidates.iter().copied().filter(|_| rng.random_bool(0.20)).collect();
        if picked.is_empty() && !candidates.is_empty() {
            picked.push(candidates[rng.random_range(0..candidates.len())]);
        }
        let targets = picked.iter().map(|&at| (flat(at), batch.ids[at] as u32)).collect();
        for at in picked {
            let draw: f64 = rng.random();
            if draw < 0.70 {
                batch.ids[at] = 4;
            } else if draw < 0.70 + 0.15 {
                batch.ids[at] = i64::from(rng.random_range(0..100_u32));
            }
        }
        targets
    }

    #[test]
    fn single_tokens_are_masked_as_they_always_were() {
        let masking = masking(MaskingUnit::Token, 0.2);
        for seed in 0..200 {
            let pieces = pieces(1 + seed as usize % 5, seed as usize % 7);
            let (mut original, batch, targets) = masked(&masking, &pieces, seed);
            assert_eq!(plain(&mut original, &mut ChaCha8Rng::seed_from_u64(seed)), targets);
            assert!(original.ids == batch.ids);
        }
    }

    #[test]
    fn at_least_one_token_is_picked() {
        for unit in UNITS {
            let masking = masking(unit, 0.2);
            for seed in 0..50 {
                let piece = Piece { ids: vec![2, 9, 3], begins: vec![true; 3] };
                assert_eq!(masked(&masking, &[piece], seed).2, [(1, 9)]);
            }
            let piece = Piece { ids: vec![2, 3], begins: vec![true; 2] };
            assert_eq!(masked(&masking, &[piece], 1).2, []);
        }
    }
}
