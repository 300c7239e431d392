//! Documents as rows of tantivy, their ids and vectors checked.

use std::borrow::Cow;
use std::ops::Range;

use splade_core::SparseVector;
use splade_core::dense::DenseVector;
use splade_core::segment::ForwardPrecision;
use tantivy::TantivyDocument;

use super::{ImpactWriter, Vectors};
use crate::{Error, Result, StoredDocument};

impl ImpactWriter {
    /// The document as tantivy takes it, its vectors checked.
    pub(super) fn prepare(&mut self, document: &StoredDocument, vectors: Vectors<'_>) -> Result<TantivyDocument> {
        let title = document.title.as_ref().map_or(0, |title| title.len() + 1);
        self.prepare_head(document, vectors, &(0..title + document.text.len()))
    }

    /// The row of a document whose vectors are those of `range` of its text.
    fn prepare_head(
        &mut self,
        document: &StoredDocument,
        vectors: Vectors<'_>,
        range: &Range<usize>,
    ) -> Result<TantivyDocument> {
        if document.id.is_empty() || document.id.len() > LONGEST_ID {
            let message = format!("a document has an id of {} bytes", document.id.len());
            return Err(Error::invalid(message, format!("ids have 1 to {LONGEST_ID} bytes")));
        }
        self.expect_dense(&document.id, vectors.dense)?;
        let vector = self.accept(&document.id, vectors.sparse)?;
        let (mut row, left_out) = self.fields.to_tantivy(document, &vector, vectors.dense)?;
        self.counts.unindexed_values += left_out;
        if let Some(fields) = &self.fields.passages {
            fields.set(&mut row, 0, range);
        }
        Ok(row)
    }

    /// Refuses a dense vector that the index cannot hold, and a missing one that it needs.
    fn expect_dense(&self, id: &str, vector: Option<&DenseVector>) -> Result<()> {
        let expected = self.settings.dense.as_ref().map(|dense| dense.dimensions as usize);
        let (message, hint) = match (expected, vector.map(DenseVector::dimensions)) {
            (expected, found) if expected == found => return Ok(()),
            (Some(_), None) => (format!("document {id} has no dense vector"), "every document of the index needs one"),
            (None, _) => (format!("document {id} has a dense vector"), "the index was made without dense vectors"),
            (Some(expected), Some(found)) => (
                format!("document {id}: a dense vector of {found} dimensions, the index has {expected}"),
                "the vectors must come from the dense model of the index",
            ),
        };
        Err(Error::invalid(message, hint))
    }

    /// The rows of a document's passages: the first with everything, the others with the id and a vector.
    pub(super) fn prepare_passages(
        &mut self,
        document: &StoredDocument,
        passages: &[(Range<usize>, SparseVector)],
    ) -> Result<Vec<TantivyDocument>> {
        let Some(fields) = self.fields.passages else {
            return Err(Error::file(self.directory.path(), "the index was made without passages"));
        };
        let [(range, vector), others @ ..] = passages else {
            let message = format!("document {}: it has no passage", document.id);
            return Err(Error::invalid(message, "an empty text is one passage"));
        };
        let mut rows = vec![self.prepare_head(document, vector.into(), range)?];
        for (number, (range, vector)) in (1..).zip(others) {
            let vector = self.accept(&document.id, vector)?;
            let mut row = self.fields.passage_row(&document.id, &vector);
            fields.set(&mut row, number, range);
            rows.push(row);
        }
        Ok(rows)
    }

    /// The vector as the index keeps it: inside the vocabulary, positive, rounded.
    fn accept<'v>(&mut self, id: &str, vector: &'v SparseVector) -> Result<Cow<'v, SparseVector>> {
        let size = self.settings.vocabulary_size;
        if let Some(dim) = vector.dims().last().filter(|dim| **dim >= size) {
            let message = format!("document {id}: index {dim} is beyond the vocabulary of {size}");
            return Err(Error::invalid(message, "the vectors must come from the model of the index"));
        }
        let precision = self.settings.forward;
        if precision == ForwardPrecision::F32 && vector.weights().iter().all(|weight| *weight > 0.0) {
            return Ok(Cow::Borrowed(vector));
        }
        self.counts.clipped_weights +=
            vector.weights().iter().filter(|weight| precision.is_beyond(**weight)).count() as u64;
        let kept = vector.iter().map(|(dim, weight)| (dim, precision.round(weight)));
        let kept = SparseVector::from_pairs(kept.filter(|(_, weight)| *weight > 0.0))
            .map_err(|source| splade_core::Error::Vector { of: format!("document {id}"), source })?;
        self.counts.dropped_weights += (vector.active_dims() - kept.active_dims()) as u64;
        Ok(Cow::Owned(kept))
    }
}

/// Largest length of an id in bytes. tantivy drops longer terms without an error.
const LONGEST_ID: usize = 4096;
