//! Documents as an index takes them: encoded whole or in passages, with dense vectors, pruned. `index` and `serve` write the same.

use anyhow::Result;
use splade_core::dense::DenseVector;
use splade_core::{DocumentEncoder, Encoder, PassageLength, Pruning, SparseVector, encode_stream, encode_stream_by};
use splade_files::Document;
use splade_index::{ImpactWriter, StoredDocument};

use crate::dense::DenseModel;
use crate::passages::{Vectors, gathered, pieces};

/// Encoders of the documents of an index.
#[derive(Clone, Copy)]
pub(crate) struct Encoders<'a> {
    /// none if the documents have sparse vectors already
    pub(crate) sparse: Option<&'a DocumentEncoder>,
    /// none without dense vectors
    pub(crate) dense: Option<&'a DenseModel>,
    /// length of passages; none if documents are not split
    pub(crate) passages: Option<PassageLength>,
}

/// Vectors that were computed from the text of a document.
#[derive(Default)]
pub(crate) struct Encoded {
    sparse: Option<Vectors>,
    dense: Option<DenseVector>,
}

impl Encoded {
    /// Sparse vector of the whole text; none of a text that was split or not encoded.
    #[cfg(feature = "serve")]
    pub(crate) fn into_whole(self) -> Option<SparseVector> {
        match self.sparse {
            Some(Vectors::Whole(vector)) => Some(vector),
            _ => None,
        }
    }
}

impl From<Vectors> for Encoded {
    fn from(sparse: Vectors) -> Self {
        Self { sparse: Some(sparse), dense: None }
    }
}

impl Encoders<'_> {
    /// Encodes the documents of a stream and calls `sink` with each and its vectors, in their order.
    ///
    /// # Errors
    /// The first error of the stream, an encoder or `sink`.
    pub(crate) fn encode<T>(
        &self,
        mut items: impl Iterator<Item = Result<T>>,
        text: impl Fn(&T) -> String,
        mut sink: impl FnMut(T, Encoded) -> Result<()>,
    ) -> Result<()> {
        match (self.sparse, self.dense) {
            (None, None) => items.try_for_each(|item| sink(item?, Encoded::default())),
            (Some(encoder), None) => {
                encode_documents(encoder, self.passages, items, text, |item, vectors| sink(item, vectors.into()))
            }
            (encoder, Some(dense)) => encode_stream_by(|texts| encode_whole(encoder, dense, texts), items, text, sink),
        }
    }
}

/// Vectors of whole texts by a dense model, and by the encoder of sparse vectors if there is one.
fn encode_whole(encoder: Option<&DocumentEncoder>, dense: &DenseModel, texts: &[&str]) -> Result<Vec<Encoded>> {
    let sparse = match encoder {
        Some(encoder) => encoder.encode(texts)?.into_iter().map(|vector| Some(Vectors::Whole(vector))).collect(),
        None => texts.iter().map(|_| None).collect::<Vec<_>>(),
    };
    let dense = dense.documents(texts)?.into_iter().map(Some);
    Ok(sparse.into_iter().zip(dense).map(|(sparse, dense)| Encoded { sparse, dense }).collect())
}

/// Encodes the documents of a stream, split if there is a length, and calls `sink` with each and its vectors, in their order.
fn encode_documents<T>(
    encoder: &DocumentEncoder,
    length: Option<PassageLength>,
    items: impl Iterator<Item = Result<T>>,
    text: impl Fn(&T) -> String,
    mut sink: impl FnMut(T, Vectors) -> Result<()>,
) -> Result<()> {
    let Some(length) = length else {
        return encode_stream(encoder, items, text, |item, vector| sink(item, Vectors::Whole(vector)));
    };
    let splitter = encoder.passage_splitter(length)?;
    encode_stream(encoder, pieces(&splitter, items, text), |piece| piece.text.clone(), gathered(sink))
}

/// Document with its vectors, as an index keeps them.
pub(crate) struct Row {
    document: StoredDocument,
    sparse: Vectors,
    dense: Option<DenseVector>,
}

impl Row {
    /// Row of a document with the vectors that its text was encoded to. The `given` vector is that of a document which was not
    /// encoded. Each vector is pruned.
    pub(crate) fn new(document: Document, encoded: Encoded, given: Option<SparseVector>, pruning: &Pruning) -> Self {
        let sparse = encoded.sparse.unwrap_or_else(|| Vectors::Whole(given.unwrap_or_default()));
        let document = StoredDocument {
            id: document.id,
            title: Some(document.title).filter(|title| !title.is_empty()),
            text: document.text,
            other: document.fields,
        };
        Self { document, sparse: sparse.map(|vector| pruning.apply(vector)), dense: encoded.dense }
    }

    /// Adds the document, whose id is new.
    ///
    /// # Errors
    /// Those of [`ImpactWriter::add`] and [`ImpactWriter::add_passages`].
    pub(crate) fn add(&self, writer: &mut ImpactWriter) -> splade_index::Result<()> {
        match &self.sparse {
            Vectors::Whole(sparse) => {
                writer.add(&self.document, splade_index::Vectors { sparse, dense: self.dense.as_ref() })
            }
            Vectors::Passages(passages) => writer.add_passages(&self.document, passages),
        }
    }

    /// Adds the document in place of the one of its id, if there is one.
    ///
    /// # Errors
    /// Those of [`ImpactWriter::update`] and [`ImpactWriter::update_passages`].
    #[cfg(feature = "serve")]
    pub(crate) fn update(&self, writer: &mut ImpactWriter) -> splade_index::Result<()> {
        match &self.sparse {
            Vectors::Whole(sparse) => {
                writer.update(&self.document, splade_index::Vectors { sparse, dense: self.dense.as_ref() })
            }
            Vectors::Passages(passages) => writer.update_passages(&self.document, passages),
        }
    }
}
