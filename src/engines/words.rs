//! [`WordVectors`]: sparse vectors of words, for an engine that adds up products and multiplies each by the idf of its dimension.
//!
//! The sum is then the BM25 score of this program, without compounds. The engine computes the idf from the documents that it
//! has, so that documents that come later need no change of those before. The mean length of a document is that of the index at
//! the creation of the collection.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use splade_core::SparseVector;
use splade_index::{AnalyzerVersion, Bm25Encoder, Bm25Options, ImpactIndex};

use super::{CollectionManifest, EngineError, EngineResult};

/// Settings of the vectors of words of a collection, which are kept in its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WordSettings {
    /// version of the rules that split texts into words
    analyzer: AnalyzerVersion,
    /// saturation of term frequencies
    k1: f32,
    /// normalization by length
    b: f32,
    /// mean number of words of a document, at least 1
    mean_length: f32,
}

impl WordSettings {
    /// Settings by which an index ranks: tuned ones, if it has them.
    ///
    /// # Errors
    /// A damaged index.
    pub(crate) fn of(index: &ImpactIndex) -> splade_index::Result<Self> {
        let bm25 = index.read_hybrid_settings()?.map(|tuned| tuned.bm25).unwrap_or_default();
        Ok(Self {
            analyzer: index.settings().analyzer,
            k1: bm25.k1(),
            b: bm25.b(),
            mean_length: index.searcher()?.bm25_mean_length()?.max(1.0),
        })
    }

    /// Options of the search in an index whose scores are those of the vectors.
    ///
    /// # Errors
    /// Parameters out of range.
    pub(super) fn options(&self) -> splade_index::Result<Bm25Options> {
        Bm25Options::new(self.k1, self.b)
    }
}

/// Vectors of the words of documents and queries.
#[derive(Debug, Clone)]
pub(super) struct WordVectors {
    encoder: Bm25Encoder,
}

impl WordVectors {
    /// The vectors of a collection; none if its documents have none.
    ///
    /// # Errors
    /// Settings out of range.
    pub(super) fn of(manifest: &CollectionManifest) -> EngineResult<Option<Self>> {
        let Some(settings) = &manifest.words else { return Ok(None) };
        let encoder = manifest.language().and_then(|language| {
            Bm25Encoder::new(language, settings.analyzer, settings.options()?, settings.mean_length)
        });
        let encoder = encoder.map_err(|why| {
            EngineError::input(format!("manifest of the collection: {why}"), "push the index anew with --overwrite")
        })?;
        Ok(Some(Self { encoder }))
    }

    /// Vector of a document.
    pub(super) fn document(&self, title: Option<&str>, text: &str) -> SparseVector {
        from_words(self.encoder.document(title.into_iter().chain([text])))
    }

    /// Vector of a query, with the weight 1 for each distinct word.
    pub(super) fn query(&self, text: &str) -> SparseVector {
        let mut vector = from_words(self.encoder.query(text).into_iter().map(|word| (word, 1.0)));
        // two words of one dimension are one for the engine
        if vector.weights().iter().any(|weight| *weight != 1.0) {
            vector = from_pairs(vector.dims().iter().map(|dim| (*dim, 1.0)).collect());
        }
        vector
    }
}

/// A vector of weighted words. The weights of words of one dimension are added up.
fn from_words(words: impl IntoIterator<Item = (String, f32)>) -> SparseVector {
    let mut pairs: Vec<(u32, f32)> = words.into_iter().map(|(word, weight)| (dimension(&word), weight)).collect();
    pairs.sort_unstable_by_key(|(dim, _)| *dim);
    pairs.dedup_by(|next, kept| {
        let is_same = next.0 == kept.0;
        if is_same {
            kept.1 += next.1;
        }
        is_same
    });
    from_pairs(pairs)
}

fn from_pairs(pairs: Vec<(u32, f32)>) -> SparseVector {
    SparseVector::from_pairs(pairs).expect("dimensions are unique, and weights of BM25 are finite")
}

/// Dimension of a word: the first four bytes of its SHA-256, the most significant first. Of a million words, about 230 share
/// their dimension with another.
fn dimension(word: &str) -> u32 {
    let digest = Sha256::digest(word);
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors() -> WordVectors {
        let mut manifest = CollectionManifest::new(9, "model", "tokenizer", None);
        assert!(WordVectors::of(&manifest).unwrap().is_none());
        manifest.language = "norwegian".to_owned();
        manifest.words = Some(WordSettings { analyzer: AnalyzerVersion::NEWEST, k1: 1.2, b: 0.75, mean_length: 4.0 });
        WordVectors::of(&manifest).unwrap().unwrap()
    }

    #[test]
    fn dimensions_are_those_of_python() {
        // python3 -c 'import hashlib; print(int.from_bytes(hashlib.sha256("blåbær".encode()).digest()[:4], "big"))'
        assert_eq!(dimension("blåbær"), 1_863_994_282);
        assert_eq!(vectors().query("Blåbæret, blåbær!").dims(), [1_863_994_282]);
    }

    #[test]
    fn queries_have_the_weight_1_and_documents_that_of_bm25() {
        let vectors = vectors();
        let query = vectors.query("skogen snø skog");
        assert_eq!((query.active_dims(), query.weights()), (2, &[1.0, 1.0][..]));
        let document = vectors.document(Some("Skog"), "skogen og snø");
        let length = 1.2 * (1.0 - 0.75 + 0.75 * 4.0 / 4.0);
        let expected = 2.2 * 2.0 / (2.0 + length) + 2.2 * 1.0 / (1.0 + length);
        assert!((query.dot(&document) - expected).abs() < 1e-5, "{}", query.dot(&document));
        assert!(vectors.query(" – ").is_empty());
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let mut manifest = CollectionManifest::new(9, "model", "tokenizer", None);
        for (k1, b, mean_length) in [(-1.0, 0.5, 3.0), (1.0, 2.0, 3.0), (1.0, 0.5, 0.0), (1.0, 0.5, f32::NAN)] {
            manifest.words = Some(WordSettings { analyzer: AnalyzerVersion::NEWEST, k1, b, mean_length });
            assert!(WordVectors::of(&manifest).unwrap_err().to_string().starts_with("manifest of the collection"));
        }
    }
}
