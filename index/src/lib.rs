//! From text to ranking: sparse vectors, encoders for inference, the inverted index, its evaluation.

mod document;
mod encoder;
mod error;
mod model_dir;
#[cfg(feature = "onnx")]
mod onnx;
mod pooling;
mod query;
mod ranking;
mod vector;
mod vocabulary;

pub use document::{BATCH_TOKENS, DocumentEncoder, DocumentSettings, Network, TokenBatch, encode_stream};
pub use encoder::Encoder;
pub use error::{Error, Result};
pub use model_dir::{Architecture, ModelDir, NewModel, QuerySide};
#[cfg(feature = "onnx")]
pub use onnx::{LIBRARY, OnnxModel, OnnxNetwork, OnnxOptions, POOLING_KEY, load_onnx_runtime, pool};
pub use pooling::{Pooling, PoolingActivation, SpladePooling};
pub use query::{QueryEncoder, QueryWeights};
pub use ranking::{Hit, Ranking};
pub use vector::{SparseVector, VectorError};
pub use vocabulary::Vocabulary;
