//! The impact index: documents with their sparse vectors, on disk, searched by exact dot product.
//!
//! tantivy keeps the documents, ids, BM25 postings, segments, commits, deletes and merges; our file beside every
//! segment keeps the vectors: [`splade_core::segment`].

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tantivy::index::{SegmentId, SegmentReader};
use tantivy::tokenizer::TokenizerManager;
use tantivy::{Index, IndexReader, ReloadPolicy, TantivyError};

use crate::analyzer::{analyzer, analyzer_name};
use crate::directory::IndexDirectory;
use crate::plugin::{self, ImpactPlugin};
use crate::schema::Fields;
use crate::settings;
use crate::{Error, Result};
use crate::{ImpactWriter, IndexSettings, Searcher, WriterOptions};
use splade_core::segment::SegmentFile;

/// tantivy's part of an index folder.
const TANTIVY_DIR: &str = "tantivy";
/// What a query needs beside the index: tokenizer and query weights.
const QUERY_DIR: &str = "query";

/// An index folder: `manifest.json`, `tantivy/`, and `query/` for whoever encodes the queries.
///
/// ```
/// use splade_index::{ImpactIndex, IndexSettings, SearchOptions, StoredDocument, WriterOptions};
/// use splade_core::SparseVector;
///
/// let folder = tempfile::tempdir()?;
/// let index = ImpactIndex::create(folder.path(), &IndexSettings::new(30_000, "model", "tokenizer"))?;
/// let mut writer = index.writer(WriterOptions::default())?;
/// let document = StoredDocument { id: "d1".into(), text: "Oslo er hovedstaden".into(), ..Default::default() };
/// writer.add(&document, &SparseVector::from_pairs([(12, 0.5), (845, 2.0)])?)?;
/// writer.finish()?;
///
/// let searcher = ImpactIndex::open(folder.path())?.searcher()?;
/// let query = SparseVector::from_pairs([(845, 1.5)])?;
/// let found = searcher.search(&query, 10, &SearchOptions::default())?;
/// assert_eq!((found[0].hit.id.as_str(), found[0].hit.score), ("d1", 3.0));
/// assert_eq!(searcher.document(found[0].address)?, document);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ImpactIndex {
    dir: PathBuf,
    settings: IndexSettings,
    fields: Fields,
    index: Index,
    reader: IndexReader,
    /// opened segment files: a segment never changes, so they are checked once
    files: Mutex<HashMap<SegmentId, Arc<SegmentFile>>>,
}

/// What an index holds.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct IndexStats {
    /// living documents
    pub documents: u64,
    /// deleted documents whose room was not yet freed
    pub deleted_documents: u64,
    /// weights of living documents
    pub postings: u64,
    /// mean number of weights of a living document; 0 without documents
    pub active_dims_mean: f64,
    /// terms that occur, in living or deleted documents
    pub active_terms: u64,
    /// segments
    pub segments: usize,
    /// bytes of the vectors: all `.spl` files
    pub vector_bytes: u64,
    /// bytes of the whole folder
    pub total_bytes: u64,
}

impl ImpactIndex {
    /// Creates an index in `dir`, which is made if need be and must not hold an index yet.
    ///
    /// # Errors
    /// A folder that holds an index or cannot be written; a vocabulary of no terms.
    pub fn create(dir: &Path, settings: &IndexSettings) -> Result<Self> {
        if settings.vocabulary_size == 0 {
            return Err(Error::invalid("an index needs a vocabulary of at least one term", ""));
        }
        if dir.join(settings::MANIFEST_FILE).exists() || dir.join(TANTIVY_DIR).exists() {
            return Err(Error::file(dir, "there is an index already"));
        }
        let tantivy_dir = dir.join(TANTIVY_DIR);
        std::fs::create_dir_all(&tantivy_dir).map_err(Error::io(&tantivy_dir))?;
        let (fields, schema) = Fields::build(settings.language, settings.analyzer);
        let plugin = ImpactPlugin { identity: settings.identity(), id: fields.id, vector: fields.vector };
        let index = Index::builder()
            .schema(schema)
            .tokenizers(tokenizers(settings))
            .register_plugin(Arc::new(plugin))
            .open_or_create(IndexDirectory::open(&tantivy_dir)?)?;
        // last, so that a folder with a manifest is complete
        settings.save(dir)?;
        Self::from_parts(dir, settings.clone(), fields, index)
    }

    /// Whether `dir` holds an index, of whatever version.
    #[must_use]
    pub fn is_at(dir: &Path) -> bool {
        dir.join(settings::MANIFEST_FILE).is_file()
    }

    /// Opens the index in `dir`.
    ///
    /// # Errors
    /// No index there; one of another version; one that is damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        let settings = IndexSettings::load(dir)?;
        let (fields, schema) = Fields::build(settings.language, settings.analyzer);
        let tantivy_dir = dir.join(TANTIVY_DIR);
        let mut index = Index::open(IndexDirectory::open(&tantivy_dir)?)?;
        if index.schema() != schema || index.settings().sort_by_field.is_some() {
            return Err(Error::file(&tantivy_dir, "its fields are not those of a splade index"));
        }
        index.set_tokenizers(tokenizers(&settings));
        index.register_plugin(Arc::new(ImpactPlugin {
            identity: settings.identity(),
            id: fields.id,
            vector: fields.vector,
        }));
        Self::from_parts(dir, settings, fields, index)
    }

    fn from_parts(dir: &Path, settings: IndexSettings, fields: Fields, index: Index) -> Result<Self> {
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { dir: dir.to_owned(), settings, fields, index, reader, files: Mutex::default() })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where tokenizer and query weights belong, so that the folder alone is enough to search.
    #[must_use]
    pub fn query_dir(&self) -> PathBuf {
        self.dir.join(QUERY_DIR)
    }

    /// What the index was made for.
    #[must_use]
    pub fn settings(&self) -> &IndexSettings {
        &self.settings
    }

    /// Makes sure that vectors of a model belong in this index.
    ///
    /// # Errors
    /// Another vocabulary size, model or tokenizer than the index was made for; the message says which.
    pub fn expect_model(&self, vocabulary_size: u32, model: &str, tokenizer: &str) -> Result<()> {
        let ours = &self.settings;
        let differences = [
            ("vocabulary size", ours.vocabulary_size.to_string(), vocabulary_size.to_string()),
            ("tokenizer", ours.tokenizer_fingerprint.clone(), tokenizer.to_owned()),
            ("model", ours.model_fingerprint.clone(), model.to_owned()),
        ];
        match differences.into_iter().find(|(_, index, model)| index != model) {
            None => Ok(()),
            Some((what, index, model)) => {
                // the start of a fingerprint tells two models apart
                let (index, model): (String, String) =
                    (index.chars().take(12).collect(), model.chars().take(12).collect());
                let dir = self.dir.display();
                Err(Error::invalid(
                    format!("{dir}: built with another model: its {what} is {index}, the model's is {model}"),
                    "give the model that the index was built with, or make the index anew",
                ))
            }
        }
    }

    /// Opens the writer, of which there is one at a time, in all processes.
    ///
    /// # Errors
    /// Another writer at work; a folder that cannot be written.
    pub fn writer(&self, options: WriterOptions) -> Result<ImpactWriter> {
        ImpactWriter::open(self, options).map_err(|error| match error {
            Error::Tantivy(TantivyError::LockFailure(..)) => Error::file(&self.dir, "another writer is at work"),
            error => error,
        })
    }

    /// A snapshot of the last commit.
    ///
    /// # Errors
    /// A segment that is damaged.
    pub fn searcher(&self) -> Result<Searcher> {
        self.reader.reload()?;
        let searcher = Searcher::open(self, self.reader.searcher())?;
        let open: HashSet<SegmentId> =
            searcher.tantivy().segment_readers().iter().map(SegmentReader::segment_id).collect();
        self.cache().retain(|id, _| open.contains(id));
        Ok(searcher)
    }

    /// Reads every byte: the checksums of all files, then every value of ours. Takes as long as reading the folder.
    ///
    /// # Errors
    /// The first damage found, with the file's name.
    pub fn verify(&self) -> Result<()> {
        let mut damaged: Vec<PathBuf> = self.index.validate_checksum()?.into_iter().collect();
        damaged.sort();
        if let Some(path) = damaged.first() {
            return Err(Error::file(self.dir.join(TANTIVY_DIR).join(path), "damaged: its checksum is wrong"));
        }
        let searcher = self.searcher()?;
        for (reader, file) in searcher.tantivy().segment_readers().iter().zip(searcher.files()) {
            file.check().map_err(|defect| self.damaged(reader, defect))?;
        }
        Ok(())
    }

    /// Numbers about the last commit.
    ///
    /// # Errors
    /// A segment that is damaged, a folder that cannot be read.
    pub fn stats(&self) -> Result<IndexStats> {
        let searcher = self.searcher()?;
        let mut postings = 0;
        let mut terms: Vec<u32> = searcher.files().iter().flat_map(|file| file.term_ids()).collect();
        terms.sort_unstable();
        terms.dedup();
        let mut vector_bytes = 0;
        let mut deleted_documents = 0;
        for (reader, file) in searcher.tantivy().segment_readers().iter().zip(searcher.files()) {
            let living = reader.doc_ids_alive().map(|doc| file.row(doc).len() as u64);
            postings += if reader.has_deletes() { living.sum() } else { file.n_postings() };
            deleted_documents += u64::from(reader.num_deleted_docs());
            vector_bytes += file.len_bytes();
        }
        let documents = searcher.len() as u64;
        Ok(IndexStats {
            documents,
            deleted_documents,
            postings,
            active_dims_mean: if documents == 0 { 0.0 } else { postings as f64 / documents as f64 },
            active_terms: terms.len() as u64,
            segments: searcher.files().len(),
            vector_bytes,
            total_bytes: folder_bytes(&self.dir)?,
        })
    }

    /// Removes the files that belong to no segment of the last commit. Only for the holder of the writer lock.
    pub(crate) fn remove_leftovers(&self) -> Result<()> {
        let live = self.index.load_metas()?.list_segment_files();
        splade_files::remove_leftovers(&self.dir);
        IndexDirectory::open(&self.dir.join(TANTIVY_DIR))?.remove_leftovers(&live)
    }

    pub(crate) fn tantivy(&self) -> &Index {
        &self.index
    }

    pub(crate) fn fields(&self) -> Fields {
        self.fields
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<SegmentId, Arc<SegmentFile>>> {
        // the map is whole whatever thread died holding it
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self, reader: &SegmentReader, defect: String) -> Error {
        Error::file(self.dir.join(TANTIVY_DIR).join(plugin::file_name(reader)), defect)
    }

    /// The file of a segment, opened and checked once.
    pub(crate) fn segment_file(&self, reader: &SegmentReader) -> Result<Arc<SegmentFile>> {
        if let Some(file) = self.cache().get(&reader.segment_id()) {
            return Ok(Arc::clone(file));
        }
        let bytes = plugin::read_file(reader)?;
        let file = SegmentFile::open(bytes, &self.settings.identity(), reader.max_doc());
        let file = Arc::new(file.map_err(|defect| self.damaged(reader, defect))?);
        self.cache().insert(reader.segment_id(), Arc::clone(&file));
        Ok(file)
    }
}

fn tokenizers(settings: &IndexSettings) -> TokenizerManager {
    let tokenizers = TokenizerManager::default();
    let (language, version) = (settings.language, settings.analyzer);
    tokenizers.register(&analyzer_name(language, version), analyzer(language, version));
    tokenizers
}

fn folder_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        let metadata = entry.metadata().map_err(Error::io(entry.path()))?;
        bytes += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
