//! Documents in, hits out: the inverted index on disk, BM25, filters.
//!
//! tantivy keeps documents, ids, BM25 postings, segments, commits, deletes and merges; a file of our own beside every
//! segment ([`splade_core::segment`]) keeps the vectors, and another ([`splade_core::dense`]) dense vectors where an index has
//! them. The only crate that knows tantivy.
//!
//! ```
//! use splade_core::{QueryEncoder, QueryWeights, SparseVector, Vocabulary};
//! use splade_index::{ImpactIndex, IndexSettings, SearchOptions, StoredDocument, WriterOptions};
//!
//! // A query: a tokenizer and one learned weight per token. `ModelDir` reads both from a model folder.
//! let tokenizer = r###"{"added_tokens": [], "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
//!     "model": {"type": "WordLevel", "unk_token": "[UNK]",
//!               "vocab": {"[UNK]": 0, "hovedstaden": 1, "norge": 2, "oslo": 3, "bergen": 4}}}"###;
//! let vocabulary = Vocabulary::parse(tokenizer.into(), 512)?;
//! let queries = QueryEncoder::new(vocabulary, QueryWeights::new(vec![0.0, 2.0, 1.0, 3.0, 3.0])?, "")?;
//!
//! // Documents with their vectors, which a network made: `DocumentEncoder`.
//! let folder = tempfile::tempdir()?;
//! let index = ImpactIndex::create(folder.path(), &IndexSettings::new(5, "model", "tokenizer"))?;
//! let mut writer = index.writer(WriterOptions::default())?;
//! for (id, text, weights) in [
//!     ("d1", "Oslo har vært hovedstad siden 1814", vec![(1, 1.5), (2, 0.5), (3, 2.0)]),
//!     ("d2", "Bergen ligger mellom sju fjell", vec![(2, 0.25), (4, 2.0)]),
//! ] {
//!     let document = StoredDocument { id: id.into(), text: text.into(), ..Default::default() };
//!     writer.add(&document, &SparseVector::from_pairs(weights)?)?;
//! }
//! writer.finish()?;
//!
//! let query = queries.encode_query("Hovedstaden Norge")?;
//! let found = index.searcher()?.search(&query, 10, &SearchOptions::default())?;
//! let hits: Vec<_> = found.iter().map(|found| (found.hit.id.as_str(), found.hit.score)).collect();
//! assert_eq!(hits, [("d1", 3.5), ("d2", 0.25)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//!
//! * Search is exact: scores equal [`SparseVector::dot`](splade_core::SparseVector::dot) bit for bit, and
//!   [`Searcher::search_exact`], which scores every document, is its plain twin.
//! * The query path runs no network and compiles without ONNX Runtime.
//! * An index folder has a format version; an unknown one is refused.

#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod analyzer;
mod bits;
mod bm25;
mod check;
mod checked_json;
mod convert;
mod dates;
mod delete;
mod dense_plugin;
mod dense_search;
mod detect;
mod directory;
mod error;
mod facets;
mod fields;
mod filter;
mod hits;
mod hybrid;
mod hybrid_settings;
mod impact_index;
mod join;
mod passages;
mod plugin;
mod retrievers;
mod schema;
mod searcher;
mod settings;
mod snapshots;
mod stored;
#[cfg(test)]
mod tests;
mod writer;

// The index
pub use analyzer::{AnalyzerVersion, Language};
pub use check::{CheckReport, Finding, FindingKind};
pub use fields::{FieldKind, FieldSpec};
pub use impact_index::{ImpactIndex, IndexStats};
pub use settings::{DenseSettings, IndexSettings};
// Writing
pub use stored::StoredDocument;
pub use writer::{ImpactWriter, Vectors, WriteCounts, WriterOptions};
// Searching
pub use bm25::{Bm25Encoder, Bm25Options, WordScore};
pub use facets::{FieldCounts, ValueCount};
pub use filter::{Filter, FilterTree, FilterValue};
pub use hits::{Address, Found, Scoring, SearchOptions, TermScore, to_ranking};
pub use hybrid::{DensePart, HybridCandidates, HybridQuery};
pub use hybrid_settings::{HybridSettings, TunedOn};
pub use passages::Passage;
pub use retrievers::{Bm25Retriever, DenseRetriever, HybridRetriever, ImpactRetriever};
pub use searcher::Searcher;
// Errors
pub use error::{Error, Result};
