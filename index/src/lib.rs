//! From text to ranking: sparse vectors, encoders for inference, the inverted index, its evaluation.

mod atomic;
mod corpus;
mod encoder;
mod error;
pub mod eval;
mod ranking;
mod stats;
mod vector;
mod vector_file;

pub use atomic::AtomicFile;
pub use corpus::{Document, Position, Query, Row, Rows, Text, read_documents, read_queries, read_rows, read_texts};
pub use encoder::Encoder;
pub use error::{Error, Result};
pub use ranking::{Hit, Ranking};
pub use stats::{SparsityAnalysis, SparsityReport, SparsityStats, flops};
pub use vector::{SparseVector, VectorError};
pub use vector_file::{read_vectors, write_tokens, write_vector};
