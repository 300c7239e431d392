//! [`Bm25Options`]: the parameters of BM25 and the treatment of a query's words.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Options of BM25 at search time. All of them work with any index.
///
/// score(q, d) = Σ over the words w of q of idf(w) · (k1 + 1) · tf / (tf + k1 · (1 − b + b · |d| / avgdl)), with
/// idf(w) = ln(1 + (N − df + 0.5) / (df + 0.5)), in f32 (Robertson, Zaragoza, "The Probabilistic Relevance Framework", 2009,
/// with Lucene's idf). |d| is the number of words of d, which the index rounds down above 40 words, by at most a ninth.
///
/// With [`with_compounds`](Self::with_compounds), a word of the query also matches the compounds that it is a part of, and a
/// compound of the query also matches its parts, with half the weight. A word and its compounds share one tf and one df.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Json", into = "Json")]
pub struct Bm25Options {
    k1: f32,
    b: f32,
    compounds: bool,
    drop_stop_words: bool,
}

impl Default for Bm25Options {
    /// k1 = 1.2 and b = 0.75, as in Lucene and tantivy; compounds as one word, all words of the query.
    fn default() -> Self {
        Self { k1: 1.2, b: 0.75, compounds: false, drop_stop_words: false }
    }
}

impl Bm25Options {
    /// Options with these parameters: `k1` for the saturation of term frequencies, `b` for the normalization by length.
    ///
    /// # Errors
    /// A `k1` outside 0 to 1000, a `b` outside 0 to 1.
    pub fn new(k1: f32, b: f32) -> Result<Self> {
        // far above every useful k1, and small enough that no score overflows
        if !(0.0..=1000.0).contains(&k1) {
            return Err(Error::invalid(format!("BM25's k1 is {k1}, not a number from 0 to 1000"), ""));
        }
        if !(0.0..=1.0).contains(&b) {
            return Err(Error::invalid(format!("BM25's b is {b}, not a number from 0 to 1"), ""));
        }
        Ok(Self { k1, b, ..Self::default() })
    }

    /// Splits compounds, or does not. The parts come from the words of the index (Koehn, Knight, EACL 2003).
    #[must_use]
    pub fn with_compounds(self, compounds: bool) -> Self {
        Self { compounds, ..self }
    }

    /// Drops the stop words of the index's language from queries that have other words, or does not.
    #[must_use]
    pub fn without_stop_words(self, drop_stop_words: bool) -> Self {
        Self { drop_stop_words, ..self }
    }

    /// Saturation of term frequencies.
    #[must_use]
    pub fn k1(self) -> f32 {
        self.k1
    }

    /// Normalization by length.
    #[must_use]
    pub fn b(self) -> f32 {
        self.b
    }

    /// True if compounds are split.
    #[must_use]
    pub fn splits_compounds(self) -> bool {
        self.compounds
    }

    /// True if stop words are dropped from queries.
    #[must_use]
    pub fn drops_stop_words(self) -> bool {
        self.drop_stop_words
    }
}

/// The options as JSON, before they are checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    k1: f32,
    b: f32,
    compounds: bool,
    drop_stop_words: bool,
}

impl TryFrom<Json> for Bm25Options {
    type Error = Error;

    fn try_from(json: Json) -> Result<Self> {
        let options = Self::new(json.k1, json.b)?;
        Ok(options.with_compounds(json.compounds).without_stop_words(json.drop_stop_words))
    }
}

impl From<Bm25Options> for Json {
    fn from(options: Bm25Options) -> Self {
        let Bm25Options { k1, b, compounds, drop_stop_words } = options;
        Self { k1, b, compounds, drop_stop_words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_out_of_range_are_refused() {
        for (k1, b, message) in [
            (-0.1, 0.5, "BM25's k1 is -0.1, not a number from 0 to 1000"),
            (f32::NAN, 0.5, "BM25's k1 is NaN, not a number from 0 to 1000"),
            (1e30, 0.5, "BM25's k1 is 1000000000000000000000000000000, not a number from 0 to 1000"),
            (1.0, 1.5, "BM25's b is 1.5, not a number from 0 to 1"),
            (1.0, f32::NAN, "BM25's b is NaN, not a number from 0 to 1"),
        ] {
            assert_eq!(Bm25Options::new(k1, b).unwrap_err().to_string(), message);
        }
        let json = r#"{"k1": 1.0, "b": 7.0, "compounds": true, "drop_stop_words": false}"#;
        assert!(serde_json::from_str::<Bm25Options>(json).unwrap_err().to_string().contains("b is 7"));
    }

    #[test]
    fn options_read_back() {
        let options = Bm25Options::new(0.9, 0.4).unwrap().with_compounds(true).without_stop_words(true);
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<Bm25Options>(&json).unwrap(), options);
    }
}
