//! The [`Encoder`] contract: texts in, sparse vectors out.

use crate::{Result, SparseVector};

/// Turns texts into sparse vectors over one vocabulary.
///
/// Implemented by the static query table and by a document encoder over
/// any network: ONNX Runtime here, Candle in the trainer. Parity, evaluation and indexing are written against this
/// trait, once.
pub trait Encoder: Send + Sync {
    /// The number of dimensions of its vectors: the vocabulary size of the model.
    fn dimensions(&self) -> usize;

    /// One vector per text, in the order given. What else is in the slice must not change a text's vector beyond the
    /// rounding of floats.
    ///
    /// # Errors
    /// A tokenizer or network that fails.
    fn encode(&self, texts: &[&str]) -> Result<Vec<SparseVector>>;
}
