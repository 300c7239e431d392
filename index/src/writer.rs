//! Documents and their vectors into segments.

use std::collections::HashSet;

use serde_json::{Map, Value as Json};
use tantivy::indexer::{NoMergePolicy, UserOperation};
use tantivy::{IndexWriter, TantivyDocument};

use crate::schema::Fields;
use crate::settings::IndexSettings;
use crate::{Error, Result};
use crate::{ImpactIndex, Searcher};
use splade_core::SparseVector;

/// A document as it goes in and comes back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredDocument {
    /// its external id, not empty
    pub id: String,
    /// its title, if it has one
    pub title: Option<String>,
    /// its text
    pub text: String,
    /// all its other fields
    pub other: Map<String, Json>,
}

/// How much a writer may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterOptions {
    /// indexing threads, 1 to 8
    pub threads: usize,
    /// bytes of memory for all threads together before a segment is written; at least 15 MB a thread
    pub memory_bytes: usize,
    /// whether segments are merged in the background as they accumulate
    pub merge: bool,
}

impl Default for WriterOptions {
    /// One thread (encoding is what takes the time), 256 MB.
    fn default() -> Self {
        Self { threads: 1, memory_bytes: 256 << 20, merge: true }
    }
}

/// What went in since the writer was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// documents added or updated
    pub documents: u64,
    /// ids given to [`ImpactWriter::delete`]
    pub deletes: u64,
    /// weights left out because they were zero or negative (or too small for f16)
    pub dropped_weights: u64,
}

/// Adds, updates and deletes documents. There is one writer an index at a time; nothing shows to searchers before
/// [`commit`](Self::commit), and what was not committed is gone when the writer is dropped or the process dies.
pub struct ImpactWriter {
    writer: IndexWriter,
    fields: Fields,
    settings: IndexSettings,
    counts: WriteCounts,
    /// the index when the writer was opened, to find ids that are taken
    before: Searcher,
    added: HashSet<String>,
    deleted: HashSet<String>,
}

impl ImpactWriter {
    pub(crate) fn open(index: &ImpactIndex, options: WriterOptions) -> Result<Self> {
        let threads = options.threads.clamp(1, 8);
        let memory = options.memory_bytes.clamp(threads * MIN_MEMORY_PER_THREAD, threads * MAX_MEMORY_PER_THREAD);
        let writer: IndexWriter = index.tantivy().writer_with_num_threads(threads, memory)?;
        index.remove_leftovers()?;
        if !options.merge {
            writer.set_merge_policy(Box::new(NoMergePolicy));
        }
        Ok(Self {
            writer,
            fields: index.fields(),
            settings: index.settings().clone(),
            counts: WriteCounts::default(),
            before: index.searcher()?,
            added: HashSet::new(),
            deleted: HashSet::new(),
        })
    }

    /// Adds a document whose id is new.
    ///
    /// Weights that are zero or negative are left out and counted: an encoder's ReLU makes none.
    ///
    /// # Errors
    /// An id that is empty or taken, in the index or by this writer; a dimension beyond the vocabulary; in an f16
    /// index a weight beyond f16. The document's id is in the message, and the writer goes on working.
    pub fn add(&mut self, document: &StoredDocument, vector: &SparseVector) -> Result<()> {
        let row = self.prepare(document, vector)?;
        if self.is_taken(&document.id)? {
            let message = format!("document {}: its id is in the index already", document.id);
            return Err(Error::invalid(message, "ids must be unique; update replaces a document"));
        }
        self.writer.add_document(row)?;
        self.counted(&document.id);
        Ok(())
    }

    /// Replaces the document of this id, or adds it if there is none. Of several updates of one id the last wins.
    ///
    /// # Errors
    /// As [`add`](Self::add), but for ids that are taken.
    pub fn update(&mut self, document: &StoredDocument, vector: &SparseVector) -> Result<()> {
        let row = self.prepare(document, vector)?;
        let delete = UserOperation::Delete(self.fields.id_term(&document.id));
        self.writer.run([delete, UserOperation::Add(row)])?;
        self.counted(&document.id);
        Ok(())
    }

    /// Deletes the document of this id, if there is one: in the index, or added before by this writer.
    pub fn delete(&mut self, id: &str) {
        self.writer.delete_term(self.fields.id_term(id));
        self.added.remove(id);
        self.deleted.insert(id.to_owned());
        self.counts.deletes += 1;
    }

    /// Makes everything since the last commit visible and durable, at once.
    ///
    /// # Errors
    /// A disk that is full or fails; the index then stays at the last commit.
    pub fn commit(&mut self) -> Result<()> {
        self.writer.commit()?;
        Ok(())
    }

    /// Commits, waits for merges under way and closes the writer.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn finish(mut self) -> Result<WriteCounts> {
        self.commit()?;
        self.writer.wait_merging_threads()?;
        Ok(self.counts)
    }

    /// As [`finish`](Self::finish), and merges all segments into one: the fastest to search, without the room of
    /// deleted documents.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), or a segment that is damaged.
    pub fn finish_merged(self) -> Result<WriteCounts> {
        let index = self.writer.index().clone();
        let counts = self.finish()?;
        let metas = index.searchable_segment_metas()?;
        if metas.len() > 1 || metas.iter().any(|meta| meta.has_deletes()) {
            let mut writer: IndexWriter = index.writer_with_num_threads(1, MIN_MEMORY_PER_THREAD)?;
            writer.set_merge_policy(Box::new(NoMergePolicy));
            let ids: Vec<_> = metas.iter().map(|meta| meta.id()).collect();
            writer.merge(&ids).wait()?;
            writer.garbage_collect_files().wait()?;
            writer.wait_merging_threads()?;
        }
        Ok(counts)
    }

    /// What went in so far.
    #[must_use]
    pub fn counts(&self) -> WriteCounts {
        self.counts
    }

    fn is_taken(&self, id: &str) -> Result<bool> {
        Ok(self.added.contains(id) || (!self.deleted.contains(id) && self.before.find(id)?.is_some()))
    }

    fn counted(&mut self, id: &str) {
        self.added.insert(id.to_owned());
        self.counts.documents += 1;
    }

    /// The document as tantivy takes it, its vector checked.
    fn prepare(&mut self, document: &StoredDocument, vector: &SparseVector) -> Result<TantivyDocument> {
        if document.id.is_empty() || document.id.len() > LONGEST_ID {
            let message = format!("a document has an id of {} bytes", document.id.len());
            return Err(Error::invalid(message, format!("ids have 1 to {LONGEST_ID} bytes")));
        }
        let vector = self.accept(&document.id, vector)?;
        Ok(self.fields.to_tantivy(document, &vector))
    }

    /// The vector as the index keeps it: inside the vocabulary, positive.
    fn accept(&mut self, id: &str, vector: &SparseVector) -> Result<SparseVector> {
        let size = self.settings.vocabulary_size;
        if let Some(dim) = vector.dims().last().filter(|dim| **dim >= size) {
            let message = format!("document {id}: index {dim} is beyond the vocabulary of {size}");
            return Err(Error::invalid(message, "the vectors must come from the model of the index"));
        }
        let kept = vector.iter().map(|(dim, weight)| (dim, self.settings.forward.round(weight)));
        let kept = SparseVector::from_pairs(kept.filter(|(_, weight)| *weight > 0.0))
            .map_err(|source| splade_core::Error::Vector { of: format!("document {id}"), source })?;
        self.counts.dropped_weights += (vector.active_dims() - kept.active_dims()) as u64;
        Ok(kept)
    }
}

/// tantivy's own minimum.
const MIN_MEMORY_PER_THREAD: usize = 15_000_000;
/// A little under tantivy's own maximum.
const MAX_MEMORY_PER_THREAD: usize = 4_000_000_000;
/// tantivy drops longer terms without a word.
const LONGEST_ID: usize = 4096;
