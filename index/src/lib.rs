//! From text to ranking: sparse vectors, encoders for inference, the inverted index, its evaluation.

mod encoder;
mod error;
mod pooling;
mod ranking;
mod vector;

pub use encoder::Encoder;
pub use error::{Error, Result};
pub use pooling::{Pooling, PoolingActivation, SpladePooling};
pub use ranking::{Hit, Ranking};
pub use vector::{SparseVector, VectorError};
