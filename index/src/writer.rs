//! [`ImpactWriter`]: adds documents with their vectors, deletes, commits.

mod ending;
mod rows;

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use tantivy::directory::{Directory, INDEX_WRITER_LOCK};
use tantivy::indexer::{LogMergePolicy, NoMergePolicy, UserOperation};
use tantivy::{Index, IndexWriter, TantivyDocument, TantivyError};

use crate::delete::{Adopted, DeleteById};
use crate::directory::CheckedDirectory;
use crate::schema::Fields;
use crate::settings::IndexSettings;
use crate::snapshots::Snapshots;
use crate::{Error, Result};
use crate::{ImpactIndex, Searcher, StoredDocument};
use splade_core::SparseVector;
use splade_core::dense::DenseVector;
use splade_files::remove_leftovers;

/// Vectors of a document. In an index without dense vectors, a sparse vector is enough.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'v> {
    /// weights of the document
    pub sparse: &'v SparseVector,
    /// dense vector; required in an index with dense vectors, refused in others
    pub dense: Option<&'v DenseVector>,
}

impl<'v> From<&'v SparseVector> for Vectors<'v> {
    fn from(sparse: &'v SparseVector) -> Self {
        Self { sparse, dense: None }
    }
}

/// Threads and memory of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterOptions {
    /// indexing threads, 1 to 8
    pub threads: usize,
    /// bytes of memory for all threads together before a segment is written; at least 15 MB a thread
    pub memory_bytes: usize,
    /// true if segments are merged in the background as they accumulate
    pub merge: bool,
}

impl Default for WriterOptions {
    /// One thread (encoding is what takes the time), 256 MB.
    fn default() -> Self {
        Self { threads: 1, memory_bytes: 256 << 20, merge: true }
    }
}

/// Numbers of what was written since the writer was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// documents added or updated
    pub documents: u64,
    /// ids given to [`ImpactWriter::delete`]
    pub deletes: u64,
    /// weights left out because they were zero or negative (or too small for f16 or u8)
    pub dropped_weights: u64,
    /// weights above the largest one of an index with 8-bit weights, which take its place
    pub clipped_weights: u64,
    /// documents, per inferred field, with a value of another type, which filters on the field do not find
    pub unindexed_values: u64,
}

/// Adds, updates and deletes documents.
///
/// There is one writer an index at a time, in all processes. Nothing is visible to searchers before
/// [`commit`](Self::commit). What was not committed is removed when the writer is dropped, or by the next writer if the
/// process is killed. After a failed write, as on a full disk, the writer accepts nothing more and the last commit stays.
pub struct ImpactWriter {
    /// `None` once it is closed
    writer: Option<IndexWriter>,
    index: Index,
    directory: CheckedDirectory,
    fields: Fields,
    settings: IndexSettings,
    counts: WriteCounts,
    failed: bool,
    snapshots: Arc<Snapshots>,
    /// the last commit, to find ids that are taken
    committed: Searcher,
    /// ids added and deleted since the last commit; memory does not grow with the index
    added: HashSet<String>,
    deleted: HashSet<String>,
    adopted: Adopted,
    /// true if segments are merged in the background
    merge: bool,
}

impl ImpactWriter {
    pub(crate) fn open(index: &ImpactIndex, options: WriterOptions) -> Result<Self> {
        let directory = index.directory().clone();
        let threads = options.threads.clamp(1, 8);
        let memory = options.memory_bytes.clamp(threads * MIN_MEMORY_PER_THREAD, threads * MAX_MEMORY_PER_THREAD);
        let writer = open_writer(index.tantivy(), &directory, threads, memory)?;
        // from here on this process holds the lock
        index.upgrade()?;
        let parent = index.dir().parent().filter(|parent| !parent.as_os_str().is_empty());
        for folder in [parent.unwrap_or(Path::new(".")), index.dir(), directory.path()] {
            remove_leftovers(folder);
        }
        remove_dead_files(index.tantivy(), &directory)?;
        set_merge_policy(&writer, options.merge);
        Ok(Self {
            writer: Some(writer),
            index: index.tantivy().clone(),
            directory,
            fields: index.fields().clone(),
            settings: index.settings().clone(),
            counts: WriteCounts::default(),
            failed: false,
            snapshots: Arc::clone(index.snapshots()),
            committed: index.searcher()?,
            added: HashSet::new(),
            deleted: HashSet::new(),
            adopted: Adopted::default(),
            merge: options.merge,
        })
    }

    /// Adds a document whose id is new.
    ///
    /// Weights that are zero or negative are left out and counted; a trained encoder makes none.
    ///
    /// # Errors
    /// A dense vector where there is none, or none where there is one; an id that is empty; one that is taken, in the index or by this writer: [`Error::TakenId`]; a dimension beyond the
    /// vocabulary; in an f16 index a weight beyond f16: the message holds the id, and the writer can be used further. A disk
    /// that is full or fails: it cannot.
    pub fn add<'v>(&mut self, document: &StoredDocument, vectors: impl Into<Vectors<'v>>) -> Result<()> {
        let row = self.prepare(document, vectors.into())?;
        self.expect_new(&document.id)?;
        self.write(|writer| writer.add_document(row))?;
        self.counted(&document.id);
        Ok(())
    }

    /// Replaces the document of this id, or adds it if there is none. Of several updates of one id the last wins.
    ///
    /// # Errors
    /// As [`add`](Self::add), but for ids that are taken.
    pub fn update<'v>(&mut self, document: &StoredDocument, vectors: impl Into<Vectors<'v>>) -> Result<()> {
        let row = self.prepare(document, vectors.into())?;
        self.replace(&document.id, vec![row])
    }

    /// As [`update`](Self::update), for a document with the vectors of its passages, each with its bytes in the text that was
    /// encoded. The index must have been created for passages.
    ///
    /// # Errors
    /// As [`update`](Self::update); no passage; an index without passages.
    pub fn update_passages(
        &mut self,
        document: &StoredDocument,
        passages: &[(Range<usize>, SparseVector)],
    ) -> Result<()> {
        let rows = self.prepare_passages(document, passages)?;
        self.replace(&document.id, rows)
    }

    /// As [`add`](Self::add), for a document with the vectors of its passages: [`update_passages`](Self::update_passages).
    ///
    /// # Errors
    /// As [`add`](Self::add); no passage; an index without passages.
    pub fn add_passages(&mut self, document: &StoredDocument, passages: &[(Range<usize>, SparseVector)]) -> Result<()> {
        let rows = self.prepare_passages(document, passages)?;
        self.expect_new(&document.id)?;
        // one call, so that the rows stand in one segment, one after the other
        self.write(|writer| writer.run(rows.into_iter().map(UserOperation::Add).collect::<Vec<_>>()))?;
        self.counted(&document.id);
        Ok(())
    }

    fn replace(&mut self, id: &str, rows: Vec<TantivyDocument>) -> Result<()> {
        let delete = UserOperation::Delete(self.fields.id_term(id));
        let operations: Vec<_> = std::iter::once(delete).chain(rows.into_iter().map(UserOperation::Add)).collect();
        self.write(|writer| writer.run(operations))?;
        self.counted(id);
        Ok(())
    }

    fn expect_new(&self, id: &str) -> Result<()> {
        if self.is_taken(id)? {
            return Err(Error::TakenId { id: id.to_owned() });
        }
        Ok(())
    }

    /// Deletes the document of this id, if there is one: in the index, or added before by this writer.
    pub fn delete(&mut self, id: &str) {
        self.delete_term(id);
        self.added.remove(id);
        self.deleted.insert(id.to_owned());
        self.counts.deletes += 1;
    }

    fn delete_term(&self, id: &str) {
        if let Some(writer) = &self.writer {
            let query = DeleteById::new(self.fields.id_term(id), &self.adopted);
            // the query is by a field of the schema, so that it cannot fail
            let _ = writer.delete_query(Box::new(query));
        }
    }

    /// Makes everything since the last commit visible and durable, in one step.
    ///
    /// # Errors
    /// A disk that is full or fails, or a segment that is damaged; the index then stays at the last commit.
    pub fn commit(&mut self) -> Result<()> {
        self.commit_noting(None)
    }

    /// As [`commit`](Self::commit), and keeps a note with the commit, such as how far an input was read. [`ImpactIndex::note`]
    /// returns it until the next commit.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn commit_with_note(&mut self, note: &str) -> Result<()> {
        self.commit_noting(Some(note))
    }

    fn commit_noting(&mut self, note: Option<&str>) -> Result<()> {
        let merge = self.merge;
        self.write(|writer| {
            set_merge_policy(writer, merge);
            let mut commit = writer.prepare_commit()?;
            if let Some(note) = note {
                commit.set_payload(note);
            }
            commit.commit()
        })?;
        self.added = HashSet::new();
        self.deleted = HashSet::new();
        self.adopted.clear();
        self.committed = self.snapshots.searcher()?;
        Ok(())
    }

    /// Adds all documents of another index, which has the same settings, by linking its files: nothing is copied or encoded
    /// anew, and the commit makes all of them visible in one step. A document whose id is taken is replaced.
    ///
    /// The documents must be committed, and none of them deleted. Deletes of this writer before the call are of older documents.
    ///
    /// # Errors
    /// An index of other settings, or with deleted documents; documents that this writer added and did not commit; a disk that is
    /// full or fails.
    pub fn adopt(&mut self, other: &ImpactIndex) -> Result<()> {
        if *other.settings() != self.settings {
            return Err(Error::file(other.dir(), "its settings are not those of the index that it is added to"));
        }
        if !self.added.is_empty() {
            return Err(Error::invalid("documents were added before those of another index", "commit them first"));
        }
        let documents = other.searcher()?;
        let segments = documents.tantivy().segment_readers();
        if segments.iter().any(|segment| segment.has_deletes()) {
            return Err(Error::file(other.dir(), "it has deleted documents: merge it first"));
        }
        for address in documents.addresses() {
            let id = documents.id(address)?;
            if self.is_taken(&id)? {
                self.delete_term(&id);
            }
            self.counts.documents += 1;
        }
        // a merge before the commit would hide which segments are adopted
        self.write(|writer| {
            set_merge_policy(writer, false);
            Ok(())
        })?;
        for segment in segments {
            self.adopted.insert(segment.segment_id());
            self.directory.link_segment(other.directory(), &segment.segment_id().uuid_string())?;
            let meta = self.index.new_segment_meta(segment.segment_id(), segment.max_doc());
            meta.untrack_temp_docstore();
            self.write(|writer| writer.add_segment(meta))?;
        }
        Ok(())
    }

    /// Waits for background merges, closes tantivy's writer and removes the files that belong to no segment any more.
    fn close(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        self.directory.run(|| Ok(writer.wait_merging_threads()?))?;
        self.remove_dead_files()
    }

    /// Removes files that belong to no segment, unless another writer has the lock by now: that one has removed them.
    fn remove_dead_files(&self) -> Result<()> {
        match self.directory.acquire_lock(&INDEX_WRITER_LOCK) {
            Ok(_lock) => remove_dead_files(&self.index, &self.directory),
            Err(_) => Ok(()),
        }
    }

    /// Runs a call of tantivy's writer. After a failure there is no other: workers that have stopped have lost documents.
    fn write<T>(&mut self, call: impl FnOnce(&mut IndexWriter) -> tantivy::Result<T>) -> Result<()> {
        let writer = self.writer.as_mut().filter(|_| !self.failed);
        let Some(writer) = writer else {
            return Err(Error::file(self.directory.path(), "writing failed before: open another writer"));
        };
        let result = self.directory.run(|| match call(writer) {
            // tantivy's error states only that a worker has stopped; the worker's error has the reason
            Err(error @ TantivyError::ErrorInThread(_)) => Err(writer.prepare_commit().err().unwrap_or(error).into()),
            result => Ok(result.map(|_| ())?),
        });
        self.failed = result.is_err();
        result
    }

    /// Numbers so far.
    #[must_use]
    pub fn counts(&self) -> WriteCounts {
        self.counts
    }

    fn is_taken(&self, id: &str) -> Result<bool> {
        Ok(self.added.contains(id) || (!self.deleted.contains(id) && self.committed.find(id)?.is_some()))
    }

    fn counted(&mut self, id: &str) {
        self.added.insert(id.to_owned());
        self.counts.documents += 1;
    }
}

impl Drop for ImpactWriter {
    /// Removes what was not committed.
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        // the next writer does what fails here
        let _ = self.directory.run(|| {
            if self.failed {
                // running merges would write further files
                writer.wait_merging_threads()?;
            } else {
                drop(writer);
            }
            Ok(())
        });
        let _ = self.remove_dead_files();
    }
}

fn open_writer(index: &Index, directory: &CheckedDirectory, threads: usize, memory: usize) -> Result<IndexWriter> {
    directory.clear_write_failure();
    directory.run(|| Ok(index.writer_with_num_threads(threads, memory)?))
}

/// Removes the files that belong to no segment of the last commit. The caller must hold the writer lock.
fn remove_dead_files(index: &Index, directory: &CheckedDirectory) -> Result<()> {
    let live = directory.run(|| Ok(index.load_metas()?.list_segment_files()))?;
    directory.remove_leftovers(&live)
}

fn set_merge_policy(writer: &IndexWriter, merge: bool) {
    writer.set_merge_policy(if merge { Box::new(merge_policy()) } else { Box::new(NoMergePolicy) });
}

/// Merges eight segments of a size as they accumulate, and segments that lost many of their documents.
fn merge_policy() -> LogMergePolicy {
    let mut policy = LogMergePolicy::default();
    policy.set_del_docs_ratio_before_merge(DELETED_BEFORE_MERGE);
    policy
}

/// Share of deleted documents above which a segment is merged.
const DELETED_BEFORE_MERGE: f32 = 0.3;
/// tantivy's minimum.
const MIN_MEMORY_PER_THREAD: usize = 15_000_000;
/// A little less than tantivy's maximum.
const MAX_MEMORY_PER_THREAD: usize = 4_000_000_000;
