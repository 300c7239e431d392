//! Unigram: the pieces of SentencePiece, each with a probability; a text is divided so that it is most probable.
//!
//! The trainer adds probabilities of parts of the corpus that it makes for as many threads as there are, and gives
//! characters that it lost a score in the order of a hash map. It is therefore run on one thread, over words in an order of
//! their own, and its pieces are put in order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::ThreadPoolBuilder;
use serde_json::{Value, json};
use splade_core::guarded;
use tokenizers::models::unigram::{Unigram, UnigramTrainer};

use super::{
    SPECIAL_TOKENS, Stages, alphabet, check_size, small_counts, special_tokens, tokenizer_error, trainer_error,
};
use crate::{Error, Result};

/// The index of `[UNK]` in [`SPECIAL_TOKENS`].
const UNKNOWN: usize = 1;

/// A character at the end of words that is no character of a text.
const END: char = '\u{1}';

/// Entries of the trainer's list beside one or two of each word, at least: with 4 times as many the tokens of a text were not
/// fewer (1.2 million words of tests/data/lohelp-nb, 8000 pieces), without them there were a fifth more.
const ENTRIES: u64 = 100_000;

/// Orders of the list that are tried.
const ORDERS: u64 = 8;

/// Mean count of an entry, at most.
const COUNT_OF_ENTRY: u64 = 32;

/// XLM-RoBERTa's stages in lower case. Punctuation is split off first, so that a word behind a bracket is the same term as
/// one behind a space, and no piece has letters and punctuation.
pub(super) fn stages() -> Stages {
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let spaces = json!({"type": "WhitespaceSplit"});
    let punctuation = json!({"type": "Punctuation", "behavior": "Isolated"});
    Stages {
        normalizer: json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}),
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": [spaces, punctuation, metaspace]}),
        decoder: metaspace,
    }
}

/// Trains the model of a `tokenizer.json`.
pub(super) fn train(mut counts: BTreeMap<String, u64>, size: usize) -> Result<Value> {
    // the trainer's own mark between words, and ours
    counts.retain(|word, _| !word.contains(['\0', END]));
    // one more: the trainer stops at its size only after a piece that is no character
    check_size(&counts, SPECIAL_TOKENS.len() + alphabet(&counts).len() + 1, size)?;
    let entries = entries(&small_counts(&counts).collect::<Vec<_>>());
    let has_end = entries.iter().any(|(text, _)| text.ends_with(END));
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(u32::try_from(size + usize::from(has_end)).unwrap_or(u32::MAX))
        .special_tokens(special_tokens())
        .unk_token(Some(SPECIAL_TOKENS[UNKNOWN].to_owned()))
        .build()
        .map_err(|error| trainer_error(error.to_string()))?;
    let model = trained(&trainer, &entries)?;
    let special = SPECIAL_TOKENS.iter().map(|token| ((*token).to_owned(), 0.0));
    let pieces = in_order(model.iter().skip(SPECIAL_TOKENS.len()).cloned().collect());
    let pieces = pieces.into_iter().filter(|(text, _)| !text.contains(END));
    let vocab: Vec<(String, f64)> = special.chain(pieces).collect();
    Ok(json!({"type": "Unigram", "unk_id": UNKNOWN, "vocab": vocab, "byte_fallback": false}))
}

/// Trains on one thread, on the entries in a random order that is the same in every run.
///
/// The trainer's suffix array (esaxx-rs 0.1.10) misses a suffix if the list ends in equal entries and a greater one, and
/// panics: copies of a word one after the other would be such a list. The next order is then tried.
fn trained(trainer: &UnigramTrainer, entries: &[(String, u32)]) -> Result<Unigram> {
    let one_thread = ThreadPoolBuilder::new().num_threads(1).build();
    let one_thread =
        one_thread.map_err(|error| Error::invalid(format!("no thread: {error}"), "close other programs"))?;
    let mut problem = String::new();
    for order in 0..ORDERS {
        let mut entries = entries.to_vec();
        entries.shuffle(&mut ChaCha8Rng::seed_from_u64(order));
        let mut model = Unigram::default();
        match one_thread.install(|| guarded(|| trainer.do_train(entries, &mut model))) {
            Ok(trained) => return trained.map(|_| model).map_err(tokenizer_error),
            Err(panic) => problem = panic,
        }
    }
    Err(trainer_error(problem))
}

/// Words as the trainer takes them: frequent ones several times, each with a part of their count, and one with [`END`].
///
/// The trainer begins with the substrings of the list that have at least two characters after them somewhere: without `END`
/// a whole word would be one only if a longer word begins with it. It counts substrings by the entries of the list, but
/// characters by the counts: with one entry a word, `▁i` would be as rare as `▁ivr`, and EM would not get from `▁`, `i` to
/// the more probable `▁i`.
fn entries(words: &[(&str, u32)]) -> Vec<(String, u32)> {
    let total: u64 = words.iter().map(|(_, count)| u64::from(*count)).sum();
    let n_entries = (words.len() as u64).max(ENTRIES);
    // counts far above the number of entries would give all probability to single characters
    let divisor = u32::try_from(total / (n_entries * COUNT_OF_ENTRY)).unwrap_or(u32::MAX - 1) + 1;
    let of_entry = (total / u64::from(divisor) / n_entries).max(1);
    let entries = |(word, count): &(&str, u32)| {
        let count = count.div_ceil(divisor);
        let ended = (count > 1).then(|| (format!("{word}{END}"), 1));
        let count = count - u32::from(ended.is_some());
        let n = u64::from(count).div_ceil(of_entry).max(1) as u32;
        let word = (*word).to_owned();
        ended.into_iter().chain((0..n).map(move |at| (word.clone(), count / n + u32::from(at < count % n))))
    };
    words.iter().flat_map(entries).collect()
}

/// Pieces by descending score, then by their text.
///
/// Characters that no segmentation uses have the scores `m`, `m + 0.0001`, …, where `m` is the lowest of all, in the order
/// of a hash map; they get the same scores in the order of the characters.
fn in_order(mut pieces: Vec<(String, f64)>) -> Vec<(String, f64)> {
    const STEP: f64 = 0.0001;
    let lowest = pieces.iter().map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
    // summed as the trainer does, so that the bits are equal
    let mut above = 0.0;
    let given: HashSet<u64> = pieces
        .iter()
        .map(|_| {
            let score = lowest + above;
            above += STEP;
            score.to_bits()
        })
        .collect();
    let is_lost = |(text, score): &(String, f64)| text.chars().nth(1).is_none() && given.contains(&score.to_bits());
    let (mut lost, mut others): (Vec<_>, Vec<_>) = pieces.drain(..).partition(is_lost);
    let mut scores: Vec<f64> = lost.iter().map(|(_, score)| *score).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    lost.sort_by(|a, b| a.0.cmp(&b.0));
    others.extend(lost.into_iter().zip(scores).map(|((text, _), score)| (text, score)));
    others.sort_by(by_score);
    others
}

fn by_score(a: &(String, f64), b: &(String, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_the_counts_of_their_words() {
        let words = [("▁i", 900_000), ("▁fjord", 100), ("▁en", 2), ("▁sjelden", 1)];
        let entries = entries(&words);
        for (word, count) in words {
            let of_word = entries.iter().filter(|(text, _)| text.trim_end_matches(END) == word);
            assert_eq!(of_word.map(|(_, count)| *count).sum::<u32>(), count, "{word}");
        }
        assert_eq!(entries.iter().filter(|(text, _)| text.ends_with(END)).count(), 3);
        assert!((100_000..110_000).contains(&entries.len()) && entries.iter().all(|(_, count)| *count > 0));
        // and of a large corpus their proportions
        let large = super::entries(&[("▁i", 1 << 30), ("▁fjord", 1 << 20), ("▁sjelden", 1)]);
        let sum = |word: &str| -> u32 {
            large.iter().filter(|(text, _)| text.trim_end_matches(END) == word).map(|(_, count)| *count).sum()
        };
        assert!(sum("▁i") / sum("▁fjord") == 1023 && sum("▁sjelden") == 1 && large.len() < 110_000);
        assert_eq!(super::entries(&[]), []);
    }

    #[test]
    fn characters_that_were_lost_have_scores_in_their_order() {
        let scores = [-9.5, -9.5 + 0.0001, -9.5 + (0.0001 + 0.0001)];
        let pieces = |lost: [&str; 3]| {
            let lost = lost.iter().zip(scores).map(|(text, score)| ((*text).to_owned(), score));
            lost.chain([("▁fjord".to_owned(), -2.0), ("b".to_owned(), -3.0), ("a".to_owned(), -3.0)]).collect()
        };
        let expected = in_order(pieces(["z", "y", "x"]));
        let texts: Vec<&str> = expected.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts, ["▁fjord", "a", "b", "x", "y", "z"]);
        for lost in [["x", "y", "z"], ["y", "z", "x"], ["x", "z", "y"]] {
            assert_eq!(in_order(pieces(lost)), expected);
        }
        assert_eq!(in_order(Vec::new()), []);
    }
}
