//! [`Task`], read from a folder, and [`EncodedTask`], with encoded queries.

use std::collections::BTreeSet;
use std::path::Path;

use splade_core::dense::DenseVector;
use splade_core::{EncodedQuery, Encoder, SparseVector, SparsityStats, encode_stream};
use splade_files::{Document, Query};

use crate::error::{Error, Result};
use crate::qrels::Qrels;
use crate::task_data::{JudgedQueries, TaskData};

/// Judgements and queries of a data folder in memory; the corpus is read while it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// files and names
    pub data: TaskData,
    /// judgements and queries
    pub judged: JudgedQueries,
}

impl Task {
    /// Opens the tasks in `folder`, one per subset, as [`TaskData::open`] finds them.
    ///
    /// # Errors
    /// As [`TaskData::open`] and [`TaskData::judged_queries`].
    pub fn open(folder: &Path, split: Option<&str>) -> Result<Vec<Self>> {
        let read = |data: TaskData| Ok(Self { judged: data.judged_queries()?, data });
        TaskData::open(folder, split)?.into_iter().map(read).collect()
    }

    /// Judged queries with a relevant document.
    pub fn relevant_queries(&self) -> impl Iterator<Item = &Query> {
        self.judged.queries.iter().filter(|query| self.judged.qrels.relevant_count(&query.id) > 0)
    }

    /// Encodes the queries, then the corpus as a stream. Calls `keep` with each document and its vector.
    ///
    /// # Errors
    /// A corpus that cannot be read, is empty or has a duplicate id; an encoder or `keep` that fails.
    pub fn encode<E: From<Error> + From<splade_core::Error>>(
        &self,
        query_encoder: &dyn Encoder,
        document_encoder: &dyn Encoder,
        mut keep: impl FnMut(Document, SparseVector) -> std::result::Result<(), E>,
    ) -> std::result::Result<EncodedTask, E> {
        let data = &self.data;
        let mut task = EncodedTask::new(&data.identity.name, self.judged.qrels.clone(), document_encoder.dimensions());
        task.ignore_identical_ids(data.ignore_identical_ids);
        let texts: Vec<&str> = self.judged.queries.iter().map(|query| query.text.as_str()).collect();
        for (query, vector) in self.judged.queries.iter().zip(query_encoder.encode(&texts)?) {
            task.add_query(&query.id, &query.text, vector);
        }
        let text = |document: &Document| document.full_text().trim().to_owned();
        let documents = data.documents().map(|document| document.map_err(E::from));
        encode_stream(document_encoder, documents, text, |document, vector| {
            if !task.add_document(&document.id, &vector) {
                return Err(data.duplicate_document(&document.id).into());
            }
            keep(document, vector)
        })?;
        if task.document_count() == 0 {
            return Err(Error::invalid(format!("{}: its corpus has no documents", data.identity.name), "").into());
        }
        Ok(task)
    }
}

/// A judged query and its vector.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskQuery {
    /// id in the qrels
    pub id: String,
    /// text, for BM25
    pub text: String,
    /// vector, for retrievers over vectors
    pub vector: SparseVector,
    /// dense vector, for retrievers over dense vectors: [`EncodedTask::set_dense`]
    pub dense: Option<DenseVector>,
}

impl TaskQuery {
    /// Text and vector for a retriever.
    #[must_use]
    pub fn encoded(&self) -> EncodedQuery<'_> {
        EncodedQuery { text: &self.text, vector: &self.vector, dense: self.dense.as_ref() }
    }
}

/// Judgements, encoded queries, and ids and statistics of the corpus of a task. The documents are in the retriever under
/// evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedTask {
    name: String,
    qrels: Qrels,
    queries: Vec<TaskQuery>,
    dimensions: usize,
    document_ids: BTreeSet<String>,
    document_stats: SparsityStats,
    ignore_identical_ids: bool,
}

impl EncodedTask {
    /// A task without queries and documents; `dimensions` is the vocabulary size.
    #[must_use]
    pub fn new(name: impl Into<String>, qrels: Qrels, dimensions: usize) -> Self {
        Self {
            name: name.into(),
            qrels,
            queries: Vec::new(),
            dimensions,
            document_ids: BTreeSet::new(),
            document_stats: SparsityStats::new(dimensions),
            ignore_identical_ids: false,
        }
    }

    /// Adds a query, unless it has no judgements.
    pub fn add_query(&mut self, id: &str, text: &str, vector: SparseVector) {
        if self.qrels.judgements(id).is_some() {
            self.queries.push(TaskQuery { id: id.to_owned(), text: text.to_owned(), vector, dense: None });
        }
    }

    /// Sets the dense vectors of the queries: a function of their texts, which is called once with all of them.
    ///
    /// # Errors
    /// The error of `encode`.
    pub fn set_dense<E>(
        &mut self,
        encode: impl FnOnce(&[&str]) -> std::result::Result<Vec<DenseVector>, E>,
    ) -> std::result::Result<(), E> {
        let texts: Vec<&str> = self.queries.iter().map(|query| query.text.as_str()).collect();
        let vectors = encode(&texts)?;
        self.queries.iter_mut().zip(vectors).for_each(|(query, vector)| query.dense = Some(vector));
        Ok(())
    }

    /// Counts a document of the corpus. Returns false for a duplicate id.
    #[must_use]
    pub fn add_document(&mut self, id: &str, vector: &SparseVector) -> bool {
        self.document_stats.add(vector);
        self.document_ids.insert(id.to_owned())
    }

    /// Counts a document of the corpus with the vectors of its passages. Returns false for a duplicate id.
    #[must_use]
    pub fn add_passages<'v>(&mut self, id: &str, vectors: impl IntoIterator<Item = &'v SparseVector>) -> bool {
        vectors.into_iter().for_each(|vector| self.document_stats.add(vector));
        self.document_ids.insert(id.to_owned())
    }

    /// Sets whether a document with the query's own id is left out of mteb's run.
    pub fn ignore_identical_ids(&mut self, ignore: bool) {
        self.ignore_identical_ids = ignore;
    }

    /// Name of the task.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Judgements.
    #[must_use]
    pub fn qrels(&self) -> &Qrels {
        &self.qrels
    }

    /// Judged queries.
    #[must_use]
    pub fn queries(&self) -> &[TaskQuery] {
        &self.queries
    }

    /// Vocabulary size.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Ids of the corpus, ascending.
    pub fn document_ids(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.document_ids.iter().map(String::as_str)
    }

    /// Number of documents.
    #[must_use]
    pub fn document_count(&self) -> usize {
        self.document_ids.len()
    }

    /// Sparsity of the query vectors.
    #[must_use]
    pub fn query_stats(&self) -> SparsityStats {
        SparsityStats::of(self.dimensions, self.queries.iter().map(|query| &query.vector))
    }

    /// Sparsity of the document vectors; of those of passages where documents have them.
    #[must_use]
    pub fn document_stats(&self) -> &SparsityStats {
        &self.document_stats
    }

    /// True if a document with the query's own id is left out of mteb's run.
    #[must_use]
    pub fn ignores_identical_ids(&self) -> bool {
        self.ignore_identical_ids
    }

    /// Number of relevant documents of the queries that the corpus lacks; they count as not found.
    #[must_use]
    pub fn missing_relevant(&self) -> usize {
        let judged = self.queries.iter().filter_map(|query| self.qrels.judgements(&query.id));
        judged.flatten().filter(|(id, grade)| **grade > 0 && !self.document_ids.contains(*id)).count()
    }
}
