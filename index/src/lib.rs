//! From text to ranking: sparse vectors, encoders for inference, the inverted index, its evaluation.
//!
//! A SPLADE model gives every text a weight for some terms of its vocabulary, so that an inverted index can search by
//! meaning as it does by words. Inference-free models go further: a query is tokenized and looked up in a table, and no
//! network runs when somebody searches. This crate is everything needed to use such a model, and it stands alone: what
//! learns and what exports are other crates, built on this one.
//!
//! ```
//! use splade_index::{
//!     Encoder, ImpactIndex, IndexSettings, QueryEncoder, QueryWeights, SearchOptions, SparseVector, StoredDocument,
//!     Vocabulary, WriterOptions,
//! };
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
//! # Types
//!
//! * [`SparseVector`] is what every encoder gives and every index takes; [`Vocabulary`] is text to token ids and back.
//! * [`Encoder`] is the contract of [`QueryEncoder`] (a table) and [`DocumentEncoder`] (a [`Network`], in ONNX Runtime
//!   through [`OnnxNetwork`]); [`encode_stream`] runs one over a corpus of any length.
//! * [`ModelDir`] finds all of that in a model folder, whichever tool wrote it; [`NewModel`] writes one.
//! * [`read_documents`], [`read_queries`] and [`read_vectors`] read files, with the line in every error;
//!   [`read_tensor_list`] says what a checkpoint holds.
//! * [`ImpactIndex`] is an index folder, [`ImpactWriter`] fills it, [`Searcher`] answers: by impact, by BM25 or by both,
//!   fused by [`rrf`] or [`weighted_sum`].
//! * [`eval`] judges rankings as the Python libraries do; [`SparsityStats`] says what vectors are like.
//!
//! # Design
//!
//! What holds, everywhere in the crate:
//!
//! * It knows no gradient: no tensor library, no optimizer, no loss.
//! * The query path runs no network: tokenizer, table, sum. It compiles without ONNX Runtime.
//! * It prints nothing, reads no environment and touches no network; it takes paths and settings and returns values.
//! * A [`SparseVector`] has strictly increasing dimensions and finite weights that are not zero. Impacts are positive;
//!   query weights may be negative, and every bound that lets the search skip is right for that too.
//! * Rankings are ordered by score descending, then id ascending ([`Hit::rank_order`]).
//! * Encoding is exact too: what stands in for a part of an ONNX file ([`OnnxNetwork::open`]) gives the file's vectors.
//! * Searching is exact: scores equal [`SparseVector::dot`] bit for bit, and [`Searcher::search_exact`], which scores
//!   every document, is there to prove it.
//! * Folders and files appear whole or not at all ([`AtomicFile`], [`AtomicFolder`]), carry the version of their format,
//!   and are refused if it is unknown.
//!
//! # Features
//!
//! * `onnx` (default): documents through ONNX Runtime, whose library is loaded at run time ([`load_onnx_runtime`]).
//! * `cuda`, `coreml`: its providers of these names ([`OnnxDevice`]), in a library that has them. They need nothing to build;
//!   one that does not load leaves the network on the CPU, and [`Placement`] says why.

// not forbidden: output_layer/simd.rs calls functions for instructions it has detected, and says so
#![deny(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod atomic;
mod bm25;
mod compositional;
mod corpus;
mod document;
mod encoder;
mod error;
pub mod eval;
mod fusion;
mod guard;
mod inverted;
mod json;
mod model_dir;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(feature = "onnx")]
mod onnx_cut;
#[cfg(feature = "onnx")]
mod onnx_info;
#[cfg(feature = "onnx")]
mod onnx_operators;
#[cfg(feature = "onnx")]
mod onnx_providers;
#[cfg(feature = "onnx")]
mod output_layer;
mod pooling;
mod precision;
mod query;
mod ranking;
mod stats;
mod tensors;
mod vector;
mod vector_file;
mod vocabulary;
mod words;

pub use atomic::{AtomicFile, AtomicFolder};
pub use corpus::{Document, Position, Query, Row, Rows, Text, read_documents, read_queries, read_rows, read_texts};
pub use document::{BATCH_TOKENS, DocumentEncoder, DocumentSettings, Network, TokenBatch, encode_stream};
pub use encoder::Encoder;
pub use error::{Error, Result};
pub use fusion::{Fusion, RRF_K, rrf, weighted_sum};
pub use inverted::{
    Address, Filter, ForwardPrecision, Found, ImpactIndex, ImpactWriter, IndexSettings, IndexStats, Language, Scoring,
    SearchOptions, Searcher, StoredDocument, TermScore, WriteCounts, WriterOptions, to_ranking,
};
pub use model_dir::{
    Architecture, CODE_FILES, HeadChoice, HeadSource, ModelDir, NewModel, ONNX_FILES, QuerySide, TOKENIZER_FILES,
};
#[cfg(feature = "onnx")]
pub use onnx::{
    HEAD_KEY, HEAD_MODE_KEY, LIBRARY, OnnxModel, OnnxNetwork, OnnxOptions, POOLING_KEY, load_onnx_runtime, pool,
};
#[cfg(feature = "onnx")]
pub use onnx_cut::OUTPUT_LAYER_KEY;
#[cfg(feature = "onnx")]
pub use onnx_info::{OnnxRuntimeInfo, onnx_runtime_info};
#[cfg(feature = "onnx")]
pub use onnx_providers::{OnnxDevice, Placement};
pub use pooling::{HeadMode, Pooling, PoolingActivation, SpladePooling};
pub use precision::Precision;
pub use query::{QueryEncoder, QueryWeights};
pub use ranking::{Hit, Ranking};
pub use stats::{SparsityAnalysis, SparsityReport, SparsityStats, flops};
pub use tensors::{TensorInfo, read_tensor_list};
pub use vector::{SparseVector, VectorError};
pub use vector_file::{read_vectors, read_vectors_named, write_tokens, write_vector};
pub use vocabulary::Vocabulary;
