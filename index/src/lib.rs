//! From text to ranking: sparse vectors, encoders for inference, the inverted index, its evaluation.

#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod atomic;
mod bm25;
mod corpus;
mod document;
mod encoder;
mod error;
pub mod eval;
mod fusion;
mod inverted;
mod json;
mod model_dir;
#[cfg(feature = "onnx")]
mod onnx;
mod pooling;
mod query;
mod ranking;
mod stats;
mod vector;
mod vector_file;
mod vocabulary;

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
pub use model_dir::{Architecture, ModelDir, NewModel, QuerySide};
#[cfg(feature = "onnx")]
pub use onnx::{LIBRARY, OnnxModel, OnnxNetwork, OnnxOptions, POOLING_KEY, load_onnx_runtime, pool};
pub use pooling::{Pooling, PoolingActivation, SpladePooling};
pub use query::{QueryEncoder, QueryWeights};
pub use ranking::{Hit, Ranking};
pub use stats::{SparsityAnalysis, SparsityReport, SparsityStats, flops};
pub use vector::{SparseVector, VectorError};
pub use vector_file::{read_vectors, write_tokens, write_vector};
pub use vocabulary::Vocabulary;
