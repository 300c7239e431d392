//! [`Snapshots`]: the searchers of an index, one for each commit.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tantivy::directory::error::OpenReadError;
use tantivy::index::{SegmentId, SegmentReader};
use tantivy::{Index, IndexReader, ReloadPolicy, TantivyError};

use splade_core::dense::DenseFile;
use splade_core::segment::SegmentFile;

use crate::directory::CheckedDirectory;
use crate::schema::Fields;
use crate::settings::Manifest;
use crate::{Error, IndexSettings, Result, Searcher};
use crate::{dense_plugin, plugin};

/// Attempts to open the segments of `meta.json` while a writer replaces them.
const ATTEMPTS: usize = 100;

/// Opens a searcher for each commit. An index and its writer share it.
pub(crate) struct Snapshots {
    /// the index folder
    dir: PathBuf,
    settings: IndexSettings,
    fields: Fields,
    directory: CheckedDirectory,
    reader: IndexReader,
    /// opened segment files: a segment never changes, so they are opened once
    files: Mutex<HashMap<SegmentId, Arc<SegmentFile>>>,
    /// the same of dense vectors; empty in an index without them
    dense_files: Mutex<HashMap<SegmentId, Arc<DenseFile>>>,
    /// the last searcher, with the `meta.json` that was read before it was opened
    last: Mutex<Option<(Vec<u8>, Searcher)>>,
}

impl Snapshots {
    /// The snapshots of the index folder `dir`.
    pub(crate) fn new(
        dir: &Path,
        settings: IndexSettings,
        fields: Fields,
        directory: CheckedDirectory,
        index: &Index,
    ) -> Result<Self> {
        let open = || Ok(index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?);
        let reader = directory.run(|| while_files_vanish(&directory, open))?;
        let (files, dense_files, last) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { dir: dir.to_owned(), settings, fields, directory, reader, files, dense_files, last })
    }

    pub(crate) fn settings(&self) -> &IndexSettings {
        &self.settings
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    pub(crate) fn directory(&self) -> &CheckedDirectory {
        &self.directory
    }

    /// The searcher of the last commit. Without a new commit it is the one before, and only `meta.json` is read.
    pub(crate) fn searcher(&self) -> Result<Searcher> {
        // read first: if a commit follows, the next call opens a searcher again
        let meta = self.directory.read_meta()?;
        let mut last = lock(&self.last);
        if let Some((_, searcher)) = last.as_ref().filter(|(seen, _)| *seen == meta) {
            return Ok(searcher.clone());
        }
        if last.is_some() {
            self.expect_unreplaced()?;
        }
        let open = || {
            self.reader.reload()?;
            Searcher::open(self, self.reader.searcher())
        };
        let searcher = self.directory.run(|| while_files_vanish(&self.directory, open))?;
        let open: HashSet<SegmentId> =
            searcher.tantivy().segment_readers().iter().map(SegmentReader::segment_id).collect();
        lock(&self.files).retain(|id, _| open.contains(id));
        lock(&self.dense_files).retain(|id, _| open.contains(id));
        *last = Some((meta, searcher.clone()));
        Ok(searcher)
    }

    /// Refuses the folder of another index, which took the place of this one.
    fn expect_unreplaced(&self) -> Result<()> {
        if Manifest::read(&self.dir)?.settings == self.settings {
            return Ok(());
        }
        Err(Error::file(&self.dir, "another index has replaced this one: open it again"))
    }

    /// The file of a segment, opened and checked once.
    pub(crate) fn segment_file(&self, reader: &SegmentReader) -> Result<Arc<SegmentFile>> {
        if let Some(file) = lock(&self.files).get(&reader.segment_id()) {
            return Ok(Arc::clone(file));
        }
        let bytes = plugin::read_file(reader, &self.directory, plugin::EXTENSION)?;
        let file = SegmentFile::open(bytes, &self.settings.identity(), reader.max_doc());
        let file = Arc::new(file.map_err(|defect| self.damaged(reader, defect))?);
        lock(&self.files).insert(reader.segment_id(), Arc::clone(&file));
        Ok(file)
    }

    /// The file of dense vectors of a segment, opened and checked once; none in an index without dense vectors.
    pub(crate) fn dense_file(&self, reader: &SegmentReader) -> Result<Option<Arc<DenseFile>>> {
        let Some(dense) = &self.settings.dense else { return Ok(None) };
        if let Some(file) = lock(&self.dense_files).get(&reader.segment_id()) {
            return Ok(Some(Arc::clone(file)));
        }
        let file = Arc::new(dense_plugin::open_file(reader, &self.directory, &dense.identity())?);
        lock(&self.dense_files).insert(reader.segment_id(), Arc::clone(&file));
        Ok(Some(file))
    }

    /// The error of a segment file with a defect.
    pub(crate) fn damaged(&self, reader: &SegmentReader, defect: String) -> Error {
        Error::damaged(self.directory.path().join(plugin::file_name(reader)), defect)
    }
}

/// Locks a mutex whose data stays valid if a thread panics with the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `open` again while a writer removes files between the reading of `meta.json` and their opening.
fn while_files_vanish<T>(directory: &CheckedDirectory, open: impl Fn() -> Result<T>) -> Result<T> {
    let mut before = directory.read_meta()?;
    for _ in 1..ATTEMPTS {
        match open() {
            Err(Error::Tantivy(TantivyError::OpenReadError(error))) if is_missing(&error) => {}
            result => return result,
        }
        let now = directory.read_meta()?;
        if now == before {
            break;
        }
        before = now;
    }
    open()
}

/// True for the error of a file that is not there.
fn is_missing(error: &OpenReadError) -> bool {
    match error {
        OpenReadError::FileDoesNotExist(_) => true,
        OpenReadError::IoError { io_error, .. } => io_error.kind() == std::io::ErrorKind::NotFound,
        OpenReadError::IncompatibleIndex(_) => false,
    }
}
