//! Sparse vectors in requests and answers.

use serde::{Deserialize, Serialize};
use splade_core::SparseVector;
use utoipa::ToSchema;

use crate::server::problem::{Answered, Problem};

/// Sparse vector: dimensions and their weights.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VectorBody {
    /// dimensions, each once, in any order
    pub(crate) indices: Vec<u32>,
    /// weight of each dimension, a finite number
    pub(crate) values: Vec<f32>,
}

impl VectorBody {
    /// The vector, for an index of `vocabulary_size` terms. `pointer` is its place in the body.
    ///
    /// # Errors
    /// Lists of different lengths, more than `most` terms, a dimension that is repeated or beyond the vocabulary, a weight that
    /// is not finite.
    pub(crate) fn parse(&self, most: usize, vocabulary_size: u32, pointer: &str) -> Answered<SparseVector> {
        let (indices, values) = (self.indices.len(), self.values.len());
        if indices != values {
            let detail = format!("{indices} indices and {values} values: one of each is needed for a term");
            return Err(Problem::invalid(format!("{pointer}/values"), detail));
        }
        if indices > most {
            return Err(Problem::invalid(format!("{pointer}/indices"), format!("{indices} terms, more than {most}")));
        }
        if let Some(at) = self.indices.iter().position(|dim| *dim >= vocabulary_size) {
            let detail = format!("the vocabulary of the index has {vocabulary_size} terms");
            return Err(Problem::invalid(format!("{pointer}/indices/{at}"), detail));
        }
        let pairs = self.indices.iter().copied().zip(self.values.iter().copied());
        SparseVector::from_pairs(pairs).map_err(|error| Problem::invalid(pointer, error.to_string()))
    }
}

impl From<&SparseVector> for VectorBody {
    fn from(vector: &SparseVector) -> Self {
        Self { indices: vector.dims().to_vec(), values: vector.weights().to_vec() }
    }
}
