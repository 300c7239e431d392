//! [`PassageSplitter`]: long texts split into passages of so many tokens, at sentence ends.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use crate::{Error, Result, Vocabulary};

/// Largest number of tokens of a passage, and of the tokens that it shares with the one before.
///
/// ```
/// use splade_core::PassageLength;
///
/// let length: PassageLength = "256/32".parse()?;
/// assert_eq!((length.tokens, length.overlap), (256, 32));
/// assert_eq!("256".parse::<PassageLength>()?.overlap, 0);
/// # Ok::<(), splade_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassageLength {
    /// most tokens of a passage as the network reads it, special tokens and prompt included
    pub tokens: usize,
    /// most tokens that a passage repeats of the passage before
    #[serde(default)]
    pub overlap: usize,
}

impl std::fmt::Display for PassageLength {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.overlap {
            0 => write!(f, "{}", self.tokens),
            overlap => write!(f, "{}/{overlap}", self.tokens),
        }
    }
}

impl std::str::FromStr for PassageLength {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (tokens, overlap) = text.split_once('/').unwrap_or((text, "0"));
        let length = tokens.parse().ok().zip(overlap.parse().ok());
        let length = length.map(|(tokens, overlap)| Self { tokens, overlap });
        length.filter(|length| length.overlap < length.tokens).ok_or_else(|| {
            let expected = "a number of tokens, like 256, or with an overlap below it, like 256/32";
            Error::invalid(format!("expected {expected}, found {text:?}"), "")
        })
    }
}

/// Splits texts into passages that a network reads without truncation.
///
/// The passages of a text cover every byte of it, in their order. A passage ends with the last sentence that fits, and where no
/// sentence does, between two tokens.
#[derive(Debug)]
pub struct PassageSplitter {
    /// without a maximum length
    vocabulary: Vocabulary,
    prompt: String,
    lower_case: bool,
    length: PassageLength,
    /// tokens of a text that is empty: the special tokens and those of the prompt
    fixed: usize,
}

/// Largest number of bytes that are tokenized at once to find the ends of tokens.
const CHUNK: usize = 1 << 14;

impl PassageSplitter {
    /// A splitter for texts that are read by `vocabulary` after `prompt`, lower-cased or not.
    ///
    /// # Errors
    /// Passages that are longer than `vocabulary` reads, or too short for special tokens, prompt and overlap.
    pub fn new(vocabulary: &Vocabulary, prompt: &str, lower_case: bool, length: PassageLength) -> Result<Self> {
        let most = vocabulary.max_length();
        if length.tokens > most {
            let message =
                format!("passages of {} tokens are longer than the {most} that the model reads", length.tokens);
            return Err(Error::invalid(message, format!("use at most {most}")));
        }
        let mut splitter = Self {
            vocabulary: vocabulary.with_max_length(usize::MAX)?,
            prompt: prompt.to_owned(),
            lower_case,
            length,
            fixed: 0,
        };
        splitter.fixed = splitter.count("")?;
        if length.tokens < splitter.fixed + SHORTEST + length.overlap {
            let fixed = splitter.fixed;
            let message = format!("passages of {length} tokens have no room: {fixed} are special tokens or the prompt");
            let hint = format!("use at least {} tokens, and a smaller overlap", fixed + SHORTEST);
            return Err(Error::invalid(message, hint));
        }
        Ok(splitter)
    }

    /// Passages of a text, as ranges of its bytes; one for a text that fits, and for an empty one.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn split(&self, text: &str) -> Result<Vec<Range<usize>>> {
        if self.count(text)? <= self.length.tokens {
            return Ok(Vec::from([Range { start: 0, end: text.len() }]));
        }
        let places = Places::of(text, &self.vocabulary)?;
        let mut budget = self.length.tokens - self.fixed;
        loop {
            let passages = places.passages(text, budget, self.length.overlap.min(budget / 2));
            // a part of a text may have more tokens than it has within the text
            let counts = passages.iter().map(|range| self.count(&text[range.clone()]));
            let longest = counts.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or_default();
            let excess = longest.saturating_sub(self.length.tokens);
            if excess == 0 {
                return Ok(passages);
            }
            budget = match budget.checked_sub(excess) {
                Some(budget) if budget > 0 => budget,
                _ => return Ok(passages),
            };
        }
    }

    /// Number of tokens of a text as the network reads it, without truncation.
    fn count(&self, text: &str) -> Result<usize> {
        count_tokens(&self.vocabulary, &self.prompt, self.lower_case, text)
    }
}

/// Number of tokens of a text after `prompt`, special tokens included.
pub(crate) fn count_tokens(vocabulary: &Vocabulary, prompt: &str, lower_case: bool, text: &str) -> Result<usize> {
    let text = format!("{prompt}{text}");
    let text = if lower_case { text.to_lowercase() } else { text };
    Ok(vocabulary.tokenize_for_network(&text)?.len())
}

/// Fewest tokens of a text in a passage.
const SHORTEST: usize = 4;

/// Starts of the tokens of a text, and those that begin a sentence.
struct Places {
    /// first byte of each token, ascending
    tokens: Vec<usize>,
    /// numbers of the tokens that begin a sentence, ascending
    sentences: Vec<usize>,
}

impl Places {
    fn of(text: &str, vocabulary: &Vocabulary) -> Result<Self> {
        let (mut tokens, mut sentences): (Vec<usize>, Vec<usize>) = Default::default();
        for (start, sentence) in text.split_sentence_bound_indices() {
            sentences.push(tokens.len());
            let mut rest = sentence;
            while !rest.is_empty() {
                let end = if rest.len() > CHUNK { rest.floor_char_boundary(CHUNK) } else { rest.len() };
                let (chunk, after) = rest.split_at(end);
                let offset = start + sentence.len() - rest.len();
                for at in vocabulary.token_starts(chunk)? {
                    let at = text.floor_char_boundary(offset + at);
                    tokens.push(at.max(tokens.last().copied().unwrap_or_default()));
                }
                rest = after;
            }
        }
        sentences.dedup();
        Ok(Self { tokens, sentences })
    }

    /// Ranges of bytes of up to `budget` tokens; each repeats up to `overlap` tokens of the one before.
    fn passages(&self, text: &str, budget: usize, overlap: usize) -> Vec<Range<usize>> {
        let n = self.tokens.len();
        let byte = |token: usize| match token {
            0 => 0,
            token => self.tokens.get(token).copied().unwrap_or(text.len()),
        };
        let mut passages = Vec::new();
        let mut start = 0;
        while n - start > budget {
            let end = self.last_sentence(start + 1, start + budget).unwrap_or(start + budget);
            passages.push(byte(start)..byte(end));
            // a whole sentence where one fits into the overlap, else so many tokens
            let from = end.saturating_sub(overlap).max(start + 1);
            start = self.first_sentence(from, end).unwrap_or(from);
        }
        passages.push(byte(start)..text.len());
        passages
    }

    /// The last token in `from..=to` that begins a sentence.
    fn last_sentence(&self, from: usize, to: usize) -> Option<usize> {
        let after = self.sentences.partition_point(|token| *token <= to);
        self.sentences[..after].last().copied().filter(|token| *token >= from)
    }

    /// The first token in `from..=to` that begins a sentence.
    fn first_sentence(&self, from: usize, to: usize) -> Option<usize> {
        let at = self.sentences.partition_point(|token| *token < from);
        self.sentences.get(at).copied().filter(|token| *token <= to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words are tokens, and so are their parts of two letters that are known.
    fn vocabulary(max_length: usize) -> Vocabulary {
        let json = r###"{"added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "ab": 1, "##ab": 2, "!": 3, "c": 4, "##c": 5}}}"###;
        Vocabulary::parse(json.into(), max_length).unwrap()
    }

    fn splitter(length: &str) -> PassageSplitter {
        PassageSplitter::new(&vocabulary(50), "", false, length.parse().unwrap()).unwrap()
    }

    fn split<'a>(text: &'a str, length: &str) -> Vec<&'a str> {
        splitter(length).split(text).unwrap().into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn passages_end_with_sentences_where_they_can() {
        let text = "ab ab! c c! ab c ab c ab c ab c! c!";
        assert_eq!(split(text, "40"), [text]);
        assert_eq!(split(text, "6"), ["ab ab! c c! ", "ab c ab c ab c ", "ab c! c!"]);
        assert_eq!(split("", "6"), [""]);
        assert_eq!(split("  ", "6"), ["  "]);
    }

    #[test]
    fn passages_repeat_whole_sentences_or_tokens() {
        assert_eq!(split("ab ab! c c! ab! c!", "8/3"), ["ab ab! c c! ab! ", "ab! c!"]);
        assert_eq!(split("ab c ab c ab c ab c", "6/2"), ["ab c ab c ab c ", "ab c ab c"]);
        // a word of many tokens is split between two of them
        assert_eq!(split("ababababab", "4"), ["abababab", "ab"]);
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for text in ["", "x", "8/", "8/8", "-1", "0", "8/9"] {
            assert!(text.parse::<PassageLength>().is_err(), "{text}");
        }
        for (length, part) in [("51", "longer than the 50"), ("3", "no room"), ("8/6", "no room")] {
            let error = PassageSplitter::new(&vocabulary(50), "", false, length.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains(part), "{length}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_too_long(text in "([abc!]{1,6}[ \n]?|[æ日🦀]){0,60}", length in 5..20_usize, overlap in 0..3_usize) {
            let splitter = splitter(&format!("{}/{overlap}", length + overlap));
            let passages = splitter.split(&text).unwrap();
            prop_assert_eq!(passages[0].start, 0);
            prop_assert_eq!(passages.last().unwrap().end, text.len());
            for pair in passages.windows(2) {
                prop_assert!(pair[1].start <= pair[0].end && pair[1].start > pair[0].start && pair[1].end >= pair[0].end);
            }
            for range in passages {
                prop_assert!(splitter.count(&text[range]).unwrap() <= length + overlap);
            }
        }
    }
}
