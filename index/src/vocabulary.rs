//! [`Vocabulary`]: text to token ids and back, by the model's own `tokenizer.json`.

use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

use crate::{Error, Result};

/// A tokenizer whose token ids are the dimensions of sparse vectors.
///
/// The file's own truncation and padding sections are ignored: the length is the one given here.
#[derive(Clone)]
pub struct Vocabulary {
    tokenizer: Tokenizer,
    fingerprint: String,
    json: Vec<u8>,
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary").field("size", &self.size()).field("fingerprint", &self.fingerprint).finish()
    }
}

impl Vocabulary {
    /// Reads a `tokenizer.json`; texts are cut at `max_length` tokens, special tokens counted where they are added.
    ///
    /// # Errors
    /// A file that is missing or is no tokenizer.
    pub fn read(path: &Path, max_length: usize) -> Result<Self> {
        let json = std::fs::read(path).map_err(Error::io(path))?;
        Self::parse(json, max_length).map_err(|error| match error {
            Error::Tokenizer(message) => Error::file(path, format!("not a tokenizer: {message}")),
            other => other.of(path),
        })
    }

    /// The same from the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// Bytes that are no tokenizer; a length that has no room for the tokens it adds to every text.
    pub fn parse(json: Vec<u8>, max_length: usize) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_bytes(&json).map_err(tokenizer_error)?;
        tokenizer.with_padding(None);
        let added = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if max_length.max(1) < added {
            return Err(Error::invalid(
                format!("a length of {max_length} has no room for the {added} special tokens of a text"),
                "allow more tokens",
            ));
        }
        tokenizer
            .with_truncation(Some(TruncationParams { max_length: max_length.max(1), ..Default::default() }))
            .map_err(tokenizer_error)?;
        let fingerprint = hex(&Sha256::digest(&json));
        Ok(Self { tokenizer, fingerprint, json })
    }

    /// Texts are cut at so many tokens.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.tokenizer.get_truncation().map_or(usize::MAX, |truncation| truncation.max_length)
    }

    /// The same tokenizer, cutting at another length.
    ///
    /// # Errors
    /// A length the tokenizer refuses.
    pub fn with_max_length(&self, max_length: usize) -> Result<Self> {
        Self::parse(self.json.clone(), max_length)
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
        Ok(self.tokenizer.encode_fast(text, false).map_err(tokenizer_error)?.get_ids().to_vec())
    }

    /// Token ids of a text with special tokens, as a network reads it.
    ///
    /// # Errors
    /// A text the tokenizer refuses.
    pub fn tokenize_for_network(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode_fast(text, true).map_err(tokenizer_error)?.get_ids().to_vec())
    }

    /// [`tokenize_for_network`](Self::tokenize_for_network) of many texts, on all threads, in their order.
    ///
    /// # Errors
    /// A text the tokenizer refuses.
    pub fn tokenize_all<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>> {
        texts.par_iter().map(|text| self.tokenize_for_network(text.as_ref())).collect()
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

fn tokenizer_error(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
