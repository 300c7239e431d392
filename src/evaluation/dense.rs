//! [`DenseTexts`]: dense vectors of the texts of a task, beside the sparse ones.

use std::time::{Duration, Instant};

use anyhow::Result;
use splade_core::SparseVector;
use splade_core::dense::DenseVector;
use splade_index::{StoredDocument, Vectors};

use super::TemporaryIndex;
use super::facts::DenseFacts;
use super::side::Lengths;
use crate::commands::interrupt;
use crate::dense::DenseModel;

/// Documents that are encoded at a time: enough to sort by length, few enough to hold.
const BLOCK: usize = 512;

/// Documents that wait for their dense vectors, and the facts about those that were encoded.
pub(super) struct DenseTexts<'a> {
    model: &'a DenseModel,
    waiting: Vec<(StoredDocument, SparseVector)>,
    queries: u64,
    documents: u64,
    truncated: u64,
    empty: u64,
    time: Duration,
}

impl<'a> DenseTexts<'a> {
    /// Texts for a model.
    pub(super) fn new(model: &'a DenseModel) -> Self {
        Self { model, waiting: Vec::new(), queries: 0, documents: 0, truncated: 0, empty: 0, time: Duration::ZERO }
    }

    /// Vectors of queries.
    pub(super) fn queries(&mut self, texts: &[&str]) -> Result<Vec<DenseVector>> {
        let start = Instant::now();
        let vectors = self.model.queries(texts)?;
        self.time += start.elapsed();
        self.queries += texts.len() as u64;
        self.note(texts, self.model.query_lengths()?.as_ref())?;
        Ok(vectors)
    }

    /// Adds a document to the indexes, once it has its dense vector.
    pub(super) fn push(
        &mut self,
        document: StoredDocument,
        vector: SparseVector,
        indexes: &mut [TemporaryIndex],
    ) -> Result<()> {
        self.waiting.push((document, vector));
        if self.waiting.len() < BLOCK { Ok(()) } else { self.flush(indexes) }
    }

    /// Encodes and adds the documents that wait.
    pub(super) fn flush(&mut self, indexes: &mut [TemporaryIndex]) -> Result<()> {
        interrupt::check()?;
        let waiting = std::mem::take(&mut self.waiting);
        let texts: Vec<_> = waiting.iter().map(|(document, _)| document.full_text()).collect();
        let texts: Vec<&str> = texts.iter().map(|text| text.trim()).collect();
        let start = Instant::now();
        let vectors = self.model.documents(&texts)?;
        self.time += start.elapsed();
        self.documents += texts.len() as u64;
        self.note(&texts, self.model.document_lengths()?.as_ref())?;
        for ((document, sparse), dense) in waiting.iter().zip(&vectors) {
            let vectors = Vectors { sparse, dense: Some(dense) };
            indexes.iter_mut().try_for_each(|index| index.writer.add(document, vectors))?;
        }
        Ok(())
    }

    fn note(&mut self, texts: &[&str], lengths: Option<&Lengths>) -> Result<()> {
        for text in texts {
            self.empty += u64::from(text.trim().is_empty());
            self.truncated += u64::from(lengths.map_or(Ok(false), |lengths| lengths.truncates(text))?);
        }
        Ok(())
    }

    /// Seconds that the model took.
    pub(super) fn seconds(&self) -> f64 {
        self.time.as_secs_f64()
    }

    /// Facts about all vectors.
    pub(super) fn facts(self) -> Result<DenseFacts> {
        let settings = self.model.settings()?;
        Ok(DenseFacts {
            dimensions: settings.dimensions as usize,
            queries: self.queries,
            documents: self.documents,
            truncated: self.truncated,
            empty: self.empty,
            backend: "onnx".to_owned(),
            model: settings.model_fingerprint,
        })
    }
}
