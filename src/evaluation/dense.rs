//! [`DenseTexts`]: dense vectors of the texts of a task, beside the sparse ones.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use splade_core::SparseVector;
use splade_core::dense::DenseVector;
use splade_eval::Task;
use splade_files::EncodedWriter;
use splade_index::{DenseSettings, StoredDocument, Vectors};

use super::cache::{VectorCache, append, fingerprint, finish};
use super::facts::DenseFacts;
use super::prepared::TemporaryIndex;
use super::side::{CHANGED, Lengths, Notes, Survey, broken};
use super::watch::Watch;
use crate::cli::Role;
use crate::commands::interrupt;
use crate::dense::DenseModel;

/// Documents that are encoded at a time: enough to sort by length, few enough to hold.
const BLOCK: usize = 512;

/// Dense model of an evaluation, with the cache of its vectors.
pub(crate) struct CachedDense<'a> {
    model: &'a DenseModel,
    cache: VectorCache,
    /// fingerprint of all that decides a vector but the text and its role
    fingerprint: String,
}

impl<'a> CachedDense<'a> {
    /// A model whose vectors are kept in `cache` by `fingerprint`.
    pub(crate) fn new(model: &'a DenseModel, cache: VectorCache, fingerprint: String) -> Self {
        Self { model, cache, fingerprint }
    }
}

/// Documents that wait for their dense vectors, and the vectors of both sides.
pub(super) struct DenseTexts<'a> {
    model: &'a DenseModel,
    queries: Source<'a>,
    documents: Source<'a>,
    waiting: Vec<(StoredDocument, SparseVector)>,
    time: Duration,
}

impl<'a> DenseTexts<'a> {
    /// Texts of a task. `survey` is that of its corpus.
    pub(super) fn new(dense: &'a CachedDense<'_>, task: &Task, survey: &Survey) -> Result<Self> {
        Ok(Self {
            model: dense.model,
            queries: Source::open(dense, Role::Query, task, &Survey::of_queries(task))?,
            documents: Source::open(dense, Role::Document, task, survey)?,
            waiting: Vec::new(),
            time: Duration::ZERO,
        })
    }

    /// Settings of an index with the vectors.
    pub(super) fn settings(&self) -> Result<DenseSettings> {
        Ok(self.model.settings_of(u32::try_from(self.documents.notes.dimensions)?))
    }

    /// Vectors of all queries, in their order.
    pub(super) fn queries(&mut self, texts: &[&str]) -> Result<Vec<DenseVector>> {
        let start = Instant::now();
        let vectors = self.queries.vectors(texts)?;
        self.time += start.elapsed();
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

    /// Adds the documents that wait, with their vectors.
    pub(super) fn flush(&mut self, indexes: &mut [TemporaryIndex]) -> Result<()> {
        interrupt::check()?;
        let waiting = std::mem::take(&mut self.waiting);
        let texts: Vec<_> = waiting.iter().map(|(document, _)| document.full_text()).collect();
        let texts: Vec<&str> = texts.iter().map(|text| text.trim()).collect();
        let start = Instant::now();
        let vectors = self.documents.vectors(&texts)?;
        self.time += start.elapsed();
        for ((document, sparse), dense) in waiting.iter().zip(&vectors) {
            let vectors = Vectors { sparse, dense: Some(dense) };
            indexes.iter_mut().try_for_each(|index| index.writer.add(document, vectors))?;
        }
        Ok(())
    }

    /// Seconds that the vectors took.
    pub(super) fn seconds(&self) -> f64 {
        self.time.as_secs_f64()
    }

    /// Keeps the vectors in the cache and returns the facts about them.
    ///
    /// # Errors
    /// Vectors of a side that mean nothing.
    pub(super) fn finish(self) -> Result<DenseFacts> {
        let model = self.settings()?.model_fingerprint;
        let (queries, query_notes) = self.queries.finish()?;
        let (documents, document_notes) = self.documents.finish()?;
        Ok(DenseFacts {
            dimensions: document_notes.dimensions,
            queries,
            documents,
            truncated: query_notes.truncated + document_notes.truncated,
            empty: query_notes.empty + document_notes.empty,
            backend: document_notes.backend,
            model,
        })
    }
}

/// Vectors of one role: from the cache, or from the model and then into the cache.
struct Source<'a> {
    model: &'a DenseModel,
    role: Role,
    /// name of the task, for messages
    task: String,
    /// number of texts so far
    count: u64,
    notes: Notes,
    from: Origin,
}

/// Place of the vectors of a [`Source`].
enum Origin {
    Cache(Box<dyn Iterator<Item = splade_files::Result<DenseVector>>>),
    Model(Box<FromModel>),
}

/// Vectors that the model makes.
struct FromModel {
    lengths: Option<Lengths>,
    watch: Watch<DenseVector>,
    /// entry of the cache, while it can be written
    writer: Option<EncodedWriter<DenseVector>>,
}

impl<'a> Source<'a> {
    fn open(dense: &'a CachedDense<'_>, role: Role, task: &Task, survey: &Survey) -> Result<Self> {
        let (model, task) = (dense.model, task.data.identity.name.clone());
        let parts =
            [("encoder", dense.fingerprint.as_str()), ("role", name(role)), ("texts", survey.fingerprint.as_str())];
        let key = fingerprint("splade dense texts 1", &parts);
        let found = dense.cache.open::<DenseVector, Notes>(&key).filter(|(texts, _)| texts.len() == survey.count);
        if let Some((texts, notes)) = found {
            tracing::info!("{task}: {} dense {} vectors are from the cache", survey.count, name(role));
            return Ok(Self { model, role, task, count: 0, notes, from: Origin::Cache(Box::new(texts.vectors()?)) });
        }
        let notes = Notes { dimensions: model.dimensions()?, backend: "onnx".to_owned(), ..Notes::default() };
        let lengths = match role {
            Role::Query => model.query_lengths()?,
            Role::Document => model.document_lengths()?,
        };
        let made = FromModel { lengths, watch: Watch::default(), writer: dense.cache.create(&key) };
        let from = Origin::Model(Box::new(made));
        Ok(Self { model, role, task, count: 0, notes, from })
    }

    /// Vectors of the next texts.
    fn vectors(&mut self, texts: &[&str]) -> Result<Vec<DenseVector>> {
        self.count += texts.len() as u64;
        let FromModel { lengths, watch, writer } = match &mut self.from {
            Origin::Cache(vectors) => {
                let vectors = vectors.take(texts.len()).collect::<Result<Vec<_>, _>>()?;
                let is_complete = vectors.len() == texts.len();
                return is_complete.then_some(vectors).context(CHANGED);
            }
            Origin::Model(made) => made.as_mut(),
        };
        let vectors = match self.role {
            Role::Query => self.model.queries(texts)?,
            Role::Document => self.model.documents(texts)?,
        };
        for (text, vector) in texts.iter().zip(&vectors) {
            self.notes.empty += u64::from(text.trim().is_empty());
            self.notes.truncated += u64::from(lengths.as_ref().map_or(Ok(false), |lengths| lengths.truncates(text))?);
            watch.add_dense(text, vector);
            *writer = append(writer.take(), vector);
        }
        Ok(vectors)
    }

    /// Number of texts, and the notes about them.
    fn finish(self) -> Result<(u64, Notes)> {
        if let Origin::Model(made) = self.from {
            let FromModel { watch, writer, .. } = *made;
            if let Some(sign) = watch.sign() {
                let hint = "is it a trained dense encoder, and does its ONNX file belong to it?";
                return Err(broken(&self.task, &format!("dense {}", name(self.role)), sign, hint));
            }
            finish(writer, &self.notes);
        }
        Ok((self.count, self.notes))
    }
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Query => "query",
        Role::Document => "document",
    }
}
