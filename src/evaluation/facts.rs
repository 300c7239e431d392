//! [`Facts`]: sizes and sparsity of both sides of an evaluation, without which a score can mislead.

use serde::{Deserialize, Serialize};
use splade_core::{SparsityStats, flops};

use super::side::Notes;

/// Facts about the vectors that a task was evaluated on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) queries: SideFacts,
    pub(crate) documents: SideFacts,
    /// expected multiplications per query–document pair
    pub(crate) flops: f64,
    /// fingerprint of ids and texts of the corpus
    pub(crate) corpus_fingerprint: String,
    /// none without a dense model
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dense: Option<DenseFacts>,
}

/// Facts about the dense vectors that a task was evaluated on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DenseFacts {
    /// number of dimensions
    pub(crate) dimensions: usize,
    /// number of queries
    pub(crate) queries: u64,
    /// number of documents
    pub(crate) documents: u64,
    /// texts of both sides that are longer than the dense model reads
    pub(crate) truncated: u64,
    /// texts of both sides without text
    pub(crate) empty: u64,
    /// runtime of the network
    pub(crate) backend: String,
    /// fingerprint of the dense model
    pub(crate) model: String,
}

/// Facts about the vectors of one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SideFacts {
    /// number of texts
    pub(crate) texts: u64,
    /// number of passages that they were split into; none if they were not split
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) passages: Option<u64>,
    /// mean number of active dims of a vector
    pub(crate) active_dims: f64,
    /// 1 − mean active dims / vocabulary size
    pub(crate) sparsity_ratio: f64,
    /// texts longer than the encoder reads
    pub(crate) truncated: u64,
    /// texts without text
    pub(crate) empty: u64,
    /// runtime of the network, or `query table`; empty if nothing was encoded
    pub(crate) backend: String,
}

impl Facts {
    /// Facts of the vectors and the notes of both sides.
    pub(super) fn of(
        (queries, query_notes): (&SparsityStats, &Notes),
        (documents, document_notes): (&SparsityStats, &Notes),
        corpus_fingerprint: String,
    ) -> Self {
        Self {
            queries: SideFacts::of(queries, query_notes),
            documents: SideFacts::of(documents, document_notes),
            flops: flops(queries, documents),
            corpus_fingerprint,
            dense: None,
        }
    }
}

impl SideFacts {
    fn of(stats: &SparsityStats, notes: &Notes) -> Self {
        Self {
            texts: stats.count(),
            passages: None,
            active_dims: stats.mean_active_dims(),
            sparsity_ratio: stats.sparsity_ratio(),
            truncated: notes.truncated,
            empty: notes.empty,
            backend: notes.backend.clone(),
        }
    }
}
