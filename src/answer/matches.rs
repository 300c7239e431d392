//! Words of a text that were met by a query.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use anyhow::Result;
use splade_core::Vocabulary;
use splade_index::Searcher;
use unicode_segmentation::UnicodeSegmentation;

use super::Explanation;

/// Word of a text that adds to the score of its document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MetWord {
    /// bytes of the text
    pub(crate) range: Range<usize>,
    /// term or word of the query that it is of; equal keys count once for a snippet
    pub(crate) key: Key,
    /// share of the score
    pub(crate) share: f32,
    /// true if the query's vector has the term, but not the query's text
    pub(crate) expansion: bool,
}

/// Term of the vector or word of BM25.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Term(u32),
    Word(String),
}

/// Bytes of a text that are tokenized at once: offsets take memory, and some tokenizers accept no long texts.
const PART: usize = 1 << 20;

/// A text in parts of about [`PART`] bytes with their starts, divided at white space where there is some.
pub(super) fn parts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = &text[start..];
        let limit = (0..=PART.min(rest.len())).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(0);
        let end = match rest[..limit].rfind(char::is_whitespace) {
            Some(space) if limit < rest.len() && space > 0 => space,
            _ => limit,
        };
        let part = (start, &rest[..end]);
        start += end;
        (end > 0).then_some(part)
    })
}

/// Smallest part of a term or word that is marked, compared with the largest one: without it, every `the` of a text would be.
const LEAST_PART: f32 = 0.02;

/// Finds words by the terms and words of an explanation.
pub(crate) struct WordFinder<'a> {
    searcher: &'a Searcher,
    vocabulary: Option<&'a Vocabulary>,
    /// shares of the terms that are marked
    terms: HashMap<u32, f32>,
    /// tokens of the query's text
    query_tokens: HashSet<u32>,
    words: HashMap<&'a str, f32>,
    /// BM25's words by the word of the text, since texts repeat their words
    analyzed: HashMap<String, Vec<String>>,
}

/// The terms or words that are marked.
fn marked<T: Eq + std::hash::Hash>(parts: Vec<(T, f32)>) -> HashMap<T, f32> {
    let largest = parts.iter().map(|(_, share)| *share).fold(0.0, f32::max);
    parts.into_iter().filter(|(_, share)| *share >= LEAST_PART * largest).collect()
}

impl<'a> WordFinder<'a> {
    /// Finder for the words of a query that a hit was explained by.
    ///
    /// # Errors
    /// A query that the tokenizer refuses.
    pub(crate) fn new(
        searcher: &'a Searcher,
        vocabulary: Option<&'a Vocabulary>,
        query: &str,
        explanation: &'a Explanation,
    ) -> Result<Self> {
        let (sparse, bm25) = (explanation.sparse_score(), explanation.bm25_score());
        let part = |score: f32, sum: f32| if sum > 0.0 { score / sum } else { score };
        // texts may share [UNK] without sharing a word
        let special = vocabulary.map(Vocabulary::special_dims).unwrap_or_default();
        let positive = explanation.terms.iter().filter(|term| term.score > 0.0 && !special.contains(&term.dim));
        let words = explanation.words.iter();
        Ok(Self {
            searcher,
            vocabulary,
            terms: marked(positive.map(|term| (term.dim, part(term.score, sparse))).collect()),
            query_tokens: match vocabulary {
                Some(vocabulary) => vocabulary.tokenize(query)?.into_iter().collect(),
                None => HashSet::new(),
            },
            words: marked(words.map(|word| (word.word.as_str(), part(word.score, bm25))).collect()),
            analyzed: HashMap::new(),
        })
    }

    /// Words of `text` that were met, in their order.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub(crate) fn find(&mut self, text: &str) -> Result<Vec<MetWord>> {
        let mut met = Vec::new();
        for (start, part) in parts(text) {
            let inside = self.find_in_part(part)?.into_iter();
            met.extend(inside.map(|word| MetWord { range: start + word.range.start..start + word.range.end, ..word }));
        }
        Ok(met)
    }

    fn find_in_part(&mut self, text: &str) -> Result<Vec<MetWord>> {
        let tokens = match self.vocabulary {
            Some(vocabulary) if !self.terms.is_empty() => vocabulary.tokenize_ranges(text)?,
            _ => Vec::new(),
        };
        let mut met = Vec::new();
        let mut first = 0;
        for (start, word) in text.unicode_word_indices() {
            let range = start..start + word.len();
            while tokens.get(first).is_some_and(|(_, token)| token.end <= range.start) {
                first += 1;
            }
            let inside = tokens[first..].iter().take_while(|(_, token)| token.start < range.end);
            let by_terms = self.by_terms(&range, inside);
            let by_word = self.by_word(&range, word)?;
            met.extend(match (by_terms, by_word) {
                (Some(one), Some(other)) => Some(MetWord { share: one.share + other.share, expansion: false, ..one }),
                (one, other) => one.or(other),
            });
        }
        Ok(met)
    }

    /// The word at `range` if its tokens were met: those that score cover half of it, or all are in the query and one scores.
    fn by_terms<'t>(
        &self,
        range: &Range<usize>,
        tokens: impl Iterator<Item = &'t (u32, Range<usize>)>,
    ) -> Option<MetWord> {
        let (mut covered, mut share, mut in_query, mut all_in_query) = (0, 0.0, false, true);
        let mut best: Option<(f32, u32)> = None;
        for (dim, token) in tokens {
            let is_of_query = self.query_tokens.contains(dim);
            all_in_query &= is_of_query;
            if let Some(&part) = self.terms.get(dim) {
                covered += token.end.min(range.end).saturating_sub(token.start.max(range.start));
                share += part;
                in_query |= is_of_query;
                if best.is_none_or(|(other, _)| part > other) {
                    best = Some((part, *dim));
                }
            }
        }
        let (_, dim) = best?;
        (2 * covered >= range.len() || all_in_query).then(|| MetWord {
            range: range.clone(),
            key: Key::Term(dim),
            share,
            expansion: !in_query,
        })
    }

    /// The word at `range` if BM25 knows it by the name of a word of the query.
    fn by_word(&mut self, range: &Range<usize>, word: &str) -> Result<Option<MetWord>> {
        if self.words.is_empty() {
            return Ok(None);
        }
        if !self.analyzed.contains_key(word) {
            self.analyzed.insert(word.to_owned(), self.searcher.bm25_words(word)?);
        }
        let found = self.analyzed[word].iter().find_map(|stem| self.words.get_key_value(stem.as_str()));
        Ok(found.map(|(stem, share)| MetWord {
            range: range.clone(),
            key: Key::Word((*stem).to_owned()),
            share: *share,
            expansion: false,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_divided_at_white_space() {
        for text in ["", "kort", &"fjord og fjell ".repeat(200_000), &"å".repeat(1_500_000), &" ".repeat(3 << 20)] {
            let all: Vec<(usize, &str)> = parts(text).collect();
            assert_eq!(all.iter().map(|(_, part)| *part).collect::<String>(), text);
            assert!(all.iter().all(|(start, part)| text[*start..].starts_with(part) && part.len() <= PART));
            assert_eq!(all.is_empty(), text.is_empty());
        }
        let text = "fjord og fjell ".repeat(200_000);
        assert!(parts(&text).skip(1).all(|(_, part)| part.starts_with(' ')));
    }
}
