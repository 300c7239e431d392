//! Byte-level BPE: the pieces of GPT-2 and RoBERTa, made of bytes, so that no character is unknown.
//!
//! Ids and merges follow from the sorted alphabet and the counts: the trainer orders pairs of equal counts by their ids, so
//! the order of its hash maps does not show.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::{SPECIAL_TOKENS, Stages, check_size, json_error, small_counts, special_tokens, tokenizer_error};
use crate::Result;

/// RoBERTa's stages in lower case. The first word of a text has a space before it as every other word has, so that it is the
/// same term.
pub(super) fn stages() -> Stages {
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    Stages {
        normalizer: json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}),
        pre_tokenizer: bytes.clone(),
        decoder: bytes,
    }
}

/// Trains the model of a `tokenizer.json`.
pub(super) fn train(counts: BTreeMap<String, u64>, size: usize) -> Result<Value> {
    let bytes = ByteLevel::alphabet();
    check_size(&counts, SPECIAL_TOKENS.len() + bytes.len(), size)?;
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(size)
        .min_frequency(2)
        .special_tokens(special_tokens())
        .initial_alphabet(bytes.into_iter().collect())
        .build();
    let words = small_counts(&counts).map(|(word, count)| (word.into(), u64::from(count))).collect();
    let mut model = BPE::default();
    trainer.do_train(&words, &mut model).map_err(tokenizer_error)?;
    serde_json::to_value(&model).map_err(json_error)
}
