//! Training of a tokenizer from texts, for a new model without a base.
//!
//! The trainers are those of the `tokenizers` crate. They hash with random keys and divide work by the number of threads,
//! so each file here says what makes its result the same in every run.

mod bpe;
mod unigram;
mod wordpiece;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use splade_core::guarded;
use tokenizers::tokenizer::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use crate::config::TokenizerKind;
use crate::{Error, Result};

/// `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`: ids 0 to 4 of every vocabulary trained here.
pub(crate) const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Smallest number of words that have a character of the alphabet. Rarer characters become `[UNK]`, so that they do not use
/// entries of a small vocabulary.
const CHARACTER_MIN_COUNT: u64 = 5;

/// Characters of the longest word that BPE and Unigram learn from: what is longer is no word.
const LONGEST_WORD: usize = 100;

/// Largest number of characters of all words together: the trainers count in 32 bits.
const MOST_CHARACTERS: u64 = 1 << 30;

/// Trainer of a vocabulary: counts words, then builds it.
///
/// Texts are lower-cased with accents (`å` is not `a`) and split as the kind of tokenizer splits them. The vocabulary does
/// not depend on the order of the texts.
pub(crate) struct TokenizerBuilder {
    kind: TokenizerKind,
    normalizer: NormalizerWrapper,
    pre_tokenizer: PreTokenizerWrapper,
    counts: BTreeMap<String, u64>,
}

impl TokenizerBuilder {
    /// A builder without words.
    ///
    /// # Errors
    /// None: the stages are those of this crate.
    pub(crate) fn new(kind: TokenizerKind) -> Result<Self> {
        let Stages { normalizer, pre_tokenizer, .. } = Stages::of(kind);
        Ok(Self {
            kind,
            normalizer: serde_json::from_str(&normalizer.to_string()).map_err(json_error)?,
            pre_tokenizer: serde_json::from_str(&pre_tokenizer.to_string()).map_err(json_error)?,
            counts: BTreeMap::new(),
        })
    }

    /// Counts the words of a text.
    ///
    /// # Errors
    /// A text that the normalizer refuses.
    pub(crate) fn feed(&mut self, text: &str) -> Result<()> {
        let split = || {
            let mut normalized = NormalizedString::from(text);
            self.normalizer.normalize(&mut normalized)?;
            let mut split = PreTokenizedString::from(normalized);
            self.pre_tokenizer.pre_tokenize(&mut split)?;
            Ok(split)
        };
        let split = guarded(split).map_err(trainer_error)?.map_err(tokenizer_error)?;
        for (word, _, _) in split.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            match self.counts.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    self.counts.insert(word.to_owned(), 1);
                }
            }
        }
        Ok(())
    }

    /// Trains at most `size` entries and returns the `tokenizer.json`.
    ///
    /// # Errors
    /// No words, or a size too small for the alphabet.
    pub(crate) fn build(self, size: usize) -> Result<Vec<u8>> {
        let Self { kind, counts, .. } = self;
        let train = || match kind {
            TokenizerKind::WordPiece => wordpiece::train(without_rare_characters(counts), size),
            TokenizerKind::Bpe => bpe::train(without_long_words(counts), size),
            TokenizerKind::Unigram => unigram::train(without_rare_characters(without_long_words(counts)), size),
        };
        let model = guarded(train).map_err(trainer_error)??;
        Ok(tokenizer_json(Stages::of(kind), &model))
    }
}

/// The stages of a tokenizer around its model, as they stand in `tokenizer.json`.
struct Stages {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
}

impl Stages {
    fn of(kind: TokenizerKind) -> Self {
        match kind {
            TokenizerKind::WordPiece => wordpiece::stages(),
            TokenizerKind::Bpe => bpe::stages(),
            TokenizerKind::Unigram => unigram::stages(),
        }
    }
}

/// A `tokenizer.json` with the special tokens around a text.
fn tokenizer_json(stages: Stages, model: &Value) -> Vec<u8> {
    let special = |id: usize, token: &str| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let added: Vec<_> = SPECIAL_TOKENS.iter().enumerate().map(|(id, token)| special(id, token)).collect();
    let piece = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let ids = |id: usize| json!({"id": SPECIAL_TOKENS[id], "ids": [id], "tokens": [SPECIAL_TOKENS[id]]});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": stages.normalizer,
        "pre_tokenizer": stages.pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, piece("[SEP]")],
            "pair": [piece("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, piece("[SEP]"),
                     {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {"[CLS]": ids(2), "[SEP]": ids(3)},
        },
        "decoder": stages.decoder,
        "model": model,
    });
    tokenizer.to_string().into_bytes()
}

/// The special tokens as a trainer takes them.
fn special_tokens() -> Vec<AddedToken> {
    SPECIAL_TOKENS.iter().map(|token| AddedToken::from(*token, true)).collect()
}

/// Largest vocabulary: the trainers make room for all of it at once.
const LARGEST_SIZE: usize = 1 << 24;

/// An error if there are no words, if special tokens and alphabet alone are more than the vocabulary may have, or if that is
/// larger than any tokenizer.
fn check_size(counts: &BTreeMap<String, u64>, n_alphabet: usize, size: usize) -> Result<()> {
    if counts.is_empty() {
        return Err(Error::invalid("there are no words to train a tokenizer on", "give texts"));
    }
    if size > LARGEST_SIZE {
        let message = format!("{size} is beyond {LARGEST_SIZE}, the largest vocabulary");
        return Err(Error::config("model.init.vocab_size", message, "make it smaller"));
    }
    if n_alphabet > size {
        let message = format!("the alphabet alone has {n_alphabet} entries");
        return Err(Error::config("model.init.vocab_size", message, "make it larger"));
    }
    Ok(())
}

/// The characters of words.
fn alphabet(counts: &BTreeMap<String, u64>) -> BTreeSet<char> {
    counts.keys().flat_map(|word| word.chars()).collect()
}

fn without_rare_characters(counts: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut characters: BTreeMap<char, u64> = BTreeMap::new();
    for (word, count) in &counts {
        for character in word.chars() {
            *characters.entry(character).or_default() += count;
        }
    }
    let frequent = |word: &str| word.chars().all(|character| characters[&character] >= CHARACTER_MIN_COUNT);
    counts.into_iter().filter(|(word, _)| frequent(word)).collect()
}

fn without_long_words(mut counts: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    counts.retain(|word, _| word.chars().nth(LONGEST_WORD).is_none());
    counts
}

/// The words with counts that 32 bits hold, all characters together: divided by a number where they are too many.
fn small_counts(counts: &BTreeMap<String, u64>) -> impl Iterator<Item = (&str, u32)> {
    let n_characters: u64 = counts.iter().map(|(word, count)| word.chars().count() as u64 * count).sum();
    let divisor = n_characters / MOST_CHARACTERS + 1;
    counts.iter().map(move |(word, count)| (word.as_str(), u32::try_from(count.div_ceil(divisor)).unwrap_or(u32::MAX)))
}

fn tokenizer_error(error: tokenizers::Error) -> Error {
    trainer_error(error.to_string())
}

fn json_error(error: serde_json::Error) -> Error {
    trainer_error(error.to_string())
}

fn trainer_error(message: String) -> Error {
    splade_core::Error::Tokenizer(message).into()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use splade_core::Vocabulary;

    const KINDS: [TokenizerKind; 3] = [TokenizerKind::WordPiece, TokenizerKind::Bpe, TokenizerKind::Unigram];

    fn corpus() -> Vec<String> {
        let words = ["fisken", "fiske", "båten", "blåbær", "Ærfugl", "skogen", "skogens", "sjøen", "fjorden", "fjord"];
        (0..400)
            .map(|n| format!("{} i {} og {}.", words[n % 10], words[(n * 7) % 10], words[(n * 3 + 1) % 10]))
            .collect()
    }

    fn trained(kind: TokenizerKind, texts: &[String], size: usize) -> Vec<u8> {
        let mut builder = TokenizerBuilder::new(kind).unwrap();
        texts.iter().for_each(|text| builder.feed(text).unwrap());
        builder.build(size).unwrap()
    }

    fn tokens(vocabulary: &Vocabulary, text: &str) -> Vec<String> {
        vocabulary.tokenize_for_network(text).unwrap().iter().map(|id| vocabulary.token(*id).unwrap()).collect()
    }

    #[test]
    fn the_same_texts_give_the_same_vocabulary_in_any_order_and_on_any_threads() {
        let texts = corpus();
        let mut reversed = texts.clone();
        reversed.reverse();
        for kind in KINDS {
            let first = trained(kind, &texts, 300);
            for n_threads in [1, 2, 3, 8] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
                pool.install(|| {
                    assert!(trained(kind, &texts, 300) == first, "{kind:?}, {n_threads} threads");
                    assert!(trained(kind, &reversed, 300) == first, "{kind:?}, {n_threads} threads, reversed");
                });
            }
        }
    }

    #[test]
    fn words_of_the_texts_are_pieces_and_accents_are_kept() {
        let cases: [(TokenizerKind, &[&str]); 3] = [
            (TokenizerKind::WordPiece, &["[CLS]", "blåbær", "[UNK]", "fisken", "fjorden", "##e", "[SEP]"]),
            (TokenizerKind::Bpe, &["[CLS]", "ĠblÃ¥bÃ¦r", ",", "Ġfisken", "Ġfjorden", "e", "[SEP]"]),
            (TokenizerKind::Unigram, &["[CLS]", "▁blåbær", "▁", "[UNK]", "▁fisken", "▁fjorden", "e", "[SEP]"]),
        ];
        for (kind, expected) in cases {
            let vocabulary = Vocabulary::parse(trained(kind, &corpus(), 400), 32).unwrap();
            for (id, token) in (0..).zip(SPECIAL_TOKENS) {
                assert_eq!(vocabulary.dim(token), Some(id));
            }
            assert_eq!(vocabulary.special_dims(), [0, 1, 2, 3, 4]);
            assert!(vocabulary.reads_word_by_word(), "{kind:?}");
            assert_eq!(tokens(&vocabulary, "Blåbær, FISKEN fjordene"), expected, "{kind:?}");
            assert_ne!(vocabulary.tokenize("å").unwrap(), vocabulary.tokenize("a").unwrap());
        }
    }

    #[test]
    fn a_vocabulary_of_no_possible_size_is_refused() {
        for kind in KINDS {
            let mut builder = TokenizerBuilder::new(kind).unwrap();
            builder.feed(&"ord ".repeat(9)).unwrap();
            let error = builder.build(usize::MAX).unwrap_err().to_string();
            assert!(error.contains("is beyond 16777216, the largest vocabulary"), "{error}");
            let mut builder = TokenizerBuilder::new(kind).unwrap();
            corpus().iter().for_each(|text| builder.feed(text).unwrap());
            assert!(
                builder.build(10).unwrap_err().to_string().contains("model.init.vocab_size: the alphabet alone has")
            );
            let error = TokenizerBuilder::new(kind).unwrap().build(300).unwrap_err().to_string();
            assert_eq!(error, "there are no words to train a tokenizer on");
        }
    }

    /// Texts of random words over a small alphabet: many ties.
    fn random_texts(seed: u64) -> Vec<String> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let letters = ['a', 'b', 'å', 'd', '.', '\u{1}', '\0', '😀', 'E', '東', '\n', '▁', 'Ġ'];
        let n_letters = rng.random_range(2..=letters.len());
        let mut word =
            |_| -> String { (0..rng.random_range(1..9)).map(|_| letters[rng.random_range(0..n_letters)]).collect() };
        let words: Vec<String> = (0..40).map(&mut word).collect();
        (0..60).map(|_| (0..8).map(|_| words[rng.random_range(0..40)].as_str()).collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn any_texts_give_a_tokenizer_of_the_size_or_an_error_and_each_time_the_same() {
        let mut n_built = 0;
        for (seed, kind) in (0..40).flat_map(|seed| KINDS.map(|kind| (seed, kind))) {
            let mut texts = random_texts(seed);
            texts.push("lang".repeat(500));
            let (size, texts) = ([100, 280, 400][seed as usize % 3], &texts);
            let build = |n_threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
                pool.install(|| {
                    let mut builder = TokenizerBuilder::new(kind).unwrap();
                    texts.iter().for_each(|text| builder.feed(text).unwrap());
                    builder.build(size)
                })
            };
            match build(1) {
                Ok(json) => {
                    assert!(build(4).unwrap() == json, "{kind:?} {seed}");
                    let vocabulary = Vocabulary::parse(json, usize::MAX).unwrap();
                    assert!(vocabulary.size() <= size && vocabulary.min_dimensions() == vocabulary.size());
                    for text in texts {
                        let ids = vocabulary.tokenize(text).unwrap();
                        assert_eq!(ids, vocabulary.tokenize_plain(text, false).unwrap());
                        assert_eq!(ids, vocabulary.tokenize_words(text).unwrap().0);
                    }
                    n_built += 1;
                }
                Err(error) => assert!(error.to_string().contains("the alphabet alone has"), "{kind:?} {seed}: {error}"),
            }
        }
        assert!(n_built > 60, "{n_built}");
    }

    #[test]
    fn norwegian_letters_come_back() {
        let text = "ærfuglen på fjorden ønsker seg blåbær og båten";
        let mut texts = corpus();
        texts.extend(vec![format!("{text} é ü"); 9]);
        for kind in KINDS {
            let json = trained(kind, &texts, 500);
            let vocabulary = Vocabulary::parse(json.clone(), usize::MAX).unwrap();
            // upper case and letters of two characters are the same
            let ids = vocabulary.tokenize(text).unwrap();
            assert!(!ids.contains(&1), "{kind:?}");
            assert_eq!(vocabulary.tokenize(&text.to_uppercase()).unwrap(), ids, "{kind:?}");
            let tokenizer = tokenizers::Tokenizer::from_bytes(json).unwrap();
            assert_eq!(tokenizer.decode(&ids, true).unwrap().trim(), text, "{kind:?}");
            if kind != TokenizerKind::WordPiece {
                assert_eq!(vocabulary.tokenize(&text.replace('å', "a\u{30a}")).unwrap(), ids, "{kind:?}");
            }
        }
    }

    #[test]
    fn words_that_occur_once_are_enough() {
        // every word of three letters, in one order
        let letters = ["å", "b", "d", "e", "f", "g", "h", "i"];
        let words =
            letters.iter().flat_map(|a| letters.iter().flat_map(move |b| letters.map(|c| format!("{a}{b}{c}"))));
        let texts: Vec<String> = words.collect();
        for kind in KINDS {
            let vocabulary = Vocabulary::parse(trained(kind, &texts, 270), 32).unwrap();
            assert!(vocabulary.size() <= 270, "{kind:?}: {}", vocabulary.size());
            assert!(!vocabulary.tokenize("åbi dei").unwrap().contains(&1), "{kind:?}");
        }
    }

    /// Words that no longer word begins with, and the most frequent one of a single letter.
    #[test]
    fn frequent_words_are_one_piece() {
        for (kind, words) in [
            (TokenizerKind::WordPiece, ["i", "og", "blåbær", "skogens"]),
            (TokenizerKind::Bpe, ["Ġi", "Ġog", "ĠblÃ¥bÃ¦r", "Ġskogens"]),
            (TokenizerKind::Unigram, ["▁i", "▁og", "▁blåbær", "▁skogens"]),
        ] {
            let vocabulary = Vocabulary::parse(trained(kind, &corpus(), 400), 32).unwrap();
            assert_eq!(tokens(&vocabulary, "i og blåbær skogens")[1..5], words, "{kind:?}");
        }
    }
}
