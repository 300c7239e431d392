//! Sparse vectors, vocabularies, query tables, encoders, rankings, and the segment format with its scorer.
//!
//! The crate under all others. It reads no file, prints nothing and touches no network: bytes and texts go in, vectors
//! and rankings come out.
//!
//! ```
//! use splade_core::{QueryEncoder, QueryWeights, SparseVector, Vocabulary};
//!
//! // A query: a tokenizer and one learned weight per token.
//! let tokenizer = r###"{"added_tokens": [], "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
//!     "model": {"type": "WordLevel", "unk_token": "[UNK]",
//!               "vocab": {"[UNK]": 0, "hovedstaden": 1, "norge": 2, "oslo": 3, "bergen": 4}}}"###;
//! let vocabulary = Vocabulary::parse(tokenizer.into(), 512)?;
//! let queries = QueryEncoder::new(vocabulary, QueryWeights::new(vec![0.0, 2.0, 1.0, 3.0, 3.0])?, "")?;
//!
//! let query = queries.encode_query("Hovedstaden Norge")?;
//! let document = SparseVector::from_pairs([(1, 1.5), (2, 0.5), (3, 2.0)])?;
//! assert_eq!(query.dot(&document), 3.5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Types
//!
//! * [`SparseVector`] is the output of every encoder and the input of every index; [`Vocabulary`] maps text to token ids.
//! * [`Encoder`] is the contract of [`QueryEncoder`] (a table) and [`DocumentEncoder`] (a [`Network`]);
//!   [`encode_stream`] runs one over a corpus of any length.
//! * [`Ranking`] holds hits in order; a [`Fusion`] makes one of several. [`Retriever`] is the contract of whatever ranks
//!   documents: indexes, exact search, hybrid search.
//! * [`SparsityStats`] describes many vectors.
//! * [`segment`] is the file format of vectors in an index, and the search over it; [`dense`] is that of dense vectors.
//!
//! # Invariants
//!
//! * A [`SparseVector`] has strictly increasing dimensions and finite weights that are not zero. Impacts are positive;
//!   query weights may be negative, and every bound of the search holds for them too.
//! * Rankings are ordered by score descending, then id ascending ([`Hit::rank_order`]).
//! * Search is exact: scores equal [`SparseVector::dot`] bit for bit.
//!
//! # Features
//!
//! * `onig` (default): regular expressions of tokenizers through Oniguruma, a C library.
//! * `wasm`: the pure-Rust engine in its place; `--no-default-features --features wasm` needs no C compiler.
//! * `threads` (default): many texts are tokenized, and several segments searched, on all cores.

#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod compositional;
pub mod dense;
mod document;
mod encoder;
mod error;
mod fusion;
mod guard;
mod hex;
mod passages;
mod pooling;
mod pruning;
mod query;
mod ranking;
mod retriever;
pub mod segment;
mod stats;
mod tokenizer_files;
mod vector;
mod vocabulary;
mod words;

// Vectors
pub use pooling::{HeadMode, Pooling, PoolingActivation, SpladePooling, activate, pool};
pub use pruning::Pruning;
pub use stats::{
    DOCUMENT_SPARSITY, MillionEstimate, QUERY_ACTIVE_DIMS, SparsityAnalysis, SparsityReport, SparsityStats, flops,
};
pub use vector::{SparseVector, VectorError};
// Encoders
pub use document::{
    BATCH_TOKENS, DocumentEncoder, DocumentSettings, Network, TokenBatch, encode_stream, encode_stream_by,
    run_in_batches,
};
pub use encoder::Encoder;
pub use passages::{PassageLength, PassageSplitter};
pub use query::{QueryEncoder, QueryWeights};
pub use tokenizer_files::{TOKENIZER_SOURCES, TOKENIZER_VOCABULARIES, TokenizerFiles};
pub use vocabulary::Vocabulary;
// Rankings
pub use fusion::{Candidates, Fusion, FusionParameters, RRF_K, Scaling};
pub use ranking::{Hit, Ranking, score_order};
pub use retriever::{EncodedQuery, Retriever};
// Errors and small things shared by the other crates
pub use error::{Error, ErrorKind, Result};
pub use guard::{guarded, in_guarded_call};
pub use hex::hex;
