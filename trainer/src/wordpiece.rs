//! Training of a WordPiece tokenizer from texts, for a new model without a base.

use std::collections::BTreeMap;

use serde_json::json;
use tokenizers::AddedToken;
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::tokenizer::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Trainer,
};

use crate::{Error, Result};

/// `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`: ids 0 to 4 of every vocabulary trained here.
pub(crate) const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Smallest number of words that have a character of the alphabet. Rarer characters become `[UNK]`, so that they do not use
/// entries of a small vocabulary.
const CHARACTER_MIN_COUNT: u64 = 5;

/// Trainer of a vocabulary: counts words, then builds it.
///
/// Texts are lower-cased with accents (`å` is not `a`) and split as in BERT. The vocabulary does not depend on the order of
/// the texts.
#[derive(Debug, Default)]
pub(crate) struct WordPieceBuilder {
    counts: BTreeMap<String, u64>,
}

impl WordPieceBuilder {
    /// Counts the words of a text.
    ///
    /// # Errors
    /// A text that the normalizer refuses.
    pub(crate) fn feed(&mut self, text: &str) -> Result<()> {
        let mut normalized = NormalizedString::from(text);
        normalizer().normalize(&mut normalized).map_err(tokenizer_error)?;
        let mut split = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut split).map_err(tokenizer_error)?;
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
        let counts = without_rare_characters(self.counts);
        if counts.is_empty() {
            return Err(Error::invalid("there are no words to train a tokenizer on", "give texts"));
        }
        // the trainer numbers continuing characters in the order of a hash map, unless they are given in advance
        let mut initial: Vec<String> = SPECIAL_TOKENS.map(str::to_owned).to_vec();
        let continuing: std::collections::BTreeSet<char> =
            counts.keys().flat_map(|word| word.chars().skip(1)).collect();
        initial.extend(continuing.iter().map(|character| format!("##{character}")));
        let alphabet: std::collections::BTreeSet<char> = counts.keys().flat_map(|word| word.chars()).collect();
        if initial.len() + alphabet.len() > size {
            let message = format!("the alphabet alone has {} entries", initial.len() + alphabet.len());
            return Err(Error::config("model.init.vocab_size", message, "make it larger"));
        }
        let mut trainer = WordPieceTrainer::builder()
            .show_progress(false)
            .vocab_size(size)
            .min_frequency(2)
            .special_tokens(initial.into_iter().map(|token| AddedToken::from(token, true)).collect())
            .build();
        let words = counts.iter().flat_map(|(word, count)| std::iter::repeat_n(word.as_str(), *count as usize));
        trainer.feed(words, |word| Ok(vec![word.to_owned()])).map_err(tokenizer_error)?;
        let mut model = WordPiece::default();
        trainer.train(&mut model).map_err(tokenizer_error)?;
        Ok(tokenizer_json(&model))
    }
}

fn normalizer() -> BertNormalizer {
    BertNormalizer::new(true, true, Some(false), true)
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

fn tokenizer_json(model: &WordPiece) -> Vec<u8> {
    let vocab: BTreeMap<String, u32> = model.get_vocab().into_iter().collect();
    let special = |id: usize, token: &str| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let added: Vec<_> = SPECIAL_TOKENS.iter().enumerate().map(|(id, token)| special(id, token)).collect();
    let piece = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let ids = |token: &str| json!({"id": token, "ids": [vocab[token]], "tokens": [token]});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": false, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, piece("[SEP]")],
            "pair": [piece("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, piece("[SEP]"),
                     {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {"[CLS]": ids("[CLS]"), "[SEP]": ids("[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    });
    tokenizer.to_string().into_bytes()
}

fn tokenizer_error(error: tokenizers::Error) -> Error {
    splade_core::Error::Tokenizer(error.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use splade_core::Vocabulary;

    fn corpus() -> Vec<String> {
        let words = ["fisken", "fiske", "båten", "blåbær", "Ærfugl", "skogen", "skogens", "sjøen", "fjorden", "fjord"];
        (0..400)
            .map(|n| format!("{} i {} og {}.", words[n % 10], words[(n * 7) % 10], words[(n * 3 + 1) % 10]))
            .collect()
    }

    fn trained(texts: &[String]) -> Vec<u8> {
        let mut builder = WordPieceBuilder::default();
        texts.iter().for_each(|text| builder.feed(text).unwrap());
        builder.build(120).unwrap()
    }

    #[test]
    fn the_same_texts_give_the_same_vocabulary_in_any_order() {
        let texts = corpus();
        let first = trained(&texts);
        let mut reversed = texts.clone();
        reversed.reverse();
        for _ in 0..3 {
            assert_eq!(trained(&texts), first);
            assert_eq!(trained(&reversed), first);
        }
    }

    #[test]
    fn words_of_the_texts_are_pieces_and_accents_are_kept() {
        let vocabulary = Vocabulary::parse(trained(&corpus()), 32).unwrap();
        for (id, token) in (0..).zip(SPECIAL_TOKENS) {
            assert_eq!(vocabulary.dim(token), Some(id));
        }
        let pieces = |text: &str| -> Vec<String> {
            vocabulary.tokenize_for_network(text).unwrap().iter().map(|id| vocabulary.token(*id).unwrap()).collect()
        };
        assert_eq!(pieces("Blåbær, FISKEN"), ["[CLS]", "blåbær", "[UNK]", "fisken", "[SEP]"]);
        assert_ne!(vocabulary.tokenize("å").unwrap(), vocabulary.tokenize("a").unwrap());
    }

    #[test]
    fn too_small_a_vocabulary_is_refused() {
        let mut builder = WordPieceBuilder::default();
        corpus().iter().for_each(|text| builder.feed(text).unwrap());
        assert!(builder.build(10).unwrap_err().to_string().contains("vocab_size"));
        assert!(WordPieceBuilder::default().build(10).is_err());
    }
}
