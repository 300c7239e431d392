//! [`Bm25Encoder`]: weights of words for engines that add up products and know how rare a word is.

use std::collections::{BTreeMap, BTreeSet};

use tantivy::fieldnorm::FieldNormReader;
use tantivy::tokenizer::{TextAnalyzer, TokenStream as _};

use super::Bm25Options;
use super::saturation::Saturation;
use crate::analyzer::analyzer;
use crate::{AnalyzerVersion, Error, Language, Result};

/// Words of texts with weights that give the scores of BM25 once they are multiplied by idf and added up.
///
/// The weight of a word in a document is (k1 + 1) · tf / (tf + k1 · (1 − b + b · |d| / avgdl)), the formula of [`Bm25Options`]
/// without the idf, with |d| rounded as in an index. The weight in a query is 1. The mean length avgdl is fixed, so that the
/// weights of a document do not change while other documents come and go. Compounds are not split.
///
/// ```
/// use splade_index::{AnalyzerVersion, Bm25Encoder, Bm25Options, Language};
///
/// let encoder = Bm25Encoder::new(Language::English, AnalyzerVersion::NEWEST, Bm25Options::default(), 3.0)?;
/// assert!(encoder.query("Dogs and a dog").iter().eq(["a", "and", "dog"]));
/// // in a document of the mean length, a word that occurs once has the weight 1
/// let weights = encoder.document(["Dogs bark", "loudly"]);
/// assert!(weights.keys().eq(["bark", "dog", "loud"]) && weights.values().all(|weight| (weight - 1.0).abs() < 1e-6));
/// # Ok::<(), splade_index::Error>(())
/// ```
#[derive(Clone)]
pub struct Bm25Encoder {
    analyzer: TextAnalyzer,
    saturation: Saturation,
    k1: f32,
}

impl Bm25Encoder {
    /// An encoder with the words of `language` and `version`, k1 and b of `options`, and a mean length in words.
    ///
    /// # Errors
    /// A mean length below 1.
    pub fn new(language: Language, version: AnalyzerVersion, options: Bm25Options, mean_length: f32) -> Result<Self> {
        if !(mean_length.is_finite() && mean_length >= 1.0) {
            let message = format!("the mean length of documents is {mean_length} words, not a number of at least 1");
            return Err(Error::invalid(message, ""));
        }
        let saturation = Saturation::new(options, mean_length);
        Ok(Self { analyzer: analyzer(language, version), saturation, k1: options.k1() })
    }

    /// Weights of the words of a document with these parts, such as title and text.
    #[must_use]
    pub fn document<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, f32> {
        let mut frequencies: BTreeMap<String, u32> = BTreeMap::new();
        for part in parts {
            self.words(part, |word| match frequencies.get_mut(word) {
                Some(tf) => *tf += 1,
                None => drop(frequencies.insert(word.to_owned(), 1)),
            });
        }
        let length = frequencies.values().fold(0_u32, |sum, tf| sum.saturating_add(*tf));
        let length = FieldNormReader::fieldnorm_to_id(length);
        let weight = |tf| (1.0 + self.k1) * self.saturation.of(tf, length);
        frequencies.into_iter().map(|(word, tf)| (word, weight(tf))).collect()
    }

    /// The distinct words of a query, each of which has the weight 1.
    #[must_use]
    pub fn query(&self, text: &str) -> BTreeSet<String> {
        let mut words = BTreeSet::new();
        self.words(text, |word| {
            words.insert(word.to_owned());
        });
        words
    }

    fn words(&self, text: &str, mut add: impl FnMut(&str)) {
        // a stream needs the analyzer for itself
        let mut analyzer = self.analyzer.clone();
        analyzer.token_stream(text).process(&mut |token| add(&token.text));
    }
}

impl std::fmt::Debug for Bm25Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bm25Encoder").field("k1", &self.k1).finish_non_exhaustive()
    }
}
