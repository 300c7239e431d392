//! WordPiece: the pieces of BERT, longest match first, `##` before those that continue a word.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokenizers::AddedToken;
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::tokenizer::{Model, Trainer};

use super::{SPECIAL_TOKENS, Stages, alphabet, check_size, small_counts, tokenizer_error};
use crate::Result;

/// BERT's stages, with accents.
pub(super) fn stages() -> Stages {
    Stages {
        normalizer: json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                           "strip_accents": false, "lowercase": true}),
        pre_tokenizer: json!({"type": "BertPreTokenizer"}),
        decoder: json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
    }
}

/// Trains the model of a `tokenizer.json`.
pub(super) fn train(counts: BTreeMap<String, u64>, size: usize) -> Result<Value> {
    // the trainer numbers continuing characters in the order of a hash map, unless they are given in advance
    let mut initial: Vec<String> = SPECIAL_TOKENS.map(str::to_owned).to_vec();
    let continuing: BTreeSet<char> = counts.keys().flat_map(|word| word.chars().skip(1)).collect();
    initial.extend(continuing.iter().map(|character| format!("##{character}")));
    check_size(&counts, initial.len() + alphabet(&counts).len(), size)?;
    let mut trainer = WordPieceTrainer::builder()
        .show_progress(false)
        .vocab_size(size)
        .min_frequency(2)
        .special_tokens(initial.into_iter().map(|token| AddedToken::from(token, true)).collect())
        .build();
    let words = small_counts(&counts).flat_map(|(word, count)| std::iter::repeat_n(word, count as usize));
    trainer.feed(words, |word| Ok(vec![word.to_owned()])).map_err(tokenizer_error)?;
    let mut model = WordPiece::default();
    trainer.train(&mut model).map_err(tokenizer_error)?;
    let vocab: BTreeMap<String, u32> = model.get_vocab().into_iter().collect();
    Ok(json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100, "vocab": vocab}))
}
