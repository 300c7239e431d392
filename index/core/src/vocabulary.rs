//! [`Vocabulary`]: text to token ids and back, by the model's own `tokenizer.json`.

use std::sync::Arc;

#[cfg(feature = "threads")]
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{Decoder, PostProcessor, Tokenizer, TruncationDirection, TruncationParams};

use crate::compositional::{flatten, longest_word, reads_word_by_word};
use crate::guard::guarded;
use crate::hex;
use crate::tokenizer_files::{Resolved, TokenizerFiles, resolve};
use crate::words::{LONGEST_AT_ONCE, Words, pieces};
use crate::{Error, Result};

/// A tokenizer whose token ids are the dimensions of sparse vectors.
///
/// The side of truncation is that of the file, the length is given here. Padding is ignored.
///
/// Tokenizers that read texts word by word, as those of BERT, NorBERT and RoBERTa do, run through a cache of words that
/// all threads and clones share. [`tokenize_plain`](Self::tokenize_plain) runs without it and returns the same ids.
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
    json: Arc<[u8]>,
    overrides: Arc<[String]>,
    min_dimensions: usize,
    /// `None` where the ids of a text are not those of its words
    words: Option<Arc<Words>>,
    /// special tokens before and after a text, `None` where the post-processor does more
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
    /// Bytes that are no tokenizer; a length without a position for a token beside the special tokens.
    pub fn parse(json: Vec<u8>, max_length: usize) -> Result<Self> {
        let read = || {
            let tokenizer = Tokenizer::from_bytes(&json).map_err(tokenizer_error)?;
            Self::build(Resolved { tokenizer, json, overrides: Vec::new() }, max_length)
        };
        guarded(read).map_err(Error::Tokenizer)?
    }

    /// Reads the tokenizer that transformers loads from the [`TOKENIZER_SOURCES`](crate::TOKENIZER_SOURCES) of a folder.
    ///
    /// Keys of `tokenizer_config.json` may override `tokenizer.json`; folders of older models have `vocab.txt` or
    /// `vocab.json` with `merges.txt` in its place. [`json`](Self::json) and [`fingerprint`](Self::fingerprint) are of
    /// the tokenizer that results.
    ///
    /// ```
    /// use splade_core::{TokenizerFiles, Vocabulary};
    ///
    /// let mut files = TokenizerFiles::new();
    /// files.insert("vocab.txt".into(), b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfjord\nFjord\n".to_vec());
    /// files.insert("tokenizer_config.json".into(), br#"{"tokenizer_class": "BertTokenizer"}"#.to_vec());
    /// assert_eq!(Vocabulary::from_files(&files, 512)?.tokenize("Fjord")?, [5]);
    ///
    /// let cased = br#"{"tokenizer_class": "BertTokenizer", "do_lower_case": false}"#;
    /// files.insert("tokenizer_config.json".into(), cased.to_vec());
    /// assert_eq!(Vocabulary::from_files(&files, 512)?.tokenize("Fjord")?, [6]);
    /// # Ok::<(), splade_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Files that are missing, broken, or hold a tokenizer that its class cannot read; a length as in [`parse`](Self::parse).
    pub fn from_files(files: &TokenizerFiles, max_length: usize) -> Result<Self> {
        guarded(|| Self::build(resolve(files)?, max_length)).map_err(Error::Tokenizer)?
    }

    fn build(resolved: Resolved, max_length: usize) -> Result<Self> {
        let Resolved { mut tokenizer, json, overrides } = resolved;
        tokenizer.with_padding(None);
        truncate_to(&mut tokenizer, max_length)?;
        let from_left = |side| side == TruncationDirection::Left;
        let left = tokenizer.get_truncation().is_some_and(|truncation| from_left(truncation.direction));
        // words are read from the start of a text, and its start may not be among the tokens that are kept
        let words = (!left && reads_word_by_word(&tokenizer))
            .then(|| Arc::new(Words::new(&tokenizer, longest_word(&tokenizer))));
        let min_dimensions = min_dimensions(&tokenizer);
        check_dimensions(min_dimensions)?;
        Ok(Self {
            fingerprint: hex(&Sha256::digest(&json)),
            json: json.into(),
            overrides: overrides.into(),
            min_dimensions,
            frame: frame(&tokenizer),
            words,
            tokenizer,
        })
    }

    /// Number of tokens that texts are truncated to.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.tokenizer.get_truncation().map_or(usize::MAX, |truncation| truncation.max_length)
    }

    /// Returns the vocabulary with another length.
    ///
    /// # Errors
    /// A length without a position for a token beside the special tokens.
    pub fn with_max_length(&self, max_length: usize) -> Result<Self> {
        let mut other = self.clone();
        truncate_to(&mut other.tokenizer, max_length)?;
        // a word in the cache may be truncated to the length of this one
        other.words = other.words.map(|_| Arc::new(Words::new(&other.tokenizer, longest_word(&other.tokenizer))));
        Ok(other)
    }

    /// Number of entries, added tokens included: `len(get_vocab())` in transformers.
    ///
    /// Ids need not be contiguous: [`min_dimensions`](Self::min_dimensions) bounds them.
    #[must_use]
    pub fn size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Number of dimensions that a table or network needs to have a row for every id: the largest id plus one.
    #[must_use]
    pub fn min_dimensions(&self) -> usize {
        self.min_dimensions
    }

    /// Returns what is too much for a table or network of so many `dimensions`: `500 tokens`, or `token id 733`; `None`
    /// where there is a row for every id.
    #[must_use]
    pub fn excess_over(&self, dimensions: usize) -> Option<String> {
        match (self.size(), self.min_dimensions) {
            (size, _) if size > dimensions => Some(format!("{size} tokens")),
            (_, needed) if needed > dimensions => Some(format!("token id {}", needed - 1)),
            _ => None,
        }
    }

    /// Differences between `tokenizer.json` and this tokenizer, one line each; empty unless another file of the folder
    /// overrides it.
    #[must_use]
    pub fn overrides(&self) -> &[String] {
        &self.overrides
    }

    /// Token of a dimension, raw: `##ing` stays `##ing`.
    #[must_use]
    pub fn token(&self, dim: u32) -> Option<String> {
        self.tokenizer.id_to_token(dim)
    }

    /// Token of a dimension as people read it; its number in brackets if it has none.
    ///
    /// The bytes of a byte-level tokenizer become text, with `▁` for a space as in SentencePiece: `ĠvÃ¥pen` is `▁våpen`. A
    /// token that ends within a character stays raw.
    #[must_use]
    pub fn readable_token(&self, dim: u32) -> String {
        let Some(token) = self.token(dim) else { return format!("[{dim}]") };
        let mut stages = Vec::new();
        if let Some(stage) = self.tokenizer.get_pre_tokenizer() {
            flatten(stage, &mut stages);
        }
        if !stages.iter().any(|stage| matches!(stage, PreTokenizerWrapper::ByteLevel(_))) {
            return token;
        }
        let text = ByteLevel::default().decode_chain(vec![token.clone()]).map(|parts| parts.concat());
        match text {
            Ok(text) if !text.contains(char::REPLACEMENT_CHARACTER) => {
                let visible = |c: char| match c {
                    ' ' => "▁".to_owned(),
                    c if c.is_whitespace() || c.is_control() => c.escape_default().to_string(),
                    c => c.to_string(),
                };
                text.chars().map(visible).collect()
            }
            _ => token,
        }
    }

    /// Dimension of a token.
    #[must_use]
    pub fn dim(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Token ids of a text without special tokens, as a query table reads it.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.tokenize_into(text, &mut ids)?;
        Ok(ids)
    }

    /// [`tokenize`](Self::tokenize) into a vector that is cleared first; allocates nothing where its capacity suffices.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
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
    /// A text that the tokenizer refuses.
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

    /// Token ids of a text by the tokenizer itself, with special tokens or without: the plain twin of
    /// [`tokenize`](Self::tokenize) and [`tokenize_for_network`](Self::tokenize_for_network).
    ///
    /// # Errors
    /// A text that the tokenizer refuses; one longer than 4 MiB, which would take gigabytes of memory.
    pub fn tokenize_plain(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        if text.len() > LONGEST_AT_ONCE {
            return Err(too_long(text.len()));
        }
        let encoding = guarded(|| self.tokenizer.encode_fast(text, special)).map_err(Error::Tokenizer)?;
        Ok(encoding.map_err(tokenizer_error)?.get_ids().to_vec())
    }

    /// True if texts are tokenized word by word through the cache.
    #[must_use]
    pub fn reads_word_by_word(&self) -> bool {
        self.words.is_some()
    }

    /// Appends the ids of `text` word by word until there are `length`; returns false where the tokenizer has to read it whole.
    fn by_words(&self, text: &str, length: usize, ids: &mut Vec<u32>) -> bool {
        let Some(words) = &self.words else { return false };
        let found = words.tokenize(&self.tokenizer, text, length, ids).is_ok();
        ids.truncate(length);
        found
    }

    /// [`tokenize_for_network`](Self::tokenize_for_network) of many texts, on all threads, in their order.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn tokenize_all<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>> {
        #[cfg(feature = "threads")]
        let texts = texts.par_iter();
        #[cfg(not(feature = "threads"))]
        let texts = texts.iter();
        texts.map(|text| self.tokenize_for_network(text.as_ref())).collect()
    }

    /// [`tokenize`](Self::tokenize) with, for every token, whether it begins a word. The cache is not used: this is for the
    /// preparation of a training.
    ///
    /// A word is what the tokenizer's own pre-tokenizer keeps together, and ends at white space in any case. Both are known
    /// by the tokenizer's offsets, so no mark of a kind of tokenizer (`##`, `Ġ`, `▁`) is looked for.
    ///
    /// ```
    /// # use splade_core::Vocabulary;
    /// # let json = r###"{"added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
    /// #     "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
    /// #               "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "fjord": 1, "##en": 2}}}"###;
    /// # let vocabulary = Vocabulary::parse(json.into(), 512)?;
    /// assert_eq!(vocabulary.tokenize_words("fjorden fjord")?, (vec![1, 2, 1], vec![true, false, true]));
    /// # Ok::<(), splade_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// A text that the tokenizer refuses; one longer than 4 MiB that cannot be read word by word.
    pub fn tokenize_words(&self, text: &str) -> Result<(Vec<u32>, Vec<bool>)> {
        let (mut ids, mut begins) = (Vec::new(), Vec::new());
        self.encode_chunks(text, |_, chunk, encoding| {
            ids.extend_from_slice(encoding.get_ids());
            begins.extend(word_starts(chunk, encoding.get_word_ids(), encoding.get_offsets()));
        })?;
        ids.truncate(self.max_length());
        begins.truncate(self.max_length());
        Ok((ids, begins))
    }

    /// [`tokenize`](Self::tokenize) with the bytes of the text that each token covers, for marking words. The cache is not
    /// used.
    ///
    /// Tokens of a part of a character have the bytes of that part, or of the whole character.
    ///
    /// ```
    /// # use splade_core::Vocabulary;
    /// # let json = r###"{"added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
    /// #     "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
    /// #               "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "fjord": 1, "##en": 2}}}"###;
    /// # let vocabulary = Vocabulary::parse(json.into(), 512)?;
    /// assert_eq!(vocabulary.tokenize_ranges("fjorden fjord")?, [(1, 0..5), (2, 5..7), (1, 8..13)]);
    /// # Ok::<(), splade_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`tokenize_words`](Self::tokenize_words).
    pub fn tokenize_ranges(&self, text: &str) -> Result<Vec<(u32, std::ops::Range<usize>)>> {
        let mut tokens = Vec::new();
        self.encode_chunks(text, |start, _, encoding| {
            let ranges = encoding.get_offsets().iter().map(|(from, to)| start + from..start + to);
            tokens.extend(encoding.get_ids().iter().copied().zip(ranges));
        })?;
        tokens.truncate(self.max_length());
        Ok(tokens)
    }

    /// Calls `read` with the start, the text and the tokens of each part of a text, with their offsets.
    fn encode_chunks(&self, text: &str, mut read: impl FnMut(usize, &str, &tokenizers::Encoding)) -> Result<()> {
        let chunks = if self.words.is_some() { chunks(text, CHUNK) } else { vec![text] };
        let mut start = 0;
        for chunk in chunks {
            if chunk.len() > LONGEST_AT_ONCE {
                return Err(too_long(chunk.len()));
            }
            let encoding = guarded(|| self.tokenizer.encode(chunk, false)).map_err(Error::Tokenizer)?;
            read(start, chunk, &encoding.map_err(tokenizer_error)?);
            start += chunk.len();
        }
        Ok(())
    }

    /// First byte of every token of a text, without special tokens and without truncation.
    ///
    /// # Errors
    /// A text that the tokenizer refuses; one longer than 4 MiB, which would take gigabytes of memory.
    pub(crate) fn token_starts(&self, text: &str) -> Result<Vec<usize>> {
        if text.len() > LONGEST_AT_ONCE {
            return Err(too_long(text.len()));
        }
        let encoding = guarded(|| self.tokenizer.encode(text, false)).map_err(Error::Tokenizer)?;
        let encoding = encoding.map_err(tokenizer_error)?;
        let overflowing = encoding.get_overflowing().iter().flat_map(|rest| rest.get_offsets());
        Ok(encoding.get_offsets().iter().chain(overflowing).map(|(start, _)| *start).collect())
    }

    /// Ids of the tokens marked special: `[CLS]`, `[MASK]` and so on.
    #[must_use]
    pub fn special_dims(&self) -> Vec<u32> {
        let decoder = self.tokenizer.get_added_tokens_decoder();
        let mut dims: Vec<u32> = decoder.iter().filter(|(_, token)| token.special).map(|(dim, _)| *dim).collect();
        dims.sort_unstable();
        dims
    }

    /// SHA-256 of [`json`](Self::json): two vocabularies with equal fingerprints are equal.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Bytes of a `tokenizer.json` that is this tokenizer: those of the file, unless there are
    /// [`overrides`](Self::overrides).
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }
}

/// Bytes of a text that [`Vocabulary::tokenize_words`] reads at once, if it can be split: offsets take memory.
const CHUNK: usize = 1 << 18;

/// Divides a text into parts of about `size` bytes, each of whole [`pieces`]: where a text is read word by word, the ids of
/// the parts are those of the text.
fn chunks(text: &str, size: usize) -> Vec<&str> {
    let (mut chunks, mut rest, mut end) = (Vec::new(), text, 0);
    for piece in pieces(text) {
        if end > 0 && end + piece.len() > size {
            let (chunk, after) = rest.split_at(end);
            chunks.push(chunk);
            (rest, end) = (after, 0);
        }
        end += piece.len();
    }
    chunks.push(rest);
    chunks
}

/// True for every token that begins a word: the first one of a split of the pre-tokenizer, and one with white space before
/// it or at its start.
fn word_starts(text: &str, words: &[Option<u32>], offsets: &[(usize, usize)]) -> Vec<bool> {
    // a character may be of several tokens, whose offsets then are not those of characters: no white space is
    let has_space =
        |range: std::ops::Range<usize>| text.get(range).is_some_and(|text| text.contains(char::is_whitespace));
    let begins_with_space =
        |(start, end): (usize, usize)| text.get(start..end).is_some_and(|text| text.starts_with(char::is_whitespace));
    // a token of white space alone is the beginning of the word after it
    let ends_with_space = |(start, end): (usize, usize)| {
        text.get(start..end).is_some_and(|text| text.ends_with(char::is_whitespace) && !text.trim().is_empty())
    };
    let starts = |at: usize| {
        let (before, here) = (offsets[at - 1], offsets[at]);
        words[at] != words[at - 1] || has_space(before.1..here.0) || begins_with_space(here) || ends_with_space(before)
    };
    (0..words.len().min(offsets.len())).map(|at| at == 0 || starts(at)).collect()
}

/// The special tokens before and after a text, where the post-processor adds nothing else.
pub(crate) fn frame(tokenizer: &Tokenizer) -> Option<(Vec<u32>, Vec<u32>)> {
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

/// Makes `tokenizer` truncate texts to `max_length` tokens, special ones counted, on the side it has.
fn truncate_to(tokenizer: &mut Tokenizer, max_length: usize) -> Result<()> {
    // the tokenizer subtracts one from the other unchecked
    let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
    if max_length <= special {
        return Err(Error::invalid(
            format!("texts of {max_length} tokens cannot contain a word beside {special} special tokens"),
            format!("allow at least {}", special + 1),
        ));
    }
    let direction = tokenizer.get_truncation().map(|truncation| truncation.direction).unwrap_or_default();
    let truncation = TruncationParams { max_length, direction, ..Default::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(tokenizer_error)?;
    Ok(())
}

/// Largest number of dimensions of a vocabulary, many times that of any model: tables have a row for every id, and a broken
/// file with a single huge id must not take gigabytes.
const MOST_DIMENSIONS: usize = 1 << 24;

/// Refuses a tokenizer with an id that no table should have a row for.
pub(crate) fn check_ids(tokenizer: &Tokenizer) -> Result<()> {
    check_dimensions(ids_end(tokenizer))
}

fn check_dimensions(dimensions: usize) -> Result<()> {
    if dimensions <= MOST_DIMENSIONS {
        return Ok(());
    }
    let (id, largest) = (dimensions - 1, MOST_DIMENSIONS - 1);
    Err(Error::Tokenizer(format!("the token id {id} is beyond {largest}, the largest supported")))
}

/// The largest id of the vocabulary, plus one.
fn ids_end(tokenizer: &Tokenizer) -> usize {
    let size = tokenizer.get_vocab_size(true);
    let contiguous = u32::try_from(size).is_ok_and(|size| (0..size).all(|id| tokenizer.id_to_token(id).is_some()));
    if contiguous {
        // as many tokens as ids, and every id has one: there are no others
        size
    } else {
        tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }
}

/// The largest id that a text can get, plus one.
fn min_dimensions(tokenizer: &Tokenizer) -> usize {
    // a post-processor states its ids itself; one that fails on every text is reported when a text comes
    let around = guarded(|| tokenizer.encode_fast("", true).map(|encoding| encoding.get_ids().to_vec()));
    let around = around.ok().and_then(tokenizers::Result::ok).unwrap_or_default();
    around.into_iter().map(|id| id as usize + 1).fold(ids_end(tokenizer), usize::max)
}

/// A text that could only be tokenized with gigabytes of memory.
fn too_long(bytes: usize) -> Error {
    Error::invalid(
        format!("a text of {bytes} bytes has no places to split it at; this tokenizer reads at most {LONGEST_AT_ONCE}"),
        "split the text, or leave it out",
    )
}

pub(crate) fn tokenizer_error(error: tokenizers::Error) -> Error {
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

    #[test]
    fn a_huge_token_id_is_refused_before_a_table_is_made_for_it() {
        let json = |id: u32| {
            format!(
                r###"{{"added_tokens": [], "pre_tokenizer": {{"type": "Whitespace"}}, "model": {{"type": "WordLevel",
                "unk_token": "[UNK]", "vocab": {{"[UNK]": 0, "fjord": {id}}}}}}}"###
            )
        };
        assert_eq!(Vocabulary::parse(json(70_000).into(), 16).unwrap().min_dimensions(), 70_001);
        let error = Vocabulary::parse(json(4_000_000_000).into(), 16).unwrap_err().to_string();
        assert!(error.contains("the token id 4000000000 is beyond 16777215"), "{error}");
    }

    /// A template with the second text of a pair reads past the end of its argument.
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
    fn fixture(model: &str) -> Vocabulary {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models");
        let json = std::fs::read(format!("{models}/{model}/tokenizer.json")).unwrap();
        Vocabulary::parse(json, usize::MAX).unwrap()
    }

    const MODELS: [&str; 7] = [
        "bert-tiny",
        "distilbert-tiny",
        "norbert3-tiny",
        "norbert4-tiny",
        "roberta-tiny",
        "modernbert-tiny",
        "xlmr-tiny",
    ];

    /// The tokens of each word, without the mark of a space.
    fn words(vocabulary: &Vocabulary, text: &str) -> Vec<String> {
        let (ids, begins) = vocabulary.tokenize_words(text).unwrap();
        assert_eq!(ids, vocabulary.tokenize(text).unwrap());
        let mut words: Vec<String> = Vec::new();
        for (id, begins) in ids.into_iter().zip(begins) {
            let token = vocabulary.token(id).unwrap();
            match words.last_mut().filter(|_| !begins) {
                Some(word) => word.push_str(&token),
                None => words.push(token),
            }
        }
        words
    }

    #[test]
    fn words_of_every_kind_of_tokenizer_are_whole() {
        let text = "Fjordene er dype, sier  hun.\n\nBlåbærene";
        let cases: [(&[&str], &[&str]); 5] = [
            (&["bert-tiny"], &["fjor##den##e", "er", "d##y##p##e", ",", "si##er", "hu##n", ".", "b##la##b##ær##ene"]),
            (
                &["distilbert-tiny"],
                &["fj##ord##ene", "er", "d##y##p##e", ",", "si##er", "hu##n", ".", "b##la##b##ær##ene"],
            ),
            (
                &["norbert3-tiny"],
                &["ĠFjordene", "Ġer", "Ġdype", ",", "Ġsier", "Ġ", "Ġhun", ".", "[UNK]", "[UNK]", "BlÃ¥bÃ¦rene"],
            ),
            (
                &["roberta-tiny", "modernbert-tiny"],
                &["Fjordene", "Ġer", "Ġdype", ",", "Ġsier", "Ġ", "Ġhun", ".", "Ċ", "Ċ", "BlÃ¥bÃ¦rene"],
            ),
            // a comma is of the word before it, as SentencePiece has it
            (&["xlmr-tiny"], &["▁Fjordene", "▁er", "▁dype,", "▁sier", "▁hun.", "▁Blåbærene"]),
        ];
        for (models, expected) in cases {
            for model in models {
                assert_eq!(words(&fixture(model), text), expected, "{model}");
            }
        }
        // a tokenizer that splits nothing before its model, as those of Llama: white space still ends a word
        let json = r###"{"added_tokens": [], "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁", -3.0], ["fj", -2.0], ["▁fj", -1.0],
                ["ord", -1.0], ["en", -1.0]]}}"###;
        let vocabulary = Vocabulary::parse(json.into(), usize::MAX).unwrap();
        assert!(!vocabulary.reads_word_by_word());
        assert_eq!(words(&vocabulary, "fjorden ord fjord"), ["▁fjorden", "▁ord", "▁fjord"]);
    }

    #[test]
    fn tokens_of_bytes_are_readable() {
        // NorBERT3 has no token for it
        let newline = |model: &str| if model == "norbert3-tiny" { "[UNK]" } else { "\\n" };
        let readable = |model: &str, text: &str| {
            let vocabulary = fixture(model);
            let ids = vocabulary.tokenize(text).unwrap();
            ids.into_iter().map(|id| vocabulary.readable_token(id)).collect::<Vec<_>>()
        };
        for (model, first) in [("roberta-tiny", "F"), ("modernbert-tiny", "F"), ("norbert3-tiny", "▁F")] {
            let tokens = readable(model, "Fjorden er grå.\n Bær");
            assert!(tokens[0].starts_with(first), "{model} {tokens:?}");
            assert_eq!(
                tokens.concat().trim_start_matches('▁'),
                "Fjorden▁er▁grå.\\n▁Bær".replace("\\n", newline(model))
            );
        }
        // the others are text as they are
        assert_eq!(readable("bert-tiny", "fjordene"), ["fjor", "##den", "##e"]);
        assert_eq!(readable("xlmr-tiny", "Fjordene er").concat(), "▁Fjordene▁er");
        // half of a character, no token, a token that is no bytes
        let json = r#"{"added_tokens": [{"id": 2, "content": "<s>", "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false}],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "model": {"type": "BPE", "vocab": {"Ã": 0, "Ã¥": 1, "<s>": 2}, "merges": []}}"#;
        let vocabulary = Vocabulary::parse(json.into(), usize::MAX).unwrap();
        let tokens: Vec<String> = (0..4).map(|dim| vocabulary.readable_token(dim)).collect();
        assert_eq!(tokens, ["Ã", "å", "<s>", "[3]"]);
    }

    #[test]
    fn a_long_text_has_the_words_of_its_parts() {
        let text: String = (0..3000).map(|n| format!("fjorden{n}, sier  hun {n}\n Å {}", "x ".repeat(n % 7))).collect();
        for size in [0, 10, 1000] {
            let parts = chunks(&text, size);
            assert!(parts.len() > 50 && parts.concat() == text);
        }
        for model in MODELS {
            let vocabulary = fixture(model);
            let (ids, begins) = vocabulary.tokenize_words(&text).unwrap();
            assert_eq!(ids, vocabulary.tokenize(&text).unwrap(), "{model}");
            let encoding = vocabulary.tokenizer.encode(text.as_str(), false).unwrap();
            assert_eq!(begins, word_starts(&text, encoding.get_word_ids(), encoding.get_offsets()), "{model}");
        }
        assert_eq!(fixture("bert-tiny").tokenize_words("").unwrap(), (Vec::new(), Vec::new()));
        let short = fixture("bert-tiny").with_max_length(4).unwrap();
        assert_eq!(short.tokenize_words(&text).unwrap().0, short.tokenize(&text).unwrap());
    }
}
