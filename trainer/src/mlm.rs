//! Masked-language-model objective: the model predicts masked tokens.
//!
//! The method is that of Devlin et al., 2018, with more picked tokens (Wettig et al., 2022: 15 % is too little for small
//! models). More of them stay unchanged, since SPLADE needs a head that predicts the word of the text.

use candle_core::Tensor;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use splade_core::{TokenBatch, Vocabulary};

use crate::model::{Algebra, MlmHead, cross_entropy};
use crate::{Error, Result};

/// Share of the tokens that are picked.
const PICKED: f64 = 0.20;
/// Share of the picked tokens that become `[MASK]`, and share that become a random token; the rest stays.
const MASKED: f64 = 0.70;
const RANDOM: f64 = 0.15;

/// Tokens of a vocabulary for masking.
#[derive(Debug, Clone)]
pub(crate) struct Masking {
    mask: u32,
    size: u32,
    special: Vec<u32>,
}

impl Masking {
    /// Finds the mask token among the usual names.
    ///
    /// # Errors
    /// A vocabulary without a mask token.
    pub(crate) fn new(vocabulary: &Vocabulary) -> Result<Self> {
        let mask = ["[MASK]", "<mask>"].iter().find_map(|token| vocabulary.dim(token));
        let mask =
            mask.ok_or_else(|| Error::invalid("the tokenizer has no mask token: objective mlm needs one", ""))?;
        let size = u32::try_from(vocabulary.size()).map_err(|_| Error::invalid("more than 2^32 tokens", ""))?;
        Ok(Self { mask, size, special: vocabulary.special_dims() })
    }

    /// Masks tokens of `batch` in place. Returns the flat index `row·T + t` and the true id of every picked token, at
    /// least one.
    pub(crate) fn apply(&self, batch: &mut TokenBatch, rng: &mut ChaCha8Rng) -> Vec<(u32, u32)> {
        let flat = |index: (usize, usize)| (index.0 * batch.width() + index.1) as u32;
        let is_word = |id: i64| self.special.binary_search(&(id as u32)).is_err();
        let candidates: Vec<(usize, usize)> = batch
            .ids
            .indexed_iter()
            .filter(|(at, id)| batch.mask[*at] == 1 && is_word(**id))
            .map(|(at, _)| at)
            .collect();
        let mut picked: Vec<(usize, usize)> = candidates.iter().copied().filter(|_| rng.random_bool(PICKED)).collect();
        if picked.is_empty() && !candidates.is_empty() {
            picked.push(candidates[rng.random_range(0..candidates.len())]);
        }
        let targets = picked.iter().map(|&at| (flat(at), batch.ids[at] as u32)).collect();
        for at in picked {
            let draw: f64 = rng.random();
            if draw < MASKED {
                batch.ids[at] = i64::from(self.mask);
            } else if draw < MASKED + RANDOM {
                batch.ids[at] = i64::from(rng.random_range(0..self.size));
            }
        }
        targets
    }
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
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_fifth_of_the_words_is_picked_and_nothing_special() {
        let masking = Masking { mask: 4, size: 100, special: vec![0, 1, 2, 3, 4] };
        let text: Vec<u32> = [2].into_iter().chain((0..998).map(|n| 5 + n % 95)).chain([3]).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let original = TokenBatch::new(&[&text[..], &text[..500]], 0);
        let mut batch = original.clone();
        let targets = masking.apply(&mut batch, &mut rng);
        let share = targets.len() as f64 / 1497.0;
        assert!((0.17..0.23).contains(&share), "{share}");
        let id = |batch: &TokenBatch, at: u32| batch.ids.as_slice().unwrap()[at as usize] as u32;
        let masked = targets.iter().filter(|(at, _)| id(&batch, *at) == 4).count() as f64;
        let kept = targets.iter().filter(|(at, true_id)| id(&batch, *at) == *true_id).count() as f64;
        assert!((0.62..0.78).contains(&(masked / targets.len() as f64)));
        assert!((0.09..0.22).contains(&(kept / targets.len() as f64)));
        for (at, true_id) in targets {
            assert!(original.mask.as_slice().unwrap()[at as usize] == 1);
            assert!(id(&original, at) == true_id && true_id > 4);
        }
        let changed = original.ids.iter().zip(&batch.ids).filter(|(before, after)| before != after).count();
        assert!(changed > 0 && batch.mask == original.mask);
    }

    #[test]
    fn at_least_one_token_is_picked() {
        let masking = Masking { mask: 4, size: 100, special: vec![0, 1, 2, 3, 4] };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..50 {
            let mut batch = TokenBatch::new(&[[2, 9, 3]], 0);
            assert_eq!(masking.apply(&mut batch, &mut rng), [(1, 9)]);
        }
    }
}
