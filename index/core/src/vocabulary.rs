//! [`Vocabulary`]: text to token ids and back, by the model's own `tokenizer.json`.

use std::sync::Arc;

#[cfg(feature = "threads")]
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

use crate::compositional::reads_word_by_word;
use crate::guard::guarded;
use crate::hex;
use crate::words::Words;
use crate::{Error, Result};

/// A tokenizer whose token ids are the dimensions of sparse vectors.
///
/// The file's own truncation and padding sections are ignored: the length is the one given here.
///
/// Where the tokenizer is one that reads texts word by word, as those of BERT, NorBERT, RoBERTa and their like do, it
/// remembers words, shared by all threads and clones; [`tokenize_plain`](Self::tokenize_plain) asks the tokenizer
/// whatever it is, and says the same.
///
/// ```
/// use splade_core::Vocabulary;
///
/// let json = r###"{"added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
///     "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
///               "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "fjord": 1, "##en": 2}}}"###;
/// let vocabulary = Vocabulary::parse(json.into(), 512)?;
/// assert_eq!(vocabulary.tokenize("fjorden fjord")?, [1, 2, 1]);
/// assert_eq!(vocabulary.token(2).as_deref(), Some("##en"));
/// # Ok::<(), splade_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Vocabulary {
    tokenizer: Tokenizer,
    fingerprint: String,
    json: Vec<u8>,
    /// None where a text is more than its words
    words: Option<Arc<Words>>,
    /// what goes before and after a text for a network, None where that is not all
    frame: Option<(Vec<u32>, Vec<u32>)>,
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary").field("size", &self.size()).field("fingerprint", &self.fingerprint).finish()
    }
}

impl Vocabulary {
    /// Reads the bytes of a `tokenizer.json`; texts are truncated to `max_length` tokens, special tokens counted where
    /// they are added.
    ///
    /// # Errors
    /// Bytes that are no tokenizer; a length that has no room for a token beside the special ones.
    pub fn parse(json: Vec<u8>, max_length: usize) -> Result<Self> {
        let read = || -> Result<_> {
            let mut tokenizer = Tokenizer::from_bytes(&json).map_err(tokenizer_error)?;
            tokenizer.with_padding(None);
            cut_at(&mut tokenizer, max_length)?;
            let words = reads_word_by_word(&tokenizer).then(Arc::default);
            let frame = frame(&tokenizer);
            Ok((tokenizer, words, frame))
        };
        let (tokenizer, words, frame) = guarded(read).map_err(Error::Tokenizer)??;
        let fingerprint = hex(&Sha256::digest(&json));
        Ok(Self { tokenizer, fingerprint, json, words, frame })
    }

    /// Texts are cut at so many tokens.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.tokenizer.get_truncation().map_or(usize::MAX, |truncation| truncation.max_length)
    }

    /// The same tokenizer, cutting at another length.
    ///
    /// # Errors
    /// A length that has no room for a token beside the special ones.
    pub fn with_max_length(&self, max_length: usize) -> Result<Self> {
        let mut same = self.clone();
        cut_at(&mut same.tokenizer, max_length)?;
        // what was remembered may be cut at the other length
        same.words = same.words.map(|_| Arc::default());
        Ok(same)
    }

    /// The number of entries, added tokens included: `len(get_vocab())` of the reference.
    #[must_use]
    pub fn size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The vocabulary piece of a dimension, raw: `##ing` stays `##ing`.
    #[must_use]
    pub fn token(&self, dim: u32) -> Option<String> {
        self.tokenizer.id_to_token(dim)
    }

    /// The dimension of a vocabulary piece.
    #[must_use]
    pub fn dim(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Token ids of a text without special tokens: what a static query is looked up by.
    ///
    /// # Errors
    /// A text the tokenizer refuses.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.tokenize_into(text, &mut ids)?;
        Ok(ids)
    }

    /// The same into a vector that is emptied first, so that nothing is allocated if it has the room.
    ///
    /// # Errors
    /// A text the tokenizer refuses.
    pub fn tokenize_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        ids.clear();
        if !self.by_words(text, self.max_length(), ids) {
            *ids = self.tokenize_plain(text, false)?;
        }
        Ok(())
    }

    /// Token ids of a text with special tokens, as a network reads it.
    ///
    /// # Errors
    /// A text the tokenizer refuses.
    pub fn tokenize_for_network(&self, text: &str) -> Result<Vec<u32>> {
        if let Some((before, after)) = &self.frame {
            let mut ids = before.clone();
            if self.by_words(text, self.max_length() - after.len(), &mut ids) {
                ids.extend_from_slice(after);
                return Ok(ids);
            }
        }
        self.tokenize_plain(text, true)
    }

    /// What the tokenizer itself says, with special tokens or without: the plain twin of the two above.
    ///
    /// # Errors
    /// A text the tokenizer refuses.
    pub fn tokenize_plain(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.tokenizer.encode_fast(text, special)).map_err(Error::Tokenizer)?;
        Ok(encoding.map_err(tokenizer_error)?.get_ids().to_vec())
    }

    /// True if texts are put together from words that were seen before.
    #[must_use]
    pub fn reads_word_by_word(&self) -> bool {
        self.words.is_some()
    }

    /// Appends the ids of `text` word by word until there are `length`; false if that is not possible.
    fn by_words(&self, text: &str, length: usize, ids: &mut Vec<u32>) -> bool {
        let Some(words) = &self.words else { return false };
        let found = words.tokenize(&self.tokenizer, text, length, ids).is_ok();
        ids.truncate(length);
        found
    }

    /// [`tokenize_for_network`](Self::tokenize_for_network) of many texts, on all threads, in their order.
    ///
    /// # Errors
    /// A text the tokenizer refuses.
    pub fn tokenize_all<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>> {
        #[cfg(feature = "threads")]
        let texts = texts.par_iter();
        #[cfg(not(feature = "threads"))]
        let texts = texts.iter();
        texts.map(|text| self.tokenize_for_network(text.as_ref())).collect()
    }

    /// Ids of the tokens marked special: `[CLS]`, `[MASK]` and so on.
    #[must_use]
    pub fn special_dims(&self) -> Vec<u32> {
        let decoder = self.tokenizer.get_added_tokens_decoder();
        let mut dims: Vec<u32> = decoder.iter().filter(|(_, token)| token.special).map(|(dim, _)| *dim).collect();
        dims.sort_unstable();
        dims
    }

    /// SHA-256 of the `tokenizer.json`: two vocabularies with the same fingerprint are the same.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The bytes of the `tokenizer.json`.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }
}

/// The special tokens before and after a text, where the post-processor adds nothing else.
fn frame(tokenizer: &Tokenizer) -> Option<(Vec<u32>, Vec<u32>)> {
    fn around(stage: &PostProcessorWrapper) -> Option<(Vec<u32>, Vec<u32>)> {
        use PostProcessorWrapper as P;
        match stage {
            P::Bert(bert) => Some((vec![bert.cls.1], vec![bert.sep.1])),
            P::Roberta(roberta) => Some((vec![roberta.cls.1], vec![roberta.sep.1])),
            P::Template(template) => template_frame(&serde_json::to_value(template).ok()?),
            P::ByteLevel(_) => Some(Default::default()),
            P::Sequence(stages) => {
                let mut frames = stages.as_ref().iter().filter(|stage| !matches!(stage, P::ByteLevel(_)));
                match (frames.next(), frames.next()) {
                    (None, _) => Some(Default::default()),
                    (Some(one), None) => around(one),
                    _ => None,
                }
            }
        }
    }
    let Some(processor) = tokenizer.get_post_processor() else { return Some(Default::default()) };
    around(processor).filter(|(before, after)| before.len() + after.len() == processor.added_tokens(false))
}

/// `"single": [{"SpecialToken": {"id": "[CLS]"}}, {"Sequence": {"id": "A"}}, …]` of a template.
fn template_frame(template: &serde_json::Value) -> Option<(Vec<u32>, Vec<u32>)> {
    let single = template["single"].as_array()?;
    let text = single.iter().position(|piece| piece["Sequence"]["id"] == "A")?;
    let ids = |pieces: &[serde_json::Value]| -> Option<Vec<u32>> {
        let ids = pieces.iter().map(|piece| {
            let name = piece["SpecialToken"]["id"].as_str()?;
            serde_json::from_value::<Vec<u32>>(template["special_tokens"][name]["ids"].clone()).ok()
        });
        ids.collect::<Option<Vec<_>>>().map(|ids| ids.concat())
    };
    Some((ids(&single[..text])?, ids(&single[text + 1..])?))
}

/// Makes `tokenizer` cut texts at `max_length` tokens, special ones counted.
fn cut_at(tokenizer: &mut Tokenizer, max_length: usize) -> Result<()> {
    // the tokenizer subtracts one from the other unchecked
    let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
    if max_length <= special {
        return Err(Error::invalid(
            format!("texts of {max_length} tokens have no room for a word beside {special} special tokens"),
            format!("allow at least {}", special + 1),
        ));
    }
    tokenizer.with_truncation(Some(TruncationParams { max_length, ..Default::default() })).map_err(tokenizer_error)?;
    Ok(())
}

fn tokenizer_error(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Vec<u8> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models/bert-tiny/tokenizer.json");
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_length_without_room_for_a_word_is_refused() {
        for length in [0, 1, 2] {
            let error = Vocabulary::parse(tokenizer(), length).unwrap_err();
            assert!(error.to_string().contains("2 special tokens") && error.kind().is_bad_input(), "{error}");
        }
        let vocabulary = Vocabulary::parse(tokenizer(), 3).unwrap();
        assert_eq!(vocabulary.tokenize_for_network("to ord til").unwrap().len(), 3);
    }

    #[test]
    fn another_length_is_the_same_vocabulary() {
        let vocabulary = Vocabulary::parse(tokenizer(), 3).unwrap();
        let longer = vocabulary.with_max_length(usize::MAX).unwrap();
        assert_eq!((vocabulary.max_length(), longer.max_length()), (3, usize::MAX));
        assert_eq!(vocabulary.fingerprint(), longer.fingerprint());
        assert!(longer.tokenize_for_network("to ord til").unwrap().len() > 4);
        assert!(longer.with_max_length(1).is_err());
    }

    /// A template that asks for the second text of a pair reads past the end of what it is given.
    #[test]
    fn a_tokenizer_that_panics_is_an_error() {
        let json = r###"{"added_tokens": [], "pre_tokenizer": null,
            "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {}},
            "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "hvor": 1}}}"###;
        let vocabulary = Vocabulary::parse(json.into(), 16).unwrap();
        // one that is read word by word is tried when it is read
        let tried = json.replace("null", r#"{"type": "Whitespace"}"#);
        let results = [vocabulary.tokenize("hvor"), vocabulary.tokenize_for_network("hvor")];
        let refused = Vocabulary::parse(tried.into(), 16).map(|_| Vec::new());
        for result in results.into_iter().chain([refused]) {
            let line = result.unwrap_err().to_string();
            assert!(line.starts_with("tokenizer: broken: index out of bounds"), "{line}");
        }
    }
}
