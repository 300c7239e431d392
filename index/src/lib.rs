//! From text to ranking: sparse vectors, encoders for inference, the inverted index, its evaluation.

mod bm25;
mod encoder;
mod error;
mod fusion;
mod inverted;
mod ranking;
mod vector;

pub use encoder::Encoder;
pub use error::{Error, Result};
pub use fusion::{Fusion, RRF_K, rrf, weighted_sum};
pub use inverted::{
    Address, Filter, ForwardPrecision, Found, ImpactIndex, ImpactWriter, IndexSettings, IndexStats, Language, Scoring,
    SearchOptions, Searcher, StoredDocument, TermScore, WriteCounts, WriterOptions, to_ranking,
};
pub use ranking::{Hit, Ranking};
pub use vector::{SparseVector, VectorError};
